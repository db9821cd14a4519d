/* test_gdn_stages.c - the two stages of gdn_attention(): one after the other they give its bits,
 * what lies between them is what the equations say, and wrong arguments change nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <gdn/op.h>

#include "../../src/base/half.h"

enum {
    NK = 2, NV = 4, R = NV / NK, DK = 24, DV = 40, C = 2 * NK * DK + NV * DV, Q = C + NV * DV,
    STATE = NV * DV * DK, SLOTS = 16, NULL_SLOT = 1, MAX_SEQ = 5, K = 3, PAST_T = 3
};

/* What a case is made of. */
typedef struct {
    gdn_type act, state;
    bool     reorder, ds, map, bias, initial;
    int32_t  taps;
    int32_t  n_seq, n_spec;
} shape;

/* All memory of a call; the parts that a call may write exist twice. */
typedef struct {
    shape    s;
    gdn_device *d;
    gdn_queue  *queue;
    int64_t  P, T[2]; /* rows; tokens of the speculative and the plain group              */
    void    *qkvz, *ba, *w, *bias, *dt;
    float   *A;
    void    *core[2], *z[2], *conv[2], *ssm[2];
    void    *q, *k, *v, *b, *a;
    int32_t  start[2][MAX_SEQ + 1], slot[2][MAX_SEQ * K], accepted[MAX_SEQ];
    int32_t *row[2];
    uint8_t  fresh[MAX_SEQ];
    gdn_buffer *wrapped[64];
    int      n_wrapped;
} world;

static uint64_t rng;
static float uniform(float lo, float hi) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (float)(rng >> 40) * 0x1p-24f;
}

static float get(const void *p, int64_t i, gdn_type t) {
    if (t == GDN_F32) return ((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];
    return t == GDN_BF16 ? gdn_bf16_to_f32(h) : gdn_f16_to_f32(h);
}

static void *numbers(int64_t n, gdn_type t, float lo, float hi) {
    void *p = malloc((size_t)(n > 0 ? n : 1) * 4);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++) {
        const float x = uniform(lo, hi);
        if (t == GDN_F32) ((float *)p)[i] = x;
        else ((uint16_t *)p)[i] = t == GDN_BF16 ? gdn_f32_to_bf16(x) : gdn_f32_to_f16(x);
    }
    return p;
}

/* Two copies of the same numbers. */
static void pair(void **p, int64_t n, gdn_type t, float lo, float hi) {
    p[0] = numbers(n, t, lo, hi);
    p[1] = malloc((size_t)n * 4);
    assert_non_null(p[1]);
    memcpy(p[1], p[0], (size_t)(n * gdn_type_bytes(t)));
}

static gdn_tensor tensor(world *c, void *p, gdn_type type, int32_t ndim, int64_t a, int64_t b,
                         int64_t d, int64_t e) {
    const int64_t dim[4] = {a, b, d, e};
    uint64_t bytes = (uint64_t)gdn_type_bytes(type);
    for (int32_t i = 0; i < ndim; i++) bytes *= (uint64_t)dim[i];
    gdn_buffer *buf;
    gdn_err err;
    assert_int_equal(gdn_buffer_wrap(c->d, p, bytes > 0 ? bytes : 1, &buf, &err), GDN_OK);
    assert_true(c->n_wrapped < 64);
    c->wrapped[c->n_wrapped++] = buf;
    return gdn_tensor_dense(buf, 0, type, ndim, dim);
}

/* What lies between the stages, for the larger group and some rows more. */
static void make_between(world *c) {
    const int64_t T = (c->T[0] > c->T[1] ? c->T[0] : c->T[1]) + PAST_T;
    const gdn_type t = c->s.act;
    c->q = numbers(T * NK * DK, t, 7, 7), c->k = numbers(T * NK * DK, t, 7, 7);
    c->v = numbers(T * NV * DV, t, 7, 7);
    c->b = numbers(T * NV, t, 7, 7), c->a = numbers(T * NV, t, 7, 7);
}

