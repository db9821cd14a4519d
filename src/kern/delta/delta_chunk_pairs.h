/* delta_chunk_pairs.h - what the chunked delta rule in vectors makes of tokens and of the state for
 * its products in words of two bf16; part of delta_chunk_body.h.  Besides the names of
 * delta_chunk_words.h it needs
 *
 *     word_fma        c + a b, a and b words: two products a lane
 *     vf_row_words    two vectors to words, neighbours together
 *     vf_get_words    n words of bf16 in memory
 *     vf_zip          rows of words to words of one number of each: those from the lower or the upper
 *                     half of a vector
 *     vf_store_two_bf16, vf_stream_two_bf16   two vectors to memory, as bf16 one after the other
 *
 * Chunks are of 32 tokens.  Words serve K K^T, Q K^T, K S and Q S, and the state's update; keys and
 * queries, which bf16 has exactly, go through all of them as they are, and their norms into the
 * gates.  The update's bf16 would leave the state off by up to 2.7e-3, so the words of its last
 * tokens, which decay least, are there twice: rounded, and what that left.  U and P U stay f32: U is
 * what is left of numbers much larger. */
#ifndef GDN_KERN_DELTA_CHUNK_PAIRS_H
#define GDN_KERN_DELTA_CHUNK_PAIRS_H

enum {
    CHUNK = 32,
    LAST = 4, /* pairs of a chunk's last tokens whose part in the state is exact to 16 bits */
};

#include "delta_chunk_parts.h"

#include "delta_chunk_gates.h"
#include "delta_chunk_rows.h"
#include "delta_chunk_tile.h"
#include "delta_chunk_words.h"
#include "delta_chunk_work.h"

PRODUCT(product_words, word_fma)

/* ---- what depends on the tokens alone ---- */

/* A row of dk numbers, times a factor, as words; the sums of its squares. */
INLINE vf put_row(float *to, const float *x, const uint16_t *bf16, int64_t at, int dk, float factor) {
    const vf f = vf_set1(factor);
    vf squares = vf_zero();
    for (int s = 0; s < dk; s += 2 * VF_N) {
        const int left = dk - s < 2 * VF_N ? dk - s : 2 * VF_N;
        float space[2 * VF_N] = {0};
        const float *row = row_in(x, bf16, at + s, left, space);
        const vf low = vf_get(row, left < VF_N ? left : VF_N);
        const vf high = left > VF_N ? vf_get(row + VF_N, left - VF_N) : vf_zero();
        const vf words = vf_row_words(vf_mul(f, low), vf_mul(f, high));
        squares = vf_squares(words, squares);
        vf_put(to + s / 2, words, left / 2);
    }
    return squares;
}

/* The same of bf16 in memory, which are words as they lie. */
INLINE vf copy_row(float *to, const uint16_t *x, int dk) {
    const int words = dk / 2, whole = words / VF_N * VF_N;
    vf squares = vf_zero();
    for (int s = 0; s < whole; s += VF_N) {
        const vf w = vf_get_words(x + 2 * s, VF_N);
        squares = vf_squares(w, squares);
        vf_store(to + s, w);
    }
    if (whole == words) return squares;
    const vf w = vf_get_words(x + 2 * whole, words - whole);
    vf_store_n(to + whole, w, words - whole);
    return vf_squares(w, squares);
}

/* n rows of dk numbers from element `at` on as words, and what takes them to the norm root; rows from n
 * on are zero.  A row whose squares overflow is made small first, which leaves its bits. */
PART void put_rows(float *to, const float *x, const uint16_t *bf16, int64_t at, int64_t stride, int n,
                   int dk, float root, float *scale) {
    const int words = dk / 2;
    float squares[CHUNK];
    for (int i = 0; i < CHUNK; i += VF_N) {
        vf t[VF_N];
        for (int j = 0; j < VF_N; j++) {
            const int64_t from = at + (i + j) * stride;
            float *row = to + (i + j) * words;
            t[j] = i + j >= n     ? vf_zero()
                   : bf16 != NULL ? copy_row(row, bf16 + from, dk)
                                  : put_row(row, x, NULL, from, dk, 1);
        }
        vf_store(squares + i, lane_sums(t));
    }
    memset(to + n * words, 0, (size_t)((CHUNK - n) * words) * sizeof *to);
    for (int i = 0; i < CHUNK; i++) scale[i] = root / sqrtf(squares[i] + 1e-6f);
    for (int i = 0; i < n; i++)
        if (!(squares[i] < 1e30f))
            scale[i] = root / sqrtf(vf_hsum(put_row(to + i * words, x, bf16, at + i * stride, dk,
                                                    0x1p-80f)));
}

/* K^T, and K with two tokens a word. */
PART void turn_keys(const chunk_work *w, int dk) {
    const int words = dk / 2;
    for (int s = 0; s < words; s += VF_N) {
        const int wide = words - s < VF_N ? words - s : VF_N;
        const float *key = w->key + s;
        for (int i = 0; i < CHUNK; i += VF_N) {
            vf t[VF_N];
            for (int j = 0; j < VF_N; j++) t[j] = vf_get(key + (i + j) * words, wide);
            vf_transpose(t);
            for (int j = 0; j < VF_N; j++) vf_store(w->turned + (s + j) * CHUNK + i, t[j]);
        }
        for (int i = 0; i < CHUNK; i += 2) {
            const vf x = vf_get(key + i * words, wide), y = vf_get(key + (i + 1) * words, wide);
            float *to = w->pairs + i / 2 * dk + 2 * s;
            const int left = 2 * wide;
            vf_put(to, vf_zip(x, y, 0), left < VF_N ? left : VF_N);
            if (left > VF_N) vf_put(to + VF_N, vf_zip(x, y, 1), left - VF_N);
        }
    }
}

