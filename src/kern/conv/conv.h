/* conv.h - causal depthwise convolution over time with carried state.
 *
 *     y_t[c] = silu( bias[c] + sum_j w[j][c] u_{t-W+1+j}[c] ),   u_t = x_t, before the call: state
 *
 * The state is the last W-1 inputs, before convolution and activation, oldest first.  A bf16
 * state would lose bits that a longer call keeps, so with one every input is rounded to bf16
 * first: then cutting a sequence into calls changes nothing. */
#ifndef GDN_KERN_CONV_H
#define GDN_KERN_CONV_H

#include <stdbool.h>
#include <stdint.h>

/* Channels c0 <= c < c1 of one sequence.  Strides in elements. */
typedef struct {
    float       *y;      /* [n_tok] x y_stride, row of C    out                           */
    uint16_t    *y_in_bf16; /* the same rounded to bf16 in place of y, or NULL            */
    const float *x;      /* [n_tok] x x_stride, row of C    not overlapping y             */
    const uint16_t *x_bf16; /* the same in bf16 in place of x, or NULL                    */
    void        *state;  /* [W-1] x state_stride, row of C  in/out, f32 or bf16           */
    const float *w;      /* [W][C]     tap W-1 multiplies the newest input                */
    const float *bias;   /* [C] or NULL                                                   */
    int64_t y_stride, x_stride, state_stride;
    int32_t n_tok, C, c0, c1, W; /* n_tok >= 1, 2 <= W <= 8                               */
    bool    state_bf16;
    bool    y_bf16;      /* y is rounded to bf16, and stays f32 in memory                 */
    bool    has_state;   /* false: the state counts as zeros and is not read              */
} gdn_conv_args;
typedef void gdn_conv_fn(const gdn_conv_args *a);

gdn_conv_fn gdn_conv_ref, gdn_conv_avx2, gdn_conv_avx512, gdn_conv_avx512bf16;

#endif