static void free_between(world *c) {
    free(c->q), free(c->k), free(c->v), free(c->b), free(c->a);
}

static int32_t lines(const shape *s) { return s->taps - 1 + K; } /* one more than it needs */

static world make(const char *device, const shape *s, uint64_t seed) {
    static const int32_t length[2][MAX_SEQ] = {{3, 1, 0, 2, 3}, {70, 1, 0, 2, 130}};
    world c = {.s = *s};
    gdn_err err;
    assert_int_equal(gdn_device_open(device, NULL, &c.d, &err), GDN_OK);
    assert_int_equal(gdn_queue_create(c.d, &c.queue, &err), GDN_OK);
    rng = seed;
    int32_t next = MAX_SEQ; /* the plain sequences have the slots before */
    const int32_t n[2] = {s->n_spec, s->n_seq};
    for (int g = 0; g < 2; g++) {
        for (int i = 0; i < n[g]; i++) c.start[g][i + 1] = c.start[g][i] + length[g][i];
        c.T[g] = c.start[g][n[g]];
        c.row[g] = calloc((size_t)c.T[g] + 1, sizeof(int32_t));
        assert_non_null(c.row[g]);
    }
    for (int i = 0; i < n[1]; i++) {
        c.slot[1][i] = i; /* the second is none */
        c.fresh[i] = i % 2 == 0;
    }
    for (int i = 0; i < n[0]; i++) {
        for (int k = 0; k < K; k++) c.slot[0][i * K + k] = i == 1 || i == 2 ? -1 : next++;
        c.accepted[i] = i == 4 ? 0 : i % K + 1;
        if (i == 3) c.slot[0][i * K + 1] = NULL_SLOT; /* a store that is left out */
    }
    c.accepted[0] = 3, c.accepted[3] = 1;
    assert_true(next <= SLOTS);
    c.P = c.T[0] + c.T[1] + 7;
    for (int64_t i = 0, both = c.T[0] + c.T[1]; i < both; i++) {
        const int g = i >= c.T[0];
        c.row[g][g ? i - c.T[0] : i] = (int32_t)(s->map ? i * 5 % (c.P - 2) : i);
    }
    c.qkvz = numbers(c.P * Q, s->act, -2, 2);
    c.ba = numbers(c.P * 2 * NV, s->act, -3, 3);
    c.w = numbers((int64_t)C * s->taps, s->act, -1, 1);
    c.bias = numbers(C, s->act, -1, 1);
    c.dt = numbers(NV, s->act, -2, 2);
    c.A = numbers(NV, GDN_F32, -3, 1);
    pair(c.core, c.P * NV * DV, s->act, 7, 7);
    pair(c.z, c.P * NV * DV, s->act, 7, 7);
    pair(c.conv, (int64_t)SLOTS * lines(s) * C, s->act, -2, 2);
    pair(c.ssm, (int64_t)SLOTS * STATE, s->state, -1, 1);
    make_between(&c);
    return c;
}

static void drop(world *c) {
    for (int i = 0; i < c->n_wrapped; i++) gdn_buffer_free(c->wrapped[i]);
    gdn_queue_free(c->queue);
    gdn_device_close(c->d);
    free(c->qkvz), free(c->ba), free(c->w), free(c->bias), free(c->dt), free(c->A);
    for (int i = 0; i < 2; i++)
        free(c->core[i]), free(c->z[i]), free(c->conv[i]), free(c->ssm[i]), free(c->row[i]);
    free_between(c);
}

static gdn_tensor conv_state(world *c, int copy) {
    return c->s.ds ? tensor(c, c->conv[copy], c->s.act, 3, SLOTS, C, lines(&c->s), 0)
                   : tensor(c, c->conv[copy], c->s.act, 3, SLOTS, lines(&c->s), C, 0);
}

