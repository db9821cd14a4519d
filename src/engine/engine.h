/* engine.h - the engine's structs, for the files of this folder and for tests.
 *
 *     requests   sched.c     who runs in the next step, and what becomes of its results
 *     sequences  seq.c       pages of one sequence of tokens
 *     snapshots  snapshot.c  saved positions in a radix tree
 *     steps      step.c      rows of several sequences through the model
 *     pages      pages.c     the pool */
#ifndef GDN_ENGINE_ENGINE_H
#define GDN_ENGINE_ENGINE_H

#include <gdn/gdn.h>

#include "../model/model.h"
#include "blocks.h"
#include "pages.h"
#include "radix.h"

enum {
    GDN_MAX_LOGIT = 64,
    GDN_MAX_DRAFT = 4,
    GDN_HIDDEN = 32,      /* hidden rows kept for a sequence that has an MTP head         */
    GDN_AUTO_SNAPSHOTS = 8, /* of a sequence, with GDN_CACHE_AUTO                         */
    GDN_MTP_BACKLOG = 24, /* tokens after which the MTP layer catches up                  */
};

struct gdn_seq {
    gdn_engine *e;
    int32_t  index;     /* in engine->seq                                          */
    int32_t  length;    /* tokens evaluated                                        */
    int32_t *page;      /* [max_block] of the attention group                      */
    int32_t  n_page;
    int32_t *slot;      /* [n_group] state pages                                   */
    int32_t *spare;     /* [n_group] pages for the states behind guesses; NULL without drafts */
    int32_t  adapter;   /* index of its adapter, -1 none                           */
    uint64_t key;       /* and what the adapter is, 0 none                         */
    int32_t  pending;   /* last tokens that the states do not hold yet: some of a step's
                           guesses, whose raw rows lie in the sequence's line      */
    int32_t  mtp_length;/* entries of the MTP layer's cache: pair t is (hidden row of
                           token t, token t + 1)                                   */
    int32_t  recent[GDN_HIDDEN]; /* token t at t % GDN_HIDDEN, the last ones       */
    bool     extended;  /* pages were taken for tokens to come                     */
    bool     broken;    /* a device failed in the middle                           */
};

/* One sequence's part of a step: its next n tokens. */
typedef struct {
    gdn_seq *seq;
    const int32_t *tokens;
    int32_t n;
    bool    keep;   /* a verification: tokens behind the first are guesses              */
    int32_t row;    /* of the step: its first                                           */
    int32_t pair;   /* after gdn_step_advance(): row of ws.last with the MTP head's output
                       for the sequence's last pair, -1 if it was not evaluated         */
} gdn_part;

/* A row of logits as far as the host has it: all of it where it lies in its memory. */
typedef struct {
    int32_t n_valid;      /* asked for: ids from here on do not count                  */
    int32_t k;            /* and how many of the largest do; 0: the whole row          */
    const float *all;     /* [vocab]; NULL: what follows is all there is               */
    const float *value;   /* [found] the k largest, as gdn_op_top_k() has them         */
    const int32_t *id;
    int32_t found;
    float   min;
} gdn_logits;

/* How far a gdn_work has come: next of its tokens, of its out rows, of its mtp rows. */
typedef struct {
    int32_t from, out, mtp_out;
} gdn_progress_of;

/* What the host writes for a step, at fixed places of one buffer. */
typedef struct {
    gdn_tensor ids, pos, seq_start, n_past, page, has_state, adapter;
    gdn_tensor last_adapter;        /* of the rows of ws.last, for the head        */
    gdn_tensor line, n_commit, keep;  /* of drafts */
    gdn_tensor slot[GDN_MAX_GROUP]; /* of each group of GDN layers               */
    gdn_tensor spare[GDN_MAX_GROUP];
    gdn_tensor out;                 /* rows that go through the head             */
    gdn_tensor n_valid;             /* of these: ids that count                  */
    gdn_tensor hidden;              /* MTP: the hidden row of each pair          */
} gdn_step_input;

