/* test_threads.c - two threads, each with an engine of its own, on one model. */
#include "cases.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { N = 60, ROUNDS = 3 };

typedef struct {
    gdn_model *m;
    const int32_t *ids;
    const float *want;
    int wrong;
} job;

static void *evaluate(void *arg) {
    job *j = arg;
    for (int i = 0; i < ROUNDS; i++) {
        float *got = all_logits(j->m, j->ids, N, 7 + 20 * i, 0, NULL);
        j->wrong |= memcmp(got, j->want, (size_t)N * 512 * sizeof *got) != 0;
        free(got);
    }
    return NULL;
}

static void test_shared_model(void **state) {
    (void)state;
    gdn_model *m = open_model(MODELS "moe-mtp", GDN_MATH_FAST, 2);
    pthread_t t[2];
    job j[2];
    float *want[2];
    int32_t *ids[2];
    for (int i = 0; i < 2; i++) {
        ids[i] = random_ids(N, 512, 40 + (uint64_t)i);
        want[i] = all_logits(m, ids[i], N, 512, 0, NULL);
        j[i] = (job){m, ids[i], want[i], 0};
    }
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&t[i], NULL, evaluate, &j[i]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(t[i], NULL), 0);
        assert_false(j[i].wrong);
        free(want[i]);
        free(ids[i]);
    }
    gdn_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shared_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
