/* check_conv.c - the causal convolution and its state. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "../../src/base/half.h"

/* Relative rms 1e-6: at most eight fused steps and a silu within a few units. */
static const double TOL = 1e-12;

typedef struct {
    gdn_conv_fn *fn;
    gdn_conv_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

typedef struct {
    int32_t n_tok, C, c0, c1, W;
    bool bf16, has_state, bias;
} shape;

static void *state_buf(check *c, const char *name, bool bf16, size_t n) {
    return bf16 ? (void *)check_u16(c, name, n) : (void *)check_f32(c, name, n);
}

/* The same tokens in several calls and the same channels in several ranges give the same
 * bits of output and state. */
static void check_cuts(check *c, const job *whole, const void *before, void *state,
                       float *y, size_t ns, size_t ny) {
    static const int32_t cut[][2] = {{1, 100000}, {2, 100000}, {100000, 5}, {3, 17}};
    const gdn_conv_args *w = &whole->a;
    const size_t size = w->state_bf16 ? 2 : 4;
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        job j = *whole;
        memcpy(state, before, ns * size);
        memset(y, 0xff, ny * sizeof *y);
        j.a.state = state;
        for (int32_t ch = w->c0; ch < w->c1; ch = j.a.c1) {
            j.a.c0 = ch, j.a.c1 = ch + cut[i][1] < w->c1 ? ch + cut[i][1] : w->c1;
            j.a.has_state = w->has_state;
            for (int64_t t = 0; t < w->n_tok; t += j.a.n_tok) {
                const int64_t left = w->n_tok - t, step = cut[i][0] + t % 2;
                j.a.n_tok = (int32_t)(left < step ? left : step);
                j.a.y = y + t * w->y_stride, j.a.x = w->x + t * w->x_stride;
                run(&j);
                j.a.has_state = true;
            }
        }
        check_bits(c, "y when cut", w->y, y, ny, sizeof *y);
        check_bits(c, "state when cut", w->state, state, ns, size);
    }
}

static void conv(check *c, shape s) {
    gdn_conv_fn *fn = c->kern->conv;
    if (!check_begin(c, (check_fn *)fn, "conv n%d C%d %d..%d W%d%s%s%s", s.n_tok, s.C,
                     s.c0, s.c1, s.W, s.bf16 ? " bf16" : "", s.has_state ? "" : " new",
                     s.bias ? " bias" : ""))
        return;
    gdn_conv_args a = {.n_tok = s.n_tok,
                       .C = s.C,
                       .c0 = s.c0,
                       .c1 = s.c1,
                       .W = s.W,
                       .state_bf16 = s.bf16,
                       .has_state = s.has_state,
                       .y_stride = s.C + 3,
                       .x_stride = s.C + 1,
                       .state_stride = s.C + 2};
    const size_t nx = (size_t)(s.n_tok - 1) * a.x_stride + s.C,
                 ny = (size_t)s.n_tok * a.y_stride;
    const size_t ns = (size_t)(s.W - 1) * a.state_stride, size = s.bf16 ? 2 : 4;
    float *x = check_f32(c, "x", nx), *w = check_f32(c, "w", (size_t)s.W * s.C);
    float *bias = check_f32(c, "bias", s.C);
    float *y0 = check_f32(c, "y ref", ny), *y1 = check_f32(c, "y", ny);
    float *y2 = check_f32(c, "y cut", ny);
    void *before = state_buf(c, "state before", s.bf16, ns);
    void *s0 = state_buf(c, "state ref", s.bf16, ns),
         *s1 = state_buf(c, "state", s.bf16, ns);
    void *s2 = state_buf(c, "state cut", s.bf16, ns);
    check_fill(x, nx, -4, 4), check_fill(w, (size_t)s.W * s.C, -1, 1),
        check_fill(bias, s.C, -1, 1);
    x[s.c0] = -1000, x[s.c1 - 1] = 1000; /* silu near 0 and near x */
    /* A new sequence must not read its state: left as NaN. */
    if (s.has_state && s.bf16)
        check_fill_bf16(before, ns, -4, 4);
    else if (s.has_state)
        check_fill(before, ns, -4, 4);
    memcpy(s0, before, ns * size), memcpy(s1, before, ns * size);
    a.x = x, a.w = w, a.bias = s.bias ? bias : NULL;
    a.y = y0, a.state = s0;
    job j = {.fn = fn, .a = a};
    j.a.y = y1, j.a.state = s1;
    gdn_conv_ref(&a);
    run(&j);
    for (int64_t t = 0; t < s.n_tok; t++) {
        const int64_t at = t * a.y_stride;
        if (!check_close(c, "y", y0 + at + s.c0, y1 + at + s.c0, (size_t)(s.c1 - s.c0),
                         TOL))
            break;
        check_bits(c, "y before c0", y0 + at, y1 + at, s.c0, sizeof *y0);
        check_bits(c, "y from c1", y0 + at + s.c1, y1 + at + s.c1,
                   (size_t)(a.y_stride - s.c1), 4);
    }
    check_bits(c, "state", s0, s1, ns,
               size); /* inputs are stored, so nothing is rounded twice */
    check_cuts(c, &j, before, s2, y2, ns, ny);

    x[s.c1 - 1] = NAN;
    run(&j);
    check_that(c, isnan(y1[s.c1 - 1]), "NaN kept");
    x[s.c1 - 1] = 0;
    check_rate(c, run, &j, 0, 2.0 * sizeof *x * (double)s.n_tok * (s.c1 - s.c0));
    check_end(c);
}

