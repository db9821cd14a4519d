/* jinja_eval.c - evaluating expressions: names, calls, and dispatch to the operators. */
#include "jinja_eval.h"

#include <string.h>

/* --- names ---------------------------------------------------------------------------------- */

jframe *jin_push_frame(jin *J, jframe *up) {
    jframe *f = jin_alloc(J, sizeof *f);
    f->up = up;
    return f;
}

jv *jin_lookup_local(jframe *f, int id) {
    for (int i = 0; i < f->n; i++)
        if (f->id[i] == id) return &f->val[i];
    return NULL;
}

void jin_assign(jin *J, jframe *f, int id, jv val) {
    jv *at = jin_lookup_local(f, id);
    if (at != NULL) {
        *at = val;
        return;
    }
    if (f->n == f->cap) {
        const int cap = f->cap == 0 ? 4 : 2 * f->cap;
        int      *ids = jin_array(J, (size_t)cap, sizeof *ids);
        jv       *vals = jin_array(J, (size_t)cap, sizeof *vals);
        if (f->n > 0) {
            memcpy(ids, f->id, (size_t)f->n * sizeof *ids);
            memcpy(vals, f->val, (size_t)f->n * sizeof *vals);
        }
        f->id = ids, f->val = vals, f->cap = cap;
    }
    f->id[f->n] = id, f->val[f->n] = val;
    f->n++;
}

static jv lookup(jin *J, const jname *name) {
    for (jframe *f = J->frame; f != NULL; f = f->up) {
        jin_work(J, 1 + (size_t)f->n / 8);
        const jv *v = jin_lookup_local(f, name->id);
        if (v != NULL) return *v;
    }
    const jv *v = jv_dict_get_str(J, J->context, name->p, name->n);
    if (v != NULL) return *v;
    bool     found;
    const jv g = jin_global(J, name->p, name->n, &found);
    if (found) return g;
    return jv_undef(J, "'%.*s' is undefined", name->n < 100 ? (int)name->n : 100, name->p);
}

/* --- arguments ------------------------------------------------------------------------------- */

static void add_star_star(jin *J, jv d, jvec *key, jvec *val) {
    if (d.type != JV_DICT) jin_fail(J, GDN_E_FORMAT, "argument after ** must be a mapping");
    for (size_t i = 0; i < d.u.dict->n; i++) {
        if (d.u.dict->key[i].type != JV_STR) jin_fail(J, GDN_E_FORMAT, "keywords must be strings");
        for (size_t k = 0; k < key->n; k++)
            if (jv_equal(J, key->v[k], d.u.dict->key[i]))
                jin_fail(J, GDN_E_FORMAT, "keyword argument repeated");
        jvec_add(key, d.u.dict->key[i]);
        jvec_add(val, d.u.dict->val[i]);
    }
}

jargs jin_eval_args(jin *J, const jcallargs *c) {
    jvec pos = {.J = J}, key = {.J = J}, val = {.J = J};
    for (size_t i = 0; i < c->pos.n; i++) jvec_add(&pos, jin_eval(J, c->pos.v[i]));
    if (c->star != NULL) {
        jv      x;
        jv_iter it = jv_iterate(J, jin_eval(J, c->star));
        while (jv_next(J, &it, &x)) jvec_add(&pos, x);
    }
    for (size_t i = 0; i < c->val.n; i++) {
        jvec_add(&key, jv_str(c->key[i].p, c->key[i].n));
        jvec_add(&val, jin_eval(J, c->val.v[i]));
    }
    if (c->star2 != NULL) add_star_star(J, jin_eval(J, c->star2), &key, &val);
    return (jargs){.pos = pos.v, .n = pos.n, .key = key.v, .val = val.v, .n_key = key.n};
}

/* The parameter called p in "a,b,c", or -1; names only match whole. */
static int param_index(const char *names, jv key) {
    int i = 0;
    for (const char *s = names; *s != '\0'; i++) {
        const size_t n = strcspn(s, ",");
        if (n == key.u.s.n && memcmp(s, key.u.s.p, n) == 0) return i;
        s += n + (s[n] == ',');
    }
    return -1;
}

