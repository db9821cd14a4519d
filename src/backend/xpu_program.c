/* xpu_program.c - kernels: their text compiled, compiled programs kept on disk, calls made.
 *
 * Compiled programs lie in $XDG_CACHE_HOME/gdn, or ~/.cache/gdn:
 *
 *     xpu-<hash>.bin      "gdnxpu 1" | XXH3 of the rest | the driver's binary
 *
 * with the hash of device, driver, options and text in the name.  A file that is not whole, or that
 * the driver does not take, is made anew; where nothing can be written, nothing is kept. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "../base/log.h"
#include "xpu.h"
#include "xpu_x.h"

typedef struct {
    char     *name;
    cl_kernel cl;
} named_kernel;

struct xpu_program {
    xpu_program  *next;
    char         *file;
    cl_program    cl;
    named_kernel *kernel;
    int           n_kernel;
};

/* --- on disk ------------------------------------------------------------------------ */

static uint64_t key_of(const xpu_device *d, const xpu_text *t) {
    XXH64_hash_t h = XXH3_64bits(t->options, strlen(t->options));
    h = XXH3_64bits_withSeed(d->info->name, strlen(d->info->name), h);
    h = XXH3_64bits_withSeed(d->info->driver, strlen(d->info->driver), h);
    for (int i = 0; i < t->n; i++) h = XXH3_64bits_withSeed(t->text[i], strlen(t->text[i]), h);
    return h;
}

static const char magic[8] = {'g', 'd', 'n', 'x', 'p', 'u', ' ', '1'};
enum { HEAD = 16, PATH = 512 };

/* The file of a key, its folder made; false: there is no place for it. */
static bool cache_path(uint64_t key, char path[PATH]) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *below = "";
    if (base == NULL || base[0] != '/') base = home, below = "/.cache";
    if (base == NULL || base[0] != '/') return false;
    char dir[PATH];
    int n = snprintf(dir, sizeof dir, "%s%s", base, below);
    if (n >= PATH) return false;
    mkdir(dir, 0700);
    n = snprintf(dir, sizeof dir, "%s%s/gdn", base, below);
    if (n >= PATH || (mkdir(dir, 0700) != 0 && errno != EEXIST)) return false;
    n = snprintf(path, PATH, "%.480s/xpu-%016llx.bin", dir, (unsigned long long)key);
    return n < PATH;
}

/* A whole file without its head; NULL when there is none. */
static unsigned char *cache_read(uint64_t key, size_t *bytes) {
    enum { MOST = 1 << 28 };
    char path[PATH];
    struct stat s;
    if (!cache_path(key, path)) return NULL;
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    unsigned char *all = NULL;
    size_t n = 0;
    if (fstat(fileno(f), &s) == 0 && s.st_size > HEAD && s.st_size < MOST)
        all = malloc(n = (size_t)s.st_size);
    const bool read = all != NULL && fread(all, 1, n, f) == n;
    fclose(f);
    XXH64_hash_t sum = 0;
    if (read) memcpy(&sum, all + sizeof magic, sizeof sum);
    if (!read || memcmp(all, magic, sizeof magic) != 0 ||
        sum != XXH3_64bits(all + HEAD, n - HEAD)) {
        free(all);
        return NULL;
    }
    *bytes = n - HEAD;
    memmove(all, all + HEAD, *bytes);
    return all;
}

/* Written beside its place and moved there: another process never sees a part of it. */
static void cache_write(uint64_t key, const unsigned char *binary, size_t bytes) {
    char path[PATH], part[PATH + 32];
    if (!cache_path(key, path)) return;
    snprintf(part, sizeof part, "%s.%ld", path, (long)getpid());
    FILE *f = fopen(part, "wb");
    if (f == NULL) return;
    const XXH64_hash_t sum = XXH3_64bits(binary, bytes);
    bool ok = fwrite(magic, 1, sizeof magic, f) == sizeof magic &&
              fwrite(&sum, sizeof sum, 1, f) == 1 && fwrite(binary, 1, bytes, f) == bytes;
    ok &= fclose(f) == 0;
    if (!ok || rename(part, path) != 0) unlink(part);
}

