/* delta_prep_avx512.c - inputs of the delta rule, sixteen values at a time. */
#include "delta.h"

#include <stddef.h>

#include "../vec/vec_avx512.h"

#include "delta_prep_body.h"

void gdn_delta_prep_avx512(const gdn_delta_prep_args *a) {
    delta_prep_body(a);
}
