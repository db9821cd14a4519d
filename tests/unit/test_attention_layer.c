/* test_attention_layer.c - the whole layer against loops in double, in every form of its arguments:
 * fused and split projections, both layouts, shards, drafts, types of state; and refused without a
 * trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

#include "../../src/base/half.h"

/* Sizes of the whole model; every third row or so is covered by no sequence or is padding. */
enum { NK = 4, NV = 8, R = NV / NK, DK = 8, DV = 12, W = 4, D = 20, DOUT = 28, P = 17, T = 14 };
enum { K = 3, L = W - 1 + K - 1, SLOTS = 9, NQ = NK * DK, NZ = NV * DV, C = 2 * NQ + NZ };
enum { N_SEQ = 4, N_SPEC = 2 };

/* Rows of the sequences: 5 + 1 + 2 + 0 plain tokens, 3 + 1 drafted; 12 of 14 rows are covered. */
static const int32_t start[] = {0, 5, 6, 8, 8}, spec_start[] = {0, 3, 4};
static const int32_t indx[] = {3, 4, 5, 6, 7, 0, 13, 2}, spec_indx[] = {9, 1, 8, 12};
static const int32_t slot[] = {2, 4, -1, 5}, spec_slot[] = {1, 7, 3, 6, 8, -1};
static const int32_t accepted[] = {2, 0};
static const uint8_t initial[] = {1, 0, 1, 0};

/* What the test knows of the problem, by head and for the whole model. */
typedef struct {
    double x[P][D], q[NQ][D], k[NQ][D], v[NZ][D], z[NZ][D], b[NV][D], a[NV][D];
    double taps[C][W], bias[C], A_log[NV], dt[NV], norm[DV], out[DOUT][NZ];
    double conv[SLOTS][L][C], ssm[SLOTS][NV][DV][DK];
    double y[P][DOUT];
} model;

typedef struct {
    gdn_type act, state, weight;
    bool reorder, split, drafts, ds, sigmoid;
    int  tp;
    const char *device;
} form;

static uint64_t rng;

static double uniform(double lo, double hi) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(rng >> 40) * 0x1p-24;
}

static void set(void *p, gdn_type t, int64_t i, double v) {
    if (t == GDN_F32) ((float *)p)[i] = (float)v;
    else ((uint16_t *)p)[i] = t == GDN_BF16 ? gdn_f32_to_bf16((float)v) : gdn_f32_to_f16((float)v);
}

static double get(const void *p, gdn_type t, int64_t i) {
    const uint16_t *h = p;
    return (double)(t == GDN_F32 ? ((const float *)p)[i]
                    : t == GDN_BF16 ? gdn_bf16_to_f32(h[i]) : gdn_f16_to_f32(h[i]));
}

static double rounded(double v, gdn_type t) {
    uint32_t bits;
    set(&bits, t, 0, v);
    return get(&bits, t, 0);
}

/* Numbers that the types of the form hold exactly. */
static void fill(double *p, size_t n, double lo, double hi, gdn_type t) {
    for (size_t i = 0; i < n; i++) p[i] = rounded(uniform(lo, hi), t);
}
#define FILL(field, lo, hi, type) fill((double *)(m->field), sizeof m->field / sizeof(double), lo, hi, type)

static model *new_model(const form *f) {
    model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    rng = 11;
    FILL(x, -1, 1, f->weight);
    FILL(q, -1, 1, f->weight), FILL(k, -1, 1, f->weight), FILL(v, -1, 1, f->weight);
    FILL(z, -1, 1, f->weight), FILL(b, -1, 1, f->weight), FILL(a, -1, 1, f->weight);
    FILL(taps, -0.7, 0.7, f->act), FILL(bias, -0.3, 0.3, f->act), FILL(A_log, -2, 0.5, GDN_F32);
    FILL(dt, -1, 1, f->act), FILL(norm, 0.5, 1.5, GDN_F32), FILL(out, -1, 1, f->weight);
    FILL(conv, -1, 1, f->act), FILL(ssm, -0.5, 0.5, f->state);
    return m;
}

