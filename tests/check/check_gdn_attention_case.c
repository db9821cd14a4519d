/* check_gdn_attention_case.c - one call of gdn_attention(): its memory, numbers and expectation.
 *
 * Every tensor is a buffer of its own between poisoned margins; slots of both pools have poison
 * between them, or lie far apart in a sparse mapping.  Slot 0 and the last one belong to nobody,
 * and slots of sequences that start from zeros hold NaN. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check_gdn_attention.h"

enum { GAP = 64, POISON = 0xff };

static double uniform(double lo, double hi) { return lo + (hi - lo) * check_uniform(); }

static int32_t length(const attn_case *k, int32_t s) {
    return k->s.len != NULL ? k->s.len[s] : k->s.n_tok;
}

static bool initial(const attn_case *k, int32_t s) { return !k->s.fresh || s % 3 != 0; }

/* Element (row, channel) of a line. */
static int64_t line_at(const attn_case *k, int32_t row, int32_t c) {
    return k->s.ds ? (int64_t)c * (k->s.W - 1 + k->s.spare) + row : (int64_t)row * k->C + c;
}

/* Column of qkvz: channel c of q | k | v of all heads; behind them those of z. */
static int32_t column(const attn_case *k, int32_t c) {
    const attn_shape *s = &k->s;
    if (s->reorder) return c;
    const int32_t qk = s->nk * s->dk, v = s->nv * s->dv, width = 2 * s->dk + 2 * k->r * s->dv;
    if (c < qk) return c / s->dk * width + c % s->dk;
    if (c < 2 * qk) return (c - qk) / s->dk * width + s->dk + c % s->dk;
    c -= 2 * qk;
    const int32_t part = c / v, group = k->r * s->dv; /* v or z; c % group is in head, element */
    return c % v / group * width + 2 * s->dk + part * group + c % v % group;
}

static int32_t gate_column(const attn_case *k, int32_t h, bool a) {
    if (k->s.reorder) return (a ? k->s.nv : 0) + h;
    return h / k->r * 2 * k->r + (a ? k->r : 0) + h % k->r;
}

static int32_t row_of(const attn_case *k, int32_t token) {
    return k->s.map ? k->map[token] : token;
}

/* --- numbers --------------------------------------------------------------------- */

static void fill(void *p, int64_t n, gdn_type t, double lo, double hi) {
    for (int64_t i = 0; i < n; i++) attn_put(p, i, t, uniform(lo, hi));
}

/* Whether f32 may round the convolution's output y to another number than exact sums do. */
static bool near_middle(double y, gdn_type t) {
    if (t == GDN_F32 || fabs(y) < 1e-6) return false;
    int e;
    frexp(y, &e);
    const double unit = ldexp(1, e - (t == GDN_BF16 ? 8 : 11));
    const double off = fabs(fabs(y / unit - floor(y / unit)) - 0.5) * unit;
    return off < fmin(0.1 * unit, 4e-6);
}

/* x [C], b and a [nv] of token t of n. */
static void draw(const attn_case *k, const attn_ref *r, int32_t t, int32_t n, double *x, double *b,
                 double *a) {
    const gdn_type act = k->s.act;
    const int32_t k0 = k->s.nk * k->s.dk, k1 = 2 * k0;
    for (int32_t c = 0; c < k->C; c++) {
        const bool key = k->s.edges && c >= k0 && c < k1;
        if (key && t > n / 4 && t < n / 2) continue; /* the key before once more */
        for (int i = 0; i < 60; i++) {
            x[c] = attn_round(uniform(-2, 2), act);
            if (key && t >= n / 2 && t < 3 * n / 4) x[c] = 0;
            if (!near_middle(attn_ref_conv(r, c, x[c]), act)) break;
        }
    }
    for (int32_t h = 0; h < k->s.nv; h++) {
        b[h] = attn_round(uniform(-3, 3), act);
        a[h] = attn_round(uniform(-3, 3), act);
        if (!k->s.edges) continue;
        if (t % 3 != 0) b[h] = t % 3 == 1 ? 200 : -200;
        /* Decays e^-g with g from 1e-7 to 100, evenly in its logarithm. */
        a[h] = attn_round(log(expm1(pow(10, uniform(-7, 2)))), act);
        if (!isfinite(a[h])) a[h] = 100;
    }
}

