/* cpu_gdn_fetch.c - asking for the rows that gdn_attention's next tokens read and write, into the
 * second cache, a few lines at a time: in one go they would only wait for each other. */
#include "cpu_gdn_stage.h"

enum { LINE = 64 };

static void add(cpu_gdn_stretches *s, const char *p, int64_t bytes, bool write) {
    if (s->n == GDN_STRETCHES) return; /* more are not worth a longer list */
    s->of[s->n++] = (cpu_gdn_stretch){p, (bytes + LINE - 1) / LINE, write};
}

/* The part's values in a row [heads][dv]: a stretch for each head, or one if they lie side by side. */
static void add_values(const cpu_gdn_task *k, cpu_gdn_stretches *s, const gdn_tensor *t, int64_t row,
                       bool write) {
    const cpu_gdn_job *j = k->j;
    const int64_t bytes = gdn_type_bytes(t->type), all = k->c1 - k->c0;
    const char *p = cpu_at(t, row) + k->g * j->r * t->stride[1];
    if (t->stride[1] == j->dv * bytes) {
        add(s, p + k->c0 * bytes, all * bytes, write);
        return;
    }
    for (int64_t c = k->c0, n; c < k->c1; c += n) {
        const int64_t head = c / j->dv, col = c % j->dv;
        n = j->dv - col < k->c1 - c ? j->dv - col : k->c1 - c;
        add(s, p + head * t->stride[1] + col * bytes, n * bytes, write);
    }
}

static void token(const cpu_gdn_task *k, int64_t i, cpu_gdn_stretches *s) {
    const cpu_gdn_job *j = k->j;
    const int64_t bytes = gdn_type_bytes(j->act), row = cpu_gdn_row(k->m, i), from = k->m->token + i;
    s->n = 0;
    if (j->core != NULL && !j->stream) add_values(k, s, j->core, row, true);
    if (j->qkvz != NULL) {
        const char *p = cpu_at(j->qkvz, row);
        for (int n = 0; n < k->n_span; n++)
            add(s, p + k->span[n].src * bytes, k->span[n].n * bytes, false);
        add(s, p + cpu_gdn_z_at(k) * bytes, (k->c1 - k->c0) * bytes, false);
        if (!j->stream) add_values(k, s, j->z, row, true);
    } else {
        add(s, cpu_at(j->q, from) + k->g * j->q->stride[1], j->dk * bytes, false);
        add(s, cpu_at(j->k, from) + k->g * j->k->stride[1], j->dk * bytes, false);
        add_values(k, s, j->v, from, false);
    }
}

/* Row w of the task's history, unless its channels lie apart: a line of memory each. */
static void history(const cpu_gdn_task *k, int64_t w, cpu_gdn_stretches *s) {
    s->n = 0;
    for (int n = 0; n < k->n_span && !k->j->ds; n++)
        add(s, cpu_gdn_line(k, w, k->span + n), k->span[n].n * gdn_type_bytes(k->j->act), true);
}

static int64_t lines(const cpu_gdn_stretches *s) {
    int64_t n = 0;
    for (int i = 0; i < s->n; i++) n += s->of[i].lines;
    return n;
}

static inline void ask(const char *p, bool write) {
    if (write) __builtin_prefetch(p, 1, 2);
    else __builtin_prefetch(p, 0, 2);
}

void cpu_gdn_fetch(const cpu_gdn_task *k, int64_t i) {
    cpu_gdn_stretches s;
    token(k, i, &s);
    for (int n = 0; n < s.n; n++)
        for (int64_t l = 0; l < s.of[n].lines; l++) ask(s.of[n].p + l * LINE, s.of[n].write);
}

/* ---- a few lines at a time ---- */

cpu_gdn_ahead cpu_gdn_what_follows(const cpu_gdn_task *k) {
    cpu_gdn_ahead f = {.task = k, .token = k->from + k->n};
    int64_t left = k->m->n - f.token;
    if (left <= 0) {
        /* A long sequence does not gain from it: its tiles fill the cache. */
        if (k->next == NULL || k->next->m->none || k->from > 0) return (cpu_gdn_ahead){.lines = 0};
        f.task = k->next;
        f.token = 0;
        left = f.task->m->n;
        f.row = k->j->qkvz != NULL && !f.task->m->fresh ? 1 - k->j->W : 0;
    }
    f.end = f.token + (left < GDN_TILE ? left : GDN_TILE);
    token(f.task, f.token, &f.s);
    f.lines = (f.end - f.token) * lines(&f.s);
    if (f.row < 0) {
        history(f.task, 0, &f.s);
        f.lines += -f.row * lines(&f.s);
    }
    f.s.n = 0;
    return f;
}

/* The next stretch; false: there is none. */
static bool next(cpu_gdn_ahead *f) {
    while (++f->at >= f->s.n) {
        f->at = -1;
        if (f->row < 0) history(f->task, f->task->j->W - 1 + f->row++, &f->s);
        else if (f->token < f->end) token(f->task, f->token++, &f->s);
        else return false;
    }
    f->line = 0;
    return true;
}

void cpu_gdn_fetch_some(void *ahead) {
    cpu_gdn_ahead *f = ahead;
    if (f->step >= f->steps) return;
    const int64_t end = f->lines * ++f->step / f->steps;
    for (; f->done < end; f->done++) {
        if ((f->s.n == 0 || f->line == f->s.of[f->at].lines) && !next(f)) return;
        ask(f->s.of[f->at].p + f->line++ * LINE, f->s.of[f->at].write);
    }
}
