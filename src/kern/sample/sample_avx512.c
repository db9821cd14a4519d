/* sample_avx512.c - what a sampler needs, 16 floats a vector. */
#include "../vec/vec_avx512.h"

static inline unsigned equal_lanes(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline unsigned greater_lanes(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline unsigned nan_lanes(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q);
}

typedef __m512d vd;
static inline vd vd_zero(void) { return _mm512_setzero_pd(); }
static inline vd vd_add(vd acc, vf x) {
    return _mm512_add_pd(acc, _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                                            _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))));
}
static inline double vd_hsum(vd x) { return _mm512_reduce_add_pd(x); }

#include "sample_body.h"

gdn_range gdn_range_avx512(const float *x, int32_t n) { return range_body(x, n); }
int32_t gdn_argmax_avx512(const float *x, int32_t n) { return argmax_body(x, n); }
double gdn_logsumexp_avx512(const float *x, int32_t n) { return logsumexp_body(x, n); }
int32_t gdn_top_k_avx512(const float *x, int32_t n, int32_t k, int32_t *idx) {
    return top_k_body(x, n, k, idx);
}
