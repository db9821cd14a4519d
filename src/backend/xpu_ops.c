/* xpu_ops.c - the xpu's row-wise ops. */
#include <math.h>

#include "xpu.h"
#include "xpu_x.h"

enum { ITEMS = 64 }; /* of a work-group that takes a stretch of a row */

/* Rows of n columns, an item a column. */
static gdn_status start_columns(xpu_call *c, int64_t n, int64_t n_row, gdn_err *err) {
    const int64_t groups[3] = {(n + ITEMS - 1) / ITEMS, n_row, 1};
    return xpu_start(c, groups, (const int[3]){ITEMS, 1, 1}, err);
}

gdn_status xpu_op_embed(gdn_queue *q, const gdn_embed_args *a, gdn_err *err) {
    const xpu_weight *w = xpu_weight_of(a->weight);
    if (w != NULL && w->packed) return xpu_embed_x(q, a, err);
    const int64_t d = a->y.shape[1];
    xpu_call c = xpu_begin(q, "embed", "embed");
    xpu_tensor(&c, &a->y, 1);
    xpu_tensor(&c, &a->ids, 0);
    if (w != NULL) {
        xpu_memory(&c, w->data);
        xpu_long(&c, 0);
        xpu_long(&c, d * gdn_type_bytes(w->base.type));
    } else {
        xpu_tensor(&c, &a->table, 1);
    }
    xpu_int(&c, w != NULL ? w->base.type : a->table.type);
    xpu_long(&c, w != NULL ? w->base.n : a->table.shape[0]);
    xpu_int(&c, d);
    xpu_faults(&c);
    return start_columns(&c, d, a->ids.shape[0], err);
}

/* A tensor [n_row, (n_head,) d]: strides of rows and heads. */
static void heads_tensor(xpu_call *c, const gdn_tensor *t) {
    xpu_tensor(c, t, 1);
    xpu_long(c, t->ndim == 3 ? t->stride[1] : 0);
}

static gdn_status start_norm(xpu_call *c, const gdn_tensor *x, gdn_err *err) {
    const int64_t groups[3] = {x->ndim == 3 ? x->shape[1] : 1, x->shape[0], 1};
    if (x->shape[x->ndim - 1] == 0) return GDN_OK;
    return xpu_start(c, groups, (const int[3]){128, 1, 1}, err);
}

gdn_status xpu_op_rms_norm(gdn_queue *q, const gdn_rms_norm_args *a, gdn_err *err) {
    xpu_call c = xpu_begin(q, "norm", "rms_norm");
    heads_tensor(&c, &a->y);
    heads_tensor(&c, &a->x);
    heads_tensor(&c, &a->z);
    xpu_tensor(&c, &a->w, 0);
    xpu_int(&c, a->y.type);
    xpu_int(&c, a->z.buf != NULL);
    xpu_int(&c, a->x.shape[a->x.ndim - 1]);
    xpu_float(&c, a->eps);
    return start_norm(&c, &a->x, err);
}

gdn_status xpu_op_rms_norm_gated(gdn_queue *q, const gdn_rms_norm_gated_args *a, gdn_err *err) {
    xpu_call c = xpu_begin(q, "norm", "rms_norm_gated");
    heads_tensor(&c, &a->y);
    heads_tensor(&c, &a->x);
    heads_tensor(&c, &a->z);
    xpu_tensor(&c, &a->w, 0);
    xpu_int(&c, a->y.type);
    xpu_int(&c, a->x.type);
    xpu_int(&c, a->w.type);
    xpu_int(&c, a->gate == GDN_GATE_SILU ? 0 : 1);
    xpu_int(&c, a->norm_after_gate);
    xpu_int(&c, a->x.shape[a->x.ndim - 1]);
    xpu_float(&c, a->eps);
    return start_norm(&c, &a->x, err);
}

gdn_status xpu_op_cast(gdn_queue *q, const gdn_cast_args *a, gdn_err *err) {
    xpu_call c = xpu_begin(q, "cast", "cast");
    xpu_tensor(&c, &a->y, 1);
    xpu_tensor(&c, &a->x, 1);
    xpu_int(&c, a->y.type);
    xpu_int(&c, a->x.type);
    xpu_long(&c, a->x.shape[1]);
    return start_columns(&c, a->x.shape[1], a->x.shape[0], err);
}

gdn_status xpu_op_swiglu(gdn_queue *q, const gdn_swiglu_op_args *a, gdn_err *err) {
    xpu_call c = xpu_begin(q, "act", "swiglu");
    xpu_tensor(&c, &a->y, 1);
    xpu_tensor(&c, &a->x, 1);
    xpu_int(&c, a->y.type);
    xpu_long(&c, a->y.shape[1]);
    return start_columns(&c, a->y.shape[1], a->y.shape[0], err);
}

/* --- rotary embedding --------------------------------------------------------------- */

