/* op.h - devices, buffers, queues, tensors, and the operators of the model family.
 *
 * A device runs operators; a buffer is memory of a device, or foreign memory wrapped; a tensor is
 * a typed, strided view of a buffer and is passed by value.  Operators go into an in-order
 * queue and may return before they ran: results, and failures that only the device can see,
 * belong to gdn_queue_wait().  Arguments are checked when an operator is called, before anything
 * is written: GDN_E_INVALID names the argument.
 *
 * Threads: a queue belongs to one thread at a time, so do the tensors its operators use.
 * Layouts are written outermost dimension first.  Sizes are elements, strides are bytes.
 *
 * A row's result never depends on what else is in the call, bit for bit, and neither on how a
 * sequence is cut into calls. */
#ifndef GDN_OP_H
#define GDN_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- devices ---------------------------------------------------------------- */

typedef struct gdn_device gdn_device;

typedef struct {
    int      n_thread; /* cpu: 0 for every CPU this process may use                       */
    bool     pin;      /* cpu: bind threads to CPUs                                       */
    uint32_t isa_mask; /* cpu: instruction sets allowed, ~0 for those that pay (tests)    */
    bool     dry_run;  /* xpu: for a driver without a GPU: results are not looked at      */
} gdn_device_opts;
GDN_API void gdn_device_opts_defaults(gdn_device_opts *o);

/* name: "cpu", or "cpu:N" for N threads; "xpu" or "xpu:N", OpenCL device N of gdn_devices(); NULL: a
 * GPU of its own kind, none that stands in for one, if gdn_device_check() passes there, else (or when
 * opts say something that only the cpu has) the cpu; the log says which.  opts may be NULL. */
GDN_API gdn_status gdn_device_open(const char *name, const gdn_device_opts *opts,
                                   gdn_device **out, gdn_err *err);
GDN_API void        gdn_device_close(gdn_device *d); /* after everything that lives on it */
GDN_API const char *gdn_device_name(const gdn_device *d);
/* The start-up check: products, projections, norms, attention, Gated DeltaNet and the largest
 * of a row on small random data, there and on the cpu.  A model is opened on a device only
 * after it; a device that passed is not checked again, and the cpu is the measure itself.
 * Tenths of a second, once the kernels are compiled.
 * GDN_E_DEVICE: err says which operator was off, and by how much. */
GDN_API gdn_status gdn_device_check(gdn_device *d, gdn_err *err);

/* --- buffers ---------------------------------------------------------------- */

typedef struct gdn_buffer gdn_buffer;

/* Zeroed memory; pages that are never touched cost nothing on the cpu. */
GDN_API gdn_status gdn_buffer_alloc(gdn_device *d, uint64_t bytes, gdn_buffer **out, gdn_err *err);
/* The caller's memory, which must outlive the buffer.  A device that computes in it copies nothing;
 * one with memory of its own (the xpu) takes a copy now, and what is written to the buffer later
 * comes back by gdn_queue_read() alone. */
GDN_API gdn_status gdn_buffer_wrap(gdn_device *d, void *host, uint64_t bytes, gdn_buffer **out,
                                   gdn_err *err);
GDN_API void     gdn_buffer_free(gdn_buffer *b);
GDN_API uint64_t gdn_buffer_bytes(const gdn_buffer *b);
/* Where the host can read and write it directly (after a wait), or NULL. */
GDN_API void    *gdn_buffer_host(gdn_buffer *b);

/* --- tensors ---------------------------------------------------------------- */

typedef enum { GDN_F32, GDN_BF16, GDN_F16, GDN_F8 /* e4m3 */, GDN_I32, GDN_U8 } gdn_type;

GDN_API const char *gdn_type_name(gdn_type t);
GDN_API int         gdn_type_bytes(gdn_type t);

enum { GDN_MAX_DIM = 4 };

typedef struct {
    gdn_buffer *buf;      /* NULL: an absent optional tensor                              */
    uint64_t    at;       /* bytes from the start of buf                                  */
    gdn_type    type;
    int32_t     ndim;
    int64_t     shape[GDN_MAX_DIM];
    int64_t     stride[GDN_MAX_DIM]; /* bytes from one index to the next                  */
} gdn_tensor;

/* A dense view; shape [ndim]. */
GDN_API gdn_tensor gdn_tensor_dense(gdn_buffer *buf, uint64_t at, gdn_type type, int32_t ndim,
                                    const int64_t *shape);
