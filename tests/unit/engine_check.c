/* engine_check.c - what must be true of an engine at any moment, and answers to compare with. */
#include "engine_check.h"

#include <stdlib.h>
#include <string.h>

/* --- the tree -------------------------------------------------------------------------------- */

static int32_t check_below(const gdn_radix_node *node, bool tight) {
    int32_t n_child = 0, n_value = node->value != NULL;
    for (const gdn_radix_node *c = node->child; c != NULL; c = c->next) {
        n_child++;
        assert_true(c->parent == node);
        assert_true(c->n_edge > 0);
        assert_int_equal(c->depth, node->depth + c->n_edge);
        for (const gdn_radix_node *d = c->next; d != NULL; d = d->next)
            assert_int_not_equal(c->edge[0], d->edge[0]);
        n_value += check_below(c, tight);
    }
    if (node->parent == NULL) return n_value;
    if (n_child == 0) assert_non_null(node->value);
    if (n_child == 1 && tight) assert_non_null(node->value);
    return n_value;
}

int32_t check_radix(const gdn_radix *t, bool tight) {
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_root; i++) {
        for (int32_t k = 0; k < i; k++) assert_true(t->root[k]->key != t->root[i]->key);
        assert_null(t->root[i]->root.parent);
        assert_int_equal(t->root[i]->root.depth, 0);
        n += check_below(&t->root[i]->root, tight);
    }
    return n;
}

/* --- pages and snapshots --------------------------------------------------------------------- */

typedef struct {
    int32_t by_seq, by_snapshot, states, furthest, writers;
} owners;

static void hold(const gdn_engine *e, owners *o, int32_t page, bool snapshot, bool state) {
    assert_in_range(page, 1, e->pages.n_page - 1);
    o[page].by_seq += !snapshot;
    o[page].by_snapshot += snapshot;
    o[page].states += state;
}

/* Pages of keys of a holder of n_tok tokens. */
static void hold_keys(const gdn_engine *e, owners *o, const int32_t *page, int32_t n_page,
                      int32_t n_tok, bool snapshot) {
    const int32_t bs = e->plan.block_size;
    for (int32_t i = 0; i < n_page; i++) {
        hold(e, o, page[i], snapshot, false);
        const int32_t in = n_tok - i * bs < bs ? n_tok - i * bs : bs;
        if (in > o[page[i]].furthest) o[page[i]].furthest = in;
    }
}

static void check_sequence(const gdn_engine *e, owners *o, const gdn_seq *s) {
    const int32_t bs = e->plan.block_size;
    if (s->extended) assert_true(s->n_page >= gdn_blocks_for(e, s->length));
    else assert_int_equal(s->n_page, gdn_blocks_for(e, s->length));
    for (int32_t i = 0; i < s->n_page; i++)
        for (int32_t k = 0; k < i; k++) assert_int_not_equal(s->page[i], s->page[k]);
    for (int32_t g = 0; g < e->m->n_group; g++) {
        hold(e, o, s->slot[g], false, true);
        if (e->opts.n_draft > 0) hold(e, o, s->spare[g], false, true);
    }
    hold_keys(e, o, s->page, s->n_page, s->length, false);
    /* Where it may write. */
    for (int32_t i = s->length / bs; s->extended && i < s->n_page; i++) o[s->page[i]].writers++;
    if (e->opts.n_draft == 0) assert_int_equal(s->pending, 0);
    else assert_in_range(s->pending, 0, e->opts.n_draft - 1); /* all: the states were left */
    if (e->opts.mtp) {
        assert_true(s->mtp_length <= s->length);
        assert_true(s->length - 1 - s->mtp_length < GDN_MTP_BACKLOG);
    }
}

static void check_snapshots(gdn_engine *e, owners *o) {
    const gdn_snapshots *all = &e->snapshots;
    char *row = calloc((size_t)all->most + 1, 1);
    assert_non_null(row);
    int32_t n = 0;
    for (int32_t i = 0; i < all->n_free_hidden; i++) {
        assert_in_range(all->free_hidden[i], 0, all->most - 1);
        assert_int_equal(row[all->free_hidden[i]]++, 0);
    }
    for (const gdn_snapshot *s = all->first; s != NULL; s = s->next, n++) {
        assert_true(s->prev == NULL ? all->first == s : s->prev->next == s);
        assert_in_range(s->hidden, 0, all->most - 1);
        assert_int_equal(row[s->hidden]++, 0);
        assert_int_equal(s->n_page, gdn_blocks_for(e, s->n_tok));
        assert_true(s->node->value == s);
        assert_int_equal(s->node->depth, s->n_tok);
        for (int32_t g = 0; g < e->m->n_group; g++) hold(e, o, s->slot[g], true, true);
        hold_keys(e, o, s->page, s->n_page, s->n_tok, true);
        int32_t common, *tokens = malloc((size_t)s->n_tok * sizeof *tokens);
        assert_non_null(tokens);
        gdn_radix_tokens(s->node, tokens);
        assert_true(gdn_snapshot_find(e, s->key, tokens, s->n_tok, &common) == s);
        assert_int_equal(common, s->n_tok);
        free(tokens);
    }
    free(row);
    assert_int_equal(n, all->n);
    assert_true(n <= all->most);
    assert_int_equal(n + all->n_free_hidden, all->most);
    assert_int_equal(check_radix(&all->tree, true), n);
}

