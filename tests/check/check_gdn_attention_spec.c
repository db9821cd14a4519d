/* check_gdn_attention_spec.c - drafts that are accepted in part give the bits of plain tokens.
 *
 * The tokens of some sequences go through once as plain ones, checked against the expectation, and
 * once in steps of speculative calls: each step a sequence drafts up to K tokens, of which the first
 * few are its next ones and the rest are somebody else's, and then keeps the former.
 *
 *     plain  a b c d e f g ..          steps  a b x x | c d e x | f x | ..    x: rejected */
#include <stdlib.h>
#include <string.h>

#include "check_gdn_attention.h"

enum { N_SEQ = 5, K = 4, ROWS = N_SEQ * K, SLOTS = ROWS + 2 };

typedef struct {
    attn_case *k;
    gdn_attention_args a;
    gdn_buffer *buf[12];
    int      n_buf;
    uint8_t *core, *z, *qkvz, *ba, *conv, *ssm;
    int32_t *start, *token, *slot, *accepted;
    int32_t  done[N_SEQ], drafted[N_SEQ];
} steps;

static gdn_tensor tensor(steps *p, void *at, gdn_type type, int32_t ndim, int64_t a, int64_t b,
                         int64_t d, int64_t e) {
    const int64_t shape[4] = {a, b, d, e};
    gdn_tensor t = gdn_tensor_dense(NULL, 0, type, ndim, shape);
    gdn_err err = {0};
    check_that(p->k->c,
               gdn_buffer_wrap(p->k->d, at, (uint64_t)(a * t.stride[0]), &t.buf, &err) == GDN_OK,
               "%s", err.text);
    p->buf[p->n_buf++] = t.buf;
    return t;
}

static size_t act_bytes(const steps *p) { return (size_t)gdn_type_bytes(p->k->s.act); }

static int32_t slot_of(int32_t s, int32_t column) { return 1 + column * N_SEQ + s; }

static void open_steps(steps *p, attn_case *k) {
    const attn_shape *s = &k->s;
    const int64_t lines = s->W - 2 + K, width = k->C + k->row;
    *p = (steps){.k = k};
    const size_t act = act_bytes(p);
    p->core = check_bytes(k->c, "step core", ROWS * (size_t)k->row * act);
    p->z = check_bytes(k->c, "step z", ROWS * (size_t)k->row * act);
    p->qkvz = check_bytes(k->c, "step qkvz", ROWS * (size_t)width * act);
    p->ba = check_bytes(k->c, "step ba", ROWS * 2 * (size_t)s->nv * act);
    p->conv = check_bytes(k->c, "step conv_state", SLOTS * (size_t)(lines * k->C) * act);
    p->ssm = check_bytes(k->c, "step ssm_state", SLOTS * k->state_bytes);
    p->start = check_i32(k->c, "spec_query_start_loc", N_SEQ + 1);
    p->token = check_i32(k->c, "spec_token_indx", ROWS);
    p->slot = check_i32(k->c, "spec_state_indices", ROWS);
    p->accepted = check_i32(k->c, "num_accepted_tokens", N_SEQ);
    p->a = k->a;
    p->a.core = tensor(p, p->core, s->act, 3, ROWS, s->nv, s->dv, 0);
    p->a.z = tensor(p, p->z, s->act, 3, ROWS, s->nv, s->dv, 0);
    p->a.qkvz = tensor(p, p->qkvz, s->act, 2, ROWS, width, 0, 0);
    p->a.ba = tensor(p, p->ba, s->act, 2, ROWS, 2 * s->nv, 0, 0);
    p->a.conv_state = tensor(p, p->conv, s->act, 3, SLOTS, lines, k->C, 0);
    p->a.ssm_state = tensor(p, p->ssm, s->state, 4, SLOTS, s->nv, s->dv, s->dk);
    p->a.non_spec_query_start_loc = p->a.non_spec_state_indices = (gdn_tensor){0};
    p->a.non_spec_token_indx = (gdn_tensor){0};
    p->a.spec_query_start_loc = tensor(p, p->start, GDN_I32, 1, N_SEQ + 1, 0, 0, 0);
    p->a.spec_token_indx = tensor(p, p->token, GDN_I32, 1, ROWS, 0, 0, 0);
    p->a.spec_state_indices = tensor(p, p->slot, GDN_I32, 2, N_SEQ, K, 0, 0);
    p->a.num_accepted_tokens = tensor(p, p->accepted, GDN_I32, 1, N_SEQ, 0, 0, 0);
    p->a.num_actual_tokens = ROWS;
    p->start[0] = 0;
    for (int32_t i = 0; i < ROWS; i++) {
        p->token[i] = i * 7 % ROWS;
        p->slot[i] = slot_of(i / K, i % K);
    }
    for (int32_t i = 0; i < N_SEQ; i++) { /* history and state wait in column 0 */
        const int32_t from = k->slot[i], to = slot_of(i, 0);
        memcpy(p->conv + (size_t)(to * lines * k->C) * act, k->line0 + from * k->line_bytes,
               k->line_bytes);
        memcpy(p->ssm + to * k->state_bytes, k->state0 + from * k->state_bytes, k->state_bytes);
        p->accepted[i] = i % 2; /* 0 counts as 1 */
    }
}

