/* stream.h - copying past the caches.
 *
 * What nobody reads soon need not take the place of what is in use, nor be read before it is
 * written.  Worth it for more than the caches hold. */
#ifndef GDN_BASE_STREAM_H
#define GDN_BASE_STREAM_H

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Others see the bytes after gdn_stream_done() only. */
static inline void gdn_stream_copy(void *to, const void *from, int64_t bytes) {
#if defined(__SSE2__)
    if ((uintptr_t)to % 16 == 0 && bytes % 16 == 0) {
        __m128i *t = to;
        const __m128i *f = from;
        for (int64_t i = 0; i < bytes / 16; i++) _mm_stream_si128(t + i, _mm_loadu_si128(f + i));
        return;
    }
#endif
    memcpy(to, from, (size_t)bytes);
}

static inline void gdn_stream_done(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

#endif
