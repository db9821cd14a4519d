/* bench.c - gdn bench: speed by context length, next to the machine's limits. */
#include "cli.h"

#include <gdn/tools.h>
#include <stdlib.h>
#include <string.h>

static const opt_about about = {
    "bench", "",
    "Measure prompt and generation speed, each next to the limits of this machine that are\n"
    "measured between the runs.",
};

typedef struct {
    cli_common  common;
    gdn_bench_opts b;
    const char *depths;
    bool        json;
    cli_bench_requests requests;
} options;

static void spread_json(const char *name, const gdn_spread *s) {
    printf("\"%s\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g}", name, s->median, s->min,
           s->max);
}

static void print_json(const cli_model *m, const gdn_bench_result *r) {
    printf("{\"model\": ");
    cli_json_string(stdout, m->dir, strlen(m->dir));
    printf(", \"arch\": ");
    cli_json_string(stdout, m->info->arch, strlen(m->info->arch));
    printf(", \"weight_type\": ");
    cli_json_string(stdout, m->info->weight_type, strlen(m->info->weight_type));
    printf(", \"parameters\": %llu, \"active_bytes\": %llu, \"threads\": %d, \"limits\": {",
           (unsigned long long)m->info->parameters, (unsigned long long)m->info->active_bytes,
           r->n_thread);
    spread_json("read_bytes", &r->limits.read_bytes);
    printf(", ");
    spread_json("f32_flops", &r->limits.f32_flops);
    printf(", ");
    spread_json("bf16_flops", &r->limits.bf16_flops);
    printf(", ");
    spread_json("region_us", &r->limits.region_us);
    printf("}, \"peak\": \"%s\", \"runs\": [", r->bf16 ? "bf16" : "f32");
    for (int32_t i = 0; i < r->n_row; i++) {
        const gdn_bench_row *w = &r->row[i];
        printf("%s{\"kind\": \"%s\", \"depth\": %d, \"tokens\": %d, ", i > 0 ? ", " : "",
               w->is_prompt ? "prompt" : "generation", w->depth, w->n_tok);
        spread_json("tokens_per_second", &w->speed);
        printf(", \"flops_per_token\": %.6g, \"bytes_per_token\": %.6g, "
               "\"regions_per_token\": %.2f, \"flops_share\": %.4f, \"read_share\": %.4f, "
               "\"sync_share\": %.4f",
               w->flops, w->bytes, w->regions, w->flops_share, w->read_share, w->sync_share);
        for (int32_t k = 0; k < w->n_kernel; k++)
            printf("%s{\"kernel\": \"%s\", \"launches\": %llu, \"us\": %.2f}",
                   k > 0 ? ", " : ", \"kernels\": [", w->kernel[k].name,
                   (unsigned long long)w->kernel[k].n, 1e6 * w->kernel[k].seconds);
        printf("%s}", w->n_kernel > 0 ? "]" : "");
    }
    printf("]}\n");
}

/* Per token of an answer, of a prompt as a whole. */
static void print_kernels(const gdn_bench_row *w) {
    const double n = w->is_prompt ? 1 : w->n_tok;
    double all = 0, launches = 0;
    for (int32_t k = 0; k < w->n_kernel; k++) {
        all += w->kernel[k].seconds;
        launches += (double)w->kernel[k].n;
    }
    printf("\nkernels of %s after %d: %.1f us of %.1f us, %.0f launches\n",
           w->is_prompt ? "the prompt" : "a token", w->depth, 1e6 * all / n,
           1e6 / w->speed.median * (w->is_prompt ? w->n_tok : 1), launches / n);
    for (int32_t k = 0; k < w->n_kernel; k++)
        printf("%10.1f us %5.1f %%  %6.1f times  %s\n", 1e6 * w->kernel[k].seconds / n,
               100 * w->kernel[k].seconds / (all > 0 ? all : 1), (double)w->kernel[k].n / n,
               w->kernel[k].name);
}

static void print_text(const cli_model *m, const gdn_bench_result *r, int32_t n_rep) {
    const gdn_bench_limits *l = &r->limits;
    printf("%s: %s, %s, %.2f G parameters\n", m->dir, m->info->arch, m->info->weight_type,
           1e-9 * (double)m->info->parameters);
    if (l->read_bytes.median > 0) {
        printf("limits, %d threads: read %.1f GB/s (%.1f to %.1f), f32 %.0f GF/s", r->n_thread,
               1e-9 * l->read_bytes.median, 1e-9 * l->read_bytes.min, 1e-9 * l->read_bytes.max,
               1e-9 * l->f32_flops.median);
        if (l->bf16_flops.median > 0) printf(", bf16 %.0f GF/s", 1e-9 * l->bf16_flops.median);
        printf(", region %.2f us\n", l->region_us.median);
    }
    printf("%-16s %8s %10s %22s   %s\n", "run", "depth", "tokens/s", "min to max",
           "share of the limit");
    for (int32_t i = 0; i < r->n_row; i++) {
        const gdn_bench_row *w = &r->row[i];
        char name[32], range[48];
        snprintf(name, sizeof name, "%s %d", w->is_prompt ? "prompt" : "generation", w->n_tok);
        snprintf(range, sizeof range, "%.1f to %.1f", w->speed.min, w->speed.max);
        printf("%-16s %8d %10.1f %22s   ", name, w->depth, w->speed.median, range);
        if (l->read_bytes.median <= 0) printf("not known\n");
        else
            printf("%5.1f %% of %s, %.1f %% waiting for threads\n",
                   100 * (w->is_prompt ? w->flops_share : w->read_share),
                   !w->is_prompt ? "read" : r->bf16 ? "bf16" : "f32", 100 * w->sync_share);
    }
    printf("median of %d; the limits are measured before each round\n", n_rep);
    for (int32_t i = 0; i < r->n_row; i++)
        if (r->row[i].n_kernel > 0) print_kernels(&r->row[i]);
}

