/* check_attn.c - softmax attention: block, merge and finish.
 *
 * Every block is also run query by query, against copies of the keys in which the rows beyond
 * that query's own end are NaN: its bits must be those it had in the group. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TILES = GDN_ATTN_BLOCK / GDN_ATTN_TILE, Q_MAX = 80, D_MAX = 256 };

typedef enum {
    PLAIN,     /* q, k, v in [-1, 1], scale 1/sqrt d                            */
    EQUAL,     /* q = 0: all scores 0, m = 0, l = n                             */
    HUGE_ONES, /* scores around +-1e4                                           */
    TINY,      /* products below the smallest float: signs of zero              */
    INF_KEYS,  /* every third key scores -inf                                   */
    NAN_KEY,   /* key 0 is NaN                                                  */
} kind;

typedef struct {
    check *c;
    gdn_attn_block_args a;
    size_t size;                       /* of an element of q, k, v   */
    int32_t n_key;                     /* rows that exist            */
    const void *q[Q_MAX], *k[TILES], *v[TILES];
    int32_t n_valid[Q_MAX];
    float *m, *l, *o;
} block;

static void *values(check *c, const char *name, size_t n, bool bf16) {
    return bf16 ? (void *)check_u16(c, name, n) : (void *)check_f32(c, name, n);
}
static void fill(void *p, size_t n, bool bf16, float lo, float hi) {
    if (bf16) check_fill_bf16(p, n, lo, hi);
    else check_fill(p, n, lo, hi);
}
static void put(void *p, bool bf16, float x) {
    if (bf16) {
        uint32_t u;
        memcpy(&u, &x, sizeof u);
        *(uint16_t *)p = (uint16_t)(u >> 16);
    } else *(float *)p = x;
}

static double element(const void *p, bool bf16, size_t i) {
    return bf16 ? (double)check_from_bf16(((const uint16_t *)p)[i])
                : (double)((const float *)p)[i];
}

/* Keys and values tile by tile, each buffer as long as its valid rows, poison between rows. */
static void make_tiles(block *b, const char *name, const void **tile, int64_t stride,
                       float range) {
    for (int t = 0; t * GDN_ATTN_TILE < b->n_key; t++) {
        const int32_t left = b->n_key - t * GDN_ATTN_TILE;
        const int32_t rows = left < GDN_ATTN_TILE ? left : GDN_ATTN_TILE;
        char *p = values(b->c, name, (size_t)((rows - 1) * stride + b->a.d), b->a.bf16);
        for (int32_t r = 0; r < rows; r++)
            fill(p + (size_t)(r * stride) * b->size, (size_t)b->a.d, b->a.bf16, -range, range);
        tile[t] = p;
    }
}

static void make_block(block *b, check *c, int32_t n_q, int32_t d, bool bf16, int32_t pad,
                       kind what) {
    const float q = what == EQUAL ? 0.0f : what == HUGE_ONES ? 300.0f : 1.0f;
    const float k = what == HUGE_ONES ? 60.0f : what == TINY ? 40.0f : 1.0f;
    b->c = c;
    b->size = bf16 ? 2 : 4;
    b->a = (gdn_attn_block_args){
        .q = b->q, .k = b->k, .v = b->v, .n_valid = b->n_valid, .n_q = n_q, .d = d,
        .k_stride = d + pad, .v_stride = d + 2 * pad, .o_stride = d + pad,
        .scale = 1 / sqrtf((float)d), .bf16 = bf16,
    };
    make_tiles(b, "k", b->k, b->a.k_stride, k);
    make_tiles(b, "v", b->v, b->a.v_stride, what == TINY ? 1e-38f : 1.0f);
    char *rows = values(c, "q", (size_t)n_q * (size_t)(d + pad), bf16);
    for (int32_t i = 0; i < n_q; i++) {
        char *p = rows + (size_t)(i * (d + pad)) * b->size;
        fill(p, (size_t)d, bf16, -q, q);
        if (what == INF_KEYS) put(p, bf16, 1.0f);
        b->q[i] = p;
    }
    for (int32_t j = 0; j < b->n_key; j++) {
        char *p = (char *)b->k[j / GDN_ATTN_TILE] +
                  (size_t)(j % GDN_ATTN_TILE * b->a.k_stride) * b->size;
        if (what == INF_KEYS && j % 3 == 1) put(p, bf16, -INFINITY);
        if (what == NAN_KEY && j == 0) put(p, bf16, NAN);
    }
}

