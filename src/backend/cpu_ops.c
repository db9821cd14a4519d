/* cpu_ops.c - the cpu's row-wise ops and matrix products: tensors to kernel arguments, cut into
 * tasks.  How work is cut never changes a result (the kernels' contracts). */
#include <math.h>
#include <string.h>

#include "../base/half.h"
#include "cpu.h"

/* --- embedding ---------------------------------------------------------------- */

static void embed(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const gdn_embed_args *a = arg;
    const int32_t *ids = gdn_tensor_host(&a->ids);
    const int64_t d = a->y.shape[1];
    for (int64_t i = begin; i < end; i++) {
        float *y = (float *)(void *)cpu_at(&a->y, i);
        if (a->weight != NULL) {
            const cpu_weight *w = (const cpu_weight *)a->weight;
            gdn_panel_row(w->panel, w->base.type, w->base.k, ids[i], y);
            continue;
        }
        const void *row = cpu_at(&a->table, ids[i]);
        switch (a->table.type) {
        case GDN_F32: memcpy(y, row, (size_t)d * sizeof *y); break;
        case GDN_BF16:
            for (int64_t j = 0; j < d; j++) y[j] = gdn_bf16_to_f32(((const uint16_t *)row)[j]);
            break;
        default:
            for (int64_t j = 0; j < d; j++) y[j] = gdn_f16_to_f32(((const uint16_t *)row)[j]);
        }
    }
}

gdn_status cpu_op_embed(gdn_queue *q, const gdn_embed_args *a, gdn_err *err) {
    (void)err;
    gdn_embed_args job = *a;
    cpu_run(cpu_of(q), a->ids.shape[0], (double)(a->ids.shape[0] * a->y.shape[1]), embed, &job);
    return GDN_OK;
}

/* --- norms --------------------------------------------------------------------- */

typedef struct {
    const gdn_kern *kern;
    gdn_norm_args   args;
    uint64_t y_row, x_row, z_row; /* bytes from row to row */
} norm_job;

static void norm(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const norm_job *j = arg;
    gdn_norm_args a = j->args;
    a.y = (char *)a.y + (uint64_t)begin * j->y_row;
    a.x = (const float *)(const void *)((const char *)a.x + (uint64_t)begin * j->x_row);
    if (a.z != NULL)
        a.z = (const float *)(const void *)((const char *)a.z + (uint64_t)begin * j->z_row);
    a.n_row = (int32_t)(end - begin);
    j->kern->norm(&a);
}

gdn_status cpu_op_rms_norm(gdn_queue *q, const gdn_rms_norm_args *a, gdn_err *err) {
    (void)err;
    cpu_device *d = cpu_of(q);
    const int heads = a->x.ndim == 3;
    const bool gated = a->z.buf != NULL;
    norm_job j = {.kern = &d->kern,
                  .y_row = (uint64_t)a->y.stride[0],
                  .x_row = (uint64_t)a->x.stride[0],
                  .z_row = gated ? (uint64_t)a->z.stride[0] : 0};
    j.args = (gdn_norm_args){
        .y = gdn_tensor_host(&a->y),
        .x = gdn_tensor_host(&a->x),
        .z = gdn_tensor_host(&a->z),
        .w = gdn_tensor_host(&a->w),
        .y_stride = cpu_stride(&a->y, 0),
        .x_stride = cpu_stride(&a->x, 0),
        .z_stride = gated ? cpu_stride(&a->z, 0) : 0,
        .y_head_stride = heads ? cpu_stride(&a->y, 1) : 0,
        .x_head_stride = heads ? cpu_stride(&a->x, 1) : 0,
        .z_head_stride = heads && gated ? cpu_stride(&a->z, 1) : 0,
        .n_head = heads ? (int32_t)a->x.shape[1] : 1,
        .d = (int32_t)a->x.shape[a->x.ndim - 1],
        .eps = a->eps,
        .y_bf16 = a->y.type == GDN_BF16,
    };
    const double cost = (double)(a->x.shape[0] * j.args.n_head) * j.args.d;
    cpu_run(d, a->x.shape[0], cost * (gated ? 1.0 : 0.2), norm, &j);
    return GDN_OK;
}

