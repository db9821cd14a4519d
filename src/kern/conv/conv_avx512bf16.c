/* conv_avx512bf16.c - the causal convolution with the instruction that rounds to bf16. */
#include "conv.h"

#include "../vec/vec_avx512.h"

#include "conv_body.h"

void gdn_conv_avx512bf16(const gdn_conv_args *a) { conv_body(a); }
