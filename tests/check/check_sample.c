/* check_sample.c - range, argmax, log of the sum of exponentials, and the k largest. */
#include "check.h"

#include "../unit/sanitized.h"

#include <math.h>

enum { VOCAB = 248320 };
typedef enum {
    PLAIN,
    TIES,    /* a dozen values, +0 and -0 among them      */
    HOLES,   /* NaN and -inf between the values           */
    RISING,  /* each larger than the last                 */
    FALLING,
    SAME,
    ALL_LOW, /* NaN and -inf alone                        */
    NO_NAN,  /* -inf alone                                */
    ABOVE,   /* one +inf                                  */
    PEAKED,  /* one logit carries all of the sum          */
} kind;

static void fill(float *x, int32_t n, kind what) {
    for (int32_t i = 0; i < n; i++) {
        const float u = (float)check_uniform();
        switch (what) {
        case TIES: x[i] = u < 0.1f ? -0.0f : (float)((int)(u * 12) - 6); break;
        case HOLES: x[i] = u < 0.3f ? NAN : u < 0.6f ? -INFINITY : u * 9; break;
        case RISING: x[i] = (float)i * 1e-3f; break;
        case FALLING: x[i] = (float)-i * 1e-3f; break;
        case SAME: x[i] = -3.25f; break;
        case ALL_LOW: x[i] = u < 0.5f ? NAN : -INFINITY; break;
        case NO_NAN: x[i] = -INFINITY; break;
        case PEAKED: x[i] = i == n / 2 ? 200.0f : u * 30; break;
        default: x[i] = u * 30 - 15; break;
        }
    }
    if (what == ABOVE) x[n / 3] = INFINITY;
}

typedef struct { check *c; const float *x; int32_t n, k, *idx; } job;
static void run_range(void *arg) {
    job *j = arg;
    j->idx[0] = j->c->kern->range(j->x, j->n).nan;
}
static void run_argmax(void *arg) {
    job *j = arg;
    j->idx[0] = j->c->kern->argmax(j->x, j->n);
}
static void run_logsumexp(void *arg) {
    job *j = arg;
    j->idx[0] = j->c->kern->logsumexp(j->x, j->n) > 0;
}
static void run_top_k(void *arg) {
    job *j = arg;
    j->c->kern->top_k(j->x, j->n, j->k, j->idx);
}

static void range_is(check *c, const char *where, const float *x, int32_t n) {
    const gdn_range want = gdn_range_ref(x, n), got = c->kern->range(x, n);
    check_that(c, want.min == got.min && want.max == got.max && want.nan == got.nan,
               "%s: %g to %g, nan %d, got %g to %g, nan %d", where, (double)want.min,
               (double)want.max, want.nan, (double)got.min, (double)got.max, got.nan);
}

static void range(check *c, const char *name, int32_t n, kind what) {
    if (!check_begin(c, (check_fn *)c->kern->range, "range %s %d", name, n)) return;
    float *x = check_f32(c, "x", (size_t)n);
    int32_t sink = 0;
    fill(x, n, what);
    range_is(c, "all", x, n);
    /* A single NaN is seen wherever it is, with either sign; so is each extreme. */
    for (int32_t i = 0, step = n > 100 ? n / 37 : 1; i < n && what == PLAIN; i += step) {
        const float was = x[i], put[] = {NAN, -NAN, INFINITY, -INFINITY, 99, -99};
        for (size_t k = 0; k < sizeof put / sizeof *put; k++) {
            x[i] = put[k];
            range_is(c, "one", x, n);
        }
        x[i] = was;
    }
    job j = { c, x, n, 1, &sink };
    check_rate(c, run_range, &j, 0, 4.0 * n);
    check_end(c);
}

static void argmax(check *c, const char *name, int32_t n, kind what) {
    if (!check_begin(c, (check_fn *)c->kern->argmax, "argmax %s %d", name, n)) return;
    float *x = check_f32(c, "x", (size_t)n);
    int32_t got = -2;
    fill(x, n, what);
    const int32_t want = gdn_argmax_ref(x, n);
    job j = { c, x, n, 1, &got };
    run_argmax(&j);
    check_that(c, got == want, "%d, got %d", want, got);
    check_rate(c, run_argmax, &j, 0, 4.0 * n);
    check_end(c);
}

static void logsumexp(check *c, const char *name, int32_t n, kind what) {
    if (!check_begin(c, (check_fn *)c->kern->logsumexp, "logsumexp %s %d", name, n)) return;
    float *x = check_f32(c, "x", (size_t)n);
    int32_t sink = 0;
    fill(x, n, what);
    const double want = gdn_logsumexp_ref(x, n), got = c->kern->logsumexp(x, n);
    job j = { c, x, n, 1, &sink };
    /* The error of the logarithm is the relative error of the sum: at most 1e-6. */
    check_that(c, want == got || (isnan(want) && isnan(got)) || fabs(want - got) <= 1e-6,
               "%.9g, got %.9g", want, got);
    check_rate(c, run_logsumexp, &j, 0, 4.0 * n);
    check_end(c);
}

static void top_k(check *c, const char *name, int32_t n, int32_t k, kind what) {
    if (SANITIZED && (double)n * k > 1e6) return; /* minutes, and nothing new in memory use */
    if (!check_begin(c, (check_fn *)c->kern->top_k, "top_k %s %d of %d", name, k, n)) return;
    float *x = check_f32(c, "x", (size_t)n);
    int32_t *want = check_i32(c, "want", (size_t)k), *got = check_i32(c, "got", (size_t)k);
    fill(x, n, what);
    const int32_t found = gdn_top_k_ref(x, n, k, want), f = c->kern->top_k(x, n, k, got);
    check_that(c, f == found, "%d found, got %d", found, f);
    if (f == found) check_bits(c, "index", want, got, (size_t)f, sizeof *got);
    job j = { c, x, n, k, got };
    check_rate(c, run_top_k, &j, 0, 4.0 * n);
    check_end(c);
}

void check_sample(check *c) {
    static const struct { const char *name; kind what; } kinds[] = {
        { "plain", PLAIN },     { "ties", TIES },       { "holes", HOLES },
        { "rising", RISING },   { "falling", FALLING }, { "same", SAME },
        { "all low", ALL_LOW }, { "no nan", NO_NAN },   { "above", ABOVE },
        { "peaked", PEAKED },
    };
    static const int32_t sizes[] = { VOCAB, 151937, 1, 5, 16, 77, 4099 };
    static const int32_t ks[] = { 20, 1000, 1, 7, 64, 5000 };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            if (c->bench && (s > 0 || (kinds[i].what != PLAIN && kinds[i].what != RISING)))
                break;
            range(c, kinds[i].name, sizes[s], kinds[i].what);
            argmax(c, kinds[i].name, sizes[s], kinds[i].what);
            logsumexp(c, kinds[i].name, sizes[s], kinds[i].what);
            for (size_t k = 0; k < sizeof ks / sizeof *ks; k++) {
                /* a rising row through the reference's list takes long: shorter rows do */
                if (kinds[i].what == RISING && ks[k] > 1000 && sizes[s] > 5000) continue;
                top_k(c, kinds[i].name, sizes[s], ks[k], kinds[i].what);
            }
        }
}
