/* test_xpu_gdn_chunk.c - the delta rule in chunks on the xpu against the cpu's recurrence: all lengths
 * of a last chunk, head sizes and types, extreme gates, and sequences beside others.  Tier X, which has
 * bf16, by the model of its engine with both sizes of a sub-group. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "opencl.h"
#include "opencl_sides.h"

#include <gdn/op.h>
#include <gdn/tools.h>

#include "../../src/backend/xpu_cl.h"

enum { Q, K, V, B, A, CORE, SSM, A_LOG, DT, INDX, LOC, SLOT, INITIAL, N_TENSOR };
enum { MAX_SEQ = 48 };

/* Of one call: host bytes of every tensor before it, and views of one buffer on each device. */
typedef struct {
    int32_t nk, nv, dk, dv, n_seq, n_token, n_row, n_slot;
    gdn_type act, state;
    gdn_tensor t[N_TENSOR];
    unsigned char *host;
    uint64_t bytes;
} call;

static float to_float(const unsigned char *p, gdn_type type) {
    uint32_t u = 0;
    float x;
    memcpy(&u, p, (size_t)gdn_type_bytes(type));
    if (type == GDN_BF16) u <<= 16;
    if (type == GDN_F16) {
        const uint32_t e = u >> 10 & 31, m = u & 1023;
        x = e == 31  ? NAN
            : e == 0 ? ldexpf((float)m, -24)
                     : ldexpf((float)(m + 1024), (int)e - 25);
        return u & 0x8000 ? -x : x;
    }
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Towards zero: any number of the type will do. */
static void put_float(unsigned char *p, gdn_type type, float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (type == GDN_F16) {
        const int e = (int)(u >> 23 & 255) - 112;
        u = e <= 0 ? 0 : (u >> 16 & 0x8000) | (uint32_t)e << 10 | (u >> 13 & 1023);
    } else if (type == GDN_BF16) {
        u >>= 16;
    }
    memcpy(p, &u, (size_t)gdn_type_bytes(type));
}

static unsigned char *host(const call *c, int i) { return c->host + c->t[i].at; }

static void add(call *c, int i, gdn_type type, int32_t ndim, int64_t n0, int64_t n1, int64_t n2,
                int64_t n3, int64_t gap) {
    const int64_t shape[4] = {n0, n1, n2, n3};
    c->t[i] = gdn_tensor_dense(NULL, c->bytes, type, ndim, shape);
    if (ndim > 1) c->t[i].stride[0] += gap;
    c->bytes += ((uint64_t)(n0 * c->t[i].stride[0]) + 63) / 64 * 64;
}

static void fill(call *c, int i, float lo, float hi) {
    const uint64_t size = (uint64_t)gdn_type_bytes(c->t[i].type);
    for (uint64_t at = 0; at < (uint64_t)(c->t[i].shape[0] * c->t[i].stride[0]); at += size)
        put_float(host(c, i) + at, c->t[i].type, uniform(lo, hi));
}

static bool tier_x;

/* Sequences of length[]; slot s + 1, every third sequence fresh, rows in turned order. */
static call make(int32_t nk, int32_t r, int32_t dk, int32_t dv, gdn_type act, gdn_type state,
                 int32_t n_seq, const int32_t *length) {
    call c = {.nk = nk, .nv = nk * r, .dk = dk, .dv = dv, .n_seq = n_seq, .n_slot = n_seq + 2,
              .act = act, .state = state};
    int32_t loc[MAX_SEQ + 1] = {0};
    assert_true(n_seq <= MAX_SEQ);
    for (int32_t s = 0; s < n_seq; s++) loc[s + 1] = loc[s] + length[s];
    c.n_token = loc[n_seq];
    c.n_row = c.n_token + 3;
    add(&c, Q, act, 3, c.n_token + 1, nk, dk, 0, 8);
    add(&c, K, act, 3, c.n_token + 1, nk, dk, 0, 24);
    add(&c, V, act, 3, c.n_token + 1, c.nv, dv, 0, 4);
    add(&c, B, act, 2, c.n_token + 1, c.nv, 0, 0, 4);
    add(&c, A, act, 2, c.n_token + 1, c.nv, 0, 0, 4);
    add(&c, CORE, act, 3, c.n_row, c.nv, dv, 0, 12);
    add(&c, SSM, state, 4, c.n_slot, c.nv, dv, dk, 64);
    add(&c, A_LOG, GDN_F32, 1, c.nv, 0, 0, 0, 0);
    add(&c, DT, act, 1, c.nv, 0, 0, 0, 0);
    add(&c, INDX, GDN_I32, 1, c.n_token, 0, 0, 0, 0);
    add(&c, LOC, GDN_I32, 1, n_seq + 1, 0, 0, 0, 0);
    add(&c, SLOT, GDN_I32, 1, n_seq, 0, 0, 0, 0);
    add(&c, INITIAL, GDN_U8, 1, n_seq, 0, 0, 0, 0);
    c.host = calloc(1, (size_t)c.bytes);
    assert_non_null(c.host);
    fill(&c, Q, -1, 1), fill(&c, K, -1, 1), fill(&c, V, -1, 1);
    fill(&c, B, -3, 3), fill(&c, A, -4, 2), fill(&c, CORE, -1, 1), fill(&c, SSM, -1, 1);
    fill(&c, A_LOG, -4, 1), fill(&c, DT, -2, 1);
    memcpy(host(&c, LOC), loc, (size_t)(n_seq + 1) * 4);
    for (int32_t t = 0; t < c.n_token; t++) {
        const int32_t row = c.n_token - t;
        memcpy(host(&c, INDX) + 4 * t, &row, 4);
    }
    for (int32_t s = 0; s < n_seq; s++) {
        const int32_t slot = s + 1;
        memcpy(host(&c, SLOT) + 4 * s, &slot, 4);
        host(&c, INITIAL)[s] = s % 3 != 2;
    }
    return c;
}

static void set_slot(call *c, int32_t s, int32_t slot) { memcpy(host(c, SLOT) + 4 * s, &slot, 4); }

/* after: the buffer behind the call. */
static gdn_status run_to(const call *c, int side, gdn_delta_form form, unsigned char *after,
                         gdn_err *why) {
    gdn_err err = {0};
    gdn_buffer *buf = NULL;
    gdn_tensor t[N_TENSOR];
    must(gdn_buffer_alloc(device[side], c->bytes, &buf, &err), &err);
    must(gdn_queue_write(queue[side], buf, 0, c->host, c->bytes, &err), &err);
    for (int i = 0; i < N_TENSOR; i++) t[i] = c->t[i], t[i].buf = buf;
    const gdn_delta_rule_args a = {.core = t[CORE], .q = t[Q], .k = t[K], .v = t[V], .b = t[B],
                                   .a = t[A], .A_log = t[A_LOG], .dt_bias = t[DT],
                                   .ssm_state = t[SSM], .has_initial_state = t[INITIAL],
                                   .query_start_loc = t[LOC], .token_indx = t[INDX],
                                   .state_indices = t[SLOT], .num_actual_tokens = c->n_token + 1,
                                   .null_slot = 0, .form = form};
    must(gdn_delta_rule(queue[side], &a, &err), &err);
    must(gdn_queue_read(queue[side], after, buf, 0, c->bytes, &err), &err);
    const gdn_status st = gdn_queue_wait(queue[side], why);
    gdn_buffer_free(buf);
    return st;
}

static unsigned char *run(const call *c, int side, gdn_delta_form form) {
    gdn_err err = {0};
    unsigned char *after = malloc((size_t)c->bytes);
    assert_non_null(after);
    must(run_to(c, side, form, after, &err), &err);
    return after;
}

/* Relative L2 of a tensor, gaps between its rows included: nobody writes those. */
static void near(const call *c, int i, const char *name, const unsigned char *want,
                 const unsigned char *got, double bound) {
    const uint64_t size = (uint64_t)gdn_type_bytes(c->t[i].type), from = c->t[i].at;
    double off = 0, all = 1e-30;
    for (uint64_t at = from; at < from + (uint64_t)(c->t[i].shape[0] * c->t[i].stride[0]);
         at += size) {
        const double x = (double)to_float(want + at, c->t[i].type);
        const double y = (double)to_float(got + at, c->t[i].type);
        off += (x - y) * (x - y);
        all += x * x;
    }
    const double e = sqrt(off / all);
    if (!(e <= bound))
        fail_msg("%s: off by %g of %g (nk %d nv %d dk %d dv %d act %d state %d, %d sequences)", name,
                 e, bound, c->nk, c->nv, c->dk, c->dv, (int)c->act, (int)c->state, c->n_seq);
}

/* Against the recurrence; frees the call. */
static void compare(call *c, double core, double state) {
    unsigned char *want = run(c, CPU, GDN_FORM_RECURRENT), *got = run(c, XPU, GDN_FORM_CHUNKED);
    near(c, CORE, "core", want, got, core);
    near(c, SSM, "ssm_state", want, got, state);
    memcpy(want + c->t[CORE].at, got + c->t[CORE].at,
           (size_t)(c->t[CORE].shape[0] * c->t[CORE].stride[0]));
    memcpy(want + c->t[SSM].at, got + c->t[SSM].at,
           (size_t)(c->t[SSM].shape[0] * c->t[SSM].stride[0]));
    assert_memory_equal(want, got, (size_t)c->bytes);
    free(want), free(got), free(c->host);
}

static void test_lengths(void **state) {
    (void)state;
    enum { CALLS = 5, EACH = 40 };
    for (int32_t i = 0; i < CALLS; i++) {
        int32_t length[EACH];
        for (int32_t s = 0; s < EACH; s++) length[s] = 1 + i + s * CALLS;
        call c = make(1, 1, 16, 8, GDN_F32, GDN_F32, EACH, length);
        compare(&c, 1e-5, 1e-5);
    }
}

static void test_sizes(void **state) {
    (void)state;
    static const int32_t length[] = {70, 0, 1, 33, 5};
    static const struct {
        int32_t nk, r, dk, dv;
        gdn_type act, state;
        double core, after;
    } size[] = {
        {2, 2, 128, 128, GDN_F32, GDN_F32, 1e-5, 1e-5}, {1, 3, 256, 40, GDN_F32, GDN_BF16, 1e-5, 4e-3},
        {2, 1, 72, 33, GDN_BF16, GDN_F32, 6e-3, 2e-3},  {1, 1, 8, 5, GDN_F32, GDN_F16, 1e-5, 5e-4},
        {1, 3, 136, 64, GDN_F16, GDN_F16, 8e-4, 5e-4},  {1, 2, 128, 96, GDN_BF16, GDN_BF16, 6e-3, 4e-3},
    };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        call c = make(size[i].nk, size[i].r, size[i].dk, size[i].dv, size[i].act, size[i].state, 5,
                      length);
        set_slot(&c, 3, i % 2 == 0 ? 0 : -1); /* none: its rows are zeros */
        compare(&c, size[i].core, size[i].after);
    }
}

