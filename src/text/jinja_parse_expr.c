/* jinja_parse_expr.c - expressions, by descent.  From loosest to tightest:
 *
 *     a if c else b    or    and    not    == != < <= > >= in    + -    ~    * / // %
 *     **    - +    primary .name [item] (call)    | filter    is test */
#include "jinja_parse.h"

#include <string.h>

jnode *jp_node(jparser *p, jnode_kind kind) {
    jnode *n = jin_alloc(p->J, sizeof *n);
    n->kind = (uint8_t)kind, n->line = p->tok->line;
    return n;
}

void jp_push(jparser *p, jnodes *list, jnode *node) {
    if (list->n == list->cap) {
        const size_t cap = list->cap == 0 ? 4 : 2 * list->cap;
        jnode      **v = jin_array(p->J, cap, sizeof *v);
        if (list->n > 0) memcpy(v, list->v, list->n * sizeof *v);
        list->v = v, list->cap = cap;
    }
    list->v[list->n++] = node;
}

void jp_deeper(jparser *p, jnode *parent, const jnode *kid) {
    if (kid == NULL || kid->depth < parent->depth) return;
    parent->depth = kid->depth + 1;
    if (parent->depth > JIN_DEPTH_TREE)
        jin_fail(p->J, GDN_E_FORMAT, "nested more than %d deep", JIN_DEPTH_TREE);
}

void jp_kid(jparser *p, jnode *parent, jnode *kid) {
    jp_push(p, &parent->kid, kid);
    jp_deeper(p, parent, kid);
}

jname jp_name(jparser *p, jv text) {
    const jv *id = jv_dict_get(p->J, p->names.u.dict, text);
    if (id == NULL) {
        jv_dict_set(p->J, p->names.u.dict, text, jv_int((int64_t)p->names.u.dict->n));
        id = jv_dict_get(p->J, p->names.u.dict, text);
    }
    return (jname){text.u.s.p, text.u.s.n, id == NULL ? 0 : (int)id->u.i};
}

/* --- tokens ----------------------------------------------------------------------------------- */

bool jp_is(const jparser *p, jtok_kind kind) { return p->tok->kind == kind; }

static bool is_word(const jtok *t, const char *word) {
    return t->kind == T_NAME && jv_streq(t->val, word);
}

bool jp_is_word(const jparser *p, const char *word) { return is_word(p->tok, word); }

void jp_next(jparser *p) {
    if (p->tok->kind != T_EOF) p->tok++;
    p->J->line = p->tok->line;
}

bool jp_skip(jparser *p, jtok_kind kind) {
    if (!jp_is(p, kind)) return false;
    jp_next(p);
    return true;
}

bool jp_skip_word(jparser *p, const char *word) {
    if (!jp_is_word(p, word)) return false;
    jp_next(p);
    return true;
}

_Noreturn void jp_unexpected(jparser *p) {
    if (p->tok->kind == T_NAME)
        jin_fail(p->J, GDN_E_FORMAT, "unexpected '%.*s'", (int)p->tok->val.u.s.n,
                 p->tok->val.u.s.p);
    jin_fail(p->J, GDN_E_FORMAT, "unexpected '%s'", jin_tok_name(p->tok->kind));
}

jtok jp_expect(jparser *p, jtok_kind kind) {
    const jtok t = *p->tok;
    if (t.kind != kind)
        jin_fail(p->J, GDN_E_FORMAT, "expected '%s', found '%s'", jin_tok_name(kind),
                 jin_tok_name(t.kind));
    jp_next(p);
    return t;
}

/* --- primary expressions ------------------------------------------------------------------------ */

static jnode *constant(jparser *p, jv val) {
    jnode *n = jp_node(p, N_CONST);
    n->val = val;
    return n;
}

/* The body of a macro that names one of these takes the arguments left over. */
static void note_special(jparser *p, const jname *name) {
    const jv v = jv_str(name->p, name->n);
    for (struct sig_link *s = p->sigs; s != NULL; s = s->up) {
        if (jv_streq(v, "varargs")) s->sig->varargs = true;
        if (jv_streq(v, "kwargs")) s->sig->kwargs = true;
        if (jv_streq(v, "caller")) s->sig->caller = true;
    }
}

