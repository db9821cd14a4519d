/* tools.h - work beside running a model: random models, logits to a file, perplexity, speed,
 * recorded calls of the operator, what a cache will look like. */
#ifndef GDN_TOOLS_H
#define GDN_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gdn.h"
#include "op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called now and then with the bytes written and to be written; return false to stop. */
typedef bool gdn_random_progress_fn(uint64_t done, uint64_t total, void *arg);

/* Fill with gdn_random_defaults() and set by name. */
typedef struct {
    const char      *like;    /* a released shape, see gdn_random_like()               */
    const char      *out;     /* the folder to make; must be absent or empty           */
    const char      *type;    /* "bf16" (default), "f16", "f32", "fp8"                 */
    int32_t          n_layer; /* 0: as released; else 4, 8, ...: the first n_layer     */
    bool             mtp;     /* with a draft head (default)                           */
    uint64_t         seed;    /* the same seed and shape give the same bytes           */
    gdn_random_progress_fn *progress; /* may be NULL                                   */
    void            *arg;      /* for progress                                         */
} gdn_random_opts;

GDN_API void gdn_random_defaults(gdn_random_opts *o);

/* The names of the shapes, in order of size; NULL past the last. */
GDN_API const char *gdn_random_like(int32_t i);

/* The bytes that gdn_random_model() would write as tensors.  Writes nothing. */
GDN_API gdn_status gdn_random_size(const gdn_random_opts *o, uint64_t *bytes,
                                   gdn_err *err);

/* Write a checkpoint with the shape of a released model and random weights: what it says
 * has no meaning, but it loads, runs and takes the time and memory of the real one.
 * The folder holds model.safetensors with the published tensor names, config.json,
 * generation_config.json, tokenizer.json of the model's vocabulary, tokenizer_config.json
 * and chat_template.jinja.  Models with a vision tower come without it.
 *
 * Takes a second or two for each 1.5 GB, on one thread, and little memory.
 *
 * GDN_E_INVALID      an unknown shape or type, n_layer that is not a multiple of 4
 * GDN_E_UNSUPPORTED  "q8_0", "q4_0": types that safetensors files do not have
 * GDN_E_IO           the folder is not empty, cannot be written, or the disk is too full
 * GDN_E_CANCELLED    progress returned false
 * After a failure no file of the new checkpoint is left. */
GDN_API gdn_status gdn_random_model(const gdn_random_opts *o, gdn_err *err);

/* --- logits to a file --------------------------------------------------------- */

typedef struct {
    const int32_t *tokens;     /* [n] ids, evaluated as one sequence                    */
    int32_t        n;
    const int32_t *positions;  /* [n_position] rows to write, in this order, none twice; */
    int32_t        n_position; /* NULL: all of them                                     */
    bool           mtp;        /* write the draft head's logits too (default)           */
    const gdn_engine_opts *engine; /* n_row and block_size count; NULL: defaults        */
    const gdn_adapter *adapter;/* NULL: none                                            */
    const char    *path;       /* the safetensors file to make                          */
    gdn_progress_fn *progress; /* in tokens; may be NULL                                */
    void          *arg;
} gdn_logits_opts;

GDN_API void gdn_logits_defaults(gdn_logits_opts *o);

/* Evaluate tokens and write "logits" [T, vocab] f32 and, with a draft head, "mtp_logits"
 * [T - 1, vocab]: row t of the latter is its guess at token t + 2.  With positions the rows
 * are theirs; the last token has no row in mtp_logits.
 *
 * Without positions memory stays bounded however many tokens there are; rows of the draft
 * head wait in an unnamed file beside path.
 *
 * More tokens than the model's context are evaluated all the same: that is for the caller to
 * judge.
 *
 * GDN_E_INVALID  no tokens, an id or a position out of range or twice
 * GDN_E_FULL     more than 2^30 tokens
 * GDN_E_IO       the file cannot be written
 * No file is left after a failure. */
GDN_API gdn_status gdn_logits_write(gdn_model *m, const gdn_logits_opts *o, gdn_err *err);

/* --- perplexity ------------------------------------------------------------------ */

typedef struct {
    const int32_t *tokens; /* [n], at least two                                           */
    int32_t        n;
    int32_t        n_ctx;  /* tokens of a window; 0: the model's context                  */
    const gdn_engine_opts *engine; /* n_row and block_size count; NULL: defaults          */
    const gdn_adapter *adapter;    /* NULL: none                                          */
    gdn_progress_fn *progress;     /* in tokens; may be NULL                              */
    void          *arg;
} gdn_perplexity_opts;

