/* test_xpu_xmx.c - tier X of the xpu device (backend/xpu_x.h) by the model of its engine: what the
 * macros of xpu_xmx.cl do with operands, products with packed weights in all forms, projections in
 * one launch against their parts, which tier a device gets, a whole model.  Both sizes of a sub-group. */
#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

#include "../../src/backend/xpu_x.h"
#include "../../src/base/half.h"
#include "opencl.h"

static gdn_device *device;
static gdn_queue  *queue;
static uint64_t rng;

static double uniform(double lo, double hi) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(rng >> 40) * 0x1p-24;
}

static void open_tier(const char *tier) {
    gdn_err err;
    setenv("GDN_XPU_TIER", tier, 1);
    must(gdn_device_open("xpu", NULL, &device, &err), &err);
    must(gdn_queue_create(device, &queue, &err), &err);
    rng = 1;
}

static void close_tier(void) {
    gdn_queue_free(queue);
    gdn_device_close(device);
    unsetenv("GDN_XPU_TIER");
}

/* --- operands ----------------------------------------------------------------------- */

/* What every sub-group of two makes of matrices a [8][16] and b [16][SG] in bf16, packed as in the
 * comment of xpu_xmx.cl, and c [8][SG] (sub-group 1: minus c).  out: [sub-group][10][8][SG]. */
static const char operands_text[] =
    "XMX_KERNEL(2) void operands(__global ushort *a, __global ushort *b, __global float *c,\n"
    "                            __global ushort *bt, __global float *out) {\n"
    "    XMX_BEGIN(2);\n"
    "    __local ushort la[2 * 128] __attribute__((aligned(16)));\n"
    "    __local uint lb[2 * 8 * SG] __attribute__((aligned(16)));\n"
    "    for (int i = SG_LANE; i < 128; i += SG) la[SG_ID * 128 + i] = a[i];\n"
    "    for (int i = 0; i < 8; i++)\n"
    "        lb[(SG_ID * 8 + i) * SG + SG_LANE] = ((__global uint *)b)[i * SG + SG_LANE];\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    float8 v = xmx_load_c(c);\n"
    "    if (SG_ID == 1) v = -v;\n"
    "    __global float *o = out + SG_ID * 10 * 8 * SG;\n"
    "    xmx_store_c(o, xmx_mad(xmx_load_a(a), xmx_load_b(b), v));\n"
    "    o += 8 * SG;\n"
    "    xmx_store_c(o, xmx_mad(xmx_load_a_local(la + SG_ID * 128),\n"
    "                           xmx_load_b_local(lb + SG_ID * 8 * SG), v));\n"
    "    o += 8 * SG;\n"
    "    xmx_store_c(o, xmx_mad(xmx_a_of(xmx_a_row(a), xmx_a_row(a + 16), xmx_a_row(a + 32),\n"
    "                                    xmx_a_row(a + 48), xmx_a_row(a + 64), xmx_a_row(a + 80),\n"
    "                                    xmx_a_row(a + 96), xmx_a_row(a + 112)),\n"
    "                           xmx_b_of_row(bt + SG_LANE * 16), v));\n"
    "    o += 8 * SG;\n"
    "    float8 left = v, cols[XMX_C_OF_A];\n" /* A from C: its columns 0 .. 15 */
    "    for (int i = 0; i < XMX_C_OF_A; i++) cols[i] = v * (float)(1 + i);\n"
    "    xmx_store_c(o, xmx_mad(xmx_a_of_c(cols), xmx_load_b(b), v));\n"
    "    o += 8 * SG;\n"
    "    xmx_store_c(o, xmx_mad(xmx_load_a(a), xmx_b_of_c(v, v * 3.0f), v));\n"
    "    o += 8 * SG;\n"
    "    v.s0 = sg_sum(left.s0), v.s1 = sg_max(left.s1);\n"
    "    v.s2 = sg_shuffle(left.s2, SG_LANE ^ 3), v.s3 = sg_broadcast(left.s3, 5);\n"
    "    v.s4 = (float)sg_shuffle_u((uint)(SG_LANE * 7), SG - 1 - SG_LANE);\n"
    "    v.s5 = (float)SG_LANE, v.s6 = (float)SG_ID, v.s7 = 0.0f;\n"
    "    xmx_store_c(o, v);\n"
    "    __local float rows[2 * 8 * SG];\n"
    "    xmx_put_rows(rows + SG_ID * 8 * SG, left);\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    o += 8 * SG;\n"
    "    for (int i = SG_LANE; i < 8 * SG; i += SG) o[i] = rows[SG_ID * 8 * SG + i];\n"
    "}\n";

