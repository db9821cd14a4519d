/* test_tokenizer_bad.c - tokenizer files that must be refused, each with its reason.
 *
 * Every case is a sound file in which one thing was replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOUND "tests/golden/tokenizer/small-pairs.tokenizer.json"

static char  *sound;
static size_t n_sound;

static int load_sound(void **state) {
    (void)state;
    FILE *f = fopen(SOUND, "rb");
    if (f == NULL) return -1;
    sound = calloc(1, 1 << 16);
    n_sound = fread(sound, 1, (1 << 16) - 1, f);
    fclose(f);
    return 0;
}

static int free_sound(void **state) {
    (void)state;
    free(sound);
    return 0;
}

/* Parse the sound file with the first from replaced by to. */
static gdn_status parse_edited(const char *from, const char *to, gdn_tokenizer **t, gdn_err *err) {
    const char *at = strstr(sound, from);
    if (at == NULL) fail_msg("%s is not in %s", from, SOUND);
    const size_t n_from = strlen(from), n_to = strlen(to), before = (size_t)(at - sound);
    char        *json = malloc(n_sound + n_to + 1);
    memcpy(json, sound, before);
    memcpy(json + before, to, n_to);
    memcpy(json + before + n_to, at + n_from, n_sound - before - n_from);
    *err = (gdn_err){0};
    *t = NULL;
    const gdn_status st = gdn_tokenizer_parse(json, n_sound - n_from + n_to, "F", t, err);
    free(json);
    return st;
}

