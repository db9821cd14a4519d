/* test_safetensors.c - reading and writing safetensors: good files, and every kind of bad
 * one.
 *
 * Sums of the golden tensors' bytes come from another reader of the format. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/format/safetensors.h"
#include "../../src/format/st_write.h"

static char dir[64]; /* a temporary folder, made for each test and removed after it */

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/gdn-test-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state) {
    char cmd[128];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

/* Two names at a time can be in use. */
static const char *in_dir(const char *name) {
    static char path[2][256];
    static int turn;
    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void put_file(const char *name, const void *data, size_t n) {
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A safetensors file of this header, a claimed header length and so many bytes of data.
 */
static void put_st_len(const char *name, const char *head, uint64_t len, size_t data) {
    const size_t n = strlen(head);
    unsigned char *b = calloc(8 + n + data + 1, 1);
    assert_non_null(b);
    for (int i = 0; i < 8; i++) b[i] = (unsigned char)(len >> 8 * i);
    memcpy(b + 8, head, n);
    for (size_t i = 0; i < data; i++) b[8 + n + i] = (unsigned char)(i * 7 + 1);
    put_file(name, b, 8 + n + data);
    free(b);
}

static void put_st(const char *name, const char *head, size_t data) {
    put_st_len(name, head, strlen(head), data);
}

static void expect_bad(const char *path, gdn_status code, const char *part) {
    gdn_err err = {0};
    gdn_weights *w = NULL;
    const gdn_status st = gdn_weights_open(path, &w, &err);
    if (st != code || strstr(err.text, part) == NULL)
        fail_msg("got %d \"%s\", expected %d \"%s\"", st, err.text, code, part);
    assert_null(w);
}

static uint64_t fnv(const unsigned char *p, uint64_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (uint64_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* --- good files ----------------------------------------------------------------------
 */

static void golden(void **state) {
    static const struct {
        const char *path;
        int64_t count;
        uint64_t total;
        const char *name;
        gdn_st_dtype dtype;
        int32_t ndim;
        int64_t shape[5];
        uint64_t sum;
    } g[] = {
        {"dense-mtp",
         71,
         1199728,
         "mtp.fc.weight",
         GDN_ST_BF16,
         2,
         {96, 192},
         0xb1e1572454af798c},
        {"dense-mtp",
         71,
         1199728,
         "model.layers.0.linear_attn.A_log",
         GDN_ST_BF16,
         1,
         {4},
         0x66ca1a837cd9ed57},
        {"dense-mtp",
         71,
         1199728,
         "model.layers.3.self_attn.k_proj.weight",
         GDN_ST_BF16,
         2,
         {64, 96},
         0x5f78afb49aa0bacb},
        {"next-moe",
         202,
         1607984,
         "model.layers.1.mlp.experts.7.down_proj.weight",
         GDN_ST_BF16,
         2,
         {96, 32},
         0x5444e842508fe679},
        {"next-moe/model.safetensors",
         202,
         1607984,
         "model.layers.2.linear_attn.in_proj_ba.weight",
         GDN_ST_BF16,
         2,
         {8, 96},
         0x73f800392593d8d8},
        {"vision",
         89,
         1474800,
         "model.visual.patch_embed.proj.weight",
         GDN_ST_BF16,
         5,
         {64, 3, 2, 16, 16},
         0x527c5746b9f36653},
        {"vision",
         89,
         1474800,
         "model.language_model.norm.weight",
         GDN_ST_BF16,
         1,
         {96},
         0x7552290fd2fc12b3},
        {"moe-mtp",
         201,
         1577008,
         "mtp.layers.0.mlp.gate.weight",
         GDN_ST_BF16,
         2,
         {8, 96},
         0x6987ed67d0470e5f},
        {"dense-mtp/golden.safetensors",
         10,
         841600,
         "input_ids",
         GDN_ST_I64,
         1,
         {140},
         0xe85b535cb85d14cf},
        {"dense-mtp/golden.safetensors",
         10,
         841600,
         "greedy_margin",
         GDN_ST_F32,
         1,
         {24},
         0x3a0ccc226119a1d7},
    };
    (void)state;
    for (size_t i = 0; i < sizeof g / sizeof *g; i++) {
        char path[128];
        gdn_err err = {0};
        gdn_weights *w = NULL;
        snprintf(path, sizeof path, "tests/golden/model/%s", g[i].path);
        assert_int_equal(gdn_weights_open(path, &w, &err), GDN_OK);
        assert_int_equal(gdn_weights_count(w), g[i].count);
        assert_int_equal(gdn_weights_total_bytes(w), g[i].total);
        gdn_st_tensor *t = gdn_weights_find(w, g[i].name);
        assert_non_null(t);
        assert_string_equal(t->name, g[i].name);
        assert_int_equal(t->dtype, g[i].dtype);
        assert_int_equal(t->ndim, g[i].ndim);
        for (int d = 0; d < t->ndim; d++) assert_int_equal(t->shape[d], g[i].shape[d]);
        assert_int_equal(fnv(t->data, t->bytes), g[i].sum);
        assert_false(t->used);
        assert_non_null(strstr(gdn_weights_path(w, t), ".safetensors"));
        gdn_weights_close(w);
    }
    gdn_weights_close(NULL);
}

static void all_are_found(void **state) {
    gdn_err err = {0};
    gdn_weights *w = NULL;
    (void)state;
    assert_int_equal(gdn_weights_open("tests/golden/model/next-moe", &w, &err), GDN_OK);
    for (int64_t i = 0; i < gdn_weights_count(w); i++) {
        gdn_st_tensor *t = gdn_weights_at(w, i);
        assert_ptr_equal(gdn_weights_find(w, t->name), t);
        if (i > 0) assert_true(t[-1].data + t[-1].bytes == t->data);
    }
    assert_null(gdn_weights_find(w, ""));
    assert_null(gdn_weights_find(w, "model.layers.1.mlp.experts.7.down_proj.weigh"));
    gdn_weights_close(w);
}

static void types_and_metadata(void **state) {
    gdn_err err = {0};
    gdn_weights *w = NULL;
    (void)state;
    put_st("a.safetensors",
           "{\"__metadata__\":{\"format\":\"pt\",\"\\u00fc\":\"\"},"
           "\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
           "\"none\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[8,8]},"
           "\"b\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,3],\"data_offsets\":[8,11]}}  ",
           11);
    /* The two spaces make the header's length a multiple of 8, as the F64 needs. */
    assert_int_equal(gdn_weights_open(in_dir("a.safetensors"), &w, &err), GDN_OK);
    assert_int_equal(gdn_weights_count(w), 3);
    const gdn_st_tensor *s = gdn_weights_find(w, "s"), *b = gdn_weights_find(w, "b"),
                        *none = gdn_weights_find(w, "none");
    assert_int_equal(s->ndim, 0);
    assert_int_equal(s->bytes, 8);
    assert_int_equal(s->data[1], 8);
    assert_int_equal(none->bytes, 0);
    assert_int_equal(b->data[0], 8 * 7 + 1);
    assert_string_equal(gdn_weights_metadata(w, "format"), "pt");
    assert_string_equal(gdn_weights_metadata(w, "\xc3\xbc"), "");
    assert_null(gdn_weights_metadata(w, "s"));
    gdn_weights_close(w);

    put_st("b.safetensors", "{}", 0);
    assert_int_equal(gdn_weights_open(in_dir("b.safetensors"), &w, &err), GDN_OK);
    assert_int_equal(gdn_weights_count(w), 0);
    assert_null(gdn_weights_find(w, "s"));
    assert_null(gdn_weights_metadata(w, "s"));
    gdn_weights_close(w);

    assert_string_equal(gdn_st_dtype_name(GDN_ST_F8_E5M2), "F8_E5M2");
    assert_int_equal(gdn_st_dtype_size(GDN_ST_U64), 8);
    assert_int_equal(gdn_st_dtype_of("BF16"), GDN_ST_BF16);
    assert_int_equal(gdn_st_dtype_of("bf16"), -1);
}

/* --- bad files
 * --------------------------------------------------------------------------- */

#define T(name, type, shape, from, to)                                                   \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #from  \
    "," #to "]}"

static void bad_headers(void **state) {
    static const struct {
        const char *head;
        size_t data;
        gdn_status code;
        const char *part;
    } bad[] = {
        {"", 0, GDN_E_FORMAT, "does not begin with '{'"},
        {" {}", 0, GDN_E_FORMAT, "does not begin with '{'"},
        {"[]", 0, GDN_E_FORMAT, "does not begin with '{'"},
        {"{", 0, GDN_E_FORMAT, "line 1"},
        {"{}x", 0, GDN_E_FORMAT, "line 1"},
        {"{\"a\":1}", 0, GDN_E_FORMAT, "a is not an object"},
        {"{\"a\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1, GDN_E_FORMAT,
         "a: dtype is not"},
        {"{" T("a", "F7", "[1]", 0, 1) "}", 1, GDN_E_UNSUPPORTED, "a: type F7"},
        {"{" T("a", "F4", "[2]", 0, 1) "}", 1, GDN_E_UNSUPPORTED, "a: type F4"},
        {"{" T("a", "U8", "1", 0, 1) "}", 1, GDN_E_FORMAT, "a: shape is not a list"},
        {"{" T("a", "U8", "[1.0]", 0, 1) "}", 1, GDN_E_FORMAT, "a: shape[0]"},
        {"{" T("a", "U8", "[1,-1]", 0, 1) "}", 1, GDN_E_FORMAT, "a: shape[1]"},
        {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, GDN_E_FORMAT,
         "9 dimensions"},
        {"{" T("a", "U8", "[4294967296,4294967296]", 0, 0) "}", 0, GDN_E_FORMAT,
         "overflows"},
        {"{" T("a", "F64", "[1152921504606846976]", 0, 0) "}", 0, GDN_E_FORMAT,
         "overflows"},
        {"{" T("a", "U8", "[99999999999999999999]", 0, 1) "}", 1, GDN_E_FORMAT, "line 1"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, GDN_E_FORMAT, "not a pair"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, GDN_E_FORMAT,
         "not a pair"},
        {"{" T("a", "U8", "[1]", "0", 1) "}", 1, GDN_E_FORMAT, "a: data_offsets are not"},
        {"{" T("a", "U8", "[1]", -1, 0) "}", 1, GDN_E_FORMAT, "a: data_offsets are not"},
        {"{" T("a", "U8", "[1]", 2, 1) "}", 1, GDN_E_FORMAT, "from 2 back to 1"},
        {"{" T("a", "U8", "[5]", 0, 5) "}", 4, GDN_E_FORMAT, "truncated"},
        {"{" T("a", "U8", "[1]", 9223372036854775806, 9223372036854775807) "}", 4,
         GDN_E_FORMAT, "truncated"},
        {"{" T("a", "U16", "[2]", 0, 3) "}", 3, GDN_E_FORMAT, "need 4"},
        {"{" T("a", "U8", "[2]", 0, 3) "}", 3, GDN_E_FORMAT, "need 2"},
        {"{" T("a", "U8", "[3]", 0, 3) "," T("b", "U8", "[2]", 2, 4) "}", 4, GDN_E_FORMAT,
         "a and b overlap"},
        {"{" T("b", "U8", "[4]", 0, 4) "," T("a", "U8", "[4]", 0, 4) "}", 4, GDN_E_FORMAT,
         "a and b overlap"},
        {"{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[1]", 3, 4) "}", 4, GDN_E_FORMAT,
         "1 bytes before b"},
        {"{" T("a", "U8", "[2]", 1, 3) "}", 3, GDN_E_FORMAT, "1 bytes before a"},
        {"{" T("a", "U8", "[2]", 0, 2) "}", 5, GDN_E_FORMAT, "last 3 bytes"},
        {"{}", 1, GDN_E_FORMAT, "last 1 bytes"},
        {"{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 1, 2) "}", 2, GDN_E_FORMAT,
         "duplicate"},
        {"{\"__metadata__\":[]}", 0, GDN_E_FORMAT, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, GDN_E_FORMAT,
         "__metadata__.k is not a string"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_st("x.safetensors", bad[i].head, bad[i].data);
        expect_bad(in_dir("x.safetensors"), bad[i].code, bad[i].part);
        expect_bad(in_dir("x.safetensors"), bad[i].code, "x.safetensors");
    }
}

/* The same tensors behind headers of lengths that do and do not align them. */
static void alignment(void **state) {
    static const char head[] = "{" T("a", "F32", "[1]", 0, 4) "}";
    (void)state;
    for (size_t pad = 0; pad < 8; pad++) {
        char h[128];
        gdn_err err = {0};
        gdn_weights *w = NULL;
        snprintf(h, sizeof h, "%s%.*s", head, (int)pad, "        ");
        put_st("x.safetensors", h, 4);
        if ((sizeof head - 1 + pad) % 4 != 0) {
            expect_bad(in_dir("x.safetensors"), GDN_E_FORMAT, "misaligned for F32");
            continue;
        }
        assert_int_equal(gdn_weights_open(in_dir("x.safetensors"), &w, &err), GDN_OK);
        assert_int_equal((uintptr_t)gdn_weights_find(w, "a")->data % 4, 0);
        gdn_weights_close(w);
    }
}

static void bad_files(void **state) {
    (void)state;
    expect_bad(in_dir("absent"), GDN_E_IO, "No such file");
    expect_bad(dir, GDN_E_IO, "neither model.safetensors nor");
    put_file("x", "", 0);
    expect_bad(in_dir("x"), GDN_E_FORMAT, "0 bytes, too short");
    put_file("x", "\2\0\0\0\0\0\0", 7);
    expect_bad(in_dir("x"), GDN_E_FORMAT, "7 bytes, too short");
    put_st_len("x", "{}", 3, 0);
    expect_bad(in_dir("x"), GDN_E_FORMAT, "a header of 3 bytes in a file of 10");
    put_st_len("x", "{}", UINT64_MAX, 0);
    expect_bad(in_dir("x"), GDN_E_FORMAT, "a header of 18446744073709551615 bytes");
    put_st_len("x", "{}", UINT64_MAX - 7, 0);
    expect_bad(in_dir("x"), GDN_E_FORMAT, "a header of");
    /* Longer than the limit, in a file that would hold it. */
    put_st_len("x", "{}", (100u << 20) + 1, 0);
    assert_int_equal(truncate(in_dir("x"), 200 << 20), 0);
    expect_bad(in_dir("x"), GDN_E_FORMAT, "a header of 104857601 bytes");
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
    expect_bad(in_dir("fifo"), GDN_E_IO, "not a plain file");
    assert_int_equal(mkdir(in_dir("model.safetensors"), 0700), 0);
    expect_bad(dir, GDN_E_IO, "not a plain file");
}

/* --- several files
 * --------------------------------------------------------------------------- */

static void put_index(const char *text) {
    put_file("model.safetensors.index.json", text, strlen(text));
}

static void shards(void **state) {
    gdn_err err = {0};
    gdn_weights *w = NULL;
    (void)state;
    put_st("two.safetensors", "{" T("c", "U8", "[2]", 0, 2) "}", 2);
    put_st("one.safetensors",
           "{\"__metadata__\":{\"k\":\"v\"}," T("b", "U8", "[3]", 2,
                                                5) "," T("a", "U8", "[2]", 0, 2) "}",
           5);
    put_index(
        "{\"metadata\":{\"total_size\":7},\"weight_map\":{\"c\":\"two.safetensors\","
        "\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}");
    assert_int_equal(gdn_weights_open(dir, &w, &err), GDN_OK);
    assert_int_equal(gdn_weights_count(w), 3);
    assert_int_equal(gdn_weights_total_bytes(w), 7);
    assert_string_equal(gdn_weights_at(w, 0)->name, "a");
    assert_string_equal(gdn_weights_at(w, 1)->name, "b");
    assert_string_equal(gdn_weights_at(w, 2)->name, "c");
    assert_non_null(
        strstr(gdn_weights_path(w, gdn_weights_find(w, "c")), "/two.safetensors"));
    assert_int_equal(gdn_weights_find(w, "b")->data[0], 2 * 7 + 1);
    assert_string_equal(gdn_weights_metadata(w, "k"), "v");
    gdn_weights_close(w);
}

static void bad_shards(void **state) {
    static const struct {
        const char *map; /* the text after "weight_map": */
        gdn_status code;
        const char *part;
    } bad[] = {
        {"{\"a\":\"../one\",\"b\":\"one\"}", GDN_E_FORMAT,
         "weight_map.a is not the plain name"},
        {"{\"a\":\"/one\",\"b\":\"one\"}", GDN_E_FORMAT, "weight_map.a"},
        {"{\"a\":\"one\",\"b\":\"..\"}", GDN_E_FORMAT, "weight_map.b"},
        {"{\"a\":\"one\",\"b\":\"\"}", GDN_E_FORMAT, "weight_map.b"},
        {"{\"a\":\"one\",\"b\":7}", GDN_E_FORMAT, "weight_map.b"},
        {"{\"a\":\"one\",\"b\":\"x/../one\"}", GDN_E_FORMAT, "weight_map.b"},
        {"{\"a\":\"one\",\"b\":\"absent\"}", GDN_E_IO, "absent: No such file"},
        {"{\"a\":\"one\"}", GDN_E_FORMAT, "b is not in the index"},
        {"{\"a\":\"one\",\"b\":\"one\",\"z\":\"one\"}", GDN_E_FORMAT, "z is not in one"},
        {"{\"a\":\"one\",\"b\":\"one\",\"c\":\"one\",\"d\":\"two\"}", GDN_E_FORMAT,
         "c is not in one but in two"},
        {"{\"a\":\"one\",\"b\":\"one\",\"c\":\"three\"}", GDN_E_FORMAT, "a is also in"},
        {"{}", GDN_E_FORMAT, "weight_map is not"},
        {"[]", GDN_E_FORMAT, "weight_map is not"},
        {"null", GDN_E_FORMAT, "weight_map is not"},
    };
    (void)state;
    put_st("one", "{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[3]", 2, 5) "}", 5);
    put_st("two", "{" T("c", "U8", "[1]", 0, 1) "," T("d", "U8", "[1]", 1, 2) "}", 2);
    put_st("three", "{" T("c", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 1, 2) "}", 2);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"weight_map\":%s}", bad[i].map);
        put_index(text);
        expect_bad(dir, bad[i].code, bad[i].part);
    }
    put_index("{}");
    expect_bad(dir, GDN_E_FORMAT, "weight_map is not");
    put_index("{\"weight_map\":{\"a\":\"one\",\"a\":\"one\"}}");
    expect_bad(dir, GDN_E_FORMAT, "duplicate");
    put_index("{\"weight_map\":");
    expect_bad(dir, GDN_E_FORMAT, "model.safetensors.index.json: line 1");
    put_st("one", "{" T("a", "U8", "[2]", 0, 2) "}", 3);
    put_index("{\"weight_map\":{\"a\":\"one\"}}");
    expect_bad(dir, GDN_E_FORMAT, "one: the last 1 bytes");
}

/* --- memory
 * ------------------------------------------------------------------------------------ */

/* Pages of mapped files in memory, this process's. */
static long file_pages(void) {
    long size, resident, shared = -1;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld %ld", &size, &resident, &shared), 3);
    fclose(f);
    return shared;
}

static void release(void **state) {
    enum { N = 16 << 20 };
    gdn_err err = {0};
    gdn_weights *w = NULL;
    (void)state;
    put_st("x", "{" T("a", "U8", "[16777216]", 0, 16777216) "}", N);
    assert_int_equal(gdn_weights_open(in_dir("x"), &w, &err), GDN_OK);
    const gdn_st_tensor *t = gdn_weights_at(w, 0);
    const uint64_t sum = fnv(t->data, t->bytes);
    const long before = file_pages();
    gdn_weights_release(w, t->data, t->bytes);
    const long after = file_pages(), pages = N / sysconf(_SC_PAGESIZE);
    assert_true(before - after > pages * 9 / 10);
    assert_int_equal(fnv(t->data, t->bytes), sum);
    /* Less than a page, outside, and wrapping: nothing happens. */
    gdn_weights_release(w, t->data + 1, 10);
    gdn_weights_release(w, &err, sizeof err);
    gdn_weights_release(w, t->data, UINT64_MAX);
    assert_int_equal(fnv(t->data, t->bytes), sum);
    gdn_weights_close(w);
}

/* --- writing
 * -------------------------------------------------------------------------------------
 */

static void write_exact(void **state) {
    static const char head[] =
        "{\"__metadata__\":{\"k\":\"v \\\"q\\\"\"}," T("x", "F32", "[2]", 0, 8) "," T(
            "y\\n", "BF16", "[]", 8, 10) "," T("z", "U8", "[3,0]", 10, 10) "}";
    static const float x[2] = {1.0f, -2.0f};
    static const uint8_t y[2] = {0x34, 0x12};
    const size_t len = (sizeof head - 1 + 7) / 8 * 8;
    gdn_err err = {0};
    gdn_st_writer *w = NULL;
    unsigned char got[512];
    (void)state;
    put_file("o", "old", 3);
    assert_int_equal(gdn_st_writer_create(in_dir("o"), &w, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_meta(w, "k", "v \"q\"", &err), GDN_OK);
    assert_int_equal(gdn_st_writer_add(w, "x", GDN_ST_F32, 1, (int64_t[]){2}, &err),
                     GDN_OK);
    assert_int_equal(gdn_st_writer_add(w, "y\n", GDN_ST_BF16, 0, NULL, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_add(w, "z", GDN_ST_U8, 2, (int64_t[]){3, 0}, &err),
                     GDN_OK);
    assert_int_equal(gdn_st_writer_file_bytes(w), 8 + len + 10);
    assert_int_equal(gdn_st_writer_append(w, x, 5, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_append(w, (const char *)x + 5, 3, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_append(w, y, 2, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_finish(w, &err), GDN_OK);
    gdn_st_writer_free(w);

    FILE *f = fopen(in_dir("o"), "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), 8 + len + 10);
    fclose(f);
    assert_int_equal(got[0], len);
    assert_int_equal(got[1], 0);
    assert_memory_equal(got + 8, head, sizeof head - 1);
    for (size_t i = sizeof head - 1; i < len; i++) assert_int_equal(got[8 + i], ' ');
    assert_memory_equal(got + 8 + len, x, 8);
    assert_memory_equal(got + 8 + len + 8, y, 2);
    assert_int_not_equal(access(in_dir("o.partial"), F_OK), 0);

    gdn_weights *r = NULL;
    assert_int_equal(gdn_weights_open(in_dir("o"), &r, &err), GDN_OK);
    assert_non_null(gdn_weights_find(r, "y\n"));
    gdn_weights_close(r);
}

static void write_refusals(void **state) {
    gdn_err err = {0};
    gdn_st_writer *w = NULL;
    const int64_t two = 2;
    (void)state;
    assert_int_equal(gdn_st_writer_create(dir, &w, &err), GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_create(in_dir("no/o"), &w, &err), GDN_E_IO);
    assert_non_null(strstr(err.text, "/no/o: No such file"));
    assert_int_equal(gdn_st_writer_create(in_dir("o"), &w, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_add(w, "a", GDN_ST_U8, 0, NULL, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_add(w, "a", GDN_ST_U8, 0, NULL, &err), GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_add(w, "b", GDN_ST_F32, 0, NULL, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "b of type F32 would lie at odd byte 1"));
    assert_int_equal(gdn_st_writer_add(w, "b", GDN_ST_U8, 9, &two, &err), GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_add(w, "b", GDN_ST_U8, 1, (int64_t[]){-1}, &err),
                     GDN_E_INVALID);
    assert_int_equal(
        gdn_st_writer_add(w, "b", GDN_ST_U8, 2, (int64_t[]){INT64_MAX, 2}, &err),
        GDN_E_INVALID);
    assert_int_equal(
        gdn_st_writer_add(w, "b", GDN_ST_U8, 1, (int64_t[]){INT64_MAX}, &err),
        GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_add(w, "\xff", GDN_ST_U8, 0, NULL, &err),
                     GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_meta(w, "k", "\xff", &err), GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_add(w, "c", GDN_ST_U8, 1, &two, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_append(w, "xyzw", 4, &err), GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_append(w, "xy", 2, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_add(w, "d", GDN_ST_U8, 0, NULL, &err), GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_meta(w, "k", "v", &err), GDN_E_INVALID);
    assert_int_equal(gdn_st_writer_finish(w, &err), GDN_E_INVALID);
    assert_non_null(strstr(err.text, "2 of 3 bytes"));
    /* Freed unfinished: nothing stays. */
    gdn_st_writer_free(w);
    assert_int_not_equal(access(in_dir("o"), F_OK), 0);
    assert_int_not_equal(access(in_dir("o.partial"), F_OK), 0);
    gdn_st_writer_free(NULL);
}

/* A limit on the size of files stands in for a full disk. */
static void write_full(void **state) {
    gdn_err err = {0};
    gdn_st_writer *w = NULL;
    struct rlimit old, low;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 1 << 20;
    signal(SIGXFSZ, SIG_IGN);
    put_file("o", "old", 3);
    assert_int_equal(gdn_st_writer_create(in_dir("o"), &w, &err), GDN_OK);
    assert_int_equal(gdn_st_writer_add(w, "a", GDN_ST_U8, 1, (int64_t[]){2 << 20}, &err),
                     GDN_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    const gdn_status st = gdn_st_writer_append(w, "x", 1, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    gdn_st_writer_free(w);
    assert_int_equal(st, GDN_E_IO);
    assert_non_null(strstr(err.text, "/o: File too large"));
    assert_int_not_equal(access(in_dir("o.partial"), F_OK), 0);
    struct stat s;
    assert_int_equal(stat(in_dir("o"), &s), 0);
    assert_int_equal(s.st_size, 3); /* the older file is still there */
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(golden),      TEST(all_are_found),  TEST(types_and_metadata),
        TEST(bad_headers), TEST(alignment),      TEST(bad_files),
        TEST(shards),      TEST(bad_shards),     TEST(release),
        TEST(write_exact), TEST(write_refusals), TEST(write_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
