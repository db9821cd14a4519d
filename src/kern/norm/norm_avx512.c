/* norm_avx512.c - normalisation, sixteen values at a time. */
#include "norm.h"

#include "../vec/vec_avx512.h"

#include "norm_body.h"

void gdn_norm_avx512(const gdn_norm_args *a) {
    norm_body(a);
}
