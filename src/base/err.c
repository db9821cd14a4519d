/* err.c - the words for status codes, and the one place an error text is made. */
#include "err.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

const char *gdn_status_text(gdn_status code) {
    switch (code) {
#define X(name, value, text) \
    case name:               \
        return text;
        GDN_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

gdn_status gdn_fail(gdn_err *err, gdn_status code, const char *fmt, ...) {
    if (err == NULL) return code;
    err->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    for (unsigned char *p = (unsigned char *)err->text; *p != '\0'; p++)
        if (*p < 0x20 || *p == 0x7f) *p = '?';
    return code;
}
