/* check.c - shapes, types and bounds of one tensor. */
#include "check.h"

#include <stdio.h>

static void shape_text(char *out, size_t n, int32_t ndim, const int64_t *shape) {
    size_t at = 0;
    at += (size_t)snprintf(out, n, "[");
    for (int32_t i = 0; i < ndim && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, shape[i] == ANY ? "%s*" : "%s%lld",
                               i > 0 ? ", " : "", (long long)shape[i]);
    if (at < n) snprintf(out + at, n - at, "]");
}

gdn_status gdn_check_tensor(const char *op, const char *name, const gdn_queue *q,
                            const gdn_tensor *t, unsigned types, int32_t ndim,
                            const int64_t *shape, gdn_err *err) {
    if (t->buf == NULL) return gdn_fail(err, GDN_E_INVALID, "%s: %s is missing", op, name);
    if (t->buf->device != q->device)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s lies on another device", op, name);
    if ((unsigned)t->type > GDN_U8 || (types & 1u << t->type) == 0)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s has type %s", op, name,
                        gdn_type_name(t->type));
    bool same = t->ndim == ndim;
    for (int32_t i = 0; same && i < ndim; i++)
        same = t->shape[i] >= 0 && (shape[i] == ANY || t->shape[i] == shape[i]);
    if (!same) {
        char have[96], need[96];
        shape_text(have, sizeof have, t->ndim <= GDN_MAX_DIM ? t->ndim : GDN_MAX_DIM, t->shape);
        shape_text(need, sizeof need, ndim, shape);
        return gdn_fail(err, GDN_E_INVALID, "%s: %s has shape %s, need %s", op, name, have, need);
    }
    for (int32_t i = 0; i < ndim; i++) /* an empty tensor's too: products of two fit int64_t */
        if (t->shape[i] > INT32_MAX)
            return gdn_fail(err, GDN_E_INVALID, "%s: %s has size %lld in dimension %d, need at most %d",
                            op, name, (long long)t->shape[i], i, INT32_MAX);
    const int size = gdn_type_bytes(t->type);
    if (t->at > t->buf->bytes || t->buf->bytes > UINT64_MAX / 4)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s begins at byte %llu of a buffer of %llu", op,
                        name, (unsigned long long)t->at, (unsigned long long)t->buf->bytes);
    uint64_t last = t->at + (uint64_t)size;
    for (int32_t i = 0; i < ndim; i++) {
        if (t->shape[i] == 0) return GDN_OK;
        if (t->stride[i] < 0 || t->stride[i] % size != 0 ||
            (i == ndim - 1 && t->shape[i] > 1 && t->stride[i] != size))
            return gdn_fail(err, GDN_E_INVALID, "%s: %s has stride %lld in dimension %d", op,
                            name, (long long)t->stride[i], i);
        if (t->shape[i] > 1 &&
            (uint64_t)t->stride[i] > (UINT64_MAX / 2 - last) / (uint64_t)(t->shape[i] - 1))
            return gdn_fail(err, GDN_E_INVALID, "%s: %s is too large", op, name);
        last += (uint64_t)(t->shape[i] - 1) * (uint64_t)t->stride[i];
    }
    const uintptr_t first = (uintptr_t)gdn_tensor_host(t); /* wrapped memory may lie anywhere */
    if (first % (uintptr_t)size != 0)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s begins between elements, at %#llx", op, name,
                        (unsigned long long)first);
    if (last > t->buf->bytes || t->at % (uint64_t)size != 0)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s ends at byte %llu of a buffer of %llu", op,
                        name, (unsigned long long)last, (unsigned long long)t->buf->bytes);
    return GDN_OK;
}
