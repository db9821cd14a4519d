/* jinja_string.c - methods of strings, as Python's str has them, in characters. */
#include "jinja_string.h"

#include <string.h>

/* --- what filters use too ------------------------------------------------------------------- */

static jv keep_safe(jv r, jv from) {
    r.safe = from.safe;
    return r;
}

static bool has_char(jv set, const char *p, size_t n) {
    for (size_t at = 0; at < set.u.s.n;) {
        const size_t k = jt_step(set.u.s.p + at, set.u.s.n - at);
        if (k == n && memcmp(set.u.s.p + at, p, n) == 0) return true;
        at += k;
    }
    return false;
}

jv jin_strip(jin *J, jv s, jv chars, bool left, bool right) {
    const char *p = s.u.s.p;
    size_t      n = s.u.s.n, at = 0;
    if (chars.type == JV_NONE || chars.type == JV_MISSING) {
        if (right) n = jt_rstrip(p, n);
        if (left) at = jt_lspace(p, n);
        return keep_safe(jv_str(p + at, n - at), s);
    }
    if (chars.type != JV_STR) jin_fail(J, GDN_E_FORMAT, "strip expects a string or none");
    jin_work(J, 1 + n / 64 * (1 + chars.u.s.n / 8));
    while (left && at < n) {
        const size_t k = jt_step(p + at, n - at);
        if (!has_char(chars, p + at, k)) break;
        at += k;
    }
    while (right && n > at) {
        size_t from = n - 1;
        while (from > at && ((unsigned char)p[from] & 0xc0) == 0x80) from--;
        if (!has_char(chars, p + from, n - from)) break;
        n = from;
    }
    return keep_safe(jv_str(p + at, n - at), s);
}

jv jin_replace(jin *J, jv s, jv from, jv to, int64_t count) {
    jsb    b = {.J = J};
    size_t at = 0;
    if (count < 0) count = INT64_MAX;
    jin_work(J, 1 + s.u.s.n / 16);
    if (from.u.s.n == 0) { /* before every character and at the end */
        for (; count > 0 && at < s.u.s.n; count--) {
            const size_t k = jt_step(s.u.s.p + at, s.u.s.n - at);
            jsb_add(&b, to.u.s.p, to.u.s.n);
            jsb_add(&b, s.u.s.p + at, k);
            at += k;
        }
        if (count > 0) jsb_add(&b, to.u.s.p, to.u.s.n);
    }
    while (from.u.s.n > 0 && count-- > 0) {
        const char *hit = memmem(s.u.s.p + at, s.u.s.n - at, from.u.s.p, from.u.s.n);
        if (hit == NULL) break;
        const size_t k = (size_t)(hit - s.u.s.p);
        jsb_add(&b, s.u.s.p + at, k - at);
        jsb_add(&b, to.u.s.p, to.u.s.n);
        at = k + from.u.s.n;
    }
    if (at == 0 && b.n == 0) return s;
    jsb_add(&b, s.u.s.p + at, s.u.s.n - at);
    return keep_safe(jsb_done(&b), s);
}

/* A capital sigma at the end of a word has a form of its own. */
static bool final_sigma(const char *p, size_t n, size_t at, size_t used) {
    size_t before = at, k;
    while (before > 0 && ((unsigned char)p[--before] & 0xc0) == 0x80) continue;
    if (at == 0 || !jt_alpha(jt_decode(p + before, at - before, &k))) return false;
    return at + used >= n || !jt_alpha(jt_decode(p + at + used, n - at - used, &k));
}

static void add_case(jsb *b, const char *p, size_t n, size_t at, size_t used, jt_case how) {
    uint32_t       out[3];
    size_t         k;
    const uint32_t c = jt_decode(p + at, n - at, &k);
    if (c == 0x3a3 && how == JT_LOWER) {
        jsb_rune(b, final_sigma(p, n, at, used) ? 0x3c2 : 0x3c3);
        return;
    }
    const int m = jt_map(c, how, out);
    for (int i = 0; i < m; i++) jsb_rune(b, out[i]);
}

