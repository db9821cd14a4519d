/* delta_chunk_pairs_body.h - the gated delta rule in chunks of 32 over vf, its products in pairs of
 * bf16; included by delta_chunk_<isa>.c after a vec_<isa>.h and these names, where a word is two
 * bf16 in four bytes:
 *
 *     word_fma       c + a b, a one word for all lanes: two products a lane
 *     pack_row       n f32 to words, neighbours together; may be in place
 *     pack_pair      two rows of n f32 that bf16 has, to words of one number of each
 *     pack_parts     CHUNK f32 in place: their words, then the words of what these leave
 *     vf_transpose   VF_N vectors in place
 *
 * and MM_ROWS, the rows of a tile of four vectors, TRI_ROWS of one of a triangle, and SCORE_ROWS of
 * one of scores, which divide CHUNK / 2.
 *
 * Lanes run over the chunk's tokens, so S is read as it lies, one word at a time against K^T and
 * Q^T side by side; only K, Q, V and O are transposed.  A chunk's part that depends on the
 * tokens alone comes first, then groups of rows walk through the rest, whose numbers stay in
 * the first cache:
 *
 *     M = S0 [K^T Q^T]    R = beta (V^T - exp(G) M_K)    U^T = R T^T
 *     O^T = exp(G) M_Q + U^T P    S = exp(G_last) S + (U^T exp(G_last - G)) K
 *
 * Words serve K K^T, Q K^T, M and, where k is exact, the state's update; keys and queries that
 * are still to be normalised go through all of them as they are, and their norms into the gates.
 * The update's bf16 would leave the state off by up to 2.7e-3, so the words of its last tokens,
 * which decay least, are there twice: rounded, and what that left.  From rounded keys (2.4e-3, 4e-3
 * with a key repeated) the update stays f32, as do T and P always: rows of T hold 1 and -1, so
 * that U is what is left of numbers much larger.  |T_ij| <= 1, because it is a product of
 * contractions: the explicit inverse is safe. */
#include "delta_chunk_pairs_work.h"
#include "delta_chunk_parts.h"
#include "delta_chunk_rows.h"

enum {
    CHUNK = GDN_DELTA_CHUNK,
    CN = CHUNK / VF_N,
    MOST_ROWS = 8, /* of a tile                                                          */
    LAST = 4, /* pairs of a chunk's last tokens whose part in the state is exact to 16 bits */
};

/* c += a b for `rows` rows of a and `cols` vectors of b, n words deep. */
#define PRODUCT(name, fma)                                                                       \
    INLINE void name(const float *a, int64_t lda, const float *b, int64_t ldb, int n, int rows,  \
                     int cols, vf (*c)[4]) {                                                     \
        for (int s = 0; s < n; s++, b += ldb) {                                                  \
            vf y[MOST_ROWS];                                                                     \
            UNROLL for (int r = 0; r < rows; r++) y[r] = vf_set1(a[r * lda + s]);                \
            UNROLL for (int j = 0; j < cols; j++) {                                              \
                const vf x = vf_load(b + j * VF_N);                                              \
                UNROLL for (int r = 0; r < rows; r++) c[r][j] = fma(y[r], x, c[r][j]);           \
            }                                                                                    \
        }                                                                                        \
    }
PRODUCT(product_words, word_fma)
PRODUCT(product_f32, vf_fma)

/* y [rows][2 CHUNK] = a tokens, columns from `from` on. */
INLINE void by_tokens_tile(const pairs_work *w, const float *a, int64_t lda, int words, int rows,
                           int cols, int at, float *y) {
    vf c[MOST_ROWS][4];
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int j = 0; j < cols; j++) c[r][j] = vf_zero();
    product_words(a, lda, w->tokens + at, 2 * CHUNK, words, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int j = 0; j < cols; j++) vf_store(y + r * 2 * CHUNK + at + j * VF_N, c[r][j]);
}
INLINE void by_tokens_at(const pairs_work *w, const float *a, int64_t lda, int words, int rows,
                         int at, float *y) {
    for (; rows >= MM_ROWS; rows -= MM_ROWS, a += MM_ROWS * lda, y += MM_ROWS * 2 * CHUNK)
        by_tokens_tile(w, a, lda, words, MM_ROWS, 4, at, y);
    for (; rows > 0; rows--, a += lda, y += 2 * CHUNK)
        by_tokens_tile(w, a, lda, words, 1, 4, at, y);
}
/* All rows against the same tokens, which stay in the first cache, before the next. */
PART void by_tokens(const pairs_work *w, const float *a, int64_t lda, int words, int rows,
                    float *y) {
    for (int at = 0; at < 2 * CHUNK; at += 4 * VF_N) by_tokens_at(w, a, lda, words, rows, at, y);
}

