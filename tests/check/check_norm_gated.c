/* check_norm_gated.c - the gated norm in every mix of types. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "../../src/base/half.h"

void check_norm_gated(check *c);

typedef struct {
    gdn_norm_gated_fn *fn;
    gdn_norm_gated_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

typedef struct {
    int64_t n_row, n_head, d;
    gdn_type x, w, y;
    gdn_gate gate;
    bool after;
} shape;

static void *buffer(check *c, const char *name, gdn_type t, int64_t n) {
    return t == GDN_F32 ? (void *)check_f32(c, name, (size_t)n) : (void *)check_u16(c, name, (size_t)n);
}

static void set(void *p, gdn_type t, int64_t i, float v) {
    if (t == GDN_F32) ((float *)p)[i] = v;
    else ((uint16_t *)p)[i] = t == GDN_BF16 ? gdn_f32_to_bf16(v) : gdn_f32_to_f16(v);
}

static float get(const void *p, gdn_type t, int64_t i) {
    const uint16_t *h = p;
    return t == GDN_F32 ? ((const float *)p)[i]
           : t == GDN_BF16 ? gdn_bf16_to_f32(h[i]) : gdn_f16_to_f32(h[i]);
}

static void fill(void *p, gdn_type t, int64_t n, float lo, float hi) {
    for (int64_t i = 0; i < n; i++) set(p, t, i, lo + (hi - lo) * (float)check_uniform());
}

/* An element may be off by f32's own error, and where that crosses a tie by one rounding step of
 * y's type; the latter seldom. */
static void compare(check *c, const char *what, const shape *s, const void *ref, const void *got,
                    int64_t at) {
    double err = 0, power = 0;
    int off = 0;
    for (int64_t i = at; i < at + s->d; i++) {
        const double r = (double)get(ref, s->y, i), g = (double)get(got, s->y, i);
        const double step = s->y == GDN_F32 ? 2e-6 : s->y == GDN_BF16 ? 0x1p-7 : 0x1p-10;
        check_that(c, fabs(g - r) <= step * fabs(r) + (s->y == GDN_F16 ? 0x1p-24 : 1e-37),
                   "%s[%lld]: %g, need %g", what, (long long)i, g, r);
        err += (g - r) * (g - r), power += r * r;
        off += g != r;
    }
    if (s->y == GDN_F32)
        check_that(c, err <= 1e-12 * power + 1e-70, "%s: relative square error %g", what, err / power);
    else
        check_that(c, off <= 1 + s->d / 50, "%s: %d of %lld elements rounded elsewhere", what, off,
                   (long long)s->d);
}

