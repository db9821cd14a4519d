/* random.c - a checkpoint with the shape of a released model and random weights.
 *
 * Every weight is drawn evenly from a range that keeps activations near one: matrices
 * from
 * +-sqrt(3 / columns), norms close to what they are in trained models, decays between 0.9
 * and 1.  A tensor's numbers depend on the seed and its name, so a model cut to fewer
 * layers has the same layers.  All draws of a tensor come from a table of its range in
 * its type: 16 random bits cost one load instead of a conversion. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../base/half.h"
#include "../format/st_write.h"
#include "random_model.h"

#define B35(d, l, q, kv, v, ffn, tie)                                                    \
    GDN_ARCH_QWEN3_5, d, l, q, kv, 16, v, ffn, 0, 0, 0, 0, 248320, 248044, tie
#define M35(d, l, q, kv, v, e, k, moe)                                                   \
    GDN_ARCH_QWEN3_5_MOE, d, l, q, kv, 16, v, 0, e, k, moe, moe, 248320, 248044, false
static const gdn_random_shape shapes[] = {
    {"qwen3.5-0.8b", B35(1024, 24, 8, 2, 16, 3584, true)},
    {"qwen3.5-2b", B35(2048, 24, 8, 2, 16, 6144, true)},
    {"qwen3.5-4b", B35(2560, 32, 16, 4, 32, 9216, true)},
    {"qwen3.5-9b", B35(4096, 32, 16, 4, 32, 12288, false)},
    {"qwen3.5-27b", B35(5120, 64, 24, 4, 48, 17408, false)},
    {"qwen3.5-35b-a3b", M35(2048, 40, 16, 2, 32, 256, 8, 512)},
    {"qwen3-next-80b-a3b", GDN_ARCH_QWEN3_NEXT, 2048, 48, 16, 2, 16, 32, 0, 512, 10, 512,
     512, 151936, 151643, false},
    {"qwen3.5-122b-a10b", M35(3072, 48, 32, 2, 64, 256, 8, 1024)},
    {"qwen3.5-397b-a17b", M35(4096, 60, 32, 2, 64, 512, 10, 1024)},
};
enum { N_SHAPE = sizeof shapes / sizeof *shapes };

void gdn_random_defaults(gdn_random_opts *o) {
    *o =
        (gdn_random_opts){.like = "qwen3.5-0.8b", .type = "bf16", .mtp = true, .seed = 1};
}

const char *gdn_random_like(int32_t i) {
    return i >= 0 && i < N_SHAPE ? shapes[i].name : NULL;
}

/* --- the plan: every tensor with its range -------------------------------------------
 */

typedef struct {
    char *name;
    gdn_st_dtype dtype;
    int32_t ndim;
    int64_t shape[4];
    float lo, hi; /* draws are even in [lo, hi) */
} plan_tensor;

typedef struct {
    const gdn_random_shape *s;
    gdn_st_dtype dtype;    /* of what is not quantised */
    gdn_st_dtype vec_type; /* of A_log and the gated norm */
    bool fp8;
    char prefix[96]; /* of the names that follow */
    plan_tensor *t;
    size_t n, room;
    uint64_t bytes;
    gdn_status st; /* the first failure; later calls do nothing */
    gdn_err *err;
} plan;

static void add(plan *p, const char *name, const char *suffix, gdn_st_dtype dtype,
                double lo, double hi, int32_t ndim, const int64_t *shape) {
    plan_tensor t = {.dtype = dtype, .ndim = ndim, .lo = (float)lo, .hi = (float)hi};
    uint64_t bytes = (uint64_t)gdn_st_dtype_size(dtype);
    if (p->st != GDN_OK) return;
    if (p->n == p->room) {
        const size_t room = 2 * p->room + 256;
        plan_tensor *grown = realloc(p->t, room * sizeof *grown);
        if (grown == NULL) {
            p->st = gdn_fail(p->err, GDN_E_NOMEM, "no memory for a list of tensors");
            return;
        }
        p->t = grown;
        p->room = room;
    }
    if (asprintf(&t.name, "%s%s%s", p->prefix, name, suffix) < 0) {
        p->st = gdn_fail(p->err, GDN_E_NOMEM, "no memory for a list of tensors");
        return;
    }
    for (int32_t i = 0; i < ndim; i++) {
        t.shape[i] = shape[i];
        bytes *= (uint64_t)shape[i];
    }
    p->bytes += bytes;
    p->t[p->n++] = t;
}

