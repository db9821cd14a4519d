/* jinja_format.c - Python's two ways of formatting: "%5.1f" % x, and "{:>8}".format(x). */
#include "jinja_string.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/json.h"

enum { WIDTH_MAX = 100000, PRECISION_MAX = 400, NUMBER_BYTES = 800 };

/* How one value is to be printed; both syntaxes fill this in. */
typedef struct {
    char     type;      /* '\0': by the value's type */
    char     align;     /* '<' '>' '^' '=' or '\0' */
    char     sign;      /* '+' ' ' or '\0' */
    char     group;     /* ',' '_' or '\0' */
    bool     alt, zero;
    uint32_t fill;
    int64_t  width, precision; /* precision -1: not given */
} spec;

static void pad_to(jsb *b, const spec *f, jv body, char def_align) {
    const char align = f->align != '\0' ? f->align : def_align;
    const jv   r = jin_pad(b->J, body, f->width, f->fill, align == '<' ? -1 : align == '>');
    jsb_add(b, r.u.s.p, r.u.s.n);
}

/* sign and body with zeros or fill between or around them. */
static void add_number(jsb *b, const spec *f, bool minus, const char *prefix, const char *body) {
    jsb        t = {.J = b->J};
    const char sign[2] = {minus ? '-' : f->sign, '\0'};
    const bool inside = f->align == '=' || (f->zero && f->align == '\0');
    jsb_text(&t, sign);
    jsb_text(&t, prefix);
    if (inside) {
        spec g = *f;
        g.fill = f->zero ? '0' : f->fill, g.align = '>';
        g.width = f->width - (int64_t)t.n;
        pad_to(&t, &g, jv_cstr(body), '>');
        jsb_add(b, t.p, t.n);
        return;
    }
    jsb_text(&t, body);
    pad_to(b, f, jsb_done(&t), '>');
}

/* Thousands in the digits before the point. */
static void group_digits(char *body, char mark) {
    char         buf[NUMBER_BYTES];
    const size_t n = strspn(body, "0123456789");
    size_t       k = 0;
    if (mark == '\0' || n > 400) return;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) buf[k++] = mark;
        buf[k++] = body[i];
    }
    snprintf(buf + k, sizeof buf - k, "%s", body + n);
    memcpy(body, buf, strlen(buf) + 1);
}

