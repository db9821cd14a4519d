/* rope_avx512.c - norm and rotation, sixteen values at a time. */
#include "rope.h"

#include "../vec/vec_avx512.h"

#include "rope_body.h"

void gdn_rope_avx512(const gdn_rope_args *a) {
    rope_body(a);
}
