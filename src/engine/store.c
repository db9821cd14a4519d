/* store.c - sessions on disk: the snapshots along a run of tokens, saved and brought back.
 *
 * Whether a file fits is decided by its head, and all of it has been read and hashed before the
 * engine is touched.  Room is made for as many of its snapshots as fit, the deepest first; they
 * share the pages of their keys and values as they did when they were saved. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/backend.h"
#include "../base/err.h"
#include "../base/log.h"
#include "store.h"

#define TRY(call)                                                                         \
    do {                                                                                  \
        const gdn_status st_ = (call);                                                    \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)

/* --- the body, in the order of the file ------------------------------------------------------- */

/* Bytes of the body: to or from `at` of a buffer. */
typedef gdn_status move_fn(void *io, gdn_queue *q, gdn_buffer *b, uint64_t at, uint64_t bytes,
                           gdn_err *err);

typedef struct {
    gdn_engine *e;
    bool mtp;                  /* the MTP layer's entries are among them                     */
    int32_t n_tok;             /* of the longest snapshot                                    */
    const int32_t *page;       /* where keys and values of the first n_have tokens lie       */
    int32_t n_have;
    gdn_snapshot *const *snap; /* [n_snap] longest first; NULL: passed over                  */
    uint64_t n_snap;
    move_fn *move;
    void    *io;
} body;

static uint64_t token_bytes(const gdn_engine *e) {
    return (uint64_t)e->m->config.head_dim * (uint64_t)gdn_type_bytes(e->m->kv);
}

static gdn_status move_layer(const body *b, const gdn_layer *l, int32_t n_tok, gdn_err *err) {
    const gdn_engine *e = b->e;
    const int32_t bs = e->plan.block_size, hkv = e->m->config.hkv;
    const uint64_t row = token_bytes(e), head = (uint64_t)bs * row;
    for (int32_t kv = 0; kv < 2; kv++)
        for (int32_t h = 0; h < hkv; h++)
            for (int32_t t = 0; t < n_tok;) {
                const int32_t end = t < b->n_have && b->n_have < n_tok ? b->n_have : n_tok;
                const bool have = t < b->n_have;
                const int32_t n = have && end - t > bs ? bs : end - t;
                const uint64_t at = (uint64_t)(kv * hkv + h) * head;
                TRY(b->move(b->io, e->q, have ? e->storage[l->storage] : NULL,
                            have ? (uint64_t)b->page[t / bs] * e->plan.page_bytes + at : 0,
                            (uint64_t)n * row, err));
                t += n;
            }
    return GDN_OK;
}

static gdn_status move_snapshot(const body *b, const gdn_snapshot *s, gdn_err *err) {
    const gdn_engine *e = b->e;
    const gdn_model *m = e->m;
    const uint64_t row = (uint64_t)m->config.d * 4, page = e->plan.page_bytes;
    TRY(b->move(b->io, e->q, s != NULL ? e->hidden : NULL,
                s != NULL ? (uint64_t)s->hidden * row : 0, row, err));
    for (int32_t i = 0; i < m->config.n_layer; i++) {
        const gdn_layer *l = m->layer + i;
        if (l->full) continue;
        TRY(b->move(b->io, e->q, s != NULL ? e->storage[l->storage] : NULL,
                    s != NULL ? (uint64_t)s->slot[l->group] * page : 0,
                    e->plan.conv_bytes + e->plan.state_bytes, err));
    }
    return GDN_OK;
}

static gdn_status move_body(const body *b, gdn_err *err) {
    const gdn_model *m = b->e->m;
    for (int32_t i = 0; i < m->config.n_layer; i++)
        if (m->layer[i].full) TRY(move_layer(b, m->layer + i, b->n_tok, err));
    /* The pair of the last token waits for the token after it. */
    if (b->mtp) TRY(move_layer(b, &m->mtp.layer, b->n_tok - 1, err));
    for (uint64_t i = 0; i < b->n_snap; i++) TRY(move_snapshot(b, b->snap[i], err));
    return gdn_queue_wait(b->e->q, err);
}

