/* test_tokenizer.c - text to ids and back, against vectors made with Hugging Face
 * tokenizers (tests/oracle/make_tokenizer_vectors.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gdn/text.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN "tests/golden/tokenizer/"
#define DEMO "models/jargon"

static gdn_tokenizer *open_or_fail(const char *path) {
    gdn_err        err = {0};
    gdn_tokenizer *t = NULL;
    if (gdn_tokenizer_open(path, &t, &err) != GDN_OK) fail_msg("%s", err.text);
    return t;
}

static json_t *read_json(const char *path) {
    json_error_t e;
    json_t      *v = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (v == NULL) fail_msg("%s: %s", path, e.text);
    return v;
}

/* The text that ids stand for, through the streaming decoder; the caller frees it. */
static char *decode(const gdn_tokenizer *t, const int32_t *ids, size_t n_ids, size_t *n) {
    gdn_detok *d = NULL;
    size_t     cap = 64;
    char      *out = malloc(cap);
    *n = 0;
    assert_int_equal(gdn_detok_create(t, true, &d), GDN_OK);
    for (size_t i = 0; i <= n_ids; i++) {
        const char *s = NULL;
        size_t      k = 0;
        assert_int_equal(i < n_ids ? gdn_detok_push(d, ids[i], &s, &k) : gdn_detok_flush(d, &s, &k),
                         GDN_OK);
        if (*n + k + 1 > cap) out = realloc(out, cap = 2 * (*n + k + 1));
        memcpy(out + *n, s, k);
        *n += k;
    }
    gdn_detok_free(d);
    return out;
}

static bool same_ids(const json_t *want, const int32_t *ids, size_t n) {
    if (json_array_size(want) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(want, i)) != ids[i]) return false;
    return true;
}

/* One vector: ids with added tokens parsed and as text, and the way back. */
static bool vector_holds(const gdn_tokenizer *t, const json_t *v) {
    const json_t *text = json_object_get(v, "t"), *parsed = json_object_get(v, "i");
    const json_t *plain = json_object_get(v, "p"), *back = json_object_get(v, "n");
    if (plain == NULL) plain = parsed;
    if (back == NULL) back = text;
    int32_t *a = NULL, *b = NULL;
    size_t   na = 0, nb = 0, n = 0;
    gdn_err  err = {0};
    bool     good = gdn_tokenize(t, json_string_value(text), json_string_length(text), true, &a, &na, &err) == GDN_OK &&
                gdn_tokenize(t, json_string_value(text), json_string_length(text), false, &b, &nb, &err) == GDN_OK;
    good = good && same_ids(parsed, a, na) && same_ids(plain, b, nb);
    char *s = decode(t, a, na, &n);
    good = good && n == json_string_length(back) && memcmp(s, json_string_value(back), n) == 0;
    free(s);
    free(a);
    free(b);
    return good;
}

static void check_vectors(const char *tokenizer, const char *vectors) {
    gdn_tokenizer *t = open_or_fail(tokenizer);
    json_t        *list = read_json(vectors);
    int            wrong = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!vector_holds(t, json_array_get(list, i))) {
            wrong++;
            char *shown = json_dumps(json_array_get(list, i), JSON_ENSURE_ASCII);
            print_error("%s: vector %zu: %.300s\n", vectors, i, shown);
            free(shown);
        }
    assert_true(json_array_size(list) > 100);
    assert_int_equal(wrong, 0);
    json_decref(list);
    gdn_tokenizer_close(t);
}

static void demo_vectors(void **state) {
    (void)state;
    check_vectors(DEMO, GOLDEN "jargon.json");
}

static void small_vectors(void **state) {
    (void)state;
    check_vectors(GOLDEN "small-pairs.tokenizer.json", GOLDEN "small-pairs.json");
    check_vectors(GOLDEN "small-lines.tokenizer.json", GOLDEN "small-lines.json");
    check_vectors(GOLDEN "small-splits.tokenizer.json", GOLDEN "small-splits.json");
}

static void qwen_vectors(void **state) {
    (void)state;
    const char *path = getenv("GDN_QWEN_TOKENIZER");
    if (path == NULL) {
        print_message("skipped: GDN_QWEN_TOKENIZER names no tokenizer.json of Qwen3.5\n");
        skip();
    }
    check_vectors(path, GOLDEN "qwen3.5.json");
}