typedef struct {
    double  nll;      /* mean of -log p(next token), natural logarithm; perplexity is e^nll */
    int64_t n_scored; /* tokens it is the mean of: all but the first of every window      */
    int32_t n_window; /* 1 when the text fits the context                                 */
    double  seconds;
} gdn_perplexity_result;

/* How well the model expects a text.  A text longer than the context is cut into windows,
 * each begun afresh. */
GDN_API gdn_status gdn_perplexity(gdn_model *m, const gdn_perplexity_opts *o,
                                  gdn_perplexity_result *out, gdn_err *err);

/* --- speed ---------------------------------------------------------------------- */

enum { GDN_BENCH_MAX_DEPTH = 16, GDN_BENCH_MAX_REP = 64, GDN_BENCH_MAX_KERNEL = 64 };

typedef struct {
    int32_t n_prompt, n_new;  /* tokens read and generated: 512 and 32                    */
    int32_t depth[GDN_BENCH_MAX_DEPTH]; /* tokens in the cache before: 0                  */
    int32_t n_depth;
    int32_t n_rep;            /* 3                                                        */
    bool    kernels;          /* run each row once more and take the times of kernels     */
    gdn_engine_opts engine;   /* n_row and block_size count                               */
    gdn_progress_fn *progress;/* runs done, runs in all; may be NULL                      */
    void   *arg;
} gdn_bench_opts;

GDN_API void gdn_bench_defaults(gdn_bench_opts *o);

typedef struct {
    double median, min, max;
} gdn_spread;

/* The machine's limits, measured between the runs.  0: not known for this device. */
typedef struct {
    gdn_spread read_bytes, f32_flops, bf16_flops; /* per second                           */
    gdn_spread region_us;                         /* one parallel region                  */
} gdn_bench_limits;

/* One kind of run at one depth.  Shares are of the limits' medians; 0: not known. */
typedef struct {
    bool    is_prompt;
    int32_t depth, n_tok;
    gdn_spread speed;         /* tokens/s                                                 */
    double  flops, bytes;     /* of one token, counted: see bench.c                       */
    double  regions;          /* of one token                                             */
    double  flops_share;      /* prompt: of the bf16 (or f32) peak                        */
    double  read_share;       /* generation: of the memory bandwidth                      */
    double  sync_share;       /* of the time: regions x their cost                        */
    int32_t n_kernel;         /* with `kernels`: those of the run that was timed, those that took
                                 most first; sums over all its tokens                     */
    gdn_kernel_time kernel[GDN_BENCH_MAX_KERNEL];
} gdn_bench_row;

typedef struct {
    gdn_bench_row    row[2 * GDN_BENCH_MAX_DEPTH];
    int32_t          n_row, n_thread;
    bool             bf16;    /* flops_share is of the bf16 peak                          */
    gdn_bench_limits limits;
} gdn_bench_result;

/* Measure prompt and generation speed next to the machine's limits.
 *
 * A repetition measures the limits and then runs every row once, so that a machine that is
 * faster for a while is so for both.
 *
 * GDN_E_INVALID      an option is out of range, or depth + n_prompt exceeds the context
 * GDN_E_UNSUPPORTED  kernels: the device has no clock for them (the cpu) */
GDN_API gdn_status gdn_bench_run(gdn_model *m, const gdn_bench_opts *o, gdn_bench_result *out,
                                 gdn_err *err);

/* Prompt tokens that had to be computed in some courses of conversation. */
typedef struct {
    const char *what;
    int64_t prompt, computed; /* tokens of the prompts; of these evaluated */
} gdn_reuse_row;
enum { GDN_REUSE_ROWS = 6 };
/* path: a file for a saved session, which is left behind. */
GDN_API gdn_status gdn_bench_reuse(gdn_model *m, const char *path,
                                   gdn_reuse_row row[GDN_REUSE_ROWS], gdn_err *err);

