/* rope_body.h - norm and rotation of heads over vf; lanes run along the head. */
#include <assert.h>
#include <math.h>

enum { MAX_HEAD = 256 };

INLINE void rotate(const gdn_rope_args *a, const float *x, const float *c, int64_t y,
                   int j, int n) {
    const int half = a->rot / 2;
    const vf lo = vf_get(x + j, n), hi = vf_get(x + half + j, n);
    const vf cosine = vf_get(c + j, n), sine = vf_get(c + half + j, n);
    vf_put_as(a->y, a->y_bf16, y + j, vf_sub(vf_mul(lo, cosine), vf_mul(hi, sine)), n);
    vf_put_as(a->y, a->y_bf16, y + half + j, vf_fma(lo, sine, vf_mul(hi, cosine)), n);
}

INLINE void one_head(const gdn_rope_args *a, int64_t row, int64_t head) {
    const float *x = a->x + row * a->x_stride + head * a->x_head_stride;
    const float *c = a->cs + row * a->rot;
    const int64_t y = row * a->y_stride + head * a->y_head_stride;
    const int d = a->d, half = a->rot / 2;
    float v[MAX_HEAD];
    assert(d <= MAX_HEAD);
    const vf f = vf_set1(1 / sqrtf(vf_sum_squares(x, d) / (float)d + a->eps));
    int i = 0;
    for (; i + VF_N <= d; i += VF_N)
        vf_store(v + i, vf_mul(vf_mul(vf_load(x + i), f), vf_load(a->w + i)));
    if (i < d) {
        const int n = d - i;
        vf_store_n(v + i, vf_mul(vf_mul(vf_load_n(x + i, n), f), vf_load_n(a->w + i, n)),
                   n);
    }
    for (i = 0; i + VF_N <= half; i += VF_N) rotate(a, v, c, y, i, VF_N);
    if (i < half) rotate(a, v, c, y, i, half - i);
    for (i = a->rot; i + VF_N <= d; i += VF_N)
        vf_put_as(a->y, a->y_bf16, y + i, vf_load(v + i), VF_N);
    if (i < d) vf_put_as(a->y, a->y_bf16, y + i, vf_load_n(v + i, d - i), d - i);
}

INLINE void rope_body(const gdn_rope_args *a) {
    for (int64_t row = 0; row < a->n_row; row++)
        for (int64_t head = 0; head < a->n_head; head++) one_head(a, row, head);
}
