/* err.h - filling in the error record. */
#ifndef GDN_BASE_ERR_H
#define GDN_BASE_ERR_H

#include <gdn/status.h>

/* Record a failure and return its code, so that a caller can write
 * `return gdn_fail(err, GDN_E_FORMAT, "...")`.  err may be NULL.  Control
 * characters that came in from a file or a request are shown as '?'. */
gdn_status gdn_fail(gdn_err *err, gdn_status code, const char *fmt, ...) GDN_PRINTF(3, 4);

#endif
