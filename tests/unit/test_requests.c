/* test_requests.c - requests: what is computed and what is not, the same answers in any company. */
#include "request_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"

static uint64_t rows(const bench *b) {
    gdn_engine_stats s;
    gdn_engine_get_stats(b->e, &s);
    return s.rows;
}

static void computes(gdn_request_result r, int32_t cached, int32_t computed) {
    assert_int_equal(r.n_cached, cached);
    assert_int_equal(r.n_computed, computed);
}

/* --- what is computed -------------------------------------------------------------------------- */

static void test_second_turn(void **state) {
    (void)state;
    static const char *const models[] = {MODELS "dense-mtp", MODELS "next-moe"};
    for (int k = 0; k < 2; k++)
        for (int draft = 0; draft <= 4; draft += 2) {
            gdn_engine_opts eo = engine_opts(2000, 2);
            eo.n_draft = draft;
            bench b = open_bench(models[k], eo);
            int32_t p[1000], n = add(p, 0, 300, 1);
            computes(one(&b, greedy(p, n, 20)), 0, 300);
            assert_true(draft > 0 || rows(&b) == 300 + 19);
            for (int turn = 0; turn < 3; turn++) { /* the last token of an answer is not evaluated */
                const gdn_request_opts o = greedy(p, n, 20);
                memcpy(p + n, cold_run(&b.c, p, n, &o.sampling, NULL, 20), 20 * sizeof *p);
                n = add(p, n + 20, 30, 50 + (uint64_t)turn);
                const uint64_t before = rows(&b);
                computes(one(&b, greedy(p, n, 20)), n - 31, 31);
                assert_true(draft > 0 || rows(&b) - before == 31 + 19);
            }
            /* The very same prompt: not a row, and the answer's rows only. */
            const uint64_t before = rows(&b);
            computes(one(&b, greedy(p, n, 1)), n, 0);
            assert_int_equal(rows(&b), before);
            close_bench(&b);
        }
}

static void test_edited_message(void **state) {
    (void)state;
    bench b = open_bench(MODELS "dense-mtp", engine_opts(1000, 2));
    int32_t p[300], save[3] = {100, 180, 250};
    add(p, add(p, add(p, 0, 100, 1), 80, 2), 70, 3);
    gdn_request_opts o = greedy(p, 250, 8);
    o.save = save;
    o.n_save = 3;
    computes(one(&b, o), 0, 250);
    add(p, 180, 70, 4);
    computes(one(&b, o), 180, 70);
    add(p, 100, 80, 5);
    computes(one(&b, o), 100, 150);
    add(p, 0, 20, 6);
    computes(one(&b, o), 0, 250);
    /* Without hints: where it parts from what is saved is found once, and saved for the next. */
    gdn_request_opts plain = greedy(p, 250, 8);
    add(p, 150, 100, 7);
    computes(one(&b, plain), 100, 150);
    add(p, 150, 100, 8);
    computes(one(&b, plain), 150, 100);
    close_bench(&b);
}

static void test_shared_system_prompt(void **state) {
    (void)state;
    bench b = open_bench(MODELS "moe-mtp", engine_opts(2000, 4));
    int32_t p[2][800], n[2], system = 200;
    for (uint64_t k = 0; k < 2; k++) n[k] = add(p[k], add(p[k], 0, system, 1), 60, 10 + k);
    gdn_request_opts o = greedy(p[0], n[0], 6);
    o.save = &system;
    o.n_save = 1;
    computes(one(&b, o), 0, 260);
    o.prompt = p[1];
    computes(one(&b, o), 200, 60);
    for (uint64_t turn = 0; turn < 4; turn++) { /* turn and turn about */
        const uint64_t k = turn % 2;
        const int32_t *a = cold_run(&b.c, p[k], n[k], &o.sampling, NULL, 6);
        memcpy(p[k] + n[k], a, 6 * sizeof *a);
        n[k] = add(p[k], n[k] + 6, 40, 20 + turn);
        o.prompt = p[k];
        o.n_prompt = n[k];
        computes(one(&b, o), n[k] - 41, 41);
    }
    close_bench(&b);
}

