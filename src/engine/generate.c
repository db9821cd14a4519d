/* generate.c - one whole answer: read a prompt, then choose, show and evaluate tokens.
 *
 *     prompt ─► eval ─► logits ─► sampler ─► id ─► detokenizer ─► held-back text ─► on_token
 *                         ▲                   │
 *                         └────── eval ◄──────┘  unless the answer ends here
 *
 * Text that could be the beginning of a stop string waits in a buffer.  At most the longest
 * stop string less one byte waits, so a reader never lags by more than that. */
#include <gdn/gdn.h>

#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "engine.h"

typedef struct {
    const gdn_generate_opts *o;
    gdn_sampler *sampler;
    gdn_detok   *detok;  /* NULL: no text                              */
    float       *logits; /* [vocab]                                    */
    char        *held;   /* [n_held] complete characters not shown yet */
    size_t       n_held, cap;
} answer;

/* --- text that waits ----------------------------------------------------------- */

static gdn_status hold(answer *a, const char *text, size_t n, gdn_err *err) {
    if (n > a->cap - a->n_held) {
        const size_t cap = 2 * (a->n_held + n) + 64;
        char *p = realloc(a->held, cap);
        if (p == NULL)
            return gdn_fail(err, GDN_E_NOMEM, "generate: no memory for %zu bytes of text", cap);
        a->held = p;
        a->cap = cap;
    }
    if (n > 0) memcpy(a->held + a->n_held, text, n);
    a->n_held += n;
    return GDN_OK;
}

/* Hold what the detokenizer kept of an unfinished character, too. */
static gdn_status drain(answer *a, gdn_err *err) {
    const char *text = "";
    size_t n = 0;
    if (a->detok == NULL) return GDN_OK;
    const gdn_status st = gdn_detok_flush(a->detok, &text, &n);
    if (st != GDN_OK) return gdn_fail(err, st, "generate: no memory for text");
    return hold(a, text, n, err);
}

/* How much of the held text may be shown.  *stop: a stop string begins right there; among
 * several the one that begins first.  Otherwise the rest may still become one. */
static size_t showable(const answer *a, bool *stop) {
    const gdn_generate_opts *o = a->o;
    for (size_t at = 0; at < a->n_held; at++) {
        bool waits = false;
        for (int32_t i = 0; i < o->n_stop_text; i++) {
            const size_t len = strlen(o->stop_text[i]), left = a->n_held - at;
            if (memcmp(a->held + at, o->stop_text[i], len < left ? len : left) != 0) continue;
            if (len <= left) {
                *stop = true;
                return at;
            }
            waits = true;
        }
        if (waits) {
            *stop = false;
            return at;
        }
    }
    *stop = false;
    return a->n_held;
}

/* Show the first n held bytes with id and forget them.  False: the reader has enough. */
static bool show(answer *a, int32_t id, size_t n) {
    const bool go = a->o->on_token == NULL ||
                    a->o->on_token(a->o->arg, id, a->held == NULL ? "" : a->held, n);
    if (n > 0) {
        a->n_held -= n;
        memmove(a->held, a->held + n, a->n_held);
    }
    return go;
}

/* --- the answer ----------------------------------------------------------------- */

static bool cancelled(const gdn_generate_opts *o) { return o->cancel != NULL && *o->cancel; }

static bool is_stop(const gdn_generate_opts *o, int32_t id) {
    for (int32_t i = 0; i < o->n_stop; i++)
        if (o->stop[i] == id) return true;
    return false;
}

/* Take in one chosen id; *more stays true when the answer goes on. */
static gdn_status accept(answer *a, int32_t id, gdn_generate_result *r, bool *more,
                         gdn_err *err) {
    const gdn_generate_opts *o = a->o;
    const char *text = "";
    size_t n = 0;
    r->n_new++;
    *more = false;
    if (is_stop(o, id))
        r->finish = GDN_FINISH_STOP;
    else if (cancelled(o))
        r->finish = GDN_FINISH_CANCELLED;
    else if (o->max_new > 0 && r->n_new >= o->max_new)
        r->finish = GDN_FINISH_LENGTH;
    else
        *more = true;

    gdn_status st = GDN_OK;
    if (a->detok != NULL) {
        if (r->finish != GDN_FINISH_STOP) st = gdn_detok_push(a->detok, id, &text, &n);
        if (st != GDN_OK) return gdn_fail(err, st, "generate: no memory for text");
        st = hold(a, text, n, err);
        if (st == GDN_OK && !*more) st = drain(a, err);
        if (st != GDN_OK) return st;
    }
    bool hit;
    n = showable(a, &hit);
    if (hit)
        r->finish = GDN_FINISH_STOP_STRING, *more = false;
    else if (!*more)
        n = a->n_held; /* what waited became no stop string */
    if (!show(a, id, n) && *more) r->finish = GDN_FINISH_CANCELLED, *more = false;
    return GDN_OK;
}

