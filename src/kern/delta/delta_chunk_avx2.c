/* delta_chunk_avx2.c - chunked delta rule, eight rows of the state a vector. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../vec/vec_avx2.h"

enum { PANEL = 3 };

/* 12 sums with 3 vectors and a number in 16 registers; 8 sums of a single vector, because a sum
 * takes a term every four cycles and the core two. */
static inline int tile_rows(int cols) { return cols == 1 ? 8 : 4; }

INLINE void vf_transpose(vf *x) {
    vf t[8];
    for (int i = 0; i < 8; i += 4) { /* 4 x 4 within each half */
        const vf a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
        const vf c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]);
        const vf d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44), t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44), t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

#include "delta_chunk_body.h"

void gdn_delta_chunk_avx2(const gdn_delta_chunk_args *a) {
    delta_chunk_body(a);
}