typedef struct {
    const gdn_kern *kern;
    const gdn_cast_args *a;
} cast_job;

/* Between the 16-bit types through f32, a stretch at a time. */
static void cast_row(const gdn_kern *k, void *y, gdn_type to, const void *x, gdn_type from, int64_t n) {
    enum { STRETCH = 256 };
    float f[STRETCH];
    gdn_widen_fn *widen = k->widen[from == GDN_BF16 ? GDN_HALF_BF16 : GDN_HALF_F16];
    gdn_narrow_fn *narrow = k->narrow[to == GDN_BF16 ? GDN_HALF_BF16 : GDN_HALF_F16];
    if (from == to) memmove(y, x, (size_t)(n * gdn_type_bytes(to)));
    else if (from == GDN_F32) narrow(y, x, n);
    else if (to == GDN_F32) widen(y, x, n);
    else
        for (int64_t at = 0; at < n; at += STRETCH) {
            const int64_t m = n - at < STRETCH ? n - at : STRETCH;
            widen(f, (const uint16_t *)x + at, m);
            narrow((uint16_t *)y + at, f, m);
        }
}

static void cast(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const cast_job *j = arg;
    const gdn_cast_args *a = j->a;
    for (int64_t i = begin; i < end; i++)
        cast_row(j->kern, cpu_at(&a->y, i), a->y.type, cpu_at(&a->x, i), a->x.type, a->x.shape[1]);
}

gdn_status cpu_op_cast(gdn_queue *q, const gdn_cast_args *a, gdn_err *err) {
    (void)err;
    cast_job j = {&cpu_of(q)->kern, a};
    cpu_run(cpu_of(q), a->x.shape[0], 0.2 * (double)(a->x.shape[0] * a->x.shape[1]), cast, &j);
    return GDN_OK;
}

/* --- products ------------------------------------------------------------------ */

/* Tasks are (stretch of rows, panel): stretches only when there are too few panels. */
typedef struct {
    const cpu_device *d;
    gdn_linear_args args;
    int32_t n_panel, rows; /* rows of a stretch */
} linear_job;

static void linear(void *arg, int64_t begin, int64_t end, int thread) {
    const linear_job *j = arg;
    while (begin < end) {
        const int32_t stretch = (int32_t)(begin / j->n_panel), p0 = (int32_t)(begin % j->n_panel);
        const int64_t left = end - begin;
        const int32_t p1 = left < j->n_panel - p0 ? p0 + (int32_t)left : j->n_panel;
        const int32_t m0 = stretch * j->rows;
        gdn_linear_args a = j->args;
        a.scratch = cpu_scratch(j->d, thread);
        a.m = a.m - m0 < j->rows ? a.m - m0 : j->rows;
        if (a.row != NULL) a.row += m0;
        else a.x = (const char *)a.x + (int64_t)m0 * a.x_stride * (a.x_bf16 ? 2 : 4);
        a.y += (int64_t)m0 * a.y_stride;
        a.p0 = p0;
        a.p1 = p1;
        j->d->kern.linear(&a);
        begin += p1 - p0;
    }
}