/* Indices begin <= i < end of one dimension. */
GDN_API gdn_tensor gdn_tensor_slice(gdn_tensor t, int32_t dim, int64_t begin, int64_t end);

/* --- queues ----------------------------------------------------------------- */

typedef struct gdn_queue gdn_queue;

GDN_API gdn_status gdn_queue_create(gdn_device *d, gdn_queue **out, gdn_err *err);
GDN_API void       gdn_queue_free(gdn_queue *q);
/* Until everything queued has run; the first failure since the last wait. */
GDN_API gdn_status gdn_queue_wait(gdn_queue *q, gdn_err *err);
/* Copies in queue order; `from` may be reused when write returns, `to` is valid after a wait. */
GDN_API gdn_status gdn_queue_write(gdn_queue *q, gdn_buffer *to, uint64_t at, const void *from,
                                   uint64_t bytes, gdn_err *err);
GDN_API gdn_status gdn_queue_read(gdn_queue *q, void *to, gdn_buffer *from, uint64_t at,
                                  uint64_t bytes, gdn_err *err);
/* From one buffer to another, or within one, on the device and in queue order.  Ranges that
 * overlap are refused, and so are buffers of another device. */
GDN_API gdn_status gdn_queue_copy(gdn_queue *q, gdn_buffer *to, uint64_t to_at, gdn_buffer *from,
                                  uint64_t from_at, uint64_t bytes, gdn_err *err);

/* Kernels of one name and what they took together, by the device's own clock. */
typedef struct {
    char     name[64]; /* "linear/32 linear_1": the file of kernels and its variant, the kernel */
    uint64_t n;        /* launches                                                              */
    double   seconds;
} gdn_kernel_time;

/* Whether the times of kernels are taken from now on; waits first.  Steps take somewhat longer while
 * they are, and nothing is replayed.  GDN_E_UNSUPPORTED: the device has no such clock (the cpu). */
GDN_API gdn_status gdn_queue_profile(gdn_queue *q, bool on, gdn_err *err);
/* Kernels that have run since gdn_queue_profile() or the last call of this, those that took most
 * first; waits.  *n: how many names there are, of which out[] has the first `room`. */
GDN_API gdn_status gdn_queue_times(gdn_queue *q, gdn_kernel_time *out, int32_t room, int32_t *n,
                                   gdn_err *err);

/* --- weights ---------------------------------------------------------------- */

/* A weight matrix [n, k], or n_expert of them, in the form the device's products read. */
typedef struct gdn_weight gdn_weight;

/* Rows of a matrix as they lie in memory.  Parts follow each other from row 0 on. */
typedef struct {
    const void    *data;       /* row 0; rows of k dense elements                         */
    int64_t        n_row;
    int64_t        row_bytes;
    const int32_t *order;      /* [n_row]: row i is row order[i] of data; NULL: as they lie */
    const void    *scale;      /* F8: [.., ceil(k / scale_cols)] dense, else NULL         */
    gdn_type       scale_type; /* F32 or BF16                                             */
} gdn_weight_part;

typedef struct {
    gdn_type type;             /* of all parts: BF16, F16, F32 or F8                      */
    int32_t  n_expert;         /* matrices; 1 for a plain weight                          */
    int32_t  n, k;             /* of one matrix                                           */
    int32_t  scale_rows, scale_cols; /* F8: block of one scale, counted from a part's row 0 */
    const gdn_weight_part *part; /* [n_expert][n_part]: expert e's parts                  */
    int32_t  n_part;
    /* Called when rows have been taken over, so that their file pages can be given back. */
    void   (*done)(void *arg, const void *data, uint64_t bytes);
    void    *done_arg;
} gdn_weight_desc;

/* Takes the parts over in parallel; the memory behind them is not needed afterwards. */
GDN_API gdn_status gdn_weight_create(gdn_device *d, const gdn_weight_desc *desc,
                                     gdn_weight **out, gdn_err *err);
GDN_API void       gdn_weight_free(gdn_weight *w);
GDN_API uint64_t   gdn_weight_bytes(const gdn_weight *w);

typedef struct {
    gdn_type type;
    int32_t  n_expert, n, k;
} gdn_weight_shape;
GDN_API gdn_weight_shape gdn_weight_get_shape(const gdn_weight *w);

/* The type that inputs of a product with w should have for speed: BF16 or F32. */
GDN_API gdn_type gdn_weight_input_type(const gdn_weight *w);

