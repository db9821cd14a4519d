/* check_delta_chunk.c - the gated delta rule in chunks. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "../../src/base/half.h"
#include "../../src/base/stream.h"
#include "delta_chunk_models.h"

void check_delta_chunk(check *c);

/* Normalised mean square error against double.  f32: sums of up to 256 terms, and 2000 tokens
 * of a repeated key without decay, stay within 2e-6, and within 3e-5 in two parts of bf16.  bf16: the
 * operands q, k and S are off by 1.6e-3 each; what is written to the state is not, so the state is
 * better. */
typedef struct {
    double o, S;
} tolerance;
static tolerance tolerance_of(const check *c, bool bf16) {
    if (bf16) return (tolerance){16e-6, 4e-6};
    if (strncmp(c->isa, "amx", 3) == 0) return (tolerance){1e-9, 1e-9};
    return (tolerance){4e-12, 4e-12};
}

typedef enum { PLAIN, SLOW, ONE_KEY, FOUR_KEYS, EDGES, FORGOTTEN } kind;
static const char *const kind_name[] = {"plain",     "slow",  "one key",
                                        "four keys", "edges", "forgotten"};

typedef struct {
    gdn_delta_chunk_fn *fn;
    gdn_delta_chunk_args a;
} job;

static void run(void *arg) {
    job *j = arg;
    j->fn(&j->a);
}

static void unit_row(float *x, int32_t n, float length) {
    double sum = 0;
    check_fill(x, (size_t)n, -1, 1);
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    for (int i = 0; i < n; i++) x[i] = (float)((double)(x[i] * length) / sqrt(sum + 1e-6));
}

static void gate_of(kind what, int64_t t, float *g, float *beta) {
    static const float edge[] = {-1e-7f, -1e4f, -0.5f, -INFINITY, -1e-3f, -88,
                                 -104,   0,     -1e-3f, -1e-3f,   -2,     -1e-2f};
    *g = -0.3f * (float)check_uniform();
    *beta = (float)check_uniform();
    if (what == SLOW) *g *= 0.01f;
    if (what == ONE_KEY) *g *= (float)(t / 40 % 2), *beta = t % 3 == 0 ? *beta : 1;
    if (what != EDGES) return;
    *g = edge[t % 12];
    if (t % 5 == 1) *beta = 0;
    if (t % 5 == 2) *beta = 1;
}

typedef struct {
    float *q, *k, *v, *g, *beta;
} tokens;

/* Raw ones in bf16 are numbers that bf16 has. */
static void round_row(const gdn_delta_chunk_args *a, float *x) {
    for (int i = 0; i < a->dk && a->bf16 && a->raw; i++)
        x[i] = gdn_bf16_to_f32(gdn_f32_to_bf16(x[i]));
}

static void fill_tokens(const gdn_delta_chunk_args *a, kind what, const tokens *x) {
    const size_t row = (size_t)a->dk * sizeof(float);
    for (int64_t t = 0; t < a->n_tok; t++) {
        float *q = x->q + t * a->q_stride, *k = x->k + t * a->k_stride;
        unit_row(q, a->dk, 1 / sqrtf((float)a->dk));
        unit_row(k, a->dk, 1);
        round_row(a, q);
        round_row(a, k);
        if (what == ONE_KEY && t > 0) memcpy(k, x->k, row);
        if (what == FOUR_KEYS && t > 3) memcpy(k, x->k + t % 4 * a->k_stride, row);
        if (what == EDGES && t % 9 == 7) memset(k, 0, row);
        check_fill(x->v + t * a->v_stride, (size_t)a->dv, -1, 1);
        gate_of(what, t, x->g + t * a->gate_stride, x->beta + t * a->gate_stride);
    }
    if (what != FORGOTTEN) return;
    check_fill(x->v, (size_t)a->dv, -1e9f, 1e9f); /* must not drown what comes after */
    if (a->n_tok > 1) x->g[a->gate_stride] = -INFINITY;
}

/* The two definitions, by chunks' gates and by tokens' decays, agree: the second rounds the
 * state each token. */
