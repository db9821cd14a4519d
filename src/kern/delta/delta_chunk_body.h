/* delta_chunk_body.h - the gated delta rule in chunks, in f32, over vf; included by
 * delta_chunk_<isa>.c after a vec_<isa>.h and these names:
 *
 *     vf_transpose   VF_N vectors in place
 *     PANEL          vectors of a panel at most, 2 or 3: as many rows of S pass together
 *     tile_rows      rows of a tile with so many vectors that all of it lies in registers: 4 or 8
 *
 * Lanes run over rows of S, that is over value channels, so that values and outputs are taken and
 * left as they lie.  For this the state is held turned, in panels [dk][PANEL VF_N] of 12 to 16 KiB
 * that stay in the first cache while 32 tokens pass:
 *
 *     U = beta V - beta exp(G) (K S)       a few tokens at a time: a product with the panel,
 *     U_i -= sum over j < i of A_ij U_j    then with the U before, then among themselves
 *     O = exp(G) (Q S) + P U
 *     S = exp(G_last) S + K^T (exp(G_last - G) U)
 *
 * Every product is a tile of the left side's numbers, one for all lanes, with the right side's
 * vectors, and a sum is one chain in ascending order whatever the tile: hence rows do not depend on
 * the panel they lie in.  Chunks are of 16 tokens: 6 % more operations than the recurrent rule
 * counts, where chunks of 32 take 12, and the state decays every 16 tokens. */
#include "delta_chunk_work.h"
#include "delta_chunk_parts.h"
#include "delta_chunk_rows.h"
#include "delta_chunk_tile.h"

enum { CV = CHUNK / VF_N };

/* ---- the state, turned ---- */

/* The columns of a panel are `rows` rows of S, from row v on. */
PART void turn_in(const gdn_delta_chunk_args *a, float *to, int64_t v, int rows) {
    const int dk = a->dk, ld = (rows + VF_N - 1) / VF_N * VF_N;
    for (int r = 0; r < rows; r += VF_N)
        for (int s = 0; s < dk; s += VF_N) {
            const int wide = dk - s < VF_N ? dk - s : VF_N;
            const float *S = a->S + (v + r) * dk + s;
            vf t[VF_N];
            for (int j = 0; j < VF_N; j++)
                t[j] = r + j < rows ? vf_get(S + j * dk, wide) : vf_zero();
            vf_transpose(t);
            for (int j = 0; j < wide; j++) vf_store(to + (s + j) * ld + r, t[j]);
        }
}
PART void turn_out(const gdn_delta_chunk_args *a, const float *from, int64_t v, int rows) {
    const int dk = a->dk, ld = (rows + VF_N - 1) / VF_N * VF_N;
    for (int r = 0; r < rows; r += VF_N)
        for (int s = 0; s < dk; s += VF_N) {
            const int wide = dk - s < VF_N ? dk - s : VF_N;
            float *S = a->S + (v + r) * dk + s;
            vf t[VF_N];
            for (int j = 0; j < VF_N; j++)
                t[j] = j < wide ? vf_load(from + (s + j) * ld + r) : vf_zero();
            vf_transpose(t);
            for (int j = 0; j < VF_N && r + j < rows; j++) vf_put(S + j * dk, t[j], wide);
        }
}

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
    put_rows(w->key, a->k, a->k_bf16, t0 * a->k_stride, a->k_stride, n, dk, a->raw ? 1 : 0);
    put_rows(w->query, a->q, a->q_bf16, t0 * a->q_stride, a->q_stride, n, dk,
             a->raw ? 1 / sqrtf((float)dk) : 0);
    for (int t = 0; t < n; t += CHUNK) {
        turn_keys(w, w->key + t * dk, dk);
        scores(w, w->key + t * dk, dk, w->kk + t * CHUNK);
        scores(w, w->query + t * dk, dk, w->qk + t * CHUNK);
    }
}

/* ---- what depends on a head's gates ---- */

/* A chunk of n tokens at t of the span, at t0 + t of the call.  Decays between two tokens are
 * products of the tokens' own, row after row: no sum of logarithms whose difference would be lost
 * after a gate of -1e4, and no infinities. */
