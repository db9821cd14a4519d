/* jsonread.h - reading JSON straight from its text, without building a tree.
 *
 * The vocabulary and the merges of a tokenizer are a million values; a tree of them takes
 * ten times as long to build as they take to read.  This reader steps through them and
 * leaves the small rest to jansson.  The text is written over: a string with escapes is
 * decoded in its own place. */
#ifndef GDN_TEXT_JSONREAD_H
#define GDN_TEXT_JSONREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char       *at, *end;
    const char *why; /* what is wrong at at; NULL so far */
} gdn_scan;

typedef struct {
    char  *s;
    size_t n;
} gdn_text;

/* Step over white space and this character.  False, and nothing but white space taken, if
 * another one stands there. */
bool gdn_scan_take(gdn_scan *j, char c);

/* As above, but another character is an error. */
bool gdn_scan_need(gdn_scan *j, char c);

/* A string: bytes of valid UTF-8 without NUL. */
bool gdn_scan_string(gdn_scan *j, gdn_text *out);

/* A number without sign, fraction and exponent, below 2^53. */
bool gdn_scan_uint(gdn_scan *j, int64_t *out);

/* Step over any value; its text is out.  Brackets and strings are checked, words and
 * numbers are not: for what jansson reads afterwards, or nobody. */
bool gdn_scan_skip(gdn_scan *j, gdn_text *out);

/* The next key of an object whose { has been taken.  False at its } and on errors. */
bool gdn_scan_key(gdn_scan *j, bool *first, gdn_text *out);

/* Whether another item follows in an array whose [ has been taken. */
bool gdn_scan_item(gdn_scan *j, bool *first);

#endif
