/* fields.h - reading fields of an untrusted JSON file, with errors that name them.
 *
 * A gdn_fields is one object of the file and the first failure: once it has failed,
 * further calls do nothing, so a caller reads all its fields and looks at st once.  A
 * field that is absent or null leaves the variable as it was, unless it is needed. */
#ifndef GDN_FORMAT_FIELDS_H
#define GDN_FORMAT_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "../base/err.h"

typedef struct {
    const char   *name;   /* the file, for messages                       */
    const char   *prefix; /* where obj stands in it: "" or "text_config." */
    const json_t *obj;
    gdn_err      *err;
    gdn_status    st;
} gdn_fields;

/* Bytes of a whole file; *text is malloc'ed and ends in a NUL that is not counted.
 * GDN_E_FORMAT: more than max bytes. */
gdn_status gdn_fields_slurp(const char *path, size_t max, char **text, size_t *n,
                            gdn_err *err);

/* JSON text whose top is an object; json_decref() it. */
gdn_status gdn_fields_parse(const char *text, size_t n, const char *name, json_t **out,
                          gdn_err *err);

/* A field, or NULL when it is absent or null. */
const json_t *gdn_field_get(const gdn_fields *r, const char *key);

/* Fail: "NAME: PREFIXKEY is VALUE; need ...".  v may be NULL: "is missing". */
void gdn_field_bad(gdn_fields *r, const char *key, const json_t *v, const char *fmt, ...)
    GDN_PRINTF(4, 5);

/* The same for a thing that is right but not computed here: GDN_E_UNSUPPORTED,
 * "NAME: PREFIXKEY is VALUE, which is not supported; ...". */
void gdn_field_refuse(gdn_fields *r, const char *key, const json_t *v, const char *fmt,
                     ...) GDN_PRINTF(4, 5);

void gdn_field_i32(gdn_fields *r, const char *key, bool need, int32_t lo, int32_t hi,
                  int32_t *out);
void gdn_field_f64(gdn_fields *r, const char *key, bool need, double lo, double hi,
                  double *out);
void gdn_field_bool(gdn_fields *r, const char *key, bool *out);
/* The string lives as long as the JSON. */
void gdn_field_str(gdn_fields *r, const char *key, const char **out);
/* An integer or a list of at most max; *n stays when the field is absent. */
void gdn_field_i32_list(gdn_fields *r, const char *key, int32_t max, int32_t lo,
                       int32_t hi, int32_t *out, int32_t *n);

#endif
