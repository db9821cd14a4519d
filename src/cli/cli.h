/* cli.h - what the commands share: the table of commands, the common options, opening a
 * model, reading input, messages.
 *
 * A command returns its exit code.  Helpers return 0, or the exit code after they have
 * printed the message. */
#ifndef GDN_CLI_H
#define GDN_CLI_H

#include <gdn/gdn.h>
#include <gdn/tools.h>

#include <limits.h>
#include <stdio.h>

#include "opt.h"

typedef int cli_command_fn(int argc, char **argv);
cli_command_fn cli_run, cli_chat, cli_logits, cli_perplexity, cli_tokenize, cli_template,
    cli_info, cli_random, cli_bench, cli_devices, cli_op, cli_plan;

/* --- messages ------------------------------------------------------------------ */

/* The name that messages begin with: "run". */
void cli_begin(const char *command);

/* "gdn run: ..." on stderr; returns 1. */
int cli_error(const char *fmt, ...) GDN_PRINTF(1, 2);
int cli_fail(const gdn_err *err);

/* Log lines to stderr: warnings, all of them, or none. */
void cli_log(bool quiet, bool verbose);

/* Flush stdout; rc, or 1 when what was written did not arrive. */
int cli_end(int rc);

/* A bar on stderr when that is a terminal.  done() is a gdn_progress_fn. */
typedef struct {
    const char *what, *unit; /* "prompt", "tok" */
    bool   on;
    double start, drawn;     /* seconds */
} cli_bar;
void cli_bar_begin(cli_bar *b, const char *what, const char *unit, bool quiet);
void cli_bar_step(void *bar, uint64_t done, uint64_t total);
void cli_bar_end(cli_bar *b);

double cli_seconds(void);
/* "1.5 GiB" */
const char *cli_bytes(uint64_t n, char buf[32]);

/* --- options and models ---------------------------------------------------------- */

typedef struct {
    const char *model, *device, *math;
    int32_t threads, ctx, chunk, block_size;
    bool    pin, quiet, verbose;
    bool    plan;        /* tell what memory will be taken */
    bool    dry_run;     /* a device that runs no kernels  */
    opt_list    lora;    /* NAME=DIR[:SCALE] */
    const char *adapter; /* which of them, by name */
    int32_t     draft;   /* -1: as the model allows */
    const char *cache, *session;
} cli_common;

#define CLI_MODEL_OPTION(c) \
    { OPT_STR, 'm', "model", &(c)->model, "DIR", "the checkpoint's folder (default: the demo)", 0, 0, NULL }

#define CLI_COMMON_OPTIONS(c)                                                              \
    { OPT_HEAD, 0, "model and machine", NULL, NULL, NULL, 0, 0, NULL },                      \
    CLI_MODEL_OPTION(c),                                                                     \
    { OPT_STR, 0, "device", &(c)->device, "D", "where to compute: see gdn devices", 0, 0, NULL }, \
    { OPT_I32, 't', "threads", &(c)->threads, "N", "threads (default: every CPU)", 1, 4096, NULL }, \
    { OPT_TRUE, 0, "pin", &(c)->pin, NULL, "bind threads to CPUs", 0, 0, NULL },             \
    { OPT_STR, 0, "math", &(c)->math, "fast|f32", "f32: no rounding to bf16 in between", 0, 0, NULL }, \
    { OPT_I32, 0, "ctx", &(c)->ctx, "N", "tokens the cache holds", 1, INT32_MAX, NULL },      \
    { OPT_I32, 0, "chunk", &(c)->chunk, "N", "rows of one step: a prompt is read in pieces", 1, 1 << 20, NULL }, \
    { OPT_I32, 0, "block-size", &(c)->block_size, "N", "tokens of a cache page", 1, 1 << 20, NULL }, \
    { OPT_TRUE, 'q', "quiet", &(c)->quiet, NULL, "nothing on stderr but errors", 0, 0, NULL }, \
    { OPT_TRUE, 'v', "verbose", &(c)->verbose, NULL, "log lines on stderr", 0, 0, NULL }

