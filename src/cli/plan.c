/* plan.c - gdn plan: page size and memory of a model's cache, without its weights. */
#include "cli.h"

#include <gdn/tools.h>
#include <stdlib.h>
#include <string.h>

static const opt_about about = {
    "plan", "",
    "Show the page size of a model's cache on a device, what a sequence takes of it and what fits\n"
    "into memory.  Only config.json is read, and the device need not be present.\n"
    "\n"
    "A page holds the keys and values of a block of tokens of one layer, or one recurrent state.\n"
    "The block is the shortest multiple that the device takes whose page holds a state.  Work\n"
    "space of the forward pass is not counted.",
};

/* A value that has to be one of the words, which stand between blanks; 0 or 2. */
static int one_of(const char *option, const char *value, const char *words) {
    char word[16];
    const int n = snprintf(word, sizeof word, " %s ", value);
    if (n < (int)sizeof word && strchr(value, ' ') == NULL && strstr(words, word) != NULL) return 0;
    return opt_usage(&about, "--%s is \"%s\"; need one of%.*s", option, value,
                     (int)strlen(words) - 1, words);
}

/* --- text ------------------------------------------------------------------------- */

static void print_model(const char *name, const gdn_plan_result *r) {
    printf("model       %s, %s: %d layers, %d linear and %d full attention%s\n", name, r->arch,
           r->n_layer, r->n_linear, r->n_full, r->has_mtp ? ", and a draft head" : "");
    printf("device      %s: blocks of a multiple of %d tokens", r->device, r->align);
    if (r->n_linear > 0)
        printf(" (attention %d, linear layers %d)", r->kv_multiple, r->gdn_multiple);
    printf("\n");
    printf("shard       1 of %d:", r->tp);
    if (r->n_attn > 0) printf(" %d query and %d key heads of %d", r->hq, r->hkv, r->head_dim);
    if (r->n_linear > 0)
        printf("%s linear %d key heads of %d, %d value heads of %d", r->n_attn > 0 ? ";" : "",
               r->hk, r->dk, r->hv, r->dv);
    printf("\n");
    printf("types       keys and values %s, convolution %s, states %s; gdn run has bf16, f32, f32\n",
           r->kv_type, r->conv_type, r->state_type);
    printf("states      mode %s: ", r->mode);
    if (r->n_linear == 0) printf("there are none");
    else if (r->mamba_block_size == 0) printf("the last one of a sequence");
    else printf("also at multiples of %d tokens", r->mamba_block_size);
    if (r->n_draft > 0) printf(", %d draft%s", r->n_draft, r->n_draft > 1 ? "s" : "");
    printf("\n\n");
}

static void print_layer(const gdn_plan_result *r) {
    char a[32];
    printf("of one layer\n");
    if (r->n_attn > 0)
        printf("  token     %12llu B   keys and values\n",
               (unsigned long long)r->kv_bytes_per_token);
    if (r->n_linear > 0)
        printf("  state     %12llu B   convolution %llu + recurrent %llu\n",
               (unsigned long long)(r->conv_bytes + r->state_bytes),
               (unsigned long long)r->conv_bytes, (unsigned long long)r->state_bytes);
    printf("  page      %12llu B   %s", (unsigned long long)r->page_bytes,
           cli_bytes(r->page_bytes, a));
    if (r->n_attn > 0) printf(", a block of %d tokens", r->block_size);
    printf("\n");
    if (r->n_linear > 0)
        printf("  padding   %12llu B   +%.2f%% of a state\n",
               (unsigned long long)r->padding_bytes, 100 * r->waste);
    printf("\n");
}

