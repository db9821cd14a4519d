/* delta_ref.c - the gated delta rule and its preparation as equations.
 *
 * Sums run in double.  The state is rounded to f32 after every token, because that is
 * where a call may end. */
#include "delta.h"

#include <math.h>
#include <stddef.h>

static void one_row(const gdn_delta_args *a, int64_t j) {
    float *S = a->S + j * a->dk;
    for (int64_t t = 0; t < a->n_tok; t++) {
        const float *q = a->q + t * a->q_stride, *k = a->k + t * a->k_stride;
        const double alpha = (double)a->alpha[t * a->gate_stride];
        const double beta = (double)a->beta[t * a->gate_stride];
        double m = 0, o = 0;
        for (int i = 0; i < a->dk; i++) m += (double)S[i] * (double)k[i];
        const double d = beta * ((double)a->v[t * a->v_stride + j] - alpha * m);
        for (int i = 0; i < a->dk; i++) {
            S[i] = (float)(alpha * (double)S[i] + d * (double)k[i]);
            o += (double)S[i] * (double)q[i];
        }
        a->o[t * a->o_stride + j] = (float)o;
    }
}

void gdn_delta_ref(const gdn_delta_args *a) {
    for (int64_t j = a->v0; j < a->v1; j++) one_row(a, j);
}

static void normalise(float *x, int32_t dk, double scale) {
    double sum = 0;
    for (int i = 0; i < dk; i++) sum += (double)x[i] * (double)x[i];
    const double f = scale / sqrt(sum + 1e-6);
    for (int i = 0; i < dk; i++) x[i] = (float)((double)x[i] * f);
}

static double softplus(double x) {
    return x >= 20 ? x : log1p(exp(x));
}

void gdn_delta_prep_ref(const gdn_delta_prep_args *a) {
    for (int64_t t = 0; t < a->n_tok; t++) {
        for (int64_t h = 0; h < a->hk; h++) {
            normalise(a->q + t * a->qk_stride + h * a->dk, a->dk,
                      1 / sqrt((double)a->dk));
            normalise(a->k + t * a->qk_stride + h * a->dk, a->dk, 1);
        }
        for (int64_t h = 0; h < a->hv; h++) {
            const double b = (double)a->b[t * a->ba_stride + h];
            const double x = (double)a->a[t * a->ba_stride + h] + (double)a->dt_bias[h];
            const double g = -exp((double)a->A_log[h]) * softplus(x);
            a->beta[t * a->gate_stride + h] = (float)(1 / (1 + exp(-b)));
            a->alpha[t * a->gate_stride + h] = (float)exp(g);
            if (a->g != NULL) a->g[t * a->gate_stride + h] = (float)g;
        }
    }
}
