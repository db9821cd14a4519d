/* limits_ref.c - the loops of limits.h in vectors of 16 bytes, which every machine we
 * build for has; without a fused multiply-add, as the baseline of x86-64 has none. */
#include "limits.h"

typedef float f4 __attribute__((vector_size(16)));
typedef uint64_t u2 __attribute__((vector_size(16)));

uint64_t gdn_limit_read_ref(const void *p, uint64_t bytes) {
    const u2 *v = p;
    const uint64_t n = bytes / sizeof *v;
    u2 a = {0, 0}, b = a, c = a, d = a;
    for (uint64_t i = 0; i < n; i += 8) {
        a |= v[i], b |= v[i + 1], c |= v[i + 2], d |= v[i + 3];
        a |= v[i + 4], b |= v[i + 5], c |= v[i + 6], d |= v[i + 7];
    }
    a |= b | c | d;
    return a[0] | a[1];
}

/* 12 sums: enough to cover the latency, few enough for 16 registers. */
/* clang-format off */
#define SUMS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
/* clang-format on */

float gdn_limit_fma_ref(int64_t rounds) {
    const f4 m = {0.999f, 0.999f, 0.999f, 0.999f}, n = {1e-3f, 1e-3f, 1e-3f, 1e-3f};
#define START(i) f4 r##i = {i, i, i, i};
#define STEP(i)  r##i = r##i * m + n;
#define JOIN(i)  s += r##i;
    SUMS(START)
    for (int64_t k = 0; k < rounds; k++) {
        SUMS(STEP)
    }
    f4 s = {0, 0, 0, 0};
    SUMS(JOIN)
    return s[0] + s[1] + s[2] + s[3];
}
