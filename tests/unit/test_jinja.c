/* test_jinja.c - the template interpreter against vectors that Jinja2 made
 * (tests/oracle/make_jinja_vectors.py), and its limits against hostile templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitized.h"

#include <cmocka.h>
#include <jansson.h>

#include <gdn/text.h>

static json_t *load(const char *path) {
    json_error_t je;
    json_t      *j = json_load_file(path, JSON_ALLOW_NUL, &je);
    if (j == NULL) fail_msg("%s line %d: %s", path, je.line, je.text);
    return j;
}

static char *read_text(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    p[*n] = '\0';
    fclose(f);
    return p;
}

/* Parse and render in one; *out is NULL unless both went well. */
static gdn_status render(const char *source, size_t n, const char *json, char **out, size_t *n_out,
                         gdn_err *err) {
    gdn_template *t = NULL;
    *out = NULL;
    gdn_status st = gdn_template_parse(source, n, "test", &t, err);
    if (st == GDN_OK) st = gdn_template_render(t, json, strlen(json), out, n_out, err);
    gdn_template_close(t);
    return st;
}

/* 0 when the case comes out as it should. */
static int run_case(const json_t *c, const char *source, size_t n, const json_t *context) {
    const char   *name = json_string_value(json_object_get(c, "name"));
    const json_t *want = json_object_get(c, "expected");
    char         *json = json_dumps(context, 0), *out;
    size_t        n_out = 0;
    gdn_err       err = {0};
    int           bad = 0;
    assert_non_null(json);
    const gdn_status st = render(source, n, json, &out, &n_out, &err);
    if (want == NULL) {
        bad = st == GDN_OK || err.text[0] == '\0';
        if (bad) print_message("%s: should fail, gave '%.200s'\n", name, out != NULL ? out : "");
    } else if (st != GDN_OK) {
        bad = 1;
        print_message("%s: %s\n", name, err.text);
    } else {
        bad = n_out != json_string_length(want) || memcmp(out, json_string_value(want), n_out) != 0;
        if (bad)
            print_message("%s: %.100s\n  want '%.300s'\n  got  '%.300s'\n", name, n < 200 ? source : "",
                          json_string_value(want), out);
    }
    free(out);
    free(json);
    return bad;
}

static void run_file(const char *path, size_t at_least) {
    json_t       *root = load(path);
    const json_t *cases = json_object_get(root, "cases"), *shared = json_object_get(root, "context");
    const char   *file = json_string_value(json_object_get(root, "template_file"));
    size_t        n = 0, bad = 0;
    char         *text = file != NULL ? read_text(file, &n) : NULL;
    assert_true(json_array_size(cases) >= at_least);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *own = json_object_get(c, "context");
        const json_t *t = json_object_get(c, "template");
        const char   *source = text != NULL ? text : json_string_value(t);
        bad += (size_t)run_case(c, source, text != NULL ? n : json_string_length(t),
                                own != NULL ? own : shared);
    }
    free(text);
    json_decref(root);
    if (bad > 0) fail_msg("%s: %zu cases differ", path, bad);
}

static void test_constructs(void **state) {
    (void)state;
    run_file("tests/golden/jinja/constructs.json", 900);
}

static void test_demo_template(void **state) {
    (void)state;
    run_file("tests/golden/jinja/jargon.json", 60);
}

static void test_qwen_template(void **state) {
    (void)state;
    run_file("tests/golden/jinja/qwen.json", 100);
}

/* --- limits ------------------------------------------------------------------------------------ */

static gdn_status status_of(const char *source, gdn_err *err) {
    char      *out;
    size_t     n = 0;
    gdn_status st = render(source, strlen(source), "{\"l\": [1, 2, 3]}", &out, &n, err);
    free(out);
    return st;
}

static void test_runaway(void **state) {
    (void)state;
    static const char *const full[] = {
        "{{ 'a' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ range(100001) }}",
        "{% set s = namespace(x='abcdefgh') %}{% for i in range(99) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set r = range(100000) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'a' * 100000 }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% set n = namespace(x=[]) %}{% for i in range(5000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[]) %}{% for i in range(5000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x|tojson }}",
        "{% set n = namespace() %}{% set n.me = n %}{{ n }}",
        ("{% set n = namespace(x=[], y=[]) %}{% for i in range(5000) %}{% set n.x = [n.x] %}{% set n.y = [n.y] %}"
         "{% endfor %}{{ n.x == n.y }}"),
        "{{ '%1000000d' % 1 }}",
        "{{ '{:>1000000}'.format(1) }}",
        "{{ 'a'.center(10000000000) }}",
        "{{ [1]|batch(1000000000, 0)|list }}",
        "{{ [1]|slice(1000000000)|list }}",
        "{{ {}|tojson(indent=100000) }}",
        "{{ ('a' * 30000000).replace('', 'bbbbbbbbbb') }}",
    };
    for (size_t i = 0; i < sizeof full / sizeof *full; i += SANITIZED ? 3 : 1) {
        gdn_err          err = {0};
        const gdn_status st = status_of(full[i], &err);
        if (st != GDN_E_FULL) fail_msg("'%s' gave %d: %s", full[i], (int)st, err.text);
    }
}

