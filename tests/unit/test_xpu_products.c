/* test_xpu_products.c - matrix products of the xpu device against sums in double; a row's bits
 * whatever kernel its number of rows picks; gdn_op_project against its parts, bit for bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gdn/op.h>

#include "opencl.h"

static gdn_device *dev;
static gdn_queue  *queue;

static void ok(gdn_status st, const gdn_err *err) {
    if (st != GDN_OK) fail_msg("%s", err->text);
}

static uint32_t seed = 1;

/* In -1 to 1, in steps that bf16 and e4m3 hold: products and their types lose nothing. */
static float step_number(void) {
    static const float some[] = {-1, -0.75f, -0.5f, -0.25f, 0.125f, 0.25f, 0.5f, 1};
    seed = seed * 1664525u + 1013904223u;
    return some[seed >> 29];
}

static float number(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed * 0x1p-31f;
}

static void *room(size_t bytes) {
    void *p = calloc(1, bytes + 1);
    assert_non_null(p);
    return p;
}

static gdn_tensor upload(const float *v, int32_t ndim, int64_t a, int64_t b, int64_t c) {
    const int64_t shape[] = {a, b, c};
    gdn_buffer *buf;
    gdn_err err;
    ok(gdn_buffer_wrap(dev, (void *)(uintptr_t)v, (uint64_t)(a * b * c) * sizeof *v, &buf, &err),
       &err);
    return gdn_tensor_dense(buf, 0, GDN_F32, ndim, shape);
}

static float *download(gdn_tensor t) {
    const uint64_t bytes = gdn_buffer_bytes(t.buf);
    float *v = room(bytes);
    gdn_err err;
    ok(gdn_queue_read(queue, v, t.buf, 0, bytes, &err), &err);
    ok(gdn_queue_wait(queue, &err), &err);
    return v;
}

/* Bits of one of step_number()'s values in a type. */
static void put(gdn_type type, void *p, int64_t i, float v) {
    static const float e4m3[] = {0.125f, 0.25f, 0.5f, 0.75f, 1};
    static const uint8_t code[] = {0x20, 0x28, 0x30, 0x34, 0x38};
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    const uint32_t sign = u >> 31, e = u >> 23 & 255, m = u & 0x7fffff;
    switch (type) {
    case GDN_F32: ((float *)p)[i] = v; break;
    case GDN_BF16: ((uint16_t *)p)[i] = (uint16_t)(u >> 16); break;
    case GDN_F16: ((uint16_t *)p)[i] = (uint16_t)(sign << 15 | (e - 112) << 10 | m >> 13); break;
    default:
        for (int k = 0; k < 5; k++)
            if (fabsf(v) == e4m3[k]) ((uint8_t *)p)[i] = (uint8_t)(code[k] | sign << 7);
    }
}

enum { SCALE_ROWS = 16, SCALE_COLS = 24 };

/* values: [n][k] with the scales in. */
static gdn_weight *weight(gdn_type type, int32_t n, int32_t k, float **values) {
    const int64_t cols = (k + SCALE_COLS - 1) / SCALE_COLS, rows = (n + SCALE_ROWS - 1) / SCALE_ROWS;
    void *bits = room((size_t)n * (size_t)k * 4);
    float *v = room((size_t)n * (size_t)k * sizeof *v), *scale = room((size_t)(cols * rows) * 4);
    for (int64_t i = 0; i < cols * rows; i++) scale[i] = ldexpf(1, (int)(i % 3));
    for (int64_t i = 0; i < (int64_t)n * k; i++) {
        v[i] = step_number();
        put(type, bits, i, v[i]);
        if (type == GDN_F8) v[i] *= scale[i / k / SCALE_ROWS * cols + i % k / SCALE_COLS];
    }
    const gdn_weight_part part = {.data = bits, .n_row = n, .scale_type = GDN_F32,
                                  .row_bytes = (int64_t)k * gdn_type_bytes(type),
                                  .scale = type == GDN_F8 ? scale : NULL};
    const gdn_weight_desc d = {.type = type, .n_expert = 1, .n = n, .k = k, .part = &part,
                               .n_part = 1, .scale_rows = SCALE_ROWS, .scale_cols = SCALE_COLS};
    gdn_weight *w;
    gdn_err err;
    ok(gdn_weight_create(dev, &d, &w, &err), &err);
    free(bits);
    free(scale);
    *values = v;
    return w;
}

/* --- products --------------------------------------------------------------------------- */

enum { MOST = 40 };

/* Numbers of rows that pick every kernel, and edges of their tiles. */
static const int counts[] = {1, 2, 3, 4, 5, 16, 17, MOST};
enum { N_COUNT = sizeof counts / sizeof *counts };

