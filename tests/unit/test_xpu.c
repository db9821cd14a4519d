/* test_xpu.c - the xpu device: its operators against the cpu's, its memory and queues, what it
 * refuses.  Any OpenCL device will do; without one there is nothing to test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gdn/gdn.h>
#include <gdn/op.h>

#include "../../src/backend/backend.h"
#include "../../src/base/half.h"
#include "opencl.h"

enum { CPU, XPU, SIDES, MAX_BUFFER = 64 };

static gdn_device *device[SIDES];
static gdn_queue  *queue[SIDES];
static gdn_buffer *owned[MAX_BUFFER];
static int n_owned;
static uint64_t rng = 1;

static double uniform(double lo, double hi) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(rng >> 40) * 0x1p-24;
}

static void ok(gdn_status st, const gdn_err *err) {
    if (st != GDN_OK) fail_msg("%s", err->text);
}

static void put(void *p, gdn_type t, int64_t i, double v) {
    if (t == GDN_F32) ((float *)p)[i] = (float)v;
    else if (t == GDN_I32) ((int32_t *)p)[i] = (int32_t)v;
    else ((uint16_t *)p)[i] = t == GDN_BF16 ? gdn_f32_to_bf16((float)v) : gdn_f32_to_f16((float)v);
}

static double get(const void *p, gdn_type t, int64_t i) {
    const uint16_t *h = p;
    return t == GDN_F32   ? (double)((const float *)p)[i]
           : t == GDN_I32 ? ((const int32_t *)p)[i]
                          : (double)(t == GDN_BF16 ? gdn_bf16_to_f32(h[i]) : gdn_f16_to_f32(h[i]));
}

/* --- the same tensor on both -------------------------------------------------------- */

typedef struct {
    gdn_tensor on[SIDES];
} both;

static both upload(const void *data, uint64_t bytes, gdn_tensor t) {
    both b;
    gdn_err err;
    for (int s = 0; s < SIDES; s++) {
        assert_true(n_owned < MAX_BUFFER);
        ok(gdn_buffer_alloc(device[s], bytes, &t.buf, &err), &err);
        owned[n_owned++] = t.buf;
        ok(gdn_queue_write(queue[s], t.buf, 0, data, bytes, &err), &err);
        b.on[s] = t;
    }
    return b;
}

enum { FRONT = 8, GAP = 3 }; /* elements before the tensor and behind each row */

/* Values from lo to hi, with a gap behind each row of the last dimension. */
static both make(gdn_type type, int32_t ndim, int64_t n0, int64_t n1, int64_t n2, double lo,
                 double hi) {
    const int64_t shape[] = {n0, n1, n2}, size = gdn_type_bytes(type), last = shape[ndim - 1];
    gdn_tensor t = gdn_tensor_dense(NULL, FRONT * (uint64_t)size, type, ndim, shape);
    int64_t row = (ndim > 1 ? last + GAP : last) * size, n = FRONT + GAP + last + GAP;
    for (int32_t i = ndim - 2; i >= 0; i--) {
        t.stride[i] = row;
        row *= shape[i];
    }
    if (ndim > 1) n = FRONT + GAP + row / size;
    char *data = malloc((size_t)(n * size));
    assert_non_null(data);
    for (int64_t i = 0; i < n; i++) put(data, type, i, uniform(lo, hi));
    const both b = upload(data, (uint64_t)(n * size), t);
    free(data);
    return b;
}

static both vector(gdn_type type, int64_t n, double lo, double hi) {
    return make(type, 1, n, 0, 0, lo, hi);
}

static both dense_f32(int64_t n0, int64_t n1, double lo, double hi) {
    const int64_t shape[] = {n0, n1};
    float *v = malloc((size_t)(n0 * n1) * sizeof *v);
    assert_non_null(v);
    for (int64_t i = 0; i < n0 * n1; i++) v[i] = (float)uniform(lo, hi);
    const both b = upload(v, (uint64_t)(n0 * n1) * sizeof *v,
                          gdn_tensor_dense(NULL, 0, GDN_F32, 2, shape));
    free(v);
    return b;
}

static both ints(const int32_t *v, int64_t n0, int64_t n1) {
    const int64_t shape[] = {n0, n1};
    return upload(v, (uint64_t)(n0 * (n1 > 0 ? n1 : 1)) * sizeof *v,
                  gdn_tensor_dense(NULL, 0, GDN_I32, n1 > 0 ? 2 : 1, shape));
}

