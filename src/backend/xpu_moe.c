/* xpu_moe.c - mixture of experts on the xpu (moe_xpu.cl): pairs are sorted by expert on the device,
 * and the products' work-groups find theirs there, so that nothing is read back. */
#include "xpu.h"

enum { MOE_ITEMS = 64, MOE_OUT = 32, MOE_LANES = 4, MOE_COLUMNS = 64 };

gdn_status xpu_op_moe_route(gdn_queue *q, const gdn_moe_route_op_args *a, gdn_err *err) {
    xpu_call c = xpu_begin(q, "moe", "moe_route");
    xpu_tensor(&c, &a->expert, 1);
    xpu_tensor(&c, &a->weight, 1);
    xpu_tensor(&c, &a->logits, 1);
    xpu_int(&c, a->logits.shape[1]);
    xpu_int(&c, a->expert.shape[1]);
    xpu_int(&c, a->normalise);
    const int64_t groups[3] = {a->logits.shape[0], 1, 1};
    const int local[3] = {MOE_ITEMS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

static gdn_status sort(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    const int64_t top = a->expert.shape[1], n_expert = a->down->n_expert;
    xpu_call c = xpu_begin(q, "moe", "moe_sort");
    xpu_faults(&c);
    xpu_tensor(&c, &a->expert, 1);
    xpu_tensor(&c, &a->work_index, 0);
    xpu_int(&c, a->expert.shape[0] * top);
    xpu_int(&c, top);
    xpu_int(&c, n_expert);
    const int64_t groups[3] = {n_expert, 1, 1};
    const int local[3] = {MOE_ITEMS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

/* What moe_xpu.cl has as WEIGHT. */
static void weight(xpu_call *c, const gdn_weight *w) {
    const xpu_weight *x = xpu_weight_of(w);
    xpu_memory(c, x->data);
    xpu_memory(c, x->scale);
    xpu_int(c, w->type);
    xpu_int(c, x->scale_cols);
    xpu_int(c, x->n_scale);
}

static gdn_status gate_up(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    const int64_t n_pair = a->expert.shape[0] * a->expert.shape[1], n = a->down->k;
    xpu_call c = xpu_begin(q, "moe", "moe_gate_up");
    xpu_tensor(&c, &a->work_index, 0);
    xpu_tensor(&c, &a->x, 1);
    xpu_tensor(&c, &a->work_h, 1);
    weight(&c, a->gate_up);
    xpu_int(&c, n_pair);
    xpu_int(&c, a->down->n_expert);
    xpu_int(&c, n);
    xpu_int(&c, a->gate_up->k);
    xpu_int(&c, a->x.type);
    xpu_int(&c, a->work_h.type);
    const int64_t groups[3] = {(n + MOE_OUT - 1) / MOE_OUT, n_pair, 1};
    const int local[3] = {MOE_OUT * MOE_LANES, 1, 1};
    return xpu_start(&c, groups, local, err);
}

static gdn_status down(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    const int64_t top = a->expert.shape[1], n_pair = a->expert.shape[0] * top, n = a->down->n;
    xpu_call c = xpu_begin(q, "moe", "moe_down");
    xpu_tensor(&c, &a->work_index, 0);
    xpu_tensor(&c, &a->y, 2);
    xpu_tensor(&c, &a->work_h, 1);
    weight(&c, a->down);
    xpu_int(&c, n_pair);
    xpu_int(&c, a->down->n_expert);
    xpu_int(&c, top);
    xpu_int(&c, n);
    xpu_int(&c, a->down->k);
    xpu_int(&c, a->work_h.type);
    const int64_t groups[3] = {(n + MOE_OUT - 1) / MOE_OUT, n_pair, 1};
    const int local[3] = {MOE_OUT * MOE_LANES, 1, 1};
    return xpu_start(&c, groups, local, err);
}

gdn_status xpu_op_moe_experts(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    /* Adapters lie in a buffer each, and only the device knows which ones the rows ask for. */
    if (a->adapter.buf != NULL)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "moe_experts: adapters of experts are not built in "
                        "on %s", gdn_device_name(q->device));
    if (xpu_weight_of(a->gate_up)->packed || xpu_weight_of(a->down)->packed)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "moe_experts: a single expert is not built in on "
                        "%s", gdn_device_name(q->device));
    gdn_status st = sort(q, a, err);
    if (st == GDN_OK) st = gate_up(q, a, err);
    return st == GDN_OK ? down(q, a, err) : st;
}

gdn_status xpu_op_moe_combine(gdn_queue *q, const gdn_moe_combine_op_args *a, gdn_err *err) {
    const int64_t d = a->y.shape[1];
    xpu_call c = xpu_begin(q, "moe", "moe_combine");
    xpu_tensor(&c, &a->y, 1);
    xpu_tensor(&c, &a->e, 2);
    xpu_tensor(&c, &a->weight, 1);
    xpu_tensor(&c, &a->shared, 1);
    xpu_tensor(&c, &a->gate, 1);
    xpu_int(&c, a->weight.shape[1]);
    xpu_int(&c, d);
    xpu_int(&c, a->shared.buf != NULL);
    const int64_t groups[3] = {(d + MOE_COLUMNS - 1) / MOE_COLUMNS, a->y.shape[0], 1};
    const int local[3] = {MOE_COLUMNS, 1, 1};
    return xpu_start(&c, groups, local, err);
}
