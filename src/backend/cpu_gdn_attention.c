/* cpu_gdn_attention.c - the whole operator on the cpu.
 *
 * Rows go through in waves of whole sequences (or a stretch of one long sequence), each in five
 * regions: unpack rows to f32 in one channel order and copy z; convolution; gates; delta rule;
 * round the result into place.  Histories and, where the pool is not f32, states live in f32
 * scratch between the regions and the stretches, and are rounded once when a sequence ends.
 *
 *     qkvz, ba ──► x ──conv──► y ──gates──► q k v, alpha beta ──delta──► o ──► core
 */
#include <stdlib.h>
#include <string.h>

#include "../base/arena.h"
#include "../base/half.h"
#include "cpu.h"

enum {
    WAVE_ROWS = 1024, /* rows of a wave, unless one sequence alone is longer       */
    CHANNELS = 512,   /* of a convolution task                                     */
    STATE_ROWS = 32,  /* of a delta-rule task                                      */
    MAX_DK = 256,
};

/* One sequence of a wave. */
typedef struct {
    const int32_t *map;  /* rows of its tokens, NULL: from row on                   */
    const int32_t *column; /* speculative: the slots of its columns                 */
    int64_t row;         /* without a map                                           */
    int64_t from, n;     /* its tokens in this wave                                 */
    int64_t at;          /* first row in the wave's scratch                         */
    int64_t slot, read;  /* of the convolution's line; of the state to start from   */
    int64_t line;        /* row of the line where its history begins                */
    bool    fresh;       /* starts from zeros                                       */
    bool    none, last;  /* none: zero rows, no state; last: ends in this wave      */
} member;

typedef struct {
    const cpu_device *d;
    const gdn_attention_args *a;
    int64_t nk, nv, r, dk, dv, C, W;
    member *m;
    int64_t n_member, rows;
    float  *x, *y, *o, *ba, *gate; /* [rows][C], [rows][C], [rows][nv dv], [rows][2 nv] twice */
    float  *hist;                  /* [members][W - 1][C]                             */
    float  *S;                     /* [nv][dv][dk] of a sequence cut into stretches   */
    float  *w, *bias, *dt;         /* weights in f32, taps outermost                  */
} job;

static float load(const void *p, int64_t i, gdn_type t) {
    switch (t) {
    case GDN_F32: return ((const float *)p)[i];
    case GDN_BF16: return gdn_bf16_to_f32(((const uint16_t *)p)[i]);
    default: return gdn_f16_to_f32(((const uint16_t *)p)[i]);
    }
}

static void store(void *p, int64_t i, gdn_type t, float v) {
    switch (t) {
    case GDN_F32: ((float *)p)[i] = v; break;
    case GDN_BF16: ((uint16_t *)p)[i] = gdn_f32_to_bf16(v); break;
    default: ((uint16_t *)p)[i] = gdn_f32_to_f16(v);
    }
}

static void load_n(float *to, const void *p, int64_t at, int64_t n, gdn_type t) {
    for (int64_t i = 0; i < n; i++) to[i] = load(p, at + i, t);
}

static void store_n(void *p, int64_t at, int64_t n, gdn_type t, const float *from) {
    for (int64_t i = 0; i < n; i++) store(p, at + i, t, from[i]);
}

static float round_to(float v, gdn_type t) {
    return t == GDN_BF16  ? gdn_bf16_to_f32(gdn_f32_to_bf16(v))
           : t == GDN_F16 ? gdn_f16_to_f32(gdn_f32_to_f16(v))
                          : v;
}

static int64_t global_row(const member *m, int64_t t) {
    return m->map != NULL ? m->map[m->from + t] : m->row + m->from + t;
}

/* The member that row i of the wave belongs to, from a guess that only moves on. */
static const member *member_of(const job *j, int64_t i, int64_t *guess) {
    while (j->m[*guess].at + j->m[*guess].n <= i) ++*guess;
    return j->m + *guess;
}

/* --- rows in ------------------------------------------------------------------------- */

