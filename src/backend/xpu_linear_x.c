/* xpu_linear_x.c - products with packed weights: which form takes how many rows; projections of a
 * few in one launch. */
#include "xpu_x.h"

enum {
    XPU_PARTS = 8,      /* of the inputs, linear_xmx_xpu.cl */
    STEP = 16,          /* inputs */
    PACKED = 64,        /* rows are packed in multiples of this */
    BLOCK = 32,         /* rows of a work-group of linear_block */
    WIDE = 4,           /* of linear_wide */
    FEW = 8,            /* of linear_rows and project_rows */
    STAGED = 26 * 1024, /* bytes of project_rows' rows in local memory */
    TILE_BLOCKS = 8     /* columns of sg outputs of a work-group of linear_tile, of PACKED rows */
};

bool xpu_packs(const xpu_device *d, gdn_type type, int32_t n_expert) {
    return d->sg != 0 && type == GDN_BF16 && n_expert == 1;
}

int32_t xpu_steps(int32_t k) {
    const int64_t part = (int64_t)XPU_PARTS * STEP;
    return (int32_t)((k + part - 1) / part * XPU_PARTS);
}

static int64_t over(int64_t n, int64_t by) { return (n + by - 1) / by; }

/* y, what is read, the weight's shape, the rows. */
static void common(xpu_call *c, const gdn_linear_op_args *a, const xpu_weight *w) {
    xpu_tensor(c, &a->y, 1);
    xpu_tensor(c, &a->x, 1);
    xpu_tensor(c, &a->row, 0);
    xpu_memory(c, w->data);
    xpu_int(c, w->base.n);
    xpu_int(c, w->base.k);
    xpu_int(c, xpu_steps(w->base.k));
    xpu_int(c, a->y.shape[0]);
    xpu_int(c, a->row.buf != NULL);
    xpu_long(c, a->x.shape[0]);
    xpu_int(c, a->add);
    xpu_faults(c);
}

static gdn_status pack(gdn_queue *q, const gdn_linear_op_args *a, const xpu_weight *w, cl_mem *to,
                       gdn_err *err) {
    const int64_t steps = xpu_steps(w->base.k), n_row = a->y.shape[0];
    const int64_t rows = over(n_row, PACKED) * PACKED;
    const gdn_status st = xpu_scratch(q, 0, (uint64_t)(rows * steps * STEP) * 2, to, err);
    if (st != GDN_OK) return st;
    xpu_call c = xpu_begin(q, "linear_xmx", "linear_pack");
    xpu_memory(&c, *to);
    xpu_tensor(&c, &a->x, 1);
    xpu_tensor(&c, &a->row, 0);
    xpu_int(&c, w->base.k);
    xpu_int(&c, n_row);
    xpu_int(&c, a->row.buf != NULL);
    xpu_long(&c, a->x.shape[0]);
    xpu_faults(&c);
    return xpu_start(&c, (const int64_t[3]){steps, rows / 8, 1}, (const int[3]){128, 1, 1}, err);
}

/* The same bits in all forms; the numbers of rows are about what each was made for. */
gdn_status xpu_linear_x(gdn_queue *q, const gdn_linear_op_args *a, gdn_err *err) {
    const xpu_weight *w = xpu_weight_of(a->w);
    const int sg = xpu_of(q)->sg;
    const int64_t n_row = a->y.shape[0], columns = over(w->base.n, sg);
    const int items[3] = {XPU_PARTS * sg, 1, 1};
    if (n_row == 0) return GDN_OK;
    if (a->x.type == GDN_F32) {
        xpu_call c = xpu_begin(q, "linear_xmx", "linear_wide");
        common(&c, a, w);
        return xpu_start(&c, (const int64_t[3]){columns, over(n_row, WIDE), 1}, items, err);
    }
    /* Block loads of rows as they lie. */
    const bool aligned = w->base.k % STEP == 0 && a->x.at % 4 == 0 && a->x.stride[0] % 4 == 0;
    if (n_row <= FEW && aligned) {
        xpu_call c = xpu_begin(q, "linear_xmx", n_row == 1 ? "linear_row" : "linear_rows");
        common(&c, a, w);
        return xpu_start(&c, (const int64_t[3]){columns, 1, 1}, items, err);
    }
    cl_mem x;
    const gdn_status st = pack(q, a, w, &x, err);
    if (st != GDN_OK) return st;
    const bool tile = n_row > PACKED;
    xpu_call c = tile ? xpu_begin(q, "linear_tile_xmx", "linear_tile")
                      : xpu_begin(q, "linear_xmx", "linear_block");
    xpu_tensor(&c, &a->y, 1);
    xpu_memory(&c, x);
    xpu_memory(&c, w->data);
    xpu_int(&c, w->base.n);
    xpu_int(&c, xpu_steps(w->base.k));
    xpu_int(&c, n_row);
    xpu_int(&c, a->add);
    const int64_t groups[3] = {tile ? over(columns, TILE_BLOCKS) : columns,
                               over(n_row, tile ? PACKED : BLOCK), 1};
    return xpu_start(&c, groups, items, err);
}

