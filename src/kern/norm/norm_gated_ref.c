/* norm_gated_ref.c - the gated norm as an equation, in double. */
#include "norm_gated.h"

#include <math.h>

#include "../../base/half.h"

static double get(const void *p, gdn_type t, int64_t i) {
    if (t == GDN_F32) return (double)((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];
    return (double)(t == GDN_BF16 ? gdn_bf16_to_f32(h) : gdn_f16_to_f32(h));
}

static void put(void *p, gdn_type t, int64_t i, double v) {
    if (t == GDN_F32) ((float *)p)[i] = (float)v;
    else ((uint16_t *)p)[i] = t == GDN_BF16 ? gdn_f32_to_bf16((float)v) : gdn_f32_to_f16((float)v);
}

static double gate(const gdn_norm_gated_args *a, double z) {
    const double e = 1 + exp(-z);
    return a->gate == GDN_GATE_SILU ? z / e : 1 / e;
}

static void one_group(const gdn_norm_gated_args *a, int64_t row, int64_t head) {
    const void *x = (const char *)a->x + row * a->x_stride + head * a->x_head_stride;
    const void *z = (const char *)a->z + row * a->z_stride + head * a->z_head_stride;
    void *y = (char *)a->y + row * a->y_stride + head * a->y_head_stride;
    double sum = 0;
    for (int64_t i = 0; i < a->d; i++) {
        double v = get(x, a->x_type, i);
        if (a->norm_after_gate) v *= gate(a, get(z, a->x_type, i));
        sum += v * v;
    }
    const double f = 1 / sqrt(sum / (double)a->d + (double)a->eps);
    for (int64_t i = 0; i < a->d; i++)
        put(y, a->y_type, i,
            get(x, a->x_type, i) * f * get(a->w, a->w_type, i) * gate(a, get(z, a->x_type, i)));
}

void gdn_norm_gated_ref(const gdn_norm_gated_args *a) {
    for (int64_t row = 0; row < a->n_row; row++)
        for (int64_t head = 0; head < a->n_head; head++) one_group(a, row, head);
}
