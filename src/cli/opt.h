/* opt.h - options of a command: one table to parse them, check them and print the help. */
#ifndef GDN_CLI_OPT_H
#define GDN_CLI_OPT_H

#include <stdbool.h>
#include <stdint.h>

enum { OPT_LIST_MAX = 16 };

/* An option that may be given several times. */
typedef struct {
    const char *s[OPT_LIST_MAX];
    int         n;
} opt_list;

typedef enum {
    OPT_HEAD,  /* no option: a heading in the help             */
    OPT_TRUE,  /* bool *: set to true                          */
    OPT_FALSE, /* bool *: set to false                         */
    OPT_I32,   /* int32_t *, from lo to hi                     */
    OPT_U64,   /* uint64_t *                                   */
    OPT_F32,   /* float *, from lo to hi                       */
    OPT_STR,   /* const char **                                */
    OPT_LIST,  /* opt_list *                                   */
} opt_kind;

typedef struct {
    opt_kind    kind;
    char        c;    /* the short form, or 0                          */
    const char *name; /* the long form without dashes                  */
    void       *to;
    const char *arg;  /* what the help calls the value                 */
    const char *help;
    double      lo, hi;
    bool       *given; /* set when the option is there; may be NULL    */
} opt;

/* What a command says of itself in its help. */
typedef struct {
    const char *name, *args, *about;
} opt_about;

enum { OPT_GO = -1 };

/* Parse argv[1..argc): options go to their variables, other words to the front of argv.
 *
 *   table   ends with an entry whose name is NULL
 *   n_word  how many other words may be there at most; their number on return
 *
 * Returns OPT_GO, or the exit code of a command that ends here: 0 after --help, 2 after a
 * message about wrong usage. */
int opt_parse(const opt_about *about, const opt *table, int argc, char **argv, int *n_word);

/* Complain about usage; returns 2. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int opt_usage(const opt_about *about, const char *fmt, ...);

#endif
