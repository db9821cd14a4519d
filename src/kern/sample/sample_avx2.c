/* sample_avx2.c - what a sampler needs, 8 floats a vector. */
#include "../vec/vec_avx2.h"

static inline unsigned equal_lanes(vf a, vf b) {
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
static inline unsigned greater_lanes(vf a, vf b) {
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
static inline unsigned nan_lanes(vf a, vf b) {
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q));
}

typedef __m256d vd;
static inline vd vd_zero(void) { return _mm256_setzero_pd(); }
static inline vd vd_add(vd acc, vf x) {
    return _mm256_add_pd(acc, _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                                            _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))));
}
static inline double vd_hsum(vd x) {
    const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

#include "sample_body.h"

gdn_range gdn_range_avx2(const float *x, int32_t n) { return range_body(x, n); }
int32_t gdn_argmax_avx2(const float *x, int32_t n) { return argmax_body(x, n); }
double gdn_logsumexp_avx2(const float *x, int32_t n) { return logsumexp_body(x, n); }
int32_t gdn_top_k_avx2(const float *x, int32_t n, int32_t k, int32_t *idx) {
    return top_k_body(x, n, k, idx);
}
