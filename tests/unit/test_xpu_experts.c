/* test_xpu_experts.c - experts of the xpu device against the cpu's; a row's bits whatever kernel its
 * number of rows picks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/backend/backend.h"
#include "cases.h"
#include "opencl.h"
#include "opencl_sides.h"

#include <gdn/op.h>

/* gap: elements between rows. */
typedef struct {
    gdn_type type, act;
    int32_t top, n_expert, d, n, gap;
} shape;

typedef struct {
    shape s;
    gdn_weight *gate_up[N_SIDE], *down[N_SIDE];
    int32_t n_row;
    float   *x;      /* [n_row][d + gap], numbers that bf16 holds */
    int32_t *expert; /* [n_row][top]                              */
    float   *want;   /* [n_row][top][d], of the cpu               */
} layer;

static void *room(size_t n, size_t bytes) {
    void *p = calloc(n + 1, bytes);
    assert_non_null(p);
    return p;
}

static uint16_t bf16(float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return (uint16_t)(u >> 16);
}

/* --- weights -------------------------------------------------------------------------------- */

enum { SCALE_ROWS = 16, SCALE_COLS = 24 };

static void put(gdn_type type, void *to, int64_t i) {
    const float v = uniform(-1, 1);
    const uint16_t half = (uint16_t)(below(2) << 15 | below(0x3c00)); /* below 1 */
    switch (type) {
    case GDN_F32: ((float *)to)[i] = v; break;
    case GDN_BF16: ((uint16_t *)to)[i] = bf16(v); break;
    case GDN_F16: ((uint16_t *)to)[i] = half; break;
    default: ((uint8_t *)to)[i] = (uint8_t)(below(2) << 7 | below(0x39));
    }
}

static void weights(const shape *s, int32_t n, int32_t k, gdn_weight *w[N_SIDE]) {
    const int64_t all = (int64_t)s->n_expert * n * k, row = (int64_t)k * gdn_type_bytes(s->type);
    const int64_t blocks = (int64_t)((n + SCALE_ROWS - 1) / SCALE_ROWS) *
                           ((k + SCALE_COLS - 1) / SCALE_COLS);
    char *bits = room((size_t)all, 4);
    float *scale = room((size_t)(s->n_expert * blocks), sizeof *scale);
    gdn_weight_part *part = room((size_t)s->n_expert, sizeof *part);
    for (int64_t i = 0; i < all; i++) put(s->type, bits, i);
    for (int64_t i = 0; i < s->n_expert * blocks; i++) scale[i] = uniform(0.5f, 2);
    for (int32_t e = 0; e < s->n_expert; e++)
        part[e] = (gdn_weight_part){.data = bits + e * n * row, .n_row = n, .row_bytes = row,
                                    .scale = s->type == GDN_F8 ? scale + e * blocks : NULL,
                                    .scale_type = GDN_F32};
    const gdn_weight_desc desc = {.type = s->type, .n_expert = s->n_expert, .n = n, .k = k,
                                  .part = part, .n_part = 1, .scale_rows = SCALE_ROWS,
                                  .scale_cols = SCALE_COLS};
    gdn_err err;
    for (int i = 0; i < N_SIDE; i++) must(gdn_weight_create(device[i], &desc, &w[i], &err), &err);
    w[XPU]->input_type = s->act; /* bf16 ones are there for whoever wants them */
    free(bits), free(scale), free(part);
}

/* --- running -------------------------------------------------------------------------------- */

/* Rows of n numbers, s->gap of them apart: memory of the device with this content, or all bits set. */
static gdn_tensor tensor(int side, gdn_type type, int64_t rows, int64_t n, int64_t gap,
                         const void *from) {
    const int64_t dim[] = {rows, n + gap};
    const uint64_t bytes = (uint64_t)(rows * (n + gap) * gdn_type_bytes(type));
    gdn_buffer *b;
    gdn_err err;
    char *all = room(bytes, 1);
    if (from != NULL) memcpy(all, from, bytes);
    else memset(all, 0xff, bytes);
    must(gdn_buffer_alloc(device[side], bytes, &b, &err), &err);
    must(gdn_queue_write(queue[side], b, 0, all, bytes, &err), &err);
    must(gdn_queue_wait(queue[side], &err), &err);
    free(all);
    return gdn_tensor_slice(gdn_tensor_dense(b, 0, type, 2, dim), 1, 0, n);
}

/* Rows first .. first + n of a layer on a side: [n][top][d + gap], unwritten numbers as NaN.  st: of
 * waiting. */
