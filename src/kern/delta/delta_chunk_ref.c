/* delta_chunk_ref.c - the chunked delta rule by its definition, token after token in double.
 *
 * The recurrence that the chunk's formulas solve, so that nothing of them is assumed.  bf16
 * permits rounding and does not ask for it. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>

#include "delta_chunk_amx_work.h"
#include "delta_chunk_pairs_work.h"
#include "delta_chunk_work.h"

/* What takes a row to the norm root. */
static double scale(const float *x, int n, double root) {
    double s = 1e-6;
    for (int i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
    return root / sqrt(s);
}

static void one_row(const gdn_delta_chunk_args *a, int64_t row) {
    double S[GDN_DELTA_CHUNK_DK];
    for (int i = 0; i < a->dk; i++) S[i] = (double)a->S[row * a->dk + i];
    for (int64_t t = 0; t < a->n_tok; t++) {
        const float *q = a->q + t * a->q_stride, *k = a->k + t * a->k_stride;
        const double alpha = exp((double)a->g[t * a->gate_stride]);
        const double to_k = a->raw ? scale(k, a->dk, 1) : 1;
        const double to_q = a->raw ? scale(q, a->dk, 1 / sqrt((double)a->dk)) : 1;
        double m = 0, o = 0;
        for (int i = 0; i < a->dk; i++) {
            S[i] *= alpha;
            m += S[i] * to_k * (double)k[i];
        }
        const double v = (double)a->v[t * a->v_stride + row];
        const double d = (double)a->beta[t * a->gate_stride] * (v - m);
        for (int i = 0; i < a->dk; i++) {
            S[i] += d * to_k * (double)k[i];
            o += S[i] * to_q * (double)q[i];
        }
        a->o[t * a->o_stride + row] = (float)o;
    }
    for (int i = 0; i < a->dk; i++) a->S[row * a->dk + i] = (float)S[i];
}

void gdn_delta_chunk_ref(const gdn_delta_chunk_args *a) {
    for (int64_t row = a->v0; row < a->v1; row++) one_row(a, row);
}

/* The same for any number of rows: they pass in groups, and in panels. */
uint64_t gdn_delta_chunk_work(int32_t dk, int32_t rows) {
    chunk_work f32;
    pairs_work bf16;
    amx_work tiles;
    const int64_t need[] = {chunk_layout(&f32, NULL, dk), pairs_layout(&bf16, NULL, dk),
                            amx_layout(&tiles, NULL, dk)};
    int64_t n = 0;
    (void)rows;
    for (unsigned i = 0; i < sizeof need / sizeof *need; i++)
        if (need[i] > n) n = need[i];
    return (uint64_t)n * sizeof(float);
}

/* Whole panels of the variant that fills most up, which are whole vectors of any other. */
uint64_t gdn_delta_chunk_held(int32_t dk, int32_t rows) {
    return (uint64_t)(rows + AMX_PANEL - 1) / AMX_PANEL * (uint64_t)amx_panel_words(dk) * sizeof(float);
}
