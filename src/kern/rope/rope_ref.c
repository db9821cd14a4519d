/* rope_ref.c - norm and rotation of a head as equations. */
#include "rope.h"

#include <math.h>

#include "../../base/half.h"

static void put(const gdn_rope_args *a, int64_t at, double v) {
    if (a->y_bf16)
        ((uint16_t *)a->y)[at] = gdn_f32_to_bf16((float)v);
    else
        ((float *)a->y)[at] = (float)v;
}

static void one_head(const gdn_rope_args *a, int64_t row, int64_t head) {
    const float *x = a->x + row * a->x_stride + head * a->x_head_stride;
    const float *c = a->cs + row * a->rot, *s = c + a->rot / 2;
    const int64_t y = row * a->y_stride + head * a->y_head_stride;
    double sum = 0;
    for (int i = 0; i < a->d; i++) sum += (double)x[i] * (double)x[i];
    const double f = 1 / sqrt(sum / a->d + (double)a->eps);
    const int half = a->rot / 2;
    for (int j = 0; j < half; j++) {
        const double lo = (double)x[j] * f * (double)a->w[j];
        const double hi = (double)x[j + half] * f * (double)a->w[j + half];
        put(a, y + j, lo * (double)c[j] - hi * (double)s[j]);
        put(a, y + j + half, hi * (double)c[j] + lo * (double)s[j]);
    }
    for (int j = a->rot; j < a->d; j++) put(a, y + j, (double)x[j] * f * (double)a->w[j]);
}

void gdn_rope_ref(const gdn_rope_args *a) {
    for (int64_t row = 0; row < a->n_row; row++)
        for (int64_t head = 0; head < a->n_head; head++) one_head(a, row, head);
}
