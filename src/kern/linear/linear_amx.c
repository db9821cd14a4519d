/* linear_amx.c - bf16 inputs and bf16 weights through tiles. */
#include "../vec/amx.h"

#include "linear_amx_body.h"

void gdn_linear_amx(const gdn_linear_args *a) {
    if (a->x_bf16) linear_amx_body(a);
    else gdn_linear_avx512(a);
}
