/* engine.c - an engine's memory: the pool, the workspace, room for drafts and snapshots. */
#include "sched.h"

#include <stdlib.h>
#include <string.h>

#include "../backend/backend.h"
#include "../base/log.h"

void gdn_engine_opts_defaults(gdn_engine_opts *o) {
    *o = (gdn_engine_opts){.n_seq = 1, .n_row = 512, .save_every = 2048};
}

void gdn_engine_free(gdn_engine *e) {
    if (e == NULL) return;
    gdn_sched_free(e);
    for (int32_t i = 0; e->seq != NULL && i < e->opts.n_seq; i++) gdn_seq_free(e->seq[i]);
    gdn_snapshots_release(e);
    gdn_queue_free(e->q); /* before the host's memory, which a read may still go to */
    free(e->seq);
    free(e->old);
    free(e->part_of);
    free(e->progress);
    free(e->logits);
    free(e->top_host);
    gdn_buffer_free(e->top);
    gdn_buffer_free(e->line);
    free(e->stage);
    free(e->part);
    for (int32_t i = 0; e->storage != NULL && i < e->m->n_storage; i++)
        gdn_buffer_free(e->storage[i]);
    free(e->storage);
    gdn_buffer_free(e->workspace);
    gdn_buffer_free(e->input);
    gdn_pages_release(&e->pages);
    free(e);
}

static gdn_status plan(gdn_engine *e, gdn_err *err) {
    const gdn_model *m = e->m;
    const gdn_config *c = &m->config;
    const gdn_backend *b = m->device->backend;
    const gdn_block_want w = {
        .hkv = m->n_attn > 0 ? c->hkv : 0,
        .head_dim = c->head_dim,
        .kv_bytes = gdn_type_bytes(m->kv),
        .hk = c->hk,
        .hv = c->n_linear > 0 ? c->hv : 0,
        .dk = c->dk,
        .dv = c->dv,
        .conv_width = c->conv_width,
        .conv_bytes = gdn_type_bytes(m->conv),
        .state_bytes = 4,
        .kv_multiple = b->kv_block_multiple,
        .gdn_multiple = b->gdn_block_multiple,
        .block_size = e->opts.block_size,
    };
    return gdn_plan_blocks(&w, &e->plan, err);
}

/* Pages beside those of keys and values: states, snapshots, page 0. */
static uint64_t fixed_pages(const gdn_engine *e) {
    const uint64_t unit = e->plan.page_bytes * (uint64_t)e->m->n_storage;
    const uint64_t n_seq = (uint64_t)e->opts.n_seq, group = (uint64_t)e->m->n_group;
    const uint64_t states = n_seq * (uint64_t)gdn_seq_states(e);
    const uint64_t cache = e->opts.cache_bytes == GDN_CACHE_AUTO
                               ? n_seq * group * (uint64_t)e->n_auto
                               : e->opts.cache_bytes / (unit > 0 ? unit : 1);
    return 1 + states + (cache < INT32_MAX ? cache : INT32_MAX);
}

/* Of what the weights leave of memory, the pool takes at most half, or nearly all when its size was
 * asked for.  It is cut to that, and the log says so, before a start is refused. */
static gdn_status fit_memory(gdn_engine *e, bool asked, gdn_err *err) {
    gdn_device_info d = {.memory_bytes = 0};
    const uint64_t held = e->m->info.resident_bytes;
    const uint64_t unit = e->plan.page_bytes * (uint64_t)e->m->n_storage;
    (void)gdn_device_find(gdn_device_name(e->m->device), &d, NULL);
    const uint64_t memory = d.memory_bytes;
    e->n_auto = GDN_AUTO_SNAPSHOTS;
    if (memory == 0 || unit == 0) return GDN_OK;
    const uint64_t rest = memory > held ? (memory - held) / 16 * 15 : 0;
    while (e->opts.cache_bytes == GDN_CACHE_AUTO && e->n_auto > 0 &&
           fixed_pages(e) > rest / unit / 2)
        e->n_auto /= 2;
    if (fixed_pages(e) > rest / unit)
        return gdn_fail(err, GDN_E_NOMEM, "states of %d sequences and %.1f GB of snapshots do not fit "
                        "the %.1f GB that are left", e->opts.n_seq,
                        e->opts.cache_bytes == GDN_CACHE_AUTO ? 0.0
                                                              : (double)e->opts.cache_bytes * 1e-9,
                        (double)rest * 1e-9);
    if (e->m->n_attn == 0) return GDN_OK; /* states alone are no longer */
    const uint64_t room = (asked ? rest : rest / 2) / unit, fixed = fixed_pages(e);
    uint64_t most = room > fixed ? (room - fixed) * (uint64_t)e->plan.block_size : 0;
    if (most < (uint64_t)e->plan.block_size) most = (uint64_t)e->plan.block_size;
    if ((uint64_t)e->opts.n_ctx <= most) return GDN_OK;
    gdn_log(GDN_LOG_WARN, "context clamped from=%d to=%llu memory_bytes=%llu", e->opts.n_ctx,
            (unsigned long long)most, (unsigned long long)memory);
    e->opts.n_ctx = (int32_t)most;
    return GDN_OK;
}

