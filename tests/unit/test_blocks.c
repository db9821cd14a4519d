/* test_blocks.c - page sizes: published values, the definition searched for, and what is refused.
 *
 * tests/golden/plan/table.tsv has the arithmetic of released models as others computed it; its
 * columns end in block64, page64 and waste64: with blocks of a multiple of 64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/tools.h>

#include "../../src/backend/backend.h"
#include "../../src/backend/constraints.h"
#include "../../src/engine/blocks.h"

static void must(gdn_status st, const gdn_err *err) {
    if (st != GDN_OK) fail_msg("%s", err->text);
}

static void refused(gdn_status st, gdn_status want, const gdn_err *err, const char *word) {
    assert_int_equal(st, want);
    if (strstr(err->text, word) == NULL) fail_msg("no \"%s\" in: %s", word, err->text);
}

/* Qwen3.5-9B on a device with both multiples. */
static gdn_block_want sample(int32_t kv, int32_t gdn) {
    return (gdn_block_want){.hkv = 4, .head_dim = 256, .kv_bytes = 2, .hk = 16, .hv = 32,
                            .dk = 128, .dv = 128, .conv_width = 4, .conv_bytes = 2,
                            .state_bytes = 4, .kv_multiple = kv, .gdn_multiple = gdn};
}

/* --- the table ----------------------------------------------------------------------- */

typedef struct {
    char shapes[64], state_type[8], kv[8];
    int hk, hv, hkv, tp, drafts;
    long long conv, state, m, a1, block16, block64, page64;
    double waste16, waste64;
} row;

static int read_table(row *out, int max) {
    char line[512];
    FILE *f = fopen("tests/golden/plan/table.tsv", "re");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    int n = 0;
    for (; fgets(line, sizeof line, f) != NULL; n++) {
        assert_true(n < max);
        row *r = &out[n];
        const int got = sscanf(
            line, "%63s %7s %d %d %d %d %d %7s %lld %lld %lld %lld %lld %lf %lld %lld %lf",
            r->shapes, r->state_type, &r->hk, &r->hv, &r->hkv, &r->tp, &r->drafts, r->kv, &r->conv,
            &r->state, &r->m, &r->a1, &r->block16, &r->waste16, &r->block64, &r->page64,
            &r->waste64);
        if (got != 17) fail_msg("table.tsv row %d: %d fields", n + 1, got);
    }
    fclose(f);
    return n;
}

static int type_bytes(const char *name) {
    return strcmp(name, "f32") == 0 ? 4 : strcmp(name, "fp8") == 0 ? 1 : 2;
}

static double percent(uint64_t padding, uint64_t m) { return 100.0 * (double)padding / (double)m; }

/* By the rule, with the multiples 16 and 1, then 16 and 64. */
static void test_table(void **state) {
    (void)state;
    row t[64];
    const int n = read_table(t, 64);
    assert_int_equal(n, 42);
    int exact = 0;
    for (int i = 0; i < n; i++) {
        const row *r = &t[i];
        gdn_block_want w = {.hkv = r->hkv, .head_dim = 256, .kv_bytes = type_bytes(r->kv),
                            .hk = r->hk, .hv = r->hv, .dk = 128, .dv = 128, .conv_width = 4,
                            .conv_bytes = 2, .state_bytes = type_bytes(r->state_type),
                            .n_draft = r->drafts, .kv_multiple = 16, .gdn_multiple = 1,
                            .mode = GDN_BLOCKS_ALIGN};
        gdn_block_plan p;
        gdn_err err;
        must(gdn_shard_heads(&w, r->tp, &err), &err);
        must(gdn_plan_blocks(&w, &p, &err), &err);
        assert_int_equal(p.conv_bytes, r->conv);
        assert_int_equal(p.state_bytes, r->state);
        assert_int_equal(p.conv_bytes + p.state_bytes, r->m);
        assert_int_equal(p.token_bytes, r->a1);
        assert_int_equal(p.block_size, r->block16);
        assert_int_equal(p.page_bytes, r->block16 * r->a1);
        assert_int_equal(p.padding_bytes, r->block16 * r->a1 - r->m);
        assert_true(percent(p.padding_bytes, (uint64_t)r->m) < r->waste16 + 0.005001);
        assert_true(percent(p.padding_bytes, (uint64_t)r->m) > r->waste16 - 0.005001);
        exact += p.padding_bytes == 0;
        w.gdn_multiple = 64;
        must(gdn_plan_blocks(&w, &p, &err), &err);
        assert_int_equal(p.align, 64);
        assert_int_equal(p.block_size, r->block64);
        assert_int_equal(p.mamba_block_size, r->block64);
        assert_int_equal(p.page_bytes, r->page64);
        assert_int_equal(p.padding_bytes, r->page64 - r->m); /* set where block16 fits exactly too */
        assert_true(percent(p.padding_bytes, (uint64_t)r->m) < r->waste64 + 0.005001);
        assert_true(percent(p.padding_bytes, (uint64_t)r->m) > r->waste64 - 0.005001);
    }
    assert_int_equal(exact, 10); /* rows whose page at 16 is a state exactly */
}

