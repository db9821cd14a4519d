/* test_base.c - errors, log, clock, half-precision conversions, arena.
 *
 * The conversions are compared with the definition of a binary format, worked out in
 * double, where every f32 and every midpoint between two halves is exact; and, where the
 * compiler has the type, with its _Float16. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/base/arena.h"
#include "../../src/base/clock.h"
#include "../../src/base/err.h"
#include "../../src/base/half.h"
#include "../../src/base/log.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

/* ---- errors, log, clock ---- */

static void errors(void **state) {
    (void)state;
    gdn_err err;
    memset(&err, 'x', sizeof err);
    assert_int_equal(gdn_fail(&err, GDN_E_FORMAT, "%s: field %d", "a.json", 7),
                     GDN_E_FORMAT);
    assert_int_equal(err.code, GDN_E_FORMAT);
    assert_string_equal(err.text, "a.json: field 7");
    assert_int_equal(gdn_fail(NULL, GDN_E_IO, "x"), GDN_E_IO);

    /* What a file brings along must not reach a terminal as it is. */
    gdn_fail(&err, GDN_E_IO, "a\n\x1b[31m\x7f\xc3\xa9");
    assert_string_equal(err.text, "a??[31m?\xc3\xa9");

    char longer[2000];
    memset(longer, 'y', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    gdn_fail(&err, GDN_E_IO, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static void status_words(void **state) {
    (void)state;
    assert_string_equal(gdn_status_text(GDN_OK), "ok");
    assert_string_equal(gdn_status_text(GDN_E_FULL), "context is full");
    assert_string_equal(gdn_status_text((gdn_status)-1000), "unknown status");
    for (int i = 0; i >= GDN_E_CANCELLED; i--)
        assert_string_not_equal(gdn_status_text((gdn_status)i), "unknown status");
}

typedef struct {
    int lines;
    gdn_log_level level;
    char text[1024];
} heard;
static void hear(gdn_log_level level, const char *line, void *arg) {
    heard *h = arg;
    h->lines++;
    h->level = level;
    snprintf(h->text, sizeof h->text, "%s", line);
}

static void log_lines(void **state) {
    (void)state;
    heard h = {0};
    gdn_log(GDN_LOG_WARN, "nobody listens");
    gdn_log_set(hear, &h);
    gdn_log(GDN_LOG_INFO, "kern op=%s isa=%u", "linear", 7u);
    assert_int_equal(h.lines, 1);
    assert_int_equal(h.level, GDN_LOG_INFO);
    assert_string_equal(h.text, "kern op=linear isa=7");
    gdn_log(GDN_LOG_DEBUG, "%0700d", 1);
    assert_int_equal(h.lines, 2);
    assert_in_range(strlen(h.text), 500, 700);
    gdn_log_set(NULL, NULL);
    gdn_log(GDN_LOG_WARN, "nobody listens");
    assert_int_equal(h.lines, 2);
}

static void clock_runs(void **state) {
    (void)state;
    const double t0 = gdn_now_us();
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    const double us = gdn_now_us() - t0;
    assert_true(us >= 20000 && us < 10e6);
}

/* ---- half-precision formats ---- */

typedef struct {
    int exp_bits, man_bits; /* as IEEE: bias 2^(exp_bits-1) - 1, Inf and NaN on top */
} format;
static const format BF16 = {8, 7}, F16 = {5, 10};

/* The value of a non-negative code, NaN included; infinity counts as the next power of
 * two, which is where rounding to nearest puts the border. */
static double value(format f, uint32_t code) {
    const int bias = (1 << (f.exp_bits - 1)) - 1, e = (int)(code >> f.man_bits);
    const uint32_t m = code & ((1u << f.man_bits) - 1);
    if (e == (1 << f.exp_bits) - 1 && m != 0) return NAN;
    if (e == 0) return ldexp(m, 1 - bias - f.man_bits);
    return ldexp(m + (double)(1u << f.man_bits), e - bias - f.man_bits);
}

static float as_float(format f, uint32_t code) {
    const uint32_t inf = ((1u << f.exp_bits) - 1) << f.man_bits;
    return code == inf ? INFINITY : (float)value(f, code);
}

/* `below` is a code whose value does not exceed x; the next one's does.  x >= 0. */
static uint32_t nearest(format f, uint32_t below, double x) {
    const double lo = x - value(f, below), hi = value(f, below + 1) - x;
    assert_true(lo >= 0 && hi > 0);
    return lo < hi ? below : hi < lo ? below + 1 : below + (below & 1);
}

typedef uint16_t narrow_fn(float x);

static void check_narrow(narrow_fn *fn, float x, uint32_t want) {
    const uint32_t got = fn(x), neg = fn(-x);
    if (got != want || neg != (want | 0x8000))
        fail_msg("%a: %04x and %04x, expected %04x", (double)x, got, neg, want);
}

/* Every border between two codes: the codes themselves, their midpoint, and the f32 on
 * either side of each, at both signs. */
static void check_borders(format f, narrow_fn *fn) {
    const uint32_t inf = ((1u << f.exp_bits) - 1) << f.man_bits;
    for (uint32_t c = 0; c < inf; c++) {
        const double lo = value(f, c), hi = value(f, c + 1), mid = (lo + hi) / 2;
        const double at[] = {lo, mid};
        for (int i = 0; i < 2; i++) {
            const float x = (float)at[i]; /* exact: no midpoint is below 2^-134 */
            assert_true((double)x == at[i]);
            check_narrow(fn, x, nearest(f, c, at[i]));
            const float up = nextafterf(x, INFINITY);
            if ((double)up < hi) check_narrow(fn, up, nearest(f, c, up));
            if (i == 0) continue;
            const float down = nextafterf(x, 0);
            if ((double)down >= lo) check_narrow(fn, down, nearest(f, c, down));
        }
    }
    check_narrow(fn, INFINITY, inf);
    check_narrow(fn, 3.4028235e38f, inf); /* above the last border of both formats */
    /* NaN, quiet and signalling. */
    for (uint32_t m = 1; m < 1u << 23; m += m < 4096 ? 1 : 4093) {
        const uint32_t got = fn(gdn_f32_of_bits(0x7f800000 | m));
        const uint32_t neg = fn(gdn_f32_of_bits(0xff800000 | m));
        if ((got & 0x7fff) <= inf || got > 0x7fff || neg != (got | 0x8000))
            fail_msg("NaN %06x became %04x and %04x", m, got, neg);
    }
}

static void check_widen(format f, float (*fn)(uint16_t)) {
    for (uint32_t c = 0; c < 0x10000; c++) {
        const float want = as_float(f, c & 0x7fff), got = fn((uint16_t)c);
        if (isnan(want)) {
            assert_true(isnan(got));
        } else if (got != ((c & 0x8000) ? -want : want)) {
            fail_msg("%04x became %a, expected %a", c, (double)got, (double)want);
        }
        assert_int_equal(signbit(got) != 0, c >> 15);
    }
}

static void bf16(void **state) {
    (void)state;
    check_widen(BF16, gdn_bf16_to_f32);
    check_borders(BF16, gdn_f32_to_bf16);
}

static void f16(void **state) {
    (void)state;
    check_widen(F16, gdn_f16_to_f32);
    check_borders(F16, gdn_f32_to_f16);
}

/* Known from the definition of the format: no infinity, the top code alone is NaN. */
static void fp8(void **state) {
    (void)state;
    const format e4m3 = {4, 3};
    for (uint32_t c = 0; c < 256; c++) {
        const float got = gdn_fp8_to_f32((uint8_t)c);
        if ((c & 0x7f) == 0x7f) {
            assert_true(isnan(got));
            continue;
        }
        const uint32_t m = c & 7, e = c >> 3 & 15;
        const double want =
            e == 15 ? ldexp(8 + (double)m, 15 - 7 - 3) : value(e4m3, c & 0x7f);
        assert_true((double)got == ((c & 0x80) ? -want : want));
        assert_int_equal(signbit(got) != 0, c >> 7);
    }
    assert_true(gdn_fp8_to_f32(0x7e) == 448 && gdn_fp8_to_f32(0x01) == 0x1p-9f);
}

static void f16_as_the_compiler(void **state) {
    (void)state;
#if defined(__FLT16_MANT_DIG__) && !defined(__clang__)
    __extension__ typedef _Float16 half;
    for (uint32_t c = 0; c < 0x10000; c++) {
        half h;
        const uint16_t code = (uint16_t)c;
        memcpy(&h, &code, 2);
        const float want = (float)h, got = gdn_f16_to_f32(code);
        assert_true(isnan(want) ? isnan(got) : want == got);
    }
    for (uint64_t u = 0; u <= UINT32_MAX; u += 1021) {
        const float x = gdn_f32_of_bits((uint32_t)u);
        const half h = (half)x;
        uint16_t want;
        memcpy(&want, &h, 2);
        const uint16_t got = gdn_f32_to_f16(x);
        if (isnan(x) ? (got & 0x7fff) <= 0x7c00 : got != want)
            fail_msg("%a: %04x, expected %04x", (double)x, got, want);
    }
#else
    skip();
#endif
}

/* ---- arena ---- */

static bool all(const unsigned char *p, size_t n, unsigned char v) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != v) return false;
    return true;
}

/* Rounds of random pieces: aligned, zeroed even where an earlier round wrote, and none in
 * another's way. */
static void arena_pieces(void **state) {
    (void)state;
    enum { N = 400 };
    static unsigned char *piece[N];
    static size_t size[N];
    uint64_t seed = 12345;
    gdn_arena *a = gdn_arena_create();
    assert_non_null(a);
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < N; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const uint64_t r = seed >> 33;
            size[i] = r % 50 == 0 ? r % 3000000 : r % 7 == 0 ? r % 40000 : r % 300;
            piece[i] = gdn_arena_alloc(a, size[i]);
            assert_non_null(piece[i]);
            assert_int_equal((uintptr_t)piece[i] % 64, 0);
            assert_true(all(piece[i], size[i], 0));
            memset(piece[i], 1 + i % 255, size[i]);
        }
        for (int i = 0; i < N; i++) {
            assert_true(all(piece[i], size[i], (unsigned char)(1 + i % 255)));
#ifdef WITH_ASAN
            assert_true(__asan_address_is_poisoned(piece[i] + size[i]));
#endif
        }
        gdn_arena_reset(a);
#ifdef WITH_ASAN
        assert_true(size[0] == 0 || __asan_address_is_poisoned(piece[0]));
#endif
    }
    gdn_arena_free(a);
    gdn_arena_free(NULL);
}

