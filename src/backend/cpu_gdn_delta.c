/* cpu_gdn_delta.c - gates and delta rule of gdn_attention, on states of any type. */
#include <string.h>

#include "cpu_gdn_stage.h"

enum { STEP = 2 }; /* tokens of 32 rows after which the recurrent kernel calls aside */

/* Query and key to their norms, b and a to write strength and decay (chunks: its logarithm), in
 * place.  Tokens lie in the lanes that the kernel has for heads. */
static void gates(const cpu_gdn_task *k, int64_t n_head, int64_t h0) {
    const cpu_gdn_job *j = k->j;
    gdn_delta_prep_args p = {.q = k->t->y,
                             .k = k->t->y + j->dk,
                             .qk_stride = j->ld,
                             .n_tok = (int32_t)k->n,
                             .hk = cpu_gdn_in_chunks(k) ? 0 : 1, /* chunks take them as they are */
                             .dk = (int32_t)j->dk};
    j->d->kern.delta_prep(&p);
    for (int64_t h = 0; h < n_head; h++) {
        float A[GDN_TILE], dt[GDN_TILE], alpha[GDN_TILE];
        for (int64_t i = 0; i < k->n; i++) {
            A[i] = ((const float *)gdn_tensor_host(j->A_log))[h0 + h];
            dt[i] = j->dt[h0 + h];
        }
        float *b = k->t->b + h * GDN_TILE, *a = k->t->a + h * GDN_TILE;
        gdn_delta_prep_args q = {.alpha = cpu_gdn_in_chunks(k) ? alpha : a,
                                 .beta = b,
                                 .g = cpu_gdn_in_chunks(k) ? a : NULL,
                                 .b = b,
                                 .a = a,
                                 .A_log = A,
                                 .dt_bias = dt,
                                 .n_tok = 1,
                                 .hv = (int32_t)k->n,
                                 .dk = (int32_t)j->dk};
        j->d->kern.delta_prep(&q);
    }
}

/* The state's rows from value channel c on, in a slot. */
static void *state_rows(const cpu_gdn_task *k, int64_t slot, int64_t c) {
    const gdn_tensor *s = k->j->ssm_state;
    return cpu_at(s, slot) + (k->g * k->j->r * k->j->dv + c) * s->stride[2];
}

/* Where the tile's first token has value channel c of core. */
static void *core_at(const cpu_gdn_task *k, int64_t c) {
    const cpu_gdn_job *j = k->j;
    return cpu_at(j->core, cpu_gdn_row(k->m, k->from)) +
           (k->g * j->r + c / j->dv) * j->core->stride[1] + c % j->dv * gdn_type_bytes(j->core->type);
}

static gdn_delta_args kernel_args(const cpu_gdn_task *k, int64_t c, int64_t n, float *S) {
    const cpu_gdn_job *j = k->j;
    const int64_t h = c / j->dv - k->c0 / j->dv;
    float *o = k->t->x + (c - k->c0);
    int64_t o_stride = j->max_c;
    if (cpu_gdn_writes_rows(k)) {
        o = core_at(k, c);
        o_stride = j->core->stride[0] / (int64_t)sizeof *o;
    }
    return (gdn_delta_args){.S = S,
                            .o = o,
                            .q = k->t->y,
                            .k = k->t->y + j->dk,
                            .v = k->t->y + 2 * j->dk + (c - k->c0),
                            .alpha = k->t->a + h * GDN_TILE,
                            .beta = k->t->b + h * GDN_TILE,
                            .o_stride = o_stride,
                            .q_stride = j->ld,
                            .k_stride = j->ld,
                            .v_stride = j->ld,
                            .gate_stride = 1,
                            .n_tok = (int32_t)k->n,
                            .dk = (int32_t)j->dk,
                            .dv = (int32_t)n,
                            .v0 = 0,
                            .v1 = (int32_t)n};
}

/* Numbers of a type from a row on: f32, or bf16 and no f32. */
static void rows_at(const void *p, int64_t at, gdn_type t, const float **f32, const uint16_t **bf16) {
    *f32 = t == GDN_F32 ? (const float *)p + at : NULL;
    *bf16 = t == GDN_BF16 ? (const uint16_t *)p + at : NULL;
}