static cl_mem device_copy(cl_context x, const void *p, size_t bytes) {
    cl_int e;
    cl_mem m = xpu_cl.clCreateBuffer(x, CL_MEM_COPY_HOST_PTR, bytes, (void *)(uintptr_t)p, &e);
    assert_int_equal(e, CL_SUCCESS);
    return m;
}

static double half_of(double v) { return gdn_bf16_to_f32(gdn_f32_to_bf16((float)v)); }

static void operands(const char *tier) {
    enum { MOST = 16, OUT = 2 * 10 * 8 * MOST };
    open_tier(tier);
    const xpu_device *d = (const xpu_device *)device;
    const int sg = d->sg;
    double a[8][16], b[16][MOST], c[8][MOST];
    uint16_t pa[128], pb[16 * MOST], pt[16 * MOST];
    float pc[8 * MOST], out[OUT] = {0};
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 16; k++)
            a[i][k] = gdn_bf16_to_f32(pa[i * 16 + k] = gdn_f32_to_bf16((float)uniform(-1, 1)));
    for (int k = 0; k < 16; k++)
        for (int n = 0; n < sg; n++) {
            const uint16_t h = gdn_f32_to_bf16((float)uniform(-1, 1));
            b[k][n] = gdn_bf16_to_f32(h);
            pb[(k / 2 * sg + n) * 2 + k % 2] = pt[n * 16 + k] = h;
        }
    for (int i = 0; i < 8 * sg; i++) c[i / sg][i % sg] = pc[i] = (float)uniform(-1, 1);

    xpu_text t;
    cl_int e;
    assert_true(xpu_text_of("linear_xmx", sg, true, false, &t));
    t.text[t.n - 1] = operands_text;
    strcat(t.options, " -cl-opt-disable"); /* it compiles long enough */
    cl_program p = xpu_cl.clCreateProgramWithSource(d->context, (cl_uint)t.n, t.text, NULL, &e);
    assert_int_equal(xpu_cl.clBuildProgram(p, 1, &d->id, t.options, NULL, NULL), CL_SUCCESS);
    cl_kernel k = xpu_cl.clCreateKernel(p, "operands", &e);
    assert_int_equal(e, CL_SUCCESS);
    cl_mem m[] = {device_copy(d->context, pa, sizeof pa), device_copy(d->context, pb, sizeof pb),
                  device_copy(d->context, pc, sizeof pc), device_copy(d->context, pt, sizeof pt),
                  device_copy(d->context, out, sizeof out)};
    for (cl_uint i = 0; i < 5; i++) xpu_cl.clSetKernelArg(k, i, sizeof m[i], &m[i]);
    const size_t items = (size_t)(2 * sg);
    assert_int_equal(xpu_cl.clEnqueueNDRangeKernel(d->upload, k, 1, NULL, &items, &items, 0, NULL,
                                                   NULL), CL_SUCCESS);
    assert_int_equal(xpu_cl.clEnqueueReadBuffer(d->upload, m[4], CL_TRUE, 0, sizeof out, out, 0,
                                                NULL, NULL), CL_SUCCESS);
    for (int g = 0; g < 2; g++) {
        const double sign = g == 1 ? -1 : 1;
        double want[7][8][MOST] = {{{0}}}, sum = 0, most = -2;
        for (int n = 0; n < sg; n++) {
            sum += sign * c[0][n];
            most = fmax(most, sign * c[1][n]);
        }
        for (int i = 0; i < 8; i++)
            for (int n = 0; n < sg; n++) {
                const double own = sign * c[i][n];
                double ab = 0, cb = 0, ac = 0;
                for (int kk = 0; kk < 16; kk++) {
                    ab += a[i][kk] * b[kk][n];
                    cb += half_of(sign * c[i][kk % sg] * (1 + kk / sg)) * b[kk][n];
                    ac += a[i][kk] * half_of(sign * c[kk % 8][n] * (kk < 8 ? 1 : 3));
                }
                want[0][i][n] = want[1][i][n] = want[2][i][n] = ab + own;
                want[3][i][n] = cb + own;
                want[4][i][n] = ac + own;
                const double other[8] = {sum, most, sign * c[2][n ^ 3], sign * c[3][5],
                                         7.0 * (sg - 1 - n), n, g, 0};
                want[5][i][n] = other[i];
                want[6][i][n] = own;
            }
        for (int w = 0; w < 7; w++)
            for (int i = 0; i < 8 * sg; i++) {
                const double have = out[(g * 10 + w) * 8 * sg + i];
                if (!(fabs(have - want[w][i / sg][i % sg]) < 3e-6))
                    fail_msg("%s: sub-group %d, result %d, row %d, column %d is %g, need %g", tier,
                             g, w, i / sg, i % sg, have, want[w][i / sg][i % sg]);
            }
    }
    for (int i = 0; i < 5; i++) xpu_cl.clReleaseMemObject(m[i]);
    xpu_cl.clReleaseKernel(k);
    xpu_cl.clReleaseProgram(p);
    close_tier();
}

