/* step.c - rows of several sequences through the model, and what is left of them afterwards.
 *
 *     run ─► rows of ws.last ─► logits of any of them ─► advance: which tokens stay
 *
 * All of it is queued, and waited for once: where logits are read, or, when nobody wanted any, at
 * the end of advance.  What comes behind the logits (hidden rows put aside, pairs, states that catch
 * up, snapshots) runs before the next step does, and is waited for with it.
 *
 * ws.last:  [ rows of the step | hidden rows kept for each sequence | outputs of the MTP head ]
 *
 * Pair t of the MTP layer is the hidden row of token t with token t + 1.  Pairs are evaluated when
 * a draft is wanted or many wait, so that a request without drafts pays next to nothing and can
 * still begin drafting at any time. */
#include <string.h>

#include "../backend/backend.h"
#include "../base/err.h"
#include "engine.h"

#define TRY(call)                                                                         \
    do {                                                                                  \
        const gdn_status st_ = (call);                                                    \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)

/* The host's copy of a step's input, written to the device as one piece. */
static int32_t *stage(const gdn_engine *e, gdn_tensor t) { return e->stage + t.at / 4; }

static gdn_status send(gdn_engine *e, gdn_err *err) {
    return gdn_queue_write(e->q, e->input, 0, e->stage, gdn_buffer_bytes(e->input), err);
}

static int32_t kept_rows(const gdn_engine *e) { return e->opts.mtp ? GDN_HIDDEN : 1; }

int32_t gdn_hidden_row(const gdn_seq *s, int32_t t) {
    const int32_t n = kept_rows(s->e);
    return s->e->opts.n_row + s->index * n + t % n;
}

static int32_t mtp_rows_at(const gdn_engine *e) {
    return e->opts.n_row + e->opts.n_seq * kept_rows(e);
}

static void set_row(gdn_engine *e, int32_t row, int32_t id, int32_t position, int32_t adapter) {
    stage(e, e->in.ids)[row] = id;
    stage(e, e->in.adapter)[row] = adapter;
    for (int k = 0; k < 3; k++) stage(e, e->in.pos)[3 * row + k] = position;
}

/* Sequence i of the step: rows begin .. begin + n - 1, after n_past tokens. */
static void set_sequence(gdn_engine *e, int32_t i, const gdn_seq *s, int32_t begin, int32_t n,
                         int32_t n_past, bool keep) {
    const gdn_step_input *in = &e->in;
    stage(e, in->seq_start)[i] = begin;
    stage(e, in->seq_start)[i + 1] = begin + n;
    stage(e, in->n_past)[i] = n_past;
    stage(e, in->has_state)[i] = s->length > 0;
    stage(e, in->line)[i] = s->index;
    stage(e, in->n_commit)[i] = s->pending;
    stage(e, in->keep)[i] = keep;
    if (s->n_page > 0)
        memcpy(stage(e, in->page) + (int64_t)i * in->page.shape[1], s->page,
               (size_t)s->n_page * sizeof *s->page);
    for (int32_t g = 0; g < e->m->n_group; g++) {
        stage(e, in->slot[g])[i] = s->slot[g];
        stage(e, in->spare[g])[i] = s->spare != NULL ? s->spare[g] : -1;
    }
}

/* The state pages of a step's sequences. */
typedef struct {
    gdn_tensor slot[GDN_MAX_GROUP], spare[GDN_MAX_GROUP];
} states;

