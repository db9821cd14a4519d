/* check_lora.c - the products of a low-rank adapter: values, rows alone, nothing else touched. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef struct { check *c; gdn_lora_args a; } job;
static void run(void *arg) {
    job *j = arg;
    j->c->kern->lora(&j->a);
}

static double input(const gdn_lora_args *a, int32_t row, int32_t k) {
    const int64_t at = a->x_row[row] * a->x_stride + k;
    return a->x_bf16 ? check_from_bf16(((const uint16_t *)a->x)[at]) : ((const float *)a->x)[at];
}

/* Rows in an order of their own: row i of the call is row (5 i + 3) % n of x, and the other way
 * round in y. */
static void one(check *c, int32_t n_row, int32_t n, int32_t k, bool bf16, bool add) {
    if (!check_begin(c, (check_fn *)c->kern->lora, "lora %d rows n%d k%d%s%s", n_row, n, k,
                     bf16 ? " bf16" : "", add ? " add" : ""))
        return;
    const int64_t ys = n + 3, xs = k + 2;
    const size_t ny = (size_t)((n_row - 1) * ys + n), nx = (size_t)((n_row - 1) * xs + k);
    float *y0 = check_f32(c, "y ref", ny), *y1 = check_f32(c, "y", ny), *y2 = check_f32(c, "alone", ny);
    float *m = check_f32(c, "m", (size_t)n * (size_t)k), *xf = NULL;
    uint16_t *xh = NULL;
    int32_t *x_row = check_i32(c, "x_row", (size_t)n_row), *y_row = check_i32(c, "y_row", (size_t)n_row);
    if (bf16) check_fill_bf16(xh = check_u16(c, "x", nx), nx, -1, 1);
    else check_fill(xf = check_f32(c, "x", nx), nx, -1, 1);
    check_fill(m, (size_t)n * (size_t)k, -1, 1);
    check_fill(y0, ny, -1, 1);
    memcpy(y1, y0, ny * sizeof *y0);
    memcpy(y2, y0, ny * sizeof *y0);
    for (int32_t i = 0; i < n_row; i++) {
        x_row[i] = n_row % 5 != 0 ? (5 * i + 3) % n_row : i;
        y_row[i] = n_row - 1 - i;
    }
    job j = { c, { .y = y0, .x = bf16 ? (const void *)xh : xf, .m = m, .y_row = y_row,
                   .x_row = x_row, .y_stride = ys, .x_stride = xs, .n_row = n_row, .n = n, .k = k,
                   .scale = 0.37f, .x_bf16 = bf16, .add = add } };
    gdn_lora_ref(&j.a);
    j.a.y = y1;
    run(&j);
    /* k roundings of partial sums: sqrt(k) of them on average, each at most the sum of the
     * absolute terms, which is k / 4 */
    check_each(c, "y", y0, y1, ny, 1e-6, 6e-8 * (1 + 0.25 * k * sqrt((double)k / 8)));
    /* One output in plain sums, so that reference and variant are not judged by themselves alone. */
    double sum = 0;
    for (int32_t i = 0; i < k; i++) sum += input(&j.a, 0, i) * (double)m[(int64_t)(n - 1) * k + i];
    const int64_t last = y_row[0] * ys + n - 1;
    const double want = add ? (double)y2[last] + (double)0.37f * sum : sum;
    check_that(c, fabs((double)y1[last] - want) <= 1e-6 * k + 1e-6, "last output of row 0: %g, not %g",
               (double)y1[last], want);
    for (int32_t r = 0; r < n_row; r++) { /* no row depends on those beside it */
        j.a.n_row = 1, j.a.y = y2, j.a.x_row = x_row + r, j.a.y_row = y_row + r;
        run(&j);
    }
    check_bits(c, "rows alone", y1, y2, ny, sizeof *y1);
    for (int32_t at = 0; at < n; at += 4) { /* nor an output on the outputs of its call */
        j.a.n = n - at < 4 ? n - at : 4;
        j.a.m = m + (int64_t)at * k;
        j.a.y = y2 + at;
        j.a.n_row = n_row, j.a.x_row = x_row, j.a.y_row = y_row;
        if (add) continue;
        run(&j);
    }
    check_bits(c, "outputs alone", y1, y2, ny, sizeof *y1);
    j.a.y = y1, j.a.m = m, j.a.n = n, j.a.n_row = n_row, j.a.x_row = x_row, j.a.y_row = y_row;
    check_rate(c, run, &j, 2.0 * n_row * n * k, 4.0 * n * k);
    check_end(c);
}

void check_lora(check *c) {
    /* n, k: ranks over a width and outputs over a rank; the smallest; what divides nothing. */
    static const int32_t shape[][2] = { { 16, 4096 }, { 64, 2048 }, { 4096, 16 }, { 12288, 8 },
                                        { 2048, 64 }, { 1, 1 },     { 5, 3 },     { 33, 77 },
                                        { 17, 512 },  { 8, 31 },    { 100, 1 } };
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++) {
        one(c, 1, shape[s][0], shape[s][1], false, s % 2);
        one(c, 32, shape[s][0], shape[s][1], false, s % 2);
        one(c, 1, shape[s][0], shape[s][1], true, !(s % 2));
        one(c, 7, shape[s][0], shape[s][1], true, s % 2);
        one(c, 2, shape[s][0], shape[s][1], false, !(s % 2));
    }
}
