/* xpu_queue.c - in-order queues of the xpu device: copies, scratch memory, waiting. */
#include <stdlib.h>
#include <string.h>

#include "xpu_driver.h"
#include "xpu_queue.h"
#include "xpu_replay.h"
#include "xpu_times.h"

struct xpu_stage {
    xpu_stage *next;
    char       data[];
};

/* Of staged writes: one, and all until a wait. */
enum { STAGE_BYTES = 1 << 20, STAGE_ALL = 16 << 20 };

gdn_status xpu_queued(xpu_queue *q, cl_int result, const char *what, gdn_err *err) {
    if (result != CL_SUCCESS) return xpu_failed(xpu_of(&q->base), result, err, "%s", what);
    xpu_note_other(q);
    q->used = true;
    return GDN_OK;
}

gdn_status xpu_queue_create(gdn_device *dev, gdn_queue **out, gdn_err *err) {
    xpu_device *d = (xpu_device *)dev;
    xpu_queue *q = calloc(1, sizeof *q);
    if (q == NULL) return gdn_fail(err, GDN_E_NOMEM, "queue: out of memory");
    q->base.device = dev;
    const cl_int e = xpu_driver_queue(d, false, &q->cl);
    gdn_status st = e == CL_SUCCESS ? GDN_OK : xpu_failed(d, e, err, "a queue");
    if (st == GDN_OK) st = xpu_alloc(d, 4 * sizeof(cl_int), true, &q->fault, err);
    if (st == GDN_OK) st = xpu_passes_create(q, err);
    if (st != GDN_OK) xpu_queue_free(&q->base);
    else *out = &q->base;
    return st;
}

static void free_stages(xpu_queue *q) {
    for (xpu_stage *s = q->stage, *next; s != NULL; s = next) {
        next = s->next;
        free(s);
    }
    q->stage = NULL;
    q->staged = 0;
}

void xpu_queue_free(gdn_queue *queue) {
    xpu_queue *q = xpu_queue_of(queue);
    xpu_device *d = xpu_of(queue);
    if (q->used) xpu_driver_finish(q->cl, NULL); /* nobody waited for it */
    xpu_passes_free(q);
    xpu_times_free(q);
    for (int i = 0; i < XPU_N_SCRATCH; i++) xpu_free(d, q->scratch[i].mem);
    xpu_free(d, q->rope.turn);
    xpu_free(d, q->fault);
    if (q->cl != NULL) xpu_driver_queue_free(q->cl);
    free_stages(q);
    free(q);
}

/* --- waiting ------------------------------------------------------------------------ */

static gdn_status report(xpu_queue *q, const cl_int fault[4], gdn_err *err) {
    static const char *const text[XPU_N_FAULT] = {
#define X(name, text) [XPU_FAULT_##name] = text,
        XPU_FAULT_LIST(X)
#undef X
    };
    static const cl_int none[4];
    xpu_device *d = xpu_of(&q->base);
    const cl_int e = xpu_driver_write(d, q->cl, q->fault, 0, none, sizeof none, true, NULL);
    if (e != CL_SUCCESS) return xpu_failed(d, e, err, "a wait");
    if (fault[0] <= 0 || fault[0] >= XPU_N_FAULT)
        return gdn_fail(err, GDN_E_DEVICE, "device %s: fault %d", q->base.device->name, fault[0]);
    /* The texts are the ones of XPU_FAULT_LIST, all with two %d. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return gdn_fail(err, GDN_E_INVALID, text[fault[0]], fault[1], fault[2]);
#pragma GCC diagnostic pop
}

gdn_status xpu_queue_wait(gdn_queue *queue, gdn_err *err) {
    xpu_queue *q = xpu_queue_of(queue);
    xpu_device *d = xpu_of(queue);
    cl_int fault[4] = {0}, e = CL_SUCCESS;
    cl_event last = NULL;
    /* An event for each command costs a driver more than many of them take.  That of a last one
     * tells of all: what stands behind a failed command in its queue fails. */
    if (q->used) e = xpu_driver_read(d, q->cl, fault, q->fault, 0, sizeof fault, false, &last);
    const cl_int done = xpu_driver_finish(q->cl, last);
    if (e == CL_SUCCESS) e = done;
    if (!q->armed) fault[0] = 0;
    q->used = q->armed = false;
    free_stages(q);
    const gdn_status timed = xpu_times_read(q, err);
    if (e != CL_SUCCESS) return xpu_failed(d, e, err, "a wait");
    return fault[0] != 0 ? report(q, fault, err) : timed;
}

/* --- copies ------------------------------------------------------------------------- */

/* Small ones are copied aside, so that the caller need not wait for the queue to get there. */
gdn_status xpu_put(gdn_queue *queue, cl_mem to, uint64_t at, const void *from, uint64_t bytes,
                   gdn_err *err) {
    xpu_queue *q = xpu_queue_of(queue);
    if (bytes == 0) return GDN_OK;
    const bool aside = bytes <= STAGE_BYTES && q->staged + bytes <= STAGE_ALL;
    if (aside) {
        xpu_stage *s = malloc(sizeof *s + bytes);
        if (s == NULL) return gdn_fail(err, GDN_E_NOMEM, "a write: out of memory");
        memcpy(s->data, from, bytes);
        s->next = q->stage;
        q->stage = s;
        q->staged += bytes;
        from = s->data;
    }
    const cl_int e = xpu_driver_write(xpu_of(queue), q->cl, to, at, from, bytes, !aside, NULL);
    return xpu_queued(q, e, "a write", err);
}

gdn_status xpu_queue_write(gdn_queue *q, gdn_buffer *to, uint64_t at, const void *from,
                           uint64_t bytes, gdn_err *err) {
    return xpu_put(q, xpu_mem(to), at, from, bytes, err);
}

gdn_status xpu_queue_read(gdn_queue *queue, void *to, gdn_buffer *from, uint64_t at, uint64_t bytes,
                          gdn_err *err) {
    xpu_queue *q = xpu_queue_of(queue);
    if (bytes == 0) return GDN_OK;
    const cl_int e = xpu_driver_read(xpu_of(queue), q->cl, to, xpu_mem(from), at, bytes, false,
                                     NULL);
    return xpu_queued(q, e, "a read", err);
}

gdn_status xpu_queue_copy(gdn_queue *queue, gdn_buffer *to, uint64_t to_at, gdn_buffer *from,
                          uint64_t from_at, uint64_t bytes, gdn_err *err) {
    xpu_queue *q = xpu_queue_of(queue);
    const cl_int e = xpu_driver_copy(xpu_of(queue), q->cl, xpu_mem(to), to_at, xpu_mem(from),
                                     from_at, bytes, NULL);
    return xpu_queued(q, e, "a copy", err);
}

/* --- scratch ------------------------------------------------------------------------ */

/* Memory that is let go lives until what uses it has run. */
gdn_status xpu_scratch(gdn_queue *queue, int i, uint64_t bytes, cl_mem *out, gdn_err *err) {
    xpu_queue *q = xpu_queue_of(queue);
    if (bytes > q->scratch[i].bytes || q->scratch[i].mem == NULL) {
        cl_mem mem;
        const uint64_t want = bytes + bytes / 4 + 256; /* steps grow slowly */
        const gdn_status st = xpu_alloc(xpu_of(queue), want, false, &mem, err);
        if (st != GDN_OK) return st;
        xpu_free(xpu_of(queue), q->scratch[i].mem);
        q->scratch[i].mem = mem;
        q->scratch[i].bytes = want;
    }
    *out = q->scratch[i].mem;
    return GDN_OK;
}
