/* sample_ref.c - range, argmax, log of the sum of exponentials and the k largest: the definition, in
 * double and in plain loops. */
#include "sample.h"

#include <math.h>

gdn_range gdn_range_ref(const float *x, int32_t n) {
    gdn_range r = {INFINITY, -INFINITY, false};
    for (int32_t i = 0; i < n; i++) {
        if (x[i] < r.min) r.min = x[i];
        if (x[i] > r.max) r.max = x[i];
        r.nan = r.nan || isnan(x[i]);
    }
    return r;
}

int32_t gdn_argmax_ref(const float *x, int32_t n) {
    int32_t best = -1;
    float max = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        if (x[i] > max) max = x[i], best = i;
    return best;
}

/* A NaN in the row makes the result NaN; a +inf makes it +inf; none but -inf makes it -inf. */
double gdn_logsumexp_ref(const float *x, int32_t n) {
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        if (isnan(x[i])) return NAN;
        max = (double)x[i] > max ? (double)x[i] : max;
    }
    if (isinf(max)) return max;
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

int32_t gdn_top_k_ref(const float *x, int32_t n, int32_t k, int32_t *idx) {
    int32_t found = 0;
    if (k < 1) return 0;
    for (int32_t i = 0; i < n; i++) {
        if (!(x[i] > -INFINITY)) continue;
        if (found == k && !(x[i] > x[idx[k - 1]])) continue;
        int32_t at = found < k ? found++ : k - 1;
        for (; at > 0 && x[i] > x[idx[at - 1]]; at--) idx[at] = idx[at - 1];
        idx[at] = i;
    }
    return found;
}
