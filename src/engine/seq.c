/* seq.c - one sequence of tokens: its pages and where they are shared.
 *
 * A sequence of length L appends at position L.  The page of position L - 1 (and L, when it is
 * not full) may be shared with snapshots and with sequences that began at them.  With an MTP layer
 * even a full last page is written to: pair L - 1 waits for token L.  Hence the fill mark counts
 * one more than the page's tokens once that pair has an owner. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "../base/err.h"

void gdn_seq_free(gdn_seq *s) {
    if (s == NULL) return;
    gdn_engine *e = s->e;
    for (int32_t i = 0; i < s->n_page; i++) gdn_page_drop(&e->pages, s->page[i], GDN_BY_SEQ);
    for (int32_t g = 0; s->slot != NULL && g < gdn_seq_states(e); g++)
        if (s->slot[g] != 0) gdn_page_drop(&e->pages, s->slot[g], GDN_BY_SEQ);
    e->seq[s->index] = NULL;
    free(s->page);
    free(s->slot);
    free(s);
    gdn_snapshots_keep_budget(e);
}

gdn_status gdn_seq_create(gdn_engine *e, gdn_seq **out, gdn_err *err) {
    int32_t index = 0;
    while (index < e->opts.n_seq && e->seq[index] != NULL) index++;
    if (index == e->opts.n_seq)
        return gdn_fail(err, GDN_E_FULL, "all %d sequences of the engine are in use",
                        e->opts.n_seq);
    gdn_seq *s = calloc(1, sizeof *s);
    if (s == NULL) return gdn_fail(err, GDN_E_NOMEM, "sequence: out of memory");
    s->e = e;
    s->index = index;
    s->adapter = -1;
    e->seq[index] = s;
    s->page = calloc((size_t)e->max_block + 1, sizeof *s->page);
    s->slot = calloc((size_t)gdn_seq_states(e) + 1, sizeof *s->slot);
    if (e->opts.n_draft > 0 && s->slot != NULL) s->spare = s->slot + e->m->n_group;
    gdn_status st = GDN_OK;
    if (s->page == NULL || s->slot == NULL)
        st = gdn_fail(err, GDN_E_NOMEM, "sequence: out of memory");
    for (int32_t g = 0; st == GDN_OK && g < gdn_seq_states(e); g++)
        if ((s->slot[g] = gdn_page_take(&e->pages, GDN_BY_SEQ)) == 0)
            st = gdn_fail(err, GDN_E_FULL, "no page is free for another sequence");
    if (st == GDN_OK) *out = s;
    else gdn_seq_free(s);
    return st;
}

int32_t gdn_seq_length(const gdn_seq *s) { return s->length; }

gdn_status gdn_seq_set_adapter(gdn_seq *s, const gdn_adapter *a, gdn_err *err) {
    if (s->length > 0)
        return gdn_fail(err, GDN_E_INVALID, "sequence: an adapter after %d tokens", s->length);
    if (a != NULL && a->m != s->e->m)
        return gdn_fail(err, GDN_E_INVALID, "sequence: the adapter is of another model");
    s->adapter = a != NULL ? a->index : -1;
    s->key = a != NULL ? a->key : 0;
    return GDN_OK;
}

/* --- pages --------------------------------------------------------------------------- */

int64_t gdn_seq_pages_left(const gdn_engine *e) {
    int64_t keep = 0;
    for (int32_t i = 0; i < e->opts.n_seq; i++) keep += e->seq[i] == NULL ? gdn_seq_states(e) : 0;
    return e->pages.n_free - keep;
}

/* The last page in use, if appending writes to it: *seen tokens of it belong to s. */
static bool last_page(const gdn_seq *s, int32_t *index, int32_t *seen) {
    const int32_t bs = s->e->plan.block_size;
    if (s->e->m->n_attn == 0 || s->length == 0) return false;
    *index = (s->length - 1) / bs;
    *seen = s->length - *index * bs;
    return *seen < bs || s->e->opts.mtp;
}

