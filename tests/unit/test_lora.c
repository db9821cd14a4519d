/* test_lora.c - adapters against models whose weights hold them, merged here in double.
 *
 * The merged model is the file's tensors plus scale B A, written as f32; nothing of the code
 * under test takes part in it.  Random A and B are multiples of 1/64, which f16 and bf16 hold exactly. */
#include "cases.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gdn/op.h>

#include "../../src/base/half.h"
#include "../../src/format/st_write.h"
#include "../../src/model/model.h"
#include "sanitized.h"

enum { N = 40, VOCAB = 512, PATH = 300 };

static const char *const models[] = {MODELS "dense-mtp", MODELS "next-moe", MODELS "moe-mtp",
                                     MODELS "dense-tied-128"};
enum { N_MODEL = sizeof models / sizeof *models };

static char top[] = "/tmp/gdn-lora-XXXXXX";
static char adapter_dir[64], second_dir[64], merged_dir[64];

static int make_folders(void **state) {
    (void)state;
    if (mkdtemp(top) == NULL) return 1;
    snprintf(adapter_dir, sizeof adapter_dir, "%s/a", top);
    snprintf(second_dir, sizeof second_dir, "%s/b", top);
    snprintf(merged_dir, sizeof merged_dir, "%s/m", top);
    return mkdir(adapter_dir, 0700) != 0 || mkdir(second_dir, 0700) != 0 ||
           mkdir(merged_dir, 0700) != 0;
}

static int remove_folders(void **state) {
    (void)state;
    static const char *const files[] = {"a/adapter_config.json", "a/adapter_model.safetensors",
                                        "b/adapter_config.json", "b/adapter_model.safetensors",
                                        "m/config.json", "m/model.safetensors", "a", "b", "m"};
    char path[PATH];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", top, files[i]);
        remove(path);
    }
    return rmdir(top);
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* --- adapters ------------------------------------------------------------------------------ */

/* One module of an adapter: B A of rank r. */
typedef struct {
    char    name[120]; /* of the model's tensor, without .weight */
    int64_t n, k, r;
    float  *a, *b;
    double  scale;
} module;

typedef struct {
    module m[400];
    int    n;
} adapter;

static uint64_t rng;
static float draw(void) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)((int)((rng >> 40) % 127) - 63) / 64;
}

static void free_adapter(adapter *a) {
    for (int i = 0; i < a->n; i++) free(a->m[i].a), free(a->m[i].b);
    free(a);
}

static module *add_module(adapter *a, const char *name, int64_t n, int64_t k, int64_t r) {
    module *m = &a->m[a->n++];
    assert_true(a->n <= 400 && strlen(name) < sizeof m->name);
    *m = (module){.n = n, .k = k, .r = r};
    strcpy(m->name, name);
    m->a = malloc((size_t)(r * k) * sizeof *m->a);
    m->b = malloc((size_t)(n * r) * sizeof *m->b);
    assert_true(m->a != NULL && m->b != NULL);
    for (int64_t i = 0; i < r * k; i++) m->a[i] = draw();
    for (int64_t i = 0; i < n * r; i++) m->b[i] = draw();
    return m;
}

/* The kind of a tensor's module: its name with layer and expert left out; "" for what is no
 * projection. */
static void kind_of(const gdn_st_tensor *t, char kind[120]) {
    kind[0] = '\0';
    const size_t len = strlen(t->name);
    if (t->ndim != 2 || len < 7 || strcmp(t->name + len - 7, ".weight") != 0 ||
        strstr(t->name, "embed_tokens") != NULL)
        return;
    size_t n = 0;
    for (const char *s = t->name; s < t->name + len - 7; s++)
        if (*s < '0' || *s > '9') kind[n++] = *s;
    kind[n] = '\0';
}

/* Modules of one kind, or all (NULL).  Every second module of a kind that experts share is left
 * out, so that rows meet experts with and without. */
static adapter *random_adapter(gdn_weights *w, const char *kind, int64_t r, double scale,
                               uint64_t seed) {
    adapter *a = calloc(1, sizeof *a);
    assert_non_null(a);
    rng = seed;
    for (int64_t i = 0, turn = 0; i < gdn_weights_count(w); i++) {
        const gdn_st_tensor *t = gdn_weights_at(w, i);
        char of[120], name[120];
        kind_of(t, of);
        if (of[0] == '\0' || (kind != NULL && strcmp(of, kind) != 0)) continue;
        if (strstr(of, ".experts.") != NULL && turn++ % 2 == 1) continue;
        snprintf(name, sizeof name, "%.*s", (int)strlen(t->name) - 7, t->name);
        add_module(a, name, t->shape[0], t->shape[1], r)->scale = scale;
    }
    return a;
}

static void append(gdn_st_writer *w, gdn_st_dtype type, const float *x, int64_t n) {
    gdn_err err;
    uint16_t *half = malloc((size_t)n * sizeof *half);
    assert_non_null(half);
    for (int64_t i = 0; i < n; i++)
        half[i] = type == GDN_ST_F16 ? gdn_f32_to_f16(x[i]) : gdn_f32_to_bf16(x[i]);
    const void *data = type == GDN_ST_F32 ? (const void *)x : half;
    must(gdn_st_writer_append(w, data, (uint64_t)n * (type == GDN_ST_F32 ? 4 : 2), &err), &err);
    free(half);
}