/* By gdn_plan(), for every shape that a row names. */
static void test_table_of_shapes(void **state) {
    (void)state;
    row t[64];
    const int n = read_table(t, 64);
    int plans = 0;
    for (int i = 0; i < n; i++) {
        row *r = &t[i];
        char *rest = NULL;
        for (char *s = strtok_r(r->shapes, ",", &rest); s != NULL; s = strtok_r(NULL, ",", &rest)) {
            for (int xpu = 0; xpu < 2; xpu++, plans++) {
                gdn_plan_opts o;
                gdn_plan_result p;
                gdn_err err;
                gdn_plan_defaults(&o);
                o.like = s;
                o.device = xpu ? "xpu" : "cpu";
                o.tp = r->tp;
                o.n_draft = r->drafts;
                o.kv_type = r->kv;
                o.state_type = r->state_type;
                o.mode = "align";
                must(gdn_plan(&o, &p, &err), &err);
                assert_int_equal(p.block_size, xpu ? r->block64 : r->block16);
                assert_int_equal(p.mamba_block_size, p.block_size);
                assert_int_equal(p.kv_bytes_per_token, r->a1);
                assert_int_equal(p.conv_bytes, r->conv);
                assert_int_equal(p.state_bytes, r->state);
                assert_int_equal(p.page_bytes, xpu ? r->page64 : r->block16 * r->a1);
                const double waste = 100 * p.waste - (xpu ? r->waste64 : r->waste16);
                assert_true(waste < 0.005001 && waste > -0.005001);
            }
        }
    }
    assert_int_equal(plans, 2 * 60);
}

/* --- the definition -------------------------------------------------------------------- */

/* The smallest number that every multiple given divides and whose page holds a state. */
static int64_t search(int64_t kv, int64_t gdn, int64_t base, uint64_t a1, uint64_t m) {
    for (int64_t b = kv;; b += kv)
        if (b % gdn == 0 && b % base == 0 && (uint64_t)b * a1 >= m) return b;
}

static uint64_t seed = 1;
static int32_t draw(int32_t lo, int32_t hi) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return lo + (int32_t)((seed >> 33) % (uint64_t)(hi - lo + 1));
}

static void check_against_search(const gdn_block_want *w) {
    gdn_block_plan p;
    gdn_err err;
    const uint64_t a1 = 2u * (uint64_t)(w->hkv * w->head_dim * w->kv_bytes);
    const uint64_t C = 2u * (uint64_t)(w->hk * w->dk) + (uint64_t)(w->hv * w->dv);
    uint64_t conv = (uint64_t)(w->conv_width - 1 + w->n_draft) * C * (uint64_t)w->conv_bytes;
    while (conv % (uint64_t)w->state_bytes != 0) conv++;
    const uint64_t m = conv + (uint64_t)(w->hv * w->dv) * (uint64_t)(w->dk * w->state_bytes);
    const int64_t want = search(w->kv_multiple, w->gdn_multiple,
                                w->mode == GDN_BLOCKS_ALL ? w->base : 1, a1, m);
    must(gdn_plan_blocks(w, &p, &err), &err);
    assert_int_equal(p.block_size, want);
    assert_int_equal(p.token_bytes, a1);
    assert_int_equal(p.conv_bytes + p.state_bytes, m);
    assert_int_equal(p.conv_bytes % (uint64_t)w->state_bytes, 0);
    assert_int_equal(p.page_bytes, (uint64_t)want * a1);
    assert_int_equal(p.padding_bytes, p.page_bytes - m);
    assert_int_equal(p.mamba_block_size, w->mode == GDN_BLOCKS_NONE ? 0 : want);
    assert_int_equal(want % p.align, 0);
}

