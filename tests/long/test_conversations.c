/* test_conversations.c - 200 conversations of 3,000 tokens at once, in a pool sized for 20. */
#include <stdio.h>
#include <stdlib.h>

#include "../unit/cases.h"

enum { CONVERSATIONS = 200, LENGTH = 3000, REPLY = 8, AT_ONCE = 20 };

static void test_many(void **state) {
    (void)state;
    gdn_err err = {0};
    gdn_model *m;
    gdn_engine *e;
    gdn_model_opts mo;
    gdn_engine_opts o;
    static gdn_request *r[CONVERSATIONS];
    static int32_t prompt[LENGTH];
    gdn_model_opts_defaults(&mo);
    mo.device = "cpu";
    must(gdn_model_open("models/jargon", &mo, &m, &err), &err);
    gdn_engine_opts_defaults(&o);
    o.n_ctx = AT_ONCE * LENGTH;
    o.n_seq = AT_ONCE + 4; /* more than there are pages for: some are preempted */
    o.cache_bytes = 64u << 20;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    uint64_t x = 1;
    for (int i = 0; i < CONVERSATIONS; i++) {
        gdn_request_opts q;
        for (int t = 0; t < LENGTH; t++) {
            /* Every tenth begins like another one. */
            if (t == 500 || (t == 0 && i % 10 != 0)) x += 77777777u * (uint64_t)i;
            if (t == 0 && i % 10 == 0) x = 4;
            x = x * 6364136223846793005u + 1442695040888963407u;
            prompt[t] = (int32_t)((x >> 33) % 4000);
        }
        gdn_request_opts_defaults(&q);
        q.prompt = prompt;
        q.n_prompt = LENGTH;
        q.max_new = REPLY;
        q.sampling.temperature = 0;
        must(gdn_request_submit(e, &q, &r[i], &err), &err);
    }
    gdn_engine_stats s;
    while (gdn_engine_busy(e)) {
        must(gdn_engine_step(e, &err), &err);
        gdn_engine_get_stats(e, &s);
        assert_true(s.snapshot_bytes <= s.snapshot_most);
    }
    for (int i = 0; i < CONVERSATIONS; i++) {
        gdn_request_result x_of;
        gdn_request_get_result(r[i], &x_of);
        assert_int_equal(x_of.finish, GDN_FINISH_LENGTH);
        assert_int_equal(x_of.n_new, REPLY);
        gdn_request_free(r[i]);
    }
    gdn_engine_get_stats(e, &s);
    printf("%llu of %llu prompt tokens from snapshots, %llu preempted, %llu snapshots evicted\n",
           (unsigned long long)s.cached_tokens, (unsigned long long)s.prompt_tokens,
           (unsigned long long)s.preempted, (unsigned long long)s.evicted);
    assert_true(s.cached_tokens >= 18 * 500);
    gdn_engine_free(e);
    gdn_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
