/* sched.c - who runs in the next step, and what becomes of its results.
 *
 *     admit ─► plan ─► run ─► choose tokens ─► advance ─► save, end ─► draft
 *
 * Requests stand in order of arrival and are served in it.  Every answer gets its next row (and its
 * drafts' rows); the rest of the step is shared among those who read their prompt, cut where a
 * snapshot is to be taken.  When pages run out, snapshots go first, then the request that came
 * last gives its place up and is read again later: rows depend on their own sequence alone, so
 * that changes nothing but the time. */
#include "sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/log.h"

enum {
    SHARED = 32,     /* tokens in common that are worth waiting for, or a snapshot       */
    PIECE = 64,      /* rows that a prompt gets at least when others are read beside it  */
};

gdn_status gdn_sched_create(gdn_engine *e, gdn_err *err) {
    gdn_sched *s = calloc(1, sizeof *s);
    e->sched = s;
    if (s == NULL) return gdn_fail(err, GDN_E_NOMEM, "engine: out of memory");
    const size_t n = (size_t)e->opts.n_seq, l = (size_t)e->n_logit + 1;
    s->last = &s->first;
    s->runs = calloc(n, sizeof *s->runs);
    s->accepted = calloc(n, sizeof *s->accepted);
    s->drafter = calloc(n, sizeof *s->drafter);
    s->draft_seq = calloc(n, sizeof *s->draft_seq);
    s->draft_token = calloc(n, sizeof *s->draft_token);
    s->draft_row = calloc(n, sizeof *s->draft_row);
    s->draft_pos = calloc(n, sizeof *s->draft_pos);
    s->row = calloc(l, sizeof *s->row);
    s->row_of = calloc(l, sizeof *s->row_of);
    s->logits = calloc(l, sizeof *s->logits);
    gdn_draft_policy_init(&s->policy);
    if (s->runs == NULL || s->accepted == NULL || s->drafter == NULL || s->draft_seq == NULL ||
        s->draft_token == NULL || s->draft_row == NULL || s->draft_pos == NULL || s->row == NULL ||
        s->row_of == NULL || s->logits == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "engine: out of memory");
    return GDN_OK;
}

void gdn_sched_free(gdn_engine *e) {
    gdn_sched *s = e->sched;
    if (s == NULL) return;
    while (s->first != NULL) gdn_request_finish(s->first, GDN_FINISH_CANCELLED);
    free(s->runs);
    free(s->accepted);
    free(s->drafter);
    free(s->draft_seq);
    free(s->draft_token);
    free(s->draft_row);
    free(s->draft_pos);
    free(s->row);
    free(s->row_of);
    free(s->logits);
    free(s);
    e->sched = NULL;
}

bool gdn_engine_busy(const gdn_engine *e) { return e->sched->first != NULL; }

static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }

static int32_t missing(const gdn_request *r) { return r->n_tok - r->seq->length; }

/* Reads its prompt, or what it lost when it was preempted. */
static bool reads(const gdn_request *r) { return missing(r) > 1 || r->n_tok == r->n_prompt; }

static int32_t n_running(const gdn_sched *s) {
    int32_t n = 0;
    for (const gdn_request *r = s->first; r != NULL; r = r->next) n += r->seq != NULL;
    return n;
}

/* --- admission ------------------------------------------------------------------------------ */

/* How long a common beginning r will find saved when somebody who is reading now gets there. */
static int32_t promised(const gdn_request *r) {
    const gdn_engine *e = r->e;
    int32_t best = 0;
    if (e->snapshots.most == 0) return 0;
    for (gdn_request *a = e->sched->first; a != NULL; a = a->next) {
        if (a->seq == NULL || a->key != r->key || a->seq->length >= a->n_prompt) continue;
        const int32_t most = min32(a->n_prompt, r->n_tok);
        int32_t common = 0;
        while (common < most && a->tokens[common] == r->tokens[common]) common++;
        if (common <= a->seq->length || common < SHARED) continue;
        /* Where they part, if there is no better place shortly before. */
        int32_t at = a->seq->length, next;
        while ((next = gdn_request_next_save(a, at)) <= common) at = next;
        if (common - at >= SHARED && a->branch <= a->seq->length) a->branch = common, at = common;
        if (at > a->seq->length && at > best) best = at;
    }
    return best;
}

