/* workspace.c - the scratch tensors of a step, cut out of one buffer. */
#include "../base/err.h"
#include "model.h"

typedef struct {
    gdn_buffer *buf; /* NULL while sizes are only added up */
    uint64_t    at;
} cutter;

static gdn_tensor cut(cutter *c, gdn_type type, int64_t rows, int64_t cols) {
    const int64_t shape[2] = {rows, cols};
    const gdn_tensor t = gdn_tensor_dense(c->buf, c->at, type, 2, shape);
    c->at += ((uint64_t)(rows * cols) * (uint64_t)gdn_type_bytes(type) + 63) / 64 * 64;
    return t;
}

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static void widen(const gdn_layer *l, int64_t *proj, int64_t *act) {
    *proj = max64(*proj, l->in.n_out);
    const gdn_mlp *mlp = l->moe ? &l->experts.shared : &l->mlp;
    *proj = max64(*proj, mlp->gate_up.n_out);
    *act = max64(*act, mlp->gate_up.n_out / 2);
}

static void layout(const gdn_model *m, const gdn_step_size *size, gdn_workspace *ws,
                   cutter *cut_from) {
    const gdn_config *c = &m->config;
    const int64_t R = size->n_row, d = c->d, Vd = (int64_t)c->hv * c->dv;
    const int64_t C = 2 * (int64_t)c->hk * c->dk + Vd;
    int64_t proj = 1, act = max64(Vd, (int64_t)c->hq * c->head_dim);
    for (int32_t i = 0; i < c->n_layer; i++) widen(m->layer + i, &proj, &act);
    if (m->has_mtp) widen(&m->mtp.layer, &proj, &act);
    ws->h = cut(cut_from, GDN_F32, R, d);
    ws->xn = cut(cut_from, m->act, R, d);
    ws->proj = cut(cut_from, GDN_F32, R, proj);
    ws->act = cut(cut_from, m->act, R, act);
    ws->cs = cut(cut_from, GDN_F32, R, c->rot);
    ws->q = cut(cut_from, m->kv, R, (int64_t)c->hq * c->head_dim);
    ws->q.ndim = 3;
    ws->q.shape[1] = c->hq;
    ws->q.shape[2] = c->head_dim;
    ws->q.stride[2] = ws->q.stride[1];
    ws->q.stride[1] *= c->head_dim;
    ws->conv = cut(cut_from, GDN_F32, R + size->n_line_row, C);
    ws->core = cut(cut_from, GDN_F32, R, Vd);
    ws->gate = cut(cut_from, GDN_F32, R + size->n_line_row, 2 * (int64_t)c->hv);
    ws->gate.ndim = 3;
    ws->gate.shape[1] = 2;
    ws->gate.shape[2] = c->hv;
    ws->gate.stride[2] = ws->gate.stride[1];
    ws->gate.stride[1] *= c->hv;
    if (c->n_expert > 0) {
        const int64_t top = c->top_k;
        ws->router = cut(cut_from, GDN_F32, R, c->n_expert + (c->shared_ffn > 0 ? 1 : 0));
        ws->expert = cut(cut_from, GDN_I32, R, top);
        ws->weight = cut(cut_from, GDN_F32, R, top);
        ws->shared = cut(cut_from, GDN_F32, R, d);
        ws->expert_gu = cut(cut_from, GDN_F32, R * top, 2 * (int64_t)c->moe_ffn);
        ws->expert_h = cut(cut_from, m->act, R * top, c->moe_ffn);
        ws->expert_out = cut(cut_from, GDN_F32, R, top * d);
        ws->expert_index = cut(cut_from, GDN_I32, 1, 2 * R * top + c->n_expert + 1);
        ws->expert_index.ndim = 1;
        ws->expert_index.shape[0] = ws->expert_index.shape[1];
        ws->expert_index.stride[0] = ws->expert_index.stride[1];
    }
    ws->last = cut(cut_from, GDN_F32, R + size->n_kept, d);
    if (m->has_mtp) ws->pair = cut(cut_from, m->act, R, 2 * d);
    ws->lora = cut(cut_from, GDN_F32, R, GDN_MAX_RANK);
    ws->adapter = (gdn_tensor){0};
    ws->logits = cut(cut_from, GDN_F32, size->n_logit, c->vocab);
}

gdn_status gdn_workspace_create(gdn_model *m, const gdn_step_size *size, gdn_workspace *ws,
                                gdn_buffer **buf, gdn_err *err) {
    cutter c = {0};
    layout(m, size, ws, &c);
    const gdn_status st = gdn_buffer_alloc(m->device, c.at, &c.buf, err);
    if (st != GDN_OK) return st;
    c.at = 0;
    layout(m, size, ws, &c);
    *buf = c.buf;
    return GDN_OK;
}
