/* test_norm_gated.c - the gated norm against the equation in double, in every mix of types; over
 * its own input; cut and threaded; and refused without a trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

#include "../../src/base/half.h"

enum { ROWS = 24, HEADS = 3, D = 40, GAP = 8 };
enum { VALUES = ROWS * (HEADS * D + GAP) };

static const gdn_type types[] = {GDN_F32, GDN_BF16, GDN_F16};
static uint64_t rng = 1;

static double uniform(double lo, double hi) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(rng >> 40) * 0x1p-24;
}

static void set(void *p, gdn_type t, int64_t i, double v) {
    if (t == GDN_F32) ((float *)p)[i] = (float)v;
    else ((uint16_t *)p)[i] = t == GDN_BF16 ? gdn_f32_to_bf16((float)v) : gdn_f32_to_f16((float)v);
}

static double get(const void *p, gdn_type t, int64_t i) {
    const uint16_t *h = p;
    return (double)(t == GDN_F32 ? ((const float *)p)[i]
                    : t == GDN_BF16 ? gdn_bf16_to_f32(h[i]) : gdn_f16_to_f32(h[i]));
}

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
    gdn_buffer *buf[4];
    char       *mem[4]; /* x, z, w, y: the address sanitizer guards their ends */
    gdn_rms_norm_gated_args a;
} call;

static call make(const char *device, uint32_t isa, int32_t ndim, gdn_type x, gdn_type w, gdn_type y) {
    call c = {0};
    gdn_err err;
    gdn_device_opts o;
    gdn_device_opts_defaults(&o);
    o.isa_mask = isa;
    assert_int_equal(gdn_device_open(device, &o, &c.d, &err), GDN_OK);
    assert_int_equal(gdn_queue_create(c.d, &c.q, &err), GDN_OK);
    const gdn_type type[4] = {x, x, w, y};
    for (int i = 0; i < 4; i++) {
        const int64_t n = i == 2 ? D : VALUES;
        const size_t bytes = (size_t)n * (size_t)gdn_type_bytes(type[i]);
        c.mem[i] = malloc(bytes);
        assert_non_null(c.mem[i]);
        for (int64_t j = 0; j < n; j++) set(c.mem[i], type[i], j, uniform(-4, 4));
        assert_int_equal(gdn_buffer_wrap(c.d, c.mem[i], bytes, &c.buf[i], &err), GDN_OK);
    }
    c.a = (gdn_rms_norm_gated_args){.eps = 1e-6f};
    gdn_tensor *t[4] = {&c.a.x, &c.a.z, &c.a.w, &c.a.y};
    const int64_t two[] = {ROWS, HEADS * D}, three[] = {ROWS, HEADS, D}, one[] = {D};
    for (int i = 0; i < 4; i++) {
        *t[i] = i == 2 ? gdn_tensor_dense(c.buf[i], 0, type[i], 1, one)
                       : gdn_tensor_dense(c.buf[i], 0, type[i], ndim, ndim == 2 ? two : three);
        if (i == 2) continue;
        if (ndim == 2) t[i]->shape[1] = D;
        t[i]->stride[0] = (HEADS * D + GAP) * gdn_type_bytes(type[i]);
    }
    return c;
}

static void drop(call *c) {
    for (int i = 0; i < 4; i++) gdn_buffer_free(c->buf[i]), free(c->mem[i]);
    gdn_queue_free(c->q);
    gdn_device_close(c->d);
}