/* --- operators --------------------------------------------------------------
 *
 * What a call writes, scratch included, is apart from all else that the call names: rows may lie
 * side by side in one matrix and slots in the pages of one pool, but bytes between a tensor's first
 * and last that another one has are refused, with both names.  Where an output may be an input
 * itself, it says so. */

/* y[i] = row ids[i] of the table.  A table is a packed weight (a tied head) or a plain tensor. */
typedef struct {
    gdn_tensor y;             /* [n_row, d] f32                              out          */
    gdn_tensor ids;           /* [n_row] i32; an id outside the table is refused where the
                                 host can see it                                          */
    const gdn_weight *weight; /* [vocab, d], or NULL                                      */
    gdn_tensor table;         /* [vocab, d] F32, BF16 or F16, when weight is NULL         */
} gdn_embed_args;

/* y = x rsqrt(mean(x^2) + eps) w, times silu(z) when there is a z; over the last dimension.  y may be
 * x or z itself, the same view. */
typedef struct {
    gdn_tensor y;             /* [n_row, (n_head,) d] f32 or bf16            out          */
    gdn_tensor x;             /* the same shape, f32                                      */
    gdn_tensor z;             /* the same shape, f32; optional                            */
    gdn_tensor w;             /* [d] f32, used as it is                                   */
    float      eps;
} gdn_rms_norm_args;

/* y = x, rounded to y's type; exact when y is the wider one.  y may be x itself. */
typedef struct {
    gdn_tensor y;             /* [n_row, n] F32, BF16 or F16                 out          */
    gdn_tensor x;             /* [n_row, n] F32, BF16 or F16                              */
} gdn_cast_args;

/* y = x w^T, or y += x w^T. */
typedef struct {
    gdn_tensor y;             /* [n_row, n] f32                              out          */
    gdn_tensor x;             /* [n_row, k], gdn_weight_input_type() or F32               */
    gdn_tensor row;           /* [n_row] i32: take row[i] of x; optional                  */
    const gdn_weight *w;      /* [n, k]                                                   */
    bool       add;
} gdn_linear_op_args;

/* A projection and what stands around it, in as few launches as the device knows how:
 *
 *     x ─► [ rms_norm, times silu(z) ] ─► w ─► [ swiglu ] ─► y, or added to y
 *
 * with the bits of rms_norm, linear and swiglu one after the other. */
typedef struct {
    gdn_tensor y;             /* [n_row, n] f32; with swiglu [n_row, n / 2] f32 or bf16  out */
    gdn_tensor x;             /* with norm_w [n_row, k], or [n_row, n_head, d] of n_head d = k,
                                 f32; else as linear's x                                  */
    gdn_tensor z;             /* the shape of x, f32; optional, with norm_w               */
    gdn_tensor norm_w;        /* [k], or [d], f32; optional                               */
    float      eps;
    const gdn_weight *w;      /* [n, k]                                                   */
    bool       add, swiglu;   /* not both                                                 */
    gdn_tensor work_x;        /* with norm_w: [n_row, k], as linear's x          scratch  */
    gdn_tensor work_y;        /* with swiglu: [n_row, n] f32                     scratch  */
} gdn_project_args;

/* Cosines and sines for rotary embedding (rope_type default, mrope interleaved). */
typedef struct {
    gdn_tensor cs;            /* [n_row, rot] f32: cosines, then sines       out          */
    gdn_tensor pos;           /* [n_row, 3] i32: time, height, width                      */
    double     theta;
    int32_t    section[3];    /* of mrope                                                 */
    bool       mrope;
} gdn_rope_angles_args;

/* The sequences that the rows of a step belong to: rows seq_start[s] .. seq_start[s+1]-1 are the
 * next tokens of sequence s, after n_past[s] tokens that its pages hold already. */
typedef struct {
    gdn_tensor seq_start;     /* [n_seq + 1] i32, ascending from 0                        */
    gdn_tensor n_past;        /* [n_seq] i32                                              */
    gdn_tensor page;          /* [n_seq, max_block] i32: page of each block of tokens     */
    int32_t    block_size;    /* tokens in a page, a multiple of 16                       */
} gdn_kv_layout;

