/* logits.c - gdn logits: the logits of given tokens, to a safetensors file. */
#include "cli.h"

#include <gdn/tools.h>
#include <stdlib.h>
#include <string.h>

static const opt_about about = {
    "logits", "",
    "Evaluate tokens as one sequence and write \"logits\" [T, vocab] f32 to a safetensors\n"
    "file, and \"mtp_logits\" [T-1, vocab] when the model has a draft head.",
};

typedef struct {
    cli_common  common;
    const char *tokens, *prompt, *positions, *out;
    bool        no_mtp;
} options;

static int write_logits(const options *o, const cli_model *m, const int32_t *ids, int32_t n,
                        const int32_t *pos, int32_t n_pos) {
    gdn_engine_opts e;
    gdn_logits_opts l;
    gdn_err err = { 0 };
    cli_bar bar;
    gdn_engine_opts_defaults(&e);
    if (o->common.chunk > 0) e.n_row = o->common.chunk;
    if (o->common.block_size > 0) e.block_size = o->common.block_size;
    gdn_logits_defaults(&l);
    l.tokens = ids;
    l.n = n;
    l.positions = pos;
    l.n_position = n_pos;
    l.mtp = !o->no_mtp;
    l.engine = &e;
    l.adapter = cli_adapter_active(m);
    l.path = o->out;
    l.progress = cli_bar_step;
    l.arg = &bar;
    const double start = cli_seconds();
    cli_bar_begin(&bar, "tokens", "tok", o->common.quiet);
    const gdn_status st = gdn_logits_write(m->model, &l, &err);
    cli_bar_end(&bar);
    if (st != GDN_OK) return cli_fail(&err);
    if (!o->common.quiet)
        fprintf(stderr, "%s: %d rows of %d tokens, %.1f s\n", o->out, pos != NULL ? n_pos : n, n,
                cli_seconds() - start);
    return 0;
}

int cli_logits(int argc, char **argv) {
    options o = { .tokens = NULL };
    const opt table[] = {
        { OPT_STR, 0, "tokens", &o.tokens, "@FILE|IDS", "the ids", 0, 0, NULL },
        { OPT_STR, 'p', "prompt", &o.prompt, "TEXT", "or a text, taken as it is", 0, 0, NULL },
        { OPT_STR, 0, "positions", &o.positions, "P,...", "only these rows, in this order", 0, 0, NULL },
        { OPT_STR, 'o', "out", &o.out, "FILE", "the file to make", 0, 0, NULL },
        { OPT_TRUE, 0, "no-mtp", &o.no_mtp, NULL, "leave the draft head out", 0, 0, NULL },
        CLI_COMMON_OPTIONS(&o.common),
        CLI_LORA_OPTIONS(&o.common),
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    if ((o.tokens == NULL) == (o.prompt == NULL))
        return opt_usage(&about, "give either --tokens or --prompt");
    if (o.out == NULL) return opt_usage(&about, "-o FILE is missing");
    cli_model m;
    int32_t *ids = NULL, *pos = NULL, n = 0, n_pos = 0;
    rc = cli_open(&m, &o.common, CLI_WEIGHTS | (o.prompt != NULL ? CLI_TOKENIZER : 0));
    if (rc != 0) return rc;
    rc = o.tokens != NULL ? cli_ids(o.tokens, &ids, &n)
                          : cli_encode(&m, o.prompt, strlen(o.prompt), true, &ids, &n);
    if (rc == 0 && n == 0) rc = cli_error("there are no tokens");
    if (rc == 0 && o.positions != NULL) rc = cli_ids(o.positions, &pos, &n_pos);
    if (rc == 0 && o.positions != NULL && n_pos == 0) rc = cli_error("there are no positions");
    if (rc == 0 && n > m.info->context && !o.common.quiet)
        fprintf(stderr, "%d tokens, and the model was made for %d: going on\n", n,
                m.info->context);
    if (rc == 0) rc = write_logits(&o, &m, ids, n, pos, n_pos);
    free(ids);
    free(pos);
    cli_close(&m);
    return cli_end(rc);
}
