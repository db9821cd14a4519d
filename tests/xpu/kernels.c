/* kernels.c - every kernel of the xpu device once, on tensors small enough for an interpreter.
 *
 *     kernels [--fast] [--bounds]  all cases, or those that take little time; --bounds: the cases
 *                                  that a check for unwritten values is not for, alone
 *     kernels --canary FILE NAME   a kernel of FILE alone, as canary.cl has them
 *
 * oclgrind.sh runs it where each access of memory is looked at.  Results are compared with the cpu's
 * as well, so that a kernel which does nothing is no pass.  The kernels that there are come from the
 * compiled files; one that no case has run fails the whole: whoever adds a kernel adds a line to
 * `cases`, and a function that calls the operator (selftest.h makes the tensors).
 *
 * With GDN_XPU_TIER=emulated only the cases of tier X run, and only kernels of files *_xmx_xpu.cl
 * are asked for; else those of tier P. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/backend/selftest.h"
#include "../../src/backend/xpu_x.h"
#include "../../src/backend/xpu_source.h"

static const double SUM = 2e-5, ROUNDED = 0x1p-7;

/* --- kernels that there are, and that ran ------------------------------------------- */

typedef struct {
    char      name[64];
    cl_kernel cl[8]; /* the same name may come from several programs */
    int       n_cl;
    bool      x; /* of tier X: tier P may have the same name */
    bool      ran;
} known_kernel;

static known_kernel known[256];
static int n_known;
static xpu_cl_table real; /* the functions behind ours */

static bool tier_x;       /* which of them is looked at */
static cl_program x_program[16];
static int n_x;

static bool is_x(cl_program p) {
    for (int i = 0; i < n_x; i++)
        if (x_program[i] == p) return true;
    return false;
}

static known_kernel *find(const char *name, size_t len, bool x) {
    for (int i = 0; i < n_known; i++)
        if (known[i].x == x && strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0)
            return &known[i];
    if (n_known == (int)(sizeof known / sizeof *known)) abort();
    known_kernel *k = &known[n_known++];
    snprintf(k->name, sizeof k->name, "%.*s", (int)len, name);
    k->x = x;
    return k;
}

static cl_int build(cl_program p, cl_uint n, const cl_device_id *d, const char *options,
                    void(CL_CALLBACK *done)(cl_program, void *), void *arg) {
    char names[8192] = "";
    const cl_int e = real.clBuildProgram(p, n, d, options, done, arg);
    if (e != CL_SUCCESS) return e;
    const bool x = options != NULL && strstr(options, " -DSG=") != NULL;
    if (x && n_x == (int)(sizeof x_program / sizeof *x_program)) abort();
    if (x) x_program[n_x++] = p;
    if (real.clGetProgramInfo(p, CL_PROGRAM_KERNEL_NAMES, sizeof names, names, NULL) != CL_SUCCESS)
        abort();
    for (const char *at = names; *at != '\0';) {
        const size_t len = strcspn(at, ";");
        if (len > 0) find(at, len, x);
        at += len + (at[len] == ';');
    }
    return e;
}

static cl_kernel create(cl_program p, const char *name, cl_int *e) {
    cl_kernel k = real.clCreateKernel(p, name, e);
    known_kernel *of = k != NULL ? find(name, strlen(name), is_x(p)) : NULL;
    if (of != NULL && of->n_cl < 8) of->cl[of->n_cl++] = k;
    return k;
}

static cl_int start(cl_command_queue q, cl_kernel k, cl_uint dim, const size_t *at,
                    const size_t *global, const size_t *local, cl_uint n, const cl_event *wait,
                    cl_event *event) {
    for (int i = 0; i < n_known; i++)
        for (int c = 0; c < known[i].n_cl; c++) known[i].ran |= known[i].cl[c] == k;
    return real.clEnqueueNDRangeKernel(q, k, dim, at, global, local, n, wait, event);
}

/* oclgrind's marks of what was never written outlive freed memory and fall on who gets it next. */
static cl_int keep_memory(cl_mem m) {
    (void)m;
    return CL_SUCCESS;
}

/* Nor does it keep the marks of what an earlier write filled: memory that comes in pieces, in
 * ascending order as weights do, is written again from its beginning. */
static cl_int write_whole(cl_command_queue q, cl_mem m, cl_bool wait, size_t at, size_t bytes,
                          const void *from, cl_uint n, const cl_event *after, cl_event *event) {
    if (at == 0) return real.clEnqueueWriteBuffer(q, m, wait, 0, bytes, from, n, after, event);
    char *all = malloc(at + bytes);
    if (all == NULL) abort();
    cl_int e = real.clEnqueueReadBuffer(q, m, CL_TRUE, 0, at, all, n, after, NULL);
    memcpy(all + at, from, bytes);
    if (e == CL_SUCCESS)
        e = real.clEnqueueWriteBuffer(q, m, CL_TRUE, 0, at + bytes, all, 0, NULL, event);
    free(all);
    return e;
}

