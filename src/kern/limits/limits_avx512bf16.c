/* limits_avx512bf16.c - the peak of bf16 pairs: an instruction adds two products to each
 * of 16 sums. */
#include <immintrin.h>

#include "limits.h"

/* clang-format off */
#define SUMS(X)                                                          \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)        \
    X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)
/* clang-format on */

float gdn_limit_dot_avx512bf16(int64_t rounds) {
    const __m512i m = _mm512_set1_epi32(0x3f803f80); /* two ones */
#define START(i) __m512 r##i = _mm512_set1_ps(i);
#define STEP(i)  __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(r##i) : "v"(m));
#define JOIN(i)  s = _mm512_add_ps(s, r##i);
    SUMS(START)
    for (int64_t k = 0; k < rounds; k++) {
        SUMS(STEP)
    }
    __m512 s = _mm512_setzero_ps();
    SUMS(JOIN)
    return _mm512_reduce_add_ps(s);
}