static void check_definitions(check *c, const gdn_delta_chunk_args *a, const float *S_before,
                              float *S, float *o, float *alpha) {
    for (int64_t t = 0; t < a->n_tok; t++)
        alpha[t * a->gate_stride] = (float)exp((double)a->g[t * a->gate_stride]);
    const gdn_delta_args r = {.S = S, .o = o, .q = a->q, .k = a->k, .v = a->v, .alpha = alpha,
                              .beta = a->beta, .o_stride = a->o_stride, .q_stride = a->q_stride,
                              .k_stride = a->k_stride, .v_stride = a->v_stride,
                              .gate_stride = a->gate_stride, .n_tok = a->n_tok, .dk = a->dk,
                              .dv = a->dv, .v0 = a->v0, .v1 = a->v1};
    const size_t nS = (size_t)a->dk * a->dv;
    memcpy(S, S_before, nS * sizeof *S);
    gdn_delta_ref(&r);
    check_close(c, "S of the token form", S, a->S, nS, 1e-11);
    for (int64_t t = 0; t < a->n_tok; t++)
        if (!check_close_scaled(c, "o of the token form", o + t * a->o_stride + a->v0,
                                a->o + t * a->o_stride + a->v0, (size_t)(a->v1 - a->v0), 1e-10,
                                1e-4 * (a->v1 - a->v0)))
            break;
}

/* Rows in other calls, and tokens in calls of whole chunks, with the state held between them or in
 * S every time: not a bit may change.  (The reference keeps its state in double while a call
 * lasts.) */
static void check_cuts(check *c, const job *whole, const float *S_before, float *S, float *o,
                       size_t nS, size_t no) {
    static const int32_t cut[][2] = {{10000, 1}, {10000, 7}, {32, 1000}, {96, 19}, {64, 8}};
    const gdn_delta_chunk_args *w = &whole->a;
    for (size_t n = 0; n < 2 * (sizeof cut / sizeof *cut); n++) {
        const size_t i = n / 2;
        const bool hold = n % 2 != 0;
        job j = *whole;
        if (j.fn == gdn_delta_chunk_ref && cut[i][0] < w->n_tok) continue;
        memcpy(S, S_before, nS * sizeof *S);
        memset(o, 0xff, no * sizeof *o);
        j.a.S = S;
        for (int32_t v = w->v0; v < w->v1; v = j.a.v1) {
            j.a.v0 = v, j.a.v1 = v + cut[i][1] < w->v1 ? v + cut[i][1] : w->v1;
            for (int64_t t = 0; t < w->n_tok; t += j.a.n_tok) {
                const int64_t left = w->n_tok - t;
                j.a.n_tok = (int32_t)(left < cut[i][0] ? left : cut[i][0]);
                j.a.o = o + t * w->o_stride, j.a.q = w->q + t * w->q_stride;
                j.a.k = w->k + t * w->k_stride, j.a.v = w->v + t * w->v_stride;
                j.a.g = w->g + t * w->gate_stride, j.a.beta = w->beta + t * w->gate_stride;
                j.a.first = t == 0 || !hold, j.a.last = t + j.a.n_tok == w->n_tok || !hold;
                run(&j);
            }
        }
        check_bits(c, hold ? "o when cut, held" : "o when cut", w->o, o, no, sizeof *o);
        check_bits(c, hold ? "S when cut, held" : "S when cut", w->S, S, nS, sizeof *S);
    }
}

/* Whether row's outputs from token t on, and its state, are no numbers. */
static bool none_from(const gdn_delta_chunk_args *a, int64_t t, int64_t row, const float *S,
                      const float *o) {
    bool none = true;
    for (; t < a->n_tok; t++) none &= isnan(o[t * a->o_stride + row]) != 0;
    for (int i = 0; i < a->dk; i++) none &= isnan(S[row * a->dk + i]) != 0;
    return none;
}

/* A NaN, of any bits, shows in all results from its token on.  One in a value or in the state stays
 * in its row. */