static gdn_attention_args whole(world *c, int copy) {
    const shape *s = &c->s;
    gdn_attention_args a = {
        .core = tensor(c, c->core[copy], s->act, 3, c->P, NV, DV, 0),
        .z = tensor(c, c->z[copy], s->act, 3, c->P, NV, DV, 0),
        .qkvz = tensor(c, c->qkvz, s->act, 2, c->P, Q, 0, 0),
        .ba = tensor(c, c->ba, s->act, 2, c->P, 2 * NV, 0, 0),
        .conv_state = conv_state(c, copy),
        .ssm_state = tensor(c, c->ssm[copy], s->state, 4, SLOTS, NV, DV, DK),
        .conv_weights = tensor(c, c->w, s->act, 2, C, s->taps, 0, 0),
        .A_log = tensor(c, c->A, GDN_F32, 1, NV, 0, 0, 0),
        .dt_bias = tensor(c, c->dt, s->act, 1, NV, 0, 0, 0),
        .n_k_head = 2 * NK, .n_v_head = 2 * NV, .dk = DK, .dv = DV, .tp_size = 2,
        .num_actual_tokens = c->P - 1, .null_slot = NULL_SLOT,
        .reorder_input = s->reorder,
        .conv_layout = s->ds ? GDN_CONV_STATE_DS : GDN_CONV_STATE_SD,
    };
    if (s->bias) a.conv_bias = tensor(c, c->bias, s->act, 1, C, 0, 0, 0);
    if (s->n_seq > 0) {
        a.non_spec_query_start_loc = tensor(c, c->start[1], GDN_I32, 1, s->n_seq + 1, 0, 0, 0);
        a.non_spec_state_indices = tensor(c, c->slot[1], GDN_I32, 1, s->n_seq, 0, 0, 0);
        if (s->map || s->n_spec > 0)
            a.non_spec_token_indx = tensor(c, c->row[1], GDN_I32, 1, c->T[1], 0, 0, 0);
        if (s->initial) a.has_initial_state = tensor(c, c->fresh, GDN_U8, 1, s->n_seq, 0, 0, 0);
    }
    if (s->n_spec > 0) {
        a.spec_query_start_loc = tensor(c, c->start[0], GDN_I32, 1, s->n_spec + 1, 0, 0, 0);
        a.spec_state_indices = tensor(c, c->slot[0], GDN_I32, 2, s->n_spec, K, 0, 0);
        a.num_accepted_tokens = tensor(c, c->accepted, GDN_I32, 1, s->n_spec, 0, 0, 0);
        if (s->map) a.spec_token_indx = tensor(c, c->row[0], GDN_I32, 1, c->T[0], 0, 0, 0);
    }
    return a;
}

/* Both stages of one group, in the words of the whole operator. */
static void stage_args(world *c, const gdn_attention_args *a, int g, gdn_causal_conv1d_args *one,
                       gdn_delta_rule_args *two) {
    const gdn_type act = c->s.act;
    const int64_t T = c->T[g] + PAST_T;
    *one = (gdn_causal_conv1d_args){
        .q = tensor(c, c->q, act, 3, T, NK, DK, 0), .k = tensor(c, c->k, act, 3, T, NK, DK, 0),
        .v = tensor(c, c->v, act, 3, T, NV, DV, 0), .b = tensor(c, c->b, act, 2, T, NV, 0, 0),
        .a = tensor(c, c->a, act, 2, T, NV, 0, 0),
        .z = a->z, .qkvz = a->qkvz, .ba = a->ba, .conv_state = a->conv_state,
        .conv_weights = a->conv_weights, .conv_bias = a->conv_bias,
        .has_initial_state = g == 1 ? a->has_initial_state : (gdn_tensor){0},
        .query_start_loc = g == 1 ? a->non_spec_query_start_loc : a->spec_query_start_loc,
        .token_indx = g == 1 ? a->non_spec_token_indx : a->spec_token_indx,
        .state_indices = g == 1 ? a->non_spec_state_indices : a->spec_state_indices,
        .num_accepted_tokens = g == 1 ? (gdn_tensor){0} : a->num_accepted_tokens,
        .n_k_head = a->n_k_head, .n_v_head = a->n_v_head, .dk = DK, .dv = DV,
        .tp_size = a->tp_size, .num_actual_tokens = a->num_actual_tokens,
        .null_slot = a->null_slot, .reorder_input = a->reorder_input,
        .conv_layout = a->conv_layout,
    };
    *two = (gdn_delta_rule_args){
        .core = a->core, .q = one->q, .k = one->k, .v = one->v, .b = one->b, .a = one->a,
        .A_log = a->A_log, .dt_bias = a->dt_bias, .ssm_state = a->ssm_state,
        .has_initial_state = one->has_initial_state, .query_start_loc = one->query_start_loc,
        .token_indx = one->token_indx, .state_indices = one->state_indices,
        .num_accepted_tokens = one->num_accepted_tokens,
        .num_actual_tokens = a->num_actual_tokens, .null_slot = a->null_slot, .form = a->form,
    };
}

