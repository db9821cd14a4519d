/* vec_avx512.h - sixteen floats.  Same names as every vec_<isa>.h.
 *
 * hsum and hmax reduce in one fixed order.  The _n forms touch the first n lanes only
 * (1 <= n <= VF_N); the others load as zero. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

typedef __m512 vf;
enum { VF_N = 16 };

static inline vf   vf_zero(void)            { return _mm512_setzero_ps(); }
static inline vf   vf_set1(float x)         { return _mm512_set1_ps(x); }
static inline vf   vf_load(const float *p)  { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf   vf_add(vf a, vf b)       { return _mm512_add_ps(a, b); }
static inline vf   vf_sub(vf a, vf b)       { return _mm512_sub_ps(a, b); }
static inline vf   vf_mul(vf a, vf b)       { return _mm512_mul_ps(a, b); }
static inline vf   vf_div(vf a, vf b)       { return _mm512_div_ps(a, b); }
static inline vf   vf_max(vf a, vf b)       { return _mm512_max_ps(a, b); }
static inline vf   vf_min(vf a, vf b)       { return _mm512_min_ps(a, b); }
static inline vf   vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }

static inline __mmask16 vf_mask_(int n) { return (__mmask16)(0xffffu >> (16 - n)); }
static inline vf vf_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(vf_mask_(n), p); }
static inline void vf_store_n(float *p, vf x, int n) { _mm512_mask_storeu_ps(p, vf_mask_(n), x); }

static inline float vf_hsum(vf x) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float vf_hmax(vf x) {
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* Sums of VF_N registers, one a lane.  vf_hsum4 adds the lanes of four registers within each
 * quarter of 128 bits, vf_hsum_join the quarters of VF_N / 4 such results.  Every lane's tree
 * has the same shape: ((l0 + l2) + (l1 + l3)) in a quarter, then quarters in neighbouring pairs. */
static inline vf vf_hsum4(vf a, vf b, vf c, vf d) {
    const vf ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const vf cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
}
static inline vf vf_hsum_join(const vf *x) {
    const vf lo = _mm512_add_ps(_mm512_shuffle_f32x4(x[0], x[1], 0x88),
                                _mm512_shuffle_f32x4(x[0], x[1], 0xdd));
    const vf hi = _mm512_add_ps(_mm512_shuffle_f32x4(x[2], x[3], 0x88),
                                _mm512_shuffle_f32x4(x[2], x[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(lo, hi, 0x88), _mm512_shuffle_f32x4(lo, hi, 0xdd));
}

/* bf16 in memory, f32 in registers; rounds to nearest even, NaN stays NaN. */
static inline vf vf_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline vf vf_load_bf16_n(const uint16_t *p, int n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vf_mask_(n), p)), 16));
}
/* Rounded to bf16 and back. */
static inline vf vf_round_bf16(vf x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_castsi512_ps(_mm512_and_si512(r, _mm512_set1_epi32((int)0xffff0000)));
}
/* The instruction takes numbers below 2^-126 for zeros. */
static inline __m256i vf_to_bf16_(vf x) {
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(x);
#else
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(vf_round_bf16(x)), 16));
#endif
}
static inline void vf_store_bf16(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)p, vf_to_bf16_(x));
}
/* Past the caches, to whole vectors' addresses. */
static inline void vf_stream(float *p, vf x) { _mm512_stream_ps(p, x); }
static inline void vf_stream_bf16(uint16_t *p, vf x) {
    _mm256_stream_si256((__m256i *)p, vf_to_bf16_(x));
}
static inline void vf_store_bf16_n(uint16_t *p, vf x, int n) {
    _mm256_mask_storeu_epi16(p, vf_mask_(n), vf_to_bf16_(x));
}
static inline vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* 2^n for integral n in [-126, 127], and the nearest integer. */
static inline vf vf_round(vf x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_exp2i(vf n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}

/* x 2^n for integral n in [-126, 129]; past the range of f32 the result is infinite. */
static inline vf vf_scale2(vf x, vf n) { return _mm512_scalef_ps(x, n); }

/* x where 2^x is a normal number or infinite, which scalef sees to; what is left of it above the
 * next lower integer (0 of an infinite one); and p 2^(that integer) for p in [1, 2]. */
static inline vf vf_exp2_range(vf x) { return x; }
static inline vf vf_fraction(vf x) {
    return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline vf vf_scale2_floor(vf p, vf x) { return _mm512_scalef_ps(p, x); }

/* a < b ? yes : no, lane by lane; no where a or b is NaN. */
static inline vf vf_select_lt(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}

#include "vec_math.h"
