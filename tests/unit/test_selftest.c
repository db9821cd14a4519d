/* test_selftest.c - a device's start-up check refuses one whose operators are wrong, and such a
 * device is not taken when none is named.
 *
 * The devices on trial are the cpu behind another table, in which one operator is spoilt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../../src/backend/backend.h"
#include "../../src/base/half.h"

static gdn_backend fake; /* the cpu's, changed by a test */
static int n_product;
static bool gpu_there;
static char logged[4096];

static void log_line(gdn_log_level level, const char *line, void *arg) {
    (void)level, (void)arg;
    const size_t at = strlen(logged);
    snprintf(logged + at, sizeof logged - at, "%s\n", line);
}

static gdn_status fake_open(const char *arg, const gdn_device_opts *o, gdn_device **out,
                            gdn_err *err) {
    const gdn_status st = gdn_backend_cpu.open(arg, o, out, err);
    if (st == GDN_OK) (*out)->backend = &fake;
    return st;
}

static bool fake_real(void) { return gpu_there; }

static int fake_list(gdn_device_info *out, int n) {
    if (n > 0) *out = (gdn_device_info){.name = "fake", .memory_bytes = 1u << 30};
    return 1;
}

static int begin(void **state) {
    (void)state;
    fake = gdn_backend_cpu;
    fake.name = "fake";
    fake.open = fake_open;
    fake.list = fake_list;
    fake.real = fake_real;
    gpu_there = true;
    n_product = 0;
    logged[0] = '\0';
    gdn_log_set(log_line, NULL);
    return 0;
}

/* --- what can be wrong -------------------------------------------------------------- */

static float shift; /* of the last element */

static void spoil(const gdn_tensor *t) {
    int64_t at = 0;
    for (int32_t i = 0; i < t->ndim; i++) at += (t->shape[i] - 1) * t->stride[i];
    char *p = (char *)gdn_tensor_host(t) + at;
    float v;
    uint16_t h;
    if (t->type == GDN_F32) {
        memcpy(&v, p, sizeof v);
        v += shift;
        memcpy(p, &v, sizeof v);
    } else if (t->type == GDN_BF16) {
        memcpy(&h, p, sizeof h);
        h = gdn_f32_to_bf16(gdn_bf16_to_f32(h) + shift);
        memcpy(p, &h, sizeof h);
    } else {
        memset(p, 0, (size_t)gdn_type_bytes(t->type));
    }
}

/* The cpu's operator, the last element of one of its tensors spoilt. */
#define SPOILT(name, op_, args, field)                                        \
    static gdn_status name(gdn_queue *q, const args *a, gdn_err *err) {       \
        const gdn_status st = gdn_backend_cpu.op.op_(q, a, err);              \
        spoil(&a->field);                                                     \
        return st;                                                            \
    }
SPOILT(bad_norm, rms_norm, gdn_rms_norm_args, y)
SPOILT(bad_gated, rms_norm_gated, gdn_rms_norm_gated_args, y)
SPOILT(bad_angles, rope_angles, gdn_rope_angles_args, cs)
SPOILT(bad_store, attn_store, gdn_attn_store_args, k_page)
SPOILT(bad_attn, attn, gdn_attn_args, y)
SPOILT(bad_core, gdn_core, gdn_core_args, core)
SPOILT(bad_operator, gdn_attention, gdn_attention_args, core)
SPOILT(bad_z, gdn_attention, gdn_attention_args, z)
SPOILT(bad_route, moe_route, gdn_moe_route_op_args, weight)
SPOILT(bad_experts, moe_experts, gdn_moe_experts_args, y)
SPOILT(bad_value, top_k, gdn_top_k_args, value)
SPOILT(bad_id, top_k, gdn_top_k_args, id)
SPOILT(bad_min, top_k, gdn_top_k_args, min)

/* Its state is slot 1, the last that the call may write. */
static gdn_status bad_state(gdn_queue *q, const gdn_core_args *a, gdn_err *err) {
    const gdn_status st = gdn_backend_cpu.op.gdn_core(q, a, err);
    const gdn_tensor own = gdn_tensor_slice(a->ssm_state, 0, 1, 2);
    spoil(&own);
    return st;
}

/* One kind of product alone. */
static int64_t only_rows;
static gdn_type only_type;
static gdn_status bad_linear(gdn_queue *q, const gdn_linear_op_args *a, gdn_err *err) {
    const gdn_status st = gdn_backend_cpu.op.linear(q, a, err);
    n_product++;
    if (a->w->type == only_type && a->y.shape[0] == only_rows) spoil(&a->y);
    return st;
}

