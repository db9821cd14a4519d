/* test_xpu_attn_x.c - attention of tier X (attn_prefill_xmx_xpu.cl) by the model of its engine: against
 * double arithmetic on the same bf16 values, and the same bits however rows are put into calls. */
#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

#include "../../src/backend/xpu_x.h"
#include "../../src/base/half.h"
#include "opencl.h"

enum { D = 256, PAGE = 32, TABLE = 18, WIDE = 200000, SEQS = 4 };

static gdn_device *device;
static gdn_queue  *queue;
static uint64_t rng;

static float uniform(float lo, float hi) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (float)(rng >> 40) * 0x1p-24f;
}

/* Rows of sequences: across a block's end, none, behind two blocks, at the beginning. */
static const int32_t start[SEQS + 1] = {0, 10, 10, 11, 14}, past[SEQS] = {250, 7, 520, 0};
enum { ROWS = 14, PAGES = SEQS * TABLE + 1 };

typedef struct {
    int64_t  hq, hkv;
    gdn_type y_type;
    bool     gated;
    uint16_t *q, *k, *v; /* as on the device */
    float    *gate;
    gdn_buffer *qs, *ks, *vs, *gates;
} attention;

static const float scale = 0.3f;

static int32_t page_of(int s, int block) { return (s * TABLE + block) * 7 % PAGES; }

/* Element 0 of a key or value. */
static int64_t at(const attention *a, int s, int pos, int64_t hk) {
    return ((page_of(s, pos / PAGE) * a->hkv + hk) * PAGE + pos % PAGE) * D;
}

static gdn_buffer *upload(const void *p, size_t bytes) {
    gdn_buffer *b;
    gdn_err err;
    must(gdn_buffer_alloc(device, bytes, &b, &err), &err);
    must(gdn_queue_write(queue, b, 0, p, bytes, &err), &err);
    return b;
}

static attention begin(const char *tier, int64_t hq, int64_t hkv, gdn_type y_type, bool gated) {
    attention a = {.hq = hq, .hkv = hkv, .y_type = y_type, .gated = gated};
    const size_t nq = (size_t)(ROWS * hq * D), nk = (size_t)(PAGES * hkv * PAGE * D);
    gdn_err err;
    setenv("GDN_XPU_TIER", tier, 1);
    must(gdn_device_open("xpu", NULL, &device, &err), &err);
    must(gdn_queue_create(device, &queue, &err), &err);
    rng = 1;
    a.q = malloc(nq * 2), a.gate = malloc(nq * 4), a.k = malloc(nk * 2), a.v = malloc(nk * 2);
    assert_true(a.q != NULL && a.gate != NULL && a.k != NULL && a.v != NULL);
    for (size_t i = 0; i < nq; i++) {
        a.q[i] = gdn_f32_to_bf16(uniform(-1, 1));
        a.gate[i] = uniform(-3, 3);
    }
    for (size_t i = 0; i < nk; i++) a.k[i] = a.v[i] = 0x7fc0; /* NaN where no key is */
    for (int s = 0; s < SEQS; s++)
        for (int pos = 0; pos < past[s] + start[s + 1] - start[s]; pos++)
            for (int64_t h = 0; h < hkv; h++)
                for (int i = 0; i < D; i++) {
                    a.k[at(&a, s, pos, h) + i] = gdn_f32_to_bf16(uniform(-1, 1));
                    a.v[at(&a, s, pos, h) + i] = gdn_f32_to_bf16(uniform(-1, 1));
                }
    a.qs = upload(a.q, nq * 2), a.gates = upload(a.gate, nq * 4);
    a.ks = upload(a.k, nk * 2), a.vs = upload(a.v, nk * 2);
    return a;
}

static void end(attention *a) {
    free(a->q), free(a->k), free(a->v), free(a->gate);
    gdn_buffer_free(a->qs), gdn_buffer_free(a->ks);
    gdn_buffer_free(a->vs), gdn_buffer_free(a->gates);
    gdn_queue_free(queue);
    gdn_device_close(device);
    unsetenv("GDN_XPU_TIER");
}

/* Rows first .. first + n - 1 of sequence s, or all of all when s is negative.  Pages have `table`
 * places; bad: one of a sequence's is outside the pages. */
