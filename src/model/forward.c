/* forward.c - the forward pass: rows of several sequences through layers, head and MTP head.
 *
 *     h += mixer(norm(h))      mixer: Gated DeltaNet or gated attention
 *     h += ffn(norm(h))        ffn:   SwiGLU, or a mixture of experts with a shared one
 *
 * Equations and shapes: MODEL.md.  Everything is ops on a queue; nothing here touches data. */
#include <math.h>

#include "model.h"

#define TRY(call)                                                                         \
    do {                                                                                  \
        const gdn_status st_ = (call);                                                    \
        if (st_ != GDN_OK) return st_;                                                    \
    } while (0)

static int64_t rows_of(const gdn_rows *r) { return r->ids.shape[0]; }

static gdn_tensor head_rows(gdn_tensor t, int64_t n) { return gdn_tensor_slice(t, 0, 0, n); }

/* The first n_row rows and n columns of a scratch matrix. */
static gdn_tensor matrix(gdn_tensor t, int64_t n_row, int64_t n) {
    return gdn_tensor_slice(head_rows(t, n_row), 1, 0, n);
}

static gdn_tensor columns(gdn_tensor t, int64_t begin, int64_t n) {
    return gdn_tensor_slice(t, 1, begin, begin + n);
}

/* [n_row, n_head * d] as [n_row, n_head, d], heads `apart` columns from each other. */
static gdn_tensor heads(gdn_tensor t, int64_t n_head, int64_t d, int64_t apart) {
    t.ndim = 3;
    t.shape[1] = n_head;
    t.shape[2] = d;
    t.stride[2] = t.stride[1];
    t.stride[1] = apart * t.stride[2];
    return t;
}

/* What adapters add to one matrix's product; row: as in gdn_lora_op_args. */
static gdn_status adapt(gdn_forward *f, const gdn_piece *p, gdn_tensor x, gdn_tensor y,
                        gdn_tensor row, gdn_err *err) {
    const gdn_model *m = f->m;
    if (f->ws->adapter.buf == NULL || m->site == NULL || m->site[p->index].n_used == 0)
        return GDN_OK;
    gdn_lora_op_args a = {.y = y,
                          .x = x,
                          .adapter = f->ws->adapter,
                          .row = row,
                          .lora = m->site[p->index].lora,
                          .n_lora = GDN_MAX_ADAPTER,
                          .work = head_rows(f->ws->lora, y.shape[0])};
    return gdn_op_lora(f->q, &a, err);
}

static gdn_status project(gdn_forward *f, const gdn_projection *p, gdn_tensor x, gdn_tensor y,
                          bool add, gdn_err *err) {
    int64_t at = 0;
    for (int32_t i = 0; i < p->n; i++) {
        const gdn_weight_shape s = gdn_weight_get_shape(p->w[i]);
        gdn_linear_op_args a = {
            .y = columns(y, at, s.n), .x = x, .w = p->w[i], .add = add};
        TRY(gdn_op_linear(f->q, &a, err));
        at += s.n;
    }
    for (int32_t i = 0; i < p->n_piece; i++)
        TRY(adapt(f, &p->piece[i], x, columns(y, p->piece[i].at, p->piece[i].n), (gdn_tensor){0},
                  err));
    return GDN_OK;
}

/* Whether an adapter of this step's rows may add to a projection: its inputs are needed then, and
 * its outputs before the gate. */
static bool adapted(const gdn_forward *f, const gdn_projection *p) {
    if (f->ws->adapter.buf == NULL || f->m->site == NULL) return false;
    for (int32_t i = 0; i < p->n_piece; i++)
        if (f->m->site[p->piece[i].index].n_used > 0) return true;
    return false;
}

/* A projection with the norm before it and the gate behind it; a lacks what p and the workspace
 * know. */