static void check_nan(check *c, const job *whole, const tokens *x, const float *S_before,
                      float *S, float *o, size_t nS, size_t no) {
    const gdn_delta_chunk_args *w = &whole->a;
    const int64_t t = w->n_tok / 2, last = w->v1 - 1;
    float *const place[] = {x->v + t * w->v_stride + last, S + last * w->dk,
                            x->k + t * w->k_stride + w->dk - 1, x->g + t * w->gate_stride,
                            x->beta + t * w->gate_stride};
    for (int p = 0; p < 5; p++) {
        const bool in_row = p < 2, poison = p < 2;
        job j = *whole;
        memcpy(S, S_before, nS * sizeof *S);
        memset(o, 0, no * sizeof *o);
        const float kept = *place[p];
        if (poison) memset(place[p], 0xff, sizeof kept);
        else *place[p] = NAN;
        j.a.S = S, j.a.o = o;
        run(&j);
        if (p != 1) *place[p] = kept;
        bool seen = true;
        for (int64_t row = in_row ? last : w->v0; row < w->v1; row++)
            seen &= none_from(w, p == 1 ? 0 : t, row, S, o);
        check_that(c, seen, "NaN from the %s on",
                   p == 0   ? "value"
                   : p == 1 ? "state"
                   : p == 2 ? "key"
                            : "gate");
        if (in_row)
            check_bits(c, "rows beside a NaN", w->S + w->v0 * w->dk, S + w->v0 * w->dk,
                       (size_t)(last - w->v0) * w->dk, sizeof *S);
    }
}

typedef enum { IN_F32, ROUNDED, EXACT } operands; /* EXACT: bf16 has keys and queries, raw ones */
static const char *const operands_name[] = {"f32", "bf16", "exact bf16"};

static void delta_chunk(check *c, kind what, operands in, int32_t n_tok, int32_t dk, int32_t dv,
                        int32_t v0, int32_t v1) {
    gdn_delta_chunk_fn *fn = c->kern->delta_chunk;
    if (!check_begin(c, (check_fn *)fn, "delta_chunk %s n%d dk%d dv%d rows %d..%d %s",
                     operands_name[in], n_tok, dk, dv, v0, v1, kind_name[what]))
        return;
    const bool bf16 = in != IN_F32;
    gdn_delta_chunk_args a = {.n_tok = n_tok, .dk = dk, .dv = dv, .v0 = v0, .v1 = v1,
                              .bf16 = bf16, .raw = in == EXACT, .first = true, .last = true};
    a.o_stride = dv + 5, a.q_stride = dk + 3, a.k_stride = dk + 1, a.v_stride = dv + 2;
    a.gate_stride = 3;
    const size_t nS = (size_t)dk * dv, no = (size_t)n_tok * a.o_stride;
    const size_t ng = (size_t)(n_tok - 1) * 3 + 1;
    float *S0 = check_f32(c, "S ref", nS), *S1 = check_f32(c, "S", nS);
    float *S2 = check_f32(c, "S cut", nS), *S_before = check_f32(c, "S before", nS);
    float *o0 = check_f32(c, "o ref", no), *o1 = check_f32(c, "o", no);
    float *o2 = check_f32(c, "o cut", no);
    const tokens x = {check_f32(c, "q", (size_t)(n_tok - 1) * a.q_stride + dk),
                      check_f32(c, "k", (size_t)(n_tok - 1) * a.k_stride + dk),
                      check_f32(c, "v", (size_t)(n_tok - 1) * a.v_stride + dv),
                      check_f32(c, "g", ng), check_f32(c, "beta", ng)};
    float *alpha = check_f32(c, "alpha", ng);
    const size_t to_line = c->bench ? 0 : 60; /* of a buffer one float off */
    uint8_t *work = check_bytes(c, "work", to_line + gdn_delta_chunk_work(dk, v1 - v0));
    fill_tokens(&a, what, &x);
    check_fill(S_before, nS, -0.3f, 0.3f);
    memcpy(S0, S_before, nS * sizeof *S0);
    memcpy(S1, S_before, nS * sizeof *S1);
    uint8_t *held = check_bytes(c, "held", to_line + gdn_delta_chunk_held(dk, v1 - v0));
    a.q = x.q, a.k = x.k, a.v = x.v, a.g = x.g, a.beta = x.beta, a.work = work + to_line;
    a.held = (float *)(void *)(held + to_line);

    job j = {.fn = fn, .a = a};
    j.a.S = S1, j.a.o = o1;
    a.S = S0, a.o = o0;
    gdn_delta_chunk_ref(&a);
    run(&j);
    /* The poisoned gaps are no numbers: compare them bit by bit, then leave them out. */
    const tolerance tol = tolerance_of(c, bf16);
    double err = 0, power = 0;
    for (int64_t t = what == FORGOTTEN ? 1 : 0; t < n_tok; t++)
        for (int64_t i = v0; i < v1; i++) {
            const double want = (double)o0[t * a.o_stride + i];
            const double d = (double)o1[t * a.o_stride + i] - want;
            err += d * d, power += want * want;
        }
    check_that(c, err <= tol.o * power, "o within %.1e, not %.1e", sqrt(tol.o),
               sqrt(err / power));
    check_close(c, "S", S0 + v0 * dk, S1 + v0 * dk, (size_t)(v1 - v0) * dk, tol.S);
    for (int64_t t = 0; t < n_tok; t++) {
        const int64_t at = t * a.o_stride;
        check_bits(c, "o before v0", o0 + at, o1 + at, v0, sizeof *o0);
        check_bits(c, "o from v1", o0 + at + v1, o1 + at + v1, (size_t)(a.o_stride - v1), 4);
    }
    check_bits(c, "S before v0", S_before, S1, (size_t)v0 * dk, sizeof *S1);
    check_bits(c, "S from v1", S_before + v1 * dk, S1 + v1 * dk, (size_t)(dv - v1) * dk, 4);
    if (fn == gdn_delta_chunk_ref && what != FORGOTTEN && in != EXACT)
        check_definitions(c, &a, S_before, S2, o2, alpha);
    check_cuts(c, &j, S_before, S2, o2, nS, no);
    check_nan(c, &j, &x, S_before, S2, o2, nS, no);
    check_end(c);
}

