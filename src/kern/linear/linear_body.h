/* linear_body.h - products with f32 inputs for every weight type, written once over vf.
 *
 * Included by linear_<isa>.c after a vec_<isa>.h, which must also define vf_load_pair_lo/hi
 * (the two bf16 of each 32-bit lane as f32), and after TILE_ROWS and TILE_VECS, the register
 * tile for many rows, TILE_VECS_2 and TILE_VECS_1 for two rows and one, and K_FEW.  A tile of R
 * rows by NV vectors keeps its sums in registers over a stretch of k and adds them to a block of
 * results; the order of every output's sum is k ascending.
 *
 * Few rows read weights once, at the pace of memory.  The CPU's own reading ahead ends with each
 * 4 KiB page, so tiles ask for what they will read AHEAD bytes later.
 *
 * fp8 has a scale for each stretch of scale_cols inputs: the stretch is summed on its own from
 * zero, then one fma adds it, scaled, to the total. */
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    ROW_BLOCK = 96, /* rows a panel visits before the next: their results stay in L1/L2   */
    K_BLOCK = 256,  /* inputs a tile walks at a time: 64 x 256 bf16 are 32 KiB             */
    FEW_ROWS = 16,  /* up to here the weights' way from memory counts: K_FEW at a time     */
    AHEAD = 8192,   /* past the end of the weights at most this far: asking there is harmless */
};

typedef struct {
    const gdn_linear_args *a;
    const char  *panel;
    const float *scale; /* fp8: this panel's scales */
    float       *c;     /* [ROW_BLOCK][GDN_PANEL] */
} panel_job;

INLINE const float *row_f32(const gdn_linear_args *a, int32_t i) {
    const int64_t at = a->row != NULL ? a->row[i] : i;
    return (const float *)a->x + at * a->x_stride;
}

/* One k of VF_N outputs as f32. */
INLINE vf load_w(gdn_type type, const char *w, int64_t k, int col) {
    const int64_t at = k * GDN_PANEL + col;
    switch (type) {
    case GDN_F32:
        return vf_load((const float *)(const void *)w + at);
    case GDN_F16:
        return vf_load_f16((const uint16_t *)(const void *)w + at);
    default:
        return vf_load_f8((const uint8_t *)w + at);
    }
}

