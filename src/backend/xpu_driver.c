/* xpu_driver.c - the driver's calls, over buffer objects or over unified shared memory. */
#include "xpu_driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../base/log.h"
#include "../base/switch.h"

/* In the headers of Intel's driver only. */
#define MEM_ALLOW_UNRESTRICTED_SIZE ((cl_mem_flags)1 << 23)

/* --- in words ----------------------------------------------------------------------- */

static bool is_memory(cl_int code) {
    return code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_HOST_MEMORY ||
           code == CL_INVALID_BUFFER_SIZE;
}

/* Mistakes that a driver finds in what it is asked for have codes from CL_INVALID_VALUE down; that
 * a queue or a context has become one of them is how a lost device shows. */
static bool is_refusal(cl_int code) {
    return (code <= CL_INVALID_VALUE && code > -100 && code != CL_INVALID_COMMAND_QUEUE &&
            code != CL_INVALID_CONTEXT) ||
           (code <= CL_COMPILER_NOT_AVAILABLE && code >= CL_BUILD_PROGRAM_FAILURE &&
            code != CL_OUT_OF_RESOURCES);
}

gdn_status xpu_failed(const xpu_device *d, cl_int code, gdn_err *err, const char *what, ...) {
    char text[256], advice[120];
    va_list ap;
    va_start(ap, what);
    vsnprintf(text, sizeof text, what, ap);
    va_end(ap);
    if (is_memory(code))
        snprintf(advice, sizeof advice, "of its %.1f GB too little is left: a smaller model, --ctx "
                 "or --cache takes less", (double)d->info->memory_bytes * 1e-9);
    else
        snprintf(advice, sizeof advice, "%s", is_refusal(code)
                     ? "its driver may be too old or not meant for it: update it"
                     : "it was lost or reset (the system's log says why): start again");
    return gdn_fail(err, is_memory(code) ? GDN_E_NOMEM : GDN_E_DEVICE,
                    "device %s (%.60s): %s: %s; %s; --device cpu runs without it", d->base.name,
                    d->info->name, text, xpu_error_name(code), advice);
}

static cl_int accepted(xpu_device *d, cl_int code) {
    if (code == CL_SUCCESS) atomic_fetch_add_explicit(&d->n_call, 1, memory_order_relaxed);
    return code;
}

/* --- context and queues ------------------------------------------------------------- */

/* Which memory the device is to use. */
static gdn_status choose_memory(xpu_device *d, gdn_err *err) {
    const char *asked = gdn_switch_get(GDN_SWITCH_XPU_MEMORY);
    const bool usm = asked != NULL && strcmp(asked, "usm") == 0;
    if (asked != NULL && !usm && strcmp(asked, "buffer") != 0)
        return gdn_fail(err, GDN_E_INVALID, "GDN_XPU_MEMORY is \"%.20s\"; need usm or buffer", asked);
    d->usm = asked != NULL && !usm ? NULL : d->info->usm.clDeviceMemAllocINTEL != NULL ? &d->info->usm
                                                                                       : NULL;
    if (usm && d->usm == NULL)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "device %s (%.60s) has no unified shared memory: "
                        "leave GDN_XPU_MEMORY=usm out", d->base.name, d->info->name);
    return GDN_OK;
}

/* Whether passes that come again are replayed. */
static gdn_status choose_replay(xpu_device *d, gdn_err *err) {
    const char *asked = gdn_switch_get(GDN_SWITCH_XPU_REPLAY);
    const bool off = asked != NULL && strcmp(asked, "off") == 0;
    if (asked != NULL && !off && strcmp(asked, "on") != 0)
        return gdn_fail(err, GDN_E_INVALID, "GDN_XPU_REPLAY is \"%.20s\"; need on or off", asked);
    d->record = off || d->info->record.clCreateCommandBufferKHR == NULL ? NULL : &d->info->record;
    return GDN_OK;
}

gdn_status xpu_driver_open(xpu_device *d, gdn_err *err) {
    cl_int e;
    gdn_status st = choose_memory(d, err);
    if (st == GDN_OK) st = choose_replay(d, err);
    if (st != GDN_OK) return st;
    d->context = xpu_cl.clCreateContext(NULL, 1, &d->id, NULL, NULL, &e);
    if (d->context == NULL || e != CL_SUCCESS) return xpu_failed(d, e, err, "a context");
    e = xpu_driver_queue(d, false, &d->upload);
    return e == CL_SUCCESS ? GDN_OK : xpu_failed(d, e, err, "a queue");
}

void xpu_driver_close(xpu_device *d) {
    if (d->upload != NULL) xpu_driver_queue_free(d->upload);
    if (d->context != NULL) xpu_cl.clReleaseContext(d->context);
}

