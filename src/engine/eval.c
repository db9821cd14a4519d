/* eval.c - from work on several sequences to steps of at most n_row rows.
 *
 * A step takes the next tokens of each sequence in the order of the work list until it is full.
 * How tokens fall into steps changes no result, so nothing here tries to be clever about it. */
#include <string.h>

#include "engine.h"

#define TRY(call)                                                                         \
    do {                                                                                  \
        const gdn_status st_ = (call);                                                    \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)

typedef gdn_part part;

static gdn_status check_work(const gdn_engine *e, const gdn_work *w, int32_t i, gdn_err *err) {
    const int32_t vocab = e->m->config.vocab;
    if (w->seq == NULL || w->seq->e != e)
        return gdn_fail(err, GDN_E_INVALID, "work %d: its sequence is not of this engine", i);
    if (w->seq->broken)
        return gdn_fail(err, GDN_E_INVALID, "work %d: its sequence was lost to a device error", i);
    if (w->n < 1 || w->tokens == NULL)
        return gdn_fail(err, GDN_E_INVALID, "work %d: %d tokens, need at least 1", i, w->n);
    for (int32_t t = 0; t < w->n; t++)
        if (w->tokens[t] < 0 || w->tokens[t] >= vocab)
            return gdn_fail(err, GDN_E_INVALID, "work %d: token %d is %d, need 0 to %d", i, t,
                            w->tokens[t], vocab - 1);
    if (w->n_out < 0 || (w->n_out > 0 && (w->out == NULL || w->logits == NULL)))
        return gdn_fail(err, GDN_E_INVALID, "work %d: %d outputs without room for them", i,
                        w->n_out);
    for (int32_t o = 0; o < w->n_out; o++) {
        const int32_t last = o > 0 ? w->out[o - 1] : -1;
        if (w->out[o] <= last || w->out[o] >= w->n)
            return gdn_fail(err, GDN_E_INVALID,
                            "work %d: out[%d] is %d, need more than %d and less than %d", i, o,
                            w->out[o], last, w->n);
        if (w->mtp != NULL && (w->out[o] >= w->n - 1 || !e->opts.mtp))
            return gdn_fail(err, GDN_E_INVALID, "work %d: no draft logits for token %d: %s", i,
                            w->out[o],
                            e->opts.mtp ? "the next token is not known"
                                        : "the engine runs without the MTP head");
    }
    return GDN_OK;
}

/* Pages for everything that is about to be stored, or none at all. */
static gdn_status take_pages(gdn_engine *e, const gdn_work *work, int32_t n_work, gdn_err *err) {
    int64_t need = 0;
    const int64_t bs = e->plan.block_size;
    for (int32_t i = 0; i < n_work; i++) {
        const gdn_seq *s = work[i].seq;
        const int64_t end = (int64_t)s->length + work[i].n;
        for (int32_t k = 0; k < i; k++)
            if (work[k].seq == s)
                return gdn_fail(err, GDN_E_INVALID, "work %d: its sequence is also in work %d", i,
                                k);
        if (end > e->opts.n_ctx)
            return gdn_fail(err, GDN_E_FULL, "%lld tokens do not fit a context of %d",
                            (long long)end, e->opts.n_ctx);
        const int64_t more = (end + bs - 1) / bs - s->n_page;
        if (e->m->n_attn > 0 && more > 0) need += more;
    }
    /* What sequences that are yet to come need for their states stays free. */
    int64_t keep = 0;
    for (int32_t i = 0; i < e->opts.n_seq; i++) keep += e->seq[i] == NULL ? e->m->n_group : 0;
    if (need > e->pages.n_free - keep)
        return gdn_fail(err, GDN_E_FULL, "%lld pages of %lld tokens are needed, %lld are free",
                        (long long)need, (long long)bs, (long long)(e->pages.n_free - keep));
    for (int32_t i = 0; i < n_work && e->m->n_attn > 0; i++) {
        gdn_seq *s = work[i].seq;
        const int64_t n = ((int64_t)s->length + work[i].n + bs - 1) / bs;
        while (s->n_page < n) s->page[s->n_page++] = gdn_page_take(&e->pages);
    }
    return GDN_OK;
}