static void put_row(attn_case *k, int32_t row, const double *x, const double *b, const double *a) {
    const gdn_type t = k->s.act;
    const size_t size = (size_t)gdn_type_bytes(t);
    const int64_t width = k->C + k->row;
    for (int32_t c = 0; c < k->C; c++) attn_put(k->qkvz, row * width + column(k, c), t, x[c]);
    for (int32_t i = 0; i < k->row; i++) {
        const int64_t at = row * width + column(k, k->C + i);
        attn_put(k->qkvz, at, t, uniform(-2, 2));
        memcpy(k->z1 + (row * k->row + i) * size, k->qkvz + at * size, size);
    }
    for (int32_t h = 0; h < k->s.nv; h++) {
        attn_put(k->ba, (int64_t)row * 2 * k->s.nv + gate_column(k, h, false), t, b[h]);
        attn_put(k->ba, (int64_t)row * 2 * k->s.nv + gate_column(k, h, true), t, a[h]);
    }
}

/* Inputs and expectation of sequence s, token by token. */
static void sequence(attn_case *k, attn_ref *r, int32_t s, double *x) {
    const int32_t n = length(k, s), slot = k->slot[s], taps = k->s.W - 1;
    const gdn_type t = k->s.act;
    uint8_t *line = k->line0 + slot * k->line_bytes, *state = k->state0 + slot * k->state_bytes;
    uint8_t *line1 = k->line1 + slot * k->line_bytes;
    memset(r->past, 0, (size_t)taps * k->C * sizeof *r->past);
    memset(r->S, 0, (size_t)k->state_n * sizeof *r->S);
    if (initial(k, s)) {
        fill(line, (int64_t)(k->line_bytes / (uint64_t)gdn_type_bytes(t)), t, -2, 2);
        fill(state, k->state_n, k->s.state, -1, 1);
        for (int32_t w = 0; w < taps; w++)
            for (int32_t c = 0; c < k->C; c++)
                r->past[(int64_t)w * k->C + c] = attn_get(line, line_at(k, w, c), t);
        for (int64_t i = 0; i < k->state_n; i++) r->S[i] = attn_get(state, i, k->s.state);
    }
    memcpy(line1, line, k->line_bytes);
    for (int32_t i = 0; i < n; i++) {
        const int32_t row = row_of(k, k->start[s] + i);
        double *b = x + k->C, *a = b + k->s.nv, *core = k->core1 + row * k->row;
        draw(k, r, i, n, x, b, a);
        put_row(k, row, x, b, a);
        attn_ref_token(r, x, b, a, core);
        for (int64_t e = 0; e < k->row; e++) core[e] = attn_round(core[e], t);
        k->covered[row] = true;
    }
    for (int32_t w = 0; w < taps && n > 0; w++)
        for (int32_t c = 0; c < k->C; c++)
            attn_put(line1, line_at(k, w, c), t, r->past[(int64_t)w * k->C + c]);
    for (int64_t i = 0; i < k->state_n; i++)
        k->state1[s * k->state_n + i] = attn_round(r->S[i], k->s.state);
}

/* Weights, then every sequence. */
static void numbers(attn_case *k) {
    const attn_shape *s = &k->s;
    const int64_t C = k->C, taps = (int64_t)C * s->W;
    double *all = calloc((size_t)(taps * 2 + 4 * C + 4 * s->nv + k->state_n), sizeof *all);
    if (all == NULL) abort();
    attn_ref r = {.nk = s->nk, .nv = s->nv, .dk = s->dk, .dv = s->dv, .W = s->W, .act = s->act};
    r.w = all, r.bias = r.w + taps, r.A_log = r.bias + C, r.dt = r.A_log + s->nv;
    r.past = r.dt + s->nv, r.y = r.past + taps, r.S = r.y + C;
    double *x = r.S + k->state_n;
    fill(k->w, taps, s->act, -1, 1);
    if (s->bias) fill(k->bias, C, s->act, -0.5, 0.5);
    fill(k->A_log, s->nv, GDN_F32, s->edges ? 0 : -3, s->edges ? 0 : 1);
    fill(k->dt, s->nv, s->act, s->edges ? 0 : -2, s->edges ? 0 : 2);
    if (s->edges && s->bias) /* so that zero keys stay zero */
        for (int32_t c = s->nk * s->dk; c < 2 * s->nk * s->dk; c++)
            attn_put(k->bias, c, s->act, 0);
    for (int64_t i = 0; i < taps; i++) r.w[i] = attn_get(k->w, i, s->act);
    for (int64_t i = 0; i < C && s->bias; i++) r.bias[i] = attn_get(k->bias, i, s->act);
    for (int64_t h = 0; h < s->nv; h++) {
        r.A_log[h] = (double)k->A_log[h];
        r.dt[h] = attn_get(k->dt, h, s->act);
    }
    for (int32_t i = 0; i < s->n_seq; i++) sequence(k, &r, i, x);
    free(all);
}

