/* test_memory.c - evaluation allocates nothing; every allocation may fail, and then nothing is
 * lost.
 *
 * malloc and its kin are counted by functions of the same names that stand before the C
 * library's.  Sanitizers bring their own, so this test needs a plain build. */
#include "cases.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_check.h"
#include "sanitized.h"

#if SANITIZED || !defined(__GLIBC__)

int main(void) {
    puts("allocations can be counted only in a build without sanitizers, on glibc");
    return 77;
}

#else

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void  __libc_free(void *p);

/* Visible to the shared libraries too, whose pieces we free and who free ours. */
#define EXPORT __attribute__((visibility("default")))
EXPORT void *malloc(size_t n);
EXPORT void *calloc(size_t n, size_t size);
EXPORT void *realloc(void *p, size_t n);
EXPORT void *aligned_alloc(size_t align, size_t n);
EXPORT void  free(void *p);

static atomic_long allocations, live, fail_at; /* fail_at: countdown, 0 is off */

static bool refuse(void) {
    atomic_fetch_add(&allocations, 1);
    if (atomic_load(&fail_at) > 0 && atomic_fetch_sub(&fail_at, 1) == 1) {
        errno = ENOMEM;
        return true;
    }
    return false;
}
static void *counted(void *p) {
    if (p != NULL) atomic_fetch_add(&live, 1);
    return p;
}
void *malloc(size_t n) { return refuse() ? NULL : counted(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) { return refuse() ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *p, size_t n) {
    if (refuse()) return NULL;
    void *q = __libc_realloc(p, n);
    if (p == NULL) counted(q);
    return q;
}
void *aligned_alloc(size_t align, size_t n) {
    return refuse() ? NULL : counted(__libc_memalign(align, n));
}
void free(void *p) {
    if (p != NULL) atomic_fetch_sub(&live, 1);
    __libc_free(p);
}

static const char *const loras[] = {"tests/golden/lora/dense-mtp", "tests/golden/lora/next-moe"};

static void test_eval_allocates_nothing(void **state) {
    (void)state;
    static const char *const models[] = {MODELS "dense-mtp", MODELS "next-moe"};
    for (int k = 0; k < 2; k++) {
        gdn_model *m = open_model(models[k], GDN_MATH_FAST, 2);
        gdn_adapter *a = NULL;
        gdn_engine_opts o;
        gdn_engine *e = NULL;
        gdn_seq *s = NULL;
        gdn_err err;
        int32_t *ids = random_ids(300, 512, 1), last = 299, zero = 0;
        float logits[512];
        gdn_engine_opts_defaults(&o);
        o.n_ctx = 1000;
        o.n_row = 128;
        o.mtp = true;
        must(gdn_engine_create(m, &o, &e, &err), &err);
        must(gdn_adapter_open(m, loras[k], 1, &a, &err), &err); /* engines are there already */
        must(gdn_seq_create(e, &s, &err), &err);
        must(gdn_seq_set_adapter(s, a, &err), &err);
        const long before = atomic_load(&allocations);
        gdn_work w = {.seq = s, .tokens = ids, .n = 300, .out = &last, .n_out = 1,
                      .logits = logits};
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        w.n = 1;
        w.out = &zero;
        for (int i = 0; i < 20; i++) must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        assert_int_equal(atomic_load(&allocations) - before, 0);
        gdn_seq_free(s);
        gdn_adapter_close(a);
        gdn_engine_free(e);
        gdn_model_close(m);
        free(ids);
    }
}

/* Open, create, evaluate, close.  True when all of it worked. */
static bool whole_life(const char *dir, const int32_t *ids, gdn_err *err) {
    gdn_model_opts mo;
    gdn_model *m = NULL;
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s = NULL;
    float logits[512];
    int32_t last = 9;
    gdn_model_opts_defaults(&mo);
    mo.device = "cpu";
    mo.n_thread = 2;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 100;
    gdn_status st = gdn_model_open(dir, &mo, &m, err);
    if (st == GDN_OK) st = gdn_engine_create(m, &o, &e, err);
    if (st == GDN_OK) st = gdn_seq_create(e, &s, err);
    if (st == GDN_OK) {
        gdn_work w = {.seq = s, .tokens = ids, .n = 10, .out = &last, .n_out = 1,
                      .logits = logits};
        st = gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, err);
    }
    gdn_seq_free(s);
    gdn_engine_free(e);
    gdn_model_close(m);
    return st == GDN_OK;
}

