/* jinja_parse.h - what the two halves of the parser share. */
#ifndef GDN_TEXT_JINJA_PARSE_H
#define GDN_TEXT_JINJA_PARSE_H

#include "jinja_ast.h"
#include "jinja_lex.h"

typedef struct jparser {
    jin  *J;
    jtok *tok;   /* the current token */
    jv    names; /* dict: name to id */
    int   loops; /* loops of the current function around the current statement */
    struct sig_link {
        jsig            *sig;
        struct sig_link *up;
    } *sigs;     /* macros around it */
} jparser;

/* Ends of a tuple beside brackets and tag ends. */
typedef enum { END_NONE, END_IN, END_RECURSIVE } jtuple_end;

jnode *jp_node(jparser *p, jnode_kind kind);
void   jp_kid(jparser *p, jnode *parent, jnode *kid); /* NULL kids are kept */
void   jp_push(jparser *p, jnodes *list, jnode *node);
void   jp_deeper(jparser *p, jnode *parent, const jnode *kid);
jname  jp_name(jparser *p, jv text);

bool jp_is(const jparser *p, jtok_kind kind);
bool jp_is_word(const jparser *p, const char *word);
bool jp_skip(jparser *p, jtok_kind kind);
bool jp_skip_word(jparser *p, const char *word);
jtok jp_expect(jparser *p, jtok_kind kind);
void jp_next(jparser *p);
_Noreturn void jp_unexpected(jparser *p);

jnode *jp_expression(jparser *p, bool with_cond);
jnode *jp_tuple(jparser *p, bool with_cond, jtuple_end end, bool in_parentheses);
jnode *jp_target(jparser *p, jtuple_end end, bool with_namespace);
jnode *jp_filters(jparser *p, jnode *of, bool first_is_name);
void   jp_signature(jparser *p, jsig *sig);

#endif
