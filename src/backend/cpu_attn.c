/* cpu_attn.c - causal attention over paged keys and values on the cpu.
 *
 * A task is a few neighbouring rows of one sequence under one key-value head; its queries (rows
 * times the heads of the group) meet the key blocks one after the other and are merged as they
 * go.  When there are fewer tasks than threads, as in generation, blocks are tasks instead: a
 * wave of them is computed in parallel and then merged in ascending order.  Both ways do the same
 * arithmetic in the same order (attn.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

enum {
    MAX_Q = 32,                         /* queries of a task                          */
    MAX_D = 256,
    TILES = GDN_ATTN_BLOCK / GDN_ATTN_TILE,
    WAVE = 16,                          /* records of a wave, for each thread         */
};

/* What a thread needs for MAX_Q queries. */
typedef struct {
    float M[MAX_Q], L[MAX_Q], m[MAX_Q], l[MAX_Q];
    float O[MAX_Q][MAX_D], o[MAX_Q][MAX_D];
    const void *q[MAX_Q], *k[TILES], *v[TILES];
    const float *gate[MAX_Q];
    void   *y[MAX_Q];
    int32_t n_valid[MAX_Q];
} attn_scratch;

uint64_t cpu_attention_scratch(void) { return sizeof(attn_scratch); }

typedef struct {
    const cpu_device *d;
    const gdn_attn_args *a;
    const int32_t *start, *past;
    int32_t group, rows;  /* query heads of a key head; rows of a task               */
    int64_t hkv, head_size, n_seq, n_tile;
    /* A wave: one sequence's single stretch of rows, blocks b0.. of every head. */
    int64_t seq, row0, n_row, b0, n_block;
    float  *wave;         /* [hkv][n_block] records of queries x (m, l, o)           */
} attn_job;

/* Point at the tiles of block b of head h, as far as n keys reach. */
static void block_tiles(const attn_job *j, attn_scratch *t, int64_t s, int64_t h, int64_t b,
                        int32_t n) {
    const gdn_attn_args *a = j->a;
    const int32_t *pages = (const int32_t *)(const void *)cpu_at(&a->kv.page, s);
    for (int32_t i = 0; i * GDN_ATTN_TILE < n; i++) {
        const int64_t pos = b * GDN_ATTN_BLOCK + i * GDN_ATTN_TILE;
        const int64_t page = pages[pos / a->kv.block_size], at = pos % a->kv.block_size;
        t->k[i] = cpu_at(&a->k_page, page) + h * a->k_page.stride[1] + at * a->k_page.stride[2];
        t->v[i] = cpu_at(&a->v_page, page) + h * a->v_page.stride[1] + at * a->v_page.stride[2];
    }
}

/* Queries of rows row0 .. row0 + n_row - 1 under head h: pointers and how many keys of block b
 * each sees.  Returns the most. */
static int32_t block_queries(const attn_job *j, attn_scratch *t, int64_t s, int64_t h, int64_t b,
                             int64_t row0, int64_t n_row) {
    const gdn_attn_args *a = j->a;
    int32_t most = 0;
    for (int64_t r = 0; r < n_row; r++) {
        const int64_t pos = j->past[s] + row0 + r - j->start[s];
        int64_t n = pos + 1 - b * GDN_ATTN_BLOCK;
        n = n < 0 ? 0 : n > GDN_ATTN_BLOCK ? GDN_ATTN_BLOCK : n;
        if (n > most) most = (int32_t)n;
        for (int32_t g = 0; g < j->group; g++) {
            const int64_t i = r * j->group + g;
            t->q[i] = cpu_at(&a->q, row0 + r) + (h * j->group + g) * a->q.stride[1];
            t->n_valid[i] = (int32_t)n;
        }
    }
    return most;
}

