/* xpu.c - the xpu device: Intel GPUs through OpenCL, opened by name; its memory; its table.
 *
 * Any other OpenCL device can stand in for one, to try programs where there is none.  Neither is
 * the default device. */
#include "xpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../base/log.h"
#include "constraints.h"
#include "xpu_queue.h"
#include "xpu_x.h"

/* --- devices ------------------------------------------------------------------------ */

static int list(gdn_device_info *out, int n) {
    const xpu_cl_device *d;
    const char *none;
    const int found = xpu_cl_devices(&d, &none);
    for (int i = 0; i < found && i < n; i++) {
        out[i] = (gdn_device_info){.memory_bytes = d[i].memory_bytes};
        snprintf(out[i].name, sizeof out[i].name, "xpu:%d", i);
        snprintf(out[i].description, sizeof out[i].description, "%.60s, %.40s%s", d[i].name,
                 d[i].driver, d[i].intel ? "" : ", a stand-in");
    }
    return found;
}

static void close_device(gdn_device *dev) {
    xpu_device *d = (xpu_device *)dev;
    xpu_programs_free(d);
    if (d->upload != NULL) xpu_cl.clReleaseCommandQueue(d->upload);
    if (d->context != NULL) xpu_cl.clReleaseContext(d->context);
    pthread_mutex_destroy(&d->base.busy);
    free(d);
}

static gdn_status open_device(const char *arg, const gdn_device_opts *o, gdn_device **out,
                              gdn_err *err) {
    (void)o;
    const xpu_cl_device *all;
    const char *none;
    char *end = NULL;
    const long at = arg != NULL ? strtol(arg, &end, 10) : 0;
    if (arg != NULL && (*arg == '\0' || *end != '\0' || at < 0))
        return gdn_fail(err, GDN_E_INVALID, "device 'xpu:%.20s': need a number from 0 on", arg);
    const int n = xpu_cl_devices(&all, &none);
    if (n == 0) return gdn_fail(err, GDN_E_DEVICE, "device 'xpu': %s", none);
    if (at >= n)
        return gdn_fail(err, GDN_E_INVALID, "device 'xpu:%ld': there %s", at,
                        n == 1 ? "is only xpu:0" : "are fewer; `gdn devices` lists them");
    xpu_device *d = calloc(1, sizeof *d);
    if (d == NULL) return gdn_fail(err, GDN_E_NOMEM, "xpu device: out of memory");
    d->base.backend = &gdn_backend_xpu;
    pthread_mutex_init(&d->base.busy, NULL);
    snprintf(d->base.name, sizeof d->base.name, "xpu:%ld", at);
    d->info = all + at;
    d->id = d->info->id;
    /* Another driver may compile to other last bits. */
    const XXH64_hash_t h = XXH3_64bits_withSeed(d->info->driver, strlen(d->info->driver),
                                                XXH3_64bits(d->info->name, strlen(d->info->name)));
    char why[128];
    const gdn_status chosen = xpu_choose_tier(d, why, err);
    if (chosen != GDN_OK) {
        close_device(&d->base);
        return chosen;
    }
    if (d->sg == 0) snprintf(d->kernels, sizeof d->kernels, "portable %08x", (unsigned)h);
    else
        snprintf(d->kernels, sizeof d->kernels, "%s%d %08x", d->emulated ? "emulated" : "xmx",
                 d->sg, (unsigned)h);
    cl_int e;
    const char *what = "a context";
    d->context = xpu_cl.clCreateContext(NULL, 1, &d->id, NULL, NULL, &e);
    if (d->context != NULL && e == CL_SUCCESS) {
        what = "a queue";
        d->upload = xpu_cl.clCreateCommandQueue(d->context, d->id, 0, &e);
    }
    if (e != CL_SUCCESS) {
        const gdn_status st = gdn_fail(err, GDN_E_DEVICE, "device %s (%s): %s: %s", d->base.name,
                                       d->info->name, what, xpu_error_name(e));
        close_device(&d->base);
        return st;
    }
    gdn_log(GDN_LOG_INFO, "device name=%s opencl=\"%s\" driver=\"%s\"%s kernels=\"%s\"%s%s%s",
            d->base.name, d->info->name, d->info->driver, d->info->intel ? "" : " stand_in=1",
            d->kernels, why[0] != '\0' ? " why=\"" : "", why, why[0] != '\0' ? "\"" : "");
    *out = &d->base;
    return GDN_OK;
}

