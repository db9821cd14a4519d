/* cases.h - golden models and token runs, for the tests of the whole forward pass. */
#ifndef GDN_TESTS_CASES_H
#define GDN_TESTS_CASES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gdn/gdn.h>

#include "../../src/format/safetensors.h"

#define MODELS "tests/golden/model/"

/* Fail with err's text unless st is GDN_OK. */
void must(gdn_status st, const gdn_err *err);

gdn_model *open_model(const char *dir, gdn_math math, int n_thread);

/* Tensor of a vector file; asserts that it is there with this type. */
const gdn_st_tensor *vector(gdn_weights *w, const char *name, gdn_st_dtype type);

/* input_ids of a vector file as int32, malloc'ed. */
int32_t *input_ids(gdn_weights *w, int32_t *n);

/* n random ids of a vocabulary, malloc'ed; the same for the same seed. */
int32_t *random_ids(int32_t n, int32_t vocab, uint64_t seed);

/* Logits after every token, [n][vocab] malloc'ed, in steps of n_row rows and calls of n_call
 * tokens (0: one call); mtp (may be NULL) gets [n - 1][vocab] when the model has the head. */
float *all_logits(gdn_model *m, const int32_t *ids, int32_t n, int32_t n_row, int32_t n_call,
                  float **mtp);

/* The likeliest tokens after a prompt, which stays the caller's. */
gdn_request_opts greedy(const int32_t *prompt, int32_t n, int32_t max_new);
/* A request that is taken. */
gdn_request *submit_to(gdn_engine *e, gdn_request_opts o);

/* Largest |a - b|; NaN counts as infinite. */
double max_error(const float *a, const float *b, size_t n);

#endif
