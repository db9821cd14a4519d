/* kern.c - filling the kernel table for an instruction set. */
#include "kern.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux saves tiles only for a process that asked for them, and may refuse. */
static bool has_amx(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, BF16 = 1 << 22, TILE = 1 << 24 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    return (d & BF16) && (d & TILE) &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#else
static bool has_amx(void) { return false; }
#endif

unsigned gdn_isa_detect(void) {
    unsigned isa = GDN_ISA_REF;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isa |= GDN_ISA_AVX2;
    if ((isa & GDN_ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        isa |= GDN_ISA_AVX512;
    if ((isa & GDN_ISA_AVX512) && __builtin_cpu_supports("avx512bf16"))
        isa |= GDN_ISA_AVX512BF16;
    if ((isa & GDN_ISA_AVX512BF16) && has_amx()) isa |= GDN_ISA_AMX;
#endif
    return isa;
}

/* Intel's cores take two cycles for 32 products of pairs of bf16, in which they make 64 of f32: where
 * their tiles are hidden, as in some virtual machines, f32 is twice as fast. */
unsigned gdn_isa_fast(void) {
    unsigned isa = gdn_isa_detect();
#if defined(__x86_64__)
    if (!(isa & GDN_ISA_AMX) && __builtin_cpu_is("intel")) isa &= ~(unsigned)GDN_ISA_AVX512BF16;
#endif
    return isa;
}

static void reference(gdn_kern *k) {
    *k = (gdn_kern){
        .delta = gdn_delta_ref,
        .delta_prep = gdn_delta_prep_ref,
        .delta_chunk = gdn_delta_chunk_ref,
        .conv = gdn_conv_ref,
        .widen = {gdn_widen_bf16_ref, gdn_widen_f16_ref},
        .narrow = {gdn_narrow_bf16_ref, gdn_narrow_f16_ref},
        .round = {gdn_round_bf16_ref, gdn_round_f16_ref},
        .norm = gdn_norm_ref,
        .norm_gated = gdn_norm_gated_ref,
        .rope = gdn_rope_ref,
        .swiglu = gdn_swiglu_ref,
        .attn_block = gdn_attn_block_ref,
        .attn_merge = gdn_attn_merge_ref,
        .attn_finish = gdn_attn_finish_ref,
        .moe_route = gdn_moe_route_ref,
        .moe_combine = gdn_moe_combine_ref,
        .range = gdn_range_ref,
        .argmax = gdn_argmax_ref,
        .logsumexp = gdn_logsumexp_ref,
        .top_k = gdn_top_k_ref,
        .linear = gdn_linear_ref,
        .lora = gdn_lora_ref,
        .panel_pack = gdn_panel_pack_ref,
    };
}

#if defined(__x86_64__)
static void avx2(gdn_kern *k) {
    k->delta = gdn_delta_avx2;
    k->delta_prep = gdn_delta_prep_avx2;
    k->delta_chunk = gdn_delta_chunk_avx2;
    k->conv = gdn_conv_avx2;
    k->widen[GDN_HALF_BF16] = gdn_widen_bf16_avx2;
    k->widen[GDN_HALF_F16] = gdn_widen_f16_avx2;
    k->narrow[GDN_HALF_BF16] = gdn_narrow_bf16_avx2;
    k->narrow[GDN_HALF_F16] = gdn_narrow_f16_avx2;
    k->round[GDN_HALF_BF16] = gdn_round_bf16_avx2;
    k->round[GDN_HALF_F16] = gdn_round_f16_avx2;
    k->norm = gdn_norm_avx2;
    k->norm_gated = gdn_norm_gated_avx2;
    k->rope = gdn_rope_avx2;
    k->swiglu = gdn_swiglu_avx2;
    k->attn_block = gdn_attn_block_avx2;
    k->attn_merge = gdn_attn_merge_avx2;
    k->attn_finish = gdn_attn_finish_avx2;
    k->moe_route = gdn_moe_route_avx2;
    k->moe_combine = gdn_moe_combine_avx2;
    k->range = gdn_range_avx2;
    k->argmax = gdn_argmax_avx2;
    k->logsumexp = gdn_logsumexp_avx2;
    k->top_k = gdn_top_k_avx2;
    k->linear = gdn_linear_avx2;
    k->lora = gdn_lora_avx2;
}

static void avx512(gdn_kern *k) {
    k->delta = gdn_delta_avx512;
    k->delta_prep = gdn_delta_prep_avx512;
    k->delta_chunk = gdn_delta_chunk_avx512;
    k->delta_chunk_past = true;
    k->conv = gdn_conv_avx512;
    k->widen[GDN_HALF_BF16] = gdn_widen_bf16_avx512;
    k->widen[GDN_HALF_F16] = gdn_widen_f16_avx512;
    k->narrow[GDN_HALF_BF16] = gdn_narrow_bf16_avx512;
    k->narrow[GDN_HALF_F16] = gdn_narrow_f16_avx512;
    k->round[GDN_HALF_BF16] = gdn_round_bf16_avx512;
    k->round[GDN_HALF_F16] = gdn_round_f16_avx512;
    k->norm = gdn_norm_avx512;
    k->norm_gated = gdn_norm_gated_avx512;
    k->rope = gdn_rope_avx512;
    k->swiglu = gdn_swiglu_avx512;
    k->attn_block = gdn_attn_block_avx512;
    k->attn_merge = gdn_attn_merge_avx512;
    k->attn_finish = gdn_attn_finish_avx512;
    k->moe_route = gdn_moe_route_avx512;
    k->moe_combine = gdn_moe_combine_avx512;
    k->range = gdn_range_avx512;
    k->argmax = gdn_argmax_avx512;
    k->logsumexp = gdn_logsumexp_avx512;
    k->top_k = gdn_top_k_avx512;
    k->linear = gdn_linear_avx512;
    k->lora = gdn_lora_avx512;
    k->panel_pack = gdn_panel_pack_avx512;
}
#endif

void gdn_kern_select(gdn_kern *k, unsigned isa_mask) {
    const unsigned isa = gdn_isa_detect() & isa_mask;
    reference(k);
#if defined(__x86_64__)
    if (isa & GDN_ISA_AVX2) avx2(k);
    if (isa & GDN_ISA_AVX512) avx512(k);
    if (isa & GDN_ISA_AVX512BF16) {
        k->attn_block = gdn_attn_block_avx512bf16;
        k->conv = gdn_conv_avx512bf16;
        k->delta_chunk = gdn_delta_chunk_avx512bf16;
        k->linear = gdn_linear_avx512bf16;
    }
    if (isa & GDN_ISA_AMX) {
        k->delta_chunk = gdn_delta_chunk_amx;
        k->linear = gdn_linear_amx;
    }
#endif
    k->isa = isa;
}
