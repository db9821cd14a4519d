/* test_waits.c - how often a step of the engine waits for its device: once, whatever it does.
 *
 * On the cpu, where a wait is only counted, and on the xpu where there is an OpenCL device. */
#include "engine_check.h"

#include <stdlib.h>
#include <string.h>

#include "opencl.h"

enum { VOCAB = 512, N_ROW = 16, NEW = 13 };

static const char *device;

static gdn_model *open_on(const char *name) {
    char path[128];
    gdn_model_opts o;
    gdn_model *m = NULL;
    gdn_err err;
    snprintf(path, sizeof path, MODELS "%s", name);
    gdn_model_opts_defaults(&o);
    o.device = device;
    o.math = GDN_MATH_F32;
    must(gdn_model_open(path, &o, &m, &err), &err);
    return m;
}

static gdn_engine *engine(gdn_model *m, bool mtp, int32_t n_draft, uint64_t cache_bytes) {
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 400;
    o.n_seq = 3;
    o.n_row = N_ROW;
    o.mtp = mtp;
    o.n_draft = n_draft;
    o.cache_bytes = cache_bytes;
    o.save_every = 20;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    return e;
}

static gdn_request *submit(gdn_engine *e, const int32_t *prompt, int32_t n, int32_t top_k) {
    gdn_request_opts o;
    gdn_request *r = NULL;
    gdn_err err;
    gdn_request_opts_defaults(&o);
    o.prompt = prompt;
    o.n_prompt = n;
    o.max_new = NEW;
    o.sampling.temperature = top_k > 0;
    o.sampling.top_k = top_k;
    must(gdn_request_submit(e, &o, &r, &err), &err);
    return r;
}

static uint64_t waits(const gdn_engine *e) {
    gdn_engine_stats s;
    gdn_engine_get_stats(e, &s);
    return s.waits;
}

static uint64_t step(gdn_engine *e) {
    const uint64_t before = waits(e);
    gdn_err err;
    must(gdn_engine_step(e, &err), &err);
    return waits(e) - before;
}

/* Prompts that take several steps, then answers, of one request and of three: each step waits once,
 * also when a prompt's piece wants no logits, and where snapshots are saved and begun at. */
static void test_requests(void **state) {
    enum { PROMPT = 40, REQUESTS = 3, MOST = 100 };
    (void)state;
    gdn_model *m = open_on("dense-mtp");
    int32_t *ids = random_ids(PROMPT + REQUESTS, VOCAB, 3);
    for (int cached = 0; cached < 2; cached++) {
        gdn_engine *e = engine(m, false, 0, cached == 1 ? GDN_CACHE_AUTO : 0);
        for (int n = 1; n <= REQUESTS; n += REQUESTS - 1) {
            gdn_request *r[REQUESTS];
            int steps = 0;
            for (int i = 0; i < n; i++) r[i] = submit(e, ids + i, PROMPT, i == 1 ? 20 : 0);
            for (; gdn_engine_busy(e); steps++) {
                const uint64_t w = step(e);
                if (w != 1) fail_msg("%s: step %d of %d requests waits %d times", device, steps, n,
                                     (int)w);
                assert_true(steps < MOST);
            }
            assert_true(steps >= NEW);
            for (int i = 0; i < n; i++) {
                gdn_request_result got;
                gdn_request_get_result(r[i], &got);
                assert_int_equal(got.n_new, NEW);
                gdn_request_free(r[i]);
            }
        }
        gdn_engine_free(e);
    }
    free(ids);
    gdn_model_close(m);
}

/* Each guess of the head is one more, as the next one needs it; checking them is none, nor is it
 * when some were right and the states catch up for the snapshot at the end. */
static void test_drafts(void **state) {
    enum { PROMPT = 10, DRAFT = 3, RIGHT = 2 };
    (void)state;
    gdn_model *m = open_on("dense-mtp");
    gdn_engine *plain = engine(m, false, 0, 0), *e = engine(m, true, DRAFT, GDN_CACHE_AUTO);
    int32_t *ids = random_ids(PROMPT, VOCAB, 5);
    gdn_request *known = submit(plain, ids, PROMPT, 0), *r = submit(e, ids, PROMPT, 0);
    while (gdn_engine_busy(plain)) step(plain);
    const int32_t *answer = gdn_request_tokens(known);
    while (gdn_engine_busy(e)) {
        always_draft(e);
        for (int32_t i = 0, at = r->n_tok - PROMPT; i < r->n_draft && at + i < NEW; i++)
            r->draft[i] = i < RIGHT ? answer[at + i] : (answer[at + i] + 1) % VOCAB;
        const uint64_t w = step(e);
        assert_int_equal(w, gdn_engine_busy(e) ? 1 + DRAFT : 1);
    }
    assert_memory_equal(gdn_request_tokens(r), answer, NEW * sizeof *answer);
    gdn_request_free(known), gdn_request_free(r);
    gdn_engine_free(plain), gdn_engine_free(e);
    free(ids);
    gdn_model_close(m);
}

/* Pieces of one's own, with logits and without, and pairs of the MTP layer that many wait for. */
static void test_eval(void **state) {
    enum { N = 40, SINGLE = 2 * GDN_MTP_BACKLOG };
    (void)state;
    gdn_model *m = open_on("dense-mtp");
    gdn_engine *e = engine(m, true, 0, 0);
    int32_t *ids = random_ids(N, VOCAB, 7);
    float *logits = malloc((size_t)VOCAB * sizeof *logits);
    gdn_seq *s = NULL;
    gdn_err err;
    assert_non_null(logits);
    must(gdn_seq_create(e, &s, &err), &err);
    for (int call = 0; call < 2 + SINGLE; call++) {
        const int32_t n = call < 2 ? N : 1, last = n - 1;
        const uint64_t before = waits(e);
        const gdn_work w = {.seq = s, .tokens = ids, .n = n, .out = &last, .n_out = call > 0,
                            .logits = logits};
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        assert_int_equal(waits(e) - before, (n + N_ROW - 1) / N_ROW);
    }
    assert_true(s->mtp_length > 2 * N);
    gdn_seq_free(s);
    gdn_engine_free(e);
    free(logits), free(ids);
    gdn_model_close(m);
}

static int run_on(const char *name) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_eval),
    };
    device = name;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void) {
    const int rc = run_on("cpu:1");
    opencl_quickly();
    if (opencl_begin() != 0) return rc; /* no device for the rest */
    const int on_xpu = run_on("xpu");
    opencl_end();
    return rc != 0 ? rc : on_xpu;
}