jv jin_map_case(jin *J, jv s, jt_case how) {
    jsb  b = {.J = J};
    bool word = false; /* title: inside a word */
    jin_work(J, 1 + s.u.s.n / 16);
    for (size_t at = 0, k; at < s.u.s.n; at += k) {
        const uint32_t c = jt_decode(s.u.s.p + at, s.u.s.n - at, &k);
        add_case(&b, s.u.s.p, s.u.s.n, at, k, how == JT_TITLE && word ? JT_LOWER : how);
        word = jt_upper(c) || jt_lower(c) || (jt_alpha(c) && c >= 0x1c5 && c <= 0x1f2);
    }
    return keep_safe(jsb_done(&b), s);
}

jv jin_capitalize(jin *J, jv s) {
    jsb b = {.J = J};
    for (size_t at = 0, k; at < s.u.s.n; at += k) {
        k = jt_step(s.u.s.p + at, s.u.s.n - at);
        add_case(&b, s.u.s.p, s.u.s.n, at, k, at == 0 ? JT_TITLE : JT_LOWER);
    }
    return keep_safe(jsb_done(&b), s);
}

bool jin_is_case(jv s, bool upper) {
    bool any = false;
    for (size_t at = 0, k; at < s.u.s.n; at += k) {
        const uint32_t c = jt_decode(s.u.s.p + at, s.u.s.n - at, &k);
        if (upper ? jt_lower(c) : jt_upper(c)) return false;
        any = any || (upper ? jt_upper(c) : jt_lower(c));
    }
    return any;
}

jv jin_join(jin *J, jv sep, jv seq, bool strict) {
    jsb     b = {.J = J};
    jv_iter it = jv_iterate(J, seq);
    jv      x;
    for (bool more = false; jv_next(J, &it, &x); more = true) {
        if (more) jsb_add(&b, sep.u.s.p, sep.u.s.n);
        if (strict && x.type != JV_STR)
            jin_fail(J, GDN_E_FORMAT, "join: expected a string, found %s", jv_type_name(&x));
        const jv s = strict && sep.safe ? jin_escape(J, x) : jin_str(J, x);
        jsb_add(&b, s.u.s.p, s.u.s.n);
    }
    return strict ? keep_safe(jsb_done(&b), sep) : jsb_done(&b);
}

jv jin_split_lines(jin *J, jv s, bool keep_ends) {
    jvec   l = {.J = J};
    size_t start = 0, at = 0, k;
    while (at < s.u.s.n) {
        const uint32_t c = jt_decode(s.u.s.p + at, s.u.s.n - at, &k);
        if (!jt_line_end(c)) {
            at += k;
            continue;
        }
        const size_t end = at;
        at += k;
        if (c == '\r' && at < s.u.s.n && s.u.s.p[at] == '\n') at++;
        jvec_add(&l, keep_safe(jv_str(s.u.s.p + start, (keep_ends ? at : end) - start), s));
        start = at;
    }
    if (start < s.u.s.n) jvec_add(&l, keep_safe(jv_str(s.u.s.p + start, s.u.s.n - start), s));
    return jvec_done(&l, SEQ_LIST);
}

jv jin_pad(jin *J, jv s, int64_t width, uint32_t fill, int side) {
    jsb     b = {.J = J};
    int64_t gap = width - (int64_t)jt_count(s.u.s.p, s.u.s.n);
    if (width <= 0 || gap <= 0) return s;
    if ((uint64_t)gap > J->bytes_max) jin_fail(J, GDN_E_FULL, "padding of %lld", (long long)gap);
    jin_work(J, (size_t)gap / 8);
    const int64_t left = side < 0 ? 0 : side > 0 ? gap : gap / 2 + (gap & width & 1);
    for (int64_t i = 0; i < left; i++) jsb_rune(&b, fill);
    jsb_add(&b, s.u.s.p, s.u.s.n);
    for (int64_t i = left; i < gap; i++) jsb_rune(&b, fill);
    return keep_safe(jsb_done(&b), s);
}

/* --- methods ----------------------------------------------------------------------------------- */

static jv m_upper(jin *J, jv s, const jargs *a) {
    jin_bind(J, "upper", a, "", NULL);
    return jin_map_case(J, s, JT_UPPER);
}
static jv m_lower(jin *J, jv s, const jargs *a) {
    jin_bind(J, "lower", a, "", NULL);
    return jin_map_case(J, s, JT_LOWER);
}
static jv m_title(jin *J, jv s, const jargs *a) {
    jin_bind(J, "title", a, "", NULL);
    return jin_map_case(J, s, JT_TITLE);
}
static jv m_capitalize(jin *J, jv s, const jargs *a) {
    jin_bind(J, "capitalize", a, "", NULL);
    return jin_capitalize(J, s);
}

