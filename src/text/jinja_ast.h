/* jinja_ast.h - the syntax tree of a template: one node type for expressions and
 * statements.  Which fields a kind uses stands beside its name. */
#ifndef GDN_TEXT_JINJA_AST_H
#define GDN_TEXT_JINJA_AST_H

#include "jinja_value.h"

typedef enum {
    /* expressions */
    N_CONST,   /* val */
    N_NAME,    /* name */
    N_LIST,    /* kid... */
    N_TUPLE,   /* kid... */
    N_DICT,    /* kid: key, value, key, value... */
    N_ATTR,    /* kid[0], name */
    N_ITEM,    /* kid[0], kid[1] */
    N_SLICE,   /* kid[0..2], each may be NULL; only as kid[1] of N_ITEM */
    N_CALL,    /* kid[0], args */
    N_FILTER,  /* kid[0] (NULL: the body of a block), name, args */
    N_TEST,    /* kid[0], name, args */
    N_NOT, N_NEG, N_POS, /* kid[0] */
    N_ADD, N_SUB, N_MUL, N_DIV, N_FLOORDIV, N_MOD, N_POW, /* kid[0], kid[1] */
    N_AND, N_OR,         /* kid[0], kid[1] */
    N_CONCAT,  /* kid... */
    N_COMPARE, /* kid[0..n], op[0..n-1] */
    N_COND,    /* kid[0] if kid[1] else kid[2] (may be NULL) */
    N_NSREF,   /* kid[0] (N_NAME), name: target of an assignment */
    /* statements */
    N_TEXT,       /* val */
    N_OUTPUT,     /* kid... */
    N_SET,        /* kid[0] target, kid[1] value */
    N_SETBLOCK,   /* kid[0] target, kid[1] filters or NULL, body[0] */
    N_IF,         /* kid[i] condition of body[i]; one more body: else */
    N_FOR,        /* kid[0] target, kid[1] iterable, kid[2] condition or NULL, body[0], body[1] else */
    N_BREAK, N_CONTINUE,
    N_MACRO,      /* name, sig, body[0] */
    N_CALLBLOCK,  /* kid[0] call, sig, body[0] */
    N_FILTERBLOCK,/* kid[0] filters, body[0] */
    N_WITH,       /* kid: target, value, target, value...; body[0] */
    N_GENERATION, /* body[0] */
} jnode_kind;

typedef enum { OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOTIN } jcmp;

typedef struct jnode jnode;

typedef struct {
    jnode **v;
    size_t  n, cap;
} jnodes;

/* A name; equal names of one template have the same id. */
typedef struct {
    const char *p;
    size_t      n;
    int         id;
} jname;

/* Names with a fixed id, because the program itself assigns to them. */
enum { JIN_ID_LOOP, JIN_ID_VARARGS, JIN_ID_KWARGS, JIN_ID_CALLER };

typedef struct {
    jnodes  pos;
    jname  *key; /* n_key names with the values val */
    jnodes  val;
    jnode  *star, *star2; /* *args, **kwargs; or NULL */
} jcallargs;

typedef struct {
    jname *arg;
    jnodes def; /* as many as arg; NULL: no default */
    size_t n;
    bool   varargs, kwargs, caller; /* special names that the body reads */
} jsig;

struct jnode {
    uint8_t    kind;
    int        line;
    int        depth;     /* of the tree below */
    jname      name;
    jv         val;
    jnodes     kid;
    uint8_t   *op;
    jcallargs *args;
    jsig      *sig;
    jnodes    *body;
    size_t     n_body;
};

/* Parse n bytes of source; J owns the result. */
jnodes *jin_parse(jin *J, const char *source, size_t n);

#endif
