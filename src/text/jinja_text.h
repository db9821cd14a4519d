/* jinja_text.h - characters of UTF-8 strings as Python sees them: counting, white space,
 * letters and case.  Strings are valid UTF-8; template and JSON are checked on entry. */
#ifndef GDN_TEXT_JINJA_TEXT_H
#define GDN_TEXT_JINJA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at p, at most n; at least 1. */
static inline size_t jt_step(const char *p, size_t n) {
    const unsigned char c = (unsigned char)*p;
    const size_t        k = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return k < n ? k : n;
}

size_t   jt_encode(uint32_t c, char buf[4]);
uint32_t jt_decode(const char *p, size_t n, size_t *used); /* one character */
bool     jt_valid(const char *p, size_t n);
size_t   jt_count(const char *p, size_t n);                /* characters */
size_t   jt_offset(const char *p, size_t n, size_t chars); /* byte where that character starts */

bool jt_space(uint32_t c);
bool jt_line_end(uint32_t c); /* of str.splitlines() */
bool jt_alpha(uint32_t c);
bool jt_digit(uint32_t c);    /* str.isdigit() of one character */
bool jt_decimal(uint32_t c);
bool jt_numeric(uint32_t c);
bool jt_upper(uint32_t c);
bool jt_lower(uint32_t c);
bool jt_printable(uint32_t c);
bool jt_name_start(uint32_t c);
bool jt_name_part(uint32_t c);

/* Length without white space at the end; bytes of white space at the start. */
size_t jt_rstrip(const char *p, size_t n);
size_t jt_lspace(const char *p, size_t n);

/* The up to three characters that c becomes. */
typedef enum { JT_UPPER, JT_LOWER, JT_TITLE } jt_case;
int jt_map(uint32_t c, jt_case how, uint32_t out[3]);

#endif
