/* moe_avx512.c - routing and combining experts, 16 floats a vector. */
#include "../vec/vec_avx512.h"

static inline unsigned equal_lanes(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

#include "moe_body.h"

void gdn_moe_route_avx512(const gdn_moe_route_args *a) { route_body(a); }
void gdn_moe_combine_avx512(const gdn_moe_combine_args *a) { combine_body(a); }
