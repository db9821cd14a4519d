/* draft.c - whether to draft, how many tokens, and drafts from the text itself.
 *
 * With a share a of drafts right, k drafts bring 1 + a + ... + a^k tokens for the time of a plain
 * step and k drafts.  The best k is taken, or none when nothing is gained; then it is looked
 * into again after 64 steps, and each time in vain after twice as many. */
#include "draft.h"

#include <string.h>

enum {
    SHORTEST_END = 2, LONGEST_END = 4, /* tokens that must occur again                    */
    FIRST_WAIT = 64, LAST_WAIT = 8192, /* steps                                           */
    LOOKS = 2,                         /* steps with a draft to look whether it pays now  */
    MEASURED = 3,                      /* steps before a time is believed                 */
};
static const double hope = 0.7; /* share of drafts right before anything is known */

void gdn_draft_policy_init(gdn_draft_policy *p) {
    *p = (gdn_draft_policy){.rate = hope, .wait = FIRST_WAIT};
}

static int32_t bucket_of(int32_t n_request) {
    int32_t b = 0;
    while (n_request > 1 && b + 1 < GDN_DRAFT_BUCKETS) n_request = (n_request + 1) / 2, b++;
    return b;
}

int32_t gdn_draft_choose(gdn_draft_policy *p, int32_t n_request, int32_t most) {
    const int32_t b = bucket_of(n_request);
    p->step++;
    if (p->plain_seen[b] < MEASURED) return 0;
    if (p->draft_seen[b] < MEASURED && p->rate > 0.3) return 1;
    double best = 1.02 / p->plain_us[b], tokens = 1, right = 1;
    int32_t n = 0;
    for (int32_t k = 1; k <= most && p->draft_seen[b] > 0; k++) {
        right *= p->rate;
        tokens += right;
        const double speed = tokens / (p->plain_us[b] + k * p->draft_us[b]);
        if (speed <= best) continue;
        best = speed;
        n = k;
    }
    if (n > 0) {
        p->wait = FIRST_WAIT;
        p->next = p->step + p->wait;
        p->looks = 0;
        /* Now and then a plain step, so that its time is known. */
        return p->step % 128 == 0 ? 0 : n;
    }
    if (p->step < p->next) return 0;
    if (++p->looks >= LOOKS) {
        p->looks = 0;
        p->wait = p->wait < LAST_WAIT ? 2 * p->wait : LAST_WAIT;
        p->next = p->step + p->wait;
    }
    return 1;
}

static void blend(double *mean, int32_t *seen, double x) {
    const double share = *seen < 8 ? 1.0 / (*seen + 1) : 0.125;
    *mean += share * (x - *mean);
    if (*seen < 8) ++*seen;
}

void gdn_draft_timed(gdn_draft_policy *p, int32_t n_request, double n_draft, double us) {
    const int32_t b = bucket_of(n_request);
    if (n_draft <= 0) {
        blend(&p->plain_us[b], &p->plain_seen[b], us);
        return;
    }
    const double more = (us - p->plain_us[b]) / n_draft;
    blend(&p->draft_us[b], &p->draft_seen[b], more > 0 ? more : 0);
}

void gdn_draft_judged(gdn_draft_policy *p, bool right) {
    p->rate += 0.15 * ((right ? 1.0 : 0.0) - p->rate);
}

int32_t gdn_draft_from_text(const int32_t *tokens, int32_t n, int32_t most, int32_t *out) {
    for (int32_t end = LONGEST_END; end >= SHORTEST_END; end--) {
        if (n < end + 1) continue;
        const int32_t *tail = tokens + n - end;
        for (int32_t i = n - end - 1; i >= 0; i--) {
            if (tokens[i] != tail[0] || memcmp(tokens + i, tail, (size_t)end * sizeof *tail) != 0)
                continue;
            int32_t k = 0;
            while (k < most && i + end + k < n) {
                out[k] = tokens[i + end + k];
                k++;
            }
            return k;
        }
    }
    return 0;
}
