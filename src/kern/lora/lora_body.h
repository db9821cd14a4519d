/* lora_body.h - the products of a low-rank adapter over vf.
 *
 * Included after a vec_<isa>.h and TILE_ROWS.  Every output has one register of partial sums that
 * walks k from 0 and is added up at the end by a tree of one shape, so tiles of any size give the
 * same bits.  Four outputs of TILE_ROWS rows share their loads; a row on its own takes VF_N
 * outputs at a time, enough sums to hide the latency of an addition. */

typedef struct {
    const gdn_lora_args *a;
    const char *x[TILE_ROWS]; /* inputs of the tile's rows */
    float      *y[TILE_ROWS];
} tile_rows;

INLINE vf load_x(const char *x, bool bf16, int32_t k, int n) {
    if (!bf16) return vf_get((const float *)(const void *)x + k, n);
    const uint16_t *p = (const uint16_t *)(const void *)x + k;
    return n == VF_N ? vf_load_bf16(p) : vf_load_bf16_n(p, n);
}

/* One stretch of n inputs from k on: R rows, N outputs from j on (N == 4 unless R == 1). */
INLINE void stretch(const tile_rows *t, int R, int N, bool bf16, const float *const *m, int32_t k,
                    int n, vf acc[][VF_N]) {
    vf x[TILE_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) x[r] = load_x(t->x[r], bf16, k, n);
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) {
        const vf w = vf_get(m[j] + k, n);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) acc[r][j] = vf_fma(w, x[r], acc[r][j]);
    }
}

/* Quarters of the sums of N outputs from j on: q[r][N / 4].  Beyond the last output the last row
 * is read once more and its sum dropped later. */
INLINE void sums(const tile_rows *t, int R, int N, bool bf16, int32_t j, vf q[][VF_N / 4]) {
    const gdn_lora_args *a = t->a;
    const float *m[VF_N];
    vf acc[TILE_ROWS][VF_N];
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
        m[i] = a->m + (int64_t)(j + i < a->n ? j + i : a->n - 1) * a->k;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) acc[r][i] = vf_zero();
    }
    int32_t k = 0;
    for (; k + VF_N <= a->k; k += VF_N) stretch(t, R, N, bf16, m, k, VF_N, acc);
    if (k < a->k) stretch(t, R, N, bf16, m, k, a->k - k, acc);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int i = 0; i < N; i += 4)
            q[r][i / 4] = vf_hsum4(acc[r][i], acc[r][i + 1], acc[r][i + 2], acc[r][i + 3]);
}

INLINE void put(const tile_rows *t, int r, int32_t j, vf sum) {
    const gdn_lora_args *a = t->a;
    const int n = a->n - j < VF_N ? a->n - j : VF_N;
    float *y = t->y[r] + j;
    if (a->add) sum = vf_fma(vf_set1(a->scale), sum, vf_get(y, n));
    vf_put(y, sum, n);
}

/* All outputs of R rows. */
INLINE void rows(const tile_rows *t, int R, bool bf16) {
    const gdn_lora_args *a = t->a;
    for (int32_t j = 0; j < a->n; j += VF_N) {
        vf q[TILE_ROWS][VF_N / 4];
        if (R == 1 && a->n - j > VF_N / 2) {
            sums(t, 1, VF_N, bf16, j, q);
        } else {
            for (int i = 0; i < VF_N; i += 4) {
                vf part[TILE_ROWS][VF_N / 4];
                if (j + i < a->n) sums(t, R, 4, bf16, j + i, part);
                for (int r = 0; r < R; r++) q[r][i / 4] = j + i < a->n ? part[r][0] : vf_zero();
            }
        }
        for (int r = 0; r < R; r++) put(t, r, j, vf_hsum_join(q[r]));
    }
}

INLINE void lora_rows(const gdn_lora_args *a, bool bf16) {
    for (int32_t i = 0; i < a->n_row;) {
        const int R = a->n_row - i >= TILE_ROWS ? TILE_ROWS : 1;
        tile_rows t = {.a = a};
        for (int r = 0; r < R; r++) {
            t.x[r] = (const char *)a->x + a->x_row[i + r] * a->x_stride * (bf16 ? 2 : 4);
            t.y[r] = a->y + a->y_row[i + r] * a->y_stride;
        }
        if (R == TILE_ROWS) rows(&t, TILE_ROWS, bf16);
        else rows(&t, 1, bf16);
        i += R;
    }
}

static void lora_body(const gdn_lora_args *a) {
    if (a->x_bf16) lora_rows(a, true);
    else lora_rows(a, false);
}
