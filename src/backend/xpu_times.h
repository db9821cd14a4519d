/* xpu_times.h - how long a queue's kernels take, by the device's own clock. */
#ifndef GDN_BACKEND_XPU_TIMES_H
#define GDN_BACKEND_XPU_TIMES_H

#include "xpu.h"

gdn_status xpu_queue_profile(gdn_queue *q, bool on, gdn_err *err);
gdn_status xpu_queue_times(gdn_queue *q, gdn_kernel_time *out, int32_t room, int32_t *n,
                           gdn_err *err);

/* Where the next launch's event goes, and that it was made; NULL where nothing is timed. */
cl_event  *xpu_times_event(xpu_queue *q, const char *file, const char *name);
void       xpu_times_launched(xpu_queue *q);
/* All that was launched has run: times are read and events let go. */
gdn_status xpu_times_read(xpu_queue *q, gdn_err *err);
void       xpu_times_free(xpu_queue *q);

#endif
