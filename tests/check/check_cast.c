/* check_cast.c - conversions of 16-bit types: every value, every rounding, every length of tail. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "../../src/base/half.h"

enum { ALL = 65536, LONGEST = 67 };

typedef struct {
    const char *name;
    gdn_widen_fn *widen, *widen_ref;
    gdn_narrow_fn *narrow, *narrow_ref;
    gdn_round_fn *round;
} family;

/* NaN stays NaN; which one is the variant's choice.  Everything else has the same bits. */
static void same_f32(check *c, const char *what, const float *ref, const float *got, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(ref + i, got + i, sizeof *ref) != 0 && !(isnan(ref[i]) && isnan(got[i]))) {
            check_that(c, false, "%s[%d] is %a, not %a", what, (int)i, (double)got[i],
                       (double)ref[i]);
            return;
        }
}

static bool is_nan16(uint16_t x, bool f16) {
    return f16 ? (x & 0x7fff) > 0x7c00 : (x & 0x7fff) > 0x7f80;
}

static void same_u16(check *c, const char *what, const uint16_t *ref, const uint16_t *got,
                     int64_t n, bool f16) {
    for (int64_t i = 0; i < n; i++)
        if (ref[i] != got[i] && !(is_nan16(ref[i], f16) && is_nan16(got[i], f16))) {
            check_that(c, false, "%s[%d] is %04x, not %04x", what, (int)i, got[i], ref[i]);
            return;
        }
}

/* Around every 16-bit value: itself, the tie above it, and the neighbours of the tie. */
static void fill(float *x, const float *value, int shift) {
    for (int64_t i = 0; i < ALL; i++)
        for (uint32_t k = 0; k < 4; k++) {
            const uint32_t tie = 1u << (shift - 1);
            const uint32_t add = k == 0 ? 0 : tie - 2 + k;
            x[4 * i + k] = gdn_f32_of_bits(gdn_bits_of_f32(value[i]) + add);
        }
}

static void tails(check *c, const family *f, const uint16_t *h, const float *x, bool f16) {
    for (int64_t n = 0; n <= LONGEST; n++) {
        float w0[LONGEST + 2], w1[LONGEST + 2];
        uint16_t h0[LONGEST + 2], h1[LONGEST + 2];
        memset(w0, 0x11, sizeof w0), memset(w1, 0x11, sizeof w1);
        memset(h0, 0x11, sizeof h0), memset(h1, 0x11, sizeof h1);
        f->widen_ref(w0 + 1, h, n), f->widen(w1 + 1, h, n);
        f->narrow_ref(h0 + 1, x, n), f->narrow(h1 + 1, x, n);
        same_f32(c, "widened tail", w0, w1, LONGEST + 2);
        same_u16(c, "narrowed tail", h0, h1, LONGEST + 2, f16);
        memcpy(w1 + 1, x, (size_t)n * sizeof *w1);
        f->widen_ref(w0 + 1, h0 + 1, n);
        f->round(w1 + 1, n);
        same_f32(c, "rounded tail", w0, w1, LONGEST + 2);
    }
}

static void cast(check *c, const family *f, bool f16) {
    if (!check_begin(c, (check_fn *)f->narrow, "cast %s", f->name)) return;
    uint16_t *h = check_u16(c, "16 bits", ALL), *h0 = check_u16(c, "narrow ref", 4 * ALL);
    uint16_t *h1 = check_u16(c, "narrow", 4 * ALL);
    float *w0 = check_f32(c, "widen ref", ALL), *w1 = check_f32(c, "widen", ALL);
    float *x = check_f32(c, "x", 4 * ALL), *y0 = check_f32(c, "round ref", 4 * ALL);
    for (int64_t i = 0; i < ALL; i++) h[i] = (uint16_t)i;
    f->widen_ref(w0, h, ALL);
    f->widen(w1, h, ALL);
    same_f32(c, "widened", w0, w1, ALL);
    fill(x, w0, f16 ? 13 : 16);
    f->narrow_ref(h0, x, 4 * ALL);
    f->narrow(h1, x, 4 * ALL);
    same_u16(c, "narrowed", h0, h1, 4 * ALL, f16);
    tails(c, f, h + 0x3c00, x + 4 * 0x3c00, f16);
    f->widen_ref(y0, h0, 4 * ALL);
    f->round(x, 4 * ALL);
    same_f32(c, "rounded", y0, x, 4 * ALL);
    check_end(c);
}

void check_cast(check *c) {
    const gdn_kern *k = c->kern;
    const family bf16 = {"bf16", k->widen[GDN_HALF_BF16], gdn_widen_bf16_ref,
                         k->narrow[GDN_HALF_BF16], gdn_narrow_bf16_ref, k->round[GDN_HALF_BF16]};
    const family f16 = {"f16", k->widen[GDN_HALF_F16], gdn_widen_f16_ref,
                        k->narrow[GDN_HALF_F16], gdn_narrow_f16_ref, k->round[GDN_HALF_F16]};
    cast(c, &bf16, false);
    cast(c, &f16, true);
}
