/* limits_avx2.c - the loops of limits.h in vectors of 32 bytes.
 *
 * The instructions are written out.  A compiler may reorder the loads of a read loop, and
 * memory that is not read in ascending order comes 10 % slower; it may move sums to
 * memory, and then the other loop measures that. */
#include <immintrin.h>

#include "limits.h"

#define OR(s, at) __asm__ volatile("vpor %1, %0, %0" : "+x"(s) : "m"(v[at]))

uint64_t gdn_limit_read_avx2(const void *p, uint64_t bytes) {
    const __m256i *v = p, *end = v + bytes / sizeof *v;
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (; v < end; v += 8) {
        OR(a, 0);
        OR(b, 1);
        OR(c, 2);
        OR(d, 3);
        OR(a, 4);
        OR(b, 5);
        OR(c, 6);
        OR(d, 7);
    }
    uint64_t w[4];
    a = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    _mm256_storeu_si256((__m256i *)w, a);
    return w[0] | w[1] | w[2] | w[3];
}

/* 12 sums: enough to cover the latency, few enough for 16 registers. */
/* clang-format off */
#define SUMS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
/* clang-format on */

float gdn_limit_fma_avx2(int64_t rounds) {
    const __m256 m = _mm256_set1_ps(0.999f), n = _mm256_set1_ps(1e-3f);
#define START(i) __m256 r##i = _mm256_set1_ps(i);
#define STEP(i)  __asm__ volatile("vfmadd231ps %1, %2, %0" : "+x"(r##i) : "x"(m), "x"(n));
#define JOIN(i)  s = _mm256_add_ps(s, r##i);
    SUMS(START)
    for (int64_t k = 0; k < rounds; k++) {
        SUMS(STEP)
    }
    __m256 s = _mm256_setzero_ps();
    SUMS(JOIN)
    return _mm256_cvtss_f32(s);
}
