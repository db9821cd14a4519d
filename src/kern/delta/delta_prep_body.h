/* delta_prep_body.h - l2 norms of query and key, decay and write strength, over vf. */
#include <math.h>

INLINE void scale_head(float *x, int n, float scale) {
    const vf f = vf_set1(scale / sqrtf(vf_sum_squares(x, n) + 1e-6f));
    int i = 0;
    for (; i + VF_N <= n; i += VF_N) vf_store(x + i, vf_mul(vf_load(x + i), f));
    if (i < n) vf_store_n(x + i, vf_mul(vf_load_n(x + i, n - i), f), n - i);
}

INLINE void gates(const gdn_delta_prep_args *a, int64_t t, int h, int n) {
    const vf one = vf_set1(1.0f), b = vf_get(a->b + t * a->ba_stride + h, n);
    const vf x =
        vf_add(vf_get(a->a + t * a->ba_stride + h, n), vf_get(a->dt_bias + h, n));
    const vf rate = vf_exp(vf_get(a->A_log + h, n));
    const vf g = vf_sub(vf_zero(), vf_mul(rate, vf_softplus(x)));
    vf_put(a->beta + t * a->gate_stride + h,
           vf_div(one, vf_add(one, vf_exp(vf_sub(vf_zero(), b)))), n);
    vf_put(a->alpha + t * a->gate_stride + h, vf_exp(g), n);
    if (a->g != NULL) vf_put(a->g + t * a->gate_stride + h, g, n);
}

INLINE void delta_prep_body(const gdn_delta_prep_args *a) {
    const float root = 1 / sqrtf((float)a->dk);
    for (int64_t t = 0; t < a->n_tok; t++) {
        for (int64_t h = 0; h < a->hk; h++) {
            scale_head(a->q + t * a->qk_stride + h * a->dk, a->dk, root);
            scale_head(a->k + t * a->qk_stride + h * a->dk, a->dk, 1.0f);
        }
        int h = 0;
        for (; h + VF_N <= a->hv; h += VF_N) gates(a, t, h, VF_N);
        if (h < a->hv) gates(a, t, h, a->hv - h);
    }
}
