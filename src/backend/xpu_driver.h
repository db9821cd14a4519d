/* xpu_driver.h - what the xpu device asks of its driver: memory, queues, launches, and what went
 * wrong in words.  With the programs of xpu_program.c this is all that another driver's interface
 * would have to offer.
 *
 * Memory is a buffer object, or an address of unified shared memory where the device has that
 * (cl_intel_unified_shared_memory): no object to look up for each argument.  A device uses one of
 * the two for all, GDN_XPU_MEMORY=usm|buffer decides otherwise than the device; a cl_mem stands for
 * either, and only xpu_driver.c knows.
 *
 * Calls return OpenCL's codes.  Events may be NULL. */
#ifndef GDN_BACKEND_XPU_DRIVER_H
#define GDN_BACKEND_XPU_DRIVER_H

#include "xpu.h"

/* Context and upload queue of d->info; on failure what was made is left to xpu_driver_close(). */
gdn_status xpu_driver_open(xpu_device *d, gdn_err *err);
void       xpu_driver_close(xpu_device *d);

/* timed: events know when their commands ran. */
cl_int xpu_driver_queue(xpu_device *d, bool timed, cl_command_queue *out);
void   xpu_driver_queue_free(cl_command_queue q); /* nothing is left in it */

/* On an in-order queue of the device.  A blocking copy has been done when it returns; of another
 * the host's side must stay until then. */
cl_int xpu_driver_write(xpu_device *d, cl_command_queue q, cl_mem to, uint64_t at, const void *from,
                        uint64_t bytes, bool block, cl_event *event);
cl_int xpu_driver_read(xpu_device *d, cl_command_queue q, void *to, cl_mem from, uint64_t at,
                       uint64_t bytes, bool block, cl_event *event);
cl_int xpu_driver_copy(xpu_device *d, cl_command_queue q, cl_mem to, uint64_t to_at, cl_mem from,
                       uint64_t from_at, uint64_t bytes, cl_event *event);

cl_int xpu_driver_kernel(xpu_device *d, cl_program p, const char *name, cl_kernel *out);
void   xpu_driver_kernel_free(cl_kernel k);
cl_int xpu_driver_memory(xpu_device *d, cl_kernel k, cl_uint i, cl_mem m); /* argument i */
cl_int xpu_driver_value(xpu_device *d, cl_kernel k, cl_uint i, size_t bytes, const void *v);
cl_int xpu_driver_launch(xpu_device *d, cl_command_queue q, cl_kernel k, const size_t global[3],
                         const size_t local[3], cl_event *event);

/* Launches noted and made again (cl_khr_command_buffer), where d->record is not NULL.  What is noted
 * keeps the kernel and its arguments as they are then: nobody else may set them. */
cl_int xpu_driver_record(xpu_device *d, cl_command_queue q, cl_command_buffer_khr *out);
cl_int xpu_driver_note(xpu_device *d, cl_command_buffer_khr b, cl_kernel k, const size_t global[3],
                       const size_t local[3]);
cl_int xpu_driver_recorded(xpu_device *d, cl_command_buffer_khr b);
/* Not again before it has been waited for. */
cl_int xpu_driver_replay(xpu_device *d, cl_command_buffer_khr b, uint64_t n_launch);
void   xpu_driver_forget(xpu_device *d, cl_command_buffer_khr b);

/* Until all is done.  last: the last command's event or NULL, which is let go; how it ended is part
 * of the result. */
cl_int xpu_driver_finish(cl_command_queue q, cl_event last);

/* How long the command of an event of a timed queue ran; it has ended. */
cl_int xpu_driver_seconds(cl_event event, double *out);
void   xpu_driver_event_free(cl_event event);

/* "device xpu:0 (NAME): WHAT: CODE; what to do; the cpu runs without it", in one place.
 * GDN_E_NOMEM where memory ran out, else GDN_E_DEVICE. */
gdn_status xpu_failed(const xpu_device *d, cl_int code, gdn_err *err, const char *what, ...)
    GDN_PRINTF(4, 5);

#endif
