/* pool.c - a pool of threads that stay awake between regions.
 *
 *     caller   write the job ─ seq + 1 ─ own share ─────────── wait for left == 0
 *                                │                                  ▲
 *     worker   wait for seq ─────┴──── own share ─ left - 1 ────────┘
 *
 * Two words carry everything: `seq`, the number of the region, and `left`, the workers
 * still at it.  Whoever waits spins first (0.15 us a region on two cores) and then sleeps
 * on the word itself (25 us).  The waker must not pay a system call when nobody sleeps,
 * so a sleeper announces itself before it looks at the word for the last time, and a
 * waker changes the word before it looks for sleepers: with both in one total order, one
 * of them sees the other. */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#include "clock.h"
#include "cpus.h"
#include "log.h"

enum {
    MAX_THREAD = 4096,
    SPIN_US = 80,       /* longer than the serial stretches inside a token */
    SPIN_SHARED_US = 4, /* more threads than CPUs: who is waited for may need this one */
    YIELD_US = 16       /* 2: regions of 4 us instead of 0.1 beside one other busy job */
};

typedef struct {
    gdn_pool *pool;
    pthread_t id;
    int index;
} worker;

/* The two words and the job have cache lines of their own: a finished worker writes
 * `left` while others still read `seq`. */
struct gdn_pool {
    _Alignas(64) _Atomic uint32_t seq;
    _Atomic uint32_t sleepers; /* workers in or near a sleep on seq */
    gdn_task_fn *fn;           /* the job: written before seq, read after it */
    void *arg;
    int64_t n;
    bool stop;

    _Alignas(64) _Atomic uint32_t left;
    _Atomic uint32_t caller_sleeps;

    _Alignas(64) uint64_t regions; /* from here on only the caller writes */
    double spin_us;
    int n_thread, n_started;
    bool pin;
    worker *workers; /* [n_thread - 1] */
};

static void word_sleep(_Atomic uint32_t *word, uint32_t seen) {
#if defined(__linux__)
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
#else
    (void)word, (void)seen;
    sched_yield();
#endif
}

static void word_wake_all(_Atomic uint32_t *word) {
#if defined(__linux__)
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
#else
    (void)word;
#endif
}

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* yield is a no-op on most cores */
#endif
}

/* Wait for *word to become `value`, or with `equal` false to stop being it, for spin_us
 * at most.  A pause takes between 10 and 150 cycles, depending on the CPU, hence the
 * clock. After a while the CPU is offered to others: on a busy machine the thread that is
 * waited for may have been put on this very one. */
static bool spin(_Atomic uint32_t *word, uint32_t value, bool equal, double spin_us) {
    double start = 0;
    for (int round = 0;; round++) {
        for (int i = 0; i < 32; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == value) == equal)
                return true;
            cpu_relax();
        }
        const double now = gdn_now_us();
        if (round == 0) start = now;
        if (now - start >= spin_us) return false;
        if (now - start >= YIELD_US) sched_yield();
    }
}

static void wait_for_region(gdn_pool *p, uint32_t done) {
    if (spin(&p->seq, done, false, p->spin_us)) return;
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->seq) == done) word_sleep(&p->seq, done);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void wait_for_workers(gdn_pool *p) {
    if (spin(&p->left, 0, true, p->spin_us)) return;
    atomic_store(&p->caller_sleeps, 1);
    for (uint32_t left; (left = atomic_load(&p->left)) != 0;) word_sleep(&p->left, left);
    atomic_store(&p->caller_sleeps, 0);
}

/* floor(n t / T) without the product, which could overflow. */
static int64_t cut(int64_t n, int t, int T) {
    return n / T * t + n % T * t / T;
}

static void run_share(gdn_pool *p, int t) {
    const int64_t begin = cut(p->n, t, p->n_thread), end = cut(p->n, t + 1, p->n_thread);
    if (begin < end) p->fn(p->arg, begin, end, t);
}

