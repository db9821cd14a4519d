/* test_degenerate.c - logits that no model has end the request they belong to, and nothing else.
 *
 * Models are broken in one place: an embedding row that is NaN reaches the sequences with that token
 * alone; an output row breaks every answer; a final norm that multiplies by zero makes all logits
 * equal. */
#include "engine_check.h"
#include "patched.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 512, D = 96, BAD = 300 };

typedef struct {
    patched     p;
    gdn_model  *m;
    gdn_engine *e;
} bench;

static bench open_bench(const char *model, const char *tensor, int64_t first, int64_t n,
                        uint16_t bits, int32_t n_draft) {
    bench b = {.p = patched_create(model, tensor, first, n, bits)};
    gdn_engine_opts o;
    gdn_err err;
    b.m = open_model(b.p.dir, GDN_MATH_F32, 1);
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 1000;
    o.n_seq = 3;
    o.n_row = 128;
    o.n_draft = n_draft;
    o.cache_bytes = GDN_CACHE_AUTO;
    must(gdn_engine_create(b.m, &o, &b.e, &err), &err);
    return b;
}

static void close_bench(bench *b) {
    check_idle(b->e);
    gdn_engine_free(b->e);
    gdn_model_close(b->m);
    patched_remove(&b->p);
}

static void run(bench *b) {
    gdn_err err;
    while (gdn_engine_busy(b->e)) {
        must(gdn_engine_step(b->e, &err), &err);
        check_engine(b->e);
    }
}

/* r ended with an error that says all of these; it is freed. */
static void failed(bench *b, gdn_request *r, const char *what, int32_t after) {
    gdn_request_result res;
    char place[64];
    gdn_request_get_result(r, &res);
    assert_true(res.done);
    assert_int_equal(res.finish, GDN_FINISH_ERROR);
    assert_int_equal(res.status, GDN_E_DEVICE);
    snprintf(place, sizeof place, "after %d tokens", after);
    const char *says[] = {what, place, "device cpu:1", b->p.dir};
    for (int i = 0; i < 4; i++)
        if (strstr(gdn_request_error(r), says[i]) == NULL)
            fail_msg("%s is not in: %s", says[i], gdn_request_error(r));
    gdn_request_free(r);
}

/* One of three has the bad token in its prompt; the others answer as they do
 * alone. */
static void one_of_three(const char *model, int32_t n_draft) {
    bench b = open_bench(model, "model.embed_tokens.weight", (int64_t)BAD * D, D, BF16_NAN,
                         n_draft);
    enum { N = 40, NEW = 12 };
    int32_t *prompt[3];
    gdn_request *r[3];
    cold c;
    for (int i = 0; i < 3; i++) {
        prompt[i] = random_ids(N, BAD, 5 + (uint64_t)i); /* never the bad one */
        if (i == 1) prompt[i][N - 1 - 5] = BAD;
        r[i] = submit_to(b.e, greedy(prompt[i], N, NEW));
    }
    run(&b);
    failed(&b, r[1], "512 of 512 logits are NaN, the first is token 0's", N);
    cold_open(&c, b.m, 200, VOCAB);
    for (int i = 0; i < 3; i += 2) {
        gdn_sampling s;
        gdn_sampling_defaults(&s);
        s.temperature = 0;
        const int32_t *want = cold_run(&c, prompt[i], N, &s, NULL, NEW);
        gdn_request_result res;
        gdn_request_get_result(r[i], &res);
        assert_int_equal(res.finish, GDN_FINISH_LENGTH);
        assert_int_equal(res.n_new, NEW);
        assert_memory_equal(gdn_request_tokens(r[i]), want, NEW * sizeof *want);
        gdn_request_free(r[i]);
    }
    cold_close(&c);
    for (int i = 0; i < 3; i++) free(prompt[i]);
    close_bench(&b);
}

static void test_nan_of_one(void **state) {
    (void)state;
    one_of_three("dense-mtp", 0);
    one_of_three("dense-mtp", 3);
    one_of_three("next-moe", 0);
}

/* No snapshot is left along a prompt that failed, not even one of a piece of it. */
static void test_forgotten(void **state) {
    (void)state;
    bench b = open_bench("dense-mtp", "model.embed_tokens.weight", (int64_t)BAD * D, D, BF16_NAN, 0);
    enum { N = 300, AT = 100 };
    int32_t *prompt = random_ids(N, BAD, 9);
    gdn_request_opts o;
    gdn_request *r = NULL;
    gdn_err err;
    prompt[AT - 20] = BAD;
    gdn_request_opts_defaults(&o);
    o.prompt = prompt;
    o.n_prompt = N;
    o.max_new = 5;
    o.save = (const int32_t[]){AT};
    o.n_save = 1;
    for (int round = 0; round < 2; round++) {
        gdn_request_result res;
        gdn_engine_stats s;
        must(gdn_request_submit(b.e, &o, &r, &err), &err);
        run(&b);
        gdn_request_get_result(r, &res);
        assert_int_equal(res.n_cached, 0);
        gdn_engine_get_stats(b.e, &s);
        assert_int_equal(s.saved, round + 1); /* it was there */
        assert_int_equal(s.n_snapshot, 0);
        failed(&b, r, "logits are NaN", N);
    }
    free(prompt);
    close_bench(&b);
}

