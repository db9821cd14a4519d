/* cpu.c - the cpu device: threads, memory, an in-order queue that runs at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/arena.h"
#include "../base/cgroup.h"
#include "../base/log.h"
#include "../base/switch.h"
#include "constraints.h"
#include "cpu.h"

typedef struct {
    gdn_buffer base;
    bool       own;
} cpu_buffer;

static const char *isa_name(unsigned isa) {
    return isa & GDN_ISA_AMX          ? "amx"
           : isa & GDN_ISA_AVX512BF16 ? "avx512bf16"
           : isa & GDN_ISA_AVX512   ? "avx512"
           : isa & GDN_ISA_AVX2     ? "avx2"
                                    : "plain C";
}

/* The instruction sets that GDN_ISA leaves of mask; without it mask, of all sets those that pay. */
static gdn_status allowed_isa(unsigned mask, unsigned *out, gdn_err *err) {
    static const struct {
        const char *name;
        unsigned    mask;
    } set[] = {{"ref", GDN_ISA_REF},
               {"avx2", GDN_ISA_AVX2},
               {"avx512", GDN_ISA_AVX2 | GDN_ISA_AVX512},
               {"avx512bf16", GDN_ISA_AVX2 | GDN_ISA_AVX512 | GDN_ISA_AVX512BF16},
               {"amx", GDN_ISA_ALL}};
    const char *want = gdn_switch_get(GDN_SWITCH_ISA);
    *out = mask == ~0u ? gdn_isa_fast() : mask;
    if (want == NULL) return GDN_OK;
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        if (strcmp(want, set[i].name) == 0) {
            *out = mask & set[i].mask;
            return GDN_OK;
        }
    return gdn_fail(err, GDN_E_INVALID,
                    "GDN_ISA is '%.40s': need ref, avx2, avx512, avx512bf16 or amx", want);
}

