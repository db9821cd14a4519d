/* kern.h - the CPU kernel table.
 *
 * gdn_kern_select() starts every slot at its reference and lets each instruction set the
 * machine has overwrite the slots it improves, weakest first.  The same function with a smaller
 * mask is how the check program reaches the weaker variants, so a kernel put in the table is
 * under test from that moment. */
#ifndef GDN_KERN_H
#define GDN_KERN_H

#include "act/act.h"
#include "attn/attn.h"
#include "cast/cast.h"
#include "conv/conv.h"
#include "delta/delta.h"
#include "delta/delta_chunk.h"
#include "linear/linear.h"
#include "lora/lora.h"
#include "moe/moe.h"
#include "norm/norm.h"
#include "norm/norm_gated.h"
#include "rope/rope.h"
#include "sample/sample.h"

enum {
    GDN_ISA_REF        = 0,
    GDN_ISA_AVX2       = 1u << 0, /* with FMA and F16C */
    GDN_ISA_AVX512     = 1u << 1, /* F, BW, DQ, VL     */
    GDN_ISA_AVX512BF16 = 1u << 2,
    GDN_ISA_AMX        = 1u << 3, /* TILE, BF16        */
    GDN_ISA_ALL        = 0x7fffffff,
};

typedef struct {
    unsigned isa; /* what the table was made for */

    gdn_delta_fn       *delta;
    gdn_delta_prep_fn  *delta_prep;
    gdn_delta_chunk_fn *delta_chunk;
    bool                delta_chunk_past; /* writes whole lines, so that past pays        */
    gdn_conv_fn        *conv;
    gdn_widen_fn       *widen[GDN_HALF_TYPES];
    gdn_narrow_fn      *narrow[GDN_HALF_TYPES];
    gdn_round_fn       *round[GDN_HALF_TYPES];
    gdn_norm_fn        *norm;
    gdn_norm_gated_fn  *norm_gated;
    gdn_rope_fn        *rope;
    gdn_swiglu_fn      *swiglu;
    gdn_attn_block_fn  *attn_block;
    gdn_attn_merge_fn  *attn_merge;
    gdn_attn_finish_fn *attn_finish;
    gdn_moe_route_fn   *moe_route;
    gdn_moe_combine_fn *moe_combine;
    gdn_range_fn       *range;
    gdn_argmax_fn      *argmax;
    gdn_logsumexp_fn   *logsumexp;
    gdn_top_k_fn       *top_k;
    gdn_linear_fn      *linear;
    gdn_lora_fn        *lora;
    gdn_panel_pack_fn  *panel_pack;
} gdn_kern;

unsigned gdn_isa_detect(void);
/* The same without what makes this machine slower. */
unsigned gdn_isa_fast(void);
/* isa_mask & what the machine has. */
void gdn_kern_select(gdn_kern *k, unsigned isa_mask);

#endif
