/* delta_chunk_parts.h - how the chunked forms want their tiles and parts compiled. */
#ifndef GDN_KERN_DELTA_CHUNK_PARTS_H
#define GDN_KERN_DELTA_CHUNK_PARTS_H

/* Tiles must lie in registers, so their loops must go.  Not under a sanitizer, whose tests make
 * an unrolled tile take minutes to compile. */
#if defined(__clang__)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNROLL
#else
#define UNROLL _Pragma("clang loop unroll(full)")
#endif
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The parts of a chunk are functions of their own: inlined, each tile would be there twice. */
#define PART static __attribute__((noinline))

#endif