static gdn_status start(gdn_request *r, gdn_err *err) {
    gdn_engine *e = r->e;
    int32_t common = 0;
    gdn_status st = gdn_seq_create(e, &r->seq, err);
    if (st == GDN_OK) st = gdn_seq_set_adapter(r->seq, r->adapter, err);
    if (st != GDN_OK) return st;
    gdn_snapshot *from = NULL;
    if (e->snapshots.most > 0) {
        from = gdn_snapshot_find(e, r->key, r->tokens, r->n_tok, &common);
        e->snapshots.lookups++;
    }
    if (from != NULL) {
        st = gdn_snapshot_restore(r->seq, from, err);
        if (st != GDN_OK) return st;
        e->snapshots.hits++;
        e->snapshots.hit_tokens += (uint64_t)from->n_tok;
    }
    if (common - r->seq->length >= SHARED && common < r->n_prompt) r->branch = common;
    if (!r->admitted) {
        r->admitted = true;
        r->start_us = gdn_now_us();
        r->result.n_cached = min32(r->seq->length, r->n_prompt);
        e->sched->prompt_tokens += (uint64_t)r->n_prompt;
        e->sched->cached_tokens += (uint64_t)r->result.n_cached;
    }
    return GDN_OK;
}

static void fail_request(gdn_request *r, gdn_status st, const gdn_err *err) {
    r->result.status = st;
    snprintf(r->error, sizeof r->error, "%s", err != NULL ? err->text : "");
    gdn_request_finish(r, st == GDN_E_FULL ? GDN_FINISH_FULL : GDN_FINISH_ERROR);
}

/* Pages that are a snapshot's now and will be the sequence's that begins there. */
static int64_t only_in(const gdn_engine *e, const gdn_snapshot *from) {
    int64_t n = 0;
    for (int32_t i = 0; from != NULL && i < from->n_page; i++)
        n += e->pages.page[from->page[i]].held[GDN_BY_SEQ] == 0;
    return n;
}

static void admit(gdn_engine *e) {
    gdn_sched *s = e->sched;
    int32_t running = n_running(s);
    for (gdn_request *r = s->first, *next; r != NULL && running < e->opts.n_seq; r = next) {
        next = r->next;
        if (r->seq != NULL) continue;
        int32_t common;
        const gdn_snapshot *from = gdn_snapshot_find(e, r->key, r->tokens, r->n_tok, &common);
        const int32_t have = from != NULL ? from->n_tok : 0;
        if (running > 0 && promised(r) >= have + SHARED) continue;
        const int64_t need = gdn_blocks_for(e, (int64_t)r->n_tok + 1) -
                             have / e->plan.block_size;
        const int64_t room = gdn_seq_pages_left(e) + e->pages.n_snapshot - only_in(e, from);
        if (running > 0 && need > room) return;
        gdn_err err = {0};
        const gdn_status st = start(r, &err);
        if (st == GDN_E_FULL && running > 0) { /* sequences of the caller's own hold the rest */
            gdn_seq_free(r->seq);
            r->seq = NULL;
            return;
        }
        if (st != GDN_OK) fail_request(r, st, &err);
        else running++;
    }
}

/* --- planning a step -------------------------------------------------------------------------- */

static void preempt(gdn_request *r) {
    gdn_log(GDN_LOG_INFO, "preempt request=%llu tokens=%d", (unsigned long long)r->number,
            r->seq->length);
    gdn_seq_free(r->seq);
    r->seq = NULL;
    r->n_draft = 0;
    r->e->sched->preempted++;
}

static gdn_request *last_running(const gdn_sched *s) {
    gdn_request *last = NULL;
    for (gdn_request *r = s->first; r != NULL; r = r->next)
        if (r->seq != NULL) last = r;
    return last;
}

/* Room for n more tokens of r, at the cost of later ones.  False: r itself had to go. */
static bool make_room(gdn_request *r, int32_t n) {
    gdn_engine *e = r->e;
    gdn_err err = {0};
    for (;;) {
        const gdn_status st = gdn_seq_extend(r->seq, n, &err);
        if (st == GDN_OK) return true;
        gdn_request *last = last_running(e->sched);
        if (st == GDN_E_FULL && r->seq->length + n <= e->opts.n_ctx && last != r) {
            preempt(last);
            continue;
        }
        if (st == GDN_E_FULL && r->seq->length + n <= e->opts.n_ctx && n_running(e->sched) > 1) {
            preempt(r);
            return false;
        }
        gdn_err owed = {0};
        if (st == GDN_E_FULL && r->result.n_new > 0) gdn_reply_end(&r->reply, &owed);
        fail_request(r, st, &err);
        return false;
    }
}

