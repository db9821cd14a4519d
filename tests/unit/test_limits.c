/* test_limits.c - the loops read every byte and the measurements make sense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "../../src/base/arena.h"
#include "../../src/base/pool.h"
#include "../../src/kern/kern.h"
#include "../../src/kern/limits/limits.h"

static const unsigned masks[] = {GDN_ISA_REF, GDN_ISA_AVX2, GDN_ISA_AVX2 | GDN_ISA_AVX512,
                                 GDN_ISA_AVX2 | GDN_ISA_AVX512 | GDN_ISA_AVX512BF16,
                                 GDN_ISA_ALL};
enum { N_MASK = sizeof masks / sizeof *masks };

/* A bit anywhere must come out: a loop that skips some of the memory would report a
 * bandwidth the machine does not have. */
static void reads_every_word(void **state) {
    (void)state;
    enum { BYTES = 8 * 512 };
    uint64_t *mem = gdn_big_alloc(BYTES);
    assert_non_null(mem);
    for (int i = 0; i < N_MASK; i++) {
        gdn_limits_kern k;
        gdn_limits_select(&k, masks[i] & gdn_isa_detect());
        assert_true(k.read(mem, BYTES) == 0);
        for (int w = 0; w < BYTES / 8; w++) {
            mem[w] = (uint64_t)1 << (w % 64);
            assert_true(k.read(mem, BYTES) == (uint64_t)1 << (w % 64));
            mem[w] = 0;
        }
    }
    gdn_big_free(mem, BYTES);
}

/* The sums know how many multiply-adds there were: a loop that was folded does not. */
static void works_every_round(void **state) {
    (void)state;
    const unsigned isa = gdn_isa_detect();
    gdn_limits_kern k;
    gdn_limits_select(
        &k, GDN_ISA_REF); /* r = 0.999 r + 0.001, from 0 to 11: four lanes each */
    assert_true(fabsf(k.fma(0) - 4 * 66) < 1e-3f);
    const double r5 = pow(0.999, 500), want = 4 * (66 * r5 + 12 * (1 - r5));
    assert_true(fabs((double)k.fma(500) - want) < 1e-3 * want);
    if (isa &
        GDN_ISA_AVX2) { /* each round adds 0.000999 to each of 12 sums, first lane */
        gdn_limits_select(&k, GDN_ISA_AVX2);
        assert_true(fabs((double)k.fma(1000) - (66 + 12 * 0.999)) < 0.1);
    }
    if (isa & GDN_ISA_AVX512) { /* 24 sums from 0 to 23, 16 lanes */
        gdn_limits_select(&k, GDN_ISA_AVX2 | GDN_ISA_AVX512);
        assert_true(fabs((double)k.fma(1000) - 16 * (276 + 24 * 0.999)) < 1);
    }
    if (isa & GDN_ISA_AVX512BF16) { /* two products of one */
        gdn_limits_select(&k, isa & ~(unsigned)GDN_ISA_AMX);
        assert_non_null(k.dot);
        assert_true(k.dot(100) == 16 * (276 + 24 * 200));
    }
    if (isa & GDN_ISA_AMX) { /* 4 tiles of 256 sums, 32 products of one; 2^24 is not reached */
        gdn_limits_select(&k, isa);
        assert_true(k.dot(3) == 4 * 256 * 32 * 3);
    }
}

static void sane(gdn_limit x, double low, double high) {
    assert_true(isfinite(x.p50) && isfinite(x.best));
    assert_true(x.p50 >= low && x.p50 <= high && x.best >= low && x.best <= high);
}

static void measures(void **state) {
    (void)state;
    gdn_pool *pool = NULL;
    gdn_err err;
    assert_int_equal(gdn_pool_create(2, false, &pool, &err), GDN_OK);
    gdn_limits l;
    memset(&l, 0xff, sizeof l);
    assert_int_equal(gdn_limits_measure(pool, gdn_isa_detect(), &l, &err), GDN_OK);
    assert_int_equal(l.n_thread, 2);
    assert_true(l.read_bytes >= (uint64_t)64 << 20 && l.read_bytes <= (uint64_t)1 << 30);
    /* Between the slowest machine under a sanitizer and the fastest there will be. */
    sane(l.read, 1e7, 1e13);
    sane(l.fma, 1e6, 1e14);
    sane(l.region, 1e-3, 1e6);
    assert_true(l.read.best >= l.read.p50 && l.fma.best >= l.fma.p50);
    assert_true(l.region.best <= l.region.p50);
    if (gdn_isa_detect() & GDN_ISA_AVX512BF16)
        sane(l.bf16, 1e6, 1e14);
    else
        assert_true(l.bf16.p50 == 0 && l.bf16.best == 0);
    gdn_pool_free(pool);
}

/* Of the instruction sets a machine has, those it does not use are those that are slower. */
static void uses_what_pays(void **state) {
    (void)state;
    const unsigned have = gdn_isa_detect(), used = gdn_isa_fast();
    assert_int_equal(have & ~(unsigned)GDN_ISA_AVX512BF16, used & ~(unsigned)GDN_ISA_AVX512BF16);
    if (!(have & GDN_ISA_AVX512BF16) || (have & GDN_ISA_AMX)) {
        assert_int_equal(have, used);
        return;
    }
    gdn_pool *pool = NULL;
    gdn_err err;
    gdn_limits l;
    double fma = 0, bf16 = 0;
    assert_int_equal(gdn_pool_create(1, false, &pool, &err), GDN_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(gdn_limits_measure(pool, have, &l, &err), GDN_OK);
        if (l.fma.best > fma) fma = l.fma.best;
        if (l.bf16.best > bf16) bf16 = l.bf16.best;
    }
    /* Half as fast or twice. */
    assert_int_equal((used & GDN_ISA_AVX512BF16) != 0, bf16 > 0.9 * fma);
    gdn_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_word),
        cmocka_unit_test(works_every_round),
        cmocka_unit_test(measures),
        cmocka_unit_test(uses_what_pays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
