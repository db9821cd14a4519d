/* linear_avx512.c - f32 inputs, 16 outputs a vector: tiles of 6 rows by 4 vectors. */
#include "linear.h"

#include "../vec/vec_avx512.h"

static inline vf vf_load_pair_lo(const char *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
static inline vf vf_load_pair_hi(const char *p) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}
/* e4m3 bits moved to where f16 has sign, exponent and mantissa: 2^-8 of the value. */
static inline vf vf_load_f8(const uint8_t *p) {
    const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(b, _mm256_set1_epi16(0x80)), 8);
    const __m256i rest = _mm256_slli_epi16(_mm256_and_si256(b, _mm256_set1_epi16(0x7f)), 7);
    return _mm512_cvtph_ps(_mm256_or_si256(sign, rest));
}
enum { TILE_ROWS = 6, TILE_VECS = 4, TILE_VECS_2 = 4, TILE_VECS_1 = 4, K_FEW = 256 };
#include "linear_body.h"

void gdn_linear_avx512(const gdn_linear_args *a) { linear_f32(a); }
