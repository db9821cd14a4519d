/* linear.h - products with a weight matrix: y[m][n] = sum_k x[m][k] w[n][k].
 *
 * Weights are packed once into panels of 64 output rows, so that a vector lane is an output:
 *
 *     bf16        [N/64][K/2][64][2]      two neighbouring k beside each other, as vdpbf16ps reads
 *     f32 f16 fp8 [N/64][K][64]           fp8 with a scale for every output and stretch of k
 *
 * N is filled up to a multiple of 64 and an odd K of a bf16 panel to the next even number, with
 * zeros.  Every output is one chain of sums along k in ascending order whatever the number of
 * rows: a row's result never depends on what shares the call. */
#ifndef GDN_KERN_LINEAR_H
#define GDN_KERN_LINEAR_H

#include <stdbool.h>
#include <stdint.h>

#include <gdn/op.h>

enum { GDN_PANEL = 64 };

/* One packed matrix, or one slice of panels of it. */
typedef struct {
    const void  *panel;       /* first panel                                               */
    const float *scale;       /* fp8: [N/64][ceil(k / scale_cols)][64]                     */
    int32_t n, k;             /* outputs and inputs                                        */
    int32_t scale_cols;       /* inputs of one scale                                       */
    gdn_type type;            /* GDN_BF16, GDN_F16, GDN_F32 or GDN_F8                      */
} gdn_panels;

/* Rows x (m of them) times panels p0 <= p < p1.  With row != NULL input i is row[i] of x; with
 * y_row != NULL output i is row y_row[i] of y.  Strides in elements.  scratch: gdn_linear_scratch() bytes, 64-byte aligned, one a thread. */
typedef struct {
    float         *y;         /* [m] x y_stride, row of n       out, or += when add         */
    const void    *x;         /* [..] x x_stride, row of k      f32, or bf16 when x_bf16    */
    const int32_t *row, *y_row; /* [m] or NULL                                             */
    const gdn_panels *w;
    void    *scratch;
    int64_t  y_stride, x_stride;
    int32_t  m, p0, p1;
    bool     x_bf16;          /* only with bf16 weights, and where the machine has AVX512_BF16:
                                 other variants but the reference read f32               */
    bool     add;
} gdn_linear_args;
typedef void gdn_linear_fn(const gdn_linear_args *a);

/* 192 rows of 64 f32 results, and 40 KiB of what tiles copy together. */
enum { GDN_LINEAR_SCRATCH = 192 * GDN_PANEL * 4 + 40 * 1024 };
uint64_t gdn_linear_scratch(void);
/* Bytes of one packed panel of k inputs. */
uint64_t gdn_panel_bytes(gdn_type type, int32_t k);

/* Fill one panel from 64 rows of k elements each, of any alignment; NULL is a row of zeros. */
typedef void gdn_panel_pack_fn(void *panel, gdn_type type, int32_t k,
                               const void *const rows[GDN_PANEL]);
/* Element (n, k) back as f32, without the fp8 scale. */
float gdn_panel_get(const void *panels, gdn_type type, int32_t k, int32_t row, int32_t col);
/* Row n as f32 [k]: what an embedding look-up reads. */
void gdn_panel_row(const void *panels, gdn_type type, int32_t k, int32_t row, float *out);

gdn_panel_pack_fn gdn_panel_pack_ref, gdn_panel_pack_avx512;

gdn_linear_fn gdn_linear_ref, gdn_linear_avx2, gdn_linear_avx512, gdn_linear_avx512bf16,
    gdn_linear_amx;

#endif
