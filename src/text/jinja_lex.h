/* jinja_lex.h - a template's source as tokens. */
#ifndef GDN_TEXT_JINJA_LEX_H
#define GDN_TEXT_JINJA_LEX_H

#include "jinja_value.h"

typedef enum {
    T_EOF, T_DATA, T_VAR_BEGIN, T_VAR_END, T_BLOCK_BEGIN, T_BLOCK_END,
    T_NAME, T_STRING, T_INT, T_FLOAT,
    T_ADD, T_SUB, T_DIV, T_FLOORDIV, T_MUL, T_MOD, T_POW, T_TILDE,
    T_LBRACKET, T_RBRACKET, T_LPAREN, T_RPAREN, T_LBRACE, T_RBRACE,
    T_EQ, T_NE, T_GT, T_GE, T_LT, T_LE, T_ASSIGN, T_DOT, T_COLON, T_PIPE, T_COMMA, T_SEMICOLON,
} jtok_kind;

typedef struct {
    uint8_t kind;
    int     line;
    jv      val; /* T_DATA, T_NAME, T_STRING: the text; T_INT, T_FLOAT: the number */
} jtok;

/* The whole source, ended by T_EOF.  Lines end in "\n" alone afterwards and one newline at
 * the very end is dropped, as in the original. */
jtok *jin_lex(jin *J, const char *source, size_t n);

/* What a token is called in a message. */
const char *jin_tok_name(jtok_kind kind);

#endif