static void test_random(void **state) {
    (void)state;
    static const int32_t bytes[] = {1, 2, 4}, kv[] = {1, 2, 8, 16, 24, 32, 48, 64},
                         gdn[] = {1, 16, 24, 64, 96, 100}, base[] = {1, 24, 64, 256, 300};
    for (int i = 0; i < 4000; i++) {
        const gdn_block_want w = {
            .hkv = draw(1, 8), .head_dim = 8 * draw(1, 32), .kv_bytes = bytes[draw(0, 2)],
            .hk = draw(1, 16), .hv = draw(1, 32), .dk = draw(1, 160), .dv = draw(1, 160),
            .conv_width = draw(2, 6), .conv_bytes = bytes[draw(1, 2)],
            .state_bytes = bytes[draw(1, 2)], .n_draft = draw(0, 4),
            .kv_multiple = kv[draw(0, 7)], .gdn_multiple = gdn[draw(0, 5)],
            .mode = (gdn_block_mode)draw(0, 2), .base = base[draw(0, 4)]};
        check_against_search(&w);
    }
}

/* All released heads, shards, drafts and types. */
static void test_released(void **state) {
    (void)state;
    static const int32_t heads[][3] = {{16, 32, 2}, {16, 16, 2}, {16, 32, 4}, {16, 48, 4}, {16, 64, 2}};
    static const int32_t tp[] = {1, 2, 4, 8}, drafts[] = {0, 1, 3}, kv[] = {1, 2, 4},
                         st[] = {2, 4}, multiple[] = {1, 64};
    for (int i = 0; i < 5 * 4 * 3 * 3 * 2 * 2 * 3; i++) {
        int k = i;
        gdn_block_want w = {.head_dim = 256, .dk = 128, .dv = 128, .conv_width = 4,
                            .conv_bytes = 2, .kv_multiple = 16, .base = 64};
        w.mode = (gdn_block_mode)(k % 3), k /= 3;
        w.gdn_multiple = multiple[k % 2], k /= 2;
        w.state_bytes = st[k % 2], k /= 2;
        w.kv_bytes = kv[k % 3], k /= 3;
        w.n_draft = drafts[k % 3], k /= 3;
        const int32_t shards = tp[k % 4];
        const int32_t *h = heads[k / 4];
        w.hk = h[0] / shards, w.hv = h[1] / shards;
        w.hkv = h[2] > shards ? h[2] / shards : 1;
        gdn_block_want whole = w;
        gdn_err err;
        whole.hk = h[0], whole.hv = h[1], whole.hkv = h[2];
        must(gdn_shard_heads(&whole, shards, &err), &err);
        assert_memory_equal(&whole, &w, sizeof w);
        check_against_search(&w);
    }
}

/* Worked out by hand. */
static void test_multiples(void **state) {
    (void)state;
    static const struct {
        int32_t kv, gdn, base, align, block;
        gdn_block_mode mode;
    } c[] = {
        {16, 1, 0, 16, 528, GDN_BLOCKS_NONE},     {16, 64, 0, 64, 576, GDN_BLOCKS_NONE},
        {16, 24, 0, 48, 528, GDN_BLOCKS_NONE},    {24, 16, 0, 48, 528, GDN_BLOCKS_ALIGN},
        {16, 24, 64, 192, 576, GDN_BLOCKS_ALL},   {16, 1, 300, 1200, 1200, GDN_BLOCKS_ALL},
        {16, 64, 300, 64, 576, GDN_BLOCKS_ALIGN}, {16, 64, 1024, 1024, 1024, GDN_BLOCKS_ALL},
        {7, 11, 1, 77, 539, GDN_BLOCKS_ALL},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        gdn_block_want w = sample(c[i].kv, c[i].gdn);
        gdn_block_plan p;
        gdn_err err;
        w.mode = c[i].mode;
        w.base = c[i].base;
        must(gdn_plan_blocks(&w, &p, &err), &err);
        assert_int_equal(p.align, c[i].align);
        assert_int_equal(p.block_size, c[i].block);
        assert_int_equal(p.mamba_block_size, c[i].mode == GDN_BLOCKS_NONE ? 0 : c[i].block);
    }
}

