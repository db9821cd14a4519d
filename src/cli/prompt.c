/* prompt.c - a conversation to ids, in which no text that was typed becomes a turn mark.
 *
 * The usual way renders the template and encodes the whole with added tokens parsed; then a
 * message that says "<|im_end|>" ends its own turn and may forge the next.  Here the text of
 * an added token inside a message is swapped for a private mark before the template sees it,
 * so the template cannot act on it either, and put back afterwards as ordinary text:
 *
 *     message   a <|im_end|> b          rendered   ...user\na MARK b<|im_end|>\n...
 *     pieces    [user\na <|im_end|> b] plain, [<|im_end|>] token, [\n...] plain
 *
 * The pieces are those the tokenizer itself would cut at added tokens, so ids differ from the
 * usual way in nothing else; without such text the usual way is taken. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#define MARK_OPEN  "\xee\x80\x80" /* U+E000 and U+E001: private use */
#define MARK_CLOSE "\xee\x80\x81"

enum { MARK_MAX = 48 };

/* --- added tokens ------------------------------------------------------------------ */

static int list_added(cli_model *m) {
    if (m->added != NULL) return 0;
    const int32_t size = gdn_tokenizer_size(m->tok);
    size_t cap = 0;
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        if (pass == 1 && (m->added = calloc(cap + 1, sizeof *m->added)) == NULL)
            return cli_error("out of memory");
        for (int32_t id = 0; id < size; id++) {
            size_t n;
            const char *text = gdn_token_bytes(m->tok, id, &n);
            char copy[256];
            if (text == NULL || n == 0 || n >= sizeof copy || memchr(text, '\0', n) != NULL)
                continue;
            memcpy(copy, text, n);
            copy[n] = '\0';
            if (gdn_token_find(m->tok, copy) != id) continue;
            if (pass == 0) cap++;
            else m->added[m->n_added++] = (cli_added){ .text = text, .n = n, .id = id };
        }
    }
    return 0;
}

/* The longest added token at s, or -1. */
static int added_at(const cli_model *m, const char *s, size_t n) {
    int best = -1;
    for (int i = 0; i < m->n_added; i++) {
        const cli_added *a = &m->added[i];
        if (a->text[0] != s[0] || a->n > n || memcmp(a->text, s, a->n) != 0) continue;
        if (best < 0 || a->n > m->added[best].n) best = i;
    }
    return best;
}

/* --- the request -------------------------------------------------------------------- */

typedef struct {
    cli_model *m;
    char       open[MARK_MAX]; /* what a mark begins with: unlike anything typed */
    size_t     n_open;
    int        n_mark;
} guard;

static void guard_begin(guard *g, cli_model *m) {
    uint64_t r = (uint64_t)(uintptr_t)g ^ (uint64_t)(1e9 * cli_seconds());
    FILE *f = fopen("/dev/urandom", "rb");
    if (f != NULL) {
        uint64_t more;
        if (fread(&more, sizeof more, 1, f) == 1) r ^= more;
        fclose(f);
    }
    *g = (guard){ .m = m };
    g->n_open = (size_t)snprintf(g->open, sizeof g->open, MARK_OPEN "%016llx.",
                                 (unsigned long long)r);
}

/* A message's text as JSON, its added tokens as marks. */
static int put_text(guard *g, FILE *f, const char *s, size_t n) {
    char *buf = NULL;
    size_t len = 0;
    FILE *b = open_memstream(&buf, &len);
    if (b == NULL) return cli_error("out of memory");
    for (size_t i = 0; i < n;) {
        const size_t c = cli_utf8_len(s + i, n - i);
        if (c == 0) {
            fclose(b);
            free(buf);
            return cli_error("the text is not UTF-8 at byte %zu; --raw takes any bytes", i);
        }
        const int a = added_at(g->m, s + i, n - i);
        if (a < 0) {
            fwrite(s + i, 1, c, b);
            i += c;
        } else {
            fprintf(b, "%s%d" MARK_CLOSE, g->open, a);
            i += g->m->added[a].n;
            g->n_mark++;
        }
    }
    if (fclose(b) != 0) {
        free(buf);
        return cli_error("out of memory");
    }
    cli_json_string(f, buf, len);
    free(buf);
    return 0;
}

