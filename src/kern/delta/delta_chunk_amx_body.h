/* delta_chunk_amx_body.h - the gated delta rule in chunks of 32 and bf16 in AMX's tiles; included by
 * delta_chunk_amx.c after a vec_<isa>.h, vec/amx.h and these names, where a word is two bf16 in four
 * bytes, the low one first:
 *
 *     vf_transpose   VF_N vectors in place
 *     vf_words       two vectors to words, rounded to the nearest
 *     vf_pair        the same, cut off
 *     vf_low         the low halves of words as f32
 *     vf_high        the high ones
 *
 * Lanes run over rows of S, that is over value channels, and the state is held turned in panels of
 * 32 of them, which stay in the first cache while a chunk passes:
 *
 *     M = [K; Q] S                          tiles
 *     U = beta V - beta exp(G) M_K - A U    vectors, in f32
 *     O = exp(G) M_Q + P U                  vectors, in f32
 *     S = exp(G_last) S + K^T (exp(G_last - G) U)    tiles
 *
 * M takes k, q and S rounded, and the update exact keys and U in two parts, 16 bits of it; keys that
 * are not exact are in two parts as well.  Keys and queries that are still to be normalised go through
 * all this as they are, and their norms into the gates.
 *
 * A word holds numbers 16 apart, of dk or of tokens, not neighbours: so words are made of whole
 * vectors lane by lane, and the halves of the words of K^T are those of K.
 *
 * dk is filled up with zeros to whole tiles, and so are panels and chunks.  A sum is one chain in
 * ascending order, whatever else is in its tile: hence rows do not depend on the panel they lie in. */
#include "delta_chunk_amx_work.h"
#include "delta_chunk_parts.h"
#include "delta_chunk_rows.h"

enum {
    CHUNK = GDN_DELTA_CHUNK,
    CV = CHUNK / VF_N,
    PANEL = AMX_PANEL / VF_N,
    ROW = AMX_SIDE * (int)sizeof(float), /* bytes from row to row of a tile */
};

#include "delta_chunk_tile.h"

/* ---- tiles ---- */

/* A tile, those beside it, and the next part of each. */
typedef struct {
    const float *at;
    int64_t next, part; /* words to them */
} operand;

INLINE void rows_of(operand a, int part) {
    amx_load(4, a.at + part * a.part, ROW);
    amx_load(5, a.at + part * a.part + a.next, ROW);
}
INLINE void columns_of(operand b, int part) {
    amx_load(6, b.at + part * b.part, ROW);
    amx_load(7, b.at + part * b.part + b.next, ROW);
}
INLINE void four_dots(void) {
    amx_dot(0, 4, 6);
    amx_dot(1, 4, 7);
    amx_dot(2, 5, 6);
    amx_dot(3, 5, 7);
}

/* Tiles 0 .. 3 += a b, two by two.  The largest product comes last, and from one to the next only one
 * side is loaded where that is possible. */
INLINE void add_products(operand a, int a_parts, operand b, int b_parts) {
    if (a_parts == 2) rows_of(a, 1), columns_of(b, 0), four_dots();
    rows_of(a, 0);
    if (b_parts == 2) columns_of(b, 1), four_dots();
    columns_of(b, 0), four_dots();
}

/* Two vectors to words, each part what the one before left. */
INLINE void put_words(float *to, int64_t part, vf low, vf high, int parts) {
    UNROLL
    for (int i = 0; i < parts; i++, to += part) {
        const vf x = vf_words(low, high);
        vf_store(to, x);
        low = vf_sub(low, vf_low(x));
        high = vf_sub(high, vf_high(x));
    }
}

/* ---- what depends on the tokens alone ---- */

/* n of CHUNK rows from element `at` on to two rows of left's tiles; rows from n on are zero.  With root, scale becomes
 * what takes a row to the norm root; a row whose squares overflow is made small first, which leaves
 * its bits. */
