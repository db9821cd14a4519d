/* reply.c - the text of an answer. */
#include "reply.h"

#include <stdlib.h>
#include <string.h>

#include "../base/err.h"

gdn_status gdn_reply_init(gdn_reply *r, const gdn_request_opts *o, gdn_err *err) {
    *r = (gdn_reply){.on_token = o->on_token, .arg = o->arg};
    if (o->tokenizer != NULL &&
        gdn_detok_create(o->tokenizer, o->show_special, &r->detok) != GDN_OK)
        return gdn_fail(err, GDN_E_NOMEM, "request: out of memory");
    if (o->n_stop_text == 0) return GDN_OK;
    r->stop = calloc((size_t)o->n_stop_text, sizeof *r->stop);
    if (r->stop == NULL) return gdn_fail(err, GDN_E_NOMEM, "request: out of memory");
    for (; r->n_stop < o->n_stop_text; r->n_stop++)
        if ((r->stop[r->n_stop] = strdup(o->stop_text[r->n_stop])) == NULL)
            return gdn_fail(err, GDN_E_NOMEM, "request: out of memory");
    return GDN_OK;
}

void gdn_reply_release(gdn_reply *r) {
    for (int32_t i = 0; i < r->n_stop; i++) free(r->stop[i]);
    free(r->stop);
    free(r->held);
    gdn_detok_free(r->detok);
    *r = (gdn_reply){0};
}

static gdn_status hold(gdn_reply *r, const char *text, size_t n, gdn_err *err) {
    if (n > r->cap - r->n_held) {
        const size_t cap = 2 * (r->n_held + n) + 64;
        char *p = realloc(r->held, cap);
        if (p == NULL)
            return gdn_fail(err, GDN_E_NOMEM, "request: no memory for %zu bytes of text", cap);
        r->held = p;
        r->cap = cap;
    }
    if (n > 0) memcpy(r->held + r->n_held, text, n);
    r->n_held += n;
    return GDN_OK;
}

/* Hold what the detokenizer kept of an unfinished character, too. */
static gdn_status drain(gdn_reply *r, gdn_err *err) {
    const char *text = "";
    size_t n = 0;
    if (r->detok == NULL) return GDN_OK;
    const gdn_status st = gdn_detok_flush(r->detok, &text, &n);
    if (st != GDN_OK) return gdn_fail(err, st, "request: no memory for text");
    return hold(r, text, n, err);
}

/* How much of the held text may be shown.  *stop: a stop string begins right there; among
 * several the one that begins first.  Otherwise the rest may still become one. */
static size_t showable(const gdn_reply *r, bool *stop) {
    *stop = false;
    for (size_t at = 0; at < r->n_held; at++) {
        bool waits = false;
        for (int32_t i = 0; i < r->n_stop; i++) {
            const size_t len = strlen(r->stop[i]), left = r->n_held - at;
            if (memcmp(r->held + at, r->stop[i], len < left ? len : left) != 0) continue;
            if (len <= left) {
                *stop = true;
                return at;
            }
            waits = true;
        }
        if (waits) return at;
    }
    return r->n_held;
}

/* Show the first n held bytes with id and forget them.  False: the reader has enough. */
static bool show(gdn_reply *r, int32_t id, size_t n) {
    const bool go = r->on_token == NULL ||
                    r->on_token(r->arg, id, r->held == NULL ? "" : r->held, n);
    if (n > 0) {
        r->n_held -= n;
        memmove(r->held, r->held + n, r->n_held);
    }
    return go;
}

gdn_status gdn_reply_push(gdn_reply *r, int32_t id, bool visible, bool last, bool *hit, bool *go,
                          gdn_err *err) {
    const char *text = "";
    size_t n = 0;
    *hit = false;
    if (r->detok != NULL) {
        gdn_status st = visible ? gdn_detok_push(r->detok, id, &text, &n) : GDN_OK;
        if (st != GDN_OK) return gdn_fail(err, st, "request: no memory for text");
        st = hold(r, text, n, err);
        if (st == GDN_OK && last) st = drain(r, err);
        if (st != GDN_OK) return st;
    }
    n = showable(r, hit);
    if (!*hit && last) n = r->n_held; /* what waited became no stop string */
    *go = show(r, id, n);
    return GDN_OK;
}

gdn_status gdn_reply_end(gdn_reply *r, gdn_err *err) {
    const gdn_status st = drain(r, err);
    if (st == GDN_OK && r->n_held > 0) show(r, -1, r->n_held);
    return st;
}