/* A matrix that stays in the model's type; gain 1 keeps the size of what it multiplies.
 */
static void plain(plan *p, const char *name, double gain, int64_t rows, int64_t cols) {
    const double a = gain * sqrt(3.0 / (double)cols);
    add(p, name, ".weight", p->dtype, -a, a, 2, (int64_t[]){rows, cols});
}

/* A matrix that an fp8 model holds as e4m3 over all its range and a scale for each block.
 */
static void matrix(plan *p, const char *name, int64_t rows, int64_t cols) {
    enum { B = GDN_RANDOM_BLOCK };
    const double e4m3_max = 448, a = sqrt(3.0 / (double)cols) / e4m3_max;
    if (!p->fp8) {
        plain(p, name, 1, rows, cols);
        return;
    }
    add(p, name, ".weight", GDN_ST_F8_E4M3, -e4m3_max, e4m3_max, 2,
        (int64_t[]){rows, cols});
    add(p, name, ".weight_scale_inv", p->dtype, 0.75 * a, 1.25 * a, 2,
        (int64_t[]){(rows + B - 1) / B, (cols + B - 1) / B});
}

/* A zero-centred norm: 1 + weight is what multiplies. */
static void norm(plan *p, const char *name, int64_t n) {
    add(p, name, ".weight", p->dtype, -0.1, 0.1, 1, &n);
}

static void plan_attention(plan *p) {
    const gdn_random_shape *s = p->s;
    const int64_t q = (int64_t)s->hq * GDN_RANDOM_HEAD,
                  kv = (int64_t)s->hkv * GDN_RANDOM_HEAD;
    matrix(p, "self_attn.q_proj", 2 * q, s->d); /* each head's query and its gate */
    matrix(p, "self_attn.k_proj", kv, s->d);
    matrix(p, "self_attn.v_proj", kv, s->d);
    matrix(p, "self_attn.o_proj", s->d, q);
    norm(p, "self_attn.q_norm", GDN_RANDOM_HEAD);
    norm(p, "self_attn.k_norm", GDN_RANDOM_HEAD);
}

static void plan_linear(plan *p) {
    const gdn_random_shape *s = p->s;
    const int64_t dh = GDN_RANDOM_LINEAR_HEAD, k = s->hk * dh, v = s->hv * dh, hv = s->hv;
    const double conv = sqrt(3.0 / GDN_RANDOM_CONV);
    if (s->arch == GDN_ARCH_QWEN3_NEXT) {
        matrix(p, "linear_attn.in_proj_qkvz", 2 * k + 2 * v, s->d);
        plain(p, "linear_attn.in_proj_ba", 0.3, 2 * hv, s->d);
    } else {
        matrix(p, "linear_attn.in_proj_qkv", 2 * k + v, s->d);
        matrix(p, "linear_attn.in_proj_z", v, s->d);
        plain(p, "linear_attn.in_proj_b", 1, hv, s->d);
        plain(p, "linear_attn.in_proj_a", 0.3, hv, s->d);
    }
    add(p, "linear_attn.conv1d", ".weight", p->dtype, -conv, conv, 3,
        (int64_t[]){2 * k + v, 1, GDN_RANDOM_CONV});
    /* decay = exp(-exp(A_log) softplus(a + dt_bias)), and a is within +-1. */
    add(p, "linear_attn.dt_bias", "", p->dtype, -7, -4, 1, &hv);
    add(p, "linear_attn.A_log", "", p->vec_type, 0, 0.7, 1, &hv);
    add(p, "linear_attn.norm", ".weight", p->vec_type, 0.9, 1.1, 1,
        &dh); /* not centred */
    matrix(p, "linear_attn.out_proj", s->d, v);
}

