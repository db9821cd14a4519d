/* config.c - config.json to a gdn_config.
 *
 * Published files come in two forms, flat and with the text model in "text_config" (then
 * a vision model may stand beside it), and two ages: rope_parameters, or rope_theta and
 * rope_scaling.  Both are read here and nowhere else. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "fields.h"

enum {
    MAX_FILE = 16 << 20,
    MAX_D = 65536,
    MAX_VOCAB = 4 << 20,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_FFN = 1 << 20,
    MAX_EXPERT = 4096,
    MAX_TOKENS = 1 << 30,
    MAX_STATE = 1 << 26, /* numbers of one layer's recurrent state; released: 2^20 */
};

static const struct {
    const char *word; /* of model_type, or of architectures when that is absent */
    gdn_arch arch;
} types[] = {
    {"qwen3_next", GDN_ARCH_QWEN3_NEXT},
    {"qwen3_5", GDN_ARCH_QWEN3_5},
    {"qwen3_5_text", GDN_ARCH_QWEN3_5},
    {"qwen3_5_moe", GDN_ARCH_QWEN3_5_MOE},
    {"qwen3_5_moe_text", GDN_ARCH_QWEN3_5_MOE},
    {"Qwen3NextForCausalLM", GDN_ARCH_QWEN3_NEXT},
    {"Qwen3_5ForCausalLM", GDN_ARCH_QWEN3_5},
    {"Qwen3_5ForConditionalGeneration", GDN_ARCH_QWEN3_5},
    {"Qwen3_5MoeForCausalLM", GDN_ARCH_QWEN3_5_MOE},
    {"Qwen3_5MoeForConditionalGeneration", GDN_ARCH_QWEN3_5_MOE},
};

/* The file in its two readers: outer is the top, text the text model (perhaps the same).
 */
typedef struct {
    gdn_fields outer, text;
} config_file;

const char *gdn_arch_name(gdn_arch a) {
    switch (a) {
    case GDN_ARCH_QWEN3_NEXT:
        return "qwen3_next";
    case GDN_ARCH_QWEN3_5:
        return "qwen3_5";
    case GDN_ARCH_QWEN3_5_MOE:
        return "qwen3_5_moe";
    }
    return "unknown";
}

/* --- which model it is ----------------------------------------------------------- */

static bool find_type(const json_t *v, gdn_arch *arch) {
    const char *word = json_string_value(v);
    for (size_t i = 0; word != NULL && i < sizeof types / sizeof *types; i++)
        if (strcmp(word, types[i].word) == 0) {
            *arch = types[i].arch;
            return true;
        }
    return false;
}

static void read_arch(config_file *f, gdn_arch *arch) {
    static const char supported[] = "supported are qwen3_next, qwen3_5, qwen3_5_text, "
                                    "qwen3_5_moe and qwen3_5_moe_text";
    gdn_fields *o = &f->outer;
    const json_t *type = gdn_field_get(o, "model_type");
    const json_t *list = gdn_field_get(o, "architectures");

    if (type != NULL) {
        if (!json_is_string(type))
            gdn_field_bad(o, "model_type", type, "a string");
        else if (!find_type(type, arch))
            gdn_field_refuse(o, "model_type", type, "%s", supported);
    } else if (list != NULL) {
        if (!find_type(json_array_get(list, 0), arch))
            gdn_field_refuse(o, "architectures", list, "%s", supported);
    } else
        gdn_field_bad(o, "model_type", NULL, "the kind of model; %s", supported);
    if (o->st != GDN_OK || f->text.obj == o->obj) return;

    gdn_arch inner = *arch;
    type = gdn_field_get(&f->text, "model_type");
    if (type == NULL) return;
    if (!find_type(type, &inner))
        gdn_field_refuse(&f->text, "model_type", type, "%s", supported);
    else if (inner != *arch)
        gdn_field_bad(&f->text, "model_type", type, "the text model of %s",
                      gdn_arch_name(*arch));
}

/* --- layers ----------------------------------------------------------------------- */

