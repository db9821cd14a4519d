/* test_random.c - random checkpoints: sizes, names, numbers, determinism, clean failures.
 *
 * Sizes of the released shapes were counted from the table of shapes by other means. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../src/base/half.h"
#include "../../src/format/config.h"
#include "../../src/format/genconfig.h"
#include "../../src/format/safetensors.h"
#include "../../src/tools/random_model.h"

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/gdn-test-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state) {
    char cmd[128];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

/* Three names at a time can be in use. */
static const char *in_dir(const char *name) {
    static char path[3][256];
    static int turn;
    turn = (turn + 1) % 3;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

/* Small relatives of the families; the vocabulary has room for the added tokens. */
static const gdn_random_shape dense = {
    "dense", GDN_ARCH_QWEN3_5, 64, 8, 4, 2, 2, 4, 96, 0, 0, 0, 0, 1100, 1000, true};
static const gdn_random_shape moe = {
    "moe", GDN_ARCH_QWEN3_5_MOE, 64, 4, 4, 2, 2, 4, 0, 8, 2, 32, 48, 1100, 1000, false};
static const gdn_random_shape next = {
    "next", GDN_ARCH_QWEN3_NEXT, 64, 4, 4, 2, 2, 4, 0, 8, 2, 32, 48, 1100, 1000, false};

static gdn_random_opts options(const char *out) {
    gdn_random_opts o;
    gdn_random_defaults(&o);
    o.out = out;
    return o;
}

static gdn_weights *make(const gdn_random_shape *s, const gdn_random_opts *o) {
    gdn_err err = {0};
    gdn_weights *w = NULL;
    if (gdn_random_write(s, o, &err) != GDN_OK) fail_msg("%s", err.text);
    if (gdn_weights_open(o->out, &w, &err) != GDN_OK) fail_msg("%s", err.text);
    return w;
}

/* The tensor, of this type and shape (rows 0: a vector of cols). */
static const gdn_st_tensor *want(const gdn_weights *w, const char *name,
                                 gdn_st_dtype dtype, int64_t rows, int64_t cols) {
    const gdn_st_tensor *t = gdn_weights_find(w, name);
    if (t == NULL) fail_msg("%s is missing", name);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->ndim, rows == 0 ? 1 : 2);
    assert_int_equal(t->shape[t->ndim - 1], cols);
    if (rows != 0) assert_int_equal(t->shape[0], rows);
    return t;
}

static float value(const gdn_st_tensor *t, int64_t i) {
    float f;
    uint16_t h;
    if (t->dtype == GDN_ST_F32) {
        memcpy(&f, t->data + 4 * i, 4);
        return f;
    }
    if (t->dtype == GDN_ST_F8_E4M3) return gdn_fp8_to_f32(t->data[i]);
    memcpy(&h, t->data + 2 * i, 2);
    return t->dtype == GDN_ST_BF16 ? gdn_bf16_to_f32(h) : gdn_f16_to_f32(h);
}

static int64_t elements(const gdn_st_tensor *t) {
    return (int64_t)t->bytes / gdn_st_dtype_size(t->dtype);
}

/* Mean near 0 and this deviation, no row like another. */
static void want_spread(const gdn_st_tensor *t, double scale, double deviation) {
    const int64_t n = elements(t);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = scale * value(t, i);
        sum += x, squares += x * x;
    }
    const double noise = 5 / sqrt((double)n);
    assert_true(fabs(sum / (double)n) < noise * deviation);
    assert_true(fabs(sqrt(squares / (double)n) / deviation - 1) < noise + 0.02);
    const int64_t rows = t->shape[0], row = (int64_t)t->bytes / rows;
    for (int64_t r = 1; r < rows; r++)
        assert_memory_not_equal(t->data, t->data + r * row, (size_t)row);
}

static void want_range(const gdn_st_tensor *t, double lo, double hi) {
    double least = INFINITY, most = -INFINITY;
    for (int64_t i = 0; i < elements(t); i++) {
        least = fmin(least, value(t, i));
        most = fmax(most, value(t, i));
    }
    assert_true(least >= lo * (lo < 0 ? 1.005 : 0.995) &&
                most <= hi * (hi < 0 ? 0.995 : 1.005));
    assert_true(most > least);
}

/* --- the shapes that are released -----------------------------------------------------
 */

