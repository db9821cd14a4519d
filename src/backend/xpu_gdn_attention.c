/* xpu_gdn_attention.c - gdn_attention and its two stages on the xpu (gdn_xpu.cl).
 *
 * The whole operator is its two stages for each group, with what they hand on in the queue's scratch.
 * In the chunked form, plain sequences of any length go in chunks (gdn_chunk_xpu.cl). */
#include "xpu_gdn.h"
#include "xpu_gdn_chunk.h"

/* A group of sequences and what both stages know of it. */
typedef struct {
    const gdn_tensor *loc, *indx, *slot, *initial, *accepted; /* accepted: a speculative group */
    int64_t n_row, n_token, slots; /* n_token: at most */
    int32_t null_slot;
} group;

/* What the stages hand on. */
typedef struct {
    gdn_tensor q, k, v, b, a;
} between;

static const gdn_tensor absent;

static int64_t count(const group *g) { return g->loc->buf != NULL ? g->loc->shape[0] - 1 : 0; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t most_tokens(const group *g, const between *m) {
    int64_t n = g->indx->buf != NULL ? g->indx->shape[0] : g->n_row;
    n = least(least(n, m->q.shape[0]), least(m->k.shape[0], m->v.shape[0]));
    return least(n, least(m->b.shape[0], m->a.shape[0]));
}

/* What gdn_xpu.cl has as GROUP_SEQ. */
static void sequences(xpu_call *c, const group *g) {
    xpu_faults(c);
    xpu_tensor(c, g->loc, 0);
    xpu_tensor(c, g->indx, 0);
    xpu_tensor(c, g->slot, 1);
    xpu_tensor(c, g->initial, 0);
    xpu_tensor(c, g->accepted, 0);
    xpu_int(c, g->n_token);
    xpu_int(c, g->n_row);
    xpu_int(c, g->slots);
    xpu_int(c, g->accepted->buf != NULL ? g->slot->shape[1] : 0);
    xpu_int(c, g->null_slot);
    xpu_int(c, g->indx->buf != NULL);
    xpu_int(c, g->initial->buf != NULL);
}

/* The first stage; a has no tensors between the stages but those of m. */
static gdn_status conv(gdn_queue *q, const gdn_causal_conv1d_args *a, const group *g,
                       const between *m, gdn_err *err) {
    const bool ds = a->conv_layout == GDN_CONV_STATE_DS;
    const int64_t nk = a->n_k_head / a->tp_size, nv = a->n_v_head / a->tp_size;
    const int64_t items = a->conv_weights.shape[0] + nv * a->dv + nv;
    xpu_call c = xpu_begin(q, "gdn", "attention_conv");
    sequences(&c, g);
    xpu_tensor(&c, &a->qkvz, 1);
    xpu_tensor(&c, &a->ba, 1);
    xpu_tensor(&c, &a->z, 2);
    xpu_tensor(&c, &a->conv_state, 0);
    xpu_long(&c, a->conv_state.stride[0]);
    xpu_long(&c, a->conv_state.stride[ds ? 2 : 1]);
    xpu_long(&c, a->conv_state.stride[ds ? 1 : 2]);
    xpu_tensor(&c, &a->conv_weights, 1);
    xpu_tensor(&c, &a->conv_bias, 0);
    xpu_tensor(&c, &m->q, 2);
    xpu_tensor(&c, &m->k, 2);
    xpu_tensor(&c, &m->v, 2);
    xpu_tensor(&c, &m->b, 1);
    xpu_tensor(&c, &m->a, 1);
    xpu_int(&c, nk);
    xpu_int(&c, nv / nk);
    xpu_int(&c, a->dk);
    xpu_int(&c, a->dv);
    xpu_int(&c, a->conv_weights.shape[1]);
    xpu_int(&c, a->qkvz.type);
    xpu_int(&c, a->conv_bias.buf != NULL);
    xpu_int(&c, a->reorder_input);
    xpu_int(&c, count(g));
    const int64_t groups[3] = {(items + XPU_GDN_CHANNELS - 1) / XPU_GDN_CHANNELS,
                               xpu_gdn_conv_groups(count(g), g->n_token), 1};
    const int local[3] = {XPU_GDN_CHANNELS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

static gdn_status delta_chunks(gdn_queue *q, const gdn_delta_rule_args *a, const group *g,
                               const between *m, gdn_err *err) {
    const xpu_gdn_chunk_args c = {.loc = g->loc,
                                  .indx = g->indx,
                                  .slot = g->slot,
                                  .initial = g->initial,
                                  .q = &m->q,
                                  .k = &m->k,
                                  .v = &m->v,
                                  .b = &m->b,
                                  .a = &m->a,
                                  .core = &a->core,
                                  .A_log = &a->A_log,
                                  .dt_bias = &a->dt_bias,
                                  .ssm_state = &a->ssm_state,
                                  .n_token = g->n_token,
                                  .n_row = g->n_row,
                                  .slots = g->slots,
                                  .null_slot = g->null_slot};
    return xpu_gdn_chunk(q, &c, err);
}

static gdn_status delta(gdn_queue *q, const gdn_delta_rule_args *a, const group *g,
                        const between *m, gdn_err *err) {
    if (a->form == GDN_FORM_CHUNKED && g->accepted->buf == NULL)
        return delta_chunks(q, a, g, m, err);
    const int64_t nv = m->v.shape[1], dk = m->q.shape[2], dv = m->v.shape[2];
    const xpu_gdn_rows r = xpu_gdn_state_rows(dk, dv, XPU_GDN_ITEMS);
    xpu_call c = xpu_begin(q, "gdn", "attention_delta");
    sequences(&c, g);
    xpu_tensor(&c, &a->core, 2);
    xpu_tensor(&c, &m->q, 2);
    xpu_tensor(&c, &m->k, 2);
    xpu_tensor(&c, &m->v, 2);
    xpu_tensor(&c, &m->b, 1);
    xpu_tensor(&c, &m->a, 1);
    xpu_tensor(&c, &a->A_log, 0);
    xpu_tensor(&c, &a->dt_bias, 0);
    xpu_tensor(&c, &a->ssm_state, 3);
    xpu_int(&c, nv / m->q.shape[1]);
    xpu_int(&c, dk);
    xpu_int(&c, dv);
    xpu_int(&c, a->core.type);
    xpu_int(&c, a->ssm_state.type);
    xpu_int(&c, r.lanes);
    xpu_int(&c, xpu_gdn_whole(&a->ssm_state));
    const int64_t groups[3] = {r.groups, nv, count(g)};
    const int local[3] = {r.lanes * r.rows, 1, 1};
    return xpu_start(&c, groups, local, err);
}

/* --- the stages on their own --------------------------------------------------------------- */

/* The arguments that both have. */
#define GROUP(a, n_row_, slots_)                                                          \
    {                                                                                     \
        .loc = &(a)->query_start_loc, .indx = &(a)->token_indx, .slot = &(a)->state_indices, \
        .initial = &(a)->has_initial_state, .accepted = &(a)->num_accepted_tokens,        \
        .n_row = n_row_, .slots = slots_, .null_slot = (a)->null_slot,                    \
    }

gdn_status xpu_op_causal_conv1d(gdn_queue *q, const gdn_causal_conv1d_args *a, gdn_err *err) {
    group g = GROUP(a, a->num_actual_tokens, a->conv_state.shape[0]);
    const between m = {a->q, a->k, a->v, a->b, a->a};
    g.n_token = most_tokens(&g, &m);
    return conv(q, a, &g, &m, err);
}

gdn_status xpu_op_delta_rule(gdn_queue *q, const gdn_delta_rule_args *a, gdn_err *err) {
    group g = GROUP(a, a->num_actual_tokens, a->ssm_state.shape[0]);
    const between m = {a->q, a->k, a->v, a->b, a->a};
    g.n_token = most_tokens(&g, &m);
    return delta(q, a, &g, &m, err);
}

/* --- the whole operator -------------------------------------------------------------------- */

static gdn_tensor cut(gdn_buffer *buf, gdn_type type, int32_t ndim, int64_t n, int64_t heads,
                      int64_t d, uint64_t *at) {
    const int64_t shape[3] = {n, heads, d};
    const gdn_tensor t = gdn_tensor_dense(buf, *at, type, ndim, shape);
    *at += ((uint64_t)(n * heads * d) * (uint64_t)gdn_type_bytes(type) + 63) / 64 * 64;
    return t;
}

static between lay_out(gdn_buffer *buf, const gdn_attention_args *a, uint64_t *bytes) {
    const int64_t n = a->num_actual_tokens, nk = a->n_k_head / a->tp_size;
    const int64_t nv = a->n_v_head / a->tp_size;
    const gdn_type t = a->qkvz.type;
    *bytes = 0;
    return (between){.q = cut(buf, t, 3, n, nk, a->dk, bytes),
                     .k = cut(buf, t, 3, n, nk, a->dk, bytes),
                     .v = cut(buf, t, 3, n, nv, a->dv, bytes),
                     .b = cut(buf, t, 2, n, nv, 1, bytes),
                     .a = cut(buf, t, 2, n, nv, 1, bytes)};
}

static gdn_status both(gdn_queue *q, const gdn_attention_args *a, group *g, const between *m,
                       gdn_err *err) {
    const gdn_causal_conv1d_args first = {.z = a->z,
                                          .qkvz = a->qkvz,
                                          .ba = a->ba,
                                          .conv_state = a->conv_state,
                                          .conv_weights = a->conv_weights,
                                          .conv_bias = a->conv_bias,
                                          .n_k_head = a->n_k_head,
                                          .n_v_head = a->n_v_head,
                                          .dk = a->dk,
                                          .dv = a->dv,
                                          .tp_size = a->tp_size,
                                          .reorder_input = a->reorder_input,
                                          .conv_layout = a->conv_layout};
    const gdn_delta_rule_args second = {.core = a->core,
                                        .A_log = a->A_log,
                                        .dt_bias = a->dt_bias,
                                        .ssm_state = a->ssm_state,
                                        .form = a->form};
    if (count(g) == 0) return GDN_OK;
    g->n_row = a->num_actual_tokens;
    g->n_token = most_tokens(g, m);
    g->slots = a->conv_state.shape[0];
    g->null_slot = a->null_slot;
    const gdn_status st = conv(q, &first, g, m, err);
    return st == GDN_OK ? delta(q, &second, g, m, err) : st;
}

gdn_status xpu_op_gdn_attention(gdn_queue *q, const gdn_attention_args *a, gdn_err *err) {
    group spec = {.loc = &a->spec_query_start_loc,
                  .indx = &a->spec_token_indx,
                  .slot = &a->spec_state_indices,
                  .initial = &absent,
                  .accepted = &a->num_accepted_tokens};
    group plain = {.loc = &a->non_spec_query_start_loc,
                   .indx = &a->non_spec_token_indx,
                   .slot = &a->non_spec_state_indices,
                   .initial = &a->has_initial_state,
                   .accepted = &absent};
    xpu_buffer scratch = {.base = {.device = q->device}};
    if (a->num_actual_tokens == 0) return GDN_OK;
    lay_out(&scratch.base, a, &scratch.base.bytes);
    gdn_status st = xpu_scratch(q, 0, scratch.base.bytes, &scratch.mem, err);
    if (st != GDN_OK) return st;
    uint64_t unused;
    const between m = lay_out(&scratch.base, a, &unused);
    st = both(q, a, &spec, &m, err);
    return st == GDN_OK ? both(q, a, &plain, &m, err) : st;
}