INLINE void put_rows(const amx_work *w, float *to, const float *x, const uint16_t *bf16, int64_t at,
                     int64_t stride, int n, int dk, float root, float *scale, int parts) {
    float row[GDN_DELTA_CHUNK_DK] = {0};
    for (int i = 0; i < CHUNK; i++, at += stride) {
        scale[i] = i < n;
        if (i >= n) memset(row, 0, (size_t)dk * sizeof *row);
        else if (bf16 == NULL) memcpy(row, x + at, (size_t)dk * sizeof *row);
        else row_in(x, bf16, at, dk, row);
        if (root != 0 && i < n) {
            float squares = vf_sum_squares(row, dk) + 1e-6f;
            if (!(squares < 1e30f)) {
                for (int s = 0; s < dk; s++) row[s] *= 0x1p-80f;
                squares = vf_sum_squares(row, dk);
            }
            scale[i] = root / sqrtf(squares);
        }
        float *line = to + i / AMX_SIDE * w->depth * AMX_TILE + i % AMX_SIDE * AMX_SIDE;
        for (int k = 0; k < w->depth; k++)
            for (int s = 0; s < AMX_SIDE; s += VF_N) {
                const float *low = row + k * 2 * AMX_SIDE + s;
                put_words(line + k * AMX_TILE + s, 4 * w->depth * AMX_TILE, vf_load(low),
                          vf_load(low + AMX_SIDE), parts);
            }
    }
}

INLINE void turn_words(const float *from, float *to) {
    for (int i = 0; i < AMX_SIDE; i += VF_N)
        for (int s = 0; s < AMX_SIDE; s += VF_N) {
            vf t[VF_N];
            UNROLL
            for (int j = 0; j < VF_N; j++) t[j] = vf_load(from + (i + j) * AMX_SIDE + s);
            vf_transpose(t);
            UNROLL
            for (int j = 0; j < VF_N; j++) vf_store(to + (s + j) * AMX_SIDE + i, t[j]);
        }
}

/* K^T, as a right side and, one number of each token after the other, as a left one. */
PART void turn_keys(const amx_work *w, int parts) {
    const int64_t depth = w->depth;
    for (int i = 0; i < parts; i++)
        for (int k = 0; k < depth; k++) {
            const float *key = w->left + (i * 4 * depth + k) * AMX_TILE;
            float *right = w->right + (i * depth + k) * 2 * AMX_TILE;
            float *turned = w->turned + (i * depth + k) * 2 * AMX_TILE;
            turn_words(key, right);
            turn_words(key + depth * AMX_TILE, right + AMX_TILE);
            for (int s = 0; s < AMX_TILE; s += VF_N) {
                const vf x = vf_load(right + s), y = vf_load(right + AMX_TILE + s);
                vf_store(turned + s, vf_pair(vf_low(x), vf_low(y)));
                vf_store(turned + AMX_TILE + s, vf_pair(x, y));
            }
        }
}

/* ---- what depends on a head's gates ---- */

/* Decays between two tokens are products of the tokens' own, row after row: no sum of logarithms
 * whose difference would be lost after a gate of -1e4, and no infinities. */