static jnode *name_or_constant(jparser *p, bool with_namespace) {
    const jtok t = *p->tok;
    jnode     *n = jp_node(p, N_NAME);
    jp_next(p);
    if (jv_streq(t.val, "true") || jv_streq(t.val, "True")) return constant(p, jv_bool(true));
    if (jv_streq(t.val, "false") || jv_streq(t.val, "False")) return constant(p, jv_bool(false));
    if (jv_streq(t.val, "none") || jv_streq(t.val, "None")) return constant(p, jv_none());
    n->name = jp_name(p, t.val);
    if (!with_namespace || !jp_skip(p, T_DOT)) {
        note_special(p, &n->name);
        return n;
    }
    jnode *ref = jp_node(p, N_NSREF);
    ref->name = jp_name(p, jp_expect(p, T_NAME).val);
    jp_kid(p, ref, n);
    return ref;
}

static jnode *string(jparser *p) {
    jnode *n = constant(p, p->tok->val);
    jp_next(p);
    if (!jp_is(p, T_STRING)) return n;
    jsb b = {.J = p->J};
    jsb_add(&b, n->val.u.s.p, n->val.u.s.n);
    for (; jp_is(p, T_STRING); jp_next(p)) jsb_add(&b, p->tok->val.u.s.p, p->tok->val.u.s.n);
    n->val = jsb_done(&b);
    return n;
}

static jnode *list(jparser *p) {
    jnode *n = jp_node(p, N_LIST);
    jp_expect(p, T_LBRACKET);
    while (!jp_is(p, T_RBRACKET)) {
        if (n->kid.n > 0) jp_expect(p, T_COMMA);
        if (jp_is(p, T_RBRACKET)) break;
        jp_kid(p, n, jp_expression(p, true));
    }
    jp_expect(p, T_RBRACKET);
    return n;
}

static jnode *dict(jparser *p) {
    jnode *n = jp_node(p, N_DICT);
    jp_expect(p, T_LBRACE);
    while (!jp_is(p, T_RBRACE)) {
        if (n->kid.n > 0) jp_expect(p, T_COMMA);
        if (jp_is(p, T_RBRACE)) break;
        jp_kid(p, n, jp_expression(p, true));
        jp_expect(p, T_COLON);
        jp_kid(p, n, jp_expression(p, true));
    }
    jp_expect(p, T_RBRACE);
    return n;
}

static jnode *primary(jparser *p, bool with_namespace) {
    jnode *n;
    switch ((jtok_kind)p->tok->kind) {
    case T_NAME: return name_or_constant(p, with_namespace);
    case T_STRING: return string(p);
    case T_INT:
    case T_FLOAT:
        n = constant(p, p->tok->val);
        jp_next(p);
        return n;
    case T_LPAREN:
        jp_next(p);
        n = jp_tuple(p, true, END_NONE, true);
        jp_expect(p, T_RPAREN);
        return n;
    case T_LBRACKET: return list(p);
    case T_LBRACE: return dict(p);
    default: jp_unexpected(p);
    }
}

/* --- calls, items, filters, tests ----------------------------------------------------------------- */

static void add_keyword(jparser *p, jcallargs *a, jv name, jnode *val) {
    const size_t n = a->val.n;
    jname       *key = jin_array(p->J, n + 1, sizeof *key);
    if (n > 0) memcpy(key, a->key, n * sizeof *key);
    key[n] = jp_name(p, name);
    for (size_t i = 0; i < n; i++)
        if (key[i].id == key[n].id) jin_fail(p->J, GDN_E_FORMAT, "keyword argument repeated");
    a->key = key;
    jp_push(p, &a->val, val);
}

static void one_argument(jparser *p, jcallargs *a) {
    const char *bad = "a positional argument after keyword arguments";
    if (jp_skip(p, T_MUL)) {
        if (a->star != NULL || a->star2 != NULL) jin_fail(p->J, GDN_E_FORMAT, "second *argument");
        a->star = jp_expression(p, true);
    } else if (jp_skip(p, T_POW)) {
        if (a->star2 != NULL) jin_fail(p->J, GDN_E_FORMAT, "second **argument");
        a->star2 = jp_expression(p, true);
    } else if (jp_is(p, T_NAME) && p->tok[1].kind == T_ASSIGN) {
        if (a->star2 != NULL) jin_fail(p->J, GDN_E_FORMAT, "%s", bad);
        const jv name = p->tok->val;
        jp_next(p), jp_next(p);
        add_keyword(p, a, name, jp_expression(p, true));
    } else {
        if (a->star != NULL || a->star2 != NULL || a->val.n > 0)
            jin_fail(p->J, GDN_E_FORMAT, "%s", bad);
        jp_push(p, &a->pos, jp_expression(p, true));
    }
}