static gdn_rows rows_view(gdn_engine *e, int32_t n_row, int32_t n_seq, states *of) {
    const gdn_step_input *in = &e->in;
    for (int32_t g = 0; g < e->m->n_group; g++) {
        of->slot[g] = gdn_tensor_slice(in->slot[g], 0, 0, n_seq);
        of->spare[g] = gdn_tensor_slice(in->spare[g], 0, 0, n_seq);
    }
    bool adapted = false;
    for (int32_t i = 0; i < n_row; i++) adapted = adapted || stage(e, in->adapter)[i] >= 0;
    gdn_rows r = {
        .ids = gdn_tensor_slice(in->ids, 0, 0, n_row),
        .adapter = adapted ? gdn_tensor_slice(in->adapter, 0, 0, n_row) : (gdn_tensor){0},
        .pos = gdn_tensor_slice(in->pos, 0, 0, n_row),
        .has_state = gdn_tensor_slice(in->has_state, 0, 0, n_seq),
        .slot = of->slot,
        .kv = {.seq_start = gdn_tensor_slice(in->seq_start, 0, 0, n_seq + 1),
               .n_past = gdn_tensor_slice(in->n_past, 0, 0, n_seq),
               .page = gdn_tensor_slice(in->page, 0, 0, n_seq),
               .block_size = e->plan.block_size},
    };
    if (e->line != NULL) {
        r.line = e->line;
        r.n_line = e->opts.n_seq;
        r.line_rows = e->opts.n_draft;
        r.line_index = gdn_tensor_slice(in->line, 0, 0, n_seq);
        r.n_commit = gdn_tensor_slice(in->n_commit, 0, 0, n_seq);
        r.keep = gdn_tensor_slice(in->keep, 0, 0, n_seq);
        r.spare = of->spare;
    }
    return r;
}

typedef struct {
    gdn_pool_view pool;
    gdn_forward f;
} pass;

static gdn_forward *forward(gdn_engine *e, pass *p) {
    p->pool = (gdn_pool_view){.storage = e->storage,
                              .page_bytes = e->plan.page_bytes,
                              .conv_bytes = e->plan.conv_bytes,
                              .n_page = e->pages.n_page,
                              .block_size = e->plan.block_size};
    p->f = (gdn_forward){.m = e->m,
                         .q = e->q,
                         .pool = &p->pool,
                         .ws = &e->ws,
                         .tap = e->tap,
                         .tap_arg = e->tap_arg};
    return &p->f;
}

/* --- passes ------------------------------------------------------------------------- */

/* What a device may make again as one (gdn_pass): ids, positions, lengths, pages and slots are read
 * from e->input, which lies where it lay, as do workspace and pool.  What is left are the sizes of
 * a pass and, of some, a place: `at`. */
enum { ROWS = 1, COMMIT, HEAD, MTP };

/* Queued as it was before.  Adapters are buffers that come and go, a tap looks at every layer, and for
 * many rows the time of a launch does not matter. */
static bool replayed(gdn_engine *e, gdn_pass p, bool adapted) {
    enum { MOST_ROWS = 64 };
    return !adapted && e->tap == NULL && p.n_row <= MOST_ROWS && gdn_pass_begin(e->q, &p);
}

static gdn_status passed(gdn_engine *e, gdn_status st) {
    gdn_pass_end(e->q, st == GDN_OK);
    return st;
}

gdn_status gdn_step_run(gdn_engine *e, gdn_part *part, int32_t n_part, gdn_err *err) {
    int32_t n_row = 0;
    for (int32_t i = 0; i < n_part; i++) {
        gdn_part *p = part + i;
        const gdn_seq *s = p->seq;
        p->row = n_row;
        for (int32_t k = 0; k < p->n; k++) {
            set_row(e, n_row + k, p->tokens[k], s->length + k, s->adapter);
            stage(e, e->in.last_adapter)[n_row + k] = s->adapter;
        }
        set_sequence(e, i, s, n_row, p->n, s->length, p->keep);
        n_row += p->n;
    }
    pass now;
    states of;
    const gdn_rows rows = rows_view(e, n_row, n_part, &of);
    TRY(send(e, err));
    const gdn_pass key = {.kind = ROWS, .n_row = n_row, .n_seq = n_part};
    if (!replayed(e, key, rows.adapter.buf != NULL))
        TRY(passed(e, gdn_forward_rows(forward(e, &now), &rows, err)));
    e->steps++;
    e->rows += (uint64_t)n_row;
    e->n_wait = e->q->n_wait;
    return GDN_OK;
}