void jin_bind(jin *J, const char *who, const jargs *a, const char *names, jv *out) {
    const bool positional = *names == '/';
    size_t     n = 0;
    names += positional;
    for (const char *s = names; *s != '\0'; n++) {
        const size_t k = strcspn(s, ",");
        s += k + (s[k] == ',');
    }
    for (size_t i = 0; i < n; i++) out[i] = (jv){.type = JV_MISSING};
    if (a->n > n)
        jin_fail(J, GDN_E_FORMAT, "%s takes at most %zu arguments, not %zu", who, n, a->n);
    for (size_t i = 0; i < a->n; i++) out[i] = a->pos[i];
    for (size_t i = 0; i < a->n_key; i++) {
        const int at = positional ? -1 : param_index(names, a->key[i]);
        if (at < 0 || out[at].type != JV_MISSING)
            jin_fail(J, GDN_E_FORMAT, "%s: %s keyword argument '%.*s'", who,
                     at < 0 ? "unknown" : "repeated",
                     a->key[i].u.s.n < 100 ? (int)a->key[i].u.s.n : 100, a->key[i].u.s.p);
        out[at] = a->val[i];
    }
}

int64_t jin_arg_int(jin *J, const char *who, jv v, int64_t def) {
    if (v.type == JV_MISSING) return def;
    if (v.type == JV_UNDEF) jv_undef_fail(J, v);
    if (v.type != JV_INT && v.type != JV_BOOL)
        jin_fail(J, GDN_E_FORMAT, "%s: expected an integer, not %s", who, jv_type_name(&v));
    return v.u.i;
}

bool jin_arg_bool(jin *J, jv v, bool def) { return v.type == JV_MISSING ? def : jv_true(J, v); }

jv jin_arg_str(jin *J, const char *who, jv v) {
    if (v.type == JV_UNDEF) jv_undef_fail(J, v);
    if (v.type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "%s: an argument is missing", who);
    if (v.type != JV_STR)
        jin_fail(J, GDN_E_FORMAT, "%s: expected a string, not %s", who, jv_type_name(&v));
    return v;
}

/* --- calls ----------------------------------------------------------------------------------- */

jv jin_call(jin *J, jv f, const jargs *a) {
    switch ((jv_type)f.type) {
    case JV_UNDEF: jv_undef_fail(J, f);
    case JV_MACRO: return jin_call_macro(J, f.u.macro, a);
    case JV_FUNC: return jin_call_global(J, f.u.func, a);
    case JV_METHOD: return jin_call_method(J, f.u.bound, a);
    default: jin_fail(J, GDN_E_FORMAT, "'%s' object is not callable", jv_type_name(&f));
    }
}

jv jin_call_filter(jin *J, jv name, jv self, const jargs *a) {
    jfilter *f = jin_find_filter(name);
    if (f == NULL) f = jin_find_seq_filter(name);
    if (f == NULL)
        jin_fail(J, GDN_E_FORMAT, "no filter named '%.*s'",
                 name.u.s.n < 100 ? (int)name.u.s.n : 100, name.u.s.p);
    return f(J, self, a);
}

/* --- expressions ------------------------------------------------------------------------------- */

static jv eval_seq(jin *J, const jnode *n) {
    const jv r = jv_list(J, n->kid.n, n->kind == N_LIST ? SEQ_LIST : SEQ_TUPLE);
    for (size_t i = 0; i < n->kid.n; i++) r.u.seq->v[i] = jin_eval(J, n->kid.v[i]);
    return r;
}

static jv eval_dict(jin *J, const jnode *n) {
    const jv r = jv_new_dict(J, n->kid.n / 2);
    for (size_t i = 0; i + 1 < n->kid.n; i += 2) {
        const jv key = jin_eval(J, n->kid.v[i]), val = jin_eval(J, n->kid.v[i + 1]);
        jv_dict_set(J, r.u.dict, key, val);
    }
    return r;
}

static jv eval_concat(jin *J, const jnode *n) {
    /* Nothing is allocated between the parts and the joining, as a rule: then a long text
     * that is the first part grows in place. */
    jv  few[4];
    jv *part = n->kid.n <= 4 ? few : jin_array(J, n->kid.n, sizeof *part);
    for (size_t i = 0; i < n->kid.n; i++) part[i] = jin_eval(J, n->kid.v[i]);
    jv r = jin_str(J, part[0]);
    for (size_t i = 1; i < n->kid.n; i++) {
        const jv s = jin_str(J, part[i]);
        r = jin_append(J, r, s.u.s.p, s.u.s.n);
    }
    r.safe = false;
    return r;
}

