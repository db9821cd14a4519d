/* test_xpu_replay.c - passes that the xpu device makes again as one call: the same bits as kernel by
 * kernel, as often as it should be, and never with what has changed since.
 *
 * Models run twice, with GDN_XPU_REPLAY on and off; test_xpu_model has them against the reference.  Below
 * them one op is the pass, and its result is known. */
#include "engine_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/backend/backend.h"
#include "opencl.h"

enum { VOCAB = 512 };

static gdn_model *open_with(const char *name, const char *replay) {
    char path[128];
    gdn_model_opts o;
    gdn_model *m = NULL;
    gdn_err err;
    setenv("GDN_XPU_REPLAY", replay, 1);
    snprintf(path, sizeof path, MODELS "%s", name);
    gdn_model_opts_defaults(&o);
    o.device = "xpu";
    o.math = GDN_MATH_F32;
    must(gdn_model_open(path, &o, &m, &err), &err);
    unsetenv("GDN_XPU_REPLAY");
    return m;
}

static gdn_engine *engine(gdn_model *m, int32_t n_row, int32_t n_draft) {
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 800; /* attention in parts, which lie in scratch memory */
    o.n_seq = 2;
    o.n_row = n_row;
    o.n_draft = n_draft;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    return e;
}

static gdn_engine_stats stats_of(const gdn_engine *e) {
    gdn_engine_stats s;
    gdn_engine_get_stats(e, &s);
    return s;
}

/* --- steps of one and two sequences, with an adapter and without --------------------------- */

enum { PROMPT = 250, SHORT = 5, ALONE = 10, BOTH = 9, TWO = 4, ADAPTED = 4, AGAIN = 3,
       ALL_LOGITS = 1 + ALONE + 1 + 2 * BOTH + TWO + ALONE + 1 + 2 * ADAPTED + AGAIN };

typedef struct {
    gdn_engine *e;
    gdn_seq *s[2];
    const int32_t *ids;
    float *logits; /* of what comes next */
} story;

/* The next n tokens of the first n_seq sequences, or of the second alone, and the logits behind them. */
static void go_on(story *y, int first, int n_seq, int32_t n) {
    const int32_t last = n - 1;
    gdn_work w[2];
    gdn_err err;
    for (int i = 0; i < n_seq; i++) {
        w[i] = (gdn_work){.seq = y->s[first + i], .tokens = y->ids, .n = n, .out = &last, .n_out = 1,
                          .logits = y->logits};
        y->ids += n;
        y->logits += VOCAB;
    }
    must(gdn_engine_eval(y->e, w, n_seq, NULL, NULL, NULL, &err), &err);
}

/* How many passes were noted and replayed since `before`, and their launches. */
static void counted(const story *y, gdn_engine_stats *before, bool on, int recorded, int replayed) {
    const gdn_engine_stats now = stats_of(y->e);
    if (now.recorded - before->recorded != (uint64_t)(on ? recorded : 0) ||
        now.replayed - before->replayed != (uint64_t)(on ? replayed : 0))
        fail_msg("%d passes noted and %d replayed, need %d and %d",
                 (int)(now.recorded - before->recorded), (int)(now.replayed - before->replayed),
                 on ? recorded : 0, on ? replayed : 0);
    *before = now;
}