cl_int xpu_driver_queue(xpu_device *d, bool timed, cl_command_queue *out) {
    cl_int e;
    *out = xpu_cl.clCreateCommandQueue(d->context, d->id, timed ? CL_QUEUE_PROFILING_ENABLE : 0, &e);
    return *out == NULL && e == CL_SUCCESS ? CL_OUT_OF_RESOURCES : accepted(d, e);
}

void xpu_driver_queue_free(cl_command_queue q) { xpu_cl.clReleaseCommandQueue(q); }

/* --- memory ------------------------------------------------------------------------- */

/* Intel's driver gives more than its limit of 4 GB, which serves short addresses, when asked; the
 * kernels are compiled for it (xpu_program.c). */
static cl_mem allocate(xpu_device *d, uint64_t bytes, cl_int *e) {
    const cl_mem_flags flags = d->info->intel ? MEM_ALLOW_UNRESTRICTED_SIZE : 0;
    const cl_mem_properties_intel p[] = {CL_MEM_FLAGS, flags, 0};
    if (d->usm == NULL)
        return xpu_cl.clCreateBuffer(d->context, CL_MEM_READ_WRITE | flags, bytes, NULL, e);
    return d->usm->clDeviceMemAllocINTEL(d->context, d->id, flags != 0 ? p : NULL, bytes, 0, e);
}

static cl_int zero_fill(xpu_device *d, cl_mem m, uint64_t bytes) {
    static const cl_uint nothing;
    const cl_int e = d->usm != NULL
        ? d->usm->clEnqueueMemFillINTEL(d->upload, m, &nothing, sizeof nothing, bytes, 0, NULL, NULL)
        : xpu_cl.clEnqueueFillBuffer(d->upload, m, &nothing, sizeof nothing, 0, bytes, 0, NULL, NULL);
    return accepted(d, e) == CL_SUCCESS ? xpu_cl.clFinish(d->upload) : e;
}

gdn_status xpu_alloc(xpu_device *d, uint64_t bytes, bool zero, cl_mem *out, gdn_err *err) {
    const uint64_t whole = (bytes + 3) / 4 * 4 + (bytes == 0 ? 4 : 0); /* fills are words */
    const uint64_t most = d->info->intel ? d->info->memory_bytes : d->info->max_alloc;
    const double mb = (double)bytes * 1e-6;
    if (whole > most)
        return xpu_failed(d, CL_INVALID_BUFFER_SIZE, err, "%.1f MB of memory, where it gives at most "
                          "%.1f MB in one piece", mb, (double)most * 1e-6);
    cl_int e;
    cl_mem m = allocate(d, whole, &e);
    if (m == NULL && e == CL_SUCCESS) e = CL_MEM_OBJECT_ALLOCATION_FAILURE;
    if (accepted(d, e) == CL_SUCCESS && zero && (e = zero_fill(d, m, whole)) != CL_SUCCESS)
        xpu_free(d, m);
    /* Some drivers find out about the room when memory is used first. */
    if (e == CL_OUT_OF_RESOURCES) e = CL_MEM_OBJECT_ALLOCATION_FAILURE;
    if (e != CL_SUCCESS) return xpu_failed(d, e, err, "%.1f MB of memory", mb);
    *out = m;
    return GDN_OK;
}

/* Shared memory is let go at once, so what still uses it is waited for. */
void xpu_free(xpu_device *d, cl_mem m) {
    if (m == NULL) return;
    atomic_fetch_add_explicit(&d->n_freed, 1, memory_order_relaxed);
    if (d->usm != NULL) d->usm->clMemBlockingFreeINTEL(d->context, m);
    else xpu_cl.clReleaseMemObject(m);
}

/* --- copies ------------------------------------------------------------------------- */

static void *address(cl_mem m, uint64_t at) { return (char *)m + at; }

cl_int xpu_driver_write(xpu_device *d, cl_command_queue q, cl_mem to, uint64_t at, const void *from,
                        uint64_t bytes, bool block, cl_event *event) {
    const cl_bool wait = block ? CL_TRUE : CL_FALSE;
    return accepted(d, d->usm != NULL
        ? d->usm->clEnqueueMemcpyINTEL(q, wait, address(to, at), from, bytes, 0, NULL, event)
        : xpu_cl.clEnqueueWriteBuffer(q, to, wait, at, bytes, from, 0, NULL, event));
}

cl_int xpu_driver_read(xpu_device *d, cl_command_queue q, void *to, cl_mem from, uint64_t at,
                       uint64_t bytes, bool block, cl_event *event) {
    const cl_bool wait = block ? CL_TRUE : CL_FALSE;
    return accepted(d, d->usm != NULL
        ? d->usm->clEnqueueMemcpyINTEL(q, wait, to, address(from, at), bytes, 0, NULL, event)
        : xpu_cl.clEnqueueReadBuffer(q, from, wait, at, bytes, to, 0, NULL, event));
}