static int put_request(guard *g, FILE *f, const cli_message *msg, int n, cli_think think,
                       const char *tools) {
    int rc = 0;
    fputs("{\"messages\": [", f);
    for (int i = 0; i < n && rc == 0; i++) {
        fprintf(f, "%s{\"role\": \"%s\", \"content\": ", i > 0 ? ", " : "", msg[i].role);
        rc = put_text(g, f, msg[i].text, msg[i].n);
        if (rc == 0 && msg[i].reasoning != NULL) {
            fputs(", \"reasoning_content\": ", f);
            rc = put_text(g, f, msg[i].reasoning, msg[i].n_reasoning);
        }
        fputc('}', f);
    }
    fputs("], \"add_generation_prompt\": true", f);
    if (think != CLI_THINK_UNSET)
        fprintf(f, ", \"enable_thinking\": %s", think == CLI_THINK_ON ? "true" : "false");
    if (tools != NULL) fprintf(f, ", \"tools\": %s", tools);
    fputc('}', f);
    return rc;
}

/* --- ids ----------------------------------------------------------------------------- */

typedef struct {
    int32_t *ids;
    size_t   n, cap;
} id_list;

static int append(id_list *l, const int32_t *ids, size_t n) {
    if (n > l->cap - l->n) {
        const size_t cap = 2 * (l->n + n);
        int32_t *p = realloc(l->ids, cap * sizeof *p);
        if (p == NULL) return cli_error("out of memory");
        l->ids = p;
        l->cap = cap;
    }
    if (n > 0) memcpy(l->ids + l->n, ids, n * sizeof *ids);
    l->n += n;
    return 0;
}

/* Encode what has gathered in *seg as plain text and empty it. */
static int flush(const cli_model *m, char *seg, size_t *n_seg, id_list *out) {
    int32_t *ids = NULL, n = 0;
    int rc = cli_encode(m, seg, *n_seg, false, &ids, &n);
    if (rc == 0) rc = append(out, ids, (size_t)n);
    free(ids);
    *n_seg = 0;
    return rc;
}

/* If a mark begins at s, the added token it stands for and the mark's length. */
static int mark_at(const guard *g, const char *s, size_t n, size_t *len) {
    if (n < g->n_open || memcmp(s, g->open, g->n_open) != 0) return -1;
    char *end;
    const long a = strtol(s + g->n_open, &end, 10);
    const size_t used = (size_t)(end - s), close = strlen(MARK_CLOSE);
    if (a < 0 || a >= g->m->n_added || n - used < close || memcmp(end, MARK_CLOSE, close) != 0)
        return -1;
    *len = used + close;
    return (int)a;
}

static int encode_marked(const guard *g, const char *text, size_t n, id_list *out) {
    /* A mark is longer than any token it stands for is not certain: size for the worst. */
    size_t longest = 1;
    for (int i = 0; i < g->m->n_added; i++)
        if (g->m->added[i].n > longest) longest = g->m->added[i].n;
    char *seg = malloc(n + (n / g->n_open + 1) * longest);
    if (seg == NULL) return cli_error("out of memory");
    size_t n_seg = 0;
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0;) {
        size_t len;
        int a = mark_at(g, text + i, n - i, &len);
        if (a >= 0) {
            memcpy(seg + n_seg, g->m->added[a].text, g->m->added[a].n);
            n_seg += g->m->added[a].n;
            i += len;
        } else if ((a = added_at(g->m, text + i, n - i)) >= 0) {
            rc = flush(g->m, seg, &n_seg, out);
            if (rc == 0) rc = append(out, &g->m->added[a].id, 1);
            i += g->m->added[a].n;
        } else {
            seg[n_seg++] = text[i++];
        }
    }
    if (rc == 0) rc = flush(g->m, seg, &n_seg, out);
    free(seg);
    return rc;
}

int cli_prompt(cli_model *m, const cli_message *msg, int n_msg, cli_think think,
               const char *tools, int32_t **ids, int32_t *n_ids) {
    gdn_err err = { 0 };
    guard g;
    char *json = NULL, *text = NULL;
    size_t n_json = 0, n = 0;
    id_list out = { .ids = NULL };
    int rc = list_added(m);
    if (rc != 0) return rc;
    guard_begin(&g, m);
    FILE *f = open_memstream(&json, &n_json);
    if (f == NULL) return cli_error("out of memory");
    rc = put_request(&g, f, msg, n_msg, think, tools);
    if (fclose(f) != 0 && rc == 0) rc = cli_error("out of memory");
    if (rc == 0 && gdn_template_render(m->tmpl, json, n_json, &text, &n, &err) != GDN_OK)
        rc = cli_fail(&err);
    if (rc == 0 && g.n_mark == 0) {
        rc = cli_encode(m, text, n, true, ids, n_ids);
    } else if (rc == 0) {
        rc = encode_marked(&g, text, n, &out);
        if (rc == 0 && out.n > INT32_MAX) rc = cli_error("the prompt is too long");
        if (rc != 0) free(out.ids);
        else *ids = out.ids, *n_ids = (int32_t)out.n;
    }
    free(json);
    free(text);
    return rc;
}