static void sizes(void **state) {
    static const struct {
        const char *name;
        uint64_t all, no_mtp, four_layers, fp8;
    } s[] = {
        {"qwen3.5-0.8b", 1545696960, 1504791232, 715505440, 1030384768},
        {"qwen3.5-2b", 3885311680, 3763655360, 1596534560, 2461519296},
        {"qwen3.5-4b", 8652709376, 8411510272, 2405115968, 4980520256},
        {"qwen3.5-9b", 18394195456, 17907614208, 6284955712, 11273136640},
        {"qwen3.5-27b", 54641412608, 53792013824, 8979153248, 29945219968},
        {"qwen3.5-35b-a3b", 71010512512, 69321230976, 10452222016, 36561656576},
        {"qwen3-next-80b-a3b", 162649725440, 159348782592, 17720949888, 82023025792},
        {"qwen3.5-122b-a10b", 249270426112, 244223067648, 28196362880, 126249731584},
        {"qwen3.5-397b-a17b", 805883854208, 792692717952, 69834568320, 405213160320},
    };
    enum { N = sizeof s / sizeof *s };
    (void)state;
    for (int i = 0; i < N; i++) {
        uint64_t n = 0;
        gdn_err err = {0};
        gdn_random_opts o = options(NULL);
        assert_string_equal(gdn_random_like(i), s[i].name);
        o.like = s[i].name;
        assert_int_equal(gdn_random_size(&o, &n, &err), GDN_OK);
        assert_int_equal(n, s[i].all);
        o.mtp = false;
        assert_int_equal(gdn_random_size(&o, &n, &err), GDN_OK);
        assert_int_equal(n, s[i].no_mtp);
        o.mtp = true, o.n_layer = 4;
        assert_int_equal(gdn_random_size(&o, &n, &err), GDN_OK);
        assert_int_equal(n, s[i].four_layers);
        o.n_layer = 0, o.type = "fp8";
        assert_int_equal(gdn_random_size(&o, &n, &err), GDN_OK);
        assert_int_equal(n, s[i].fp8);
    }
    assert_null(gdn_random_like(N));
    assert_null(gdn_random_like(-1));
}

static void refusals(void **state) {
    uint64_t n;
    gdn_err err = {0};
    gdn_random_opts o = options(in_dir("m"));
    (void)state;
    o.like = "llama-7b";
    assert_int_equal(gdn_random_model(&o, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "llama-7b; there are qwen3.5-0.8b"));
    assert_non_null(strstr(err.text, "qwen3.5-397b-a17b"));
    o.like = NULL;
    assert_int_equal(gdn_random_size(&o, &n, &err), GDN_E_INVALID);
    o = options(in_dir("m"));
    for (int i = 0; i < 2; i++) {
        o.type = i == 0 ? "q8_0" : "q4_0";
        assert_int_equal(gdn_random_size(&o, &n, &err), GDN_E_UNSUPPORTED);
        assert_non_null(strstr(err.text, o.type));
    }
    o.type = "int8";
    assert_int_equal(gdn_random_size(&o, &n, &err), GDN_E_INVALID);
    o.type = NULL;
    assert_int_equal(gdn_random_size(&o, &n, &err), GDN_E_INVALID);
    static const int32_t layers[] = {-4, 1, 3, 5, 28};
    o = options(in_dir("m"));
    for (int i = 0; i < 5; i++) {
        o.n_layer = layers[i];
        assert_int_equal(gdn_random_model(&o, &err), GDN_E_INVALID);
        assert_non_null(strstr(err.text, "4, 8, ... 24"));
    }
    o.n_layer = 0;
    o.out = "";
    assert_int_equal(gdn_random_model(&o, &err), GDN_E_INVALID);
    o.out = NULL;
    assert_int_equal(gdn_random_model(&o, &err), GDN_E_INVALID);
    /* No disk holds the largest one in f32. */
    o = options(in_dir("m"));
    o.like = "qwen3.5-397b-a17b", o.type = "f32";
    assert_int_equal(gdn_random_model(&o, &err), GDN_E_IO);
    assert_non_null(strstr(err.text, "MiB left"));
    assert_int_not_equal(access(in_dir("m"), F_OK), 0);
}

