/* info.c - gdn info: what a model is. */
#include "cli.h"

#include <string.h>

static const opt_about about = { "info", "", "Show a model's shape, size and settings." };

static void count(char buf[32], double x) {
    static const char *const unit[] = { "", " k", " M", " G", " T" };
    int i = 0;
    while (x >= 1000 && i < 4) x /= 1000, i++;
    snprintf(buf, 32, i == 0 ? "%.0f%s" : "%.2f%s", x, unit[i]);
}

static void print_text(const cli_model *m) {
    const gdn_model_info *i = m->info;
    const gdn_sampling_hints *h = &i->hints;
    char a[32], b[32], c[32];
    printf("model        %s\n", m->dir);
    printf("architecture %s, %s\n", i->arch, i->weight_type);
    count(a, (double)i->parameters);
    printf("parameters   %s%s%s\n", a, i->tied ? ", tied embeddings" : "",
           i->has_mtp ? ", draft head" : "");
    printf("layers       %d: %d linear, %d full attention\n", i->n_layer,
           i->n_layer - i->n_full, i->n_full);
    printf("width        %d, vocabulary %d, context %d\n", i->d, i->vocab, i->context);
    printf("attention    %d query and %d key heads of %d\n", i->hq, i->hkv, i->head_dim);
    printf("linear       %d key heads of %d, %d value heads of %d, convolution %d\n", i->lin_hk,
           i->lin_dk, i->lin_hv, i->lin_dv, i->conv_width);
    if (i->n_expert > 0) printf("experts      %d of %d\n", i->n_expert_used, i->n_expert);
    if (i->has_vision) printf("vision       a tower, which this build leaves out\n");
    printf("memory       %s of weights from %s of files\n", cli_bytes(i->resident_bytes, a),
           cli_bytes(i->file_bytes, b));
    count(c, i->active_flops);
    printf("a token      reads %s, computes %sflop\n", cli_bytes(i->active_bytes, a), c);
    printf("ends at     ");
    for (int32_t k = 0; k < i->n_stop; k++) printf(" %d", i->stop[k]);
    printf("%s\n", i->n_stop == 0 ? " nothing" : "");
    printf("sampling     %s", h->greedy ? "greedy" : "");
    if (h->has_temperature) printf(" temperature %g", (double)h->temperature);
    if (h->has_top_k) printf(" top_k %d", h->top_k);
    if (h->has_top_p) printf(" top_p %g", (double)h->top_p);
    if (h->has_min_p) printf(" min_p %g", (double)h->min_p);
    if (h->has_presence) printf(" presence %g", (double)h->presence);
    if (h->has_frequency) printf(" frequency %g", (double)h->frequency);
    if (h->has_repetition) printf(" repetition %g", (double)h->repetition);
    printf("\n");
    if (m->tok != NULL) printf("tokenizer    %d ids\n", gdn_tokenizer_size(m->tok));
    else printf("tokenizer    none\n");
}

static void hint(const char *key, bool has, double value) {
    if (has) printf(", \"%s\": %.7g", key, value);
}

static void print_json(const cli_model *m) {
    const gdn_model_info *i = m->info;
    const gdn_sampling_hints *h = &i->hints;
    printf("{\"dir\": ");
    cli_json_string(stdout, m->dir, strlen(m->dir));
    printf(", \"arch\": ");
    cli_json_string(stdout, i->arch, strlen(i->arch));
    printf(", \"weight_type\": ");
    cli_json_string(stdout, i->weight_type, strlen(i->weight_type));
    printf(", \"parameters\": %llu, \"n_layer\": %d, \"n_full\": %d, \"d\": %d, \"vocab\": %d",
           (unsigned long long)i->parameters, i->n_layer, i->n_full, i->d, i->vocab);
    printf(", \"context\": %d, \"hq\": %d, \"hkv\": %d, \"head_dim\": %d", i->context, i->hq,
           i->hkv, i->head_dim);
    printf(", \"lin_hk\": %d, \"lin_hv\": %d, \"lin_dk\": %d, \"lin_dv\": %d, \"conv_width\": %d",
           i->lin_hk, i->lin_hv, i->lin_dk, i->lin_dv, i->conv_width);
    printf(", \"n_expert\": %d, \"n_expert_used\": %d", i->n_expert, i->n_expert_used);
    printf(", \"tied\": %s, \"has_mtp\": %s, \"has_vision\": %s", i->tied ? "true" : "false",
           i->has_mtp ? "true" : "false", i->has_vision ? "true" : "false");
    printf(", \"file_bytes\": %llu, \"resident_bytes\": %llu, \"active_bytes\": %llu",
           (unsigned long long)i->file_bytes, (unsigned long long)i->resident_bytes,
           (unsigned long long)i->active_bytes);
    printf(", \"active_flops\": %.0f, \"stop\": [", i->active_flops);
    for (int32_t k = 0; k < i->n_stop; k++) printf("%s%d", k > 0 ? ", " : "", i->stop[k]);
    printf("], \"sampling\": {\"greedy\": %s", h->greedy ? "true" : "false");
    hint("temperature", h->has_temperature, (double)h->temperature);
    hint("top_k", h->has_top_k, h->top_k);
    hint("top_p", h->has_top_p, (double)h->top_p);
    hint("min_p", h->has_min_p, (double)h->min_p);
    hint("presence", h->has_presence, (double)h->presence);
    hint("frequency", h->has_frequency, (double)h->frequency);
    hint("repetition", h->has_repetition, (double)h->repetition);
    printf("}, \"tokenizer_ids\": ");
    if (m->tok != NULL) printf("%d}\n", gdn_tokenizer_size(m->tok));
    else printf("null}\n");
}

int cli_info(int argc, char **argv) {
    cli_common common = { .model = NULL };
    bool json = false;
    const opt table[] = {
        { OPT_TRUE, 0, "json", &json, NULL, "one JSON object", 0, 0, NULL },
        CLI_MODEL_OPTION(&common),
        { OPT_STR, 0, "device", &common.device, "D", "where to load it", 0, 0, NULL },
        { OPT_TRUE, 'v', "verbose", &common.verbose, NULL, "log lines on stderr", 0, 0, NULL },
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    cli_model m;
    rc = cli_open(&m, &common, CLI_WEIGHTS | CLI_TOKENIZER_IF_ANY);
    if (rc != 0) return rc;
    if (json) print_json(&m);
    else print_text(&m);
    cli_close(&m);
    return cli_end(0);
}
