/* log.h - making a log line. */
#ifndef GDN_BASE_LOG_H
#define GDN_BASE_LOG_H

#include <gdn/log.h>

void gdn_log(gdn_log_level level, const char *fmt, ...) GDN_PRINTF(2, 3);

#endif