/* Raw keys and queries of any length, which two heads share, whose calls of a chunk alternate. */
typedef struct {
    float *S[2], *o[2], *v, *g, *beta; /* by the reference, and by the variant */
    uint8_t *held;
} head;

static void raw_row(const gdn_delta_chunk_args *a, float *x, int64_t t) {
    static const float length[] = {1, 30, 1e-3f, 0, 1e25f, 1e-6f, 5};
    unit_row(x, a->dk, length[t % 7]);
    round_row(a, x);
}

/* One head's call for n tokens from t on. */
static gdn_delta_chunk_args head_args(const gdn_delta_chunk_args *a, const head *h, int which,
                                      int64_t t, int32_t n) {
    gdn_delta_chunk_args x = *a;
    x.S = h->S[which], x.o = h->o[which] + t * a->o_stride;
    x.q += t * a->q_stride, x.k += t * a->k_stride;
    x.v = h->v + t * a->v_stride;
    x.g = h->g + t * a->gate_stride, x.beta = h->beta + t * a->gate_stride;
    x.held = (float *)(void *)h->held;
    x.first = t == 0, x.last = t + n == a->n_tok;
    x.n_tok = n;
    return x;
}

static void shared_key(check *c, bool bf16, int32_t n_tok, int32_t dk, int32_t dv) {
    gdn_delta_chunk_fn *fn = c->kern->delta_chunk;
    if (!check_begin(c, (check_fn *)fn, "delta_chunk %s n%d dk%d dv%d shared key",
                     operands_name[bf16], n_tok, dk, dv))
        return;
    gdn_delta_chunk_args a = {.n_tok = n_tok, .dk = dk, .dv = dv, .v1 = dv, .bf16 = bf16, .raw = true};
    a.o_stride = dv, a.q_stride = dk, a.k_stride = dk, a.v_stride = dv, a.gate_stride = 1;
    const size_t nS = (size_t)dk * dv, no = (size_t)n_tok * dv, to_line = c->bench ? 0 : 60;
    float *q = check_f32(c, "q", (size_t)n_tok * dk), *k = check_f32(c, "k", (size_t)n_tok * dk);
    for (int64_t t = 0; t < n_tok; t++) {
        raw_row(&a, q + t * dk, t + 2);
        raw_row(&a, k + t * dk, t);
    }
    a.q = q, a.k = k;
    head heads[2];
    for (int i = 0; i < 2; i++) {
        head *h = heads + i;
        *h = (head){{check_f32(c, "S ref", nS), check_f32(c, "S", nS)},
                    {check_f32(c, "o ref", no), check_f32(c, "o", no)},
                    check_f32(c, "v", no), check_f32(c, "g", n_tok), check_f32(c, "beta", n_tok),
                    check_bytes(c, "held", to_line + gdn_delta_chunk_held(dk, dv))};
        h->held += to_line;
        check_fill(h->S[0], nS, -0.3f, 0.3f);
        memcpy(h->S[1], h->S[0], nS * sizeof *h->S[0]);
        check_fill(h->v, no, -1, 1);
        for (int64_t t = 0; t < n_tok; t++) gate_of(PLAIN, t, h->g + t, h->beta + t);
    }
    uint8_t *work = check_bytes(c, "work", to_line + gdn_delta_chunk_work(dk, dv));
    for (int64_t t = 0; t < n_tok; t += GDN_DELTA_CHUNK)
        for (int i = 0; i < 2; i++) {
            const int64_t left = n_tok - t;
            job j = {fn, head_args(&a, heads + i, 1, t,
                                   (int32_t)(left < GDN_DELTA_CHUNK ? left : GDN_DELTA_CHUNK))};
            j.a.work = work + to_line;
            j.a.same = i > 0;
            run(&j);
        }
    const tolerance tol = tolerance_of(c, bf16);
    for (int i = 0; i < 2; i++) {
        const gdn_delta_chunk_args r = head_args(&a, heads + i, 0, 0, n_tok);
        gdn_delta_chunk_ref(&r);
        check_close(c, i == 0 ? "o of the first" : "o of the second", r.o, heads[i].o[1], no, tol.o);
        check_close(c, i == 0 ? "S of the first" : "S of the second", r.S, heads[i].S[1], nS, tol.S);
    }
    check_end(c);
}