static void call_args(jparser *p, jnode *n) {
    jcallargs *a = jin_alloc(p->J, sizeof *a);
    n->args = a;
    jp_expect(p, T_LPAREN);
    for (bool more = false; !jp_is(p, T_RPAREN); more = true) {
        if (more) jp_expect(p, T_COMMA);
        if (jp_is(p, T_RPAREN)) {
            if (!more) jp_unexpected(p);
            break;
        }
        one_argument(p, a);
    }
    jp_expect(p, T_RPAREN);
    for (size_t i = 0; i < a->pos.n; i++) jp_deeper(p, n, a->pos.v[i]);
    for (size_t i = 0; i < a->val.n; i++) jp_deeper(p, n, a->val.v[i]);
    jp_deeper(p, n, a->star);
    jp_deeper(p, n, a->star2);
}

static jnode *call(jparser *p, jnode *of) {
    jnode *n = jp_node(p, N_CALL);
    jp_kid(p, n, of);
    call_args(p, n);
    return n;
}

static jnode *subscribed(jparser *p) {
    jnode *start = NULL;
    if (!jp_is(p, T_COLON)) {
        start = jp_expression(p, true);
        if (!jp_is(p, T_COLON)) return start;
    }
    jnode *n = jp_node(p, N_SLICE);
    jp_kid(p, n, start);
    jp_expect(p, T_COLON);
    const bool has_stop = !jp_is(p, T_COLON) && !jp_is(p, T_RBRACKET) && !jp_is(p, T_COMMA);
    jp_kid(p, n, has_stop ? jp_expression(p, true) : NULL);
    bool has_step = jp_skip(p, T_COLON);
    has_step = has_step && !jp_is(p, T_RBRACKET) && !jp_is(p, T_COMMA);
    jp_kid(p, n, has_step ? jp_expression(p, true) : NULL);
    return n;
}

static jnode *subscript(jparser *p, jnode *of) {
    if (jp_skip(p, T_DOT)) {
        jnode *n = jp_node(p, jp_is(p, T_INT) ? N_ITEM : N_ATTR);
        jp_kid(p, n, of);
        if (jp_is(p, T_INT)) {
            jp_kid(p, n, constant(p, p->tok->val));
            jp_next(p);
        } else {
            n->name = jp_name(p, jp_expect(p, T_NAME).val);
        }
        return n;
    }
    jnode *n = jp_node(p, N_ITEM);
    jp_kid(p, n, of);
    jp_expect(p, T_LBRACKET);
    jnode *arg = jp_is(p, T_RBRACKET) ? jp_node(p, N_TUPLE) : subscribed(p);
    if (jp_is(p, T_COMMA)) {
        jnode *t = jp_node(p, N_TUPLE);
        jp_kid(p, t, arg);
        while (jp_skip(p, T_COMMA)) {
            if (jp_is(p, T_RBRACKET)) jp_unexpected(p);
            jp_kid(p, t, subscribed(p));
        }
        for (size_t i = 0; i < t->kid.n; i++)
            if (t->kid.v[i]->kind == N_SLICE) jin_fail(p->J, GDN_E_FORMAT, "slice in a tuple");
        arg = t;
    }
    jp_expect(p, T_RBRACKET);
    jp_kid(p, n, arg);
    return n;
}

static jnode *postfix(jparser *p, jnode *n) {
    for (;;) {
        if (jp_is(p, T_DOT) || jp_is(p, T_LBRACKET)) n = subscript(p, n);
        else if (jp_is(p, T_LPAREN)) n = call(p, n);
        else return n;
    }
}

static jname dotted_name(jparser *p) {
    jv name = jp_expect(p, T_NAME).val;
    while (jp_skip(p, T_DOT)) {
        const jv part = jp_expect(p, T_NAME).val;
        jsb      b = {.J = p->J};
        jsb_add(&b, name.u.s.p, name.u.s.n);
        jsb_char(&b, '.');
        jsb_add(&b, part.u.s.p, part.u.s.n);
        name = jsb_done(&b);
    }
    return jp_name(p, name);
}

jnode *jp_filters(jparser *p, jnode *of, bool first_is_name) {
    while (first_is_name || jp_skip(p, T_PIPE)) {
        first_is_name = false;
        jnode *n = jp_node(p, N_FILTER);
        n->name = dotted_name(p);
        jp_kid(p, n, of);
        if (jp_is(p, T_LPAREN)) call_args(p, n);
        else n->args = jin_alloc(p->J, sizeof *n->args);
        of = n;
    }
    return of;
}