static void watch(void) {
    real = xpu_cl;
    xpu_cl.clBuildProgram = build;
    xpu_cl.clCreateKernel = create;
    xpu_cl.clEnqueueNDRangeKernel = start;
    xpu_cl.clReleaseMemObject = keep_memory;
    xpu_cl.clEnqueueWriteBuffer = write_whole;
}

/* --- cases -------------------------------------------------------------------------- */

/* An operator with the arguments of each side. */
#define ON_BOTH(op, args, ...)                                          \
    for (int s = 0; s < SELFTEST_SIDES && t->st == GDN_OK; s++) {       \
        const args a = {__VA_ARGS__};                                   \
        gdn_selftest_ran(t, op(t->queue[s], &a, &t->why));              \
    }
#define INTS(n, ...) gdn_selftest_ints(t, n, 0, (const int32_t[]){__VA_ARGS__})
#define RANDOM(...) gdn_selftest_random(t, __VA_ARGS__)
#define OUT(...) gdn_selftest_out(t, __VA_ARGS__)

static void embed(gdn_selftest *t) {
    const gdn_pair table = RANDOM(GDN_BF16, -1, 1, 9, 24, 0, 0), ids = INTS(3, 8, 0, 3),
                   y = OUT(GDN_F32, 3, 24, 0);
    ON_BOTH(gdn_op_embed, gdn_embed_args, .y = y.on[s], .ids = ids.on[s], .table = table.on[s])
    gdn_selftest_same(t, "y", &y, 0);
}

static void norms(gdn_selftest *t) {
    const gdn_pair x = RANDOM(GDN_F32, -1, 1, 3, 40, 0, 0), z = RANDOM(GDN_F32, -1, 1, 3, 40, 0, 0),
                   w = RANDOM(GDN_F32, 0, 2, 40, 0, 0, 0), y = OUT(GDN_F32, 3, 40, 0),
                   h = OUT(GDN_BF16, 3, 40, 0), gated = OUT(GDN_F32, 3, 40, 0);
    ON_BOTH(gdn_op_rms_norm, gdn_rms_norm_args, .y = y.on[s], .x = x.on[s], .w = w.on[s], .eps = 1e-6f)
    ON_BOTH(gdn_op_rms_norm, gdn_rms_norm_args, .y = h.on[s], .x = x.on[s], .z = z.on[s],
            .w = w.on[s], .eps = 1e-6f)
    ON_BOTH(gdn_rms_norm_gated, gdn_rms_norm_gated_args, .y = gated.on[s], .x = x.on[s],
            .z = z.on[s], .w = w.on[s], .eps = 1e-6f, .norm_after_gate = true)
    gdn_selftest_same(t, "y", &y, SUM);
    gdn_selftest_same(t, "bf16", &h, ROUNDED);
    gdn_selftest_same(t, "gated", &gated, SUM);
}

static void elements(gdn_selftest *t) {
    const gdn_pair x = RANDOM(GDN_F32, -3, 3, 3, 34, 0, 0), h = OUT(GDN_F16, 3, 34, 0),
                   y = OUT(GDN_F32, 3, 17, 0), cs = OUT(GDN_F32, 3, 8, 0),
                   pos = gdn_selftest_ints(t, 3, 3, (const int32_t[]){0, 0, 0, 5, 5, 5, 900, 7, 9});
    ON_BOTH(gdn_op_cast, gdn_cast_args, .y = h.on[s], .x = x.on[s])
    ON_BOTH(gdn_op_swiglu, gdn_swiglu_op_args, .y = y.on[s], .x = x.on[s])
    ON_BOTH(gdn_op_rope_angles, gdn_rope_angles_args, .cs = cs.on[s], .pos = pos.on[s],
            .theta = 1e4, .section = {2, 1, 1}, .mrope = true)
    gdn_selftest_same(t, "cast", &h, 0);
    gdn_selftest_same(t, "swiglu", &y, SUM);
    gdn_selftest_same(t, "rope", &cs, SUM);
}

/* n_row rows through n outputs of k inputs: by these a kernel is picked. */
static void product(gdn_selftest *t, gdn_type type, int64_t n_row, int32_t n, int32_t k, bool bf16) {
    enum { MOST = 80 };
    int32_t id[MOST];
    gdn_weight *w[SELFTEST_SIDES];
    if (n_row > MOST) abort();
    for (int32_t i = 0; i < MOST; i++) id[i] = i;
    gdn_selftest_drop(t);
    gdn_selftest_weight(t, type, 1, n, k, w);
    if (t->st != GDN_OK) return;
    if (bf16) w[SELFTEST_DEV]->input_type = GDN_BF16; /* the kernel is there for whoever wants it */
    const gdn_pair x = bf16 ? gdn_selftest_exact(t, GDN_BF16, n_row, k)
                            : RANDOM(GDN_F32, -1, 1, n_row, k, 0, 0),
                   y = RANDOM(GDN_F32, -1, 1, n_row, n, 0, 0),
                   row = gdn_selftest_ints(t, MOST, 0, id);
    ON_BOTH(gdn_op_linear, gdn_linear_op_args, .y = y.on[s], .x = x.on[s], .w = w[s],
            .row = n_row > 1 ? gdn_tensor_slice(row.on[s], 0, 0, n_row) : (gdn_tensor){0},
            .add = n_row > 1)
    gdn_selftest_same(t, "y", &y, SUM);
}

