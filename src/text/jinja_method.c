/* jinja_method.c - methods of lists, tuples and dicts, and the table of all methods; those
 * of strings are in jinja_string.c.  Methods that change their object are out of reach, as
 * in the original's immutable sandbox. */
#include "jinja_eval.h"

#include <string.h>

#include "jinja_string.h"

static jv m_get(jin *J, jv d, const jargs *a) {
    jv arg[2];
    jin_bind(J, "get", a, "/key,default", arg);
    if (arg[0].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "get expects a key");
    if (!jv_hashable(&arg[0]))
        jin_fail(J, GDN_E_FORMAT, "unhashable type: '%s'", jv_type_name(&arg[0]));
    const jv *v = jv_dict_get(J, d.u.dict, arg[0]);
    return v != NULL ? *v : arg[1].type != JV_MISSING ? arg[1] : jv_none();
}

static jv m_keys(jin *J, jv d, const jargs *a) {
    jin_bind(J, "keys", a, "", NULL);
    const jv r = jv_list(J, d.u.dict->n, SEQ_KEYS);
    for (size_t i = 0; i < d.u.dict->n; i++) r.u.seq->v[i] = d.u.dict->key[i];
    return r;
}

static jv m_values(jin *J, jv d, const jargs *a) {
    jin_bind(J, "values", a, "", NULL);
    const jv r = jv_list(J, d.u.dict->n, SEQ_VALUES);
    for (size_t i = 0; i < d.u.dict->n; i++) r.u.seq->v[i] = d.u.dict->val[i];
    return r;
}

jv jin_dict_items(jin *J, jv d, seq_kind kind) {
    const jv r = jv_list(J, d.u.dict->n, kind);
    jin_work(J, d.u.dict->n);
    for (size_t i = 0; i < d.u.dict->n; i++) {
        const jv pair = jv_list(J, 2, SEQ_TUPLE);
        pair.u.seq->v[0] = d.u.dict->key[i], pair.u.seq->v[1] = d.u.dict->val[i];
        r.u.seq->v[i] = pair;
    }
    return r;
}

static jv m_items(jin *J, jv d, const jargs *a) {
    jin_bind(J, "items", a, "", NULL);
    return jin_dict_items(J, d, SEQ_ITEMS);
}

static jv m_copy(jin *J, jv v, const jargs *a) {
    jin_bind(J, "copy", a, "", NULL);
    if (v.type == JV_SEQ) return jv_to_list(J, v, SEQ_LIST);
    const jv r = jv_new_dict(J, v.u.dict->n);
    for (size_t i = 0; i < v.u.dict->n; i++)
        jv_dict_set(J, r.u.dict, v.u.dict->key[i], v.u.dict->val[i]);
    return r;
}

static jv m_seq_count(jin *J, jv v, const jargs *a) {
    jv      x;
    int64_t n = 0;
    jin_bind(J, "count", a, "/value", &x);
    if (x.type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "count expects a value");
    for (size_t i = 0; i < v.u.seq->n; i++) n += jv_equal(J, v.u.seq->v[i], x);
    return jv_int(n);
}

static jv m_seq_index(jin *J, jv v, const jargs *a) {
    jv x;
    jin_bind(J, "index", a, "/value", &x);
    if (x.type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "index expects a value");
    for (size_t i = 0; i < v.u.seq->n; i++)
        if (jv_equal(J, v.u.seq->v[i], x)) return jv_int((int64_t)i);
    jin_fail(J, GDN_E_FORMAT, "index: the value is not in the list");
}

static const jin_method_entry dict_methods[] = {
    {"get", m_get},       {"items", m_items}, {"keys", m_keys},      {"values", m_values},
    {"copy", m_copy},     {"pop", NULL},      {"popitem", NULL},     {"clear", NULL},
    {"update", NULL},     {"setdefault", NULL},
};

static const jin_method_entry list_methods[] = {
    {"count", m_seq_count}, {"index", m_seq_index}, {"copy", m_copy}, {"append", NULL},
    {"clear", NULL},        {"extend", NULL},       {"insert", NULL}, {"pop", NULL},
    {"remove", NULL},       {"reverse", NULL},      {"sort", NULL},
};

enum { TUPLE_METHODS = 2 }; /* a tuple has the first ones of a list */

static const jin_method_entry *table_of(const jv *v, size_t *n) {
    *n = 0;
    if (v->type == JV_STR) return jin_string_methods(n);
    if (v->type == JV_DICT) {
        *n = sizeof dict_methods / sizeof *dict_methods;
        return dict_methods;
    }
    if (v->type == JV_SEQ && v->u.seq->kind == SEQ_LIST) *n = sizeof list_methods / sizeof *list_methods;
    if (v->type == JV_SEQ && v->u.seq->kind == SEQ_TUPLE) *n = TUPLE_METHODS;
    return list_methods;
}

jv jin_method(jin *J, jv obj, const char *p, size_t n, bool *found) {
    size_t                  n_entry;
    const jin_method_entry *e = table_of(&obj, &n_entry);
    *found = false;
    for (size_t i = 0; i < n_entry; i++) {
        if (strlen(e[i].name) != n || memcmp(e[i].name, p, n) != 0) continue;
        *found = true;
        if (e[i].fn == NULL) {
            jv u = jv_undef(J, "access to attribute '%s' of '%s' object is unsafe", e[i].name,
                            jv_type_name(&obj));
            u.safe = true;
            return u;
        }
        jv_bound *b = jin_alloc(J, sizeof *b);
        b->self = obj, b->method = (int)i;
        return (jv){.type = JV_METHOD, .u.bound = b};
    }
    return jv_none();
}

jv jin_call_method(jin *J, const jv_bound *m, const jargs *a) {
    if (m->self.type == JV_LOOP)
        return m->method == 0 ? jin_loop_cycle(J, m->self.u.loop, a)
                              : jin_loop_changed(J, m->self.u.loop, a);
    size_t n;
    return table_of(&m->self, &n)[m->method].fn(J, m->self, a);
}
