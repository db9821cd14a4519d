/* test_template.c - opening a checkpoint's chat template, the prompts of the demo model, and
 * the JSON writer behind tojson. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include <gdn/text.h>

#include "../../src/base/json.h"

/* The messages behind the prompts of tests/golden/jargon/golden.json, in its order; the
 * prompt of the fifth is plain text. */
static const char *const conversations[] = {
    "{\"messages\": [{\"role\": \"user\", \"content\": \"What is cruft?\"}],"
    " \"add_generation_prompt\": true, \"enable_thinking\": false}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"What does foo mean?\"}],"
    " \"add_generation_prompt\": true, \"enable_thinking\": true}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Look up kluge.\"}], \"tools\": [{\"type\":"
    " \"function\", \"function\": {\"name\": \"lookup\", \"description\": \"Look a term up in the Jargon"
    " File.\", \"parameters\": {\"type\": \"object\", \"properties\": {\"term\": {\"type\": \"string\","
    " \"description\": \"the term\"}}, \"required\": [\"term\"]}}}],"
    " \"add_generation_prompt\": true, \"enable_thinking\": false}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Define hacker as JSON.\"}],"
    " \"add_generation_prompt\": true}",
    NULL,
    "{\"messages\": [{\"role\": \"user\", \"content\": \"What is the meaning of life?\"}],"
    " \"add_generation_prompt\": true, \"enable_thinking\": false}",
};