static void run(call *c) {
    gdn_err err;
    if (gdn_rms_norm_gated(c->q, &c->a, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_int_equal(gdn_queue_wait(c->q, &err), GDN_OK);
}

/* What y has to be, from x and z as they are now. */
static void expected(const call *c, double *y) {
    const gdn_rms_norm_gated_args *a = &c->a;
    const int heads = a->x.ndim == 3 ? HEADS : 1;
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t at = r * (HEADS * D + GAP) + h * D;
            double g[D], sum = 0;
            for (int i = 0; i < D; i++) {
                const double z = get(c->mem[1], a->z.type, at + i), s = 1 / (1 + exp(-z));
                g[i] = a->gate == GDN_GATE_SILU ? z * s : s;
                const double v = get(c->mem[0], a->x.type, at + i) * (a->norm_after_gate ? g[i] : 1);
                sum += v * v;
            }
            for (int i = 0; i < D; i++)
                y[at + i] = get(c->mem[0], a->x.type, at + i) / sqrt(sum / D + (double)a->eps) *
                            get(c->mem[2], a->w.type, i) * g[i];
        }
}

/* Half a step of y's type, and what f32 loses before. */
static void compare(const call *c, const double *y, const char *before) {
    const gdn_type t = c->a.y.type;
    const double half = t == GDN_F32 ? 0 : t == GDN_BF16 ? 0x1p-8 : 0x1p-11;
    const int width = c->a.x.ndim == 3 ? HEADS * D : D;
    for (int64_t i = 0; i < VALUES; i++) {
        if (i % (HEADS * D + GAP) >= width) {
            if (get(before, t, i) != get(c->mem[3], t, i)) fail_msg("gap at %lld", (long long)i);
            continue;
        }
        const double v = get(c->mem[3], t, i), e = fabs(v - y[i]);
        if (!(e <= (half + 3e-6) * fabs(y[i]) + (t == GDN_F16 ? 0x1p-25 : 0)))
            fail_msg("%lld: %.9g, need %.9g", (long long)i, v, y[i]);
    }
}

static void test_types(void **state) {
    (void)state;
    double y[VALUES];
    for (int i = 0; i < 27 * 4 * 2; i++) {
        const uint32_t isa = i % 2 ? ~0u : 0;
        call c = make("cpu:2", isa, i % 3 ? 3 : 2, types[i / 2 % 3], types[i / 6 % 3], types[i / 18 % 3]);
        c.a.gate = i / 54 % 2 ? GDN_GATE_SILU : GDN_GATE_SIGMOID;
        c.a.norm_after_gate = i / 108 == 1;
        char before[VALUES * 4];
        memcpy(before, c.mem[3], VALUES * (size_t)gdn_type_bytes(c.a.y.type));
        expected(&c, y);
        run(&c);
        compare(&c, y, before);
        drop(&c);
    }
}

/* y over x, and y over z, give the bits that y elsewhere has. */
static void test_in_place(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) {
        const gdn_type t = types[i / 4];
        call c = make("cpu:2", ~0u, 3, t, GDN_F32, t);
        c.a.norm_after_gate = i % 2;
        run(&c);
        const gdn_tensor y = c.a.y;
        c.a.y = i % 4 < 2 ? c.a.x : c.a.z;
        run(&c);
        for (int64_t r = 0; r < ROWS; r++)
            assert_memory_equal(c.mem[i % 4 < 2 ? 0 : 1] + r * y.stride[0], c.mem[3] + r * y.stride[0],
                                (size_t)(HEADS * D * gdn_type_bytes(t)));
        drop(&c);
    }
}

/* A row alone, or on another number of threads, has the same bits. */
static void test_alone(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        rng = 9;
        call c = make("cpu:1", ~0u, 3, types[i], types[i], types[i]);
        rng = 9;
        call one = make("cpu:3", ~0u, 3, types[i], types[i], types[i]);
        run(&c);
        const gdn_rms_norm_gated_args a = one.a;
        for (int64_t r = 0; r < ROWS; r++) {
            one.a.x = gdn_tensor_slice(a.x, 0, r, r + 1);
            one.a.z = gdn_tensor_slice(a.z, 0, r, r + 1);
            one.a.y = gdn_tensor_slice(a.y, 0, r, r + 1);
            run(&one);
        }
        assert_memory_equal(c.mem[3], one.mem[3], VALUES * (size_t)gdn_type_bytes(types[i]));
        drop(&c), drop(&one);
    }
}

static void test_empty(void **state) {
    (void)state;
    call c = make("cpu:1", ~0u, 3, GDN_F32, GDN_F32, GDN_F32);
    c.a.x.shape[0] = c.a.y.shape[0] = c.a.z.shape[0] = 0;
    run(&c);
    c.a.x.shape[0] = c.a.y.shape[0] = c.a.z.shape[0] = ROWS;
    c.a.x.shape[2] = c.a.y.shape[2] = c.a.z.shape[2] = c.a.w.shape[0] = 0;
    run(&c);
    drop(&c);
}

