/* request_bench.c - see request_bench.h. */
#include "request_bench.h"

#include <stdlib.h>
#include <string.h>

gdn_engine_opts engine_opts(int32_t n_ctx, int32_t n_seq) {
    gdn_engine_opts o;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n_ctx;
    o.n_seq = n_seq;
    o.n_row = 256;
    o.cache_bytes = GDN_CACHE_AUTO;
    return o;
}

bench open_bench(const char *model, gdn_engine_opts o) {
    bench b;
    gdn_err err;
    b.m = open_model(model, GDN_MATH_F32, 1);
    must(gdn_engine_create(b.m, &o, &b.e, &err), &err);
    cold_open(&b.c, b.m, 4096, gdn_model_get_info(b.m)->vocab);
    return b;
}

void close_bench(bench *b) {
    check_idle(b->e);
    cold_close(&b->c);
    gdn_engine_free(b->e);
    gdn_model_close(b->m);
}

gdn_request *submit(bench *b, gdn_request_opts o) { return submit_to(b->e, o); }

static void step_until(bench *b, const gdn_request *r) {
    gdn_err err;
    gdn_request_result res;
    do {
        must(gdn_engine_step(b->e, &err), &err);
        check_engine(b->e);
        gdn_request_get_result(r, &res);
    } while (r == NULL ? gdn_engine_busy(b->e) : !res.done);
}

void run_all(bench *b) {
    gdn_err err;
    while (gdn_engine_busy(b->e)) {
        must(gdn_engine_step(b->e, &err), &err);
        check_engine(b->e);
    }
}

gdn_request_result take(bench *b, gdn_request *r, gdn_request_opts o) {
    gdn_request_result res;
    gdn_request_get_result(r, &res);
    assert_true(res.done);
    assert_int_equal(res.finish, GDN_FINISH_LENGTH);
    const int32_t *want = cold_run(&b->c, o.prompt, o.n_prompt, &o.sampling, o.adapter, o.max_new);
    assert_int_equal(res.n_new, o.max_new);
    assert_memory_equal(gdn_request_tokens(r), want, (size_t)res.n_new * sizeof *want);
    gdn_request_free(r);
    return res;
}

gdn_request_result one(bench *b, gdn_request_opts o) {
    gdn_request *r = submit(b, o);
    step_until(b, r);
    return take(b, r, o);
}

int32_t add(int32_t *to, int32_t at, int32_t n, uint64_t seed) {
    int32_t *ids = random_ids(n, VOCAB, seed);
    memcpy(to + at, ids, (size_t)n * sizeof *ids);
    free(ids);
    return at + n;
}

void give_drafts(gdn_request *r, const int32_t *want, int32_t n_draft) {
    if (r->seq == NULL || r->n_tok == r->n_prompt || r->n_tok - r->seq->length != 1) return;
    r->n_draft = n_draft;
    for (int32_t k = 0; k < n_draft; k++) {
        const int32_t at = r->result.n_new + k;
        r->draft[k] = at % 5 == 4 ? (want[at] + 1) % VOCAB : want[at];
    }
}
