/* jinja_filter_seq.c - filters on sequences and mappings.  Those that are lazy in the
 * original do their work at once here and give out a sequence that can be read once. */
#include "jinja_string.h"

#include <string.h>

static jv gen(jvec *l) { return jvec_done(l, SEQ_GEN); }

static jv lower_if_text(jin *J, jv v) { return v.type == JV_STR ? jin_map_case(J, v, JT_LOWER) : v; }

static jv f_length(jin *J, jv v, const jargs *a) {
    size_t n;
    jin_bind(J, "length", a, "", NULL);
    if (!jv_len(J, v, &n)) jin_fail(J, GDN_E_FORMAT, "object of type '%s' has no len()", jv_type_name(&v));
    return jv_int((int64_t)n);
}

static jv f_list(jin *J, jv v, const jargs *a) {
    jin_bind(J, "list", a, "", NULL);
    return jv_to_list(J, v, SEQ_LIST);
}

static jv f_first(jin *J, jv v, const jargs *a) {
    jv x;
    jin_bind(J, "first", a, "", NULL);
    jv_iter it = jv_iterate(J, v);
    return jv_next(J, &it, &x) ? x : jv_undef(J, "No first item, sequence was empty.");
}

static jv f_last(jin *J, jv v, const jargs *a) {
    jin_bind(J, "last", a, "", NULL);
    if (v.type == JV_SEQ && v.u.seq->kind == SEQ_GEN)
        jin_fail(J, GDN_E_FORMAT, "'generator' object is not reversible");
    if (v.type == JV_STR && v.u.s.n > 0) return jin_item(J, v, jv_int(-1));
    const jv l = jv_to_list(J, v, SEQ_LIST);
    return l.u.seq->n > 0 ? l.u.seq->v[l.u.seq->n - 1] : jv_undef(J, "No last item, sequence was empty.");
}

static jv f_reverse(jin *J, jv v, const jargs *a) {
    jin_bind(J, "reverse", a, "", NULL);
    if (v.type == JV_STR) return jin_slice(J, v, jv_none(), jv_none(), jv_int(-1));
    const bool once = v.type == JV_SEQ && v.u.seq->kind == SEQ_GEN;
    const jv   l = jv_to_list(J, v, once ? SEQ_LIST : SEQ_GEN);
    for (size_t i = 0; i < l.u.seq->n / 2; i++) {
        const jv x = l.u.seq->v[i];
        l.u.seq->v[i] = l.u.seq->v[l.u.seq->n - 1 - i];
        l.u.seq->v[l.u.seq->n - 1 - i] = x;
    }
    return l;
}

static jv f_items(jin *J, jv v, const jargs *a) {
    jin_bind(J, "items", a, "", NULL);
    if (v.type == JV_UNDEF) return jv_list(J, 0, SEQ_GEN);
    if (v.type != JV_DICT) jin_fail(J, GDN_E_FORMAT, "items: can only get item pairs from a mapping");
    return jin_dict_items(J, v, SEQ_GEN);
}

static jv f_join(jin *J, jv v, const jargs *a) {
    jv arg[2];
    jin_bind(J, "join", a, "d,attribute", arg);
    jv sep = arg[0].type == JV_MISSING ? jv_str("", 0) : jin_str(J, arg[0]);
    sep.safe = false;
    if (arg[1].type != JV_MISSING && arg[1].type != JV_NONE) {
        v = jv_to_list(J, v, SEQ_LIST);
        for (size_t i = 0; i < v.u.seq->n; i++)
            v.u.seq->v[i] = jin_path(J, v.u.seq->v[i], arg[1], (jv){.type = JV_MISSING});
    }
    return jin_join(J, sep, v, false);
}

static jv f_sum(jin *J, jv v, const jargs *a) {
    jv arg[2], x;
    jin_bind(J, "sum", a, "attribute,start", arg);
    jv total = arg[1].type == JV_MISSING ? jv_int(0) : arg[1];
    if (total.type == JV_STR) jin_fail(J, GDN_E_FORMAT, "sum: strings cannot be summed");
    jv_iter it = jv_iterate(J, v);
    while (jv_next(J, &it, &x))
        total = jin_binary(J, N_ADD, total, jin_path(J, x, arg[0], (jv){.type = JV_MISSING}));
    return total;
}