static gdn_status check(const gdn_generate_opts *o, gdn_err *err) {
    if (o->engine == NULL || o->seq == NULL)
        return gdn_fail(err, GDN_E_INVALID, "generate: engine or seq is NULL");
    if (o->prompt == NULL || o->n_prompt < 1)
        return gdn_fail(err, GDN_E_INVALID, "generate: the prompt is empty");
    if (o->max_new < 0)
        return gdn_fail(err, GDN_E_INVALID, "generate: max_new is %d; need 0 or more",
                        o->max_new);
    if (o->n_stop_text > 0 && o->tokenizer == NULL)
        return gdn_fail(err, GDN_E_INVALID, "generate: stop strings need a tokenizer");
    for (int32_t i = 0; i < o->n_stop_text; i++)
        if (o->stop_text[i] == NULL || o->stop_text[i][0] == '\0')
            return gdn_fail(err, GDN_E_INVALID, "generate: stop string %d is empty", i);
    return GDN_OK;
}

static gdn_status prepare(answer *a, gdn_err *err) {
    const gdn_generate_opts *o = a->o;
    const int32_t vocab = o->engine->m->info.vocab;
    int32_t n_valid = vocab;
    if (o->tokenizer != NULL && gdn_tokenizer_size(o->tokenizer) < vocab)
        n_valid = gdn_tokenizer_size(o->tokenizer);
    gdn_status st = gdn_sampler_create(&o->sampling, vocab, n_valid, &a->sampler, err);
    if (st != GDN_OK) return st;
    a->logits = malloc((size_t)vocab * sizeof *a->logits);
    st = a->logits == NULL ? GDN_E_NOMEM : GDN_OK;
    if (st == GDN_OK && o->tokenizer != NULL)
        st = gdn_detok_create(o->tokenizer, o->show_special, &a->detok);
    return st == GDN_OK ? st : gdn_fail(err, st, "generate: no memory for %d logits", vocab);
}

/* Evaluate n tokens and want the logits after the last. */
static gdn_status eval(answer *a, const int32_t *tokens, int32_t n, bool is_prompt,
                       gdn_err *err) {
    const gdn_generate_opts *o = a->o;
    const int32_t last = n - 1;
    const gdn_work w = { .seq = o->seq, .tokens = tokens, .n = n, .out = &last, .n_out = 1,
                         .logits = a->logits };
    /* A generated token is not interrupted: the cancel is seen with the next choice, which
     * also carries the text that waited. */
    return gdn_engine_eval(o->engine, &w, 1, is_prompt ? o->on_prompt : NULL, o->arg,
                           is_prompt ? o->cancel : NULL, err);
}

gdn_status gdn_generate(const gdn_generate_opts *o, gdn_generate_result *out, gdn_err *err) {
    gdn_status st = check(o, err);
    if (st != GDN_OK) return st;
    answer a = { .o = o };
    gdn_generate_result r = { .n_prompt = o->n_prompt, .finish = GDN_FINISH_LENGTH };
    st = prepare(&a, err);
    if (st != GDN_OK) goto done;

    const double start = gdn_now_us();
    st = eval(&a, o->prompt, o->n_prompt, true, err);
    const double read = gdn_now_us();
    r.prompt_us = read - start;
    if (st == GDN_E_CANCELLED) {
        r.finish = GDN_FINISH_CANCELLED;
        st = GDN_OK;
        goto done;
    }
    bool more = st == GDN_OK;
    while (more) {
        int32_t id;
        st = gdn_sampler_next(a.sampler, a.logits, &id, err);
        if (st == GDN_OK) st = accept(&a, id, &r, &more, err);
        if (st != GDN_OK) break;
        if (!more) break;
        st = eval(&a, &id, 1, false, err);
        if (st == GDN_OK) continue;
        more = false;
        if (st == GDN_E_FULL) { /* the last token had no room: it counts, text is owed */
            r.finish = GDN_FINISH_FULL;
            st = drain(&a, err);
            if (st == GDN_OK && a.n_held > 0) show(&a, -1, a.n_held);
        }
    }
    r.new_us = gdn_now_us() - read;
done:
    gdn_sampler_free(a.sampler);
    gdn_detok_free(a.detok);
    free(a.logits);
    free(a.held);
    if (st == GDN_OK) {
        *out = r;
        if (err != NULL) *err = (gdn_err){ .code = GDN_OK };
    }
    return st;
}
