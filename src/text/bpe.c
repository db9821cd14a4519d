/* bpe.c - byte-pair encoding: the vocabulary's hash tables and the merging of pieces. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SHORT = 48,   /* up to here a scan for the lowest rank beats a queue */
    CACHED = 32,  /* longest piece that is looked up among those seen */
};

struct gdn_bpe_seen {
    uint32_t hash, n; /* n ids at out->id[at]; 0 for a free place */
    size_t   at;
};

static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static uint32_t hash_bytes(uint64_t seed, const char *s, size_t n) {
    uint64_t h = seed ^ n, w;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    w = 0;
    memcpy(&w, s, n);
    return (uint32_t)mix(h ^ w);
}

/* Smallest power of two that is at least twice n, so that tables stay half empty. */
static uint32_t table_size(size_t n) {
    uint32_t size = 16;
    while (size < 2 * n) size *= 2;
    return size;
}

gdn_status gdn_bpe_init(gdn_bpe *b, size_t n_text) {
    *b = (gdn_bpe){.cap_text = n_text};
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    b->seed = mix((uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uintptr_t)b);
    b->text = malloc(n_text + 1);
    return b->text != NULL ? GDN_OK : GDN_E_NOMEM;
}

void gdn_bpe_free(gdn_bpe *b) {
    free(b->text);
    free(b->token);
    free(b->word);
    free(b->list);
    free(b->merge);
    *b = (gdn_bpe){0};
}

/* The place of these bytes in the table of words: taken by them, or free. */
static int32_t *word_place(const gdn_bpe *b, const char *s, size_t n) {
    for (uint32_t i = hash_bytes(b->seed, s, n) & b->word_mask;; i = (i + 1) & b->word_mask) {
        int32_t *w = &b->word[i];
        if (*w < 0) return w;
        const gdn_span t = b->token[*w];
        if (t.len == n && memcmp(b->text + t.at, s, n) == 0) return w;
    }
}

gdn_status gdn_bpe_add_token(gdn_bpe *b, int32_t id, const char *s, size_t n, bool findable) {
    if (id >= b->cap_id) {
        int32_t cap = b->cap_id < 1024 ? 1024 : b->cap_id;
        while (cap <= id) cap *= 2;
        gdn_span *t = realloc(b->token, (size_t)cap * sizeof *t);
        if (t == NULL) return GDN_E_NOMEM;
        b->token = t;
        b->cap_id = cap;
    }
    for (; b->n_id <= id; b->n_id++) b->token[b->n_id] = (gdn_span){.at = GDN_NO_TEXT};
    if (b->token[id].at != GDN_NO_TEXT) return GDN_E_INVALID;
    if (n > b->cap_text - b->n_text) return GDN_E_NOMEM;
    memcpy(b->text + b->n_text, s, n);
    b->token[id] = (gdn_span){(uint32_t)b->n_text, n & INT32_MAX, findable};
    b->n_text += n;
    return GDN_OK;
}

gdn_status gdn_bpe_index_tokens(gdn_bpe *b, int32_t twins[2]) {
    size_t n = 0;
    for (int32_t id = 0; id < b->n_id; id++) n += b->token[id].findable;
    const uint32_t size = table_size(n);
    b->word = malloc(size * sizeof *b->word);
    if (b->word == NULL) return GDN_E_NOMEM;
    memset(b->word, 0xff, size * sizeof *b->word);
    b->word_mask = size - 1;
    for (int32_t id = 0; id < b->n_id; id++) {
        const gdn_span t = b->token[id];
        if (!t.findable) continue;
        int32_t *w = word_place(b, b->text + t.at, t.len);
        if (*w >= 0) {
            twins[0] = *w;
            twins[1] = id;
            return GDN_E_INVALID;
        }
        *w = id;
    }
    return GDN_OK;
}

int32_t gdn_bpe_find(const gdn_bpe *b, const char *s, size_t n) {
    return *word_place(b, s, n);
}

bool gdn_bpe_is(const gdn_bpe *b, int32_t id, const char *s, size_t n) {
    if (id < 0 || id >= b->n_id || !b->token[id].findable || b->token[id].len != n) return false;
    return memcmp(b->text + b->token[id].at, s, n) == 0;
}

int gdn_bpe_set_bytes(gdn_bpe *b) {
    for (int i = 0; i < 256; i++) {
        const char c = (char)i;
        b->byte_id[i] = gdn_bpe_find(b, &c, 1);
        if (b->byte_id[i] < 0) return i;
    }
    return -1;
}

/* --- merges ------------------------------------------------------------------ */

static gdn_merge *merge_place(const gdn_bpe *b, int32_t left, int32_t right) {
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t       i = (uint32_t)((pair ^ b->seed) * 0x9e3779b97f4a7c15u >> 32) & b->merge_mask;
    while (b->merge[i].pair != pair && b->merge[i].pair != UINT64_MAX)
        i = (i + 1) & b->merge_mask;
    return &b->merge[i];
}