/* The chunk's rows are those of q, k, v and core themselves, where that can be, or y's in bf16. */
static void rows_in_place(const cpu_gdn_task *k, gdn_delta_chunk_args *a, int64_t c, int64_t i) {
    const cpu_gdn_job *j = k->j;
    const int64_t bytes = gdn_type_bytes(j->act), from = k->m->token + k->from;
    if (cpu_gdn_reads_between(k)) {
        const char *v = cpu_at(j->v, from) + (k->g * j->r + c / j->dv) * j->v->stride[1];
        a->q_stride = j->q->stride[0] / bytes;
        a->k_stride = j->k->stride[0] / bytes;
        a->v_stride = j->v->stride[0] / bytes;
        rows_at(cpu_at(j->q, from) + k->g * j->q->stride[1], i * a->q_stride, j->act, &a->q,
                &a->q_bf16);
        rows_at(cpu_at(j->k, from) + k->g * j->k->stride[1], i * a->k_stride, j->act, &a->k,
                &a->k_bf16);
        rows_at(v, c % j->dv + i * a->v_stride, j->act, &a->v, &a->v_bf16);
    } else if (cpu_gdn_y_in_bf16(k)) {
        const int64_t row = i * j->ld;
        rows_at(k->t->y, row, GDN_BF16, &a->q, &a->q_bf16);
        rows_at(k->t->y, row + j->dk, GDN_BF16, &a->k, &a->k_bf16);
        rows_at(k->t->y, row + 2 * j->dk + (c - k->c0), GDN_BF16, &a->v, &a->v_bf16);
    }
    if (cpu_gdn_writes_rows(k)) {
        char *o = core_at(k, c);
        a->past = j->stream;
        a->o_stride = j->core->stride[0] / bytes;
        if (j->act == GDN_BF16) a->o_bf16 = (uint16_t *)(void *)o + i * a->o_stride;
        else a->o = (float *)(void *)o + i * a->o_stride;
    }
}

/* Value channels c .. c + n, all of one head, of n_tok tokens from i on of the tile, which are a
 * chunk; same: another head has just had them. */
static void chunk(const cpu_gdn_task *k, int64_t c, int64_t n, float *S, float *held, int64_t i,
                  int64_t n_tok, bool same, cpu_gdn_ahead *f) {
    const cpu_gdn_job *j = k->j;
    const float *y = k->t->y + i * j->ld;
    const int64_t gates = (c / j->dv - k->c0 / j->dv) * GDN_TILE + i;
    gdn_delta_chunk_args a = {.S = S,
                              .o = k->t->x + i * j->max_c + (c - k->c0),
                              .q = y,
                              .k = y + j->dk,
                              .v = y + 2 * j->dk + (c - k->c0),
                              .g = k->t->a + gates,
                              .beta = k->t->b + gates,
                              .held = held,
                              .work = k->t->chunk,
                              .o_stride = j->max_c,
                              .q_stride = j->ld,
                              .k_stride = j->ld,
                              .v_stride = j->ld,
                              .gate_stride = 1,
                              .n_tok = (int32_t)n_tok,
                              .dk = (int32_t)j->dk,
                              .dv = (int32_t)n,
                              .v0 = 0,
                              .v1 = (int32_t)n,
                              .bf16 = j->act == GDN_BF16,
                              .raw = true,
                              .first = k->from + i == 0,
                              .last = k->from + i + n_tok == k->m->n,
                              .same = same,
                              .aside = f->lines > 0 ? cpu_gdn_fetch_some : NULL,
                              .aside_arg = f};
    rows_in_place(k, &a, c, i);
    j->d->kern.delta_chunk(&a);
}

/* The state's rows from value channel c on while they are worked on: the pool itself when that is
 * f32, else f32 scratch: of a block when these tokens are all of the sequence and each block has
 * them in one go, of the part when not. */
static float *state_at(const cpu_gdn_task *k, int64_t c) {
    if (k->j->ssm_state->type == GDN_F32) return state_rows(k, k->m->slot, c);
    const bool all = k->from == 0 && k->n == k->m->n;
    return all && !cpu_gdn_in_chunks(k) ? k->t->S : k->t->S + (c - k->c0) * k->j->dk;
}
static float *state_in(const cpu_gdn_task *k, int64_t c, int64_t n) {
    const cpu_gdn_job *j = k->j;
    const gdn_type t = j->ssm_state->type;
    float *S = state_at(k, c);
    if (k->from > 0) return S;
    if (k->m->fresh) memset(S, 0, (size_t)(n * j->dk) * sizeof *S);
    else if (t != GDN_F32) cpu_gdn_load(j, S, state_rows(k, k->m->slot, c), n * j->dk, t);
    return S;
}
static void state_out(const cpu_gdn_task *k, int64_t c, int64_t n, const float *S) {
    const gdn_type t = k->j->ssm_state->type;
    if (t != GDN_F32 && k->from + k->n == k->m->n)
        cpu_gdn_store(k->j, state_rows(k, k->m->slot, c), S, n * k->j->dk, t);
}