static const struct {
    const char *from, *to;
    gdn_status  code;
    const char *says;
} refused[] = {
    /* model */
    {"\"type\":\"BPE\"", "\"type\":\"WordPiece\"", GDN_E_UNSUPPORTED, "F: model.type \"WordPiece\""},
    {"\"type\":\"BPE\"", "\"type\":7", GDN_E_FORMAT, "model.type is a number, not a string"},
    {"\"type\":\"BPE\",", "", GDN_E_FORMAT, "model.type is missing"},
    {"\"dropout\":null", "\"dropout\":0.1", GDN_E_UNSUPPORTED, "model.dropout is a number"},
    {"\"unk_token\":null", "\"unk_token\":\"<unk>\"", GDN_E_UNSUPPORTED, "model.unk_token is a string"},
    {"\"byte_fallback\":false", "\"byte_fallback\":true", GDN_E_UNSUPPORTED, "model.byte_fallback true"},
    {"\"continuing_subword_prefix\":\"\"", "\"continuing_subword_prefix\":\"##\"", GDN_E_UNSUPPORTED,
     "model.continuing_subword_prefix"},
    {"\"end_of_word_suffix\":\"\"", "\"end_of_word_suffix\":\"_\"", GDN_E_UNSUPPORTED, "model.end_of_word_suffix"},
    {"\"ignore_merges\":false", "\"ignore_merges\":0", GDN_E_FORMAT, "model.ignore_merges is a number"},
    /* vocabulary */
    {"\"vocab\":", "\"words\":", GDN_E_FORMAT, "model.vocab is missing"},
    {"\"vocab\":{", "\"vocab\":[],\"x\":{", GDN_E_FORMAT, "model.vocab: expected an object"},
    {"\"vocab\":{", "\"vocab\":{},\"vocab\":{", GDN_E_FORMAT, "\"vocab\" twice"},
    {"\"b\":98", "\"b\":97", GDN_E_FORMAT, "model.vocab: id 97 of \"b\" is taken"},
    {"\"b\":98", "\"b\":-98", GDN_E_FORMAT, "model.vocab: expected a whole number at byte"},
    {"\"b\":98", "\"b\":98.5", GDN_E_FORMAT, "model.vocab: expected a whole number"},
    {"\"b\":98", "\"b\":1048576", GDN_E_FORMAT, "id 1048576 of \"b\" is more than 1048575"},
    {"\"b\":98", "\"b\":99999999999999999999999", GDN_E_FORMAT, "model.vocab: expected a whole number"},
    {"\"b\":98", "\"b\":\"98\"", GDN_E_FORMAT, "model.vocab: expected a whole number"},
    {"\"b\":98", "\"bb\":98", GDN_E_FORMAT, "model.vocab: no token for byte 0x62"},
    {"\"b\":98", "\"b\":98,\"b\":5000", GDN_E_FORMAT, "model.vocab: ids 98 and 5000 have the same text"},
    {"\"b\":98", "\"\\u0000\":98", GDN_E_FORMAT, "model.vocab: a bad \\u escape"},
    {"\"b\":98", "\"\xff\":98", GDN_E_FORMAT, "model.vocab: a string that is not UTF-8"},
    {"\"b\":98", "\"b\":98 \"x\":400", GDN_E_FORMAT, "model.vocab: expected ,"},
    /* merges */
    {"\"merges\":", "\"joins\":", GDN_E_FORMAT, "model.merges is missing"},
    {"\"merges\":[[", "\"merges\":[[\"zz\",\"y\"],[", GDN_E_FORMAT, "model.merges[0]: \"zz\" is no byte-level token"},
    {"\"merges\":[[", "\"merges\":[[\"y\",\"\xe6\xbc\xa2\"],[", GDN_E_FORMAT, "model.merges[0]: \"\xe6\xbc\xa2\" is no"},
    {"\"merges\":[[", "\"merges\":[[\"y\",\"z\"],[", GDN_E_FORMAT, "model.merges[0]: \"y\" and \"z\" make a token"},
    {"\"merges\":[[", "\"merges\":[[\"l\",\"l\"],[", GDN_E_FORMAT, "model.merges[1] repeats model.merges[0]"},
    {"\"merges\":[[", "\"merges\":[7,[", GDN_E_FORMAT, "model.merges[0]: expected a string"},
    {"\"merges\":[[", "\"merges\":[\"ll\",[", GDN_E_FORMAT, "model.merges[0]: a merge without a space"},
    {"\"merges\":[[", "\"merges\":[[\"l\",\"l\",\"l\"],[", GDN_E_FORMAT, "model.merges[0]: expected ]"},
    {"\"merges\":[[", "\"merges\":[[\"l\"],[", GDN_E_FORMAT, "model.merges[0]: expected ,"},
    {"\"merges\":[", "\"merges\":null,\"x\":[", GDN_E_FORMAT, "model.merges[0]: expected an array"},
    /* stages */
    {"\"normalizer\":{\"type\":\"NFC\"}", "\"normalizer\":{\"type\":\"NFKC\"}", GDN_E_UNSUPPORTED,
     "normalizer.type \"NFKC\""},
    {"\"normalizer\":{\"type\":\"NFC\"}", "\"normalizer\":\"NFC\"", GDN_E_FORMAT, "normalizer is a string"},
    {"\"normalizer\":{\"type\":\"NFC\"}", "\"normalizer\":{\"type\":\"Sequence\"}", GDN_E_FORMAT,
     "normalizer.normalizers is missing"},
    {"\"pre_tokenizer\":{\"type\":\"Sequence\"", "\"pre_tokenizer\":{\"type\":\"Metaspace\"", GDN_E_UNSUPPORTED,
     "pre_tokenizer.type \"Metaspace\""},
    {"\"pre_tokenizer\":", "\"pre_tokenizer\":null,\"x\":", GDN_E_FORMAT, "pre_tokenizer is null"},
    {"\"pretokenizers\":[", "\"pretokenizers\":[],\"x\":[", GDN_E_UNSUPPORTED, "pre_tokenizer without ByteLevel"},
    {"\"pretokenizers\":[", "\"pretokenizers\":[{\"type\":\"Digits\"},", GDN_E_UNSUPPORTED, "type \"Digits\""},
    {"\"Isolated\"", "\"Removed\"", GDN_E_UNSUPPORTED, "Split.behavior \"Removed\""},
    {"\"invert\":false", "\"invert\":true", GDN_E_UNSUPPORTED, "Split.invert true"},
    {"\"invert\":false", "\"invert\":\"no\"", GDN_E_FORMAT, "Split.invert is a string, not a boolean"},
    {"\"Regex\":", "\"String\":", GDN_E_UNSUPPORTED, "Split.pattern.String"},
    {"\"Regex\":", "\"regex\":", GDN_E_FORMAT, "Split.pattern.Regex is missing"},
    {"\"add_prefix_space\":false", "\"add_prefix_space\":true", GDN_E_UNSUPPORTED, "add_prefix_space true"},
    {"\"add_prefix_space\":false,", "", GDN_E_FORMAT, "add_prefix_space is missing"},
    {"\"post_processor\":{\"type\":\"ByteLevel\"", "\"post_processor\":{\"type\":\"RobertaProcessing\"",
     GDN_E_UNSUPPORTED, "post_processor.type \"RobertaProcessing\""},
    {"\"post_processor\":{", "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
     "{\"id\":\"<a>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]},\"x\":{",
     GDN_E_UNSUPPORTED, "post_processor.single adds tokens"},
    {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"WordPiece\"", GDN_E_UNSUPPORTED,
     "decoder.type \"WordPiece\""},
    {"\"decoder\":", "\"x\":", GDN_E_FORMAT, "decoder is missing"},
    /* added tokens */
    {"\"added_tokens\":[", "\"added_tokens\":7,\"x\":[", GDN_E_FORMAT, "added_tokens is a number"},
    {"\"added_tokens\":[{", "\"added_tokens\":[null,{", GDN_E_FORMAT, "added_tokens[0] is null"},
    {"\"content\":\"<a>\"", "\"content\":\"\"", GDN_E_FORMAT, "added_tokens[0].content has 0 bytes"},
    {"\"content\":\"<a>\"", "\"content\":\"<a><b>\"", GDN_E_FORMAT, "added_tokens: \"<a><b>\" stands there twice"},
    {"\"content\":\"<a>\"", "\"content\":\"b\"", GDN_E_FORMAT, "added_tokens: \"b\" has id 273, and 98"},
    {"\"content\":\"<a>\"", "\"text\":\"<a>\"", GDN_E_FORMAT, "added_tokens[0].content is missing"},
    {"{\"id\":273", "{\"id\":98", GDN_E_FORMAT, "added_tokens: id 98 of \"<a>\" is another token"},
    {"{\"id\":273", "{\"id\":274", GDN_E_FORMAT, "added_tokens: id 274 is given to \"<a>\" and \"<a><b>\""},
    {"{\"id\":273", "{\"id\":-1", GDN_E_FORMAT, "added_tokens[0].id -1 is not in 0..1048575"},
    {"{\"id\":273", "{\"id\":1048576", GDN_E_FORMAT, "added_tokens[0].id 1048576"},
    {"{\"id\":273", "{\"id\":273.0", GDN_E_FORMAT, "added_tokens[0].id is a number, not a whole number"},
    {"\"single_word\":false", "\"single_word\":true", GDN_E_UNSUPPORTED, "added_tokens[0].single_word true"},
    {"\"lstrip\":false", "\"lstrip\":true", GDN_E_UNSUPPORTED, "added_tokens[0].lstrip true"},
    {"\"rstrip\":false", "\"rstrip\":true", GDN_E_UNSUPPORTED, "added_tokens[0].rstrip true"},
    {"\"rstrip\":false", "\"rstrip\":1", GDN_E_FORMAT, "added_tokens[0].rstrip is a number, not a boolean"},
    {"\"special\":true", "\"shown\":true", GDN_E_FORMAT, "added_tokens[0].special is missing"},
    /* the file */
    {"{\"version\"", "[\"version\"", GDN_E_FORMAT, "not valid JSON"},
    {"\"model\":{", "\"model\":{},\"model\":{", GDN_E_FORMAT, "not valid JSON"},
    {"\"model\":{", "\"modell\":{", GDN_E_FORMAT, "model is missing"},
    {"\"version\":\"1.0\"", "\"version\":oops", GDN_E_FORMAT, "not valid JSON"},
    {"\"version\":\"1.0\"", "\"version\":\"1.0\",,", GDN_E_FORMAT, "not valid JSON"},
};

