/* act_avx2.c - feed-forward gate, eight values at a time. */
#include "act.h"

#include "../vec/vec_avx2.h"

#include "act_body.h"

void gdn_swiglu_avx2(const gdn_swiglu_args *a) {
    swiglu_body(a);
}
