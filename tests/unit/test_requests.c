/* test_requests.c - requests: what is computed and what is not, the same answers in any company,
 * ends of every kind. */
#include "engine_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"

enum { VOCAB = 512 };

typedef struct {
    gdn_model  *m;
    gdn_engine *e;
    cold c;
} bench;

static gdn_engine_opts engine_opts(int32_t n_ctx, int32_t n_seq) {
    gdn_engine_opts o;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n_ctx;
    o.n_seq = n_seq;
    o.n_row = 256;
    o.cache_bytes = GDN_CACHE_AUTO;
    return o;
}

static bench open_bench(const char *model, gdn_engine_opts o) {
    bench b;
    gdn_err err;
    b.m = open_model(model, GDN_MATH_F32, 1);
    must(gdn_engine_create(b.m, &o, &b.e, &err), &err);
    cold_open(&b.c, b.m, 4096, gdn_model_get_info(b.m)->vocab);
    return b;
}

static void close_bench(bench *b) {
    check_idle(b->e);
    cold_close(&b->c);
    gdn_engine_free(b->e);
    gdn_model_close(b->m);
}

static gdn_request_opts greedy(const int32_t *prompt, int32_t n, int32_t max_new) {
    gdn_request_opts o;
    gdn_request_opts_defaults(&o);
    o.prompt = prompt;
    o.n_prompt = n;
    o.max_new = max_new;
    o.sampling.temperature = 0;
    return o;
}

static gdn_request *submit(bench *b, gdn_request_opts o) {
    gdn_err err;
    gdn_request *r = NULL;
    must(gdn_request_submit(b->e, &o, &r, &err), &err);
    return r;
}

static void step_until(bench *b, const gdn_request *r) {
    gdn_err err;
    gdn_request_result res;
    do {
        must(gdn_engine_step(b->e, &err), &err);
        check_engine(b->e);
        gdn_request_get_result(r, &res);
    } while (r == NULL ? gdn_engine_busy(b->e) : !res.done);
}

static void run_all(bench *b) {
    gdn_err err;
    while (gdn_engine_busy(b->e)) {
        must(gdn_engine_step(b->e, &err), &err);
        check_engine(b->e);
    }
}

/* Its tokens are those of the prompt alone; the request is freed. */
static gdn_request_result take(bench *b, gdn_request *r, gdn_request_opts o) {
    gdn_request_result res;
    gdn_request_get_result(r, &res);
    assert_true(res.done);
    assert_int_equal(res.finish, GDN_FINISH_LENGTH);
    const int32_t *want = cold_run(&b->c, o.prompt, o.n_prompt, &o.sampling, o.adapter, o.max_new);
    assert_int_equal(res.n_new, o.max_new);
    assert_memory_equal(gdn_request_tokens(r), want, (size_t)res.n_new * sizeof *want);
    gdn_request_free(r);
    return res;
}

static gdn_request_result one(bench *b, gdn_request_opts o) {
    gdn_request *r = submit(b, o);
    step_until(b, r);
    return take(b, r, o);
}

static uint64_t rows(const bench *b) {
    gdn_engine_stats s;
    gdn_engine_get_stats(b->e, &s);
    return s.rows;
}

