/* cpu_gdn_rows.c - the rows of gdn_attention's tensors, to a tile and from it. */
#include <string.h>

#include "../base/half.h"
#include "../base/stream.h"
#include "cpu_gdn_stage.h"

enum { AHEAD = 8 }; /* tokens between asking and reading */

void cpu_gdn_load(const cpu_gdn_job *j, float *to, const void *from, int64_t n, gdn_type t) {
    if (t == GDN_F32) memcpy(to, from, (size_t)n * sizeof *to);
    else j->d->kern.widen[t == GDN_BF16 ? GDN_HALF_BF16 : GDN_HALF_F16](to, from, n);
}

void cpu_gdn_store(const cpu_gdn_job *j, void *to, const float *from, int64_t n, gdn_type t) {
    if (t == GDN_F32) memcpy(to, from, (size_t)n * sizeof *from);
    else j->d->kern.narrow[t == GDN_BF16 ? GDN_HALF_BF16 : GDN_HALF_F16](to, from, n);
}

static float load_one(const void *p, int64_t i, gdn_type t) {
    switch (t) {
    case GDN_F32: return ((const float *)p)[i];
    case GDN_BF16: return gdn_bf16_to_f32(((const uint16_t *)p)[i]);
    default: return gdn_f16_to_f32(((const uint16_t *)p)[i]);
    }
}

void cpu_gdn_spans(cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t group = 2 * j->dk + 2 * j->r * j->dv, at = k->g * group;
    const cpu_gdn_span all[3] = {
        {0, k->g * j->dk, k->g * j->dk, j->dk},
        {j->dk, (j->nk + k->g) * j->dk, (j->nk + k->g) * j->dk, j->dk},
        {2 * j->dk, 2 * j->nk * j->dk + k->g * j->r * j->dv + k->c0,
         2 * j->nk * j->dk + k->g * j->r * j->dv + k->c0, k->c1 - k->c0},
    };
    k->n_span = 0;
    for (int i = k->qk ? 0 : 2; i < 3; i++) {
        cpu_gdn_span *s = &k->span[k->n_span++];
        *s = all[i];
        if (!j->reorder) s->src = at + (i < 2 ? i * j->dk : 2 * j->dk + k->c0);
    }
}

/* Values of the part in a row [heads][dv] whose heads may lie apart; from is in the tensor's type,
 * or f32 when the tensor is another, or NULL for zeros. */
typedef enum { AS_IT_IS, STREAMED, FROM_F32, ZEROS } how;
static void put_values(const cpu_gdn_task *k, const gdn_tensor *t, int64_t row, const void *from,
                       how h) {
    const cpu_gdn_job *j = k->j;
    const int64_t bytes = gdn_type_bytes(t->type);
    for (int64_t c = k->c0, n; c < k->c1; c += n) {
        const int64_t head = c / j->dv, col = c % j->dv;
        n = j->dv - col < k->c1 - c ? j->dv - col : k->c1 - c;
        char *to = cpu_at(t, row) + (k->g * j->r + head) * t->stride[1] + col * bytes;
        if (h == ZEROS) memset(to, 0, (size_t)(n * bytes));
        else if (h == AS_IT_IS)
            memcpy(to, (const char *)from + (c - k->c0) * bytes, (size_t)(n * bytes));
        else if (h == STREAMED)
            gdn_stream_copy(to, (const char *)from + (c - k->c0) * bytes, n * bytes);
        else cpu_gdn_store(j, to, (const float *)from + (c - k->c0), n, t->type);
    }
}

/* The delta rule has most tokens fetched while it works on those before. */
static void fetch_ahead(const cpu_gdn_task *k, int64_t i) {
    const int64_t at = k->from + i + AHEAD;
    if (at >= k->m->n) return;
    if ((k->from == 0 && !k->fetched) || k->j->core == NULL)
        cpu_gdn_fetch(k, at);
}

void cpu_gdn_rows_in(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const gdn_type t = j->act;
    const int64_t bytes = gdn_type_bytes(t), z = cpu_gdn_z_at(k);
    const int n_span = cpu_gdn_reads_rows(k) ? 0 : k->n_span;
    for (int64_t i = 0; i < k->n; i++) {
        const int64_t row = cpu_gdn_row(k->m, k->from + i);
        fetch_ahead(k, i);
        const char *p = cpu_at(j->qkvz, row);
        for (int s = 0; s < n_span; s++)
            cpu_gdn_load(j, k->t->x + i * j->ld + k->span[s].x, p + k->span[s].src * bytes,
                         k->span[s].n, t);
        put_values(k, j->z, row, p + z * bytes, j->stream ? STREAMED : AS_IT_IS);
    }
}

/* --- between the stages ------------------------------------------------------------------ */

/* Value heads of the part: a head belongs to the part that has its first channel. */
static int64_t first_head(const cpu_gdn_task *k) { return k->g * k->j->r + k->c0 / k->j->dv; }
static int64_t n_head(const cpu_gdn_task *k) {
    return (k->c1 - 1) / k->j->dv - k->c0 / k->j->dv + 1;
}

