/* request.c - one request: its options, its tokens, its end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "sched.h"

enum { SAVE_APART = 64 }; /* a snapshot costs as much as a few dozen tokens */

void gdn_request_opts_defaults(gdn_request_opts *o) {
    *o = (gdn_request_opts){0};
    gdn_sampling_defaults(&o->sampling);
}

static gdn_status check(const gdn_engine *e, const gdn_request_opts *o, gdn_err *err) {
    const int32_t vocab = e->m->config.vocab;
    if (o->prompt == NULL || o->n_prompt < 1)
        return gdn_fail(err, GDN_E_INVALID, "request: the prompt is empty");
    for (int32_t i = 0; i < o->n_prompt; i++)
        if (o->prompt[i] < 0 || o->prompt[i] >= vocab)
            return gdn_fail(err, GDN_E_INVALID, "request: token %d of the prompt is %d, need 0 to %d",
                            i, o->prompt[i], vocab - 1);
    if (o->max_new < 0)
        return gdn_fail(err, GDN_E_INVALID, "request: max_new is %d; need 0 or more", o->max_new);
    if (o->n_stop < 0 || (o->n_stop > 0 && o->stop == NULL))
        return gdn_fail(err, GDN_E_INVALID, "request: n_stop is %d", o->n_stop);
    if (o->n_save < 0 || (o->n_save > 0 && o->save == NULL))
        return gdn_fail(err, GDN_E_INVALID, "request: n_save is %d", o->n_save);
    if (o->n_stop_text < 0 || (o->n_stop_text > 0 && o->stop_text == NULL))
        return gdn_fail(err, GDN_E_INVALID, "request: n_stop_text is %d", o->n_stop_text);
    if (o->n_stop_text > 0 && o->tokenizer == NULL)
        return gdn_fail(err, GDN_E_INVALID, "request: stop strings need a tokenizer");
    for (int32_t i = 0; i < o->n_stop_text; i++)
        if (o->stop_text[i] == NULL || o->stop_text[i][0] == '\0')
            return gdn_fail(err, GDN_E_INVALID, "request: stop string %d is empty", i);
    if (o->adapter != NULL && o->adapter->m != e->m)
        return gdn_fail(err, GDN_E_INVALID, "request: the adapter is of another model");
    if (o->n_prompt > e->opts.n_ctx)
        return gdn_fail(err, GDN_E_FULL, "a prompt of %d tokens does not fit a context of %d",
                        o->n_prompt, e->opts.n_ctx);
    return GDN_OK;
}

/* Lengths worth saving, some tokens apart; the last one always. */
static void choose_saves(gdn_request *r, const gdn_request_opts *o) {
    for (int32_t i = 0; i < o->n_save; i++) {
        const int32_t at = o->save[i], before = r->n_save > 0 ? r->save[r->n_save - 1] : 0;
        if (at < 1 || at > o->n_prompt || at <= before) continue;
        if (at - before >= SAVE_APART || i == o->n_save - 1) r->save[r->n_save++] = at;
    }
}

static gdn_status fill(gdn_request *r, const gdn_request_opts *o, gdn_err *err) {
    const gdn_engine *e = r->e;
    const int32_t vocab = e->m->config.vocab;
    const int32_t size = o->tokenizer != NULL ? gdn_tokenizer_size(o->tokenizer) : vocab;
    gdn_status st = gdn_sampler_create(&o->sampling, vocab, size < vocab ? size : vocab,
                                       &r->sampler, err);
    if (st == GDN_OK) st = gdn_reply_init(&r->reply, o, err);
    if (st != GDN_OK) return st;
    r->cap = o->n_prompt + 256;
    r->tokens = malloc((size_t)r->cap * sizeof *r->tokens);
    r->stop = malloc(((size_t)o->n_stop + 1) * sizeof *r->stop);
    r->save = malloc(((size_t)o->n_save + 1) * sizeof *r->save);
    if (r->tokens == NULL || r->stop == NULL || r->save == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "request: out of memory");
    memcpy(r->tokens, o->prompt, (size_t)o->n_prompt * sizeof *r->tokens);
    if (o->n_stop > 0) memcpy(r->stop, o->stop, (size_t)o->n_stop * sizeof *r->stop);
    r->n_tok = r->n_prompt = o->n_prompt;
    r->n_stop = o->n_stop;
    r->max_new = o->max_new;
    r->adapter = o->adapter;
    r->key = o->adapter != NULL ? o->adapter->key : 0;
    r->on_prompt = o->on_prompt;
    r->arg = o->arg;
    r->result.n_prompt = o->n_prompt;
    choose_saves(r, o);
    return GDN_OK;
}