static void print_pool(const gdn_plan_result *r, uint64_t memory) {
    char a[32], b[32], c[32];
    printf("pool        %d tensors, one for each layer of a group; ", r->n_storage);
    if (r->n_attn > 0) printf("1 group with keys and values%s", r->n_group > 0 ? ", " : "");
    if (r->n_group > 0) printf("%d group%s with states", r->n_group, r->n_group > 1 ? "s" : "");
    printf("\npage        %s in all tensors\n", cli_bytes(r->pool_page_bytes, a));
    printf("sequence    of %d tokens: ", r->n_ctx);
    if (r->n_attn > 0) printf("%lld page%s of keys and values%s", (long long)r->kv_pages,
                              r->kv_pages > 1 ? "s" : "", r->n_group > 0 ? ", " : "");
    if (r->n_group > 0) printf("%lld of states", (long long)r->state_pages);
    printf(": %s\n", cli_bytes(r->sequence_bytes, a));
    printf("weights     %s in %s%s, without a vision tower\n", cli_bytes(r->weight_bytes, a),
           r->weight_type, r->tp > 1 ? " a shard" : "");
    if (memory == 0) return;
    printf("memory      %s: %s left for the cache, %lld pages\n", cli_bytes(memory, b),
           cli_bytes(r->cache_bytes, c), (long long)r->n_page);
    printf("fits        %lld sequence%s of %d tokens; one alone could have %lld\n",
           (long long)r->n_seq, r->n_seq == 1 ? "" : "s", r->n_ctx, (long long)r->max_tokens);
}

/* --- JSON ------------------------------------------------------------------------- */

static void field_i(const char *key, int64_t v) { printf(", \"%s\": %lld", key, (long long)v); }
static void field_u(const char *key, uint64_t v) {
    printf(", \"%s\": %llu", key, (unsigned long long)v);
}
static void field_s(const char *key, const char *v) {
    printf(", \"%s\": ", key);
    cli_json_string(stdout, v, strlen(v));
}

static void print_json(const char *name, const gdn_plan_result *r, uint64_t memory) {
    printf("{\"model\": ");
    cli_json_string(stdout, name, strlen(name));
    field_s("arch", r->arch);
    field_s("device", r->device);
    field_s("mode", r->mode);
    field_s("kv_type", r->kv_type);
    field_s("conv_type", r->conv_type);
    field_s("state_type", r->state_type);
    field_s("weight_type", r->weight_type);
    field_i("layers", r->n_layer);
    field_i("full_layers", r->n_full);
    field_i("linear_layers", r->n_linear);
    printf(", \"has_mtp\": %s", r->has_mtp ? "true" : "false");
    field_i("tp", r->tp);
    field_i("drafts", r->n_draft);
    field_i("hq", r->hq);
    field_i("hkv", r->hkv);
    field_i("head_dim", r->head_dim);
    field_i("lin_hk", r->hk);
    field_i("lin_hv", r->hv);
    field_i("lin_dk", r->dk);
    field_i("lin_dv", r->dv);
    field_i("conv_width", r->conv_width);
    field_i("kv_multiple", r->kv_multiple);
    field_i("gdn_multiple", r->gdn_multiple);
    field_i("align", r->align);
    field_i("block_size", r->block_size);
    if (r->mamba_block_size > 0) field_i("mamba_block_size", r->mamba_block_size);
    else printf(", \"mamba_block_size\": null");
    field_u("page_bytes", r->page_bytes);
    field_u("kv_bytes_per_token", r->kv_bytes_per_token);
    field_u("conv_bytes", r->conv_bytes);
    field_u("state_bytes", r->state_bytes);
    field_u("padding_bytes", r->padding_bytes);
    printf(", \"waste\": %.9g", r->waste);
    field_i("n_storage", r->n_storage);
    field_i("groups", r->n_group);
    field_u("pool_page_bytes", r->pool_page_bytes);
    field_i("ctx", r->n_ctx);
    field_i("sequence_kv_pages", r->kv_pages);
    field_i("sequence_state_pages", r->state_pages);
    field_u("sequence_bytes", r->sequence_bytes);
    field_u("weight_bytes", r->weight_bytes);
    if (memory > 0) {
        field_u("memory_bytes", memory);
        field_u("cache_bytes", r->cache_bytes);
        field_i("pages", r->n_page);
        field_i("sequences", r->n_seq);
        field_i("max_tokens", r->max_tokens);
    } else {
        printf(", \"memory_bytes\": null, \"cache_bytes\": null, \"pages\": null, "
               "\"sequences\": null, \"max_tokens\": null");
    }
    printf("}\n");
}