PART void gates(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int n) {
    static const float one_at[2 * CHUNK] = {[CHUNK - 1] = 1};
    float g[CHUNK], decay[CHUNK], sum_g[CHUNK];
    double sum = 0;
    for (int i = 0; i < CHUNK; i++) {
        const float x = i < n ? a->g[(t0 + i) * a->gate_stride] : 0;
        g[i] = x < -1e4f ? -1e4f : x;
        sum += (double)g[i];
        sum_g[i] = (float)sum;
        w->beta[i] = i < n ? a->beta[(t0 + i) * a->gate_stride] : 0;
    }
    vf e[CV], scale[CV];
    for (int j = 0; j < CV; j++) {
        const vf start = vf_exp(vf_load(sum_g + j * VF_N));
        scale[j] = vf_load(w->key_scale + j * VF_N);
        vf_store(decay + j * VF_N, vf_exp(vf_load(g + j * VF_N)));
        vf_store(w->from_start + j * VF_N, start);
        vf_store(w->ask + j * VF_N, vf_mul(start, vf_load(w->query_scale + j * VF_N)));
        vf_store(w->take + j * VF_N,
                 vf_sub(vf_zero(), vf_mul(vf_mul(start, vf_load(w->beta + j * VF_N)), scale[j])));
        e[j] = vf_zero();
    }
    for (int i = 0; i < CHUNK; i++) {
        const float *kk = w->scores + i * CHUNK, *qk = kk + CHUNK * CHUNK;
        const vf alpha = vf_set1(decay[i]), query = vf_set1(w->query_scale[i]);
        const vf beta = vf_set1(-w->beta[i] * w->key_scale[i]);
        for (int j = 0; j < CV; j++) {
            const int64_t at = i * CHUNK + j * VF_N;
            e[j] = vf_mul(e[j], alpha);
            vf_store(w->A + at, vf_mul(vf_mul(vf_mul(e[j], scale[j]), beta), vf_load(kk + j * VF_N)));
            e[j] = vf_add(e[j], vf_load(one_at + CHUNK - 1 - i + j * VF_N));
            vf_store(w->P + at, vf_mul(vf_mul(vf_mul(e[j], scale[j]), query), vf_load(qk + j * VF_N)));
        }
    }
    for (int j = 0; j < CV; j++) vf_store(w->to_end + j * VF_N, vf_mul(e[j], scale[j]));
}

/* ---- a panel of the state ---- */

/* A chunk as a panel sees it. */
typedef struct {
    const gdn_delta_chunk_args *a;
    const amx_work *w;
    float *S;     /* the panel                          */
    int64_t v;    /* its first row of S                 */
    int64_t at;   /* the chunk's first token            */
    int n, rows;  /* tokens; rows of S                  */
} pass;

/* The columns of a panel are rows of S. */
PART void turn_in(const pass *p) {
    const int dk = p->a->dk, filled = amx_depth(dk) * 2 * AMX_SIDE;
    for (int r = 0; r < AMX_PANEL; r += VF_N) {
        float *column = p->S + r / AMX_SIDE * filled * AMX_SIDE + r % AMX_SIDE;
        for (int s = 0; s < filled; s += VF_N) {
            const int wide = dk - s < VF_N ? dk - s : VF_N;
            const float *S = p->a->S + (p->v + r) * dk + s;
            vf t[VF_N];
            for (int j = 0; j < VF_N; j++)
                t[j] = r + j < p->rows && wide > 0 ? vf_get(S + j * dk, wide) : vf_zero();
            vf_transpose(t);
            for (int j = 0; j < VF_N; j++) vf_store(column + (s + j) * AMX_SIDE, t[j]);
        }
    }
}
PART void turn_out(const pass *p) {
    const int dk = p->a->dk, filled = amx_depth(dk) * 2 * AMX_SIDE;
    for (int r = 0; r < p->rows; r += VF_N) {
        const float *column = p->S + r / AMX_SIDE * filled * AMX_SIDE + r % AMX_SIDE;
        for (int s = 0; s < dk; s += VF_N) {
            const int wide = dk - s < VF_N ? dk - s : VF_N;
            float *S = p->a->S + (p->v + r) * dk + s;
            vf t[VF_N];
            for (int j = 0; j < VF_N; j++) t[j] = vf_load(column + (s + j) * AMX_SIDE);
            vf_transpose(t);
            for (int j = 0; j < VF_N && r + j < p->rows; j++) vf_put(S + j * dk, t[j], wide);
        }
    }
}

