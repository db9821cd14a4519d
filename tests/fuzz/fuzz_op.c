/* fuzz_op.c - any arguments to the operators: a result, or a refusal.
 *
 * The input describes a valid small call, then what to change in it: tensors (place, type, shape,
 * strides, absence, another's memory), numbers, indices.  A refused call changes no byte but scratch;
 * one that runs changes only rows and slots that its sequences cover.  Every tensor's memory is an
 * allocation of its own, so that the sanitizer sees the first byte outside. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "fuzz_op: %s\n", what);
    abort();
}

/* --- the input ---------------------------------------------------------------------------- */

static const uint8_t *in;
static size_t left;
static uint32_t rng;

static uint32_t byte(void) {
    if (left == 0) return 0;
    left--;
    return *in++;
}
static int32_t below(int32_t n) { return (int32_t)(byte() % (uint32_t)n); }
static bool chance(int32_t n) { return left > 0 && below(n) == 1; }

/* --- memory -------------------------------------------------------------------------------- */

enum { MAX_ITEM = 32, MAX_NUMBER = 16 };

static struct {
    gdn_tensor *t;
    gdn_buffer *buf;
    uint8_t *mem, *before, *may; /* may: bytes that a call that runs may change */
    size_t   bytes;
} item[MAX_ITEM];
static int n_item;
static int32_t *number[MAX_NUMBER];
static int64_t *wide_number;
static int n_number;

static gdn_device *dev;
static gdn_queue  *q;
static gdn_weight *weights[7]; /* fused, qkv, z, ba, b, a, out */
enum { NK = 2, NV = 4, DK = 8, DV = 9, D = 10, DOUT = 7, ZC = NV * DV, C = 2 * NK * DK + ZC };

static gdn_weight *weight(int32_t n, int32_t k) {
    static float data[(C + ZC) * ZC];
    gdn_weight *w = NULL;
    gdn_err err;
    for (size_t i = 0; i < sizeof data / sizeof *data; i++) data[i] = (float)(i % 17) / 16 - 0.5f;
    const gdn_weight_part part = {.data = data, .n_row = n, .row_bytes = k * 4};
    const gdn_weight_desc desc = {.type = GDN_F32, .n_expert = 1, .n = n, .k = k, .part = &part, .n_part = 1};
    expect(gdn_weight_create(dev, &desc, &w, &err) == GDN_OK, "a weight was refused");
    return w;
}

static void add_item(gdn_tensor *t, size_t bytes) {
    gdn_err err;
    expect(n_item < MAX_ITEM, "too many tensors");
    uint8_t *p = malloc(bytes > 0 ? bytes : 1);
    expect(p != NULL, "no memory");
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)((rng = rng * 1664525 + 1013904223) >> 24);
    item[n_item].t = t;
    item[n_item].mem = p;
    item[n_item].bytes = bytes;
    expect(gdn_buffer_wrap(dev, p, bytes, &item[n_item].buf, &err) == GDN_OK, "wrap");
    n_item++;
}

/* A tensor of random bytes, made tame where it holds numbers; rows may have a gap. */
static void add(gdn_tensor *t, gdn_type type, int32_t ndim, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    *t = gdn_tensor_dense(NULL, 0, type, ndim, shape);
    const int32_t e = gdn_type_bytes(type);
    if (ndim > 1 && chance(4)) t->stride[0] += e * (1 + below(5));
    const size_t bytes = shape[0] == 0 ? 0 : (size_t)(ndim > 1 ? shape[0] * t->stride[0] : shape[0] * e);
    add_item(t, bytes);
    t->buf = item[n_item - 1].buf;
    if (type == GDN_F32 || type == GDN_BF16 || type == GDN_F16) /* exponents of about one; f16 too */
        for (size_t i = (size_t)e - 1; i < bytes; i += (size_t)e)
            item[n_item - 1].mem[i] = (uint8_t)((item[n_item - 1].mem[i] & 0x83) | 0x38);
}

static int32_t *add_ints(gdn_tensor *t, int32_t ndim, int64_t a, int64_t b) {
    add(t, GDN_I32, ndim, a, b, 0, 0);
    t->stride[0] = ndim > 1 ? b * 4 : 4; /* the caller fills it as a dense array */
    return (int32_t *)(void *)item[n_item - 1].mem;
}

static void add_number(int32_t *p) { number[n_number++] = p; }

