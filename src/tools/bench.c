/* bench.c - prompt and generation speed by depth, next to the limits of the machine.
 *
 * What one token needs is counted from the model's shape:
 *
 *     flops   matrix products (the head for the last token of a prompt only)
 *             + full attention, 4 hq head_dim for every key
 *             + gated delta rule, 6 hv dk dv: fade and read, correct, read
 *     bytes   weights of one token + states read and written + keys and values read
 *
 * A prompt is held against the peak of the arithmetic its products use, generation against
 * the memory's bandwidth.  Both limits are measured before each round of runs, on as many
 * threads. */
#include <gdn/tools.h>

#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/pool.h"
#include "../engine/engine.h"
#include "../kern/kern.h"
#include "../kern/limits/limits.h"
#include "../model/model.h"

enum { SAMPLES = GDN_BENCH_MAX_REP };
enum { WARM = -1, TIMED = -2 }; /* instead of a number of a repetition */

typedef struct {
    const gdn_bench_opts *o;
    gdn_model  *m;
    gdn_engine *engine;
    gdn_pool   *pool;   /* for the limits; NULL where they are not known           */
    gdn_kern    kern;
    int32_t    *tokens; /* [n_token] of no meaning                                 */
    float      *logits; /* [vocab]                                                 */
    double    (*speed)[SAMPLES];   /* [row][rep]                                   */
    double      limit[4][SAMPLES]; /* read, f32, bf16, region                      */
    gdn_bench_result *r;
} bench;

void gdn_bench_defaults(gdn_bench_opts *o) {
    *o = (gdn_bench_opts){ .n_prompt = 512, .n_new = 32, .n_depth = 1, .n_rep = 3 };
    gdn_engine_opts_defaults(&o->engine);
}

/* --- counting ------------------------------------------------------------------- */

/* Mean keys that a token attends to, itself included, over n tokens after `depth`. */
static double mean_keys(int32_t depth, int32_t n) { return depth + 0.5 * (n + 1.0); }

static void count(const gdn_model *m, gdn_bench_row *row) {
    const gdn_model_info *i = &m->info;
    const double n_lin = i->n_layer - i->n_full, keys = mean_keys(row->depth, row->n_tok);
    const double kv_bytes = m->kv == GDN_F32 ? 4 : 2;
    row->flops = i->active_flops;
    if (row->is_prompt)
        row->flops -= 2.0 * i->d * (double)i->vocab * (1 - 1.0 / row->n_tok);
    row->flops += i->n_full * 4.0 * i->hq * (double)i->head_dim * keys;
    row->flops += n_lin * 6.0 * i->lin_hv * (double)i->lin_dk * i->lin_dv;

    const double conv = (i->conv_width - 1.0) *
                        (2.0 * i->lin_hk * i->lin_dk + (double)i->lin_hv * i->lin_dv);
    const double state = 4.0 * (i->lin_hv * (double)i->lin_dk * i->lin_dv + conv);
    row->bytes = (double)i->active_bytes + n_lin * 2 * state +
                 i->n_full * 2.0 * i->hkv * (double)i->head_dim * kv_bytes * keys;
    if (row->is_prompt) row->bytes = 0; /* weights serve many rows: no limit to speak of */
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static gdn_spread spread(double *x, int32_t n) {
    qsort(x, (size_t)n, sizeof *x, by_size);
    return (gdn_spread){ .median = n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]),
                         .min = x[0], .max = x[n - 1] };
}

static void summarise(bench *b) {
    gdn_bench_result *r = b->r;
    const int32_t n = b->o->n_rep;
    gdn_bench_limits *l = &r->limits;
    gdn_spread *const to[4] = { &l->read_bytes, &l->f32_flops, &l->bf16_flops, &l->region_us };
    for (int i = 0; i < 4 && b->pool != NULL; i++) *to[i] = spread(b->limit[i], n);
    r->bf16 = b->m->act == GDN_BF16 && l->bf16_flops.median > 0;
    const double peak = r->bf16 ? l->bf16_flops.median : l->f32_flops.median;
    for (int32_t i = 0; i < r->n_row; i++) {
        gdn_bench_row *row = &r->row[i];
        row->speed = spread(b->speed[i], n);
        count(b->m, row);
        if (b->pool == NULL) continue;
        if (row->is_prompt) row->flops_share = row->flops * row->speed.median / peak;
        else row->read_share = row->bytes * row->speed.median / l->read_bytes.median;
        row->sync_share = 1e-6 * l->region_us.median * row->regions * row->speed.median;
    }
}

/* --- running -------------------------------------------------------------------- */