/* ---- what depends on the tokens alone ---- */

/* n of CHUNK rows from element `at` on as words, and as they are when f32 is not NULL; rows from n on are zero.  With
 * root, scale becomes what takes a row to the norm root; a row whose squares overflow is made
 * small first, which leaves its bits. */
PART void put_rows(const pairs_work *w, float *to, float *f32, const float *x, const uint16_t *bf16,
                   int64_t at, int64_t stride, int n, int dk, float root, float *scale) {
    for (int i = 0; i < CHUNK; i++) scale[i] = i < n;
    for (int i = 0; i < n; i++, at += stride) {
        float space[GDN_DELTA_CHUNK_DK];
        const float *row = row_in(x, bf16, at, dk, space);
        if (root != 0) {
            float squares = vf_sum_squares(row, dk) + 1e-6f;
            if (!(squares < 1e30f)) {
                for (int s = 0; s < dk; s++) space[s] = row[s] * 0x1p-80f;
                row = space;
                squares = vf_sum_squares(row, dk);
            }
            scale[i] = root / sqrtf(squares);
        }
        pack_row(to + i * w->row_words, row, dk);
        if (f32 != NULL) memcpy(f32 + i * w->row32, row, (size_t)dk * sizeof *to);
    }
    memset(to + n * w->row_words, 0, (size_t)((CHUNK - n) * w->row_words) * sizeof *to);
    if (f32 != NULL)
        memset(f32 + n * w->row32, 0, (size_t)((CHUNK - n) * w->row32) * sizeof *to);
}

/* Half of w->tokens: the transpose of CHUNK rows. */
PART void put_tokens(const pairs_work *w, const float *x, float *to) {
    for (int i = 0; i < CHUNK; i += VF_N)
        for (int s = 0; s < w->words; s += VF_N) {
            vf t[VF_N];
    UNROLL
            for (int j = 0; j < VF_N; j++) t[j] = vf_load(x + (i + j) * w->row_words + s);
            vf_transpose(t);
    UNROLL
            for (int j = 0; j < VF_N; j++) vf_store(to + (s + j) * 2 * CHUNK + 2 * i, t[j]);
        }
}

/* Keys against tokens; the second half of them needs the second half of the tokens only. */
PART void scores(const pairs_work *w) {
    const int64_t lda = w->row_words;
    const int half = CHUNK / 2, cols = CHUNK / VF_N < 4 ? CHUNK / VF_N : 4;
    by_tokens(w, w->keys, lda, w->words, half, w->scores);
    for (int j = half; j < CHUNK; j += SCORE_ROWS)
        by_tokens_tile(w, w->keys + j * lda, lda, w->words, SCORE_ROWS, cols, CHUNK,
                       w->scores + j * 2 * CHUNK);
}

/* Sums of g to a float's precision relative to a difference, however large the sums: after a
 * gate of -1e4 the next tokens' decay among themselves still counts.  Every decay past -1e4 is
 * a zero, and infinities have no difference. */
PART void gates(const gdn_delta_chunk_args *a, const pairs_work *w, int64_t t0, int n) {
    double sum = 0;
    for (int i = 0; i < CHUNK; i++) {
        if (i < n) {
            const float g = a->g[(t0 + i) * a->gate_stride];
            sum += (double)(g < -1e4f ? -1e4f : g);
        }
        w->hi[i] = (float)sum;
        w->lo[i] = (float)(sum - (double)w->hi[i]);
        w->beta[i] = i < n ? a->beta[(t0 + i) * a->gate_stride] : 0;
    }
    const vf hi = vf_set1(w->hi[CHUNK - 1]), lo = vf_set1(w->lo[CHUNK - 1]);
    for (int i = 0; i < CHUNK; i += VF_N) {
        const vf h = vf_load(w->hi + i), l = vf_load(w->lo + i);
        const vf start = vf_exp(h), end = vf_exp(vf_add(vf_sub(hi, h), vf_sub(lo, l)));
        const vf k = vf_load(w->key_scale + i);
        vf_store(w->from_start + i, start);
        vf_store(w->key_start + i, vf_mul(start, k));
        vf_store(w->query_start + i, vf_mul(start, vf_load(w->query_scale + i)));
        vf_store(w->key_end + i, vf_mul(end, k));
    }
}