/* A word or its older name. */
static bool is_either(const char *word, const char *now, const char *before) {
    return strcmp(word, now) == 0 || strcmp(word, before) == 0;
}

static void read_layer_types(gdn_fields *r, const char *key, const json_t *v,
                             gdn_config *c) {
    if (!json_is_array(v) || json_array_size(v) != (size_t)c->n_layer) {
        gdn_field_bad(r, key, v, "a list of %d, one for each of num_hidden_layers",
                      (int)c->n_layer);
        return;
    }
    for (int32_t i = 0; i < c->n_layer; i++) {
        const json_t *x = json_array_get(v, (size_t)i);
        const char *word = json_string_value(x);
        char name[48];
        if (word != NULL && is_either(word, "full_attention", "attention"))
            c->layer_kind[i] = GDN_LAYER_FULL;
        else if (word != NULL && is_either(word, "linear_attention", "mamba"))
            c->layer_kind[i] = GDN_LAYER_LINEAR;
        else {
            snprintf(name, sizeof name, "%s[%d]", key, (int)i);
            if (word == NULL)
                gdn_field_bad(r, name, x, "a string");
            else
                gdn_field_refuse(r, name, x,
                                 "supported are linear_attention and "
                                 "full_attention");
            return;
        }
    }
}

static void read_layers(gdn_fields *r, gdn_config *c) {
    gdn_field_i32(r, "num_hidden_layers", true, 1, GDN_MAX_LAYER, &c->n_layer);
    if (r->st != GDN_OK) return;
    const char *key = "layer_types";
    const json_t *v = gdn_field_get(r, key);
    if (v == NULL) v = gdn_field_get(r, key = "layers_block_type"); /* its older name */
    if (v != NULL) {
        read_layer_types(r, key, v, c);
        return;
    }
    int32_t every = 4;
    gdn_field_i32(r, "full_attention_interval", false, 1, GDN_MAX_LAYER, &every);
    for (int32_t i = 0; i < c->n_layer; i++)
        c->layer_kind[i] = (i + 1) % every == 0 ? GDN_LAYER_FULL : GDN_LAYER_LINEAR;
}

/* Which layers have experts: all, but qwen3_next may leave some dense. */
static void read_moe_layers(gdn_fields *r, gdn_config *c) {
    int32_t step = 1, n_dense = 0, dense[GDN_MAX_LAYER];
    if (c->arch == GDN_ARCH_QWEN3_5) return;
    if (c->arch == GDN_ARCH_QWEN3_NEXT) {
        gdn_field_i32(r, "decoder_sparse_step", false, 1, GDN_MAX_LAYER, &step);
        const json_t *v = gdn_field_get(r, "mlp_only_layers");
        if (v != NULL && !json_is_array(v))
            gdn_field_bad(r, "mlp_only_layers", v, "a list of layer numbers");
        gdn_field_i32_list(r, "mlp_only_layers", GDN_MAX_LAYER, 0, c->n_layer - 1, dense,
                           &n_dense);
    }
    for (int32_t i = 0; i < c->n_layer; i++) c->layer_moe[i] = (i + 1) % step == 0;
    for (int32_t i = 0; i < n_dense; i++) c->layer_moe[dense[i]] = false;
}

static bool any_moe(const gdn_config *c, bool moe) {
    for (int32_t i = 0; i < c->n_layer; i++)
        if (c->layer_moe[i] == moe) return true;
    return false;
}

