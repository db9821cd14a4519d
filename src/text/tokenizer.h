/* tokenizer.h - what a loaded tokenizer consists of. */
#ifndef GDN_TEXT_TOKENIZER_H
#define GDN_TEXT_TOKENIZER_H

#include "bpe.h"
#include "pretokenize.h"

#include <gdn/text.h>

/* An added token: text that is split out of the input whole. */
typedef struct {
    int32_t  id;
    uint32_t len;
    char    *text; /* len bytes and a NUL */
    bool     special;
    bool     normalized; /* looked for in normalised text, in its own normal form */
} gdn_added;

/* A tree of the texts of added tokens, one byte a node; node 0 is the root. */
typedef struct {
    int32_t child, sibling; /* 0 for none */
    int32_t id;             /* token that ends here, or -1 */
    uint8_t byte;
} gdn_trie_node;

typedef struct {
    gdn_trie_node *node;
    int32_t        n, cap;
    bool           starts[256]; /* bytes that begin a text */
} gdn_trie;

struct gdn_tokenizer {
    gdn_bpe    bpe;
    gdn_pretok pretok;
    bool       nfc;
    gdn_added *added; /* [n_added] by ascending id */
    size_t     n_added;
    gdn_trie   raw, normal; /* texts looked for before and after normalisation */
    int32_t    n_id;
};

/* Add a text to a tree.  GDN_E_INVALID: it is there already. */
gdn_status gdn_trie_add(gdn_trie *t, const char *s, size_t n, int32_t id);

/* The id of the longest text that s begins with and its length, or -1. */
int32_t gdn_trie_match(const gdn_trie *t, const char *s, size_t n, size_t *len);

const gdn_added *gdn_tokenizer_added(const gdn_tokenizer *t, int32_t id);

/* Read a tokenizer from the text of a tokenizer.json, which is written over; name is used
 * in messages only. */
gdn_status gdn_tokenizer_parse(char *json, size_t n, const char *name, gdn_tokenizer **out,
                               gdn_err *err);

#endif
