/* check.c - the harness of the kernel checks: buffers, comparison, time, the ladder. */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#if defined(WITH_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

/* Families whose checks are not linked in are left out of the table. */
#pragma weak check_act
#pragma weak check_attn
#pragma weak check_cast
#pragma weak check_conv
#pragma weak check_delta
#pragma weak check_gdn_attention
#pragma weak check_linear
#pragma weak check_lora
#pragma weak check_moe
#pragma weak check_norm
#pragma weak check_rope
#pragma weak check_sample

enum { MARGIN = 256, LINE = 64, MAX_BUFS = 64, MAX_SEEN = 16384, NAME = 96 };
enum { POISON = 0xff }; /* repeated it is a NaN in f32, f16 and bf16 */

static struct {
    const char *name;
    uint8_t *base, *data;
    size_t bytes;
} bufs[MAX_BUFS];
static int n_bufs;
static struct {
    check_fn *fn;
    char name[NAME];
} seen[MAX_SEEN];
static int n_seen, n_pass, n_fail;
static char current[NAME];
static bool current_bad;
static const char *filter = "";
static uint64_t seed = 1, rng;

static void fatal(const char *text) {
    fprintf(stderr, "check: %s in %s\n", text, current);
    exit(2);
}

static void report(const check *c, const char *what) {
    fprintf(stderr, "FAIL %s [%s] %s: ", current, c->isa, what);
    current_bad = true;
}

double check_uniform(void) { /* splitmix64 */
    uint64_t z = (rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

bool check_begin(check *c, check_fn *fn, const char *fmt, ...) {
    (void)c;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(current, sizeof current, fmt, ap);
    va_end(ap);
    if (strncmp(current, filter, strlen(filter)) != 0) return false;
    for (int i = 0; i < n_seen; i++)
        if (seen[i].fn == fn && strcmp(seen[i].name, current) == 0) return false;
    if (n_seen == MAX_SEEN) fatal("too many checks");
    seen[n_seen].fn = fn;
    memcpy(seen[n_seen++].name, current, sizeof current);
    current_bad = false;
    /* The name seeds the numbers: a check run alone sees what it sees among all. */
    rng = seed;
    for (const char *s = current; *s != 0; s++)
        rng = (rng ^ (uint8_t)*s) * 0x100000001b3u;
    return true;
}

/* A kernel that takes subnormal numbers for zeros must not leave the thread so. */
static void check_subnormals(check *c) {
    volatile float tiny = 0x1p-140f, one = 1;
    const float x = tiny * one;
    check_that(c, memcmp(&x, (const float[]){0x1p-140f}, sizeof x) == 0,
               "2^-140 times one is %a after the kernel", (double)x);
}

void check_end(check *c) {
    check_subnormals(c);
    for (int b = 0; b < n_bufs; b++) {
        uint8_t *left = bufs[b].data - MARGIN, *right = bufs[b].data + bufs[b].bytes;
        ASAN_UNPOISON_MEMORY_REGION(left, MARGIN);
        ASAN_UNPOISON_MEMORY_REGION(right, MARGIN);
        for (int i = 0; i < MARGIN; i++) {
            if (left[i] == POISON && right[i] == POISON) continue;
            report(c, bufs[b].name);
            fprintf(stderr, "written outside\n");
            break;
        }
        free(bufs[b].base);
    }
    n_bufs = 0;
    if (current_bad)
        n_fail++;
    else
        n_pass++;
    if (!current_bad && !c->bench) printf("ok   %-52s %s\n", current, c->isa);
}

static void *buffer(const check *c, const char *name, size_t n, size_t size) {
    const size_t total = (n * size + 2 * MARGIN + 2 * LINE) / LINE * LINE;
    uint8_t *base = aligned_alloc(LINE, total);
    if (base == NULL || n_bufs == MAX_BUFS) fatal("no room for a buffer");
    memset(base, POISON, total);
    const size_t shift = size == 1 ? 4 : size; /* bytes may hold anything up to f32 */
    uint8_t *data = base + MARGIN + (c->bench ? 0 : shift);
    bufs[n_bufs].name = name, bufs[n_bufs].base = base;
    bufs[n_bufs].data = data, bufs[n_bufs++].bytes = n * size;
    ASAN_POISON_MEMORY_REGION(data - MARGIN, MARGIN);
    ASAN_POISON_MEMORY_REGION(data + n * size, MARGIN);
    return data;
}
float *check_f32(check *c, const char *name, size_t n) {
    return buffer(c, name, n, 4);
}
uint16_t *check_u16(check *c, const char *name, size_t n) {
    return buffer(c, name, n, 2);
}
int32_t *check_i32(check *c, const char *name, size_t n) {
    return buffer(c, name, n, 4);
}
void *check_bytes(check *c, const char *name, size_t n) {
    return buffer(c, name, n, 1);
}

void check_fill(float *x, size_t n, float lo, float hi) {
    for (size_t i = 0; i < n; i++) x[i] = lo + (hi - lo) * (float)check_uniform();
}
void check_fill_bf16(uint16_t *x, size_t n, float lo, float hi) {
    for (size_t i = 0; i < n; i++) {
        const float f = lo + (hi - lo) * (float)check_uniform();
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        x[i] = (uint16_t)(u >> 16); /* random numbers may as well be cut off */
    }
}
float check_from_bf16(uint16_t x) {
    const uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Element i of an f32 or bf16 buffer. */
static double element(const void *p, size_t size, size_t i) {
    if (size == 2) return (double)check_from_bf16(((const uint16_t *)p)[i]);
    return (double)((const float *)p)[i];
}

/* scale < 0: the power of ref itself. */
static bool close_nmse(check *c, const char *what, const void *ref, const void *got,
                       size_t n, size_t size, double tol, double scale) {
    double err = 0, power = 0, worst = -1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const double r = element(ref, size, i), d = fabs(element(got, size, i) - r);
        if (!(d <= worst) && worst == worst)
            worst = d, at = i; /* stops at the first NaN */
        err += d * d;
        power += r * r;
    }
    if (scale >= 0) power = scale;
    const double nmse = err / (power > 0 ? power : 1);
    if (nmse <= tol) return true;
    report(c, what);
    fprintf(stderr, "nmse %.3g > %.3g, worst at %zu: %.9g, want %.9g\n", nmse, tol, at,
            element(got, size, at), element(ref, size, at));
    return false;
}
bool check_close(check *c, const char *what, const float *ref, const float *got, size_t n,
                 double tol) {
    return close_nmse(c, what, ref, got, n, sizeof *ref, tol, -1);
}
bool check_close_scaled(check *c, const char *what, const float *ref, const float *got,
                        size_t n, double tol, double power) {
    return close_nmse(c, what, ref, got, n, sizeof *ref, tol, power);
}
bool check_close_bf16(check *c, const char *what, const uint16_t *ref,
                      const uint16_t *got, size_t n, double tol) {
    return close_nmse(c, what, ref, got, n, sizeof *ref, tol, -1);
}

bool check_each(check *c, const char *what, const float *ref, const float *got, size_t n,
                double rel, double abs) {
    for (size_t i = 0; i < n; i++) {
        const double r = (double)ref[i], g = (double)got[i];
        if (r == g || (isnan(r) && isnan(g))) continue;
        if (isfinite(r) && fabs(g - r) <= rel * fabs(r) + abs) continue;
        report(c, what);
        fprintf(stderr, "at %zu: %.9g, want %.9g\n", i, g, r);
        return false;
    }
    return true;
}

bool check_bits(check *c, const char *what, const void *ref, const void *got, size_t n,
                size_t size) {
    const uint8_t *r = ref, *g = got;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(r + i * size, g + i * size, size) == 0) continue;
        report(c, what);
        if (size == 2 || size == 4)
            fprintf(stderr, "bits differ at %zu of %zu: %.9g, want %.9g\n", i, n,
                    element(g, size, i), element(r, size, i));
        else
            fprintf(stderr, "bits differ at %zu of %zu\n", i, n);
        return false;
    }
    return true;
}

