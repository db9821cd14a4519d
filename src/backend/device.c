/* device.c - choosing a backend; buffers, queues, tensors and weights of any backend. */
#include <stdlib.h>
#include <string.h>

#include "backend.h"

const gdn_backend *const gdn_backends[] = {&gdn_backend_cpu, &gdn_backend_xpu};
const int gdn_n_backend = sizeof gdn_backends / sizeof *gdn_backends;

void gdn_device_opts_defaults(gdn_device_opts *o) {
    *o = (gdn_device_opts){.n_thread = 0, .pin = false, .isa_mask = ~0u};
}

static bool is_real(const gdn_backend *b) { return b->real != NULL && b->real(); }

int gdn_devices(gdn_device_info *out, int n) {
    int total = 0;
    for (int real = 1; real >= 0; real--)
        for (int i = 0; i < gdn_n_backend; i++) {
            if (is_real(gdn_backends[i]) != (real == 1)) continue;
            const int room = n - total > 0 ? n - total : 0;
            total += gdn_backends[i]->list(room > 0 ? out + total : NULL, room);
        }
    return total;
}

static const char *likely_default(void) {
    for (int i = 0; i < gdn_n_backend; i++)
        if (is_real(gdn_backends[i])) return gdn_backends[i]->name;
    return gdn_backends[0]->name;
}

static const gdn_backend *backend_of(const char *name, gdn_err *err) {
    const size_t len = strcspn(name, ":");
    for (int i = 0; i < gdn_n_backend; i++) {
        const gdn_backend *b = gdn_backends[i];
        if (strlen(b->name) == len && strncmp(b->name, name, len) == 0) return b;
    }
    gdn_fail(err, GDN_E_INVALID, "device '%.40s' is not known; `gdn devices` lists what this "
             "machine has", name);
    return NULL;
}

gdn_status gdn_device_find(const char *name, gdn_device_info *out, gdn_err *err) {
    enum { MAX = 16 };
    gdn_device_info d[MAX];
    if (name == NULL) name = likely_default();
    const gdn_backend *b = backend_of(name, err);
    if (b == NULL) return GDN_E_INVALID;
    const int n = b->list(d, MAX);
    for (int i = 0; i < n && i < MAX; i++) {
        /* The name itself; "xpu" for the first of several; "cpu:4" for a cpu of which 4 is asked. */
        const size_t len = strlen(d[i].name);
        if (strcmp(d[i].name, name) != 0 && strcmp(name, b->name) != 0 &&
            (strncmp(d[i].name, name, len) != 0 || name[len] != ':'))
            continue;
        *out = d[i];
        return GDN_OK;
    }
    return gdn_fail(err, GDN_E_INVALID, "device '%.40s' is not there; `gdn devices` lists what this "
                    "machine has", name);
}

gdn_status gdn_device_open(const char *name, const gdn_device_opts *opts, gdn_device **out,
                           gdn_err *err) {
    gdn_device_opts o;
    gdn_device_opts_defaults(&o);
    if (opts != NULL) o = *opts;
    if (name == NULL) return gdn_device_open_default(&o, 0, out, err);
    const gdn_backend *b = backend_of(name, err);
    if (b == NULL) return GDN_E_INVALID;
    const char *colon = strchr(name, ':');
    return b->open(colon != NULL ? colon + 1 : NULL, &o, out, err);
}

void gdn_device_close(gdn_device *d) {
    if (d != NULL) d->backend->close(d);
}

const char *gdn_device_name(const gdn_device *d) { return d->name; }

gdn_status gdn_buffer_alloc(gdn_device *d, uint64_t bytes, gdn_buffer **out, gdn_err *err) {
    return d->backend->buffer_alloc(d, bytes, out, err);
}

gdn_status gdn_buffer_wrap(gdn_device *d, void *host, uint64_t bytes, gdn_buffer **out,
                           gdn_err *err) {
    return d->backend->buffer_wrap(d, host, bytes, out, err);
}

void gdn_buffer_free(gdn_buffer *b) {
    if (b != NULL) b->device->backend->buffer_free(b);
}

uint64_t gdn_buffer_bytes(const gdn_buffer *b) { return b->bytes; }
void    *gdn_buffer_host(gdn_buffer *b) { return b->host; }

gdn_status gdn_queue_create(gdn_device *d, gdn_queue **out, gdn_err *err) {
    return d->backend->queue_create(d, out, err);
}

void gdn_queue_free(gdn_queue *q) {
    if (q != NULL) q->device->backend->queue_free(q);
}

