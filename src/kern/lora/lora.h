/* lora.h - the two thin products of a low-rank adapter.
 *
 *     y[i][j] = sum_k x[i][k] m[j][k]              u = A x      k: inputs,  n: rank
 *     y[i][j] += scale sum_k x[i][k] m[j][k]       y += s B u   k: rank,    n: outputs
 *
 * m lies as the file has it, row-major f32.  A sum's order depends on k alone: not on which
 * rows or outputs share a call.
 *
 * Source: Hu et al., arXiv:2106.09685. */
#ifndef GDN_KERN_LORA_H
#define GDN_KERN_LORA_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    float       *y;        /* rows of n                     out, or += scale times when add  */
    const void  *x;        /* rows of k, f32 or bf16                                         */
    const float *m;        /* [n][k]                                                         */
    const int32_t *y_row, *x_row; /* [n_row]: row i is row y_row[i] of y and x_row[i] of x   */
    int64_t y_stride, x_stride;   /* elements                                                */
    int32_t n_row, n, k;   /* k at least 1                                                   */
    float   scale;
    bool    x_bf16, add;
} gdn_lora_args;
typedef void gdn_lora_fn(const gdn_lora_args *a);

gdn_lora_fn gdn_lora_ref, gdn_lora_avx2, gdn_lora_avx512;

#endif
