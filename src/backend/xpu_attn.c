/* xpu_attn.c - keys and values to their pages and attention over them on the xpu (attn_xpu.cl,
 * attn_prefill_xpu.cl; attn_prefill_xmx_xpu.cl).  All ways of sharing the work out give the same bits;
 * which tier's they are depends on the device and the model, never on the rows of a call. */
#include "xpu.h"

enum {
    ATTN_ITEMS = 64, ATTN_HEADS = 4, ATTN_BLOCK = 256, /* ITEMS, HEADS and BLOCK in attn_xpu.cl */
    ATTN_EIGHTS = 2,          /* and EIGHTS                                          */
    PAIRS = 32, PREFILL_ITEMS = 256, /* in attn_prefill_xpu.cl                       */
    X_PAIRS = 16, X_ITEMS = 128, X_D = 256, /* in attn_prefill_xmx_xpu.cl            */
    PREFILL_ROWS = 8,         /* of a sequence on average, from which tiles pay      */
    FEW_GROUPS = 512,         /* below, blocks of keys are work-groups of their own  */
    MAX_PARTS = 128 << 20,    /* bytes of their results; more are not worth their memory */
};

/* What attn_xpu.cl has as PAGES. */
static void pages(xpu_call *c, const gdn_kv_layout *kv, int64_t n_page, int64_t n_row) {
    xpu_faults(c);
    xpu_tensor(c, &kv->seq_start, 0);
    xpu_tensor(c, &kv->n_past, 0);
    xpu_tensor(c, &kv->page, 1);
    xpu_int(c, kv->n_past.shape[0]);
    xpu_int(c, kv->page.shape[1]);
    xpu_int(c, n_page);
    xpu_int(c, kv->block_size);
    xpu_int(c, n_row);
}