int cli_plan(int argc, char **argv) {
    cli_common common = { .model = NULL };
    gdn_plan_opts o;
    const char *memory = NULL;
    bool json = false, no_mtp = false, typed = false;
    gdn_plan_defaults(&o);
    const opt table[] = {
        { OPT_STR, 'm', "model", &common.model, "PATH", "config.json or its folder (default: the demo)", 0, 0, NULL },
        { OPT_STR, 0, "like", &o.like, "NAME", "or a released shape: see gdn random --list", 0, 0, NULL },
        { OPT_STR, 0, "type", &o.type, "TYPE", "weights of that shape: bf16, f16, f32, fp8 (bf16)", 0, 0, &typed },
        { OPT_STR, 0, "device", &o.device, "D", "cpu, xpu, cuda (default: the default device)", 0, 0, NULL },
        { OPT_I32, 0, "tp", &o.tp, "N", "shards that the heads are divided among (1)", 1, 1024, NULL },
        { OPT_STR, 0, "memory", &memory, "BYTES", "of a device, weights included: 16G", 0, 0, NULL },
        { OPT_I32, 0, "ctx", &o.n_ctx, "N", "tokens of a sequence (default: the model's)", 1, INT32_MAX, NULL },
        { OPT_TRUE, 0, "json", &json, NULL, "one JSON object", 0, 0, NULL },
        { OPT_HEAD, 0, "cache", NULL, NULL, NULL, 0, 0, NULL },
        { OPT_STR, 0, "mode", &o.mode, "MODE", "states that are kept: none, align, all (none)", 0, 0, NULL },
        { OPT_I32, 0, "spec", &o.n_draft, "N", "tokens a step may draft (0)", 0, 64, NULL },
        { OPT_TRUE, 0, "no-mtp", &no_mtp, NULL, "leave the draft head out", 0, 0, NULL },
        { OPT_STR, 0, "kv-type", &o.kv_type, "TYPE", "keys and values: bf16, f16, f32, fp8 (bf16)", 0, 0, NULL },
        { OPT_STR, 0, "conv-type", &o.conv_type, "TYPE", "convolution states: bf16, f16, f32 (bf16, as in vLLM)", 0, 0, NULL },
        { OPT_STR, 0, "state-type", &o.state_type, "TYPE", "recurrent states: f32, bf16, f16 (f32)", 0, 0, NULL },
        { OPT_I32, 0, "block-size", &o.block_size, "N", "tokens of a page (default: the rule)", 1, 1 << 24, NULL },
        { OPT_I32, 0, "mamba-block-size", &o.mamba_block_size, "N", "mode all: states at multiples of N (64)", 1, 1 << 24, NULL },
        { .name = NULL },
    };
    const int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    if (common.model != NULL && o.like != NULL)
        return opt_usage(&about, "only one of --model and --like");
    if (typed && o.like == NULL) return opt_usage(&about, "--type goes with --like");
    const int64_t bytes = memory != NULL ? cli_size(memory) : 1;
    if (memory != NULL) o.memory_bytes = bytes > 0 ? (uint64_t)bytes : 0;
    if (bytes < 1)
        return opt_usage(&about, "--memory is \"%s\"; need bytes, or K, M, G or T of them", memory);
    if (one_of("mode", o.mode, " none align all ") != 0 ||
        one_of("type", o.type, " bf16 f16 f32 fp8 ") != 0 ||
        one_of("kv-type", o.kv_type, " bf16 f16 f32 fp8 ") != 0 ||
        one_of("conv-type", o.conv_type, " bf16 f16 f32 ") != 0 ||
        one_of("state-type", o.state_type, " f32 bf16 f16 ") != 0)
        return 2;
    if (o.mamba_block_size > 0 && strcmp(o.mode, "all") != 0)
        return opt_usage(&about, "--mamba-block-size goes with --mode all");
    if (no_mtp) o.mtp = false;
    cli_model demo = { .model = NULL };
    if (o.like == NULL && common.model == NULL) { /* the default one's folder */
        const int none = cli_open(&demo, &common, 0);
        if (none != 0) return none;
        o.model = demo.dir;
    } else {
        o.model = common.model;
    }
    gdn_plan_result r;
    gdn_err err = { 0 };
    if (gdn_plan(&o, &r, &err) != GDN_OK) return cli_fail(&err);
    const char *name = o.like != NULL ? o.like : o.model;
    if (json) {
        print_json(name, &r, o.memory_bytes);
    } else {
        print_model(name, &r);
        print_layer(&r);
        print_pool(&r, o.memory_bytes);
    }
    return cli_end(0);
}
