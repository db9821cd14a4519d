/* attn_avx2.c - attention with 8 floats a vector; bf16 is widened. */
#include "../vec/vec_avx2.h"

/* Adding up the lanes of 8 accumulators: each step leaves the sums of a's halves beside the
 * sums of b's.  Addition commutes, so every accumulator goes through the same tree. */
static inline vf add_halves(vf a, vf b) { /* 128 bits: a to lanes 0-3, b to 4-7 */
    return vf_add(_mm256_blend_ps(a, b, 0xf0), _mm256_permute2f128_ps(a, b, 0x21));
}
static inline vf add_pairs(vf a, vf b) { /* 64 bits within each 128 */
    return vf_add(_mm256_blend_ps(a, b, 0xcc), _mm256_shuffle_ps(a, b, 0x4e));
}
static inline vf add_neighbours(vf a, vf b) { /* 32 bits within each 64 */
    return vf_add(_mm256_blend_ps(a, b, 0xaa),
                  _mm256_permute_ps(_mm256_blend_ps(b, a, 0xaa), 0xb1));
}
/* Keys j, j + 2, j + 4, j + 6. */
static inline vf sum4(vf a, vf b, vf c, vf d) {
    return add_pairs(add_halves(a, c), add_halves(b, d));
}
static inline vf sum_last(const vf *quad) { return add_neighbours(quad[0], quad[1]); }

typedef float se;
typedef vf sv;
enum { SV_N = VF_N, SCORE_Q = 2, STRIP = 2 };
static inline sv sv_load(const se *p) { return vf_load(p); }
static inline sv sv_load_n(const se *p, int n) { return vf_load_n(p, n); }
static inline vf sv_dot(vf acc, sv a, sv b) { return vf_fma(a, b, acc); }

#define WIDEN 1

#include "attn_block_body.h"
#include "attn_merge_body.h"

void gdn_attn_block_avx2(const gdn_attn_block_args *a) { block_body(a); }
void gdn_attn_merge_avx2(const gdn_attn_merge_args *a) { merge_body(a); }
void gdn_attn_finish_avx2(const gdn_attn_finish_args *a) { finish_body(a); }
