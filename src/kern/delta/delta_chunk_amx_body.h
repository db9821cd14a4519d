/* delta_chunk_amx_body.h - the gated delta rule in chunks of 32 in AMX's tiles; included by
 * delta_chunk_amx.c after a vec_<isa>.h, vec/amx.h and these names, where a word is two bf16 in four
 * bytes, the low one first:
 *
 *     vf_transpose   VF_N vectors in place
 *     vf_words       two vectors to words, rounded to the nearest
 *     vf_pair        the same, cut off
 *     vf_near        a vector whose numbers, cut off to bf16, are its own rounded to the nearest
 *     vf_low         the low halves of words as f32
 *     vf_high        the high ones
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
    CV = CHUNK / VF_N,
    HALF = AMX_SIDE / VF_N,            /* vectors of a tile's row   */
    PANEL = AMX_PANEL / VF_N,
    ROW = AMX_SIDE * (int)sizeof(float), /* bytes from row to row of a tile */
    LINE = AMX_PANEL * (int)sizeof(float), /* of M and X */
};

#include "delta_chunk_tile.h"

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

/* Two vectors to words: with two parts the second is what the first left.  A number that is none is
 * in the last part whatever its bits. */
INLINE void put_words(float *to, int64_t part, vf low, vf high, int n) {
    if (n == 2) {
        const vf x = vf_near(low), y = vf_near(high);
        vf_store(to, vf_pair(x, y));
        low = vf_sub(low, vf_high(x));
        high = vf_sub(high, vf_high(y));
        to += part;
    }
    vf_store(to, vf_words(low, high));
}

/* ---- what depends on the tokens alone ---- */

/* Rows of the chunk's keys or queries. */
typedef struct {
    const float *x;
    const uint16_t *bf16; /* if not NULL, instead */
    int64_t stride;
    int n, dk;
    float root;           /* the norm they are to have, or 0: they have it */
} rows;

INLINE vf row_get(const rows *x, int i, int s) {
    const int64_t at = i * x->stride + s;
    const int n = x->dk - s;
    if (i >= x->n || n <= 0) return vf_zero();
    if (x->bf16 == NULL) return vf_get(x->x + at, n < VF_N ? n : VF_N);
    return n < VF_N ? vf_load_bf16_n(x->bf16 + at, n) : vf_load_bf16(x->bf16 + at);
}
/* The same when the row is there and fills whole tiles. */
INLINE vf row_whole(const rows *x, int i, int s) {
    const int64_t at = i * x->stride + s;
    return x->bf16 == NULL ? vf_load(x->x + at) : vf_load_bf16(x->bf16 + at);
}

/* Row i to its line of left's tiles; the sums of its squares. */
INLINE vf put_row(const amx_work *w, float *to, const rows *x, int i, bool whole, float factor,
                  const parts *n) {
    float *line = to + i / AMX_SIDE * w->depth * AMX_TILE + i % AMX_SIDE * AMX_SIDE;
    const vf f = vf_set1(factor);
    vf squares = vf_zero();
    for (int k = 0; k < w->depth; k++, line += AMX_TILE)
        for (int s = 0; s < AMX_SIDE; s += VF_N) {
            const int at = k * 2 * AMX_SIDE + s;
            vf low = whole ? row_whole(x, i, at) : row_get(x, i, at);
            vf high = whole ? row_whole(x, i, at + AMX_SIDE) : row_get(x, i, at + AMX_SIDE);
            if (factor != 1) low = vf_mul(f, low), high = vf_mul(f, high);
            squares = vf_fma(high, high, vf_fma(low, low, squares));
            if (n->exact) vf_store(line + s, vf_pair(low, high));
            else put_words(line + s, 4 * w->depth * AMX_TILE, low, high,
                           n->operands > n->keys ? n->operands : n->keys);
        }
    return squares;
}

/* Rows i .. i + VF_N, and the sums of their squares in the lanes of one vector. */
INLINE vf put_some_rows(const amx_work *w, float *to, const rows *x, int i, bool whole, const parts *n) {
    vf t[VF_N];
    for (int j = 0; j < VF_N; j++) t[j] = put_row(w, to, x, i + j, whole, 1, n);
    vf_transpose(t);
    for (int j = VF_N / 2; j > 0; j /= 2)
        for (int l = 0; l < j; l++) t[l] = vf_add(t[l], t[l + j]);
    return t[0];
}

/* All rows, and scale, which takes them to their norm; rows from x->n on are zero.  A row whose squares
 * overflow is made small first, which leaves its bits. */
