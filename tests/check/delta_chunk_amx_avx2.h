/* delta_chunk_amx_avx2.h - gdn_delta_chunk_amx without AMX: the same text over a model of the tiles.
 * Slow, and not for a machine without AVX2. */
#ifndef GDN_CHECK_DELTA_CHUNK_AMX_AVX2_H
#define GDN_CHECK_DELTA_CHUNK_AMX_AVX2_H

#include "../../src/kern/delta/delta_chunk.h"

gdn_delta_chunk_fn delta_chunk_amx_model;

#endif