gdn_status gdn_queue_wait(gdn_queue *q, gdn_err *err) {
    q->n_wait++;
    return q->device->backend->wait(q, err);
}

/* Both wait, so that what is timed and what is not are apart. */
gdn_status gdn_queue_profile(gdn_queue *q, bool on, gdn_err *err) {
    const gdn_device *d = q->device;
    if (d->backend->profile == NULL)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "device %s has no clock for its kernels", d->name);
    const gdn_status st = gdn_queue_wait(q, err);
    return st == GDN_OK ? d->backend->profile(q, on, err) : st;
}

gdn_status gdn_queue_times(gdn_queue *q, gdn_kernel_time *out, int32_t room, int32_t *n,
                           gdn_err *err) {
    const gdn_device *d = q->device;
    *n = 0;
    if (d->backend->times == NULL)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "device %s has no clock for its kernels", d->name);
    const gdn_status st = gdn_queue_wait(q, err);
    return st == GDN_OK ? d->backend->times(q, out, room, n, err) : st;
}

static gdn_status check_range(const gdn_buffer *b, uint64_t at, uint64_t bytes, gdn_err *err) {
    if (at > b->bytes || bytes > b->bytes - at)
        return gdn_fail(err, GDN_E_INVALID, "%llu bytes at %llu of a buffer of %llu",
                        (unsigned long long)bytes, (unsigned long long)at,
                        (unsigned long long)b->bytes);
    return GDN_OK;
}

gdn_status gdn_queue_write(gdn_queue *q, gdn_buffer *to, uint64_t at, const void *from,
                           uint64_t bytes, gdn_err *err) {
    const gdn_status st = check_range(to, at, bytes, err);
    return st != GDN_OK ? st : q->device->backend->write(q, to, at, from, bytes, err);
}

gdn_status gdn_queue_read(gdn_queue *q, void *to, gdn_buffer *from, uint64_t at, uint64_t bytes,
                          gdn_err *err) {
    const gdn_status st = check_range(from, at, bytes, err);
    return st != GDN_OK ? st : q->device->backend->read(q, to, from, at, bytes, err);
}

/* Bytes are compared by address where there is one: two buffers may wrap the same memory. */
static bool ranges_overlap(const gdn_buffer *a, uint64_t a_at, const gdn_buffer *b, uint64_t b_at,
                           uint64_t bytes) {
    if (bytes == 0) return false;
    if (a->host != NULL && b->host != NULL) {
        const uintptr_t x = (uintptr_t)a->host + a_at, y = (uintptr_t)b->host + b_at;
        return x < y ? y - x < bytes : x - y < bytes;
    }
    return a == b && (a_at < b_at ? b_at - a_at < bytes : a_at - b_at < bytes);
}

gdn_status gdn_queue_copy(gdn_queue *q, gdn_buffer *to, uint64_t to_at, gdn_buffer *from,
                          uint64_t from_at, uint64_t bytes, gdn_err *err) {
    if (to->device != q->device || from->device != q->device)
        return gdn_fail(err, GDN_E_INVALID, "copy: %s lies on another device",
                        to->device != q->device ? "to" : "from");
    gdn_status st = check_range(to, to_at, bytes, err);
    if (st == GDN_OK) st = check_range(from, from_at, bytes, err);
    if (st != GDN_OK) return st;
    if (ranges_overlap(to, to_at, from, from_at, bytes))
        return gdn_fail(err, GDN_E_INVALID, "copy: %llu bytes from %llu to %llu overlap",
                        (unsigned long long)bytes, (unsigned long long)from_at,
                        (unsigned long long)to_at);
    if (bytes == 0) return GDN_OK;
    /* The copy may use the device's threads, as an op does. */
    pthread_mutex_lock(&q->device->busy);
    st = q->device->backend->copy(q, to, to_at, from, from_at, bytes, err);
    pthread_mutex_unlock(&q->device->busy);
    return st;
}

bool gdn_pass_begin(gdn_queue *q, const gdn_pass *p) {
    if (q->device->backend->pass_begin == NULL || q->device->plain) return false;
    pthread_mutex_lock(&q->device->busy);
    const bool again = q->device->backend->pass_begin(q, p);
    pthread_mutex_unlock(&q->device->busy);
    return again;
}

void gdn_pass_end(gdn_queue *q, bool ok) {
    if (q->device->backend->pass_end == NULL) return;
    pthread_mutex_lock(&q->device->busy);
    q->device->backend->pass_end(q, ok);
    pthread_mutex_unlock(&q->device->busy);
}