static void one_block(const attn_job *j, attn_scratch *t, int32_t n_q, float *m, float *l,
                      float *o, int64_t o_stride) {
    const gdn_attn_args *a = j->a;
    gdn_attn_block_args k = {
        .q = t->q,
        .k = t->k,
        .v = t->v,
        .n_valid = t->n_valid,
        .m = m,
        .l = l,
        .o = o,
        .k_stride = cpu_stride(&a->k_page, 2),
        .v_stride = cpu_stride(&a->v_page, 2),
        .o_stride = o_stride,
        .n_q = n_q,
        .d = (int32_t)j->head_size,
        .scale = a->scale,
        .bf16 = a->k_page.type == GDN_BF16,
    };
    j->d->kern.attn_block(&k);
}

static void merge_start(attn_scratch *t, int32_t n_q) {
    for (int32_t i = 0; i < n_q; i++) {
        t->M[i] = -INFINITY;
        t->L[i] = 0.0f;
        memset(t->O[i], 0, sizeof t->O[i]);
    }
}

static void merge(const attn_job *j, attn_scratch *t, int32_t n_q, const float *m,
                  const float *l, const float *o, int64_t o_stride) {
    gdn_attn_merge_args k = {.M = t->M,
                             .L = t->L,
                             .O = t->O[0],
                             .m = m,
                             .l = l,
                             .o = o,
                             .O_stride = MAX_D,
                             .o_stride = o_stride,
                             .n_q = n_q,
                             .d = (int32_t)j->head_size};
    j->d->kern.attn_merge(&k);
}

static void finish(const attn_job *j, attn_scratch *t, int64_t h, int64_t row0, int64_t n_row) {
    const gdn_attn_args *a = j->a;
    const bool gated = a->gate.buf != NULL;
    for (int64_t r = 0; r < n_row; r++)
        for (int32_t g = 0; g < j->group; g++) {
            const int64_t i = r * j->group + g, head = h * j->group + g;
            t->y[i] = cpu_at(&a->y, row0 + r) + head * a->y.stride[1];
            if (gated)
                t->gate[i] = (const float *)(const void *)(cpu_at(&a->gate, row0 + r) +
                                                           head * a->gate.stride[1]);
        }
    gdn_attn_finish_args k = {.y = t->y,
                              .gate = gated ? t->gate : NULL,
                              .L = t->L,
                              .O = t->O[0],
                              .O_stride = MAX_D,
                              .n_q = (int32_t)(n_row * j->group),
                              .d = (int32_t)j->head_size,
                              .y_bf16 = a->y.type == GDN_BF16};
    j->d->kern.attn_finish(&k);
}

/* Tasks of one sequence: stretches of its rows.  Late rows cost more than early ones, so
 * stretches are taken from both ends in turn and every thread gets some of each. */
static int64_t stretches(const attn_job *j, int64_t s) {
    return (j->start[s + 1] - j->start[s] + j->rows - 1) / j->rows;
}

static void tiles(void *arg, int64_t begin, int64_t end, int thread) {
    const attn_job *j = arg;
    attn_scratch *t = cpu_scratch(j->d, thread);
    for (int64_t i = begin; i < end; i++) {
        const int64_t h = i / j->n_tile;
        int64_t tile = i % j->n_tile, s = 0;
        while (tile >= stretches(j, s)) tile -= stretches(j, s++);
        const int64_t n = stretches(j, s);
        tile = tile % 2 == 0 ? tile / 2 : n - 1 - tile / 2;
        const int64_t row0 = j->start[s] + tile * j->rows;
        const int64_t left = j->start[s + 1] - row0, n_row = left < j->rows ? left : j->rows;
        const int32_t n_q = (int32_t)(n_row * j->group);
        const int64_t last = j->past[s] + row0 + n_row - 1 - j->start[s];
        merge_start(t, n_q);
        for (int64_t b = 0; b * GDN_ATTN_BLOCK <= last; b++) {
            block_tiles(j, t, s, h, b, block_queries(j, t, s, h, b, row0, n_row));
            one_block(j, t, n_q, t->m, t->l, t->o[0], MAX_D);
            merge(j, t, n_q, t->m, t->l, t->o[0], MAX_D);
        }
        finish(j, t, h, row0, n_row);
    }
}