static const char *kernels(const gdn_device *d) { return ((const xpu_device *)d)->kernels; }

/* --- memory ------------------------------------------------------------------------- */

gdn_status xpu_alloc(xpu_device *d, uint64_t bytes, bool zero, cl_mem *out, gdn_err *err) {
    static const cl_uint nothing;
    const uint64_t whole = (bytes + 3) / 4 * 4 + (bytes == 0 ? 4 : 0); /* fills are words */
    if (whole > d->info->max_alloc)
        return gdn_fail(err, GDN_E_NOMEM, "device %s: a buffer of %.1f MB; it gives at most %.1f "
                        "MB", d->base.name, (double)bytes * 1e-6, (double)d->info->max_alloc * 1e-6);
    cl_int e;
    cl_mem m = xpu_cl.clCreateBuffer(d->context, CL_MEM_READ_WRITE, whole, NULL, &e);
    if (m != NULL && e == CL_SUCCESS && zero) {
        e = xpu_cl.clEnqueueFillBuffer(d->upload, m, &nothing, sizeof nothing, 0, whole, 0, NULL,
                                       NULL);
        if (e == CL_SUCCESS) e = xpu_cl.clFinish(d->upload);
        if (e != CL_SUCCESS) xpu_cl.clReleaseMemObject(m);
    }
    if (m == NULL || e != CL_SUCCESS)
        return gdn_fail(err, GDN_E_NOMEM, "device %s: a buffer of %.1f MB: %s", d->base.name,
                        (double)bytes * 1e-6, xpu_error_name(e));
    *out = m;
    return GDN_OK;
}

static gdn_status buffer_new(gdn_device *dev, const void *from, uint64_t bytes, gdn_buffer **out,
                             gdn_err *err) {
    xpu_device *d = (xpu_device *)dev;
    xpu_buffer *b = calloc(1, sizeof *b);
    if (b == NULL) return gdn_fail(err, GDN_E_NOMEM, "buffer: out of memory");
    gdn_status st = xpu_alloc(d, bytes, from == NULL, &b->mem, err);
    if (st == GDN_OK && from != NULL && bytes > 0) {
        const cl_int e = xpu_cl.clEnqueueWriteBuffer(d->upload, b->mem, CL_TRUE, 0, bytes, from, 0,
                                                     NULL, NULL);
        if (e != CL_SUCCESS) {
            st = gdn_fail(err, GDN_E_DEVICE, "device %s: a copy of %.1f MB: %s", d->base.name,
                          (double)bytes * 1e-6, xpu_error_name(e));
            xpu_cl.clReleaseMemObject(b->mem);
        }
    }
    if (st != GDN_OK) {
        free(b);
        return st;
    }
    b->base = (gdn_buffer){.device = dev, .bytes = bytes > 0 ? bytes : 1};
    *out = &b->base;
    return GDN_OK;
}

static gdn_status buffer_alloc(gdn_device *d, uint64_t bytes, gdn_buffer **out, gdn_err *err) {
    return buffer_new(d, NULL, bytes, out, err);
}

static gdn_status buffer_wrap(gdn_device *d, void *host, uint64_t bytes, gdn_buffer **out,
                              gdn_err *err) {
    if (host == NULL) return gdn_fail(err, GDN_E_INVALID, "buffer: wrapped pointer is NULL");
    return buffer_new(d, host, bytes, out, err);
}

static void buffer_free(gdn_buffer *b) {
    xpu_cl.clReleaseMemObject(xpu_mem(b));
    free(b);
}

const gdn_backend gdn_backend_xpu = {
    .name = "xpu",
    .kv_block_multiple = GDN_XPU_KV_BLOCK,
    .gdn_block_multiple = GDN_XPU_GDN_BLOCK,
    .kv_strides = true,
    .conv_layout = GDN_CONV_SD,
    .list = list,
    .open = open_device,
    .close = close_device,
    .buffer_alloc = buffer_alloc,
    .buffer_wrap = buffer_wrap,
    .buffer_free = buffer_free,
    .queue_create = xpu_queue_create,
    .queue_free = xpu_queue_free,
    .wait = xpu_queue_wait,
    .write = xpu_queue_write,
    .read = xpu_queue_read,
    .copy = xpu_queue_copy,
    .weight_create = xpu_weight_create,
    .weight_free = xpu_weight_free,
    .kernels = kernels,
    .op = {
#define X(op_, args) .op_ = xpu_op_##op_,
        XPU_OP_LIST(X)
#undef X
    },
};