static jv strip(jin *J, jv s, const jargs *a, const char *who, bool left, bool right) {
    jv chars;
    jin_bind(J, who, a, "/chars", &chars);
    return jin_strip(J, s, chars, left, right);
}
static jv m_strip(jin *J, jv s, const jargs *a) { return strip(J, s, a, "strip", true, true); }
static jv m_lstrip(jin *J, jv s, const jargs *a) { return strip(J, s, a, "lstrip", true, false); }
static jv m_rstrip(jin *J, jv s, const jargs *a) { return strip(J, s, a, "rstrip", false, true); }

static jv part(jv s, size_t from, size_t to) { return keep_safe(jv_str(s.u.s.p + from, to - from), s); }

/* Runs of white space separate; what is left after max splits keeps its inner space. */
static void split_space(jv s, int64_t max, jvec *l) {
    size_t at = jt_lspace(s.u.s.p, s.u.s.n);
    while (at < s.u.s.n && max-- > 0) {
        size_t end = at, k;
        while (end < s.u.s.n && !jt_space(jt_decode(s.u.s.p + end, s.u.s.n - end, &k))) end += k;
        jvec_add(l, part(s, at, end));
        at = end + jt_lspace(s.u.s.p + end, s.u.s.n - end);
    }
    if (at < s.u.s.n) jvec_add(l, part(s, at, s.u.s.n));
}

static size_t step_back(const char *p, size_t at) {
    while (at > 0 && ((unsigned char)p[--at] & 0xc0) == 0x80) continue;
    return at;
}

static void rsplit_space(jv s, int64_t max, jvec *l) {
    size_t end = jt_rstrip(s.u.s.p, s.u.s.n), k;
    while (end > 0 && max-- > 0) {
        size_t from = end;
        while (from > 0) {
            const size_t b = step_back(s.u.s.p, from);
            if (jt_space(jt_decode(s.u.s.p + b, from - b, &k))) break;
            from = b;
        }
        jvec_add(l, part(s, from, end));
        end = jt_rstrip(s.u.s.p, from);
    }
    if (end > 0) jvec_add(l, part(s, 0, end));
}

/* The last place of sub in p[0, n), or SIZE_MAX. */
static size_t find_last(jin *J, const char *p, size_t n, const char *sub, size_t n_sub) {
    if (n_sub > n) return SIZE_MAX;
    for (size_t at = n - n_sub + 1; at-- > 0;) {
        if (p[at] != *sub) continue;
        jin_work(J, 1 + n_sub / 64);
        if (memcmp(p + at, sub, n_sub) == 0) return at;
    }
    return SIZE_MAX;
}

static void split_at(jin *J, jv s, jv sep, int64_t max, bool right, jvec *l) {
    size_t from = 0, to = s.u.s.n;
    if (sep.u.s.n == 0) jin_fail(J, GDN_E_FORMAT, "split: empty separator");
    while (max-- > 0) {
        if (right) {
            const size_t at = find_last(J, s.u.s.p, to, sep.u.s.p, sep.u.s.n);
            if (at == SIZE_MAX) break;
            jvec_add(l, part(s, at + sep.u.s.n, to));
            to = at;
        } else {
            const char *hit = memmem(s.u.s.p + from, to - from, sep.u.s.p, sep.u.s.n);
            if (hit == NULL) break;
            jvec_add(l, part(s, from, (size_t)(hit - s.u.s.p)));
            from = (size_t)(hit - s.u.s.p) + sep.u.s.n;
        }
    }
    jvec_add(l, part(s, from, to));
}

static jv split(jin *J, jv s, const jargs *a, const char *who, bool right) {
    jv   arg[2];
    jvec l = {.J = J};
    jin_bind(J, who, a, "sep,maxsplit", arg);
    int64_t max = jin_arg_int(J, who, arg[1], -1);
    if (max < 0) max = INT64_MAX;
    jin_work(J, 1 + s.u.s.n / 16);
    if (arg[0].type == JV_MISSING || arg[0].type == JV_NONE)
        right ? rsplit_space(s, max, &l) : split_space(s, max, &l);
    else
        split_at(J, s, jin_arg_str(J, who, arg[0]), max, right, &l);
    for (size_t i = 0; right && i < l.n / 2; i++) { /* found from the end */
        const jv t = l.v[i];
        l.v[i] = l.v[l.n - 1 - i], l.v[l.n - 1 - i] = t;
    }
    return jvec_done(&l, SEQ_LIST);
}
static jv m_split(jin *J, jv s, const jargs *a) { return split(J, s, a, "split", false); }
static jv m_rsplit(jin *J, jv s, const jargs *a) { return split(J, s, a, "rsplit", true); }

