/* lora_config.c - adapter_config.json as PEFT writes it.
 *
 * Read are r, lora_alpha, use_rslora, rank_pattern and alpha_pattern.  Options of training alone are
 * passed over by name; every other one that is set would change results and is refused.
 *
 * Keys of the patterns are regular expressions for the end of a module's path; the first that
 * matches counts. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../format/fields.h"
#include "lora.h"

enum { MAX_BYTES = 16 << 20, MAX_KEY = 4096, MATCH_LIMIT = 100000 };

typedef struct {
    pcre2_code *re;
    char   *key;
    double  value;
} pattern;

typedef struct {
    pattern *p;
    int32_t  n;
} patterns;

struct gdn_lora_config {
    char    path[200]; /* for messages */
    int32_t r;
    double  alpha;
    bool    rslora;
    patterns rank, alphas;
    pcre2_match_context *match;
};

static void free_patterns(patterns *s) {
    for (int32_t i = 0; i < s->n; i++) {
        pcre2_code_free(s->p[i].re);
        free(s->p[i].key);
    }
    free(s->p);
}

void gdn_lora_config_free(gdn_lora_config *c) {
    if (c == NULL) return;
    free_patterns(&c->rank);
    free_patterns(&c->alphas);
    pcre2_match_context_free(c->match);
    free(c);
}

/* --- patterns ------------------------------------------------------------------------------ */

static void compile(gdn_fields *f, const char *field, const char *key, pattern *out) {
    const size_t n = strlen(key) + 16;
    char *text = n > MAX_KEY ? NULL : malloc(n);
    if (n > MAX_KEY) gdn_field_bad(f, field, NULL, "keys of at most %d bytes", MAX_KEY - 16);
    else if (text == NULL) f->st = gdn_fail(f->err, GDN_E_NOMEM, "%s: out of memory", f->name);
    if (text == NULL) return;
    snprintf(text, n, "(.*\\.)?(%s)$", key);
    int code;
    PCRE2_SIZE at;
    out->re = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_UTF,
                            &code, &at, NULL);
    free(text);
    if (out->re == NULL && code == PCRE2_ERROR_NOMEMORY)
        f->st = gdn_fail(f->err, GDN_E_NOMEM, "%s: out of memory", f->name);
    else if (out->re == NULL)
        f->st = gdn_fail(f->err, GDN_E_FORMAT, "%s: %s has the key \"%.60s\", no regular expression",
                         f->name, field, key);
}

/* {"KEY": NUMBER, ...} */
static void read_patterns(gdn_fields *f, const char *field, bool whole, patterns *out) {
    const json_t *v = gdn_field_get(f, field);
    if (f->st != GDN_OK || v == NULL) return;
    if (!json_is_object(v)) {
        gdn_field_bad(f, field, v, "an object");
        return;
    }
    const char *key;
    json_t *x;
    out->p = calloc(json_object_size(v) + 1, sizeof *out->p);
    if (out->p == NULL) {
        f->st = gdn_fail(f->err, GDN_E_NOMEM, "%s: out of memory", f->name);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)v, key, x) {
        pattern *p = &out->p[out->n++];
        p->value = json_number_value(x);
        if (whole ? !json_is_integer(x) || !(p->value >= 1 && p->value <= GDN_MAX_RANK)
                  : !json_is_number(x) || !(fabs(p->value) <= 1e30)) {
            gdn_field_bad(f, field, v, whole ? "ranks from 1 to %d" : "numbers up to 1e30",
                          GDN_MAX_RANK);
            return;
        }
        if ((p->key = strdup(key)) == NULL)
            f->st = gdn_fail(f->err, GDN_E_NOMEM, "%s: out of memory", f->name);
        else
            compile(f, field, key, p);
        if (f->st != GDN_OK) return;
    }
}

