/* selftest.c - a device's start-up check: tensors on both sides, comparing them, the verdict.
 *
 * A driver that compiles a kernel wrongly tells nobody, and a model answers nonsense or, worse,
 * nearly sense.  So no model runs on a device other than the cpu before a few operators have given
 * the cpu's results there. */
#include "selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/half.h"
#include "../base/log.h"

static void keep(gdn_selftest *t, gdn_status st, const char *what) {
    if (t->st != GDN_OK || st == GDN_OK) return;
    t->st = st;
    snprintf(t->failed, sizeof t->failed, "%s: %.120s", t->what, what);
}

void gdn_selftest_ran(gdn_selftest *t, gdn_status st) {
    keep(t, st, t->why.text);
}

/* --- data --------------------------------------------------------------------------- */

static double uniform(gdn_selftest *t, double lo, double hi) {
    t->rng = t->rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(t->rng >> 40) * 0x1p-24;
}

static void put(void *to, gdn_type type, int64_t i, float v) {
    if (type == GDN_F32) ((float *)to)[i] = v;
    else if (type == GDN_BF16) ((uint16_t *)to)[i] = gdn_f32_to_bf16(v);
    else if (type == GDN_F16) ((uint16_t *)to)[i] = gdn_f32_to_f16(v);
    else ((uint8_t *)to)[i] = (uint8_t)v;
}

static double get(const void *from, gdn_type type, int64_t i) {
    const uint16_t *h = from;
    if (type == GDN_F32) return (double)((const float *)from)[i];
    if (type == GDN_I32) return ((const int32_t *)from)[i];
    return (double)(type == GDN_BF16 ? gdn_bf16_to_f32(h[i]) : gdn_f16_to_f32(h[i]));
}

static gdn_tensor shaped(gdn_type type, int64_t n0, int64_t n1, int64_t n2, int64_t n3) {
    const int64_t shape[] = {n0, n1, n2, n3};
    return gdn_tensor_dense(NULL, 0, type, n3 > 0 ? 4 : n2 > 0 ? 3 : n1 > 0 ? 2 : 1, shape);
}