static void free_all(void) {
    for (int i = 0; i < n_item; i++) {
        gdn_buffer_free(item[i].buf);
        free(item[i].mem), free(item[i].before), free(item[i].may);
    }
    memset(item, 0, sizeof item);
    n_item = n_number = 0;
    wide_number = NULL;
}

/* --- changes --------------------------------------------------------------------------------- */

static int64_t odd_number(int64_t now) {
    static const int64_t some[] = {0, 1, -1, 2, 3, 7, 8, 64, 255, 4096, INT32_MAX, INT32_MIN, INT64_MAX,
                                   INT64_MIN, INT64_MAX - 3, (int64_t)1 << 32, (int64_t)1 << 62};
    const int32_t k = below(32);
    if (k < (int32_t)(sizeof some / sizeof *some)) return some[k];
    const int64_t by = below(16) - 8;
    return (int64_t)((uint64_t)now + (uint64_t)(k < 24 ? by : by * 4));
}

static void change_tensor(gdn_tensor *t) {
    const int32_t i = below(GDN_MAX_DIM), other = below(n_item);
    switch (below(8)) {
    case 0: t->buf = NULL; break;
    case 1: t->at = (uint64_t)odd_number((int64_t)t->at); break;
    case 2: t->type = (gdn_type)below(8); break;
    case 3: t->ndim = (int32_t)odd_number(t->ndim); break;
    case 4: t->shape[i] = odd_number(t->shape[i]); break;
    case 5: t->stride[i] = odd_number(t->stride[i]); break;
    case 6: t->buf = item[other].buf; break;
    default:
        if (item[other].t != NULL) *t = *item[other].t;
    }
}

static void change(void) {
    const int32_t kind = below(4), i = below(n_item);
    if (kind == 0 && n_number > 0) {
        int32_t *p = number[below(n_number)];
        *p = (int32_t)odd_number(*p);
    } else if (kind == 1 && wide_number != NULL && chance(4)) {
        *wide_number = odd_number(*wide_number);
    } else if (kind <= 2 && item[i].t != NULL && item[i].t->type == GDN_I32 && item[i].bytes >= 4) {
        int32_t *p = (int32_t *)(void *)item[i].mem + (size_t)below(256) % (item[i].bytes / 4);
        *p = (int32_t)odd_number(*p);
    } else if (item[i].t != NULL) change_tensor(item[i].t);
}

/* Nothing that the buffers do not hold is repeated without end by a stride of zero. */
static bool too_long(void) {
    for (int i = 0; i < n_item; i++)
        for (int k = 0; item[i].t != NULL && k < GDN_MAX_DIM; k++)
            if (item[i].t->shape[k] > 300 && item[i].t->stride[k] == 0) return true;
    return false;
}

static void change_some(void) {
    for (int32_t n = chance(2) ? 1 + below(4) : 0; n > 0; n--) change();
    for (int i = 0; i < n_item; i++) {
        item[i].before = malloc(item[i].bytes + 1);
        item[i].may = calloc(1, item[i].bytes + 1);
        expect(item[i].before != NULL && item[i].may != NULL, "no memory");
        memcpy(item[i].before, item[i].mem, item[i].bytes);
    }
}

/* --- what may change ---------------------------------------------------------------------------- */

static void may_change(gdn_tensor t) {
    int at = 0;
    while (at < n_item && item[at].buf != t.buf) at++;
    if (at == n_item) return;
    for (int32_t i = 0; i < t.ndim; i++)
        if (t.shape[i] == 0) return;
    int64_t index[GDN_MAX_DIM] = {0};
    for (;;) {
        uint64_t b = t.at;
        for (int32_t i = 0; i < t.ndim; i++) b += (uint64_t)(index[i] * t.stride[i]);
        expect(b + (uint64_t)gdn_type_bytes(t.type) <= item[at].bytes, "accepted outside its buffer");
        memset(item[at].may + b, 1, (size_t)gdn_type_bytes(t.type));
        int32_t i = t.ndim - 1;
        while (i >= 0 && ++index[i] == t.shape[i]) index[i--] = 0;
        if (i < 0) return;
    }
}

static void may_change_at(const gdn_tensor *t, int64_t i) { may_change(gdn_tensor_slice(*t, 0, i, i + 1)); }

