/* norm_gated_avx512.c - the gated norm, sixteen values at a time. */
#include "norm_gated.h"

#include "../vec/vec_avx512.h"

static inline void put_f16(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

#include "norm_gated_body.h"

void gdn_norm_gated_avx512(const gdn_norm_gated_args *a) {
    norm_gated_body(a);
}
