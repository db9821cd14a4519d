/* moe.h - choosing experts for a row and adding up what they answered.
 *
 *     p = softmax(logits)     the top k by p, lower index first among equals
 *     w = p_selected, divided by their sum when normalise
 *     y += sum_r w_r e_r      in rank order, so that a row's sum never depends on its batch
 *     y += sigmoid(s) e_shared */
#ifndef GDN_KERN_MOE_H
#define GDN_KERN_MOE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int32_t     *expert; /* [n_row][top]      out: rank order                              */
    float       *weight; /* [n_row][top]      out                                          */
    const float *logits; /* [n_row] x stride, row of n_expert; a NaN counts as -inf        */
    int64_t stride;
    int32_t n_row, n_expert, top; /* 1 <= top <= n_expert <= 1024                           */
    bool    normalise;
} gdn_moe_route_args;
typedef void gdn_moe_route_fn(const gdn_moe_route_args *a);

typedef struct {
    float       *y;        /* [n_row] x y_stride, row of d      in/out                     */
    const float *e;        /* [n_row][top] rows of d: what the expert of each rank said    */
    const float *weight;   /* [n_row][top]                                                 */
    const float *shared;   /* [n_row] x shared_stride, row of d, or NULL                   */
    const float *gate;     /* [n_row] x gate_stride: raw gate s of the shared expert       */
    int64_t y_stride, shared_stride, gate_stride;
    int32_t n_row, top, d;
} gdn_moe_combine_args;
typedef void gdn_moe_combine_fn(const gdn_moe_combine_args *a);

gdn_moe_route_fn   gdn_moe_route_ref, gdn_moe_route_avx2, gdn_moe_route_avx512;
gdn_moe_combine_fn gdn_moe_combine_ref, gdn_moe_combine_avx2, gdn_moe_combine_avx512;

#endif