static gdn_status project_all(gdn_forward *f, const gdn_projection *p, gdn_project_args a,
                              gdn_err *err) {
    a.eps = (float)f->m->config.eps;
    if (p->n == 1 && !adapted(f, p)) {
        a.w = p->w[0];
        return gdn_op_project(f->q, &a, err);
    }
    gdn_tensor x = a.x;
    if (a.norm_w.buf != NULL) {
        gdn_rms_norm_args n = {.y = a.work_x, .x = a.x, .z = a.z, .w = a.norm_w, .eps = a.eps};
        if (a.x.ndim == 3) n.y = heads(a.work_x, a.x.shape[1], a.x.shape[2], a.x.shape[2]);
        TRY(gdn_op_rms_norm(f->q, &n, err));
        x = a.work_x;
    }
    TRY(project(f, p, x, a.swiglu ? a.work_y : a.y, a.add, err));
    const gdn_swiglu_op_args s = {.y = a.y, .x = a.work_y};
    return a.swiglu ? gdn_op_swiglu(f->q, &s, err) : GDN_OK;
}

static gdn_status norm(gdn_forward *f, gdn_tensor y, gdn_tensor x, gdn_tensor w, gdn_err *err) {
    gdn_rms_norm_args a = {.y = y, .x = x, .w = w, .eps = (float)f->m->config.eps};
    return gdn_op_rms_norm(f->q, &a, err);
}

/* The projection that a layer begins with. */
static gdn_status project_in(gdn_forward *f, const gdn_layer *l, int64_t T, gdn_tensor y,
                             gdn_err *err) {
    const gdn_project_args a = {.y = y,
                                .x = head_rows(f->ws->h, T),
                                .norm_w = l->input_norm,
                                .work_x = head_rows(f->ws->xn, T)};
    return project_all(f, &l->in, a, err);
}

/* --- mixers ------------------------------------------------------------------------ */

static void kv_pages(const gdn_forward *f, const gdn_layer *l, gdn_tensor *k, gdn_tensor *v) {
    const gdn_config *c = &f->m->config;
    const int64_t shape[4] = {f->pool->n_page, c->hkv, f->pool->block_size, c->head_dim};
    *k = gdn_tensor_dense(f->pool->storage[l->storage], 0, f->m->kv, 4, shape);
    const uint64_t half = (uint64_t)k->stride[0];
    k->stride[0] = (int64_t)f->pool->page_bytes;
    *v = *k;
    v->at += half;
}

static gdn_status attention_layer(gdn_forward *f, const gdn_layer *l, const gdn_rows *rows,
                                  gdn_err *err) {
    const gdn_config *c = &f->m->config;
    gdn_workspace *ws = f->ws;
    const int64_t T = rows_of(rows), D = c->head_dim, hq = c->hq, hkv = c->hkv;
    const gdn_tensor proj = matrix(ws->proj, T, l->in.n_out);
    TRY(project_in(f, l, T, proj, err));

    gdn_attn_store_args s = {
        .q_out = head_rows(ws->q, T),
        .q = heads(proj, hq, D, 2 * D),
        .k = heads(columns(proj, 2 * hq * D, hkv * D), hkv, D, D),
        .v = heads(columns(proj, (2 * hq + hkv) * D, hkv * D), hkv, D, D),
        .q_norm = l->q_norm,
        .k_norm = l->k_norm,
        .cs = head_rows(ws->cs, T),
        .kv = rows->kv,
        .eps = (float)c->eps,
    };
    kv_pages(f, l, &s.k_page, &s.v_page);
    TRY(gdn_op_attn_store(f->q, &s, err));

    const gdn_tensor y = matrix(ws->act, T, hq * D);
    gdn_attn_args a = {
        .y = heads(y, hq, D, D),
        .q = s.q_out,
        .gate = heads(columns(proj, D, (2 * hq - 1) * D), hq, D, 2 * D),
        .k_page = s.k_page,
        .v_page = s.v_page,
        .kv = rows->kv,
        .scale = (float)(1.0 / sqrt((double)D)),
    };
    TRY(gdn_op_attn(f->q, &a, err));
    return project(f, &l->out, y, head_rows(ws->h, T), true, err);
}