INLINE void ask(const char *p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

INLINE void tile(gdn_type type, int R, int NV, float *c, const char *w, int col,
                 const float *const *x, int64_t k0, int64_t k1, bool first,
                 const float *scale, int ahead) {
    vf acc[8][8];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int j = 0; j < NV; j++)
            acc[r][j] = first || type == GDN_F8 ? vf_zero()
                                                : vf_load(c + r * GDN_PANEL + col + j * VF_N);
    if (type == GDN_BF16) {
        int64_t k = k0;
        for (; k + 1 < k1; k += 2) {
            const char *p = w + (k / 2 * GDN_PANEL + col) * 4;
            if (ahead > 0) ask(p + ahead, NV * VF_N * 4);
            if (R <= 2) {
                vf b[2][2];
#pragma GCC unroll 2
                for (int r = 0; r < R; r++)
                    b[r][0] = vf_set1(x[r][k]), b[r][1] = vf_set1(x[r][k + 1]);
#pragma GCC unroll 8
                for (int j = 0; j < NV; j++) {
                    const vf lo = vf_load_pair_lo(p + j * VF_N * 4);
                    const vf hi = vf_load_pair_hi(p + j * VF_N * 4);
#pragma GCC unroll 2
                    for (int r = 0; r < R; r++) acc[r][j] = vf_fma(lo, b[r][0], acc[r][j]);
#pragma GCC unroll 2
                    for (int r = 0; r < R; r++) acc[r][j] = vf_fma(hi, b[r][1], acc[r][j]);
                }
                continue;
            }
            vf e[8];
#pragma GCC unroll 8
            for (int j = 0; j < NV; j++) e[j] = vf_load_pair_lo(p + j * VF_N * 4);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const vf b = vf_set1(x[r][k]);
#pragma GCC unroll 8
                for (int j = 0; j < NV; j++) acc[r][j] = vf_fma(e[j], b, acc[r][j]);
            }
#pragma GCC unroll 8
            for (int j = 0; j < NV; j++) e[j] = vf_load_pair_hi(p + j * VF_N * 4);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const vf b = vf_set1(x[r][k + 1]);
#pragma GCC unroll 8
                for (int j = 0; j < NV; j++) acc[r][j] = vf_fma(e[j], b, acc[r][j]);
            }
        }
        if (k < k1) {
            const char *p = w + (k / 2 * GDN_PANEL + col) * 4;
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const vf b = vf_set1(x[r][k]);
#pragma GCC unroll 8
                for (int j = 0; j < NV; j++)
                    acc[r][j] = vf_fma(vf_load_pair_lo(p + j * VF_N * 4), b, acc[r][j]);
            }
        }
    } else {
        const int size = type == GDN_F32 ? 4 : type == GDN_F16 ? 2 : 1;
        for (int64_t k = k0; k < k1; k++) {
            if (ahead > 0) ask(w + (k * GDN_PANEL + col) * size + ahead, NV * VF_N * size);
            vf e[8];
#pragma GCC unroll 8
            for (int j = 0; j < NV; j++) e[j] = load_w(type, w, k, col + j * VF_N);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const vf b = vf_set1(x[r][k]);
#pragma GCC unroll 8
                for (int j = 0; j < NV; j++) acc[r][j] = vf_fma(e[j], b, acc[r][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int j = 0; j < NV; j++) {
            float *out = c + r * GDN_PANEL + col + j * VF_N;
            vf y = acc[r][j];
            if (type == GDN_F8)
                /* Codes are read as f16, which is 2^-8 of their value. */
                y = vf_fma(vf_mul(y, vf_set1(256.0f)), vf_load(scale + col + j * VF_N),
                           first ? vf_zero() : vf_load(out));
            vf_store(out, y);
        }
}

/* All 64 columns of R rows. */
INLINE void tile_columns(gdn_type type, int R, int NV, float *c, const char *w,
                         const float *const *x, int64_t k0, int64_t k1, bool first,
                         const float *scale, int ahead) {
    for (int col = 0; col < GDN_PANEL; col += NV * VF_N)
        tile(type, R, NV, c, w, col, x, k0, k1, first, scale, ahead);
}

/* n rows of job->c over one stretch of k. */
INLINE void stretch_rows(gdn_type type, const panel_job *job, const float *const *x, int32_t n,
                         int64_t k0, int64_t k1, const float *scale, int ahead) {
    int32_t i = 0;
    for (; i + TILE_ROWS <= n; i += TILE_ROWS)
        tile_columns(type, TILE_ROWS, TILE_VECS, job->c + i * GDN_PANEL, job->panel, x + i, k0, k1,
                     k0 == 0, scale, ahead);
    for (; i + 2 <= n; i += 2)
        tile_columns(type, 2, TILE_VECS_2, job->c + i * GDN_PANEL, job->panel, x + i, k0, k1,
                     k0 == 0, scale, ahead);
    for (; i < n; i++)
        tile_columns(type, 1, TILE_VECS_1, job->c + i * GDN_PANEL, job->panel, x + i, k0, k1,
                     k0 == 0, scale, ahead);
}

/* Rows m0 <= i < m1 of one panel into job->c. */
INLINE void panel_rows(gdn_type type, const panel_job *job, int32_t m0, int32_t m1) {
    const gdn_linear_args *a = job->a;
    const int64_t k_all = a->w->k;
    const int32_t n = m1 - m0;
    const bool few = n <= FEW_ROWS;
    const int64_t step = type == GDN_F8 ? a->w->scale_cols : n > 1 && few ? K_FEW : K_BLOCK;
    const float *x[ROW_BLOCK];
    for (int32_t i = m0; i < m1; i++) x[i - m0] = row_f32(a, i);
    for (int64_t k0 = 0; k0 < k_all; k0 += step) {
        const int64_t k1 = k0 + step < k_all ? k0 + step : k_all;
        const float *scale = type == GDN_F8 ? job->scale + k0 / step * GDN_PANEL : NULL;
        if (few) stretch_rows(type, job, x, n, k0, k1, scale, AHEAD);
        else stretch_rows(type, job, x, n, k0, k1, scale, 0);
    }
}

/* Results of rows m0.. of panel p from the block to y; the last panel may be cut. */
INLINE void panel_out(const gdn_linear_args *a, const float *c, int32_t p, int32_t m0,
                      int32_t m1) {
    const int32_t left = a->w->n - p * GDN_PANEL, n = left < GDN_PANEL ? left : GDN_PANEL;
    for (int32_t i = m0; i < m1; i++, c += GDN_PANEL) {
        float *y = a->y + (a->y_row != NULL ? a->y_row[i] : i) * a->y_stride +
                   (int64_t)p * GDN_PANEL;
        int32_t j = 0;
        for (; j + VF_N <= n; j += VF_N) {
            const vf v = vf_load(c + j);
            vf_store(y + j, a->add ? vf_add(vf_load(y + j), v) : v);
        }
        if (j < n) {
            const vf v = vf_load(c + j);
            vf_store_n(y + j, a->add ? vf_add(vf_load_n(y + j, n - j), v) : v, n - j);
        }
    }
}

#define GDN_LINEAR_F32(type_)                                                             \
    static void linear_f32_##type_(const gdn_linear_args *a) {                            \
        const uint64_t bytes = gdn_panel_bytes(type_, a->w->k);                           \
        for (int32_t p = a->p0; p < a->p1; p++) {                                         \
            const panel_job job = {a, (const char *)a->w->panel + (uint64_t)p * bytes,    \
                                   panel_scale(a->w, p), a->scratch};                     \
            for (int32_t m = 0; m < a->m; m += ROW_BLOCK) {                               \
                const int32_t end = m + ROW_BLOCK < a->m ? m + ROW_BLOCK : a->m;          \
                panel_rows(type_, &job, m, end);                                          \
                panel_out(a, job.c, p, m, end);                                           \
            }                                                                             \
        }                                                                                 \
    }

INLINE const float *panel_scale(const gdn_panels *w, int32_t p) {
    if (w->type != GDN_F8) return NULL;
    const int64_t stretches = (w->k + w->scale_cols - 1) / w->scale_cols;
    return w->scale + p * stretches * GDN_PANEL;
}

GDN_LINEAR_F32(GDN_BF16)
GDN_LINEAR_F32(GDN_F16)
GDN_LINEAR_F32(GDN_F32)
GDN_LINEAR_F32(GDN_F8)

static void linear_f32(const gdn_linear_args *a) {
    switch (a->w->type) {
    case GDN_BF16: linear_f32_GDN_BF16(a); break;
    case GDN_F16: linear_f32_GDN_F16(a); break;
    case GDN_F32: linear_f32_GDN_F32(a); break;
    default: linear_f32_GDN_F8(a); break;
    }
}
