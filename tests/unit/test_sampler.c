/* test_sampler.c - the sampler against direct formulas and against its own frequencies. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gdn/gdn.h>

static gdn_sampler *make(const gdn_sampling *s, int32_t vocab, int32_t n_valid) {
    gdn_sampler *p = NULL;
    gdn_err err = { 0 };
    assert_int_equal(gdn_sampler_create(s, vocab, n_valid, &p, &err), GDN_OK);
    return p;
}

static int32_t next(gdn_sampler *p, const float *x) {
    gdn_err err = { 0 };
    int32_t id = -1;
    assert_int_equal(gdn_sampler_next(p, x, &id, &err), GDN_OK);
    return id;
}

/* Numbers of the test's own, so that no expected value comes from the code under test. */
static uint32_t lcg_state = 7;
static double lcg(void) {
    lcg_state = lcg_state * 1664525u + 1013904223u;
    return lcg_state / 4294967296.0;
}

/* --- greedy ------------------------------------------------------------------ */

static void greedy_takes_the_lowest_of_equals(void **state) {
    (void)state;
    gdn_sampling s;
    gdn_sampling_defaults(&s);
    s.temperature = 0;
    const float x[6] = { 1, 3, NAN, 3, 2, 9 };
    gdn_sampler *p = make(&s, 6, 5); /* 9 is padding */
    assert_int_equal(next(p, x), 1);
    gdn_sampler_free(p);
    s.temperature = 1;
    s.top_k = 1;
    p = make(&s, 6, 5);
    for (int i = 0; i < 20; i++) assert_int_equal(next(p, x), 1);
    gdn_sampler_free(p);
}

/* --- frequencies --------------------------------------------------------------- */

enum { DRAWS = 8000, SMALL = 8 };

/* Draw many and compare with p[n] by chi-square.  The bound is the 1 - 1e-6 quantile of
 * chi-square with at most 7 degrees of freedom, 40.5; the seed is fixed. */
static void check_frequencies(const gdn_sampling *s, const float *x, int32_t vocab,
                              int32_t n_valid, const double *p) {
    int *seen = calloc((size_t)vocab, sizeof *seen);
    gdn_sampler *g = make(s, vocab, n_valid);
    for (int i = 0; i < DRAWS; i++) seen[next(g, x)]++;
    double chi = 0;
    for (int i = 0; i < vocab; i++) {
        const double want = p[i] * DRAWS;
        if (want <= 0) assert_int_equal(seen[i], 0);
        else chi += (seen[i] - want) * (seen[i] - want) / want;
    }
    assert_true(chi < 40.5);
    gdn_sampler_free(g);
    free(seen);
}

/* Logits whose softmax at temperature T is p. */
static void logits_of(const double *p, int n, double t, float *x) {
    for (int i = 0; i < n; i++) x[i] = p[i] > 0 ? (float)(t * log(p[i])) : -INFINITY;
}

static const double base[SMALL] = { 0.05, 0.30, 0.02, 0.25, 0.03, 0.20, 0.05, 0.10 };

static void draws_follow_the_softmax(void **state) {
    (void)state;
    gdn_sampling s;
    float x[SMALL];
    for (int i = 0; i < 3; i++) {
        static const float t[3] = { 0.5f, 1, 2 };
        gdn_sampling_defaults(&s);
        s.temperature = t[i];
        s.seed = 11 + (uint64_t)i;
        logits_of(base, SMALL, (double)t[i], x);
        check_frequencies(&s, x, SMALL, SMALL, base);
    }
}

static void top_k_renormalises(void **state) {
    (void)state;
    gdn_sampling s;
    float x[SMALL];
    gdn_sampling_defaults(&s);
    s.top_k = 3; /* 0.30 0.25 0.20 */
    logits_of(base, SMALL, 1, x);
    const double p[SMALL] = { 0, 0.30 / 0.75, 0, 0.25 / 0.75, 0, 0.20 / 0.75, 0, 0 };
    check_frequencies(&s, x, SMALL, SMALL, p);
}

