/* test_op_vectors.c - gdn_attention() on recorded calls, and that the comparison sees damage.
 *
 * The damaged files are copies with single bytes changed: names and values in the header keep
 * their length, so that the rest of the file stays where it is. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cases.h"

#include <gdn/tools.h>

#define VECTORS "tests/golden/op/"
enum { N_VECTOR = 21 };

static gdn_device_opts opts;

static void print_form(int32_t form, const gdn_op_form_result *r) {
    print_error("  %s: %lld stray bytes\n", gdn_op_form_name(form), (long long)r->n_stray);
    for (int32_t i = 0; i < GDN_OP_N_OUTPUT; i++)
        print_error("    %s: max %g, rel %g, bound %g, %lld differ\n", gdn_op_output_name(i),
                    r->out[i].max_abs, r->out[i].rel_l2, r->out[i].bound,
                    (long long)r->out[i].n_differ);
}

static void run_all(unsigned isa_mask) {
    gdn_device_opts o = opts;
    o.isa_mask = isa_mask;
    DIR *dir = opendir(VECTORS);
    int n = 0, failed = 0;
    assert_non_null(dir);
    for (struct dirent *f; (f = readdir(dir)) != NULL;) {
        if (strstr(f->d_name, ".safetensors") == NULL) continue;
        char path[512];
        gdn_op_vector_result r;
        gdn_err err = { 0 };
        snprintf(path, sizeof path, VECTORS "%s", f->d_name);
        must(gdn_op_vector_run(path, "cpu", &o, &r, &err), &err);
        n++;
        if (r.pass) continue;
        failed++;
        print_error("%s, isa %x\n", path, isa_mask);
        for (int32_t k = 0; k < GDN_OP_N_FORM; k++) print_form(k, &r.form[k]);
    }
    closedir(dir);
    assert_int_equal(failed, 0);
    assert_true(n >= N_VECTOR);
}

static void test_vectors(void **state) {
    (void)state;
    run_all(~0u);
}

static void test_plain_c(void **state) {
    (void)state;
    run_all(0);
}

/* --- damage --------------------------------------------------------------------- */

typedef struct {
    char  *data;
    size_t n;
    char   path[64];
} copy;

static void copy_open(copy *c, const char *name) {
    char path[256];
    snprintf(path, sizeof path, VECTORS "%s.safetensors", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    c->n = (size_t)ftell(f);
    rewind(f);
    c->data = malloc(c->n);
    assert_non_null(c->data);
    assert_int_equal(fread(c->data, 1, c->n, f), c->n);
    fclose(f);
    snprintf(c->path, sizeof c->path, "/tmp/gdn-op-XXXXXX");
    const int fd = mkstemp(c->path);
    assert_true(fd >= 0);
    close(fd);
}

static void copy_close(copy *c) {
    unlink(c->path);
    free(c->data);
}

/* Run the copy as it is now. */
static gdn_status copy_run(const copy *c, gdn_op_vector_result *r, gdn_err *err) {
    FILE *f = fopen(c->path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(c->data, 1, c->n, f), c->n);
    assert_int_equal(fclose(f), 0);
    return gdn_op_vector_run(c->path, "cpu", &opts, r, err);
}

/* The quoted name in the header, behind the quote. */
static char *find(copy *c, const char *name) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    char *p = memmem(c->data + 8, c->n - 8, quoted, strlen(quoted));
    assert_non_null(p);
    return p + 1;
}

/* Give the file words of the same length in place of a name, or of a metadata value. */
static void refused(const char *vector, const char *name, bool is_value, const char *now,
                    const char *words) {
    copy c;
    gdn_op_vector_result r;
    gdn_err err = { 0 };
    copy_open(&c, vector);
    char *p = find(&c, name);
    if (is_value) {
        p += strlen(name) + 1;
        while (*p != '"') p++;
        p++;
    }
    memcpy(p, now, strlen(now));
    const gdn_status st = copy_run(&c, &r, &err);
    if (st == GDN_OK) fail_msg("%s = %s was not refused", name, now);
    if (strstr(err.text, words) == NULL) fail_msg("'%s' does not say '%s'", err.text, words);
    if (strncmp(err.text, c.path, strlen(c.path)) != 0) fail_msg("'%s' names no file", err.text);
    copy_close(&c);
}

