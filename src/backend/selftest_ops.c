/* selftest_ops.c - the operators that a device's start-up check tries.
 *
 * Those that a model spends its time in, with heads of the released sizes, few of them: products,
 * norms, projections, attention, the Gated DeltaNet core and the operator; and the largest of
 * a row.  For one row and for several, as these take different kernels.
 *
 * Bounds are shares of the largest value.  Sums in another order move results by 1e-6, three orders
 * less than any wrong element does; a value that bf16 holds may fall to the other side of a
 * rounding. */
#include "selftest.h"

#include <stdarg.h>
#include <stdio.h>

static const double SUM = 2e-5, DELTA = 1e-4, ROUNDED = 0x1p-7;

static double bound(double exact, gdn_type type) { return type == GDN_F32 ? exact : ROUNDED; }

GDN_PRINTF(2, 3) static void begin(gdn_selftest *t, const char *fmt, ...) {
    if (t->st != GDN_OK) return;
    gdn_selftest_drop(t);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->what, sizeof t->what, fmt, ap);
    va_end(ap);
}

/* An operator with the arguments of each side, the fields of a pair p being p.on[s]. */
#define ON_BOTH(t, op, args, ...)                                         \
    for (int s = 0; s < SELFTEST_SIDES && (t)->st == GDN_OK; s++) {       \
        const args a = {__VA_ARGS__};                                     \
        gdn_selftest_ran(t, op((t)->queue[s], &a, &(t)->why));         \
    }

/* --- products ----------------------------------------------------------------------- */

static void product(gdn_selftest *t, gdn_type type, gdn_type input, int64_t n_row) {
    enum { N = 200, K = 256 }; /* N divides by no tile */
    gdn_weight *w[SELFTEST_SIDES];
    begin(t, "product, %s weights, %lld row%s", gdn_type_name(type), (long long)n_row,
          n_row == 1 ? "" : "s");
    gdn_selftest_weight(t, type, 1, N, K, w);
    if (t->st != GDN_OK) return;
    if (input != GDN_F32) input = gdn_weight_input_type(w[SELFTEST_DEV]);
    const gdn_pair x = input == GDN_F32 ? gdn_selftest_random(t, GDN_F32, -1, 1, n_row, K, 0, 0)
                                        : gdn_selftest_exact(t, input, n_row, K);
    const gdn_pair y = gdn_selftest_out(t, GDN_F32, n_row, N, 0);
    ON_BOTH(t, gdn_op_linear, gdn_linear_op_args, .y = y.on[s], .x = x.on[s], .w = w[s])
    gdn_selftest_same(t, "y", &y, SUM);
}

/* input: of rows, where the device takes it. */
static void experts(gdn_selftest *t, gdn_type input, int64_t n_row) {
    enum { TOP = 2, E = 4, D = 256, N = 72 };
    gdn_weight *gate_up[SELFTEST_SIDES], *down[SELFTEST_SIDES];
    begin(t, "experts, %s inputs, %lld row%s", gdn_type_name(input), (long long)n_row,
          n_row == 1 ? "" : "s");
    gdn_selftest_weight(t, GDN_BF16, E, 2 * N, D, gate_up);
    gdn_selftest_weight(t, GDN_BF16, E, D, N, down);
    if (t->st != GDN_OK) return;
    if (input != GDN_F32 && input != gdn_weight_input_type(down[SELFTEST_DEV])) return;
    const gdn_pair logits = gdn_selftest_random(t, GDN_F32, -3, 3, n_row, E, 0, 0),
                   x = gdn_selftest_exact(t, input, n_row, D),
                   expert = gdn_selftest_out(t, GDN_I32, n_row, TOP, 0),
                   weight = gdn_selftest_out(t, GDN_F32, n_row, TOP, 0),
                   y = gdn_selftest_out(t, GDN_F32, n_row, TOP, D),
                   gu = gdn_selftest_out(t, GDN_F32, n_row * TOP, 2 * N, 0),
                   h = gdn_selftest_out(t, GDN_F32, n_row * TOP, N, 0),
                   rounded = gdn_selftest_out(t, input, n_row * TOP, N, 0),
                   index = gdn_selftest_out(t, GDN_I32, 2 * n_row * TOP + E + 1, 0, 0);
    ON_BOTH(t, gdn_op_moe_route, gdn_moe_route_op_args, .expert = expert.on[s],
            .weight = weight.on[s], .logits = logits.on[s], .normalise = true)
    ON_BOTH(t, gdn_op_moe_experts, gdn_moe_experts_args, .y = y.on[s], .x = x.on[s],
            .expert = expert.on[s], .gate_up = gate_up[s], .down = down[s], .work_gu = gu.on[s],
            .work_h = s == SELFTEST_DEV ? rounded.on[s] : h.on[s], .work_index = index.on[s])
    gdn_selftest_same(t, "expert", &expert, 0);
    gdn_selftest_same(t, "weight", &weight, SUM);
    gdn_selftest_same(t, "y", &y, bound(SUM, input));
}

