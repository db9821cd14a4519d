/* cast_ref.c - conversions one value at a time. */
#include "cast.h"

#include "../../base/half.h"

void gdn_widen_bf16_ref(float *to, const uint16_t *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = gdn_bf16_to_f32(from[i]);
}

void gdn_widen_f16_ref(float *to, const uint16_t *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = gdn_f16_to_f32(from[i]);
}

void gdn_narrow_bf16_ref(uint16_t *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = gdn_f32_to_bf16(from[i]);
}

void gdn_narrow_f16_ref(uint16_t *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = gdn_f32_to_f16(from[i]);
}

void gdn_round_bf16_ref(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = gdn_bf16_to_f32(gdn_f32_to_bf16(x[i]));
}

void gdn_round_f16_ref(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = gdn_f16_to_f32(gdn_f32_to_f16(x[i]));
}
