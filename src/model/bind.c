/* bind.c - tensors of a checkpoint, by their published names, to a model's weights.
 *
 * Names and shapes: MODEL.md.  A missing or misshapen tensor is refused with file, name and
 * values, and so is one that nothing asked for; vision tensors are passed over. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/half.h"
#include "model.h"

#define TRY(call)                                                                         \
    do {                                                                                  \
        const gdn_status st_ = (call);                                                    \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)

typedef struct {
    gdn_model *m;
    gdn_progress_fn *progress;
    void *arg;
    char *vector; /* m->vector as the host fills it */
    uint64_t done, total;
    gdn_err *err;
} binder;

/* A tensor name.  Prefixes and suffixes are all ours and fit. */
enum { NAME = 200 };
static void name_set(char out[NAME], const char *fmt, ...) GDN_PRINTF(2, 3);

static void name_set(char out[NAME], const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out, NAME, fmt, ap);
    va_end(ap);
}

/* One tensor's place in a projection. */
typedef struct {
    char    name[NAME];
    int64_t rows;
    const int32_t *order; /* row i of the projection is row order[i]; NULL: in order */
} piece;

static void piece_set(piece *p, int64_t rows, const int32_t *order, const char *fmt, ...)
    GDN_PRINTF(4, 5);

static void piece_set(piece *p, int64_t rows, const int32_t *order, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
    p->rows = rows;
    p->order = order;
}

/* --- finding and checking --------------------------------------------------------- */

static gdn_status find(binder *b, const char *name, gdn_st_tensor **out) {
    *out = gdn_weights_find(b->m->weights, name);
    if (*out == NULL)
        return gdn_fail(b->err, GDN_E_FORMAT, "%s: tensor %s is missing", b->m->dir, name);
    (*out)->used = true;
    return GDN_OK;
}

static gdn_status check_shape(binder *b, const gdn_st_tensor *t, int32_t ndim,
                              const int64_t *shape) {
    bool same = t->ndim == ndim;
    for (int32_t i = 0; same && i < ndim; i++) same = t->shape[i] == shape[i];
    if (same) return GDN_OK;
    char have[80] = "", need[80] = "";
    for (int32_t i = 0, at = 0; i < t->ndim && at < 60; i++)
        at += snprintf(have + at, sizeof have - (size_t)at, "%s%lld", i > 0 ? ", " : "",
                       (long long)t->shape[i]);
    for (int32_t i = 0, at = 0; i < ndim && at < 60; i++)
        at += snprintf(need + at, sizeof need - (size_t)at, "%s%lld", i > 0 ? ", " : "",
                       (long long)shape[i]);
    return gdn_fail(b->err, GDN_E_FORMAT, "%s: tensor %s has shape [%s], config.json asks for [%s]",
                    gdn_weights_path(b->m->weights, t), t->name, have, need);
}

static gdn_status float_type(binder *b, const gdn_st_tensor *t, bool fp8, gdn_type *out) {
    *out = GDN_F32;
    switch (t->dtype) {
    case GDN_ST_F32: *out = GDN_F32; return GDN_OK;
    case GDN_ST_BF16: *out = GDN_BF16; return GDN_OK;
    case GDN_ST_F16: *out = GDN_F16; return GDN_OK;
    case GDN_ST_F8_E4M3:
        if (fp8) {
            *out = GDN_F8;
            return GDN_OK;
        }
        break;
    default: break;
    }
    return gdn_fail(b->err, GDN_E_FORMAT, "%s: tensor %s has type %s, need F32, BF16 or F16%s",
                    gdn_weights_path(b->m->weights, t), t->name, gdn_st_dtype_name(t->dtype),
                    fp8 ? " (or F8_E4M3)" : "");
}

static void advance(binder *b, const gdn_st_tensor *t) {
    b->done += t->bytes;
    if (b->progress != NULL) b->progress(b->arg, b->done, b->total);
}

/* --- vectors ------------------------------------------------------------------------ */

static float element(const gdn_st_tensor *t, int64_t i) {
    switch (t->dtype) {
    case GDN_ST_F32: return ((const float *)(const void *)t->data)[i];
    case GDN_ST_BF16: return gdn_bf16_to_f32(((const uint16_t *)(const void *)t->data)[i]);
    default: return gdn_f16_to_f32(((const uint16_t *)(const void *)t->data)[i]);
    }
}

