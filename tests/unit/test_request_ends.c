/* test_request_ends.c - requests that end, in every way, and what is left then. */
#include "request_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"

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
        cmocka_unit_test(test_ends_among_drafts),
        cmocka_unit_test(test_cancel_gives_back),
        cmocka_unit_test(test_own_failure),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_beside_sequences),
        cmocka_unit_test(test_last_page),
        cmocka_unit_test(test_submit_from_callback),
        cmocka_unit_test(test_free_from_callback),
        cmocka_unit_test(test_reader_beside_drafts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long_answer),
        cmocka_unit_test(test_stop_string_among_drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
