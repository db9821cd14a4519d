/* delta_body.h - the gated delta rule over vf; included by delta_<isa>.c after a
 * vec_<isa>.h.
 *
 * Lanes run over dk.  Rows go in groups of VF_N, and 16 or 32 rows walk all tokens before
 * the next ones start, so that their part of the state (at most 16 KiB) stays in the
 * first cache:
 *
 *     pass over a group, token t:   S = alpha S + d k_t    o_t = S q_t    m_t+1 = S k_t+1
 *
 * These are 4 operations a vector on the multiply-add pipes for 6 counted ones a number:
 * three quarters of their peak is the ceiling.  One row's sum is one chain over dk in a
 * register, then the tree of vf_hsum4 and vf_hsum_join.  Chain and tree are the same for
 * the first pass of a call, which only reads, as for the fused one, and for every place
 * in a group: hence results do not depend on how a call is cut. */
enum {
    LINE = 16,          /* floats of a cache line */
    GROUPS = 32 / VF_N, /* side by side: the sums of one settle while the others work */
    /* Prefetched, because the hardware follows neither tokens that lie a row of all heads
     * apart nor the four rows of a strip: a prompt of 512 gains a tenth, a single token
     * whose states lie in memory takes half the time.  The state is asked for in the order
     * of memory, half of it in a call's first pass and half in its last: together a quarter
     * faster than row beside row in the last.  STATE_AHEAD counts floats; past the end of
     * the state it meets the next head's or does nothing. */
    TOKENS_AHEAD = 2,
    STATE_AHEAD = 4096,
    ASIDE = 2, /* tokens */
};

/* What a strip needs; the pointers stand at its first row. */
typedef struct {
    float *S;
    const float *k, *q, *k_next; /* q, k_next: read by update() only        */
    const float *d;              /* [rows] what each row adds, times k      */
    float alpha;
    int dk;
} strip;

/* Ask for what lies ahead of the strip, as many lines as it has: the first `rows` of each two times
 * as many in pass 0, the others in pass 1. */
INLINE void prefetch_state(const strip *p, int rows, int i, int pass) {
    if (i / LINE % 2 != pass || i % LINE != 0) return;
    for (int r = 0; r < rows; r++)
        __builtin_prefetch(p->S + rows * i + r * LINE + STATE_AHEAD, 0, 2);
}

/* n values of dk from i on: S k into m. */
INLINE void dot_at(const strip *p, int rows, int i, int n, vf *m) {
    prefetch_state(p, rows, i, 0);
    const vf k = vf_get(p->k + i, n);
    for (int r = 0; r < rows; r++)
        m[r] = vf_fma(vf_get(p->S + r * p->dk + i, n), k, m[r]);
}
INLINE void dot(const strip *p, int rows, int dk, vf *m) {
    vf s[4];
    int i = 0;
    for (int r = 0; r < rows; r++) s[r] = vf_zero();
    for (; i + VF_N <= dk; i += VF_N) dot_at(p, rows, i, VF_N, s);
    if (i < dk) dot_at(p, rows, i, dk - i, s);
    for (int r = 0; r < rows; r++) m[r] = s[r];
}

INLINE void update_at(const strip *p, int rows, bool next, int i, int n, vf alpha,
                      const vf *d, vf *o, vf *m) {
    const vf k = vf_get(p->k + i, n), q = vf_get(p->q + i, n);
    const vf k_next = next ? vf_get(p->k_next + i, n) : vf_zero();
    if (!next) prefetch_state(p, rows, i, 1);
    for (int r = 0; r < rows; r++) {
        float *S = p->S + r * p->dk + i;
        const vf s = vf_fma(d[r], k, vf_mul(alpha, vf_get(S, n)));
        vf_put(S, s, n);
        o[r] = vf_fma(s, q, o[r]);
        if (next) m[r] = vf_fma(s, k_next, m[r]);
    }
}
INLINE void update(const strip *p, int rows, int dk, bool next, vf *o, vf *m) {
    const vf alpha = vf_set1(p->alpha);
    vf d[4], so[4], sm[4];
    for (int r = 0; r < rows; r++) d[r] = vf_set1(p->d[r]), so[r] = sm[r] = vf_zero();
    int i = 0;
    for (; i + VF_N <= dk; i += VF_N) update_at(p, rows, next, i, VF_N, alpha, d, so, sm);
    if (i < dk) update_at(p, rows, next, i, dk - i, alpha, d, so, sm);
    for (int r = 0; r < rows; r++) {
        o[r] = so[r];
        if (next) m[r] = sm[r];
    }
}

/* Move a strip r rows down. */
INLINE strip below(const strip *p, int r) {
    strip s = *p;
    s.S += r * p->dk;
    if (s.d != NULL) s.d += r;
    return s;
}

