/* op_gdn_check.c - checks that gdn_attention() and its two stages share. */
#include <stdio.h>
#include <stdlib.h>

#include "op_gdn.h"

/* --- shapes ---------------------------------------------------------------------------- */

static gdn_status check_index(const gdn_queue *q, const gdn_seq_group *g, const char *name,
                              const gdn_tensor *t, unsigned types, int32_t ndim, int64_t n,
                              int64_t m, gdn_err *err) {
    const int64_t shape[2] = {n, m};
    return gdn_check_tensor(g->op, name, q, t, types, ndim, shape, err);
}

gdn_status gdn_check_group(const gdn_queue *q, gdn_seq_group *g, gdn_err *err) {
    char loc[40], indx[40], slot[40];
    snprintf(loc, sizeof loc, "%squery_start_loc", g->prefix);
    snprintf(indx, sizeof indx, "%stoken_indx", g->prefix);
    snprintf(slot, sizeof slot, "%sstate_indices", g->prefix);
    gdn_status st = check_index(q, g, loc, g->loc, I32, 1, ANY, 0, err);
    if (st != GDN_OK) return st;
    g->n_seq = g->loc->shape[0] - 1;
    g->K = 1;
    if (g->n_seq < 0) REFUSE("%s: %s is empty", g->op, loc);
    if (g->accepted == NULL) {
        st = check_index(q, g, slot, g->slot, I32, 1, g->n_seq, 0, err);
    } else {
        st = check_index(q, g, slot, g->slot, I32, 2, g->n_seq, ANY, err);
        if (st == GDN_OK)
            st = check_index(q, g, "num_accepted_tokens", g->accepted, I32, 1, g->n_seq, 0, err);
        if (st == GDN_OK) g->K = g->slot->shape[1];
        if (st == GDN_OK && g->K < 1 && g->n_seq > 0) REFUSE("%s: %s has no columns", g->op, slot);
    }
    if (st == GDN_OK && g->initial->buf != NULL) {
        if (g->accepted != NULL)
            REFUSE("%s: has_initial_state is given for speculative sequences", g->op);
        st = check_index(q, g, "has_initial_state", g->initial, U8, 1, g->n_seq, 0, err);
    }
    if (st == GDN_OK && g->indx->buf != NULL)
        st = check_index(q, g, indx, g->indx, I32, 1, ANY, 0, err);
    return st;
}

gdn_status gdn_check_heads(const char *op, int32_t n_k_head, int32_t n_v_head, int32_t dk,
                           int32_t dv, int32_t tp_size, gdn_heads *out, gdn_err *err) {
    if (tp_size < 1 || n_k_head < 1 || n_v_head < 1 || n_k_head % tp_size != 0 ||
        n_v_head % tp_size != 0 || n_v_head % n_k_head != 0)
        REFUSE("%s: %d key and %d value heads over %d shards", op, n_k_head, n_v_head, tp_size);
    if (dk < 8 || dk % 8 != 0 || dk > 256)
        REFUSE("%s: dk is %d, need a multiple of 8 up to 256", op, dk);
    if (dv < 1 || dv > 4096) REFUSE("%s: dv is %d, need 1 to 4096", op, dv);
    *out = (gdn_heads){.nk = n_k_head / tp_size, .nv = n_v_head / tp_size, .dk = dk, .dv = dv};
    if (out->nv > 65536) REFUSE("%s: %lld value heads", op, (long long)out->nv);
    out->C = 2 * out->nk * dk + out->nv * dv;
    return GDN_OK;
}

gdn_status gdn_check_lines(const char *op, const gdn_tensor *conv_state,
                           gdn_conv_state_layout layout, const gdn_heads *h, int64_t W, int64_t K,
                           gdn_err *err) {
    const bool ds = layout == GDN_CONV_STATE_DS;
    if (layout != GDN_CONV_STATE_SD && !ds) REFUSE("%s: conv_layout is %d", op, (int)layout);
    const int64_t C = conv_state->shape[ds ? 1 : 2], L = conv_state->shape[ds ? 2 : 1];
    if (C != h->C)
        REFUSE("%s: conv_state has %lld channels, need %lld", op, (long long)C, (long long)h->C);
    const int64_t need = W - 1 + (K > 1 ? K - 1 : 0);
    if (L < need)
        REFUSE("%s: conv_state has %lld rows a slot, need %lld", op, (long long)L, (long long)need);
    if (!gdn_tensor_distinct(conv_state))
        REFUSE("%s: slots of conv_state lie on each other", op);
    return GDN_OK;
}

gdn_status gdn_check_states(const char *op, const gdn_tensor *ssm_state, gdn_err *err) {
    const gdn_tensor *s = ssm_state;
    const int64_t row = gdn_type_bytes(s->type) * s->shape[3];
    if (s->shape[0] > 0 && (s->stride[2] != row || s->stride[1] != row * s->shape[2]))
        REFUSE("%s: a slot of ssm_state has gaps", op);
    if (!gdn_tensor_distinct(s)) REFUSE("%s: slots of ssm_state lie on each other", op);
    return GDN_OK;
}

gdn_status gdn_check_form(const char *op, gdn_delta_form form, gdn_err *err) {
    if (form != GDN_FORM_RECURRENT && form != GDN_FORM_CHUNKED)
        REFUSE("%s: form is %d", op, (int)form);
    return GDN_OK;
}

/* --- apart ------------------------------------------------------------------------------ */

