/* conv_body.h - the causal depthwise convolution over vf; lanes run over channels.
 *
 * A column of VF_N channels walks a tile of tokens with its last W inputs in registers.
 * Tiles are short, because rows lie far apart in memory: TILE rows at a time are read as
 * so many streams.  The window starts from the state, later from the rows before the
 * tile; what it holds after the last token is the new state. */
enum {
    TILE = 8,    /* at least W - 1: a tile's past lies in the state or in x alone    */
    ABREAST = 8, /* tokens whose activations settle side by side                     */
};

/* What is bf16 in a call: constants where it matters. */
typedef struct {
    bool state, x, y;
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

/* n_tok tokens from t on; u holds the W - 1 inputs before them, then those before the next. */
INLINE void tokens(const gdn_conv_args *a, int64_t t, int n_tok, int64_t c, int W, const vf *w,
                   vf bias, vf *u, bf16_of b, int n) {
    vf s[ABREAST];
    for (int i = 0; i < n_tok; i++) {
        u[W - 1 + i] = input_get(a, t + i, c, b, n);
        s[i] = bias;
    }
    for (int j = 0; j < W; j++)
        for (int i = 0; i < n_tok; i++) s[i] = vf_fma(w[j], u[i + j], s[i]);
    vf_silu_each(s, n_tok);
    for (int i = 0; i < n_tok; i++)
        vf_put(a->y + (t + i) * a->y_stride + c, b.y ? vf_round_bf16(s[i]) : s[i], n);
    for (int j = 0; j < W - 1; j++) u[j] = u[j + n_tok];
}

INLINE void column(const gdn_conv_args *a, int64_t t0, int64_t t1, int64_t c, int W, bf16_of b,
                   int n) {
    vf w[8], u[8 + ABREAST];
    const vf bias = a->bias != NULL ? vf_get(a->bias + c, n) : vf_zero();
    for (int j = 0; j < W; j++) w[j] = vf_get(a->w + (int64_t)j * a->C + c, n);
    for (int j = 0; j < W - 1; j++)
        u[j] = t0 == 0 ? state_get(a, j * a->state_stride + c, b.state, n)
                       : input_get(a, t0 - (W - 1) + j, c, b, n);
    int64_t t = t0;
    for (; t + ABREAST <= t1; t += ABREAST) tokens(a, t, ABREAST, c, W, w, bias, u, b, n);
    for (; t < t1; t++) tokens(a, t, 1, c, W, w, bias, u, b, n);
    if (t1 < a->n_tok) return;
    for (int j = 0; j < W - 1; j++)
        vf_put_as(a->state, b.state, j * a->state_stride + c, u[j], n);
}

INLINE void columns(const gdn_conv_args *a, int W, bf16_of b) {
    for (int64_t t0 = 0; t0 < a->n_tok; t0 += TILE) {
        const int64_t t1 = t0 + TILE < a->n_tok ? t0 + TILE : a->n_tok;
        int64_t c = a->c0;
        for (; c + VF_N <= a->c1; c += VF_N) column(a, t0, t1, c, W, b, VF_N);
        if (c < a->c1) column(a, t0, t1, c, W, b, (int)(a->c1 - c));
    }
}

/* Four taps, the only width released, with the window in registers: of the model, of the operator
 * on bf16 rows and on f32 rows. */
INLINE void conv_body(const gdn_conv_args *a) {
    const bf16_of b = {a->state_bf16, a->x_bf16 != NULL, a->y_bf16};
    if (a->W == 4 && b.state && !b.x && !b.y) columns(a, 4, (bf16_of){true, false, false});
    else if (a->W == 4 && !b.state && b.x && b.y) columns(a, 4, (bf16_of){false, true, true});
    else if (a->W == 4 && !b.state && !b.x && !b.y)
        columns(a, 4, (bf16_of){false, false, false});
    else columns(a, a->W, b);
}