const char *gdn_type_name(gdn_type t) {
    static const char *const name[] = {"f32", "bf16", "f16", "f8", "i32", "u8"};
    return (unsigned)t < sizeof name / sizeof *name ? name[t] : "?";
}

int gdn_type_bytes(gdn_type t) {
    return t == GDN_F32 || t == GDN_I32 ? 4 : t == GDN_F8 || t == GDN_U8 ? 1 : 2;
}

gdn_tensor gdn_tensor_dense(gdn_buffer *buf, uint64_t at, gdn_type type, int32_t ndim,
                            const int64_t *shape) {
    gdn_tensor t = {.buf = buf, .at = at, .type = type, .ndim = ndim};
    int64_t stride = gdn_type_bytes(type);
    for (int32_t i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        if (__builtin_mul_overflow(stride, shape[i], &stride)) stride = INT64_MAX; /* refused in use */
    }
    return t;
}

gdn_tensor gdn_tensor_slice(gdn_tensor t, int32_t dim, int64_t begin, int64_t end) {
    t.at += (uint64_t)begin * (uint64_t)t.stride[dim];
    t.shape[dim] = (int64_t)((uint64_t)end - (uint64_t)begin);
    return t;
}

gdn_status gdn_weight_create(gdn_device *d, const gdn_weight_desc *desc, gdn_weight **out,
                             gdn_err *err) {
    if (desc->n < 1 || desc->k < 1 || desc->n_expert < 1 || desc->n_part < 1)
        return gdn_fail(err, GDN_E_INVALID, "weight of %d x [%d, %d] in %d parts",
                        desc->n_expert, desc->n, desc->k, desc->n_part);
    const bool fp8 = desc->type == GDN_F8;
    if (!fp8 && desc->type != GDN_F32 && desc->type != GDN_BF16 && desc->type != GDN_F16)
        return gdn_fail(err, GDN_E_INVALID, "weight: type %s, need f32, bf16, f16 or f8",
                        gdn_type_name(desc->type));
    if (fp8 && (desc->scale_rows < 1 || desc->scale_cols < 1))
        return gdn_fail(err, GDN_E_INVALID, "weight: blocks of %d x %d for a scale",
                        desc->scale_rows, desc->scale_cols);
    if ((double)desc->n_expert * desc->n * desc->k > 0x1p46)
        return gdn_fail(err, GDN_E_INVALID, "weight of %d x [%d, %d] is too large",
                        desc->n_expert, desc->n, desc->k);
    for (int32_t e = 0; e < desc->n_expert; e++) {
        int64_t rows = 0;
        for (int32_t i = 0; i < desc->n_part; i++) {
            const gdn_weight_part *p = desc->part + (int64_t)e * desc->n_part + i;
            const bool scaled = p->scale != NULL &&
                                (p->scale_type == GDN_F32 || p->scale_type == GDN_BF16);
            if (p->data == NULL || p->n_row < 1 || p->n_row > desc->n || (fp8 && !scaled) ||
                p->row_bytes < (int64_t)desc->k * gdn_type_bytes(desc->type))
                return gdn_fail(err, GDN_E_INVALID,
                                "weight: part %d of expert %d: data, rows, row_bytes or scale is "
                                "wrong", i, e);
            for (int64_t r = 0; p->order != NULL && r < p->n_row; r++)
                if (p->order[r] < 0 || p->order[r] >= p->n_row)
                    return gdn_fail(err, GDN_E_INVALID, "weight: order[%lld] is %d of %lld rows",
                                    (long long)r, p->order[r], (long long)p->n_row);
            rows += p->n_row;
        }
        if (rows != desc->n)
            return gdn_fail(err, GDN_E_INVALID, "weight: parts of %lld rows, need %d",
                            (long long)rows, desc->n);
    }
    pthread_mutex_lock(&d->busy);
    const gdn_status st = d->backend->weight_create(d, desc, out, err);
    pthread_mutex_unlock(&d->busy);
    return st;
}

void gdn_weight_free(gdn_weight *w) {
    if (w != NULL) w->device->backend->weight_free(w);
}

uint64_t gdn_weight_bytes(const gdn_weight *w) { return w->bytes; }
gdn_type gdn_weight_input_type(const gdn_weight *w) { return w->input_type; }

gdn_weight_shape gdn_weight_get_shape(const gdn_weight *w) {
    return (gdn_weight_shape){w->type, w->n_expert, w->n, w->k};
}