/* Requests at once against one after the other, in turns. */
typedef struct {
    int32_t n_request, n_prompt, n_new, n_row, n_draft, n_rep;
} gdn_bench_batch_opts;
typedef struct {
    gdn_spread one, all;      /* tokens per second, of prompts and answers                */
    double     own_share;     /* of the time of steps: what is not the model's            */
} gdn_bench_batch_result;
GDN_API void       gdn_bench_batch_defaults(gdn_bench_batch_opts *o);
GDN_API gdn_status gdn_bench_batch(gdn_model *m, const gdn_bench_batch_opts *o,
                                   gdn_bench_batch_result *out, gdn_err *err);

/* One answer with drafts and without, in turns. */
typedef struct {
    gdn_spread with, without, ratio; /* generated tokens per second                       */
    double     accepted;             /* share of drafts that were right                   */
} gdn_bench_draft_result;
GDN_API gdn_status gdn_bench_draft(gdn_model *m, const gdn_request_opts *o, int32_t n_draft,
                                   int32_t n_rep, gdn_bench_draft_result *out, gdn_err *err);

/* --- recorded calls of gdn_attention() -------------------------------------------- */

enum { GDN_OP_CORE, GDN_OP_Z, GDN_OP_CONV_STATE, GDN_OP_SSM_STATE, GDN_OP_N_OUTPUT };

/* What the files call an output: "core_attn_out", "z", "conv_state", "ssm_state"; else NULL. */
GDN_API const char *gdn_op_output_name(int32_t i);

/* How a call is made: gdn_attention() in both forms of the delta rule, and gdn_causal_conv1d() and
 * gdn_delta_rule() one after the other. */
enum { GDN_OP_RECURRENT, GDN_OP_CHUNKED, GDN_OP_RECURRENT_STAGES, GDN_OP_CHUNKED_STAGES,
       GDN_OP_N_FORM };

/* "recurrent", "chunked", "recurrent_stages", "chunked_stages"; else NULL. */
GDN_API const char *gdn_op_form_name(int32_t i);

/* Errors of what the call has to write, the larger of two runs; rel_l2 is relative to the rows
 * written or to the whole pool.  NaN equals NaN; a number against NaN or infinity is an infinite
 * error. */
typedef struct {
    double  max_abs, rel_l2;
    double  bound;     /* of rel_l2; 0: bit for bit                                        */
    int64_t n_differ;  /* elements that had to be exact, or to be kept, and are not; with
                          stages also those that are not gdn_attention()'s bit for bit     */
    bool    pass;
} gdn_op_vector_error;

typedef struct {
    gdn_op_vector_error out[GDN_OP_N_OUTPUT];
    int64_t n_stray;   /* bytes changed that the call must not touch                       */
    bool    pass;
} gdn_op_form_result;

typedef struct {
    char    kind[64];  /* "bf16/f32 SD parts 2+1+0": types of rows and of states, layouts of
                          conv_state and rows, numbers of prefills + decodes + drafts      */
    gdn_op_form_result form[GDN_OP_N_FORM];
    bool    pass;
} gdn_op_vector_result;

/* Run the call that a safetensors file records, in every form, and compare its outputs.
 *
 *   device  as for gdn_device_open(), and opts; both may be NULL
 *   out     written only on GDN_OK, which an error beyond its bound is too
 *
 * The file has the arguments by the names of vLLM's operator, scalars as strings in its metadata
 * (with null_slot, conv_layout SD or DS, conv_width, conv_lines, dtype, ssm_dtype), outputs with
 * what they hold before, and expect.NAME: what they hold afterwards, whole pools.
 *
 * Each form runs twice: all tensors dense, and both pools in pages with NaN between them and
 * around all tensors.  Rows and slots that no sequence covers must keep their bytes.
 *
 * Bounds of the relative L2 error: z and conv_state exact; core and f32 states as gdn_delta_form
 * says for the type of the rows; states in 16 bits as core of the coarser type.
 *
 * GDN_E_FORMAT   not such a file: names what is missing or wrong
 * GDN_E_INVALID  gdn_attention() refused the arguments */
GDN_API gdn_status gdn_op_vector_run(const char *path, const char *device,
                                     const gdn_device_opts *opts, gdn_op_vector_result *out,
                                     gdn_err *err);

/* --- what a cache will look like ---------------------------------------------------- */

