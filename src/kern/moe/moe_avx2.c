/* moe_avx2.c - routing and combining experts, 8 floats a vector. */
#include "../vec/vec_avx2.h"

static inline unsigned equal_lanes(vf a, vf b) {
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}

#include "moe_body.h"

void gdn_moe_route_avx2(const gdn_moe_route_args *a) { route_body(a); }
void gdn_moe_combine_avx2(const gdn_moe_combine_args *a) { combine_body(a); }