static void drop_all(void) {
    while (n_owned > 0) gdn_buffer_free(owned[--n_owned]);
}

static void *download(int side, gdn_buffer *b) {
    gdn_err err;
    void *p = malloc(gdn_buffer_bytes(b));
    assert_non_null(p);
    ok(gdn_queue_read(queue[side], p, b, 0, gdn_buffer_bytes(b), &err), &err);
    ok(gdn_queue_wait(queue[side], &err), &err);
    return p;
}

/* Whole buffers, what lies around the tensor included. */
static void compare(const char *what, const both *b, double tolerance) {
    const gdn_type type = b->on[CPU].type;
    const int64_t n = (int64_t)gdn_buffer_bytes(b->on[CPU].buf) / gdn_type_bytes(type);
    char *want = download(CPU, b->on[CPU].buf), *have = download(XPU, b->on[XPU].buf);
    for (int64_t i = 0; i < n; i++) {
        const double w = get(want, type, i), h = get(have, type, i);
        if (!(fabs(w - h) <= tolerance * (1 + fabs(w))) && !(isnan(w) && isnan(h)))
            fail_msg("%s, %s: element %lld is %.9g, need %.9g", what, gdn_type_name(type),
                     (long long)i, h, w);
    }
    free(want), free(have);
}

/* Calls op on both with a, in which every tensor is set by SIDE. */
#define ON_BOTH(op, ...)                                     \
    for (int s = 0; s < SIDES; s++) {                        \
        gdn_err err_;                                        \
        ok(op(queue[s], &(__VA_ARGS__), &err_), &err_);      \
        ok(gdn_queue_wait(queue[s], &err_), &err_);          \
    }

/* What rounding to a type may move a value that is right to a few bits of f32. */
static double step_of(gdn_type t) { return t == GDN_F32 ? 3e-6 : t == GDN_BF16 ? 0.008 : 0.001; }

static const gdn_type floats[] = {GDN_F32, GDN_BF16, GDN_F16};

/* --- operators ---------------------------------------------------------------------- */

static void test_embed(void **state) {
    (void)state;
    const int32_t id[] = {4, 0, 6, 4, 1};
    for (int k = 0; k < 3; k++) {
        const both table = make(floats[k], 2, 7, 77, 0, -2, 2), ids = ints(id, 5, 0);
        const both y = make(GDN_F32, 2, 5, 77, 0, 5, 6);
        ON_BOTH(gdn_op_embed,
                (gdn_embed_args){.y = y.on[s], .ids = ids.on[s], .table = table.on[s]})
        compare("embed", &y, 0);
        drop_all();
    }
}

static void norms(int32_t ndim, gdn_type out, bool gated, int64_t d) {
    const both x = make(GDN_F32, ndim, 5, ndim == 3 ? 3 : d, d, -3, 3);
    const both z = make(GDN_F32, ndim, 5, ndim == 3 ? 3 : d, d, -3, 3);
    const both y = make(out, ndim, 5, ndim == 3 ? 3 : d, d, 5, 6), w = vector(GDN_F32, d, -1, 2);
    ON_BOTH(gdn_op_rms_norm, (gdn_rms_norm_args){.y = y.on[s], .x = x.on[s], .w = w.on[s],
                                                .z = gated ? z.on[s] : (gdn_tensor){0},
                                                .eps = 0.01f})
    compare("rms_norm", &y, step_of(out));
    drop_all();
}

static void test_rms_norm(void **state) {
    (void)state;
    for (int k = 0; k < 8; k++)
        norms(k & 1 ? 3 : 2, k & 2 ? GDN_BF16 : GDN_F32, k & 4, k & 1 ? 40 : 301);
    const both x = make(GDN_F32, 2, 4, 130, 0, -3, 3), w = vector(GDN_F32, 130, -1, 2);
    ON_BOTH(gdn_op_rms_norm, (gdn_rms_norm_args){.y = x.on[s], .x = x.on[s], .w = w.on[s],
                                                .eps = 0.01f})
    compare("rms_norm of itself", &x, 3e-6);
    drop_all();
}