static void must(gdn_status st, const gdn_err *err) {
    if (st != GDN_OK) fail_msg("%s", err->text);
}

/* Rows of the stages' tensors that belong to a token's sequence without a slot are zeros, rows
 * behind the tokens keep what they had. */
static void check_between(const world *c, int g) {
    const struct {
        const void *p;
        int64_t n;
    } t[] = {{c->q, NK * DK}, {c->k, NK * DK}, {c->v, NV * DV}, {c->b, NV}, {c->a, NV}};
    for (int i = 0; i < 5; i++) {
        for (int64_t e = c->T[g] * t[i].n; e < (c->T[g] + PAST_T) * t[i].n; e++)
            if (get(t[i].p, e, c->s.act) != 7.0f) fail_msg("tensor %d: written past T", i);
        for (int64_t e = c->start[g][1] * t[i].n; e < c->start[g][2] * t[i].n; e++)
            if (get(t[i].p, e, c->s.act) != 0.0f) fail_msg("tensor %d: none is not zero", i);
    }
}

static void same(const world *c, const char *what, int64_t n, gdn_type t, void *const *p) {
    const int bytes = gdn_type_bytes(t);
    for (int64_t i = 0; i < n; i++)
        if (memcmp((char *)p[0] + i * bytes, (char *)p[1] + i * bytes, (size_t)bytes) != 0)
            fail_msg("%s/%s %s%s%s%s taps %d: %s[%lld] is %g, and %g in stages",
                     gdn_type_name(c->s.act), gdn_type_name(c->s.state), c->s.reorder ? "" : "groups ",
                     c->s.ds ? "DS " : "", c->s.map ? "map " : "", c->s.bias ? "bias" : "", c->s.taps,
                     what, (long long)i, (double)get(p[0], i, t), (double)get(p[1], i, t));
}

static void compare(const shape *s, const char *device, gdn_delta_form form) {
    world c = make(device, s, 11);
    gdn_err err;
    gdn_attention_args a = whole(&c, 0), b = whole(&c, 1);
    a.form = b.form = form;
    must(gdn_attention(c.queue, &a, &err), &err);
    for (int g = 0; g < 2; g++) {
        if (c.T[g] == 0) continue;
        gdn_causal_conv1d_args one;
        gdn_delta_rule_args two;
        stage_args(&c, &b, g, &one, &two);
        must(gdn_causal_conv1d(c.queue, &one, &err), &err);
        check_between(&c, g);
        must(gdn_delta_rule(c.queue, &two, &err), &err);
        must(gdn_queue_wait(c.queue, &err), &err);
        free_between(&c);
        make_between(&c);
    }
    same(&c, "core", c.P * NV * DV, s->act, c.core);
    same(&c, "z", c.P * NV * DV, s->act, c.z);
    same(&c, "conv_state", (int64_t)SLOTS * lines(s) * C, s->act, c.conv);
    same(&c, "ssm_state", (int64_t)SLOTS * STATE, s->state, c.ssm);
    drop(&c);
}