/* A position of a sequence that can be returned to: snapshot.c. */
typedef struct gdn_snapshot gdn_snapshot;
struct gdn_snapshot {
    gdn_radix_node *node;   /* its tokens                                        */
    gdn_snapshot *prev, *next;
    int32_t *page;          /* [n_page] keys and values, shared                  */
    int32_t *slot;          /* [n_group] states, its own                         */
    int32_t  n_page, n_tok;
    uint64_t key;           /* of the adapter                                    */
    int32_t  hidden;        /* row of e->hidden: the last token's hidden row     */
    uint64_t used;          /* the tick of its last use                          */
    uint64_t n_use;         /* how often a request began there                   */
};

typedef struct {
    gdn_radix tree;
    gdn_snapshot *first;    /* all of them                                       */
    int32_t  n, most;       /* how many, and how many may be                     */
    int32_t  most_page;     /* pages that snapshots alone may hold               */
    int32_t *free_hidden;   /* stack of free rows of e->hidden                   */
    int32_t  n_free_hidden;
    uint64_t tick;
    uint64_t lookups, hits, hit_tokens, saved, evicted;
} gdn_snapshots;

typedef struct gdn_sched gdn_sched;

struct gdn_engine {
    gdn_model *m;
    gdn_queue *q;
    gdn_engine_opts opts;
    gdn_block_plan plan;
    gdn_pages pages;
    gdn_buffer **storage;
    gdn_buffer *workspace, *input;
    gdn_buffer *line;   /* [GDN layer][n_seq][drafts][C + 2 hv] f32: raw rows of drafts */
    gdn_buffer *hidden; /* [snapshots][d] f32                                     */
    gdn_workspace ws;
    gdn_step_input in;
    int32_t *stage;     /* the host's copy of `input` */
    gdn_part *part;     /* [n_seq] */
    int32_t  *old;      /* [n_seq] lengths before a step */
    int32_t  *part_of;  /* [n_seq] the work of each part */
    gdn_progress_of *progress; /* [n_seq] */
    float   *logits;    /* [n_logit][vocab], where the host cannot reach ws.logits         */
    gdn_buffer *top;    /* there, if the device has gdn_op_top_k(): its results; else NULL */
    int32_t *top_host;  /* and what was read of them                                       */
    gdn_seq **seq;      /* [n_seq], NULL where free */
    int32_t  max_block, n_logit;
    int32_t  n_auto;    /* snapshots of a sequence with GDN_CACHE_AUTO                     */
    gdn_snapshots snapshots;
    gdn_sched *sched;
    uint64_t steps, rows, regions; /* regions: of the device when the engine was created */
    uint64_t n_wait;    /* of the queue, when the latest step was run                      */
    uint64_t fingerprint; /* of the model, once it was asked for; 0: not yet */
    gdn_tap_fn *tap;    /* tests */
    void *tap_arg;
};

/* Results of gdn_op_top_k() for n rows: ids and values [n][k], found [n], min [n]. */
static inline size_t gdn_top_words(size_t n, size_t k) { return n * (2 * k + 2); }

static inline int64_t gdn_blocks_for(const gdn_engine *e, int64_t tokens) {
    return e->m->n_attn > 0 ? (tokens + e->plan.block_size - 1) / e->plan.block_size : 0;
}

/* --- seq.c --- */

/* State pages of a sequence: its own and, where it may guess, as many for what guesses leave. */
static inline int32_t gdn_seq_states(const gdn_engine *e) {
    return e->opts.n_draft > 0 ? 2 * e->m->n_group : e->m->n_group;
}
/* Pages that may be taken for keys and values: those of states that sequences yet to come need
 * stay free. */
int64_t gdn_seq_pages_left(const gdn_engine *e);
/* How many pages it takes to append n tokens to s, copies of shared pages included. */
int64_t gdn_seq_pages_needed(const gdn_seq *s, int32_t n);
/* Take them: afterwards s may append n tokens.  Pages that s shares and must write to are copied.
 * GDN_E_FULL: not enough; nothing changed. */
gdn_status gdn_seq_extend(gdn_seq *s, int32_t n, gdn_err *err);
/* After the tokens came, or did not: give back pages behind the sequence's length. */
void gdn_seq_trim(gdn_seq *s);
/* Pages of every group's state, whole, in every storage tensor. */
gdn_status gdn_copy_page(gdn_engine *e, int32_t to, int32_t from, gdn_err *err);

/* --- step.c --- */