static void test_rms_norm_gated(void **state) {
    (void)state;
    for (int k = 0; k < 36; k++) {
        const gdn_type in = floats[k % 3], out = floats[k / 3 % 3];
        const gdn_type weight = floats[(k + k / 9) % 3];
        const int32_t ndim = k % 2 ? 3 : 2;
        const both x = make(in, ndim, 3, ndim == 3 ? 2 : 136, 136, -3, 3);
        const both z = make(in, ndim, 3, ndim == 3 ? 2 : 136, 136, -3, 3);
        const both y = make(out, ndim, 3, ndim == 3 ? 2 : 136, 136, 5, 6);
        const both w = vector(weight, 136, -1, 2);
        ON_BOTH(gdn_rms_norm_gated,
                (gdn_rms_norm_gated_args){.y = y.on[s], .x = x.on[s], .z = z.on[s], .w = w.on[s],
                                          .eps = 1e-5f, .norm_after_gate = k % 4 >= 2,
                                          .gate = k / 9 % 2 ? GDN_GATE_SILU : GDN_GATE_SIGMOID})
        compare("rms_norm_gated", &y, step_of(out));
        drop_all();
    }
}

/* Exact, and with the values that round badly. */
static void test_cast(void **state) {
    (void)state;
    static const double odd[] = {0.0, -0.0, 65504, 65519, 65520, 1e30, 6e-8, 2.9e-8, -3e-6,
                                 INFINITY, -INFINITY, NAN, 1 + 0x1p-8, 1 + 3 * 0x1p-9, 1 + 0x1p-11};
    for (int k = 0; k < 9; k++) {
        const gdn_type to = floats[k % 3], from = floats[k / 3];
        const both x = make(from, 2, 3, 70, 0, -9, 9), y = make(to, 2, 3, 70, 0, 5, 6);
        char row[sizeof odd];
        const int64_t n = sizeof odd / sizeof *odd;
        for (int64_t i = 0; i < n; i++) put(row, from, i, odd[i]);
        if (from == GDN_F32) memset(row + 8, 0xff, 4); /* a NaN that rounding could carry away */
        for (int s = 0; s < SIDES; s++) {
            gdn_err err;
            ok(gdn_queue_write(queue[s], x.on[s].buf, x.on[s].at, row,
                               (uint64_t)(n * gdn_type_bytes(from)), &err), &err);
        }
        ON_BOTH(gdn_op_cast, (gdn_cast_args){.y = y.on[s], .x = x.on[s]})
        char *want = download(CPU, y.on[CPU].buf), *have = download(XPU, y.on[XPU].buf);
        const int64_t all = (int64_t)gdn_buffer_bytes(y.on[CPU].buf) / gdn_type_bytes(to);
        for (int64_t i = 0; i < all; i++) {
            const double v = get(want, to, i), h = get(have, to, i);
            if (isnan(v) ? !isnan(h) : v != h || signbit(v) != signbit(h))
                fail_msg("cast %s to %s: element %d is %g, need %g", gdn_type_name(from),
                         gdn_type_name(to), (int)i, h, v);
        }
        free(want), free(have);
        drop_all();
    }
}

static void test_swiglu(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        const both x = make(GDN_F32, 2, 3, 154, 0, -8, 8), y = make(floats[k], 2, 3, 77, 0, 5, 6);
        ON_BOTH(gdn_op_swiglu, (gdn_swiglu_op_args){.y = y.on[s], .x = x.on[s]})
        compare("swiglu", &y, step_of(floats[k]));
        drop_all();
    }
}

static void test_rope_angles(void **state) {
    (void)state;
    static const int32_t pos[] = {0, 0, 0, 1, 1, 1, 7, 3, 4, 262143, 11, 190, 1999999999, 5, 6};
    for (int mrope = 0; mrope < 2; mrope++)
        for (int64_t rot = 2; rot <= 66; rot += 32) {
            const both p = ints(pos, 5, 3), cs = dense_f32(5, rot, 5, 6);
            ON_BOTH(gdn_op_rope_angles,
                    (gdn_rope_angles_args){.cs = cs.on[s], .pos = p.on[s],
                                           .theta = rot == 34 ? 1e6 : 1e7,
                                           .section = {11, 4, 3}, .mrope = mrope})
            compare("rope_angles", &cs, 4e-7);
            drop_all();
        }
}

/* --- products ----------------------------------------------------------------------- */

enum { N = 29, K = 150, PARTS = 3, BLOCK_ROWS = 4, BLOCK_COLS = 32 };

