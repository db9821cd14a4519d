/* lora_ref.c - the products of a low-rank adapter: the definition, in double. */
#include "lora.h"

#include "../../base/half.h"

static double input(const gdn_lora_args *a, int32_t row, int32_t k) {
    const int64_t at = a->x_row[row] * a->x_stride + k;
    return (double)(a->x_bf16 ? gdn_bf16_to_f32(((const uint16_t *)a->x)[at])
                              : ((const float *)a->x)[at]);
}

void gdn_lora_ref(const gdn_lora_args *a) {
    for (int32_t i = 0; i < a->n_row; i++)
        for (int32_t j = 0; j < a->n; j++) {
            float *y = a->y + a->y_row[i] * a->y_stride + j;
            double sum = 0;
            for (int32_t k = 0; k < a->k; k++)
                sum += input(a, i, k) * (double)a->m[(int64_t)j * a->k + k];
            *y = (float)(a->add ? (double)*y + (double)a->scale * sum : sum);
        }
}
