/* random_text.c - the text files of a random checkpoint: configuration, tokenizer,
 * template.
 *
 * The vocabulary is made up: 256 bytes, then lower-case words of two to four letters with
 * and without a space before them, each the merge of two earlier tokens, until the
 * family's number of tokens is reached; then the family's own added tokens.  So any text
 * can be encoded, and any token that a random model draws is readable. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random_model.h"

enum { LETTERS = 26, PAIRS = 26 * 26, TRIPLES = 26 * 26 * 26, QUADS = 26 * 26 * 26 * 26 };

static gdn_status open_text(const char *path, FILE **f, gdn_err *err) {
    *f = fopen(path, "we");
    return *f == NULL ? gdn_fail(err, GDN_E_IO, "%s: %s", path, strerror(errno)) : GDN_OK;
}

static gdn_status close_text(const char *path, FILE *f, gdn_err *err) {
    const int bad = ferror(f);
    if (fclose(f) != 0 || bad)
        return gdn_fail(err, GDN_E_IO, "%s: %s", path, strerror(errno));
    return GDN_OK;
}

static gdn_status write_text(const char *path, const char *text, gdn_err *err) {
    FILE *f;
    const gdn_status st = open_text(path, &f, err);
    if (st != GDN_OK) return st;
    fputs(text, f);
    return close_text(path, f, err);
}

/* --- configuration ---------------------------------------------------------------- */

static const char *torch_type(const char *type) {
    return strcmp(type, "f32") == 0   ? "float32"
           : strcmp(type, "f16") == 0 ? "float16"
                                      : "bfloat16";
}

/* The text model's fields, the last without a comma. */
static void put_text_config(FILE *f, const gdn_random_shape *s,
                            const gdn_random_opts *o) {
    const bool next = s->arch == GDN_ARCH_QWEN3_NEXT;
    fprintf(
        f,
        "  \"hidden_size\": %d,\n  \"num_hidden_layers\": %d,\n  \"vocab_size\": %d,\n",
        (int)s->d, (int)o->n_layer, (int)s->vocab);
    fprintf(f,
            "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n"
            "  \"head_dim\": %d,\n  \"attention_bias\": false,\n  \"attn_output_gate\": "
            "true,\n",
            (int)s->hq, (int)s->hkv, GDN_RANDOM_HEAD);
    fprintf(f,
            "  \"linear_num_key_heads\": %d,\n  \"linear_num_value_heads\": %d,\n"
            "  \"linear_key_head_dim\": %d,\n  \"linear_value_head_dim\": %d,\n"
            "  \"linear_conv_kernel_dim\": %d,\n  \"mamba_ssm_dtype\": \"float32\",\n",
            (int)s->hk, (int)s->hv, GDN_RANDOM_LINEAR_HEAD, GDN_RANDOM_LINEAR_HEAD,
            GDN_RANDOM_CONV);
    if (s->n_expert == 0)
        fprintf(f, "  \"intermediate_size\": %d,\n", (int)s->ffn);
    else
        fprintf(f,
                "  \"num_experts\": %d,\n  \"num_experts_per_tok\": %d,\n"
                "  \"moe_intermediate_size\": %d,\n"
                "  \"shared_expert_intermediate_size\": %d,\n",
                (int)s->n_expert, (int)s->top_k, (int)s->moe_ffn, (int)s->shared_ffn);
    if (next)
        fputs("  \"norm_topk_prob\": true,\n  \"decoder_sparse_step\": 1,\n"
              "  \"mlp_only_layers\": [],\n  \"rope_theta\": 10000000,\n"
              "  \"partial_rotary_factor\": 0.25,\n  \"rope_scaling\": null,\n",
              f);
    else
        fprintf(f,
                "  \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": "
                "10000000, "
                "\"partial_rotary_factor\": 0.25, \"mrope_section\": [11, 11, 10], "
                "\"mrope_interleaved\": true},\n  \"mtp_num_hidden_layers\": %d,\n",
                o->mtp ? 1 : 0);
    fprintf(f,
            "  \"full_attention_interval\": %d,\n  \"hidden_act\": \"silu\",\n"
            "  \"rms_norm_eps\": 1e-06,\n  \"max_position_embeddings\": 262144,\n"
            "  \"eos_token_id\": %d",
            GDN_RANDOM_PERIOD, (int)(next ? s->n_base + 2 : s->n_base));
}

