/* check_delta.c - the gated delta rule and the preparation of its inputs. */
#include "check.h"

#include <math.h>
#include <string.h>

/* Relative rms 1e-6: f32 sums of up to 256 terms in lanes of 8 or 16 err by a few 1e-7,
 * and the rule contracts towards v, so errors do not add up over tokens.  An output is a
 * sum that may cancel, so its error is measured against |S| |q|. */
static const double TOL = 1e-12;

typedef struct {
    gdn_delta_fn *fn;
    gdn_delta_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

/* Inputs as the model makes them, and tokens at the edges of the gates. */
static void fill_tokens(gdn_delta_args *a, float *q, float *k, float *v, float *alpha,
                        float *beta) {
    const float unit = sqrtf(3.0f / (float)a->dk);
    for (int64_t t = 0; t < a->n_tok; t++) {
        check_fill(q + t * a->q_stride, a->dk, -0.3f * unit, unit);
        check_fill(k + t * a->k_stride, a->dk, -unit, unit);
        check_fill(v + t * a->v_stride, a->dv, -1, 1);
        float *al = alpha + t * a->gate_stride, *be = beta + t * a->gate_stride;
        *al = expf(-3.0f * (float)(check_uniform() * check_uniform()));
        *be = (float)check_uniform();
        /* Large, then forgotten: what is left of it must not drown later errors. */
        if (t % 16 == 2) check_fill(v + t * a->v_stride, a->dv, -1e6f, 1e6f);
        if (t % 16 == 3) *al = expf(-100.0f);  /* state forgotten: a subnormal  */
        if (t % 16 == 4) *al = 0;              /* and a zero                    */
        if (t % 16 == 5) *al = 1, *be = 0;     /* kept, nothing written         */
        if (t % 16 == 6) *al = 1, *be = 1;     /* v replaces the answer for k   */
        if (t % 16 == 7) memset(k + t * a->k_stride, 0, a->dk * sizeof *k);
    }
    a->q = q, a->k = k, a->v = v, a->alpha = alpha, a->beta = beta;
}

/* The same work in calls of one token or of changing length, and in ranges of rows that
 * start anywhere: not a bit may change. */
static void check_cuts(check *c, const job *whole, const float *S_before, float *S,
                       float *o, size_t nS, size_t no) {
    static const int32_t cut[][2] = {{1, 1000}, {3, 1000}, {1000, 1}, {1000, 7}, {2, 5}};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        job j = *whole;
        const gdn_delta_args *w = &whole->a;
        memcpy(S, S_before, nS * sizeof *S);
        memset(o, 0xff, no * sizeof *o);
        j.a.S = S;
        for (int32_t v = w->v0; v < w->v1; v = j.a.v1) {
            j.a.v0 = v, j.a.v1 = v + cut[i][1] < w->v1 ? v + cut[i][1] : w->v1;
            for (int64_t t = 0; t < w->n_tok; t += j.a.n_tok) {
                const int64_t left = w->n_tok - t, step = cut[i][0] + t % 2;
                j.a.n_tok = (int32_t)(left < step ? left : step);
                j.a.o = o + t * w->o_stride, j.a.q = w->q + t * w->q_stride;
                j.a.k = w->k + t * w->k_stride, j.a.v = w->v + t * w->v_stride;
                j.a.alpha = w->alpha + t * w->gate_stride;
                j.a.beta = w->beta + t * w->gate_stride;
                run(&j);
            }
        }
        check_bits(c, "o when cut", w->o, o, no, sizeof *o);
        check_bits(c, "S when cut", w->S, S, nS, sizeof *S);
    }
}

/* A NaN in one value reaches its row from that token on and no other row. */
static void check_nan(check *c, const job *whole, const float *S_before, float *S,
                      float *v, float *o, size_t nS, size_t no) {
    const gdn_delta_args *w = &whole->a;
    job j = *whole;
    const int64_t t = w->n_tok / 2, row = w->v1 - 1;
    memcpy(S, S_before, nS * sizeof *S);
    memset(o, 0xff, no * sizeof *o);
    const float kept = v[t * w->v_stride + row];
    v[t * w->v_stride + row] = NAN;
    j.a.S = S, j.a.o = o;
    run(&j);
    v[t * w->v_stride + row] = kept;
    /* beta 0 does not hide it either: 0 NaN is NaN. */
    for (int64_t i = t; i < w->n_tok; i++)
        if (!check_that(c, isnan(o[i * w->o_stride + row]), "NaN at token %d", (int)i))
            break;
    if (w->v1 - w->v0 > 1)
        check_bits(c, "rows beside a NaN", w->S + w->v0 * w->dk, S + w->v0 * w->dk,
                   (size_t)(w->v1 - 1 - w->v0) * w->dk, sizeof *S);
}