/* Row j of A^T and P from VF_N tokens at i on. */
INLINE vf decayed(const pairs_work *w, int j, int i, vf *A) {
    static const float count[CHUNK] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                       11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                       22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    const vf at = vf_load(count + i), zero = vf_zero();
    const vf self = vf_set1((float)j), later = vf_set1((float)(j + 1));
    const vf hi = vf_sub(vf_load(w->hi + i), vf_set1(w->hi[j]));
    const vf lo = vf_sub(vf_load(w->lo + i), vf_set1(w->lo[j]));
    const vf e = vf_mul(vf_exp(vf_select_lt(at, self, zero, vf_add(hi, lo))),
                        vf_set1(w->key_scale[j]));
    const float *s = w->scores + j * 2 * CHUNK + 2 * i;
    const vf beta = vf_mul(vf_load(w->beta + i), vf_load(w->key_scale + i));
    const vf k = vf_mul(vf_mul(e, beta), vf_load(s));
    const vf q = vf_mul(vf_mul(e, vf_load(w->query_scale + i)), vf_load(s + VF_N));
    *A = vf_select_lt(at, later, zero, k);
    return vf_select_lt(at, self, zero, q);
}
PART void decay(const pairs_work *w) {
    for (int j = 0; j < CHUNK; j += 2)
        for (int i = j / VF_N * VF_N; i < CHUNK; i += VF_N) {
            vf A[2];
            const vf P0 = decayed(w, j, i, &A[0]), P1 = decayed(w, j + 1, i, &A[1]);
            vf_store(w->A + j * CHUNK + i, A[0]);
            vf_store(w->A + (j + 1) * CHUNK + i, A[1]);
            vf_store(w->P + j * CHUNK + i, P0);
            vf_store(w->P + (j + 1) * CHUNK + i, P1);
        }
}

INLINE void invert_step(const pairs_work *w, int j, int i, vf *t) {
    const vf A = vf_set1(-w->A[j * CHUNK + i]);
    UNROLL
    for (int c = 0; c < CN; c++) t[c] = vf_fma(A, vf_load(w->T + i * CHUNK + c * VF_N), t[c]);
}
/* T^T from the last row up: T_j = e_j - sum over i > j of A_ij T_i, in four sums because one
 * would wait for itself. */
PART void invert(const pairs_work *w) {
    for (int j = CHUNK - 1; j >= 0; j--) {
        vf t[4][CN];
        float *T = w->T + j * CHUNK;
        memset(T, 0, CHUNK * sizeof *T);
        T[j] = 1;
        UNROLL
        for (int c = 0; c < CN; c++) {
            t[0][c] = vf_load(T + c * VF_N);
            t[1][c] = t[2][c] = t[3][c] = vf_zero();
        }
        int i = CHUNK - 1;
        for (; i - 3 > j; i -= 4)
            UNROLL
            for (int x = 0; x < 4; x++) invert_step(w, j, i - x, t[x]);
        for (; i > j; i--) invert_step(w, j, i, t[0]);
        UNROLL
        for (int c = 0; c < CN; c++)
            vf_store(T + c * VF_N, vf_add(vf_add(t[0][c], t[1][c]), vf_add(t[2][c], t[3][c])));
    }
}

/* What depends on keys and queries alone. */
INLINE void chunk_rows(const gdn_delta_chunk_args *a, const pairs_work *w, int64_t t0, int n,
                       int dk) {
    const float one = a->raw ? 1.0f : 0, root = a->raw ? 1 / sqrtf((float)dk) : 0;
    put_rows(w, w->keys, w->keys32, a->k, a->k_bf16, t0 * a->k_stride, a->k_stride, n, dk, one,
             w->key_scale);
    put_rows(w, w->query, NULL, a->q, a->q_bf16, t0 * a->q_stride, a->q_stride, n, dk, root,
             w->query_scale);
    put_tokens(w, w->keys, w->tokens);
    put_tokens(w, w->query, w->tokens + VF_N);
    if (a->raw)
        for (int i = 0; i < CHUNK; i += 2)
            pack_pair(w->pairs + i / 2 * w->row32, w->keys32 + i * w->row32,
                      w->keys32 + (i + 1) * w->row32, dk);
    scores(w);
}