/* Room for n floats among the model's vectors, cache-line aligned. */
static gdn_status vector_room(binder *b, int64_t n, uint64_t *at) {
    gdn_model *m = b->m;
    *at = 0;
    const uint64_t bytes = ((uint64_t)n * sizeof(float) + 63) / 64 * 64;
    if (m->vector == NULL || bytes > gdn_buffer_bytes(m->vector) - m->vector_used)
        return gdn_fail(b->err, GDN_E_FORMAT, "%s: vectors do not fit the shape of config.json",
                        m->dir);
    *at = m->vector_used;
    m->vector_used += bytes;
    return GDN_OK;
}

/* A vector of n floats, plus `add` (1 for zero-centred norms). */
static gdn_status bind_vector(binder *b, const char *name, int64_t n, float add, gdn_tensor *out) {
    gdn_st_tensor *t;
    gdn_type type;
    uint64_t at;
    TRY(find(b, name, &t));
    TRY(check_shape(b, t, 1, &n));
    TRY(float_type(b, t, false, &type));
    TRY(vector_room(b, n, &at));
    float *v = (float *)(void *)(b->vector + at);
    for (int64_t i = 0; i < n; i++) v[i] = element(t, i) + add;
    *out = gdn_tensor_dense(b->m->vector, at, GDN_F32, 1, &n);
    advance(b, t);
    return GDN_OK;
}

/* conv1d.weight [C, 1, W] to [W, C]. */
static gdn_status bind_conv(binder *b, const char *name, int64_t C, int64_t W, gdn_tensor *out) {
    gdn_st_tensor *t;
    gdn_type type;
    uint64_t at;
    TRY(find(b, name, &t));
    const int64_t with_one[3] = {C, 1, W}, flat[2] = {C, W}, tapped[2] = {W, C};
    TRY(t->ndim == 2 ? check_shape(b, t, 2, flat) : check_shape(b, t, 3, with_one));
    TRY(float_type(b, t, false, &type));
    TRY(vector_room(b, C * W, &at));
    float *v = (float *)(void *)(b->vector + at);
    for (int64_t c = 0; c < C; c++)
        for (int64_t j = 0; j < W; j++) v[j * C + c] = element(t, c * W + j);
    *out = gdn_tensor_dense(b->m->vector, at, GDN_F32, 2, tapped);
    advance(b, t);
    return GDN_OK;
}

/* --- matrices ----------------------------------------------------------------------- */

static void released(void *arg, const void *data, uint64_t bytes) {
    binder *b = arg;
    gdn_weights_release(b->m->weights, data, bytes);
    b->done += bytes;
    if (b->progress != NULL) b->progress(b->arg, b->done, b->total);
}

static gdn_status keep(binder *b, gdn_weight *w) {
    gdn_model *m = b->m;
    if (m->n_owned == m->cap_owned) {
        const int32_t cap = m->cap_owned > 0 ? 2 * m->cap_owned : 256;
        gdn_weight **p = realloc(m->owned, (size_t)cap * sizeof *p);
        if (p == NULL) {
            gdn_weight_free(w);
            return gdn_fail(b->err, GDN_E_NOMEM, "%s: out of memory", m->dir);
        }
        m->owned = p;
        m->cap_owned = cap;
    }
    m->owned[m->n_owned++] = w;
    return GDN_OK;
}

/* The scale of an fp8 tensor: NAME_scale_inv, one for every block. */
static gdn_status find_scale(binder *b, const gdn_st_tensor *t, int64_t rows, int64_t k,
                             gdn_weight_part *part) {
    const gdn_config *c = &b->m->config;
    char name[NAME];
    name_set(name, "%s_scale_inv", t->name);
    if (c->quant != GDN_QUANT_FP8 || c->quant_rows < 1 || c->quant_cols < 1)
        return gdn_fail(b->err, GDN_E_UNSUPPORTED,
                        "%s: tensor %s is F8_E4M3 but config.json has no quantization_config with "
                        "weight_block_size", b->m->dir, t->name);
    gdn_st_tensor *s;
    gdn_type type;
    TRY(find(b, name, &s));
    const int64_t shape[2] = {(rows + c->quant_rows - 1) / c->quant_rows,
                              (k + c->quant_cols - 1) / c->quant_cols};
    TRY(check_shape(b, s, 2, shape));
    TRY(float_type(b, s, false, &type));
    if (type == GDN_F16)
        return gdn_fail(b->err, GDN_E_UNSUPPORTED, "%s: tensor %s has type F16, need F32 or BF16",
                        b->m->dir, name);
    part->scale = s->data;
    part->scale_type = type;
    b->done += s->bytes;
    return GDN_OK;
}