gdn_status gdn_request_submit(gdn_engine *e, const gdn_request_opts *o, gdn_request **out,
                              gdn_err *err) {
    gdn_status st = check(e, o, err);
    if (st != GDN_OK) return st;
    gdn_request *r = calloc(1, sizeof *r);
    if (r == NULL) return gdn_fail(err, GDN_E_NOMEM, "request: out of memory");
    r->e = e;
    r->result.done = true; /* until it is in the list */
    st = fill(r, o, err);
    if (st != GDN_OK) {
        gdn_request_free(r);
        return st;
    }
    gdn_sched *s = e->sched;
    r->result.done = false;
    r->number = s->number++;
    r->submit_us = gdn_now_us();
    *s->last = r;
    s->last = &r->next;
    *out = r;
    return GDN_OK;
}

void gdn_request_cancel(gdn_request *r) { atomic_store(&r->cancel, true); }

void gdn_request_get_result(const gdn_request *r, gdn_request_result *out) { *out = r->result; }

const int32_t *gdn_request_tokens(const gdn_request *r) { return r->tokens + r->n_prompt; }

const char *gdn_request_error(const gdn_request *r) { return r->error; }

void gdn_request_free(gdn_request *r) {
    if (r == NULL) return;
    gdn_sched *s = r->e->sched;
    if (s->stepping) { /* the step still knows it */
        gdn_request_cancel(r);
        r->reply.on_token = NULL;
        r->on_prompt = NULL;
        r->next_orphan = s->orphan;
        s->orphan = r;
        return;
    }
    if (!r->result.done) gdn_request_finish(r, GDN_FINISH_CANCELLED);
    gdn_sampler_free(r->sampler);
    gdn_reply_release(&r->reply);
    free(r->tokens);
    free(r->stop);
    free(r->save);
    free(r);
}

void gdn_request_finish(gdn_request *r, gdn_finish why) {
    gdn_sched *s = r->e->sched;
    const double now = gdn_now_us();
    r->result.done = true;
    r->result.finish = why;
    if (!r->admitted) r->start_us = now;
    if (r->first_us == 0) r->first_us = now;
    r->result.wait_us = r->start_us - r->submit_us;
    r->result.prompt_us = r->first_us - r->start_us;
    r->result.new_us = now - r->first_us;
    gdn_seq_free(r->seq);
    r->seq = NULL;
    gdn_request **at = &s->first;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    if (s->last == &r->next) s->last = at;
    r->next = NULL;
}

int32_t gdn_request_next_save(const gdn_request *r, int32_t from) {
    const gdn_engine *e = r->e;
    const int32_t every = e->opts.save_every;
    if (e->snapshots.most == 0) return INT32_MAX;
    int32_t next = from / every * every <= INT32_MAX - every ? from / every * every + every
                                                             : INT32_MAX;
    if (from < r->n_prompt && r->n_prompt < next) next = r->n_prompt;
    if (r->branch > from && r->branch < next) next = r->branch;
    for (int32_t i = 0; i < r->n_save; i++)
        if (r->save[i] > from) return r->save[i] < next ? r->save[i] : next;
    return next;
}

static bool is_stop(const gdn_request *r, int32_t id) {
    for (int32_t i = 0; i < r->n_stop; i++)
        if (r->stop[i] == id) return true;
    return false;
}

static bool failed(gdn_request *r, gdn_status st, const gdn_err *err) {
    r->result.status = st;
    r->result.finish = GDN_FINISH_ERROR;
    r->ended = true;
    snprintf(r->error, sizeof r->error, "%s", err->text);
    return false;
}

static bool append(gdn_request *r, int32_t id) {
    if (r->n_tok == r->cap) {
        const int32_t cap = r->cap + r->cap / 2;
        int32_t *p = realloc(r->tokens, (size_t)cap * sizeof *p);
        if (p == NULL) return false;
        r->tokens = p;
        r->cap = cap;
    }
    r->tokens[r->n_tok++] = id;
    return true;
}

bool gdn_request_take(gdn_request *r, int32_t id) {
    gdn_err err = {0};
    if (!append(r, id)) {
        gdn_fail(&err, GDN_E_NOMEM, "request: out of memory");
        return failed(r, GDN_E_NOMEM, &err);
    }
    if (r->first_us == 0) r->first_us = gdn_now_us();
    r->result.n_new++;
    bool last = true, hit = false, go = true;
    gdn_finish why = GDN_FINISH_LENGTH;
    if (is_stop(r, id)) why = GDN_FINISH_STOP;
    else if (atomic_load(&r->cancel)) why = GDN_FINISH_CANCELLED;
    else if (r->max_new == 0 || r->result.n_new < r->max_new) last = false;
    const gdn_status st =
        gdn_reply_push(&r->reply, id, why != GDN_FINISH_STOP, last, &hit, &go, &err);
    if (st != GDN_OK) return failed(r, st, &err);
    if (hit) last = true, why = GDN_FINISH_STOP_STRING;
    else if (!go && !last) last = true, why = GDN_FINISH_CANCELLED;
    if (last) r->result.finish = why;
    r->ended = last;
    return !last;
}
