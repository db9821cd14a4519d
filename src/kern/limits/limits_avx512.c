/* limits_avx512.c - the loops of limits.h in vectors of 64 bytes.
 *
 * The instructions are written out.  A compiler may reorder the loads of a read loop, and
 * memory that is not read in ascending order comes 10 % slower; it may move sums to
 * memory, and then the other loop measures that. */
#include <immintrin.h>

#include "limits.h"

#define OR(s, at) __asm__ volatile("vporq %1, %0, %0" : "+v"(s) : "m"(v[at]))

uint64_t gdn_limit_read_avx512(const void *p, uint64_t bytes) {
    const __m512i *v = p, *end = v + bytes / sizeof *v;
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
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
    a = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
    return (uint64_t)_mm512_reduce_or_epi64(a);
}

/* clang-format off */
#define SUMS(X)                                                          \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)        \
    X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)
/* clang-format on */

float gdn_limit_fma_avx512(int64_t rounds) {
    const __m512 m = _mm512_set1_ps(0.999f), n = _mm512_set1_ps(1e-3f);
#define START(i) __m512 r##i = _mm512_set1_ps(i);
#define STEP(i)  __asm__ volatile("vfmadd231ps %1, %2, %0" : "+v"(r##i) : "v"(m), "v"(n));
#define JOIN(i)  s = _mm512_add_ps(s, r##i);
    SUMS(START)
    for (int64_t k = 0; k < rounds; k++) {
        SUMS(STEP)
    }
    __m512 s = _mm512_setzero_ps();
    SUMS(JOIN)
    return _mm512_reduce_add_ps(s);
}
