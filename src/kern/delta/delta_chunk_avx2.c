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

#include "delta_chunk_turn_avx2.h"

#include "delta_chunk_f32.h"

#include "delta_chunk_body.h"

void gdn_delta_chunk_avx2(const gdn_delta_chunk_args *a) {
    delta_chunk_body(a);
}
