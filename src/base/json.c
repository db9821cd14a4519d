/* json.c - JSON text exactly as Python's json.dumps prints it, and Python's floats. */
#include "json.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- floats --------------------------------------------------------------------------------- */

/* digits x 10^exp10, as strtod reads it; without a point, which depends on the locale. */
static double from_digits(const char *digits, int n, int exp10) {
    char buf[64];
    snprintf(buf, sizeof buf, "%.*se%d", n, digits, exp10);
    return strtod(buf, NULL);
}

/* The next larger decimal of n digits; false when it would need one more. */
static bool next_digits(char *digits, int n) {
    for (int i = n - 1; i >= 0; i--) {
        if (digits[i] != '9') {
            digits[i]++;
            return true;
        }
        digits[i] = '0';
    }
    return false;
}

/* Fewest digits d1 d2.. with f = 0.d1d2.. x 10^*point; f is finite and positive. */
static int shortest(double f, char digits[24], int *point) {
    for (int n = 1; n <= 17; n++) {
        char buf[40];
        snprintf(buf, sizeof buf, "%.*e", n - 1, f);
        int k = 0, at = 0;
        for (; buf[at] != 'e'; at++)
            if (buf[at] >= '0' && buf[at] <= '9') digits[k++] = buf[at];
        const int e = (int)strtol(buf + at + 1, NULL, 10);
        *point = e + 1;
        if (n == 17 || from_digits(digits, n, e - n + 1) == f) break;
        /* At a power of two the gap above is twice the gap below, so that the nearest
         * decimal can fail where its upper neighbour does not. */
        int          e2;
        char         up[24];
        if (frexp(f, &e2) != 0.5) continue;
        memcpy(up, digits, sizeof up);
        if (!next_digits(up, n) || from_digits(up, n, e - n + 1) != f) continue;
        memcpy(digits, up, sizeof up);
        break;
    }
    int n = 0;
    while (n < 17 && digits[n] >= '0' && digits[n] <= '9') n++;
    while (n > 1 && digits[n - 1] == '0') n--;
    return n;
}

size_t gdn_json_repr(double f, char buf[GDN_JSON_DOUBLE_MAX]) {
    char  *p = buf;
    char   digits[24] = {0};
    int    point;
    if (isnan(f)) return (size_t)snprintf(buf, GDN_JSON_DOUBLE_MAX, "nan");
    if (signbit(f)) *p++ = '-', f = -f;
    const size_t room = (size_t)(GDN_JSON_DOUBLE_MAX - (p - buf));
    if (isinf(f)) return (size_t)(p - buf + snprintf(p, room, "inf"));
    if (f == 0) return (size_t)(p - buf + snprintf(p, room, "0.0"));
    const int n = shortest(f, digits, &point);
    if (point > -4 && point <= 16) {
        if (point <= 0) *p++ = '0';
        for (int i = 0; i < point; i++) *p++ = i < n ? digits[i] : '0';
        *p++ = '.';
        for (int i = point; i < 0; i++) *p++ = '0';
        for (int i = point > 0 ? point : 0; i < n; i++) *p++ = digits[i];
        if (n <= point) *p++ = '0';
        *p = '\0';
    } else {
        *p++ = digits[0];
        if (n > 1) *p++ = '.';
        for (int i = 1; i < n; i++) *p++ = digits[i];
        const int e = point - 1;
        p += snprintf(p, 8, "e%c%02d", e < 0 ? '-' : '+', e < 0 ? -e : e);
    }
    return (size_t)(p - buf);
}

size_t gdn_json_double(double f, char buf[GDN_JSON_DOUBLE_MAX]) {
    const char *text = isnan(f) ? "NaN" : f > 0 ? "Infinity" : "-Infinity";
    if (isfinite(f)) return gdn_json_repr(f, buf);
    return (size_t)snprintf(buf, GDN_JSON_DOUBLE_MAX, "%s", text);
}

static bool is_digit(const char *p, const char *end) { return p < end && *p >= '0' && *p <= '9'; }