/* Inputs and outputs that lie in bf16 give what they give as rounded f32. */
static void rows_in_bf16(check *c, int32_t n_tok, int32_t C, int32_t W) {
    gdn_conv_fn *fn = c->kern->conv;
    if (!check_begin(c, (check_fn *)fn, "conv n%d C%d W%d rows in bf16", n_tok, C, W)) return;
    gdn_conv_args a = {.n_tok = n_tok, .C = C, .c1 = C, .W = W, .has_state = true, .y_bf16 = true};
    a.x_stride = C + 1, a.y_stride = C + 3, a.state_stride = C;
    const size_t nx = (size_t)n_tok * a.x_stride, ny = (size_t)n_tok * a.y_stride;
    const size_t ns = (size_t)(W - 1) * C;
    float *x = check_f32(c, "x", nx), *w = check_f32(c, "w", (size_t)W * C);
    float *y = check_f32(c, "y", ny), *s0 = check_f32(c, "state", ns);
    float *s1 = check_f32(c, "state of bf16", ns);
    uint16_t *half = check_u16(c, "x in bf16", nx), *out = check_u16(c, "y in bf16", ny);
    check_fill_bf16(half, nx, -4, 4), check_fill(w, (size_t)W * C, -1, 1), check_fill(s0, ns, -4, 4);
    for (size_t i = 0; i < nx; i++) x[i] = gdn_bf16_to_f32(half[i]);
    memcpy(s1, s0, ns * sizeof *s0);
    memset(out, 0xff, ny * sizeof *out);
    a.w = w, a.x = x, a.y = y, a.state = s0;
    job j = {.fn = fn, .a = a};
    run(&j);
    j.a.x = NULL, j.a.x_bf16 = half, j.a.y = NULL, j.a.y_in_bf16 = out, j.a.state = s1;
    run(&j);
    bool same = true;
    for (int64_t t = 0; t < n_tok; t++) {
        const int64_t at = t * a.y_stride;
        for (int64_t i = 0; i < a.y_stride; i++)
            same &= out[at + i] == (i < C ? gdn_f32_to_bf16(y[at + i]) : 0xffff);
    }
    check_that(c, same, "y in bf16 is y rounded");
    check_bits(c, "state", s0, s1, ns, sizeof *s0);
    check_rate(c, run, &j, 0, 2.0 * sizeof *out * (double)n_tok * C);
    check_end(c);
}

void check_conv(check *c) {
    conv(c, (shape){40, 6144, 0, 6144, 4, true, true, false}); /* released widths */
    conv(c, (shape){7, 8192, 2048, 4096, 4, true, false, false});
    conv(c, (shape){1, 8192, 0, 8192, 4, true, true, false});
    conv(c, (shape){19, 6144, 0, 6144, 4, false, true, false});
    conv(c, (shape){1, 1, 0, 1, 2, false, true, true});
    conv(c, (shape){2, 37, 3, 30, 4, false, true, true}); /* fewer tokens than taps */
    conv(c, (shape){1, 37, 0, 37, 4, true, false, true});
    conv(c, (shape){11, 53, 5, 53, 8, true, true, true});
    conv(c, (shape){3, 53, 0, 50, 8, false, false, false});
    conv(c, (shape){9, 21, 0, 21, 3, false, true, false});
    conv(c, (shape){9, 21, 1, 20, 5, true, true, true});
    rows_in_bf16(c, 40, 6144, 4);
    rows_in_bf16(c, 11, 53, 4);
    rows_in_bf16(c, 5, 37, 3);
    if (c->bench) conv(c, (shape){512, 8192, 0, 8192, 4, true, true, false});
}
