/* op_vector.c - one recorded call of gdn_attention(), run and compared with what it expects.
 *
 * All tensors of the call lie in one buffer, the image, and every form of it runs twice:
 *
 *     plain   tensors one after another, pools without gaps as in the file
 *     pages   | margin | tensor | margin | tensor | ...       margins and rows of padding are NaN
 *             and both pools in pages:   | conv | ssm | NaN | conv | ssm | NaN | ...
 *
 * Behind the file's tensors lie those that the two stages hand on, q k v b a of both groups with a
 * few rows more than there are tokens; a fused call must leave them alone.
 *
 * A mask has a byte for each of the image: 1 where the call has to write, as the indices of the
 * file say.  There the outputs are compared with the file's; everywhere else, margins and inputs
 * included, the image must be after the call what it was before, bit for bit. */
#include <gdn/tools.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../base/half.h"
#include "../format/safetensors.h"

enum {
    CORE, Z, QKVZ, BA, CONV_STATE, SSM_STATE, CONV_WEIGHTS, CONV_BIAS, A_LOG, DT_BIAS, HAS_STATE,
    START, TOKEN, SLOT, SPEC_START, SPEC_TOKEN, SPEC_SLOT, ACCEPTED, N_FIELD
};
enum { OPTIONAL = 1, INDEX = 2 }; /* INDEX: read here, so its type is checked here */

static const struct {
    const char *name;
    int32_t     ndim;
    unsigned    flags;
    size_t      at; /* in gdn_attention_args */
} field[N_FIELD] = {
    [CORE] = { "core_attn_out", 3, 0, offsetof(gdn_attention_args, core) },
    [Z] = { "z", 3, 0, offsetof(gdn_attention_args, z) },
    [QKVZ] = { "projected_states_qkvz", 2, 0, offsetof(gdn_attention_args, qkvz) },
    [BA] = { "projected_states_ba", 2, 0, offsetof(gdn_attention_args, ba) },
    [CONV_STATE] = { "conv_state", 3, 0, offsetof(gdn_attention_args, conv_state) },
    [SSM_STATE] = { "ssm_state", 4, 0, offsetof(gdn_attention_args, ssm_state) },
    [CONV_WEIGHTS] = { "conv_weights", 2, 0, offsetof(gdn_attention_args, conv_weights) },
    [CONV_BIAS] = { "conv_bias", 1, OPTIONAL, offsetof(gdn_attention_args, conv_bias) },
    [A_LOG] = { "A_log", 1, 0, offsetof(gdn_attention_args, A_log) },
    [DT_BIAS] = { "dt_bias", 1, 0, offsetof(gdn_attention_args, dt_bias) },
    [HAS_STATE] = { "has_initial_state", 1, OPTIONAL,
                    offsetof(gdn_attention_args, has_initial_state) },
    [START] = { "non_spec_query_start_loc", 1, OPTIONAL | INDEX,
                offsetof(gdn_attention_args, non_spec_query_start_loc) },
    [TOKEN] = { "non_spec_token_indx", 1, OPTIONAL | INDEX,
                offsetof(gdn_attention_args, non_spec_token_indx) },
    [SLOT] = { "non_spec_state_indices_tensor", 1, OPTIONAL | INDEX,
               offsetof(gdn_attention_args, non_spec_state_indices) },
    [SPEC_START] = { "spec_query_start_loc", 1, OPTIONAL | INDEX,
                     offsetof(gdn_attention_args, spec_query_start_loc) },
    [SPEC_TOKEN] = { "spec_token_indx", 1, OPTIONAL | INDEX,
                     offsetof(gdn_attention_args, spec_token_indx) },
    [SPEC_SLOT] = { "spec_state_indices_tensor", 2, OPTIONAL | INDEX,
                    offsetof(gdn_attention_args, spec_state_indices) },
    [ACCEPTED] = { "num_accepted_tokens", 1, OPTIONAL | INDEX,
                   offsetof(gdn_attention_args, num_accepted_tokens) },
};

/* What the stages hand on, for plain and for speculative sequences. */
enum { MID_Q, MID_K, MID_V, MID_B, MID_A, N_MID, SPARE_ROWS = 2 };
enum { PLAIN, SPEC, N_GROUP };