static void test_demo_prompts(void **state) {
    (void)state;
    gdn_err       err = {0};
    gdn_template *t = NULL;
    json_t       *golden = json_load_file("tests/golden/jargon/golden.json", 0, NULL);
    const json_t *runs = json_object_get(golden, "greedy");
    if (gdn_template_open("models/jargon", &t, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_int_equal(json_array_size(runs), sizeof conversations / sizeof *conversations);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *want = json_object_get(json_array_get(runs, i), "prompt");
        char         *out = NULL;
        size_t        n = 0;
        if (conversations[i] == NULL) continue;
        assert_int_equal(gdn_template_render(t, conversations[i], strlen(conversations[i]), &out, &n, &err),
                         GDN_OK);
        assert_string_equal(out, json_string_value(want));
        assert_int_equal(n, json_string_length(want));
        free(out);
    }
    gdn_template_close(t);
    json_decref(golden);
}

/* --- where a template is found ---------------------------------------------------------------- */

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/gdn-template-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static const char *in_dir(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int remove_dir(void **state) {
    (void)state;
    unlink(in_dir("chat_template.jinja"));
    unlink(in_dir("tokenizer_config.json"));
    unlink(in_dir("chat_template.json"));
    return rmdir(dir);
}

static void put_file(const char *name, const char *text) {
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void expect_text(const char *want) {
    gdn_err       err = {0};
    gdn_template *t = NULL;
    char         *out = NULL;
    size_t        n;
    if (gdn_template_open(dir, &t, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_int_equal(err.code, GDN_OK);
    assert_int_equal(gdn_template_render(t, "{}", 2, &out, &n, &err), GDN_OK);
    assert_string_equal(out, want);
    free(out);
    gdn_template_close(t);
}

static void expect_failure(gdn_status st, const char *part) {
    gdn_err       err = {0};
    gdn_template *t = NULL;
    assert_int_equal(gdn_template_open(dir, &t, &err), st);
    assert_null(t);
    if (strstr(err.text, part) == NULL) fail_msg("'%s' lacks '%s'", err.text, part);
}

static void test_open(void **state) {
    (void)state;
    expect_failure(GDN_E_IO, dir);
    put_file("chat_template.json", "{\"chat_template\": \"third\"}");
    expect_text("third");
    put_file("tokenizer_config.json", "{\"other\": 1}");
    expect_text("third");
    put_file("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"},"
                                      " {\"name\": \"default\", \"template\": \"second\"}]}");
    expect_text("second");
    put_file("tokenizer_config.json", "{\"chat_template\": \"{{ 1 + 1 }}\"}");
    expect_text("2");
    put_file("chat_template.jinja", "first\n");
    expect_text("first");
    put_file("chat_template.jinja", "\n{{ 1 + }}");
    expect_failure(GDN_E_FORMAT, "chat_template.jinja line 2");
    unlink(in_dir("chat_template.jinja"));
    put_file("tokenizer_config.json", "{\"chat_template\": 5}");
    expect_failure(GDN_E_FORMAT, "not a string");
    put_file("tokenizer_config.json", "{");
    expect_failure(GDN_E_FORMAT, "tokenizer_config.json");
}

static void test_one_template_many_times(void **state) {
    (void)state;
    const char   *source = "{% set ns = namespace(n=n) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}";
    gdn_err       err = {0};
    gdn_template *t = NULL;
    assert_int_equal(gdn_template_parse(source, strlen(source), "t", &t, &err), GDN_OK);
    for (int i = 0; i < 3; i++) {
        char  *out = NULL;
        size_t n;
        assert_int_equal(gdn_template_render(t, "{\"n\": 1}", 8, &out, &n, &err), GDN_OK);
        assert_string_equal(out, "2");
        free(out);
        assert_int_equal(gdn_template_render(t, "{\"n\": \"x\"}", 10, &out, &n, &err), GDN_E_FORMAT);
    }
    gdn_template_close(t);
    gdn_template_close(NULL);
}

/* --- JSON ---------------------------------------------------------------------------------------- */

static void expect_dump(const char *json, const gdn_json_style *style, const char *want) {
    json_t *v = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    char   *out = NULL;
    size_t  n = 0;
    assert_non_null(v);
    assert_int_equal(gdn_json_dump(v, style, &out, &n), GDN_OK);
    assert_string_equal(out, want);
    assert_int_equal(n, strlen(want));
    free(out);
    json_decref(v);
}

/* Expected texts: json.dumps of Python 3. */
static void test_json_dump(void **state) {
    (void)state;
    const gdn_json_style ascii = {.ascii = true}, sorted = {.sort = true};
    const gdn_json_style indented = {.indent = "  ", .n_indent = 2};
    const gdn_json_style tight = {.item = ",", .n_item = 1, .colon = ":", .n_colon = 1};
    expect_dump("{\"b\":[1,2.50,1e22,null,true,false],\"a\":{}}", NULL,
                "{\"b\": [1, 2.5, 1e+22, null, true, false], \"a\": {}}");
    expect_dump("{\"b\":1,\"a\":[]}", &sorted, "{\"a\": [], \"b\": 1}");
    expect_dump("{\"b\":1,\"a\":[1,{}]}", &indented, "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    {}\n  ]\n}");
    expect_dump("{\"b\":1,\"a\":[1,2]}", &tight, "{\"b\":1,\"a\":[1,2]}");
    expect_dump("\"\\u00e9\\ud83d\\ude42\\u007f\\n\\u0001\\\"\\\\/\"", &ascii,
                "\"\\u00e9\\ud83d\\ude42\\u007f\\n\\u0001\\\"\\\\/\"");
    expect_dump("\"\\u00e9\\u0000\\t\\b\\f\\r\"", NULL, "\"\xc3\xa9\\u0000\\t\\b\\f\\r\"");
    expect_dump("-9223372036854775808", NULL, "-9223372036854775808");
    char  *out;
    size_t n;
    assert_int_equal(gdn_json_dump(NULL, NULL, &out, &n), GDN_E_INVALID);
}

/* Expected texts: repr() of Python 3. */
static void test_repr(void **state) {
    (void)state;
    static const struct {
        double      f;
        const char *want;
    } c[] = {
        {0.1, "0.1"}, {1, "1.0"}, {-0.0, "-0.0"}, {1e16, "1e+16"}, {1e15, "1000000000000000.0"},
        {9007199254740993.0, "9007199254740992.0"}, {5e-324, "5e-324"}, {0.0001, "0.0001"},
        {0.00001, "1e-05"}, {1.7976931348623157e308, "1.7976931348623157e+308"}, {1.0 / 3, "0.3333333333333333"},
        {2.0 / 3, "0.6666666666666666"}, {0x1p-44, "5.684341886080802e-14"}, {1e23, "1e+23"},
        {123456789012345680.0, "1.2345678901234568e+17"}, {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {9.5, "9.5"}, {1e100, "1e+100"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char   buf[GDN_JSON_DOUBLE_MAX];
        double back = 0;
        gdn_json_repr(c[i].f, buf);
        assert_string_equal(buf, c[i].want);
        assert_true(gdn_json_parse_double(buf, strlen(buf), &back));
        assert_true(back == c[i].f);
    }
    double f;
    assert_true(gdn_json_parse_double("-1_0.5e-1", 9, &f) && f == -1.05);
    assert_false(gdn_json_parse_double("1e", 2, &f) || gdn_json_parse_double(".", 1, &f) ||
                 gdn_json_parse_double("", 0, &f) || gdn_json_parse_double("0x1", 3, &f));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo_prompts),
        cmocka_unit_test_setup_teardown(test_open, make_dir, remove_dir),
        cmocka_unit_test(test_one_template_many_times),
        cmocka_unit_test(test_json_dump),
        cmocka_unit_test(test_repr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
