/* linear_avx2.c - f32 inputs, 8 outputs a vector: tiles of 4 rows by 2 vectors, of two rows by 4,
 * of one row by 8.
 *
 * Several rows take several passes over the columns of a stretch.  Short stretches keep what the
 * next pass reads in L1 and let memory be read nearly in order. */
#include "linear.h"

#include "../vec/vec_avx2.h"

static inline vf vf_load_pair_lo(const char *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p), 16));
}
static inline vf vf_load_pair_hi(const char *p) {
    return _mm256_castsi256_ps(_mm256_and_si256(
        _mm256_loadu_si256((const __m256i *)(const void *)p), _mm256_set1_epi32((int)0xffff0000)));
}
/* e4m3 bits moved to where f16 has sign, exponent and mantissa: 2^-8 of the value. */
static inline vf vf_load_f8(const uint8_t *p) {
    const __m128i b = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p));
    const __m128i sign = _mm_slli_epi16(_mm_and_si128(b, _mm_set1_epi16(0x80)), 8);
    const __m128i rest = _mm_slli_epi16(_mm_and_si128(b, _mm_set1_epi16(0x7f)), 7);
    return _mm256_cvtph_ps(_mm_or_si128(sign, rest));
}
enum { TILE_ROWS = 4, TILE_VECS = 2, TILE_VECS_2 = 4, TILE_VECS_1 = 8, K_FEW = 32 };
#include "linear_body.h"

void gdn_linear_avx2(const gdn_linear_args *a) { linear_f32(a); }
