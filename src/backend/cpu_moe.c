/* cpu_moe.c - mixture of experts on the cpu: rows are sorted by expert, then every expert's two
 * products run over its own rows. */
#include <string.h>

#include "cpu.h"
#include "cpu_lora.h"

typedef struct {
    const gdn_kern *kern;
    const gdn_moe_route_op_args *a;
} route_job;

static void route(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const route_job *j = arg;
    const gdn_moe_route_op_args *a = j->a;
    const int64_t top = a->expert.shape[1];
    gdn_moe_route_args k = {
        .expert = (int32_t *)gdn_tensor_host(&a->expert) + begin * top,
        .weight = (float *)gdn_tensor_host(&a->weight) + begin * top,
        .logits = (const float *)(const void *)cpu_at(&a->logits, begin),
        .stride = cpu_stride(&a->logits, 0),
        .n_row = (int32_t)(end - begin),
        .n_expert = (int32_t)a->logits.shape[1],
        .top = (int32_t)top,
        .normalise = a->normalise,
    };
    j->kern->moe_route(&k);
}

gdn_status cpu_op_moe_route(gdn_queue *q, const gdn_moe_route_op_args *a, gdn_err *err) {
    if (a->expert.stride[0] != a->expert.shape[1] * 4 || a->weight.stride[0] != a->expert.stride[0])
        return gdn_fail(err, GDN_E_INVALID, "moe_route: expert and weight are not dense");
    route_job j = {&cpu_of(q)->kern, a};
    cpu_run(cpu_of(q), a->logits.shape[0], 4.0 * (double)(a->logits.shape[0] * a->logits.shape[1]),
            route, &j);
    return GDN_OK;
}

/* work_index: order [n_row * top] of pairs row * top + rank sorted by expert (pairs of one expert
 * ascending), their rows, and where each expert's pairs begin. */
typedef struct {
    const cpu_device *d;
    const gdn_moe_experts_args *a;
    const int32_t *pair, *row, *begin;
    int64_t top;
    bool down; /* which of the two products */
} experts_job;

static void products(void *arg, int64_t begin, int64_t end, int thread) {
    const experts_job *j = arg;
    const gdn_moe_experts_args *a = j->a;
    const cpu_weight *w = (const cpu_weight *)(j->down ? a->down : a->gate_up);
    while (begin < end) {
        const int32_t e = (int32_t)(begin / w->n_panel), p0 = (int32_t)(begin % w->n_panel);
        const int64_t left = end - begin;
        const int32_t p1 = left < w->n_panel - p0 ? p0 + (int32_t)left : w->n_panel;
        begin += p1 - p0;
        const int32_t from = j->begin[e], n = j->begin[e + 1] - from;
        if (n == 0) continue;
        const gdn_panels panels = cpu_panels(w, e);
        gdn_linear_args k = {
            .w = &panels, .m = n, .p0 = p0, .p1 = p1, .scratch = cpu_scratch(j->d, thread)};
        if (j->down) {
            k.x = cpu_at(&a->work_h, from);
            k.x_stride = cpu_stride(&a->work_h, 0);
            k.x_bf16 = a->work_h.type == GDN_BF16;
            k.y = gdn_tensor_host(&a->y);
            k.y_row = j->pair + from;
            k.y_stride = cpu_stride(&a->y, 1);
        } else {
            k.x = gdn_tensor_host(&a->x);
            k.x_stride = cpu_stride(&a->x, 0);
            k.x_bf16 = a->x.type == GDN_BF16;
            k.row = j->row + from;
            k.y = (float *)(void *)cpu_at(&a->work_gu, from);
            k.y_stride = cpu_stride(&a->work_gu, 0);
        }
        j->d->kern.linear(&k);
    }
}

