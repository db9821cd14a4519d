/* xpu.h - the xpu device's own structs, and how its ops reach their kernels.
 *
 * Kernels are OpenCL C 1.2 without sub-groups: src/kern/<family>/<file>_xpu.cl, put into the
 * program as text by the Makefile, each compiled on its own when one of its kernels is first asked
 * for, behind src/kern/vec/xpu_common.cl (types, loads, stores, faults; nothing else is included).
 * Files *_xmx_xpu.cl are of tier X (xpu_x.h) and have src/kern/vec/xpu_xmx.cl too.
 * Work-groups have 256 items at most and 32 KiB of local memory; that runs everywhere.
 *
 * An op puts its arguments in the kernel's order and starts it; a failure in between is remembered
 * and returned by the start:
 *
 *     xpu_call c = xpu_begin(q, "norm", "rms_norm");            norm_xpu.cl, kernel rms_norm
 *     xpu_tensor(&c, &a->y, 2);                                 TENSOR2(y) in the kernel
 *     xpu_int(&c, d);                                           int
 *     return xpu_start(&c, groups, local, err);
 *
 * Ops run under the device's lock (op.c), in the order of their queue, and never wait. */
#ifndef GDN_BACKEND_XPU_H
#define GDN_BACKEND_XPU_H

#include <stdatomic.h>

#include "backend.h"
#include "xpu_cl.h"

enum {
    XPU_MAX_GROUP = XPU_NEED_GROUP, /* items of a work-group     */
    XPU_MAX_LOCAL = XPU_NEED_LOCAL, /* bytes of its local memory */
    XPU_N_SCRATCH = 8,
};

/* What kernels find wrong in values that the host cannot see: FAULT(name, index, value) in a kernel
 * that takes `FAULTS` (xpu_faults on the host).  The first of a queue fails its next wait with the
 * text, which has two %d: index and value.  X(name, text); FAULT_<name> in kernels. */
#define XPU_FAULT_LIST(X)                                                  \
    X(EMBED_ID, "embed: ids[%d] is %d, outside the table")                 \
    X(LINEAR_ROW, "linear: row[%d] is %d, outside x")                      \
    X(LORA_ADAPTER, "lora: adapter[%d] is %d, outside the adapters")       \
    X(LORA_ROW, "lora: row[%d] is %d, outside the rows")                   \
    X(CORE_START, "gdn_core: seq_start[%d] is %d, not in order or outside the rows") \
    X(CORE_SLOT, "gdn_core: slot[%d] is %d, outside the states")           \
    X(CORE_COMMIT, "gdn_core: n_commit[%d] is %d, more than the line or its state has") \
    X(CORE_KEEP, "gdn_core: sequence %d has %d guesses, more than its line") \
    X(CORE_SPARE, "gdn_core: spare[%d] is %d: no slot, or its sequence's own") \
    X(CORE_LINE, "gdn_core: line_index[%d] is %d, outside the lines")      \
    X(GDN_START, "gdn_attention: query_start_loc[%d] is %d, not in order or outside the tokens") \
    X(GDN_DRAFTS, "gdn_attention: speculative sequence %d has %d tokens, more than columns") \
    X(GDN_ACCEPTED, "gdn_attention: num_accepted_tokens[%d] is %d, outside the columns") \
    X(GDN_SLOT, "gdn_attention: state_indices[%d] is %d, outside the slots") \
    X(GDN_READ, "gdn_attention: state_indices[%d]: the state to be read is %d") \
    X(GDN_ROW, "gdn_attention: token %d is row %d, outside the rows")      \
    X(ATTN_START, "attention: seq_start[%d] is %d, not in order or outside the rows") \
    X(ATTN_LENGTH, "attention: sequence %d with n_past %d is longer than its pages") \
    X(ATTN_PAGE, "attention: sequence %d has page %d, outside the pages")  \
    X(MOE_EXPERT, "moe_experts: expert[%d] is %d, outside the experts")

enum {
    XPU_FAULT_NONE,
#define X(name, text) XPU_FAULT_##name,
    XPU_FAULT_LIST(X)
#undef X
    XPU_N_FAULT
};

typedef struct xpu_program xpu_program; /* a file of kernels, compiled (xpu_program.c) */
typedef struct xpu_named   xpu_named;   /* a kernel of it (xpu_program.h)             */
typedef struct xpu_object  xpu_object;  /* an object of a kernel, with arguments      */
typedef struct xpu_stage   xpu_stage;   /* a copy that a write still reads (xpu_queue.c) */
typedef struct xpu_times   xpu_times;   /* of the kernels launched (xpu_times.c) */
typedef struct xpu_passes  xpu_passes;  /* launches that were noted (xpu_replay.c) */