#define CLI_LORA_OPTIONS(c)                                                                 \
    { OPT_LIST, 0, "lora", &(c)->lora, "NAME=DIR[:S]", "open an adapter (PEFT), S times as strong; repeatable", 0, 0, NULL }, \
    { OPT_STR, 0, "adapter", &(c)->adapter, "NAME", "the adapter to use, or none (default: the first)", 0, 0, NULL }

#define CLI_CACHE_OPTIONS(c)                                                                \
    { OPT_I32, 0, "draft", &(c)->draft, "N", "tokens to guess ahead at most (default: 3 with an MTP head)", 0, 4, NULL }, \
    { OPT_STR, 0, "cache", &(c)->cache, "SIZE", "memory for saved positions, say 2G; 0: none", 0, 0, NULL }, \
    { OPT_STR, 0, "session", &(c)->session, "FILE", "go on from FILE, and save there", 0, 0, NULL }

/* The text of an added token, as it could be typed. */
typedef struct {
    const char *text;
    size_t      n;
    int32_t     id;
} cli_added;

typedef struct {
    char        *name; /* malloc'ed; dir is part of it */
    const char  *dir;
    float        scale;
    gdn_adapter *adapter;
} cli_adapter;

typedef struct {
    char           dir[PATH_MAX];
    gdn_model     *model;
    const gdn_model_info *info;
    gdn_tokenizer *tok;
    gdn_template  *tmpl;
    cli_added     *added; /* [n_added] made when first needed */
    int            n_added;
    cli_adapter    adapter[OPT_LIST_MAX];
    int            n_adapter, active; /* active: -1 for none */
} cli_model;

enum { CLI_WEIGHTS = 1, CLI_TOKENIZER = 2, CLI_TEMPLATE = 4, CLI_TOKENIZER_IF_ANY = 8 };

/* Open what `parts` names of the model that -m or the defaults name. */
int  cli_open(cli_model *m, const cli_common *c, unsigned parts);
void cli_close(cli_model *m);

/* Adapters: cli_open() reads the names, then opens them; cli_close() closes. */
int  cli_adapter_names(cli_model *m, const cli_common *c);
int  cli_adapter_open(cli_model *m);
void cli_adapter_close(cli_model *m);
/* Its place, or -1. */
int  cli_adapter_find(const cli_model *m, const char *name);
/* Use the one of that name, or none. */
int  cli_adapter_choose(cli_model *m, const char *name);
const gdn_adapter *cli_adapter_active(const cli_model *m);
/* An engine for one request; need > 0: tokens it has to hold, when --ctx says nothing; cache: what
 * snapshots may take when --cache says nothing. */
int cli_engine(const cli_model *m, const cli_common *c, int64_t need, uint64_t cache,
               gdn_engine **e);
/* A size as people write it, "2G" or "512M"; -1: it is none. */
int64_t cli_size(const char *s);

/* What requests of run and chat have in common; stop has CLI_STOP_MAX places.  r->save is
 * malloc'ed: the ends of the prompt's messages. */
int  cli_request(const cli_model *m, const int32_t *ids, int32_t n, int32_t *stop,
                 gdn_request_opts *r);
/* One line on stderr: tokens and times of a request. */
void cli_tell_speed(const gdn_request_result *g);
/* --session: load FILE if it is there, with the caller's note; a file of something else is told and
 * left out.  Save it again. */
int  cli_session_load(const cli_model *m, const cli_common *c, gdn_engine *e, void **note,
                      size_t *n_note);
int  cli_session_save(const cli_model *m, const cli_common *c, gdn_engine *e, const int32_t *ids,
                      int32_t n, const void *note, size_t n_note);

/* --- input ---------------------------------------------------------------------- */

/* A whole file, or stdin for NULL or "-"; malloc'ed, with a NUL that is not counted. */
int cli_read(const char *path, char **text, size_t *n);

/* Ids separated by white space or commas, from "@FILE" or the text itself. */
int cli_ids(const char *arg, int32_t **ids, int32_t *n);

