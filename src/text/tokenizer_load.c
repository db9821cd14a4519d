/* tokenizer_load.c - reading tokenizer.json.
 *
 * The file describes a pipeline; this program has one pipeline, byte-level BPE, and
 * checks that the file describes it.  Whatever would give other ids is refused by name.
 * model.vocab and model.merges, nearly all of the file, are read straight from the text;
 * jansson reads the rest, with null in their places. */
#include "tokenizer.h"

#include "../base/err.h"
#include "jsonread.h"
#include "nfc.h"
#include "utf8.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MAX_FILE = 256 << 20,   /* the largest in use is 20 MB */
    MAX_ADDED_BYTES = 1024, /* longest text of an added token */
    MAX_NESTING = 8,        /* sequences within sequences */
    ALPHABET = 0x144,       /* code points that can stand for a byte */
};

typedef struct {
    const char    *name;
    gdn_err       *err;
    gdn_tokenizer *t;
    char          *json;
    size_t         n_json;
    gdn_text       vocab, merges; /* their text */
    json_t        *root;          /* the rest */
    int16_t        byte_of[ALPHABET];
    char          *word; /* [cap_word] one or two tokens as bytes */
    size_t         cap_word;
    int32_t        last_merged;
} loader;

GDN_PRINTF(3, 4) static gdn_status bad(loader *l, gdn_status code, const char *fmt, ...) {
    char    text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return gdn_fail(l->err, code, "%s: %s", l->name, text);
}

static gdn_status no_memory(loader *l) {
    return bad(l, GDN_E_NOMEM, "out of memory");
}

static gdn_status bad_json(loader *l, const gdn_scan *j, const char *where) {
    return bad(l, GDN_E_FORMAT, "%s: %s at byte %zu", where, j->why, (size_t)(j->at - l->json));
}

/* A string of the file as an argument of %.*s, not too long for a message. */
#define SHOW(text) ((text).n < 80 ? (int)(text).n : 80), (text).s

/* --- bytes as letters ------------------------------------------------------------- */

/* Byte-level tokens are written with one visible character a byte: printable Latin-1
 * stands for itself, the other 68 bytes in ascending order for U+0100 and on. */
static void make_alphabet(loader *l) {
    int16_t next = 0x100;
    memset(l->byte_of, 0xff, sizeof l->byte_of);
    for (int16_t b = 0; b < 256; b++) {
        const bool visible = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        l->byte_of[visible ? b : next++] = b;
    }
}

/* Write the bytes that text stands for to l->word + at.  *findable is false when it is
 * not in the alphabet: no input becomes such a token, and its text is what it says. */
static gdn_status to_bytes(loader *l, gdn_text text, size_t at, size_t *n, bool *findable) {
    if (at + text.n >= l->cap_word) {
        const size_t cap = 2 * (at + text.n) + 256;
        char        *p = realloc(l->word, cap);
        if (p == NULL) return no_memory(l);
        l->word = p;
        l->cap_word = cap;
    }
    size_t   k = at;
    uint32_t c = 0;
    *findable = text.n > 0;
    for (size_t i = 0; i < text.n;) {
        i += (size_t)gdn_utf8_get(text.s + i, text.n - i, &c);
        if (c >= ALPHABET || l->byte_of[c] < 0) {
            *findable = false;
            memcpy(l->word + at, text.s, text.n);
            k = at + text.n;
            break;
        }
        l->word[k++] = (char)l->byte_of[c];
    }
    *n = k - at;
    return GDN_OK;
}

/* --- model ------------------------------------------------------------------------- */