/* What the core needs of a layer and of the step; core, qkv, b and a are the caller's. */
static gdn_core_args core_args(const gdn_forward *f, const gdn_layer *l, const gdn_rows *rows) {
    const gdn_config *c = &f->m->config;
    const gdn_workspace *ws = f->ws;
    const int64_t hv = c->hv, dv = c->dv, W = c->conv_width, T = rows_of(rows);
    const int64_t C = 2 * (int64_t)c->hk * c->dk + hv * dv;
    const int64_t conv_shape[3] = {f->pool->n_page, W - 1, C};
    const int64_t ssm_shape[4] = {f->pool->n_page, hv, dv, c->dk};
    gdn_core_args a = {
        .core = heads(head_rows(ws->core, T), hv, dv, dv),
        .conv_state = gdn_tensor_dense(f->pool->storage[l->storage], 0, f->m->conv, 3, conv_shape),
        .ssm_state = gdn_tensor_dense(f->pool->storage[l->storage], f->pool->conv_bytes, GDN_F32,
                                      4, ssm_shape),
        .conv_w = l->conv_w,
        .A_log = l->A_log,
        .dt_bias = l->dt_bias,
        .seq_start = rows->kv.seq_start,
        .slot = rows->slot[l->group],
        .has_state = rows->has_state,
        .work_qkv = head_rows(ws->conv, T),
        .work_gate = head_rows(ws->gate, T),
        .hk = c->hk,
        .dk = c->dk,
    };
    a.conv_state.stride[0] = a.ssm_state.stride[0] = (int64_t)f->pool->page_bytes;
    if (rows->line != NULL) {
        const int64_t shape[3] = {rows->n_line, rows->line_rows, C + 2 * hv};
        const uint64_t bytes = (uint64_t)shape[0] * (uint64_t)shape[1] * (uint64_t)shape[2] * 4;
        const uint64_t at = (uint64_t)(l->group * f->m->n_storage + l->storage) * bytes;
        const int64_t more = a.slot.shape[0] * rows->line_rows;
        a.line = gdn_tensor_dense(rows->line, at, GDN_F32, 3, shape);
        a.line_index = rows->line_index;
        a.n_commit = rows->n_commit;
        a.keep = rows->keep;
        a.spare = rows->spare[l->group];
        a.work_qkv = head_rows(ws->conv, T + more);
        a.work_gate = head_rows(ws->gate, T + more);
    }
    return a;
}

static gdn_status gdn_layer_rows(gdn_forward *f, const gdn_layer *l, const gdn_rows *rows,
                                 gdn_err *err) {
    const gdn_config *c = &f->m->config;
    gdn_workspace *ws = f->ws;
    const int64_t T = rows_of(rows), hv = c->hv, dv = c->dv, Vd = hv * dv;
    const int64_t C = 2 * (int64_t)c->hk * c->dk + Vd;
    const gdn_tensor proj = matrix(ws->proj, T, l->in.n_out);
    TRY(project_in(f, l, T, proj, err));

    gdn_core_args a = core_args(f, l, rows);
    a.qkv = columns(proj, 0, C);
    a.b = columns(proj, C + Vd, hv);
    a.a = columns(proj, C + Vd + hv, hv);
    TRY(gdn_op_gdn_core(f->q, &a, err));

    const gdn_project_args out = {.y = head_rows(ws->h, T),
                                  .x = a.core,
                                  .z = heads(columns(proj, C, Vd), hv, dv, dv),
                                  .norm_w = l->gated_norm,
                                  .add = true,
                                  .work_x = matrix(ws->act, T, Vd)};
    return project_all(f, &l->out, out, err);
}

/* --- feed-forward ------------------------------------------------------------------- */

