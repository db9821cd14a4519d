/* model.c - opening a checkpoint, and what is known about it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/backend.h"
#include "../base/log.h"
#include "../base/switch.h"
#include "model.h"

const char *gdn_version(void) { return GDN_VERSION; }

void gdn_model_opts_defaults(gdn_model_opts *o) { *o = (gdn_model_opts){.math = GDN_MATH_FAST}; }

void gdn_model_close(gdn_model *m) {
    if (m == NULL) return;
    for (int32_t i = 0; i < m->n_owned; i++) gdn_weight_free(m->owned[i]);
    free(m->owned);
    free(m->layer);
    free(m->site);
    gdn_buffer_free(m->vector);
    gdn_buffer_free(m->embed_buf);
    gdn_device_close(m->device);
    gdn_weights_close(m->weights);
    free(m->dir);
    free(m);
}

void *gdn_model_fill(gdn_buffer *b) {
    return b->host != NULL ? b->host : calloc(1, gdn_buffer_bytes(b));
}

gdn_status gdn_model_sent(gdn_buffer *b, void *filled, gdn_status st, gdn_err *err) {
    if (filled == b->host) return st;
    gdn_queue *q = NULL;
    if (st == GDN_OK) st = gdn_queue_create(b->device, &q, err);
    if (st == GDN_OK) st = gdn_queue_write(q, b, 0, filled, gdn_buffer_bytes(b), err);
    if (st == GDN_OK) st = gdn_queue_wait(q, err);
    gdn_queue_free(q);
    free(filled);
    return st;
}

const gdn_model_info *gdn_model_get_info(const gdn_model *m) { return &m->info; }

static void add_stop(gdn_model *m, int32_t id) {
    for (int32_t i = 0; i < m->info.n_stop; i++)
        if (m->stop[i] == id) return;
    if (id >= 0 && id < m->config.vocab) m->stop[m->info.n_stop++] = id;
}

static void fill_hints(gdn_model *m, const gdn_genconfig *g) {
    gdn_sampling_hints *h = &m->info.hints;
    h->has_temperature = g->has_temperature;
    h->has_top_k = g->has_top_k;
    h->has_top_p = g->has_top_p;
    h->has_min_p = g->has_min_p;
    h->has_presence = g->has_presence;
    h->has_frequency = g->has_frequency;
    h->has_repetition = g->has_repetition;
    h->greedy = g->has_do_sample && !g->do_sample;
    h->temperature = (float)g->temperature;
    h->top_k = g->top_k;
    h->top_p = (float)g->top_p;
    h->min_p = (float)g->min_p;
    h->presence = (float)g->presence;
    h->frequency = (float)g->frequency;
    h->repetition = (float)g->repetition;
}

/* Bytes and operations of one token: every matrix once, of experts the chosen ones. */
static void fill_costs(gdn_model *m) {
    for (int32_t i = 0; i < m->n_owned; i++) {
        const gdn_weight *w = m->owned[i];
        const gdn_weight_shape s = gdn_weight_get_shape(w);
        const double share = s.n_expert > 1 ? (double)m->config.top_k / s.n_expert : 1.0;
        bool mtp = false;
        const gdn_projection *own[] = {&m->mtp.fc,
                                       &m->mtp.layer.in,
                                       &m->mtp.layer.out,
                                       &m->mtp.layer.mlp.gate_up,
                                       &m->mtp.layer.mlp.down,
                                       &m->mtp.layer.experts.router,
                                       &m->mtp.layer.experts.shared.gate_up,
                                       &m->mtp.layer.experts.shared.down};
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            for (int32_t j = 0; j < own[k]->n; j++) mtp |= own[k]->w[j] == w;
        mtp |= w == m->mtp.layer.experts.gate_up || w == m->mtp.layer.experts.down;
        m->info.resident_bytes += gdn_weight_bytes(w);
        if (mtp) continue;
        m->info.active_bytes += (uint64_t)((double)gdn_weight_bytes(w) * share);
        m->info.active_flops += 2.0 * s.n * (double)s.k * s.n_expert * share;
    }
}

static void fill_info(gdn_model *m, const gdn_genconfig *g) {
    const gdn_config *c = &m->config;
    gdn_model_info *i = &m->info;
    i->dir = m->dir;
    i->arch = gdn_arch_name(c->arch);
    i->n_layer = c->n_layer;
    i->n_full = c->n_full;
    i->d = c->d;
    i->vocab = c->vocab;
    i->context = c->max_position;
    i->hq = c->hq;
    i->hkv = c->hkv;
    i->head_dim = c->head_dim;
    i->lin_hk = c->hk;
    i->lin_hv = c->hv;
    i->lin_dk = c->dk;
    i->lin_dv = c->dv;
    i->conv_width = c->conv_width;
    i->n_expert = c->n_expert;
    i->n_expert_used = c->top_k;
    i->has_mtp = m->has_mtp;
    i->has_vision = c->has_vision;
    i->file_bytes = gdn_weights_total_bytes(m->weights);
    for (int32_t k = 0; k < g->n_eos; k++) add_stop(m, g->eos[k]);
    for (int32_t k = 0; k < c->n_eos; k++) add_stop(m, c->eos[k]);
    i->stop = m->stop;
    fill_hints(m, g);
    fill_costs(m);
    uint64_t bytes[GDN_I32 + 1] = {0};
    gdn_type most = GDN_F32;
    for (int32_t k = 0; k < m->n_owned; k++) {
        const gdn_type t = gdn_weight_get_shape(m->owned[k]).type;
        bytes[t] += gdn_weight_bytes(m->owned[k]);
        if (bytes[t] > bytes[most]) most = t;
    }
    i->weight_type = gdn_type_name(most);
}