static const struct {
    int start, token, slot;
} group_field[N_GROUP] = { { START, TOKEN, SLOT }, { SPEC_START, SPEC_TOKEN, SPEC_SLOT } };

static const int out_field[GDN_OP_N_OUTPUT] = { CORE, Z, CONV_STATE, SSM_STATE };

typedef struct {
    const char          *path;
    gdn_weights         *file;
    const gdn_st_tensor *t[N_FIELD];               /* NULL: absent                       */
    const gdn_st_tensor *expect[GDN_OP_N_OUTPUT];
    gdn_attention_args   args;                     /* all but the tensors' places        */
    /* One run. */
    gdn_tensor     view[N_FIELD];
    gdn_tensor     mid[N_GROUP][N_MID];
    int64_t        tokens[N_GROUP];
    uint64_t       bytes;
    unsigned char *before, *after, *mask;          /* [bytes]                            */
    unsigned char *fused[2];                       /* after gdn_attention() in each form */
    gdn_buffer    *buf;
} vector;

/* --- the file ------------------------------------------------------------------- */

static gdn_status text_of(const vector *v, const char *key, const char **out, gdn_err *err) {
    *out = gdn_weights_metadata(v->file, key);
    return *out != NULL ? GDN_OK
                        : gdn_fail(err, GDN_E_FORMAT, "%s: __metadata__.%s is missing", v->path,
                                   key);
}

static gdn_status number_of(const vector *v, const char *key, int32_t *out, gdn_err *err) {
    const char *s = NULL;
    const gdn_status st = text_of(v, key, &s, err);
    if (st != GDN_OK) return st;
    char *end;
    errno = 0;
    const long long x = strtoll(s, &end, 10);
    if (end == s || *end != '\0' || errno != 0 || x < INT32_MIN || x > INT32_MAX)
        return gdn_fail(err, GDN_E_FORMAT, "%s: __metadata__.%s is \"%.40s\"; need a number",
                        v->path, key, s);
    *out = (int32_t)x;
    return GDN_OK;
}

/* One of two words. */
static gdn_status choice_of(const vector *v, const char *key, const char *no, const char *yes,
                            bool *out, gdn_err *err) {
    const char *s = NULL;
    const gdn_status st = text_of(v, key, &s, err);
    if (st != GDN_OK) return st;
    *out = strcmp(s, yes) == 0;
    if (!*out && strcmp(s, no) != 0)
        return gdn_fail(err, GDN_E_FORMAT, "%s: __metadata__.%s is \"%.40s\"; need %s or %s",
                        v->path, key, s, no, yes);
    return GDN_OK;
}

static bool type_of(gdn_st_dtype t, gdn_type *out) {
    switch (t) {
    case GDN_ST_F32: *out = GDN_F32; return true;
    case GDN_ST_BF16: *out = GDN_BF16; return true;
    case GDN_ST_F16: *out = GDN_F16; return true;
    case GDN_ST_I32: *out = GDN_I32; return true;
    case GDN_ST_U8: *out = GDN_U8; return true;
    default: return false;
    }
}

/* The tensor of a field; its shape is small enough that no stride overflows. */
static gdn_status tensor_of(vector *v, int i, gdn_err *err) {
    const gdn_st_tensor *t = v->t[i] = gdn_weights_find(v->file, field[i].name);
    const char *name = field[i].name;
    if (t == NULL)
        return field[i].flags & OPTIONAL ? GDN_OK
                                         : gdn_fail(err, GDN_E_FORMAT,
                                                    "%s: the tensor %s is missing", v->path, name);
    if (t->ndim != field[i].ndim)
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s has %d dimensions; need %d", v->path, name,
                        t->ndim, field[i].ndim);
    for (int d = 0; d < t->ndim && t->ndim > 1; d++)
        if (t->shape[d] == 0)
            return gdn_fail(err, GDN_E_FORMAT, "%s: %s has size 0 in dimension %d", v->path, name,
                            d);
    if (field[i].flags & INDEX ? t->dtype != GDN_ST_I32 : !type_of(t->dtype, &v->view[i].type))
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s has type %s; need %s", v->path, name,
                        gdn_st_dtype_name(t->dtype),
                        field[i].flags & INDEX ? "I32" : "F32, BF16, F16, I32 or U8");
    return GDN_OK;
}