/* Normalise and rotate queries and keys, put keys and values into their pages. */
typedef struct {
    gdn_tensor q_out;         /* [n_row, hq, d] type of the pages            out          */
    gdn_tensor k_page, v_page;/* [n_page, hkv, block_size, d] f32 or bf16    out          */
    gdn_tensor q, k, v;       /* [n_row, heads, d] f32                                    */
    gdn_tensor q_norm, k_norm;/* [d] f32                                                  */
    gdn_tensor cs;            /* [n_row, rot] f32                                         */
    gdn_kv_layout kv;
    float      eps;
} gdn_attn_store_args;

/* y = softmax(scale q k^T) v sigmoid(gate), causal, grouped heads, over paged keys and values
 * that already hold this step's rows. */
typedef struct {
    gdn_tensor y;             /* [n_row, hq, d] f32 or bf16                  out          */
    gdn_tensor q;             /* [n_row, hq, d] type of the pages                         */
    gdn_tensor gate;          /* [n_row, hq, d] f32; optional                             */
    gdn_tensor k_page, v_page;/* [n_page, hkv, block_size, d]                             */
    gdn_kv_layout kv;
    float      scale;
} gdn_attn_args;

/* Gated DeltaNet core: causal convolution with carried state, gates, gated delta rule.
 *
 * Drafted tokens.  A state cannot be rolled back, so rows of tokens that may yet be rejected must
 * not get into it.  With the four optional tensors a sequence has a line of K raw rows, and a call
 * first folds n_commit of them into its stored states, in the same pass that its own rows take:
 *
 *     stored state ── line rows 0 .. n_commit-1 ── own rows ──► core
 *
 * keep 0: the own rows are folded in as well, as they are without a line.  keep 1: those behind the
 * first are guesses.  The first is folded in, the guesses run on a copy, and their raw inputs replace
 * rows 0.. of the line; the next call commits as many as were accepted, 0 to all.  With spare that
 * copy stays in the slot that it names, the states behind all rows: when every guess was right the
 * sequence goes on from there, with nothing to commit.
 *
 * core has the own rows alone.  A sequence may have no rows of its own and only commit; its line
 * then keeps its bytes, and so do the rows of a line that are not replaced.  Outputs and states are
 * those of one plain call for each accepted token, bit for bit.
 *
 * The four come together or not at all.  A sequence uses its line when it commits, or has a guess;
 * line_index is read there only, and no two of these may name the same line.  spare is read where
 * there is a guess; it must be no other sequence's slot. */
typedef struct {
    gdn_tensor core;          /* [n_row, hv, dv] f32                         out          */
    gdn_tensor qkv;           /* [n_row, 2 hk dk + hv dv] f32: q | k | v of all heads     */
    gdn_tensor b, a;          /* [n_row, hv] f32: raw strength and decay gates            */
    gdn_tensor conv_state;    /* [slots, W - 1, C] f32 or bf16               in/out       */
    gdn_tensor ssm_state;     /* [slots, hv, dv, dk] f32                     in/out       */
    gdn_tensor conv_w;        /* [W, C] f32, tap W-1 for the newest                       */
    gdn_tensor conv_bias;     /* [C] f32; optional                                        */
    gdn_tensor A_log, dt_bias;/* [hv] f32                                                 */
    gdn_tensor seq_start;     /* [n_seq + 1] i32                                          */
    gdn_tensor slot;          /* [n_seq] i32                                              */
    gdn_tensor has_state;     /* [n_seq] i32: 0 starts from zeros and never reads the slot */
    gdn_tensor line;          /* [n_line, K, C + 2 hv] f32: q | k | v, b, a of tokens that the
                                 states do not hold yet, K up to 256; optional   in/out   */
    gdn_tensor line_index;    /* [n_seq] i32: the sequence's line                         */
    gdn_tensor n_commit;      /* [n_seq] i32, 0 to K; above 0 with has_state only         */
    gdn_tensor keep;          /* [n_seq] i32, 0 or 1; 1 with at most K guesses            */
    gdn_tensor spare;         /* [n_seq] i32: another slot, -1 none; optional, with a line */
    gdn_tensor work_qkv;      /* [n_row, C] f32; with a line [n_row + n_seq K, C]  scratch */
    gdn_tensor work_gate;     /* [n_row, 2, hv] f32; [n_row + n_seq K, 2, hv]    scratch  */
    int32_t    hk, dk;
} gdn_core_args;