static gdn_status bad_rows(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    const gdn_status st = gdn_backend_cpu.op.moe_experts(q, a, err);
    if (a->x.shape[0] == only_rows) spoil(&a->y);
    return st;
}

/* Leaves its output as it was. */
static gdn_status no_norm(gdn_queue *q, const gdn_rms_norm_args *a, gdn_err *err) {
    (void)q, (void)a, (void)err;
    return GDN_OK;
}

static gdn_status no_project(gdn_queue *q, const gdn_project_args *a, gdn_err *err) {
    (void)q, (void)a, (void)err;
    return GDN_OK;
}

/* Right for a row, wrong where something is added. */
static gdn_status no_sum(gdn_queue *q, const gdn_project_args *a, gdn_err *err) {
    (void)q, (void)err;
    return a->add ? GDN_OK : GDN_E_UNSUPPORTED;
}

static gdn_status failing(gdn_queue *q, const gdn_attn_args *a, gdn_err *err) {
    (void)q, (void)a;
    return gdn_fail(err, GDN_E_DEVICE, "CL_OUT_OF_RESOURCES");
}

/* --- tests -------------------------------------------------------------------------- */

static gdn_status checked(gdn_err *err) {
    gdn_device *d = NULL;
    *err = (gdn_err){0};
    assert_int_equal(fake_open("1", &(gdn_device_opts){.isa_mask = ~0u}, &d, err), GDN_OK);
    const gdn_status st = gdn_device_check(d, err);
    gdn_device_close(d);
    return st;
}

static void refused(const char *op, const char *what) {
    gdn_err err;
    assert_int_equal(checked(&err), GDN_E_DEVICE);
    if (strstr(err.text, op) == NULL || strstr(err.text, what) == NULL ||
        strstr(err.text, "start-up check") == NULL || strstr(err.text, "--device cpu") == NULL)
        fail_msg("%s", err.text);
}

