/* norm_ref.c - RMS normalisation as an equation. */
#include "norm.h"

#include <math.h>

#include "../../base/half.h"

static void one_group(const gdn_norm_args *a, int64_t row, int64_t head) {
    const float *x = a->x + row * a->x_stride + head * a->x_head_stride;
    const float *z =
        a->z == NULL ? NULL : a->z + row * a->z_stride + head * a->z_head_stride;
    const int64_t y = row * a->y_stride + head * a->y_head_stride;
    double sum = 0;
    for (int i = 0; i < a->d; i++) sum += (double)x[i] * (double)x[i];
    const double f = 1 / sqrt(sum / a->d + (double)a->eps);
    for (int i = 0; i < a->d; i++) {
        double v = (double)x[i] * f * (double)a->w[i];
        if (z != NULL) v *= (double)z[i] / (1 + exp(-(double)z[i]));
        if (a->y_bf16)
            ((uint16_t *)a->y)[y + i] = gdn_f32_to_bf16((float)v);
        else
            ((float *)a->y)[y + i] = (float)v;
    }
}

void gdn_norm_ref(const gdn_norm_args *a) {
    for (int64_t row = 0; row < a->n_row; row++)
        for (int64_t head = 0; head < a->n_head; head++) one_group(a, row, head);
}