/* 0x7f and 0xff are NaN: a damaged file, not a weight. */
static gdn_status check_fp8(binder *b, const gdn_st_tensor *t) {
    for (uint64_t i = 0; i < t->bytes; i++)
        if ((t->data[i] & 0x7f) == 0x7f)
            return gdn_fail(b->err, GDN_E_FORMAT, "%s: tensor %s holds NaN at element %llu",
                            gdn_weights_path(b->m->weights, t), t->name, (unsigned long long)i);
    return GDN_OK;
}

static gdn_status make_part(binder *b, const gdn_st_tensor *t, const unsigned char *data,
                            int64_t rows, int64_t k, gdn_type type, const int32_t *order,
                            gdn_weight_part *part) {
    *part = (gdn_weight_part){.data = data,
                              .n_row = rows,
                              .row_bytes = k * gdn_type_bytes(type),
                              .order = order};
    if (type != GDN_F8) return GDN_OK;
    TRY(check_fp8(b, t));
    return find_scale(b, t, rows, k, part);
}

static gdn_status create(binder *b, gdn_type type, int32_t n_expert, int64_t n, int64_t k,
                         const gdn_weight_part *part, int32_t n_part, gdn_weight **out) {
    gdn_weight_desc d = {.type = type,
                         .n_expert = n_expert,
                         .n = (int32_t)n,
                         .k = (int32_t)k,
                         .scale_rows = b->m->config.quant_rows,
                         .scale_cols = b->m->config.quant_cols,
                         .part = part,
                         .n_part = n_part,
                         .done = released,
                         .done_arg = b};
    TRY(gdn_weight_create(b->m->device, &d, out, b->err));
    return keep(b, *out);
}

/* Pieces in one packed matrix as far as their types agree. */
static gdn_status bind_projection(binder *b, const piece *p, int32_t n, int64_t k,
                                  gdn_projection *out) {
    gdn_weight_part part[GDN_MAX_PART];
    gdn_type type[GDN_MAX_PART] = {GDN_F32};
    for (int32_t i = 0; i < n; i++) {
        gdn_st_tensor *t;
        const int64_t shape[2] = {p[i].rows, k};
        TRY(find(b, p[i].name, &t));
        TRY(check_shape(b, t, 2, shape));
        TRY(float_type(b, t, true, &type[i]));
        TRY(make_part(b, t, t->data, p[i].rows, k, type[i], p[i].order, &part[i]));
    }
    *out = (gdn_projection){.n_piece = n};
    for (int32_t i = 0, at = 0; i < n; at += out->piece[i++].n)
        out->piece[i] = (gdn_piece){at, (int32_t)p[i].rows, b->m->n_site++};
    for (int32_t i = 0; i < n;) {
        int32_t end = i + 1;
        int64_t rows = p[i].rows;
        while (end < n && type[end] == type[i]) rows += p[end++].rows;
        TRY(create(b, type[i], 1, rows, k, part + i, end - i, &out->w[out->n]));
        out->n++;
        out->n_out += (int32_t)rows;
        i = end;
    }
    return GDN_OK;
}

static gdn_status bind_one(binder *b, const char *name, int64_t rows, int64_t k,
                           gdn_projection *out) {
    piece p;
    piece_set(&p, rows, NULL, "%s", name);
    return bind_projection(b, &p, 1, k, out);
}

/* --- experts ------------------------------------------------------------------------- */

/* Published bf16 layout: one tensor [E, rows, k], without suffix. */
static gdn_status bind_fused(binder *b, gdn_st_tensor *t, int64_t rows, int64_t k,
                             gdn_weight **out) {
    const int64_t E = b->m->config.n_expert, shape[3] = {E, rows, k};
    gdn_type type;
    t->used = true;
    TRY(check_shape(b, t, 3, shape));
    TRY(float_type(b, t, false, &type));
    gdn_weight_part *part = calloc((size_t)E, sizeof *part);
    if (part == NULL) return gdn_fail(b->err, GDN_E_NOMEM, "%s: out of memory", b->m->dir);
    gdn_status st = GDN_OK;
    const uint64_t bytes = (uint64_t)(rows * k) * (uint64_t)gdn_type_bytes(type);
    for (int64_t e = 0; e < E && st == GDN_OK; e++)
        st = make_part(b, t, t->data + (uint64_t)e * bytes, rows, k, type, NULL, &part[e]);
    if (st == GDN_OK) st = create(b, type, (int32_t)E, rows, k, part, 1, out);
    free(part);
    return st;
}