/* In the middle of an answer: the model is brought to say the bad token, whose row is NaN. */
static void test_while_answering(void **state) {
    (void)state;
    gdn_model *whole = open_model(MODELS "dense-mtp", GDN_MATH_F32, 1);
    enum { N = 20, NEW = 30 };
    int32_t *prompt = random_ids(N, VOCAB, 3), at = 0;
    gdn_sampling s;
    cold c;
    gdn_sampling_defaults(&s);
    s.temperature = 0;
    cold_open(&c, whole, 200, VOCAB);
    const int32_t *answer = cold_run(&c, prompt, N, &s, NULL, NEW);
    for (at = 4; at < NEW; at++) { /* a token that is new at this place */
        bool seen = false;
        for (int32_t i = 0; i < N; i++) seen = seen || prompt[i] == answer[at];
        for (int32_t i = 0; i < at; i++) seen = seen || answer[i] == answer[at];
        if (!seen) break;
    }
    assert_true(at < NEW - 1);
    bench b = open_bench("dense-mtp", "model.embed_tokens.weight", (int64_t)answer[at] * D, D,
                         BF16_NAN, 0);
    gdn_request *r = submit_to(b.e, greedy(prompt, N, NEW));
    run(&b);
    gdn_request_result res;
    gdn_request_get_result(r, &res);
    assert_int_equal(res.n_new, at + 1); /* what was right stays */
    assert_memory_equal(gdn_request_tokens(r), answer, (size_t)(at + 1) * sizeof *answer);
    failed(&b, r, "logits are NaN", N + at + 1);
    close_bench(&b);
    cold_close(&c);
    gdn_model_close(whole);
    free(prompt);
}

/* Broken for everybody: every request says why. */
static void all_fail(const char *tensor, int64_t first, int64_t n, uint16_t bits, const char *what) {
    bench b = open_bench("dense-mtp", tensor, first, n, bits, 0);
    const int32_t prompt[] = {5, 6, 7};
    gdn_request *r[2] = {submit_to(b.e, greedy(prompt, 3, 4)), submit_to(b.e, greedy(prompt, 2, 4))};
    run(&b);
    failed(&b, r[0], what, 3);
    failed(&b, r[1], what, 2);
    gdn_request_opts o;
    gdn_request_result res;
    gdn_err err;
    gdn_request_opts_defaults(&o);
    o.prompt = prompt;
    o.n_prompt = 3;
    assert_int_equal(gdn_generate(b.e, &o, NULL, &res, &err), GDN_E_DEVICE); /* and a sampled one */
    assert_non_null(strstr(err.text, what));
    close_bench(&b);
}

static void test_all(void **state) {
    (void)state;
    all_fail("lm_head.weight", 7 * D, 1, BF16_NAN, "1 of 512 logits are NaN, the first is token 7's");
    all_fail("model.norm.weight", 0, D, BF16_MINUS_ONE, "all 512 logits are 0");
    all_fail("model.norm.weight", 0, D, BF16_INF, "logits are NaN"); /* sums of both signs */
}

/* Rows as the sampler sees them. */
static void test_rows(void **state) {
    (void)state;
    enum { N = 1000, VALID = 900 };
    float x[N];
    gdn_sampling s;
    gdn_sampler *p = NULL;
    gdn_err err;
    char what[80] = "";
    gdn_sampling_defaults(&s);
    must(gdn_sampler_create(&s, N, VALID, &p, &err), &err);
    for (int i = 0; i < N; i++) x[i] = (float)(i % 7);
    assert_false(gdn_sampler_degenerate(p, x, what, sizeof what));
    x[5] = -INFINITY; /* masked */
    x[VALID] = NAN;   /* padding of the vocabulary */
    assert_false(gdn_sampler_degenerate(p, x, what, sizeof what));
    x[VALID - 1] = NAN;
    assert_true(gdn_sampler_degenerate(p, x, what, sizeof what));
    assert_string_equal(what, "1 of 900 logits are NaN, the first is token 899's");
    x[VALID - 1] = INFINITY;
    assert_true(gdn_sampler_degenerate(p, x, what, sizeof what));
    assert_string_equal(what, "the logit of token 899 is infinite");
    for (int i = 0; i < VALID; i++) x[i] = -INFINITY;
    assert_true(gdn_sampler_degenerate(p, x, what, sizeof what));
    assert_string_equal(what, "none of 900 logits is finite");
    x[17] = 3; /* all but one are masked */
    assert_false(gdn_sampler_degenerate(p, x, what, sizeof what));
    for (int i = 0; i < VALID; i++) x[i] = -2.5f;
    assert_true(gdn_sampler_degenerate(p, x, what, sizeof what));
    assert_string_equal(what, "all 900 logits are -2.5");
    gdn_sampler_free(p);
    must(gdn_sampler_create(&s, 1, 1, &p, &err), &err); /* a vocabulary of one */
    assert_false(gdn_sampler_degenerate(p, x, what, sizeof what));
    gdn_sampler_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),      cmocka_unit_test(test_nan_of_one),
        cmocka_unit_test(test_forgotten), cmocka_unit_test(test_while_answering),
        cmocka_unit_test(test_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
