/* delta_chunk_f32.h - what the chunked delta rule in vectors makes of tokens and of the state for its
 * products in f32; part of delta_chunk_body.h, as is delta_chunk_pairs.h, which has the same in pairs
 * of bf16.
 *
 * Chunks are of 16 tokens: 6 % more operations than the recurrent rule counts, where chunks of 32
 * take 12, and the state decays every 16 tokens. */
#ifndef GDN_KERN_DELTA_CHUNK_F32_H
#define GDN_KERN_DELTA_CHUNK_F32_H

enum { CHUNK = 16 };

#include "delta_chunk_parts.h"

#include "delta_chunk_gates.h"
#include "delta_chunk_rows.h"
#include "delta_chunk_tile.h"
#include "delta_chunk_work.h"

/* ---- what depends on the tokens alone ---- */

/* n rows from element `at` on to SPAN, with root to this norm, and zeros after them.  A row whose
 * squares overflow is made small first, which leaves its bits. */
PART void put_rows(float *to, const float *x, const uint16_t *bf16, int64_t at, int64_t stride, int n,
                   int dk, float root) {
    for (int i = 0; i < n; i++, at += stride, to += dk) {
        const float *row = row_in(x, bf16, at, dk, to);
        float f = 1;
        if (root != 0) {
            float squares = vf_sum_squares(row, dk) + 1e-6f;
            if (!(squares < 1e30f)) {
                for (int s = 0; s < dk; s++) to[s] = row[s] * 0x1p-80f;
                row = to;
                squares = vf_sum_squares(row, dk);
            }
            f = root / sqrtf(squares);
        }
        for (int s = 0; s < dk; s += VF_N) {
            const int wide = dk - s < VF_N ? dk - s : VF_N;
            vf_put(to + s, vf_mul(vf_set1(f), vf_get(row + s, wide)), wide);
        }
    }
    const int past = (n + CHUNK - 1) / CHUNK * CHUNK;
    if (n < past) memset(to, 0, (size_t)((past - n) * dk) * sizeof *to);
}

/* K^T of a chunk. */
PART void turn_keys(const chunk_work *w, const float *key, int dk) {
    for (int i = 0; i < CHUNK; i += VF_N)
        for (int s = 0; s < dk; s += VF_N) {
            const int wide = dk - s < VF_N ? dk - s : VF_N;
            vf t[VF_N];
            for (int j = 0; j < VF_N; j++) t[j] = vf_get(key + (i + j) * dk + s, wide);
            vf_transpose(t);
            for (int j = 0; j < VF_N; j++) vf_store(w->turned + (s + j) * CHUNK + i, t[j]);
        }
}

/* Rows i .. of a times K^T, the first cols vectors. */
INLINE void scores_tile(const chunk_work *w, const float *a, int dk, int i, int rows, int cols,
                        float *to) {
    tile c;
    clear(c, rows, cols);
    product(a + i * dk, dk, 1, w->turned, CHUNK, dk, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int j = 0; j < cols; j++)
            vf_store(to + (i + r) * CHUNK + j * VF_N, c[r][j]);
}
/* Tokens see those before them: the first vector of tokens needs no second. */
PART void scores(const chunk_work *w, const float *a, int dk, float *to) {
    const int rows = tile_rows(CV);
    scores_tile(w, a, dk, 0, MOST_ROWS, 1, to);
    for (int i = MOST_ROWS; i < CHUNK; i += rows) scores_tile(w, a, dk, i, rows, CV, to);
}

PART void span_tokens(const gdn_delta_chunk_args *a, const chunk_work *w, int64_t t0, int n) {
    const int dk = a->dk;
    for (int i = 0; i < SPAN; i++) w->g.key_scale[i] = w->g.query_scale[i] = 1;
    put_rows(w->key, a->k, a->k_bf16, t0 * a->k_stride, a->k_stride, n, dk, a->raw ? 1 : 0);
    put_rows(w->query, a->q, a->q_bf16, t0 * a->q_stride, a->q_stride, n, dk,
             a->raw ? 1 / sqrtf((float)dk) : 0);
    for (int t = 0; t < n; t += CHUNK) {
        turn_keys(w, w->key + t * dk, dk);
        scores(w, w->key + t * dk, dk, w->g.kk + t * CHUNK);
        scores(w, w->query + t * dk, dk, w->g.qk + t * CHUNK);
    }
}

/* ---- what a panel needs ---- */

/* The panel is what products need. */
INLINE void panel_words(float *words, const float *S, int dk, int cols) {
    (void)words, (void)S, (void)dk, (void)cols;
}
INLINE void keep_words(float *words, int s, int rows, int cols, tile c) {
    (void)words, (void)s, (void)rows, (void)cols, (void)c;
}

/* c = rows t .. of keys or queries times the panel. */
INLINE void times_state(const float *S, const float *words, const float *x, int t, int dk, int rows,
                        int cols, tile c) {
    (void)words;
    clear(c, rows, cols);
    product(x + t * dk, dk, 1, S, cols * VF_N, dk, rows, cols, c);
}

/* What token i + r of the n of the chunk at t adds to the state. */
INLINE void keep_gain(const chunk_work *w, int t, int i, int r, int n, int cols, tile c) {
    (void)n;
    float *W = w->W + (i + r) * cols * VF_N;
    const vf to_end = vf_set1(w->g.to_end[t + i + r]);
    UNROLL
    for (int j = 0; j < cols; j++) vf_store(W + j * VF_N, vf_mul(to_end, c[r][j]));
}

/* c, rows s .. of the turned state, += what n tokens add. */
INLINE void add_gain(const chunk_work *w, int t, int n, int s, int dk, int rows, int cols, tile c) {
    product(w->key + t * dk + s, 1, dk, w->W, cols * VF_N, n, rows, cols, c);
}

INLINE void put_outputs(const gdn_delta_chunk_args *a, int64_t at, const vf *y, int cols, int n) {
    outputs_out(a, at, y, cols, n);
}

#endif