static void plan_experts(plan *p) {
    const gdn_random_shape *s = p->s;
    const int64_t d = s->d, f = s->moe_ffn, e = s->n_expert;
    const double in = sqrt(3.0 / (double)d), out = sqrt(3.0 / (double)f);
    if (s->arch == GDN_ARCH_QWEN3_5_MOE && !p->fp8) { /* published fused */
        add(p, "mlp.experts.gate_up_proj", "", p->dtype, -in, in, 3,
            (int64_t[]){e, 2 * f, d});
        add(p, "mlp.experts.down_proj", "", p->dtype, -out, out, 3, (int64_t[]){e, d, f});
        return;
    }
    for (int32_t i = 0; i < e; i++) {
        char name[64];
        snprintf(name, sizeof name, "mlp.experts.%d.gate_proj", (int)i);
        matrix(p, name, f, d);
        snprintf(name, sizeof name, "mlp.experts.%d.up_proj", (int)i);
        matrix(p, name, f, d);
        snprintf(name, sizeof name, "mlp.experts.%d.down_proj", (int)i);
        matrix(p, name, d, f);
    }
}

static void plan_ffn(plan *p) {
    const gdn_random_shape *s = p->s;
    const bool moe = s->n_expert > 0;
    const int64_t f = moe ? s->shared_ffn : s->ffn;
    if (moe) {
        plain(p, "mlp.gate", 1, s->n_expert, s->d);
        plain(p, "mlp.shared_expert_gate", 1, 1, s->d);
        plan_experts(p);
    }
    matrix(p, moe ? "mlp.shared_expert.gate_proj" : "mlp.gate_proj", f, s->d);
    matrix(p, moe ? "mlp.shared_expert.up_proj" : "mlp.up_proj", f, s->d);
    matrix(p, moe ? "mlp.shared_expert.down_proj" : "mlp.down_proj", s->d, f);
}

static void plan_layer(plan *p, bool full) {
    norm(p, "input_layernorm", p->s->d);
    if (full)
        plan_attention(p);
    else
        plan_linear(p);
    norm(p, "post_attention_layernorm", p->s->d);
    plan_ffn(p);
}

static void set_prefix(plan *p, const char *text) {
    snprintf(p->prefix, sizeof p->prefix, "%s", text);
}

static gdn_status plan_model(plan *p, const gdn_random_opts *o) {
    const gdn_random_shape *s = p->s;
    const char *top = s->arch == GDN_ARCH_QWEN3_NEXT ? "model." : "model.language_model.";
    set_prefix(p, top);
    plain(p, "embed_tokens", 1, s->vocab, s->d);
    norm(p, "norm", s->d);
    for (int32_t i = 0; i < o->n_layer; i++) {
        snprintf(p->prefix, sizeof p->prefix, "%slayers.%d.", top, (int)i);
        plan_layer(p, (i + 1) % GDN_RANDOM_PERIOD == 0);
    }
    set_prefix(p, "");
    if (!s->tie) plain(p, "lm_head", 1, s->vocab, s->d);
    if (!o->mtp) return p->st;
    set_prefix(p, "mtp.");
    plain(p, "fc", 1, s->d, 2 * (int64_t)s->d);
    norm(p, "pre_fc_norm_embedding", s->d);
    norm(p, "pre_fc_norm_hidden", s->d);
    norm(p, "norm", s->d);
    set_prefix(p, "mtp.layers.0.");
    plan_layer(p, true);
    return p->st;
}

static void plan_free(plan *p) {
    for (size_t i = 0; i < p->n; i++) free(p->t[i].name);
    free(p->t);
}

gdn_status gdn_random_find(const char *like, const gdn_random_shape **s, gdn_err *err) {
    char list[256] = "";
    size_t at = 0;
    for (int32_t i = 0; i < N_SHAPE; i++) {
        if (like != NULL && strcmp(like, shapes[i].name) == 0) {
            *s = &shapes[i];
            return GDN_OK;
        }
        at += (size_t)snprintf(list + at, sizeof list - at, " %s", shapes[i].name);
    }
    return gdn_fail(err, GDN_E_INVALID, "no shape is called %s; there are%s",
                    like != NULL ? like : "(none)", list);
}

/* Check the options and list the tensors; *eff gets the number of layers to write.  The
 * plan is to be freed on failure too. */