gdn_status cpu_op_linear(gdn_queue *q, const gdn_linear_op_args *a, gdn_err *err) {
    (void)err;
    enum { MIN_ROWS = 96, TASKS = 4 };
    cpu_device *d = cpu_of(q);
    const cpu_weight *w = (const cpu_weight *)a->w;
    const gdn_panels panels = cpu_panels(w, 0);
    linear_job j = {.d = d, .n_panel = w->n_panel};
    j.args = (gdn_linear_args){
        .y = gdn_tensor_host(&a->y),
        .x = gdn_tensor_host(&a->x),
        .row = gdn_tensor_host(&a->row),
        .w = &panels,
        .y_stride = cpu_stride(&a->y, 0),
        .x_stride = cpu_stride(&a->x, 0),
        .m = (int32_t)a->y.shape[0],
        .x_bf16 = a->x.type == GDN_BF16,
        .add = a->add,
    };
    if (j.args.m == 0) return GDN_OK;
    /* Enough tasks for every thread to have several, in stretches that still reuse a panel. */
    j.rows = j.args.m;
    while (w->n_panel * (int64_t)((j.args.m + j.rows - 1) / j.rows) < TASKS * d->n_thread &&
           j.rows > MIN_ROWS)
        j.rows = (j.rows / 2 + MIN_ROWS - 1) / MIN_ROWS * MIN_ROWS;
    const int64_t stretches = (j.args.m + j.rows - 1) / j.rows;
    cpu_run(d, stretches * w->n_panel, (double)w->base.bytes * 0.05 * j.args.m, linear, &j);
    return GDN_OK;
}

/* --- rotary embedding and the key-value pages ------------------------------------ */

gdn_status cpu_op_rope_angles(gdn_queue *q, const gdn_rope_angles_args *a, gdn_err *err) {
    (void)q, (void)err;
    gdn_rope_angles(gdn_tensor_host(&a->cs), gdn_tensor_host(&a->pos), (int32_t)a->pos.shape[0],
                    (int32_t)a->cs.shape[1], a->theta, a->section, a->mrope);
    return GDN_OK;
}

typedef struct {
    const gdn_kern *kern;
    const gdn_attn_store_args *a;
} store_job;

static gdn_rope_args rope_args(const gdn_attn_store_args *a, const gdn_tensor *x,
                               const gdn_tensor *norm_w, int64_t row) {
    return (gdn_rope_args){
        .x = (const float *)(const void *)cpu_at(x, row),
        .w = gdn_tensor_host(norm_w),
        .cs = (const float *)(const void *)cpu_at(&a->cs, row),
        .x_head_stride = cpu_stride(x, 1),
        .n_row = 1,
        .n_head = (int32_t)x->shape[1],
        .d = (int32_t)x->shape[2],
        .rot = (int32_t)a->cs.shape[1],
        .eps = a->eps,
        .y_bf16 = a->k_page.type == GDN_BF16,
    };
}

static void store_value(const gdn_attn_store_args *a, int64_t row, char *to) {
    const int64_t d = a->v.shape[2];
    for (int64_t h = 0; h < a->v.shape[1]; h++, to += a->v_page.stride[1]) {
        const float *v = (const float *)(const void *)(cpu_at(&a->v, row) + h * a->v.stride[1]);
        if (a->v_page.type == GDN_F32) memcpy(to, v, (size_t)d * sizeof *v);
        else
            for (int64_t i = 0; i < d; i++)
                ((uint16_t *)(void *)to)[i] = gdn_f32_to_bf16(v[i]);
    }
}

static void store(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const store_job *j = arg;
    const gdn_attn_store_args *a = j->a;
    const int32_t *start = gdn_tensor_host(&a->kv.seq_start);
    const int32_t *past = gdn_tensor_host(&a->kv.n_past);
    int64_t s = 0;
    for (int64_t i = begin; i < end; i++) {
        while (start[s + 1] <= i) s++;
        const int64_t pos = past[s] + i - start[s];
        const int32_t *pages = (const int32_t *)(const void *)cpu_at(&a->kv.page, s);
        const int64_t page = pages[pos / a->kv.block_size], at = pos % a->kv.block_size;

        gdn_rope_args r = rope_args(a, &a->q, &a->q_norm, i);
        r.y = cpu_at(&a->q_out, i);
        r.y_head_stride = cpu_stride(&a->q_out, 1);
        j->kern->rope(&r);

        r = rope_args(a, &a->k, &a->k_norm, i);
        r.y = cpu_at(&a->k_page, page) + at * a->k_page.stride[2];
        r.y_head_stride = cpu_stride(&a->k_page, 1);
        j->kern->rope(&r);

        store_value(a, i, cpu_at(&a->v_page, page) + at * a->v_page.stride[2]);
    }
}

