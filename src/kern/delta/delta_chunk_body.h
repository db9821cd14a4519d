/* delta_chunk_body.h - the gated delta rule in chunks over vf; included by delta_chunk_<isa>.c after a
 * vec_<isa>.h, these names and delta_chunk_f32.h or delta_chunk_pairs.h:
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
 * the panel they lie in. */

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

/* ---- a panel ---- */

/* A chunk as a panel sees it. */
typedef struct {
    const gdn_delta_chunk_args *a;
    const chunk_work *w;
    float *S;    /* the panel, [dk][cols VF_N]                      */
    float *words; /* the same as products need it, where that is not it */
    int64_t v;   /* its first row of S                              */
    int64_t at;  /* the chunk's first token in the call             */
    int t, n;    /* the same in the span; tokens                    */
    int last;    /* lanes in use of the panel's last vector         */
} pass;

/* U of tokens i .. i + rows, and W. */
INLINE void corrections(const pass *p, int i, int rows, int cols) {
    const chunk_work *w = p->w;
    const int dk = p->a->dk, ld = cols * VF_N, t = p->t + i;
    const float *A = w->g.A + t * CHUNK;
    float *U = w->U + i * ld;
    tile c;
    times_state(p->S, p->words, w->key, t, dk, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++) {
        const int64_t at = (p->at + i + r) * p->a->v_stride + p->v;
        const vf take = vf_set1(w->g.take[t + r]), beta = vf_set1(w->g.beta[t + r]);
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
        UNROLL
        for (int x = 0; x < r; x++) {
            const vf y = vf_set1(A[r * CHUNK + i + x]);
            UNROLL
            for (int j = 0; j < cols; j++) c[r][j] = vf_fma(y, c[x][j], c[r][j]);
        }
        UNROLL
        for (int j = 0; j < cols; j++) vf_store(U + r * ld + j * VF_N, c[r][j]);
        keep_gain(w, p->t, i, r, p->n, cols, c);
    }
}

INLINE void outputs(const pass *p, int i, int rows, int cols) {
    const chunk_work *w = p->w;
    const int dk = p->a->dk, ld = cols * VF_N, t = p->t + i;
    const float *P = w->g.P + t * CHUNK, *U = w->U + i * ld;
    tile c;
    times_state(p->S, p->words, w->query, t, dk, rows, cols, c);
    UNROLL
    for (int r = 0; r < rows; r++) {
        const vf ask = vf_set1(w->g.ask[t + r]);
        UNROLL
        for (int j = 0; j < cols; j++) c[r][j] = vf_mul(ask, c[r][j]);
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
        put_outputs(p->a, at, c[r], cols, p->last);
    }
}

INLINE void update(const pass *p, int rows, int cols) {
    const vf fade = vf_set1(p->w->g.from_start[p->t + CHUNK - 1]);
    const int dk = p->a->dk, ld = cols * VF_N;
    for (int s = 0; s < dk; s += rows) {
        float *S = p->S + s * ld;
        tile c;
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int j = 0; j < cols; j++)
                c[r][j] = vf_mul(fade, vf_load(S + r * ld + j * VF_N));
        add_gain(p->w, p->t, p->n, s, dk, rows, cols, c);
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int j = 0; j < cols; j++) vf_store(S + r * ld + j * VF_N, c[r][j]);
        keep_words(p->words, s, rows, cols, c);
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
    float *words = a->held + (all + VF_N - 1) / VF_N * VF_N * a->dk;
    chunk_work w;
    chunk_layout(&w, a->work, a->dk);
    for (int64_t t0 = 0; t0 < a->n_tok; t0 += SPAN) {
        const int n = a->n_tok - t0 < SPAN ? (int)(a->n_tok - t0) : SPAN;
        if (!a->same) span_tokens(a, &w, t0, n);
        for (int t = 0; t < n; t += CHUNK) gates(a, &w.g, t0 + t, t, n - t < CHUNK ? n - t : CHUNK);
        for (int v = 0, rows; v < all; v += rows) {
            const int cols = panel_vectors(all - v);
            rows = cols * VF_N < all - v ? cols * VF_N : all - v;
            const pass p = {.a = a,
                            .w = &w,
                            .S = a->held + v * a->dk,
                            .words = words + v * (a->dk / 2),
                            .v = a->v0 + v,
                            .last = rows - (cols - 1) * VF_N};
            if (a->first && t0 == 0) {
                turn_in(a, p.S, p.v, rows);
                panel_words(p.words, p.S, a->dk, cols);
            }
            if (cols == PANEL) panel_whole(p, t0, n);
            else if (cols == 2) panel_of_2(p, t0, n);
            else panel_of_1(p, t0, n);
            if (a->last && t0 + n == a->n_tok) turn_out(a, p.S, p.v, rows);
        }
    }
}