cl_int xpu_driver_copy(xpu_device *d, cl_command_queue q, cl_mem to, uint64_t to_at, cl_mem from,
                       uint64_t from_at, uint64_t bytes, cl_event *event) {
    return accepted(d, d->usm != NULL
        ? d->usm->clEnqueueMemcpyINTEL(q, CL_FALSE, address(to, to_at), address(from, from_at),
                                       bytes, 0, NULL, event)
        : xpu_cl.clEnqueueCopyBuffer(q, from, to, from_at, to_at, bytes, 0, NULL, event));
}

/* --- launches ----------------------------------------------------------------------- */

cl_int xpu_driver_kernel(xpu_device *d, cl_program p, const char *name, cl_kernel *out) {
    cl_int e;
    *out = xpu_cl.clCreateKernel(p, name, &e);
    return *out == NULL && e == CL_SUCCESS ? CL_OUT_OF_RESOURCES : accepted(d, e);
}

void xpu_driver_kernel_free(cl_kernel k) { xpu_cl.clReleaseKernel(k); }

cl_int xpu_driver_memory(xpu_device *d, cl_kernel k, cl_uint i, cl_mem m) {
    return accepted(d, d->usm != NULL ? d->usm->clSetKernelArgMemPointerINTEL(k, i, m)
                                      : xpu_cl.clSetKernelArg(k, i, sizeof m, m != NULL ? &m : NULL));
}

cl_int xpu_driver_value(xpu_device *d, cl_kernel k, cl_uint i, size_t bytes, const void *v) {
    return accepted(d, xpu_cl.clSetKernelArg(k, i, bytes, v));
}

cl_int xpu_driver_launch(xpu_device *d, cl_command_queue q, cl_kernel k, const size_t global[3],
                         const size_t local[3], cl_event *event) {
    d->n_launch++; /* under the device's lock */
    return accepted(d, xpu_cl.clEnqueueNDRangeKernel(q, k, 3, NULL, global, local, 0, NULL, event));
}

/* --- launches made again ------------------------------------------------------------ */

cl_int xpu_driver_record(xpu_device *d, cl_command_queue q, cl_command_buffer_khr *out) {
    cl_int e;
    *out = d->record->clCreateCommandBufferKHR(1, &q, NULL, &e);
    return *out == NULL && e == CL_SUCCESS ? CL_OUT_OF_RESOURCES : accepted(d, e);
}

cl_int xpu_driver_note(xpu_device *d, cl_command_buffer_khr b, cl_kernel k, const size_t global[3],
                       const size_t local[3]) {
    return accepted(d, d->record->clCommandNDRangeKernelKHR(b, NULL, NULL, k, 3, NULL, global, local,
                                                            0, NULL, NULL, NULL));
}

cl_int xpu_driver_recorded(xpu_device *d, cl_command_buffer_khr b) {
    return accepted(d, d->record->clFinalizeCommandBufferKHR(b));
}

cl_int xpu_driver_replay(xpu_device *d, cl_command_buffer_khr b, uint64_t n_launch) {
    const cl_int e = accepted(d, d->record->clEnqueueCommandBufferKHR(0, NULL, b, 0, NULL, NULL));
    if (e == CL_SUCCESS) d->n_launch += n_launch;
    return e;
}

void xpu_driver_forget(xpu_device *d, cl_command_buffer_khr b) {
    d->record->clReleaseCommandBufferKHR(b);
}

/* --- waiting ------------------------------------------------------------------------ */

cl_int xpu_driver_finish(cl_command_queue q, cl_event last) {
    cl_int e = xpu_cl.clFinish(q), status = CL_COMPLETE;
    if (last == NULL) return e;
    if (e == CL_SUCCESS)
        e = xpu_cl.clGetEventInfo(last, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status,
                                  NULL);
    xpu_cl.clReleaseEvent(last);
    return e == CL_SUCCESS && status < 0 ? status : e;
}

/* --- events ------------------------------------------------------------------------- */

cl_int xpu_driver_seconds(cl_event event, double *out) {
    cl_ulong from = 0, to = 0;
    cl_int e = xpu_cl.clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof from, &from,
                                              NULL);
    if (e == CL_SUCCESS)
        e = xpu_cl.clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof to, &to, NULL);
    *out = to > from ? (double)(to - from) * 1e-9 : 0;
    return e;
}

void xpu_driver_event_free(cl_event event) { xpu_cl.clReleaseEvent(event); }
