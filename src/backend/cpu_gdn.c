/* cpu_gdn.c - the Gated DeltaNet core on the cpu: convolution, gates, delta rule.
 *
 * Three regions a call: channels are independent in the convolution, rows in the gates, and rows
 * of a head's state in the delta rule, so one long sequence and many short ones both fill the
 * threads.
 *
 * Rows that a sequence commits from its line lie behind the call's own rows in the work tensors.
 * Every part of a state sees its committed rows, then its own rows, in one task: the state is
 * read and written once.  A line is replaced when nothing reads it any more: q | k | v by the
 * convolution's task, which is the only one to read these channels, b and a in the last region. */
#include <string.h>

#include "cpu.h"

enum {
    CHANNELS = 512,  /* of a convolution task                           */
    STATE_ROWS = 32, /* of a delta-rule task: 16 KiB of state at dk 128 */
    MAX_DK = 256,
    MAX_W = 8
};

typedef struct {
    const cpu_device *d;
    const gdn_kern *kern;
    const gdn_core_args *a;
    const int32_t *start, *slot, *has_state;
    const int32_t *line, *commit, *keep, *spare; /* NULL without lines */
    int64_t C, hv, dv, hk, dk, K;
    int64_t n_own, n_row; /* rows of sequences; first work row of committed ones */
    int64_t chunks;       /* tasks of one sequence */
} core_job;

/* A part of the state for guesses, and the outputs of committed rows, which nobody wants. */
typedef struct {
    float S[STATE_ROWS * MAX_DK];
    float o[STATE_ROWS];
} delta_scratch;

uint64_t cpu_core_scratch(void) {
    const uint64_t conv = (MAX_W - 1) * CHANNELS * sizeof(float);
    return conv > sizeof(delta_scratch) ? conv : sizeof(delta_scratch);
}

static int32_t own_rows(const core_job *j, int64_t s) { return j->start[s + 1] - j->start[s]; }
static int32_t committed(const core_job *j, int64_t s) {
    return j->commit != NULL ? j->commit[s] : 0;
}
/* Own rows that are folded into the state, before the guesses. */
static int32_t certain(const core_job *j, int64_t s) {
    const int32_t n = own_rows(j, s);
    return j->keep != NULL && j->keep[s] != 0 && n > 1 ? 1 : n;
}
/* The slot that takes what guesses leave, -1 none. */
static int32_t spare(const core_job *j, int64_t s) { return j->spare != NULL ? j->spare[s] : -1; }
static int64_t commit_row(const core_job *j, int64_t s) { return j->n_row + s * j->K; }
static float *line_row(const core_job *j, int64_t s, int64_t i) {
    return (float *)(void *)(cpu_at(&j->a->line, j->line[s]) + i * j->a->line.stride[1]);
}

/* --- convolution --------------------------------------------------------------------- */

/* Run k's rows, guesses, on a copy of the state, and put their inputs into the sequence's line. */
static void conv_guesses(const core_job *j, int64_t s, gdn_conv_args k, void *scratch) {
    const int64_t n = k.c1 - k.c0, size = k.state_bf16 ? 2 : 4, stride = k.state_stride;
    const char *from = (const char *)k.state + k.c0 * size;
    k.y += k.c0;
    k.x += k.c0;
    k.w += k.c0;
    if (k.bias != NULL) k.bias += k.c0;
    if (spare(j, s) >= 0) {
        k.state = cpu_at(&j->a->conv_state, spare(j, s)) + k.c0 * size;
    } else {
        k.state = scratch;
        k.state_stride = CHANNELS;
    }
    for (int64_t r = 0; r < k.W - 1; r++)
        memcpy((char *)k.state + r * k.state_stride * size, from + r * stride * size,
               (size_t)(n * size));
    for (int64_t i = 0; i < k.n_tok; i++)
        memcpy(line_row(j, s, i) + k.c0, k.x + i * k.x_stride, (size_t)n * sizeof(float));
    k.c0 = 0;
    k.c1 = (int32_t)n;
    k.has_state = true;
    j->kern->conv(&k);
}

