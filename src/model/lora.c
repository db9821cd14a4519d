/* lora.c - opening low-rank adapters as PEFT writes them, and closing them.
 *
 *     DIR/adapter_config.json         ranks and scales
 *     DIR/adapter_model.safetensors   A [r, inputs] and B [outputs, r] of each module
 *
 * All tensors are checked before anything is stored.  A and B are kept as f32, rows of B in the
 * order of the projection that the product fills; nothing is merged into the packed weights.
 * The model's tables, one of GDN_MAX_ADAPTER for each matrix, are filled when all is well.
 *
 * Experts come one by one, or all E of a layer in one pair of tensors, as PEFT stacks them:
 *
 *     mlp.experts(.base_layer).lora_A   [E r, inputs]    row e r + i is row i of expert e's A
 *     mlp.experts(.base_layer).lora_B   [outputs, r E]   column i E + e is column i of expert e's B
 *
 * once for gate and up together, with one A, and once for down; the sizes tell which. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/half.h"
#include "../base/log.h"
#include "lora.h"

struct gdn_lora_set {
    gdn_buffer *buf;
    int32_t    *site; /* [n_site] those it has a part in                              */
    int32_t     n_site;
    gdn_lora  **expert; /* [n_layer + 1], NULL or [n_expert][3]; the last: draft head */
};

/* A module: its tensors, where they belong, and where in buf they go. */
typedef struct {
    const gdn_st_tensor *a, *b;
    gdn_lora_target to;
    gdn_lora lora;
} entry;

typedef struct {
    gdn_model   *m;
    gdn_weights *weights;
    gdn_lora_config *config;
    char    *path; /* room for a module's path */
    entry   *e;
    int64_t  n;
    uint64_t bytes;
    uint64_t key;  /* of the contents */
    double   scale;
    bool    *seen; /* [n_site] */
    struct gdn_lora_set *set;
    gdn_err *err;
} reader;

static gdn_status no_memory(const reader *r, const char *dir) {
    return gdn_fail(r->err, GDN_E_NOMEM, "%s: out of memory", dir);
}

/* --- checking ------------------------------------------------------------------------------- */

static float element(const gdn_st_tensor *t, int64_t i) {
    switch (t->dtype) {
    case GDN_ST_F32: return ((const float *)(const void *)t->data)[i];
    case GDN_ST_BF16: return gdn_bf16_to_f32(((const uint16_t *)(const void *)t->data)[i]);
    default: return gdn_f16_to_f32(((const uint16_t *)(const void *)t->data)[i]);
    }
}

static bool is_float(const gdn_st_tensor *t) {
    return t->dtype == GDN_ST_F32 || t->dtype == GDN_ST_BF16 || t->dtype == GDN_ST_F16;
}

static gdn_status check_tensor(const reader *r, const gdn_st_tensor *t, int64_t rows,
                               int64_t cols) {
    const char *file = gdn_weights_path(r->weights, t);
    if (!is_float(t))
        return gdn_fail(r->err, GDN_E_FORMAT, "%s: tensor %s has type %s, need F32, BF16 or F16",
                        file, t->name, gdn_st_dtype_name(t->dtype));
    if (t->ndim == 2 && t->shape[0] == rows && t->shape[1] == cols) return GDN_OK;
    char have[80] = "";
    for (int32_t i = 0, at = 0; i < t->ndim && at < 60; i++)
        at += snprintf(have + at, sizeof have - (size_t)at, "%s%lld", i > 0 ? ", " : "",
                       (long long)t->shape[i]);
    return gdn_fail(r->err, GDN_E_FORMAT,
                    "%s: tensor %s has shape [%s], the model and adapter_config.json ask for "
                    "[%lld, %lld]", file, t->name, have, (long long)rows, (long long)cols);
}

/* The table of a layer's experts, made when first needed. */
static gdn_status expert_slot(reader *r, const gdn_lora_target *to, gdn_lora **out) {
    gdn_lora **table = &r->set->expert[to->layer];
    if (*table == NULL) *table = calloc(3 * (size_t)r->m->config.n_expert, sizeof **table);
    if (*table == NULL) return no_memory(r, r->m->dir);
    *out = *table + 3 * (int64_t)to->expert + to->part;
    return GDN_OK;
}

