/* test_request_threads.c - requests cancelled by another thread while the engine steps. */
#include "engine_check.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sanitized.h"

enum { VOCAB = 512, N = 5, PROMPT = 300, ROUNDS = SANITIZED ? 6 : 20 };

typedef struct {
    gdn_request *r[N];
    long wait_ns;
} canceller;

static void *cancel_some(void *arg) {
    const canceller *c = arg;
    for (int i = 0; i + 1 < N; i++) { /* the last one is left alone */
        const struct timespec t = {0, c->wait_ns};
        nanosleep(&t, NULL);
        gdn_request_cancel(c->r[i]);
    }
    return NULL;
}

static void test_cancel(void **state) {
    (void)state;
    gdn_engine_opts eo;
    gdn_engine *e = NULL;
    gdn_err err;
    gdn_model *m = open_model(MODELS "dense-mtp", GDN_MATH_F32, 2);
    cold c;
    cold_open(&c, m, 1000, VOCAB);
    gdn_engine_opts_defaults(&eo);
    eo.n_ctx = 1200;
    eo.n_seq = 3;
    eo.n_row = 100;
    eo.n_draft = 2;
    eo.cache_bytes = GDN_CACHE_AUTO;
    must(gdn_engine_create(m, &eo, &e, &err), &err);
    for (int round = 0; round < ROUNDS; round++) {
        canceller who = {.wait_ns = 100000L << round % 6};
        int32_t *p[N];
        gdn_request_opts o[N];
        pthread_t thread;
        for (int i = 0; i < N; i++) {
            p[i] = random_ids(PROMPT, VOCAB, (uint64_t)(i + round % 3));
            o[i] = greedy(p[i], PROMPT, COLD_NEW);
            who.r[i] = submit_to(e, o[i]);
        }
        assert_int_equal(pthread_create(&thread, NULL, cancel_some, &who), 0);
        while (gdn_engine_busy(e)) {
            must(gdn_engine_step(e, &err), &err);
            check_engine(e);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        for (int i = 0; i < N; i++) {
            gdn_request_result r;
            gdn_request_get_result(who.r[i], &r);
            assert_true(r.done);
            if (i == N - 1 || r.finish != GDN_FINISH_CANCELLED) {
                assert_int_equal(r.finish, GDN_FINISH_LENGTH);
                assert_int_equal(r.n_new, COLD_NEW);
            }
            assert_memory_equal(gdn_request_tokens(who.r[i]),
                                cold_run(&c, p[i], PROMPT, &o[i].sampling, NULL, COLD_NEW),
                                (size_t)r.n_new * sizeof(int32_t));
            gdn_request_free(who.r[i]);
            free(p[i]);
        }
    }
    check_idle(e);
    cold_close(&c);
    gdn_engine_free(e);
    gdn_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cancel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