/* A device without a required op cannot run any model. */
static gdn_status check_ops(const gdn_device *d, gdn_err *err) {
#define REQUIRED(name)                                                                    \
    if (d->backend->op.name == NULL)                                                      \
        return gdn_fail(err, GDN_E_UNSUPPORTED, "device %s has no operator %s",           \
                        gdn_device_name(d), #name);
#define FUSED(name)
#define X(name, args, need) need(name)
    GDN_OP_LIST(X)
#undef X
    return GDN_OK;
}

/* What the operators can do of what a config may say: refused here, not at the first step. */
static gdn_status check_limits(const gdn_config *c, bool mtp, const char *dir, gdn_err *err) {
    const bool full = c->n_full > 0 || mtp, linear = c->n_linear > 0;
    if (full && (c->head_dim % 8 != 0 || c->head_dim > 256))
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: head_dim is %d; attention takes multiples of 8 up to 256", dir,
                        c->head_dim);
    if (full && c->hq / c->hkv > 32)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: %d query heads share a key head; attention takes at most 32", dir,
                        c->hq / c->hkv);
    if (linear && (c->dk % 8 != 0 || c->dk > 256))
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: linear_key_head_dim is %d; the delta rule takes multiples of 8 up to "
                        "256", dir, c->dk);
    if (c->n_expert > 1024)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: num_experts is %d; at most 1024 are routed",
                        dir, c->n_expert);
    if (!c->attn_gate)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: attn_output_gate is false; attention is "
                        "computed with a gate", dir);
    if (c->n_mtp > 1)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: mtp_num_hidden_layers is %d; a head of one layer is built in", dir,
                        c->n_mtp);
    return GDN_OK;
}

/* Fast mathematics rounds to bf16 where that pays: not in a model whose matrices fit the caches,
 * which would only lose accuracy, and not in convolution states, where it would save 2 % of a
 * state and send rows of a mixture to other experts: a hundred times the divergence that rounded
 * keys and values cause. */
static void choose_types(gdn_model *m) {
    enum { SMALL = 8 << 20 };
    uint64_t bytes = 0;
    bool bf16 = true;
    for (int32_t i = 0; i < m->n_owned; i++) {
        bytes += gdn_weight_bytes(m->owned[i]);
        bf16 &= gdn_weight_input_type(m->owned[i]) == GDN_BF16;
    }
    const char *always = gdn_switch_get(GDN_SWITCH_BF16);
    const bool small = bytes < SMALL && !(always != NULL && strcmp(always, "always") == 0);
    const bool fast = m->math == GDN_MATH_FAST && !small;
    m->act = fast && bf16 ? GDN_BF16 : GDN_F32;
    m->kv = fast ? GDN_BF16 : GDN_F32;
    m->conv = GDN_F32;
}

gdn_status gdn_model_check(const char *dir, gdn_err *err) {
    gdn_config c;
    const gdn_status st = gdn_config_read(dir, &c, err);
    return st != GDN_OK ? st : check_limits(&c, c.n_mtp > 0, dir, err);
}

gdn_status gdn_model_open(const char *dir, const gdn_model_opts *opts, gdn_model **out,
                          gdn_err *err) {
    gdn_model_opts o;
    gdn_model_opts_defaults(&o);
    if (opts != NULL) o = *opts;
    gdn_genconfig g;
    gdn_model *m = calloc(1, sizeof *m);
    if (m == NULL || (m->dir = strdup(dir)) == NULL) {
        free(m);
        return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", dir);
    }
    m->math = o.math;
    gdn_device_opts d;
    gdn_device_opts_defaults(&d);
    d.n_thread = o.n_thread;
    d.pin = o.pin;
    d.dry_run = o.dry_run;
    gdn_status st = gdn_config_read(dir, &m->config, err);
    if (st == GDN_OK) st = gdn_genconfig_read(dir, &g, err);
    if (st == GDN_OK) st = gdn_weights_open(dir, &m->weights, err);
    if (st == GDN_OK) st = gdn_model_find_parts(m, err);
    if (st == GDN_OK) st = check_limits(&m->config, m->has_mtp, dir, err);
    if (st == GDN_OK)
        st = o.device != NULL ? gdn_device_open(o.device, &d, &m->device, err)
                              : gdn_device_open_default(&d, gdn_weights_total_bytes(m->weights),
                                                        &m->device, err);
    if (st == GDN_OK) st = check_ops(m->device, err);
    if (st == GDN_OK && !o.no_selftest && !o.dry_run) st = gdn_device_check(m->device, err);
    if (st == GDN_OK) st = gdn_model_bind(m, o.progress, o.progress_arg, err);
    if (st != GDN_OK) {
        gdn_model_close(m);
        return st;
    }
    choose_types(m);
    fill_info(m, &g);
    gdn_log(GDN_LOG_INFO, "model arch=%s layers=%d weights=%s math=%s activations=%s", m->info.arch,
            m->info.n_layer, m->info.weight_type, o.math == GDN_MATH_FAST ? "fast" : "f32",
            gdn_type_name(m->act));
    *out = m;
    return GDN_OK;
}