static void test_operands(void **state) {
    (void)state;
    operands("emulated");
    operands("emulated8");
}

/* --- products ----------------------------------------------------------------------- */

enum { MOST_ROWS = 104, GAP = 6 }; /* elements behind each row */

typedef struct {
    int32_t     n, k;
    int         skew;  /* elements before x and y */
    uint16_t   *w;     /* [n][k + GAP], NaN in the gaps */
    uint16_t   *x;     /* [MOST_ROWS][k + GAP], too */
    gdn_weight *weight;
    gdn_buffer *xs, *wide; /* x in bf16 and in f32 */
} product;

static gdn_tensor rows(gdn_buffer *b, gdn_type t, int skew, int64_t n, int64_t cols) {
    const int64_t shape[] = {n, cols}, size = gdn_type_bytes(t);
    gdn_tensor r = gdn_tensor_dense(b, (uint64_t)(skew * size), t, 2, shape);
    r.stride[0] = (cols + GAP) * size;
    return r;
}

/* In two parts, the second in another order. */
static product make(int32_t n, int32_t k, int skew) {
    product p = {.n = n, .k = k, .skew = skew};
    gdn_err err;
    const int64_t row = k + GAP;
    const int32_t first = n == 1 ? 1 : n / 3;
    p.w = malloc((size_t)(n * row) * sizeof *p.w);
    p.x = malloc((size_t)(MOST_ROWS * row + skew) * sizeof *p.x);
    float *wide = malloc((size_t)(MOST_ROWS * row + skew) * sizeof *wide);
    int32_t *order = malloc((size_t)n * sizeof *order);
    uint16_t *file = malloc((size_t)(n * row) * sizeof *file);
    assert_true(p.w != NULL && p.x != NULL && wide != NULL && order != NULL && file != NULL);
    for (int64_t i = 0; i < n * row; i++)
        p.w[i] = i % row < k ? gdn_f32_to_bf16((float)uniform(-1, 1)) : 0x7fc0;
    for (int64_t i = -skew; i < MOST_ROWS * row; i++) {
        const uint16_t h = i >= 0 && i % row < k ? gdn_f32_to_bf16((float)uniform(-1, 1)) : 0x7fc0;
        p.x[i + skew] = h;
        wide[i + skew] = gdn_bf16_to_f32(h);
    }
    for (int32_t i = 0; i < n; i++) {
        order[i] = i < first ? i : n - 1 - i; /* of the second part: from its end */
        memcpy(file + (i < first ? i : first + order[i]) * row, p.w + i * row,
               (size_t)row * sizeof *file);
    }
    const gdn_weight_part part[] = {
        {.data = file, .n_row = first, .row_bytes = row * 2},
        {.data = file + first * row, .n_row = n - first, .row_bytes = row * 2,
         .order = order + first},
    };
    const gdn_weight_desc desc = {.type = GDN_BF16, .n_expert = 1, .n = n, .k = k, .part = part,
                                  .n_part = first < n ? 2 : 1};
    must(gdn_weight_create(device, &desc, &p.weight, &err), &err);
    must(gdn_buffer_alloc(device, (uint64_t)(MOST_ROWS * row + skew) * 2, &p.xs, &err), &err);
    must(gdn_buffer_alloc(device, (uint64_t)(MOST_ROWS * row + skew) * 4, &p.wide, &err), &err);
    must(gdn_queue_write(queue, p.xs, 0, p.x, gdn_buffer_bytes(p.xs), &err), &err);
    must(gdn_queue_write(queue, p.wide, 0, wide, gdn_buffer_bytes(p.wide), &err), &err);
    must(gdn_queue_wait(queue, &err), &err);
    free(order), free(wide), free(file);
    return p;
}

static void drop(product *p) {
    gdn_weight_free(p->weight);
    gdn_buffer_free(p->xs);
    gdn_buffer_free(p->wide);
    free(p->w), free(p->x);
}

static const float before = 5.5f; /* what y holds */