bool check_that(check *c, bool ok, const char *fmt, ...) {
    if (ok) return true;
    report(c, "expected");
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return false;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best seconds of one run: samples of 20 us or more, a quarter of a second in all. */
static double best_time(void (*run)(void *), void *arg) {
    run(arg);
    double best = INFINITY, begin = now();
    int reps = 1;
    for (int i = 0; i < 2000 && (i < 5 || now() - begin < 0.25); i++) {
        const double t0 = now();
        for (int r = 0; r < reps; r++) run(arg);
        const double t = now() - t0;
        if (t < 20e-6 && reps < 1 << 20) {
            reps *= 2;
            continue;
        }
        if (t / reps < best) best = t / reps;
    }
    return best;
}

void check_rate(check *c, void (*run)(void *), void *arg, double flops, double bytes) {
    if (!c->bench) return;
    const double t = best_time(run, arg), gfs = flops / t * 1e-9, gbs = bytes / t * 1e-9;
    printf("%-52s %-10s %10.2f us", current, c->isa, t * 1e6);
    if (flops > 0) printf("  %7.1f GF/s", gfs);
    if (flops > 0 && c->peak_gfs > 0)
        printf(" %3.0f %% of peak", 100 * gfs / c->peak_gfs);
    if (bytes > 0) printf("  %6.1f GB/s", gbs);
    if (bytes > 0 && c->dram_gbs > 0)
        printf(" %3.0f %% of memory", 100 * gbs / c->dram_gbs);
    printf("\n");
    fflush(stdout);
}

/* The core's limits.  FMA peak: twelve chains cover the latency of two pipes. */
enum { FMA_STEPS = 4000, CHAINS = 12 };
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void fma_avx2(void *out) {
    __m256 a[CHAINS];
    const __m256 x = _mm256_set1_ps(0.5f);
    for (int j = 0; j < CHAINS; j++) a[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < FMA_STEPS; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) a[j] = _mm256_fmadd_ps(a[j], x, x);
    }
    for (int j = 1; j < CHAINS; j++) a[0] = _mm256_add_ps(a[0], a[j]);
    _mm256_storeu_ps(out, a[0]);
}
__attribute__((target("avx512f"))) static void fma_avx512(void *out) {
    __m512 a[CHAINS];
    const __m512 x = _mm512_set1_ps(0.5f);
    for (int j = 0; j < CHAINS; j++) a[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < FMA_STEPS; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) a[j] = _mm512_fmadd_ps(a[j], x, x);
    }
    for (int j = 1; j < CHAINS; j++) a[0] = _mm512_add_ps(a[0], a[j]);
    _mm512_storeu_ps(out, a[0]);
}
#endif

