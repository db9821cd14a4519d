/* sampler.c - choosing the next token of one sequence from a row of logits.
 *
 *     repetition, presence, frequency -> temperature -> top-k -> top-p -> min-p -> draw
 *
 * Probabilities are sums of doubles.  Candidates are ordered by logit, largest first, and the
 * lower id first among equals, so a cut always falls at the same place.  What is left of an
 * earlier filter is what the next one sees as the whole: top-p counts within top-k.
 *
 * Random numbers are counted, not chained: draw number i of seed s is mix(mix(s) + i * phi),
 * the generator of Steele, Lea and Flood (SplitMix, OOPSLA 2014).  The same seed and logits
 * give the same tokens on every machine. */
#include <gdn/gdn.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../kern/kern.h"
#include "sched.h"

enum {
    BLOCK = 1024, /* of a long row: one partial sum each                            */
    HEAD = 256,   /* candidates looked at first when top-p meets the whole row      */
    HEAD_MAX = 1024, /* past this the kernel's insertion is slower than a selection */
};

struct gdn_sampler {
    gdn_sampling s;
    int32_t   n;       /* ids that may be chosen: [0, n)                            */
    uint64_t  n_drawn;
    gdn_kern  kern;
    uint32_t *count;   /* [n] how often an id was chosen                            */
    int32_t  *seen;    /* [n_seen] the ids chosen at least once                     */
    int32_t   n_seen;
    float    *row;     /* [n] the row with penalties; NULL without any              */
    int32_t  *idx;     /* [n] candidates                                            */
    double   *w;       /* [n] their weights, in the order of idx or of ids          */
    double   *sum;     /* [blocks] partial sums of a whole row                      */
};

void gdn_sampling_defaults(gdn_sampling *s) {
    *s = (gdn_sampling){ .repetition = 1, .temperature = 1, .top_p = 1 };
}

static bool in_range(float x, float lo, float hi) { return x >= lo && x <= hi; }

static gdn_status check(const gdn_sampling *s, int32_t vocab, int32_t n_valid, gdn_err *err) {
    const float big = 1e6f; /* far beyond any use, and sums stay finite */
    if (vocab < 1 || n_valid < 1 || n_valid > vocab)
        return gdn_fail(err, GDN_E_INVALID,
                        "sampling: n_valid is %d of a vocabulary of %d; need 1 to vocab",
                        n_valid, vocab);
    if (!(s->repetition > 0) || !in_range(s->repetition, 0, big))
        return gdn_fail(err, GDN_E_INVALID,
                        "sampling: repetition is %g; need more than 0 (1 is off)",
                        (double)s->repetition);
    if (!in_range(s->presence, -big, big))
        return gdn_fail(err, GDN_E_INVALID, "sampling: presence is %g; need a finite number",
                        (double)s->presence);
    if (!in_range(s->frequency, -big, big))
        return gdn_fail(err, GDN_E_INVALID, "sampling: frequency is %g; need a finite number",
                        (double)s->frequency);
    if (!in_range(s->temperature, 0, big))
        return gdn_fail(err, GDN_E_INVALID,
                        "sampling: temperature is %g; need 0 (greedy) or more",
                        (double)s->temperature);
    if (s->top_k < 0)
        return gdn_fail(err, GDN_E_INVALID, "sampling: top_k is %d; need 0 (off) or more",
                        s->top_k);
    if (!(s->top_p > 0) || s->top_p > 1)
        return gdn_fail(err, GDN_E_INVALID,
                        "sampling: top_p is %g; need more than 0 and at most 1 (off)",
                        (double)s->top_p);
    if (!in_range(s->min_p, 0, 1))
        return gdn_fail(err, GDN_E_INVALID, "sampling: min_p is %g; need 0 (off) to 1",
                        (double)s->min_p);
    return GDN_OK;
}

