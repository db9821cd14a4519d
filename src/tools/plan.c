/* plan.c - what a model's cache will look like on a device, from its configuration alone. */
#include <stdio.h>
#include <string.h>

#include "../backend/constraints.h"
#include "../engine/blocks.h"
#include "random_model.h"

enum {
    CHUNK = 64, /* tokens of a chunk of the delta rule: mode all keeps states at its multiples */
    MAX_TP = 1024,
    MAX_DRAFT = 64,
};

void gdn_plan_defaults(gdn_plan_opts *o) {
    *o = (gdn_plan_opts){.type = "bf16", .mode = "none", .kv_type = "bf16", .conv_type = "bf16",
                         .state_type = "f32", .tp = 1, .mtp = true};
}

/* --- options ------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int32_t     value;
} word;

/* fp8 stays last: states cannot have it. */
static const word types[] = {{"bf16", 2}, {"f16", 2}, {"f32", 4}, {"fp8", 1}};
static const word modes[] = {{"none", GDN_BLOCKS_NONE},
                             {"align", GDN_BLOCKS_ALIGN},
                             {"all", GDN_BLOCKS_ALL}};
enum { N_TYPE = sizeof types / sizeof *types, N_MODE = sizeof modes / sizeof *modes };

static gdn_status choose(const char *what, const char *given, const word *list, int n,
                         const word **out, gdn_err *err) {
    char names[64] = "";
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        if (given != NULL && strcmp(given, list[i].name) == 0) {
            *out = &list[i];
            return GDN_OK;
        }
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i > 0 ? ", " : "",
                               list[i].name);
    }
    return gdn_fail(err, GDN_E_INVALID, "%s is \"%.40s\"; need one of %s", what,
                    given != NULL ? given : "", names);
}

static gdn_status check_range(const char *what, int32_t value, int32_t lo, int32_t hi,
                              gdn_err *err) {
    if (value >= lo && value <= hi) return GDN_OK;
    return gdn_fail(err, GDN_E_INVALID, "%s is %d; need %d to %d", what, (int)value, (int)lo,
                    (int)hi);
}

static gdn_status find_device(const char *name, const gdn_device_constraints **out,
                              gdn_err *err) {
    gdn_device_info first;
    char list[64] = "";
    size_t at = 0;
    if (name == NULL)
        name = gdn_device_find(NULL, &first, NULL) == GDN_OK ? first.name : "cpu";
    *out = gdn_constraints_find(name);
    if (*out != NULL) return GDN_OK;
    for (int i = 0; gdn_constraints_at(i) != NULL; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, " %s", gdn_constraints_at(i)->name);
    return gdn_fail(err, GDN_E_INVALID, "device '%.40s' is not known; there are%s", name, list);
}

/* The words of the options, looked up. */
typedef struct {
    const word *kv, *conv, *state;
    const char *mode_name;
    gdn_block_mode mode;
    const gdn_device_constraints *device;
} choices;

static gdn_status settle(const gdn_plan_opts *o, choices *c, gdn_err *err) {
    const word *mode = NULL;
    gdn_status st = choose("the mode", o->mode, modes, N_MODE, &mode, err);
    if (st == GDN_OK)
        st = choose("the type of keys and values", o->kv_type, types, N_TYPE, &c->kv, err);
    if (st == GDN_OK)
        st = choose("the type of convolution states", o->conv_type, types, N_TYPE - 1, &c->conv,
                    err);
    if (st == GDN_OK)
        st = choose("the type of states", o->state_type, types, N_TYPE - 1, &c->state, err);
    if (st == GDN_OK) st = check_range("the number of shards", o->tp, 1, MAX_TP, err);
    if (st == GDN_OK) st = check_range("the number of drafts", o->n_draft, 0, MAX_DRAFT, err);
    if (st == GDN_OK) st = check_range("the context", o->n_ctx, 0, INT32_MAX, err);
    if (st == GDN_OK)
        st = check_range("the mamba block size", o->mamba_block_size, 0, GDN_MAX_BLOCK_SIZE, err);
    if (st == GDN_OK) st = find_device(o->device, &c->device, err);
    if (st != GDN_OK) return st;
    c->mode_name = mode->name;
    c->mode = (gdn_block_mode)mode->value;
    if (o->mamba_block_size > 0 && c->mode != GDN_BLOCKS_ALL)
        return gdn_fail(err, GDN_E_INVALID, "a mamba block size of %d needs the mode all, not %s",
                        (int)o->mamba_block_size, c->mode_name);
    return GDN_OK;
}