void gdn_name_group(const gdn_seq_group *g, gdn_named *to) {
    static const gdn_tensor absent;
    to[0] = (gdn_named){.prefix = g->prefix, .name = "query_start_loc", .t = g->loc};
    to[1] = (gdn_named){.prefix = g->prefix, .name = "token_indx", .t = g->indx};
    to[2] = (gdn_named){.prefix = g->prefix, .name = "state_indices", .t = g->slot};
    to[3] = (gdn_named){.name = "has_initial_state", .t = g->initial};
    to[4] = (gdn_named){.name = "num_accepted_tokens",
                        .t = g->accepted != NULL ? g->accepted : &absent};
}

/* --- values that the host can read --------------------------------------------------- */

static bool readable(const gdn_seq_group *g) {
    const gdn_tensor *const t[] = {g->loc, g->indx, g->slot, g->accepted};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (t[i] != NULL && t[i]->buf != NULL && gdn_tensor_host(t[i]) == NULL) return false;
    return true;
}

int64_t gdn_group_tokens(const gdn_seq_group *g) {
    return readable(g) ? gdn_ints(g->loc)[g->n_seq] : 0;
}

static bool is_none(const gdn_seq_group *g, int32_t slot) {
    return slot < 0 || slot == g->null_slot;
}

/* Offsets and rows of one group; every row may be covered once. */
static gdn_status check_rows(const gdn_seq_group *g, unsigned char *covered, gdn_err *err) {
    const int32_t *start = gdn_ints(g->loc), *map = gdn_ints(g->indx);
    const int64_t most = map != NULL ? g->indx->shape[0] : g->n_row;
    if (start[0] != 0)
        REFUSE("%s: %squery_start_loc[0] is %d, need 0", g->op, g->prefix, start[0]);
    for (int64_t s = 0; s < g->n_seq; s++)
        if (start[s + 1] < start[s] || start[s + 1] > most)
            REFUSE("%s: %squery_start_loc[%lld] is %d, after %d and with %lld tokens", g->op,
                   g->prefix, (long long)s + 1, start[s + 1], start[s], (long long)most);
    for (int64_t t = 0; t < start[g->n_seq]; t++) {
        const int64_t row = map != NULL ? map[t] : t;
        if (row < 0 || row >= g->n_row)
            REFUSE("%s: %stoken_indx[%lld] is %lld of %lld rows", g->op, g->prefix, (long long)t,
                   (long long)row, (long long)g->n_row);
        if (covered[row] != 0)
            REFUSE("%s: row %lld belongs to two tokens", g->op, (long long)row);
        covered[row] = 1;
    }
    return GDN_OK;
}

static gdn_status take_slot(const gdn_seq_group *g, int32_t slot, unsigned char *taken, int64_t s,
                            gdn_err *err) {
    if (slot >= g->slots)
        REFUSE("%s: %sstate_indices[%lld] is %d of %lld slots", g->op, g->prefix, (long long)s,
               slot, (long long)g->slots);
    if (taken[slot] != 0)
        REFUSE("%s: %sstate_indices[%lld]: slot %d belongs to two sequences", g->op, g->prefix,
               (long long)s, slot);
    taken[slot] = 1;
    return GDN_OK;
}

static gdn_status check_drafts(const gdn_seq_group *g, int64_t i, unsigned char *taken,
                               gdn_err *err) {
    const int32_t *start = gdn_ints(g->loc);
    const int32_t accepted = gdn_ints(g->accepted)[i], n = start[i + 1] - start[i];
    const int32_t *slot =
        (const int32_t *)(const void *)((const char *)gdn_tensor_host(g->slot) +
                                        i * g->slot->stride[0]);
    if (n > g->K)
        REFUSE("%s: speculative sequence %lld has %d tokens, need at most %lld", g->op,
               (long long)i, n, (long long)g->K);
    if (accepted < 0 || accepted > g->K)
        REFUSE("%s: num_accepted_tokens[%lld] is %d, need 0 to %lld", g->op, (long long)i, accepted,
               (long long)g->K);
    if (n == 0 || is_none(g, slot[0])) return GDN_OK;
    const int64_t read = accepted > 0 ? accepted - 1 : 0;
    if (is_none(g, slot[read]))
        REFUSE("%s: %sstate_indices[%lld][%lld] is %d, and that state is to be read", g->op,
               g->prefix, (long long)i, (long long)read, slot[read]);
    for (int64_t k = 0; k < g->K; k++) {
        if (is_none(g, slot[k]) || (k >= n && k != read)) continue;
        const gdn_status st = take_slot(g, slot[k], taken, i, err);
        if (st != GDN_OK) return st;
    }
    return GDN_OK;
}

gdn_status gdn_check_groups(const gdn_seq_group *g, int n_group, gdn_err *err) {
    for (int i = 0; i < n_group; i++)
        if (!readable(g + i)) return GDN_OK;
    if (n_group == 0) return GDN_OK;
    unsigned char *seen = calloc(1, (size_t)(g->n_row + g->slots + 1));
    if (seen == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", g->op);
    unsigned char *taken = seen + g->n_row;
    gdn_status st = GDN_OK;
    for (int i = 0; i < n_group && st == GDN_OK; i++) {
        st = check_rows(g + i, seen, err);
        const int32_t *start = gdn_ints(g[i].loc), *slot = gdn_ints(g[i].slot);
        for (int64_t s = 0; st == GDN_OK && s < g[i].n_seq; s++)
            if (g[i].accepted != NULL) st = check_drafts(g + i, s, taken, err);
            else if (start[s + 1] > start[s] && !is_none(g + i, slot[s]))
                st = take_slot(g + i, slot[s], taken, s, err);
    }
    free(seen);
    return st;
}