static const int32_t *ints(const gdn_tensor *t, int64_t row) {
    return t->buf == NULL ? NULL
                          : (const int32_t *)(const void *)((const char *)gdn_buffer_host(t->buf) + t->at +
                                                            (t->ndim > 1 ? row * t->stride[0] : 0));
}

typedef struct {
    const gdn_tensor *start, *map, *slot, *accepted; /* accepted NULL: a plain group */
    const gdn_tensor *row[2], *conv, *ssm;           /* NULL: not written             */
    int32_t null_slot;
    int64_t W;
    bool    ds;
} group;

static void may_change_slot(const group *g, int64_t line, int64_t rows) {
    if (g->conv == NULL) return;
    may_change(gdn_tensor_slice(gdn_tensor_slice(*g->conv, 0, line, line + 1), g->ds ? 2 : 1, 0, rows));
}

/* Rows and slots of a group of sequences; returns its tokens. */
static int64_t may_change_group(const group *g) {
    const int32_t *start = ints(g->start, 0), *map = ints(g->map, 0);
    const int64_t n_seq = g->start->shape[0] - 1;
    for (int64_t s = 0; s < n_seq; s++) {
        const int32_t n = start[s + 1] - start[s];
        const int32_t *slot = g->accepted != NULL ? ints(g->slot, s) : ints(g->slot, 0) + s;
        for (int32_t t = start[s]; t < start[s + 1]; t++)
            for (int k = 0; k < 2; k++)
                if (g->row[k] != NULL) may_change_at(g->row[k], map != NULL ? map[t] : t);
        if (n == 0 || slot[0] < 0 || slot[0] == g->null_slot) continue;
        may_change_slot(g, slot[0], g->accepted != NULL ? g->W - 2 + n : g->W - 1);
        for (int32_t t = 0; g->ssm != NULL && t < (g->accepted != NULL ? n : 1); t++)
            if (slot[t] >= 0 && slot[t] != g->null_slot) may_change_at(g->ssm, slot[t]);
    }
    return start[n_seq];
}

static void check_bytes(const gdn_buffer *scratch, const char *what) {
    for (int i = 0; i < n_item; i++) {
        if (item[i].buf == scratch) continue;
        for (size_t b = 0; b < item[i].bytes; b++)
            expect(item[i].mem[b] == item[i].before[b] || item[i].may[b], what);
    }
}

static bool accepted(gdn_status st) {
    if (st == GDN_OK) return true;
    expect(st == GDN_E_INVALID || st == GDN_E_UNSUPPORTED || st == GDN_E_NOMEM, "another status");
    return false;
}

/* --- the calls ------------------------------------------------------------------------------------ */

typedef struct {
    int32_t nk, nv, dk, dv, W, K, T, P, slots, n_seq, n_spec, L, C;
    gdn_type act, state;
    bool    ds;
} sizes;

static const gdn_type floats[] = {GDN_F32, GDN_BF16, GDN_F16};

static sizes any_sizes(void) {
    sizes s = {.nk = 1 + below(2), .dk = 8 * (1 + below(2)), .dv = 1 + below(9), .W = 2 + below(3)};
    s.nv = s.nk * (1 + below(3));
    s.K = 1 + below(3);
    s.n_seq = below(4), s.n_spec = below(3);
    s.slots = 1 + s.n_seq + s.n_spec * s.K;
    s.T = s.n_seq * 3 + s.n_spec * s.K + below(3);
    s.P = s.T + below(3);
    s.L = s.W - 1 + s.K - 1 + below(2);
    s.C = 2 * s.nk * s.dk + s.nv * s.dv;
    s.act = floats[below(3)], s.state = floats[below(3)];
    s.ds = chance(3);
    return s;
}

/* Offsets, slots and rows of n sequences; the first free slot and row move on. */
static void add_group(gdn_tensor *start, gdn_tensor *map, gdn_tensor *slot, gdn_tensor *accept, int32_t n,
                      int32_t most, int32_t K, int32_t *free_slot, int32_t *free_row, bool mapped) {
    int32_t *p = add_ints(start, 1, n + 1, 0);
    p[0] = 0;
    for (int32_t i = 0; i < n; i++) p[i + 1] = p[i] + below(most + 1);
    const int32_t tokens = p[n];
    p = add_ints(slot, accept != NULL ? 2 : 1, n, K);
    for (int32_t i = 0; i < n * K; i++) p[i] = chance(9) ? -1 : (*free_slot)++;
    if (accept != NULL) {
        p = add_ints(accept, 1, n, 0);
        for (int32_t i = 0; i < n; i++) p[i] = below(K + 1);
    }
    if (mapped) {
        p = add_ints(map, 1, tokens, 0);
        for (int32_t i = 0; i < tokens; i++) p[i] = (*free_row)++;
    }
}

