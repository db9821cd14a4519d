/* xpu_weight.c - weight matrices on the xpu: rows one after the other, in the order of the desc.
 *
 * Rows are gathered in a stretch of host memory and copied from there; what they occupied in the
 * file is given back stretch by stretch, so that a checkpoint is not held twice. */
#include <stdlib.h>
#include <string.h>

#include "../base/half.h"
#include "xpu.h"

enum { STRETCH = 16 << 20 };

typedef struct {
    xpu_device *d;
    cl_mem   to;
    uint64_t at; /* of the stretch in `to` */
    char    *stretch;
    uint64_t used, room;
} upload;

static gdn_status flush(upload *u, gdn_err *err) {
    if (u->used == 0) return GDN_OK;
    const cl_int e = xpu_cl.clEnqueueWriteBuffer(u->d->upload, u->to, CL_TRUE, u->at, u->used,
                                                 u->stretch, 0, NULL, NULL);
    if (e != CL_SUCCESS)
        return gdn_fail(err, GDN_E_DEVICE, "device %s: a copy of a weight: %s", u->d->base.name,
                        xpu_error_name(e));
    u->at += u->used;
    u->used = 0;
    return GDN_OK;
}

static gdn_status part_up(upload *u, const gdn_weight_desc *d, const gdn_weight_part *p,
                          gdn_err *err) {
    const uint64_t row = (uint64_t)d->k * (uint64_t)gdn_type_bytes(d->type);
    int64_t given = 0;
    gdn_status st = GDN_OK;
    for (int64_t r = 0; r < p->n_row && st == GDN_OK; r++) {
        if (u->room - u->used < row) {
            st = flush(u, err);
            /* Rows taken in another order go with their whole part. */
            if (d->done != NULL && p->order == NULL && r > given) {
                d->done(d->done_arg, (const char *)p->data + given * p->row_bytes,
                        (uint64_t)(r - given) * (uint64_t)p->row_bytes);
                given = r;
            }
        }
        const int64_t from = p->order != NULL ? p->order[r] : r;
        memcpy(u->stretch + u->used, (const char *)p->data + from * p->row_bytes, row);
        u->used += row;
    }
    if (d->done != NULL && st == GDN_OK && given < p->n_row)
        d->done(d->done_arg, (const char *)p->data + given * p->row_bytes,
                (uint64_t)(p->n_row - given) * (uint64_t)p->row_bytes);
    return st;
}

static gdn_status rows_up(xpu_weight *w, const gdn_weight_desc *d, gdn_err *err) {
    const uint64_t row = (uint64_t)d->k * (uint64_t)gdn_type_bytes(d->type);
    upload u = {.d = (xpu_device *)w->base.device, .to = w->data};
    u.room = w->base.bytes < STRETCH ? w->base.bytes : row < STRETCH ? STRETCH : row;
    u.stretch = malloc(u.room);
    if (u.stretch == NULL) return gdn_fail(err, GDN_E_NOMEM, "weight: out of memory");
    gdn_status st = GDN_OK;
    for (int64_t i = 0; i < (int64_t)d->n_expert * d->n_part && st == GDN_OK; i++)
        st = part_up(&u, d, d->part + i, err);
    if (st == GDN_OK) st = flush(&u, err);
    free(u.stretch);
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
    upload u = {.d = (xpu_device *)w->base.device, .used = bytes};
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
    u.stretch = (char *)out;
    st = flush(&u, err);
    free(out);
    return st;
}

void xpu_weight_free(gdn_weight *weight) {
    xpu_weight *w = (xpu_weight *)weight;
    if (w->data != NULL) xpu_cl.clReleaseMemObject(w->data);
    if (w->scale != NULL) xpu_cl.clReleaseMemObject(w->scale);
    free(w);
}

gdn_status xpu_weight_create(gdn_device *dev, const gdn_weight_desc *d, gdn_weight **out,
                             gdn_err *err) {
    xpu_weight *w = calloc(1, sizeof *w);
    if (w == NULL) return gdn_fail(err, GDN_E_NOMEM, "weight: out of memory");
    w->base = (gdn_weight){.device = dev,
                           .type = d->type,
                           .input_type = GDN_F32,
                           .n_expert = d->n_expert,
                           .n = d->n,
                           .k = d->k,
                           .bytes = (uint64_t)d->n_expert * (uint64_t)d->n * (uint64_t)d->k *
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
