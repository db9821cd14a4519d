/* linear_ref.c - the definition, and the packing that all variants read. */
#include "linear.h"

#include <string.h>

#include "../../base/half.h"

uint64_t gdn_linear_scratch(void) { return GDN_LINEAR_SCRATCH; }

static int element_bytes(gdn_type type) {
    return type == GDN_F32 ? 4 : type == GDN_F8 ? 1 : 2;
}

uint64_t gdn_panel_bytes(gdn_type type, int32_t k) {
    const uint64_t cols = type == GDN_BF16 ? ((uint64_t)k + 1) / 2 * 2 : (uint64_t)k;
    return cols * GDN_PANEL * (uint64_t)element_bytes(type);
}

/* Where element (row, col) lies, in elements from the first panel. */
static uint64_t place(gdn_type type, int32_t k, int32_t row, int32_t col) {
    const uint64_t in = (uint64_t)(row % GDN_PANEL), c = (uint64_t)col;
    const uint64_t panel = (uint64_t)(row / GDN_PANEL) *
                           (gdn_panel_bytes(type, k) / (uint64_t)element_bytes(type));
    if (type == GDN_BF16) return panel + c / 2 * (2 * GDN_PANEL) + in * 2 + c % 2;
    return panel + c * GDN_PANEL + in;
}

/* A transposition in blocks that fit L1: cells of `cell` bytes, n_cell in a row, 64 rows. */
enum { BLOCK_CELLS = 32 }; /* of 4 bytes: two lines of each row, fetched a block ahead */

#define TRANSPOSE(cell_type)                                                                 \
    for (int64_t c0 = 0; c0 < n_cell; c0 += BLOCK_CELLS) {                                   \
        const int64_t c1 = c0 + BLOCK_CELLS < n_cell ? c0 + BLOCK_CELLS : n_cell;            \
        for (int r = 0; r < GDN_PANEL; r++) {                                                \
            cell_type *to = (cell_type *)panel + r;                                          \
            const char *from = rows[r]; /* of any alignment */                               \
            if (from != NULL && c1 < n_cell) {                                               \
                __builtin_prefetch(from + c1 * (int64_t)sizeof *to);                         \
                __builtin_prefetch(from + c1 * (int64_t)sizeof *to + 64);                    \
            }                                                                                \
            for (int64_t c = c0; c < c1; c++) {                                              \
                cell_type v = 0;                                                             \
                if (from != NULL) memcpy(&v, from + c * (int64_t)sizeof v, sizeof v);        \
                to[c * GDN_PANEL] = v;                                                       \
            }                                                                                \
        }                                                                                    \
    }

void gdn_panel_pack_ref(void *panel, gdn_type type, int32_t k,
                        const void *const rows[GDN_PANEL]) {
    const int64_t n_cell = type == GDN_BF16 ? k / 2 : k;
    if (type == GDN_F32 || type == GDN_BF16) {
        TRANSPOSE(uint32_t)
    } else if (type == GDN_F16) {
        TRANSPOSE(uint16_t)
    } else {
        TRANSPOSE(uint8_t)
    }
    if (type == GDN_BF16 && k % 2 != 0)
        for (int r = 0; r < GDN_PANEL; r++) {
            uint16_t *to = (uint16_t *)panel + (n_cell * GDN_PANEL + r) * 2;
            to[0] = rows[r] != NULL ? ((const uint16_t *)rows[r])[k - 1] : 0;
            to[1] = 0;
        }
}

float gdn_panel_get(const void *panels, gdn_type type, int32_t k, int32_t row, int32_t col) {
    const uint64_t at = place(type, k, row, col);
    switch (type) {
    case GDN_F32: return ((const float *)panels)[at];
    case GDN_BF16: return gdn_bf16_to_f32(((const uint16_t *)panels)[at]);
    case GDN_F16: return gdn_f16_to_f32(((const uint16_t *)panels)[at]);
    default: return gdn_fp8_to_f32(((const uint8_t *)panels)[at]);
    }
}

void gdn_panel_row(const void *panels, gdn_type type, int32_t k, int32_t row, float *out) {
    if (type == GDN_BF16) {
        const uint16_t *p = (const uint16_t *)panels + place(type, k, row, 0);
        for (int32_t c = 0; c < k; c++)
            out[c] = gdn_bf16_to_f32(p[(int64_t)(c / 2) * (2 * GDN_PANEL) + c % 2]);
        return;
    }
    for (int32_t c = 0; c < k; c++) out[c] = gdn_panel_get(panels, type, k, row, c);
}

void gdn_linear_ref(const gdn_linear_args *a) {
    const gdn_panels *w = a->w;
    const int64_t scales = w->type == GDN_F8 ? (w->k + w->scale_cols - 1) / w->scale_cols : 0;
    for (int32_t i = 0; i < a->m; i++) {
        const int64_t at = (a->row != NULL ? a->row[i] : i) * a->x_stride;
        for (int32_t n = a->p0 * GDN_PANEL; n < a->p1 * GDN_PANEL && n < w->n; n++) {
            double sum = 0.0;
            for (int32_t k = 0; k < w->k; k++) {
                double v = gdn_panel_get(w->panel, w->type, w->k, n, k);
                if (w->type == GDN_F8)
                    v *= w->scale[(n / GDN_PANEL * scales + k / w->scale_cols) * GDN_PANEL +
                                  n % GDN_PANEL];
                sum += v * (a->x_bf16 ? gdn_bf16_to_f32(((const uint16_t *)a->x)[at + k])
                                      : ((const float *)a->x)[at + k]);
            }
            float *y = a->y + (a->y_row != NULL ? a->y_row[i] : i) * a->y_stride + n;
            *y = a->add ? *y + (float)sum : (float)sum;
        }
    }
}
