/* xpu_program.c - kernels: their text compiled, compiled programs kept on disk.
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
#include "xpu_driver.h"
#include "xpu_program.h"
#include "xpu_x.h"

struct xpu_program {
    xpu_program *next;
    char        *file;
    cl_program   cl;
    xpu_named   *kernel;
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
static void cache_write(const char *path, const unsigned char *binary, size_t bytes) {
    char part[PATH + 32];
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
    char path[PATH];
    size_t bytes = 0;
    if (!cache_path(key, path)) return; /* for a binary a driver may have to compile once more */
    if (xpu_cl.clGetProgramInfo(p, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) !=
            CL_SUCCESS ||
        bytes == 0)
        return;
    unsigned char *binary = malloc(bytes);
    if (binary == NULL) return;
    if (xpu_cl.clGetProgramInfo(p, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS)
        cache_write(path, binary, bytes);
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

/* With the line of the compiler's log that names the first error. */
static gdn_status not_compiled(const xpu_device *d, cl_program p, const char *file, cl_int e,
                               gdn_err *err) {
    size_t n = 0;
    if (xpu_cl.clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) != CL_SUCCESS)
        n = 0;
    char *log = calloc(n + 1, 1);
    if (log != NULL && n > 0)
        xpu_cl.clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, n, log, NULL);
    const char *line = log != NULL ? strstr(log, "error") : NULL;
    if (line == NULL) line = log != NULL ? log + strspn(log, " \t\n") : "";
    while (log != NULL && line > log && line[-1] != '\n') line--;
    const gdn_status st = xpu_failed(d, e, err, "%s_xpu.cl does not compile: %.*s", file,
                                     (int)strcspn(line, "\n"), line);
    free(log);
    return st;
}

static gdn_status compile(const xpu_device *d, const char *file, cl_program *out, gdn_err *err) {
    xpu_text t;
    if (!xpu_text_of(file, d->sg, d->emulated, d->info->intel, &t))
        return gdn_fail(err, GDN_E_DEVICE, "device %s: there are no kernels %s_xpu.cl",
                        d->base.name, file);
    const uint64_t key = key_of(d, &t);
    cl_program p = from_cache(d, key, t.options);
    if (p == NULL) {
        cl_int e;
        p = xpu_cl.clCreateProgramWithSource(d->context, (cl_uint)t.n, t.text, NULL, &e);
        if (p == NULL || e != CL_SUCCESS)
            return xpu_failed(d, e, err, "%s_xpu.cl", file);
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

gdn_status xpu_kernel(xpu_device *d, const char *file, const char *name, xpu_named **out,
                      gdn_err *err) {
    xpu_program *p = NULL;
    const gdn_status st = program(d, file, &p, err);
    if (st != GDN_OK) return st;
    for (*out = p->kernel; *out != NULL; *out = (*out)->next)
        if (strcmp((*out)->name, name) == 0) return GDN_OK;
    xpu_named *k = calloc(1, sizeof *k);
    if (k == NULL || (k->name = strdup(name)) == NULL) {
        free(k);
        return gdn_fail(err, GDN_E_NOMEM, "kernel %s: out of memory", name);
    }
    k->program = p->cl;
    const cl_int e = xpu_object_create(d, k, XPU_ARG_BYTES, &k->shared);
    if (e != CL_SUCCESS) {
        free(k->name);
        free(k);
        return xpu_failed(d, e, err, "kernel %s of %s_xpu.cl", name, file);
    }
    k->next = p->kernel;
    p->kernel = *out = k;
    return GDN_OK;
}

void xpu_programs_free(xpu_device *d) {
    for (xpu_program *p = d->program, *next; p != NULL; p = next) {
        next = p->next;
        for (xpu_named *k = p->kernel, *behind; k != NULL; k = behind) {
            behind = k->next;
            xpu_object_free(k->shared);
            free(k->name);
            free(k);
        }
        xpu_cl.clReleaseProgram(p->cl);
        free(p->file);
        free(p);
    }
    d->program = NULL;
}
