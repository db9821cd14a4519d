/* check.h - what operators check their arguments with. */
#ifndef GDN_BACKEND_CHECK_H
#define GDN_BACKEND_CHECK_H

#include "backend.h"

enum { F32 = 1u << GDN_F32, BF16 = 1u << GDN_BF16, F16 = 1u << GDN_F16, I32 = 1u << GDN_I32,
       U8 = 1u << GDN_U8 };
enum { ANY = -1 };

/* t has one of the types, ndim dimensions of these sizes (ANY matches all up to INT32_MAX), lies
 * inside its buffer and is dense in the last dimension. */
gdn_status gdn_check_tensor(const char *op, const char *name, const gdn_queue *q,
                            const gdn_tensor *t, unsigned types, int32_t ndim,
                            const int64_t *shape, gdn_err *err);

/* The adapters among the experts' arguments (op_lora.c), once the rest has been checked. */
gdn_status gdn_check_expert_lora(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err);

/* Bytes from a tensor's first to behind its last. */
uint64_t gdn_tensor_extent(const gdn_tensor *t);

/* Whether no two elements of a checked tensor share bytes, as an output needs it. */
bool gdn_tensor_distinct(const gdn_tensor *t);

/* An argument and its name in a refusal.  in_place: an output may be this tensor itself, the same
 * view of the same type. */
typedef struct {
    const char *prefix, *name; /* prefix NULL: none */
    const gdn_tensor *t;
    bool in_place;
} gdn_named;

enum { GDN_MAX_NAMED = 24 };

/* The first n_out of n tensors are outputs, scratch included: each distinct in itself, and between
 * its first and last byte apart from all others.  Views that lie side by side in the rows of one
 * matrix, or in the pages of one pool, are apart.  Tensors are checked ones, or have no buffer; n is
 * GDN_MAX_NAMED at most. */
gdn_status gdn_check_apart(const char *op, const gdn_named *t, int n_out, int n, gdn_err *err);

#define CHECK(field, types, ...)                                                          \
    do {                                                                                  \
        const int64_t shape_[] = {__VA_ARGS__};                                           \
        const gdn_status st_ =                                                            \
            gdn_check_tensor(op, #field, q, &a->field, types,                                 \
                         (int32_t)(sizeof shape_ / sizeof *shape_), shape_, err);         \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)
#define CHECK_OPT(field, types, ...) \
    if (a->field.buf != NULL) CHECK(field, types, __VA_ARGS__)
/* Arguments of a call, the outputs first. */
#define APART(n_out, ...)                                                                 \
    do {                                                                                  \
        const gdn_named t_[] = {__VA_ARGS__};                                             \
        _Static_assert(sizeof t_ / sizeof *t_ <= GDN_MAX_NAMED, "more than are compared"); \
        const gdn_status st_ =                                                            \
            gdn_check_apart(op, t_, n_out, (int)(sizeof t_ / sizeof *t_), err);           \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)
#define ARG(field) {.name = #field, .t = &a->field}
#define ARG_IN_PLACE(field) {.name = #field, .t = &a->field, .in_place = true}
#define ARG_KV(field) {.name = #field, .t = &a->kv.field}

/* One op of a device at a time: queues of several threads may share it. */
#define RUN(name) gdn_unlock_after(q, gdn_lock_before(q)->backend->op.name(q, a, err))

static inline gdn_device *gdn_lock_before(const gdn_queue *q) {
    pthread_mutex_lock(&q->device->busy);
    return q->device;
}

static inline gdn_status gdn_unlock_after(const gdn_queue *q, gdn_status st) {
    pthread_mutex_unlock(&q->device->busy);
    return st;
}

#define REFUSE(...) return gdn_fail(err, GDN_E_INVALID, __VA_ARGS__)

static inline const int32_t *gdn_ints(const gdn_tensor *t) { return gdn_tensor_host(t); }

/* A matrix without gaps between its rows. */
static inline bool gdn_dense_rows(const gdn_tensor *t) {
    return t->shape[0] <= 1 || t->stride[0] == t->shape[1] * gdn_type_bytes(t->type);
}

#endif
