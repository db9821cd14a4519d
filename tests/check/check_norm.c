/* check_norm.c - RMS normalisation, plain and gated. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef struct {
    gdn_norm_fn *fn;
    gdn_norm_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

typedef struct {
    int32_t n_row, n_head, d;
    bool gated, bf16;
} shape;

static void *y_buf(check *c, const char *name, bool bf16, size_t n) {
    return bf16 ? (void *)check_u16(c, name, n) : (void *)check_f32(c, name, n);
}

static void norm(check *c, shape s) {
    gdn_norm_fn *fn = c->kern->norm;
    if (!check_begin(c, (check_fn *)fn, "norm n%d h%d d%d%s%s", s.n_row, s.n_head, s.d,
                     s.gated ? " gated" : "", s.bf16 ? " bf16" : ""))
        return;
    gdn_norm_args a = {
        .n_row = s.n_row, .n_head = s.n_head, .d = s.d, .eps = 1e-6f, .y_bf16 = s.bf16};
    a.x_head_stride = s.d + 1, a.y_head_stride = s.d + 2, a.z_head_stride = s.d + 3;
    a.x_stride = s.n_head * a.x_head_stride + 5,
    a.y_stride = s.n_head * a.y_head_stride + 1;
    a.z_stride = s.n_head * a.z_head_stride;
    const size_t nx = (size_t)s.n_row * a.x_stride, ny = (size_t)s.n_row * a.y_stride;
    const size_t nz = (size_t)s.n_row * a.z_stride, size = s.bf16 ? 2 : 4;
    float *x = check_f32(c, "x", nx), *z = check_f32(c, "z", nz),
          *w = check_f32(c, "w", s.d);
    void *y0 = y_buf(c, "y ref", s.bf16, ny), *y1 = y_buf(c, "y", s.bf16, ny);
    void *y2 = y_buf(c, "y one by one", s.bf16, ny);
    check_fill(x, nx, -2, 5), check_fill(z, nz, -8, 8), check_fill(w, s.d, 0.2f, 2);
    for (int i = 0; i < s.d; i++) {
        if (s.n_row > 1) x[a.x_stride + i] *= 1e-5f; /* eps counts          */
        if (s.n_row > 2) x[2 * a.x_stride + i] = 0;  /* eps alone           */
        if (s.n_row > 3) x[3 * a.x_stride + i] *= 1e15f;
    }
    z[0] = -300; /* the gate shut */
    a.x = x, a.w = w, a.z = s.gated ? z : NULL;
    a.y = y0;
    job j = {.fn = fn, .a = a};
    j.a.y = y1;
    gdn_norm_ref(&a);
    run(&j);
    /* f32: relative rms 1e-6, a sum in lanes and some roundings.  bf16: the reference
     * rounds the same way, except where its value lies within 1e-6 of a tie: then the
     * element is off by 2^-8; one in a few thousand may be. */
    for (int64_t r = 0; r < s.n_row; r++)
        for (int64_t h = 0; h < s.n_head; h++) {
            const int64_t at = r * a.y_stride + h * a.y_head_stride;
            if (s.bf16)
                check_close_bf16(c, "y", (uint16_t *)y0 + at, (uint16_t *)y1 + at, s.d,
                                 3e-6);
            else
                check_close(c, "y", (float *)y0 + at, (float *)y1 + at, s.d, 1e-12);
            check_bits(c, "gap", (char *)y0 + (at + s.d) * size,
                       (char *)y1 + (at + s.d) * size, 2, size);
        }
    job one = j;
    one.a.n_row = one.a.n_head = 1;
    for (int64_t r = 0; r < s.n_row; r++)
        for (int64_t h = 0; h < s.n_head; h++) {
            one.a.x = x + r * a.x_stride + h * a.x_head_stride;
            one.a.z = s.gated ? z + r * a.z_stride + h * a.z_head_stride : NULL;
            one.a.y = (char *)y2 + (r * a.y_stride + h * a.y_head_stride) * size;
            run(&one);
        }
    check_bits(c, "y one by one", y1, y2, ny, size);
    check_rate(c, run, &j, 0,
               (double)s.n_row * s.n_head * s.d *
                   (double)(sizeof *x * (s.gated ? 2 : 1) + size));

    x[s.d - 1] = NAN;
    run(&j);
    const float first = s.bf16 ? check_from_bf16(*(uint16_t *)y1) : *(float *)y1;
    check_that(c, isnan(first), "NaN kept");
    if (!s.bf16) { /* in place */
        check_fill(x, nx, -2, 5);
        job in = j;
        in.a.x = x, in.a.y = y1;
        run(&in);
        memcpy(z, x, nx < nz ? nx * sizeof *x : nz * sizeof *x);
        in.a.y = x, in.a.y_stride = a.x_stride, in.a.y_head_stride = a.x_head_stride;
        in.a.z = in.a.z != NULL ? x : NULL; /* the gate may lie there too */
        in.a.z_stride = a.x_stride, in.a.z_head_stride = a.x_head_stride;
        job apart = in;
        apart.a.y = y2, apart.a.y_stride = a.y_stride,
        apart.a.y_head_stride = a.y_head_stride;
        run(&apart);
        run(&in);
        for (int64_t r = 0; r < s.n_row; r++)
            for (int64_t h = 0; h < s.n_head; h++)
                check_bits(c, "in place",
                           (float *)y2 + r * a.y_stride + h * a.y_head_stride,
                           x + r * a.x_stride + h * a.x_head_stride, s.d, sizeof *x);
    }
    check_end(c);
}

void check_norm_gated(check *c); /* check_norm_gated.c */

void check_norm(check *c) {
    check_norm_gated(c);
    norm(c, (shape){5, 1, 2048, false, false}); /* the released widths      */
    norm(c, (shape){64, 1, 2048, false, true});
    norm(c, (shape){3, 1, 5120, false, true});
    norm(c, (shape){64, 32, 128, true, true}); /* after the delta rule     */
    norm(c, (shape){2, 16, 128, true, false});
    norm(c, (shape){1, 1, 1, false, false});
    norm(c, (shape){4, 3, 7, true, true});
    norm(c, (shape){4, 2, 77, false, false});
    norm(c, (shape){4, 2, 133, true, false});
}
