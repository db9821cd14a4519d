/* jsonread.c - reading JSON straight from its text. */
#include "jsonread.h"

#include "utf8.h"

#include <string.h>

static bool wrong(gdn_scan *j, const char *why) {
    if (j->why == NULL) j->why = why;
    return false;
}

static void skip_space(gdn_scan *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t'))
        j->at++;
}

bool gdn_scan_take(gdn_scan *j, char c) {
    skip_space(j);
    if (j->why != NULL || j->at == j->end || *j->at != c) return false;
    j->at++;
    return true;
}

bool gdn_scan_need(gdn_scan *j, char c) {
    if (gdn_scan_take(j, c)) return true;
    switch (c) {
    case '{': return wrong(j, "expected an object");
    case '[': return wrong(j, "expected an array");
    case ']': return wrong(j, "expected ]");
    case ',': return wrong(j, "expected ,");
    case ':': return wrong(j, "expected :");
    default: return wrong(j, "expected a string");
    }
}

/* Four hexadecimal digits at j->at, or -1. */
static int32_t hex4(gdn_scan *j) {
    int32_t v = 0;
    if (j->end - j->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char c = *j->at++;
        if (c >= '0' && c <= '9') v = v * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f') v = v * 16 + (c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') v = v * 16 + (c - 'A' + 10);
        else return -1;
    }
    return v;
}

/* The code point of \uXXXX or of a pair of them, with j->at after the u; 0 if bad. */
static uint32_t unicode_escape(gdn_scan *j) {
    const int32_t a = hex4(j);
    if (a <= 0 || (a >= 0xdc00 && a < 0xe000)) return 0;
    if (a < 0xd800 || a >= 0xe000) return (uint32_t)a;
    if (j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u') return 0;
    j->at += 2;
    const int32_t b = hex4(j);
    if (b < 0xdc00 || b >= 0xe000) return 0;
    return 0x10000 + ((uint32_t)(a - 0xd800) << 10) + (uint32_t)(b - 0xdc00);
}

/* Decode one escape to *to, with j->at after the backslash.  It never grows. */
static bool escape(gdn_scan *j, char **to) {
    if (j->at == j->end) return wrong(j, "a string without end");
    const char         c = *j->at++;
    static const char  from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    const char        *p = memchr(from, c, sizeof from - 1);
    if (p != NULL) {
        *(*to)++ = into[p - from];
        return true;
    }
    if (c != 'u') return wrong(j, "an unknown escape in a string");
    const uint32_t cp = unicode_escape(j);
    if (cp == 0) return wrong(j, "a bad \\u escape in a string");
    *to += gdn_utf8_put(*to, cp);
    return true;
}

bool gdn_scan_string(gdn_scan *j, gdn_text *out) {
    if (!gdn_scan_need(j, '"')) return false;
    char *const from = j->at;
    char       *to = from;
    bool        ascii = true;
    while (j->at < j->end && *j->at != '"') {
        const unsigned char c = (unsigned char)*j->at;
        if (c < 0x20) return wrong(j, "a control character in a string");
        if (c >= 0x80) ascii = false;
        if (c == '\\') {
            j->at++;
            if (!escape(j, &to)) return false;
        } else {
            *to++ = *j->at++;
        }
    }
    if (j->at == j->end) return wrong(j, "a string without end");
    j->at++;
    *out = (gdn_text){from, (size_t)(to - from)};
    if (!ascii && gdn_utf8_valid(out->s, out->n) != out->n)
        return wrong(j, "a string that is not UTF-8");
    return true;
}

bool gdn_scan_uint(gdn_scan *j, int64_t *out) {
    skip_space(j);
    char *from = j->at;
    *out = 0;
    while (j->at < j->end && *j->at >= '0' && *j->at <= '9' && *out < (int64_t)1 << 49)
        *out = *out * 10 + (*j->at++ - '0');
    const bool more = j->at < j->end && strchr("0123456789.eE-+", *j->at) != NULL && *j->at != '\0';
    if (j->at == from || more || (*from == '0' && j->at - from > 1)) {
        j->at = from;
        return wrong(j, "expected a whole number");
    }
    return true;
}

/* A string from its " on, to be stepped over only. */
static bool skip_string(gdn_scan *j) {
    for (j->at++; j->at < j->end && *j->at != '"'; j->at++)
        if (*j->at == '\\' && ++j->at == j->end) break;
    if (j->at == j->end) return wrong(j, "a string without end");
    j->at++;
    return true;
}

bool gdn_scan_skip(gdn_scan *j, gdn_text *out) {
    skip_space(j);
    char  *from = j->at;
    size_t depth = 0;
    while (j->at < j->end && j->why == NULL) {
        const char c = *j->at;
        if (c == '"') {
            if (!skip_string(j)) return false;
        } else if (c == '[' || c == '{') {
            depth++;
            j->at++;
        } else if (c == ']' || c == '}') {
            if (depth == 0) break;
            depth--;
            j->at++;
        } else if (depth == 0 && (c == ',' || c == ':')) {
            break;
        } else {
            j->at++;
            continue;
        }
        if (depth == 0) break;
    }
    if (depth > 0 || j->at == from) return wrong(j, "expected a value");
    *out = (gdn_text){from, (size_t)(j->at - from)};
    return true;
}

bool gdn_scan_key(gdn_scan *j, bool *first, gdn_text *out) {
    if (gdn_scan_take(j, '}') || j->why != NULL) return false;
    if (!*first && !gdn_scan_need(j, ',')) return false;
    *first = false;
    return gdn_scan_string(j, out) && gdn_scan_need(j, ':');
}

bool gdn_scan_item(gdn_scan *j, bool *first) {
    if (gdn_scan_take(j, ']') || j->why != NULL) return false;
    if (!*first && !gdn_scan_need(j, ',')) return false;
    *first = false;
    return true;
}
