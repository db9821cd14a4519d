/* check_act.c - the feed-forward gate, and the exponential under all of these kernels. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef struct {
    gdn_swiglu_fn *fn;
    gdn_swiglu_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

static float value(const void *y, bool bf16, int64_t at) {
    return bf16 ? check_from_bf16(((const uint16_t *)y)[at]) : ((const float *)y)[at];
}

static void swiglu(check *c, int32_t n_row, int32_t n, bool bf16) {
    gdn_swiglu_fn *fn = c->kern->swiglu;
    if (!check_begin(c, (check_fn *)fn, "swiglu n%d d%d%s", n_row, n,
                     bf16 ? " bf16" : ""))
        return;
    gdn_swiglu_args a = {
        .n_row = n_row, .n = n, .x_stride = n + 3, .y_stride = n + 1, .y_bf16 = bf16};
    const size_t nx = (size_t)n_row * a.x_stride, ny = (size_t)n_row * a.y_stride;
    const size_t size = bf16 ? 2 : 4;
    float *g = check_f32(c, "g", nx), *u = check_f32(c, "u", nx);
    void *y[3];
    static const char *const name[3] = {"y ref", "y", "y one by one"};
    for (int i = 0; i < 3; i++)
        y[i] =
            bf16 ? (void *)check_u16(c, name[i], ny) : (void *)check_f32(c, name[i], ny);
    check_fill(g, nx, -20, 20), check_fill(u, nx, -3, 3);
    static const float edge[] = {0,      -0.0f,  -86,      -88.5f,   -200,
                                 -1e30f, 88,     1e30f,    INFINITY, NAN,
                                 1e-30f, -1e-5f, 0.34657f, -INFINITY};
    for (int i = 0; i < n && i < (int)(sizeof edge / sizeof *edge); i++) g[i] = edge[i];
    if (n > 16)
        memset(g + 16, 0xff, sizeof *g); /* a NaN that overflows if rounded as a number */
    a.g = g, a.u = u, a.y = y[0];
    job j = {.fn = fn, .a = a};
    j.a.y = y[1];
    gdn_swiglu_ref(&a);
    run(&j);
    /* f32: 5 roundings of 6e-8 in exp, sum, quotient and product.  Where the result is
     * below 1e-36 an exponential past the range of f32 may turn it to 0.  bf16: the same
     * number after rounding, or its neighbour when it lies near the middle: one in some
     * hundred. */
    int32_t other = 0;
    for (int64_t r = 0; r < n_row; r++)
        for (int64_t i = r * a.y_stride; i < r * a.y_stride + n; i++) {
            const float ref = value(y[0], bf16, i), got = value(y[1], bf16, i);
            if (!check_each(c, "y", &ref, &got, 1, bf16 ? 1.0 / 128 : 3e-7, 1e-36)) break;
            if (ref != got && ref == ref) other++;
        }
    if (bf16)
        check_that(c, other <= n_row * n / 200 + 1,
                   "few neighbours in bf16, got %d of %d", other, n_row * n);
    job one = j;
    one.a.n_row = 1;
    for (int64_t r = 0; r < n_row; r++) {
        one.a.g = g + r * a.x_stride, one.a.u = u + r * a.x_stride;
        one.a.y = (char *)y[2] + r * a.y_stride * size;
        run(&one);
    }
    check_bits(c, "y one by one", y[1], y[2], ny, size);
    check_rate(c, run, &j, 0, (double)n_row * n * (double)(2 * sizeof *g + size));
    check_end(c);
}

void check_act(check *c) {
    swiglu(c, 8, 3584, false); /* released widths of dense and expert layers */
    swiglu(c, 8, 3584, true);
    swiglu(c, 64, 512, true);
    swiglu(c, 1, 1, false);
    swiglu(c, 3, 77, false);
    swiglu(c, 3, 29, true);
    swiglu(c, 2, 7, false);
}