/* name % 3 tells the type, all of it in the order that the writer wants: wide types first. */
static void write_adapter(const char *dir, const adapter *a, const char *config, bool named) {
    static const gdn_st_dtype types[] = {GDN_ST_F32, GDN_ST_BF16, GDN_ST_F16};
    char path[PATH], name[200];
    gdn_st_writer *w = NULL;
    gdn_err err;
    write_text(dir, "adapter_config.json", config);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    must(gdn_st_writer_create(path, &w, &err), &err);
    for (int pass = 0; pass < 2; pass++)
        for (int type = 0; type < 3; type++)
            for (int i = type; i < a->n; i += 3) {
                const module *m = &a->m[i];
                const int64_t sa[2] = {m->r, m->k}, sb[2] = {m->n, m->r};
                for (int part = 0; part < 2; part++) {
                    const int64_t *shape = part == 0 ? sa : sb;
                    snprintf(name, sizeof name, "base_model.model.%s.lora_%c.%sweight", m->name,
                             "AB"[part], named ? "default." : "");
                    if (pass == 0)
                        must(gdn_st_writer_add(w, name, types[type], 2, shape, &err), &err);
                    else append(w, types[type], part == 0 ? m->a : m->b, shape[0] * shape[1]);
                }
            }
    must(gdn_st_writer_finish(w, &err), &err);
    gdn_st_writer_free(w);
}

static const char *simple_config(int64_t r, double alpha) {
    static char text[200];
    snprintf(text, sizeof text, "{\"peft_type\": \"LORA\", \"r\": %lld, \"lora_alpha\": %.17g, "
             "\"target_modules\": [\"x\"], \"bias\": \"none\"}", (long long)r, alpha);
    return text;
}

/* --- merged models ---------------------------------------------------------------------------- */

static double value(const gdn_st_tensor *t, int64_t i) {
    if (t->dtype == GDN_ST_F32) return (double)((const float *)(const void *)t->data)[i];
    assert_int_equal(t->dtype, GDN_ST_BF16);
    return (double)gdn_bf16_to_f32(((const uint16_t *)(const void *)t->data)[i]);
}

static const module *module_of(const adapter *a, const char *tensor) {
    const size_t n = strlen(tensor);
    for (int i = 0; i < a->n; i++)
        if (strlen(a->m[i].name) + 7 == n && strncmp(a->m[i].name, tensor, n - 7) == 0)
            return &a->m[i];
    return NULL;
}

static void merge(const gdn_st_tensor *t, const module *m, double extra, float *out) {
    int64_t n = 1;
    for (int32_t d = 0; d < t->ndim; d++) n *= t->shape[d];
    for (int64_t i = 0; i < n; i++) {
        double v = value(t, i);
        for (int64_t r = 0; m != NULL && r < m->r; r++)
            v += extra * m->scale * (double)m->b[i / m->k * m->r + r] *
                 (double)m->a[r * m->k + i % m->k];
        out[i] = (float)v;
    }
}

/* The model of dir with the adapter in its weights, times extra.  A tied model gets a head of its own. */
static gdn_model *merged_model(const char *dir, gdn_weights *w, const adapter *a, double extra) {
    char path[PATH], *text = NULL;
    gdn_st_writer *out = NULL;
    gdn_err err;
    size_t cap = 0;
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(getdelim(&text, &cap, '\0', f) > 0);
    fclose(f);
    write_text(merged_dir, "config.json", text);
    free(text);
    snprintf(path, sizeof path, "%s/model.safetensors", merged_dir);
    must(gdn_st_writer_create(path, &out, &err), &err);
    const bool head = gdn_weights_find(w, "lm_head.weight") == NULL &&
                      module_of(a, "lm_head.weight") != NULL;
    const gdn_st_tensor *embed = gdn_weights_find(w, "model.embed_tokens.weight");
    const int64_t count = gdn_weights_count(w);
    for (int64_t i = 0; i < count + head; i++) {
        const gdn_st_tensor *t = i < count ? gdn_weights_at(w, i) : embed;
        must(gdn_st_writer_add(out, i < count ? t->name : "lm_head.weight", GDN_ST_F32, t->ndim,
                               t->shape, &err), &err);
    }
    for (int64_t i = 0; i < count + head; i++) {
        const gdn_st_tensor *t = i < count ? gdn_weights_at(w, i) : embed;
        float *v = malloc((size_t)t->bytes * 2);
        assert_non_null(v);
        merge(t, module_of(a, i < count ? t->name : "lm_head.weight"), extra, v);
        must(gdn_st_writer_append(out, v, t->bytes * (t->dtype == GDN_ST_F32 ? 1 : 2), &err), &err);
        free(v);
    }
    must(gdn_st_writer_finish(out, &err), &err);
    gdn_st_writer_free(out);
    return open_model(merged_dir, GDN_MATH_F32, 1);
}

/* --- logits ------------------------------------------------------------------------------------- */

/* As all_logits(), with an adapter; mtp NULL or [n - 1][VOCAB]. */
static float *adapted(gdn_model *m, const gdn_adapter *a, const int32_t *ids, int32_t n,
                      int32_t n_row, int32_t n_call, float *mtp) {
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s = NULL;
    gdn_err err;
    int32_t out[200];
    float *logits = calloc((size_t)n * VOCAB, sizeof *logits);
    assert_non_null(logits);
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n;
    o.n_row = n_row;
    o.mtp = mtp != NULL;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    must(gdn_seq_create(e, &s, &err), &err);
    must(gdn_seq_set_adapter(s, a, &err), &err);
    for (int32_t i = 0; i < n; i++) out[i] = i;
    const int32_t last = mtp != NULL ? 1 : 0; /* drafts want the next token */
    for (int32_t at = 0; at < n; at += n_call) {
        const int32_t now = n - at < n_call ? n - at : n_call;
        gdn_work w = {.seq = s, .tokens = ids + at, .n = now, .out = out, .n_out = now - last,
                      .logits = logits + (size_t)at * VOCAB, .mtp = mtp};
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
    }
    gdn_seq_free(s);
    gdn_engine_free(e);
    return logits;
}