INLINE void put_rows(const amx_work *w, float *to, const rows *x, float *scale, const parts *n) {
    float squares[CHUNK], norm[CHUNK];
    const bool whole = x->n == CHUNK && x->dk == w->depth * 2 * AMX_SIDE;
    for (int i = 0; i < CHUNK; i += VF_N)
        vf_store(squares + i, whole ? put_some_rows(w, to, x, i, true, n)
                                    : put_some_rows(w, to, x, i, false, n));
    for (int i = 0; i < CHUNK; i++) norm[i] = x->root / sqrtf(squares[i] + 1e-6f);
    for (int i = 0; i < CHUNK; i++) {
        if (x->root == 0) norm[i] = 1;
        else if (!(squares[i] < 1e30f))
            norm[i] = x->root / sqrtf(vf_hsum(put_row(w, to, x, i, false, 0x1p-80f, n)));
        scale[i] = i < x->n ? norm[i] : 0;
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
PART void turn_keys(const amx_work *w, int n) {
    const int64_t depth = w->depth;
    for (int i = 0; i < n; i++)
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
    for (int i = 0; i < CHUNK; i++) { /* A's diagonal is not read */
        const float *kk = w->scores + i * CHUNK, *qk = kk + CHUNK * CHUNK;
        const vf alpha = vf_set1(decay[i]), query = vf_set1(w->query_scale[i]);
        const vf beta = vf_set1(-w->beta[i] * w->key_scale[i]);
        for (int j = 0; j < CV; j++) {
            const int64_t at = i * CHUNK + j * VF_N;
            const vf one = vf_load(one_at + CHUNK - 1 - i + j * VF_N);
            e[j] = vf_fma(e[j], alpha, vf_mul(one, scale[j]));
            vf_store(w->A + at, vf_mul(vf_mul(e[j], beta), vf_load(kk + j * VF_N)));
            vf_store(w->P + at, vf_mul(vf_mul(e[j], query), vf_load(qk + j * VF_N)));
        }
    }
    for (int j = 0; j < CV; j++) vf_store(w->to_end + j * VF_N, e[j]);
}

/* Rows of a tile of CV vectors as words of `solve`, each times a factor or as it is. */
INLINE void put_solved(const amx_work *w, int m, int i, const float *factor, vf c[][CV]) {
    float *to = w->solve + (m + i / AMX_SIDE) * AMX_TILE + i % AMX_SIDE * AMX_SIDE;
    for (int r = 0; r < MOST_ROWS; r++, to += AMX_SIDE)
        for (int j = 0; j < HALF; j++) {
            vf low = c[r][j], high = c[r][j + HALF];
            if (factor != NULL) {
                const vf f = vf_set1(factor[i + r]);
                low = vf_mul(f, low), high = vf_mul(f, high);
            }
            put_words(to + j * VF_N, 4 * AMX_TILE, low, high, AMX_PARTS);
        }
}

/* MOST_ROWS rows of T from i on, whose columns end after cols vectors: T = I - A T. */
INLINE void invert_rows(const amx_work *w, int i, int cols, vf c[][CV]) {
    static const float one_at[2 * CHUNK] = {[CHUNK - 1] = 1};
    const float *A = w->A + i * CHUNK;
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++)
        UNROLL
        for (int j = 0; j < CV; j++)
            c[r][j] = j < cols ? vf_load(one_at + CHUNK - 1 - i - r + j * VF_N) : vf_zero();
    product(A, CHUNK, 1, w->T, CHUNK, i < AMX_SIDE ? i : AMX_SIDE, MOST_ROWS, HALF, c);
    if (i > AMX_SIDE)
        product(A + AMX_SIDE, CHUNK, 1, w->T + AMX_SIDE * CHUNK, CHUNK, i - AMX_SIDE, MOST_ROWS, cols,
                c);
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++) {
        UNROLL
        for (int x = 0; x < r; x++) {
            const vf y = vf_set1(A[r * CHUNK + i + x]);
            UNROLL
            for (int j = 0; j < cols; j++) c[r][j] = vf_fma(y, c[x][j], c[r][j]);
        }
        UNROLL
        for (int j = 0; j < CV; j++) vf_store(w->T + (i + r) * CHUNK + j * VF_N, c[r][j]);
    }
}