static gdn_status match(const gdn_lora_config *c, const patterns *s, const char *path,
                        double *value, gdn_err *err) {
    for (int32_t i = 0; i < s->n; i++) {
        pcre2_match_data *d = pcre2_match_data_create_from_pattern(s->p[i].re, NULL);
        if (d == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", c->path);
        const int rc = pcre2_match(s->p[i].re, (PCRE2_SPTR)path, strlen(path), 0, 0, d, c->match);
        pcre2_match_data_free(d);
        if (rc == PCRE2_ERROR_NOMEMORY)
            return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", c->path);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
            return gdn_fail(err, GDN_E_FORMAT, "%s: the pattern \"%.60s\" does not come to an end "
                            "on %.80s", c->path, s->p[i].key, path);
        if (rc < 0) continue;
        *value = s->p[i].value;
        break;
    }
    return GDN_OK;
}

gdn_status gdn_lora_config_module(const gdn_lora_config *c, const char *path, int32_t *rank,
                                  double *scale, gdn_err *err) {
    double r = c->r, alpha = c->alpha;
    gdn_status st = match(c, &c->rank, path, &r, err);
    if (st == GDN_OK) st = match(c, &c->alphas, path, &alpha, err);
    *rank = (int32_t)r;
    *scale = alpha / (c->rslora ? sqrt(r) : r);
    return st;
}

/* --- options ------------------------------------------------------------------------------- */

/* What is read above, and what only training or other programs look at. */
static bool harmless(const char *key) {
    static const char *const known[] = {
        "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias",
        "init_lora_weights", "task_type", "auto_mapping", "peft_version",
        "base_model_name_or_path", "revision", "inference_mode", "target_modules",
        "target_parameters",
        "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern",
        "megatron_config", "megatron_core", "eva_config", "qalora_group_size", "runtime_config"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(key, known[i]) == 0) return true;
    return false;
}

static bool unset(const json_t *v) {
    return json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0);
}

/* Some ways to begin training change the base weights too; then B A belongs to other weights. */
static bool keeps_base(const json_t *v) {
    static const char *const words[] = {"gaussian", "eva", "orthogonal"};
    if (v == NULL || json_is_boolean(v)) return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (json_is_string(v) && strcmp(json_string_value(v), words[i]) == 0) return true;
    return false;
}

static void check_options(gdn_fields *f) {
    const json_t *v;
    const char *key, *type = NULL, *bias = "none";
    gdn_field_str(f, "peft_type", &type);
    if (f->st == GDN_OK && type == NULL) gdn_field_bad(f, "peft_type", NULL, "LORA");
    if (f->st == GDN_OK && strcmp(type, "LORA") != 0)
        gdn_field_refuse(f, "peft_type", gdn_field_get(f, "peft_type"), "need LORA");
    gdn_field_str(f, "bias", &bias);
    if (f->st == GDN_OK && strcmp(bias, "none") != 0)
        gdn_field_refuse(f, "bias", gdn_field_get(f, "bias"), "need none");
    v = gdn_field_get(f, "init_lora_weights");
    if (!keeps_base(v))
        gdn_field_refuse(f, "init_lora_weights", v,
                         "it changes the base weights; save the adapter converted to plain LoRA");
    json_t *x;
    json_object_foreach((json_t *)(uintptr_t)f->obj, key, x) {
        if (f->st != GDN_OK) return;
        if (!harmless(key) && !unset(x))
            gdn_field_refuse(f, key, x, "an adapter adds scale B A x and nothing else");
    }
}

gdn_status gdn_lora_config_read(const char *path, gdn_lora_config **out, gdn_err *err) {
    char *text = NULL;
    size_t n = 0;
    json_t *json = NULL;
    gdn_lora_config *c = calloc(1, sizeof *c);
    if (c != NULL) c->match = pcre2_match_context_create(NULL);
    if (c == NULL || c->match == NULL) {
        gdn_lora_config_free(c);
        return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", path);
    }
    pcre2_set_match_limit(c->match, MATCH_LIMIT);
    pcre2_set_depth_limit(c->match, MATCH_LIMIT);
    snprintf(c->path, sizeof c->path, "%s", path);
    gdn_status st = gdn_fields_slurp(path, MAX_BYTES, &text, &n, err);
    if (st == GDN_OK) st = gdn_fields_parse(text, n, path, &json, err);
    if (st == GDN_OK) {
        gdn_fields f = {.name = path, .prefix = "", .obj = json, .err = err};
        check_options(&f);
        gdn_field_i32(&f, "r", true, 1, GDN_MAX_RANK, &c->r);
        gdn_field_f64(&f, "lora_alpha", true, -1e30, 1e30, &c->alpha);
        gdn_field_bool(&f, "use_rslora", &c->rslora);
        read_patterns(&f, "rank_pattern", true, &c->rank);
        read_patterns(&f, "alpha_pattern", false, &c->alphas);
        st = f.st;
    }
    json_decref(json);
    free(text);
    if (st != GDN_OK) gdn_lora_config_free(c);
    else *out = c;
    return st;
}