static void count_call(void *arg) { ++*(int *)arg; }

static uint16_t *halves(check *c, const char *what, const float *x, size_t n) {
    uint16_t *h = (uint16_t *)(void *)check_bytes(c, what, n * sizeof *h);
    for (size_t i = 0; i < n; i++) h[i] = gdn_f32_to_bf16(x[i]);
    return h;
}

/* Rows in bf16, and output past the caches, change where numbers lie and nothing else. */
static void other_rows(check *c, bool bf16, int32_t n_tok, int32_t dk, int32_t dv) {
    enum { LINE = 32 };
    gdn_delta_chunk_fn *fn = c->kern->delta_chunk;
    if (!check_begin(c, (check_fn *)fn, "delta_chunk %s n%d dk%d dv%d rows in bf16",
                     operands_name[bf16], n_tok, dk, dv))
        return;
    gdn_delta_chunk_args a = {.n_tok = n_tok, .dk = dk, .dv = dv, .v1 = dv, .bf16 = bf16, .raw = true};
    a.o_stride = (dv + LINE - 1) / LINE * LINE;
    a.q_stride = dk + 3, a.k_stride = dk + 1, a.v_stride = dv + 2, a.gate_stride = 1;
    a.first = a.last = true;
    const size_t nS = (size_t)dk * dv, no = (size_t)n_tok * a.o_stride;
    const size_t nq = (size_t)n_tok * a.q_stride, nk = (size_t)n_tok * a.k_stride;
    const size_t nv = (size_t)n_tok * a.v_stride;
    float *q = check_f32(c, "q", nq), *k = check_f32(c, "k", nk), *v = check_f32(c, "v", nv);
    float *g = check_f32(c, "g", n_tok), *beta = check_f32(c, "beta", n_tok);
    float *S0 = check_f32(c, "S", nS), *S1 = check_f32(c, "S of bf16", nS);
    float *o = check_f32(c, "o", no), *past = check_f32(c, "o past the caches", no + LINE);
    gdn_delta_chunk_args in_bf16 = a;
    in_bf16.bf16 = true;
    for (int64_t t = 0; t < n_tok; t++) {
        raw_row(&in_bf16, q + t * a.q_stride, t + 2);
        raw_row(&in_bf16, k + t * a.k_stride, t);
        check_fill(v + t * a.v_stride, dv, -1, 1);
        float *row = v + t * a.v_stride;
        for (int i = 0; i < dv; i++) row[i] = gdn_bf16_to_f32(gdn_f32_to_bf16(row[i]));
        gate_of(PLAIN, t, g + t, beta + t);
    }
    float *S_before = check_f32(c, "S before", nS);
    check_fill(S_before, nS, -0.3f, 0.3f);
    memcpy(S0, S_before, nS * sizeof *S0);
    memset(o, 0, no * sizeof *o);
    const size_t to_line = c->bench ? 0 : 60;
    uint8_t *held = check_bytes(c, "held", to_line + gdn_delta_chunk_held(dk, dv));
    uint8_t *work = check_bytes(c, "work", to_line + gdn_delta_chunk_work(dk, dv));
    a.held = (float *)(void *)(held + to_line), a.work = work + to_line;
    a.q = q, a.k = k, a.v = v, a.g = g, a.beta = beta, a.S = S0, a.o = o;
    job j = {.fn = fn, .a = a};
    run(&j);

    int calls = 0;
    float *line = past + (64 - (uintptr_t)past % 64) % 64 / sizeof *past;
    uint16_t *out = (uint16_t *)(void *)line;
    j.a.q = j.a.k = j.a.v = NULL, j.a.o = NULL, j.a.S = S1, j.a.o_bf16 = out;
    j.a.q_bf16 = halves(c, "q in bf16", q, nq), j.a.k_bf16 = halves(c, "k in bf16", k, nk);
    j.a.v_bf16 = halves(c, "v in bf16", v, nv);
    j.a.aside = count_call, j.a.aside_arg = &calls;
    bool same = true;
    for (int i = 0; i < 2; i++) {
        memcpy(S1, S_before, nS * sizeof *S1);
        j.a.past = i == 0;
        memset(out, 0xff, no * sizeof *out);
        run(&j);
        gdn_stream_done();
        for (int64_t t = 0; t < n_tok; t++)
            for (int d = 0; d < dv; d++)
                same &= out[t * a.o_stride + d] == gdn_f32_to_bf16(o[t * a.o_stride + d]);
    }
    check_that(c, same, "o in bf16 is o");
    check_bits(c, "S of rows in bf16", S0, S1, nS, sizeof *S0);
    check_that(c, fn == gdn_delta_chunk_ref || calls > 0, "never called aside");

    memcpy(S1, S0, nS * sizeof *S0);
    j.a = a;
    run(&j); /* on from the same state, once past the caches */
    j.a.S = S1, j.a.o = line, j.a.past = true;
    run(&j);
    gdn_stream_done();
    same = true;
    for (int64_t t = 0; t < n_tok; t++)
        same &= memcmp(line + t * a.o_stride, o + t * a.o_stride, (size_t)dv * sizeof *o) == 0;
    check_that(c, same, "o past the caches is o");
    check_end(c);
}