/* One tensor for each expert and projection: E times n names of `rows` rows. */
static gdn_status bind_separate(binder *b, const char *base, const char *const *names, int32_t n,
                                int64_t rows, int64_t k, gdn_weight **out) {
    const int64_t E = b->m->config.n_expert, shape[2] = {rows, k};
    gdn_weight_part *part = calloc((size_t)(E * n), sizeof *part);
    if (part == NULL) return gdn_fail(b->err, GDN_E_NOMEM, "%s: out of memory", b->m->dir);
    gdn_status st = GDN_OK;
    gdn_type first = GDN_F32;
    for (int64_t i = 0; i < E * n && st == GDN_OK; i++) {
        char name[NAME];
        gdn_st_tensor *t = NULL;
        gdn_type type = GDN_F32;
        name_set(name, "%s%lld.%s.weight", base, (long long)(i / n), names[i % n]);
        st = find(b, name, &t);
        if (st == GDN_OK) st = check_shape(b, t, 2, shape);
        if (st == GDN_OK) st = float_type(b, t, true, &type);
        if (st == GDN_OK && i > 0 && type != first)
            st = gdn_fail(b->err, GDN_E_UNSUPPORTED, "%s: tensor %s has type %s, its siblings %s",
                          b->m->dir, name, gdn_type_name(type), gdn_type_name(first));
        first = type;
        if (st == GDN_OK) st = make_part(b, t, t->data, rows, k, type, NULL, &part[i]);
    }
    if (st == GDN_OK) st = create(b, first, (int32_t)E, rows * n, k, part, n, out);
    free(part);
    return st;
}

static gdn_status bind_mlp(binder *b, const char *base, int64_t ffn, gdn_mlp *out) {
    const int64_t d = b->m->config.d;
    char name[NAME];
    piece p[2];
    piece_set(&p[0], ffn, NULL, "%sgate_proj.weight", base);
    piece_set(&p[1], ffn, NULL, "%sup_proj.weight", base);
    TRY(bind_projection(b, p, 2, d, &out->gate_up));
    name_set(name, "%sdown_proj.weight", base);
    return bind_one(b, name, d, ffn, &out->down);
}

static gdn_status bind_moe(binder *b, const char *base, gdn_moe *out) {
    const gdn_config *c = &b->m->config;
    char name[NAME];
    piece p[2];
    piece_set(&p[0], c->n_expert, NULL, "%sgate.weight", base);
    piece_set(&p[1], 1, NULL, "%sshared_expert_gate.weight", base);
    TRY(bind_projection(b, p, c->shared_ffn > 0 ? 2 : 1, c->d, &out->router));
    if (c->shared_ffn > 0) {
        name_set(name, "%sshared_expert.", base);
        TRY(bind_mlp(b, name, c->shared_ffn, &out->shared));
    }
    name_set(name, "%sexperts.gate_up_proj", base);
    gdn_st_tensor *gate_up = gdn_weights_find(b->m->weights, name);
    name_set(name, "%sexperts.down_proj", base);
    gdn_st_tensor *down = gdn_weights_find(b->m->weights, name);
    if (gate_up != NULL && down != NULL) {
        TRY(bind_fused(b, gate_up, 2 * (int64_t)c->moe_ffn, c->d, &out->gate_up));
        return bind_fused(b, down, c->d, c->moe_ffn, &out->down);
    }
    static const char *const two[] = {"gate_proj", "up_proj"}, *const one[] = {"down_proj"};
    name_set(name, "%sexperts.", base);
    TRY(bind_separate(b, name, two, 2, c->moe_ffn, c->d, &out->gate_up));
    return bind_separate(b, name, one, 1, c->d, c->moe_ffn, &out->down);
}

/* --- layers -------------------------------------------------------------------------- */

