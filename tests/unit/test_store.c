/* test_store.c - sessions on disk: what comes back is what was there, bit for bit, or nothing. */
#include "cases.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/engine/store.h"
#include "sanitized.h"

enum { VOCAB = 512, N = 330, TAIL = 12, MANY = 64 << 20 };

static char folder[64], path[96];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/gdn-store-XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof path, "%s/session", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static const char *inside(const char *name) {
    static char all[160];
    snprintf(all, sizeof all, "%s/%s", folder, name);
    return all;
}

static gdn_engine *engine(gdn_model *m, int32_t n_ctx, int32_t block_size, int32_t n_draft,
                          uint64_t cache) {
    gdn_engine_opts o;
    gdn_engine *e = NULL;
    gdn_err err;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = n_ctx;
    o.n_seq = 2;
    o.n_row = 64;
    o.block_size = block_size;
    o.n_draft = n_draft;
    o.cache_bytes = cache;
    must(gdn_engine_create(m, &o, &e, &err), &err);
    return e;
}

static gdn_engine_stats stats(const gdn_engine *e) {
    gdn_engine_stats s;
    gdn_engine_get_stats(e, &s);
    return s;
}

static void refused(gdn_status got, gdn_status want, const gdn_err *err, const char *word) {
    if (got != want)
        fail_msg("%s, wanted %s: %s", gdn_status_text(got), gdn_status_text(want), err->text);
    if (strstr(err->text, word) == NULL) fail_msg("'%s' does not say '%s'", err->text, word);
}

/* Snapshots of ids at these ascending lengths, by one sequence. */
static void fill(gdn_engine *e, const gdn_adapter *a, const int32_t *ids, const int32_t *at,
                 int n_at) {
    gdn_seq *s = NULL;
    gdn_err err;
    const uint64_t before = stats(e).n_snapshot;
    must(gdn_seq_create(e, &s, &err), &err);
    must(gdn_seq_set_adapter(s, a, &err), &err);
    for (int i = 0; i < n_at; i++) {
        const int32_t from = gdn_seq_length(s);
        const gdn_work w = {.seq = s, .tokens = ids + from, .n = at[i] - from};
        must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
        must(gdn_snapshot_save(s, ids, &err), &err);
    }
    gdn_seq_free(s);
    assert_int_equal(stats(e).n_snapshot - before, n_at);
}

static void save(gdn_engine *e, const int32_t *ids, int32_t n, const char *note) {
    gdn_err err;
    must(gdn_session_save(e, NULL, ids, n, note, strlen(note), path, &err), &err);
}

/* Load, and the note must be this. */
static void load(gdn_engine *e, const char *note) {
    gdn_err err;
    void *got;
    size_t n;
    must(gdn_session_load(e, NULL, path, &got, &n, &err), &err);
    assert_non_null(got);
    assert_int_equal(n, strlen(note));
    assert_memory_equal(got, note, n);
    free(got);
}

static gdn_snapshot *find(gdn_engine *e, const int32_t *ids, int32_t n) {
    int32_t common;
    return gdn_snapshot_find(e, 0, ids, n, &common);
}

/* Go on from the snapshot at `at` with the tokens after it and compare with a cold run's logits,
 * those of the very position too. */
static void warm_is_cold(gdn_engine *e, const int32_t *ids, int32_t at, const float *cold,
                         const float *draft) {
    gdn_seq *s = NULL;
    gdn_err err;
    int32_t out[TAIL];
    const float *now;
    static float logits[TAIL * VOCAB], mtp[TAIL * VOCAB];
    gdn_snapshot *from = find(e, ids, at);
    if (from == NULL || from->n_tok != at) fail_msg("no snapshot of %d tokens", at);
    must(gdn_seq_create(e, &s, &err), &err);
    must(gdn_snapshot_restore(s, from, &err), &err);
    const int32_t row = gdn_hidden_row(s, at - 1);
    must(gdn_step_logits(e, &row, 1, &now, &err), &err);
    assert_memory_equal(now, cold + (size_t)(at - 1) * VOCAB, VOCAB * sizeof *now);
    for (int32_t i = 0; i < TAIL; i++) out[i] = i;
    const int32_t n_out = e->opts.mtp ? TAIL - 1 : TAIL;
    const gdn_work w = {.seq = s, .tokens = ids + at, .n = TAIL, .out = out, .n_out = n_out,
                        .logits = logits, .mtp = e->opts.mtp ? mtp : NULL};
    const uint64_t rows = stats(e).rows;
    must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
    assert_int_equal(stats(e).rows - rows, TAIL);
    for (int32_t i = 0; i < n_out; i++) {
        const size_t t = (size_t)(at + i) * VOCAB, k = (size_t)i * VOCAB;
        if (memcmp(logits + k, cold + t, VOCAB * sizeof *logits) != 0)
            fail_msg("from %d: logits of token %d differ", at, at + i);
        if (e->opts.mtp && memcmp(mtp + k, draft + t, VOCAB * sizeof *mtp) != 0)
            fail_msg("from %d: draft logits of token %d differ", at, at + i);
    }
    gdn_seq_free(s);
}

