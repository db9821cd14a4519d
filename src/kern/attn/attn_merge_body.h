/* attn_merge_body.h - merging blocks and the final division and gate, written over vf. */
#include <math.h>
#include <stddef.h>

#include "attn.h"

static void merge_row(float *O, const float *o, int32_t d, vf so, vf sn) {
    int32_t x = 0;
    for (; x + VF_N <= d; x += VF_N)
        vf_store(O + x, vf_fma(so, vf_load(O + x), vf_mul(sn, vf_load(o + x))));
    if (x < d) {
        const vf sum = vf_fma(so, vf_load_n(O + x, d - x), vf_mul(sn, vf_load_n(o + x, d - x)));
        vf_store_n(O + x, sum, d - x);
    }
}

static void merge_body(const gdn_attn_merge_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) {
        float *O = a->O + i * a->O_stride;
        const float *o = a->o + i * a->o_stride;
        if (a->l[i] == 0) continue; /* an empty block */
        if (a->M[i] == -INFINITY) { /* nothing so far; -inf - -inf would be NaN */
            a->M[i] = a->m[i];
            a->L[i] = a->l[i];
            for (int32_t x = 0; x < a->d; x++) O[x] = o[x];
            continue;
        }
        const float max = a->m[i] > a->M[i] ? a->m[i] : a->M[i];
        const vf so = vf_exp(vf_set1(a->M[i] - max)), sn = vf_exp(vf_set1(a->m[i] - max));
        const vf L = vf_fma(so, vf_set1(a->L[i]), vf_mul(sn, vf_set1(a->l[i])));
        vf_store_n(&a->L[i], L, 1);
        merge_row(O, o, a->d, so, sn);
        a->M[i] = max;
    }
}

static void finish_vector(const gdn_attn_finish_args *a, int32_t i, int32_t x, int n) {
    const float *O = a->O + i * a->O_stride + x;
    vf y = vf_zero();
    if (a->L[i] != 0) {
        y = vf_div(n == VF_N ? vf_load(O) : vf_load_n(O, n), vf_set1(a->L[i]));
        if (a->gate != NULL) {
            const float *gate = a->gate[i] + x;
            y = vf_mul(y, vf_sigmoid(n == VF_N ? vf_load(gate) : vf_load_n(gate, n)));
        }
    }
    if (a->y_bf16) {
        uint16_t *out = (uint16_t *)a->y[i] + x;
        if (n == VF_N) vf_store_bf16(out, y);
        else vf_store_bf16_n(out, y, n);
    } else {
        float *out = (float *)a->y[i] + x;
        if (n == VF_N) vf_store(out, y);
        else vf_store_n(out, y, n);
    }
}

static void finish_body(const gdn_attn_finish_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) {
        int32_t x = 0;
        for (; x + VF_N <= a->d; x += VF_N) finish_vector(a, i, x, VF_N);
        if (x < a->d) finish_vector(a, i, x, a->d - x);
    }
}