static void refusals(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        gdn_tokenizer   *t = NULL;
        gdn_err          err;
        const gdn_status st = parse_edited(refused[i].from, refused[i].to, &t, &err);
        if (st != refused[i].code || t != NULL || strstr(err.text, refused[i].says) == NULL ||
            strncmp(err.text, "F: ", 3) != 0) {
            print_error("%s: code %d, \"%s\"\n", refused[i].to, st, err.text);
            wrong++;
        }
        gdn_tokenizer_close(t);
    }
    assert_int_equal(wrong, 0);
}

/* Changes that make no difference, or a harmless one. */
static void accepted(void **state) {
    (void)state;
    static const char *const edit[][2] = {
        {"\"normalizer\":{\"type\":\"NFC\"}", "\"normalizer\":null"},
        {"\"dropout\":null", "\"dropout\":0.0"},
        {"\"decoder\":", "\"x\":{\"model\":{\"vocab\":3}},\"decoder\":"},
        {"\"b\":98", "\"b\" : 98 \r\n"},
        {"\"b\":98", "\"\\u0062\":98"},
        {"\"b\":98", "\"b\":98,\"\xe6\xbc\xa2\":400"}, /* outside the byte alphabet */
        {"\"b\":98", "\"b\":98,\"\":401"},
        {"\"merges\":[[\"l\",\"l\"]", "\"merges\":[\"l l\""},
        {"\"content\":\"<a>\"", "\"content\":\"\\ud83d\\ude00\""},
        {"{\"id\":273", "{\"id\":1048575"},
    };
    for (size_t i = 0; i < sizeof edit / sizeof *edit; i++) {
        gdn_tokenizer *t = NULL;
        gdn_err        err;
        if (parse_edited(edit[i][0], edit[i][1], &t, &err) != GDN_OK) fail_msg("%s: %s", edit[i][1], err.text);
        gdn_tokenizer_close(t);
    }
}

