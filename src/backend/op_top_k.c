/* op_top_k.c - gdn_op_top_k(): its arguments checked. */
#include "check.h"

gdn_status gdn_op_top_k(gdn_queue *q, const gdn_top_k_args *a, gdn_err *err) {
    static const char op[] = "top_k";
    CHECK(x, F32, ANY, ANY);
    const int64_t n_row = a->x.shape[0], n = a->x.shape[1];
    CHECK(id, I32, n_row, ANY);
    const int64_t k = a->id.shape[1];
    CHECK(value, F32, n_row, k);
    CHECK(found, I32, n_row);
    CHECK(min, F32, n_row);
    CHECK_OPT(n_valid, I32, n_row);
    if (k < 1 || k > GDN_TOP_K_MOST)
        REFUSE("top_k: k is %lld, need 1 to %d", (long long)k, GDN_TOP_K_MOST);
    if (n < 1 || n > INT32_MAX) REFUSE("top_k: rows of %lld values", (long long)n);
    APART(4, ARG(value), ARG(id), ARG(found), ARG(min), ARG(x), ARG(n_valid));
    const int32_t *valid = a->n_valid.buf != NULL ? gdn_ints(&a->n_valid) : NULL;
    for (int64_t i = 0; valid != NULL && i < n_row; i++)
        if (valid[i] < 0 || valid[i] > n)
            REFUSE("top_k: n_valid[%lld] is %d of %lld values", (long long)i, valid[i],
                   (long long)n);
    if (q->device->backend->op.top_k == NULL)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "device %s has no operator top_k",
                        gdn_device_name(q->device));
    return RUN(top_k);
}
