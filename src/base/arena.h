/* arena.h - memory that is given back all at once.
 *
 * Blocks grow as needed; a block of 2 MiB or more asks for huge pages.  Under
 * AddressSanitizer every piece has a poisoned red zone behind it. */
#ifndef GDN_BASE_ARENA_H
#define GDN_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct gdn_arena gdn_arena;

gdn_arena *gdn_arena_create(void); /* NULL: out of memory */
void       gdn_arena_free(gdn_arena *a);

/* bytes, 64-byte aligned, zeroed; NULL when there is no memory. */
void *gdn_arena_alloc(gdn_arena *a, uint64_t bytes);

/* Give all pieces back but keep the memory for the next round. */
void gdn_arena_reset(gdn_arena *a);

uint64_t gdn_arena_bytes(const gdn_arena *a); /* taken from the system */

/* Large anonymous memory outside an arena, zeroed, aligned to 2 MiB, huge pages asked for. */
void *gdn_big_alloc(uint64_t bytes);
void  gdn_big_free(void *p, uint64_t bytes);

#endif
