/* act_body.h - the feed-forward gate over vf. */

INLINE void values(const gdn_swiglu_args *a, int64_t row, int i, int n) {
    const int64_t x = row * a->x_stride + i;
    const vf v = vf_mul(vf_silu(vf_get(a->g + x, n)), vf_get(a->u + x, n));
    vf_put_as(a->y, a->y_bf16, row * a->y_stride + i, v, n);
}

INLINE void swiglu_body(const gdn_swiglu_args *a) {
    for (int64_t row = 0; row < a->n_row; row++) {
        int i = 0;
        for (; i + VF_N <= a->n; i += VF_N) values(a, row, i, VF_N);
        if (i < a->n) values(a, row, i, a->n - i);
    }
}
