/* attn_avx512bf16.c - attention whose bf16 scores use the bf16 dot product as keys lie in memory.
 *
 * The products of e^(s - m) and values stay in float: rounding the former to bf16 would cost
 * three decimal digits. */
#include "../vec/vec_avx512.h"

#include "attn_tree_avx512.h"

typedef uint16_t se;
typedef __m512i sv;
enum { SV_N = 32, SCORE_Q = 4, STRIP = 4 };
static inline sv sv_load(const se *p) { return _mm512_loadu_si512(p); }
static inline sv sv_load_n(const se *p, int n) {
    return _mm512_maskz_loadu_epi16(0xffffffffu >> (32 - n), p);
}
static inline vf sv_dot(vf acc, sv a, sv b) {
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}
#define WIDEN 0

#include "attn_block_body.h"

void gdn_attn_block_avx512bf16(const gdn_attn_block_args *a) {
    if (a->bf16) block_body(a);
    else gdn_attn_block_avx512(a);
}