static gdn_status expect_of(vector *v, int i, gdn_err *err) {
    const gdn_st_tensor *in = v->t[out_field[i]];
    char name[40];
    snprintf(name, sizeof name, "expect.%s", in->name);
    const gdn_st_tensor *t = v->expect[i] = gdn_weights_find(v->file, name);
    if (t == NULL)
        return gdn_fail(err, GDN_E_FORMAT, "%s: the tensor %s is missing", v->path, name);
    if (in->dtype != GDN_ST_F32 && in->dtype != GDN_ST_BF16 && in->dtype != GDN_ST_F16)
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s has type %s; need F32, BF16 or F16", v->path,
                        in->name, gdn_st_dtype_name(in->dtype));
    bool same = t->dtype == in->dtype && t->ndim == in->ndim;
    for (int d = 0; same && d < t->ndim; d++) same = t->shape[d] == in->shape[d];
    return same ? GDN_OK
                : gdn_fail(err, GDN_E_FORMAT, "%s: %s has not the type and shape of %s", v->path,
                           name, in->name);
}

/* What the metadata say of a tensor must be so. */
static gdn_status agree(const vector *v, const char *key, int i, int64_t have, gdn_err *err) {
    int32_t want = 0;
    const gdn_status st = number_of(v, key, &want, err);
    if (st != GDN_OK || want == have) return st;
    return gdn_fail(err, GDN_E_FORMAT, "%s: __metadata__.%s is %d, %s has %lld", v->path, key,
                    want, field[i].name, (long long)have);
}

static gdn_status agree_type(const vector *v, const char *key, int i, gdn_err *err) {
    const char *s = NULL;
    gdn_type t = GDN_F32;
    const gdn_status st = text_of(v, key, &s, err);
    if (st != GDN_OK) return st;
    type_of(v->t[i]->dtype, &t);
    if (strcmp(s, gdn_type_name(t)) == 0) return st;
    return gdn_fail(err, GDN_E_FORMAT, "%s: __metadata__.%s is \"%.40s\", %s has type %s", v->path,
                    key, s, field[i].name, gdn_type_name(t));
}

static gdn_status read_scalars(vector *v, gdn_err *err) {
    gdn_attention_args *a = &v->args;
    int32_t n = 0;
    bool ds = false;
    gdn_status st = number_of(v, "num_k_heads", &a->n_k_head, err);
    if (st == GDN_OK) st = number_of(v, "num_v_heads", &a->n_v_head, err);
    if (st == GDN_OK) st = number_of(v, "head_k_dim", &a->dk, err);
    if (st == GDN_OK) st = number_of(v, "head_v_dim", &a->dv, err);
    if (st == GDN_OK) st = number_of(v, "tp_size", &a->tp_size, err);
    if (st == GDN_OK) st = number_of(v, "num_actual_tokens", &n, err);
    if (st == GDN_OK) st = number_of(v, "null_slot", &a->null_slot, err);
    if (st == GDN_OK) st = choice_of(v, "reorder_input", "0", "1", &a->reorder_input, err);
    if (st == GDN_OK) st = choice_of(v, "conv_layout", "SD", "DS", &ds, err);
    a->num_actual_tokens = n;
    a->conv_layout = ds ? GDN_CONV_STATE_DS : GDN_CONV_STATE_SD;
    return st;
}

static gdn_status read_vector(vector *v, gdn_err *err) {
    gdn_status st = gdn_weights_open(v->path, &v->file, err);
    if (st == GDN_OK) st = read_scalars(v, err);
    for (int i = 0; i < N_FIELD && st == GDN_OK; i++) st = tensor_of(v, i, err);
    for (int i = 0; i < GDN_OP_N_OUTPUT && st == GDN_OK; i++) st = expect_of(v, i, err);
    if (st != GDN_OK) return st;
    const int64_t *conv = v->t[CONV_STATE]->shape, slots = v->t[SSM_STATE]->shape[0];
    if (conv[0] != slots) /* pages hold one of each */
        return gdn_fail(err, GDN_E_FORMAT, "%s: conv_state has %lld slots, ssm_state %lld", v->path,
                        (long long)conv[0], (long long)slots);
    const bool ds = v->args.conv_layout == GDN_CONV_STATE_DS;
    st = agree(v, "conv_width", CONV_WEIGHTS, v->t[CONV_WEIGHTS]->shape[1], err);
    if (st == GDN_OK) st = agree(v, "conv_lines", CONV_STATE, conv[ds ? 2 : 1], err);
    if (st == GDN_OK) st = agree_type(v, "dtype", CORE, err);
    if (st == GDN_OK) st = agree_type(v, "ssm_dtype", SSM_STATE, err);
    return st;
}