static gdn_status read_config(const gdn_plan_opts *o, gdn_config *c, gdn_err *err) {
    if ((o->model != NULL) == (o->like != NULL))
        return gdn_fail(err, GDN_E_INVALID, "need either a model or the name of a shape");
    if (o->model != NULL) return gdn_config_read(o->model, c, err);
    const gdn_random_shape *s;
    const word *type;
    gdn_random_opts r;
    gdn_random_defaults(&r);
    gdn_status st = choose("the weights' type", o->type, types, N_TYPE, &type, err);
    if (st == GDN_OK) st = gdn_random_find(o->like, &s, err);
    if (st != GDN_OK) return st;
    r.type = type->name;
    r.n_layer = s->n_layer;
    r.mtp = o->mtp;
    return gdn_random_config(s, &r, c, err);
}

/* --- weights --------------------------------------------------------------------------- */

/* Counting the bytes of one shard.  The bounds of gdn_config keep the sum below 2^64. */
typedef struct {
    const gdn_config *c;
    uint64_t tp, element, bytes;
} weights;

static uint64_t part(const weights *w, int32_t n) { return ((uint64_t)n + w->tp - 1) / w->tp; }

/* What stays in the model's type. */
static void plain(weights *w, uint64_t rows, uint64_t cols) { w->bytes += rows * cols * w->element; }

/* A matrix that an fp8 model holds in e4m3, with a scale for each block. */
static void matrix(weights *w, uint64_t rows, uint64_t cols) {
    const gdn_config *c = w->c;
    if (c->quant == GDN_QUANT_NONE) {
        plain(w, rows, cols);
        return;
    }
    const uint64_t r = c->quant_rows > 0 ? (uint64_t)c->quant_rows : rows,
                   k = c->quant_cols > 0 ? (uint64_t)c->quant_cols : cols;
    w->bytes += rows * cols;
    plain(w, (rows + r - 1) / r, (cols + k - 1) / k);
}

static void count_attention(weights *w) {
    const gdn_config *c = w->c;
    const uint64_t d = (uint64_t)c->d, head = (uint64_t)c->head_dim,
                   q = part(w, c->hq) * head, kv = part(w, c->hkv) * head;
    matrix(w, c->attn_gate ? 2 * q : q, d);
    matrix(w, kv, d);
    matrix(w, kv, d);
    matrix(w, d, q);
    plain(w, 2, head); /* norms of queries and keys */
}

static void count_linear(weights *w) {
    const gdn_config *c = w->c;
    const uint64_t d = (uint64_t)c->d, hv = part(w, c->hv), v = hv * (uint64_t)c->dv,
                   k = part(w, c->hk) * (uint64_t)c->dk;
    if (c->interleaved) {
        matrix(w, 2 * k + 2 * v, d);
    } else {
        matrix(w, 2 * k + v, d);
        matrix(w, v, d);
    }
    plain(w, 2 * hv, d); /* decay and beta */
    plain(w, 2 * k + v, (uint64_t)c->conv_width);
    plain(w, 1, hv); /* dt_bias; then A_log and the norm, which qwen3_5 holds in f32 */
    w->bytes += (hv + (uint64_t)c->dv) * (c->arch == GDN_ARCH_QWEN3_NEXT ? w->element : 4);
    matrix(w, d, v);
}

static void count_mlp(weights *w, uint64_t ffn) {
    matrix(w, ffn, (uint64_t)w->c->d);
    matrix(w, ffn, (uint64_t)w->c->d);
    matrix(w, (uint64_t)w->c->d, ffn);
}