bool gdn_json_parse_double(const char *p, size_t n, double *f) {
    const char *end = p + n;
    /* More digits than any double needs are dropped, remembering that something followed. */
    enum { KEEP = 800 };
    char    digits[KEEP + 32];
    int     k = 0;
    int64_t exp10 = 0, e = 0;
    bool    any = false, minus = false, e_minus = false, dot = false, rest = false;
    if (p < end && (*p == '+' || *p == '-')) minus = *p++ == '-';
    for (; p < end && (is_digit(p, end) || *p == '_' || (*p == '.' && !dot)); p++) {
        if (*p == '_') continue;
        if (*p == '.') {
            dot = true;
            continue;
        }
        any = true;
        if (k == 0 && *p == '0') {
            exp10 -= dot;
        } else if (k < KEEP) {
            digits[k++] = *p;
            exp10 -= dot;
        } else {
            rest = rest || *p != '0';
            exp10 += !dot;
        }
    }
    if (!any) return false;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) e_minus = *p++ == '-';
        if (!is_digit(p, end)) return false;
        for (; p < end && (is_digit(p, end) || *p == '_'); p++)
            if (*p != '_' && e < 100000000) e = e * 10 + (*p - '0');
    }
    if (p != end) return false;
    if (rest) digits[k++] = '1', exp10--;
    if (k == 0) digits[k++] = '0', exp10 = 0, e = 0;
    exp10 += e_minus ? -e : e;
    if (exp10 > 1000000) exp10 = 1000000;
    if (exp10 < -1000000) exp10 = -1000000;
    snprintf(digits + k, 24, "e%d", (int)exp10);
    const double v = strtod(digits, NULL);
    *f = minus ? -v : v;
    return true;
}

/* --- text ------------------------------------------------------------------------------------ */

/* One character of UTF-8 at p; its bytes, or 0 when they are no character. */
static size_t decode(const unsigned char *p, size_t n, uint32_t *c) {
    const size_t k = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0xc0 ? 2 : 0;
    if (k == 0 || k > n) return 0;
    *c = *p & (0x7fu >> k);
    for (size_t i = 1; i < k; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        *c = *c << 6 | (p[i] & 63u);
    }
    return k;
}

static size_t unicode_escape(uint32_t c, char buf[16]) {
    if (c < 0x10000) return (size_t)snprintf(buf, 16, "\\u%04x", (unsigned)c);
    c -= 0x10000;
    return (size_t)snprintf(buf, 16, "\\u%04x\\u%04x", (unsigned)(0xd800 + (c >> 10 & 0x3ff)),
                            (unsigned)(0xdc00 + (c & 0x3ff)));
}

void gdn_json_string(gdn_json_sink *sink, void *ctx, const char *p, size_t n, bool ascii) {
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    size_t            done = 0;
    sink(ctx, "\"", 1);
    for (size_t i = 0; i < n;) {
        const unsigned char c = (unsigned char)p[i];
        char                buf[16];
        size_t              k = 0, used = 1;
        const char         *at = c == '\0' ? NULL : strchr(from, c);
        if (at != NULL) {
            buf[0] = '\\', buf[1] = to[at - from], k = 2;
        } else if (c < 0x20 || (ascii && c == 0x7f)) {
            k = unicode_escape(c, buf);
        } else if (ascii && c >= 0x80) {
            uint32_t r;
            used = decode((const unsigned char *)p + i, n - i, &r);
            if (used > 0) k = unicode_escape(r, buf);
            else used = 1;
        }
        if (k > 0) {
            if (i > done) sink(ctx, p + done, i - done);
            sink(ctx, buf, k);
            done = i + used;
        }
        i += used;
    }
    if (n > done) sink(ctx, p + done, n - done);
    sink(ctx, "\"", 1);
}

/* --- whole values ------------------------------------------------------------------------------ */

void gdn_json_style_init(gdn_json_style *s) {
    if (s->item == NULL) {
        s->item = s->indent != NULL ? "," : ", ";
        s->n_item = strlen(s->item);
    }
    if (s->colon == NULL) s->colon = ": ", s->n_colon = 2;
}

