/* test_xpu_calls.c - calls of the driver for what comes again: a step's launches, one call each, and
 * little else; and never with what their arguments were before.
 *
 * Nothing is replayed here (test_xpu_replay); test_xpu_bad has how many objects there may be, and
 * memory that comes back in another's place. */
#include "cases.h"

#include <stdlib.h>
#include <string.h>

#include "../../src/backend/backend.h"
#include "opencl.h"

enum { VOCAB = 512 };

static gdn_model *open_xpu(const char *name) {
    char path[128];
    gdn_model_opts o;
    gdn_model *m = NULL;
    gdn_err err;
    snprintf(path, sizeof path, MODELS "%s", name);
    gdn_model_opts_defaults(&o);
    o.device = "xpu";
    o.math = GDN_MATH_F32;
    must(gdn_model_open(path, &o, &m, &err), &err);
    return m;
}

/* --- steps ---------------------------------------------------------------------------- */

enum { PROMPT = 9, STEPS = 12, KNOWN = 2 }; /* from that step on all launches are known */

typedef struct {
    uint64_t calls, launches;
} count;

static count counts_of(const gdn_engine *e) {
    gdn_engine_stats s;
    gdn_engine_get_stats(e, &s);
    return (count){s.calls, s.launches};
}

/* A prompt and steps of n_seq sequences: logits of the steps, and their calls. */
static void tell(gdn_model *m, const int32_t *ids, int n_seq, float *logits, count per[STEPS]) {
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s[2];
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 600;
    o.n_seq = 2;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    for (int i = 0; i < n_seq; i++) must(gdn_seq_create(e, &s[i], &err), &err);
    for (int k = -1; k < STEPS; k++) {
        const int32_t n = k < 0 ? PROMPT : 1, last = 0;
        gdn_work w[2];
        for (int i = 0; i < n_seq; i++, ids += n) {
            w[i] = (gdn_work){.seq = s[i], .tokens = ids, .n = n, .out = &last, .n_out = k >= 0,
                              .logits = logits};
            if (k >= 0) logits += VOCAB;
        }
        const count at = counts_of(e);
        must(gdn_engine_eval(e, w, n_seq, NULL, NULL, NULL, &err), &err);
        const count now = counts_of(e);
        if (k >= 0) per[k] = (count){now.calls - at.calls, now.launches - at.launches};
    }
    for (int i = 0; i < n_seq; i++) gdn_seq_free(s[i]);
    gdn_engine_free(e);
}

/* Two writes and two reads, a copy of each sequence's hidden row, and the launches.  In a second
 * engine memory is other memory, often in the old one's place. */
static void steps(const char *name) {
    enum { COPIES = 4 };
    const size_t one = (size_t)STEPS * VOCAB;
    int32_t *ids = random_ids(2 * (PROMPT + STEPS), VOCAB, 3);
    float *first = malloc(2 * one * sizeof *first), *again = malloc(2 * one * sizeof *again);
    assert_true(first != NULL && again != NULL);
    gdn_model *m = open_xpu(name);
    for (int n_seq = 1; n_seq <= 2; n_seq++)
        for (int round = 0; round < 3; round++) {
            float *logits = round == 0 ? first : again;
            count per[STEPS];
            tell(m, ids, n_seq, logits, per);
            for (int k = 0; k < STEPS; k++) {
                if (round == 0 && k <= KNOWN)
                    print_message("%s: %d rows, step %d: %d calls, %d launches\n", name, n_seq, k,
                                  (int)per[k].calls, (int)per[k].launches);
                if (k >= KNOWN)
                    assert_in_range(per[k].calls, per[k].launches,
                                    per[k].launches + COPIES + (uint64_t)n_seq);
            }
            assert_memory_equal(logits, first, (size_t)n_seq * one * sizeof *first);
        }
    gdn_model_close(m);
    free(ids), free(first), free(again);
}

