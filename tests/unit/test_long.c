/* test_long.c - a recurrence hides drift in short prompts: logits after 16 to 32,768 tokens
 * against a float64 forward pass, within 1e-3. */
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>

#include "sanitized.h"

static void check_long(const char *name) {
    char path[128];
    gdn_weights *golden = NULL;
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s = NULL;
    gdn_err err;
    snprintf(path, sizeof path, "tests/golden/long/%s.safetensors", name);
    must(gdn_weights_open(path, &golden, &err), &err);
    snprintf(path, sizeof path, MODELS "%s", name);
    gdn_model *m = open_model(path, GDN_MATH_F32, 2);
    int32_t n, n_out, out[16];
    int32_t *ids = input_ids(golden, &n);
    const gdn_st_tensor *at = vector(golden, "positions", GDN_ST_I64);
    const gdn_st_tensor *want = vector(golden, "logits", GDN_ST_F32);
    const int32_t vocab = gdn_model_get_info(m)->vocab;
    n_out = (int32_t)at->shape[0];
    assert_true(n_out <= 16 && n == 32768);
    for (int32_t i = 0; i < n_out; i++) out[i] = (int32_t)((const int64_t *)(const void *)at->data)[i];
    assert_int_equal(out[n_out - 1], n - 1);
    while (SANITIZED && n_out > 1 && n > 1100) n = out[--n_out - 1] + 1;
    float *logits = malloc((size_t)n_out * (size_t)vocab * sizeof *logits);
    assert_non_null(logits);
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    must(gdn_seq_create(e, &s, &err), &err);
    gdn_work w = {.seq = s, .tokens = ids, .n = n, .out = out, .n_out = n_out, .logits = logits};
    must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
    for (int32_t i = 0; i < n_out; i++) {
        const double d = max_error((const float *)(const void *)want->data + (size_t)i * (size_t)vocab,
                                   logits + (size_t)i * (size_t)vocab, (size_t)vocab);
        print_message("%s: after %d tokens %.2g\n", name, out[i] + 1, d);
        if (!(d <= 1e-3)) fail_msg("%s: logits after %d tokens are off by %g", name, out[i] + 1, d);
    }
    free(logits), free(ids);
    gdn_seq_free(s);
    gdn_engine_free(e);
    gdn_model_close(m);
    gdn_weights_close(golden);
}

static void test_dense(void **state) {
    (void)state;
    check_long("dense-mtp");
}
static void test_next(void **state) {
    (void)state;
    check_long("next-moe");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dense), cmocka_unit_test(test_next)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