static void check_pages(const gdn_engine *e, const owners *o) {
    const gdn_pages *p = &e->pages;
    char *is_free = calloc((size_t)p->n_page, 1);
    assert_non_null(is_free);
    for (int32_t i = 0; i < p->n_free; i++) {
        assert_in_range(p->free[i], 1, p->n_page - 1);
        assert_int_equal(is_free[p->free[i]]++, 0);
    }
    int32_t n_snapshot = 0, used = 0;
    for (int32_t i = 1; i < p->n_page; i++) {
        const owners *w = o + i;
        if (w->by_seq != p->page[i].held[GDN_BY_SEQ] ||
            w->by_snapshot != p->page[i].held[GDN_BY_SNAPSHOT])
            fail_msg("page %d is held by %d sequences and %d snapshots, counted as %d and %d", i,
                     w->by_seq, w->by_snapshot, p->page[i].held[GDN_BY_SEQ],
                     p->page[i].held[GDN_BY_SNAPSHOT]);
        const bool held = w->by_seq + w->by_snapshot > 0;
        assert_int_equal(held, !is_free[i]);
        if (w->states > 0) assert_int_equal(w->by_seq + w->by_snapshot, 1);
        else if (held && w->furthest > p->page[i].filled)
            fail_msg("page %d has %d tokens, marked as %d", i, w->furthest, p->page[i].filled);
        if (w->writers > 1) fail_msg("page %d has %d writers", i, w->writers);
        used += held;
        n_snapshot += w->by_seq == 0 && w->by_snapshot > 0;
    }
    assert_int_equal(used + p->n_free, p->n_page - 1);
    assert_int_equal(n_snapshot, p->n_snapshot);
    if (n_snapshot > e->snapshots.most_page)
        fail_msg("snapshots hold %d pages, may hold %d", n_snapshot, e->snapshots.most_page);
    free(is_free);
}

static void check_stats(gdn_engine *e) {
    gdn_engine_stats s;
    int32_t running = 0, all = 0;
    gdn_engine_get_stats(e, &s);
    for (const gdn_request *r = e->sched->first; r != NULL; r = r->next, all++) {
        running += r->seq != NULL;
        assert_false(r->result.done);
        if (r->seq != NULL) assert_true(e->seq[r->seq->index] == r->seq);
        if (r->next == NULL) assert_true(e->sched->last == &r->next);
    }
    if (all == 0) assert_true(e->sched->last == &e->sched->first);
    assert_int_equal(s.n_running, running);
    assert_int_equal(s.n_running + s.n_waiting, all);
    assert_int_equal(gdn_engine_busy(e), all > 0);
    assert_true(s.snapshot_bytes <= s.snapshot_most);
    assert_int_equal(s.n_page_used + (uint64_t)e->pages.n_free, s.n_page);
    assert_true(s.cached_tokens <= s.prompt_tokens);
    assert_true(s.hits <= s.lookups && s.accepted <= s.drafted);
}

void check_engine(gdn_engine *e) {
    owners *o = calloc((size_t)e->pages.n_page, sizeof *o);
    assert_non_null(o);
    int64_t reserve = 0;
    for (int32_t i = 0; i < e->opts.n_seq; i++) {
        if (e->seq[i] == NULL) reserve += e->m->n_group * (e->opts.n_draft > 0 ? 2 : 1);
        else check_sequence(e, o, e->seq[i]);
    }
    assert_true(e->pages.n_free >= reserve); /* states of sequences to come have room */
    check_snapshots(e, o);
    check_pages(e, o);
    check_stats(e);
    free(o);
}

void check_idle(gdn_engine *e) {
    check_engine(e);
    assert_false(gdn_engine_busy(e));
    for (int32_t i = 0; i < e->opts.n_seq; i++) assert_null(e->seq[i]);
    while (e->snapshots.first != NULL) gdn_snapshot_drop(e, e->snapshots.first);
    check_engine(e);
    assert_int_equal(e->pages.n_free, e->pages.n_page - 1);
    assert_int_equal(e->pages.n_snapshot, 0);
}

