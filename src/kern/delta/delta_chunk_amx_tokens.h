/* delta_chunk_amx_tokens.h - what a chunk in AMX's tiles needs of its tokens and of a head's gates,
 * before any of the state; part of delta_chunk_amx_body.h. */
#ifndef GDN_KERN_DELTA_CHUNK_AMX_TOKENS_H
#define GDN_KERN_DELTA_CHUNK_AMX_TOKENS_H

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

/* The same of a whole row in bf16, whose words are those of memory. */
INLINE vf put_row_bf16(const amx_work *w, float *to, const rows *x, int i) {
    float *line = to + i / AMX_SIDE * w->depth * AMX_TILE + i % AMX_SIDE * AMX_SIDE;
    const uint16_t *from = x->bf16 + i * x->stride;
    vf squares = vf_zero();
    for (int k = 0; k < w->depth; k++, line += AMX_TILE, from += 2 * AMX_SIDE)
        for (int s = 0; s < AMX_SIDE; s += VF_N) {
            const vf word = vf_words_bf16(from + s);
            squares = vf_squares(word, squares);
            vf_store(line + s, word);
        }
    return squares;
}

/* Rows i .. i + VF_N, and the sums of their squares in the lanes of one vector. */
typedef enum { SOME_ROW, WHOLE_ROW, WHOLE_BF16 } kind_of_row;
INLINE vf put_some_rows(const amx_work *w, float *to, const rows *x, int i, kind_of_row kind,
                        const parts *n) {
    vf t[VF_N];
    for (int j = 0; j < VF_N; j++)
        t[j] = kind == WHOLE_BF16 ? put_row_bf16(w, to, x, i + j)
                                  : put_row(w, to, x, i + j, kind == WHOLE_ROW, 1, n);
    return lane_sums(t);
}

/* All rows, and scale, which takes them to their norm; rows from x->n on are zero.  A row whose squares
 * overflow is made small first, which leaves its bits. */
INLINE void put_rows(const amx_work *w, float *to, const rows *x, float *scale, const parts *n) {
    float squares[CHUNK];
    bool long_row = false;
    const bool whole = x->n == CHUNK && x->dk == w->depth * 2 * AMX_SIDE;
    for (int i = 0; i < CHUNK; i += VF_N)
        vf_store(squares + i, !whole                        ? put_some_rows(w, to, x, i, SOME_ROW, n)
                              : n->exact && x->bf16 != NULL ? put_some_rows(w, to, x, i, WHOLE_BF16, n)
                                                            : put_some_rows(w, to, x, i, WHOLE_ROW, n));
    for (int i = 0; i < CHUNK; i++) scale[i] = x->root == 0 ? 1 : x->root / sqrtf(squares[i] + 1e-6f);
    for (int i = 0; i < CHUNK; i++) long_row |= !(squares[i] < 1e30f);
    for (int i = 0; i < x->n && x->root != 0 && long_row; i++)
        if (!(squares[i] < 1e30f))
            scale[i] = x->root / sqrtf(vf_hsum(put_row(w, to, x, i, false, 0x1p-80f, n)));
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
    const float *A = w->g.A + i * CHUNK;
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
    const float *P = w->g.P + i * CHUNK, *T = w->T + i * CHUNK;
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
        put_solved(w, 0, i, w->g.to_end, c);
        if (half) asked_rows(w, i, HALF, c);
        else asked_rows(w, i, CV, c);
        put_solved(w, 2, i, NULL, c);
    }
}

#endif