PART void gates(const gdn_delta_chunk_args *a, const chunk_work *w, int64_t t0, int t, int n) {
    static const float one_at[2 * CHUNK] = {[CHUNK - 1] = 1};
    float g[CHUNK], decay[CHUNK], sum_g[CHUNK];
    double sum = 0;
    for (int i = 0; i < CHUNK; i++) {
        const float x = i < n ? a->g[(t0 + t + i) * a->gate_stride] : 0;
        g[i] = x < -1e4f ? -1e4f : x;
        sum += (double)g[i];
        sum_g[i] = (float)sum;
        w->beta[t + i] = i < n ? a->beta[(t0 + t + i) * a->gate_stride] : 0;
    }
    vf e[CV];
    for (int j = 0; j < CV; j++) {
        const vf start = vf_exp(vf_load(sum_g + j * VF_N));
        vf_store(decay + j * VF_N, vf_exp(vf_load(g + j * VF_N)));
        vf_store(w->from_start + t + j * VF_N, start);
        vf_store(w->take + t + j * VF_N,
                 vf_sub(vf_zero(), vf_mul(start, vf_load(w->beta + t + j * VF_N))));
        e[j] = vf_zero();
    }
    for (int i = 0; i < CHUNK; i++) {
        const int64_t row = (t + i) * CHUNK;
        const vf alpha = vf_set1(decay[i]), beta = vf_set1(-w->beta[t + i]);
        for (int j = 0; j < CV; j++) {
            e[j] = vf_mul(e[j], alpha);
            vf_store(w->A + row + j * VF_N,
                     vf_mul(vf_mul(e[j], beta), vf_load(w->kk + row + j * VF_N)));
            e[j] = vf_add(e[j], vf_load(one_at + CHUNK - 1 - i + j * VF_N));
            vf_store(w->P + row + j * VF_N, vf_mul(e[j], vf_load(w->qk + row + j * VF_N)));
        }
    }
    for (int j = 0; j < CV; j++) vf_store(w->to_end + t + j * VF_N, e[j]);
}

/* ---- a panel ---- */

/* A chunk as a panel sees it. */
typedef struct {
    const gdn_delta_chunk_args *a;
    const chunk_work *w;
    float *S;    /* the panel, [dk][cols VF_N]                      */
    int64_t v;   /* its first row of S                              */
    int64_t at;  /* the chunk's first token in the call             */
    int t, n;    /* the same in the span; tokens                    */
    int last;    /* lanes in use of the panel's last vector         */
} pass;

/* U of tokens i .. i + rows, and W. */
INLINE void corrections(const pass *p, int i, int rows, int cols) {
    const chunk_work *w = p->w;
    const int dk = p->a->dk, ld = cols * VF_N, t = p->t + i;
    const float *A = w->A + t * CHUNK;
    float *U = w->U + i * ld, *W = w->W + i * ld;
    tile c;
    clear(c, rows, cols);
    product(w->key + t * dk, dk, 1, p->S, ld, dk, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++) {
        const int64_t at = (p->at + i + r) * p->a->v_stride + p->v;
        const vf take = vf_set1(w->take[t + r]), beta = vf_set1(w->beta[t + r]);
        UNROLL
        for (int j = 0; j < cols; j++) {
            vf v = vf_zero();
            if (i + r < p->n) v = value_in(p->a, at + j * VF_N, j < cols - 1 ? VF_N : p->last);
            c[r][j] = vf_fma(take, c[r][j], vf_mul(beta, v));
        }
    }
    product(A, CHUNK, 1, w->U, ld, i, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++) {
        const vf to_end = vf_set1(w->to_end[t + r]);
        UNROLL
        for (int x = 0; x < r; x++) {
            const vf y = vf_set1(A[r * CHUNK + i + x]);
            UNROLL
            for (int j = 0; j < cols; j++) c[r][j] = vf_fma(y, c[x][j], c[r][j]);
        }
        UNROLL
        for (int j = 0; j < cols; j++) {
            vf_store(U + r * ld + j * VF_N, c[r][j]);
            vf_store(W + r * ld + j * VF_N, vf_mul(to_end, c[r][j]));
        }
    }
}

