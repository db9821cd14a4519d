/* backend.h - what a device is made of.
 *
 * A backend is one constant struct: calls for memory and the order of work, and an op table made
 * from one list.  REQUIRED: a backend without the op refuses a model at load, by name.  FUSED:
 * may be NULL, or answer GDN_E_UNSUPPORTED (err untouched) before it has done anything; then it is
 * composed from required ones, or done by the host, to the same bits.  Ops receive arguments
 * that op.c has checked.
 *
 * Constraints are data: the engine asks for them and never for a device's name. */
#ifndef GDN_BACKEND_H
#define GDN_BACKEND_H

#include <pthread.h>

#include <gdn/gdn.h>
#include <gdn/op.h>

#include "../base/err.h"

/* X(name, argument struct, need) */
#define GDN_OP_LIST(X)                                  \
    X(embed, gdn_embed_args, REQUIRED)                  \
    X(rms_norm, gdn_rms_norm_args, REQUIRED)            \
    X(cast, gdn_cast_args, REQUIRED)                    \
    X(linear, gdn_linear_op_args, REQUIRED)             \
    X(project, gdn_project_args, FUSED)                 \
    X(rope_angles, gdn_rope_angles_args, REQUIRED)      \
    X(attn_store, gdn_attn_store_args, REQUIRED)        \
    X(attn, gdn_attn_args, REQUIRED)                    \
    X(gdn_core, gdn_core_args, REQUIRED)                \
    X(gdn_attention, gdn_attention_args, REQUIRED)      \
    X(causal_conv1d, gdn_causal_conv1d_args, REQUIRED)  \
    X(delta_rule, gdn_delta_rule_args, REQUIRED)        \
    X(rms_norm_gated, gdn_rms_norm_gated_args, REQUIRED)\
    X(lora, gdn_lora_op_args, REQUIRED)                 \
    X(swiglu, gdn_swiglu_op_args, REQUIRED)             \
    X(moe_route, gdn_moe_route_op_args, REQUIRED)       \
    X(moe_experts, gdn_moe_experts_args, REQUIRED)      \
    X(moe_combine, gdn_moe_combine_op_args, REQUIRED)   \
    X(top_k, gdn_top_k_args, FUSED)

typedef struct {
#define X(op, args, need) gdn_status (*op)(gdn_queue * q, const args *a, gdn_err *err);
    GDN_OP_LIST(X)
#undef X
} gdn_op_table;

typedef enum { GDN_CONV_SD = 1, GDN_CONV_DS = 2 } gdn_conv_layout;

/* Ops that come again with the same arguments, all but what lies in device memory: `kind` says
 * which ones, the rest what sizes and places among the arguments depend on.  Everything that an
 * argument may depend on and that may change is in here. */
typedef struct {
    int32_t kind, n_row, n_seq, at;
} gdn_pass;

/* What the driver accepted so far: calls, and kernels launched, those of replayed passes too; passes
 * that were noted, and replayed. */
typedef struct {
    uint64_t calls, launches, recorded, replayed;
} gdn_counts;