static void put_config(FILE *f, const gdn_random_shape *s, const gdn_random_opts *o) {
    static const char *const class_name[] = {"Qwen3NextForCausalLM",
                                             "Qwen3_5ForConditionalGeneration",
                                             "Qwen3_5MoeForConditionalGeneration"};
    fprintf(f,
            "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n"
            "  \"dtype\": \"%s\",\n  \"tie_word_embeddings\": %s,\n",
            class_name[s->arch], gdn_arch_name(s->arch), torch_type(o->type),
            s->tie ? "true" : "false");
    if (strcmp(o->type, "fp8") == 0)
        fprintf(
            f,
            "  \"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", "
            "\"activation_scheme\": \"dynamic\", \"weight_block_size\": [%d, %d]},\n",
            GDN_RANDOM_BLOCK, GDN_RANDOM_BLOCK);
    if (s->arch == GDN_ARCH_QWEN3_NEXT)
        put_text_config(f, s, o);
    else {
        fprintf(f,
                "  \"vision_start_token_id\": %d,\n  \"vision_end_token_id\": %d,\n"
                "  \"image_token_id\": %d,\n  \"video_token_id\": %d,\n"
                "  \"text_config\": {\n  \"model_type\": \"%s_text\",\n",
                (int)s->n_base + 9, (int)s->n_base + 10, (int)s->n_base + 12,
                (int)s->n_base + 13, gdn_arch_name(s->arch));
        put_text_config(f, s, o);
        fputs("\n  }", f);
    }
    fputs("\n}\n", f);
}

gdn_status gdn_random_write_config(const gdn_random_shape *s, const gdn_random_opts *o,
                                   const char *path, gdn_err *err) {
    FILE *f;
    const gdn_status st = open_text(path, &f, err);
    if (st != GDN_OK) return st;
    put_config(f, s, o);
    return close_text(path, f, err);
}

gdn_status gdn_random_config(const gdn_random_shape *s, const gdn_random_opts *o,
                             gdn_config *out, gdn_err *err) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (f == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: no memory", s->name);
    put_config(f, s, o);
    const int bad = ferror(f);
    gdn_status st = GDN_OK;
    if (fclose(f) != 0 || bad) st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory", s->name);
    if (st == GDN_OK) st = gdn_config_parse(text, n, s->name, out, err);
    free(text);
    return st;
}

gdn_status gdn_random_write_genconfig(const gdn_random_shape *s, const char *path,
                                      gdn_err *err) {
    char text[256];
    snprintf(text, sizeof text,
             "{\"eos_token_id\": [%d, %d], \"do_sample\": true, \"temperature\": 0.7, "
             "\"top_p\": 0.8, \"top_k\": 20}\n",
             (int)s->n_base + 2, (int)s->n_base);
    return write_text(path, text, err);
}

gdn_status gdn_random_write_tokenizer_config(const char *path, gdn_err *err) {
    return write_text(
        path,
        "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"add_bos_token\": false, "
        "\"add_prefix_space\": false, \"clean_up_tokenization_spaces\": false, "
        "\"bos_token\": null, \"eos_token\": \"<|im_end|>\", "
        "\"pad_token\": \"<|endoftext|>\", \"model_max_length\": 262144}\n",
        err);
}

gdn_status gdn_random_write_template(const char *path, gdn_err *err) {
    return write_text(
        path,
        "{%- for m in messages -%}\n"
        "{{- '<|im_start|>' ~ m.role ~ '\\n' ~ ((m.content or '') | trim) ~ "
        "'<|im_end|>\\n' -}}\n"
        "{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}\n"
        "{{- '<|im_start|>assistant\\n' -}}\n"
        "{{- '<think>\\n' if enable_thinking else '<think>\\n\\n</think>\\n\\n' -}}\n"
        "{%- endif -%}\n",
        err);
}

/* --- tokenizer ------------------------------------------------------------------------
 */

/* In this order from n_base on; those below N_NEXT are qwen3_next's too. */
static const struct {
    const char *text;
    bool special; /* not shown to a reader */
} added[] = {
    {"<|endoftext|>", true},      {"<|im_start|>", true},
    {"<|im_end|>", true},         {"<|object_ref_start|>", true},
    {"<|object_ref_end|>", true}, {"<|box_start|>", true},
    {"<|box_end|>", true},        {"<|quad_start|>", true},
    {"<|quad_end|>", true},       {"<|vision_start|>", true},
    {"<|vision_end|>", true},     {"<|vision_pad|>", true},
    {"<|image_pad|>", true},      {"<|video_pad|>", true},
    {"<tool_call>", false},       {"</tool_call>", false},
    {"<|fim_prefix|>", false},    {"<|fim_middle|>", false},
    {"<|fim_suffix|>", false},    {"<|fim_pad|>", false},
    {"<|repo_name|>", false},     {"<|file_sep|>", false},
    {"<tool_response>", false},   {"</tool_response>", false},
    {"<think>", false},           {"</think>", false},
    {"<|audio_start|>", true},    {"<|audio_end|>", true},
    {"<tts_pad>", true},          {"<tts_text_bos>", true},
    {"<tts_text_eod>", true},     {"<tts_text_bos_single>", true},
    {"<|audio_pad|>", true},
};
enum { N_ADDED = sizeof added / sizeof *added, N_NEXT = 26 };

