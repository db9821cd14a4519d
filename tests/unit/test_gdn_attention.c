/* test_gdn_attention.c - the whole operator: how a sequence is cut, what shares the call and how
 * many threads there are changes no bit, and wrong arguments change nothing at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

#include "../../src/base/half.h"
#include "sanitized.h"

enum { NK = 2, NV = 4, DK = 24, DV = 40, W = 4, SLOTS = 6, LONG = SANITIZED ? 1100 : 2600 };
enum { C = 2 * NK * DK + NV * DV, Q = C + NV * DV, STATE = NV * DV * DK };

/* A call's memory, in f32; one buffer a tensor so that slips show under the address sanitizer. */
typedef struct {
    gdn_device *d;
    gdn_queue  *q;
    gdn_attention_args a;
    float   *qkvz, *ba, *core, *z, *conv, *ssm, *w, *A, *dt;
    int32_t *start, *slot, *map;
    uint8_t *fresh;
    int64_t  P;
} call;

static uint64_t rng;
static float uniform(float lo, float hi) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (float)(rng >> 40) * 0x1p-24f;
}
static float *numbers(int64_t n, float lo, float hi) {
    float *p = malloc((size_t)(n > 0 ? n : 1) * sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++) p[i] = uniform(lo, hi);
    return p;
}

static gdn_tensor wrap(call *c, void *p, gdn_type type, int32_t ndim, int64_t a, int64_t b,
                       int64_t d, int64_t e) {
    const int64_t shape[4] = {a, b, d, e};
    uint64_t bytes = (uint64_t)gdn_type_bytes(type);
    for (int32_t i = 0; i < ndim; i++) bytes *= (uint64_t)shape[i];
    gdn_buffer *buf;
    gdn_err err;
    assert_int_equal(gdn_buffer_wrap(c->d, p, bytes > 0 ? bytes : 1, &buf, &err), GDN_OK);
    return gdn_tensor_dense(buf, 0, type, ndim, shape);
}

static void unwrap(gdn_tensor *t) { gdn_buffer_free(t->buf); }

/* P rows of n_seq plain sequences on slots 1, 2, ...; the same numbers for the same seed. */
static call make(const char *device, uint64_t seed, int64_t P, int n_seq, const int32_t *lengths) {
    call c = {.P = P};
    gdn_err err;
    assert_int_equal(gdn_device_open(device, NULL, &c.d, &err), GDN_OK);
    assert_int_equal(gdn_queue_create(c.d, &c.q, &err), GDN_OK);
    rng = seed;
    c.qkvz = numbers(P * Q, -2, 2);
    c.ba = numbers(P * 2 * NV, -3, 3);
    c.core = numbers(P * NV * DV, 7, 7);
    c.z = numbers(P * NV * DV, 7, 7);
    c.conv = numbers(SLOTS * (W - 1) * C, -2, 2);
    c.ssm = numbers((int64_t)SLOTS * STATE, -1, 1);
    c.w = numbers(C * W, -1, 1);
    c.A = numbers(NV, -3, 1);
    c.dt = numbers(NV, -2, 2);
    c.start = calloc((size_t)n_seq + 1, sizeof *c.start);
    c.slot = calloc((size_t)n_seq, sizeof *c.slot);
    c.map = calloc((size_t)P + 1, sizeof *c.map);
    c.fresh = calloc((size_t)n_seq, 1);
    for (int s = 0; s < n_seq; s++) {
        c.start[s + 1] = c.start[s] + lengths[s];
        c.slot[s] = s + 1;
        c.fresh[s] = 1;
    }
    c.a = (gdn_attention_args){
        .core = wrap(&c, c.core, GDN_F32, 3, P, NV, DV, 0),
        .z = wrap(&c, c.z, GDN_F32, 3, P, NV, DV, 0),
        .qkvz = wrap(&c, c.qkvz, GDN_F32, 2, P, Q, 0, 0),
        .ba = wrap(&c, c.ba, GDN_F32, 2, P, 2 * NV, 0, 0),
        .conv_state = wrap(&c, c.conv, GDN_F32, 3, SLOTS, W - 1, C, 0),
        .ssm_state = wrap(&c, c.ssm, GDN_F32, 4, SLOTS, NV, DV, DK),
        .conv_weights = wrap(&c, c.w, GDN_F32, 2, C, W, 0, 0),
        .A_log = wrap(&c, c.A, GDN_F32, 1, NV, 0, 0, 0),
        .dt_bias = wrap(&c, c.dt, GDN_F32, 1, NV, 0, 0, 0),
        .has_initial_state = wrap(&c, c.fresh, GDN_U8, 1, n_seq, 0, 0, 0),
        .non_spec_query_start_loc = wrap(&c, c.start, GDN_I32, 1, n_seq + 1, 0, 0, 0),
        .non_spec_state_indices = wrap(&c, c.slot, GDN_I32, 1, n_seq, 0, 0, 0),
        .n_k_head = NK,
        .n_v_head = NV,
        .dk = DK,
        .dv = DV,
        .tp_size = 1,
        .num_actual_tokens = P,
        .null_slot = -1,
        .reorder_input = true,
    };
    return c;
}

