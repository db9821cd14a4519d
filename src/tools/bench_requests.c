/* bench_requests.c - what the engine saves: prompts that share, requests at once, drafts.
 *
 * Reuse is counted in prompt tokens, not in time.  Speeds are taken in turns, so that a change of
 * the machine's mood meets both sides. */
#include <gdn/tools.h>

#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"

#define TRY(call)                                                                         \
    do {                                                                                  \
        const gdn_status st_ = (call);                                                    \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)

enum { MAX_PROMPT = 8192, FORKS = 8, REPLY = 32 };

static void words(const gdn_model *m, uint64_t seed, int32_t *out, int32_t n) {
    const int32_t vocab = gdn_model_get_info(m)->vocab;
    for (int32_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        out[i] = (int32_t)((seed >> 33) % (uint64_t)(vocab < 1000 ? vocab : 1000));
    }
}

static gdn_status run_all(gdn_engine *e, gdn_request *const *r, int32_t n, gdn_err *err) {
    while (gdn_engine_busy(e)) TRY(gdn_engine_step(e, err));
    for (int32_t i = 0; i < n; i++) {
        gdn_request_result x;
        gdn_request_get_result(r[i], &x);
        if (x.finish == GDN_FINISH_ERROR)
            return gdn_fail(err, x.status, "%s", gdn_request_error(r[i]));
    }
    return GDN_OK;
}

/* --- reuse -------------------------------------------------------------------------------- */

typedef struct {
    gdn_engine *e;
    gdn_reuse_row *row;
    int32_t tokens[MAX_PROMPT];
} reuse;

/* One request; what it took is added to the row, and its answer to the tokens. */
static gdn_status ask(reuse *u, int32_t *n, int32_t save, int32_t n_new, gdn_err *err) {
    gdn_request_opts o;
    gdn_request_result r;
    gdn_request *req;
    gdn_request_opts_defaults(&o);
    o.prompt = u->tokens;
    o.n_prompt = *n;
    o.max_new = n_new;
    o.sampling.temperature = 0;
    o.save = &save;
    o.n_save = save > 0;
    TRY(gdn_request_submit(u->e, &o, &req, err));
    const gdn_status st = run_all(u->e, &req, 1, err);
    if (st == GDN_OK) {
        gdn_request_get_result(req, &r);
        u->row->prompt += r.n_prompt;
        u->row->computed += r.n_prompt - r.n_cached;
        memcpy(u->tokens + *n, gdn_request_tokens(req), (size_t)r.n_new * sizeof *u->tokens);
        *n += r.n_new;
    }
    gdn_request_free(req);
    return st;
}

static gdn_status conversations(gdn_model *m, reuse *u, gdn_reuse_row *row, gdn_err *err) {
    int32_t n = 500;
    words(m, 1, u->tokens, n);
    u->row = &row[0];
    row[0] = (gdn_reuse_row){.what = "first turn, 500 tokens"};
    TRY(ask(u, &n, 200, REPLY, err));
    words(m, 2, u->tokens + n, 60);
    n += 60;
    u->row = &row[1];
    row[1] = (gdn_reuse_row){.what = "second turn, 60 tokens more"};
    TRY(ask(u, &n, 0, REPLY, err));

    words(m, 1, u->tokens, 200);
    words(m, 3, u->tokens + 200, 100);
    n = 300;
    u->row = &row[2];
    row[2] = (gdn_reuse_row){.what = "same first 200 tokens, another message of 100"};
    TRY(ask(u, &n, 200, REPLY, err));

    row[3] = (gdn_reuse_row){.what = "two conversations in turn, a message of 50 each, 4 times"};
    u->row = &row[3];
    static int32_t held[2][MAX_PROMPT]; /* 64 KiB */
    int32_t len[2] = {300, 300};
    for (int c = 0; c < 2; c++) {
        words(m, 1, held[c], 200);
        words(m, 10 + (uint64_t)c, held[c] + 200, 100);
    }
    for (int turn = 0; turn < 8; turn++) {
        const int c = turn % 2;
        words(m, 100 + (uint64_t)turn, held[c] + len[c], 50);
        memcpy(u->tokens, held[c], (size_t)(len[c] + 50) * sizeof *u->tokens);
        n = len[c] + 50;
        TRY(ask(u, &n, 200, REPLY, err));
        memcpy(held[c], u->tokens, (size_t)n * sizeof *u->tokens);
        len[c] = n;
    }
    return GDN_OK;
}

