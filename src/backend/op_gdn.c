/* op_gdn.c - gdn_attention(): every argument checked before anything is written. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct {
    int64_t nk, nv, r, C, P, W, slots, n_seq, n_spec, K;
} sizes;

static const char op[] = "gdn_attention";

static gdn_status check_shapes(const gdn_queue *q, const gdn_attention_args *a, sizes *s,
                               gdn_err *err) {
    if (a->tp_size < 1 || a->n_k_head < 1 || a->n_v_head < 1 || a->n_k_head % a->tp_size != 0 ||
        a->n_v_head % a->tp_size != 0 || a->n_v_head % a->n_k_head != 0)
        REFUSE("%s: %d key and %d value heads over %d shards", op, a->n_k_head, a->n_v_head,
               a->tp_size);
    if (a->dk < 8 || a->dk % 8 != 0 || a->dk > 256)
        REFUSE("%s: dk is %d, need a multiple of 8 up to 256", op, a->dk);
    if (a->dv < 1 || a->dv > 4096) REFUSE("%s: dv is %d, need 1 to 4096", op, a->dv);
    s->nk = a->n_k_head / a->tp_size;
    s->nv = a->n_v_head / a->tp_size;
    s->r = s->nv / s->nk;
    if (s->nv > 65536) REFUSE("%s: %lld value heads", op, (long long)s->nv);
    s->C = 2 * s->nk * a->dk + s->nv * a->dv;
    CHECK(qkvz, F32 | BF16 | F16, ANY, s->C + s->nv * a->dv);
    const unsigned act = 1u << a->qkvz.type;
    s->P = a->qkvz.shape[0];
    if (a->num_actual_tokens < 0 || a->num_actual_tokens > s->P)
        REFUSE("%s: num_actual_tokens is %lld of %lld rows", op, (long long)a->num_actual_tokens,
               (long long)s->P);
    CHECK(ba, act, s->P, 2 * s->nv);
    CHECK(core, act, s->P, s->nv, a->dv);
    CHECK(z, act, s->P, s->nv, a->dv);
    CHECK(conv_weights, act, s->C, ANY);
    s->W = a->conv_weights.shape[1];
    if (s->W < 2 || s->W > 8) REFUSE("%s: conv_weights has %lld taps, need 2 to 8", op, (long long)s->W);
    CHECK_OPT(conv_bias, act, s->C);
    CHECK(A_log, F32, s->nv);
    CHECK(dt_bias, act, s->nv);
    CHECK(conv_state, act, ANY, ANY, ANY);
    const bool ds = a->conv_layout == GDN_CONV_STATE_DS;
    if (a->conv_layout != GDN_CONV_STATE_SD && !ds)
        REFUSE("%s: conv_layout is %d", op, (int)a->conv_layout);
    if (a->conv_state.shape[ds ? 1 : 2] != s->C)
        REFUSE("%s: conv_state has %lld channels, need %lld", op,
               (long long)a->conv_state.shape[ds ? 1 : 2], (long long)s->C);
    s->slots = a->conv_state.shape[0];
    CHECK(ssm_state, F32 | BF16 | F16, s->slots, s->nv, a->dv, a->dk);
    const int64_t row = a->ssm_state.stride[3] * a->dk;
    if (s->slots > 0 && (a->ssm_state.stride[2] != row || a->ssm_state.stride[1] != row * a->dv))
        REFUSE("%s: a slot of ssm_state has gaps", op);
    return GDN_OK;
}

static gdn_status check_indices(const gdn_queue *q, const gdn_attention_args *a, sizes *s,
                                gdn_err *err) {
    s->n_seq = s->n_spec = 0;
    s->K = 1;
    if (a->non_spec_query_start_loc.buf != NULL) {
        CHECK(non_spec_query_start_loc, I32, ANY);
        s->n_seq = a->non_spec_query_start_loc.shape[0] - 1;
        if (s->n_seq < 0) REFUSE("%s: non_spec_query_start_loc is empty", op);
        CHECK(non_spec_state_indices, I32, s->n_seq);
        CHECK_OPT(has_initial_state, U8, s->n_seq);
        CHECK_OPT(non_spec_token_indx, I32, ANY);
    }
    if (a->spec_query_start_loc.buf != NULL) {
        CHECK(spec_query_start_loc, I32, ANY);
        s->n_spec = a->spec_query_start_loc.shape[0] - 1;
        if (s->n_spec < 0) REFUSE("%s: spec_query_start_loc is empty", op);
        CHECK(spec_state_indices, I32, s->n_spec, ANY);
        CHECK(num_accepted_tokens, I32, s->n_spec);
        CHECK_OPT(spec_token_indx, I32, ANY);
        s->K = a->spec_state_indices.shape[1];
        if (s->K < 1 && s->n_spec > 0) REFUSE("%s: spec_state_indices has no columns", op);
    }
    const int64_t L = a->conv_state.shape[a->conv_layout == GDN_CONV_STATE_DS ? 2 : 1];
    const int64_t need = s->W - 1 + (s->n_spec > 0 && s->K > 1 ? s->K - 1 : 0);
    if (L < need)
        REFUSE("%s: conv_state has %lld rows a slot, need %lld", op, (long long)L, (long long)need);
    return GDN_OK;
}

/* Outputs may not lie on each other or on the inputs; the two pools may share pages, because
 * slots of one lie between slots of the other. */