INLINE void chunk_tokens(const gdn_delta_chunk_args *a, const pairs_work *w, int64_t t0, int n,
                         int dk) {
    if (!a->same) chunk_rows(a, w, t0, n, dk);
    gates(a, w, t0, n);
    decay(w);
    invert(w);
}

/* ---- rows of S ---- */

/* V^T of `rows` rows, zero for tokens from n on. */
PART void get_values(const gdn_delta_chunk_args *a, const pairs_work *w, int64_t t0, int n,
                       int64_t row, int rows) {
    for (int i = 0; i < CHUNK; i += VF_N)
        for (int r = 0; r < rows; r += VF_N) {
            const int left = rows - r < VF_N ? rows - r : VF_N;
            const int64_t at = (t0 + i) * a->v_stride + row + r;
            vf t[VF_N];
    UNROLL
            for (int j = 0; j < VF_N; j++)
                t[j] = i + j < n ? value_in(a, at + j * a->v_stride, left) : vf_zero();
            vf_transpose(t);
    UNROLL
            for (int j = 0; j < VF_N; j++) vf_store(w->V + (r + j) * CHUNK + i, t[j]);
        }
}
PART void put_outputs(const gdn_delta_chunk_args *a, const pairs_work *w, int64_t t0, int n,
                        int64_t row, int rows) {
    for (int i = 0; i < n; i += VF_N)
        for (int r = 0; r < rows; r += VF_N) {
            const int left = rows - r < VF_N ? rows - r : VF_N;
            const int64_t at = (t0 + i) * a->o_stride + row + r;
            vf t[VF_N];
    UNROLL
            for (int j = 0; j < VF_N; j++)
                t[j] = vf_load(w->M + (r + j) * 2 * CHUNK + 2 * i + VF_N);
            vf_transpose(t);
            for (int j = 0; j < VF_N && i + j < n; j++) output_out(a, at + j * a->o_stride, t[j], left);
        }
}

/* c += a b for an upper triangle b [CHUNK][CHUNK]. */
INLINE void times_triangle(const float *a, const float *b, int rows, vf (*c)[CN]) {
    UNROLL
    for (int j0 = 0; j0 < CN; j0++)
        for (int s = j0 * VF_N; s < (j0 + 1) * VF_N; s++)
            UNROLL
            for (int r = 0; r < rows; r++) {
                const vf y = vf_set1(a[r * CHUNK + s]);
                UNROLL
                for (int j = j0; j < CN; j++)
                    c[r][j] = vf_fma(y, vf_load(b + s * CHUNK + j * VF_N), c[r][j]);
            }
}

/* From M and V to U, and O in place of M's second half. */
INLINE void corrections(const pairs_work *w, int r0, int rows) {
    float *M = w->M + r0 * 2 * CHUNK, *V = w->V + r0 * CHUNK;
    float *U = w->U + r0 * CHUNK, *W = w->W + r0 * CHUNK;
    vf c[TRI_ROWS][CN];
    UNROLL
    for (int j = 0; j < CN; j++) {
        const vf e = vf_load(w->key_start + j * VF_N), beta = vf_load(w->beta + j * VF_N);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const vf m = vf_mul(e, vf_load(M + (r * CN + j) * 2 * VF_N));
            float *v = V + r * CHUNK + j * VF_N;
            vf_store(v, vf_mul(beta, vf_sub(vf_load(v), m)));
            c[r][j] = vf_zero();
        }
    }
    times_triangle(V, w->T, rows, c);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int j = 0; j < CN; j++) {
            vf_store(U + r * CHUNK + j * VF_N, c[r][j]);
            vf_store(W + r * CHUNK + j * VF_N,
                     vf_mul(c[r][j], vf_load(w->key_end + j * VF_N)));
        }
    }
    UNROLL
    for (int j = 0; j < CN; j++) {
        const vf e = vf_load(w->query_start + j * VF_N);
        UNROLL
        for (int r = 0; r < rows; r++)
            c[r][j] = vf_mul(e, vf_load(M + ((r * CN + j) * 2 + 1) * VF_N));
    }
    times_triangle(U, w->P, rows, c);
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int j = 0; j < CN; j++) vf_store(M + ((r * CN + j) * 2 + 1) * VF_N, c[r][j]);
}

