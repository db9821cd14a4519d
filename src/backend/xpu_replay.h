/* xpu_replay.h - passes whose launches are made again as one. */
#ifndef GDN_BACKEND_XPU_REPLAY_H
#define GDN_BACKEND_XPU_REPLAY_H

#include "xpu.h"

gdn_status xpu_passes_create(xpu_queue *q, gdn_err *err);
void       xpu_passes_free(xpu_queue *q);
void       xpu_passes_forget(xpu_queue *q); /* all that was noted; nothing of it runs */

bool xpu_pass_begin(gdn_queue *q, const gdn_pass *p);
void xpu_pass_end(gdn_queue *q, bool ok);

#endif