/* --- memory ---------------------------------------------------------------------- */

static gdn_tensor tensor(attn_case *k, void *p, gdn_type type, int32_t ndim, int64_t a, int64_t b,
                         int64_t d, int64_t e, uint64_t step) {
    const int64_t shape[4] = {a, b, d, e};
    gdn_tensor t = gdn_tensor_dense(NULL, 0, type, ndim, shape);
    const uint64_t bytes = (uint64_t)a * (step > 0 ? step : (uint64_t)t.stride[0]);
    gdn_err err = {0};
    if (step > 0) t.stride[0] = (int64_t)step;
    check_that(k->c, gdn_buffer_wrap(k->d, p, bytes > 0 ? bytes : 1, &t.buf, &err) == GDN_OK, "%s",
               err.text);
    k->buf[k->n_buf++] = t.buf;
    return t;
}

static void tensors(attn_case *k) {
    const attn_shape *s = &k->s;
    const int64_t lines = s->W - 1 + s->spare;
    k->n_buf = 0;
    k->a = (gdn_attention_args){
        .core = tensor(k, k->core, s->act, 3, k->P, s->nv, s->dv, 0, 0),
        .z = tensor(k, k->z, s->act, 3, k->P, s->nv, s->dv, 0, 0),
        .qkvz = tensor(k, k->qkvz, s->act, 2, k->P, k->C + k->row, 0, 0, 0),
        .ba = tensor(k, k->ba, s->act, 2, k->P, 2 * s->nv, 0, 0, 0),
        .conv_state = tensor(k, k->conv, s->act, 3, k->slots, s->ds ? k->C : lines,
                             s->ds ? lines : k->C, 0, k->conv_step),
        .ssm_state = tensor(k, k->ssm, s->state, 4, k->slots, s->nv, s->dv, s->dk, k->ssm_step),
        .conv_weights = tensor(k, k->w, s->act, 2, k->C, s->W, 0, 0, 0),
        .A_log = tensor(k, k->A_log, GDN_F32, 1, s->nv, 0, 0, 0, 0),
        .dt_bias = tensor(k, k->dt, s->act, 1, s->nv, 0, 0, 0, 0),
        .non_spec_query_start_loc = tensor(k, k->start, GDN_I32, 1, s->n_seq + 1, 0, 0, 0, 0),
        .non_spec_state_indices = tensor(k, k->slot, GDN_I32, 1, s->n_seq, 0, 0, 0, 0),
        .n_k_head = s->nk,
        .n_v_head = s->nv,
        .dk = s->dk,
        .dv = s->dv,
        .tp_size = 1,
        .num_actual_tokens = k->P,
        .null_slot = -1,
        .reorder_input = s->reorder,
        .conv_layout = s->ds ? GDN_CONV_STATE_DS : GDN_CONV_STATE_SD,
    };
    if (s->bias) k->a.conv_bias = tensor(k, k->bias, s->act, 1, k->C, 0, 0, 0, 0);
    if (s->fresh) k->a.has_initial_state = tensor(k, k->initial, GDN_U8, 1, s->n_seq, 0, 0, 0, 0);
    if (s->map) k->a.non_spec_token_indx = tensor(k, k->map, GDN_I32, 1, k->n_tok, 0, 0, 0, 0);
}

static void sizes(attn_case *k) {
    const attn_shape *s = &k->s;
    k->r = s->nv / s->nk;
    k->C = 2 * s->nk * s->dk + s->nv * s->dv;
    k->row = (int64_t)s->nv * s->dv;
    k->state_n = k->row * s->dk;
    k->slots = s->n_seq + 2;
    for (int32_t i = 0; i < s->n_seq; i++) k->n_tok += length(k, i);
    k->P = k->n_tok + (s->map ? k->n_tok / 8 + 5 : 3);
    k->line_bytes = (uint64_t)(s->W - 1 + s->spare) * k->C * gdn_type_bytes(s->act);
    k->state_bytes = (uint64_t)k->state_n * gdn_type_bytes(s->state);
    k->conv_step = s->stride > 0 ? s->stride : k->line_bytes + GAP;
    k->ssm_step = s->stride > 0 ? s->stride : k->state_bytes + GAP;
}