gdn_status cpu_op_moe_experts(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    cpu_device *d = cpu_of(q);
    const int64_t n_row = a->expert.shape[0], top = a->expert.shape[1], n = n_row * top;
    const int32_t n_expert = a->down->n_expert;
    if (a->y.stride[0] != top * a->y.stride[1] || a->expert.stride[0] != top * 4)
        return gdn_fail(err, GDN_E_INVALID, "moe_experts: y and expert are not dense");
    const int32_t *expert = gdn_tensor_host(&a->expert);
    int32_t *pair = gdn_tensor_host(&a->work_index), *row = pair + n, *begin = row + n;
    memset(begin, 0, ((size_t)n_expert + 1) * sizeof *begin);
    for (int64_t i = 0; i < n; i++) {
        if (expert[i] < 0 || expert[i] >= n_expert)
            return gdn_fail(err, GDN_E_INVALID, "moe_experts: expert[%lld] is %d of %d",
                            (long long)i, expert[i], n_expert);
        begin[expert[i] + 1]++;
    }
    for (int32_t e = 0; e < n_expert; e++) begin[e + 1] += begin[e];
    for (int64_t i = 0; i < n; i++) { /* begin[e] moves to the end of e's pairs ... */
        const int32_t at = begin[expert[i]]++;
        pair[at] = (int32_t)i;
        row[at] = (int32_t)(i / top);
    }
    for (int32_t e = n_expert; e > 0; e--) begin[e] = begin[e - 1]; /* ... and back */
    begin[0] = 0;

    experts_job j = {.d = d, .a = a, .pair = pair, .row = row, .begin = begin, .top = top};
    const double always = 1e9; /* never too little for a region */
    cpu_run(d, (int64_t)n_expert * ((const cpu_weight *)a->gate_up)->n_panel, always, products, &j);
    if (a->adapter.buf != NULL) cpu_expert_lora(d, a, pair, row, false);
    gdn_swiglu_op_args s = {.y = gdn_tensor_slice(a->work_h, 0, 0, n),
                            .x = gdn_tensor_slice(a->work_gu, 0, 0, n)};
    const gdn_status st = cpu_op_swiglu(q, &s, err);
    if (st != GDN_OK) return st;
    j.down = true;
    cpu_run(d, (int64_t)n_expert * ((const cpu_weight *)a->down)->n_panel, always, products, &j);
    if (a->adapter.buf != NULL) cpu_expert_lora(d, a, pair, row, true);
    return GDN_OK;
}

typedef struct {
    const gdn_kern *kern;
    const gdn_moe_combine_op_args *a;
} combine_job;

static void combine(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const combine_job *j = arg;
    const gdn_moe_combine_op_args *a = j->a;
    const int64_t top = a->weight.shape[1], d = a->y.shape[1];
    const bool shared = a->shared.buf != NULL;
    gdn_moe_combine_args k = {
        .y = (float *)(void *)cpu_at(&a->y, begin),
        .e = (const float *)gdn_tensor_host(&a->e) + begin * top * d,
        .weight = (const float *)gdn_tensor_host(&a->weight) + begin * top,
        .shared = shared ? (const float *)(const void *)cpu_at(&a->shared, begin) : NULL,
        .gate = shared ? (const float *)(const void *)cpu_at(&a->gate, begin) : NULL,
        .y_stride = cpu_stride(&a->y, 0),
        .shared_stride = shared ? cpu_stride(&a->shared, 0) : 0,
        .gate_stride = shared ? cpu_stride(&a->gate, 0) : 0,
        .n_row = (int32_t)(end - begin),
        .top = (int32_t)top,
        .d = (int32_t)d,
    };
    j->kern->moe_combine(&k);
}

gdn_status cpu_op_moe_combine(gdn_queue *q, const gdn_moe_combine_op_args *a, gdn_err *err) {
    if (a->e.stride[1] != a->y.shape[1] * 4 || a->e.stride[0] != a->weight.shape[1] * a->e.stride[1] ||
        a->weight.stride[0] != a->weight.shape[1] * 4)
        return gdn_fail(err, GDN_E_INVALID, "moe_combine: e and weight are not dense");
    combine_job j = {&cpu_of(q)->kern, a};
    cpu_run(cpu_of(q), a->y.shape[0], (double)(a->y.shape[0] * a->y.shape[1] * a->weight.shape[1]),
            combine, &j);
    return GDN_OK;
}