static gdn_status eval(bench *b, gdn_seq *s, const int32_t *tokens, int32_t n, bool want,
                       gdn_err *err) {
    const int32_t last = n - 1;
    const gdn_work w = { .seq = s, .tokens = tokens, .n = n, .out = &last, .n_out = want,
                         .logits = b->logits };
    return gdn_engine_eval(b->engine, &w, 1, NULL, NULL, NULL, err);
}

/* Generate n tokens, the likeliest each time: the work of an answer. */
static gdn_status answer(bench *b, gdn_seq *s, int32_t n, gdn_err *err) {
    int32_t id = b->tokens[0];
    gdn_status st = GDN_OK;
    for (int32_t i = 0; i < n && st == GDN_OK; i++) {
        st = eval(b, s, &id, 1, true, err);
        if (st != GDN_OK) break;
        id = b->kern.argmax(b->logits, b->m->info.vocab);
        if (id < 0) st = gdn_fail(err, GDN_E_DEVICE, "none of the logits is finite");
    }
    return st;
}

static gdn_status times(bench *b, gdn_bench_row *row, gdn_err *err) {
    const gdn_status st = gdn_queue_times(b->engine->q, row->kernel, GDN_BENCH_MAX_KERNEL,
                                          &row->n_kernel, err);
    if (row->n_kernel > GDN_BENCH_MAX_KERNEL) row->n_kernel = GDN_BENCH_MAX_KERNEL;
    return st;
}

/* One run of row i in a sequence of its own; rep below 0: it does not count. */
static gdn_status run_row(bench *b, int32_t i, int32_t rep, gdn_err *err) {
    gdn_bench_row *row = &b->r->row[i];
    gdn_engine_stats before, after;
    gdn_seq *s = NULL;
    gdn_status st = gdn_seq_create(b->engine, &s, err);
    if (st == GDN_OK && row->depth > 0) st = eval(b, s, b->tokens, row->depth, false, err);
    if (st == GDN_OK && rep == TIMED) st = times(b, row, err); /* what came before is left out */
    gdn_engine_get_stats(b->engine, &before);
    const double start = gdn_now_us();
    if (st == GDN_OK && row->is_prompt)
        st = eval(b, s, b->tokens + row->depth, row->n_tok, true, err);
    else if (st == GDN_OK)
        st = answer(b, s, row->n_tok, err);
    const double us = gdn_now_us() - start;
    gdn_engine_get_stats(b->engine, &after);
    if (st == GDN_OK && rep == TIMED) st = times(b, row, err);
    if (rep >= 0) b->speed[i][rep] = 1e6 * row->n_tok / (us > 0 ? us : 1e-3);
    row->regions = (double)(after.regions - before.regions) / row->n_tok;
    gdn_seq_free(s);
    return st;
}

static gdn_status measure_limits(bench *b, int32_t rep, gdn_err *err) {
    gdn_limits l;
    if (b->pool == NULL) return GDN_OK;
    const gdn_status st = gdn_limits_measure(b->pool, b->kern.isa, &l, err);
    if (st != GDN_OK) return st;
    b->limit[0][rep] = l.read.p50;
    b->limit[1][rep] = l.fma.p50;
    b->limit[2][rep] = l.bf16.p50;
    b->limit[3][rep] = l.region.p50;
    return GDN_OK;
}

static gdn_status run(bench *b, gdn_err *err) {
    const gdn_bench_opts *o = b->o;
    const uint64_t total = (uint64_t)o->n_rep * (uint64_t)b->r->n_row;
    /* Refused here, before anything has taken its time. */
    gdn_status st = o->kernels ? gdn_queue_profile(b->engine->q, true, err) : GDN_OK;
    if (o->kernels && st == GDN_OK) st = gdn_queue_profile(b->engine->q, false, err);
    /* Touch the memory once, where the cache is empty. */
    for (int32_t i = 0; i < b->r->n_row && st == GDN_OK; i++)
        if (b->r->row[i].depth == 0) st = run_row(b, i, WARM, err);
    for (int32_t rep = 0; rep < o->n_rep && st == GDN_OK; rep++) {
        st = measure_limits(b, rep, err);
        for (int32_t i = 0; i < b->r->n_row && st == GDN_OK; i++) {
            st = run_row(b, i, rep, err);
            if (st == GDN_OK && o->progress != NULL)
                o->progress(o->arg, (uint64_t)rep * (uint64_t)b->r->n_row + (uint64_t)i + 1,
                            total);
        }
    }
    if (o->kernels && st == GDN_OK) st = gdn_queue_profile(b->engine->q, true, err);
    for (int32_t i = 0; i < b->r->n_row && o->kernels && st == GDN_OK; i++)
        st = run_row(b, i, TIMED, err);
    return st;
}

