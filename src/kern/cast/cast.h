/* cast.h - rows of bf16 and f16 to f32 and back.
 *
 * Widening is exact; narrowing rounds to nearest, ties to even, and NaN stays NaN.  An element's
 * result depends on that element alone. */
#ifndef GDN_KERN_CAST_H
#define GDN_KERN_CAST_H

#include <stdint.h>

typedef enum { GDN_HALF_BF16, GDN_HALF_F16, GDN_HALF_TYPES } gdn_half;

typedef void gdn_widen_fn(float *to, const uint16_t *from, int64_t n);
typedef void gdn_narrow_fn(uint16_t *to, const float *from, int64_t n);
/* To the 16-bit type and back, in place. */
typedef void gdn_round_fn(float *x, int64_t n);

gdn_widen_fn  gdn_widen_bf16_ref, gdn_widen_bf16_avx2, gdn_widen_bf16_avx512;
gdn_widen_fn  gdn_widen_f16_ref, gdn_widen_f16_avx2, gdn_widen_f16_avx512;
gdn_narrow_fn gdn_narrow_bf16_ref, gdn_narrow_bf16_avx2, gdn_narrow_bf16_avx512;
gdn_narrow_fn gdn_narrow_f16_ref, gdn_narrow_f16_avx2, gdn_narrow_f16_avx512;
gdn_round_fn  gdn_round_bf16_ref, gdn_round_bf16_avx2, gdn_round_bf16_avx512;
gdn_round_fn  gdn_round_f16_ref, gdn_round_f16_avx2, gdn_round_f16_avx512;

#endif