/* --- gdn_attention: the whole operator ---------------------------------------------
 *
 * From the projected rows of a batch to the core's output: unpack q, k, v, z, b, a; causal
 * convolution with carried state; gated delta rule on paged recurrent states.  For plain and
 * speculative sequences, in one call or apart, as vLLM's Intel path calls it.
 *
 * Below nk = n_k_head / tp_size, nv = n_v_head / tp_size, r = nv / nk, C = 2 nk dk + nv dv channels
 * in the order q | k | v of all heads, and W taps.  "act" is one type for all tensors marked so:
 * F32, BF16 or F16.
 *
 * Rows of qkvz and ba are laid out by head group or by part:
 *
 *     reorder_input false   for each key head g: q (dk) | k (dk) | v (r dv) | z (r dv);  b (r) | a (r)
 *     reorder_input true    q of all heads | k | v | z;  b of all heads | a
 *
 * Value head h reads key head h / r.
 *
 * Plain sequence s: tokens non_spec_query_start_loc[s] .. [s+1] - 1 of the plain tokens; its state
 * is slot non_spec_state_indices[s] of both pools.  It starts from the stored state when
 * has_initial_state is absent or not 0 for it, else from zeros, and then never reads the slot.
 *
 * Speculative sequence s: tokens spec_query_start_loc[s] .. (at most K) and the slots
 * spec_state_indices[s][0..K-1].  It starts from the recurrent state in column
 * max(num_accepted[s] - 1, 0), and after token t the state is stored in column t.  The convolution
 * has one line a sequence, at the slot in column 0: history begins at row max(num_accepted - 1, 0);
 * afterwards the line holds that history less its first row, then the new inputs.
 *
 * token_indx maps the tokens of a group to rows of qkvz, ba, core and z; absent, token i is row i.
 *
 * A slot that is negative or equal to null_slot is "none": a sequence whose (first) slot is none
 * gives zero rows of core and z and touches no state; a later column that is none skips that store;
 * none in the column to be read is refused.  Rows that no sequence covers, rows from
 * num_actual_tokens on, sequences of length 0 and unused slots keep their bytes.
 *
 * Numbers: the convolution's output, core and stored states are rounded once to their types;
 * everything between is f32.  A row's result depends on its sequence alone, and with f32 states
 * not on how the sequence is cut into calls.
 *
 * GDN_E_INVALID names the argument and the values, before anything is written: shapes, types and
 * strides that do not fit, indices out of range, a row or slot that two active sequences share,
 * outputs or pools that lie on other arguments, num_accepted above the columns.  GDN_E_NOMEM: no
 * scratch. */
typedef enum { GDN_CONV_STATE_SD, GDN_CONV_STATE_DS } gdn_conv_state_layout;

/* How the delta rule is computed.  RECURRENT is exact to f32 and has the invariance above.
 * CHUNKED takes plain sequences 32 tokens at a time, faster on long prompts: matrix products
 * between rows of a chunk, with operands rounded to bf16 when act is BF16, in f32 otherwise (with
 * AMX in 16 bits of it).  Its results depend on where a sequence is cut into calls, but still on
 * nothing else in a call.
 * Against float64 (relative L2 of a tensor): recurrent f32 2e-6, bf16 core 1e-3 and states 5e-5;
 * chunked f32 1e-4, bf16 core 6e-3 and states 2e-3; f16 an eighth of bf16. */
typedef enum { GDN_FORM_RECURRENT, GDN_FORM_CHUNKED } gdn_delta_form;

typedef struct {
    gdn_tensor core;          /* [P, nv, dv] act                             out          */
    gdn_tensor z;             /* [P, nv, dv] act: z as it was projected      out          */
    gdn_tensor qkvz;          /* [P, nk (2 dk + 2 r dv)] act                              */
    gdn_tensor ba;            /* [P, 2 nv] act                                            */
    gdn_tensor conv_state;    /* [slots, L, C] act (SD) or [slots, C, L] (DS)   in/out;
                                 L at least W - 1, with drafts W - 2 + K; any slot stride */
    gdn_tensor ssm_state;     /* [slots, nv, dv, dk] F32, BF16 or F16        in/out       */
    gdn_tensor conv_weights;  /* [C, W] act, tap W - 1 for the newest                     */
    gdn_tensor conv_bias;     /* [C] act; optional                                        */
    gdn_tensor A_log;         /* [nv] F32                                                 */
    gdn_tensor dt_bias;       /* [nv] act                                                 */
    gdn_tensor has_initial_state;         /* [n_seq] U8; optional                         */
    gdn_tensor non_spec_query_start_loc;  /* [n_seq + 1] I32; absent: no plain sequences  */
    gdn_tensor non_spec_token_indx;       /* [tokens] I32; optional                       */
    gdn_tensor non_spec_state_indices;    /* [n_seq] I32                                  */
    gdn_tensor spec_query_start_loc;      /* [n_spec + 1] I32; absent: none of these      */
    gdn_tensor spec_token_indx;           /* [tokens] I32; optional                       */
    gdn_tensor spec_state_indices;        /* [n_spec, K] I32                              */
    gdn_tensor num_accepted_tokens;       /* [n_spec] I32, 1 .. K; 0 counts as 1          */
    int32_t n_k_head, n_v_head;           /* of the whole model                           */
    int32_t dk, dv;                       /* dk: a multiple of 8 up to 256                */
    int32_t tp_size;
    int64_t num_actual_tokens;            /* rows from here on are padding                */
    int32_t null_slot;                    /* -1: only negative slots are none             */
    bool    reorder_input;
    gdn_conv_state_layout conv_layout;
    gdn_delta_form form;
} gdn_attention_args;