static gdn_attn_block_args with_output(block *b, const char *name) {
    gdn_attn_block_args a = b->a;
    a.m = check_f32(b->c, name, (size_t)a.n_q);
    a.l = check_f32(b->c, name, (size_t)a.n_q);
    a.o = check_f32(b->c, name, (size_t)((a.n_q - 1) * a.o_stride + a.d));
    return a;
}

/* Tile t cut after n rows, the others NaN. */
static const void *cut_tile(block *b, void *room, const void *tile, int64_t stride, int32_t n) {
    memset(room, 0xff, (size_t)(GDN_ATTN_TILE * stride) * b->size);
    for (int32_t r = 0; r < n; r++) {
        const size_t at = (size_t)(r * stride) * b->size;
        memcpy((char *)room + at, (const char *)tile + at, (size_t)b->a.d * b->size);
    }
    return room;
}

/* Query i on its own. */
static void alone(block *b, const gdn_attn_block_args *group, int32_t i, void *k_room,
                  void *v_room) {
    const int32_t n = b->n_valid[i], t = n / GDN_ATTN_TILE, rows = n % GDN_ATTN_TILE;
    const void *k[TILES] = { 0 }, *v[TILES] = { 0 };
    float m = NAN, l = NAN, o[D_MAX];
    for (int j = 0; j < t; j++) k[j] = b->k[j], v[j] = b->v[j];
    if (rows > 0) {
        k[t] = cut_tile(b, k_room, b->k[t], b->a.k_stride, rows);
        v[t] = cut_tile(b, v_room, b->v[t], b->a.v_stride, rows);
    }
    gdn_attn_block_args a = b->a;
    a.n_q = 1, a.q = &b->q[i], a.n_valid = &b->n_valid[i];
    a.k = k, a.v = v, a.m = &m, a.l = &l, a.o = o;
    b->c->kern->attn_block(&a);
    check_bits(b->c, "m of a query alone", &m, &group->m[i], 1, sizeof m);
    check_bits(b->c, "l of a query alone", &l, &group->l[i], 1, sizeof l);
    check_bits(b->c, "o of a query alone", o, group->o + i * a.o_stride, (size_t)a.d, sizeof *o);
}

/* A score is a sum of d products in float, off by some 1e-7 of the sum of their magnitudes:
 * 3e-7 absolute for PLAIN, which is the relative error of l and o.  HUGE_ONES lose 1e4 times
 * as much and e^(s - m) follows; TINY scores reach 100. */
static void compare(block *b, const gdn_attn_block_args *r, const gdn_attn_block_args *g,
                    kind what) {
    const double rel = what == HUGE_ONES ? 2e-2 : what == TINY ? 2e-4 : 2e-6;
    const double s = what == HUGE_ONES ? 1e-2 : what == TINY ? 1e-4 : 2e-6;
    const size_t n = (size_t)r->n_q, d = (size_t)r->d;
    if (what != NAN_KEY) check_each(b->c, "m", r->m, g->m, n, 0, s); /* else m may be anything */
    check_each(b->c, "l", r->l, g->l, n, rel, 0);
    for (int32_t i = 0; i < r->n_q; i++) {
        const float *x = r->o + i * r->o_stride, *y = g->o + i * r->o_stride;
        if (what == NAN_KEY || what == TINY) check_each(b->c, "o", x, y, d, rel, 1e-37);
        else check_close(b->c, "o", x, y, d, rel * rel);
    }
}

static void run_block(void *arg) {
    block *b = arg;
    b->c->kern->attn_block(&b->a);
}

