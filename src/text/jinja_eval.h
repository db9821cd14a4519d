/* jinja_eval.h - running a template: what evaluator, filters, tests and methods share. */
#ifndef GDN_TEXT_JINJA_EVAL_H
#define GDN_TEXT_JINJA_EVAL_H

#include "jinja_ast.h"
#include "jinja_text.h"

/* The names of one scope; up leads to the scope around it. */
typedef struct jframe jframe;
struct jframe {
    jframe *up;
    int     n, cap;
    int    *id;
    jv     *val;
    bool    captured; /* a macro made here may still read it */
};

struct jv_macro {
    const jnode *node; /* sig and body[0] */
    jframe      *scope;
    jv           name;
};

/* Arguments of a call. */
typedef struct {
    const jv *pos;
    size_t    n;
    const jv *key, *val; /* keyword arguments */
    size_t    n_key;
} jargs;

/* Sort arguments into parameters.  names: "a,b,c", or "/a,b" when they have no keywords;
 * out[i] is JV_MISSING when not given.  Fails on one too many and on unknown keywords. */
void jin_bind(jin *J, const char *who, const jargs *a, const char *names, jv *out);

/* Arguments of builtins: a default for a missing one, and type checks. */
int64_t jin_arg_int(jin *J, const char *who, jv v, int64_t def);
bool    jin_arg_bool(jin *J, jv v, bool def);
jv      jin_arg_str(jin *J, const char *who, jv v);

/* jinja_exec.c */
void jin_exec_all(jin *J, const jnodes *body);
jv   jin_call_macro(jin *J, const jv_macro *m, const jargs *a);

/* jinja_eval.c */
jv jin_eval(jin *J, const jnode *n);
jv jin_call(jin *J, jv f, const jargs *a);
jargs jin_eval_args(jin *J, const jcallargs *c);
jv  *jin_lookup_local(jframe *f, int id);
void jin_assign(jin *J, jframe *f, int id, jv val);
jframe *jin_push_frame(jin *J, jframe *up);

/* jinja_loop.c: the variable loop */
jv_loop *jin_loop_start(jin *J, const jnode *node, jv seq);
bool     jin_loop_next(jin *J, jv_loop *l, jv *out);
jv       jin_loop_attr(jin *J, jv obj, const char *p, size_t n, bool *found);
void     jin_loop_print(jin *J, jv_loop *l, jsb *b);
jv       jin_loop_cycle(jin *J, jv_loop *l, const jargs *a);
jv       jin_loop_changed(jin *J, jv_loop *l, const jargs *a);
void     jin_assign_target(jin *J, const jnode *target, jv val); /* jinja_exec.c */

/* jinja_ops.c */
jv   jin_binary(jin *J, jnode_kind op, jv a, jv b);
jv   jin_negate(jin *J, jv a);
bool jin_in(jin *J, jv x, jv seq);
jv   jin_attr(jin *J, jv obj, const char *p, size_t n); /* obj.name */
jv   jin_item(jin *J, jv obj, jv key);                  /* obj[key] */
jv   jin_slice(jin *J, jv obj, jv start, jv stop, jv step);
jv   jin_path(jin *J, jv obj, jv path, jv def); /* "a.b.0", as attribute= of filters */

/* jinja_print.c */
jv   jin_str(jin *J, jv v); /* Python's str(); a string stays what it is */
jv   jin_repr(jin *J, jv v);
jv   jin_escape(jin *J, jv v);
jv   jin_tojson(jin *J, jv v, const jargs *a);

/* jinja_format.c */
jv jin_percent(jin *J, jv format, jv args);
jv jin_str_format(jin *J, jv format, const jargs *a);

/* Tables. */
typedef jv jfilter(jin *J, jv self, const jargs *a);
jfilter *jin_find_filter(jv name);     /* jinja_filter.c */
jfilter *jin_find_seq_filter(jv name); /* jinja_filter_seq.c */
jv   jin_call_filter(jin *J, jv name, jv self, const jargs *a);
bool jin_call_test(jin *J, jv name, jv self, const jargs *a); /* jinja_test.c */
jv   jin_global(jin *J, const char *p, size_t n, bool *found); /* jinja_func.c */
jv   jin_call_global(jin *J, int func, const jargs *a);

/* jinja_method.c: methods of strings, lists, tuples, dicts.  Found is false for a name that
 * is none; a method that would change its object comes back undefined. */
jv jin_method(jin *J, jv obj, const char *p, size_t n, bool *found);
jv jin_call_method(jin *J, const jv_bound *m, const jargs *a);

/* jinja_string.c: has letters, and all of them upper (lower) case */
bool jin_is_case(jv s, bool upper);

#endif
