/* pages.c - a stack of free pages. */
#include "pages.h"

#include <assert.h>
#include <stdlib.h>

int gdn_pages_init(gdn_pages *p, int32_t n_page) {
    p->free = malloc((size_t)n_page * sizeof *p->free);
    if (p->free == NULL) return 0;
    p->n_page = n_page;
    p->n_free = 0;
    for (int32_t i = n_page - 1; i > 0; i--) p->free[p->n_free++] = i; /* low ids first */
    return 1;
}

void gdn_pages_release(gdn_pages *p) {
    free(p->free);
    *p = (gdn_pages){0};
}

int32_t gdn_page_take(gdn_pages *p) { return p->n_free > 0 ? p->free[--p->n_free] : 0; }

void gdn_page_give(gdn_pages *p, int32_t page) {
    assert(page > 0 && page < p->n_page && p->n_free < p->n_page - 1);
    p->free[p->n_free++] = page;
}