gdn_status cpu_op_attn_store(gdn_queue *q, const gdn_attn_store_args *a, gdn_err *err) {
    (void)err;
    store_job j = {&cpu_of(q)->kern, a};
    const double cost = (double)(a->q.shape[0] * (a->q.shape[1] + 2 * a->k.shape[1])) *
                        (double)a->q.shape[2];
    const int32_t *start = gdn_tensor_host(&a->kv.seq_start);
    cpu_run(cpu_of(q), start[a->kv.n_past.shape[0]], 0.3 * cost, store, &j);
    return GDN_OK;
}

/* --- feed-forward gate ------------------------------------------------------------ */

typedef struct {
    const gdn_kern *kern;
    const gdn_swiglu_op_args *a;
} swiglu_job;

enum { SWIGLU_CHUNK = 1024 }; /* columns of a task, so that one row can be shared too */

static void swiglu(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const swiglu_job *j = arg;
    const gdn_swiglu_op_args *a = j->a;
    const int64_t n = a->y.shape[1], chunks = (n + SWIGLU_CHUNK - 1) / SWIGLU_CHUNK;
    for (int64_t i = begin; i < end; i++) {
        const int64_t row = i / chunks, c = i % chunks * SWIGLU_CHUNK;
        const float *g = (const float *)(const void *)cpu_at(&a->x, row) + c;
        gdn_swiglu_args k = {
            .y = cpu_at(&a->y, row) + c * gdn_type_bytes(a->y.type),
            .g = g,
            .u = g + n,
            .n_row = 1,
            .n = (int32_t)(n - c < SWIGLU_CHUNK ? n - c : SWIGLU_CHUNK),
            .y_bf16 = a->y.type == GDN_BF16,
        };
        j->kern->swiglu(&k);
    }
}

gdn_status cpu_op_swiglu(gdn_queue *q, const gdn_swiglu_op_args *a, gdn_err *err) {
    (void)err;
    swiglu_job j = {&cpu_of(q)->kern, a};
    const int64_t chunks = (a->y.shape[1] + SWIGLU_CHUNK - 1) / SWIGLU_CHUNK;
    cpu_run(cpu_of(q), a->y.shape[0] * chunks, (double)(a->y.shape[0] * a->y.shape[1]), swiglu,
            &j);
    return GDN_OK;
}

/* --- the largest of long rows ----------------------------------------------------- */

typedef struct {
    const gdn_kern *kern;
    const gdn_top_k_args *a;
} top_k_job;

static void top_k(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const top_k_job *j = arg;
    const gdn_top_k_args *a = j->a;
    const int32_t k = (int32_t)a->id.shape[1];
    const int32_t *valid = gdn_tensor_host(&a->n_valid);
    for (int64_t i = begin; i < end; i++) {
        const float *x = (const float *)(const void *)cpu_at(&a->x, i);
        float *value = (float *)(void *)cpu_at(&a->value, i);
        int32_t *id = (int32_t *)(void *)cpu_at(&a->id, i);
        const int32_t n = valid != NULL ? valid[i] : (int32_t)a->x.shape[1];
        const int32_t found = j->kern->top_k(x, n, k, id);
        for (int32_t r = 0; r < k; r++) {
            value[r] = r < found ? x[id[r]] + 0.0f : -INFINITY; /* -0 becomes 0 */
            if (r >= found) id[r] = -1;
        }
        const gdn_range range = j->kern->range(x, n);
        *(int32_t *)(void *)cpu_at(&a->found, i) = found;
        *(float *)(void *)cpu_at(&a->min, i) = range.nan ? NAN : range.min + 0.0f;
    }
}

gdn_status cpu_op_top_k(gdn_queue *q, const gdn_top_k_args *a, gdn_err *err) {
    (void)err;
    top_k_job j = {&cpu_of(q)->kern, a};
    const int64_t n_row = a->x.shape[0];
    cpu_run(cpu_of(q), n_row, 0.3 * (double)(n_row * a->x.shape[1]), top_k, &j);
    return GDN_OK;
}
