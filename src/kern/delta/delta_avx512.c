/* delta_avx512.c - gated delta rule, groups of sixteen rows. */
#include "delta.h"

#include <stddef.h>

#include "../vec/vec_avx512.h"

#include "delta_body.h"

void gdn_delta_avx512(const gdn_delta_args *a) {
    delta_body(a);
}