/* Speed: q, k, v are parts of one row of the convolution, or of a tile, raw, as the operator has them. */
static void speed(check *c, bool bf16, int32_t n_tok, int32_t rows, bool raw) {
    enum { D = 128, HV = 32 };
    const int64_t heads = raw ? 1 : 16, ROW = raw ? 4 * D : (16 + 16 + HV) * D;
    if (!c->bench ||
        !check_begin(c, (check_fn *)c->kern->delta_chunk, "delta_chunk %s, %d tokens, %d rows%s",
                     bf16 ? "bf16" : "f32", n_tok, rows, raw ? ", raw" : ""))
        return;
    float *x = check_f32(c, "qkv", (size_t)n_tok * ROW);
    float *o = check_f32(c, "o", (size_t)n_tok * HV * D), *S = check_f32(c, "S", D * D);
    float *g = check_f32(c, "g", n_tok * HV), *beta = check_f32(c, "beta", n_tok * HV);
    check_fill(x, (size_t)n_tok * ROW, -0.08f, 0.08f);
    for (int64_t i = 0; i < n_tok * ROW && bf16; i++) x[i] = gdn_bf16_to_f32(gdn_f32_to_bf16(x[i]));
    check_fill(S, D * D, -0.1f, 0.1f);
    check_fill(g, (size_t)n_tok * HV, -0.3f, 0), check_fill(beta, (size_t)n_tok * HV, 0, 1);
    job j = {.fn = c->kern->delta_chunk,
             .a = {.S = S,
                   .o = o,
                   .q = x,
                   .k = x + heads * D,
                   .v = x + 2 * heads * D,
                   .g = g,
                   .beta = beta,
                   .work = check_bytes(c, "work", gdn_delta_chunk_work(D, rows)),
                   .held = check_bytes(c, "held", gdn_delta_chunk_held(D, rows)),
                   .first = true,
                   .last = true,
                   .o_stride = HV * D,
                   .q_stride = ROW,
                   .k_stride = ROW,
                   .v_stride = ROW,
                   .gate_stride = HV,
                   .n_tok = n_tok,
                   .dk = D,
                   .dv = D,
                   .v1 = rows,
                   .bf16 = bf16,
                   .raw = raw}};
    check_rate(c, run, &j, 6.0 * D * rows * n_tok, 2.0 * D * rows * sizeof *S);
    check_end(c);
}