/* Eight prompts with 2,000 tokens in common, submitted together: those are read once. */
static void test_fork(void **state) {
    (void)state;
    enum { COMMON = SANITIZED ? 500 : 2000, FORK = 8 };
    for (int hint = 0; hint < 3; hint++) { /* 2: the same prompt eight times */
        gdn_engine_opts eo = engine_opts(4000, FORK);
        eo.n_draft = hint == 1 ? 3 : 0;
        bench b = open_bench(MODELS "dense-mtp", eo);
        static int32_t p[FORK][COMMON + 10];
        gdn_request *r[FORK];
        gdn_request_opts o[FORK];
        const int32_t common = COMMON;
        int32_t computed = 0;
        for (int k = 0; k < FORK; k++) {
            add(p[k], 0, COMMON, 3);
            add(p[k], COMMON, 10, 30 + (uint64_t)k);
            o[k] = greedy(p[k], hint == 2 ? COMMON : COMMON + 10, 5);
            o[k].save = &common;
            o[k].n_save = hint == 1;
            r[k] = submit(&b, o[k]);
        }
        run_all(&b);
        if (hint != 1) assert_int_equal(rows(&b), COMMON + (hint == 2 ? 0 : FORK * 10) + FORK * 4);
        for (int k = 0; k < FORK; k++) computed += take(&b, r[k], o[k]).n_computed;
        assert_int_equal(computed, COMMON + (hint == 2 ? 0 : FORK * 10));
        close_bench(&b);
    }
}

/* Snapshots of a tiny budget, and of none. */
static void test_budget(void **state) {
    (void)state;
    for (uint64_t units = 0; units < 30; units += 7) {
        gdn_engine_opts eo = engine_opts(600, 3);
        eo.cache_bytes = 0;
        eo.save_every = 50;
        bench b = open_bench(MODELS "dense-mtp", eo);
        eo.cache_bytes = units * b.e->plan.page_bytes * (uint64_t)b.e->m->n_storage;
        gdn_engine_free(b.e);
        gdn_err err;
        must(gdn_engine_create(b.m, &eo, &b.e, &err), &err);
        gdn_request *r[6];
        gdn_request_opts o[6];
        int32_t p[6][300];
        for (uint64_t k = 0; k < 6; k++) {
            add(p[k], add(p[k], 0, 150, 1 + k / 2), 100, 20 + k);
            o[k] = greedy(p[k], 250, 10);
            r[k] = submit(&b, o[k]);
        }
        gdn_engine_stats s;
        do {
            must(gdn_engine_step(b.e, &err), &err);
            check_engine(b.e);
            gdn_engine_get_stats(b.e, &s);
            assert_true(s.snapshot_bytes <= eo.cache_bytes);
            assert_int_equal(s.snapshot_most, eo.cache_bytes);
        } while (gdn_engine_busy(b.e));
        if (units == 0) assert_int_equal(s.saved + s.lookups, 0);
        else if (units > 7) assert_true(s.saved > 0);
        for (int k = 0; k < 6; k++) take(&b, r[k], o[k]);
        close_bench(&b);
    }
}

/* Many conversations in turn, in a pool for a tenth of them. */
static void test_many_conversations(void **state) {
    (void)state;
    enum { TALKS = SANITIZED ? 24 : 200, AT_ONCE = 8, TURNS = 2, MOST = 400 };
    bench b = open_bench(MODELS "dense-mtp", engine_opts(TALKS / 10 * 200, AT_ONCE));
    static int32_t p[TALKS][MOST];
    static gdn_request *r[TALKS];
    static gdn_request_opts o[TALKS];
    int32_t n[TALKS];
    for (uint64_t k = 0; k < TALKS; k++) n[k] = add(p[k], add(p[k], 0, 96, k % 4), 60, 100 + k);
    for (uint64_t turn = 0; turn < TURNS; turn++) {
        const int32_t system = 96;
        for (uint64_t k = 0; k < TALKS; k++) {
            o[k] = greedy(p[k], n[k], 6);
            o[k].save = &system;
            o[k].n_save = 1;
            r[k] = submit(&b, o[k]);
        }
        run_all(&b);
        for (uint64_t k = 0; k < TALKS; k++) {
            memcpy(p[k] + n[k], gdn_request_tokens(r[k]), 6 * sizeof(int32_t));
            take(&b, r[k], o[k]);
            n[k] = add(p[k], n[k] + 6, 40, 900 + k + 1000 * turn);
        }
    }
    gdn_engine_stats s;
    gdn_engine_get_stats(b.e, &s);
    assert_true(s.hits >= TALKS);
    close_bench(&b);
}

