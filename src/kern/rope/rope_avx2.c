/* rope_avx2.c - norm and rotation, eight values at a time. */
#include "rope.h"

#include "../vec/vec_avx2.h"

#include "rope_body.h"

void gdn_rope_avx2(const gdn_rope_args *a) {
    rope_body(a);
}
