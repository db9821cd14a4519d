/* jinja_ops.c - operators on values: arithmetic, `in`, attributes, items and slices, as
 * Python defines them on 64-bit integers. */
#include "jinja_eval.h"

#include <math.h>
#include <string.h>

static const char *op_text(jnode_kind op) {
    switch (op) {
    case N_ADD: return "+";
    case N_SUB: return "-";
    case N_MUL: return "*";
    case N_DIV: return "/";
    case N_FLOORDIV: return "//";
    case N_MOD: return "%";
    default: return "**";
    }
}

static _Noreturn void overflow(jin *J, jnode_kind op) {
    jin_fail(J, GDN_E_FORMAT, "the result of %s exceeds 64 bits", op_text(op));
}

static _Noreturn void bad_types(jin *J, jnode_kind op, const jv *a, const jv *b) {
    if (a->type == JV_UNDEF) jv_undef_fail(J, *a);
    if (b->type == JV_UNDEF) jv_undef_fail(J, *b);
    jin_fail(J, GDN_E_FORMAT, "%s does not apply to '%s' and '%s'", op_text(op), jv_type_name(a),
             jv_type_name(b));
}

/* --- numbers -------------------------------------------------------------------------------- */

static jv power_int(jin *J, int64_t base, int64_t exp) {
    int64_t r = 1;
    if (exp < 0) {
        if (base == 0) jin_fail(J, GDN_E_FORMAT, "zero to a negative power");
        return jv_float(pow((double)base, (double)exp));
    }
    while (exp > 0) {
        if ((exp & 1) != 0 && __builtin_mul_overflow(r, base, &r)) overflow(J, N_POW);
        exp >>= 1;
        if (exp > 0 && __builtin_mul_overflow(base, base, &base)) overflow(J, N_POW);
    }
    return jv_int(r);
}

static jv int_op(jin *J, jnode_kind op, int64_t a, int64_t b) {
    int64_t r = 0;
    switch (op) {
    case N_ADD:
        if (__builtin_add_overflow(a, b, &r)) overflow(J, op);
        return jv_int(r);
    case N_SUB:
        if (__builtin_sub_overflow(a, b, &r)) overflow(J, op);
        return jv_int(r);
    case N_MUL:
        if (__builtin_mul_overflow(a, b, &r)) overflow(J, op);
        return jv_int(r);
    case N_POW: return power_int(J, a, b);
    default: break;
    }
    if (b == 0) jin_fail(J, GDN_E_FORMAT, "division by zero");
    if (op == N_DIV) return jv_float((double)((long double)a / (long double)b));
    if (b == -1) { /* INT64_MIN / -1 traps */
        if (op == N_MOD) return jv_int(0);
        return int_op(J, N_SUB, 0, a);
    }
    const int64_t q = a / b, m = a % b;
    const bool    down = m != 0 && (m < 0) != (b < 0);
    return jv_int(op == N_MOD ? (down ? m + b : m) : (down ? q - 1 : q));
}

static jv float_op(jin *J, jnode_kind op, double a, double b) {
    double r;
    switch (op) {
    case N_ADD: return jv_float(a + b);
    case N_SUB: return jv_float(a - b);
    case N_MUL: return jv_float(a * b);
    case N_POW:
        if (a == 0 && b < 0) jin_fail(J, GDN_E_FORMAT, "zero to a negative power");
        r = pow(a, b);
        if (isfinite(a) && isfinite(b) && !isfinite(r))
            jin_fail(J, GDN_E_FORMAT, "the result of ** is no real number in range");
        return jv_float(r);
    default: break;
    }
    if (b == 0) jin_fail(J, GDN_E_FORMAT, "division by zero");
    if (op == N_DIV) return jv_float(a / b);
    double m = fmod(a, b);
    double q = (a - m) / b;
    if (m != 0) {
        if ((m < 0) != (b < 0)) m += b, q -= 1;
    } else {
        m = copysign(0.0, b);
    }
    if (op == N_MOD) return jv_float(m);
    if (q == 0) return jv_float(copysign(0.0, a / b));
    r = floor(q);
    return jv_float(q - r > 0.5 ? r + 1 : r);
}

/* --- repeating and joining --------------------------------------------------------------------- */

