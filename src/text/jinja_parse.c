/* jinja_parse.c - statements: tokens to the syntax tree of a template. */
#include "jinja_parse.h"

#include <string.h>

static jnodes body_until(jparser *p, const char *end1, const char *end2, const char *end3);

/* Statements inside node, from the end of its tag to {% end... %}; the end word is current. */
static void add_body(jparser *p, jnode *n, const char *end1, const char *end2, const char *end3) {
    jp_skip(p, T_COLON);
    jp_expect(p, T_BLOCK_END);
    const jnodes list = body_until(p, end1, end2, end3);
    if (n->n_body == 0 || (n->n_body & (n->n_body - 1)) == 0) { /* full at powers of two */
        jnodes *b = jin_array(p->J, n->n_body == 0 ? 1 : 2 * n->n_body, sizeof *b);
        if (n->n_body > 0) memcpy(b, n->body, n->n_body * sizeof *b);
        n->body = b;
    }
    n->body[n->n_body++] = list;
    for (size_t i = 0; i < list.n; i++) jp_deeper(p, n, list.v[i]);
}

/* A body that becomes a function of its own: loops around it cannot be left from inside. */
static void add_function_body(jparser *p, jnode *n, const char *end) {
    struct sig_link link = {n->sig, p->sigs};
    const int       loops = p->loops;
    p->sigs = &link, p->loops = 0;
    add_body(p, n, end, NULL, NULL);
    p->sigs = link.up, p->loops = loops;
    jp_next(p);
}

static jnode *parse_set(jparser *p) {
    jnode *n = jp_node(p, N_SET);
    jp_next(p);
    jp_kid(p, n, jp_target(p, END_NONE, true));
    if (jp_skip(p, T_ASSIGN)) {
        jp_kid(p, n, jp_tuple(p, true, END_NONE, false));
        return n;
    }
    n->kind = N_SETBLOCK;
    jp_kid(p, n, jp_filters(p, NULL, false));
    add_body(p, n, "endset", NULL, NULL);
    jp_next(p);
    return n;
}

static bool names_loop(const jnode *n) {
    if (n->kind == N_NAME) return jv_streq(jv_str(n->name.p, n->name.n), "loop");
    for (size_t i = 0; n->kind == N_TUPLE && i < n->kid.n; i++)
        if (names_loop(n->kid.v[i])) return true;
    return false;
}

static jnode *parse_for(jparser *p) {
    jnode *n = jp_node(p, N_FOR);
    jp_next(p);
    jp_kid(p, n, jp_target(p, END_IN, false));
    if (names_loop(n->kid.v[0])) jin_fail(p->J, GDN_E_FORMAT, "cannot assign to loop in a for");
    if (!jp_skip_word(p, "in")) jp_unexpected(p);
    jp_kid(p, n, jp_tuple(p, false, END_RECURSIVE, false));
    jp_kid(p, n, jp_skip_word(p, "if") ? jp_expression(p, true) : NULL);
    if (jp_is_word(p, "recursive")) jin_fail(p->J, GDN_E_FORMAT, "recursive loops are not supported");
    p->loops++;
    add_body(p, n, "endfor", "else", NULL);
    p->loops--;
    const bool has_else = jp_is_word(p, "else");
    jp_next(p);
    if (has_else) {
        add_body(p, n, "endfor", NULL, NULL);
        jp_next(p);
    }
    return n;
}

static jnode *parse_if(jparser *p) {
    jnode *n = jp_node(p, N_IF);
    do {
        jp_next(p); /* if, elif */
        jp_kid(p, n, jp_tuple(p, false, END_NONE, false));
        add_body(p, n, "elif", "else", "endif");
    } while (jp_is_word(p, "elif"));
    if (jp_skip_word(p, "else")) add_body(p, n, "endif", NULL, NULL);
    jp_next(p);
    return n;
}

static jnode *parse_with(jparser *p) {
    jnode *n = jp_node(p, N_WITH);
    jp_next(p);
    while (!jp_is(p, T_BLOCK_END)) {
        if (n->kid.n > 0) jp_expect(p, T_COMMA);
        jp_kid(p, n, jp_target(p, END_NONE, false));
        jp_expect(p, T_ASSIGN);
        jp_kid(p, n, jp_expression(p, true));
    }
    add_body(p, n, "endwith", NULL, NULL);
    jp_next(p);
    return n;
}

static void count_sig(jparser *p, jnode *n) {
    for (size_t i = 0; i < n->sig->n; i++) jp_deeper(p, n, n->sig->def.v[i]);
}

static jnode *parse_macro(jparser *p) {
    jnode *n = jp_node(p, N_MACRO);
    jp_next(p);
    n->name = jp_name(p, jp_expect(p, T_NAME).val);
    n->sig = jin_alloc(p->J, sizeof *n->sig);
    jp_signature(p, n->sig);
    count_sig(p, n);
    add_function_body(p, n, "endmacro");
    return n;
}