static float *run(const layer *l, int side, int32_t first, int32_t n, gdn_status *st, gdn_err *err) {
    const shape *s = &l->s;
    const int64_t n_pair = (int64_t)n * s->top, wide = s->d + s->gap;
    const gdn_type act = side == CPU ? GDN_F32 : s->act;
    const float *from = l->x + first * wide;
    uint16_t *half = room((size_t)(n * wide), sizeof *half);
    for (int64_t i = 0; i < n * wide; i++) half[i] = bf16(from[i]);
    const gdn_tensor x = tensor(side, act, n, s->d, s->gap, act == GDN_F32 ? (const void *)from : half);
    const gdn_tensor e = tensor(side, GDN_I32, n, s->top, 0, l->expert + (int64_t)first * s->top);
    const gdn_tensor gu = tensor(side, GDN_F32, n_pair, 2 * s->n, 0, NULL),
                     h = tensor(side, act, n_pair, s->n, s->gap, NULL);
    gdn_tensor index = tensor(side, GDN_I32, 1, 2 * n_pair + s->n_expert + 1, 0, NULL),
               y = tensor(side, GDN_F32, n_pair, s->d, s->gap, NULL);
    const int64_t rows[] = {n, s->top, wide}, flat[] = {2 * n_pair + s->n_expert + 1};
    y = gdn_tensor_slice(gdn_tensor_dense(y.buf, 0, GDN_F32, 3, rows), 2, 0, s->d);
    index = gdn_tensor_dense(index.buf, 0, GDN_I32, 1, flat);
    const gdn_moe_experts_args a = {.y = y, .x = x, .expert = e, .gate_up = l->gate_up[side],
                                    .down = l->down[side], .work_gu = gu, .work_h = h,
                                    .work_index = index};
    float *out = room((size_t)(n_pair * wide), sizeof *out);
    must(gdn_op_moe_experts(queue[side], &a, err), err);
    *st = gdn_queue_wait(queue[side], err);
    gdn_err ignored;
    must(gdn_queue_read(queue[side], out, y.buf, 0, (uint64_t)(n_pair * wide) * sizeof *out, &ignored),
         &ignored);
    must(gdn_queue_wait(queue[side], &ignored), &ignored);
    gdn_buffer_free(x.buf), gdn_buffer_free(e.buf), gdn_buffer_free(gu.buf);
    gdn_buffer_free(h.buf), gdn_buffer_free(index.buf), gdn_buffer_free(y.buf);
    free(half);
    return out;
}

/* only: the expert of all rows; -1: any. */
static layer make(shape s, int32_t n_row, int32_t only) {
    layer l = {.s = s, .n_row = n_row};
    weights(&s, 2 * s.n, s.d, l.gate_up);
    weights(&s, s.d, s.n, l.down);
    const int64_t all = (int64_t)n_row * (s.d + s.gap), n_pair = (int64_t)n_row * s.top;
    l.x = room((size_t)all, sizeof *l.x);
    l.expert = room((size_t)n_pair, sizeof *l.expert);
    for (int64_t i = 0; i < all; i++) {
        const uint32_t u = (uint32_t)bf16(uniform(-1, 1)) << 16;
        memcpy(l.x + i, &u, sizeof u);
    }
    for (int64_t i = 0; i < n_pair; i++)
        l.expert[i] = only >= 0 ? only : (int32_t)below((uint32_t)s.n_expert);
    gdn_status st;
    gdn_err err;
    l.want = run(&l, CPU, 0, n_row, &st, &err);
    must(st, &err);
    return l;
}

static void done(layer *l) {
    for (int i = 0; i < N_SIDE; i++) gdn_weight_free(l->gate_up[i]), gdn_weight_free(l->down[i]);
    free(l->x), free(l->expert), free(l->want);
}

/* --- checks --------------------------------------------------------------------------------- */

static void say(const shape *s, int32_t n, char text[96]) {
    snprintf(text, 96, "%s, %s inputs, %d of %d, d %d, n %d, %d rows", gdn_type_name(s->type),
             gdn_type_name(s->act), s->top, s->n_expert, s->d, s->n, n);
}