/* Fill marks as the sequence that was saved had left them: whoever goes on there needs no copy. */
static void check_marks(gdn_engine *e, const int32_t *ids, int32_t n) {
    const int32_t bs = e->plan.block_size;
    const gdn_snapshot *s = find(e, ids, n);
    assert_int_equal(s->n_page, (n + bs - 1) / bs);
    for (int32_t i = 0; i < s->n_page; i++)
        assert_int_equal(e->pages.page[s->page[i]].filled,
                         i + 1 < s->n_page ? bs + 1 : n - i * bs);
}

/* Go on from a snapshot with other tokens: whoever shares its pages must not notice. */
static void go_elsewhere(gdn_engine *e, const int32_t *ids, int32_t at, int32_t n) {
    gdn_seq *s = NULL;
    gdn_err err;
    int32_t *other = random_ids(n, VOCAB, 99);
    must(gdn_seq_create(e, &s, &err), &err);
    must(gdn_snapshot_restore(s, find(e, ids, at), &err), &err);
    const gdn_work w = {.seq = s, .tokens = other, .n = n};
    must(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, &err), &err);
    gdn_seq_free(s);
    free(other);
}

static const char *const models[] = {MODELS "dense-mtp", MODELS "next-moe", MODELS "moe-mtp",
                                     MODELS "dense-tied-128"}; /* its states fill some chunks */

/* Saved in blocks of one size and loaded in another's, short of a block, at its end, beyond. */
static void test_round_trip(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof models / sizeof *models; k++)
        for (int math = 0; math < 2; math++) {
            gdn_model *m = open_model(models[k], (gdn_math)math, 2);
            const bool mtp = gdn_model_get_info(m)->has_mtp;
            int32_t *ids = random_ids(N + TAIL, VOCAB, 5 + k);
            float *draft = NULL, *cold = all_logits(m, ids, N + TAIL, 64, 0, mtp ? &draft : NULL);
            gdn_engine *e = engine(m, 1000, 0, 2, MANY);
            const int32_t bs = e->plan.block_size;
            const int32_t at[] = {1, 7, bs < 200 ? bs : 200, bs < 200 ? bs + 90 : 290, N};
            fill(e, NULL, ids, at, 5);
            save(e, ids, N, "a note");
            gdn_engine_free(e);
            for (int size = 0; size < 3; size++) {
                e = engine(m, size == 1 ? 600 : 2000, size == 2 ? 2 * bs : 0, 2,
                           size == 1 ? GDN_CACHE_AUTO : MANY);
                load(e, "a note");
                assert_int_equal(stats(e).n_snapshot, 5);
                check_marks(e, ids, N);
                /* The longest, then a shorter one whose pages go on differently in it. */
                warm_is_cold(e, ids, N, cold, draft);
                for (int i = 0; i < 4; i++) go_elsewhere(e, ids, at[i], 40);
                go_elsewhere(e, ids, N, 5);
                for (int i = 4; i >= 0; i--) warm_is_cold(e, ids, at[i], cold, draft);
                gdn_engine_free(e);
            }
            free(ids), free(cold), free(draft);
            gdn_model_close(m);
        }
}

/* What is saved after a load is the same file. */
static void test_again(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_FAST, 2);
    int32_t *ids = random_ids(N, VOCAB, 8);
    static const int32_t at[] = {20, 64, 129};
    gdn_engine *e = engine(m, 600, 0, 2, MANY), *f = engine(m, 700, 0, 2, MANY);
    gdn_err err;
    fill(e, NULL, ids, at, 3);
    save(e, ids, N, "n");
    load(f, "n");
    must(gdn_session_save(f, NULL, ids, N, "n", 1, inside("second"), &err), &err);
    char command[300];
    snprintf(command, sizeof command, "cmp %s %s", path, inside("second"));
    assert_int_equal(system(command), 0);
    gdn_engine_free(e);
    gdn_engine_free(f);
    gdn_model_close(m);
    free(ids);
}

/* --- requests --- */

static gdn_request_result answer(gdn_engine *e, const int32_t *ids, int32_t n, int32_t *out,
                                 int32_t max_new) {
    gdn_request *r = submit_to(e, greedy(ids, n, max_new));
    gdn_request_result g;
    gdn_err err;
    while (gdn_engine_busy(e)) must(gdn_engine_step(e, &err), &err);
    gdn_request_get_result(r, &g);
    assert_int_equal(g.finish, GDN_FINISH_LENGTH);
    assert_int_equal(g.n_new, max_new);
    memcpy(out, gdn_request_tokens(r), (size_t)max_new * sizeof *out);
    gdn_request_free(r);
    return g;
}