static double largest(const float *x, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        if (fabs((double)x[i]) > most) most = fabs((double)x[i]);
    return most;
}

static double worst_seen;

/* got against want, which must both differ from the plain model's. */
static void close_to(const char *what, const float *want, const float *got, const float *plain,
                     size_t n, bool changes) {
    const double size = largest(want, n), error = max_error(want, got, n) / size;
    if (error > worst_seen) worst_seen = error;
    if (!(error < 1e-5)) fail_msg("%s: off by %g of the largest logit", what, error);
    if (changes && !(max_error(want, plain, n) > 1e-2 * size))
        fail_msg("%s: the adapter hardly changes anything (%g)", what, max_error(want, plain, n) / size);
}

static gdn_weights *open_weights(const char *dir) {
    char path[PATH];
    gdn_weights *w = NULL;
    gdn_err err;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    must(gdn_weights_open(path, &w, &err), &err);
    return w;
}

static gdn_adapter *open_adapter(gdn_model *m, const char *dir, float scale) {
    gdn_adapter *a = NULL;
    gdn_err err;
    must(gdn_adapter_open(m, dir, scale, &a, &err), &err);
    return a;
}

/* One adapter on a model against the merged one: logits, and drafts where there are any. */
static void compare(const char *what, gdn_model *m, const char *dir, gdn_weights *w,
                    const adapter *a, double extra) {
    int32_t *ids = random_ids(N, VOCAB, 5);
    const bool mtp = gdn_model_get_info(m)->has_mtp;
    float draft[3][(N - 1) * VOCAB];
    gdn_adapter *open = open_adapter(m, adapter_dir, (float)extra);
    gdn_model *other = merged_model(dir, w, a, extra);
    float *plain = adapted(m, NULL, ids, N, 64, N, mtp ? draft[0] : NULL);
    float *got = adapted(m, open, ids, N, 64, N, mtp ? draft[1] : NULL);
    float *want = adapted(other, NULL, ids, N, 64, N, mtp ? draft[2] : NULL);
    const bool of_draft = strstr(what, "mtp.") != NULL; /* changes the drafts alone */
    const size_t n = (size_t)(N - mtp) * VOCAB;
    close_to(what, want, got, plain, n, !of_draft);
    if (mtp) close_to(what, draft[2], draft[1], draft[0], (size_t)(N - 1) * VOCAB, true);
    if (of_draft) assert_memory_equal(got, plain, n * sizeof *got);
    free(plain), free(got), free(want), free(ids);
    gdn_model_close(other);
    gdn_adapter_close(open);
}

static void test_each_module(void **state) {
    (void)state;
    for (int k = 0; k < N_MODEL; k++) {
        gdn_weights *w = open_weights(models[k]);
        gdn_model *m = open_model(models[k], GDN_MATH_F32, 2);
        char seen[64][120];
        int n_seen = 0;
        for (int64_t i = 0; i < gdn_weights_count(w); i++) {
            char kind[120];
            kind_of(gdn_weights_at(w, i), kind);
            bool again = kind[0] == '\0';
            for (int j = 0; j < n_seen; j++) again |= strcmp(seen[j], kind) == 0;
            if (again) continue;
            strcpy(seen[n_seen++], kind);
            /* Gates of a few outputs need more to be seen. */
            const bool weak = strstr(kind, "_a") != NULL || strstr(kind, "_b") != NULL ||
                              strstr(kind, "gate") != NULL || strstr(kind, "k_proj") != NULL ||
                              strstr(kind, "q_proj") != NULL || strstr(kind, "expert") != NULL;
            const double scale = weak ? 0.5 : 0.1;
            adapter *a = random_adapter(w, kind, 5, scale, 100 + (uint64_t)i);
            write_adapter(adapter_dir, a, simple_config(5, 5 * scale), i % 2);
            compare(kind, m, models[k], w, a, 1);
            free_adapter(a);
        }
        assert_true(n_seen >= 11);
        print_message("%s: %d kinds of modules, off by at most %.1e\n", models[k], n_seen, worst_seen);
        gdn_model_close(m);
        gdn_weights_close(w);
    }
}

static void test_all_modules(void **state) {
    (void)state;
    for (int k = 0; k < N_MODEL; k++) {
        gdn_weights *w = open_weights(models[k]);
        gdn_model *m = open_model(models[k], GDN_MATH_F32, 2);
        adapter *a = random_adapter(w, NULL, 9, 0.02, 7 + (uint64_t)k);
        if (gdn_weights_find(w, "lm_head.weight") == NULL) /* tied: the head alone is adapted */
            add_module(a, "lm_head", VOCAB, gdn_model_get_info(m)->d, 9)->scale = 0.02;
        write_adapter(adapter_dir, a, simple_config(9, 9 * 0.02), false);
        compare("all", m, models[k], w, a, 1);
        compare("all, scaled", m, models[k], w, a, -0.5);
        free_adapter(a);
        gdn_model_close(m);
        gdn_weights_close(w);
    }
}

