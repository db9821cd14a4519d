/* attn.h - softmax attention over blocks of keys, merged in ascending order.
 *
 * Keys are cut into blocks of GDN_ATTN_BLOCK counted from position 0.  A query meets each block
 * on its own,
 *
 *     s_j = scale q.k_j     m = max s_j     l = sum e^(s_j - m)     o = sum e^(s_j - m) v_j
 *
 * and blocks are merged one after the other, lowest position first.  A query's result so
 * depends on its position and its keys alone, not on what shares the call: prompt and
 * generation agree bit for bit. */
#ifndef GDN_KERN_ATTN_H
#define GDN_KERN_ATTN_H

#include <stdbool.h>
#include <stdint.h>

enum { GDN_ATTN_BLOCK = 256, GDN_ATTN_TILE = 16 };

/* n_q queries against one block of one key-value head.  The block is given as up to 16 tiles of
 * 16 keys (a page never cuts a tile).  Query i sees its first n_valid[i] keys, 0..256; a
 * query with 0 gets m = -inf, l = 0, o = 0.  Rows of a tile at or beyond every n_valid are
 * never read. */
typedef struct {
    const void *const *q;     /* [n_q] pointers to d values, f32, or bf16 when bf16       */
    const void *const *k;     /* [16] tile pointers; keys k_stride elements apart         */
    const void *const *v;     /* [16] tile pointers; values v_stride elements apart       */
    const int32_t *n_valid;   /* [n_q]                                                    */
    float *m, *l;             /* [n_q]           out                                      */
    float *o;                 /* [n_q] x o_stride, row of d       out                     */
    int64_t k_stride, v_stride, o_stride;
    int32_t n_q, d;           /* d: a multiple of 8 up to 256                             */
    float   scale;
    bool    bf16;             /* type of q, k and v                                       */
} gdn_attn_block_args;
typedef void gdn_attn_block_fn(const gdn_attn_block_args *a);

/* Merge a block's (m, l, o) into the running (M, L, O) of the same query: start with
 * M = -inf, L = 0, O = 0. */
typedef struct {
    float *M, *L, *O;         /* [n_q], [n_q], [n_q] x O_stride    in/out                 */
    const float *m, *l, *o;   /* [n_q], [n_q], [n_q] x o_stride                           */
    int64_t O_stride, o_stride;
    int32_t n_q, d;
} gdn_attn_merge_args;
typedef void gdn_attn_merge_fn(const gdn_attn_merge_args *a);

/* y = O / L sigmoid(gate), one row of d values for each query. */
typedef struct {
    void *const *y;           /* [n_q] pointers, f32 or bf16                              */
    const float *const *gate; /* [n_q] pointers, or NULL for no gate                      */
    const float *L, *O;       /* [n_q], [n_q] x O_stride                                  */
    int64_t O_stride;
    int32_t n_q, d;
    bool    y_bf16;
} gdn_attn_finish_args;
typedef void gdn_attn_finish_fn(const gdn_attn_finish_args *a);

gdn_attn_block_fn  gdn_attn_block_ref, gdn_attn_block_avx2, gdn_attn_block_avx512,
    gdn_attn_block_avx512bf16;
gdn_attn_merge_fn  gdn_attn_merge_ref, gdn_attn_merge_avx2, gdn_attn_merge_avx512;
gdn_attn_finish_fn gdn_attn_finish_ref, gdn_attn_finish_avx2, gdn_attn_finish_avx512;

#endif
