/* act.h - the feed-forward gate: y = silu(g) u. */
#ifndef GDN_KERN_ACT_H
#define GDN_KERN_ACT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    void        *y;     /* [n_row] x y_stride, f32 or bf16                                */
    const float *g, *u; /* [n_row] x x_stride                                             */
    int64_t y_stride, x_stride;
    int32_t n_row, n;
    bool    y_bf16;
} gdn_swiglu_args;
typedef void gdn_swiglu_fn(const gdn_swiglu_args *a);

gdn_swiglu_fn gdn_swiglu_ref, gdn_swiglu_avx2, gdn_swiglu_avx512;

#endif
