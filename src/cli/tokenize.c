/* tokenize.c - gdn tokenize: text to ids, ids to text. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const opt_about about = {
    "tokenize", "[TEXT...]",
    "Print the ids of a text on one line, or with --decode the text of ids.\n"
    "The text comes from the command line, from -f FILE or from standard input.",
};

typedef struct {
    cli_common  common;
    const char *file;
    bool        decode, special;
} options;

/* The words joined by blanks, or the file. */
static int read_input(const options *o, char **word, int n_word, char **text, size_t *n) {
    if (n_word == 0) return cli_read(o->file, text, n);
    size_t len = 0;
    for (int i = 0; i < n_word; i++) len += strlen(word[i]) + 1;
    char *p = *text = malloc(len);
    if (p == NULL) return cli_error("out of memory");
    for (int i = 0; i < n_word; i++) {
        const size_t k = strlen(word[i]);
        memcpy(p, word[i], k);
        p += k;
        *p++ = ' ';
    }
    *--p = '\0';
    *n = len - 1;
    return 0;
}

static int encode(const cli_model *m, const char *text, size_t n, bool special) {
    int32_t *ids = NULL, n_ids = 0;
    const int rc = cli_encode(m, text, n, special, &ids, &n_ids);
    if (rc != 0) return rc;
    for (int32_t i = 0; i < n_ids; i++) printf("%s%d", i > 0 ? " " : "", ids[i]);
    putchar('\n');
    free(ids);
    return 0;
}

/* Bytes come out as they are, so that decoding undoes encoding. */
static int decode(const cli_model *m, const char *text) {
    int32_t *ids = NULL, n = 0;
    int rc = cli_ids(text, &ids, &n);
    const int32_t size = gdn_tokenizer_size(m->tok);
    for (int32_t i = 0; i < n && rc == 0; i++)
        if (ids[i] >= size)
            rc = cli_error("token %d is %d; the tokenizer has ids from 0 to %d", i, ids[i],
                           size - 1);
    for (int32_t i = 0; i < n && rc == 0; i++) {
        size_t len;
        const char *bytes = gdn_token_bytes(m->tok, ids[i], &len);
        if (bytes != NULL) fwrite(bytes, 1, len, stdout);
    }
    if (rc == 0 && isatty(STDOUT_FILENO) == 1) putchar('\n');
    free(ids);
    return rc;
}

int cli_tokenize(int argc, char **argv) {
    options o = { .file = NULL };
    const opt table[] = {
        { OPT_STR, 'f', "file", &o.file, "FILE", "read the text from a file; - is stdin", 0, 0, NULL },
        { OPT_TRUE, 'd', "decode", &o.decode, NULL, "ids to text", 0, 0, NULL },
        { OPT_TRUE, 0, "special", &o.special, NULL, "the text of a special token is that token", 0, 0, NULL },
        CLI_MODEL_OPTION(&o.common),
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int n_word = INT_MAX;
    int rc = opt_parse(&about, table, argc, argv, &n_word);
    if (rc != OPT_GO) return rc;
    if (n_word > 0 && o.file != NULL) return opt_usage(&about, "give a text or --file, not both");
    if (o.decode && o.special) return opt_usage(&about, "--special is for text, not for --decode");
    cli_model m;
    char *text = NULL;
    size_t n = 0;
    rc = cli_open(&m, &o.common, CLI_TOKENIZER);
    if (rc != 0) return rc;
    rc = read_input(&o, argv, n_word, &text, &n);
    if (rc == 0 && o.decode && text[0] == '@') rc = cli_error("ids begin with @; use -f FILE");
    if (rc == 0) rc = o.decode ? decode(&m, text) : encode(&m, text, n, o.special);
    free(text);
    cli_close(&m);
    return cli_end(rc);
}
