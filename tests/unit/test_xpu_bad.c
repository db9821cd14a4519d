/* test_xpu_bad.c - the xpu device on a driver that fails: every call of it in turn, while a device
 * is opened, a model loaded, a prompt read and an answer written.  Each failure is one error that
 * names the device and the driver's code and offers the cpu; nothing is left behind.  Replays that it
 * refuses are no errors: what would have been replayed is launched.  Nor are objects of single
 * launches, of which this has the numbers as well.
 *
 * The driver is tests/opencl_stub, found in the place of libOpenCL: the program starts itself anew
 * with that on the loader's path.  It runs no kernels, so models are opened for a dry run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gdn/gdn.h>
#include <gdn/op.h>

#include "../../src/backend/xpu.h"
#include "../opencl_stub/stub.h"
#include "sanitized.h"

#define MODEL "tests/golden/model/"

static stub_fail_fn   *set_failure;
static stub_fired_fn  *fired;
static stub_live_fn   *live;
static stub_source_fn *source;

static gdn_engine_stats stats; /* of the latest engine */
static bool in_time; /* before the last result: what fails later concerns nobody */

static void find(const char *name, void *out) {
    void *lib = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_NOLOAD);
    void *f = lib != NULL ? dlsym(lib, name) : NULL;
    if (f == NULL) fail_msg("the stub has no %s", name);
    memcpy(out, &f, sizeof f);
    dlclose(lib);
}

static void ok(gdn_status st, const gdn_err *err) {
    if (st != GDN_OK) fail_msg("%s", err->text);
}

/* --- the whole way ------------------------------------------------------------------ */

/* Load a model, answer a prompt with drafts where it has them, read its logits. */
static gdn_status whole(const char *name, gdn_err *err) {
    static const int32_t prompt[] = {5, 9, 2, 14, 33, 7, 8};
    enum { N = sizeof prompt / sizeof *prompt };
    char path[128];
    gdn_model_opts m;
    gdn_model *model = NULL;
    gdn_engine *e = NULL;
    gdn_engine_opts o;
    gdn_request_result result;
    gdn_request_opts r;
    snprintf(path, sizeof path, MODEL "%s", name);
    gdn_model_opts_defaults(&m);
    m.device = "xpu";
    m.dry_run = true;
    gdn_status st = gdn_model_open(path, &m, &model, err);
    gdn_engine_opts_defaults(&o);
    o.n_ctx = 64;
    o.n_row = 4;
    o.n_draft = 2;
    o.cache_bytes = GDN_CACHE_AUTO;
    if (st == GDN_OK) st = gdn_engine_create(model, &o, &e, err);
    gdn_request_opts_defaults(&r);
    r.prompt = prompt;
    r.n_prompt = N;
    r.max_new = 6;
    r.sampling.temperature = 0;
    if (st == GDN_OK) st = gdn_generate(e, &r, NULL, &result, err);
    if (st == GDN_OK) assert_int_equal(result.n_new, 6);
    in_time = fired();
    memset(&stats, 0, sizeof stats);
    if (e != NULL) gdn_engine_get_stats(e, &stats);
    gdn_engine_free(e);
    gdn_model_close(model);
    return st;
}

static bool pool; /* it was the pool of pages that did not fit */

static void check_error(const char *call, long n, int code, gdn_status st, const gdn_err *err) {
    char number[32];
    pool |= strstr(err->text, "a pool of 64 tokens takes 0.0 GB, more than there is: ask for fewer "
                              "with --ctx (device xpu:0 ") != NULL;
    if (st == GDN_OK) fail_msg("%s, call %ld failed and nobody noticed", call, n);
    const bool named = strstr(err->text, "device xpu:0 (Stub of a GPU): ") != NULL;
    snprintf(number, sizeof number, "error %d", code);
    if (!named || strstr(err->text, "--device cpu runs without it") == NULL ||
        strchr(err->text, '\n') != NULL || (strstr(err->text, ": CL_") == NULL &&
                                            strstr(err->text, number) == NULL))
        fail_msg("%s, call %ld: \"%s\"", call, n, err->text);
    assert_int_equal(err->code, st);
}

enum { MEMORY = -4, LOST = -5, REFUSED = -30 };

/* All calls of one function, but for memory later ones in growing steps; lost: and all that come
 * after. */
