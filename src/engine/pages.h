/* pages.h - the one pool of cache pages: who holds each page, and how far it is filled.
 *
 * Page ids are 0 .. n_page-1 and name a page in every storage tensor at once; page 0 is never
 * given out, so that 0 can stand for "none".  A page's bytes are whatever its last owner left:
 * states start without being read, and attention reads no key that was not stored.
 *
 * A page of keys and values may be held by several sequences and snapshots.  Keys are only
 * appended, so holders of a partly filled page see the same bytes up to their own length.  The
 * first to append at the fill mark moves it and goes on in place; whoever comes later, at a
 * length below the mark, copies the page first (seq.c). */
#ifndef GDN_ENGINE_PAGES_H
#define GDN_ENGINE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { GDN_BY_SEQ, GDN_BY_SNAPSHOT } gdn_holder;

typedef struct {
    int32_t held[2]; /* by each kind of holder                     */
    int32_t filled;  /* tokens appended by anybody                 */
} gdn_page;

typedef struct {
    gdn_page *page;  /* [n_page]                                   */
    int32_t  *free;  /* stack of free page ids                     */
    int32_t   n_free, n_page;
    int32_t   n_snapshot; /* pages that only snapshots hold        */
} gdn_pages;

int  gdn_pages_init(gdn_pages *p, int32_t n_page); /* 0 when there is no memory */
void gdn_pages_release(gdn_pages *p);

/* A free page, held once by `by`; 0 when all are in use. */
int32_t gdn_page_take(gdn_pages *p, gdn_holder by);
void    gdn_page_hold(gdn_pages *p, int32_t page, gdn_holder by);
void    gdn_page_drop(gdn_pages *p, int32_t page, gdn_holder by);

#endif
