/* log.h - where the library's log lines go: to your callback, or nowhere. */
#ifndef GDN_LOG_H
#define GDN_LOG_H

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { GDN_LOG_DEBUG, GDN_LOG_INFO, GDN_LOG_WARN } gdn_log_level;

/* Receives one line without newline, `subject key=value ...`.  May be called from any
 * thread, one line at a time. */
typedef void gdn_log_fn(gdn_log_level level, const char *line, void *arg);

/* Process-wide.  NULL, which is also the start state, drops everything. */
GDN_API void gdn_log_set(gdn_log_fn *fn, void *arg);

#ifdef __cplusplus
}
#endif
#endif