static jv m_splitlines(jin *J, jv s, const jargs *a) {
    jv keep;
    jin_bind(J, "splitlines", a, "keepends", &keep);
    jin_work(J, 1 + s.u.s.n / 16);
    return jin_split_lines(J, s, jin_arg_bool(J, keep, false));
}

static jv m_replace(jin *J, jv s, const jargs *a) {
    jv arg[3];
    jin_bind(J, "replace", a, "/old,new,count", arg);
    jv from = jin_arg_str(J, "replace", arg[0]), to = jin_arg_str(J, "replace", arg[1]);
    if (s.safe) to = jin_escape(J, to);
    return jin_replace(J, s, from, to, jin_arg_int(J, "replace", arg[2], -1));
}

static jv m_join(jin *J, jv s, const jargs *a) {
    jv seq;
    jin_bind(J, "join", a, "/iterable", &seq);
    if (seq.type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "join expects an argument");
    return jin_join(J, s, seq, true);
}

/* The part of s that optional start and end select, in characters; *from is where it starts.
 * False when start lies past the end. */
static bool window(jin *J, jv s, const jv *bound, jv *out, int64_t *from) {
    const int64_t n = (int64_t)jt_count(s.u.s.p, s.u.s.n);
    int64_t       b[2] = {0, n};
    for (int i = 0; i < 2; i++) {
        if (bound[i].type == JV_MISSING || bound[i].type == JV_NONE) continue;
        b[i] = jin_arg_int(J, "a position", bound[i], 0);
        if (b[i] < 0) b[i] = b[i] + n < 0 ? 0 : b[i] + n;
        if (i == 1 && b[1] > n) b[1] = n;
    }
    *from = b[0];
    if (b[0] > n || b[1] < b[0]) return false;
    const size_t at = jt_offset(s.u.s.p, s.u.s.n, (size_t)b[0]);
    *out = part(s, at, at + jt_offset(s.u.s.p + at, s.u.s.n - at, (size_t)(b[1] - b[0])));
    return true;
}

static bool matches(jv s, jv affix, bool end) {
    if (affix.u.s.n > s.u.s.n) return false;
    return memcmp(end ? s.u.s.p + s.u.s.n - affix.u.s.n : s.u.s.p, affix.u.s.p, affix.u.s.n) == 0;
}

static jv affix(jin *J, jv s, const jargs *a, const char *who, bool end) {
    jv      arg[3], part_of = s;
    int64_t from;
    jin_bind(J, who, a, "/prefix,start,end", arg);
    const bool inside = window(J, s, arg + 1, &part_of, &from);
    if (arg[0].type == JV_SEQ && arg[0].u.seq->kind == SEQ_TUPLE) {
        bool any = false;
        for (size_t i = 0; i < arg[0].u.seq->n && !any; i++)
            any = matches(part_of, jin_arg_str(J, who, arg[0].u.seq->v[i]), end) && inside;
        return jv_bool(any);
    }
    const jv x = jin_arg_str(J, who, arg[0]);
    return jv_bool(inside && matches(part_of, x, end));
}
static jv m_startswith(jin *J, jv s, const jargs *a) { return affix(J, s, a, "startswith", false); }
static jv m_endswith(jin *J, jv s, const jargs *a) { return affix(J, s, a, "endswith", true); }

static jv remove_affix(jin *J, jv s, const jargs *a, const char *who, bool end) {
    jv arg;
    jin_bind(J, who, a, "/affix", &arg);
    const jv x = jin_arg_str(J, who, arg);
    if (x.u.s.n == 0 || !matches(s, x, end)) return s;
    return end ? part(s, 0, s.u.s.n - x.u.s.n) : part(s, x.u.s.n, s.u.s.n);
}
static jv m_removeprefix(jin *J, jv s, const jargs *a) {
    return remove_affix(J, s, a, "removeprefix", false);
}
static jv m_removesuffix(jin *J, jv s, const jargs *a) {
    return remove_affix(J, s, a, "removesuffix", true);
}

