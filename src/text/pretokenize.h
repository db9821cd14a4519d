/* pretokenize.h - cutting text into pieces by the tokenizer file's own patterns.
 *
 * Each pattern cuts every piece that the one before it left: a match is a piece, and so
 * is a stretch between matches ("Isolated").  A piece is matched as if nothing stood
 * around it.  Patterns are compiled with PCRE2's JIT where the system allows it. */
#ifndef GDN_TEXT_PRETOKENIZE_H
#define GDN_TEXT_PRETOKENIZE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <gdn/status.h>
#include <pcre2.h>
#include <stddef.h>

enum { GDN_MAX_PATTERN = 8 };

typedef struct {
    pcre2_code *code[GDN_MAX_PATTERN];
    int         n;
} gdn_pretok;

/* Working memory of one call. */
typedef struct {
    pcre2_match_data    *match[GDN_MAX_PATTERN];
    pcre2_match_context *limits;
    double               deadline; /* processor seconds of this thread */
    unsigned             steps;
} gdn_pretok_run;

typedef gdn_status gdn_piece_fn(void *ctx, const char *piece, size_t n, gdn_err *err);

/* Compile n bytes of pattern as the next one.  GDN_E_FORMAT, GDN_E_UNSUPPORTED: the text
 * of err begins with where. */
gdn_status gdn_pretok_add(gdn_pretok *p, const char *pattern, size_t n, const char *where,
                          gdn_err *err);
void       gdn_pretok_free(gdn_pretok *p);

/* n: bytes that will be split in all; the time allowed grows with it. */
gdn_status gdn_pretok_run_init(const gdn_pretok *p, gdn_pretok_run *run, size_t n);
void       gdn_pretok_run_free(gdn_pretok_run *run);

/* Call fn for the pieces of s, valid UTF-8, in order; none is empty.
 * GDN_E_FULL: the pattern backtracks without end. */
gdn_status gdn_pretok_split(const gdn_pretok *p, gdn_pretok_run *run, const char *s, size_t n,
                            gdn_piece_fn *fn, void *ctx, gdn_err *err);

#endif