/* y, with what lies around it: [skew + m (n + GAP)]. */
static float *run(const product *p, gdn_type type, int64_t from, int64_t m, const int32_t *row,
                  bool add) {
    gdn_err err;
    gdn_buffer *y, *r = NULL;
    const int64_t all = p->skew + m * (p->n + GAP);
    float *v = malloc((size_t)all * sizeof *v);
    assert_non_null(v);
    for (int64_t i = 0; i < all; i++) v[i] = before;
    must(gdn_buffer_alloc(device, (uint64_t)all * sizeof *v, &y, &err), &err);
    must(gdn_queue_write(queue, y, 0, v, (uint64_t)all * sizeof *v, &err), &err);
    const gdn_tensor x = rows(type == GDN_F32 ? p->wide : p->xs, type, p->skew, MOST_ROWS, p->k);
    gdn_linear_op_args a = {.y = rows(y, GDN_F32, p->skew, m, p->n), .w = p->weight, .add = add,
                            .x = row != NULL ? x : gdn_tensor_slice(x, 0, from, from + m)};
    if (row != NULL) {
        must(gdn_buffer_alloc(device, (uint64_t)m * sizeof *row, &r, &err), &err);
        must(gdn_queue_write(queue, r, 0, row, (uint64_t)m * sizeof *row, &err), &err);
        a.row = gdn_tensor_dense(r, 0, GDN_I32, 1, &m);
    }
    must(gdn_op_linear(queue, &a, &err), &err);
    must(gdn_queue_read(queue, v, y, 0, (uint64_t)all * sizeof *v, &err), &err);
    must(gdn_queue_wait(queue, &err), &err);
    gdn_buffer_free(y);
    gdn_buffer_free(r);
    return v;
}

static void check_around(const product *p, const float *v, int64_t m) {
    for (int64_t i = 0; i < p->skew + m * (p->n + GAP); i++)
        if ((i < p->skew || (i - p->skew) % (p->n + GAP) >= p->n) && v[i] != before)
            fail_msg("%d x %d: element %d around y was written", p->n, p->k, (int)i);
}

/* Products of bf16 are exact in f32; k of them were added, in an order of which nothing is
 * supposed. */
static void check_value(const product *p, float have, int64_t from, int64_t o, double start) {
    double sum = start, size = fabs(start);
    for (int64_t i = 0; i < p->k; i++) {
        const double v = (double)gdn_bf16_to_f32(p->x[p->skew + from * (p->k + GAP) + i]) *
                         (double)gdn_bf16_to_f32(p->w[o * (p->k + GAP) + i]);
        sum += v;
        size += fabs(v);
    }
    if (!(fabs(sum - (double)have) <= 1e-6 * size + 1e-30))
        fail_msg("%d x %d: row %d, output %d is %.9g, need %.9g", p->n, p->k, (int)from, (int)o,
                 (double)have, sum);
}

/* Row i has the bits that row from[i] has alone. */
static void check_rows(const product *p, const float *one, const float *v, int64_t m,
                       const int32_t *row, int64_t first) {
    check_around(p, v, m);
    for (int64_t i = 0; i < m; i++) {
        const int64_t from = row != NULL ? row[i] : first + i;
        if (memcmp(v + p->skew + i * (p->n + GAP), one + from * p->n,
                   (size_t)p->n * sizeof *v) != 0)
            fail_msg("%d x %d: row %d of %d, row %d of x, has other bits than alone", p->n, p->k,
                     (int)i, (int)m, (int)from);
    }
}

/* many: the largest number of rows; the numbers up to 40 all, or a few. */
static void products(int32_t n, int32_t k, int skew, gdn_type type, int many, int step) {
    product p = make(n, k, skew);
    assert_int_equal(gdn_weight_input_type(p.weight), GDN_BF16);
    float *one = malloc((size_t)(many * n) * sizeof *one);
    assert_non_null(one);
    for (int64_t i = 0; i < many; i++) {
        float *v = run(&p, type, i, 1, NULL, false);
        check_around(&p, v, 1);
        for (int64_t o = 0; o < n; o += i < 9 ? 1 : 1 + n / 7) check_value(&p, v[skew + o], i, o, 0);
        memcpy(one + i * n, v + skew, (size_t)n * sizeof *one);
        free(v);
    }
    int32_t row[MOST_ROWS];
    for (int m = 2; m <= many; m += m < 40 ? step : 31) {
        const bool gather = m % 3 == 2;
        for (int i = 0; i < m; i++) row[i] = (int32_t)uniform(0, many - 0.001);
        const int64_t first = many - m > 3 ? 3 : many - m;
        float *v = run(&p, type, first, m, gather ? row : NULL, false);
        check_rows(&p, one, v, m, gather ? row : NULL, first);
        free(v);
    }
    for (int m = 1; m <= many; m = m * 9) { /* y += : the sum, then the addition */
        float *v = run(&p, type, 0, m, NULL, true);
        check_around(&p, v, m);
        for (int64_t i = 0; i < m; i++)
            for (int64_t o = 0; o < n; o++)
                if (v[skew + i * (n + GAP) + o] != before + one[i * n + o])
                    fail_msg("%d x %d: row %d of %d, output %d added is %.9g, need %.9g", n, k,
                             (int)i, m, (int)o, (double)v[skew + i * (n + GAP) + o],
                             (double)(before + one[i * n + o]));
        free(v);
    }
    free(one);
    drop(&p);
}

