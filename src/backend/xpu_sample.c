/* xpu_sample.c - what a sampler needs of long rows, on the xpu (sample_xpu.cl). */
#include "xpu.h"

enum { SAMPLE_ITEMS = 256, SAMPLE_TILE = 16 * SAMPLE_ITEMS };

gdn_status xpu_op_top_k(gdn_queue *q, const gdn_top_k_args *a, gdn_err *err) {
    const int64_t n_row = a->x.shape[0], n = a->x.shape[1], k = a->id.shape[1];
    const int64_t n_block = (n + SAMPLE_TILE - 1) / SAMPLE_TILE;
    const int local[3] = {SAMPLE_ITEMS, 1, 1};
    cl_mem work;
    const uint64_t bytes = (uint64_t)(n_row * n_block * (k + 1)) * sizeof(cl_ulong);
    gdn_status st = xpu_scratch(q, 3, bytes, &work, err);
    if (st != GDN_OK) return st;
    xpu_call c = xpu_begin(q, "sample", "top_blocks");
    xpu_tensor(&c, &a->x, 1);
    xpu_tensor(&c, &a->n_valid, 0);
    xpu_memory(&c, work);
    xpu_int(&c, n);
    xpu_int(&c, k);
    xpu_int(&c, a->n_valid.buf != NULL);
    st = xpu_start(&c, (const int64_t[3]){n_block, n_row, 1}, local, err);
    if (st != GDN_OK) return st;
    c = xpu_begin(q, "sample", "top_merge");
    xpu_tensor(&c, &a->value, 1);
    xpu_tensor(&c, &a->id, 1);
    xpu_tensor(&c, &a->found, 0);
    xpu_tensor(&c, &a->min, 0);
    xpu_memory(&c, work);
    xpu_int(&c, n_block);
    xpu_int(&c, k);
    return xpu_start(&c, (const int64_t[3]){n_row, 1, 1}, local, err);
}
