/* test_config.c - config.json and generation_config.json: what is read, and what is
 * refused.
 *
 * Bad files are a good one with one field changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../src/format/config.h"
#include "../../src/format/genconfig.h"

/* The shape of the 35B-A3B release, nested as published, with a vision tower. */
static const char moe[] =
    "{\"architectures\":[\"Qwen3_5MoeForConditionalGeneration\"],\"model_type\":\"qwen3_"
    "5_moe\","
    "\"image_token_id\":248056,\"video_token_id\":248057,\"vision_start_token_id\":"
    "248053,"
    "\"vision_end_token_id\":248054,\"tie_word_embeddings\":false,\"text_config\":{"
    "\"model_type\":\"qwen3_5_moe_text\",\"dtype\":\"bfloat16\",\"hidden_size\":2048,"
    "\"num_hidden_layers\":40,\"vocab_size\":248320,\"num_attention_heads\":16,"
    "\"num_key_value_heads\":2,\"head_dim\":256,\"linear_num_key_heads\":16,"
    "\"linear_num_value_heads\":32,\"linear_key_head_dim\":128,\"linear_value_head_dim\":"
    "128,"
    "\"linear_conv_kernel_dim\":4,\"full_attention_interval\":4,\"rms_norm_eps\":1e-06,"
    "\"hidden_act\":\"silu\",\"attention_bias\":false,\"attn_output_gate\":true,"
    "\"output_gate_type\":\"swish\",\"mamba_ssm_dtype\":\"float32\",\"num_experts\":256,"
    "\"num_experts_per_tok\":8,\"moe_intermediate_size\":512,"
    "\"shared_expert_intermediate_size\":512,\"mtp_num_hidden_layers\":1,"
    "\"mtp_use_dedicated_embeddings\":false,\"max_position_embeddings\":262144,"
    "\"eos_token_id\":248044,\"rope_parameters\":{\"rope_type\":\"default\","
    "\"rope_theta\":10000000,\"partial_rotary_factor\":0.25,\"mrope_section\":[11,11,10],"
    "\"mrope_interleaved\":true}},\"vision_config\":{\"depth\":27,\"hidden_size\":1152,"
    "\"num_heads\":16,\"intermediate_size\":4304,\"patch_size\":16,\"temporal_patch_"
    "size\":2,"
    "\"spatial_merge_size\":2,\"num_position_embeddings\":2304,\"out_hidden_size\":2048,"
    "\"in_channels\":3,\"hidden_act\":\"gelu_pytorch_tanh\",\"deepstack_visual_indexes\":"
    "[]}}";

/* The 80B-A3B release in its old, flat form. */
static const char next[] =
    "{\"architectures\":[\"Qwen3NextForCausalLM\"],\"model_type\":\"qwen3_next\","
    "\"torch_dtype\":\"float16\",\"hidden_size\":2048,\"num_hidden_layers\":48,"
    "\"vocab_size\":151936,\"num_attention_heads\":16,\"num_key_value_heads\":2,"
    "\"head_dim\":256,\"intermediate_size\":5632,\"linear_num_key_heads\":16,"
    "\"linear_num_value_heads\":32,\"num_experts\":512,\"num_experts_per_tok\":10,"
    "\"moe_intermediate_size\":512,\"shared_expert_intermediate_size\":512,"
    "\"norm_topk_prob\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":[],"
    "\"rope_theta\":10000000,\"rope_scaling\":null,\"partial_rotary_factor\":0.25,"
    "\"eos_token_id\":[151645,151643],\"tie_word_embeddings\":false}";

/* base with the field at a dotted path set to a JSON value, or removed when that is NULL.
 */
static char *changed(const char *base, const char *path, const char *value) {
    char part[128];
    json_t *top = json_loads(base, 0, NULL), *at = top;
    assert_non_null(top);
    for (const char *dot; (dot = strchr(path, '.')) != NULL; path = dot + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
        json_t *in = json_object_get(at, part);
        if (in == NULL) json_object_set_new(at, part, in = json_object());
        at = in;
    }
    if (value == NULL)
        assert_int_equal(json_object_del(at, path), 0);
    else {
        json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(v);
        assert_int_equal(json_object_set_new(at, path, v), 0);
    }
    char *text = json_dumps(top, JSON_COMPACT);
    json_decref(top);
    assert_non_null(text);
    return text;
}