/* A prompt that goes on after a saved answer reads its tail only, and an equal one nothing. */
static void test_requests(void **state) {
    (void)state;
    enum { NEW = 24 };
    for (int draft = 0; draft < 2; draft++) {
        gdn_model *m = open_model(models[0], GDN_MATH_FAST, 2);
        int32_t *ids = random_ids(N, VOCAB, 41), first[NEW], want[NEW], got[NEW];
        gdn_engine *e = engine(m, 1000, 0, draft * 3, MANY);
        answer(e, ids, 150, first, NEW);
        memcpy(ids + 150, first, sizeof first);
        save(e, ids, 150 + NEW, "");
        gdn_engine_free(e);
        e = engine(m, 1000, 0, draft * 3, 0);
        const gdn_request_result cold = answer(e, ids, N, want, NEW);
        assert_int_equal(cold.n_cached, 0);
        gdn_engine_free(e);
        e = engine(m, 800, 0, draft * 3, MANY);
        load(e, "");
        const gdn_request_result warm = answer(e, ids, N, got, NEW);
        assert_true(warm.n_cached >= 150 && warm.n_cached <= 150 + NEW);
        assert_int_equal(warm.n_computed, N - warm.n_cached);
        assert_memory_equal(got, want, sizeof got);
        const gdn_request_result same = answer(e, ids, 150, got, NEW);
        assert_int_equal(same.n_cached, 150);
        assert_int_equal(same.n_computed, 0);
        assert_memory_equal(got, first, sizeof got);
        gdn_engine_free(e);
        gdn_model_close(m);
        free(ids);
    }
}

/* --- room --- */

typedef struct {
    unsigned char *b;
    size_t n;
} bytes;

static bytes slurp(const char *name) {
    FILE *f = fopen(name, "rb");
    assert_non_null(f);
    bytes x = {.b = malloc(4 << 20)};
    assert_non_null(x.b);
    x.n = fread(x.b, 1, 4 << 20, f);
    fclose(f);
    assert_true(x.n > 0 && x.n < 4 << 20);
    return x;
}

static void spill(const bytes *x) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(x->b, 1, x->n, f), x->n);
    assert_int_equal(fclose(f), 0);
}

/* Nobody else holds a page of theirs. */
static void drop_all(gdn_engine *e) {
    while (e->snapshots.first != NULL) gdn_snapshot_drop(e, e->snapshots.first);
    assert_int_equal(stats(e).n_page_used, 0);
    gdn_engine_free(e);
}

