/* delta_chunk_amx_avx2.c - the chunked delta rule of machines with AMX over a model of its tiles,
 * for machines without. */
#include "delta_chunk_models.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "../../src/kern/vec/vec_avx2.h"

#define GDN_AMX_MODEL
#include "../../src/kern/vec/amx.h"

#include "../../src/kern/delta/delta_chunk_turn_avx2.h"
#include "delta_chunk_words_avx2.h"

#include "../../src/kern/delta/delta_chunk_amx_body.h"

void delta_chunk_amx_model(const gdn_delta_chunk_args *a) {
    delta_chunk_amx_body(a);
}