static void products(gdn_selftest *t) {
    static const gdn_type type[] = {GDN_F32, GDN_BF16, GDN_F16, GDN_F8};
    static const int64_t rows[] = {2, 3, 6, 17}; /* linear_2, _4, _8, _tile */
    for (size_t i = 0; i < sizeof type / sizeof *type; i++) product(t, type[i], 1, 21, 40, false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        product(t, GDN_BF16, rows[i], 21, 40, false);
        product(t, type[i], rows[i], 21, 37, false); /* any_... */
    }
    product(t, GDN_BF16, 1, 21, 40, true);
    product(t, GDN_BF16, 6, 21, 40, true);
}
static void products_wide(gdn_selftest *t) {
    product(t, GDN_BF16, 1, 8193, 8, false);
    product(t, GDN_F16, 1, 8193, 8, false);
}

/* Tier X; products of f32 rows, then of few, of some and of many rows of bf16. */
static void products_x(gdn_selftest *t) {
    product(t, GDN_BF16, 5, 21, 48, false);
    product(t, GDN_BF16, 1, 21, 48, true);
    product(t, GDN_BF16, 6, 21, 48, true);
}
static void products_x_block(gdn_selftest *t) { product(t, GDN_BF16, 9, 21, 40, true); }
static void products_x_tile(gdn_selftest *t) { product(t, GDN_BF16, 65, 21, 40, true); }
static void embed_x(gdn_selftest *t) {
    gdn_weight *w[SELFTEST_SIDES];
    gdn_selftest_weight(t, GDN_BF16, 1, 21, 40, w);
    if (t->st != GDN_OK) return;
    const gdn_pair ids = INTS(3, 20, 0, 3), y = OUT(GDN_F32, 3, 40, 0);
    ON_BOTH(gdn_op_embed, gdn_embed_args, .y = y.on[s], .ids = ids.on[s], .weight = w[s])
    gdn_selftest_same(t, "y", &y, 0);
}

/* act: what rows are rounded to, of a device that takes it. */
static void projection(gdn_selftest *t, gdn_type type, gdn_type act, int64_t n_row, bool swiglu) {
    enum { N = 32, HEAD = 2 };
    const int32_t d = type == GDN_F16 ? 21 : 20, k = HEAD * d; /* whole vectors and not */
    gdn_weight *w[SELFTEST_SIDES];
    gdn_selftest_drop(t);
    gdn_selftest_weight(t, type, 1, N, k, w);
    if (t->st != GDN_OK) return;
    const gdn_pair x = RANDOM(GDN_F32, -1, 1, n_row, HEAD, d, 0),
                   z = RANDOM(GDN_F32, -1, 1, n_row, HEAD, d, 0),
                   norm = RANDOM(GDN_F32, 0, 2, d, 0, 0, 0), x_work = OUT(GDN_F32, n_row, k, 0),
                   x_rounded = OUT(act, n_row, k, 0),
                   y_work = OUT(GDN_F32, n_row, N, 0),
                   y = RANDOM(GDN_F32, -1, 1, n_row, swiglu ? N / 2 : N, 0, 0);
    ON_BOTH(gdn_op_project, gdn_project_args, .y = y.on[s], .x = x.on[s], .z = z.on[s],
            .norm_w = norm.on[s], .w = w[s], .add = !swiglu, .swiglu = swiglu, .eps = 1e-6f,
            .work_x = s == SELFTEST_DEV ? x_rounded.on[s] : x_work.on[s], .work_y = y_work.on[s])
    gdn_selftest_same(t, "y", &y, act == GDN_F32 ? SUM : 4 * ROUNDED);
}

static void projections(gdn_selftest *t) {
    static const int64_t rows[] = {1, 2, 3};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        projection(t, GDN_BF16, GDN_F32, rows[i], i == 1);
        projection(t, GDN_F16, GDN_F32, rows[i], i != 1);
    }
}
static void projections_x(gdn_selftest *t) {
    projection(t, GDN_BF16, GDN_BF16, 1, false);
    projection(t, GDN_BF16, GDN_BF16, 3, true);
}