/* n tokens of `seed` behind those that are there. */
static int32_t add(int32_t *to, int32_t at, int32_t n, uint64_t seed) {
    int32_t *ids = random_ids(n, VOCAB, seed);
    memcpy(to + at, ids, (size_t)n * sizeof *ids);
    free(ids);
    return at + n;
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

/* Drafts that are right but for every fifth. */
static void give_drafts(gdn_request *r, const int32_t *want, int32_t n_draft) {
    if (r->seq == NULL || r->n_tok == r->n_prompt || r->n_tok - r->seq->length != 1) return;
    r->n_draft = n_draft;
    for (int32_t k = 0; k < n_draft; k++) {
        const int32_t at = r->result.n_new + k;
        r->draft[k] = at % 5 == 4 ? (want[at] + 1) % VOCAB : want[at];
    }
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

/* --- ends -------------------------------------------------------------------------------------- */

typedef struct {
    int32_t id[64], n, enough;
} shown;

static bool show(void *arg, int32_t id, const char *text, size_t n) {
    shown *s = arg;
    (void)text, (void)n;
    s->id[s->n++] = id;
    return s->n != s->enough;
}

/* A stop id, max_new and the reader's "enough" in the middle of right drafts: nothing after it is
 * shown, counted or saved as if it were there. */
static void test_ends_among_drafts(void **state) {
    (void)state;
    for (int32_t end = 1; end < 14; end++)
        for (int how = 0; how < 3; how++) {
            gdn_engine_opts eo = engine_opts(600, 2);
            eo.n_draft = 4;
            bench b = open_bench(MODELS "dense-mtp", eo);
            int32_t p[100];
            add(p, 0, 80, 21);
            gdn_request_opts o = greedy(p, 80, how == 1 ? end : 20);
            o.sampling.temperature = 1.5f; /* no id twice, most likely */
            const int32_t *want = cold_run(&b.c, p, 80, &o.sampling, NULL, 40);
            int32_t first = 0;
            while (want[first] != want[end - 1]) first++;
            shown s = {.enough = how == 2 ? end : 0};
            o.stop = &want[end - 1];
            o.n_stop = how == 0;
            o.on_token = show;
            o.arg = &s;
            gdn_request *r = submit(&b, o);
            gdn_err err;
            while (!r->result.done) {
                if (r->seq != NULL && r->n_tok > r->n_prompt && r->n_tok - r->seq->length == 1) {
                    r->n_draft = 4;
                    memcpy(r->draft, want + r->result.n_new, sizeof r->draft);
                }
                must(gdn_engine_step(b.e, &err), &err);
                check_engine(b.e);
            }
            const int32_t n = how == 0 ? first + 1 : end;
            static const gdn_finish why[] = {GDN_FINISH_STOP, GDN_FINISH_LENGTH,
                                             GDN_FINISH_CANCELLED};
            assert_int_equal(r->result.finish, why[how]);
            assert_int_equal(r->result.n_new, n);
            assert_int_equal(s.n, n);
            assert_memory_equal(s.id, want, (size_t)n * sizeof *want);
            assert_memory_equal(gdn_request_tokens(r), want, (size_t)n * sizeof *want);
            assert_true(n < 3 || r->result.n_accepted > 0);
            /* What is saved ends before the last token. */
            int32_t common, all[120];
            memcpy(all, p, 80 * sizeof *p);
            memcpy(all + 80, want, 40 * sizeof *want);
            gdn_snapshot_find(b.e, 0, all, 120, &common);
            assert_int_equal(common, 80 + n - 1);
            gdn_request_free(r);
            /* And whoever goes on from there goes on right. */
            one(&b, greedy(all, 80 + n + 5, 6));
            close_bench(&b);
        }
}

static void test_cancel_gives_back(void **state) {
    (void)state;
    for (int at = 0; at < 12; at++) { /* waiting, reading, answering */
        gdn_engine_opts eo = engine_opts(800, 2);
        eo.n_row = 64;
        eo.n_draft = at % 3;
        bench b = open_bench(MODELS "moe-mtp", eo);
        gdn_request *r[3];
        int32_t p[3][200];
        gdn_err err;
        for (uint64_t k = 0; k < 3; k++) {
            add(p[k], 0, 200, k);
            r[k] = submit(&b, greedy(p[k], 200, 30));
        }
        for (int i = 0; i < at; i++) must(gdn_engine_step(b.e, &err), &err);
        for (int k = 0; k < 3; k++) {
            gdn_request_cancel(r[k]);
            gdn_request_cancel(r[k]);
        }
        must(gdn_engine_step(b.e, &err), &err);
        assert_false(gdn_engine_busy(b.e));
        must(gdn_engine_step(b.e, &err), &err); /* nothing to do */
        for (int k = 0; k < 3; k++) {
            assert_true(r[k]->result.done);
            assert_int_equal(r[k]->result.finish, GDN_FINISH_CANCELLED);
            const gdn_request_opts o = greedy(p[k], 200, 30);
            assert_memory_equal(gdn_request_tokens(r[k]),
                                cold_run(&b.c, p[k], 200, &o.sampling, NULL, 30),
                                (size_t)r[k]->result.n_new * sizeof(int32_t));
            gdn_request_cancel(r[k]); /* done already */
            gdn_request_free(r[k]);
        }
        close_bench(&b);
    }
}

/* Logits that are no numbers end the request they belong to, and no other; its pages do no harm
 * to those who get them next. */
static void test_own_failure(void **state) {
    (void)state;
    gdn_engine_opts eo = engine_opts(800, 3);
    eo.n_draft = 2;
    bench b = open_bench(MODELS "dense-mtp", eo);
    gdn_request *r[3];
    gdn_request_opts o[3];
    int32_t p[3][100];
    gdn_err err;
    for (uint64_t k = 0; k < 3; k++) {
        add(p[k], 0, 100, 40 + k);
        o[k] = greedy(p[k], 100, 20);
        r[k] = submit(&b, o[k]);
    }
    while (r[1]->result.n_new < 5) must(gdn_engine_step(b.e, &err), &err);
    for (int32_t g = 0; g < b.m->n_group; g++)
        for (int32_t i = 0; i < b.m->n_storage; i++)
            memset((char *)gdn_buffer_host(b.e->storage[i]) +
                       b.e->plan.page_bytes * (size_t)r[1]->seq->slot[g], 0xff,
                   b.e->plan.conv_bytes + b.e->plan.state_bytes);
    run_all(&b);
    assert_int_equal(r[1]->result.finish, GDN_FINISH_ERROR);
    assert_int_equal(r[1]->result.status, GDN_E_DEVICE);
    assert_true(gdn_request_error(r[1])[0] != '\0');
    assert_in_range(r[1]->result.n_new, 5, 19);
    gdn_request_free(r[1]);
    take(&b, r[0], o[0]);
    take(&b, r[2], o[2]);
    for (uint64_t k = 0; k < 3; k++) { /* again, also from what was saved before it failed */
        const gdn_request_result again = one(&b, o[k]);
        assert_int_equal(again.n_cached, 100);
    }
    close_bench(&b);
}

static void test_full(void **state) {
    (void)state;
    for (int draft = 0; draft < 5; draft += 4) {
        gdn_engine_opts eo = engine_opts(100, 2);
        eo.n_draft = draft;
        bench b = open_bench(MODELS "dense-mtp", eo);
        int32_t p[120];
        gdn_err err;
        gdn_request *r = NULL;
        add(p, 0, 120, 9);
        gdn_request_opts o = greedy(p, 101, 0);
        assert_int_equal(gdn_request_submit(b.e, &o, &r, &err), GDN_E_FULL);
        assert_non_null(strstr(err.text, "101"));
        for (o.n_prompt = 80; o.n_prompt <= 100; o.n_prompt += 10) {
            shown s = {0};
            o.on_token = show;
            o.arg = &s;
            r = submit(&b, o);
            const int32_t *want = cold_run(&b.c, p, o.n_prompt, &o.sampling, NULL, 40);
            gdn_request *with = submit(&b, greedy(p + 10, 30, 10));
            while (gdn_engine_busy(b.e)) {
                must(gdn_engine_step(b.e, &err), &err);
                if (draft > 0 && !r->result.done) give_drafts(r, want, draft);
            }
            take(&b, with, greedy(p + 10, 30, 10));
            /* The last token is chosen from the last that had room. */
            assert_int_equal(r->result.finish, GDN_FINISH_FULL);
            assert_int_equal(r->result.n_new, 101 - o.n_prompt);
            assert_int_equal(s.n, r->result.n_new);
            assert_memory_equal(gdn_request_tokens(r), want, (size_t)s.n * sizeof *want);
            gdn_request_free(r);
        }
        close_bench(&b);
    }
}

/* Sequences of the caller's own hold everything: a request ends, the engine does not hang. */
static void test_beside_sequences(void **state) {
    (void)state;
    bench b = open_bench(MODELS "dense-mtp", engine_opts(400, 2));
    int32_t p[400];
    gdn_err err;
    gdn_seq *s[2] = {NULL};
    add(p, 0, 400, 2);
    for (int i = 0; i < 2; i++) must(gdn_seq_create(b.e, &s[i], &err), &err);
    gdn_request *r = submit(&b, greedy(p, 50, 4));
    run_all(&b);
    assert_int_equal(r->result.finish, GDN_FINISH_FULL);
    assert_int_equal(r->result.n_new, 0);
    gdn_request_free(r);
    gdn_seq_free(s[0]);
    const gdn_work w = {.seq = s[1], .tokens = p, .n = 400};
    must(gdn_engine_eval(b.e, &w, 1, NULL, NULL, NULL, &err), &err);
    const gdn_request_opts o = greedy(p, 40, 4);
    one(&b, o);
    gdn_seq_free(s[1]);
    one(&b, o);
    close_bench(&b);
}

/* With a single page left an answer fills it to the end, drafts or not. */
static void test_last_page(void **state) {
    (void)state;
    for (int draft = 0; draft < 5; draft += 2) {
        gdn_engine_opts eo = engine_opts(96, 3);
        eo.block_size = 48;
        eo.n_draft = draft;
        eo.cache_bytes = 0;
        bench b = open_bench(MODELS "dense-mtp", eo);
        int32_t p[96];
        gdn_err err;
        gdn_seq *s[2] = {NULL};
        add(p, 0, 96, 12);
        for (int i = 0; i < 2; i++) {
            must(gdn_seq_create(b.e, &s[i], &err), &err);
            const gdn_work w = {.seq = s[i], .tokens = p, .n = i == 0 ? 96 : 48};
            must(gdn_engine_eval(b.e, &w, 1, NULL, NULL, NULL, &err), &err);
        }
        const gdn_request_opts o = greedy(p, 30, 0);
        const int32_t *want = cold_run(&b.c, p, 30, &o.sampling, NULL, 40);
        gdn_request *r = submit(&b, o);
        while (gdn_engine_busy(b.e)) {
            must(gdn_engine_step(b.e, &err), &err);
            check_engine(b.e);
            if (!r->result.done && draft > 0) give_drafts(r, want, draft);
        }
        assert_int_equal(r->result.finish, GDN_FINISH_FULL);
        assert_int_equal(r->result.n_new, 48 - 30 + 1);
        assert_memory_equal(gdn_request_tokens(r), want, 19 * sizeof *want);
        gdn_request_free(r);
        for (int i = 0; i < 2; i++) gdn_seq_free(s[i]);
        close_bench(&b);
    }
}

/* A reader who asks the next question at once, and calls off another one. */
typedef struct {
    bench *b;
    gdn_request *more, *other;
    gdn_request_opts o;
} eager;

static bool ask_more(void *arg, int32_t id, const char *text, size_t n) {
    eager *a = arg;
    (void)id, (void)text, (void)n;
    if (a->more == NULL) a->more = submit(a->b, a->o);
    gdn_request_cancel(a->other);
    return true;
}

static void test_submit_from_callback(void **state) {
    (void)state;
    gdn_engine_opts eo = engine_opts(400, 2);
    eo.n_draft = 1;
    bench b = open_bench(MODELS "dense-mtp", eo);
    int32_t p[90];
    add(p, 0, 90, 3);
    eager a = {.b = &b, .o = greedy(p, 90, 5)};
    gdn_request_opts o = greedy(p, 60, 6);
    o.on_token = ask_more;
    o.arg = &a;
    a.other = submit(&b, greedy(p + 20, 50, 200));
    gdn_request *r = submit(&b, o);
    run_all(&b);
    assert_int_equal(a.other->result.finish, GDN_FINISH_CANCELLED);
    gdn_request_free(a.other);
    take(&b, r, o);
    take(&b, a.more, a.o);
    close_bench(&b);
}

/* One who lets go of others, and of himself, in the middle of a step. */
typedef struct {
    gdn_request **all;
    int n;
} fickle;

static bool drop_all(void *arg, int32_t id, const char *text, size_t n) {
    fickle *a = arg;
    (void)id, (void)text, (void)n;
    while (a->n > 0) gdn_request_free(a->all[--a->n]);
    return true;
}

static void test_free_from_callback(void **state) {
    (void)state;
    gdn_engine_opts eo = engine_opts(800, 4);
    eo.n_draft = 2;
    bench b = open_bench(MODELS "dense-mtp", eo);
    int32_t p[120];
    gdn_request *r[5];
    fickle a = {.all = r, .n = 4};
    add(p, 0, 120, 8);
    for (int i = 0; i < 4; i++) { /* the second answers first and frees all four */
        gdn_request_opts o = greedy(p + i, 60, 20);
        if (i == 1) o.on_token = drop_all, o.arg = &a;
        r[i] = submit(&b, o);
    }
    const gdn_request_opts last = greedy(p, 100, 7); /* waits for a place */
    r[4] = submit(&b, last);
    run_all(&b);
    assert_int_equal(a.n, 0);
    take(&b, r[4], last);
    close_bench(&b);
}

/* Drafts of three answers leave rows for one who reads. */
static void test_reader_beside_drafts(void **state) {
    (void)state;
    gdn_engine_opts eo = engine_opts(1600, 4);
    eo.n_draft = 3;
    eo.n_row = 12;
    bench b = open_bench(MODELS "dense-mtp", eo);
    always_draft(b.e);
    int32_t p[300];
    add(p, 0, 300, 9);
    gdn_request *r[4];
    for (int i = 0; i < 3; i++) r[i] = submit(&b, greedy(p + i, 20, 200));
    gdn_err err;
    for (int i = 0; i < 20; i++) must(gdn_engine_step(b.e, &err), &err);
    const gdn_request_opts o = greedy(p, 300, 2);
    r[3] = submit(&b, o);
    for (int i = 0; i < 60; i++) must(gdn_engine_step(b.e, &err), &err);
    assert_true(r[3]->result.done); /* nine rows of twelve are left for it */
    take(&b, r[3], o);
    for (int i = 0; i < 3; i++) gdn_request_free(r[i]);
    close_bench(&b);
}

static void test_refused(void **state) {
    (void)state;
    bench b = open_bench(MODELS "dense-mtp", engine_opts(100, 2));
    const int32_t p[4] = {1, 2, 3, 4}, bad[4] = {1, 2, VOCAB, 4};
    gdn_err err;
    gdn_request *r = NULL;
    for (int i = 0; i < 6; i++) {
        gdn_request_opts o = greedy(i == 0 ? NULL : i == 1 ? bad : p, i == 2 ? 0 : 4, i == 3 ? -1 : 4);
        if (i == 4) o.n_stop = 1;
        if (i == 5) o.n_save = 1;
        err = (gdn_err){0};
        assert_int_equal(gdn_request_submit(b.e, &o, &r, &err), GDN_E_INVALID);
        assert_true(err.text[0] != '\0');
        assert_null(r);
    }
    assert_false(gdn_engine_busy(b.e));
    close_bench(&b);
}

/* An answer longer than the list of tokens had room for at first. */
static void test_long_answer(void **state) {
    (void)state;
    for (int draft = 0; draft < 4; draft += 3) {
        gdn_engine_opts eo = engine_opts(800, 1);
        eo.n_draft = draft;
        bench b = open_bench(MODELS "dense-mtp", eo);
        int32_t p[60];
        gdn_err err;
        add(p, 0, 60, 5);
        gdn_request *r = submit(&b, greedy(p, 60, 600));
        while (gdn_engine_busy(b.e)) {
            if (draft > 0) always_draft(b.e);
            must(gdn_engine_step(b.e, &err), &err);
        }
        assert_int_equal(r->result.n_new, 600);
        /* Read as a prompt, the answer predicts itself. */
        int32_t all[660], out[600];
        float *logits = malloc(sizeof(float) * 600 * VOCAB);
        assert_non_null(logits);
        memcpy(all, p, sizeof p);
        memcpy(all + 60, gdn_request_tokens(r), sizeof(int32_t) * 600);
        for (int32_t i = 0; i < 600; i++) out[i] = 59 + i;
        gdn_seq *s = NULL;
        must(gdn_seq_create(b.c.e, &s, &err), &err);
        const gdn_work w = {.seq = s, .tokens = all, .n = 659, .out = out, .n_out = 600,
                            .logits = logits};
        must(gdn_engine_eval(b.c.e, &w, 1, NULL, NULL, NULL, &err), &err);
        for (int32_t i = 0; i < 600; i++) {
            int32_t best = 0;
            for (int32_t v = 1; v < VOCAB; v++)
                if (logits[i * VOCAB + v] > logits[i * VOCAB + best]) best = v;
            assert_int_equal(best, all[60 + i]);
        }
        gdn_seq_free(s);
        free(logits);
        gdn_request_free(r);
        close_bench(&b);
    }
}

/* --- text -------------------------------------------------------------------------------------- */

typedef struct {
    char text[2048];
    size_t n;
    int32_t n_id;
} words;

static bool write_words(void *arg, int32_t id, const char *text, size_t n) {
    words *w = arg;
    assert_true(w->n + n < sizeof w->text);
    memcpy(w->text + w->n, text, n);
    w->n += n;
    w->text[w->n] = '\0';
    w->n_id += id >= 0;
    return true;
}

/* A stop string that comes to its end in the middle of right drafts. */
static void test_stop_string_among_drafts(void **state) {
    (void)state;
    gdn_engine_opts eo = engine_opts(400, 1);
    gdn_tokenizer *tok = NULL;
    gdn_err err;
    int32_t *p = NULL;
    size_t n_id = 0;
    must(gdn_tokenizer_open("models/jargon", &tok, &err), &err);
    must(gdn_tokenize(tok, "The program reads", 17, false, &p, &n_id, &err), &err);
    const int32_t n = (int32_t)n_id;
    eo.n_draft = 4;
    bench b = open_bench("models/jargon", eo);
    gdn_request_opts o = greedy(p, n, 30);
    const int32_t *want = cold_run(&b.c, p, n, &o.sampling, NULL, COLD_NEW);
    o.tokenizer = tok;
    o.on_token = write_words;
    words whole = {0};
    o.arg = &whole;
    gdn_request *r = submit(&b, o);
    run_all(&b);
    gdn_request_free(r);
    assert_true(whole.n > 40);
    for (size_t at = 5; at + 6 < whole.n; at += 3) {
        char stop[6];
        snprintf(stop, sizeof stop, "%s", whole.text + at);
        const char *const strings[2] = {"never said", stop};
        words w[2] = {{{0}, 0, 0}, {{0}, 0, 0}};
        gdn_request_result res[2];
        for (int draft = 0; draft < 2; draft++) {
            o.stop_text = strings;
            o.n_stop_text = 2;
            o.arg = w + draft;
            r = submit(&b, o);
            while (!r->result.done) {
                if (r->seq != NULL && r->n_tok > r->n_prompt && r->n_tok - r->seq->length == 1) {
                    r->n_draft = draft * 4;
                    memcpy(r->draft, want + r->result.n_new, sizeof r->draft);
                }
                must(gdn_engine_step(b.e, &err), &err);
            }
            gdn_request_get_result(r, &res[draft]);
            gdn_request_free(r);
        }
        const size_t cut = (size_t)(strstr(whole.text, stop) - whole.text);
        for (int draft = 0; draft < 2; draft++) {
            assert_int_equal(res[draft].finish, GDN_FINISH_STOP_STRING);
            assert_int_equal(w[draft].n, cut);
            assert_memory_equal(w[draft].text, whole.text, cut);
            assert_int_equal(w[draft].n_id, res[draft].n_new);
        }
        assert_int_equal(res[0].n_new, res[1].n_new);
    }
    free(p);
    close_bench(&b);
    gdn_tokenizer_close(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_turn),       cmocka_unit_test(test_edited_message),
        cmocka_unit_test(test_shared_system_prompt), cmocka_unit_test(test_fork),
        cmocka_unit_test(test_budget),            cmocka_unit_test(test_many_conversations),
        cmocka_unit_test(test_same_bits),         cmocka_unit_test(test_same_drafts),
        cmocka_unit_test(test_drafts_of_second_turn),
        cmocka_unit_test(test_preemption),
        cmocka_unit_test(test_ends_among_drafts), cmocka_unit_test(test_cancel_gives_back),
        cmocka_unit_test(test_own_failure),       cmocka_unit_test(test_full),
        cmocka_unit_test(test_beside_sequences),  cmocka_unit_test(test_last_page),
        cmocka_unit_test(test_submit_from_callback),
        cmocka_unit_test(test_free_from_callback),
        cmocka_unit_test(test_reader_beside_drafts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long_answer),       cmocka_unit_test(test_stop_string_among_drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