static jv find(jin *J, jv s, const jargs *a, const char *who, bool last, bool must) {
    jv      arg[3], w = s;
    int64_t from;
    jin_bind(J, who, a, "/sub,start,end", arg);
    const jv sub = jin_arg_str(J, who, arg[0]);
    size_t   at = SIZE_MAX;
    jin_work(J, 1 + s.u.s.n / 16);
    if (window(J, s, arg + 1, &w, &from)) {
        if (sub.u.s.n == 0) {
            at = last ? w.u.s.n : 0;
        } else if (last) {
            at = find_last(J, w.u.s.p, w.u.s.n, sub.u.s.p, sub.u.s.n);
        } else {
            const char *hit = memmem(w.u.s.p, w.u.s.n, sub.u.s.p, sub.u.s.n);
            if (hit != NULL) at = (size_t)(hit - w.u.s.p);
        }
    }
    if (at == SIZE_MAX && must) jin_fail(J, GDN_E_FORMAT, "%s: substring not found", who);
    return jv_int(at == SIZE_MAX ? -1 : from + (int64_t)jt_count(w.u.s.p, at));
}
static jv m_find(jin *J, jv s, const jargs *a) { return find(J, s, a, "find", false, false); }
static jv m_rfind(jin *J, jv s, const jargs *a) { return find(J, s, a, "rfind", true, false); }
static jv m_index(jin *J, jv s, const jargs *a) { return find(J, s, a, "index", false, true); }
static jv m_rindex(jin *J, jv s, const jargs *a) { return find(J, s, a, "rindex", true, true); }

static jv m_count(jin *J, jv s, const jargs *a) {
    jv      arg[3], w = s;
    int64_t from, n = 0;
    jin_bind(J, "count", a, "/sub,start,end", arg);
    const jv sub = jin_arg_str(J, "count", arg[0]);
    jin_work(J, 1 + s.u.s.n / 16);
    if (!window(J, s, arg + 1, &w, &from)) return jv_int(0);
    if (sub.u.s.n == 0) return jv_int((int64_t)jt_count(w.u.s.p, w.u.s.n) + 1);
    for (size_t at = 0;; n++) {
        const char *hit = memmem(w.u.s.p + at, w.u.s.n - at, sub.u.s.p, sub.u.s.n);
        if (hit == NULL) return jv_int(n);
        at = (size_t)(hit - w.u.s.p) + sub.u.s.n;
    }
}

static jv all_of(jin *J, jv s, const jargs *a, const char *who, bool (*is)(uint32_t)) {
    jin_bind(J, who, a, "", NULL);
    for (size_t at = 0, k; at < s.u.s.n; at += k)
        if (!is(jt_decode(s.u.s.p + at, s.u.s.n - at, &k))) return jv_bool(false);
    return jv_bool(s.u.s.n > 0);
}
static bool is_alnum(uint32_t c) { return jt_alpha(c) || jt_numeric(c); }
static jv m_isdigit(jin *J, jv s, const jargs *a) { return all_of(J, s, a, "isdigit", jt_digit); }
static jv m_isdecimal(jin *J, jv s, const jargs *a) { return all_of(J, s, a, "isdecimal", jt_decimal); }
static jv m_isnumeric(jin *J, jv s, const jargs *a) { return all_of(J, s, a, "isnumeric", jt_numeric); }
static jv m_isalpha(jin *J, jv s, const jargs *a) { return all_of(J, s, a, "isalpha", jt_alpha); }
static jv m_isalnum(jin *J, jv s, const jargs *a) { return all_of(J, s, a, "isalnum", is_alnum); }
static jv m_isspace(jin *J, jv s, const jargs *a) { return all_of(J, s, a, "isspace", jt_space); }
static jv m_isupper(jin *J, jv s, const jargs *a) {
    jin_bind(J, "isupper", a, "", NULL);
    return jv_bool(jin_is_case(s, true));
}
static jv m_islower(jin *J, jv s, const jargs *a) {
    jin_bind(J, "islower", a, "", NULL);
    return jv_bool(jin_is_case(s, false));
}

