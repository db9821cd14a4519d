/* io.c - what goes in and out of a command: files, ids, messages, the progress bar, JSON. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *name = "";

void cli_begin(const char *command) { name = command; }

int cli_error(const char *fmt, ...) {
    va_list ap;
    fprintf(stderr, "gdn %s: ", name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 1;
}

int cli_fail(const gdn_err *err) {
    return cli_error("%s", err->text[0] != '\0' ? err->text : gdn_status_text(err->code));
}

static void log_line(gdn_log_level level, const char *line, void *all) {
    if (all != NULL || level == GDN_LOG_WARN)
        fprintf(stderr, "gdn %s: %s%s\n", name, level == GDN_LOG_WARN ? "warning: " : "", line);
}

void cli_log(bool quiet, bool verbose) {
    static char all;
    gdn_log_set(quiet && !verbose ? NULL : log_line, verbose ? &all : NULL);
}

int cli_end(int rc) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return rc;
    if (errno != EPIPE) cli_error("cannot write the output: %s", strerror(errno));
    return 1;
}

double cli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *cli_bytes(uint64_t n, char buf[32]) {
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double x = (double)n;
    int i = 0;
    while (x >= 1024 && i < 4) x /= 1024, i++;
    snprintf(buf, 32, i == 0 ? "%.0f %s" : "%.1f %s", x, unit[i]);
    return buf;
}

/* --- progress bar ---------------------------------------------------------------- */

void cli_bar_begin(cli_bar *b, const char *what, const char *unit, bool quiet) {
    *b = (cli_bar){ .what = what, .unit = unit, .start = cli_seconds() };
    b->on = !quiet && isatty(STDERR_FILENO) == 1;
}

void cli_bar_step(void *bar, uint64_t done, uint64_t total) {
    enum { WIDTH = 30 };
    cli_bar *b = bar;
    const double now = cli_seconds();
    /* Work that ends at once shows no bar. */
    if (!b->on || total == 0 || now - b->start < 0.3 || now - b->drawn < 0.1) return;
    b->drawn = now;
    const double share = done < total ? (double)done / (double)total : 1;
    char bar_text[WIDTH + 1];
    const int full = (int)(share * WIDTH);
    memset(bar_text, '#', (size_t)full);
    memset(bar_text + full, '.', (size_t)(WIDTH - full));
    bar_text[WIDTH] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%", b->what, bar_text, 100 * share);
    if (b->unit != NULL && now > b->start)
        fprintf(stderr, "  %.0f %s/s", (double)done / (now - b->start), b->unit);
    fprintf(stderr, "\033[K");
    fflush(stderr);
}

void cli_bar_end(cli_bar *b) {
    if (b->drawn > 0) fprintf(stderr, "\r\033[K");
    b->drawn = 0;
    b->on = false;
}

/* --- input ------------------------------------------------------------------------ */

int cli_read(const char *path, char **text, size_t *n) {
    const bool is_stdin = path == NULL || strcmp(path, "-") == 0;
    const char *shown = is_stdin ? "stdin" : path;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    if (f == NULL) return cli_error("%s: %s", shown, strerror(errno));
    size_t len = 0, cap = 1 << 16;
    char *buf = malloc(cap);
    int rc = 0;
    while (buf != NULL && rc == 0) {
        errno = 0;
        const size_t got = fread(buf + len, 1, cap - len - 1, f);
        len += got;
        if (ferror(f)) rc = cli_error("%s: %s", shown, strerror(errno));
        else if (feof(f)) break;
        if (rc == 0 && len + 1 == cap) {
            char *more = realloc(buf, 2 * cap);
            if (more == NULL) free(buf);
            buf = more;
            cap *= 2;
        }
    }
    if (buf == NULL) rc = cli_error("%s: out of memory", shown);
    if (!is_stdin) fclose(f);
    if (rc != 0) {
        free(buf);
        return rc;
    }
    buf[len] = '\0';
    *text = buf;
    *n = len;
    return 0;
}

/* Parse n bytes of ids; `where` names them in a message. */
static int parse_ids(const char *where, const char *s, size_t n, int32_t **out, int32_t *count) {
    int32_t *ids = NULL;
    size_t k = 0, cap = 0;
    for (size_t i = 0; i < n;) {
        if (isspace((unsigned char)s[i]) || s[i] == ',') {
            i++;
            continue;
        }
        long long v = 0;
        const size_t first = i;
        while (i < n && isdigit((unsigned char)s[i]) && v <= INT32_MAX) v = 10 * v + (s[i++] - '0');
        const bool ends = i == n || isspace((unsigned char)s[i]) || s[i] == ',';
        if (i == first || v > INT32_MAX || !ends) {
            free(ids);
            return cli_error("%s: token %zu is not an id; need whole numbers from 0, separated "
                             "by white space or commas", where, k);
        }
        if (k == cap) {
            cap = cap == 0 ? 256 : 2 * cap;
            int32_t *more = k < INT32_MAX / 2 ? realloc(ids, cap * sizeof *ids) : NULL;
            if (more == NULL) {
                free(ids);
                return cli_error("%s: out of memory", where);
            }
            ids = more;
        }
        ids[k++] = (int32_t)v;
    }
    *out = ids;
    *count = (int32_t)k;
    return 0;
}

int cli_ids(const char *arg, int32_t **ids, int32_t *n) {
    if (arg[0] != '@') return parse_ids("the list of tokens", arg, strlen(arg), ids, n);
    char *text;
    size_t len;
    int rc = cli_read(arg + 1, &text, &len);
    if (rc != 0) return rc;
    rc = parse_ids(arg + 1, text, len, ids, n);
    free(text);
    return rc;
}

int cli_encode(const cli_model *m, const char *text, size_t n, bool special, int32_t **ids,
               int32_t *n_ids) {
    gdn_err err = { 0 };
    size_t k = 0;
    if (gdn_tokenize(m->tok, text, n, special, ids, &k, &err) != GDN_OK) return cli_fail(&err);
    if (k > INT32_MAX) {
        free(*ids);
        return cli_error("the text has %zu tokens; need at most %d", k, INT32_MAX);
    }
    *n_ids = (int32_t)k;
    return 0;
}

/* --- JSON --------------------------------------------------------------------------- */

size_t cli_utf8_len(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    if (n == 0) return 0;
    if (p[0] < 0x80) return 1;
    const size_t len = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 :
                       p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
    if (len == 0 || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0; /* longer than needed */
    if (p[0] == 0xed && p[1] > 0x9f) return 0; /* half of a surrogate pair */
    if (p[0] == 0xf0 && p[1] < 0x90) return 0;
    if (p[0] == 0xf4 && p[1] > 0x8f) return 0; /* past U+10FFFF */
    return len;
}

void cli_json_string(FILE *f, const char *s, size_t n) {
    fputc('"', f);
    for (size_t i = 0; i < n;) {
        const size_t len = cli_utf8_len(s + i, n - i);
        const unsigned char c = (unsigned char)s[i];
        if (len == 0) {
            fputs("\xef\xbf\xbd", f);
        } else if (len > 1) {
            fwrite(s + i, 1, len, f);
        } else if (c == '"' || c == '\\') {
            fputc('\\', f);
            fputc(c, f);
        } else if (c == '\n') {
            fputs("\\n", f);
        } else if (c < 0x20 || c == 0x7f) {
            fprintf(f, "\\u%04x", c);
        } else {
            fputc(c, f);
        }
        i += len > 0 ? len : 1;
    }
    fputc('"', f);
}
