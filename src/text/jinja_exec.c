/* jinja_exec.c - running statements: scopes, loops, macros and captured output.
 *
 * Captured output is printed like any other; the part from a mark on is then taken back
 * and becomes a string. */
#include "jinja_eval.h"

#include <string.h>

typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

static flow exec_body(jin *J, const jnodes *body);

static jv take_back(jin *J, size_t mark) {
    const size_t n = J->n_out - mark;
    char        *p = jin_alloc(J, n);
    if (n > 0) memcpy(p, J->out + mark, n);
    J->n_out = mark;
    return jv_str(p, n);
}

static void output(jin *J, jv v) {
    const jv s = jin_str(J, v);
    jin_emit(J, s.u.s.p, s.u.s.n);
}

/* --- assignment -------------------------------------------------------------------------------- */

static void assign_tuple(jin *J, const jnode *target, jv val) {
    const jv list = jv_to_list(J, val, SEQ_LIST);
    if (list.u.seq->n != target->kid.n)
        jin_fail(J, GDN_E_FORMAT, "cannot unpack %zu values into %zu names", list.u.seq->n,
                 target->kid.n);
    for (size_t i = 0; i < target->kid.n; i++)
        jin_assign_target(J, target->kid.v[i], list.u.seq->v[i]);
}

void jin_assign_target(jin *J, const jnode *target, jv val) {
    if (target->kind == N_NAME) {
        jin_assign(J, J->frame, target->name.id, val);
    } else if (target->kind == N_NSREF) {
        const jv ns = jin_eval(J, target->kid.v[0]);
        if (ns.type != JV_NS)
            jin_fail(J, GDN_E_FORMAT, "cannot assign attribute on non-namespace object");
        jv_dict_set(J, ns.u.dict, jv_str(target->name.p, target->name.n), val);
    } else {
        assign_tuple(J, target, val);
    }
}

/* The filters after {% filter or {% set x |, innermost first, applied to what a body printed. */
static jv apply_filters(jin *J, const jnode *n, jv text) {
    if (n == NULL) return text;
    jin_enter(J, JIN_DEPTH_RUN);
    const jv    self = apply_filters(J, n->kid.v[0], text);
    const jargs a = jin_eval_args(J, n->args);
    J->line = n->line;
    const jv r = jin_call_filter(J, jv_str(n->name.p, n->name.n), self, &a);
    jin_leave(J);
    return r;
}

/* A body in a scope of its own. */
static flow exec_scoped(jin *J, const jnodes *body) {
    jframe *up = J->frame;
    J->frame = jin_push_frame(J, up);
    const flow f = exec_body(J, body);
    J->frame = up;
    return f;
}

static flow exec_set_block(jin *J, const jnode *n) {
    const size_t mark = J->n_out;
    const flow   f = exec_scoped(J, &n->body[0]);
    const jv     text = take_back(J, mark);
    if (f != FLOW_ON) return f;
    jin_assign_target(J, n->kid.v[0], apply_filters(J, n->kid.v[1], text));
    return f;
}

static flow exec_filter_block(jin *J, const jnode *n) {
    const size_t mark = J->n_out;
    const flow   f = exec_scoped(J, &n->body[0]);
    const jv     text = take_back(J, mark);
    if (f == FLOW_ON) output(J, apply_filters(J, n->kid.v[0], text));
    return f;
}

/* Values are evaluated outside the new scope. */
static flow exec_with(jin *J, const jnode *n) {
    jframe *up = J->frame, *own = jin_push_frame(J, up);
    for (size_t i = 0; i + 1 < n->kid.n; i += 2) {
        J->frame = up;
        const jv v = jin_eval(J, n->kid.v[i + 1]);
        J->frame = own;
        jin_assign_target(J, n->kid.v[i], v);
    }
    J->frame = own;
    const flow f = exec_body(J, &n->body[0]);
    J->frame = up;
    return f;
}

/* --- branches and loops -------------------------------------------------------------------------- */