typedef struct {
    gdn_device       base;
    cl_device_id     id;
    cl_context       context;
    cl_command_queue upload;    /* for what belongs to no queue: zeroes, weights */
    xpu_program     *program;   /* a list, the latest first                      */
    struct xpu_table *table;    /* of launches that come again (xpu_call.c)      */
    const xpu_cl_device *info;
    const xpu_usm_table *usm;   /* NULL: memory is made of buffer objects        */
    const xpu_record_table *record; /* NULL: nothing is replayed                 */
    _Atomic uint64_t n_call;    /* calls that the driver accepted                */
    _Atomic uint64_t n_freed;   /* pieces of memory let go                       */
    uint64_t         n_launch;
    uint64_t         n_recorded, n_replayed; /* passes                           */
    char             kernels[32];
    int              sg;        /* tier X (xpu_x.h): size of a sub-group; 0: tier P  */
    bool             emulated;  /* by a model                                        */
} xpu_device;

typedef struct {
    gdn_buffer base; /* host is NULL */
    cl_mem     mem;
} xpu_buffer;

typedef struct {
    gdn_queue        base;
    cl_command_queue cl;
    cl_mem           fault;   /* int[4]: code, index, value; read by a wait when armed */
    bool             armed;
    bool             used;    /* something was queued since the last wait              */
    xpu_passes      *passes;  /* NULL: nothing is replayed                             */
    xpu_times       *times;   /* NULL: nothing is timed                                */
    xpu_stage       *stage;
    uint64_t         staged;  /* bytes */
    struct {                  /* of rope_angles: turns per position, kept from step to step */
        cl_mem  turn;
        double  theta;
        int32_t rot;
    } rope;
    struct {
        cl_mem   mem;
        uint64_t bytes;
    } scratch[XPU_N_SCRATCH];
} xpu_queue;

/* Rows as they are in the file, one after the other without gaps; or packed for tier X. */
typedef struct {
    gdn_weight base;
    bool       packed;     /* as linear_xmx_xpu.cl has it                           */
    cl_mem     data;       /* [n_expert][n][k] of base.type                         */
    cl_mem     scale;      /* F8: f32 [n_expert][n][n_scale], NULL for other types  */
    int32_t    scale_cols; /* F8: inputs of one scale                               */
    int32_t    n_scale;    /* F8: ceil(k / scale_cols)                              */
} xpu_weight;

static inline xpu_device *xpu_of(const gdn_queue *q) { return (xpu_device *)q->device; }
static inline xpu_queue *xpu_queue_of(gdn_queue *q) { return (xpu_queue *)q; }
static inline const xpu_weight *xpu_weight_of(const gdn_weight *w) {
    return (const xpu_weight *)w;
}
static inline cl_mem xpu_mem(const gdn_buffer *b) {
    return b == NULL ? NULL : ((const xpu_buffer *)b)->mem;
}

/* --- starting a kernel -------------------------------------------------------------- */

enum { XPU_ARG_BYTES = 1024 }; /* the longest list has 728 */

typedef struct {
    xpu_queue  *q;
    xpu_named  *of;
    const char *file, *name;
    gdn_status  st; /* the first failure, and what it was */
    gdn_err     why;
    size_t      bytes; /* of list */
    unsigned char list[XPU_ARG_BYTES]; /* arguments, one behind the other (xpu_call.c) */
} xpu_call;

/* Kernel `name` of <file>_xpu.cl, compiled when it is the first of the file.  "linear/32" is
 * linear_xpu.cl with VARIANT defined as 32: a program of its own. */
xpu_call xpu_begin(gdn_queue *q, const char *file, const char *name);

/* The next arguments.  A tensor takes 2 + n_stride: the memory, the byte it begins at, and the
 * first n_stride strides in bytes; an absent one is a NULL pointer with zeros.  In the kernel these
 * are TENSOR(t), TENSOR1(t), TENSOR2(t), TENSOR3(t), TENSOR4(t):
 *     __global uchar *t, ulong t_at, long t_s0, long t_s1, ... */
void xpu_tensor(xpu_call *c, const gdn_tensor *t, int n_stride);
void xpu_memory(xpu_call *c, cl_mem m);        /* __global T *   */
void xpu_int(xpu_call *c, int64_t v);          /* int; fails when it does not fit */
void xpu_long(xpu_call *c, int64_t v);         /* long           */
void xpu_float(xpu_call *c, float v);          /* float          */
void xpu_struct(xpu_call *c, const void *v, size_t bytes); /* a struct by value: int, float, long
                                                  and pointer-free, in natural alignment */
