/* engine.c - the engine and the requests of run and chat, and the sessions they save. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "16G", "1.5T", "512MiB", "4096": powers of 1024. */
int64_t cli_size(const char *s) {
    static const char unit[] = "KMGT";
    const size_t digits = strspn(s, "0123456789.");
    char *end;
    if (digits == 0) return -1;
    double x = strtod(s, &end);
    if (end != s + digits) return -1;
    const char *u = *end != '\0' ? strchr(unit, *end) : NULL;
    if (u != NULL) {
        x = ldexp(x, 10 * (int)(u - unit + 1));
        end++;
        if (strcmp(end, "iB") == 0) end += 2;
    }
    return *end == '\0' && x >= 0 && x <= 0x1p60 ? (int64_t)x : -1;
}

int cli_engine(const cli_model *m, const cli_common *c, int64_t need, uint64_t cache,
               gdn_engine **e) {
    gdn_engine_opts o;
    gdn_err err = { 0 };
    gdn_engine_opts_defaults(&o);
    if (c->ctx > 0) o.n_ctx = c->ctx;
    else if (need > 0)
        o.n_ctx = (int32_t)(need < m->info->context ? need : m->info->context);
    if (c->chunk > 0) o.n_row = c->chunk;
    if (c->block_size > 0) o.block_size = c->block_size;
    o.n_draft = c->draft >= 0 ? c->draft : m->info->has_mtp ? 3 : 0;
    o.mtp = c->session != NULL; /* a session can be gone on with, whatever --draft says then */
    o.cache_bytes = cache;
    if (c->cache != NULL) {
        const int64_t bytes = cli_size(c->cache);
        if (bytes < 0)
            return cli_error("--cache is \"%s\"; need a size such as 512M or 2G", c->cache);
        o.cache_bytes = (uint64_t)bytes;
    }
    return gdn_engine_create(m->model, &o, e, &err) == GDN_OK ? 0 : cli_fail(&err);
}

/* Where messages begin: another prompt may share what is before. */
static int message_ends(const cli_model *m, const int32_t *ids, int32_t n, int32_t **out,
                        int32_t *n_out) {
    const int32_t begin = m->tok != NULL ? gdn_token_find(m->tok, "<|im_start|>") : -1;
    int32_t *at = malloc(((size_t)n + 1) * sizeof *at);
    if (at == NULL) return cli_error("out of memory");
    *n_out = 0;
    for (int32_t i = 1; i < n && begin >= 0; i++)
        if (ids[i] == begin) at[(*n_out)++] = i;
    *out = at;
    return 0;
}

int cli_request(const cli_model *m, const int32_t *ids, int32_t n, int32_t *stop,
                gdn_request_opts *r) {
    int32_t *save = NULL;
    gdn_request_opts_defaults(r);
    r->prompt = ids;
    r->n_prompt = n;
    r->adapter = cli_adapter_active(m);
    r->tokenizer = m->tok;
    r->stop = stop;
    r->n_stop = cli_stop_ids(m, stop);
    const int rc = message_ends(m, ids, n, &save, &r->n_save);
    r->save = save;
    return rc;
}

void cli_tell_speed(const gdn_request_result *g) {
    const int32_t read = g->n_prompt - g->n_cached;
    fprintf(stderr, "prompt %d tokens", g->n_prompt);
    if (g->n_cached > 0) fprintf(stderr, " (%d saved)", g->n_cached);
    fprintf(stderr, ", %.2f s, %.1f/s; answer %d tokens, %.2f s, %.1f/s", 1e-6 * g->prompt_us,
            g->prompt_us > 0 ? 1e6 * read / g->prompt_us : 0, g->n_new, 1e-6 * g->new_us,
            g->n_new > 1 && g->new_us > 0 ? 1e6 * (g->n_new - 1) / g->new_us : 0);
    if (g->n_drafted > 0)
        fprintf(stderr, ", %d of %d guesses right", g->n_accepted, g->n_drafted);
    fprintf(stderr, " (%s)\n", cli_finish_name(g->finish));
}

int cli_session_load(const cli_model *m, const cli_common *c, gdn_engine *e, void **note,
                     size_t *n_note) {
    gdn_err err = { 0 };
    *note = NULL;
    *n_note = 0;
    if (c->session == NULL || access(c->session, F_OK) != 0) return 0;
    const gdn_status st =
        gdn_session_load(e, cli_adapter_active(m), c->session, note, n_note, &err);
    if (st == GDN_OK) return 0;
    /* Not to be written over: it may be somebody's work. */
    if (st == GDN_E_IO || st == GDN_E_NOMEM) return cli_fail(&err);
    return cli_error("%s; give another --session or remove it", err.text);
}

int cli_session_save(const cli_model *m, const cli_common *c, gdn_engine *e, const int32_t *ids,
                     int32_t n, const void *note, size_t n_note) {
    gdn_err err = { 0 };
    if (c->session == NULL) return 0;
    const gdn_status st = gdn_session_save(e, cli_adapter_active(m), ids, n, note, n_note,
                                           c->session, &err);
    return st == GDN_OK ? 0 : cli_fail(&err);
}
