/* delta_chunk_models.h - chunked forms without the instructions they are made for: the same text over a
 * model of AMX's tiles and of products of pairs.  Slow, and not for a machine without AVX2. */
#ifndef GDN_CHECK_DELTA_CHUNK_MODELS_H
#define GDN_CHECK_DELTA_CHUNK_MODELS_H

#include "../../src/kern/delta/delta_chunk.h"

gdn_delta_chunk_fn delta_chunk_amx_model, delta_chunk_pairs_model;

#endif
