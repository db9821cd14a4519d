/* draft.h - whether to draft, how many tokens, and drafts from the text itself. */
#ifndef GDN_ENGINE_DRAFT_H
#define GDN_ENGINE_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

enum { GDN_DRAFT_BUCKETS = 10 };

/* What drafting costs here and what it brings, measured while running.  Steps are told apart by
 * how many requests share them, in powers of two. */
typedef struct {
    double  plain_us[GDN_DRAFT_BUCKETS]; /* of a step without drafts                       */
    double  draft_us[GDN_DRAFT_BUCKETS]; /* of each draft on top                           */
    int32_t plain_seen[GDN_DRAFT_BUCKETS], draft_seen[GDN_DRAFT_BUCKETS];
    double  rate;                        /* share of drafts that came true, lately         */
    int64_t step, wait, next;            /* when off: look again at step `next`            */
    int32_t looks;
} gdn_draft_policy;

void gdn_draft_policy_init(gdn_draft_policy *p);
/* How many tokens each of n_request requests should draft after this step, 0 to most. */
int32_t gdn_draft_choose(gdn_draft_policy *p, int32_t n_request, int32_t most);
/* A step of n_request requests and nothing else took us; each had and made n_draft drafts. */
void gdn_draft_timed(gdn_draft_policy *p, int32_t n_request, double n_draft, double us);
/* One draft was looked at. */
void gdn_draft_judged(gdn_draft_policy *p, bool right);

/* Guess what follows tokens: what followed the last time their end occurred.  Writes at most
 * most ids and returns how many. */
int32_t gdn_draft_from_text(const int32_t *tokens, int32_t n, int32_t most, int32_t *out);

#endif
