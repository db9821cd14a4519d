/* nfc.c - normalisation form C: a quick check, and utf8proc where that is not enough.
 *
 * A character is plain when it has combining class 0, is its own normal form, and never
 * joins with what stands before it.  A plain character is a boundary: nothing before it
 * changes what follows.  So text of plain characters is normal as it stands, and
 * otherwise only the stretches
 *
 *     [one plain character] [characters that are not plain]...
 *
 * are normalised, each by itself.  utf8proc sorts combining marks by exchanging
 * neighbours, quadratic in the length of a run, so the sorting is done here. */
#include "nfc.h"

#include "utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Characters of class 0 from U+0300 on that are not their own normal form, or can be the
 * second half of a composition: NFC_QC = No or Maybe in UAX 15, up to Unicode 16.  Ranges
 * are joined where at most one other character lies between; treating that one as not
 * plain costs time only. */
static const uint32_t unplain[][2] = {
    {0x374, 0x374}, {0x37e, 0x37e}, {0x387, 0x387}, {0x958, 0x95f}, {0x9be, 0x9be},
    {0x9d7, 0x9d7}, {0x9dc, 0x9df}, {0xa33, 0xa33}, {0xa36, 0xa36}, {0xa59, 0xa5b},
    {0xa5e, 0xa5e}, {0xb3e, 0xb3e}, {0xb56, 0xb57}, {0xb5c, 0xb5d}, {0xbbe, 0xbbe},
    {0xbd7, 0xbd7}, {0xcc2, 0xcc2}, {0xcd5, 0xcd6}, {0xd3e, 0xd3e}, {0xd57, 0xd57},
    {0xdcf, 0xdcf}, {0xddf, 0xddf}, {0xf43, 0xf43}, {0xf4d, 0xf4d}, {0xf52, 0xf52},
    {0xf57, 0xf57}, {0xf5c, 0xf5c}, {0xf69, 0xf69}, {0xf73, 0xf78}, {0xf81, 0xf81},
    {0xf93, 0xf93}, {0xf9d, 0xf9d}, {0xfa2, 0xfa2}, {0xfa7, 0xfa7}, {0xfac, 0xfac},
    {0xfb9, 0xfb9}, {0x102e, 0x102e}, {0x1161, 0x1175}, {0x11a8, 0x11c2},
    {0x1b35, 0x1b35}, {0x1f71, 0x1f7d}, {0x1fbb, 0x1fbb}, {0x1fbe, 0x1fbe},
    {0x1fc9, 0x1fcb}, {0x1fd3, 0x1fd3}, {0x1fdb, 0x1fdb}, {0x1fe3, 0x1fe3},
    {0x1feb, 0x1feb}, {0x1fee, 0x1fef}, {0x1ff9, 0x1ffd}, {0x2000, 0x2001},
    {0x2126, 0x2126}, {0x212a, 0x212b}, {0x2329, 0x232a}, {0x2adc, 0x2adc},
    {0xf900, 0xfa0d}, {0xfa10, 0xfa12}, {0xfa15, 0xfa22}, {0xfa25, 0xfa26},
    {0xfa2a, 0xfa6d}, {0xfa70, 0xfad9}, {0xfb1d, 0xfb1f}, {0xfb2a, 0xfb4e},
    {0x11127, 0x11127}, {0x1133e, 0x1133e}, {0x11357, 0x11357}, {0x113b8, 0x113b8},
    {0x113bb, 0x113bb}, {0x113c2, 0x113c2}, {0x113c5, 0x113c9}, {0x114b0, 0x114b0},
    {0x114ba, 0x114ba}, {0x114bd, 0x114bd}, {0x115af, 0x115af}, {0x11930, 0x11930},
    {0x1611e, 0x16129}, {0x16d63, 0x16d6a}, {0x1d15e, 0x1d164}, {0x1d1bb, 0x1d1c0},
    {0x2f800, 0x2fa1d},
};

static bool is_plain(uint32_t c) {
    if (c < 0x300) return true;
    if (utf8proc_get_property((utf8proc_int32_t)c)->combining_class != 0) return false;
    size_t lo = 0, hi = sizeof unplain / sizeof *unplain;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (unplain[mid][1] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo == sizeof unplain / sizeof *unplain || c < unplain[lo][0];
}

/* The first character of s[from..n) that is not plain, or n.  *before is set to the start
 * of the plain character just ahead of it, or to its own place if there is none. */
static size_t find_unplain(const char *s, size_t n, size_t from, size_t *before) {
    const unsigned char *u = (const unsigned char *)s;
    size_t               last = from, i = from;
    while (i < n) {
        /* Below U+0300, and U+4000 to U+9FFF: all plain. */
        size_t len = u[i] < 0x80 ? 1 : u[i] < 0xcc ? 2 : u[i] >= 0xe4 && u[i] <= 0xe9 ? 3 : 0;
        if (len == 0) {
            uint32_t c = 0;
            len = (size_t)gdn_utf8_get(s + i, n - i, &c);
            if (!is_plain(c)) break;
        }
        last = i;
        i += len;
    }
    *before = last;
    return i;
}

static size_t skip_unplain(const char *s, size_t n, size_t i) {
    uint32_t c = 0;
    while (i < n) {
        const int len = gdn_utf8_get(s + i, n - i, &c);
        if (is_plain(c)) break;
        i += (size_t)len;
    }
    return i;
}

static uint8_t class_of(int32_t c) {
    return (uint8_t)utf8proc_get_property(c)->combining_class;
}

/* Sort a run of marks by class, keeping the order within a class; tmp has room for n. */
static void sort_marks(int32_t *c, int32_t *tmp, size_t n) {
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++) start[class_of(c[i]) + 1]++;
    for (int k = 0; k < 256; k++) start[k + 1] += start[k];
    for (size_t i = 0; i < n; i++) tmp[start[class_of(c[i])]++] = c[i];
    memcpy(c, tmp, n * sizeof *c);
}