void xpu_local(xpu_call *c, size_t bytes);     /* __local T *    */
void xpu_faults(xpu_call *c);                  /* FAULTS         */

/* Whether its first byte and first n strides are multiples of `bytes`, or of four elements, for vector
 * loads. */
static inline bool xpu_lies_on(const gdn_tensor *t, int n, uint64_t bytes) {
    uint64_t all = t->at;
    for (int i = 0; i < n; i++) all |= (uint64_t)t->stride[i];
    return all % bytes == 0;
}
static inline bool xpu_by_fours(const gdn_tensor *t, int n) {
    return xpu_lies_on(t, n, 4 * (uint64_t)gdn_type_bytes(t->type));
}

/* groups[3] work-groups of local[3] items; no groups are no work. */
gdn_status xpu_start(xpu_call *c, const int64_t groups[3], const int local[3], gdn_err *err);

/* Memory of the queue, for one op, with any content; scratch i is the same memory each time, larger
 * when more is asked for.  Ops use what follows in queue order alone. */
gdn_status xpu_scratch(gdn_queue *q, int i, uint64_t bytes, cl_mem *out, gdn_err *err);

/* A small array of the host's for the kernels behind it; from may be reused at once. */
gdn_status xpu_put(gdn_queue *q, cl_mem to, uint64_t at, const void *from, uint64_t bytes,
                   gdn_err *err);

/* After an enqueue into the queue that starts no kernel: its result and what was done. */
gdn_status xpu_queued(xpu_queue *q, cl_int result, const char *what, gdn_err *err);

void       xpu_table_free(xpu_device *d);
void       xpu_programs_free(xpu_device *d);

/* Memory of the device; up to four bytes more than asked for, zeroed when `zero`.  What a cl_mem
 * stands for is known to xpu_driver.c alone. */
gdn_status xpu_alloc(xpu_device *d, uint64_t bytes, bool zero, cl_mem *out, gdn_err *err);
void       xpu_free(xpu_device *d, cl_mem m); /* NULL: nothing */

/* --- products (linear_lines_xpu.cl) ------------------------------------------------- */

/* How many items sum an output of k inputs, and the files of kernels that do it so. */
typedef struct {
    int         items;
    const char *linear, *experts;
} xpu_line;
xpu_line xpu_line_for(const gdn_queue *q, int32_t k);

/* Whether stretches of k inputs lie where vectors can be loaded. */
bool xpu_on_vectors(const gdn_tensor *x, int32_t k);
/* The arguments that a kernel has as WEIGHT; whole: vectors can be loaded. */
void xpu_line_weight(xpu_call *c, const xpu_weight *w, bool whole);

/* --- what other files implement ----------------------------------------------------- */

/* X(op, argument struct): ops that this backend has, and so those of its table.  A model that needs
 * another is refused. */
#define XPU_OP_LIST(X)                            \
    X(embed, gdn_embed_args)                      \
    X(rms_norm, gdn_rms_norm_args)                \
    X(cast, gdn_cast_args)                        \
    X(linear, gdn_linear_op_args)                 \
    X(project, gdn_project_args)                  \
    X(rope_angles, gdn_rope_angles_args)          \
    X(rms_norm_gated, gdn_rms_norm_gated_args)    \
    X(lora, gdn_lora_op_args)                     \
    X(swiglu, gdn_swiglu_op_args)                 \
    X(attn_store, gdn_attn_store_args)            \
    X(attn, gdn_attn_args)                        \
    X(gdn_core, gdn_core_args)                    \
    X(gdn_attention, gdn_attention_args)          \
    X(causal_conv1d, gdn_causal_conv1d_args)      \
    X(delta_rule, gdn_delta_rule_args)            \
    X(moe_route, gdn_moe_route_op_args)           \
    X(moe_experts, gdn_moe_experts_args)          \
    X(moe_combine, gdn_moe_combine_op_args)       \
    X(top_k, gdn_top_k_args)

#define X(op, args) gdn_status xpu_op_##op(gdn_queue *q, const args *a, gdn_err *err);
XPU_OP_LIST(X)
#undef X

bool xpu_real(void); /* xpu_real.c */

/* xpu_replay.c; while a pass is noted: an object of one launch's own, NULL where it is none; a launch;
 * that something came which cannot be made again. */
xpu_object *xpu_note_object(xpu_queue *q, const xpu_named *of, size_t room);
void        xpu_note_launch(xpu_queue *q, cl_kernel k, const size_t global[3], const size_t local[3]);
void        xpu_note_other(xpu_queue *q);

gdn_status xpu_weight_create(gdn_device *d, const gdn_weight_desc *desc, gdn_weight **out,
                             gdn_err *err);
void       xpu_weight_free(gdn_weight *w);

#endif