/* --- mapping and choosing ----------------------------------------------------------------------- */

static jargs drop(const jargs *a, size_t n) {
    jargs r = *a;
    r.pos = a->pos + n, r.n = a->n - n;
    return r;
}

static jv f_map(jin *J, jv v, const jargs *a) {
    jvec l = {.J = J};
    jv   arg[2] = {{.type = JV_MISSING}, {.type = JV_MISSING}}, x;
    if (!jv_true(J, v)) return gen(&l);
    if (a->n == 0) {
        jin_bind(J, "map", a, "attribute,default", arg);
        if (arg[0].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "map requires a filter argument");
        if (arg[1].type == JV_NONE) arg[1].type = JV_MISSING;
    }
    const jargs rest = a->n > 0 ? drop(a, 1) : *a;
    jv_iter     it = jv_iterate(J, v);
    jin_enter(J, JIN_DEPTH_RUN);
    while (jv_next(J, &it, &x))
        jvec_add(&l, a->n > 0 ? jin_call_filter(J, jin_arg_str(J, "map", a->pos[0]), x, &rest)
                              : jin_path(J, x, arg[0], arg[1]));
    jin_leave(J);
    return gen(&l);
}

static jv choose(jin *J, jv v, const jargs *a, bool keep, bool by_attr) {
    jvec         l = {.J = J};
    jv           x;
    const size_t off = by_attr;
    if (!jv_true(J, v)) return gen(&l);
    if (a->n < off) jin_fail(J, GDN_E_FORMAT, "missing parameter for attribute name");
    const jargs rest = a->n > off ? drop(a, off + 1) : *a;
    jv_iter     it = jv_iterate(J, v);
    while (jv_next(J, &it, &x)) {
        const jv   y = by_attr ? jin_path(J, x, a->pos[0], (jv){.type = JV_MISSING}) : x;
        const bool yes = a->n > off ? jin_call_test(J, a->pos[off], y, &rest) : jv_true(J, y);
        if (yes == keep) jvec_add(&l, x);
    }
    return gen(&l);
}
static jv f_select(jin *J, jv v, const jargs *a) { return choose(J, v, a, true, false); }
static jv f_reject(jin *J, jv v, const jargs *a) { return choose(J, v, a, false, false); }
static jv f_selectattr(jin *J, jv v, const jargs *a) { return choose(J, v, a, true, true); }
static jv f_rejectattr(jin *J, jv v, const jargs *a) { return choose(J, v, a, false, true); }

/* --- order ----------------------------------------------------------------------------------------- */

/* Sort v by the keys beside it; equal ones keep their order, in reverse too. */
static void sort_by(jin *J, jv *v, jv *key, size_t n, bool reverse) {
    jv *v2 = jin_array(J, n, sizeof *v2), *key2 = jin_array(J, n, sizeof *key2);
    for (size_t w = 1; w < n; w *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * w) {
            const size_t mid = lo + w < n ? lo + w : n, hi = lo + 2 * w < n ? lo + 2 * w : n;
            size_t       i = lo, j = mid;
            for (size_t k = lo; k < hi; k++) {
                bool left = j >= hi;
                if (!left && i < mid) {
                    const int c = jv_order(J, key[i], key[j]);
                    left = reverse ? c >= 0 : c <= 0;
                }
                const size_t from = left ? i++ : j++;
                v2[k] = v[from], key2[k] = key[from];
            }
        }
        memcpy(v, v2, n * sizeof *v);
        memcpy(key, key2, n * sizeof *key);
    }
}

static jv key_of(jin *J, jv x, jv attr, bool fold) {
    x = jin_path(J, x, attr, (jv){.type = JV_MISSING});
    return fold ? lower_if_text(J, x) : x;
}

/* attribute="a,b.c": a list of keys, of one as a rule.  A list, since equal elements of two
 * lists need no order: none can be sorted beside none. */
static jv sort_key(jin *J, jv x, jv attr, bool fold) {
    jvec l = {.J = J};
    if (attr.type != JV_STR) {
        jvec_add(&l, key_of(J, x, attr, fold));
        return jvec_done(&l, SEQ_LIST);
    }
    for (size_t at = 0; at <= attr.u.s.n;) {
        const char  *comma = memchr(attr.u.s.p + at, ',', attr.u.s.n - at);
        const size_t end = comma != NULL ? (size_t)(comma - attr.u.s.p) : attr.u.s.n;
        jvec_add(&l, key_of(J, x, jv_str(attr.u.s.p + at, end - at), fold));
        at = end + 1;
    }
    return jvec_done(&l, SEQ_LIST);
}

