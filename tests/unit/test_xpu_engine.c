/* test_xpu_engine.c - the engine on the xpu device: requests side by side, prompts in pieces,
 * snapshots, drafts, ends of every kind, broken weights; fast mathematics against the cpu's f32. */
#include "engine_check.h"
#include "patched.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl.h"

enum { VOCAB = 512, D = 96, N = 150, NEW = 8 };

static gdn_model *open_on(const char *dir, const char *device, gdn_math math) {
    gdn_model_opts o;
    gdn_model *m = NULL;
    gdn_err err;
    setenv("GDN_BF16", "always", 1); /* small as it is, fast means rounded */
    gdn_model_opts_defaults(&o);
    o.device = device;
    o.math = math;
    must(gdn_model_open(dir, &o, &m, &err), &err);
    return m;
}

static gdn_engine *engine(gdn_model *m, int32_t n_seq, int32_t n_row, int32_t n_draft) {
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 1000;
    o.n_seq = n_seq;
    o.n_row = n_row;
    o.n_draft = n_draft;
    o.cache_bytes = GDN_CACHE_AUTO;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    return e;
}

static void step(gdn_engine *e) {
    gdn_err err;
    must(gdn_engine_step(e, &err), &err);
    check_engine(e);
}

static void run(gdn_engine *e) {
    while (gdn_engine_busy(e)) step(e);
}

/* r answered as its prompt does alone. */
static gdn_request_result took(cold *c, gdn_request *r, gdn_request_opts o) {
    gdn_request_result res;
    gdn_request_get_result(r, &res);
    const int32_t *want = cold_run(c, o.prompt, o.n_prompt, &o.sampling, NULL, NEW);
    assert_int_equal(res.finish, GDN_FINISH_LENGTH);
    assert_int_equal(res.n_new, NEW);
    assert_memory_equal(gdn_request_tokens(r), want, NEW * sizeof *want);
    gdn_request_free(r);
    return res;
}

/* Three at once, in pieces of 32 rows; then the same prompts, from snapshots; one leaves. */
static void together(const char *model, int32_t n_draft) {
    gdn_model *m = open_on(model, "xpu", GDN_MATH_F32);
    gdn_engine *e = engine(m, 3, 32, n_draft);
    gdn_engine_stats s;
    gdn_request_opts o[3];
    gdn_request *r[3];
    int32_t *prompt[3];
    cold c;
    cold_open(&c, m, 300, VOCAB);
    for (int i = 0; i < 3; i++) {
        prompt[i] = random_ids(N, VOCAB, 20 + (uint64_t)i);
        for (int32_t k = 40; k < N && n_draft > 0; k++) prompt[i][k] = prompt[i][k - 20];
        o[i] = greedy(prompt[i], N - 10 * i, NEW);
        r[i] = submit_to(e, o[i]);
    }
    while (gdn_engine_busy(e)) {
        if (n_draft > 0) always_draft(e);
        step(e);
    }
    gdn_engine_get_stats(e, &s);
    assert_true(s.steps > 2 * N / 32);
    assert_true(n_draft == 0 || s.drafted > 0);
    for (int i = 0; i < 3; i++) assert_int_equal(took(&c, r[i], o[i]).n_cached, 0);
    for (int i = 0; i < 3; i++) r[i] = submit_to(e, o[i]);
    step(e);
    gdn_request_cancel(r[1]);
    run(e);
    gdn_request_result res;
    gdn_request_get_result(r[1], &res);
    assert_int_equal(res.finish, GDN_FINISH_CANCELLED);
    gdn_request_free(r[1]);
    for (int i = 0; i < 3; i += 2) assert_int_equal(took(&c, r[i], o[i]).n_cached, o[i].n_prompt);
    /* A longer prompt goes on where the first one's answer ended. */
    int32_t longer[N + 20];
    memcpy(longer, prompt[0], N * sizeof *longer);
    memcpy(longer + N, cold_run(&c, prompt[0], N, &o[0].sampling, NULL, NEW), NEW * sizeof *longer);
    for (int32_t k = N + NEW; k < N + 20; k++) longer[k] = k;
    const gdn_request_opts next = greedy(longer, N + 20, NEW);
    r[0] = submit_to(e, next);
    run(e);
    assert_true(took(&c, r[0], next).n_cached >= N);
    for (int i = 0; i < 3; i++) free(prompt[i]);
    cold_close(&c);
    check_idle(e);
    gdn_engine_free(e);
    gdn_model_close(m);
}