/* After a cancelled or failed call: pages taken for tokens that were not evaluated. */
static void return_pages(gdn_engine *e, const gdn_work *work, int32_t n_work) {
    const int64_t bs = e->plan.block_size;
    for (int32_t i = 0; i < n_work; i++) {
        gdn_seq *s = work[i].seq;
        while (s->n_page > ((int64_t)s->length + bs - 1) / bs)
            gdn_page_give(&e->pages, s->page[--s->n_page]);
    }
}

/* The host's copy of a step's input, written to the device as one piece. */
static int32_t *stage(const gdn_engine *e, gdn_tensor t) { return e->stage + t.at / 4; }

static gdn_status send(gdn_engine *e, gdn_err *err) {
    return gdn_queue_write(e->q, e->input, 0, e->stage, gdn_buffer_bytes(e->input), err);
}

static void set_row(gdn_engine *e, int32_t row, int32_t id, int32_t position) {
    stage(e, e->in.ids)[row] = id;
    for (int k = 0; k < 3; k++) stage(e, e->in.pos)[3 * row + k] = position;
}

/* Rows of the step that hold part p, after n_past tokens. */
static void set_sequence(gdn_engine *e, int32_t i, const gdn_seq *s, int32_t begin, int32_t n,
                         int32_t n_past) {
    stage(e, e->in.seq_start)[i] = begin;
    stage(e, e->in.seq_start)[i + 1] = begin + n;
    stage(e, e->in.n_past)[i] = n_past;
    stage(e, e->in.has_state)[i] = s->length > 0;
    for (int32_t k = 0; k < n; k++) stage(e, e->in.adapter)[begin + k] = s->adapter;
    if (s->n_page > 0)
        memcpy(stage(e, e->in.page) + (int64_t)i * e->in.page.shape[1], s->page,
               (size_t)s->n_page * sizeof *s->page);
    for (int32_t g = 0; g < e->m->n_group; g++) stage(e, e->in.slot[g])[i] = s->slot[g];
}

static gdn_rows rows_view(gdn_engine *e, int32_t n_row, int32_t n_seq, gdn_tensor *slot) {
    const gdn_step_input *in = &e->in;
    for (int32_t g = 0; g < e->m->n_group; g++)
        slot[g] = gdn_tensor_slice(in->slot[g], 0, 0, n_seq);
    bool adapted = false;
    for (int32_t i = 0; i < n_row; i++) adapted = adapted || stage(e, in->adapter)[i] >= 0;
    return (gdn_rows){
        .ids = gdn_tensor_slice(in->ids, 0, 0, n_row),
        .adapter = adapted ? gdn_tensor_slice(in->adapter, 0, 0, n_row) : (gdn_tensor){0},
        .pos = gdn_tensor_slice(in->pos, 0, 0, n_row),
        .has_state = gdn_tensor_slice(in->has_state, 0, 0, n_seq),
        .slot = slot,
        .kv = {.seq_start = gdn_tensor_slice(in->seq_start, 0, 0, n_seq + 1),
               .n_past = gdn_tensor_slice(in->n_past, 0, 0, n_seq),
               .page = gdn_tensor_slice(in->page, 0, 0, n_seq),
               .block_size = e->plan.block_size},
    };
}

/* Rows wanted from ws.last, a few at a time through the head to where the caller wants them. */
typedef struct {
    gdn_engine *e;
    gdn_forward *f;
    int32_t n;
    float *to[GDN_MAX_LOGIT];
} logit_batch;

static gdn_status flush_logits(logit_batch *b, gdn_err *err) {
    gdn_engine *e = b->e;
    if (b->n == 0) return GDN_OK;
    const uint64_t row = (uint64_t)e->m->config.vocab * sizeof(float);
    TRY(send(e, err));
    TRY(gdn_forward_logits(b->f, gdn_tensor_slice(e->in.out, 0, 0, b->n), err));
    for (int32_t i = 0; i < b->n; i++)
        TRY(gdn_queue_read(e->q, b->to[i], e->ws.logits.buf, e->ws.logits.at + (uint64_t)i * row,
                           row, err));
    TRY(gdn_queue_wait(e->q, err));
    b->n = 0;
    return GDN_OK;
}

