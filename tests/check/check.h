/* check.h - compare every kernel variant with its reference, then time it.
 *
 *   check                 all kernels, every instruction set of this machine
 *   check delta           only checks whose name begins with delta
 *   check --bench delta   the same, with time, GF/s and GB/s of each variant
 *   check --seed N        other random numbers, or those of a failing run
 *
 * One check looks like this:
 *
 *     if (!check_begin(c, (check_fn *)fn, "op n%d", n)) return;
 *     float *x = check_f32(c, "x", n), *y0 = check_f32(c, "y ref", n), *y1 = ...;
 *     check_fill(x, n, -1, 1);
 *     reference, variant
 *     check_close(c, "y", y0, y1, n, 1e-12);
 *     check_rate(c, run, &job, flops, bytes);
 *     check_end(c);
 *
 * The same seed gives every instruction set the same inputs. */
#ifndef GDN_CHECK_H
#define GDN_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../src/kern/kern.h"

typedef struct {
    const gdn_kern *kern;     /* the table under test                      */
    const char     *isa;      /* its name, for the report                  */
    bool            bench;
    double          peak_gfs; /* f32 FMA peak of one core, 0: not measured */
    double          dram_gbs; /* one core reading memory, 0: not measured  */
} check;

typedef void check_fn(void);

/* True once for a function and a name: a variant that an instruction set inherits from a
 * weaker one has been checked already.  False also when the filter excludes the name. */
bool check_begin(check *c, check_fn *fn, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Verifies the margins and that subnormal numbers are still numbers, frees the buffers, counts the check as passed or failed. */
void check_end(check *c);

/* Buffers with a poisoned margin on both sides, filled with NaN; a write outside is reported
 * with the buffer's name, under AddressSanitizer a read as well.  n counts elements.  Outside
 * --bench they lie one element off a cache line, so that no kernel relies on more. */
float    *check_f32(check *c, const char *name, size_t n);
uint16_t *check_u16(check *c, const char *name, size_t n); /* bf16, f16 */
int32_t  *check_i32(check *c, const char *name, size_t n);
void     *check_bytes(check *c, const char *name, size_t n);

double check_uniform(void); /* in [0, 1) */
void   check_fill(float *x, size_t n, float lo, float hi);
void   check_fill_bf16(uint16_t *x, size_t n, float lo, float hi);
float  check_from_bf16(uint16_t x);

/* Normalised mean square error, sum (got - ref)^2 / sum ref^2, at most tol; NaN fails.  When
 * ref is zero throughout, got must be too (tol then bounds the plain sum of squares). */
bool check_close(check *c, const char *what, const float *ref, const float *got, size_t n,
                 double tol);
/* The same relative to a power that the caller works out, for sums whose terms cancel. */
bool check_close_scaled(check *c, const char *what, const float *ref, const float *got,
                        size_t n, double tol, double power);
bool check_close_bf16(check *c, const char *what, const uint16_t *ref, const uint16_t *got,
                      size_t n, double tol);
/* Each element on its own: |got - ref| <= rel |ref| + abs; equal infinities agree, and NaN
 * agrees with NaN only. */
bool check_each(check *c, const char *what, const float *ref, const float *got, size_t n,
                double rel, double abs);
/* The same bytes; size is that of one element, for naming the place. */
bool check_bits(check *c, const char *what, const void *ref, const void *got, size_t n,
                size_t size);
/* Any other condition; the text says what was expected. */
bool check_that(check *c, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* With --bench: best time of many runs, operations and bytes a second, and their share of the
 * core's FMA peak and of its reading speed from memory.  0 leaves a column out. */
void check_rate(check *c, void (*run)(void *), void *arg, double flops, double bytes);

/* One for each operator family. */
void check_act(check *c);
void check_attn(check *c);
void check_cast(check *c);
void check_conv(check *c);
void check_delta(check *c);
void check_gdn_attention(check *c);
void check_linear(check *c);
void check_lora(check *c);
void check_moe(check *c);
void check_norm(check *c);
void check_rope(check *c);
void check_sample(check *c);

/* The reference's table with the kernels for AMX over a model of its tiles. */
void check_amx_model(gdn_kern *k);

#endif