static uint64_t room(int64_t rows, int64_t cols) {
    return ((uint64_t)rows * (uint64_t)cols * sizeof(float) + 63) / 64 * 64;
}

/* The file's name of A with B for its letter. */
static gdn_status find_b(const reader *r, const gdn_st_tensor *a, size_t letter,
                         gdn_st_tensor **out) {
    const char *file = gdn_weights_path(r->weights, a);
    char *other = strdup(a->name);
    if (other == NULL) return no_memory(r, file);
    other[letter] = 'B';
    *out = gdn_weights_find(r->weights, other);
    free(other);
    if (*out == NULL)
        return gdn_fail(r->err, GDN_E_FORMAT, "%s: tensor %s has no lora_B beside it", file,
                        a->name);
    return GDN_OK;
}

/* Places in the buffer, and the scale. */
static gdn_status add_entry(reader *r, entry *e, const char *module, double scale,
                            const int64_t *shape_a, const int64_t *shape_b) {
    e->lora.scale = (float)(scale * r->scale);
    if (!isfinite(e->lora.scale))
        return gdn_fail(r->err, GDN_E_FORMAT, "%s: the scale of %s is %g",
                        gdn_weights_path(r->weights, e->a), module, scale * r->scale);
    e->lora.a = gdn_tensor_dense(NULL, r->bytes, GDN_F32, 2, shape_a);
    r->bytes += room(shape_a[0], shape_a[1]);
    e->lora.b = gdn_tensor_dense(NULL, r->bytes, GDN_F32, 2, shape_b);
    r->bytes += room(shape_b[0], shape_b[1]);
    r->e[r->n++] = *e;
    return GDN_OK;
}

/* Two names may mean one matrix: with and without the adapter's name, or by two prefixes. */
static gdn_status check_twice(reader *r, const entry *e) {
    bool twice;
    if (e->to.site >= 0) {
        twice = r->seen[e->to.site];
        r->seen[e->to.site] = true;
    } else {
        gdn_lora *l = NULL;
        const gdn_status st = expert_slot(r, &e->to, &l);
        if (st != GDN_OK) return st;
        twice = l->a.ndim != 0;
        l->a.ndim = 2; /* the rest follows when all is well */
    }
    if (!twice) return GDN_OK;
    return gdn_fail(r->err, GDN_E_FORMAT, "%s: tensor %s is for a matrix that has an adapter here "
                    "already", gdn_weights_path(r->weights, e->a), e->a->name);
}

/* All experts of a layer at once. */
static gdn_status add_stack(reader *r, entry *e) {
    const gdn_config *c = &r->m->config;
    const int64_t E = c->n_expert, d = c->d, f = c->moe_ffn;
    const char *file = gdn_weights_path(r->weights, e->a);
    const bool matrix = e->a->ndim == 2 && e->b->ndim == 2;
    const int64_t in = matrix ? e->a->shape[1] : 0, out = matrix ? e->b->shape[0] : 0;
    const bool gate_up = in == d && out == 2 * f, down = in == f && out == d;
    /* Older PEFT took outputs for inputs; where both are alike nobody can tell. */
    if ((!gate_up && !down) || d == f || d == 2 * f)
        return gdn_fail(r->err, GDN_E_UNSUPPORTED,
                        "%s: tensor %s: an adapter of all experts from %lld inputs to %lld outputs "
                        "is not supported; need %lld to %lld or %lld to %lld, and sizes that differ",
                        file, e->a->name, (long long)in, (long long)out, (long long)d,
                        (long long)(2 * f), (long long)f, (long long)d);
    char *module = NULL;
    char *base = strstr(r->path, ".base_layer");
    if (base != NULL) *base = '\0';
    if (asprintf(&module, "%s.%s", r->path, gate_up ? "gate_up_proj" : "down_proj") < 0)
        return no_memory(r, file);
    int32_t rank;
    double scale;
    gdn_status st = gdn_lora_config_module(r->config, module, &rank, &scale, r->err);
    if (st == GDN_OK) st = check_tensor(r, e->a, E * rank, in);
    if (st == GDN_OK) st = check_tensor(r, e->b, out, E * rank);
    e->to.n = (int32_t)out;
    e->to.k = (int32_t)in;
    e->to.part = gate_up ? 0 : 2;
    for (e->to.expert = 0; e->to.expert < E && st == GDN_OK; e->to.expert++) {
        st = check_twice(r, e);
        e->to.part += gate_up; /* up, if there is one */
        if (st == GDN_OK && gate_up) st = check_twice(r, e);
        e->to.part -= gate_up;
    }
    e->to.expert = GDN_LORA_ALL;
    const int64_t shape_a[2] = {E * rank, in}, shape_b[2] = {E * out, rank};
    if (st == GDN_OK) st = add_entry(r, e, module, scale, shape_a, shape_b);
    free(module);
    return st;
}