static bool compare(jin *J, jcmp op, jv a, jv b) {
    switch (op) {
    case OP_EQ: return jv_equal(J, a, b);
    case OP_NE: return !jv_equal(J, a, b);
    case OP_IN: return jin_in(J, a, b);
    case OP_NOTIN: return !jin_in(J, a, b);
    default: break;
    }
    const int c = jv_order(J, a, b);
    if ((a.type == JV_FLOAT && a.u.f != a.u.f) || (b.type == JV_FLOAT && b.u.f != b.u.f)) return false;
    return op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0;
}

static jv eval_compare(jin *J, const jnode *n) {
    jv a = jin_eval(J, n->kid.v[0]);
    for (size_t i = 1; i < n->kid.n; i++) {
        const jv b = jin_eval(J, n->kid.v[i]);
        if (!compare(J, (jcmp)n->op[i - 1], a, b)) return jv_bool(false);
        a = b;
    }
    return jv_bool(true);
}

static jv eval_item(jin *J, const jnode *n) {
    const jv     obj = jin_eval(J, n->kid.v[0]);
    const jnode *k = n->kid.v[1];
    if (k->kind != N_SLICE) return jin_item(J, obj, jin_eval(J, k));
    jv part[3];
    for (int i = 0; i < 3; i++)
        part[i] = k->kid.v[i] != NULL ? jin_eval(J, k->kid.v[i]) : jv_none();
    J->line = n->line;
    return jin_slice(J, obj, part[0], part[1], part[2]);
}

static jv eval_call(jin *J, const jnode *n) {
    const jv    f = jin_eval(J, n->kid.v[0]);
    const jargs a = jin_eval_args(J, n->args);
    J->line = n->line;
    return jin_call(J, f, &a);
}

/* A filter or test; self is the value piped in. */
static jv eval_filter(jin *J, const jnode *n) {
    const jv    self = jin_eval(J, n->kid.v[0]);
    const jargs a = jin_eval_args(J, n->args);
    const jv    name = jv_str(n->name.p, n->name.n);
    J->line = n->line;
    if (n->kind == N_TEST) return jv_bool(jin_call_test(J, name, self, &a));
    return jin_call_filter(J, name, self, &a);
}

static jv eval_cond(jin *J, const jnode *n) {
    if (jv_true(J, jin_eval(J, n->kid.v[1]))) return jin_eval(J, n->kid.v[0]);
    if (n->kid.v[2] != NULL) return jin_eval(J, n->kid.v[2]);
    return jv_undef(J, "the inline if-expression was false and has no else");
}

static jv eval_inner(jin *J, const jnode *n) {
    jv a, b;
    switch ((jnode_kind)n->kind) {
    case N_CONST: return n->val;
    case N_NAME: return lookup(J, &n->name);
    case N_LIST:
    case N_TUPLE: return eval_seq(J, n);
    case N_DICT: return eval_dict(J, n);
    case N_ATTR: return jin_attr(J, jin_eval(J, n->kid.v[0]), n->name.p, n->name.n);
    case N_ITEM: return eval_item(J, n);
    case N_CALL: return eval_call(J, n);
    case N_FILTER:
    case N_TEST: return eval_filter(J, n);
    case N_NOT: return jv_bool(!jv_true(J, jin_eval(J, n->kid.v[0])));
    case N_NEG: return jin_negate(J, jin_eval(J, n->kid.v[0]));
    case N_POS: return jin_binary(J, N_ADD, jv_int(0), jin_eval(J, n->kid.v[0]));
    case N_ADD:
    case N_SUB:
    case N_MUL:
    case N_DIV:
    case N_FLOORDIV:
    case N_MOD:
    case N_POW:
        a = jin_eval(J, n->kid.v[0]), b = jin_eval(J, n->kid.v[1]);
        J->line = n->line;
        return jin_binary(J, (jnode_kind)n->kind, a, b);
    case N_AND:
        a = jin_eval(J, n->kid.v[0]);
        return jv_true(J, a) ? jin_eval(J, n->kid.v[1]) : a;
    case N_OR:
        a = jin_eval(J, n->kid.v[0]);
        return jv_true(J, a) ? a : jin_eval(J, n->kid.v[1]);
    case N_CONCAT: return eval_concat(J, n);
    case N_COMPARE: return eval_compare(J, n);
    case N_COND: return eval_cond(J, n);
    default: jin_fail(J, GDN_E_FORMAT, "not an expression");
    }
}

jv jin_eval(jin *J, const jnode *n) {
    J->line = n->line;
    jin_work(J, 1);
    jin_enter(J, JIN_DEPTH_RUN);
    const jv v = eval_inner(J, n);
    jin_leave(J);
    return v;
}