/* All rows, as near the cpu's as sums and roundings allow; between rows nothing is written. */
static float *check(const layer *l) {
    const shape *s = &l->s;
    const double bound = s->act == GDN_F32 ? 2e-5 : 0x1p-7;
    const int64_t wide = s->d + s->gap, n = (int64_t)l->n_row * s->top * wide;
    gdn_status st;
    gdn_err err;
    char text[96];
    float *got = run(l, XPU, 0, l->n_row, &st, &err);
    must(st, &err);
    double most = 0;
    say(s, l->n_row, text);
    for (int64_t i = 0; i < n; i++)
        if (i % wide < s->d) most = fmax(most, fabs((double)l->want[i]));
    for (int64_t i = 0; i < n; i++) {
        if (i % wide >= s->d ? isnan(got[i]) : fabs((double)(got[i] - l->want[i])) <= bound * most)
            continue;
        fail_msg("%s: pair %lld, output %lld is %g, not %g; the largest is %g", text,
                 (long long)(i / wide), (long long)(i % wide), (double)got[i], (double)l->want[i], most);
    }
    return got;
}

/* Rows first .. first + n alone have the bits that they have among all. */
static void alone(const layer *l, const float *all, int32_t first, int32_t n) {
    const int64_t row = (int64_t)l->s.top * (l->s.d + l->s.gap);
    gdn_status st;
    gdn_err err;
    char text[96];
    float *got = run(l, XPU, first, n, &st, &err);
    must(st, &err);
    say(&l->s, n, text);
    if (memcmp(got, all + first * row, (size_t)(n * row) * sizeof *got) != 0)
        fail_msg("%s: not the bits of %d rows", text, l->n_row);
    free(got);
}

/* --- cases ---------------------------------------------------------------------------------- */

/* 80 pairs: by 16 experts on average 5, which many rows' kernels take; 5 rows are for those of few,
 * 2 and 1 for those that do not sort. */
static void test_types(void **state) {
    (void)state;
    static const gdn_type type[] = {GDN_F32, GDN_BF16, GDN_F16, GDN_F8};
    static const gdn_type act[] = {GDN_F32, GDN_BF16};
    static const int32_t sizes[][3] = {{72, 40, 0}, {72, 40, 8}, {61, 37, 3}};
    for (int t = 0; t < 4; t++)
        for (int a = 0; a < 2; a++)
            for (int i = 0; i < 3; i++) {
                layer l = make((shape){type[t], act[a], 2, 16, sizes[i][0], sizes[i][1], sizes[i][2]},
                               40, -1);
                float *all = check(&l);
                alone(&l, all, 17, 1);
                alone(&l, all, 38, 2);
                alone(&l, all, 3, 5);
                free(all);
                done(&l);
            }
}

static void test_rows(void **state) {
    (void)state;
    layer l = make((shape){GDN_BF16, GDN_F32, 3, 12, 264, 136, 0}, 300, -1);
    float *all = check(&l);
    static const int32_t n[] = {1, 2, 5, 7, 16, 17, 40};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) alone(&l, all, 299 - n[i], n[i]);
    free(all);
    done(&l);
}

/* Lines of 16, 32 and 64 items, of one product and of the other. */
static void test_lines(void **state) {
    (void)state;
    static const shape s[] = {
        {GDN_BF16, GDN_F32, 1, 2, 2048, 24, 0},  {GDN_BF16, GDN_F32, 1, 2, 24, 2048, 0},
        {GDN_BF16, GDN_BF16, 1, 2, 8200, 11, 0}, {GDN_F8, GDN_F32, 1, 2, 2050, 9, 0},
        {GDN_F32, GDN_F32, 1, 2, 9, 8195, 0},
    };
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) {
        layer l = make(s[i], 19, -1);
        float *all = check(&l);
        alone(&l, all, 7, 1);
        alone(&l, all, 2, 4);
        free(all);
        done(&l);
    }
}

static void test_one_expert(void **state) {
    (void)state;
    for (int32_t only = 0; only < 9; only += 4) {
        layer l = make((shape){GDN_BF16, GDN_F32, 1, 9, 48, 24, 0}, 70, only);
        float *all = check(&l);
        alone(&l, all, 9, 1);
        alone(&l, all, 9, 30);
        free(all);
        done(&l);
    }
}

/* More pairs than the sort has in local memory at a time, more experts than it has items, and an
 * expert of each item's but the last ones'. */
static void test_sort(void **state) {
    (void)state;
    static const struct {
        shape   s;
        int32_t n_row;
    } c[] = {
        {{GDN_BF16, GDN_F32, 4, 7, 16, 8, 0}, 2100},
        {{GDN_BF16, GDN_F32, 3, 700, 8, 8, 0}, 300},
        {{GDN_BF16, GDN_F32, 2, 257, 8, 8, 0}, 600},
        {{GDN_BF16, GDN_F32, 8, 1024, 8, 8, 0}, 1025},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        layer l = make(c[i].s, c[i].n_row, -1);
        float *all = check(&l);
        alone(&l, all, c[i].n_row / 2, 1);
        alone(&l, all, 1, c[i].n_row - 2);
        free(all);
        done(&l);
    }
}