static void one_block(check *c, const char *name, int32_t n_q, int32_t d, bool bf16,
                      int32_t pad, kind what, const int32_t *n_valid) {
    block b = { 0 };
    if (!check_begin(c, (check_fn *)c->kern->attn_block, "attn_block %s q%d d%d %s", name, n_q,
                     d, bf16 ? "bf16" : "f32"))
        return;
    for (int32_t i = 0; i < n_q; i++) {
        b.n_valid[i] = n_valid[i];
        b.n_key = n_valid[i] > b.n_key ? n_valid[i] : b.n_key;
    }
    make_block(&b, c, n_q, d, bf16, pad, what);
    gdn_attn_block_args r = with_output(&b, "ref"), g = with_output(&b, "got");
    gdn_attn_block_ref(&r);
    c->kern->attn_block(&g);
    compare(&b, &r, &g, what);
    if (what == EQUAL)
        for (int32_t i = 0; i < n_q; i++) {
            const bool empty = n_valid[i] == 0;
            check_that(c, g.m[i] == (empty ? -INFINITY : 0), "m 0 for equal scores");
            check_that(c, g.l[i] == (float)n_valid[i], "l %d for equal scores", n_valid[i]);
        }
    if (what == NAN_KEY)
        for (int32_t i = 0; i < n_q; i++)
            if (n_valid[i] > 0) check_that(c, isnan(g.l[i]), "NaN to stay visible in l");
    if (!c->bench) {
        void *kr = values(c, "cut k", (size_t)(GDN_ATTN_TILE * g.k_stride), bf16);
        void *vr = values(c, "cut v", (size_t)(GDN_ATTN_TILE * g.v_stride), bf16);
        for (int32_t i = 0; i < n_q; i++) alone(&b, &g, i, kr, vr);
    } else if (what == PLAIN && n_valid[0] == GDN_ATTN_BLOCK) {
        b.a = g;
        const double n = (double)b.n_key * d;
        check_rate(c, run_block, &b, 4.0 * n_q * n, 2.0 * n * (double)b.size);
    }
    check_end(c);
}

/* Generation reads every key once: blocks that no cache holds. */
enum { COLD_BLOCKS = 256 };
typedef struct { block *b; const char *k, *v; } cold;
static void run_cold(void *arg) {
    cold *x = arg;
    const size_t tile = (size_t)(GDN_ATTN_TILE * x->b->a.d) * x->b->size;
    for (size_t i = 0; i < COLD_BLOCKS; i++) {
        for (size_t t = 0; t < TILES; t++) {
            x->b->k[t] = x->k + (i * TILES + t) * tile;
            x->b->v[t] = x->v + (i * TILES + t) * tile;
        }
        run_block(x->b);
    }
}
static void cold_blocks(check *c, int32_t n_q, int32_t d, bool bf16) {
    block b = { 0 };
    if (!c->bench || !check_begin(c, (check_fn *)c->kern->attn_block,
                                  "attn_block cold q%d d%d %s", n_q, d, bf16 ? "bf16" : "f32"))
        return;
    for (int32_t i = 0; i < n_q; i++) b.n_valid[i] = GDN_ATTN_BLOCK;
    make_block(&b, c, n_q, d, bf16, 0, EQUAL); /* n_key 0: no tiles yet */
    b.a = with_output(&b, "out");
    const size_t n = (size_t)COLD_BLOCKS * GDN_ATTN_BLOCK * (size_t)d;
    cold x = { .b = &b, .k = values(c, "k", n, bf16), .v = values(c, "v", n, bf16) };
    memset((void *)x.k, 0x3c, n * b.size);
    memset((void *)x.v, 0x3c, n * b.size);
    check_rate(c, run_cold, &x, 4.0 * n_q * (double)n, 2.0 * (double)n * (double)b.size);
    check_end(c);
}

