/* test_invariance.c - a row's bits depend on its own sequence alone.
 *
 * Prompts in one call, in steps of 1, 7, 64 and 513 rows, call by call, with any number of
 * threads and beside other sequences give the same bits, in both math modes. */
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"

/* Past two blocks of 256 keys and a page of 32 to 544 tokens. */
enum { N = SANITIZED ? 300 : 700, VOCAB = 512, MODEL_STEP = SANITIZED ? 2 : 1 };

static const char *const models[] = {MODELS "dense-mtp", MODELS "dense-tied-128",
                                     MODELS "next-moe", MODELS "moe-mtp"};

static void same(const char *what, const char *model, const float *a, const float *b, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        if (memcmp(a + (size_t)i * VOCAB, b + (size_t)i * VOCAB, VOCAB * sizeof *a) != 0)
            fail_msg("%s, %s: logits of token %d differ", model, what, i);
}

static void test_steps(void **state) {
    (void)state;
    static const int32_t rows[] = {1, 7, 64, 513};
    for (size_t k = 0; k < sizeof models / sizeof *models; k += MODEL_STEP)
        for (int math = 0; math < 2; math++) {
            gdn_model *m = open_model(models[k], (gdn_math)math, 2);
            const bool mtp = gdn_model_get_info(m)->has_mtp;
            int32_t *ids = random_ids(N, VOCAB, 11 + k);
            float *draft = NULL, *whole = all_logits(m, ids, N, 1024, 0, mtp ? &draft : NULL);
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                char what[40];
                float *draft2 = NULL;
                float *cut = all_logits(m, ids, N, rows[r], r % 2 ? 0 : rows[r] + 3,
                                        mtp ? &draft2 : NULL);
                snprintf(what, sizeof what, "steps of %d", rows[r]);
                same(what, models[k], whole, cut, N);
                if (mtp) same("drafts", models[k], draft, draft2, N - 1);
                free(cut);
                free(draft2);
            }
            free(whole);
            free(draft);
            free(ids);
            gdn_model_close(m);
        }
}

static void test_threads(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof models / sizeof *models; k += MODEL_STEP)
        for (int math = 0; math < 2; math++) {
            int32_t *ids = random_ids(N, VOCAB, 21 + k);
            float *first = NULL;
            for (int threads = 1; threads <= 4; threads++) {
                gdn_model *m = open_model(models[k], (gdn_math)math, threads);
                float *l = all_logits(m, ids, N, 300, 0, NULL);
                if (first == NULL) first = l;
                else {
                    same("threads", models[k], first, l, N);
                    free(l);
                }
                /* Single rows over a long past: key blocks are shared out over threads. */
                l = all_logits(m, ids, N, 1, 0, NULL);
                same("threads, one row", models[k], first, l, N);
                free(l);
                gdn_model_close(m);
            }
            free(first);
            free(ids);
        }
}

/* Three sequences that advance together, in uneven pieces, against each of them alone. */
static void test_batch(void **state) {
    (void)state;
    enum { S = 3, LEN = 200 };
    static const int32_t piece[S] = {1, 17, 64};
    for (size_t k = 0; k < sizeof models / sizeof *models; k += MODEL_STEP)
        for (int math = 0; math < 2; math++) {
            gdn_model *m = open_model(models[k], (gdn_math)math, 2);
            gdn_engine_opts o;
            gdn_engine *e = NULL;
            gdn_seq *seq[S];
            gdn_err err;
            int32_t *ids[S], done[S] = {0}, out[LEN];
            float *alone[S], *together[S];
            gdn_engine_opts_defaults(&o);
            o.n_seq = S;
            o.n_ctx = S * LEN;
            o.n_row = 50;
            must(gdn_engine_create(m, &o, &e, &err), &err);
            for (int i = 0; i < LEN; i++) out[i] = i;
            for (int s = 0; s < S; s++) {
                ids[s] = random_ids(LEN, VOCAB, 31 + k * S + (size_t)s);
                alone[s] = all_logits(m, ids[s], LEN, 512, 0, NULL);
                together[s] = calloc((size_t)LEN * VOCAB, sizeof(float));
                assert_non_null(together[s]);
                must(gdn_seq_create(e, &seq[s], &err), &err);
            }
            for (;;) {
                gdn_work w[S];
                int32_t n = 0;
                for (int s = 0; s < S; s++) {
                    const int32_t left = LEN - done[s], now = left < piece[s] ? left : piece[s];
                    if (now == 0) continue;
                    w[n++] = (gdn_work){.seq = seq[s], .tokens = ids[s] + done[s], .n = now,
                                        .out = out, .n_out = now,
                                        .logits = together[s] + (size_t)done[s] * VOCAB};
                    done[s] += now;
                }
                if (n == 0) break;
                must(gdn_engine_eval(e, w, n, NULL, NULL, NULL, &err), &err);
            }
            for (int s = 0; s < S; s++) {
                same("beside others", models[k], alone[s], together[s], LEN);
                gdn_seq_free(seq[s]);
                free(ids[s]), free(alone[s]), free(together[s]);
            }
            gdn_engine_free(e);
            gdn_model_close(m);
        }
}

/* A sequence that begins where another one ended must not see anything of it. */
static void test_reused_pages(void **state) {
    (void)state;
    gdn_model *m = open_model(MODELS "dense-mtp", GDN_MATH_F32, 2);
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_err err;
    int32_t *ids = random_ids(100, VOCAB, 77), last = 99;
    float first[VOCAB], again[VOCAB];
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 100;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    for (int round = 0; round < 3; round++) {
        gdn_seq *s = NULL;
        must(gdn_seq_create(e, &s, &err), &err);
        gdn_work w = {.seq = s, .tokens = ids, .n = 100, .out = &last, .n_out = 1,
                      .logits = round == 0 ? first : again};
        if (round == 1) { /* something else in between */
            for (int i = 0; i < 50; i++) ids[i] ^= 1;
            must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
            for (int i = 0; i < 50; i++) ids[i] ^= 1;
            assert_memory_not_equal(first, again, sizeof first);
        } else {
            must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        }
        gdn_engine_stats st;
        gdn_engine_get_stats(e, &st);
        assert_true(st.n_page_used > 0 && st.n_page_used <= st.n_page);
        gdn_seq_free(s);
        gdn_engine_get_stats(e, &st);
        assert_int_equal(st.n_page_used, 0);
    }
    assert_memory_equal(first, again, sizeof first);
    free(ids);
    gdn_engine_free(e);
    gdn_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_reused_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