/* y (+)= down swiglu(gate_up norm(h)); without a norm the input is xn. */
static gdn_status mlp_rows(gdn_forward *f, const gdn_mlp *mlp, int64_t T, gdn_tensor norm_w,
                           gdn_tensor y, bool add, gdn_err *err) {
    gdn_workspace *ws = f->ws;
    const gdn_tensor xn = head_rows(ws->xn, T);
    const gdn_project_args a = {.y = matrix(ws->act, T, mlp->gate_up.n_out / 2),
                                .x = norm_w.buf != NULL ? head_rows(ws->h, T) : xn,
                                .norm_w = norm_w,
                                .swiglu = true,
                                .work_x = xn,
                                .work_y = matrix(ws->proj, T, mlp->gate_up.n_out)};
    TRY(project_all(f, &mlp->gate_up, a, err));
    return project(f, &mlp->down, a.y, y, add, err);
}

static gdn_status moe_rows(gdn_forward *f, const gdn_moe *moe, int64_t T, gdn_err *err) {
    const gdn_config *c = &f->m->config;
    gdn_workspace *ws = f->ws;
    const int64_t E = c->n_expert, top = c->top_k, d = c->d;
    const gdn_tensor xn = head_rows(ws->xn, T), logits = head_rows(ws->router, T);
    TRY(project(f, &moe->router, xn, logits, false, err));
    gdn_moe_route_op_args r = {.expert = head_rows(ws->expert, T),
                               .weight = head_rows(ws->weight, T),
                               .logits = columns(logits, 0, E),
                               .normalise = c->norm_topk};
    TRY(gdn_op_moe_route(f->q, &r, err));
    gdn_moe_experts_args e = {.y = heads(head_rows(ws->expert_out, T), top, d, d),
                              .x = xn,
                              .expert = r.expert,
                              .gate_up = moe->gate_up,
                              .down = moe->down,
                              .work_gu = head_rows(ws->expert_gu, T * top),
                              .work_h = head_rows(ws->expert_h, T * top),
                              .work_index = gdn_tensor_slice(ws->expert_index, 0, 0,
                                                             2 * T * top + E + 1)};
    if (moe->n_lora > 0 && ws->adapter.buf != NULL) {
        e.adapter = ws->adapter;
        e.lora = moe->lora;
        e.n_lora = GDN_MAX_ADAPTER;
    }
    TRY(gdn_op_moe_experts(f->q, &e, err));
    gdn_moe_combine_op_args s = {.y = head_rows(ws->h, T), .e = e.y, .weight = r.weight};
    if (c->shared_ffn > 0) {
        s.shared = head_rows(ws->shared, T);
        s.gate = columns(logits, E, 1);
        TRY(mlp_rows(f, &moe->shared, T, (gdn_tensor){0}, s.shared, false, err));
    }
    return gdn_op_moe_combine(f->q, &s, err);
}

static gdn_status layer_rows(gdn_forward *f, const gdn_layer *l, const gdn_rows *rows,
                             gdn_err *err) {
    const int64_t T = rows_of(rows);
    const gdn_tensor h = head_rows(f->ws->h, T);
    TRY(l->full ? attention_layer(f, l, rows, err) : gdn_layer_rows(f, l, rows, err));
    if (!l->moe) return mlp_rows(f, &l->mlp, T, l->post_norm, h, true, err);
    TRY(norm(f, head_rows(f->ws->xn, T), h, l->post_norm, err));
    return moe_rows(f, &l->experts, T, err);
}

/* --- the whole ------------------------------------------------------------------------ */

static gdn_status embed(gdn_forward *f, gdn_tensor ids, gdn_tensor y, gdn_err *err) {
    gdn_embed_args a = {.y = y, .ids = ids, .table = f->m->embed};
    if (f->m->embed.buf == NULL) a.weight = f->m->head;
    return gdn_op_embed(f->q, &a, err);
}

static gdn_status angles(gdn_forward *f, const gdn_rows *rows, gdn_err *err) {
    const gdn_config *c = &f->m->config;
    gdn_rope_angles_args a = {.cs = head_rows(f->ws->cs, rows_of(rows)),
                              .pos = rows->pos,
                              .theta = c->rope_theta,
                              .section = {c->mrope_section[0], c->mrope_section[1],
                                          c->mrope_section[2]},
                              .mrope = c->mrope};
    return gdn_op_rope_angles(f->q, &a, err);
}