/* --- the layer in loops ------------------------------------------------------------------ */

static double product(const double *w, const double *x, gdn_type act) {
    double s = 0;
    for (int i = 0; i < D; i++) s += w[i] * x[i];
    return rounded(s, act);
}

static double silu(double v) { return v / (1 + exp(-v)); }

/* One token of a sequence: its convolved channels, then its part of the state and of y. */
static void ref_token(model *m, const form *f, int row, double in[][C], double (*S)[DV][DK]) {
    double u[C];
    for (int c = 0; c < C; c++) {
        double s = m->bias[c];
        for (int j = 0; j < W; j++) s += m->taps[c][j] * in[j][c];
        u[c] = rounded(silu(s), f->act);
    }
    for (int h = 0; h < NV; h++) {
        const double *q = u + h / R * DK, *k = u + NQ + h / R * DK, *v = u + 2 * NQ + h * DV;
        double qq = 0, kk = 0, o[DV], sum = 0;
        for (int i = 0; i < DK; i++) qq += q[i] * q[i], kk += k[i] * k[i];
        qq = 1 / sqrt(qq + 1e-6) / sqrt(DK), kk = 1 / sqrt(kk + 1e-6);
        const double a = product(m->a[h], m->x[row], f->act) + m->dt[h];
        const double beta = 1 / (1 + exp(-product(m->b[h], m->x[row], f->act)));
        const double alpha = exp(-exp(m->A_log[h]) * log1p(exp(a)));
        for (int i = 0; i < DV; i++) {
            double Sk = 0;
            o[i] = 0;
            for (int n = 0; n < DK; n++) {
                S[h][i][n] *= alpha;
                Sk += S[h][i][n] * k[n] * kk;
            }
            for (int n = 0; n < DK; n++) {
                S[h][i][n] += (v[i] - Sk) * beta * k[n] * kk;
                o[i] += S[h][i][n] * q[n] * qq;
            }
            o[i] = rounded(o[i], f->act);
            sum += o[i] * o[i];
        }
        for (int i = 0; i < DV; i++) {
            const double z = product(m->z[h * DV + i], m->x[row], f->act);
            const double n = o[i] / sqrt(sum / DV + 1e-6) * m->norm[i] *
                             (f->sigmoid ? 1 / (1 + exp(-z)) : silu(z));
            for (int d = 0; d < DOUT; d++) m->y[row][d] += n * m->out[d][h * DV + i];
        }
    }
}

static void keep_state(model *m, const form *f, int32_t to, double (*S)[DV][DK]) {
    for (int h = 0; h < NV; h++)
        for (int i = 0; i < DV; i++)
            for (int n = 0; n < DK; n++) m->ssm[to][h][i][n] = rounded(S[h][i][n], f->state);
}

/* n tokens; columns NULL: a plain sequence on slot `at`. */
static void ref_sequence(model *m, const form *f, const int32_t *rows, int n, int32_t at, bool fresh,
                         const int32_t *columns, int32_t accept) {
    if (n == 0 || (columns != NULL ? columns[0] : at) < 0) return;
    const int begin = columns != NULL && accept > 0 ? accept - 1 : 0;
    const int32_t line = columns != NULL ? columns[0] : at;
    double in[W - 1 + T][C] = {{0}}, S[NV][DV][DK] = {{{0}}};
    for (int w = 0; w < W - 1 && !fresh; w++) memcpy(in[w], m->conv[line][begin + w], sizeof in[w]);
    if (!fresh) memcpy(S, m->ssm[columns != NULL ? columns[begin] : at], sizeof S);
    for (int t = 0; t < n; t++)
        for (int c = 0; c < C; c++) {
            const double *w = c < NQ ? m->q[c] : c < 2 * NQ ? m->k[c - NQ] : m->v[c - 2 * NQ];
            in[W - 1 + t][c] = product(w, m->x[rows[t]], f->act);
        }
    for (int t = 0; t < n; t++) {
        ref_token(m, f, rows[t], in + t, S);
        if (columns != NULL && columns[t] >= 0) keep_state(m, f, columns[t], S);
    }
    if (columns == NULL) {
        memcpy(m->conv[line], in[n], (W - 1) * sizeof in[0]);
        keep_state(m, f, at, S);
    } else
        memcpy(m->conv[line], in[1], (size_t)(W - 2 + n) * sizeof in[0]);
}