static void test_passes(void **state) {
    (void)state;
    gdn_err err = {0};
    gdn_device *d = NULL;
    fake.op.linear = bad_linear;
    only_rows = -1;
    assert_int_equal(fake_open("2", &(gdn_device_opts){.isa_mask = ~0u}, &d, &err), GDN_OK);
    if (gdn_device_check(d, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_non_null(strstr(logged, "checked device="));
    const int ran = n_product;
    assert_true(ran > 0);
    assert_int_equal(gdn_device_check(d, &err), GDN_OK); /* once is enough */
    assert_int_equal(n_product, ran);
    gdn_device_close(d);
}

/* --- replays ---------------------------------------------------------------------------- */

static int n_pass, replays_from;

/* From the third time on all has been done. */
static bool nothing_again(gdn_queue *q, const gdn_pass *p) {
    (void)q, (void)p;
    return ++n_pass > replays_from;
}
static void pass_ends(gdn_queue *q, bool ok) { (void)q, (void)ok; }

static void test_replay(void **state) {
    (void)state;
    const gdn_pass p = {.kind = 1};
    gdn_err err = {0};
    for (int works = 0; works < 2; works++) {
        gdn_device *d = NULL;
        gdn_queue *q = NULL;
        begin(state);
        fake.pass_begin = nothing_again;
        fake.pass_end = pass_ends;
        n_pass = 0;
        replays_from = works == 1 ? 100 : 2;
        assert_int_equal(fake_open("1", &(gdn_device_opts){.isa_mask = ~0u}, &d, &err), GDN_OK);
        if (gdn_device_check(d, &err) != GDN_OK) fail_msg("%s", err.text);
        assert_true(n_pass > 2);
        assert_int_equal(strstr(logged, "replay off device=") == NULL, works);
        assert_non_null(strstr(logged, works == 1 ? "checked device=" : "why=\"replay: y is off by"));
        assert_int_equal(gdn_queue_create(d, &q, &err), GDN_OK);
        n_pass = 0;
        gdn_pass_begin(q, &p);
        assert_int_equal(n_pass, works); /* or nobody was asked */
        gdn_queue_free(q);
        gdn_device_close(d);
    }
}

static void test_cpu(void **state) {
    (void)state;
    gdn_err err;
    gdn_device *d = NULL;
    assert_int_equal(gdn_device_open("cpu:1", NULL, &d, &err), GDN_OK);
    assert_int_equal(gdn_device_check(d, &err), GDN_OK);
    assert_null(strstr(logged, "checked"));
    gdn_device_close(d);
}

/* Every operator by itself: off a little, and not a number. */
static void test_wrong(void **state) {
    static const float shifts[] = {0.05f, NAN};
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++) {
        shift = shifts[i];
        const char *how = isnan(shift) ? "not a number" : "off by";
#define TRY(op_, bad, name, what)                        \
    begin(state);                                        \
    fake.op.op_ = bad;                                   \
    refused(name, what);
        TRY(rms_norm, bad_norm, ": norm: y", how)
        TRY(rms_norm_gated, bad_gated, "gated norm, f32: y", how)
        TRY(rope_angles, bad_angles, "attention, keys in f32: rotary angles", how)
        TRY(attn_store, bad_store, "attention, keys in f32: keys", how)
        TRY(attn, bad_attn, "attention, keys in f32: y", how)
        TRY(gdn_core, bad_core, "gdn_core: core", how)
        TRY(gdn_core, bad_state, "gdn_core: the state", how)
        TRY(top_k, bad_value, "largest of a row: value", how)
        TRY(top_k, bad_id, "largest of a row: id", "off by")
        TRY(top_k, bad_min, "largest of a row: min", how)
        TRY(gdn_attention, bad_operator, "gdn_attention, f32: core", how)
        TRY(gdn_attention, bad_z, "gdn_attention, f32: z", how)
        TRY(moe_route, bad_route, "experts, f32 inputs, 1 row: weight", how)
        TRY(moe_experts, bad_experts, "experts, f32 inputs, 1 row: y", how)
    }
    shift = 0.5f;
    static const gdn_type type[] = {GDN_BF16, GDN_F32, GDN_F8};
    for (size_t i = 0; i < sizeof type / sizeof *type; i++)
        for (only_rows = 1; only_rows <= 20; only_rows += 19) {
            char name[64];
            only_type = type[i];
            snprintf(name, sizeof name, "product, %s weights, %d row", gdn_type_name(only_type),
                     (int)only_rows);
            TRY(linear, bad_linear, name, "y is off by")
        }
    for (only_rows = 1; only_rows <= 25; only_rows *= 5) {
        char name[64];
        snprintf(name, sizeof name, "experts, f32 inputs, %d row", (int)only_rows);
        TRY(moe_experts, bad_rows, name, "y is off by")
    }
    TRY(rms_norm, no_norm, ": norm: y", "not a number")
    TRY(project, no_project, "projection of a row: y", "not a number")
    TRY(project, no_sum, "projection of heads: y", "y is off by")
    TRY(attn, failing, "attention, keys in f32", "CL_OUT_OF_RESOURCES")
#undef TRY
}

/* Differences as other orders of summation make them are none. */
static void test_rounding(void **state) {
    (void)state;
    gdn_err err;
    shift = 1e-7f;
    fake.op.rms_norm = bad_norm;
    fake.op.gdn_core = bad_core;
    fake.op.attn = bad_attn;
    if (checked(&err) != GDN_OK) fail_msg("%s", err.text);
}

static void chosen(uint64_t need, const gdn_device_opts *o, const gdn_backend *want,
                   const char *line) {
    const gdn_backend *const all[] = {&gdn_backend_cpu, &fake};
    gdn_device *d = NULL;
    gdn_err err;
    gdn_device_opts any;
    gdn_device_opts_defaults(&any);
    logged[0] = '\0';
    assert_int_equal(gdn_device_choose(all, 2, o != NULL ? o : &any, need, &d, &err), GDN_OK);
    assert_ptr_equal(d->backend, want);
    if (strstr(logged, line) == NULL || strstr(logged, "default device=") == NULL)
        fail_msg("%s is not in:\n%s", line, logged);
    gdn_device_close(d);
}

static void test_default(void **state) {
    (void)state;
    const gdn_device_opts threads = {.n_thread = 1, .isa_mask = ~0u};
    chosen(0, NULL, &fake, "passed its check");
    chosen(7u << 27, NULL, &fake, "passed its check"); /* seven eighths of its memory */
    chosen((7u << 27) + 1, NULL, &gdn_backend_cpu, "the weights are 0.9 GB, it has 1.1 GB");
    chosen(0, &threads, &gdn_backend_cpu, "options of the cpu");
    shift = 0.5f;
    fake.op.attn = bad_attn;
    chosen(0, NULL, &gdn_backend_cpu, "device fake is not taken: ");
    assert_non_null(strstr(logged, "start-up check: attention"));
    gpu_there = false; /* a stand-in */
    chosen(0, NULL, &gdn_backend_cpu, "there is no GPU");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_passes, begin),  cmocka_unit_test_setup(test_cpu, begin),
        cmocka_unit_test_setup(test_wrong, begin),   cmocka_unit_test_setup(test_rounding, begin),
        cmocka_unit_test_setup(test_default, begin), cmocka_unit_test_setup(test_replay, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
