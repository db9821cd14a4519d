/* pages.c - a stack of free pages, counts of holders, fill marks. */
#include "pages.h"

#include <assert.h>
#include <stdlib.h>

int gdn_pages_init(gdn_pages *p, int32_t n_page) {
    *p = (gdn_pages){0};
    p->free = malloc((size_t)n_page * sizeof *p->free);
    p->page = calloc((size_t)n_page, sizeof *p->page);
    if (p->free == NULL || p->page == NULL) {
        gdn_pages_release(p);
        return 0;
    }
    p->n_page = n_page;
    for (int32_t i = n_page - 1; i > 0; i--) p->free[p->n_free++] = i; /* low ids first */
    return 1;
}

void gdn_pages_release(gdn_pages *p) {
    free(p->free);
    free(p->page);
    *p = (gdn_pages){0};
}

static bool only_snapshots(const gdn_page *g) {
    return g->held[GDN_BY_SEQ] == 0 && g->held[GDN_BY_SNAPSHOT] > 0;
}

int32_t gdn_page_take(gdn_pages *p, gdn_holder by) {
    if (p->n_free == 0) return 0;
    const int32_t page = p->free[--p->n_free];
    p->page[page] = (gdn_page){0};
    gdn_page_hold(p, page, by);
    return page;
}

void gdn_page_hold(gdn_pages *p, int32_t page, gdn_holder by) {
    assert(page > 0 && page < p->n_page);
    gdn_page *g = p->page + page;
    p->n_snapshot -= only_snapshots(g);
    g->held[by]++;
    p->n_snapshot += only_snapshots(g);
}

void gdn_page_drop(gdn_pages *p, int32_t page, gdn_holder by) {
    assert(page > 0 && page < p->n_page && p->page[page].held[by] > 0);
    gdn_page *g = p->page + page;
    p->n_snapshot -= only_snapshots(g);
    g->held[by]--;
    p->n_snapshot += only_snapshots(g);
    if (g->held[GDN_BY_SEQ] == 0 && g->held[GDN_BY_SNAPSHOT] == 0) p->free[p->n_free++] = page;
}