/* Ranks and scales by pattern, and the other rule for the scale. */
static void test_patterns(void **state) {
    (void)state;
    gdn_weights *w = open_weights(models[0]);
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1);
    for (int rs = 0; rs < 2; rs++) {
        adapter *a = calloc(1, sizeof *a);
        assert_non_null(a);
        rng = 3;
        const struct {
            const char *name;
            int64_t n, k, r;
            double alpha;
        } mod[] = {{"model.layers.3.self_attn.v_proj", 64, 96, 2, 1.5},
                   {"model.layers.0.mlp.down_proj", 96, 160, 3, 0.25},
                   {"model.layers.1.mlp.down_proj", 96, 160, 17, 0.5},
                   {"model.layers.1.mlp.up_proj", 160, 96, 4, 0.5}};
        for (int i = 0; i < 4; i++)
            add_module(a, mod[i].name, mod[i].n, mod[i].k, mod[i].r)->scale =
                mod[i].alpha / (rs ? sqrt((double)mod[i].r) : (double)mod[i].r);
        char config[600];
        snprintf(config, sizeof config,
                 "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 0.5, \"use_rslora\": %s,"
                 "\"rank_pattern\": {\"v_proj\": 2, \"layers\\\\.[0].mlp.down_proj\": 3,"
                 "  \"own_proj\": 99, \"down_proj\": 17, \"layers.0.mlp.down_proj\": 98},"
                 "\"alpha_pattern\": {\"model.layers.3.self_attn.v_proj\": 1.5,"
                 "  \".*0.mlp.down_proj\": 0.25, \"layers.1\": 77}}", rs ? "true" : "false");
        write_adapter(adapter_dir, a, config, false);
        compare("patterns", m, models[0], w, a, 1);
        free_adapter(a);
    }
    gdn_model_close(m);
    gdn_weights_close(w);
}

/* What tells saved states of adapters apart: contents, places and scale. */
static void test_keys(void **state) {
    (void)state;
    gdn_weights *w = open_weights(models[0]);
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1);
    adapter *a = random_adapter(w, "model.layers..mlp.down_proj", 4, 1, 8);
    uint64_t key[6];
    for (int i = 0; i < 6; i++) {
        if (i == 2) a->m[3].b[77] += 1;
        if (i == 3) a->m[0].a[0] += 1;
        if (i == 4) a->m[1].name[13] = '0', a->m[0].name[13] = '1'; /* layers 0 and 1 swapped */
        write_adapter(adapter_dir, a, simple_config(4, 2), i == 1);
        gdn_adapter *open = open_adapter(m, adapter_dir, i == 5 ? 0.5f : 1);
        key[i] = open->key;
        assert_int_not_equal(key[i], 0);
        gdn_adapter_close(open);
    }
    assert_true(key[0] == key[1]); /* another name in the file is nothing */
    for (int i = 1; i < 6; i++)
        for (int k = 1; k < i; k++) assert_true(key[i] != key[k]);
    free_adapter(a);
    gdn_model_close(m);
    gdn_weights_close(w);
}

/* Names as other loaders of the same model write them. */
static void test_prefixes(void **state) {
    (void)state;
    static const char *const prefix[] = {"model.language_model.", "language_model.model.", ""};
    gdn_weights *w = open_weights(models[0]);
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1);
    for (int i = 0; i < 3; i++) {
        adapter *a = calloc(1, sizeof *a);
        assert_non_null(a);
        rng = 3;
        module *mod = add_module(a, "model.layers.0.mlp.down_proj", 96, 160, 4);
        mod->scale = 0.2;
        snprintf(mod->name, sizeof mod->name, "%slayers.0.mlp.down_proj", prefix[i]);
        write_adapter(adapter_dir, a, simple_config(4, 0.8), false);
        strcpy(mod->name, "model.layers.0.mlp.down_proj");
        compare("prefix", m, models[0], w, a, 1);
        free_adapter(a);
    }
    gdn_model_close(m);
    gdn_weights_close(w);
}

/* --- rows of one step -------------------------------------------------------------------------------- */

/* Sequences with two adapters and without one, advancing together in uneven pieces, against
 * each of them alone, whatever the threads and steps.  Fast mathematics rounds, f32 does not. */