static void test_room(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 2);
    int32_t *ids = random_ids(N + TAIL, VOCAB, 6), *other = random_ids(N, VOCAB, 7);
    float *draft = NULL, *cold = all_logits(m, ids, N + TAIL, 64, 0, &draft);
    static const int32_t at[] = {30, 100, 170, 240, 310};
    gdn_engine *e = engine(m, 1000, 0, 2, MANY);
    gdn_err err;
    fill(e, NULL, ids, at, 5);
    save(e, ids, N, "x");
    const gdn_engine_stats full = stats(e);
    const uint64_t unit = full.page_bytes * (uint64_t)m->n_storage;
    const uint64_t kv = (310 + (uint64_t)full.block_size - 1) / (uint64_t)full.block_size;
    const uint64_t two = (kv + 2 * (uint64_t)m->n_group) * unit;
    load(e, "x"); /* all of it is there already */
    assert_int_equal(stats(e).n_snapshot, 5);
    assert_int_equal(stats(e).n_page_used, full.n_page_used);
    assert_int_equal(stats(e).evicted, 0);
    gdn_engine_free(e);

    e = engine(m, 1000, 0, 2, two); /* for two of them */
    for (int i = 0; i < 2; i++) {   /* the second time nothing changes */
        load(e, "x");
        assert_int_equal(stats(e).n_snapshot, 2);
        assert_int_equal(stats(e).evicted, 0);
        assert_int_equal(stats(e).snapshot_bytes, two);
        assert_int_equal(stats(e).n_page_used, kv + 2 * (uint64_t)m->n_group);
    }
    warm_is_cold(e, ids, 310, cold, draft);
    warm_is_cold(e, ids, 240, cold, draft);
    drop_all(e);

    e = engine(m, 1000, 0, 2, two); /* others are there and go */
    static const int32_t one[] = {50};
    fill(e, NULL, other, one, 1);
    load(e, "x");
    assert_int_equal(stats(e).n_snapshot, 2);
    assert_null(find(e, other, 50));
    warm_is_cold(e, ids, 310, cold, draft);
    gdn_engine_free(e);

    /* One of two others has to go: the one that was not used for longer. */
    const uint64_t small = (50 + (uint64_t)full.block_size - 1) / (uint64_t)full.block_size;
    e = engine(m, 1000, 0, 2, (kv + small + 6 * (uint64_t)m->n_group) * unit);
    fill(e, NULL, other, one, 1);
    fill(e, NULL, other + 60, one, 1);
    load(e, "x");
    assert_int_equal(stats(e).n_snapshot, 6);
    assert_null(find(e, other, 50));
    assert_non_null(find(e, other + 60, 50));
    gdn_engine_free(e);

    e = engine(m, 1000, 0, 2, two); /* a damaged one makes no room */
    fill(e, NULL, other, one, 1);
    bytes x = slurp(path);
    x.b[x.n - 1] ^= 1;
    spill(&x);
    refused(gdn_session_load(e, NULL, path, NULL, NULL, &err), GDN_E_FORMAT, &err, "hash");
    assert_non_null(find(e, other, 50));
    x.b[x.n - 1] ^= 1;
    spill(&x);
    free(x.b);
    gdn_engine_free(e);

    e = engine(m, 1000, 0, 2, 2 * two); /* the longest is there: only shorter ones are missing */
    static const int32_t last[] = {310};
    fill(e, NULL, ids, last, 1);
    load(e, "x");
    assert_int_equal(stats(e).n_snapshot, 5);
    for (int i = 0; i < 5; i++) go_elsewhere(e, ids, at[i], 30);
    for (int i = 0; i < 5; i++) warm_is_cold(e, ids, at[i], cold, draft);
    drop_all(e);

    e = engine(m, 200, 0, 2, MANY); /* a context too short for the longest */
    load(e, "x");
    assert_int_equal(stats(e).n_snapshot, 3);
    warm_is_cold(e, ids, 170, cold, draft);
    warm_is_cold(e, ids, 30, cold, draft);
    gdn_engine_free(e);

    e = engine(m, 1000, 0, 2, 0); /* no room at all */
    load(e, "x");
    assert_int_equal(stats(e).n_snapshot, 0);
    must(gdn_session_save(e, NULL, ids, 9, NULL, 0, path, &err), &err); /* and nothing to save */
    load(e, "");
    must(gdn_session_save(e, NULL, NULL, 0, NULL, 0, path, &err), &err);
    must(gdn_session_load(e, NULL, path, NULL, NULL, &err), &err);
    const int32_t bad[] = {1, VOCAB};
    refused(gdn_session_save(e, NULL, bad, 2, NULL, 0, path, &err), GDN_E_INVALID, &err,
            "token 1 is 512");
    gdn_engine_free(e);
    gdn_model_close(m);
    free(ids), free(other), free(cold), free(draft);
}

/* --- damage --- */

/* The message must hold the word. */
static void one_refused(gdn_engine *e, const char *what, size_t at, const char *word) {
    gdn_err err = {0};
    void *note = &err;
    size_t n = 1;
    const uint64_t used = stats(e).n_page_used;
    const gdn_status st = gdn_session_load(e, NULL, path, &note, &n, &err);
    if (st != GDN_E_FORMAT && st != GDN_E_UNSUPPORTED)
        fail_msg("%s %zu: %s %s", what, at, gdn_status_text(st), err.text);
    if (strncmp(err.text, path, strlen(path)) != 0) fail_msg("%s names no file", err.text);
    if (strstr(err.text, word) == NULL)
        fail_msg("%s %zu: '%s' does not say '%s'", what, at, err.text, word);
    assert_null(note);
    assert_int_equal(n, 0);
    assert_int_equal(stats(e).n_snapshot, 0);
    assert_int_equal(stats(e).n_page_used, used);
}

