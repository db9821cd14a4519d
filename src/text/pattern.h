/* pattern.h - the regular expressions of tokenizer.json, as PCRE2 is to read them.
 *
 * The files are written for Oniguruma with Ruby's syntax and Unicode 16; PCRE2 reads most
 * of that the same way.  What differs is rewritten or refused:
 *
 *   \s \S           PCRE2 counts U+180E as a space, Unicode does not
 *   \p{L} \p{M} \p{N} and \P{..}    get the characters of Unicode 15 and 16 added, which
 *                   an older PCRE2 does not know
 *   refused         sets within sets, &&, ] as the first of a set, \h \H, \S and \P{..} within
 *                   a set, option groups other than i, {m,n}+ and {,n}, \x without braces,
 *                   verbs and back references: they mean something else there, or nothing
 *
 * Finer classes (\p{Lu}, \d, \w) follow the tables of PCRE2. */
#ifndef GDN_TEXT_PATTERN_H
#define GDN_TEXT_PATTERN_H

#include <gdn/status.h>
#include <stddef.h>

/* Rewrite n bytes of pattern to a malloc'ed string.  On GDN_E_UNSUPPORTED *why says what
 * stood in the way; it needs no free(). */
gdn_status gdn_pattern_rewrite(const char *pattern, size_t n, char **out, size_t *n_out,
                               const char **why);

#endif
