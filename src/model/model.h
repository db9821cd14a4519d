/* model.h - a checkpoint bound to a device, and the forward pass over it.
 *
 * The model names no device and holds no state of a sequence: pages, workspace and the rows of a
 * step come from the engine.  One internal order serves all checkpoints: query, key and value
 * heads one after the other, value head h under key head h / (hv / hk), norm weights as they
 * multiply (the one of zero-centred norms is added when a weight is bound). */
#ifndef GDN_MODEL_MODEL_H
#define GDN_MODEL_MODEL_H

#include <gdn/gdn.h>
#include <gdn/op.h>

#include "../format/config.h"
#include "../format/genconfig.h"
#include "../format/safetensors.h"

/* Weights that read the same input and fill neighbouring columns of one output.  They are one
 * packed matrix unless their types differ. */
enum { GDN_MAX_PART = 4, GDN_MAX_GROUP = 64 };

/* A matrix of the checkpoint: columns at .. at + n - 1 of its projection's output, and where
 * adapters of it are found. */
typedef struct {
    int32_t at, n;
    int32_t index; /* in m->site */
} gdn_piece;

typedef struct {
    gdn_weight *w[GDN_MAX_PART];
    gdn_piece   piece[GDN_MAX_PART];
    int32_t     n, n_out, n_piece;
} gdn_projection;

/* What the open adapters add to one matrix. */
typedef struct {
    gdn_lora lora[GDN_MAX_ADAPTER];
    int32_t  n_used;
} gdn_site;

typedef struct {
    gdn_projection gate_up, down;
} gdn_mlp;

typedef struct {
    gdn_projection router; /* [n_expert + 1]: the last output is the shared expert's gate */
    gdn_weight *gate_up, *down;
    gdn_mlp     shared;
    const gdn_lora *lora[GDN_MAX_ADAPTER]; /* [n_expert][3]: gate, up, down; NULL: none */
    int32_t     n_lora;                    /* how many are there                        */
} gdn_moe;

typedef struct {
    bool full, moe;
    int32_t storage; /* which storage tensor of the pool holds its pages, and for a GDN      */
    int32_t group;   /* layer the group of pages it belongs to                               */
    gdn_tensor input_norm, post_norm;
    gdn_projection in, out;
    gdn_tensor q_norm, k_norm;                       /* full attention                       */
    gdn_tensor conv_w, A_log, dt_bias, gated_norm;   /* GDN                                  */
    gdn_mlp mlp;
    gdn_moe experts;
} gdn_layer;

typedef struct {
    gdn_tensor embed_norm, hidden_norm, norm;
    gdn_projection fc;
    gdn_layer layer;
} gdn_mtp;

/* An open adapter; lora.c knows what is in it. */
struct gdn_adapter {
    gdn_model *m;
    int32_t index; /* in m->adapter, the number that rows carry */
    uint64_t key;  /* of what is in it: never 0, the same for the same files and scale */
    struct gdn_lora_set *set;
};

struct gdn_model {
    gdn_config  config;
    char prefix[40], mtp_prefix[48]; /* of tensor names: "model.language_model.", "mtp."    */
    gdn_weights *weights; /* stays open: untied embeddings are read in place              */
    gdn_device *device;
    gdn_model_info info;
    char   *dir;
    int32_t stop[2 * GDN_MAX_EOS];
    gdn_math math;
    gdn_type act;         /* of inputs of products: BF16 when all weights take it         */
    gdn_type kv;          /* of keys and values                                           */
    gdn_type conv;        /* of convolution states: F32                                   */

    gdn_layer *layer;     /* [n_layer]                                                    */
    gdn_mtp    mtp;
    bool       has_mtp;
    gdn_tensor norm;
    gdn_weight *head;     /* also the embedding when tied                                 */
    gdn_piece   head_piece;
    gdn_tensor embed;     /* untied embeddings                                            */

    int32_t n_attn;       /* layers with keys and values, the MTP layer included          */
    int32_t n_storage;    /* storage tensors of the pool: layers of a group               */
    int32_t n_group;      /* groups of GDN layers                                         */

    gdn_buffer *vector;   /* all small f32 vectors                                        */
    uint64_t    vector_used;
    gdn_weight **owned;   /* every packed weight                                          */
    int32_t     n_owned, cap_owned;
    gdn_buffer *embed_buf;

    gdn_adapter *adapter[GDN_MAX_ADAPTER]; /* NULL where free */
    gdn_site *site;       /* [n_site]; NULL until the first adapter is opened             */
    int32_t   n_site;
};

/* Which name prefixes the tensors of m->weights have and whether there is an MTP head (bind.c). */
gdn_status gdn_model_find_parts(gdn_model *m, gdn_err *err);
/* The rows of in_proj_qkvz and in_proj_ba in the order of the projection (bind.c): place i is row
 * qkvz[i] of the file; 2 hk dk + 2 hv dv and 2 hv of them. */
void gdn_model_deinterleave(const gdn_config *c, int32_t *qkvz, int32_t *ba);
/* The start of a new buffer as the host fills it: the buffer itself where the host reaches it, else
 * memory that gdn_model_sent() copies there (when st is GDN_OK) and frees.  NULL: out of memory. */