static void read_ffn(gdn_fields *r, gdn_config *c) {
    read_moe_layers(r, c);
    if (r->st != GDN_OK) return;
    if (any_moe(c, false))
        gdn_field_i32(r, "intermediate_size", true, 1, MAX_FFN, &c->ffn);
    if (!any_moe(c, true)) return;
    const char *experts = gdn_field_get(r, "num_experts") != NULL ||
                                  gdn_field_get(r, "num_local_experts") == NULL
                              ? "num_experts"
                              : "num_local_experts";
    gdn_field_i32(r, experts, true, 1, MAX_EXPERT, &c->n_expert);
    gdn_field_i32(r, "num_experts_per_tok", true, 1, MAX_EXPERT, &c->top_k);
    gdn_field_i32(r, "moe_intermediate_size", true, 1, MAX_FFN, &c->moe_ffn);
    gdn_field_i32(r, "shared_expert_intermediate_size", true, 1, MAX_FFN, &c->shared_ffn);
    c->norm_topk = true; /* qwen3_5_moe has no such key and always normalises */
    if (c->arch == GDN_ARCH_QWEN3_NEXT)
        gdn_field_bool(r, "norm_topk_prob", &c->norm_topk);
}

/* --- attention --------------------------------------------------------------------- */

static void read_heads(gdn_fields *r, gdn_config *c) {
    const char *state = "float32", *act = "silu", *gate = "silu";
    bool bias = false;

    c->head_dim = 256;
    c->hk = 16, c->hv = 32, c->dk = 128, c->dv = 128, c->conv_width = 4;
    c->attn_gate = true;
    gdn_field_i32(r, "num_attention_heads", true, 1, MAX_HEADS, &c->hq);
    gdn_field_i32(r, "num_key_value_heads", true, 1, MAX_HEADS, &c->hkv);
    gdn_field_i32(r, "head_dim", false, 2, MAX_HEAD_DIM, &c->head_dim);
    gdn_field_bool(r, "attn_output_gate", &c->attn_gate);
    gdn_field_i32(r, "linear_num_key_heads", false, 1, MAX_HEADS, &c->hk);
    gdn_field_i32(r, "linear_num_value_heads", false, 1, MAX_HEADS, &c->hv);
    gdn_field_i32(r, "linear_key_head_dim", false, 1, MAX_HEAD_DIM, &c->dk);
    gdn_field_i32(r, "linear_value_head_dim", false, 1, MAX_HEAD_DIM, &c->dv);
    gdn_field_i32(r, "linear_conv_kernel_dim", false, 2, 8, &c->conv_width);

    gdn_field_bool(r, "attention_bias", &bias);
    if (bias)
        gdn_field_refuse(r, "attention_bias", gdn_field_get(r, "attention_bias"),
                         "the attention of these models has no biases");
    gdn_field_str(r, "hidden_act", &act);
    if (strcmp(act, "silu") != 0)
        gdn_field_refuse(r, "hidden_act", gdn_field_get(r, "hidden_act"),
                         "supported is silu");
    gdn_field_str(r, "output_gate_type", &gate);
    if (strcmp(gate, "silu") != 0 && strcmp(gate, "swish") != 0)
        gdn_field_refuse(r, "output_gate_type", gdn_field_get(r, "output_gate_type"),
                         "supported are silu and swish");
    gdn_field_str(r, "mamba_ssm_dtype", &state);
    if (strcmp(state, "float32") == 0)
        c->state_type = GDN_FLOAT_F32;
    else if (strcmp(state, "bfloat16") == 0)
        c->state_type = GDN_FLOAT_BF16;
    else if (strcmp(state, "float16") == 0)
        c->state_type = GDN_FLOAT_F16;
    else
        gdn_field_refuse(r, "mamba_ssm_dtype", gdn_field_get(r, "mamba_ssm_dtype"),
                         "supported are float32, bfloat16 and float16");
}

/* Both spellings of the type of scaling; anything but the plain one changes angles. */
static void check_rope_type(gdn_fields *r, const char *key) {
    const json_t *v = gdn_field_get(r, key);
    const char *word = json_string_value(v);
    if (v == NULL) return;
    if (word == NULL)
        gdn_field_bad(r, key, v, "a string");
    else if (strcmp(word, "default") != 0 && strcmp(word, "mrope") != 0)
        gdn_field_refuse(r, key, v, "supported is default");
}

