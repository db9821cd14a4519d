/* xpu_linear.c - matrix products on the xpu, and projections in one launch (linear_xpu.cl). */
#include "xpu_x.h"

enum {
    STRETCH = 8, ITEMS = 128, /* as in linear_xpu.cl           */
    STAGED = 26 * 1024,       /* bytes of rows in local memory */
    STAGED_ROWS = 4
};

/* More items where there is more to add, and by that alone; Intel's GPUs, whose compiler takes long,
 * have one kind. */
xpu_line xpu_line_for(const gdn_queue *q, int32_t k) {
    static const xpu_line lines[] = {{16, "linear", "experts"},
                                     {32, "linear/32", "experts/32"},
                                     {64, "linear/64", "experts/64"}};
    return lines[k < 2048 || xpu_of(q)->info->intel ? 0 : k < 8192 ? 1 : 2];
}

/* A kernel, and what a line of it has. */
typedef struct {
    const char *name, *any;
    int rows, outputs;
    bool many; /* lines with rows of their own, and twice the items */
} shape;

/* By the numbers of rows and outputs; the last serves any.  Few outputs need many work-groups. */
typedef struct {
    int   n_row, n;
    shape is;
} choice;
static const choice shapes[] = {
    {1, 8192, {"linear_1", "any_linear_1", 1, 1, false}},
    {1, INT32_MAX, {"linear_1_wide", "any_linear_1_wide", 1, 2, false}},
    {2, INT32_MAX, {"linear_2", "any_linear_2", 2, 2, false}},
    {4, INT32_MAX, {"linear_4", "any_linear_4", 4, 2, false}},
    {16, INT32_MAX, {"linear_8", "any_linear_8", 8, 4, false}},
    {INT32_MAX, INT32_MAX, {"linear_many", "any_linear_many", 8, 8, true}},
};
static const choice intel_shapes[] = {
    {1, 8192, {"linear_1", "any_linear_1", 1, 1, false}},
    {1, INT32_MAX, {"linear_1_wide", "any_linear_1_wide", 1, 2, false}},
    {2, INT32_MAX, {"linear_2", "any_linear_2", 2, 2, false}},
    {8, INT32_MAX, {"linear_4", "any_linear_4", 4, 2, false}},
    {INT32_MAX, INT32_MAX, {"linear_many", "any_linear_many", 4, 4, true}},
};

static const shape *shape_for(const gdn_queue *q, int64_t n_row, int32_t n) {
    const choice *c = xpu_of(q)->info->intel ? intel_shapes : shapes;
    while (n_row > c->n_row || n > c->n) c++;
    return &c->is;
}

bool xpu_on_vectors(const gdn_tensor *x, int32_t k) {
    return k % STRETCH == 0 && x->at % 16 == 0 && x->stride[0] % 16 == 0;
}

void xpu_line_weight(xpu_call *c, const xpu_weight *w, bool whole) {
    xpu_memory(c, w->data);
    xpu_memory(c, w->scale);
    xpu_int(c, w->n_scale);
    xpu_int(c, w->scale_cols);
    xpu_int(c, w->base.type);
    xpu_int(c, w->base.n);
    xpu_int(c, w->base.k);
    xpu_int(c, whole);
}