/* "bf16/f32 SD parts 2+1+0": types of rows and states, layouts, prefills + decodes + drafts. */
static gdn_status name_kind(const vector *v, gdn_op_vector_result *r, gdn_err *err) {
    static const char *const key[3] = { "num_prefills", "num_decodes", "num_spec_decodes" };
    int32_t n[3] = { 0 };
    for (int i = 0; i < 3; i++) {
        const gdn_status st = number_of(v, key[i], &n[i], err);
        if (st != GDN_OK) return st;
    }
    snprintf(r->kind, sizeof r->kind, "%s/%s %s %s %d+%d+%d",
             gdn_weights_metadata(v->file, "dtype"), gdn_weights_metadata(v->file, "ssm_dtype"),
             v->args.conv_layout == GDN_CONV_STATE_DS ? "DS" : "SD",
             v->args.reorder_input ? "parts" : "groups", n[0], n[1], n[2]);
    return GDN_OK;
}

/* --- the image ------------------------------------------------------------------ */

/* 0xff is NaN in every type: what is read wrongly shows, what is written wrongly too. */
enum { POISON = 0xff, MARGIN = 4 * 37 };

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

static uint64_t slot_bytes(const gdn_st_tensor *t) { return t->bytes / (uint64_t)t->shape[0]; }

static const int32_t *ints(const vector *v, int i) {
    return v->t[i] == NULL ? NULL : (const int32_t *)(const void *)v->t[i]->data;
}

static int64_t count(const vector *v, int i) { return v->t[i] == NULL ? 0 : v->t[i]->shape[0]; }

/* Tensors between the stages, from `at` on.  Where the shapes do not fit together gdn_attention()
 * is going to refuse them, and no room is needed. */
static uint64_t lay_out_mid(vector *v, bool pages, uint64_t at) {
    const int64_t *s = v->t[SSM_STATE]->shape, nv = s[1], dv = s[2], dk = s[3];
    const int64_t C = v->t[CONV_WEIGHTS]->shape[0], rows = v->t[QKVZ]->shape[0];
    const bool fit = v->t[QKVZ]->shape[1] >= C && C > nv * dv;
    const int64_t nk = fit ? (C - nv * dv) / (2 * dk) : 0;
    const int64_t heads[N_MID] = { nk, nk, nv, nv, nv }, width[N_MID] = { dk, dk, dv, 1, 1 };
    gdn_type type = GDN_F32;
    type_of(v->t[QKVZ]->dtype, &type);
    for (int g = 0; g < N_GROUP; g++) {
        const int32_t *start = ints(v, group_field[g].start);
        const int64_t n = count(v, group_field[g].start);
        v->tokens[g] = n > 0 && fit && start[n - 1] > 0 && start[n - 1] <= rows ? start[n - 1] : 0;
        for (int i = 0; i < N_MID; i++) {
            const int64_t shape[3] = { v->tokens[g] > 0 ? v->tokens[g] + SPARE_ROWS : 0, heads[i],
                                       width[i] };
            at = pages ? round_up(at, 4) + MARGIN : round_up(at, 64);
            v->mid[g][i] = gdn_tensor_dense(NULL, at, type, i < MID_B ? 3 : 2, shape);
            at += (uint64_t)(shape[0] * v->mid[g][i].stride[0]);
        }
    }
    return at;
}