static gdn_status bind_attention(binder *b, const char *base, gdn_layer *l) {
    const gdn_config *c = &b->m->config;
    const int64_t D = c->head_dim;
    char name[NAME];
    piece p[3];
    piece_set(&p[0], 2 * c->hq * D, NULL, "%sself_attn.q_proj.weight", base);
    piece_set(&p[1], c->hkv * D, NULL, "%sself_attn.k_proj.weight", base);
    piece_set(&p[2], c->hkv * D, NULL, "%sself_attn.v_proj.weight", base);
    TRY(bind_projection(b, p, 3, c->d, &l->in));
    name_set(name, "%sself_attn.o_proj.weight", base);
    TRY(bind_one(b, name, c->d, c->hq * D, &l->out));
    name_set(name, "%sself_attn.q_norm.weight", base);
    TRY(bind_vector(b, name, D, 1.0f, &l->q_norm));
    name_set(name, "%sself_attn.k_norm.weight", base);
    return bind_vector(b, name, D, 1.0f, &l->k_norm);
}

/* Interleaved files group rows by key head: q, k, the group's v, the group's z; and its b, then
 * its a.  order lists the file's rows as q | k | v | z (then b | a) of all heads. */
void gdn_model_deinterleave(const gdn_config *c, int32_t *qkvz, int32_t *ba) {
    const int32_t r = c->hv / c->hk, width = 2 * c->dk + 2 * r * c->dv;
    int32_t *at = qkvz;
    const int32_t begin[4] = {0, c->dk, 2 * c->dk, 2 * c->dk + r * c->dv};
    const int32_t n[4] = {c->dk, c->dk, r * c->dv, r * c->dv};
    for (int part = 0; part < 4; part++)
        for (int32_t g = 0; g < c->hk; g++)
            for (int32_t i = 0; i < n[part]; i++) *at++ = g * width + begin[part] + i;
    for (int part = 0; part < 2; part++)
        for (int32_t g = 0; g < c->hk; g++)
            for (int32_t i = 0; i < r; i++) *ba++ = g * 2 * r + part * r + i;
}

static gdn_status bind_gdn_in(binder *b, const char *base, gdn_layer *l) {
    const gdn_config *c = &b->m->config;
    const int64_t Kd = (int64_t)c->hk * c->dk, Vd = (int64_t)c->hv * c->dv;
    piece p[4];
    if (!c->interleaved) {
        piece_set(&p[0], 2 * Kd + Vd, NULL, "%slinear_attn.in_proj_qkv.weight", base);
        piece_set(&p[1], Vd, NULL, "%slinear_attn.in_proj_z.weight", base);
        piece_set(&p[2], c->hv, NULL, "%slinear_attn.in_proj_b.weight", base);
        piece_set(&p[3], c->hv, NULL, "%slinear_attn.in_proj_a.weight", base);
        return bind_projection(b, p, 4, c->d, &l->in);
    }
    const int64_t rows = 2 * Kd + 2 * Vd;
    int32_t *order = malloc((size_t)(rows + 2 * c->hv) * sizeof *order);
    if (order == NULL) return gdn_fail(b->err, GDN_E_NOMEM, "%s: out of memory", b->m->dir);
    gdn_model_deinterleave(c, order, order + rows);
    piece_set(&p[0], rows, order, "%slinear_attn.in_proj_qkvz.weight", base);
    piece_set(&p[1], 2 * c->hv, order + rows, "%slinear_attn.in_proj_ba.weight", base);
    const gdn_status st = bind_projection(b, p, 2, c->d, &l->in);
    free(order);
    return st;
}

static gdn_status bind_gdn(binder *b, const char *base, gdn_layer *l) {
    const gdn_config *c = &b->m->config;
    const int64_t Vd = (int64_t)c->hv * c->dv, C = 2 * (int64_t)c->hk * c->dk + Vd;
    char name[NAME];
    TRY(bind_gdn_in(b, base, l));
    name_set(name, "%slinear_attn.out_proj.weight", base);
    TRY(bind_one(b, name, c->d, Vd, &l->out));
    name_set(name, "%slinear_attn.conv1d.weight", base);
    TRY(bind_conv(b, name, C, c->conv_width, &l->conv_w));
    name_set(name, "%slinear_attn.A_log", base);
    TRY(bind_vector(b, name, c->hv, 0.0f, &l->A_log));
    name_set(name, "%slinear_attn.dt_bias", base);
    TRY(bind_vector(b, name, c->hv, 0.0f, &l->dt_bias));
    name_set(name, "%slinear_attn.norm.weight", base);
    return bind_vector(b, name, c->dv, 0.0f, &l->gated_norm);
}

