/* half.h - bf16, f16 and fp8 (e4m3) to f32 and back, one value at a time.
 *
 * Rounding is to nearest, ties to even, as the hardware conversions do; NaN stays NaN. */
#ifndef GDN_BASE_HALF_H
#define GDN_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float gdn_f32_of_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline uint32_t gdn_bits_of_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float gdn_bf16_to_f32(uint16_t h) { return gdn_f32_of_bits((uint32_t)h << 16); }

static inline uint16_t gdn_f32_to_bf16(float f) {
    const uint32_t u = gdn_bits_of_f32(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40); /* quiet NaN */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static inline float gdn_f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return gdn_f32_of_bits(sign | 0x7f800000u | m << 13);
    if (e != 0) return gdn_f32_of_bits(sign | (e + 112) << 23 | m << 13);
    const float f = (float)m * 0x1p-24f; /* subnormal or zero */
    return sign ? -f : f;
}

static inline uint16_t gdn_f32_to_f16(float f) {
    const uint32_t u = gdn_bits_of_f32(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* rounds past 65504 */
    if (a < 0x38800000u) { /* subnormal in f16: let the f32 adder round at 2^-24 */
        const float r = gdn_f32_of_bits(a) + 0.5f;
        return (uint16_t)(sign | (gdn_bits_of_f32(r) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1)) >> 13));
}

/* e4m3fn: no infinities, 0x7f and 0xff are NaN. */
static inline float gdn_fp8_to_f32(uint8_t b) {
    const uint32_t sign = (uint32_t)(b & 0x80) << 24, e = b >> 3 & 15, m = b & 7;
    if (e == 15 && m == 7) return gdn_f32_of_bits(sign | 0x7fc00000u);
    if (e != 0) return gdn_f32_of_bits(sign | (e + 120) << 23 | m << 20);
    const float f = (float)m * 0x1p-9f;
    return sign ? -f : f;
}

#endif