static void put_utf8(FILE *f, int c) {
    if (c == '"' || c == '\\') fputc('\\', f);
    if (c < 0x80)
        fputc(c, f);
    else
        fprintf(f, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f)); /* all are below 0x800 */
}

/* The character that stands for a byte: the printable ones for themselves, the others for
 * 256, 257, ... in order. */
static bool printable(int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

static void put_bytes(FILE *f) {
    int id = 0, other = 256;
    for (int b = 0; b < 256; b++)
        if (printable(b)) {
            fprintf(f, "%s\"", id == 0 ? "" : ", ");
            put_utf8(f, b);
            fprintf(f, "\": %d", id++);
        }
    for (int b = 0; b < 256; b++)
        if (!printable(b)) {
            fputs(", \"", f);
            put_utf8(f, other++);
            fprintf(f, "\": %d", id++);
        }
}

/* Word i of n letters: its digits in base 26. */
static void word(int32_t i, int n, char *out) {
    out[n] = '\0';
    for (; n > 0; i /= LETTERS) out[--n] = (char)('a' + i % LETTERS);
}

/* The i-th made-up token as the two tokens that it joins.  "\xc4\xa0" is the character
 * that stands for a space. */
static void made_up(int32_t i, char left[8], char right[8]) {
    static const char space[] = "\xc4\xa0";
    char w[8];
    if (i < PAIRS)
        word(i / LETTERS, 1, left), word(i % LETTERS, 1, right);
    else if ((i -= PAIRS) < LETTERS)
        strcpy(left, space), word(i, 1, right);
    else if ((i -= LETTERS) < PAIRS)
        strcpy(left, space), word(i, 2, right);
    else if ((i -= PAIRS) < TRIPLES)
        word(i / LETTERS, 2, left), word(i % LETTERS, 1, right);
    else if ((i -= TRIPLES) < TRIPLES)
        strcpy(left, space), word(i, 3, right);
    else { /* each word without and then with a space; the factor spreads first letters */
        i -= TRIPLES;
        word((int32_t)((int64_t)(i / 2) * 123457 % QUADS), 4, w);
        if (i % 2 == 1)
            strcpy(left, space), strcpy(right, w);
        else {
            strcpy(right, w + 2);
            w[2] = '\0';
            strcpy(left, w);
        }
    }
}

gdn_status gdn_random_write_tokenizer(const gdn_random_shape *s, const char *path,
                                      gdn_err *err) {
    const bool next = s->arch == GDN_ARCH_QWEN3_NEXT;
    const char *mark = next ? "" : "\\\\p{M}",
               *letter = next ? "\\\\p{L}" : "[\\\\p{L}\\\\p{M}]";
    char left[8], right[8];
    FILE *f;
    const gdn_status st = open_text(path, &f, err);
    if (st != GDN_OK) return st;
    fputs("{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, "
          "\"added_tokens\": [",
          f);
    for (int i = 0; i < (next ? N_NEXT : N_ADDED); i++)
        fprintf(f,
                "%s\n{\"id\": %d, \"content\": \"%s\", \"single_word\": false, "
                "\"lstrip\": false, "
                "\"rstrip\": false, \"normalized\": false, \"special\": %s}",
                i == 0 ? "" : ",", (int)s->n_base + i, added[i].text,
                added[i].special ? "true" : "false");
    fprintf(f,
            "],\n\"normalizer\": {\"type\": \"NFC\"},\n\"pre_tokenizer\": {\"type\": "
            "\"Sequence\", "
            "\"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": "
            "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?%s+|\\\\p{N}| "
            "?[^\\\\s\\\\p{L}%s\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!"
            "\\\\S)|\\\\s+\"}, "
            "\"behavior\": \"Isolated\", \"invert\": false}, ",
            letter, mark);
    fputs(
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
        "\"use_regex\": false}]},\n\"post_processor\": null,\n\"decoder\": {\"type\": "
        "\"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
        "\"use_regex\": "
        "false},\n\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
        "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", "
        "\"fuse_unk\": false, "
        "\"byte_fallback\": false, \"ignore_merges\": false,\n\"vocab\": {",
        f);
    put_bytes(f);
    for (int32_t id = 256; id < s->n_base; id++) {
        made_up(id - 256, left, right);
        fprintf(f, ",\n\"%s%s\": %d", left, right, (int)id);
    }
    fputs("},\n\"merges\": [", f);
    for (int32_t id = 256; id < s->n_base; id++) {
        made_up(id - 256, left, right);
        fprintf(f, "%s\n[\"%s\", \"%s\"]", id == 256 ? "" : ",", left, right);
    }
    fputs("]}}\n", f);
    return close_text(path, f, err);
}