/* --- its two stages on their own ----------------------------------------------------
 *
 * Each call serves one group of sequences, with the meaning the arguments have above: a plain
 * group when num_accepted_tokens is absent (state_indices [n_seq]), a speculative one when it is
 * given (state_indices [n_seq, K]; has_initial_state must be absent).  Between the stages tokens
 * lie in the group's own order, T = query_start_loc[n_seq] of them; tensors may be longer, and
 * rows from T on keep their bytes.  The two stages one after the other give the bits of
 * gdn_attention. */

/* q | k | v of every token convolved; z, b and a laid out by head.  Rows of a sequence whose slot
 * is none are zeros. */
typedef struct {
    gdn_tensor q, k;          /* [T.., nk, dk] act: convolved, not normalised    out          */
    gdn_tensor v;             /* [T.., nv, dv] act                           out          */
    gdn_tensor b, a;          /* [T.., nv] act: as they were projected       out          */
    gdn_tensor z;             /* [P, nv, dv] act, rows by token_indx         out          */
    gdn_tensor qkvz;          /* [P, nk (2 dk + 2 r dv)] act                              */
    gdn_tensor ba;            /* [P, 2 nv] act                                            */
    gdn_tensor conv_state;    /* [slots, L, C] act (SD) or [slots, C, L] (DS)   in/out    */
    gdn_tensor conv_weights;  /* [C, W] act                                               */
    gdn_tensor conv_bias;     /* [C] act; optional                                        */
    gdn_tensor has_initial_state;   /* [n_seq] U8; optional                               */
    gdn_tensor query_start_loc;     /* [n_seq + 1] I32                                    */
    gdn_tensor token_indx;          /* [tokens] I32; optional                             */
    gdn_tensor state_indices;       /* [n_seq] I32, or [n_seq, K]                         */
    gdn_tensor num_accepted_tokens; /* [n_seq] I32; given: a speculative group            */
    int32_t n_k_head, n_v_head, dk, dv, tp_size;
    int64_t num_actual_tokens;
    int32_t null_slot;
    bool    reorder_input;
    gdn_conv_state_layout conv_layout;
} gdn_causal_conv1d_args;

/* Gates and the delta rule.  Heads here are those of the shard, counted by the tensors. */
typedef struct {
    gdn_tensor core;          /* [P, nv, dv] act, rows by token_indx         out          */
    gdn_tensor q, k;          /* [T.., nk, dk] act                                        */
    gdn_tensor v;             /* [T.., nv, dv] act                                        */
    gdn_tensor b, a;          /* [T.., nv] act                                            */
    gdn_tensor A_log;         /* [nv] F32                                                 */
    gdn_tensor dt_bias;       /* [nv] act                                                 */
    gdn_tensor ssm_state;     /* [slots, nv, dv, dk] F32, BF16 or F16        in/out       */
    gdn_tensor has_initial_state;   /* [n_seq] U8; optional                               */
    gdn_tensor query_start_loc;     /* [n_seq + 1] I32                                    */
    gdn_tensor token_indx;          /* [tokens] I32; optional                             */
    gdn_tensor state_indices;       /* [n_seq] I32, or [n_seq, K]                         */
    gdn_tensor num_accepted_tokens; /* [n_seq] I32; given: a speculative group            */
    int64_t num_actual_tokens;
    int32_t null_slot;
    gdn_delta_form form;
} gdn_delta_rule_args;