/* few: one row and many, as every kernel is compiled for seconds here. */
static void product(gdn_type type, int32_t n, int32_t k, bool few) {
    float *v, *x = room((size_t)MOST * (size_t)k * sizeof *x), *first = NULL;
    double *want = room((size_t)MOST * (size_t)n * sizeof *want);
    gdn_weight *w = weight(type, n, k, &v);
    for (int64_t i = 0; i < (int64_t)MOST * k; i++) x[i] = number();
    for (int m = 0; m < MOST; m++)
        for (int o = 0; o < n; o++)
            for (int i = 0; i < k; i++)
                want[m * n + o] += (double)x[(int64_t)m * k + i] * (double)v[(int64_t)o * k + i];
    float *zero = room((size_t)MOST * (size_t)n * sizeof *zero);
    const gdn_tensor in = upload(x, 2, MOST, k, 1);
    for (int c = N_COUNT - 1; c >= 0; c--) { /* most rows first: the others are compared with them */
        if (few && counts[c] != MOST && counts[c] != 1) continue;
        const gdn_tensor y = upload(zero, 2, MOST, n, 1);
        gdn_err err;
        const gdn_linear_op_args a = {.y = gdn_tensor_slice(y, 0, 0, counts[c]),
                                      .x = gdn_tensor_slice(in, 0, 0, counts[c]), .w = w};
        ok(gdn_op_linear(queue, &a, &err), &err);
        float *got = download(y);
        if (first == NULL) {
            const double bound = 4e-6 * sqrt((double)k) * 4;
            for (int i = 0; i < MOST * n; i++)
                if (!(fabs((double)got[i] - want[i]) <= bound))
                    fail_msg("%s %d x %d: element %d is %g, not %g", gdn_type_name(type), n, k, i,
                             (double)got[i], want[i]);
            first = got;
        } else {
            for (int i = 0; i < MOST * n; i++) {
                const float expected = i < counts[c] * n ? first[i] : 0;
                if (memcmp(&expected, got + i, sizeof expected) != 0)
                    fail_msg("%s %d x %d with %d rows: element %d is %.9g, not %.9g",
                             gdn_type_name(type), n, k, counts[c], i, (double)got[i],
                             (double)expected);
            }
            free(got);
        }
        gdn_buffer_free(y.buf);
    }
    gdn_buffer_free(in.buf);
    gdn_weight_free(w);
    free(first), free(v), free(x), free(want), free(zero);
}

static void test_products(void **state) {
    (void)state;
    static const gdn_type all[] = {GDN_F32, GDN_BF16, GDN_F16, GDN_F8};
    for (int t = 0; t < 4; t++) {
        product(all[t], 37, 296, false);
        product(all[t], 5, 61, false);
    }
    product(GDN_BF16, 70, 1024, false);
    product(GDN_BF16, 19, 2048, true);
    product(GDN_BF16, 9, 8200, true);
    product(GDN_F8, 9, 2050, true);
}

/* --- projections ------------------------------------------------------------------------ */

typedef struct {
    int  heads, d; /* heads 0: rows are normalised whole; d 0: not at all */
    bool gate, swiglu, add;
} project_case;

static gdn_tensor scratch(gdn_type type, int64_t rows, int64_t n) {
    const int64_t shape[] = {rows, n};
    gdn_buffer *b;
    gdn_err err;
    ok(gdn_buffer_alloc(dev, (uint64_t)(rows * n) * 4, &b, &err), &err);
    return gdn_tensor_dense(b, 0, type, 2, shape);
}

/* In parts: what the one call has to give. */
static gdn_tensor in_parts(const gdn_project_args *a, gdn_tensor y, gdn_tensor xn, gdn_tensor wide) {
    gdn_err err;
    gdn_linear_op_args l = {.y = a->swiglu ? wide : y, .x = a->x, .w = a->w, .add = a->add};
    if (a->norm_w.buf != NULL) {
        gdn_rms_norm_args n = {.y = xn, .x = a->x, .z = a->z, .w = a->norm_w, .eps = a->eps};
        if (a->x.ndim == 3) {
            n.y.ndim = 3;
            n.y.shape[1] = a->x.shape[1];
            n.y.shape[2] = a->x.shape[2];
            n.y.stride[2] = 4;
            n.y.stride[1] = 4 * a->x.shape[2];
        }
        ok(gdn_op_rms_norm(queue, &n, &err), &err);
        l.x = xn;
    }
    ok(gdn_op_linear(queue, &l, &err), &err);
    const gdn_swiglu_op_args s = {.y = y, .x = wide};
    if (a->swiglu) ok(gdn_op_swiglu(queue, &s, &err), &err);
    return y;
}

