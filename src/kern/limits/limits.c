/* limits.c - running the loops of limits.h on all threads and keeping time. */
#include "limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/arena.h"
#include "../../base/cgroup.h"
#include "../../base/clock.h"
#include "../kern.h"

enum {
    MAX_BURST = 101,
    FLOP_US = 700,    /* a burst in registers: shorter than a time slice of the system */
    REGIONS = 500,    /* in a burst */
    STEP = 512,       /* bytes a read loop takes at a time */
    WARM_US = 20000,  /* clocks change when wide vectors start */
    READ_US = 600000, /* time for all bursts of a kind together */
    OTHER_US = 150000
};

void gdn_limits_select(gdn_limits_kern *k, unsigned isa) {
    *k = (gdn_limits_kern){.read = gdn_limit_read_ref,
                           .fma = gdn_limit_fma_ref,
                           .fma_flop = GDN_LIMIT_FMA_REF};
    (void)isa;
#if defined(__x86_64__)
    if (isa & GDN_ISA_AVX2) {
        k->read = gdn_limit_read_avx2;
        k->fma = gdn_limit_fma_avx2;
        k->fma_flop = GDN_LIMIT_FMA_AVX2;
    }
    if (isa & GDN_ISA_AVX512) {
        k->read = gdn_limit_read_avx512;
        k->fma = gdn_limit_fma_avx512;
        k->fma_flop = GDN_LIMIT_FMA_AVX512;
    }
    if (isa & GDN_ISA_AVX512BF16) {
        k->dot = gdn_limit_dot_avx512bf16;
        k->dot_flop = GDN_LIMIT_DOT_AVX512BF16;
    }
    if (isa & GDN_ISA_AMX) {
        k->dot = gdn_limit_dot_amx;
        k->dot_flop = GDN_LIMIT_DOT_AMX;
    }
#endif
}

/* ---- one burst of each kind ---- */

typedef struct {
    const gdn_limits_kern *kern;
    gdn_pool *pool;
    char *mem;
    uint64_t bytes;
    gdn_limit_flop_fn *flop;
    int64_t rounds;
    void *sink; /* uint64_t or float for each thread: what is used is not left out */
} job;

static void fill_task(void *arg, int64_t begin, int64_t end, int thread) {
    const job *j = arg;
    (void)thread;
    memset(j->mem + begin * STEP, 1, (size_t)(end - begin) * STEP);
}
static void read_task(void *arg, int64_t begin, int64_t end, int thread) {
    const job *j = arg;
    const uint64_t s =
        j->kern->read(j->mem + begin * STEP, (uint64_t)(end - begin) * STEP);
    ((uint64_t *)j->sink)[thread] |= s;
}
static void flop_task(void *arg, int64_t begin, int64_t end, int thread) {
    const job *j = arg;
    (void)begin, (void)end;
    ((float *)j->sink)[thread] = j->flop(j->rounds);
}
static void empty_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)arg, (void)begin, (void)end, (void)thread;
}

typedef void burst_fn(const job *j);

static void read_burst(const job *j) {
    gdn_parallel(j->pool, (int64_t)(j->bytes / STEP), read_task, (void *)j);
}
static void flop_burst(const job *j) {
    gdn_parallel(j->pool, gdn_pool_threads(j->pool), flop_task, (void *)j);
}
static void region_burst(const job *j) {
    for (int i = 0; i < REGIONS; i++)
        gdn_parallel(j->pool, gdn_pool_threads(j->pool), empty_task, NULL);
}

/* ---- statistics ---- */

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Microseconds of a burst: the median and the least of as many as the budget allows,
 * three at least, after one that does not count. */
static gdn_limit time_bursts(burst_fn *fn, const job *j, double budget_us) {
    double us[MAX_BURST];
    int n = 0;
    fn(j);
    const double start = gdn_now_us();
    for (double now = start; n < MAX_BURST && (n < 3 || now - start < budget_us); n++) {
        fn(j);
        const double end = gdn_now_us();
        us[n] = end > now ? end - now : 1e-3;
        now = end;
    }
    qsort(us, (size_t)n, sizeof *us, by_size);
    return (gdn_limit){.p50 = us[n / 2], .best = us[0]};
}