typedef struct gdn_backend {
    const char *name; /* "cpu" */

    int32_t kv_block_multiple;  /* attention takes pages of a multiple of this many tokens */
    int32_t gdn_block_multiple; /* and this is what gdn_core needs on top                  */
    bool    kv_strides;         /* keys and values may be strided views of a page          */
    unsigned conv_layout;       /* accepted layouts, gdn_conv_layout                       */

    int        (*list)(gdn_device_info *out, int n); /* devices present */
    /* Whether the first of these is of the kind itself, no stand-in, and so may be the default.
     * Quick where there is none.  NULL: never before the cpu. */
    bool       (*real)(void);
    gdn_status (*open)(const char *arg, const gdn_device_opts *o, gdn_device **out, gdn_err *err);
    void       (*close)(gdn_device *d);

    gdn_status (*buffer_alloc)(gdn_device *d, uint64_t bytes, gdn_buffer **out, gdn_err *err);
    gdn_status (*buffer_wrap)(gdn_device *d, void *host, uint64_t bytes, gdn_buffer **out,
                              gdn_err *err);
    void       (*buffer_free)(gdn_buffer *b);

    gdn_status (*queue_create)(gdn_device *d, gdn_queue **out, gdn_err *err);
    void       (*queue_free)(gdn_queue *q);
    gdn_status (*wait)(gdn_queue *q, gdn_err *err);
    /* gdn_queue_profile() and gdn_queue_times(), nothing being queued; both NULL: no clock. */
    gdn_status (*profile)(gdn_queue *q, bool on, gdn_err *err);
    gdn_status (*times)(gdn_queue *q, gdn_kernel_time *out, int32_t room, int32_t *n, gdn_err *err);
    gdn_status (*write)(gdn_queue *q, gdn_buffer *to, uint64_t at, const void *from,
                        uint64_t bytes, gdn_err *err);
    gdn_status (*read)(gdn_queue *q, void *to, gdn_buffer *from, uint64_t at, uint64_t bytes,
                       gdn_err *err);
    gdn_status (*copy)(gdn_queue *q, gdn_buffer *to, uint64_t to_at, gdn_buffer *from,
                       uint64_t from_at, uint64_t bytes, gdn_err *err);

    /* Around the ops of a pass.  begin: true, all of it has been queued from what was noted earlier,
     * and the ops are left out; false: they follow, and may be noted while they run.  Failures lead
     * to false.  ok: they were all queued.  Both NULL: nothing is replayed. */
    bool       (*pass_begin)(gdn_queue *q, const gdn_pass *p);
    void       (*pass_end)(gdn_queue *q, bool ok);

    gdn_status (*weight_create)(gdn_device *d, const gdn_weight_desc *desc, gdn_weight **out,
                                gdn_err *err);
    void       (*weight_free)(gdn_weight *w);

    uint64_t (*regions)(const gdn_device *d); /* parallel regions so far; NULL: none */
    gdn_counts (*counts)(const gdn_device *d); /* NULL: there is no driver */
    /* Which set of kernels runs, a word: results of two sets differ in their last bits.  NULL: there
     * is one. */
    const char *(*kernels)(const gdn_device *d);

    gdn_op_table op;
} gdn_backend;

/* The first member of every backend's own struct. */
struct gdn_device {
    const gdn_backend *backend;
    char name[32];
    bool dry_run;         /* calls are checked, what kernels compute is not looked at */
    bool checked;         /* it has passed its start-up check */
    bool plain;           /* nothing is replayed: it went wrong there */
    pthread_mutex_t busy; /* held while an op is handed over */
};
struct gdn_buffer {
    gdn_device *device;
    uint64_t    bytes;
    void       *host; /* NULL when the host cannot reach it */
};
struct gdn_queue {
    gdn_device *device;
    uint64_t    n_wait; /* so far */
};
struct gdn_weight {
    gdn_device *device;
    gdn_type type, input_type;
    int32_t  n_expert, n, k;
    uint64_t bytes;
};

/* The backends of this build, the cpu first. */
extern const gdn_backend *const gdn_backends[];
extern const int gdn_n_backend;

extern const gdn_backend gdn_backend_cpu, gdn_backend_xpu;

/* The device that is taken when none is named, of these backends, for weights of `need` bytes (0:
 * not known); the log says which one, and why (default.c). */
gdn_status gdn_device_choose(const gdn_backend *const *backend, int n, const gdn_device_opts *o,
                             uint64_t need, gdn_device **out, gdn_err *err);
gdn_status gdn_device_open_default(const gdn_device_opts *o, uint64_t need, gdn_device **out,
                                   gdn_err *err);

/* pass_begin and pass_end under the device's lock, unless it is plain (device.c). */
bool gdn_pass_begin(gdn_queue *q, const gdn_pass *p);
void gdn_pass_end(gdn_queue *q, bool ok);

/* The first byte of a tensor that the host can reach. */
static inline void *gdn_tensor_host(const gdn_tensor *t) {
    return t->buf == NULL || t->buf->host == NULL ? NULL : (char *)t->buf->host + t->at;
}

#endif