static void adapters(gdn_selftest *t) {
    enum { ROW = 4, N = 12, K = 20, RANK = 3 };
    const gdn_pair x = RANDOM(GDN_F32, -1, 1, ROW, K, 0, 0), y = RANDOM(GDN_F32, -1, 1, ROW, N, 0, 0),
                   A = RANDOM(GDN_F32, -1, 1, RANK, K, 0, 0), B = RANDOM(GDN_F32, -1, 1, N, RANK, 0, 0),
                   which = INTS(ROW, 1, -1, 0, 1), work = OUT(GDN_F32, ROW, RANK, 0);
    const gdn_lora lora[SELFTEST_SIDES][2] = {{{A.on[0], B.on[0], 0.5f}, {A.on[0], B.on[0], 2}},
                                              {{A.on[1], B.on[1], 0.5f}, {A.on[1], B.on[1], 2}}};
    ON_BOTH(gdn_op_lora, gdn_lora_op_args, .y = y.on[s], .x = x.on[s], .adapter = which.on[s],
            .lora = lora[s], .n_lora = 2, .work = work.on[s])
    gdn_selftest_same(t, "y", &y, SUM);
}

/* Two sequences, one of which has `past` keys; `room` blocks of a sequence's 16 tokens. */
static void attend(gdn_selftest *t, int32_t D, int32_t n_row, int32_t past, int32_t room,
                   gdn_type type) {
    enum { HQ = 2, HKV = 1, ROT = 8, SIZE = 16, MOST = 64 };
    const int32_t used = (past + n_row - 1) / SIZE + 1, n_page = used + 1;
    int32_t page[2 * MOST] = {0};
    if (room > MOST || used > room) abort();
    gdn_selftest_drop(t);
    for (int32_t i = 0; i < used; i++) page[i] = used - i;
    page[room] = 0;
    const gdn_pair q = RANDOM(GDN_F32, -1, 1, n_row, HQ, D, 0), k = RANDOM(GDN_F32, -1, 1, n_row, HKV, D, 0),
                   v = RANDOM(GDN_F32, -1, 1, n_row, HKV, D, 0), gate = RANDOM(GDN_F32, -2, 2, n_row, HQ, D, 0),
                   w = RANDOM(GDN_F32, 0, 2, D, 0, 0, 0), cs = RANDOM(GDN_F32, -1, 1, n_row, ROT, 0, 0),
                   keys = RANDOM(type, -1, 1, n_page, HKV, SIZE, D),
                   values = RANDOM(type, -1, 1, n_page, HKV, SIZE, D),
                   from = INTS(3, 0, n_row - 1, n_row), before = INTS(2, past, 0),
                   table = gdn_selftest_ints(t, 2, room, page), rotated = OUT(type, n_row, HQ, D),
                   y = OUT(GDN_F32, n_row, HQ, D);
#define LAYOUT {.seq_start = from.on[s], .n_past = before.on[s], .page = table.on[s], .block_size = SIZE}
    ON_BOTH(gdn_op_attn_store, gdn_attn_store_args, .q_out = rotated.on[s], .k_page = keys.on[s],
            .v_page = values.on[s], .q = q.on[s], .k = k.on[s], .v = v.on[s], .q_norm = w.on[s],
            .k_norm = w.on[s], .cs = cs.on[s], .kv = LAYOUT, .eps = 1e-6f)
    ON_BOTH(gdn_op_attn, gdn_attn_args, .y = y.on[s], .q = rotated.on[s], .gate = gate.on[s],
            .k_page = keys.on[s], .v_page = values.on[s], .kv = LAYOUT, .scale = 0.2f)
#undef LAYOUT
    gdn_selftest_same(t, "keys", &keys, type == GDN_F32 ? SUM : ROUNDED);
    gdn_selftest_same(t, "y", &y, type == GDN_F32 ? SUM : ROUNDED);
}

static void attention(gdn_selftest *t) {
    attend(t, 32, 4, 18, 4, GDN_F32);
    attend(t, 32, 4, 18, 40, GDN_BF16); /* room for more than a block of keys: in parts */
}
static void attention_x(gdn_selftest *t) { attend(t, 256, 2, 3, 1, GDN_BF16); }
static void attention_long(gdn_selftest *t) { attend(t, 32, 4, 530, 40, GDN_F32); }
static void attention_tiles(gdn_selftest *t) { attend(t, 32, 17, 18, 4, GDN_BF16); }

enum { HK = 1, HV = 2, DK = 32, DV = 32, W = 4, C = 2 * HK * DK + HV * DV, SLOTS = 4 };