static void read_sections(gdn_fields *r, gdn_config *c) {
    int32_t n = 0;
    bool interleaved = true;
    const json_t *v = gdn_field_get(r, "mrope_section");
    if (v == NULL || r->st != GDN_OK) return;
    if (!json_is_array(v) || json_array_size(v) != 3)
        gdn_field_bad(r, "mrope_section", v, "a list of three integers");
    gdn_field_i32_list(r, "mrope_section", 3, 0, MAX_HEAD_DIM, c->mrope_section, &n);
    gdn_field_bool(r, "mrope_interleaved", &interleaved);
    if (!interleaved)
        gdn_field_refuse(r, "mrope_interleaved", gdn_field_get(r, "mrope_interleaved"),
                         "the positions of these models are interleaved");
    c->mrope = r->st == GDN_OK;
}

/* Rope: in rope_parameters; in older files in rope_scaling with the rest beside it. */
static void read_rope(gdn_fields *r, gdn_config *c) {
    double part = 0.25;
    const char *key = "rope_parameters";
    const json_t *v = gdn_field_get(r, key);

    c->rope_theta = 1e7;
    gdn_field_f64(r, "rope_theta", false, 1, 1e12, &c->rope_theta);
    gdn_field_f64(r, "partial_rotary_factor", false, 0, 1, &part);
    if (v == NULL) v = gdn_field_get(r, key = "rope_scaling");
    if (v != NULL && !json_is_object(v)) gdn_field_bad(r, key, v, "an object or null");
    if (r->st != GDN_OK) return;
    if (v != NULL) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%s%s.", r->prefix, key);
        gdn_fields p = {r->name, prefix, v, r->err, GDN_OK};
        const char *inner;
        json_t *x;
        json_object_foreach((json_t *)v, inner, x) {
            if (json_is_object(x))
                gdn_field_refuse(&p, inner, x, "rotation is the same in all layers");
        }
        check_rope_type(&p, "rope_type");
        check_rope_type(&p, "type");
        gdn_field_f64(&p, "rope_theta", false, 1, 1e12, &c->rope_theta);
        gdn_field_f64(&p, "partial_rotary_factor", false, 0, 1, &part);
        if (c->arch != GDN_ARCH_QWEN3_NEXT) read_sections(&p, c);
        r->st = p.st;
    }
    c->rot = (int32_t)(c->head_dim * part);
    /* The models' own default, where it fits. */
    if (c->arch != GDN_ARCH_QWEN3_NEXT && !c->mrope && c->rot == 64) {
        c->mrope = true;
        c->mrope_section[0] = c->mrope_section[1] = 11, c->mrope_section[2] = 10;
    }
}

/* --- vision ------------------------------------------------------------------------- */

