/* tokenizer.c - text to token ids.
 *
 *     text ─► added tokens split out ─► what is left: NFC ─► added tokens marked
 *     "normalized" split out ─► pieces by the file's patterns ─► byte-pair encoding
 *
 * The order is that of Hugging Face's tokenizers, and so are the ids. */
#include "tokenizer.h"

#include "../base/err.h"
#include "nfc.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

/* --- added tokens -------------------------------------------------------------- */

/* The child of node for byte b, or 0. */
static int32_t child_of(const gdn_trie *t, int32_t node, uint8_t b) {
    int32_t c = t->node[node].child;
    while (c != 0 && t->node[c].byte != b) c = t->node[c].sibling;
    return c;
}

static int32_t new_node(gdn_trie *t, int32_t parent, uint8_t b) {
    if (t->n == t->cap) {
        const int32_t  cap = t->cap == 0 ? 64 : t->cap * 2;
        gdn_trie_node *p = realloc(t->node, (size_t)cap * sizeof *p);
        if (p == NULL) return -1;
        t->node = p;
        t->cap = cap;
    }
    const int32_t i = t->n++;
    t->node[i] = (gdn_trie_node){.id = -1, .byte = b};
    if (i > 0) { /* not the root */
        t->node[i].sibling = t->node[parent].child;
        t->node[parent].child = i;
    }
    return i;
}

gdn_status gdn_trie_add(gdn_trie *t, const char *s, size_t n, int32_t id) {
    if (t->n == 0 && new_node(t, 0, 0) < 0) return GDN_E_NOMEM;
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t c = child_of(t, node, (uint8_t)s[i]);
        if (c == 0) c = new_node(t, node, (uint8_t)s[i]);
        if (c < 0) return GDN_E_NOMEM;
        node = c;
    }
    if (t->node[node].id >= 0) return GDN_E_INVALID;
    t->node[node].id = id;
    t->starts[(uint8_t)s[0]] = true;
    return GDN_OK;
}

int32_t gdn_trie_match(const gdn_trie *t, const char *s, size_t n, size_t *len) {
    if (t->n == 0 || n == 0 || !t->starts[(uint8_t)s[0]]) return -1;
    int32_t node = 0, id = -1;
    for (size_t i = 0; i < n; i++) {
        node = child_of(t, node, (uint8_t)s[i]);
        if (node == 0) break;
        if (t->node[node].id >= 0) {
            id = t->node[node].id;
            *len = i + 1;
        }
    }
    return id;
}

const gdn_added *gdn_tokenizer_added(const gdn_tokenizer *t, int32_t id) {
    size_t lo = 0, hi = t->n_added;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (t->added[mid].id < id) lo = mid + 1;
        else hi = mid;
    }
    return lo < t->n_added && t->added[lo].id == id ? &t->added[lo] : NULL;
}

/* --- encoding -------------------------------------------------------------------- */

typedef struct {
    const gdn_tokenizer *t;
    bool                 parse_special;
    gdn_ids              ids;
    gdn_bpe_run          bpe;
    gdn_pretok_run       pretok;
} encoder;

typedef gdn_status stretch_fn(encoder *e, const char *s, size_t n, gdn_err *err);

/* Hand the text between added tokens to fn, and the added tokens to the list: the longest
 * at the leftmost place. */
static gdn_status split_added(encoder *e, const gdn_trie *trie, const char *s, size_t n,
                              stretch_fn *fn, gdn_err *err) {
    gdn_status st = GDN_OK;
    size_t     done = 0, len = 0;
    if (!e->parse_special || trie->n == 0) return fn(e, s, n, err);
    for (size_t i = 0; i < n && st == GDN_OK;) {
        const int32_t id = gdn_trie_match(trie, s + i, n - i, &len);
        if (id < 0) {
            i++;
            continue;
        }
        if (i > done) st = fn(e, s + done, i - done, err);
        if (st == GDN_OK) st = gdn_ids_add(&e->ids, id);
        i += len;
        done = i;
    }
    if (st == GDN_OK && done < n) st = fn(e, s + done, n - done, err);
    return st;
}

