/* fuzz_jinja.c - template and variables from one input: source, a NUL, JSON. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/text.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char fallback[] =
        "{\"a\": 1, \"f\": 2.5, \"s\": \"t\\u00e9xt\", \"l\": [3, 1, 2], \"d\": {\"k\": [null, true]},"
        " \"messages\": [{\"role\": \"user\", \"content\": \" hi \"}]}";
    const char   *source = (const char *)data;
    const char   *cut = size > 0 ? memchr(data, '\0', size) : NULL;
    const size_t  n = cut != NULL ? (size_t)(cut - source) : size;
    const char   *json = cut != NULL ? cut + 1 : fallback;
    const size_t  n_json = cut != NULL ? size - n - 1 : sizeof fallback - 1;
    gdn_template *t = NULL;
    char         *out = NULL;
    size_t        n_out = 0;
    gdn_err       err = {0};
    if (gdn_template_parse(source, n, "fuzz", &t, &err) != GDN_OK) return 0;
    const gdn_status st = gdn_template_render(t, json, n_json, &out, &n_out, &err);
    if (st == GDN_OK && (out == NULL || out[n_out] != '\0')) abort();
    free(out);
    gdn_template_close(t);
    return 0;
}