void poison(gdn_engine *e) {
    const gdn_snapshots *all = &e->snapshots;
    const size_t page = e->plan.page_bytes, row = (size_t)e->m->config.d * 4;
    for (int32_t i = 0; i < e->m->n_storage; i++)
        for (int32_t k = 0; k < e->pages.n_free; k++)
            memset((char *)gdn_buffer_host(e->storage[i]) + page * (size_t)e->pages.free[k], 0xff,
                   page);
    for (int32_t k = 0; k < all->n_free_hidden; k++)
        memset((char *)gdn_buffer_host(e->hidden) + row * (size_t)all->free_hidden[k], 0xff, row);
    /* Hidden rows kept for sequences that are not there, and all of the last step's rows. */
    const int32_t kept = e->opts.mtp ? GDN_HIDDEN : 1;
    char *last = (char *)gdn_buffer_host(e->ws.last.buf) + e->ws.last.at;
    memset(last, 0xff, row * (size_t)e->opts.n_row);
    for (int32_t i = 0; i < e->opts.n_seq; i++)
        if (e->seq[i] == NULL)
            memset(last + row * (size_t)(e->opts.n_row + i * kept), 0xff, row * (size_t)kept);
}

void always_draft(gdn_engine *e) {
    gdn_draft_policy *p = &e->sched->policy;
    p->rate = 0.99;
    if (p->step % 128 >= 126) p->step += 4; /* past the plain step that it takes now and then */
    for (int i = 0; i < GDN_DRAFT_BUCKETS; i++) {
        p->plain_us[i] = 1000;
        p->draft_us[i] = 0.001;
        p->plain_seen[i] = p->draft_seen[i] = 8;
    }
}

/* --- answers of a prompt alone ---------------------------------------------------------------- */

void cold_open(cold *c, gdn_model *m, int32_t n_ctx, int32_t n_valid) {
    gdn_engine_opts o;
    gdn_err err;
    *c = (cold){.n_valid = n_valid};
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n_ctx;
    must(gdn_engine_create(m, &o, &c->e, &err), &err);
    c->logits = malloc((size_t)m->config.vocab * sizeof *c->logits);
    assert_non_null(c->logits);
}

void cold_close(cold *c) {
    while (c->first != NULL) {
        cold_answer *a = c->first;
        c->first = a->next;
        free(a->prompt);
        free(a);
    }
    free(c->logits);
    gdn_engine_free(c->e);
}

static void answer(cold *c, cold_answer *a) {
    gdn_err err;
    gdn_seq *s = NULL;
    gdn_sampler *sampler = NULL;
    int32_t last = a->n_prompt - 1;
    must(gdn_seq_create(c->e, &s, &err), &err);
    must(gdn_seq_set_adapter(s, a->adapter, &err), &err);
    must(gdn_sampler_create(&a->sampling, c->e->m->config.vocab, c->n_valid, &sampler, &err), &err);
    gdn_work w = {.seq = s, .tokens = a->prompt, .n = a->n_prompt, .out = &last, .n_out = 1,
                  .logits = c->logits};
    for (int32_t i = 0; i < a->n_new; i++) {
        must(gdn_engine_eval(c->e, &w, 1, NULL, NULL, NULL, &err), &err);
        must(gdn_sampler_next(sampler, c->logits, a->new + i, &err), &err);
        w.tokens = a->new + i;
        w.n = 1;
        last = 0;
    }
    gdn_sampler_free(sampler);
    gdn_seq_free(s);
}

const int32_t *cold_run(cold *c, const int32_t *prompt, int32_t n_prompt, const gdn_sampling *s,
                        const gdn_adapter *adapter, int32_t n_new) {
    const size_t bytes = (size_t)n_prompt * sizeof *prompt;
    assert_true(n_new <= COLD_NEW);
    cold_answer *a = c->first;
    while (a != NULL &&
           (a->n_prompt != n_prompt || a->adapter != adapter || memcmp(a->prompt, prompt, bytes) != 0 ||
            a->sampling.temperature != s->temperature || a->sampling.seed != s->seed ||
            a->sampling.repetition != s->repetition))
        a = a->next;
    if (a == NULL) {
        a = calloc(1, sizeof *a);
        assert_non_null(a);
        a->prompt = malloc(bytes);
        assert_non_null(a->prompt);
        memcpy(a->prompt, prompt, bytes);
        a->n_prompt = n_prompt;
        a->sampling = *s;
        a->adapter = adapter;
        a->next = c->first;
        c->first = a;
    }
    if (a->n_new < n_new) {
        a->n_new = n_new;
        answer(c, a);
    }
    return a->new;
}
