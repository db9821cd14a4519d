/* blocks.h - the size of a cache page: pure arithmetic, no memory.
 *
 * A page holds the keys and values of `block_size` tokens of one layer, or one recurrent state
 * [conv | ssm | padding].  Both kinds share one pool, so the block must be long enough for its
 * page to hold a state, and a multiple of what the device's kernels take:
 *
 *     al = lcm(kv_multiple, gdn_multiple)        block_size = al ceil(m / (al a1))
 *
 * with a1 the bytes a token needs and m the bytes of a state.  The state's padding is always set,
 * also when it is zero.  The rule is that of hybrid models in vLLM, taken once. */
#ifndef GDN_ENGINE_BLOCKS_H
#define GDN_ENGINE_BLOCKS_H

#include "../base/err.h"

#include <stdint.h>

typedef struct {
    int32_t  hkv, head_dim; /* of this shard; hkv 0: no layer with keys and values           */
    int32_t  kv_bytes;      /* bytes of a key or value element                               */
    int32_t  hk, hv, dk, dv, conv_width; /* GDN layers of this shard; hv 0: there are none   */
    int32_t  conv_bytes, state_bytes;    /* bytes of an element of either state              */
    int32_t  n_draft;       /* drafts a step may verify: rows added to the convolution state */
    int32_t  kv_multiple, gdn_multiple;  /* what the device asks for                         */
    int32_t  block_size;    /* asked for; 0: the rule decides                                */
} gdn_block_want;

typedef struct {
    int32_t  block_size;      /* tokens                                    */
    uint64_t page_bytes;
    uint64_t token_bytes;     /* of a layer: a1                            */
    uint64_t conv_bytes, state_bytes; /* parts of a state's page           */
    uint64_t padding_bytes;   /* page less state                           */
} gdn_block_plan;

/* GDN_E_INVALID: an explicit block size that does not work; err names the smallest that does. */
gdn_status gdn_plan_blocks(const gdn_block_want *w, gdn_block_plan *out, gdn_err *err);

#endif