/* --- norms -------------------------------------------------------------------------- */

static void norm(gdn_selftest *t) {
    enum { ROW = 5, D = 256 };
    begin(t, "norm");
    const gdn_pair x = gdn_selftest_random(t, GDN_F32, -1, 1, ROW, D, 0, 0),
                   w = gdn_selftest_random(t, GDN_F32, 0.5, 1.5, D, 0, 0, 0),
                   y = gdn_selftest_out(t, GDN_F32, ROW, D, 0);
    ON_BOTH(t, gdn_op_rms_norm, gdn_rms_norm_args, .y = y.on[s], .x = x.on[s], .w = w.on[s],
            .eps = 1e-6f)
    gdn_selftest_same(t, "y", &y, SUM);
}

static void norm_gated(gdn_selftest *t, gdn_type type) {
    enum { ROW = 5, HEADS = 4, D = 128 };
    begin(t, "gated norm, %s", gdn_type_name(type));
    const gdn_pair x = gdn_selftest_random(t, type, -1, 1, ROW, HEADS, D, 0),
                   z = gdn_selftest_random(t, type, -4, 4, ROW, HEADS, D, 0),
                   w = gdn_selftest_random(t, type, 0.5, 1.5, D, 0, 0, 0),
                   y = gdn_selftest_out(t, type, ROW, HEADS, D);
    ON_BOTH(t, gdn_rms_norm_gated, gdn_rms_norm_gated_args, .y = y.on[s], .x = x.on[s],
            .z = z.on[s], .w = w.on[s], .eps = 1e-6f)
    gdn_selftest_same(t, "y", &y, bound(SUM, type));
}

/* --- projections -------------------------------------------------------------------- */

/* As a layer begins and ends: a row normalised and gated by swiglu, or heads that are normalised, gated
 * and added. */
static void projection(gdn_selftest *t, bool heads) {
    enum { N = 192, HEADS = 2, D = 128, K = HEADS * D };
    const int64_t n_row = heads ? 3 : 1, n = heads ? N : N / 2;
    gdn_weight *w[SELFTEST_SIDES];
    begin(t, "projection of %s", heads ? "heads" : "a row");
    gdn_selftest_weight(t, GDN_BF16, 1, N, K, w);
    if (t->st != GDN_OK) return;
    const gdn_type input = gdn_weight_input_type(w[SELFTEST_DEV]);
    const int64_t d1 = heads ? HEADS : K, d2 = heads ? D : 0;
    const gdn_pair x = gdn_selftest_random(t, GDN_F32, -1, 1, n_row, d1, d2, 0),
                   z = gdn_selftest_random(t, GDN_F32, -4, 4, n_row, d1, d2, 0),
                   norm_w = gdn_selftest_random(t, GDN_F32, 0.5, 1.5, heads ? D : K, 0, 0, 0),
                   xn = gdn_selftest_exact(t, input, n_row, K),
                   wide = gdn_selftest_out(t, GDN_F32, n_row, N, 0),
                   y = heads ? gdn_selftest_random(t, GDN_F32, -1, 1, n_row, n, 0, 0)
                             : gdn_selftest_out(t, GDN_F32, n_row, n, 0);
    ON_BOTH(t, gdn_op_project, gdn_project_args, .y = y.on[s], .x = x.on[s],
            .z = heads ? z.on[s] : (gdn_tensor){0}, .norm_w = norm_w.on[s], .eps = 1e-6f, .w = w[s],
            .add = heads, .swiglu = !heads, .work_x = xn.on[s], .work_y = wide.on[s])
    gdn_selftest_same(t, "y", &y, bound(SUM, input));
}

