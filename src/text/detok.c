/* detok.c - a stream of token ids to a stream of whole characters.
 *
 * Tokens are byte strings and may end inside a character.  At most three bytes are held
 * back: a start of a character that is not finished but still can be.  Everything before
 * it goes out, also bytes that belong to no character. */
#include "tokenizer.h"

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

struct gdn_detok {
    const gdn_tokenizer *t;
    bool                 show_special;
    char                *buf; /* [cap] what was given out, then what is held back */
    size_t               given, n, cap;
};

gdn_status gdn_detok_create(const gdn_tokenizer *t, bool show_special, gdn_detok **out) {
    gdn_detok *d = calloc(1, sizeof *d);
    if (d == NULL) return GDN_E_NOMEM;
    d->t = t;
    d->show_special = show_special;
    *out = d;
    return GDN_OK;
}

void gdn_detok_free(gdn_detok *d) {
    if (d == NULL) return;
    free(d->buf);
    free(d);
}

/* How many bytes at the end of s may still become a character. */
static size_t unfinished(const char *s, size_t n) {
    const unsigned char *u = (const unsigned char *)s;
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        const unsigned char first = u[n - k];
        if ((first & 0xc0) == 0x80) continue; /* a continuation: the start is further left */
        if ((size_t)gdn_utf8_lead(first) <= k) return 0;
        if (k >= 2 && !gdn_utf8_second(first, u[n - k + 1])) return 0;
        return k;
    }
    return 0;
}

/* Forget what the last call gave out. */
static void drop_given(gdn_detok *d) {
    if (d->given == 0) return;
    memmove(d->buf, d->buf + d->given, d->n - d->given);
    d->n -= d->given;
    d->given = 0;
}

gdn_status gdn_detok_push(gdn_detok *d, int32_t id, const char **text, size_t *n) {
    size_t      len = 0;
    const char *s = NULL;
    *text = "";
    *n = 0;
    if (d->show_special || !gdn_token_is_special(d->t, id)) s = gdn_token_bytes(d->t, id, &len);
    drop_given(d);
    if (len > d->cap - d->n) {
        const size_t cap = 2 * (d->n + len) + 64;
        char        *p = realloc(d->buf, cap);
        if (p == NULL) return GDN_E_NOMEM; /* what is held back stays */
        d->buf = p;
        d->cap = cap;
    }
    if (s == NULL || len == 0) return GDN_OK;
    memcpy(d->buf + d->n, s, len);
    d->n += len;
    d->given = d->n - unfinished(d->buf, d->n);
    *text = d->buf;
    *n = d->given;
    return GDN_OK;
}

gdn_status gdn_detok_flush(gdn_detok *d, const char **text, size_t *n) {
    drop_given(d);
    *text = d->n > 0 ? d->buf : "";
    *n = d->given = d->n;
    return GDN_OK;
}
