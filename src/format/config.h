/* config.h - what config.json says about a model, checked.
 *
 * Everything a forward pass needs stands here as plain numbers; what the engine does not
 * compute (other model types, rope scaling, biases, other activations, other weight
 * quantisations) is refused by name, and so are numbers that no model has. */
#ifndef GDN_FORMAT_CONFIG_H
#define GDN_FORMAT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/err.h"

enum {
    GDN_MAX_LAYER = 512,
    GDN_MAX_EOS = 16,
};

typedef enum {
    GDN_ARCH_QWEN3_NEXT,  /* interleaved projections, plain rope, mixture of experts */
    GDN_ARCH_QWEN3_5,     /* dense                                                   */
    GDN_ARCH_QWEN3_5_MOE, /* mixture of experts                                      */
} gdn_arch;

typedef enum { GDN_LAYER_LINEAR, GDN_LAYER_FULL } gdn_layer_kind;

typedef enum { GDN_FLOAT_F32, GDN_FLOAT_BF16, GDN_FLOAT_F16 } gdn_float_type;

typedef enum {
    GDN_QUANT_NONE,
    GDN_QUANT_FP8, /* X.weight e4m3 times X.weight_scale_inv, one a block */
} gdn_quant_kind;

/* The vision tower; all zero when the model has none. */
typedef struct {
    int32_t depth, d, n_head, ffn, in_channels;
    int32_t patch, temporal_patch; /* pixels; frames                              */
    int32_t merge;                 /* patches per side of a token                 */
    int32_t n_position;            /* rows of the position table, a square number */
    int32_t d_out;                 /* equals the text model's d                   */
    double  rope_theta;
} gdn_vision_config;

typedef struct {
    gdn_arch arch;
    bool     interleaved; /* in_proj_qkvz and in_proj_ba, grouped by key head       */

    int32_t d, n_layer, vocab;
    int32_t n_full, n_linear;      /* layers of each kind                         */
    int32_t max_position;          /* tokens the model was made for               */
    double  eps;                   /* of every RMSNorm                            */
    bool    tie;                   /* config's word; a present lm_head decides    */
    uint8_t layer_kind[GDN_MAX_LAYER]; /* gdn_layer_kind                          */
    bool    layer_moe[GDN_MAX_LAYER];  /* experts in this layer                   */

    /* full attention */
    int32_t hq, hkv, head_dim;
    bool    attn_gate; /* q_proj holds a gate beside each query                   */
    int32_t rot;       /* leading dimensions of a head that are rotated; even     */
    double  rope_theta;
    bool    mrope;           /* positions are (t, h, w), interleaved              */
    int32_t mrope_section[3]; /* sums to rot / 2                                  */

    /* linear attention; dk, dv: sizes of key and value heads */
    int32_t        hk, hv, dk, dv, conv_width;
    gdn_float_type state_type;

    /* feed-forward */
    int32_t ffn;                                /* 0: no dense layer                */
    int32_t n_expert, top_k, moe_ffn, shared_ffn; /* 0: no layer with experts       */
    bool    norm_topk;

    int32_t n_mtp; /* layers of the draft head; -1: config does not say           */

    int32_t n_eos, eos[GDN_MAX_EOS];

    bool              has_vision;
    gdn_vision_config vision;
    int32_t image_token, video_token, vision_start, vision_end; /* ids; -1: none   */

    gdn_float_type dtype; /* of the checkpoint, by its own word; bf16 if unsaid   */
    gdn_quant_kind quant;
    int32_t        quant_rows, quant_cols; /* block of a scale; 0 without blocks  */
} gdn_config;

/* Read DIR/config.json, or the file itself when path names a file.
 *
 *   out  written only on GDN_OK; holds no pointers, so copy it freely
 *
 * GDN_E_IO: cannot read.  GDN_E_FORMAT: names the field, its value and what it may be.
 * GDN_E_UNSUPPORTED: a correct file that asks for what is not computed here, by name. */
gdn_status gdn_config_read(const char *path, gdn_config *out, gdn_err *err);

/* The same from n bytes of JSON; name is used in messages only. */
gdn_status gdn_config_parse(const char *json, size_t n, const char *name, gdn_config *out,
                            gdn_err *err);

/* The rules between fields (heads that divide, rotated part, sections, products), for
 * readers of other formats that fill a gdn_config.  Counts n_full and n_linear. */
gdn_status gdn_config_check(gdn_config *c, const char *name, gdn_err *err);

/* "qwen3_next", "qwen3_5", "qwen3_5_moe". */
const char *gdn_arch_name(gdn_arch a);

#endif