static void drop(call *c) {
    gdn_tensor *all[] = {&c->a.core, &c->a.z, &c->a.qkvz, &c->a.ba, &c->a.conv_state,
                         &c->a.ssm_state, &c->a.conv_weights, &c->a.A_log, &c->a.dt_bias,
                         &c->a.has_initial_state, &c->a.non_spec_query_start_loc,
                         &c->a.non_spec_state_indices, &c->a.non_spec_token_indx};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) unwrap(all[i]);
    gdn_queue_free(c->q);
    gdn_device_close(c->d);
    free(c->qkvz), free(c->ba), free(c->core), free(c->z), free(c->conv), free(c->ssm);
    free(c->w), free(c->A), free(c->dt), free(c->start), free(c->slot), free(c->map);
    free(c->fresh);
}

static void run(call *c) {
    gdn_err err;
    if (gdn_attention(c->q, &c->a, &err) != GDN_OK) fail_msg("%s", err.text);
}

/* One sequence in calls of `step` tokens. */
static void run_cut(call *c, int64_t step) {
    const int64_t n = c->P;
    call part = *c;
    for (int64_t at = 0; at < n; at += step) {
        const int64_t now = n - at < step ? n - at : step;
        gdn_tensor *rows[] = {&part.a.core, &part.a.z, &part.a.qkvz, &part.a.ba};
        const gdn_tensor *from[] = {&c->a.core, &c->a.z, &c->a.qkvz, &c->a.ba};
        for (int i = 0; i < 4; i++) *rows[i] = gdn_tensor_slice(*from[i], 0, at, at + now);
        part.a.num_actual_tokens = now;
        c->start[1] = (int32_t)now;
        run(&part);
    }
    c->start[1] = (int32_t)n;
}

static void same(const call *a, const call *b, const char *what) {
    const size_t rows = (size_t)(a->P * NV * DV) * sizeof(float);
    if (memcmp(a->core, b->core, rows) != 0) fail_msg("%s: core differs", what);
    if (memcmp(a->z, b->z, rows) != 0) fail_msg("%s: z differs", what);
    if (memcmp(a->conv, b->conv, SLOTS * (W - 1) * C * sizeof(float)) != 0)
        fail_msg("%s: conv_state differs", what);
    if (memcmp(a->ssm, b->ssm, (size_t)SLOTS * STATE * sizeof(float)) != 0)
        fail_msg("%s: ssm_state differs", what);
}

static void test_every_length(void **state) {
    (void)state;
    for (int32_t n = 1; n <= 200; n += SANITIZED ? 23 : 1) {
        call a = make("cpu:2", 5, n, 1, &n), b = make("cpu:2", 5, n, 1, &n);
        run(&a);
        run_cut(&b, n > 2 ? n / 2 : 1);
        same(&a, &b, "cut in two");
        for (int64_t i = 0; i < a.P * NV * DV; i++) assert_true(a.core[i] > -1e4f && a.core[i] < 1e4f);
        drop(&a), drop(&b);
    }
}