static gdn_status plan_begin(plan *p, const gdn_random_shape *s, const gdn_random_opts *o,
                             gdn_random_opts *eff, gdn_err *err) {
    *p = (plan){.s = s, .err = err};
    *eff = *o;
    const char *type = o->type != NULL ? o->type : "(none)";
    if (strcmp(type, "q8_0") == 0 || strcmp(type, "q4_0") == 0)
        return gdn_fail(
            err, GDN_E_UNSUPPORTED,
            "type %s is not one of safetensors files; use bf16, f16, f32 or fp8", type);
    p->fp8 = strcmp(type, "fp8") == 0;
    if (p->fp8 || strcmp(type, "bf16") == 0)
        p->dtype = GDN_ST_BF16;
    else if (strcmp(type, "f16") == 0)
        p->dtype = GDN_ST_F16;
    else if (strcmp(type, "f32") == 0)
        p->dtype = GDN_ST_F32;
    else
        return gdn_fail(err, GDN_E_INVALID, "type %s is none of bf16, f16, f32, fp8",
                        type);
    p->vec_type = s->arch == GDN_ARCH_QWEN3_NEXT ? p->dtype : GDN_ST_F32;
    if (eff->n_layer == 0) eff->n_layer = s->n_layer;
    if (eff->n_layer < 1 || eff->n_layer > s->n_layer ||
        eff->n_layer % GDN_RANDOM_PERIOD != 0)
        return gdn_fail(err, GDN_E_INVALID, "%d layers; %s can have 4, 8, ... %d",
                        (int)eff->n_layer, s->name, (int)s->n_layer);
    return plan_model(p, eff);
}

/* --- drawing
 * ------------------------------------------------------------------------------ */

enum {
    TABLE = 4096, /* values of a range in a 16-bit type; 8 KiB stay in the first cache */
    CHUNK = 4 << 20,  /* bytes made and written at a time */
    REPORT = 64 << 20 /* bytes between calls of progress */
};

typedef struct {
    gdn_st_dtype dtype;
    float lo, hi;
    bool ready;
    uint16_t wide[TABLE]; /* for bf16 and f16 */
    uint8_t narrow[256];  /* for fp8 */
} draw_table;

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Where the counter of a tensor's draws starts. */
static uint64_t tensor_key(const char *name, uint64_t seed) {
    uint64_t h = mix(seed + 0x9e3779b97f4a7c15u);
    for (; *name != '\0'; name++) h = mix(h ^ (unsigned char)*name);
    return h;
}

static uint8_t nearest_e4m3(float x) {
    uint8_t best = 0;
    float miss = INFINITY;
    for (int c = 0; c < 256; c++) {
        const float d = fabsf(gdn_fp8_to_f32((uint8_t)c) - x);
        if (d < miss) miss = d, best = (uint8_t)c; /* NaN is never nearer */
    }
    return best;
}

static void fill_table(draw_table *k, const plan_tensor *t) {
    if (k->ready && k->dtype == t->dtype && k->lo == t->lo && k->hi == t->hi) return;
    k->dtype = t->dtype, k->lo = t->lo, k->hi = t->hi, k->ready = true;
    const int n = t->dtype == GDN_ST_F8_E4M3 ? 256 : TABLE;
    for (int i = 0; i < n; i++) {
        const float x = t->lo + (t->hi - t->lo) * (((float)i + 0.5f) / (float)n);
        if (t->dtype == GDN_ST_F8_E4M3)
            k->narrow[i] = nearest_e4m3(x);
        else
            k->wide[i] = t->dtype == GDN_ST_BF16 ? gdn_f32_to_bf16(x) : gdn_f32_to_f16(x);
    }
}