static void count_layer(weights *w, bool full, bool moe) {
    const gdn_config *c = w->c;
    plain(w, 2, (uint64_t)c->d); /* norms */
    if (full) count_attention(w);
    else count_linear(w);
    if (!moe) {
        count_mlp(w, part(w, c->ffn));
        return;
    }
    plain(w, (uint64_t)c->n_expert + 1, (uint64_t)c->d); /* router, the shared expert's gate */
    weights expert = {.c = c, .tp = w->tp, .element = w->element};
    count_mlp(&expert, part(w, c->moe_ffn));
    w->bytes += expert.bytes * (uint64_t)c->n_expert;
    count_mlp(w, part(w, c->shared_ffn));
}

/* Norms and routers are on every shard, all else is divided. */
static uint64_t count_weights(const gdn_config *c, int32_t tp, bool mtp) {
    weights w = {.c = c, .tp = (uint64_t)tp, .element = c->dtype == GDN_FLOAT_F32 ? 4 : 2};
    const uint64_t d = (uint64_t)c->d;
    plain(&w, part(&w, c->vocab), d);
    if (!c->tie) plain(&w, part(&w, c->vocab), d);
    plain(&w, 1, d);
    for (int32_t i = 0; i < c->n_layer; i++)
        count_layer(&w, c->layer_kind[i] == GDN_LAYER_FULL, c->layer_moe[i]);
    if (mtp) {
        plain(&w, 2, d * d / w.tp); /* fc joins an embedding and a hidden row */
        plain(&w, 3, d);
        count_layer(&w, true, c->n_expert > 0);
    }
    return w.bytes;
}

static const char *weight_type(const gdn_config *c) {
    return c->quant == GDN_QUANT_FP8        ? "fp8"
           : c->dtype == GDN_FLOAT_F32 ? "f32"
           : c->dtype == GDN_FLOAT_F16 ? "f16"
                                       : "bf16";
}

/* --- the plan -------------------------------------------------------------------------- */

/* qwen3_next checkpoints have a draft head that their config.json does not mention. */
static bool has_mtp(const gdn_config *c) {
    return c->n_mtp > 0 || (c->n_mtp < 0 && c->arch == GDN_ARCH_QWEN3_NEXT);
}

/* Layers in groups of equal length, as the engine arranges them. */
static void set_groups(gdn_plan_result *r) {
    r->n_attn = r->n_full + r->has_mtp;
    r->n_storage = r->n_attn > 0 ? r->n_attn : r->n_linear;
    r->n_group = (r->n_linear + r->n_storage - 1) / r->n_storage;
    r->pool_page_bytes = r->page_bytes * (uint64_t)r->n_storage;
}

static gdn_status set_sequence(gdn_plan_result *r, gdn_block_mode mode, gdn_err *err) {
    const int64_t block = ((int64_t)r->n_ctx + r->block_size - 1) / r->block_size;
    const int64_t kept = mode == GDN_BLOCKS_ALL ? block : mode == GDN_BLOCKS_ALIGN ? 2 : 1;
    r->kv_pages = r->n_attn > 0 ? block : 0;
    r->state_pages = r->n_group * (kept + r->n_draft);
    if (__builtin_mul_overflow((uint64_t)(r->kv_pages + r->state_pages), r->pool_page_bytes,
                               &r->sequence_bytes))
        return gdn_fail(err, GDN_E_UNSUPPORTED, "a sequence of %d tokens takes more than 2^64 bytes",
                        (int)r->n_ctx);
    return GDN_OK;
}

static void set_memory(gdn_plan_result *r, gdn_block_mode mode, uint64_t memory) {
    if (memory == 0) return;
    r->cache_bytes = memory > r->weight_bytes ? memory - r->weight_bytes : 0;
    const uint64_t n_page = r->cache_bytes / r->pool_page_bytes; /* below 2^63: no page is a byte */
    r->n_page = n_page > 0 ? (int64_t)n_page - 1 : 0;
    r->n_seq = r->n_page / (r->kv_pages + r->state_pages);
    /* One sequence: its states that do not grow, then as many blocks as there is room for. */
    const bool all = mode == GDN_BLOCKS_ALL && r->n_group > 0;
    const int64_t fixed = r->state_pages - (all ? r->kv_pages * r->n_group : 0),
                  block = (r->n_attn > 0) + (all ? r->n_group : 0);
    if (r->n_page < fixed) return;
    const int64_t most = block > 0 ? (r->n_page - fixed) / block : INT32_MAX;
    r->max_tokens = most < INT32_MAX / r->block_size ? most * r->block_size : INT32_MAX;
}