static gdn_status want_logits(logit_batch *b, int32_t row, float *to, gdn_err *err) {
    stage(b->e, b->e->in.out)[b->n] = row;
    b->to[b->n++] = to;
    return b->n == b->e->n_logit ? flush_logits(b, err) : GDN_OK;
}

/* --- the MTP head ------------------------------------------------------------------- */

/* Where the hidden row of a sequence's last token is kept from step to step: one of two places
 * in turn, so that the new one can be saved while the old one is still needed. */
static int32_t kept_row(const gdn_engine *e, const gdn_seq *s, bool next) {
    return e->opts.n_row + 2 * s->index + (s->kept ^ next);
}

static gdn_status keep_hidden(gdn_engine *e, const part *p, int32_t n_part, gdn_err *err) {
    for (int32_t i = 0; i < n_part; i++) {
        const int64_t row = kept_row(e, p[i].work->seq, true);
        gdn_embed_args a = {.y = gdn_tensor_slice(e->ws.last, 0, row, row + 1),
                            .ids = gdn_tensor_slice(e->in.keep, 0, i, i + 1),
                            .table = e->ws.last};
        TRY(gdn_op_embed(e->q, &a, err));
    }
    return GDN_OK;
}

/* Pairs (hidden row of t, token t + 1) that the parts complete: t from the token before the part
 * to the last but one of it. */
static gdn_status mtp_step(gdn_engine *e, gdn_forward *f, part *p, int32_t n_part,
                           logit_batch *batch, gdn_err *err) {
    int32_t n_row = 0, n_seq = 0;
    TRY(keep_hidden(e, p, n_part, err));
    for (int32_t i = 0; i < n_part; i++) {
        const gdn_seq *s = p[i].work->seq;
        const int32_t first = s->length > 0 ? 0 : 1, n = p[i].n - first, begin = n_row;
        for (int32_t k = first; k < p[i].n; k++, n_row++) { /* k: of token t + 1 in the part */
            const int32_t t = s->length + k - 1;
            set_row(e, n_row, p[i].work->tokens[p[i].from + k], t);
            stage(e, e->in.hidden)[n_row] = k > 0 ? p[i].row + k - 1 : kept_row(e, s, false);
        }
        p[i].row = begin - first; /* row of the pair that token k of the part completes */
        if (n > 0) set_sequence(e, n_seq++, s, begin, n, s->length > 0 ? s->length - 1 : 0);
    }
    if (n_row > 0) {
        gdn_tensor slot[GDN_MAX_GROUP];
        const gdn_rows rows = rows_view(e, n_row, n_seq, slot);
        TRY(send(e, err));
        TRY(gdn_forward_mtp(f, &rows, gdn_tensor_slice(e->in.hidden, 0, 0, n_row), err));
        for (int32_t i = 0; i < n_part; i++) {
            const gdn_work *w = p[i].work;
            for (int32_t k = p[i].from + p[i].n; w->mtp != NULL && p[i].mtp_out < w->n_out &&
                                                 w->out[p[i].mtp_out] + 1 < k;
                 p[i].mtp_out++)
                TRY(want_logits(batch, p[i].row + w->out[p[i].mtp_out] + 1 - p[i].from,
                                w->mtp + (int64_t)p[i].mtp_out * e->m->config.vocab, err));
        }
        TRY(flush_logits(batch, err));
    }
    for (int32_t i = 0; i < n_part; i++) p[i].work->seq->kept ^= 1;
    return GDN_OK;
}

/* --- steps --------------------------------------------------------------------------- */