static jnode *test(jparser *p, jnode *of) {
    jp_next(p); /* is */
    const bool negated = jp_skip_word(p, "not");
    jnode     *n = jp_node(p, N_TEST);
    n->name = dotted_name(p);
    jp_kid(p, n, of);
    const jtok_kind k = p->tok->kind;
    if (k == T_LPAREN) {
        call_args(p, n);
    } else {
        n->args = jin_alloc(p->J, sizeof *n->args);
        const bool word = k == T_NAME && !jp_is_word(p, "else") && !jp_is_word(p, "or") &&
                          !jp_is_word(p, "and");
        if (word || k == T_STRING || k == T_INT || k == T_FLOAT || k == T_LBRACKET ||
            k == T_LBRACE) {
            if (jp_is_word(p, "is")) jin_fail(p->J, GDN_E_FORMAT, "tests cannot be chained");
            jnode *arg = postfix(p, primary(p, false));
            jp_push(p, &n->args->pos, arg);
            jp_deeper(p, n, arg);
        }
    }
    if (!negated) return n;
    jnode *no = jp_node(p, N_NOT);
    jp_kid(p, no, n);
    return no;
}

/* --- operators ------------------------------------------------------------------------------------ */

static jnode *unary(jparser *p, bool with_filter) {
    jnode *n;
    if (jp_is(p, T_SUB) || jp_is(p, T_ADD)) {
        jin_enter(p->J, JIN_DEPTH_TREE);
        n = jp_node(p, jp_is(p, T_SUB) ? N_NEG : N_POS);
        jp_next(p);
        jp_kid(p, n, unary(p, false));
        jin_leave(p->J);
    } else {
        n = primary(p, false);
    }
    n = postfix(p, n);
    while (with_filter) {
        if (jp_is(p, T_PIPE)) n = jp_filters(p, n, false);
        else if (jp_is_word(p, "is")) n = test(p, n);
        else if (jp_is(p, T_LPAREN)) n = call(p, n);
        else break;
    }
    return n;
}

static jnode *binary(jparser *p, jnode_kind kind, jnode *left, jnode *right) {
    jnode *n = jp_node(p, kind);
    jp_kid(p, n, left);
    jp_kid(p, n, right);
    return n;
}

static jnode *power(jparser *p) {
    jnode *left = unary(p, true);
    while (jp_skip(p, T_POW)) left = binary(p, N_POW, left, unary(p, true));
    return left;
}

static jnode *product(jparser *p) {
    jnode *left = power(p);
    for (;;) {
        const jtok_kind k = p->tok->kind;
        if (k != T_MUL && k != T_DIV && k != T_FLOORDIV && k != T_MOD) return left;
        jp_next(p);
        left = binary(p, k == T_MUL ? N_MUL : k == T_DIV ? N_DIV : k == T_MOD ? N_MOD : N_FLOORDIV,
                      left, power(p));
    }
}

static jnode *concat(jparser *p) {
    jnode *first = product(p);
    if (!jp_is(p, T_TILDE)) return first;
    jnode *n = jp_node(p, N_CONCAT);
    jp_kid(p, n, first);
    while (jp_skip(p, T_TILDE)) jp_kid(p, n, product(p));
    return n;
}

static jnode *sum(jparser *p) {
    jnode *left = concat(p);
    while (jp_is(p, T_ADD) || jp_is(p, T_SUB)) {
        const jnode_kind k = jp_is(p, T_ADD) ? N_ADD : N_SUB;
        jp_next(p);
        left = binary(p, k, left, concat(p));
    }
    return left;
}