static flow exec_if(jin *J, const jnode *n) {
    for (size_t i = 0; i < n->kid.n; i++)
        if (jv_true(J, jin_eval(J, n->kid.v[i]))) return exec_body(J, &n->body[i]);
    return n->n_body > n->kid.n ? exec_body(J, &n->body[n->kid.n]) : FLOW_ON;
}

static flow exec_for(jin *J, const jnode *n) {
    const jv seq = jin_eval(J, n->kid.v[1]);
    J->line = n->line;
    jv_loop *loop = jin_loop_start(J, n, seq);
    jframe  *up = J->frame, *own = NULL;
    flow     f = FLOW_ON;
    bool     any = false;
    jv       item;
    while (jin_loop_next(J, loop, &item)) {
        /* Names set in a turn are gone in the next. */
        if (own == NULL || own->captured) own = jin_push_frame(J, up);
        own->n = 0;
        J->frame = own;
        any = true;
        jin_assign(J, own, JIN_ID_LOOP, (jv){.type = JV_LOOP, .u.loop = loop});
        jin_assign_target(J, n->kid.v[0], item);
        f = exec_body(J, &n->body[0]);
        J->frame = up;
        if (f == FLOW_BREAK) break;
    }
    if (!any && n->n_body > 1) return exec_scoped(J, &n->body[1]);
    return FLOW_ON;
}

/* --- macros ---------------------------------------------------------------------------------------- */

static jv make_macro(jin *J, const jnode *n, const char *name, size_t n_name) {
    jv_macro *m = jin_alloc(J, sizeof *m);
    m->node = n, m->scope = J->frame, m->name = jv_str(name, n_name);
    for (jframe *f = J->frame; f != NULL && !f->captured; f = f->up) f->captured = true;
    return (jv){.type = JV_MACRO, .u.macro = m};
}

/* Keyword arguments to parameters; those left over go to kwargs, if the body asks for it. */
static void bind_macro(jin *J, const jv_macro *m, const jargs *a, jv *arg, bool *used) {
    const jsig *s = m->node->sig;
    for (size_t i = 0; i < s->n; i++) {
        arg[i] = (jv){.type = JV_MISSING};
        if (i < a->n) {
            arg[i] = a->pos[i];
            continue;
        }
        for (size_t k = 0; k < a->n_key; k++) {
            const jv key = a->key[k];
            if (key.u.s.n != s->arg[i].n || memcmp(key.u.s.p, s->arg[i].p, key.u.s.n) != 0) continue;
            arg[i] = a->val[k], used[k] = true;
        }
    }
    if (a->n > s->n && !s->varargs)
        jin_fail(J, GDN_E_FORMAT, "macro '%.*s' takes not more than %zu arguments",
                 (int)m->name.u.s.n, m->name.u.s.p, s->n);
    for (size_t k = 0; k < a->n_key; k++)
        if (!used[k] && !s->kwargs && !(s->caller && jv_streq(a->key[k], "caller")))
            jin_fail(J, GDN_E_FORMAT, "macro '%.*s' takes no keyword argument '%.*s'",
                     (int)m->name.u.s.n, m->name.u.s.p,
                     a->key[k].u.s.n < 100 ? (int)a->key[k].u.s.n : 100, a->key[k].u.s.p);
}

/* The special names of a macro's body. */
static void bind_special(jin *J, const jv_macro *m, const jargs *a, const bool *used, jframe *own) {
    const jsig *s = m->node->sig;
    jv          caller = jv_undef(J, "No caller defined");
    if (s->varargs) {
        jvec rest = {.J = J};
        for (size_t i = s->n; i < a->n; i++) jvec_add(&rest, a->pos[i]);
        jin_assign(J, own, JIN_ID_VARARGS, jvec_done(&rest, SEQ_TUPLE));
    }
    const jv kw = jv_new_dict(J, 0);
    for (size_t k = 0; k < a->n_key; k++) {
        if (used[k]) continue;
        if (s->caller && jv_streq(a->key[k], "caller")) caller = a->val[k];
        else if (s->kwargs) jv_dict_set(J, kw.u.dict, a->key[k], a->val[k]);
    }
    if (s->kwargs) jin_assign(J, own, JIN_ID_KWARGS, kw);
    if (s->caller) jin_assign(J, own, JIN_ID_CALLER, caller);
}

