/* limits.h - what this machine can do at most: the yardsticks of every speed report.
 *
 *     read     bytes/s that all threads together read from memory in order
 *     fma      f32 operations/s (a multiply-add is two) that stay in registers
 *     bf16     the same for bf16 pairs summed in f32, where there is such an instruction
 *     region   microseconds to hand one parallel region to the threads and get it back
 *
 * Measured in short bursts, so that other work on the machine spoils only some of them. */
#ifndef GDN_KERN_LIMITS_H
#define GDN_KERN_LIMITS_H

#include <stdint.h>

#include "../../base/err.h"
#include "../../base/pool.h"

/* The or of all words in [p, p + bytes); p 64-byte aligned, bytes a multiple of 512. */
typedef uint64_t gdn_limit_read_fn(const void *p, uint64_t bytes);
/* A loop of independent multiply-adds, run `rounds` times; returns some sum of the sums. */
typedef float gdn_limit_flop_fn(int64_t rounds);

gdn_limit_read_fn gdn_limit_read_ref, gdn_limit_read_avx2, gdn_limit_read_avx512;
gdn_limit_flop_fn gdn_limit_fma_ref, gdn_limit_fma_avx2, gdn_limit_fma_avx512;
gdn_limit_flop_fn gdn_limit_dot_avx512bf16, gdn_limit_dot_amx;

/* Operations in one round of each. */
enum {
    GDN_LIMIT_FMA_REF = 2 * 4 * 12,
    GDN_LIMIT_FMA_AVX2 = 2 * 8 * 12,
    GDN_LIMIT_FMA_AVX512 = 2 * 16 * 24,
    GDN_LIMIT_DOT_AVX512BF16 = 4 * 16 * 24,
    GDN_LIMIT_DOT_AMX = 2 * 16 * 16 * 32 * 4,
};

typedef struct {
    gdn_limit_read_fn *read;
    gdn_limit_flop_fn *fma, *dot; /* dot: NULL without an instruction */
    double fma_flop, dot_flop;    /* operations in one round          */
} gdn_limits_kern;

/* isa: a gdn_kern's, what the machine has and the caller wants. */
void gdn_limits_select(gdn_limits_kern *k, unsigned isa);

typedef struct {
    double p50, best;
} gdn_limit;

typedef struct {
    gdn_limit read, fma, bf16, region; /* bf16: 0 without an instruction */
    uint64_t read_bytes;               /* the memory read over and over  */
    int n_thread;
} gdn_limits;

/* Takes about a second, a gibibyte of memory (less where that is scarce) and all threads
 * of the pool, which nobody else may use meanwhile.
 *
 * GDN_E_NOMEM  not even 64 MiB of memory      out unchanged */
gdn_status gdn_limits_measure(gdn_pool *pool, unsigned isa, gdn_limits *out,
                              gdn_err *err);

#endif