/* Returns the kernels launched. */
static uint64_t tell(const char *name, bool adapted, bool on, const int32_t *ids, float *logits) {
    gdn_model *m = open_with(name, on ? "on" : "off");
    char dir[128];
    gdn_adapter *a = NULL;
    gdn_err err;
    story y = {.e = engine(m, 128, 0), .ids = ids, .logits = logits};
    gdn_engine_stats at = stats_of(y.e);
    const uint64_t launches = at.launches;
    snprintf(dir, sizeof dir, "tests/golden/lora/%s", name);
    if (adapted) must(gdn_adapter_open(m, dir, 1, &a, &err), &err);
    must(gdn_seq_create(y.e, &y.s[0], &err), &err);
    must(gdn_seq_create(y.e, &y.s[1], &err), &err);
    go_on(&y, 0, 1, PROMPT);
    counted(&y, &at, on, 0, 0);
    /* A pass of rows and one of logits each, over the end of a page and of a block of keys.  The first is
     * seen, the second noted; of the logits the prompt's were the first. */
    for (int i = 0; i < ALONE; i++) go_on(&y, 0, 1, 1);
    counted(&y, &at, on, 2, (ALONE - 2) + (ALONE - 1));
    go_on(&y, 1, 1, SHORT); /* scratch memory grows, and all is forgotten behind its rows */
    counted(&y, &at, on, 0, 0);
    for (int i = 0; i < BOTH; i++) go_on(&y, 0, 2, 1);
    counted(&y, &at, on, 2, 2 * (BOTH - 2));
    for (int i = 0; i < TWO; i++) go_on(&y, 0, 1, 2); /* as many rows, of one */
    counted(&y, &at, on, 2, (TWO - 2) + (TWO - 1));
    for (int i = 0; i < ALONE; i++) go_on(&y, 0, 1, 1);
    counted(&y, &at, on, 1, (ALONE - 2) + ALONE);
    gdn_seq_free(y.s[1]);
    must(gdn_seq_create(y.e, &y.s[1], &err), &err);
    if (adapted) must(gdn_seq_set_adapter(y.s[1], a, &err), &err);
    go_on(&y, 1, 1, 1);
    for (int i = 0; i < ADAPTED; i++) go_on(&y, 0, 2, 1);
    counted(&y, &at, on, 0, adapted ? 0 : 2 + 2 * ADAPTED);
    for (int i = 0; i < AGAIN; i++) go_on(&y, 0, 1, 1);
    counted(&y, &at, on, 0, 2 * AGAIN);
    const uint64_t n = stats_of(y.e).launches - launches;
    assert_true(y.logits == logits + ALL_LOGITS * VOCAB);
    gdn_seq_free(y.s[0]);
    gdn_seq_free(y.s[1]);
    gdn_adapter_close(a);
    gdn_engine_free(y.e);
    gdn_model_close(m);
    return n;
}

static void steps(const char *name, bool adapted) {
    const size_t bytes = (size_t)ALL_LOGITS * VOCAB * sizeof(float);
    int32_t *ids = random_ids(PROMPT + SHORT + TWO + ALL_LOGITS, VOCAB, 3);
    float *plain = malloc(bytes), *replayed = malloc(bytes);
    assert_true(plain != NULL && replayed != NULL);
    const uint64_t n = tell(name, adapted, false, ids, plain);
    assert_int_equal(tell(name, adapted, true, ids, replayed), n);
    for (int i = 0; i < ALL_LOGITS; i++)
        if (memcmp(plain + i * VOCAB, replayed + i * VOCAB, VOCAB * sizeof *plain) != 0)
            fail_msg("%s: row %d of the logits differs", name, i);
    free(plain), free(replayed), free(ids);
}

static void test_dense(void **state) {
    (void)state;
    steps("dense-mtp", true);
}
static void test_moe(void **state) {
    (void)state;
    steps("next-moe", false);
}

/* --- drafts and samplers ---------------------------------------------------------------------- */

enum { NEW = 24, N_REQUEST = 4 };

/* Answers of requests one after the other, the last two together. */
static uint64_t answer(const char *replay, int32_t n_draft, const int32_t *prompt,
                       int32_t out[N_REQUEST][NEW]) {
    static const int32_t k[N_REQUEST] = {20, 5, 0, 40}; /* of a row; 0: greedy */
    gdn_model *m = open_with("dense-mtp", replay);
    gdn_engine *e = engine(m, 64, n_draft);
    gdn_request *r[N_REQUEST];
    gdn_err err;
    for (int i = 0; i < N_REQUEST; i++) {
        gdn_request_opts o;
        gdn_request_opts_defaults(&o);
        o.prompt = prompt + 7 * i;
        o.n_prompt = 30;
        o.max_new = NEW;
        o.sampling.temperature = k[i] > 0;
        o.sampling.top_k = k[i];
        o.sampling.seed = 5;
        must(gdn_request_submit(e, &o, &r[i], &err), &err);
        while (i != N_REQUEST - 2 && gdn_engine_busy(e)) {
            if (n_draft > 0) always_draft(e);
            must(gdn_engine_step(e, &err), &err);
        }
    }
    for (int i = 0; i < N_REQUEST; i++) {
        gdn_request_result res;
        gdn_request_get_result(r[i], &res);
        assert_int_equal(res.finish, GDN_FINISH_LENGTH);
        memcpy(out[i], gdn_request_tokens(r[i]), NEW * sizeof **out);
        gdn_request_free(r[i]);
    }
    const uint64_t n = stats_of(e).replayed;
    gdn_engine_free(e);
    gdn_model_close(m);
    return n;
}