/* Short runs, nearly all there are, by insertion: the table of classes costs more. */
static void order_marks(int32_t *c, int32_t *tmp, size_t n) {
    for (size_t i = 0, end; i < n; i = end) {
        end = i + 1;
        if (class_of(c[i]) == 0) continue;
        while (end < n && class_of(c[end]) != 0) end++;
        if (end - i > 16) {
            sort_marks(c + i, tmp, end - i);
            continue;
        }
        for (size_t j = i + 1; j < end; j++) {
            const int32_t x = c[j];
            size_t        k = j;
            for (; k > i && class_of(c[k - 1]) > class_of(x); k--) c[k] = c[k - 1];
            c[k] = x;
        }
    }
}

enum { MOST_PARTS = 4 }; /* no canonical decomposition is longer */

typedef struct {
    char    *out;
    size_t   n, cap;
    int32_t *work; /* code points of one stretch, then room to sort them in */
    size_t   cap_work;
} nfc_run;

static gdn_status reserve(nfc_run *r, size_t more) {
    if (more <= r->cap - r->n) return GDN_OK;
    const size_t cap = r->cap + r->cap / 2 + more;
    char        *p = realloc(r->out, cap);
    if (p == NULL) return GDN_E_NOMEM;
    r->out = p;
    r->cap = cap;
    return GDN_OK;
}

static gdn_status reserve_work(nfc_run *r, size_t need) {
    if (need <= r->cap_work) return GDN_OK;
    free(r->work);
    r->cap_work = 0;
    r->work = malloc((need + 64) * sizeof *r->work);
    if (r->work == NULL) return GDN_E_NOMEM;
    r->cap_work = need + 64;
    return GDN_OK;
}

static gdn_status append(nfc_run *r, const char *s, size_t n) {
    if (n == 0) return GDN_OK;
    const gdn_status st = reserve(r, n);
    if (st != GDN_OK) return st;
    memcpy(r->out + r->n, s, n);
    r->n += n;
    return GDN_OK;
}

/* Append the normal form of one stretch. */
static gdn_status append_normal(nfc_run *r, const char *s, size_t n) {
    gdn_status st = reserve_work(r, 2 * MOST_PARTS * n);
    if (st != GDN_OK) return st;
    size_t   n_cp = 0;
    uint32_t c = 0;
    for (size_t i = 0; i < n;) {
        i += (size_t)gdn_utf8_get(s + i, n - i, &c);
        int                    bound = 0;
        const utf8proc_ssize_t k =
            utf8proc_decompose_char((int32_t)c, r->work + n_cp, MOST_PARTS,
                                    UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &bound);
        if (k > 0 && k <= MOST_PARTS) n_cp += (size_t)k;
        else r->work[n_cp++] = (int32_t)c;
    }
    order_marks(r->work, r->work + n_cp, n_cp);
    const utf8proc_ssize_t k = utf8proc_normalize_utf32(r->work, (utf8proc_ssize_t)n_cp,
                                                        UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (k >= 0) n_cp = (size_t)k;
    st = reserve(r, 4 * n_cp);
    if (st != GDN_OK) return st;
    for (size_t i = 0; i < n_cp; i++)
        r->n += (size_t)gdn_utf8_put(r->out + r->n, (uint32_t)r->work[i]);
    return GDN_OK;
}

gdn_status gdn_nfc(const char *s, size_t n, char **out, size_t *n_out) {
    nfc_run    r = {0};
    gdn_status st = GDN_OK;
    size_t     done = 0, from = 0, before = 0;
    *out = NULL;
    while ((from = find_unplain(s, n, from, &before)) < n && st == GDN_OK) {
        const size_t end = skip_unplain(s, n, from);
        st = append(&r, s + done, before - done);
        if (st == GDN_OK) st = append_normal(&r, s + before, end - before);
        done = from = end;
    }
    if (st == GDN_OK && done > 0) st = append(&r, s + done, n - done);
    free(r.work);
    /* Most marks stand as they should, and then there is nothing to give back. */
    if (st != GDN_OK || done == 0 || (r.n == n && memcmp(r.out, s, n) == 0)) {
        free(r.out);
        return st;
    }
    *out = r.out;
    *n_out = r.n;
    return GDN_OK;
}