/* What it comes to; a length that no file has when that is beyond all numbers. */
static uint64_t body_bytes(const gdn_engine *e, bool mtp, uint64_t n_tok, uint64_t n_snap) {
    const gdn_model *m = e->m;
    const gdn_config *c = &m->config;
    if (n_snap == 0) return 0;
    const uint64_t entries = n_tok * (uint64_t)c->n_full + (mtp ? n_tok - 1 : 0);
    const uint64_t entry = 2 * (uint64_t)c->hkv * token_bytes(e);
    const uint64_t one = (uint64_t)c->d * 4 +
                         (uint64_t)c->n_linear * (e->plan.conv_bytes + e->plan.state_bytes);
    const double all = (double)entries * (double)entry + (double)n_snap * (double)one;
    return all < 0x1p62 ? entries * entry + n_snap * one : UINT64_MAX;
}

/* --- whose it is ------------------------------------------------------------------------------ */

/* What results depend on, besides the tokens. */
static void describe(gdn_engine *e, const gdn_adapter *a, gdn_store_head *h) {
    const gdn_model *m = e->m;
    const gdn_backend *b = m->device->backend;
    if (e->fingerprint == 0) e->fingerprint = gdn_model_fingerprint(m);
    *h = (gdn_store_head){.model = e->fingerprint,
                          .adapter = a != NULL ? a->key : 0,
                          .flags = e->opts.mtp ? GDN_STORE_MTP : 0};
    snprintf(h->kernels, sizeof h->kernels, "%s %s", b->name,
             b->kernels != NULL ? b->kernels(m->device) : "");
    snprintf(h->types, sizeof h->types, "keys %s, convolution %s, products %s",
             gdn_type_name(m->kv), gdn_type_name(m->conv), gdn_type_name(m->act));
}

static gdn_status check_owner(gdn_engine *e, const gdn_adapter *a, const gdn_store_head *h,
                              const char *path, gdn_err *err) {
    gdn_store_head here;
    describe(e, a, &here);
    if (h->model != here.model)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: saved with model %016" PRIx64 ", and %s is %016" PRIx64, path,
                        h->model, e->m->dir, here.model);
    if (h->adapter != here.adapter)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: saved with adapter %016" PRIx64 ", and %016" PRIx64
                        " is in use (0: none)", path, h->adapter, here.adapter);
    if (strcmp(h->types, here.types) != 0)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: saved with %s, and here are %s", path,
                        h->types, here.types);
    if (strcmp(h->kernels, here.kernels) != 0)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: saved with the kernels of %s, and here run those of %s", path,
                        h->kernels, here.kernels);
    if ((h->flags & ~(uint32_t)GDN_STORE_MTP) != 0)
        return gdn_fail(err, GDN_E_FORMAT, "%s: flags %x", path, h->flags);
    if ((h->flags & GDN_STORE_MTP) != 0 && !e->m->has_mtp)
        return gdn_fail(err, GDN_E_FORMAT, "%s: entries of an MTP head, which the model lacks",
                        path);
    /* More than is needed does no harm. */
    if ((here.flags & ~h->flags) != 0)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: saved without the MTP head's entries, and here it is in use", path);
    return GDN_OK;
}

/* --- saving ----------------------------------------------------------------------------------- */

static gdn_status put(void *io, gdn_queue *q, gdn_buffer *b, uint64_t at, uint64_t bytes,
                      gdn_err *err) {
    return gdn_store_put(io, q, b, at, bytes, err);
}

static void put32(unsigned char *to, int32_t x) {
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)((uint32_t)x >> 8 * i);
}

/* The snapshots on the way, longest first, and the file's part that is not compressed. */
typedef struct {
    gdn_snapshot **snap;
    uint64_t n_snap;
    unsigned char *plain;
    uint64_t n_plain;
} content;

static gdn_status gather(gdn_engine *e, uint64_t key, const int32_t *tokens, int32_t n,
                         const void *note, size_t n_note, content *c) {
    int32_t common;
    const gdn_radix_node *last = gdn_radix_find(&e->snapshots.tree, key, tokens, n, &common);
    for (const gdn_radix_node *at = last; at != NULL; at = gdn_radix_above(at)) c->n_snap++;
    const uint64_t ints = (uint64_t)n + c->n_snap;
    if (n_note > SIZE_MAX / 2 - 4 * ints) return GDN_E_NOMEM;
    c->n_plain = 4 * ints + n_note;
    c->snap = malloc((c->n_snap + 1) * sizeof(gdn_snapshot *));
    c->plain = malloc(c->n_plain + 1);
    if (c->snap == NULL || c->plain == NULL) return GDN_E_NOMEM;
    unsigned char *p = c->plain;
    for (int32_t i = 0; i < n; i++, p += 4) put32(p, tokens[i]);
    uint64_t i = 0;
    for (const gdn_radix_node *at = last; at != NULL; at = gdn_radix_above(at), p += 4) {
        c->snap[i++] = at->value;
        put32(p, at->depth);
    }
    if (n_note > 0) memcpy(p, note, n_note);
    return GDN_OK;
}