static gdn_config good(const char *text) {
    gdn_config c;
    gdn_err err = {0};
    memset(&c, 0xaa, sizeof c);
    if (gdn_config_parse(text, strlen(text), "c.json", &c, &err) != GDN_OK)
        fail_msg("%s", err.text);
    return c;
}

static gdn_config good_with(const char *base, const char *path, const char *value) {
    char *text = changed(base, path, value);
    const gdn_config c = good(text);
    free(text);
    return c;
}

typedef struct {
    const char *path, *value, *part;
    gdn_status code;
} change;

static void expect_bad(const char *base, const change *b) {
    gdn_config c;
    gdn_err err = {0};
    char *text = changed(base, b->path, b->value);
    memset(&c, 0x55, sizeof c);
    const gdn_status st = gdn_config_parse(text, strlen(text), "c.json", &c, &err);
    if (st != b->code || strstr(err.text, b->part) == NULL ||
        strncmp(err.text, "c.json: ", 8) != 0)
        fail_msg("%s = %s: got %d \"%s\", expected %d \"%s\"", b->path, b->value, st,
                 err.text, b->code, b->part);
    assert_int_equal(c.d, 0x55555555); /* written only on success */
    free(text);
}

/* --- what is read ------------------------------------------------------------------ */

static void nested(void **state) {
    (void)state;
    const gdn_config c = good(moe);
    assert_int_equal(c.arch, GDN_ARCH_QWEN3_5_MOE);
    assert_string_equal(gdn_arch_name(c.arch), "qwen3_5_moe");
    assert_false(c.interleaved);
    assert_int_equal(c.d, 2048);
    assert_int_equal(c.n_layer, 40);
    assert_int_equal(c.vocab, 248320);
    assert_int_equal(c.n_full, 10);
    assert_int_equal(c.n_linear, 30);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(c.layer_kind[i], i % 4 == 3 ? GDN_LAYER_FULL : GDN_LAYER_LINEAR);
        assert_true(c.layer_moe[i]);
    }
    assert_int_equal(c.max_position, 262144);
    assert_true(c.eps == 1e-6);
    assert_false(c.tie);
    assert_int_equal(c.hq, 16);
    assert_int_equal(c.hkv, 2);
    assert_int_equal(c.head_dim, 256);
    assert_true(c.attn_gate);
    assert_int_equal(c.rot, 64);
    assert_true(c.rope_theta == 1e7);
    assert_true(c.mrope);
    assert_int_equal(c.mrope_section[0], 11);
    assert_int_equal(c.mrope_section[2], 10);
    assert_int_equal(c.hk, 16);
    assert_int_equal(c.hv, 32);
    assert_int_equal(c.dk, 128);
    assert_int_equal(c.dv, 128);
    assert_int_equal(c.conv_width, 4);
    assert_int_equal(c.state_type, GDN_FLOAT_F32);
    assert_int_equal(c.ffn, 0);
    assert_int_equal(c.n_expert, 256);
    assert_int_equal(c.top_k, 8);
    assert_int_equal(c.moe_ffn, 512);
    assert_int_equal(c.shared_ffn, 512);
    assert_true(c.norm_topk);
    assert_int_equal(c.n_mtp, 1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 248044);
    assert_true(c.has_vision);
    assert_int_equal(c.vision.depth, 27);
    assert_int_equal(c.vision.d, 1152);
    assert_int_equal(c.vision.n_head, 16);
    assert_int_equal(c.vision.ffn, 4304);
    assert_int_equal(c.vision.patch, 16);
    assert_int_equal(c.vision.merge, 2);
    assert_int_equal(c.vision.n_position, 2304);
    assert_int_equal(c.vision.d_out, 2048);
    assert_true(c.vision.rope_theta == 1e4);
    assert_int_equal(c.image_token, 248056);
    assert_int_equal(c.video_token, 248057);
    assert_int_equal(c.vision_start, 248053);
    assert_int_equal(c.vision_end, 248054);
    assert_int_equal(c.dtype, GDN_FLOAT_BF16);
    assert_int_equal(c.quant, GDN_QUANT_NONE);
}