static void ref_layer(model *m, const form *f) {
    for (int s = 0; s < N_SPEC && f->drafts; s++)
        ref_sequence(m, f, spec_indx + spec_start[s], spec_start[s + 1] - spec_start[s], 0, false,
                     spec_slot + s * K, accepted[s]);
    for (int s = 0; s < N_SEQ; s++)
        ref_sequence(m, f, indx + start[s], start[s + 1] - start[s], slot[s], initial[s] == 0, NULL, 0);
}

/* --- the same as one shard of a call ---------------------------------------------------------- */

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
    gdn_weight *weight[7];
    gdn_buffer *buf[24];
    void       *mem[24];
    int         n;
    gdn_attention_layer_args a;
    float   *y;
    void    *conv, *ssm;
    uint64_t conv_bytes, ssm_bytes;
} call;

static gdn_tensor own(call *c, gdn_type type, int32_t ndim, const int64_t *shape) {
    uint64_t bytes = (uint64_t)gdn_type_bytes(type);
    gdn_err err;
    for (int32_t i = 0; i < ndim; i++) bytes *= (uint64_t)shape[i];
    c->mem[c->n] = calloc(1, bytes);
    assert_non_null(c->mem[c->n]);
    assert_int_equal(gdn_buffer_wrap(c->d, c->mem[c->n], bytes, &c->buf[c->n], &err), GDN_OK);
    return gdn_tensor_dense(c->buf[c->n++], 0, type, ndim, shape);
}

static gdn_tensor ints(call *c, const int32_t *v, int64_t n, int64_t m) {
    const int64_t shape[2] = {n, m};
    const gdn_tensor t = own(c, GDN_I32, m > 0 ? 2 : 1, shape);
    memcpy(gdn_buffer_host(t.buf), v, (size_t)(n * (m > 0 ? m : 1)) * sizeof *v);
    return t;
}

static gdn_tensor numbers(call *c, const double *v, int64_t n, int64_t m, gdn_type type) {
    const int64_t shape[2] = {n, m};
    const gdn_tensor t = own(c, type, m > 0 ? 2 : 1, shape);
    for (int64_t i = 0; i < n * (m > 0 ? m : 1); i++) set(gdn_buffer_host(t.buf), type, i, v[i]);
    return t;
}

/* A weight of rows that are given one by one. */
static gdn_weight *weight(call *c, const double *const *row, int32_t n, int32_t k, gdn_type type) {
    void *p = malloc((size_t)n * (size_t)k * (size_t)gdn_type_bytes(type));
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) set(p, type, i * k + j, row[i][j]);
    const gdn_weight_part part = {.data = p, .n_row = n, .row_bytes = (int64_t)k * gdn_type_bytes(type)};
    const gdn_weight_desc desc = {.type = type, .n_expert = 1, .n = n, .k = k, .part = &part, .n_part = 1};
    gdn_weight *w;
    gdn_err err;
    if (gdn_weight_create(c->d, &desc, &w, &err) != GDN_OK) fail_msg("%s", err.text);
    free(p);
    return w;
}

/* Channel i of a shard, counted in the whole model. */
static int channel(int i, int tp, int shard) {
    const int q = NQ / tp, z = NZ / tp;
    return i < q ? shard * q + i : i < 2 * q ? NQ + shard * q + i - q : 2 * NQ + shard * z + i - 2 * q;
}

