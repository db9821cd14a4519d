/* op_layer.c - gdn_attention_layer(): projections, operator, gated norm, composed of public operators.
 *
 * Scratch, in 64-byte cuts; what is f32 already is not copied:
 *
 *     qkvz f32 | ba f32 | qkvz act | ba act | core act | z act
 *
 * The norm's result takes the place of core, or of the f32 qkvz when its type is another. */
#include "check.h"

static const char op[] = "attention_layer";

typedef struct {
    int64_t  n_row;         /* rows that are computed                     */
    int64_t  nv, C, Z;      /* value heads, channels, values of z         */
    gdn_type act;
    uint64_t qkvz, ba, act_qkvz, act_ba, core, z, end; /* bytes from the first cut */
} layout;

enum { CUT = 64 };

static bool cut(uint64_t *at, int64_t n_row, int64_t width, gdn_type type, uint64_t *end) {
    const uint64_t row = (uint64_t)width * (uint64_t)gdn_type_bytes(type);
    *at = *end;
    if ((uint64_t)n_row > (UINT64_MAX / 4 - *end) / row) return false;
    *end = (*end + (uint64_t)n_row * row + CUT - 1) / CUT * CUT;
    return true;
}

/* False when the sizes make no sense; the limits are those of gdn_attention(). */
static bool lay_out(const gdn_attention_args *c, int64_t n_row, layout *l) {
    const gdn_type act = c->conv_state.type;
    if (n_row < 0 || n_row > INT32_MAX || (act != GDN_F32 && act != GDN_BF16 && act != GDN_F16) ||
        c->tp_size < 1 || c->n_k_head < 1 || c->n_v_head < 1 || c->n_k_head % c->tp_size != 0 ||
        c->n_v_head % c->tp_size != 0 || c->n_v_head % c->n_k_head != 0 ||
        c->n_v_head / c->tp_size > 65536 || c->dk < 8 || c->dk % 8 != 0 || c->dk > 256 ||
        c->dv < 1 || c->dv > 4096)
        return false;
    *l = (layout){.n_row = n_row, .act = act, .nv = c->n_v_head / c->tp_size};
    l->Z = l->nv * c->dv;
    l->C = 2 * (int64_t)(c->n_k_head / c->tp_size) * c->dk + l->Z;
    const bool copies = act != GDN_F32;
    return l->C + l->Z <= INT32_MAX && /* a weight has no more outputs */
           cut(&l->qkvz, n_row, l->C + l->Z, GDN_F32, &l->end) &&
           cut(&l->ba, n_row, 2 * l->nv, GDN_F32, &l->end) &&
           cut(&l->act_qkvz, copies ? n_row : 0, l->C + l->Z, act, &l->end) &&
           cut(&l->act_ba, copies ? n_row : 0, 2 * l->nv, act, &l->end) &&
           cut(&l->core, n_row, l->Z, act, &l->end) && cut(&l->z, n_row, l->Z, act, &l->end);
}

/* One cut more, because wrapped memory may begin between two. */
uint64_t gdn_attention_layer_work_bytes(const gdn_attention_layer_args *a, int64_t n_row) {
    layout l = {0};
    return lay_out(&a->core, n_row, &l) ? l.end + CUT : 0;
}

/* --- checks --------------------------------------------------------------------------- */

static gdn_status check_weight(const gdn_queue *q, const char *name, const gdn_weight *w, int64_t n,
                               int64_t k, gdn_type x, gdn_err *err) {
    if (w == NULL) REFUSE("%s: %s is missing", op, name);
    if (w->device != q->device || w->n_expert != 1)
        REFUSE("%s: %s is not a plain weight of this device", op, name);
    if ((n != ANY && w->n != n) || w->k != k)
        REFUSE("%s: %s has shape [%d, %d], need [%lld, %lld]", op, name, w->n, w->k,
               (long long)(n == ANY ? w->n : n), (long long)k);
    if (x == GDN_BF16 && w->input_type != GDN_BF16)
        REFUSE("%s: x is bf16, %s takes f32", op, name);
    return GDN_OK;
}

/* A projection of n1 + n2 outputs: fused, or as two weights. */
static gdn_status check_pair(const gdn_queue *q, const gdn_attention_layer_args *a,
                             const char *const name[3], const gdn_weight *const w[3], int64_t n1,
                             int64_t n2, gdn_err *err) {
    const int64_t d = a->x.shape[1];
    if (w[1] == NULL && w[2] == NULL)
        return check_weight(q, name[0], w[0], n1 + n2, d, a->x.type, err);
    if (w[0] != NULL) REFUSE("%s: both %s and %s are given", op, name[0], name[w[1] != NULL ? 1 : 2]);
    if (!a->core.reorder_input) REFUSE("%s: %s needs reorder_input", op, name[w[1] != NULL ? 1 : 2]);
    const gdn_status st = check_weight(q, name[1], w[1], n1, d, a->x.type, err);
    return st != GDN_OK ? st : check_weight(q, name[2], w[2], n2, d, a->x.type, err);
}