/* Any byte changed, any length cut or added: refused, and the engine goes on. */
static void test_damage(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_FAST, 1);
    int32_t *ids = random_ids(60, VOCAB, 3);
    float *draft = NULL, *cold = all_logits(m, ids, 60, 64, 0, &draft);
    static const int32_t at[] = {9, 40};
    gdn_engine *e = engine(m, 300, 0, 2, MANY);
    fill(e, NULL, ids, at, 2);
    save(e, ids, 45, "{\"a\": 1}");
    gdn_engine_free(e);
    e = engine(m, 300, 0, 2, MANY);
    bytes x = slurp(path);
    const size_t step = SANITIZED ? 997 : 61, whole = x.n;
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    const size_t plain = GDN_STORE_HEAD + 4 * 47 + 8 + GDN_STORE_CHUNK_HEAD + 64;
    for (size_t i = 0; i < x.n; i += i < plain || i + 64 > x.n ? 1 : step) {
        const unsigned char bad = (unsigned char)(x.b[i] ^ (1u << i % 8));
        assert_int_equal(pwrite(fd, &bad, 1, (off_t)i), 1);
        one_refused(e, "a flipped bit of byte", i, "");
        assert_int_equal(pwrite(fd, x.b + i, 1, (off_t)i), 1);
    }
    for (size_t i = whole; i-- > 0; i -= i > plain && i > step ? step - 1 : 0) {
        assert_int_equal(ftruncate(fd, (off_t)i), 0);
        one_refused(e, "cut at", i, "bytes");
    }
    close(fd);
    x.n = whole + 1;
    spill(&x);
    one_refused(e, "longer by", 1, "its head says");
    x.n = whole;
    spill(&x);
    load(e, "{\"a\": 1}");
    warm_is_cold(e, ids, 40, cold, draft);
    gdn_engine_free(e);
    gdn_model_close(m);
    free(ids), free(cold), free(draft), free(x.b);
}

static size_t chunk_end(const bytes *x, size_t at) {
    assert_true(at + GDN_STORE_CHUNK_HEAD <= x->n);
    const uint32_t stored = (uint32_t)x->b[at + 4] | (uint32_t)x->b[at + 5] << 8 |
                            (uint32_t)x->b[at + 6] << 16 | (uint32_t)x->b[at + 7] << 24;
    return at + GDN_STORE_CHUNK_HEAD + stored;
}

/* Chunks are whole, but in each other's place, or of a file with other tokens. */
static void test_chunks(void **state) {
    (void)state;
    gdn_model *m = open_model(models[3], GDN_MATH_F32, 2);
    int32_t *ids = random_ids(60, VOCAB, 3);
    static const int32_t at[] = {9, 20, 40};
    gdn_engine *e = engine(m, 300, 0, 0, MANY), *f = engine(m, 300, 0, 0, MANY);
    fill(e, NULL, ids, at, 3);
    save(e, ids, 45, "");
    const bytes x = slurp(path);
    const size_t a = GDN_STORE_HEAD + 4 * 48, b = chunk_end(&x, a), c = chunk_end(&x, b);
    assert_true(c < x.n);
    unsigned char *swapped = malloc(x.n);
    assert_non_null(swapped);
    memcpy(swapped, x.b, a);
    memcpy(swapped + a, x.b + b, c - b);
    memcpy(swapped + a + (c - b), x.b + a, b - a);
    memcpy(swapped + c, x.b + c, x.n - c);
    spill(&(bytes){swapped, x.n});
    one_refused(f, "swapped chunks", 0, "hash of chunk 0");
    ids[44] ^= 1;
    save(e, ids, 45, "");
    bytes y = slurp(path);
    assert_int_equal(y.n, x.n);
    memcpy(y.b + a, x.b + a, x.n - a);
    spill(&y);
    one_refused(f, "chunks of another file", 0, "hash of chunk 0");
    gdn_engine_free(e), gdn_engine_free(f);
    gdn_model_close(m);
    free(ids), free(x.b), free(y.b), free(swapped);
}

static uint64_t get(const unsigned char *p, int n) {
    uint64_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint64_t)p[i] << 8 * i;
    return x;
}

static void set(unsigned char *p, uint64_t x, int n) {
    for (int i = 0; i < n; i++) p[i] = (unsigned char)(x >> 8 * i);
}

