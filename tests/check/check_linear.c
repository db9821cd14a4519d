/* check_linear.c - products with packed weights of every type. */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "../../src/base/half.h"

typedef struct {
    gdn_linear_fn  *fn;
    gdn_linear_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

typedef struct {
    gdn_type type;
    bool     x_bf16, add, gather;
    int32_t  m, n, k;
} shape;

static int bytes_of(gdn_type t) { return t == GDN_F32 ? 4 : t == GDN_F8 ? 1 : 2; }

/* A random matrix in its file's form, [n][k] rows. */
static void fill_weights(void *w, gdn_type type, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float v = (float)(check_uniform() * 2 - 1);
        switch (type) {
        case GDN_F32: ((float *)w)[i] = v; break;
        case GDN_BF16: ((uint16_t *)w)[i] = gdn_f32_to_bf16(v); break;
        case GDN_F16: ((uint16_t *)w)[i] = gdn_f32_to_f16(v); break;
        default: {
            const uint8_t b = (uint8_t)(check_uniform() * 256);
            ((uint8_t *)w)[i] = (b & 0x7f) == 0x7f ? 0 : b; /* subnormals and large codes too */
        }
        }
    }
}

static void pack(void *panel, const void *w, gdn_type type, int32_t n, int32_t k) {
    const uint64_t bytes = gdn_panel_bytes(type, k);
    for (int32_t p = 0; p * GDN_PANEL < n; p++) {
        const void *rows[GDN_PANEL];
        for (int r = 0; r < GDN_PANEL; r++)
            rows[r] = p * GDN_PANEL + r < n ? (const char *)w + (int64_t)(p * GDN_PANEL + r) * k *
                                                                    bytes_of(type)
                                            : NULL;
        gdn_panel_pack_ref((char *)panel + (uint64_t)p * bytes, type, k, rows);
    }
}

/* The plain product from the unpacked matrix: the reference variant reads the packed form, and
 * this is what tells whether packing is right. */
static double plain(const void *w, gdn_type type, const float *scale, int32_t stretches,
                    const shape *s, int32_t row, const float *x) {
    double sum = 0;
    for (int32_t k = 0; k < s->k; k++) {
        const int64_t i = (int64_t)row * s->k + k;
        double v = type == GDN_F32    ? (double)((const float *)w)[i]
                   : type == GDN_BF16 ? (double)gdn_bf16_to_f32(((const uint16_t *)w)[i])
                   : type == GDN_F16  ? (double)gdn_f16_to_f32(((const uint16_t *)w)[i])
                                      : (double)gdn_fp8_to_f32(((const uint8_t *)w)[i]);
        if (type == GDN_F8)
            v *= scale[(row / GDN_PANEL * stretches + k / 128) * GDN_PANEL + row % GDN_PANEL];
        sum += v * x[k];
    }
    return sum;
}

static void product(check *c, shape s) {
    static const char *const name[] = {"f32", "bf16", "f16", "f8"};
    /* Only the reference and AVX512_BF16 read bf16 inputs. */
    if (s.x_bf16 && strcmp(c->isa, "ref") != 0 && !(c->kern->isa & GDN_ISA_AVX512BF16)) return;
    gdn_linear_fn *fn = c->kern->linear;
    if (!check_begin(c, (check_fn *)fn, "linear %s x %s m%d n%d k%d%s%s", s.x_bf16 ? "bf16" : "f32",
                     name[s.type], s.m, s.n, s.k, s.add ? " add" : "", s.gather ? " gather" : ""))
        return;
    const int32_t panels = (s.n + GDN_PANEL - 1) / GDN_PANEL, stretches = (s.k + 127) / 128;
    const int64_t nx = (int64_t)s.m * (s.k + 3), ny = (int64_t)s.m * (s.n + 5);
    const size_t panel_bytes = (size_t)gdn_panel_bytes(s.type, s.k) * (size_t)panels;
    void *w = check_bytes(c, "w", (size_t)s.n * (size_t)s.k * (size_t)bytes_of(s.type));
    char *panel = check_bytes(c, "panels", panel_bytes);
    float *x = check_f32(c, "x", (size_t)nx), *scale = check_f32(c, "scale", (size_t)(panels * stretches * GDN_PANEL));
    uint16_t *xb = check_u16(c, "x bf16", (size_t)nx);
    float *y0 = check_f32(c, "y ref", (size_t)ny), *y1 = check_f32(c, "y", (size_t)ny);
    float *y2 = check_f32(c, "y alone", (size_t)ny);
    int32_t *row = check_i32(c, "row", (size_t)s.m), *y_row = check_i32(c, "y_row", (size_t)s.m);
    fill_weights(w, s.type, (int64_t)s.n * s.k);
    pack(panel, w, s.type, s.n, s.k);
    check_fill(x, (size_t)nx, -1, 1);
    check_fill(scale, (size_t)(panels * stretches * GDN_PANEL), 0.5, 2);
    for (int64_t i = 0; i < nx; i++) {
        xb[i] = gdn_f32_to_bf16(x[i]);
        if (s.x_bf16) x[i] = gdn_bf16_to_f32(xb[i]);
    }
    check_fill(y0, (size_t)ny, -1, 1);
    memcpy(y1, y0, (size_t)ny * sizeof *y0);
    memcpy(y2, y0, (size_t)ny * sizeof *y0);
    for (int32_t i = 0; i < s.m; i++) row[i] = (i * 7 + 3) % s.m, y_row[i] = s.m - 1 - i;
    void *scratch = aligned_alloc(64, (size_t)gdn_linear_scratch());
    if (scratch == NULL) return;
    const gdn_panels pw = {.panel = panel, .scale = scale, .n = s.n, .k = s.k, .scale_cols = 128,
                           .type = s.type};
    job ref = {gdn_linear_ref, {.y = y0, .x = s.x_bf16 ? (void *)xb : (void *)x, .w = &pw,
                                .scratch = scratch, .y_stride = s.n + 5, .x_stride = s.k + 3,
                                .m = s.m, .p0 = 0, .p1 = panels, .x_bf16 = s.x_bf16,
                                .add = s.add}};
    if (s.gather) ref.a.row = row, ref.a.y_row = y_row;
    job got = ref;
    got.fn = fn;
    got.a.y = y1;
    const float before = y0[0];
    run(&ref);
    run(&got);
    if (!s.gather) {
        const double want = plain(w, s.type, scale, stretches, &s, 0, x) + (s.add ? before : 0);
        const float first = (float)want;
        check_each(c, "y[0][0] of the unpacked matrix", &first, y0, 1, 1e-5, 1e-5);
    }
    /* Relative rms 1e-5: one chain of k terms in f32; vdpbf16ps also drops subnormals. */
    check_close(c, "y", y0, y1, (size_t)ny, 1e-10);
    /* Every row and panel on its own: the same bits. */
    job one = got;
    one.a.y = y2;
    one.a.row = one.a.y_row = NULL;
    one.a.m = 1;
    for (int32_t i = 0; i < s.m; i++)
        for (int32_t p = 0; p < panels; p++) {
            one.a.x = (const char *)ref.a.x + (int64_t)(s.gather ? row[i] : i) * (s.k + 3) * (s.x_bf16 ? 2 : 4);
            one.a.y = y2 + (int64_t)(s.gather ? y_row[i] : i) * (s.n + 5);
            one.a.p0 = p;
            one.a.p1 = p + 1;
            run(&one);
        }
    check_bits(c, "y of rows alone", y1, y2, (size_t)ny, sizeof *y1);
    check_rate(c, run, &got, 2.0 * s.m * s.n * s.k, (double)panel_bytes);
    free(scratch);
    check_end(c);
}