static void test_requests(void **state) {
    (void)state;
    int32_t *prompt = random_ids(60, VOCAB, 9), plain[N_REQUEST][NEW], replayed[N_REQUEST][NEW];
    for (int32_t n_draft = 0; n_draft <= 2; n_draft += 2) {
        assert_int_equal(answer("off", n_draft, prompt, plain), 0);
        const uint64_t n = answer("on", n_draft, prompt, replayed);
        print_message("%d drafts: %d passes replayed\n", n_draft, (int)n);
        assert_true(n > NEW);
        assert_memory_equal(replayed, plain, sizeof plain);
    }
    free(prompt);
}

/* Four rows of the MTP layer, of one sequence and then of two. */
static float *pairs(gdn_model *m, const int32_t *ids) {
    enum { CALLS = 4, ROWS = 4 };
    static const int32_t out[ROWS] = {0, 1, 2, 3};
    float logits[ROWS * VOCAB], *mtp = calloc(2 * CALLS * ROWS * VOCAB, sizeof *mtp), *to = mtp;
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_seq *s[2];
    gdn_err err;
    assert_non_null(mtp);
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 200;
    o.n_seq = 2;
    o.mtp = true;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    for (int i = 0; i < 2; i++) must(gdn_seq_create(e, &s[i], &err), &err);
    for (int call = 0; call < 2 * CALLS; call++, to += ROWS * VOCAB) {
        const int n_seq = call < CALLS ? 1 : 2, n = ROWS / n_seq;
        gdn_work w[2];
        for (int i = 0; i < n_seq; i++, ids += n)
            w[i] = (gdn_work){.seq = s[i], .tokens = ids, .n = n, .out = out, .n_out = n - 1,
                              .logits = logits + i * VOCAB, .mtp = to + i * VOCAB};
        must(gdn_engine_eval(e, w, n_seq, NULL, NULL, NULL, &err), &err);
    }
    for (int i = 0; i < 2; i++) gdn_seq_free(s[i]);
    gdn_engine_free(e);
    return mtp;
}

/* Pairs of the MTP layer in passes of eight, whose outputs lie behind each other. */
static void test_mtp(void **state) {
    enum { N = 50, N_ROW = 8 };
    (void)state;
    int32_t *ids = random_ids(N, VOCAB, 11);
    float *logits[2], *mtp[2], *few[2];
    for (int on = 0; on < 2; on++) {
        gdn_model *m = open_with("dense-mtp", on == 1 ? "on" : "off");
        logits[on] = all_logits(m, ids, N, N_ROW, 0, &mtp[on]);
        few[on] = pairs(m, ids);
        gdn_model_close(m);
    }
    assert_memory_equal(few[1], few[0], 2 * 4 * 4 * VOCAB * sizeof(float));
    assert_memory_equal(logits[1], logits[0], (size_t)N * VOCAB * sizeof(float));
    assert_memory_equal(mtp[1], mtp[0], (size_t)(N - 1) * VOCAB * sizeof(float));
    for (int on = 0; on < 2; on++) free(logits[on]), free(mtp[on]), free(few[on]);
    free(ids);
}

/* --- one op as a pass --------------------------------------------------------------------------- */

enum { WIDE = 16 };

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
    gdn_buffer *x, *y;
    int         value; /* of the latest x */
} bench;

static bench bench_open(void) {
    bench b = {.value = 0};
    gdn_err err;
    must(gdn_device_open("xpu", NULL, &b.d, &err), &err);
    must(gdn_queue_create(b.d, &b.q, &err), &err);
    must(gdn_buffer_alloc(b.d, WIDE * sizeof(float), &b.x, &err), &err);
    must(gdn_buffer_alloc(b.d, WIDE * sizeof(uint16_t), &b.y, &err), &err);
    return b;
}

static void bench_close(bench *b) {
    gdn_queue_free(b->q);
    gdn_buffer_free(b->x);
    gdn_buffer_free(b->y);
    gdn_device_close(b->d);
}

static void cast(bench *b) {
    static const int64_t shape[2] = {1, WIDE};
    const gdn_cast_args a = {.y = gdn_tensor_dense(b->y, 0, GDN_BF16, 2, shape),
                             .x = gdn_tensor_dense(b->x, 0, GDN_F32, 2, shape)};
    gdn_err err;
    must(gdn_op_cast(b->q, &a, &err), &err);
}