static void add_projections(call *c, const model *m, const form *f, int shard) {
    const int q = NQ / f->tp, z = NZ / f->tp, nk = NK / f->tp, nv = NV / f->tp;
    const double *rows[C + NZ], *gates[2 * NV];
    int n = 0, g = 0;
    if (f->reorder) {
        for (int i = 0; i < q; i++) rows[n++] = m->q[shard * q + i];
        for (int i = 0; i < q; i++) rows[n++] = m->k[shard * q + i];
        for (int i = 0; i < z; i++) rows[n++] = m->v[shard * z + i];
        for (int i = 0; i < z; i++) rows[n++] = m->z[shard * z + i];
        for (int i = 0; i < nv; i++) gates[g++] = m->b[shard * nv + i];
        for (int i = 0; i < nv; i++) gates[g++] = m->a[shard * nv + i];
    } else
        for (int h = shard * nk; h < (shard + 1) * nk; h++) {
            for (int i = 0; i < DK; i++) rows[n++] = m->q[h * DK + i];
            for (int i = 0; i < DK; i++) rows[n++] = m->k[h * DK + i];
            for (int i = 0; i < R * DV; i++) rows[n++] = m->v[h * R * DV + i];
            for (int i = 0; i < R * DV; i++) rows[n++] = m->z[h * R * DV + i];
            for (int i = 0; i < R; i++) gates[g++] = m->b[h * R + i];
            for (int i = 0; i < R; i++) gates[g++] = m->a[h * R + i];
        }
    if (f->split) {
        c->a.in_proj_qkv = c->weight[0] = weight(c, rows, n - z, D, f->weight);
        c->a.in_proj_z = c->weight[1] = weight(c, rows + n - z, z, D, f->weight);
        c->a.in_proj_b = c->weight[2] = weight(c, gates, nv, D, f->weight);
        c->a.in_proj_a = c->weight[3] = weight(c, gates + nv, nv, D, f->weight);
    } else {
        c->a.in_proj_qkvz = c->weight[0] = weight(c, rows, n, D, f->weight);
        c->a.in_proj_ba = c->weight[1] = weight(c, gates, g, D, f->weight);
    }
    double *out = malloc(DOUT * NZ * sizeof *out);
    const double *out_rows[DOUT];
    assert_non_null(out);
    for (int i = 0; i < DOUT; i++) {
        memcpy(out + i * z, m->out[i] + shard * z, (size_t)z * sizeof *out);
        out_rows[i] = out + i * z;
    }
    c->a.out_proj = c->weight[6] = weight(c, out_rows, DOUT, z, f->weight);
    free(out);
}

static void add_states(call *c, const model *m, const form *f, int shard) {
    const int ch = C / f->tp, nv = NV / f->tp;
    const int64_t sd[] = {SLOTS, L, ch}, ds[] = {SLOTS, ch, L}, ssm[] = {SLOTS, nv, DV, DK};
    c->a.core.conv_state = own(c, f->act, 3, f->ds ? ds : sd);
    c->a.core.ssm_state = own(c, f->state, 4, ssm);
    c->conv = gdn_buffer_host(c->a.core.conv_state.buf);
    c->ssm = gdn_buffer_host(c->a.core.ssm_state.buf);
    c->conv_bytes = gdn_buffer_bytes(c->a.core.conv_state.buf);
    c->ssm_bytes = gdn_buffer_bytes(c->a.core.ssm_state.buf);
    for (int s = 0; s < SLOTS; s++)
        for (int i = 0; i < ch; i++)
            for (int w = 0; w < L; w++)
                set(c->conv, f->act, f->ds ? (s * ch + i) * L + w : (s * L + w) * ch + i,
                    m->conv[s][w][channel(i, f->tp, shard)]);
    for (int s = 0; s < SLOTS; s++)
        for (int i = 0; i < nv * DV * DK; i++)
            set(c->ssm, f->state, s * nv * DV * DK + i, (&m->ssm[s][shard * nv][0][0])[i]);
}

