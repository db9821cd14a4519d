/* snapshot.c - saved positions of sequences, and which of them to keep.
 *
 * A recurrent state cannot be cut back: once a token is folded in, what it displaced is gone.  So a
 * prefix can be reused only at positions saved beforehand.  A snapshot has copies of the states
 * there, shares the keys and values before it, and keeps the last hidden row, from which logits and
 * drafts of the very position follow. */
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "engine.h"

static void unlink_snapshot(gdn_snapshots *all, gdn_snapshot *s) {
    if (s->prev != NULL) s->prev->next = s->next;
    else all->first = s->next;
    if (s->next != NULL) s->next->prev = s->prev;
    all->n--;
}

void gdn_snapshot_drop(gdn_engine *e, gdn_snapshot *s) {
    gdn_snapshots *all = &e->snapshots;
    for (int32_t i = 0; i < s->n_page; i++)
        if (s->page[i] != 0) gdn_page_drop(&e->pages, s->page[i], GDN_BY_SNAPSHOT);
    for (int32_t g = 0; g < e->m->n_group; g++)
        if (s->slot[g] != 0) gdn_page_drop(&e->pages, s->slot[g], GDN_BY_SNAPSHOT);
    all->free_hidden[all->n_free_hidden++] = s->hidden;
    if (s->node != NULL) gdn_radix_remove(s->node);
    unlink_snapshot(all, s);
    free(s->page);
    free(s);
}

gdn_status gdn_snapshots_init(gdn_engine *e, gdn_err *err) {
    gdn_snapshots *all = &e->snapshots;
    const uint64_t page = e->plan.page_bytes * (uint64_t)e->m->n_storage;
    const int32_t group = e->m->n_group > 0 ? e->m->n_group : 1;
    if (e->opts.cache_bytes == GDN_CACHE_AUTO) {
        /* Keys and values may use what no sequence needs; the states have pages of their own. */
        all->most_page = e->pages.n_page - 1 - e->opts.n_seq * group;
        all->most = e->opts.n_seq * e->n_auto;
    } else {
        const uint64_t pages = e->opts.cache_bytes / (page > 0 ? page : 1);
        all->most_page = pages > INT32_MAX / 4 ? INT32_MAX / 4 : (int32_t)pages;
        all->most = all->most_page / group;
    }
    if (all->most == 0) return GDN_OK;
    all->free_hidden = malloc((size_t)all->most * sizeof *all->free_hidden);
    if (all->free_hidden == NULL) return gdn_fail(err, GDN_E_NOMEM, "snapshots: out of memory");
    for (int32_t i = all->most - 1; i >= 0; i--) all->free_hidden[all->n_free_hidden++] = i;
    return gdn_buffer_alloc(e->m->device, (uint64_t)all->most * (uint64_t)e->m->config.d * 4,
                            &e->hidden, err);
}

void gdn_snapshots_release(gdn_engine *e) {
    while (e->snapshots.first != NULL) gdn_snapshot_drop(e, e->snapshots.first);
    gdn_radix_release(&e->snapshots.tree);
    free(e->snapshots.free_hidden);
    gdn_buffer_free(e->hidden);
    e->hidden = NULL;
}

/* --- which to keep ------------------------------------------------------------------------ */

/* Pages that evicting s would free. */
static int32_t pages_of(const gdn_engine *e, const gdn_snapshot *s) {
    int32_t n = e->m->n_group;
    for (int32_t i = 0; i < s->n_page; i++) {
        const gdn_page *p = e->pages.page + s->page[i];
        n += p->held[GDN_BY_SEQ] == 0 && p->held[GDN_BY_SNAPSHOT] == 1;
    }
    return n;
}

/* What losing s would cost, the tokens back to the next shorter one, as often as it was asked for,
 * against the memory it takes and how long nobody asked.  Dense interior ones go first, and long
 * ones that nobody came back to. */
static double usefulness(const gdn_engine *e, const gdn_snapshot *s) {
    const gdn_radix_node *above = gdn_radix_above(s->node);
    const int32_t lost = s->n_tok - (above != NULL ? above->depth : 0);
    const double age = (double)(e->snapshots.tick - s->used + 1);
    return (double)lost * (1.0 + (double)s->n_use) / (age * (double)(pages_of(e, s) + 1));
}

static bool evict_one(gdn_engine *e) {
    gdn_snapshots *all = &e->snapshots;
    gdn_snapshot *worst = NULL;
    double least = 0;
    for (gdn_snapshot *s = all->first; s != NULL; s = s->next) {
        const double u = usefulness(e, s);
        if (worst != NULL && u >= least) continue;
        worst = s;
        least = u;
    }
    if (worst == NULL) return false;
    gdn_snapshot_drop(e, worst);
    all->evicted++;
    return true;
}

void gdn_snapshots_make_room(gdn_engine *e, int64_t n) {
    /* Not in vain; without its snapshot a page need not be copied, hence one less would do. */
    if (gdn_seq_pages_left(e) + e->pages.n_snapshot + 1 < n) return;
    while (gdn_seq_pages_left(e) < n && evict_one(e)) {}
}

void gdn_snapshots_keep_budget(gdn_engine *e) {
    while (e->pages.n_snapshot > e->snapshots.most_page && evict_one(e)) {}
}

/* --- find, restore, save -------------------------------------------------------------------- */