static void test_rows(void **state) {
    (void)state;
    enum { S = 4, LEN = 70 };
    static const int32_t piece[S] = {1, 17, 64, 5};
    for (int k = 0; k < N_MODEL; k += SANITIZED ? 2 : 1)
        for (int math = 0; math < 2; math++) {
            gdn_weights *w = open_weights(models[k]);
            adapter *a = random_adapter(w, NULL, 6, 0.05, 70), *b = random_adapter(w, NULL, 33, 0.02, 71);
            for (int i = 0; i < b->n; i += 2) { /* the second leaves half of the matrices alone */
                free(b->m[i].a), free(b->m[i].b);
                b->m[i] = b->m[--b->n];
            }
            write_adapter(adapter_dir, a, simple_config(6, 0.3), false);
            write_adapter(second_dir, b, simple_config(33, 0.66), true);
            int32_t *ids[S], out[LEN];
            float *alone[S], *again;
            for (int i = 0; i < LEN; i++) out[i] = i;
            for (int s = 0; s < S; s++) ids[s] = random_ids(LEN, VOCAB, 80 + (uint64_t)s);
            for (int threads = 1; threads <= 3; threads++) {
                gdn_model *m = open_model(models[k], (gdn_math)math, threads);
                if (threads == 1) alone[2] = all_logits(m, ids[2], LEN, 64, 0, NULL);
                gdn_adapter *one = open_adapter(m, adapter_dir, 1), *two = open_adapter(m, second_dir, 1);
                const gdn_adapter *of[S] = {one, two, NULL, one};
                for (int s = 0; s < S; s++) {
                    if (threads == 1 && s != 2) alone[s] = adapted(m, of[s], ids[s], LEN, 128, LEN, NULL);
                    again = adapted(m, of[s], ids[s], LEN, 3 * threads, threads == 2 ? 1 : 23, NULL);
                    if (memcmp(again, alone[s], LEN * VOCAB * sizeof *again) != 0)
                        fail_msg("%s: sequence %d, %d threads, in pieces: other bits", models[k], s, threads);
                    free(again);
                }
                assert_memory_not_equal(alone[0], alone[3], 100); /* other tokens */
                gdn_engine_opts o;
                gdn_engine *e = NULL;
                gdn_seq *seq[S];
                gdn_err err;
                int32_t done[S] = {0};
                gdn_engine_opts_defaults(&o);
                o.n_seq = S;
                o.n_ctx = S * LEN;
                o.n_row = 50;
                must(gdn_engine_create(m, &o, &e, &err), &err);
                float *together = calloc((size_t)S * LEN * VOCAB, sizeof *together);
                assert_non_null(together);
                for (int s = 0; s < S; s++) {
                    must(gdn_seq_create(e, &seq[s], &err), &err);
                    must(gdn_seq_set_adapter(seq[s], of[s], &err), &err);
                }
                for (;;) {
                    gdn_work work[S];
                    int32_t n = 0;
                    for (int s = 0; s < S; s++) {
                        const int32_t left = LEN - done[s], now = left < piece[s] ? left : piece[s];
                        if (now == 0) continue;
                        work[n++] = (gdn_work){
                            .seq = seq[s], .tokens = ids[s] + done[s], .n = now, .out = out, .n_out = now,
                            .logits = together + (size_t)(s * LEN + done[s]) * VOCAB};
                        done[s] += now;
                    }
                    if (n == 0) break;
                    must(gdn_engine_eval(e, work, n, NULL, NULL, NULL, &err), &err);
                }
                for (int s = 0; s < S; s++) {
                    if (memcmp(together + (size_t)(s * LEN) * VOCAB, alone[s],
                               LEN * VOCAB * sizeof *together) != 0)
                        fail_msg("%s: sequence %d beside others: other bits", models[k], s);
                    gdn_seq_free(seq[s]);
                }
                free(together);
                gdn_engine_free(e);
                gdn_adapter_close(one);
                gdn_adapter_close(two);
                /* With the adapters gone nothing of them is left. */
                again = adapted(m, NULL, ids[2], LEN, 128, LEN, NULL);
                assert_memory_equal(again, alone[2], LEN * VOCAB * sizeof *again);
                free(again);
                gdn_model_close(m);
            }
            for (int s = 0; s < S; s++) free(ids[s]), free(alone[s]);
            free_adapter(a), free_adapter(b);
            gdn_weights_close(w);
        }
}

/* --- refusals ------------------------------------------------------------------------------------------ */

static void refused(gdn_model *m, gdn_status code, const char *words) {
    gdn_adapter *a = NULL;
    gdn_err err = {0};
    const gdn_status st = gdn_adapter_open(m, adapter_dir, 1, &a, &err);
    if (st == GDN_OK) fail_msg("accepted, expected: %s", words);
    if (st != code || strstr(err.text, words) == NULL)
        fail_msg("\"%s\" (%s), expected \"%s\" (%s)", err.text, gdn_status_text(st), words,
                 gdn_status_text(code));
    if (st != GDN_E_INVALID && strstr(err.text, adapter_dir) == NULL)
        fail_msg("\"%s\" names no file", err.text);
    assert_null(a);
}