static void conv(void *arg, int64_t begin, int64_t end, int thread) {
    const core_job *j = arg;
    const gdn_core_args *a = j->a;
    for (int64_t i = begin; i < end; i++) {
        const int64_t s = i / j->chunks, c = i % j->chunks * CHANNELS;
        const int32_t n = own_rows(j, s), n_commit = committed(j, s);
        if (n == 0 && n_commit == 0) continue;
        gdn_conv_args k = {
            .state = cpu_at(&a->conv_state, j->slot[s]),
            .w = gdn_tensor_host(&a->conv_w),
            .bias = gdn_tensor_host(&a->conv_bias),
            .y_stride = cpu_stride(&a->work_qkv, 0),
            .state_stride = cpu_stride(&a->conv_state, 1),
            .C = (int32_t)j->C,
            .c0 = (int32_t)c,
            .c1 = (int32_t)(c + CHANNELS < j->C ? c + CHANNELS : j->C),
            .W = (int32_t)a->conv_w.shape[0],
            .state_bf16 = a->conv_state.type == GDN_BF16,
            .has_state = j->has_state[s] != 0,
        };
        if (n_commit > 0) {
            k.y = (float *)(void *)cpu_at(&a->work_qkv, commit_row(j, s));
            k.x = line_row(j, s, 0);
            k.x_stride = cpu_stride(&a->line, 1);
            k.n_tok = n_commit;
            j->kern->conv(&k);
        }
        if (n == 0) continue;
        k.y = (float *)(void *)cpu_at(&a->work_qkv, j->start[s]);
        k.x = (const float *)(const void *)cpu_at(&a->qkv, j->start[s]);
        k.x_stride = cpu_stride(&a->qkv, 0);
        k.n_tok = certain(j, s);
        j->kern->conv(&k);
        if (k.n_tok == n) continue;
        k.y += k.y_stride;
        k.x += k.x_stride;
        k.n_tok = n - 1;
        conv_guesses(j, s, k, cpu_scratch(j->d, thread));
    }
}

/* --- gates --------------------------------------------------------------------------- */

/* n work rows from row on, with the raw gates b and a of the first. */
static void gate_rows(const core_job *j, int64_t row, int64_t n, const float *b, const float *a,
                      int64_t ba_stride) {
    float *q = (float *)(void *)cpu_at(&j->a->work_qkv, row);
    float *alpha = (float *)(void *)cpu_at(&j->a->work_gate, row);
    const gdn_delta_prep_args k = {
        .q = q,
        .k = q + j->hk * j->dk,
        .alpha = alpha,
        .beta = alpha + j->hv,
        .b = b,
        .a = a,
        .A_log = gdn_tensor_host(&j->a->A_log),
        .dt_bias = gdn_tensor_host(&j->a->dt_bias),
        .qk_stride = cpu_stride(&j->a->work_qkv, 0),
        .gate_stride = cpu_stride(&j->a->work_gate, 0),
        .ba_stride = ba_stride,
        .n_tok = (int32_t)n,
        .hk = (int32_t)j->hk,
        .hv = (int32_t)j->hv,
        .dk = (int32_t)j->dk,
    };
    j->kern->delta_prep(&k);
}

/* Tasks are the own rows, then K for each sequence, of which it may commit fewer. */
static void gates(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const core_job *j = arg;
    const gdn_core_args *a = j->a;
    if (begin < j->n_own) {
        const int64_t stop = end < j->n_own ? end : j->n_own;
        gate_rows(j, begin, stop - begin, (const float *)(const void *)cpu_at(&a->b, begin),
                  (const float *)(const void *)cpu_at(&a->a, begin), cpu_stride(&a->b, 0));
        begin = stop;
    }
    while (begin < end) {
        const int64_t s = (begin - j->n_own) / j->K, i = (begin - j->n_own) % j->K;
        const int64_t stop = j->K - i < end - begin ? j->K : i + end - begin;
        const int64_t n = (committed(j, s) < stop ? committed(j, s) : stop) - i;
        if (n > 0) {
            const float *b = line_row(j, s, i) + j->C;
            gate_rows(j, commit_row(j, s) + i, n, b, b + j->hv, cpu_stride(&a->line, 1));
        }
        begin += stop - i;
    }
}

/* --- delta rule ---------------------------------------------------------------------- */

/* Head h on state rows v0 <= j < v1, with q, k, v and gates from a work row on; the kernel counts
 * its rows from 0. */
static gdn_delta_args delta_args(const core_job *j, int64_t row, int64_t h, int64_t v0,
                                 int64_t v1) {
    const gdn_core_args *a = j->a;
    const float *qkv = (const float *)(const void *)cpu_at(&a->work_qkv, row);
    const float *gate = (const float *)(const void *)cpu_at(&a->work_gate, row);
    const int64_t kh = h / (j->hv / j->hk);
    return (gdn_delta_args){
        .q = qkv + kh * j->dk,
        .k = qkv + (j->hk + kh) * j->dk,
        .v = qkv + 2 * j->hk * j->dk + h * j->dv + v0,
        .alpha = gate + h,
        .beta = gate + j->hv + h,
        .q_stride = cpu_stride(&a->work_qkv, 0),
        .k_stride = cpu_stride(&a->work_qkv, 0),
        .v_stride = cpu_stride(&a->work_qkv, 0),
        .gate_stride = cpu_stride(&a->work_gate, 0),
        .dk = (int32_t)j->dk,
        .dv = (int32_t)j->dv,
        .v0 = 0,
        .v1 = (int32_t)(v1 - v0),
    };
}

static void keep_gates(const core_job *j, int64_t s) {
    const size_t bytes = (size_t)j->hv * sizeof(float);
    for (int64_t i = 1; i < own_rows(j, s); i++) {
        float *to = line_row(j, s, i - 1) + j->C;
        memcpy(to, cpu_at(&j->a->b, j->start[s] + i), bytes);
        memcpy(to + j->hv, cpu_at(&j->a->a, j->start[s] + i), bytes);
    }
}