/* Page sizes of one shard. */
static gdn_status set_blocks(gdn_plan_result *r, const gdn_config *c, const choices *k,
                             const gdn_plan_opts *o, gdn_err *err) {
    const bool attn = r->n_full + r->has_mtp > 0, linear = r->n_linear > 0;
    gdn_block_want w = {
        .hkv = attn ? c->hkv : 0,
        .head_dim = c->head_dim,
        .kv_bytes = k->kv->value,
        .hk = linear ? c->hk : 0,
        .hv = linear ? c->hv : 0,
        .dk = c->dk,
        .dv = c->dv,
        .conv_width = c->conv_width,
        .conv_bytes = k->conv->value,
        .state_bytes = k->state->value,
        .n_draft = o->n_draft,
        .kv_multiple = k->device->kv_block_multiple,
        .gdn_multiple = k->device->gdn_block_multiple,
        .block_size = o->block_size,
        .mode = k->mode,
        .base = o->mamba_block_size > 0 ? o->mamba_block_size : CHUNK,
    };
    if (attn && c->hq % o->tp != 0)
        return gdn_fail(err, GDN_E_INVALID, "%d query heads cannot be divided among %d shards",
                        (int)c->hq, (int)o->tp);
    gdn_block_plan p;
    gdn_status st = gdn_shard_heads(&w, o->tp, err);
    if (st == GDN_OK) st = gdn_plan_blocks(&w, &p, err);
    if (st != GDN_OK) return st;
    r->hq = attn ? c->hq / o->tp : 0;
    r->hkv = w.hkv;
    r->hk = w.hk;
    r->hv = w.hv;
    r->kv_multiple = w.kv_multiple;
    r->gdn_multiple = w.gdn_multiple;
    r->align = p.align;
    r->block_size = p.block_size;
    r->mamba_block_size = p.mamba_block_size;
    r->page_bytes = p.page_bytes;
    r->kv_bytes_per_token = p.token_bytes;
    r->conv_bytes = p.conv_bytes;
    r->state_bytes = p.state_bytes;
    r->padding_bytes = p.padding_bytes;
    if (linear) r->waste = (double)p.padding_bytes / (double)(p.conv_bytes + p.state_bytes);
    return GDN_OK;
}

gdn_status gdn_plan(const gdn_plan_opts *o, gdn_plan_result *out, gdn_err *err) {
    choices k;
    gdn_config c;
    gdn_status st = settle(o, &k, err);
    if (st == GDN_OK) st = read_config(o, &c, err);
    if (st != GDN_OK) return st;
    gdn_plan_result r = {
        .arch = gdn_arch_name(c.arch),
        .device = k.device->name,
        .mode = k.mode_name,
        .kv_type = k.kv->name,
        .conv_type = k.conv->name,
        .state_type = k.state->name,
        .weight_type = weight_type(&c),
        .n_layer = c.n_layer,
        .n_full = c.n_full,
        .n_linear = c.n_linear,
        .has_mtp = o->mtp && has_mtp(&c),
        .tp = o->tp,
        .n_draft = o->n_draft,
        .head_dim = c.head_dim,
        .dk = c.dk,
        .dv = c.dv,
        .conv_width = c.conv_width,
        .n_ctx = o->n_ctx > 0 ? o->n_ctx : c.max_position,
    };
    st = set_blocks(&r, &c, &k, o, err);
    if (st != GDN_OK) return st;
    set_groups(&r);
    st = set_sequence(&r, k.mode, err);
    if (st != GDN_OK) return st;
    r.weight_bytes = count_weights(&c, o->tp, r.has_mtp);
    set_memory(&r, k.mode, o->memory_bytes);
    *out = r;
    return GDN_OK;
}