static void each(const char *model, const char *call, int code, gdn_status want, bool lost) {
    long n = 1;
    for (;; n += code == MEMORY ? 1 : 1 + n / 8) {
        gdn_err err = {0};
        set_failure(call, code, n, lost);
        const gdn_status st = whole(model, &err);
        assert_int_equal(live(), 0);
        if (!in_time) {
            ok(st, &err);
            break;
        }
        check_error(call, n, code, st, &err);
        /* Memory is asked for in many places, and every one of them knows. */
        if (want != GDN_OK) assert_int_equal(st, want);
    }
    set_failure(NULL, 0, 0, false);
    if (n == 1) fail_msg("%s is never called", call);
}

/* Once, and in turn for good. */
static void both_ways(const char *model, const char *const *call, size_t n) {
    for (size_t i = 0; i < n; i++) {
        each(model, call[i], LOST, GDN_OK, false);
        each(model, call[i], LOST, GDN_OK, true);
    }
}

static void calls(const char *model, bool usm) {
    static const char *const any[] = {"clCreateContext", "clCreateCommandQueue", "clFinish",
                                      "clCreateProgramWithSource", "clBuildProgram",
                                      "clSetKernelArg", "clEnqueueNDRangeKernel", "event"};
    static const char *const of_buffers[] = {"clEnqueueFillBuffer", "clEnqueueWriteBuffer",
                                             "clEnqueueReadBuffer", "clEnqueueCopyBuffer"};
    static const char *const of_usm[] = {"clEnqueueMemFillINTEL", "clEnqueueMemcpyINTEL",
                                         "clSetKernelArgMemPointerINTEL"};
    setenv("GDN_XPU_MEMORY", usm ? "usm" : "buffer", 1);
    setenv("GDN_XPU_REPLAY", "off", 1);
    both_ways(model, any, sizeof any / sizeof *any);
    if (usm) both_ways(model, of_usm, sizeof of_usm / sizeof *of_usm);
    else both_ways(model, of_buffers, sizeof of_buffers / sizeof *of_buffers);
    pool = false;
    each(model, usm ? "clDeviceMemAllocINTEL" : "clCreateBuffer", MEMORY, GDN_E_NOMEM, false);
    assert_true(pool);
    each(model, "clEnqueueNDRangeKernel", REFUSED, GDN_E_DEVICE, false);
    unsetenv("GDN_XPU_MEMORY");
    unsetenv("GDN_XPU_REPLAY");
}

static void test_buffers(void **state) {
    (void)state;
    calls("dense-mtp", false);
}
static void test_usm(void **state) {
    (void)state;
    calls("moe-mtp", true);
}

/* --- replays ------------------------------------------------------------------------ */

static void test_replay(void **state) {
    static const char *const call[] = {"clCreateCommandBufferKHR", "clCommandNDRangeKernelKHR",
                                       "clFinalizeCommandBufferKHR", "clEnqueueCommandBufferKHR"};
    enum { N = sizeof call / sizeof *call };
    gdn_err err;
    (void)state;
    set_failure(NULL, 0, 0, false);
    ok(whole("dense-mtp", &err), &err);
    const gdn_engine_stats all = stats;
    assert_true(all.recorded > 2 && all.replayed > all.recorded);
    for (size_t i = 0; i < N; i++) {
        for (long n = 1;; n += 1 + n / 4) {
            set_failure(call[i], REFUSED, n, n % 2 == 0);
            ok(whole("dense-mtp", &err), &err);
            assert_int_equal(live(), 0);
            assert_int_equal(stats.launches, all.launches);
            if (!in_time) break;
            /* What is refused once is not asked for again. */
            if (i < N - 1) assert_true(stats.recorded < all.recorded);
            assert_true(stats.replayed < all.replayed);
        }
        assert_int_equal(stats.replayed, all.replayed);
    }
    /* A device that is lost fails what is launched instead. */
    set_failure(call[N - 1], LOST, 1, true);
    ok(whole("dense-mtp", &err), &err);
    set_failure(NULL, 0, 0, false);
    setenv("GDN_XPU_REPLAY", "off", 1);
    ok(whole("dense-mtp", &err), &err);
    assert_int_equal(stats.replayed + stats.recorded, 0);
    assert_int_equal(stats.launches, all.launches);
    unsetenv("GDN_XPU_REPLAY");
    assert_int_equal(live(), 0);
}

/* --- objects of single launches ------------------------------------------------------- */

enum { CELLS = 4096, CELL = 64, OBJECTS = 1024 };

/* Cast 16 numbers of x to bf16 into y, at place `at` of both. */
static gdn_status cast(gdn_queue *q, gdn_buffer *y, gdn_buffer *x, int at, gdn_err *err) {
    static const int64_t shape[2] = {1, 16};
    const uint64_t cell = (uint64_t)at * CELL;
    const gdn_cast_args a = {.y = gdn_tensor_dense(y, cell, GDN_BF16, 2, shape),
                             .x = gdn_tensor_dense(x, cell, GDN_F32, 2, shape)};
    return gdn_op_cast(q, &a, err);
}