static void *worker_main(void *arg) {
    const worker *w = arg;
    gdn_pool *p = w->pool;
    if (p->pin && gdn_cpus_pin(w->index) < 0)
        gdn_log(GDN_LOG_WARN, "pool thread=%d pinned=no", w->index);
    for (uint32_t seq = 0;; seq++) {
        wait_for_region(p, seq);
        if (p->stop) return NULL;
        run_share(p, w->index);
        if (atomic_fetch_sub(&p->left, 1) == 1 && atomic_load(&p->caller_sleeps) != 0)
            word_wake_all(&p->left);
    }
}

static void start_region(gdn_pool *p) {
    atomic_fetch_add(&p->seq, 1);
    if (atomic_load(&p->sleepers) != 0) word_wake_all(&p->seq);
}

/* Signals sent to the process belong to the program's own threads; those a thread raises
 * by a fault of its own stay. */
static int start_workers(gdn_pool *p) {
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV), sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE), sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int rc = 0;
    while (p->n_started < p->n_thread - 1 && rc == 0) {
        worker *w = &p->workers[p->n_started];
        *w = (worker){.pool = p, .index = p->n_started + 1};
        rc = pthread_create(&w->id, NULL, worker_main, w);
        if (rc == 0) p->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

gdn_status gdn_pool_create(int n_thread, bool pin, gdn_pool **out, gdn_err *err) {
    if (n_thread < 0 || n_thread > MAX_THREAD)
        return gdn_fail(err, GDN_E_INVALID,
                        "thread pool: %d threads, 0 to %d are possible", n_thread,
                        MAX_THREAD);
    const int n_cpu = gdn_cpus_default();
    if (n_thread == 0) n_thread = n_cpu < MAX_THREAD ? n_cpu : MAX_THREAD;

    gdn_pool *p = aligned_alloc(_Alignof(gdn_pool), sizeof *p);
    worker *workers = calloc((size_t)n_thread, sizeof *workers);
    if (p == NULL || workers == NULL) {
        free(p), free(workers);
        return gdn_fail(err, GDN_E_NOMEM, "thread pool: no memory for %d threads",
                        n_thread);
    }
    memset(p, 0, sizeof *p);
    atomic_init(&p->seq, 0), atomic_init(&p->sleepers, 0);
    atomic_init(&p->left, 0), atomic_init(&p->caller_sleeps, 0);
    p->n_thread = n_thread;
    p->pin = pin;
    p->spin_us = n_thread <= n_cpu ? SPIN_US : SPIN_SHARED_US;
    p->workers = workers;

    const int rc = start_workers(p);
    if (rc != 0) {
        const int started = p->n_started;
        gdn_pool_free(p);
        return gdn_fail(err, GDN_E_DEVICE,
                        "thread pool: thread %d of %d does not start: %s", started + 2,
                        n_thread, strerror(rc));
    }
    *out = p;
    return GDN_OK;
}

void gdn_pool_free(gdn_pool *p) {
    if (p == NULL) return;
    p->stop = true;
    start_region(p);
    for (int i = 0; i < p->n_started; i++) pthread_join(p->workers[i].id, NULL);
    free(p->workers);
    free(p);
}

int gdn_pool_threads(const gdn_pool *p) {
    return p->n_thread;
}

uint64_t gdn_pool_regions(const gdn_pool *p) {
    return p->regions;
}

void gdn_parallel(gdn_pool *p, int64_t n, gdn_task_fn *fn, void *arg) {
    if (n <= 0) return;
    p->regions++;
    if (p->n_thread == 1 || n == 1) { /* nothing to share: wake nobody */
        fn(arg, 0, n, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    atomic_store_explicit(&p->left, (uint32_t)(p->n_thread - 1), memory_order_relaxed);
    start_region(p);
    run_share(p, 0);
    wait_for_workers(p);
}
