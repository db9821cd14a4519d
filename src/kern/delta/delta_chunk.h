/* delta_chunk.h - gated delta rule in chunks: contract shared by every variant.
 *
 * The equations of delta.h for a chunk of tokens at a time: GDN_DELTA_CHUNK of them, or a number
 * that divides it.  With G_i the sum of g within the chunk up to and including token i, and S0 the
 * state before it (rows of S are value channels):
 *
 *     A_ij = beta_i exp(G_i - G_j) (k_i . k_j)  for j < i,  1 on the diagonal;   T = A^-1
 *     U  = T (diag(beta) V - diag(beta exp(G)) K S0^T)
 *     O  = diag(exp(G)) Q S0^T + tril(Q K^T exp(G_i - G_j)) U
 *     S1 = exp(G_last) S0 + sum_i exp(G_last - G_i) u_i k_i^T
 *
 * exp is taken of differences with i >= j only, which are never positive; a short chunk's last
 * is its last token.  With bf16, k, q and S0 are rounded to it for their products with each other;
 * the gates, T, U and the state's update stay f32.  With raw as well, k and q are numbers that
 * bf16 has, so that rounding them loses nothing, and the update takes k and the decayed U in bf16,
 * that of the last tokens in two parts.  A variant may keep f32 in all of these, and may have an f32
 * as the sum of two bf16, which is 16 bits of it; one that takes bf16 has numbers below 2^-126 as
 * zeros.  A number that is none shows in all tokens from its own on, and may show in those before it
 * that share its chunk.
 *
 * Rows of S are independent: a row's result depends on nothing but that row and the tokens, not
 * on v0 and v1.  It does depend on where a call begins, because chunks are counted from there. */
#ifndef GDN_KERN_DELTA_CHUNK_H
#define GDN_KERN_DELTA_CHUNK_H

#include <stdbool.h>
#include <stdint.h>

enum { GDN_DELTA_CHUNK = 32, GDN_DELTA_CHUNK_DK = 256, GDN_DELTA_CHUNK_ASIDE = 8 };

/* n_tok tokens of one value head, rows v0 <= j < v1.  Strides in elements. */
typedef struct {
    float       *S;     /* [dv][dk]              in/out: state, dk innermost            */
    float       *o;     /* [n_tok] x o_stride, row of dv                             out */
    const float *q;     /* [n_tok] x q_stride, row of dk    normalised, times dk^-0.5   */
    const float *k;     /* [n_tok] x k_stride, row of dk    normalised; raw: neither is */
    const float *v;     /* [n_tok] x v_stride, row of dv                                */
    const uint16_t *q_bf16, *k_bf16, *v_bf16; /* if not NULL, instead of q, k and v     */
    uint16_t    *o_bf16; /* the same, rounded to the nearest                            */
    const float *g;     /* [n_tok] x gate_stride   log decay, <= 0, may be -inf or -1e4 */
    const float *beta;  /* [n_tok] x gate_stride   write strength, 0..1                 */
    float       *held;  /* gdn_delta_chunk_held() bytes, 64-aligned     the state between
                         * calls, in the variant's own order                            */
    void        *work;  /* gdn_delta_chunk_work() bytes, 64-aligned     scratch         */
    int64_t o_stride, q_stride, k_stride, v_stride, gate_stride;
    int32_t n_tok;
    int32_t dk, dv;     /* dk: a multiple of 8 up to 256; dv: any                       */
    int32_t v0, v1;
    bool    bf16;
    bool    raw;        /* q and k are still to be normalised, as gdn_delta_prep_args say */
    bool    first, last; /* of the calls that carry a state on: the first takes it from S,
                         * the last leaves it there; between them S may be out of date  */
    bool    same;       /* the last call with this work had these q and k, dk, bf16 and raw:
                         * what depends on them alone is taken from there; both of at
                         * most GDN_DELTA_CHUNK tokens                                  */
    bool    past;       /* o goes past the caches; its rows from v0 on begin at multiples
                         * of 64 bytes.  Others see it after gdn_stream_done()          */
    /* Called about GDN_DELTA_CHUNK_ASIDE times for 32 tokens of 32 rows, or less often, or never, so
     * that a caller has something else done in between, such as asking for memory; NULL: nothing. */
    void  (*aside)(void *arg);
    void   *aside_arg;
} gdn_delta_chunk_args;
typedef void gdn_delta_chunk_fn(const gdn_delta_chunk_args *a);

/* Bytes of scratch for a call over rows v0 .. v1 - 1 of any head size up to dk. */
uint64_t gdn_delta_chunk_work(int32_t dk, int32_t rows);
/* Bytes of held, the same way; a multiple of 64. */
uint64_t gdn_delta_chunk_held(int32_t dk, int32_t rows);

gdn_delta_chunk_fn gdn_delta_chunk_ref, gdn_delta_chunk_avx2, gdn_delta_chunk_avx512;
gdn_delta_chunk_fn gdn_delta_chunk_avx512bf16, gdn_delta_chunk_amx;

#endif
