/* jinja_filter.c - filters on single values: strings, numbers, defaults, JSON. */
#include "jinja_string.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"

static void no_args(jin *J, const char *who, const jargs *a) { jin_bind(J, who, a, "", NULL); }

static jv f_upper(jin *J, jv v, const jargs *a) {
    no_args(J, "upper", a);
    return jin_map_case(J, jin_str(J, v), JT_UPPER);
}
static jv f_lower(jin *J, jv v, const jargs *a) {
    no_args(J, "lower", a);
    return jin_map_case(J, jin_str(J, v), JT_LOWER);
}
static jv f_capitalize(jin *J, jv v, const jargs *a) {
    no_args(J, "capitalize", a);
    return jin_capitalize(J, jin_str(J, v));
}

static bool title_break(uint32_t c) {
    return jt_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

/* Words begin after white space, hyphens and opening brackets only. */
static jv f_title(jin *J, jv v, const jargs *a) {
    jsb b = {.J = J};
    no_args(J, "title", a);
    const jv s = jin_str(J, v);
    for (size_t at = 0, k; at < s.u.s.n;) {
        size_t     end = at;
        const bool gap = title_break(jt_decode(s.u.s.p + at, s.u.s.n - at, &k));
        while (end < s.u.s.n && title_break(jt_decode(s.u.s.p + end, s.u.s.n - end, &k)) == gap) end += k;
        const size_t first = gap ? end - at : jt_step(s.u.s.p + at, end - at);
        const jv     head = jin_map_case(J, jv_str(s.u.s.p + at, first), JT_UPPER);
        const jv     tail = jin_map_case(J, jv_str(s.u.s.p + at + first, end - at - first), JT_LOWER);
        jsb_add(&b, head.u.s.p, head.u.s.n);
        jsb_add(&b, tail.u.s.p, tail.u.s.n);
        at = end;
    }
    return jsb_done(&b);
}

static jv f_trim(jin *J, jv v, const jargs *a) {
    jv chars;
    jin_bind(J, "trim", a, "chars", &chars);
    return jin_strip(J, jin_str(J, v), chars, true, true);
}

static jv plain(jv s) {
    s.safe = false;
    return s;
}

static jv f_replace(jin *J, jv v, const jargs *a) {
    jv arg[3];
    jin_bind(J, "replace", a, "old,new,count", arg);
    if (arg[1].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "replace expects two arguments");
    const int64_t count = arg[2].type == JV_NONE ? -1 : jin_arg_int(J, "replace", arg[2], -1);
    return jin_replace(J, plain(jin_str(J, v)), jin_str(J, arg[0]), jin_str(J, arg[1]), count);
}

static jv f_string(jin *J, jv v, const jargs *a) {
    no_args(J, "string", a);
    return jin_str(J, v);
}
static jv f_safe(jin *J, jv v, const jargs *a) {
    no_args(J, "safe", a);
    jv s = jin_str(J, v);
    s.safe = true;
    return s;
}
static jv f_escape(jin *J, jv v, const jargs *a) {
    no_args(J, "escape", a);
    return jin_escape(J, v);
}
static jv f_forceescape(jin *J, jv v, const jargs *a) {
    no_args(J, "forceescape", a);
    return jin_escape(J, plain(jin_str(J, v)));
}

static jv f_default(jin *J, jv v, const jargs *a) {
    jv arg[2];
    jin_bind(J, "default", a, "default_value,boolean", arg);
    const bool use = v.type == JV_UNDEF || (jin_arg_bool(J, arg[1], false) && !jv_true(J, v));
    if (!use) return v;
    return arg[0].type == JV_MISSING ? jv_str("", 0) : arg[0];
}

static jv f_abs(jin *J, jv v, const jargs *a) {
    no_args(J, "abs", a);
    if (v.type == JV_FLOAT) return jv_float(fabs(v.u.f));
    if (v.type == JV_BOOL) return jv_int(v.u.i);
    if (v.type != JV_INT) jin_fail(J, GDN_E_FORMAT, "abs does not apply to %s", jv_type_name(&v));
    return v.u.i < 0 ? jin_negate(J, v) : v;
}

/* --- numbers from text -------------------------------------------------------------------------- */

static bool single_underscores(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '_') continue;
        if (i == 0 || i + 1 == n || p[i - 1] < '0' || p[i + 1] < '0' || p[i + 1] == '_') return false;
    }
    return true;
}

static bool text_is(const char *p, size_t n, const char *word) {
    if (n != strlen(word)) return false;
    for (size_t i = 0; i < n; i++)
        if ((p[i] | 32) != word[i]) return false;
    return true;
}

