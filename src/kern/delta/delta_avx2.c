/* delta_avx2.c - gated delta rule, groups of eight rows. */
#include "delta.h"

#include <stddef.h>

#include "../vec/vec_avx2.h"

#include "delta_body.h"

void gdn_delta_avx2(const gdn_delta_args *a) {
    delta_body(a);
}