static void cache_program(uint64_t key, cl_program p) {
    size_t bytes = 0;
    if (xpu_cl.clGetProgramInfo(p, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) !=
            CL_SUCCESS ||
        bytes == 0)
        return;
    unsigned char *binary = malloc(bytes);
    if (binary == NULL) return;
    if (xpu_cl.clGetProgramInfo(p, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS)
        cache_write(key, binary, bytes);
    free(binary);
}

/* --- compiling ---------------------------------------------------------------------- */

static cl_program from_cache(const xpu_device *d, uint64_t key, const char *options) {
    size_t bytes;
    unsigned char *binary = cache_read(key, &bytes);
    if (binary == NULL) return NULL;
    const unsigned char *const data = binary;
    cl_int e, taken;
    cl_program p = xpu_cl.clCreateProgramWithBinary(d->context, 1, &d->id, &bytes,
                                                    (const unsigned char **)(uintptr_t)&data,
                                                    &taken, &e);
    free(binary);
    if (p == NULL || e != CL_SUCCESS) return NULL;
    if (xpu_cl.clBuildProgram(p, 1, &d->id, options, NULL, NULL) == CL_SUCCESS) return p;
    xpu_cl.clReleaseProgram(p);
    return NULL;
}

/* The first lines of what the compiler says, from the first that names an error. */
static gdn_status not_compiled(const xpu_device *d, cl_program p, const char *file, cl_int e,
                               gdn_err *err) {
    size_t n = 0;
    xpu_cl.clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &n);
    char *log = calloc(n + 1, 1);
    if (log != NULL)
        xpu_cl.clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, n, log, NULL);
    const char *first = log != NULL ? strstr(log, "error") : NULL;
    if (first == NULL) first = log != NULL ? log : "";
    while (first != log && first > log && first[-1] != '\n') first--;
    const gdn_status st = gdn_fail(err, GDN_E_DEVICE, "device %s: %s_xpu.cl does not compile (%s): "
                                   "%.240s", d->base.name, file, xpu_error_name(e), first);
    free(log);
    return st;
}

static gdn_status compile(const xpu_device *d, const char *file, cl_program *out, gdn_err *err) {
    xpu_text t;
    if (!xpu_text_of(file, d->sg, d->emulated, &t))
        return gdn_fail(err, GDN_E_DEVICE, "device %s: there are no kernels %s_xpu.cl",
                        d->base.name, file);
    const uint64_t key = key_of(d, &t);
    cl_program p = from_cache(d, key, t.options);
    if (p == NULL) {
        cl_int e;
        p = xpu_cl.clCreateProgramWithSource(d->context, (cl_uint)t.n, t.text, NULL, &e);
        if (p == NULL || e != CL_SUCCESS)
            return gdn_fail(err, GDN_E_DEVICE, "device %s: %s_xpu.cl: %s", d->base.name, file,
                            xpu_error_name(e));
        e = xpu_cl.clBuildProgram(p, 1, &d->id, t.options, NULL, NULL);
        if (e != CL_SUCCESS) {
            const gdn_status st = not_compiled(d, p, file, e, err);
            xpu_cl.clReleaseProgram(p);
            return st;
        }
        gdn_log(GDN_LOG_DEBUG, "compiled device=%s kernels=%s", d->base.name, file);
        cache_program(key, p);
    }
    *out = p;
    return GDN_OK;
}

static gdn_status program(xpu_device *d, const char *file, xpu_program **out, gdn_err *err) {
    for (xpu_program *p = d->program; p != NULL; p = p->next)
        if (strcmp(p->file, file) == 0) {
            *out = p;
            return GDN_OK;
        }
    xpu_program *p = calloc(1, sizeof *p);
    if (p != NULL) p->file = strdup(file);
    gdn_status st = p == NULL || p->file == NULL
                        ? gdn_fail(err, GDN_E_NOMEM, "kernels %s: out of memory", file)
                        : compile(d, file, &p->cl, err);
    if (st != GDN_OK) {
        if (p != NULL) free(p->file);
        free(p);
        return st;
    }
    p->next = d->program;
    d->program = p;
    *out = p;
    return GDN_OK;
}

