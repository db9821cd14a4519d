/* opencl_sides.h - the cpu and the xpu side by side, for tests that run the same on both. */
#ifndef GDN_TESTS_OPENCL_SIDES_H
#define GDN_TESTS_OPENCL_SIDES_H

#include "cases.h"

enum { CPU, XPU, N_SIDE };

static gdn_device *device[N_SIDE];
static gdn_queue *queue[N_SIDE];

static int open_devices(void **state) {
    (void)state;
    static const char *const name[] = {"cpu:1", "xpu"};
    gdn_err err = {0};
    for (int i = 0; i < N_SIDE; i++) {
        must(gdn_device_open(name[i], NULL, &device[i], &err), &err);
        must(gdn_queue_create(device[i], &queue[i], &err), &err);
    }
    return 0;
}

static int close_devices(void **state) {
    (void)state;
    for (int i = 0; i < N_SIDE; i++) {
        gdn_queue_free(queue[i]);
        gdn_device_close(device[i]);
    }
    return 0;
}

/* Numbers that are the same each time. */
static uint64_t rng = 1;
static uint32_t below(uint32_t n) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}
static float uniform(float lo, float hi) {
    return lo + (hi - lo) * (float)below(1u << 24) * 0x1p-24f;
}

#endif