static gdn_status read_vocab(loader *l) {
    gdn_bpe   *b = &l->t->bpe;
    gdn_scan   j = {l->vocab.s, l->vocab.s + l->vocab.n, NULL};
    gdn_text   key = {0};
    gdn_status st = gdn_bpe_init(b, l->vocab.n);
    bool       first = true, findable = false;
    int64_t    id = 0;
    size_t     n = 0;
    if (st != GDN_OK) return no_memory(l);
    if (gdn_scan_need(&j, '{'))
        while (gdn_scan_key(&j, &first, &key) && gdn_scan_uint(&j, &id)) {
            if (id > GDN_MAX_ID)
                return bad(l, GDN_E_FORMAT, "model.vocab: id %lld of \"%.*s\" is more than %d",
                           (long long)id, SHOW(key), GDN_MAX_ID);
            st = to_bytes(l, key, 0, &n, &findable);
            if (st != GDN_OK) return st;
            st = gdn_bpe_add_token(b, (int32_t)id, l->word, n, findable);
            if (st == GDN_E_INVALID)
                return bad(l, GDN_E_FORMAT, "model.vocab: id %lld of \"%.*s\" is taken by another token",
                           (long long)id, SHOW(key));
            if (st != GDN_OK) return no_memory(l);
        }
    if (j.why != NULL) return bad_json(l, &j, "model.vocab");
    int32_t twins[2] = {0, 0};
    st = gdn_bpe_index_tokens(b, twins);
    if (st == GDN_E_INVALID)
        return bad(l, GDN_E_FORMAT, "model.vocab: ids %d and %d have the same text", twins[0], twins[1]);
    if (st != GDN_OK) return no_memory(l);
    const int byte = gdn_bpe_set_bytes(b);
    if (byte >= 0) return bad(l, GDN_E_FORMAT, "model.vocab: no token for byte 0x%02x", (unsigned)byte);
    return GDN_OK;
}

/* ["a", "b"] or, in older files, "a b". */
static bool read_pair(gdn_scan *j, gdn_text pair[2]) {
    if (gdn_scan_take(j, '['))
        return gdn_scan_string(j, &pair[0]) && gdn_scan_need(j, ',') && gdn_scan_string(j, &pair[1]) &&
               gdn_scan_need(j, ']');
    gdn_text both = {0};
    if (!gdn_scan_string(j, &both)) return false;
    char *space = memchr(both.s, ' ', both.n);
    if (space == NULL) {
        j->why = "a merge without a space between its two tokens";
        return false;
    }
    pair[0] = (gdn_text){both.s, (size_t)(space - both.s)};
    pair[1] = (gdn_text){space + 1, both.n - pair[0].n - 1};
    return true;
}

static gdn_status add_merge(loader *l, size_t i, const gdn_text pair[2]) {
    gdn_bpe *b = &l->t->bpe;
    int32_t  id[2] = {0};
    size_t   at = 0;
    for (int k = 0; k < 2; k++) {
        bool       findable = false;
        size_t     n = 0;
        gdn_status st = to_bytes(l, pair[k], at, &n, &findable);
        if (st != GDN_OK) return st;
        id[k] = findable ? gdn_bpe_find(b, l->word + at, n) : -1;
        if (id[k] < 0)
            return bad(l, GDN_E_FORMAT, "model.merges[%zu]: \"%.*s\" is no byte-level token of model.vocab",
                       i, SHOW(pair[k]));
        at += n;
    }
    /* Tokens are mostly numbered in the order of their merges: look at the next one first. */
    int32_t merged = l->last_merged + 1;
    if (!gdn_bpe_is(b, merged, l->word, at)) merged = gdn_bpe_find(b, l->word, at);
    l->last_merged = merged;
    if (merged < 0)
        return bad(l, GDN_E_FORMAT, "model.merges[%zu]: \"%.*s\" and \"%.*s\" make a token that is not in "
                   "model.vocab", i, SHOW(pair[0]), SHOW(pair[1]));
    return gdn_bpe_add_merge(b, id[0], id[1], merged) == GDN_OK ? GDN_OK : no_memory(l);
}

static gdn_status read_merges(loader *l) {
    gdn_scan j = {l->merges.s, l->merges.s + l->merges.n, NULL};
    gdn_text pair[2] = {{0}};
    size_t   i = 0;
    bool     first = true;
    if (gdn_scan_need(&j, '['))
        for (; gdn_scan_item(&j, &first) && read_pair(&j, pair); i++) {
            const gdn_status st = add_merge(l, i, pair);
            if (st != GDN_OK) return st;
        }
    if (j.why != NULL) {
        char where[48];
        snprintf(where, sizeof where, "model.merges[%zu]", i);
        return bad_json(l, &j, where);
    }
    uint32_t         twins[2] = {0, 0};
    const gdn_status st = gdn_bpe_index_merges(&l->t->bpe, twins);
    if (st == GDN_E_INVALID)
        return bad(l, GDN_E_FORMAT, "model.merges[%u] repeats model.merges[%u]", twins[1], twins[0]);
    return st == GDN_OK ? GDN_OK : no_memory(l);
}