static void test_bad_config(void **state) {
    (void)state;
#define GOOD "\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8"
    static const struct {
        const char *text, *words;
        gdn_status code;
    } bad[] = {
        {"[1]", "not a JSON object", GDN_E_FORMAT},
        {"{\"r\": 4, \"lora_alpha\": 8}", "peft_type is missing", GDN_E_FORMAT},
        {"{\"peft_type\": \"LOHA\", \"r\": 4, \"lora_alpha\": 8}", "peft_type is \"LOHA\"",
         GDN_E_UNSUPPORTED},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 8}", "r is missing", GDN_E_FORMAT},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 8}", "r is 0; need 1 to 512",
         GDN_E_FORMAT},
        {"{\"peft_type\": \"LORA\", \"r\": 513, \"lora_alpha\": 8}", "r is 513", GDN_E_FORMAT},
        {"{\"peft_type\": \"LORA\", \"r\": 4}", "lora_alpha is missing", GDN_E_FORMAT},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": \"8\"}", "lora_alpha is \"8\"",
         GDN_E_FORMAT},
        {"{" GOOD ", \"use_rslora\": 1}", "use_rslora is 1", GDN_E_FORMAT},
        {"{" GOOD ", \"bias\": \"all\"}", "bias is \"all\"", GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"use_dora\": true}", "use_dora is true", GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"fan_in_fan_out\": true}", "fan_in_fan_out is true", GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"modules_to_save\": [\"lm_head\"]}", "modules_to_save is [\"lm_head\"]",
         GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"lora_bias\": true}", "lora_bias is true", GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"layer_replication\": [[0, 2]]}", "layer_replication", GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"trainable_token_indices\": [3]}", "trainable_token_indices",
         GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"alora_invocation_tokens\": [1]}", "alora_invocation_tokens",
         GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"invented_tomorrow\": 0.5}", "invented_tomorrow is 0.5", GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"init_lora_weights\": \"pissa_niter_4\"}", "init_lora_weights is \"pissa_",
         GDN_E_UNSUPPORTED},
        {"{" GOOD ", \"rank_pattern\": [2]}", "rank_pattern is [2]", GDN_E_FORMAT},
        {"{" GOOD ", \"rank_pattern\": {\"q_proj\": 0}}", "rank_pattern", GDN_E_FORMAT},
        {"{" GOOD ", \"rank_pattern\": {\"q_proj\": 2.5}}", "rank_pattern", GDN_E_FORMAT},
        {"{" GOOD ", \"rank_pattern\": {\"q_(proj\": 2}}", "no regular expression", GDN_E_FORMAT},
        {"{" GOOD ", \"alpha_pattern\": {\"q_proj\": null}}", "alpha_pattern", GDN_E_FORMAT},
        {"{" GOOD ", \"alpha_pattern\": {\"([a-z._0-9]+)+[x!]\": 2}}", "does not come to an end",
         GDN_E_FORMAT},
    };
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1);
    adapter *a = calloc(1, sizeof *a);
    assert_non_null(a);
    add_module(a, "model.layers.0.mlp.down_proj", 96, 160, 4);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_adapter(adapter_dir, a, bad[i].text, false);
        refused(m, bad[i].code, bad[i].words);
    }
    /* Everything that training leaves behind is passed over. */
    write_adapter(adapter_dir, a,
                  "{" GOOD ", \"bias\": \"none\", \"use_dora\": false, \"modules_to_save\": null,"
                  "\"lora_dropout\": 0.1, \"init_lora_weights\": \"gaussian\", \"revision\": null,"
                  "\"target_modules\": \"all-linear\", \"layers_to_transform\": [1], \"loftq_config\": {},"
                  "\"qalora_group_size\": 16, \"megatron_core\": \"megatron.core\","
                  "\"peft_version\": \"0.18.0\", \"task_type\": \"CAUSAL_LM\"}", false);
    gdn_adapter_close(open_adapter(m, adapter_dir, 1));
    free_adapter(a);
    char path[PATH];
    snprintf(path, sizeof path, "%s/adapter_config.json", adapter_dir);
    remove(path);
    refused(m, GDN_E_IO, "adapter_config.json");
    gdn_model_close(m);
}

/* Tensors of an adapter, [r, k] or [n, r] of any type. */
typedef struct {
    const char  *name;
    int64_t      rows, cols;
    gdn_st_dtype type;
} tensor;

static void write_tensors(const tensor *t, int n) {
    char path[PATH], name[200];
    gdn_st_writer *w = NULL;
    gdn_err err;
    write_text(adapter_dir, "adapter_config.json", simple_config(4, 8));
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", adapter_dir);
    must(gdn_st_writer_create(path, &w, &err), &err);
    uint64_t bytes = 0;
    for (int i = 0; i < n && t[i].name != NULL; i++) {
        const int64_t shape[2] = {t[i].rows, t[i].cols};
        snprintf(name, sizeof name, "base_model.model.%s", t[i].name);
        must(gdn_st_writer_add(w, name, t[i].type, t[i].cols == 0 ? 1 : 2, shape, &err), &err);
        bytes += (uint64_t)t[i].rows * (uint64_t)(t[i].cols == 0 ? 1 : t[i].cols) *
                 (uint64_t)gdn_st_dtype_size(t[i].type);
    }
    void *zeros = calloc(1, bytes + 1);
    assert_non_null(zeros);
    must(gdn_st_writer_append(w, zeros, bytes, &err), &err);
    must(gdn_st_writer_finish(w, &err), &err);
    gdn_st_writer_free(w);
    free(zeros);
}

