/* delta_chunk_amx_body.h - the gated delta rule in chunks of 32 in AMX's tiles; included by
 * delta_chunk_amx.c after a vec_<isa>.h, vec/amx.h and, besides those of delta_chunk_words.h, these
 * names:
 *
 *     vf_transpose   VF_N vectors in place
 *     vf_words_bf16  words of bf16 in memory, from x on and from 16 further
 *     vf_store_two_bf16, vf_stream_two_bf16   two vectors to memory, as bf16 one after the other
 *
 * Once a head, T = A^-1 and P T are made in vectors.  Then lanes run over rows of S, that is over value
 * channels, and the state is held turned in panels of 32 of them.  Of a panel
 *
 *     M = [K; Q] S                           tiles
 *     R = beta V - beta exp(G) M_K           vectors
 *     X = [exp(G_last - G) T; P T] R         tiles
 *     O = exp(G) M_Q + X_O                   vectors
 *     S = exp(G_last) S + K^T X_W            K^T X_W tiles
 *
 * f32 goes through the tiles as the sum of two bf16, which keeps 16 bits of it: a product is three.  So
 * do T, P T, R, X_W and keys that are not exact; with bf16, M takes k, q and S rounded.
 * Keys and queries that are still to be normalised go through all this as they are, and their norms
 * into the gates.
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
    HALF = AMX_SIDE / VF_N,            /* vectors of a tile's row   */
    PANEL = AMX_PANEL / VF_N,
    ROW = AMX_SIDE * (int)sizeof(float), /* bytes from row to row of a tile */
    LINE = AMX_PANEL * (int)sizeof(float), /* of M and X */
};

#include "delta_chunk_gates.h"
#include "delta_chunk_tile.h"
#include "delta_chunk_words.h"

/* What is in how many parts. */
typedef struct {
    int operands; /* k, q and S in M                       */
    int keys;     /* k in the update                       */
    bool exact;   /* k and q are bf16 already              */
} parts;

/* ---- tiles ---- */

/* A tile, those beside it, and the next part of each. */
typedef struct {
    const float *at;
    int64_t next, part; /* words to them */
} operand;