/* Prompts and answers of the demo model. */
static void demo_prompts(void **state) {
    (void)state;
    gdn_tokenizer *t = open_or_fail(DEMO);
    json_t        *golden = read_json("tests/golden/jargon/golden.json");
    const json_t  *list = json_object_get(golden, "greedy");
    assert_true(json_array_size(list) > 0);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *g = json_array_get(list, i);
        const char   *prompt = json_string_value(json_object_get(g, "prompt"));
        int32_t      *ids = NULL;
        size_t        n = 0, n_text = 0;
        gdn_err       err = {0};
        assert_int_equal(gdn_tokenize(t, prompt, strlen(prompt), true, &ids, &n, &err), GDN_OK);
        assert_true(same_ids(json_object_get(g, "prompt_ids"), ids, n));
        free(ids);
        const json_t *answer = json_object_get(g, "greedy_ids");
        n = json_array_size(answer);
        ids = malloc((n + 1) * sizeof *ids);
        for (size_t k = 0; k < n; k++) ids[k] = (int32_t)json_integer_value(json_array_get(answer, k));
        char *text = decode(t, ids, n, &n_text);
        text[n_text] = '\0';
        assert_string_equal(text, json_string_value(json_object_get(g, "greedy_text")));
        free(text);
        free(ids);
    }
    json_decref(golden);
    gdn_tokenizer_close(t);
}

static void facts_of_the_demo(void **state) {
    (void)state;
    gdn_tokenizer *t = open_or_fail(DEMO "/tokenizer.json");
    size_t         n = 9;
    assert_int_equal(gdn_tokenizer_size(t), 4096);
    assert_int_equal(gdn_token_find(t, "<|im_end|>"), 4086);
    assert_int_equal(gdn_token_find(t, "</think>"), 4095);
    assert_int_equal(gdn_token_find(t, "<|im_end"), -1);
    assert_int_equal(gdn_token_find(t, "the"), -1); /* a token, but not an added one */
    assert_true(gdn_token_is_special(t, 4086));
    assert_false(gdn_token_is_special(t, 4095)); /* <think> is to be seen */
    assert_false(gdn_token_is_special(t, 0));
    assert_false(gdn_token_is_special(t, -1));
    assert_null(gdn_token_bytes(t, -1, &n));
    assert_int_equal(n, 0);
    assert_null(gdn_token_bytes(t, 4096, &n));
    const char *s = gdn_token_bytes(t, 220, &n); /* "Ġ" in the file */
    assert_int_equal(n, 1);
    assert_int_equal(s[0], ' ');
    s = gdn_token_bytes(t, 4094, &n);
    assert_int_equal(n, 7);
    assert_memory_equal(s, "<think>", 7);
    int32_t *ids = (int32_t *)1;
    gdn_err  err = {0};
    assert_int_equal(gdn_tokenize(t, "", 0, true, &ids, &n, &err), GDN_OK);
    assert_null(ids);
    assert_int_equal(n, 0);
    gdn_tokenizer_close(t);
}

/* Bytes that are not UTF-8 are tokens of one byte each, between those of what is. */
static void bad_bytes(void **state) {
    (void)state;
    gdn_tokenizer *t = open_or_fail(DEMO);
    int32_t       *ids = NULL;
    size_t         n = 0, len = 0;
    gdn_err        err = {0};
    const char     text[] = "the\xff\xe4\xb8 the<think>\xed\xa0\x80";
    const char    *want[] = {"the", "\xff", "\xe4", "\xb8", " the", "<think>", "\xed", "\xa0", "\x80"};
    assert_int_equal(gdn_tokenize(t, text, sizeof text - 1, true, &ids, &n, &err), GDN_OK);
    assert_int_equal(n, sizeof want / sizeof *want);
    for (size_t i = 0; i < n; i++) {
        const char *s = gdn_token_bytes(t, ids[i], &len);
        assert_int_equal(len, strlen(want[i]));
        assert_memory_equal(s, want[i], len);
    }
    free(ids);
    gdn_tokenizer_close(t);
}

/* Random bytes come back as they are.  Lead bytes are left out with which marks could
 * arise, because those would be put in order. */
