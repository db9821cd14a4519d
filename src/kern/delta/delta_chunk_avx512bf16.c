/* delta_chunk_avx512bf16.c - chunked delta rule whose products take pairs of bf16. */
#include "delta_chunk.h"

#include <stddef.h>
#include <string.h>

#include "../vec/vec_avx512.h"

enum { PAIR = 2, MM_ROWS = 4, TRI_ROWS = 8 };

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

#include "delta_chunk_turn_avx512.h"

#include "delta_chunk_body.h"

void gdn_delta_chunk_avx512bf16(const gdn_delta_chunk_args *a) {
    if (a->bf16) delta_chunk_body(a);
    else gdn_delta_chunk_avx512(a);
}