static uint64_t calls_of(const gdn_device *d) { return d->backend->counts(d).calls; }

/* Memory in the place of memory that was let go is set anew: the stub refuses a launch otherwise. */
static void replaced(const char *memory) {
    enum { TIMES = 4, MOST = 100 };
    gdn_device *d;
    gdn_queue *q;
    gdn_buffer *x, *y;
    gdn_err err;
    setenv("GDN_XPU_MEMORY", memory, 1);
    ok(gdn_device_open("xpu", NULL, &d, &err), &err);
    ok(gdn_queue_create(d, &q, &err), &err);
    ok(gdn_buffer_alloc(d, CELL, &x, &err), &err);
    ok(gdn_buffer_alloc(d, CELL, &y, &err), &err);
    int same = 0;
    for (int round = 0; round < MOST && same < 2; round++) {
        for (int i = 0; i < TIMES; i++) {
            const uint64_t before = calls_of(d);
            ok(cast(q, y, x, 0, &err), &err);
            if (i == TIMES - 1) assert_int_equal(calls_of(d) - before, 1); /* the launch */
        }
        const cl_mem old = xpu_mem(x);
        gdn_buffer_free(x);
        ok(gdn_buffer_alloc(d, CELL, &x, &err), &err);
        same += xpu_mem(x) == old;
    }
    if (same == 0 && !SANITIZED) fail_msg("memory never came back where it was");
    gdn_buffer_free(x), gdn_buffer_free(y);
    gdn_queue_free(q);
    gdn_device_close(d);
    unsetenv("GDN_XPU_MEMORY");
    assert_int_equal(live(), 0);
}

static void test_replaced(void **state) {
    (void)state;
    replaced("buffer");
    replaced("usm");
}

/* Launches that do not come again make no object, and those that do no more than so many; the ones
 * that are in use keep theirs, and leave it to others in the end. */
static void test_objects(void **state) {
    enum { FEW = 100, MANY = 30, MORE = OBJECTS + OBJECTS / 4, LONG = 300 };
    (void)state;
    gdn_device *d;
    gdn_queue *q;
    gdn_buffer *x, *y;
    gdn_err err;
    ok(gdn_device_open("xpu", NULL, &d, &err), &err);
    ok(gdn_queue_create(d, &q, &err), &err);
    ok(gdn_buffer_alloc(d, (uint64_t)CELLS * CELL, &x, &err), &err);
    ok(gdn_buffer_alloc(d, (uint64_t)CELLS * CELL, &y, &err), &err);
    ok(cast(q, y, x, 0, &err), &err);
    const long before = live();
    for (int i = FEW; i < CELLS - FEW; i++) ok(cast(q, y, x, i, &err), &err);
    assert_int_equal(live(), before);
    for (int r = 0; r < MANY; r++)
        for (int i = 0; i < FEW; i++) ok(cast(q, y, x, i, &err), &err);
    assert_int_equal(live(), before + FEW);
    uint64_t at = 0;
    for (int r = 0; r < MANY; r++) {
        at = calls_of(d);
        for (int i = 0; i < MORE; i++) ok(cast(q, y, x, i, &err), &err);
        assert_true(live() - before <= OBJECTS);
    }
    assert_true(live() - before > OBJECTS * 3 / 4);
    assert_true(calls_of(d) - at < MORE + 4 * (MORE - OBJECTS * 3 / 4));
    /* Others, for long enough. */
    for (int r = 0; r < LONG; r++)
        for (int i = CELLS - FEW; i < CELLS; i++) ok(cast(q, y, x, i, &err), &err);
    at = calls_of(d);
    for (int i = CELLS - FEW; i < CELLS; i++) ok(cast(q, y, x, i, &err), &err);
    assert_int_equal(calls_of(d) - at, FEW);
    assert_true(live() - before <= OBJECTS);
    gdn_buffer_free(x), gdn_buffer_free(y);
    gdn_queue_free(q);
    gdn_device_close(d);
    assert_int_equal(live(), 0);
}

static int n_refused;

static void count_refused(gdn_log_level level, const char *line, void *arg) {
    (void)level, (void)arg;
    n_refused += strstr(line, "launches without objects of their own") != NULL;
}

/* A kernel that the driver does not make is an error; another object of one that is there is not, and
 * the kernel's launches share what there is; it is asked for none again. */
