/* delta_chunk_avx512.c - chunked delta rule, sixteen tokens a vector. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../vec/vec_avx512.h"

#include "delta_chunk_f32.h"

enum { MM_ROWS = 4, TRI_ROWS = 8, SCORE_ROWS = 8 };

#include "delta_chunk_turn_avx512.h"

#include "delta_chunk_body.h"

void gdn_delta_chunk_avx512(const gdn_delta_chunk_args *a) {
    delta_chunk_body(a);
}
