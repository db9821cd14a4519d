/* linear_avx512bf16.c - bf16 inputs and bf16 weights through vdpbf16ps.
 *
 * One instruction adds two neighbouring products to each of 16 outputs, so an output's sum is
 * one chain over pairs of k.  6 rows by 64 outputs fill 24 of the 32 registers; the stretch of
 * weights a tile walks (K_BLOCK x 64) stays in L1 while the rows of a block go by.  A single tile of
 * rows asks for weights AHEAD bytes before it reads them, as in linear_body.h. */
#include "linear.h"

#include <immintrin.h>
#include <string.h>

enum { ROW_BLOCK = 192, K_BLOCK = 192, TILE_ROWS = 6, VECS = GDN_PANEL / 16, AHEAD = 8192 };

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 broadcast_pair(const uint16_t *x) {
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
}

INLINE void tile(int R, float *c, const uint16_t *w, const uint16_t *const *x, int64_t k0,
                 int64_t k1, bool first, bool ask) {
    __m512 acc[TILE_ROWS][VECS];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int j = 0; j < VECS; j++)
            acc[r][j] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + r * GDN_PANEL + j * 16);
    w += k0 / 2 * GDN_PANEL * 2;
    int64_t k = k0;
    for (; k + 1 < k1; k += 2, w += GDN_PANEL * 2) {
        __m512bh e[VECS];
#pragma GCC unroll 4
        for (int j = 0; ask && j < VECS; j++) __builtin_prefetch((const char *)(w + j * 32) + AHEAD);
#pragma GCC unroll 4
        for (int j = 0; j < VECS; j++) e[j] = (__m512bh)_mm512_loadu_si512(w + j * 32);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const __m512bh b = (__m512bh)_mm512_castps_si512(broadcast_pair(x[r] + k));
#pragma GCC unroll 4
            for (int j = 0; j < VECS; j++) acc[r][j] = _mm512_dpbf16_ps(acc[r][j], b, e[j]);
        }
    }
    if (k < k1) { /* odd k: the panel's second half is zero, the row must not be read past */
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const __m512bh b = (__m512bh)_mm512_set1_epi32(x[r][k]);
#pragma GCC unroll 4
            for (int j = 0; j < VECS; j++)
                acc[r][j] = _mm512_dpbf16_ps(acc[r][j], b,
                                             (__m512bh)_mm512_loadu_si512(w + j * 32));
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int j = 0; j < VECS; j++)
            _mm512_storeu_ps(c + r * GDN_PANEL + j * 16, acc[r][j]);
}

static void tile6(float *c, const uint16_t *w, const uint16_t *const *x, int64_t k0, int64_t k1,
                  bool first) {
    tile(6, c, w, x, k0, k1, first, false);
}

INLINE void tile_rest(int32_t n, float *c, const uint16_t *w, const uint16_t *const *x,
                      int64_t k0, int64_t k1, bool first, bool ask) {
    switch (n) {
    case 6: tile(6, c, w, x, k0, k1, first, ask); break;
    case 5: tile(5, c, w, x, k0, k1, first, ask); break;
    case 4: tile(4, c, w, x, k0, k1, first, ask); break;
    case 3: tile(3, c, w, x, k0, k1, first, ask); break;
    case 2: tile(2, c, w, x, k0, k1, first, ask); break;
    case 1: tile(1, c, w, x, k0, k1, first, ask); break;
    default: break;
    }
}

static void panel_out(const gdn_linear_args *a, const float *c, int32_t p, int32_t m0,
                      int32_t m1) {
    const int32_t left = a->w->n - p * GDN_PANEL, n = left < GDN_PANEL ? left : GDN_PANEL;
    for (int32_t i = m0; i < m1; i++, c += GDN_PANEL) {
        float *y = a->y + (a->y_row != NULL ? a->y_row[i] : i) * a->y_stride +
                   (int64_t)p * GDN_PANEL;
        for (int32_t j = 0; j < n; j += 16) {
            const __mmask16 mask = n - j >= 16 ? 0xffff : (__mmask16)((1u << (n - j)) - 1);
            __m512 v = _mm512_loadu_ps(c + j);
            if (a->add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y + j), v);
            _mm512_mask_storeu_ps(y + j, mask, v);
        }
    }
}

static void panel_rows(const gdn_linear_args *a, const uint16_t *panel, int32_t m0, int32_t m1) {
    float *c = a->scratch;
    const int64_t k_all = a->w->k;
    const int32_t n = m1 - m0;
    const uint16_t *x[ROW_BLOCK];
    for (int32_t i = 0; i < n; i++)
        x[i] = (const uint16_t *)a->x +
               (a->row != NULL ? a->row[m0 + i] : m0 + i) * a->x_stride;
    if (n <= TILE_ROWS) { /* nothing is reused: walk k in one go */
        tile_rest(n, c, panel, x, 0, k_all, true, true);
        return;
    }
    for (int64_t k0 = 0; k0 < k_all; k0 += K_BLOCK) {
        const int64_t k1 = k0 + K_BLOCK < k_all ? k0 + K_BLOCK : k_all;
        int32_t i = 0;
        for (; i + TILE_ROWS <= n; i += TILE_ROWS)
            tile6(c + i * GDN_PANEL, panel, x + i, k0, k1, k0 == 0);
        tile_rest(n - i, c + i * GDN_PANEL, panel, x + i, k0, k1, k0 == 0, false);
    }
}

void gdn_linear_avx512bf16(const gdn_linear_args *a) {
    if (!a->x_bf16) {
        gdn_linear_avx512(a);
        return;
    }
    const uint64_t bytes = gdn_panel_bytes(GDN_BF16, a->w->k);
    for (int32_t p = a->p0; p < a->p1; p++) {
        const void *panel = (const char *)a->w->panel + (uint64_t)p * bytes;
        for (int32_t m = 0; m < a->m; m += ROW_BLOCK) {
            const int32_t end = m + ROW_BLOCK < a->m ? m + ROW_BLOCK : a->m;
            panel_rows(a, panel, m, end);
            panel_out(a, a->scratch, p, m, end);
        }
    }
}
