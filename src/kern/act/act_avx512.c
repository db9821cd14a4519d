/* act_avx512.c - feed-forward gate, sixteen values at a time. */
#include "act.h"

#include "../vec/vec_avx512.h"

#include "act_body.h"

void gdn_swiglu_avx512(const gdn_swiglu_args *a) {
    swiglu_body(a);
}