/* Escapes in keys are read as JSON has them. */
static void escaped_keys(void **state) {
    (void)state;
    gdn_tokenizer *t = NULL;
    gdn_err        err;
    size_t         n = 0;
    assert_int_equal(parse_edited("\"b\":98", "\"b\":98,\"\\ud83d\\ude00\\/\\u6f22\\t\":400", &t, &err), GDN_OK);
    const char *s = gdn_token_bytes(t, 400, &n);
    assert_int_equal(n, 9);
    assert_memory_equal(s, "\xf0\x9f\x98\x80/\xe6\xbc\xa2\t", 9);
    assert_int_equal(gdn_tokenizer_size(t), 401);
    gdn_tokenizer_close(t);
}

/* Patterns that PCRE2 does not know, or reads as something else than Oniguruma does. */
static void patterns_refused(void **state) {
    (void)state;
    static const char *const pattern[][2] = {
        {"(", "the pattern is not valid"},
        {"[z-a]", "the pattern is not valid"},
        {"[a[bc]]", "has a set within a set"},
        {"[a&&b]", "&& within a set"},
        {"[]a]", "] as the first of a set"},
        {"\\\\h", "an escape other than"},
        {"(a)\\\\1", "a back reference"},
        {"[\\\\S]", "\\S within a set"},
        {"[\\\\P{L}]", "\\P{..} within a set"},
        {"[\\\\p{^L}]", "\\P{..} within a set"},
        {"\\\\pL", "\\p without {}"},
        {"\\\\p{L", "\\p{ without }"},
        {"\\\\p{Nonsense}", "the pattern is not valid"},
        {"\\\\x41", "\\x without {}"},
        {"a{1,2}+", "has {..}+"},
        {"a{,2}", "has {,n}"},
        {"(?m:a)", "a group other than"},
        {"(?<n>a)", "a group other than"},
        {"(*FAIL)", "a group that begins with (*"},
        {"a\\\\", "ends in a backslash"},
    };
    for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
        gdn_tokenizer *t = NULL;
        gdn_err        err;
        char           to[100];
        snprintf(to, sizeof to, "\"Regex\":\"%s\",\"x\":\"", pattern[i][0]);
        const gdn_status st = parse_edited("\"Regex\":\"", to, &t, &err);
        if (st == GDN_OK || strstr(err.text, pattern[i][1]) == NULL ||
            strncmp(err.text, "F: pre_tokenizer pattern 0: ", 28) != 0)
            fail_msg("%s: code %d, \"%s\"", pattern[i][0], st, err.text);
    }
}