gdn_status gdn_forward_rows(gdn_forward *f, const gdn_rows *rows, gdn_err *err) {
    const gdn_model *m = f->m;
    const int64_t T = rows_of(rows);
    const gdn_tensor h = head_rows(f->ws->h, T), last = head_rows(f->ws->last, T);
    f->ws->adapter = rows->adapter;
    TRY(embed(f, rows->ids, h, err));
    TRY(angles(f, rows, err));
    for (int32_t i = 0; i < m->config.n_layer; i++) {
        if (f->tap != NULL) f->tap(f->tap_arg, i, &h);
        TRY(layer_rows(f, m->layer + i, rows, err));
    }
    TRY(norm(f, last, h, m->norm, err));
    if (f->tap != NULL) f->tap(f->tap_arg, m->config.n_layer, &last);
    return GDN_OK;
}

gdn_status gdn_forward_commit(gdn_forward *f, const gdn_rows *rows, gdn_err *err) {
    const gdn_model *m = f->m;
    const int64_t hv = m->config.hv, C = 2 * (int64_t)m->config.hk * m->config.dk +
                                         hv * m->config.dv;
    for (int32_t i = 0; i < m->config.n_layer; i++) {
        if (m->layer[i].full) continue;
        gdn_core_args a = core_args(f, m->layer + i, rows);
        const gdn_tensor none = matrix(f->ws->proj, 0, m->layer[i].in.n_out);
        a.qkv = columns(none, 0, C);
        a.b = columns(none, C, hv);
        a.a = columns(none, C + hv, hv);
        TRY(gdn_op_gdn_core(f->q, &a, err));
    }
    return GDN_OK;
}

gdn_status gdn_forward_logits(gdn_forward *f, gdn_tensor row, gdn_err *err) {
    gdn_workspace *ws = f->ws;
    const int64_t n = row.shape[0];
    /* The rows wanted, gathered and in the type that the product likes. */
    const gdn_tensor h = head_rows(ws->h, n), xn = head_rows(ws->xn, n);
    gdn_embed_args g = {.y = h, .ids = row, .table = ws->last};
    TRY(gdn_op_embed(f->q, &g, err));
    gdn_linear_op_args a = {.y = head_rows(ws->logits, n), .x = h, .w = f->m->head};
    if (f->m->act == GDN_BF16) {
        gdn_cast_args c = {.y = xn, .x = h};
        TRY(gdn_op_cast(f->q, &c, err));
        a.x = xn;
    }
    TRY(gdn_op_linear(f->q, &a, err));
    return adapt(f, &f->m->head_piece, a.x, a.y, row, err);
}

gdn_status gdn_forward_mtp(gdn_forward *f, const gdn_rows *rows, gdn_tensor hidden, int64_t at,
                           gdn_err *err) {
    const gdn_mtp *p = &f->m->mtp;
    gdn_workspace *ws = f->ws;
    const int64_t T = rows_of(rows), d = f->m->config.d;
    const gdn_tensor h = head_rows(ws->h, T), pair = head_rows(ws->pair, T);
    ws->adapter = rows->adapter;
    /* pair = [norm(embedding of the next token) | norm(hidden)] */
    TRY(embed(f, rows->ids, h, err));
    TRY(norm(f, columns(pair, 0, d), h, p->embed_norm, err));
    gdn_embed_args g = {.y = h, .ids = hidden, .table = ws->last};
    TRY(gdn_op_embed(f->q, &g, err));
    TRY(norm(f, columns(pair, d, d), h, p->hidden_norm, err));
    TRY(project(f, &p->fc, pair, h, false, err));
    TRY(angles(f, rows, err));
    TRY(layer_rows(f, &p->layer, rows, err));
    return norm(f, gdn_tensor_slice(ws->last, 0, at, at + T), h, p->norm, err);
}
