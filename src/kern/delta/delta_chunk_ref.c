/* delta_chunk_ref.c - the chunked delta rule by its definition, token after token in double.
 *
 * The recurrence that the chunk's formulas solve, so that nothing of them is assumed.  bf16
 * permits rounding and does not ask for it. */
#include "delta_chunk.h"

#include <math.h>
#include <stddef.h>

#include "../../base/half.h"
#include "delta_chunk_amx_work.h"
#include "delta_chunk_work.h"

static double element(const float *x, const uint16_t *bf16, int64_t i) {
    return (double)(bf16 != NULL ? gdn_bf16_to_f32(bf16[i]) : x[i]);
}

/* n numbers, and with a root what takes them to that norm. */
static double row_of(double *to, const float *x, const uint16_t *bf16, int64_t at, int n,
                     double root) {
    double s = 1e-6;
    for (int i = 0; i < n; i++) {
        to[i] = element(x, bf16, at + i);
        s += to[i] * to[i];
    }
    return root != 0 ? root / sqrt(s) : 1;
}

static void one_row(const gdn_delta_chunk_args *a, int64_t row) {
    double S[GDN_DELTA_CHUNK_DK], q[GDN_DELTA_CHUNK_DK], k[GDN_DELTA_CHUNK_DK];
    const double one = a->raw ? 1 : 0, root = a->raw ? 1 / sqrt((double)a->dk) : 0;
    for (int i = 0; i < a->dk; i++) S[i] = (double)a->S[row * a->dk + i];
    for (int64_t t = 0; t < a->n_tok; t++) {
        const double alpha = exp((double)a->g[t * a->gate_stride]);
        const double to_q = row_of(q, a->q, a->q_bf16, t * a->q_stride, a->dk, root);
        const double to_k = row_of(k, a->k, a->k_bf16, t * a->k_stride, a->dk, one);
        double m = 0, o = 0;
        for (int i = 0; i < a->dk; i++) {
            S[i] *= alpha;
            m += S[i] * to_k * k[i];
        }
        const double v = element(a->v, a->v_bf16, t * a->v_stride + row);
        const double d = (double)a->beta[t * a->gate_stride] * (v - m);
        for (int i = 0; i < a->dk; i++) {
            S[i] += d * to_k * k[i];
            o += S[i] * to_q * q[i];
        }
        const int64_t at = t * a->o_stride + row;
        if (a->o_bf16 != NULL) a->o_bf16[at] = gdn_f32_to_bf16((float)o);
        else a->o[at] = (float)o;
    }
    for (int i = 0; i < a->dk; i++) a->S[row * a->dk + i] = (float)S[i];
}

void gdn_delta_chunk_ref(const gdn_delta_chunk_args *a) {
    for (int64_t row = a->v0; row < a->v1; row++) one_row(a, row);
}

/* The same for any number of rows: they pass in panels. */
uint64_t gdn_delta_chunk_work(int32_t dk, int32_t rows) {
    chunk_work vectors;
    amx_work tiles;
    const int64_t n = chunk_layout(&vectors, NULL, dk), n_tiles = amx_layout(&tiles, NULL, dk);
    (void)rows;
    return (uint64_t)(n > n_tiles ? n : n_tiles) * sizeof(float);
}

/* Whole panels of the variant that fills most up, which are whole vectors of any other, and half as
 * much again for words of the state. */
uint64_t gdn_delta_chunk_held(int32_t dk, int32_t rows) {
    const uint64_t panels = (uint64_t)(rows + AMX_PANEL - 1) / AMX_PANEL;
    return panels * (uint64_t)amx_panel_words(dk) * sizeof(float) / 2 * 3;
}
