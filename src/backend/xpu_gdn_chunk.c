/* xpu_gdn_chunk.c - the delta rule in chunks on the xpu: two launches, what needs no state for all
 * chunks at once, then the states' way through them (gdn_chunk_xpu.cl; gdn_chunk_xmx_xpu.cl where
 * tier X has the types and sizes).
 *
 * Between the launches lie T', P and the gates of every chunk and value head, 272 bytes a token and
 * head; with tier X in bf16, 208 bytes, and 768 of keys and queries for each key head.  Where they
 * would be more than MAX_WORK for all heads, heads take turns. */
#include "xpu_gdn_chunk.h"

enum {
    CHUNK = 32,                              /* as in gdn_chunk_seq_xpu.cl          */
    COLUMNS = 32, ITEMS = 256,               /* of a work-group, as in the kernels  */
    COLUMNS_X = 16, ITEMS_X = 64,            /* of tier X                           */
    WORK = 2 * CHUNK * CHUNK + 4 * CHUNK,    /* floats of a chunk and value head    */
    D_X = 128,                               /* tier X: keys of up to               */
    KEYS_X = 3 * CHUNK * D_X,                /* halves of a chunk and key head      */
    HEAD_X = 3 * CHUNK * CHUNK + 8 * CHUNK,  /* and value head                      */
    MAX_WORK = 512 << 20,                    /* bytes                               */
};

/* What gdn_chunk_seq_xpu.cl has as PLAIN_SEQ. */
static void sequences(xpu_call *c, const xpu_gdn_chunk_args *a) {
    xpu_faults(c);
    xpu_tensor(c, a->loc, 0);
    xpu_tensor(c, a->indx, 0);
    xpu_tensor(c, a->slot, 0);
    xpu_tensor(c, a->initial, 0);
    xpu_int(c, a->n_token);
    xpu_int(c, a->n_row);
    xpu_int(c, a->slots);
    xpu_int(c, a->null_slot);
    xpu_int(c, a->indx->buf != NULL);
    xpu_int(c, a->initial->buf != NULL);
}

/* Not a matter of where tensors lie: a call in two stages has the bits of one. */
static bool takes_x(const xpu_device *d, const xpu_gdn_chunk_args *a) {
    return d->sg != 0 && a->core->type == GDN_BF16 && a->q->shape[2] <= D_X &&
           a->v->shape[2] % COLUMNS_X == 0;
}

/* Key heads kh0 .. kh0 + n - 1, with r value heads each. */
typedef struct {
    int64_t kh0, n, r;
} heads;

static gdn_status prepare(gdn_queue *q, const xpu_gdn_chunk_args *a, heads h, bool x,
                          int64_t n_chunk, cl_mem work, gdn_err *err) {
    xpu_call c = x ? xpu_begin(q, "gdn_chunk_xmx", "chunk_prepare_x")
                   : xpu_begin(q, "gdn_chunk", "chunk_prepare");
    sequences(&c, a);
    xpu_memory(&c, work);
    xpu_tensor(&c, a->q, 2);
    xpu_tensor(&c, a->k, 2);
    xpu_tensor(&c, a->b, 1);
    xpu_tensor(&c, a->a, 1);
    xpu_tensor(&c, a->A_log, 0);
    xpu_tensor(&c, a->dt_bias, 0);
    xpu_int(&c, a->loc->shape[0] - 1);
    xpu_int(&c, h.r);
    xpu_int(&c, h.kh0);
    xpu_int(&c, h.n);
    xpu_int(&c, a->q->shape[2]);
    if (!x) xpu_int(&c, a->core->type);
    xpu_int(&c, xpu_by_fours(a->q, 2) && xpu_by_fours(a->k, 2));
    const int64_t groups[3] = {h.n, n_chunk, 1};
    const int local[3] = {x ? ITEMS_X : ITEMS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

/* Tier X has keys and queries in work; it knows the types, and its columns are whole blocks. */
static gdn_status scan(gdn_queue *q, const xpu_gdn_chunk_args *a, heads h, bool x, cl_mem work,
                       gdn_err *err) {
    const int64_t dv = a->v->shape[2];
    xpu_call c = x ? xpu_begin(q, "gdn_chunk_xmx", "chunk_scan_x")
                   : xpu_begin(q, "gdn_chunk", "chunk_scan");
    sequences(&c, a);
    xpu_memory(&c, work);
    xpu_tensor(&c, a->core, 2);
    xpu_tensor(&c, a->v, 2);
    xpu_tensor(&c, a->ssm_state, 3);
    xpu_int(&c, h.r);
    xpu_int(&c, h.kh0);
    xpu_int(&c, h.n);
    xpu_int(&c, a->q->shape[2]);
    xpu_int(&c, a->ssm_state->type);
    if (!x) {
        xpu_tensor(&c, a->q, 2);
        xpu_tensor(&c, a->k, 2);
        xpu_int(&c, dv);
        xpu_int(&c, a->core->type);
        xpu_int(&c, xpu_by_fours(a->q, 2) && xpu_by_fours(a->k, 2));
    }
    const int64_t columns = x ? COLUMNS_X : COLUMNS;
    const int64_t groups[3] = {(dv + columns - 1) / columns, h.n * h.r, a->loc->shape[0] - 1};
    const int local[3] = {x ? ITEMS_X : ITEMS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

gdn_status xpu_gdn_chunk(gdn_queue *q, const xpu_gdn_chunk_args *a, gdn_err *err) {
    const int64_t nk = a->q->shape[1], r = a->v->shape[1] / nk;
    /* Sequence s has room from chunk start / CHUNK + s on: that is one more than it may need. */
    const int64_t n_chunk = a->n_token / CHUNK + a->loc->shape[0] - 1;
    const bool x = takes_x(xpu_of(q), a);
    const int64_t bytes = n_chunk * (x ? (KEYS_X + r * HEAD_X) * 2 : r * WORK * 4);
    int64_t turns = 1;
    while (turns < nk && bytes * ((nk + turns - 1) / turns) > MAX_WORK) turns++;
    const int64_t at_once = (nk + turns - 1) / turns;
    cl_mem work;
    gdn_status st = xpu_scratch(q, 2, (uint64_t)(bytes * at_once), &work, err);
    for (heads h = {0, at_once, r}; h.kh0 < nk && st == GDN_OK; h.kh0 += at_once) {
        if (h.n > nk - h.kh0) h.n = nk - h.kh0;
        st = prepare(q, a, h, x, n_chunk, work, err);
        if (st == GDN_OK) st = scan(q, a, h, x, work, err);
    }
    return st;
}
