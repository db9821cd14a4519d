/* delta_chunk_words_avx2.h - words of two bf16 without AVX-512-BF16, for the models of the chunked
 * forms; after vec_avx2.h. */

INLINE vf vf_near(vf x) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(0x8000)));
}
INLINE vf vf_low(vf x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16));
}
INLINE vf vf_high(vf x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000)));
}
INLINE vf vf_pair(vf low, vf high) {
    const __m256i x = _mm256_srli_epi32(_mm256_castps_si256(low), 16);
    return _mm256_or_ps(vf_high(high), _mm256_castsi256_ps(x));
}
INLINE vf vf_words_bf16(const uint16_t *x) { return vf_pair(vf_load_bf16(x), vf_load_bf16(x + 16)); }
INLINE void vf_store_two_bf16(uint16_t *p, vf x, vf y) {
    vf_store_bf16(p, x);
    vf_store_bf16(p + 8, y);
}
INLINE void vf_stream_two_bf16(uint16_t *p, vf x, vf y) {
    vf_stream_bf16(p, x);
    vf_stream_bf16(p + 8, y);
}
INLINE vf vf_squares(vf words, vf sum) {
    const vf x = vf_low(words), y = vf_high(words);
    return vf_fma(y, y, vf_fma(x, x, sum));
}
INLINE vf vf_words(vf low, vf high) { return vf_pair(vf_round_bf16(low), vf_round_bf16(high)); }
