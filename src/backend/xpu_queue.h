/* xpu_queue.h - the queue calls of the xpu backend. */
#ifndef GDN_BACKEND_XPU_QUEUE_H
#define GDN_BACKEND_XPU_QUEUE_H

#include "xpu.h"

gdn_status xpu_queue_create(gdn_device *d, gdn_queue **out, gdn_err *err);
void       xpu_queue_free(gdn_queue *q);
gdn_status xpu_queue_wait(gdn_queue *q, gdn_err *err);
gdn_status xpu_queue_write(gdn_queue *q, gdn_buffer *to, uint64_t at, const void *from,
                           uint64_t bytes, gdn_err *err);
gdn_status xpu_queue_read(gdn_queue *q, void *to, gdn_buffer *from, uint64_t at, uint64_t bytes,
                          gdn_err *err);
gdn_status xpu_queue_copy(gdn_queue *q, gdn_buffer *to, uint64_t to_at, gdn_buffer *from,
                          uint64_t from_at, uint64_t bytes, gdn_err *err);

#endif