/* A module by its A: target, rank, both shapes. */
static gdn_status add_module(reader *r, gdn_st_tensor *a, size_t letter) {
    const char *file = gdn_weights_path(r->weights, a);
    int32_t rank;
    double scale;
    entry e = {.a = a};
    gdn_st_tensor *b = NULL;
    if (!gdn_lora_find(r->m, r->path, &e.to))
        return gdn_fail(r->err, GDN_E_FORMAT, "%s: tensor %s is for no matrix of this %s model",
                        file, a->name, gdn_arch_name(r->m->config.arch));
    gdn_status st = find_b(r, a, letter, &b);
    if (st != GDN_OK) return st;
    a->used = b->used = true;
    e.b = b;
    if (e.to.expert == GDN_LORA_ALL) return add_stack(r, &e);
    st = gdn_lora_config_module(r->config, r->path, &rank, &scale, r->err);
    if (st == GDN_OK) st = check_tensor(r, a, rank, e.to.k);
    if (st == GDN_OK) st = check_tensor(r, b, e.to.n, rank);
    if (st == GDN_OK) st = check_twice(r, &e);
    const int64_t shape_a[2] = {rank, e.to.k}, shape_b[2] = {e.to.n, rank};
    return st == GDN_OK ? add_entry(r, &e, r->path, scale, shape_a, shape_b) : st;
}

/* PEFT saves the head or the embeddings beside an adapter of the head.  Nothing is to be done for a
 * copy of what the model has; other weights would change results. */
static gdn_status check_copy(const reader *r, const gdn_st_tensor *t, bool head) {
    const gdn_model *m = r->m;
    char name[80];
    snprintf(name, sizeof name, "%sembed_tokens.weight", m->prefix);
    const gdn_st_tensor *own = head ? gdn_weights_find(m->weights, "lm_head.weight") : NULL;
    if (own == NULL && head) own = gdn_weights_find(m->weights, "language_model.lm_head.weight");
    if (own == NULL) own = gdn_weights_find(m->weights, name);
    bool same = own != NULL && t->ndim == 2 && own->ndim == 2 && t->shape[0] == own->shape[0] &&
                t->shape[1] == own->shape[1] && is_float(t) && is_float(own);
    const int64_t n = same ? t->shape[0] * t->shape[1] : 0;
    for (int64_t i = 0; i < n && same; i++) same = element(t, i) == element(own, i);
    if (same) return GDN_OK;
    return gdn_fail(r->err, GDN_E_UNSUPPORTED, "%s: tensor %s is not a copy of the model's, and "
                    "weights of an adapter's own are not supported",
                    gdn_weights_path(r->weights, t), t->name);
}

