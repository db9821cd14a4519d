/* xpu_x.c - which tier a device runs; the texts and options of both. */
#include "xpu_x.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/switch.h"
#include "xpu_source.h"

/* --- the tier ------------------------------------------------------------------------- */

/* The smallest size of a sub-group, which is the engine's; 0 and why not. */
static int engine(const xpu_device *d, char why[128]) {
    enum { SUB_GROUP_SIZES_INTEL = 0x4108 };
    static const char *const need[] = {
        "cl_intel_subgroups", "cl_intel_subgroups_short", "cl_intel_required_subgroup_size",
        "cl_intel_subgroup_local_block_io", "cl_intel_subgroup_matrix_multiply_accumulate",
    };
    size_t bytes = 0, size[16], least = 0;
    why[0] = '\0';
    for (size_t i = 0; i < sizeof need / sizeof *need && why[0] == '\0'; i++)
        if (!xpu_cl_has_extension(d->id, need[i])) snprintf(why, 128, "it has no %s", need[i]);
    if (why[0] != '\0') return 0;
    if (xpu_cl.clGetDeviceInfo(d->id, SUB_GROUP_SIZES_INTEL, sizeof size, size, &bytes) ==
        CL_SUCCESS)
        for (size_t i = 0; i < bytes / sizeof *size; i++)
            if (least == 0 || size[i] < least) least = size[i];
    if (least == 8 || least == 16) return (int)least;
    snprintf(why, 128, "its smallest sub-group is %zu, not 8 or 16", least);
    return 0;
}

gdn_status xpu_choose_tier(xpu_device *d, char why[128], gdn_err *err) {
    const char *tier = gdn_switch_get(GDN_SWITCH_XPU_TIER);
    why[0] = '\0';
    d->sg = 0;
    d->emulated = false;
    if (tier == NULL || *tier == '\0') {
        d->sg = engine(d, why);
    } else if (strcmp(tier, "p") == 0) {
        snprintf(why, 128, "GDN_XPU_TIER is p");
    } else if (strcmp(tier, "x") == 0) {
        d->sg = engine(d, why);
        if (d->sg == 0)
            return gdn_fail(err, GDN_E_UNSUPPORTED, "device %s: GDN_XPU_TIER is x, but %s",
                            d->base.name, why);
    } else if (strcmp(tier, "emulated") == 0 || strcmp(tier, "emulated8") == 0) {
        d->sg = tier[8] == '8' ? 8 : 16;
        d->emulated = true;
    } else {
        return gdn_fail(err, GDN_E_INVALID, "GDN_XPU_TIER is '%.20s': need p, x, emulated or "
                        "emulated8", tier);
    }
    return GDN_OK;
}

/* --- texts ---------------------------------------------------------------------------- */

static const char common[] = "-cl-std=CL1.2 -w"
                             " -DTYPE_F32=0 -DTYPE_BF16=1 -DTYPE_F16=2 -DTYPE_F8=3";
/* Intel's driver takes memory of more than 4 GB for short addresses unless it is told; its compiler
 * prefers wide sub-groups even where registers then do not suffice. */
static const char on_intel[] = " -cl-intel-greater-than-4GB-buffer-required";
_Static_assert(GDN_F32 == 0 && GDN_BF16 == 1 && GDN_F16 == 2 && GDN_F8 == 3, "as in common");

/* Numbers of the faults, in the kernels' language. */
static const char fault_text[] = "enum { FAULT_NONE"
#define X(name, text) ", FAULT_" #name
    XPU_FAULT_LIST(X)
#undef X
    " };\n";

/* Texts that files have in front of their own; they hold no kernels. */
static const struct {
    const char *file, *text;
} shared[] = {{"attn_prefill", "attn_tiles"}, {"attn_prefill_xmx", "attn_tiles"},
              {"gdn_chunk", "gdn_chunk_seq"}, {"gdn_chunk_xmx", "gdn_chunk_seq"},
              {"linear", "linear_lines"},     {"experts", "linear_lines"}};
enum { N_SHARED = sizeof shared / sizeof *shared };

bool xpu_text_has_kernels(const char *file) {
    for (int i = 0; i < N_SHARED; i++)
        if (strcmp(shared[i].text, file) == 0) return false;
    return strcmp(file, "xpu_common") != 0 && strcmp(file, "xpu_xmx") != 0;
}

/* Files whose kernels keep more than 128 registers of results and operands. */
static const char *const large[] = {"linear", "experts", "gdn", "gdn_chunk", "gdn_chunk_xmx", "attn_prefill",
                                    "attn_prefill_xmx", "linear_tile_xmx", NULL};

static const char *source(const char *file, size_t n) {
    for (const xpu_source *s = xpu_sources; s->name != NULL; s++)
        if (strlen(s->name) == n && memcmp(s->name, file, n) == 0) return (const char *)s->text;
    return NULL;
}

bool xpu_text_of(const char *file, int sg, bool emulated, bool intel, xpu_text *out) {
    const size_t n = strcspn(file, "/");
    const bool x = n > 4 && memcmp(file + n - 4, "_xmx", 4) == 0;
    const char *own = source(file, n);
    if (own == NULL || (x && sg == 0)) return false;
    bool registers = false;
    for (int i = 0; large[i] != NULL; i++) registers |= strcmp(large[i], file) == 0;
    out->n = 0;
    out->text[out->n++] = fault_text;
    out->text[out->n++] = source("xpu_common", strlen("xpu_common"));
    if (x) out->text[out->n++] = source("xpu_xmx", strlen("xpu_xmx"));
    for (int i = 0; i < N_SHARED; i++)
        if (strlen(shared[i].file) == n && memcmp(shared[i].file, file, n) == 0)
            out->text[out->n++] = source(shared[i].text, strlen(shared[i].text));
    out->text[out->n++] = "\n#line 1\n"; /* messages count lines from the file's own first */
    out->text[out->n++] = own;
    int at = snprintf(out->options, sizeof out->options, "%s", common);
    if (intel)
        at += snprintf(out->options + at, sizeof out->options - (size_t)at, "%s -DINTEL=%d%s", on_intel,
                       sg, registers && sg > 0 ? " -cl-intel-256-GRF-per-thread" : "");
    if (file[n] == '/')
        at += snprintf(out->options + at, sizeof out->options - (size_t)at, " -DVARIANT=%.8s",
                       file + n + 1);
    if (x)
        snprintf(out->options + at, sizeof out->options - (size_t)at, " -DSG=%d%s", sg,
                 emulated ? " -DSG_EMU" : "");
    return true;
}