/* What float() accepts. */
static bool parse_float(jv s, double *f) {
    const char *p = s.u.s.p + jt_lspace(s.u.s.p, s.u.s.n);
    size_t      n = jt_rstrip(p, s.u.s.n - (size_t)(p - s.u.s.p));
    const bool  minus = n > 0 && *p == '-';
    const size_t sign = n > 0 && (*p == '-' || *p == '+');
    if (text_is(p + sign, n - sign, "inf") || text_is(p + sign, n - sign, "infinity")) {
        *f = minus ? -INFINITY : INFINITY;
        return true;
    }
    if (text_is(p + sign, n - sign, "nan")) {
        *f = NAN;
        return true;
    }
    return single_underscores(p, n) && gdn_json_parse_double(p, n, f);
}

/* What int(text, base) accepts.  False: it is no number. */
static bool parse_int(jin *J, jv s, int64_t base, int64_t *out) {
    const char *p = s.u.s.p + jt_lspace(s.u.s.p, s.u.s.n);
    size_t      n = jt_rstrip(p, s.u.s.n - (size_t)(p - s.u.s.p)), at = 0;
    const bool  minus = n > 0 && *p == '-';
    uint64_t    v = 0;
    if (base != 0 && (base < 2 || base > 36)) return false;
    if (n > 0 && (*p == '-' || *p == '+')) at++;
    if (at + 2 < n && p[at] == '0') {
        const char x = (char)(p[at + 1] | 32);
        const int  b = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
        if (b != 0 && (base == b || base == 0)) base = b, at += 2;
        if (b != 0 && at < n && p[at] == '_') at++;
    }
    const bool literal = base == 0; /* no prefix: decimal, and no leading zeros */
    if (literal) base = 10;
    if (at == n || !single_underscores(p + at, n - at)) return false;
    for (size_t i = at; i < n; i++) {
        if (p[i] == '_') continue;
        const char c = p[i];
        const int  d = c >= '0' && c <= '9'   ? c - '0'
                       : c >= 'a' && c <= 'z' ? c - 'a' + 10
                       : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                              : 99;
        if (d >= base || (literal && i > at && p[at] == '0' && d != 0)) return false;
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) || __builtin_add_overflow(v, (uint64_t)d, &v) ||
            v > (uint64_t)INT64_MAX + minus)
            jin_fail(J, GDN_E_FORMAT, "int: the number exceeds 64 bits");
    }
    *out = minus ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static jv float_to_int(jin *J, double f, jv def, bool infinity_is_default) {
    if (isnan(f)) return def;
    if (isinf(f) && infinity_is_default) return def;
    if (!(f > -9223372036854775809.0 && f < 9223372036854775808.0))
        jin_fail(J, GDN_E_FORMAT, "int: the number exceeds 64 bits");
    return jv_int((int64_t)f);
}

static jv f_int(jin *J, jv v, const jargs *a) {
    jv      arg[2];
    int64_t i;
    double  f;
    jin_bind(J, "int", a, "default,base", arg);
    const jv def = arg[0].type == JV_MISSING ? jv_int(0) : arg[0];
    if (v.type == JV_UNDEF) jv_undef_fail(J, v);
    if (v.type == JV_INT || v.type == JV_BOOL) return jv_int(v.u.i);
    if (v.type == JV_FLOAT) return float_to_int(J, v.u.f, def, false);
    if (v.type != JV_STR) return def;
    const int64_t base = arg[1].type == JV_MISSING ? 10 : arg[1].type == JV_INT ? arg[1].u.i : -1;
    if (parse_int(J, v, base, &i)) return jv_int(i);
    return parse_float(v, &f) ? float_to_int(J, f, def, true) : def;
}

static jv f_float(jin *J, jv v, const jargs *a) {
    jv     def;
    double f;
    jin_bind(J, "float", a, "default", &def);
    if (v.type == JV_UNDEF) jv_undef_fail(J, v);
    if (jv_is_num(&v)) return jv_float(jv_num(&v));
    if (v.type == JV_STR && parse_float(v, &f)) return jv_float(f);
    return def.type == JV_MISSING ? jv_float(0) : def;
}

/* Round to a number of decimals by the exact decimal expansion, ties to even. */
static double round_to(double f, int64_t digits) {
    char buf[800];
    if (!isfinite(f) || digits > 330) return f;
    if (digits >= 0) {
        snprintf(buf, sizeof buf, "%.*f", (int)digits, f);
        for (char *p = buf; *p != '\0'; p++)
            if (strchr("0123456789-", *p) == NULL) *p = '.';
        double r = f;
        (void)gdn_json_parse_double(buf, strlen(buf), &r);
        return r;
    }
    if (digits < -308) return copysign(0.0, f);
    const double by = pow(10, (double)-digits);
    return nearbyint(f / by) * by;
}

static jv round_int(jin *J, jv v, int64_t digits) {
    if (digits >= 0) return v.type == JV_BOOL ? jv_int(v.u.i) : v;
    if (digits < -18) return jv_int(0);
    int64_t by = 1;
    for (; digits < 0; digits++) by *= 10;
    const jv      m = jin_binary(J, N_MOD, v, jv_int(by)); /* 0 <= m < by */
    const int64_t down = jin_binary(J, N_FLOORDIV, v, jv_int(by)).u.i;
    const bool    up = m.u.i > by - m.u.i || (m.u.i == by - m.u.i && (down & 1) != 0);
    return jin_binary(J, N_MUL, jv_int(down + up), jv_int(by));
}