/* With lines: rows committed, guesses, what they leave. */
static void core_of(gdn_selftest *t, int32_t n_row) {
    enum { N_SEQ = 2, K = 2 };
    gdn_selftest_drop(t);
    const gdn_pair out = OUT(GDN_F32, n_row, HV, DV), qkv = RANDOM(GDN_F32, -1, 1, n_row, C, 0, 0),
                   b = RANDOM(GDN_F32, -2, 2, n_row, HV, 0, 0), a_raw = RANDOM(GDN_F32, -3, 3, n_row, HV, 0, 0),
                   conv = RANDOM(GDN_F32, -1, 1, SLOTS, W - 1, C, 0),
                   ssm = RANDOM(GDN_F32, -1, 1, SLOTS, HV, DV, DK), w = RANDOM(GDN_F32, -1, 1, W, C, 0, 0),
                   bias = RANDOM(GDN_F32, -1, 1, C, 0, 0, 0), A = RANDOM(GDN_F32, -4, 0, HV, 0, 0, 0),
                   dt = RANDOM(GDN_F32, -1, 1, HV, 0, 0, 0), from = INTS(3, 0, 2, n_row),
                   slot = INTS(2, 2, 1), has = INTS(2, 1, 0),
                   line = RANDOM(GDN_F32, -1, 1, 2, K, C + 2 * HV, 0), index = INTS(2, 1, 0),
                   commit = INTS(2, 2, 0), keep = INTS(2, 1, 0), spare = INTS(2, 3, -1),
                   work = OUT(GDN_F32, n_row + N_SEQ * K, C, 0), gate = OUT(GDN_F32, n_row + N_SEQ * K, 2, HV);
    ON_BOTH(gdn_op_gdn_core, gdn_core_args, .core = out.on[s], .qkv = qkv.on[s], .b = b.on[s],
            .a = a_raw.on[s], .conv_state = conv.on[s], .ssm_state = ssm.on[s], .conv_w = w.on[s],
            .conv_bias = bias.on[s], .A_log = A.on[s], .dt_bias = dt.on[s], .seq_start = from.on[s],
            .slot = slot.on[s], .has_state = has.on[s], .line = line.on[s],
            .line_index = index.on[s], .n_commit = commit.on[s], .keep = keep.on[s],
            .spare = spare.on[s], .work_qkv = work.on[s], .work_gate = gate.on[s], .hk = HK, .dk = DK)
    gdn_selftest_same(t, "core", &out, SUM);
    gdn_selftest_same(t, "state", &ssm, SUM);
    gdn_selftest_same(t, "line", &line, 0);
}
static void core(gdn_selftest *t) {
    core_of(t, 5);  /* one launch */
    core_of(t, 11); /* two        */
}

/* The operator, plain and speculative in one call. */
static void op_form(gdn_selftest *t, gdn_delta_form form, gdn_type act, int32_t n_plain) {
    enum { K = 2, TOP = 48 };
    const int32_t n_row = n_plain + K;
    int32_t plain[TOP];
    gdn_selftest_drop(t);
    for (int32_t i = 0; i < n_plain && i < TOP; i++) plain[i] = i;
    const gdn_pair out = OUT(act, n_row, HV, DV), z = OUT(act, n_row, HV, DV),
                   qkvz = RANDOM(act, -1, 1, n_row, C + HV * DV, 0, 0),
                   ba = RANDOM(act, -2, 2, n_row, 2 * HV, 0, 0),
                   conv = RANDOM(act, -1, 1, SLOTS, W - 2 + K + 1, C, 0),
                   ssm = RANDOM(GDN_F32, -1, 1, SLOTS, HV, DV, DK), w = RANDOM(act, -1, 1, C, W, 0, 0),
                   A = RANDOM(GDN_F32, -4, 0, HV, 0, 0, 0), dt = RANDOM(act, -1, 1, HV, 0, 0, 0),
                   from = INTS(2, 0, n_plain), slot = INTS(1, 0), rows = gdn_selftest_ints(t, n_plain, 0, plain),
                   spec = INTS(2, 0, K), spec_rows = INTS(2, n_plain, n_plain + 1),
                   columns = gdn_selftest_ints(t, 1, K, (const int32_t[]){2, 1}), accepted = INTS(1, 2);
    ON_BOTH(gdn_attention, gdn_attention_args, .core = out.on[s], .z = z.on[s], .qkvz = qkvz.on[s],
            .ba = ba.on[s], .conv_state = conv.on[s], .ssm_state = ssm.on[s], .conv_weights = w.on[s],
            .A_log = A.on[s], .dt_bias = dt.on[s], .non_spec_query_start_loc = from.on[s],
            .non_spec_token_indx = rows.on[s], .non_spec_state_indices = slot.on[s],
            .spec_query_start_loc = spec.on[s], .spec_token_indx = spec_rows.on[s],
            .spec_state_indices = columns.on[s], .num_accepted_tokens = accepted.on[s],
            .n_k_head = HK, .n_v_head = HV, .dk = DK, .dv = DV, .tp_size = 1,
            .num_actual_tokens = n_row, .null_slot = -1, .form = form)
    gdn_selftest_same(t, "core", &out, act == GDN_F32 ? 1e-4 : ROUNDED);
    gdn_selftest_same(t, "z", &z, 0);
    gdn_selftest_same(t, "state", &ssm, act == GDN_F32 ? 1e-4 : ROUNDED);
}
static void operator(gdn_selftest *t) {
    op_form(t, GDN_FORM_RECURRENT, GDN_F32, 3);
    op_form(t, GDN_FORM_RECURRENT, GDN_BF16, 3);
}
static void operator_chunked(gdn_selftest *t) { op_form(t, GDN_FORM_CHUNKED, GDN_F32, 37); }

