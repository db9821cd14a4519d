/* test_generate.c - whole answers of the demo model against its golden texts; stop strings,
 * cancelling, a full context. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gdn/gdn.h>
#include <jansson.h>

enum { MAX_TEXT = 8192, MAX_IDS = 512 };

static gdn_model     *model;
static gdn_tokenizer *tok;
static json_t        *golden;

static int open_all(void **state) {
    (void)state;
    gdn_err err = { 0 };
    gdn_model_opts o;
    gdn_model_opts_defaults(&o);
    o.device = "cpu";
    o.math = GDN_MATH_F32;
    o.n_thread = 1;
    if (gdn_model_open("models/jargon", &o, &model, &err) != GDN_OK ||
        gdn_tokenizer_open("models/jargon", &tok, &err) != GDN_OK) {
        print_error("%s\n", err.text);
        return -1;
    }
    golden = json_load_file("tests/golden/jargon/golden.json", 0, NULL);
    return golden != NULL ? 0 : -1;
}

static int close_all(void **state) {
    (void)state;
    json_decref(golden);
    gdn_tokenizer_close(tok);
    gdn_model_close(model);
    return 0;
}

/* --- one answer and what came of it -------------------------------------------- */

typedef struct {
    gdn_request_opts o;
    gdn_engine *engine;
    gdn_request_result r;
    gdn_err err;
    int32_t prompt[MAX_IDS], ids[MAX_IDS];
    int32_t n_id;
    char    text[MAX_TEXT];
    size_t  n_text;
    int32_t enough;      /* the callback returns false after so many tokens; 0: never */
    volatile bool cancel;
    int32_t cancel_at;   /* the callback sets cancel with this token; 0: never        */
} answer;

static bool on_token(void *arg, int32_t id, const char *text, size_t n) {
    answer *a = arg;
    if (id >= 0) a->ids[a->n_id++] = id;
    assert_true(a->n_text + n < MAX_TEXT);
    memcpy(a->text + a->n_text, text, n);
    a->n_text += n;
    a->text[a->n_text] = '\0';
    if (a->cancel_at > 0 && a->n_id == a->cancel_at) a->cancel = true;
    return a->enough == 0 || a->n_id < a->enough;
}