gdn_status xpu_op_attn_store(gdn_queue *q, const gdn_attn_store_args *a, gdn_err *err) {
    const int64_t n_row = a->q.shape[0], hq = a->q.shape[1], hkv = a->k.shape[1];
    xpu_call c = xpu_begin(q, "attn", "attn_store");
    pages(&c, &a->kv, a->k_page.shape[0], n_row);
    xpu_tensor(&c, &a->q_out, 2);
    xpu_tensor(&c, &a->k_page, 3);
    xpu_tensor(&c, &a->v_page, 3);
    xpu_tensor(&c, &a->q, 2);
    xpu_tensor(&c, &a->k, 2);
    xpu_tensor(&c, &a->v, 2);
    xpu_tensor(&c, &a->q_norm, 0);
    xpu_tensor(&c, &a->k_norm, 0);
    xpu_tensor(&c, &a->cs, 1);
    xpu_int(&c, hq);
    xpu_int(&c, hkv);
    xpu_int(&c, a->q.shape[2]);
    xpu_int(&c, a->cs.shape[1]);
    xpu_int(&c, a->k_page.type);
    xpu_float(&c, a->eps);
    const int64_t groups[3] = {hq + 2 * hkv, n_row, 1};
    const int local[3] = {ATTN_ITEMS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

static bool by_fours(const gdn_attn_args *a) {
    return xpu_by_fours(&a->q, 2) && xpu_by_fours(&a->k_page, 3) && xpu_by_fours(&a->v_page, 3);
}

/* What attn_xpu.cl has as `fours`. */
static int loads(const gdn_attn_args *a) {
    const bool wide = a->k_page.type == GDN_BF16 && xpu_lies_on(&a->k_page, 3, 16) &&
                      xpu_lies_on(&a->v_page, 3, 16);
    return wide ? ATTN_EIGHTS : by_fours(a);
}

/* Blocks of keys that a sequence's pages have room for, and what their results take. */
static int64_t blocks(const gdn_attn_args *a) {
    return (a->kv.page.shape[1] * a->kv.block_size + ATTN_BLOCK - 1) / ATTN_BLOCK;
}
static double part_bytes(const gdn_attn_args *a, int64_t n_block) {
    return 4.0 * (double)(a->q.shape[0] * a->q.shape[1]) * (double)n_block *
           (double)(a->k_page.shape[3] + 2);
}

/* One work-group for all keys of a row and some heads. */
static gdn_status whole(gdn_queue *q, const gdn_attn_args *a, int64_t groups_of_row, gdn_err *err) {
    xpu_call c = xpu_begin(q, "attn", "attn");
    pages(&c, &a->kv, a->k_page.shape[0], a->q.shape[0]);
    xpu_tensor(&c, &a->y, 2);
    xpu_tensor(&c, &a->q, 2);
    xpu_tensor(&c, &a->gate, 2);
    xpu_tensor(&c, &a->k_page, 3);
    xpu_tensor(&c, &a->v_page, 3);
    xpu_int(&c, a->q.shape[1] / a->k_page.shape[1]);
    xpu_int(&c, a->k_page.shape[3]);
    xpu_int(&c, a->k_page.type);
    xpu_int(&c, a->y.type);
    xpu_int(&c, a->gate.buf != NULL);
    xpu_float(&c, a->scale);
    xpu_int(&c, loads(a));
    const int64_t groups[3] = {groups_of_row, a->q.shape[0], 1};
    const int local[3] = {ATTN_BLOCK, 1, 1};
    return xpu_start(&c, groups, local, err);
}

/* The blocks' results put together. */
static gdn_status merged(gdn_queue *q, const gdn_attn_args *a, int64_t n_block, cl_mem part,
                         gdn_err *err) {
    const int64_t n_row = a->q.shape[0], hq = a->q.shape[1];
    xpu_call c = xpu_begin(q, "attn", "attn_merge");
    pages(&c, &a->kv, a->k_page.shape[0], n_row);
    xpu_memory(&c, part);
    xpu_tensor(&c, &a->y, 2);
    xpu_tensor(&c, &a->gate, 2);
    xpu_int(&c, hq);
    xpu_int(&c, a->k_page.shape[3]);
    xpu_int(&c, a->y.type);
    xpu_int(&c, a->gate.buf != NULL);
    xpu_int(&c, n_block);
    return xpu_start(&c, (const int64_t[3]){hq, n_row, 1}, (const int[3]){ATTN_ITEMS, 1, 1}, err);
}

/* One for each block of keys that the pages have room for: only the device knows how many there are. */
static gdn_status in_blocks(gdn_queue *q, const gdn_attn_args *a, int64_t groups_of_row,
                            int64_t n_block, cl_mem part, gdn_err *err) {
    const int64_t n_row = a->q.shape[0], hq = a->q.shape[1];
    const int local[3] = {ATTN_BLOCK, 1, 1};
    xpu_call c = xpu_begin(q, "attn", "attn_part");
    pages(&c, &a->kv, a->k_page.shape[0], n_row);
    xpu_memory(&c, part);
    xpu_tensor(&c, &a->q, 2);
    xpu_tensor(&c, &a->k_page, 3);
    xpu_tensor(&c, &a->v_page, 3);
    xpu_int(&c, hq);
    xpu_int(&c, hq / a->k_page.shape[1]);
    xpu_int(&c, a->k_page.shape[3]);
    xpu_int(&c, a->k_page.type);
    xpu_int(&c, n_block);
    xpu_float(&c, a->scale);
    xpu_int(&c, loads(a));
    const int64_t groups[3] = {groups_of_row, n_row, n_block};
    const gdn_status st = xpu_start(&c, groups, local, err);
    return st == GDN_OK ? merged(q, a, n_block, part, err) : st;
}

/* Tiles of rows: only the device knows where sequences begin, so each may have one more. */
static gdn_status in_tiles(gdn_queue *q, const gdn_attn_args *a, gdn_err *err) {
    const int64_t n_row = a->q.shape[0], hkv = a->k_page.shape[1], group = a->q.shape[1] / hkv;
    const int64_t parts = (group + 7) / 8, heads = (group + parts - 1) / parts;
    xpu_call c = xpu_begin(q, "attn_prefill", "attn_prefill");
    pages(&c, &a->kv, a->k_page.shape[0], n_row);
    xpu_tensor(&c, &a->y, 2);
    xpu_tensor(&c, &a->q, 2);
    xpu_tensor(&c, &a->gate, 2);
    xpu_tensor(&c, &a->k_page, 3);
    xpu_tensor(&c, &a->v_page, 3);
    xpu_int(&c, group);
    xpu_int(&c, heads);
    xpu_int(&c, a->k_page.shape[3]);
    xpu_int(&c, a->k_page.type);
    xpu_int(&c, a->y.type);
    xpu_int(&c, a->gate.buf != NULL);
    xpu_float(&c, a->scale);
    xpu_int(&c, by_fours(a));
    const int64_t groups[3] = {hkv * ((group + heads - 1) / heads),
                               n_row / (PAIRS / heads) + a->kv.n_past.shape[0], 1};
    const int local[3] = {PREFILL_ITEMS, 1, 1};
    return xpu_start(&c, groups, local, err);
}

/* What attn_prefill_xmx_xpu.cl has.  It takes a model's rows all or none: the bits are its own. */
static bool for_tier_x(const gdn_queue *q, const gdn_attn_args *a) {
    return xpu_of(q)->sg != 0 && a->k_page.type == GDN_BF16 && a->k_page.shape[3] == X_D &&
           a->kv.block_size % 16 == 0 && by_fours(a);
}

/* Tiles of rows and heads on the matrix engine, all keys of one or blocks of their own. */
static gdn_status tier_x(gdn_queue *q, const gdn_attn_args *a, gdn_err *err) {
    const int64_t n_row = a->q.shape[0], hq = a->q.shape[1], hkv = a->k_page.shape[1];
    const int64_t group = hq / hkv, parts = (group + 7) / 8, heads = (group + parts - 1) / parts;
    const int64_t tiles = n_row / (X_PAIRS / heads) + a->kv.n_past.shape[0];
    const int64_t of_tile = hkv * ((group + heads - 1) / heads);
    int64_t n_block = blocks(a);
    const double bytes = part_bytes(a, n_block);
    cl_mem part = NULL;
    if (n_block < 2 || tiles * of_tile > FEW_GROUPS || bytes > MAX_PARTS) n_block = 1;
    if (n_block > 1) {
        const gdn_status st = xpu_scratch(q, 1, (uint64_t)bytes, &part, err);
        if (st != GDN_OK) return st;
    }
    xpu_call c = xpu_begin(q, "attn_prefill_xmx", "attn_tile");
    pages(&c, &a->kv, a->k_page.shape[0], n_row);
    xpu_memory(&c, part);
    xpu_tensor(&c, &a->y, 2);
    xpu_tensor(&c, &a->q, 2);
    xpu_tensor(&c, &a->gate, 2);
    xpu_tensor(&c, &a->k_page, 3);
    xpu_tensor(&c, &a->v_page, 3);
    xpu_int(&c, hq);
    xpu_int(&c, group);
    xpu_int(&c, heads);
    xpu_int(&c, a->y.type);
    xpu_int(&c, a->gate.buf != NULL);
    xpu_int(&c, n_block);
    xpu_float(&c, a->scale);
    const int local[3] = {X_ITEMS, 1, 1};
    const gdn_status st = xpu_start(&c, (const int64_t[3]){of_tile, tiles, n_block}, local, err);
    return st == GDN_OK && n_block > 1 ? merged(q, a, n_block, part, err) : st;
}

gdn_status xpu_op_attn(gdn_queue *q, const gdn_attn_args *a, gdn_err *err) {
    if (for_tier_x(q, a)) return tier_x(q, a, err);
    const int64_t n_row = a->q.shape[0], hkv = a->k_page.shape[1], group = a->q.shape[1] / hkv;
    const int64_t groups_of_row = hkv * ((group + ATTN_HEADS - 1) / ATTN_HEADS);
    if (n_row >= PREFILL_ROWS * a->kv.n_past.shape[0]) return in_tiles(q, a, err);
    const int64_t n_block = blocks(a);
    const double bytes = part_bytes(a, n_block);
    if (n_block < 2 || n_row * groups_of_row > FEW_GROUPS || bytes > MAX_PARTS)
        return whole(q, a, groups_of_row, err);
    cl_mem part;
    const gdn_status st = xpu_scratch(q, 1, (uint64_t)bytes, &part, err);
    return st == GDN_OK ? in_blocks(q, a, groups_of_row, n_block, part, err) : st;
}
