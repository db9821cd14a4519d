/* xpu_moe.c - mixture of experts on the xpu (moe_xpu.cl, experts_xpu.cl): pairs are sorted by expert
 * on the device, and the products' work-groups find theirs there, so that nothing is read back. */
#include "xpu.h"

enum { MOE_ITEMS = 64, MOE_EXPERTS = 1024, MOE_SORTERS = 256, MOE_COLUMNS = 64 };

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

/* Kernels of one kind: what a work-group of them has, and a line. */
typedef struct {
    const char *name[2][2];       /* gate_up, down; the usual one, any */
    int  items, pairs, row_lines; /* row_lines: lines that have pairs of their own */
    int  outputs[2];              /* of a line; of gate_up: what is left of them */
    bool sorted;
} form;
#define NAMES(of) {{"gate_up_" of, "any_gate_up_" of}, {"down_" of, "any_down_" of}}
static const form one = {NAMES("1"), 128, 1, 1, {1, 1}, false},
                  few = {NAMES("4"), 128, 4, 1, {1, 2}, true},
                  many = {NAMES("many"), 256, 16, 2, {4, 8}, true},
                  intel_many = {NAMES("many"), 256, 16, 4, {2, 4}, true};
#undef NAMES

/* By how many pairs an expert has on average.  A row's experts are different ones, and of a few rows
 * most are: then nothing is gained by sorting. */
static const form *form_for(const gdn_queue *q, int64_t n_row, int64_t top, int64_t n_expert) {
    const int64_t n_pair = n_row * top;
    if (n_row == 1 || 4 * n_pair <= n_expert) return &one;
    if (n_pair <= 4 * n_expert) return &few;
    return xpu_of(q)->info->intel ? &intel_many : &many;
}

/* Work-groups along the pairs: enough when each expert's last is not full. */
static int64_t blocks(const form *f, const gdn_moe_experts_args *a) {
    const int64_t n_pair = a->expert.shape[0] * a->expert.shape[1], n_expert = a->down->n_expert;
    return (n_pair + (n_pair < n_expert ? n_pair : n_expert) * (f->pairs - 1)) / f->pairs;
}

static gdn_status sort(gdn_queue *q, const gdn_moe_experts_args *a, const form *f, gdn_err *err) {
    const int64_t top = a->expert.shape[1];
    xpu_call c = xpu_begin(q, "moe", "moe_sort");
    xpu_faults(&c);
    xpu_tensor(&c, &a->expert, 1);
    xpu_tensor(&c, &a->work_index, 0);
    xpu_int(&c, a->expert.shape[0] * top);
    xpu_int(&c, top);
    xpu_int(&c, a->down->n_expert);
    xpu_int(&c, f->pairs);
    xpu_int(&c, blocks(f, a));
    return xpu_start(&c, (const int64_t[3]){1, 1, 1}, (const int[3]){MOE_SORTERS, 1, 1}, err);
}

/* One of the two products; x has a row for x_top pairs, y's row of a pair goes by y_top. */
static gdn_status product(gdn_queue *q, const gdn_moe_experts_args *a, const form *f, bool down,
                          gdn_err *err) {
    const int64_t top = a->expert.shape[1], n_pair = a->expert.shape[0] * top;
    const xpu_weight *w = xpu_weight_of(down ? a->down : a->gate_up);
    const gdn_tensor *x = down ? &a->work_h : &a->x;
    gdn_tensor y = down ? a->y : a->work_h;
    if (!down) y.stride[1] = 0;
    const bool whole = xpu_on_vectors(x, w->base.k);
    const bool usual = whole && w->base.type == GDN_BF16;
    const xpu_line l = xpu_line_for(q, w->base.k);
    xpu_call c = xpu_begin(q, l.experts, f->name[down][!usual]);
    xpu_tensor(&c, &y, 2);
    xpu_tensor(&c, x, 1);
    xpu_tensor(&c, &a->expert, 1);
    xpu_tensor(&c, &a->work_index, 0);
    xpu_line_weight(&c, w, whole);
    xpu_int(&c, n_pair);
    xpu_int(&c, w->base.n_expert);
    xpu_int(&c, top);
    xpu_int(&c, down ? 1 : top);
    xpu_int(&c, down ? top : 1);
    xpu_int(&c, x->type);
    xpu_int(&c, y.type);
    xpu_faults(&c);
    const int lines = f->items / l.items;
    const int64_t n_out = down ? w->base.n : w->base.n / 2;
    const int64_t of = (int64_t)(lines / f->row_lines) * f->outputs[down];
    const int64_t groups[3] = {(n_out + of - 1) / of, f->sorted ? blocks(f, a) : n_pair, 1};
    return xpu_start(&c, groups, (const int[3]){l.items, lines, 1}, err);
}

gdn_status xpu_op_moe_experts(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    /* Adapters lie in a buffer each, and only the device knows which ones the rows ask for. */
    if (a->adapter.buf != NULL)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "moe_experts: adapters of experts are not built in "
                        "on %s", gdn_device_name(q->device));
    if (xpu_weight_of(a->gate_up)->packed || xpu_weight_of(a->down)->packed)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "moe_experts: a single expert is not built in on "
                        "%s", gdn_device_name(q->device));
    if (a->down->n_expert > MOE_EXPERTS)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "moe_experts: %d experts, at most %d are built in on "
                        "%s", a->down->n_expert, MOE_EXPERTS, gdn_device_name(q->device));
    const form *f = form_for(q, a->expert.shape[0], a->expert.shape[1], a->down->n_expert);
    gdn_status st = f->sorted ? sort(q, a, f, err) : GDN_OK;
    if (st == GDN_OK) st = product(q, a, f, false, err);
    return st == GDN_OK ? product(q, a, f, true, err) : st;
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
