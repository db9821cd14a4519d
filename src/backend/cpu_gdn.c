/* cpu_gdn.c - the Gated DeltaNet core on the cpu: convolution, gates, delta rule.
 *
 * Three regions a call: channels are independent in the convolution, rows in the gates, and rows
 * of a head's state in the delta rule, so one long sequence and many short ones both fill the
 * threads. */
#include "cpu.h"

enum {
    CHANNELS = 512, /* of a convolution task */
    STATE_ROWS = 32 /* of a delta-rule task: 16 KiB of state at dk 128 */
};

typedef struct {
    const gdn_kern *kern;
    const gdn_core_args *a;
    const int32_t *start, *slot, *has_state;
    int64_t C, hv, dv, hk, dk;
    int64_t chunks; /* tasks of one sequence */
} core_job;

static void conv(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const core_job *j = arg;
    const gdn_core_args *a = j->a;
    for (int64_t i = begin; i < end; i++) {
        const int64_t s = i / j->chunks, c = i % j->chunks * CHANNELS;
        const int32_t n = j->start[s + 1] - j->start[s];
        if (n == 0) continue;
        gdn_conv_args k = {
            .y = (float *)(void *)cpu_at(&a->work_qkv, j->start[s]),
            .x = (const float *)(const void *)cpu_at(&a->qkv, j->start[s]),
            .state = cpu_at(&a->conv_state, j->slot[s]),
            .w = gdn_tensor_host(&a->conv_w),
            .bias = gdn_tensor_host(&a->conv_bias),
            .y_stride = cpu_stride(&a->work_qkv, 0),
            .x_stride = cpu_stride(&a->qkv, 0),
            .state_stride = cpu_stride(&a->conv_state, 1),
            .n_tok = n,
            .C = (int32_t)j->C,
            .c0 = (int32_t)c,
            .c1 = (int32_t)(c + CHANNELS < j->C ? c + CHANNELS : j->C),
            .W = (int32_t)a->conv_w.shape[0],
            .state_bf16 = a->conv_state.type == GDN_BF16,
            .has_state = j->has_state[s] != 0,
        };
        j->kern->conv(&k);
    }
}

static void gates(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const core_job *j = arg;
    const gdn_core_args *a = j->a;
    float *q = (float *)(void *)cpu_at(&a->work_qkv, begin);
    float *alpha = (float *)(void *)cpu_at(&a->work_gate, begin);
    gdn_delta_prep_args k = {
        .q = q,
        .k = q + j->hk * j->dk,
        .alpha = alpha,
        .beta = alpha + j->hv,
        .b = (const float *)(const void *)cpu_at(&a->b, begin),
        .a = (const float *)(const void *)cpu_at(&a->a, begin),
        .A_log = gdn_tensor_host(&a->A_log),
        .dt_bias = gdn_tensor_host(&a->dt_bias),
        .qk_stride = cpu_stride(&a->work_qkv, 0),
        .gate_stride = cpu_stride(&a->work_gate, 0),
        .ba_stride = cpu_stride(&a->b, 0),
        .n_tok = (int32_t)(end - begin),
        .hk = (int32_t)j->hk,
        .hv = (int32_t)j->hv,
        .dk = (int32_t)j->dk,
    };
    j->kern->delta_prep(&k);
}

static void delta(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const core_job *j = arg;
    const gdn_core_args *a = j->a;
    const int64_t groups = (j->dv + STATE_ROWS - 1) / STATE_ROWS;
    for (int64_t i = begin; i < end; i++) {
        const int64_t s = i / j->chunks, h = i % j->chunks / groups, v0 = i % groups * STATE_ROWS;
        const int32_t n = j->start[s + 1] - j->start[s], row = j->start[s];
        if (n == 0) continue;
        const int64_t v1 = v0 + STATE_ROWS < j->dv ? v0 + STATE_ROWS : j->dv;
        float *S = (float *)(void *)(cpu_at(&a->ssm_state, j->slot[s]) + h * a->ssm_state.stride[1]);
        if (j->has_state[s] == 0)
            for (int64_t e = v0 * j->dk; e < v1 * j->dk; e++) S[e] = 0.0f;
        const float *qkv = (const float *)(const void *)cpu_at(&a->work_qkv, row);
        const float *gate = (const float *)(const void *)cpu_at(&a->work_gate, row);
        const int64_t kh = h / (j->hv / j->hk);
        gdn_delta_args k = {
            .S = S,
            .o = (float *)(void *)(cpu_at(&a->core, row) + h * a->core.stride[1]),
            .q = qkv + kh * j->dk,
            .k = qkv + (j->hk + kh) * j->dk,
            .v = qkv + 2 * j->hk * j->dk + h * j->dv,
            .alpha = gate + h,
            .beta = gate + j->hv + h,
            .o_stride = cpu_stride(&a->core, 0),
            .q_stride = cpu_stride(&a->work_qkv, 0),
            .k_stride = cpu_stride(&a->work_qkv, 0),
            .v_stride = cpu_stride(&a->work_qkv, 0),
            .gate_stride = cpu_stride(&a->work_gate, 0),
            .n_tok = n,
            .dk = (int32_t)j->dk,
            .dv = (int32_t)j->dv,
            .v0 = (int32_t)v0,
            .v1 = (int32_t)v1,
        };
        j->kern->delta(&k);
    }
}

gdn_status cpu_op_gdn_core(gdn_queue *q, const gdn_core_args *a, gdn_err *err) {
    if (a->ssm_state.stride[2] != (int64_t)a->dk * 4)
        return gdn_fail(err, GDN_E_INVALID, "gdn_core: rows of ssm_state are not dense");
    if (a->a.stride[0] != a->b.stride[0])
        return gdn_fail(err, GDN_E_INVALID, "gdn_core: a and b have different row strides");
    cpu_device *d = cpu_of(q);
    core_job j = {.kern = &d->kern,
                  .a = a,
                  .start = gdn_tensor_host(&a->seq_start),
                  .slot = gdn_tensor_host(&a->slot),
                  .has_state = gdn_tensor_host(&a->has_state),
                  .C = a->qkv.shape[1],
                  .hv = a->core.shape[1],
                  .dv = a->core.shape[2],
                  .hk = a->hk,
                  .dk = a->dk};
    const int64_t n_seq = a->slot.shape[0], n_row = j.start[n_seq];
    j.chunks = (j.C + CHANNELS - 1) / CHANNELS;
    cpu_run(d, n_seq * j.chunks, (double)(n_row * j.C), conv, &j);
    cpu_run(d, n_row, (double)n_row * (double)(2 * j.hk * j.dk) * 0.3, gates, &j);
    j.chunks = j.hv * ((j.dv + STATE_ROWS - 1) / STATE_ROWS);
    cpu_run(d, n_seq * j.chunks, (double)n_row * (double)(j.hv * j.dv) * (double)j.dk * 0.1, delta,
            &j);
    return GDN_OK;
}
