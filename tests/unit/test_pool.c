/* test_pool.c - the thread pool: every task once, the same cut each time, alive when
 * starved; and the count of CPUs it starts from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../src/base/clock.h"
#include "../../src/base/cpus.h"
#include "../../src/base/pool.h"

static gdn_pool *pool_of(int n) {
    gdn_pool *p = NULL;
    gdn_err err;
    assert_int_equal(gdn_pool_create(n, false, &p, &err), GDN_OK);
    assert_int_equal(gdn_pool_threads(p), n);
    return p;
}

/* Plain memory throughout: what makes it correct is the pool alone, and the thread
 * sanitizer watches. */
typedef struct {
    int64_t n;
    int hits[1000];
    int thread_of[1000];
    int calls[64];
} record;

static void note(void *arg, int64_t begin, int64_t end, int thread) {
    record *r = arg;
    r->calls[thread]++;
    for (int64_t i = begin; i < end; i++) {
        r->hits[i]++;
        r->thread_of[i] = thread;
    }
}

static void every_task_once(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    static const int64_t sizes[] = {1, 2, 3, 6, 7, 8, 64, 999, 1000};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        const int T = threads[t];
        gdn_pool *p = pool_of(T);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const int64_t n = sizes[s];
            static record r;
            memset(&r, 0, sizeof r);
            gdn_parallel(p, n, note, &r);
            for (int64_t i = 0; i < 1000; i++) assert_int_equal(r.hits[i], i < n ? 1 : 0);
            for (int k = 0; k < T; k++) {
                const int64_t begin = n * k / T, end = n * (k + 1) / T;
                if (n == 1) continue; /* may stay with the caller */
                assert_int_equal(r.calls[k], begin < end ? 1 : 0);
                for (int64_t i = begin; i < end; i++) assert_int_equal(r.thread_of[i], k);
            }
        }
        assert_int_equal(gdn_pool_regions(p), sizeof sizes / sizeof *sizes);
        gdn_pool_free(p);
    }
}

static void nothing_to_do(void **state) {
    (void)state;
    gdn_pool *p = pool_of(2);
    gdn_parallel(p, 0, note, NULL);
    gdn_parallel(p, -5, note, NULL);
    assert_int_equal(gdn_pool_regions(p), 0);
    gdn_pool_free(p);
    gdn_pool_free(NULL);
}

typedef struct {
    int64_t begin[4], end[4];
} bounds;
static void note_bounds(void *arg, int64_t begin, int64_t end, int thread) {
    bounds *b = arg;
    b->begin[thread] = begin, b->end[thread] = end;
}

static void huge_counts_do_not_overflow(void **state) {
    (void)state;
    gdn_pool *p = pool_of(3);
    bounds b;
    gdn_parallel(p, INT64_MAX, note_bounds, &b);
    assert_true(b.begin[0] == 0 && b.end[2] == INT64_MAX);
    /* A third and two thirds of 2^63 - 1, rounded down. */
    assert_true(b.end[0] == INT64_C(3074457345618258602) && b.begin[1] == b.end[0]);
    assert_true(b.end[1] == INT64_C(6148914691236517204) && b.begin[2] == b.end[1]);
    gdn_pool_free(p);
}

/* Each region reads what all threads wrote in the one before: a missed wait or a missing
 * ordering gives a wrong sum. */
