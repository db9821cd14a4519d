/* limits_amx.c - the peak of tiles: an instruction adds 32 products to each of 256 sums. */
#include "limits.h"

#include "../vec/amx.h"

float gdn_limit_dot_amx(int64_t rounds) {
    static const uint8_t whole[8] = {16, 16, 16, 16, 16, 16, 16, 16};
    uint32_t ones[16][16];
    float sum[16][16], s = 0;
    for (int i = 0; i < 256; i++) ones[i / 16][i % 16] = 0x3f803f80; /* two ones */
    amx_begin(whole);
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
    amx_load(4, ones, 64);
    amx_load(5, ones, 64);
    for (int64_t k = 0; k < rounds; k++) {
        amx_dot(0, 4, 5);
        amx_dot(1, 4, 5);
        amx_dot(2, 4, 5);
        amx_dot(3, 4, 5);
    }
#define JOIN(t)               \
    amx_store(t, sum, 64);    \
    for (int i = 0; i < 256; i++) s += sum[i / 16][i % 16];
    JOIN(0)
    JOIN(1)
    JOIN(2)
    JOIN(3)
#undef JOIN
    amx_end();
    return s;
}
