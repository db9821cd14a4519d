/* cast_body.h - conversions over vf; included by cast_<isa>.c, which adds what a vec_<isa>.h
 * does not have: load_f16_n, store_f16, store_f16_n and rounded_f16. */
INLINE void widen_bf16(float *to, const uint16_t *from, int64_t n) {
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N) vf_store(to + i, vf_load_bf16(from + i));
    if (i < n) vf_store_n(to + i, vf_load_bf16_n(from + i, (int)(n - i)), (int)(n - i));
}

INLINE void widen_f16(float *to, const uint16_t *from, int64_t n) {
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N) vf_store(to + i, vf_load_f16(from + i));
    if (i < n) vf_store_n(to + i, load_f16_n(from + i, (int)(n - i)), (int)(n - i));
}

INLINE void narrow_bf16(uint16_t *to, const float *from, int64_t n) {
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N) vf_store_bf16(to + i, vf_load(from + i));
    if (i < n) vf_store_bf16_n(to + i, vf_load_n(from + i, (int)(n - i)), (int)(n - i));
}

INLINE void narrow_f16(uint16_t *to, const float *from, int64_t n) {
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N) store_f16(to + i, vf_load(from + i));
    if (i < n) store_f16_n(to + i, vf_load_n(from + i, (int)(n - i)), (int)(n - i));
}

INLINE void round_bf16(float *x, int64_t n) {
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N) vf_store(x + i, vf_round_bf16(vf_load(x + i)));
    if (i < n)
        vf_store_n(x + i, vf_round_bf16(vf_load_n(x + i, (int)(n - i))), (int)(n - i));
}

INLINE void round_f16(float *x, int64_t n) {
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N) vf_store(x + i, rounded_f16(vf_load(x + i)));
    if (i < n)
        vf_store_n(x + i, rounded_f16(vf_load_n(x + i, (int)(n - i))), (int)(n - i));
}