static void unpack_grouped(const job *j, const void *p, float *x, char *z, gdn_type t) {
    const int64_t width = 2 * j->dk + 2 * j->r * j->dv, bytes = gdn_type_bytes(t);
    for (int64_t g = 0; g < j->nk; g++) {
        const int64_t at = g * width;
        load_n(x + g * j->dk, p, at, j->dk, t);
        load_n(x + (j->nk + g) * j->dk, p, at + j->dk, j->dk, t);
        load_n(x + 2 * j->nk * j->dk + g * j->r * j->dv, p, at + 2 * j->dk, j->r * j->dv, t);
        memcpy(z + g * j->r * j->dv * bytes,
               (const char *)p + (at + 2 * j->dk + j->r * j->dv) * bytes,
               (size_t)(j->r * j->dv * bytes));
    }
}

/* z heads may be strided: `to` receives [nv][dv] head by head. */
static void put_heads(const job *j, const gdn_tensor *t, int64_t row, const char *from) {
    const int64_t bytes = j->dv * gdn_type_bytes(t->type);
    for (int64_t h = 0; h < j->nv; h++) {
        char *to = cpu_at(t, row) + h * t->stride[1];
        if (from == NULL) memset(to, 0, (size_t)bytes);
        else memcpy(to, from + h * bytes, (size_t)bytes);
    }
}

static void unpack(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const job *j = arg;
    const gdn_attention_args *a = j->a;
    const gdn_type t = a->qkvz.type;
    int64_t guess = 0;
    for (int64_t i = begin; i < end; i++) {
        const member *m = member_of(j, i, &guess);
        const int64_t row = global_row(m, i - m->at);
        if (m->none) {
            put_heads(j, &a->z, row, NULL);
            put_heads(j, &a->core, row, NULL);
            continue;
        }
        const void *p = cpu_at(&a->qkvz, row), *ba = cpu_at(&a->ba, row);
        float *x = j->x + i * j->C, *out = j->ba + i * 2 * j->nv;
        if (a->reorder_input) {
            load_n(x, p, 0, j->C, t);
            put_heads(j, &a->z, row, (const char *)p + j->C * gdn_type_bytes(t));
            load_n(out, ba, 0, 2 * j->nv, t);
            continue;
        }
        /* The wave's o is free until the delta rule: z passes through it. */
        char *z = (char *)(j->o + i * j->nv * j->dv);
        unpack_grouped(j, p, x, z, t);
        put_heads(j, &a->z, row, z);
        for (int64_t g = 0; g < j->nk; g++) {
            load_n(out + g * j->r, ba, 2 * g * j->r, j->r, t);
            load_n(out + j->nv + g * j->r, ba, (2 * g + 1) * j->r, j->r, t);
        }
    }
}

/* --- convolution ----------------------------------------------------------------------- */

/* Element (row, channel) of a slot's line, in elements from the slot. */
static int64_t line_at(const job *j, int64_t row, int64_t c) {
    const gdn_tensor *s = &j->a->conv_state;
    const int64_t r = cpu_stride(s, 1), k = cpu_stride(s, 2);
    return j->a->conv_layout == GDN_CONV_STATE_SD ? row * r + c * k : c * r + row * k;
}

static void conv_member(const job *j, const member *m, float *hist, int64_t c0, int64_t c1) {
    const gdn_attention_args *a = j->a;
    const gdn_type t = a->qkvz.type;
    void *line = cpu_at(&a->conv_state, m->slot);
    if (m->from == 0)
        for (int64_t w = 0; w < j->W - 1; w++)
            for (int64_t c = c0; c < c1; c++)
                hist[w * j->C + c] = m->fresh ? 0.0f : load(line, line_at(j, m->line + w, c), t);
    if (m->column != NULL) /* the history less its oldest row, then the inputs */
        for (int64_t c = c0; c < c1; c++) {
            for (int64_t w = 1; w < j->W - 1; w++)
                store(line, line_at(j, w - 1, c), t, hist[w * j->C + c]);
            for (int64_t i = 0; i < m->n; i++)
                store(line, line_at(j, j->W - 2 + i, c), t, j->x[(m->at + i) * j->C + c]);
        }
    gdn_conv_args k = {.y = j->y + m->at * j->C,
                       .x = j->x + m->at * j->C,
                       .state = hist,
                       .w = j->w,
                       .bias = j->bias,
                       .y_stride = j->C,
                       .x_stride = j->C,
                       .state_stride = j->C,
                       .n_tok = (int32_t)m->n,
                       .C = (int32_t)j->C,
                       .c0 = (int32_t)c0,
                       .c1 = (int32_t)c1,
                       .W = (int32_t)j->W,
                       .has_state = true};
    j->d->kern.conv(&k);
    if (m->column == NULL && m->last)
        for (int64_t w = 0; w < j->W - 1; w++)
            for (int64_t c = c0; c < c1; c++)
                store(line, line_at(j, w, c), t, hist[w * j->C + c]);
    if (t != GDN_F32)
        for (int64_t i = m->at; i < m->at + m->n; i++)
            for (int64_t c = c0; c < c1; c++)
                j->y[i * j->C + c] = round_to(j->y[i * j->C + c], t);
}