/* Words of the state at depth k, and that part of the state decayed. */
INLINE void state_words(const pass *p, int64_t k, int parts) {
    const int64_t depth = p->w->depth;
    const vf fade = vf_set1(p->w->from_start[CHUNK - 1]);
    for (int n = 0; n < 2; n++) {
        float *S = p->S + (n * depth + k) * 2 * AMX_TILE;
        float *to = p->w->right + (k * 2 + n) * AMX_TILE;
        for (int s = 0; s < AMX_TILE; s += VF_N) {
            const vf low = vf_load(S + s), high = vf_load(S + AMX_TILE + s);
            put_words(to + s, 2 * depth * AMX_TILE, low, high, parts);
            vf_store(S + s, vf_mul(fade, low));
            vf_store(S + AMX_TILE + s, vf_mul(fade, high));
        }
    }
}

/* Vector j of token i's values or outputs, as far as the chunk has tokens and the panel rows. */
INLINE vf get_lanes(const pass *p, int i, int j) {
    const int left = p->rows - j * VF_N;
    if (i >= p->n || left <= 0) return vf_zero();
    return value_in(p->a, (p->at + i) * p->a->v_stride + p->v + j * VF_N, left < VF_N ? left : VF_N);
}
INLINE void put_lanes(const pass *p, int i, int j, vf y) {
    const int left = p->rows - j * VF_N;
    if (left <= 0) return;
    output_out(p->a, (p->at + i) * p->a->o_stride + p->v + j * VF_N, y, left < VF_N ? left : VF_N);
}

/* U of MOST_ROWS tokens from i on. */
PART void corrections(const pass *p, int i) {
    const amx_work *w = p->w;
    const float *A = w->A + i * CHUNK, *M = w->M + i * AMX_PANEL;
    float *U = w->U + i * AMX_PANEL;
    tile c;
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++) {
        const vf take = vf_set1(w->take[i + r]), beta = vf_set1(w->beta[i + r]);
        UNROLL
        for (int j = 0; j < PANEL; j++)
            c[r][j] = vf_fma(take, vf_load(M + r * AMX_PANEL + j * VF_N),
                             vf_mul(beta, get_lanes(p, i + r, j)));
    }
    product(A, CHUNK, 1, w->U, AMX_PANEL, i, MOST_ROWS, PANEL, c);
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++) {
        UNROLL
        for (int x = 0; x < r; x++) {
            const vf y = vf_set1(A[r * CHUNK + i + x]);
            UNROLL
            for (int j = 0; j < PANEL; j++) c[r][j] = vf_fma(y, c[x][j], c[r][j]);
        }
        UNROLL
        for (int j = 0; j < PANEL; j++) vf_store(U + r * AMX_PANEL + j * VF_N, c[r][j]);
    }
}

PART void outputs(const pass *p, int i) {
    const amx_work *w = p->w;
    const float *P = w->P + i * CHUNK, *M = w->M + (CHUNK + i) * AMX_PANEL;
    const float *U = w->U + i * AMX_PANEL;
    tile c;
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++) {
        const vf ask = vf_set1(w->ask[i + r]);
        UNROLL
        for (int j = 0; j < PANEL; j++)
            c[r][j] = vf_mul(ask, vf_load(M + r * AMX_PANEL + j * VF_N));
    }
    product(P, CHUNK, 1, w->U, AMX_PANEL, i, MOST_ROWS, PANEL, c);
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++) {
        UNROLL
        for (int x = 0; x <= r; x++) {
            const vf y = vf_set1(P[r * CHUNK + i + x]);
            UNROLL
            for (int j = 0; j < PANEL; j++)
                c[r][j] = vf_fma(y, vf_load(U + x * AMX_PANEL + j * VF_N), c[r][j]);
        }
        if (i + r >= p->n) break;
        UNROLL
        for (int j = 0; j < PANEL; j++) put_lanes(p, i + r, j, c[r][j]);
    }
}

