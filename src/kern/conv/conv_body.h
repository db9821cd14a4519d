/* conv_body.h - the causal depthwise convolution over vf; lanes run over channels.
 *
 * A column of VF_N channels takes a tile of tokens, with the W - 1 inputs before it from the state
 * or from the rows before.  Tiles are short, because rows lie far apart in memory: TILE rows at a
 * time are read as so many streams.  Columns whose inputs share lines of memory are read together:
 * rows that lie a multiple of 4 KiB apart share their places in the first cache, where a tile and
 * its past would not stay until the next column.  The last W - 1 inputs are the new state. */
enum {
    TILE = 8,         /* at least W - 1: a tile's past lies in the state or in x alone */
    ABREAST = 8,      /* tokens whose activations settle side by side                  */
    COLS = 32 / VF_N, /* columns that are read together: a line of bf16                */
    MOST_W = 8
};

/* What is bf16 in a call: constants where it matters. */
typedef struct {
    bool state, x, y;
    bool rows; /* y as numbers of bf16, not as rounded ones */
} bf16_of;

INLINE vf bf16_get(const uint16_t *p, int n) {
    return n == VF_N ? vf_load_bf16(p) : vf_load_bf16_n(p, n);
}
INLINE vf state_get(const gdn_conv_args *a, int64_t at, bool bf16, int n) {
    if (!a->has_state) return vf_zero();
    if (!bf16) return vf_get((const float *)a->state + at, n);
    return bf16_get((const uint16_t *)a->state + at, n);
}
INLINE vf input_get(const gdn_conv_args *a, int64_t t, int64_t c, bf16_of b, int n) {
    const int64_t at = t * a->x_stride + c;
    if (b.x) return bf16_get(a->x_bf16 + at, n);
    const vf u = vf_get(a->x + at, n);
    return b.state ? vf_round_bf16(u) : u;
}

/* n_tok tokens from t on; u holds their inputs after the W - 1 before them. */
INLINE void tokens(const gdn_conv_args *a, int64_t t, int n_tok, int64_t c, int W, const vf *u,
                   bf16_of b, int n) {
    vf s[ABREAST];
    const vf bias = a->bias != NULL ? vf_get(a->bias + c, n) : vf_zero();
    for (int i = 0; i < n_tok; i++) s[i] = bias;
    for (int j = 0; j < W; j++) {
        const vf w = vf_get(a->w + (int64_t)j * a->C + c, n);
        for (int i = 0; i < n_tok; i++) s[i] = vf_fma(w, u[i + j], s[i]);
    }
    vf_silu_each(s, n_tok);
    for (int i = 0; i < n_tok; i++) {
        const int64_t at = (t + i) * a->y_stride + c;
        if (b.rows) vf_put_as(a->y_in_bf16, true, at, s[i], n);
        else vf_put(a->y + at, b.y ? vf_round_bf16(s[i]) : s[i], n);
    }
}

/* n_tok tokens from t on for cols columns from c on, each of n channels. */
INLINE void column(const gdn_conv_args *a, int64_t t, int n_tok, int64_t c, int W, bf16_of b,
                   int cols, int n) {
    vf u[COLS][TILE + MOST_W - 1];
    for (int i = 0; i < W - 1 + n_tok; i++)
        for (int j = 0; j < cols; j++) {
            const int64_t from = t + i - (W - 1), at = c + j * VF_N;
            u[j][i] = from < 0 ? state_get(a, (t + i) * a->state_stride + at, b.state, n)
                               : input_get(a, from, at, b, n);
        }
    for (int j = 0; j < cols; j++) {
        int i = 0;
        for (; i + ABREAST <= n_tok; i += ABREAST)
            tokens(a, t + i, ABREAST, c + j * VF_N, W, u[j] + i, b, n);
        for (; i < n_tok; i++) tokens(a, t + i, 1, c + j * VF_N, W, u[j] + i, b, n);
    }
    if (t + n_tok < a->n_tok) return;
    for (int i = 0; i < W - 1; i++)
        for (int j = 0; j < cols; j++)
            vf_put_as(a->state, b.state, i * a->state_stride + c + j * VF_N, u[j][n_tok + i], n);
}

INLINE void columns(const gdn_conv_args *a, int W, bf16_of b) {
    for (int64_t t = 0; t < a->n_tok; t += TILE) {
        const int n = a->n_tok - t < TILE ? (int)(a->n_tok - t) : TILE;
        int64_t c = a->c0;
        if (n == TILE)
            for (; c + COLS * VF_N <= a->c1; c += COLS * VF_N)
                column(a, t, TILE, c, W, b, COLS, VF_N);
        for (; c + VF_N <= a->c1; c += VF_N) column(a, t, n, c, W, b, 1, VF_N);
        if (c < a->c1) column(a, t, n, c, W, b, 1, (int)(a->c1 - c));
    }
}

/* Four taps, the only width released, with the window in registers: of the model, of the operator
 * on bf16 rows, in chunks and one by one, and on f32 rows. */
INLINE void conv_body(const gdn_conv_args *a) {
    const bf16_of b = {a->state_bf16, a->x_bf16 != NULL, a->y_bf16, a->y_in_bf16 != NULL};
    if (a->W != 4) columns(a, a->W, b);
    else if (b.state && !b.x && !b.y && !b.rows) columns(a, 4, (bf16_of){.state = true});
    else if (!b.state && b.x && b.rows) columns(a, 4, (bf16_of){.x = true, .rows = true});
    else if (!b.state && b.x && b.y) columns(a, 4, (bf16_of){.x = true, .y = true});
    else if (!b.state && !b.x && !b.y && !b.rows) columns(a, 4, (bf16_of){.state = false});
    else columns(a, 4, b);
}
