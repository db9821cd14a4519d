/* engine_check.h - what must be true of an engine at any moment, and answers to compare with.
 *
 * The checks recompute from all sequences and snapshots what the engine keeps count of.  The
 * answers come from a run that shares, saves, drafts and cuts nothing. */
#ifndef GDN_TESTS_ENGINE_CHECK_H
#define GDN_TESTS_ENGINE_CHECK_H

#include "cases.h"

#include "../../src/engine/sched.h"

/* Edges are not empty, siblings begin differently, depths add up, leaves have values; tight: inner
 * nodes without a value have several children.  Returns how many values there are. */
int32_t check_radix(const gdn_radix *t, bool tight);

/* Pages, fill marks, snapshots, the tree and the statistics agree with each other. */
void check_engine(gdn_engine *e);

/* No request, sequence or page but those of snapshots is left. */
void check_idle(gdn_engine *e);

/* NaN in everything that nobody owns: free pages, rows of hidden states, rows of drafts. */
void poison(gdn_engine *e);

/* Let the engine draft `most` tokens whenever it can, whatever that costs. */
void always_draft(gdn_engine *e);

/* --- answers of a prompt alone, remembered --- */

enum { COLD_NEW = 64 };

typedef struct cold_answer cold_answer;
struct cold_answer {
    cold_answer *next;
    int32_t *prompt, n_prompt, new[COLD_NEW], n_new;
    gdn_sampling sampling;
    const gdn_adapter *adapter;
};

typedef struct {
    gdn_engine *e;
    int32_t n_valid; /* ids from here on are never chosen */
    cold_answer *first;
    float *logits;
} cold;

void cold_open(cold *c, gdn_model *m, int32_t n_ctx, int32_t n_valid);
void cold_close(cold *c);
/* The first n_new tokens at least of the answer: [COLD_NEW]. */
const int32_t *cold_run(cold *c, const int32_t *prompt, int32_t n_prompt, const gdn_sampling *s,
                        const gdn_adapter *a, int32_t n_new);

#endif
