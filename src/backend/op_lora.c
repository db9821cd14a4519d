/* op_lora.c - checks of the adapters' operator, and of adapters inside the experts. */
#include "check.h"

/* One adapter of a matrix [n, k]. */
static gdn_status check_matrices(const char *op, const gdn_queue *q, const gdn_lora *l, int64_t n,
                                 int64_t k, gdn_err *err) {
    const struct {
        gdn_tensor lora_a, lora_b;
    } view = {l->a, l->b}, *a = &view;
    CHECK(lora_a, F32, ANY, k);
    const int64_t rank = a->lora_a.shape[0];
    CHECK(lora_b, F32, n, rank);
    if (rank < 1 || rank > GDN_MAX_RANK)
        REFUSE("%s: an adapter of rank %lld, need 1 to %d", op, (long long)rank, GDN_MAX_RANK);
    if (!gdn_dense_rows(&a->lora_a) || !gdn_dense_rows(&a->lora_b))
        REFUSE("%s: an adapter's matrix has gaps", op);
    return GDN_OK;
}

gdn_status gdn_op_lora(gdn_queue *q, const gdn_lora_op_args *a, gdn_err *err) {
    static const char op[] = "lora";
    CHECK(y, F32, ANY, ANY);
    const int64_t n_row = a->y.shape[0];
    CHECK(x, F32 | BF16, n_row, ANY);
    CHECK(adapter, I32, ANY);
    CHECK_OPT(row, I32, n_row);
    CHECK(work, F32, n_row, ANY);
    if (a->row.buf == NULL && a->adapter.shape[0] != n_row)
        REFUSE("lora: %lld adapters for %lld rows", (long long)a->adapter.shape[0],
               (long long)n_row);
    if (a->n_lora < 0 || (a->n_lora > 0 && a->lora == NULL)) REFUSE("lora: %d adapters", a->n_lora);
    APART(2, ARG(y), ARG(work), ARG(x), ARG(adapter), ARG(row));
    const int32_t *index = gdn_ints(&a->adapter), *row = gdn_ints(&a->row);
    /* Where the host can see which adapters are asked for, the others cost nothing. */
    const bool seen = index != NULL && (a->row.buf == NULL || row != NULL);
    int32_t last = -1;
    for (int64_t i = 0; i < (seen ? n_row : a->n_lora); i++) {
        if (seen && row != NULL && (row[i] < 0 || row[i] >= a->adapter.shape[0]))
            REFUSE("lora: row[%lld] is %d of %lld rows", (long long)i, row[i],
                   (long long)a->adapter.shape[0]);
        const int32_t at = !seen ? (int32_t)i : index[row != NULL ? row[i] : i];
        if (at >= a->n_lora)
            REFUSE("lora: adapter[%lld] is %d of %d", (long long)(row != NULL ? row[i] : i), at,
                   a->n_lora);
        if (at < 0 || at == last || a->lora[at].a.buf == NULL) continue;
        last = at;
        const gdn_status st = check_matrices(op, q, &a->lora[at], a->y.shape[1], a->x.shape[1], err);
        if (st != GDN_OK) return st;
        if (a->lora[at].a.shape[0] > a->work.shape[1])
            REFUSE("lora: an adapter of rank %lld with work of %lld columns",
                   (long long)a->lora[at].a.shape[0], (long long)a->work.shape[1]);
    }
    return RUN(lora);
}

gdn_status gdn_check_expert_lora(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    static const char op[] = "moe_experts";
    const int64_t d = a->down->n, n = a->down->k;
    CHECK(adapter, I32, a->expert.shape[0]);
    APART(4, ARG(y), ARG(work_gu), ARG(work_h), ARG(work_index), ARG(adapter));
    if (a->n_lora < 0 || (a->n_lora > 0 && a->lora == NULL))
        REFUSE("moe_experts: %d adapters", a->n_lora);
    const int32_t *index = gdn_ints(&a->adapter), *expert = gdn_ints(&a->expert);
    if (index == NULL || expert == NULL) return GDN_OK;
    for (int64_t i = 0; i < a->expert.shape[0]; i++) {
        if (index[i] >= a->n_lora)
            REFUSE("moe_experts: adapter[%lld] is %d of %d", (long long)i, index[i], a->n_lora);
        if (index[i] < 0 || a->lora[index[i]] == NULL) continue;
        for (int64_t r = 0; r < a->expert.shape[1]; r++) {
            const int32_t e = ((const int32_t *)(const void *)((const char *)expert +
                                                               i * a->expert.stride[0]))[r];
            if (e < 0 || e >= a->down->n_expert) continue; /* refused by the device */
            const gdn_lora *l = a->lora[index[i]] + 3 * (int64_t)e;
            for (int part = 0; part < 3; part++) {
                if (l[part].a.buf == NULL) continue;
                const gdn_status st = check_matrices(op, q, &l[part], part == 2 ? d : n,
                                                     part == 2 ? n : d, err);
                if (st != GDN_OK) return st;
            }
        }
    }
    return GDN_OK;
}
