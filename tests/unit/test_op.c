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
    /* Sizes whose products leave int64_t, in tensors without elements or with a stride of zero. */
    const int64_t huge = INT64_MAX - 3;
    const gdn_swiglu_op_args s = {.y = dense(0, GDN_F32, 2, 0, huge, 0, 0),
                                  .x = dense(0, GDN_F32, 2, 0, -8, 0, 0)};
    refused(gdn_op_swiglu(f.q, &s, &err), &err, "y has size 9223372036854775804 in dimension 1");
    gdn_core_args c = {.core = dense(0, GDN_F32, 3, 2, 1, 8, 0), .hk = 1, .dk = 8};
    c.core.shape[1] = huge;
    c.core.stride[1] = 0;
    refused(gdn_op_gdn_core(f.q, &c, &err), &err, "core has size 9223372036854775804 in dimension 1");
    c.core.shape[1] = INT32_MAX;
    refused(gdn_op_gdn_core(f.q, &c, &err), &err, "qkv is missing");
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

/* --- what lies on what ---------------------------------------------------------------------- */

static uint64_t used; /* bytes of the buffer that tensors of a call have */

static gdn_tensor next(gdn_type type, int32_t ndim, int64_t a, int64_t b, int64_t c, int64_t d) {
    const gdn_tensor t = dense(used, type, ndim, a, b, c, d);
    used += (uint64_t)(t.shape[0] * t.stride[0] + 255) / 256 * 256;
    return t;
}

static gdn_weight *weight(int32_t n_expert, int32_t n, int32_t k) {
    static const float data[512];
    gdn_weight_part part[4];
    for (int i = 0; i < n_expert; i++)
        part[i] = (gdn_weight_part){.data = data, .n_row = n, .row_bytes = k * 4};
    const gdn_weight_desc d = {.type = GDN_F32, .n_expert = n_expert, .n = n, .k = k, .part = part,
                               .n_part = 1};
    gdn_weight *w = NULL;
    gdn_err err;
    if (gdn_weight_create(f.d, &d, &w, &err) != GDN_OK) fail_msg("%s", err.text);
    return w;
}

/* The call is right, and refused once `in` begins where the output does. */
#define GOOD(call, a)                                                                     \
    do {                                                                                  \
        if (call(f.q, &a, &err) != GDN_OK) fail_msg("%s", err.text);                      \
    } while (0)