static void test_refusals(void **state) {
    (void)state;
    static const char f[] = "conv-layout-ds";
    refused(f, "A_log", false, "B_log", "the tensor A_log is missing");
    refused(f, "expect.z", false, "expect.y", "the tensor expect.z is missing");
    refused(f, "null_slot", false, "null_slit", "__metadata__.null_slot is missing");
    refused(f, "num_v_heads", true, "x", "__metadata__.num_v_heads is \"x\"; need a number");
    refused(f, "num_v_heads", true, "0", "2 key and 0 value heads over 1 shards");
    refused(f, "num_v_heads", true, "6", "qkvz has shape [13, 384], need [*, 512]");
    refused(f, "tp_size", true, "0", "4 value heads over 0 shards");
    refused(f, "reorder_input", true, "7", "__metadata__.reorder_input is \"7\"; need 0 or 1");
    refused(f, "conv_layout", true, "DD", "__metadata__.conv_layout is \"DD\"; need SD or DS");
    refused(f, "conv_layout", true, "SD", "__metadata__.conv_lines is 3, conv_state has 256");
    refused(f, "conv_width", true, "5", "__metadata__.conv_width is 5, conv_weights has 4");
    refused(f, "dtype", true, "f32", "__metadata__.dtype is \"f32\", core_attn_out has type f16");
    refused(f, "ssm_dtype", true, "f16", "__metadata__.ssm_dtype is \"f16\"");
    refused(f, "num_decodes", true, "-", "__metadata__.num_decodes is \"-\"; need a number");
    refused(f, "head_k_dim", true, "64", "qkvz has shape");
    refused(f, "num_actual_tokens", true, "14", "num_actual_tokens is 14");
}

/* An element of a tensor in the file's data. */
static unsigned char *element(copy *c, const char *name, size_t at) {
    uint64_t head;
    unsigned long long begin = 0;
    memcpy(&head, c->data, sizeof head);
    const char *p = strstr(find(c, name), "data_offsets");
    assert_non_null(p);
    p += strcspn(p, "[") + 1;
    begin = strtoull(p, NULL, 10);
    return (unsigned char *)c->data + 8 + head + begin + at;
}

static void damaged(const char *vector, const char *name, size_t at, unsigned flip, int out,
                    bool exact) {
    copy c;
    gdn_op_vector_result r;
    gdn_err err = { 0 };
    copy_open(&c, vector);
    *element(&c, name, at) ^= (unsigned char)flip;
    must(copy_run(&c, &r, &err), &err);
    assert_false(r.pass);
    for (int f = 0; f < GDN_OP_N_FORM; f++) {
        const gdn_op_vector_error *e = r.form[f].out;
        if (r.form[f].pass || e[out].pass)
            fail_msg("%s, %s: damage in %s is not seen", vector, gdn_op_form_name(f), name);
        for (int i = 0; i < GDN_OP_N_OUTPUT; i++)
            if (i != out && !e[i].pass) fail_msg("%s: %s fails too", vector, gdn_op_output_name(i));
        if ((e[out].n_differ > 0) != exact) fail_msg("%s: %s: differ", vector, name);
    }
    copy_close(&c);
}

static void test_damage(void **state) {
    (void)state;
    /* One element written, by its exponent or a bit where all bits count. */
    damaged("prefill-f32", "expect.core_attn_out", 3, 0x40, GDN_OP_CORE, false);
    damaged("prefill-f32", "expect.z", 0, 1, GDN_OP_Z, true);
    /* 8 rows of 32 bf16, of which 3 are written: the others have to be kept. */
    damaged("padded-rows-width2", "expect.core_attn_out", 7 * 64, 1, GDN_OP_CORE, true);
    damaged("padded-rows-width2", "expect.z", 3 * 64, 1, GDN_OP_Z, true);
    /* Slots 0 and 1 of 12: no sequence has 0. */
    damaged("null-mixed", "expect.ssm_state", 0, 1, GDN_OP_SSM_STATE, true);
    damaged("null-mixed", "expect.conv_state", 0, 1, GDN_OP_CONV_STATE, true);
}

