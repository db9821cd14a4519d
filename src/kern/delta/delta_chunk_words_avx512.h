/* delta_chunk_words_avx512.h - words of two bf16 and lines of 32, for the forms that need AVX-512-BF16;
 * after vec_avx512.h. */

/* The lower half of 32 numbers, each before the one 16 further. */
INLINE vf vf_in_turn(__m512i x) {
    const __m512i in_turn = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                             8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(in_turn, x));
}
INLINE vf vf_words(vf low, vf high) { return vf_in_turn((__m512i)_mm512_cvtne2ps_pbh(high, low)); }
INLINE vf vf_words_bf16(const uint16_t *x) { return vf_in_turn(_mm512_loadu_si512(x)); }
INLINE void vf_store_two_bf16(uint16_t *p, vf x, vf y) {
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(y, x));
}
INLINE void vf_stream_two_bf16(uint16_t *p, vf x, vf y) {
    _mm512_stream_si512((void *)p, (__m512i)_mm512_cvtne2ps_pbh(y, x));
}
INLINE vf vf_squares(vf words, vf sum) {
    const __m512bh x = (__m512bh)_mm512_castps_si512(words);
    return _mm512_dpbf16_ps(sum, x, x);
}
INLINE vf vf_pair(vf low, vf high) {
    const __m512i x = _mm512_srli_epi32(_mm512_castps_si512(low), 16);
    return _mm512_castsi512_ps(
        _mm512_mask_blend_epi16(0xaaaaaaaa, x, _mm512_castps_si512(high)));
}
INLINE vf vf_near(vf x) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)));
}
INLINE vf vf_low(vf x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
}
INLINE vf vf_high(vf x) {
    return _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32((int)0xffff0000)));
}