static jv f_sort(jin *J, jv v, const jargs *a) {
    jv arg[3];
    jin_bind(J, "sort", a, "reverse,case_sensitive,attribute", arg);
    const bool fold = !jin_arg_bool(J, arg[1], false);
    const jv   l = jv_to_list(J, v, SEQ_LIST);
    jv        *key = jin_array(J, l.u.seq->n, sizeof *key);
    for (size_t i = 0; i < l.u.seq->n; i++) key[i] = sort_key(J, l.u.seq->v[i], arg[2], fold);
    sort_by(J, l.u.seq->v, key, l.u.seq->n, jin_arg_bool(J, arg[0], false));
    return l;
}

static jv f_dictsort(jin *J, jv v, const jargs *a) {
    jv arg[3];
    jin_bind(J, "dictsort", a, "case_sensitive,by,reverse", arg);
    const bool fold = !jin_arg_bool(J, arg[0], false);
    const bool by_value = jv_streq(arg[1], "value");
    if (arg[1].type != JV_MISSING && !by_value && !jv_streq(arg[1], "key"))
        jin_fail(J, GDN_E_FORMAT, "dictsort: by must be key or value");
    if (v.type != JV_DICT) jin_fail(J, GDN_E_FORMAT, "dictsort expects a dict, not %s", jv_type_name(&v));
    const jv l = jin_dict_items(J, v, SEQ_LIST);
    jv      *key = jin_array(J, l.u.seq->n, sizeof *key);
    for (size_t i = 0; i < l.u.seq->n; i++) {
        const jv k = l.u.seq->v[i].u.seq->v[by_value];
        key[i] = fold ? lower_if_text(J, k) : k;
    }
    sort_by(J, l.u.seq->v, key, l.u.seq->n, jin_arg_bool(J, arg[2], false));
    return l;
}

static jv f_unique(jin *J, jv v, const jargs *a) {
    jv   arg[2], x;
    jvec l = {.J = J};
    jin_bind(J, "unique", a, "case_sensitive,attribute", arg);
    const bool fold = !jin_arg_bool(J, arg[0], false);
    const jv   seen = jv_new_dict(J, 8);
    jv_iter    it = jv_iterate(J, v);
    while (jv_next(J, &it, &x)) {
        const jv key = key_of(J, x, arg[1], fold);
        if (jv_dict_get(J, seen.u.dict, key) != NULL) continue;
        jv_dict_set(J, seen.u.dict, key, jv_none());
        jvec_add(&l, x);
    }
    return gen(&l);
}

static jv extreme(jin *J, jv v, const jargs *a, const char *who, bool max) {
    jv arg[2], x, best = {.type = JV_MISSING}, best_key = best;
    jin_bind(J, who, a, "case_sensitive,attribute", arg);
    const bool fold = !jin_arg_bool(J, arg[0], false);
    jv_iter    it = jv_iterate(J, v);
    while (jv_next(J, &it, &x)) {
        const jv  key = key_of(J, x, arg[1], fold);
        const int c = best.type == JV_MISSING ? 0 : jv_order(J, key, best_key);
        if (best.type == JV_MISSING || (max ? c > 0 : c < 0)) best = x, best_key = key;
    }
    return best.type == JV_MISSING ? jv_undef(J, "No aggregated item, sequence was empty.") : best;
}
static jv f_min(jin *J, jv v, const jargs *a) { return extreme(J, v, a, "min", false); }
static jv f_max(jin *J, jv v, const jargs *a) { return extreme(J, v, a, "max", true); }

/* --- grouping --------------------------------------------------------------------------------------- */