/* The parts of a step; returns how many have rows.  Behind them come parts of requests whose
 * prompt is a snapshot: they want logits only. */
static int32_t plan(gdn_engine *e, int32_t *n_all) {
    gdn_sched *s = e->sched;
    int32_t n_part = 0, left = e->opts.n_row, n_read = 0;
    for (gdn_request *r = s->first; r != NULL; r = r->next) {
        if (r->seq == NULL || missing(r) == 0) continue;
        if (reads(r)) n_read++;
        else left--; /* its row is certain */
    }
    /* Guesses take what those who read leave. */
    int32_t spare = n_read > 0 ? left - min32(left, PIECE * min32(n_read, e->opts.n_row)) : left;
    for (gdn_request *r = s->first, *next; r != NULL; r = next) {
        next = r->next;
        if (r->seq == NULL || missing(r) == 0) continue;
        int32_t n = 1;
        if (reads(r)) {
            int32_t quota = n_read > 0 ? left / n_read : left;
            n_read--;
            if (quota < PIECE) quota = PIECE;
            n = min32(min32(missing(r), min32(quota, left)),
                      gdn_request_next_save(r, r->seq->length) - r->seq->length);
            if (n <= 0) continue;
            left -= n;
            r->n_draft = 0;
        } else {
            r->n_draft = min32(r->n_draft, min32(spare, left));
            r->n_draft = min32(r->n_draft, e->opts.n_ctx - r->seq->length - 1);
            r->n_draft = min32(r->n_draft,
                               gdn_request_next_save(r, r->seq->length) - r->seq->length - 1);
            if (r->n_draft < 0) r->n_draft = 0;
            gdn_err full = {0}; /* drafts are not worth anybody's place */
            if (r->n_draft > 0 &&
                gdn_seq_extend(r->seq, n + r->n_draft, &full) == GDN_E_FULL)
                r->n_draft = 0;
            n += r->n_draft;
            left -= r->n_draft;
            spare -= r->n_draft;
        }
        if (!make_room(r, n)) {
            next = s->first; /* the list changed: whoever is behind r has no part yet */
            while (next != NULL && next->number <= r->number) next = next->next;
            continue;
        }
        if (r->n_draft > 0) {
            /* The last token and its guesses side by side. */
            if (r->n_tok + r->n_draft > r->cap) {
                const int32_t cap = r->cap + r->cap / 2 + GDN_MAX_DRAFT;
                int32_t *more = realloc(r->tokens, (size_t)cap * sizeof *more);
                if (more != NULL) r->tokens = more, r->cap = cap;
                else n -= r->n_draft, r->n_draft = 0;
            }
            memcpy(r->tokens + r->n_tok, r->draft, (size_t)r->n_draft * sizeof *r->draft);
        }
        e->part[n_part] = (gdn_part){.seq = r->seq, .tokens = r->tokens + r->seq->length, .n = n,
                                     .keep = r->n_draft > 0};
        s->runs[n_part++] = r;
        next = r->next;
    }
    *n_all = n_part;
    for (gdn_request *r = s->first; r != NULL; r = r->next) {
        if (r->seq == NULL || missing(r) != 0) continue;
        e->part[*n_all] = (gdn_part){.seq = r->seq};
        s->runs[(*n_all)++] = r;
    }
    for (int32_t i = 0; i < *n_all; i++) s->accepted[i] = e->part[i].keep ? 1 : e->part[i].n;
    return n_part;
}

/* --- results ------------------------------------------------------------------------------------ */

/* Rows of ws.last that part i wants logits of, from *first on. */
static int32_t wanted(const gdn_engine *e, int32_t i, int32_t *first) {
    const gdn_part *p = e->part + i;
    const gdn_request *r = e->sched->runs[i];
    if (p->n == 0) { /* all of it came from a snapshot */
        *first = gdn_hidden_row(p->seq, p->seq->length - 1);
        return 1;
    }
    if (p->keep) {
        *first = p->row;
        return p->n;
    }
    *first = p->row + p->n - 1;
    return p->seq->length + p->n == r->n_tok;
}

/* What was saved since the last good row is not to be trusted, and would make the same prompt fail
 * for ever. */
static void forget(gdn_request *r) {
    const int32_t good = r->result.n_new > 0 ? r->n_tok - 1 : 0;
    int32_t common;
    gdn_snapshot *s;
    while ((s = gdn_snapshot_find(r->e, r->key, r->tokens, r->n_tok, &common)) != NULL &&
           s->n_tok > good)
        gdn_snapshot_drop(r->e, s);
}