static void folders(void **state) {
    gdn_err err = {0};
    gdn_random_opts o = options(in_dir("no/m"));
    (void)state;
    assert_int_equal(gdn_random_write(&dense, &o, &err), GDN_E_IO);
    assert_non_null(strstr(err.text, "/no/m: No such file"));
    /* Something in it: refused and left alone. */
    assert_int_equal(mkdir(in_dir("full"), 0700), 0);
    FILE *f = fopen(in_dir("full/x"), "w");
    assert_non_null(f);
    fclose(f);
    o.out = in_dir("full");
    assert_int_equal(gdn_random_write(&dense, &o, &err), GDN_E_IO);
    assert_non_null(strstr(err.text, "not empty"));
    assert_int_equal(access(in_dir("full/x"), F_OK), 0);
    assert_int_not_equal(access(in_dir("full/config.json"), F_OK), 0);
    o.out = in_dir("full/x");
    assert_int_equal(gdn_random_write(&dense, &o, &err), GDN_E_IO);
    /* An empty one is used. */
    assert_int_equal(mkdir(in_dir("empty"), 0700), 0);
    o.out = in_dir("empty");
    gdn_weights_close(make(&dense, &o));
}

typedef struct {
    uint64_t done, total, stop_at;
    int calls;
} seen;

static bool watch(uint64_t done, uint64_t total, void *arg) {
    seen *s = arg;
    assert_true(done > s->done && done <= total);
    s->done = done, s->total = total, s->calls++;
    return done < s->stop_at;
}

static void progress_and_stop(void **state) {
    gdn_err err = {0};
    seen s = {.stop_at = UINT64_MAX};
    gdn_random_opts o = options(in_dir("a"));
    (void)state;
    o.progress = watch, o.arg = &s;
    gdn_weights *w = make(&dense, &o);
    assert_true(s.calls >= 1);
    assert_int_equal(s.done, s.total);
    assert_int_equal(s.total, gdn_weights_total_bytes(w));
    gdn_weights_close(w);

    s = (seen){.stop_at = 1};
    o.out = in_dir("b");
    assert_int_equal(gdn_random_write(&dense, &o, &err), GDN_E_CANCELLED);
    assert_int_not_equal(access(in_dir("b"), F_OK), 0);
    /* In a folder that was there before, the folder stays and is empty again. */
    assert_int_equal(mkdir(in_dir("c"), 0700), 0);
    s = (seen){.stop_at = 1};
    o.out = in_dir("c");
    assert_int_equal(gdn_random_write(&dense, &o, &err), GDN_E_CANCELLED);
    assert_int_equal(rmdir(in_dir("c")), 0);
}

/* --- what is in a checkpoint
 * -------------------------------------------------------------- */

