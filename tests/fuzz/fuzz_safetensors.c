/* fuzz_safetensors.c - any bytes as a safetensors file: refused, or every tensor
 * readable. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[64];
    gdn_err err;
    gdn_weights *w = NULL;
    const int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gdn_weights_open(path, &w, &err) == GDN_OK) {
        uint64_t total = 0;
        unsigned sum = 0;
        for (int64_t i = 0; i < gdn_weights_count(w); i++) {
            const gdn_st_tensor *t = gdn_weights_at(w, i);
            for (uint64_t b = 0; b < t->bytes; b++) sum += t->data[b];
            total += t->bytes;
            if (gdn_weights_find(w, t->name) != t) abort();
            if ((uintptr_t)t->data % (uintptr_t)gdn_st_dtype_size(t->dtype) != 0) abort();
            gdn_weights_release(w, t->data, t->bytes);
        }
        if (total != gdn_weights_total_bytes(w) || total > n || sum == 1u << 31) abort();
    }
    gdn_weights_close(w);
    close(fd);
    return 0;
}
