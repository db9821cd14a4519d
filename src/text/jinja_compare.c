/* jinja_compare.c - truth, equality, order, length and iteration of template values, as
 * Python defines them. */
#include "jinja_value.h"

#include <math.h>
#include <string.h>

#include "jinja_text.h"

const char *jv_type_name(const jv *v) {
    static const char *const seq[] = {
        [SEQ_LIST] = "list",          [SEQ_TUPLE] = "tuple",
        [SEQ_RANGE] = "range",        [SEQ_KEYS] = "dict_keys",
        [SEQ_VALUES] = "dict_values", [SEQ_ITEMS] = "dict_items",
        [SEQ_GEN] = "generator",
    };
    switch ((jv_type)v->type) {
    case JV_MISSING:
    case JV_UNDEF: return "Undefined";
    case JV_NONE: return "NoneType";
    case JV_BOOL: return "bool";
    case JV_INT: return "int";
    case JV_FLOAT: return "float";
    case JV_STR: return v->safe ? "Markup" : "str";
    case JV_SEQ: return seq[v->u.seq->kind];
    case JV_DICT: return "dict";
    case JV_NS: return "Namespace";
    case JV_MACRO: return "Macro";
    case JV_FUNC: return "function";
    case JV_METHOD: return "method";
    case JV_LOOP: return "LoopContext";
    }
    return "?";
}

bool jv_is_num(const jv *v) {
    return v->type == JV_BOOL || v->type == JV_INT || v->type == JV_FLOAT;
}

double jv_num(const jv *v) { return v->type == JV_FLOAT ? v->u.f : (double)v->u.i; }

bool jv_is_list(const jv *v) { return v->type == JV_SEQ && v->u.seq->kind == SEQ_LIST; }

bool jv_streq(jv v, const char *s) {
    return v.type == JV_STR && v.u.s.n == strlen(s) && memcmp(v.u.s.p, s, v.u.s.n) == 0;
}

_Noreturn void jv_undef_fail(jin *J, jv v) {
    jin_fail(J, GDN_E_FORMAT, "%.*s", (int)v.u.s.n, v.u.s.p);
}

bool jv_true(jin *J, jv v) {
    size_t n;
    switch ((jv_type)v.type) {
    case JV_MISSING:
    case JV_UNDEF:
    case JV_NONE: return false;
    case JV_BOOL:
    case JV_INT: return v.u.i != 0;
    case JV_FLOAT: return v.u.f != 0;
    default: return jv_len(J, v, &n) ? n > 0 : true;
    }
}

/* Integers and floats compare by value; long double holds both exactly. */
static int order_num(const jv *a, const jv *b) {
    if (a->type != JV_FLOAT && b->type != JV_FLOAT) return (a->u.i > b->u.i) - (a->u.i < b->u.i);
    const long double x = a->type == JV_FLOAT ? (long double)a->u.f : (long double)a->u.i;
    const long double y = b->type == JV_FLOAT ? (long double)b->u.f : (long double)b->u.i;
    return (x > y) - (x < y);
}

static bool is_nan(const jv *v) { return v->type == JV_FLOAT && isnan(v->u.f); }

static int order_str(const jv *a, const jv *b) {
    const size_t n = a->u.s.n < b->u.s.n ? a->u.s.n : b->u.s.n;
    const int    c = memcmp(a->u.s.p, b->u.s.p, n); /* byte order of UTF-8 is character order */
    return c != 0 ? c : (a->u.s.n > b->u.s.n) - (a->u.s.n < b->u.s.n);
}

static bool equal_seq(jin *J, const jv_seq *a, const jv_seq *b) {
    if (a == b) return true;
    const bool ranges = a->kind == SEQ_RANGE && b->kind == SEQ_RANGE;
    if (!ranges && (a->kind != b->kind || a->kind > SEQ_TUPLE)) return false;
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!jv_equal(J, a->v[i], b->v[i])) return false;
    return true;
}

static bool equal_dict(jin *J, const jv_dict *a, const jv_dict *b) {
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        const jv *v = jv_dict_get(J, b, a->key[i]);
        if (v == NULL || !jv_equal(J, a->val[i], *v)) return false;
    }
    return true;
}