static jv f_round(jin *J, jv v, const jargs *a) {
    jv arg[2];
    jin_bind(J, "round", a, "precision,method", arg);
    const int64_t digits = jin_arg_int(J, "round", arg[0], 0);
    const jv      method = arg[1].type == JV_MISSING ? jv_cstr("common") : arg[1];
    const bool    common = jv_streq(method, "common"), ceiling = jv_streq(method, "ceil");
    if (!common && !ceiling && !jv_streq(method, "floor"))
        jin_fail(J, GDN_E_FORMAT, "round: method must be common, ceil or floor");
    if (v.type == JV_UNDEF) jv_undef_fail(J, v);
    if (!jv_is_num(&v)) jin_fail(J, GDN_E_FORMAT, "round does not apply to %s", jv_type_name(&v));
    if (common) return v.type == JV_FLOAT ? jv_float(round_to(v.u.f, digits)) : round_int(J, v, digits);
    const double by = pow(10, (double)digits), x = jv_num(&v) * by;
    if (!isfinite(x) || !isfinite(by) || by == 0) jin_fail(J, GDN_E_FORMAT, "round: out of range");
    return jv_float((ceiling ? ceil(x) : floor(x)) / by);
}

/* --- layout ----------------------------------------------------------------------------------------- */

static jv f_indent(jin *J, jv v, const jargs *a) {
    jv  arg[3];
    jsb b = {.J = J};
    jin_bind(J, "indent", a, "width,first,blank", arg);
    const jv s = jin_arg_str(J, "indent", v);
    jv       pad = arg[0];
    if (pad.type != JV_STR) {
        const int64_t width = jin_arg_int(J, "indent", arg[0], 4);
        pad = width <= 0 ? jv_str("", 0) : jin_pad(J, jv_str("", 0), width, ' ', -1);
    }
    const bool blank = jin_arg_bool(J, arg[2], false);
    const jv   lines = jin_split_lines(J, jin_append(J, s, "\n", 1), false);
    if (jin_arg_bool(J, arg[1], false)) jsb_add(&b, pad.u.s.p, pad.u.s.n);
    for (size_t i = 0; i < lines.u.seq->n; i++) {
        const jv line = lines.u.seq->v[i];
        if (i > 0) jsb_char(&b, '\n');
        if (i > 0 && (blank || line.u.s.n > 0)) jsb_add(&b, pad.u.s.p, pad.u.s.n);
        jsb_add(&b, line.u.s.p, line.u.s.n);
    }
    jv r = jsb_done(&b);
    r.safe = s.safe;
    return r;
}

static jv f_wordcount(jin *J, jv v, const jargs *a) {
    int64_t n = 0;
    bool    in = false;
    no_args(J, "wordcount", a);
    const jv s = jin_str(J, v);
    for (size_t at = 0, k; at < s.u.s.n; at += k) {
        const uint32_t c = jt_decode(s.u.s.p + at, s.u.s.n - at, &k);
        const bool     word = jt_alpha(c) || jt_numeric(c) || c == '_';
        n += word && !in;
        in = word;
    }
    return jv_int(n);
}

static jv f_center(jin *J, jv v, const jargs *a) {
    jv width;
    jin_bind(J, "center", a, "width", &width);
    return jin_pad(J, jin_str(J, v), jin_arg_int(J, "center", width, 80), ' ', 0);
}

static jv f_format(jin *J, jv v, const jargs *a) {
    jv args = jv_list(J, a->n, SEQ_TUPLE);
    if (a->n > 0 && a->n_key > 0)
        jin_fail(J, GDN_E_FORMAT, "format takes positional or keyword arguments, not both");
    for (size_t i = 0; i < a->n; i++) args.u.seq->v[i] = a->pos[i];
    if (a->n_key > 0) args = jv_new_dict(J, a->n_key);
    for (size_t i = 0; i < a->n_key; i++) jv_dict_set(J, args.u.dict, a->key[i], a->val[i]);
    return jin_percent(J, jin_str(J, v), args);
}

static const struct {
    const char *name;
    jfilter    *fn;
} filters[] = {
    {"trim", f_trim},           {"tojson", jin_tojson},   {"default", f_default},
    {"d", f_default},           {"string", f_string},     {"safe", f_safe},
    {"upper", f_upper},         {"lower", f_lower},       {"capitalize", f_capitalize},
    {"title", f_title},         {"replace", f_replace},   {"escape", f_escape},
    {"e", f_escape},            {"forceescape", f_forceescape}, {"abs", f_abs},
    {"int", f_int},             {"float", f_float},       {"round", f_round},
    {"indent", f_indent},       {"wordcount", f_wordcount}, {"center", f_center},
    {"format", f_format},
};

jfilter *jin_find_filter(jv name) {
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (jv_streq(name, filters[i].name)) return filters[i].fn;
    return NULL;
}