INLINE void rows_of(operand a, int part) {
    amx_load_past(4, a.at + part * a.part, ROW);
    amx_load_past(5, a.at + part * a.part + a.next, ROW);
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
INLINE void clear_tiles(void) {
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
}
/* To 2 x 2 tiles of rows of a panel's length. */
INLINE void store_tiles(float *to) {
    amx_store(0, to, LINE);
    amx_store(1, to + AMX_SIDE, LINE);
    amx_store(2, to + AMX_SIDE * AMX_PANEL, LINE);
    amx_store(3, to + AMX_SIDE * AMX_PANEL + AMX_SIDE, LINE);
}

/* Tiles 0 .. 3 += a b, two by two, each in so many parts.  The largest product comes last, and from
 * one to the next only one side is loaded where that is possible. */
INLINE void add_products(operand a, int a_parts, operand b, int b_parts) {
    if (a_parts == 2) rows_of(a, 1), columns_of(b, 0), four_dots();
    rows_of(a, 0);
    if (b_parts == 2) columns_of(b, 1), four_dots();
    columns_of(b, 0), four_dots();
}

#include "delta_chunk_amx_panel.h"
#include "delta_chunk_amx_tokens.h"

/* ---- a panel's products, and the vectors of this or another panel meanwhile ---- */

/* [2 CHUNK][AMX_PANEL] = left right.  `before`, or none, is finished: its part of M goes when all of
 * it is read. */
INLINE void multiply(const amx_work *w, float *to, int n, const pass *before) {
    const int depth = w->depth;
    for (int m = 0; m < 4; m += 2, to += CHUNK * AMX_PANEL) {
        operand a = {w->left + m * depth * AMX_TILE, depth * AMX_TILE, 4 * depth * AMX_TILE};
        operand b = {w->right, AMX_TILE, 2 * depth * AMX_TILE};
        clear_tiles();
        for (int k = 0; k < depth; k++, a.at += AMX_TILE, b.at += 2 * AMX_TILE) {
            add_products(a, n, b, n);
            if (before == NULL) continue;
            if (k % 2 == 0) call_aside(before->a);
            const int n_row = m == 0 ? AMX_SIDE : CHUNK;
            const int i = share(n_row, k, depth), end = share(n_row, k + 1, depth);
            if (m == 0) update_words(before, i, end);
            else outputs(before, i, end);
        }
        store_tiles(to);
    }
}

/* The state gains K^T X_W, and `next`, or none, takes its values. */
INLINE void update(const pass *p, int keys, const pass *next) {
    const amx_work *w = p->w;
    const int tiles = 2 * w->depth;
    const float *key = w->turned;
    amx_load(4, w->R, ROW);
    amx_load(5, w->R + AMX_TILE, ROW);
    amx_load(6, w->R + 2 * AMX_TILE, ROW);
    amx_load(7, w->R + 3 * AMX_TILE, ROW);
    for (int i = 0; i < tiles; i++, key += AMX_TILE) {
        float *D = w->D + i % 2 * 2 * AMX_TILE;
        amx_zero(0);
        amx_zero(1);
        if (keys == 2) {
            amx_load(3, key + tiles * AMX_TILE, ROW);
            amx_dot(0, 3, 4);
            amx_dot(1, 3, 5);
        }
        amx_load(2, key, ROW);
        amx_dot(0, 2, 6);
        amx_dot(1, 2, 7);
        amx_dot(0, 2, 4);
        amx_dot(1, 2, 5);
        if (i % 4 == 0) call_aside(p->a);
        if (next != NULL)
            take_values(next, share(AMX_SIDE, i, tiles), share(AMX_SIDE, i + 1, tiles));
        if (i > 0) add_gain(p, i - 1);
        amx_store(0, D, ROW);
        amx_store(1, D + AMX_TILE, ROW);
    }
    add_gain(p, tiles - 1);
}

/* X = solve R, and the words of `next`, or none. */
INLINE void solve(const amx_work *w, const pass *next, int n) {
    const int depth = w->depth;
    const operand R = {w->R, AMX_TILE, 2 * AMX_TILE};
    operand a = {w->solve, AMX_TILE, 4 * AMX_TILE};
    for (int m = 0; m < 2; m++, a.at += 2 * AMX_TILE) {
        clear_tiles();
        add_products(a, AMX_PARTS, R, AMX_PARTS);
        if (next != NULL) call_aside(next->a);
        for (int i = 0; next != NULL && i < depth; i++) state_words(next, m * depth + i, n);
        store_tiles(m == 0 ? w->M : w->O);
    }
}

/* Panel i of the rows, which may be none. */
INLINE bool panel_at(pass *p, int i) {
    const int all = p->a->v1 - p->a->v0, v = i * AMX_PANEL;
    if (i < 0 || v >= all) return false;
    p->S = p->a->held + i * amx_panel_words(p->a->dk);
    p->v = p->a->v0 + v;
    p->rows = all - v < AMX_PANEL ? all - v : AMX_PANEL;
    p->whole = p->rows == AMX_PANEL && p->n == CHUNK;
    const int64_t at = p->at * p->a->v_stride + p->v;
    p->v16 = p->a->v_bf16 != NULL ? p->a->v_bf16 + at : NULL;
    p->v32 = p->a->v + at;
    return true;
}

/* All panels.  Tiles and vectors do not wait for each other: between the products of a panel the
 * vectors work on its neighbours. */
INLINE void panels(const pass *chunk, bool first, bool last, const parts *n) {
    const amx_work *w = chunk->w;
    pass before = *chunk, this = *chunk, after = *chunk;
    bool has_before = false, has_this = panel_at(&this, 0);
    if (!has_this) return;
    if (first) turn_in(&this);
    for (int i = 0; i < 2 * w->depth; i++) state_words(&this, i, n->operands);
    for (int i = 0; has_this || has_before; i++) {
        const bool has_after = panel_at(&after, i + 1);
        if (has_this) multiply(w, w->M, n->operands, has_before ? &before : NULL);
        else finish(&before);
        if (has_before) update(&before, n->keys, has_this ? &this : NULL);
        else take_values(&this, 0, AMX_SIDE);
        if (has_after && first) turn_in(&after);
        if (has_this) solve(w, has_after ? &after : NULL, n->operands);
        if (has_before && last) turn_out(&before);
        before = this, has_before = has_this;
        this = after, has_this = has_after;
    }
}

/* ---- a chunk ---- */

INLINE void chunk_rows(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int len,
                       const parts *n) {
    rows k = {.x = a->k, .stride = a->k_stride, .n = len, .dk = a->dk, .root = a->raw ? 1 : 0};
    rows q = {.x = a->q, .stride = a->q_stride, .n = len, .dk = a->dk};
    if (a->raw) q.root = 1 / sqrtf((float)a->dk);
    if (a->k_bf16 != NULL) k.bf16 = a->k_bf16 + t0 * a->k_stride;
    else k.x += t0 * a->k_stride;
    if (a->q_bf16 != NULL) q.bf16 = a->q_bf16 + t0 * a->q_stride;
    else q.x += t0 * a->q_stride;
    put_rows(w, w->left, &k, w->g.key_scale, n);
    put_rows(w, w->left + 2 * w->depth * AMX_TILE, &q, w->g.query_scale, n);
    turn_keys(w, n->keys);
    multiply(w, w->g.kk, n->operands, NULL);
}

/* Exact keys and queries, those that are rounded, and f32. */
static const parts EXACT = {1, 1, true}, ROUNDED = {1, 2, false}, F32 = {2, 2, false};

PART void rows_exact(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int n) {
    chunk_rows(a, w, t0, n, &EXACT);
}
PART void rows_rounded(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int n) {
    chunk_rows(a, w, t0, n, &ROUNDED);
}
PART void rows_f32(const gdn_delta_chunk_args *a, const amx_work *w, int64_t t0, int n) {
    chunk_rows(a, w, t0, n, &F32);
}
PART void panels_exact(const pass *p, bool first, bool last) { panels(p, first, last, &EXACT); }
PART void panels_rounded(const pass *p, bool first, bool last) { panels(p, first, last, &ROUNDED); }
PART void panels_f32(const pass *p, bool first, bool last) { panels(p, first, last, &F32); }

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
            if (!a->bf16) rows_f32(a, &w, t, n);
            else if (a->raw) rows_exact(a, &w, t, n);
            else rows_rounded(a, &w, t, n);
        }
        gates(a, &w.g, t, 0, n);
        invert(&w);
        if (!a->bf16) panels_f32(&chunk, first, last);
        else if (a->raw) panels_exact(&chunk, first, last);
        else panels_rounded(&chunk, first, last);
    }
    amx_end();
}