/* --- the same bits ----------------------------------------------------------------------------- */

/* The saved states and hidden row of these tokens: a copy. */
static char *snapshot_bits(gdn_engine *e, const int32_t *tokens, int32_t n, size_t *bytes) {
    int32_t common;
    const gdn_snapshot *s = gdn_snapshot_find(e, 0, tokens, n, &common);
    assert_non_null(s);
    assert_int_equal(s->n_tok, n);
    const size_t state = e->plan.conv_bytes + e->plan.state_bytes;
    const size_t row = (size_t)e->m->config.d * 4;
    *bytes = row + state * (size_t)(e->m->n_group * e->m->n_storage);
    char *bits = malloc(*bytes), *at = bits;
    assert_non_null(bits);
    memcpy(at, (char *)gdn_buffer_host(e->hidden) + row * (size_t)s->hidden, row);
    at += row;
    for (int32_t g = 0; g < e->m->n_group; g++)
        for (int32_t i = 0; i < e->m->n_storage; i++, at += state)
            memcpy(at, (char *)gdn_buffer_host(e->storage[i]) +
                           e->plan.page_bytes * (size_t)s->slot[g], state);
    return bits;
}

/* One prompt and its answer: in steps of several sizes, cold, from a snapshot, with drafts, beside
 * others; the states after the prompt and after the answer, bit for bit. */
static void test_same_bits(void **state) {
    (void)state;
    static const struct {
        int32_t n_row, n_draft, warm, others;
    } way[] = {{512, 0, 0, 0}, {64, 0, 0, 0}, {7, 0, 0, 2}, {512, 0, 100, 0}, {33, 4, 0, 0},
               {256, 2, 160, 3}, {512, 1, 250, 0}};
    static const char *const models[] = {MODELS "dense-mtp", MODELS "next-moe"};
    for (int k = 0; k < 2; k++) {
        char *want[2] = {NULL};
        for (size_t w = 0; w < sizeof way / sizeof *way; w++) {
            gdn_engine_opts eo = engine_opts(1500, 4);
            eo.n_row = way[w].n_row;
            eo.n_draft = way[w].n_draft;
            bench b = open_bench(models[k], eo);
            int32_t p[300], q[4][120];
            gdn_request *other[4];
            gdn_request_opts oo[4], o;
            add(p, 0, 250, 8);
            if (way[w].warm > 0) one(&b, greedy(p, way[w].warm, 1));
            o = greedy(p, 250, 21);
            o.sampling.temperature = 1.4f;
            o.sampling.seed = 99;
            const int32_t *answer = cold_run(&b.c, p, 250, &o.sampling, NULL, 30);
            for (int i = 0; i < way[w].others; i++) {
                add(q[i], 0, 120, 70 + (uint64_t)i);
                oo[i] = greedy(q[i], 120, 12);
                other[i] = submit(&b, oo[i]);
            }
            gdn_request *r = submit(&b, o);
            gdn_err err;
            for (;;) {
                must(gdn_engine_step(b.e, &err), &err);
                if (!gdn_engine_busy(b.e)) break;
                poison(b.e);
                if (way[w].n_draft > 0 && !r->result.done) give_drafts(r, answer, way[w].n_draft);
            }
            const int32_t accepted = take(&b, r, o).n_accepted;
            if (way[w].n_draft > 0) assert_true(accepted > 5);
            for (int i = 0; i < way[w].others; i++) take(&b, other[i], oo[i]);
            memcpy(p + 250, answer, 20 * sizeof *p);
            for (int end = 0; end < 2; end++) {
                size_t bytes;
                char *bits = snapshot_bits(b.e, p, end == 0 ? 250 : 270, &bytes);
                if (want[end] == NULL) want[end] = bits;
                else {
                    if (memcmp(want[end], bits, bytes) != 0)
                        fail_msg("%s: other bits %s, the %zu. way", models[k],
                                 end == 0 ? "after the prompt" : "after the answer", w);
                    free(bits);
                }
            }
            close_bench(&b);
        }
        free(want[0]);
        free(want[1]);
    }
}

