/* op_gdn.c - gdn_attention(): every argument checked before anything is written. */
#include "op_gdn.h"

static const char op[] = "gdn_attention";

static gdn_status check_tensors(const gdn_queue *q, const gdn_attention_args *a, gdn_heads *h,
                                gdn_err *err) {
    gdn_status st = gdn_check_heads(op, a->n_k_head, a->n_v_head, a->dk, a->dv, a->tp_size, h, err);
    if (st != GDN_OK) return st;
    CHECK(qkvz, F32 | BF16 | F16, ANY, h->C + h->nv * h->dv);
    const unsigned act = 1u << a->qkvz.type;
    const int64_t P = a->qkvz.shape[0];
    if (a->num_actual_tokens < 0 || a->num_actual_tokens > P)
        REFUSE("%s: num_actual_tokens is %lld of %lld rows", op, (long long)a->num_actual_tokens,
               (long long)P);
    CHECK(ba, act, P, 2 * h->nv);
    CHECK(core, act, P, h->nv, h->dv);
    CHECK(z, act, P, h->nv, h->dv);
    CHECK(conv_weights, act, h->C, ANY);
    const int64_t W = a->conv_weights.shape[1];
    if (W < 2 || W > 8) REFUSE("%s: conv_weights has %lld taps, need 2 to 8", op, (long long)W);
    CHECK_OPT(conv_bias, act, h->C);
    CHECK(A_log, F32, h->nv);
    CHECK(dt_bias, act, h->nv);
    CHECK(conv_state, act, ANY, ANY, ANY);
    CHECK(ssm_state, F32 | BF16 | F16, a->conv_state.shape[0], h->nv, h->dv, h->dk);
    st = gdn_check_states(op, &a->ssm_state, err);
    return st == GDN_OK ? gdn_check_form(op, a->form, err) : st;
}

gdn_status gdn_attention(gdn_queue *q, const gdn_attention_args *a, gdn_err *err) {
    static const gdn_tensor absent;
    gdn_heads h;
    gdn_status st = check_tensors(q, a, &h, err);
    if (st != GDN_OK) return st;
    gdn_seq_group g[2];
    int n = 0;
    int64_t K = 1;
    if (a->spec_query_start_loc.buf != NULL)
        g[n++] = (gdn_seq_group){.prefix = "spec_",
                                 .loc = &a->spec_query_start_loc,
                                 .indx = &a->spec_token_indx,
                                 .slot = &a->spec_state_indices,
                                 .initial = &absent,
                                 .accepted = &a->num_accepted_tokens};
    if (a->non_spec_query_start_loc.buf != NULL)
        g[n++] = (gdn_seq_group){.prefix = "non_spec_",
                                 .loc = &a->non_spec_query_start_loc,
                                 .indx = &a->non_spec_token_indx,
                                 .slot = &a->non_spec_state_indices,
                                 .initial = &a->has_initial_state};
    for (int i = 0; i < n; i++) {
        g[i].op = op;
        g[i].n_row = a->num_actual_tokens;
        g[i].slots = a->conv_state.shape[0];
        g[i].null_slot = a->null_slot;
        st = gdn_check_group(q, g + i, err);
        if (st != GDN_OK) return st;
        if (g[i].n_seq > 0 && g[i].K > K) K = g[i].K;
    }
    st = gdn_check_lines(op, &a->conv_state, a->conv_layout, &h, a->conv_weights.shape[1], K, err);
    if (st != GDN_OK) return st;
    /* The two pools may share pages, because slots of one lie between slots of the other. */
    enum { N_OUT = 4, N_OWN = 10 };
    gdn_named t[N_OWN + 2 * GDN_GROUP_NAMED] = {
        ARG(core), ARG(z), ARG(conv_state), ARG(ssm_state), ARG(qkvz), ARG(ba), ARG(conv_weights),
        ARG(conv_bias), ARG(A_log), ARG(dt_bias)};
    for (int i = 0; i < n; i++) gdn_name_group(g + i, t + N_OWN + i * GDN_GROUP_NAMED);
    st = gdn_check_apart(op, t, N_OUT, N_OWN + n * GDN_GROUP_NAMED, err);
    if (st == GDN_OK) st = gdn_check_groups(g, n, err);
    return st == GDN_OK ? RUN(gdn_attention) : st;
}
