/* delta_prep_avx2.c - inputs of the delta rule, eight values at a time. */
#include "delta.h"

#include <stddef.h>

#include "../vec/vec_avx2.h"

#include "delta_prep_body.h"

void gdn_delta_prep_avx2(const gdn_delta_prep_args *a) {
    delta_prep_body(a);
}