static void add_int(jsb *b, const spec *f, int64_t v) {
    const uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    char           body[NUMBER_BYTES];
    const char    *prefix = "";
    char           buf[72];
    size_t         k = sizeof buf;
    const unsigned base = f->type == 'x' || f->type == 'X' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;
    uint64_t       r = u;
    buf[--k] = '\0';
    do {
        buf[--k] = (f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[r % base];
        r /= base;
    } while (r > 0);
    size_t zeros = 0;
    if (f->precision > (int64_t)(sizeof buf - 1 - k)) zeros = (size_t)f->precision - (sizeof buf - 1 - k);
    memset(body, '0', zeros);
    memcpy(body + zeros, buf + k, sizeof buf - k);
    if (f->alt) prefix = base == 16 ? (f->type == 'X' ? "0X" : "0x") : base == 8 ? "0o" : base == 2 ? "0b" : "";
    if (base == 10) group_digits(body, f->group);
    add_number(b, f, v < 0, prefix, body);
}

static void add_float(jsb *b, const spec *f, double v) {
    char       body[NUMBER_BYTES];
    const bool percent = f->type == '%';
    const char type = percent ? 'f' : f->type;
    const bool upper = type == 'F' || type == 'E' || type == 'G';
    const int  prec = f->precision < 0 ? 6 : (int)f->precision;
    const bool minus = signbit(v) != 0 && !isnan(v);
    char       fmt[8] = "%.*f";
    v = fabs(percent ? v * 100 : v);
    if (!isfinite(v)) {
        snprintf(body, sizeof body, "%s", isnan(v) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
    } else {
        if (f->alt) memcpy(fmt, "%#.*f", 6);
        fmt[strlen(fmt) - 1] = type;
        /* The format was put together above from a checked type. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(body, sizeof body, fmt, prec, v);
#pragma GCC diagnostic pop
        for (char *p = body; *p != '\0'; p++) /* the point, whatever the locale says */
            if (strchr("0123456789+-eE", *p) == NULL) *p = '.';
    }
    group_digits(body, f->group);
    if (percent) {
        const size_t n = strlen(body);
        body[n] = '%', body[n + 1] = '\0';
    }
    add_number(b, f, minus, "", body);
}

static void add_text(jsb *b, const spec *f, jv s, char def_align) {
    size_t n = s.u.s.n;
    if (f->precision >= 0) n = jt_offset(s.u.s.p, n, (size_t)f->precision);
    pad_to(b, f, jv_str(s.u.s.p, n), def_align);
}

static void check_size(jin *J, const spec *f) {
    if (f->width > WIDTH_MAX || f->precision > PRECISION_MAX)
        jin_fail(J, GDN_E_FULL, "a format of width %lld, precision %lld", (long long)f->width,
                 (long long)f->precision);
}

/* --- % ---------------------------------------------------------------------------------------- */

typedef struct {
    jin        *J;
    const char *p;
    size_t      n, at;
    jv          args;
    size_t      used;
} percent;

static jv next_arg(percent *c) {
    const bool tuple = c->args.type == JV_SEQ && c->args.u.seq->kind == SEQ_TUPLE;
    const size_t n = tuple ? c->args.u.seq->n : 1;
    if (c->used >= n) jin_fail(c->J, GDN_E_FORMAT, "not enough arguments for format string");
    return tuple ? c->args.u.seq->v[c->used++] : (c->used++, c->args);
}

static jv keyed_arg(percent *c) {
    const char *end = memchr(c->p + c->at, ')', c->n - c->at);
    if (end == NULL || c->args.type != JV_DICT)
        jin_fail(c->J, GDN_E_FORMAT, end == NULL ? "incomplete format key" : "format requires a mapping");
    const size_t n = (size_t)(end - (c->p + c->at));
    const jv    *v = jv_dict_get_str(c->J, c->args.u.dict, c->p + c->at, n);
    if (v == NULL) jin_fail(c->J, GDN_E_FORMAT, "format key not found");
    c->at += n + 1;
    return *v;
}

static int64_t read_number(jin *J, const char *p, size_t n, size_t *at) {
    int64_t v = 0;
    for (; *at < n && p[*at] >= '0' && p[*at] <= '9'; ++*at) {
        v = v * 10 + (p[*at] - '0');
        if (v > INT32_MAX) jin_fail(J, GDN_E_FULL, "a number in a format is too large");
    }
    return v;
}

static int64_t size_arg(percent *c) {
    if (c->at < c->n && c->p[c->at] == '*') {
        c->at++;
        return jin_arg_int(c->J, "%", next_arg(c), 0);
    }
    return read_number(c->J, c->p, c->n, &c->at);
}

static void percent_value(percent *c, jsb *b, spec *f, jv v) {
    jin *J = c->J;
    const bool integer = v.type == JV_INT || v.type == JV_BOOL;
    char       rune[4];
    switch (f->type) {
    case 'd':
    case 'i':
    case 'u':
        if (v.type == JV_FLOAT && fabs(v.u.f) < 9e18) v = jv_int((int64_t)v.u.f);
        if (v.type != JV_INT && v.type != JV_BOOL)
            jin_fail(J, GDN_E_FORMAT, "%%d format: a real number is required, not %s", jv_type_name(&v));
        f->type = 'd';
        add_int(b, f, v.u.i);
        return;
    case 'x':
    case 'X':
    case 'o':
        if (!integer) jin_fail(J, GDN_E_FORMAT, "%%x format: an integer is required");
        add_int(b, f, v.u.i);
        return;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!jv_is_num(&v)) jin_fail(J, GDN_E_FORMAT, "must be real number, not %s", jv_type_name(&v));
        add_float(b, f, jv_num(&v));
        return;
    case 'c':
        if (integer && v.u.i >= 0 && v.u.i <= 0x10ffff && (v.u.i < 0xd800 || v.u.i > 0xdfff)) {
            jsb r = {.J = J};
            jsb_add(&r, rune, jt_encode((uint32_t)v.u.i, rune));
            v = jsb_done(&r);
        }
        if (v.type != JV_STR || jt_count(v.u.s.p, v.u.s.n) != 1)
            jin_fail(J, GDN_E_FORMAT, "%%c requires an integer or one character");
        f->precision = -1;
        add_text(b, f, v, '>');
        return;
    case 's': add_text(b, f, jin_str(J, v), '>'); return;
    case 'r': add_text(b, f, jin_repr(J, v), '>'); return;
    default: jin_fail(J, GDN_E_FORMAT, "unsupported format character '%c'", f->type);
    }
}

static void percent_field(percent *c, jsb *b) {
    spec f = {.precision = -1, .fill = ' '};
    jv   v = {.type = JV_MISSING};
    if (c->at < c->n && c->p[c->at] == '(') c->at++, v = keyed_arg(c);
    for (; c->at < c->n; c->at++) {
        const char x = c->p[c->at];
        if (x == '-') f.align = '<';
        else if (x == '0') f.zero = true;
        else if (x == '+') f.sign = '+';
        else if (x == ' ') f.sign = f.sign == '+' ? '+' : ' ';
        else if (x == '#') f.alt = true;
        else break;
    }
    f.width = size_arg(c);
    if (f.width < 0) f.width = -f.width, f.align = '<';
    if (c->at < c->n && c->p[c->at] == '.') {
        c->at++;
        f.precision = size_arg(c);
        if (f.precision < 0) f.precision = 0;
    }
    while (c->at < c->n && strchr("hlL", c->p[c->at]) != NULL && c->p[c->at] != '\0') c->at++;
    if (c->at >= c->n) jin_fail(c->J, GDN_E_FORMAT, "incomplete format");
    f.type = c->p[c->at++];
    check_size(c->J, &f);
    if (f.type == '%') {
        jsb_char(b, '%');
        return;
    }
    if (strchr("sr", f.type) != NULL) f.zero = false;
    percent_value(c, b, &f, v.type == JV_MISSING ? next_arg(c) : v);
}

jv jin_percent(jin *J, jv format, jv args) {
    percent c = {.J = J, .p = format.u.s.p, .n = format.u.s.n, .args = args};
    jsb     b = {.J = J};
    jin_work(J, 1 + c.n / 16);
    while (c.at < c.n) {
        const char  *hit = memchr(c.p + c.at, '%', c.n - c.at);
        const size_t end = hit != NULL ? (size_t)(hit - c.p) : c.n;
        jsb_add(&b, c.p + c.at, end - c.at);
        c.at = end + (hit != NULL);
        if (hit != NULL) percent_field(&c, &b);
    }
    const bool tuple = args.type == JV_SEQ && args.u.seq->kind == SEQ_TUPLE;
    const bool loose = args.type == JV_DICT || args.type == JV_UNDEF || jv_is_list(&args) ||
                       (args.type == JV_SEQ && args.u.seq->kind == SEQ_RANGE);
    if (!loose && c.used < (tuple ? args.u.seq->n : 1))
        jin_fail(J, GDN_E_FORMAT, "not all arguments converted during string formatting");
    jv r = jsb_done(&b);
    r.safe = format.safe;
    return r;
}

/* --- str.format --------------------------------------------------------------------------------- */

static bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

static spec parse_spec(jin *J, const char *p, size_t n) {
    spec   f = {.precision = -1, .fill = ' '};
    size_t at = 0;
    if (n > 0) {
        const size_t k = jt_step(p, n);
        size_t       used;
        if (k < n && is_align(p[k])) f.fill = jt_decode(p, n, &used), f.align = p[k], at = k + 1;
        else if (is_align(p[0])) f.align = p[0], at = 1;
    }
    if (at < n && (p[at] == '+' || p[at] == '-' || p[at] == ' ')) f.sign = p[at++];
    if (f.sign == '-') f.sign = '\0';
    if (at < n && p[at] == '#') f.alt = true, at++;
    if (at < n && p[at] == '0') {
        at++;
        if (f.align == '\0') f.zero = true;
        else f.zero = false;
        if (f.align != '\0' && f.fill == ' ' && !is_align(p[1])) f.fill = '0';
    }
    f.width = read_number(J, p, n, &at);
    if (at < n && (p[at] == ',' || p[at] == '_')) f.group = p[at++];
    if (at < n && p[at] == '.') {
        const size_t from = ++at;
        f.precision = read_number(J, p, n, &at);
        if (at == from) jin_fail(J, GDN_E_FORMAT, "format specifier missing precision");
    }
    if (at < n) f.type = p[at++];
    if (at != n || (f.group != '\0' && f.zero))
        jin_fail(J, GDN_E_FORMAT, "format specifier '%.*s' is not supported", n < 50 ? (int)n : 50, p);
    check_size(J, &f);
    return f;
}

static void format_value(jin *J, jsb *b, jv v, const char *p, size_t n) {
    if (n == 0) {
        const jv s = jin_str(J, v);
        jsb_add(b, s.u.s.p, s.u.s.n);
        return;
    }
    spec       f = parse_spec(J, p, n);
    const bool integer = v.type == JV_INT || v.type == JV_BOOL;
    const bool any_float = f.type != '\0' && strchr("eEfFgG%", f.type) != NULL;
    if (v.type == JV_STR && (f.type == 's' || f.type == '\0') && f.sign == '\0' && f.group == '\0' &&
        !f.alt && f.align != '=') {
        if (f.zero) f.fill = '0', f.zero = false;
        add_text(b, &f, v, '<');
    } else if (jv_is_num(&v) && any_float) {
        add_float(b, &f, jv_num(&v));
    } else if (integer && f.precision < 0 && (f.type == '\0' || strchr("bdoxX", f.type) != NULL)) {
        if (f.type == '\0') f.type = 'd';
        add_int(b, &f, v.u.i);
    } else if (v.type == JV_FLOAT && f.type == '\0' && f.precision < 0 && f.group == '\0') {
        char buf[GDN_JSON_DOUBLE_MAX];
        gdn_json_repr(fabs(v.u.f), buf);
        add_number(b, &f, signbit(v.u.f) != 0 && !isnan(v.u.f), "", buf);
    } else {
        jin_fail(J, GDN_E_FORMAT, "format specifier '%.*s' does not apply to %s",
                 n < 50 ? (int)n : 50, p, jv_type_name(&v));
    }
}

static bool all_digits(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9') return false;
    return n > 0 && n < 10;
}

static int64_t small_int(const char *p, size_t n) {
    int64_t v = 0;
    for (size_t i = 0; i < n; i++) v = v * 10 + (p[i] - '0');
    return v;
}

/* The value of "0", "name", "" and what follows as .attribute or [item]. */
static jv field_value(jin *J, const jargs *a, const char *p, size_t n, int64_t *next) {
    size_t end = 0;
    jv     v = {.type = JV_MISSING};
    while (end < n && p[end] != '.' && p[end] != '[') end++;
    if (end == 0 || all_digits(p, end)) {
        if ((end == 0 && *next < 0) || (end > 0 && *next > 0))
            jin_fail(J, GDN_E_FORMAT, "cannot switch between automatic and manual field numbering");
        const int64_t i = end == 0 ? (*next)++ : small_int(p, end);
        if (end > 0) *next = -1;
        if (i < (int64_t)a->n) v = a->pos[i];
    } else {
        for (size_t k = 0; k < a->n_key; k++)
            if (a->key[k].u.s.n == end && memcmp(a->key[k].u.s.p, p, end) == 0) v = a->val[k];
    }
    if (v.type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "format: a field has no argument");
    while (end < n) {
        const bool  item = p[end] == '[';
        const char *close = item ? memchr(p + end, ']', n - end) : NULL;
        size_t      to = ++end;
        if (item && close == NULL) jin_fail(J, GDN_E_FORMAT, "format: missing ']'");
        if (item) to = (size_t)(close - p);
        else while (to < n && p[to] != '.' && p[to] != '[') to++;
        if (to == end) jin_fail(J, GDN_E_FORMAT, "format: empty attribute");
        if (!item) v = jin_attr(J, v, p + end, to - end);
        else if (all_digits(p + end, to - end)) v = jin_item(J, v, jv_int(small_int(p + end, to - end)));
        else v = jin_item(J, v, jv_str(p + end, to - end));
        end = to + item;
        if (end < n && p[end] != '.' && p[end] != '[') jin_fail(J, GDN_E_FORMAT, "format: bad field");
    }
    return v;
}

/* One {...}; p is what stands between the braces. */
static void format_field(jin *J, jsb *b, const jargs *a, const char *p, size_t n, int64_t *next) {
    size_t name = 0;
    while (name < n && p[name] != '!' && p[name] != ':') name += p[name] == '[' ? strcspn(p + name, "]") : 1;
    if (name > n) name = n;
    jv     v = field_value(J, a, p, name, next);
    size_t at = name;
    if (at < n && p[at] == '!') {
        if (at + 1 >= n || (p[at + 1] != 'r' && p[at + 1] != 's') || (at + 2 < n && p[at + 2] != ':'))
            jin_fail(J, GDN_E_FORMAT, "format: unknown conversion");
        v = p[at + 1] == 'r' ? jin_repr(J, v) : jin_str(J, v);
        at += 2;
    }
    at += at < n; /* the colon */
    format_value(J, b, v, p + at, n - at);
}

jv jin_str_format(jin *J, jv format, const jargs *a) {
    const char *p = format.u.s.p;
    size_t      n = format.u.s.n;
    int64_t     next = 0;
    jsb         b = {.J = J};
    jin_work(J, 1 + n / 16);
    for (size_t at = 0; at < n;) {
        if (p[at] != '{' && p[at] != '}') {
            const size_t from = at;
            while (at < n && p[at] != '{' && p[at] != '}') at++;
            jsb_add(&b, p + from, at - from);
            continue;
        }
        if (at + 1 < n && p[at + 1] == p[at]) {
            jsb_char(&b, p[at]);
            at += 2;
            continue;
        }
        const char *end = p[at] == '{' ? memchr(p + at, '}', n - at) : NULL;
        if (end == NULL) jin_fail(J, GDN_E_FORMAT, "format: single '%c'", p[at]);
        const size_t k = (size_t)(end - (p + at)) - 1;
        if (memchr(p + at + 1, '{', k) != NULL)
            jin_fail(J, GDN_E_FORMAT, "format: nested fields are not supported");
        format_field(J, &b, a, p + at + 1, k, &next);
        at += k + 2;
    }
    jv r = jsb_done(&b);
    r.safe = format.safe;
    return r;
}