jv jin_call_macro(jin *J, const jv_macro *m, const jargs *a) {
    const jsig *s = m->node->sig;
    jv         *arg = jin_array(J, s->n, sizeof *arg);
    bool       *used = jin_alloc(J, a->n_key);
    jframe     *back = J->frame, *own = jin_push_frame(J, m->scope);
    const int   line = J->line;
    const size_t mark = J->n_out;
    bind_macro(J, m, a, arg, used);
    bind_special(J, m, a, used, own);
    J->frame = own;
    for (size_t i = 0; i < s->n; i++) {
        /* A default may read the arguments before it; those after it are not there yet. */
        if (arg[i].type == JV_MISSING)
            arg[i] = s->def.v[i] != NULL
                         ? jin_eval(J, s->def.v[i])
                         : jv_undef(J, "parameter '%.*s' was not provided",
                                    s->arg[i].n < 100 ? (int)s->arg[i].n : 100, s->arg[i].p);
        jin_assign(J, own, s->arg[i].id, arg[i]);
    }
    exec_body(J, &m->node->body[0]);
    J->frame = back, J->line = line;
    return take_back(J, mark);
}

static void exec_call_block(jin *J, const jnode *n) {
    const jnode *call = n->kid.v[0];
    const jv     f = jin_eval(J, call->kid.v[0]);
    jargs        a = jin_eval_args(J, call->args);
    jv *key = jin_array(J, a.n_key + 1, sizeof *key), *val = jin_array(J, a.n_key + 1, sizeof *val);
    for (size_t i = 0; i < a.n_key; i++) key[i] = a.key[i], val[i] = a.val[i];
    key[a.n_key] = jv_cstr("caller");
    val[a.n_key] = make_macro(J, n, "caller", 6);
    a.key = key, a.val = val, a.n_key++;
    J->line = n->line;
    output(J, jin_call(J, f, &a));
}

/* --- statements ------------------------------------------------------------------------------------- */

static flow exec_inner(jin *J, const jnode *n) {
    switch ((jnode_kind)n->kind) {
    case N_TEXT: jin_emit(J, n->val.u.s.p, n->val.u.s.n); return FLOW_ON;
    case N_OUTPUT:
        for (size_t i = 0; i < n->kid.n; i++) output(J, jin_eval(J, n->kid.v[i]));
        return FLOW_ON;
    case N_SET: jin_assign_target(J, n->kid.v[0], jin_eval(J, n->kid.v[1])); return FLOW_ON;
    case N_SETBLOCK: return exec_set_block(J, n);
    case N_IF: return exec_if(J, n);
    case N_FOR: return exec_for(J, n);
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    case N_MACRO:
        jin_assign(J, J->frame, n->name.id, make_macro(J, n, n->name.p, n->name.n));
        return FLOW_ON;
    case N_CALLBLOCK: exec_call_block(J, n); return FLOW_ON;
    case N_FILTERBLOCK: return exec_filter_block(J, n);
    case N_WITH: return exec_with(J, n);
    case N_GENERATION: return exec_scoped(J, &n->body[0]);
    default: jin_fail(J, GDN_E_FORMAT, "not a statement");
    }
}

static flow exec_body(jin *J, const jnodes *body) {
    jin_enter(J, JIN_DEPTH_RUN);
    flow f = FLOW_ON;
    for (size_t i = 0; i < body->n && f == FLOW_ON; i++) {
        J->line = body->v[i]->line;
        jin_work(J, 1);
        f = exec_inner(J, body->v[i]);
    }
    jin_leave(J);
    return f;
}

void jin_exec_all(jin *J, const jnodes *body) {
    J->frame = jin_push_frame(J, NULL);
    exec_body(J, body);
}