static void test_products(void **state) {
    (void)state;
    open_tier("emulated");
    products(77, 333, 1, GDN_BF16, 40, 1);  /* nothing divides, rows at odd halves  */
    products(30, 272, 0, GDN_BF16, 104, 3); /* rows as they lie; tiles with edges   */
    products(130, 40, 0, GDN_BF16, 70, 23);
    products(1, 1, 0, GDN_BF16, 9, 2);      /* the smallest                         */
    products(48, 2048, 2, GDN_BF16, 10, 8); /* beta and decay of the released shape */
    products(33, 150, 1, GDN_F32, 11, 1);
    close_tier();
}

static void test_products_8(void **state) {
    (void)state;
    open_tier("emulated8");
    products(29, 272, 0, GDN_BF16, 71, 15);
    products(33, 333, 1, GDN_BF16, 10, 4);
    products(33, 150, 1, GDN_F32, 6, 2);
    close_tier();
}

/* The cpu computes the same, of the same values in f32. */
static void test_beside_cpu(void **state) {
    (void)state;
    enum { M = 12 };
    gdn_err err;
    open_tier("emulated");
    product p = make(200, 1024, 0);
    float *have = run(&p, GDN_BF16, 0, M, NULL, false);
    gdn_device *xpu = device;
    gdn_queue *xq = queue;
    must(gdn_device_open("cpu:1", NULL, &device, &err), &err);
    must(gdn_queue_create(device, &queue, &err), &err);
    rng = 1;
    product c = make(200, 1024, 0);
    assert_memory_equal(c.w, p.w, 200 * (1024 + GAP) * sizeof *c.w);
    float *want = run(&c, GDN_F32, 0, M, NULL, false);
    for (int i = 0; i < M * (200 + GAP); i++)
        if (!(fabsf(have[i] - want[i]) <= 4e-5f))
            fail_msg("element %d is %.9g, the cpu has %.9g", i, (double)have[i], (double)want[i]);
    free(have), free(want);
    drop(&c);
    gdn_queue_free(queue);
    gdn_device_close(device);
    device = xpu, queue = xq;
    drop(&p);
    close_tier();
}

static void test_embed(void **state) {
    (void)state;
    static const int32_t id[] = {28, 0, 13, 28};
    enum { N = 29, K = 150, M = 4 };
    const int64_t m = M, shape[] = {M, K};
    gdn_err err;
    for (int s = 0; s < 2; s++) {
        float v[M * K];
        gdn_buffer *y, *ids;
        open_tier(s == 0 ? "emulated" : "emulated8");
        product p = make(N, K, 0);
        must(gdn_buffer_alloc(device, sizeof v, &y, &err), &err);
        must(gdn_buffer_alloc(device, sizeof id, &ids, &err), &err);
        must(gdn_queue_write(queue, ids, 0, id, sizeof id, &err), &err);
        must(gdn_op_embed(queue, &(gdn_embed_args){.y = gdn_tensor_dense(y, 0, GDN_F32, 2, shape),
                                                   .ids = gdn_tensor_dense(ids, 0, GDN_I32, 1, &m),
                                                   .weight = p.weight}, &err), &err);
        must(gdn_queue_read(queue, v, y, 0, sizeof v, &err), &err);
        must(gdn_queue_wait(queue, &err), &err);
        for (int i = 0; i < M * K; i++)
            assert_true(v[i] == gdn_bf16_to_f32(p.w[id[i / K] * (K + GAP) + i % K]));
        gdn_buffer_free(y);
        gdn_buffer_free(ids);
        drop(&p);
        close_tier();
    }
}

/* Every form finds a row that is outside. */
static void test_faults(void **state) {
    (void)state;
    gdn_err err;
    open_tier("emulated");
    product p = make(20, 32, 0), odd = make(20, 33, 1);
    for (int f = 0; f < 6; f++) {
        static const int64_t rows_of[] = {1, 5, 30, 70, 3, 3};
        const int64_t m = rows_of[f];
        const product *of = f == 5 ? &odd : &p;
        int32_t row[70] = {0};
        gdn_buffer *y, *r;
        row[m - 1] = f % 2 ? -1 : MOST_ROWS;
        must(gdn_buffer_alloc(device, (uint64_t)(m * (20 + GAP) + 1) * 4, &y, &err), &err);
        must(gdn_buffer_alloc(device, sizeof row, &r, &err), &err);
        must(gdn_queue_write(queue, r, 0, row, sizeof row, &err), &err);
        const gdn_type type = f == 4 ? GDN_F32 : GDN_BF16;
        const gdn_linear_op_args a = {
            .y = rows(y, GDN_F32, 0, m, 20), .w = of->weight,
            .x = rows(type == GDN_F32 ? of->wide : of->xs, type, of->skew, MOST_ROWS, of->k),
            .row = gdn_tensor_dense(r, 0, GDN_I32, 1, &m)};
        must(gdn_op_linear(queue, &a, &err), &err);
        char text[80];
        snprintf(text, sizeof text, "linear: row[%d] is %d, outside x", (int)m - 1, row[m - 1]);
        assert_int_equal(gdn_queue_wait(queue, &err), GDN_E_INVALID);
        assert_string_equal(err.text, text);
        gdn_buffer_free(y);
        gdn_buffer_free(r);
    }
    drop(&p);
    drop(&odd);
    close_tier();
}