static void test_dense(void **state) {
    (void)state;
    steps("dense-mtp");
}
static void test_moe(void **state) {
    (void)state;
    steps("next-moe");
}

/* --- single launches ------------------------------------------------------------------ */

enum { WIDE = 16, CELLS = 64 };

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
    gdn_buffer *x, *y;
} bench;

static void put_x(bench *b, int cell, int base) {
    float x[WIDE];
    gdn_err err;
    for (int i = 0; i < WIDE; i++) x[i] = (float)(base % 8 + i);
    must(gdn_queue_write(b->q, b->x, (uint64_t)cell * sizeof x, x, sizeof x, &err), &err);
}

/* y = x of a cell as bf16, right; the calls that it took. */
static int cast(bench *b, int cell, int base) {
    static const int64_t shape[2] = {1, WIDE};
    const uint64_t at = (uint64_t)cell * WIDE * sizeof(float);
    const gdn_cast_args a = {.y = gdn_tensor_dense(b->y, 0, GDN_BF16, 2, shape),
                             .x = gdn_tensor_dense(b->x, at, GDN_F32, 2, shape)};
    uint16_t y[WIDE];
    gdn_err err;
    put_x(b, cell, base);
    const uint64_t before = b->d->backend->counts(b->d).calls;
    must(gdn_op_cast(b->q, &a, &err), &err);
    const uint64_t n = b->d->backend->counts(b->d).calls - before;
    must(gdn_queue_read(b->q, y, b->y, 0, sizeof y, &err), &err);
    must(gdn_queue_wait(b->q, &err), &err);
    for (int i = 0; i < WIDE; i++) { /* bf16 has the upper half of these numbers' bits */
        const float x = (float)(base % 8 + i);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        assert_int_equal(y[i], bits >> 16);
    }
    return (int)n;
}

static void new_buffer(bench *b, gdn_buffer **out, uint64_t bytes) {
    gdn_err err;
    if (*out != NULL) gdn_buffer_free(*out);
    must(gdn_buffer_alloc(b->d, bytes, out, &err), &err);
}

static void test_launches(void **state) {
    enum { TIMES = 20 };
    (void)state;
    bench b = {.x = NULL};
    gdn_err err;
    must(gdn_device_open("xpu", NULL, &b.d, &err), &err);
    must(gdn_queue_create(b.d, &b.q, &err), &err);
    new_buffer(&b, &b.x, CELLS * WIDE * sizeof(float));
    new_buffer(&b, &b.y, WIDE * sizeof(uint16_t));
    const int all = cast(&b, 0, 0); /* the kernel, its arguments, the launch */
    assert_int_equal(cast(&b, 0, 1), all);
    for (int i = 2; i < TIMES; i++) assert_int_equal(cast(&b, 0, i), 1);
    /* Of others what differs is set, and nothing is made for what does not come again. */
    for (int cell = 1; cell < CELLS; cell++) assert_int_equal(cast(&b, cell, cell), 2);
    assert_int_equal(cast(&b, 0, 3), 1);
    /* Two that take turns. */
    assert_int_equal(cast(&b, 1, 4), all);
    for (int i = 0; i < TIMES; i++) assert_int_equal(cast(&b, i % 2, i), 1);
    /* Other memory, in the old one's place or not: it is set, and no more than that. */
    for (int i = 0; i < TIMES; i++) {
        new_buffer(&b, &b.x, CELLS * WIDE * sizeof(float));
        const int first = cast(&b, 0, i), then = cast(&b, 0, i + 1);
        assert_true(first > 1 && then <= all && cast(&b, 0, i + 2) == 1);
        new_buffer(&b, &b.y, WIDE * sizeof(uint16_t));
        cast(&b, 0, i);
    }
    gdn_buffer_free(b.x), gdn_buffer_free(b.y);
    gdn_queue_free(b.q);
    gdn_device_close(b.d);
}

int main(void) {
    opencl_quickly();
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    setenv("GDN_XPU_REPLAY", "off", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launches),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    opencl_end();
    return rc;
}
