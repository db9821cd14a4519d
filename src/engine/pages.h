/* pages.h - the one pool of cache pages.
 *
 * Page ids are 0 .. n_page-1 and name a page in every storage tensor at once; page 0 is never
 * given out, so that 0 can stand for "none".  A page's bytes are whatever its last owner left:
 * states start without being read, and attention reads no key that was not stored. */
#ifndef GDN_ENGINE_PAGES_H
#define GDN_ENGINE_PAGES_H

#include <stdint.h>

typedef struct {
    int32_t *free; /* stack of free page ids */
    int32_t  n_free, n_page;
} gdn_pages;

int  gdn_pages_init(gdn_pages *p, int32_t n_page); /* 0 when there is no memory */
void gdn_pages_release(gdn_pages *p);

int32_t gdn_page_take(gdn_pages *p); /* 0 when all are in use */
void    gdn_page_give(gdn_pages *p, int32_t page);

#endif