static void blocks(check *c, bool bf16) {
    static const int32_t all[5] = { 256, 256, 256, 256, 256 }, one[1] = { 1 }, zero[1] = { 0 };
    static const int32_t mixed[17] = { 0, 1, 15, 16, 17, 255, 256, 0, 33, 31, 32, 1, 200,
                                       256, 7, 8, 9 };
    static const int32_t low[6] = { 3, 3, 3, 2, 0, 5 };
    static const int32_t sizes[] = { 256, 128, 64, 8, 16, 24, 40, 72, 104, 184, 248 };
    int32_t full[Q_MAX], rising[Q_MAX];
    for (int32_t i = 0; i < Q_MAX; i++) {
        full[i] = GDN_ATTN_BLOCK;
        rising[i] = 97 + i / 6; /* a prompt: six query heads a row */
    }
    /* Heads per key-value head of the released models: 4, 8 and 6, one row and many. */
    static const int32_t n_q[] = { 4, 6, 8, 16, 64 };
    for (size_t i = 0; i < sizeof n_q / sizeof *n_q; i++)
        one_block(c, "full", n_q[i], 256, bf16, 0, PLAIN, full);
    cold_blocks(c, 4, 256, bf16);
    cold_blocks(c, 8, 256, bf16);
    if (c->bench) return;
    one_block(c, "prompt", 48, 256, bf16, 8, PLAIN, rising);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        one_block(c, "mixed", 17, sizes[i], bf16, 3, PLAIN, mixed);
        one_block(c, "low", 6, sizes[i], bf16, 1, PLAIN, low);
    }
    for (int32_t n = 1; n < 6; n++) one_block(c, "few", n, 256, bf16, 5, PLAIN, all);
    one_block(c, "one key", 1, 8, bf16, 0, PLAIN, one);
    one_block(c, "no key", 1, 8, bf16, 0, PLAIN, zero);
    one_block(c, "equal", 17, 256, bf16, 0, EQUAL, mixed);
    one_block(c, "huge", 17, 256, bf16, 0, HUGE_ONES, mixed);
    one_block(c, "tiny", 17, 64, bf16, 0, TINY, mixed);
    one_block(c, "-inf", 17, 64, bf16, 0, INF_KEYS, mixed);
    one_block(c, "nan", 17, 64, bf16, 0, NAN_KEY, mixed);
}

/* Block, merge and finish over 600 keys against softmax attention written down directly. */
static void chain(check *c, int32_t n_q, int32_t d, bool bf16) {
    enum { KEYS = 600 };
    if (!check_begin(c, (check_fn *)c->kern->attn_block, "attn_chain q%d d%d %s", n_q, d,
                     bf16 ? "bf16" : "f32"))
        return;
    const size_t size = bf16 ? 2 : 4, row = (size_t)d, n = (size_t)n_q * row;
    char *q = values(c, "q", n, bf16), *k = values(c, "k", KEYS * row, bf16);
    char *v = values(c, "v", KEYS * row, bf16);
    float *M = check_f32(c, "M", (size_t)n_q), *L = check_f32(c, "L", (size_t)n_q);
    float *m = check_f32(c, "m", (size_t)n_q), *l = check_f32(c, "l", (size_t)n_q);
    float *O = check_f32(c, "O", n), *o = check_f32(c, "o", n), *y = check_f32(c, "y", n);
    float *want = check_f32(c, "want", n);
    const void *qp[Q_MAX], *kp[TILES], *vp[TILES];
    void *yp[Q_MAX];
    int32_t n_valid[Q_MAX];
    fill(q, n, bf16, -4, 4), fill(k, KEYS * row, bf16, -1, 1), fill(v, KEYS * row, bf16, -1, 1);
    for (int32_t i = 0; i < n_q; i++) {
        qp[i] = q + (size_t)i * row * size, yp[i] = y + (size_t)i * row;
        M[i] = -INFINITY, L[i] = 0;
        memset(O + (size_t)i * row, 0, row * sizeof(float));
        const int32_t keys = KEYS - i; /* a prompt's last rows */
        double s[KEYS], max = -INFINITY, sum = 0, out[D_MAX] = { 0 };
        for (int32_t j = 0; j < keys; j++) {
            s[j] = 0;
            for (size_t x = 0; x < row; x++)
                s[j] += element(qp[i], bf16, x) * element(k, bf16, (size_t)j * row + x);
            s[j] *= 0.25;
            max = s[j] > max ? s[j] : max;
        }
        for (int32_t j = 0; j < keys; j++) {
            const double p = exp(s[j] - max);
            sum += p;
            for (size_t x = 0; x < row; x++) out[x] += p * element(v, bf16, (size_t)j * row + x);
        }
        for (size_t x = 0; x < row; x++) want[(size_t)i * row + x] = (float)(out[x] / sum);
    }
    for (int32_t b = 0; b < KEYS; b += GDN_ATTN_BLOCK) {
        for (int32_t i = 0; i < n_q; i++) {
            const int32_t left = KEYS - i - b;
            n_valid[i] = left < 0 ? 0 : left > GDN_ATTN_BLOCK ? GDN_ATTN_BLOCK : left;
        }
        for (int32_t t = 0; t < TILES; t++) {
            const size_t at = (size_t)(b + t * GDN_ATTN_TILE) * row * size;
            const bool in = b + t * GDN_ATTN_TILE < KEYS;
            kp[t] = in ? k + at : NULL, vp[t] = in ? v + at : NULL;
        }
        c->kern->attn_block(&(gdn_attn_block_args){
            .q = qp, .k = kp, .v = vp, .n_valid = n_valid, .m = m, .l = l, .o = o,
            .k_stride = d, .v_stride = d, .o_stride = d, .n_q = n_q, .d = d, .scale = 0.25f,
            .bf16 = bf16 });
        c->kern->attn_merge(&(gdn_attn_merge_args){
            .M = M, .L = L, .O = O, .m = m, .l = l, .o = o, .O_stride = d, .o_stride = d,
            .n_q = n_q, .d = d });
    }
    c->kern->attn_finish(&(gdn_attn_finish_args){
        .y = yp, .L = L, .O = O, .O_stride = d, .n_q = n_q, .d = d });
    /* scores up to 40 in float, off by 1e-6 or so */
    check_close(c, "y", want, y, n, 1e-11);
    check_end(c);
}