static gdn_status check_weights(const gdn_queue *q, const gdn_attention_layer_args *a,
                                const layout *l, gdn_err *err) {
    static const char *const qkvz[] = {"in_proj_qkvz", "in_proj_qkv", "in_proj_z"};
    static const char *const ba[] = {"in_proj_ba", "in_proj_b", "in_proj_a"};
    const gdn_weight *const w0[] = {a->in_proj_qkvz, a->in_proj_qkv, a->in_proj_z};
    const gdn_weight *const w1[] = {a->in_proj_ba, a->in_proj_b, a->in_proj_a};
    gdn_status st = check_pair(q, a, qkvz, w0, l->C, l->Z, err);
    if (st == GDN_OK) st = check_pair(q, a, ba, w1, l->nv, l->nv, err);
    if (st == GDN_OK) st = check_weight(q, "out_proj", a->out_proj, ANY, l->Z, GDN_F32, err);
    return st;
}

/* y and the scratch lie on nothing else.  Tensors of core are checked here as far as the question
 * needs it: that they lie inside their buffers. */
#define ARG_CORE(field) {.name = #field, .t = &a->core.field}
static gdn_status check_overlap(const gdn_queue *q, const gdn_attention_layer_args *a, const gdn_tensor *work,
                                gdn_err *err) {
    static const int64_t any[GDN_MAX_DIM] = {ANY, ANY, ANY, ANY};
    const gdn_named all[] = {{.name = "work", .t = work},
                             ARG(y),
                             ARG(x),
                             ARG(norm_w),
                             ARG_CORE(conv_state),
                             ARG_CORE(ssm_state),
                             ARG_CORE(conv_weights),
                             ARG_CORE(conv_bias),
                             ARG_CORE(A_log),
                             ARG_CORE(dt_bias),
                             ARG_CORE(has_initial_state),
                             ARG_CORE(non_spec_query_start_loc),
                             ARG_CORE(non_spec_token_indx),
                             ARG_CORE(non_spec_state_indices),
                             ARG_CORE(spec_query_start_loc),
                             ARG_CORE(spec_token_indx),
                             ARG_CORE(spec_state_indices),
                             ARG_CORE(num_accepted_tokens)};
    enum { N_OUT = 2 };
    const int n = (int)(sizeof all / sizeof *all);
    for (int i = N_OUT; i < n; i++) {
        const gdn_tensor *t = all[i].t;
        if (t->buf == NULL) continue;
        if (t->ndim < 1 || t->ndim > GDN_MAX_DIM)
            REFUSE("%s: %s has %d dimensions", op, all[i].name, t->ndim);
        const gdn_status st = gdn_check_tensor(op, all[i].name, q, t, F32 | BF16 | F16 | I32 | U8,
                                               t->ndim, any, err);
        if (st != GDN_OK) return st;
    }
    return gdn_check_apart(op, all, N_OUT, n, err);
}

/* Everything but what gdn_attention() checks itself, before anything is written but scratch. */
static gdn_status check_all(const gdn_queue *q, const gdn_attention_layer_args *a, layout *l,
                            uint64_t *begin, gdn_err *err) {
    const gdn_attention_args *c = &a->core;
    CHECK(x, F32 | BF16, ANY, ANY);
    const int64_t P = a->x.shape[0];
    if (c->num_actual_tokens < 0 || c->num_actual_tokens > P)
        REFUSE("%s: num_actual_tokens is %lld of %lld rows", op, (long long)c->num_actual_tokens,
               (long long)P);
    if (!lay_out(c, c->num_actual_tokens, l))
        REFUSE("%s: %d key and %d value heads of %d and %d values over %d shards, conv_state of %s",
               op, c->n_k_head, c->n_v_head, c->dk, c->dv, c->tp_size,
               gdn_type_name(c->conv_state.type));
    if (c->core.buf != NULL || c->z.buf != NULL || c->qkvz.buf != NULL || c->ba.buf != NULL)
        REFUSE("%s: core, z, qkvz and ba of core are to be left empty", op);
    const gdn_status st = check_weights(q, a, l, err);
    if (st != GDN_OK) return st;
    CHECK(y, F32, P, a->out_proj->n);
    CHECK(norm_w, F32 | BF16 | F16, c->dv);
    if (!(a->eps >= 0.0f)) REFUSE("%s: eps is %g", op, (double)a->eps);
    if (a->gate != GDN_GATE_SILU && a->gate != GDN_GATE_SIGMOID)
        REFUSE("%s: gate is %d", op, (int)a->gate);
    if (a->work == NULL) REFUSE("%s: work is missing", op);
    if (a->work->device != q->device) REFUSE("%s: work lies on another device", op);
    *begin = (CUT - (uintptr_t)a->work->host % CUT) % CUT;
    if (a->work->bytes < l->end + CUT)
        REFUSE("%s: work has %llu bytes, need %llu", op, (unsigned long long)a->work->bytes,
               (unsigned long long)(l->end + CUT));
    const int64_t bytes = (int64_t)l->end;
    const gdn_tensor work = gdn_tensor_dense(a->work, *begin, GDN_U8, 1, &bytes);
    return check_overlap(q, a, &work, err);
}

