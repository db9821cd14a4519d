/* utf8.h - one UTF-8 character: reading, measuring and writing it. */
#ifndef GDN_TEXT_UTF8_H
#define GDN_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character whose first byte is b, by table 3-7 of the Unicode standard;
 * 0 when no character starts with b. */
static inline int gdn_utf8_lead(unsigned char b) {
    if (b < 0x80) return 1;
    if (b < 0xc2) return 0;
    if (b < 0xe0) return 2;
    if (b < 0xf0) return 3;
    return b < 0xf5 ? 4 : 0;
}

/* Whether b may be the second byte after first: excludes overlong forms, surrogates and
 * everything above U+10FFFF. */
static inline int gdn_utf8_second(unsigned char first, unsigned char b) {
    switch (first) {
    case 0xe0: return b >= 0xa0 && b <= 0xbf;
    case 0xed: return b >= 0x80 && b <= 0x9f;
    case 0xf0: return b >= 0x90 && b <= 0xbf;
    case 0xf4: return b >= 0x80 && b <= 0x8f;
    default: return b >= 0x80 && b <= 0xbf;
    }
}

/* Read the character at s, of which n bytes are there.  Returns its length in bytes, or
 * 0 when the bytes are not a whole character. */
static inline int gdn_utf8_get(const char *s, size_t n, uint32_t *cp) {
    const unsigned char *u = (const unsigned char *)s;
    if (n == 0) return 0;
    const int len = gdn_utf8_lead(u[0]);
    if (len == 1) {
        *cp = u[0];
        return 1;
    }
    if (len == 0 || n < (size_t)len || !gdn_utf8_second(u[0], u[1])) return 0;
    uint32_t c = len == 2 ? u[0] & 31u : len == 3 ? u[0] & 15u : u[0] & 7u;
    c = c << 6 | (u[1] & 63u);
    for (int i = 2; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (u[i] & 63u);
    }
    *cp = c;
    return len;
}

/* Write c, a code point, to s, which has room for 4 bytes.  Returns the length. */
static inline int gdn_utf8_put(char *s, uint32_t c) {
    if (c < 0x80) {
        s[0] = (char)c;
        return 1;
    }
    int len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char mark[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = len - 1; i > 0; i--, c >>= 6) s[i] = (char)(0x80 | (c & 63));
    s[0] = (char)(mark[len] | c);
    return len;
}

/* Length of the longest start of s[0..n) that is valid UTF-8. */
static inline size_t gdn_utf8_valid(const char *s, size_t n) {
    size_t i = 0;
    uint32_t c;
    while (i < n) {
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        const int len = gdn_utf8_get(s + i, n - i, &c);
        if (len == 0) break;
        i += (size_t)len;
    }
    return i;
}

#endif
