/* check_apart.c - whether the tensors of a call share bytes. */
#include "check.h"

uint64_t gdn_tensor_extent(const gdn_tensor *t) {
    uint64_t n = (uint64_t)gdn_type_bytes(t->type);
    for (int32_t i = 0; i < t->ndim; i++) {
        if (t->shape[i] == 0) return 0;
        n += (uint64_t)(t->shape[i] - 1) * (uint64_t)t->stride[i];
    }
    return n;
}

/* Where a tensor lies: addresses where there are any, because buffers may wrap the same memory;
 * else bytes of its buffer. */
typedef struct {
    const gdn_buffer *buf; /* NULL: addresses */
    uint64_t begin, bytes; /* bytes 0: no elements */
} place;

static place place_of(const gdn_tensor *t) {
    if (t->buf == NULL) return (place){0};
    const place p = {.bytes = gdn_tensor_extent(t)};
    const char *host = gdn_tensor_host(t);
    if (host != NULL) return (place){.begin = (uintptr_t)host, .bytes = p.bytes};
    return (place){.buf = t->buf, .begin = t->at, .bytes = p.bytes};
}

static bool meet(const place *a, const place *b) {
    return a->buf == b->buf && a->begin < b->begin + b->bytes && b->begin < a->begin + a->bytes &&
           a->bytes > 0 && b->bytes > 0;
}

/* Rows of both are equally far apart, and one's row begins behind the other's. */
static bool side_by_side(const gdn_tensor *a, const place *pa, const gdn_tensor *b, const place *pb) {
    if (pa->buf != pb->buf || a->stride[0] != b->stride[0] || a->stride[0] <= 0) return false;
    const uint64_t pitch = (uint64_t)a->stride[0];
    const uint64_t row_a = pa->bytes - (uint64_t)(a->shape[0] - 1) * pitch;
    const uint64_t row_b = pb->bytes - (uint64_t)(b->shape[0] - 1) * pitch;
    uint64_t at; /* of b's rows, behind a's */
    if (pb->begin >= pa->begin) at = (pb->begin - pa->begin) % pitch;
    else at = (pitch - (pa->begin - pb->begin) % pitch) % pitch;
    return at >= row_a && row_b <= pitch - at;
}

static bool same_view(const gdn_tensor *a, const place *pa, const gdn_tensor *b, const place *pb) {
    if (a->type != b->type || a->ndim != b->ndim || pa->buf != pb->buf || pa->begin != pb->begin)
        return false;
    for (int32_t i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i] || (a->shape[i] > 1 && a->stride[i] != b->stride[i]))
            return false;
    return true;
}

/* Dimensions from the smallest stride up: each has to step over all that lies inside it.  That
 * is more than is needed, for views that interleave; those are not used as outputs. */
bool gdn_tensor_distinct(const gdn_tensor *t) {
    bool done[GDN_MAX_DIM] = {false};
    uint64_t inside = (uint64_t)gdn_type_bytes(t->type);
    for (int32_t n = 0; n < t->ndim; n++) {
        int32_t next = -1;
        for (int32_t i = 0; i < t->ndim; i++) {
            if (t->shape[i] == 0) return true;
            if (t->shape[i] == 1) done[i] = true;
            if (!done[i] && (next < 0 || t->stride[i] < t->stride[next])) next = i;
        }
        if (next < 0) return true;
        if ((uint64_t)t->stride[next] < inside) return false;
        inside += (uint64_t)(t->shape[next] - 1) * (uint64_t)t->stride[next];
        done[next] = true;
    }
    return true;
}

gdn_status gdn_check_apart(const char *op, const gdn_named *t, int n_out, int n, gdn_err *err) {
    place at[GDN_MAX_NAMED];
    for (int i = 0; i < n; i++) at[i] = place_of(t[i].t);
    for (int i = 0; i < n_out; i++) {
        if (at[i].bytes == 0) continue;
        if (!gdn_tensor_distinct(t[i].t)) REFUSE("%s: rows of %s lie on each other", op, t[i].name);
        for (int k = i + 1; k < n; k++) {
            if (!meet(at + i, at + k) || side_by_side(t[i].t, at + i, t[k].t, at + k)) continue;
            if (!t[k].in_place)
                REFUSE("%s: %s overlaps %s%s", op, t[i].name, t[k].prefix != NULL ? t[k].prefix : "",
                       t[k].name);
            if (!same_view(t[i].t, at + i, t[k].t, at + k))
                REFUSE("%s: %s overlaps %s and is not %s itself", op, t[i].name, t[k].name, t[k].name);
        }
    }
    return GDN_OK;
}
