/* xpu.c - the xpu device: Intel GPUs through OpenCL; its memory; its table.
 *
 * Any other OpenCL device can stand in for one, to try programs where there is none; it is never the
 * default device. */
#include "xpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../base/log.h"
#include "constraints.h"
#include "xpu_driver.h"
#include "xpu_queue.h"
#include "xpu_replay.h"
#include "xpu_times.h"
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
    xpu_table_free(d);
    xpu_programs_free(d);
    xpu_driver_close(d);
    pthread_mutex_destroy(&d->base.busy);
    free(d);
}

static gdn_status open_device(const char *arg, const gdn_device_opts *o, gdn_device **out,
                              gdn_err *err) {
    const xpu_cl_device *all;
    const char *none;
    char *end = NULL;
    const long at = arg != NULL ? strtol(arg, &end, 10) : 0;
    if (arg != NULL && (*arg == '\0' || *end != '\0' || at < 0))
        return gdn_fail(err, GDN_E_INVALID, "device 'xpu:%.20s': need a number from 0 on", arg);
    const int n = xpu_cl_devices(&all, &none);
    if (n == 0)
        return gdn_fail(err, GDN_E_DEVICE, "device 'xpu': %s; --device cpu runs without it", none);
    if (at >= n)
        return gdn_fail(err, GDN_E_INVALID, "device 'xpu:%ld': there %s", at,
                        n == 1 ? "is only xpu:0" : "are fewer; `gdn devices` lists them");
    xpu_device *d = calloc(1, sizeof *d);
    if (d == NULL) return gdn_fail(err, GDN_E_NOMEM, "xpu device: out of memory");
    d->base.backend = &gdn_backend_xpu;
    d->base.dry_run = o->dry_run;
    pthread_mutex_init(&d->base.busy, NULL);
    snprintf(d->base.name, sizeof d->base.name, "xpu:%ld", at);
    d->info = all + at;
    d->id = d->info->id;
    /* Another driver may compile to other last bits. */
    const XXH64_hash_t h = XXH3_64bits_withSeed(d->info->driver, strlen(d->info->driver),
                                                XXH3_64bits(d->info->name, strlen(d->info->name)));
    char why[128];
    gdn_status st = xpu_choose_tier(d, why, err);
    if (st == GDN_OK) st = xpu_driver_open(d, err);
    if (st != GDN_OK) {
        close_device(&d->base);
        return st;
    }
    if (d->sg == 0) snprintf(d->kernels, sizeof d->kernels, "portable %08x", (unsigned)h);
    else
        snprintf(d->kernels, sizeof d->kernels, "%s%d %08x", d->emulated ? "emulated" : "xmx",
                 d->sg, (unsigned)h);
    gdn_log(GDN_LOG_INFO, "device name=%s opencl=\"%s\" driver=\"%s\" memory=%s replay=%s%s "
            "kernels=\"%s\"%s%s%s", d->base.name, d->info->name, d->info->driver,
            d->usm != NULL ? "usm" : "buffer", d->record != NULL ? "yes" : "no",
            d->info->intel ? "" : " stand_in=1", d->kernels, why[0] != '\0' ? " why=\"" : "", why,
            why[0] != '\0' ? "\"" : "");
    *out = &d->base;
    return GDN_OK;
}

static gdn_counts counts(const gdn_device *dev) {
    const xpu_device *d = (const xpu_device *)dev;
    return (gdn_counts){.calls = d->n_call,
                        .launches = d->n_launch,
                        .recorded = d->n_recorded,
                        .replayed = d->n_replayed};
}

static uint64_t launches(const gdn_device *d) { return ((const xpu_device *)d)->n_launch; }

static const char *kernels(const gdn_device *d) { return ((const xpu_device *)d)->kernels; }

/* --- memory ------------------------------------------------------------------------- */

static gdn_status buffer_new(gdn_device *dev, const void *from, uint64_t bytes, gdn_buffer **out,
                             gdn_err *err) {
    xpu_device *d = (xpu_device *)dev;
    xpu_buffer *b = calloc(1, sizeof *b);
    if (b == NULL) return gdn_fail(err, GDN_E_NOMEM, "buffer: out of memory");
    gdn_status st = xpu_alloc(d, bytes, from == NULL, &b->mem, err);
    if (st == GDN_OK && from != NULL && bytes > 0) {
        const cl_int e = xpu_driver_write(d, d->upload, b->mem, 0, from, bytes, true, NULL);
        if (e != CL_SUCCESS) {
            st = xpu_failed(d, e, err, "a copy of %.1f MB", (double)bytes * 1e-6);
            xpu_free(d, b->mem);
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
    xpu_free((xpu_device *)b->device, xpu_mem(b));
    free(b);
}

const gdn_backend gdn_backend_xpu = {
    .name = "xpu",
    .kv_block_multiple = GDN_XPU_KV_BLOCK,
    .gdn_block_multiple = GDN_XPU_GDN_BLOCK,
    .kv_strides = true,
    .conv_layout = GDN_CONV_SD,
    .list = list,
    .real = xpu_real,
    .open = open_device,
    .close = close_device,
    .buffer_alloc = buffer_alloc,
    .buffer_wrap = buffer_wrap,
    .buffer_free = buffer_free,
    .queue_create = xpu_queue_create,
    .queue_free = xpu_queue_free,
    .wait = xpu_queue_wait,
    .profile = xpu_queue_profile,
    .times = xpu_queue_times,
    .write = xpu_queue_write,
    .read = xpu_queue_read,
    .copy = xpu_queue_copy,
    .pass_begin = xpu_pass_begin,
    .pass_end = xpu_pass_end,
    .weight_create = xpu_weight_create,
    .weight_free = xpu_weight_free,
    .counts = counts,
    .regions = launches,
    .kernels = kernels,
    .op = {
#define X(op_, args) .op_ = xpu_op_##op_,
        XPU_OP_LIST(X)
#undef X
    },
};
