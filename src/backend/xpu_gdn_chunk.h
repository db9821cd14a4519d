/* xpu_gdn_chunk.h - the delta rule in chunks on the xpu. */
#ifndef GDN_BACKEND_XPU_GDN_CHUNK_H
#define GDN_BACKEND_XPU_GDN_CHUNK_H

#include "xpu.h"

/* A plain group of sequences, and the delta rule's own of gdn_delta_rule_args. */
typedef struct {
    const gdn_tensor *loc, *indx, *slot, *initial;
    const gdn_tensor *q, *k, *v, *b, *a; /* tokens in the group's own order */
    const gdn_tensor *core, *A_log, *dt_bias, *ssm_state;
    int64_t n_token, n_row; /* at most; rows that they may lie in */
    int64_t slots;
    int32_t null_slot;
} xpu_gdn_chunk_args;

gdn_status xpu_gdn_chunk(gdn_queue *q, const xpu_gdn_chunk_args *a, gdn_err *err);

#endif