/* --- one kind of layer alone ------------------------------------------------------------ */

static void test_one_kind(void **state) {
    (void)state;
    gdn_block_plan p;
    gdn_err err;
    gdn_block_want w = sample(16, 64);
    w.hv = w.hk = 0; /* nothing is asked for by layers that are not there */
    w.mode = GDN_BLOCKS_ALL;
    w.base = 1000;
    must(gdn_plan_blocks(&w, &p, &err), &err);
    assert_int_equal(p.block_size, 16);
    assert_int_equal(p.page_bytes, 16 * 4096);
    assert_int_equal(p.padding_bytes + p.conv_bytes + p.state_bytes, 0);
    assert_int_equal(p.mamba_block_size, 0);
    w.block_size = 48;
    must(gdn_plan_blocks(&w, &p, &err), &err);
    assert_int_equal(p.block_size, 48);

    w = sample(16, 1);
    w.hkv = 0;
    w.mode = GDN_BLOCKS_ALIGN;
    must(gdn_plan_blocks(&w, &p, &err), &err);
    assert_int_equal(p.token_bytes, 0);
    assert_int_equal(p.page_bytes, 49152 + 2097152);
    assert_int_equal(p.padding_bytes, 0);
    assert_int_equal(p.mamba_block_size, 16);
    /* f32 convolutions of an odd number of bf16 values: the next page keeps their boundary. */
    w = (gdn_block_want){.hk = 1, .hv = 1, .dk = 1, .dv = 1, .conv_width = 2, .conv_bytes = 4,
                         .state_bytes = 2, .kv_multiple = 16, .gdn_multiple = 1};
    must(gdn_plan_blocks(&w, &p, &err), &err);
    assert_int_equal(p.conv_bytes + p.state_bytes, 14);
    assert_int_equal(p.page_bytes, 16);
    assert_int_equal(p.padding_bytes, 2);
}

/* --- what is asked for ------------------------------------------------------------------ */

/* Around the size of the rule: every size is either honoured or refused with the smallest. */
static void explicit_sizes(gdn_block_want w, int32_t align, int32_t least) {
    char smallest[64];
    snprintf(smallest, sizeof smallest, "the smallest that works is %d", least);
    for (int32_t b = 1; b <= least + 3 * align; b++) {
        gdn_block_plan p;
        gdn_err err;
        w.block_size = b;
        const gdn_status st = gdn_plan_blocks(&w, &p, &err);
        if (b % align == 0 && b >= least) {
            must(st, &err);
            assert_int_equal(p.block_size, b);
            assert_int_equal(p.page_bytes, (uint64_t)b * p.token_bytes);
            const uint64_t m = p.conv_bytes + p.state_bytes;
            assert_int_equal(p.padding_bytes, m > 0 ? p.page_bytes - m : 0);
            assert_int_equal(p.mamba_block_size, m == 0 || w.mode == GDN_BLOCKS_NONE ? 0 : b);
        } else {
            char given[64];
            snprintf(given, sizeof given, "block size %d:", b);
            refused(st, GDN_E_INVALID, &err, smallest);
            refused(st, GDN_E_INVALID, &err, given);
        }
    }
}

static void test_explicit(void **state) {
    (void)state;
    gdn_block_plan p;
    gdn_err err;
    gdn_block_want w = sample(16, 1);
    explicit_sizes(w, 16, 528);
    w.gdn_multiple = 64;
    w.mode = GDN_BLOCKS_ALIGN;
    explicit_sizes(w, 64, 576);
    w.gdn_multiple = 24;
    w.n_draft = 1; /* the page at 528 is a state exactly */
    explicit_sizes(w, 48, 528);
    w.mode = GDN_BLOCKS_ALL;
    w.base = 256;
    explicit_sizes(w, 768, 768);
    w.hv = 0;
    explicit_sizes(w, 16, 16);
    w.block_size = -16;
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_INVALID, &err, "-16");
    w.block_size = (1 << 24) + 16;
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_INVALID, &err, "at most 16777216");
    w.block_size = 1 << 24;
    must(gdn_plan_blocks(&w, &p, &err), &err);
    assert_int_equal(p.page_bytes, UINT64_C(4096) << 24);
}