/* Heads with right hashes that lie. */
static void test_lies(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_FAST, 1);
    int32_t *ids = random_ids(60, VOCAB, 3);
    static const int32_t at[] = {9, 40};
    gdn_engine *e = engine(m, 300, 0, 2, MANY), *f = engine(m, 300, 0, 2, MANY);
    fill(e, NULL, ids, at, 2);
    save(e, ids, 45, "note");
    bytes x = slurp(path);
    gdn_store_reader *r = NULL;
    gdn_err err;
    must(gdn_store_open(path, &r, &err), &err);
    const gdn_store_head good = *gdn_store_get_head(r);
    gdn_store_close(r);
    assert_int_equal(good.n_token, 45);
    assert_int_equal(good.n_snapshot, 2);
    static const uint64_t odd[] = {0, 1, 44, 46, 0xffff, 0x7fffffff, 0x80000000, 0x3fffffffffffffff,
                                   0x4000000000000000, UINT64_MAX - 3, UINT64_MAX};
    for (size_t field = 0; field < 5; field++)
        for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
            gdn_store_head h = good;
            uint64_t *to[] = {&h.file_bytes, &h.n_token, &h.n_snapshot, &h.n_note, &h.body_bytes};
            *to[field] = odd[i];
            gdn_store_pack(&h, x.b);
            spill(&x);
            one_refused(f, "a lie about field", field,
                        field == 0   ? "its head says"
                        : field == 4 ? "its snapshots take"
                        : i > 4      ? "and a note of"
                                     : "");
        }
    gdn_store_head h = good;
    h.flags = 5;
    gdn_store_pack(&h, x.b);
    spill(&x);
    one_refused(f, "flags", 5, "flags 5");
    h = good;
    h.file_bytes++;
    gdn_store_pack(&h, x.b);
    x.b[x.n++] = 0;
    spill(&x);
    one_refused(f, "a byte behind the body", x.n, "contents end");
    x.n--;
    gdn_store_pack(&good, x.b);
    /* In tokens, lengths, chunk: every hash is made right again. */
    unsigned char *const plain = x.b + GDN_STORE_HEAD, *const length = plain + 4 * 45;
    unsigned char *const chunk = plain + 4 * 47 + 4;
    assert_int_equal(get(length, 4), 40);
    assert_int_equal(get(length + 4, 4), 9);
    const struct {
        unsigned char *at;
        uint64_t x;
        const char *word;
    } lies[] = {{plain, VOCAB, "token 0 is 512"},
                {plain + 8, 0xffffffff, "token 2 is -1"},
                {length, 46, "snapshot 0 has 46"},
                {length, 9, "snapshot 1 has 9"},
                {length, 39, "its snapshots take"},
                {length + 4, 40, "snapshot 1 has 40"},
                {length + 4, 0, "snapshot 1 has 0"},
                {length + 4, 0x80000000, "snapshot 1 has -2147483648"},
                {chunk, 1, "1 bytes in"},
                {chunk, 0xffffffff, "4294967295 bytes in"},
                {chunk + 4, 0xffffffff, "in 4294967295"},
                {chunk + 4, 0, "does not decompress"},
                {chunk + 4, 5, "does not decompress"},
                {chunk + 16, 0x5a5a5a5a, "does not decompress"}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        const uint64_t was = get(lies[i].at, 4);
        set(lies[i].at, lies[i].x, 4);
        h = good;
        h.plain_hash = gdn_store_plain_hash(plain, 4 * 47 + 4);
        gdn_store_pack(&h, x.b);
        const uint32_t stored = (uint32_t)get(chunk + 4, 4);
        if (stored <= x.n - (size_t)(chunk + 16 - x.b))
            set(chunk + 8, gdn_store_chunk_hash(h.plain_hash, 0, (uint32_t)get(chunk, 4), stored,
                                                chunk + 16), 8);
        spill(&x);
        one_refused(f, "lie", i, lies[i].word);
        set(lies[i].at, was, 4);
    }
    gdn_engine_free(e);
    gdn_engine_free(f);
    gdn_model_close(m);
    free(ids), free(x.b);
}

/* --- of something else --- */

static void unsupported(gdn_engine *e, const gdn_adapter *a, const char *word) {
    gdn_err err = {0};
    void *note;
    size_t n;
    refused(gdn_session_load(e, a, path, &note, &n, &err), GDN_E_UNSUPPORTED, &err, word);
    assert_int_equal(stats(e).n_snapshot, 0);
}

static void test_foreign(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1);
    int32_t *ids = random_ids(60, VOCAB, 3);
    static const int32_t at[] = {40};
    gdn_adapter *a = NULL;
    gdn_err err;
    char value[32];
    gdn_engine *e = engine(m, 300, 0, 2, MANY), *f = engine(m, 300, 0, 0, MANY);
    must(gdn_adapter_open(m, "tests/golden/lora/dense-mtp", 1, &a, &err), &err);
    fill(e, NULL, ids, at, 1);
    save(e, ids, 45, "");
    snprintf(value, sizeof value, "adapter %016llx", 0ull);
    gdn_engine *g = engine(m, 300, 0, 2, MANY);
    unsupported(g, a, value);
    snprintf(value, sizeof value, "%016llx", (unsigned long long)a->key);
    unsupported(g, a, value);
    load(f, ""); /* the MTP head's entries are not needed */
    assert_int_equal(stats(f).n_snapshot, 1);
    save(f, ids, 45, "");
    unsupported(g, NULL, "MTP");
    must(gdn_session_save(e, a, ids, 45, NULL, 0, path, &err), &err); /* has nothing of its own */
    unsupported(g, NULL, "adapter");
    save(e, ids, 45, "");
    gdn_model *other = open_model(models[2], GDN_MATH_F32, 1);
    gdn_model *fast = open_model(models[0], GDN_MATH_FAST, 1);
    setenv("GDN_ISA", "ref", 1);
    gdn_model *slow = open_model(models[0], GDN_MATH_F32, 1);
    unsetenv("GDN_ISA");
    gdn_engine *h = engine(other, 300, 0, 2, MANY);
    snprintf(value, sizeof value, "is %016llx",
             (unsigned long long)gdn_model_fingerprint(other));
    unsupported(h, NULL, value);
    refused(gdn_session_load(h, a, path, NULL, NULL, &err), GDN_E_INVALID, &err, "another model");
    refused(gdn_session_save(h, a, ids, 1, NULL, 0, path, &err), GDN_E_INVALID, &err,
            "another model");
    snprintf(value, sizeof value, "model %016llx", (unsigned long long)gdn_model_fingerprint(m));
    unsupported(h, NULL, value);
    gdn_engine_free(h);
    h = engine(fast, 300, 0, 2, MANY);
    unsupported(h, NULL, "keys f32");
    unsupported(h, NULL, "keys bf16");
    gdn_engine_free(h);
    h = engine(slow, 300, 0, 2, MANY);
    unsupported(h, NULL, "plain C");
    gdn_engine_free(h);
    load(g, "");
    gdn_adapter_close(a);
    gdn_engine_free(e), gdn_engine_free(f), gdn_engine_free(g);
    gdn_model_close(m), gdn_model_close(other), gdn_model_close(fast), gdn_model_close(slow);
    free(ids);
}

