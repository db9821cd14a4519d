/* conv_avx512.c - convolution, sixteen channels at a time. */
#include "conv.h"

#include "../vec/vec_avx512.h"

#include "conv_body.h"

void gdn_conv_avx512(const gdn_conv_args *a) {
    conv_body(a);
}
