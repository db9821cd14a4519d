/* test_op.c - operators refuse arguments that would make a device read or write elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
    gdn_buffer *b; /* one megabyte of zeros */
} fixture;

static fixture f;

static int setup(void **state) {
    (void)state;
    gdn_err err;
    return gdn_device_open("cpu:2", NULL, &f.d, &err) != GDN_OK ||
           gdn_queue_create(f.d, &f.q, &err) != GDN_OK ||
           gdn_buffer_alloc(f.d, 1 << 20, &f.b, &err) != GDN_OK;
}

static int teardown(void **state) {
    (void)state;
    gdn_buffer_free(f.b);
    gdn_queue_free(f.q);
    gdn_device_close(f.d);
    return 0;
}

static gdn_tensor dense(uint64_t at, gdn_type type, int32_t ndim, int64_t a, int64_t b, int64_t c,
                        int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    return gdn_tensor_dense(f.b, at, type, ndim, shape);
}

static void refused(gdn_status st, const gdn_err *err, const char *word) {
    if (st != GDN_E_INVALID) fail_msg("'%s' was not refused", word);
    if (strstr(err->text, word) == NULL) fail_msg("'%s' does not say '%s'", err->text, word);
}

static void test_tensors(void **state) {
    (void)state;
    gdn_err err;
    const gdn_rms_norm_args good = {.y = dense(0, GDN_F32, 2, 4, 8, 0, 0),
                                    .x = dense(4096, GDN_F32, 2, 4, 8, 0, 0),
                                    .w = dense(8192, GDN_F32, 1, 8, 0, 0, 0),
                                    .eps = 1e-6f};
    assert_int_equal(gdn_op_rms_norm(f.q, &good, &err), GDN_OK);
    gdn_rms_norm_args a = good;
    a.w.shape[0] = 7;
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "w has shape [7], need [8]");
    a = good;
    a.x.type = GDN_I32;
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "x has type i32");
    a = good;
    a.x.at = (1 << 20) - 64;
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "x ends at byte");
    a = good;
    a.x = gdn_tensor_slice(a.x, 0, -200, -196); /* begins before the buffer */
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "x begins at byte");
    a = good;
    a.x.stride[0] = INT64_MAX - 3;
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "x");
    a = good;
    a.x.stride[1] = 8;
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "stride 8 in dimension 1");
    a = good;
    a.x.at += 2;
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "x");
    a = good;
    a.y.buf = NULL;
    refused(gdn_op_rms_norm(f.q, &a, &err), &err, "y is missing");
}

static int32_t *int_at(uint64_t at) { return (int32_t *)(void *)((char *)gdn_buffer_host(f.b) + at); }

static gdn_kv_layout layout(int64_t n_seq) {
    return (gdn_kv_layout){.seq_start = dense(0, GDN_I32, 1, n_seq + 1, 0, 0, 0),
                           .n_past = dense(256, GDN_I32, 1, n_seq, 0, 0, 0),
                           .page = dense(512, GDN_I32, 2, n_seq, 2, 0, 0),
                           .block_size = 16};
}

static void test_layout(void **state) {
    (void)state;
    gdn_err err;
    memset(gdn_buffer_host(f.b), 0, 4096);
    gdn_attn_args a = {.y = dense(8192, GDN_F32, 3, 5, 2, 8, 0),
                            .q = dense(12288, GDN_F32, 3, 5, 2, 8, 0),
                            .k_page = dense(65536, GDN_F32, 4, 3, 1, 16, 8),
                            .v_page = dense(131072, GDN_F32, 4, 3, 1, 16, 8),
                            .kv = layout(1),
                            .scale = 1};
    int_at(0)[1] = 5;
    int_at(512)[0] = 1;
    assert_int_equal(gdn_op_attn(f.q, &a, &err), GDN_OK);
    int_at(0)[0] = 3;
    refused(gdn_op_attn(f.q, &a, &err), &err, "seq_start[0] is 3");
    int_at(0)[0] = 0;
    int_at(0)[1] = 6;
    refused(gdn_op_attn(f.q, &a, &err), &err, "seq_start[1] is 6");
    int_at(0)[1] = 5;
    int_at(512)[0] = 3;
    refused(gdn_op_attn(f.q, &a, &err), &err, "page[0][0] is 3 of 3 pages");
    int_at(512)[0] = -1;
    refused(gdn_op_attn(f.q, &a, &err), &err, "page[0][0] is -1");
    int_at(512)[0] = 1;
    int_at(256)[0] = 30;
    refused(gdn_op_attn(f.q, &a, &err), &err, "needs 35 tokens, its pages hold 32");
    int_at(256)[0] = -1;
    refused(gdn_op_attn(f.q, &a, &err), &err, "attention");
    int_at(256)[0] = 0;
    a.kv.block_size = 17;
    refused(gdn_op_attn(f.q, &a, &err), &err, "attention");
    a.kv.block_size = 16;
    a.q.shape[1] = a.y.shape[1] = 0;
    refused(gdn_op_attn(f.q, &a, &err), &err, "0 query heads");
}

