/* lora_avx2.c - products of a low-rank adapter, 8 floats a vector, tiles of 2 rows. */
#include "lora.h"

#include "../vec/vec_avx2.h"

enum { TILE_ROWS = 2 };
#include "lora_body.h"

void gdn_lora_avx2(const gdn_lora_args *a) { lora_body(a); }
