/* fuzz_tokenizer.c - any bytes as a tokenizer.json, then any bytes as text for it.
 *
 * The input up to the first NUL is the file; if it loads, the rest is encoded, decoded and
 * compared in length.  Without a NUL, or when it does not load, that is all; inputs that begin with
 * a NUL are text for a tokenizer of 256 bytes and a few merges. */
#include "../../src/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A sound file: bytes, "ab", "abab", an added token. */
static size_t sound_file(char *out, size_t cap) {
    size_t n = (size_t)snprintf(
        out, cap,
        "{\"added_tokens\":[{\"id\":300,\"content\":\"<a>\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":true,\"special\":true}],\"normalizer\":{\"type\":\"NFC\"},"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
        "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"ab\":256,\"abab\":257");
    for (int b = 0, next = 0x100; b < 256; b++) {
        const int visible = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        n += (size_t)snprintf(out + n, cap - n, ",\"\\u%04x\":%d", visible ? b : next, b);
        next += !visible;
    }
    n += (size_t)snprintf(out + n, cap - n, "},\"merges\":[[\"a\",\"b\"],[\"ab\",\"ab\"]]}}");
    return n;
}

static void encode(const gdn_tokenizer *t, const char *text, size_t n) {
    int32_t *ids = NULL;
    size_t   n_ids = 0, k = 0;
    gdn_err  err;
    for (int parse = 0; parse < 2; parse++) {
        if (gdn_tokenize(t, text, n, parse, &ids, &n_ids, &err) != GDN_OK) continue;
        gdn_detok  *d = NULL;
        const char *s = NULL;
        size_t      direct = 0, streamed = 0;
        if (gdn_detok_create(t, true, &d) != GDN_OK) abort();
        for (size_t i = 0; i <= n_ids; i++) {
            if ((i < n_ids ? gdn_detok_push(d, ids[i], &s, &k) : gdn_detok_flush(d, &s, &k)) != GDN_OK)
                abort();
            streamed += k;
            if (i < n_ids && gdn_token_bytes(t, ids[i], &k) != NULL) direct += k;
        }
        if (direct != streamed || (n > 0 && direct == 0)) abort();
        gdn_detok_free(d);
        free(ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char          file[8192];
    static gdn_tokenizer *sound;
    gdn_err              err;
    if (sound == NULL && gdn_tokenizer_parse(file, sound_file(file, sizeof file), "sound", &sound, &err) != GDN_OK)
        abort();
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t   n = nul != NULL ? (size_t)(nul - data) : size;
    const char    *text = nul != NULL ? (const char *)nul + 1 : "";
    const size_t   n_text = nul != NULL ? size - n - 1 : 0;
    if (n == 0) {
        encode(sound, text, n_text);
        return 0;
    }
    gdn_tokenizer *t = NULL;
    char          *json = malloc(n);
    if (json == NULL) return 0;
    memcpy(json, data, n);
    if (gdn_tokenizer_parse(json, n, "fuzz", &t, &err) == GDN_OK) encode(t, text, n_text < 4096 ? n_text : 4096);
    free(json);
    gdn_tokenizer_close(t);
    return 0;
}