/* Row k of the logits is what follows r's last token.  What its largest do not decide, or
 * leave in doubt, the whole row does. */
static gdn_status next_id(gdn_request *r, int32_t k, int32_t *id, gdn_err *err) {
    gdn_logits *l = r->e->sched->logits + k;
    char what[80];
    if (l->all == NULL && !gdn_sampler_doubtful(r->sampler, l)) {
        gdn_sampler_next_of(r->sampler, l, id);
        return GDN_OK;
    }
    const gdn_status st = gdn_step_whole(r->e, k, l, err);
    if (st != GDN_OK) return st;
    if (!gdn_sampler_degenerate(r->sampler, l->all, what, sizeof what))
        return gdn_sampler_next(r->sampler, l->all, id, err);
    const gdn_model *m = r->e->m;
    forget(r);
    return gdn_fail(err, GDN_E_DEVICE, "device %s, model %.200s: %s after %d tokens: a weight is "
                    "broken, or the device computes wrong (`gdn devices --check`)",
                    gdn_device_name(m->device), m->dir, what, r->n_tok);
}

/* Row `at` of part i has row k of the logits.  False: no further row of it counts. */
static bool judge(gdn_engine *e, int32_t i, int32_t at, int32_t k) {
    gdn_sched *s = e->sched;
    gdn_request *r = s->runs[i];
    gdn_err err = {0};
    int32_t id;
    const gdn_status st = next_id(r, k, &id, &err);
    if (st != GDN_OK) {
        r->result.status = st;
        r->result.finish = GDN_FINISH_ERROR;
        r->ended = true;
        snprintf(r->error, sizeof r->error, "%s", err.text);
        return false;
    }
    const bool more = gdn_request_take(r, id);
    if (!e->part[i].keep || at >= r->n_draft) return false;
    const bool right = r->draft[at] == id;
    gdn_draft_judged(&s->policy, right);
    r->result.n_drafted++;
    s->drafted++;
    if (!right) return false;
    r->result.n_accepted++;
    s->accepted_drafts++;
    if (more) s->accepted[i]++;
    return more;
}

/* Choose from all wanted rows, n_logit of them at a time. */
static gdn_status choose(gdn_engine *e, int32_t n_part, gdn_err *err) {
    gdn_sched *s = e->sched;
    int32_t i = 0, at = 0, over = -1; /* over: a part whose further rows do not count */
    while (i < n_part) {
        int32_t n = 0;
        const int32_t first_at = at, first_i = i;
        while (i < n_part && n < e->n_logit) {
            int32_t row;
            const int32_t rows = wanted(e, i, &row);
            if (at >= rows || i == over) {
                i++;
                at = 0;
                continue;
            }
            s->row[n] = row + at++;
            gdn_sampler_ask(s->runs[i]->sampler, s->logits + n);
            s->row_of[n++] = i;
        }
        if (n == 0) break;
        const double t = gdn_now_us();
        const gdn_status st = gdn_step_top(e, s->row, n, s->logits, err);
        s->model_us += gdn_now_us() - t;
        if (st != GDN_OK) return st;
        for (int32_t k = 0, of = -1, index = 0; k < n; k++) {
            index = s->row_of[k] == of ? index + 1 : s->row_of[k] == first_i ? first_at : 0;
            of = s->row_of[k];
            if (of == over) continue;
            if (!judge(e, of, index, k)) over = of;
        }
    }
    return GDN_OK;
}

/* The device failed: whoever was in the step is lost. */
static void lose_all(gdn_engine *e, int32_t n_part, const gdn_err *err) {
    for (int32_t i = 0; i < n_part; i++) {
        gdn_request *r = e->sched->runs[i];
        if (!r->result.done) fail_request(r, GDN_E_DEVICE, err);
    }
}

/* Save where that is due, end what has ended. */
static gdn_status settle(gdn_engine *e, int32_t n_part, gdn_err *err) {
    gdn_sched *s = e->sched;
    for (int32_t i = 0; i < n_part; i++) {
        gdn_request *r = s->runs[i];
        const int32_t now = r->seq->length, before = now - s->accepted[i];
        gdn_seq_trim(r->seq);
        r->n_draft = 0;
        if (before < r->n_prompt) r->result.n_computed += min32(now, r->n_prompt) - before;
        if (now > before && now <= r->n_prompt && r->on_prompt != NULL)
            r->on_prompt(r->arg, (uint64_t)now, (uint64_t)r->n_prompt);
        const bool whole = !r->ended || r->result.finish != GDN_FINISH_ERROR;
        if (whole && now > before && (r->ended || gdn_request_next_save(r, before) == now)) {
            const gdn_status st = gdn_snapshot_save(r->seq, r->tokens, err);
            if (st != GDN_OK) return st;
        }
        if (r->ended) gdn_request_finish(r, r->result.finish);
    }
    return GDN_OK;
}

