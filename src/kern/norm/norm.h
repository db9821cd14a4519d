/* norm.h - RMS normalisation of rows, plain and gated.
 *
 *     plain:  y = x rsqrt(mean(x^2) + eps) w
 *     gated:  y = x rsqrt(mean(x^2) + eps) w silu(z)
 *
 * w is used as it stands: the model's loader adds the one of zero-centred norms. */
#ifndef GDN_KERN_NORM_H
#define GDN_KERN_NORM_H

#include <stdbool.h>
#include <stdint.h>

/* n_row rows, each of n_head groups of d values that are normalised on their own (a plain
 * norm has n_head 1).  Strides in elements; a group follows its neighbour by head_stride. */
typedef struct {
    void        *y;     /* f32, or bf16 when y_bf16; may be x when f32                    */
    const float *x;
    const float *z;     /* gate, NULL for the plain norm                                  */
    const float *w;     /* [d]                                                            */
    int64_t y_stride, x_stride, z_stride;                /* from row to row               */
    int64_t y_head_stride, x_head_stride, z_head_stride; /* from group to group           */
    int32_t n_row, n_head, d;
    float   eps;
    bool    y_bf16;
} gdn_norm_args;
typedef void gdn_norm_fn(const gdn_norm_args *a);

gdn_norm_fn gdn_norm_ref, gdn_norm_avx2, gdn_norm_avx512;

#endif
