/* patched.h - a golden model with a few of its numbers changed, in a folder of its own. */
#ifndef GDN_TESTS_PATCHED_H
#define GDN_TESTS_PATCHED_H

#include "cases.h"

enum { BF16_NAN = 0x7fc0, BF16_INF = 0x7f80, BF16_MINUS_ONE = 0xbf80 };

typedef struct {
    char dir[64];
} patched;

/* The model of MODELS/name with values first .. first + n - 1 of a bf16 tensor being `bits`. */
patched patched_create(const char *name, const char *tensor, int64_t first, int64_t n,
                       uint16_t bits);
void    patched_remove(patched *p);

#endif
