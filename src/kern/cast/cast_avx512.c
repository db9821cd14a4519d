/* cast_avx512.c - conversions, sixteen values at a time. */
#include "cast.h"

#include "../vec/vec_avx512.h"

INLINE __m256i to_f16(vf x) {
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vf rounded_f16(vf x) { return _mm512_cvtph_ps(to_f16(x)); }
INLINE void store_f16(uint16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, to_f16(x)); }
INLINE void store_f16_n(uint16_t *p, vf x, int n) {
    _mm256_mask_storeu_epi16(p, vf_mask_(n), to_f16(x));
}
INLINE vf load_f16_n(const uint16_t *p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vf_mask_(n), p));
}

#include "cast_body.h"

void gdn_widen_bf16_avx512(float *to, const uint16_t *from, int64_t n) { widen_bf16(to, from, n); }
void gdn_widen_f16_avx512(float *to, const uint16_t *from, int64_t n) { widen_f16(to, from, n); }
void gdn_narrow_bf16_avx512(uint16_t *to, const float *from, int64_t n) { narrow_bf16(to, from, n); }
void gdn_narrow_f16_avx512(uint16_t *to, const float *from, int64_t n) { narrow_f16(to, from, n); }
void gdn_round_bf16_avx512(float *x, int64_t n) { round_bf16(x, n); }
void gdn_round_f16_avx512(float *x, int64_t n) { round_f16(x, n); }
