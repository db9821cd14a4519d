/* eval.c - from work on several sequences to steps of at most n_row rows.
 *
 * A step takes the next tokens of each sequence in the order of the work list until it is full.
 * How tokens fall into steps changes no result, so nothing here tries to be clever about it. */
#include <string.h>

#include "../base/err.h"
#include "engine.h"

#define TRY(call)                                                                         \
    do {                                                                                  \
        const gdn_status st_ = (call);                                                    \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)

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

static void end_work(const gdn_work *work, int32_t n_work) {
    for (int32_t i = 0; i < n_work; i++) gdn_seq_trim(work[i].seq);
}

/* Pages for everything that is about to be stored, or none at all. */
static gdn_status take_pages(gdn_engine *e, const gdn_work *work, int32_t n_work, gdn_err *err) {
    int64_t need = 0;
    for (int32_t i = 0; i < n_work; i++) {
        const gdn_seq *s = work[i].seq;
        for (int32_t k = 0; k < i; k++)
            if (work[k].seq == s)
                return gdn_fail(err, GDN_E_INVALID, "work %d: its sequence is also in work %d", i,
                                k);
        if ((int64_t)s->length + work[i].n > e->opts.n_ctx)
            return gdn_fail(err, GDN_E_FULL, "%lld tokens do not fit a context of %d",
                            (long long)s->length + work[i].n, e->opts.n_ctx);
        need += gdn_seq_pages_needed(s, work[i].n);
    }
    if (need > gdn_seq_pages_left(e)) gdn_snapshots_make_room(e, need);
    if (need > gdn_seq_pages_left(e))
        return gdn_fail(err, GDN_E_FULL, "%lld pages of %d tokens are needed, %lld are free",
                        (long long)need, e->plan.block_size, (long long)gdn_seq_pages_left(e));
    gdn_status st = GDN_OK;
    for (int32_t i = 0; i < n_work && st == GDN_OK; i++)
        st = gdn_seq_extend(work[i].seq, work[i].n, err);
    if (st != GDN_OK) end_work(work, n_work);
    return st;
}

/* Rows of ws.last that are wanted, a few at a time through the head to where they are wanted. */
typedef struct {
    gdn_engine *e;
    int32_t n, row[GDN_MAX_LOGIT];
    float *to[GDN_MAX_LOGIT];
} batch;

static gdn_status flush(batch *b, gdn_err *err) {
    const size_t vocab = (size_t)b->e->m->config.vocab;
    const float *logits;
    if (b->n == 0) return GDN_OK;
    TRY(gdn_step_logits(b->e, b->row, b->n, &logits, err));
    for (int32_t i = 0; i < b->n; i++)
        memcpy(b->to[i], logits + (size_t)i * vocab, vocab * sizeof *logits);
    b->n = 0;
    return GDN_OK;
}

static gdn_status want(batch *b, int32_t row, float *to, gdn_err *err) {
    b->row[b->n] = row;
    b->to[b->n++] = to;
    return b->n == b->e->n_logit ? flush(b, err) : GDN_OK;
}

/* Fill a step from the works' next tokens.  Returns its rows. */
static int32_t fill(gdn_engine *e, const gdn_work *work, const gdn_progress_of *at, int32_t n_work,
                    int32_t *of, int32_t *n_part) {
    int32_t n_row = 0;
    *n_part = 0;
    for (int32_t i = 0; i < n_work && n_row < e->opts.n_row; i++) {
        const int32_t left = work[i].n - at[i].from, room = e->opts.n_row - n_row;
        if (left == 0) continue;
        e->part[*n_part] = (gdn_part){.seq = work[i].seq, .tokens = work[i].tokens + at[i].from,
                                      .n = left < room ? left : room};
        n_row += e->part[*n_part].n;
        of[(*n_part)++] = i;
    }
    return n_row;
}

static gdn_status run_step(gdn_engine *e, const gdn_work *work, gdn_progress_of *at, const int32_t *of,
                           int32_t n_part, gdn_err *err) {
    const int64_t vocab = e->m->config.vocab;
    batch b = {.e = e};
    bool pairs = false;
    TRY(gdn_step_run(e, e->part, n_part, err));
    for (int32_t i = 0; i < n_part; i++) {
        const gdn_work *w = work + of[i];
        gdn_progress_of *p = at + of[i];
        for (; p->out < w->n_out && w->out[p->out] < p->from + e->part[i].n; p->out++)
            TRY(want(&b, e->part[i].row + w->out[p->out] - p->from, w->logits + p->out * vocab,
                     err));
        pairs = pairs || w->mtp != NULL;
    }
    TRY(flush(&b, err));
    TRY(gdn_step_advance(e, e->part, n_part, NULL, pairs, err));
    for (int32_t i = 0; i < n_part; i++) {
        const gdn_work *w = work + of[i];
        gdn_progress_of *p = at + of[i];
        p->from += e->part[i].n;
        /* Token k's pair needs token k + 1; the last pair's output is at part.pair. */
        for (; w->mtp != NULL && p->mtp_out < w->n_out && w->out[p->mtp_out] + 1 < p->from;
             p->mtp_out++)
            TRY(want(&b, e->part[i].pair - (p->from - 2 - w->out[p->mtp_out]),
                     w->mtp + p->mtp_out * vocab, err));
    }
    return flush(&b, err);
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
    gdn_progress_of *at = e->progress;
    int32_t *of = e->part_of;
    memset(at, 0, (size_t)n_work * sizeof *at);
    gdn_status st = GDN_OK;
    while (st == GDN_OK && done < total) {
        int32_t n_part;
        const int32_t n_row = fill(e, work, at, n_work, of, &n_part);
        st = run_step(e, work, at, of, n_part, err);
        for (int32_t i = 0; st != GDN_OK && i < n_work; i++) work[i].seq->broken = true;
        if (st != GDN_OK) break;
        done += (uint64_t)n_row;
        if (progress != NULL) progress(progress_arg, done, total);
        if (cancel != NULL && *cancel && done < total)
            st = gdn_fail(err, GDN_E_CANCELLED, "cancelled after %llu of %llu tokens",
                          (unsigned long long)done, (unsigned long long)total);
    }
    end_work(work, n_work);
    return st;
}
