/* reply.h - the text of an answer: characters, stop strings, what is held back.
 *
 * Text that could be the beginning of a stop string waits.  At most the longest stop string
 * less one byte waits, so a reader never lags by more than that. */
#ifndef GDN_ENGINE_REPLY_H
#define GDN_ENGINE_REPLY_H

#include <gdn/gdn.h>

typedef struct {
    gdn_detok *detok;    /* NULL: no text                              */
    char     **stop;     /* [n_stop] strings                           */
    int32_t    n_stop;
    char      *held;     /* [n_held] complete characters not shown yet */
    size_t     n_held, cap;
    gdn_token_fn *on_token;
    void      *arg;
} gdn_reply;

/* GDN_E_NOMEM; release in any case. */
gdn_status gdn_reply_init(gdn_reply *r, const gdn_request_opts *o, gdn_err *err);
void       gdn_reply_release(gdn_reply *r);

/* Take in an id.  visible: its text counts (a stop id's does not); last: nothing follows.
 * *hit: a stop string came, and what is before it was shown; *go: false when the reader has
 * enough. */
gdn_status gdn_reply_push(gdn_reply *r, int32_t id, bool visible, bool last, bool *hit, bool *go,
                          gdn_err *err);
/* Nothing follows after all: show what waits, with id -1. */
gdn_status gdn_reply_end(gdn_reply *r, gdn_err *err);

#endif