typedef struct {
    gdn_weight *on[SIDES];
    uint64_t given;
} weights;

static void count(void *arg, const void *data, uint64_t bytes) {
    (void)data;
    ((weights *)arg)->given += bytes;
}

/* [N, K] in three parts, the second in another order, rows with gaps between them. */
static weights make_weight(gdn_type type, int side_of_done) {
    static const int64_t rows[PARTS] = {11, 8, 10};
    static const int32_t order[] = {7, 0, 6, 1, 5, 2, 4, 3};
    enum { COLS = (K + BLOCK_COLS - 1) / BLOCK_COLS, ROW = K + 5 };
    weights w = {{NULL, NULL}, 0};
    gdn_weight_part part[PARTS];
    float scale[PARTS][N * COLS];
    const int64_t size = gdn_type_bytes(type);
    char *data = malloc((size_t)(N * ROW * size)), *next = data;
    assert_non_null(data);
    for (int64_t i = 0; i < N * ROW; i++)
        if (type != GDN_F8) put(data, type, i, uniform(-1, 1));
        else data[i] = (char)(uniform(-1, 1) > 0 ? uniform(0, 0x7e) : -uniform(2, 127));
    for (int p = 0; p < PARTS; p++) {
        for (int i = 0; i < N * COLS; i++) scale[p][i] = (float)uniform(0.001, 0.004);
        part[p] = (gdn_weight_part){.data = next, .n_row = rows[p], .row_bytes = ROW * size,
                                    .order = p == 1 ? order : NULL, .scale_type = GDN_F32,
                                    .scale = type == GDN_F8 ? scale[p] : NULL};
        next += rows[p] * ROW * size;
    }
    for (int s = 0; s < SIDES; s++) {
        gdn_err err;
        const gdn_weight_desc desc = {.type = type, .n_expert = 1, .n = N, .k = K, .part = part,
                                      .n_part = PARTS, .scale_rows = BLOCK_ROWS,
                                      .scale_cols = BLOCK_COLS,
                                      .done = s == side_of_done ? count : NULL, .done_arg = &w};
        ok(gdn_weight_create(device[s], &desc, &w.on[s], &err), &err);
    }
    memset(data, 0x55, (size_t)(N * ROW * size)); /* it is not needed afterwards */
    free(data);
    return w;
}

static void free_weight(weights *w) {
    for (int s = 0; s < SIDES; s++) gdn_weight_free(w->on[s]);
}

static void products(gdn_type type, int64_t m, bool gather, bool add) {
    static const int32_t which[] = {3, 0, 8, 8, 1, 2, 7, 5, 6, 4};
    weights w = make_weight(type, XPU);
    assert_int_equal(w.given, N * (K + 5) * gdn_type_bytes(type));
    const both x = make(GDN_F32, 2, gather ? 9 : m, K, 0, -1, 1), row = ints(which, m, 0);
    const both y = make(GDN_F32, 2, m, N, 0, 5, 6);
    ON_BOTH(gdn_op_linear, (gdn_linear_op_args){.y = y.on[s], .x = x.on[s], .w = w.on[s],
                                               .add = add, .row = gather ? row.on[s] : (gdn_tensor){0}})
    compare("linear", &y, 1e-5);
    free_weight(&w);
    drop_all();
}

static void test_linear(void **state) {
    (void)state;
    static const gdn_type all[] = {GDN_F32, GDN_BF16, GDN_F16, GDN_F8};
    for (int k = 0; k < 4; k++)
        for (int m = 1; m <= 10; m += k == 0 ? 1 : 4) products(all[k], m, m % 2 == 0, m % 3 == 1);
    weights w = make_weight(GDN_BF16, -1);
    const both half = make(GDN_BF16, 2, 5, K, 0, -1, 1), z = make(GDN_F32, 2, 5, N, 0, 5, 6);
    w.on[CPU]->input_type = w.on[XPU]->input_type = GDN_BF16;
    ON_BOTH(gdn_op_linear, (gdn_linear_op_args){.y = z.on[s], .x = half.on[s], .w = w.on[s]})
    compare("linear of bf16", &z, 1e-5);
    const int32_t id[] = {0, 28, 11, 18, 12, 3};
    const both ids = ints(id, 6, 0), y = make(GDN_F32, 2, 6, K, 0, 5, 6);
    ON_BOTH(gdn_op_embed, (gdn_embed_args){.y = y.on[s], .ids = ids.on[s], .weight = w.on[s]})
    compare("embed of a weight", &y, 0);
    free_weight(&w);
    drop_all();
}