/* --- gated RMSNorm and the layer -------------------------------------------------------
 *
 * y = rms(x) w gate(z)  or, with the norm behind the gate,  y = rms(x gate(z)) w
 *
 * over the last dimension, in f32, rounded once; rms(x) = x rsqrt(mean(x^2) + eps).  y may be x or
 * z itself, the same view of the same type; any other overlap of y is refused. */
typedef enum { GDN_GATE_SILU, GDN_GATE_SIGMOID } gdn_gate;

typedef struct {
    gdn_tensor y;             /* [n_row, (n_head,) d] F32, BF16 or F16       out          */
    gdn_tensor x, z;          /* the same shape, one type: F32, BF16 or F16               */
    gdn_tensor w;             /* [d] F32, BF16 or F16, used as it is                      */
    float      eps;
    gdn_gate   gate;
    bool       norm_after_gate;
} gdn_rms_norm_gated_args;

/* The whole layer, from hidden rows to hidden rows:
 *
 *     x ─► in_proj ─► qkvz, ba ─► gdn_attention ─► core, z ─► gated RMSNorm ─► out_proj ─► y
 *
 * core says how the operator in the middle is called; its core, z, qkvz and ba are left empty and
 * live in `work`, where they have the type of conv_state.  Its num_actual_tokens is the rows that
 * are computed; rows of y behind them keep their bytes, rows below that no sequence covers are
 * computed from zeros.
 *
 * Input projections come fused or split: in_proj_qkvz, or in_proj_qkv and in_proj_z; in_proj_ba, or
 * in_proj_b and in_proj_a.  Split ones give the parts of reorder_input and need it.  With
 * tp_size > 1 y is this shard's part of the sum. */
typedef struct {
    gdn_tensor y;             /* [P, d_out] F32                              out          */
    gdn_tensor x;             /* [P, d] the input type of the projections, or F32         */
    const gdn_weight *in_proj_qkvz, *in_proj_qkv, *in_proj_z; /* [outputs, d]             */
    const gdn_weight *in_proj_ba, *in_proj_b, *in_proj_a;
    const gdn_weight *out_proj;     /* [d_out, nv dv]                                     */
    gdn_tensor norm_w;        /* [dv] F32, BF16 or F16                                    */
    float      eps;
    gdn_gate   gate;
    gdn_attention_args core;
    gdn_buffer *work;         /* gdn_attention_layer_work_bytes() or more                           */
} gdn_attention_layer_args;

/* Scratch that gdn_attention_layer() needs for n_row rows of x; 0 when the sizes in a make no sense. */
GDN_API uint64_t gdn_attention_layer_work_bytes(const gdn_attention_layer_args *a, int64_t n_row);

/* --- low-rank adapters -------------------------------------------------------------------
 *
 * y[i] += scale B (A x[i]) with the adapter that row i names: what LoRA adds to a product.  Nothing
 * is merged into the weight, so rows of one call may have different adapters. */
enum { GDN_MAX_RANK = 512 };
typedef struct {
    gdn_tensor a;             /* [rank, k] F32; buf NULL: leaves this matrix alone        */
    gdn_tensor b;             /* [n, rank] F32                                            */
    float      scale;
} gdn_lora;

typedef struct {
    gdn_tensor y;             /* [n_row, n] F32                              in/out       */
    gdn_tensor x;             /* [n_row, k] F32 or BF16                                   */
    gdn_tensor adapter;       /* [n_row] I32: which of lora; negative: none               */
    gdn_tensor row;           /* [n_row] I32: row i's adapter is adapter[row[i]]; optional */
    const gdn_lora *lora;     /* [n_lora]; ranks up to GDN_MAX_RANK                       */
    int32_t    n_lora;
    gdn_tensor work;          /* [n_row, largest rank] F32                   scratch      */
} gdn_lora_op_args;

/* y = silu(g) u with x = [g | u]. */
typedef struct {
    gdn_tensor y;             /* [n_row, n] f32 or bf16                      out          */
    gdn_tensor x;             /* [n_row, 2 n] f32                                         */
} gdn_swiglu_op_args;

/* The top experts of each row, by softmax of the logits. */
typedef struct {
    gdn_tensor expert;        /* [n_row, top] i32                            out          */
    gdn_tensor weight;        /* [n_row, top] f32                            out          */
    gdn_tensor logits;        /* [n_row, n_expert] f32                                    */
    bool       normalise;
} gdn_moe_route_op_args;