typedef struct {
    uint32_t from[64], to[64];
} chain;
static void step(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    chain *c = arg;
    for (int64_t i = begin; i < end; i++) {
        uint32_t s = 1;
        for (int j = 0; j < 64; j++) s = s * 31 + c->from[j];
        c->to[i] = s + (uint32_t)i;
    }
}
static void run_chain(gdn_pool *p, chain *c, int rounds) {
    memset(c, 0, sizeof *c);
    for (int r = 0; r < rounds; r++) {
        if (p != NULL)
            gdn_parallel(p, 64, step, c);
        else
            step(c, 0, 64, 0);
        memcpy(c->from, c->to, sizeof c->to);
        /* Now and then long enough for the workers to fall asleep. */
        if (p != NULL && r % 500 == 499) nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

static void memory_is_visible(void **state) {
    (void)state;
    chain want, got;
    run_chain(NULL, &want, 5000);
    for (int n = 2; n <= 5; n++) { /* more threads than CPUs, too */
        gdn_pool *p = pool_of(n);
        run_chain(p, &got, 5000);
        assert_memory_equal(want.from, got.from, sizeof want.from);
        gdn_pool_free(p);
    }
}

static void nap(void *arg, int64_t begin, int64_t end, int thread) {
    (void)arg, (void)begin, (void)end;
    nanosleep(&(struct timespec){0, thread == 0 ? 0 : 300000L * thread}, NULL);
}

/* The caller is done first and must sleep, not miss the wake-up. */
static void slow_workers(void **state) {
    (void)state;
    gdn_pool *p = pool_of(4);
    for (int i = 0; i < 200; i++) gdn_parallel(p, 4, nap, NULL);
    gdn_pool_free(p);
}

static void create_and_free(void **state) {
    (void)state;
    static record r;
    for (int i = 0; i < 200; i++) {
        gdn_pool *p = pool_of(1 + i % 6);
        if (i % 3 == 0) gdn_parallel(p, 100, note, &r);
        gdn_pool_free(p);
    }
}

/* Two busy threads per CPU beside the pool: regions still end, if late. */
static atomic_bool quit;
static void *burn(void *arg) {
    (void)arg;
    while (!atomic_load_explicit(&quit, memory_order_relaxed)) {}
    return NULL;
}
static void alive_on_a_busy_machine(void **state) {
    (void)state;
    enum { MAX = 8 };
    pthread_t id[MAX];
    int n = 2 * gdn_cpus_allowed();
    if (n > MAX) n = MAX;
    atomic_store(&quit, false);
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&id[i], NULL, burn, NULL), 0);
    chain want, got;
    run_chain(NULL, &want, 100);
    gdn_pool *p = pool_of(2);
    const double t0 = gdn_now_us();
    run_chain(p, &got, 100);
    assert_true(gdn_now_us() - t0 < 20e6);
    gdn_pool_free(p);
    atomic_store(&quit, true);
    for (int i = 0; i < n; i++) pthread_join(id[i], NULL);
    assert_memory_equal(want.from, got.from, sizeof want.from);
}

static void refuses_counts(void **state) {
    (void)state;
    gdn_pool *p = NULL;
    gdn_err err;
    assert_int_equal(gdn_pool_create(-1, false, &p, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "-1"));
    assert_int_equal(gdn_pool_create(100000, false, &p, &err), GDN_E_INVALID);
    assert_null(p);
}

/* Let the system refuse threads half way: what was started is joined (the leak checker
 * and the thread sanitizer would tell), and the error says so. */