static void test_overflow(void **state) {
    (void)state;
    static const char *const format[] = {
        "{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}", "{{ 9223372036854775807 * 2 }}",
        "{{ 2 ** 63 }}", "{{ 9223372036854775808 }}", "{{ -(-9223372036854775807 - 1) }}",
        "{{ (-9223372036854775807 - 1) // -1 }}", "{{ (-9223372036854775807 - 1)|abs }}",
        "{{ '9223372036854775808'|int }}", "{{ 1e30|int }}",
    };
    for (size_t i = 0; i < sizeof format / sizeof *format; i++) {
        gdn_err          err = {0};
        const gdn_status st = status_of(format[i], &err);
        if (st != GDN_E_FORMAT) fail_msg("'%s' gave %d: %s", format[i], (int)st, err.text);
    }
    gdn_err err = {0};
    assert_int_equal(status_of("{{ (-9223372036854775807 - 1) % -1 }}", &err), GDN_OK);
}

static char *put(char *q, const char *text) {
    const size_t n = strlen(text);
    memcpy(q, text, n + 1);
    return q + n;
}

/* n times the text a, then mid, then n times b. */
static char *repeat(const char *a, const char *mid, const char *b, size_t n) {
    char *p = malloc(n * (strlen(a) + strlen(b)) + strlen(mid) + 1), *q = p;
    if (p == NULL) abort();
    for (size_t i = 0; i < n; i++) q = put(q, a);
    q = put(q, mid);
    for (size_t i = 0; i < n; i++) q = put(q, b);
    return p;
}

static void test_deep_source(void **state) {
    (void)state;
    static const char *const parts[][3] = {
        {"(", "1", ")"},     {"[", "", "]"},     {"not ", "1", ""},          {"- ", "1", ""},
        {"{'a':", "1", "}"}, {"1 + ", "1", ""},  {"1 if 1 else ", "1", ""},  {"", "a", "|trim"},
        {"", "a", ".b"},     {"", "a", "[0]"},   {"", "a", "()"},            {"f(", "", ")"},
        {"", "a", " and 1"}, {"", "a", " is not odd"}, {"[", "", ""},        {"a[", "1", "]"},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        gdn_err err = {0};
        char   *expr = repeat(parts[i][0], parts[i][1], parts[i][2], 20000);
        char   *source = repeat("{{ ", expr, " }}", 1);
        assert_int_not_equal(status_of(source, &err), GDN_OK);
        free(source);
        free(expr);
    }
    char   *ifs = repeat("{% if 1 %}", "x", "{% endif %}", 20000);
    gdn_err err = {0};
    assert_int_not_equal(status_of(ifs, &err), GDN_OK);
    free(ifs);
    char *few = repeat("{% if 1 %}", "x", "{% endif %}", 30);
    assert_int_equal(status_of(few, &err), GDN_OK);
    free(few);
}

static void test_deep_json(void **state) {
    (void)state;
    char   *deep = repeat("[", "1", "]", 1500), *json = repeat("{\"x\": ", deep, "}", 1), *out;
    size_t  n = 0;
    gdn_err err = {0};
    assert_int_not_equal(render("{{ x|tojson }}", 14, json, &out, &n, &err), GDN_OK);
    free(json);
    free(deep);
}

/* Appending to a string again and again must stay linear in memory. */
static void test_long_append(void **state) {
    (void)state;
    const char *source = "{% set n = namespace(s='') %}{% set w = 'x' * 1000 %}"
                         "{% for i in range(20000) %}{% set n.s = n.s ~ w %}{% endfor %}{{ n.s|length }}";
    char       *out;
    size_t      n = 0;
    gdn_err     err = {0};
    assert_int_equal(render(source, strlen(source), "{}", &out, &n, &err), GDN_OK);
    assert_string_equal(out, "20000000");
    free(out);
}

static void test_messages(void **state) {
    (void)state;
    static const struct {
        const char *source, *part;
    } c[] = {
        {"a\n\n{{ s|nofilter }}", "test line 3: no filter named 'nofilter'"},
        {"{{ 1 is notest }}", "no test named 'notest'"},
        {"\n{{ ''.nope() }}", "line 2: 'str object' has no attribute 'nope'"},
        {"{% foo %}", "unknown tag 'foo'"},
        {"{{ l.append(4) }}", "unsafe"},
        {"{{ x.y }}", "'x' is undefined"},
        {"{{ raise_exception('in the template\\'s words') }}", "in the template's words"},
        {"{% if 1 %}\n\n", "end of template"},
        {"{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}", "steps"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        gdn_err err = {0};
        assert_int_not_equal(status_of(c[i].source, &err), GDN_OK);
        if (strstr(err.text, c[i].part) == NULL) fail_msg("'%s' gave '%s'", c[i].source, err.text);
    }
}

static void test_statuses(void **state) {
    (void)state;
    gdn_err err = {0};
    char   *out;
    size_t  n;
    assert_int_equal(status_of("{{ raise_exception('x') }}", &err), GDN_E_INVALID);
    assert_string_equal(err.text, "x");
    assert_int_equal(status_of("{{ x.y }}", &err), GDN_E_FORMAT);
    assert_int_equal(status_of("{{", &err), GDN_E_FORMAT);
    assert_int_equal(status_of("\xff", &err), GDN_E_FORMAT);
    assert_int_equal(render("x", 1, "[1]", &out, &n, &err), GDN_E_INVALID);
    assert_int_equal(render("x", 1, "{", &out, &n, &err), GDN_E_INVALID);
    assert_int_equal(render("", 0, "{}", &out, &n, &err), GDN_OK);
    assert_int_equal(n, 0);
    assert_string_equal(out, "");
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constructs),  cmocka_unit_test(test_demo_template),
        cmocka_unit_test(test_qwen_template), cmocka_unit_test(test_runaway),
        cmocka_unit_test(test_overflow),    cmocka_unit_test(test_deep_source),
        cmocka_unit_test(test_deep_json),   cmocka_unit_test(test_long_append),
        cmocka_unit_test(test_messages),    cmocka_unit_test(test_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
