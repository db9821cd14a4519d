/* xpu_call.c - kernels started: a call's arguments, and a kernel object that has them.
 *
 * An argument set is a call of the driver, and a step sets many more than it launches kernels, while
 * most launches come again in every step with all their arguments as they were.  So there are
 *
 *     an object of each kernel       shared by its launches: what differs from the last one is set
 *     an object of a single launch   from the second time on that it is seen: nothing is set
 *
 * The latter lie in a table of the device, found by a hash over kernel and arguments, and then by all
 * of these.  It is cut into sets of slots; a slot may hold a hash that was seen once and nothing else.
 * Launches that never come again take one another's slots and make no object; one that finds its set
 * full of objects in use goes on with the shared one, as do all after the driver has refused one.
 *
 * Memory that was let go may come back under its old name, and an object may then stand for what was
 * there: an object whose memory was set before the latest piece was let go (d->n_freed) has it set
 * anew.  Objects keep no memory alive (clSetKernelArg forbids it). */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../base/log.h"
#include "xpu_driver.h"
#include "xpu_program.h"
#include "xpu_times.h"

/* An argument in a list: this, and its bytes behind it. */
typedef struct {
    uint16_t kind, bytes;
} arg_head;
enum { ARG_VALUE = 1, ARG_MEMORY, ARG_LOCAL };

enum {
    N_SET = 64,
    N_SLOT = 16, /* of a set                                              */
    OLD = 8192,  /* launches after which an object's slot may be taken    */
};

typedef struct {
    uint64_t    hash, used; /* used: the tick of the last time, 0: free   */
    xpu_object *object;     /* NULL: seen once                            */
} slot;

struct xpu_table {
    slot     set[N_SET][N_SLOT];
    uint64_t tick;    /* launches that were looked up */
    bool     refused; /* the driver gives no more     */
};

/* --- objects ------------------------------------------------------------------------ */

cl_int xpu_object_create(xpu_device *d, const xpu_named *of, size_t room, xpu_object **out) {
    xpu_object *o = malloc(sizeof *o + room);
    if (o == NULL) return CL_OUT_OF_HOST_MEMORY;
    *o = (xpu_object){.of = of};
    const cl_int e = xpu_driver_kernel(d, of->program, of->name, &o->cl);
    if (e != CL_SUCCESS) free(o);
    else *out = o;
    return e;
}

void xpu_object_free(xpu_object *o) {
    if (o == NULL) return;
    xpu_driver_kernel_free(o->cl);
    free(o);
}

/* The arguments of a call, as far as the object does not have them. */
static gdn_status set_arguments(const xpu_call *c, xpu_object *o, gdn_err *err) {
    xpu_device *d = xpu_of(&c->q->base);
    const uint64_t n_freed = d->n_freed;
    const size_t had = o->bytes;
    if (had == c->bytes && o->n_freed == n_freed && memcmp(o->list, c->list, had) == 0) return GDN_OK;
    arg_head h;
    o->bytes = 0; /* not known, should one fail */
    cl_uint i = 0;
    for (size_t at = 0, n; at < c->bytes; at += n, i++) {
        const unsigned char *now = c->list + at, *v = now + sizeof h;
        memcpy(&h, now, sizeof h);
        n = sizeof h + h.bytes;
        /* A kernel's arguments have the same sizes each time, so the same ones lie at the same place. */
        const bool same = at + n <= had && memcmp(o->list + at, now, n) == 0;
        if (same && (h.kind != ARG_MEMORY || o->n_freed == n_freed)) continue;
        cl_mem m = NULL;
        size_t local = 0;
        if (h.kind == ARG_MEMORY) memcpy(&m, v, sizeof m);
        if (h.kind == ARG_LOCAL) memcpy(&local, v, sizeof local);
        const cl_int e = h.kind == ARG_MEMORY  ? xpu_driver_memory(d, o->cl, i, m)
                         : h.kind == ARG_LOCAL ? xpu_driver_value(d, o->cl, i, local, NULL)
                                               : xpu_driver_value(d, o->cl, i, h.bytes, v);
        if (e != CL_SUCCESS) return xpu_failed(d, e, err, "argument %u of kernel %s", i, c->name);
    }
    memcpy(o->list, c->list, c->bytes);
    o->bytes = c->bytes;
    o->n_freed = n_freed;
    return GDN_OK;
}

/* --- the table ---------------------------------------------------------------------- */

static struct xpu_table *table_of(xpu_device *d) {
    if (d->table == NULL) d->table = calloc(1, sizeof *d->table);
    return d->table;
}

void xpu_table_free(xpu_device *d) {
    for (int i = 0; d->table != NULL && i < N_SET * N_SLOT; i++)
        xpu_object_free(d->table->set[i / N_SLOT][i % N_SLOT].object);
    free(d->table);
    d->table = NULL;
}

/* The slot used longest ago when that is long ago, else one without an object; NULL: none.  Any of
 * several, as in turn more launches than there are slots would drive one another out before they
 * come again. */
static slot *spare_slot(slot set[N_SLOT], uint64_t tick) {
    slot *seen[N_SLOT], *oldest = set;
    uint64_t n_seen = 0;
    for (slot *s = set; s < set + N_SLOT; s++) {
        if (s->used < oldest->used) oldest = s;
        if (s->object == NULL) seen[n_seen++] = s;
    }
    if (oldest->used == 0 || tick - oldest->used > OLD) return oldest;
    return n_seen > 0 ? seen[(tick * 0x9e3779b97f4a7c15u >> 32) % n_seen] : NULL;
}