static void read_vision(gdn_fields *o, gdn_config *c) {
    gdn_vision_config *v = &c->vision;
    const json_t *j = gdn_field_get(o, "vision_config");
    if (o->st != GDN_OK || j == NULL) return;
    if (!json_is_object(j)) {
        gdn_field_bad(o, "vision_config", j, "an object or null");
        return;
    }
    c->has_vision = true;
    gdn_fields r = {o->name, "vision_config.", j, o->err, GDN_OK};
    const char *act = "gelu_pytorch_tanh";
    *v = (gdn_vision_config){.in_channels = 3,
                             .patch = 16,
                             .temporal_patch = 2,
                             .merge = 2,
                             .n_position = 2304,
                             .d_out = c->d,
                             .rope_theta = 1e4};
    gdn_field_i32(&r, "depth", true, 1, GDN_MAX_LAYER, &v->depth);
    gdn_field_i32(&r, "hidden_size", true, 1, MAX_D, &v->d);
    gdn_field_i32(&r, "num_heads", true, 1, MAX_HEADS, &v->n_head);
    gdn_field_i32(&r, "intermediate_size", true, 1, MAX_FFN, &v->ffn);
    gdn_field_i32(&r, "in_channels", false, 3, 3, &v->in_channels);
    gdn_field_i32(&r, "patch_size", false, 1, 256, &v->patch);
    gdn_field_i32(&r, "temporal_patch_size", false, 1, 8, &v->temporal_patch);
    gdn_field_i32(&r, "spatial_merge_size", false, 1, 8, &v->merge);
    gdn_field_i32(&r, "num_position_embeddings", false, 1, 1 << 20, &v->n_position);
    gdn_field_i32(&r, "out_hidden_size", false, c->d, c->d, &v->d_out);
    gdn_field_str(&r, "hidden_act", &act);
    if (strcmp(act, "gelu_pytorch_tanh") != 0)
        gdn_field_refuse(&r, "hidden_act", gdn_field_get(&r, "hidden_act"),
                         "supported is gelu_pytorch_tanh");
    const json_t *deep = gdn_field_get(&r, "deepstack_visual_indexes");
    if (deep != NULL && json_array_size(deep) > 0)
        gdn_field_refuse(&r, "deepstack_visual_indexes", deep,
                         "supported is an empty list");
    const json_t *rope = gdn_field_get(&r, "rope_parameters");
    if (rope != NULL && !json_is_object(rope))
        gdn_field_bad(&r, "rope_parameters", rope, "an object or null");
    else if (rope != NULL && r.st == GDN_OK) {
        gdn_fields p = {o->name, "vision_config.rope_parameters.", rope, o->err, GDN_OK};
        const json_t *type = gdn_field_get(&p, "rope_type");
        if (type != NULL &&
            (!json_is_string(type) || (strcmp(json_string_value(type), "axial") != 0 &&
                                       strcmp(json_string_value(type), "default") != 0)))
            gdn_field_refuse(&p, "rope_type", type, "supported is axial");
        gdn_field_f64(&p, "rope_theta", false, 1, 1e12, &v->rope_theta);
        r.st = p.st;
    }
    const int32_t side = (int32_t)lround(sqrt(v->n_position));
    if (side * side != v->n_position)
        gdn_field_bad(&r, "num_position_embeddings",
                      gdn_field_get(&r, "num_position_embeddings"), "a square number");
    /* Rotation takes the head in quarters: row and column, each with sine and cosine. */
    if (r.st == GDN_OK && v->d % (4 * v->n_head) != 0)
        gdn_field_bad(&r, "hidden_size", gdn_field_get(&r, "hidden_size"),
                      "a multiple of four times num_heads, %d", (int)v->n_head);
    o->st = r.st;
}

/* --- weights and tokens
 * ----------------------------------------------------------------- */

static void read_quant(gdn_fields *o, gdn_config *c) {
    const char *key = "quantization_config";
    const json_t *j = gdn_field_get(o, key);
    if (o->st != GDN_OK || j == NULL) return;
    if (!json_is_object(j)) {
        gdn_field_bad(o, key, j, "an object or null");
        return;
    }
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s%s.", o->prefix, key);
    gdn_fields r = {o->name, prefix, j, o->err, GDN_OK};
    const char *method = NULL, *fmt = "e4m3", *scheme = "dynamic";
    int32_t block[2] = {0, 0}, n = 0;

    gdn_field_str(&r, "quant_method", &method);
    if (method == NULL)
        gdn_field_bad(&r, "quant_method", NULL, "the kind of quantisation");
    else if (strcmp(method, "fp8") != 0)
        gdn_field_refuse(&r, "quant_method", gdn_field_get(&r, "quant_method"),
                         "supported is fp8");
    gdn_field_str(&r, "fmt", &fmt);
    if (strcmp(fmt, "e4m3") != 0)
        gdn_field_refuse(&r, "fmt", gdn_field_get(&r, "fmt"), "supported is e4m3");
    gdn_field_str(&r, "activation_scheme", &scheme);
    if (strcmp(scheme, "dynamic") != 0)
        gdn_field_refuse(&r, "activation_scheme", gdn_field_get(&r, "activation_scheme"),
                         "supported is dynamic");
    gdn_field_i32_list(&r, "weight_block_size", 2, 1, MAX_D, block, &n);
    if (r.st == GDN_OK && n != 2)
        gdn_field_bad(&r, "weight_block_size", gdn_field_get(&r, "weight_block_size"),
                      "two integers: rows and columns of a block");
    c->quant = GDN_QUANT_FP8;
    c->quant_rows = block[0], c->quant_cols = block[1];
    o->st = r.st;
}