/* gdn_tokenize with a count that fits int32_t. */
int cli_encode(const cli_model *m, const char *text, size_t n, bool special, int32_t **ids,
               int32_t *n_ids);

/* --- output --------------------------------------------------------------------- */

/* A JSON string with quotes; bytes that are not UTF-8 become U+FFFD. */
void cli_json_string(FILE *f, const char *s, size_t n);
/* Bytes of the UTF-8 character at s, 0 when there is none. */
size_t cli_utf8_len(const char *s, size_t n);

/* --- conversations --------------------------------------------------------------- */

typedef struct {
    const char *role;
    const char *text;
    const char *reasoning; /* NULL: none */
    size_t      n, n_reasoning;
} cli_message;

/* A conversation as JSON text and back; texts are malloc'ed, roles are not. */
int cli_messages_write(const cli_message *msg, int n_msg, char **out, size_t *n);
int cli_messages_read(const char *json, size_t n, cli_message **out, int *n_out);

typedef enum { CLI_THINK_UNSET, CLI_THINK_ON, CLI_THINK_OFF } cli_think;

/* Render a conversation and turn it into ids, with a turn begun for the answer.  What the
 * messages say never becomes a turn mark: see prompt.c.  tools: JSON text or NULL. */
int cli_prompt(cli_model *m, const cli_message *msg, int n_msg, cli_think think,
               const char *tools, int32_t **ids, int32_t *n_ids);

/* --- bench ------------------------------------------------------------------------- */

typedef struct {
    bool        reuse, json;
    int32_t     batch, draft; /* requests at once; tokens to guess: one of the three is asked for */
    int32_t     n_prompt, n_new, n_rep;
    const char *text;         /* for drafts: the question */
} cli_bench_requests;
int cli_bench_requests_run(cli_model *m, const cli_bench_requests *b);

/* --- sampling -------------------------------------------------------------------- */

typedef struct {
    float    temp, top_p, min_p, presence, frequency, repetition;
    int32_t  top_k;
    uint64_t seed;
    bool     has_temp, has_top_p, has_min_p, has_presence, has_frequency, has_repetition,
        has_top_k, has_seed;
} cli_sampling;

#define CLI_SAMPLING_OPTIONS(s)                                                             \
    { OPT_HEAD, 0, "sampling (default: what the model recommends)", NULL, NULL, NULL, 0, 0, NULL }, \
    { OPT_F32, 0, "temp", &(s)->temp, "T", "temperature; 0: always the likeliest token", 0, 100, &(s)->has_temp }, \
    { OPT_I32, 0, "top-k", &(s)->top_k, "K", "among the K likeliest; 0: all", 0, INT32_MAX, &(s)->has_top_k }, \
    { OPT_F32, 0, "top-p", &(s)->top_p, "P", "among the likeliest that sum to P; 1: all", 0, 1, &(s)->has_top_p }, \
    { OPT_F32, 0, "min-p", &(s)->min_p, "P", "at least P times the likeliest; 0: all", 0, 1, &(s)->has_min_p }, \
    { OPT_F32, 0, "presence", &(s)->presence, "X", "penalty for tokens of the answer", -100, 100, &(s)->has_presence }, \
    { OPT_F32, 0, "frequency", &(s)->frequency, "X", "the same for every time", -100, 100, &(s)->has_frequency }, \
    { OPT_F32, 0, "repetition", &(s)->repetition, "X", "divides their logits; 1: off", 0.01, 100, &(s)->has_repetition }, \
    { OPT_U64, 0, "seed", &(s)->seed, "N", "the same seed gives the same answer", 0, 0, &(s)->has_seed }

/* The options over the model's hints over the family's values. */
void cli_sampling_resolve(const cli_sampling *s, const gdn_sampling_hints *h, gdn_sampling *out);

enum { CLI_STOP_MAX = 64 };
/* The ids that end an answer: the model's, <|im_end|> and <|endoftext|>; returns how many. */
int32_t cli_stop_ids(const cli_model *m, int32_t ids[CLI_STOP_MAX]);

const char *cli_finish_name(gdn_finish f);

#endif