static void test_no_object(void **state) {
    (void)state;
    int kernels = 0, objects = 0;
    gdn_err err;
    setenv("GDN_XPU_REPLAY", "off", 1);
    set_failure(NULL, 0, 0, false);
    ok(whole("dense-mtp", &err), &err);
    const gdn_engine_stats all = stats;
    gdn_log_set(count_refused, NULL);
    for (long n = 1;; n++) {
        const bool lost = n % 2 == 0;
        memset(&err, 0, sizeof err);
        set_failure("clCreateKernel", LOST, n, lost);
        n_refused = 0;
        const gdn_status st = whole("dense-mtp", &err);
        assert_int_equal(live(), 0);
        if (!in_time) break;
        if (st != GDN_OK) {
            check_error("clCreateKernel", n, LOST, st, &err);
            if (strstr(err.text, "kernel ") == NULL) fail_msg("%s", err.text);
            kernels++;
        } else {
            assert_int_equal(stats.launches, all.launches);
            assert_int_equal(n_refused, 1);
            objects++;
        }
    }
    set_failure(NULL, 0, 0, false);
    gdn_log_set(NULL, NULL);
    unsetenv("GDN_XPU_REPLAY");
    print_message("%d kernels, %d objects\n", kernels, objects);
    assert_true(kernels > 10 && objects > 10);
}

/* --- what to do --------------------------------------------------------------------- */

static void test_words(void **state) {
    (void)state;
    static const struct {
        const char *call;
        int code;
        const char *text;
    } known[] = {
        {"clCreateBuffer", MEMORY, "CL_MEM_OBJECT_ALLOCATION_FAILURE; of its 1.1 GB too little is "
                                   "left: a smaller model, --ctx or --cache takes less;"},
        {"event", LOST, "a wait: CL_OUT_OF_RESOURCES; it was lost or reset (the system's log says why): "
                           "start again;"},
        {"clEnqueueNDRangeKernel", -36, "CL_INVALID_COMMAND_QUEUE; it was lost"},
        {"clEnqueueNDRangeKernel", -9999, "error -9999; it was lost"},
        {"clSetKernelArg", -51, "of kernel embed: CL_INVALID_ARG_SIZE; its driver may be too old or "
                                "not meant for it: update it;"},
        {"clBuildProgram", -11, "embed_xpu.cl does not compile: 7:11: error: what is a long?: "
                                "CL_BUILD_PROGRAM_FAILURE; its driver may be too old"},
    };
    setenv("GDN_XPU_MEMORY", "buffer", 1);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        gdn_err err = {0};
        set_failure(known[i].call, known[i].code, 1, true);
        assert_true(whole("dense-mtp", &err) != GDN_OK);
        if (strstr(err.text, known[i].text) == NULL) fail_msg("%s", err.text);
    }
    set_failure(NULL, 0, 0, false);
    gdn_err err = {0};
    setenv("GDN_XPU_MEMORY", "neither", 1);
    assert_int_equal(whole("dense-mtp", &err), GDN_E_INVALID);
    assert_string_equal(err.text, "GDN_XPU_MEMORY is \"neither\"; need usm or buffer");
    unsetenv("GDN_XPU_MEMORY");
    assert_int_equal(live(), 0);
}

/* --- weights ------------------------------------------------------------------------ */

enum { ROWS = 6, COLS = 5 };

/* Rows without gaps are taken from where they are, others are not. */
static void test_weight(void **state) {
    (void)state;
    static const int32_t order[ROWS] = {5, 4, 3, 2, 1, 0};
    static const float data[ROWS * (COLS + 1)];
    gdn_device *d;
    gdn_err err;
    ok(gdn_device_open("xpu", NULL, &d, &err), &err);
    for (int k = 0; k < 3; k++) {
        const gdn_weight_part part = {.data = data, .n_row = ROWS, .row_bytes = (COLS + (k == 1)) * 4,
                                      .order = k == 2 ? order : NULL};
        const gdn_weight_desc desc = {.type = GDN_F32, .n_expert = 1, .n = ROWS, .k = COLS,
                                      .part = &part, .n_part = 1};
        gdn_weight *w;
        ok(gdn_weight_create(d, &desc, &w, &err), &err);
        assert_int_equal(source() == (const void *)data, k == 0);
        gdn_weight_free(w);
    }
    gdn_device_close(d);
    assert_int_equal(live(), 0);
}

/* --- times of kernels --------------------------------------------------------------- */

