/* stub.h - what a test may ask the stub of OpenCL, besides OpenCL (stub.c). */
#ifndef GDN_TESTS_OPENCL_STUB_H
#define GDN_TESTS_OPENCL_STUB_H

#include <stdbool.h>
#include <stddef.h>

/* From now on the n-th call (from 1) of a function fails with a code, and from it on all of them
 * when `lost`; name NULL: none. */
typedef void stub_fail_fn(const char *name, int code, long n, bool lost);
/* Whether it has come to that. */
typedef bool stub_fired_fn(void);
/* Objects that were made and not released. */
typedef long stub_live_fn(void);
/* Where the last copy to the device came from. */
typedef const void *stub_source_fn(void);

#endif