static void test_types_and_layouts(void **state) {
    (void)state;
    static const gdn_type type[3] = {GDN_F32, GDN_BF16, GDN_F16};
    for (int i = 0; i < 9; i++)
        for (int l = 0; l < 8; l++)
            compare(&(shape){.act = type[i / 3], .state = type[i % 3], .reorder = l & 1,
                             .ds = l & 2, .map = l & 4, .bias = i % 2, .initial = l % 3 != 0,
                             .taps = 4, .n_seq = MAX_SEQ, .n_spec = l & 4 || l == 1 ? MAX_SEQ : 0},
                    "cpu:2", i % 2 == 0 ? GDN_FORM_RECURRENT : GDN_FORM_CHUNKED);
}

static void test_groups(void **state) {
    (void)state;
    for (int32_t taps = 2; taps <= 8; taps += 3) {
        compare(&(shape){.act = GDN_BF16, .taps = taps, .n_spec = MAX_SEQ}, "cpu:3", GDN_FORM_RECURRENT);
        compare(&(shape){.act = GDN_F16, .taps = taps, .n_seq = 4, .initial = true, .ds = true},
                "cpu:8", GDN_FORM_RECURRENT);
        compare(&(shape){.taps = taps, .n_seq = 1, .n_spec = 2, .reorder = true}, "cpu:1",
                GDN_FORM_RECURRENT);
    }
}

/* --- chunks ---------------------------------------------------------------------------------- */

static double rel_l2(const void *got, const void *ref, int64_t n, gdn_type t) {
    double d = 0, r = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)get(got, i, t), y = (double)get(ref, i, t);
        d += (x - y) * (x - y);
        r += y * y;
    }
    return sqrt(d / r);
}

/* Both forms agree within what op.h says of them, and chunks do change the numbers. */
static void test_chunks(void **state) {
    (void)state;
    static const double core[3] = {1e-4, 7e-3, 9e-4}, states[3] = {1e-4, 2e-3, 3e-4};
    for (gdn_type act = GDN_F32; act <= GDN_F16; act++) {
        const shape s = {.act = act, .taps = 4, .n_seq = MAX_SEQ, .map = true};
        world c = make("cpu:2", &s, 15);
        gdn_err err;
        gdn_attention_args a = whole(&c, 0), b = whole(&c, 1);
        b.form = GDN_FORM_CHUNKED;
        must(gdn_attention(c.queue, &a, &err), &err);
        must(gdn_attention(c.queue, &b, &err), &err);
        const double x = rel_l2(c.core[1], c.core[0], c.P * NV * DV, act);
        const double y = rel_l2(c.ssm[1], c.ssm[0], (int64_t)SLOTS * STATE, GDN_F32);
        if (!(x <= core[act] && y <= states[act] && y > 0))
            fail_msg("%s: core %g, states %g", gdn_type_name(act), x, y);
        assert_memory_equal(c.z[0], c.z[1], (size_t)(c.P * NV * DV * gdn_type_bytes(act)));
        drop(&c);
    }
}

/* With chunks as well a sequence's results do not depend on what else is in the call. */
static void test_chunks_alone(void **state) {
    (void)state;
    const shape s = {.act = GDN_BF16, .taps = 4, .n_seq = MAX_SEQ, .map = true};
    world c = make("cpu:2", &s, 16), one = make("cpu:8", &s, 16);
    gdn_err err;
    gdn_attention_args a = whole(&c, 0), b = whole(&one, 0);
    a.form = b.form = GDN_FORM_CHUNKED;
    must(gdn_attention(c.queue, &a, &err), &err);
    for (int i = 0; i < 4; i++) one.start[1][i + 1] = 0;
    one.start[1][5] = c.start[1][5] - c.start[1][4];
    memmove(one.row[1], one.row[1] + c.start[1][4], (size_t)one.start[1][5] * sizeof(int32_t));
    must(gdn_attention(one.queue, &b, &err), &err);
    for (int32_t i = 0; i < one.start[1][5]; i++) {
        const size_t bytes = NV * DV * 2, at = (size_t)one.row[1][i] * bytes;
        assert_memory_equal((char *)c.core[0] + at, (char *)one.core[0] + at, bytes);
    }
    assert_memory_equal((float *)c.ssm[0] + 4 * STATE, (float *)one.ssm[0] + 4 * STATE, STATE * 4);
    drop(&c), drop(&one);
}