/* A record of a wave: n_q times m, l, o. */
static int64_t record_floats(const attn_job *j) {
    return j->n_row * j->group * (2 + j->head_size);
}

static void wave_blocks(void *arg, int64_t begin, int64_t end, int thread) {
    const attn_job *j = arg;
    attn_scratch *t = cpu_scratch(j->d, thread);
    for (int64_t i = begin; i < end; i++) {
        const int64_t h = i / j->n_block, b = j->b0 + i % j->n_block;
        const int64_t n_q = j->n_row * j->group;
        float *m = j->wave + i * record_floats(j);
        block_tiles(j, t, j->seq, h, b, block_queries(j, t, j->seq, h, b, j->row0, j->n_row));
        one_block(j, t, (int32_t)n_q, m, m + n_q, m + 2 * n_q, j->head_size);
    }
}

/* One stretch of rows whose blocks are shared out.  There are fewer heads than threads here, so
 * that the running results of all heads fit the device's wave memory beside the records. */
static void waves(attn_job *j) {
    cpu_device *d = (cpu_device *)j->d;
    attn_scratch *run = d->wave;
    j->wave = (float *)(void *)(run + d->n_thread);
    const int64_t last = j->past[j->seq] + j->row0 + j->n_row - 1 - j->start[j->seq];
    const int64_t blocks = last / GDN_ATTN_BLOCK + 1;
    const int32_t n_q = (int32_t)(j->n_row * j->group);
    for (int64_t h = 0; h < j->hkv; h++) merge_start(run + h, n_q);
    const int64_t most = WAVE * d->n_thread / j->hkv;
    for (j->b0 = 0; j->b0 < blocks; j->b0 += j->n_block) {
        j->n_block = blocks - j->b0 < most ? blocks - j->b0 : most;
        cpu_run(d, j->hkv * j->n_block, 1e9, wave_blocks, j);
        for (int64_t h = 0; h < j->hkv; h++)
            for (int64_t b = 0; b < j->n_block; b++) {
                const float *m = j->wave + (h * j->n_block + b) * record_floats(j);
                merge(j, run + h, n_q, m, m + n_q, m + 2 * n_q, j->head_size);
            }
    }
    for (int64_t h = 0; h < j->hkv; h++) finish(j, run + h, h, j->row0, j->n_row);
}

uint64_t cpu_attention_wave(int n_thread) {
    return (uint64_t)n_thread *
           (sizeof(attn_scratch) + WAVE * MAX_Q * (2 + MAX_D) * sizeof(float));
}

gdn_status cpu_op_attn(gdn_queue *q, const gdn_attn_args *a, gdn_err *err) {
    cpu_device *d = cpu_of(q);
    attn_job j = {.d = d,
                  .a = a,
                  .start = gdn_tensor_host(&a->kv.seq_start),
                  .past = gdn_tensor_host(&a->kv.n_past),
                  .hkv = a->k_page.shape[1],
                  .head_size = a->k_page.shape[3],
                  .n_seq = a->kv.n_past.shape[0]};
    j.group = (int32_t)(a->q.shape[1] / j.hkv);
    if (j.group > MAX_Q)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "attention: %d query heads on one key head, at "
                        "most %d are built in", j.group, MAX_Q);
    j.rows = MAX_Q / j.group;
    for (int64_t s = 0; s < j.n_seq; s++) j.n_tile += stretches(&j, s);
    if (j.hkv * j.n_tile >= d->n_thread) {
        cpu_run(d, j.hkv * j.n_tile, 1e9, tiles, &j);
        return GDN_OK;
    }
    for (j.seq = 0; j.seq < j.n_seq; j.seq++)
        for (j.row0 = j.start[j.seq]; j.row0 < j.start[j.seq + 1]; j.row0 += j.n_row) {
            const int64_t left = j.start[j.seq + 1] - j.row0;
            j.n_row = left < j.rows ? left : j.rows;
            waves(&j);
        }
    return GDN_OK;
}
