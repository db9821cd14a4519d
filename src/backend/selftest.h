/* selftest.h - a device's start-up check: operators on small random data, there and on the cpu.
 *
 *     selftest.c      tensors on both sides, comparing them, the verdict
 *     selftest_ops.c  the operators that are tried
 *
 * The first thing that goes wrong is kept; after it nothing runs any more, so that the list of
 * operators reads as one. */
#ifndef GDN_BACKEND_SELFTEST_H
#define GDN_BACKEND_SELFTEST_H

#include "backend.h"

enum { SELFTEST_REF, SELFTEST_DEV, SELFTEST_SIDES, SELFTEST_MOST = 32 };

typedef struct {
    gdn_device *device[SELFTEST_SIDES]; /* the cpu, and the one on trial */
    gdn_queue  *queue[SELFTEST_SIDES];
    gdn_buffer *buffer[SELFTEST_MOST * SELFTEST_SIDES];
    gdn_weight *weight[SELFTEST_SIDES * 2];
    int         n_buffer, n_weight;
    uint64_t    rng;
    char        what[64];     /* the operator that is tried */
    gdn_status  st;           /* the first failure          */
    char        failed[192];  /* what it was                */
    gdn_err     why;          /* of a call that failed      */
} gdn_selftest;

/* The same tensor on both sides. */
typedef struct {
    gdn_tensor on[SELFTEST_SIDES];
} gdn_pair;

/* Evenly spread values from lo to hi; at most four dimensions, those behind the last are 0. */
gdn_pair gdn_selftest_random(gdn_selftest *t, gdn_type type, double lo, double hi, int64_t n0,
                             int64_t n1, int64_t n2, int64_t n3);
/* NaN all over: what an operator leaves out shows. */
gdn_pair gdn_selftest_out(gdn_selftest *t, gdn_type type, int64_t n0, int64_t n1, int64_t n2);
gdn_pair gdn_selftest_ints(gdn_selftest *t, int64_t n0, int64_t n1, const int32_t *v);
/* Values that bf16 holds exactly, in f32 on the cpu and in `type` on the device. */
gdn_pair gdn_selftest_exact(gdn_selftest *t, gdn_type type, int64_t n0, int64_t n1);
/* n_expert random matrices [n, k]: w[side]. */
void gdn_selftest_weight(gdn_selftest *t, gdn_type type, int32_t n_expert, int32_t n, int32_t k,
                         gdn_weight *w[SELFTEST_SIDES]);

/* The result of a call, whose error is in t->why. */
void gdn_selftest_ran(gdn_selftest *t, gdn_status st);
/* The largest difference, as a share of the cpu's largest value, is at most `bound`. */
void gdn_selftest_same(gdn_selftest *t, const char *name, const gdn_pair *p, double bound);
/* Between operators: memory and weights go. */
void gdn_selftest_drop(gdn_selftest *t);

/* All operators that are tried. */
void gdn_selftest_ops(gdn_selftest *t);
/* Ops that the device may make again as one. */
void gdn_selftest_replay(gdn_selftest *t);

#endif