/* --- fields ------------------------------------------------------------------------- */

static const char *type_name(const json_t *v) {
    if (v == NULL) return "missing";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_NULL: return "null";
    default: return "a boolean";
    }
}

static bool is_null(const json_t *v) {
    return v == NULL || json_is_null(v);
}

/* The string "type" of the object v, which the file calls where. */
static gdn_status get_type(loader *l, const json_t *v, const char *where, const char **type) {
    if (!json_is_object(v)) return bad(l, GDN_E_FORMAT, "%s is %s, not an object", where, type_name(v));
    const json_t *s = json_object_get(v, "type");
    if (!json_is_string(s)) return bad(l, GDN_E_FORMAT, "%s.type is %s, not a string", where, type_name(s));
    *type = json_string_value(s);
    return GDN_OK;
}

static gdn_status unsupported_type(loader *l, const char *where, const char *type) {
    return bad(l, GDN_E_UNSUPPORTED, "%s.type \"%.80s\" is not supported", where, type);
}

static gdn_status get_bool(loader *l, const json_t *v, const char *where, const char *key, bool *out) {
    const json_t *x = json_object_get(v, key);
    if (!json_is_boolean(x))
        return bad(l, GDN_E_FORMAT, "%s.%s is %s, not a boolean", where, key, type_name(x));
    *out = json_is_true(x);
    return GDN_OK;
}

/* The array v.key. */
static gdn_status get_array(loader *l, const json_t *v, const char *where, const char *key, json_t **out) {
    *out = json_object_get(v, key);
    if (json_is_array(*out)) return GDN_OK;
    return bad(l, GDN_E_FORMAT, "%s.%s is %s, not an array", where, key, type_name(*out));
}

static gdn_status read_model(loader *l) {
    const json_t *m = json_object_get(l->root, "model");
    const char   *type = NULL;
    gdn_status    st = get_type(l, m, "model", &type);
    if (st != GDN_OK) return st;
    if (strcmp(type, "BPE") != 0) return unsupported_type(l, "model", type);
    if (json_is_true(json_object_get(m, "byte_fallback")))
        return bad(l, GDN_E_UNSUPPORTED, "model.byte_fallback true is not supported");
    static const char *const none[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                       "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        const json_t *v = json_object_get(m, none[i]);
        const bool    empty = json_is_string(v) && json_string_length(v) == 0 && i >= 2;
        const bool    zero = json_is_number(v) && !(json_number_value(v) != 0) && i == 0;
        if (!is_null(v) && !empty && !zero)
            return bad(l, GDN_E_UNSUPPORTED, "model.%s is %s; only null is supported", none[i], type_name(v));
    }
    bool ignore = false;
    if (json_object_get(m, "ignore_merges") != NULL)
        st = get_bool(l, m, "model", "ignore_merges", &ignore);
    if (st != GDN_OK) return st;
    if (l->vocab.s == NULL) return bad(l, GDN_E_FORMAT, "model.vocab is missing");
    if (l->merges.s == NULL) return bad(l, GDN_E_FORMAT, "model.merges is missing");
    st = read_vocab(l);
    if (st == GDN_OK) st = read_merges(l);
    l->t->bpe.ignore_merges = ignore;
    return st;
}

/* --- the stages around the model ------------------------------------------------------ */

static gdn_status read_normalizer(loader *l, const json_t *v, int depth) {
    const char *type = NULL;
    if (is_null(v)) return GDN_OK;
    gdn_status st = get_type(l, v, "normalizer", &type);
    if (st != GDN_OK) return st;
    if (strcmp(type, "NFC") == 0) {
        l->t->nfc = true;
        return GDN_OK;
    }
    if (strcmp(type, "Sequence") != 0 || depth == MAX_NESTING)
        return unsupported_type(l, "normalizer", type);
    json_t *list = NULL;
    st = get_array(l, v, "normalizer", "normalizers", &list);
    for (size_t i = 0; st == GDN_OK && i < json_array_size(list); i++)
        st = read_normalizer(l, json_array_get(list, i), depth + 1);
    return st;
}

static gdn_status add_pattern(loader *l, const char *pattern, size_t n) {
    char where[200];
    snprintf(where, sizeof where, "%.150s: pre_tokenizer pattern %d", l->name, l->t->pretok.n);
    return gdn_pretok_add(&l->t->pretok, pattern, n, where, l->err);
}