/* Pages for n_ctx tokens cut over n_seq sequences, for their states, for snapshots, and page 0. */
static gdn_status allocate_pool(gdn_engine *e, gdn_err *err) {
    const gdn_model *m = e->m;
    const int64_t bs = e->plan.block_size, n_seq = e->opts.n_seq;
    const int64_t kv = m->n_attn > 0 ? (e->opts.n_ctx + bs - 1) / bs + n_seq - 1 : 0;
    const int64_t n_page = kv + (int64_t)fixed_pages(e);
    const double bytes = (double)n_page * (double)e->plan.page_bytes * m->n_storage;
    if (n_page > INT32_MAX || bytes > 0x1p46)
        return gdn_fail(err, GDN_E_NOMEM, "a pool of %d tokens takes %.0f GB: ask for fewer with "
                        "--ctx", e->opts.n_ctx, bytes * 1e-9);
    e->max_block = m->n_attn > 0 ? (int32_t)((e->opts.n_ctx + bs - 1) / bs) : 0;
    if (!gdn_pages_init(&e->pages, (int32_t)n_page) ||
        (e->storage = calloc((size_t)m->n_storage, sizeof *e->storage)) == NULL ||
        (e->seq = calloc((size_t)n_seq, sizeof *e->seq)) == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "engine: out of memory");
    for (int32_t i = 0; i < m->n_storage; i++) {
        const gdn_status st = gdn_buffer_alloc(m->device, (uint64_t)n_page * e->plan.page_bytes,
                                               &e->storage[i], err);
        if (st == GDN_E_NOMEM) {
            gdn_err why = *err;
            return gdn_fail(err, st, "a pool of %d tokens takes %.1f GB, more than there is: ask "
                            "for fewer with --ctx (%s)", e->opts.n_ctx, bytes * 1e-9, why.text);
        }
        if (st != GDN_OK) return st;
    }
    return GDN_OK;
}

static gdn_tensor ints(gdn_buffer *b, uint64_t *at, int64_t rows, int64_t cols) {
    const int64_t shape[2] = {rows, cols};
    const gdn_tensor t = gdn_tensor_dense(b, *at, GDN_I32, cols > 0 ? 2 : 1, shape);
    *at += ((uint64_t)rows * (uint64_t)(cols > 0 ? cols : 1) * 4 + 63) / 64 * 64;
    return t;
}

/* Rows of ws.last behind those of a step. */
static int64_t kept_rows(const gdn_engine *e) {
    const int64_t n_seq = e->opts.n_seq;
    return e->opts.mtp ? 2 * n_seq * GDN_HIDDEN + e->opts.n_row : n_seq;
}

static uint64_t cut_input(gdn_engine *e, gdn_buffer *b) {
    const int64_t R = e->opts.n_row, S = e->opts.n_seq;
    gdn_step_input *in = &e->in;
    uint64_t at = 0;
    in->ids = ints(b, &at, R, 0);
    in->pos = ints(b, &at, R, 3);
    in->adapter = ints(b, &at, R, 0);
    in->last_adapter = ints(b, &at, R + kept_rows(e), 0);
    in->hidden = ints(b, &at, R, 0);
    in->out = ints(b, &at, R, 0);
    in->n_valid = ints(b, &at, R, 0);
    in->seq_start = ints(b, &at, S + 1, 0);
    in->n_past = ints(b, &at, S, 0);
    in->has_state = ints(b, &at, S, 0);
    in->line = ints(b, &at, S, 0);
    in->n_commit = ints(b, &at, S, 0);
    in->keep = ints(b, &at, S, 0);
    in->page = ints(b, &at, S, e->max_block > 0 ? e->max_block : 1);
    for (int32_t g = 0; g < e->m->n_group; g++) in->slot[g] = ints(b, &at, S, 0);
    for (int32_t g = 0; g < e->m->n_group; g++) in->spare[g] = ints(b, &at, S, 0);
    return at;
}