static void gated(check *c, shape s) {
    gdn_norm_gated_fn *fn = c->kern->norm_gated;
    if (!check_begin(c, (check_fn *)fn, "norm_gated n%d h%d d%d %s %s %s%s%s", (int)s.n_row,
                     (int)s.n_head, (int)s.d, gdn_type_name(s.x), gdn_type_name(s.w),
                     gdn_type_name(s.y), s.gate == GDN_GATE_SILU ? "" : " sigmoid",
                     s.after ? " after" : ""))
        return;
    const int64_t ex = gdn_type_bytes(s.x), ey = gdn_type_bytes(s.y);
    gdn_norm_gated_args a = {.n_row = s.n_row, .n_head = s.n_head, .d = s.d,
                             .x_type = s.x, .w_type = s.w, .y_type = s.y,
                             .eps = 1e-6f, .gate = s.gate, .norm_after_gate = s.after};
    a.x_head_stride = (s.d + 1) * ex, a.z_head_stride = (s.d + 3) * ex;
    a.y_head_stride = (s.d + 2) * ey;
    a.x_stride = s.n_head * a.x_head_stride + 5 * ex;
    a.z_stride = s.n_head * a.z_head_stride;
    a.y_stride = s.n_head * a.y_head_stride + ey;
    const int64_t nx = s.n_row * a.x_stride / ex, nz = s.n_row * a.z_stride / ex;
    const int64_t ny = s.n_row * a.y_stride / ey;
    void *x = buffer(c, "x", s.x, nx), *z = buffer(c, "z", s.x, nz), *w = buffer(c, "w", s.w, s.d);
    void *y0 = buffer(c, "y ref", s.y, ny), *y1 = buffer(c, "y", s.y, ny);
    void *y2 = buffer(c, "y one by one", s.y, ny);
    fill(x, s.x, nx, -2, 5), fill(z, s.x, nz, -8, 8), fill(w, s.w, s.d, 0.2f, 2);
    for (int64_t i = 0; i < s.d; i++) {
        const int64_t row = a.x_stride / ex;
        if (s.n_row > 1) set(x, s.x, row + i, 1e-4f * get(x, s.x, row + i)); /* eps counts  */
        if (s.n_row > 2) set(x, s.x, 2 * row + i, 0);                        /* eps alone   */
        if (s.n_row > 3 && s.x != GDN_F16)
            set(x, s.x, 3 * row + i, 1e12f * get(x, s.x, 3 * row + i));
    }
    set(z, s.x, 0, -300); /* the gate shut */
    a.x = x, a.z = z, a.w = w, a.y = y0;
    job j = {fn, a};
    j.a.y = y1;
    gdn_norm_gated_ref(&a);
    run(&j);
    for (int64_t r = 0; r < s.n_row; r++)
        for (int64_t h = 0; h < s.n_head; h++) {
            const int64_t at = (r * a.y_stride + h * a.y_head_stride) / ey;
            compare(c, "y", &s, y0, y1, at);
            check_bits(c, "gap", (char *)y0 + (at + s.d) * ey, (char *)y1 + (at + s.d) * ey, 2,
                       (size_t)ey);
        }
    job one = j;
    one.a.n_row = one.a.n_head = 1;
    for (int64_t r = 0; r < s.n_row; r++)
        for (int64_t h = 0; h < s.n_head; h++) {
            one.a.x = (char *)x + r * a.x_stride + h * a.x_head_stride;
            one.a.z = (char *)z + r * a.z_stride + h * a.z_head_stride;
            one.a.y = (char *)y2 + r * a.y_stride + h * a.y_head_stride;
            run(&one);
        }
    check_bits(c, "y one by one", y1, y2, (size_t)ny, (size_t)ey);
    check_rate(c, run, &j, 0, (double)(s.n_row * s.n_head * s.d) * (double)(2 * ex + ey));
    if (s.x == s.y) { /* over its own input */
        job in = j;
        in.a.y = x, in.a.y_stride = a.x_stride, in.a.y_head_stride = a.x_head_stride;
        run(&in);
        for (int64_t r = 0; r < s.n_row; r++)
            for (int64_t h = 0; h < s.n_head; h++)
                check_bits(c, "in place", (char *)y1 + r * a.y_stride + h * a.y_head_stride,
                           (char *)x + r * a.x_stride + h * a.x_head_stride, (size_t)s.d, (size_t)ey);
    }
    set(x, s.x, s.d - 1, NAN);
    run(&j);
    check_that(c, isnan(get(y1, s.y, 0)), "NaN kept");
    check_end(c);
}

void check_norm_gated(check *c) {
    static const gdn_type type[] = {GDN_F32, GDN_BF16, GDN_F16};
    for (int i = 0; i < 27; i++)
        gated(c, (shape){4, 3, 77, type[i / 9], type[i / 3 % 3], type[i % 3],
                         i % 2 ? GDN_GATE_SILU : GDN_GATE_SIGMOID, i % 4 / 2 == 1});
    for (int t = 0; t < 3; t++) {
        gated(c, (shape){64, 32, 128, type[t], type[t], type[t], GDN_GATE_SILU, false}); /* released */
        gated(c, (shape){5, 2, 128, type[t], GDN_F32, type[t], GDN_GATE_SIGMOID, true});
        gated(c, (shape){4, 3, 7, type[t], GDN_F32, type[t], GDN_GATE_SILU, true});
        gated(c, (shape){1, 1, 1, type[t], type[t], GDN_F32, GDN_GATE_SILU, false});
        gated(c, (shape){3, 1, 2051, type[t], GDN_BF16, type[t], GDN_GATE_SILU, false});
    }
}