/* A pattern that tries every way to cut a word ends in an error, soon. */
static void pattern_without_end(void **state) {
    (void)state;
    gdn_tokenizer *t = NULL;
    gdn_err        err;
    int32_t       *ids = NULL;
    size_t         n = 0;
    char           text[200];
    memset(text, 'a', sizeof text);
    assert_int_equal(parse_edited("\"Regex\":\"", "\"Regex\":\"(?:a+)+[bc]\",\"x\":\"", &t, &err), GDN_OK);
    assert_int_equal(gdn_tokenize(t, text, sizeof text, true, &ids, &n, &err), GDN_E_FULL);
    assert_non_null(strstr(err.text, "pattern 0 gives up"));
    assert_null(ids);
    assert_int_equal(n, 0);
    assert_int_equal(gdn_tokenize(t, text, 10, true, &ids, &n, &err), GDN_OK); /* it can be used on */
    free(ids);
    gdn_tokenizer_close(t);
}

/* No start of the file is a file. */
static void cut_short(void **state) {
    (void)state;
    for (size_t n = 0; n + 2 < n_sound; n += n < 700 ? 1 : 13) {
        gdn_tokenizer *t = NULL;
        gdn_err        err = {0};
        char          *json = malloc(n + 1);
        memcpy(json, sound, n);
        assert_int_equal(gdn_tokenizer_parse(json, n, "F", &t, &err), GDN_E_FORMAT);
        assert_int_equal(strncmp(err.text, "F: ", 3), 0);
        free(json);
    }
}

static void deep_nesting(void **state) {
    (void)state;
    char *to = malloc(3000000);
    char *p = to + sprintf(to, "\"normalizer\":");
    for (int i = 0; i < 100000; i++) p += sprintf(p, "{\"type\":");
    *p = '\0';
    gdn_tokenizer *t = NULL;
    gdn_err        err;
    assert_int_equal(parse_edited("\"normalizer\":", to, &t, &err), GDN_E_FORMAT);
    p = to + sprintf(to, "\"normalizer\":");
    for (int i = 0; i < 20; i++) p += sprintf(p, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 20; i++) p += sprintf(p, "]}");
    sprintf(p, ",\"x\":");
    assert_int_equal(parse_edited("\"normalizer\":", to, &t, &err), GDN_E_UNSUPPORTED);
    free(to);
}

static void missing_file(void **state) {
    (void)state;
    gdn_tokenizer *t = NULL;
    gdn_err        err = {0};
    assert_int_equal(gdn_tokenizer_open("tests/golden/nothing-here", &t, &err), GDN_E_IO);
    assert_string_equal(err.text, "tests/golden/nothing-here: No such file or directory");
    assert_int_equal(gdn_tokenizer_open("tests/unit", &t, &err), GDN_E_IO);
    assert_string_equal(err.text, "tests/unit/tokenizer.json: No such file or directory");
    assert_int_equal(gdn_tokenizer_open("tests/unit", &t, NULL), GDN_E_IO);
    assert_null(t);
    gdn_tokenizer_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),         cmocka_unit_test(accepted),
        cmocka_unit_test(patterns_refused), cmocka_unit_test(pattern_without_end),
        cmocka_unit_test(cut_short),        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(missing_file),     cmocka_unit_test(escaped_keys),
    };
    return cmocka_run_group_tests(tests, load_sound, free_sound);
}