void gdn_json_break(const gdn_json_style *s, gdn_json_sink *sink, void *ctx, size_t level) {
    if (s->indent == NULL) return;
    sink(ctx, "\n", 1);
    for (size_t i = 0; i < level; i++) sink(ctx, s->indent, s->n_indent);
}

typedef struct {
    char          *p;
    size_t         n, cap;
    gdn_status     st;
    gdn_json_style style;
} writer;

static void put(void *ctx, const char *p, size_t n) {
    writer *w = ctx;
    if (w->st != GDN_OK) return;
    if (n >= w->cap - w->n) { /* one byte stays free for the NUL */
        size_t cap = w->cap < 256 ? 256 : w->cap;
        while (cap - w->n <= n && cap <= SIZE_MAX / 2) cap *= 2;
        char *q = cap - w->n <= n ? NULL : realloc(w->p, cap);
        if (q == NULL) {
            w->st = GDN_E_NOMEM;
            return;
        }
        w->p = q, w->cap = cap;
    }
    if (n > 0) memcpy(w->p + w->n, p, n);
    w->n += n;
}

static void write_value(writer *w, const json_t *v, size_t level);

static int by_key(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void write_members(writer *w, const json_t *v, size_t level) {
    json_t      *obj = (json_t *)(uintptr_t)v; /* jansson's iterators take no const */
    const size_t n = json_object_size(v);
    const char **key = malloc((n + 1) * sizeof *key);
    size_t       k = 0;
    if (key == NULL) {
        w->st = GDN_E_NOMEM;
        return;
    }
    for (void *it = json_object_iter(obj); it != NULL; it = json_object_iter_next(obj, it))
        key[k++] = json_object_iter_key(it);
    if (w->style.sort) qsort(key, n, sizeof *key, by_key);
    for (size_t i = 0; i < n; i++) {
        if (i > 0) put(w, w->style.item, w->style.n_item);
        gdn_json_break(&w->style, put, w, level + 1);
        gdn_json_string(put, w, key[i], strlen(key[i]), w->style.ascii);
        put(w, w->style.colon, w->style.n_colon);
        write_value(w, json_object_get(v, key[i]), level + 1);
    }
    free(key);
}

static void write_value(writer *w, const json_t *v, size_t level) {
    char buf[GDN_JSON_DOUBLE_MAX];
    if (v == NULL || level > GDN_JSON_DEPTH_MAX) w->st = GDN_E_INVALID;
    if (w->st != GDN_OK) return;
    switch (json_typeof(v)) {
    case JSON_NULL: put(w, "null", 4); break;
    case JSON_TRUE: put(w, "true", 4); break;
    case JSON_FALSE: put(w, "false", 5); break;
    case JSON_INTEGER:
        put(w, buf, (size_t)snprintf(buf, sizeof buf, "%" JSON_INTEGER_FORMAT, json_integer_value(v)));
        break;
    case JSON_REAL: put(w, buf, gdn_json_double(json_real_value(v), buf)); break;
    case JSON_STRING:
        gdn_json_string(put, w, json_string_value(v), json_string_length(v), w->style.ascii);
        break;
    case JSON_ARRAY:
        put(w, "[", 1);
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i > 0) put(w, w->style.item, w->style.n_item);
            gdn_json_break(&w->style, put, w, level + 1);
            write_value(w, json_array_get(v, i), level + 1);
        }
        if (json_array_size(v) > 0) gdn_json_break(&w->style, put, w, level);
        put(w, "]", 1);
        break;
    case JSON_OBJECT:
        put(w, "{", 1);
        write_members(w, v, level);
        if (json_object_size(v) > 0) gdn_json_break(&w->style, put, w, level);
        put(w, "}", 1);
        break;
    }
}

gdn_status gdn_json_dump(const json_t *v, const gdn_json_style *style, char **out, size_t *n) {
    writer w = {.st = GDN_OK};
    if (style != NULL) w.style = *style;
    gdn_json_style_init(&w.style);
    write_value(&w, v, 0);
    if (w.st != GDN_OK) {
        free(w.p);
        return w.st;
    }
    w.p[w.n] = '\0';
    *out = w.p, *n = w.n;
    return GDN_OK;
}
