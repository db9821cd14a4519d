/* test_gdn_core.c - drafted tokens in gdn_core: whatever is kept, accepted, rejected and committed,
 * in whatever company, outputs and states are those of one plain call a token, bit for bit.
 *
 * The reference is gdn_core itself without lines, one sequence and one token a call; what that
 * computes is checked elsewhere (op vectors, golden models). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

#include "sanitized.h"

enum { N_SEQ = 5, SLOTS = 2 * N_SEQ + 2, LINES = N_SEQ + 2, MOST_ROWS = 9, PAD = 8 };

typedef struct {
    int32_t  hk, hv, dk, dv, W, K;
    gdn_type conv;
    bool     bias;
} sizes;

/* Memory of its own for every tensor, so that slips show under the address sanitizer. */
typedef struct {
    gdn_tensor t;
    char      *host;
    uint64_t   bytes;
} block;

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
} machine;

/* One sequence as the reference sees it. */
typedef struct {
    block    conv, ssm;    /* its states, one slot                                  */
    block    conv2, ssm2;  /* those behind guesses                                  */
    float   *drafted;      /* [K][row] what its line should hold                    */
    int32_t  n_drafted;
    bool     started, left; /* left: spare holds what is behind the guesses         */
    int32_t  slot, spare, line;
} sequence;

typedef struct {
    sizes    z;
    int64_t  C, row;       /* row: floats of one raw row, q | k | v, b, a           */
    machine  plain, tested;
    block    w, bias, A, dt;
    block    pool;         /* u8: [SLOTS] pages of both states with gaps            */
    block    lines;
    char    *pool_image, *line_image; /* what they should hold                      */
    int64_t  page, ssm_at, line_stride;
    sequence seq[N_SEQ];
    gdn_core_args one;     /* the reference's call, less the states                 */
    block    x1, core1, start1, slot1, has1, work1, gate1;
} world;

static uint64_t rng;
static uint32_t below(uint32_t n) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}
static float uniform(float lo, float hi) {
    return lo + (hi - lo) * (float)below(1u << 24) * 0x1p-24f;
}

static block make(machine *m, gdn_type type, int32_t ndim, int64_t a, int64_t b, int64_t c,
                  int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    block k = {.bytes = (uint64_t)gdn_type_bytes(type)};
    gdn_buffer *buf;
    gdn_err err;
    for (int32_t i = 0; i < ndim; i++) k.bytes *= (uint64_t)shape[i];
    k.host = malloc(k.bytes > 0 ? k.bytes : 1);
    assert_non_null(k.host);
    memset(k.host, 0, k.bytes);
    assert_int_equal(gdn_buffer_wrap(m->d, k.host, k.bytes, &buf, &err), GDN_OK);
    k.t = gdn_tensor_dense(buf, 0, type, ndim, shape);
    return k;
}
static void drop(block *k) {
    gdn_buffer_free(k->t.buf);
    free(k->host);
}
static float *floats(const block *k) { return (float *)(void *)k->host; }
static int32_t *ints(const block *k) { return (int32_t *)(void *)k->host; }
static void fill(block *k, float lo, float hi) {
    for (uint64_t i = 0; i < k->bytes / 4; i++) floats(k)[i] = uniform(lo, hi);
}
static void noise(char *p, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) p[i] = (char)below(256);
}