/* An expert that is not there is a fault; the other pairs have their answers all the same. */
static void test_faults(void **state) {
    (void)state;
    static const int32_t rows[] = {1, 6, 40}, wrong[] = {-1, 8, 65536 + 3};
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < 3; i++) {
            layer l = make((shape){GDN_BF16, GDN_F32, 2, 8, 24, 16, 0}, rows[r], -1);
            const int32_t at = 2 * (rows[r] / 2) + 1;
            const int64_t row = l.s.d;
            char words[64];
            l.expert[at] = wrong[i];
            gdn_status st;
            gdn_err err = {0};
            float *got = run(&l, XPU, 0, rows[r], &st, &err);
            assert_int_equal(st, GDN_E_INVALID);
            snprintf(words, sizeof words, "moe_experts: expert[%d] is %d", at, wrong[i]);
            if (strstr(err.text, words) == NULL) fail_msg("'%s' does not say '%s'", err.text, words);
            for (int64_t p = 0; p < 2 * rows[r]; p++)
                for (int64_t o = 0; o < row; o++) {
                    const float have = got[p * row + o], want = l.want[p * row + o];
                    if (p == at ? !isnan(have) : !(fabsf(have - want) <= 1e-4f))
                        fail_msg("%d rows, expert[%d] is %d: pair %d has %g for %g", rows[r], at,
                                 wrong[i], (int)p, (double)have, (double)want);
                }
            free(got);
            done(&l);
        }
}

/* All of them: there is nothing to sort. */
static void test_all_wrong(void **state) {
    (void)state;
    layer l = make((shape){GDN_BF16, GDN_F32, 2, 8, 24, 16, 0}, 40, -1);
    for (int i = 0; i < 80; i++) l.expert[i] = 1 << 30;
    gdn_status st;
    gdn_err err = {0};
    float *got = run(&l, XPU, 0, 40, &st, &err);
    assert_int_equal(st, GDN_E_INVALID);
    for (int i = 0; i < 80 * 24; i++) assert_true(isnan(got[i]));
    free(got);
    done(&l);
}

static void test_too_many(void **state) {
    (void)state;
    layer l = {.s = {GDN_BF16, GDN_F32, 1, 1025, 8, 8, 0}, .n_row = 1};
    float x[8] = {0};
    int32_t expert = 1024;
    weights(&l.s, 16, 8, l.gate_up);
    weights(&l.s, 8, 8, l.down);
    const gdn_tensor in = tensor(XPU, GDN_F32, 1, 8, 0, x), e = tensor(XPU, GDN_I32, 1, 1, 0, &expert),
                     gu = tensor(XPU, GDN_F32, 1, 16, 0, NULL), y = tensor(XPU, GDN_F32, 1, 8, 0, NULL),
                     h = tensor(XPU, GDN_F32, 1, 8, 0, NULL),
                     index = tensor(XPU, GDN_I32, 1, 2 + 1025 + 1, 0, NULL);
    const int64_t out[] = {1, 1, 8}, flat[] = {2 + 1025 + 1};
    const gdn_moe_experts_args a = {.y = gdn_tensor_dense(y.buf, 0, GDN_F32, 3, out), .x = in,
                                    .expert = e, .gate_up = l.gate_up[XPU], .down = l.down[XPU],
                                    .work_gu = gu, .work_h = h,
                                    .work_index = gdn_tensor_dense(index.buf, 0, GDN_I32, 1, flat)};
    gdn_err err;
    assert_int_equal(gdn_op_moe_experts(queue[XPU], &a, &err), GDN_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "at most 1024"));
    gdn_buffer_free(in.buf), gdn_buffer_free(e.buf), gdn_buffer_free(gu.buf);
    gdn_buffer_free(y.buf), gdn_buffer_free(h.buf), gdn_buffer_free(index.buf);
    done(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),  cmocka_unit_test(test_rows),   cmocka_unit_test(test_lines),
        cmocka_unit_test(test_one_expert), cmocka_unit_test(test_sort), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_all_wrong),  cmocka_unit_test(test_too_many),
    };
    opencl_quickly();
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    const int rc = cmocka_run_group_tests(tests, open_devices, close_devices);
    opencl_end();
    return rc;
}