static bool pools(attn_case *k) {
    if (k->s.stride == 0) {
        k->conv = check_bytes(k->c, "conv_state", k->slots * k->conv_step);
        k->ssm = check_bytes(k->c, "ssm_state", k->slots * k->ssm_step);
        return true;
    }
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const uint64_t bytes = (uint64_t)k->slots * k->s.stride;
    void *a = mmap(NULL, bytes, prot, flags, -1, 0), *b = mmap(NULL, bytes, prot, flags, -1, 0);
    if (a == MAP_FAILED || b == MAP_FAILED) {
        if (a != MAP_FAILED) munmap(a, bytes);
        if (b != MAP_FAILED) munmap(b, bytes);
        return false;
    }
    k->mapped = bytes, k->conv = a, k->ssm = b;
    return true;
}

static void *table(size_t n, size_t size) {
    void *p = calloc(n > 0 ? n : 1, size);
    if (p == NULL) abort();
    return p;
}

static void device(attn_case *k, int32_t n_thread) {
    gdn_device_opts o;
    gdn_err err = {0};
    gdn_device_opts_defaults(&o);
    o.n_thread = n_thread > 0 ? n_thread : 2;
    o.isa_mask = k->c->kern->isa;
    if (gdn_device_open("cpu", &o, &k->d, &err) == GDN_OK) gdn_queue_create(k->d, &k->q, &err);
    if (k->q == NULL) abort();
}

bool attn_open(attn_case *k, check *c, const attn_shape *s) {
    *k = (attn_case){.c = c, .s = *s};
    sizes(k);
    if (!pools(k)) return false;
    const size_t act = (size_t)gdn_type_bytes(s->act), rows = (size_t)k->P;
    k->qkvz = check_bytes(c, "qkvz", rows * (size_t)(k->C + k->row) * act);
    k->ba = check_bytes(c, "ba", rows * 2 * s->nv * act);
    k->core = check_bytes(c, "core", rows * (size_t)k->row * act);
    k->z = check_bytes(c, "z", rows * (size_t)k->row * act);
    k->w = check_bytes(c, "conv_weights", (size_t)k->C * s->W * act);
    k->bias = check_bytes(c, "conv_bias", (size_t)k->C * act);
    k->dt = check_bytes(c, "dt_bias", s->nv * act);
    k->A_log = check_f32(c, "A_log", s->nv);
    k->initial = check_bytes(c, "has_initial_state", s->n_seq);
    k->start = check_i32(c, "query_start_loc", s->n_seq + 1);
    k->slot = check_i32(c, "state_indices", s->n_seq);
    k->map = check_i32(c, "token_indx", (size_t)k->n_tok);
    k->part_initial = check_bytes(c, "part has_initial_state", s->n_seq);
    k->part_start = check_i32(c, "part query_start_loc", s->n_seq + 1);
    k->part_slot = check_i32(c, "part state_indices", s->n_seq);
    k->part_map = check_i32(c, "part token_indx", (size_t)k->n_tok);
    k->line0 = table(k->slots, k->line_bytes), k->line1 = table(k->slots, k->line_bytes);
    k->state0 = table(k->slots, k->state_bytes);
    k->z1 = table(rows * (size_t)k->row, act);
    k->core1 = table(rows * (size_t)k->row, sizeof(double));
    k->state1 = table(s->n_seq * (size_t)k->state_n, sizeof(double));
    k->covered = table(rows, sizeof *k->covered);
    memset(k->line0, POISON, k->slots * k->line_bytes);
    memset(k->line1, POISON, k->slots * k->line_bytes);
    memset(k->state0, POISON, k->slots * k->state_bytes);
    k->start[0] = 0;
    for (int32_t i = 0; i < s->n_seq; i++) {
        k->start[i + 1] = k->start[i] + length(k, i);
        k->slot[i] = s->n_seq - i;
        k->initial[i] = initial(k, i);
    }
    for (int32_t i = 0; i < k->n_tok; i++) k->map[i] = k->P - 2 - i;
    for (int32_t i = k->n_tok - 1; i > 0 && s->map; i--) {
        const int32_t j = (int32_t)(check_uniform() * (i + 1)), keep = k->map[i];
        k->map[i] = k->map[j], k->map[j] = keep;
    }
    numbers(k);
    device(k, s->threads);
    tensors(k);
    attn_reset(k);
    return true;
}

static void leave_device(attn_case *k) {
    for (int i = 0; i < k->n_buf; i++) gdn_buffer_free(k->buf[i]);
    gdn_queue_free(k->q);
    gdn_device_close(k->d);
    k->q = NULL, k->d = NULL;
}