#define MEET(call, good, out, in)                                                         \
    do {                                                                                  \
        __typeof__(good) x = good;                                                        \
        x.in.at = x.out.at;                                                               \
        const char *field = strrchr(#in, '.');                                            \
        char word[64] = #out " overlaps ";                                                \
        strcat(word, field != NULL ? field + 1 : #in);                                    \
        refused(call(f.q, &x, &err), &err, word);                                         \
    } while (0)

static void test_apart_rows(void **state) {
    (void)state;
    gdn_err err;
    memset(gdn_buffer_host(f.b), 0, 1 << 20);
    used = 0;
    gdn_weight *w = weight(1, 8, 16);
    gdn_embed_args e = {.y = next(GDN_F32, 2, 3, 16, 0, 0), .ids = next(GDN_I32, 1, 3, 0, 0, 0),
                        .table = next(GDN_F32, 2, 8, 16, 0, 0)};
    GOOD(gdn_op_embed, e);
    MEET(gdn_op_embed, e, y, ids);
    MEET(gdn_op_embed, e, y, table);
    e.weight = w;
    GOOD(gdn_op_embed, e);
    MEET(gdn_op_embed, e, y, ids);

    gdn_rms_norm_args n = {.y = e.y, .x = next(GDN_F32, 2, 3, 16, 0, 0),
                           .z = next(GDN_F32, 2, 3, 16, 0, 0), .w = next(GDN_F32, 1, 16, 0, 0, 0), .eps = 1e-6f};
    GOOD(gdn_op_rms_norm, n);
    MEET(gdn_op_rms_norm, n, y, w);
    gdn_rms_norm_args in_place = n;
    in_place.y = n.x;
    GOOD(gdn_op_rms_norm, in_place);
    in_place.x.at += 4;
    refused(gdn_op_rms_norm(f.q, &in_place, &err), &err, "y overlaps x and is not x itself");
    in_place.x = n.x;
    in_place.y = dense(n.x.at, GDN_BF16, 2, 3, 16, 0, 0);
    refused(gdn_op_rms_norm(f.q, &in_place, &err), &err, "y overlaps x and is not x itself");
    in_place.y = n.z;
    GOOD(gdn_op_rms_norm, in_place);

    gdn_cast_args half = {.y = dense(n.x.at, GDN_BF16, 2, 3, 16, 0, 0),
                          .x = dense(n.x.at, GDN_F16, 2, 3, 16, 0, 0)};
    refused(gdn_op_cast(f.q, &half, &err), &err, "y overlaps x and is not x itself");
    half.x.type = GDN_BF16;
    GOOD(gdn_op_cast, half);

    gdn_linear_op_args l = {.y = next(GDN_F32, 2, 3, 8, 0, 0), .x = n.x,
                            .row = next(GDN_I32, 1, 3, 0, 0, 0), .w = w};
    GOOD(gdn_op_linear, l);
    MEET(gdn_op_linear, l, y, x);
    MEET(gdn_op_linear, l, y, row);
    gdn_linear_op_args columns = l; /* y behind x in the rows of one matrix */
    const gdn_tensor both = next(GDN_F32, 2, 3, 24, 0, 0);
    columns.x = gdn_tensor_slice(both, 1, 0, 16), columns.y = gdn_tensor_slice(both, 1, 16, 24);
    GOOD(gdn_op_linear, columns);
    columns.y.at -= 4;
    refused(gdn_op_linear(f.q, &columns, &err), &err, "y overlaps x");

    gdn_project_args p = {.y = l.y, .x = n.x, .z = n.z, .norm_w = n.w, .w = w,
                          .work_x = next(GDN_F32, 2, 3, 16, 0, 0), .eps = 1e-6f};
    GOOD(gdn_op_project, p);
    MEET(gdn_op_project, p, y, x);
    MEET(gdn_op_project, p, y, work_x);
    MEET(gdn_op_project, p, work_x, z);
    MEET(gdn_op_project, p, work_x, norm_w);
    p.swiglu = true;
    p.y = next(GDN_F32, 2, 3, 4, 0, 0), p.work_y = next(GDN_F32, 2, 3, 8, 0, 0);
    GOOD(gdn_op_project, p);
    MEET(gdn_op_project, p, y, work_y);
    MEET(gdn_op_project, p, work_y, work_x);
    MEET(gdn_op_project, p, work_y, x);
    p.norm_w.buf = p.z.buf = NULL;
    GOOD(gdn_op_project, p);
    MEET(gdn_op_project, p, work_y, x);
    p.swiglu = false;
    p.y = l.y;
    GOOD(gdn_op_project, p);
    MEET(gdn_op_project, p, y, x);

    gdn_rope_angles_args r = {.cs = next(GDN_F32, 2, 3, 8, 0, 0),
                                    .pos = next(GDN_I32, 2, 3, 3, 0, 0), .theta = 1e4};
    GOOD(gdn_op_rope_angles, r);
    MEET(gdn_op_rope_angles, r, cs, pos);
    gdn_swiglu_op_args s = {.y = l.y, .x = next(GDN_F32, 2, 3, 16, 0, 0)};
    GOOD(gdn_op_swiglu, s);
    MEET(gdn_op_swiglu, s, y, x);
    gdn_top_k_args k = {.value = next(GDN_F32, 2, 3, 4, 0, 0), .id = next(GDN_I32, 2, 3, 4, 0, 0),
                              .found = next(GDN_I32, 1, 3, 0, 0, 0),
                              .min = next(GDN_F32, 1, 3, 0, 0, 0), .x = s.x,
                              .n_valid = next(GDN_I32, 1, 3, 0, 0, 0)};
    GOOD(gdn_op_top_k, k);
    MEET(gdn_op_top_k, k, value, id);
    MEET(gdn_op_top_k, k, found, min);
    MEET(gdn_op_top_k, k, min, x);
    MEET(gdn_op_top_k, k, id, n_valid);
    gdn_weight_free(w);
}

static void test_apart_sequences(void **state) {
    (void)state;
    gdn_err err;
    memset(gdn_buffer_host(f.b), 0, 1 << 20);
    used = 4096; /* behind layout() */
    gdn_attn_store_args s = {.q_out = next(GDN_F32, 3, 5, 2, 8, 0),
                             .k_page = next(GDN_F32, 4, 3, 1, 16, 8),
                             .v_page = next(GDN_F32, 4, 3, 1, 16, 8),
                             .q = next(GDN_F32, 3, 5, 2, 8, 0), .k = next(GDN_F32, 3, 5, 1, 8, 0),
                             .v = next(GDN_F32, 3, 5, 1, 8, 0), .q_norm = next(GDN_F32, 1, 8, 0, 0, 0),
                             .k_norm = next(GDN_F32, 1, 8, 0, 0, 0),
                             .cs = next(GDN_F32, 2, 5, 4, 0, 0), .kv = layout(1), .eps = 1e-6f};
    int_at(0)[1] = 5;
    GOOD(gdn_op_attn_store, s);
    MEET(gdn_op_attn_store, s, q_out, q);
    MEET(gdn_op_attn_store, s, k_page, v_page);
    MEET(gdn_op_attn_store, s, v_page, k);
    MEET(gdn_op_attn_store, s, k_page, v);
    MEET(gdn_op_attn_store, s, q_out, q_norm);
    MEET(gdn_op_attn_store, s, q_out, k_norm);
    MEET(gdn_op_attn_store, s, q_out, cs);
    MEET(gdn_op_attn_store, s, v_page, kv.n_past);
    MEET(gdn_op_attn_store, s, k_page, kv.page);
    gdn_attn_args a = {.y = next(GDN_F32, 3, 5, 2, 8, 0), .q = s.q_out, .gate = s.q,
                       .k_page = s.k_page, .v_page = s.v_page, .kv = s.kv, .scale = 1};
    GOOD(gdn_op_attn, a);
    MEET(gdn_op_attn, a, y, q);
    MEET(gdn_op_attn, a, y, gate);
    MEET(gdn_op_attn, a, y, k_page);
    MEET(gdn_op_attn, a, y, v_page);
    a.kv.n_past.at = used; /* zeros, as y may be that is to lie on them */
    a.y.at = used;
    refused(gdn_op_attn(f.q, &a, &err), &err, "y overlaps n_past");
}

static void test_apart_core(void **state) {
    (void)state;
    gdn_err err;
    memset(gdn_buffer_host(f.b), 0, 1 << 20);
    used = 0;
    enum { T = 2, HV = 2, DK = 8, DV = 8, C = 2 * DK + HV * DV, K = 1 };
    gdn_core_args a = {.core = next(GDN_F32, 3, T, HV, DV, 0), .qkv = next(GDN_F32, 2, T, C, 0, 0),
                       .b = next(GDN_F32, 2, T, HV, 0, 0), .a = next(GDN_F32, 2, T, HV, 0, 0),
                       .conv_state = next(GDN_F32, 3, 2, 3, C, 0),
                       .ssm_state = next(GDN_F32, 4, 2, HV, DV, DK),
                       .conv_w = next(GDN_F32, 2, 4, C, 0, 0), .conv_bias = next(GDN_F32, 1, C, 0, 0, 0),
                       .A_log = next(GDN_F32, 1, HV, 0, 0, 0), .dt_bias = next(GDN_F32, 1, HV, 0, 0, 0),
                       .seq_start = next(GDN_I32, 1, 2, 0, 0, 0), .slot = next(GDN_I32, 1, 1, 0, 0, 0),
                       .has_state = next(GDN_I32, 1, 1, 0, 0, 0),
                       .line = next(GDN_F32, 3, 1, K, C + 2 * HV, 0),
                       .line_index = next(GDN_I32, 1, 1, 0, 0, 0),
                       .n_commit = next(GDN_I32, 1, 1, 0, 0, 0), .keep = next(GDN_I32, 1, 1, 0, 0, 0),
                       .spare = next(GDN_I32, 1, 1, 0, 0, 0),
                       .work_qkv = next(GDN_F32, 2, T + K, C, 0, 0),
                       .work_gate = next(GDN_F32, 3, T + K, 2, HV, 0), .hk = 1, .dk = DK};
    int_at(a.seq_start.at)[1] = T;
    GOOD(gdn_op_gdn_core, a);
    MEET(gdn_op_gdn_core, a, core, ssm_state);
    MEET(gdn_op_gdn_core, a, core, qkv);
    MEET(gdn_op_gdn_core, a, conv_state, ssm_state);
    MEET(gdn_op_gdn_core, a, conv_state, line);
    MEET(gdn_op_gdn_core, a, line, work_qkv);
    MEET(gdn_op_gdn_core, a, work_qkv, work_gate);
    MEET(gdn_op_gdn_core, a, work_qkv, qkv);
    MEET(gdn_op_gdn_core, a, work_gate, b);
    MEET(gdn_op_gdn_core, a, work_gate, a);
    MEET(gdn_op_gdn_core, a, ssm_state, conv_w);
    MEET(gdn_op_gdn_core, a, core, conv_bias);
    MEET(gdn_op_gdn_core, a, core, A_log);
    MEET(gdn_op_gdn_core, a, core, dt_bias);
    MEET(gdn_op_gdn_core, a, core, seq_start);
    MEET(gdn_op_gdn_core, a, ssm_state, slot);
    MEET(gdn_op_gdn_core, a, work_qkv, has_state);
    MEET(gdn_op_gdn_core, a, line, line_index);
    MEET(gdn_op_gdn_core, a, line, n_commit);
    MEET(gdn_op_gdn_core, a, conv_state, keep);
    MEET(gdn_op_gdn_core, a, core, spare);
    gdn_core_args bad = a;
    bad.conv_state.stride[0] = 4;
    refused(gdn_op_gdn_core(f.q, &bad, &err), &err, "rows of conv_state lie on each other");
}

static void test_apart_experts(void **state) {
    (void)state;
    gdn_err err;
    memset(gdn_buffer_host(f.b), 0, 1 << 20);
    used = 0;
    enum { T = 3, E = 4, TOP = 2, D = 8, N = 4 };
    gdn_weight *gate_up = weight(E, 2 * N, D), *down = weight(E, D, N);
    gdn_moe_route_op_args r = {.expert = next(GDN_I32, 2, T, TOP, 0, 0),
                                     .weight = next(GDN_F32, 2, T, TOP, 0, 0),
                                     .logits = next(GDN_F32, 2, T, E, 0, 0)};
    GOOD(gdn_op_moe_route, r);
    MEET(gdn_op_moe_route, r, expert, weight);
    MEET(gdn_op_moe_route, r, weight, logits);
    gdn_moe_experts_args e = {.y = next(GDN_F32, 3, T, TOP, D, 0), .x = next(GDN_F32, 2, T, D, 0, 0),
                                    .expert = r.expert, .gate_up = gate_up, .down = down,
                                    .work_gu = next(GDN_F32, 2, T * TOP, 2 * N, 0, 0),
                                    .work_h = next(GDN_F32, 2, T * TOP, N, 0, 0),
                                    .work_index = next(GDN_I32, 1, 2 * T * TOP + E + 1, 0, 0, 0),
                                    .adapter = next(GDN_I32, 1, T, 0, 0, 0)};
    gdn_moe_experts_args plain = e;
    plain.adapter.buf = NULL;
    GOOD(gdn_op_moe_experts, plain);
    MEET(gdn_op_moe_experts, e, y, x);
    MEET(gdn_op_moe_experts, e, y, work_gu);
    MEET(gdn_op_moe_experts, e, work_gu, work_h);
    MEET(gdn_op_moe_experts, e, work_h, work_index);
    MEET(gdn_op_moe_experts, e, work_index, expert);
    MEET(gdn_op_moe_experts, e, work_h, adapter);
    gdn_moe_combine_op_args c = {.y = next(GDN_F32, 2, T, D, 0, 0), .e = e.y, .weight = r.weight};
    GOOD(gdn_op_moe_combine, c);
    MEET(gdn_op_moe_combine, c, y, e);
    c.shared = next(GDN_F32, 2, T, D, 0, 0), c.gate = next(GDN_F32, 2, T, 1, 0, 0);
    GOOD(gdn_op_moe_combine, c);
    MEET(gdn_op_moe_combine, c, y, weight);
    MEET(gdn_op_moe_combine, c, y, shared);
    MEET(gdn_op_moe_combine, c, y, gate);
    gdn_weight_free(gate_up), gdn_weight_free(down);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_core),
        cmocka_unit_test(test_embed_and_weights),
        cmocka_unit_test(test_apart_rows),
        cmocka_unit_test(test_apart_sequences),
        cmocka_unit_test(test_apart_core),
        cmocka_unit_test(test_apart_experts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