static gdn_status forks(gdn_model *m, reuse *u, gdn_reuse_row *row, gdn_err *err) {
    gdn_request *r[FORKS] = {0};
    gdn_request_opts o;
    gdn_status st = GDN_OK;
    gdn_request_opts_defaults(&o);
    words(m, 4, u->tokens, 2000);
    o.prompt = u->tokens;
    o.n_prompt = 2000;
    o.max_new = 16;
    *row = (gdn_reuse_row){.what = "a prompt of 2,000 asked 8 times at once"};
    for (int i = 0; i < FORKS && st == GDN_OK; i++) {
        o.sampling.seed = (uint64_t)i;
        st = gdn_request_submit(u->e, &o, &r[i], err);
    }
    if (st == GDN_OK) st = run_all(u->e, r, FORKS, err);
    for (int i = 0; i < FORKS; i++) {
        gdn_request_result x = {0};
        if (r[i] != NULL) gdn_request_get_result(r[i], &x);
        row->prompt += x.n_prompt;
        row->computed += x.n_prompt - x.n_cached;
        gdn_request_free(r[i]);
    }
    return st;
}

static gdn_status restart(gdn_model *m, const gdn_engine_opts *eo, const char *path, reuse *u,
                          gdn_reuse_row *row, gdn_err *err) {
    int32_t n = 700;
    void *note = NULL;
    size_t n_note;
    gdn_reuse_row unused = {0};
    words(m, 5, u->tokens, n);
    u->row = &unused;
    TRY(ask(u, &n, 0, REPLY, err));
    TRY(gdn_session_save(u->e, NULL, u->tokens, n, NULL, 0, path, err));
    gdn_engine_free(u->e);
    u->e = NULL;
    TRY(gdn_engine_create(m, eo, &u->e, err));
    TRY(gdn_session_load(u->e, NULL, path, &note, &n_note, err));
    free(note);
    words(m, 6, u->tokens + n, 40);
    n += 40;
    u->row = row;
    *row = (gdn_reuse_row){.what = "a turn of 40 after a restart, session of 732 tokens"};
    return ask(u, &n, 0, REPLY, err);
}

gdn_status gdn_bench_reuse(gdn_model *m, const char *path, gdn_reuse_row row[GDN_REUSE_ROWS],
                           gdn_err *err) {
    gdn_engine_opts o;
    reuse *u = calloc(1, sizeof *u);
    if (u == NULL) return gdn_fail(err, GDN_E_NOMEM, "bench: out of memory");
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 2 * MAX_PROMPT;
    o.n_seq = FORKS;
    o.cache_bytes = GDN_CACHE_AUTO;
    gdn_status st = gdn_engine_create(m, &o, &u->e, err);
    if (st == GDN_OK) st = conversations(m, u, row, err);
    if (st == GDN_OK) st = forks(m, u, row + 4, err);
    if (st == GDN_OK) st = restart(m, &o, path, u, row + 5, err);
    gdn_engine_free(u->e);
    free(u);
    return st;
}

/* --- speeds in turns ------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static gdn_spread spread(double *x, int32_t n) {
    qsort(x, (size_t)n, sizeof *x, by_value);
    return (gdn_spread){.median = n % 2 != 0 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]),
                        .min = x[0],
                        .max = x[n - 1]};
}

/* Requests of n_prompt tokens that write n_new each; `at_once` or one after the other. */
static gdn_status batch(gdn_engine *e, gdn_model *m, const gdn_bench_batch_opts *o, bool at_once,
                        uint64_t seed, double *speed, gdn_err *err) {
    gdn_request **r = calloc((size_t)o->n_request, sizeof *r);
    int32_t *prompt = malloc((size_t)o->n_prompt * sizeof *prompt);
    gdn_status st = r == NULL || prompt == NULL ? gdn_fail(err, GDN_E_NOMEM, "bench: out of memory")
                                                : GDN_OK;
    const double begin = gdn_now_us();
    for (int32_t i = 0; st == GDN_OK && i < o->n_request; i++) {
        gdn_request_opts q;
        gdn_request_opts_defaults(&q);
        words(m, seed + (uint64_t)i, prompt, o->n_prompt);
        q.prompt = prompt;
        q.n_prompt = o->n_prompt;
        q.max_new = o->n_new;
        q.sampling.temperature = 0;
        st = gdn_request_submit(e, &q, &r[i], err);
        if (st == GDN_OK && !at_once) st = run_all(e, r + i, 1, err);
    }
    if (st == GDN_OK) st = run_all(e, r, o->n_request, err);
    *speed = 1e6 * (double)o->n_request * (o->n_prompt + o->n_new) / (gdn_now_us() - begin);
    for (int32_t i = 0; r != NULL && i < o->n_request; i++) gdn_request_free(r[i]);
    free(r);
    free(prompt);
    return st;
}

