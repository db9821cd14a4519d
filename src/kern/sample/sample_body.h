/* sample_body.h - range, argmax, log of the sum of exponentials and the k largest, written over vf.
 *
 * The including file adds
 *
 *     equal_lanes(a, b), greater_lanes(a, b)      one bit a lane, 0 where either is NaN
 *     nan_lanes(a, b)                             1 where either is NaN
 *     vd, vd_zero, vd_add(acc, x), vd_hsum        sums of floats in double
 */
#include <math.h>
#include <stdbool.h>

#include "sample.h"

/* The largest of n >= 1 values; -inf when there is none but NaN. */
static float largest(const float *x, int32_t n) {
    vf m[4] = { vf_set1(-INFINITY), vf_set1(-INFINITY), vf_set1(-INFINITY),
                vf_set1(-INFINITY) };
    int32_t i = 0;
    /* max gives its second operand when the first is NaN */
    for (; i + 4 * VF_N <= n; i += 4 * VF_N)
        for (int u = 0; u < 4; u++) m[u] = vf_max(vf_load(x + i + u * VF_N), m[u]);
    for (; i + VF_N <= n; i += VF_N) m[0] = vf_max(vf_load(x + i), m[0]);
    float max = vf_hmax(vf_max(vf_max(m[0], m[1]), vf_max(m[2], m[3])));
    for (; i < n; i++) max = x[i] > max ? x[i] : max;
    return max;
}

static gdn_range range_body(const float *x, int32_t n) {
    vf lo[2] = { vf_set1(INFINITY), vf_set1(INFINITY) };
    vf hi[2] = { vf_set1(-INFINITY), vf_set1(-INFINITY) };
    unsigned nan = 0;
    int32_t i = 0;
    /* min and max give their second operand when the first is NaN */
    for (; i + 2 * VF_N <= n; i += 2 * VF_N) {
        const vf a = vf_load(x + i), b = vf_load(x + i + VF_N);
        lo[0] = vf_min(a, lo[0]), lo[1] = vf_min(b, lo[1]);
        hi[0] = vf_max(a, hi[0]), hi[1] = vf_max(b, hi[1]);
        nan |= nan_lanes(a, b);
    }
    gdn_range r = { -vf_hmax(vf_sub(vf_zero(), vf_min(lo[0], lo[1]))),
                    vf_hmax(vf_max(hi[0], hi[1])), nan != 0 };
    for (; i < n; i++) {
        if (x[i] < r.min) r.min = x[i];
        if (x[i] > r.max) r.max = x[i];
        r.nan = r.nan || isnan(x[i]);
    }
    return r;
}

static int32_t argmax_body(const float *x, int32_t n) {
    enum { CHUNK = 2048 };
    float max = -INFINITY;
    int32_t at = -1;
    for (int32_t i = 0; i < n; i += CHUNK) {
        const float m = largest(x + i, n - i < CHUNK ? n - i : CHUNK);
        if (m > max) max = m, at = i;
    }
    if (at < 0) return -1;
    for (; at + VF_N <= n; at += VF_N) {
        const unsigned lanes = equal_lanes(vf_load(x + at), vf_set1(max));
        if (lanes != 0) return at + __builtin_ctz(lanes);
    }
    while (x[at] != max) at++;
    return at;
}

static double logsumexp_body(const float *x, int32_t n) {
    const float max = n > 0 ? largest(x, n) : -INFINITY;
    if (isinf(max)) {
        for (int32_t i = 0; i < n; i++)
            if (isnan(x[i])) return NAN;
        return (double)max;
    }
    const vf m = vf_set1(max);
    vd a = vd_zero(), b = vd_zero();
    int32_t i = 0;
    for (; i + 4 * VF_N <= n; i += 4 * VF_N) {
        vf p[4];
        for (int u = 0; u < 4; u++) p[u] = vf_exp(vf_sub(vf_load(x + i + u * VF_N), m));
        a = vd_add(a, vf_add(p[0], p[1]));
        b = vd_add(b, vf_add(p[2], p[3]));
    }
    for (; i + VF_N <= n; i += VF_N) a = vd_add(a, vf_exp(vf_sub(vf_load(x + i), m)));
    if (i < n) {
        float last[VF_N] = { 0 };
        vf_store_n(last, vf_exp(vf_sub(vf_load_n(x + i, n - i), m)), n - i);
        a = vd_add(a, vf_load(last));
    }
    return (double)max + log(vd_hsum(a) + vd_hsum(b));
}

