/* check_rope.c - norm and rotation of heads, and the angles. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef struct {
    gdn_rope_fn *fn;
    gdn_rope_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

static void rope(check *c, int32_t n_row, int32_t n_head, int32_t d, int32_t rot,
                 bool bf16) {
    gdn_rope_fn *fn = c->kern->rope;
    if (!check_begin(c, (check_fn *)fn, "rope n%d h%d d%d rot%d%s", n_row, n_head, d, rot,
                     bf16 ? " bf16" : ""))
        return;
    gdn_rope_args a = {.n_row = n_row,
                       .n_head = n_head,
                       .d = d,
                       .rot = rot,
                       .eps = 1e-6f,
                       .y_bf16 = bf16};
    a.x_head_stride = 2 * d,
    a.x_stride = n_head * a.x_head_stride + 1; /* the gate in between */
    a.y_head_stride = d + 1, a.y_stride = n_head * a.y_head_stride + 3;
    const size_t nx = (size_t)n_row * a.x_stride, ny = (size_t)n_row * a.y_stride;
    const size_t nc = (size_t)n_row * rot, size = bf16 ? 2 : 4;
    float *x = check_f32(c, "x", nx), *w = check_f32(c, "w", d),
          *cs = check_f32(c, "cs", nc);
    void *y[3];
    static const char *const name[3] = {"y ref", "y", "y one by one"};
    for (int i = 0; i < 3; i++)
        y[i] =
            bf16 ? (void *)check_u16(c, name[i], ny) : (void *)check_f32(c, name[i], ny);
    check_fill(x, nx, -2, 5), check_fill(w, d, 0.2f, 2), check_fill(cs, nc, -1, 1);
    for (int i = 0; i < d; i++)
        if (n_row > 1) x[a.x_stride + i] = 0;
    a.x = x, a.w = w, a.cs = cs, a.y = y[0];
    job j = {.fn = fn, .a = a};
    j.a.y = y[1];
    gdn_rope_ref(&a);
    run(&j);
    /* As for the norm: 1e-6 rms in f32, some elements a bf16 step apart. */
    for (int64_t r = 0; r < n_row; r++)
        for (int64_t h = 0; h < n_head; h++) {
            const int64_t at = r * a.y_stride + h * a.y_head_stride;
            if (bf16)
                check_close_bf16(c, "y", (uint16_t *)y[0] + at, (uint16_t *)y[1] + at, d,
                                 3e-6);
            else
                check_close(c, "y", (float *)y[0] + at, (float *)y[1] + at, d, 1e-12);
        }
    job one = j;
    one.a.n_row = one.a.n_head = 1;
    for (int64_t r = 0; r < n_row; r++)
        for (int64_t h = 0; h < n_head; h++) {
            one.a.x = x + r * a.x_stride + h * a.x_head_stride, one.a.cs = cs + r * rot;
            one.a.y = (char *)y[2] + (r * a.y_stride + h * a.y_head_stride) * size;
            run(&one);
        }
    check_bits(c, "y one by one", y[1], y[2], ny, size); /* gaps too: both untouched */
    check_rate(c, run, &j, 0, (double)n_row * n_head * d * (double)(sizeof *x + size));
    x[d - 1] = NAN;
    run(&j);
    check_that(c, isnan(bf16 ? check_from_bf16(*(uint16_t *)y[1]) : *(float *)y[1]),
               "NaN kept");
    check_end(c);
}

/* theta 1e7 and rot 64, as released.  The wanted figures are sines and cosines of
 * p 10^(-7 j / 32), worked out with 40 digits. */
static void angles(check *c) {
    if (!check_begin(c, (check_fn *)gdn_rope_angles, "rope_angles")) return;
    static const struct {
        int32_t p, j;
        float cosine, sine;
    } want[] = {
        {1, 0, 0.540302306f, 0.841470985f},
        {0, 5, 1.0f, 0.0f},
        {1000, 1, 0.444123347f, 0.895965654f},
        {32767, 3, 0.416899828f, -0.908952437f},
        {262143, 7, -0.0274559088f, -0.999623015f},
        {262143, 31, 0.999059241f, 0.0433662677f},
        {1000000, 0, 0.936752128f, -0.349993502f},
    };
    const int32_t section[3] = {11, 11, 10};
    float *cs = check_f32(c, "cs", 2 * 64);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const int32_t p = want[i].p, j = want[i].j;
        const int32_t pos[6] = {p, -1, -1, p, p, p};
        gdn_rope_angles(cs, pos, 2, 64, 1e7, section, false);
        const float ref[2] = {want[i].cosine, want[i].sine}, got[2] = {cs[j], cs[32 + j]};
        const float row1[2] = {cs[64 + j], cs[96 + j]};
        check_each(c, "angle", ref, got, 2, 1e-7, 1e-9);
        check_bits(c, "second row", got, row1, 2, sizeof *got);
    }
    /* mrope: frequency j turns with time, height or width as the sections interleave. */
    static const char axis[] = "thwthwthwthwthwthwthwthwthwthwth";
    const int32_t pos[12] = {3, 50, 700, 3, 3, 3, 50, 50, 50, 700, 700, 700};
    float *m = check_f32(c, "mrope", 4 * 64);
    gdn_rope_angles(m, pos, 4, 64, 1e7, section, true);
    for (int j = 0; j < 32; j++) {
        const int row = axis[j] == 't' ? 1 : axis[j] == 'h' ? 2 : 3;
        check_that(c, m[j] == m[row * 64 + j] && m[32 + j] == m[row * 64 + 32 + j],
                   "frequency %d on axis %c", j, axis[j]);
    }
    check_end(c);
}

void check_rope(check *c) {
    rope(c, 16, 16, 256, 64, false); /* released: a quarter of the head turns */
    rope(c, 16, 2, 256, 64, true);
    rope(c, 3, 4, 128, 128, false); /* all of it */
    rope(c, 3, 2, 64, 16, true);
    rope(c, 2, 1, 2, 2, false);
    rope(c, 5, 3, 77, 26, false);
    rope(c, 5, 3, 45, 10, true);
    rope(c, 2, 2, 19, 0, false);
    angles(c);
}
