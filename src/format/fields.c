/* fields.c - fields of a JSON file with range checks and one form of error message. */
#include "fields.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 72 }; /* bytes of a value that a message repeats */

gdn_status gdn_fields_slurp(const char *path, size_t max, char **text, size_t *n,
                            gdn_err *err) {
    gdn_status st = GDN_OK;
    size_t have = 0, room = 1 << 16;
    char *b = NULL;

    FILE *f = fopen(path, "rb");
    if (f == NULL) return gdn_fail(err, GDN_E_IO, "%s: %s", path, strerror(errno));
    for (;;) {
        char *grown = realloc(b, room + 1);
        if (grown == NULL) {
            st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory for its text", path);
            goto done;
        }
        b = grown;
        have += fread(b + have, 1, room - have, f);
        if (have < room) break;
        if (room > max) {
            st = gdn_fail(err, GDN_E_FORMAT, "%s: larger than %zu bytes", path, max);
            goto done;
        }
        room *= 2;
    }
    if (ferror(f))
        st = gdn_fail(err, GDN_E_IO, "%s: %s", path, strerror(errno));
    else if (have > max)
        st = gdn_fail(err, GDN_E_FORMAT, "%s: larger than %zu bytes", path, max);

done:
    fclose(f);
    if (st != GDN_OK) {
        free(b);
        return st;
    }
    b[have] = '\0';
    *text = b;
    *n = have;
    return GDN_OK;
}

gdn_status gdn_fields_parse(const char *text, size_t n, const char *name, json_t **out,
                            gdn_err *err) {
    json_error_t e;
    errno = 0;
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    if (j == NULL) {
        /* jansson does not tell a failed allocation from a mistake; malloc does. */
        if (errno == ENOMEM || e.text[0] == '\0')
            return gdn_fail(err, GDN_E_NOMEM, "%s: no memory for its JSON", name);
        return gdn_fail(err, GDN_E_FORMAT, "%s: line %d: %s", name, e.line, e.text);
    }
    if (!json_is_object(j)) {
        json_decref(j);
        return gdn_fail(err, GDN_E_FORMAT, "%s: not a JSON object", name);
    }
    *out = j;
    return GDN_OK;
}

const json_t *gdn_field_get(const gdn_fields *r, const char *key) {
    const json_t *v = json_object_get(r->obj, key);
    return v == NULL || json_is_null(v) ? NULL : v;
}

/* The value as JSON, cut to SHOWN bytes at a character's start. */
static void show(const json_t *v, char out[SHOWN + 4]) {
    char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(out, SHOWN + 1, "%s", s != NULL ? s : "?");
    if (s != NULL && strlen(s) > SHOWN) {
        size_t at = SHOWN;
        while (at > 0 && ((unsigned char)s[at] & 0xc0) == 0x80) at--;
        memcpy(out + at, "...", 4);
    }
    free(s);
}

void gdn_field_bad(gdn_fields *r, const char *key, const json_t *v, const char *fmt,
                   ...) {
    char val[SHOWN + 4], why[256];
    if (r->st != GDN_OK) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    if (v == NULL) {
        r->st = gdn_fail(r->err, GDN_E_FORMAT, "%s: %s%s is missing; need %s", r->name,
                         r->prefix, key, why);
        return;
    }
    show(v, val);
    r->st = gdn_fail(r->err, GDN_E_FORMAT, "%s: %s%s is %s; need %s", r->name, r->prefix,
                     key, val, why);
}

void gdn_field_refuse(gdn_fields *r, const char *key, const json_t *v, const char *fmt,
                      ...) {
    char val[SHOWN + 4], why[256];
    if (r->st != GDN_OK) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    show(v, val);
    r->st =
        gdn_fail(r->err, GDN_E_UNSUPPORTED, "%s: %s%s is %s, which is not supported; %s",
                 r->name, r->prefix, key, val, why);
}

/* The field of a reader that has not failed; complains when it is needed and absent. */
static const json_t *field(gdn_fields *r, const char *key, bool need, const char *what) {
    if (r->st != GDN_OK) return NULL;
    const json_t *v = gdn_field_get(r, key);
    if (v == NULL && need) gdn_field_bad(r, key, NULL, "%s", what);
    return v;
}

static bool in_range(const json_t *v, int32_t lo, int32_t hi) {
    return json_is_integer(v) && json_integer_value(v) >= lo &&
           json_integer_value(v) <= hi;
}

void gdn_field_i32(gdn_fields *r, const char *key, bool need, int32_t lo, int32_t hi,
                   int32_t *out) {
    const json_t *v = field(r, key, need, "an integer");
    if (v == NULL) return;
    if (!in_range(v, lo, hi))
        gdn_field_bad(r, key, v, "%d to %d", (int)lo, (int)hi);
    else
        *out = (int32_t)json_integer_value(v);
}

void gdn_field_f64(gdn_fields *r, const char *key, bool need, double lo, double hi,
                   double *out) {
    const json_t *v = field(r, key, need, "a number");
    if (v == NULL) return;
    const double x = json_number_value(v);
    if (!json_is_number(v) || !(x >= lo && x <= hi))
        gdn_field_bad(r, key, v, "a number from %g to %g", lo, hi);
    else
        *out = x;
}

void gdn_field_bool(gdn_fields *r, const char *key, bool *out) {
    const json_t *v = field(r, key, false, "");
    if (v == NULL) return;
    if (!json_is_boolean(v))
        gdn_field_bad(r, key, v, "true or false");
    else
        *out = json_is_true(v);
}

void gdn_field_str(gdn_fields *r, const char *key, const char **out) {
    const json_t *v = field(r, key, false, "");
    if (v == NULL) return;
    if (!json_is_string(v))
        gdn_field_bad(r, key, v, "a string");
    else
        *out = json_string_value(v);
}

void gdn_field_i32_list(gdn_fields *r, const char *key, int32_t max, int32_t lo,
                        int32_t hi, int32_t *out, int32_t *n) {
    const json_t *v = field(r, key, false, "");
    if (v == NULL) return;
    if (in_range(v, lo, hi)) {
        out[0] = (int32_t)json_integer_value(v);
        *n = 1;
        return;
    }
    bool good = json_is_array(v) && json_array_size(v) <= (size_t)max;
    for (size_t i = 0; good && i < json_array_size(v); i++)
        good = in_range(json_array_get(v, i), lo, hi);
    if (!good) {
        gdn_field_bad(r, key, v, "%d to %d or a list of at most %d such integers",
                      (int)lo, (int)hi, (int)max);
        return;
    }
    *n = (int32_t)json_array_size(v);
    for (int32_t i = 0; i < *n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(v, (size_t)i));
}
