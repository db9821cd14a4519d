/* cpu_lora.h - what the experts' operator asks of the adapters. */
#ifndef GDN_BACKEND_CPU_LORA_H
#define GDN_BACKEND_CPU_LORA_H

#include "cpu.h"

/* Adds the adapters' part to work_gu, or with down to y.  pair, row: pairs of a row and a rank in
 * the experts' order, and their rows. */
void cpu_expert_lora(cpu_device *d, const gdn_moe_experts_args *a, const int32_t *pair,
                     const int32_t *row, bool down);

#endif