static void conv(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const job *j = arg;
    const int64_t chunks = (j->C + CHANNELS - 1) / CHANNELS;
    for (int64_t i = begin; i < end; i++) {
        const member *m = j->m + i / chunks;
        const int64_t c0 = i % chunks * CHANNELS;
        if (!m->none)
            conv_member(j, m, j->hist + i / chunks * (j->W - 1) * j->C, c0,
                        c0 + CHANNELS < j->C ? c0 + CHANNELS : j->C);
    }
}

/* --- gates and delta rule ---------------------------------------------------------------- */

static void gates(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const job *j = arg;
    int64_t guess = 0;
    for (int64_t i = begin; i < end; i++) {
        if (member_of(j, i, &guess)->none) continue;
        float *q = j->y + i * j->C, *gate = j->gate + i * 2 * j->nv;
        const float *ba = j->ba + i * 2 * j->nv;
        gdn_delta_prep_args k = {.q = q,
                                 .k = q + j->nk * j->dk,
                                 .alpha = gate,
                                 .beta = gate + j->nv,
                                 .b = ba,
                                 .a = ba + j->nv,
                                 .A_log = gdn_tensor_host(&j->a->A_log),
                                 .dt_bias = j->dt,
                                 .qk_stride = j->C,
                                 .gate_stride = 2 * j->nv,
                                 .ba_stride = 2 * j->nv,
                                 .n_tok = 1,
                                 .hk = (int32_t)j->nk,
                                 .hv = (int32_t)j->nv,
                                 .dk = (int32_t)j->dk};
        j->d->kern.delta_prep(&k);
    }
}

/* Rows v0 .. v1 - 1 of head h in a slot. */
static void *state_rows(const job *j, int64_t slot, int64_t h, int64_t v0) {
    const gdn_tensor *s = &j->a->ssm_state;
    return cpu_at(s, slot) + h * s->stride[1] + v0 * s->stride[2];
}

static gdn_delta_args delta_args(const job *j, const member *m, int64_t h, int64_t v0, int64_t v1) {
    const float *y = j->y + m->at * j->C, *gate = j->gate + m->at * 2 * j->nv;
    const int64_t kh = h / j->r;
    return (gdn_delta_args){.o = j->o + (m->at * j->nv + h) * j->dv + v0,
                            .q = y + kh * j->dk,
                            .k = y + (j->nk + kh) * j->dk,
                            .v = y + 2 * j->nk * j->dk + h * j->dv + v0,
                            .alpha = gate + h,
                            .beta = gate + j->nv + h,
                            .o_stride = j->nv * j->dv,
                            .q_stride = j->C,
                            .k_stride = j->C,
                            .v_stride = j->C,
                            .gate_stride = 2 * j->nv,
                            .n_tok = (int32_t)m->n,
                            .dk = (int32_t)j->dk,
                            .dv = (int32_t)(v1 - v0),
                            .v0 = 0,
                            .v1 = (int32_t)(v1 - v0)};
}

/* A plain sequence: the state is the pool itself when that is f32, else f32 scratch. */
static void delta_plain(const job *j, const member *m, int64_t h, int64_t v0, int64_t v1,
                        float *scratch) {
    const gdn_type t = j->a->ssm_state.type;
    void *pool = state_rows(j, m->slot, h, v0);
    const int64_t n = (v1 - v0) * j->dk;
    const bool whole = m->from == 0 && m->last;
    float *S = t == GDN_F32 ? pool : whole ? scratch : j->S + (h * j->dv + v0) * j->dk;
    if (m->from == 0 && m->fresh) memset(S, 0, (size_t)n * sizeof *S);
    else if (m->from == 0 && t != GDN_F32) load_n(S, pool, 0, n, t);
    gdn_delta_args k = delta_args(j, m, h, v0, v1);
    k.S = S;
    j->d->kern.delta(&k);
    if (t != GDN_F32 && m->last) store_n(pool, 0, n, t, S);
}