/* --- attention ---------------------------------------------------------------------- */

/* A prompt of 20 rows, and one row after 300 others: more than one block of 256 keys. */
static void attention(gdn_selftest *t, gdn_type type) {
    enum { HQ = 4, HKV = 2, D = 256, ROT = 64, N = 20, PAST = 300, ROW = N + 1, N_SEQ = 2,
           MOST = 64 };
    const int32_t step = t->device[SELFTEST_DEV]->backend->kv_block_multiple;
    const int32_t size = (63 / step + 1) * step, blocks = PAST / size + 1, n_page = blocks + 2;
    int32_t pos[3 * ROW], page[N_SEQ * MOST] = {0};
    if (blocks > MOST) return;
    begin(t, "attention, keys in %s", gdn_type_name(type));
    for (int32_t i = 0; i < 3 * ROW; i++) pos[i] = i / 3 < N ? i / 3 : PAST;
    page[0] = n_page - 1;
    for (int32_t i = 0; i < blocks; i++) page[blocks + i] = blocks - i;
    const gdn_pair q = gdn_selftest_random(t, GDN_F32, -1, 1, ROW, HQ, D, 0),
                   k = gdn_selftest_random(t, GDN_F32, -1, 1, ROW, HKV, D, 0),
                   v = gdn_selftest_random(t, GDN_F32, -1, 1, ROW, HKV, D, 0),
                   gate = gdn_selftest_random(t, GDN_F32, -2, 2, ROW, HQ, D, 0),
                   w = gdn_selftest_random(t, GDN_F32, 0.5, 1.5, D, 0, 0, 0),
                   keys = gdn_selftest_random(t, type, -1, 1, n_page, HKV, size, D),
                   values = gdn_selftest_random(t, type, -1, 1, n_page, HKV, size, D),
                   at = gdn_selftest_ints(t, ROW, 3, pos),
                   cs = gdn_selftest_out(t, GDN_F32, ROW, ROT, 0),
                   start = gdn_selftest_ints(t, N_SEQ + 1, 0, (const int32_t[]){0, N, ROW}),
                   past = gdn_selftest_ints(t, N_SEQ, 0, (const int32_t[]){0, PAST}),
                   table = gdn_selftest_ints(t, N_SEQ, blocks, page),
                   rotated = gdn_selftest_out(t, type, ROW, HQ, D),
                   y = gdn_selftest_out(t, GDN_F32, ROW, HQ, D);
#define LAYOUT {.seq_start = start.on[s], .n_past = past.on[s], .page = table.on[s], .block_size = size}
    ON_BOTH(t, gdn_op_rope_angles, gdn_rope_angles_args, .cs = cs.on[s], .pos = at.on[s],
            .theta = 1e7)
    ON_BOTH(t, gdn_op_attn_store, gdn_attn_store_args, .q_out = rotated.on[s], .k_page = keys.on[s],
            .v_page = values.on[s], .q = q.on[s], .k = k.on[s], .v = v.on[s], .q_norm = w.on[s],
            .k_norm = w.on[s], .cs = cs.on[s], .kv = LAYOUT, .eps = 1e-6f)
    ON_BOTH(t, gdn_op_attn, gdn_attn_args, .y = y.on[s], .q = rotated.on[s], .gate = gate.on[s],
            .k_page = keys.on[s], .v_page = values.on[s], .kv = LAYOUT, .scale = 0.0625f)
#undef LAYOUT
    gdn_selftest_same(t, "rotary angles", &cs, SUM);
    gdn_selftest_same(t, "q", &rotated, bound(SUM, type));
    gdn_selftest_same(t, "keys", &keys, bound(SUM, type));
    gdn_selftest_same(t, "values", &values, bound(SUM, type));
    gdn_selftest_same(t, "y", &y, bound(SUM, type));
}

/* --- Gated DeltaNet ----------------------------------------------------------------- */

enum { HK = 2, HV = 4, DK = 128, W = 4, C = 2 * HK * DK + HV * DK, SLOTS = 3 };

