/* conv_avx2.c - convolution, eight channels at a time. */
#include "conv.h"

#include "../vec/vec_avx2.h"

#include "conv_body.h"

void gdn_conv_avx2(const gdn_conv_args *a) {
    conv_body(a);
}
