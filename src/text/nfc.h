/* nfc.h - normalisation form C of UTF-8 text. */
#ifndef GDN_TEXT_NFC_H
#define GDN_TEXT_NFC_H

#include <gdn/status.h>
#include <stddef.h>

/* Normalise s[0..n), valid UTF-8.  *out is NULL when s is normalised already, which costs
 * no more than reading it; otherwise a malloc'ed string of *n_out bytes.  Only the
 * stretches that need it are rewritten.  Time n log n at worst.  GDN_E_NOMEM. */
gdn_status gdn_nfc(const char *s, size_t n, char **out, size_t *n_out);

#endif