static gdn_status bind_layer(binder *b, const char *base, bool full, bool moe, gdn_layer *l) {
    const gdn_config *c = &b->m->config;
    char name[NAME];
    l->full = full;
    l->moe = moe;
    name_set(name, "%sinput_layernorm.weight", base);
    TRY(bind_vector(b, name, c->d, 1.0f, &l->input_norm));
    name_set(name, "%spost_attention_layernorm.weight", base);
    TRY(bind_vector(b, name, c->d, 1.0f, &l->post_norm));
    TRY(full ? bind_attention(b, base, l) : bind_gdn(b, base, l));
    name_set(name, "%smlp.", base);
    return moe ? bind_moe(b, name, &l->experts) : bind_mlp(b, name, c->ffn, &l->mlp);
}

static gdn_status bind_mtp(binder *b) {
    const gdn_config *c = &b->m->config;
    gdn_mtp *p = &b->m->mtp;
    const char *pre = b->m->mtp_prefix;
    char name[NAME];
    name_set(name, "%sfc.weight", pre);
    TRY(bind_one(b, name, c->d, 2 * (int64_t)c->d, &p->fc));
    name_set(name, "%spre_fc_norm_embedding.weight", pre);
    TRY(bind_vector(b, name, c->d, 1.0f, &p->embed_norm));
    name_set(name, "%spre_fc_norm_hidden.weight", pre);
    TRY(bind_vector(b, name, c->d, 1.0f, &p->hidden_norm));
    name_set(name, "%snorm.weight", pre);
    TRY(bind_vector(b, name, c->d, 1.0f, &p->norm));
    name_set(name, "%slayers.0.", pre);
    return bind_layer(b, name, true, c->n_expert > 0, &p->layer);
}

/* --- the whole ------------------------------------------------------------------------ */

static gdn_status bind_embedding(binder *b) {
    gdn_model *m = b->m;
    const int64_t shape[2] = {m->config.vocab, m->config.d};
    char name[NAME];
    gdn_projection head;
    name_set(name, "%sembed_tokens.weight", b->m->prefix);
    const char *head_name = "lm_head.weight";
    if (gdn_weights_find(m->weights, head_name) == NULL) head_name = "language_model.lm_head.weight";
    m->info.tied = gdn_weights_find(m->weights, head_name) == NULL;
    if (m->info.tied && !m->config.tie)
        return gdn_fail(b->err, GDN_E_FORMAT, "%s: tensor lm_head.weight is missing and "
                        "config.json says tie_word_embeddings false", m->dir);
    TRY(bind_one(b, m->info.tied ? name : head_name, m->config.vocab, m->config.d, &head));
    m->head = head.w[0];
    m->head_piece = head.piece[0];
    if (m->info.tied && gdn_weight_get_shape(m->head).type == GDN_F8)
        return gdn_fail(b->err, GDN_E_UNSUPPORTED,
                        "%s: tensor %s is F8_E4M3; embeddings need F32, BF16 or F16", m->dir, name);
    if (m->info.tied) return GDN_OK;
    gdn_st_tensor *t;
    gdn_type type;
    TRY(find(b, name, &t));
    TRY(check_shape(b, t, 2, shape));
    TRY(float_type(b, t, false, &type));
    /* Read in place, a row at a time; the buffer is never written. */
    TRY(gdn_buffer_wrap(m->device, (void *)(uintptr_t)t->data, t->bytes, &m->embed_buf, b->err));
    m->embed = gdn_tensor_dense(m->embed_buf, 0, type, 2, shape);
    b->done += t->bytes;
    return GDN_OK;
}