void gdn_bench_batch_defaults(gdn_bench_batch_opts *o) {
    *o = (gdn_bench_batch_opts){.n_request = 8, .n_prompt = 256, .n_new = 64, .n_rep = 3,
                                .n_row = 512};
}

gdn_status gdn_bench_batch(gdn_model *m, const gdn_bench_batch_opts *o, gdn_bench_batch_result *out,
                           gdn_err *err) {
    double one[GDN_BENCH_MAX_REP], all[GDN_BENCH_MAX_REP];
    gdn_engine *e = NULL;
    gdn_engine_opts eo;
    if (o->n_request < 1 || o->n_prompt < 1 || o->n_new < 1 || o->n_rep < 1 ||
        o->n_rep > GDN_BENCH_MAX_REP)
        return gdn_fail(err, GDN_E_INVALID, "bench: %d requests of %d and %d tokens, %d times",
                        o->n_request, o->n_prompt, o->n_new, o->n_rep);
    gdn_engine_opts_defaults(&eo);
    eo.n_seq = o->n_request;
    eo.n_row = o->n_row;
    eo.n_ctx = o->n_request * (o->n_prompt + o->n_new);
    eo.n_draft = o->n_draft;
    gdn_status st = gdn_engine_create(m, &eo, &e, err);
    double warm, model_us = 0, total_us = 0;
    if (st == GDN_OK) st = batch(e, m, o, true, 77, &warm, err);
    for (int32_t i = 0; st == GDN_OK && i < o->n_rep; i++) {
        gdn_engine_stats a, b;
        st = batch(e, m, o, false, 1000 + (uint64_t)i, &one[i], err);
        gdn_engine_get_stats(e, &a);
        if (st == GDN_OK) st = batch(e, m, o, true, 1000 + (uint64_t)i, &all[i], err);
        gdn_engine_get_stats(e, &b);
        model_us += b.model_us - a.model_us;
        total_us += b.total_us - a.total_us;
    }
    if (st == GDN_OK) {
        out->one = spread(one, o->n_rep);
        out->all = spread(all, o->n_rep);
        out->own_share = total_us > 0 ? (total_us - model_us) / total_us : 0;
    }
    gdn_engine_free(e);
    return st;
}

/* --- drafts ------------------------------------------------------------------------------------ */

static gdn_status answer(gdn_engine *e, const gdn_request_opts *o, double *speed,
                         gdn_request_result *r, gdn_err *err) {
    TRY(gdn_generate(e, o, NULL, r, err));
    *speed = r->n_new > 1 ? 1e6 * (r->n_new - 1) / r->new_us : 0;
    return GDN_OK;
}

gdn_status gdn_bench_draft(gdn_model *m, const gdn_request_opts *o, int32_t n_draft, int32_t n_rep,
                           gdn_bench_draft_result *out, gdn_err *err) {
    double with[GDN_BENCH_MAX_REP], without[GDN_BENCH_MAX_REP], ratio[GDN_BENCH_MAX_REP];
    gdn_engine *e[2] = {NULL, NULL};
    gdn_engine_opts eo;
    int64_t drafted = 0, accepted = 0;
    if (n_rep < 1 || n_rep > GDN_BENCH_MAX_REP)
        return gdn_fail(err, GDN_E_INVALID, "bench: %d repetitions", n_rep);
    gdn_engine_opts_defaults(&eo);
    eo.n_ctx = o->n_prompt + (o->max_new > 0 ? o->max_new : 256) + 8;
    gdn_status st = gdn_engine_create(m, &eo, &e[0], err);
    eo.n_draft = n_draft;
    if (st == GDN_OK) st = gdn_engine_create(m, &eo, &e[1], err);
    for (int32_t i = -1; st == GDN_OK && i < n_rep; i++) {
        gdn_request_result r = {0};
        double a = 0, b = 0;
        st = answer(e[0], o, &a, &r, err);
        if (st == GDN_OK) st = answer(e[1], o, &b, &r, err);
        if (i < 0) continue; /* to warm up, and to learn what drafts cost */
        without[i] = a;
        with[i] = b;
        ratio[i] = a > 0 ? b / a : 0;
        drafted += r.n_drafted;
        accepted += r.n_accepted;
    }
    if (st == GDN_OK) {
        out->with = spread(with, n_rep);
        out->without = spread(without, n_rep);
        out->ratio = spread(ratio, n_rep);
        out->accepted = drafted > 0 ? (double)accepted / (double)drafted : 0;
    }
    gdn_engine_free(e[0]);
    gdn_engine_free(e[1]);
    return st;
}
