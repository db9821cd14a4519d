/* perplexity.c - gdn perplexity: how well the model expects a text. */
#include "cli.h"

#include <gdn/tools.h>
#include <math.h>
#include <stdlib.h>

static const opt_about about = {
    "perplexity", "",
    "Print the mean of -log p(next token) over a text, and e to that power.  The text is\n"
    "one sequence up to the model's context; the text of a special token is that token.",
};

typedef struct {
    cli_common  common;
    const char *file;
    int32_t     n;
    bool        json;
} options;

static int measure(const options *o, const cli_model *m, const int32_t *ids, int32_t n,
                   gdn_perplexity_result *r) {
    gdn_engine_opts e;
    gdn_err err = { 0 };
    cli_bar bar;
    gdn_engine_opts_defaults(&e);
    if (o->common.chunk > 0) e.n_row = o->common.chunk;
    if (o->common.block_size > 0) e.block_size = o->common.block_size;
    const gdn_perplexity_opts p = {
        .tokens = ids, .n = n, .n_ctx = o->common.ctx, .engine = &e,
        .adapter = cli_adapter_active(m),
        .progress = cli_bar_step, .arg = &bar,
    };
    cli_bar_begin(&bar, "tokens", "tok", o->common.quiet);
    const gdn_status st = gdn_perplexity(m->model, &p, r, &err);
    cli_bar_end(&bar);
    return st == GDN_OK ? 0 : cli_fail(&err);
}

static void print(const options *o, int32_t n, const gdn_perplexity_result *r) {
    const double speed = r->seconds > 0 ? n / r->seconds : 0;
    if (o->json) {
        printf("{\"tokens\": %d, \"scored\": %lld, \"windows\": %d, \"mean_nll\": %.9g, "
               "\"perplexity\": %.9g, \"seconds\": %.3f, \"tokens_per_second\": %.1f}\n",
               n, (long long)r->n_scored, r->n_window, r->nll, exp(r->nll), r->seconds, speed);
        return;
    }
    printf("mean NLL %.6f, perplexity %.6f, %d tokens, %.1f tokens/s\n", r->nll, exp(r->nll), n,
           speed);
    if (r->n_window > 1)
        fprintf(stderr, "The text is longer than the context: %d windows, each begun afresh.\n",
                r->n_window);
}

int cli_perplexity(int argc, char **argv) {
    options o = { .n = 0 };
    const opt table[] = {
        { OPT_STR, 'f', "file", &o.file, "FILE", "the text; - is stdin", 0, 0, NULL },
        { OPT_I32, 'n', "max-tokens", &o.n, "N", "only the first N tokens", 2, INT32_MAX, NULL },
        { OPT_TRUE, 0, "json", &o.json, NULL, "one JSON object", 0, 0, NULL },
        CLI_COMMON_OPTIONS(&o.common),
        CLI_LORA_OPTIONS(&o.common),
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    if (o.file == NULL) return opt_usage(&about, "-f FILE is missing");
    cli_model m;
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = NULL, n = 0;
    gdn_perplexity_result r;
    rc = cli_open(&m, &o.common, CLI_WEIGHTS | CLI_TOKENIZER);
    if (rc != 0) return rc;
    rc = cli_read(o.file, &text, &len);
    if (rc == 0) rc = cli_encode(&m, text, len, true, &ids, &n);
    if (rc == 0 && n < 2) rc = cli_error("%s has %d tokens; need two or more", o.file, n);
    if (o.n > 0 && n > o.n) n = o.n;
    if (rc == 0) rc = measure(&o, &m, ids, n, &r);
    if (rc == 0) print(&o, n, &r);
    free(text);
    free(ids);
    cli_close(&m);
    return cli_end(rc);
}
