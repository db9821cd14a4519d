/* linear_amx_body.h - bf16 inputs and bf16 weights through the tiles of amx.h, which comes first.
 *
 * Weights lie in the panel as the instruction wants them: 16 pairs of inputs, 256 bytes apart, of 16
 * outputs.  Pairs of 16 rows meet 32 outputs at a time, so that each tile read serves two products,
 * and the weights of K_BLOCK inputs stay in the first cache while the rows of a block go by.  16 rows
 * or fewer meet all 64 outputs.  Sums grow by 32 inputs at a time, in ascending order, whatever the
 * number of rows.  The CPU reads ahead by itself as well as with requests for it.
 *
 * Inputs are read where they lie; rows that lie apart, and what is left of k after whole steps, are
 * copied together first. */
#include "linear.h"

#include <stddef.h>

enum {
    TILE = 16,                         /* rows                 */
    STEP = 32,                         /* inputs of one tile   */
    STEP_BYTES = STEP * GDN_PANEL * 2, /* weights of one step  */
    ROW_BLOCK = 192,
    K_BLOCK = 512,
};

#define INLINE static inline __attribute__((always_inline))

/* In gdn_linear_scratch(). */
typedef struct {
    float    c[ROW_BLOCK][GDN_PANEL];
    uint16_t rows[2][K_BLOCK / STEP][TILE][STEP]; /* inputs copied together, tile after tile     */
    uint16_t last_rows[TILE][STEP];               /* the last inputs, filled up with zeros       */
    uint16_t last_panel[STEP / 2][GDN_PANEL][2];  /* the weights of these                        */
} amx_scratch;
_Static_assert(sizeof(amx_scratch) <= GDN_LINEAR_SCRATCH, "scratch");

/* Up to 16 rows of inputs as tiles: row_bytes from row to row, step_bytes from step to step. */
typedef struct {
    const char *at;
    int64_t row_bytes, step_bytes;
} inputs;

/* The sums of one tile of rows by 64 outputs over n steps, into c. */
static void tile_by_64(float *c, const char *w, inputs x, int64_t n, bool first) {
    const int64_t ld = GDN_PANEL * 4;
    if (first) {
        amx_zero(0);
        amx_zero(1);
        amx_zero(2);
        amx_zero(3);
    } else {
        amx_load(0, c, ld);
        amx_load(1, c + 16, ld);
        amx_load(2, c + 32, ld);
        amx_load(3, c + 48, ld);
    }
    for (; n > 0; n--, w += STEP_BYTES, x.at += x.step_bytes) {
        amx_load(4, x.at, x.row_bytes);
        amx_load(5, w, ld);
        amx_dot(0, 4, 5);
        amx_load(6, w + 64, ld);
        amx_dot(1, 4, 6);
        amx_load(7, w + 128, ld);
        amx_dot(2, 4, 7);
        amx_load(5, w + 192, ld);
        amx_dot(3, 4, 5);
    }
    amx_store(0, c, ld);
    amx_store(1, c + 16, ld);
    amx_store(2, c + 32, ld);
    amx_store(3, c + 48, ld);
}

/* Of two whole tiles of rows by 32 outputs. */
static void tiles_by_32(float *c, const char *w, inputs x, inputs y, int64_t n, bool first) {
    const int64_t ld = GDN_PANEL * 4;
    float *d = c + TILE * GDN_PANEL;
    if (first) {
        amx_zero(0);
        amx_zero(1);
        amx_zero(2);
        amx_zero(3);
    } else {
        amx_load(0, c, ld);
        amx_load(1, c + 16, ld);
        amx_load(2, d, ld);
        amx_load(3, d + 16, ld);
    }
    for (; n > 0; n--, w += STEP_BYTES, x.at += x.step_bytes, y.at += y.step_bytes) {
        amx_load(6, w, ld);
        amx_load(4, x.at, x.row_bytes);
        amx_dot(0, 4, 6);
        amx_load(7, w + 64, ld);
        amx_dot(1, 4, 7);
        amx_load(5, y.at, y.row_bytes);
        amx_dot(2, 5, 6);
        amx_dot(3, 5, 7);
    }
    amx_store(0, c, ld);
    amx_store(1, c + 16, ld);
    amx_store(2, d, ld);
    amx_store(3, d + 16, ld);
}

static const uint16_t *input_row(const gdn_linear_args *a, int32_t i) {
    return (const uint16_t *)a->x + (a->row != NULL ? a->row[i] : i) * a->x_stride;
}