static jnode *parse_call(jparser *p) {
    jnode *n = jp_node(p, N_CALLBLOCK);
    jp_next(p);
    n->sig = jin_alloc(p->J, sizeof *n->sig);
    if (jp_is(p, T_LPAREN)) jp_signature(p, n->sig);
    count_sig(p, n);
    jnode *call = jp_expression(p, true);
    if (call->kind != N_CALL) jin_fail(p->J, GDN_E_FORMAT, "expected a call");
    jp_kid(p, n, call);
    add_function_body(p, n, "endcall");
    return n;
}

static jnode *parse_filter(jparser *p) {
    jnode *n = jp_node(p, N_FILTERBLOCK);
    jp_next(p);
    jp_kid(p, n, jp_filters(p, NULL, true));
    add_body(p, n, "endfilter", NULL, NULL);
    jp_next(p);
    return n;
}

static jnode *parse_generation(jparser *p) {
    jnode *n = jp_node(p, N_GENERATION);
    jp_next(p);
    n->sig = jin_alloc(p->J, sizeof *n->sig);
    add_function_body(p, n, "endgeneration");
    return n;
}

static jnode *parse_jump(jparser *p, jnode_kind kind) {
    jnode *n = jp_node(p, kind);
    if (p->loops == 0) jp_unexpected(p);
    jp_next(p);
    return n;
}

static jnode *parse_print(jparser *p) {
    jnode *n = jp_node(p, N_OUTPUT);
    jp_next(p);
    while (!jp_is(p, T_BLOCK_END)) {
        if (n->kid.n > 0) jp_expect(p, T_COMMA);
        jp_kid(p, n, jp_expression(p, true));
    }
    return n;
}

static jnode *statement(jparser *p) {
    if (jp_is_word(p, "set")) return parse_set(p);
    if (jp_is_word(p, "if")) return parse_if(p);
    if (jp_is_word(p, "for")) return parse_for(p);
    if (jp_is_word(p, "macro")) return parse_macro(p);
    if (jp_is_word(p, "call")) return parse_call(p);
    if (jp_is_word(p, "filter")) return parse_filter(p);
    if (jp_is_word(p, "with")) return parse_with(p);
    if (jp_is_word(p, "break")) return parse_jump(p, N_BREAK);
    if (jp_is_word(p, "continue")) return parse_jump(p, N_CONTINUE);
    if (jp_is_word(p, "generation")) return parse_generation(p);
    if (jp_is_word(p, "print")) return parse_print(p);
    if (!jp_is(p, T_NAME)) jp_unexpected(p);
    jin_fail(p->J, GDN_E_FORMAT, "unknown tag '%.*s'", (int)p->tok->val.u.s.n, p->tok->val.u.s.p);
}

static bool at_end(const jparser *p, const char *end) { return end != NULL && jp_is_word(p, end); }

/* Text, {{ }} and {% %} up to {% end1..3, which becomes current, or to the end of all when
 * end1 is NULL. */
static jnodes body_until(jparser *p, const char *end1, const char *end2, const char *end3) {
    jnodes list = {0};
    jin_enter(p->J, JIN_DEPTH_TREE);
    while (!jp_is(p, T_EOF)) {
        jnode *n;
        if (jp_is(p, T_DATA)) {
            n = jp_node(p, N_TEXT);
            n->val = p->tok->val;
            jp_next(p);
        } else if (jp_skip(p, T_VAR_BEGIN)) {
            n = jp_node(p, N_OUTPUT);
            jp_kid(p, n, jp_tuple(p, true, END_NONE, false));
            jp_expect(p, T_VAR_END);
        } else {
            jp_expect(p, T_BLOCK_BEGIN);
            if (at_end(p, end1) || at_end(p, end2) || at_end(p, end3)) {
                jin_leave(p->J);
                return list;
            }
            n = statement(p);
            jp_expect(p, T_BLOCK_END);
        }
        jp_push(p, &list, n);
    }
    jin_leave(p->J);
    if (end1 != NULL) jin_fail(p->J, GDN_E_FORMAT, "end of template before '%s'", end1);
    return list;
}

jnodes *jin_parse(jin *J, const char *source, size_t n) {
    static const char *const fixed[] = {"loop", "varargs", "kwargs", "caller"}; /* JIN_ID_... */
    jparser p = {.J = J, .tok = jin_lex(J, source, n), .names = jv_new_dict(J, 16)};
    jnodes *all = jin_alloc(J, sizeof *all);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) (void)jp_name(&p, jv_cstr(fixed[i]));
    *all = body_until(&p, NULL, NULL, NULL);
    return all;
}