/* --- the first stage against its equation -------------------------------------------------- */

static double at_input(const world *c, const void *line, int64_t s, int64_t i, int64_t ch) {
    if (i < 0)
        return c->fresh[s] != 0 ? (double)get(line, (c->s.taps - 1 + i) * C + ch, GDN_F32) : 0;
    const int64_t row = c->row[1][c->start[1][s] + i];
    int64_t at = ch;
    if (!c->s.reorder) { /* q, k and v of a group lie together */
        const int64_t width = 2 * DK + 2 * R * DV;
        if (ch < NK * DK) at = ch / DK * width + ch % DK;
        else if (ch < 2 * NK * DK) at = (ch - NK * DK) / DK * width + DK + ch % DK;
        else at = (ch - 2 * NK * DK) / (R * DV) * width + 2 * DK + (ch - 2 * NK * DK) % (R * DV);
    }
    return (double)get(c->qkvz, row * Q + at, GDN_F32);
}

static void check_convolved(const world *c, const float *before, int64_t s) {
    const float *line = before + (int64_t)c->slot[1][s] * lines(&c->s) * C;
    for (int64_t i = 0; i < c->start[1][s + 1] - c->start[1][s]; i++) {
        const int64_t token = c->start[1][s] + i;
        for (int64_t ch = 0; ch < C; ch++) {
            double y = (double)get(c->bias, ch, GDN_F32);
            for (int w = 0; w < c->s.taps; w++)
                y += (double)get(c->w, ch * c->s.taps + w, GDN_F32) *
                     at_input(c, line, s, i - c->s.taps + 1 + w, ch);
            y /= 1 + exp(-y);
            const float got = ch < NK * DK ? get(c->q, token * NK * DK + ch, GDN_F32)
                              : ch < 2 * NK * DK
                                  ? get(c->k, token * NK * DK + ch - NK * DK, GDN_F32)
                                  : get(c->v, token * NV * DV + ch - 2 * NK * DK, GDN_F32);
            if (!(fabs((double)got - y) < 1e-5))
                fail_msg("sequence %d token %d channel %d: %g, need %g", (int)s, (int)i, (int)ch,
                         (double)got, y);
        }
        for (int64_t h = 0; h < NV; h++) {
            const int64_t row = c->row[1][token] * 2 * NV;
            const int64_t b = c->s.reorder ? h : h / R * 2 * R + h % R;
            const int64_t a = c->s.reorder ? NV + h : b + R;
            assert_true(get(c->b, token * NV + h, GDN_F32) == get(c->ba, row + b, GDN_F32));
            assert_true(get(c->a, token * NV + h, GDN_F32) == get(c->ba, row + a, GDN_F32));
        }
    }
}

static void test_equation(void **state) {
    (void)state;
    for (int reorder = 0; reorder < 2; reorder++) {
        const shape s = {.reorder = reorder, .map = true, .bias = true, .initial = true, .taps = 4,
                         .n_seq = MAX_SEQ};
        world c = make("cpu:2", &s, 12);
        gdn_err err;
        gdn_attention_args a = whole(&c, 0);
        gdn_causal_conv1d_args one;
        gdn_delta_rule_args two;
        stage_args(&c, &a, 1, &one, &two);
        must(gdn_causal_conv1d(c.queue, &one, &err), &err);
        for (int64_t i = 0; i < MAX_SEQ; i++)
            if (c.slot[1][i] != NULL_SLOT) check_convolved(&c, c.conv[1], i);
        drop(&c);
    }
}

