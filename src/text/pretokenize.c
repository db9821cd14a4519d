/* pretokenize.c - cutting text into pieces with PCRE2. */
#include "pretokenize.h"

#include "../base/err.h"
#include "pattern.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A pattern comes from a file and may be made to backtrack for ever.  Two limits end
 * that: PCRE2's own on one match, and the processor time of the whole call, because the
 * JIT does not count repeated single characters.  The patterns in use take 0.1 us a byte. */
enum { MATCH_LIMIT = 10000000, HEAP_LIMIT_KIB = 64 << 10, MAX_PATTERN_BYTES = 1 << 16 };
static const double MIN_SECONDS = 5.0, SECONDS_PER_BYTE = 10e-6;

static double thread_seconds(void) {
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static gdn_status compile(const char *pattern, size_t n, const char *where, pcre2_code **out,
                          gdn_err *err) {
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    if (ctx == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", where);
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    /* Ruby's ^ and $ always know lines. */
    const uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int            code = 0;
    PCRE2_SIZE     at = 0;
    *out = pcre2_compile((PCRE2_SPTR)pattern, n, flags, &code, &at, ctx);
    pcre2_compile_context_free(ctx);
    if (*out == NULL) {
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(code, why, sizeof why);
        return gdn_fail(err, GDN_E_FORMAT, "%s: the pattern is not valid: %s", where,
                        (const char *)why);
    }
    /* Fails where memory may not be made executable; then the interpreter is used. */
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return GDN_OK;
}

gdn_status gdn_pretok_add(gdn_pretok *p, const char *pattern, size_t n, const char *where,
                          gdn_err *err) {
    if (p->n == GDN_MAX_PATTERN)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: more than %d patterns", where, GDN_MAX_PATTERN);
    if (n > MAX_PATTERN_BYTES)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: a pattern of %zu bytes, more than %d", where, n,
                        MAX_PATTERN_BYTES);
    char       *text = NULL;
    const char *why = NULL;
    size_t      n_text = 0;
    gdn_status  st = gdn_pattern_rewrite(pattern, n, &text, &n_text, &why);
    if (st == GDN_E_UNSUPPORTED)
        return gdn_fail(err, st, "%s: the pattern has %s, which is not supported", where, why);
    if (st != GDN_OK) return gdn_fail(err, st, "%s: out of memory", where);
    st = compile(text, n_text, where, &p->code[p->n], err);
    if (st == GDN_OK) p->n++;
    free(text);
    return st;
}

void gdn_pretok_free(gdn_pretok *p) {
    for (int i = 0; i < p->n; i++) pcre2_code_free(p->code[i]);
    p->n = 0;
}

gdn_status gdn_pretok_run_init(const gdn_pretok *p, gdn_pretok_run *run, size_t n) {
    *run = (gdn_pretok_run){0};
    run->limits = pcre2_match_context_create(NULL);
    if (run->limits == NULL) return GDN_E_NOMEM;
    pcre2_set_match_limit(run->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(run->limits, HEAP_LIMIT_KIB);
    for (int i = 0; i < p->n; i++) {
        /* Only the whole match is wanted, not its groups. */
        run->match[i] = pcre2_match_data_create(1, NULL);
        if (run->match[i] == NULL) return GDN_E_NOMEM;
    }
    run->deadline = thread_seconds() + MIN_SECONDS + SECONDS_PER_BYTE * (double)n;
    return GDN_OK;
}

void gdn_pretok_run_free(gdn_pretok_run *run) {
    for (int i = 0; i < GDN_MAX_PATTERN; i++) pcre2_match_data_free(run->match[i]);
    pcre2_match_context_free(run->limits);
    *run = (gdn_pretok_run){0};
}

/* Find the next match of pattern i at or after from; *found tells whether there is one. */
static gdn_status find(const gdn_pretok *p, gdn_pretok_run *run, int i, const char *s, size_t n,
                       size_t from, int *found, gdn_err *err) {
    if (++run->steps % 256 == 0 && thread_seconds() > run->deadline)
        return gdn_fail(err, GDN_E_FULL, "tokenizer: pattern %d takes too long on this text", i);
    uint32_t flags = PCRE2_NO_UTF_CHECK; /* the caller made sure */
    int      rc = pcre2_match(p->code[i], (PCRE2_SPTR)s, n, from, flags, run->match[i], run->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) { /* the interpreter's stack is on the heap */
        flags |= PCRE2_NO_JIT;
        rc = pcre2_match(p->code[i], (PCRE2_SPTR)s, n, from, flags, run->match[i], run->limits);
    }
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return GDN_OK;
    if (rc == PCRE2_ERROR_NOMEMORY) return gdn_fail(err, GDN_E_NOMEM, "tokenizer: out of memory");
    PCRE2_UCHAR why[128] = "";
    pcre2_get_error_message(rc, why, sizeof why);
    return gdn_fail(err, GDN_E_FULL, "tokenizer: pattern %d gives up on this text: %s", i,
                    (const char *)why);
}

static gdn_status split(const gdn_pretok *p, gdn_pretok_run *run, int i, const char *s, size_t n,
                        gdn_piece_fn *fn, void *ctx, gdn_err *err) {
    if (n == 0) return GDN_OK;
    if (i == p->n) return fn(ctx, s, n, err);
    size_t     done = 0;         /* pieces up to here are given out */
    size_t     from = 0;         /* the search goes on here */
    size_t     last = SIZE_MAX;  /* end of the last match */
    int        found = 0;
    gdn_status st = GDN_OK;
    while (from <= n) {
        st = find(p, run, i, s, n, from, &found, err);
        if (st != GDN_OK) return st;
        if (!found) break;
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(run->match[i]);
        const size_t      a = at[0], b = at[1];
        if (a == b && last == b) { /* an empty match where one just ended: step on */
            from += from < n ? (size_t)gdn_utf8_lead((unsigned char)s[from]) : 1;
            continue;
        }
        st = split(p, run, i + 1, s + done, a - done, fn, ctx, err);
        if (st == GDN_OK) st = split(p, run, i + 1, s + a, b - a, fn, ctx, err);
        if (st != GDN_OK) return st;
        done = from = last = b;
    }
    return split(p, run, i + 1, s + done, n - done, fn, ctx, err);
}

gdn_status gdn_pretok_split(const gdn_pretok *p, gdn_pretok_run *run, const char *s, size_t n,
                            gdn_piece_fn *fn, void *ctx, gdn_err *err) {
    return split(p, run, 0, s, n, fn, ctx, err);
}