static void dense_model(void **state) {
    gdn_err err = {0};
    gdn_config c;
    gdn_genconfig g;
    gdn_random_opts o = options(in_dir("m"));
    (void)state;
    gdn_weights *w = make(&dense, &o);
    /* 2 + 6 * 14 linear + 2 * 11 full + 15 of the draft head */
    assert_int_equal(gdn_weights_count(w), 2 + 6 * 14 + 2 * 11 + 15);
#define L "model.language_model.layers."
    want_spread(
        want(w, "model.language_model.embed_tokens.weight", GDN_ST_BF16, 1100, 64), 1,
        1.0 / 8);
    want_range(want(w, "model.language_model.norm.weight", GDN_ST_BF16, 0, 64), -0.1,
               0.1);
    assert_null(gdn_weights_find(w, "lm_head.weight"));
    want_spread(want(w, L "0.linear_attn.in_proj_qkv.weight", GDN_ST_BF16, 1024, 64), 1,
                1.0 / 8);
    want(w, L "0.linear_attn.in_proj_z.weight", GDN_ST_BF16, 512, 64);
    want(w, L "0.linear_attn.in_proj_b.weight", GDN_ST_BF16, 4, 64);
    const gdn_st_tensor *a =
        want(w, L "0.linear_attn.in_proj_a.weight", GDN_ST_BF16, 4, 64);
    const gdn_st_tensor *dt = want(w, L "0.linear_attn.dt_bias", GDN_ST_BF16, 0, 4);
    const gdn_st_tensor *al = want(w, L "0.linear_attn.A_log", GDN_ST_F32, 0, 4);
    want_range(want(w, L "0.linear_attn.norm.weight", GDN_ST_F32, 0, 128), 0.9, 1.1);
    want_spread(want(w, L "0.linear_attn.out_proj.weight", GDN_ST_BF16, 64, 512), 1,
                1 / sqrt(512));
    const gdn_st_tensor *conv = gdn_weights_find(w, L "2.linear_attn.conv1d.weight");
    assert_non_null(conv);
    assert_true(conv->ndim == 3 && conv->shape[0] == 1024 && conv->shape[1] == 1 &&
                conv->shape[2] == 4);
    want_spread(conv, 1, 0.5);
    assert_null(gdn_weights_find(w, L "3.linear_attn.A_log"));
    want_spread(want(w, L "3.self_attn.q_proj.weight", GDN_ST_BF16, 2048, 64), 1,
                1.0 / 8);
    want(w, L "7.self_attn.k_proj.weight", GDN_ST_BF16, 512, 64);
    want(w, L "7.self_attn.v_proj.weight", GDN_ST_BF16, 512, 64);
    want_spread(want(w, L "7.self_attn.o_proj.weight", GDN_ST_BF16, 64, 1024), 1,
                1.0 / 32);
    want_range(want(w, L "7.self_attn.q_norm.weight", GDN_ST_BF16, 0, 256), -0.1, 0.1);
    want(w, L "7.self_attn.k_norm.weight", GDN_ST_BF16, 0, 256);
    want(w, L "7.input_layernorm.weight", GDN_ST_BF16, 0, 64);
    want(w, L "7.post_attention_layernorm.weight", GDN_ST_BF16, 0, 64);
    want(w, L "7.mlp.gate_proj.weight", GDN_ST_BF16, 96, 64);
    want(w, L "7.mlp.up_proj.weight", GDN_ST_BF16, 96, 64);
    want_spread(want(w, L "7.mlp.down_proj.weight", GDN_ST_BF16, 64, 96), 1,
                1 / sqrt(96));
    want(w, "mtp.fc.weight", GDN_ST_BF16, 64, 128);
    want(w, "mtp.pre_fc_norm_embedding.weight", GDN_ST_BF16, 0, 64);
    want(w, "mtp.pre_fc_norm_hidden.weight", GDN_ST_BF16, 0, 64);
    want(w, "mtp.norm.weight", GDN_ST_BF16, 0, 64);
    want(w, "mtp.layers.0.self_attn.q_proj.weight", GDN_ST_BF16, 2048, 64);
    want(w, "mtp.layers.0.mlp.down_proj.weight", GDN_ST_BF16, 64, 96);
    assert_memory_not_equal(gdn_weights_find(w, L "0.mlp.up_proj.weight")->data,
                            gdn_weights_find(w, L "1.mlp.up_proj.weight")->data, 1000);
    /* Decays for inputs of mean square one: a row of in_proj_a gives |a| < 1 nearly
     * always. */
    (void)a;
    for (int h = 0; h < 4; h++)
        for (int x = -9; x <= 9; x++) {
            const double decay =
                exp(-exp(value(al, h)) * log1p(exp(0.1 * x + value(dt, h))));
            assert_true(decay > 0.9 && decay < 1);
        }
    gdn_weights_close(w);

    if (gdn_config_read(o.out, &c, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_true(c.arch == GDN_ARCH_QWEN3_5 && c.d == 64 && c.n_layer == 8 &&
                c.n_full == 2);
    assert_true(c.vocab == 1100 && c.hq == 4 && c.hkv == 2 && c.head_dim == 256 &&
                c.rot == 64);
    assert_true(c.hk == 2 && c.hv == 4 && c.dk == 128 && c.ffn == 96 && c.tie && c.mrope);
    assert_true(c.n_mtp == 1 && !c.has_vision && c.image_token == 1012 &&
                c.eos[0] == 1000);
    assert_int_equal(gdn_genconfig_read(o.out, &g, &err), GDN_OK);
    assert_true(g.n_eos == 2 && g.eos[0] == 1002 && g.eos[1] == 1000);
#undef L
}

static void expert_models(void **state) {
    gdn_err err = {0};
    gdn_config c;
    gdn_random_opts o = options(in_dir("moe"));
    (void)state;
    gdn_weights *w = make(&moe, &o);
#define L "model.language_model.layers.1.mlp."
    want(w, "lm_head.weight", GDN_ST_BF16, 1100, 64);
    want(w, L "gate.weight", GDN_ST_BF16, 8, 64);
    want(w, L "shared_expert_gate.weight", GDN_ST_BF16, 1, 64);
    want(w, L "shared_expert.up_proj.weight", GDN_ST_BF16, 48, 64);
    const gdn_st_tensor *up = gdn_weights_find(w, L "experts.gate_up_proj");
    const gdn_st_tensor *down = gdn_weights_find(w, "mtp.layers.0.mlp.experts.down_proj");
    assert_non_null(up);
    assert_non_null(down);
    assert_true(up->ndim == 3 && up->shape[0] == 8 && up->shape[1] == 64 &&
                up->shape[2] == 64);
    assert_true(down->shape[0] == 8 && down->shape[1] == 64 && down->shape[2] == 32);
    want_spread(down, 1, 1 / sqrt(32));
    gdn_weights_close(w);
    assert_int_equal(gdn_config_read(o.out, &c, &err), GDN_OK);
    assert_true(c.n_expert == 8 && c.top_k == 2 && c.moe_ffn == 32 && c.shared_ffn == 48);
    assert_false(c.tie);
#undef L

    o = options(in_dir("next"));
    o.mtp = false;
    w = make(&next, &o);
#define L "model.layers.2."
    want(w, L "linear_attn.in_proj_qkvz.weight", GDN_ST_BF16, 1536, 64);
    want(w, L "linear_attn.in_proj_ba.weight", GDN_ST_BF16, 8, 64);
    want(w, L "linear_attn.A_log", GDN_ST_BF16, 0, 4);
    want(w, L "mlp.experts.7.gate_proj.weight", GDN_ST_BF16, 32, 64);
    want(w, L "mlp.experts.7.down_proj.weight", GDN_ST_BF16, 64, 32);
    assert_null(gdn_weights_find(w, L "mlp.experts.8.up_proj.weight"));
    assert_null(gdn_weights_find(w, "mtp.fc.weight"));
    gdn_weights_close(w);
    assert_int_equal(gdn_config_read(o.out, &c, &err), GDN_OK);
    assert_true(c.arch == GDN_ARCH_QWEN3_NEXT && c.eos[0] == 1002 && !c.mrope &&
                c.rot == 64);
#undef L
}

static void types(void **state) {
    static const struct {
        const char *type;
        gdn_st_dtype dtype;
        gdn_float_type config;
    } t[] = {{"f32", GDN_ST_F32, GDN_FLOAT_F32}, {"f16", GDN_ST_F16, GDN_FLOAT_F16}};
    gdn_err err = {0};
    gdn_config c;
    (void)state;
    for (int i = 0; i < 2; i++) {
        gdn_random_opts o = options(in_dir(t[i].type));
        o.type = t[i].type;
        gdn_weights *w = make(&moe, &o);
        want_spread(want(w, "lm_head.weight", t[i].dtype, 1100, 64), 1, 1.0 / 8);
        want_range(want(w, "model.language_model.layers.0.linear_attn.dt_bias",
                        t[i].dtype, 0, 4),
                   -7, -4);
        gdn_weights_close(w);
        assert_int_equal(gdn_config_read(o.out, &c, &err), GDN_OK);
        assert_int_equal(c.dtype, t[i].config);
    }
    gdn_random_opts o = options(in_dir("fp8"));
    o.type = "fp8";
    gdn_weights *w = make(&moe, &o);
#define L "model.language_model.layers.3."
    const gdn_st_tensor *q =
        want(w, L "self_attn.q_proj.weight", GDN_ST_F8_E4M3, 2048, 64);
    const gdn_st_tensor *s =
        want(w, L "self_attn.q_proj.weight_scale_inv", GDN_ST_BF16, 16, 1);
    const double scale = sqrt(3.0 / 64) / 448;
    want_spread(q, scale, 1.0 / 8);
    want_range(s, 0.75 * scale, 1.25 * scale);
    want(w, L "mlp.experts.7.up_proj.weight", GDN_ST_F8_E4M3, 32, 64);
    want(w, L "mlp.experts.7.up_proj.weight_scale_inv", GDN_ST_BF16, 1, 1);
    want(w, "model.language_model.layers.0.linear_attn.in_proj_qkv.weight_scale_inv",
         GDN_ST_BF16, 8, 1);
    want(w, "model.language_model.layers.0.linear_attn.in_proj_a.weight", GDN_ST_BF16, 4,
         64);
    want(w, L "mlp.gate.weight", GDN_ST_BF16, 8, 64);
    want(w, "mtp.fc.weight", GDN_ST_BF16, 64, 128);
    want(w, "lm_head.weight", GDN_ST_BF16, 1100, 64);
    gdn_weights_close(w);
    assert_int_equal(gdn_config_read(o.out, &c, &err), GDN_OK);
    assert_true(c.quant == GDN_QUANT_FP8 && c.quant_rows == 128 && c.quant_cols == 128);
#undef L
}

static bool same(const gdn_weights *a, const gdn_weights *b, const char *name) {
    const gdn_st_tensor *x = gdn_weights_find(a, name), *y = gdn_weights_find(b, name);
    assert_non_null(x);
    assert_non_null(y);
    return x->bytes == y->bytes && memcmp(x->data, y->data, (size_t)x->bytes) == 0;
}

static void repeatable(void **state) {
    gdn_random_opts a = options(in_dir("a")), b = options(in_dir("b"));
    char cmd[256];
    (void)state;
    gdn_weights *wa = make(&dense, &a), *wb = make(&dense, &b);
    snprintf(cmd, sizeof cmd, "diff -r %s/a %s/b", dir, dir);
    assert_int_equal(system(cmd), 0);
    gdn_weights_close(wb);
    /* Cut to its first layers it is the same model, with another seed it is not. */
    b.out = in_dir("c");
    b.n_layer = 4;
    wb = make(&dense, &b);
    assert_null(gdn_weights_find(wb, "model.language_model.layers.4.mlp.up_proj.weight"));
    assert_true(same(wa, wb, "model.language_model.layers.3.mlp.up_proj.weight"));
    assert_true(same(wa, wb, "model.language_model.embed_tokens.weight"));
    gdn_weights_close(wb);
    b.out = in_dir("d");
    b.seed = 2;
    wb = make(&dense, &b);
    assert_false(same(wa, wb, "model.language_model.layers.3.mlp.up_proj.weight"));
    gdn_weights_close(wb);
    gdn_weights_close(wa);
}

/* --- the tokenizer
 * ---------------------------------------------------------------------------- */

static void check_tokenizer(const gdn_random_shape *s, int n_added, int think) {
    gdn_err err = {0};
    json_error_t e;
    if (gdn_random_write_tokenizer(s, in_dir("t.json"), &err) != GDN_OK)
        fail_msg("%s", err.text);
    json_t *j = json_load_file(in_dir("t.json"), JSON_REJECT_DUPLICATES, &e), *v;
    if (j == NULL) fail_msg("line %d: %s", e.line, e.text);
    const json_t *model = json_object_get(j, "model");
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");
    const json_t *added = json_object_get(j, "added_tokens");
    assert_int_equal(json_object_size(vocab), s->n_base);
    assert_int_equal(json_array_size(merges), s->n_base - 256);
    char *used = calloc((size_t)s->n_base, 1);
    assert_non_null(used);
    const char *text;
    json_object_foreach(vocab, text, v) {
        const json_int_t id = json_integer_value(v);
        assert_true(id >= 0 && id < s->n_base && !used[id]);
        used[id] = 1;
    }
    free(used);
    /* Merge i joins two tokens of smaller id to token 256 + i. */
    for (size_t i = 0; i < json_array_size(merges); i++) {
        char both[32];
        const json_t *m = json_array_get(merges, i);
        const char *l = json_string_value(json_array_get(m, 0));
        const char *r = json_string_value(json_array_get(m, 1));
        const json_int_t id = 256 + (json_int_t)i;
        snprintf(both, sizeof both, "%s%s", l, r);
        assert_int_equal(json_integer_value(json_object_get(vocab, both)), id);
        assert_non_null(json_object_get(vocab, l));
        assert_non_null(json_object_get(vocab, r));
        assert_true(json_integer_value(json_object_get(vocab, l)) < id);
        assert_true(json_integer_value(json_object_get(vocab, r)) < id);
    }
    assert_int_equal(json_integer_value(json_object_get(vocab, "!")), 0);
    assert_int_equal(json_integer_value(json_object_get(vocab, "\xc4\xa0")),
                     220); /* space */
    assert_int_equal(json_array_size(added), n_added);
    for (int i = 0; i < n_added; i++)
        assert_int_equal(
            json_integer_value(json_object_get(json_array_get(added, (size_t)i), "id")),
            s->n_base + i);
#define ADDED(i)                                                                         \
    json_string_value(                                                                   \
        json_object_get(json_array_get(added, (size_t)((i)-s->n_base)), "content"))
    assert_string_equal(ADDED(s->n_base), "<|endoftext|>");
    assert_string_equal(ADDED(s->n_base + 2), "<|im_end|>");
    assert_string_equal(ADDED(think), "<think>");
    json_decref(j);
}

static void tokenizers(void **state) {
    gdn_random_shape s = dense;
    (void)state;
    s.n_base = 248044;
    check_tokenizer(&s, 33, 248068);
    s = next;
    s.n_base = 151643;
    check_tokenizer(&s, 26, 151667);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        TEST(refusals),
        TEST(folders),
        TEST(progress_and_stop),
        TEST(dense_model),
        TEST(expert_models),
        TEST(types),
        TEST(repeatable),
        TEST(tokenizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
