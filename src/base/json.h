/* json.h - JSON text exactly as Python's json.dumps prints it, and Python's floats.
 *
 * A model has seen tool schemas in this form only, so a byte that differs costs quality.
 * jansson reads JSON; it is not used to write any. */
#ifndef GDN_BASE_JSON_H
#define GDN_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <gdn/status.h>
#include <jansson.h>

enum { GDN_JSON_DOUBLE_MAX = 32, GDN_JSON_DEPTH_MAX = 1000 };

/* The shortest decimal that reads back as f, in the form of Python's repr: "0.1", "1.0",
 * "1e+16", "inf", "nan".  Returns the length; buf ends in a NUL. */
size_t gdn_json_repr(double f, char buf[GDN_JSON_DOUBLE_MAX]);

/* The same in JSON: differs for "Infinity", "-Infinity" and "NaN". */
size_t gdn_json_double(double f, char buf[GDN_JSON_DOUBLE_MAX]);

/* Read "[sign] digits [. digits] [e [sign] digits]", underscores ignored, whatever the
 * locale.  False when p is anything else. */
bool gdn_json_parse_double(const char *p, size_t n, double *f);

/* Where a writer puts its bytes. */
typedef void gdn_json_sink(void *ctx, const char *p, size_t n);

/* Text in quotes, with escapes; ascii writes \uXXXX for everything beyond ASCII.  The text
 * is UTF-8; bytes that are not are copied as they are. */
void gdn_json_string(gdn_json_sink *sink, void *ctx, const char *p, size_t n, bool ascii);

/* How json.dumps is asked to print. */
typedef struct {
    const char *item, *colon; /* separators; NULL: the defaults of json.dumps */
    size_t      n_item, n_colon;
    const char *indent;       /* one level of indentation; NULL: everything on one line */
    size_t      n_indent;
    bool        ascii, sort;
} gdn_json_style;

/* Fill in the separators that are NULL. */
void gdn_json_style_init(gdn_json_style *s);

/* A newline and `level` indentations, when the style has them. */
void gdn_json_break(const gdn_json_style *s, gdn_json_sink *sink, void *ctx, size_t level);

/* A malloc'ed string with a final NUL; style NULL: as json.dumps(v, ensure_ascii=False).
 * GDN_E_NOMEM; GDN_E_INVALID: v is NULL or nested deeper than GDN_JSON_DEPTH_MAX. */
gdn_status gdn_json_dump(const json_t *v, const gdn_json_style *style, char **out, size_t *n);

#endif