gdn_status gdn_bpe_add_merge(gdn_bpe *b, int32_t left, int32_t right, int32_t id) {
    if (b->n_merge == b->cap_merge) {
        const uint32_t cap = b->cap_merge == 0 ? 4096 : b->cap_merge * 2;
        gdn_merge     *p = realloc(b->list, cap * sizeof *p);
        if (p == NULL) return GDN_E_NOMEM;
        b->list = p;
        b->cap_merge = cap;
    }
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    b->list[b->n_merge] = (gdn_merge){pair, b->n_merge, id};
    b->n_merge++;
    return GDN_OK;
}

gdn_status gdn_bpe_index_merges(gdn_bpe *b, uint32_t twins[2]) {
    const uint32_t size = table_size(b->n_merge);
    b->merge = malloc(size * sizeof *b->merge);
    if (b->merge == NULL) return GDN_E_NOMEM;
    memset(b->merge, 0xff, size * sizeof *b->merge);
    b->merge_mask = size - 1;
    for (uint32_t i = 0; i < b->n_merge; i++) {
        const gdn_merge x = b->list[i];
        gdn_merge      *m = merge_place(b, (int32_t)(x.pair >> 32), (int32_t)(uint32_t)x.pair);
        if (m->pair != UINT64_MAX) {
            twins[0] = m->rank;
            twins[1] = i;
            return GDN_E_INVALID;
        }
        *m = x;
    }
    free(b->list);
    b->list = NULL;
    return GDN_OK;
}

/* --- encoding ---------------------------------------------------------------- */