/* A number where NaN is expected, and the other way round. */
static void test_nan(void **state) {
    (void)state;
    copy c;
    gdn_op_vector_result r;
    gdn_err err = { 0 };
    copy_open(&c, "prefill-f32");
    memset(element(&c, "expect.core_attn_out", 0), 0xff, 4);
    must(copy_run(&c, &r, &err), &err);
    assert_false(r.pass);
    for (int f = 0; f < GDN_OP_N_FORM; f++) assert_true(isinf(r.form[f].out[GDN_OP_CORE].rel_l2));
    copy_close(&c);
    copy_open(&c, "prefill-f32");
    memset(element(&c, "projected_states_qkvz", 0), 0xff, 4);
    must(copy_run(&c, &r, &err), &err);
    assert_false(r.pass);
    for (int f = 0; f < GDN_OP_N_FORM; f++) assert_true(isinf(r.form[f].out[GDN_OP_CORE].rel_l2));
    copy_close(&c);
}

static void test_bounds(void **state) {
    (void)state;
    static const struct {
        const char *file, *kind;
        double core, states, chunked_core, chunked_states;
    } want[] = {
        { "prefill-f32", "f32/f32 SD parts 4+0+0", 2e-6, 2e-6, 1e-4, 1e-4 },
        { "decode-bf16", "bf16/f32 SD parts 0+7+0", 1e-3, 5e-5, 6e-3, 2e-3 },
        { "conv-layout-ds", "f16/f32 DS parts 2+2+0", 1e-3 / 8, 5e-5 / 8, 6e-3 / 8, 2e-3 / 8 },
        { "everything-ds-tp2", "bf16/bf16 DS groups 5+0+3", 1e-3, 1e-3, 6e-3, 6e-3 },
    };
    gdn_err err = { 0 };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        gdn_op_vector_result r;
        char path[256];
        snprintf(path, sizeof path, VECTORS "%s.safetensors", want[i].file);
        must(gdn_op_vector_run(path, "cpu:1", NULL, &r, &err), &err);
        assert_string_equal(r.kind, want[i].kind);
        for (int f = 0; f < GDN_OP_N_FORM; f++) {
            const bool chunked = strstr(gdn_op_form_name(f), "chunked") != NULL;
            const gdn_op_vector_error *e = r.form[f].out;
            assert_true(e[GDN_OP_CORE].bound == (chunked ? want[i].chunked_core : want[i].core));
            assert_true(e[GDN_OP_SSM_STATE].bound ==
                        (chunked ? want[i].chunked_states : want[i].states));
            assert_true(e[GDN_OP_Z].bound == 0 && e[GDN_OP_CONV_STATE].bound == 0);
        }
    }
}

static void test_names(void **state) {
    (void)state;
    gdn_op_vector_result r;
    gdn_err err = { 0 };
    assert_int_equal(gdn_op_vector_run("tests/golden/none", NULL, NULL, &r, &err), GDN_E_IO);
    assert_int_equal(gdn_op_vector_run(VECTORS "decode-bf16.safetensors", "none", NULL, &r, &err),
                     GDN_E_INVALID);
    assert_string_equal(gdn_op_output_name(GDN_OP_CORE), "core_attn_out");
    assert_null(gdn_op_output_name(-1));
    assert_null(gdn_op_output_name(GDN_OP_N_OUTPUT));
    assert_string_equal(gdn_op_form_name(GDN_OP_CHUNKED_STAGES), "chunked_stages");
    assert_null(gdn_op_form_name(-1));
    assert_null(gdn_op_form_name(GDN_OP_N_FORM));
}

int main(void) {
    gdn_device_opts_defaults(&opts);
    opts.n_thread = 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),  cmocka_unit_test(test_plain_c),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_nan),      cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