/* --- the layer ------------------------------------------------------------------------ */

static gdn_status linear(gdn_queue *q, gdn_tensor y, gdn_tensor x, const gdn_weight *w, gdn_err *err) {
    const gdn_linear_op_args a = {.y = y, .x = x, .w = w};
    return gdn_op_linear(q, &a, err);
}

/* One product, or two beside each other; then in the operator's type. */
static gdn_status project(gdn_queue *q, gdn_tensor x, const gdn_weight *fused, const gdn_weight *first,
                          const gdn_weight *second, gdn_tensor to, gdn_tensor act, gdn_err *err) {
    const int64_t n = to.shape[1];
    gdn_status st;
    if (fused != NULL) st = linear(q, to, x, fused, err);
    else {
        st = linear(q, gdn_tensor_slice(to, 1, 0, first->n), x, first, err);
        if (st == GDN_OK) st = linear(q, gdn_tensor_slice(to, 1, first->n, n), x, second, err);
    }
    if (st != GDN_OK || act.at == to.at) return st;
    const gdn_cast_args c = {.y = act, .x = to};
    return gdn_op_cast(q, &c, err);
}

static gdn_status zero(gdn_queue *q, const gdn_tensor *t, gdn_err *err) {
    static const char zeros[4096];
    uint64_t left = gdn_tensor_extent(t);
    for (uint64_t at = t->at; left > 0;) {
        const uint64_t n = left < sizeof zeros ? left : sizeof zeros;
        const gdn_status st = gdn_queue_write(q, t->buf, at, zeros, n, err);
        if (st != GDN_OK) return st;
        at += n, left -= n;
    }
    return GDN_OK;
}

gdn_status gdn_attention_layer(gdn_queue *q, const gdn_attention_layer_args *a, gdn_err *err) {
    layout l = {0};
    uint64_t at = 0;
    gdn_status st = check_all(q, a, &l, &at, err);
    if (st != GDN_OK) return st;
    const int64_t T = l.n_row, heads[] = {T, l.nv, a->core.dv}, rows[] = {T, l.Z};
    const int64_t wide[] = {T, l.C + l.Z}, narrow[] = {T, 2 * l.nv};
    const bool copies = l.act != GDN_F32;
    const gdn_tensor x = gdn_tensor_slice(a->x, 0, 0, T);
    const gdn_tensor qkvz = gdn_tensor_dense(a->work, at + l.qkvz, GDN_F32, 2, wide);
    const gdn_tensor ba = gdn_tensor_dense(a->work, at + l.ba, GDN_F32, 2, narrow);
    gdn_attention_args c = a->core;
    c.qkvz = copies ? gdn_tensor_dense(a->work, at + l.act_qkvz, l.act, 2, wide) : qkvz;
    c.ba = copies ? gdn_tensor_dense(a->work, at + l.act_ba, l.act, 2, narrow) : ba;
    c.core = gdn_tensor_dense(a->work, at + l.core, l.act, 3, heads);
    c.z = gdn_tensor_dense(a->work, at + l.z, l.act, 3, heads);

    st = project(q, x, a->in_proj_qkvz, a->in_proj_qkv, a->in_proj_z, qkvz, c.qkvz, err);
    if (st == GDN_OK) st = project(q, x, a->in_proj_ba, a->in_proj_b, a->in_proj_a, ba, c.ba, err);
    /* The operator leaves rows without a sequence as they are: what is there must be defined. */
    if (st == GDN_OK) st = zero(q, &c.core, err);
    if (st == GDN_OK) st = zero(q, &c.z, err);
    if (st == GDN_OK) st = gdn_attention(q, &c, err);
    if (st != GDN_OK) return st;

    /* Rounded to bf16 only where the operator works in it and the product reads it. */
    const bool in_place = l.act == GDN_F32 || (l.act == GDN_BF16 && a->out_proj->input_type == GDN_BF16);
    const gdn_tensor normed =
        in_place ? c.core : gdn_tensor_dense(a->work, at + l.qkvz, GDN_F32, 3, heads);
    const gdn_rms_norm_gated_args n = {
        .y = normed, .x = c.core, .z = c.z, .w = a->norm_w, .eps = a->eps, .gate = a->gate};
    st = gdn_rms_norm_gated(q, &n, err);
    if (st != GDN_OK) return st;
    return linear(q, gdn_tensor_slice(a->y, 0, 0, T),
                  gdn_tensor_dense(a->work, normed.at, normed.type, 2, rows), a->out_proj, err);
}