/* A model is slow: fewer tokens, and fewer rows, each of which is a call of its own when cut. */
static void kinds(check *c, operands in, bool model) {
    const int32_t few = model ? 40 : 75, many = model ? 100 : 2000, rows = model ? 20 : 128;
    for (int32_t n = 1; n <= 70; n++) delta_chunk(c, PLAIN, in, n, 24, 5, 0, 5);
    for (kind what = PLAIN; what <= FORGOTTEN; what++) {
        delta_chunk(c, what, in, few, 128, rows, 0, rows); /* the released head          */
        delta_chunk(c, what, in, few - 5, 72, 37, 0, 37);  /* nothing fills its vectors  */
    }
    delta_chunk(c, PLAIN, in, many, 128, 37, 5, 32); /* long, part of the rows        */
    delta_chunk(c, SLOW, in, many, 128, 16, 0, 16);
    delta_chunk(c, ONE_KEY, in, many, 128, 16, 0, 16);
    delta_chunk(c, FOUR_KEYS, in, many, 128, 16, 0, 16);
    delta_chunk(c, EDGES, in, many, 128, 16, 0, 16);
    delta_chunk(c, PLAIN, in, 40, 256, 40, 0, 40);  /* the largest dk                */
    delta_chunk(c, PLAIN, in, 33, 136, 20, 1, 19);
    delta_chunk(c, EDGES, in, 64, 8, 1, 0, 1);      /* the smallest                  */
}
/* Operands from `in` on. */
static void all(check *c, operands in, bool model) {
    for (int b = in != IN_F32; b < 2; b++) {
        shared_key(c, b, 77, 128, 128);
        shared_key(c, b, 70, 40, 37);
        other_rows(c, b, 77, 128, 128);
        other_rows(c, b, 70, 40, 37);
        if (model) continue;
        speed(c, b, 512, 128, false);
        speed(c, b, 512, 32, false);
        speed(c, b, 32, 128, false);
        speed(c, b, 64, 128, true);
    }
    for (; in <= EXACT; in++) kinds(c, in, model);
}

#if defined(__x86_64__)
static void check_model(const check *c, gdn_delta_chunk_fn *fn, operands in, const char *name) {
    gdn_kern k = *c->kern;
    check model = *c;
    k.delta_chunk = fn;
    model.kern = &k, model.isa = name;
    all(&model, in, true);
}
#endif

void check_delta_chunk(check *c) {
    all(c, IN_F32, false);
#if defined(__x86_64__)
    if (c->kern->delta_chunk != gdn_delta_chunk_avx2) return;
    check_model(c, delta_chunk_amx_model, IN_F32, "amx model");
    check_model(c, delta_chunk_pairs_model, EXACT, "pairs model");
#endif
}
