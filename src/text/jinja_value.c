/* jinja_value.c - arena, failure, and the basic operations on template values. */
#include "jinja_value.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "jinja_text.h"

struct jin_block {
    jin_block *next;
    size_t     used, size;
    max_align_t data[];
};

/* --- failure ------------------------------------------------------------------------------ */

_Noreturn void jin_fail(jin *J, gdn_status code, const char *fmt, ...) {
    char    text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    J->status = gdn_fail(J->err, code, "%s line %d: %s", J->name, J->line, text);
    longjmp(J->escape, 1);
}

_Noreturn void jin_fail_plain(jin *J, gdn_status code, const char *fmt, ...) {
    char    text[496];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    J->status = gdn_fail(J->err, code, "%s", text);
    longjmp(J->escape, 1);
}

/* --- memory ------------------------------------------------------------------------------- */

static void count_bytes(jin *J, size_t bytes) {
    if (bytes > J->bytes_max - J->bytes)
        jin_fail(J, GDN_E_FULL, "the template needs more than %zu bytes", J->bytes_max);
    J->bytes += bytes;
}

static jin_block *new_block(jin *J, size_t size) {
    jin_block *b = malloc(sizeof *b + size);
    if (b == NULL) jin_fail(J, GDN_E_NOMEM, "%zu bytes for the template", size);
    b->next = J->blocks, b->used = 0, b->size = size;
    J->blocks = b;
    return b;
}

static size_t round_up(size_t n) { return (n + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1); }

static char *take(jin *J, size_t bytes) {
    enum { BLOCK = 16384 };
    if (bytes > J->bytes_max) count_bytes(J, bytes); /* before rounding could wrap */
    bytes = round_up(bytes == 0 ? 1 : bytes);
    count_bytes(J, bytes);
    jin_block *b = J->blocks;
    if (b == NULL || bytes > b->size - b->used) {
        /* Twice what a long string needs, so that appending to it stays in place. */
        b = new_block(J, bytes > BLOCK / 2 ? 2 * bytes : BLOCK);
    }
    char *p = (char *)b->data + b->used;
    b->used += bytes;
    return p;
}

void *jin_alloc(jin *J, size_t bytes) {
    char *p = take(J, bytes);
    memset(p, 0, bytes);
    return p;
}

void *jin_array(jin *J, size_t n, size_t size) {
    if (n > SIZE_MAX / size) jin_fail(J, GDN_E_FULL, "%zu elements are too many", n);
    return jin_alloc(J, n * size);
}

char *jin_grow(jin *J, char *p, size_t n, size_t n_new) {
    jin_block *b = J->blocks;
    if (p != NULL && b != NULL && n > 0) {
        char        *base = (char *)b->data;
        const size_t old = round_up(n);
        if (b->used >= old && p == base + b->used - old && n_new <= J->bytes_max) {
            const size_t more = round_up(n_new) - old;
            if (more <= b->size - b->used) {
                count_bytes(J, more);
                b->used += more;
                return p;
            }
        }
    }
    char *q = take(J, n_new);
    if (n > 0) memcpy(q, p, n);
    return q;
}

void jin_release(jin *J) {
    while (J->blocks != NULL) {
        jin_block *b = J->blocks;
        J->blocks = b->next;
        free(b);
    }
    free(J->out);
    J->out = NULL;
}

void jin_work(jin *J, size_t units) {
    J->steps += units;
    if (J->steps > JIN_STEPS_MAX)
        jin_fail(J, GDN_E_FULL, "the template runs for more than %d steps", JIN_STEPS_MAX);
}

void jin_enter(jin *J, int max) {
    if (J->depth >= max) jin_fail(J, GDN_E_FULL, "nested more than %d deep", max);
    J->depth++;
}

void jin_emit(jin *J, const char *p, size_t n) {
    if (n == 0) return;
    if (n > J->cap_out - J->n_out) {
        size_t cap = J->cap_out < 4096 ? 4096 : J->cap_out;
        if (n > J->bytes_max) count_bytes(J, n);
        while (cap - J->n_out < n) cap *= 2;
        count_bytes(J, cap - J->cap_out);
        char *q = realloc(J->out, cap + 1); /* one more for the final NUL */
        if (q == NULL) jin_fail(J, GDN_E_NOMEM, "%zu bytes of output", cap);
        J->out = q, J->cap_out = cap;
    }
    memcpy(J->out + J->n_out, p, n);
    J->n_out += n;
}