/* Give every tensor its place.  In pages the places are multiples of 4 bytes only. */
static void lay_out(vector *v, bool pages) {
    uint64_t at = 0;
    for (int i = 0; i < N_FIELD; i++) {
        const gdn_st_tensor *t = v->t[i];
        if (t == NULL) continue;
        gdn_type type = GDN_F32;
        type_of(t->dtype, &type);
        if (pages && i == SSM_STATE) continue;
        at = pages ? round_up(at, 4) + MARGIN : round_up(at, 64);
        v->view[i] = gdn_tensor_dense(NULL, at, type, t->ndim, t->shape);
        if (pages && i == CONV_STATE) {
            const gdn_st_tensor *s = v->t[SSM_STATE];
            const uint64_t conv = round_up(slot_bytes(t), 4), ssm = round_up(slot_bytes(s), 4);
            const uint64_t page = conv + ssm + MARGIN;
            type_of(s->dtype, &type);
            v->view[SSM_STATE] = gdn_tensor_dense(NULL, at + conv, type, s->ndim, s->shape);
            v->view[CONV_STATE].stride[0] = v->view[SSM_STATE].stride[0] = (int64_t)page;
            at += page * (uint64_t)t->shape[0];
        } else {
            at += t->bytes;
        }
    }
    v->bytes = lay_out_mid(v, pages, at) + (pages ? MARGIN : 0);
}

static void fill(vector *v, bool pages) {
    memset(v->before, pages ? POISON : 0, (size_t)v->bytes);
    for (int i = 0; i < N_FIELD; i++) {
        const gdn_st_tensor *t = v->t[i];
        if (t == NULL || t->bytes == 0) continue;
        const gdn_tensor *w = &v->view[i];
        const int64_t n = t->shape[0];
        const uint64_t row = slot_bytes(t);
        for (int64_t r = 0; r < n; r++) {
            if (pages && (i == QKVZ || i == BA) && r >= v->args.num_actual_tokens) break;
            memcpy(v->before + w->at + (uint64_t)(r * w->stride[0]), t->data + (uint64_t)r * row,
                   (size_t)row);
        }
    }
}

/* --- what the call has to write -------------------------------------------------- */

/* Index i of the first dimension.  The call has checked the indices before; what it let
 * through must not lead out of the image all the same. */
static void mark(vector *v, int f, int64_t i) {
    const gdn_tensor *w = &v->view[f];
    if (i >= 0 && i < w->shape[0])
        memset(v->mask + w->at + (uint64_t)(i * w->stride[0]), 1, (size_t)slot_bytes(v->t[f]));
}

static void mark_line(vector *v, int64_t slot, int64_t rows) {
    const gdn_tensor *w = &v->view[CONV_STATE];
    const int row = v->args.conv_layout == GDN_CONV_STATE_DS ? 2 : 1, ch = 3 - row;
    if (slot < 0 || slot >= w->shape[0]) return;
    if (rows > w->shape[row]) rows = w->shape[row];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < w->shape[ch]; c++)
            memset(v->mask + w->at + (uint64_t)(slot * w->stride[0] + r * w->stride[row] +
                                                c * w->stride[ch]),
                   1, (size_t)gdn_type_bytes(w->type));
}

/* Tokens from .. to - 1 of a group. */
static void mark_rows(vector *v, int token, int64_t from, int64_t to) {
    const int32_t *map = ints(v, token);
    const int64_t limit = map != NULL ? count(v, token) : v->t[CORE]->shape[0];
    if (from < 0) from = 0;
    for (int64_t i = from; i < to && i < limit; i++) {
        mark(v, CORE, map != NULL ? map[i] : i);
        mark(v, Z, map != NULL ? map[i] : i);
    }
}

static bool is_none(const vector *v, int32_t slot) {
    return slot < 0 || slot == v->args.null_slot;
}

static void mark_mid(vector *v) {
    for (int g = 0; g < N_GROUP; g++)
        for (int i = 0; i < N_MID; i++)
            memset(v->mask + v->mid[g][i].at, 1,
                   (size_t)(v->tokens[g] * v->mid[g][i].stride[0]));
}

static void mark_all(vector *v) {
    const int64_t taps = v->t[CONV_WEIGHTS]->shape[1];
    const int32_t *start = ints(v, START), *slot = ints(v, SLOT);
    for (int64_t s = 0; s + 1 < count(v, START) && s < count(v, SLOT); s++) {
        if (start[s + 1] <= start[s]) continue;
        mark_rows(v, TOKEN, start[s], start[s + 1]);
        if (is_none(v, slot[s])) continue;
        mark_line(v, slot[s], taps - 1);
        mark(v, SSM_STATE, slot[s]);
    }
    start = ints(v, SPEC_START);
    slot = ints(v, SPEC_SLOT);
    const int64_t width = slot == NULL ? 0 : v->t[SPEC_SLOT]->shape[1];
    for (int64_t s = 0; s + 1 < count(v, SPEC_START) && s < count(v, SPEC_SLOT);
         s++, slot += width) {
        const int64_t n = (int64_t)start[s + 1] - start[s];
        if (n <= 0) continue;
        mark_rows(v, SPEC_TOKEN, start[s], start[s + 1]);
        if (is_none(v, slot[0])) continue;
        mark_line(v, slot[0], taps - 2 + n);
        for (int64_t t = 0; t < n && t < width; t++)
            if (!is_none(v, slot[t])) mark(v, SSM_STATE, slot[t]);
    }
}