static int64_t elements(const gdn_tensor *t) {
    int64_t n = 1;
    for (int32_t i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

/* Memory for p's tensor of one side, with this content. */
static void place(gdn_selftest *t, gdn_pair *p, int side, const void *data) {
    gdn_tensor *x = &p->on[side];
    if (t->st != GDN_OK) return;
    const uint64_t bytes = (uint64_t)elements(x) * (uint64_t)gdn_type_bytes(x->type);
    gdn_buffer *b = NULL;
    gdn_status st = gdn_buffer_alloc(t->device[side], bytes, &b, &t->why);
    if (st == GDN_OK) {
        t->buffer[t->n_buffer++] = x->buf = b;
        st = gdn_queue_write(t->queue[side], b, 0, data, bytes, &t->why);
    }
    keep(t, st, t->why.text);
}

static void *room(gdn_selftest *t, uint64_t bytes) {
    void *p = t->st == GDN_OK ? malloc(bytes) : NULL;
    if (p == NULL) keep(t, GDN_E_NOMEM, "out of memory");
    return p;
}

gdn_pair gdn_selftest_random(gdn_selftest *t, gdn_type type, double lo, double hi, int64_t n0,
                             int64_t n1, int64_t n2, int64_t n3) {
    gdn_pair p = {{shaped(type, n0, n1, n2, n3), shaped(type, n0, n1, n2, n3)}};
    const int64_t n = elements(&p.on[0]);
    void *data = room(t, (uint64_t)n * (uint64_t)gdn_type_bytes(type));
    for (int64_t i = 0; data != NULL && i < n; i++) put(data, type, i, (float)uniform(t, lo, hi));
    for (int s = 0; s < SELFTEST_SIDES; s++) place(t, &p, s, data);
    free(data);
    return p;
}

gdn_pair gdn_selftest_out(gdn_selftest *t, gdn_type type, int64_t n0, int64_t n1, int64_t n2) {
    gdn_pair p = {{shaped(type, n0, n1, n2, 0), shaped(type, n0, n1, n2, 0)}};
    const uint64_t bytes = (uint64_t)elements(&p.on[0]) * (uint64_t)gdn_type_bytes(type);
    void *data = room(t, bytes);
    if (data != NULL) memset(data, 0xff, bytes); /* NaN in every type; -1 as an integer */
    for (int s = 0; s < SELFTEST_SIDES; s++) place(t, &p, s, data);
    free(data);
    return p;
}

gdn_pair gdn_selftest_ints(gdn_selftest *t, int64_t n0, int64_t n1, const int32_t *v) {
    gdn_pair p = {{shaped(GDN_I32, n0, n1, 0, 0), shaped(GDN_I32, n0, n1, 0, 0)}};
    for (int s = 0; s < SELFTEST_SIDES; s++) place(t, &p, s, v);
    return p;
}

gdn_pair gdn_selftest_exact(gdn_selftest *t, gdn_type type, int64_t n0, int64_t n1) {
    gdn_pair p = {{shaped(GDN_F32, n0, n1, 0, 0), shaped(type, n0, n1, 0, 0)}};
    const int64_t n = elements(&p.on[0]);
    float *v = room(t, (uint64_t)n * sizeof *v);
    void *as = room(t, (uint64_t)n * sizeof *v);
    for (int64_t i = 0; v != NULL && as != NULL && i < n; i++) {
        v[i] = gdn_bf16_to_f32(gdn_f32_to_bf16((float)uniform(t, -1, 1)));
        put(as, type, i, v[i]);
    }
    place(t, &p, SELFTEST_REF, v);
    place(t, &p, SELFTEST_DEV, as);
    free(v), free(as);
    return p;
}

void gdn_selftest_weight(gdn_selftest *t, gdn_type type, int32_t n_expert, int32_t n, int32_t k,
                         gdn_weight *w[SELFTEST_SIDES]) {
    enum { BLOCK = 128, MOST = 8 };
    const int64_t all = (int64_t)n_expert * n * k, row = (int64_t)k * gdn_type_bytes(type);
    const int64_t blocks = (int64_t)((n + BLOCK - 1) / BLOCK) * ((k + BLOCK - 1) / BLOCK);
    char *data = room(t, (uint64_t)(n_expert * (int64_t)n * row));
    float *scale = room(t, (uint64_t)(n_expert * blocks) * sizeof *scale);
    gdn_weight_part part[MOST];
    gdn_weight_desc desc = {.type = type, .n_expert = n_expert, .n = n, .k = k,
                            .scale_rows = BLOCK, .scale_cols = BLOCK, .part = part, .n_part = 1};
    for (int64_t i = 0; data != NULL && i < all; i++) {
        /* f8: any bits of up to 15, half of them negative. */
        const float v = (float)(type == GDN_F8 ? floor(uniform(t, 0, 0x58)) : uniform(t, -1, 1));
        put(data, type, i, type == GDN_F8 && i % 2 > 0 ? v + 0x80 : v);
    }
    for (int64_t i = 0; scale != NULL && i < n_expert * blocks; i++)
        scale[i] = (float)uniform(t, 0.01, 0.02);
    for (int32_t e = 0; data != NULL && scale != NULL && e < n_expert; e++)
        part[e] = (gdn_weight_part){.data = data + e * n * row, .n_row = n, .row_bytes = row,
                                    .scale = type == GDN_F8 ? scale + e * blocks : NULL,
                                    .scale_type = GDN_F32};
    for (int s = 0; s < SELFTEST_SIDES && t->st == GDN_OK; s++) {
        const gdn_status st = gdn_weight_create(t->device[s], &desc, &w[s], &t->why);
        if (st == GDN_OK) t->weight[t->n_weight++] = w[s];
        keep(t, st, t->why.text);
    }
    free(data), free(scale);
}

void gdn_selftest_drop(gdn_selftest *t) {
    while (t->n_buffer > 0) gdn_buffer_free(t->buffer[--t->n_buffer]);
    while (t->n_weight > 0) gdn_weight_free(t->weight[--t->n_weight]);
}

/* --- comparing ---------------------------------------------------------------------- */

void gdn_selftest_same(gdn_selftest *t, const char *name, const gdn_pair *p, double bound) {
    const int64_t n = elements(&p->on[0]);
    void *data[SELFTEST_SIDES] = {0};
    for (int s = 0; s < SELFTEST_SIDES; s++) {
        const gdn_tensor *x = &p->on[s];
        const uint64_t bytes = (uint64_t)n * (uint64_t)gdn_type_bytes(x->type);
        data[s] = room(t, bytes);
        if (data[s] == NULL) continue;
        gdn_status st = gdn_queue_read(t->queue[s], data[s], x->buf, 0, bytes, &t->why);
        if (st == GDN_OK) st = gdn_queue_wait(t->queue[s], &t->why);
        keep(t, st, t->why.text);
    }
    double most = 0, off = 0;
    for (int64_t i = 0; t->st == GDN_OK && i < n; i++) {
        const double want = get(data[SELFTEST_REF], p->on[SELFTEST_REF].type, i);
        const double have = get(data[SELFTEST_DEV], p->on[SELFTEST_DEV].type, i);
        const double e = isfinite(want - have) ? fabs(want - have) : INFINITY;
        if (fabs(want) > most) most = fabs(want);
        if (e > off) off = e;
    }
    if (t->st == GDN_OK && !(off <= bound * most)) {
        char text[120];
        if (isinf(off))
            snprintf(text, sizeof text, "%s is not a number in places", name);
        else
            snprintf(text, sizeof text, "%s is off by %.2g of its largest value, allowed are %.2g",
                     name, off / most, bound);
        keep(t, GDN_E_DEVICE, text);
    }
    for (int s = 0; s < SELFTEST_SIDES; s++) free(data[s]);
}

/* --- the verdict -------------------------------------------------------------------- */

static gdn_status verdict(const gdn_selftest *t, gdn_device *d, gdn_err *err) {
    gdn_device_info info;
    const bool known = gdn_device_find(gdn_device_name(d), &info, NULL) == GDN_OK;
    return gdn_fail(err, t->st, "device %s (%s) fails its start-up check: %s; nothing is run there. "
                    "The cpu can take over: --device cpu", gdn_device_name(d),
                    known ? info.description : d->backend->name, t->failed);
}

/* A device that replays wrongly computes all the same. */
static void try_replay(gdn_selftest *t, gdn_device *d) {
    if (t->st != GDN_OK) return;
    gdn_selftest_replay(t);
    if (t->st == GDN_OK) return;
    gdn_log(GDN_LOG_WARN, "replay off device=%s why=\"%s\"", gdn_device_name(d), t->failed);
    d->plain = true;
    t->st = GDN_OK;
}

gdn_status gdn_device_check(gdn_device *d, gdn_err *err) {
    if (d->backend == &gdn_backend_cpu || d->checked) return GDN_OK; /* the cpu is the measure */
    const double begin = gdn_now_us();
    gdn_device_opts o;
    gdn_device_opts_defaults(&o);
    gdn_selftest *t = calloc(1, sizeof *t);
    if (t == NULL) return gdn_fail(err, GDN_E_NOMEM, "start-up check: out of memory");
    t->rng = 1;
    t->device[SELFTEST_DEV] = d;
    snprintf(t->what, sizeof t->what, "memory");
    t->st = gdn_device_open("cpu:1", &o, &t->device[SELFTEST_REF], &t->why);
    for (int s = 0; s < SELFTEST_SIDES && t->st == GDN_OK; s++)
        t->st = gdn_queue_create(t->device[s], &t->queue[s], &t->why);
    if (t->st != GDN_OK) snprintf(t->failed, sizeof t->failed, "%.190s", t->why.text);
    else gdn_selftest_ops(t), try_replay(t, d);
    gdn_selftest_drop(t);
    for (int s = 0; s < SELFTEST_SIDES; s++) gdn_queue_free(t->queue[s]);
    gdn_device_close(t->device[SELFTEST_REF]);
    const gdn_status st = t->st == GDN_OK ? GDN_OK : verdict(t, d, err);
    free(t);
    d->checked = st == GDN_OK;
    if (st == GDN_OK)
        gdn_log(GDN_LOG_INFO, "checked device=%s ms=%.0f", gdn_device_name(d),
                (gdn_now_us() - begin) * 1e-3);
    return st;
}
