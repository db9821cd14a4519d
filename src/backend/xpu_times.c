/* xpu_times.c - how long a queue's kernels take, by the device's own clock.
 *
 * Each launch has an event while times are taken; a wait reads them.  An event for each launch costs
 * a driver some time, so a step takes longer then, its kernels do not. */
#include "xpu_times.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xpu_driver.h"
#include "xpu_replay.h"

typedef struct {
    cl_event event;
    int32_t  of; /* of sum[] */
} launch;

struct xpu_times {
    gdn_kernel_time *sum; /* [n_sum]: names in the order in which they came */
    launch  *made;        /* [n_made], not yet read                         */
    int32_t  n_sum, sum_room;
    int64_t  n_made, made_room;
};

/* Room for one more of n; false: there is none. */
static bool grow(void **p, int64_t n, int64_t *room, size_t size) {
    if (n < *room) return true;
    const int64_t more = *room > 0 ? 2 * *room : 64;
    void *q = realloc(*p, (size_t)more * size);
    if (q == NULL) return false;
    *p = q;
    *room = more;
    return true;
}

/* The sum of a name, -1 where there is no memory for it. */
static int32_t sum_of(xpu_times *t, const char *file, const char *name) {
    char full[sizeof t->sum->name];
    snprintf(full, sizeof full, "%s %s", file, name);
    for (int32_t i = 0; i < t->n_sum; i++)
        if (strcmp(t->sum[i].name, full) == 0) return i;
    void *p = t->sum;
    int64_t room = t->sum_room;
    if (!grow(&p, t->n_sum, &room, sizeof *t->sum)) return -1;
    t->sum = p;
    t->sum_room = (int32_t)room;
    t->sum[t->n_sum] = (gdn_kernel_time){.n = 0};
    memcpy(t->sum[t->n_sum].name, full, sizeof full);
    return t->n_sum++;
}

cl_event *xpu_times_event(xpu_queue *q, const char *file, const char *name) {
    xpu_times *t = q->times;
    if (t == NULL) return NULL;
    const int32_t of = sum_of(t, file, name);
    void *p = t->made;
    if (of < 0 || !grow(&p, t->n_made, &t->made_room, sizeof *t->made)) return NULL;
    t->made = p;
    t->made[t->n_made] = (launch){.of = of};
    return &t->made[t->n_made].event;
}

void xpu_times_launched(xpu_queue *q) {
    xpu_times *t = q->times;
    if (t != NULL && t->n_made < t->made_room && t->made[t->n_made].event != NULL) t->n_made++;
}

gdn_status xpu_times_read(xpu_queue *q, gdn_err *err) {
    xpu_times *t = q->times;
    cl_int e = CL_SUCCESS;
    if (t == NULL) return GDN_OK;
    for (int64_t i = 0; i < t->n_made; i++) {
        double s = 0;
        if (e == CL_SUCCESS) e = xpu_driver_seconds(t->made[i].event, &s);
        if (e == CL_SUCCESS) t->sum[t->made[i].of].n++;
        t->sum[t->made[i].of].seconds += s;
        xpu_driver_event_free(t->made[i].event);
    }
    t->n_made = 0;
    return e == CL_SUCCESS ? GDN_OK : xpu_failed(xpu_of(&q->base), e, err, "a kernel's time");
}

void xpu_times_free(xpu_queue *q) {
    xpu_times *t = q->times;
    if (t == NULL) return;
    for (int64_t i = 0; i < t->n_made; i++) xpu_driver_event_free(t->made[i].event);
    free(t->made);
    free(t->sum);
    free(t);
    q->times = NULL;
}

/* --- what a caller sees ---------------------------------------------------------------- */

gdn_status xpu_queue_profile(gdn_queue *queue, bool on, gdn_err *err) {
    xpu_queue *q = xpu_queue_of(queue);
    xpu_device *d = xpu_of(queue);
    cl_command_queue cl;
    if (on == (q->times != NULL)) return GDN_OK;
    xpu_times *t = on ? calloc(1, sizeof *t) : NULL;
    if (on && t == NULL) return gdn_fail(err, GDN_E_NOMEM, "times of kernels: out of memory");
    /* Whether there are times is decided when a driver's queue is made. */
    const cl_int e = xpu_driver_queue(d, on, &cl);
    if (e != CL_SUCCESS) {
        free(t);
        return xpu_failed(d, e, err, "a queue that takes times");
    }
    xpu_passes_forget(q); /* noted for the queue as it was */
    xpu_driver_queue_free(q->cl);
    xpu_times_free(q);
    q->cl = cl;
    q->times = t;
    return GDN_OK;
}

static int by_seconds(const void *a, const void *b) {
    const double x = ((const gdn_kernel_time *)a)->seconds, y = ((const gdn_kernel_time *)b)->seconds;
    return (x < y) - (x > y);
}

gdn_status xpu_queue_times(gdn_queue *queue, gdn_kernel_time *out, int32_t room, int32_t *n,
                           gdn_err *err) {
    xpu_times *t = xpu_queue_of(queue)->times;
    if (t == NULL)
        return gdn_fail(err, GDN_E_INVALID, "times of kernels: gdn_queue_profile() was not called");
    *n = t->n_sum;
    if (t->n_sum > 0) qsort(t->sum, (size_t)t->n_sum, sizeof *t->sum, by_seconds);
    for (int32_t i = 0; i < t->n_sum && i < room; i++) out[i] = t->sum[i];
    t->n_sum = 0;
    return GDN_OK;
}