static gdn_status check_overlap(const gdn_attention_args *a, gdn_err *err) {
    const struct {
        const char *name;
        const gdn_tensor *t;
    } all[] = {{"core", &a->core},   {"z", &a->z},
               {"qkvz", &a->qkvz},   {"ba", &a->ba},
               {"conv_weights", &a->conv_weights}, {"A_log", &a->A_log},
               {"dt_bias", &a->dt_bias}};
    for (size_t i = 0; i < 2; i++)
        for (size_t k = i + 1; k < sizeof all / sizeof *all; k++) {
            const gdn_tensor *x = all[i].t, *y = all[k].t;
            const char *px = gdn_tensor_host(x), *py = gdn_tensor_host(y);
            if (px != NULL && py != NULL && px < py + gdn_tensor_extent(y) &&
                py < px + gdn_tensor_extent(x))
                REFUSE("%s: %s overlaps %s", op, all[i].name, all[k].name);
        }
    return GDN_OK;
}

/* --- values that the host can read --------------------------------------------------- */

static bool is_none(const gdn_attention_args *a, int32_t slot) {
    return slot < 0 || slot == a->null_slot;
}

/* Offsets and rows of one group; every row may be covered once. */
static gdn_status check_rows(const gdn_attention_args *a, const char *name, const gdn_tensor *loc,
                             const gdn_tensor *indx, int64_t n_seq, unsigned char *covered,
                             gdn_err *err) {
    const int32_t *start = gdn_ints(loc), *map = gdn_ints(indx);
    const int64_t most = map != NULL ? indx->shape[0] : a->num_actual_tokens;
    if (start[0] != 0) REFUSE("%s: %squery_start_loc[0] is %d, need 0", op, name, start[0]);
    for (int64_t s = 0; s < n_seq; s++)
        if (start[s + 1] < start[s] || start[s + 1] > most)
            REFUSE("%s: %squery_start_loc[%lld] is %d, after %d and with %lld tokens", op, name,
                   (long long)s + 1, start[s + 1], start[s], (long long)most);
    for (int64_t t = 0; t < start[n_seq]; t++) {
        const int64_t row = map != NULL ? map[t] : t;
        if (row < 0 || row >= a->num_actual_tokens)
            REFUSE("%s: %stoken_indx[%lld] is %lld of %lld rows", op, name, (long long)t,
                   (long long)row, (long long)a->num_actual_tokens);
        if (covered[row] != 0)
            REFUSE("%s: row %lld belongs to two tokens", op, (long long)row);
        covered[row] = 1;
    }
    return GDN_OK;
}

