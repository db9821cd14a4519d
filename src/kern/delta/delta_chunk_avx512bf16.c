/* delta_chunk_avx512bf16.c - chunked delta rule, sixteen rows of the state a vector, its products in
 * pairs of bf16. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../vec/subnormal.h"
#include "../vec/vec_avx512.h"

/* 16 sums with 2 vectors and a number in 32 registers. */
enum { PANEL = 2 };
static inline int tile_rows(int cols) {
    (void)cols;
    return 8;
}

#include "delta_chunk_turn_avx512.h"
#include "delta_chunk_words_avx512.h"

INLINE vf word_fma(vf a, vf b, vf c) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}
INLINE vf vf_row_words(vf low, vf high) {
    return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(high, low));
}
INLINE vf vf_get_words(const uint16_t *x, int n) {
    return _mm512_castsi512_ps(n == VF_N ? _mm512_loadu_si512(x)
                                         : _mm512_maskz_loadu_epi32(vf_mask_(n), x));
}
INLINE vf vf_zip(vf x, vf y, int half) {
    const __m512i at = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39,
                                        7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i from = _mm512_add_epi16(at, _mm512_set1_epi16((short)(half * 16)));
    return _mm512_castsi512_ps(
        _mm512_permutex2var_epi16(_mm512_castps_si512(x), from, _mm512_castps_si512(y)));
}

#include "delta_chunk_pairs.h"

#include "delta_chunk_body.h"

/* Keys that bf16 does not have would leave the state off by 4e-3. */
void gdn_delta_chunk_avx512bf16(const gdn_delta_chunk_args *a) {
    if (!a->bf16 || !a->raw) {
        gdn_delta_chunk_avx512(a);
        return;
    }
    const unsigned subnormals = subnormals_off();
    delta_chunk_body(a);
    subnormals_as_before(subnormals);
}