/* n times 8 bytes of draws, the counter going on from *at. */
static void draw(const draw_table *k, uint64_t *at, uint64_t *out, size_t n) {
    uint64_t c = *at;
    if (k->dtype == GDN_ST_F32) {
        const float step = (k->hi - k->lo) * 0x1p-24f;
        for (size_t i = 0; i < n; i++, c += 0x9e3779b97f4a7c15u) {
            const uint64_t r = mix(c);
            const float x[2] = {k->lo + step * (float)(uint32_t)(r >> 40),
                                k->lo + step * (float)(uint32_t)(r & 0xffffff)};
            memcpy(out + i, x, sizeof x);
        }
    } else if (k->dtype == GDN_ST_F8_E4M3) {
        for (size_t i = 0; i < n; i++, c += 0x9e3779b97f4a7c15u) {
            const uint64_t r = mix(c);
            uint8_t x[8];
            for (int b = 0; b < 8; b++) x[b] = k->narrow[r >> 8 * b & 255];
            memcpy(out + i, x, sizeof x);
        }
    } else {
        const uint16_t *w = k->wide;
        for (size_t i = 0; i < n; i++, c += 0x9e3779b97f4a7c15u) {
            const uint64_t r = mix(c);
            const uint16_t x[4] = {w[r & (TABLE - 1)], w[r >> 16 & (TABLE - 1)],
                                   w[r >> 32 & (TABLE - 1)], w[r >> 48 & (TABLE - 1)]};
            memcpy(out + i, x, sizeof x);
        }
    }
    *at = c;
}

/* --- writing
 * ---------------------------------------------------------------------------------- */

/* Wide elements first, so that all are aligned; otherwise in the order of the plan. */
static gdn_status declare(gdn_st_writer *w, const plan *p, size_t *order, gdn_err *err) {
    size_t n = 0;
    gdn_status st = gdn_st_writer_meta(w, "format", "pt", err);
    for (int32_t size = 4; size > 0; size /= 2)
        for (size_t i = 0; i < p->n; i++)
            if (gdn_st_dtype_size(p->t[i].dtype) == size) order[n++] = i;
    for (size_t i = 0; st == GDN_OK && i < n; i++) {
        const plan_tensor *t = &p->t[order[i]];
        st = gdn_st_writer_add(w, t->name, t->dtype, t->ndim, t->shape, err);
    }
    return st;
}

static gdn_status write_tensors(gdn_st_writer *w, const plan *p, const size_t *order,
                                const gdn_random_opts *o, gdn_err *err) {
    gdn_status st = GDN_OK;
    uint64_t done = 0, reported = 0;
    draw_table *k = calloc(1, sizeof *k);
    uint64_t *buf = malloc(CHUNK);
    if (k == NULL || buf == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory to make weights", o->out);
        goto done;
    }
    for (size_t i = 0; i < p->n; i++) {
        const plan_tensor *t = &p->t[order[i]];
        uint64_t key = tensor_key(t->name, o->seed),
                 left = (uint64_t)gdn_st_dtype_size(t->dtype);
        for (int32_t d = 0; d < t->ndim; d++) left *= (uint64_t)t->shape[d];
        fill_table(k, t);
        while (left > 0) {
            const uint64_t n = left < CHUNK ? left : CHUNK;
            draw(k, &key, buf, (size_t)(n + 7) / 8);
            st = gdn_st_writer_append(w, buf, n, err);
            if (st != GDN_OK) goto done;
            left -= n;
            done += n;
            if (o->progress == NULL || (done < p->bytes && done - reported < REPORT))
                continue;
            reported = done;
            if (!o->progress(done, p->bytes, o->arg)) {
                st = gdn_fail(err, GDN_E_CANCELLED, "%s: stopped", o->out);
                goto done;
            }
        }
    }

done:
    free(buf);
    free(k);
    return st;
}

