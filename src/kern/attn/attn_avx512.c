/* attn_avx512.c - attention with 16 floats a vector; bf16 is widened. */
#include "../vec/vec_avx512.h"

#include "attn_tree_avx512.h"

typedef float se;
typedef vf sv;
enum { SV_N = VF_N, SCORE_Q = 4, STRIP = 4 };
static inline sv sv_load(const se *p) { return vf_load(p); }
static inline sv sv_load_n(const se *p, int n) { return vf_load_n(p, n); }
static inline vf sv_dot(vf acc, sv a, sv b) { return vf_fma(a, b, acc); }

#define WIDEN 1

#include "attn_block_body.h"
#include "attn_merge_body.h"

void gdn_attn_block_avx512(const gdn_attn_block_args *a) { block_body(a); }
void gdn_attn_merge_avx512(const gdn_attn_merge_args *a) { merge_body(a); }
void gdn_attn_finish_avx512(const gdn_attn_finish_args *a) { finish_body(a); }