INLINE void outputs(const pass *p, int i, int rows, int cols) {
    const chunk_work *w = p->w;
    const int dk = p->a->dk, ld = cols * VF_N, t = p->t + i;
    const float *P = w->P + t * CHUNK, *U = w->U + i * ld;
    tile c;
    clear(c, rows, cols);
    product(w->query + t * dk, dk, 1, p->S, ld, dk, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++) {
        const vf start = vf_set1(w->from_start[t + r]);
        UNROLL
        for (int j = 0; j < cols; j++) c[r][j] = vf_mul(start, c[r][j]);
    }
    product(P, CHUNK, 1, w->U, ld, i, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int x = 0; x <= r; x++) {
            const vf y = vf_set1(P[r * CHUNK + i + x]);
            UNROLL
            for (int j = 0; j < cols; j++)
                c[r][j] = vf_fma(y, vf_load(U + x * ld + j * VF_N), c[r][j]);
        }
        if (i + r >= p->n) break;
        const int64_t at = (p->at + i + r) * p->a->o_stride + p->v;
        UNROLL
        for (int j = 0; j < cols; j++)
            output_out(p->a, at + j * VF_N, c[r][j], j < cols - 1 ? VF_N : p->last);
    }
}

INLINE void update(const pass *p, int rows, int cols) {
    const vf fade = vf_set1(p->w->from_start[p->t + CHUNK - 1]);
    const int dk = p->a->dk, ld = cols * VF_N;
    for (int s = 0; s < dk; s += rows) {
        float *S = p->S + s * ld;
        tile c;
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int j = 0; j < cols; j++)
                c[r][j] = vf_mul(fade, vf_load(S + r * ld + j * VF_N));
        product(p->w->key + p->t * dk + s, 1, dk, p->w->W, ld, p->n, rows, cols, c);
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int j = 0; j < cols; j++) vf_store(S + r * ld + j * VF_N, c[r][j]);
    }
}

/* n tokens of a span that begins at token t0. */
INLINE void panel_tokens(pass p, int64_t t0, int n, int cols) {
    const int rows = tile_rows(cols);
    for (p.t = 0; p.t < n; p.t += CHUNK) {
        p.at = t0 + p.t;
        p.n = n - p.t < CHUNK ? n - p.t : CHUNK;
        for (int i = 0; i < p.n; i += rows) {
            corrections(&p, i, rows, cols);
            if (rows == MOST_ROWS) call_aside(p.a);
        }
        for (int i = 0; i < p.n; i += rows) {
            outputs(&p, i, rows, cols);
            call_aside(p.a);
        }
        update(&p, rows, cols);
    }
}
PART void panel_whole(pass p, int64_t t0, int n) { panel_tokens(p, t0, n, PANEL); }
PART void panel_of_2(pass p, int64_t t0, int n) { panel_tokens(p, t0, n, 2); }
PART void panel_of_1(pass p, int64_t t0, int n) { panel_tokens(p, t0, n, 1); }

/* Vectors of the next panel of so many rows.  The last panels are even: two of two are faster than
 * one of three and one that loads a number for each sum. */
INLINE int panel_vectors(int rows) {
    const int vectors = (rows + VF_N - 1) / VF_N, panels = (vectors + PANEL - 1) / PANEL;
    return (vectors + panels - 1) / panels;
}

INLINE void delta_chunk_body(const gdn_delta_chunk_args *a) {
    const int all = a->v1 - a->v0;
    chunk_work w;
    chunk_layout(&w, a->work, a->dk);
    for (int64_t t0 = 0; t0 < a->n_tok; t0 += SPAN) {
        const int n = a->n_tok - t0 < SPAN ? (int)(a->n_tok - t0) : SPAN;
        if (!a->same) span_tokens(a, &w, t0, n);
        for (int t = 0; t < n; t += CHUNK) gates(a, &w, t0, t, n - t < CHUNK ? n - t : CHUNK);
        for (int v = 0, rows; v < all; v += rows) {
            const int cols = panel_vectors(all - v);
            rows = cols * VF_N < all - v ? cols * VF_N : all - v;
            const pass p = {.a = a,
                            .w = &w,
                            .S = a->held + v * a->dk,
                            .v = a->v0 + v,
                            .last = rows - (cols - 1) * VF_N};
            if (a->first && t0 == 0) turn_in(a, p.S, p.v, rows);
            if (cols == PANEL) panel_whole(p, t0, n);
            else if (cols == 2) panel_of_2(p, t0, n);
            else panel_of_1(p, t0, n);
            if (a->last && t0 + n == a->n_tok) turn_out(a, p.S, p.v, rows);
        }
    }
}