static void plain(const cpu_gdn_task *k, int64_t c, int64_t n, cpu_gdn_ahead *f) {
    float *S = state_in(k, c, n);
    gdn_delta_args a = kernel_args(k, c, n, S);
    if (f->lines > 0 && k->n >= STEP) {
        a.aside = cpu_gdn_fetch_some;
        a.aside_arg = f;
    }
    k->j->d->kern.delta(&a);
    if (k->n < STEP) cpu_gdn_fetch_some(f);
    state_out(k, c, n, S);
}

/* A speculative sequence: the state after every token goes to that token's column. */
static void drafts(const cpu_gdn_task *k, int64_t c, int64_t n) {
    const cpu_gdn_job *j = k->j;
    const gdn_type t = j->ssm_state->type;
    float *S = k->t->S + (c - k->c0) * j->dk;
    if (k->from == 0) cpu_gdn_load(j, S, state_rows(k, k->m->read, c), n * j->dk, t);
    gdn_delta_args a = kernel_args(k, c, n, S);
    a.n_tok = 1;
    for (int64_t i = 0; i < k->n; i++) {
        j->d->kern.delta(&a);
        const int32_t slot = k->m->column[k->from + i];
        if (slot >= 0 && slot != j->null_slot)
            cpu_gdn_store(j, state_rows(k, slot, c), S, n * j->dk, t);
        a.o += a.o_stride;
        a.q += a.q_stride;
        a.k += a.k_stride;
        a.v += a.v_stride;
        a.alpha++;
        a.beta++;
    }
}

/* Channels from c on, at most so many, that lie in one head and in the part. */
static int64_t within_head(const cpu_gdn_task *k, int64_t c, int64_t most) {
    const int64_t head = k->j->dv - c % k->j->dv, part = k->c1 - c;
    const int64_t n = head < part ? head : part;
    return n < most ? n : most;
}

/* All heads of the part take a chunk in turn, because what depends on its keys and queries serves
 * them all; tiles end where chunks do. */
static void chunked(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    cpu_gdn_ahead f = cpu_gdn_what_follows(k);
    f.steps = (k->n * (k->c1 - k->c0) * GDN_DELTA_CHUNK_ASIDE) / (GDN_DELTA_CHUNK * GDN_BLOCK) + 1;
    for (int64_t i = 0, n_tok; i < k->n; i += n_tok) {
        float *held = k->t->held;
        n_tok = k->n - i < GDN_DELTA_CHUNK ? k->n - i : GDN_DELTA_CHUNK;
        for (int64_t c = k->c0, n; c < k->c1; c += n) {
            n = within_head(k, c, j->dv);
            float *S = i == 0 ? state_in(k, c, n) : state_at(k, c);
            chunk(k, c, n, S, held, i, n_tok, c > k->c0, &f);
            if (i + n_tok == k->n) state_out(k, c, n, S);
            held += gdn_delta_chunk_held((int32_t)j->dk, (int32_t)n) / sizeof *held;
        }
    }
}

void cpu_gdn_delta(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t h0 = k->c0 / j->dv;
    gates(k, (k->c1 - 1) / j->dv - h0 + 1, k->g * j->r + h0);
    if (cpu_gdn_in_chunks(k)) {
        chunked(k);
        return;
    }
    cpu_gdn_ahead f = cpu_gdn_what_follows(k);
    /* A block of the state stays in the first cache while it is copied; the kernel does not fetch
     * between few tokens, but its caller between blocks. */
    const bool few = k->n < STEP, cut = j->ssm_state->type != GDN_F32 || k->m->column != NULL;
    const int64_t most = cut || (few && f.lines > 0) ? GDN_BLOCK : j->dv;
    for (int64_t c = k->c0; c < k->c1; c += within_head(k, c, GDN_BLOCK))
        f.steps += few ? 1 : k->n / STEP;
    for (int64_t c = k->c0, n; c < k->c1; c += n) {
        n = within_head(k, c, most);
        if (k->m->column != NULL) drafts(k, c, n);
        else plain(k, c, n, &f);
    }
}
