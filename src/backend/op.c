/* op.c - the public operators: arguments are checked here, once for all devices.
 *
 * A check that fails names operator, argument and values.  Indices (ids, pages, slots) are
 * checked where the host can read them, before anything is written. */
#include "check.h"

gdn_status gdn_op_embed(gdn_queue *q, const gdn_embed_args *a, gdn_err *err) {
    static const char op[] = "embed";
    int64_t vocab, d;
    if (a->weight != NULL) {
        if (a->weight->device != q->device || a->weight->n_expert != 1 ||
            a->weight->type == GDN_F8)
            REFUSE("embed: weight is not a plain f32, bf16 or f16 weight of this device");
        vocab = a->weight->n;
        d = a->weight->k;
    } else {
        CHECK(table, F32 | BF16 | F16, ANY, ANY);
        vocab = a->table.shape[0];
        d = a->table.shape[1];
    }
    CHECK(ids, I32, ANY);
    CHECK(y, F32, a->ids.shape[0], d);
    if (a->weight != NULL) APART(1, ARG(y), ARG(ids));
    else APART(1, ARG(y), ARG(ids), ARG(table));
    const int32_t *ids = gdn_ints(&a->ids);
    for (int64_t i = 0; ids != NULL && i < a->ids.shape[0]; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            REFUSE("embed: ids[%lld] is %d, need 0 to %lld", (long long)i, ids[i],
                   (long long)vocab - 1);
    return RUN(embed);
}

gdn_status gdn_op_rms_norm(gdn_queue *q, const gdn_rms_norm_args *a, gdn_err *err) {
    static const char op[] = "rms_norm";
    if (a->x.ndim == 3) {
        CHECK(x, F32, ANY, ANY, ANY);
        CHECK(y, F32 | BF16, a->x.shape[0], a->x.shape[1], a->x.shape[2]);
        CHECK_OPT(z, F32, a->x.shape[0], a->x.shape[1], a->x.shape[2]);
        CHECK(w, F32, a->x.shape[2]);
    } else {
        CHECK(x, F32, ANY, ANY);
        CHECK(y, F32 | BF16, a->x.shape[0], a->x.shape[1]);
        CHECK_OPT(z, F32, a->x.shape[0], a->x.shape[1]);
        CHECK(w, F32, a->x.shape[1]);
    }
    if (!(a->eps >= 0.0f)) REFUSE("rms_norm: eps is %g", (double)a->eps);
    APART(1, ARG(y), ARG_IN_PLACE(x), ARG_IN_PLACE(z), ARG(w));
    return RUN(rms_norm);
}

gdn_status gdn_op_cast(gdn_queue *q, const gdn_cast_args *a, gdn_err *err) {
    static const char op[] = "cast";
    CHECK(x, F32 | BF16 | F16, ANY, ANY);
    CHECK(y, F32 | BF16 | F16, a->x.shape[0], a->x.shape[1]);
    APART(1, ARG(y), ARG_IN_PLACE(x));
    return RUN(cast);
}

gdn_status gdn_op_linear(gdn_queue *q, const gdn_linear_op_args *a, gdn_err *err) {
    static const char op[] = "linear";
    if (a->w == NULL || a->w->device != q->device || a->w->n_expert != 1)
        REFUSE("linear: w is not a plain weight of this device");
    CHECK(x, F32 | (a->w->input_type == GDN_BF16 ? BF16 : F32), ANY, a->w->k);
    CHECK_OPT(row, I32, ANY);
    const int64_t n_row = a->row.buf != NULL ? a->row.shape[0] : a->x.shape[0];
    CHECK(y, F32, n_row, a->w->n);
    APART(1, ARG(y), ARG(x), ARG(row));
    const int32_t *row = gdn_ints(&a->row);
    for (int64_t i = 0; row != NULL && i < n_row; i++)
        if (row[i] < 0 || row[i] >= a->x.shape[0])
            REFUSE("linear: row[%lld] is %d of %lld rows", (long long)i, row[i],
                   (long long)a->x.shape[0]);
    return RUN(linear);
}

gdn_status gdn_op_rope_angles(gdn_queue *q, const gdn_rope_angles_args *a, gdn_err *err) {
    static const char op[] = "rope_angles";
    CHECK(pos, I32, ANY, 3);
    CHECK(cs, F32, a->pos.shape[0], ANY);
    if (a->cs.shape[1] % 2 != 0) REFUSE("rope_angles: rot is %lld", (long long)a->cs.shape[1]);
    if (!gdn_dense_rows(&a->cs) || !gdn_dense_rows(&a->pos)) REFUSE("rope_angles: cs or pos has gaps");
    APART(1, ARG(cs), ARG(pos));
    return RUN(rope_angles);
}

/* Offsets of n_seq sequences: from 0, ascending, inside the rows. */
static gdn_status check_starts(const char *op, const int32_t *start, int64_t n_seq, int64_t n_row,
                               gdn_err *err) {
    if (start[0] != 0) REFUSE("%s: seq_start[0] is %d, need 0", op, start[0]);
    for (int64_t s = 0; s < n_seq; s++)
        if (start[s + 1] < start[s] || start[s + 1] > n_row)
            REFUSE("%s: seq_start[%lld] is %d, after %d and with %lld rows", op,
                   (long long)s + 1, start[s + 1], start[s], (long long)n_row);
    return GDN_OK;
}

/* Rows, lengths and pages of a step against the pools they go to. */
static gdn_status check_layout(const char *op, const gdn_queue *q, const gdn_kv_layout *kv,
                               int64_t n_row, const gdn_tensor *page, gdn_err *err) {
    const struct {
        gdn_tensor seq_start, n_past, page;
    } view = {kv->seq_start, kv->n_past, kv->page}, *a = &view;
    CHECK(n_past, I32, ANY);
    const int64_t n_seq = a->n_past.shape[0];
    CHECK(seq_start, I32, n_seq + 1);
    CHECK(page, I32, n_seq, ANY);
    const int32_t bs = kv->block_size;
    if (bs < 16 || bs % q->device->backend->kv_block_multiple != 0)
        REFUSE("%s: block_size is %d, need a multiple of %d", op, bs,
               q->device->backend->kv_block_multiple);
    const int32_t *start = gdn_ints(&a->seq_start), *past = gdn_ints(&a->n_past);
    if (start == NULL || past == NULL || a->page.buf->host == NULL) return GDN_OK;
    const gdn_status st = check_starts(op, start, n_seq, n_row, err);
    if (st != GDN_OK) return st;
    for (int64_t s = 0; s < n_seq; s++) {
        const int64_t end = (int64_t)past[s] + start[s + 1] - start[s];
        if (past[s] < 0 || end > a->page.shape[1] * bs)
            REFUSE("%s: sequence %lld needs %lld tokens, its pages hold %lld", op, (long long)s,
                   (long long)end, (long long)(a->page.shape[1] * bs));
        const int32_t *row = (const int32_t *)(const void *)((const char *)gdn_tensor_host(
                                                                 &a->page) +
                                                             s * a->page.stride[0]);
        for (int64_t b = 0; b * bs < end; b++)
            if (row[b] < 0 || row[b] >= page->shape[0])
                REFUSE("%s: page[%lld][%lld] is %d of %lld pages", op, (long long)s,
                       (long long)b, row[b], (long long)page->shape[0]);
    }
    return GDN_OK;
}

gdn_status gdn_op_attn_store(gdn_queue *q, const gdn_attn_store_args *a, gdn_err *err) {
    static const char op[] = "attn_store";
    CHECK(q, F32, ANY, ANY, ANY);
    CHECK(k, F32, a->q.shape[0], ANY, a->q.shape[2]);
    CHECK(v, F32, a->q.shape[0], a->k.shape[1], a->q.shape[2]);
    CHECK(k_page, F32 | BF16, ANY, a->k.shape[1], a->kv.block_size, a->q.shape[2]);
    CHECK(v_page, 1u << a->k_page.type, a->k_page.shape[0], a->k.shape[1], a->kv.block_size,
          a->q.shape[2]);
    CHECK(q_out, 1u << a->k_page.type, a->q.shape[0], a->q.shape[1], a->q.shape[2]);
    CHECK(q_norm, F32, a->q.shape[2]);
    CHECK(k_norm, F32, a->q.shape[2]);
    CHECK(cs, F32, a->q.shape[0], ANY);
    if (a->q.shape[2] > 256) REFUSE("attn_store: head size %lld", (long long)a->q.shape[2]);
    if (a->cs.shape[1] > a->q.shape[2] || a->cs.shape[1] % 2 != 0)
        REFUSE("attn_store: rot is %lld with heads of %lld", (long long)a->cs.shape[1],
               (long long)a->q.shape[2]);
    const gdn_status st = check_layout(op, q, &a->kv, a->q.shape[0], &a->k_page, err);
    if (st != GDN_OK) return st;
    APART(3, ARG(q_out), ARG(k_page), ARG(v_page), ARG(q), ARG(k), ARG(v), ARG(q_norm), ARG(k_norm),
          ARG(cs), ARG_KV(seq_start), ARG_KV(n_past), ARG_KV(page));
    return RUN(attn_store);
}

gdn_status gdn_op_attn(gdn_queue *q, const gdn_attn_args *a, gdn_err *err) {
    static const char op[] = "attention";
    CHECK(k_page, F32 | BF16, ANY, ANY, a->kv.block_size, ANY);
    const int64_t d = a->k_page.shape[3];
    if (d % 8 != 0 || d > 256) REFUSE("attention: head size %lld", (long long)d);
    CHECK(v_page, 1u << a->k_page.type, a->k_page.shape[0], a->k_page.shape[1],
          a->kv.block_size, d);
    CHECK(q, 1u << a->k_page.type, ANY, ANY, d);
    CHECK(y, F32 | BF16, a->q.shape[0], a->q.shape[1], d);
    CHECK_OPT(gate, F32, a->q.shape[0], a->q.shape[1], d);
    if (a->k_page.shape[1] == 0 || a->q.shape[1] == 0 || a->q.shape[1] % a->k_page.shape[1] != 0)
        REFUSE("attention: %lld query heads over %lld key heads", (long long)a->q.shape[1],
               (long long)a->k_page.shape[1]);
    const gdn_status st = check_layout(op, q, &a->kv, a->q.shape[0], &a->k_page, err);
    if (st != GDN_OK) return st;
    APART(1, ARG(y), ARG(q), ARG(gate), ARG(k_page), ARG(v_page), ARG_KV(seq_start), ARG_KV(n_past),
          ARG_KV(page));
    return RUN(attn);
}

/* Whether sequence s uses a line of drafted tokens. */
static bool guesses(const gdn_core_args *a, int64_t s) {
    const int32_t *start = gdn_ints(&a->seq_start);
    return gdn_ints(&a->keep)[s] != 0 && start[s + 1] - start[s] > 1;
}
static bool uses_line(const gdn_core_args *a, int64_t s) {
    return gdn_ints(&a->n_commit)[s] > 0 || guesses(a, s);
}

/* The first sequence whose line an earlier one uses too, or -1.  A step's lines fit the table; the
 * engine's are no more than its sequences. */
static int64_t shared_line(const gdn_core_args *a, int64_t n_seq) {
    enum { TABLE = 8192 };
    const int32_t *index = gdn_ints(&a->line_index);
    uint64_t taken[TABLE / 64] = {0};
    for (int64_t s = 0; s < n_seq; s++) {
        if (!uses_line(a, s)) continue;
        if (a->line.shape[0] <= TABLE) {
            const uint64_t bit = (uint64_t)1 << index[s] % 64;
            if ((taken[index[s] / 64] & bit) != 0) return s;
            taken[index[s] / 64] |= bit;
            continue;
        }
        for (int64_t t = 0; t < s; t++)
            if (index[t] == index[s] && uses_line(a, t)) return s;
    }
    return -1;
}

/* What is to be committed and kept, once offsets are known to be right. */
static gdn_status check_lines(const gdn_core_args *a, int64_t n_seq, gdn_err *err) {
    const int32_t *start = gdn_ints(&a->seq_start), *has_state = gdn_ints(&a->has_state);
    const int32_t *index = gdn_ints(&a->line_index), *commit = gdn_ints(&a->n_commit);
    const int32_t *keep = gdn_ints(&a->keep), *slot = gdn_ints(&a->slot);
    const int32_t *spare = a->spare.buf != NULL ? gdn_ints(&a->spare) : NULL;
    const int64_t K = a->line.shape[1], slots = a->conv_state.shape[0];
    if (has_state == NULL || index == NULL || commit == NULL || keep == NULL) return GDN_OK;
    for (int64_t s = 0; s < n_seq; s++) {
        const int32_t n = start[s + 1] - start[s];
        if (commit[s] < 0 || commit[s] > K)
            REFUSE("gdn_core: n_commit[%lld] is %d, need 0 to %lld", (long long)s, commit[s],
                   (long long)K);
        if (commit[s] > 0 && has_state[s] == 0)
            REFUSE("gdn_core: n_commit[%lld] is %d and has_state[%lld] is 0", (long long)s,
                   commit[s], (long long)s);
        if (keep[s] != 0 && keep[s] != 1)
            REFUSE("gdn_core: keep[%lld] is %d, need 0 or 1", (long long)s, keep[s]);
        if (keep[s] == 1 && n > K + 1)
            REFUSE("gdn_core: sequence %lld has %d guesses, a line %lld rows", (long long)s, n - 1,
                   (long long)K);
        if (spare != NULL && guesses(a, s) &&
            (spare[s] < -1 || spare[s] >= slots || spare[s] == slot[s]))
            REFUSE("gdn_core: spare[%lld] is %d of %lld, the slot %d", (long long)s, spare[s],
                   (long long)slots, slot[s]);
        if (uses_line(a, s) && (index[s] < 0 || index[s] >= a->line.shape[0]))
            REFUSE("gdn_core: line_index[%lld] is %d of %lld", (long long)s, index[s],
                   (long long)a->line.shape[0]);
    }
    const int64_t twice = shared_line(a, n_seq);
    if (twice >= 0)
        REFUSE("gdn_core: line_index[%lld]: line %d belongs to two sequences", (long long)twice,
               index[twice]);
    return GDN_OK;
}

gdn_status gdn_op_gdn_core(gdn_queue *q, const gdn_core_args *a, gdn_err *err) {
    static const char op[] = "gdn_core";
    CHECK(core, F32, ANY, ANY, ANY);
    const int64_t n_row = a->core.shape[0], hv = a->core.shape[1], dv = a->core.shape[2];
    if (a->hk < 1 || hv % a->hk != 0)
        REFUSE("gdn_core: %lld value heads over %d key heads", (long long)hv, a->hk);
    if (a->dk < 8 || a->dk % 8 != 0 || a->dk > 256) REFUSE("gdn_core: dk is %d", a->dk);
    const int64_t C = 2 * (int64_t)a->hk * a->dk + hv * dv;
    CHECK(qkv, F32, n_row, C);
    CHECK(b, F32, n_row, hv);
    CHECK(a, F32, n_row, hv);
    CHECK(conv_w, F32, ANY, C);
    const int64_t W = a->conv_w.shape[0];
    if (W < 2 || W > 8) REFUSE("gdn_core: convolution width %lld", (long long)W);
    CHECK_OPT(conv_bias, F32, C);
    CHECK(conv_state, F32 | BF16, ANY, W - 1, C);
    CHECK(ssm_state, F32, a->conv_state.shape[0], hv, dv, a->dk);
    CHECK(A_log, F32, hv);
    CHECK(dt_bias, F32, hv);
    CHECK(slot, I32, ANY);
    const int64_t n_seq = a->slot.shape[0];
    CHECK(seq_start, I32, n_seq + 1);
    CHECK(has_state, I32, n_seq);
    const bool lines = a->line.buf != NULL;
    int64_t n_work = n_row;
    if ((a->line_index.buf != NULL) != lines || (a->n_commit.buf != NULL) != lines ||
        (a->keep.buf != NULL) != lines)
        REFUSE("gdn_core: line, line_index, n_commit and keep come together or not at all");
    if (a->spare.buf != NULL && !lines) REFUSE("gdn_core: spare without a line");
    if (lines) {
        CHECK(line, F32, ANY, ANY, C + 2 * hv);
        CHECK(line_index, I32, n_seq);
        CHECK(n_commit, I32, n_seq);
        CHECK(keep, I32, n_seq);
        CHECK_OPT(spare, I32, n_seq);
        const int64_t K = a->line.shape[1];
        if (K < 1 || K > 256) REFUSE("gdn_core: a line of %lld rows, need 1 to 256", (long long)K);
        n_work += n_seq * K;
    }
    CHECK(work_qkv, F32, n_work, C);
    CHECK(work_gate, F32, n_work, 2, hv);
    if (!gdn_dense_rows(&a->conv_w) || (n_work > 0 && a->work_gate.stride[1] != hv * 4))
        REFUSE("gdn_core: conv_w or work_gate has gaps");
    APART(6, ARG(core), ARG(conv_state), ARG(ssm_state), ARG(line), ARG(work_qkv), ARG(work_gate),
          ARG(qkv), ARG(b), ARG(a), ARG(conv_w), ARG(conv_bias), ARG(A_log), ARG(dt_bias),
          ARG(seq_start), ARG(slot), ARG(has_state), ARG(line_index), ARG(n_commit), ARG(keep),
          ARG(spare));
    const int32_t *slot = gdn_ints(&a->slot), *start = gdn_ints(&a->seq_start);
    if (slot == NULL || start == NULL) return RUN(gdn_core);
    gdn_status st = check_starts(op, start, n_seq, n_row, err);
    if (st != GDN_OK) return st;
    for (int64_t s = 0; s < n_seq; s++) {
        if (slot[s] < 0 || slot[s] >= a->conv_state.shape[0])
            REFUSE("gdn_core: slot[%lld] is %d of %lld", (long long)s, slot[s],
                   (long long)a->conv_state.shape[0]);
    }
    if (lines && (st = check_lines(a, n_seq, err)) != GDN_OK) return st;
    return RUN(gdn_core);
}

gdn_status gdn_op_swiglu(gdn_queue *q, const gdn_swiglu_op_args *a, gdn_err *err) {
    static const char op[] = "swiglu";
    CHECK(y, F32 | BF16, ANY, ANY);
    CHECK(x, F32, a->y.shape[0], 2 * a->y.shape[1]);
    APART(1, ARG(y), ARG(x));
    return RUN(swiglu);
}

gdn_status gdn_op_moe_route(gdn_queue *q, const gdn_moe_route_op_args *a, gdn_err *err) {
    static const char op[] = "moe_route";
    CHECK(logits, F32, ANY, ANY);
    CHECK(expert, I32, a->logits.shape[0], ANY);
    CHECK(weight, F32, a->logits.shape[0], a->expert.shape[1]);
    if (a->expert.shape[1] < 1 || a->expert.shape[1] > a->logits.shape[1] ||
        a->logits.shape[1] > 1024)
        REFUSE("moe_route: %lld of %lld experts", (long long)a->expert.shape[1],
               (long long)a->logits.shape[1]);
    APART(2, ARG(expert), ARG(weight), ARG(logits));
    return RUN(moe_route);
}

gdn_status gdn_op_moe_experts(gdn_queue *q, const gdn_moe_experts_args *a, gdn_err *err) {
    static const char op[] = "moe_experts";
    if (a->gate_up == NULL || a->down == NULL || a->gate_up->device != q->device ||
        a->down->device != q->device || a->gate_up->n_expert != a->down->n_expert ||
        a->gate_up->k != a->down->n || a->gate_up->n != 2 * (int64_t)a->down->k)
        REFUSE("moe_experts: gate_up and down do not fit each other");
    const int64_t d = a->down->n, n = a->down->k;
    CHECK(expert, I32, ANY, ANY);
    const int64_t n_row = a->expert.shape[0], top = a->expert.shape[1];
    if (top > 1024) REFUSE("moe_experts: %lld experts a row, need at most 1024", (long long)top);
    CHECK(x, F32 | (a->gate_up->input_type == GDN_BF16 ? BF16 : F32), n_row, d);
    CHECK(y, F32, n_row, top, d);
    CHECK(work_gu, F32, n_row * top, 2 * n);
    CHECK(work_h, F32 | 1u << a->down->input_type, n_row * top, n);
    CHECK(work_index, I32, 2 * n_row * top + a->down->n_expert + 1);
    APART(4, ARG(y), ARG(work_gu), ARG(work_h), ARG(work_index), ARG(x), ARG(expert));
    if (a->adapter.buf != NULL) {
        const gdn_status st = gdn_check_expert_lora(q, a, err);
        if (st != GDN_OK) return st;
    }
    return RUN(moe_experts);
}

gdn_status gdn_op_moe_combine(gdn_queue *q, const gdn_moe_combine_op_args *a, gdn_err *err) {
    static const char op[] = "moe_combine";
    CHECK(y, F32, ANY, ANY);
    CHECK(weight, F32, a->y.shape[0], ANY);
    CHECK(e, F32, a->y.shape[0], a->weight.shape[1], a->y.shape[1]);
    CHECK_OPT(shared, F32, a->y.shape[0], a->y.shape[1]);
    if (a->shared.buf != NULL) CHECK(gate, F32, a->y.shape[0], 1);
    if (a->shared.buf == NULL) APART(1, ARG(y), ARG(weight), ARG(e));
    else APART(1, ARG(y), ARG(weight), ARG(e), ARG(shared), ARG(gate));
    return RUN(moe_combine);
}