static gdn_status take_slot(int64_t slots, int32_t slot, unsigned char *taken, const char *name,
                            int64_t s, gdn_err *err) {
    if (slot >= slots)
        REFUSE("%s: %s[%lld] is %d of %lld slots", op, name, (long long)s, slot, (long long)slots);
    if (taken[slot] != 0)
        REFUSE("%s: %s[%lld]: slot %d belongs to two sequences", op, name, (long long)s, slot);
    taken[slot] = 1;
    return GDN_OK;
}

static gdn_status check_spec_slots(const gdn_attention_args *a, const sizes *s,
                                   unsigned char *taken, gdn_err *err) {
    const int32_t *start = gdn_ints(&a->spec_query_start_loc);
    const int32_t *accepted = gdn_ints(&a->num_accepted_tokens);
    for (int64_t i = 0; i < s->n_spec; i++) {
        const int32_t *slot = (const int32_t *)(const void *)((const char *)gdn_tensor_host(
                                                                  &a->spec_state_indices) +
                                                              i * a->spec_state_indices.stride[0]);
        const int32_t n = start[i + 1] - start[i];
        if (n > s->K)
            REFUSE("%s: speculative sequence %lld has %d tokens, need at most %lld", op,
                   (long long)i, n, (long long)s->K);
        if (accepted[i] < 0 || accepted[i] > s->K)
            REFUSE("%s: num_accepted_tokens[%lld] is %d, need 0 to %lld", op, (long long)i,
                   accepted[i], (long long)s->K);
        if (n == 0 || is_none(a, slot[0])) continue;
        const int64_t read = accepted[i] > 0 ? accepted[i] - 1 : 0;
        if (is_none(a, slot[read]))
            REFUSE("%s: spec_state_indices[%lld][%lld] is %d, and that state is to be read", op,
                   (long long)i, (long long)read, slot[read]);
        for (int64_t k = 0; k < s->K; k++) {
            if (is_none(a, slot[k]) || (k >= n && k != read)) continue;
            const gdn_status st = take_slot(s->slots, slot[k], taken, "spec_state_indices", i, err);
            if (st != GDN_OK) return st;
        }
    }
    return GDN_OK;
}

static gdn_status check_values(const gdn_attention_args *a, const sizes *s, gdn_err *err) {
    unsigned char *seen = calloc(1, (size_t)(a->num_actual_tokens + s->slots + 1));
    if (seen == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", op);
    unsigned char *taken = seen + a->num_actual_tokens;
    gdn_status st = GDN_OK;
    if (s->n_spec > 0) {
        st = check_rows(a, "spec_", &a->spec_query_start_loc, &a->spec_token_indx, s->n_spec, seen,
                        err);
        if (st == GDN_OK) st = check_spec_slots(a, s, taken, err);
    }
    if (s->n_seq > 0 && st == GDN_OK) {
        const int32_t *start = gdn_ints(&a->non_spec_query_start_loc);
        const int32_t *slot = gdn_ints(&a->non_spec_state_indices);
        st = check_rows(a, "non_spec_", &a->non_spec_query_start_loc, &a->non_spec_token_indx,
                        s->n_seq, seen, err);
        for (int64_t i = 0; st == GDN_OK && i < s->n_seq; i++)
            if (start[i + 1] > start[i] && !is_none(a, slot[i]))
                st = take_slot(s->slots, slot[i], taken, "non_spec_state_indices", i, err);
    }
    free(seen);
    return st;
}

gdn_status gdn_attention(gdn_queue *q, const gdn_attention_args *a, gdn_err *err) {
    sizes s = {0};
    gdn_status st = check_shapes(q, a, &s, err);
    if (st == GDN_OK) st = check_indices(q, a, &s, err);
    if (st == GDN_OK) st = check_overlap(a, err);
    if (st == GDN_OK && a->qkvz.buf->host != NULL) st = check_values(a, &s, err);
    return st == GDN_OK ? RUN(gdn_attention) : st;
}
