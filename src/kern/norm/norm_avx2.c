/* norm_avx2.c - normalisation, eight values at a time. */
#include "norm.h"

#include "../vec/vec_avx2.h"

#include "norm_body.h"

void gdn_norm_avx2(const gdn_norm_args *a) {
    norm_body(a);
}
