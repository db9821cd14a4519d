/* safetensors.h - the tensors of a checkpoint, by name, in place in the mapped files.
 *
 *     file:   u64 little-endian n | n bytes of JSON | tensor data
 *     JSON:   {"NAME": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...,
 *              "__metadata__": {"KEY": "TEXT", ...}}       offsets count from the data
 *
 * A checkpoint is DIR/model.safetensors, or DIR/model.safetensors.index.json with the
 * shards of its weight_map, or one named .safetensors file.  Files are mapped read-only
 * and never copied.  A file that another program shortens while it is mapped kills the
 * reader with SIGBUS, as any mapped file does; nothing here guards against that. */
#ifndef GDN_FORMAT_SAFETENSORS_H
#define GDN_FORMAT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/err.h"

/* X(name, the word in the file, bytes of an element) */
#define GDN_ST_DTYPE_LIST(X) \
    X(BOOL, "BOOL", 1)       \
    X(U8, "U8", 1)           \
    X(I8, "I8", 1)           \
    X(F8_E4M3, "F8_E4M3", 1) \
    X(F8_E5M2, "F8_E5M2", 1) \
    X(I16, "I16", 2)         \
    X(U16, "U16", 2)         \
    X(F16, "F16", 2)         \
    X(BF16, "BF16", 2)       \
    X(I32, "I32", 4)         \
    X(U32, "U32", 4)         \
    X(F32, "F32", 4)         \
    X(F64, "F64", 8)         \
    X(I64, "I64", 8)         \
    X(U64, "U64", 8)

typedef enum {
#define X(name, text, size) GDN_ST_##name,
    GDN_ST_DTYPE_LIST(X)
#undef X
        GDN_ST_N_DTYPE
} gdn_st_dtype;

enum { GDN_ST_MAX_DIM = 8 };

typedef struct {
    const char          *name;
    const unsigned char *data;  /* mapped; aligned to the element size          */
    uint64_t             bytes; /* product of shape times element size          */
    int64_t              shape[GDN_ST_MAX_DIM];
    int32_t              ndim; /* 0: a scalar, one element                      */
    int32_t              file; /* index of the file it lies in                  */
    gdn_st_dtype         dtype;
    bool                 used; /* false at first; for whoever binds the tensors */
} gdn_st_tensor;

typedef struct gdn_weights gdn_weights;

/* Open and check a checkpoint.
 *
 *   path  a folder or a .safetensors file
 *   out   written only on GDN_OK; close with gdn_weights_close()
 *
 * Checked: header length, JSON, names, types, shapes, sizes, alignment; the tensors of a
 * file must cover its data without overlap or gap; the index and the shards must name the
 * same tensors.  Reads the headers only; tensor data is paged in when touched.
 * GDN_E_IO: cannot open or map.  GDN_E_FORMAT: names file, tensor and value.
 * GDN_E_UNSUPPORTED: a tensor type that is not in the list above, by name. */
gdn_status gdn_weights_open(const char *path, gdn_weights **out, gdn_err *err);
void       gdn_weights_close(gdn_weights *w);

/* Tensors in the order in which they lie in the files, file after file.  at() wants
 * 0 <= i < count. */
int64_t        gdn_weights_count(const gdn_weights *w);
gdn_st_tensor *gdn_weights_at(const gdn_weights *w, int64_t i);

/* The tensor of that name, or NULL.  Time is log n. */
gdn_st_tensor *gdn_weights_find(const gdn_weights *w, const char *name);

/* The file a tensor lies in, for messages. */
const char *gdn_weights_path(const gdn_weights *w, const gdn_st_tensor *t);

/* Bytes of all tensors together. */
uint64_t gdn_weights_total_bytes(const gdn_weights *w);

/* The text of a key of __metadata__ (of the first file that has it), or NULL. */
const char *gdn_weights_metadata(const gdn_weights *w, const char *key);

/* Give back the memory of the whole pages inside [at, at + bytes) of a tensor that has
 * been copied elsewhere.  The data stays readable: it would be paged in again. */
void gdn_weights_release(const gdn_weights *w, const void *at, uint64_t bytes);

/* The word of a type ("BF16"), the bytes of an element, and the type of a word or -1. */
const char *gdn_st_dtype_name(gdn_st_dtype t);
int32_t     gdn_st_dtype_size(gdn_st_dtype t);
int         gdn_st_dtype_of(const char *word);

#endif
