/* pool.h - the threads of a device: one parallel region at a time, over and over.
 *
 * Workers spin for a while after a region and then sleep on a futex: a token has some two
 * hundred regions a few microseconds apart, and waking a sleeping thread costs 25 of them.
 * The caller of gdn_parallel() takes part as thread 0. */
#ifndef GDN_BASE_POOL_H
#define GDN_BASE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

typedef struct gdn_pool gdn_pool;

/* n_thread 0: one for each CPU this process may run on.  pin: bind thread i to the i-th of
 * these CPUs (the caller is never bound). */
gdn_status gdn_pool_create(int n_thread, bool pin, gdn_pool **out, gdn_err *err);
void       gdn_pool_free(gdn_pool *p);
int        gdn_pool_threads(const gdn_pool *p);

/* fn(arg, begin, end, thread): tasks begin <= i < end of [0, n).  Every thread gets one
 * contiguous share, cut the same way each time; empty shares are not called.  Returns when
 * all are done; memory written by the tasks is then visible to the caller.  Not reentrant:
 * one caller at a time (the device's queue sees to that). */
typedef void gdn_task_fn(void *arg, int64_t begin, int64_t end, int thread);
void gdn_parallel(gdn_pool *p, int64_t n, gdn_task_fn *fn, void *arg);

/* Regions run since creation, for the share that synchronisation has in a token. */
uint64_t gdn_pool_regions(const gdn_pool *p);

#endif