PART void all_corrections(const pairs_work *w, int rows) {
    int r = 0;
    for (; r + TRI_ROWS <= rows; r += TRI_ROWS) corrections(w, r, TRI_ROWS);
    for (; r < rows; r++) corrections(w, r, 1);
}

/* n columns of S from i on, cols vectors of them. */
INLINE void update_tile(const pairs_work *w, float *S, const float *W, int dk, int i, int rows,
                        int cols, int n, bool pairs) {
    const vf fade = vf_set1(w->from_start[CHUNK - 1]);
    vf c[MOST_ROWS][4];
    UNROLL
    for (int r = 0; r < rows; r++)
    UNROLL
        for (int j = 0; j < cols; j++)
            c[r][j] = vf_mul(fade, vf_get(S + r * dk + i + j * VF_N, n));
    if (pairs) {
        const float *last = w->pairs + w->last * w->row32 + i;
        product_words(W, CHUNK, w->pairs + i, w->row32, CHUNK / 2, rows, cols, c);
        product_words(W + CHUNK / 2 + w->last, CHUNK, last, w->row32, LAST, rows, cols, c);
    } else {
        product_f32(W, CHUNK, w->keys32 + i, w->row32, CHUNK, rows, cols, c);
    }
    UNROLL
    for (int r = 0; r < rows; r++)
    UNROLL
        for (int j = 0; j < cols; j++) vf_put(S + r * dk + i + j * VF_N, c[r][j], n);
}
INLINE void update_rows(const pairs_work *w, float *S, const float *W, int dk, int rows,
                        bool pairs) {
    int i = 0;
    for (; i + 4 * VF_N <= dk; i += 4 * VF_N) update_tile(w, S, W, dk, i, rows, 4, VF_N, pairs);
    for (; i + VF_N <= dk; i += VF_N) update_tile(w, S, W, dk, i, rows, 1, VF_N, pairs);
    if (i < dk) update_tile(w, S, W, dk, i, rows, 1, dk - i, pairs);
}

PART void update(const gdn_delta_chunk_args *a, const pairs_work *w, float *S, int dk, int rows) {
    int r = 0;
    for (; r + MM_ROWS <= rows; r += MM_ROWS) {
        update_rows(w, S + r * dk, w->W + r * CHUNK, dk, MM_ROWS, false);
        call_aside(a);
    }
    for (; r < rows; r++) update_rows(w, S + r * dk, w->W + r * CHUNK, dk, 1, false);
}
PART void update_pairs(const gdn_delta_chunk_args *a, const pairs_work *w, float *S, int dk, int rows) {
    int r = 0;
    for (int i = 0; i < rows; i++) pack_parts(w->W + i * CHUNK);
    for (; r + MM_ROWS <= rows; r += MM_ROWS) {
        update_rows(w, S + r * dk, w->W + r * CHUNK, dk, MM_ROWS, true);
        call_aside(a);
    }
    for (; r < rows; r++) update_rows(w, S + r * dk, w->W + r * CHUNK, dk, 1, true);
}

PART void group_rows(const gdn_delta_chunk_args *a, const pairs_work *w, int64_t t0, int n,
                       int64_t row, int rows, int dk) {
    float *S = a->S + row * dk;
    get_values(a, w, t0, n, row, rows);
    for (int i = 0; i < rows; i++) pack_row(w->S + i * w->row_words, S + i * dk, dk);
    by_tokens(w, w->S, w->row_words, w->words, rows, w->M);
    all_corrections(w, rows);
    put_outputs(a, w, t0, n, row, rows);
    if (a->raw) update_pairs(a, w, S, dk, rows);
    else update(a, w, S, dk, rows);
}

INLINE void delta_chunk_pairs_body(const gdn_delta_chunk_args *a) {
    const int dk = a->dk;
    pairs_work w;
    if (a->v0 >= a->v1) return;
    pairs_layout(&w, a->work, dk);
    for (int64_t t = 0; t < a->n_tok; t += CHUNK) {
        const int n = a->n_tok - t < CHUNK ? (int)(a->n_tok - t) : CHUNK;
        w.last = (n + 1) / 2 > LAST ? (n + 1) / 2 - LAST : 0;
        chunk_tokens(a, &w, t, n, dk);
        int64_t row = a->v0;
        for (; row + GROUP <= a->v1; row += GROUP) group_rows(a, &w, t, n, row, GROUP, dk);
        if (row < a->v1) group_rows(a, &w, t, n, row, (int)(a->v1 - row), dk);
    }
}