static void add_flags(gdn_tensor *t, int32_t n) {
    add(t, GDN_U8, 1, n, 0, 0, 0);
    for (int32_t i = 0; i < n; i++) item[n_item - 1].mem[i] &= 1;
}

static void any_attention(gdn_attention_args *a, const sizes *s, bool inner) {
    *a = (gdn_attention_args){.n_k_head = s->nk, .n_v_head = s->nv, .dk = s->dk, .dv = s->dv, .tp_size = 1,
                              .num_actual_tokens = s->T, .null_slot = below(3) - 1,
                              .reorder_input = inner || chance(2), .form = chance(3)};
    a->conv_layout = s->ds ? GDN_CONV_STATE_DS : GDN_CONV_STATE_SD;
    if (!inner) {
        add(&a->core, s->act, 3, s->P, s->nv, s->dv, 0);
        add(&a->z, s->act, 3, s->P, s->nv, s->dv, 0);
        add(&a->qkvz, s->act, 2, s->P, s->C + s->nv * s->dv, 0, 0);
        add(&a->ba, s->act, 2, s->P, 2 * s->nv, 0, 0);
    }
    add(&a->conv_state, s->act, 3, s->slots, s->ds ? s->C : s->L, s->ds ? s->L : s->C, 0);
    add(&a->ssm_state, s->state, 4, s->slots, s->nv, s->dv, s->dk);
    add(&a->conv_weights, s->act, 2, s->C, s->W, 0, 0);
    if (chance(2)) add(&a->conv_bias, s->act, 1, s->C, 0, 0, 0);
    add(&a->A_log, GDN_F32, 1, s->nv, 0, 0, 0);
    add(&a->dt_bias, s->act, 1, s->nv, 0, 0, 0);
    int32_t slot = 0, row = 0;
    if (chance(2)) add_flags(&a->has_initial_state, s->n_seq);
    add_group(&a->non_spec_query_start_loc, &a->non_spec_token_indx, &a->non_spec_state_indices, NULL,
              s->n_seq, 3, 1, &slot, &row, true);
    if (s->n_spec > 0)
        add_group(&a->spec_query_start_loc, &a->spec_token_indx, &a->spec_state_indices,
                  &a->num_accepted_tokens, s->n_spec, s->K, s->K, &slot, &row, true);
    add_number(&a->n_k_head), add_number(&a->n_v_head), add_number(&a->dk), add_number(&a->dv);
    add_number(&a->tp_size), add_number(&a->null_slot);
    wide_number = &a->num_actual_tokens;
}

/* inner: the rows of the layer's y in place of core and z. */
static void attention_may(const gdn_attention_args *a, bool inner) {
    group g = {.conv = &a->conv_state, .ssm = &a->ssm_state, .null_slot = a->null_slot,
               .W = a->conv_weights.shape[1], .ds = a->conv_layout == GDN_CONV_STATE_DS};
    if (!inner) g.row[0] = &a->core, g.row[1] = &a->z;
    g.start = &a->non_spec_query_start_loc, g.map = &a->non_spec_token_indx;
    g.slot = &a->non_spec_state_indices;
    if (g.start->buf != NULL) may_change_group(&g);
    g.start = &a->spec_query_start_loc, g.map = &a->spec_token_indx;
    g.slot = &a->spec_state_indices, g.accepted = &a->num_accepted_tokens;
    if (g.start->buf != NULL) may_change_group(&g);
}

static void fuzz_attention(gdn_err *err) {
    gdn_attention_args a;
    const sizes s = any_sizes();
    any_attention(&a, &s, false);
    change_some();
    if (too_long()) return;
    if (accepted(gdn_attention(q, &a, err))) attention_may(&a, false);
    check_bytes(NULL, "gdn_attention changed what it may not");
}

