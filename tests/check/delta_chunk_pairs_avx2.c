/* delta_chunk_pairs_avx2.c - the chunked delta rule in pairs of bf16 over sums of f32, for machines
 * without AVX-512-BF16. */
#include "delta_chunk_models.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../../src/kern/vec/vec_avx2.h"

enum { PANEL = 2 };
static inline int tile_rows(int cols) {
    (void)cols;
    return 8;
}

#include "../../src/kern/delta/delta_chunk_turn_avx2.h"
#include "delta_chunk_words_avx2.h"

INLINE vf word_fma(vf a, vf b, vf c) {
    return vf_fma(vf_high(a), vf_high(b), vf_fma(vf_low(a), vf_low(b), c));
}
INLINE vf vf_get_words(const uint16_t *x, int n) {
    float words[VF_N] = {0};
    memcpy(words, x, (size_t)n * sizeof *words);
    return vf_load(words);
}
INLINE vf vf_row_words(vf low, vf high) {
    uint16_t x[2 * VF_N];
    vf_store_bf16(x, low);
    vf_store_bf16(x + VF_N, high);
    return vf_get_words(x, VF_N);
}
INLINE vf vf_zip(vf x, vf y, int half) {
    float from[2][VF_N];
    uint16_t row[2][2 * VF_N], to[2 * VF_N];
    vf_store(from[0], x);
    vf_store(from[1], y);
    memcpy(row, from, sizeof row);
    for (int i = 0; i < 2 * VF_N; i++) to[i] = row[i % 2][half * VF_N + i / 2];
    return vf_get_words(to, VF_N);
}

#include "../../src/kern/delta/delta_chunk_pairs.h"

#include "../../src/kern/delta/delta_chunk_body.h"

void delta_chunk_pairs_model(const gdn_delta_chunk_args *a) {
    delta_chunk_body(a);
}
