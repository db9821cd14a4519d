/* norm_gated.h - RMS normalisation of gated rows, in whatever types they have.
 *
 *     y = rms(x) w gate(z)          rms(x) = x rsqrt(mean(x^2) + eps)
 *     y = rms(x gate(z)) w          with the norm behind the gate
 *
 * gate is silu or sigmoid.  Everything is f32 until y is rounded, once. */
#ifndef GDN_KERN_NORM_GATED_H
#define GDN_KERN_NORM_GATED_H

#include <gdn/op.h>

/* n_row rows of n_head groups of d values; strides in bytes.  y may be x or z itself when the
 * types are the same. */
typedef struct {
    void       *y;
    const void *x, *z, *w;                      /* w: [d]                             */
    gdn_type    y_type, x_type, w_type;         /* F32, BF16 or F16; z is of x's type  */
    int64_t     y_stride, x_stride, z_stride;                /* from row to row       */
    int64_t     y_head_stride, x_head_stride, z_head_stride; /* from group to group   */
    int64_t     n_row, n_head, d;
    float       eps;
    gdn_gate    gate;
    bool        norm_after_gate;
} gdn_norm_gated_args;
typedef void gdn_norm_gated_fn(const gdn_norm_gated_args *a);

gdn_norm_gated_fn gdn_norm_gated_ref, gdn_norm_gated_avx2, gdn_norm_gated_avx512;

#endif
