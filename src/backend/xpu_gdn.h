/* xpu_gdn.h - how the kernels of gdn_xpu.cl are cut into work-groups. */
#ifndef GDN_BACKEND_XPU_GDN_H
#define GDN_BACKEND_XPU_GDN_H

#include "xpu.h"

enum {
    XPU_GDN_CHANNELS = 64,    /* of a convolution's work-group                        */
    XPU_GDN_CONV_TOKENS = 32, /* of an item of it: CONV_TOKENS in gdn_xpu.cl          */
    XPU_GDN_ITEMS = 128,      /* of a delta rule's, at most: ITEMS in gdn_xpu.cl      */
    XPU_GDN_STEP_ITEMS = 256, /* of core_step's: STEP_ITEMS                           */
    XPU_GDN_ELEMS = 16,       /* of a state's row in one item: 4 QUADS in gdn_xpu.cl  */
};

/* Work-groups of a convolution along its tokens: conv_first() in gdn_xpu.cl. */
static inline int64_t xpu_gdn_conv_groups(int64_t n_seq, int64_t n_token) {
    return n_seq + n_token / XPU_GDN_CONV_TOKENS;
}

typedef struct {
    int     lanes, rows; /* items of a row; rows of a work-group */
    int64_t groups;      /* of a head                            */
} xpu_gdn_rows;

static inline xpu_gdn_rows xpu_gdn_state_rows(int64_t dk, int64_t dv, int items) {
    xpu_gdn_rows r = {.lanes = (int)((dk + XPU_GDN_ELEMS - 1) / XPU_GDN_ELEMS)};
    r.rows = items / r.lanes;
    r.groups = (dv + r.rows - 1) / r.rows;
    return r;
}

/* Whether all rows of the last dimension lie on 16 bytes. */
static inline bool xpu_gdn_whole(const gdn_tensor *t) {
    bool whole = t->at % 16 == 0;
    for (int i = 0; i + 1 < t->ndim; i++) whole = whole && t->stride[i] % 16 == 0;
    return whole;
}

#endif