/* --- setting up ------------------------------------------------------------------ */

static gdn_status check(const gdn_bench_opts *o, const gdn_model_info *info, gdn_err *err) {
    if (o->n_prompt < 0 || o->n_new < 0 || (o->n_prompt == 0 && o->n_new == 0))
        return gdn_fail(err, GDN_E_INVALID, "n_prompt %d and n_new %d; need one at least",
                        o->n_prompt, o->n_new);
    if (o->n_rep < 1 || o->n_rep > GDN_BENCH_MAX_REP)
        return gdn_fail(err, GDN_E_INVALID, "n_rep is %d; need 1 to %d", o->n_rep,
                        GDN_BENCH_MAX_REP);
    if (o->n_depth < 1 || o->n_depth > GDN_BENCH_MAX_DEPTH)
        return gdn_fail(err, GDN_E_INVALID, "%d depths; need 1 to %d", o->n_depth,
                        GDN_BENCH_MAX_DEPTH);
    const int64_t most = o->n_prompt > o->n_new ? o->n_prompt : o->n_new;
    for (int32_t i = 0; i < o->n_depth; i++)
        if (o->depth[i] < 0 || o->depth[i] + most > info->context)
            return gdn_fail(err, GDN_E_INVALID,
                            "depth %d and %lld tokens; the model's context is %d",
                            o->depth[i], (long long)most, info->context);
    return GDN_OK;
}

/* As many threads as the device has. */
static gdn_status open_pool(bench *b, gdn_err *err) {
    const char *name = gdn_device_name(b->m->device);
    if (strncmp(name, "cpu:", 4) != 0) return GDN_OK;
    const gdn_status st = gdn_pool_create(atoi(name + 4), false, &b->pool, err);
    if (st == GDN_OK) b->r->n_thread = gdn_pool_threads(b->pool);
    return st;
}

static gdn_status prepare(bench *b, gdn_err *err) {
    const gdn_bench_opts *o = b->o;
    const int32_t vocab = b->m->info.vocab;
    const int32_t most = o->n_prompt > o->n_new ? o->n_prompt : o->n_new;
    int32_t n_ctx = 0;
    for (int32_t i = 0; i < o->n_depth; i++) {
        const int32_t kind[2] = { o->n_prompt, o->n_new };
        for (int k = 0; k < 2; k++)
            if (kind[k] > 0)
                b->r->row[b->r->n_row++] = (gdn_bench_row){
                    .is_prompt = k == 0, .depth = o->depth[i], .n_tok = kind[k] };
        if (o->depth[i] + most > n_ctx) n_ctx = o->depth[i] + most;
    }
    b->tokens = calloc((size_t)n_ctx, sizeof *b->tokens);
    b->logits = malloc((size_t)vocab * sizeof *b->logits);
    b->speed = calloc((size_t)b->r->n_row, sizeof *b->speed);
    if (b->tokens == NULL || b->logits == NULL || b->speed == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "out of memory: no room for %d tokens", n_ctx);
    uint32_t x = 1;
    for (int32_t i = 0; i < n_ctx; i++) { /* a linear congruential sequence will do */
        x = x * 1664525u + 1013904223u;
        b->tokens[i] = (int32_t)((uint64_t)x * (uint64_t)vocab >> 32);
    }
    gdn_kern_select(&b->kern, GDN_ISA_ALL);
    gdn_engine_opts e = o->engine;
    e.n_ctx = n_ctx;
    e.n_seq = 1;
    e.mtp = false;
    gdn_status st = gdn_engine_create(b->m, &e, &b->engine, err);
    return st == GDN_OK ? open_pool(b, err) : st;
}

gdn_status gdn_bench_run(gdn_model *m, const gdn_bench_opts *o, gdn_bench_result *out,
                         gdn_err *err) {
    gdn_status st = check(o, gdn_model_get_info(m), err);
    if (st != GDN_OK) return st;
    gdn_bench_result *r = calloc(1, sizeof *r);
    if (r == NULL) return gdn_fail(err, GDN_E_NOMEM, "out of memory");
    bench b = { .o = o, .m = m, .r = r };
    st = prepare(&b, err);
    if (st == GDN_OK) st = run(&b, err);
    if (st == GDN_OK) {
        summarise(&b);
        *out = *r;
    }
    gdn_pool_free(b.pool);
    gdn_engine_free(b.engine);
    free(b.tokens);
    free(b.logits);
    free(b.speed);
    free(r);
    return st;
}