static void test_overflow(void **state) {
    (void)state;
    const int32_t big = INT32_MAX;
    gdn_block_plan p = {.block_size = 77};
    gdn_err err;
    gdn_block_want w = sample(16, 64);
    w.hkv = big, w.head_dim = big; /* 2 x 2^62 x 2 wraps to a few bytes */
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_UNSUPPORTED, &err, "too many");
    w = sample(16, 64);
    w.hv = big, w.dk = big, w.dv = big;
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_UNSUPPORTED, &err, "too many");
    w = sample(16, 64);
    w.hk = big, w.dk = big, w.conv_width = big, w.n_draft = big;
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_UNSUPPORTED, &err, "too many");
    w = sample(16, 64);
    w.hkv = 1, w.head_dim = 1, w.kv_bytes = 1; /* 2 bytes a token and 2^31 of state */
    w.hv = 1 << 17, w.hk = 1;
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_UNSUPPORTED, &err, "needs a block of");
    w = sample(16777213, 16777199);
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_UNSUPPORTED, &err, "none is as short");
    w = sample(big, big - 1);
    w.mode = GDN_BLOCKS_ALL, w.base = big - 2; /* their lcm is near 2^93 */
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_UNSUPPORTED, &err, "none is as short");
    w = sample(1721153575, 1365234307);
    w.mode = GDN_BLOCKS_ALL, w.base = 1061310364; /* the lcm is 2878540 modulo 2^64 */
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_UNSUPPORTED, &err, "none is as short");
    w = sample(16, 1);
    w.hkv = 1 << 28, w.head_dim = 256, w.block_size = 1 << 24; /* 2^62 of page */
    w.kv_bytes = 1;
    must(gdn_plan_blocks(&w, &p, &err), &err);
    assert_int_equal(p.page_bytes, UINT64_C(1) << 61);

    static const size_t field[] = {
        offsetof(gdn_block_want, hkv), offsetof(gdn_block_want, head_dim),
        offsetof(gdn_block_want, kv_bytes), offsetof(gdn_block_want, hk),
        offsetof(gdn_block_want, hv), offsetof(gdn_block_want, dk), offsetof(gdn_block_want, dv),
        offsetof(gdn_block_want, conv_width), offsetof(gdn_block_want, conv_bytes),
        offsetof(gdn_block_want, state_bytes), offsetof(gdn_block_want, n_draft),
        offsetof(gdn_block_want, kv_multiple), offsetof(gdn_block_want, gdn_multiple),
        offsetof(gdn_block_want, block_size), offsetof(gdn_block_want, base)};
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        const int32_t minus = -1;
        w = sample(16, 64);
        w.mode = GDN_BLOCKS_ALL, w.base = 64;
        memcpy((char *)&w + field[i], &minus, sizeof minus);
        p.block_size = 77;
        refused(gdn_plan_blocks(&w, &p, &err), GDN_E_INVALID, &err, "-1");
        assert_int_equal(p.block_size, 77);
    }
    w = sample(16, 64);
    w.mode = GDN_BLOCKS_ALL; /* no base */
    refused(gdn_plan_blocks(&w, &p, &err), GDN_E_INVALID, &err, "base is 0");
}

static void test_shards(void **state) {
    (void)state;
    gdn_err err;
    gdn_block_want w = sample(16, 64);
    refused(gdn_shard_heads(&w, 0, &err), GDN_E_INVALID, &err, "0 shards");
    refused(gdn_shard_heads(&w, 3, &err), GDN_E_INVALID, &err, "16 key and 32 value heads");
    refused(gdn_shard_heads(&w, 32, &err), GDN_E_INVALID, &err, "among 32 shards");
    assert_int_equal(w.hk, 16);
    w.hk = 12, w.hv = 24, w.hkv = 4;
    refused(gdn_shard_heads(&w, 3, &err), GDN_E_INVALID, &err, "4 key and value heads");
    refused(gdn_shard_heads(&w, 6, &err), GDN_E_INVALID, &err, "4 key and value heads");
    must(gdn_shard_heads(&w, 2, &err), &err);
    assert_int_equal(w.hk, 6);
    assert_int_equal(w.hv, 12);
    assert_int_equal(w.hkv, 2);
    must(gdn_shard_heads(&w, 6, &err), &err); /* repeated three times */
    assert_int_equal(w.hkv, 1);
}

