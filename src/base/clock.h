/* clock.h - monotonic time. */
#ifndef GDN_BASE_CLOCK_H
#define GDN_BASE_CLOCK_H

#include <time.h>

/* Microseconds since some fixed moment. */
static inline double gdn_now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

#endif