static void test_core(void **state) {
    (void)state;
    gdn_err err;
    memset(gdn_buffer_host(f.b), 0, 4096);
    const int64_t T = 2, hk = 1, hv = 2, dk = 8, dv = 8, C = 2 * hk * dk + hv * dv;
    gdn_core_args a = {.core = dense(8192, GDN_F32, 3, T, hv, dv, 0),
                       .qkv = dense(12288, GDN_F32, 2, T, C, 0, 0),
                       .b = dense(16384, GDN_F32, 2, T, hv, 0, 0),
                       .a = dense(20480, GDN_F32, 2, T, hv, 0, 0),
                       .conv_state = dense(65536, GDN_F32, 3, 2, 3, C, 0),
                       .ssm_state = dense(131072, GDN_F32, 4, 2, hv, dv, dk),
                       .conv_w = dense(24576, GDN_F32, 2, 4, C, 0, 0),
                       .A_log = dense(28672, GDN_F32, 1, hv, 0, 0, 0),
                       .dt_bias = dense(28928, GDN_F32, 1, hv, 0, 0, 0),
                       .seq_start = dense(0, GDN_I32, 1, 2, 0, 0, 0),
                       .slot = dense(256, GDN_I32, 1, 1, 0, 0, 0),
                       .has_state = dense(512, GDN_I32, 1, 1, 0, 0, 0),
                       .work_qkv = dense(32768, GDN_F32, 2, T, C, 0, 0),
                       .work_gate = dense(36864, GDN_F32, 3, T, 2, hv, 0),
                       .hk = (int32_t)hk,
                       .dk = (int32_t)dk};
    int_at(0)[1] = 2;
    assert_int_equal(gdn_op_gdn_core(f.q, &a, &err), GDN_OK);
    int_at(256)[0] = 2;
    refused(gdn_op_gdn_core(f.q, &a, &err), &err, "slot[0] is 2 of 2");
    int_at(256)[0] = -1;
    refused(gdn_op_gdn_core(f.q, &a, &err), &err, "slot[0] is -1");
    int_at(256)[0] = 0;
    int_at(0)[1] = 3;
    refused(gdn_op_gdn_core(f.q, &a, &err), &err, "seq_start[1] is 3");
    int_at(0)[1] = 2;
    gdn_core_args bad = a;
    bad.work_gate.stride[1] = 0;
    refused(gdn_op_gdn_core(f.q, &bad, &err), &err, "gaps");
    bad = a;
    bad.conv_w.stride[0] = 0;
    refused(gdn_op_gdn_core(f.q, &bad, &err), &err, "gaps");
    bad = a;
    bad.hk = 3;
    refused(gdn_op_gdn_core(f.q, &bad, &err), &err, "2 value heads over 3 key heads");
    bad = a;
    bad.dk = 4;
    refused(gdn_op_gdn_core(f.q, &bad, &err), &err, "dk is 4");
    const gdn_rope_angles_args r = {.cs = {.buf = f.b, .type = GDN_F32, .ndim = 2, .shape = {2, 4},
                                           .stride = {0, 4}},
                                    .pos = dense(0, GDN_I32, 2, 2, 3, 0, 0),
                                    .theta = 1e4};
    refused(gdn_op_rope_angles(f.q, &r, &err), &err, "gaps");
}

static void test_embed_and_weights(void **state) {
    (void)state;
    gdn_err err;
    gdn_weight *w = NULL;
    static const uint8_t code[64 * 8];
    static const float scale[1] = {2};
    gdn_weight_part p = {.data = code, .n_row = 64, .row_bytes = 8, .scale = scale,
                         .scale_type = GDN_F32};
    gdn_weight_desc d = {.type = GDN_F8, .n_expert = 1, .n = 64, .k = 8, .scale_rows = 64,
                         .scale_cols = 8, .part = &p, .n_part = 1};
    d.scale_cols = 0;
    refused(gdn_weight_create(f.d, &d, &w, &err), &err, "blocks of 64 x 0");
    d.scale_cols = 8;
    d.type = GDN_I32;
    refused(gdn_weight_create(f.d, &d, &w, &err), &err, "type i32");
    d.type = GDN_F8;
    p.n_row = -64;
    refused(gdn_weight_create(f.d, &d, &w, &err), &err, "part 0");
    p.n_row = 32;
    refused(gdn_weight_create(f.d, &d, &w, &err), &err, "parts of 32 rows, need 64");
    p.n_row = 64;
    p.scale = NULL;
    refused(gdn_weight_create(f.d, &d, &w, &err), &err, "part 0");
    p.scale = scale;
    p.row_bytes = 7;
    refused(gdn_weight_create(f.d, &d, &w, &err), &err, "part 0");
    p.row_bytes = 8;
    assert_int_equal(gdn_weight_create(f.d, &d, &w, &err), GDN_OK);
    int_at(0)[0] = 3;
    gdn_embed_args a = {.y = dense(4096, GDN_F32, 2, 1, 8, 0, 0),
                        .ids = dense(0, GDN_I32, 1, 1, 0, 0, 0),
                        .weight = w};
    refused(gdn_op_embed(f.q, &a, &err), &err, "weight");
    a.weight = NULL;
    a.table = dense(8192, GDN_F32, 2, 3, 8, 0, 0);
    refused(gdn_op_embed(f.q, &a, &err), &err, "ids[0] is 3, need 0 to 2");
    int_at(0)[0] = 2;
    assert_int_equal(gdn_op_embed(f.q, &a, &err), GDN_OK);
    gdn_weight_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_core),
        cmocka_unit_test(test_embed_and_weights),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