static gdn_status run(const attention *a, int s, int first, int n, int64_t table, bool bad,
                      void *out, gdn_err *err) {
    const int64_t rows[] = {n, a->hq, D}, pool[] = {PAGES, a->hkv, PAGE, D};
    const int64_t n_seq = s < 0 ? SEQS : 1, ends = n_seq + 1, places[] = {n_seq, table};
    const int32_t one_start[] = {0, n}, one_past[] = {s < 0 ? 0 : past[s] + first - start[s]};
    const size_t bytes = (size_t)(n * a->hq * D) * (size_t)gdn_type_bytes(a->y_type);
    int32_t *page = malloc((size_t)(n_seq * table) * sizeof *page);
    assert_non_null(page);
    for (int64_t i = 0; i < n_seq * table; i++)
        page[i] = i % table < TABLE ? page_of(s < 0 ? (int)(i / table) : s, (int)(i % table)) : 9999;
    if (bad) page[1] = PAGES;
    gdn_buffer *pages = upload(page, (size_t)(n_seq * table) * sizeof *page);
    gdn_buffer *starts = upload(s < 0 ? start : one_start, (size_t)ends * 4);
    gdn_buffer *lengths = upload(s < 0 ? past : one_past, (size_t)n_seq * 4), *y;
    must(gdn_buffer_alloc(device, bytes, &y, err), err);
    gdn_attn_args args = {
        .y = gdn_tensor_dense(y, 0, a->y_type, 3, rows), .scale = scale,
        .q = gdn_tensor_dense(a->qs, (uint64_t)(first * a->hq * D) * 2, GDN_BF16, 3, rows),
        .k_page = gdn_tensor_dense(a->ks, 0, GDN_BF16, 4, pool),
        .v_page = gdn_tensor_dense(a->vs, 0, GDN_BF16, 4, pool),
        .kv = {.seq_start = gdn_tensor_dense(starts, 0, GDN_I32, 1, &ends),
               .n_past = gdn_tensor_dense(lengths, 0, GDN_I32, 1, &n_seq),
               .page = gdn_tensor_dense(pages, 0, GDN_I32, 2, places), .block_size = PAGE}};
    if (a->gated)
        args.gate = gdn_tensor_dense(a->gates, (uint64_t)(first * a->hq * D) * 4, GDN_F32, 3, rows);
    must(gdn_op_attn(queue, &args, err), err);
    must(gdn_queue_read(queue, out, y, 0, bytes, err), err);
    const gdn_status st = gdn_queue_wait(queue, err);
    gdn_buffer_free(y), gdn_buffer_free(pages);
    gdn_buffer_free(starts), gdn_buffer_free(lengths);
    free(page);
    return st;
}

static double number(const attention *a, const char *y, int64_t i) {
    if (a->y_type == GDN_F32) return (double)((const float *)(const void *)y)[i];
    return (double)gdn_bf16_to_f32(((const uint16_t *)(const void *)y)[i]);
}

/* A row's head against double arithmetic; weights are rounded to bf16, and so may y be. */
static void check(const attention *a, const char *y, int row, int64_t h) {
    int s = 0;
    while (row >= start[s + 1]) s++;
    const int n = past[s] + row - start[s] + 1;
    const int64_t hk = h / (a->hq / a->hkv), from = (row * a->hq + h) * D;
    double score[600], want[D] = {0}, most = -INFINITY, sum = 0, square = 0, worst = 0;
    for (int j = 0; j < n; j++) {
        score[j] = 0;
        for (int i = 0; i < D; i++)
            score[j] += (double)gdn_bf16_to_f32(a->q[from + i]) *
                        (double)gdn_bf16_to_f32(a->k[at(a, s, j, hk) + i]);
        score[j] *= (double)scale;
        most = fmax(most, score[j]);
    }
    for (int j = 0; j < n; j++) sum += score[j] = exp(score[j] - most);
    for (int i = 0; i < D; i++) {
        for (int j = 0; j < n; j++)
            want[i] += score[j] / sum * (double)gdn_bf16_to_f32(a->v[at(a, s, j, hk) + i]);
        if (a->gated) want[i] /= 1 + exp(-(double)a->gate[from + i]);
        square += want[i] * want[i];
        worst = fmax(worst, fabs(number(a, y, from + i) - want[i]));
        if (!isfinite(number(a, y, from + i))) worst = INFINITY;
    }
    if (!(worst <= 1e-2 * sqrt(square / D)))
        fail_msg("%d/%d heads: row %d, head %d is off by %g of %g", (int)a->hq, (int)a->hkv, row,
                 (int)h, worst, sqrt(square / D));
}

static void attend(const char *tier, int64_t hq, int64_t hkv, gdn_type y_type, bool gated) {
    attention a = begin(tier, hq, hkv, y_type, gated);
    const size_t row_bytes = (size_t)(hq * D) * (size_t)gdn_type_bytes(y_type);
    char *all = malloc(ROWS * row_bytes), *other = malloc(ROWS * row_bytes);
    gdn_err err;
    assert_true(all != NULL && other != NULL);
    must(run(&a, -1, 0, ROWS, TABLE, false, all, &err), &err); /* blocks of their own */
    for (int row = 0; row < ROWS; row++)
        for (int64_t h = row % 3; h < hq; h += 3) check(&a, all, row, h);
    must(run(&a, -1, 0, ROWS, WIDE, false, other, &err), &err); /* too many for that */
    assert_memory_equal(other, all, ROWS * row_bytes);
    for (int s = 0; s < SEQS; s++)
        for (int row = start[s], n; row < start[s + 1]; row += n) { /* 1, 5, 1, 5 ... */
            const bool alone = (row - start[s]) % 6 == 0;
            n = alone ? 1 : 5 < start[s + 1] - row ? 5 : start[s + 1] - row;
            must(run(&a, s, row, n, TABLE, false, other, &err), &err);
            if (memcmp(other, all + (size_t)row * row_bytes, (size_t)n * row_bytes) != 0)
                fail_msg("%s, %d/%d heads: rows %d to %d have other bits by themselves", tier,
                         (int)hq, (int)hkv, row, row + n - 1);
        }
    assert_int_equal(run(&a, -1, 0, ROWS, TABLE, true, other, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "outside the pages"));
    free(all), free(other);
    end(&a);
}

static void test_attention(void **state) {
    (void)state;
    attend("emulated", 8, 1, GDN_F32, true);
    attend("emulated", 2, 2, GDN_BF16, false);
    attend("emulated8", 4, 1, GDN_F32, false);
}

int main(void) {
    opencl_quickly();
    const int stop = opencl_begin();
    if (stop != 0) return stop;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention)};
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    opencl_end();
    return rc;
}