/* One token of a sequence with a state, several of one without. */
static void core(gdn_selftest *t) {
    enum { ROW = 12, N_SEQ = 2 };
    begin(t, "gdn_core");
    const gdn_pair out = gdn_selftest_out(t, GDN_F32, ROW, HV, DK),
                   qkv = gdn_selftest_random(t, GDN_F32, -1, 1, ROW, C, 0, 0),
                   b = gdn_selftest_random(t, GDN_F32, -2, 2, ROW, HV, 0, 0),
                   a_raw = gdn_selftest_random(t, GDN_F32, -3, 3, ROW, HV, 0, 0),
                   conv = gdn_selftest_random(t, GDN_F32, -1, 1, SLOTS, W - 1, C, 0),
                   ssm = gdn_selftest_random(t, GDN_F32, -0.1, 0.1, SLOTS, HV, DK, DK),
                   w = gdn_selftest_random(t, GDN_F32, -1, 1, W, C, 0, 0),
                   A = gdn_selftest_random(t, GDN_F32, -4, 0, HV, 0, 0, 0),
                   dt = gdn_selftest_random(t, GDN_F32, -1, 1, HV, 0, 0, 0),
                   start = gdn_selftest_ints(t, N_SEQ + 1, 0, (const int32_t[]){0, 1, ROW}),
                   slot = gdn_selftest_ints(t, N_SEQ, 0, (const int32_t[]){2, 1}),
                   has = gdn_selftest_ints(t, N_SEQ, 0, (const int32_t[]){1, 0}),
                   work = gdn_selftest_out(t, GDN_F32, ROW, C, 0),
                   gate = gdn_selftest_out(t, GDN_F32, ROW, 2, HV);
    ON_BOTH(t, gdn_op_gdn_core, gdn_core_args, .core = out.on[s], .qkv = qkv.on[s], .b = b.on[s],
            .a = a_raw.on[s], .conv_state = conv.on[s], .ssm_state = ssm.on[s], .conv_w = w.on[s],
            .A_log = A.on[s], .dt_bias = dt.on[s], .seq_start = start.on[s], .slot = slot.on[s],
            .has_state = has.on[s], .work_qkv = work.on[s], .work_gate = gate.on[s], .hk = HK,
            .dk = DK)
    gdn_selftest_same(t, "core", &out, DELTA);
    gdn_selftest_same(t, "the convolution's state", &conv, SUM);
    gdn_selftest_same(t, "the state", &ssm, DELTA);
}

/* The same with the operator, whose states share their slots. */
static void operator(gdn_selftest *t, gdn_type act) {
    enum { ROW = 21, N_SEQ = 2 };
    begin(t, "gdn_attention, %s", gdn_type_name(act));
    const gdn_pair out = gdn_selftest_out(t, act, ROW, HV, DK),
                   z = gdn_selftest_out(t, act, ROW, HV, DK),
                   qkvz = gdn_selftest_random(t, act, -1, 1, ROW, C + HV * DK, 0, 0),
                   ba = gdn_selftest_random(t, act, -2, 2, ROW, 2 * HV, 0, 0),
                   conv = gdn_selftest_random(t, act, -1, 1, SLOTS, W - 1, C, 0),
                   ssm = gdn_selftest_random(t, GDN_F32, -0.1, 0.1, SLOTS, HV, DK, DK),
                   w = gdn_selftest_random(t, act, -1, 1, C, W, 0, 0),
                   A = gdn_selftest_random(t, GDN_F32, -4, 0, HV, 0, 0, 0),
                   dt = gdn_selftest_random(t, act, -1, 1, HV, 0, 0, 0),
                   start = gdn_selftest_ints(t, N_SEQ + 1, 0, (const int32_t[]){0, 1, ROW}),
                   slot = gdn_selftest_ints(t, N_SEQ, 0, (const int32_t[]){2, 1});
    ON_BOTH(t, gdn_attention, gdn_attention_args, .core = out.on[s], .z = z.on[s],
            .qkvz = qkvz.on[s], .ba = ba.on[s], .conv_state = conv.on[s], .ssm_state = ssm.on[s],
            .conv_weights = w.on[s], .A_log = A.on[s], .dt_bias = dt.on[s],
            .non_spec_query_start_loc = start.on[s], .non_spec_state_indices = slot.on[s],
            .n_k_head = HK, .n_v_head = HV, .dk = DK, .dv = DK, .tp_size = 1,
            .num_actual_tokens = ROW, .null_slot = -1, .form = GDN_FORM_RECURRENT)
    gdn_selftest_same(t, "core", &out, bound(DELTA, act));
    gdn_selftest_same(t, "z", &z, 0);
    gdn_selftest_same(t, "the convolution's state", &conv, 0);
    gdn_selftest_same(t, "the state", &ssm, bound(DELTA, act));
}

