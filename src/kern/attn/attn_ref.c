/* attn_ref.c - softmax attention over a block, the merge and the finish: the definition, in
 * double. */
#include "attn.h"

#include <math.h>
#include <stddef.h>

#include "../../base/half.h"

static double at(const void *p, int64_t i, bool bf16) {
    return bf16 ? (double)gdn_bf16_to_f32(((const uint16_t *)p)[i])
                : (double)((const float *)p)[i];
}

static double score(const gdn_attn_block_args *a, int32_t i, int32_t j) {
    const int64_t row = (int64_t)(j % GDN_ATTN_TILE) * a->k_stride;
    double s = 0;
    for (int32_t x = 0; x < a->d; x++)
        s += at(a->q[i], x, a->bf16) * at(a->k[j / GDN_ATTN_TILE], row + x, a->bf16);
    return s * (double)a->scale;
}

static void query(const gdn_attn_block_args *a, int32_t i) {
    const int32_t n = a->n_valid[i];
    double s[GDN_ATTN_BLOCK], max = -INFINITY, sum = 0;
    for (int32_t j = 0; j < n; j++) {
        s[j] = score(a, i, j);
        max = s[j] > max ? s[j] : max;
    }
    /* The block is expressed relative to the m that is handed out, so round that first. */
    a->m[i] = (float)max;
    for (int32_t j = 0; j < n; j++) {
        s[j] = exp(s[j] - (double)a->m[i]);
        sum += s[j];
    }
    a->l[i] = (float)sum;
    for (int32_t x = 0; x < a->d; x++) {
        double o = 0;
        for (int32_t j = 0; j < n; j++) {
            const int64_t row = (int64_t)(j % GDN_ATTN_TILE) * a->v_stride;
            o += s[j] * at(a->v[j / GDN_ATTN_TILE], row + x, a->bf16);
        }
        a->o[i * a->o_stride + x] = (float)o;
    }
}

void gdn_attn_block_ref(const gdn_attn_block_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) query(a, i);
}

void gdn_attn_merge_ref(const gdn_attn_merge_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) {
        float *O = a->O + i * a->O_stride;
        const float *o = a->o + i * a->o_stride;
        if (a->l[i] == 0) continue; /* an empty block */
        const float max = a->m[i] > a->M[i] ? a->m[i] : a->M[i];
        const bool first = a->M[i] == -INFINITY; /* -inf - -inf would be NaN */
        const double so = exp((double)a->M[i] - (double)max);
        const double sn = exp((double)a->m[i] - (double)max);
        a->L[i] = first ? a->l[i] : (float)(so * (double)a->L[i] + sn * (double)a->l[i]);
        for (int32_t x = 0; x < a->d; x++)
            O[x] = first ? o[x] : (float)(so * (double)O[x] + sn * (double)o[x]);
        a->M[i] = first ? a->m[i] : max;
    }
}

void gdn_attn_finish_ref(const gdn_attn_finish_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) {
        const float *O = a->O + i * a->O_stride;
        for (int32_t x = 0; x < a->d; x++) {
            double y = 0;
            if (a->L[i] != 0) {
                y = (double)O[x] / (double)a->L[i];
                if (a->gate != NULL) y /= 1 + exp(-(double)a->gate[i][x]);
            }
            if (a->y_bf16) ((uint16_t *)a->y[i])[x] = gdn_f32_to_bf16((float)y);
            else ((float *)a->y[i])[x] = (float)y;
        }
    }
}
