/* cpu_weight.c - packing weight matrices into the panels that the products read.
 *
 * A matrix given in parts (q | k | v | z of several tensors, or rows in another order) becomes
 * one packed matrix.  Panels are filled in parallel; what a part's rows occupied in the file is
 * given back afterwards, so that a checkpoint is not held twice. */
#include <stdlib.h>
#include <string.h>

#include "../base/arena.h"
#include "../base/half.h"
#include "cpu.h"

typedef struct {
    gdn_panel_pack_fn *pack;
    const gdn_weight_desc *desc;
    cpu_weight *w;
    int64_t first; /* panel of the slice */
} pack_job;

/* Bytes packed before their source is given back: a matrix is never held twice as a whole. */
enum { SLICE = 32 << 20 };

/* Row r of expert e: the part it belongs to and its place there. */
static const void *source_row(const gdn_weight_desc *d, int32_t e, int64_t r) {
    const gdn_weight_part *p = d->part + (int64_t)e * d->n_part;
    for (; r >= p->n_row; p++) r -= p->n_row;
    if (p->order != NULL) r = p->order[r];
    return (const char *)p->data + r * p->row_bytes;
}

static void pack(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const pack_job *j = arg;
    const cpu_weight *w = j->w;
    for (int64_t i = j->first + begin; i < j->first + end; i++) {
        const int32_t e = (int32_t)(i / w->n_panel), p = (int32_t)(i % w->n_panel);
        const void *rows[GDN_PANEL];
        for (int r = 0; r < GDN_PANEL; r++) {
            const int64_t row = (int64_t)p * GDN_PANEL + r;
            rows[r] = row < w->base.n ? source_row(j->desc, e, row) : NULL;
        }
        j->pack((char *)w->panel + (uint64_t)i * w->panel_bytes, w->base.type, w->base.k,
                       rows);
    }
}

/* How far sources have been given back: part, and rows of it. */
typedef struct {
    int64_t part, row;
} given;

/* Give back what the first `panels` panels were made of.  Rows taken in another order go with
 * their whole part. */
static void give_back(const gdn_weight_desc *d, given *g, const cpu_weight *w, int64_t panels) {
    const int64_t left = panels % w->n_panel * GDN_PANEL;
    int64_t rows = panels / w->n_panel * d->n + (left < d->n ? left : d->n); /* packed so far */
    for (int64_t p = 0; p < (int64_t)d->n_expert * d->n_part; p++) {
        const gdn_weight_part *s = d->part + p;
        const int64_t have = rows < s->n_row ? rows : s->n_row;
        rows -= have;
        if (p < g->part) continue;
        if (have > g->row && (s->order == NULL || have == s->n_row)) {
            d->done(d->done_arg, (const char *)s->data + g->row * s->row_bytes,
                    (uint64_t)(have - g->row) * (uint64_t)s->row_bytes);
            g->row = have;
        }
        if (have < s->n_row) return;
        *g = (given){p + 1, 0};
    }
}

static float scale_at(const gdn_weight_part *p, int64_t i) {
    return p->scale_type == GDN_BF16 ? gdn_bf16_to_f32(((const uint16_t *)p->scale)[i])
                                     : ((const float *)p->scale)[i];
}

/* The scale of every output and stretch of inputs. */
static gdn_status pack_scales(cpu_weight *w, const gdn_weight_desc *d, gdn_err *err) {
    const int64_t cols = (d->k + d->scale_cols - 1) / d->scale_cols;
    const int64_t rows = (int64_t)w->n_panel * GDN_PANEL;
    w->scale = calloc((size_t)d->n_expert * (size_t)(rows * cols), sizeof *w->scale);
    if (w->scale == NULL) return gdn_fail(err, GDN_E_NOMEM, "weight scales: out of memory");
    for (int32_t e = 0; e < d->n_expert; e++)
        for (int64_t row = 0; row < d->n; row++) {
            const gdn_weight_part *p = d->part + (int64_t)e * d->n_part;
            int64_t r = row;
            for (; r >= p->n_row; p++) r -= p->n_row;
            if (p->order != NULL) r = p->order[r];
            float *out = w->scale + (e * rows + row / GDN_PANEL * GDN_PANEL) * cols +
                         row % GDN_PANEL;
            for (int64_t c = 0; c < cols; c++)
                out[c * GDN_PANEL] = scale_at(p, r / d->scale_rows * cols + c);
        }
    return GDN_OK;
}

void cpu_weight_free(gdn_weight *weight) {
    cpu_weight *w = (cpu_weight *)weight;
    gdn_big_free(w->panel, w->base.bytes);
    free(w->scale);
    free(w);
}

gdn_status cpu_weight_create(gdn_device *dev, const gdn_weight_desc *d, gdn_weight **out,
                             gdn_err *err) {
    cpu_device *cpu = (cpu_device *)dev;
    cpu_weight *w = calloc(1, sizeof *w);
    if (w == NULL) return gdn_fail(err, GDN_E_NOMEM, "weight: out of memory");
    const bool bf16 = d->type == GDN_BF16 && (cpu->kern.isa & GDN_ISA_AVX512BF16);
    w->base = (gdn_weight){.device = dev,
                           .type = d->type,
                           .input_type = bf16 ? GDN_BF16 : GDN_F32,
                           .n_expert = d->n_expert,
                           .n = d->n,
                           .k = d->k};
    w->n_panel = (int32_t)(((int64_t)d->n + GDN_PANEL - 1) / GDN_PANEL);
    w->panel_bytes = gdn_panel_bytes(d->type, d->k);
    w->scale_cols = d->scale_cols;
    w->base.bytes = (uint64_t)d->n_expert * (uint64_t)w->n_panel * w->panel_bytes;
    gdn_status st = GDN_OK;
    w->panel = gdn_big_alloc(w->base.bytes);
    if (w->panel == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "weight of %.1f MB: out of memory",
                      (double)w->base.bytes * 1e-6);
        goto done;
    }
    if (d->type == GDN_F8 && (st = pack_scales(w, d, err)) != GDN_OK) goto done;
    const int64_t panels = (int64_t)d->n_expert * w->n_panel;
    const int64_t step = w->panel_bytes < SLICE ? SLICE / (int64_t)w->panel_bytes : 1;
    pack_job job = {cpu->kern.panel_pack, d, w, 0};
    given g = {0};
    for (; job.first < panels; job.first += step) {
        const int64_t n = panels - job.first < step ? panels - job.first : step;
        gdn_parallel(cpu->pool, n, pack, &job);
        if (d->done != NULL) give_back(d, &g, w, job.first + n);
    }
done:
    if (st == GDN_OK) *out = &w->base;
    else cpu_weight_free(&w->base);
    return st;
}

gdn_panels cpu_panels(const cpu_weight *w, int32_t expert) {
    gdn_panels p = {.n = w->base.n,
                    .k = w->base.k,
                    .scale_cols = w->scale_cols,
                    .type = w->base.type};
    p.panel = (const char *)w->panel + (uint64_t)expert * (uint64_t)w->n_panel * w->panel_bytes;
    if (w->scale != NULL) {
        const int64_t cols = (w->base.k + w->scale_cols - 1) / w->scale_cols;
        p.scale = w->scale + (int64_t)expert * w->n_panel * GDN_PANEL * cols;
    }
    return p;
}
