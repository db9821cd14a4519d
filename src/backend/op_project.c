/* op_project.c - a projection with its norm and its gate: checked, then handed to the device in one
 * piece or, where it has none, in three. */
#include "check.h"

static gdn_status check(const gdn_queue *q, const gdn_project_args *a, gdn_err *err) {
    static const char op[] = "project";
    if (a->w == NULL || a->w->device != q->device || a->w->n_expert != 1)
        REFUSE("project: w is not a plain weight of this device");
    if (a->add && a->swiglu) REFUSE("project: add and swiglu exclude each other");
    const int64_t n = a->w->n, k = a->w->k;
    const unsigned input = F32 | (a->w->input_type == GDN_BF16 ? BF16 : F32);
    if (a->norm_w.buf == NULL) {
        CHECK(x, input, ANY, k);
        if (a->z.buf != NULL) REFUSE("project: z without norm_w");
    } else if (a->x.ndim == 3) {
        CHECK(x, F32, ANY, ANY, ANY);
        if (a->x.shape[1] * a->x.shape[2] != k)
            REFUSE("project: x has %lld heads of %lld, w has %lld inputs", (long long)a->x.shape[1],
                   (long long)a->x.shape[2], (long long)k);
        CHECK_OPT(z, F32, a->x.shape[0], a->x.shape[1], a->x.shape[2]);
        CHECK(norm_w, F32, a->x.shape[2]);
    } else {
        CHECK(x, F32, ANY, k);
        CHECK_OPT(z, F32, a->x.shape[0], k);
        CHECK(norm_w, F32, k);
    }
    const int64_t n_row = a->x.shape[0];
    if (a->norm_w.buf != NULL) {
        CHECK(work_x, input, n_row, k);
        if (!(a->eps >= 0.0f)) REFUSE("project: eps is %g", (double)a->eps);
    }
    if (!a->swiglu) {
        CHECK(y, F32, n_row, n);
        if (a->norm_w.buf == NULL) APART(1, ARG(y), ARG(x));
        else APART(2, ARG(y), ARG(work_x), ARG(x), ARG(z), ARG(norm_w));
        return GDN_OK;
    }
    if (n % 2 != 0) REFUSE("project: swiglu of %lld outputs", (long long)n);
    CHECK(y, F32 | BF16, n_row, n / 2);
    CHECK(work_y, F32, n_row, n);
    if (a->norm_w.buf == NULL) APART(2, ARG(y), ARG(work_y), ARG(x));
    else APART(3, ARG(y), ARG(work_y), ARG(work_x), ARG(x), ARG(z), ARG(norm_w));
    return GDN_OK;
}

/* Normalised rows in work_x. */
static gdn_status norm(gdn_queue *q, const gdn_project_args *a, gdn_err *err) {
    gdn_rms_norm_args n = {.y = a->work_x, .x = a->x, .z = a->z, .w = a->norm_w, .eps = a->eps};
    if (a->x.ndim == 3) {
        n.y.ndim = 3;
        n.y.shape[1] = a->x.shape[1];
        n.y.shape[2] = a->x.shape[2];
        n.y.stride[2] = a->work_x.stride[1];
        n.y.stride[1] = a->x.shape[2] * n.y.stride[2];
    }
    return gdn_op_rms_norm(q, &n, err);
}

gdn_status gdn_op_project(gdn_queue *q, const gdn_project_args *a, gdn_err *err) {
    gdn_status st = check(q, a, err);
    if (st != GDN_OK) return st;
    if (q->device->backend->op.project != NULL && (st = RUN(project)) != GDN_E_UNSUPPORTED)
        return st;
    gdn_linear_op_args l = {.y = a->swiglu ? a->work_y : a->y, .x = a->x, .w = a->w, .add = a->add};
    st = GDN_OK;
    if (a->norm_w.buf != NULL) {
        st = norm(q, a, err);
        l.x = a->work_x;
    }
    if (st == GDN_OK) st = gdn_op_linear(q, &l, err);
    const gdn_swiglu_op_args s = {.y = a->y, .x = a->work_y};
    return st == GDN_OK && a->swiglu ? gdn_op_swiglu(q, &s, err) : st;
}
