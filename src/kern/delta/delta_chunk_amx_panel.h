/* delta_chunk_amx_panel.h - a panel of the state in a chunk, and what vectors do with it between its
 * products in AMX's tiles; part of delta_chunk_amx_body.h. */
#ifndef GDN_KERN_DELTA_CHUNK_AMX_PANEL_H
#define GDN_KERN_DELTA_CHUNK_AMX_PANEL_H

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

/* ---- its work, in steps ---- */

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
    const float *take = w->g.take, *beta = w->g.beta, *M = w->M + i * AMX_PANEL;
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
    const float *M = w->M + (CHUNK + i) * AMX_PANEL, *O = w->O + i * AMX_PANEL, *ask = w->g.ask;
    const int64_t stride = p->a->o_stride, first = p->at * stride + p->v;
    float *o32 = p->a->o + first;
    uint16_t *o16 = p->a->o_bf16 + first;
    for (; i < end; i++) {
        const vf f = vf_set1(ask[i]);
        UNROLL
        for (int j = 0; j < PANEL; j += 2, M += 2 * VF_N, O += 2 * VF_N) {
            const vf x = vf_fma(f, vf_load(M), vf_load(O));
            const vf y = vf_fma(f, vf_load(M + VF_N), vf_load(O + VF_N));
            const int64_t at = i * stride + j * VF_N;
            if (to == OUT_F32) vf_store(o32 + at, x), vf_store(o32 + at + VF_N, y);
            else if (to == OUT_BF16) vf_store_two_bf16(o16 + at, x, y);
            else if (to == PAST_F32) vf_stream(o32 + at, x), vf_stream(o32 + at + VF_N, y);
            else if (to == PAST_BF16) vf_stream_two_bf16(o16 + at, x, y);
            else put_lanes(p, i, j, x), put_lanes(p, i, j + 1, y);
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
    const vf fade = vf_set1(p->w->g.from_start[CHUNK - 1]);
    const float *D = p->w->D + i % 2 * 2 * AMX_TILE;
    float *S = p->S + i * AMX_TILE;
    for (int s = 0; s < AMX_TILE; s += VF_N) {
        vf_store(S + s, vf_fma(fade, vf_load(S + s), vf_load(D + s)));
        vf_store(S + column + s, vf_fma(fade, vf_load(S + column + s), vf_load(D + AMX_TILE + s)));
    }
}

#endif