gdn_snapshot *gdn_snapshot_find(gdn_engine *e, uint64_t key, const int32_t *tokens, int32_t n,
                                int32_t *common) {
    const gdn_radix_node *node = gdn_radix_find(&e->snapshots.tree, key, tokens, n, common);
    return node != NULL ? node->value : NULL;
}

static gdn_status copy_state(gdn_engine *e, int32_t to, int32_t from, gdn_err *err) {
    const uint64_t bytes = e->plan.conv_bytes + e->plan.state_bytes, page = e->plan.page_bytes;
    for (int32_t i = 0; i < e->m->n_storage; i++) {
        const gdn_status st = gdn_queue_copy(e->q, e->storage[i], (uint64_t)to * page,
                                             e->storage[i], (uint64_t)from * page, bytes, err);
        if (st != GDN_OK) return st;
    }
    return GDN_OK;
}

gdn_status gdn_snapshot_restore(gdn_seq *s, gdn_snapshot *from, gdn_err *err) {
    gdn_engine *e = s->e;
    const uint64_t row = (uint64_t)e->m->config.d * 4;
    for (int32_t g = 0; g < e->m->n_group; g++) {
        const gdn_status st = copy_state(e, s->slot[g], from->slot[g], err);
        if (st != GDN_OK) return st;
    }
    const uint64_t to = e->ws.last.at + (uint64_t)gdn_hidden_row(s, from->n_tok - 1) * row;
    const gdn_status st = gdn_queue_copy(e->q, e->ws.last.buf, to, e->hidden,
                                         (uint64_t)from->hidden * row, row, err);
    if (st != GDN_OK) return st;
    for (int32_t i = 0; i < from->n_page; i++) {
        s->page[i] = from->page[i];
        gdn_page_hold(&e->pages, s->page[i], GDN_BY_SEQ);
    }
    s->n_page = from->n_page;
    s->length = from->n_tok;
    s->mtp_length = e->opts.mtp ? from->n_tok - 1 : 0;
    s->pending = 0;
    from->used = ++e->snapshots.tick;
    from->n_use++;
    return GDN_OK;
}

gdn_snapshot *gdn_snapshot_make(gdn_engine *e, uint64_t key, const int32_t *tokens,
                                int32_t n_tok) {
    gdn_snapshots *all = &e->snapshots;
    const int32_t n_page = (int32_t)gdn_blocks_for(e, n_tok), n_group = e->m->n_group;
    if (n_page + n_group > all->most_page) return NULL;
    while (e->pages.n_snapshot + n_group > all->most_page || all->n_free_hidden == 0)
        if (!evict_one(e)) return NULL;
    gdn_snapshots_make_room(e, n_group);
    if (gdn_seq_pages_left(e) < n_group) return NULL;
    gdn_snapshot *s = calloc(1, sizeof *s);
    int32_t *ids = calloc((size_t)n_page + (size_t)n_group + 1, sizeof *ids);
    gdn_radix_node *node = s != NULL && ids != NULL
                               ? gdn_radix_insert(&all->tree, key, tokens, n_tok)
                               : NULL;
    if (node == NULL) {
        free(s);
        free(ids);
        return NULL;
    }
    *s = (gdn_snapshot){.node = node, .page = ids, .slot = ids + n_page, .n_page = n_page,
                        .n_tok = n_tok, .key = key, .next = all->first};
    s->hidden = all->free_hidden[--all->n_free_hidden];
    s->used = ++all->tick;
    node->value = s;
    if (all->first != NULL) all->first->prev = s;
    all->first = s;
    all->n++;
    for (int32_t g = 0; g < n_group; g++) s->slot[g] = gdn_page_take(&e->pages, GDN_BY_SNAPSHOT);
    return s;
}

gdn_status gdn_snapshot_save(gdn_seq *s, const int32_t *tokens, gdn_err *err) {
    gdn_engine *e = s->e;
    gdn_snapshots *all = &e->snapshots;
    int32_t common;
    if (all->most == 0 || s->length == 0) return GDN_OK;
    gdn_snapshot *old = gdn_snapshot_find(e, s->key, tokens, s->length, &common);
    if (old != NULL && old->n_tok == s->length) {
        old->used = ++all->tick;
        return GDN_OK;
    }
    gdn_status st = gdn_step_commit(e, &s, 1, err);
    if (st == GDN_OK && e->opts.mtp) st = gdn_step_pairs(e, &s, NULL, 1, NULL, err);
    if (st != GDN_OK) return st;
    gdn_snapshot *n = gdn_snapshot_make(e, s->key, tokens, s->length);
    if (n == NULL) return GDN_OK;
    for (int32_t i = 0; i < n->n_page; i++) {
        n->page[i] = s->page[i];
        gdn_page_hold(&e->pages, n->page[i], GDN_BY_SNAPSHOT);
    }
    const uint64_t row = (uint64_t)e->m->config.d * 4;
    for (int32_t g = 0; g < e->m->n_group && st == GDN_OK; g++)
        st = copy_state(e, n->slot[g], s->slot[g], err);
    if (st == GDN_OK)
        st = gdn_queue_copy(e->q, e->hidden, (uint64_t)n->hidden * row, e->ws.last.buf,
                            e->ws.last.at + (uint64_t)gdn_hidden_row(s, s->length - 1) * row, row,
                            err);
    if (st != GDN_OK) gdn_snapshot_drop(e, n);
    else all->saved++;
    return st;
}