static void test_bad_tensors(void **state) {
    (void)state;
#define DOWN_A "model.layers.0.mlp.down_proj.lora_A.weight"
#define DOWN_B "model.layers.0.mlp.down_proj.lora_B.weight"
#define ANY_PAIR(module) {module ".lora_A.weight", 4, 96, GDN_ST_F32}, {module ".lora_B.weight", 96, 4, GDN_ST_F32}
    static const struct {
        int model;
        tensor t[4];
        const char *words;
        gdn_status code;
    } bad[] = {
        {0, {{DOWN_A, 4, 160, GDN_ST_F32}}, "down_proj.lora_A.weight has no lora_B", GDN_E_FORMAT},
        {0, {{DOWN_B, 96, 4, GDN_ST_F32}}, "down_proj.lora_B.weight has no lora_A", GDN_E_FORMAT},
        {0, {{DOWN_A, 4, 159, GDN_ST_F32}, {DOWN_B, 96, 4, GDN_ST_F32}}, "has shape [4, 159], ",
         GDN_E_FORMAT},
        {0, {{DOWN_A, 4, 160, GDN_ST_F32}, {DOWN_B, 97, 4, GDN_ST_F32}}, "ask for [96, 4]",
         GDN_E_FORMAT},
        {0, {{DOWN_A, 3, 160, GDN_ST_F32}, {DOWN_B, 96, 3, GDN_ST_F32}}, "ask for [4, 160]",
         GDN_E_FORMAT},
        {0, {{DOWN_A, 4, 160, GDN_ST_F32}, {DOWN_B, 4, 96, GDN_ST_F32}}, "has shape [4, 96]",
         GDN_E_FORMAT},
        {0, {{DOWN_A, 640, 0, GDN_ST_F32}, {DOWN_B, 96, 4, GDN_ST_F32}}, "has shape [640]",
         GDN_E_FORMAT},
        {0, {{DOWN_A, 4, 160, GDN_ST_I32}, {DOWN_B, 96, 4, GDN_ST_F32}}, "has type I32",
         GDN_E_FORMAT},
        {0, {{DOWN_A, 4, 160, GDN_ST_F32}, {DOWN_B, 96, 4, GDN_ST_F32},
             {"model.layers.0.mlp.down_proj.lora_A.default.weight", 4, 160, GDN_ST_F32},
             {"model.layers.0.mlp.down_proj.lora_B.default.weight", 96, 4, GDN_ST_F32}},
         "has an adapter here already", GDN_E_FORMAT},
        {0, {{DOWN_A, 4, 160, GDN_ST_F32}, {DOWN_B, 96, 4, GDN_ST_F32},
             {"layers.0.mlp.down_proj.lora_A.weight", 4, 160, GDN_ST_F32},
             {"layers.0.mlp.down_proj.lora_B.weight", 96, 4, GDN_ST_F32}},
         "has an adapter here already", GDN_E_FORMAT},
        {1, {{"model.layers.0.mlp.experts.3.up_proj.lora_A.weight", 4, 96, GDN_ST_F32},
             {"model.layers.0.mlp.experts.3.up_proj.lora_B.weight", 32, 4, GDN_ST_F32},
             {"layers.0.mlp.experts.3.up_proj.lora_A.weight", 4, 96, GDN_ST_F32},
             {"layers.0.mlp.experts.3.up_proj.lora_B.weight", 32, 4, GDN_ST_F32}},
         "has an adapter here already", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.4.mlp.up_proj")}, "is for no matrix of this qwen3_5 model",
         GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.00.mlp.up_proj")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.99999999999.mlp.up_proj")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.0.self_attn.q_proj")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.3.linear_attn.out_proj")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.0.linear_attn.in_proj_qkvz")}, "is for no matrix", GDN_E_FORMAT},
        {1, {ANY_PAIR("model.layers.0.linear_attn.in_proj_qkv")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.0.mlp.experts.0.up_proj")}, "is for no matrix", GDN_E_FORMAT},
        {1, {ANY_PAIR("model.layers.0.mlp.up_proj")}, "is for no matrix", GDN_E_FORMAT},
        {1, {ANY_PAIR("model.layers.0.mlp.experts.12.up_proj")}, "is for no matrix", GDN_E_FORMAT},
        {1, {ANY_PAIR("mtp.fc")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("mtp.layers.1.mlp.up_proj")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.visual.blocks.0.attn.qkv")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.0.input_layernorm")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.0.mlp.up_proj.base_layer")}, "is for no matrix", GDN_E_FORMAT},
        {0, {ANY_PAIR("")}, "is for no matrix", GDN_E_FORMAT},
        {1, {ANY_PAIR("model.layers.0.mlp.experts")}, "of all experts from 96 inputs to 96 outputs",
         GDN_E_UNSUPPORTED},
        {1, {{"model.layers.0.mlp.experts.lora_A.weight", 48, 64, GDN_ST_F32}, /* as older PEFT */
             {"model.layers.0.mlp.experts.lora_B.weight", 96, 48, GDN_ST_F32}},
         "of all experts from 64 inputs to 96 outputs", GDN_E_UNSUPPORTED},
        {1, {{"model.layers.0.mlp.experts.lora_A.weight", 47, 32, GDN_ST_F32},
             {"model.layers.0.mlp.experts.lora_B.weight", 96, 48, GDN_ST_F32}}, "[47, 32]",
         GDN_E_FORMAT},
        {1, {{"model.layers.0.mlp.experts.base_layer.lora_A.weight", 48, 96, GDN_ST_F32},
             {"model.layers.0.mlp.experts.base_layer.lora_B.weight", 64, 36, GDN_ST_F32}},
         "ask for [64, 48]", GDN_E_FORMAT},
        {1, {{"model.layers.0.mlp.experts.lora_A.weight", 48, 32, GDN_ST_F32},
             {"model.layers.0.mlp.experts.lora_B.weight", 96, 48, GDN_ST_F32},
             {"model.layers.0.mlp.experts.3.down_proj.lora_A.weight", 4, 32, GDN_ST_F32},
             {"model.layers.0.mlp.experts.3.down_proj.lora_B.weight", 96, 4, GDN_ST_F32}},
         "has an adapter here already", GDN_E_FORMAT},
        {0, {ANY_PAIR("model.layers.0.mlp.experts")}, "is for no matrix", GDN_E_FORMAT},
        {0, {{"model.embed_tokens.lora_embedding_A", 4, 512, GDN_ST_F32},
             {"model.embed_tokens.lora_embedding_B", 96, 4, GDN_ST_F32}},
         "adapters of the embeddings", GDN_E_UNSUPPORTED},
        {0, {{DOWN_A, 4, 160, GDN_ST_F32}, {DOWN_B, 96, 4, GDN_ST_F32},
             {"model.layers.0.mlp.down_proj.lora_magnitude_vector", 96, 0, GDN_ST_F32}},
         "DoRA", GDN_E_UNSUPPORTED},
        {0, {{"model.layers.0.mlp.down_proj.lora_A.bias", 4, 160, GDN_ST_F32}},
         "is no lora_A.weight or lora_B.weight", GDN_E_FORMAT},
        {0, {{"model.layers.0.mlp.down_proj.lora_A.x.y.weight", 4, 160, GDN_ST_F32}},
         "is no lora_A.weight or lora_B.weight", GDN_E_FORMAT},
        {0, {{"lm_head.weight", 512, 96, GDN_ST_F32}}, "lm_head.weight is not a copy of the model's",
         GDN_E_UNSUPPORTED},
        {0, {{"model.embed_tokens.base_layer.weight", 511, 96, GDN_ST_F32}},
         "is not a copy of the model's", GDN_E_UNSUPPORTED},
        {0, {{"model.layers.0.mlp.down_proj.base_layer.weight", 96, 160, GDN_ST_F32}},
         "is no lora_A.weight or lora_B.weight", GDN_E_FORMAT},
        {0, {{NULL, 0, 0, GDN_ST_F32}}, "no tensors", GDN_E_FORMAT},
    };
    gdn_model *m[2] = {open_model(models[0], GDN_MATH_F32, 1), open_model(models[1], GDN_MATH_F32, 1)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_tensors(bad[i].t, 4);
        refused(m[bad[i].model], bad[i].code, bad[i].words);
    }
    char path[PATH];
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", adapter_dir);
    remove(path);
    refused(m[0], GDN_E_IO, "adapter_model.safetensors");
    gdn_model_close(m[0]);
    gdn_model_close(m[1]);
}

static void test_bad_use(void **state) {
    (void)state;
    static const tensor good[] = {{DOWN_A, 4, 160, GDN_ST_F32}, {DOWN_B, 96, 4, GDN_ST_F32}};
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1), *other = open_model(models[0], GDN_MATH_F32, 1);
    gdn_adapter *a[GDN_MAX_ADAPTER] = {NULL}, *more = NULL;
    gdn_engine *e = NULL;
    gdn_engine_opts o;
    gdn_seq *s = NULL;
    gdn_err err;
    write_tensors(good, 2);
    assert_int_equal(gdn_adapter_open(m, adapter_dir, NAN, &more, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "scale"));
    assert_int_equal(gdn_adapter_open(m, adapter_dir, INFINITY, &more, &err), GDN_E_INVALID);
    assert_int_equal(gdn_adapter_open(m, adapter_dir, 3e38f, &more, &err), GDN_E_FORMAT);
    assert_non_null(strstr(err.text, "the scale of model.layers.0.mlp.down_proj is"));
    for (int i = 0; i < GDN_MAX_ADAPTER; i++) a[i] = open_adapter(m, adapter_dir, 1);
    assert_int_equal(gdn_adapter_open(m, adapter_dir, 1, &more, &err), GDN_E_FULL);
    assert_non_null(strstr(err.text, "64 adapters"));
    gdn_adapter_close(a[17]);
    a[17] = open_adapter(m, adapter_dir, 1); /* its place is free again */
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 64;
    must(gdn_engine_create(other, &o, &e, &err), &err);
    must(gdn_seq_create(e, &s, &err), &err);
    assert_int_equal(gdn_seq_set_adapter(s, a[0], &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "another model"));
    gdn_seq_free(s);
    gdn_engine_free(e);
    for (int i = 0; i < GDN_MAX_ADAPTER; i++) gdn_adapter_close(a[i]);
    gdn_adapter_close(NULL);
    gdn_model_close(m);
    gdn_model_close(other);
}

/* --- as PEFT itself wrote them ------------------------------------------------------------------------- */

/* Logits of transformers with PEFT, in f32: stacked experts, a rank of its own, rslora, a head. */
static void test_peft(void **state) {
    (void)state;
    static const char *const names[] = {"dense-mtp", "next-moe"};
    for (int k = 0; k < 2; k++) {
        char path[PATH];
        gdn_weights *w = NULL;
        gdn_err err;
        int32_t n;
        snprintf(path, sizeof path, "tests/golden/lora/%s/golden.safetensors", names[k]);
        must(gdn_weights_open(path, &w, &err), &err);
        int32_t *ids = input_ids(w, &n);
        const float *want = (const float *)(const void *)vector(w, "logits", GDN_ST_F32)->data;
        snprintf(path, sizeof path, MODELS "%s", names[k]);
        gdn_model *m = open_model(path, GDN_MATH_F32, 2);
        snprintf(path, sizeof path, "tests/golden/lora/%s", names[k]);
        gdn_adapter *a = open_adapter(m, path, 1);
        float *plain = adapted(m, NULL, ids, n, 64, n, NULL), *got = adapted(m, a, ids, n, 64, n, NULL);
        const double error = max_error(want, got, (size_t)n * VOCAB);
        /* As for the golden vectors without adapters: the other side sums in another order. */
        if (!(error < 2e-4)) fail_msg("%s: off by %g", names[k], error);
        assert_true(max_error(plain, got, (size_t)n * VOCAB) > 1);
        print_message("%s: off by %.1e\n", names[k], error);
        free(plain), free(got), free(ids);
        gdn_adapter_close(a);
        gdn_model_close(m);
        gdn_weights_close(w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_module), cmocka_unit_test(test_all_modules),
        cmocka_unit_test(test_patterns),    cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_rows),        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_bad_tensors), cmocka_unit_test(test_bad_use),
        cmocka_unit_test(test_peft),        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, make_folders, remove_folders);
}
