/* cast_avx2.c - conversions, eight values at a time. */
#include "cast.h"

#include "../vec/vec_avx2.h"

INLINE __m128i to_f16(vf x) {
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vf rounded_f16(vf x) { return _mm256_cvtph_ps(to_f16(x)); }
INLINE void store_f16(uint16_t *p, vf x) { _mm_storeu_si128((__m128i *)p, to_f16(x)); }
INLINE void store_f16_n(uint16_t *p, vf x, int n) {
    uint16_t t[8];
    store_f16(t, x);
    for (int i = 0; i < n; i++) p[i] = t[i];
}
INLINE vf load_f16_n(const uint16_t *p, int n) {
    uint16_t t[8] = {0};
    for (int i = 0; i < n; i++) t[i] = p[i];
    return vf_load_f16(t);
}

#include "cast_body.h"

void gdn_widen_bf16_avx2(float *to, const uint16_t *from, int64_t n) { widen_bf16(to, from, n); }
void gdn_widen_f16_avx2(float *to, const uint16_t *from, int64_t n) { widen_f16(to, from, n); }
void gdn_narrow_bf16_avx2(uint16_t *to, const float *from, int64_t n) { narrow_bf16(to, from, n); }
void gdn_narrow_f16_avx2(uint16_t *to, const float *from, int64_t n) { narrow_f16(to, from, n); }
void gdn_round_bf16_avx2(float *x, int64_t n) { round_bf16(x, n); }
void gdn_round_f16_avx2(float *x, int64_t n) { round_f16(x, n); }