static gdn_status write_session(gdn_engine *e, const content *c, gdn_store_head *h,
                                const char *path, gdn_err *err) {
    gdn_store_writer *w = NULL;
    gdn_status st = gdn_store_create(path, c->plain, c->n_plain, &w, err);
    if (st == GDN_OK && c->n_snap > 0) {
        const body b = {.e = e,
                        .mtp = e->opts.mtp,
                        .n_tok = c->snap[0]->n_tok,
                        .page = c->snap[0]->page,
                        .n_have = c->snap[0]->n_tok,
                        .snap = c->snap,
                        .n_snap = c->n_snap,
                        .move = put,
                        .io = w};
        st = move_body(&b, err);
        if (st != GDN_OK) gdn_queue_wait(e->q, NULL); /* the writer's memory is about to go */
    }
    if (st == GDN_OK) st = gdn_store_finish(w, h, err);
    gdn_store_free(w);
    return st;
}

static gdn_status check_adapter(const gdn_engine *e, const gdn_adapter *a, const char *path,
                                gdn_err *err) {
    if (a == NULL || a->m == e->m) return GDN_OK;
    return gdn_fail(err, GDN_E_INVALID, "%s: the adapter is of another model", path);
}

gdn_status gdn_session_save(gdn_engine *e, const gdn_adapter *a, const int32_t *tokens, int32_t n,
                            const void *note, size_t n_note, const char *path, gdn_err *err) {
    content c = {0};
    gdn_store_head h;
    TRY(check_adapter(e, a, path, err));
    if (n < 0 || (n > 0 && tokens == NULL) || (n_note > 0 && note == NULL))
        return gdn_fail(err, GDN_E_INVALID, "%s: %d tokens and a note of %zu bytes", path, n,
                        n_note);
    for (int32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= e->m->config.vocab)
            return gdn_fail(err, GDN_E_INVALID, "%s: token %d is %d, need 0 to %d", path, i,
                            tokens[i], e->m->config.vocab - 1);
    describe(e, a, &h);
    gdn_status st = gather(e, h.adapter, tokens, n, note, n_note, &c);
    if (st != GDN_OK) st = gdn_fail(err, st, "%s: out of memory", path);
    if (st == GDN_OK) {
        h.n_token = (uint64_t)n;
        h.n_snapshot = c.n_snap;
        h.n_note = n_note;
        h.body_bytes = body_bytes(e, e->opts.mtp, c.n_snap > 0 ? (uint64_t)c.snap[0]->n_tok : 0,
                                  c.n_snap);
        st = write_session(e, &c, &h, path, err);
    }
    free(c.snap);
    free(c.plain);
    if (st == GDN_OK)
        gdn_log(GDN_LOG_INFO, "session saved file=%s tokens=%d snapshots=%" PRIu64
                " bytes=%" PRIu64, path, n, h.n_snapshot, h.file_bytes);
    return st;
}

/* --- loading ---------------------------------------------------------------------------------- */

/* A file that was checked, and what of it is brought back: the snapshots first .. first + n - 1 of
 * those in the file, longest first. */
typedef struct {
    gdn_engine *e;
    const char *path;
    gdn_store_reader *r;
    gdn_store_head h;
    int32_t *tokens;     /* [n_token]                                            */
    int32_t *length;     /* [n_snapshot]                                         */
    gdn_snapshot **snap; /* [n_snapshot], NULL: not made, or there already       */
    bool    *missing;    /* [n_snapshot] to be made                              */
    uint64_t first, n;
    int32_t *page;       /* [n_page] keys and values, held by this load as well  */
    int32_t  n_page;
} load;

static gdn_status get(void *io, gdn_queue *q, gdn_buffer *b, uint64_t at, uint64_t bytes,
                      gdn_err *err) {
    return gdn_store_get(io, q, b, at, bytes, err);
}

static int32_t get32(const unsigned char *p) {
    return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                     (uint32_t)p[3] << 24);
}

