/* bpe.h - byte-pair encoding over a fixed vocabulary of byte strings.
 *
 * A piece of text starts as one token a byte.  Again and again the neighbouring pair
 * with the lowest rank, the leftmost of several, becomes one token, until no pair is in
 * the list of merges.  The vocabulary is filled once and only read afterwards, by any
 * number of threads; what encoding needs besides is in a gdn_bpe_run, one a call. */
#ifndef GDN_TEXT_BPE_H
#define GDN_TEXT_BPE_H

#include <gdn/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GDN_MAX_ID = (1 << 20) - 1 }; /* four times the largest vocabulary in use */

typedef struct {
    uint32_t at;           /* bytes of a token in gdn_bpe.text; GDN_NO_TEXT for no token */
    uint32_t len : 31;
    uint32_t findable : 1; /* input text can become this token */
} gdn_span;

#define GDN_NO_TEXT UINT32_MAX

typedef struct {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX for a free place */
    uint32_t rank;
    int32_t  id;
} gdn_merge;

typedef struct {
    char      *text;
    size_t     n_text, cap_text;
    gdn_span  *token; /* [n_id] */
    int32_t    n_id, cap_id;
    int32_t    byte_id[256];
    int32_t   *word; /* hash table from bytes to id, -1 for a free place */
    uint32_t   word_mask;
    gdn_merge *list; /* [n_merge] until they are indexed */
    uint32_t   n_merge, cap_merge;
    gdn_merge *merge; /* hash table from pair to rank and id */
    uint32_t   merge_mask;
    uint64_t   seed;          /* of both hash tables: a file cannot aim at one place */
    bool       ignore_merges; /* a piece that is a token becomes it without merging */
} gdn_bpe;

/* A growing list of ids. */
typedef struct {
    int32_t *id;
    size_t   n, cap;
} gdn_ids;

typedef struct gdn_bpe_seen gdn_bpe_seen;

/* Working memory of one call: a table of pieces already encoded into the same list, and
 * the symbols and queue of long pieces. */
typedef struct {
    gdn_bpe_seen *seen;
    uint32_t      seen_mask;
    void         *big;
    size_t        big_bytes;
} gdn_bpe_run;

/* Room for n_text bytes of tokens. */
gdn_status gdn_bpe_init(gdn_bpe *b, size_t n_text);
void       gdn_bpe_free(gdn_bpe *b);

/* Give id these bytes.  GDN_E_INVALID: it has some already. */
gdn_status gdn_bpe_add_token(gdn_bpe *b, int32_t id, const char *s, size_t n, bool findable);

/* After the last token.  GDN_E_INVALID: two findable ones have the same bytes. */
gdn_status gdn_bpe_index_tokens(gdn_bpe *b, int32_t twins[2]);

/* The findable token of these bytes, or -1. */
int32_t gdn_bpe_find(const gdn_bpe *b, const char *s, size_t n);

/* Whether id is the findable token of these bytes. */
bool gdn_bpe_is(const gdn_bpe *b, int32_t id, const char *s, size_t n);

/* Set byte_id; returns a byte that has no token of its own, or -1. */
int gdn_bpe_set_bytes(gdn_bpe *b);

/* The next merge in order of rank: two tokens and the one that has the bytes of both. */
gdn_status gdn_bpe_add_merge(gdn_bpe *b, int32_t left, int32_t right, int32_t id);

/* After the last merge.  GDN_E_INVALID: there are two for one pair. */
gdn_status gdn_bpe_index_merges(gdn_bpe *b, uint32_t twins[2]);

gdn_status gdn_ids_add(gdn_ids *ids, int32_t id);

/* n_text: bytes that will be encoded in all, which decides the size of the table. */
gdn_status gdn_bpe_run_init(gdn_bpe_run *run, size_t n_text);
void       gdn_bpe_run_free(gdn_bpe_run *run);

/* Append the ids of one piece of n < 2^31 bytes.  Time n log n. */
gdn_status gdn_bpe_encode(const gdn_bpe *b, gdn_bpe_run *run, const char *s, size_t n,
                          gdn_ids *out);

#endif
