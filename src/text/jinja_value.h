/* jinja_value.h - the values a template computes with, the memory they live in, and how a
 * template fails.
 *
 * Everything made while parsing or rendering lives in one arena and is released with it;
 * values are small structs passed by copy whose strings and containers point into the
 * arena or into the caller's JSON.  Nothing but a namespace changes after it was made,
 * which is what the sandbox of the original asks for too.
 *
 * A failure leaves by longjmp to the one place that owns the arena (jinja.c), so the code
 * in between needs no error paths; it must not hold memory outside the arena. */
#ifndef GDN_TEXT_JINJA_VALUE_H
#define GDN_TEXT_JINJA_VALUE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gdn/status.h>

enum {
    JIN_DEPTH_TREE = 200,     /* nesting of a template's syntax tree */
    JIN_DEPTH_RUN = 1000,     /* nested evaluations, macro calls counted in */
    JIN_DEPTH_DATA = 1000,    /* nesting of data that is compared or printed */
    JIN_RANGE_MAX = 100000,   /* elements of range(), as in the original's sandbox */
    JIN_STEPS_MAX = 50000000, /* units of work in one rendering */
};
#define JIN_BYTES_BASE ((size_t)64 << 20) /* arena and output, beside 64 bytes per byte of JSON */

typedef struct jin_block jin_block;

/* One parse or one rendering. */
typedef struct {
    jmp_buf     escape;
    gdn_err    *err;
    gdn_status  status;
    const char *name; /* of the template, for messages */
    int         line;
    jin_block  *blocks;
    size_t      bytes, bytes_max;
    uint64_t    steps;
    int         depth;
    char       *out; /* malloc'ed: what has been printed */
    size_t      n_out, cap_out;
    const char *tail; /* end of the string joined last: it can grow in place while */
    jin_block  *tail_block; /* this block is the newest and this much of it is used */
    size_t      tail_used;
    struct jv_dict *context; /* the variables given to a rendering */
    struct jframe  *frame;   /* the names in sight */
} jin;

/* --- memory and failure (jinja_value.c) ---------------------------------------------- */

/* Record "NAME line N: ..." and leave. */
_Noreturn void jin_fail(jin *J, gdn_status code, const char *fmt, ...) GDN_PRINTF(3, 4);
/* The same with nothing put before the text. */
_Noreturn void jin_fail_plain(jin *J, gdn_status code, const char *fmt, ...) GDN_PRINTF(3, 4);

void *jin_alloc(jin *J, size_t bytes);                       /* never NULL, aligned, zeroed */
void *jin_array(jin *J, size_t n, size_t size);              /* the same for n elements */
char *jin_grow(jin *J, char *p, size_t n, size_t n_new);     /* longer copy, in place if last */
void  jin_release(jin *J);                                   /* the arena and the output */
void  jin_work(jin *J, size_t units);                        /* counts towards JIN_STEPS_MAX */
void  jin_enter(jin *J, int max);                            /* one level deeper */
static inline void jin_leave(jin *J) { J->depth--; }
void  jin_emit(jin *J, const char *p, size_t n);             /* print */

/* --- values --------------------------------------------------------------------------- */

typedef enum {
    JV_MISSING, /* an argument that was not given; never seen by a template */
    JV_UNDEF,
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_FLOAT,
    JV_STR,
    JV_SEQ,
    JV_DICT,
    JV_NS,
    JV_MACRO,
    JV_FUNC,
    JV_METHOD,
    JV_LOOP,
} jv_type;

typedef struct jv       jv;
typedef struct jv_seq   jv_seq;
typedef struct jv_dict  jv_dict;
typedef struct jv_macro jv_macro;
typedef struct jv_bound jv_bound;
typedef struct jv_loop  jv_loop;

