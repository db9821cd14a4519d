/* cpu_gdn_conv.c - the causal convolution of gdn_attention, and the lines it carries on. */
#include <string.h>

#include "cpu_gdn_stage.h"

/* Bytes from a slot's first to row `row` of channel c, and from a channel to the next. */
static int64_t line_at(const cpu_gdn_job *j, int64_t row, int64_t c) {
    const gdn_tensor *s = j->conv_state;
    return j->ds ? c * s->stride[1] + row * s->stride[2] : row * s->stride[1] + c * s->stride[2];
}

/* --- history in ---------------------------------------------------------------------------- */

static void history(const cpu_gdn_task *k, const cpu_gdn_span *s) {
    const cpu_gdn_job *j = k->j;
    const char *line = cpu_at(j->conv_state, k->m->slot);
    for (int64_t w = 0; w < j->W - 1; w++) {
        float *to = k->t->hist + w * j->ld + s->x;
        if (k->m->fresh) {
            memset(to, 0, (size_t)s->n * sizeof *to);
        } else if (!j->ds) {
            cpu_gdn_load(j, to, line + line_at(j, k->m->line + w, s->channel), s->n, j->act);
        } else {
            for (int64_t i = 0; i < s->n; i++)
                cpu_gdn_load(j, to + i, line + line_at(j, k->m->line + w, s->channel + i), 1,
                             j->act);
        }
    }
}

const char *cpu_gdn_line(const cpu_gdn_task *k, int64_t w, const cpu_gdn_span *s) {
    return cpu_at(k->j->conv_state, k->m->slot) + line_at(k->j, k->m->line + w, s->channel);
}

void cpu_gdn_convolve(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const cpu_gdn_span *first = k->span, *last = k->span + k->n_span - 1;
    for (const cpu_gdn_span *s = first; s <= last; s++) {
        if (k->from == 0) history(k, s);
        gdn_conv_args a = {.y = k->t->y + s->x,
                           .x = k->t->x + s->x,
                           .x_stride = j->ld,
                           .state = k->t->hist + s->x,
                           .w = j->w + s->channel,
                           .bias = j->bias != NULL ? j->bias + s->channel : NULL,
                           .y_stride = j->ld,
                           .state_stride = j->ld,
                           .n_tok = (int32_t)k->n,
                           .C = (int32_t)j->C,
                           .c0 = 0,
                           .c1 = (int32_t)s->n,
                           .W = (int32_t)j->W,
                           .y_bf16 = j->act == GDN_BF16, /* as between the stages */
                           .has_state = true};
        if (cpu_gdn_y_in_bf16(k)) a.y_in_bf16 = (uint16_t *)(void *)k->t->y + s->x;
        if (cpu_gdn_reads_rows(k)) {
            const int64_t bytes = gdn_type_bytes(j->act);
            void *x = cpu_at(j->qkvz, cpu_gdn_row(k->m, k->from)) + s->src * bytes;
            if (j->act == GDN_BF16) a.x_bf16 = x;
            else a.x = x;
            a.x_stride = j->qkvz->stride[0] / bytes;
        }
        j->d->kern.conv(&a);
    }
    if (j->act != GDN_F16 || j->core == NULL) return;
    gdn_round_fn *const rounded = j->d->kern.round[GDN_HALF_F16];
    for (int64_t i = 0; i < k->n; i++)
        rounded(k->t->y + i * j->ld + first->x, last->x + last->n - first->x);
}

/* --- lines out ------------------------------------------------------------------------------ */

/* Row `row` of the line becomes its own row `old`, or with x the inputs there; bits are copied. */
static void set_row(const cpu_gdn_job *j, char *line, int64_t row, int64_t old, const char *x,
                    const cpu_gdn_span *s) {
    const int64_t bytes = gdn_type_bytes(j->act);
    const char *from = x != NULL ? x + s->src * bytes : NULL;
    char *to = line + line_at(j, row, s->channel);
    if (!j->ds) {
        if (from == NULL) from = line + line_at(j, old, s->channel);
        memcpy(to, from, (size_t)(s->n * bytes));
        return;
    }
    const int64_t step = j->conv_state->stride[1], from_step = x != NULL ? bytes : step;
    if (from == NULL) from = line + line_at(j, old, s->channel);
    if (bytes == 2)
        for (int64_t i = 0; i < s->n; i++) memcpy(to + i * step, from + i * from_step, 2);
    else
        for (int64_t i = 0; i < s->n; i++) memcpy(to + i * step, from + i * from_step, 4);
}

static void clear_row(const cpu_gdn_job *j, char *line, int64_t row, const cpu_gdn_span *s) {
    const int64_t bytes = gdn_type_bytes(j->act);
    char *to = line + line_at(j, row, s->channel);
    if (!j->ds) memset(to, 0, (size_t)(s->n * bytes));
    else
        for (int64_t i = 0; i < s->n; i++)
            memset(to + i * j->conv_state->stride[1], 0, (size_t)bytes);
}

/* The old history and the inputs after it are one list, of which a plain line keeps the last
 * W - 1, and a speculative one all but the first.  Rows move to lower places only, in order, so
 * that none is overwritten before it has moved. */
void cpu_gdn_renew_line(const cpu_gdn_job *j, const cpu_gdn_member *m, int64_t g) {
    cpu_gdn_task all = {.j = j, .m = m, .g = g, .c0 = 0, .c1 = j->r * j->dv, .qk = true};
    const int64_t skip = m->column != NULL ? 1 : m->n, past = j->W - 1;
    cpu_gdn_spans(&all);
    char *line = cpu_at(j->conv_state, m->slot);
    for (int64_t row = 0; row + skip < past + m->n; row++) {
        const int64_t from = row + skip;
        const char *x = from < past ? NULL : cpu_at(j->qkvz, cpu_gdn_row(m, from - past));
        for (int s = 0; s < 3; s++)
            if (x == NULL && m->fresh) clear_row(j, line, row, all.span + s);
            else set_row(j, line, row, m->line + from, x, all.span + s);
    }
}

/* --- weights -------------------------------------------------------------------------------- */

void cpu_gdn_weights(void *job, int64_t begin, int64_t end, int thread) {
    enum { SOME = 64, MAX_W = 8 };
    (void)thread;
    const cpu_gdn_job *j = job;
    const gdn_tensor *t = j->conv_weights;
    const bool dense = t->stride[0] == j->W * gdn_type_bytes(t->type);
    for (int64_t c = begin; c < end; c += SOME) {
        float row[SOME * MAX_W];
        const int64_t n = end - c < SOME ? end - c : SOME;
        if (dense) cpu_gdn_load(j, row, cpu_at(t, c), n * j->W, t->type);
        for (int64_t i = 0; i < n && !dense; i++)
            cpu_gdn_load(j, row + i * j->W, cpu_at(t, c + i), j->W, t->type);
        if (j->W == 4) /* unrolled */
            for (int64_t i = 0; i < n; i++)
                for (int w = 0; w < 4; w++) j->w[w * j->C + c + i] = row[i * 4 + w];
        else
            for (int64_t i = 0; i < n; i++)
                for (int64_t w = 0; w < j->W; w++) j->w[w * j->C + c + i] = row[i * j->W + w];
    }
    if (j->bias != NULL)
        cpu_gdn_load(j, j->bias + begin,
                     (const char *)gdn_tensor_host(j->conv_bias) +
                         begin * gdn_type_bytes(j->conv_bias->type),
                     end - begin, j->conv_bias->type);
}