gdn_status xpu_kernel(xpu_device *d, const char *file, const char *name, cl_kernel *out,
                      gdn_err *err) {
    xpu_program *p = NULL;
    const gdn_status st = program(d, file, &p, err);
    if (st != GDN_OK) return st;
    for (int i = 0; i < p->n_kernel; i++)
        if (strcmp(p->kernel[i].name, name) == 0) {
            *out = p->kernel[i].cl;
            return GDN_OK;
        }
    named_kernel *more = realloc(p->kernel, (size_t)(p->n_kernel + 1) * sizeof *more);
    if (more == NULL) return gdn_fail(err, GDN_E_NOMEM, "kernel %s: out of memory", name);
    p->kernel = more;
    cl_int e;
    named_kernel k = {strdup(name), NULL};
    if (k.name == NULL) return gdn_fail(err, GDN_E_NOMEM, "kernel %s: out of memory", name);
    k.cl = xpu_cl.clCreateKernel(p->cl, name, &e);
    if (k.cl == NULL || e != CL_SUCCESS) {
        free(k.name);
        return gdn_fail(err, GDN_E_DEVICE, "device %s: kernel %s of %s_xpu.cl: %s", d->base.name,
                        name, file, xpu_error_name(e));
    }
    p->kernel[p->n_kernel++] = k;
    *out = k.cl;
    return GDN_OK;
}

void xpu_programs_free(xpu_device *d) {
    for (xpu_program *p = d->program, *next; p != NULL; p = next) {
        next = p->next;
        for (int i = 0; i < p->n_kernel; i++) {
            xpu_cl.clReleaseKernel(p->kernel[i].cl);
            free(p->kernel[i].name);
        }
        xpu_cl.clReleaseProgram(p->cl);
        free(p->kernel);
        free(p->file);
        free(p);
    }
    d->program = NULL;
}

/* --- calls -------------------------------------------------------------------------- */

xpu_call xpu_begin(gdn_queue *q, const char *file, const char *name) {
    xpu_call c = {.q = xpu_queue_of(q), .file = file, .name = name};
    c.st = xpu_kernel(xpu_of(q), file, name, &c.kernel, &c.why);
    return c;
}

static void argument(xpu_call *c, size_t bytes, const void *v) {
    if (c->st != GDN_OK) return;
    const cl_int e = xpu_cl.clSetKernelArg(c->kernel, c->n_arg, bytes, v);
    if (e != CL_SUCCESS)
        c->st = gdn_fail(&c->why, GDN_E_DEVICE, "device %s: argument %u of kernel %s: %s",
                         c->q->base.device->name, c->n_arg, c->name, xpu_error_name(e));
    c->n_arg++;
}

void xpu_memory(xpu_call *c, cl_mem m) { argument(c, sizeof m, m != NULL ? &m : NULL); }

void xpu_tensor(xpu_call *c, const gdn_tensor *t, int n_stride) {
    const cl_ulong at = t->buf != NULL ? t->at : 0;
    xpu_memory(c, xpu_mem(t->buf));
    argument(c, sizeof at, &at);
    for (int i = 0; i < n_stride; i++) xpu_long(c, t->buf != NULL ? t->stride[i] : 0);
}

void xpu_int(xpu_call *c, int64_t v) {
    const cl_int i = (cl_int)v;
    if (c->st == GDN_OK && i != v)
        c->st = gdn_fail(&c->why, GDN_E_UNSUPPORTED, "device %s: kernel %s: a size of %lld",
                         c->q->base.device->name, c->name, (long long)v);
    argument(c, sizeof i, &i);
}

void xpu_long(xpu_call *c, int64_t v) {
    const cl_long i = v;
    argument(c, sizeof i, &i);
}

void xpu_float(xpu_call *c, float v) { argument(c, sizeof v, &v); }
void xpu_struct(xpu_call *c, const void *v, size_t bytes) { argument(c, bytes, v); }
void xpu_local(xpu_call *c, size_t bytes) { argument(c, bytes, NULL); }

void xpu_faults(xpu_call *c) {
    xpu_memory(c, c->q->fault);
    c->q->armed = true;
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
    cl_event event = NULL;
    const cl_int e = xpu_cl.clEnqueueNDRangeKernel(c->q->cl, c->kernel, 3, NULL, global, items, 0,
                                                   NULL, &event);
    return xpu_queued(c->q, e, c->name, event, err);
}
