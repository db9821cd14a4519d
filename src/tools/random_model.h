/* random_model.h - the shapes of released models, shared by the files that make one. */
#ifndef GDN_TOOLS_RANDOM_MODEL_H
#define GDN_TOOLS_RANDOM_MODEL_H

#include <gdn/tools.h>

#include "../base/err.h"
#include "../format/config.h"

/* What differs between the releases.  All have heads of 256, linear heads of 128, a
 * convolution over 4 tokens, a quarter of each head rotated, every fourth layer full. */
typedef struct {
    const char *name;
    gdn_arch    arch;
    int32_t     d, n_layer, hq, hkv, hk, hv, ffn, n_expert, top_k, moe_ffn, shared_ffn;
    int32_t     vocab, n_base; /* rows of the embedding; tokens before the added ones */
    bool        tie;
} gdn_random_shape;

enum {
    GDN_RANDOM_HEAD = 256,
    GDN_RANDOM_LINEAR_HEAD = 128,
    GDN_RANDOM_CONV = 4,
    GDN_RANDOM_PERIOD = 4,
    GDN_RANDOM_BLOCK = 128, /* rows and columns that share an fp8 scale */
};

/* The shape of that name; an unknown name is GDN_E_INVALID, and err lists the known ones. */
gdn_status gdn_random_find(const char *like, const gdn_random_shape **s, gdn_err *err);

/* What gdn_config_read() would make of the config.json of a model of this shape.  Of o, type,
 * n_layer and mtp count; n_layer is the number to write. */
gdn_status gdn_random_config(const gdn_random_shape *s, const gdn_random_opts *o,
                             gdn_config *out, gdn_err *err);

/* gdn_random_model() for any shape; o->like is not read. */
gdn_status gdn_random_write(const gdn_random_shape *s, const gdn_random_opts *o,
                            gdn_err *err);

/* The files beside the weights.  o->n_layer is the number to write. */
gdn_status gdn_random_write_config(const gdn_random_shape *s, const gdn_random_opts *o,
                                   const char *path, gdn_err *err);
gdn_status gdn_random_write_genconfig(const gdn_random_shape *s, const char *path,
                                      gdn_err *err);
gdn_status gdn_random_write_tokenizer(const gdn_random_shape *s, const char *path,
                                      gdn_err *err);
gdn_status gdn_random_write_tokenizer_config(const char *path, gdn_err *err);
gdn_status gdn_random_write_template(const char *path, gdn_err *err);

#endif