/* --- views and refusals ---------------------------------------------------------------------- */

/* q, k and v side by side in the rows of one matrix are three tensors that do not overlap. */
static void test_packed(void **state) {
    (void)state;
    const shape s = {.act = GDN_BF16, .taps = 4, .n_seq = MAX_SEQ, .reorder = true};
    world c = make("cpu:2", &s, 13);
    gdn_err err;
    gdn_attention_args a = whole(&c, 0), b = whole(&c, 1);
    must(gdn_attention(c.queue, &a, &err), &err);
    gdn_causal_conv1d_args one;
    gdn_delta_rule_args two;
    stage_args(&c, &b, 1, &one, &two);
    const int64_t T = c.T[1] + PAST_T;
    void *rows = numbers(T * C, GDN_BF16, 7, 7);
    const gdn_tensor all = tensor(&c, rows, GDN_BF16, 2, T, C, 0, 0);
    gdn_tensor *const out[] = {&one.q, &one.k, &one.v};
    for (int i = 0; i < 3; i++) {
        out[i]->buf = all.buf;
        out[i]->at = (uint64_t)(i * NK * DK * 2);
        out[i]->stride[0] = C * 2;
    }
    two.q = one.q, two.k = one.k, two.v = one.v;
    must(gdn_causal_conv1d(c.queue, &one, &err), &err);
    must(gdn_delta_rule(c.queue, &two, &err), &err);
    same(&c, "core", c.P * NV * DV, s.act, c.core);
    one.k.at -= 2;
    assert_int_equal(gdn_causal_conv1d(c.queue, &one, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "q overlaps k"));
    drop(&c);
    free(rows);
}