static gdn_status write_weights(const plan *p, const gdn_random_opts *o, const char *path,
                                gdn_err *err) {
    gdn_st_writer *w = NULL;
    size_t *order = malloc(p->n * sizeof *order);
    if (order == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: no memory", path);
    gdn_status st = gdn_st_writer_create(path, &w, err);
    if (st == GDN_OK) st = declare(w, p, order, err);
    if (st == GDN_OK) st = write_tensors(w, p, order, o, err);
    if (st == GDN_OK) st = gdn_st_writer_finish(w, err);
    gdn_st_writer_free(w);
    free(order);
    return st;
}

/* The folder, made or found empty. */
static gdn_status make_folder(const char *dir, bool *made, gdn_err *err) {
    if (dir == NULL || dir[0] == '\0')
        return gdn_fail(err, GDN_E_INVALID, "no folder to write to is named");
    *made = mkdir(dir, 0777) == 0;
    if (*made) return GDN_OK;
    if (errno != EEXIST) return gdn_fail(err, GDN_E_IO, "%s: %s", dir, strerror(errno));
    DIR *d = opendir(dir);
    if (d == NULL) return gdn_fail(err, GDN_E_IO, "%s: %s", dir, strerror(errno));
    bool empty = true;
    for (const struct dirent *e; empty && (e = readdir(d)) != NULL;)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    return empty ? GDN_OK : gdn_fail(err, GDN_E_IO, "%s: the folder is not empty", dir);
}

static gdn_status check_space(const plan *p, const char *dir, gdn_err *err) {
    enum { TEXTS = 32 << 20 }; /* tokenizer and header, amply */
    struct statvfs v;
    if (statvfs(dir, &v) != 0) return GDN_OK; /* then writing will tell */
    const uint64_t free_bytes = (uint64_t)v.f_bavail * v.f_frsize,
                   need = p->bytes + TEXTS;
    if (free_bytes >= need) return GDN_OK;
    return gdn_fail(err, GDN_E_IO,
                    "%s: needs %" PRIu64 " MiB, the disk has %" PRIu64 " MiB left", dir,
                    need >> 20, free_bytes >> 20);
}

/* The files of the folder, the weights last. */
static gdn_status write_file(int32_t i, const plan *p, const gdn_random_opts *o,
                             const char *path, gdn_err *err) {
    switch (i) {
    case 0:
        return gdn_random_write_config(p->s, o, path, err);
    case 1:
        return gdn_random_write_genconfig(p->s, path, err);
    case 2:
        return gdn_random_write_tokenizer(p->s, path, err);
    case 3:
        return gdn_random_write_tokenizer_config(path, err);
    case 4:
        return gdn_random_write_template(path, err);
    default:
        return write_weights(p, o, path, err);
    }
}

gdn_status gdn_random_size(const gdn_random_opts *o, uint64_t *bytes, gdn_err *err) {
    plan p;
    gdn_random_opts eff;
    const gdn_random_shape *s;
    gdn_status st = gdn_random_find(o->like, &s, err);
    if (st != GDN_OK) return st;
    st = plan_begin(&p, s, o, &eff, err);
    if (st == GDN_OK) *bytes = p.bytes;
    plan_free(&p);
    return st;
}

gdn_status gdn_random_model(const gdn_random_opts *o, gdn_err *err) {
    const gdn_random_shape *s;
    const gdn_status st = gdn_random_find(o->like, &s, err);
    return st != GDN_OK ? st : gdn_random_write(s, o, err);
}

gdn_status gdn_random_write(const gdn_random_shape *s, const gdn_random_opts *o,
                            gdn_err *err) {
    static const char *const files[] = {"config.json",         "generation_config.json",
                                        "tokenizer.json",      "tokenizer_config.json",
                                        "chat_template.jinja", "model.safetensors"};
    enum { N_FILE = sizeof files / sizeof *files };
    plan p;
    gdn_random_opts eff;
    bool made = false;
    char *path[N_FILE] = {NULL};
    int32_t written = 0;

    gdn_status st = plan_begin(&p, s, o, &eff, err);
    if (st == GDN_OK) st = make_folder(o->out, &made, err);
    if (st != GDN_OK) goto done;
    st = check_space(&p, o->out, err);
    for (int32_t i = 0; st == GDN_OK && i < N_FILE; i++) {
        if (asprintf(&path[i], "%s/%s", o->out, files[i]) < 0) {
            path[i] = NULL;
            st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory", o->out);
        }
    }
    for (; st == GDN_OK && written < N_FILE; written++)
        st = write_file(written, &p, &eff, path[written], err);

    if (st != GDN_OK) {
        for (int32_t i = 0; i < written; i++) unlink(path[i]);
        if (made) rmdir(o->out);
    }

done:
    for (int32_t i = 0; i < N_FILE; i++) free(path[i]);
    plan_free(&p);
    return st;
}