/* Tier X: its columns of two value heads, a whole chunk and a short one. */
static void rule_x(gdn_selftest *t) {
    enum { ROW = 37, V_COLUMNS = 16 };
    int32_t row[ROW];
    for (int32_t i = 0; i < ROW; i++) row[i] = ROW - 1 - i;
    const gdn_pair out = OUT(GDN_BF16, ROW, HV, V_COLUMNS), q = RANDOM(GDN_BF16, -1, 1, ROW, HK, DK, 0),
                   k = RANDOM(GDN_BF16, -1, 1, ROW, HK, DK, 0),
                   v = RANDOM(GDN_BF16, -1, 1, ROW, HV, V_COLUMNS, 0),
                   b = RANDOM(GDN_BF16, -2, 2, ROW, HV, 0, 0), a_raw = RANDOM(GDN_BF16, -3, 3, ROW, HV, 0, 0),
                   ssm = RANDOM(GDN_F32, -1, 1, SLOTS, HV, V_COLUMNS, DK),
                   A = RANDOM(GDN_F32, -4, 0, HV, 0, 0, 0), dt = RANDOM(GDN_BF16, -1, 1, HV, 0, 0, 0),
                   from = INTS(2, 0, ROW), slot = INTS(1, 1), rows = gdn_selftest_ints(t, ROW, 0, row);
    ON_BOTH(gdn_delta_rule, gdn_delta_rule_args, .core = out.on[s], .q = q.on[s], .k = k.on[s],
            .v = v.on[s], .b = b.on[s], .a = a_raw.on[s], .A_log = A.on[s], .dt_bias = dt.on[s],
            .ssm_state = ssm.on[s], .query_start_loc = from.on[s], .token_indx = rows.on[s],
            .state_indices = slot.on[s], .num_actual_tokens = ROW, .null_slot = -1,
            .form = s == SELFTEST_DEV ? GDN_FORM_CHUNKED : GDN_FORM_RECURRENT)
    gdn_selftest_same(t, "core", &out, ROUNDED);
    gdn_selftest_same(t, "state", &ssm, 1e-4);
}

/* Choice and sum, of what anything said. */
static void routes(gdn_selftest *t) {
    enum { ROW = 3, TOP = 2, E = 4, D = 24 };
    const gdn_pair logits = RANDOM(GDN_F32, -3, 3, ROW, E, 0, 0), expert = OUT(GDN_I32, ROW, TOP, 0),
                   weight = OUT(GDN_F32, ROW, TOP, 0), e = RANDOM(GDN_F32, -1, 1, ROW, TOP, D, 0),
                   shared = RANDOM(GDN_F32, -1, 1, ROW, D, 0, 0), gate = RANDOM(GDN_F32, -1, 1, ROW, 1, 0, 0),
                   y = RANDOM(GDN_F32, -1, 1, ROW, D, 0, 0);
    ON_BOTH(gdn_op_moe_route, gdn_moe_route_op_args, .expert = expert.on[s], .weight = weight.on[s],
            .logits = logits.on[s], .normalise = true)
    ON_BOTH(gdn_op_moe_combine, gdn_moe_combine_op_args, .y = y.on[s], .e = e.on[s],
            .weight = weight.on[s], .shared = shared.on[s], .gate = gate.on[s])
    gdn_selftest_same(t, "expert", &expert, 0);
    gdn_selftest_same(t, "y", &y, SUM);
}

/* By rows and experts a kernel is picked.  d and n divide by no tile. */
static void experts_of(gdn_selftest *t, gdn_type type, int64_t n_row, int32_t d, int32_t n, bool bf16) {
    enum { TOP = 2, E = 3, MOST = 8 };
    static const int32_t chosen[2 * MOST] = {0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2, 0};
    gdn_weight *gate_up[SELFTEST_SIDES], *down[SELFTEST_SIDES];
    if (n_row > MOST) abort();
    gdn_selftest_drop(t);
    gdn_selftest_weight(t, type, E, 2 * n, d, gate_up);
    gdn_selftest_weight(t, type, E, d, n, down);
    if (t->st != GDN_OK) return;
    const gdn_type act = bf16 ? GDN_BF16 : GDN_F32;
    gate_up[SELFTEST_DEV]->input_type = down[SELFTEST_DEV]->input_type = act;
    const gdn_pair x = gdn_selftest_exact(t, act, n_row, d),
                   expert = gdn_selftest_ints(t, n_row, TOP, chosen), y = OUT(GDN_F32, n_row, TOP, d),
                   gu = OUT(GDN_F32, n_row * TOP, 2 * n, 0), h = OUT(GDN_F32, n_row * TOP, n, 0),
                   rounded = OUT(act, n_row * TOP, n, 0),
                   index = OUT(GDN_I32, 2 * n_row * TOP + E + 1, 0, 0);
    ON_BOTH(gdn_op_moe_experts, gdn_moe_experts_args, .y = y.on[s], .x = x.on[s],
            .expert = expert.on[s], .gate_up = gate_up[s], .down = down[s], .work_gu = gu.on[s],
            .work_h = s == SELFTEST_DEV ? rounded.on[s] : h.on[s], .work_index = index.on[s])
    gdn_selftest_same(t, "y", &y, bf16 ? ROUNDED : SUM);
}