static jv repeat(jin *J, jv s, int64_t times) {
    if (times < 0) times = 0;
    if (s.type == JV_STR) {
        size_t bytes;
        if (__builtin_mul_overflow(s.u.s.n, (size_t)times, &bytes) || bytes > J->bytes_max)
            jin_fail(J, GDN_E_FULL, "a string repeated %lld times", (long long)times);
        jin_work(J, bytes / 16);
        char *p = jin_alloc(J, bytes);
        for (size_t at = 0; at < bytes; at += s.u.s.n) memcpy(p + at, s.u.s.p, s.u.s.n);
        jv r = jv_str(p, bytes);
        r.safe = s.safe;
        return r;
    }
    const jv_seq *q = s.u.seq;
    size_t        n;
    if (__builtin_mul_overflow(q->n, (size_t)times, &n) || n > J->bytes_max / sizeof(jv))
        jin_fail(J, GDN_E_FULL, "a list repeated %lld times", (long long)times);
    jin_work(J, n);
    jv r = jv_list(J, n, q->kind);
    for (size_t i = 0; i < n; i++) r.u.seq->v[i] = q->v[i % q->n];
    return r;
}

static jv add_seq(jin *J, const jv_seq *a, const jv_seq *b) {
    jin_work(J, a->n + b->n);
    jv r = jv_list(J, a->n + b->n, a->kind);
    if (a->n > 0) memcpy(r.u.seq->v, a->v, a->n * sizeof(jv));
    if (b->n > 0) memcpy(r.u.seq->v + a->n, b->v, b->n * sizeof(jv));
    return r;
}

static jv add_str(jin *J, jv a, jv b) {
    const bool safe = a.safe || b.safe;
    if (safe && !a.safe) a = jin_escape(J, a);
    if (safe && !b.safe) b = jin_escape(J, b);
    jv r = jin_append(J, a, b.u.s.p, b.u.s.n);
    r.safe = safe;
    return r;
}

static bool repeatable(const jv *v) {
    return v->type == JV_STR || (v->type == JV_SEQ && v->u.seq->kind <= SEQ_TUPLE);
}

jv jin_binary(jin *J, jnode_kind op, jv a, jv b) {
    if (jv_is_num(&a) && jv_is_num(&b)) {
        if (a.type == JV_FLOAT || b.type == JV_FLOAT) return float_op(J, op, jv_num(&a), jv_num(&b));
        return int_op(J, op, a.u.i, b.u.i);
    }
    if (op == N_MOD && a.type == JV_STR) return jin_percent(J, a, b);
    if (op == N_ADD && a.type == JV_STR && b.type == JV_STR) return add_str(J, a, b);
    if (op == N_ADD && repeatable(&a) && b.type == JV_SEQ && a.type == JV_SEQ &&
        a.u.seq->kind == b.u.seq->kind)
        return add_seq(J, a.u.seq, b.u.seq);
    if (op == N_MUL && repeatable(&a) && (b.type == JV_INT || b.type == JV_BOOL))
        return repeat(J, a, b.u.i);
    if (op == N_MUL && repeatable(&b) && (a.type == JV_INT || a.type == JV_BOOL))
        return repeat(J, b, a.u.i);
    bad_types(J, op, &a, &b);
}

jv jin_negate(jin *J, jv a) {
    if (a.type == JV_UNDEF) jv_undef_fail(J, a);
    if (a.type == JV_FLOAT) return jv_float(-a.u.f);
    if (!jv_is_num(&a)) jin_fail(J, GDN_E_FORMAT, "- does not apply to '%s'", jv_type_name(&a));
    return int_op(J, N_SUB, 0, a.u.i);
}

bool jin_in(jin *J, jv x, jv seq) {
    if (seq.type == JV_STR) {
        if (x.type != JV_STR)
            jin_fail(J, GDN_E_FORMAT, "'in <string>' requires string as left operand, not %s",
                     jv_type_name(&x));
        jin_work(J, 1 + seq.u.s.n / 64);
        return x.u.s.n == 0 || memmem(seq.u.s.p, seq.u.s.n, x.u.s.p, x.u.s.n) != NULL;
    }
    if (seq.type == JV_DICT) {
        if (!jv_hashable(&x)) jin_fail(J, GDN_E_FORMAT, "unhashable type: '%s'", jv_type_name(&x));
        return jv_dict_get(J, seq.u.dict, x) != NULL;
    }
    jv_iter it = jv_iterate(J, seq);
    jv      e;
    while (jv_next(J, &it, &e))
        if (jv_equal(J, x, e)) return true;
    return false;
}

/* --- attributes and items -------------------------------------------------------------------------- */