/* The object of a launch that comes again, or NULL. */
static xpu_object *own_object(const xpu_call *c) {
    xpu_device *d = xpu_of(&c->q->base);
    struct xpu_table *t = table_of(d);
    if (t == NULL) return NULL;
    const uint64_t hash = XXH3_64bits_withSeed(c->list, c->bytes, (uintptr_t)c->of), tick = ++t->tick;
    slot *set = t->set[hash % N_SET], *s = set;
    while (s < set + N_SLOT && (s->used == 0 || s->hash != hash)) s++;
    if (s == set + N_SLOT) {
        s = spare_slot(set, tick);
        if (s == NULL) return NULL;
        xpu_object_free(s->object);
        *s = (slot){.hash = hash, .used = tick};
        return NULL;
    }
    s->used = tick;
    if (s->object != NULL) {
        const xpu_object *o = s->object;
        const bool same = o->of == c->of && o->bytes == c->bytes &&
                          memcmp(o->list, c->list, c->bytes) == 0;
        return same ? s->object : NULL;
    }
    if (t->refused) return NULL;
    const cl_int e = xpu_object_create(d, c->of, c->bytes, &s->object);
    if (e == CL_SUCCESS) return s->object;
    t->refused = true;
    gdn_log(GDN_LOG_INFO, "launches without objects of their own device=%s why=%s", d->base.name,
            xpu_error_name(e));
    return NULL;
}

/* --- calls -------------------------------------------------------------------------- */

xpu_call xpu_begin(gdn_queue *q, const char *file, const char *name) {
    xpu_call c = {.q = xpu_queue_of(q), .file = file, .name = name};
    c.st = xpu_kernel(xpu_of(q), file, name, &c.of, &c.why);
    return c;
}

static void argument(xpu_call *c, int kind, size_t bytes, const void *v) {
    const arg_head h = {.kind = (uint16_t)kind, .bytes = (uint16_t)bytes};
    if (c->st == GDN_OK && sizeof h + bytes > sizeof c->list - c->bytes)
        c->st = gdn_fail(&c->why, GDN_E_UNSUPPORTED, "device %s: kernel %s: too many arguments",
                         c->q->base.device->name, c->name);
    if (c->st != GDN_OK) return;
    memcpy(c->list + c->bytes, &h, sizeof h);
    memcpy(c->list + c->bytes + sizeof h, v, bytes);
    c->bytes += sizeof h + bytes;
}

static void value(xpu_call *c, size_t bytes, const void *v) { argument(c, ARG_VALUE, bytes, v); }
void xpu_memory(xpu_call *c, cl_mem m) { argument(c, ARG_MEMORY, sizeof m, &m); }

void xpu_tensor(xpu_call *c, const gdn_tensor *t, int n_stride) {
    const cl_ulong at = t->buf != NULL ? t->at : 0;
    xpu_memory(c, xpu_mem(t->buf));
    value(c, sizeof at, &at);
    for (int i = 0; i < n_stride; i++) xpu_long(c, t->buf != NULL ? t->stride[i] : 0);
}

void xpu_int(xpu_call *c, int64_t v) {
    const cl_int i = (cl_int)v;
    if (c->st == GDN_OK && i != v)
        c->st = gdn_fail(&c->why, GDN_E_UNSUPPORTED, "device %s: kernel %s: a size of %lld",
                         c->q->base.device->name, c->name, (long long)v);
    value(c, sizeof i, &i);
}

void xpu_long(xpu_call *c, int64_t v) {
    const cl_long i = v;
    value(c, sizeof i, &i);
}

void xpu_float(xpu_call *c, float v) { value(c, sizeof v, &v); }
void xpu_struct(xpu_call *c, const void *v, size_t bytes) { value(c, bytes, v); }
void xpu_local(xpu_call *c, size_t bytes) { argument(c, ARG_LOCAL, sizeof bytes, &bytes); }

void xpu_faults(xpu_call *c) {
    xpu_memory(c, c->q->fault);
    c->q->armed = !c->q->base.device->dry_run;
}

gdn_status xpu_start(xpu_call *c, const int64_t groups[3], const int local[3], gdn_err *err) {
    if (c->st != GDN_OK) {
        if (err != NULL) *err = c->why;
        return c->st;
    }
    size_t global[3], items[3];
    for (int i = 0; i < 3; i++) {
        if (groups[i] <= 0) return GDN_OK;
        items[i] = (size_t)local[i];
        global[i] = (size_t)groups[i] * items[i];
    }
    xpu_device *d = xpu_of(&c->q->base);
    xpu_object *o = xpu_note_object(c->q, c->of, c->bytes);
    if (o == NULL) o = own_object(c);
    if (o == NULL) o = c->of->shared;
    const gdn_status st = set_arguments(c, o, err);
    if (st != GDN_OK) return st;
    const cl_int e = xpu_driver_launch(d, c->q->cl, o->cl, global, items,
                                       xpu_times_event(c->q, c->file, c->name));
    if (e != CL_SUCCESS) return xpu_failed(d, e, err, "kernel %s", c->name);
    xpu_times_launched(c->q);
    c->q->used = true;
    xpu_note_launch(c->q, o->cl, global, items);
    return GDN_OK;
}