/* --- projections -------------------------------------------------------------------- */

typedef struct {
    int32_t n;
    int     heads, d;         /* of a row; heads 0: it is normalised whole */
    bool    norm, gate, add, swiglu;
    gdn_type y;
    int     fit;              /* rows that one launch takes */
} project_case;

static gdn_tensor filled(int64_t n_row, int64_t cols, float lo, float hi) {
    const int64_t shape[] = {n_row, cols};
    const uint64_t bytes = (uint64_t)(n_row * cols) * sizeof(float);
    gdn_buffer *b;
    gdn_err err;
    float *v = malloc(bytes);
    assert_non_null(v);
    for (int64_t i = 0; i < n_row * cols; i++) v[i] = (float)uniform(lo, hi);
    must(gdn_buffer_alloc(device, bytes, &b, &err), &err);
    must(gdn_queue_write(queue, b, 0, v, bytes, &err), &err);
    must(gdn_queue_wait(queue, &err), &err);
    free(v);
    return gdn_tensor_dense(b, 0, GDN_F32, 2, shape);
}

/* The same memory, as rows of another type. */
static gdn_tensor typed(gdn_tensor t, gdn_type type) {
    return gdn_tensor_dense(t.buf, 0, type, 2, t.shape);
}

static gdn_tensor by_heads(gdn_tensor t, int64_t heads) {
    if (heads == 0) return t;
    const int64_t shape[] = {t.shape[0], heads, t.shape[1] / heads};
    return gdn_tensor_dense(t.buf, 0, t.type, 3, shape);
}

static void in_parts(const gdn_project_args *a, int64_t heads) {
    gdn_err err;
    gdn_linear_op_args l = {.y = a->swiglu ? a->work_y : a->y, .x = a->x, .w = a->w, .add = a->add};
    if (a->norm_w.buf != NULL) {
        must(gdn_op_rms_norm(queue, &(gdn_rms_norm_args){.y = by_heads(a->work_x, heads), .x = a->x,
                                                         .z = a->z, .w = a->norm_w, .eps = a->eps},
                             &err), &err);
        l.x = a->work_x;
    }
    must(gdn_op_linear(queue, &l, &err), &err);
    if (a->swiglu)
        must(gdn_op_swiglu(queue, &(gdn_swiglu_op_args){.y = a->y, .x = a->work_y}, &err), &err);
}

static void projection(const project_case *c) {
    enum { MOST = 9 };
    gdn_err err;
    const int32_t k = c->heads > 0 ? c->heads * c->d : c->d;
    const int64_t cols = c->swiglu ? c->n / 2 : c->n, bytes = gdn_type_bytes(c->y);
    const xpu_device *d = (const xpu_device *)device;
    product p = make(c->n, k, 0);
    gdn_tensor x = by_heads(filled(MOST, k, -2, 2), c->heads);
    const gdn_tensor z = by_heads(filled(MOST, k, -4, 4), c->heads);
    gdn_tensor norm_w = filled(1, c->d, 0.5f, 1.5f);
    norm_w = gdn_tensor_dense(norm_w.buf, 0, GDN_F32, 1, norm_w.shape + 1);
    const gdn_tensor work_x = typed(filled(MOST, k, 0, 0), GDN_BF16);
    const gdn_tensor work_y = filled(MOST, c->n, 0, 0);
    float *one = malloc((size_t)(MOST * cols) * sizeof *one);
    float *parts = malloc((size_t)(MOST * cols) * sizeof *parts);
    assert_true(one != NULL && parts != NULL);
    for (int m = 1; m <= MOST; m++) {
        gdn_tensor y[2];
        for (int i = 0; i < 2; i++) {
            rng = (uint64_t)m;
            y[i] = typed(filled(MOST, cols, -1, 1), c->y);
        }
        gdn_project_args a = {
            .x = c->norm ? gdn_tensor_slice(x, 0, 0, m)
                         : gdn_tensor_slice(rows(p.xs, GDN_BF16, 0, MOST_ROWS, k), 0, 0, m),
            .w = p.weight, .eps = 1e-6f, .add = c->add, .swiglu = c->swiglu,
            .work_x = gdn_tensor_slice(work_x, 0, 0, m), .work_y = gdn_tensor_slice(work_y, 0, 0, m)};
        if (c->norm) a.norm_w = norm_w;
        if (c->gate) a.z = gdn_tensor_slice(z, 0, 0, m);
        const uint64_t before_it = d->n_launch;
        a.y = gdn_tensor_slice(y[0], 0, 0, m);
        must(gdn_op_project(queue, &a, &err), &err);
        must(gdn_queue_wait(queue, &err), &err);
        const int launches = (int)(d->n_launch - before_it);
        a.y = gdn_tensor_slice(y[1], 0, 0, m);
        in_parts(&a, c->heads);
        must(gdn_queue_read(queue, one, y[0].buf, 0, (uint64_t)(MOST * cols * bytes), &err), &err);
        must(gdn_queue_read(queue, parts, y[1].buf, 0, (uint64_t)(MOST * cols * bytes), &err), &err);
        must(gdn_queue_wait(queue, &err), &err);
        if ((launches == 1) != (m <= c->fit))
            fail_msg("%d x %d: %d rows in %d launches", c->n, k, m, launches);
        for (int64_t i = 0; i < MOST * cols; i++)
            if (memcmp((char *)one + i * bytes, (char *)parts + i * bytes, (size_t)bytes) != 0)
                fail_msg("%d x %d, heads %d, %d rows: row %d, output %d has other bits than in parts",
                         c->n, k, c->heads, m, (int)(i / cols), (int)(i % cols));
        gdn_buffer_free(y[0].buf), gdn_buffer_free(y[1].buf);
    }
    gdn_buffer_free(x.buf), gdn_buffer_free(z.buf), gdn_buffer_free(norm_w.buf);
    gdn_buffer_free(work_x.buf), gdn_buffer_free(work_y.buf);
    free(one), free(parts);
    drop(&p);
}

