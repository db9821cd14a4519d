/* xpu_weight.c - weight matrices on the xpu: rows one after the other, in the order of the desc, or
 * packed for the matrix engine (linear_xmx_xpu.cl).
 *
 * Rows that lie so in the file go from there, a stretch at a time; others are gathered in a stretch
 * of host memory first.  What they occupied in the file is given back stretch by stretch, so that a
 * checkpoint is not held twice. */
#include <stdlib.h>
#include <string.h>

#include "../base/half.h"
#include "xpu_driver.h"
#include "xpu_x.h"

enum { STRETCH = 16 << 20 };

typedef struct {
    xpu_device *d;
    cl_mem   to;
    uint64_t at;      /* in `to`, of what comes next                       */
    char    *stretch; /* of gathered or packed rows, made when first needed */
    uint64_t room, used;
    /* Packed: rows until there are sg of them, each with zeros to the end of its steps. */
    uint16_t *row;
    int32_t  n_row, steps;
} upload;

static gdn_status send(upload *u, const void *from, uint64_t bytes, gdn_err *err) {
    if (bytes == 0) return GDN_OK;
    const cl_int e = xpu_driver_write(u->d, u->d->upload, u->to, u->at, from, bytes, true, NULL);
    if (e != CL_SUCCESS) return xpu_failed(u->d, e, err, "a copy of a weight");
    u->at += bytes;
    return GDN_OK;
}

static uint64_t packed_bytes(const upload *u) {
    return (uint64_t)u->d->sg * (uint64_t)u->steps * 16 * sizeof *u->row;
}

/* Pairs of inputs, the same pair of sg rows side by side. */
static gdn_status pack(upload *u, gdn_err *err) {
    const int32_t sg = u->d->sg, pairs = u->steps * 8;
    uint32_t *to = (uint32_t *)(void *)(u->stretch + u->used);
    const uint32_t *from = (const uint32_t *)(const void *)u->row;
    for (int32_t p = 0; p < pairs; p++)
        for (int32_t r = 0; r < sg; r++) *to++ = from[(int64_t)r * pairs + p];
    u->used += packed_bytes(u);
    u->n_row = 0;
    if (u->room - u->used >= packed_bytes(u)) return GDN_OK;
    const uint64_t all = u->used;
    u->used = 0;
    return send(u, u->stretch, all, err);
}

static gdn_status pack_row(upload *u, const void *row, uint64_t bytes, gdn_err *err) {
    memcpy(u->row + (int64_t)u->n_row * u->steps * 16, row, bytes);
    return ++u->n_row == u->d->sg ? pack(u, err) : GDN_OK;
}

/* The last rows are packed among zeros. */
static gdn_status pack_end(upload *u, gdn_err *err) {
    gdn_status st = GDN_OK;
    if (u->n_row > 0) {
        const int64_t row = (int64_t)u->steps * 16;
        memset(u->row + u->n_row * row, 0, (uint64_t)((u->d->sg - u->n_row) * row) * sizeof *u->row);
        st = pack(u, err);
    }
    return st == GDN_OK ? send(u, u->stretch, u->used, err) : st;
}

/* Rows r .. r + n - 1 of a part, in the order they are to have. */
static gdn_status send_rows(upload *u, const gdn_weight_part *p, int64_t r, int64_t n, uint64_t row,
                            gdn_err *err) {
    const char *data = p->data;
    gdn_status st = GDN_OK;
    if (u->row == NULL && p->order == NULL && p->row_bytes == (int64_t)row)
        return send(u, data + r * p->row_bytes, (uint64_t)n * row, err);
    if (u->stretch == NULL && (u->stretch = malloc(u->room)) == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "weight: out of memory");
    for (int64_t i = 0; i < n && st == GDN_OK; i++) {
        const char *from = data + (p->order != NULL ? p->order[r + i] : r + i) * p->row_bytes;
        if (u->row != NULL) st = pack_row(u, from, row, err);
        else memcpy(u->stretch + (uint64_t)i * row, from, row);
    }
    return st != GDN_OK || u->row != NULL ? st : send(u, u->stretch, (uint64_t)n * row, err);
}

static gdn_status part_up(upload *u, const gdn_weight_desc *d, const gdn_weight_part *p,
                          gdn_err *err) {
    const uint64_t row = (uint64_t)d->k * (uint64_t)gdn_type_bytes(d->type);
    const int64_t most = (int64_t)(u->room / row);
    int64_t given = 0;
    for (int64_t r = 0, n; r < p->n_row; r += n) {
        n = p->n_row - r < most ? p->n_row - r : most;
        const gdn_status st = send_rows(u, p, r, n, row, err);
        if (st != GDN_OK) return st;
        /* Rows taken in another order go with their whole part. */
        if (d->done == NULL || (p->order != NULL && r + n < p->n_row)) continue;
        d->done(d->done_arg, (const char *)p->data + given * p->row_bytes,
                (uint64_t)(r + n - given) * (uint64_t)p->row_bytes);
        given = r + n;
    }
    return GDN_OK;
}