static void top_p_takes_the_smallest_set_that_reaches_it(void **state) {
    (void)state;
    gdn_sampling s;
    float x[SMALL];
    logits_of(base, SMALL, 1, x);
    gdn_sampling_defaults(&s);
    s.top_p = 0.74f; /* 0.30 + 0.25 + 0.20 = 0.75 */
    const double p[SMALL] = { 0, 0.30 / 0.75, 0, 0.25 / 0.75, 0, 0.20 / 0.75, 0, 0 };
    check_frequencies(&s, x, SMALL, SMALL, p);
    s.top_p = 0.76f; /* one more: 0.10 */
    const double q[SMALL] = { 0, 0.30 / 0.85, 0, 0.25 / 0.85, 0, 0.20 / 0.85, 0, 0.10 / 0.85 };
    check_frequencies(&s, x, SMALL, SMALL, q);
    s.top_p = 1e-6f; /* one token at least */
    const double r[SMALL] = { 0, 1, 0, 0, 0, 0, 0, 0 };
    check_frequencies(&s, x, SMALL, SMALL, r);
}

static void top_p_counts_within_top_k(void **state) {
    (void)state;
    gdn_sampling s;
    float x[SMALL];
    logits_of(base, SMALL, 1, x);
    gdn_sampling_defaults(&s);
    s.top_k = 4;     /* 0.30 0.25 0.20 0.10, of 0.85 */
    s.top_p = 0.64f; /* 0.55 / 0.85 = 0.647 */
    const double p[SMALL] = { 0, 0.30 / 0.55, 0, 0.25 / 0.55, 0, 0, 0, 0 };
    check_frequencies(&s, x, SMALL, SMALL, p);
}

static void min_p_is_relative_to_the_largest(void **state) {
    (void)state;
    gdn_sampling s;
    float x[SMALL];
    logits_of(base, SMALL, 1, x);
    const double p[SMALL] = { 0, 0.30 / 0.75, 0, 0.25 / 0.75, 0, 0.20 / 0.75, 0, 0 };
    for (int32_t k = 0; k <= 6; k += 3) { /* the whole row, then among candidates */
        gdn_sampling_defaults(&s);
        s.min_p = 0.5f; /* 0.15 */
        s.top_k = k;
        check_frequencies(&s, x, SMALL, SMALL, p);
    }
    gdn_sampling_defaults(&s);
    s.min_p = 0.5f;
    s.temperature = 2; /* 0.30 0.25 0.20 0.10 and so on are probabilities after it */
    logits_of(base, SMALL, 2, x);
    check_frequencies(&s, x, SMALL, SMALL, p);
}

/* --- long rows, where other paths are taken ----------------------------------------- */

enum { LONG = 2600 };