/* Drafts for all who have chosen a token, for the next step. */
static gdn_status draft(gdn_engine *e, int32_t n_part, gdn_err *err) {
    gdn_sched *s = e->sched;
    int32_t n = 0;
    for (int32_t i = 0; i < n_part; i++)
        if (!s->runs[i]->result.done && missing(s->runs[i]) == 1 && !reads(s->runs[i]))
            s->drafter[n++] = s->runs[i];
    if (n == 0 || e->opts.n_draft == 0) return GDN_OK;
    const int32_t k = gdn_draft_choose(&s->policy, n, e->opts.n_draft);
    return k > 0 ? gdn_sched_draft(e, s->drafter, n, k, err) : GDN_OK;
}

/* What a step of answers alone took, to know what drafts cost. */
static void learn(gdn_engine *e, int32_t n_part, int32_t n_had, double us) {
    gdn_sched *s = e->sched;
    int32_t n_made = 0;
    for (int32_t i = 0; i < n_part; i++) n_made += s->runs[i]->n_draft;
    if ((n_had > 0) == (n_made > 0))
        gdn_draft_timed(&s->policy, n_part, (double)(n_had + n_made) / (2.0 * n_part), us);
}

static gdn_status run(gdn_engine *e, int32_t n_run, int32_t n_all, gdn_err *err) {
    gdn_sched *s = e->sched;
    const double begin = gdn_now_us();
    gdn_status st = n_run > 0 ? gdn_step_run(e, e->part, n_run, err) : GDN_OK;
    s->model_us += gdn_now_us() - begin;
    if (st == GDN_OK) st = choose(e, n_all, err);
    for (int32_t i = 0; i < n_run; i++) /* their lists may have moved as they grew */
        e->part[i].tokens = s->runs[i]->tokens + s->runs[i]->seq->length;
    const double chosen = gdn_now_us();
    if (st == GDN_OK && n_run > 0)
        st = gdn_step_advance(e, e->part, n_run, s->accepted, false, err);
    int32_t n_had = 0;
    bool answers = n_run == n_all;
    for (int32_t i = 0; i < n_run; i++) {
        n_had += s->runs[i]->n_draft;
        answers = answers && s->runs[i]->n_tok > s->runs[i]->n_prompt + 1;
    }
    const double before = gdn_now_us();
    if (st == GDN_OK) st = settle(e, n_all, err);
    const double settled = gdn_now_us();
    if (st == GDN_OK) st = draft(e, n_all, err);
    const double end = gdn_now_us();
    s->model_us += before - chosen + end - settled;
    for (int32_t i = 0; i < n_all && answers; i++) answers = !s->runs[i]->result.done;
    if (st == GDN_OK && answers && n_all > 0)
        learn(e, n_all, n_had, before - begin + end - settled);
    return st;
}

/* Requests that somebody let go of in a callback of this step. */
static void free_orphans(gdn_sched *s) {
    while (s->orphan != NULL) {
        gdn_request *r = s->orphan;
        s->orphan = r->next_orphan;
        gdn_request_free(r);
    }
}

gdn_status gdn_engine_step(gdn_engine *e, gdn_err *err) {
    gdn_sched *s = e->sched;
    const double begin = gdn_now_us();
    if (s->stepping) return gdn_fail(err, GDN_E_INVALID, "engine: a step inside of a step");
    s->stepping = true;
    for (gdn_request *r = s->first, *next; r != NULL; r = next) {
        if (atomic_load(&r->cancel)) {
            gdn_err owed = {0};
            if (r->result.n_new > 0) gdn_reply_end(&r->reply, &owed);
            next = r->next;
            gdn_request_finish(r, GDN_FINISH_CANCELLED);
        } else {
            next = r->next;
        }
    }
    admit(e);
    int32_t n_all;
    const int32_t n_run = plan(e, &n_all);
    const gdn_status st = n_all > 0 ? run(e, n_run, n_all, err) : GDN_OK;
    if (st != GDN_OK) lose_all(e, n_all, err);
    s->stepping = false;
    free_orphans(s);
    s->total_us += gdn_now_us() - begin;
    return st;
}