static void fuzz_conv(gdn_err *err) {
    const sizes s = any_sizes();
    const bool spec = chance(2);
    const int32_t n = spec ? s.n_spec : s.n_seq;
    gdn_causal_conv1d_args a = {.n_k_head = s.nk, .n_v_head = s.nv, .dk = s.dk, .dv = s.dv, .tp_size = 1,
                                .num_actual_tokens = s.T, .null_slot = below(3) - 1, .reorder_input = chance(2)};
    a.conv_layout = s.ds ? GDN_CONV_STATE_DS : GDN_CONV_STATE_SD;
    add(&a.q, s.act, 3, s.T, s.nk, s.dk, 0), add(&a.k, s.act, 3, s.T, s.nk, s.dk, 0);
    add(&a.v, s.act, 3, s.T, s.nv, s.dv, 0);
    add(&a.b, s.act, 2, s.T, s.nv, 0, 0), add(&a.a, s.act, 2, s.T, s.nv, 0, 0);
    add(&a.z, s.act, 3, s.P, s.nv, s.dv, 0);
    add(&a.qkvz, s.act, 2, s.P, s.C + s.nv * s.dv, 0, 0), add(&a.ba, s.act, 2, s.P, 2 * s.nv, 0, 0);
    add(&a.conv_state, s.act, 3, s.slots, s.ds ? s.C : s.L, s.ds ? s.L : s.C, 0);
    add(&a.conv_weights, s.act, 2, s.C, s.W, 0, 0);
    if (chance(2)) add(&a.conv_bias, s.act, 1, s.C, 0, 0, 0);
    int32_t slot = 0, row = 0;
    if (!spec && chance(2)) add_flags(&a.has_initial_state, n);
    add_group(&a.query_start_loc, &a.token_indx, &a.state_indices, spec ? &a.num_accepted_tokens : NULL, n,
              spec ? s.K : 3, spec ? s.K : 1, &slot, &row, chance(2));
    add_number(&a.n_k_head), add_number(&a.n_v_head), add_number(&a.dk), add_number(&a.dv);
    add_number(&a.tp_size), add_number(&a.null_slot);
    wide_number = &a.num_actual_tokens;
    change_some();
    if (too_long()) return;
    if (accepted(gdn_causal_conv1d(q, &a, err))) {
        const group g = {.start = &a.query_start_loc, .map = &a.token_indx, .slot = &a.state_indices,
                         .accepted = a.num_accepted_tokens.buf != NULL ? &a.num_accepted_tokens : NULL,
                         .row = {&a.z}, .conv = &a.conv_state, .null_slot = a.null_slot,
                         .W = a.conv_weights.shape[1], .ds = a.conv_layout == GDN_CONV_STATE_DS};
        const int64_t T = may_change_group(&g);
        const gdn_tensor *const t[] = {&a.q, &a.k, &a.v, &a.b, &a.a};
        for (int i = 0; i < 5; i++) may_change(gdn_tensor_slice(*t[i], 0, 0, T));
    }
    check_bytes(NULL, "gdn_causal_conv1d changed what it may not");
}

static void fuzz_delta(gdn_err *err) {
    const sizes s = any_sizes();
    const bool spec = chance(2);
    const int32_t n = spec ? s.n_spec : s.n_seq;
    gdn_delta_rule_args a = {.num_actual_tokens = s.T, .null_slot = below(3) - 1, .form = chance(3)};
    add(&a.core, s.act, 3, s.P, s.nv, s.dv, 0);
    add(&a.q, s.act, 3, s.T, s.nk, s.dk, 0), add(&a.k, s.act, 3, s.T, s.nk, s.dk, 0);
    add(&a.v, s.act, 3, s.T, s.nv, s.dv, 0);
    add(&a.b, s.act, 2, s.T, s.nv, 0, 0), add(&a.a, s.act, 2, s.T, s.nv, 0, 0);
    add(&a.A_log, GDN_F32, 1, s.nv, 0, 0, 0), add(&a.dt_bias, s.act, 1, s.nv, 0, 0, 0);
    add(&a.ssm_state, s.state, 4, s.slots, s.nv, s.dv, s.dk);
    int32_t slot = 0, row = 0;
    if (!spec && chance(2)) add_flags(&a.has_initial_state, n);
    add_group(&a.query_start_loc, &a.token_indx, &a.state_indices, spec ? &a.num_accepted_tokens : NULL, n,
              spec ? s.K : 3, spec ? s.K : 1, &slot, &row, chance(2));
    add_number(&a.null_slot);
    wide_number = &a.num_actual_tokens;
    change_some();
    if (too_long()) return;
    if (accepted(gdn_delta_rule(q, &a, err))) {
        const group g = {.start = &a.query_start_loc, .map = &a.token_indx, .slot = &a.state_indices,
                         .accepted = a.num_accepted_tokens.buf != NULL ? &a.num_accepted_tokens : NULL,
                         .row = {&a.core}, .ssm = &a.ssm_state, .null_slot = a.null_slot};
        may_change_group(&g);
    }
    check_bytes(NULL, "gdn_delta_rule changed what it may not");
}

