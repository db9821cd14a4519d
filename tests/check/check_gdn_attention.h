/* check_gdn_attention.h - calls of gdn_attention() with random numbers, and what they must give.
 *
 *     attn_case k;
 *     attn_open(&k, c, &shape);          numbers, expectation, a device
 *     attn_reset(&k), attn_run(&k);      poisoned outputs and the states as they were; one call
 *     attn_compare(&k, "f32", &error);   against the expectation, by the bounds of k.a.form
 *     attn_close(&k);
 *
 * The expectation is the equations of op.h in double, written for this purpose alone:
 * convolution outputs, core and states are rounded once to their types.  16-bit inputs are drawn so
 * that no convolution output lies so near to the middle between two numbers that f32 sums may
 * round it to the other one: what is left is the error of the arithmetic. */
#ifndef GDN_CHECK_GDN_ATTENTION_H
#define GDN_CHECK_GDN_ATTENTION_H

#include <gdn/op.h>

#include "check.h"

typedef struct {
    int32_t  nk, nv, dk, dv, W;
    int32_t  n_seq;
    const int32_t *len;          /* [n_seq] tokens; NULL: n_tok each                      */
    int32_t  n_tok;
    gdn_type act, state;
    bool     reorder, ds, bias;
    bool     map;                /* rows through a shuffled map, with rows between        */
    bool     fresh;              /* every third sequence starts from zeros                */
    bool     edges;              /* gates at their ends; keys repeated and zero           */
    int32_t  spare;              /* rows more than W - 1 in a line of conv_state          */
    uint64_t stride;             /* bytes from slot to slot, the pools mapped sparsely; 0: near */
    int32_t  threads;            /* 0: 2                                                  */
} attn_shape;

/* Outputs and used slots as one call left them. */
typedef struct {
    uint8_t *bytes;
    uint64_t n;
} attn_image;

enum { ATTN_BUFFERS = 20 };

typedef struct {
    check       *c;
    attn_shape   s;
    gdn_device  *d;
    gdn_queue   *q;
    gdn_attention_args a;
    gdn_buffer  *buf[ATTN_BUFFERS];
    int          n_buf;
    int32_t      r, C, P, slots, n_tok;      /* n_tok: of all sequences                   */
    int64_t      row, state_n;               /* elements of a row of core, of a state     */
    uint8_t     *qkvz, *ba, *core, *z, *conv, *ssm, *w, *bias, *dt, *initial;
    float       *A_log;
    int32_t     *start, *slot, *map;
    int32_t     *part_start, *part_slot, *part_map; /* of attn_run_part()                 */
    uint8_t     *part_initial;
    uint64_t     line_bytes, state_bytes;    /* of a slot                                 */
    uint64_t     conv_step, ssm_step;        /* from slot to slot                         */
    uint64_t     mapped;                     /* bytes of each mmap, 0: none               */
    uint8_t     *line0, *state0;             /* [slots] before the call                   */
    uint8_t     *z1, *line1;                 /* after it, bit for bit                     */
    double      *core1, *state1;             /* [P][row], [n_seq][state_n], rounded       */
    bool        *covered;                    /* [P]                                       */
} attn_case;

typedef struct {
    double core, state; /* relative L2 of the rows written, of the slots written */
} attn_error;

/* False when the pools could not be mapped: nothing is open then. */
bool attn_open(attn_case *k, check *c, const attn_shape *s);
void attn_close(attn_case *k);
void attn_reset(attn_case *k);
void attn_run(attn_case *k);
void attn_compare(attn_case *k, const char *what, attn_error *e);
/* A call of n sequences' tokens from[i] .. from[i] + count[i] - 1 alone. */
void attn_run_part(attn_case *k, int32_t n, const int32_t *seq, const int32_t *from,
                   const int32_t *count);
/* Errors of the tokens begin .. end - 1 and of the state of sequence s. */
attn_error attn_error_of(const attn_case *k, int32_t s, int32_t begin, int32_t end);
/* Another device on the same memory. */
void attn_threads(attn_case *k, int32_t n);

/* Bounds of op.h for a call of this case. */
double attn_core_bound(const attn_case *k);
double attn_state_bound(const attn_case *k);

attn_image attn_save(const attn_case *k);
void       attn_same(attn_case *k, const attn_image *image, const char *what);

/* Five sequences with a map, SD: drafts accepted in part against the plain call. */
void attn_check_drafts(attn_case *k);

/* --- one sequence in double ------------------------------------------------------ */

typedef struct {
    int32_t  nk, nv, dk, dv, W;
    gdn_type act;
    double  *w, *bias, *A_log, *dt; /* [C][W], [C], [nv], [nv]                            */
    double  *past;                  /* [W - 1][C], the newest last                        */
    double  *S;                     /* [nv][dv][dk]                                       */
    double  *y;                     /* [C] the convolution's output, rounded to act       */
} attn_ref;

double attn_round(double x, gdn_type t); /* to the nearest number of a type, ties to even */
double attn_get(const void *p, int64_t i, gdn_type t);
void   attn_put(void *p, int64_t i, gdn_type t, double x);

/* The convolution's output for input x of channel c, before it is rounded. */
double attn_ref_conv(const attn_ref *r, int32_t c, double x);
/* A token: x [C], b and a [nv]; core [nv][dv], not rounded. */
void attn_ref_token(attn_ref *r, const double *x, const double *b, const double *a, double *core);

#endif