/* Fill with gdn_plan_defaults() and set by name. */
typedef struct {
    const char *model;      /* a folder with config.json, or that file; weights are not needed */
    const char *like;       /* or a released shape, see gdn_random_like(); one of the two      */
    const char *type;       /* weights of such a shape: "bf16" (default), "f16", "f32", "fp8"  */
    const char *device;     /* as for gdn_device_open(), but it need not be present; NULL: the
                               default one                                                     */
    const char *mode;       /* states that are kept: "none" (default): the last one of a
                               sequence; "align": also those at ends of blocks that a prefill
                               reached; "all": also those at every block's end                 */
    const char *kv_type;    /* keys and values: "bf16" (default), "f16", "f32", "fp8"          */
    const char *conv_type;  /* convolution states: "bf16" (default, as in vLLM), "f16", "f32"
                               (what this library's engine keeps)                              */
    const char *state_type; /* recurrent states: "f32" (default), "bf16", "f16"                */
    int32_t     tp;         /* shards that the heads are divided among: 1                      */
    int32_t     n_draft;    /* tokens a step may draft: 0, up to 64                            */
    bool        mtp;        /* count the draft head where the model has one (default)          */
    int32_t     block_size; /* tokens; 0: the rule decides                                     */
    int32_t     mamba_block_size; /* mode "all": tokens between states are a multiple of this;
                               0: of the delta rule's chunk of 64                              */
    int32_t     n_ctx;      /* tokens of a sequence; 0: what the model was made for            */
    uint64_t    memory_bytes; /* of one device, for weights and cache; 0: not known            */
} gdn_plan_opts;

GDN_API void gdn_plan_defaults(gdn_plan_opts *o);

/* Bytes are those of one shard; strings live as long as the program. */
typedef struct {
    const char *arch, *device, *mode, *kv_type, *conv_type, *state_type;
    const char *weight_type;            /* "bf16", "f16", "f32", "fp8"                         */
    int32_t  n_layer, n_full, n_linear;
    bool     has_mtp;                   /* a draft head, with one layer of attention, counts   */
    int32_t  tp, n_draft;
    int32_t  hq, hkv, head_dim, hk, hv, dk, dv, conv_width; /* heads: of the shard             */

    int32_t  kv_multiple, gdn_multiple; /* what the device asks for                            */
    int32_t  align;                     /* the block size is a multiple of this                */
    int32_t  block_size;                /* tokens of a page with keys and values               */
    int32_t  mamba_block_size;          /* tokens between kept states; 0: only the last is kept */
    uint64_t page_bytes;                /* of one layer                                        */
    uint64_t kv_bytes_per_token;        /* of one layer                                        */
    uint64_t conv_bytes, state_bytes;   /* of one layer: the parts of a state                  */
    uint64_t padding_bytes;             /* behind a state in its page                          */
    double   waste;                     /* page / state - 1; 0 without states                  */

    int32_t  n_attn;                    /* layers with keys and values, the draft head's too   */
    int32_t  n_storage, n_group;        /* tensors of the pool; groups of linear layers        */
    uint64_t pool_page_bytes;           /* of a page in all storages                           */

    int32_t  n_ctx;                     /* tokens of a sequence                                */
    int64_t  kv_pages, state_pages;     /* of such a sequence: see gdn_plan()                  */
    uint64_t sequence_bytes;

    uint64_t weight_bytes;              /* as stored, without a vision tower                   */
    uint64_t cache_bytes;               /* memory_bytes less weights; these are 0 without it   */
    int64_t  n_page;                    /* pages of the pool, without the one that stays empty */
    int64_t  n_seq;                     /* sequences of n_ctx tokens that fit                  */
    int64_t  max_tokens;                /* of one sequence alone, at most 2^31 - 1             */
} gdn_plan_result;

/* The page size of a model's cache on a device and what fits into its memory, from config.json
 * alone.
 *
 * A sequence holds a page of keys and values for every block_size tokens and, in each group of
 * linear layers, 1 state (mode "none"), 2 (the running one and one kept: "align") or one a block
 * ("all"), and one more for each drafted token, which is how gdn_attention() verifies drafts (the
 * engine here keeps their raw rows instead, a few kB).  Work space of a pass is not counted.
 *
 * GDN_E_INVALID      an option is out of range: names the value and what it may be; a block size
 *                    that does not work: names the smallest that does; heads that tp does not
 *                    divide
 * GDN_E_IO, GDN_E_FORMAT, GDN_E_UNSUPPORTED   config.json, as for gdn_model_open()
 * *out is written only on GDN_OK. */
GDN_API gdn_status gdn_plan(const gdn_plan_opts *o, gdn_plan_result *out, gdn_err *err);

#ifdef __cplusplus
}
#endif
#endif