static int read_depths(options *o) {
    int32_t *d = NULL, n = 0;
    if (o->depths == NULL) return 0;
    int rc = cli_ids(o->depths, &d, &n);
    if (rc == 0 && (n < 1 || n > GDN_BENCH_MAX_DEPTH))
        rc = cli_error("--depth has %d numbers; need 1 to %d", n, GDN_BENCH_MAX_DEPTH);
    if (rc == 0) {
        memcpy(o->b.depth, d, (size_t)n * sizeof *d);
        o->b.n_depth = n;
    }
    free(d);
    return rc;
}

static int requests(options *o) {
    cli_bench_requests b = o->requests;
    if (b.reuse + (b.batch > 0) + (b.draft > 0) != 1)
        return opt_usage(&about, "give only one of --reuse, --batch and --drafts");
    gdn_bench_opts usual;
    gdn_bench_defaults(&usual);
    b.json = o->json;
    b.n_rep = o->b.n_rep;
    b.n_prompt = o->b.n_prompt != usual.n_prompt ? o->b.n_prompt : 0;
    b.n_new = o->b.n_new != usual.n_new ? o->b.n_new : 0;
    cli_model m;
    int rc = cli_open(&m, &o->common,
                      CLI_WEIGHTS | (b.draft > 0 ? CLI_TOKENIZER | CLI_TEMPLATE : 0));
    if (rc == 0) {
        rc = cli_bench_requests_run(&m, &b);
        cli_close(&m);
    }
    return cli_end(rc);
}

int cli_bench(int argc, char **argv) {
    options o = { .depths = NULL };
    gdn_bench_defaults(&o.b);
    const opt table[] = {
        { OPT_I32, 'p', "prompt", &o.b.n_prompt, "N", "tokens of a prompt; 0: none (512)", 0, 1 << 24, NULL },
        { OPT_I32, 'n', "generate", &o.b.n_new, "N", "tokens to generate; 0: none (32)", 0, 1 << 24, NULL },
        { OPT_STR, 0, "depth", &o.depths, "N,...", "tokens in the cache before (0)", 0, 0, NULL },
        { OPT_I32, 0, "reps", &o.b.n_rep, "N", "repetitions (3)", 1, GDN_BENCH_MAX_REP, NULL },
        { OPT_TRUE, 0, "kernels", &o.b.kernels, NULL, "times of a device's kernels as well", 0, 0, NULL },
        { OPT_TRUE, 0, "json", &o.json, NULL, "one JSON object", 0, 0, NULL },
        { OPT_HEAD, 0, "requests, instead", NULL, NULL, NULL, 0, 0, NULL },
        { OPT_TRUE, 0, "reuse", &o.requests.reuse, NULL, "prompt tokens computed when prompts share", 0, 0, NULL },
        { OPT_I32, 0, "batch", &o.requests.batch, "N", "N requests (-p, -n tokens) at once, and one by one", 1, 4096, NULL },
        { OPT_I32, 0, "drafts", &o.requests.draft, "N", "an answer with N tokens guessed ahead, and without", 1, 4, NULL },
        { OPT_STR, 0, "question", &o.requests.text, "TEXT", "what --drafts asks", 0, 0, NULL },
        CLI_COMMON_OPTIONS(&o.common),
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    rc = read_depths(&o);
    if (rc != 0) return rc;
    if (o.requests.reuse || o.requests.batch > 0 || o.requests.draft > 0) return requests(&o);
    if (o.common.chunk > 0) o.b.engine.n_row = o.common.chunk;
    if (o.common.block_size > 0) o.b.engine.block_size = o.common.block_size;
    cli_model m;
    rc = cli_open(&m, &o.common, CLI_WEIGHTS);
    if (rc != 0) return rc;
    gdn_bench_result *r = calloc(1, sizeof *r);
    gdn_err err = { 0 };
    cli_bar bar;
    o.b.progress = cli_bar_step;
    o.b.arg = &bar;
    if (r == NULL) {
        rc = cli_error("out of memory");
    } else {
        cli_bar_begin(&bar, "runs", NULL, o.common.quiet);
        const gdn_status st = gdn_bench_run(m.model, &o.b, r, &err);
        cli_bar_end(&bar);
        if (st != GDN_OK) rc = cli_fail(&err);
        else if (o.json) print_json(&m, r);
        else print_text(&m, r, o.b.n_rep);
    }
    free(r);
    cli_close(&m);
    return cli_end(rc);
}