/* n launches of a norm over three rows; the names and times that are found. */
static gdn_status timed(gdn_queue *q, gdn_buffer *b, int n, gdn_kernel_time *t, int32_t *found,
                        gdn_err *err) {
    const int64_t shape[] = {3, 8}, width[] = {8};
    const gdn_tensor x = gdn_tensor_dense(b, 0, GDN_F32, 2, shape);
    const gdn_rms_norm_args a = {.y = x, .x = x, .w = gdn_tensor_dense(b, 96, GDN_F32, 1, width)};
    gdn_status st = GDN_OK;
    for (int i = 0; i < n && st == GDN_OK; i++) st = gdn_op_rms_norm(q, &a, err);
    return st == GDN_OK ? gdn_queue_times(q, t, 2, found, err) : st;
}

/* By the stub's clock a kernel takes 2 us. */
static void test_times(void **state) {
    gdn_device *d;
    gdn_queue *q;
    gdn_buffer *b;
    gdn_kernel_time t[2];
    int32_t n;
    gdn_err err = {0};
    (void)state;
    set_failure(NULL, 0, 0, false);
    ok(gdn_device_open("xpu", NULL, &d, &err), &err);
    ok(gdn_queue_create(d, &q, &err), &err);
    ok(gdn_buffer_alloc(d, 128, &b, &err), &err);
    assert_int_equal(timed(q, b, 0, t, &n, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "gdn_queue_profile() was not called"));
    ok(gdn_queue_profile(q, true, &err), &err);
    for (int k = 100; k >= 0; k -= 50) { /* each call begins anew */
        ok(timed(q, b, k, t, &n, &err), &err);
        assert_int_equal(n, k > 0);
        if (k == 0) break;
        assert_string_equal(t[0].name, "norm rms_norm");
        assert_int_equal(t[0].n, k);
        assert_true(t[0].seconds > 1.999e-6 * k && t[0].seconds < 2.001e-6 * k);
    }
    /* A clock that fails is one error, and leaves nothing behind. */
    for (int k = 1; k <= 6; k++) {
        const long before = live();
        set_failure("clGetEventProfilingInfo", LOST, k, false);
        assert_int_equal(timed(q, b, 3, t, &n, &err), GDN_E_DEVICE);
        assert_non_null(strstr(err.text, "a kernel's time: CL_OUT_OF_RESOURCES"));
        set_failure(NULL, 0, 0, false);
        assert_int_equal(live(), before);
        ok(gdn_queue_times(q, t, 2, &n, &err), &err);
    }
    ok(gdn_queue_profile(q, false, &err), &err);
    set_failure("clCreateCommandQueue", LOST, 1, false);
    assert_int_equal(gdn_queue_profile(q, true, &err), GDN_E_DEVICE);
    set_failure(NULL, 0, 0, false);
    assert_int_equal(timed(q, b, 3, t, &n, &err), GDN_E_INVALID); /* it works as before */
    ok(gdn_queue_profile(q, true, &err), &err);
    const int64_t shape[] = {3, 8}, width[] = {8};
    const gdn_tensor x = gdn_tensor_dense(b, 0, GDN_F32, 2, shape);
    const gdn_rms_norm_args a = {.y = x, .x = x, .w = gdn_tensor_dense(b, 96, GDN_F32, 1, width)};
    ok(gdn_op_rms_norm(q, &a, &err), &err);
    gdn_queue_free(q); /* with a time that nobody reads */
    gdn_buffer_free(b);
    gdn_device_close(d);
    assert_int_equal(live(), 0);
}

/* --- around them -------------------------------------------------------------------- */

/* The folder of the stub, beside the one of this program. */
static void with_stub(char *const *argv) {
    char exe[PATH_MAX], dir[PATH_MAX + 32];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) exit(1);
    exe[n] = '\0';
    for (int up = 0; up < 2; up++) *strrchr(exe, '/') = '\0';
    snprintf(dir, sizeof dir, "%s/opencl_stub", exe);
    const char *path = getenv("LD_LIBRARY_PATH");
    if (path != NULL && strcmp(path, dir) == 0) return;
    setenv("LD_LIBRARY_PATH", dir, 1);
    setenv("OPENCL_STUB", "usm replay", 1);
    setenv("XDG_CACHE_HOME", "/dev/null", 1); /* nothing compiled is kept */
    execv("/proc/self/exe", argv);
    perror("/proc/self/exe");
    exit(1);
}

static int load(void **state) {
    gdn_device_info info[8];
    (void)state;
    if (gdn_devices(info, 8) < 2) return -1; /* loads the stub for good */
    find("stub_fail", &set_failure);
    find("stub_fired", &fired);
    find("stub_live", &live);
    find("stub_source", &source);
    return 0;
}

int main(int argc, char **argv) {
    (void)argc;
    with_stub(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_weight),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_usm),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_no_object),
    };
    return cmocka_run_group_tests(tests, load, NULL);
}
