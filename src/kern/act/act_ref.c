/* act_ref.c - the feed-forward gate as an equation. */
#include "act.h"

#include <math.h>

#include "../../base/half.h"

void gdn_swiglu_ref(const gdn_swiglu_args *a) {
    for (int64_t row = 0; row < a->n_row; row++) {
        const float *g = a->g + row * a->x_stride, *u = a->u + row * a->x_stride;
        for (int64_t i = 0; i < a->n; i++) {
            const float v =
                (float)((double)g[i] / (1 + exp(-(double)g[i])) * (double)u[i]);
            const int64_t at = row * a->y_stride + i;
            if (a->y_bf16)
                ((uint16_t *)a->y)[at] = gdn_f32_to_bf16(v);
            else
                ((float *)a->y)[at] = v;
        }
    }
}