static void test_dense(void **state) {
    (void)state;
    together(MODELS "dense-mtp", 0);
}
static void test_moe(void **state) {
    (void)state;
    together(MODELS "next-moe", 0);
}
static void test_drafts(void **state) {
    (void)state;
    together(MODELS "dense-mtp", 3);
}

/* With a tokenizer of n ids. */
static gdn_request *submit_valid(gdn_engine *e, gdn_request_opts o, int32_t n) {
    gdn_request *r = submit_to(e, o);
    gdn_err err;
    gdn_sampler_free(r->sampler);
    must(gdn_sampler_create(&o.sampling, VOCAB, n, &r->sampler, &err), &err);
    return r;
}

/* Requests of all kinds share steps.  What the host reads of the logits, the largest or
 * whole rows, changes no token; cold_run() reads whole rows alone. */
static void mixed(int32_t n_draft) {
    enum { N_REQUEST = 8, N_LARGEST = 4, PROMPT = 24, VALID = 200, MOST = GDN_TOP_K_MOST };
    static const gdn_sampling kinds[N_REQUEST] = {
        {.repetition = 1, .top_p = 1}, /* greedy */
        {.repetition = 1, .temperature = 3, .top_k = 5, .top_p = 0.95f},
        {.repetition = 1, .temperature = 2, .top_k = MOST, .top_p = 1, .min_p = 0.01f},
        {.repetition = 1, .temperature = 1, .top_k = 1, .top_p = 1},
        /* These need whole rows. */
        {.repetition = 0.01f, .temperature = 1, .top_k = 20, .top_p = 1},
        {.repetition = 1, .temperature = 1, .top_p = 0.9f},
        {.repetition = 1, .temperature = 3, .top_k = MOST + 1, .top_p = 1},
        {.repetition = 1, .presence = -50, .top_p = 1},
    };
    gdn_model *m = open_on(MODELS "dense-mtp", "xpu", GDN_MATH_F32);
    gdn_engine *e = engine(m, N_REQUEST, 64, n_draft);
    gdn_engine_stats s;
    gdn_request_opts o[N_REQUEST];
    gdn_request *r[N_REQUEST];
    int32_t *prompt[N_REQUEST];
    cold c;
    cold_open(&c, m, 100, VALID);
    assert_non_null(e->top);
    for (int i = 0; i < N_REQUEST; i++) {
        prompt[i] = random_ids(PROMPT, VOCAB, 40 + (uint64_t)i);
        o[i] = greedy(prompt[i], PROMPT, NEW);
        o[i].sampling = kinds[i];
        o[i].sampling.seed = 7 + (uint64_t)i;
        r[i] = submit_valid(e, o[i], VALID);
    }
    while (gdn_engine_busy(e)) {
        if (n_draft > 0) always_draft(e);
        step(e);
    }
    gdn_engine_get_stats(e, &s);
    assert_true(n_draft == 0 || s.drafted > 0);
    for (int i = 0; i < N_REQUEST; i++) took(&c, r[i], o[i]);
    /* Those that need the largest alone read no row. */
    memset(e->logits, 0x55, VOCAB * sizeof *e->logits);
    for (int i = 0; i < N_LARGEST; i++) r[i] = submit_valid(e, o[i], VALID);
    run(e);
    for (int i = 0; i < N_LARGEST; i++) took(&c, r[i], o[i]);
    for (size_t i = 0; i < VOCAB * sizeof *e->logits; i++)
        assert_int_equal(((const unsigned char *)e->logits)[i], 0x55);
    for (int i = 0; i < N_REQUEST; i++) free(prompt[i]);
    cold_close(&c);
    check_idle(e);
    gdn_engine_free(e);
    gdn_model_close(m);
}

static void test_mixed(void **state) {
    (void)state;
    mixed(0);
    mixed(3);
}