static gdn_status read_split(loader *l, const json_t *v) {
    const json_t *pattern = json_object_get(json_object_get(v, "pattern"), "Regex");
    const json_t *behavior = json_object_get(v, "behavior");
    bool          invert = false;
    gdn_status    st = get_bool(l, v, "pre_tokenizer Split", "invert", &invert);
    if (st != GDN_OK) return st;
    if (invert) return bad(l, GDN_E_UNSUPPORTED, "pre_tokenizer Split.invert true is not supported");
    if (!json_is_string(behavior))
        return bad(l, GDN_E_FORMAT, "pre_tokenizer Split.behavior is %s, not a string", type_name(behavior));
    if (strcmp(json_string_value(behavior), "Isolated") != 0)
        return bad(l, GDN_E_UNSUPPORTED, "pre_tokenizer Split.behavior \"%.80s\" is not supported",
                   json_string_value(behavior));
    if (json_is_string(json_object_get(json_object_get(v, "pattern"), "String")))
        return bad(l, GDN_E_UNSUPPORTED, "pre_tokenizer Split.pattern.String is not supported");
    if (!json_is_string(pattern))
        return bad(l, GDN_E_FORMAT, "pre_tokenizer Split.pattern.Regex is %s, not a string",
                   type_name(pattern));
    return add_pattern(l, json_string_value(pattern), json_string_length(pattern));
}

static gdn_status read_byte_level(loader *l, const json_t *v) {
    /* The pattern of GPT-2, which use_regex stands for. */
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                               "\\s+(?!\\S)|\\s+";
    bool       prefix = false, regex = true;
    gdn_status st = get_bool(l, v, "pre_tokenizer ByteLevel", "add_prefix_space", &prefix);
    if (st == GDN_OK && json_object_get(v, "use_regex") != NULL)
        st = get_bool(l, v, "pre_tokenizer ByteLevel", "use_regex", &regex);
    if (st != GDN_OK) return st;
    if (prefix)
        return bad(l, GDN_E_UNSUPPORTED, "pre_tokenizer ByteLevel.add_prefix_space true is not supported");
    return regex ? add_pattern(l, gpt2, sizeof gpt2 - 1) : GDN_OK;
}

/* Any number of Split, then one ByteLevel.  *bytes: the ByteLevel has been seen. */
static gdn_status read_pre_tokenizer(loader *l, const json_t *v, int depth, bool *bytes) {
    const char *type = NULL;
    gdn_status  st = get_type(l, v, "pre_tokenizer", &type);
    if (st != GDN_OK) return st;
    if (*bytes)
        return bad(l, GDN_E_UNSUPPORTED, "pre_tokenizer.type \"%.80s\" after ByteLevel is not supported", type);
    if (strcmp(type, "Split") == 0) return read_split(l, v);
    if (strcmp(type, "ByteLevel") == 0) {
        *bytes = true;
        return read_byte_level(l, v);
    }
    if (strcmp(type, "Sequence") != 0 || depth == MAX_NESTING)
        return unsupported_type(l, "pre_tokenizer", type);
    json_t *list = NULL;
    st = get_array(l, v, "pre_tokenizer", "pretokenizers", &list);
    for (size_t i = 0; st == GDN_OK && i < json_array_size(list); i++)
        st = read_pre_tokenizer(l, json_array_get(list, i), depth + 1, bytes);
    return st;
}

/* Nothing may be added to the ids of a text.  ByteLevel changes offsets only. */
static gdn_status check_post_processor(loader *l, const json_t *v, int depth) {
    const char *type = NULL;
    json_t     *list = NULL;
    if (is_null(v)) return GDN_OK;
    gdn_status st = get_type(l, v, "post_processor", &type);
    if (st != GDN_OK || strcmp(type, "ByteLevel") == 0) return st;
    if (strcmp(type, "TemplateProcessing") == 0) {
        st = get_array(l, v, "post_processor", "single", &list);
        if (st != GDN_OK) return st;
        const json_t *only = json_object_get(json_array_get(list, 0), "Sequence");
        if (json_array_size(list) == 1 && json_is_object(only)) return GDN_OK;
        return bad(l, GDN_E_UNSUPPORTED, "post_processor.single adds tokens, which is not supported");
    }
    if (strcmp(type, "Sequence") != 0 || depth == MAX_NESTING)
        return unsupported_type(l, "post_processor", type);
    st = get_array(l, v, "post_processor", "processors", &list);
    for (size_t i = 0; st == GDN_OK && i < json_array_size(list); i++)
        st = check_post_processor(l, json_array_get(list, i), depth + 1);
    return st;
}