gdn_status gdn_step_commit(gdn_engine *e, gdn_seq *const *seq, int32_t n, gdn_err *err) {
    int32_t n_seq = 0;
    for (int32_t i = 0; i < n; i++)
        if (seq[i]->pending > 0) set_sequence(e, n_seq++, seq[i], 0, 0, seq[i]->length, false);
    if (n_seq == 0) return GDN_OK;
    pass now;
    states of;
    const gdn_rows rows = rows_view(e, 0, n_seq, &of);
    TRY(send(e, err));
    if (!replayed(e, (gdn_pass){.kind = COMMIT, .n_seq = n_seq}, false))
        TRY(passed(e, gdn_forward_commit(forward(e, &now), &rows, err)));
    for (int32_t i = 0; i < n; i++) seq[i]->pending = 0;
    return GDN_OK;
}

/* --- logits ------------------------------------------------------------------------ */

/* A piece of e->top that follows the one before. */
static gdn_tensor top_piece(const gdn_engine *e, uint64_t *at, gdn_type type, int64_t n,
                            int64_t k) {
    const int64_t shape[2] = {n, k};
    const gdn_tensor t = gdn_tensor_dense(e->top, *at, type, k > 0 ? 2 : 1, shape);
    *at += (uint64_t)(n * (k > 0 ? k : 1)) * 4;
    return t;
}

/* The k largest of n rows of ws.logits, into e->top. */
static gdn_status largest(gdn_engine *e, int32_t n, int32_t k, gdn_err *err) {
    uint64_t at = 0;
    gdn_top_k_args a = {.x = gdn_tensor_slice(e->ws.logits, 0, 0, n),
                        .n_valid = gdn_tensor_slice(e->in.n_valid, 0, 0, n)};
    a.id = top_piece(e, &at, GDN_I32, n, k);
    a.value = top_piece(e, &at, GDN_F32, n, k);
    a.found = top_piece(e, &at, GDN_I32, n, 0);
    a.min = top_piece(e, &at, GDN_F32, n, 0);
    return gdn_op_top_k(e->q, &a, err);
}

static gdn_status logits_of(gdn_engine *e, int32_t n, int32_t k, gdn_err *err) {
    pass now;
    TRY(gdn_forward_logits(forward(e, &now), gdn_tensor_slice(e->in.out, 0, 0, n), err));
    return k > 0 ? largest(e, n, k, err) : GDN_OK;
}

/* Rows of ws.last through the head, into ws.logits; with k > 0 their k largest into e->top. */
static gdn_status head(gdn_engine *e, const int32_t *row, int32_t n, int32_t k, gdn_err *err) {
    int32_t *adapter = stage(e, e->in.last_adapter);
    const int32_t kept = kept_rows(e);
    bool adapted = false;
    memcpy(stage(e, e->in.out), row, (size_t)n * sizeof *row);
    for (int32_t i = 0; i < n; i++) {
        if (row[i] >= e->opts.n_row && row[i] < mtp_rows_at(e)) /* a sequence's own rows */
            adapter[row[i]] = e->seq[(row[i] - e->opts.n_row) / kept]->adapter;
        adapted = adapted || adapter[row[i]] >= 0;
    }
    e->ws.adapter = adapted ? e->in.last_adapter : (gdn_tensor){0};
    TRY(send(e, err));
    const gdn_pass key = {.kind = HEAD, .n_row = n, .at = k};
    return replayed(e, key, adapted) ? GDN_OK : passed(e, logits_of(e, n, k, err));
}

/* Rows first .. first + n - 1 of ws.logits to the host's copy. */
static gdn_status fetch(gdn_engine *e, int32_t first, int32_t n, gdn_err *err) {
    const uint64_t row = (uint64_t)e->m->config.vocab * sizeof *e->logits;
    const uint64_t at = (uint64_t)first * row;
    return gdn_queue_read(e->q, (char *)e->logits + at, e->ws.logits.buf,
                          e->ws.logits.at + at, (uint64_t)n * row, err);
}

