/* vec_avx2.h - eight floats.  Same names as every vec_<isa>.h.
 *
 * hsum and hmax reduce in one fixed order.  The _n forms touch the first n lanes only
 * (1 <= n <= VF_N); the others load as zero. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

typedef __m256 vf;
enum { VF_N = 8 };

static inline vf   vf_zero(void)            { return _mm256_setzero_ps(); }
static inline vf   vf_set1(float x)         { return _mm256_set1_ps(x); }
static inline vf   vf_load(const float *p)  { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf   vf_add(vf a, vf b)       { return _mm256_add_ps(a, b); }
static inline vf   vf_sub(vf a, vf b)       { return _mm256_sub_ps(a, b); }
static inline vf   vf_mul(vf a, vf b)       { return _mm256_mul_ps(a, b); }
static inline vf   vf_div(vf a, vf b)       { return _mm256_div_ps(a, b); }
static inline vf   vf_max(vf a, vf b)       { return _mm256_max_ps(a, b); }
static inline vf   vf_min(vf a, vf b)       { return _mm256_min_ps(a, b); }
static inline vf   vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }

static inline __m256i vf_mask_(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_n(const float *p, int n) { return _mm256_maskload_ps(p, vf_mask_(n)); }
static inline void vf_store_n(float *p, vf x, int n) { _mm256_maskstore_ps(p, vf_mask_(n), x); }

static inline float vf_hsum(vf x) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float vf_hmax(vf x) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* Sums of VF_N registers, one a lane.  vf_hsum4 adds the lanes of four registers within each
 * quarter of 128 bits, vf_hsum_join the quarters of VF_N / 4 such results.  Every lane's tree
 * has the same shape: ((l0 + l2) + (l1 + l3)) in a quarter, then quarters in neighbouring pairs. */
static inline vf vf_hsum4(vf a, vf b, vf c, vf d) {
    const vf ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const vf cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    return _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
}
static inline vf vf_hsum_join(const vf *x) {
    return _mm256_add_ps(_mm256_permute2f128_ps(x[0], x[1], 0x20),
                         _mm256_permute2f128_ps(x[0], x[1], 0x31));
}

/* bf16 in memory, f32 in registers; rounds to nearest even, NaN stays NaN. */
static inline vf vf_load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static inline vf vf_load_bf16_n(const uint16_t *p, int n) {
    uint16_t t[8] = {0};
    for (int i = 0; i < n; i++) t[i] = p[i];
    return vf_load_bf16(t);
}
/* Rounded to bf16 and back. */
static inline vf vf_round_bf16(vf x) {
    const __m256i u = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
    return _mm256_castsi256_ps(_mm256_and_si256(r, _mm256_set1_epi32((int)0xffff0000)));
}
static inline __m128i vf_to_bf16_(vf x) {
    const __m256i r = _mm256_srli_epi32(_mm256_castps_si256(vf_round_bf16(x)), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
static inline void vf_store_bf16(uint16_t *p, vf x) {
    _mm_storeu_si128((__m128i *)p, vf_to_bf16_(x));
}
/* Past the caches, to whole vectors' addresses. */
static inline void vf_stream(float *p, vf x) { _mm256_stream_ps(p, x); }
static inline void vf_stream_bf16(uint16_t *p, vf x) {
    _mm_stream_si128((__m128i *)p, vf_to_bf16_(x));
}
static inline void vf_store_bf16_n(uint16_t *p, vf x, int n) {
    uint16_t t[8];
    vf_store_bf16(t, x);
    for (int i = 0; i < n; i++) p[i] = t[i];
}
static inline vf vf_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

/* 2^n for integral n in [-126, 127], and the nearest integer. */
static inline vf vf_round(vf x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_exp2i(vf n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}

/* x 2^n for integral n in [-126, 129]; past the range of f32 the result is infinite.  2^128 is
 * not a float, so the power goes in two steps. */
static inline vf vf_scale2(vf x, vf n) {
    const vf h = vf_round(vf_mul(n, vf_set1(0.5f)));
    return vf_mul(vf_mul(x, vf_exp2i(h)), vf_exp2i(vf_sub(n, h)));
}

/* x where 2^x is a normal number or infinite; what is left of it above the next lower integer;
 * and p 2^(that integer) for p in [1, 2]. */
static inline vf vf_exp2_range(vf x) {
    return _mm256_min_ps(vf_set1(128.0f), _mm256_max_ps(vf_set1(-126.0f), x));
}
static inline vf vf_fraction(vf x) { return _mm256_sub_ps(x, _mm256_floor_ps(x)); }
static inline vf vf_scale2_floor(vf p, vf x) {
    const __m256i n = _mm256_slli_epi32(_mm256_cvtps_epi32(_mm256_floor_ps(x)), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n));
}

/* a < b ? yes : no, lane by lane; no where a or b is NaN. */
static inline vf vf_select_lt(vf a, vf b, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}

#include "vec_math.h"