/* Words of U decayed to the chunk's end, of tokens i .. i + MOST_ROWS / 2 and those 16 later. */
INLINE void update_words(const pass *p, int i, int parts) {
    const amx_work *w = p->w;
    for (const int end = i + MOST_ROWS / 2; i < end; i++) {
        const vf low = vf_set1(w->to_end[i]), high = vf_set1(w->to_end[i + AMX_SIDE]);
        UNROLL
        for (int j = 0; j < PANEL; j++) {
            const float *U = w->U + i * AMX_PANEL + j * VF_N;
            float *to = w->W + j * VF_N / AMX_SIDE * AMX_TILE + i * AMX_SIDE + j * VF_N % AMX_SIDE;
            put_words(to, 2 * AMX_TILE, vf_mul(low, vf_load(U)),
                      vf_mul(high, vf_load(U + AMX_SIDE * AMX_PANEL)), parts);
        }
    }
}

/* All that a panel's vectors do between its products, in shares of about the same length. */
enum { BLOCKS = CHUNK / MOST_ROWS, SHARES = 3 * BLOCKS };
INLINE void vector_work(const pass *p, int share, int update_parts) {
    const int i = share % BLOCKS * MOST_ROWS;
    if (share < 2 * BLOCKS) call_aside(p->a);
    if (share >= 2 * BLOCKS) update_words(p, i / 2, update_parts);
    else if (i >= p->n) memset(p->w->U + i * AMX_PANEL, 0, MOST_ROWS * AMX_PANEL * sizeof(float));
    else if (share < BLOCKS) corrections(p, i);
    else outputs(p, i);
}

/* [2 CHUNK][AMX_PANEL] = left right, and the vector work of another panel, or of none, meanwhile.
 * That may read the other panel's M in the same place: its corrections are made when the first half
 * is stored, and all of it when the second is. */
INLINE void multiply(const amx_work *w, float *to, int parts, const pass *other, int other_parts) {
    enum { LINE = AMX_PANEL * (int)sizeof(float) };
    const int64_t depth = w->depth;
    int step = 0, done = 0;
    for (int m = 0; m < 4; m += 2, to += CHUNK * AMX_PANEL) {
        operand a = {w->left + m * depth * AMX_TILE, depth * AMX_TILE, 4 * depth * AMX_TILE};
        operand b = {w->right, AMX_TILE, 2 * depth * AMX_TILE};
        amx_zero(0);
        amx_zero(1);
        amx_zero(2);
        amx_zero(3);
        for (int k = 0; k < depth; k++, a.at += AMX_TILE, b.at += 2 * AMX_TILE) {
            add_products(a, parts, b, parts);
            step++;
            for (; other != NULL && done * 2 * depth < step * SHARES; done++)
                vector_work(other, done, other_parts);
        }
        amx_store(0, to, LINE);
        amx_store(1, to + AMX_SIDE, LINE);
        amx_store(2, to + AMX_SIDE * AMX_PANEL, LINE);
        amx_store(3, to + AMX_SIDE * AMX_PANEL + AMX_SIDE, LINE);
    }
}

/* S += K^T W, S decayed already, and the words of the next panel, or of none, meanwhile. */
INLINE void update(const pass *p, int key_parts, int parts, const pass *next, int next_parts) {
    const amx_work *w = p->w;
    const int64_t tiles = 2 * w->depth;
    operand key = {w->turned, AMX_TILE, tiles * AMX_TILE};
    const operand W = {w->W, AMX_TILE, 2 * AMX_TILE};
    float *S = p->S, *beside = S + tiles * AMX_TILE;
    for (int k = 0; k < w->depth; k++, key.at += 2 * AMX_TILE) {
        amx_load(0, S, ROW);
        amx_load(1, beside, ROW);
        amx_load(2, S + AMX_TILE, ROW);
        amx_load(3, beside + AMX_TILE, ROW);
        add_products(key, key_parts, W, parts);
        if (next != NULL) state_words(next, k, next_parts);
        amx_store(0, S, ROW);
        amx_store(1, beside, ROW);
        amx_store(2, S + AMX_TILE, ROW);
        amx_store(3, beside + AMX_TILE, ROW);
        S += 2 * AMX_TILE, beside += 2 * AMX_TILE;
    }
}

