/* delta_chunk_avx512.c - chunked delta rule, sixteen rows of the state a vector. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../vec/vec_avx512.h"

/* 16 sums with 2 vectors and a number in 32 registers. */
enum { PANEL = 2 };
static inline int tile_rows(int cols) {
    (void)cols;
    return 8;
}

#include "delta_chunk_turn_avx512.h"

#include "delta_chunk_f32.h"

#include "delta_chunk_body.h"

void gdn_delta_chunk_avx512(const gdn_delta_chunk_args *a) {
    delta_chunk_body(a);
}
