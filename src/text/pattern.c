/* pattern.c - rewriting a pattern of tokenizer.json for PCRE2. */
#include "pattern.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What Unicode 15.0, 15.1 and 16.0 added to the letters, marks and numbers of 14.0.  A
 * PCRE2 with newer tables finds these named twice, which changes nothing. */
#define NEW_L \
    "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}" \
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}" \
    "\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}" \
    "\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}" \
    "\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}" \
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}" \
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}" \
    "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}" \
    "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"

#define NEW_M \
    "\\x{897}\\x{cf3}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}" \
    "\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}" \
    "\\x{113cc}-\\x{113d0}\\x{113d2}\\x{113e1}-\\x{113e2}\\x{11f00}-\\x{11f01}" \
    "\\x{11f03}\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f42}\\x{11f5a}\\x{13440}" \
    "\\x{13447}-\\x{13455}\\x{1611e}-\\x{1612f}\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}" \
    "\\x{1e5ee}-\\x{1e5ef}"

#define NEW_N \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}" \
    "\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}" \
    "\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}" \
    "\\x{1e5f1}-\\x{1e5fa}"

/* White_Space of Unicode. */
#define SPACES "\\t-\\r\\x{85}\\p{Z}"

typedef struct {
    const char *at, *end;
    char       *out;
    size_t      n, cap;
    bool        in_set;    /* between [ and ] */
    bool        no_memory;
    const char *why;       /* what is not supported; NULL so far */
} rewriter;

static void put(rewriter *w, const char *s, size_t n) {
    if (w->no_memory) return;
    if (n > w->cap - w->n) {
        const size_t cap = 2 * w->cap + n + 256;
        char        *p = realloc(w->out, cap);
        if (p == NULL) {
            w->no_memory = true;
            return;
        }
        w->out = p;
        w->cap = cap;
    }
    memcpy(w->out + w->n, s, n);
    w->n += n;
}

static void put_text(rewriter *w, const char *s) {
    put(w, s, strlen(s));
}

static bool next_is(const rewriter *w, const char *s) {
    const size_t n = strlen(s);
    return (size_t)(w->end - w->at) >= n && memcmp(w->at, s, n) == 0;
}

/* Write members as part of the set we are in, or as a set of its own. */
static void put_set(rewriter *w, bool negated, const char *members, const char *more) {
    if (!w->in_set) put_text(w, negated ? "[^" : "[");
    put_text(w, members);
    put_text(w, more);
    if (!w->in_set) put_text(w, "]");
}

/* \p{X}, \p{^X} and \P{X}, with w->at after the p. */
static void property(rewriter *w, bool negated) {
    if (w->at == w->end || *w->at != '{') {
        w->why = "\\p without {}";
        return;
    }
    const char *close = memchr(w->at, '}', (size_t)(w->end - w->at));
    if (close == NULL) {
        w->why = "\\p{ without }";
        return;
    }
    const char *name = w->at + 1;
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    w->at = close + 1;
    if (negated && w->in_set) {
        w->why = "\\P{..} within a set";
    } else if (close - name == 1 && *name == 'L') {
        put_set(w, negated, "\\p{L}", NEW_L);
    } else if (close - name == 1 && *name == 'M') {
        put_set(w, negated, "\\p{M}", NEW_M);
    } else if (close - name == 1 && *name == 'N') {
        put_set(w, negated, "\\p{N}", NEW_N);
    } else {
        put_text(w, negated ? "\\P{" : "\\p{");
        put(w, name, (size_t)(w->at - name));
    }
}

/* A backslash and what follows it, with w->at at the backslash. */
static void escape(rewriter *w) {
    const char *from = w->at++;
    if (w->at == w->end) {
        w->why = "a pattern that ends in a backslash";
        return;
    }
    const char c = *w->at++;
    const bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == 'p' || c == 'P') {
        property(w, c == 'P');
    } else if (c == 's') {
        put_set(w, false, SPACES, "");
    } else if (c == 'S') {
        if (w->in_set) w->why = "\\S within a set";
        else put_set(w, true, SPACES, "");
    } else if (alnum && strchr("rntfadDwWx", c) == NULL && (w->in_set || strchr("bBAzG", c) == NULL)) {
        w->why = "a back reference, or an escape other than \\r \\n \\t \\f \\a \\x \\s \\S \\d "
                 "\\D \\w \\W \\p \\P \\b \\B \\A \\z \\G";
    } else if (c == 'x' && (w->at == w->end || *w->at != '{')) {
        w->why = "\\x without {}"; /* a byte in Ruby, a character in PCRE2 */
    } else {
        put(w, from, (size_t)(w->at - from));
    }
}

/* ( and what says which kind of group it opens, with w->at at the parenthesis. */
static void group(rewriter *w) {
    static const char *const kind[] = {"(?:", "(?i:", "(?-i:", "(?!", "(?=", "(?<!", "(?<=", "(?>"};
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        if (!next_is(w, kind[i])) continue;
        put_text(w, kind[i]);
        w->at += strlen(kind[i]);
        return;
    }
    if (next_is(w, "(?")) w->why = "a group other than ( (?: (?i: (?-i: (?! (?= (?<! (?<= (?>";
    else if (next_is(w, "(*")) w->why = "a group that begins with (*";
    put(w, w->at++, 1);
}

/* {m,n}+ repeats the repetition in Ruby and is possessive in PCRE2. */
static void repeat(rewriter *w) {
    const char *close = memchr(w->at, '}', (size_t)(w->end - w->at));
    if (close != NULL && close + 1 < w->end && close[1] == '+') w->why = "{..}+";
    if (next_is(w, "{,")) w->why = "{,n}"; /* plain text to an older PCRE2 */
    put(w, w->at++, 1);
}

/* [ to just after the ^ and the ] that may stand first and mean themselves. */
static void open_set(rewriter *w) {
    put(w, w->at++, 1);
    w->in_set = true;
    if (w->at < w->end && *w->at == '^') put(w, w->at++, 1);
    if (w->at < w->end && *w->at == ']') w->why = "] as the first of a set";
}

gdn_status gdn_pattern_rewrite(const char *pattern, size_t n, char **out, size_t *n_out,
                               const char **why) {
    rewriter w = {.at = pattern, .end = pattern + n};
    while (w.at < w.end && w.why == NULL) {
        const char c = *w.at;
        if (c == '\\') {
            escape(&w);
        } else if (w.in_set) {
            if (c == '[') w.why = "a set within a set";
            if (next_is(&w, "&&")) w.why = "&& within a set";
            if (c == ']') w.in_set = false;
            put(&w, w.at++, 1);
        } else if (c == '[') {
            open_set(&w);
        } else if (c == '(') {
            group(&w);
        } else if (c == '{') {
            repeat(&w);
        } else {
            put(&w, w.at++, 1);
        }
    }
    put(&w, "", 1); /* a NUL, for debuggers */
    if (w.why == NULL && !w.no_memory) {
        *out = w.out;
        *n_out = w.n - 1;
        return GDN_OK;
    }
    free(w.out);
    *why = w.why;
    return w.why != NULL ? GDN_E_UNSUPPORTED : GDN_E_NOMEM;
}