static call make(const model *m, const form *f, int shard) {
    call c = {0};
    gdn_err err;
    assert_int_equal(gdn_device_open(f->device, NULL, &c.d, &err), GDN_OK);
    assert_int_equal(gdn_queue_create(c.d, &c.q, &err), GDN_OK);
    const int ch = C / f->tp, nv = NV / f->tp;
    const int64_t py[] = {P, DOUT}, n_initial = N_SEQ;
    double taps[C * W], bias[C];
    for (int i = 0; i < ch; i++) {
        bias[i] = m->bias[channel(i, f->tp, shard)];
        memcpy(taps + i * W, m->taps[channel(i, f->tp, shard)], W * sizeof *taps);
    }
    add_projections(&c, m, f, shard);
    add_states(&c, m, f, shard);
    c.a.y = own(&c, GDN_F32, 2, py);
    c.y = gdn_buffer_host(c.a.y.buf);
    for (int i = 0; i < P * DOUT; i++) c.y[i] = 77;
    const gdn_type in = gdn_weight_input_type(c.weight[0]);
    c.a.x = numbers(&c, &m->x[0][0], P, D, in);
    for (int i = T * D; i < P * D; i++) set(gdn_buffer_host(c.a.x.buf), in, i, NAN); /* padding */
    c.a.norm_w = numbers(&c, m->norm, DV, 0, GDN_F32);
    c.a.eps = 1e-6f;
    c.a.gate = f->sigmoid ? GDN_GATE_SIGMOID : GDN_GATE_SILU;
    gdn_attention_args *a = &c.a.core;
    a->conv_weights = numbers(&c, taps, ch, W, f->act);
    a->conv_bias = numbers(&c, bias, ch, 0, f->act);
    a->A_log = numbers(&c, m->A_log + shard * nv, nv, 0, GDN_F32);
    a->dt_bias = numbers(&c, m->dt + shard * nv, nv, 0, f->act);
    a->has_initial_state = own(&c, GDN_U8, 1, &n_initial);
    memcpy(gdn_buffer_host(a->has_initial_state.buf), initial, sizeof initial);
    a->non_spec_query_start_loc = ints(&c, start, N_SEQ + 1, 0);
    a->non_spec_token_indx = ints(&c, indx, sizeof indx / sizeof *indx, 0);
    a->non_spec_state_indices = ints(&c, slot, N_SEQ, 0);
    if (f->drafts) {
        a->spec_query_start_loc = ints(&c, spec_start, N_SPEC + 1, 0);
        a->spec_token_indx = ints(&c, spec_indx, sizeof spec_indx / sizeof *spec_indx, 0);
        a->spec_state_indices = ints(&c, spec_slot, N_SPEC, K);
        a->num_accepted_tokens = ints(&c, accepted, N_SPEC, 0);
    }
    a->n_k_head = NK, a->n_v_head = NV, a->dk = DK, a->dv = DV, a->tp_size = f->tp;
    a->num_actual_tokens = T;
    a->null_slot = -1;
    a->reorder_input = f->reorder;
    a->conv_layout = f->ds ? GDN_CONV_STATE_DS : GDN_CONV_STATE_SD;
    const int64_t bytes = (int64_t)gdn_attention_layer_work_bytes(&c.a, T);
    assert_true(bytes > 0);
    const gdn_tensor work = own(&c, GDN_U8, 1, &bytes); /* guarded to the byte by the sanitizer */
    memset(gdn_buffer_host(work.buf), 0xff, (size_t)bytes); /* NaN in every type */
    c.a.work = work.buf;
    return c;
}

static void drop(call *c) {
    for (int i = 0; i < c->n; i++) gdn_buffer_free(c->buf[i]), free(c->mem[i]);
    for (int i = 0; i < 7; i++) gdn_weight_free(c->weight[i]);
    gdn_queue_free(c->q);
    gdn_device_close(c->d);
}