static void test_projections(void **state) {
    (void)state;
    static const project_case cases[] = {
        {77, 0, 150, true, false, false, false, GDN_F32, 8},
        {34, 0, 1100, true, true, true, false, GDN_F32, 8},
        {96, 0, 272, true, false, false, true, GDN_BF16, 8},
        {64, 0, 333, false, false, false, true, GDN_F32, 8},
        {34, 9, 40, true, true, true, false, GDN_F32, 8},
        {32, 3, 300, true, true, false, true, GDN_F32, 8},
        {18, 0, 2560, true, false, false, false, GDN_F32, 5}, /* 26 KiB of rows */
        {36, 0, 150, true, false, false, true, GDN_F32, 0},   /* 18 gates are not whole columns */
    };
    open_tier("emulated");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) projection(&cases[i]);
    close_tier();
    open_tier("emulated8"); /* 64 items for sums of 128 */
    for (size_t i = 1; i < 6; i++) projection(&cases[i]);
    close_tier();
}

/* --- the tier ----------------------------------------------------------------------- */

static char logged[512];

static void keep(gdn_log_level level, const char *line, void *arg) {
    (void)arg, (void)level;
    if (strncmp(line, "device ", 7) == 0) snprintf(logged, sizeof logged, "%s", line);
}

static void test_tier(void **state) {
    (void)state;
    gdn_err err;
    gdn_device *d = NULL;
    static const struct {
        const char *tier, *kernels, *why;
    } known[] = {{"", NULL, NULL},
                 {"p", "kernels=\"portable ", "why=\"GDN_XPU_TIER is p\""},
                 {"emulated", "kernels=\"emulated16 ", NULL},
                 {"emulated8", "kernels=\"emulated8 ", NULL}};
    gdn_log_set(keep, NULL);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        open_tier(known[i].tier);
        const xpu_device *x = (const xpu_device *)device;
        if (known[i].kernels != NULL) assert_non_null(strstr(logged, known[i].kernels));
        if (known[i].why != NULL) assert_non_null(strstr(logged, known[i].why));
        if (i == 0 && x->sg == 0) assert_non_null(strstr(logged, " why=\"it has no cl_intel_"));
        const bool own = i == 0 && x->sg != 0; /* a device with the engine */
        close_tier();
        if (own) return;
    }
    gdn_log_set(NULL, NULL);
    setenv("GDN_XPU_TIER", "x", 1);
    assert_int_equal(gdn_device_open("xpu", NULL, &d, &err), GDN_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "GDN_XPU_TIER is x, but it has no cl_intel_"));
    setenv("GDN_XPU_TIER", "fast", 1);
    assert_int_equal(gdn_device_open("xpu", NULL, &d, &err), GDN_E_INVALID);
    unsetenv("GDN_XPU_TIER");
}

/* --- a whole model ------------------------------------------------------------------- */

/* bf16 activations and keys: as close to the reference logits as rounding allows, the same bits in
 * pieces. */
