/* stub.c - operators that are declared and not there yet. */
#include "check.h"
#include "cpu.h"

#define STUB(name, args)                                                                  \
    gdn_status cpu_op_##name(gdn_queue *q, const args *a, gdn_err *err) {                 \
        (void)q, (void)a;                                                                 \
        return gdn_fail(err, GDN_E_UNSUPPORTED, #name);                                   \
    }
#define STUB_OP(name, args)                                                               \
    gdn_status name(gdn_queue *q, const args *a, gdn_err *err) {                          \
        (void)q, (void)a;                                                                 \
        return gdn_fail(err, GDN_E_UNSUPPORTED, #name);                                   \
    }
STUB(causal_conv1d, gdn_causal_conv1d_args)
STUB_OP(gdn_causal_conv1d, gdn_causal_conv1d_args)
STUB(delta_rule, gdn_delta_rule_args)
STUB_OP(gdn_delta_rule, gdn_delta_rule_args)
STUB(rms_norm_gated, gdn_rms_norm_gated_args)
STUB_OP(gdn_rms_norm_gated, gdn_rms_norm_gated_args)
STUB_OP(gdn_attention_layer, gdn_attention_layer_args)
uint64_t gdn_attention_layer_work_bytes(const gdn_attention_layer_args *a, int64_t n_row) { return (void)a, (uint64_t)n_row; }
STUB(lora, gdn_lora_op_args)
STUB_OP(gdn_op_lora, gdn_lora_op_args)
