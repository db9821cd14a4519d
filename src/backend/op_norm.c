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
    APART(1, ARG(y), ARG_IN_PLACE(x), ARG_IN_PLACE(z), ARG(w));
    return RUN(rms_norm_gated);
}