static double power(const float *x, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
    return s;
}

/* The reference token by token; power [n_tok] is that of the state around the token,
 * times that of q. */
static void reference(const gdn_delta_args *whole, double *scale) {
    gdn_delta_args a = *whole;
    const float *S = a.S + (size_t)a.v0 * a.dk;
    const size_t nS = (size_t)(a.v1 - a.v0) * a.dk;
    a.n_tok = 1;
    for (int64_t t = 0; t < whole->n_tok; t++) {
        const double before = power(S, nS);
        gdn_delta_ref(&a);
        scale[t] = fmax(before, power(S, nS)) * power(a.q, a.dk);
        a.o += a.o_stride, a.q += a.q_stride, a.k += a.k_stride, a.v += a.v_stride;
        a.alpha += a.gate_stride, a.beta += a.gate_stride;
    }
}

static void delta(check *c, int32_t n_tok, int32_t dk, int32_t dv, int32_t v0,
                  int32_t v1) {
    gdn_delta_fn *fn = c->kern->delta;
    if (!check_begin(c, (check_fn *)fn, "delta n%d dk%d dv%d rows %d..%d", n_tok, dk, dv,
                     v0, v1))
        return;
    gdn_delta_args a = {.n_tok = n_tok, .dk = dk, .dv = dv, .v0 = v0, .v1 = v1};
    a.o_stride = dv + 5, a.q_stride = dk + 3, a.k_stride = dk + 1, a.v_stride = dv + 2;
    a.gate_stride = 3;
    const size_t nS = (size_t)dk * dv, no = (size_t)n_tok * a.o_stride;
    float *S0 = check_f32(c, "S ref", nS), *S1 = check_f32(c, "S", nS);
    float *S2 = check_f32(c, "S cut", nS), *S_before = check_f32(c, "S before", nS);
    float *o0 = check_f32(c, "o ref", no), *o1 = check_f32(c, "o", no);
    float *o2 = check_f32(c, "o cut", no);
    float *q = check_f32(c, "q", (size_t)(n_tok - 1) * a.q_stride + dk);
    float *k = check_f32(c, "k", (size_t)(n_tok - 1) * a.k_stride + dk);
    float *v = check_f32(c, "v", (size_t)(n_tok - 1) * a.v_stride + dv);
    float *alpha = check_f32(c, "alpha", (size_t)n_tok * 3);
    float *beta = check_f32(c, "beta", (size_t)n_tok * 3);
    check_fill(S_before, nS, -1, 1);
    fill_tokens(&a, q, k, v, alpha, beta);
    memcpy(S0, S_before, nS * sizeof *S0);
    memcpy(S1, S_before, nS * sizeof *S1);

    job j = {.fn = fn, .a = a};
    a.S = S0, a.o = o0;
    j.a.S = S1, j.a.o = o1;
    double scale[64];
    reference(&a, scale);
    run(&j);
    for (int64_t t = 0; t < n_tok; t++)
        if (!check_close_scaled(c, "o", o0 + t * a.o_stride + v0,
                                o1 + t * a.o_stride + v0, (size_t)(v1 - v0), TOL,
                                scale[t]))
            break;
    check_close(c, "S", S0 + v0 * dk, S1 + v0 * dk, (size_t)(v1 - v0) * dk, TOL);
    /* What lies around the rows keeps its bytes: the reference left it alone too. */
    for (int64_t t = 0; t < n_tok; t++) {
        const int64_t at = t * a.o_stride;
        check_bits(c, "o before v0", o0 + at, o1 + at, v0, sizeof *o0);
        check_bits(c, "o from v1", o0 + at + v1, o1 + at + v1, (size_t)(a.o_stride - v1),
                   4);
    }
    check_bits(c, "S before v0", S_before, S1, (size_t)v0 * dk, sizeof *S1);
    check_bits(c, "S from v1", S_before + v1 * dk, S1 + v1 * dk, (size_t)(dv - v1) * dk,
               4);
    check_cuts(c, &j, S_before, S2, o2, nS, no);
    check_nan(c, &j, S_before, S2, v, o2, nS, no);
    check_end(c);
}

/* Speed as the model calls it: q, k, v are parts of one row of the convolution.  One run
 * goes through all heads; many of them are more than the caches hold. */
typedef struct {
    job j;
    float *S;
    int32_t heads;
} turn;

static void run_turn(void *arg) {
    turn *t = arg;
    for (int32_t h = 0; h < t->heads; h++) {
        t->j.a.S = t->S + (size_t)h * t->j.a.dk * t->j.a.dv;
        run(&t->j);
    }
}