void      *gdn_model_fill(gdn_buffer *b);
gdn_status gdn_model_sent(gdn_buffer *b, void *filled, gdn_status st, gdn_err *err);
/* Bind the tensors of m->weights to m (bind.c). */
gdn_status gdn_model_bind(gdn_model *m, gdn_progress_fn *progress, void *arg, gdn_err *err);

/* --- a step --------------------------------------------------------------------- */

/* The pool as the layers see it: storage[i] holds pages of page_bytes; a page is either the keys
 * and values of block_size tokens or one state [conv | ssm | padding]. */
typedef struct {
    gdn_buffer **storage; /* [n_storage] */
    uint64_t page_bytes, conv_bytes;
    int64_t  n_page;
    int32_t  block_size;
} gdn_pool_view;

/* Rows of several sequences.  Host-filled tensors at fixed addresses. */
typedef struct {
    gdn_tensor ids;        /* [n_row] i32 */
    gdn_tensor pos;        /* [n_row, 3] i32 */
    gdn_tensor has_state;  /* [n_seq] i32 */
    gdn_tensor adapter;    /* [n_row] i32: index of each row's adapter, -1 none; buf NULL when
                              no row of the step has one */
    gdn_tensor *slot;      /* [n_group] of [n_seq] i32: state page of each sequence */
    gdn_tensor *spare;     /* [n_group] of [n_seq] i32: page for the state behind guesses, with line */
    gdn_kv_layout kv;
    gdn_buffer *line;      /* [GDN layers of all groups][n_line][line_rows][C + 2 hv] f32: raw rows
                              of drafts (gdn_core's line); NULL: none */
    int32_t     n_line, line_rows;
    gdn_tensor  line_index, n_commit, keep; /* [n_seq] i32 */
} gdn_rows;

/* Scratch of a step, sized for the largest one. */
typedef struct {
    gdn_tensor h;          /* [R, d] f32: residual stream                     */
    gdn_tensor xn;         /* [R, d] act: normalised input of a product       */
    gdn_tensor proj;       /* [R, widest projection] f32                      */
    gdn_tensor act;        /* [R, widest product input] act                   */
    gdn_tensor q;          /* [R, hq, head_dim] kv                            */
    gdn_tensor cs;         /* [R, rot] f32                                    */
    gdn_tensor conv, gate, core;             /* GDN                           */
    gdn_tensor router, expert, weight, shared; /* MoE                         */
    gdn_tensor expert_gu, expert_h, expert_out, expert_index;
    gdn_tensor last;       /* [R + n_kept, d] f32: after the final norm; the tail is the
                              engine's, to keep rows from step to step        */
    gdn_tensor pair;       /* [R, 2d] act: the MTP head's input               */
    gdn_tensor logits;     /* [L, vocab] f32                                  */
    gdn_tensor lora;       /* [R, GDN_MAX_RANK] f32: adapters                 */
    gdn_tensor adapter;    /* i32: those of the rows in last, by row; buf NULL: none.  Set by
                              forward_rows and _mtp; a caller that asks for the logits of
                              other rows sets it before                       */
} gdn_workspace;

/* Called with the residual stream before each layer and after the final norm (tests). */
typedef void gdn_tap_fn(void *arg, int32_t layer, const gdn_tensor *h);

typedef struct {
    gdn_model *m;
    gdn_queue *q;
    const gdn_pool_view *pool;
    gdn_workspace *ws;
    gdn_tap_fn *tap;
    void *tap_arg;
} gdn_forward;

/* The largest step. */
typedef struct {
    int32_t n_row, n_logit; /* R rows, L rows of logits                              */
    int64_t n_kept;         /* rows behind those of a step in ws->last               */
    int64_t n_line_row;     /* rows behind those of a step for drafts of earlier steps */
} gdn_step_size;

/* Workspace tensors cut out of one new buffer. */
gdn_status gdn_workspace_create(gdn_model *m, const gdn_step_size *size, gdn_workspace *ws,
                                gdn_buffer **buf, gdn_err *err);

/* All layers over the rows; afterwards ws->last[0..n_row) holds the rows after the final norm. */
gdn_status gdn_forward_rows(gdn_forward *f, const gdn_rows *rows, gdn_err *err);

/* Only fold what lies in the sequences' lines into their states; rows->ids is empty. */
gdn_status gdn_forward_commit(gdn_forward *f, const gdn_rows *rows, gdn_err *err);

/* ws->logits[i] = head(ws->last[row[i]]); row [n] i32, n at most L. */
gdn_status gdn_forward_logits(gdn_forward *f, gdn_tensor row, gdn_err *err);

/* The MTP head: rows->ids are the next tokens, hidden [n_row] i32 says which rows of ws->last
 * they go with.  Its result goes to rows at .. at + n_row of ws->last. */
gdn_status gdn_forward_mtp(gdn_forward *f, const gdn_rows *rows, gdn_tensor hidden, int64_t at,
                           gdn_err *err);

#endif
