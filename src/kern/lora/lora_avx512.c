/* lora_avx512.c - products of a low-rank adapter, 16 floats a vector, tiles of 4 rows. */
#include "lora.h"

#include "../vec/vec_avx512.h"

enum { TILE_ROWS = 4 };
#include "lora_body.h"

void gdn_lora_avx512(const gdn_lora_args *a) { lora_body(a); }