/* Merging n_q rows whose running and new maxima lie gap apart; special rows among them. */
typedef struct { check *c; gdn_attn_merge_args a; } merge_job;
static void run_merge(void *arg) {
    merge_job *j = arg;
    j->c->kern->attn_merge(&j->a);
}
static void merge(check *c, int32_t n_q, int32_t d, int32_t pad, float gap) {
    if (!check_begin(c, (check_fn *)c->kern->attn_merge, "attn_merge q%d d%d gap %g", n_q, d,
                     (double)gap))
        return;
    const size_t n = (size_t)n_q, size = (size_t)((n_q - 1) * (d + pad) + d);
    float *m = check_f32(c, "m", n), *l = check_f32(c, "l", n), *o = check_f32(c, "o", size);
    float *M[3], *L[3], *O[3]; /* start, reference, variant */
    for (int i = 0; i < 3; i++) {
        M[i] = check_f32(c, "M", n), L[i] = check_f32(c, "L", n);
        O[i] = check_f32(c, "O", size);
    }
    check_fill(m, n, -gap, gap), check_fill(M[0], n, -gap, gap);
    check_fill(l, n, 1, 256), check_fill(L[0], n, 1, 256);
    check_fill(o, size, -9, 9), check_fill(O[0], size, -9, 9);
    if (!c->bench)
        for (int32_t i = 0; i < n_q; i++) {
            if (i % 5 == 1) m[i] = -INFINITY, l[i] = 0;
            if (i % 5 == 2 || i % 10 == 1) {
                M[0][i] = -INFINITY, L[0][i] = 0;
                O[0][i * (d + pad)] = 0, o[i * (d + pad)] = -0.0f; /* taken as it is */
            }
            if (i % 10 == 8) l[i] = NAN;
            if (i % 10 == 9) m[i] = NAN;
        }
    for (int i = 1; i < 3; i++) {
        memcpy(M[i], M[0], n * sizeof(float));
        memcpy(L[i], L[0], n * sizeof(float));
        memcpy(O[i], O[0], size * sizeof(float));
    }
    merge_job j = { c, { .M = M[1], .L = L[1], .O = O[1], .m = m, .l = l, .o = o,
                         .O_stride = d + pad, .o_stride = d + pad, .n_q = n_q, .d = d } };
    gdn_attn_merge_ref(&j.a);
    j.a.M = M[2], j.a.L = L[2], j.a.O = O[2];
    run_merge(&j);
    for (int32_t i = 0; i < n_q; i++) {
        const size_t at = (size_t)(i * (d + pad)), w = (size_t)d;
        if (isnan(m[i])) { /* M may be anything */
            check_that(c, isnan(L[2][i]) && isnan(O[2][at]), "NaN to stay visible");
            continue;
        }
        check_bits(c, "M", &M[1][i], &M[2][i], 1, sizeof(float));
        /* the exponentials are good to 2e-7, the difference of the maxima to gap 6e-8 */
        const double tol = 1e-6 + 1e-7 * (double)gap;
        check_each(c, "L", &L[1][i], &L[2][i], 1, tol, 0);
        check_each(c, "O", &O[1][at], &O[2][at], w, tol, 18 * tol);
        if (l[i] == 0) {
            check_bits(c, "L after an empty block", &L[0][i], &L[2][i], 1, sizeof(float));
            check_bits(c, "O after an empty block", &O[0][at], &O[2][at], w, sizeof(float));
        } else if (L[0][i] == 0) {
            check_bits(c, "first L", &l[i], &L[2][i], 1, sizeof(float));
            check_bits(c, "first O", &o[at], &O[2][at], w, sizeof(float));
        }
    }
    check_rate(c, run_merge, &j, 3.0 * n_q * d, 12.0 * n_q * d);
    check_end(c);
}

