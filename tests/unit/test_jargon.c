/* test_jargon.c - the demo model against what an independent implementation said of it: greedy
 * answers, the five largest logits of each prompt and of places in a text, the text's likelihood,
 * and how often the draft head agrees with the model. */
#include "cases.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"

enum { VOCAB = 4096, MAX_NEW = 200, TEXT = SANITIZED ? 300 : 4096 };

static json_t *golden;

static int setup(void **state) {
    (void)state;
    golden = json_load_file("tests/golden/jargon/golden.json", 0, NULL);
    return golden == NULL;
}

static int teardown(void **state) {
    (void)state;
    json_decref(golden);
    return 0;
}

static int32_t *ids_of(const json_t *list, int32_t *n) {
    *n = (int32_t)json_array_size(list);
    int32_t *ids = malloc(((size_t)*n + 1) * sizeof *ids);
    assert_non_null(ids);
    for (int32_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return ids;
}

static int32_t largest(const float *x) {
    int32_t best = 0;
    for (int32_t v = 1; v < VOCAB; v++)
        if (x[v] > x[best]) best = v;
    return best;
}

/* The five largest logits: ids in order, values within 2e-3. */
static void check_top5(const json_t *want, float *logits, const char *where) {
    const json_t *ids = json_object_get(want, "top5_ids"), *values = json_object_get(want, "top5_logits");
    assert_int_equal(json_array_size(ids), 5);
    for (size_t k = 0; k < 5; k++) {
        const int32_t id = largest(logits);
        const double value = json_real_value(json_array_get(values, k));
        if (fabs(logits[id] - value) > 2e-3)
            fail_msg("%s: logit %zu is %.4f, want %.4f", where, k, (double)logits[id], value);
        assert_int_equal(id, json_integer_value(json_array_get(ids, k)));
        logits[id] = -INFINITY;
    }
}

typedef struct {
    int32_t id[MAX_NEW];
    int32_t n;
} answer;

static bool collect(void *arg, int32_t id, const char *text, size_t n) {
    answer *a = arg;
    (void)text, (void)n;
    if (id >= 0 && a->n < MAX_NEW) a->id[a->n++] = id;
    return true;
}

static void check_greedy(gdn_math math, bool thin) {
    gdn_model *m = open_model("models/jargon", math, 2);
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 1024;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(golden, "greedy"), i, one) {
        const char *prompt = json_string_value(json_object_get(one, "prompt"));
        /* Two prompts have margins that only f32 keeps. */
        const bool is_thin = strstr(prompt, "foo") != NULL || strstr(prompt, "meaning of life") != NULL;
        if (is_thin && !thin) continue;
        gdn_seq *s = NULL;
        int32_t n, n_want, last;
        int32_t *ids = ids_of(json_object_get(one, "prompt_ids"), &n);
        int32_t *want = ids_of(json_object_get(one, "greedy_ids"), &n_want);
        if (math == GDN_MATH_F32) {
            float logits[VOCAB];
            must(gdn_seq_create(e, &s, &err), &err);
            last = n - 1;
            gdn_work w = {.seq = s, .tokens = ids, .n = n, .out = &last, .n_out = 1,
                          .logits = logits};
            must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
            check_top5(one, logits, prompt);
            gdn_seq_free(s);
        }
        answer a = {.n = 0};
        const gdn_model_info *info = gdn_model_get_info(m);
        gdn_request_opts g;
        gdn_request_result r;
        gdn_request_opts_defaults(&g);
        g.prompt = ids, g.n_prompt = n;
        g.max_new = n_want;
        g.stop = info->stop, g.n_stop = info->n_stop;
        g.on_token = collect, g.arg = &a;
        g.sampling.temperature = 0;
        must(gdn_generate(e, &g, NULL, &r, &err), &err);
        assert_int_equal(r.n_new, n_want);
        assert_true(a.n >= n_want - 1 && n_want <= MAX_NEW);
        assert_memory_equal(a.id, want, (size_t)a.n * sizeof *want);
        free(ids), free(want);
    }
    gdn_engine_free(e);
    gdn_model_close(m);
}

