/* cases.c - helpers around golden models. */
#include "cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void must(gdn_status st, const gdn_err *err) {
    if (st != GDN_OK) fail_msg("%s: %s", gdn_status_text(st), err->text);
}

gdn_model *open_model(const char *dir, gdn_math math, int n_thread) {
    gdn_model_opts o;
    gdn_model *m = NULL;
    gdn_err err;
    gdn_model_opts_defaults(&o);
    o.device = "cpu";
    setenv("GDN_BF16", "always", 1); /* small as it is, fast means rounded in these tests */
    o.math = math;
    o.n_thread = n_thread;
    must(gdn_model_open(dir, &o, &m, &err), &err);
    return m;
}

const gdn_st_tensor *vector(gdn_weights *w, const char *name, gdn_st_dtype type) {
    const gdn_st_tensor *t = gdn_weights_find(w, name);
    if (t == NULL) fail_msg("no vector %s", name);
    else assert_int_equal(t->dtype, type);
    return t;
}

int32_t *input_ids(gdn_weights *w, int32_t *n) {
    const gdn_st_tensor *t = vector(w, "input_ids", GDN_ST_I64);
    *n = (int32_t)t->shape[0];
    int32_t *ids = malloc((size_t)*n * sizeof *ids);
    assert_non_null(ids);
    for (int32_t i = 0; i < *n; i++) ids[i] = (int32_t)((const int64_t *)(const void *)t->data)[i];
    return ids;
}

int32_t *random_ids(int32_t n, int32_t vocab, uint64_t seed) {
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    assert_non_null(ids);
    for (int32_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((seed >> 33) % (uint64_t)vocab);
    }
    return ids;
}

float *all_logits(gdn_model *m, const int32_t *ids, int32_t n, int32_t n_row, int32_t n_call,
                  float **mtp) {
    const int32_t vocab = gdn_model_get_info(m)->vocab;
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n;
    o.n_row = n_row;
    o.mtp = mtp != NULL;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    must(gdn_seq_create(e, &s, &err), &err);
    float *logits = malloc((size_t)n * (size_t)vocab * sizeof *logits);
    int32_t *out = malloc((size_t)n * sizeof *out);
    assert_non_null(logits);
    assert_non_null(out);
    for (int32_t i = 0; i < n; i++) out[i] = i;
    if (n_call == 0) n_call = n;
    for (int32_t at = 0; at < n; at += n_call) {
        const int32_t now = n - at < n_call ? n - at : n_call;
        gdn_work w = {.seq = s, .tokens = ids + at, .n = now, .out = out, .n_out = now,
                      .logits = logits + (size_t)at * (size_t)vocab};
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
    }
    assert_int_equal(gdn_seq_length(s), n);
    gdn_seq_free(s);
    if (mtp != NULL) { /* draft logits want the next token: one call for all but the last */
        *mtp = malloc((size_t)n * (size_t)vocab * sizeof **mtp);
        float *again = malloc((size_t)n * (size_t)vocab * sizeof *again);
        assert_non_null(*mtp);
        assert_non_null(again);
        must(gdn_seq_create(e, &s, &err), &err);
        gdn_work w = {.seq = s, .tokens = ids, .n = n, .out = out, .n_out = n - 1,
                      .logits = again, .mtp = *mtp};
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        assert_memory_equal(again, logits, (size_t)(n - 1) * (size_t)vocab * sizeof *again);
        gdn_seq_free(s);
        free(again);
    }
    free(out);
    gdn_engine_free(e);
    return logits;
}

gdn_request_opts greedy(const int32_t *prompt, int32_t n, int32_t max_new) {
    gdn_request_opts o;
    gdn_request_opts_defaults(&o);
    o.prompt = prompt;
    o.n_prompt = n;
    o.max_new = max_new;
    o.sampling.temperature = 0;
    return o;
}

gdn_request *submit_to(gdn_engine *e, gdn_request_opts o) {
    gdn_err err;
    gdn_request *r = NULL;
    must(gdn_request_submit(e, &o, &r, &err), &err);
    return r;
}

double max_error(const float *a, const float *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    return worst;
}