/* Decays of 1 - 1e-7 to e^-100 and below, side by side; nothing or everything written; equal keys. */
static void extremes(gdn_type act, double core, double after) {
    static const int32_t length[] = {97, 64};
    for (int kind = 0; kind < 5; kind++) {
        call c = make(1, 2, 32, 32, act, GDN_F32, 2, length);
        const int64_t size = gdn_type_bytes(act);
        const float even[] = {-16.1f, 4.6f};
        for (int h = 0; h < 2; h++) {
            put_float(host(&c, A_LOG) + 4 * h, GDN_F32, kind == 0 ? even[h] : kind == 1 ? 0.0f : -3.0f);
            put_float(host(&c, DT) + size * h, act, 0);
        }
        for (int32_t t = 0; t <= c.n_token; t++)
            for (int h = 0; h < 2; h++) {
                unsigned char *a = host(&c, A) + t * c.t[A].stride[0] + size * h;
                unsigned char *b = host(&c, B) + t * c.t[B].stride[0] + size * h;
                if (kind == 0) put_float(a, act, 0.5413f);
                if (kind == 1) put_float(a, act, t % 7 == 3 ? 100 * (float)(1 + t % 3 * 400) : -16);
                if (kind == 2) put_float(b, act, below(2) ? 200 : -200);
                if (kind >= 3) put_float(b, act, kind == 3 ? 2 : 40);
                if (kind >= 3) put_float(a, act, -6);
            }
        if (kind >= 3)
            for (int32_t t = 1; t <= c.n_token; t++)
                memcpy(host(&c, K) + t * c.t[K].stride[0], host(&c, K), (size_t)(32 * size));
        compare(&c, core, after);
    }
}