static void read_dtype(config_file *f, gdn_config *c) {
    gdn_fields *at[] = {&f->outer, &f->text};
    static const char *const key[] = {"dtype", "torch_dtype"};
    c->dtype = GDN_FLOAT_BF16;
    for (int i = 0; i < 4; i++) {
        gdn_fields *r = at[i / 2];
        const char *word = NULL;
        gdn_field_str(r, key[i % 2], &word);
        if (word == NULL) continue;
        if (strcmp(word, "bfloat16") == 0)
            c->dtype = GDN_FLOAT_BF16;
        else if (strcmp(word, "float16") == 0)
            c->dtype = GDN_FLOAT_F16;
        else if (strcmp(word, "float32") == 0)
            c->dtype = GDN_FLOAT_F32;
        else
            gdn_field_refuse(r, key[i % 2], gdn_field_get(r, key[i % 2]),
                             "supported are bfloat16, float16 and float32");
        return;
    }
}

static void read_tokens(config_file *f, gdn_config *c) {
    gdn_fields *o = &f->outer, *t = &f->text;
    const int32_t last = c->vocab - 1;
    gdn_fields *eos = gdn_field_get(o, "eos_token_id") != NULL ? o : t;
    gdn_field_i32_list(eos, "eos_token_id", GDN_MAX_EOS, 0, last, c->eos, &c->n_eos);
    c->image_token = c->video_token = c->vision_start = c->vision_end = -1;
    gdn_field_i32(o, "image_token_id", false, 0, last, &c->image_token);
    gdn_field_i32(o, "video_token_id", false, 0, last, &c->video_token);
    gdn_field_i32(o, "vision_start_token_id", false, 0, last, &c->vision_start);
    gdn_field_i32(o, "vision_end_token_id", false, 0, last, &c->vision_end);
}

static void read_mtp(gdn_fields *r, gdn_config *c) {
    bool own = false;
    c->n_mtp = -1;
    gdn_field_i32(r, "num_nextn_predict_layers", false, 0, 16, &c->n_mtp);
    gdn_field_i32(r, "mtp_num_hidden_layers", false, 0, 16, &c->n_mtp);
    gdn_field_bool(r, "mtp_use_dedicated_embeddings", &own);
    if (own)
        gdn_field_refuse(r, "mtp_use_dedicated_embeddings",
                         gdn_field_get(r, "mtp_use_dedicated_embeddings"),
                         "the draft head shares the model's embeddings");
}

/* --- the whole
 * ---------------------------------------------------------------------------- */

gdn_status gdn_config_check(gdn_config *c, const char *name, gdn_err *err) {
    const int32_t *s = c->mrope_section;
    if (c->hq % c->hkv != 0)
        return gdn_fail(
            err, GDN_E_FORMAT,
            "%s: num_attention_heads %d is not a multiple of num_key_value_heads %d",
            name, (int)c->hq, (int)c->hkv);
    if (c->hv % c->hk != 0)
        return gdn_fail(
            err, GDN_E_FORMAT,
            "%s: linear_num_value_heads %d is not a multiple of linear_num_key_heads %d",
            name, (int)c->hv, (int)c->hk);
    if (c->rot < 2 || c->rot % 2 != 0 || c->rot > c->head_dim)
        return gdn_fail(
            err, GDN_E_FORMAT,
            "%s: partial_rotary_factor rotates %d of head_dim %d; need an even "
            "number from 2",
            name, (int)c->rot, (int)c->head_dim);
    if (c->mrope && s[0] + s[1] + s[2] != c->rot / 2)
        return gdn_fail(
            err, GDN_E_FORMAT,
            "%s: mrope_section %d + %d + %d is not %d, half the rotated dimensions", name,
            (int)s[0], (int)s[1], (int)s[2], (int)(c->rot / 2));
    if (c->has_vision && !c->mrope)
        return gdn_fail(err, GDN_E_FORMAT, "%s: a vision model without mrope_section",
                        name);
    if ((int64_t)c->hv * c->dk * c->dv > MAX_STATE)
        return gdn_fail(
            err, GDN_E_FORMAT,
            "%s: a linear layer's state of %d x %d x %d numbers; need at most %d", name,
            (int)c->hv, (int)c->dk, (int)c->dv, MAX_STATE);
    if (c->n_expert > 0 && (c->top_k < 1 || c->top_k > c->n_expert))
        return gdn_fail(err, GDN_E_FORMAT, "%s: num_experts_per_tok is %d; need 1 to %d",
                        name, (int)c->top_k, (int)c->n_expert);
    c->n_full = 0;
    for (int32_t i = 0; i < c->n_layer; i++)
        c->n_full += c->layer_kind[i] == GDN_LAYER_FULL;
    c->n_linear = c->n_layer - c->n_full;
    return GDN_OK;
}

