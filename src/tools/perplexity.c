/* perplexity.c - how well a model expects a text: the mean of -log p(next token). */
#include <gdn/tools.h>

#include <stdlib.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../kern/kern.h"

enum { CHUNK_BYTES = 1 << 27 };

typedef struct {
    const gdn_perplexity_opts *o;
    int32_t     vocab, chunk, window;
    int32_t    *out;    /* [chunk] */
    float      *logits; /* [chunk][vocab] */
    gdn_kern    kern;
    gdn_engine *engine;
    double      sum;
    int64_t     n_scored;
    int32_t     base;   /* tokens before those of the call under way */
} job;

static void step(void *arg, uint64_t done, uint64_t total) {
    const job *j = arg;
    (void)total;
    j->o->progress(j->o->arg, (uint64_t)j->base + done, (uint64_t)j->o->n);
}

/* Tokens [from, to) as one sequence. */
static gdn_status score(job *j, int32_t from, int32_t to, gdn_err *err) {
    const int32_t *tok = j->o->tokens;
    gdn_seq *seq = NULL;
    gdn_status st = gdn_seq_create(j->engine, &seq, err);
    if (st == GDN_OK) st = gdn_seq_set_adapter(seq, j->o->adapter, err);
    for (int32_t b = from; b < to && st == GDN_OK; b += j->chunk) {
        const int32_t n = to - b < j->chunk ? to - b : j->chunk;
        const int32_t n_out = b + n == to ? n - 1 : n; /* the last one predicts nothing here */
        for (int32_t i = 0; i < n_out; i++) j->out[i] = i;
        const gdn_work w = { .seq = seq, .tokens = tok + b, .n = n, .out = j->out,
                             .n_out = n_out, .logits = j->logits };
        j->base = b;
        st = gdn_engine_eval(j->engine, &w, 1, j->o->progress != NULL ? step : NULL, j, NULL,
                             err);
        for (int32_t i = 0; i < n_out && st == GDN_OK; i++) {
            const float *row = j->logits + (size_t)i * (size_t)j->vocab;
            const double sum = j->kern.logsumexp(row, j->vocab);
            j->sum += sum - (double)row[tok[b + i + 1]];
            j->n_scored++;
        }
    }
    gdn_seq_free(seq);
    return st;
}

static gdn_status prepare(job *j, gdn_model *m, gdn_err *err) {
    const gdn_perplexity_opts *o = j->o;
    const size_t row = (size_t)j->vocab * sizeof(float);
    const size_t most = CHUNK_BYTES / row;
    j->chunk = most < 1 ? 1 : most > (size_t)j->window ? j->window : (int32_t)most;
    j->out = calloc((size_t)j->chunk, sizeof *j->out);
    j->logits = malloc((size_t)j->chunk * row);
    if (j->out == NULL || j->logits == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "out of memory: no room for %d rows of %zu bytes",
                        j->chunk, row);
    gdn_kern_select(&j->kern, GDN_ISA_ALL);
    gdn_engine_opts e;
    gdn_engine_opts_defaults(&e);
    if (o->engine != NULL) e.n_row = o->engine->n_row, e.block_size = o->engine->block_size;
    e.n_seq = 1;
    e.n_ctx = j->window;
    return gdn_engine_create(m, &e, &j->engine, err);
}

gdn_status gdn_perplexity(gdn_model *m, const gdn_perplexity_opts *o,
                          gdn_perplexity_result *out, gdn_err *err) {
    const gdn_model_info *info = gdn_model_get_info(m);
    if (o->tokens == NULL || o->n < 2)
        return gdn_fail(err, GDN_E_INVALID, "need two tokens or more, have %d",
                        o->n);
    if (o->n_ctx < 0 || o->n_ctx == 1 || o->n_ctx > info->context)
        return gdn_fail(err, GDN_E_INVALID, "a window of %d tokens; need 2 to %d",
                        o->n_ctx, info->context);
    job j = { .o = o, .vocab = info->vocab };
    j.window = o->n_ctx > 0 ? o->n_ctx : info->context;
    if (j.window > o->n) j.window = o->n;
    gdn_perplexity_result r = { .n_window = 0 };
    gdn_status st = prepare(&j, m, err);
    const double start = gdn_now_us();
    for (int32_t b = 0; o->n - b > 1 && st == GDN_OK;) { /* one token scores nothing */
        const int32_t n = o->n - b < j.window ? o->n - b : j.window;
        st = score(&j, b, b + n, err);
        b += n;
        r.n_window++;
    }
    if (st == GDN_OK) {
        r.seconds = 1e-6 * (gdn_now_us() - start);
        r.n_scored = j.n_scored;
        r.nll = j.sum / (double)j.n_scored;
        *out = r;
    }
    gdn_engine_free(j.engine);
    free(j.out);
    free(j.logits);
    return st;
}