/* Packing moves bytes: the variants must agree to the bit, whatever the alignment of the rows. */
static void packing(check *c, gdn_type type, int32_t k, int32_t missing) {
    if (!check_begin(c, (check_fn *)c->kern->panel_pack, "linear pack %d k%d, %d rows", (int)type, k,
                     GDN_PANEL - missing))
        return;
    const size_t row_bytes = (size_t)k * (size_t)bytes_of(type) + 2;
    const size_t bytes = (size_t)gdn_panel_bytes(type, k);
    char *w = check_bytes(c, "rows", row_bytes * GDN_PANEL);
    char *want = check_bytes(c, "panel ref", bytes), *room = check_bytes(c, "panel", bytes + 64);
    char *got = room + (64 - (uintptr_t)room % 64) % 64; /* where the fast form applies */
    const void *rows[GDN_PANEL];
    for (size_t i = 0; i < row_bytes * GDN_PANEL; i++) w[i] = (char)(unsigned char)(check_uniform() * 256);
    for (int r = 0; r < GDN_PANEL; r++)
        rows[r] = r % 7 == 3 && missing-- > 0 ? NULL : w + (size_t)r * row_bytes;
    gdn_panel_pack_ref(want, type, k, rows);
    c->kern->panel_pack(got, type, k, rows);
    check_bits(c, "panel", want, got, bytes, 1);
    check_end(c);
}

void check_linear(check *c) {
    packing(c, GDN_BF16, 1024, 0);
    packing(c, GDN_BF16, 32, 5);
    packing(c, GDN_BF16, 33, 1);
    packing(c, GDN_F32, 48, 2);
    packing(c, GDN_F16, 32, 1);
    packing(c, GDN_F8, 32, 1);
    static const gdn_type types[] = {GDN_BF16, GDN_F32, GDN_F16, GDN_F8};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        product(c, (shape){types[t], .m = 1, .n = 1, .k = 1});
        product(c, (shape){types[t], .m = 7, .n = 67, .k = 129, .gather = true});
        product(c, (shape){types[t], .m = 13, .n = 100, .k = 515, .add = true});
        product(c, (shape){types[t], .m = 101, .n = 64, .k = 256});
        product(c, (shape){types[t], .m = 1, .n = 1024, .k = 1024});
    }
    product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 1, .n = 1, .k = 1});
    product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 5, .n = 67, .k = 257, .gather = true});
    product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 101, .n = 130, .k = 700, .add = true});
    product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 37, .n = 70, .k = 545, .gather = true, .add = true});
    product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 16, .n = 64, .k = 31});
    product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 203, .n = 64, .k = 288});
    product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 1, .n = 6144, .k = 1024});
    if (c->bench) {
        product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 512, .n = 7168, .k = 1024});
        product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 512, .n = 1024, .k = 3584});
        product(c, (shape){GDN_BF16, .m = 512, .n = 7168, .k = 1024});
        product(c, (shape){GDN_BF16, .x_bf16 = true, .m = 16, .n = 7168, .k = 1024});
    }
}
