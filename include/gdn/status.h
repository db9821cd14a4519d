/* status.h - status codes and the error record of the whole library.
 *
 * Every function that can fail returns gdn_status: GDN_OK is 0, failures are
 * negative.  Functions that open, load or parse also take a gdn_err, because
 * there the user needs to know which file, which tensor, which value. */
#ifndef GDN_STATUS_H
#define GDN_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GDN_API __attribute__((visibility("default")))
#define GDN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define GDN_API
#define GDN_PRINTF(fmt, args)
#endif

/* X(name, value, text): the one list from which enum and strings are made. */
#define GDN_STATUS_LIST(X)                                 \
    X(GDN_OK,             0, "ok")                         \
    X(GDN_E_INVALID,     -1, "invalid argument")           \
    X(GDN_E_NOMEM,       -2, "out of memory")              \
    X(GDN_E_IO,          -3, "input/output error")         \
    X(GDN_E_FORMAT,      -4, "malformed file")             \
    X(GDN_E_UNSUPPORTED, -5, "not supported")              \
    X(GDN_E_DEVICE,      -6, "device error")               \
    X(GDN_E_FULL,        -7, "context is full")            \
    X(GDN_E_CANCELLED,   -8, "cancelled")

typedef enum {
#define X(name, value, text) name = value,
    GDN_STATUS_LIST(X)
#undef X
} gdn_status;

typedef struct {
    gdn_status code;
    char       text[496]; /* one line, always NUL-terminated; empty on GDN_OK */
} gdn_err;

/* The words for a code; never NULL. */
GDN_API const char *gdn_status_text(gdn_status code);

#ifdef __cplusplus
}
#endif
#endif