/* What the MTP head drafts depends on the tokens alone, too. */
typedef struct {
    int32_t at[64][GDN_MAX_DRAFT], n[64];
} drafts;

static void note_drafts(drafts *d, const gdn_request *r) {
    if (r->result.done || r->result.n_new == 0 || r->n_draft == 0) return;
    const int32_t i = r->result.n_new;
    d->n[i] = r->n_draft;
    memcpy(d->at[i], r->draft, sizeof d->at[i]);
}

/* How many drafts both have; they agree. */
static int32_t same_drafts(const drafts *a, const drafts *b, const char *model, int32_t fork) {
    int32_t seen = 0;
    for (int32_t n = 0; n < 64; n++) {
        const int32_t both = a->n[n] < b->n[n] ? a->n[n] : b->n[n];
        seen += both;
        for (int32_t k = 0; k < both; k++)
            if (a->at[n][k] != b->at[n][k])
                fail_msg("%s: draft %d of fork %d after %d tokens differs", model, k, fork, n);
    }
    return seen;
}

static gdn_request_result run_noting(gdn_engine *e, gdn_request_opts o, bool draft, drafts *d) {
    gdn_err err;
    gdn_request *r = NULL;
    gdn_request_result res;
    must(gdn_request_submit(e, &o, &r, &err), &err);
    while (gdn_engine_busy(e)) {
        if (draft) always_draft(e);
        else gdn_draft_policy_init(&e->sched->policy);
        poison(e);
        must(gdn_engine_step(e, &err), &err);
        note_drafts(d, r);
    }
    gdn_request_get_result(r, &res);
    gdn_request_free(r);
    return res;
}

/* An answer without drafts leaves pairs undone; who goes on from it with drafts finds them. */
static void test_drafts_of_second_turn(void **state) {
    (void)state;
    gdn_engine_opts eo = engine_opts(600, 2);
    eo.n_draft = 3;
    bench b = open_bench(MODELS "dense-mtp", eo);
    gdn_engine *alone = NULL;
    gdn_err err;
    eo.cache_bytes = 0;
    must(gdn_engine_create(b.m, &eo, &alone, &err), &err);
    for (int32_t n_new = 2; n_new < 40; n_new += 9) {
        int32_t p[160];
        drafts want = {.n = {0}}, got = {.n = {0}};
        add(p, 0, 80, 50 + (uint64_t)n_new);
        gdn_request_opts o = greedy(p, 80, n_new);
        run_noting(b.e, o, false, &got);
        memcpy(p + 80, cold_run(&b.c, p, 80, &o.sampling, NULL, 40), 40 * sizeof *p);
        add(p, 80 + n_new, 5, 33);
        o = greedy(p, 80 + n_new + 5, 30);
        o.sampling.temperature = 1.1f;
        run_noting(alone, o, true, &want);
        got = (drafts){.n = {0}};
        assert_int_equal(run_noting(b.e, o, true, &got).n_cached, 80 + n_new - 1);
        assert_true(same_drafts(&got, &want, MODELS "dense-mtp", n_new) > 50);
    }
    gdn_engine_free(alone);
    close_bench(&b);
}

