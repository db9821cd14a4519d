/* jinja_test.c - the tests behind `is`. */
#include "jinja_eval.h"

#include <math.h>
#include <string.h>

typedef bool test_fn(jin *J, jv v, jv arg);

static bool is_int(const jv *v) { return v->type == JV_INT; }

static bool mod_equals(jin *J, jv v, int64_t by, int64_t want) {
    return jv_equal(J, jin_binary(J, N_MOD, v, jv_int(by)), jv_int(want));
}

static bool t_odd(jin *J, jv v, jv a) { return (void)a, mod_equals(J, v, 2, 1); }
static bool t_even(jin *J, jv v, jv a) { return (void)a, mod_equals(J, v, 2, 0); }
static bool t_divisible(jin *J, jv v, jv a) {
    return jv_equal(J, jin_binary(J, N_MOD, v, a), jv_int(0));
}
static bool t_defined(jin *J, jv v, jv a) { return (void)J, (void)a, v.type != JV_UNDEF; }
static bool t_undefined(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_UNDEF; }
static bool t_none(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_NONE; }
static bool t_boolean(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_BOOL; }
static bool t_true(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_BOOL && v.u.i; }
static bool t_false(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_BOOL && !v.u.i; }
static bool t_integer(jin *J, jv v, jv a) { return (void)J, (void)a, is_int(&v); }
static bool t_float(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_FLOAT; }
static bool t_number(jin *J, jv v, jv a) { return (void)J, (void)a, jv_is_num(&v); }
static bool t_string(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_STR; }
static bool t_mapping(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_DICT; }
static bool t_iterable(jin *J, jv v, jv a) {
    return (void)J, (void)a, jv_can_iterate(&v) || v.type == JV_LOOP;
}
static bool t_escaped(jin *J, jv v, jv a) { return (void)J, (void)a, v.type == JV_STR && v.safe; }
static bool t_lower(jin *J, jv v, jv a) { return (void)a, jin_is_case(jin_str(J, v), false); }
static bool t_upper(jin *J, jv v, jv a) { return (void)a, jin_is_case(jin_str(J, v), true); }
static bool t_in(jin *J, jv v, jv a) { return jin_in(J, v, a); }

/* Has a length and takes an index. */
static bool t_sequence(jin *J, jv v, jv a) {
    (void)J, (void)a;
    return v.type == JV_STR || v.type == JV_DICT || (v.type == JV_SEQ && v.u.seq->kind <= SEQ_RANGE);
}

static bool t_callable(jin *J, jv v, jv a) {
    (void)J, (void)a;
    return v.type == JV_MACRO || v.type == JV_FUNC || v.type == JV_METHOD || v.type == JV_LOOP ||
           v.type == JV_UNDEF;
}

/* The same object.  Small values are compared: their identity is an accident in the
 * original, and templates use the test with true, false and none. */
static bool t_sameas(jin *J, jv v, jv a) {
    if (v.type != a.type || v.type == JV_UNDEF) return false;
    if (v.type == JV_SEQ) return v.u.seq == a.u.seq;
    if (v.type == JV_DICT) return v.u.dict == a.u.dict;
    return jv_equal(J, v, a);
}

static bool t_eq(jin *J, jv v, jv a) { return jv_equal(J, v, a); }
static bool t_ne(jin *J, jv v, jv a) { return !jv_equal(J, v, a); }
static bool ordered(jv v, jv a) {
    return !(v.type == JV_FLOAT && isnan(v.u.f)) && !(a.type == JV_FLOAT && isnan(a.u.f));
}
static bool t_lt(jin *J, jv v, jv a) { return jv_order(J, v, a) < 0 && ordered(v, a); }
static bool t_le(jin *J, jv v, jv a) { return jv_order(J, v, a) <= 0 && ordered(v, a); }
static bool t_gt(jin *J, jv v, jv a) { return jv_order(J, v, a) > 0 && ordered(v, a); }
static bool t_ge(jin *J, jv v, jv a) { return jv_order(J, v, a) >= 0 && ordered(v, a); }
static bool t_filter(jin *J, jv v, jv a);
static bool t_test(jin *J, jv v, jv a);

static const struct {
    const char *name;
    test_fn    *fn;
    const char *param; /* NULL: takes no argument */
} tests[] = {
    {"odd", t_odd, NULL},         {"even", t_even, NULL},
    {"divisibleby", t_divisible, "num"}, {"defined", t_defined, NULL},
    {"undefined", t_undefined, NULL}, {"none", t_none, NULL},
    {"boolean", t_boolean, NULL}, {"true", t_true, NULL},
    {"false", t_false, NULL},     {"integer", t_integer, NULL},
    {"float", t_float, NULL},     {"number", t_number, NULL},
    {"string", t_string, NULL},   {"mapping", t_mapping, NULL},
    {"iterable", t_iterable, NULL}, {"sequence", t_sequence, NULL},
    {"callable", t_callable, NULL}, {"sameas", t_sameas, "other"},
    {"escaped", t_escaped, NULL}, {"lower", t_lower, NULL},
    {"upper", t_upper, NULL},     {"in", t_in, "seq"},
    {"filter", t_filter, NULL},   {"test", t_test, NULL},
    {"eq", t_eq, "/b"},           {"equalto", t_eq, "/b"},
    {"==", t_eq, "/b"},           {"ne", t_ne, "/b"},
    {"!=", t_ne, "/b"},           {"lt", t_lt, "/b"},
    {"<", t_lt, "/b"},            {"lessthan", t_lt, "/b"},
    {"le", t_le, "/b"},           {"<=", t_le, "/b"},
    {"gt", t_gt, "/b"},           {">", t_gt, "/b"},
    {"greaterthan", t_gt, "/b"},  {"ge", t_ge, "/b"},
    {">=", t_ge, "/b"},
};

static size_t find_test(jv name) {
    size_t i = 0;
    while (i < sizeof tests / sizeof *tests && !jv_streq(name, tests[i].name)) i++;
    return i;
}

static bool t_filter(jin *J, jv v, jv a) {
    (void)J, (void)a;
    return jin_find_filter(v) != NULL || jin_find_seq_filter(v) != NULL;
}

static bool t_test(jin *J, jv v, jv a) {
    (void)J, (void)a;
    return find_test(v) < sizeof tests / sizeof *tests;
}

bool jin_call_test(jin *J, jv name, jv self, const jargs *a) {
    const size_t i = find_test(name);
    if (name.type != JV_STR || i == sizeof tests / sizeof *tests)
        jin_fail(J, GDN_E_FORMAT, "no test named '%.*s'",
                 name.type != JV_STR || name.u.s.n > 100 ? 0 : (int)name.u.s.n, name.u.s.p);
    jv arg = {.type = JV_MISSING};
    jin_bind(J, tests[i].name, a, tests[i].param != NULL ? tests[i].param : "", &arg);
    if (tests[i].param != NULL && arg.type == JV_MISSING)
        jin_fail(J, GDN_E_FORMAT, "test '%s' expects an argument", tests[i].name);
    return tests[i].fn(J, self, arg);
}
