/* st_write.h - writing a safetensors file front to back.
 *
 *     create, meta..., add..., then append the data in the order of add, finish, free
 *
 * The file grows under PATH.partial and gets its name in finish(); a writer that is freed
 * earlier leaves nothing behind and an older file of that name untouched. */
#ifndef GDN_FORMAT_ST_WRITE_H
#define GDN_FORMAT_ST_WRITE_H

#include "safetensors.h"

typedef struct gdn_st_writer gdn_st_writer;

/* GDN_E_IO: the file cannot be made.  GDN_E_INVALID: path is there, not a plain file. */
gdn_status gdn_st_writer_create(const char *path, gdn_st_writer **out, gdn_err *err);

/* Remove what is unfinished and free. */
void gdn_st_writer_free(gdn_st_writer *w);

/* A text for __metadata__.  Strings are copied here and below. */
gdn_status gdn_st_writer_meta(gdn_st_writer *w, const char *key, const char *value,
                              gdn_err *err);

/* Declare the next tensor.  GDN_E_INVALID: a name twice, a bad shape, an offset that its
 * type cannot have (declare tensors of wide elements first), or data already written. */
gdn_status gdn_st_writer_add(gdn_st_writer *w, const char *name, gdn_st_dtype dtype,
                             int32_t ndim, const int64_t *shape, gdn_err *err);

/* The next bytes of data; pieces of any size, across tensors too.  The first call writes
 * the header and reserves the space of the whole file, so that a full disk shows at once.
 * GDN_E_IO: names the path and the system's reason.  GDN_E_INVALID: more than declared.
 * After a failure the writer can only be freed. */
gdn_status gdn_st_writer_append(gdn_st_writer *w, const void *data, uint64_t bytes,
                                gdn_err *err);

/* Close the complete file and give it its name.  GDN_E_INVALID: data is missing. */
gdn_status gdn_st_writer_finish(gdn_st_writer *w, gdn_err *err);

/* Bytes of the whole file as declared so far, header included. */
uint64_t gdn_st_writer_file_bytes(const gdn_st_writer *w);

#endif