/* Functions of this file queue their work; those that hand out logits wait for it.
 *
 * Evaluate the parts' tokens (at most n_row in all), whose pages are there.  Afterwards the rows of
 * ws.last from part[i].row on hold the hidden rows; nothing of a sequence has moved yet. */
gdn_status gdn_step_run(gdn_engine *e, gdn_part *part, int32_t n_part, gdn_err *err);
/* Logits of n <= e->n_logit rows of ws.last: [n][vocab], valid until the next call. */
gdn_status gdn_step_logits(gdn_engine *e, const int32_t *row, int32_t n, const float **logits,
                           gdn_err *err);
/* The same, as far as logits[i].k asks for it. */
gdn_status gdn_step_top(gdn_engine *e, const int32_t *row, int32_t n, gdn_logits *logits,
                        gdn_err *err);
/* All of row i of that call, until the next one. */
gdn_status gdn_step_whole(gdn_engine *e, int32_t i, gdn_logits *logits, gdn_err *err);
/* Move the sequences on: part i by accepted[i] tokens (NULL: by all), 1 or more if it was kept.  Its
 * states hold them all, unless only some of its guesses were right.  Hidden rows that are needed
 * later are put aside; with `pairs` the MTP layer evaluates every pair there is now, otherwise when
 * many wait.  Waits, unless somebody has since the step was run. */
gdn_status gdn_step_advance(gdn_engine *e, gdn_part *part, int32_t n_part, const int32_t *accepted,
                            bool pairs, gdn_err *err);
/* Fold pending tokens of sequences into their states; e->part is used. */
gdn_status gdn_step_commit(gdn_engine *e, gdn_seq *const *seq, int32_t n, gdn_err *err);
/* Row of ws.last with the hidden row of token t: the last one, or one whose pair is not
 * evaluated. */
int32_t gdn_hidden_row(const gdn_seq *s, int32_t t);
/* Evaluate the pairs that wait in each of n sequences; with `next`, the token behind each
 * sequence's last, the one that it completes, too.  The MTP head's output for a sequence's last
 * pair is row[i] of ws.last. */
gdn_status gdn_step_pairs(gdn_engine *e, gdn_seq *const *seq, const int32_t *next, int32_t n,
                          int32_t *row, gdn_err *err);
/* A guess upon a guess: pair pos[i] of the MTP layer's cache from row hidden[i] of ws.last and
 * token[i], for n <= n_seq sequences.  It will be overwritten.  The outputs lie from row *out on. */
gdn_status gdn_step_draft(gdn_engine *e, gdn_seq *const *seq, const int32_t *hidden,
                          const int32_t *token, const int32_t *pos, int32_t n, int32_t *out,
                          gdn_err *err);

/* --- snapshot.c --- */

gdn_status gdn_snapshots_init(gdn_engine *e, gdn_err *err);
void       gdn_snapshots_release(gdn_engine *e);
/* The longest snapshot that is a prefix of tokens; *common: tokens that agree with the tree. */
gdn_snapshot *gdn_snapshot_find(gdn_engine *e, uint64_t key, const int32_t *tokens, int32_t n,
                                int32_t *common);
/* Begin an empty sequence at a snapshot of its adapter. */
gdn_status gdn_snapshot_restore(gdn_seq *s, gdn_snapshot *from, gdn_err *err);
/* Save where s stands; tokens [s->length] are its own.  Without room nothing is saved, and that is
 * no failure. */
gdn_status gdn_snapshot_save(gdn_seq *s, const int32_t *tokens, gdn_err *err);
/* A snapshot of n_tok tokens with pages and a hidden row whose contents the caller fills in; NULL:
 * no room. */
gdn_snapshot *gdn_snapshot_make(gdn_engine *e, uint64_t key, const int32_t *tokens, int32_t n_tok);
void gdn_snapshot_drop(gdn_engine *e, gdn_snapshot *s);
/* Evict the least useful ones until n pages may be taken or none is left. */
void gdn_snapshots_make_room(gdn_engine *e, int64_t n);
/* Evict until the budget is kept; called when pages may have become the snapshots' own. */
void gdn_snapshots_keep_budget(gdn_engine *e);

/* --- sched.c --- */

gdn_status gdn_sched_create(gdn_engine *e, gdn_err *err);
void       gdn_sched_free(gdn_engine *e);

#endif