static gdn_status check_decoder(loader *l) {
    const char *type = NULL;
    gdn_status  st = get_type(l, json_object_get(l->root, "decoder"), "decoder", &type);
    if (st == GDN_OK && strcmp(type, "ByteLevel") != 0) return unsupported_type(l, "decoder", type);
    return st;
}

/* --- added tokens --------------------------------------------------------------------- */

/* An added token may repeat an entry of the vocabulary, and then entirely. */
static gdn_status check_against_vocab(loader *l, const gdn_added *a) {
    const gdn_bpe *b = &l->t->bpe;
    const gdn_text text = {a->text, a->len};
    bool           findable = false;
    size_t         n = 0;
    gdn_status     st = to_bytes(l, text, 0, &n, &findable);
    if (st != GDN_OK) return st;
    const int32_t other = findable ? gdn_bpe_find(b, l->word, n) : -1;
    if (other >= 0 && other != a->id)
        return bad(l, GDN_E_FORMAT, "added_tokens: \"%.*s\" has id %d, and %d in model.vocab", SHOW(text),
                   a->id, other);
    if (a->id >= b->n_id || b->token[a->id].at == GDN_NO_TEXT) return GDN_OK;
    const gdn_span t = b->token[a->id];
    if (t.findable != findable || t.len != n || memcmp(b->text + t.at, l->word, n) != 0)
        return bad(l, GDN_E_FORMAT, "added_tokens: id %d of \"%.*s\" is another token in model.vocab", a->id,
                   SHOW(text));
    return GDN_OK;
}

/* Make the text known to the splitter, in the form in which it will be met. */
static gdn_status plant(loader *l, const gdn_added *a) {
    gdn_tokenizer *t = l->t;
    char          *normal = NULL;
    size_t         n = a->len;
    gdn_status     st = GDN_OK;
    if (a->normalized && t->nfc) st = gdn_nfc(a->text, a->len, &normal, &n);
    if (st == GDN_OK)
        st = gdn_trie_add(a->normalized ? &t->normal : &t->raw, normal != NULL ? normal : a->text, n, a->id);
    free(normal);
    if (st == GDN_E_INVALID)
        return bad(l, GDN_E_FORMAT, "added_tokens: \"%.80s\" stands there twice", a->text);
    return st == GDN_OK ? GDN_OK : no_memory(l);
}

static gdn_status read_added_flags(loader *l, const json_t *v, const char *where, gdn_added *a) {
    static const char *const refused[] = {"single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        bool             on = false;
        const gdn_status st = get_bool(l, v, where, refused[i], &on);
        if (st != GDN_OK) return st;
        if (on) return bad(l, GDN_E_UNSUPPORTED, "%s.%s true is not supported", where, refused[i]);
    }
    const gdn_status st = get_bool(l, v, where, "normalized", &a->normalized);
    return st == GDN_OK ? get_bool(l, v, where, "special", &a->special) : st;
}

static gdn_status read_added_one(loader *l, const json_t *v, size_t i) {
    char where[48];
    snprintf(where, sizeof where, "added_tokens[%zu]", i);
    if (!json_is_object(v)) return bad(l, GDN_E_FORMAT, "%s is %s, not an object", where, type_name(v));
    const json_t *id = json_object_get(v, "id"), *content = json_object_get(v, "content");
    if (!json_is_integer(id)) return bad(l, GDN_E_FORMAT, "%s.id is %s, not a whole number", where, type_name(id));
    if (!json_is_string(content))
        return bad(l, GDN_E_FORMAT, "%s.content is %s, not a string", where, type_name(content));
    const json_int_t value = json_integer_value(id);
    if (value < 0 || value > GDN_MAX_ID)
        return bad(l, GDN_E_FORMAT, "%s.id %lld is not in 0..%d", where, (long long)value, GDN_MAX_ID);
    const size_t n = json_string_length(content);
    if (n == 0 || n > MAX_ADDED_BYTES)
        return bad(l, GDN_E_FORMAT, "%s.content has %zu bytes, not 1 to %d", where, n, MAX_ADDED_BYTES);
    gdn_added  a = {.id = (int32_t)value, .len = (uint32_t)n};
    gdn_status st = read_added_flags(l, v, where, &a);
    if (st != GDN_OK) return st;
    a.text = malloc(n + 1);
    if (a.text == NULL) return no_memory(l);
    memcpy(a.text, json_string_value(content), n + 1);
    l->t->added[l->t->n_added++] = a;
    return GDN_OK;
}

