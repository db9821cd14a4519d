/* sample.h - what a sampler needs from a long row of logits.
 *
 * argmax: the first index of the largest value; NaN never wins; -1 when no value is greater than
 * -infinity.  softmax sums: log sum e^(x - max) in double accuracy over the whole row. */
#ifndef GDN_KERN_SAMPLE_H
#define GDN_KERN_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

typedef int32_t gdn_argmax_fn(const float *x, int32_t n);

/* log(sum_i e^{x_i}); relative error of the sum at most 1e-6. */
typedef double gdn_logsumexp_fn(const float *x, int32_t n);

/* The k largest of x, largest first, lower index first among equals: idx [k].  NaN and -inf are
 * left out; returns how many were found. */
typedef int32_t gdn_top_k_fn(const float *x, int32_t n, int32_t k, int32_t *idx);

/* What a row holds: the extremes of all that is a number, infinities included (+inf and -inf when
 * nothing is), and whether anything is NaN. */
typedef struct {
    float min, max;
    bool  nan;
} gdn_range;
typedef gdn_range gdn_range_fn(const float *x, int32_t n);

gdn_range_fn     gdn_range_ref, gdn_range_avx2, gdn_range_avx512;
gdn_argmax_fn    gdn_argmax_ref, gdn_argmax_avx2, gdn_argmax_avx512;
gdn_logsumexp_fn gdn_logsumexp_ref, gdn_logsumexp_avx2, gdn_logsumexp_avx512;
gdn_top_k_fn     gdn_top_k_ref, gdn_top_k_avx2, gdn_top_k_avx512;

#endif