static void any_bytes_come_back(void **state) {
    (void)state;
    gdn_tokenizer *t = open_or_fail(DEMO);
    uint32_t       r = 12345;
    gdn_err        err = {0};
    char           text[4096];
    for (int round = 0; round < 40; round++) {
        const size_t n_text = round < 20 ? (size_t)round : sizeof text;
        for (size_t i = 0; i < n_text; i++) {
            static const unsigned char lead[] = {0xc0, 0xc1, 0xe4, 0xe5, 0xf5, 0xfe, 0xff, 0xc3};
            r = r * 1664525 + 1013904223;
            const unsigned char x = (unsigned char)(r >> 24);
            text[i] = (char)(x < 0xc0 ? x : lead[x & 7]);
        }
        int32_t *ids = NULL;
        size_t   n = 0, n_back = 0;
        assert_int_equal(gdn_tokenize(t, text, n_text, true, &ids, &n, &err), GDN_OK);
        char *back = decode(t, ids, n, &n_back);
        assert_int_equal(n_back, n_text);
        assert_memory_equal(back, text, n_text);
        free(back);
        free(ids);
    }
    gdn_tokenizer_close(t);
}

/* --- the streaming decoder ---------------------------------------------------------- */

static int32_t byte_token(const gdn_tokenizer *t, int byte) {
    size_t n = 0;
    for (int32_t id = 0; id < gdn_tokenizer_size(t); id++) {
        const char *s = gdn_token_bytes(t, id, &n);
        if (s != NULL && n == 1 && (unsigned char)s[0] == byte) return id;
    }
    fail_msg("no token for byte %d", byte);
    return -1;
}

/* Push bytes one by one; after each, what came out must be the next of want. */
static void check_stream(const gdn_tokenizer *t, const char *bytes, const char *const *want,
                         const char *rest) {
    gdn_detok  *d = NULL;
    const char *s = NULL;
    size_t      n = 0;
    assert_int_equal(gdn_detok_create(t, false, &d), GDN_OK);
    for (size_t i = 0; bytes[i] != '\0'; i++) {
        assert_int_equal(gdn_detok_push(d, byte_token(t, (unsigned char)bytes[i]), &s, &n), GDN_OK);
        assert_int_equal(n, strlen(want[i]));
        assert_memory_equal(s, want[i], n);
    }
    assert_int_equal(gdn_detok_flush(d, &s, &n), GDN_OK);
    assert_int_equal(n, strlen(rest));
    assert_memory_equal(s, rest, n);
    assert_int_equal(gdn_detok_flush(d, &s, &n), GDN_OK);
    assert_int_equal(n, 0);
    gdn_detok_free(d);
}

static void whole_characters(void **state) {
    (void)state;
    gdn_tokenizer *t = open_or_fail(DEMO);
    check_stream(t, "a\xc3\xa9", (const char *[]){"a", "", "\xc3\xa9"}, "");
    check_stream(t, "\xf0\x9f\x98\x80", (const char *[]){"", "", "", "\xf0\x9f\x98\x80"}, "");
    check_stream(t, "\xf0\x9f\x98", (const char *[]){"", "", ""}, "\xf0\x9f\x98");
    /* Not a character any more: as soon as that is known. */
    check_stream(t, "\xf0\x9f" "a", (const char *[]){"", "", "\xf0\x9f" "a"}, "");
    check_stream(t, "\xe4\xe4\xb8\xad", (const char *[]){"", "\xe4", "", "\xe4\xb8\xad"}, "");
    check_stream(t, "\xed\xa0\x80", (const char *[]){"", "\xed\xa0", "\x80"}, ""); /* a surrogate */
    check_stream(t, "\xe0\x9f", (const char *[]){"", "\xe0\x9f"}, "");             /* overlong */
    check_stream(t, "\xf4\x90", (const char *[]){"", "\xf4\x90"}, "");             /* past U+10FFFF */
    check_stream(t, "\xf0\x8f", (const char *[]){"", "\xf0\x8f"}, "");
    check_stream(t, "\xc1\x80\xff\xf5", (const char *[]){"\xc1", "\x80", "\xff", "\xf5"}, "");
    gdn_tokenizer_close(t);
}