/* An adapter's snapshots are its own. */
static void test_adapter(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1);
    int32_t *ids = random_ids(60, VOCAB, 3), common;
    static const int32_t at[] = {10, 40};
    gdn_adapter *a = NULL;
    gdn_err err;
    gdn_engine *e = engine(m, 300, 0, 2, MANY), *f = engine(m, 300, 0, 2, MANY);
    must(gdn_adapter_open(m, "tests/golden/lora/dense-mtp", 1, &a, &err), &err);
    fill(e, a, ids, at, 2);
    must(gdn_session_save(e, a, ids, 45, NULL, 0, path, &err), &err);
    must(gdn_session_load(f, a, path, NULL, NULL, &err), &err);
    assert_int_equal(stats(f).n_snapshot, 2);
    assert_null(find(f, ids, 45));
    const gdn_snapshot *s = gdn_snapshot_find(f, a->key, ids, 45, &common);
    assert_non_null(s);
    assert_int_equal(s->n_tok, 40);
    gdn_engine_free(e), gdn_engine_free(f);
    gdn_adapter_close(a);
    gdn_model_close(m);
    free(ids);
}

static uint64_t fingerprint_of(const char *dir) {
    gdn_model *m = open_model(dir, GDN_MATH_F32, 1);
    const uint64_t h = gdn_model_fingerprint(m);
    gdn_model_close(m);
    return h;
}