/* --- comparing ------------------------------------------------------------------- */

static double value(const unsigned char *p, gdn_type t) {
    uint16_t h;
    float f;
    if (t == GDN_F32) {
        memcpy(&f, p, sizeof f);
        return (double)f;
    }
    memcpy(&h, p, sizeof h);
    return (double)(t == GDN_BF16 ? gdn_bf16_to_f32(h) : gdn_f16_to_f32(h));
}

/* The place of element i, counted as the file counts, in the image. */
static uint64_t place(const gdn_tensor *w, int64_t i) {
    uint64_t at = w->at;
    for (int d = w->ndim - 1; d >= 0; d--) {
        at += (uint64_t)(i % w->shape[d] * w->stride[d]);
        i /= w->shape[d];
    }
    return at;
}

/* The error is that of what the call writes.  Stages also have to give the bits of `fused`.  It is set against the norm of the rows written or,
 * as the bounds are defined, of a whole pool. */
static void compare(const vector *v, int i, const unsigned char *fused, gdn_op_vector_error *e) {
    const gdn_tensor *w = &v->view[out_field[i]];
    const size_t size = (size_t)gdn_type_bytes(w->type);
    const int64_t n = (int64_t)(v->expect[i]->bytes / size);
    const bool pool = out_field[i] == CONV_STATE || out_field[i] == SSM_STATE;
    double max = 0, sum = 0, norm = 0;
    int64_t differ = 0;
    for (int64_t k = 0; k < n; k++) {
        const uint64_t at = place(w, k);
        const unsigned char *want = v->expect[i]->data + (uint64_t)k * size;
        const bool same = memcmp(want, v->after + at, size) == 0;
        const double x = value(want, w->type), y = value(v->after + at, w->type);
        if (isfinite(x) && (v->mask[at] || pool)) norm += x * x;
        if (!v->mask[at]) { /* the call keeps it, so the file has to expect what it was */
            differ += !same || memcmp(want, v->before + at, size) != 0;
            continue;
        }
        const bool other = fused != NULL && memcmp(fused + at, v->after + at, size) != 0;
        differ += other;
        if (same || (isnan(x) && isnan(y))) continue;
        const double d = isfinite(x) && isfinite(y) ? fabs(x - y) : INFINITY;
        differ += e->bound <= 0 && !other; /* exact: a zero of the other sign is not the same */
        if (d > max) max = d;
        sum += d * d;
    }
    const double rel = sum <= 0 ? 0 : norm > 0 ? sqrt(sum / norm) : INFINITY;
    if (max > e->max_abs) e->max_abs = max;
    if (rel > e->rel_l2) e->rel_l2 = rel;
    if (differ > e->n_differ) e->n_differ = differ;
}

/* Relative L2 against exact arithmetic, by form and type of the rows.
 *
 * A state stored in 16 bits gets the figure of core, or of recurrent core in its own type where
 * that is more.  An error e of what is rounded moves a share e / ulp of the roundings by one ulp,
 * which makes sqrt(e ulp): with bf16 rows and states sqrt(5e-5 2^-8) = 4.4e-4.  States rounded
 * after every token instead of once a call make core miss its bound by a factor of 2 to 12. */
static double core_bound(bool chunked, gdn_type t) {
    if (t == GDN_F32) return chunked ? 1e-4 : 2e-6;
    return (chunked ? 6e-3 : 1e-3) / (t == GDN_F16 ? 8 : 1);
}

static double state_bound(bool chunked, gdn_type act, gdn_type state) {
    if (state != GDN_F32) return fmax(core_bound(false, state), core_bound(chunked, act));
    if (act == GDN_F32) return core_bound(chunked, act);
    return (chunked ? 2e-3 : 5e-5) / (act == GDN_F16 ? 8 : 1);
}

