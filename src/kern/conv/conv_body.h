/* conv_body.h - the causal depthwise convolution over vf; lanes run over channels.
 *
 * A column of VF_N channels walks a tile of tokens with its last W inputs in registers.
 * Tiles are short, because rows lie far apart in memory: TILE rows at a time are read as
 * so many streams.  The window starts from the state, later from the rows before the
 * tile; what it holds after the last token is the new state. */
enum { TILE = 8 }; /* at least W - 1: a tile's past lies in the state or in x alone */

INLINE vf state_get(const gdn_conv_args *a, int64_t at, bool bf16, int n) {
    if (!a->has_state) return vf_zero();
    if (!bf16) return vf_get((const float *)a->state + at, n);
    const uint16_t *p = (const uint16_t *)a->state + at;
    return n == VF_N ? vf_load_bf16(p) : vf_load_bf16_n(p, n);
}
INLINE vf input_get(const gdn_conv_args *a, int64_t t, int64_t c, bool bf16, int n) {
    const vf u = vf_get(a->x + t * a->x_stride + c, n);
    return bf16 ? vf_round_bf16(u) : u;
}

INLINE void column(const gdn_conv_args *a, int64_t t0, int64_t t1, int64_t c, int W,
                   bool bf16, int n) {
    vf w[8], u[8];
    const vf bias = a->bias != NULL ? vf_get(a->bias + c, n) : vf_zero();
    for (int j = 0; j < W; j++) w[j] = vf_get(a->w + (int64_t)j * a->C + c, n);
    for (int j = 0; j < W - 1; j++)
        u[j] = t0 == 0 ? state_get(a, j * a->state_stride + c, bf16, n)
                       : input_get(a, t0 - (W - 1) + j, c, bf16, n);
    for (int64_t t = t0; t < t1; t++) {
        u[W - 1] = input_get(a, t, c, bf16, n);
        vf s = bias;
        for (int j = 0; j < W; j++) s = vf_fma(w[j], u[j], s);
        vf_put(a->y + t * a->y_stride + c, vf_silu(s), n);
        for (int j = 0; j < W - 1; j++) u[j] = u[j + 1];
    }
    if (t1 < a->n_tok) return;
    for (int j = 0; j < W - 1; j++)
        vf_put_as(a->state, bf16, j * a->state_stride + c, u[j], n);
}

INLINE void columns(const gdn_conv_args *a, int W, bool bf16) {
    for (int64_t t0 = 0; t0 < a->n_tok; t0 += TILE) {
        const int64_t t1 = t0 + TILE < a->n_tok ? t0 + TILE : a->n_tok;
        int64_t c = a->c0;
        for (; c + VF_N <= a->c1; c += VF_N) column(a, t0, t1, c, W, bf16, VF_N);
        if (c < a->c1) column(a, t0, t1, c, W, bf16, (int)(a->c1 - c));
    }
}

/* Four taps, the only width released, with the window in registers. */
INLINE void conv_body(const gdn_conv_args *a) {
    if (a->W == 4 && a->state_bf16) columns(a, 4, true);
    else if (a->W == 4) columns(a, 4, false);
    else columns(a, a->W, a->state_bf16);
}
