/* op_gdn.h - checks that gdn_attention() and its two stages share. */
#ifndef GDN_BACKEND_OP_GDN_H
#define GDN_BACKEND_OP_GDN_H

#include "check.h"

/* One group of sequences; op and prefix make the words of a refusal. */
typedef struct {
    const char *op, *prefix; /* prefix: "non_spec_", "spec_" or ""                        */
    const gdn_tensor *loc, *indx, *slot, *initial;
    const gdn_tensor *accepted; /* NULL: a plain group                                     */
    int64_t n_row;           /* rows that its tokens may lie in                           */
    int64_t slots;           /* of the pools                                              */
    int32_t null_slot;
    int64_t n_seq, K;        /* found by gdn_check_group(): sequences and columns         */
} gdn_seq_group;

/* Shapes and types of the group's own tensors. */
gdn_status gdn_check_group(const gdn_queue *q, gdn_seq_group *g, gdn_err *err);
/* Offsets, rows, slots and accepted counts of all groups of a call, as far as the host can read
 * them.  No row and no slot may belong to two sequences. */
gdn_status gdn_check_groups(const gdn_seq_group *g, int n_group, gdn_err *err);
/* Tokens of a group, 0 where the host cannot read them. */
int64_t gdn_group_tokens(const gdn_seq_group *g);

/* The heads of a shard. */
typedef struct {
    int64_t nk, nv, dk, dv, C;
} gdn_heads;
gdn_status gdn_check_heads(const char *op, int32_t n_k_head, int32_t n_v_head, int32_t dk,
                           int32_t dv, int32_t tp_size, gdn_heads *out, gdn_err *err);

/* Rows of the convolution's lines, for W taps and drafts of up to K tokens. */
gdn_status gdn_check_lines(const char *op, const gdn_tensor *conv_state,
                           gdn_conv_state_layout layout, const gdn_heads *h, int64_t W, int64_t K,
                           gdn_err *err);
/* Slots of the recurrent state: [heads][dv][dk] without gaps, slots that do not share bytes. */
gdn_status gdn_check_states(const char *op, const gdn_tensor *ssm_state, gdn_err *err);
gdn_status gdn_check_form(const char *op, gdn_delta_form form, gdn_err *err);

/* The group's own tensors, for gdn_check_apart(). */
enum { GDN_GROUP_NAMED = 5 };
void gdn_name_group(const gdn_seq_group *g, gdn_named *to);

#endif