static gdn_status not_ours(const reader *r, const gdn_st_tensor *t) {
    static const struct {
        const char *part, *what;
    } known[] = {{".lora_embedding_", "adapters of the embeddings are not supported"},
                 {".lora_magnitude_vector", "DoRA is not supported"},
                 {".lora_bias", "biases are not supported"}};
    const char *file = gdn_weights_path(r->weights, t);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(t->name, known[i].part) != NULL)
            return gdn_fail(r->err, GDN_E_UNSUPPORTED, "%s: tensor %s: %s", file, t->name,
                            known[i].what);
    return gdn_fail(r->err, GDN_E_FORMAT, "%s: tensor %s is no lora_A.weight or lora_B.weight",
                    file, t->name);
}

/* A tensor that is no A and no B. */
static gdn_status other_tensor(const reader *r, gdn_st_tensor *t) {
    static const char *const copies[] = {"lm_head.base_layer.weight", "lm_head.weight",
                                         "embed_tokens.base_layer.weight", "embed_tokens.weight"};
    const size_t n = strlen(t->name);
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++) {
        const size_t len = strlen(copies[i]);
        if (n < len || strcmp(t->name + n - len, copies[i]) != 0) continue;
        t->used = true;
        return check_copy(r, t, i < 2);
    }
    return not_ours(r, t);
}

static gdn_status check_all(reader *r) {
    const int64_t n = gdn_weights_count(r->weights);
    for (int64_t i = 0; i < n; i++) {
        gdn_st_tensor *t = gdn_weights_at(r->weights, i);
        size_t letter;
        const gdn_lora_part part = gdn_lora_split(t->name, r->path, &letter);
        const gdn_status st = part == GDN_LORA_A   ? add_module(r, t, letter)
                              : part == GDN_LORA_B ? GDN_OK
                                                   : other_tensor(r, t);
        if (st != GDN_OK) return st;
    }
    for (int64_t i = 0; i < n; i++) {
        const gdn_st_tensor *t = gdn_weights_at(r->weights, i);
        if (!t->used)
            return gdn_fail(r->err, GDN_E_FORMAT, "%s: tensor %s has no lora_A beside it",
                            gdn_weights_path(r->weights, t), t->name);
    }
    return GDN_OK;
}

/* --- storing -------------------------------------------------------------------------------- */

/* Row i of what is stored is row order[i] of the file. */
static void copy_rows(const gdn_st_tensor *t, const int32_t *order, float *to) {
    for (int64_t i = 0; i < t->shape[0]; i++) {
        const int64_t from = (order != NULL ? order[i] : i) * t->shape[1];
        for (int64_t k = 0; k < t->shape[1]; k++) *to++ = element(t, from + k);
    }
}

/* B of all experts, one [outputs, r] after the other. */
static void copy_stack(const gdn_st_tensor *t, int64_t n_expert, float *to) {
    const int64_t rank = t->shape[1] / n_expert;
    for (int64_t e = 0; e < n_expert; e++)
        for (int64_t i = 0; i < t->shape[0]; i++)
            for (int64_t k = 0; k < rank; k++)
                *to++ = element(t, i * t->shape[1] + k * n_expert + e);
}

static uint64_t mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

/* What the adapter adds and where, as a number: saved states of one are never taken for another's. */
static uint64_t content_key(const reader *r, const void *contents) {
    uint64_t h = 1;
    for (int64_t i = 0; i < r->n; i++) {
        const entry *e = &r->e[i];
        const uint64_t place[] = {(uint64_t)e->to.site, (uint64_t)e->to.layer,
                                  (uint64_t)e->to.expert, (uint64_t)e->to.part,
                                  (uint64_t)e->lora.a.shape[0], e->lora.a.at,
                                  gdn_bits_of_f32(e->lora.scale)};
        for (size_t k = 0; k < sizeof place / sizeof *place; k++) h = mix(h, place[k]);
    }
    const uint64_t *word = contents; /* a multiple of 64 bytes */
    for (uint64_t i = 0; i < r->bytes / sizeof *word; i++) h = mix(h, word[i]);
    return h != 0 ? h : 1;
}

