/* norm_gated_avx2.c - the gated norm, eight values at a time. */
#include "norm_gated.h"

#include "../vec/vec_avx2.h"

static inline void put_f16(uint16_t *p, vf x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

#include "norm_gated_body.h"

void gdn_norm_gated_avx2(const gdn_norm_gated_args *a) {
    norm_gated_body(a);
}