static void test_refusals(void **state) {
    (void)state;
    call c = make("cpu:1", ~0u, 3, GDN_F32, GDN_F32, GDN_F32);
    const gdn_rms_norm_gated_args good = c.a;
    const size_t bytes = VALUES * sizeof(float);
    char *before = malloc(2 * bytes);
    assert_non_null(before);
    memcpy(before, c.mem[3], bytes), memcpy(before + bytes, c.mem[0], bytes);
    gdn_err err;
#define REFUSED(word)                                                                     \
    do {                                                                                  \
        assert_int_equal(gdn_rms_norm_gated(c.q, &c.a, &err), GDN_E_INVALID);             \
        if (strstr(err.text, word) == NULL) fail_msg("'%s' does not say '%s'", err.text, word); \
        assert_memory_equal(c.mem[3], before, bytes);                                     \
        assert_memory_equal(c.mem[0], before + bytes, bytes);                             \
        c.a = good;                                                                       \
    } while (0)
    c.a.x.type = GDN_I32;
    REFUSED("x has type i32");
    c.a.z.type = GDN_BF16;
    REFUSED("z has type bf16");
    c.a.y.type = GDN_U8;
    REFUSED("y has type u8");
    c.a.w.shape[0]--;
    REFUSED("w has shape [39], need [40]");
    c.a.z.shape[1]--;
    REFUSED("z has shape [24, 2, 40], need [24, 3, 40]");
    c.a.y.ndim = 2;
    REFUSED("y has shape");
    c.a.x.ndim = 1;
    REFUSED("x has shape");
    c.a.z.buf = NULL;
    REFUSED("z is missing");
    c.a.y.stride[0] = 8;
    REFUSED("rows of y lie on each other");
    c.a.y.stride[1] = 0;
    REFUSED("rows of y lie on each other");
    c.a.y = gdn_tensor_slice(c.a.x, 0, 0, ROWS);
    c.a.y.stride[0] = HEADS * D * 4;
    REFUSED("y overlaps x");
    c.a.y = c.a.z;
    c.a.y.type = GDN_BF16;
    for (int i = 0; i < 3; i++) c.a.y.stride[i] /= 2;
    REFUSED("y overlaps z");
    c.a.w.buf = c.a.y.buf;
    REFUSED("y overlaps w");
    c.a.eps = -1;
    REFUSED("eps is -1");
    c.a.eps = NAN;
    REFUSED("eps is ");
    c.a.gate = (gdn_gate)7;
    REFUSED("gate is 7");
    c.a.x.at = 2;
    REFUSED("x");
    run(&c);
    free(before);
    drop(&c);
}

/* Every f32, bf16 and f16 into every other; what a pointer between elements does. */
static void test_cast(void **state) {
    (void)state;
    gdn_device *d;
    gdn_queue *q;
    gdn_buffer *b, *odd;
    gdn_err err;
    assert_int_equal(gdn_device_open("cpu:2", NULL, &d, &err), GDN_OK);
    assert_int_equal(gdn_queue_create(d, &q, &err), GDN_OK);
    assert_int_equal(gdn_buffer_alloc(d, 1 << 16, &b, &err), GDN_OK);
    char *p = gdn_buffer_host(b);
    static const float special[] = {0, -0.0f, 1, 65504, 65519, 65520, 1e-8f, 6e-8f, 1e30f, INFINITY,
                                    -INFINITY, NAN, 3.14159274f, 1.00390625f, 1.01171875f};
    enum { N = 600, S = sizeof special / sizeof *special };
    const int64_t shape[] = {2, N};
    for (int i = 0; i < 9; i++) {
        const gdn_type from = types[i / 3], to = types[i % 3];
        gdn_cast_args a = {.x = gdn_tensor_dense(b, 0, from, 2, shape),
                           .y = gdn_tensor_dense(b, 1 << 15, to, 2, shape)};
        for (int64_t k = 0; k < 2 * N; k++)
            set(p, from, k, k < S ? (double)special[k] : ldexp(uniform(-2, 2), (int)uniform(-30, 18)));
        assert_int_equal(gdn_op_cast(q, &a, &err), GDN_OK);
        for (int64_t k = 0; k < 2 * N; k++) {
            uint32_t want = 0, have = 0;
            const size_t size = (size_t)gdn_type_bytes(to);
            const double v = get(p, from, k);
            set(&want, to, 0, v);
            memcpy(&have, p + (1 << 15) + (size_t)k * size, size);
            if (isnan(v) ? !isnan(get(&have, to, 0)) : have != want)
                fail_msg("%s to %s: %g became %g", gdn_type_name(from), gdn_type_name(to), v,
                         get(&have, to, 0));
        }
        a.y.at = 4;
        assert_int_equal(gdn_op_cast(q, &a, &err), GDN_E_INVALID);
        a.y.at = 1 << 15;
        a.y.stride[0] = 4;
        assert_int_equal(gdn_op_cast(q, &a, &err), GDN_E_INVALID);
    }
    assert_int_equal(gdn_buffer_wrap(d, p + 1, 4096, &odd, &err), GDN_OK);
    const int64_t small[] = {1, 4};
    const gdn_cast_args a = {.x = gdn_tensor_dense(odd, 0, GDN_F32, 2, small),
                             .y = gdn_tensor_dense(b, 1 << 15, GDN_F32, 2, small)};
    assert_int_equal(gdn_op_cast(q, &a, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "x begins between elements"));
    gdn_buffer_free(odd), gdn_buffer_free(b);
    gdn_queue_free(q);
    gdn_device_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types), cmocka_unit_test(test_in_place), cmocka_unit_test(test_alone),
        cmocka_unit_test(test_empty), cmocka_unit_test(test_refusals), cmocka_unit_test(test_cast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