static gdn_limit per_second(double work, gdn_limit us) {
    return (gdn_limit){.p50 = 1e6 * work / us.p50, .best = 1e6 * work / us.best};
}

/* ---- the measurements ---- */

static gdn_limit measure_flop(job *j, gdn_limit_flop_fn *fn, double flop) {
    j->flop = fn;
    j->rounds = 1000;
    const double start = gdn_now_us();
    double us, least = 1e9;
    do { /* warm up, and learn what a round takes */
        const double t0 = gdn_now_us();
        flop_burst(j);
        us = gdn_now_us() - t0;
        if (us < least) least = us;
    } while (gdn_now_us() - start < WARM_US);
    j->rounds = (int64_t)(1000 * FLOP_US / (least > 0.1 ? least : 0.1));
    if (j->rounds < 1000) j->rounds = 1000;
    const double work = flop * (double)j->rounds * gdn_pool_threads(j->pool);
    return per_second(work, time_bursts(flop_burst, j, OTHER_US));
}

/* A gibibyte, far beyond every cache; a quarter of what is free and an eighth of what the
 * control group grants where that is less, but 64 MiB. */
static uint64_t bytes_to_read(void) {
    double bytes = (double)((uint64_t)1 << 30);
    FILE *f = fopen("/proc/meminfo", "r");
    if (f != NULL) {
        char line[256];
        double kb;
        while (fgets(line, sizeof line, f) != NULL)
            if (sscanf(line, "MemAvailable: %lf", &kb) == 1 && kb * 256 < bytes)
                bytes = kb * 256;
        fclose(f);
    }
    const double limit = gdn_cgroup_limit(GDN_CGROUP_PROC, GDN_CGROUP_ROOT, "memory.max");
    if (limit > 0 && limit / 8 < bytes) bytes = limit / 8;
    const uint64_t mib = (uint64_t)bytes >> 20;
    return (mib < 64 ? 64 : mib) << 20;
}

static gdn_status measure_read(job *j, gdn_limits *r, gdn_err *err) {
    j->bytes = bytes_to_read();
    j->mem = gdn_big_alloc(j->bytes);
    if (j->mem == NULL) {
        j->bytes = (uint64_t)64 << 20;
        j->mem = gdn_big_alloc(j->bytes);
    }
    if (j->mem == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "limits: no 64 MiB of memory to read from");
    /* Untouched pages are all one page of zeros; each thread takes its share first. */
    gdn_parallel(j->pool, (int64_t)(j->bytes / STEP), fill_task, j);
    r->read = per_second((double)j->bytes, time_bursts(read_burst, j, READ_US));
    r->read_bytes = j->bytes;
    gdn_big_free(j->mem, j->bytes);
    return GDN_OK;
}

gdn_status gdn_limits_measure(gdn_pool *pool, unsigned isa, gdn_limits *out,
                              gdn_err *err) {
    gdn_limits_kern k;
    gdn_limits_select(&k, isa);
    gdn_limits r = {.n_thread = gdn_pool_threads(pool)};
    job j = {.kern = &k, .pool = pool};
    j.sink = calloc((size_t)r.n_thread, sizeof(uint64_t));
    if (j.sink == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "limits: no memory for %d threads", r.n_thread);
    const gdn_status st = measure_read(&j, &r, err);
    if (st == GDN_OK) {
        r.fma = measure_flop(&j, k.fma, k.fma_flop);
        if (k.dot != NULL) r.bf16 = measure_flop(&j, k.dot, k.dot_flop);
        const gdn_limit us = time_bursts(region_burst, &j, OTHER_US);
        r.region = (gdn_limit){.p50 = us.p50 / REGIONS, .best = us.best / REGIONS};
        *out = r;
    }
    free(j.sink);
    return st;
}