static float *sort_row;
static int descending(const void *a, const void *b) {
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sort_row[i] != sort_row[j]) return sort_row[i] > sort_row[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

/* A flat row with many ties: top-p 0.9 keeps most, top-k 1500 is past the kernel's. */
static void long_rows_keep_exactly_the_right_ids(void **state) {
    (void)state;
    float *x = malloc(LONG * sizeof *x);
    int32_t *order = malloc(LONG * sizeof *order);
    bool *may = malloc(LONG), *was = malloc(LONG);
    for (int i = 0; i < LONG; i++) {
        x[i] = (float)(floor(lcg() * 40) / 16);
        if (i % 97 == 0) x[i] = -INFINITY;
        if (i % 89 == 0) x[i] = NAN;
        order[i] = i;
    }
    int n = 0;
    for (int i = 0; i < LONG; i++)
        if (x[i] > -INFINITY) order[n++] = i;
    sort_row = x;
    qsort(order, (size_t)n, sizeof *order, descending);
    for (int kind = 0; kind < 3; kind++) {
        gdn_sampling s;
        gdn_sampling_defaults(&s);
        s.seed = 5;
        int keep = 0;
        if (kind == 0) {
            s.top_k = 1500;
            keep = 1500;
        } else { /* 0.9: beyond the first candidates; 0.02: within them */
            s.top_p = kind == 1 ? 0.9f : 0.02f;
            double total = 0, sum = 0;
            for (int i = 0; i < n; i++) total += exp((double)x[order[i]]);
            while (sum < (double)s.top_p * total) sum += exp((double)x[order[keep++]]);
        }
        memset(may, 0, LONG);
        memset(was, 0, LONG);
        for (int i = 0; i < keep; i++) may[order[i]] = true;
        gdn_sampler *p = make(&s, LONG, LONG);
        int n_was = 0;
        for (int i = 0; i < (kind == 2 ? 2000 : 500); i++) {
            const int32_t id = next(p, x);
            assert_true(may[id]);
            if (!was[id]) was[id] = true, n_was++;
        }
        if (kind == 2) assert_int_equal(n_was, keep); /* and nothing of it is left out */
        else assert_true(n_was > 300);
        gdn_sampler_free(p);
    }
    free(x);
    free(order);
    free(may);
    free(was);
}

/* Equal logits: top-k keeps the lowest ids, all of them and no other. */
static void ties_at_the_border_go_by_id(void **state) {
    (void)state;
    enum { K = 1100, TRIES = 8000 };
    float x[LONG];
    bool was[LONG] = { false };
    gdn_sampling s;
    for (int i = 0; i < LONG; i++) x[i] = 1;
    gdn_sampling_defaults(&s);
    s.top_k = K;
    gdn_sampler *p = make(&s, LONG, LONG);
    int n_was = 0;
    for (int i = 0; i < TRIES; i++) {
        const int32_t id = next(p, x);
        assert_true(id < K);
        n_was += !was[id];
        was[id] = true;
    }
    assert_true(n_was > K - 20); /* 0.8 missing expected */
    gdn_sampler_free(p);
}

/* Eight groups of ids far apart in a long row have the shares of `base`. */
static void a_long_row_is_drawn_by_its_sums(void **state) {
    (void)state;
    gdn_sampling s;
    float *x = malloc(LONG * sizeof *x);
    double *p = calloc(LONG, sizeof *p);
    for (int i = 0; i < LONG; i++) x[i] = -INFINITY;
    for (int i = 0; i < SMALL; i++) {
        const int id = i == 0 ? 0 : i == 7 ? LONG - 1 : 300 * i;
        x[id] = (float)log(base[i]);
        p[id] = base[i];
    }
    gdn_sampling_defaults(&s);
    s.seed = 99;
    check_frequencies(&s, x, LONG, LONG, p);
    s.top_p = 0.9999f;
    check_frequencies(&s, x, LONG, LONG, p);
    free(x);
    free(p);
}

/* --- penalties -------------------------------------------------------------------- */

/* Greedy choices show the penalised order: after a token was chosen `times` times its logit
 * is known by the formula, and a rival just above or below it says which side it is on. */
static void check_penalty(const gdn_sampling *s, float logit, int times, double penalised) {
    for (int side = -1; side <= 1; side += 2) {
        gdn_sampler *p = make(s, 4, 4);
        const float first[4] = { logit, -1000, -1000, -1000 };
        for (int i = 0; i < times; i++) assert_int_equal(next(p, first), 0);
        const float rival[4] = { logit, (float)(penalised + side * 1e-3), -1000, -1000 };
        assert_int_equal(next(p, rival), side > 0 ? 1 : 0);
        gdn_sampler_free(p);
    }
}

static void penalties_match_their_formulas(void **state) {
    (void)state;
    gdn_sampling s;
    gdn_sampling_defaults(&s);
    s.temperature = 0;
    s.repetition = 1.5f;
    check_penalty(&s, 3, 1, 2);      /* 3 / 1.5 */
    check_penalty(&s, 3, 4, 2);      /* however often */
    check_penalty(&s, -3, 1, -4.5);  /* -3 * 1.5 */
    s.repetition = 1;
    s.presence = 0.75f;
    check_penalty(&s, 3, 1, 2.25);
    check_penalty(&s, 3, 5, 2.25);
    s.presence = 0;
    s.frequency = 0.25f;
    check_penalty(&s, 3, 1, 2.75);
    check_penalty(&s, 3, 4, 2);
    s.repetition = 2;
    s.presence = 0.5f;
    check_penalty(&s, 3, 4, 0);      /* 3 / 2 - 0.5 - 4 * 0.25 */
    check_penalty(&s, -3, 2, -7);    /* -3 * 2 - 0.5 - 2 * 0.25 */
}

static void penalties_come_before_temperature_and_top_k(void **state) {
    (void)state;
    gdn_sampling s;
    gdn_sampling_defaults(&s);
    s.presence = 5;
    s.top_k = 1;
    const float x[3] = { 2, 1, 0 };
    gdn_sampler *p = make(&s, 3, 3);
    assert_int_equal(next(p, x), 0);
    assert_int_equal(next(p, x), 1);
    assert_int_equal(next(p, x), 2);
    assert_int_equal(next(p, x), 0); /* all are penalised now */
    gdn_sampler_free(p);
}

/* --- what must not happen ------------------------------------------------------------ */

static void padding_is_never_chosen(void **state) {
    (void)state;
    const float x[6] = { 0, 0, 0, 50, 50, 50 };
    gdn_sampling s;
    for (int kind = 0; kind < 5; kind++) {
        gdn_sampling_defaults(&s);
        if (kind == 1) s.temperature = 0;
        if (kind == 2) s.top_k = 5;
        if (kind == 3) s.top_p = 0.9f;
        if (kind == 4) s.min_p = 0.1f, s.presence = 1;
        gdn_sampler *p = make(&s, 6, 3);
        for (int i = 0; i < 200; i++) assert_true(next(p, x) < 3);
        gdn_sampler_free(p);
    }
}

static void rows_without_a_number_are_refused(void **state) {
    (void)state;
    const float none[3] = { -INFINITY, -INFINITY, -INFINITY }, nan[3] = { NAN, NAN, NAN };
    const float mixed[3] = { NAN, -INFINITY, NAN }, inf[3] = { 0, INFINITY, 0 };
    const float *const rows[] = { none, nan, mixed, inf };
    gdn_sampling s;
    for (int kind = 0; kind < 4; kind++) {
        gdn_sampling_defaults(&s);
        if (kind == 1) s.temperature = 0;
        if (kind == 2) s.top_k = 2;
        if (kind == 3) s.top_p = 0.5f;
        gdn_sampler *p = make(&s, 3, 3);
        for (int i = 0; i < 4; i++) {
            gdn_err err = { 0 };
            int32_t id = 77;
            assert_int_equal(gdn_sampler_next(p, rows[i], &id, &err), GDN_E_DEVICE);
            assert_int_equal(id, 77);
            assert_true(err.text[0] != '\0');
        }
        const float one[3] = { NAN, 0, -INFINITY }; /* and nothing was broken by that */
        for (int i = 0; i < 10; i++) assert_int_equal(next(p, one), 1);
        gdn_sampler_free(p);
    }
}

static void bad_options_are_named(void **state) {
    (void)state;
    static const struct { int field; float value; const char *name; } bad[] = {
        { 0, 0, "repetition" },   { 0, -1, "repetition" },  { 0, NAN, "repetition" },
        { 1, NAN, "presence" },   { 1, INFINITY, "presence" }, { 2, NAN, "frequency" },
        { 3, -0.1f, "temperature" }, { 3, NAN, "temperature" }, { 4, -1, "top_k" },
        { 5, 0, "top_p" },        { 5, 1.1f, "top_p" },     { 5, NAN, "top_p" },
        { 6, -0.1f, "min_p" },    { 6, 1.5f, "min_p" },     { 6, NAN, "min_p" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gdn_sampling s;
        gdn_sampling_defaults(&s);
        float *const f[] = { &s.repetition, &s.presence, &s.frequency, &s.temperature, NULL,
                             &s.top_p, &s.min_p };
        if (bad[i].field == 4) s.top_k = (int32_t)bad[i].value;
        else *f[bad[i].field] = bad[i].value;
        gdn_sampler *p = NULL;
        gdn_err err = { 0 };
        assert_int_equal(gdn_sampler_create(&s, 10, 10, &p, &err), GDN_E_INVALID);
        assert_null(p);
        assert_non_null(strstr(err.text, bad[i].name));
    }
    static const int32_t sizes[][2] = { { 0, 0 }, { 10, 0 }, { 10, 11 }, { -1, -1 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        gdn_sampling s;
        gdn_sampler *p = NULL;
        gdn_err err = { 0 };
        gdn_sampling_defaults(&s);
        assert_int_equal(gdn_sampler_create(&s, sizes[i][0], sizes[i][1], &p, &err),
                         GDN_E_INVALID);
    }
    gdn_sampler_free(NULL);
}

/* --- random numbers -------------------------------------------------------------------- */

static void a_seed_repeats_itself_and_others_differ(void **state) {
    (void)state;
    gdn_sampling s;
    float x[64];
    for (int i = 0; i < 64; i++) x[i] = 0;
    int32_t first[100];
    for (uint64_t seed = 0; seed < 4; seed++) {
        gdn_sampling_defaults(&s);
        s.seed = seed;
        gdn_sampler *a = make(&s, 64, 64), *b = make(&s, 64, 64);
        int same = 0;
        for (int i = 0; i < 100; i++) {
            const int32_t id = next(a, x);
            assert_int_equal(id, next(b, x));
            if (seed == 0) first[i] = id;
            else same += id == first[i];
        }
        assert_true(same < 20); /* 1.6 expected */
        gdn_sampler_free(a);
        gdn_sampler_free(b);
    }
}

/* The documented generator, worked out here by itself: 64 equal logits make the drawn id the
 * top six bits of the number. */
static uint64_t mixed(uint64_t z) {
    z ^= z >> 30;
    z *= 0xbf58476d1ce4e5b9u;
    z ^= z >> 27;
    z *= 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static void the_generator_is_the_documented_one(void **state) {
    (void)state;
    /* The first output of SplitMix64 from state 0, as published with it. */
    assert_true(mixed(0x9e3779b97f4a7c15u) == 0xe220a8397b1dcdafu);
    gdn_sampling s;
    float x[64];
    for (int i = 0; i < 64; i++) x[i] = 1;
    gdn_sampling_defaults(&s);
    s.seed = 123456789;
    gdn_sampler *p = make(&s, 64, 64);
    for (uint64_t i = 1; i <= 50; i++) {
        const uint64_t z = mixed(mixed(s.seed) + i * 0x9e3779b97f4a7c15u);
        assert_int_equal(next(p, x), (int32_t)(z >> 58));
    }
    gdn_sampler_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(top_k_renormalises),
        cmocka_unit_test(top_p_takes_the_smallest_set_that_reaches_it),
        cmocka_unit_test(top_p_counts_within_top_k),
        cmocka_unit_test(min_p_is_relative_to_the_largest),
        cmocka_unit_test(long_rows_keep_exactly_the_right_ids),
        cmocka_unit_test(ties_at_the_border_go_by_id),
        cmocka_unit_test(a_long_row_is_drawn_by_its_sums),
        cmocka_unit_test(penalties_match_their_formulas),
        cmocka_unit_test(penalties_come_before_temperature_and_top_k),
        cmocka_unit_test(padding_is_never_chosen),
        cmocka_unit_test(rows_without_a_number_are_refused),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(a_seed_repeats_itself_and_others_differ),
        cmocka_unit_test(the_generator_is_the_documented_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