static void projection(gdn_type type, int32_t n, int32_t k, const project_case *c) {
    enum { ROWS = 5 };
    float *v, *x = room((size_t)(ROWS * k) * 4), *z = room((size_t)(ROWS * k) * 4);
    float *w = room((size_t)k * 4), *before = room((size_t)(ROWS * n) * 4);
    for (int i = 0; i < ROWS * k; i++) x[i] = number(), z[i] = 3 * number();
    for (int i = 0; i < k; i++) w[i] = 1 + number();
    for (int i = 0; i < ROWS * n; i++) before[i] = number();
    gdn_weight *m = weight(type, n, k, &v);
    const int64_t heads = c->heads > 0 ? c->heads : 1, out = c->swiglu ? n / 2 : n;
    const bool split = c->heads > 0;
    const gdn_tensor in = split ? upload(x, 3, ROWS, heads, k / heads) : upload(x, 2, ROWS, k, 1);
    const gdn_tensor gate = split ? upload(z, 3, ROWS, heads, k / heads) : upload(z, 2, ROWS, k, 1);
    const gdn_tensor norm_w = upload(w, 1, k / heads, 1, 1);
    const gdn_tensor xn = scratch(GDN_F32, ROWS, k), wide = scratch(GDN_F32, ROWS, n);
    for (int rows = 1; rows <= ROWS; rows++) {
        gdn_err err;
        const gdn_tensor one = upload(before, 2, ROWS, out, 1), parts = upload(before, 2, ROWS, out, 1);
        gdn_project_args a = {.y = gdn_tensor_slice(one, 0, 0, rows),
                              .x = gdn_tensor_slice(in, 0, 0, rows), .w = m, .eps = 1e-6f,
                              .add = c->add, .swiglu = c->swiglu,
                              .work_x = gdn_tensor_slice(xn, 0, 0, rows),
                              .work_y = gdn_tensor_slice(wide, 0, 0, rows)};
        if (c->d != 0) a.norm_w = norm_w;
        if (c->gate) a.z = gdn_tensor_slice(gate, 0, 0, rows);
        ok(gdn_op_project(queue, &a, &err), &err);
        in_parts(&a, gdn_tensor_slice(parts, 0, 0, rows), a.work_x, a.work_y);
        float *got = download(one), *want = download(parts);
        for (int i = 0; i < ROWS * out; i++)
            if (memcmp(got + i, want + i, sizeof *got) != 0)
                fail_msg("%s %d x %d, %d rows, heads %d: element %d is %.9g, in parts %.9g",
                         gdn_type_name(type), n, k, rows, c->heads, i, (double)got[i],
                         (double)want[i]);
        free(got), free(want);
        gdn_buffer_free(one.buf), gdn_buffer_free(parts.buf);
    }
    gdn_buffer_free(in.buf), gdn_buffer_free(gate.buf), gdn_buffer_free(norm_w.buf);
    gdn_buffer_free(xn.buf), gdn_buffer_free(wide.buf);
    gdn_weight_free(m);
    free(v), free(x), free(z), free(w), free(before);
}

static void test_projections(void **state) {
    (void)state;
    static const project_case cases[] = {
        {0, 1, false, false, false}, {0, 1, true, false, true}, {0, 1, false, true, false},
        {0, 0, false, true, false},  {4, 1, true, false, true}, {9, 1, true, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int32_t heads = cases[i].heads > 0 ? cases[i].heads : 1;
        projection(GDN_BF16, 34, heads * 64, &cases[i]);
        projection(GDN_F8, 26, heads * 60 + 3 * heads, &cases[i]);
    }
    projection(GDN_BF16, 18, 2560, &cases[2]); /* rows that do not all fit into local memory */
    /* Heads with more than their items hold: long ones, and short ones. */
    static const project_case two = {2, 1, true, false, true}, three = {3, 1, true, true, false};
    projection(GDN_BF16, 18, 2 * 1100, &two);
    projection(GDN_F8, 18, 2 * 1101, &two);
    projection(GDN_BF16, 18, 3 * 160, &three);
    projection(GDN_F8, 18, 3 * 157, &three);
    projection(GDN_BF16, 18, 1192, &cases[0]);
}

int main(void) {
    gdn_err err;
    opencl_quickly();
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    if (gdn_device_open("xpu", NULL, &dev, &err) != GDN_OK ||
        gdn_queue_create(dev, &queue, &err) != GDN_OK) {
        printf("%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_projections),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    gdn_queue_free(queue);
    gdn_device_close(dev);
    opencl_end();
    return rc;
}