/* What project_rows does not do: f32 rows, and gates that share a block column with the other half,
 * too. */
static bool composed(const gdn_project_args *a, int sg, int64_t row_bytes) {
    const int64_t n_row = a->y.shape[0];
    const bool norm = a->norm_w.buf != NULL;
    return n_row < 1 || n_row > FEW || n_row * row_bytes > STAGED || (!norm && !a->swiglu) ||
           (norm ? a->work_x.type : a->x.type) != GDN_BF16 ||
           (a->swiglu && a->w->n / 2 % sg != 0);
}

gdn_status xpu_project_x(gdn_queue *q, const gdn_project_args *a, gdn_err *err) {
    const xpu_weight *w = xpu_weight_of(a->w);
    const int sg = xpu_of(q)->sg;
    const int64_t n_row = a->y.shape[0], k = w->base.k, steps = xpu_steps(w->base.k);
    const int64_t row_bytes = steps * STEP * (int64_t)sizeof(uint16_t);
    if (composed(a, sg, row_bytes)) return GDN_E_UNSUPPORTED; /* the caller does */
    const int64_t d = a->x.shape[a->x.ndim - 1], results = a->swiglu ? 2 : 1;
    const int64_t slack = FEW * STEP * (int64_t)sizeof(uint16_t);
    const int64_t sums = results * XPU_PARTS * n_row * sg * (int64_t)sizeof(float);
    xpu_call c = xpu_begin(q, "project_xmx", "project_rows");
    xpu_project_rows(&c, a);
    xpu_memory(&c, w->data);
    xpu_int(&c, w->base.n);
    xpu_int(&c, k);
    xpu_int(&c, steps);
    xpu_int(&c, n_row);
    xpu_int(&c, a->add);
    xpu_int(&c, a->norm_w.buf != NULL);
    xpu_int(&c, a->z.buf != NULL);
    xpu_int(&c, k / d);
    xpu_int(&c, a->swiglu);
    xpu_int(&c, a->y.type);
    xpu_float(&c, a->eps);
    xpu_local(&c, (size_t)(n_row * row_bytes + slack + sums));
    const int64_t groups[3] = {over(w->base.n / results, sg), 1, 1};
    return xpu_start(&c, groups, (const int[3]){XPU_PARTS * sg, 1, 1}, err);
}

gdn_status xpu_embed_x(gdn_queue *q, const gdn_embed_args *a, gdn_err *err) {
    enum { ITEMS = 64 };
    const xpu_weight *w = xpu_weight_of(a->weight);
    xpu_call c = xpu_begin(q, "linear_xmx", "embed_packed");
    xpu_tensor(&c, &a->y, 1);
    xpu_tensor(&c, &a->ids, 0);
    xpu_memory(&c, w->data);
    xpu_int(&c, w->base.n);
    xpu_int(&c, w->base.k);
    xpu_int(&c, xpu_steps(w->base.k));
    xpu_faults(&c);
    const int64_t groups[3] = {over(w->base.k, ITEMS), a->ids.shape[0], 1};
    return xpu_start(&c, groups, (const int[3]){ITEMS, 1, 1}, err);
}