/* Where nothing computes: token 0 is the likeliest. */
static void no_logits(const gdn_engine *e, int32_t n) {
    const size_t vocab = (size_t)e->m->config.vocab;
    memset(e->logits, 0, (size_t)n * vocab * sizeof *e->logits);
    for (int32_t i = 0; i < n; i++) e->logits[(size_t)i * vocab] = 64.0f;
}

gdn_status gdn_step_logits(gdn_engine *e, const int32_t *row, int32_t n, const float **logits,
                           gdn_err *err) {
    TRY(head(e, row, n, 0, err));
    char *host = gdn_buffer_host(e->ws.logits.buf);
    if (host == NULL) TRY(fetch(e, 0, n, err));
    TRY(gdn_queue_wait(e->q, err));
    if (host == NULL && e->m->device->dry_run) no_logits(e, n);
    *logits = host != NULL ? (const float *)(const void *)(host + e->ws.logits.at) : e->logits;
    return GDN_OK;
}

static void no_top(const gdn_engine *e, int32_t n, int32_t k) {
    int32_t *id = e->top_host, *found = id + 2 * (int64_t)n * k;
    float *value = (float *)(void *)(id + (int64_t)n * k);
    memset(e->top_host, 0, gdn_top_words((size_t)n, (size_t)k) * sizeof *e->top_host);
    for (int32_t i = 0; i < n; i++) {
        value[(int64_t)i * k] = 64.0f;
        found[i] = 1;
    }
}

/* Row i of n, of what largest() read. */
static void take_top(const gdn_engine *e, int32_t i, int32_t n, int32_t k,
                     gdn_logits *to) {
    const int32_t *id = e->top_host, *found = id + 2 * (int64_t)n * k;
    const float *value = (const float *)(const void *)(id + (int64_t)n * k);
    to->all = NULL;
    to->id = id + (int64_t)i * k;
    to->value = value + (int64_t)i * k;
    to->found = found[i];
    to->min = ((const float *)(const void *)(found + n))[i];
}

gdn_status gdn_step_top(gdn_engine *e, const int32_t *row, int32_t n, gdn_logits *logits,
                        gdn_err *err) {
    const int64_t vocab = e->m->config.vocab;
    int32_t k = 0;
    for (int32_t i = 0; i < n; i++) k = logits[i].k > k ? logits[i].k : k;
    if (e->top == NULL || k == 0) {
        const float *all;
        TRY(gdn_step_logits(e, row, n, &all, err));
        for (int32_t i = 0; i < n; i++) logits[i].all = all + i * vocab;
        return GDN_OK;
    }
    for (int32_t i = 0; i < n; i++) stage(e, e->in.n_valid)[i] = logits[i].n_valid;
    TRY(head(e, row, n, k, err));
    TRY(gdn_queue_read(e->q, e->top_host, e->top, 0, gdn_top_words((size_t)n, (size_t)k) * 4, err));
    for (int32_t i = 0; i < n; i++)
        if (logits[i].k == 0) TRY(fetch(e, i, 1, err));
    TRY(gdn_queue_wait(e->q, err));
    if (e->m->device->dry_run) no_logits(e, n), no_top(e, n, k);
    for (int32_t i = 0; i < n; i++) {
        take_top(e, i, n, k, logits + i);
        if (logits[i].k == 0) logits[i].all = e->logits + i * vocab;
    }
    return GDN_OK;
}

gdn_status gdn_step_whole(gdn_engine *e, int32_t i, gdn_logits *logits, gdn_err *err) {
    if (logits->all != NULL) return GDN_OK;
    TRY(fetch(e, i, 1, err));
    TRY(gdn_queue_wait(e->q, err));
    logits->all = e->logits + (int64_t)i * e->m->config.vocab;
    return GDN_OK;
}

/* --- after a step ------------------------------------------------------------------------- */