static void test_greedy_f32(void **state) {
    (void)state;
    check_greedy(GDN_MATH_F32, true);
}
static void test_greedy_fast(void **state) {
    (void)state;
    check_greedy(GDN_MATH_FAST, false);
}

static int32_t *text_ids(void) {
    gdn_tokenizer *t = NULL;
    gdn_err err;
    must(gdn_tokenizer_open("models/jargon", &t, &err), &err);
    FILE *f = fopen("models/jargon/perplexity.txt", "rb");
    assert_non_null(f);
    char *text = malloc(1 << 16);
    assert_non_null(text);
    const size_t n = fread(text, 1, 1 << 16, f);
    fclose(f);
    int32_t *ids = NULL;
    size_t n_ids = 0;
    must(gdn_tokenize(t, text, n, true, &ids, &n_ids, &err), &err);
    assert_true(n_ids >= 4096);
    const json_t *first = json_object_get(golden, "perplexity_first_ids");
    for (size_t i = 0; i < json_array_size(first); i++)
        assert_int_equal(ids[i], json_integer_value(json_array_get(first, i)));
    free(text);
    gdn_tokenizer_close(t);
    return ids;
}

static double nll(const float *logits, int32_t next) {
    double max = -INFINITY, sum = 0;
    for (int32_t v = 0; v < VOCAB; v++) max = fmax(max, logits[v]);
    for (int32_t v = 0; v < VOCAB; v++) sum += exp(logits[v] - max);
    return max + log(sum) - logits[next];
}

static void check_text(gdn_math math) {
    gdn_model *m = open_model("models/jargon", math, 2);
    int32_t *ids = text_ids();
    float *logits = all_logits(m, ids, TEXT, 512, 0, NULL);
    double sum = 0;
    for (int32_t i = 0; i + 1 < TEXT; i++) sum += nll(logits + (size_t)i * VOCAB, ids[i + 1]);
    const double mean = sum / (TEXT - 1), want = json_real_value(json_object_get(golden, "mean_nll"));
    print_message("mean nll %.5f, golden %.5f\n", mean, want);
    if (!SANITIZED) assert_true(fabs(mean - want) < 5e-4);
    size_t i;
    json_t *one;
    if (math == GDN_MATH_F32)
        json_array_foreach(json_object_get(golden, "positions"), i, one) {
            const int32_t at = (int32_t)json_integer_value(json_object_get(one, "position"));
            if (at >= TEXT - 1) continue;
            char where[32];
            snprintf(where, sizeof where, "position %d", at);
            assert_true(fabs(nll(logits + (size_t)at * VOCAB, ids[at + 1]) -
                             json_number_value(json_object_get(one, "nll_next"))) < 2e-3);
            check_top5(one, logits + (size_t)at * VOCAB, where);
        }
    free(logits), free(ids);
    gdn_model_close(m);
}

static void test_text_f32(void **state) {
    (void)state;
    check_text(GDN_MATH_F32);
}
static void test_text_fast(void **state) {
    (void)state;
    check_text(GDN_MATH_FAST);
}

/* How often the draft head's guess at the token after the next is the model's own choice there. */
static void test_draft_agreement(void **state) {
    (void)state;
    enum { N = 512 };
    gdn_model *m = open_model("models/jargon", GDN_MATH_F32, 2);
    int32_t *ids = text_ids(), same = 0;
    float *mtp = NULL, *logits = all_logits(m, ids, N, 512, 0, &mtp);
    for (int32_t t = 0; t + 1 < N; t++)
        same += largest(mtp + (size_t)t * VOCAB) == largest(logits + (size_t)(t + 1) * VOCAB);
    const double share = (double)same / (N - 1);
    const double want = json_real_value(json_object_get(json_object_get(golden, "mtp_agreement"), "window_512"));
    print_message("drafts agree %.3f, golden %.3f\n", share, want);
    assert_true(fabs(share - want) < 0.02);
    free(mtp), free(logits), free(ids);
    gdn_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_f32), cmocka_unit_test(test_greedy_fast),
        cmocka_unit_test(test_text_f32),   cmocka_unit_test(test_text_fast),
        cmocka_unit_test(test_draft_agreement),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
