/* cpu_gdn_delta.c - gates and delta rule of gdn_attention, on states of any type. */
#include <string.h>

#include "cpu_gdn_stage.h"

enum {
    STEP = 8,            /* tokens of a recurrent kernel's call where others are fetched */
    CHUNKED_FROM = 16    /* tokens: shorter sequences gain nothing from chunks                 */
};

static bool in_chunks(const cpu_gdn_task *k) {
    return k->j->form == GDN_FORM_CHUNKED && k->m->column == NULL && k->m->n >= CHUNKED_FROM;
}

/* Query and key to their norms, b and a to write strength and decay (chunks: its logarithm), in
 * place.  Tokens lie in the lanes that the kernel has for heads. */
static void gates(const cpu_gdn_task *k, int64_t n_head, int64_t h0) {
    const cpu_gdn_job *j = k->j;
    gdn_delta_prep_args p = {.q = k->t->y,
                             .k = k->t->y + j->dk,
                             .qk_stride = j->ld,
                             .n_tok = (int32_t)k->n,
                             .hk = 1,
                             .dk = (int32_t)j->dk};
    j->d->kern.delta_prep(&p);
    for (int64_t h = 0; h < n_head; h++) {
        float A[GDN_TILE], dt[GDN_TILE], alpha[GDN_TILE];
        for (int64_t i = 0; i < k->n; i++) {
            A[i] = ((const float *)gdn_tensor_host(j->A_log))[h0 + h];
            dt[i] = j->dt[h0 + h];
        }
        float *b = k->t->b + h * GDN_TILE, *a = k->t->a + h * GDN_TILE;
        gdn_delta_prep_args q = {.alpha = in_chunks(k) ? alpha : a,
                                 .beta = b,
                                 .g = in_chunks(k) ? a : NULL,
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

static gdn_delta_args kernel_args(const cpu_gdn_task *k, int64_t c, int64_t n, float *S) {
    const cpu_gdn_job *j = k->j;
    const int64_t h = c / j->dv - k->c0 / j->dv;
    return (gdn_delta_args){.S = S,
                            .o = k->t->x + (c - k->c0),
                            .q = k->t->y,
                            .k = k->t->y + j->dk,
                            .v = k->t->y + 2 * j->dk + (c - k->c0),
                            .alpha = k->t->a + h * GDN_TILE,
                            .beta = k->t->b + h * GDN_TILE,
                            .o_stride = j->max_c,
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

/* Asking for the next tile, of this task or the next, spread over this one's work: in one go the
 * rows would only wait for each other. */
typedef struct {
    const cpu_gdn_task *task;
    int64_t lines, from; /* rows of history, and the first token after them                */
    int64_t n;           /* both together                                                  */
    int64_t step, steps; /* of this tile's work                                            */
} ahead;

static ahead what_follows(const cpu_gdn_task *k) {
    const int64_t from = k->from + k->n, left = k->m->n - from;
    if (left > 0)
        return (ahead){.task = k, .from = from, .n = left < GDN_TILE ? left : GDN_TILE};
    /* A long sequence does not gain from it: its tiles fill the cache. */
    if (k->next == NULL || k->next->m->none || k->from > 0) return (ahead){.n = 0};
    const cpu_gdn_member *m = k->next->m;
    const int64_t lines = k->j->qkvz != NULL && !m->fresh ? k->j->W - 1 : 0;
    return (ahead){.task = k->next,
                   .lines = lines,
                   .n = lines + (m->n < GDN_TILE ? m->n : GDN_TILE)};
}

static void fetch_some(ahead *f) {
    const int64_t begin = f->n * f->step / f->steps;
    const int64_t end = f->n * ++f->step / f->steps;
    for (int64_t i = begin; i < end; i++)
        if (i < f->lines) cpu_gdn_fetch_line(f->task, i);
        else cpu_gdn_fetch(f->task, f->from + i - f->lines);
}

/* All tokens of the tile, STEP at a time where there are others to be fetched. */
static void recurrent(const cpu_gdn_task *k, gdn_delta_args a, ahead *f) {
    const int32_t n = a.n_tok;
    const int32_t step = f->n > 0 ? STEP : n;
    for (int32_t i = 0; i < n; i += step) {
        a.n_tok = n - i < step ? n - i : step;
        k->j->d->kern.delta(&a);
        if (f->n > 0) fetch_some(f);
        a.o += step * a.o_stride;
        a.q += step * a.q_stride;
        a.k += step * a.k_stride;
        a.v += step * a.v_stride;
        a.alpha += step;
        a.beta += step;
    }
}

/* The same in chunks; tiles end where chunks do. */
static void chunked(const cpu_gdn_task *k, gdn_delta_args a, ahead *f) {
    gdn_delta_chunk_args c = {.S = a.S,
                              .work = k->t->chunk,
                              .o_stride = a.o_stride,
                              .q_stride = a.q_stride,
                              .k_stride = a.k_stride,
                              .v_stride = a.v_stride,
                              .gate_stride = a.gate_stride,
                              .dk = a.dk,
                              .dv = a.dv,
                              .v0 = a.v0,
                              .v1 = a.v1,
                              .bf16 = k->j->act == GDN_BF16};
    for (int32_t i = 0; i < a.n_tok; i += c.n_tok) {
        c.n_tok = a.n_tok - i < GDN_DELTA_CHUNK ? a.n_tok - i : GDN_DELTA_CHUNK;
        c.o = a.o + i * a.o_stride;
        c.q = a.q + i * a.q_stride;
        c.k = a.k + i * a.k_stride;
        c.v = a.v + i * a.v_stride;
        c.g = a.alpha + i;
        c.beta = a.beta + i;
        k->j->d->kern.delta_chunk(&c);
        if (f->n > 0) fetch_some(f);
    }
}

/* n value channels of one head from c on.  The state is the pool itself when that is f32, else
 * f32 scratch: of a block when the sequence ends with these tokens, of the part when not. */
static void plain(const cpu_gdn_task *k, int64_t c, int64_t n, ahead *f) {
    const cpu_gdn_job *j = k->j;
    const gdn_type t = j->ssm_state->type;
    const bool first = k->from == 0, last = k->from + k->n == k->m->n;
    void *pool = state_rows(k, k->m->slot, c);
    float *S = t == GDN_F32    ? pool
               : first && last ? k->t->S
                               : k->t->S + (c - k->c0) * j->dk;
    if (first && k->m->fresh) memset(S, 0, (size_t)(n * j->dk) * sizeof *S);
    else if (first && t != GDN_F32) cpu_gdn_load(j, S, pool, n * j->dk, t);
    if (in_chunks(k)) chunked(k, kernel_args(k, c, n, S), f);
    else recurrent(k, kernel_args(k, c, n, S), f);
    if (t != GDN_F32 && last) cpu_gdn_store(j, pool, S, n * j->dk, t);
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

void cpu_gdn_delta(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t h0 = k->c0 / j->dv;
    gates(k, (k->c1 - 1) / j->dv - h0 + 1, k->g * j->r + h0);
    ahead f = what_follows(k);
    /* A block of the state stays in the first cache while it is copied or tokens are fetched; a
     * chunk pays for its products between tokens once a call. */
    const bool cut = j->ssm_state->type != GDN_F32 || k->m->column != NULL || f.n > 0;
    const int64_t most = cut && !in_chunks(k) ? GDN_BLOCK : j->dv;
    const int64_t step = in_chunks(k) ? GDN_DELTA_CHUNK : STEP;
    for (int64_t c = k->c0; c < k->c1; c += within_head(k, c, most))
        f.steps += (k->n + step - 1) / step;
    for (int64_t c = k->c0, n; c < k->c1; c += n) {
        n = within_head(k, c, most);
        if (k->m->column != NULL) drafts(k, c, n);
        else plain(k, c, n, &f);
    }
}