static void cpu_model_name(char *out, size_t n) {
    snprintf(out, n, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (f == NULL) return;
    char line[256];
    while (fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        snprintf(out, n, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    fclose(f);
}

static int cpu_list(gdn_device_info *out, int n) {
    if (n < 1) return 1;
    char model[80];
    cpu_model_name(model, sizeof model);
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    *out = (gdn_device_info){.memory_bytes = (uint64_t)(pages > 0 ? pages : 0) *
                                             (uint64_t)sysconf(_SC_PAGESIZE)};
    const double granted = gdn_cgroup_limit(GDN_CGROUP_PROC, GDN_CGROUP_ROOT, "memory.max");
    if (granted > 0 && granted < (double)out->memory_bytes) out->memory_bytes = (uint64_t)granted;
    snprintf(out->name, sizeof out->name, "cpu");
    snprintf(out->description, sizeof out->description, "%s, %ld CPUs, %s", model, cpus,
             isa_name(gdn_isa_fast()));
    return 1;
}

static void cpu_close(gdn_device *dev) {
    cpu_device *d = (cpu_device *)dev;
    gdn_pool_free(d->pool);
    pthread_mutex_destroy(&d->base.busy);
    gdn_big_free(d->wave, cpu_attention_wave(d->n_thread));
    gdn_big_free(d->gdn_work, d->gdn_work_bytes);
    free(d->scratch);
    free(d);
}

static gdn_status cpu_open(const char *arg, const gdn_device_opts *o, gdn_device **out,
                           gdn_err *err) {
    int n_thread = o->n_thread;
    if (arg != NULL) {
        char *end;
        const long v = strtol(arg, &end, 10);
        if (*arg == '\0' || *end != '\0' || v < 1 || v > 1024)
            return gdn_fail(err, GDN_E_INVALID, "device 'cpu:%.20s': need 1 to 1024 threads", arg);
        if (n_thread == 0) n_thread = (int)v;
    }
    if (n_thread < 0 || n_thread > 1024)
        return gdn_fail(err, GDN_E_INVALID, "%d threads, need 1 to 1024", n_thread);
    cpu_device *d = calloc(1, sizeof *d);
    if (d == NULL) return gdn_fail(err, GDN_E_NOMEM, "cpu device: out of memory");
    d->base.backend = &gdn_backend_cpu;
    pthread_mutex_init(&d->base.busy, NULL);
    unsigned isa;
    gdn_status st = allowed_isa(o->isa_mask, &isa, err);
    if (st != GDN_OK) goto failed;
    gdn_kern_select(&d->kern, isa);
    st = gdn_pool_create(n_thread, o->pin, &d->pool, err);
    if (st != GDN_OK) goto failed;
    d->n_thread = gdn_pool_threads(d->pool);
    uint64_t need = gdn_linear_scratch();
    if (need < cpu_attention_scratch()) need = cpu_attention_scratch();
    if (need < cpu_core_scratch()) need = cpu_core_scratch();
    d->scratch_bytes = (need + 4095) / 4096 * 4096;
    d->scratch = aligned_alloc(4096, d->scratch_bytes * (uint64_t)d->n_thread);
    if (d->scratch == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "cpu device: %llu bytes of scratch",
                      (unsigned long long)(d->scratch_bytes * (uint64_t)d->n_thread));
        goto failed;
    }
    d->wave = gdn_big_alloc(cpu_attention_wave(d->n_thread));
    if (d->wave == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "cpu device: out of memory");
        goto failed;
    }
    snprintf(d->base.name, sizeof d->base.name, "cpu:%d", d->n_thread);
    gdn_log(GDN_LOG_INFO, "device name=%s isa=%s", d->base.name, isa_name(d->kern.isa));
    *out = &d->base;
    return GDN_OK;
failed:
    cpu_close(&d->base);
    return st;
}

void cpu_run(cpu_device *d, int64_t n, double cost, gdn_task_fn *fn, void *arg) {
    enum { REGION = 2000 }; /* about twice what a region costs, in nanoseconds */
    if (n <= 0) return;
    if (n == 1 || cost < REGION) fn(arg, 0, n, 0);
    else gdn_parallel(d->pool, n, fn, arg);
}

static gdn_status cpu_buffer_new(gdn_device *dev, void *host, uint64_t bytes, gdn_buffer **out,
                                 gdn_err *err) {
    cpu_buffer *b = calloc(1, sizeof *b);
    if (b == NULL) return gdn_fail(err, GDN_E_NOMEM, "buffer: out of memory");
    b->own = host == NULL;
    if (b->own && (host = gdn_big_alloc(bytes)) == NULL) {
        free(b);
        return gdn_fail(err, GDN_E_NOMEM, "buffer of %.1f MB: out of memory",
                        (double)bytes * 1e-6);
    }
    b->base = (gdn_buffer){.device = dev, .bytes = bytes, .host = host};
    *out = &b->base;
    return GDN_OK;
}

static gdn_status cpu_buffer_alloc(gdn_device *dev, uint64_t bytes, gdn_buffer **out,
                                   gdn_err *err) {
    return cpu_buffer_new(dev, NULL, bytes > 0 ? bytes : 1, out, err);
}

static gdn_status cpu_buffer_wrap(gdn_device *dev, void *host, uint64_t bytes, gdn_buffer **out,
                                  gdn_err *err) {
    if (host == NULL) return gdn_fail(err, GDN_E_INVALID, "buffer: wrapped pointer is NULL");
    return cpu_buffer_new(dev, host, bytes, out, err);
}

static void cpu_buffer_free(gdn_buffer *buf) {
    cpu_buffer *b = (cpu_buffer *)buf;
    if (b->own) gdn_big_free(b->base.host, b->base.bytes);
    free(b);
}

static gdn_status cpu_queue_create(gdn_device *dev, gdn_queue **out, gdn_err *err) {
    gdn_queue *q = calloc(1, sizeof *q);
    if (q == NULL) return gdn_fail(err, GDN_E_NOMEM, "queue: out of memory");
    q->device = dev;
    *out = q;
    return GDN_OK;
}

static void cpu_queue_free(gdn_queue *q) { free(q); }

static gdn_status cpu_wait(gdn_queue *q, gdn_err *err) {
    (void)q, (void)err; /* every op has run when its call returned */
    return GDN_OK;
}

static gdn_status cpu_write(gdn_queue *q, gdn_buffer *to, uint64_t at, const void *from,
                            uint64_t bytes, gdn_err *err) {
    (void)q, (void)err;
    memcpy((char *)to->host + at, from, bytes);
    return GDN_OK;
}

static gdn_status cpu_read(gdn_queue *q, void *to, gdn_buffer *from, uint64_t at, uint64_t bytes,
                           gdn_err *err) {
    (void)q, (void)err;
    memcpy(to, (const char *)from->host + at, bytes);
    return GDN_OK;
}

typedef struct {
    char       *to;
    const char *from;
    uint64_t    bytes;
} copy_job;

enum { COPY_BYTES = 256 * 1024 }; /* of a task */

static void copy_part(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const copy_job *j = arg;
    const uint64_t at = (uint64_t)begin * COPY_BYTES, stop = (uint64_t)end * COPY_BYTES;
    memcpy(j->to + at, j->from + at, (stop < j->bytes ? stop : j->bytes) - at);
}

static gdn_status cpu_copy(gdn_queue *q, gdn_buffer *to, uint64_t to_at, gdn_buffer *from,
                           uint64_t from_at, uint64_t bytes, gdn_err *err) {
    enum { PARALLEL = 1 << 20 }; /* below, waking the threads costs as much as it saves */
    (void)err;
    copy_job j = {(char *)to->host + to_at, (const char *)from->host + from_at, bytes};
    const int64_t n = (int64_t)((bytes + COPY_BYTES - 1) / COPY_BYTES);
    if (bytes < PARALLEL) memcpy(j.to, j.from, bytes);
    else gdn_parallel(cpu_of(q)->pool, n, copy_part, &j);
    return GDN_OK;
}

static uint64_t cpu_regions(const gdn_device *dev) {
    return gdn_pool_regions(((const cpu_device *)dev)->pool);
}

static const char *cpu_kernels(const gdn_device *dev) {
    return isa_name(((const cpu_device *)dev)->kern.isa);
}

_Static_assert(GDN_CPU_KV_BLOCK % GDN_ATTN_TILE == 0, "a block is whole tiles of attention");

const gdn_backend gdn_backend_cpu = {
    .name = "cpu",
    .kv_block_multiple = GDN_CPU_KV_BLOCK,
    .gdn_block_multiple = GDN_CPU_GDN_BLOCK,
    .kv_strides = true,
    .conv_layout = GDN_CONV_SD,
    .list = cpu_list,
    .open = cpu_open,
    .close = cpu_close,
    .buffer_alloc = cpu_buffer_alloc,
    .buffer_wrap = cpu_buffer_wrap,
    .buffer_free = cpu_buffer_free,
    .queue_create = cpu_queue_create,
    .queue_free = cpu_queue_free,
    .wait = cpu_wait,
    .write = cpu_write,
    .read = cpu_read,
    .copy = cpu_copy,
    .weight_create = cpu_weight_create,
    .weight_free = cpu_weight_free,
    .regions = cpu_regions,
    .kernels = cpu_kernels,
    .op = {
#define REQUIRED(op_) .op_ = cpu_op_##op_,
#define FUSED(op_) /* composed: a kernel's start costs little here */
#define X(op_, args, need) need(op_)
        GDN_OP_LIST(X)
#undef X
        .top_k = cpu_op_top_k,
    },
};