static void test_extremes(void **state) {
    (void)state;
    extremes(GDN_F32, 1e-4, 1e-4);
}

/* A sequence alone and as the third of four: the same bits. */
static void test_alone(void **state) {
    (void)state;
    static const int32_t length[] = {45, 7, 83, 64};
    call c = make(1, 2, 40, tier_x ? 64 : 36, GDN_BF16, GDN_F32, 4, length), one = c;
    const int32_t from = length[0] + length[1], loc[2] = {0, length[2]};
    unsigned char *all = run(&c, XPU, GDN_FORM_CHUNKED);
    one.host = malloc((size_t)c.bytes);
    assert_non_null(one.host);
    memcpy(one.host, c.host, (size_t)c.bytes);
    one.n_seq = 1;
    memcpy(host(&one, LOC), loc, sizeof loc);
    one.t[LOC].shape[0] = 2;
    one.t[SLOT].shape[0] = one.t[INITIAL].shape[0] = 1;
    memcpy(host(&one, SLOT), host(&c, SLOT) + 8, 4);
    host(&one, INITIAL)[0] = host(&c, INITIAL)[2];
    memcpy(host(&one, INDX), host(&c, INDX) + 4 * from, 4 * (size_t)length[2]);
    for (int i = Q; i <= A; i++)
        memcpy(host(&one, i), host(&c, i) + from * c.t[i].stride[0],
               (size_t)(length[2] * c.t[i].stride[0]));
    unsigned char *alone = run(&one, XPU, GDN_FORM_CHUNKED);
    const uint64_t slot = c.t[SSM].at + 3 * (uint64_t)c.t[SSM].stride[0];
    assert_memory_equal(all + slot, alone + slot, (size_t)c.t[SSM].stride[0]);
    for (int32_t t = from; t < from + length[2]; t++) {
        const uint64_t row = c.t[CORE].at + (uint64_t)((c.n_token - t) * c.t[CORE].stride[0]);
        assert_memory_equal(all + row, alone + row, (size_t)c.t[CORE].stride[0]);
    }
    free(all), free(alone), free(c.host), free(one.host);
}

