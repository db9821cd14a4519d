/* test_engine.c - pages, cancelling, refusals: what an engine does when things do not go well. */
#include "cases.h"

#include <stdlib.h>
#include <string.h>

enum { VOCAB = 512 };

typedef struct {
    gdn_model  *m;
    gdn_engine *e;
} fixture;

static fixture open_engine(int32_t n_ctx, int32_t n_seq, int32_t n_row) {
    fixture f;
    gdn_engine_opts o;
    gdn_err err;
    f.m = open_model(MODELS "dense-mtp", GDN_MATH_F32, 2);
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n_ctx;
    o.n_seq = n_seq;
    o.n_row = n_row;
    must(gdn_engine_create(f.m, &o, &f.e, &err), &err);
    return f;
}

static void close_engine(fixture f) {
    gdn_engine_free(f.e);
    gdn_model_close(f.m);
}

static uint64_t used(const gdn_engine *e) {
    gdn_engine_stats s;
    gdn_engine_get_stats(e, &s);
    return s.n_page_used;
}

static void refused(gdn_status got, gdn_status want, const gdn_err *err, const char *word) {
    if (got != want) fail_msg("%s, wanted %s: %s", gdn_status_text(got), gdn_status_text(want), err->text);
    if (strstr(err->text, word) == NULL) fail_msg("'%s' does not say '%s'", err->text, word);
}

/* A cancelled call keeps what was evaluated, gives the other pages back, and can be gone on with
 * to the same result. */
static void test_cancel(void **state) {
    (void)state;
    fixture f = open_engine(320, 2, 16);
    gdn_err err;
    gdn_seq *s = NULL, *t = NULL;
    int32_t *ids = random_ids(320, VOCAB, 4), last = 319;
    float *want = all_logits(f.m, ids, 320, 512, 0, NULL), got[VOCAB];
    const uint64_t none = used(f.e);
    must(gdn_seq_create(f.e, &s, &err), &err);
    const uint64_t states = used(f.e) - none;
    const volatile bool stop = true;
    gdn_work w = {.seq = s, .tokens = ids, .n = 320, .out = &last, .n_out = 1, .logits = got};
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, &stop, &err), GDN_E_CANCELLED, &err, "16 of 320");
    assert_int_equal(gdn_seq_length(s), 16);
    assert_int_equal(used(f.e), none + states + 1);
    /* What was given back can be used by another sequence, whose result is right. */
    must(gdn_seq_create(f.e, &t, &err), &err);
    int32_t end = 99;
    gdn_work other = {.seq = t, .tokens = ids, .n = 100, .out = &end, .n_out = 1, .logits = got};
    must(gdn_engine_eval(f.e, &other, 1, NULL, NULL, NULL, &err), &err);
    assert_memory_equal(got, want + 99 * VOCAB, sizeof got);
    gdn_seq_free(t);
    w.tokens = ids + 16;
    w.n = 304;
    last = 303;
    must(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), &err);
    assert_memory_equal(got, want + 319 * VOCAB, sizeof got);
    gdn_seq_free(s);
    assert_int_equal(used(f.e), none);
    free(ids), free(want);
    close_engine(f);
}

/* Sequences that share a pool too small for both: the second is refused whole, and neither takes
 * what the states of a third will need. */
static void test_full(void **state) {
    (void)state;
    fixture f = open_engine(320, 3, 64);
    gdn_err err;
    gdn_seq *s[3] = {NULL};
    int32_t *ids = random_ids(400, VOCAB, 6);
    for (int i = 0; i < 2; i++) must(gdn_seq_create(f.e, &s[i], &err), &err);
    gdn_work w[2] = {{.seq = s[0], .tokens = ids, .n = 300}, {.seq = s[1], .tokens = ids, .n = 320}};
    const uint64_t before = used(f.e);
    refused(gdn_engine_eval(f.e, w, 2, NULL, NULL, NULL, &err), GDN_E_FULL, &err, "pages");
    assert_int_equal(used(f.e), before);
    assert_int_equal(gdn_seq_length(s[0]), 0);
    w[0].n = 321;
    refused(gdn_engine_eval(f.e, w, 1, NULL, NULL, NULL, &err), GDN_E_FULL, &err, "321 tokens");
    w[0].n = 320;
    must(gdn_engine_eval(f.e, w, 1, NULL, NULL, NULL, &err), &err);
    int32_t held = 0;
    for (w[1].n = 16; gdn_engine_eval(f.e, w + 1, 1, NULL, NULL, NULL, &err) == GDN_OK;) held += 16;
    assert_true(held < 320);
    must(gdn_seq_create(f.e, &s[2], &err), &err);
    gdn_seq *more = NULL;
    refused(gdn_seq_create(f.e, &more, &err), GDN_E_FULL, &err, "3 sequences");
    for (int i = 0; i < 3; i++) gdn_seq_free(s[i]);
    free(ids);
    close_engine(f);
}

static void test_bad_work(void **state) {
    (void)state;
    fixture f = open_engine(100, 2, 64), g = open_engine(100, 1, 64);
    gdn_err err;
    gdn_seq *s = NULL, *foreign = NULL;
    int32_t ids[4] = {1, 2, 3, 4}, out[2] = {0, 0};
    float logits[2 * VOCAB];
    must(gdn_seq_create(f.e, &s, &err), &err);
    must(gdn_seq_create(g.e, &foreign, &err), &err);
    const gdn_work good = {.seq = s, .tokens = ids, .n = 4, .out = out, .n_out = 1, .logits = logits};
    gdn_work w = good;
    w.n = 0;
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "0 tokens");
    w = good;
    w.seq = foreign;
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "not of this engine");
    w = good;
    ids[2] = VOCAB;
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "token 2 is 512");
    ids[2] = -1;
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "token 2 is -1");
    ids[2] = 3;
    w.n_out = 2;
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "out[1] is 0");
    out[0] = 4;
    w.n_out = 1;
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "out[0] is 4");
    out[0] = 0;
    w.mtp = logits;
    refused(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "MTP");
    const gdn_work twice[2] = {good, good};
    refused(gdn_engine_eval(f.e, twice, 2, NULL, NULL, NULL, &err), GDN_E_INVALID, &err, "also in work 0");
    assert_int_equal(gdn_seq_length(s), 0);
    w = good;
    must(gdn_engine_eval(f.e, &w, 1, NULL, NULL, NULL, &err), &err);
    gdn_seq_free(s);
    gdn_seq_free(foreign);
    close_engine(f);
    close_engine(g);
}

static void test_bad_options(void **state) {
    (void)state;
    gdn_model *m = open_model(MODELS "dense-mtp", GDN_MATH_FAST, 1);
    gdn_engine *e = NULL;
    gdn_engine_opts o;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = -1;
    refused(gdn_engine_create(m, &o, &e, &err), GDN_E_INVALID, &err, "n_ctx -1");
    o.n_ctx = 100;
    o.block_size = 17;
    refused(gdn_engine_create(m, &o, &e, &err), GDN_E_INVALID, &err, "17");
    o.block_size = 16;
    refused(gdn_engine_create(m, &o, &e, &err), GDN_E_INVALID, &err, "smallest");
    o.block_size = 4096;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    gdn_engine_free(e);
    gdn_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel),      cmocka_unit_test(test_full),
        cmocka_unit_test(test_bad_work),    cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