static void experts(gdn_selftest *t) {
    static const gdn_type type[] = {GDN_F32, GDN_F16, GDN_F8};
    static const int64_t rows[] = {1, 3, 8}; /* one, few, many */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        experts_of(t, GDN_BF16, rows[i], 40, 24, i == 1);
        experts_of(t, type[i], rows[i], 37, 21, i == 2); /* any_... */
    }
}

/* Two blocks, of which the second is not full. */
static void largest(gdn_selftest *t) {
    enum { ROW = 2, N = 4096 + 70, K = 5 };
    const gdn_pair x = RANDOM(GDN_F32, -1, 1, ROW, N, 0, 0), valid = INTS(ROW, N - 3, 40),
                   value = OUT(GDN_F32, ROW, K, 0), id = OUT(GDN_I32, ROW, K, 0),
                   found = OUT(GDN_I32, ROW, 0, 0), min = OUT(GDN_F32, ROW, 0, 0);
    ON_BOTH(gdn_op_top_k, gdn_top_k_args, .value = value.on[s], .id = id.on[s],
            .found = found.on[s], .min = min.on[s], .x = x.on[s], .n_valid = valid.on[s])
    gdn_selftest_same(t, "value", &value, 0);
    gdn_selftest_same(t, "id", &id, 0);
    gdn_selftest_same(t, "found", &found, 0);
    gdn_selftest_same(t, "min", &min, 0);
}

/* A case that not every run has names the kernels that it alone runs: the other runs do not ask for
 * them, its own does. */
enum { SLOW = 1, BOUNDS = 2, TIER_X = 4 };
static const struct {
    const char *name;
    void      (*run)(gdn_selftest *t);
    unsigned    flags;
    const char *kernels;
} cases[] = {
    {"embed", embed, 0, ""},
    {"norms", norms, 0, ""},
    {"elements", elements, 0, ""},
    {"products", products, 0, ""},
    {"products, many outputs", products_wide, SLOW, "linear_1_wide any_linear_1_wide"},
    {"projections", projections, 0, ""},
    {"adapters", adapters, 0, ""},
    {"attention", attention, 0, ""},
    {"attention, two blocks of keys", attention_long, SLOW, ""},
    {"attention, tiles", attention_tiles, SLOW, "attn_prefill"},
    {"gdn_core", core, 0, ""},
    {"gdn_attention", operator, 0, ""},
    {"gdn_attention, chunked", operator_chunked, SLOW, "chunk_prepare chunk_scan"},
    {"routes", routes, 0, ""},
    {"experts", experts, 0, ""},
    {"the largest of rows", largest, 0, ""},
    {"embed, packed", embed_x, TIER_X, ""},
    {"products of tier X", products_x, TIER_X, ""},
    {"products of tier X, packed rows", products_x_block, TIER_X, ""},
    /* Unused rows of an operand are whatever lies there. */
    {"projections of tier X", projections_x, TIER_X | BOUNDS, "project_rows"},
    {"attention of tier X", attention_x, TIER_X | SLOW, "attn_tile"},
    {"delta rule of tier X, chunked", rule_x, TIER_X | SLOW, "chunk_prepare_x chunk_scan_x"},
    {"products of tier X, tiles", products_x_tile, TIER_X | SLOW, "linear_tile"},
};
enum { N_CASE = sizeof cases / sizeof *cases };

static bool of_tier(int i) { return ((cases[i].flags & TIER_X) != 0) == tier_x; }
static bool runs(int i, bool fast, bool bounds) {
    return of_tier(i) && !(fast && cases[i].flags & SLOW) && ((cases[i].flags & BOUNDS) != 0) == bounds;
}

/* Whether a kernel is named by a case that runs here, or by one that does not. */
static bool named(const char *kernel, bool here, bool fast, bool bounds) {
    const size_t len = strlen(kernel);
    for (int i = 0; i < N_CASE; i++) {
        if (!of_tier(i) || runs(i, fast, bounds) != here) continue;
        for (const char *at = cases[i].kernels; *at != '\0'; at += strcspn(at, " ")) {
            at += strspn(at, " ");
            if (strcspn(at, " ") == len && memcmp(at, kernel, len) == 0) return true;
        }
    }
    return false;
}

