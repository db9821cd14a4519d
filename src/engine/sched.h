/* sched.h - requests, for the files that move them on. */
#ifndef GDN_ENGINE_SCHED_H
#define GDN_ENGINE_SCHED_H

#include <stdatomic.h>

#include "draft.h"
#include "engine.h"
#include "reply.h"

struct gdn_request {
    gdn_engine  *e;
    gdn_request *next;     /* in order of arrival                                         */
    gdn_request *next_orphan;
    uint64_t     number;
    gdn_seq     *seq;      /* NULL: waits                                                 */
    int32_t     *tokens;   /* [n_tok] prompt and answer                                   */
    int32_t      n_tok, cap, n_prompt, max_new;
    int32_t     *stop, n_stop;
    int32_t     *save, n_save;
    int32_t      branch;   /* a length where others leave this prompt, 0 none             */
    const gdn_adapter *adapter;
    uint64_t     key;
    gdn_sampler *sampler;
    gdn_reply    reply;
    gdn_progress_fn *on_prompt;
    void        *arg;
    atomic_bool  cancel;
    int32_t      draft[GDN_MAX_DRAFT], n_draft;
    bool         admitted; /* once                                                        */
    bool         ended;    /* result.finish says why; it still has its sequence            */
    gdn_request_result result;
    double       submit_us, start_us, first_us;
    char         error[496];
};

struct gdn_sched {
    gdn_request *first, **last; /* not done, in order of arrival          */
    gdn_request *orphan;        /* freed in a callback, gone after the step */
    bool         stepping;
    uint64_t     number;
    gdn_request **runs;         /* [n_seq] the request of each part       */
    int32_t     *accepted;      /* [n_seq]                                */
    gdn_seq    **draft_seq;     /* [n_seq], and what goes with them:      */
    gdn_request **drafter;
    int32_t     *draft_token, *draft_row, *draft_pos;
    int32_t     *row, *row_of;  /* [n_logit] rows of logits, whose parts  */
    gdn_logits  *logits;        /* [n_logit] and what came of them        */
    gdn_draft_policy policy;
    uint64_t     prompt_tokens, cached_tokens, preempted, drafted, accepted_drafts;
    double       model_us, total_us;
};

/* The longest length up to which saving the request is worth while, beyond `from`; INT32_MAX: none. */
int32_t gdn_request_next_save(const gdn_request *r, int32_t from);

/* End a request: its sequence goes, its result stays. */
void gdn_request_finish(gdn_request *r, gdn_finish why);

/* Take in an id that was chosen.  False: the answer ends with it, result.finish says why. */
bool gdn_request_take(gdn_request *r, int32_t id);

/* Drafts for requests whose next token is known (draft_step.c): fills r->draft. */
gdn_status gdn_sched_draft(gdn_engine *e, gdn_request *const *r, int32_t n, int32_t most,
                           gdn_err *err);

/* What of a row the next token depends on: sets n_valid and k. */
void gdn_sampler_ask(const gdn_sampler *s, gdn_logits *logits);
/* gdn_sampler_next(), to the same token, from as many of the largest logits as were asked
 * for; not of a degenerate row. */
void gdn_sampler_next_of(gdn_sampler *s, const gdn_logits *largest, int32_t *id);
/* Whether the row is degenerate (below), by its largest logits and its smallest. */
bool gdn_sampler_doubtful(const gdn_sampler *s, const gdn_logits *largest);

/* What no model's logits are: one NaN among the ids that may be chosen, +infinity, all -infinity, all
 * the same.  Such a row is a broken weight's or device's; its answer would be one token for ever.
 * True: what[n] says which. */
bool gdn_sampler_degenerate(const gdn_sampler *s, const float *logits, char *what, size_t n);

/* The most likely of the ids that a sampler may choose, for which k = 1 is enough. */
int32_t gdn_sampler_most_likely(const gdn_sampler *s, const gdn_logits *logits);

#endif