static jv f_groupby(jin *J, jv v, const jargs *a) {
    jv   arg[3];
    jvec out = {.J = J};
    jin_bind(J, "groupby", a, "attribute,default,case_sensitive", arg);
    if (arg[0].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "groupby expects an attribute");
    if (arg[1].type == JV_NONE) arg[1].type = JV_MISSING;
    const bool fold = !jin_arg_bool(J, arg[2], false);
    const jv   l = jv_to_list(J, v, SEQ_LIST);
    jv        *key = jin_array(J, l.u.seq->n, sizeof *key);
    for (size_t i = 0; i < l.u.seq->n; i++) {
        const jv k = jin_path(J, l.u.seq->v[i], arg[0], arg[1]);
        key[i] = fold ? lower_if_text(J, k) : k;
    }
    sort_by(J, l.u.seq->v, key, l.u.seq->n, false);
    for (size_t i = 0, j; i < l.u.seq->n; i = j) {
        jvec     members = {.J = J};
        const jv pair = jv_list(J, 2, SEQ_TUPLE);
        for (j = i; j < l.u.seq->n && jv_equal(J, key[i], key[j]); j++) jvec_add(&members, l.u.seq->v[j]);
        if (j == i) jvec_add(&members, l.u.seq->v[j++]); /* NaN is not even equal to itself */
        pair.u.seq->group = true;
        pair.u.seq->v[0] = jin_path(J, l.u.seq->v[i], arg[0], arg[1]);
        pair.u.seq->v[1] = jvec_done(&members, SEQ_LIST);
        jvec_add(&out, pair);
    }
    return jvec_done(&out, SEQ_LIST);
}

static jv f_batch(jin *J, jv v, const jargs *a) {
    jv   arg[2], x;
    jvec out = {.J = J}, row = {.J = J};
    jin_bind(J, "batch", a, "linecount,fill_with", arg);
    if (arg[0].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "batch expects a size");
    const int64_t size = jin_arg_int(J, "batch", arg[0], 1);
    jv_iter       it = jv_iterate(J, v);
    while (jv_next(J, &it, &x)) {
        if ((int64_t)row.n == size) {
            jvec_add(&out, jvec_done(&row, SEQ_LIST));
            row = (jvec){.J = J};
        }
        jvec_add(&row, x);
    }
    if (row.n > 0 && arg[1].type != JV_MISSING && arg[1].type != JV_NONE)
        for (; (int64_t)row.n < size; jin_work(J, 1)) jvec_add(&row, arg[1]);
    if (row.n > 0) jvec_add(&out, jvec_done(&row, SEQ_LIST));
    return gen(&out);
}

static jv f_slice(jin *J, jv v, const jargs *a) {
    jv   arg[2];
    jvec out = {.J = J};
    jin_bind(J, "slice", a, "slices,fill_with", arg);
    if (arg[0].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "slice expects a number");
    const int64_t slices = jin_arg_int(J, "slice", arg[0], 1);
    const jv      l = jv_to_list(J, v, SEQ_LIST);
    if (slices == 0) jin_fail(J, GDN_E_FORMAT, "slice: division by zero");
    const bool fill = arg[1].type != JV_MISSING && arg[1].type != JV_NONE;
    size_t     at = 0;
    for (int64_t i = 0; i < slices; i++) {
        const int64_t extra = (int64_t)l.u.seq->n % slices;
        const size_t  n = l.u.seq->n / (size_t)slices + (i < extra);
        jvec          row = {.J = J};
        jin_work(J, 1);
        for (size_t k = 0; k < n; k++) jvec_add(&row, l.u.seq->v[at++]);
        if (fill && i >= extra) jvec_add(&row, arg[1]);
        jvec_add(&out, jvec_done(&row, SEQ_LIST));
    }
    return gen(&out);
}

static const struct {
    const char *name;
    jfilter    *fn;
} filters[] = {
    {"length", f_length},     {"count", f_length},   {"list", f_list},
    {"first", f_first},       {"last", f_last},      {"reverse", f_reverse},
    {"items", f_items},       {"join", f_join},      {"sum", f_sum},
    {"map", f_map},           {"select", f_select},  {"reject", f_reject},
    {"selectattr", f_selectattr}, {"rejectattr", f_rejectattr},
    {"sort", f_sort},         {"dictsort", f_dictsort}, {"unique", f_unique},
    {"min", f_min},           {"max", f_max},        {"groupby", f_groupby},
    {"batch", f_batch},       {"slice", f_slice},
};

jfilter *jin_find_seq_filter(jv name) {
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (jv_streq(name, filters[i].name)) return filters[i].fn;
    return NULL;
}
