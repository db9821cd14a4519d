/* test_xpu_sample.c - the largest values of long rows on the xpu device against the
 * definition, for rows of every kind that a sampler may meet, side by side in one call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/backend/backend.h"
#include "../../src/kern/sample/sample.h"
#include "opencl.h"

enum { GAP = 3, ITEMS = 256 }; /* floats between rows; items of a work-group */

static gdn_device *device;
static gdn_queue  *queue;
static uint64_t rng = 1;

static void ok(gdn_status st, const gdn_err *err) {
    if (st != GDN_OK) fail_msg("%s", err->text);
}

static float noise(void) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(rng >> 32) * 0x1p-28f;
}

/* --- rows ----------------------------------------------------------------------------- */

/* X(kind, its value i) */
#define KINDS(X)                                                                          \
    X(RANDOM, noise())                                                                    \
    X(TIES, floorf(noise()))                                                              \
    X(EQUAL, 2.5f)                                                                        \
    X(RISING, (float)i)                                                                   \
    X(FALLING, -(float)i)                                                                 \
    X(FEW_ITEMS, i % ITEMS < 64 ? 10 + noise() : noise()) /* have all that count */       \
    X(SOME_NAN, i % 7 == 3 ? NAN : noise())                                               \
    X(ALL_NAN, i % 2 == 0 ? NAN : -NAN)                                                   \
    X(MASKED, i % 50 == 9 ? noise() : -INFINITY)                                          \
    X(ALL_MASKED, -INFINITY)                                                              \
    X(INFINITE, i % 100 == 99 ? INFINITY : i % 100 == 98 ? -INFINITY : noise())           \
    X(ZEROS, i % 3 == 0 ? 0.0f : i % 3 == 1 ? -0.0f : -1.0f)                              \
    X(TINY, noise() * 0x1p-140f)                                                          \
    X(HUGE_ONES, noise() * 0x1p120f)

enum {
#define X(kind, value) kind,
    KINDS(X)
#undef X
    N_KIND
};
static const char *const names[] = {
#define X(kind, value) #kind,
    KINDS(X)
#undef X
};

static float value_of(int kind, int32_t i) {
    switch (kind) {
#define X(kind, value) \
    case kind: return value;
        KINDS(X)
#undef X
    }
    return 0;
}

/* --- results -------------------------------------------------------------------------- */

static gdn_tensor place(gdn_buffer *b, uint64_t *at, gdn_type type, int64_t n_row, int64_t n) {
    const int64_t shape[] = {n_row, n};
    const gdn_tensor t = gdn_tensor_dense(b, *at, type, n > 0 ? 2 : 1, shape);
    *at += (uint64_t)(n_row * (n > 0 ? n : 1)) * 4;
    return t;
}

/* What the device said of a row, and what the definition says of its first values. */
static void check_row(const char *what, const float *x, int32_t valid, int32_t k,
                      const int32_t *id, const float *value, int32_t found, float min) {
    int32_t want[GDN_TOP_K_MOST];
    const int32_t n = gdn_top_k_ref(x, valid, k, want);
    const gdn_range r = gdn_range_ref(x, valid);
    if (found != n) fail_msg("%s: found %d, need %d", what, found, n);
    for (int32_t i = 0; i < k; i++) {
        const int32_t need = i < n ? want[i] : -1;
        const float v = i < n ? x[want[i]] : -INFINITY;
        if (id[i] != need || !(value[i] == v))
            fail_msg("%s: %d. is %d: %g, need %d: %g", what, i, id[i], (double)value[i],
                     need, (double)v);
    }
    if (r.nan ? !isnan(min) : !(min == r.min))
        fail_msg("%s: the smallest is %g, need %g", what, (double)min,
                 r.nan ? (double)NAN : (double)r.min);
}

