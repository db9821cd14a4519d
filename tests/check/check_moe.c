/* check_moe.c - choosing experts and adding up their answers. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef enum {
    PLAIN,
    TIES,    /* five values among all experts, +0 and -0 among them            */
    NEAR,    /* logits one rounding apart: probabilities coincide              */
    HOLES,   /* two of three are NaN or -inf                                   */
    STEEP,   /* differences of thousands: most weights are 0                   */
    ALL_LOW, /* nothing above -inf                                             */
} kind;

static float logit(kind what, int32_t i) {
    static const float five[5] = { -1.0f, -0.0f, 0.0f, 1.0f, 2.5f };
    const float u = (float)check_uniform();
    switch (what) {
    case TIES: return five[(int)(u * 5)];
    case NEAR: return 5.0f - (float)(int)(u * 8) * 0x1p-21f;
    case HOLES: return u < 0.33f ? 9 * u : u < 0.67f ? NAN : -INFINITY;
    case STEEP: return (u - 0.5f) * 2e4f;
    case ALL_LOW: return i % 2 ? NAN : -INFINITY;
    default: return u * 16 - 8;
    }
}

typedef struct { check *c; gdn_moe_route_args a; } route_job;
static void run_route(void *arg) {
    route_job *j = arg;
    j->c->kern->moe_route(&j->a);
}

static void route(check *c, const char *name, int32_t n_row, int32_t n_expert, int32_t top,
                  bool normalise, kind what) {
    if (!check_begin(c, (check_fn *)c->kern->moe_route, "moe_route %s %dx %d of %d%s", name,
                     n_row, top, n_expert, normalise ? " norm" : ""))
        return;
    const int64_t stride = n_expert + 5;
    const size_t n = (size_t)(n_row * top);
    float *x = check_f32(c, "logits", (size_t)((n_row - 1) * stride + n_expert));
    int32_t *e0 = check_i32(c, "expert ref", n), *e1 = check_i32(c, "expert", n);
    float *w0 = check_f32(c, "weight ref", n), *w1 = check_f32(c, "weight", n);
    for (int32_t r = 0; r < n_row; r++)
        for (int32_t i = 0; i < n_expert; i++) x[r * stride + i] = logit(what, i);
    route_job j = { c, { .expert = e0, .weight = w0, .logits = x, .stride = stride,
                         .n_row = n_row, .n_expert = n_expert, .top = top,
                         .normalise = normalise } };
    gdn_moe_route_ref(&j.a);
    j.a.expert = e1, j.a.weight = w1;
    run_route(&j);
    check_bits(c, "expert", e0, e1, n, sizeof *e0);
    /* exp is good to 2e-7, its argument to 6e-8 of a difference up to 87, the sum of up to
     * 1024 of them to 1e-6 or so; below 1e-36 the vector exp gives 0 */
    check_each(c, "weight", w0, w1, n, 6e-6, 1e-36);
    for (int32_t r = 0; r < n_row; r++) { /* no row depends on those beside it */
        j.a.n_row = 1, j.a.logits = x + r * stride, j.a.expert = e0, j.a.weight = w0;
        run_route(&j);
        check_bits(c, "expert of a row alone", e0, e1 + r * top, (size_t)top, sizeof *e0);
        check_bits(c, "weight of a row alone", w0, w1 + r * top, (size_t)top, sizeof *w0);
    }
    j.a.n_row = n_row, j.a.logits = x, j.a.expert = e1, j.a.weight = w1;
    check_rate(c, run_route, &j, 0, 4.0 * n_row * n_expert);
    check_end(c);
}

typedef struct { check *c; gdn_moe_combine_args a; } combine_job;
static void run_combine(void *arg) {
    combine_job *j = arg;
    j->c->kern->moe_combine(&j->a);
}

static void combine(check *c, int32_t n_row, int32_t top, int32_t d, bool shared) {
    if (!check_begin(c, (check_fn *)c->kern->moe_combine, "moe_combine %dx %d d%d%s", n_row, top,
                     d, shared ? " shared" : ""))
        return;
    const size_t n = (size_t)n_row, row = (size_t)d + 3, size = (n - 1) * row + (size_t)d;
    float *e = check_f32(c, "e", n * (size_t)top * (size_t)d);
    float *w = check_f32(c, "weight", n * (size_t)top), *gate = check_f32(c, "gate", n * 2);
    float *s = check_f32(c, "shared", size), *y[3];
    for (int i = 0; i < 3; i++) y[i] = check_f32(c, "y", size);
    check_fill(e, n * (size_t)top * (size_t)d, -1, 1);
    check_fill(w, n * (size_t)top, 0, 1);
    for (size_t r = 0; r < n; r++) {
        check_fill(s + r * row, (size_t)d, -1, 1), check_fill(y[0] + r * row, (size_t)d, -1, 1);
        gate[2 * r] = (float)check_uniform() * 20 - 10; /* every other one is poison */
    }
    for (int i = 1; i < 3; i++) memcpy(y[i], y[0], size * sizeof(float));
    combine_job j = { c, { .y = y[1], .e = e, .weight = w, .shared = shared ? s : NULL,
                           .gate = gate, .y_stride = (int64_t)row, .shared_stride = (int64_t)row,
                           .gate_stride = 2, .n_row = n_row, .top = top, .d = d } };
    gdn_moe_combine_ref(&j.a);
    j.a.y = y[2];
    run_combine(&j);
    for (size_t r = 0; r < n; r++) /* top + 2 roundings of sums around 1 */
        check_each(c, "y", y[1] + r * row, y[2] + r * row, (size_t)d, 1e-6, 4e-7 * (top + 2));
    for (size_t r = 0; r < n; r++) {
        j.a.n_row = 1, j.a.y = y[0] + r * row, j.a.e = e + r * (size_t)(top * d);
        j.a.weight = w + r * (size_t)top, j.a.gate = gate + 2 * r;
        j.a.shared = shared ? s + r * row : NULL;
        run_combine(&j);
        check_bits(c, "row alone", y[2] + r * row, j.a.y, (size_t)d, sizeof(float));
    }
    j.a.n_row = n_row, j.a.y = y[2], j.a.e = e, j.a.weight = w, j.a.gate = gate;
    j.a.shared = shared ? s : NULL;
    check_rate(c, run_combine, &j, 2.0 * (top + shared) * n_row * d,
               4.0 * (top + shared + 2) * n_row * d);
    check_end(c);
}

void check_moe(check *c) {
    static const struct { const char *name; kind what; } kinds[] = {
        { "plain", PLAIN }, { "ties", TIES },   { "near", NEAR },
        { "holes", HOLES }, { "steep", STEEP }, { "all low", ALL_LOW },
    };
    /* The released ones, the smallest, what divides nothing, every expert. */
    static const int32_t shape[][2] = { { 512, 10 }, { 256, 8 }, { 1, 1 },     { 4, 2 },
                                        { 17, 3 },   { 131, 29 }, { 1024, 1024 }, { 999, 77 } };
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            route(c, kinds[i].name, 1, shape[s][0], shape[s][1], true, kinds[i].what);
            route(c, kinds[i].name, 7, shape[s][0], shape[s][1], false, kinds[i].what);
            if (c->bench) break;
        }
    for (int s = 0; s < 2; s++) {
        combine(c, 1, 10, 2048, s);
        combine(c, 5, 8, 4096, s);
        combine(c, 3, 1, 8, s);
        combine(c, 9, 3, 77, s);
        combine(c, 2, 5, 1, s);
    }
}