/* Panel v of the rows, which may lie before or past all of them. */
INLINE bool panel_at(pass *p, int v) {
    const int all = p->a->v1 - p->a->v0;
    if (v < 0 || v >= all) return false;
    p->S = p->a->held + v / AMX_PANEL * amx_panel_words(p->a->dk);
    p->v = p->a->v0 + v;
    p->rows = all - v < AMX_PANEL ? all - v : AMX_PANEL;
    return true;
}

/* All panels.  Tiles and vectors do not wait for each other: while the tiles multiply a panel the
 * vectors work on the one before, and while they update that one, on the words of the one after. */
INLINE void panels(const pass *chunk, bool first, bool last, int parts, int key_parts,
                   int update_parts) {
    const amx_work *w = chunk->w;
    const int all = chunk->a->v1 - chunk->a->v0;
    for (int v = -AMX_PANEL; v < all + AMX_PANEL; v += AMX_PANEL) {
        pass before = *chunk, this = *chunk, after = *chunk;
        const bool has_before = panel_at(&before, v - AMX_PANEL);
        const bool has_after = panel_at(&after, v + AMX_PANEL);
        const pass *const next = has_after ? &after : NULL;
        if (panel_at(&this, v))
            multiply(w, w->M, parts, has_before ? &before : NULL, update_parts);
        else if (has_before)
            for (int i = 0; i < SHARES; i++) vector_work(&before, i, update_parts);
        if (has_after && first) turn_in(&after);
        if (has_before) update(&before, key_parts, update_parts, next, parts);
        else if (has_after)
            for (int k = 0; k < w->depth; k++) state_words(next, k, parts);
        if (has_before && last) turn_out(&before);
    }
}

/* ---- a chunk ---- */

INLINE void chunk_rows(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int n, int parts,
                       int key_parts) {
    const float one = a->raw ? 1 : 0, root = a->raw ? 1 / sqrtf((float)a->dk) : 0;
    put_rows(w, w->left, a->k, a->k_bf16, t0 * a->k_stride, a->k_stride, n, a->dk, one, w->key_scale,
             key_parts);
    put_rows(w, w->left + 2 * w->depth * AMX_TILE, a->q, a->q_bf16, t0 * a->q_stride, a->q_stride, n,
             a->dk, root, w->query_scale, parts);
    turn_keys(w, key_parts);
    multiply(w, w->scores, parts, NULL, 0);
}

/* Keys that are rounded, and exact ones. */
PART void rows_rounded(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int n) {
    chunk_rows(a, w, t0, n, 1, 2);
}
PART void rows_raw(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int n) {
    chunk_rows(a, w, t0, n, 1, 1);
}
PART void panels_rounded(const pass *p, bool first, bool last) { panels(p, first, last, 1, 2, 2); }
PART void panels_raw(const pass *p, bool first, bool last) { panels(p, first, last, 1, 1, 2); }

INLINE void delta_chunk_amx_body(const gdn_delta_chunk_args *a) {
    static const uint8_t whole[8] = {16, 16, 16, 16, 16, 16, 16, 16};
    amx_work w;
    amx_layout(&w, a->work, a->dk);
    amx_begin(whole);
    for (int64_t t = 0; t < a->n_tok; t += CHUNK) {
        const int n = a->n_tok - t < CHUNK ? (int)(a->n_tok - t) : CHUNK;
        const bool first = a->first && t == 0, last = a->last && t + n == a->n_tok;
        const pass chunk = {.a = a, .w = &w, .at = t, .n = n};
        if (!a->same) {
            if (a->raw) rows_raw(a, &w, t, n);
            else rows_rounded(a, &w, t, n);
        }
        gates(a, &w, t, n);
        if (a->raw) panels_raw(&chunk, first, last);
        else panels_rounded(&chunk, first, last);
    }
    amx_end();
}