/* --- making values -------------------------------------------------------------------------- */

jv jv_none(void) { return (jv){.type = JV_NONE}; }
jv jv_bool(bool b) { return (jv){.type = JV_BOOL, .u.i = b}; }
jv jv_int(int64_t i) { return (jv){.type = JV_INT, .u.i = i}; }
jv jv_float(double f) { return (jv){.type = JV_FLOAT, .u.f = f}; }

jv jv_str(const char *p, size_t n) {
    jv v = {.type = JV_STR};
    v.u.s.p = n == 0 ? "" : p, v.u.s.n = n;
    return v;
}

jv jv_cstr(const char *p) { return jv_str(p, strlen(p)); }

jv jv_undef(jin *J, const char *fmt, ...) {
    char    text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const size_t n = strlen(text);
    char        *p = jin_alloc(J, n + 1);
    memcpy(p, text, n);
    jv v = {.type = JV_UNDEF};
    v.u.s.p = p, v.u.s.n = n;
    return v;
}

jv jv_list(jin *J, size_t n, seq_kind kind) {
    jv_seq *s = jin_alloc(J, sizeof *s);
    s->kind = (uint8_t)kind, s->n = n;
    s->v = jin_array(J, n, sizeof *s->v);
    for (size_t i = 0; i < n; i++) s->v[i].type = JV_NONE;
    return (jv){.type = JV_SEQ, .u.seq = s};
}

void jvec_add(jvec *l, jv v) {
    if (l->n == l->cap) {
        const size_t cap = l->cap == 0 ? 8 : 2 * l->cap;
        jv          *q = jin_array(l->J, cap, sizeof *q);
        if (l->n > 0) memcpy(q, l->v, l->n * sizeof *q);
        l->v = q, l->cap = cap;
    }
    l->v[l->n++] = v;
}

jv jvec_done(jvec *l, seq_kind kind) {
    jv_seq *s = jin_alloc(l->J, sizeof *s);
    s->kind = (uint8_t)kind, s->n = l->n, s->v = l->v;
    return (jv){.type = JV_SEQ, .u.seq = s};
}

/* --- strings under construction --------------------------------------------------------------- */

void jsb_add(jsb *b, const char *p, size_t n) {
    if (n > b->cap - b->n) {
        if (n > b->J->bytes_max) count_bytes(b->J, n);
        size_t cap = b->cap < 32 ? 32 : b->cap;
        while (cap - b->n < n) cap *= 2;
        b->p = jin_grow(b->J, b->p, b->cap, cap);
        b->cap = cap;
    }
    if (n > 0) memcpy(b->p + b->n, p, n);
    b->n += n;
}

void jsb_char(jsb *b, char c) { jsb_add(b, &c, 1); }
void jsb_text(jsb *b, const char *text) { jsb_add(b, text, strlen(text)); }

void jsb_rune(jsb *b, uint32_t c) {
    char buf[4];
    jsb_add(b, buf, jt_encode(c, buf));
}

jv jsb_done(jsb *b) { return jv_str(b->p, b->n); }

jv jin_append(jin *J, jv a, const char *p, size_t n) {
    const size_t na = a.u.s.n;
    jin_block   *b = J->blocks;
    if (na > 0 && a.u.s.p + na == J->tail && b == J->tail_block && b->used == J->tail_used) {
        char        *base = (char *)b->data;
        const size_t at = (size_t)(J->tail - base);
        if (n <= b->size - at) {
            const size_t used = round_up(at + n) < b->size ? round_up(at + n) : b->size;
            count_bytes(J, n);
            memmove(base + at, p, n);
            b->used = used > b->used ? used : b->used;
            J->tail = base + at + n, J->tail_used = b->used;
            return jv_str(a.u.s.p, na + n);
        }
    }
    if (n > J->bytes_max || na > J->bytes_max) count_bytes(J, J->bytes_max);
    char *q = take(J, na + n);
    if (na > 0) memcpy(q, a.u.s.p, na);
    if (n > 0) memcpy(q + na, p, n);
    J->tail = q + na + n, J->tail_block = J->blocks, J->tail_used = J->blocks->used;
    return jv_str(q, na + n);
}

/* --- dictionaries -------------------------------------------------------------------------------- */

static uint32_t hash_bytes(const char *p, size_t n) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 16777619u;
    return h ^ h >> 15;
}