/* Every e4m3 byte, to the value that its fields say. */
static void test_f8(void **state) {
    (void)state;
    enum { BYTES = 256, WIDTH = 8 };
    static const float one = 1.0f;
    unsigned char data[BYTES][WIDTH] = {{0}};
    for (int i = 0; i < BYTES; i++) data[i][i % WIDTH] = (unsigned char)i;
    const gdn_weight_part part = {.data = data, .n_row = BYTES, .row_bytes = WIDTH,
                                  .scale = &one, .scale_type = GDN_F32};
    const gdn_weight_desc desc = {.type = GDN_F8, .n_expert = 1, .n = BYTES, .k = WIDTH, .part = &part,
                                  .n_part = 1, .scale_rows = BYTES, .scale_cols = WIDTH};
    gdn_weight *w;
    gdn_err err;
    ok(gdn_weight_create(device[XPU], &desc, &w, &err), &err);
    /* Inputs on vectors and not: weights are read accordingly. */
    const both x[] = {dense_f32(1, WIDTH, 1, 1), make(GDN_F32, 2, 1, WIDTH, 0, 1, 1)};
    const both y = make(GDN_F32, 2, 1, BYTES, 0, 5, 6);
    for (int k = 0; k < 2; k++) {
        const gdn_linear_op_args a = {.y = y.on[XPU], .x = x[k].on[XPU], .w = w};
        ok(gdn_op_linear(queue[XPU], &a, &err), &err);
        float *got = download(XPU, y.on[XPU].buf);
        for (int i = 0; i < BYTES; i++) {
            const int e = i >> 3 & 15, m = i & 7;
            const double size = e == 0 ? ldexp(m, -9) : ldexp(8 + m, e - 10);
            const double want = i < 128 ? size : -size, is = got[FRONT + i];
            if ((i & 0x7f) == 0x7f ? !isnan(is) : is != want)
                fail_msg("byte %02x is %g, not %g", (unsigned)i, is, want);
        }
        free(got);
    }
    gdn_weight_free(w);
    drop_all();
}

/* A row alone has the bits that it has among others. */
static void test_linear_rows(void **state) {
    (void)state;
    enum { M = 11 };
    gdn_err err;
    weights w = make_weight(GDN_BF16, -1);
    const both x = make(GDN_F32, 2, M, K, 0, -1, 1);
    const both y = make(GDN_F32, 2, M, N, 0, 5, 6), one = make(GDN_F32, 2, M, N, 0, 5, 6);
    gdn_linear_op_args a = {.y = y.on[XPU], .x = x.on[XPU], .w = w.on[XPU]};
    ok(gdn_op_linear(queue[XPU], &a, &err), &err);
    for (int i = 0; i < M; i++) {
        a.y = gdn_tensor_slice(one.on[XPU], 0, i, i + 1);
        a.x = gdn_tensor_slice(x.on[XPU], 0, i, i + 1);
        ok(gdn_op_linear(queue[XPU], &a, &err), &err);
    }
    float *all = download(XPU, y.on[XPU].buf), *each = download(XPU, one.on[XPU].buf);
    for (int i = 0; i < M; i++)
        assert_memory_equal(all + FRONT + i * (N + GAP), each + FRONT + i * (N + GAP),
                            N * sizeof *all);
    free(all), free(each);
    free_weight(&w);
    drop_all();
}

