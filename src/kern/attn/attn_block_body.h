/* attn_block_body.h - softmax attention over one block of keys, written over vf.
 *
 * The including file picks the form of the scores:
 *
 *     se, sv, SV_N                an element of q and k, a vector of them, and its length
 *     sv_load, sv_load_n          all, or the first n; the others zero
 *     sv_dot(acc, a, b)           acc + a b, lane by lane (bf16: two products a lane)
 *     SCORE_Q, STRIP              queries of a tile of scores, vectors of a tile of outputs
 *     sum4, sum_last              the tree that adds up lanes, see score_tile()
 *     WIDEN                       1 when bf16 q and k are turned into floats first
 *
 * A query's bits depend on its own q, keys and n_valid only.  Each score is one chain over d
 * and one tree; maximum, exponentials and their sum go through a query's own keys in order; an
 * output is one chain over its own keys.  How many queries share a register tile changes which
 * of these run side by side, never the order inside one.  Keys that others see and this query
 * does not are skipped rather than multiplied by zero, so that not even a NaN in them reaches
 * it. */
#include <math.h>
#include <string.h>

#include "attn.h"

enum {
    D_MAX  = 256,
    GROUP  = 16, /* queries that share a pass over the block; their scores stay in L1 */
    QUADS  = VF_N / 4,
    INTO_L2 = 2, /* of __builtin_prefetch */
};

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int32_t n;                       /* queries                     */
    int32_t n_key;                   /* the largest n_valid         */
    const se *q[GROUP];
    float *p[GROUP];                 /* rows of score               */
    float *o[GROUP];
    int32_t n_valid[GROUP];
    float score[GROUP][GDN_ATTN_BLOCK]; /* scores, then e^(s - m)   */
} group;

/* 16 scores of nq queries.  Four keys a quarter of a vector apart make one quad: their lanes
 * are added pairwise, halves first, until one vector holds a partial sum of each, and the last
 * steps of the tree join the quads.  Lane j then is key j.
 *
 * next holds the rows of the tile that comes after, or is NULL.  They are asked for evenly
 * along with the sums (all at once they would fill the miss queue and the sums would wait),
 * and into the second cache, which takes more misses at a time than the first.  Zen 4, four
 * queries, bf16, keys in no cache: 13-16 GB/s; 8 without, or asking for the first cache 10. */
INLINE void score_tile(const int nq, const se *const *q, const se *const *k,
                       const char *const *next, int64_t next_size, int32_t d, float scale,
                       float *const *s) {
    for (int h = 0; h < GDN_ATTN_TILE; h += VF_N) {
        vf quad[4][QUADS];
        for (int j = 0; j < QUADS; j++) {
            const se *const k0 = k[h + j], *const k1 = k[h + j + QUADS],
                     *const k2 = k[h + j + 2 * QUADS], *const k3 = k[h + j + 3 * QUADS];
            vf acc[4][4];
            int32_t x = 0;
            for (int i = 0; i < nq; i++)
                for (int t = 0; t < 4; t++) acc[i][t] = vf_zero();
            for (; x + SV_N <= d; x += SV_N) {
                const sv key[4] = { sv_load(k0 + x), sv_load(k1 + x), sv_load(k2 + x),
                                    sv_load(k3 + x) };
                if (next != NULL)
                    for (int t = 0; t < 4; t++)
                        __builtin_prefetch(next[h + j + t * QUADS] + x * next_size, 0,
                                           INTO_L2);
                for (int i = 0; i < nq; i++) {
                    const sv query = sv_load(q[i] + x);
                    for (int t = 0; t < 4; t++)
                        acc[i][t] = sv_dot(acc[i][t], query, key[t]);
                }
            }
            if (x < d) {
                const int rest = d - x;
                const sv key[4] = { sv_load_n(k0 + x, rest), sv_load_n(k1 + x, rest),
                                    sv_load_n(k2 + x, rest), sv_load_n(k3 + x, rest) };
                for (int i = 0; i < nq; i++) {
                    const sv query = sv_load_n(q[i] + x, rest);
                    for (int t = 0; t < 4; t++)
                        acc[i][t] = sv_dot(acc[i][t], query, key[t]);
                }
            }
            for (int i = 0; i < nq; i++)
                quad[i][j] = sum4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
        }
        for (int i = 0; i < nq; i++)
            vf_store(s[i] + h, vf_mul(sum_last(quad[i]), vf_set1(scale)));
    }
}

/* Where row r of a tile begins in memory; rows past the valid ones may not be read, and the
 * last valid one stands in for them. */
static const char *row_of(const gdn_attn_block_args *a, const group *g, const void *const *tile,
                          int64_t stride, int t, int r) {
    const int32_t last = g->n_key - 1 - t * GDN_ATTN_TILE;
    return (const char *)tile[t] + (r < last ? r : last) * stride * (a->bf16 ? 2 : 4);
}