static gdn_status rows_up(xpu_weight *w, const gdn_weight_desc *d, gdn_err *err) {
    const uint64_t row = (uint64_t)d->k * (uint64_t)gdn_type_bytes(d->type);
    upload u = {.d = (xpu_device *)w->base.device, .to = w->data};
    u.room = row < STRETCH ? STRETCH / row * row : row;
    gdn_status st = GDN_OK;
    if (w->packed) {
        u.steps = xpu_steps(d->k);
        if (u.room < packed_bytes(&u)) u.room = packed_bytes(&u);
        u.row = calloc((size_t)u.d->sg * (size_t)u.steps * 16, sizeof *u.row);
        if (u.row == NULL) return gdn_fail(err, GDN_E_NOMEM, "weight: out of memory");
    }
    for (int64_t i = 0; i < (int64_t)d->n_expert * d->n_part && st == GDN_OK; i++)
        st = part_up(&u, d, d->part + i, err);
    if (st == GDN_OK && w->packed) st = pack_end(&u, err);
    free(u.stretch);
    free(u.row);
    return st;
}

static float scale_at(const gdn_weight_part *p, int64_t i) {
    return p->scale_type == GDN_BF16 ? gdn_bf16_to_f32(((const uint16_t *)p->scale)[i])
                                     : ((const float *)p->scale)[i];
}

/* A scale for every row and stretch of inputs: each part counts its own blocks of rows. */
static gdn_status scales_up(xpu_weight *w, const gdn_weight_desc *d, gdn_err *err) {
    const int64_t cols = w->n_scale, rows = (int64_t)d->n_expert * d->n;
    const uint64_t bytes = (uint64_t)(rows * cols) * sizeof(float);
    upload u = {.d = (xpu_device *)w->base.device};
    gdn_status st = xpu_alloc(u.d, bytes, false, &w->scale, err);
    if (st != GDN_OK) return st;
    float *out = malloc(bytes);
    if (out == NULL) return gdn_fail(err, GDN_E_NOMEM, "weight scales: out of memory");
    float *next = out;
    for (int64_t i = 0; i < (int64_t)d->n_expert * d->n_part; i++) {
        const gdn_weight_part *p = d->part + i;
        for (int64_t r = 0; r < p->n_row; r++) {
            const int64_t from = (p->order != NULL ? p->order[r] : r) / d->scale_rows * cols;
            for (int64_t c = 0; c < cols; c++) *next++ = scale_at(p, from + c);
        }
    }
    u.to = w->scale;
    st = send(&u, out, bytes, err);
    free(out);
    return st;
}

void xpu_weight_free(gdn_weight *weight) {
    xpu_weight *w = (xpu_weight *)weight;
    xpu_device *d = (xpu_device *)weight->device;
    xpu_free(d, w->data);
    xpu_free(d, w->scale);
    free(w);
}

gdn_status xpu_weight_create(gdn_device *dev, const gdn_weight_desc *d, gdn_weight **out,
                             gdn_err *err) {
    xpu_weight *w = calloc(1, sizeof *w);
    if (w == NULL) return gdn_fail(err, GDN_E_NOMEM, "weight: out of memory");
    const xpu_device *xpu = (const xpu_device *)dev;
    uint64_t rows = (uint64_t)d->n, inputs = (uint64_t)d->k;
    w->packed = xpu_packs(xpu, d->type, d->n_expert);
    if (w->packed) {
        rows = (rows + (uint64_t)xpu->sg - 1) / (uint64_t)xpu->sg * (uint64_t)xpu->sg;
        inputs = (uint64_t)xpu_steps(d->k) * 16;
    }
    w->base = (gdn_weight){.device = dev,
                           .type = d->type,
                           .input_type = xpu->sg != 0 && d->type == GDN_BF16 ? GDN_BF16 : GDN_F32,
                           .n_expert = d->n_expert,
                           .n = d->n,
                           .k = d->k,
                           .bytes = (uint64_t)d->n_expert * rows * inputs *
                                    (uint64_t)gdn_type_bytes(d->type)};
    if (d->type == GDN_F8) {
        w->scale_cols = d->scale_cols;
        w->n_scale = (int32_t)(((int64_t)d->k + d->scale_cols - 1) / d->scale_cols);
    }
    gdn_status st = xpu_alloc((xpu_device *)dev, w->base.bytes, false, &w->data, err);
    if (st == GDN_OK && d->type == GDN_F8) st = scales_up(w, d, err);
    if (st == GDN_OK) st = rows_up(w, d, err);
    if (st == GDN_OK) *out = &w->base;
    else xpu_weight_free(&w->base);
    return st;
}