/* The fill mark is the sequence's own while it is extended, and everybody's chance otherwise. */
static bool must_copy(const gdn_seq *s, int32_t index, int32_t seen) {
    const gdn_page *g = s->e->pages.page + s->page[index];
    return !s->extended && g->held[GDN_BY_SEQ] + g->held[GDN_BY_SNAPSHOT] > 1 && g->filled != seen;
}

int64_t gdn_seq_pages_needed(const gdn_seq *s, int32_t n) {
    int32_t index, seen;
    const int64_t more = gdn_blocks_for(s->e, (int64_t)s->length + n) - s->n_page;
    return (more > 0 ? more : 0) + (last_page(s, &index, &seen) && must_copy(s, index, seen));
}

gdn_status gdn_copy_page(gdn_engine *e, int32_t to, int32_t from, gdn_err *err) {
    const uint64_t bytes = e->plan.page_bytes;
    for (int32_t i = 0; i < e->m->n_storage; i++) {
        const gdn_status st =
            gdn_queue_copy(e->q, e->storage[i], (uint64_t)to * bytes, e->storage[i],
                           (uint64_t)from * bytes, bytes, err);
        if (st != GDN_OK) return st;
    }
    return GDN_OK;
}

gdn_status gdn_seq_extend(gdn_seq *s, int32_t n, gdn_err *err) {
    gdn_engine *e = s->e;
    const int32_t bs = e->plan.block_size;
    const int64_t end = (int64_t)s->length + n, need = gdn_seq_pages_needed(s, n);
    if (end > e->opts.n_ctx)
        return gdn_fail(err, GDN_E_FULL, "%lld tokens do not fit a context of %d", (long long)end,
                        e->opts.n_ctx);
    if (e->m->n_attn == 0) return GDN_OK;
    if (need > gdn_seq_pages_left(e)) gdn_snapshots_make_room(e, need);
    /* Evicting may have made a shared page the sequence's own. */
    const int64_t left = gdn_seq_pages_left(e), now = gdn_seq_pages_needed(s, n);
    if (now > left)
        return gdn_fail(err, GDN_E_FULL, "%lld pages of %d tokens are needed, %lld are free",
                        (long long)now, bs, (long long)left);
    int32_t index, seen;
    if (last_page(s, &index, &seen) && must_copy(s, index, seen)) {
        const int32_t copy = gdn_page_take(&e->pages, GDN_BY_SEQ);
        const gdn_status st = gdn_copy_page(e, copy, s->page[index], err);
        if (st != GDN_OK) {
            gdn_page_drop(&e->pages, copy, GDN_BY_SEQ);
            return st;
        }
        gdn_page_drop(&e->pages, s->page[index], GDN_BY_SEQ);
        s->page[index] = copy;
        gdn_snapshots_keep_budget(e); /* the other one may be the snapshots' own now */
    }
    while (s->n_page < gdn_blocks_for(e, end))
        s->page[s->n_page++] = gdn_page_take(&e->pages, GDN_BY_SEQ);
    /* Marks; a full page whose last pair has an owner counts one more than its tokens. */
    for (int64_t i = s->length > 0 ? (s->length - 1) / bs : 0; i < gdn_blocks_for(e, end); i++) {
        const int64_t in = end - i * bs;
        e->pages.page[s->page[i]].filled = in > bs ? bs + 1 : (int32_t)in;
    }
    s->extended = true;
    return GDN_OK;
}

/* Since it was extended, only this sequence can have moved the mark: it goes back to where the
 * sequence ends. */
void gdn_seq_trim(gdn_seq *s) {
    gdn_engine *e = s->e;
    if (!s->extended) return;
    s->extended = false;
    const int64_t keep = gdn_blocks_for(e, s->length);
    while (s->n_page > keep) gdn_page_drop(&e->pages, s->page[--s->n_page], GDN_BY_SEQ);
    if (keep > 0)
        e->pages.page[s->page[keep - 1]].filled =
            (int32_t)(s->length - (keep - 1) * e->plan.block_size);
}
