/* norm_body.h - RMS normalisation over vf; lanes run along the group. */
#include <math.h>

INLINE void values(const gdn_norm_args *a, const float *x, const float *z, int64_t y,
                   vf f, bool gated, bool bf16, int i, int n) {
    vf v = vf_mul(vf_mul(vf_get(x + i, n), f), vf_get(a->w + i, n));
    if (gated) v = vf_mul(v, vf_silu(vf_get(z + i, n)));
    vf_put_as(a->y, bf16, y + i, v, n);
}

INLINE void one_group(const gdn_norm_args *a, int64_t row, int64_t head, bool gated,
                      bool bf16) {
    const float *x = a->x + row * a->x_stride + head * a->x_head_stride;
    const float *z = gated ? a->z + row * a->z_stride + head * a->z_head_stride : NULL;
    const int64_t y = row * a->y_stride + head * a->y_head_stride;
    const vf f = vf_set1(1 / sqrtf(vf_sum_squares(x, a->d) / (float)a->d + a->eps));
    int i = 0;
    for (; i + VF_N <= a->d; i += VF_N) values(a, x, z, y, f, gated, bf16, i, VF_N);
    if (i < a->d) values(a, x, z, y, f, gated, bf16, i, a->d - i);
}

INLINE void rows(const gdn_norm_args *a, bool gated, bool bf16) {
    for (int64_t row = 0; row < a->n_row; row++)
        for (int64_t head = 0; head < a->n_head; head++)
            one_group(a, row, head, gated, bf16);
}

INLINE void norm_body(const gdn_norm_args *a) {
    if (a->z != NULL)
        a->y_bf16 ? rows(a, true, true) : rows(a, true, false);
    else
        a->y_bf16 ? rows(a, false, true) : rows(a, false, false);
}