/* The k best of the elements seen, the worst of them at the root. */
typedef struct {
    const float *x;
    int32_t *idx;
    int32_t n, k;
} heap;

static bool worse(const float *x, int32_t a, int32_t b) {
    return x[a] < x[b] || (x[a] == x[b] && a > b);
}
static void sift_down(heap *h, int32_t at, int32_t i) {
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && worse(h->x, h->idx[child + 1], h->idx[child])) child++;
        if (!worse(h->x, h->idx[child], i)) break;
        h->idx[at] = h->idx[child];
        at = child;
    }
    h->idx[at] = i;
}
static void heap_add(heap *h, int32_t i) {
    if (h->n == h->k) {
        if (worse(h->x, h->idx[0], i)) sift_down(h, 0, i);
        return;
    }
    int32_t at = h->n++;
    for (; at > 0 && worse(h->x, i, h->idx[(at - 1) / 2]); at = (at - 1) / 2)
        h->idx[at] = h->idx[(at - 1) / 2];
    h->idx[at] = i;
}
/* Best first. */
static void heap_sort(heap *h) {
    while (h->n > 1) {
        const int32_t last = h->idx[--h->n], worst = h->idx[0];
        sift_down(h, 0, last);
        h->idx[h->n] = worst;
    }
}

/* Fill the heap with the k largest of those above floor. */
static void select_above(heap *h, int32_t n, float floor) {
    const float *x = h->x;
    int32_t i = 0;
    vf bound = vf_set1(floor);
    for (; i + 4 * VF_N <= n; i += 4 * VF_N) {
        uint64_t lanes = 0;
        for (int u = 0; u < 4; u++)
            lanes |= (uint64_t)greater_lanes(vf_load(x + i + u * VF_N), bound) << u * VF_N;
        if (lanes == 0) continue;
        for (; lanes != 0; lanes &= lanes - 1) heap_add(h, i + __builtin_ctzll(lanes));
        if (h->n == h->k) bound = vf_set1(x[h->idx[0]]);
    }
    for (; i < n; i++)
        if (x[i] > floor) heap_add(h, i);
}

/* A value that at least k elements reach: cut the row into blocks; the k-th largest of the
 * blocks' maxima will do.  It keeps a long row, even a rising one, from going through the heap
 * element by element. */
static float lower_bound(const float *x, int32_t n, int32_t k) {
    enum { BLOCKS = 2048 };
    float max[BLOCKS];
    int32_t idx[BLOCKS];
    const int32_t size = (n / BLOCKS / VF_N + 1) * VF_N;
    int32_t blocks = 0;
    if (n / size < k) return -INFINITY;
    for (int32_t i = 0; i < n; i += size)
        max[blocks++] = largest(x + i, n - i < size ? n - i : size);
    heap h = { .x = max, .idx = idx, .k = k };
    select_above(&h, blocks, -INFINITY);
    return h.n == k ? max[idx[0]] : -INFINITY;
}

static int32_t top_k_body(const float *x, int32_t n, int32_t k, int32_t *idx) {
    if (k < 1 || n < 1) return 0;
    heap h = { .x = x, .idx = idx, .k = k };
    /* Those equal to the bound belong in, -inf does not. */
    select_above(&h, n, nextafterf(lower_bound(x, n, k), -INFINITY));
    const int32_t found = h.n;
    heap_sort(&h);
    return found;
}