/* Longer than what goes through at a time, also from zeros. */
static void test_long(void **state) {
    (void)state;
    for (uint8_t initial = 0; initial < 2; initial++) {
        const int32_t n = LONG;
        call a = make("cpu:2", 6, n, 1, &n), b = make("cpu:2", 6, n, 1, &n);
        a.fresh[0] = initial;
        run(&a);
        if (initial == 0) { /* the first piece starts from zeros, the others go on */
            call first = b;
            first.a.num_actual_tokens = 700;
            b.start[1] = 700;
            b.fresh[0] = 0;
            run(&first);
            b.fresh[0] = 1;
            call rest = b;
            gdn_tensor *rows[] = {&rest.a.core, &rest.a.z, &rest.a.qkvz, &rest.a.ba};
            for (int i = 0; i < 4; i++) *rows[i] = gdn_tensor_slice(*rows[i], 0, 700, n);
            rest.a.num_actual_tokens = n - 700;
            b.start[1] = n - 700;
            run(&rest);
        } else {
            run_cut(&b, 333);
        }
        same(&a, &b, initial ? "cut" : "cut, from zeros");
        drop(&a), drop(&b);
    }
}

/* A tensor's numbers become bf16 where they lie. */
static void narrow(call *c, gdn_tensor *t, float *p) {
    const int64_t *s = t->shape;
    int64_t n = 1;
    for (int32_t i = 0; i < t->ndim; i++) n *= s[i];
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = gdn_f32_to_bf16(p[i]);
        memcpy((char *)p + 2 * i, &h, sizeof h);
    }
    unwrap(t);
    *t = wrap(c, p, GDN_BF16, t->ndim, s[0], s[1], s[2], s[3]);
}

/* The first of `off` floats more than are needed lies before the rows. */
static void move(call *c, gdn_tensor *t, float **p, int64_t off) {
    free(*p);
    *p = numbers(c->P * NV * DV + off, 7, 7);
    unwrap(t);
    *t = wrap(c, *p + off, GDN_F32, 3, c->P, NV, DV, 0);
}

static call make_many(gdn_type act, gdn_delta_form form, int32_t n, int64_t off) {
    call c = make("cpu:2", 10, n, 1, &n);
    c.a.form = form;
    move(&c, &c.a.core, &c.core, off), move(&c, &c.a.z, &c.z, off);
    if (act == GDN_F32) return c;
    narrow(&c, &c.a.core, c.core + off), narrow(&c, &c.a.z, c.z + off);
    narrow(&c, &c.a.qkvz, c.qkvz), narrow(&c, &c.a.ba, c.ba), narrow(&c, &c.a.conv_state, c.conv);
    narrow(&c, &c.a.conv_weights, c.w), narrow(&c, &c.a.dt_bias, c.dt);
    return c;
}

/* So many rows that z and core go past the caches, at addresses that suit it and at others: the
 * same as in calls of fewer, which do not. */
static void test_past_caches(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        const gdn_type act = i & 1 ? GDN_BF16 : GDN_F32;
        const gdn_delta_form form = i & 2 ? GDN_FORM_CHUNKED : GDN_FORM_RECURRENT;
        const int64_t off = i / 4, bytes = gdn_type_bytes(act) * NV * DV;
        const int32_t n = (int32_t)((8 << 20) / bytes) + 77;
        call a = make_many(act, form, n, off), b = make_many(act, form, n, 0);
        run(&a);
        run_cut(&b, n / 2 / 64 * 64);
        assert_true(off == 0 || (a.core[0] == 7 && a.z[0] == 7));
        memmove(a.core, a.core + off, (size_t)(n * NV * DV) * sizeof(float));
        memmove(a.z, a.z + off, (size_t)(n * NV * DV) * sizeof(float));
        same(&a, &b, "past the caches");
        assert_memory_equal(a.z, (char *)a.qkvz + C * gdn_type_bytes(act), (size_t)bytes);
        drop(&a), drop(&b);
    }
}

/* A 16-bit state is rounded once, at the end of the call: the same as rounding an f32 one. */
static void test_16_bit_state(void **state) {
    (void)state;
    const int32_t n = LONG;
    call a = make("cpu:2", 7, n, 1, &n), b = make("cpu:2", 7, n, 1, &n);
    uint16_t *half = malloc((size_t)SLOTS * STATE * sizeof *half);
    assert_non_null(half);
    for (int i = 0; i < SLOTS * STATE; i++) {
        half[i] = gdn_f32_to_bf16(a.ssm[i]);
        a.ssm[i] = gdn_bf16_to_f32(half[i]);
    }
    unwrap(&b.a.ssm_state);
    b.a.ssm_state = wrap(&b, half, GDN_BF16, 4, SLOTS, NV, DV, DK);
    run(&a);
    run(&b);
    assert_memory_equal(a.core, b.core, (size_t)(n * NV * DV) * sizeof(float));
    for (int i = 0; i < SLOTS * STATE; i++) assert_int_equal(half[i], gdn_f32_to_bf16(a.ssm[i]));
    drop(&a), drop(&b);
    free(half);
}