/* Of part p, n tokens are right: where its states are now, and what they lack. */
static void settle_states(gdn_seq *s, const gdn_part *p, int32_t n) {
    s->pending = p->keep ? n - 1 : 0;
    if (s->pending == 0 || n < p->n || s->spare == NULL) return;
    for (int32_t g = 0; g < s->e->m->n_group; g++) {
        const int32_t slot = s->slot[g];
        s->slot[g] = s->spare[g];
        s->spare[g] = slot;
    }
    s->pending = 0;
}

/* Pairs of one sequence that a pass evaluates: from .. to - 1. */
typedef struct {
    const gdn_seq *s;
    const gdn_part *part; /* the step that tokens from `old` on came with; NULL: none */
    int32_t from, to, old, next; /* next: the token behind the sequence's last       */
} pairs_of;

static void add_pairs(gdn_engine *e, int32_t i, int32_t row, const pairs_of *p) {
    const gdn_seq *s = p->s;
    for (int32_t t = p->from; t < p->to; t++) {
        const int32_t token = t + 1 == s->length ? p->next
                              : t + 1 >= p->old  ? p->part->tokens[t + 1 - p->old]
                                                 : s->recent[(t + 1) % GDN_HIDDEN];
        set_row(e, row + t - p->from, token, t, s->adapter);
        stage(e, e->in.hidden)[row + t - p->from] =
            t >= p->old ? p->part->row + t - p->old : gdn_hidden_row(s, t);
    }
    set_sequence(e, i, s, row, p->to - p->from, p->from, false);
}

/* A pass of the MTP layer over what was staged; its output begins at row `out`. */
static gdn_status mtp_pass(gdn_engine *e, int32_t n_row, int32_t n_seq, int32_t out,
                           gdn_err *err) {
    pass now;
    states of;
    if (n_row == 0) return GDN_OK;
    const gdn_rows rows = rows_view(e, n_row, n_seq, &of);
    memcpy(stage(e, e->in.last_adapter) + out, stage(e, e->in.adapter),
           (size_t)n_row * sizeof(int32_t));
    TRY(send(e, err));
    const gdn_tensor hidden = gdn_tensor_slice(e->in.hidden, 0, 0, n_row);
    const gdn_pass key = {.kind = MTP, .n_row = n_row, .n_seq = n_seq, .at = out};
    if (replayed(e, key, rows.adapter.buf != NULL)) return GDN_OK;
    return passed(e, gdn_forward_mtp(forward(e, &now), &rows, hidden, out, err));
}

/* Passes of at most n_row rows, filled one sequence after the other. */
typedef struct {
    gdn_engine *e;
    int32_t n_row, n_seq, out;
} passes;

/* All pairs of p, and where the output for the last of them will lie. */
static gdn_status pass_pairs(passes *w, pairs_of p, int32_t *last, gdn_err *err) {
    const int32_t end = p.to;
    while (p.from < end) {
        const int32_t room = w->e->opts.n_row - w->n_row;
        p.to = end - p.from < room ? end : p.from + room;
        add_pairs(w->e, w->n_seq++, w->n_row, &p);
        w->n_row += p.to - p.from;
        *last = w->out + w->n_row - 1;
        p.from = p.to;
        if (w->n_row < w->e->opts.n_row) continue;
        TRY(mtp_pass(w->e, w->n_row, w->n_seq, w->out, err));
        w->out += w->n_row;
        w->n_row = w->n_seq = 0;
    }
    return GDN_OK;
}

/* Evaluate pairs that the step completed: all, or of sequences where many wait. */
static gdn_status run_pairs(gdn_engine *e, gdn_part *part, int32_t n_part, const int32_t *old,
                            bool all, gdn_err *err) {
    passes w = {.e = e, .out = mtp_rows_at(e)};
    for (int32_t i = 0; i < n_part; i++) {
        gdn_seq *s = part[i].seq;
        if (s->mtp_length >= s->length - 1 ||
            (!all && s->length - 1 - s->mtp_length < GDN_MTP_BACKLOG))
            continue;
        const pairs_of p = {.s = s, .part = part + i, .from = s->mtp_length,
                            .to = s->length - 1, .old = old[i]};
        TRY(pass_pairs(&w, p, &part[i].pair, err));
        s->mtp_length = s->length - 1;
    }
    return mtp_pass(e, w.n_row, w.n_seq, w.out, err);
}