/* --- sampling ----------------------------------------------------------------------- */

/* Rows of several blocks; where the device has the operator. */
static void largest(gdn_selftest *t) {
    enum { ROW = 2, N = 10000, K = 20 };
    if (t->device[SELFTEST_DEV]->backend->op.top_k == NULL) return;
    begin(t, "largest of a row");
    const gdn_pair x = gdn_selftest_random(t, GDN_F32, -10, 10, ROW, N, 0, 0),
                   valid = gdn_selftest_ints(t, ROW, 0, (const int32_t[]){N, N - 1}),
                   value = gdn_selftest_out(t, GDN_F32, ROW, K, 0),
                   id = gdn_selftest_out(t, GDN_I32, ROW, K, 0),
                   found = gdn_selftest_out(t, GDN_I32, ROW, 0, 0),
                   least = gdn_selftest_out(t, GDN_F32, ROW, 0, 0);
    ON_BOTH(t, gdn_op_top_k, gdn_top_k_args, .value = value.on[s], .id = id.on[s],
            .found = found.on[s], .min = least.on[s], .x = x.on[s], .n_valid = valid.on[s])
    gdn_selftest_same(t, "value", &value, 0);
    gdn_selftest_same(t, "id", &id, 0);
    gdn_selftest_same(t, "found", &found, 0);
    gdn_selftest_same(t, "min", &least, 0);
}

/* --- replay ------------------------------------------------------------------------- */

/* One op upon the other, with other rows every time: the last times the device may make them again. */
void gdn_selftest_replay(gdn_selftest *t) {
    enum { TIMES = 4, ROW = 3, N = 100 };
    const gdn_pass key = {.kind = 1};
    begin(t, "replay");
    const gdn_pair x = gdn_selftest_out(t, GDN_F32, ROW, N, 0),
                   half = gdn_selftest_out(t, GDN_BF16, ROW, N, 0),
                   y = gdn_selftest_out(t, GDN_F32, ROW, N, 0);
    for (int i = 0; i < TIMES; i++) {
        const gdn_pair from = gdn_selftest_random(t, GDN_F32, -1, 1, ROW, N, 0, 0);
        ON_BOTH(t, gdn_op_cast, gdn_cast_args, .y = x.on[s], .x = from.on[s])
        for (int s = 0; s < SELFTEST_SIDES && t->st == GDN_OK; s++) {
            const gdn_cast_args down = {.y = half.on[s], .x = x.on[s]},
                                up = {.y = y.on[s], .x = half.on[s]};
            if (gdn_pass_begin(t->queue[s], &key)) continue;
            gdn_selftest_ran(t, gdn_op_cast(t->queue[s], &down, &t->why));
            gdn_selftest_ran(t, gdn_op_cast(t->queue[s], &up, &t->why));
            gdn_pass_end(t->queue[s], t->st == GDN_OK);
        }
        gdn_selftest_same(t, "y", &y, 0);
    }
}

void gdn_selftest_ops(gdn_selftest *t) {
    static const gdn_type weights[] = {GDN_BF16, GDN_F32, GDN_F8};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        for (int64_t n_row = 1; n_row <= 20; n_row += 19) {
            product(t, weights[i], GDN_F32, n_row);
            product(t, weights[i], GDN_BF16, n_row);
        }
    for (int64_t n_row = 1; n_row <= 25; n_row *= 5) {
        experts(t, GDN_F32, n_row);
        experts(t, GDN_BF16, n_row);
    }
    norm(t);
    norm_gated(t, GDN_F32);
    norm_gated(t, GDN_BF16);
    projection(t, false);
    projection(t, true);
    attention(t, GDN_F32);
    attention(t, GDN_BF16);
    core(t);
    operator(t, GDN_F32);
    operator(t, GDN_BF16);
    largest(t);
}