bool jv_equal(jin *J, jv a, jv b) {
    jin_work(J, 1);
    if (jv_is_num(&a) && jv_is_num(&b))
        return !is_nan(&a) && !is_nan(&b) && order_num(&a, &b) == 0;
    if (a.type != b.type) return false;
    bool same = false;
    switch ((jv_type)a.type) {
    case JV_STR: return a.u.s.n == b.u.s.n && memcmp(a.u.s.p, b.u.s.p, a.u.s.n) == 0;
    case JV_SEQ:
        jin_enter(J, JIN_DEPTH_DATA);
        same = equal_seq(J, a.u.seq, b.u.seq);
        jin_leave(J);
        return same;
    case JV_DICT:
        jin_enter(J, JIN_DEPTH_DATA);
        same = equal_dict(J, a.u.dict, b.u.dict);
        jin_leave(J);
        return same;
    case JV_NS: return a.u.dict == b.u.dict;
    case JV_MACRO: return a.u.macro == b.u.macro;
    case JV_FUNC: return a.u.func == b.u.func;
    case JV_METHOD: return a.u.bound == b.u.bound;
    case JV_LOOP: return a.u.loop == b.u.loop;
    default: return true; /* none and undefined equal their like */
    }
}

/* A NaN is neither below nor above: it orders as equal, and the operators ask before. */
int jv_order(jin *J, jv a, jv b) {
    jin_work(J, 1);
    if (a.type == JV_UNDEF) jv_undef_fail(J, a);
    if (b.type == JV_UNDEF) jv_undef_fail(J, b);
    if (jv_is_num(&a) && jv_is_num(&b)) return order_num(&a, &b);
    if (a.type == JV_STR && b.type == JV_STR) return order_str(&a, &b);
    if (a.type == JV_SEQ && b.type == JV_SEQ && a.u.seq->kind == b.u.seq->kind &&
        a.u.seq->kind <= SEQ_TUPLE) {
        const jv_seq *x = a.u.seq, *y = b.u.seq;
        for (size_t i = 0; i < x->n && i < y->n; i++) {
            if (jv_equal(J, x->v[i], y->v[i])) continue;
            jin_enter(J, JIN_DEPTH_DATA);
            const int c = jv_order(J, x->v[i], y->v[i]);
            jin_leave(J);
            return c;
        }
        return (x->n > y->n) - (x->n < y->n);
    }
    jin_fail(J, GDN_E_FORMAT, "'%s' and '%s' have no order", jv_type_name(&a), jv_type_name(&b));
}

bool jv_len(jin *J, jv v, size_t *n) {
    switch ((jv_type)v.type) {
    case JV_UNDEF: *n = 0; return true;
    case JV_STR:
        jin_work(J, v.u.s.n / 64);
        *n = jt_count(v.u.s.p, v.u.s.n);
        return true;
    case JV_SEQ: *n = v.u.seq->n; return v.u.seq->kind != SEQ_GEN;
    case JV_DICT: *n = v.u.dict->n; return true;
    default: return false;
    }
}

bool jv_can_iterate(const jv *v) {
    return v->type == JV_UNDEF || v->type == JV_STR || v->type == JV_SEQ || v->type == JV_DICT;
}

jv_iter jv_iterate(jin *J, jv v) {
    if (v.type == JV_UNDEF && v.safe) jv_undef_fail(J, v);
    if (!jv_can_iterate(&v))
        jin_fail(J, GDN_E_FORMAT, "'%s' object is not iterable", jv_type_name(&v));
    return (jv_iter){.seq = v};
}

bool jv_next(jin *J, jv_iter *it, jv *out) {
    jin_work(J, 1);
    if (it->seq.type == JV_SEQ) {
        jv_seq *s = it->seq.u.seq;
        size_t *at = s->kind == SEQ_GEN ? &s->at : &it->at;
        if (*at >= s->n) return false;
        *out = s->v[(*at)++];
        return true;
    }
    if (it->seq.type == JV_DICT) {
        if (it->at >= it->seq.u.dict->n) return false;
        *out = it->seq.u.dict->key[it->at++];
        return true;
    }
    if (it->seq.type == JV_STR) {
        if (it->at >= it->seq.u.s.n) return false;
        const size_t n = jt_step(it->seq.u.s.p + it->at, it->seq.u.s.n - it->at);
        *out = jv_str(it->seq.u.s.p + it->at, n);
        out->safe = it->seq.safe;
        it->at += n;
        return true;
    }
    return false;
}

jv jv_to_list(jin *J, jv v, seq_kind kind) {
    jvec    l = {.J = J};
    jv      x;
    jv_iter it = jv_iterate(J, v);
    while (jv_next(J, &it, &x)) jvec_add(&l, x);
    return jvec_done(&l, kind);
}