/* Elements in a row of ba where b and a of value head h lie. */
static void gate_at(const cpu_gdn_job *j, int64_t h, int64_t *b, int64_t *a) {
    const int64_t g = h / j->r, i = h % j->r;
    *b = j->reorder ? h : 2 * g * j->r + i;
    *a = j->reorder ? j->nv + h : (2 * g + 1) * j->r + i;
}

void cpu_gdn_between_out(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t bytes = gdn_type_bytes(j->act);
    for (int64_t i = 0; i < k->n; i++) {
        const int64_t to = k->m->token + k->from + i;
        const float *y = k->t->y + i * j->ld;
        if (k->qk) {
            cpu_gdn_store(j, cpu_at(j->q, to) + k->g * j->q->stride[1], y, j->dk, j->act);
            cpu_gdn_store(j, cpu_at(j->k, to) + k->g * j->k->stride[1], y + j->dk, j->dk, j->act);
        }
        put_values(k, j->v, to, y + 2 * j->dk, FROM_F32);
        const char *ba = cpu_at(j->ba, cpu_gdn_row(k->m, k->from + i));
        for (int64_t h = first_head(k), n = n_head(k); n > 0; h++, n--) {
            int64_t b, a;
            if ((h - k->g * j->r) * j->dv < k->c0) continue; /* the part before has it */
            gate_at(j, h, &b, &a);
            memcpy(cpu_at(j->b, to) + h * bytes, ba + b * bytes, (size_t)bytes);
            memcpy(cpu_at(j->a, to) + h * bytes, ba + a * bytes, (size_t)bytes);
        }
    }
}

void cpu_gdn_between_in(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t bytes = gdn_type_bytes(j->act);
    for (int64_t i = 0; i < k->n; i++) {
        const int64_t from = k->m->token + k->from + i;
        float *y = k->t->y + i * j->ld;
        fetch_ahead(k, i);
        cpu_gdn_load(j, y, cpu_at(j->q, from) + k->g * j->q->stride[1], j->dk, j->act);
        cpu_gdn_load(j, y + j->dk, cpu_at(j->k, from) + k->g * j->k->stride[1], j->dk, j->act);
        for (int64_t c = k->c0, n; c < k->c1; c += n) {
            const int64_t at = (k->g * j->r + c / j->dv) * j->v->stride[1] + c % j->dv * bytes;
            n = j->dv - c % j->dv < k->c1 - c ? j->dv - c % j->dv : k->c1 - c;
            cpu_gdn_load(j, y + 2 * j->dk + (c - k->c0), cpu_at(j->v, from) + at, n, j->act);
        }
    }
}

void cpu_gdn_gates_in(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t h0 = first_head(k), n = n_head(k);
    for (int64_t h = 0; h < n; h++) {
        float *to_b = k->t->b + h * GDN_TILE, *to_a = k->t->a + h * GDN_TILE;
        int64_t b = h0 + h, a = h0 + h;
        if (j->ba != NULL) gate_at(j, h0 + h, &b, &a);
        for (int64_t i = 0; i < k->n; i++) {
            const int64_t token = k->m->token + k->from + i;
            const void *pb, *pa;
            if (j->ba != NULL) pb = pa = cpu_at(j->ba, cpu_gdn_row(k->m, k->from + i));
            else pb = cpu_at(j->b, token), pa = cpu_at(j->a, token);
            to_b[i] = load_one(pb, b, j->act);
            to_a[i] = load_one(pa, a, j->act);
        }
    }
}

/* --- rows out ---------------------------------------------------------------------------- */

void cpu_gdn_core_out(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    for (int64_t i = 0; i < k->n; i++) {
        const int64_t row = cpu_gdn_row(k->m, k->from + i);
        const float *o = k->t->x + i * j->max_c;
        float *narrow = k->t->y; /* what it held is used up */
        if (j->stream) cpu_gdn_store(j, narrow, o, k->c1 - k->c0, j->core->type);
        if (j->stream) put_values(k, j->core, row, narrow, STREAMED);
        else put_values(k, j->core, row, o, FROM_F32);
    }
}

void cpu_gdn_zeros(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t bytes = gdn_type_bytes(j->act);
    const bool between = j->qkvz != NULL && j->q != NULL;
    for (int64_t i = 0; i < k->m->n; i++) {
        const int64_t row = cpu_gdn_row(k->m, i), to = k->m->token + i;
        if (j->z != NULL) put_values(k, j->z, row, NULL, ZEROS);
        if (j->core != NULL) put_values(k, j->core, row, NULL, ZEROS);
        if (!between) continue;
        put_values(k, j->v, to, NULL, ZEROS);
        if (!k->qk) continue;
        memset(cpu_at(j->q, to) + k->g * j->q->stride[1], 0, (size_t)(j->dk * bytes));
        memset(cpu_at(j->k, to) + k->g * j->k->stride[1], 0, (size_t)(j->dk * bytes));
        memset(cpu_at(j->b, to) + k->g * j->r * bytes, 0, (size_t)(j->r * bytes));
        memset(cpu_at(j->a, to) + k->g * j->r * bytes, 0, (size_t)(j->r * bytes));
    }
}
