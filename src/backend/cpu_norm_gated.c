/* cpu_norm_gated.c - the gated norm on the cpu: rows cut into tasks. */
#include "cpu.h"

typedef struct {
    const gdn_kern *kern;
    gdn_norm_gated_args args;
} job;

static void rows(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const job *j = arg;
    gdn_norm_gated_args a = j->args;
    a.y = (char *)a.y + begin * a.y_stride;
    a.x = (const char *)a.x + begin * a.x_stride;
    a.z = (const char *)a.z + begin * a.z_stride;
    a.n_row = end - begin;
    j->kern->norm_gated(&a);
}

gdn_status cpu_op_rms_norm_gated(gdn_queue *q, const gdn_rms_norm_gated_args *a, gdn_err *err) {
    (void)err;
    cpu_device *d = cpu_of(q);
    const bool heads = a->x.ndim == 3;
    job j = {.kern = &d->kern};
    j.args = (gdn_norm_gated_args){
        .y = gdn_tensor_host(&a->y),
        .x = gdn_tensor_host(&a->x),
        .z = gdn_tensor_host(&a->z),
        .w = gdn_tensor_host(&a->w),
        .y_type = a->y.type,
        .x_type = a->x.type,
        .w_type = a->w.type,
        .y_stride = a->y.stride[0],
        .x_stride = a->x.stride[0],
        .z_stride = a->z.stride[0],
        .y_head_stride = heads ? a->y.stride[1] : 0,
        .x_head_stride = heads ? a->x.stride[1] : 0,
        .z_head_stride = heads ? a->z.stride[1] : 0,
        .n_head = heads ? a->x.shape[1] : 1,
        .d = a->x.shape[a->x.ndim - 1],
        .eps = a->eps,
        .gate = a->gate,
        .norm_after_gate = a->norm_after_gate,
    };
    if (a->x.shape[0] == 0 || j.args.n_head == 0 || j.args.d == 0) return GDN_OK;
    cpu_run(d, a->x.shape[0], (double)(a->x.shape[0] * j.args.n_head) * (double)j.args.d, rows, &j);
    return GDN_OK;
}