static gdn_status store(reader *r) {
    const gdn_config *c = &r->m->config;
    const int64_t rows = 2 * (int64_t)c->hk * c->dk + 2 * (int64_t)c->hv * c->dv;
    int32_t *qkvz = NULL;
    if (c->interleaved) {
        qkvz = malloc((size_t)(rows + 2 * c->hv) * sizeof *qkvz);
        if (qkvz == NULL) return no_memory(r, r->m->dir);
        gdn_model_deinterleave(c, qkvz, qkvz + rows);
    }
    gdn_status st = gdn_buffer_alloc(r->m->device, r->bytes, &r->set->buf, r->err);
    char *host = st == GDN_OK ? gdn_model_fill(r->set->buf) : NULL;
    if (st == GDN_OK && host == NULL) st = no_memory(r, r->m->dir);
    for (int64_t i = 0; i < r->n && st == GDN_OK; i++) {
        entry *e = &r->e[i];
        const int32_t *order = e->to.order == GDN_LORA_QKVZ ? qkvz
                               : e->to.order == GDN_LORA_BA ? qkvz + rows
                                                            : NULL;
        copy_rows(e->a, NULL, (float *)(void *)(host + e->lora.a.at));
        float *b = (float *)(void *)(host + e->lora.b.at);
        if (e->to.expert == GDN_LORA_ALL) copy_stack(e->b, c->n_expert, b);
        else copy_rows(e->b, order, b);
        e->lora.a.buf = e->lora.b.buf = r->set->buf;
    }
    free(qkvz);
    if (st != GDN_OK) return st;
    r->key = content_key(r, host);
    return gdn_model_sent(r->set->buf, host, st, r->err);
}

/* A share of the stack for each expert; gate and up have one A and half of B's rows each. */
static void install_stack(gdn_lora *table, const entry *e, int64_t n_expert) {
    const int64_t rank = e->lora.b.shape[1], n = e->to.n, half = n / 2;
    for (int64_t i = 0; i < n_expert; i++, table += 3) {
        gdn_lora l = e->lora;
        l.a = gdn_tensor_slice(e->lora.a, 0, i * rank, (i + 1) * rank);
        l.b = gdn_tensor_slice(e->lora.b, 0, i * n, (i + 1) * n);
        if (e->to.part == 2) {
            table[2] = l;
            continue;
        }
        table[0] = table[1] = l;
        table[0].b = gdn_tensor_slice(l.b, 0, 0, half);
        table[1].b = gdn_tensor_slice(l.b, 0, half, n);
    }
}

/* Into the model's tables: nothing fails from here on. */
static void install(reader *r, int32_t index) {
    gdn_model *m = r->m;
    for (int64_t i = 0; i < r->n; i++) {
        const entry *e = &r->e[i];
        if (e->to.site < 0) {
            gdn_lora *table = r->set->expert[e->to.layer];
            if (e->to.expert == GDN_LORA_ALL) install_stack(table, e, m->config.n_expert);
            else table[3 * (int64_t)e->to.expert + e->to.part] = e->lora;
            continue;
        }
        m->site[e->to.site].lora[index] = e->lora;
        m->site[e->to.site].n_used++;
        r->set->site[r->set->n_site++] = e->to.site;
    }
    for (int32_t i = 0; i <= m->config.n_layer; i++) {
        gdn_moe *moe = i < m->config.n_layer ? &m->layer[i].experts : &m->mtp.layer.experts;
        if (r->set->expert[i] == NULL) continue;
        moe->lora[index] = r->set->expert[i];
        moe->n_lora++;
    }
}

/* --- opening and closing ---------------------------------------------------------------------- */

static void free_set(const gdn_model *m, struct gdn_lora_set *s) {
    if (s == NULL) return;
    for (int32_t i = 0; s->expert != NULL && i <= m->config.n_layer; i++) free(s->expert[i]);
    free(s->expert);
    free(s->site);
    gdn_buffer_free(s->buf);
    free(s);
}