gdn_status gdn_ids_add(gdn_ids *ids, int32_t id) {
    if (ids->n == ids->cap) {
        const size_t cap = ids->cap < 64 ? 64 : ids->cap * 2;
        int32_t     *p = realloc(ids->id, cap * sizeof *p);
        if (p == NULL) return GDN_E_NOMEM;
        ids->id = p;
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return GDN_OK;
}

gdn_status gdn_bpe_run_init(gdn_bpe_run *run, size_t n_text) {
    *run = (gdn_bpe_run){0};
    if (n_text < 256) return GDN_OK; /* too short to repeat itself much */
    const uint32_t size = table_size(n_text > 1 << 17 ? 1 << 14 : n_text / 8);
    run->seen = calloc(size, sizeof *run->seen);
    if (run->seen == NULL) return GDN_E_NOMEM;
    run->seen_mask = size - 1;
    return GDN_OK;
}

void gdn_bpe_run_free(gdn_bpe_run *run) {
    free(run->seen);
    free(run->big);
    *run = (gdn_bpe_run){0};
}

/* Merge a piece of at most SHORT bytes: the ranks of all pairs in an array. */
static gdn_status encode_short(const gdn_bpe *b, const char *s, size_t n, gdn_ids *out) {
    int32_t  id[SHORT], merged[SHORT];
    uint32_t rank[SHORT];
    for (size_t i = 0; i < n; i++) id[i] = b->byte_id[(unsigned char)s[i]];
    for (size_t i = 0; i + 1 < n; i++) {
        const gdn_merge *m = merge_place(b, id[i], id[i + 1]);
        rank[i] = m->rank; /* a free place reads as UINT32_MAX: no merge */
        merged[i] = m->id;
    }
    for (;;) {
        size_t   best = 0;
        uint32_t low = UINT32_MAX;
        for (size_t i = 0; i + 1 < n; i++)
            if (rank[i] < low) low = rank[i], best = i;
        if (low == UINT32_MAX) break;
        id[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) id[i] = id[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) rank[i] = rank[i + 1], merged[i] = merged[i + 1];
        for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const gdn_merge *m = merge_place(b, id[i], id[i + 1]);
            rank[i] = m->rank;
            merged[i] = m->id;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (gdn_ids_add(out, id[i]) != GDN_OK) return GDN_E_NOMEM;
    return GDN_OK;
}

/* A long piece: symbols in a doubly linked list, candidate merges in a binary heap.  A
 * heap entry is rank << 32 | position of the left symbol, so the least entry is the
 * lowest rank, the leftmost of several.  Entries are not removed when a neighbour
 * changes; one whose pair has another rank by now is dropped when it comes up. */
typedef struct {
    int32_t  id; /* -1: swallowed by its left neighbour */
    uint32_t prev, next;
} symbol;

typedef struct {
    const gdn_bpe *b;
    symbol        *sym;
    uint64_t      *heap;
    size_t         n_heap;
} big_piece;

#define NO_SYMBOL UINT32_MAX

static void heap_push(big_piece *w, uint64_t x) {
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > x; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = x;
}

static uint64_t heap_pop(big_piece *w) {
    const uint64_t top = w->heap[0], x = w->heap[--w->n_heap];
    size_t         i = 0;
    for (size_t c; (c = 2 * i + 1) < w->n_heap; i = c) {
        if (c + 1 < w->n_heap && w->heap[c + 1] < w->heap[c]) c++;
        if (w->heap[c] >= x) break;
        w->heap[i] = w->heap[c];
    }
    w->heap[i] = x;
    return top;
}

/* Queue the merge of the symbols at i and its right neighbour, if there is one. */
static void queue_pair(big_piece *w, uint32_t i) {
    const uint32_t r = w->sym[i].next;
    if (r == NO_SYMBOL) return;
    const gdn_merge *m = merge_place(w->b, w->sym[i].id, w->sym[r].id);
    if (m->rank != UINT32_MAX) heap_push(w, (uint64_t)m->rank << 32 | i);
}

static void merge_all(big_piece *w) {
    symbol *sym = w->sym;
    while (w->n_heap > 0) {
        const uint64_t top = heap_pop(w);
        const uint32_t i = (uint32_t)top, rank = (uint32_t)(top >> 32);
        if (sym[i].id < 0 || sym[i].next == NO_SYMBOL) continue;
        const uint32_t   r = sym[i].next;
        const gdn_merge *m = merge_place(w->b, sym[i].id, sym[r].id);
        if (m->rank != rank) continue;
        sym[i].id = m->id;
        sym[i].next = sym[r].next;
        sym[r].id = -1;
        if (sym[i].next != NO_SYMBOL) sym[sym[i].next].prev = i;
        if (sym[i].prev != NO_SYMBOL) queue_pair(w, sym[i].prev);
        queue_pair(w, i);
    }
}

static gdn_status encode_long(const gdn_bpe *b, gdn_bpe_run *run, const char *s, size_t n,
                              gdn_ids *out) {
    /* A merge takes one entry out and puts at most two in: n + n entries are enough. */
    const size_t need = n * (sizeof(symbol) + 2 * sizeof(uint64_t));
    if (need > run->big_bytes) {
        free(run->big);
        run->big_bytes = 0;
        run->big = malloc(need);
        if (run->big == NULL) return GDN_E_NOMEM;
        run->big_bytes = need;
    }
    big_piece w = {.b = b, .heap = run->big};
    w.sym = (symbol *)(void *)(w.heap + 2 * n);
    for (size_t i = 0; i < n; i++) {
        w.sym[i] = (symbol){b->byte_id[(unsigned char)s[i]], (uint32_t)i - 1, (uint32_t)i + 1};
        if (i + 1 == n) w.sym[i].next = NO_SYMBOL;
    }
    for (size_t i = 0; i < n; i++) queue_pair(&w, (uint32_t)i);
    merge_all(&w);
    for (uint32_t i = 0; i != NO_SYMBOL; i = w.sym[i].next)
        if (gdn_ids_add(out, w.sym[i].id) != GDN_OK) return GDN_E_NOMEM;
    return GDN_OK;
}

/* Whether these ids stand for exactly these bytes. */
static bool ids_spell(const gdn_bpe *b, const int32_t *id, size_t n_id, const char *s, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < n_id; i++) {
        const gdn_span t = b->token[id[i]];
        if (t.len > n - at || memcmp(b->text + t.at, s + at, t.len) != 0) return false;
        at += t.len;
    }
    return at == n;
}

static gdn_status encode_new(const gdn_bpe *b, gdn_bpe_run *run, const char *s, size_t n,
                             gdn_ids *out) {
    if (b->ignore_merges) {
        const int32_t id = gdn_bpe_find(b, s, n);
        if (id >= 0) return gdn_ids_add(out, id);
    }
    return n <= SHORT ? encode_short(b, s, n, out) : encode_long(b, run, s, n, out);
}

/* Words repeat.  The table remembers where in the list the ids of a piece already stand;
 * that they are its ids is checked by spelling them out, so no text is kept. */
gdn_status gdn_bpe_encode(const gdn_bpe *b, gdn_bpe_run *run, const char *s, size_t n,
                          gdn_ids *out) {
    if (n == 0) return GDN_OK;
    if (n == 1) return gdn_ids_add(out, b->byte_id[(unsigned char)*s]);
    if (n > CACHED || run->seen == NULL) return encode_new(b, run, s, n, out);
    const uint32_t h = hash_bytes(b->seed, s, n);
    gdn_bpe_seen  *seen = &run->seen[h & run->seen_mask];
    if (seen->n != 0 && seen->hash == h &&
        ids_spell(b, out->id + seen->at, seen->n, s, n)) {
        for (size_t i = 0; i < seen->n; i++)
            if (gdn_ids_add(out, out->id[seen->at + i]) != GDN_OK) return GDN_E_NOMEM;
        return GDN_OK;
    }
    const size_t     at = out->n;
    const gdn_status st = encode_new(b, run, s, n, out);
    if (st == GDN_OK) *seen = (gdn_bpe_seen){h, (uint32_t)(out->n - at), at};
    return st;
}
