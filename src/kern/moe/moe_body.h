/* moe_body.h - routing and combining experts, written over vf.
 *
 * The including file adds equal_lanes(a, b): one bit for each lane that agrees.
 *
 * Experts are ordered by logit, then index, never by probability: two logits a rounding apart
 * may share a probability, and must not change places for it.  The best is taken top times
 * from a two-level table: the row, and the maximum of each vector of it. */
#include <math.h>
#include <stddef.h>

#include "moe.h"

enum { EXPERT_MAX = 1024, BLOCK_MAX = EXPERT_MAX / VF_N };

typedef struct {
    int32_t blocks, supers;    /* vectors in use of x and of best       */
    float x[EXPERT_MAX];       /* logits; NaN and what is taken: -inf   */
    float best[BLOCK_MAX];     /* largest of each vector of x           */
} table;

static void table_fill(table *t, const float *logits, int32_t n) {
    const vf low = vf_set1(-INFINITY);
    t->blocks = (n + VF_N - 1) / VF_N;
    t->supers = (t->blocks + VF_N - 1) / VF_N;
    for (int32_t i = 0; i < t->supers; i++) vf_store(t->best + i * VF_N, low);
    vf_store(t->x + (t->blocks - 1) * VF_N, low);
    for (int32_t i = 0; i < n; i += VF_N) {
        /* max gives its second operand when the first is NaN */
        if (n - i >= VF_N) vf_store(t->x + i, vf_max(vf_load(logits + i), low));
        else vf_store_n(t->x + i, vf_max(vf_load_n(logits + i, n - i), low), n - i);
        t->best[i / VF_N] = vf_hmax(vf_load(t->x + i));
    }
}

/* The first largest entry, and takes it out; -1 when only -inf is left. */
static int32_t table_take(table *t, float *value) {
    vf max = vf_load(t->best);
    for (int32_t i = 1; i < t->supers; i++) max = vf_max(max, vf_load(t->best + i * VF_N));
    *value = vf_hmax(max);
    if (*value == -INFINITY) return -1;
    max = vf_set1(*value);
    unsigned lanes = 0;
    int32_t block = 0;
    while ((lanes = equal_lanes(vf_load(t->best + block), max)) == 0) block += VF_N;
    block += __builtin_ctz(lanes);
    float *x = t->x + block * VF_N;
    const int32_t lane = __builtin_ctz(equal_lanes(vf_load(x), max));
    x[lane] = -INFINITY;
    t->best[block] = vf_hmax(vf_load(x));
    return block * VF_N + lane;
}

static float sum_exp(const float *x, int32_t n, float max) {
    vf sum = vf_zero();
    int32_t i = 0;
    for (; i + VF_N <= n; i += VF_N)
        sum = vf_add(sum, vf_exp(vf_sub(vf_load(x + i), vf_set1(max))));
    for (; i < n; i++) { /* the last lanes one at a time, into lane 0 */
        float one[VF_N] = { 0 };
        vf_store_n(one, vf_exp(vf_set1(x[i] - max)), 1);
        sum = vf_add(sum, vf_load(one));
    }
    return vf_hsum(sum);
}

static void route_row(const float *logits, int32_t n, int32_t top, bool normalise,
                      int32_t *expert, float *weight) {
    table t;
    int32_t r = 0;
    float all = 0;
    table_fill(&t, logits, n);
    if (!normalise) {
        float max = -INFINITY;
        for (int32_t i = 0; i < t.blocks; i++) max = t.best[i] > max ? t.best[i] : max;
        all = sum_exp(t.x, t.blocks * VF_N, max);
    }
    for (; r < top; r++) {
        expert[r] = table_take(&t, &weight[r]);
        if (expert[r] < 0) break;
    }
    /* Fewer than top above -inf: the others follow by index, with weight 0. */
    for (int32_t i = 0; r < top; i++)
        if (!(logits[i] > -INFINITY)) weight[r] = -INFINITY, expert[r++] = i;
    const float max = weight[0];
    if (normalise) all = sum_exp(weight, top, max);
    for (r = 0; r < top; r += VF_N) {
        const int m = top - r < VF_N ? top - r : VF_N;
        const vf p = vf_exp(vf_sub(vf_load_n(weight + r, m), vf_set1(max)));
        vf_store_n(weight + r, vf_div(p, vf_set1(all)), m);
    }
}

static void route_body(const gdn_moe_route_args *a) {
    for (int32_t i = 0; i < a->n_row; i++)
        route_row(a->logits + i * a->stride, a->n_expert, a->top, a->normalise,
                  a->expert + (int64_t)i * a->top, a->weight + (int64_t)i * a->top);
}

static void combine_row(float *y, const float *e, const float *w, const float *shared,
                        vf gate, int32_t top, int32_t d) {
    int32_t x = 0;
    for (; x + 4 * VF_N <= d; x += 4 * VF_N) {
        vf s[4];
        for (int u = 0; u < 4; u++) s[u] = vf_load(y + x + u * VF_N);
        for (int32_t r = 0; r < top; r++) {
            const float *row = e + (int64_t)r * d + x;
            const vf wr = vf_set1(w[r]);
            for (int u = 0; u < 4; u++) s[u] = vf_fma(wr, vf_load(row + u * VF_N), s[u]);
        }
        if (shared != NULL)
            for (int u = 0; u < 4; u++)
                s[u] = vf_fma(gate, vf_load(shared + x + u * VF_N), s[u]);
        for (int u = 0; u < 4; u++) vf_store(y + x + u * VF_N, s[u]);
    }
    for (; x < d; x += VF_N) {
        const int n = d - x < VF_N ? d - x : VF_N;
        vf s = vf_load_n(y + x, n);
        for (int32_t r = 0; r < top; r++)
            s = vf_fma(vf_set1(w[r]), vf_load_n(e + (int64_t)r * d + x, n), s);
        if (shared != NULL) s = vf_fma(gate, vf_load_n(shared + x, n), s);
        vf_store_n(y + x, s, n);
    }
}

static void combine_body(const gdn_moe_combine_args *a) {
    for (int32_t i = 0; i < a->n_row; i++) {
        const float *shared = a->shared != NULL ? a->shared + i * a->shared_stride : NULL;
        const vf gate = shared != NULL ? vf_sigmoid(vf_set1(a->gate[i * a->gate_stride]))
                                       : vf_zero();
        combine_row(a->y + i * a->y_stride, a->e + (int64_t)i * a->top * a->d,
                    a->weight + (int64_t)i * a->top, shared, gate, a->top, a->d);
    }
}