/* A speculative one: the state after every token goes to that token's column. */
static void delta_spec(const job *j, const member *m, int64_t h, int64_t v0, int64_t v1, float *S) {
    const gdn_type t = j->a->ssm_state.type;
    const int64_t n = (v1 - v0) * j->dk;
    load_n(S, state_rows(j, m->read, h, v0), 0, n, t);
    gdn_delta_args k = delta_args(j, m, h, v0, v1);
    k.S = S;
    k.n_tok = 1;
    for (int64_t i = 0; i < m->n; i++) {
        j->d->kern.delta(&k);
        if (m->column[i] >= 0 && m->column[i] != j->a->null_slot)
            store_n(state_rows(j, m->column[i], h, v0), 0, n, t, S);
        k.o += k.o_stride;
        k.q += k.q_stride;
        k.k += k.k_stride;
        k.v += k.v_stride;
        k.alpha += k.gate_stride;
        k.beta += k.gate_stride;
    }
}

static void delta(void *arg, int64_t begin, int64_t end, int thread) {
    const job *j = arg;
    float *scratch = cpu_scratch(j->d, thread); /* STATE_ROWS x MAX_DK floats */
    const int64_t groups = (j->dv + STATE_ROWS - 1) / STATE_ROWS, tasks = j->nv * groups;
    for (int64_t i = begin; i < end; i++) {
        const member *m = j->m + i / tasks;
        const int64_t h = i % tasks / groups, v0 = i % groups * STATE_ROWS;
        const int64_t v1 = v0 + STATE_ROWS < j->dv ? v0 + STATE_ROWS : j->dv;
        if (m->none) continue;
        if (m->column != NULL) delta_spec(j, m, h, v0, v1, scratch);
        else delta_plain(j, m, h, v0, v1, scratch);
    }
}

static void out(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const job *j = arg;
    int64_t guess = 0;
    for (int64_t i = begin; i < end; i++) {
        const member *m = member_of(j, i, &guess);
        if (m->none) continue;
        char *row = cpu_at(&j->a->core, global_row(m, i - m->at));
        for (int64_t h = 0; h < j->nv; h++)
            store_n(row + h * j->a->core.stride[1], 0, j->dv, j->a->core.type,
                    j->o + (i * j->nv + h) * j->dv);
    }
}

/* --- waves ------------------------------------------------------------------------------- */

static void run_wave(job *j) {
    cpu_device *d = (cpu_device *)j->d;
    if (j->rows == 0) return;
    const double cost = (double)j->rows * (double)j->C;
    cpu_run(d, j->rows, cost, unpack, j);
    cpu_run(d, j->n_member * ((j->C + CHANNELS - 1) / CHANNELS), cost, conv, j);
    cpu_run(d, j->rows, cost, gates, j);
    cpu_run(d, j->n_member * j->nv * ((j->dv + STATE_ROWS - 1) / STATE_ROWS), 10 * cost, delta, j);
    cpu_run(d, j->rows, cost, out, j);
    j->rows = j->n_member = 0;
}

/* Add a sequence to the wave, running full ones; a long sequence goes alone, in stretches. */
static void add(job *j, member m, int64_t n) {
    if (n == 0) return;
    if (j->rows + n > WAVE_ROWS) run_wave(j);
    for (m.from = 0; m.from < n; m.from += m.n) {
        m.n = n - m.from < WAVE_ROWS ? n - m.from : WAVE_ROWS;
        m.last = m.from + m.n == n;
        m.at = j->rows;
        j->m[j->n_member++] = m;
        j->rows += m.n;
        if (!m.last || n > WAVE_ROWS) run_wave(j);
    }
}

static bool is_none(const gdn_attention_args *a, int32_t slot) {
    return slot < 0 || slot == a->null_slot;
}

static void add_spec(job *j) {
    const gdn_attention_args *a = j->a;
    const int32_t *start = gdn_tensor_host(&a->spec_query_start_loc);
    const int32_t *map = gdn_tensor_host(&a->spec_token_indx);
    const int32_t *accepted = gdn_tensor_host(&a->num_accepted_tokens);
    for (int64_t s = 0; s + 1 < a->spec_query_start_loc.shape[0]; s++) {
        const int32_t *slot = (const int32_t *)(const void *)cpu_at(&a->spec_state_indices, s);
        const int32_t init = accepted[s] > 0 ? accepted[s] - 1 : 0;
        add(j,
            (member){.map = map != NULL ? map + start[s] : NULL,
                     .row = start[s],
                     .column = slot,
                     .slot = slot[0],
                     .read = slot[init],
                     .line = init,
                     .none = is_none(a, slot[0])},
            start[s + 1] - start[s]);
    }
}