static void arena_keeps_its_memory(void **state) {
    (void)state;
    gdn_arena *a = gdn_arena_create();
    assert_non_null(a);
    uint64_t bytes = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 300; i++) {
            unsigned char *p = gdn_arena_alloc(a, 10000);
            assert_non_null(p);
            memset(p, 0xff, 10000);
        }
        if (round > 0) assert_int_equal(gdn_arena_bytes(a), bytes);
        bytes = gdn_arena_bytes(a);
        gdn_arena_reset(a);
    }
    assert_in_range(bytes, 3000000, 12000000);
    gdn_arena_free(a);
}

static void arena_edges(void **state) {
    (void)state;
    gdn_arena *a = gdn_arena_create();
    assert_non_null(a);
    void *p = gdn_arena_alloc(a, 0), *q = gdn_arena_alloc(a, 0);
    assert_non_null(p);
    assert_ptr_not_equal(p, q);
    const uint64_t before = gdn_arena_bytes(a);
    const uint64_t impossible[] = {UINT64_MAX, UINT64_MAX - 63, UINT64_MAX / 2,
                                   (uint64_t)1 << 62, (uint64_t)1 << 48};
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++)
        assert_null(gdn_arena_alloc(a, impossible[i]));
    assert_int_equal(gdn_arena_bytes(a), before);
    unsigned char *big = gdn_arena_alloc(a, 100u << 20); /* above the usual block */
    assert_non_null(big);
    big[0] = big[(100u << 20) - 1] = 1;
    assert_non_null(gdn_arena_alloc(a, 64)); /* and it goes on */
    gdn_arena_free(a);
}

static void big_memory(void **state) {
    (void)state;
    const uint64_t sizes[] = {0, 1, 4096, (2u << 20) - 1, 2u << 20, (5u << 20) + 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = gdn_big_alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (2u << 20), 0);
        assert_true(all(p, sizes[i], 0));
        memset(p, 7, sizes[i]);
        gdn_big_free(p, sizes[i]);
    }
    assert_null(gdn_big_alloc(UINT64_MAX));
    assert_null(gdn_big_alloc(UINT64_MAX - (3u << 20)));
    assert_null(gdn_big_alloc((uint64_t)1 << 60));
    gdn_big_free(NULL, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),       cmocka_unit_test(status_words),
        cmocka_unit_test(log_lines),    cmocka_unit_test(clock_runs),
        cmocka_unit_test(bf16),         cmocka_unit_test(f16),
        cmocka_unit_test(fp8),          cmocka_unit_test(f16_as_the_compiler),
        cmocka_unit_test(arena_pieces), cmocka_unit_test(arena_keeps_its_memory),
        cmocka_unit_test(arena_edges),  cmocka_unit_test(big_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
