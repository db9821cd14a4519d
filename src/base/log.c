/* log.c - one callback for the process, called under a lock. */
#include "log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static gdn_log_fn *sink;
static void *sink_arg;

void gdn_log_set(gdn_log_fn *fn, void *arg) {
    pthread_mutex_lock(&lock);
    sink = fn;
    sink_arg = arg;
    pthread_mutex_unlock(&lock);
}

void gdn_log(gdn_log_level level, const char *fmt, ...) {
    pthread_mutex_lock(&lock);
    if (sink != NULL) {
        char line[512];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(line, sizeof line, fmt, ap);
        va_end(ap);
        sink(level, line, sink_arg);
    }
    pthread_mutex_unlock(&lock);
}