/* Where a model lies does not count, what it computes does. */
static void test_fingerprint(void **state) {
    (void)state;
    char dir[100], command[500];
    snprintf(dir, sizeof dir, "%s/model", folder);
    snprintf(command, sizeof command, "mkdir %s && cp %s/config.json %s/model.safetensors %s", dir,
             models[0], models[0], dir);
    assert_int_equal(system(command), 0);
    const uint64_t here = fingerprint_of(models[0]);
    assert_true(here != 0 && here != fingerprint_of(models[2]));
    assert_int_equal(fingerprint_of(dir), here);
    snprintf(command, sizeof command, "sed -i 's/5.17.0/6.0/' %s/config.json", dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(fingerprint_of(dir), here);
    snprintf(command, sizeof command, "sed -i 's/1e-06/1e-05/' %s/config.json", dir);
    assert_int_equal(system(command), 0);
    assert_int_not_equal(fingerprint_of(dir), here);
    snprintf(command, sizeof command, "sed -i 's/1e-05/1e-06/' %s/config.json", dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(fingerprint_of(dir), here);
    snprintf(command, sizeof command, "%s/model.safetensors", dir);
    const int fd = open(command, O_RDWR);
    assert_true(fd >= 0);
    unsigned char b;
    const off_t end = lseek(fd, 0, SEEK_END);
    assert_int_equal(pread(fd, &b, 1, end - 2), 1); /* of the last tensor */
    b ^= 1;
    assert_int_equal(pwrite(fd, &b, 1, end - 2), 1);
    close(fd);
    assert_int_not_equal(fingerprint_of(dir), here);
}

/* --- files --- */

static int n_files(void) {
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *f; (f = readdir(d)) != NULL;) n += f->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_files(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_F32, 1);
    int32_t *ids = random_ids(60, VOCAB, 3);
    static const int32_t at[] = {40};
    gdn_err err;
    struct stat s;
    gdn_engine *e = engine(m, 300, 0, 2, MANY), *f = engine(m, 300, 0, 2, MANY);
    fill(e, NULL, ids, at, 1);
    unlink(path);
    const int before = n_files();
    save(e, ids, 45, "one");
    assert_int_equal(n_files(), before + 1);
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 07777, 0600);
    /* The new file takes the name: whoever holds the old one sees no change. */
    bytes old = slurp(path);
    assert_int_equal(link(path, inside("old")), 0);
    assert_int_equal(symlink("session", inside("link")), 0);
    FILE *left = fopen(inside("session.tmp"), "w"); /* of somebody who was killed */
    assert_non_null(left);
    for (int i = 0; i < 30000; i++) fputs("half a session", left);
    fclose(left);
    must(gdn_session_save(e, NULL, ids, 45, "two", 3, inside("link"), &err), &err);
    bytes kept = slurp(inside("old"));
    assert_int_equal(kept.n, old.n);
    assert_memory_equal(kept.b, old.b, old.n);
    assert_int_equal(lstat(inside("link"), &s), 0);
    assert_true(S_ISLNK(s.st_mode));
    assert_int_equal(n_files(), before + 3);
    load(f, "two");
    free(old.b);
    /* A disk that is full after 20000 bytes: the old file stays, and no other. */
    const struct rlimit few = {20000, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
    const gdn_status st = gdn_session_save(e, NULL, ids, 45, "three", 5, path, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    refused(st, GDN_E_IO, &err, path);
    assert_int_equal(n_files(), before + 3);
    load(f, "two");
    refused(gdn_session_save(e, NULL, ids, 45, "", 0, inside("no/where"), &err), GDN_E_IO, &err,
            "no/where");
    refused(gdn_session_save(e, NULL, ids, 45, "", 0, folder, &err), GDN_E_IO, &err, folder);
    refused(gdn_session_save(e, NULL, ids, 45, "", 0, "/dev/full", &err), GDN_E_IO, &err,
            "/dev/full");
    assert_int_equal(stat("/dev/full", &s), 0);
    assert_true(S_ISCHR(s.st_mode));
    refused(gdn_session_load(f, NULL, inside("none"), NULL, NULL, &err), GDN_E_IO, &err, "none");
    refused(gdn_session_load(f, NULL, folder, NULL, NULL, &err), GDN_E_IO, &err, folder);
    assert_int_equal(mkfifo(inside("pipe"), 0600), 0);
    refused(gdn_session_load(f, NULL, inside("pipe"), NULL, NULL, &err), GDN_E_IO, &err, "pipe");
    refused(gdn_session_load(f, NULL, models[0], NULL, NULL, &err), GDN_E_IO, &err, models[0]);
    refused(gdn_session_load(f, NULL, MODELS "dense-mtp/config.json", NULL, NULL, &err),
            GDN_E_FORMAT, &err, "no saved session");
    gdn_engine_free(e), gdn_engine_free(f);
    gdn_model_close(m);
    free(ids), free(kept.b);
}

/* Two processes save to one name and are killed at any moment: what is there is whole. */
static void test_kill(void **state) {
    (void)state;
    gdn_model *m = open_model(models[0], GDN_MATH_FAST, 1);
    int32_t *ids = random_ids(60, VOCAB, 3);
    static const int32_t at[] = {10, 40};
    gdn_engine *e = engine(m, 300, 0, 2, MANY), *f = engine(m, 300, 0, 2, MANY);
    fill(e, NULL, ids, at, 2);
    save(e, ids, 45, "0");
    for (int round = 0; round < (SANITIZED ? 4 : 20); round++) {
        pid_t child[2];
        for (int i = 0; i < 2; i++) {
            child[i] = fork();
            assert_true(child[i] >= 0);
            if (child[i] > 0) continue;
            gdn_err err;
            for (;;)
                if (gdn_session_save(e, NULL, ids, 45, &"12"[i], 1, path, &err) != GDN_OK) _exit(1);
        }
        usleep((useconds_t)(1000 + 1700 * round % 9000));
        for (int i = 0; i < 2; i++) {
            int status;
            kill(child[i], SIGKILL);
            assert_int_equal(waitpid(child[i], &status, 0), child[i]);
            if (WIFEXITED(status)) fail_msg("saving failed in a child");
        }
        gdn_err err;
        void *note;
        size_t n;
        must(gdn_session_load(f, NULL, path, &note, &n, &err), &err);
        assert_int_equal(n, 1);
        free(note);
    }
    gdn_engine_free(e), gdn_engine_free(f);
    gdn_model_close(m);
    free(ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_again),
        cmocka_unit_test(test_requests),   cmocka_unit_test(test_room),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_lies),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_foreign),    cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_fingerprint), cmocka_unit_test(test_files),
        cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
