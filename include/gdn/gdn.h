/* gdn.h - models, the engine, sequences and sampling.
 *
 *     gdn_model    a checkpoint bound to a device        any number of engines use it
 *     gdn_engine   the cache's pages, one step's workspace, and requests in turn
 *     gdn_request  a prompt and its answer
 *     gdn_seq      one sequence of tokens in an engine, for callers who want logits
 *     gdn_sampler  chooses the next token of one sequence
 *
 * A model is read only after it was opened and may be shared by threads; an engine with its
 * requests and sequences belongs to one thread at a time (only gdn_request_cancel() may be called
 * by any).  Close things in the reverse order. */
#ifndef GDN_H
#define GDN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"
#include "status.h"
#include "text.h"

#ifdef __cplusplus
extern "C" {
#endif

GDN_API const char *gdn_version(void);

/* --- devices ---------------------------------------------------------------- */

typedef struct {
    char     name[32];        /* what --device takes: "cpu"                              */
    char     description[128];/* "AMD EPYC, 2 threads, avx512bf16"                       */
    uint64_t memory_bytes;    /* what the device can use                                 */
} gdn_device_info;

/* The devices of this machine, the default one first (a GPU: if it passes its start-up check).
 * Writes at most n; returns how many there are. */
GDN_API int gdn_devices(gdn_device_info *out, int n);
/* The one that --device name takes; NULL: the default.  Does not look at devices of other kinds, some
 * of which take a while to be found.  GDN_E_INVALID: there is none of that name. */
GDN_API gdn_status gdn_device_find(const char *name, gdn_device_info *out, gdn_err *err);

/* --- models ----------------------------------------------------------------- */

typedef struct gdn_model gdn_model;

typedef enum {
    GDN_MATH_FAST, /* keys, values and, where the machine gains from it (AMX, or AVX512_BF16
                      on AMD's cores), inputs of matrix products are rounded to bf16; not in
                      models of less than 8 MiB, which would gain nothing                  */
    GDN_MATH_F32,  /* everything in f32                                                   */
} gdn_math;

/* Called now and then with the share done; must return soon. */
typedef void gdn_progress_fn(void *arg, uint64_t done, uint64_t total);

typedef struct {
    const char *device;       /* "cpu", "cpu:4" (threads), "xpu"; NULL: a GPU that holds the
                                 weights and passes its check, else the cpu (op.h)        */
    int         n_thread;     /* 0: as the device says, or every CPU                      */
    bool        pin;          /* bind threads to CPUs                                     */
    gdn_math    math;
    bool        dry_run;      /* a device whose results mean nothing is tried: see below   */
    gdn_progress_fn *progress;/* loading; may be NULL                                     */
    void       *progress_arg;
    bool        no_selftest;  /* a device that is named is not checked (gdn_device_check())  */
} gdn_model_opts;
GDN_API void gdn_model_opts_defaults(gdn_model_opts *o);

/* dry_run: a driver that takes every call and runs no kernel, as Intel's does for a GPU that is not
 * there, can carry a whole program.  All calls are made and checked; what comes back is not looked
 * at, and token 0 is the likeliest always.  On the cpu it changes nothing. */

/* Open the checkpoint in a folder (config.json and safetensors).
 *
 * Weights are mapped; matrices are repacked once, and their file pages given back.
 * GDN_E_DEVICE: the device is not there, or computes wrong: err names operator and error.
 * GDN_E_IO, GDN_E_FORMAT: err names file, tensor and values.  GDN_E_UNSUPPORTED: an
 * architecture or an option that would change results. */
GDN_API gdn_status gdn_model_open(const char *dir, const gdn_model_opts *opts, gdn_model **out,
                                  gdn_err *err);
GDN_API void       gdn_model_close(gdn_model *m);

/* Whether this build can run what DIR/config.json describes; reads nothing else. */
GDN_API gdn_status gdn_model_check(const char *dir, gdn_err *err);

/* What generation_config.json recommends; a field is used only where its flag is set. */
typedef struct {
    bool  has_temperature, has_top_k, has_top_p, has_min_p;
    bool  has_presence, has_frequency, has_repetition;
    bool  greedy; /* do_sample is false */
    float temperature, top_p, min_p, presence, frequency, repetition;
    int32_t top_k;
} gdn_sampling_hints;

typedef struct {
    const char *dir, *arch;   /* arch: model_type, "qwen3_5_text"                         */
    const char *weight_type;  /* of most of the matrices' bytes: "bf16"                   */
    int32_t  n_layer, n_full; /* layers, and those with full attention                    */
    int32_t  d, vocab, context;
    int32_t  hq, hkv, head_dim, lin_hk, lin_hv, lin_dk, lin_dv, conv_width;
    int32_t  n_expert, n_expert_used;
    bool     tied, has_mtp, has_vision;
    uint64_t parameters;      /* elements of all tensors, vision left out                 */
    uint64_t file_bytes, resident_bytes; /* resident: packed matrices                     */
    uint64_t active_bytes;    /* weight bytes one token reads                             */
    double   active_flops;    /* floating-point operations of matrix products, one token  */
    const int32_t *stop;      /* ids that end a reply                                     */
    int32_t  n_stop;
    gdn_sampling_hints hints;
} gdn_model_info;
GDN_API const gdn_model_info *gdn_model_get_info(const gdn_model *m);

/* --- adapters ---------------------------------------------------------------- */

/* A low-rank adapter (LoRA) of a model: small matrices that are added to products of the rows
 * that ask for it.  Several may be open at once; sequences choose. */
typedef struct gdn_adapter gdn_adapter;

/* Open adapter_config.json and adapter_model.safetensors of a folder, as PEFT writes them.
 *
 *   scale  multiplies what the file says (lora_alpha / r, or / sqrt(r) for rslora); 1 as trained
 *
 * Not while an engine of the model evaluates.  GDN_E_FORMAT and GDN_E_UNSUPPORTED name the tensor
 * or option; GDN_E_FULL: GDN_MAX_ADAPTER are open already. */
enum { GDN_MAX_ADAPTER = 64 };
GDN_API gdn_status gdn_adapter_open(gdn_model *m, const char *dir, float scale,
                                    gdn_adapter **out, gdn_err *err);
/* After every sequence that uses it is gone, and before the model. */
GDN_API void gdn_adapter_close(gdn_adapter *a);

/* --- engine ----------------------------------------------------------------- */

typedef struct gdn_engine gdn_engine;
typedef struct gdn_seq    gdn_seq;

#define GDN_CACHE_AUTO UINT64_MAX

typedef struct {
    int32_t n_ctx;      /* tokens the pool must hold over all sequences; 0: the model's
                           context or what memory allows, whichever is less.  More than the
                           model was made for is logged, not refused                      */
    int32_t n_seq;      /* sequences at a time: further requests wait                     */
    int32_t n_row;      /* rows of one step: a longer prompt is read in pieces            */
    int32_t block_size; /* tokens of a cache page; 0: the rule's choice                   */
    bool    mtp;        /* run the MTP head beside the model (when there is one)          */
    int32_t n_draft;    /* tokens to draft ahead at most, 0 to 4: by the MTP head, or from the
                           text itself where the model has none.  Changes no result; with
                           it a sequence takes a second page of states of each group      */
    uint64_t cache_bytes; /* for snapshots, on top of n_ctx tokens; 0: none are kept.
                           GDN_CACHE_AUTO: a few for each sequence, in the pool's own unused
                           pages as well                                                  */
    int32_t save_every; /* snapshots at multiples of this many tokens; 0: 2048            */
} gdn_engine_opts;
GDN_API void gdn_engine_opts_defaults(gdn_engine_opts *o);

/* Takes all its memory here; evaluation allocates nothing.
 * GDN_E_INVALID: an option is out of range.  GDN_E_NOMEM: err says how much was asked for. */
GDN_API gdn_status gdn_engine_create(gdn_model *m, const gdn_engine_opts *opts, gdn_engine **out,
                                     gdn_err *err);
GDN_API void       gdn_engine_free(gdn_engine *e);

typedef struct {
    int32_t  n_ctx, n_seq, n_row, block_size;
    uint64_t page_bytes, pool_bytes, workspace_bytes;
    uint64_t n_page, n_page_used;
    uint64_t steps, rows, regions; /* since creation: steps, rows evaluated, parallel regions or launches
                                      (of the device: other engines' count too)            */
    /* Since creation: times that the host waited for the device.  Once a step; again for logits beyond
     * the first 32 MB of a step, for each guess of an MTP head, for a row of logits whose largest did
     * not decide, and in saving a session. */
    uint64_t waits;
    /* Of the device since it was opened: calls that its driver accepted, kernels launched; passes over
     * the model whose launches were noted, and those that were made again as one call. */
    uint64_t calls, launches, recorded, replayed;
    int32_t  n_running, n_waiting; /* requests                                             */
    uint64_t prompt_tokens, cached_tokens; /* of prompts: all, and those not evaluated      */
    uint64_t n_snapshot, snapshot_bytes, snapshot_most; /* now, and the budget              */
    uint64_t lookups, hits, saved, evicted, preempted;
    uint64_t drafted, accepted;    /* tokens                                               */
    double   model_us, total_us;   /* of gdn_engine_step(): in the model, and all          */
} gdn_engine_stats;
GDN_API void gdn_engine_get_stats(const gdn_engine *e, gdn_engine_stats *out);

/* GDN_E_FULL: n_seq sequences exist already. */
GDN_API gdn_status gdn_seq_create(gdn_engine *e, gdn_seq **out, gdn_err *err);
GDN_API void       gdn_seq_free(gdn_seq *s); /* its pages go back to the pool */
GDN_API int32_t    gdn_seq_length(const gdn_seq *s);
/* NULL: none.  GDN_E_INVALID: the sequence holds tokens already, or a is of another model. */
GDN_API gdn_status gdn_seq_set_adapter(gdn_seq *s, const gdn_adapter *a, gdn_err *err);

/* Tokens to add to one sequence, and the logits wanted from them.
 *
 *   tokens  [n] ids in [0, vocab)
 *   out     [n_out] ascending indices of tokens; n_out 0 wants none.  For the last token
 *           only: out = &(int32_t){n - 1}
 *   logits  [n_out][vocab] f32 before softmax: row i follows tokens[out[i]]
 *   mtp     [n_out][vocab] f32 or NULL: the MTP head's guess at the token after the next;
 *           row i needs tokens[out[i] + 1], so out[i] < n - 1 */
typedef struct {
    gdn_seq       *seq;
    const int32_t *tokens;
    int32_t        n;
    const int32_t *out;
    int32_t        n_out;
    float         *logits;
    float         *mtp;
} gdn_work;

/* Evaluate work for any number of sequences, each at most once, in shared passes of at most
 * n_row rows.  A sequence's results do not depend, bit for bit, on what else is in the call
 * or how its tokens were spread over calls.
 *
 *   progress  may be NULL; called after every pass
 *   cancel    may be NULL; looked at after every pass: true ends the call
 *
 * GDN_E_INVALID: empty work, an id or index out of range       nothing changed
 * GDN_E_FULL:    a sequence would exceed the pool               nothing changed
 * GDN_E_CANCELLED: sequences hold what was evaluated            gdn_seq_length() tells
 * GDN_E_DEVICE:  see err; the sequences must be freed */
GDN_API gdn_status gdn_engine_eval(gdn_engine *e, const gdn_work *work, int32_t n_work,
                                   gdn_progress_fn *progress, void *progress_arg,
                                   const volatile bool *cancel, gdn_err *err);

/* --- sampling --------------------------------------------------------------- */

/* In the order of application.  Penalties count generated tokens only. */
typedef struct {
    float    repetition;  /* 1: off.  Divides positive and multiplies negative logits      */
    float    presence;    /* 0: off.  Subtracted once from tokens seen                     */
    float    frequency;   /* 0: off.  Subtracted for every time seen                       */
    float    temperature; /* 0: greedy, the largest logit                                  */
    int32_t  top_k;       /* 0: off                                                        */
    float    top_p;       /* 1: off                                                        */
    float    min_p;       /* 0: off                                                        */
    uint64_t seed;
} gdn_sampling;
GDN_API void gdn_sampling_defaults(gdn_sampling *s); /* temperature 1, all else off, seed 0 */

typedef struct gdn_sampler gdn_sampler;

/* n_valid: ids at or beyond it are padding of the vocabulary and never chosen.
 * GDN_E_INVALID names the field that is out of range. */
GDN_API gdn_status gdn_sampler_create(const gdn_sampling *s, int32_t vocab, int32_t n_valid,
                                      gdn_sampler **out, gdn_err *err);
GDN_API void       gdn_sampler_free(gdn_sampler *s);

/* Choose from logits [vocab] and count the choice.  GDN_E_DEVICE: a logit is +infinity, or none
 * is finite. */
GDN_API gdn_status gdn_sampler_next(gdn_sampler *s, const float *logits, int32_t *id,
                                    gdn_err *err);

/* --- requests ------------------------------------------------------------------
 *
 * The engine reads prompts and writes answers of many requests at once: every step takes the next
 * token of each answer and, with the rows left, pieces of prompts.  What shares a step changes
 * no result: a request with temperature 0, or a seed, gives the same tokens alone, in any
 * company, and from a snapshot, with drafts or without.
 *
 *     gdn_request_submit(engine, &opts, &req, &err);
 *     while (gdn_engine_busy(engine) && gdn_engine_step(engine, &err) == GDN_OK) {}
 *     gdn_request_get_result(req, &result);
 *     gdn_request_free(req); */

typedef enum { GDN_FINISH_LENGTH, GDN_FINISH_STOP, GDN_FINISH_STOP_STRING, GDN_FINISH_CANCELLED,
               GDN_FINISH_FULL, /* the pool has no room for it                             */
               GDN_FINISH_ERROR /* its own failure; logits that are NaN, infinite or all equal
                                   are one, GDN_E_DEVICE                                   */
} gdn_finish;

/* One generated token: its id and the characters that became complete with it (perhaps none;
 * text that might be the beginning of a stop string is held back).  A last call with id -1 gives
 * out what was still held back when the pool became full.  Return false to stop. */
typedef bool gdn_token_fn(void *arg, int32_t id, const char *text, size_t n);

typedef struct {
    const int32_t *prompt;      /* [n_prompt], at least one                               */
    int32_t  n_prompt;
    int32_t  max_new;           /* tokens to generate at most; 0: until the pool is full  */
    gdn_sampling sampling;
    const gdn_adapter *adapter; /* NULL: none                                             */
    const gdn_tokenizer *tokenizer; /* for text and stop strings; may be NULL             */
    const int32_t *stop;        /* ids that end the answer (reported, not shown)          */
    int32_t  n_stop;
    const char *const *stop_text; /* strings that end the answer and are not shown        */
    int32_t  n_stop_text;
    bool     show_special;
    const int32_t *save;        /* [n_save] ascending lengths of prefixes that later prompts are
                                   likely to share, say the ends of messages              */
    int32_t  n_save;
    gdn_token_fn    *on_token;  /* may be NULL                                            */
    gdn_progress_fn *on_prompt; /* progress of reading the prompt, in tokens; may be NULL */
    void    *arg;
} gdn_request_opts;
GDN_API void gdn_request_opts_defaults(gdn_request_opts *o);

typedef struct gdn_request gdn_request;

typedef struct {
    bool       done;
    gdn_finish finish;              /* when done                                          */
    gdn_status status;              /* GDN_FINISH_ERROR: why                              */
    int32_t    n_prompt, n_new;     /* n_new counts the stop token                        */
    int32_t    n_cached;            /* prompt tokens that came from a snapshot            */
    int32_t    n_computed;          /* prompt tokens evaluated, after preemption again    */
    int32_t    n_drafted, n_accepted;
    double     wait_us, prompt_us, new_us;
} gdn_request_result;

/* Everything but the tokenizer and the adapter is copied.  The request waits its turn.
 * GDN_E_INVALID: an option is out of range.  GDN_E_FULL: the prompt can never fit the pool. */
GDN_API gdn_status gdn_request_submit(gdn_engine *e, const gdn_request_opts *o, gdn_request **out,
                                      gdn_err *err);
/* From any thread: the request ends with its next token or at the next step. */
GDN_API void gdn_request_cancel(gdn_request *r);
GDN_API void gdn_request_get_result(const gdn_request *r, gdn_request_result *out);
/* The generated tokens so far: [n_new], valid until the next step. */
GDN_API const int32_t *gdn_request_tokens(const gdn_request *r);
/* Why a request ended with GDN_FINISH_ERROR. */
GDN_API const char *gdn_request_error(const gdn_request *r);
/* Wherever it is; what it held goes back, from a callback after the step.  No callback of it comes
 * any more. */
GDN_API void gdn_request_free(gdn_request *r);

/* Is there a request that is not done? */
GDN_API bool gdn_engine_busy(const gdn_engine *e);
/* One step for all requests, with their callbacks, which may submit, cancel and free requests and
 * nothing else.  A request's own failure ends that request.  Any other status: the requests that
 * were in the step are lost and ended with GDN_FINISH_ERROR; the engine goes on. */
GDN_API gdn_status gdn_engine_step(gdn_engine *e, gdn_err *err);

/* --- a whole answer ---------------------------------------------------------- */

/* Submit one request and step until it is done.  cancel may be NULL; looked at between steps. */
GDN_API gdn_status gdn_generate(gdn_engine *e, const gdn_request_opts *o,
                                const volatile bool *cancel, gdn_request_result *out,
                                gdn_err *err);

/* --- saved sessions ------------------------------------------------------------ */

/* Save the snapshots along these tokens, and a note of the caller's, to a file (of mode 0600) that
 * replaces the old one at once: whenever the program dies, one of the two is there.  PATH.tmp is
 * used on the way.  GDN_E_IO names the file. */
GDN_API gdn_status gdn_session_save(gdn_engine *e, const gdn_adapter *a, const int32_t *tokens,
                                    int32_t n, const void *note, size_t n_note, const char *path,
                                    gdn_err *err);
/* Bring them back: prompts that begin with their tokens reuse them.  Where there is no room for
 * all, the longest that fit are kept.  *note is malloc'ed, also when it is empty, and ends in a zero
 * byte that *n_note does not count; both may be NULL.
 * GDN_E_IO: no such file, or unreadable.  GDN_E_FORMAT: damaged.  GDN_E_UNSUPPORTED: of another
 * model, adapter, precision or version, or saved without the MTP head and loaded with it.  None of
 * these changes the engine. */
GDN_API gdn_status gdn_session_load(gdn_engine *e, const gdn_adapter *a, const char *path,
                                    void **note, size_t *n_note, gdn_err *err);

#ifdef __cplusplus
}
#endif
#endif
