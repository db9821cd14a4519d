/* jinja_func.c - the functions every template sees: range, namespace, dict and the two that
 * apply_chat_template adds, raise_exception and strftime_now. */
#include "jinja_eval.h"

#include <string.h>
#include <time.h>

static jv fn_range(jin *J, const jargs *a) {
    jv arg[3];
    jin_bind(J, "range", a, "/start,stop,step", arg);
    if (arg[0].type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "range expects an argument");
    int64_t start = jin_arg_int(J, "range", arg[0], 0), step = jin_arg_int(J, "range", arg[2], 1);
    int64_t stop = jin_arg_int(J, "range", arg[1], 0);
    if (arg[1].type == JV_MISSING) stop = start, start = 0;
    if (step == 0) jin_fail(J, GDN_E_FORMAT, "range() step must not be zero");
    const uint64_t gap = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
    const uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    uint64_t       n = 0;
    if (step > 0 ? start < stop : start > stop) n = (gap - 1) / by + 1;
    if (n > JIN_RANGE_MAX)
        jin_fail(J, GDN_E_FULL, "range too big: at most %d elements", JIN_RANGE_MAX);
    jin_work(J, n);
    const jv r = jv_list(J, n, SEQ_RANGE);
    for (uint64_t i = 0; i < n; i++)
        r.u.seq->v[i] = jv_int((int64_t)((uint64_t)start + i * (uint64_t)step));
    r.u.seq->start = start, r.u.seq->stop = stop, r.u.seq->step = step;
    return r;
}

/* dict(mapping or pairs, key=value...), also behind namespace(). */
static jv fn_dict(jin *J, const jargs *a) {
    const jv r = jv_new_dict(J, a->n_key);
    if (a->n > 1) jin_fail(J, GDN_E_FORMAT, "dict expects at most 1 argument, got %zu", a->n);
    if (a->n == 1 && (a->pos[0].type == JV_DICT)) {
        const jv_dict *d = a->pos[0].u.dict;
        for (size_t i = 0; i < d->n; i++) jv_dict_set(J, r.u.dict, d->key[i], d->val[i]);
    } else if (a->n == 1) {
        jv      x;
        jv_iter it = jv_iterate(J, a->pos[0]);
        while (jv_next(J, &it, &x)) {
            const jv pair = jv_to_list(J, x, SEQ_LIST);
            if (pair.u.seq->n != 2) jin_fail(J, GDN_E_FORMAT, "dict expects pairs");
            jv_dict_set(J, r.u.dict, pair.u.seq->v[0], pair.u.seq->v[1]);
        }
    }
    for (size_t i = 0; i < a->n_key; i++) jv_dict_set(J, r.u.dict, a->key[i], a->val[i]);
    return r;
}

static jv fn_namespace(jin *J, const jargs *a) {
    jv r = fn_dict(J, a);
    r.type = JV_NS;
    return r;
}

static jv fn_raise(jin *J, const jargs *a) {
    jv message;
    jin_bind(J, "raise_exception", a, "message", &message);
    if (message.type == JV_MISSING) jin_fail(J, GDN_E_FORMAT, "raise_exception expects a message");
    const jv s = jin_str(J, message);
    jin_fail_plain(J, GDN_E_INVALID, "%.*s", s.u.s.n < 480 ? (int)s.u.s.n : 480, s.u.s.p);
}

static jv fn_strftime(jin *J, const jargs *a) {
    jv        arg;
    struct tm tm;
    char      buf[512];
    jin_bind(J, "strftime_now", a, "format", &arg);
    const jv     f = jin_arg_str(J, "strftime_now", arg);
    const time_t now = time(NULL);
    if (f.u.s.n > 100 || memchr(f.u.s.p, '\0', f.u.s.n) != NULL || localtime_r(&now, &tm) == NULL)
        jin_fail(J, GDN_E_FORMAT, "strftime_now: a format of at most 100 characters, please");
    char fmt[104];
    memcpy(fmt, f.u.s.p, f.u.s.n);
    fmt[f.u.s.n] = '\0';
    const size_t n = strftime(buf, sizeof buf, fmt, &tm);
    jsb          b = {.J = J};
    jsb_add(&b, buf, n);
    if (!jt_valid(buf, n)) jin_fail(J, GDN_E_FORMAT, "strftime_now: the result is not UTF-8");
    return jsb_done(&b);
}

static const struct {
    const char *name;
    jv (*fn)(jin *J, const jargs *a);
} globals[] = {
    {"range", fn_range},
    {"dict", fn_dict},
    {"namespace", fn_namespace},
    {"raise_exception", fn_raise},
    {"strftime_now", fn_strftime},
};

jv jin_global(jin *J, const char *p, size_t n, bool *found) {
    (void)J;
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
        if (strlen(globals[i].name) != n || memcmp(globals[i].name, p, n) != 0) continue;
        *found = true;
        return (jv){.type = JV_FUNC, .u.func = (int)i};
    }
    *found = false;
    return jv_none();
}

jv jin_call_global(jin *J, int func, const jargs *a) { return globals[func].fn(J, a); }
