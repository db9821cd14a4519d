/* delta.h - gated delta rule: contract shared by every variant.
 *
 * One value head keeps a matrix S[dv][dk].  A token fades it, corrects what it would have
 * answered for key k towards v, and reads it with q:
 *
 *     m = alpha (S k)        d = beta (v - m)        S = alpha S + d k^T        o = S q
 *
 * Source: Yang, Kautz, Hatamizadeh, "Gated Delta Networks", arXiv:2412.06464.
 *
 * Rows of S are independent of each other, so a call may do any range of them.  A variant's
 * result for a row depends on nothing but that row and its tokens: cutting the tokens into
 * several calls, or the rows into several calls, gives the same bits. */
#ifndef GDN_KERN_DELTA_H
#define GDN_KERN_DELTA_H

#include <stdint.h>

/* n_tok tokens of one value head, rows v0 <= j < v1.  Strides in elements. */
typedef struct {
    float       *S;     /* [dv][dk]              in/out: state, dk innermost            */
    float       *o;     /* [n_tok] x o_stride, row of dv                out             */
    const float *q;     /* [n_tok] x q_stride, row of dk    normalised, times dk^-0.5   */
    const float *k;     /* [n_tok] x k_stride, row of dk    normalised                  */
    const float *v;     /* [n_tok] x v_stride, row of dv                                */
    const float *alpha; /* [n_tok] x gate_stride   decay exp(g), 0..1                   */
    const float *beta;  /* [n_tok] x gate_stride   write strength, 0..1                 */
    int64_t o_stride, q_stride, k_stride, v_stride, gate_stride;
    int32_t n_tok;
    int32_t dk, dv;     /* dk: a multiple of 8 up to 256; dv: any                       */
    int32_t v0, v1;
    /* Called every other token of some rows, or less often, or never, so that a caller has
     * something else done between them, such as asking for memory; NULL: nothing. */
    void  (*aside)(void *arg);
    void   *aside_arg;
} gdn_delta_args;
typedef void gdn_delta_fn(const gdn_delta_args *a);

/* From the convolution's output and the raw gates to the delta rule's inputs, in place:
 *
 *     q = q / sqrt(sum q^2 + 1e-6) dk^-0.5      k = k / sqrt(sum k^2 + 1e-6)
 *     beta = sigmoid(b)      g = -exp(A_log) softplus(a + dt_bias)      alpha = exp(g)
 *
 * softplus(x) = log(1 + e^x), x itself from 20 on. */
typedef struct {
    float       *q, *k;        /* [n_tok] x qk_stride, row of hk*dk    in/out           */
    float       *alpha, *beta; /* [n_tok] x gate_stride, row of hv     out              */
    float       *g;            /* the same, or NULL: not wanted        out              */
    const float *b, *a;        /* [n_tok] x ba_stride, row of hv                        */
    const float *A_log, *dt_bias; /* [hv]                                               */
    int64_t qk_stride, gate_stride, ba_stride;
    int32_t n_tok, hk, hv, dk;
} gdn_delta_prep_args;
typedef void gdn_delta_prep_fn(const gdn_delta_prep_args *a);

gdn_delta_fn      gdn_delta_ref, gdn_delta_avx2, gdn_delta_avx512;
gdn_delta_prep_fn gdn_delta_prep_ref, gdn_delta_prep_avx2, gdn_delta_prep_avx512;

#endif