struct jv {
    uint8_t type;
    bool    safe; /* a string marked as safe HTML; an undefined that the sandbox made */
    union {
        int64_t i; /* JV_INT, JV_BOOL */
        double  f;
        struct {
            const char *p; /* JV_STR: UTF-8.  JV_UNDEF: what is undefined, in words */
            size_t      n;
        } s;
        jv_seq   *seq;
        jv_dict  *dict; /* JV_DICT, JV_NS */
        jv_macro *macro;
        jv_bound *bound; /* JV_METHOD */
        jv_loop  *loop;
        int       func; /* JV_FUNC: index into the table of globals */
    } u;
};

typedef enum { SEQ_LIST, SEQ_TUPLE, SEQ_RANGE, SEQ_KEYS, SEQ_VALUES, SEQ_ITEMS, SEQ_GEN } seq_kind;

struct jv_seq {
    uint8_t kind;
    bool    group;      /* a pair made by groupby: has .grouper and .list */
    size_t  n;
    jv     *v;
    size_t  at;         /* SEQ_GEN: elements already taken; such a sequence can be read once */
    int64_t start, stop, step; /* SEQ_RANGE, for printing */
};

struct jv_dict {
    size_t    n, cap;
    jv       *key, *val;
    uint32_t *slot; /* open hash over string keys: index + 1; NULL while small */
    size_t    n_slot;
};

struct jv_bound {
    jv  self;
    int method; /* index into the table of the type's methods */
};

/* What stands between an iterable and a loop. */
typedef struct {
    jv         seq;    /* JV_SEQ, JV_DICT or JV_STR */
    size_t     at;     /* element, or byte of a string */
} jv_iter;

jv jv_none(void);
jv jv_bool(bool b);
jv jv_int(int64_t i);
jv jv_float(double f);
jv jv_str(const char *p, size_t n);
jv jv_cstr(const char *p);
jv jv_undef(jin *J, const char *fmt, ...) GDN_PRINTF(2, 3);
jv jv_list(jin *J, size_t n, seq_kind kind); /* n elements, all none, to be filled in */

jv   jv_new_dict(jin *J, size_t hint);
void jv_dict_set(jin *J, jv_dict *d, jv key, jv val); /* fails on a key that cannot be one */
const jv *jv_dict_get(jin *J, const jv_dict *d, jv key);
const jv *jv_dict_get_str(jin *J, const jv_dict *d, const char *p, size_t n);
bool jv_hashable(const jv *v);

const char *jv_type_name(const jv *v); /* as Python calls it */
bool jv_true(jin *J, jv v);
bool jv_equal(jin *J, jv a, jv b);
int  jv_order(jin *J, jv a, jv b);     /* <0, 0, >0; fails for types without order */
bool jv_is_num(const jv *v);           /* bool, int or float */
double jv_num(const jv *v);
bool jv_is_list(const jv *v);
bool jv_streq(jv v, const char *s);
_Noreturn void jv_undef_fail(jin *J, jv v);

/* Iteration; fails for what cannot be iterated. */
bool   jv_can_iterate(const jv *v);
jv_iter jv_iterate(jin *J, jv v);
bool   jv_next(jin *J, jv_iter *it, jv *out);
bool   jv_len(jin *J, jv v, size_t *n); /* false: the value has no length */
jv     jv_to_list(jin *J, jv v, seq_kind kind);

/* --- a string under construction -------------------------------------------------------- */

typedef struct {
    jin   *J;
    char  *p;
    size_t n, cap;
} jsb;

void jsb_add(jsb *b, const char *p, size_t n);
void jsb_char(jsb *b, char c);
void jsb_text(jsb *b, const char *text);
void jsb_rune(jsb *b, uint32_t c);
jv   jsb_done(jsb *b);

/* a and then n bytes.  Appending again and again to the result takes linear time. */
jv jin_append(jin *J, jv a, const char *p, size_t n);

/* A vector under construction. */
typedef struct {
    jin   *J;
    jv    *v;
    size_t n, cap;
} jvec;

void jvec_add(jvec *l, jv v);
jv   jvec_done(jvec *l, seq_kind kind);

#endif