/* --- tier X ------------------------------------------------------------------------- */

static xpu_cl_table real; /* the functions behind ours */
static cl_kernel x_kernel[2];
static int n_launch, n_launch_x;

static cl_kernel create(cl_program p, const char *name, cl_int *e) {
    const cl_kernel k = real.clCreateKernel(p, name, e);
    if (strcmp(name, "chunk_prepare_x") == 0) x_kernel[0] = k;
    if (strcmp(name, "chunk_scan_x") == 0) x_kernel[1] = k;
    return k;
}

static cl_int start(cl_command_queue q, cl_kernel k, cl_uint dim, const size_t *at,
                    const size_t *global, const size_t *local, cl_uint n, const cl_event *wait,
                    cl_event *event) {
    n_launch++;
    n_launch_x += k == x_kernel[0] || k == x_kernel[1];
    return real.clEnqueueNDRangeKernel(q, k, dim, at, global, local, n, wait, event);
}

static int open_x(void **state, const char *tier) {
    setenv("GDN_XPU_TIER", tier, 1);
    const int st = open_devices(state); /* which fills the table */
    real = xpu_cl;
    xpu_cl.clCreateKernel = create;
    xpu_cl.clEnqueueNDRangeKernel = start;
    x_kernel[0] = x_kernel[1] = NULL;
    tier_x = true;
    return st;
}
static int open_16(void **state) { return open_x(state, "emulated"); }
static int open_8(void **state) { return open_x(state, "emulated8"); }

static int close_x(void **state) {
    xpu_cl = real;
    tier_x = false;
    unsetenv("GDN_XPU_TIER");
    return close_devices(state);
}

/* The launches of a call, and those of them that are tier X's. */
static void launches(int all, int x) {
    if (n_launch != all || n_launch_x != x)
        fail_msg("%d launches, %d of tier X; need %d, %d", n_launch, n_launch_x, all, x);
    n_launch = n_launch_x = 0;
}