/* Forks of a prompt that ends with a page, whose last pair each of them completes in its own way. */
static void test_same_drafts(void **state) {
    (void)state;
    enum { N = 4 };
    static const char *const models[] = {MODELS "dense-mtp", MODELS "moe-mtp"};
    for (int k = 0; k < 2; k++)
        for (int32_t short_of = 0; short_of < 3; short_of++) {
            gdn_engine_opts eo = engine_opts(1500, N);
            eo.n_draft = 3;
            bench b = open_bench(models[k], eo);
            const int32_t common = 2 * b.e->plan.block_size - short_of;
            gdn_engine *alone = NULL;
            gdn_err err;
            eo.cache_bytes = 0;
            must(gdn_engine_create(b.m, &eo, &alone, &err), &err);
            static int32_t p[N][200];
            static drafts want[N], got[N];
            gdn_request *r[N];
            gdn_request_opts o[N];
            memset(want, 0, sizeof want);
            memset(got, 0, sizeof got);
            for (uint64_t i = 0; i < N; i++) { /* two go on with tokens, two with answers */
                add(p[i], add(p[i], 0, common, 1), 7, 20 + i);
                o[i] = greedy(p[i], common + (i < 2 ? 7 : 0), 30);
                o[i].sampling.temperature = 1.1f;
                o[i].sampling.seed = i;
                o[i].save = &common;
                o[i].n_save = 1;
                must(gdn_request_submit(alone, &o[i], &r[i], &err), &err);
                while (gdn_engine_busy(alone)) {
                    always_draft(alone);
                    must(gdn_engine_step(alone, &err), &err);
                    note_drafts(&want[i], r[i]);
                }
                gdn_request_free(r[i]);
            }
            for (int i = 0; i < N; i++) r[i] = submit(&b, o[i]);
            while (gdn_engine_busy(b.e)) {
                always_draft(b.e);
                must(gdn_engine_step(b.e, &err), &err);
                for (int i = 0; i < N; i++) note_drafts(&got[i], r[i]);
            }
            int32_t seen = 0;
            for (int i = 0; i < N; i++) {
                take(&b, r[i], o[i]);
                seen += same_drafts(&got[i], &want[i], models[k], i);
            }
            assert_true(seen > 100);
            gdn_engine_free(alone);
            close_bench(&b);
        }
}

/* Room for less than all: somebody gives his place up and answers the same in the end. */
static void test_preemption(void **state) {
    (void)state;
    enum { N = 6 };
    for (int cached = 0; cached < 2; cached++) {
        gdn_engine_opts eo = engine_opts(200, N);
        eo.block_size = 48;
        eo.n_draft = 2;
        eo.cache_bytes = 0;
        bench b = open_bench(MODELS "dense-mtp", eo);
        if (cached) { /* room for two states */
            gdn_err err;
            eo.cache_bytes = 2 * (uint64_t)(b.m->n_group * b.m->n_storage) * b.e->plan.page_bytes;
            gdn_engine_free(b.e);
            must(gdn_engine_create(b.m, &eo, &b.e, &err), &err);
        }
        gdn_request *r[N];
        gdn_request_opts o[N];
        int32_t p[N][40];
        for (uint64_t k = 0; k < N; k++) { /* one page each, three in the end */
            add(p[k], 0, 40, 60 + k);
            o[k] = greedy(p[k], 40, 62);
            o[k].sampling.temperature = k % 2 ? 1.2f : 0;
            r[k] = submit(&b, o[k]);
        }
        run_all(&b);
        gdn_engine_stats s;
        gdn_engine_get_stats(b.e, &s);
        assert_true(s.preempted > 0);
        int32_t computed = 0;
        for (int k = 0; k < N; k++) computed += take(&b, r[k], o[k]).n_computed;
        if (cached == 0) { /* whole prompts were read again; answers do not count */
            assert_true(computed > N * 40);
            assert_int_equal(computed % 40, 0);
        }
        close_bench(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_turn),
        cmocka_unit_test(test_edited_message),
        cmocka_unit_test(test_shared_system_prompt),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_many_conversations),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_same_drafts),
        cmocka_unit_test(test_drafts_of_second_turn),
        cmocka_unit_test(test_preemption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