/* Rows i .. of keys or queries times K^T, cols vectors of tokens from vector j on. */
INLINE void scores_tile(const chunk_work *w, const float *x, int dk, int i, int j, int cols, float *to) {
    tile c;
    clear(c, MOST_ROWS, cols);
    product_words(x + i * dk / 2, dk / 2, 1, w->turned + j * VF_N, CHUNK, dk / 2, MOST_ROWS, cols, c);
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++)
        UNROLL
        for (int l = 0; l < cols; l++) vf_store(to + (i + r) * CHUNK + (j + l) * VF_N, c[r][l]);
}
/* Tokens see those before them, and themselves. */
PART void scores(const chunk_work *w, const float *x, int dk, float *to) {
    for (int i = 0; i < CHUNK; i += MOST_ROWS)
        for (int j = 0; j * VF_N < i + MOST_ROWS; j += 2)
            if ((j + 1) * VF_N < i + MOST_ROWS) scores_tile(w, x, dk, i, j, 2, to);
            else scores_tile(w, x, dk, i, j, 1, to);
}

PART void span_tokens(const gdn_delta_chunk_args *a, const chunk_work *w, int64_t t0, int n) {
    const int dk = a->dk;
    put_rows(w->key, a->k, a->k_bf16, t0 * a->k_stride, a->k_stride, n, dk, 1, w->g.key_scale);
    put_rows(w->query, a->q, a->q_bf16, t0 * a->q_stride, a->q_stride, n, dk,
             1 / sqrtf((float)dk), w->g.query_scale);
    turn_keys(w, dk);
    scores(w, w->key, dk, w->g.kk);
    scores(w, w->query, dk, w->g.qk);
}

/* ---- what a panel needs ---- */

/* The panel's words, each of two neighbouring rows. */
INLINE void panel_words(float *words, const float *S, int dk, int cols) {
    const int ld = cols * VF_N;
    for (int s = 0; s < dk; s += 2, S += 2 * ld, words += ld)
        for (int j = 0; j < ld; j += VF_N)
            vf_store(words + j, vf_words(vf_load(S + j), vf_load(S + ld + j)));
}
/* The same of rows s .. of the panel, which are c. */
INLINE void keep_words(float *words, int s, int rows, int cols, tile c) {
    words += s / 2 * cols * VF_N;
    UNROLL
    for (int r = 0; r < rows; r += 2)
        UNROLL
        for (int j = 0; j < cols; j++, words += VF_N) vf_store(words, vf_words(c[r][j], c[r + 1][j]));
}

/* c = rows t .. of keys or queries times the panel. */
INLINE void times_state(const float *S, const float *words, const float *x, int t, int dk, int rows,
                        int cols, tile c) {
    (void)S;
    clear(c, rows, cols);
    product_words(x + t * dk / 2, dk / 2, 1, words, cols * VF_N, dk / 2, rows, cols, c);
}

/* What token i + r of the n of the chunk at t adds to the state, and the one before it, if it is the
 * second of a pair. */
INLINE void keep_gain(const chunk_work *w, int t, int i, int r, int n, int cols, tile c) {
    if (r % 2 == 0) return;
    const int ld = cols * VF_N, parts = i + r + 2 * LAST >= n ? 2 : 1;
    const vf f = vf_set1(w->g.to_end[t + i + r - 1]), f1 = vf_set1(w->g.to_end[t + i + r]);
    float *W = w->W + (i + r) / 2 * ld;
    UNROLL
    for (int j = 0; j < cols; j++)
        put_words(W + j * VF_N, CHUNK / 2 * ld, vf_mul(f, c[r - 1][j]), vf_mul(f1, c[r][j]), parts);
}

/* c, rows s .. of the turned state, += what n tokens add. */
INLINE void add_gain(const chunk_work *w, int t, int n, int s, int dk, int rows, int cols, tile c) {
    const int ld = cols * VF_N, all = (n + 1) / 2, from = all < LAST ? 0 : all - LAST;
    (void)t;
    product_words(w->pairs + s, 1, dk, w->W, ld, all, rows, cols, c);
    product_words(w->pairs + from * dk + s, 1, dk, w->W + (CHUNK / 2 + from) * ld, ld, all - from, rows,
                  cols, c);
}

/* Two vectors of outputs in bf16 are a line. */
INLINE void put_outputs(const gdn_delta_chunk_args *a, int64_t at, const vf *y, int cols, int n) {
    const bool line = a->o_bf16 != NULL && cols == 2 && n == VF_N;
    if (!line) outputs_out(a, at, y, cols, n);
    else if (a->past) vf_stream_two_bf16(a->o_bf16 + at, y[0], y[1]);
    else vf_store_two_bf16(a->o_bf16 + at, y[0], y[1]);
}

#endif