#if WIDEN
static void widen(float *y, const uint16_t *x, int32_t d) {
    int32_t i = 0;
    for (; i + VF_N <= d; i += VF_N) vf_store(y + i, vf_load_bf16(x + i));
    if (i < d) vf_store_n(y + i, vf_load_bf16_n(x + i, d - i), d - i);
}
#endif

/* Scores of the whole group against tile t. */
static void score_group(const gdn_attn_block_args *a, group *g, int t, float *wide) {
    const se *k[GDN_ATTN_TILE];
    const char *next[GDN_ATTN_TILE];
    float *s[GROUP];
    const int64_t size = a->bf16 ? 2 : 4;
    const bool more = (t + 1) * GDN_ATTN_TILE < g->n_key;
    for (int r = 0; r < GDN_ATTN_TILE; r++) {
        const char *row = row_of(a, g, a->k, a->k_stride, t, r);
        next[r] = more ? row_of(a, g, a->k, a->k_stride, t + 1, r)
                       : row_of(a, g, a->v, a->v_stride, 0, r);
#if WIDEN
        if (a->bf16) {
            widen(wide + r * D_MAX, (const uint16_t *)(const void *)row, a->d);
            row = (const char *)(wide + r * D_MAX);
        }
#endif
        k[r] = (const se *)(const void *)row;
    }
    (void)wide;
    for (int i = 0; i < g->n; i++) s[i] = g->p[i] + t * GDN_ATTN_TILE;
    const char *const *first = next; /* once is enough */
    int i = 0;
    for (; i + SCORE_Q <= g->n; i += SCORE_Q, first = NULL)
        score_tile(SCORE_Q, g->q + i, k, first, size, a->d, a->scale, s + i);
    for (; i + 2 <= g->n; i += 2, first = NULL)
        score_tile(2, g->q + i, k, first, size, a->d, a->scale, s + i);
    for (; i < g->n; i++, first = NULL)
        score_tile(1, g->q + i, k, first, size, a->d, a->scale, s + i);
}