/* --- devices ---------------------------------------------------------------------------- */

static void test_constraints(void **state) {
    (void)state;
    for (int i = 0; i < gdn_n_backend; i++) {
        const gdn_backend *b = gdn_backends[i];
        const gdn_device_constraints *c = gdn_constraints_find(b->name);
        assert_non_null(c);
        assert_string_equal(c->name, b->name);
        assert_int_equal(c->kv_block_multiple, b->kv_block_multiple);
        assert_int_equal(c->gdn_block_multiple, b->gdn_block_multiple);
    }
    assert_int_equal(gdn_constraints_find("xpu:1")->gdn_block_multiple, 64);
    assert_int_equal(gdn_constraints_find("cuda")->gdn_block_multiple, 1);
    assert_null(gdn_constraints_find("xp"));
    assert_null(gdn_constraints_find("xpu1"));
    assert_null(gdn_constraints_find(""));
}

/* --- gdn_plan ----------------------------------------------------------------------------- */

static gdn_plan_opts options(const char *like, const char *device) {
    gdn_plan_opts o;
    gdn_plan_defaults(&o);
    o.like = like;
    o.device = device;
    return o;
}

/* The bytes of weights are those that a model of that shape is written with. */
static void test_weights(void **state) {
    (void)state;
    static const char *const type[] = {"bf16", "f32", "fp8"};
    for (int32_t i = 0; gdn_random_like(i) != NULL; i++)
        for (int k = 0; k < 6; k++) {
            gdn_random_opts r;
            gdn_plan_opts o = options(gdn_random_like(i), "cpu");
            gdn_plan_result p;
            uint64_t bytes;
            gdn_err err;
            gdn_random_defaults(&r);
            r.like = o.like;
            r.type = o.type = type[k / 2];
            r.mtp = o.mtp = k % 2 == 0;
            must(gdn_random_size(&r, &bytes, &err), &err);
            must(gdn_plan(&o, &p, &err), &err);
            assert_string_equal(p.weight_type, r.type);
            assert_int_equal(p.has_mtp, r.mtp);
            assert_int_equal(p.weight_bytes, bytes);
        }
    /* Two shards hold the whole and what both have: norms and routers. */
    gdn_plan_opts o = options("qwen3.5-9b", "cpu");
    gdn_plan_result one, two;
    gdn_err err;
    must(gdn_plan(&o, &one, &err), &err);
    o.tp = 2;
    must(gdn_plan(&o, &two, &err), &err);
    const uint64_t norms = 2 * (33 * 2 * 4096 + 9 * 2 * 256 + 4 * 4096) + 24 * 4 * 128;
    assert_int_equal(2 * two.weight_bytes, one.weight_bytes + norms);
}

/* Pages of a sequence and of a memory, worked out by hand: 9B on xpu has blocks of 576 tokens and
 * pages of 2359296 bytes; 9 layers with keys and values make 9 tensors and 3 groups of states. */