static void test_every_allocation_fails_once(void **state) {
    (void)state;
    static const char *const models[] = {MODELS "dense-mtp", MODELS "moe-mtp"};
    for (int k = 0; k < 2; k++) {
        int32_t *ids = random_ids(10, 512, 2);
        gdn_err err;
        assert_true(whole_life(models[k], ids, &err)); /* what stays for good is there now */
        const long before = atomic_load(&live), start = atomic_load(&allocations);
        assert_true(whole_life(models[k], ids, &err));
        const long total = atomic_load(&allocations) - start;
        assert_int_equal(atomic_load(&live), before);
        const long step = total > 400 ? total / 400 : 1;
        for (long at = 1; at <= total; at += step) {
            err = (gdn_err){0};
            atomic_store(&fail_at, at);
            const bool ok = whole_life(models[k], ids, &err);
            atomic_store(&fail_at, 0);
            if (!ok && (err.code == GDN_OK || err.text[0] == '\0'))
                fail_msg("allocation %ld of %ld failed without a word", at, total);
            if (atomic_load(&live) != before)
                fail_msg("allocation %ld of %ld failed and %ld pieces were lost: %s", at, total,
                         atomic_load(&live) - before, err.text);
        }
        print_message("%s: %ld allocations, every %ld. failed in turn\n", models[k], total, step);
        free(ids);
    }
}

/* Opening an adapter, on a model that stays. */
static void test_adapter_allocations_fail(void **state) {
    (void)state;
    static const char *const models[] = {MODELS "dense-mtp", MODELS "next-moe"};
    for (int k = 0; k < 2; k++) {
        gdn_model *m = open_model(models[k], GDN_MATH_F32, 1);
        gdn_adapter *a = NULL;
        gdn_err err;
        must(gdn_adapter_open(m, loras[k], 1, &a, &err), &err); /* the model's tables are there now */
        gdn_adapter_close(a);
        const long before = atomic_load(&live), start = atomic_load(&allocations);
        must(gdn_adapter_open(m, loras[k], 1, &a, &err), &err);
        gdn_adapter_close(a);
        const long total = atomic_load(&allocations) - start;
        assert_int_equal(atomic_load(&live), before);
        for (long at = 1; at <= total; at++) {
            err = (gdn_err){0};
            a = NULL;
            atomic_store(&fail_at, at);
            const gdn_status st = gdn_adapter_open(m, loras[k], 1, &a, &err);
            atomic_store(&fail_at, 0);
            gdn_adapter_close(a);
            if (st != GDN_OK && err.text[0] == '\0')
                fail_msg("%s: allocation %ld of %ld failed without a word", loras[k], at,
                         total);
            if (atomic_load(&live) != before)
                fail_msg("%s: allocation %ld of %ld failed and %ld pieces were lost: %s", loras[k],
                         at, total, atomic_load(&live) - before, err.text);
        }
        print_message("%s: %ld allocations failed in turn\n", loras[k], total);
        gdn_model_close(m);
    }
}

/* Save a session and bring it back.  True when both worked. */
static bool save_and_load(gdn_engine *from, gdn_engine *to, const int32_t *ids, gdn_err *err) {
    char path[64];
    void *note = NULL;
    size_t n;
    snprintf(path, sizeof path, "/tmp/gdn-test-memory-%ld", (long)getpid());
    gdn_status st = gdn_session_save(from, NULL, ids, 40, "note", 4, path, err);
    if (st == GDN_OK) st = gdn_session_load(to, NULL, path, &note, &n, err);
    free(note);
    remove(path);
    return st == GDN_OK;
}

static void test_session_allocations_fail(void **state) {
    (void)state;
    gdn_model *m = open_model(MODELS "dense-mtp", GDN_MATH_F32, 1);
    gdn_engine_opts o;
    gdn_engine *from = NULL, *to = NULL;
    gdn_engine_stats s;
    gdn_request_opts q;
    gdn_request_result g;
    gdn_err err;
    int32_t *ids = random_ids(40, 512, 3);
    static const int32_t save = 20;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 300;
    o.n_draft = 1;
    o.cache_bytes = 64 << 20;
    gdn_request_opts_defaults(&q);
    q.prompt = ids;
    q.n_prompt = 40;
    q.max_new = 1;
    q.save = &save;
    q.n_save = 1;
    must(gdn_engine_create(m, &o, &from, &err), &err);
    must(gdn_generate(from, &q, NULL, &g, &err), &err);
    long total = 1;
    for (long at = 0; at <= total; at++) { /* at 0 nothing fails */
        must(gdn_engine_create(m, &o, &to, &err), &err);
        const long before = atomic_load(&live), start = atomic_load(&allocations);
        err = (gdn_err){0};
        atomic_store(&fail_at, at);
        const bool ok = save_and_load(from, to, ids, &err);
        atomic_store(&fail_at, 0);
        gdn_engine_get_stats(to, &s);
        if (at == 0) {
            assert_true(ok);
            assert_int_equal(s.n_snapshot, 2);
            total = atomic_load(&allocations) - start;
        }
        if (!ok && err.text[0] == '\0')
            fail_msg("session: allocation %ld of %ld failed without a word", at, total);
        if (!ok && (s.n_snapshot != 0 || s.n_page_used != 0))
            fail_msg("session: allocation %ld of %ld failed and something came in", at, total);
        if (!ok && atomic_load(&live) > before + 2) /* an empty root, a table of roots */
            fail_msg("session: allocation %ld of %ld failed and %ld pieces were lost: %s", at,
                     total, atomic_load(&live) - before, err.text);
        gdn_engine_free(to);
    }
    print_message("session: %ld allocations failed in turn\n", total);
    gdn_engine_free(from);
    gdn_model_close(m);
    free(ids);
}

