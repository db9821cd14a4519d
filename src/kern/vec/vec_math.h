/* vec_math.h - functions over vf that need no more than the names of vec_<isa>.h.
 *
 * exp(x) = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, and the Taylor polynomial of
 * e^r to degree 7: within 2 units in the last place.  Arguments below -87.33 give 0 (there are
 * no subnormal results), above 88.72 infinity; NaN stays NaN. */
#define INLINE static inline __attribute__((always_inline))

#define EACH for (int i_ = 0; i_ < n; i_++)

/* n <= 8 vectors in place, step by step side by side: one alone waits for each of its steps. */
INLINE void vf_exp_each(vf *x, int n) {
    const vf lo = vf_set1(-87.33f), hi = vf_set1(89.0f);
    vf k[8], r[8], p[8];
    /* min and max return their second operand when one is NaN: keep x there. */
    EACH r[i_] = vf_min(hi, vf_max(lo, x[i_]));
    EACH k[i_] = vf_round(vf_mul(r[i_], vf_set1(1.44269504f)));
    EACH r[i_] = vf_fma(k[i_], vf_set1(-0.693145752f), r[i_]); /* ln 2 in two parts */
    EACH r[i_] = vf_fma(k[i_], vf_set1(-1.42860677e-6f), r[i_]);
    EACH p[i_] = vf_fma(vf_set1(1.98412698e-4f), r[i_], vf_set1(1.38888889e-3f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(8.33333333e-3f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(4.16666667e-2f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(1.66666667e-1f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(0.5f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(1.0f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(1.0f));
    /* e^89 overflows here */
    EACH x[i_] = vf_select_lt(x[i_], lo, vf_zero(), vf_scale2(p[i_], k[i_]));
}
INLINE vf vf_exp(vf x) {
    vf_exp_each(&x, 1);
    return x;
}

INLINE vf vf_sigmoid(vf x) {
    return vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}
INLINE vf vf_silu(vf x) {
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}
/* x / (1 + 2^t), t = -x / ln 2 in one float, which moves the result by up to 8e-8 |x| of itself
 * where x < 0: for sums of many, where small results need not be good to their last bits.
 * 2^t from its fraction by the polynomial of degree 6 that is 1 at 0 and errs by 2e-9 at most. */
INLINE void vf_silu_each(vf *x, int n) {
    vf t[8], r[8], p[8];
    EACH t[i_] = vf_exp2_range(vf_mul(x[i_], vf_set1(-1.44269504f)));
    EACH r[i_] = vf_fraction(t[i_]);
    EACH p[i_] = vf_fma(vf_set1(2.16129149e-4f), r[i_], vf_set1(1.2467847e-3f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(9.67545155e-3f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(5.54852821e-2f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(2.40229309e-1f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(6.93147063e-1f));
    EACH p[i_] = vf_fma(p[i_], r[i_], vf_set1(1.0f));
    EACH p[i_] = vf_add(vf_set1(1.0f), vf_scale2_floor(p[i_], t[i_]));
    EACH x[i_] = vf_div(x[i_], p[i_]);
}

/* log(1 + e^x) = max(x, 0) + log(1 + u) with u = e^-|x|, and log(1 + u) = 2 artanh(u / (2 + u))
 * by its series: the argument is at most 1/3, eight terms leave 2e-9.  Relative precision
 * holds for very negative x too, where the result is e^x. */
INLINE vf vf_softplus(vf x) {
    const vf minus_abs = vf_min(vf_sub(vf_zero(), x), x);
    const vf u = vf_exp(minus_abs);
    const vf s = vf_div(u, vf_add(u, vf_set1(2.0f))), s2 = vf_mul(s, s);
    vf p = vf_set1(1.0f / 15);
    p = vf_fma(p, s2, vf_set1(1.0f / 13));
    p = vf_fma(p, s2, vf_set1(1.0f / 11));
    p = vf_fma(p, s2, vf_set1(1.0f / 9));
    p = vf_fma(p, s2, vf_set1(1.0f / 7));
    p = vf_fma(p, s2, vf_set1(1.0f / 5));
    p = vf_fma(p, s2, vf_set1(1.0f / 3));
    p = vf_fma(p, s2, vf_set1(1.0f));
    return vf_fma(vf_add(s, s), p, vf_max(vf_zero(), x));
}

/* Sum of squares of n values, in an order that depends on n alone. */
static inline float vf_sum_squares(const float *x, int n) {
    vf s[4] = { vf_zero(), vf_zero(), vf_zero(), vf_zero() };
    int i = 0;
    for (; i + 4 * VF_N <= n; i += 4 * VF_N)
        for (int j = 0; j < 4; j++) {
            const vf v = vf_load(x + i + j * VF_N);
            s[j] = vf_fma(v, v, s[j]);
        }
    for (; i + VF_N <= n; i += VF_N) {
        const vf v = vf_load(x + i);
        s[0] = vf_fma(v, v, s[0]);
    }
    if (i < n) {
        const vf v = vf_load_n(x + i, n - i);
        s[1] = vf_fma(v, v, s[1]);
    }
    return vf_hsum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

/* The first n lanes, whole registers without a mask.  With n constant the test goes away. */
INLINE vf vf_get(const float *p, int n) { return n == VF_N ? vf_load(p) : vf_load_n(p, n); }
INLINE void vf_put(float *p, vf x, int n) {
    if (n == VF_N) vf_store(p, x);
    else vf_store_n(p, x, n);
}
/* Element at of an f32 or bf16 array. */
INLINE void vf_put_as(void *p, bool bf16, int64_t at, vf x, int n) {
    if (!bf16) vf_put((float *)p + at, x, n);
    else if (n == VF_N) vf_store_bf16((uint16_t *)p + at, x);
    else vf_store_bf16_n((uint16_t *)p + at, x, n);
}