/* All kinds of rows of n values; some: only the first ones of each row count. */
static void rows(int32_t n, int32_t k, bool some) {
    const size_t stride = (size_t)n + GAP, in_bytes = N_KIND * stride * sizeof(float);
    const size_t out_words = N_KIND * (size_t)(2 * k + 3);
    float *x = malloc(in_bytes);
    int32_t *out = malloc(out_words * sizeof *out), valid[N_KIND], asked[N_KIND];
    gdn_buffer *in, *to;
    gdn_err err;
    assert_non_null(x), assert_non_null(out);
    for (int i = 0; i < N_KIND; i++) {
        /* Behind a row, and behind what counts, lies what would win. */
        for (int32_t j = 0; j < (int32_t)stride; j++)
            x[(size_t)i * stride + (size_t)j] = j < n ? value_of(i, j) : INFINITY;
        valid[i] = some ? (int32_t)((int64_t)n * (i + 1) / (N_KIND + 1)) : n;
        asked[i] = valid[i];
        for (int32_t j = valid[i]; j < n; j++) x[(size_t)i * stride + (size_t)j] = INFINITY;
    }
    if (some) { /* more and fewer than there can be */
        asked[ALL_MASKED] = n + 1000, valid[ALL_MASKED] = n;
        asked[EQUAL] = -1000, valid[EQUAL] = 0;
    }
    for (size_t i = 0; i < out_words; i++) out[i] = 0x7fc12345;
    ok(gdn_buffer_alloc(device, in_bytes, &in, &err), &err);
    ok(gdn_buffer_alloc(device, out_words * sizeof *out, &to, &err), &err);
    ok(gdn_queue_write(queue, in, 0, x, in_bytes, &err), &err);
    ok(gdn_queue_write(queue, to, 0, out, out_words * sizeof *out, &err), &err);
    uint64_t at = 0, x_at = 0;
    gdn_top_k_args a = {.x = place(in, &x_at, GDN_F32, N_KIND, n)};
    a.x.stride[0] = (int64_t)(stride * sizeof *x);
    a.id = place(to, &at, GDN_I32, N_KIND, k);
    a.value = place(to, &at, GDN_F32, N_KIND, k);
    a.found = place(to, &at, GDN_I32, N_KIND, 0);
    a.min = place(to, &at, GDN_F32, N_KIND, 0);
    const gdn_tensor given = place(to, &at, GDN_I32, N_KIND, 0);
    ok(gdn_queue_write(queue, to, given.at, asked, sizeof asked, &err), &err);
    if (some) a.n_valid = given;
    ok(gdn_op_top_k(queue, &a, &err), &err);
    ok(gdn_queue_read(queue, out, to, 0, out_words * sizeof *out, &err), &err);
    ok(gdn_queue_wait(queue, &err), &err);
    const float *value = (const float *)(const void *)(out + N_KIND * k);
    const int32_t *found = out + 2 * N_KIND * k;
    const float *min = (const float *)(const void *)(found + N_KIND);
    for (int i = 0; i < N_KIND; i++) {
        char what[80];
        snprintf(what, sizeof what, "%s, %d of %d values, k %d", names[i], valid[i], n, k);
        check_row(what, x + (size_t)i * stride, valid[i], k, out + i * k, value + i * k, found[i],
                  min[i]);
    }
    gdn_buffer_free(in), gdn_buffer_free(to);
    free(x), free(out);
}

/* --- tests ---------------------------------------------------------------------------- */

/* Around the sizes of a vector, a work-group and a tile. */
static void test_short(void **state) {
    (void)state;
    static const int32_t n[] = {1, 2, 19, 63, 64, 65, 255, 257, 1000, 4095, 4096, 4097, 9000};
    static const int32_t k[] = {1, 2, 20, 64};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        for (size_t j = 0; j < sizeof k / sizeof *k; j++) {
            rows(n[i], k[j], false);
            rows(n[i], k[j], true);
        }
}

/* A released vocabulary; 64 tiles and one value more; tiles that take several rounds to
 * merge; more of them than items. */
static void test_long(void **state) {
    (void)state;
    rows(248320, 64, false);
    rows(248320, 20, true);
    rows(248320, 1, false);
    rows(64 * 4096 + 1, 64, false);
    rows(600000, 63, false);
    rows(600000, 20, true);
    rows(257 * 4096, 2, false);
}

static void test_refused(void **state) {
    (void)state;
    gdn_buffer *b;
    gdn_err err;
    uint64_t at = 0;
    ok(gdn_buffer_alloc(device, 4096, &b, &err), &err);
    const gdn_top_k_args good = {.id = place(b, &at, GDN_I32, 2, 5),
                                 .value = place(b, &at, GDN_F32, 2, 5),
                                 .found = place(b, &at, GDN_I32, 2, 0),
                                 .min = place(b, &at, GDN_F32, 2, 0),
                                 .x = place(b, &at, GDN_F32, 2, 100)};
    ok(gdn_op_top_k(queue, &good, &err), &err);
    ok(gdn_queue_wait(queue, &err), &err);
#define REFUSED(change, word)                                                             \
    do {                                                                                  \
        gdn_top_k_args a = good;                                                          \
        uint64_t next = at;                                                               \
        (void)next;                                                                       \
        change;                                                                           \
        assert_int_equal(gdn_op_top_k(queue, &a, &err), GDN_E_INVALID);                   \
        if (strstr(err.text, word) == NULL) fail_msg("%s", err.text);                     \
    } while (0)
    REFUSED(a.x = gdn_tensor_slice(a.x, 1, 0, 0), "rows of 0 values");
    REFUSED((a.id = place(b, &next, GDN_I32, 2, 65),
             a.value = place(b, &next, GDN_F32, 2, 65)), "k is 65, need 1 to 64");
    REFUSED(a.id.shape[1] = 4, "value has shape [2, 5], need [2, 4]");
    REFUSED(a.n_valid = place(b, &next, GDN_I32, 3, 0), "n_valid has shape [3], need [2]");
    REFUSED(a.min.buf = NULL, "min is missing");
    gdn_buffer_free(b);
}

static int open_device(void **state) {
    (void)state;
    gdn_err err;
    if (gdn_device_open("xpu", NULL, &device, &err) == GDN_OK &&
        gdn_queue_create(device, &queue, &err) == GDN_OK)
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return -1;
}

static int close_device(void **state) {
    (void)state;
    gdn_queue_free(queue);
    gdn_device_close(device);
    return 0;
}

int main(void) {
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_refused),
    };
    const int rc = cmocka_run_group_tests(tests, open_device, close_device);
    opencl_end();
    return rc;
}