gdn_status gdn_step_pairs(gdn_engine *e, gdn_seq *const *seq, const int32_t *next, int32_t n,
                          int32_t *row, gdn_err *err) {
    passes w = {.e = e, .out = mtp_rows_at(e)};
    for (int32_t i = 0; i < n; i++) {
        gdn_seq *s = seq[i];
        const pairs_of p = {.s = s, .from = s->mtp_length,
                            .to = next != NULL ? s->length : s->length - 1, .old = s->length,
                            .next = next != NULL ? next[i] : -1};
        int32_t last = -1;
        TRY(pass_pairs(&w, p, &last, err));
        if (row != NULL) row[i] = last;
        if (p.to > s->mtp_length) s->mtp_length = p.to;
    }
    return mtp_pass(e, w.n_row, w.n_seq, w.out, err);
}

/* Put aside the hidden rows of the step's tokens from .. length - 1 of a sequence. */
static gdn_status keep_hidden(gdn_engine *e, const gdn_part *p, int32_t old, gdn_err *err) {
    const gdn_seq *s = p->seq;
    const int32_t kept = kept_rows(e);
    const uint64_t row = (uint64_t)e->m->config.d * sizeof(float), base = e->ws.last.at;
    int32_t from = s->length - 1;
    if (e->opts.mtp && s->mtp_length < from) from = s->mtp_length;
    if (from < old) from = old;
    for (int32_t t = from; t < s->length;) {
        int32_t n = s->length - t;
        if (n > kept - t % kept) n = kept - t % kept;
        TRY(gdn_queue_copy(e->q, e->ws.last.buf, base + (uint64_t)gdn_hidden_row(s, t) * row,
                           e->ws.last.buf, base + (uint64_t)(p->row + t - old) * row,
                           (uint64_t)n * row, err));
        t += n;
    }
    return GDN_OK;
}

gdn_status gdn_step_advance(gdn_engine *e, gdn_part *part, int32_t n_part, const int32_t *accepted,
                            bool pairs, gdn_err *err) {
    int32_t *old = e->old;
    for (int32_t i = 0; i < n_part; i++) {
        gdn_seq *s = part[i].seq;
        const int32_t n = accepted != NULL ? accepted[i] : part[i].n;
        old[i] = s->length;
        s->length += n;
        settle_states(s, part + i, n);
        part[i].pair = -1;
    }
    if (e->opts.mtp) TRY(run_pairs(e, part, n_part, old, pairs, err));
    for (int32_t i = 0; i < n_part; i++) {
        gdn_seq *s = part[i].seq;
        for (int32_t t = s->length > old[i] + GDN_HIDDEN ? s->length - GDN_HIDDEN : old[i];
             t < s->length; t++)
            s->recent[t % GDN_HIDDEN] = part[i].tokens[t - old[i]];
        TRY(keep_hidden(e, part + i, old[i], err));
    }
    /* Once a step, or the host would run far ahead. */
    return e->q->n_wait == e->n_wait ? gdn_queue_wait(e->q, err) : GDN_OK;
}

gdn_status gdn_step_draft(gdn_engine *e, gdn_seq *const *seq, const int32_t *hidden,
                          const int32_t *token, const int32_t *pos, int32_t n, int32_t *out,
                          gdn_err *err) {
    for (int32_t i = 0; i < n; i++) {
        set_row(e, i, token[i], pos[i], seq[i]->adapter);
        stage(e, e->in.hidden)[i] = hidden[i];
        set_sequence(e, i, seq[i], i, 1, pos[i], false);
    }
    *out = mtp_rows_at(e);
    return mtp_pass(e, n, n, *out, err);
}
