/* xpu_gdn.c - the Gated DeltaNet core on the xpu: one launch for few tokens, else two, convolution
 * with gates and delta rule (gdn_xpu.cl). */
#include "xpu_gdn.h"

/* What gdn_xpu.cl has as CORE_SEQ. */
static void sequences(xpu_call *c, const gdn_core_args *a) {
    const bool lines = a->line.buf != NULL;
    xpu_faults(c);
    xpu_tensor(c, &a->seq_start, 0);
    xpu_tensor(c, &a->slot, 0);
    xpu_tensor(c, &a->has_state, 0);
    xpu_tensor(c, &a->line_index, 0);
    xpu_tensor(c, &a->n_commit, 0);
    xpu_tensor(c, &a->keep, 0);
    xpu_tensor(c, &a->spare, 0);
    xpu_int(c, a->core.shape[0]);
    xpu_int(c, a->conv_state.shape[0]);
    xpu_int(c, lines ? a->line.shape[0] : 0);
    xpu_int(c, lines ? a->line.shape[1] : 0);
    xpu_int(c, a->spare.buf != NULL);
}

static gdn_status conv(gdn_queue *q, const gdn_core_args *a, gdn_err *err) {
    const int64_t C = a->qkv.shape[1], hv = a->core.shape[1];
    xpu_call c = xpu_begin(q, "gdn", "core_conv");
    sequences(&c, a);
    xpu_tensor(&c, &a->work_qkv, 1);
    xpu_tensor(&c, &a->qkv, 1);
    xpu_tensor(&c, &a->work_gate, 1);
    xpu_tensor(&c, &a->b, 1);
    xpu_tensor(&c, &a->a, 1);
    xpu_tensor(&c, &a->conv_state, 2);
    xpu_tensor(&c, &a->conv_w, 0);
    xpu_tensor(&c, &a->conv_bias, 0);
    xpu_tensor(&c, &a->A_log, 0);
    xpu_tensor(&c, &a->dt_bias, 0);
    xpu_tensor(&c, &a->line, 2);
    xpu_int(&c, C);
    xpu_int(&c, hv);
    xpu_int(&c, a->conv_w.shape[0]);
    xpu_int(&c, a->conv_state.type);
    xpu_int(&c, a->conv_bias.buf != NULL);
    xpu_int(&c, a->slot.shape[0]);
    const int64_t groups[3] = {(C + hv + XPU_GDN_CHANNELS - 1) / XPU_GDN_CHANNELS,
                               xpu_gdn_conv_groups(a->slot.shape[0], a->core.shape[0]), 1};
    const int local[3] = {XPU_GDN_CHANNELS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

/* Tokens that a work-group of core_step has room for, 0 where it does not fit. */
static int64_t step_room(const gdn_core_args *a) {
    enum { BYTES = 26 * 1024, MOST = 16 };
    const int64_t r = a->core.shape[1] / a->hk, dv = a->core.shape[2];
    const int64_t fit = BYTES / ((2 * a->dk + r * dv + 2 * r) * (int64_t)sizeof(float));
    const int64_t room = fit < MOST ? fit : MOST;
    const int64_t K = a->line.buf != NULL ? a->line.shape[1] : 0;
    /* What a line brings and guesses with their first row do not wait for a second round. */
    return K > 0 && room < 2 * K + 1 ? 0 : room;
}

static gdn_status step(gdn_queue *q, const gdn_core_args *a, int64_t room, gdn_err *err) {
    const int64_t hv = a->core.shape[1], dv = a->core.shape[2], r = hv / a->hk;
    const xpu_gdn_rows rows = xpu_gdn_state_rows(a->dk, dv, XPU_GDN_STEP_ITEMS);
    xpu_call c = xpu_begin(q, "gdn", "core_step");
    sequences(&c, a);
    xpu_tensor(&c, &a->core, 2);
    xpu_tensor(&c, &a->qkv, 1);
    xpu_tensor(&c, &a->b, 1);
    xpu_tensor(&c, &a->a, 1);
    xpu_tensor(&c, &a->conv_state, 2);
    xpu_tensor(&c, &a->ssm_state, 3);
    xpu_tensor(&c, &a->conv_w, 0);
    xpu_tensor(&c, &a->conv_bias, 0);
    xpu_tensor(&c, &a->A_log, 0);
    xpu_tensor(&c, &a->dt_bias, 0);
    xpu_tensor(&c, &a->line, 2);
    xpu_int(&c, a->qkv.shape[1]);
    xpu_int(&c, a->hk);
    xpu_int(&c, hv);
    xpu_int(&c, a->dk);
    xpu_int(&c, dv);
    xpu_int(&c, a->conv_w.shape[0]);
    xpu_int(&c, a->conv_state.type);
    xpu_int(&c, a->conv_bias.buf != NULL);
    xpu_int(&c, rows.lanes);
    xpu_int(&c, xpu_gdn_whole(&a->ssm_state));
    xpu_int(&c, room);
    xpu_local(&c, (size_t)(room * (2 * a->dk + r * dv + 2 * r)) * sizeof(float));
    const int64_t groups[3] = {a->hk, a->slot.shape[0], 1};
    return xpu_start(&c, groups, (const int[3]){rows.lanes * rows.rows, 1, 1}, err);
}

gdn_status xpu_op_gdn_core(gdn_queue *q, const gdn_core_args *a, gdn_err *err) {
    enum { FEW = 4 }; /* tokens of a sequence, in the mean */
    const int64_t hv = a->core.shape[1], dv = a->core.shape[2], room = step_room(a);
    if (room > 0 && a->core.shape[0] <= FEW * a->slot.shape[0]) return step(q, a, room, err);
    const gdn_status st = conv(q, a, err);
    if (st != GDN_OK) return st;
    const xpu_gdn_rows r = xpu_gdn_state_rows(a->dk, dv, XPU_GDN_ITEMS);
    xpu_call c = xpu_begin(q, "gdn", "core_delta");
    sequences(&c, a);
    xpu_tensor(&c, &a->core, 2);
    xpu_tensor(&c, &a->work_qkv, 1);
    xpu_tensor(&c, &a->work_gate, 1);
    xpu_tensor(&c, &a->ssm_state, 3);
    xpu_int(&c, a->hk);
    xpu_int(&c, hv);
    xpu_int(&c, a->dk);
    xpu_int(&c, dv);
    xpu_int(&c, r.lanes);
    xpu_int(&c, xpu_gdn_whole(&a->ssm_state) && xpu_gdn_whole(&a->work_qkv));
    const int64_t groups[3] = {r.groups, hv, a->slot.shape[0]};
    const int local[3] = {r.lanes * r.rows, 1, 1};
    return xpu_start(&c, groups, local, err);
}