static int32_t ids_of(const json_t *list, int32_t *ids) {
    const int32_t n = (int32_t)json_array_size(list);
    assert_true(n > 0 && n <= MAX_IDS);
    for (int32_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

static const json_t *case_of(size_t i) { return json_array_get(json_object_get(golden, "greedy"), i); }

/* The prompt of a golden text, greedy, the model's stop ids. */
static answer *begin(size_t golden_case, int32_t n_ctx) {
    answer *a = calloc(1, sizeof *a);
    gdn_engine_opts e;
    gdn_engine_opts_defaults(&e);
    e.n_ctx = n_ctx;
    assert_int_equal(gdn_engine_create(model, &e, &a->engine, &a->err), GDN_OK);
    gdn_request_opts_defaults(&a->o);
    a->o.prompt = a->prompt;
    a->o.n_prompt = ids_of(json_object_get(case_of(golden_case), "prompt_ids"), a->prompt);
    a->o.sampling.temperature = 0;
    a->o.tokenizer = tok;
    a->o.stop = gdn_model_get_info(model)->stop;
    a->o.n_stop = gdn_model_get_info(model)->n_stop;
    a->o.on_token = on_token;
    a->o.arg = a;
    return a;
}

static gdn_status go(answer *a) { return gdn_generate(a->engine, &a->o, &a->cancel, &a->r, &a->err); }

static void end(answer *a) {
    gdn_engine_free(a->engine);
    free(a);
}

/* Every token was shown, and nothing is left behind. */
static void check_end(const answer *a) {
    gdn_engine_stats s;
    gdn_engine_get_stats(a->engine, &s);
    assert_int_equal(a->n_id, a->r.n_new);
    assert_true(a->r.done);
    assert_int_equal(s.n_page_used, 0);
    assert_int_equal(s.n_running + s.n_waiting, 0);
}

/* --- tests --------------------------------------------------------------------------- */

static void golden_texts_come_out(void **state) {
    (void)state;
    const size_t n = json_array_size(json_object_get(golden, "greedy"));
    assert_int_equal(n, 6);
    for (size_t i = 0; i < n; i++) {
        int32_t want[MAX_IDS];
        const int32_t n_want = ids_of(json_object_get(case_of(i), "greedy_ids"), want);
        const char *text = json_string_value(json_object_get(case_of(i), "greedy_text"));
        answer *a = begin(i, 1024);
        a->o.max_new = n_want;
        a->o.show_special = true;
        assert_int_equal(go(a), GDN_OK);
        assert_int_equal(a->r.n_prompt, a->o.n_prompt);
        assert_int_equal(a->n_id, n_want);
        for (int32_t k = 0; k < n_want; k++) assert_int_equal(a->ids[k], want[k]);
        const bool stops = strstr(text, "<|im_end|>") != NULL;
        assert_int_equal(a->r.finish, stops ? GDN_FINISH_STOP : GDN_FINISH_LENGTH);
        /* The stop token is reported and not shown. */
        const size_t len = stops ? (size_t)(strstr(text, "<|im_end|>") - text) : strlen(text);
        assert_int_equal(a->n_text, len);
        assert_memory_equal(a->text, text, len);
        assert_true(a->r.prompt_us > 0 && a->r.new_us > 0);
        check_end(a);
        end(a);
    }
}

static const char *const cruft =
    "[very common; back-formation from crufty] 1. n. An unpleasant substance. The dust that "
    "gathers under your bed is cruft; the TMRC Dictionary correctly noted that attacking it "
    "with a broom only produces more.";

static void check_stop(const char *const *stop, int32_t n, const char *shown, gdn_finish finish) {
    answer *a = begin(0, 256);
    a->o.stop_text = stop;
    a->o.n_stop_text = n;
    assert_int_equal(go(a), GDN_OK);
    assert_int_equal(a->r.finish, finish);
    assert_string_equal(a->text, shown);
    check_end(a);
    end(a);
}

static void stop_strings_end_the_text_before_them(void **state) {
    (void)state;
    char want[512];
    static const char *const stops[] = { "nce. The du", " ", "[very", "y", "more." };
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        snprintf(want, sizeof want, "%.*s", (int)(strstr(cruft, stops[i]) - cruft), cruft);
        check_stop(&stops[i], 1, want, GDN_FINISH_STOP_STRING);
    }
    /* The one that begins first wins, though another is complete sooner. */
    static const char *const two[] = { "dust", "The dust that gathers" };
    snprintf(want, sizeof want, "%.*s", (int)(strstr(cruft, "dust") - cruft), cruft);
    check_stop(two, 1, want, GDN_FINISH_STOP_STRING);
    snprintf(want, sizeof want, "%.*s", (int)(strstr(cruft, "The dust") - cruft), cruft);
    check_stop(two, 2, want, GDN_FINISH_STOP_STRING);
}

static void what_only_looks_like_a_stop_string_is_shown(void **state) {
    (void)state;
    static const char *const stops[] = { "The dust that gathers over", "more. ", "aab",
                                         "substance. The dustbin" };
    check_stop(stops, 4, cruft, GDN_FINISH_STOP);
}

static void the_reader_can_stop_it(void **state) {
    (void)state;
    answer *a = begin(0, 256);
    a->enough = 7;
    assert_int_equal(go(a), GDN_OK);
    assert_int_equal(a->r.finish, GDN_FINISH_CANCELLED);
    assert_int_equal(a->r.n_new, 7);
    check_end(a);
    end(a);
}

static void cancel_stops_it(void **state) {
    (void)state;
    static const char *const stop[] = { "very common indeed" };
    answer *a = begin(0, 256);
    a->cancel_at = 2;
    a->o.stop_text = stop;
    a->o.n_stop_text = 1;
    assert_int_equal(go(a), GDN_OK);
    assert_int_equal(a->r.finish, GDN_FINISH_CANCELLED);
    assert_int_equal(a->r.n_new, 2);
    assert_true(a->n_text >= strlen("[very")); /* what waited is not lost */
    assert_memory_equal(a->text, cruft, a->n_text);
    check_end(a);
    end(a);
}

static void a_full_context_ends_it(void **state) {
    (void)state;
    enum { ROOM = 6 };
    static const char *const stop[] = { "back-formation from crufty] 2" };
    answer *a = begin(0, 0);
    gdn_engine_free(a->engine);
    gdn_engine_opts e;
    gdn_engine_opts_defaults(&e);
    e.n_ctx = a->o.n_prompt + ROOM;
    assert_int_equal(gdn_engine_create(model, &e, &a->engine, &a->err), GDN_OK);
    a->o.stop_text = stop;
    a->o.n_stop_text = 1;
    assert_int_equal(go(a), GDN_OK);
    assert_int_equal(a->r.finish, GDN_FINISH_FULL);
    assert_int_equal(a->r.n_new, ROOM + 1); /* the last one needs no room */
    assert_int_equal(a->err.code, GDN_OK);
    check_end(a);
    /* All of its text is there: it is what the ids say. */
    size_t at = 0;
    for (int32_t i = 0; i < a->n_id; i++) {
        size_t n;
        const char *s = gdn_token_bytes(tok, a->ids[i], &n);
        assert_memory_equal(a->text + at, s, n);
        at += n;
    }
    assert_int_equal(at, a->n_text);
    end(a);
}

static void lengths_and_first_tokens(void **state) {
    (void)state;
    answer *a = begin(0, 256);
    a->o.max_new = 1;
    assert_int_equal(go(a), GDN_OK);
    assert_int_equal(a->r.finish, GDN_FINISH_LENGTH);
    assert_int_equal(a->r.n_new, 1);
    check_end(a);
    const int32_t first = a->ids[0];
    end(a);
    a = begin(0, 256);
    a->o.stop = &first;
    a->o.n_stop = 1;
    assert_int_equal(go(a), GDN_OK);
    assert_int_equal(a->r.finish, GDN_FINISH_STOP);
    assert_int_equal(a->r.n_new, 1);
    assert_int_equal(a->n_text, 0);
    check_end(a);
    end(a);
    a = begin(0, 256); /* ids only */
    a->o.tokenizer = NULL;
    a->o.max_new = 3;
    assert_int_equal(go(a), GDN_OK);
    assert_int_equal(a->n_id, 3);
    assert_int_equal(a->ids[0], first);
    assert_int_equal(a->n_text, 0);
    end(a);
}

static void a_seed_repeats_an_answer(void **state) {
    (void)state;
    int32_t ids[2][24];
    for (int i = 0; i < 2; i++) {
        answer *a = begin(1, 256);
        gdn_sampling_defaults(&a->o.sampling);
        a->o.sampling.temperature = 1.5f;
        a->o.sampling.top_p = 0.95f;
        a->o.sampling.seed = 42;
        a->o.n_stop = 0;
        a->o.max_new = 24;
        assert_int_equal(go(a), GDN_OK);
        memcpy(ids[i], a->ids, sizeof ids[i]);
        end(a);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
}

static void refuse(answer *a, gdn_status want, const char *word) {
    assert_int_equal(go(a), want);
    assert_non_null(strstr(a->err.text, word));
    end(a);
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    static const char *const empty[] = { "x", "" };
    answer *a = begin(0, 256);
    a->o.n_prompt = 0;
    refuse(a, GDN_E_INVALID, "empty");
    a = begin(0, 256);
    a->o.stop_text = empty;
    a->o.n_stop_text = 2;
    refuse(a, GDN_E_INVALID, "stop string 1");
    a = begin(0, 256);
    a->o.stop_text = empty;
    a->o.n_stop_text = 1;
    a->o.tokenizer = NULL;
    refuse(a, GDN_E_INVALID, "tokenizer");
    a = begin(0, 256);
    a->o.max_new = -1;
    refuse(a, GDN_E_INVALID, "max_new");
    a = begin(0, 256);
    a->o.sampling.top_p = 0;
    refuse(a, GDN_E_INVALID, "top_p");
    a = begin(0, 256);
    a->prompt[3] = 4096;
    refuse(a, GDN_E_INVALID, "4096");
    a = begin(0, 16); /* the prompt has 18 tokens */
    refuse(a, GDN_E_FULL, "18");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_texts_come_out),
        cmocka_unit_test(stop_strings_end_the_text_before_them),
        cmocka_unit_test(what_only_looks_like_a_stop_string_is_shown),
        cmocka_unit_test(the_reader_can_stop_it),
        cmocka_unit_test(cancel_stops_it),
        cmocka_unit_test(a_full_context_ends_it),
        cmocka_unit_test(lengths_and_first_tokens),
        cmocka_unit_test(a_seed_repeats_an_answer),
        cmocka_unit_test(bad_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