static void special_tokens_hidden(void **state) {
    (void)state;
    gdn_tokenizer *t = open_or_fail(DEMO);
    for (int show = 0; show < 2; show++) {
        gdn_detok  *d = NULL;
        const char *s = NULL;
        size_t      n = 0;
        assert_int_equal(gdn_detok_create(t, show == 1, &d), GDN_OK);
        assert_int_equal(gdn_detok_push(d, 4086, &s, &n), GDN_OK); /* <|im_end|>: special */
        assert_int_equal(n, show ? 10 : 0);
        assert_int_equal(gdn_detok_push(d, 4095, &s, &n), GDN_OK); /* </think>: not */
        assert_int_equal(n, 8);
        assert_memory_equal(s, "</think>", 8);
        assert_int_equal(gdn_detok_push(d, byte_token(t, 0xc3), &s, &n), GDN_OK);
        assert_int_equal(n, 0);
        assert_int_equal(gdn_detok_push(d, 999999, &s, &n), GDN_OK); /* no such id */
        assert_int_equal(n, 0);
        assert_int_equal(gdn_detok_push(d, -5, &s, &n), GDN_OK);
        assert_int_equal(n, 0);
        assert_int_equal(gdn_detok_push(d, byte_token(t, 0xa9), &s, &n), GDN_OK);
        assert_int_equal(n, 2);
        gdn_detok_free(d);
    }
    gdn_detok_free(NULL);
    gdn_tokenizer_close(t);
}

/* --- sizes and threads ---------------------------------------------------------------- */

/* One word of a megabyte, and a run of half a million marks in the worst order: with
 * quadratic steps either takes minutes. */
static void long_runs(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    gdn_tokenizer *t = open_or_fail(DEMO);
    char          *text = malloc(N);
    int32_t       *ids = NULL;
    size_t         n = 0, n_back = 0;
    gdn_err        err = {0};
    memset(text, 'a', N);
    assert_int_equal(gdn_tokenize(t, text, N, false, &ids, &n, &err), GDN_OK);
    char *back = decode(t, ids, n, &n_back);
    assert_int_equal(n_back, N);
    assert_memory_equal(back, text, N);
    free(back);
    free(ids);
    for (size_t i = 0; i < N; i += 4) memcpy(text + i, "\xcc\x81\xcc\xa3", 4); /* class 230, 220 */
    assert_int_equal(gdn_tokenize(t, text, N, false, &ids, &n, &err), GDN_OK);
    back = decode(t, ids, n, &n_back);
    assert_int_equal(n_back, N);
    for (size_t i = 0; i < N; i += 2) assert_memory_equal(back + i, i < N / 2 ? "\xcc\xa3" : "\xcc\x81", 2);
    free(back);
    free(ids);
    free(text);
    gdn_tokenizer_close(t);
}

typedef struct {
    const gdn_tokenizer *t;
    const json_t        *list;
    int                  wrong;
} thread_work;

static void *run_thread(void *arg) {
    thread_work *w = arg;
    for (size_t i = 0; i < 300; i++) {
        const json_t *v = json_array_get(w->list, i * 5), *s = json_object_get(v, "t");
        int32_t      *ids = NULL;
        size_t        n = 0;
        if (gdn_tokenize(w->t, json_string_value(s), json_string_length(s), true, &ids, &n, NULL) != GDN_OK ||
            !same_ids(json_object_get(v, "i"), ids, n))
            w->wrong++;
        free(ids);
    }
    return NULL;
}

static void many_threads(void **state) {
    (void)state;
    gdn_tokenizer *t = open_or_fail(DEMO);
    json_t        *list = read_json(GOLDEN "jargon.json");
    pthread_t      thread[4];
    thread_work    work[4];
    for (int i = 0; i < 4; i++) {
        work[i] = (thread_work){t, list, 0};
        assert_int_equal(pthread_create(&thread[i], NULL, run_thread, &work[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(work[i].wrong, 0);
    }
    json_decref(list);
    gdn_tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_vectors),        cmocka_unit_test(small_vectors),
        cmocka_unit_test(qwen_vectors),        cmocka_unit_test(demo_prompts),
        cmocka_unit_test(facts_of_the_demo),   cmocka_unit_test(bad_bytes),
        cmocka_unit_test(any_bytes_come_back), cmocka_unit_test(whole_characters),
        cmocka_unit_test(special_tokens_hidden), cmocka_unit_test(long_runs),
        cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