/* Steps k0 / 32 .. k1 / 32 of n rows from m on; which: of the two tiles that rows are copied to. */
static inputs tile_inputs(const gdn_linear_args *a, amx_scratch *s, int which, int32_t m, int n,
                          int64_t k0, int64_t k1) {
    if (a->row == NULL)
        return (inputs){(const char *)(input_row(a, m) + k0), a->x_stride * 2, STEP * 2};
    for (int i = 0; i < n; i++) {
        const uint16_t *x = input_row(a, m + i) + k0;
        for (int64_t k = 0; k < (k1 - k0) / STEP; k++)
            memcpy(s->rows[which][k][i], x + k * STEP, STEP * 2);
    }
    return (inputs){(const char *)s->rows[which], STEP * 2, sizeof s->rows[0][0]};
}

/* What is left of k after whole steps; k odd: the panel has a zero there, the row nothing. */
static void last_step(const gdn_linear_args *a, amx_scratch *s, const char *panel, float *c,
                      int32_t m, int n) {
    const int64_t k = a->w->k / STEP * STEP, left = a->w->k - k;
    memset(s->last_rows, 0, sizeof s->last_rows);
    for (int i = 0; i < n; i++) memcpy(s->last_rows[i], input_row(a, m + i) + k, (size_t)left * 2);
    const size_t bytes = (size_t)(left + 1) / 2 * sizeof s->last_panel[0];
    memcpy(s->last_panel, panel + k * GDN_PANEL * 2, bytes);
    memset((char *)s->last_panel + bytes, 0, sizeof s->last_panel - bytes);
    const inputs x = {(const char *)s->last_rows, STEP * 2, 0};
    tile_by_64(c, (const char *)s->last_panel, x, 1, k == 0);
}

static void set_rows(int n) {
    const uint8_t r = (uint8_t)n;
    amx_begin((const uint8_t[8]){r, r, r, r, r, TILE, TILE, TILE});
}

/* Rows m0 <= i < m1 of one panel into s->c. */
static void panel_rows(const gdn_linear_args *a, amx_scratch *s, const char *panel, int32_t m0,
                       int32_t m1) {
    const int64_t whole = a->w->k / STEP * STEP;
    const int rest = (m1 - m0) % TILE; /* rows of the last tile, 0: it is whole */
    set_rows(m1 - m0 < TILE ? rest : TILE);
    for (int64_t k0 = 0; k0 < whole; k0 += K_BLOCK) {
        const int64_t k1 = k0 + K_BLOCK < whole ? k0 + K_BLOCK : whole, n = (k1 - k0) / STEP;
        const char *w = panel + k0 * GDN_PANEL * 2;
        int32_t m = m0;
        for (int half = 0; half < GDN_PANEL; half += 32)
            for (m = m0; m + 2 * TILE <= m1; m += 2 * TILE)
                tiles_by_32(s->c[m - m0] + half, w + half * 4, tile_inputs(a, s, 0, m, TILE, k0, k1),
                            tile_inputs(a, s, 1, m + TILE, TILE, k0, k1), n, k0 == 0);
        if (m + TILE <= m1) {
            tile_by_64(s->c[m - m0], w, tile_inputs(a, s, 0, m, TILE, k0, k1), n, k0 == 0);
            m += TILE;
        }
        if (rest == 0) continue;
        if (m > m0) set_rows(rest);
        tile_by_64(s->c[m - m0], w, tile_inputs(a, s, 0, m, rest, k0, k1), n, k0 == 0);
        if (m > m0) set_rows(TILE);
    }
    if (whole == a->w->k) return;
    for (int32_t m = m0; m < m1; m += TILE) {
        const int n = m1 - m < TILE ? rest : TILE;
        if (n < TILE && m > m0) set_rows(n);
        last_step(a, s, panel, s->c[m - m0], m, n);
    }
}

/* Results of rows m0.. of panel p to y; the last panel may be cut. */
static void panel_out(const gdn_linear_args *a, const amx_scratch *s, int32_t p, int32_t m0,
                      int32_t m1) {
    const int32_t left = a->w->n - p * GDN_PANEL, n = left < GDN_PANEL ? left : GDN_PANEL;
    for (int32_t i = m0; i < m1; i++) {
        const float *c = s->c[i - m0];
        float *y = a->y + (a->y_row != NULL ? a->y_row[i] : i) * a->y_stride +
                   (int64_t)p * GDN_PANEL;
        if (a->add)
            for (int32_t j = 0; j < n; j++) y[j] += c[j];
        else memcpy(y, c, (size_t)n * sizeof *y);
    }
}

INLINE void linear_amx_body(const gdn_linear_args *a) {
    const uint64_t bytes = gdn_panel_bytes(GDN_BF16, a->w->k);
    amx_scratch *s = a->scratch;
    for (int32_t p = a->p0; p < a->p1; p++) {
        const char *panel = (const char *)a->w->panel + (uint64_t)p * bytes;
        for (int32_t m = 0; m < a->m; m += ROW_BLOCK) {
            const int32_t end = m + ROW_BLOCK < a->m ? m + ROW_BLOCK : a->m;
            panel_rows(a, s, panel, m, end);
            panel_out(a, s, p, m, end);
        }
    }
    amx_end();
}