/* Requests on an engine that stays: submitted, stepped to their ends, freed.  False when submitting
 * or a step failed; a request may have failed as well. */
static bool requests(gdn_engine *e, int32_t *const *ids, const gdn_tokenizer *tok,
                     const int32_t *want, gdn_err *err) {
    enum { N = 3 };
    gdn_request *r[N] = {NULL};
    const char *const stop = "never said";
    const int32_t save[2] = {70, 140};
    gdn_status st = GDN_OK;
    for (int i = 0; i < N && st == GDN_OK; i++) {
        gdn_request_opts o = greedy(ids[i], 150, i == 0 ? 270 : 12); /* a list of tokens grows once */
        o.save = save;
        o.n_save = 2;
        o.tokenizer = tok;
        o.stop_text = &stop;
        o.n_stop_text = 1;
        st = gdn_request_submit(e, &o, &r[i], err);
    }
    while (st == GDN_OK && gdn_engine_busy(e)) {
        if (r[0]->result.n_new < 260) e->sched->policy.rate = 0; /* then with drafts */
        else always_draft(e);
        st = gdn_engine_step(e, err);
    }
    for (int i = 0; i < N; i++) {
        if (r[i] != NULL && st == GDN_OK) {
            const bool failed = r[i]->result.finish == GDN_FINISH_ERROR;
            if (failed && gdn_request_error(r[i])[0] == '\0') fail_msg("a request failed silently");
            if (i > 0) assert_memory_equal(gdn_request_tokens(r[i]), want + 12 * i,
                                           (size_t)r[i]->result.n_new * sizeof *want);
            assert_true(failed || r[i]->result.n_new == (i == 0 ? 270 : 12));
        }
        gdn_request_free(r[i]);
    }
    return st == GDN_OK;
}

/* With snapshots, drafts and text: the engine goes on after each. */
static void test_request_allocations_fail(void **state) {
    (void)state;
    gdn_model *m = open_model(MODELS "dense-mtp", GDN_MATH_FAST, 1);
    gdn_tokenizer *tok = NULL;
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_err err;
    cold c;
    int32_t *ids[3], want[36];
    must(gdn_tokenizer_open("models/jargon", &tok, &err), &err);
    cold_open(&c, m, 600, 512);
    gdn_sampling s;
    gdn_sampling_defaults(&s);
    s.temperature = 0;
    for (uint64_t i = 0; i < 3; i++) {
        ids[i] = random_ids(150, 512, 7);
        int32_t *own = random_ids(60, 512, i);
        memcpy(ids[i] + 90, own, 60 * sizeof *own);
        free(own);
        memcpy(want + 12 * i, cold_run(&c, ids[i], 150, &s, NULL, 12), 12 * sizeof *want);
    }
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 1200;
    o.n_seq = 3;
    o.n_draft = 2;
    o.cache_bytes = GDN_CACHE_AUTO;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    assert_true(requests(e, ids, tok, want, &err)); /* the tree has a root now */
    while (e->snapshots.first != NULL) gdn_snapshot_drop(e, e->snapshots.first);
    const long before = atomic_load(&live), start = atomic_load(&allocations);
    assert_true(requests(e, ids, tok, want, &err));
    const long total = atomic_load(&allocations) - start;
    const long step = total > 60 ? total / 60 : 1;
    for (long at = 1; at <= total; at += step) {
        while (e->snapshots.first != NULL) gdn_snapshot_drop(e, e->snapshots.first);
        err = (gdn_err){0};
        atomic_store(&fail_at, at);
        const bool ok = requests(e, ids, tok, want, &err);
        atomic_store(&fail_at, 0);
        if (!ok && err.text[0] == '\0')
            fail_msg("allocation %ld of %ld failed without a word", at, total);
        assert_false(gdn_engine_busy(e));
        while (e->snapshots.first != NULL) gdn_snapshot_drop(e, e->snapshots.first);
        if (atomic_load(&live) != before)
            fail_msg("allocation %ld of %ld failed and %ld pieces were lost: %s", at, total,
                     atomic_load(&live) - before, err.text);
    }
    print_message("requests: %ld allocations, every %ld. failed in turn\n", total, step);
    check_idle(e);
    for (int i = 0; i < 3; i++) free(ids[i]);
    cold_close(&c);
    gdn_engine_free(e);
    gdn_tokenizer_close(tok);
    gdn_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session_allocations_fail),
        cmocka_unit_test(test_eval_allocates_nothing),
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_adapter_allocations_fail),
        cmocka_unit_test(test_request_allocations_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