static int by_id(const void *x, const void *y) {
    const gdn_added *a = x, *b = y;
    return (a->id > b->id) - (a->id < b->id);
}

static gdn_status read_added(loader *l) {
    gdn_tokenizer *t = l->t;
    const json_t  *list = json_object_get(l->root, "added_tokens");
    if (is_null(list)) return GDN_OK;
    if (!json_is_array(list))
        return bad(l, GDN_E_FORMAT, "added_tokens is %s, not an array", type_name(list));
    t->added = calloc(json_array_size(list) + 1, sizeof *t->added);
    if (t->added == NULL) return no_memory(l);
    gdn_status st = GDN_OK;
    for (size_t i = 0; st == GDN_OK && i < json_array_size(list); i++)
        st = read_added_one(l, json_array_get(list, i), i);
    if (st != GDN_OK) return st;
    qsort(t->added, t->n_added, sizeof *t->added, by_id);
    for (size_t i = 0; st == GDN_OK && i < t->n_added; i++) {
        if (i > 0 && t->added[i].id == t->added[i - 1].id)
            return bad(l, GDN_E_FORMAT, "added_tokens: id %d is given to \"%.80s\" and \"%.80s\"",
                       t->added[i].id, t->added[i - 1].text, t->added[i].text);
        st = check_against_vocab(l, &t->added[i]);
        if (st == GDN_OK) st = plant(l, &t->added[i]);
    }
    return st;
}

/* --- the file --------------------------------------------------------------------------- */

static bool text_is(gdn_text t, const char *s) {
    while (t.n > 0 && strchr(" \n\r\t", t.s[t.n - 1]) != NULL) t.n--;
    return t.n == strlen(s) && memcmp(t.s, s, t.n) == 0;
}

/* Note where the values of "vocab" and "merges" stand in the object "model".  Keys are
 * compared as they are written: nobody writes these with escapes. */
static gdn_status find_tables(loader *l) {
    gdn_scan j = {l->json, l->json + l->n_json, NULL};
    gdn_text key = {0}, value = {0};
    bool     in_model = false;
    gdn_scan_need(&j, '{');
    while (j.why == NULL) {
        if (gdn_scan_take(&j, ',')) continue;
        if (gdn_scan_take(&j, '}')) {
            if (!in_model) break;
            in_model = false;
            continue;
        }
        if (!gdn_scan_skip(&j, &key) || !gdn_scan_need(&j, ':')) break;
        if (!in_model && text_is(key, "\"model\"") && gdn_scan_take(&j, '{')) {
            in_model = true;
            continue;
        }
        if (!gdn_scan_skip(&j, &value)) break;
        gdn_text *table = !in_model                     ? NULL
                          : text_is(key, "\"vocab\"")  ? &l->vocab
                          : text_is(key, "\"merges\"") ? &l->merges
                                                        : NULL;
        if (table != NULL && table->s != NULL)
            return bad(l, GDN_E_FORMAT, "model has %.*s twice", SHOW(key));
        if (table != NULL) *table = value;
    }
    if (j.why != NULL) return bad_json(l, &j, "not valid JSON");
    return GDN_OK;
}