static void new_x(bench *b) {
    float x[WIDE];
    gdn_err err;
    b->value++;
    for (int i = 0; i < WIDE; i++) x[i] = (float)(b->value % 8 + i);
    must(gdn_queue_write(b->q, b->x, 0, x, sizeof x, &err), &err);
}

/* y = x with a new x, as a pass; `write`: it writes x itself.  Whether it was replayed. */
static bool cast_pass(bench *b, int32_t key, bool write) {
    const gdn_pass p = {.kind = key};
    if (!write) new_x(b);
    const bool again = gdn_pass_begin(b->q, &p);
    if (!again) {
        if (write) new_x(b);
        cast(b);
    }
    gdn_pass_end(b->q, true);
    return again;
}

/* bf16 has the upper half of these numbers' bits. */
static void check_y(const bench *b) {
    uint16_t y[WIDE];
    gdn_err err;
    must(gdn_queue_read(b->q, y, b->y, 0, sizeof y, &err), &err);
    must(gdn_queue_wait(b->q, &err), &err);
    for (int i = 0; i < WIDE; i++) {
        const float x = (float)(b->value % 8 + i);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        assert_int_equal(y[i], bits >> 16);
    }
}

static void test_pass(void **state) {
    enum { MOST = 16 };
    (void)state;
    bench b = bench_open();
    gdn_buffer *other;
    gdn_err err;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(cast_pass(&b, 1, false), i > 1);
        check_y(&b);
    }
    /* Not twice before a wait, as a buffer may be in a queue once only. */
    assert_true(cast_pass(&b, 1, false));
    assert_false(cast_pass(&b, 1, false));
    check_y(&b);
    assert_true(cast_pass(&b, 1, false));
    check_y(&b);
    /* What a write brings would stay as it is. */
    for (int i = 0; i < 4; i++) {
        assert_false(cast_pass(&b, 2, true));
        check_y(&b);
    }
    /* Memory that goes may have been the pass's. */
    must(gdn_buffer_alloc(b.d, 64, &other, &err), &err);
    assert_true(cast_pass(&b, 1, false));
    check_y(&b);
    gdn_buffer_free(other);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(cast_pass(&b, 1, false), i > 1);
        check_y(&b);
    }
    /* A pass that failed is no pass. */
    const gdn_pass failed = {.kind = 3};
    assert_false(gdn_pass_begin(b.q, &failed));
    gdn_pass_end(b.q, true);
    assert_false(gdn_pass_begin(b.q, &failed));
    gdn_pass_end(b.q, false);
    assert_false(cast_pass(&b, 3, false));
    check_y(&b);
    /* The one used longest ago makes room. */
    for (int32_t key = 10; key < 10 + MOST; key++) {
        for (int i = 0; i < 3; i++) {
            assert_int_equal(cast_pass(&b, key, false), i > 1);
            check_y(&b);
        }
        if (key == 12) assert_true(cast_pass(&b, 1, false));
        check_y(&b);
    }
    for (int32_t key = 11; key < 10 + MOST; key++) {
        assert_true(cast_pass(&b, key, false));
        check_y(&b);
    }
    assert_true(cast_pass(&b, 1, false));
    assert_false(cast_pass(&b, 10, false));
    check_y(&b);
    bench_close(&b);
}

static void test_switch(void **state) {
    (void)state;
    gdn_device *d;
    gdn_err err;
    setenv("GDN_XPU_REPLAY", "off", 1);
    bench b = bench_open();
    for (int i = 0; i < 4; i++) {
        assert_false(cast_pass(&b, 1, false));
        check_y(&b);
    }
    bench_close(&b);
    setenv("GDN_XPU_REPLAY", "no", 1);
    assert_int_equal(gdn_device_open("xpu", NULL, &d, &err), GDN_E_INVALID);
    assert_string_equal(err.text, "GDN_XPU_REPLAY is \"no\"; need on or off");
    unsetenv("GDN_XPU_REPLAY");
}

/* Whether this device replays at all. */
static bool offered(void) {
    bench b = bench_open();
    bool again = false;
    for (int i = 0; i < 3; i++) {
        again = cast_pass(&b, 1, false);
        check_y(&b);
    }
    bench_close(&b);
    return again;
}

int main(void) {
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    if (!offered()) {
        printf("this OpenCL device has no cl_khr_command_buffer of a version that is known: PoCL has it\n");
        opencl_end();
        return OPENCL_SKIP;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pass),  cmocka_unit_test(test_switch),   cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),   cmocka_unit_test(test_requests), cmocka_unit_test(test_mtp),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    opencl_end();
    return rc;
}