static void flat_and_old(void **state) {
    (void)state;
    const gdn_config c = good(next);
    assert_int_equal(c.arch, GDN_ARCH_QWEN3_NEXT);
    assert_true(c.interleaved);
    assert_int_equal(c.n_full, 12);
    assert_int_equal(c.rot, 64);
    assert_true(c.rope_theta == 1e7);
    assert_false(c.mrope);
    assert_int_equal(c.dk, 128); /* absent: the default */
    assert_int_equal(c.conv_width, 4);
    assert_int_equal(c.max_position, 32768);
    assert_int_equal(c.ffn, 0); /* no layer uses it */
    assert_int_equal(c.top_k, 10);
    assert_int_equal(c.n_mtp, -1);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[1], 151643);
    assert_false(c.has_vision);
    assert_int_equal(c.image_token, -1);
    assert_int_equal(c.dtype, GDN_FLOAT_F16);
}

static void golden(void **state) {
    static const struct {
        const char *dir;
        gdn_arch arch;
        int32_t d, n_layer, hq, hkv, head_dim, rot, dk, hv, ffn, n_expert, top_k, n_mtp;
        bool tie, vision;
    } g[] = {
        {"tests/golden/model/dense-mtp", GDN_ARCH_QWEN3_5, 96, 4, 4, 2, 32, 8, 32, 4, 160,
         0, 0, 1, false, false},
        {"tests/golden/model/dense-tied-128", GDN_ARCH_QWEN3_5, 128, 4, 2, 1, 256, 64,
         128, 4, 192, 0, 0, -1, true, false},
        {"tests/golden/model/moe-mtp", GDN_ARCH_QWEN3_5_MOE, 96, 4, 4, 2, 32, 8, 32, 4, 0,
         8, 2, 1, false, false},
        {"tests/golden/model/next-moe", GDN_ARCH_QWEN3_NEXT, 96, 4, 4, 2, 32, 8, 32, 4, 0,
         12, 3, -1, false, false},
        {"tests/golden/model/vision", GDN_ARCH_QWEN3_5, 96, 4, 4, 2, 32, 8, 32, 4, 160, 0,
         0, -1, false, true},
        {"models/jargon", GDN_ARCH_QWEN3_5, 256, 8, 2, 1, 256, 64, 128, 4, 768, 0, 0, 1,
         true, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof g / sizeof *g; i++) {
        gdn_config c;
        gdn_err err = {0};
        if (gdn_config_read(g[i].dir, &c, &err) != GDN_OK) fail_msg("%s", err.text);
        assert_int_equal(c.arch, g[i].arch);
        assert_int_equal(c.d, g[i].d);
        assert_int_equal(c.n_layer, g[i].n_layer);
        assert_int_equal(c.n_full, g[i].n_layer / 4);
        assert_int_equal(c.hq, g[i].hq);
        assert_int_equal(c.hkv, g[i].hkv);
        assert_int_equal(c.head_dim, g[i].head_dim);
        assert_int_equal(c.rot, g[i].rot);
        assert_int_equal(c.dk, g[i].dk);
        assert_int_equal(c.hv, g[i].hv);
        assert_int_equal(c.ffn, g[i].ffn);
        assert_int_equal(c.n_expert, g[i].n_expert);
        assert_int_equal(c.top_k, g[i].top_k);
        assert_int_equal(c.n_mtp, g[i].n_mtp);
        assert_int_equal(c.tie, g[i].tie);
        assert_int_equal(c.has_vision, g[i].vision);
        assert_int_equal(c.mrope, g[i].arch != GDN_ARCH_QWEN3_NEXT);
    }
    gdn_config c;
    gdn_err err = {0};
    assert_int_equal(gdn_config_read("tests/golden/model/vision/config.json", &c, &err),
                     GDN_OK);
    assert_int_equal(c.vision.d, 64);
    assert_int_equal(c.vision.n_position, 64);
    assert_int_equal(c.image_token, 500);
    assert_int_equal(gdn_config_read("tests/golden", &c, &err), GDN_E_IO);
    assert_non_null(strstr(err.text, "tests/golden/config.json: No such file"));
}

static void forms(void **state) {
    (void)state;
    static const struct {
        const char *type;
        gdn_arch arch;
    } types[] = {
        {"\"qwen3_5\"", GDN_ARCH_QWEN3_5},
        {"\"qwen3_5_text\"", GDN_ARCH_QWEN3_5},
        {"\"qwen3_next\"", GDN_ARCH_QWEN3_NEXT},
        {"\"qwen3_5_moe\"", GDN_ARCH_QWEN3_5_MOE},
        {"\"qwen3_5_moe_text\"", GDN_ARCH_QWEN3_5_MOE},
    };
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(good_with(next, "model_type", types[i].type).arch,
                         types[i].arch);
    /* Without a model_type the class decides. */
    assert_int_equal(good_with(next, "model_type", NULL).arch, GDN_ARCH_QWEN3_NEXT);
    assert_int_equal(good_with(moe, "model_type", NULL).arch, GDN_ARCH_QWEN3_5_MOE);

    char *a = changed(moe, "vision_config", NULL);
    assert_false(good(a).has_vision);
    free(a);
    assert_false(good_with(moe, "vision_config", "null").has_vision);
    assert_true(good_with(moe, "tie_word_embeddings", "true").tie);
    a = changed(moe, "tie_word_embeddings", NULL);
    assert_true(good_with(a, "text_config.tie_word_embeddings", "true").tie);
    free(a);
    assert_int_equal(good_with(next, "num_nextn_predict_layers", "1").n_mtp, 1);
    assert_int_equal(good_with(next, "mtp_num_hidden_layers", "0").n_mtp, 0);
    assert_int_equal(good_with(next, "dtype", "\"float32\"").dtype, GDN_FLOAT_F32);
    assert_int_equal(good_with(next, "eos_token_id", "null").n_eos, 0);
    assert_int_equal(good_with(moe, "eos_token_id", "[3,4,5]").n_eos, 3);
    assert_false(good_with(next, "norm_topk_prob", "false").norm_topk);
    assert_true(good_with(moe, "text_config.norm_topk_prob", "false").norm_topk);
    assert_false(good_with(next, "attn_output_gate", "false").attn_gate);
    assert_int_equal(good_with(next, "mamba_ssm_dtype", "\"bfloat16\"").state_type,
                     GDN_FLOAT_BF16);
    assert_int_equal(good_with(next, "rope_theta", "1.5e6").rope_theta, 1500000);
    assert_int_equal(good_with(next, "rope_scaling", "{\"type\":\"default\"}").rot, 64);
    /* rope_parameters count more than what stands beside them. */
    const gdn_config r = good_with(next, "rope_parameters",
                                   "{\"rope_theta\":5e6,\"partial_rotary_factor\":0.5}");
    assert_true(r.rope_theta == 5e6 && r.rot == 128);
    /* The usual sections are understood when none are named. */
    const gdn_config m =
        good_with(moe, "text_config.rope_parameters.mrope_section", NULL);
    assert_true(m.mrope && m.mrope_section[1] == 11);

    a = changed(next, "num_hidden_layers", "4");
    const gdn_config k =
        good_with(a, "layer_types",
                  "[\"full_attention\",\"linear_attention\",\"mamba\",\"attention\"]");
    assert_int_equal(k.n_full, 2);
    assert_int_equal(k.layer_kind[0], GDN_LAYER_FULL);
    assert_int_equal(k.layer_kind[2], GDN_LAYER_LINEAR);
    assert_int_equal(good_with(a, "full_attention_interval", "2").n_full, 2);
    const gdn_config s = good_with(a, "decoder_sparse_step", "2");
    assert_true(!s.layer_moe[0] && s.layer_moe[1] && !s.layer_moe[2] && s.layer_moe[3]);
    assert_int_equal(s.ffn, 5632);
    const gdn_config o = good_with(a, "mlp_only_layers", "[0,3]");
    assert_true(!o.layer_moe[0] && o.layer_moe[1] && o.layer_moe[2] && !o.layer_moe[3]);
    const gdn_config n = good_with(a, "mlp_only_layers", "[0,1,2,3]");
    assert_true(n.n_expert == 0 && n.ffn == 5632);
    free(a);
    a = changed(moe, "text_config.num_experts", NULL);
    assert_int_equal(good_with(a, "text_config.num_local_experts", "64").n_expert, 64);
    free(a);

    const gdn_config q = good_with(moe, "quantization_config",
                                   "{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\","
                                   "\"activation_scheme\":\"dynamic\","
                                   "\"weight_block_size\":[128,64]}");
    assert_int_equal(q.quant, GDN_QUANT_FP8);
    assert_true(q.quant_rows == 128 && q.quant_cols == 64);
}

/* --- what is refused -------------------------------------------------------------------
 */

#define BAD GDN_E_FORMAT
#define NOT GDN_E_UNSUPPORTED

static void refused_nested(void **state) {
    static const change bad[] = {
        {"model_type", "\"qwen4_exp\"",
         "model_type is \"qwen4_exp\", which is not supported; "
         "supported are qwen3_next, qwen3_5,",
         NOT},
        {"model_type", "\"llama\"", "model_type is \"llama\"", NOT},
        {"model_type", "7", "model_type is 7; need a string", BAD},
        {"text_config.model_type", "\"qwen3_5_text\"",
         "need the text model of qwen3_5_moe", BAD},
        {"text_config.model_type", "\"llama\"", "text_config.model_type is \"llama\"",
         NOT},
        {"text_config", "[]", "text_config is []; need an object", BAD},
        {"text_config.num_attention_heads", "-3",
         "c.json: text_config.num_attention_heads is -3; need 1 to 1024", BAD},
        {"text_config.num_attention_heads", "0", "need 1 to 1024", BAD},
        {"text_config.num_attention_heads", "16.0", "is 16.0; need 1 to 1024", BAD},
        {"text_config.num_attention_heads", "\"16\"", "is \"16\"; need", BAD},
        {"text_config.num_attention_heads", "99999999999", "is 99999999999; need", BAD},
        {"text_config.num_attention_heads", "4294967312", "need 1 to 1024", BAD},
        {"text_config.num_attention_heads", NULL, "num_attention_heads is missing", BAD},
        {"text_config.num_attention_heads", "null", "num_attention_heads is missing",
         BAD},
        {"text_config.num_attention_heads", "15",
         "15 is not a multiple of num_key_value_heads 2", BAD},
        {"text_config.num_key_value_heads", NULL, "num_key_value_heads is missing", BAD},
        {"text_config.hidden_size", "65537", "need 1 to 65536", BAD},
        {"text_config.hidden_size", NULL, "hidden_size is missing", BAD},
        {"text_config.vocab_size", "4194305", "need 1 to 4194304", BAD},
        {"text_config.num_hidden_layers", "513", "need 1 to 512", BAD},
        {"text_config.num_hidden_layers", "0", "need 1 to 512", BAD},
        {"text_config.head_dim", "1025", "need 2 to 1024", BAD},
        {"text_config.linear_num_value_heads", "33",
         "33 is not a multiple of linear_num_key_heads 16", BAD},
        {"text_config.linear_num_key_heads", "0", "need 1 to 1024", BAD},
        {"text_config.linear_key_head_dim", "2000", "need 1 to 1024", BAD},
        {"text_config.linear_value_head_dim", "true", "is true; need", BAD},
        {"text_config.linear_conv_kernel_dim", "1", "need 2 to 8", BAD},
        {"text_config.linear_conv_kernel_dim", "9", "need 2 to 8", BAD},
        {"text_config.rms_norm_eps", "0", "rms_norm_eps is 0; need a number from", BAD},
        {"text_config.rms_norm_eps", "-1e-6", "need a number from", BAD},
        {"text_config.rms_norm_eps", "\"x\"", "need a number from", BAD},
        {"text_config.max_position_embeddings", "0", "need 1 to", BAD},
        {"text_config.layer_types", "[\"full_attention\"]", "need a list of 40", BAD},
        {"text_config.layer_types", "\"full_attention\"", "need a list of 40", BAD},
        {"text_config.full_attention_interval", "0", "need 1 to 512", BAD},
        {"text_config.hidden_act", "\"gelu\"", "hidden_act is \"gelu\"", NOT},
        {"text_config.attention_bias", "true", "attention_bias is true", NOT},
        {"text_config.attention_bias", "1", "need true or false", BAD},
        {"text_config.output_gate_type", "\"sigmoid\"", "output_gate_type is \"sigmoid\"",
         NOT},
        {"text_config.mamba_ssm_dtype", "\"float8\"", "mamba_ssm_dtype is \"float8\"",
         NOT},
        {"text_config.num_experts", NULL, "num_experts is missing", BAD},
        {"text_config.num_experts", "4097", "need 1 to 4096", BAD},
        {"text_config.num_experts_per_tok", "257", "is 257; need 1 to 256", BAD},
        {"text_config.num_experts_per_tok", "0", "need 1 to", BAD},
        {"text_config.moe_intermediate_size", "-1", "need 1 to", BAD},
        {"text_config.shared_expert_intermediate_size", NULL, "is missing", BAD},
        {"text_config.mtp_num_hidden_layers", "-1", "need 0 to 16", BAD},
        {"text_config.mtp_use_dedicated_embeddings", "true",
         "dedicated_embeddings is true", NOT},
        {"text_config.eos_token_id", "248320", "need 0 to 248319 or a list", BAD},
        {"text_config.eos_token_id", "[1,-1]", "eos_token_id is [1,-1]", BAD},
        {"eos_token_id", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", "at most 16", BAD},
        {"text_config.dtype", "\"int8\"", "dtype is \"int8\"", NOT},
        {"tie_word_embeddings", "\"no\"", "tie_word_embeddings is \"no\"", BAD},
        {"image_token_id", "248320", "image_token_id is 248320; need 0 to 248319", BAD},
        {"text_config.rope_parameters", "[]", "rope_parameters is []; need an object",
         BAD},
        {"text_config.rope_parameters.rope_type", "\"yarn\"",
         "text_config.rope_parameters.rope_type is \"yarn\", which is not supported",
         NOT},
        {"text_config.rope_parameters.type", "\"linear\"", "type is \"linear\"", NOT},
        {"text_config.rope_parameters.rope_type", "1", "need a string", BAD},
        {"text_config.rope_parameters.full_attention", "{}", "same in all layers", NOT},
        {"text_config.rope_parameters.rope_theta", "0", "need a number from", BAD},
        {"text_config.rope_parameters.partial_rotary_factor", "1.5", "need a number from",
         BAD},
        {"text_config.rope_parameters.partial_rotary_factor", "0", "rotates 0 of", BAD},
        {"text_config.rope_parameters.partial_rotary_factor", "0.2461", "rotates 63 of",
         BAD},
        {"text_config.rope_parameters.mrope_section", "[11,11,11]",
         "11 + 11 + 11 is not 32", BAD},
        {"text_config.rope_parameters.mrope_section", "[16,16]", "list of three", BAD},
        {"text_config.rope_parameters.mrope_section", "[33,-1,0]", "mrope_section is",
         BAD},
        {"text_config.rope_parameters.mrope_interleaved", "false", "interleaved is false",
         NOT},
        {"vision_config", "7", "vision_config is 7", BAD},
        {"vision_config.depth", NULL, "vision_config.depth is missing", BAD},
        {"vision_config.depth", "0", "vision_config.depth is 0", BAD},
        {"vision_config.out_hidden_size", "1152", "need 2048 to 2048", BAD},
        {"vision_config.num_position_embeddings", "2305", "need a square number", BAD},
        {"vision_config.num_heads", "17", "hidden_size is 1152; need a multiple", BAD},
        {"vision_config.hidden_act", "\"gelu\"", "vision_config.hidden_act is \"gelu\"",
         NOT},
        {"vision_config.deepstack_visual_indexes", "[5,11]", "deepstack_visual_indexes",
         NOT},
        {"vision_config.rope_parameters", "{\"rope_type\":\"yarn\"}", "rope_type is",
         NOT},
        {"quantization_config", "{}", "quant_method is missing", BAD},
        {"quantization_config", "{\"quant_method\":\"gptq\"}", "quant_method is \"gptq\"",
         NOT},
        {"quantization_config", "{\"quant_method\":\"awq\"}", "quant_method is \"awq\"",
         NOT},
        {"quantization_config", "{\"quant_method\":\"fp8\"}",
         "weight_block_size is missing", BAD},
        {"quantization_config",
         "{\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]}",
         "weight_block_size is [0,128]", BAD},
        {"quantization_config", "{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}",
         "two integers", BAD},
        {"quantization_config",
         "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128],"
         "\"activation_scheme\":\"static\"}",
         "activation_scheme is \"static\"", NOT},
        {"quantization_config",
         "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128],"
         "\"fmt\":\"e5m2\"}",
         "fmt is \"e5m2\"", NOT},
        {"text_config.quantization_config", "{\"quant_method\":\"awq\"}",
         "text_config.quantization_config.quant_method", NOT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) expect_bad(moe, &bad[i]);
}

static void refused_flat(void **state) {
    static const change bad[] = {
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4.0}",
         "rope_scaling.type is \"yarn\"", NOT},
        {"rope_scaling", "{\"rope_type\":\"dynamic\"}", "rope_scaling.rope_type is", NOT},
        {"rope_scaling", "4", "rope_scaling is 4", BAD},
        {"rope_theta", "\"1e7\"", "rope_theta is \"1e7\"", BAD},
        {"partial_rotary_factor", "-0.25", "need a number from", BAD},
        {"decoder_sparse_step", "0", "need 1 to 512", BAD},
        {"mlp_only_layers", "[48]", "mlp_only_layers is [48]; need 0 to 47", BAD},
        {"mlp_only_layers", "3", "need a list of layer numbers", BAD},
        {"norm_topk_prob", "1", "need true or false", BAD},
        {"intermediate_size", "1048577", "need 1 to 1048576", BAD},
        {"torch_dtype", "\"auto\"", "torch_dtype is \"auto\"", NOT},
        {"architectures", "[\"LlamaForCausalLM\"]", "LlamaForCausalLM", NOT},
        {"architectures", "[]", "architectures is []", NOT},
        {"architectures", NULL, "model_type is missing", BAD},
    };
    (void)state;
    char *no_type = changed(next, "model_type", NULL);
    char *dense = changed(next, "mlp_only_layers", "[0]");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_bad(strcmp(bad[i].path, "architectures") == 0       ? no_type
                   : strcmp(bad[i].path, "intermediate_size") == 0 ? dense
                                                                   : next,
                   &bad[i]);
    free(no_type);
    free(dense);

    char *few = changed(next, "num_hidden_layers", "2");
    expect_bad(few, &(change){"layer_types", "[\"full_attention\",\"sliding_attention\"]",
                              "layer_types[1] is \"sliding_attention\"", NOT});
    expect_bad(few, &(change){"layer_types", "[\"full_attention\",null]",
                              "layer_types[1]", BAD});
    free(few);
    /* Each is legal alone: 1024 heads of 1024 x 128 are 2^27 numbers of state. */
    char *wide = changed(next, "linear_num_value_heads", "1024");
    expect_bad(wide, &(change){"linear_key_head_dim", "1024",
                               "state of 1024 x 1024 x 128", BAD});
    free(wide);
}

static void not_json(void **state) {
    static const char *const bad[] = {
        "",
        "[]",
        "7",
        "{",
        "{\"a\":1,}",
        "{\"a\":NaN}",
        "{\"a\":1}{",
        "{\"a\":1,\"a\":1}",
        "{\"a\":\"\xff\"}",
        "{\"a\":1e999}",
    };
    gdn_config c;
    gdn_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(gdn_config_parse(bad[i], strlen(bad[i]), "n", &c, &err),
                         GDN_E_FORMAT);
    char *deep = malloc(200001);
    assert_non_null(deep);
    memset(deep, '[', 200000);
    memcpy(deep, "{\"a\":", 5);
    assert_int_equal(gdn_config_parse(deep, 200000, "n", &c, &err), GDN_E_FORMAT);
    free(deep);
    /* Every prefix of a good file, none of which is one. */
    for (size_t n = 0; n + 1 < sizeof next; n++)
        assert_int_equal(gdn_config_parse(next, n, "n", &c, NULL), GDN_E_FORMAT);
}

static void long_values_are_cut(void **state) {
    gdn_config c;
    gdn_err err = {0};
    char text[600], word[400];
    (void)state;
    for (int i = 0; i < 300; i += 2) memcpy(word + i, "\xc3\xa9", 2);
    word[300] = '\0';
    snprintf(text, sizeof text, "{\"model_type\":\"xx%s\"}", word);
    assert_int_equal(gdn_config_parse(text, strlen(text), "n", &c, &err),
                     GDN_E_UNSUPPORTED);
    const char *dots = strstr(err.text, "...");
    assert_non_null(dots);
    assert_int_equal((unsigned char)dots[-1], 0xa9); /* cut between characters */
    assert_non_null(strstr(err.text, "supported are qwen3_next"));
}

/* --- generation_config.json
 * ------------------------------------------------------------------ */

static void generation(void **state) {
    static const char text[] =
        "{\"eos_token_id\":[248046,248044],\"do_sample\":true,\"temperature\":0.6,\"top_"
        "k\":20,"
        "\"top_p\":0.95,\"min_p\":0,\"repetition_penalty\":1.05,\"presence_penalty\":1.5,"
        "\"frequency_penalty\":null,\"bos_token_id\":7,\"transformers_version\":\"4\"}";
    static const char *const bad[][2] = {
        {"{\"eos_token_id\":\"x\"}", "eos_token_id is \"x\""},
        {"{\"eos_token_id\":-1}", "eos_token_id is -1"},
        {"{\"eos_token_id\":[1,2.5]}", "eos_token_id is [1,2.5]"},
        {"{\"do_sample\":1}", "do_sample is 1"},
        {"{\"temperature\":\"hot\"}", "temperature is \"hot\""},
        {"{\"temperature\":-0.1}", "temperature is -0.1"},
        {"{\"top_k\":20.5}", "top_k is 20.5"},
        {"{\"top_k\":-1}", "top_k is -1"},
        {"{\"top_p\":1.5}", "top_p is 1.5"},
        {"{\"min_p\":[]}", "min_p is []"},
        {"{\"repetition_penalty\":0}", "repetition_penalty is 0"},
        {"{\"presence_penalty\":true}", "presence_penalty is true"},
        {"{\"frequency_penalty\":{}}", "frequency_penalty is {}"},
        {"[]", "not a JSON object"},
    };
    gdn_genconfig g;
    gdn_err err = {0};
    (void)state;
    assert_int_equal(gdn_genconfig_parse(text, sizeof text - 1, "g.json", &g, &err),
                     GDN_OK);
    assert_true(g.n_eos == 2 && g.eos[0] == 248046 && g.eos[1] == 248044);
    assert_true(g.has_do_sample && g.do_sample);
    assert_true(g.has_temperature && g.temperature == 0.6);
    assert_true(g.has_top_k && g.top_k == 20);
    assert_true(g.has_top_p && g.top_p == 0.95);
    assert_true(g.has_min_p && g.min_p == 0);
    assert_true(g.has_repetition && g.repetition == 1.05);
    assert_true(g.has_presence && g.presence == 1.5);
    assert_false(g.has_frequency);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(
            gdn_genconfig_parse(bad[i][0], strlen(bad[i][0]), "g.json", &g, &err),
            GDN_E_FORMAT);
        if (strstr(err.text, bad[i][1]) == NULL ||
            strstr(err.text, "g.json: ") != err.text)
            fail_msg("%s: %s", bad[i][0], err.text);
    }

    assert_int_equal(gdn_genconfig_read("models/jargon", &g, &err), GDN_OK);
    assert_true(g.n_eos == 2 && g.eos[0] == 4086 && g.eos[1] == 4084);
    assert_true(g.has_do_sample && !g.do_sample && !g.has_top_k);
    assert_int_equal(gdn_genconfig_read("tests/golden/model/vision", &g, &err), GDN_OK);
    assert_true(g.n_eos == 1 && g.eos[0] == 2 && !g.has_do_sample && !g.has_temperature);
    /* A folder without the file says nothing; a file that is named must be there. */
    assert_int_equal(gdn_genconfig_read("tests/golden/model", &g, &err), GDN_OK);
    assert_true(g.n_eos == 0 && !g.has_do_sample);
    assert_int_equal(gdn_genconfig_read("tests/golden/absent.json", &g, &err), GDN_E_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested),         cmocka_unit_test(flat_and_old),
        cmocka_unit_test(golden),         cmocka_unit_test(forms),
        cmocka_unit_test(refused_nested), cmocka_unit_test(refused_flat),
        cmocka_unit_test(not_json),       cmocka_unit_test(long_values_are_cut),
        cmocka_unit_test(generation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