static machine open_machine(const char *name, uint32_t isa) {
    machine m;
    gdn_err err;
    gdn_device_opts o;
    gdn_device_opts_defaults(&o);
    o.isa_mask = isa;
    if (gdn_device_open(name, &o, &m.d, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_int_equal(gdn_queue_create(m.d, &m.q, &err), GDN_OK);
    return m;
}
static void close_machine(machine *m) {
    gdn_queue_free(m->q);
    gdn_device_close(m->d);
}

/* A tensor of the reference's device on the tested one; *also is to be freed. */
static gdn_tensor shared(const world *w, gdn_tensor t, gdn_buffer **also) {
    gdn_err err;
    assert_int_equal(gdn_buffer_wrap(w->tested.d, gdn_buffer_host(t.buf), gdn_buffer_bytes(t.buf),
                                     also, &err),
                     GDN_OK);
    t.buf = *also;
    return t;
}

static void begin(world *w, sizes z, const char *device, uint32_t isa) {
    const int64_t C = 2 * (int64_t)z.hk * z.dk + (int64_t)z.hv * z.dv, row = C + 2 * z.hv;
    *w = (world){.z = z, .C = C, .row = row, .line_stride = row + 3};
    w->plain = open_machine("cpu:1", isa);
    w->tested = open_machine(device, isa);
    machine *p = &w->plain, *t = &w->tested;
    w->w = make(p, GDN_F32, 2, z.W, C, 0, 0), fill(&w->w, -1, 1);
    w->bias = make(p, GDN_F32, 1, C, 0, 0, 0), fill(&w->bias, -1, 1);
    w->A = make(p, GDN_F32, 1, z.hv, 0, 0, 0), fill(&w->A, -3, 1);
    w->dt = make(p, GDN_F32, 1, z.hv, 0, 0, 0), fill(&w->dt, -2, 2);
    const int64_t conv_bytes = (z.W - 1) * C * gdn_type_bytes(z.conv);
    w->ssm_at = (conv_bytes + 63) / 64 * 64;
    w->page = w->ssm_at + (int64_t)z.hv * z.dv * z.dk * 4 + 64;
    w->pool = make(t, GDN_U8, 2, SLOTS, w->page, 0, 0);
    w->lines = make(t, GDN_F32, 3, LINES, z.K, w->line_stride, 0);
    noise(w->pool.host, w->pool.bytes), noise(w->lines.host, w->lines.bytes);
    w->pool_image = malloc(w->pool.bytes), w->line_image = malloc(w->lines.bytes);
    assert_true(w->pool_image != NULL && w->line_image != NULL);
    memcpy(w->pool_image, w->pool.host, w->pool.bytes);
    memcpy(w->line_image, w->lines.host, w->lines.bytes);
    w->x1 = make(p, GDN_F32, 2, 1, row, 0, 0);
    w->core1 = make(p, GDN_F32, 3, 1, z.hv, z.dv, 0);
    w->start1 = make(p, GDN_I32, 1, 2, 0, 0, 0), ints(&w->start1)[1] = 1;
    w->slot1 = make(p, GDN_I32, 1, 1, 0, 0, 0);
    w->has1 = make(p, GDN_I32, 1, 1, 0, 0, 0), *ints(&w->has1) = 1;
    w->work1 = make(p, GDN_F32, 2, 1, C, 0, 0);
    w->gate1 = make(p, GDN_F32, 3, 1, 2, z.hv, 0);
    for (int32_t s = 0; s < N_SEQ; s++) {
        sequence *q = w->seq + s;
        q->conv = make(p, z.conv, 3, 1, z.W - 1, C, 0);
        q->ssm = make(p, GDN_F32, 4, 1, z.hv, z.dv, z.dk);
        q->conv2 = make(p, z.conv, 3, 1, z.W - 1, C, 0);
        q->ssm2 = make(p, GDN_F32, 4, 1, z.hv, z.dv, z.dk);
        q->drafted = malloc((size_t)(z.K * row) * sizeof(float));
        assert_non_null(q->drafted);
        q->slot = 2 * (s * 3 % N_SEQ) + 1; /* 5 and 7 are primes: these are permutations */
        q->spare = q->slot + 1;
        q->line = (s * 5 + 2) % LINES;
    }
    w->one = (gdn_core_args){.core = w->core1.t,
                             .qkv = gdn_tensor_slice(w->x1.t, 1, 0, C),
                             .b = gdn_tensor_slice(w->x1.t, 1, C, C + z.hv),
                             .a = gdn_tensor_slice(w->x1.t, 1, C + z.hv, row),
                             .conv_w = w->w.t,
                             .A_log = w->A.t,
                             .dt_bias = w->dt.t,
                             .seq_start = w->start1.t,
                             .slot = w->slot1.t,
                             .has_state = w->has1.t,
                             .work_qkv = w->work1.t,
                             .work_gate = w->gate1.t,
                             .hk = z.hk,
                             .dk = z.dk};
    if (z.bias) w->one.conv_bias = w->bias.t;
}

static void end(world *w) {
    block *all[] = {&w->w, &w->bias, &w->A, &w->dt, &w->pool, &w->lines, &w->x1, &w->core1,
                    &w->start1, &w->slot1, &w->has1, &w->work1, &w->gate1};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) drop(all[i]);
    for (int32_t s = 0; s < N_SEQ; s++) {
        drop(&w->seq[s].conv), drop(&w->seq[s].ssm);
        drop(&w->seq[s].conv2), drop(&w->seq[s].ssm2);
        free(w->seq[s].drafted);
    }
    free(w->pool_image), free(w->line_image);
    close_machine(&w->plain), close_machine(&w->tested);
}

/* One token on one state; core gets [hv][dv] or is NULL. */
static void plain_token(world *w, const block *conv, const block *ssm, const float *x,
                        float *core) {
    gdn_core_args a = w->one;
    gdn_err err;
    a.conv_state = conv->t, a.ssm_state = ssm->t;
    memcpy(w->x1.host, x, w->x1.bytes);
    if (gdn_op_gdn_core(w->plain.q, &a, &err) != GDN_OK) fail_msg("%s", err.text);
    if (core != NULL) memcpy(core, w->core1.host, w->core1.bytes);
}

/* --- one step of all sequences ------------------------------------------------------- */

typedef struct {
    int32_t n[N_SEQ], commit[N_SEQ], keep[N_SEQ], has[N_SEQ], spare[N_SEQ];
    bool    spares; /* there is a tensor of them */
} plan;

/* All guesses were right: the sequence goes on where they left it. */
static void go_on(sequence *q) {
    const int32_t slot = q->slot;
    const block conv = q->conv, ssm = q->ssm;
    q->slot = q->spare, q->spare = slot;
    q->conv = q->conv2, q->conv2 = conv;
    q->ssm = q->ssm2, q->ssm2 = ssm;
    q->n_drafted = 0;
    q->left = false;
}

static plan choose(world *w) {
    plan p = {.n = {0}, .spares = below(4) != 0};
    const bool none = below(6) == 0; /* nobody has rows of its own */
    for (int32_t s = 0; s < N_SEQ; s++) {
        sequence *q = w->seq + s;
        const uint32_t what = below(8);
        if (q->left && below(2) == 0) go_on(q);
        p.spare[s] = below(4) != 0 ? q->spare : -1;
        if (what < 4) p.keep[s] = 1, p.n[s] = (int32_t)below((uint32_t)w->z.K + 2);
        else if (what < 6) p.n[s] = (int32_t)below(MOST_ROWS + 1);
        if (none) p.n[s] = 0;
        p.has[s] = q->started && below(12) != 0; /* or it starts again */
        if (p.has[s] != 0 && what < 7)
            p.commit[s] = (int32_t)below((uint32_t)q->n_drafted + 1);
    }
    return p;
}

static void put_states(world *w, int32_t slot, const block *conv, const block *ssm) {
    char *page = w->pool_image + slot * w->page;
    memcpy(page, conv->host, conv->bytes);
    memcpy(page + w->ssm_at, ssm->host, ssm->bytes);
}

/* Sequence s on the reference: rows x, their outputs to core, and what pool and line hold then. */
static void expect(world *w, const plan *p, int32_t s, const float *x, char *core,
                   int64_t core_bytes) {
    sequence *q = w->seq + s;
    const int32_t n = p->n[s];
    if (n == 0 && p->commit[s] == 0) return;
    if (p->has[s] == 0) {
        memset(q->conv.host, 0, q->conv.bytes);
        memset(q->ssm.host, 0, q->ssm.bytes);
    }
    for (int32_t i = 0; i < p->commit[s]; i++)
        plain_token(w, &q->conv, &q->ssm, q->drafted + i * w->row, NULL);
    const block *conv = &q->conv, *ssm = &q->ssm;
    q->n_drafted = 0;
    for (int32_t i = 0; i < n; i++) {
        if (i == 1 && p->keep[s] != 0) { /* from here on they are guesses */
            memcpy(q->conv2.host, conv->host, conv->bytes), conv = &q->conv2;
            memcpy(q->ssm2.host, ssm->host, ssm->bytes), ssm = &q->ssm2;
            q->n_drafted = n - 1;
        }
        plain_token(w, conv, ssm, x + i * (w->row + PAD), (float *)(void *)(core + i * core_bytes));
    }
    for (int32_t i = 0; i < q->n_drafted; i++) {
        const float *raw = x + (i + 1) * (w->row + PAD);
        memcpy(q->drafted + i * w->row, raw, (size_t)w->row * 4);
        memcpy(w->line_image + ((int64_t)q->line * w->z.K + i) * w->line_stride * 4, raw,
               (size_t)w->row * 4);
    }
    q->started = true;
    q->left = q->n_drafted > 0 && p->spares && p->spare[s] >= 0;
    put_states(w, q->slot, &q->conv, &q->ssm);
    if (q->left) put_states(w, q->spare, &q->conv2, &q->ssm2);
}

static void set_ints(block *k, const int32_t *from) { memcpy(k->host, from, k->bytes); }

static void step(world *w, int32_t number) {
    const sizes z = w->z;
    machine *m = &w->tested;
    const plan p = choose(w);
    int32_t start[N_SEQ + 1] = {0}, slot[N_SEQ], line[N_SEQ], spare[N_SEQ];
    for (int32_t s = 0; s < N_SEQ; s++) {
        start[s + 1] = start[s] + p.n[s];
        slot[s] = w->seq[s].slot;
        const bool guesses = p.keep[s] != 0 && p.n[s] > 1;
        line[s] = p.commit[s] > 0 || guesses ? w->seq[s].line : -7; /* else it is not read */
        spare[s] = guesses ? p.spare[s] : -7;
    }
    const int64_t rows = start[N_SEQ] + below(3), n_work = rows + N_SEQ * z.K;
    block x = make(m, GDN_F32, 2, rows > 0 ? rows : 1, w->row + PAD, 0, 0);
    block core = make(m, GDN_F32, 3, rows, z.hv, z.dv + PAD, 0);
    const int32_t *from[] = {start, slot, p.has, line, p.commit, p.keep, spare};
    enum { N_INTS = sizeof from / sizeof *from };
    block index[N_INTS];
    for (int i = 0; i < N_INTS; i++) {
        index[i] = make(m, GDN_I32, 1, i == 0 ? N_SEQ + 1 : N_SEQ, 0, 0, 0);
        set_ints(index + i, from[i]);
    }
    block work = make(m, GDN_F32, 2, n_work, w->C + PAD, 0, 0);
    block gate = make(m, GDN_F32, 3, n_work, 2, z.hv, 0);
    memset(work.host, 0xff, work.bytes), memset(gate.host, 0xff, gate.bytes); /* NaN */
    fill(&x, -3, 3);
    x.t = gdn_tensor_slice(x.t, 0, 0, rows);
    noise(core.host, core.bytes);
    char *want = malloc(core.bytes + 1), *got = core.host;
    assert_non_null(want);
    memcpy(want, got, core.bytes);

    gdn_buffer *again[5] = {NULL};
    gdn_core_args a = {.core = gdn_tensor_slice(core.t, 2, 0, z.dv),
                       .qkv = gdn_tensor_slice(x.t, 1, 0, w->C),
                       .b = gdn_tensor_slice(x.t, 1, w->C, w->C + z.hv),
                       .a = gdn_tensor_slice(x.t, 1, w->C + z.hv, w->row),
                       .conv_w = shared(w, w->w.t, again),
                       .A_log = shared(w, w->A.t, again + 1),
                       .dt_bias = shared(w, w->dt.t, again + 2),
                       .seq_start = index[0].t,
                       .slot = index[1].t,
                       .has_state = index[2].t,
                       .line = gdn_tensor_slice(w->lines.t, 2, 0, w->row),
                       .line_index = index[3].t,
                       .n_commit = index[4].t,
                       .keep = index[5].t,
                       .work_qkv = gdn_tensor_slice(work.t, 1, 0, w->C),
                       .work_gate = gate.t,
                       .hk = z.hk,
                       .dk = z.dk};
    if (p.spares) a.spare = index[6].t;
    if (z.bias) a.conv_bias = shared(w, w->bias.t, again + 3);
    a.conv_state = gdn_tensor_dense(w->pool.t.buf, 0, z.conv, 3,
                                    (const int64_t[]){SLOTS, z.W - 1, w->C});
    a.ssm_state = gdn_tensor_dense(w->pool.t.buf, (uint64_t)w->ssm_at, GDN_F32, 4,
                                   (const int64_t[]){SLOTS, z.hv, z.dv, z.dk});
    a.conv_state.stride[0] = a.ssm_state.stride[0] = w->page;

    /* Heads of core lie dv + PAD floats apart: the reference's rows go there one by one. */
    const int64_t dense = (int64_t)z.hv * z.dv * 4;
    char *rows_of = malloc((size_t)(dense * MOST_ROWS));
    assert_non_null(rows_of);
    for (int32_t s = 0; s < N_SEQ; s++) {
        expect(w, &p, s, floats(&x) + start[s] * (w->row + PAD), rows_of, dense);
        for (int32_t i = 0; i < p.n[s]; i++)
            for (int32_t h = 0; h < z.hv; h++)
                memcpy(want + (((int64_t)start[s] + i) * z.hv + h) * (z.dv + PAD) * 4,
                       rows_of + i * dense + (int64_t)h * z.dv * 4, (size_t)z.dv * 4);
    }
    gdn_err err;
    if (gdn_op_gdn_core(m->q, &a, &err) != GDN_OK) fail_msg("step %d: %s", number, err.text);
    if (memcmp(want, got, core.bytes) != 0) fail_msg("step %d: core differs", number);
    for (int32_t s = 0; s < SLOTS; s++)
        if (memcmp(w->pool.host + s * w->page, w->pool_image + s * w->page, (size_t)w->page) != 0)
            fail_msg("step %d: states of slot %d differ", number, s);
    if (memcmp(w->lines.host, w->line_image, w->lines.bytes) != 0)
        fail_msg("step %d: lines differ", number);

    for (int i = 0; i < 5; i++) gdn_buffer_free(again[i]);
    for (int i = 0; i < N_INTS; i++) drop(index + i);
    drop(&x), drop(&core), drop(&work), drop(&gate);
    free(want), free(rows_of);
}

static void history(sizes z, const char *device, uint32_t isa, uint64_t seed, int32_t steps) {
    world w;
    rng = seed;
    begin(&w, z, device, isa);
    for (int32_t i = 0; i < steps; i++) step(&w, i);
    end(&w);
}

static void test_histories(void **state) {
    (void)state;
    static const sizes all[] = {
        {.hk = 2, .hv = 4, .dk = 24, .dv = 40, .W = 4, .K = 3, .conv = GDN_BF16},
        {.hk = 2, .hv = 4, .dk = 24, .dv = 40, .W = 4, .K = 4, .conv = GDN_F32},
        {.hk = 8, .hv = 8, .dk = 64, .dv = 33, .W = 4, .K = 2, .conv = GDN_BF16, .bias = true},
        {.hk = 1, .hv = 3, .dk = 8, .dv = 5, .W = 2, .K = 1, .conv = GDN_F32, .bias = true},
        {.hk = 1, .hv = 1, .dk = 16, .dv = 1, .W = 3, .K = 5, .conv = GDN_BF16, .bias = true},
        {.hk = 3, .hv = 6, .dk = 40, .dv = 70, .W = 5, .K = 5, .conv = GDN_F32},
        {.hk = 2, .hv = 4, .dk = 128, .dv = 128, .W = 4, .K = 4, .conv = GDN_BF16},
        {.hk = 1, .hv = 2, .dk = 256, .dv = 64, .W = 8, .K = 3, .conv = GDN_F32},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int threads = 1; threads <= 3; threads++) {
            char device[8];
            snprintf(device, sizeof device, "cpu:%d", threads);
            history(all[i], device, ~0u, 100 * i + (uint64_t)threads, SANITIZED ? 12 : 40);
        }
    history(all[0], "cpu:2", 0, 5, 12); /* plain C */
    history(all[5], "cpu:2", 0, 6, 6);
}

/* --- refusals ------------------------------------------------------------------------ */

enum { HK = 1, HV = 2, DK = 8, DV = 4, TAPS = 4, K = 2 };
enum { CH = 2 * HK * DK + HV * DV, RAW = CH + 2 * HV };

typedef struct {
    machine m;
    gdn_core_args a;
    block all[18];
    int32_t *start, *has, *line, *commit, *keep, *spare;
} call;

/* Three sequences with 2, 0 and 1 rows; the first keeps, the second commits. */
static void good_call(call *c) {
    c->m = open_machine("cpu:2", ~0u);
    machine *m = &c->m;
    block *b = c->all;
    gdn_core_args *a = &c->a;
    *a = (gdn_core_args){.hk = HK, .dk = DK};
    const struct {
        gdn_tensor *t;
        gdn_type type;
        int32_t ndim;
        int64_t shape[4];
    } list[18] = {{&a->core, GDN_F32, 3, {3, HV, DV}},       {&a->qkv, GDN_F32, 2, {3, CH}},
                  {&a->b, GDN_F32, 2, {3, HV}},              {&a->a, GDN_F32, 2, {3, HV}},
                  {&a->conv_state, GDN_F32, 3, {4, TAPS - 1, CH}},
                  {&a->ssm_state, GDN_F32, 4, {4, HV, DV, DK}},
                  {&a->conv_w, GDN_F32, 2, {TAPS, CH}},      {&a->A_log, GDN_F32, 1, {HV}},
                  {&a->dt_bias, GDN_F32, 1, {HV}},           {&a->seq_start, GDN_I32, 1, {4}},
                  {&a->slot, GDN_I32, 1, {3}},               {&a->has_state, GDN_I32, 1, {3}},
                  {&a->line, GDN_F32, 3, {3, K, RAW}},       {&a->line_index, GDN_I32, 1, {3}},
                  {&a->n_commit, GDN_I32, 1, {3}},           {&a->keep, GDN_I32, 1, {3}},
                  {&a->work_qkv, GDN_F32, 2, {3 + 3 * K, CH}},
                  {&a->spare, GDN_I32, 1, {3}}};
    for (int i = 0; i < 18; i++) {
        b[i] = make(m, list[i].type, list[i].ndim, list[i].shape[0], list[i].shape[1],
                    list[i].shape[2], list[i].shape[3]);
        if (list[i].type == GDN_F32) fill(b + i, -1, 1);
        *list[i].t = b[i].t;
    }
    c->start = ints(b + 9), c->has = ints(b + 11), c->line = ints(b + 13);
    c->commit = ints(b + 14), c->keep = ints(b + 15), c->spare = ints(b + 17);
    memcpy(c->start, (const int32_t[]){0, 2, 2, 3}, 16);
    memcpy(ints(b + 10), (const int32_t[]){0, 1, 2}, 12);
    memcpy(c->has, (const int32_t[]){1, 1, 0}, 12);
    memcpy(c->line, (const int32_t[]){2, 0, -1}, 12);
    memcpy(c->commit, (const int32_t[]){1, 2, 0}, 12);
    memcpy(c->keep, (const int32_t[]){1, 0, 0}, 12);
    memcpy(c->spare, (const int32_t[]){3, -7, 99}, 12); /* one sequence guesses */
}

/* Refused with these words, and not a byte of any tensor written. */
static void refused(call *c, const gdn_core_args *a, const char *words) {
    char *before[18];
    gdn_err err;
    for (int i = 0; i < 18; i++) {
        before[i] = malloc(c->all[i].bytes);
        assert_non_null(before[i]);
        memcpy(before[i], c->all[i].host, c->all[i].bytes);
    }
    if (gdn_op_gdn_core(c->m.q, a, &err) != GDN_E_INVALID) fail_msg("'%s' was not refused", words);
    if (strstr(err.text, words) == NULL) fail_msg("'%s' does not say '%s'", err.text, words);
    for (int i = 0; i < 18; i++) {
        assert_memory_equal(before[i], c->all[i].host, c->all[i].bytes);
        free(before[i]);
    }
}

static void refused_value(call *c, int32_t *at, int32_t value, const char *words) {
    const int32_t was = *at;
    *at = value;
    refused(c, &c->a, words);
    *at = was;
}

static void test_refusals(void **state) {
    (void)state;
    static const char together[] = "line, line_index, n_commit and keep come together";
    call c;
    gdn_err err;
    rng = 3;
    good_call(&c);
    block gate = make(&c.m, GDN_F32, 3, 3 + 3 * K, 2, HV, 0);
    c.a.work_gate = gate.t;
    refused_value(&c, c.commit + 1, 3, "n_commit[1] is 3, need 0 to 2");
    refused_value(&c, c.commit + 1, -1, "n_commit[1] is -1, need 0 to 2");
    refused_value(&c, c.commit + 2, 1, "n_commit[2] is 1 and has_state[2] is 0");
    refused_value(&c, c.keep + 1, 2, "keep[1] is 2, need 0 or 1");
    refused_value(&c, c.keep + 2, -1, "keep[2] is -1, need 0 or 1");
    refused_value(&c, c.line, 3, "line_index[0] is 3 of 3");
    refused_value(&c, c.line + 1, -1, "line_index[1] is -1 of 3");
    refused_value(&c, c.line + 1, 2, "line_index[1]: line 2 belongs to two sequences");
    refused_value(&c, c.start + 3, 4, "seq_start[3] is 4");
    refused_value(&c, c.spare, 0, "spare[0] is 0 of 4, the slot 0");
    refused_value(&c, c.spare, 4, "spare[0] is 4 of 4, the slot 0");
    refused_value(&c, c.spare, -2, "spare[0] is -2 of 4, the slot 0");

    gdn_core_args bad = c.a;
    bad.line = gdn_tensor_slice(bad.line, 1, 0, 1);
    bad.work_qkv = gdn_tensor_slice(bad.work_qkv, 0, 0, 3 + 3);
    bad.work_gate = gdn_tensor_slice(bad.work_gate, 0, 0, 3 + 3);
    c.start[1] = c.start[2] = 3, c.commit[1] = 1;
    refused(&c, &bad, "sequence 0 has 2 guesses, a line 1 rows");
    c.start[1] = c.start[2] = 2, c.commit[1] = 2;

    bad = c.a, bad.line.buf = NULL;
    refused(&c, &bad, together);
    bad = c.a, bad.line_index.buf = NULL;
    refused(&c, &bad, together);
    bad = c.a, bad.n_commit.buf = NULL;
    refused(&c, &bad, together);
    bad = c.a, bad.keep.buf = NULL;
    refused(&c, &bad, together);
    bad = c.a, bad.line = gdn_tensor_slice(bad.line, 2, 0, CH);
    refused(&c, &bad, "line has shape");
    bad = c.a, bad.line.type = GDN_I32;
    refused(&c, &bad, "line has type i32");
    bad = c.a, bad.line = gdn_tensor_slice(bad.line, 1, 0, 0);
    refused(&c, &bad, "a line of 0 rows");
    bad = c.a, bad.line.stride[0] = 0;
    refused(&c, &bad, "line lie on each other");
    bad = c.a, bad.n_commit = gdn_tensor_slice(bad.n_commit, 0, 0, 2);
    refused(&c, &bad, "n_commit has shape [2], need [3]");
    bad = c.a, bad.keep = gdn_tensor_slice(bad.keep, 0, 0, 2);
    refused(&c, &bad, "keep has shape [2], need [3]");
    bad = c.a, bad.spare = gdn_tensor_slice(bad.spare, 0, 0, 2);
    refused(&c, &bad, "spare has shape [2], need [3]");
    bad = c.a;
    bad.line.buf = bad.line_index.buf = bad.n_commit.buf = bad.keep.buf = NULL;
    refused(&c, &bad, "spare without a line");
    bad = c.a, bad.line_index = gdn_tensor_slice(bad.line_index, 0, 0, 2);
    refused(&c, &bad, "line_index has shape [2], need [3]");
    bad = c.a, bad.work_qkv = gdn_tensor_slice(bad.work_qkv, 0, 0, 3 + 3 * K - 1);
    refused(&c, &bad, "work_qkv has shape [8, 24], need [9, 24]");
    bad = c.a, bad.work_gate = gdn_tensor_slice(bad.work_gate, 0, 0, 3);
    refused(&c, &bad, "work_gate has shape");
    if (gdn_op_gdn_core(c.m.q, &c.a, &err) != GDN_OK) fail_msg("%s", err.text);
    /* Two sequences that do not use a line may name the same one, or none. */
    c.line[1] = c.line[2] = 2, c.commit[1] = 0, c.keep[1] = c.keep[2] = 1;
    if (gdn_op_gdn_core(c.m.q, &c.a, &err) != GDN_OK) fail_msg("%s", err.text);
    /* More lines than a table has room for. */
    block many = make(&c.m, GDN_F32, 3, 8200, K, RAW, 0);
    c.a.line = many.t;
    c.line[0] = 8199, c.line[1] = 7;
    if (gdn_op_gdn_core(c.m.q, &c.a, &err) != GDN_OK) fail_msg("%s", err.text);
    c.commit[1] = 1;
    refused_value(&c, c.line + 1, 8199, "line_index[1]: line 8199 belongs to two sequences");
    drop(&many), drop(&gate);
    for (int i = 0; i < 18; i++) drop(c.all + i);
    close_machine(&c.m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histories),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