static void test_refusals(void **state) {
    (void)state;
    const shape s = {.map = true, .initial = true, .taps = 4, .n_seq = 4, .n_spec = 2};
    world c = make("cpu:2", &s, 14);
    gdn_err err;
    gdn_attention_args a = whole(&c, 1);
    gdn_causal_conv1d_args one[2];
    gdn_delta_rule_args two[2];
    for (int g = 0; g < 2; g++) stage_args(&c, &a, g, one + g, two + g);
#define REFUSED(call, args, change, restore, word)                                        \
    do {                                                                                  \
        change;                                                                           \
        assert_int_equal(call(c.queue, &args, &err), GDN_E_INVALID);                      \
        if (strncmp(err.text, #call ": ", strlen(#call) + 2) != 0 || strstr(err.text, word) == NULL) \
            fail_msg("'%s' does not say '%s'", err.text, word);                           \
        restore;                                                                          \
    } while (0)
#define CHANGED(call, good, field, value, word)                                           \
    do {                                                                                  \
        __typeof__(good) x = good;                                                        \
        REFUSED(call, x, x.field = value, (void)0, word);                                 \
    } while (0)
    CHANGED(gdn_causal_conv1d, one[1], q.shape[0], 10, "q has 10 rows for 73 tokens");
    CHANGED(gdn_causal_conv1d, one[1], q.shape[1], 1, "q has shape");
    CHANGED(gdn_causal_conv1d, one[1], v.type, GDN_BF16, "v has type bf16");
    CHANGED(gdn_causal_conv1d, one[1], b.stride[0], 4, "rows of b lie on each other");
    CHANGED(gdn_causal_conv1d, one[1], a.buf, NULL, "a is missing");
    CHANGED(gdn_causal_conv1d, one[1], k, one[1].q, "q overlaps k");
    CHANGED(gdn_causal_conv1d, one[1], ba.buf, one[1].conv_state.buf, "conv_state overlaps ba");
    CHANGED(gdn_causal_conv1d, one[1], state_indices.buf, one[1].q.buf, "q overlaps state_indices");
    CHANGED(gdn_causal_conv1d, one[0], num_accepted_tokens.buf, one[0].z.buf,
            "z overlaps num_accepted_tokens");
    CHANGED(gdn_causal_conv1d, one[1], num_actual_tokens, 5, "token_indx[0] is 20 of 5 rows");
    CHANGED(gdn_causal_conv1d, one[1], tp_size, 3, "over 3 shards");
    CHANGED(gdn_causal_conv1d, one[1], conv_layout, (gdn_conv_state_layout)2, "conv_layout is 2");
    CHANGED(gdn_causal_conv1d, one[0], conv_state.shape[1], 4, "4 rows a slot, need 5");
    CHANGED(gdn_causal_conv1d, one[0], has_initial_state, one[1].has_initial_state,
            "has_initial_state is given");
    CHANGED(gdn_causal_conv1d, one[0], state_indices, one[1].state_indices, "state_indices");
    CHANGED(gdn_delta_rule, two[1], form, (gdn_delta_form)2, "form is 2");
    CHANGED(gdn_delta_rule, two[1], v.shape[0], 72, "v has 72 rows for 73 tokens");
    CHANGED(gdn_delta_rule, two[1], v, two[1].core, "core overlaps v");
    CHANGED(gdn_delta_rule, two[1], b.buf, two[1].ssm_state.buf, "ssm_state overlaps b");
    CHANGED(gdn_delta_rule, two[1], token_indx.buf, two[1].core.buf, "core overlaps token_indx");
    CHANGED(gdn_delta_rule, two[1], ssm_state.stride[0], 4, "slots of ssm_state lie on each other");
    CHANGED(gdn_delta_rule, two[1], ssm_state.shape[3], 16, "ssm_state has shape");
    CHANGED(gdn_delta_rule, two[1], A_log.type, GDN_BF16, "A_log has type bf16");
    CHANGED(gdn_delta_rule, two[1], query_start_loc.buf, NULL, "query_start_loc is missing");
    REFUSED(gdn_causal_conv1d, one[1], c.slot[1][0] = 3 * SLOTS, c.slot[1][0] = 0,
            "state_indices[0] is 48 of 16 slots");
    REFUSED(gdn_delta_rule, two[1], c.slot[1][0] = 3, c.slot[1][0] = 0,
            "slot 3 belongs to two sequences");
    REFUSED(gdn_delta_rule, two[1], c.slot[1][0] = SLOTS, c.slot[1][0] = 0, "of 16 slots");
    REFUSED(gdn_causal_conv1d, one[0], c.accepted[0] = K + 1, c.accepted[0] = 3,
            "num_accepted_tokens[0] is 4, need 0 to 3");
    REFUSED(gdn_delta_rule, two[0], c.slot[0][1] = c.slot[0][0], c.slot[0][1] = c.slot[0][0] + 1,
            "belongs to two sequences");
    REFUSED(gdn_delta_rule, two[0], (c.accepted[0] = 2, c.slot[0][1] = -1),
            (c.accepted[0] = 3, c.slot[0][1] = c.slot[0][0] + 1), "that state is to be read");
    REFUSED(gdn_causal_conv1d, one[1], c.row[1][3] = c.row[1][4], c.row[1][3] = -1,
            "belongs to two tokens");
    REFUSED(gdn_delta_rule, two[1], (void)0, (void)0, "token_indx[3] is -1");
    for (int64_t i = 0; i < c.P * NV * DV; i++) {
        assert_true(((float *)c.core[1])[i] == 7);
        assert_true(((float *)c.z[1])[i] == 7);
    }
    same(&c, "conv_state", (int64_t)SLOTS * lines(&s) * C, GDN_F32, c.conv);
    same(&c, "ssm_state", (int64_t)SLOTS * STATE, GDN_F32, c.ssm);
    drop(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_and_layouts), cmocka_unit_test(test_groups),
        cmocka_unit_test(test_chunks),            cmocka_unit_test(test_chunks_alone),
        cmocka_unit_test(test_equation),          cmocka_unit_test(test_packed),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
