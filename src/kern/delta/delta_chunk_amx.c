/* delta_chunk_amx.c - chunked delta rule in AMX's tiles. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../vec/vec_avx512.h"

#include "../vec/amx.h"
#include "../vec/subnormal.h"

#include "delta_chunk_turn_avx512.h"
#include "delta_chunk_words_avx512.h"

#include "delta_chunk_amx_body.h"

void gdn_delta_chunk_amx(const gdn_delta_chunk_args *a) {
    const unsigned subnormals = subnormals_off();
    delta_chunk_amx_body(a);
    subnormals_as_before(subnormals);
}