gdn_status gdn_sampler_create(const gdn_sampling *s, int32_t vocab, int32_t n_valid,
                              gdn_sampler **out, gdn_err *err) {
    const gdn_status st = check(s, vocab, n_valid, err);
    if (st != GDN_OK) return st;
    gdn_sampler *p = calloc(1, sizeof *p);
    if (p == NULL) goto nomem;
    p->s = *s;
    p->n = n_valid;
    gdn_kern_select(&p->kern, GDN_ISA_ALL);
    const size_t n = (size_t)n_valid;
    if (s->repetition != 1 || s->presence != 0 || s->frequency != 0) {
        p->count = calloc(n, sizeof *p->count);
        p->seen = calloc(n, sizeof *p->seen);
        p->row = calloc(n, sizeof *p->row);
        if (p->count == NULL || p->seen == NULL || p->row == NULL) goto nomem;
    }
    if (s->temperature > 0) {
        p->idx = calloc(n, sizeof *p->idx);
        p->w = calloc(n, sizeof *p->w);
        p->sum = calloc(n / BLOCK + 1, sizeof *p->sum);
        if (p->idx == NULL || p->w == NULL || p->sum == NULL) goto nomem;
    }
    *out = p;
    return GDN_OK;
nomem:
    gdn_sampler_free(p);
    return gdn_fail(err, GDN_E_NOMEM, "sampling: no memory for a vocabulary of %d", n_valid);
}

void gdn_sampler_free(gdn_sampler *p) {
    if (p == NULL) return;
    free(p->count);
    free(p->seen);
    free(p->row);
    free(p->idx);
    free(p->w);
    free(p->sum);
    free(p);
}

/* --- random numbers ----------------------------------------------------------- */

static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* In [0, 1), 53 bits. */
static double draw(gdn_sampler *p) {
    const uint64_t phi = 0x9e3779b97f4a7c15u;
    const uint64_t z = mix(mix(p->s.seed) + ++p->n_drawn * phi);
    return (double)(z >> 11) * 0x1p-53;
}

/* --- penalties ---------------------------------------------------------------- */

static const float *penalise(gdn_sampler *p, const float *logits) {
    if (p->n_seen == 0) return logits;
    memcpy(p->row, logits, (size_t)p->n * sizeof *logits);
    const float r = p->s.repetition;
    for (int32_t i = 0; i < p->n_seen; i++) {
        float *x = &p->row[p->seen[i]];
        *x = *x > 0 ? *x / r : *x * r;
        *x -= p->s.presence;
        *x -= p->s.frequency * (float)p->count[p->seen[i]];
    }
    return p->row;
}

static void count(gdn_sampler *p, int32_t id) {
    if (p->count == NULL) return;
    if (p->count[id] == 0) p->seen[p->n_seen++] = id;
    if (p->count[id] < UINT32_MAX) p->count[id]++;
}

/* --- candidates --------------------------------------------------------------- */