/* Rows v0 .. of head h of a state. */
static float *state_at(const core_job *j, int64_t slot, int64_t h, int64_t v0) {
    const gdn_tensor *t = &j->a->ssm_state;
    return (float *)(void *)(cpu_at(t, slot) + h * t->stride[1]) + v0 * j->dk;
}

static void delta(void *arg, int64_t begin, int64_t end, int thread) {
    const core_job *j = arg;
    const gdn_core_args *a = j->a;
    delta_scratch *own = cpu_scratch(j->d, thread);
    const int64_t groups = (j->dv + STATE_ROWS - 1) / STATE_ROWS;
    for (int64_t i = begin; i < end; i++) {
        const int64_t s = i / j->chunks, h = i % j->chunks / groups, v0 = i % groups * STATE_ROWS;
        const int32_t n = own_rows(j, s), n_commit = committed(j, s), row = j->start[s];
        if (n == 0 && n_commit == 0) continue;
        const int64_t v1 = v0 + STATE_ROWS < j->dv ? v0 + STATE_ROWS : j->dv;
        const size_t bytes = (size_t)((v1 - v0) * j->dk) * sizeof(float);
        float *S = state_at(j, j->slot[s], h, v0);
        if (n_commit > 0) {
            gdn_delta_args k = delta_args(j, commit_row(j, s), h, v0, v1);
            k.S = S;
            k.o = own->o; /* a stride of 0 */
            k.n_tok = n_commit;
            j->kern->delta(&k);
        }
        if (n == 0) continue;
        if (j->has_state[s] == 0) memset(S, 0, bytes);
        gdn_delta_args k = delta_args(j, row, h, v0, v1);
        k.S = S;
        k.o = (float *)(void *)(cpu_at(&a->core, row) + h * a->core.stride[1]) + v0;
        k.o_stride = cpu_stride(&a->core, 0);
        k.n_tok = certain(j, s);
        j->kern->delta(&k);
        if (k.n_tok == n) continue;
        if (i % j->chunks == 0) keep_gates(j, s);
        k = delta_args(j, row + 1, h, v0, v1);
        k.S = memcpy(spare(j, s) >= 0 ? state_at(j, spare(j, s), h, v0) : own->S, S, bytes);
        k.o = (float *)(void *)(cpu_at(&a->core, row + 1) + h * a->core.stride[1]) + v0;
        k.o_stride = cpu_stride(&a->core, 0);
        k.n_tok = n - 1;
        j->kern->delta(&k);
    }
}

gdn_status cpu_op_gdn_core(gdn_queue *q, const gdn_core_args *a, gdn_err *err) {
    if (a->ssm_state.stride[2] != (int64_t)a->dk * 4)
        return gdn_fail(err, GDN_E_INVALID, "gdn_core: rows of ssm_state are not dense");
    if (a->a.stride[0] != a->b.stride[0])
        return gdn_fail(err, GDN_E_INVALID, "gdn_core: a and b have different row strides");
    cpu_device *d = cpu_of(q);
    core_job j = {.d = d,
                  .kern = &d->kern,
                  .a = a,
                  .start = gdn_tensor_host(&a->seq_start),
                  .slot = gdn_tensor_host(&a->slot),
                  .has_state = gdn_tensor_host(&a->has_state),
                  .line = gdn_tensor_host(&a->line_index),
                  .commit = gdn_tensor_host(&a->n_commit),
                  .keep = gdn_tensor_host(&a->keep),
                  .spare = gdn_tensor_host(&a->spare),
                  .C = a->qkv.shape[1],
                  .hv = a->core.shape[1],
                  .dv = a->core.shape[2],
                  .hk = a->hk,
                  .dk = a->dk,
                  .n_row = a->core.shape[0]};
    const int64_t n_seq = a->slot.shape[0];
    int64_t n_run = j.n_own = j.start[n_seq];
    for (int64_t s = 0; s < n_seq; s++) n_run += committed(&j, s);
    /* With nothing to commit there are no tasks for it. */
    j.K = a->line.buf != NULL ? a->line.shape[1] : 0;
    const int64_t n_gate = j.n_own + (n_run > j.n_own ? n_seq * j.K : 0);
    j.chunks = (j.C + CHANNELS - 1) / CHANNELS;
    cpu_run(d, n_seq * j.chunks, (double)(n_run * j.C), conv, &j);
    cpu_run(d, n_gate, (double)n_run * (double)(2 * j.hk * j.dk) * 0.3, gates, &j);
    j.chunks = j.hv * ((j.dv + STATE_ROWS - 1) / STATE_ROWS);
    cpu_run(d, n_seq * j.chunks, (double)n_run * (double)(j.hv * j.dv) * (double)j.dk * 0.1, delta,
            &j);
    return GDN_OK;
}
