/* request_bench.h - an engine, requests for it, and the answers that they must have. */
#ifndef GDN_TESTS_REQUEST_BENCH_H
#define GDN_TESTS_REQUEST_BENCH_H

#include "engine_check.h"

enum { VOCAB = 512 };

typedef struct {
    gdn_model  *m;
    gdn_engine *e;
    cold c;
} bench;

gdn_engine_opts engine_opts(int32_t n_ctx, int32_t n_seq);
bench open_bench(const char *model, gdn_engine_opts o);
/* Nothing is left but snapshots. */
void close_bench(bench *b);

gdn_request *submit(bench *b, gdn_request_opts o);
/* Steps until nothing is to be done, each with a look at the engine. */
void run_all(bench *b);
/* A request that has ended: its tokens are those of the prompt alone.  It is freed. */
gdn_request_result take(bench *b, gdn_request *r, gdn_request_opts o);
/* Submitted, run and taken. */
gdn_request_result one(bench *b, gdn_request_opts o);

/* n tokens of `seed` to to[at ..]; returns where they end. */
int32_t add(int32_t *to, int32_t at, int32_t n, uint64_t seed);
/* Drafts that are right but for every fifth, when the next step takes some. */
void give_drafts(gdn_request *r, const int32_t *want, int32_t n_draft);

#endif