static void test_lora(void **state) {
    (void)state;
    enum { ADAPTERS = 3, IN = 70, OUT = 67 };
    static const int32_t index[] = {1, -1, 0, 2, 1, 0}, row[] = {5, 0, 0, 3, 1, 2, 4};
    static const int64_t rank[ADAPTERS] = {5, 1, 16};
    for (int k = 0; k < 4; k++) {
        const bool gather = k & 1;
        const int64_t m = gather ? 7 : 6;
        both a[ADAPTERS], b[ADAPTERS];
        for (int i = 0; i < ADAPTERS; i++) {
            a[i] = dense_f32(rank[i], IN, -1, 1);
            b[i] = dense_f32(OUT, rank[i], -1, 1);
        }
        const both x = make(k & 2 ? GDN_BF16 : GDN_F32, 2, m, IN, 0, -1, 1);
        const both y = make(GDN_F32, 2, m, OUT, 0, -1, 1), work = make(GDN_F32, 2, m, 16, 0, 5, 6);
        const both adapter = ints(index, 6, 0), rows = ints(row, m, 0);
        for (int s = 0; s < SIDES; s++) {
            gdn_lora l[ADAPTERS];
            gdn_err err;
            for (int i = 0; i < ADAPTERS; i++)
                l[i] = (gdn_lora){a[i].on[s], b[i].on[s], 0.5f + (float)i};
            l[2].a.buf = k == 3 ? NULL : l[2].a.buf; /* leaves the matrix alone */
            const gdn_lora_op_args op = {.y = y.on[s], .x = x.on[s], .adapter = adapter.on[s],
                                         .row = gather ? rows.on[s] : (gdn_tensor){0}, .lora = l,
                                         .n_lora = ADAPTERS, .work = work.on[s]};
            ok(gdn_op_lora(queue[s], &op, &err), &err);
            ok(gdn_queue_wait(queue[s], &err), &err);
        }
        compare("lora", &y, 1e-5);
        drop_all();
    }
}

/* --- faults ------------------------------------------------------------------------- */

static void refused(const char *text) {
    gdn_err err = {0};
    assert_int_equal(gdn_queue_wait(queue[XPU], &err), GDN_E_INVALID);
    assert_string_equal(err.text, text);
    ok(gdn_queue_wait(queue[XPU], &err), &err); /* once */
}

/* What the host cannot see fails the wait, and nothing outside is touched. */
static void test_faults(void **state) {
    (void)state;
    gdn_err err;
    static const int32_t bad[] = {2, 7, 1}, low[] = {0, 1, -1}, far[] = {0, 2, 3};
    const both table = make(GDN_F32, 2, 7, 9, 0, -2, 2), y = make(GDN_F32, 2, 3, 9, 0, 5, 6);
    both ids = ints(bad, 3, 0);
    gdn_embed_args embed = {.y = y.on[XPU], .ids = ids.on[XPU], .table = table.on[XPU]};
    ok(gdn_op_embed(queue[XPU], &embed, &err), &err);
    refused("embed: ids[1] is 7, outside the table");
    ids = ints(low, 3, 0);
    embed.ids = ids.on[XPU];
    ok(gdn_op_embed(queue[XPU], &embed, &err), &err);
    refused("embed: ids[2] is -1, outside the table");

    weights w = make_weight(GDN_F32, -1);
    const both x = make(GDN_F32, 2, 3, K, 0, -1, 1), rows = ints(far, 3, 0);
    const both out = make(GDN_F32, 2, 3, N, 0, 5, 6);
    gdn_linear_op_args linear = {.y = out.on[XPU], .x = x.on[XPU], .row = rows.on[XPU],
                                 .w = w.on[XPU]};
    ok(gdn_op_linear(queue[XPU], &linear, &err), &err);
    refused("linear: row[2] is 3, outside x");
    float *have = download(XPU, out.on[XPU].buf);
    const float *last = have + FRONT + 2 * (N + GAP);
    for (int i = 0; i < N; i++) assert_true(last[i] >= 5 && last[i] <= 6);
    free(have);
    linear.x.shape[0] = 0;
    assert_int_equal(gdn_op_linear(queue[XPU], &linear, &err), GDN_E_INVALID);
    free_weight(&w);

    const both work = make(GDN_F32, 2, 3, 4, 0, 0, 1), some = ints(far, 3, 0);
    const gdn_lora none[3] = {{.scale = 1}};
    gdn_lora_op_args lora = {.y = out.on[XPU], .x = x.on[XPU], .adapter = some.on[XPU],
                             .lora = none, .n_lora = 3, .work = work.on[XPU]};
    ok(gdn_op_lora(queue[XPU], &lora, &err), &err);
    refused("lora: adapter[2] is 3, outside the adapters");
    drop_all();
}

/* --- memory and queues -------------------------------------------------------------- */

