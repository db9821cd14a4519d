/* cpu.h - the cpu device's own structs, shared by the files that implement its ops. */
#ifndef GDN_BACKEND_CPU_H
#define GDN_BACKEND_CPU_H

#include "../base/pool.h"
#include "../kern/kern.h"
#include "backend.h"

typedef struct {
    gdn_device base;
    gdn_pool  *pool;
    gdn_kern   kern;
    int        n_thread;
    char      *scratch;       /* [n_thread][scratch_bytes] */
    uint64_t   scratch_bytes; /* of one thread, a multiple of 64 */
    void      *wave;          /* cpu_attention_wave() bytes      */
    void      *gdn_work;      /* of gdn_attention and its stages, grown by them */
    uint64_t   gdn_work_bytes;
} cpu_device;

typedef struct {
    gdn_weight base;
    void      *panel;       /* [n_expert][n_panel] packed panels */
    float     *scale;       /* F8: [n_expert][n_panel][ceil(k / cols)][64] */
    uint64_t   panel_bytes; /* of one panel */
    int32_t    n_panel;     /* of one matrix */
    int32_t    scale_cols;
} cpu_weight;

static inline cpu_device *cpu_of(const gdn_queue *q) { return (cpu_device *)q->device; }

static inline void *cpu_scratch(const cpu_device *d, int thread) {
    return d->scratch + (uint64_t)thread * d->scratch_bytes;
}

/* Run fn over [0, n) on all threads, or on the caller alone when the work is too little to pay
 * for a region: cost is in elements touched, about one a nanosecond and thread. */
void cpu_run(cpu_device *d, int64_t n, double cost, gdn_task_fn *fn, void *arg);

/* One expert's panels as the kernels take them. */
gdn_panels cpu_panels(const cpu_weight *w, int32_t expert);

gdn_status cpu_weight_create(gdn_device *d, const gdn_weight_desc *desc, gdn_weight **out,
                             gdn_err *err);
void       cpu_weight_free(gdn_weight *w);

#define X(op, args, need) gdn_status cpu_op_##op(gdn_queue *q, const args *a, gdn_err *err);
GDN_OP_LIST(X)
#undef X

/* Bytes of a thread's scratch that attention needs. */
uint64_t cpu_attention_scratch(void);
/* And gdn_core. */
uint64_t cpu_core_scratch(void);
/* Bytes for attention whose key blocks are shared out over the threads. */
uint64_t cpu_attention_wave(int n_thread);

/* Row i of a tensor, or element [i][j]. */
static inline char *cpu_at(const gdn_tensor *t, int64_t i) {
    return (char *)gdn_tensor_host(t) + i * t->stride[0];
}
static inline int64_t cpu_stride(const gdn_tensor *t, int dim) {
    return t->stride[dim] / gdn_type_bytes(t->type);
}

#endif