static void fuzz_layer(gdn_err *err) {
    sizes s = any_sizes();
    s.nk = NK, s.nv = NV, s.dk = DK, s.dv = DV, s.C = C;
    gdn_attention_layer_args a = {.eps = 1e-6f, .gate = chance(2)};
    any_attention(&a.core, &s, true);
    add(&a.y, GDN_F32, 2, s.P, DOUT, 0, 0);
    add(&a.x, GDN_F32, 2, s.P, D, 0, 0);
    add(&a.norm_w, floats[below(3)], 1, DV, 0, 0, 0);
    add_item(NULL, (size_t)gdn_attention_layer_work_bytes(&a, s.T) - (chance(9) ? 1 : 0));
    a.work = item[n_item - 1].buf;
    if (chance(2)) a.in_proj_qkv = weights[1], a.in_proj_z = weights[2];
    else a.in_proj_qkvz = weights[0];
    if (chance(2)) a.in_proj_b = weights[4], a.in_proj_a = weights[5];
    else a.in_proj_ba = weights[3];
    a.out_proj = weights[6];
    const gdn_weight **w[] = {&a.in_proj_qkvz, &a.in_proj_qkv, &a.in_proj_z, &a.in_proj_ba,
                              &a.in_proj_b, &a.in_proj_a, &a.out_proj};
    if (chance(9)) *w[below(7)] = chance(2) ? NULL : weights[below(7)];
    if (chance(9)) a.core.reorder_input = false;
    change_some();
    if (too_long()) return;
    if (accepted(gdn_attention_layer(q, &a, err))) {
        attention_may(&a.core, true);
        may_change(gdn_tensor_slice(a.y, 0, 0, a.core.num_actual_tokens));
    }
    check_bytes(a.work, "gdn_attention_layer changed what it may not");
}

static void fuzz_norm_gated(gdn_err *err) {
    gdn_rms_norm_gated_args a = {.eps = 1e-6f, .gate = chance(2), .norm_after_gate = chance(2)};
    const int32_t ndim = 2 + below(2), T = below(5), h = 1 + below(3), d = 1 + below(40);
    const gdn_type x = floats[below(3)];
    const int64_t b = ndim == 3 ? h : d;
    add(&a.y, floats[below(3)], ndim, T, b, d, 0);
    add(&a.x, x, ndim, T, b, d, 0), add(&a.z, x, ndim, T, b, d, 0);
    add(&a.w, floats[below(3)], 1, d, 0, 0, 0);
    if (chance(4)) a.y = chance(2) ? a.x : a.z;
    change_some();
    if (too_long()) return;
    if (accepted(gdn_rms_norm_gated(q, &a, err))) may_change(a.y);
    check_bytes(NULL, "gdn_rms_norm_gated changed what it may not");
}

static void fuzz_lora(gdn_err *err) {
    gdn_lora lora[2] = {{.scale = 0.5f}, {.scale = -1}};
    gdn_lora_op_args a = {.lora = lora, .n_lora = 2};
    const int32_t T = below(5), k = 1 + below(20), n = 1 + below(20), r = 1 + below(9);
    add(&a.y, GDN_F32, 2, T, n, 0, 0);
    add(&a.x, chance(2) ? GDN_BF16 : GDN_F32, 2, T, k, 0, 0);
    for (int i = 0; i < 2; i++) {
        if (i == 1 && chance(3)) continue;
        add(&lora[i].a, GDN_F32, 2, r - i * (r / 2), k, 0, 0);
        add(&lora[i].b, GDN_F32, 2, n, r - i * (r / 2), 0, 0);
    }
    add(&a.work, GDN_F32, 2, T, r, 0, 0);
    int32_t *p = add_ints(&a.adapter, 1, T, 0);
    for (int32_t i = 0; i < T; i++) p[i] = below(3) - 1;
    if (chance(9)) a.n_lora = below(3);
    change_some();
    if (too_long()) return;
    if (accepted(gdn_op_lora(q, &a, err))) may_change(a.y), may_change(a.work);
    check_bytes(NULL, "gdn_op_lora changed what it may not");
}