static void test_buffers(void **state) {
    (void)state;
    gdn_err err;
    gdn_buffer *a, *b, *whole;
    unsigned char data[999], back[1003];
    for (int i = 0; i < 999; i++) data[i] = (unsigned char)(i * 7 + 1);
    gdn_buffer *used[8];
    for (int round = 0; round < 2; round++) { /* the second time memory that was used before */
        for (int k = 0; k < 8; k++) {
            ok(gdn_buffer_alloc(device[XPU], 1003, &used[k], &err), &err);
            ok(gdn_queue_read(queue[XPU], back, used[k], 0, 1003, &err), &err);
            ok(gdn_queue_wait(queue[XPU], &err), &err);
            for (int i = 0; i < 1003; i++) assert_int_equal(back[i], 0);
            ok(gdn_queue_write(queue[XPU], used[k], 0, data, 999, &err), &err);
            ok(gdn_queue_wait(queue[XPU], &err), &err);
        }
        for (int k = 0; k < 8; k++) gdn_buffer_free(used[k]);
    }
    ok(gdn_buffer_alloc(device[XPU], 1003, &a, &err), &err);
    assert_null(gdn_buffer_host(a));
    assert_int_equal(gdn_buffer_bytes(a), 1003);
    /* Wrapped memory is copied at once. */
    ok(gdn_buffer_wrap(device[XPU], data, 999, &b, &err), &err);
    memset(data, 0, sizeof data);
    ok(gdn_queue_copy(queue[XPU], a, 3, b, 1, 500, &err), &err);
    ok(gdn_queue_read(queue[XPU], back, a, 0, 1003, &err), &err);
    ok(gdn_queue_wait(queue[XPU], &err), &err);
    for (int i = 0; i < 1003; i++)
        assert_int_equal(back[i], i < 3 || i >= 503 ? 0 : (unsigned char)((i - 2) * 7 + 1));
    assert_int_equal(gdn_queue_copy(queue[XPU], a, 0, a, 100, 101, &err), GDN_E_INVALID);
    assert_int_equal(gdn_queue_write(queue[XPU], a, 1000, data, 4, &err), GDN_E_INVALID);
    /* What is written may be reused, small or large. */
    enum { LARGE = 3 << 20 };
    unsigned char *large = malloc(LARGE), *again = malloc(LARGE);
    assert_true(large != NULL && again != NULL);
    ok(gdn_buffer_alloc(device[XPU], LARGE, &whole, &err), &err);
    memset(large, 7, LARGE);
    ok(gdn_queue_write(queue[XPU], whole, 0, large, LARGE, &err), &err);
    memset(large, 9, LARGE);
    ok(gdn_queue_write(queue[XPU], whole, 10, large, 20, &err), &err);
    memset(large, 11, LARGE);
    ok(gdn_queue_read(queue[XPU], again, whole, 0, LARGE, &err), &err);
    ok(gdn_queue_wait(queue[XPU], &err), &err);
    for (int i = 0; i < LARGE; i++) assert_int_equal(again[i], i >= 10 && i < 30 ? 9 : 7);
    free(large), free(again);
    gdn_buffer *none = NULL;
    assert_int_equal(gdn_buffer_alloc(device[XPU], UINT64_C(1) << 60, &none, &err), GDN_E_NOMEM);
    assert_non_null(strstr(err.text, "it gives at most"));
    gdn_buffer_free(a), gdn_buffer_free(b), gdn_buffer_free(whole);
}

/* Tensors of memory without an address share bytes of their buffer, and none of another's. */
static void test_apart(void **state) {
    (void)state;
    gdn_err err;
    gdn_buffer *a, *b;
    ok(gdn_buffer_alloc(device[XPU], 4096, &a, &err), &err);
    ok(gdn_buffer_alloc(device[XPU], 4096, &b, &err), &err);
    const int64_t shape[2] = {4, 8};
    gdn_cast_args c = {.y = gdn_tensor_dense(a, 0, GDN_F32, 2, shape),
                       .x = gdn_tensor_dense(b, 4, GDN_F32, 2, shape)};
    ok(gdn_op_cast(queue[XPU], &c, &err), &err);
    c.x.buf = a;
    assert_int_equal(gdn_op_cast(queue[XPU], &c, &err), GDN_E_INVALID);
    assert_string_equal(err.text, "cast: y overlaps x and is not x itself");
    c.x.at = 0;
    ok(gdn_op_cast(queue[XPU], &c, &err), &err);
    c.x.stride[0] = c.y.stride[0] = 64; /* side by side */
    c.x.at = 32;
    ok(gdn_op_cast(queue[XPU], &c, &err), &err);
    c.x.at = 28;
    assert_int_equal(gdn_op_cast(queue[XPU], &c, &err), GDN_E_INVALID);
    ok(gdn_queue_wait(queue[XPU], &err), &err);
    gdn_buffer_free(a), gdn_buffer_free(b);
}