static gdn_status check_ints(const load *l, gdn_err *err) {
    const int32_t vocab = l->e->m->config.vocab;
    for (uint64_t i = 0; i < l->h.n_token; i++)
        if (l->tokens[i] < 0 || l->tokens[i] >= vocab)
            return gdn_fail(err, GDN_E_FORMAT, "%s: token %" PRIu64 " is %d, need 0 to %d", l->path,
                            i, l->tokens[i], vocab - 1);
    for (uint64_t i = 0; i < l->h.n_snapshot; i++) {
        const int64_t below = i > 0 ? l->length[i - 1] : (int64_t)l->h.n_token + 1;
        if (l->length[i] < 1 || l->length[i] >= below)
            return gdn_fail(err, GDN_E_FORMAT,
                            "%s: snapshot %" PRIu64 " has %d tokens, need 1 to %" PRId64, l->path,
                            i, l->length[i], below - 1);
    }
    return GDN_OK;
}

/* Tokens, lengths and note; then the hashes of all the rest. */
static gdn_status read_all(load *l, unsigned char **note, gdn_err *err) {
    const gdn_store_head *h = &l->h;
    const uint64_t ints = h->n_token + h->n_snapshot;
    unsigned char *plain = NULL;
    TRY(gdn_store_plain(l->r, &plain, err));
    l->tokens = malloc((ints + 1) * sizeof *l->tokens);
    l->snap = calloc(h->n_snapshot + 1, sizeof(gdn_snapshot *));
    l->missing = calloc(h->n_snapshot + 1, sizeof *l->missing);
    if (l->tokens == NULL || l->snap == NULL || l->missing == NULL) {
        free(plain);
        return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", l->path);
    }
    l->length = l->tokens + h->n_token;
    for (uint64_t i = 0; i < ints; i++) l->tokens[i] = get32(plain + 4 * i);
    memmove(plain, plain + 4 * ints, h->n_note);
    plain[h->n_note] = '\0';
    *note = plain;
    TRY(check_ints(l, err));
    const uint64_t want = body_bytes(l->e, (h->flags & GDN_STORE_MTP) != 0,
                                     h->n_snapshot > 0 ? (uint64_t)l->length[0] : 0, h->n_snapshot);
    if (h->body_bytes != want)
        return gdn_fail(err, GDN_E_FORMAT,
                        "%s: its snapshots take %" PRIu64 " bytes, and its head says %" PRIu64,
                        l->path, want, h->body_bytes);
    return gdn_store_verify(l->r, err);
}

static gdn_snapshot *present(const load *l, uint64_t i) {
    int32_t common;
    gdn_snapshot *s = gdn_snapshot_find(l->e, l->h.adapter, l->tokens, l->length[i], &common);
    return s != NULL && s->n_tok == l->length[i] ? s : NULL;
}

/* The deepest that fit when all others are evicted. */
static void choose(load *l) {
    const gdn_engine *e = l->e;
    const gdn_snapshots *all = &e->snapshots;
    const int64_t group = e->m->n_group, left = gdn_seq_pages_left(e) + e->pages.n_snapshot;
    const int64_t most = left < all->most_page ? left : all->most_page;
    const uint64_t n = l->h.n_snapshot;
    while (l->first < n && (l->length[l->first] > e->opts.n_ctx ||
                            gdn_blocks_for(e, l->length[l->first]) + group > most))
        l->first++;
    if (l->first == n || all->most == 0) return;
    const int64_t rest = most - gdn_blocks_for(e, l->length[l->first]);
    uint64_t fit = (uint64_t)(group > 0 ? rest / group : all->most);
    if (fit > (uint64_t)all->most) fit = (uint64_t)all->most;
    l->n = n - l->first < fit ? n - l->first : fit;
}

/* Evict those that were not used for longest, until there is room for what is missing. */
static bool make_room(gdn_engine *e, int64_t n_page, int64_t n) {
    gdn_snapshots *all = &e->snapshots;
    for (;;) {
        if (gdn_seq_pages_left(e) >= n_page && all->n_free_hidden >= n &&
            e->pages.n_snapshot + n_page <= all->most_page)
            return true;
        gdn_snapshot *oldest = all->first;
        for (gdn_snapshot *s = all->first; s != NULL; s = s->next)
            if (s->used < oldest->used) oldest = s;
        if (oldest == NULL) return false;
        gdn_snapshot_drop(e, oldest);
        all->evicted++;
    }
}

/* Pages for the longest one's keys and values.  Marks are those that a sequence would have left
 * there (gdn_seq_extend). */
