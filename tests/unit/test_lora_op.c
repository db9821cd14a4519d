/* test_lora_op.c - gdn_op_lora() of the cpu: sums in double, and refusals. */
#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

#include "../../src/base/half.h"

static uint64_t rng;
static float draw(void) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)((int)((rng >> 40) % 127) - 63) / 64;
}

enum { OP_ROWS = 70, OP_K = 40, OP_N = 300, OP_RANK = 7 };

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
    gdn_buffer *buf;
    gdn_lora    lora[3];
    gdn_lora_op_args a;
} op_case;

static gdn_tensor op_tensor(op_case *c, uint64_t *at, gdn_type type, int64_t rows, int64_t cols) {
    const int64_t shape[2] = {rows, cols};
    const gdn_tensor t = gdn_tensor_dense(c->buf, *at, type, cols > 0 ? 2 : 1, shape);
    *at += (uint64_t)(rows * (cols > 0 ? cols : 1)) * (uint64_t)gdn_type_bytes(type);
    *at = (*at + 63) / 64 * 64;
    return t;
}

static void *op_host(const gdn_tensor *t) { return (char *)gdn_buffer_host(t->buf) + t->at; }

/* Rows in turn with adapter 0, 1, 2 (which leaves this matrix alone) and none. */
static void op_open(op_case *c, int threads, gdn_type x) {
    char name[16];
    gdn_err err;
    uint64_t at = 0;
    *c = (op_case){.d = NULL};
    snprintf(name, sizeof name, "cpu:%d", threads);
    must(gdn_device_open(name, NULL, &c->d, &err), &err);
    must(gdn_queue_create(c->d, &c->q, &err), &err);
    must(gdn_buffer_alloc(c->d, 1 << 20, &c->buf, &err), &err);
    c->a.y = op_tensor(c, &at, GDN_F32, OP_ROWS, OP_N);
    c->a.x = op_tensor(c, &at, x, OP_ROWS, OP_K);
    c->a.adapter = op_tensor(c, &at, GDN_I32, OP_ROWS, 0);
    c->a.work = op_tensor(c, &at, GDN_F32, OP_ROWS, OP_RANK + 1);
    for (int i = 0; i < 2; i++) {
        c->lora[i].a = op_tensor(c, &at, GDN_F32, OP_RANK - i, OP_K);
        c->lora[i].b = op_tensor(c, &at, GDN_F32, OP_N, OP_RANK - i);
        c->lora[i].scale = i == 0 ? 0.5f : -2.0f;
    }
    c->a.lora = c->lora;
    c->a.n_lora = 3;
    rng = 9;
    float *v = gdn_buffer_host(c->buf);
    for (uint64_t i = 0; i < at / 4; i++) v[i] = draw();
    for (int i = 0; i < OP_ROWS; i++) ((int32_t *)op_host(&c->a.adapter))[i] = i % 4 == 3 ? -1 : i % 4;
    for (int i = 0; i < OP_ROWS * OP_K && x == GDN_BF16; i++)
        ((uint16_t *)op_host(&c->a.x))[i] = gdn_f32_to_bf16(draw());
}

static void op_close(op_case *c) {
    gdn_buffer_free(c->buf);
    gdn_queue_free(c->q);
    gdn_device_close(c->d);
}

static void test_op_values(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int threads = 1; threads <= 3; threads++) {
            op_case c;
            gdn_err err;
            op_open(&c, threads, bf16 ? GDN_BF16 : GDN_F32);
            float *y = op_host(&c.a.y), *before = malloc(OP_ROWS * OP_N * sizeof *before);
            assert_non_null(before);
            memcpy(before, y, OP_ROWS * OP_N * sizeof *before);
            must(gdn_op_lora(c.q, &c.a, &err), &err);
            must(gdn_queue_wait(c.q, &err), &err);
            for (int i = 0; i < OP_ROWS; i++)
                for (int n = 0; n < OP_N; n++) {
                    const gdn_lora *l = i % 4 < 2 ? &c.lora[i % 4] : NULL;
                    double want = (double)before[i * OP_N + n];
                    for (int r = 0; l != NULL && r < l->a.shape[0]; r++) {
                        double u = 0;
                        for (int k = 0; k < OP_K; k++) {
                            const int at = i * OP_K + k;
                            const float x = bf16 ? gdn_bf16_to_f32(((uint16_t *)op_host(&c.a.x))[at])
                                                 : ((float *)op_host(&c.a.x))[at];
                            u += (double)x * (double)((float *)op_host(&l->a))[r * OP_K + k];
                        }
                        want += (double)l->scale * u *
                                (double)((float *)op_host(&l->b))[n * (int)l->a.shape[0] + r];
                    }
                    if (l == NULL ? y[i * OP_N + n] != before[i * OP_N + n]
                                  : !(fabs(want - (double)y[i * OP_N + n]) < 1e-4))
                        fail_msg("row %d, output %d: %g, not %g", i, n, (double)y[i * OP_N + n], want);
                }
            free(before);
            op_close(&c);
        }
}

static void op_refused(op_case *c, const char *words) {
    gdn_err err = {0};
    float *y = op_host(&c->a.y), first = y[0];
    assert_int_equal(gdn_op_lora(c->q, &c->a, &err), GDN_E_INVALID);
    if (strstr(err.text, words) == NULL) fail_msg("\"%s\", expected \"%s\"", err.text, words);
    assert_true(y[0] == first);
}

static void test_op_refusals(void **state) {
    (void)state;
    op_case c;
    op_open(&c, 1, GDN_F32);
    const gdn_lora_op_args good = c.a;
    int32_t *index = op_host(&c.a.adapter);
    index[5] = 3;
    op_refused(&c, "adapter[5] is 3 of 3");
    index[5] = 1;
    c.a.row = op_tensor(&c, &(uint64_t){900000}, GDN_I32, OP_ROWS, 0);
    int32_t *row = op_host(&c.a.row);
    memset(row, 0, OP_ROWS * sizeof *row);
    row[2] = OP_ROWS;
    op_refused(&c, "row[2] is 70 of 70");
    row[2] = -1;
    op_refused(&c, "row[2] is -1 of 70");
    c.a = good;
    c.a.adapter = gdn_tensor_slice(c.a.adapter, 0, 0, 69);
    op_refused(&c, "69 adapters for 70 rows");
    c.a = good;
    c.a.work = gdn_tensor_slice(c.a.work, 1, 0, OP_RANK - 1);
    op_refused(&c, "rank 7 with work of 6 columns");
    c.a = good;
    c.a.work.at = c.a.x.at;
    op_refused(&c, "work overlaps x");
    c.a = good;
    c.a.lora = NULL;
    op_refused(&c, "3 adapters");
    c.a = good;
    c.lora[1].b = gdn_tensor_slice(c.lora[1].b, 0, 0, OP_N - 1);
    op_refused(&c, "lora_b has shape [299, 6], need [300, 6]");
    c.lora[1].b = c.lora[0].b;
    op_refused(&c, "lora_b has shape [300, 7], need [300, 6]");
    c.lora[1].b.buf = NULL;
    op_refused(&c, "lora_b is missing");
    c.lora[1] = c.lora[0];
    c.lora[0].a = gdn_tensor_slice(c.lora[0].a, 1, 0, OP_K - 1);
    op_refused(&c, "lora_a has shape");
    c.lora[0].a = gdn_tensor_slice(c.lora[1].a, 0, 0, 0);
    c.lora[0].b = gdn_tensor_slice(c.lora[1].b, 1, 0, 0);
    op_refused(&c, "rank 0");
    op_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_op_values),
        cmocka_unit_test(test_op_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