typedef struct { check *c; gdn_attn_finish_args a; } finish_job;
static void run_finish(void *arg) {
    finish_job *j = arg;
    j->c->kern->attn_finish(&j->a);
}
static void finish(check *c, int32_t n_q, int32_t d, int32_t pad, bool gated, bool bf16) {
    if (!check_begin(c, (check_fn *)c->kern->attn_finish, "attn_finish q%d d%d%s %s", n_q, d,
                     gated ? " gate" : "", bf16 ? "bf16" : "f32"))
        return;
    const size_t n = (size_t)n_q, row = (size_t)(d + pad), size = n * row;
    float *L = check_f32(c, "L", n), *O = check_f32(c, "O", size);
    float *gate = check_f32(c, "gate", size);
    char *y[2] = { values(c, "y ref", size, bf16), values(c, "y", size, bf16) };
    const float *gates[Q_MAX];
    void *rows[2][Q_MAX];
    check_fill(L, n, 1, 256);
    check_fill(O, size, -99, 99);
    for (size_t i = 0; i < n; i++) {
        gates[i] = gate + i * row;
        check_fill(gate + i * row, (size_t)d, -9, 9);
        for (int v = 0; v < 2; v++) rows[v][i] = y[v] + i * row * (bf16 ? 2 : 4);
        if (i % 3 == 2) L[i] = 0, gate[i * row] = NAN; /* saw no key: zeros */
        if (i % 3 == 1) gate[i * row] = -100, gate[i * row + 1] = 100, O[i * row + 2] = NAN;
    }
    finish_job j = { c, { .y = rows[0], .gate = gated ? gates : NULL, .L = L, .O = O,
                          .O_stride = d + pad, .n_q = n_q, .d = d, .y_bf16 = bf16 } };
    gdn_attn_finish_ref(&j.a);
    j.a.y = rows[1];
    run_finish(&j);
    /* Division, exp and a product in float: some 4e-7; bf16 may then round the other way.
     * sigmoid(-100) is 4e-44 in the reference, 0 from the vector exp. */
    for (size_t i = 0; i < n; i++)
        for (int32_t x = 0; x < d; x++) {
            float v[2];
            for (int s = 0; s < 2; s++)
                v[s] = bf16 ? check_from_bf16(((uint16_t *)rows[s][i])[x])
                            : ((float *)rows[s][i])[x];
            check_each(c, "y", &v[0], &v[1], 1, bf16 ? 0.0079 : 1e-6, 1e-36);
            if (L[i] == 0) check_that(c, v[1] == 0, "0 where no key was seen");
        }
    check_rate(c, run_finish, &j, 0, (gated ? 8.0 : 4.0) * n_q * d + (bf16 ? 2.0 : 4.0) * n_q * d);
    check_end(c);
}

void check_attn(check *c) {
    blocks(c, false);
    blocks(c, true);
    for (int i = 0; i < 2 && !c->bench; i++) {
        chain(c, 12, 256, i);
        chain(c, 5, 72, i);
    }
    merge(c, 16, 256, 0, 8);
    merge(c, 33, 256, 5, 1);
    merge(c, 33, 8, 3, 30);
    merge(c, 33, 72, 0, 1e4f);
    for (int i = 0; i < 4; i++) {
        finish(c, 16, 256, 0, i & 1, i >> 1);
        finish(c, 7, 24, 3, i & 1, i >> 1);
    }
}