/* The plain operators on rows. */
static void fuzz_rows(gdn_err *err) {
    const int32_t T = below(5), n = 1 + below(40);
    bool skip;
    switch (below(6)) {
    case 0: {
        gdn_cast_args a = {0};
        add(&a.y, floats[below(3)], 2, T, n, 0, 0), add(&a.x, floats[below(3)], 2, T, n, 0, 0);
        change_some();
        skip = too_long();
        if (!skip && accepted(gdn_op_cast(q, &a, err))) may_change(a.y);
        break;
    }
    case 1: {
        gdn_rms_norm_args a = {.eps = 1e-6f};
        add(&a.y, floats[below(2)], 2, T, n, 0, 0), add(&a.x, GDN_F32, 2, T, n, 0, 0);
        if (chance(2)) add(&a.z, GDN_F32, 2, T, n, 0, 0);
        add(&a.w, GDN_F32, 1, n, 0, 0, 0);
        change_some();
        skip = too_long();
        if (!skip && accepted(gdn_op_rms_norm(q, &a, err))) may_change(a.y);
        break;
    }
    case 2: {
        gdn_linear_op_args a = {.w = weights[5], .add = chance(2)};
        add(&a.y, GDN_F32, 2, T, NV, 0, 0), add(&a.x, GDN_F32, 2, T + 2, D, 0, 0);
        int32_t *p = add_ints(&a.row, 1, T, 0);
        for (int32_t i = 0; i < T; i++) p[i] = below(T + 2);
        change_some();
        skip = too_long();
        if (!skip && accepted(gdn_op_linear(q, &a, err))) may_change(a.y);
        break;
    }
    case 3: {
        gdn_swiglu_op_args a = {0};
        add(&a.y, floats[below(2)], 2, T, n, 0, 0), add(&a.x, GDN_F32, 2, T, 2 * n, 0, 0);
        change_some();
        skip = too_long();
        if (!skip && accepted(gdn_op_swiglu(q, &a, err))) may_change(a.y);
        break;
    }
    case 4: {
        gdn_moe_route_op_args a = {.normalise = chance(2)};
        const int32_t top = 1 + below(n);
        add(&a.expert, GDN_I32, 2, T, top, 0, 0), add(&a.weight, GDN_F32, 2, T, top, 0, 0);
        add(&a.logits, GDN_F32, 2, T, n, 0, 0);
        change_some();
        skip = too_long();
        if (!skip && accepted(gdn_op_moe_route(q, &a, err))) may_change(a.expert), may_change(a.weight);
        break;
    }
    default: {
        gdn_embed_args a = {.weight = chance(2) ? weights[3] : NULL};
        add(&a.y, GDN_F32, 2, T, D, 0, 0);
        add(&a.table, floats[below(3)], 2, 2 * NV, D, 0, 0);
        int32_t *p = add_ints(&a.ids, 1, T, 0);
        for (int32_t i = 0; i < T; i++) p[i] = below(2 * NV);
        change_some();
        skip = too_long();
        if (!skip && accepted(gdn_op_embed(q, &a, err))) may_change(a.y);
    }
    }
    if (!skip) check_bytes(NULL, "an operator on rows changed what it may not");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static void (*const call[])(gdn_err *) = {fuzz_attention, fuzz_conv,       fuzz_delta, fuzz_layer,
                                              fuzz_lora,      fuzz_norm_gated, fuzz_rows};
    gdn_err err;
    if (dev == NULL) {
        expect(gdn_device_open("cpu:1", NULL, &dev, &err) == GDN_OK, "device");
        expect(gdn_queue_create(dev, &q, &err) == GDN_OK, "queue");
        const int32_t rows[] = {C + ZC, C, ZC, 2 * NV, NV, NV};
        for (int i = 0; i < 6; i++) weights[i] = weight(rows[i], D);
        weights[6] = weight(DOUT, ZC);
    }
    in = data, left = n, rng = (uint32_t)n;
    call[below(7)](&err);
    free_all();
    return 0;
}
