/* test_xpu_model.c - whole models on the xpu device against the vectors of an independent
 * implementation: prompts, in pieces, token by token, with drafts; several sequences at once. */
#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl.h"

static const double TOLERANCE = 2e-4; /* as the cpu's, test_golden.c */

typedef struct {
    gdn_weights *golden;
    gdn_model   *m;
    int32_t     *ids, n;
} example;

static example open_example(const char *name) {
    example x;
    char path[128];
    gdn_model_opts o;
    gdn_err err;
    snprintf(path, sizeof path, MODELS "%s/golden.safetensors", name);
    must(gdn_weights_open(path, &x.golden, &err), &err);
    x.ids = input_ids(x.golden, &x.n);
    gdn_model_opts_defaults(&o);
    o.device = "xpu";
    o.math = GDN_MATH_F32;
    snprintf(path, sizeof path, MODELS "%s", name);
    must(gdn_model_open(path, &o, &x.m, &err), &err);
    return x;
}

static void close_example(example *x) {
    gdn_model_close(x->m);
    gdn_weights_close(x->golden);
    free(x->ids);
}

static void check(const example *x, const char *what, const char *name, const float *got,
                  int32_t n) {
    const gdn_st_tensor *want = vector(x->golden, name, GDN_ST_F32);
    assert_int_equal(want->shape[0], n);
    const double e = max_error((const float *)(const void *)want->data, got,
                               (size_t)n * (size_t)gdn_model_get_info(x->m)->vocab);
    print_message("%s: %s %.2g\n", what, name, e);
    if (!(e <= TOLERANCE)) fail_msg("%s: %s are off by %g", what, name, e);
}

/* The greedy continuation, one token a call. */
static void check_greedy(const example *x) {
    const gdn_st_tensor *want = vector(x->golden, "greedy", GDN_ST_I64);
    const int32_t vocab = gdn_model_get_info(x->m)->vocab;
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = x->n + (int32_t)want->shape[0];
    must(gdn_engine_create(x->m, &o, &e, &err), &err);
    must(gdn_seq_create(e, &s, &err), &err);
    float *logits = malloc((size_t)vocab * sizeof *logits);
    assert_non_null(logits);
    int32_t next = 0, last = x->n - 1;
    gdn_work w = {.seq = s, .tokens = x->ids, .n = x->n, .out = &last, .n_out = 1,
                  .logits = logits};
    for (int64_t i = 0; i < want->shape[0]; i++) {
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        next = 0;
        for (int32_t v = 1; v < vocab; v++)
            if (logits[v] > logits[next]) next = v;
        assert_int_equal(next, ((const int64_t *)(const void *)want->data)[i]);
        w.tokens = &next;
        w.n = 1;
        last = 0;
    }
    free(logits);
    gdn_seq_free(s);
    gdn_engine_free(e);
}

static void whole(const char *name) {
    example x = open_example(name);
    const bool drafts = gdn_model_get_info(x.m)->has_mtp;
    float *mtp = NULL, *logits = all_logits(x.m, x.ids, x.n, 512, 0, drafts ? &mtp : NULL);
    check(&x, name, "logits", logits, x.n);
    if (drafts) check(&x, name, "mtp_logits", mtp, x.n - 1);
    /* Cut into calls and steps, the same bits. */
    float *cut = all_logits(x.m, x.ids, x.n, 8, 11, NULL);
    assert_memory_equal(cut, logits,
                        (size_t)x.n * (size_t)gdn_model_get_info(x.m)->vocab * sizeof *cut);
    check_greedy(&x);
    free(cut), free(logits), free(mtp);
    close_example(&x);
}

static void test_dense_mtp(void **state) {
    (void)state;
    whole("dense-mtp");
}
static void test_dense_tied_128(void **state) {
    (void)state;
    whole("dense-tied-128");
}
static void test_next_moe(void **state) {
    (void)state;
    whole("next-moe");
}
static void test_moe_mtp(void **state) {
    (void)state;
    whole("moe-mtp");
}

/* An answer's steps: what their evaluation takes, and what the sampler needs. */
static void check_request_launches(const example *x, gdn_engine *e, uint64_t evaluation) {
    enum { PROMPT = 5, STEPS = 3, SAMPLE = 2 };
    gdn_request_opts o;
    gdn_request *r = NULL;
    gdn_err err;
    gdn_request_opts_defaults(&o);
    o.prompt = x->ids;
    o.n_prompt = PROMPT;
    o.max_new = STEPS + 1;
    o.sampling.top_k = 20;
    must(gdn_request_submit(e, &o, &r, &err), &err);
    for (int i = 0; i <= STEPS; i++) {
        gdn_engine_stats before, after;
        gdn_engine_get_stats(e, &before);
        must(gdn_engine_step(e, &err), &err);
        gdn_engine_get_stats(e, &after);
        if (i > 0) assert_int_equal(after.regions - before.regions, evaluation + SAMPLE);
    }
    assert_false(gdn_engine_busy(e));
    gdn_request_free(r);
}

/* Launches of a decode step: the mixer of a GDN layer takes 3, that of an attention layer 4, ffn what
 * is behind it, and what stands around the layers (embedding, angles, last norm, rows for the head,
 * head) 5. */
static void launches(const char *name, int ffn) {
    enum { GDN = 3, FULL = 4, AROUND = 5, PROMPT = 5, STEPS = 3 };
    example x = open_example(name);
    const gdn_model_info *info = gdn_model_get_info(x.m);
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 64;
    o.mtp = false;
    must(gdn_engine_create(x.m, &o, &e, &err), &err);
    must(gdn_seq_create(e, &s, &err), &err);
    float *logits = malloc((size_t)info->vocab * sizeof *logits);
    assert_non_null(logits);
    int32_t last = PROMPT - 1;
    uint64_t evaluation = 0;
    gdn_work w = {.seq = s, .tokens = x.ids, .n = PROMPT, .out = &last, .n_out = 1, .logits = logits};
    for (int i = 0; i < STEPS; i++) {
        gdn_engine_stats before, after;
        gdn_engine_get_stats(e, &before);
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        gdn_engine_get_stats(e, &after);
        const uint64_t n = after.regions - before.regions;
        const int want = GDN * (info->n_layer - info->n_full) + FULL * info->n_full +
                         ffn * info->n_layer + AROUND;
        print_message("%s, %d rows: %llu launches, of one row %d\n", name, w.n, (unsigned long long)n,
                      want);
        if (w.n == 1) assert_int_equal(n, want);
        evaluation = n;
        w.tokens = x.ids + PROMPT + i;
        w.n = 1;
        last = 0;
    }
    free(logits);
    gdn_seq_free(s);
    check_request_launches(&x, e, evaluation);
    gdn_engine_free(e);
    close_example(&x);
}

/* Norm with gate and up, down. */
static void test_launches(void **state) {
    (void)state;
    launches("dense-mtp", 2);
}
/* Norm, router, choice, gates and ups of the experts, down, two of the shared one, sum: one row's
 * experts are not sorted. */
static void test_launches_moe(void **state) {
    (void)state;
    launches("next-moe", 8);
}

int main(void) {
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_mtp),
        cmocka_unit_test(test_dense_tied_128),
        cmocka_unit_test(test_next_moe),
        cmocka_unit_test(test_moe_mtp),
        cmocka_unit_test(test_launches),
        cmocka_unit_test(test_launches_moe),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    opencl_end();
    return rc;
}