/* Let jansson read everything but the tables. */
static gdn_status read_rest(loader *l) {
    gdn_text a = l->vocab, b = l->merges;
    if (b.s != NULL && (a.s == NULL || b.s < a.s)) {
        const gdn_text swap = a;
        a = b;
        b = swap;
    }
    char *rest = malloc(l->n_json + 16);
    if (rest == NULL) return no_memory(l);
    size_t      n = 0;
    const char *from = l->json;
    const gdn_text *const table[] = {&a, &b};
    for (int i = 0; i < 2; i++) {
        if (table[i]->s == NULL) continue;
        memcpy(rest + n, from, (size_t)(table[i]->s - from));
        n += (size_t)(table[i]->s - from);
        memcpy(rest + n, "null", 4);
        n += 4;
        from = table[i]->s + table[i]->n;
    }
    memcpy(rest + n, from, (size_t)(l->json + l->n_json - from));
    n += (size_t)(l->json + l->n_json - from);
    json_error_t e;
    l->root = json_loadb(rest, n, JSON_REJECT_DUPLICATES, &e);
    free(rest);
    if (l->root == NULL) return bad(l, GDN_E_FORMAT, "not valid JSON: %.200s", e.text);
    if (!json_is_object(l->root))
        return bad(l, GDN_E_FORMAT, "the file is %s, not an object", type_name(l->root));
    return GDN_OK;
}

static gdn_status read_stages(loader *l) {
    bool       bytes = false;
    gdn_status st = read_normalizer(l, json_object_get(l->root, "normalizer"), 0);
    if (st == GDN_OK) st = read_pre_tokenizer(l, json_object_get(l->root, "pre_tokenizer"), 0, &bytes);
    if (st == GDN_OK && !bytes)
        st = bad(l, GDN_E_UNSUPPORTED, "pre_tokenizer without ByteLevel is not supported");
    if (st == GDN_OK) st = check_post_processor(l, json_object_get(l->root, "post_processor"), 0);
    if (st == GDN_OK) st = check_decoder(l);
    return st;
}

gdn_status gdn_tokenizer_parse(char *json, size_t n, const char *name, gdn_tokenizer **out,
                               gdn_err *err) {
    loader l = {.name = name, .err = err, .json = json, .n_json = n};
    l.t = calloc(1, sizeof *l.t);
    if (l.t == NULL) return no_memory(&l);
    make_alphabet(&l);
    gdn_status st = find_tables(&l);
    if (st == GDN_OK) st = read_rest(&l);
    if (st == GDN_OK) st = read_stages(&l); /* before the model: it is quick to refuse */
    if (st == GDN_OK) st = read_model(&l);
    if (st == GDN_OK) st = read_added(&l);
    if (st == GDN_OK) {
        l.t->n_id = l.t->bpe.n_id;
        if (l.t->n_added > 0 && l.t->added[l.t->n_added - 1].id >= l.t->n_id)
            l.t->n_id = l.t->added[l.t->n_added - 1].id + 1;
        *out = l.t;
    } else {
        gdn_tokenizer_close(l.t);
    }
    json_decref(l.root);
    free(l.word);
    return st;
}

static gdn_status read_file(const char *name, char **text, size_t *n, gdn_err *err) {
    gdn_status st = GDN_OK;
    size_t     cap = 1 << 20;
    FILE      *f = fopen(name, "rb");
    if (f == NULL) return gdn_fail(err, GDN_E_IO, "%s: %s", name, strerror(errno));
    struct stat info;
    if (fstat(fileno(f), &info) == 0 && info.st_size > 0 && info.st_size < MAX_FILE)
        cap = (size_t)info.st_size + 1;
    *text = malloc(cap);
    *n = 0;
    while (*text != NULL && !feof(f) && !ferror(f) && *n <= MAX_FILE) {
        *n += fread(*text + *n, 1, cap - *n, f);
        if (*n < cap) continue;
        cap *= 2;
        char *p = realloc(*text, cap);
        if (p == NULL) free(*text);
        *text = p;
    }
    if (*text == NULL) st = gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", name);
    else if (ferror(f)) st = gdn_fail(err, GDN_E_IO, "%s: %s", name, strerror(errno));
    else if (*n > MAX_FILE) st = gdn_fail(err, GDN_E_FORMAT, "%s: larger than %d bytes", name, MAX_FILE);
    fclose(f);
    return st;
}

gdn_status gdn_tokenizer_open(const char *path, gdn_tokenizer **out, gdn_err *err) {
    struct stat info;
    gdn_status  st = GDN_OK;
    char       *text = NULL, *name = NULL;
    size_t      n = 0;
    const bool  folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    if (asprintf(&name, folder ? "%s/tokenizer.json" : "%s", path) < 0)
        return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", path);
    st = read_file(name, &text, &n, err);
    if (st == GDN_OK) st = gdn_tokenizer_parse(text, n, name, out, err);
    free(text);
    free(name);
    return st;
}