static jv pad(jin *J, jv s, const jargs *a, const char *who, int side) {
    jv     arg[2];
    size_t used = 0;
    jin_bind(J, who, a, "/width,fillchar", arg);
    if (arg[0].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "%s expects a width", who);
    const jv f = arg[1].type == JV_MISSING ? jv_str(" ", 1) : jin_arg_str(J, who, arg[1]);
    const uint32_t c = f.u.s.n > 0 ? jt_decode(f.u.s.p, f.u.s.n, &used) : 0;
    if (f.u.s.n == 0 || used != f.u.s.n)
        jin_fail(J, GDN_E_FORMAT, "%s: the fill must be one character", who);
    return jin_pad(J, s, jin_arg_int(J, who, arg[0], 0), c, side);
}
static jv m_ljust(jin *J, jv s, const jargs *a) { return pad(J, s, a, "ljust", -1); }
static jv m_rjust(jin *J, jv s, const jargs *a) { return pad(J, s, a, "rjust", 1); }
static jv m_center(jin *J, jv s, const jargs *a) { return pad(J, s, a, "center", 0); }

static jv m_zfill(jin *J, jv s, const jargs *a) {
    jv arg;
    jin_bind(J, "zfill", a, "/width", &arg);
    if (arg.type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "zfill expects a width");
    const int64_t width = jin_arg_int(J, "zfill", arg, 0);
    const bool    sign = s.u.s.n > 0 && (*s.u.s.p == '+' || *s.u.s.p == '-');
    if (!sign || width <= 0) return jin_pad(J, s, width, '0', 1);
    const jv digits = jin_pad(J, part(s, 1, s.u.s.n), width - 1, '0', 1);
    return jin_append(J, part(s, 0, 1), digits.u.s.p, digits.u.s.n);
}

static jv partition(jin *J, jv s, const jargs *a, const char *who, bool last) {
    jv arg;
    jin_bind(J, who, a, "/sep", &arg);
    const jv sep = jin_arg_str(J, who, arg), r = jv_list(J, 3, SEQ_TUPLE);
    if (sep.u.s.n == 0) jin_fail(J, GDN_E_FORMAT, "%s: empty separator", who);
    const char *hit = memmem(s.u.s.p, s.u.s.n, sep.u.s.p, sep.u.s.n);
    size_t      at = hit != NULL ? (size_t)(hit - s.u.s.p) : SIZE_MAX;
    if (last) at = find_last(J, s.u.s.p, s.u.s.n, sep.u.s.p, sep.u.s.n);
    for (int i = 0; i < 3; i++) r.u.seq->v[i] = jv_str("", 0);
    if (at == SIZE_MAX) {
        r.u.seq->v[last ? 2 : 0] = s;
        return r;
    }
    r.u.seq->v[0] = part(s, 0, at);
    r.u.seq->v[1] = sep;
    r.u.seq->v[2] = part(s, at + sep.u.s.n, s.u.s.n);
    return r;
}
static jv m_partition(jin *J, jv s, const jargs *a) { return partition(J, s, a, "partition", false); }
static jv m_rpartition(jin *J, jv s, const jargs *a) { return partition(J, s, a, "rpartition", true); }
static jv m_format(jin *J, jv s, const jargs *a) { return jin_str_format(J, s, a); }

static const jin_method_entry string_methods[] = {
    {"strip", m_strip},           {"lstrip", m_lstrip},         {"rstrip", m_rstrip},
    {"split", m_split},           {"rsplit", m_rsplit},         {"splitlines", m_splitlines},
    {"startswith", m_startswith}, {"endswith", m_endswith},     {"replace", m_replace},
    {"join", m_join},             {"upper", m_upper},           {"lower", m_lower},
    {"title", m_title},           {"capitalize", m_capitalize}, {"find", m_find},
    {"rfind", m_rfind},           {"index", m_index},           {"rindex", m_rindex},
    {"count", m_count},           {"isdigit", m_isdigit},       {"isdecimal", m_isdecimal},
    {"isnumeric", m_isnumeric},   {"isalpha", m_isalpha},       {"isalnum", m_isalnum},
    {"isspace", m_isspace},       {"isupper", m_isupper},       {"islower", m_islower},
    {"removeprefix", m_removeprefix}, {"removesuffix", m_removesuffix},
    {"ljust", m_ljust},           {"rjust", m_rjust},           {"center", m_center},
    {"zfill", m_zfill},           {"partition", m_partition},   {"rpartition", m_rpartition},
    {"format", m_format},
};

const jin_method_entry *jin_string_methods(size_t *n) {
    *n = sizeof string_methods / sizeof *string_methods;
    return string_methods;
}
