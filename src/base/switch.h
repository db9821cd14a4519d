/* switch.h - environment variables that change how the library runs, never what it computes on
 * one machine's kernels.  They are for tests and experiments; options are in the headers. */
#ifndef GDN_BASE_SWITCH_H
#define GDN_BASE_SWITCH_H

/* X(NAME, what it does): the one list. */
#define GDN_SWITCH_LIST(X)                                                                 \
    X(ISA, "best instruction set the cpu device may use: ref, avx2, avx512, avx512bf16 or amx") \
    X(BF16, "always: fast mathematics rounds small models too")                            \
    X(XPU_MEMORY, "usm or buffer: what the xpu device's memory is made of")               \
    X(XPU_REPLAY, "off: the xpu device launches every kernel of every step by itself")    \
    X(XPU_TIER, "kernels of the xpu device: p, x, emulated or emulated8 (backend/xpu_x.h)")

typedef enum {
#define X(name, text) GDN_SWITCH_##name,
    GDN_SWITCH_LIST(X)
#undef X
} gdn_switch;

/* The value of GDN_<NAME>, or NULL when it is not set. */
const char *gdn_switch_get(gdn_switch s);

#endif