static void add_plain(job *j) {
    const gdn_attention_args *a = j->a;
    const int32_t *start = gdn_tensor_host(&a->non_spec_query_start_loc);
    const int32_t *map = gdn_tensor_host(&a->non_spec_token_indx);
    const int32_t *slot = gdn_tensor_host(&a->non_spec_state_indices);
    const unsigned char *initial = gdn_tensor_host(&a->has_initial_state);
    for (int64_t s = 0; s + 1 < a->non_spec_query_start_loc.shape[0]; s++)
        add(j,
            (member){.map = map != NULL ? map + start[s] : NULL,
                     .row = start[s],
                     .slot = slot[s],
                     .fresh = initial != NULL && initial[s] == 0,
                     .none = is_none(a, slot[s])},
            start[s + 1] - start[s]);
}

static int64_t tokens_of(const gdn_tensor *loc) {
    return loc->buf != NULL ? ((const int32_t *)gdn_tensor_host(loc))[loc->shape[0] - 1] : 0;
}

/* Weights in f32; taps outermost. */
static void load_weights(job *j) {
    const gdn_attention_args *a = j->a;
    for (int64_t c = 0; c < j->C; c++)
        for (int64_t w = 0; w < j->W; w++)
            j->w[w * j->C + c] = load(cpu_at(&a->conv_weights, c), w, a->conv_weights.type);
    if (j->bias != NULL)
        load_n(j->bias, gdn_tensor_host(&a->conv_bias), 0, j->C, a->conv_bias.type);
    load_n(j->dt, gdn_tensor_host(&a->dt_bias), 0, j->nv, a->dt_bias.type);
}

gdn_status cpu_op_gdn_attention(gdn_queue *q, const gdn_attention_args *a, gdn_err *err) {
    job j = {.d = cpu_of(q), .a = a, .dk = a->dk, .dv = a->dv};
    j.nk = a->n_k_head / a->tp_size;
    j.nv = a->n_v_head / a->tp_size;
    j.r = j.nv / j.nk;
    j.C = 2 * j.nk * j.dk + j.nv * j.dv;
    j.W = a->conv_weights.shape[1];
    const int64_t tokens = tokens_of(&a->non_spec_query_start_loc) +
                           tokens_of(&a->spec_query_start_loc);
    const int64_t R = tokens < WAVE_ROWS ? tokens : WAVE_ROWS; /* rows and members of a wave */
    if (R == 0) return GDN_OK;
    const bool keep = a->ssm_state.type != GDN_F32 && tokens > WAVE_ROWS;
    struct {
        float **p;
        int64_t n;
    } part[] = {
        {&j.x, R * j.C},        {&j.y, R * j.C},          {&j.o, R * j.nv * j.dv},
        {&j.ba, R * 2 * j.nv},  {&j.gate, R * 2 * j.nv},  {&j.hist, R * (j.W - 1) * j.C},
        {&j.w, j.W * j.C},      {&j.bias, a->conv_bias.buf != NULL ? j.C : 0},
        {&j.dt, j.nv},          {&j.S, keep ? j.nv * j.dv * j.dk : 0},
    };
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        bytes += ((uint64_t)part[i].n * sizeof(float) + 63) / 64 * 64;
    char *work = gdn_big_alloc(bytes);
    j.m = malloc((size_t)R * sizeof *j.m);
    if (work == NULL || j.m == NULL) {
        gdn_big_free(work, bytes);
        free(j.m);
        return gdn_fail(err, GDN_E_NOMEM, "gdn_attention: %.1f MB of scratch", (double)bytes * 1e-6);
    }
    uint64_t at = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].p = part[i].n > 0 ? (float *)(void *)(work + at) : NULL;
        at += ((uint64_t)part[i].n * sizeof(float) + 63) / 64 * 64;
    }
    load_weights(&j);
    if (a->spec_query_start_loc.buf != NULL) add_spec(&j);
    if (a->non_spec_query_start_loc.buf != NULL) add_plain(&j);
    run_wave(&j);
    gdn_big_free(work, bytes);
    free(j.m);
    return GDN_OK;
}