/* Logits on the host: whole rows, and what the sampler needs of those that stay away. */
static gdn_status allocate_logits(gdn_engine *e, gdn_err *err) {
    gdn_device *d = e->m->device;
    const size_t n = (size_t)e->n_logit;
    if (gdn_buffer_host(e->ws.logits.buf) != NULL) return GDN_OK;
    e->logits = malloc(n * (size_t)e->m->config.vocab * sizeof *e->logits);
    if (e->logits == NULL) return gdn_fail(err, GDN_E_NOMEM, "engine: out of memory");
    if (d->backend->op.top_k == NULL) return GDN_OK;
    const size_t bytes = gdn_top_words(n, GDN_TOP_K_MOST) * sizeof *e->top_host;
    e->top_host = malloc(bytes);
    if (e->top_host == NULL) return gdn_fail(err, GDN_E_NOMEM, "engine: out of memory");
    return gdn_buffer_alloc(d, bytes, &e->top, err);
}

/* What a step needs: workspace, the host's input, room for drafts. */
static gdn_status allocate_step(gdn_engine *e, gdn_err *err) {
    gdn_model *m = e->m;
    const gdn_config *c = &m->config;
    const int64_t n_seq = e->opts.n_seq, K = e->opts.n_draft;
    const bool drafts = e->opts.n_draft > 0 && m->n_group > 0;
    const gdn_step_size size = {
        .n_row = e->opts.n_row,
        .n_logit = e->n_logit,
        .n_kept = kept_rows(e),
        .n_line_row = drafts ? n_seq * K : 0,
    };
    gdn_status st = gdn_workspace_create(m, &size, &e->ws, &e->workspace, err);
    if (st != GDN_OK) return st;
    const uint64_t bytes = cut_input(e, NULL);
    st = gdn_buffer_alloc(m->device, bytes, &e->input, err);
    if (st != GDN_OK) return st;
    cut_input(e, e->input);
    if (drafts) {
        const int64_t C = 2 * (int64_t)c->hk * c->dk + (int64_t)c->hv * c->dv;
        const double need = (double)m->n_group * m->n_storage * (double)(n_seq * K) *
                            (double)(C + 2 * c->hv) * 4;
        if (need > 0x1p46)
            return gdn_fail(err, GDN_E_NOMEM, "drafts for %lld sequences", (long long)n_seq);
        st = gdn_buffer_alloc(m->device, (uint64_t)need, &e->line, err);
        if (st != GDN_OK) return st;
    }
    e->stage = calloc(1, bytes);
    e->part = calloc((size_t)n_seq, sizeof *e->part);
    e->old = calloc((size_t)n_seq, sizeof *e->old);
    e->part_of = calloc((size_t)n_seq, sizeof *e->part_of);
    e->progress = calloc((size_t)n_seq, sizeof *e->progress);
    if (e->stage == NULL || e->part == NULL || e->old == NULL ||
        e->part_of == NULL || e->progress == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "engine: out of memory");
    return allocate_logits(e, err);
}

static uint64_t regions_of(gdn_device *d) {
    if (d->backend->regions == NULL) return 0;
    pthread_mutex_lock(&d->busy);
    const uint64_t n = d->backend->regions(d);
    pthread_mutex_unlock(&d->busy);
    return n;
}