/* --- running --------------------------------------------------------------------- */

static bool is_chunked(int form) {
    return form == GDN_OP_CHUNKED || form == GDN_OP_CHUNKED_STAGES;
}

static bool is_staged(int form) { return form >= GDN_OP_RECURRENT_STAGES; }

/* One group of sequences through both stages. */
static gdn_status call_stages(vector *v, gdn_queue *q, const gdn_attention_args *a, int g,
                              gdn_err *err) {
    gdn_tensor *mid = v->mid[g];
    for (int i = 0; i < N_MID; i++) mid[i].buf = v->buf;
    const bool spec = g == SPEC;
    gdn_causal_conv1d_args conv = {
        .q = mid[MID_Q],
        .k = mid[MID_K],
        .v = mid[MID_V],
        .b = mid[MID_B],
        .a = mid[MID_A],
        .z = a->z,
        .qkvz = a->qkvz,
        .ba = a->ba,
        .conv_state = a->conv_state,
        .conv_weights = a->conv_weights,
        .conv_bias = a->conv_bias,
        .query_start_loc = spec ? a->spec_query_start_loc : a->non_spec_query_start_loc,
        .token_indx = spec ? a->spec_token_indx : a->non_spec_token_indx,
        .state_indices = spec ? a->spec_state_indices : a->non_spec_state_indices,
        .n_k_head = a->n_k_head,
        .n_v_head = a->n_v_head,
        .dk = a->dk,
        .dv = a->dv,
        .tp_size = a->tp_size,
        .num_actual_tokens = a->num_actual_tokens,
        .null_slot = a->null_slot,
        .reorder_input = a->reorder_input,
        .conv_layout = a->conv_layout,
    };
    if (spec) conv.num_accepted_tokens = a->num_accepted_tokens;
    else conv.has_initial_state = a->has_initial_state;
    const gdn_delta_rule_args delta = {
        .core = a->core,
        .q = conv.q,
        .k = conv.k,
        .v = conv.v,
        .b = conv.b,
        .a = conv.a,
        .A_log = a->A_log,
        .dt_bias = a->dt_bias,
        .ssm_state = a->ssm_state,
        .has_initial_state = conv.has_initial_state,
        .query_start_loc = conv.query_start_loc,
        .token_indx = conv.token_indx,
        .state_indices = conv.state_indices,
        .num_accepted_tokens = conv.num_accepted_tokens,
        .num_actual_tokens = a->num_actual_tokens,
        .null_slot = a->null_slot,
        .form = a->form,
    };
    const gdn_status st = gdn_causal_conv1d(q, &conv, err);
    return st == GDN_OK ? gdn_delta_rule(q, &delta, err) : st;
}

static gdn_status call(vector *v, int form, gdn_queue *q, gdn_err *err) {
    gdn_attention_args a = v->args;
    a.form = is_chunked(form) ? GDN_FORM_CHUNKED : GDN_FORM_RECURRENT;
    for (int i = 0; i < N_FIELD; i++) {
        if (v->t[i] == NULL) continue;
        v->view[i].buf = v->buf;
        memcpy((char *)&a + field[i].at, &v->view[i], sizeof v->view[i]);
    }
    gdn_err why = { 0 };
    gdn_status st = gdn_queue_write(q, v->buf, 0, v->before, v->bytes, &why);
    if (!is_staged(form)) {
        if (st == GDN_OK) st = gdn_attention(q, &a, &why);
    } else {
        for (int g = N_GROUP - 1; g >= 0 && st == GDN_OK; g--)
            if (v->tokens[g] > 0) st = call_stages(v, q, &a, g, &why);
    }
    if (st == GDN_OK) st = gdn_queue_read(q, v->after, v->buf, 0, v->bytes, &why);
    const gdn_status waited = gdn_queue_wait(q, st == GDN_OK ? &why : NULL);
    if (st == GDN_OK) st = waited;
    return st == GDN_OK ? st
                        : gdn_fail(err, st, "%s, %s: %s", v->path, gdn_op_form_name(form), why.text);
}