static int32_t row_of(const steps *p, int32_t s, int32_t i) {
    return p->k->map[p->k->start[s] + i];
}

/* One step; how many of each sequence's tokens it keeps goes to kept. */
static void step(steps *p, int32_t *kept) {
    attn_case *k = p->k;
    const size_t wide = (size_t)(k->C + k->row) * act_bytes(p);
    const size_t gates = 2 * (size_t)k->s.nv * act_bytes(p);
    for (int32_t s = 0; s < N_SEQ; s++) {
        const int32_t left = k->start[s + 1] - k->start[s] - p->done[s];
        const int32_t n = left == 0 ? 0 : (int32_t)(check_uniform() * (K + 1));
        kept[s] = n == 0 ? 0 : 1 + (int32_t)(check_uniform() * n);
        if (kept[s] > left) kept[s] = left;
        p->start[s + 1] = p->start[s] + n;
        for (int32_t i = 0; i < n; i++) {
            const int32_t at = p->token[p->start[s] + i];
            const int32_t from = i < kept[s] ? row_of(p, s, p->done[s] + i)
                                             : k->map[(int32_t)(check_uniform() * k->n_tok)];
            memcpy(p->qkvz + (size_t)at * wide, k->qkvz + (size_t)from * wide, wide);
            memcpy(p->ba + (size_t)at * gates, k->ba + (size_t)from * gates, gates);
        }
    }
    gdn_err err = {0};
    gdn_status st = gdn_attention(k->q, &p->a, &err);
    if (st == GDN_OK) st = gdn_queue_wait(k->q, &err);
    check_that(k->c, st == GDN_OK, "GDN_OK, not %d: %s", (int)st, err.text);
}

static bool same_rows(steps *p, const int32_t *kept) {
    const attn_case *k = p->k;
    const size_t bytes = (size_t)k->row * act_bytes(p);
    for (int32_t s = 0; s < N_SEQ; s++) {
        for (int32_t i = 0; i < kept[s]; i++) {
            const size_t at = (size_t)p->token[p->start[s] + i] * bytes;
            const size_t want = (size_t)row_of(p, s, p->done[s] + i) * bytes;
            if (!check_bits(k->c, "core of a draft", k->core + want, p->core + at, k->row,
                            act_bytes(p)) ||
                !check_bits(k->c, "z of a draft", k->z + want, p->z + at, k->row, act_bytes(p)))
                return false;
        }
        p->done[s] += kept[s];
        if (kept[s] > 0) p->accepted[s] = kept[s];
    }
    return true;
}

/* States of the last token kept, and the history that the line has there. */
static void same_states(steps *p) {
    const attn_case *k = p->k;
    const size_t line = (size_t)k->C * act_bytes(p);
    for (int32_t s = 0; s < N_SEQ; s++) {
        const int32_t last = p->accepted[s] - 1, plain = k->slot[s];
        check_bits(k->c, "state of a draft", k->ssm + plain * k->ssm_step,
                   p->ssm + slot_of(s, last) * k->state_bytes, (size_t)k->state_n,
                   (size_t)gdn_type_bytes(k->s.state));
        check_bits(k->c, "line of a draft", k->conv + plain * k->conv_step,
                   p->conv + (size_t)(slot_of(s, 0) * (k->s.W - 2 + K) + last) * line,
                   (size_t)(k->s.W - 1) * (size_t)k->C, act_bytes(p));
    }
}

void attn_check_drafts(attn_case *k) {
    steps p;
    attn_error e;
    attn_reset(k);
    attn_run(k);
    attn_compare(k, "plain", &e);
    for (int f = 0; f < 2; f++) { /* drafts are recurrent in both forms */
        open_steps(&p, k);
        p.a.form = f == 0 ? GDN_FORM_RECURRENT : GDN_FORM_CHUNKED;
        for (int32_t left = k->n_tok; left > 0;) {
            int32_t kept[N_SEQ];
            step(&p, kept);
            if (!same_rows(&p, kept)) break;
            for (int32_t s = 0; s < N_SEQ; s++) left -= kept[s];
            if (left == 0) same_states(&p);
        }
        for (int i = 0; i < p.n_buf; i++) gdn_buffer_free(p.buf[i]);
    }
}