/* The order of candidates: larger logit first, lower id among equals. */
static bool before(const float *x, int32_t a, int32_t b) {
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

/* Put idx[0, n) so that those before its pivot come first; returns the pivot's place. */
static int32_t partition(const float *x, int32_t *idx, int32_t n) {
    int32_t a = 0, b = n / 2, c = n - 1; /* median of three */
    if (before(x, idx[b], idx[a])) { const int32_t t = a; a = b; b = t; }
    if (before(x, idx[c], idx[b])) b = before(x, idx[c], idx[a]) ? a : c;
    const int32_t pivot = idx[b];
    idx[b] = idx[n - 1];
    int32_t at = 0;
    for (int32_t i = 0; i < n - 1; i++) {
        if (!before(x, idx[i], pivot)) continue;
        const int32_t t = idx[i];
        idx[i] = idx[at];
        idx[at++] = t;
    }
    idx[n - 1] = idx[at];
    idx[at] = pivot;
    return at;
}

static void sort(const float *x, int32_t *idx, int32_t n) {
    while (n > 1) { /* recurse into the smaller side: depth log n */
        const int32_t at = partition(x, idx, n);
        if (at < n - 1 - at) {
            sort(x, idx, at);
            idx += at + 1, n -= at + 1;
        } else {
            sort(x, idx + at + 1, n - 1 - at);
            n = at;
        }
    }
}

/* How much of the sum of weights a candidate stands for: its weight, or 1 when counting. */
static double mass_of(const float *x, int32_t id, double max, double t, bool by_count) {
    return by_count ? 1 : exp(((double)x[id] - max) / t);
}

/* Move the fewest first candidates whose masses reach `target` to the front of idx [n], in
 * order; returns how many they are.  Linear in n on average: only the part that holds the
 * border is divided again. */
static int32_t select_head(const float *x, int32_t *idx, int32_t n, double max, double t,
                           double target, bool by_count) {
    int32_t lo = 0, hi = n; /* the first lo do not reach the target, the first hi do */
    double acc = 0;         /* mass of the first lo */
    while (lo < hi) {
        const int32_t at = lo + partition(x, idx + lo, hi - lo);
        double left = 0;
        for (int32_t i = lo; i < at; i++) left += mass_of(x, idx[i], max, t, by_count);
        if (acc + left >= target) {
            hi = at;
            continue;
        }
        acc += left + mass_of(x, idx[at], max, t, by_count);
        lo = at + 1;
        if (acc >= target) hi = lo;
    }
    sort(x, idx, hi);
    return hi;
}

/* Every id with a logit, in the order of ids. */
static int32_t all_ids(const float *x, int32_t n, int32_t *idx) {
    int32_t k = 0;
    for (int32_t i = 0; i < n; i++)
        if (x[i] > -INFINITY) idx[k++] = i;
    return k;
}

/* The k largest in order. */
static int32_t top_k(gdn_sampler *p, const float *x, double max, int32_t k) {
    if (k > p->n) k = p->n;
    if (k <= HEAD_MAX) return p->kern.top_k(x, p->n, k, p->idx);
    const int32_t n = all_ids(x, p->n, p->idx);
    return select_head(x, p->idx, n, max, 1, (double)(k < n ? k : n), true);
}

/* The sum of e^((x - max) / T) over ids whose logit is at least floor; fills p->sum. */
static double row_sum(gdn_sampler *p, const float *x, double max, double floor) {
    double total = 0;
    for (int32_t b = 0; b < p->n; b += BLOCK) {
        const int32_t end = p->n - b < BLOCK ? p->n : b + BLOCK;
        double s = 0;
        for (int32_t i = b; i < end; i++)
            if ((double)x[i] >= floor && x[i] > -INFINITY)
                s += exp(((double)x[i] - max) / (double)p->s.temperature);
        p->sum[b / BLOCK] = s;
        total += s;
    }
    return total;
}

/* --- drawing ------------------------------------------------------------------ */

/* From the whole row, without top-k and top-p: walk the sums, then one block. */
static int32_t draw_from_row(gdn_sampler *p, const float *x, int32_t best) {
    const double max = (double)x[best], t = (double)p->s.temperature;
    const double floor = p->s.min_p > 0 ? max + t * log((double)p->s.min_p) : -INFINITY;
    double u = draw(p) * row_sum(p, x, max, floor);
    int32_t b = 0;
    for (; b + BLOCK < p->n && u >= p->sum[b / BLOCK]; b += BLOCK) u -= p->sum[b / BLOCK];
    int32_t id = best; /* should rounding leave a crumb of u at the end */
    for (int32_t i = b; i < p->n && i < b + BLOCK; i++) {
        if ((double)x[i] < floor || !(x[i] > -INFINITY)) continue;
        const double w = exp(((double)x[i] - max) / t);
        if (w > 0) id = i;
        if (u < w) break;
        u -= w;
    }
    return id;
}

/* From k candidates in order, whose weights are in p->w; top-p counts against total. */
static int32_t draw_from_head(gdn_sampler *p, const int32_t *id, int32_t k, double total) {
    const double top_p = (double)p->s.top_p;
    int32_t n = 0;
    double kept = 0;
    while (n < k && (n == 0 || top_p >= 1 || kept < top_p * total)) kept += p->w[n++];
    /* The largest weight is e^0. */
    while (n > 1 && p->w[n - 1] < (double)p->s.min_p) kept -= p->w[--n];

    double u = draw(p) * kept;
    for (int32_t i = 0; i < n; i++) {
        if (u < p->w[i]) return id[i];
        u -= p->w[i];
    }
    return id[0];
}

/* The weights of the first k candidates to p->w; returns their sum. */
static double weigh(gdn_sampler *p, const float *x, double max, int32_t k) {
    double sum = 0;
    for (int32_t i = 0; i < k; i++)
        sum += p->w[i] = exp(((double)x[p->idx[i]] - max) / (double)p->s.temperature);
    return sum;
}

/* With top-k, top-p or both. */
static int32_t draw_from_best(gdn_sampler *p, const float *x, int32_t best) {
    const double max = (double)x[best], t = (double)p->s.temperature;
    if (p->s.top_k > 0) {
        const int32_t k = top_k(p, x, max, p->s.top_k);
        return draw_from_head(p, p->idx, k, weigh(p, x, max, k));
    }
    int32_t k = top_k(p, x, max, HEAD);
    const double total = row_sum(p, x, max, -INFINITY);
    const double target = (double)p->s.top_p * total;
    if (weigh(p, x, max, k) < target && k < p->n) {
        k = select_head(x, p->idx, all_ids(x, p->n, p->idx), max, t, target, false);
        weigh(p, x, max, k);
    }
    return draw_from_head(p, p->idx, k, total);
}

int32_t gdn_sampler_most_likely(const gdn_sampler *p, const gdn_logits *logits) {
    if (logits->all == NULL) return logits->found > 0 ? logits->id[0] : 0;
    const int32_t id = p->kern.argmax(logits->all, p->n);
    return id >= 0 && id < p->n ? id : 0; /* all NaN: any guess does */
}

static bool is_greedy(const gdn_sampler *p) {
    return p->s.temperature <= 0 || p->s.top_k == 1;
}

void gdn_sampler_ask(const gdn_sampler *p, gdn_logits *logits) {
    logits->n_valid = p->n;
    if (p->count != NULL) logits->k = 0; /* penalties change the order */
    else if (is_greedy(p)) logits->k = 1;
    else logits->k = p->s.top_k <= GDN_TOP_K_MOST ? p->s.top_k : 0;
}

bool gdn_sampler_doubtful(const gdn_sampler *p, const gdn_logits *largest) {
    if (largest->found == 0 || isinf(largest->value[0])) return true;
    return p->n > 1 && !(largest->min < largest->value[0]); /* nor when it is NaN */
}

void gdn_sampler_next_of(gdn_sampler *p, const gdn_logits *largest, int32_t *id) {
    *id = largest->id[0];
    if (is_greedy(p)) return;
    const int32_t k = largest->found < p->s.top_k ? largest->found : p->s.top_k;
    const double max = (double)largest->value[0], t = (double)p->s.temperature;
    double total = 0;
    for (int32_t i = 0; i < k; i++)
        total += p->w[i] = exp(((double)largest->value[i] - max) / t);
    *id = draw_from_head(p, largest->id, k, total);
}

bool gdn_sampler_degenerate(const gdn_sampler *p, const float *logits, char *what, size_t n) {
    const gdn_range r = p->kern.range(logits, p->n);
    if (!r.nan && !isinf(r.max) && (r.min < r.max || p->n == 1)) return false;
    if (r.nan) {
        int32_t first = -1, count = 0;
        for (int32_t i = 0; i < p->n; i++) {
            if (!isnan(logits[i])) continue;
            if (count++ == 0) first = i;
        }
        snprintf(what, n, "%d of %d logits are NaN, the first is token %d's", count, p->n, first);
    } else if (r.max > 0 && isinf(r.max)) {
        snprintf(what, n, "the logit of token %d is infinite", p->kern.argmax(logits, p->n));
    } else if (isinf(r.max)) {
        snprintf(what, n, "none of %d logits is finite", p->n);
    } else {
        snprintf(what, n, "all %d logits are %g", p->n, (double)r.max);
    }
    return true;
}

gdn_status gdn_sampler_next(gdn_sampler *p, const float *logits, int32_t *id, gdn_err *err) {
    const float *x = penalise(p, logits);
    const int32_t best = p->kern.argmax(x, p->n);
    if (best < 0)
        return gdn_fail(err, GDN_E_DEVICE, "sampling: none of %d logits is finite", p->n);
    if (isinf(x[best]))
        return gdn_fail(err, GDN_E_DEVICE, "sampling: the logit of token %d is infinite", best);
    if (is_greedy(p))
        *id = best;
    else if (p->s.top_k > 0 || p->s.top_p < 1)
        *id = draw_from_best(p, x, best);
    else
        *id = draw_from_row(p, x, best);
    count(p, *id);
    return GDN_OK;
}
