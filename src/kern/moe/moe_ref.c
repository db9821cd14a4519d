/* moe_ref.c - routing and combining experts: the definition, in double. */
#include "moe.h"

#include <math.h>
#include <stddef.h>

static double logit(const float *x, int32_t i) { return isnan(x[i]) ? -INFINITY : (double)x[i]; }

/* The largest logit that comes after (value, index) in the order largest first, lower index
 * first among equals. */
static int32_t next(const float *x, int32_t n, double value, int32_t index) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++) {
        const double v = logit(x, i);
        const bool after = v < value || (v == value && i > index);
        if (after && (best < 0 || v > logit(x, best))) best = i;
    }
    return best;
}

static void route(const float *x, int32_t n, int32_t top, bool normalise, int32_t *expert,
                  float *weight) {
    double value = INFINITY, max, all = 0, chosen = 0;
    int32_t index = -1;
    for (int32_t r = 0; r < top; r++) {
        expert[r] = index = next(x, n, value, index);
        value = logit(x, index);
    }
    max = logit(x, expert[0]);
    for (int32_t i = 0; i < n; i++) all += exp(logit(x, i) - max);
    for (int32_t r = 0; r < top; r++) chosen += exp(logit(x, expert[r]) - max);
    for (int32_t r = 0; r < top; r++)
        weight[r] = (float)(exp(logit(x, expert[r]) - max) / (normalise ? chosen : all));
}

void gdn_moe_route_ref(const gdn_moe_route_args *a) {
    for (int32_t i = 0; i < a->n_row; i++)
        route(a->logits + i * a->stride, a->n_expert, a->top, a->normalise,
              a->expert + (int64_t)i * a->top, a->weight + (int64_t)i * a->top);
}

void gdn_moe_combine_ref(const gdn_moe_combine_args *a) {
    for (int32_t i = 0; i < a->n_row; i++) {
        float *y = a->y + i * a->y_stride;
        const float *e = a->e + (int64_t)i * a->top * a->d;
        const float *w = a->weight + (int64_t)i * a->top;
        for (int32_t x = 0; x < a->d; x++) {
            double sum = (double)y[x];
            for (int32_t r = 0; r < a->top; r++)
                sum += (double)w[r] * (double)e[(int64_t)r * a->d + x];
            if (a->shared != NULL)
                sum += (double)a->shared[i * a->shared_stride + x] /
                       (1 + exp(-(double)a->gate[i * a->gate_stride]));
            y[x] = (float)sum;
        }
    }
}