void attn_close(attn_case *k) {
    leave_device(k);
    if (k->mapped > 0) munmap(k->conv, k->mapped), munmap(k->ssm, k->mapped);
    free(k->line0), free(k->line1), free(k->state0), free(k->z1);
    free(k->core1), free(k->state1), free(k->covered);
}

void attn_threads(attn_case *k, int32_t n) {
    const gdn_delta_form form = k->a.form;
    leave_device(k);
    device(k, n);
    tensors(k);
    k->a.form = form;
}

void attn_reset(attn_case *k) {
    const size_t bytes = (size_t)(k->P * k->row) * (size_t)gdn_type_bytes(k->s.act);
    memset(k->core, POISON, bytes);
    memset(k->z, POISON, bytes);
    for (int32_t i = 0; i < k->slots; i++) {
        memcpy(k->conv + i * k->conv_step, k->line0 + i * k->line_bytes, k->line_bytes);
        memcpy(k->ssm + i * k->ssm_step, k->state0 + i * k->state_bytes, k->state_bytes);
    }
}

void attn_run(attn_case *k) {
    gdn_err err = {0};
    gdn_status st = gdn_attention(k->q, &k->a, &err);
    if (st == GDN_OK) st = gdn_queue_wait(k->q, &err);
    check_that(k->c, st == GDN_OK, "GDN_OK, not %d: %s", (int)st, err.text);
}

/* Consecutive rows of one sequence go without a map. */
void attn_run_part(attn_case *k, int32_t n, const int32_t *seq, const int32_t *from,
                   const int32_t *count) {
    const gdn_attention_args whole = k->a;
    const int n_buf = k->n_buf;
    int32_t tokens = 0;
    k->part_start[0] = 0;
    for (int32_t i = 0; i < n; i++) {
        k->part_slot[i] = k->slot[seq[i]];
        k->part_initial[i] = from[i] > 0 || initial(k, seq[i]);
        for (int32_t t = 0; t < count[i]; t++)
            k->part_map[tokens++] = row_of(k, k->start[seq[i]] + from[i] + t);
        k->part_start[i + 1] = tokens;
    }
    gdn_attention_args *a = &k->a;
    a->has_initial_state = tensor(k, k->part_initial, GDN_U8, 1, n, 0, 0, 0, 0);
    a->non_spec_query_start_loc = tensor(k, k->part_start, GDN_I32, 1, n + 1, 0, 0, 0, 0);
    a->non_spec_state_indices = tensor(k, k->part_slot, GDN_I32, 1, n, 0, 0, 0, 0);
    if (n == 1 && tokens > 0 && !k->s.map) {
        gdn_tensor *rows[] = {&a->core, &a->z, &a->qkvz, &a->ba};
        for (int i = 0; i < 4; i++)
            *rows[i] = gdn_tensor_slice(*rows[i], 0, k->part_map[0], k->part_map[0] + tokens);
        a->num_actual_tokens = tokens;
    } else {
        a->non_spec_token_indx = tensor(k, k->part_map, GDN_I32, 1, tokens, 0, 0, 0, 0);
    }
    attn_run(k);
    while (k->n_buf > n_buf) gdn_buffer_free(k->buf[--k->n_buf]);
    k->a = whole;
}

/* --- comparing ------------------------------------------------------------------- */

double attn_core_bound(const attn_case *k) {
    const bool chunked = k->a.form == GDN_FORM_CHUNKED;
    if (k->s.act == GDN_F32) return chunked ? 1e-4 : 2e-6;
    return (chunked ? 6e-3 : 1e-3) / (k->s.act == GDN_F16 ? 8 : 1);
}

/* States of 16 bits: an error e moves a share e / ulp of the roundings by one ulp; the figure of
 * core is above that.  Recurrent ones in f32 are those of f32 rows, because no convolution output
 * is rounded wrongly here; op.h's figure for 16-bit rows allows for that. */
double attn_state_bound(const attn_case *k) {
    const bool chunked = k->a.form == GDN_FORM_CHUNKED;
    if (k->s.state != GDN_F32)
        return fmax(attn_core_bound(k), k->s.state == GDN_BF16 ? 1e-3 : 1e-3 / 8);
    if (!chunked) return 2e-6;
    return k->s.act == GDN_F32 ? 1e-4 : k->s.act == GDN_BF16 ? 2e-3 : 2e-3 / 8;
}

typedef struct {
    double sum, norm;
} figure;