static void speed(check *c, const char *name, int32_t n_tok, int32_t heads) {
    enum { D = 128, HV = 32, ROW = (16 + 16 + HV) * D };
    if (!c->bench || !check_begin(c, (check_fn *)c->kern->delta, "%s", name)) return;
    float *x = check_f32(c, "qkv", (size_t)n_tok * ROW),
          *o = check_f32(c, "o", (size_t)n_tok * HV * D);
    float *S = check_f32(c, "S", (size_t)heads * D * D),
          *gate = check_f32(c, "gates", n_tok * HV);
    check_fill(x, (size_t)n_tok * ROW, -0.08f, 0.08f);
    check_fill(S, (size_t)heads * D * D, -0.1f, 0.1f);
    check_fill(gate, (size_t)n_tok * HV, 0.5f, 1);
    turn t = {.S = S, .heads = heads, .j.fn = c->kern->delta};
    t.j.a = (gdn_delta_args){.o = o,
                             .q = x,
                             .k = x + 16 * D,
                             .v = x + 32 * D,
                             .alpha = gate,
                             .beta = gate,
                             .o_stride = HV * D,
                             .q_stride = ROW,
                             .k_stride = ROW,
                             .v_stride = ROW,
                             .gate_stride = HV,
                             .n_tok = n_tok,
                             .dk = D,
                             .dv = D,
                             .v1 = D};
    check_rate(c, run_turn, &t, 6.0 * D * D * n_tok * heads,
               2.0 * D * D * sizeof *S * heads);
    check_end(c);
}

typedef struct {
    gdn_delta_prep_fn *fn;
    gdn_delta_prep_args a;
} prep_job;

static void run_prep(void *arg) {
    prep_job *j = arg;
    j->fn(&j->a);
}