/* Tables for what is about to be read. */
static gdn_status prepare(reader *r, const char *dir) {
    gdn_model *m = r->m;
    const int64_t n = gdn_weights_count(r->weights);
    size_t longest = 0;
    for (int64_t i = 0; i < n; i++) {
        const size_t len = strlen(gdn_weights_at(r->weights, i)->name);
        if (len > longest) longest = len;
    }
    if (m->site == NULL) m->site = calloc((size_t)m->n_site, sizeof *m->site);
    r->path = malloc(longest + 1);
    r->e = calloc((size_t)n + 1, sizeof *r->e);
    r->seen = calloc((size_t)m->n_site, sizeof *r->seen);
    r->set = calloc(1, sizeof *r->set);
    if (m->site == NULL || r->path == NULL || r->e == NULL || r->seen == NULL || r->set == NULL)
        return no_memory(r, dir);
    r->set->site = calloc((size_t)m->n_site, sizeof *r->set->site);
    r->set->expert = calloc((size_t)m->config.n_layer + 1, sizeof *r->set->expert);
    return r->set->site == NULL || r->set->expert == NULL ? no_memory(r, dir) : GDN_OK;
}

static gdn_status read_adapter(reader *r, const char *dir) {
    char *name = NULL;
    gdn_status st;
    if (asprintf(&name, "%s/adapter_config.json", dir) < 0) return no_memory(r, dir);
    st = gdn_lora_config_read(name, &r->config, r->err);
    free(name);
    name = NULL;
    if (st == GDN_OK && asprintf(&name, "%s/adapter_model.safetensors", dir) < 0)
        return no_memory(r, dir);
    if (st == GDN_OK) st = gdn_weights_open(name, &r->weights, r->err);
    if (st == GDN_OK && gdn_weights_count(r->weights) == 0)
        st = gdn_fail(r->err, GDN_E_FORMAT, "%s: no tensors", name);
    free(name);
    if (st == GDN_OK) st = prepare(r, dir);
    if (st == GDN_OK) st = check_all(r);
    return st == GDN_OK ? store(r) : st;
}

gdn_status gdn_adapter_open(gdn_model *m, const char *dir, float scale, gdn_adapter **out,
                            gdn_err *err) {
    int32_t index = 0;
    if (!isfinite(scale))
        return gdn_fail(err, GDN_E_INVALID, "%s: an adapter's scale of %g", dir, (double)scale);
    while (index < GDN_MAX_ADAPTER && m->adapter[index] != NULL) index++;
    if (index == GDN_MAX_ADAPTER)
        return gdn_fail(err, GDN_E_FULL, "%s: %d adapters are open already", dir, index);
    reader r = {.m = m, .scale = (double)scale, .err = err};
    gdn_adapter *a = calloc(1, sizeof *a);
    gdn_status st = a == NULL ? no_memory(&r, dir) : read_adapter(&r, dir);
    if (st == GDN_OK) {
        install(&r, index);
        *a = (gdn_adapter){.m = m, .index = index, .key = r.key, .set = r.set};
        m->adapter[index] = a;
        *out = a;
        gdn_log(GDN_LOG_INFO, "adapter dir=%s modules=%lld bytes=%llu", dir, (long long)r.n,
                (unsigned long long)r.bytes);
    } else {
        free_set(m, r.set);
        free(a);
    }
    free(r.seen);
    free(r.e);
    free(r.path);
    gdn_weights_close(r.weights);
    gdn_lora_config_free(r.config);
    return st;
}

void gdn_adapter_close(gdn_adapter *a) {
    if (a == NULL) return;
    gdn_model *m = a->m;
    for (int32_t i = 0; i < a->set->n_site; i++) {
        gdn_site *s = &m->site[a->set->site[i]];
        s->lora[a->index] = (gdn_lora){.scale = 0};
        s->n_used--;
    }
    for (int32_t i = 0; i <= m->config.n_layer; i++) {
        gdn_moe *moe = i < m->config.n_layer ? &m->layer[i].experts : &m->mtp.layer.experts;
        if (a->set->expert[i] == NULL) continue;
        moe->lora[a->index] = NULL;
        moe->n_lora--;
    }
    m->adapter[a->index] = NULL;
    free_set(m, a->set);
    free(a);
}