/* What each row's experts answer: y[row, rank] = down_e swiglu(gate_up_e x[row]).  Experts may
 * have adapters, one for each of their three matrices. */
typedef struct {
    gdn_tensor y;             /* [n_row, top, d] f32                         out          */
    gdn_tensor x;             /* [n_row, d]                                               */
    gdn_tensor expert;        /* [n_row, top] i32                                         */
    const gdn_weight *gate_up;/* n_expert of [2 n, d]                                     */
    const gdn_weight *down;   /* n_expert of [d, n]                                       */
    gdn_tensor work_gu;       /* [n_row * top, 2 n] f32                      scratch      */
    gdn_tensor work_h;        /* [n_row * top, n] input type of down         scratch      */
    gdn_tensor work_index;    /* [2 * n_row * top + n_expert + 1] i32        scratch      */
    gdn_tensor adapter;       /* [n_row] i32: which of lora, negative: none; optional     */
    const gdn_lora *const *lora; /* [n_lora] of [n_expert][3]: gate, up, down; NULL: none */
    int32_t    n_lora;
} gdn_moe_experts_args;

/* y += sum over ranks of weight e, and sigmoid(gate) shared. */
typedef struct {
    gdn_tensor y;             /* [n_row, d] f32                              in/out       */
    gdn_tensor e;             /* [n_row, top, d] f32                                      */
    gdn_tensor weight;        /* [n_row, top] f32                                         */
    gdn_tensor shared;        /* [n_row, d] f32; optional                                 */
    gdn_tensor gate;          /* [n_row, 1] f32, with shared                              */
} gdn_moe_combine_op_args;

/* What a sampler needs of long rows, so that they can stay where they are: the k largest
 * values of each, largest first and the lower id first among equals (-0 is 0), NaN and
 * -infinity left out; and the smallest. */
enum { GDN_TOP_K_MOST = 64 };
typedef struct {
    gdn_tensor value;         /* [n_row, k] f32; -infinity behind the last   out          */
    gdn_tensor id;            /* [n_row, k] i32: where they stand; then -1   out          */
    gdn_tensor found;         /* [n_row] i32: how many there are             out          */
    gdn_tensor min;           /* [n_row] f32: the smallest, -infinity counts; NaN when
                                 one is, +infinity when no value counts      out          */
    gdn_tensor x;             /* [n_row, n] f32                                           */
    gdn_tensor n_valid;       /* [n_row] i32: how many of a row's values count, from its
                                 first; optional: all.  More than there are counts as all
                                 where the host cannot see it                             */
} gdn_top_k_args;

GDN_API gdn_status gdn_op_embed(gdn_queue *q, const gdn_embed_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_rms_norm(gdn_queue *q, const gdn_rms_norm_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_cast(gdn_queue *q, const gdn_cast_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_linear(gdn_queue *q, const gdn_linear_op_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_project(gdn_queue *q, const gdn_project_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_rope_angles(gdn_queue *q, const gdn_rope_angles_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_attn_store(gdn_queue *q, const gdn_attn_store_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_attn(gdn_queue *q, const gdn_attn_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_gdn_core(gdn_queue *q, const gdn_core_args *a, gdn_err *err);
GDN_API gdn_status gdn_attention(gdn_queue *q, const gdn_attention_args *a, gdn_err *err);
GDN_API gdn_status gdn_causal_conv1d(gdn_queue *q, const gdn_causal_conv1d_args *a, gdn_err *err);
GDN_API gdn_status gdn_delta_rule(gdn_queue *q, const gdn_delta_rule_args *a, gdn_err *err);
GDN_API gdn_status gdn_rms_norm_gated(gdn_queue *q, const gdn_rms_norm_gated_args *a,
                                      gdn_err *err);
GDN_API gdn_status gdn_attention_layer(gdn_queue *q, const gdn_attention_layer_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_lora(gdn_queue *q, const gdn_lora_op_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_swiglu(gdn_queue *q, const gdn_swiglu_op_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_moe_route(gdn_queue *q, const gdn_moe_route_op_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_moe_experts(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err);
GDN_API gdn_status gdn_op_moe_combine(gdn_queue *q, const gdn_moe_combine_op_args *a,
                                      gdn_err *err);
GDN_API gdn_status gdn_op_top_k(gdn_queue *q, const gdn_top_k_args *a, gdn_err *err);

#ifdef __cplusplus
}
#endif
#endif
