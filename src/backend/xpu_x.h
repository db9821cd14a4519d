/* xpu_x.h - tier X: kernels for the matrix engine of Intel's GPUs, and which devices run them.
 *
 * Tier P, the portable kernels, has every op; tier X replaces some where it can.  Its kernels are
 * the files *_xmx_xpu.cl behind src/kern/vec/xpu_xmx.cl.  GDN_XPU_TIER chooses for tests:
 *
 *     p           the portable kernels everywhere
 *     x           tier X, or the device is refused
 *     emulated    tier X by a model of the engine, on any device; emulated8: as on Arc A */
#ifndef GDN_BACKEND_XPU_X_H
#define GDN_BACKEND_XPU_X_H

#include "xpu.h"

/* Sets d->sg and d->emulated.  why: what led to tier P, or empty. */
gdn_status xpu_choose_tier(xpu_device *d, char why[128], gdn_err *err);

/* --- a file of kernels as the compiler gets it --------------------------------------- */

enum { XPU_TEXTS = 6, XPU_OPTIONS = 320 };

typedef struct {
    const char *text[XPU_TEXTS]; /* in order, n of them */
    int  n;
    char options[XPU_OPTIONS];
} xpu_text;

/* file: as xpu_begin() takes it; intel: for Intel's driver.  False: there is no such file, or it is
 * of tier X and sg is 0. */
bool xpu_text_of(const char *file, int sg, bool emulated, bool intel, xpu_text *out);
/* False: a text that others have in front of their own. */
bool xpu_text_has_kernels(const char *file);

/* --- ops ------------------------------------------------------------------------------ */

/* Products and rows of a packed weight (linear_xmx_xpu.cl, project_xmx_xpu.cl). */
gdn_status xpu_linear_x(gdn_queue *q, const gdn_linear_op_args *a, gdn_err *err);
gdn_status xpu_project_x(gdn_queue *q, const gdn_project_args *a, gdn_err *err);
gdn_status xpu_embed_x(gdn_queue *q, const gdn_embed_args *a, gdn_err *err);

/* What kernels of projections begin with: y, x with its heads, z likewise, the norm's weights. */
void xpu_project_rows(xpu_call *c, const gdn_project_args *a);

/* Whether weights of that kind are packed, and the steps of 16 inputs of a row that is. */
bool    xpu_packs(const xpu_device *d, gdn_type type, int32_t n_expert);
int32_t xpu_steps(int32_t k);

#endif