static void test_names(void **state) {
    (void)state;
    gdn_err err;
    gdn_device *d;
    assert_int_equal(gdn_device_open("xpu:x", NULL, &d, &err), GDN_E_INVALID);
    assert_int_equal(gdn_device_open("xpu:", NULL, &d, &err), GDN_E_INVALID);
    assert_int_equal(gdn_device_open("xpu:99", NULL, &d, &err), GDN_E_INVALID);
    assert_string_equal(gdn_device_name(device[XPU]), "xpu:0");
    gdn_device_info info[32];
    const int n = gdn_devices(info, 32);
    assert_string_equal(info[0].name, "cpu");
    assert_true(n >= 2);
    assert_string_equal(info[1].name, "xpu:0");
    assert_true(info[1].memory_bytes > 0);
    ok(gdn_device_open(NULL, NULL, &d, &err), &err); /* the default is no stand-in */
    assert_memory_equal(gdn_device_name(d), "cpu", 3);
    gdn_device_close(d);
}

/* --- compiled kernels on disk ------------------------------------------------------- */

/* The files kept, each cut to half or with a byte changed; how many there are. */
static int spoil(bool cut) {
    char dir[64], path[512];
    int n = 0;
    snprintf(dir, sizeof dir, "%s/gdn", opencl_folder);
    DIR *d = opendir(dir);
    if (d == NULL) return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, "xpu-", 4) != 0) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        fseek(f, 0, SEEK_END);
        const long bytes = ftell(f);
        fseek(f, bytes / 2, SEEK_SET);
        if (cut) assert_int_equal(ftruncate(fileno(f), bytes / 2), 0);
        else fputc(0x5a, f), fputc(0xa5, f);
        fclose(f);
        n++;
    }
    closedir(d);
    return n;
}

static void once_more(void) {
    gdn_err err;
    gdn_queue_free(queue[XPU]);
    gdn_device_close(device[XPU]);
    ok(gdn_device_open("xpu", NULL, &device[XPU], &err), &err);
    ok(gdn_queue_create(device[XPU], &queue[XPU], &err), &err);
    const both x = make(GDN_F32, 2, 3, 154, 0, -8, 8), y = make(GDN_F32, 2, 3, 77, 0, 5, 6);
    ON_BOTH(gdn_op_swiglu, (gdn_swiglu_op_args){.y = y.on[s], .x = x.on[s]})
    compare("swiglu", &y, 3e-6);
    drop_all();
}

static void test_kept(void **state) {
    (void)state;
    setenv("XDG_CACHE_HOME", opencl_folder, 1);
    once_more();
    assert_true(spoil(false) > 0);
    once_more();
    assert_true(spoil(true) > 0);
    once_more();
}

/* --- around them -------------------------------------------------------------------- */

static int open_devices(void **state) {
    (void)state;
    gdn_err err;
    gdn_device_opts o;
    gdn_device_opts_defaults(&o);
    o.isa_mask = 0;
    for (int s = 0; s < SIDES; s++) {
        if (gdn_device_open(s == CPU ? "cpu:1" : "xpu", &o, &device[s], &err) != GDN_OK ||
            gdn_queue_create(device[s], &queue[s], &err) != GDN_OK) {
            fprintf(stderr, "%s\n", err.text);
            return -1;
        }
    }
    return 0;
}

static int close_devices(void **state) {
    (void)state;
    for (int s = 0; s < SIDES; s++) gdn_queue_free(queue[s]), gdn_device_close(device[s]);
    return 0;
}

int main(void) {
    opencl_quickly();
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),       cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_apart),
        cmocka_unit_test(test_embed),       cmocka_unit_test(test_rms_norm),
        cmocka_unit_test(test_rms_norm_gated), cmocka_unit_test(test_cast),
        cmocka_unit_test(test_swiglu),      cmocka_unit_test(test_rope_angles),
        cmocka_unit_test(test_linear),      cmocka_unit_test(test_f8), cmocka_unit_test(test_linear_rows),
        cmocka_unit_test(test_lora),        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_kept),
    };
    const int rc = cmocka_run_group_tests(tests, open_devices, close_devices);
    opencl_end();
    return rc;
}