static gdn_status run_form(vector *v, int form, gdn_queue *q, gdn_op_form_result *r, gdn_err *err) {
    const gdn_status st = call(v, form, q, err);
    if (st != GDN_OK) return st;
    memset(v->mask, 0, (size_t)v->bytes);
    mark_all(v);
    if (is_staged(form)) mark_mid(v);
    else memcpy(v->fused[is_chunked(form)], v->after, (size_t)v->bytes);
    int64_t stray = 0;
    for (uint64_t i = 0; i < v->bytes; i++) stray += !v->mask[i] && v->before[i] != v->after[i];
    if (stray > r->n_stray) r->n_stray = stray;
    for (int i = 0; i < GDN_OP_N_OUTPUT; i++)
        compare(v, i, is_staged(form) ? v->fused[is_chunked(form)] : NULL, &r->out[i]);
    return st;
}

static gdn_status run(vector *v, bool pages, gdn_device *d, gdn_queue *q, gdn_op_vector_result *r,
                      gdn_err *err) {
    lay_out(v, pages);
    unsigned char **part[] = { &v->before, &v->after, &v->mask, &v->fused[0], &v->fused[1] };
    enum { N_PART = sizeof part / sizeof *part };
    gdn_status st = GDN_OK;
    for (int i = 0; i < N_PART; i++)
        if ((*part[i] = malloc((size_t)v->bytes)) == NULL)
            st = gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", v->path);
    if (st == GDN_OK) st = gdn_buffer_alloc(d, v->bytes, &v->buf, err);
    if (st == GDN_OK) fill(v, pages);
    for (int f = 0; f < GDN_OP_N_FORM && st == GDN_OK; f++)
        st = run_form(v, f, q, &r->form[f], err);
    gdn_buffer_free(v->buf);
    v->buf = NULL;
    for (int i = 0; i < N_PART; i++) {
        free(*part[i]);
        *part[i] = NULL;
    }
    return st;
}

const char *gdn_op_output_name(int32_t i) {
    return i < 0 || i >= GDN_OP_N_OUTPUT ? NULL : field[out_field[i]].name;
}

const char *gdn_op_form_name(int32_t i) {
    static const char *const name[GDN_OP_N_FORM] = { "recurrent", "chunked", "recurrent_stages",
                                                     "chunked_stages" };
    return i < 0 || i >= GDN_OP_N_FORM ? NULL : name[i];
}

static void set_bounds(const vector *v, gdn_op_vector_result *r) {
    gdn_type act = GDN_F32, state = GDN_F32;
    type_of(v->t[CORE]->dtype, &act);
    type_of(v->t[SSM_STATE]->dtype, &state);
    for (int f = 0; f < GDN_OP_N_FORM; f++) {
        r->form[f].out[GDN_OP_CORE].bound = core_bound(is_chunked(f), act);
        r->form[f].out[GDN_OP_SSM_STATE].bound = state_bound(is_chunked(f), act, state);
    }
}

static void judge(gdn_op_vector_result *r) {
    r->pass = true;
    for (int f = 0; f < GDN_OP_N_FORM; f++) {
        gdn_op_form_result *o = &r->form[f];
        o->pass = o->n_stray == 0;
        for (int i = 0; i < GDN_OP_N_OUTPUT; i++) {
            gdn_op_vector_error *e = &o->out[i];
            e->pass = e->rel_l2 <= e->bound && e->n_differ == 0;
            o->pass = o->pass && e->pass;
        }
        r->pass = r->pass && o->pass;
    }
}

gdn_status gdn_op_vector_run(const char *path, const char *device, const gdn_device_opts *opts,
                             gdn_op_vector_result *out, gdn_err *err) {
    vector v = { .path = path };
    gdn_device *d = NULL;
    gdn_queue *q = NULL;
    gdn_op_vector_result r = { .pass = false };
    gdn_status st = read_vector(&v, err);
    if (st == GDN_OK) st = name_kind(&v, &r, err);
    if (st == GDN_OK) st = gdn_device_open(device, opts, &d, err);
    if (st == GDN_OK) st = gdn_queue_create(d, &q, err);
    if (st == GDN_OK) {
        set_bounds(&v, &r);
        st = run(&v, false, d, q, &r, err);
    }
    if (st == GDN_OK) st = run(&v, true, d, q, &r, err);
    gdn_queue_free(q);
    gdn_device_close(d);
    gdn_weights_close(v.file);
    if (st != GDN_OK) return st;
    judge(&r);
    *out = r;
    return GDN_OK;
}