gdn_status gdn_engine_create(gdn_model *m, const gdn_engine_opts *opts, gdn_engine **out,
                             gdn_err *err) {
    gdn_engine_opts o;
    gdn_engine_opts_defaults(&o);
    if (opts != NULL) o = *opts;
    const bool any_ctx = o.n_ctx == 0;
    if (any_ctx) o.n_ctx = m->config.max_position;
    if (o.n_ctx < 1 || o.n_seq < 1 || o.n_seq > 65536 || o.n_row < 1 || o.n_row > 65536)
        return gdn_fail(err, GDN_E_INVALID,
                        "engine: n_ctx %d, n_seq %d, n_row %d: each at least 1, sequences and rows "
                        "at most 65536", o.n_ctx, o.n_seq, o.n_row);
    if (o.n_draft < 0 || o.n_draft > GDN_MAX_DRAFT || o.save_every < 0)
        return gdn_fail(err, GDN_E_INVALID, "engine: n_draft %d, save_every %d: need 0 to %d, and "
                        "0 or more", o.n_draft, o.save_every, GDN_MAX_DRAFT);
    if (o.save_every == 0) o.save_every = 2048;
    if (o.n_row < o.n_seq) o.n_row = o.n_seq;
    o.mtp = (o.mtp || o.n_draft > 0) && m->has_mtp;
    gdn_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return gdn_fail(err, GDN_E_NOMEM, "engine: out of memory");
    e->m = m;
    e->opts = o;
    /* About 32 MB of logits at a time. */
    e->n_logit = (int32_t)((uint64_t)(8 << 20) / (uint64_t)m->config.vocab);
    if (e->n_logit < 1) e->n_logit = 1;
    if (e->n_logit > o.n_row) e->n_logit = o.n_row;
    if (e->n_logit > GDN_MAX_LOGIT) e->n_logit = GDN_MAX_LOGIT;
    gdn_status st = plan(e, err);
    if (st == GDN_OK) st = fit_memory(e, !any_ctx, err);
    if (st == GDN_OK) st = gdn_queue_create(m->device, &e->q, err);
    if (st == GDN_OK) st = allocate_pool(e, err);
    if (st == GDN_OK) st = allocate_step(e, err);
    if (st == GDN_OK) st = gdn_snapshots_init(e, err);
    if (st == GDN_OK) st = gdn_sched_create(e, err);
    if (st != GDN_OK) {
        gdn_engine_free(e);
        return st;
    }
    e->regions = regions_of(m->device);
    if (e->opts.n_ctx > m->config.max_position)
        gdn_log(GDN_LOG_INFO, "engine ctx=%d beyond=%d: the model was made for fewer tokens",
                e->opts.n_ctx, m->config.max_position);
    gdn_log(GDN_LOG_INFO, "engine ctx=%d seqs=%d rows=%d block=%d page_bytes=%llu pages=%d",
            e->opts.n_ctx, o.n_seq, o.n_row, e->plan.block_size, (unsigned long long)e->plan.page_bytes,
            e->pages.n_page);
    *out = e;
    return GDN_OK;
}

void gdn_engine_get_stats(const gdn_engine *e, gdn_engine_stats *out) {
    gdn_device *d = e->m->device;
    const gdn_sched *s = e->sched;
    const gdn_snapshots *all = &e->snapshots;
    const uint64_t unit = e->plan.page_bytes * (uint64_t)e->m->n_storage;
    int32_t running = 0, waiting = 0;
    for (const gdn_request *r = s->first; r != NULL; r = r->next)
        if (r->seq != NULL) running++;
        else waiting++;
    gdn_counts n = {0};
    if (d->backend->counts != NULL) {
        pthread_mutex_lock(&d->busy);
        n = d->backend->counts(d);
        pthread_mutex_unlock(&d->busy);
    }
    *out = (gdn_engine_stats){
        .n_ctx = e->opts.n_ctx,
        .n_seq = e->opts.n_seq,
        .n_row = e->opts.n_row,
        .block_size = e->plan.block_size,
        .page_bytes = e->plan.page_bytes,
        .pool_bytes = (uint64_t)e->pages.n_page * e->plan.page_bytes * (uint64_t)e->m->n_storage,
        .workspace_bytes = gdn_buffer_bytes(e->workspace) + gdn_buffer_bytes(e->input),
        .n_page = (uint64_t)e->pages.n_page - 1,
        .n_page_used = (uint64_t)(e->pages.n_page - 1 - e->pages.n_free),
        .steps = e->steps,
        .rows = e->rows,
        .regions = regions_of(d) - e->regions,
        .waits = e->q->n_wait,
        .calls = n.calls,
        .launches = n.launches,
        .recorded = n.recorded,
        .replayed = n.replayed,
        .n_running = running,
        .n_waiting = waiting,
        .prompt_tokens = s->prompt_tokens,
        .cached_tokens = s->cached_tokens,
        .n_snapshot = (uint64_t)all->n,
        .snapshot_bytes = (uint64_t)e->pages.n_snapshot * unit,
        .snapshot_most = (uint64_t)all->most_page * unit,
        .lookups = all->lookups,
        .hits = all->hits,
        .saved = all->saved,
        .evicted = all->evicted,
        .preempted = s->preempted,
        .drafted = s->drafted,
        .accepted = s->accepted_drafts,
        .model_us = s->model_us,
        .total_us = s->total_us,
    };
}