static void test_fit(void **state) {
    (void)state;
    gdn_plan_result p;
    gdn_err err;
    gdn_plan_opts o = options("qwen3.5-9b", "xpu:0");
    o.n_ctx = 5761;
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.n_attn, 9);
    assert_int_equal(p.n_storage, 9);
    assert_int_equal(p.n_group, 3);
    assert_int_equal(p.pool_page_bytes, 9 * 2359296);
    assert_int_equal(p.kv_pages, 11);
    assert_int_equal(p.state_pages, 3);
    assert_int_equal(p.sequence_bytes, 14 * 9 * UINT64_C(2359296));
    assert_int_equal(p.mamba_block_size, 0);
    assert_int_equal(p.n_page + p.n_seq + p.max_tokens, 0);

    const uint64_t page = p.pool_page_bytes;
    o.memory_bytes = p.weight_bytes + 43 * page; /* one page stays empty: 42 for sequences */
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.cache_bytes, 43 * page);
    assert_int_equal(p.n_page, 42);
    assert_int_equal(p.n_seq, 3);
    assert_int_equal(p.max_tokens, 39 * 576);
    o.memory_bytes--;
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.n_page, 41);
    assert_int_equal(p.n_seq, 2);
    assert_int_equal(p.max_tokens, 38 * 576);
    o.memory_bytes = p.weight_bytes - 1;
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.cache_bytes + (uint64_t)p.n_page + (uint64_t)p.n_seq, 0);
    assert_int_equal(p.max_tokens, 0);

    o.memory_bytes = p.weight_bytes + 43 * page;
    o.mode = "align";
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.state_pages, 6);
    assert_int_equal(p.n_seq, 2);
    assert_int_equal(p.max_tokens, 36 * 576);
    o.mode = "all"; /* a block takes a page of keys and values and three of states */
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.block_size, 576);
    assert_int_equal(p.state_pages, 33);
    assert_int_equal(p.n_seq, 0);
    assert_int_equal(p.max_tokens, 10 * 576);
    o.n_draft = 2; /* two more states in three groups; the page is larger by 2 rows */
    o.mode = "none";
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.state_pages, 9);
    o.mtp = false; /* 8 tensors */
    must(gdn_plan(&o, &p, &err), &err);
    assert_int_equal(p.n_storage, 8);
    assert_int_equal(p.n_group, 3);
}

static void test_plan_refuses(void **state) {
    (void)state;
    static const char like[] = "qwen3.5-9b";
    static const struct {
        const char *word;
        gdn_plan_opts o;
    } c[] = {
        {"either", {.like = NULL}},
        {"either", {.like = like, .model = "models/jargon"}},
        {"\"some\"; need one of none, align, all", {.like = like, .mode = "some"}},
        {"keys and values is \"i8\"", {.like = like, .kv_type = "i8"}},
        {"need one of bf16, f16, f32", {.like = like, .state_type = "fp8"}},
        {"need one of bf16, f16, f32", {.like = like, .conv_type = "fp8"}},
        {"weights' type is \"q8\"", {.like = like, .type = "q8"}},
        {"shards is 2000", {.like = like, .tp = 2000}},
        {"drafts is -1", {.like = like, .n_draft = -1}},
        {"drafts is 65", {.like = like, .n_draft = 65}},
        {"context is -1", {.like = like, .n_ctx = -1}},
        {"mamba block size is -5", {.like = like, .mode = "all", .mamba_block_size = -5}},
        {"needs the mode all, not align", {.like = like, .mode = "align", .mamba_block_size = 64}},
        {"'tpu' is not known; there are cpu xpu cuda", {.like = like, .device = "tpu"}},
        {"no shape is called x", {.like = "x"}},
        {"16 query heads cannot be divided among 3", {.like = like, .tp = 3}},
        {"smallest that works is 576", {.like = like, .device = "xpu", .block_size = 528}},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        gdn_plan_opts o = c[i].o, d;
        gdn_plan_result p;
        gdn_err err = {0};
        gdn_plan_defaults(&d);
        if (o.mode == NULL) o.mode = d.mode;
        if (o.type == NULL) o.type = d.type;
        if (o.kv_type == NULL) o.kv_type = d.kv_type;
        if (o.conv_type == NULL) o.conv_type = d.conv_type;
        if (o.state_type == NULL) o.state_type = d.state_type;
        if (o.tp == 0) o.tp = d.tp;
        refused(gdn_plan(&o, &p, &err), GDN_E_INVALID, &err, c[i].word);
    }
    gdn_plan_result p;
    gdn_err err;
    gdn_plan_opts o = options(NULL, "cpu");
    o.model = "tests/golden/plan";
    refused(gdn_plan(&o, &p, &err), GDN_E_IO, &err, "tests/golden/plan/config.json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),       cmocka_unit_test(test_table_of_shapes),
        cmocka_unit_test(test_random),      cmocka_unit_test(test_released),
        cmocka_unit_test(test_multiples),   cmocka_unit_test(test_one_kind),
        cmocka_unit_test(test_explicit),    cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_shards),      cmocka_unit_test(test_constraints),
        cmocka_unit_test(test_weights),     cmocka_unit_test(test_fit),
        cmocka_unit_test(test_plan_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
