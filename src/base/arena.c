/* arena.c - bump allocation in a chain of mapped blocks.
 *
 *     block ─► block ─► block      each: [header | piece | gap | piece | gap | ... free]
 *                ▲ current         a gap is 0 bytes, or 64 poisoned ones under ASan
 *
 * Fresh pages of the system are zero, so only what an earlier round may have written
 * (below `dirty`) is cleared again. */
#include "arena.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
enum { GAP = 64 };
#define POISON(p, n)   __asan_poison_memory_region(p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
/* The leak checker follows pointers in heap memory; mapped memory has to be announced. */
#define ANNOUNCE(p, n) __lsan_register_root_region(p, n)
#define WITHDRAW(p, n) __lsan_unregister_root_region(p, n)
#else
enum { GAP = 0 };
#define POISON(p, n)   ((void)0)
#define UNPOISON(p, n) ((void)0)
#define ANNOUNCE(p, n) ((void)0)
#define WITHDRAW(p, n) ((void)0)
#endif

#define HUGE_PAGE  ((uint64_t)2 << 20)
#define SMALL_STEP ((uint64_t)64 << 10) /* a multiple of every page size in use */
#define FIRST      ((uint64_t)64 << 10)
#define LARGEST    ((uint64_t)64 << 20) /* blocks double up to here, longer pieces aside */
#define ALIGN      ((uint64_t)64)

typedef struct block {
    struct block *next;
    uint64_t bytes; /* header included */
    uint64_t used;  /* header included */
    uint64_t dirty; /* highest `used` so far */
} block;

enum { HEADER = 64 };
_Static_assert(sizeof(block) <= HEADER, "the first piece starts at HEADER");

struct gdn_arena {
    block *first, *current;
    uint64_t bytes;
};

static uint64_t round_up(uint64_t n, uint64_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* n is a multiple of `align`.  The system aligns to a page only: take more, give both
 * ends back. */
static void *map_aligned(uint64_t n, uint64_t align) {
    if (n > SIZE_MAX - align) return NULL;
    char *p = mmap(NULL, (size_t)(n + align), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    const uint64_t before = (align - (uintptr_t)p % align) % align;
    if (before > 0) munmap(p, (size_t)before);
    munmap(p + before + n, (size_t)(align - before));
    p += before;
#ifdef MADV_HUGEPAGE
    if (n >= HUGE_PAGE) madvise(p, (size_t)n, MADV_HUGEPAGE);
#endif
    ANNOUNCE(p, (size_t)n);
    return p;
}

static void unmap(void *p, uint64_t n) {
    UNPOISON(p, (size_t)n);
    WITHDRAW(p, (size_t)n);
    munmap(p, (size_t)n);
}

void *gdn_big_alloc(uint64_t bytes) {
    if (bytes > UINT64_MAX - HUGE_PAGE) return NULL;
    const uint64_t n = round_up(bytes > 0 ? bytes : 1, HUGE_PAGE);
    char *p = map_aligned(n, HUGE_PAGE);
    if (p != NULL) POISON(p + bytes, (size_t)(n - bytes));
    return p;
}

void gdn_big_free(void *p, uint64_t bytes) {
    if (p != NULL) unmap(p, round_up(bytes > 0 ? bytes : 1, HUGE_PAGE));
}

static block *block_create(uint64_t bytes) {
    block *b = map_aligned(bytes, bytes >= HUGE_PAGE ? HUGE_PAGE : SMALL_STEP);
    if (b == NULL) return NULL;
    b->bytes = bytes;
    b->used = b->dirty = HEADER;
    POISON((char *)b + HEADER, (size_t)(bytes - HEADER));
    return b;
}

/* The arena's own record is the first piece of its first block. */
gdn_arena *gdn_arena_create(void) {
    block *b = block_create(FIRST);
    if (b == NULL) return NULL;
    gdn_arena *a = (gdn_arena *)((char *)b + HEADER);
    UNPOISON(a, sizeof *a);
    b->used = b->dirty = HEADER + round_up(sizeof *a, ALIGN);
    a->first = a->current = b;
    a->bytes = FIRST;
    return a;
}

void gdn_arena_free(gdn_arena *a) {
    if (a == NULL) return;
    for (block *b = a->first, *next; b != NULL; b = next) {
        next = b->next;
        unmap(b, b->bytes);
    }
}

/* A block behind the current one with `need` free bytes: an old one if it is large
 * enough, else a new one put in between. */
static block *next_block(gdn_arena *a, uint64_t need) {
    block *next = a->current->next;
    if (next != NULL && next->bytes - HEADER >= need) return next;
    uint64_t bytes = a->current->bytes < LARGEST ? 2 * a->current->bytes : LARGEST;
    if (bytes < need + HEADER) bytes = need + HEADER;
    bytes = round_up(bytes, bytes >= HUGE_PAGE ? HUGE_PAGE : SMALL_STEP);
    block *b = block_create(bytes);
    if (b == NULL) return NULL;
    b->next = next;
    a->current->next = b;
    a->bytes += bytes;
    return b;
}

void *gdn_arena_alloc(gdn_arena *a, uint64_t bytes) {
    if (bytes > UINT64_MAX / 2) return NULL;
    const uint64_t need = round_up(bytes > 0 ? bytes : 1, ALIGN) + GAP;
    block *b = a->current;
    if (b->bytes - b->used < need) {
        b = next_block(a, need);
        if (b == NULL) return NULL;
        a->current = b;
    }
    char *p = (char *)b + b->used;
    UNPOISON(p, (size_t)bytes);
    if (b->dirty > b->used) {
        const uint64_t old = b->dirty - b->used;
        memset(p, 0, (size_t)(old < bytes ? old : bytes));
    }
    b->used += need;
    if (b->used > b->dirty) b->dirty = b->used;
    return p;
}

void gdn_arena_reset(gdn_arena *a) {
    for (block *b = a->first; b != NULL; b = b->next) {
        b->used = HEADER;
        if (b == a->first) b->used += round_up(sizeof *a, ALIGN);
        POISON((char *)b + b->used, (size_t)(b->bytes - b->used));
    }
    a->current = a->first;
}

uint64_t gdn_arena_bytes(const gdn_arena *a) {
    return a->bytes;
}
