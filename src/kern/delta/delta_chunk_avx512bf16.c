/* delta_chunk_avx512bf16.c - chunked delta rule whose products take pairs of bf16. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../vec/subnormal.h"
#include "../vec/vec_avx512.h"

enum { MM_ROWS = 4, TRI_ROWS = 8, SCORE_ROWS = 8 };

INLINE vf word_fma(vf a, vf b, vf c) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a),
                            (__m512bh)_mm512_castps_si512(b));
}

INLINE vf words(vf low, vf high) {
    return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(high, low));
}
INLINE void pack_row(float *to, const float *x, int n) {
    int i = 0;
    for (; i + 32 <= n; i += 32) vf_store(to + i / 2, words(vf_load(x + i), vf_load(x + i + 16)));
    if (i + 16 < n)
        vf_store(to + i / 2, words(vf_load(x + i), vf_load_n(x + i + 16, n - i - 16)));
    else if (i < n)
        vf_store(to + i / 2, words(vf_load_n(x + i, n - i), vf_zero()));
}

INLINE void pack_pair(float *to, const float *a, const float *b, int n) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    for (int i = 0; i < n; i += VF_N) {
        const int left = n - i < VF_N ? n - i : VF_N;
        const __m512i x = _mm512_castps_si512(vf_get(a + i, left));
        const __m512i y = _mm512_castps_si512(vf_get(b + i, left));
        const __m512i pair = _mm512_or_si512(_mm512_srli_epi32(x, 16), _mm512_and_si512(y, high));
        vf_store(to + i, _mm512_castsi512_ps(pair));
    }
}

/* GDN_DELTA_CHUNK numbers, in place: their words, then the words of what these leave. */
INLINE void pack_parts(float *x) {
    const vf a = vf_load(x), b = vf_load(x + 16), hi = words(a, b);
    const __m512i w = _mm512_castps_si512(hi);
    const vf a_hi = _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(w)), 16));
    const vf b_hi = _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(w, 1)), 16));
    vf_store(x, hi);
    vf_store(x + 16, words(vf_sub(a, a_hi), vf_sub(b, b_hi)));
}

#include "delta_chunk_turn_avx512.h"

#include "delta_chunk_pairs_body.h"

void gdn_delta_chunk_avx512bf16(const gdn_delta_chunk_args *a) {
    if (!a->bf16) {
        gdn_delta_chunk_avx512(a);
        return;
    }
    const unsigned subnormals = subnormals_off();
    delta_chunk_pairs_body(a);
    subnormals_as_before(subnormals);
}
