/* conv_ref.c - the causal depthwise convolution as an equation. */
#include "conv.h"

#include <math.h>

#include "../../base/half.h"

/* Input of channel c at time t; negative times lie in the state, -1 is its newest row. */
static float input(const gdn_conv_args *a, int64_t t, int64_t c) {
    if (t >= 0) {
        const int64_t at = t * a->x_stride + c;
        const float x = a->x_bf16 != NULL ? gdn_bf16_to_f32(a->x_bf16[at]) : a->x[at];
        return a->state_bf16 ? gdn_bf16_to_f32(gdn_f32_to_bf16(x)) : x;
    }
    if (!a->has_state) return 0;
    const int64_t at = (a->W - 1 + t) * a->state_stride + c;
    if (a->state_bf16) return gdn_bf16_to_f32(((const uint16_t *)a->state)[at]);
    return ((const float *)a->state)[at];
}

void gdn_conv_ref(const gdn_conv_args *a) {
    for (int64_t c = a->c0; c < a->c1; c++) {
        for (int64_t t = 0; t < a->n_tok; t++) {
            double s = a->bias != NULL ? (double)a->bias[c] : 0;
            for (int j = 0; j < a->W; j++)
                s += (double)a->w[(int64_t)j * a->C + c] *
                     (double)input(a, t - a->W + 1 + j, c);
            const float y = (float)(s / (1 + exp(-s)));
            const int64_t at = t * a->y_stride + c;
            if (a->y_in_bf16 != NULL) a->y_in_bf16[at] = gdn_f32_to_bf16(y);
            else a->y[at] = a->y_bf16 ? gdn_bf16_to_f32(gdn_f32_to_bf16(y)) : y;
        }
        /* Oldest first: row j is read before a later row overwrites what it holds. */
        for (int64_t j = 0; j < a->W - 1; j++) {
            const float u = input(a, a->n_tok - (a->W - 1) + j, c);
            const int64_t at = j * a->state_stride + c;
            if (a->state_bf16)
                ((uint16_t *)a->state)[at] = gdn_f32_to_bf16(u);
            else
                ((float *)a->state)[at] = u;
        }
    }
}