static void test_x_sizes(void **state) {
    (void)state;
    static const int32_t length[] = {70, 0, 1, 33, 5, 32, 17, 64, 16};
    static const struct {
        int32_t nk, r, dk, dv;
        gdn_type state;
        double after;
    } size[] = {
        {1, 3, 128, 128, GDN_F32, 1e-4}, {2, 2, 128, 32, GDN_BF16, 5e-4},
        {2, 1, 72, 96, GDN_F16, 2e-4},   {1, 4, 16, 32, GDN_F32, 1e-4},
    };
    n_launch = n_launch_x = 0;
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        call c = make(size[i].nk, size[i].r, size[i].dk, size[i].dv, GDN_BF16, size[i].state, 9,
                      length);
        set_slot(&c, 3, i % 2 == 0 ? 0 : -1); /* none: its rows are zeros */
        compare(&c, 2e-3, size[i].after);
        launches(2, 2);
    }
}

static void test_x_extremes(void **state) {
    (void)state;
    extremes(GDN_BF16, 2e-3, 1e-4);
}

/* Recorded calls with bf16, whose states and outputs were computed in double. */
static void test_x_vectors(void **state) {
    (void)state;
    static const char *const name[] = {"dim128-bf16-state-bf16",   "everything-ds-tp2", "null-mixed",
                                       "prefill-interleaved-bf16", "ratio3-bf16",       "tp4-shard"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        char path[128];
        gdn_op_vector_result r;
        gdn_err err = {0};
        snprintf(path, sizeof path, "tests/golden/op/%s.safetensors", name[i]);
        n_launch_x = 0;
        must(gdn_op_vector_run(path, "xpu", NULL, &r, &err), &err);
        const gdn_op_form_result *f = &r.form[GDN_FORM_CHUNKED];
        if (!r.pass || n_launch_x < 2)
            fail_msg("%s: %d launches of tier X; core off by %g, states by %g", name[i], n_launch_x,
                     f->out[GDN_OP_CORE].rel_l2, f->out[GDN_OP_SSM_STATE].rel_l2);
    }
}

/* A call that cannot be right says why, and leaves the other sequence's results. */
static void refused(int tensor, int32_t at, int32_t value, const char *words) {
    static const int32_t length[] = {40, 5};
    call c = make(1, 2, 128, 32, GDN_BF16, GDN_F32, 2, length);
    gdn_err err = {0};
    unsigned char *after = malloc((size_t)c.bytes);
    assert_non_null(after);
    memcpy(host(&c, tensor) + 4 * at, &value, 4);
    assert_int_equal(run_to(&c, XPU, GDN_FORM_CHUNKED, after, &err), GDN_E_INVALID);
    if (strstr(err.text, words) == NULL) fail_msg("'%s' does not say '%s'", err.text, words);
    const uint64_t slot = c.t[SSM].at + (uint64_t)c.t[SSM].stride[0];
    assert_memory_not_equal(after + slot, c.host + slot, (size_t)c.t[SSM].stride[0]);
    free(after), free(c.host);
}
static void test_x_faults(void **state) {
    (void)state;
    refused(SLOT, 1, 77, "state_indices[1] is 77");
    refused(LOC, 2, 9999, "query_start_loc[2] is 9999");
    refused(INDX, 33, 9999, "token 33 is row 9999");
}

/* What tier X does not have. */
static void test_x_others(void **state) {
    (void)state;
    static const int32_t length[] = {37};
    static const struct {
        int32_t dk, dv;
        gdn_type act;
    } other[] = {{136, 32, GDN_BF16}, {32, 40, GDN_BF16}, {32, 32, GDN_F32}, {32, 32, GDN_F16}};
    n_launch = n_launch_x = 0;
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        call c = make(1, 1, other[i].dk, other[i].dv, other[i].act, GDN_F32, 1, length);
        compare(&c, 6e-3, 2e-3);
        launches(2, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_alone),
    };
    const struct CMUnitTest x_tests[] = {
        cmocka_unit_test(test_x_sizes),
        cmocka_unit_test(test_x_extremes),
        cmocka_unit_test(test_x_vectors),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_x_others),
        cmocka_unit_test(test_x_faults),
    };
    int st = opencl_begin();
    if (st != 0) return st;
    st = cmocka_run_group_tests(tests, open_devices, close_devices);
    st |= cmocka_run_group_tests_name("tier X, 16", x_tests, open_16, close_x);
    st |= cmocka_run_group_tests_name("tier X, 8", x_tests, open_8, close_x);
    opencl_end();
    return st;
}
