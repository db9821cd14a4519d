/* default.c - which device is taken when none is named.
 *
 * A GPU of its own kind (never one that stands in for another) that holds the weights and passes its
 * start-up check; else the cpu.  Options that only the cpu has mean the cpu. */
#include "backend.h"

#include <stdio.h>

#include "../base/log.h"

/* An eighth of a device's memory is left for the cache and the work of a step. */
static bool holds(uint64_t memory, uint64_t need) { return need <= memory - memory / 8; }

static gdn_status try(const gdn_backend *b, const gdn_device_opts *o, uint64_t need,
                      gdn_device **out) {
    gdn_device_info info = {.name = ""};
    gdn_err why = {0};
    gdn_device *d = NULL;
    if (b->list(&info, 1) < 1) return GDN_E_DEVICE;
    if (!holds(info.memory_bytes, need)) {
        gdn_log(GDN_LOG_WARN, "device %s is not taken: the weights are %.1f GB, it has %.1f GB",
                info.name, (double)need * 1e-9, (double)info.memory_bytes * 1e-9);
        return GDN_E_NOMEM;
    }
    gdn_status st = b->open(NULL, o, &d, &why);
    if (st == GDN_OK) st = gdn_device_check(d, &why);
    if (st != GDN_OK) {
        gdn_log(GDN_LOG_WARN, "device %s is not taken: %s", info.name, why.text);
        gdn_device_close(d);
        return st;
    }
    *out = d;
    return GDN_OK;
}

gdn_status gdn_device_choose(const gdn_backend *const *backend, int n, const gdn_device_opts *o,
                             uint64_t need, gdn_device **out, gdn_err *err) {
    const bool cpu = o->n_thread > 0 || o->pin || o->isa_mask != ~0u;
    const char *reason = cpu ? "options of the cpu are given" : "there is no GPU";
    for (int i = 0; i < n && !cpu; i++) {
        if (backend[i]->real == NULL || !backend[i]->real()) continue;
        if (try(backend[i], o, need, out) == GDN_OK) {
            gdn_log(GDN_LOG_INFO, "default device=%s reason=\"a GPU that passed its check\"",
                    gdn_device_name(*out));
            return GDN_OK;
        }
        reason = "the GPU was not taken";
    }
    const gdn_status st = gdn_backend_cpu.open(NULL, o, out, err);
    if (st == GDN_OK)
        gdn_log(GDN_LOG_INFO, "default device=%s reason=\"%s\"", gdn_device_name(*out), reason);
    return st;
}

gdn_status gdn_device_open_default(const gdn_device_opts *o, uint64_t need, gdn_device **out,
                                   gdn_err *err) {
    return gdn_device_choose(gdn_backends, gdn_n_backend, o, need, out, err);
}