/* Fill a step from the parts' next tokens.  Returns its rows. */
static int32_t fill(gdn_engine *e, part *p, int32_t n_part, part *step, int32_t *n_step) {
    int32_t n_row = 0;
    *n_step = 0;
    for (int32_t i = 0; i < n_part && n_row < e->opts.n_row; i++) {
        const int32_t left = p[i].work->n - p[i].from, room = e->opts.n_row - n_row;
        if (left == 0) continue;
        part now = p[i];
        now.n = left < room ? left : room;
        now.row = n_row;
        const gdn_seq *s = now.work->seq;
        for (int32_t k = 0; k < now.n; k++)
            set_row(e, n_row + k, now.work->tokens[now.from + k], s->length + k);
        set_sequence(e, *n_step, s, n_row, now.n, s->length);
        stage(e, e->in.keep)[*n_step] = n_row + now.n - 1;
        n_row += now.n;
        now.index = i;
        step[(*n_step)++] = now;
    }
    return n_row;
}

static gdn_status run_step(gdn_engine *e, part *step, int32_t n_step, int32_t n_row,
                           gdn_err *err) {
    const gdn_pool_view pool = {.storage = e->storage,
                                .page_bytes = e->plan.page_bytes,
                                .conv_bytes = e->plan.conv_bytes,
                                .n_page = e->pages.n_page,
                                .block_size = e->plan.block_size};
    gdn_forward f = {.m = e->m,
                     .q = e->q,
                     .pool = &pool,
                     .ws = &e->ws,
                     .tap = e->tap,
                     .tap_arg = e->tap_arg};
    gdn_tensor slot[GDN_MAX_GROUP];
    const gdn_rows rows = rows_view(e, n_row, n_step, slot);
    TRY(send(e, err));
    TRY(gdn_forward_rows(&f, &rows, err));
    logit_batch batch = {.e = e, .f = &f};
    for (int32_t i = 0; i < n_step; i++) {
        const gdn_work *w = step[i].work;
        for (; step[i].out < w->n_out && w->out[step[i].out] < step[i].from + step[i].n;
             step[i].out++)
            TRY(want_logits(&batch, step[i].row + w->out[step[i].out] - step[i].from,
                            w->logits + (int64_t)step[i].out * e->m->config.vocab, err));
    }
    TRY(flush_logits(&batch, err));
    if (e->opts.mtp) TRY(mtp_step(e, &f, step, n_step, &batch, err));
    return gdn_queue_wait(e->q, err);
}

gdn_status gdn_engine_eval(gdn_engine *e, const gdn_work *work, int32_t n_work,
                           gdn_progress_fn *progress, void *progress_arg,
                           const volatile bool *cancel, gdn_err *err) {
    if (n_work < 1 || n_work > e->opts.n_seq || work == NULL)
        return gdn_fail(err, GDN_E_INVALID, "%d pieces of work for an engine of %d sequences",
                        n_work, e->opts.n_seq);
    uint64_t total = 0, done = 0;
    for (int32_t i = 0; i < n_work; i++) {
        TRY(check_work(e, work + i, i, err));
        total += (uint64_t)work[i].n;
    }
    TRY(take_pages(e, work, n_work, err));
    part *p = e->part, *step = e->part + e->opts.n_seq;
    for (int32_t i = 0; i < n_work; i++) p[i] = (part){.work = work + i};
    while (done < total) {
        int32_t n_step;
        const int32_t n_row = fill(e, p, n_work, step, &n_step);
        const gdn_status st = run_step(e, step, n_step, n_row, err);
        if (st != GDN_OK) {
            for (int32_t i = 0; i < n_work; i++) work[i].seq->broken = true;
            return_pages(e, work, n_work);
            return st;
        }
        for (int32_t i = 0; i < n_step; i++) {
            part *of = p + step[i].index;
            of->from += step[i].n;
            of->out = step[i].out;
            of->mtp_out = step[i].mtp_out;
            of->work->seq->length += step[i].n;
        }
        done += (uint64_t)n_row;
        e->steps++;
        e->rows += (uint64_t)n_row;
        if (progress != NULL) progress(progress_arg, done, total);
        if (cancel != NULL && *cancel && done < total) {
            return_pages(e, work, n_work);
            return gdn_fail(err, GDN_E_CANCELLED, "cancelled after %llu of %llu tokens",
                            (unsigned long long)done, (unsigned long long)total);
        }
    }
    return GDN_OK;
}