static gdn_status encode_piece(void *ctx, const char *s, size_t n, gdn_err *err) {
    encoder *e = ctx;
    (void)err;
    return gdn_bpe_encode(&e->t->bpe, &e->bpe, s, n, &e->ids);
}

static gdn_status encode_normal(encoder *e, const char *s, size_t n, gdn_err *err) {
    return gdn_pretok_split(&e->t->pretok, &e->pretok, s, n, encode_piece, e, err);
}

/* Text that is valid UTF-8. */
static gdn_status encode_valid(encoder *e, const char *s, size_t n, gdn_err *err) {
    char      *normal = NULL;
    gdn_status st = GDN_OK;
    if (e->t->nfc) st = gdn_nfc(s, n, &normal, &n);
    if (st == GDN_OK)
        st = split_added(e, &e->t->normal, normal != NULL ? normal : s, n, encode_normal, err);
    free(normal);
    return st;
}

/* Any bytes: what is not UTF-8 becomes the tokens of the single bytes. */
static gdn_status encode_bytes(encoder *e, const char *s, size_t n, gdn_err *err) {
    gdn_status st = GDN_OK;
    while (n > 0 && st == GDN_OK) {
        size_t k = gdn_utf8_valid(s, n);
        if (k > 0) {
            st = encode_valid(e, s, k, err);
        } else {
            st = gdn_ids_add(&e->ids, e->t->bpe.byte_id[(unsigned char)*s]);
            k = 1;
        }
        s += k;
        n -= k;
    }
    return st;
}

gdn_status gdn_tokenize(const gdn_tokenizer *t, const char *text, size_t n, bool parse_special,
                        int32_t **ids, size_t *n_ids, gdn_err *err) {
    *ids = NULL;
    *n_ids = 0;
    if (n == 0) return GDN_OK;
    if (n > INT32_MAX)
        return gdn_fail(err, GDN_E_INVALID, "tokenizer: %zu bytes at once, more than %d", n, INT32_MAX);
    encoder  e = {.t = t, .parse_special = parse_special};
    gdn_err  own = {0};
    gdn_err *why = err != NULL ? err : &own;
    why->text[0] = '\0';
    gdn_status st = gdn_bpe_run_init(&e.bpe, n);
    if (st == GDN_OK) st = gdn_pretok_run_init(&t->pretok, &e.pretok, n);
    if (st == GDN_OK) st = split_added(&e, &t->raw, text, n, encode_bytes, why);
    if (st == GDN_OK) {
        *ids = e.ids.id;
        *n_ids = e.ids.n;
    } else {
        free(e.ids.id);
        if (why->text[0] == '\0') gdn_fail(why, st, "tokenizer: %zu bytes: %s", n, gdn_status_text(st));
    }
    gdn_bpe_run_free(&e.bpe);
    gdn_pretok_run_free(&e.pretok);
    return st;
}

/* --- looking at tokens -------------------------------------------------------------- */

int32_t gdn_tokenizer_size(const gdn_tokenizer *t) {
    return t->n_id;
}

const char *gdn_token_bytes(const gdn_tokenizer *t, int32_t id, size_t *n) {
    const gdn_added *a = gdn_tokenizer_added(t, id);
    *n = 0;
    if (a != NULL) {
        *n = a->len;
        return a->text;
    }
    if (id < 0 || id >= t->bpe.n_id || t->bpe.token[id].at == GDN_NO_TEXT) return NULL;
    *n = t->bpe.token[id].len;
    return t->bpe.text + t->bpe.token[id].at;
}

int32_t gdn_token_find(const gdn_tokenizer *t, const char *text) {
    for (size_t i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].text, text) == 0) return t->added[i].id;
    return -1;
}

bool gdn_token_is_special(const gdn_tokenizer *t, int32_t id) {
    const gdn_added *a = gdn_tokenizer_added(t, id);
    return a != NULL && a->special;
}

void gdn_tokenizer_close(gdn_tokenizer *t) {
    if (t == NULL) return;
    for (size_t i = 0; i < t->n_added; i++) free(t->added[i].text);
    free(t->added);
    free(t->raw.node);
    free(t->normal.node);
    gdn_pretok_free(&t->pretok);
    gdn_bpe_free(&t->bpe);
    free(t);
}