static int compare_op(jparser *p) {
    static const struct {
        jtok_kind tok;
        jcmp      op;
    } ops[] = {{T_EQ, OP_EQ}, {T_NE, OP_NE}, {T_LT, OP_LT},
               {T_LE, OP_LE}, {T_GT, OP_GT}, {T_GE, OP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (jp_skip(p, ops[i].tok)) return ops[i].op;
    if (jp_skip_word(p, "in")) return OP_IN;
    if (jp_is_word(p, "not") && is_word(p->tok + 1, "in")) {
        jp_next(p), jp_next(p);
        return OP_NOTIN;
    }
    return -1;
}

static jnode *comparison(jparser *p) {
    jnode *first = sum(p);
    int    op = compare_op(p);
    if (op < 0) return first;
    jnode *n = jp_node(p, N_COMPARE);
    jsb    ops = {.J = p->J};
    jp_kid(p, n, first);
    for (; op >= 0; op = compare_op(p)) {
        jsb_char(&ops, (char)op);
        jp_kid(p, n, sum(p));
    }
    n->op = (uint8_t *)ops.p;
    return n;
}

static jnode *negation(jparser *p) {
    if (!jp_is_word(p, "not")) return comparison(p);
    jin_enter(p->J, JIN_DEPTH_TREE);
    jnode *n = jp_node(p, N_NOT);
    jp_next(p);
    jp_kid(p, n, negation(p));
    jin_leave(p->J);
    return n;
}

static jnode *conjunction(jparser *p) {
    jnode *left = negation(p);
    while (jp_skip_word(p, "and")) left = binary(p, N_AND, left, negation(p));
    return left;
}

static jnode *disjunction(jparser *p) {
    jnode *left = conjunction(p);
    while (jp_skip_word(p, "or")) left = binary(p, N_OR, left, conjunction(p));
    return left;
}

jnode *jp_expression(jparser *p, bool with_cond) {
    jin_enter(p->J, JIN_DEPTH_TREE);
    jnode *n = disjunction(p);
    while (with_cond && jp_skip_word(p, "if")) {
        jnode *c = jp_node(p, N_COND);
        jp_kid(p, c, n);
        jp_kid(p, c, disjunction(p));
        jp_kid(p, c, jp_skip_word(p, "else") ? jp_expression(p, true) : NULL);
        n = c;
    }
    jin_leave(p->J);
    return n;
}

static bool tuple_end(const jparser *p, jtuple_end end) {
    return jp_is(p, T_VAR_END) || jp_is(p, T_BLOCK_END) || jp_is(p, T_RPAREN) ||
           (end == END_IN && jp_is_word(p, "in")) ||
           (end == END_RECURSIVE && jp_is_word(p, "recursive"));
}

jnode *jp_tuple(jparser *p, bool with_cond, jtuple_end end, bool in_parentheses) {
    jnode *t = jp_node(p, N_TUPLE);
    while (!tuple_end(p, end)) {
        jp_kid(p, t, jp_expression(p, with_cond));
        if (!jp_is(p, T_COMMA)) return t->kid.n == 1 ? t->kid.v[0] : t;
        jp_next(p);
    }
    if (t->kid.n == 0 && !in_parentheses) jp_unexpected(p);
    return t;
}

static void check_target(jparser *p, const jnode *n) {
    if (n->kind == N_NAME || n->kind == N_NSREF) return;
    if (n->kind != N_TUPLE) jin_fail(p->J, GDN_E_FORMAT, "cannot assign to an expression");
    for (size_t i = 0; i < n->kid.n; i++) check_target(p, n->kid.v[i]);
}

jnode *jp_target(jparser *p, jtuple_end end, bool with_namespace) {
    jnode *t = jp_node(p, N_TUPLE), *n = t;
    while (!tuple_end(p, end)) {
        jp_kid(p, t, primary(p, with_namespace));
        if (!jp_is(p, T_COMMA)) {
            if (t->kid.n == 1) n = t->kid.v[0];
            break;
        }
        jp_next(p);
    }
    if (t->kid.n == 0) jp_unexpected(p);
    check_target(p, n);
    return n;
}

void jp_signature(jparser *p, jsig *sig) {
    jp_expect(p, T_LPAREN);
    while (!jp_is(p, T_RPAREN)) {
        if (sig->n > 0) jp_expect(p, T_COMMA);
        jname *arg = jin_array(p->J, sig->n + 1, sizeof *arg);
        if (sig->n > 0) memcpy(arg, sig->arg, sig->n * sizeof *arg);
        arg[sig->n] = jp_name(p, jp_expect(p, T_NAME).val);
        for (size_t i = 0; i < sig->n; i++)
            if (arg[i].id == arg[sig->n].id) jin_fail(p->J, GDN_E_FORMAT, "argument repeated");
        sig->arg = arg, sig->n++;
        jnode *def = jp_skip(p, T_ASSIGN) ? jp_expression(p, true) : NULL;
        if (def == NULL && sig->def.n > 0 && sig->def.v[sig->def.n - 1] != NULL)
            jin_fail(p->J, GDN_E_FORMAT, "an argument without default after one with a default");
        jp_push(p, &sig->def, def);
    }
    jp_expect(p, T_RPAREN);
}