static bool starts(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

static bool is_vision(const char *name) {
    return starts(name, "model.visual.") || starts(name, "visual.") ||
           starts(name, "model.vision_tower.") || starts(name, "vision_tower.");
}

gdn_status gdn_model_find_parts(gdn_model *m, gdn_err *err) {
    static const char *const body[] = {"model.language_model.", "model.",
                                       "language_model.model."};
    static const char *const mtp[] = {"mtp.", "model.mtp.", "language_model.mtp."};
    char name[NAME];
    for (size_t i = 0; i < sizeof body / sizeof *body && m->prefix[0] == '\0'; i++) {
        name_set(name, "%sembed_tokens.weight", body[i]);
        if (gdn_weights_find(m->weights, name) != NULL)
            snprintf(m->prefix, sizeof m->prefix, "%s", body[i]);
    }
    if (m->prefix[0] == '\0')
        return gdn_fail(err, GDN_E_FORMAT, "%s: tensor model.embed_tokens.weight is missing",
                        m->dir);
    for (size_t i = 0; i < sizeof mtp / sizeof *mtp; i++) {
        name_set(name, "%sfc.weight", mtp[i]);
        if (gdn_weights_find(m->weights, name) == NULL) continue;
        snprintf(m->mtp_prefix, sizeof m->mtp_prefix, "%s", mtp[i]);
        m->has_mtp = true;
        break;
    }
    return GDN_OK;
}

static gdn_status check_surplus(binder *b) {
    gdn_model *m = b->m;
    for (int64_t i = 0; i < gdn_weights_count(m->weights); i++) {
        const gdn_st_tensor *t = gdn_weights_at(m->weights, i);
        if (is_vision(t->name)) continue;
        if (!t->used)
            return gdn_fail(b->err, GDN_E_FORMAT, "%s: tensor %s is not part of a %s model",
                            gdn_weights_path(m->weights, t), t->name,
                            gdn_arch_name(m->config.arch));
        uint64_t n = 1;
        for (int32_t k = 0; k < t->ndim; k++) n *= (uint64_t)t->shape[k];
        m->info.parameters += n;
    }
    return GDN_OK;
}

/* Floats in all vectors: what vector_room() hands out. */
static uint64_t vector_bytes(const gdn_config *c) {
    const uint64_t C = 2 * (uint64_t)c->hk * (uint64_t)c->dk + (uint64_t)c->hv * (uint64_t)c->dv;
    const uint64_t pad = 16; /* floats lost to alignment, at most */
    const uint64_t layer = 2 * ((uint64_t)c->d + pad) + 2 * ((uint64_t)c->head_dim + pad) +
                           C * (uint64_t)c->conv_width + pad + 2 * ((uint64_t)c->hv + pad) +
                           (uint64_t)c->dv + pad;
    return sizeof(float) * ((uint64_t)(c->n_layer + 1) * layer + 4 * ((uint64_t)c->d + pad));
}

/* Where each layer's pages lie: layer i of every group of equal size shares storage tensor i. */
static void group_layers(gdn_model *m) {
    const gdn_config *c = &m->config;
    int32_t attn = 0, gdn = 0;
    m->n_attn = c->n_full + (m->has_mtp ? 1 : 0);
    m->n_storage = m->n_attn > 0 ? m->n_attn : c->n_linear;
    for (int32_t i = 0; i < c->n_layer; i++) {
        gdn_layer *l = m->layer + i;
        if (l->full) {
            l->storage = attn++;
        } else {
            l->storage = gdn % m->n_storage;
            l->group = gdn++ / m->n_storage;
        }
    }
    m->mtp.layer.storage = attn;
    m->n_group = (gdn + m->n_storage - 1) / m->n_storage;
}

static gdn_status bind_all(binder *b) {
    gdn_model *m = b->m;
    const gdn_config *c = &m->config;
    for (int32_t i = 0; i < c->n_layer; i++) {
        char base[NAME];
        name_set(base, "%slayers.%d.", m->prefix, i);
        TRY(bind_layer(b, base, c->layer_kind[i] == GDN_LAYER_FULL, c->layer_moe[i],
                       m->layer + i));
    }
    if (m->has_mtp) TRY(bind_mtp(b));
    char name[NAME];
    name_set(name, "%snorm.weight", m->prefix);
    TRY(bind_vector(b, name, c->d, 1.0f, &m->norm));
    TRY(bind_embedding(b));
    TRY(check_surplus(b));
    group_layers(m);
    if (m->n_group > GDN_MAX_GROUP)
        return gdn_fail(b->err, GDN_E_UNSUPPORTED, "%s: %d linear layers for %d with attention",
                        m->dir, c->n_linear, m->n_attn);
    return GDN_OK;
}

gdn_status gdn_model_bind(gdn_model *m, gdn_progress_fn *progress, void *arg, gdn_err *err) {
    binder b = {.m = m, .progress = progress, .arg = arg, .err = err};
    b.total = gdn_weights_total_bytes(m->weights);
    TRY(gdn_buffer_alloc(m->device, vector_bytes(&m->config), &m->vector, err));
    m->layer = calloc((size_t)m->config.n_layer, sizeof *m->layer);
    if (m->layer != NULL) b.vector = gdn_model_fill(m->vector);
    if (b.vector == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", m->dir);
    return gdn_model_sent(m->vector, b.vector, bind_all(&b), err);
}