static void run(call *c) {
    gdn_err err;
    if (gdn_attention_layer(c->q, &c->a, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_int_equal(gdn_queue_wait(c->q, &err), GDN_OK);
}

/* --- comparison ---------------------------------------------------------------------------------- */

static void near(const char *what, double err, double power, double bound) {
    if (!(err <= bound * bound * power))
        fail_msg("%s: relative error %g, need %g", what, sqrt(err / power), bound);
}

static void compare_states(const call *c, const model *m, const form *f, int shard, double bound) {
    const int ch = C / f->tp, nv = NV / f->tp;
    double err = 0, power = 0;
    for (int s = 0; s < SLOTS; s++)
        for (int i = 0; i < ch; i++)
            for (int w = 0; w < L; w++) {
                const double r = m->conv[s][w][channel(i, f->tp, shard)];
                const double v = get(c->conv, f->act, f->ds ? (s * ch + i) * L + w : (s * L + w) * ch + i);
                err += (v - r) * (v - r), power += r * r;
            }
    near("conv_state", err, power, bound);
    err = power = 0;
    for (int s = 0; s < SLOTS; s++)
        for (int i = 0; i < nv * DV * DK; i++) {
            const double r = (&m->ssm[s][shard * nv][0][0])[i];
            const double v = get(c->ssm, f->state, s * nv * DV * DK + i);
            if (s == 0 && v != r) fail_msg("a state that no sequence has was changed");
            err += (v - r) * (v - r), power += r * r;
        }
    near("ssm_state", err, power, f->state == GDN_F32 ? bound : 5e-3);
}

/* All shards of a form; y is their sum. */
static void check_form(form f) {
    model *m = new_model(&f);
    double y[P][DOUT] = {{0}}, err = 0, power = 0;
    const double bound = f.act == GDN_F32 && f.weight == GDN_F32 ? 3e-6 : f.act == GDN_F16 ? 2e-3 : 1e-2;
    call c[4];
    for (int s = 0; s < f.tp; s++) c[s] = make(m, &f, s);
    ref_layer(m, &f);
    for (int s = 0; s < f.tp; s++) {
        run(&c[s]);
        compare_states(&c[s], m, &f, s, bound);
        for (int i = 0; i < T; i++)
            for (int d = 0; d < DOUT; d++) y[i][d] += (double)c[s].y[i * DOUT + d];
        for (int i = T * DOUT; i < P * DOUT; i++) assert_true(c[s].y[i] == 77);
        drop(&c[s]);
    }
    for (int i = 0; i < T; i++)
        for (int d = 0; d < DOUT; d++) {
            err += (y[i][d] - m->y[i][d]) * (y[i][d] - m->y[i][d]), power += m->y[i][d] * m->y[i][d];
            /* Rows of no sequence, and of a sequence without a slot, are zeros exactly. */
            if ((i == 10 || i == 11 || i == 13 || i == 2) && !f.drafts && y[i][d] != 0)
                fail_msg("row %d is not zero", i);
        }
    near("y", err, power, bound);
    free(m);
}

static void test_forms(void **state) {
    (void)state;
    static const gdn_type act[] = {GDN_F32, GDN_BF16, GDN_F16};
    for (int i = 0; i < 96; i++)
        check_form((form){.act = act[i % 3],
                          .state = i / 3 % 2 ? GDN_BF16 : GDN_F32,
                          .weight = i / 6 % 2 ? GDN_BF16 : GDN_F32,
                          .reorder = i / 12 % 2,
                          .split = i / 12 % 2 && i % 5 < 2,
                          .drafts = i / 24 % 2,
                          .ds = i / 48 % 2,
                          .sigmoid = i % 7 == 0,
                          .tp = 1,
                          .device = "cpu:2"});
}

static void test_shards(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++)
        check_form((form){.reorder = i % 2, .split = i % 4 == 3, .drafts = i / 4, .tp = i / 2 % 2 ? 4 : 2,
                          .device = "cpu:2"});
}

/* Threads, and where the scratch begins, change nothing. */
static void test_same_bits(void **state) {
    (void)state;
    form f = {.act = GDN_BF16, .reorder = true, .drafts = true, .tp = 1, .device = "cpu:1"};
    model *m = new_model(&f);
    call a = make(m, &f, 0);
    f.device = "cpu:3";
    call b = make(m, &f, 0);
    gdn_buffer *moved;
    gdn_err err;
    const uint64_t bytes = gdn_buffer_bytes(b.a.work);
    char *room = malloc(bytes + 20);
    assert_non_null(room);
    assert_int_equal(gdn_buffer_wrap(b.d, room + 20, bytes, &moved, &err), GDN_OK);
    b.a.work = moved;
    run(&a), run(&b);
    assert_memory_equal(a.y, b.y, P * DOUT * sizeof *a.y);
    assert_memory_equal(a.conv, b.conv, a.conv_bytes);
    assert_memory_equal(a.ssm, b.ssm, a.ssm_bytes);
    gdn_buffer_free(moved);
    drop(&a), drop(&b);
    free(room), free(m);
}

static void test_work_bytes(void **state) {
    (void)state;
    gdn_attention_layer_args a = {.core = {.n_k_head = 16, .n_v_head = 32, .dk = 128, .dv = 128, .tp_size = 2}};
    a.core.conv_state.type = GDN_BF16;
    assert_true(gdn_attention_layer_work_bytes(&a, 0) > 0);
    /* f32 and bf16 of 6144 + 32, bf16 of 2 x 2048, each row at least */
    assert_true(gdn_attention_layer_work_bytes(&a, 64) >= 64 * (6 * (6144 + 32) + 8192));
    assert_true(gdn_attention_layer_work_bytes(&a, INT32_MAX) > (uint64_t)INT32_MAX * 45000);
    assert_int_equal(gdn_attention_layer_work_bytes(&a, -1), 0);
    assert_int_equal(gdn_attention_layer_work_bytes(&a, INT64_MAX), 0);
    a.core.tp_size = 3;
    assert_int_equal(gdn_attention_layer_work_bytes(&a, 1), 0);
    a.core.tp_size = 1, a.core.dk = 1 << 30;
    assert_int_equal(gdn_attention_layer_work_bytes(&a, 1), 0);
    a.core.dk = 128, a.core.n_v_head = -32;
    assert_int_equal(gdn_attention_layer_work_bytes(&a, 1), 0);
    a.core.n_v_head = 32, a.core.conv_state.type = GDN_U8;
    assert_int_equal(gdn_attention_layer_work_bytes(&a, 1), 0);
    a.core.conv_state.type = GDN_F32, a.core.n_k_head = a.core.n_v_head = 65536, a.core.dv = 4096;
    a.core.dk = 256;
    assert_true(gdn_attention_layer_work_bytes(&a, 1) > 0);
    assert_int_equal(gdn_attention_layer_work_bytes(&a, INT32_MAX), 0);
}

static void test_refusals(void **state) {
    (void)state;
    form f = {.reorder = true, .drafts = true, .tp = 1, .device = "cpu:1"};
    model *m = new_model(&f);
    call c = make(m, &f, 0);
    f.split = true;
    call s = make(m, &f, 0);
    const gdn_attention_layer_args good = c.a;
    gdn_err err;
    char *conv = malloc(c.conv_bytes), *ssm = malloc(c.ssm_bytes);
    assert_non_null(conv);
    assert_non_null(ssm);
    memcpy(conv, c.conv, c.conv_bytes), memcpy(ssm, c.ssm, c.ssm_bytes);
#define REFUSED(word)                                                                     \
    do {                                                                                  \
        assert_int_equal(gdn_attention_layer(c.q, &c.a, &err), GDN_E_INVALID);            \
        if (strstr(err.text, word) == NULL) fail_msg("'%s' does not say '%s'", err.text, word); \
        for (int i_ = 0; i_ < P * DOUT; i_++) assert_true(c.y[i_] == 77);                 \
        assert_memory_equal(c.conv, conv, c.conv_bytes);                                  \
        assert_memory_equal(c.ssm, ssm, c.ssm_bytes);                                     \
        c.a = good;                                                                       \
    } while (0)
    c.a.in_proj_qkvz = NULL;
    REFUSED("in_proj_qkvz is missing");
    c.a.in_proj_z = c.weight[0];
    REFUSED("both in_proj_qkvz and in_proj_z");
    c.a.in_proj_qkvz = NULL, c.a.in_proj_qkv = c.weight[0];
    REFUSED("in_proj_qkv has shape [256, 20], need [160, 20]");
    c.a.in_proj_ba = NULL, c.a.in_proj_a = c.weight[1];
    REFUSED("in_proj_b is missing");
    const gdn_weight_part part = {.data = m->x, .n_row = NV, .row_bytes = D * 4};
    const gdn_weight_desc desc = {.type = GDN_F32, .n_expert = 1, .n = NV, .k = D, .part = &part, .n_part = 1};
    gdn_weight *b;
    assert_int_equal(gdn_weight_create(c.d, &desc, &b, &err), GDN_OK);
    c.a.in_proj_ba = NULL, c.a.in_proj_b = b, c.a.in_proj_a = c.weight[1];
    REFUSED("in_proj_a has shape [16, 20], need [8, 20]");
    gdn_weight_free(b);
    c.a.in_proj_ba = NULL, c.a.in_proj_a = c.a.in_proj_b = c.weight[1], c.a.core.reorder_input = false;
    REFUSED("in_proj_b needs reorder_input");
    c.a.in_proj_qkvz = s.weight[0];
    REFUSED("in_proj_qkvz is not a plain weight of this device");
    c.a.out_proj = NULL;
    REFUSED("out_proj is missing");
    c.a.out_proj = c.weight[1];
    REFUSED("out_proj has shape [16, 20], need [16, 96]");
    c.a.x.type = GDN_BF16;
    REFUSED("x ");
    c.a.y.shape[0]--;
    REFUSED("y has shape [16, 28], need [17, 28]");
    c.a.y.stride[0] = 4;
    REFUSED("rows of y lie on each other");
    c.a.y = gdn_tensor_dense(c.a.core.ssm_state.buf, 0, GDN_F32, 2, good.y.shape);
    REFUSED("y overlaps ssm_state");
    c.a.norm_w.shape[0]--;
    REFUSED("norm_w has shape [11], need [12]");
    c.a.eps = NAN;
    REFUSED("eps is");
    c.a.gate = (gdn_gate)-1;
    REFUSED("gate is -1");
    c.a.work = NULL;
    REFUSED("work is missing");
    c.a.work = c.a.core.A_log.buf;
    REFUSED("work has 32 bytes, need");
    c.a.core.conv_bias.buf = c.a.work;
    REFUSED("work overlaps conv_bias");
    c.a.core.z = c.a.y;
    REFUSED("left empty");
    c.a.core.num_actual_tokens = P + 1;
    REFUSED("num_actual_tokens is 18 of 17 rows");
    c.a.core.tp_size = 3;
    REFUSED("over 3 shards");
    c.a.core.conv_state.type = GDN_I32;
    REFUSED("conv_state of i32");
    /* What the operator refuses: it is asked before y is written. */
    c.a.core.A_log.buf = NULL;
    REFUSED("A_log is missing");
    c.a.core.ssm_state.shape[0] = SLOTS - 1;
    REFUSED("ssm_state");
    int32_t *first = gdn_buffer_host(c.a.core.non_spec_state_indices.buf);
    first[0] = SLOTS;
    REFUSED("is 9 of 9 slots");
    first[0] = slot[0];
    c.a.core.conv_layout = (gdn_conv_state_layout)2;
    REFUSED("conv_layout is 2");
    run(&c); /* nothing of this has broken the good call */
    free(conv), free(ssm);
    drop(&c), drop(&s);
    free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_shards), cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_work_bytes), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