/* The same rows of P T. */
INLINE void asked_rows(const amx_work *w, int i, int cols, vf c[][CV]) {
    const float *P = w->P + i * CHUNK, *T = w->T + i * CHUNK;
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++)
        UNROLL
        for (int j = 0; j < CV; j++) c[r][j] = vf_zero();
    product(P, CHUNK, 1, w->T, CHUNK, i < AMX_SIDE ? i : AMX_SIDE, MOST_ROWS, HALF, c);
    if (i > AMX_SIDE)
        product(P + AMX_SIDE, CHUNK, 1, w->T + AMX_SIDE * CHUNK, CHUNK, i - AMX_SIDE, MOST_ROWS, cols,
                c);
    UNROLL
    for (int r = 0; r < MOST_ROWS; r++)
        UNROLL
        for (int x = 0; x <= r; x++) {
            const vf y = vf_set1(P[r * CHUNK + i + x]);
            UNROLL
            for (int j = 0; j < cols; j++)
                c[r][j] = vf_fma(y, vf_load(T + x * CHUNK + j * VF_N), c[r][j]);
        }
}

/* Words of diag(to_end) T and of P T. */
PART void invert(const amx_work *w) {
    for (int i = 0; i < CHUNK; i += MOST_ROWS) {
        tile c;
        const bool half = i < AMX_SIDE;
        if (half) invert_rows(w, i, HALF, c);
        else invert_rows(w, i, CV, c);
        put_solved(w, 0, i, w->to_end, c);
        if (half) asked_rows(w, i, HALF, c);
        else asked_rows(w, i, CV, c);
        put_solved(w, 2, i, NULL, c);
    }
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
    bool whole;   /* both are all there can be          */
    const float *v32;    /* values, or the same in bf16 */
    const uint16_t *v16;
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

/* Vector j of token i's values or outputs, as far as the chunk has tokens and the panel rows. */
INLINE vf get_lanes(const pass *p, int i, int j) {
    const int left = p->rows - j * VF_N;
    if (i >= p->n || left <= 0) return vf_zero();
    return value_in(p->a, (p->at + i) * p->a->v_stride + p->v + j * VF_N, left < VF_N ? left : VF_N);
}
INLINE void put_lanes(const pass *p, int i, int j, vf y) {
    const int left = p->rows - j * VF_N;
    if (i >= p->n || left <= 0) return;
    output_out(p->a, (p->at + i) * p->a->o_stride + p->v + j * VF_N, y, left < VF_N ? left : VF_N);
}

/* ---- a panel's work in vectors, in steps between its products ---- */

/* What of `all` is done before step i of n. */
INLINE int share(int all, int i, int n) { return all * i / n; }

/* Words of the state: tile i of right. */
INLINE void state_words(const pass *p, int i, int n) {
    const int64_t depth = p->w->depth;
    const float *S = p->S + (i % 2 * depth + i / 2) * 2 * AMX_TILE;
    float *to = p->w->right + i * AMX_TILE;
    for (int s = 0; s < AMX_TILE; s += VF_N)
        put_words(to + s, 2 * depth * AMX_TILE, vf_load(S + s), vf_load(S + AMX_TILE + s), n);
}

/* Vector j of a panel in row i of words. */
INLINE float *word_at(float *words, int i, int j) {
    return words + j / HALF * AMX_TILE + i * AMX_SIDE + j % HALF * VF_N;
}

enum { LOWER = AMX_SIDE * AMX_PANEL }; /* from a token's row to that of 16 later */

typedef enum { IN_F32, IN_BF16, IN_PART } source;

/* Words of R, rows i to end: of tokens i and i + 16. */
INLINE void take_rows(const pass *p, int i, int end, source from) {
    const amx_work *w = p->w;
    const float *take = w->take, *beta = w->beta, *M = w->M + i * AMX_PANEL;
    const int64_t stride = p->a->v_stride;
    float *R = w->R;
    for (; i < end; i++) {
        const vf take0 = vf_set1(take[i]), take1 = vf_set1(take[i + AMX_SIDE]);
        const vf beta0 = vf_set1(beta[i]), beta1 = vf_set1(beta[i + AMX_SIDE]);
        UNROLL
        for (int j = 0; j < PANEL; j++, M += VF_N) {
            const int64_t at = i * stride + j * VF_N, at1 = at + AMX_SIDE * stride;
            vf low, high;
            if (from == IN_F32) low = vf_load(p->v32 + at), high = vf_load(p->v32 + at1);
            else if (from == IN_BF16)
                low = vf_load_bf16(p->v16 + at), high = vf_load_bf16(p->v16 + at1);
            else low = get_lanes(p, i, j), high = get_lanes(p, i + AMX_SIDE, j);
            low = vf_fma(take0, vf_load(M), vf_mul(beta0, low));
            high = vf_fma(take1, vf_load(M + LOWER), vf_mul(beta1, high));
            put_words(word_at(R, i, j), 2 * AMX_TILE, low, high, AMX_PARTS);
        }
    }
}
INLINE void take_values(const pass *p, int i, int end) {
    if (!p->whole) take_rows(p, i, end, IN_PART);
    else if (p->v16 != NULL) take_rows(p, i, end, IN_BF16);
    else take_rows(p, i, end, IN_F32);
}

/* Words of X_W, rows i to end. */
INLINE void update_words(const pass *p, int i, int end) {
    float *R = p->w->R;
    const float *X = p->w->M + i * AMX_PANEL;
    for (; i < end; i++)
        UNROLL
        for (int j = 0; j < PANEL; j++, X += VF_N)
            put_words(word_at(R, i, j), 2 * AMX_TILE, vf_load(X), vf_load(X + LOWER), AMX_PARTS);
}

/* The outputs of tokens i to end. */
typedef enum { OUT_F32, OUT_BF16, PAST_F32, PAST_BF16, OUT_PART } target;
INLINE void output_rows(const pass *p, int i, int end, target to) {
    const amx_work *w = p->w;
    const float *M = w->M + (CHUNK + i) * AMX_PANEL, *O = w->O + i * AMX_PANEL, *ask = w->ask;
    const int64_t stride = p->a->o_stride, first = p->at * stride + p->v;
    float *o32 = p->a->o + first;
    uint16_t *o16 = p->a->o_bf16 + first;
    for (; i < end; i++) {
        const vf f = vf_set1(ask[i]);
        UNROLL
        for (int j = 0; j < PANEL; j++, M += VF_N, O += VF_N) {
            const vf y = vf_fma(f, vf_load(M), vf_load(O));
            const int64_t at = i * stride + j * VF_N;
            if (to == OUT_F32) vf_store(o32 + at, y);
            else if (to == OUT_BF16) vf_store_bf16(o16 + at, y);
            else if (to == PAST_F32) vf_stream(o32 + at, y);
            else if (to == PAST_BF16) vf_stream_bf16(o16 + at, y);
            else put_lanes(p, i, j, y);
        }
    }
}
INLINE void outputs(const pass *p, int i, int end) {
    const gdn_delta_chunk_args *a = p->a;
    if (!p->whole) output_rows(p, i, end, OUT_PART);
    else if (a->o_bf16 != NULL) output_rows(p, i, end, a->past ? PAST_BF16 : OUT_BF16);
    else output_rows(p, i, end, a->past ? PAST_F32 : OUT_F32);
}

/* All of that for a panel which has none behind it. */
INLINE void finish(const pass *p) {
    enum { STEPS = GDN_DELTA_CHUNK_ASIDE / 2 };
    for (int i = 0; i < STEPS; i++) {
        call_aside(p->a);
        update_words(p, share(AMX_SIDE, i, STEPS), share(AMX_SIDE, i + 1, STEPS));
    }
    for (int i = 0; i < STEPS; i++) {
        call_aside(p->a);
        outputs(p, share(CHUNK, i, STEPS), share(CHUNK, i + 1, STEPS));
    }
}

/* 16 rows of the turned state, decayed and with what they gain. */
INLINE void add_gain(const pass *p, int i) {
    const int64_t column = 2 * p->w->depth * AMX_TILE;
    const vf fade = vf_set1(p->w->from_start[CHUNK - 1]);
    const float *D = p->w->D + i % 2 * 2 * AMX_TILE;
    float *S = p->S + i * AMX_TILE;
    for (int s = 0; s < AMX_TILE; s += VF_N) {
        vf_store(S + s, vf_fma(fade, vf_load(S + s), vf_load(D + s)));
        vf_store(S + column + s, vf_fma(fade, vf_load(S + column + s), vf_load(D + AMX_TILE + s)));
    }
}

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
            call_aside(before->a);
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
    put_rows(w, w->left, &k, w->key_scale, n);
    put_rows(w, w->left + 2 * w->depth * AMX_TILE, &q, w->query_scale, n);
    turn_keys(w, n->keys);
    multiply(w, w->scores, n->operands, NULL);
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
        gates(a, &w, t, n);
        invert(&w);
        if (!a->bf16) panels_f32(&chunk, first, last);
        else if (a->raw) panels_exact(&chunk, first, last);
        else panels_rounded(&chunk, first, last);
    }
    amx_end();
}