/* A NaN that one request meets ends it, here as on the cpu. */
static void test_nan(void **state) {
    (void)state;
    enum { BAD = 300 };
    patched p = patched_create("dense-mtp", "model.embed_tokens.weight", (int64_t)BAD * D, D, BF16_NAN);
    gdn_model *m = open_on(p.dir, "xpu", GDN_MATH_F32);
    gdn_engine *e = engine(m, 3, 64, 0);
    int32_t *good = random_ids(20, BAD, 4), *bad = random_ids(20, BAD, 5);
    gdn_request_result res;
    cold c;
    bad[12] = BAD;
    gdn_request *r[2] = {submit_to(e, greedy(good, 20, NEW)), submit_to(e, greedy(bad, 20, NEW))};
    run(e);
    gdn_request_get_result(r[1], &res);
    assert_int_equal(res.finish, GDN_FINISH_ERROR);
    assert_int_equal(res.status, GDN_E_DEVICE);
    assert_non_null(strstr(gdn_request_error(r[1]), "device xpu:0"));
    assert_non_null(strstr(gdn_request_error(r[1]), "NaN, the first is token 0's after 20 tokens"));
    gdn_request_free(r[1]);
    cold_open(&c, m, 100, VOCAB);
    took(&c, r[0], greedy(good, 20, NEW));
    cold_close(&c);
    check_idle(e);
    gdn_engine_free(e);
    gdn_model_close(m);
    patched_remove(&p);
    free(good), free(bad);
}

/* One logit that is NaN ends everybody, also who would not have chosen it. */
static void test_nan_logit(void **state) {
    (void)state;
    patched p = patched_create("dense-mtp", "lm_head.weight", 7 * D, 1, BF16_NAN);
    gdn_model *m = open_on(p.dir, "xpu", GDN_MATH_F32);
    gdn_engine *e = engine(m, 3, 64, 0);
    const int32_t prompt[] = {5, 6, 4};
    gdn_request_opts o = greedy(prompt, 3, NEW);
    gdn_request *r[3];
    for (int i = 0; i < 3; i++) { /* greedy, the best of 20, of all */
        o.sampling.temperature = i > 0;
        o.sampling.top_k = i == 1 ? 20 : 0;
        r[i] = submit_to(e, o);
    }
    run(e);
    for (int i = 0; i < 3; i++) {
        gdn_request_result res;
        gdn_request_get_result(r[i], &res);
        assert_int_equal(res.finish, GDN_FINISH_ERROR);
        assert_int_equal(res.status, GDN_E_DEVICE);
        assert_non_null(strstr(gdn_request_error(r[i]),
                               "1 of 512 logits are NaN, the first is token 7's after 3 tokens"));
        gdn_request_free(r[i]);
    }
    check_idle(e);
    gdn_engine_free(e);
    gdn_model_close(m);
    patched_remove(&p);
}

/* Mean KL divergence from the cpu's f32 to the device's fast mathematics, over positions. */
static double divergence(const char *dir, const char *device, int32_t n) {
    gdn_model *exact = open_on(dir, "cpu", GDN_MATH_F32), *fast = open_on(dir, device, GDN_MATH_FAST);
    const int32_t vocab = gdn_model_get_info(exact)->vocab;
    int32_t *ids = random_ids(n, vocab < 4000 ? vocab : 4000, 8);
    float *p = all_logits(exact, ids, n, 64, 0, NULL), *q = all_logits(fast, ids, n, 64, 0, NULL);
    double all = 0, differ = 0;
    for (int32_t t = 0; t < n; t++) {
        const float *a = p + (int64_t)t * vocab, *b = q + (int64_t)t * vocab;
        double za = 0, zb = 0, kl = 0;
        for (int32_t v = 0; v < vocab; v++) za += exp((double)a[v]), zb += exp((double)b[v]);
        for (int32_t v = 0; v < vocab; v++) {
            const double la = (double)a[v] - log(za), lb = (double)b[v] - log(zb);
            kl += exp(la) * (la - lb);
            differ += a[v] != b[v];
        }
        all += kl;
    }
    assert_true(differ > 0); /* it was another computation */
    free(p), free(q), free(ids);
    gdn_model_close(exact);
    gdn_model_close(fast);
    return all / n;
}

/* Portable kernels multiply in f32: what is rounded is keys and values.  The convolution's states are
 * not; when they were, rows of the mixture went to other experts (3.5e-3). */
static void test_fast(void **state) {
    (void)state;
    static const char *const dirs[] = {MODELS "dense-mtp", MODELS "next-moe", "models/jargon"};
    for (int i = 0; i < 3; i++) {
        const double kl = divergence(dirs[i], "xpu", 48);
        print_message("%s: %.2g\n", dirs[i], kl);
        if (!(kl <= 1e-4)) fail_msg("%s: the divergence is %g", dirs[i], kl);
    }
}

int main(void) {
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense), cmocka_unit_test(test_moe), cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_mixed), cmocka_unit_test(test_nan),
        cmocka_unit_test(test_nan_logit), cmocka_unit_test(test_fast),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    opencl_end();
    return rc;
}