static void whole(const char *tier, const char *name, double tolerance) {
    char path[128];
    gdn_model_opts o;
    gdn_model *m;
    gdn_weights *golden;
    gdn_err err;
    int32_t n;
    setenv("GDN_XPU_TIER", tier, 1);
    setenv("GDN_BF16", "always", 1);
    snprintf(path, sizeof path, MODELS "%s/golden.safetensors", name);
    must(gdn_weights_open(path, &golden, &err), &err);
    int32_t *ids = input_ids(golden, &n);
    gdn_model_opts_defaults(&o);
    o.device = "xpu";
    o.math = GDN_MATH_FAST;
    snprintf(path, sizeof path, MODELS "%s", name);
    must(gdn_model_open(path, &o, &m, &err), &err);
    const size_t vocab = (size_t)gdn_model_get_info(m)->vocab;
    float *logits = all_logits(m, ids, n, 512, 0, NULL), *cut = all_logits(m, ids, n, 8, 11, NULL);
    assert_memory_equal(cut, logits, (size_t)n * vocab * sizeof *cut);
    const float *want = (const float *)(const void *)vector(golden, "logits", GDN_ST_F32)->data;
    double kl = 0;
    for (int32_t i = 0; i < n; i++) { /* mean Kullback-Leibler distance of the distributions */
        const float *a = want + (size_t)i * vocab, *b = logits + (size_t)i * vocab;
        double sa = 0, sb = 0, sum = 0;
        for (size_t v = 0; v < vocab; v++) sa += exp((double)a[v]), sb += exp((double)b[v]);
        for (size_t v = 0; v < vocab; v++)
            sum += exp((double)a[v]) / sa * ((double)a[v] - log(sa) - (double)b[v] + log(sb));
        kl += sum / n;
    }
    const double worst = max_error(want, logits, (size_t)n * vocab);
    print_message("%s %s: logits %.2g, divergence %.2g\n", name, tier, worst, kl);
    if (!(kl <= tolerance)) fail_msg("%s: divergence %g", name, kl);
    assert_true(worst > 1e-3); /* it did round */
    free(logits), free(cut), free(ids);
    gdn_model_close(m);
    gdn_weights_close(golden);
    unsetenv("GDN_XPU_TIER");
    unsetenv("GDN_BF16");
}

static void test_model(void **state) {
    (void)state;
    whole("emulated", "dense-tied-128", 1e-3);
    whole("emulated8", "dense-tied-128", 1e-3);
}

/* Launches of a decode step: as in tier P, test_xpu_model.c. */
static void test_launches(void **state) {
    (void)state;
    enum { GDN = 6, FULL = 7, AROUND = 6, N_CTX = 64 };
    gdn_model_opts o;
    gdn_engine_opts eo;
    gdn_model *m;
    gdn_engine *e = NULL;
    gdn_seq *s = NULL;
    gdn_err err;
    setenv("GDN_XPU_TIER", "emulated", 1);
    setenv("GDN_BF16", "always", 1);
    gdn_model_opts_defaults(&o);
    o.device = "xpu";
    o.math = GDN_MATH_FAST;
    must(gdn_model_open(MODELS "dense-tied-128", &o, &m, &err), &err);
    const gdn_model_info *info = gdn_model_get_info(m);
    gdn_engine_opts_defaults(&eo);
    eo.n_ctx = N_CTX;
    must(gdn_engine_create(m, &eo, &e, &err), &err);
    must(gdn_seq_create(e, &s, &err), &err);
    float *logits = malloc((size_t)info->vocab * sizeof *logits);
    assert_non_null(logits);
    const int32_t id = 1, out = 0;
    const gdn_work w = {.seq = s, .tokens = &id, .n = 1, .out = &out, .n_out = 1, .logits = logits};
    const int most = GDN * (info->n_layer - info->n_full) + FULL * info->n_full + AROUND;
    for (int i = 0; i < 2; i++) {
        gdn_engine_stats before_it, after;
        gdn_engine_get_stats(e, &before_it);
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        gdn_engine_get_stats(e, &after);
        const int n = (int)(after.regions - before_it.regions);
        print_message("%d launches, at most %d\n", n, most);
        assert_true(n > info->n_layer && n <= most);
    }
    free(logits);
    gdn_seq_free(s);
    gdn_engine_free(e);
    gdn_model_close(m);
    unsetenv("GDN_XPU_TIER");
    unsetenv("GDN_BF16");
}

int main(void) {
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operands),   cmocka_unit_test(test_products),
        cmocka_unit_test(test_products_8), cmocka_unit_test(test_beside_cpu),
        cmocka_unit_test(test_embed),      cmocka_unit_test(test_faults),
        cmocka_unit_test(test_projections), cmocka_unit_test(test_tier),
        cmocka_unit_test(test_model),      cmocka_unit_test(test_launches),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    opencl_end();
    return rc;
}
