/* opt.c - parsing options by a table: --name value, --name=value, -n value, -nvalue; "--"
 * ends them.  A value is the next word whatever it looks like, so negative numbers work. */
#include "opt.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int opt_usage(const opt_about *about, const char *fmt, ...) {
    va_list ap;
    fprintf(stderr, "gdn %s: ", about->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see gdn %s --help\n", about->name);
    return 2;
}

static bool takes_value(const opt *o) {
    return o->kind != OPT_HEAD && o->kind != OPT_TRUE && o->kind != OPT_FALSE;
}

static void print_help(const opt_about *about, const opt *table) {
    printf("usage: gdn %s [options]%s%s\n%s\n", about->name, *about->args ? " " : "",
           about->args, about->about);
    for (const opt *o = table; o->name != NULL; o++) {
        if (o->kind == OPT_HEAD) {
            printf("\n%s\n", o->name);
            continue;
        }
        char left[64];
        const char dash[] = { '-', o->c, ',', ' ', '\0' };
        snprintf(left, sizeof left, "  %s--%s%s%s", o->c != 0 ? dash : "    ", o->name,
                 takes_value(o) ? " " : "", takes_value(o) ? o->arg : "");
        printf("%-28s%s%s\n", left, strlen(left) > 27 ? " " : "", o->help);
    }
    printf("\n      --help                show this\n");
}

static bool parse_f64(const char *s, double *out) {
    char *end;
    errno = 0;
    *out = strtod(s, &end);
    return end != s && *end == '\0' && errno == 0 && isfinite(*out);
}

static bool parse_i64(const char *s, long long *out) {
    char *end;
    errno = 0;
    *out = strtoll(s, &end, 10);
    return end != s && *end == '\0' && errno == 0;
}

/* Store a value; 0, or 2 after a message. */
static int store(const opt_about *about, const opt *o, const char *value) {
    char *end;
    double f;
    long long i;
    opt_list *list;
    switch (o->kind) {
    case OPT_HEAD:
        break;
    case OPT_TRUE:
    case OPT_FALSE:
        *(bool *)o->to = o->kind == OPT_TRUE;
        break;
    case OPT_I32:
        if (!parse_i64(value, &i) || (double)i < o->lo || (double)i > o->hi)
            return opt_usage(about, "--%s is \"%s\"; need a whole number from %.0f to %.0f",
                             o->name, value, o->lo, o->hi);
        *(int32_t *)o->to = (int32_t)i;
        break;
    case OPT_U64:
        errno = 0;
        const unsigned long long u = strtoull(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0)
            return opt_usage(about, "--%s is \"%s\"; need a whole number, 0 or more", o->name,
                             value);
        *(uint64_t *)o->to = u;
        break;
    case OPT_F32:
        if (!parse_f64(value, &f) || f < o->lo || f > o->hi)
            return opt_usage(about, "--%s is \"%s\"; need a number from %g to %g", o->name,
                             value, o->lo, o->hi);
        *(float *)o->to = (float)f;
        break;
    case OPT_STR:
        *(const char **)o->to = value;
        break;
    case OPT_LIST:
        list = o->to;
        if (list->n == OPT_LIST_MAX)
            return opt_usage(about, "--%s is given more than %d times", o->name, OPT_LIST_MAX);
        list->s[list->n++] = value;
        break;
    }
    if (o->given != NULL) *o->given = true;
    return 0;
}

static const opt *find(const opt *table, const char *name, size_t n, char c) {
    for (const opt *o = table; o->name != NULL; o++) {
        if (o->kind == OPT_HEAD) continue;
        if (name != NULL && strlen(o->name) == n && memcmp(o->name, name, n) == 0) return o;
        if (name == NULL && o->c != 0 && o->c == c) return o;
    }
    return NULL;
}

/* One option at argv[*i]; 0, or an exit code. */
static int parse_one(const opt_about *about, const opt *table, int argc, char **argv, int *i) {
    const char *word = argv[*i], *value = NULL;
    const opt *o;
    if (word[1] == '-') {
        const size_t n = strcspn(word + 2, "=");
        o = find(table, word + 2, n, 0);
        if (word[2 + n] == '=') value = word + 2 + n + 1;
    } else {
        o = find(table, NULL, 0, word[1]);
        if (word[2] != '\0') value = word + 2;
    }
    if (o == NULL) return opt_usage(about, "unknown option %s", word);
    if (!takes_value(o) && value != NULL)
        return opt_usage(about, "--%s takes no value", o->name);
    if (takes_value(o) && value == NULL) {
        if (*i + 1 >= argc) return opt_usage(about, "--%s needs a value (%s)", o->name, o->arg);
        value = argv[++*i];
    }
    return store(about, o, value);
}

int opt_parse(const opt_about *about, const opt *table, int argc, char **argv, int *n_word) {
    const int max = n_word == NULL ? 0 : *n_word;
    int n = 0;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        if (options && strcmp(word, "--") == 0) {
            options = false;
        } else if (options && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            print_help(about, table);
            return 0;
        } else if (options && word[0] == '-' && word[1] != '\0') {
            const int rc = parse_one(about, table, argc, argv, &i);
            if (rc != 0) return rc;
        } else if (n == max) {
            return opt_usage(about, "unexpected word \"%s\"", word);
        } else {
            argv[n++] = word; /* never ahead of i */
        }
    }
    if (n_word != NULL) *n_word = n;
    return OPT_GO;
}
