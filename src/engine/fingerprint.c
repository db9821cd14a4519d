/* fingerprint.c - a number for what decides a model's results, to tell files of another one.
 *
 * Tensors' names, types and shapes all count, and samples of their bytes: reading all of them would
 * take as long as opening the model.  Two checkpoints of one shape that differ in few tensors only,
 * where no sample lies, are taken for one. */
#include <string.h>

#include <xxhash.h>

#include "store.h"

enum {
    PIECE = 256,   /* bytes of a sample                                                 */
    SAMPLES = 8,   /* of a tensor: its first and last bytes, the others evenly between  */
    MOST = 4096,   /* samples in all, so that a page each is soon read                  */
};

static uint64_t mix(uint64_t h, const void *data, size_t n) {
    return XXH3_64bits_withSeed(data, n, h);
}

static uint64_t mix_config(uint64_t h, const gdn_model *m) {
    const gdn_config *c = &m->config;
    const int64_t ints[] = {
        c->arch, c->interleaved, c->d, c->n_layer, c->vocab, c->n_full, c->n_linear,
        c->hq, c->hkv, c->head_dim, c->attn_gate, c->rot, c->mrope,
        c->mrope_section[0], c->mrope_section[1], c->mrope_section[2],
        c->hk, c->hv, c->dk, c->dv, c->conv_width, c->state_type,
        c->ffn, c->n_expert, c->top_k, c->moe_ffn, c->shared_ffn, c->norm_topk,
        c->quant, c->quant_rows, c->quant_cols, m->has_mtp,
    };
    const double reals[] = {c->eps, c->rope_theta};
    h = mix(h, ints, sizeof ints);
    h = mix(h, reals, sizeof reals);
    h = mix(h, c->layer_kind, (size_t)c->n_layer * sizeof *c->layer_kind);
    for (int32_t i = 0; i < c->n_layer; i++) {
        const unsigned char moe = c->layer_moe[i];
        h = mix(h, &moe, 1);
    }
    return h;
}

static uint64_t mix_bytes(uint64_t h, const gdn_st_tensor *t, uint64_t samples) {
    if (t->bytes <= (uint64_t)SAMPLES * PIECE && samples == SAMPLES)
        return mix(h, t->data, t->bytes);
    if (t->bytes <= PIECE) return mix(h, t->data, t->bytes);
    for (uint64_t i = 0; i < samples; i++) {
        const uint64_t step = samples > 1 ? (t->bytes - PIECE) / (samples - 1) : 0;
        const uint64_t at = i + 1 == samples ? t->bytes - PIECE : i * step;
        h = mix(h, t->data + at, PIECE);
    }
    return h;
}

uint64_t gdn_model_fingerprint(const gdn_model *m) {
    uint64_t h = mix_config(1, m);
    const int64_t n = gdn_weights_count(m->weights);
    /* With many tensors a sample of each, or of every few. */
    const int64_t every = (n + MOST - 1) / MOST;
    const uint64_t samples = n > 0 && MOST / n < SAMPLES ? (MOST / n > 0 ? (uint64_t)(MOST / n) : 1)
                                                         : SAMPLES;
    for (int64_t i = 0; i < n; i++) {
        const gdn_st_tensor *t = gdn_weights_at(m->weights, i);
        const int64_t type[] = {t->dtype, t->ndim};
        h = mix(h, t->name, strlen(t->name));
        h = mix(h, type, sizeof type);
        h = mix(h, t->shape, (size_t)t->ndim * sizeof *t->shape);
        if (i % every == 0) h = mix_bytes(h, t, samples);
    }
    return h != 0 ? h : 1;
}