static void read_all(config_file *f, gdn_config *c) {
    gdn_fields *o = &f->outer, *t = &f->text;
    read_arch(f, &c->arch);
    if (t->st == GDN_OK) t->st = o->st;
    c->interleaved = c->arch == GDN_ARCH_QWEN3_NEXT;
    c->max_position = 32768;
    c->eps = 1e-6;
    gdn_field_i32(t, "hidden_size", true, 1, MAX_D, &c->d);
    gdn_field_i32(t, "vocab_size", true, 1, MAX_VOCAB, &c->vocab);
    gdn_field_i32(t, "max_position_embeddings", false, 1, MAX_TOKENS, &c->max_position);
    gdn_field_f64(t, "rms_norm_eps", false, 1e-12, 0.1, &c->eps);
    gdn_field_bool(t, "tie_word_embeddings", &c->tie);
    read_layers(t, c);
    read_heads(t, c);
    read_rope(t, c);
    if (t->st == GDN_OK) read_ffn(t, c);
    read_mtp(t, c);
    if (o->obj != t->obj) read_quant(t, c);

    o->st = t->st;
    gdn_field_bool(o, "tie_word_embeddings", &c->tie);
    read_quant(o, c);
    read_vision(o, c);
    if (o->st != GDN_OK) return;
    read_tokens(f, c);
    if (t->st == GDN_OK) read_dtype(f, c);
    if (o->st == GDN_OK) o->st = t->st;
}

gdn_status gdn_config_parse(const char *json, size_t n, const char *name, gdn_config *out,
                            gdn_err *err) {
    json_t *j = NULL;
    gdn_status st = gdn_fields_parse(json, n, name, &j, err);
    if (st != GDN_OK) return st;

    gdn_config c = {0};
    config_file f = {.outer = {name, "", j, err, GDN_OK},
                     .text = {name, "", j, err, GDN_OK}};
    const json_t *text = gdn_field_get(&f.outer, "text_config");
    if (text != NULL) {
        f.text.obj = text;
        f.text.prefix = "text_config.";
        if (!json_is_object(text))
            gdn_field_bad(&f.outer, "text_config", text, "an object");
    }
    if (f.outer.st == GDN_OK) read_all(&f, &c);
    st = f.outer.st;
    if (st == GDN_OK) st = gdn_config_check(&c, name, err);
    if (st == GDN_OK) *out = c;
    json_decref(j);
    return st;
}

gdn_status gdn_config_read(const char *path, gdn_config *out, gdn_err *err) {
    char *file = NULL, *text = NULL;
    size_t n = 0;
    struct stat s;
    const bool folder = stat(path, &s) == 0 && S_ISDIR(s.st_mode);
    if (asprintf(&file, "%s%s", path, folder ? "/config.json" : "") < 0)
        return gdn_fail(err, GDN_E_NOMEM, "%s: no memory", path);
    gdn_status st = gdn_fields_slurp(file, MAX_FILE, &text, &n, err);
    if (st == GDN_OK) st = gdn_config_parse(text, n, file, out, err);
    free(text);
    free(file);
    return st;
}
