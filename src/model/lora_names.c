/* lora_names.c - tensor names of an adapter to matrices of a model.
 *
 * A name is PREFIX MODULE .lora_A .weight.  The prefix says how the model was loaded when the adapter
 * was trained, which need not be how the checkpoint names its tensors, so all known ones are
 * taken. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lora.h"

static bool strip(const char **s, const char *prefix) {
    const size_t n = strlen(prefix);
    if (strncmp(*s, prefix, n) != 0) return false;
    *s += n;
    return true;
}

gdn_lora_part gdn_lora_split(const char *name, char *path, size_t *at) {
    static const char a[] = ".lora_A.", b[] = ".lora_B.";
    const char *s = name;
    strip(&s, "base_model.model.");
    const char *mark = strstr(s, a);
    const gdn_lora_part part = mark != NULL ? GDN_LORA_A : GDN_LORA_B;
    if (mark == NULL) mark = strstr(s, b);
    if (mark == NULL) return GDN_LORA_OTHER;
    /* Behind it "weight", or an adapter's name, which has no dot, and "weight". */
    const char *end = mark + sizeof a - 1, *dot = strchr(end, '.');
    if (dot != NULL && dot > end) end = dot + 1;
    if (strcmp(end, "weight") != 0) return GDN_LORA_OTHER;
    memcpy(path, s, (size_t)(mark - s));
    path[mark - s] = '\0';
    *at = (size_t)(mark - name) + sizeof a - 3;
    return part;
}

/* A plain decimal below end, and the text behind it. */
static bool number(const char **s, int32_t end, int32_t *out) {
    int32_t v = 0;
    const char *p = *s;
    if (*p < '0' || *p > '9' || (*p == '0' && p[1] >= '0' && p[1] <= '9')) return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        v = 10 * v + (*p - '0');
        if (v >= end) return false;
    }
    *out = v;
    *s = p;
    return true;
}

static bool of_projection(const gdn_projection *p, int32_t piece, gdn_lora_target *out) {
    if (piece >= p->n_piece) return false;
    out->site = p->piece[piece].index;
    out->n = p->piece[piece].n;
    out->k = gdn_weight_get_shape(p->w[0]).k;
    return true;
}

static bool of_experts(const gdn_model *m, const char *s, gdn_lora_target *out) {
    const gdn_config *c = &m->config;
    static const char *const names[] = {".gate_proj", ".up_proj", ".down_proj"};
    if (!number(&s, c->n_expert, &out->expert)) return false;
    for (out->part = 0; out->part < 3; out->part++)
        if (strcmp(s, names[out->part]) == 0) {
            out->site = -1;
            out->n = out->part < 2 ? c->moe_ffn : c->d;
            out->k = out->part < 2 ? c->d : c->moe_ffn;
            return true;
        }
    return false;
}

static bool of_mlp(const gdn_mlp *mlp, const char *s, gdn_lora_target *out) {
    if (strcmp(s, "gate_proj") == 0) return of_projection(&mlp->gate_up, 0, out);
    if (strcmp(s, "up_proj") == 0) return of_projection(&mlp->gate_up, 1, out);
    return strcmp(s, "down_proj") == 0 && of_projection(&mlp->down, 0, out);
}

static bool of_moe(const gdn_model *m, const gdn_moe *moe, const char *s, gdn_lora_target *out) {
    if (strcmp(s, "gate") == 0) return of_projection(&moe->router, 0, out);
    if (strcmp(s, "experts") == 0 || strcmp(s, "experts.base_layer") == 0) {
        out->site = -1;
        out->expert = GDN_LORA_ALL;
        return true;
    }
    if (strip(&s, "experts.")) return of_experts(m, s, out);
    if (m->config.shared_ffn == 0) return false;
    if (strcmp(s, "shared_expert_gate") == 0) return of_projection(&moe->router, 1, out);
    return strip(&s, "shared_expert.") && of_mlp(&moe->shared, s, out);
}

/* Pieces of a mixer's input projection, in the order in which bind.c puts them. */
static bool of_mixer(const gdn_projection *p, const char *const *names, int32_t n, const char *s,
                     gdn_lora_target *out) {
    for (int32_t i = 0; i < n; i++)
        if (strcmp(s, names[i]) == 0) return of_projection(p, i, out);
    return false;
}

static bool of_layer(const gdn_model *m, const gdn_layer *l, const char *s, gdn_lora_target *out) {
    static const char *const attn[] = {"q_proj", "k_proj", "v_proj"};
    static const char *const split[] = {"in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"};
    static const char *const joint[] = {"in_proj_qkvz", "in_proj_ba"};
    if (strip(&s, "mlp."))
        return l->moe ? of_moe(m, &l->experts, s, out) : of_mlp(&l->mlp, s, out);
    if (l->full)
        return strip(&s, "self_attn.") &&
               (strcmp(s, "o_proj") == 0 ? of_projection(&l->out, 0, out)
                                         : of_mixer(&l->in, attn, 3, s, out));
    if (!strip(&s, "linear_attn.")) return false;
    if (strcmp(s, "out_proj") == 0) return of_projection(&l->out, 0, out);
    if (!m->config.interleaved) return of_mixer(&l->in, split, 4, s, out);
    if (!of_mixer(&l->in, joint, 2, s, out)) return false;
    out->order = strcmp(s, joint[0]) == 0 ? GDN_LORA_QKVZ : GDN_LORA_BA;
    return true;
}

static bool of_head(const gdn_model *m, gdn_lora_target *out) {
    out->site = m->head_piece.index;
    out->n = m->config.vocab;
    out->k = m->config.d;
    return true;
}

static bool of_draft_head(const gdn_model *m, const char *s, gdn_lora_target *out) {
    out->layer = m->config.n_layer;
    if (!m->has_mtp) return false;
    if (strcmp(s, "fc") == 0) return of_projection(&m->mtp.fc, 0, out);
    return strip(&s, "layers.0.") && of_layer(m, &m->mtp.layer, s, out);
}

bool gdn_lora_find(const gdn_model *m, const char *path, gdn_lora_target *out) {
    static const char *const prefix[] = {"model.language_model.", "language_model.model.",
                                         "language_model.", "model."};
    const char *s = path;
    for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++)
        if (strip(&s, prefix[i])) break;
    *out = (gdn_lora_target){.order = GDN_LORA_PLAIN};
    if (strcmp(s, "lm_head") == 0) return of_head(m, out);
    if (strip(&s, "mtp.")) return of_draft_head(m, s, out);
    return strip(&s, "layers.") && number(&s, m->config.n_layer, &out->layer) && strip(&s, ".") &&
           of_layer(m, &m->layer[out->layer], s, out);
}
