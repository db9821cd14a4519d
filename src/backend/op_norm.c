/* op_norm.c - gdn_rms_norm_gated(): its arguments checked. */
#include "check.h"

gdn_status gdn_rms_norm_gated(gdn_queue *q, const gdn_rms_norm_gated_args *a, gdn_err *err) {
    static const char op[] = "rms_norm_gated";
    if (a->x.ndim == 3) {
        CHECK(x, F32 | BF16 | F16, ANY, ANY, ANY);
        CHECK(z, 1u << a->x.type, a->x.shape[0], a->x.shape[1], a->x.shape[2]);
        CHECK(y, F32 | BF16 | F16, a->x.shape[0], a->x.shape[1], a->x.shape[2]);
        CHECK(w, F32 | BF16 | F16, a->x.shape[2]);
    } else {
        CHECK(x, F32 | BF16 | F16, ANY, ANY);
        CHECK(z, 1u << a->x.type, a->x.shape[0], a->x.shape[1]);
        CHECK(y, F32 | BF16 | F16, a->x.shape[0], a->x.shape[1]);
        CHECK(w, F32 | BF16 | F16, a->x.shape[1]);
    }
    if (!(a->eps >= 0.0f)) REFUSE("%s: eps is %g", op, (double)a->eps);
    if (a->gate != GDN_GATE_SILU && a->gate != GDN_GATE_SIGMOID)
        REFUSE("%s: gate is %d", op, (int)a->gate);
    if (!gdn_tensor_distinct(&a->y)) REFUSE("%s: rows of y lie on each other", op);
    if (gdn_tensors_overlap(&a->y, &a->w)) REFUSE("%s: y overlaps w", op);
    if (gdn_tensors_overlap(&a->y, &a->x) && !gdn_tensors_same(&a->y, &a->x))
        REFUSE("%s: y overlaps x and is not x itself", op);
    if (gdn_tensors_overlap(&a->y, &a->z) && !gdn_tensors_same(&a->y, &a->z))
        REFUSE("%s: y overlaps z and is not z itself", op);
    return RUN(rms_norm_gated);
}