static void add(figure *f, const uint8_t *got, gdn_type t, const double *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double d = attn_get(got, i, t) - want[i];
        f->sum += isfinite(d) ? d * d : INFINITY;
        f->norm += want[i] * want[i];
    }
}

static double relative(figure f) {
    return f.sum <= 0 ? 0 : f.norm > 0 ? sqrt(f.sum / f.norm) : INFINITY;
}

static bool poisoned(const uint8_t *p, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (p[i] != POISON) return false;
    return true;
}

static void compare_rows(attn_case *k, const char *what, figure *f) {
    const gdn_type t = k->s.act;
    const uint64_t bytes = (uint64_t)k->row * gdn_type_bytes(t);
    for (int32_t i = 0; i < k->P; i++) {
        const uint8_t *core = k->core + i * bytes, *z = k->z + i * bytes;
        if (!k->covered[i]) {
            if (check_that(k->c, poisoned(core, bytes) && poisoned(z, bytes),
                           "%s: row %d of nobody kept", what, i))
                continue;
            return;
        }
        add(f, core, t, k->core1 + i * k->row, k->row);
        if (!check_bits(k->c, "z", k->z1 + i * bytes, z, k->row, (size_t)gdn_type_bytes(t))) return;
    }
}

static void compare_slots(attn_case *k, const char *what, figure *f) {
    const size_t act = (size_t)gdn_type_bytes(k->s.act), size = (size_t)gdn_type_bytes(k->s.state);
    for (int32_t i = 0; i < k->slots; i++) {
        const uint8_t *line = k->conv + i * k->conv_step, *state = k->ssm + i * k->ssm_step;
        const int32_t s = k->s.n_seq - i;
        const bool used = s >= 0 && s < k->s.n_seq && length(k, s) > 0;
        if (!check_bits(k->c, "conv_state", k->line1 + i * k->line_bytes, line, k->line_bytes / act,
                        act))
            return;
        if (used) add(f, state, k->s.state, k->state1 + s * k->state_n, k->state_n);
        else
            check_bits(k->c, "unused ssm_state", k->state0 + i * k->state_bytes, state,
                       (size_t)k->state_n, size);
        if (k->s.stride == 0)
            check_that(k->c, poisoned(line + k->line_bytes, GAP) &&
                                 poisoned(state + k->state_bytes, GAP),
                       "%s: bytes behind slot %d kept", what, i);
    }
}

void attn_compare(attn_case *k, const char *what, attn_error *e) {
    figure core = {0}, state = {0};
    compare_rows(k, what, &core);
    compare_slots(k, what, &state);
    e->core = relative(core), e->state = relative(state);
    check_that(k->c, e->core <= attn_core_bound(k), "%s: core within %.2g, not %.3g", what,
               attn_core_bound(k), e->core);
    check_that(k->c, e->state <= attn_state_bound(k), "%s: states within %.2g, not %.3g", what,
               attn_state_bound(k), e->state);
}

attn_error attn_error_of(const attn_case *k, int32_t s, int32_t begin, int32_t end) {
    const uint64_t bytes = (uint64_t)k->row * gdn_type_bytes(k->s.act);
    figure core = {0}, state = {0};
    for (int32_t i = begin; i < end; i++) {
        const int32_t row = row_of(k, k->start[s] + i);
        add(&core, k->core + row * bytes, k->s.act, k->core1 + row * k->row, k->row);
    }
    add(&state, k->ssm + k->slot[s] * k->ssm_step, k->s.state, k->state1 + s * k->state_n,
        k->state_n);
    return (attn_error){.core = relative(core), .state = relative(state)};
}

attn_image attn_save(const attn_case *k) {
    const uint64_t rows = (uint64_t)(k->P * k->row * gdn_type_bytes(k->s.act));
    attn_image m = {.n = 2 * rows + k->slots * (k->line_bytes + k->state_bytes)};
    uint8_t *p = m.bytes = table(m.n, 1);
    memcpy(p, k->core, rows), p += rows;
    memcpy(p, k->z, rows), p += rows;
    for (int32_t i = 0; i < k->slots; i++) {
        memcpy(p, k->conv + i * k->conv_step, k->line_bytes), p += k->line_bytes;
        memcpy(p, k->ssm + i * k->ssm_step, k->state_bytes), p += k->state_bytes;
    }
    return m;
}

void attn_same(attn_case *k, const attn_image *image, const char *what) {
    attn_image now = attn_save(k);
    check_bits(k->c, what, image->bytes, now.bytes, now.n, 1);
    free(now.bytes);
}