/* Scores to e^(s - m) in place. */
static void softmax(float *s, int32_t n, float *m, float *l) {
    static const float index[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    const vf lane = vf_load(index), low = vf_set1(-INFINITY);
    const int32_t full = n - n % VF_N;
    const vf valid = vf_set1((float)(n - full));
    vf max = low, sum = vf_zero();
    for (int32_t j = 0; j < full; j += VF_N) max = vf_max(vf_load(s + j), max);
    if (full < n) max = vf_max(vf_select_lt(lane, valid, vf_load(s + full), low), max);
    *m = vf_hmax(max);
    max = vf_set1(*m);
    for (int32_t j = 0; j < full; j += VF_N) {
        const vf p = vf_exp(vf_sub(vf_load(s + j), max));
        vf_store(s + j, p);
        sum = vf_add(sum, p);
    }
    if (full < n) {
        const vf p = vf_exp(vf_sub(vf_load(s + full), max));
        vf_store(s + full, p);
        sum = vf_add(sum, vf_select_lt(lane, valid, p, vf_zero()));
    }
    *l = n > 0 ? vf_hsum(sum) : 0.0f;
}

INLINE vf value(const void *v, int64_t at, const bool bf16) {
    return bf16 ? vf_load_bf16((const uint16_t *)v + at) : vf_load((const float *)v + at);
}
INLINE vf value_n(const void *v, int64_t at, int n, const bool bf16) {
    return bf16 ? vf_load_bf16_n((const uint16_t *)v + at, n)
                : vf_load_n((const float *)v + at, n);
}

/* o += p v for nq queries, nv vectors of columns and the keys j0..j1 of a tile; next, unless
 * NULL, is the same place in the next tile, whose rows are asked for on the way. */
INLINE void output_strip(const int nq, const int nv, const bool bf16, float *const *o,
                         const float *const *p, const void *v, const char *next,
                         int64_t stride, int j0, int j1) {
    const int64_t size = bf16 ? 2 : 4;
    vf acc[4][4];
    for (int i = 0; i < nq; i++)
        for (int u = 0; u < nv; u++) acc[i][u] = vf_load(o[i] + u * VF_N);
    for (int j = j0; j < j1; j++) {
        vf x[4];
        for (int u = 0; u < nv; u++) x[u] = value(v, j * stride + u * VF_N, bf16);
        if (next != NULL)
            for (int64_t b = 0; b < nv * VF_N * size; b += 64)
                __builtin_prefetch(next + j * stride * size + b, 0, INTO_L2);
        for (int i = 0; i < nq; i++) {
            const vf w = vf_set1(p[i][j]);
            for (int u = 0; u < nv; u++) acc[i][u] = vf_fma(w, x[u], acc[i][u]);
        }
    }
    for (int i = 0; i < nq; i++)
        for (int u = 0; u < nv; u++) vf_store(o[i] + u * VF_N, acc[i][u]);
}

/* The same for the last n columns, fewer than a vector. */
INLINE void output_rest(const int nq, int n, const bool bf16, float *const *o,
                        const float *const *p, const void *v, int64_t stride, int j0,
                        int j1) {
    vf acc[4];
    for (int i = 0; i < nq; i++) acc[i] = vf_load_n(o[i], n);
    for (int j = j0; j < j1; j++) {
        const vf x = value_n(v, j * stride, n, bf16);
        for (int i = 0; i < nq; i++) acc[i] = vf_fma(vf_set1(p[i][j]), x, acc[i]);
    }
    for (int i = 0; i < nq; i++) vf_store_n(o[i], acc[i], n);
}

INLINE void output_tile(const int nq, const bool bf16, float *const *o, const float *const *p,
                        const void *v, const void *next, int64_t stride, int j0, int j1,
                        int32_t d) {
    const int64_t size = bf16 ? 2 : 4;
    float *at[4];
    int32_t x = 0;
    if (j0 >= j1) return;
    for (int i = 0; i < nq; i++) at[i] = o[i];
#define NEXT(columns)                                                                         \
    x += columns, v = (const char *)v + (columns) * size;                                     \
    if (next != NULL) next = (const char *)next + (columns) * size;                           \
    for (int i = 0; i < nq; i++) at[i] += (columns)
    while (x + STRIP * VF_N <= d) {
        output_strip(nq, STRIP, bf16, at, p, v, next, stride, j0, j1);
        NEXT(STRIP * VF_N);
    }
    while (x + VF_N <= d) {
        output_strip(nq, 1, bf16, at, p, v, NULL, stride, j0, j1);
        NEXT(VF_N);
    }
#undef NEXT
    if (x < d) output_rest(nq, d - x, bf16, at, p, v, stride, j0, j1);
}

/* nq queries from i on against tile t: first the keys that all of them see, together, then
 * each query alone to its own end. */
INLINE void output_queries(const gdn_attn_block_args *a, const group *g, const int nq, int i,
                           int t, const void *next, const bool bf16) {
    const float *p[4];
    int own[4], common = GDN_ATTN_TILE;
    for (int u = 0; u < nq; u++) {
        const int32_t n = g->n_valid[i + u] - t * GDN_ATTN_TILE;
        own[u] = n < 0 ? 0 : n > GDN_ATTN_TILE ? GDN_ATTN_TILE : n;
        common = own[u] < common ? own[u] : common;
        p[u] = g->p[i + u] + t * GDN_ATTN_TILE;
    }
    output_tile(nq, bf16, g->o + i, p, a->v[t], next, a->v_stride, 0, common, a->d);
    if (nq > 1)
        for (int u = 0; u < nq; u++)
            output_tile(1, bf16, g->o + i + u, p + u, a->v[t], NULL, a->v_stride, common,
                        own[u], a->d);
}

INLINE void output_group(const gdn_attn_block_args *a, const group *g, int t,
                         const bool bf16) {
    const bool more = (t + 1) * GDN_ATTN_TILE < g->n_key;
    const void *next = more ? a->v[t + 1] : NULL;
    int i = 0;
    for (; i + 4 <= g->n; i += 4, next = NULL) output_queries(a, g, 4, i, t, next, bf16);
    for (; i + 2 <= g->n; i += 2, next = NULL) output_queries(a, g, 2, i, t, next, bf16);
    for (; i < g->n; i++, next = NULL) output_queries(a, g, 1, i, t, next, bf16);
}
static void output_f32(const gdn_attn_block_args *a, const group *g, int t) {
    output_group(a, g, t, false);
}
static void output_bf16(const gdn_attn_block_args *a, const group *g, int t) {
    output_group(a, g, t, true);
}

static void block_body(const gdn_attn_block_args *a) {
    group g;
#if WIDEN
    float wide_q[GROUP][D_MAX], wide_k[GDN_ATTN_TILE][D_MAX];
    float *wide = wide_k[0];
#else
    float *wide = NULL;
#endif
    for (int32_t first = 0; first < a->n_q; first += GROUP) {
        g.n = a->n_q - first < GROUP ? a->n_q - first : GROUP;
        g.n_key = 0;
        for (int i = 0; i < g.n; i++) {
            g.q[i] = a->q[first + i];
#if WIDEN
            if (a->bf16) {
                widen(wide_q[i], a->q[first + i], a->d);
                g.q[i] = wide_q[i];
            }
#endif
            g.p[i] = g.score[i];
            g.o[i] = a->o + (first + i) * a->o_stride;
            memset(g.o[i], 0, (size_t)a->d * sizeof(float));
            g.n_valid[i] = a->n_valid[first + i];
            g.n_key = g.n_valid[i] > g.n_key ? g.n_valid[i] : g.n_key;
        }
        const int tiles = (g.n_key + GDN_ATTN_TILE - 1) / GDN_ATTN_TILE;
        for (int t = 0; t < tiles; t++) score_group(a, &g, t, wide);
        for (int i = 0; i < g.n; i++)
            softmax(g.p[i], g.n_valid[i], &a->m[first + i], &a->l[first + i]);
        for (int t = 0; t < tiles; t++) {
            if (a->bf16) output_bf16(a, &g, t);
            else output_f32(a, &g, t);
        }
    }
}