/* The sums of n <= VF_N rows, one a lane.  Rows short of a strip go one by one. */
INLINE vf group_dot(const strip *g, int n, int dk) {
    vf quad[VF_N / 4];
    for (int b = 0; b < VF_N; b += 4) {
        vf m[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        if (b + 4 <= n) {
            const strip s = below(g, b);
            dot(&s, 4, dk, m);
        } else {
            for (int r = 0; r < 4; r++) {
                if (b + r >= n) break;
                const strip s = below(g, b + r);
                dot(&s, 1, dk, m + r);
            }
        }
        quad[b / 4] = vf_hsum4(m[0], m[1], m[2], m[3]);
    }
    return vf_hsum_join(quad);
}
INLINE vf group_update(const strip *g, int n, int dk, bool next, vf *m_next) {
    vf quad_o[VF_N / 4], quad_m[VF_N / 4];
    for (int b = 0; b < VF_N; b += 4) {
        vf o[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        vf m[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        if (b + 4 <= n) {
            const strip s = below(g, b);
            update(&s, 4, dk, next, o, m);
        } else {
            for (int r = 0; r < 4; r++) {
                if (b + r >= n) break;
                const strip s = below(g, b + r);
                update(&s, 1, dk, next, o + r, m + r);
            }
        }
        quad_o[b / 4] = vf_hsum4(o[0], o[1], o[2], o[3]);
        if (next) quad_m[b / 4] = vf_hsum4(m[0], m[1], m[2], m[3]);
    }
    if (next) *m_next = vf_hsum_join(quad_m);
    return vf_hsum_join(quad_o);
}

INLINE void prefetch_token(const gdn_delta_args *a, int64_t t, int64_t j, int n, int dk) {
    for (int i = 0; i < dk; i += LINE) {
        __builtin_prefetch(a->k + t * a->k_stride + i);
        __builtin_prefetch(a->q + t * a->q_stride + i);
    }
    for (int i = 0; i < n; i += LINE) __builtin_prefetch(a->v + t * a->v_stride + j + i);
}

/* All tokens for groups of rows side by side, n rows in each, from row j on. */
INLINE void groups_tokens(const gdn_delta_args *a, int64_t j, int groups, int n, int dk) {
    float d[GROUPS][VF_N];
    vf m[GROUPS];
    strip g = {.k = a->k, .dk = dk};
    for (int i = 0; i < groups; i++) {
        g.S = a->S + (j + i * VF_N) * dk;
        m[i] = group_dot(&g, n, dk);
    }
    for (int64_t t = 0; t < a->n_tok; t++) {
        const float *v = a->v + t * a->v_stride + j;
        float *o = a->o + t * a->o_stride + j;
        const vf beta = vf_set1(a->beta[t * a->gate_stride]);
        g.alpha = a->alpha[t * a->gate_stride];
        g.k = a->k + t * a->k_stride;
        g.q = a->q + t * a->q_stride;
        const bool next = t + 1 < a->n_tok;
        if (next) g.k_next = g.k + a->k_stride;
        if (t + TOKENS_AHEAD < a->n_tok)
            prefetch_token(a, t + TOKENS_AHEAD, j, groups * VF_N, dk);
        for (int i = 0; i < groups; i++) {
            g.S = a->S + (j + i * VF_N) * dk;
            g.d = d[i];
            const vf at = vf_mul(vf_set1(g.alpha), m[i]);
            vf_store(d[i], vf_mul(beta, vf_sub(vf_get(v + i * VF_N, n), at)));
            const vf s = next ? group_update(&g, n, dk, true, &m[i])
                              : group_update(&g, n, dk, false, NULL);
            vf_put(o + i * VF_N, s, n);
        }
        if (a->aside != NULL && t % ASIDE == ASIDE - 1) a->aside(a->aside_arg);
    }
}

INLINE void all_rows(const gdn_delta_args *a, int dk) {
    const int groups = dk > 128 ? GROUPS / 2 : GROUPS; /* half of the first cache */
    int64_t j = a->v0;
    for (; j + groups * VF_N <= a->v1; j += groups * VF_N)
        groups_tokens(a, j, groups, VF_N, dk);
    for (; j + VF_N <= a->v1; j += VF_N) groups_tokens(a, j, 1, VF_N, dk);
    if (j < a->v1) groups_tokens(a, j, 1, (int)(a->v1 - j), dk);
}

/* With dk a constant the inner loops unroll. */
INLINE void delta_body(const gdn_delta_args *a) {
    if (a->n_tok < 1) return;
    if (a->dk == 128) all_rows(a, 128);
    else all_rows(a, a->dk);
}