static void take_pages(load *l, const gdn_snapshot *there) {
    gdn_engine *e = l->e;
    const int32_t bs = e->plan.block_size, n_tok = l->length[l->first];
    for (; l->n_page < gdn_blocks_for(e, n_tok); l->n_page++) {
        int32_t *page = l->page + l->n_page;
        if (there != NULL) {
            *page = there->page[l->n_page];
            gdn_page_hold(&e->pages, *page, GDN_BY_SNAPSHOT);
            continue;
        }
        *page = gdn_page_take(&e->pages, GDN_BY_SNAPSHOT);
        const int64_t in = n_tok - (int64_t)l->n_page * bs;
        e->pages.page[*page].filled = in > bs ? bs + 1 : (int32_t)in;
    }
}

/* Make what is missing, the shortest first: the longest is then the last one used. */
static gdn_status make_snapshots(load *l, gdn_err *err) {
    gdn_engine *e = l->e;
    int64_t missing = 0;
    for (uint64_t i = l->first + l->n; i-- > l->first;) {
        gdn_snapshot *s = present(l, i);
        if (s != NULL) s->used = ++e->snapshots.tick;
        l->missing[i] = s == NULL;
        missing += s == NULL;
    }
    const gdn_snapshot *there = present(l, l->first);
    const int64_t pages = there == NULL ? gdn_blocks_for(e, l->length[l->first]) : 0;
    if (missing == 0) return GDN_OK;
    l->page = malloc((size_t)(gdn_blocks_for(e, l->length[l->first]) + 1) * sizeof *l->page);
    if (l->page == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", l->path);
    if (there != NULL) take_pages(l, there);
    if (!make_room(e, pages + missing * e->m->n_group, missing)) return GDN_OK;
    if (there == NULL) take_pages(l, NULL);
    for (uint64_t i = l->first + l->n; i-- > l->first;) {
        if (!l->missing[i]) continue;
        gdn_snapshot *s = gdn_snapshot_make(e, l->h.adapter, l->tokens, l->length[i]);
        if (s == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", l->path);
        for (int32_t k = 0; k < s->n_page; k++) {
            s->page[k] = l->page[k];
            gdn_page_hold(&e->pages, s->page[k], GDN_BY_SNAPSHOT);
        }
        l->snap[i] = s;
    }
    const body b = {.e = e,
                    .mtp = (l->h.flags & GDN_STORE_MTP) != 0,
                    .n_tok = l->length[0],
                    .page = l->page,
                    .n_have = there == NULL ? l->length[l->first] : 0,
                    .snap = l->snap,
                    .n_snap = l->h.n_snapshot,
                    .move = get,
                    .io = l->r};
    return move_body(&b, err);
}

/* All of them, or none. */
static gdn_status insert(load *l, gdn_err *err) {
    gdn_engine *e = l->e;
    choose(l);
    if (l->n == 0) return GDN_OK;
    const gdn_status st = make_snapshots(l, err);
    for (uint64_t i = 0; st != GDN_OK && i < l->h.n_snapshot; i++)
        if (l->snap[i] != NULL) gdn_snapshot_drop(e, l->snap[i]);
    for (int32_t i = 0; i < l->n_page; i++)
        gdn_page_drop(&e->pages, l->page[i], GDN_BY_SNAPSHOT);
    return st;
}

gdn_status gdn_session_load(gdn_engine *e, const gdn_adapter *a, const char *path, void **note,
                            size_t *n_note, gdn_err *err) {
    load l = {.e = e, .path = path};
    unsigned char *text = NULL;
    if (note != NULL) *note = NULL;
    if (n_note != NULL) *n_note = 0;
    TRY(check_adapter(e, a, path, err));
    gdn_status st = gdn_store_open(path, &l.r, err);
    if (st == GDN_OK) {
        l.h = *gdn_store_get_head(l.r);
        st = check_owner(e, a, &l.h, path, err);
    }
    if (st == GDN_OK) st = read_all(&l, &text, err);
    if (st == GDN_OK) st = insert(&l, err);
    gdn_store_close(l.r);
    free(l.tokens);
    free(l.snap);
    free(l.missing);
    free(l.page);
    if (st == GDN_OK)
        gdn_log(GDN_LOG_INFO, "session loaded file=%s tokens=%" PRIu64 " snapshots=%" PRIu64
                " of=%" PRIu64, path, l.h.n_token, l.n, l.h.n_snapshot);
    if (st == GDN_OK && n_note != NULL) *n_note = l.h.n_note;
    if (st == GDN_OK && note != NULL) *note = text;
    else free(text);
    return st;
}