jv jv_new_dict(jin *J, size_t hint) {
    jv_dict *d = jin_alloc(J, sizeof *d);
    d->cap = hint;
    if (hint > 0) {
        d->key = jin_array(J, hint, sizeof *d->key);
        d->val = jin_array(J, hint, sizeof *d->val);
    }
    return (jv){.type = JV_DICT, .u.dict = d};
}

bool jv_hashable(const jv *v) {
    if (v->type == JV_DICT) return false;
    if (v->type != JV_SEQ) return true;
    if (v->u.seq->kind == SEQ_LIST) return false;
    if (v->u.seq->kind == SEQ_TUPLE)
        for (size_t i = 0; i < v->u.seq->n; i++)
            if (v->u.seq->v[i].type == JV_SEQ || !jv_hashable(&v->u.seq->v[i])) return false;
    return true;
}

static void add_slot(jv_dict *d, size_t i) {
    size_t at = hash_bytes(d->key[i].u.s.p, d->key[i].u.s.n) & (d->n_slot - 1);
    while (d->slot[at] != 0) at = (at + 1) & (d->n_slot - 1);
    d->slot[at] = (uint32_t)(i + 1);
}

static void build_slots(jin *J, jv_dict *d) {
    d->n_slot = 32;
    while (d->n_slot < 4 * d->n) d->n_slot *= 2;
    d->slot = jin_array(J, d->n_slot, sizeof *d->slot);
    for (size_t i = 0; i < d->n; i++)
        if (d->key[i].type == JV_STR) add_slot(d, i);
}

static size_t find_key(jin *J, const jv_dict *d, jv key) {
    if (key.type == JV_STR && d->slot != NULL) {
        size_t at = hash_bytes(key.u.s.p, key.u.s.n) & (d->n_slot - 1);
        for (; d->slot[at] != 0; at = (at + 1) & (d->n_slot - 1)) {
            const jv *k = &d->key[d->slot[at] - 1];
            jin_work(J, 1);
            if (k->u.s.n == key.u.s.n && memcmp(k->u.s.p, key.u.s.p, key.u.s.n) == 0)
                return d->slot[at] - 1;
        }
        return SIZE_MAX;
    }
    jin_work(J, 1 + d->n / 8);
    for (size_t i = 0; i < d->n; i++) {
        const jv *k = &d->key[i];
        if (key.type == JV_STR) {
            if (k->type == JV_STR && k->u.s.n == key.u.s.n &&
                memcmp(k->u.s.p, key.u.s.p, key.u.s.n) == 0)
                return i;
        } else if (k->type != JV_STR && jv_equal(J, *k, key)) {
            return i;
        }
    }
    return SIZE_MAX;
}

void jv_dict_set(jin *J, jv_dict *d, jv key, jv val) {
    if (!jv_hashable(&key))
        jin_fail(J, GDN_E_FORMAT, "unhashable type: '%s'", jv_type_name(&key));
    const size_t at = find_key(J, d, key);
    if (at != SIZE_MAX) {
        d->val[at] = val;
        return;
    }
    if (d->n >= UINT32_MAX / 8) jin_fail(J, GDN_E_FULL, "a dict of %zu keys", d->n);
    if (d->n == d->cap) {
        const size_t cap = d->cap == 0 ? 8 : 2 * d->cap;
        jv *k = jin_array(J, cap, sizeof *k), *v = jin_array(J, cap, sizeof *v);
        if (d->n > 0) memcpy(k, d->key, d->n * sizeof *k), memcpy(v, d->val, d->n * sizeof *v);
        d->key = k, d->val = v, d->cap = cap;
    }
    d->key[d->n] = key, d->val[d->n] = val;
    d->n++;
    if (d->slot != NULL && 2 * d->n <= d->n_slot) {
        if (key.type == JV_STR) add_slot(d, d->n - 1);
    } else if (d->n > 12) {
        build_slots(J, d);
    }
}

const jv *jv_dict_get(jin *J, const jv_dict *d, jv key) {
    if (!jv_hashable(&key)) return NULL;
    const size_t at = find_key(J, d, key);
    return at == SIZE_MAX ? NULL : &d->val[at];
}

const jv *jv_dict_get_str(jin *J, const jv_dict *d, const char *p, size_t n) {
    return jv_dict_get(J, d, jv_str(p, n));
}