static int run_cases(bool fast, bool bounds) {
    gdn_selftest t = {.rng = 1};
    gdn_err err = {0};
    int bad = 0, picked = 0, ran = 0, asked = 0;
    const char *tier = getenv("GDN_XPU_TIER");
    tier_x = tier != NULL && strncmp(tier, "emulated", 8) == 0;
    gdn_status st = gdn_device_open("cpu:1", NULL, &t.device[SELFTEST_REF], &err);
    if (st == GDN_OK) st = gdn_device_open("xpu", NULL, &t.device[SELFTEST_DEV], &err);
    for (int s = 0; s < SELFTEST_SIDES && st == GDN_OK; s++)
        st = gdn_queue_create(t.device[s], &t.queue[s], &err);
    if (st != GDN_OK) {
        printf("%s\n", err.text);
        return 77;
    }
    watch();
    for (int i = 0; i < N_CASE; i++) {
        if (!runs(i, fast, bounds)) continue;
        picked++;
        t.st = GDN_OK;
        snprintf(t.what, sizeof t.what, "%s", cases[i].name);
        cases[i].run(&t);
        printf("%s %s\n", t.st == GDN_OK ? "ok  " : "FAIL", t.st == GDN_OK ? t.what : t.failed);
        fflush(stdout);
        bad += t.st != GDN_OK;
        gdn_selftest_drop(&t);
    }
    /* Files that no case asked for. */
    for (const xpu_source *s = xpu_sources; s->name != NULL; s++) {
        const size_t len = strlen(s->name);
        if (!xpu_text_has_kernels(s->name)) continue;
        if ((len > 4 && strcmp(s->name + len - 4, "_xmx") == 0) != tier_x) continue;
        const xpu_call c = xpu_begin(t.queue[SELFTEST_DEV], s->name, "no such kernel");
        if (strstr(c.why.text, "no such kernel") == NULL) {
            printf("FAIL %s\n", c.why.text);
            bad++;
        }
    }
    for (int i = 0; i < n_known; i++) {
        if (known[i].x != tier_x) continue;
        asked++;
        ran += known[i].ran;
        /* A run of --bounds owes its own cases' kernels, the others all but those of other runs. */
        if (known[i].ran || (bounds ? !named(known[i].name, true, fast, bounds)
                                    : named(known[i].name, false, fast, bounds)))
            continue;
        printf("FAIL kernel %s was not run: tests/xpu/kernels.c has no case for it\n", known[i].name);
        bad++;
    }
    printf("%d of %d kernels of tier %s ran\n", ran, asked, tier_x ? "X" : "P");
    for (int s = 0; s < SELFTEST_SIDES; s++) {
        gdn_queue_free(t.queue[s]);
        gdn_device_close(t.device[s]);
    }
    return bad > 0 || (ran == 0 && (picked > 0 || !bounds));
}

/* --- planted bugs ------------------------------------------------------------------- */

static int run_canary(const char *path, const char *name) {
    enum { N = 8, ITEMS = N * N, GROUP = 16 };
    const xpu_cl_device *d;
    const char *none;
    static char text[1 << 16];
    const char *source = text;
    FILE *f = fopen(path, "rb");
    if (f == NULL || fread(text, 1, sizeof text - 1, f) == 0) return 1;
    fclose(f);
    if (xpu_cl_devices(&d, &none) == 0) {
        printf("%s\n", none);
        return 77;
    }
    float ones[ITEMS];
    for (int i = 0; i < ITEMS; i++) ones[i] = 1;
    const cl_int n = N;
    const size_t global = ITEMS, local = GROUP;
    cl_int e = CL_SUCCESS;
    cl_context c = xpu_cl.clCreateContext(NULL, 1, &d->id, NULL, NULL, &e);
    if (c == NULL) return 1;
    cl_command_queue q = xpu_cl.clCreateCommandQueue(c, d->id, 0, &e);
    cl_program p = xpu_cl.clCreateProgramWithSource(c, 1, &source, NULL, &e);
    if (q == NULL || p == NULL || xpu_cl.clBuildProgram(p, 1, &d->id, "-cl-std=CL1.2", NULL, NULL) != CL_SUCCESS)
        return 1;
    cl_kernel k = xpu_cl.clCreateKernel(p, name, &e);
    if (k == NULL) return 1;
    for (cl_uint i = 0; i < 3; i++) {
        cl_mem m = xpu_cl.clCreateBuffer(c, CL_MEM_READ_WRITE, sizeof ones, NULL, &e);
        if (m == NULL) return 1;
        e |= xpu_cl.clEnqueueWriteBuffer(q, m, CL_TRUE, 0, sizeof ones, ones, 0, NULL, NULL);
        e |= xpu_cl.clSetKernelArg(k, i, sizeof m, &m);
    }
    e |= xpu_cl.clSetKernelArg(k, 3, sizeof n, &n);
    e |= xpu_cl.clEnqueueNDRangeKernel(q, k, 1, NULL, &global, &local, 0, NULL, NULL);
    e |= xpu_cl.clFinish(q);
    return e != CL_SUCCESS;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--canary") == 0) return run_canary(argv[2], argv[3]);
    bool fast = false, bounds = false, known_words = true;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--fast") == 0) fast = true;
        else if (strcmp(argv[i], "--bounds") == 0) bounds = true;
        else known_words = false;
    }
    if (known_words) return run_cases(fast, bounds);
    fprintf(stderr, "usage: kernels [--fast] [--bounds] | --canary FILE NAME\n");
    return 2;
}
