/* tokenize_lines.c - the tokenizer as a filter, for comparing it with another one.
 *
 *     tokenize_lines TOKENIZER            lines "0 HEX" or "1 HEX" (the text in hexadecimal; 1: parse
 *                                         added tokens) become lines of ids; then "=HEX", the ids as
 *                                         text again, through the streaming decoder
 *     tokenize_lines TOKENIZER --time FILE    times of loading and of encoding FILE */
#include <gdn/text.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int hex(int c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static int one_line(const gdn_tokenizer *t, char *line) {
    gdn_err  err = {0};
    int32_t *ids = NULL;
    size_t   n = 0, n_ids = 0;
    char    *text = line + 2;
    for (char *p = line + 2; p[0] > ' ' && p[1] > ' '; p += 2)
        text[n++] = (char)(hex(p[0]) * 16 + hex(p[1]));
    if (gdn_tokenize(t, text, n, line[0] == '1', &ids, &n_ids, &err) != GDN_OK) {
        printf("error: %s\n=\n", err.text);
        return 0;
    }
    for (size_t i = 0; i < n_ids; i++) printf(i ? " %d" : "%d", ids[i]);
    printf("\n=");
    gdn_detok  *d = NULL;
    const char *s = NULL;
    if (gdn_detok_create(t, true, &d) != GDN_OK) return 1;
    for (size_t i = 0; i <= n_ids; i++) {
        gdn_status st = i < n_ids ? gdn_detok_push(d, ids[i], &s, &n) : gdn_detok_flush(d, &s, &n);
        if (st != GDN_OK) return 1;
        for (size_t k = 0; k < n; k++) printf("%02x", (unsigned char)s[k]);
    }
    printf("\n");
    gdn_detok_free(d);
    free(ids);
    return 0;
}

static int time_file(const gdn_tokenizer *t, const char *path) {
    static char text[64 << 20];
    FILE       *f = fopen(path, "rb");
    if (f == NULL) return 1;
    const size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    for (int i = 0; i < 3; i++) {
        gdn_err      err = {0};
        int32_t     *ids = NULL;
        size_t       n_ids = 0;
        const double from = now();
        if (gdn_tokenize(t, text, n, true, &ids, &n_ids, &err) != GDN_OK) {
            printf("%s\n", err.text);
            return 1;
        }
        printf("encode %.4f s, %zu bytes, %zu ids\n", now() - from, n, n_ids);
        free(ids);
    }
    return 0;
}

int main(int argc, char **argv) {
    gdn_err        err = {0};
    gdn_tokenizer *t = NULL;
    if (argc < 2) return 2;
    const double from = now();
    if (gdn_tokenizer_open(argv[1], &t, &err) != GDN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int rc = 0;
    if (argc == 4 && strcmp(argv[2], "--time") == 0) {
        printf("load %.4f s\n", now() - from);
        rc = time_file(t, argv[3]);
    } else {
        char  *line = NULL;
        size_t cap = 0;
        while (rc == 0 && getline(&line, &cap, stdin) > 2) rc = one_line(t, line);
        free(line);
    }
    gdn_tokenizer_close(t);
    return rc;
}
