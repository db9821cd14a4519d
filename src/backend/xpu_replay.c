/* xpu_replay.c - passes that come again: their launches noted in a command buffer
 * (cl_khr_command_buffer) and made again by one call.
 *
 *     first time     launched kernel by kernel
 *     second time    the same, and noted
 *     from then on   one call, as long as the device has let go of no memory
 *
 * Noting does not stand in the way of a pass: it runs as ever, and what cannot be noted, or is
 * refused by the driver, costs the replay and nothing else.  Memory that was let go may be what a
 * noted kernel names, so everything is forgotten then; a device that serves lets go of none.
 *
 * A launch that is noted has a kernel object of its own, which nobody sets again: PoCL 3.1 reads the
 * arguments when the buffer runs, where the extension has them taken when the launch is noted. */
#include "xpu_replay.h"

#include <stdlib.h>
#include <string.h>

#include "../base/log.h"
#include "xpu_driver.h"
#include "xpu_program.h"

enum { MOST = 16 };

typedef struct {
    gdn_pass   key;
    uint64_t   used;   /* tick of the last time, 0: free                    */
    bool       plain;  /* cannot be noted                                   */
    cl_command_buffer_khr noted; /* NULL: not noted                         */
    uint64_t   n_launch;
    uint64_t   n_wait; /* of the queue, when it was replayed last           */
    xpu_object *object; /* of its launches, a list                          */
} noted_pass;

struct xpu_passes {
    noted_pass  of[MOST];
    noted_pass *noting;  /* NULL: none                                      */
    bool        spoiled; /* it cannot be made again                         */
    bool        off;     /* the driver refused something                    */
    uint64_t    tick, n_freed;
};

gdn_status xpu_passes_create(xpu_queue *q, gdn_err *err) {
    if (xpu_of(&q->base)->record == NULL) return GDN_OK;
    q->passes = calloc(1, sizeof *q->passes);
    return q->passes != NULL ? GDN_OK : gdn_fail(err, GDN_E_NOMEM, "queue: out of memory");
}

static void forget(xpu_queue *q, noted_pass *p) {
    if (p->noted != NULL) xpu_driver_forget(xpu_of(&q->base), p->noted);
    for (xpu_object *o = p->object, *next; o != NULL; o = next) {
        next = o->next;
        xpu_object_free(o);
    }
    *p = (noted_pass){.key = p->key, .used = p->used, .plain = p->plain};
}

static void forget_all(xpu_queue *q) {
    for (int i = 0; i < MOST; i++) {
        forget(q, &q->passes->of[i]);
        q->passes->of[i] = (noted_pass){.used = 0};
    }
}

void xpu_passes_forget(xpu_queue *q) {
    if (q->passes != NULL) forget_all(q);
}

void xpu_passes_free(xpu_queue *q) {
    if (q->passes == NULL) return;
    forget_all(q);
    free(q->passes);
}

/* What is refused once is not asked for again. */
static void refused(xpu_queue *q, cl_int code, const char *what) {
    q->passes->off = true;
    gdn_log(GDN_LOG_INFO, "replay off device=%s what=\"%s\" why=%s", q->base.device->name, what,
            xpu_error_name(code));
}

/* --- while a pass is noted ----------------------------------------------------------- */

static bool noting(const xpu_queue *q) {
    return q->passes != NULL && q->passes->noting != NULL && !q->passes->spoiled;
}

xpu_object *xpu_note_object(xpu_queue *q, const xpu_named *of, size_t room) {
    xpu_object *o = NULL;
    if (!noting(q)) return NULL;
    const cl_int e = xpu_object_create(xpu_of(&q->base), of, room, &o);
    if (e != CL_SUCCESS) {
        refused(q, e, "a kernel");
        q->passes->spoiled = true;
        return NULL;
    }
    o->next = q->passes->noting->object;
    q->passes->noting->object = o;
    return o;
}

void xpu_note_launch(xpu_queue *q, cl_kernel k, const size_t global[3], const size_t local[3]) {
    if (!noting(q)) return;
    noted_pass *p = q->passes->noting;
    const cl_int e = xpu_driver_note(xpu_of(&q->base), p->noted, k, global, local);
    if (e == CL_SUCCESS) {
        p->n_launch++;
    } else {
        refused(q, e, "noting a launch");
        q->passes->spoiled = true;
    }
}

void xpu_note_other(xpu_queue *q) {
    if (noting(q)) q->passes->spoiled = true;
}

/* --- passes --------------------------------------------------------------------------- */

/* The place of a key; a new one instead of the one used longest ago. */
static noted_pass *place(xpu_queue *q, const gdn_pass *key) {
    noted_pass *oldest = q->passes->of;
    for (int i = 0; i < MOST; i++) {
        noted_pass *p = &q->passes->of[i];
        if (p->used > 0 && memcmp(&p->key, key, sizeof *key) == 0) return p;
        if (p->used < oldest->used) oldest = p;
    }
    forget(q, oldest);
    *oldest = (noted_pass){.key = *key};
    return oldest;
}

static bool replay(xpu_queue *q, noted_pass *p) {
    xpu_device *d = xpu_of(&q->base);
    const cl_int e = xpu_driver_replay(d, p->noted, p->n_launch);
    if (e != CL_SUCCESS) {
        refused(q, e, "a replay");
        return false;
    }
    d->n_replayed++;
    p->n_wait = q->base.n_wait;
    q->used = true;
    q->armed = !d->base.dry_run;
    return true;
}

bool xpu_pass_begin(gdn_queue *queue, const gdn_pass *key) {
    xpu_queue *q = xpu_queue_of(queue);
    xpu_device *d = xpu_of(queue);
    xpu_passes *all = q->passes;
    if (all == NULL || q->times != NULL) return false; /* a replay has no times of kernels */
    const uint64_t n_freed = d->n_freed;
    if (all->off || all->n_freed != n_freed) forget_all(q);
    all->n_freed = n_freed;
    if (all->off) return false;
    noted_pass *p = place(q, key);
    const bool again = p->used > 0;
    p->used = ++all->tick;
    if (p->noted != NULL)
        return p->n_wait != q->base.n_wait && replay(q, p); /* a buffer is in the queue once at most */
    if (!again || p->plain) return false;
    const cl_int e = xpu_driver_record(d, q->cl, &p->noted);
    if (e != CL_SUCCESS) {
        p->noted = NULL;
        refused(q, e, "a command buffer");
        return false;
    }
    all->noting = p;
    all->spoiled = false;
    return false;
}

void xpu_pass_end(gdn_queue *queue, bool ok) {
    xpu_queue *q = xpu_queue_of(queue);
    xpu_device *d = xpu_of(queue);
    noted_pass *p = q->passes != NULL ? q->passes->noting : NULL;
    if (p == NULL) return;
    q->passes->noting = NULL;
    if (ok && !q->passes->spoiled) {
        const cl_int e = xpu_driver_recorded(d, p->noted);
        if (e == CL_SUCCESS) {
            d->n_recorded++;
            return;
        }
        refused(q, e, "the end of a command buffer");
    }
    p->plain = q->passes->spoiled;
    forget(q, p);
}