static double measure_peak(unsigned isa) {
#if defined(__x86_64__)
    float out[16];
    const double f = 2.0 * FMA_STEPS * CHAINS * 1e-9;
    if (isa & GDN_ISA_AVX512) return 16 * f / best_time(fma_avx512, out);
    if (isa & GDN_ISA_AVX2) return 8 * f / best_time(fma_avx2, out);
#endif
    (void)isa;
    return 0;
}

enum { STREAM_BYTES = 128 << 20 };
static void stream_read(void *arg) {
    uint64_t *p = arg;
    uint64_t s[8] = {0};
    for (size_t i = 0; i < STREAM_BYTES / sizeof *p; i += 8)
        for (int j = 0; j < 8; j++) s[j] ^= p[i + (size_t)j];
    for (int j = 0; j < 8; j++) p[0] ^= s[j]; /* so that the reads are needed */
}
static double measure_dram(void) {
    uint64_t *p = malloc(STREAM_BYTES);
    if (p == NULL) return 0;
    memset(p, 1, STREAM_BYTES);
    const double t = best_time(stream_read, p);
    free(p);
    return STREAM_BYTES / t * 1e-9;
}

static void all_families(check *c) {
    static void (*const family[])(check *) = {
        check_delta, check_conv, check_norm,   check_rope,   check_act,
        check_attn,  check_moe,  check_sample, check_linear, check_lora,
        check_cast,
        check_gdn_attention,
    };
    for (size_t i = 0; i < sizeof family / sizeof *family; i++)
        if (family[i] != NULL) family[i](c);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0); /* in step with stderr */
    bool bench = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            bench = true;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (argv[i][0] == '-') {
            fprintf(stderr, "usage: check [--bench] [--seed N] [NAME]\n");
            return 2;
        } else
            filter = argv[i];
    }
    static const struct {
        const char *name;
        unsigned mask, needs;
    } ladder[] = {
        {"ref", GDN_ISA_REF, GDN_ISA_REF},
        {"avx2", GDN_ISA_AVX2, GDN_ISA_AVX2},
        {"avx512", GDN_ISA_AVX2 | GDN_ISA_AVX512, GDN_ISA_AVX512},
        {"avx512bf16", GDN_ISA_AVX2 | GDN_ISA_AVX512 | GDN_ISA_AVX512BF16, GDN_ISA_AVX512BF16},
        {"amx", GDN_ISA_ALL, GDN_ISA_AMX},
    };
    const unsigned have = gdn_isa_detect();
    const double dram = bench ? measure_dram() : 0;
    for (size_t i = 0; i < sizeof ladder / sizeof *ladder; i++) {
        if ((have & ladder[i].needs) != ladder[i].needs) {
            printf("skip %s: this machine has no %s\n", ladder[i].name, ladder[i].name);
            continue;
        }
        gdn_kern k;
        gdn_kern_select(&k, ladder[i].mask);
        check c = {.kern = &k, .isa = ladder[i].name, .bench = bench, .dram_gbs = dram};
        if (bench) {
            c.peak_gfs = measure_peak(k.isa);
            printf("%s: %.1f GF/s FMA peak, %.1f GB/s memory read, one core\n", c.isa,
                   c.peak_gfs, c.dram_gbs);
        }
        all_families(&c);
    }
    if (!bench) {
        gdn_kern k;
        check_amx_model(&k);
        check c = {.kern = &k, .isa = "amx model"};
        check_linear(&c);
    }
    if (n_fail > 0) printf("seed %llu\n", (unsigned long long)seed);
    printf("%d passed, %d failed\n", n_pass, n_fail);
    return n_fail != 0;
}