static void prep(check *c, int32_t n_tok, int32_t hk, int32_t hv, int32_t dk) {
    gdn_delta_prep_fn *fn = c->kern->delta_prep;
    if (!check_begin(c, (check_fn *)fn, "delta_prep n%d hk%d hv%d dk%d", n_tok, hk, hv,
                     dk))
        return;
    gdn_delta_prep_args a = {.qk_stride = hk * dk + 3,
                             .gate_stride = hv + 1,
                             .ba_stride = hv + 2,
                             .n_tok = n_tok,
                             .hk = hk,
                             .hv = hv,
                             .dk = dk};
    const size_t nq = (size_t)n_tok * a.qk_stride, ng = (size_t)n_tok * a.gate_stride;
    const size_t nb = (size_t)n_tok * a.ba_stride;
    float *qk[2][2], *gate[2][2];
    float *g[2] = {check_f32(c, "g ref", ng), check_f32(c, "g", ng)};
    static const char *const part[2][2] = {{"q ref", "q"}, {"k ref", "k"}};
    static const char *const kind[2][2] = {{"alpha ref", "alpha"}, {"beta ref", "beta"}};
    for (int i = 0; i < 2; i++)
        for (int v = 0; v < 2; v++) {
            qk[i][v] = check_f32(c, part[i][v], nq);
            gate[i][v] = check_f32(c, kind[i][v], ng);
        }
    float *x = check_f32(c, "q before", nq), *y = check_f32(c, "k before", nq);
    float *bb = check_f32(c, "b", nb), *aa = check_f32(c, "a", nb);
    float *A_log = check_f32(c, "A_log", hv), *dt = check_f32(c, "dt_bias", hv);
    check_fill(x, nq, -3, 3), check_fill(y, nq, -0.01f, 0.01f);
    check_fill(bb, nb, -9, 9), check_fill(aa, nb, -6, 6);
    check_fill(A_log, hv, -4, 3), check_fill(dt, hv, -8, 3);
    memset(y, 0, dk * sizeof *y);        /* a zero vector stays one        */
    x[nq - dk - 3] = 1e15f;              /* squares near the end of f32    */
    bb[0] = -200, aa[0] = 200;           /* beta 0, alpha 0                */
    bb[nb - 3] = 200, aa[nb - 3] = -200; /* beta 1, alpha 1                */
    if (hv > 1)
        A_log[1] = 12, dt[1] = -13, aa[1] = 0.5f;     /* softplus ~ e^x, made visible  */
    if (hv > 2) A_log[2] = -3, dt[2] = 0, aa[2] = 20; /* softplus x from 20 on          */
    for (int v = 0; v < 2; v++) {
        memcpy(qk[0][v], x, nq * sizeof *x), memcpy(qk[1][v], y, nq * sizeof *y);
        memset(gate[0][v], 0xff, ng * sizeof *x),
            memset(gate[1][v], 0xff, ng * sizeof *x);
    }
    a.b = bb, a.a = aa, a.A_log = A_log, a.dt_bias = dt;
    a.q = qk[0][0], a.k = qk[1][0], a.alpha = gate[0][0], a.beta = gate[1][0];
    prep_job j = {.fn = fn, .a = a};
    j.a.q = qk[0][1], j.a.k = qk[1][1], j.a.alpha = gate[0][1], j.a.beta = gate[1][1];
    a.g = g[0], j.a.g = g[1];
    gdn_delta_prep_ref(&a);
    run_prep(&j);
    /* A sum of squares and a root: a few roundings an element, gaps between rows
     * untouched. */
    check_each(c, "q", qk[0][0], qk[0][1], nq, 1e-6, 0);
    check_each(c, "k", qk[1][0], qk[1][1], nq, 1e-6, 0);
    /* alpha = e^g: a relative error of g of 1e-7 is |g| e^g 1e-7, at most 4e-8.  Below
     * 1e-38 the vector exp gives 0. */
    check_each(c, "alpha", gate[0][0], gate[0][1], ng, 4e-7, 1e-7);
    check_each(c, "beta", gate[1][0], gate[1][1], ng, 4e-7, 1e-38);
    /* Not squeezed into 0..1: the error of a + dt_bias shows where softplus is e^x. */
    check_each(c, "g", g[0], g[1], ng, 2e-6, 1e-38);

    /* Token by token: the same bits. */
    float *cut = check_f32(c, "q cut", nq), *cut_a = check_f32(c, "alpha cut", ng);
    float *cut_g = check_f32(c, "g cut", ng);
    memcpy(cut, x, nq * sizeof *x);
    prep_job one = j;
    one.a.n_tok = 1;
    for (int64_t t = 0; t < n_tok; t++) {
        one.a.q = cut + t * a.qk_stride, one.a.alpha = cut_a + t * a.gate_stride;
        one.a.k = qk[1][0] + t * a.qk_stride, one.a.beta = gate[1][0] + t * a.gate_stride;
        one.a.g = t % 2 == 0 ? NULL : cut_g + t * a.gate_stride; /* not always wanted */
        one.a.b = bb + t * a.ba_stride, one.a.a = aa + t * a.ba_stride;
        run_prep(&one);
    }
    check_bits(c, "q one by one", qk[0][1], cut, nq, sizeof *cut);
    check_bits(c, "alpha one by one", gate[0][1], cut_a, ng, sizeof *cut);
    for (int64_t t = 1; t < n_tok; t += 2)
        check_bits(c, "g one by one", g[1] + t * a.gate_stride, cut_g + t * a.gate_stride,
                   (size_t)hv, sizeof *cut);

    aa[0] = NAN, bb[0] = NAN, j.a.q[dk - 1] = NAN;
    run_prep(&j);
    check_that(c, isnan(j.a.alpha[0]) && isnan(j.a.beta[0]) && isnan(j.a.q[0]) &&
                      isnan(j.a.g[0]),
               "NaN kept in alpha, beta, q, g");
    check_fill(j.a.q, nq, -1, 1);
    check_rate(c, run_prep, &j, 0, 4.0 * sizeof *x * (double)n_tok * hk * dk);
    check_end(c);
}

void check_delta_chunk(check *c); /* check_delta_chunk.c */

void check_delta(check *c) {
    check_delta_chunk(c);
    delta(c, 40, 128, 128, 0, 128); /* the released head                    */
    delta(c, 33, 128, 128, 5, 91);  /* part of its rows                     */
    delta(c, 9, 256, 256, 0, 256);  /* the largest dk                       */
    delta(c, 1, 8, 1, 0, 1);        /* the smallest                         */
    delta(c, 20, 8, 3, 1, 2);
    delta(c, 35, 24, 37, 0, 37); /* neither dk nor dv fills its vectors  */
    delta(c, 18, 200, 19, 2, 19);
    delta(c, 17, 64, 48, 0, 48);
    prep(c, 5, 16, 32, 128);
    prep(c, 64, 16, 48, 128);
    prep(c, 1, 1, 1, 8);
    prep(c, 7, 3, 6, 24);
    prep(c, 3, 2, 17, 200);
    speed(c, "delta prompt of 512", 512, 1);
    speed(c, "delta prompt of 32", 32, 1);
    speed(c, "delta token, 2 states in cache", 1, 2);
    speed(c, "delta token, 2048 states in memory", 1, 2048);
}