/* Three sequences in one call, their rows interleaved through a map, against each alone. */
static void test_mixed(void **state) {
    (void)state;
    static const int32_t length[3] = {1, 70, 64};
    const int64_t P = 140; /* five rows belong to nobody */
    call all = make("cpu:2", 8, P, 3, length);
    for (int64_t i = 0; i < 135; i++) all.map[i] = (int32_t)(i * 37 % P);
    all.a.non_spec_token_indx = wrap(&all, all.map, GDN_I32, 1, 135, 0, 0, 0);
    all.fresh[1] = 0;
    run(&all);
    for (int s = 0; s < 3; s++) {
        call one = make("cpu:1", 8, P, 1, length + s);
        memcpy(one.map, all.map + all.start[s], (size_t)length[s] * sizeof *one.map);
        one.a.non_spec_token_indx = wrap(&one, one.map, GDN_I32, 1, length[s], 0, 0, 0);
        one.slot[0] = all.slot[s];
        one.fresh[0] = all.fresh[s];
        run(&one);
        for (int i = 0; i < length[s]; i++) {
            const int64_t at = (int64_t)one.map[i] * NV * DV;
            assert_memory_equal(one.core + at, all.core + at, NV * DV * sizeof(float));
            assert_memory_equal(one.z + at, all.z + at, NV * DV * sizeof(float));
        }
        const int64_t at = (int64_t)one.slot[0] * STATE;
        assert_memory_equal(one.ssm + at, all.ssm + at, STATE * sizeof(float));
        drop(&one);
    }
    int untouched = 0;
    for (int64_t r = 0; r < P; r++) untouched += all.core[r * NV * DV] == 7.0f;
    assert_int_equal(untouched, 5);
    drop(&all);
}

static void test_threads(void **state) {
    (void)state;
    static const int32_t length[2] = {90, 33};
    static const char *const device[] = {"cpu:2", "cpu:3", "cpu:8"};
    call one = make("cpu:1", 9, 123, 2, length);
    run(&one);
    for (int i = 0; i < 3; i++) {
        call c = make(device[i], 9, 123, 2, length);
        run(&c);
        same(&one, &c, device[i]);
        drop(&c);
    }
    drop(&one);
}

/* Slots of both pools one behind the other in the pages of one buffer are apart; one number more in
 * a page's first pool, or one less in a page, and they are not. */
static void test_pages(void **state) {
    (void)state;
    enum { CONV = (W - 1) * C, PAGE = CONV + STATE };
    static const int32_t length[2] = {70, 33};
    call c = make("cpu:2", 11, 103, 2, length), paged = make("cpu:2", 11, 103, 2, length);
    float *pages = calloc((size_t)SLOTS * PAGE, sizeof *pages);
    assert_non_null(pages);
    for (int s = 0; s < SLOTS; s++) {
        memcpy(pages + s * PAGE, c.conv + s * CONV, CONV * sizeof *pages);
        memcpy(pages + s * PAGE + CONV, c.ssm + s * STATE, STATE * sizeof *pages);
    }
    gdn_tensor all = wrap(&paged, pages, GDN_F32, 2, SLOTS, PAGE, 0, 0);
    const gdn_attention_args own = paged.a;
    paged.a.conv_state.buf = paged.a.ssm_state.buf = all.buf;
    paged.a.conv_state.stride[0] = paged.a.ssm_state.stride[0] = all.stride[0];
    paged.a.ssm_state.at = CONV * sizeof *pages;
    gdn_err err;
    const gdn_attention_args good = paged.a;
    paged.a.ssm_state.at -= sizeof *pages;
    assert_int_equal(gdn_attention(paged.q, &paged.a, &err), GDN_E_INVALID);
    assert_string_equal(err.text, "gdn_attention: conv_state overlaps ssm_state");
    paged.a = good;
    paged.a.conv_state.stride[0] -= (int64_t)sizeof *pages;
    assert_int_equal(gdn_attention(paged.q, &paged.a, &err), GDN_E_INVALID);
    assert_string_equal(err.text, "gdn_attention: conv_state overlaps ssm_state");
    paged.a = good;
    run(&c), run(&paged);
    for (int s = 0; s < SLOTS; s++) {
        assert_memory_equal(pages + s * PAGE, c.conv + s * CONV, CONV * sizeof *pages);
        assert_memory_equal(pages + s * PAGE + CONV, c.ssm + s * STATE, STATE * sizeof *pages);
    }
    assert_memory_equal(paged.core, c.core, sizeof(float) * 103 * NV * DV);
    paged.a = own;
    unwrap(&all);
    free(pages);
    drop(&c), drop(&paged);
}

