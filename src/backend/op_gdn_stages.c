/* op_gdn_stages.c - gdn_causal_conv1d() and gdn_delta_rule(): their arguments checked. */
#include "op_gdn.h"

/* The group that both name in the same way. */
#define GROUP(op_, a, n_row_, slots_)                                                     \
    {                                                                                     \
        .op = op_, .prefix = "", .loc = &(a)->query_start_loc, .indx = &(a)->token_indx,  \
        .slot = &(a)->state_indices, .initial = &(a)->has_initial_state,                  \
        .accepted = (a)->num_accepted_tokens.buf != NULL ? &(a)->num_accepted_tokens : NULL, \
        .n_row = n_row_, .slots = slots_, .null_slot = (a)->null_slot,                    \
    }

/* Tensors between the stages hold all tokens of the group. */
static gdn_status check_tokens(const gdn_seq_group *g, const gdn_named *t, int n, gdn_err *err) {
    const int64_t T = gdn_group_tokens(g);
    for (int i = 0; i < n; i++)
        if (t[i].t->shape[0] < T)
            REFUSE("%s: %s has %lld rows for %lld tokens", g->op, t[i].name,
                   (long long)t[i].t->shape[0], (long long)T);
    return GDN_OK;
}

gdn_status gdn_causal_conv1d(gdn_queue *q, const gdn_causal_conv1d_args *a, gdn_err *err) {
    static const char op[] = "gdn_causal_conv1d";
    gdn_heads h;
    gdn_status st =
        gdn_check_heads(op, a->n_k_head, a->n_v_head, a->dk, a->dv, a->tp_size, &h, err);
    if (st != GDN_OK) return st;
    CHECK(qkvz, F32 | BF16 | F16, ANY, h.C + h.nv * h.dv);
    const unsigned act = 1u << a->qkvz.type;
    const int64_t P = a->qkvz.shape[0];
    if (a->num_actual_tokens < 0 || a->num_actual_tokens > P)
        REFUSE("%s: num_actual_tokens is %lld of %lld rows", op, (long long)a->num_actual_tokens,
               (long long)P);
    CHECK(ba, act, P, 2 * h.nv);
    CHECK(z, act, P, h.nv, h.dv);
    CHECK(q, act, ANY, h.nk, h.dk);
    CHECK(k, act, ANY, h.nk, h.dk);
    CHECK(v, act, ANY, h.nv, h.dv);
    CHECK(b, act, ANY, h.nv);
    CHECK(a, act, ANY, h.nv);
    CHECK(conv_weights, act, h.C, ANY);
    const int64_t W = a->conv_weights.shape[1];
    if (W < 2 || W > 8) REFUSE("%s: conv_weights has %lld taps, need 2 to 8", op, (long long)W);
    CHECK_OPT(conv_bias, act, h.C);
    CHECK(conv_state, act, ANY, ANY, ANY);
    gdn_seq_group g = GROUP(op, a, a->num_actual_tokens, a->conv_state.shape[0]);
    st = gdn_check_group(q, &g, err);
    if (st == GDN_OK)
        st = gdn_check_lines(op, &a->conv_state, a->conv_layout, &h, W, g.n_seq > 0 ? g.K : 1, err);
    enum { N_OUT = 7, N_OWN = 11 };
    gdn_named t[N_OWN + GDN_GROUP_NAMED] = {
        ARG(q), ARG(k), ARG(v), ARG(b), ARG(a), ARG(z), ARG(conv_state), ARG(qkvz), ARG(ba),
        ARG(conv_weights), ARG(conv_bias)};
    gdn_name_group(&g, t + N_OWN);
    if (st == GDN_OK) st = gdn_check_apart(op, t, N_OUT, N_OWN + GDN_GROUP_NAMED, err);
    if (st == GDN_OK) st = gdn_check_groups(&g, 1, err);
    if (st == GDN_OK) st = check_tokens(&g, t, 5, err);
    return st == GDN_OK ? RUN(causal_conv1d) : st;
}

gdn_status gdn_delta_rule(gdn_queue *q, const gdn_delta_rule_args *a, gdn_err *err) {
    static const char op[] = "gdn_delta_rule";
    CHECK(q, F32 | BF16 | F16, ANY, ANY, ANY);
    const unsigned act = 1u << a->q.type;
    const int64_t nk = a->q.shape[1], dk = a->q.shape[2];
    CHECK(k, act, ANY, nk, dk);
    CHECK(v, act, ANY, ANY, ANY);
    const int64_t nv = a->v.shape[1], dv = a->v.shape[2];
    gdn_heads h;
    if (nk > 65536 || nv > 65536 || dk > 65536 || dv > 65536)
        REFUSE("%s: q has %lld heads of %lld, v has %lld of %lld", op, (long long)nk, (long long)dk,
               (long long)nv, (long long)dv);
    gdn_status st = gdn_check_heads(op, (int32_t)nk, (int32_t)nv, (int32_t)dk, (int32_t)dv, 1, &h,
                                    err);
    if (st != GDN_OK) return st;
    CHECK(b, act, ANY, nv);
    CHECK(a, act, ANY, nv);
    CHECK(core, act, ANY, nv, dv);
    const int64_t P = a->core.shape[0];
    if (a->num_actual_tokens < 0 || a->num_actual_tokens > P)
        REFUSE("%s: num_actual_tokens is %lld of %lld rows", op, (long long)a->num_actual_tokens,
               (long long)P);
    CHECK(A_log, F32, nv);
    CHECK(dt_bias, act, nv);
    CHECK(ssm_state, F32 | BF16 | F16, ANY, nv, dv, dk);
    gdn_seq_group g = GROUP(op, a, a->num_actual_tokens, a->ssm_state.shape[0]);
    st = gdn_check_states(op, &a->ssm_state, err);
    if (st == GDN_OK) st = gdn_check_form(op, a->form, err);
    if (st == GDN_OK) st = gdn_check_group(q, &g, err);
    enum { N_OUT = 2, FIRST_ROWS = 2, N_ROWS = 5, N_OWN = 9 };
    gdn_named t[N_OWN + GDN_GROUP_NAMED] = {ARG(core), ARG(ssm_state), ARG(q), ARG(k), ARG(v),
                                            ARG(b), ARG(a), ARG(A_log), ARG(dt_bias)};
    gdn_name_group(&g, t + N_OWN);
    if (st == GDN_OK) st = gdn_check_apart(op, t, N_OUT, N_OWN + GDN_GROUP_NAMED, err);
    if (st == GDN_OK) st = gdn_check_groups(&g, 1, err);
    if (st == GDN_OK) st = check_tokens(&g, t + FIRST_ROWS, N_ROWS, err);
    return st == GDN_OK ? RUN(delta_rule) : st;
}