static jv object_attr(jin *J, jv obj, const char *p, size_t n, bool *found) {
    *found = false;
    switch ((jv_type)obj.type) {
    case JV_LOOP: return jin_loop_attr(J, obj, p, n, found);
    case JV_NS: {
        const jv *v = jv_dict_get_str(J, obj.u.dict, p, n);
        *found = v != NULL;
        return v != NULL ? *v : jv_none();
    }
    case JV_MACRO:
        *found = n == 4 && memcmp(p, "name", 4) == 0;
        return obj.u.macro->name;
    case JV_SEQ:
        if (obj.u.seq->group) {
            *found = (n == 7 && memcmp(p, "grouper", 7) == 0) || (n == 4 && memcmp(p, "list", 4) == 0);
            if (*found) return obj.u.seq->v[n == 4];
        }
        return jin_method(J, obj, p, n, found);
    case JV_STR:
    case JV_DICT: return jin_method(J, obj, p, n, found);
    default: return jv_none();
    }
}

static jv missing_attr(jin *J, jv obj, const char *p, size_t n) {
    return jv_undef(J, "'%s object' has no attribute '%.*s'", jv_type_name(&obj),
                    n < 100 ? (int)n : 100, p);
}

/* Python's objects have these; the sandbox keeps them from a template. */
static bool is_internal(const char *p, size_t n) {
    static const char *const names[] = {"__class__", "__init__", "__dict__", "__doc__", "__len__",
                                        "__getitem__", "__iter__", "__str__", "__repr__", "__eq__"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (n == strlen(names[i]) && memcmp(p, names[i], n) == 0) return true;
    return false;
}

static jv unsafe_attr(jin *J, jv obj, const char *p, size_t n) {
    jv v = jv_undef(J, "access to attribute '%.*s' of '%s' is unsafe", n < 100 ? (int)n : 100, p,
                    jv_type_name(&obj));
    v.safe = true;
    return v;
}

jv jin_attr(jin *J, jv obj, const char *p, size_t n) {
    bool found;
    if (obj.type == JV_UNDEF) jv_undef_fail(J, obj);
    const jv v = object_attr(J, obj, p, n, &found);
    if (found) return v;
    if (is_internal(p, n)) return unsafe_attr(J, obj, p, n);
    if (obj.type == JV_DICT) {
        const jv *e = jv_dict_get_str(J, obj.u.dict, p, n);
        if (e != NULL) return *e;
    }
    return missing_attr(J, obj, p, n);
}

static jv str_item(jin *J, jv s, int64_t at) {
    jin_work(J, 1 + s.u.s.n / 64);
    if (at < 0) at += (int64_t)jt_count(s.u.s.p, s.u.s.n);
    if (at < 0 || at >= (int64_t)s.u.s.n) return jv_undef(J, "string index out of range");
    const size_t from = jt_offset(s.u.s.p, s.u.s.n, (size_t)at);
    if (from >= s.u.s.n) return jv_undef(J, "string index out of range");
    jv r = jv_str(s.u.s.p + from, jt_step(s.u.s.p + from, s.u.s.n - from));
    r.safe = s.safe;
    return r;
}

jv jin_item(jin *J, jv obj, jv key) {
    const bool index = key.type == JV_INT || key.type == JV_BOOL;
    if (obj.type == JV_UNDEF) jv_undef_fail(J, obj);
    if (obj.type == JV_DICT) {
        const jv *v = jv_dict_get(J, obj.u.dict, key);
        if (v != NULL) return *v;
    } else if (obj.type == JV_STR && index) {
        return str_item(J, obj, key.u.i);
    } else if (obj.type == JV_SEQ && index && obj.u.seq->kind <= SEQ_RANGE) {
        const int64_t n = (int64_t)obj.u.seq->n, at = key.u.i < 0 ? key.u.i + n : key.u.i;
        if (at >= 0 && at < n) return obj.u.seq->v[at];
        return jv_undef(J, "%s index %lld out of range", jv_type_name(&obj), (long long)key.u.i);
    }
    if (key.type == JV_STR) {
        bool     found;
        const jv v = object_attr(J, obj, key.u.s.p, key.u.s.n, &found);
        if (found) return v;
        if (is_internal(key.u.s.p, key.u.s.n)) return unsafe_attr(J, obj, key.u.s.p, key.u.s.n);
        return missing_attr(J, obj, key.u.s.p, key.u.s.n);
    }
    return jv_undef(J, "'%s object' has no such element", jv_type_name(&obj));
}

static bool part_is_index(jv part) {
    if (part.u.s.n == 0 || part.u.s.n > 18) return false;
    for (size_t i = 0; i < part.u.s.n; i++)
        if (part.u.s.p[i] < '0' || part.u.s.p[i] > '9') return false;
    return true;
}

jv jin_path(jin *J, jv obj, jv path, jv def) {
    if (path.type == JV_MISSING || path.type == JV_NONE) return obj;
    if (path.type != JV_STR) {
        obj = jin_item(J, obj, path);
        return obj.type == JV_UNDEF && def.type != JV_MISSING ? def : obj;
    }
    for (size_t at = 0; at <= path.u.s.n;) {
        const char  *dot = memchr(path.u.s.p + at, '.', path.u.s.n - at);
        const size_t end = dot != NULL ? (size_t)(dot - path.u.s.p) : path.u.s.n;
        const jv     part = jv_str(path.u.s.p + at, end - at);
        int64_t      i = 0;
        if (part_is_index(part)) {
            for (size_t k = 0; k < part.u.s.n; k++) i = 10 * i + (part.u.s.p[k] - '0');
            obj = jin_item(J, obj, jv_int(i));
        } else {
            obj = jin_item(J, obj, part);
        }
        if (obj.type == JV_UNDEF && def.type != JV_MISSING) obj = def;
        at = end + 1;
    }
    return obj;
}

/* --- slices ----------------------------------------------------------------------------------------- */

static int64_t slice_bound(jin *J, jv v, int64_t n, int64_t low, int64_t high, int64_t def) {
    if (v.type == JV_NONE) return def;
    if (v.type == JV_UNDEF) jv_undef_fail(J, v);
    if (v.type != JV_INT && v.type != JV_BOOL)
        jin_fail(J, GDN_E_FORMAT, "slice indices must be integers, not %s", jv_type_name(&v));
    int64_t i = v.u.i;
    if (i < 0 && __builtin_add_overflow(i, n, &i)) i = low;
    return i < low ? low : i > high ? high : i;
}

static jv slice_str(jin *J, jv s, size_t chars, int64_t from, int64_t step, size_t n) {
    jsb b = {.J = J};
    jv  r;
    jin_work(J, 1 + s.u.s.n / 16);
    if (step == 1) {
        const size_t a = jt_offset(s.u.s.p, s.u.s.n, (size_t)from);
        r = jv_str(s.u.s.p + a, n == 0 ? 0 : jt_offset(s.u.s.p + a, s.u.s.n - a, n));
        r.safe = s.safe;
        return r;
    }
    size_t *at = jin_array(J, chars + 1, sizeof *at); /* where each character starts */
    for (size_t i = 0; i < chars; i++) at[i + 1] = at[i] + jt_step(s.u.s.p + at[i], s.u.s.n - at[i]);
    for (size_t i = 0; i < n; i++) {
        const size_t c = (size_t)(from + (int64_t)i * step);
        jsb_add(&b, s.u.s.p + at[c], at[c + 1] - at[c]);
    }
    r = jsb_done(&b);
    r.safe = s.safe;
    return r;
}

jv jin_slice(jin *J, jv obj, jv start, jv stop, jv step) {
    if (obj.type == JV_UNDEF) jv_undef_fail(J, obj);
    const bool is_seq = obj.type == JV_SEQ && obj.u.seq->kind <= SEQ_RANGE;
    if (!is_seq && obj.type != JV_STR)
        jin_fail(J, GDN_E_FORMAT, "'%s' object cannot be sliced", jv_type_name(&obj));
    size_t len = 0;
    (void)jv_len(J, obj, &len);
    const int64_t n = (int64_t)len;
    int64_t       by = slice_bound(J, step, 0, -INT64_MAX, INT64_MAX, 1);
    if (by == 0) jin_fail(J, GDN_E_FORMAT, "slice step cannot be zero");
    const int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    const int64_t from = slice_bound(J, start, n, low, high, by < 0 ? n - 1 : 0);
    const int64_t to = slice_bound(J, stop, n, low, high, by < 0 ? -1 : n);
    size_t        k = 0;
    if (by > 0 && from < to) k = (size_t)((to - from - 1) / by + 1);
    if (by < 0 && from > to) k = (size_t)((from - to - 1) / -by + 1);
    if (k <= 1) by = 1; /* keeps the products below in range */
    if (obj.type == JV_STR) return slice_str(J, obj, len, k == 0 ? 0 : from, by, k);
    jin_work(J, k);
    jv r = jv_list(J, k, obj.u.seq->kind == SEQ_TUPLE ? SEQ_TUPLE : obj.u.seq->kind);
    for (size_t i = 0; i < k; i++) r.u.seq->v[i] = obj.u.seq->v[from + (int64_t)i * by];
    if (obj.u.seq->kind == SEQ_RANGE) {
        const jv_seq *q = obj.u.seq;
        /* For printing only; unsigned, since one step past the end may leave 64 bits. */
        const uint64_t first = (uint64_t)q->start, each = (uint64_t)q->step;
        r.u.seq->start = (int64_t)(first + (uint64_t)from * each);
        r.u.seq->stop = (int64_t)(first + (uint64_t)to * each);
        r.u.seq->step = (int64_t)(each * (uint64_t)by);
    }
    return r;
}