static void test_refusals(void **state) {
    (void)state;
    static const int32_t length[2] = {5, 3};
    call c = make("cpu:2", 10, 8, 2, length), before = make("cpu:2", 10, 8, 2, length);
    const gdn_attention_args good = c.a;
    gdn_err err;
#define REFUSED(word)                                                                     \
    do {                                                                                  \
        assert_int_equal(gdn_attention(c.q, &c.a, &err), GDN_E_INVALID);                  \
        if (strstr(err.text, word) == NULL) fail_msg("'%s' does not say '%s'", err.text, word); \
        same(&c, &before, word);                                                          \
        c.a = good;                                                                       \
    } while (0)
    c.slot[1] = 1;
    REFUSED("slot 1 belongs to two sequences");
    c.slot[1] = SLOTS;
    REFUSED("non_spec_state_indices[1] is 6 of 6 slots");
    c.slot[1] = 2;
    c.start[1] = 9;
    REFUSED("query_start_loc[1] is 9");
    c.start[1] = 5;
    c.start[2] = 4;
    REFUSED("query_start_loc[2] is 4, after 5");
    c.start[2] = 8;
    c.start[0] = 1;
    REFUSED("query_start_loc[0] is 1");
    c.start[0] = 0;
    c.a.num_actual_tokens = 7;
    REFUSED("query_start_loc[2] is 8");
    c.a.num_actual_tokens = 9;
    REFUSED("num_actual_tokens is 9 of 8 rows");
    c.a.z = c.a.core;
    REFUSED("core overlaps z");
    c.a.core.buf = c.a.ssm_state.buf;
    REFUSED("core overlaps ssm_state");
    c.a.conv_state.buf = c.a.ssm_state.buf;
    REFUSED("conv_state overlaps ssm_state");
    c.a.qkvz.buf = c.a.conv_state.buf;
    REFUSED("conv_state overlaps qkvz");
    c.a.dt_bias.buf = c.a.ssm_state.buf;
    REFUSED("ssm_state overlaps dt_bias");
    c.a.has_initial_state.buf = c.a.z.buf;
    REFUSED("z overlaps has_initial_state");
    c.a.non_spec_query_start_loc.buf = c.a.core.buf;
    REFUSED("core overlaps non_spec_query_start_loc");
    c.a.non_spec_state_indices.buf = c.a.conv_state.buf;
    REFUSED("conv_state overlaps non_spec_state_indices");
    c.a.tp_size = 3;
    REFUSED("over 3 shards");
    c.a.dk = 20;
    REFUSED("dk is 20");
    c.a.core.type = GDN_BF16;
    REFUSED("core has type bf16");
    c.a.ssm_state.stride[1] += 4;
    REFUSED("ssm_state");
    c.a.conv_state.shape[1] = 2;
    REFUSED("2 rows a slot, need 3");
    c.a.A_log.buf = NULL;
    REFUSED("A_log is missing");
    for (int i = 0; i < 8; i++) c.map[i] = i / 2;
    c.a.non_spec_token_indx = wrap(&c, c.map, GDN_I32, 1, 8, 0, 0, 0);
    gdn_tensor map = c.a.non_spec_token_indx;
    REFUSED("row 0 belongs to two tokens");
    c.map[0] = 8;
    c.a.non_spec_token_indx = map;
    REFUSED("token_indx[0] is 8 of 8 rows");
    unwrap(&map);
    run(&c); /* nothing of this has broken the good call */
    drop(&c), drop(&before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length), cmocka_unit_test(test_long),
        cmocka_unit_test(test_past_caches),  cmocka_unit_test(test_16_bit_state),
        cmocka_unit_test(test_mixed),        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_pages),        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