gdn_status xpu_op_linear(gdn_queue *q, const gdn_linear_op_args *a, gdn_err *err) {
    const xpu_weight *w = xpu_weight_of(a->w);
    const int64_t n_row = a->y.shape[0];
    if (n_row > 0 && a->x.shape[0] == 0)
        return gdn_fail(err, GDN_E_INVALID, "linear: %lld rows of an x without any",
                        (long long)n_row);
    if (w->packed) return xpu_linear_x(q, a, err);
    const shape *s = shape_for(q, n_row, w->base.n);
    const bool whole = xpu_on_vectors(&a->x, w->base.k);
    const bool usual = whole && w->base.type == GDN_BF16 && a->x.type == GDN_F32;
    const xpu_line l = xpu_line_for(q, w->base.k);
    /* Lines of a work-group: those with rows of their own, those with outputs of their own. */
    const int lines = (s->many ? 2 * ITEMS : ITEMS) / l.items;
    const int row_lines = !s->many ? 1 : l.items == 16 ? 4 : 2, out_lines = lines / row_lines;
    xpu_call c = xpu_begin(q, l.linear, usual ? s->name : s->any);
    xpu_tensor(&c, &a->y, 1);
    xpu_tensor(&c, &a->x, 1);
    xpu_tensor(&c, &a->row, 0);
    xpu_line_weight(&c, w, whole);
    xpu_int(&c, n_row);
    xpu_int(&c, a->row.buf != NULL);
    xpu_long(&c, a->x.shape[0]);
    xpu_int(&c, a->add);
    xpu_int(&c, a->x.type);
    xpu_faults(&c);
    const int64_t outputs = (int64_t)s->outputs * out_lines, rows = (int64_t)s->rows * row_lines;
    const int64_t groups[3] = {(w->base.n + outputs - 1) / outputs, (n_row + rows - 1) / rows, 1};
    return xpu_start(&c, groups, (const int[3]){l.items, lines, 1}, err);
}

void xpu_project_rows(xpu_call *c, const gdn_project_args *a) {
    xpu_tensor(c, &a->y, 1);
    xpu_tensor(c, &a->x, 1);
    xpu_long(c, a->x.ndim == 3 ? a->x.stride[1] : 0);
    xpu_tensor(c, &a->z, 1);
    xpu_long(c, a->z.ndim == 3 ? a->z.stride[1] : 0);
    xpu_tensor(c, &a->norm_w, 0);
}

gdn_status xpu_op_project(gdn_queue *q, const gdn_project_args *a, gdn_err *err) {
    static const char *const names[2][STAGED_ROWS + 1] = {
        {NULL, "project_1", "project_2", "project_4", "project_4"},
        {NULL, "any_project_1", "any_project_2", "any_project_4", "any_project_4"}};
    const xpu_weight *w = xpu_weight_of(a->w);
    const int64_t n_row = a->y.shape[0], k = w->base.k;
    const xpu_line l = xpu_line_for(q, (int32_t)k);
    const int64_t step = l.items * STRETCH, room = (k + step - 1) / step * step;
    const int rows = n_row <= 2 ? (int)n_row : STAGED_ROWS;
    const bool norm = a->norm_w.buf != NULL;
    if (w->packed) return xpu_project_x(q, a, err);
    if (n_row < 1 || n_row > STAGED_ROWS || (!norm && !a->swiglu) ||
        (uint64_t)(rows * room) * sizeof(float) > STAGED)
        return GDN_E_UNSUPPORTED; /* the caller composes it */
    const int64_t d = a->x.shape[a->x.ndim - 1];
    const int lines = ITEMS / l.items;
    xpu_call c = xpu_begin(q, l.linear, names[w->base.type != GDN_BF16 || k % STRETCH != 0][n_row]);
    xpu_project_rows(&c, a);
    xpu_line_weight(&c, w, k % STRETCH == 0);
    xpu_int(&c, n_row);
    xpu_int(&c, a->add);
    xpu_int(&c, a->x.type);
    xpu_int(&c, norm);
    xpu_int(&c, a->z.buf != NULL);
    xpu_int(&c, k / d);
    xpu_int(&c, norm ? a->work_x.type : a->x.type);
    xpu_int(&c, a->swiglu);
    xpu_int(&c, a->y.type);
    xpu_float(&c, a->eps);
    xpu_local(&c, (size_t)(rows * room) * sizeof(float));
    const int64_t outputs = a->swiglu ? w->base.n / 2 : w->base.n, of = a->swiglu ? lines : 2 * lines;
    const int64_t groups[3] = {(outputs + of - 1) / of, 1, 1};
    return xpu_start(&c, groups, (const int[3]){l.items, lines, 1}, err);
}
