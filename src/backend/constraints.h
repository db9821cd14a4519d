/* constraints.h - what the backends ask of a cache block, for those of this build and all others.
 *
 * A backend takes its numbers from here, so that a plan for a device that is not present is the
 * plan which that device gets. */
#ifndef GDN_BACKEND_CONSTRAINTS_H
#define GDN_BACKEND_CONSTRAINTS_H

#include <stdint.h>

/* X(name, NAME, kv, gdn): attention takes blocks of a multiple of kv tokens; models with GDN
 * layers need a multiple of gdn on top. */
#define GDN_CONSTRAINT_LIST(X) \
    X(cpu, CPU, 16, 1)         \
    X(xpu, XPU, 16, 64)        \
    X(cuda, CUDA, 16, 1)

/* GDN_CPU_KV_BLOCK, GDN_CPU_GDN_BLOCK and so on, for constant structs. */
enum {
#define X(name, NAME, kv, gdn) GDN_##NAME##_KV_BLOCK = (kv), GDN_##NAME##_GDN_BLOCK = (gdn),
    GDN_CONSTRAINT_LIST(X)
#undef X
};

typedef struct {
    const char *name; /* of the backend */
    int32_t kv_block_multiple, gdn_block_multiple;
} gdn_device_constraints;

/* Of the backend of a device's name, "xpu" or "xpu:1"; NULL when there is no such backend. */
const gdn_device_constraints *gdn_constraints_find(const char *device);

/* The i-th, NULL past the last. */
const gdn_device_constraints *gdn_constraints_at(int i);

#endif
