/* blocks.h - the size of a cache page: pure arithmetic, no memory.
 *
 * A page holds the keys and values of `block_size` tokens of one layer, or one recurrent state
 * [conv | ssm | padding].  Both kinds share one pool, so the block must be long enough for its
 * page to hold a state, and a multiple of what the device's kernels take:
 *
 *     al = lcm(kv_multiple, gdn_multiple)        block_size = al ceil(m / (al a1))
 *
 * with a1 the bytes a token needs and m the bytes of a state.  The state's padding is always set,
 * also when it is zero.  Saving states at the end of every block (mode all) makes al a multiple
 * of `base` as well.  The rule is that of hybrid models in vLLM, taken once.
 *
 * Without GDN layers a block is kv_multiple tokens and the mode has no meaning; without attention
 * a page is a state. */
#ifndef GDN_ENGINE_BLOCKS_H
#define GDN_ENGINE_BLOCKS_H

#include "../base/err.h"

#include <stdint.h>

enum { GDN_MAX_BLOCK_SIZE = 1 << 24 };

/* Where a sequence's states are kept. */
typedef enum {
    GDN_BLOCKS_NONE,  /* the last one alone                                                 */
    GDN_BLOCKS_ALIGN, /* also at ends of blocks that a prefill reached                      */
    GDN_BLOCKS_ALL,   /* also at the end of every block                                     */
} gdn_block_mode;

typedef struct {
    int32_t  hkv, head_dim; /* of this shard; hkv 0: no layer with keys and values           */
    int32_t  kv_bytes;      /* bytes of a key or value element                               */
    int32_t  hk, hv, dk, dv, conv_width; /* GDN layers of this shard; hv 0: there are none   */
    int32_t  conv_bytes, state_bytes;    /* bytes of an element of either state              */
    int32_t  n_draft;       /* drafts a step may verify: rows added to the convolution state */
    int32_t  kv_multiple, gdn_multiple;  /* what the device asks for                         */
    int32_t  block_size;    /* asked for; 0: the rule decides                                */
    gdn_block_mode mode;
    int32_t  base;          /* mode all: tokens between states must be a multiple of this    */
} gdn_block_want;

typedef struct {
    int32_t  block_size;      /* tokens                                    */
    uint64_t page_bytes;
    uint64_t token_bytes;     /* of a layer: a1                            */
    uint64_t conv_bytes, state_bytes; /* parts of a state's page           */
    uint64_t padding_bytes;   /* page less state                           */
    int32_t  mamba_block_size; /* tokens between kept states; 0: only the last one is kept */
    int32_t  align;           /* the block size is a multiple of this: al  */
} gdn_block_plan;

/* GDN_E_INVALID      a size that is no size; an explicit block size that does not work: err names
 *                    the smallest that does
 * GDN_E_UNSUPPORTED  a block beyond GDN_MAX_BLOCK_SIZE tokens
 * *out is written only on GDN_OK. */
gdn_status gdn_plan_blocks(const gdn_block_want *w, gdn_block_plan *out, gdn_err *err);

/* Turn the heads of a model into those of one of tp shards.  Key and value heads of attention are
 * repeated when there are fewer of them than shards.
 *
 * GDN_E_INVALID  heads that cannot be divided; w is unchanged */
gdn_status gdn_shard_heads(gdn_block_want *w, int32_t tp, gdn_err *err);

#endif