/* Turns of each frequency in one position, as rope_xpu.cl takes them. */
static gdn_status turns(gdn_queue *queue, double theta, int32_t rot, cl_mem *out, gdn_err *err) {
    enum { MAX_HALF = 512 };
    xpu_queue *q = xpu_queue_of(queue);
    cl_ulong turn[MAX_HALF];
    *out = q->rope.turn;
    if (q->rope.turn != NULL && q->rope.rot == rot && q->rope.theta == theta) return GDN_OK;
    if (rot / 2 > MAX_HALF)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "device %s: rope_angles: rot is %d, at most %d",
                        q->base.device->name, rot, 2 * MAX_HALF);
    for (int32_t j = 0; j < rot / 2; j++) {
        const double whole = pow(theta, -2.0 * j / rot) / 6.283185307179586477;
        turn[j] = (cl_ulong)ldexp(whole - floor(whole), 64);
    }
    cl_mem mem;
    const uint64_t bytes = (uint64_t)(rot / 2) * sizeof *turn;
    gdn_status st = xpu_alloc(xpu_of(queue), bytes, false, &mem, err);
    if (st != GDN_OK) return st;
    if ((st = xpu_put(queue, mem, 0, turn, bytes, err)) != GDN_OK) {
        xpu_free(xpu_of(queue), mem);
        return st;
    }
    xpu_free(xpu_of(queue), q->rope.turn);
    q->rope.turn = *out = mem;
    q->rope.theta = theta;
    q->rope.rot = rot;
    return GDN_OK;
}

gdn_status xpu_op_rope_angles(gdn_queue *q, const gdn_rope_angles_args *a, gdn_err *err) {
    const int32_t rot = (int32_t)a->cs.shape[1];
    cl_mem turn;
    if (rot == 0 || a->pos.shape[0] == 0) return GDN_OK;
    const gdn_status st = turns(q, a->theta, rot, &turn, err);
    if (st != GDN_OK) return st;
    xpu_call c = xpu_begin(q, "rope", "rope_angles");
    xpu_tensor(&c, &a->cs, 1);
    xpu_tensor(&c, &a->pos, 1);
    xpu_memory(&c, turn);
    xpu_int(&c, rot / 2);
    xpu_int(&c, a->mrope ? 3 * (int64_t)a->section[1] : 0);
    xpu_int(&c, a->mrope ? 3 * (int64_t)a->section[2] : 0);
    return start_columns(&c, rot / 2, a->pos.shape[0], err);
}

/* --- adapters ----------------------------------------------------------------------- */

static void rows_of(xpu_call *c, const gdn_lora_op_args *a) {
    xpu_tensor(c, &a->adapter, 0);
    xpu_tensor(c, &a->row, 0);
    xpu_int(c, a->row.buf != NULL);
    xpu_long(c, a->adapter.shape[0]);
}

static gdn_status one_adapter(gdn_queue *q, const gdn_lora_op_args *a, int32_t which,
                              gdn_err *err) {
    const gdn_lora *l = &a->lora[which];
    const int64_t rank = l->a.shape[0], n_row = a->y.shape[0];
    xpu_call c = xpu_begin(q, "lora", "lora_down");
    xpu_tensor(&c, &a->work, 1);
    xpu_tensor(&c, &a->x, 1);
    rows_of(&c, a);
    xpu_tensor(&c, &l->a, 0);
    xpu_int(&c, which);
    xpu_int(&c, a->x.shape[1]);
    xpu_int(&c, a->x.type);
    const gdn_status st = xpu_start(&c, (const int64_t[3]){rank, n_row, 1},
                                    (const int[3]){64, 1, 1}, err);
    if (st != GDN_OK) return st;
    c = xpu_begin(q, "lora", "lora_up");
    xpu_tensor(&c, &a->y, 1);
    xpu_tensor(&c, &a->work, 1);
    rows_of(&c, a);
    xpu_tensor(&c, &l->b, 0);
    xpu_int(&c, which);
    xpu_int(&c, a->y.shape[1]);
    xpu_int(&c, rank);
    xpu_float(&c, l->scale);
    return start_columns(&c, a->y.shape[1], n_row, err);
}

/* Only the device knows which adapters the rows have: each is started, and skips the others'. */
gdn_status xpu_op_lora(gdn_queue *q, const gdn_lora_op_args *a, gdn_err *err) {
    xpu_call c = xpu_begin(q, "lora", "lora_check");
    rows_of(&c, a);
    xpu_int(&c, a->n_lora);
    xpu_long(&c, a->y.shape[0]);
    xpu_faults(&c);
    gdn_status st = start_columns(&c, a->y.shape[0], 1, err);
    for (int32_t i = 0; i < a->n_lora && st == GDN_OK; i++)
        if (a->lora[i].a.buf != NULL) st = one_adapter(q, a, i, err);
    return st;
}