static void fails_half_way(void **state) {
    (void)state;
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    if (f == NULL || fscanf(f, "%lu", &pages) != 1) {
        if (f != NULL) fclose(f);
        skip();
    }
    fclose(f);
    const rlim_t now = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
    if (now > (rlim_t)1 << 40) skip(); /* a sanitizer has the address space */
    struct rlimit tight = {now + ((rlim_t)64 << 20), old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    gdn_pool *p = NULL;
    gdn_err err;
    const gdn_status st = gdn_pool_create(500, false, &p, &err);
    setrlimit(RLIMIT_AS, &old);
    assert_int_equal(st, GDN_E_DEVICE);
    assert_null(p);
    assert_non_null(strstr(err.text, "of 500"));
}

static void note_cpu(void *arg, int64_t begin, int64_t end, int thread) {
    (void)begin, (void)end;
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    ((int *)arg)[thread] = CPU_COUNT(&set);
}

static void pins_workers_not_the_caller(void **state) {
    (void)state;
    cpu_set_t before;
    if (sched_getaffinity(0, sizeof before, &before) != 0) skip();
    gdn_pool *p = NULL;
    assert_int_equal(gdn_pool_create(3, true, &p, NULL), GDN_OK);
    int width[3] = {0};
    gdn_parallel(p, 3, note_cpu, width);
    gdn_pool_free(p);
    assert_int_equal(width[0], CPU_COUNT(&before));
    assert_int_equal(width[1], 1);
    assert_int_equal(width[2], 1);
}

static void default_count(void **state) {
    (void)state;
    gdn_pool *p = NULL;
    assert_int_equal(gdn_pool_create(0, false, &p, NULL), GDN_OK);
    assert_in_range(gdn_pool_threads(p), 1, gdn_cpus_allowed());
    gdn_pool_free(p);
}

/* A tree of groups: root/a/b with limits at will. */
static void put(const char *dir, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void quota_of_the_control_group(void **state) {
    (void)state;
    char root[] = "/tmp/gdn-cpus-XXXXXX", a[64], b[64], proc[64], file[80];
    assert_non_null(mkdtemp(root));
    snprintf(a, sizeof a, "%s/a", root);
    snprintf(b, sizeof b, "%s/a/b", root);
    snprintf(proc, sizeof proc, "%s/proc", root);
    mkdir(a, 0700), mkdir(b, 0700);

    assert_int_equal(gdn_cpus_quota("/nonexistent", root), 0);
    put(root, "proc", "1:cpu:/x\n"); /* version 1 only */
    assert_int_equal(gdn_cpus_quota(proc, root), 0);
    put(root, "proc", "5:cpuset:/q\n0::/a/b\n");
    assert_int_equal(gdn_cpus_quota(proc, root), 0); /* no limit anywhere */
    put(b, "cpu.max", "max 100000\n");
    assert_int_equal(gdn_cpus_quota(proc, root), 0);
    put(b, "cpu.max", "350000 100000\n");
    assert_int_equal(gdn_cpus_quota(proc, root), 3);
    put(a, "cpu.max", "200000 100000\n"); /* the group above is stricter */
    assert_int_equal(gdn_cpus_quota(proc, root), 2);
    put(root, "cpu.max", "900000 100000\n"); /* the one above that is not */
    assert_int_equal(gdn_cpus_quota(proc, root), 2);
    put(root, "cpu.max", "25000 100000\n"); /* a quarter of a CPU is one thread */
    assert_int_equal(gdn_cpus_quota(proc, root), 1);
    put(root, "proc", "0::/\n");
    assert_int_equal(gdn_cpus_quota(proc, root), 1);
    put(root, "cpu.max", "rubbish");
    assert_int_equal(gdn_cpus_quota(proc, root), 0);
    put(root, "cpu.max", "100000 0");
    assert_int_equal(gdn_cpus_quota(proc, root), 0);
    put(root, "cpu.max", "300000 100000");
    assert_int_equal(gdn_cpus_quota(proc, root), 3);
    put(root, "proc", "0::/../elsewhere\n"); /* out of view: these are not its limits */
    assert_int_equal(gdn_cpus_quota(proc, root), 0);

    const char *const files[] = {"proc", "cpu.max", "a/cpu.max", "a/b/cpu.max"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(file, sizeof file, "%s/%s", root, files[i]);
        unlink(file);
    }
    rmdir(b), rmdir(a), rmdir(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_once),
        cmocka_unit_test(nothing_to_do),
        cmocka_unit_test(huge_counts_do_not_overflow),
        cmocka_unit_test(memory_is_visible),
        cmocka_unit_test(slow_workers),
        cmocka_unit_test(create_and_free),
        cmocka_unit_test(alive_on_a_busy_machine),
        cmocka_unit_test(refuses_counts),
        cmocka_unit_test(fails_half_way),
        cmocka_unit_test(pins_workers_not_the_caller),
        cmocka_unit_test(default_count),
        cmocka_unit_test(quota_of_the_control_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
