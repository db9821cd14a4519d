/* test_queue.c - copies between buffers: every byte, no other byte, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <gdn/op.h>

enum { MB = 1 << 20, EDGE = 77 };

typedef struct {
    gdn_device *d;
    gdn_queue  *q;
} machine;

static machine open_machine(const char *name) {
    machine m;
    gdn_err err;
    assert_int_equal(gdn_device_open(name, NULL, &m.d, &err), GDN_OK);
    assert_int_equal(gdn_queue_create(m.d, &m.q, &err), GDN_OK);
    return m;
}
static void close_machine(machine *m) {
    gdn_queue_free(m->q);
    gdn_device_close(m->d);
}

static unsigned char pattern(uint64_t i) { return (unsigned char)(i * 131 + (i >> 8) * 7 + 1); }

static void copied(machine *m, uint64_t bytes) {
    gdn_buffer *to, *from;
    gdn_err err;
    assert_int_equal(gdn_buffer_alloc(m->d, bytes + 2 * EDGE, &to, &err), GDN_OK);
    assert_int_equal(gdn_buffer_alloc(m->d, bytes + EDGE, &from, &err), GDN_OK);
    unsigned char *t = gdn_buffer_host(to), *f = gdn_buffer_host(from);
    for (uint64_t i = 0; i < bytes + EDGE; i++) f[i] = pattern(i);
    memset(t, 0xee, bytes + 2 * EDGE);
    if (gdn_queue_copy(m->q, to, EDGE, from, EDGE, bytes, &err) != GDN_OK) fail_msg("%s", err.text);
    assert_int_equal(gdn_queue_wait(m->q, &err), GDN_OK);
    for (uint64_t i = 0; i < bytes + 2 * EDGE; i++) {
        const bool inside = i >= EDGE && i < EDGE + bytes;
        if (t[i] != (inside ? pattern(i) : 0xee))
            fail_msg("byte %llu of a copy of %llu", (unsigned long long)i,
                     (unsigned long long)bytes);
    }
    for (uint64_t i = 0; i < bytes + EDGE; i++)
        if (f[i] != pattern(i)) fail_msg("source byte %llu", (unsigned long long)i);
    gdn_buffer_free(to), gdn_buffer_free(from);
}

static void test_copy(void **state) {
    (void)state;
    static const uint64_t sizes[] = {0,      1,      63,         4096,       MB - 1,
                                     MB,     MB + 1, 3 * MB / 2, 5 * MB / 4 + 1};
    for (int threads = 1; threads <= 3; threads++) {
        machine m = open_machine(threads == 1 ? "cpu:1" : threads == 2 ? "cpu:2" : "cpu:3");
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) copied(&m, sizes[i]);
        close_machine(&m);
    }
}

static void refused(gdn_status st, const gdn_err *err, const char *words) {
    if (st != GDN_E_INVALID) fail_msg("'%s' was not refused", words);
    if (strstr(err->text, words) == NULL) fail_msg("'%s' does not say '%s'", err->text, words);
}

static void test_refusals(void **state) {
    (void)state;
    machine m = open_machine("cpu:2"), other = open_machine("cpu:1");
    gdn_buffer *a, *b, *again, *foreign;
    gdn_err err;
    unsigned char memory[256], before[256];
    for (int i = 0; i < 256; i++) before[i] = memory[i] = pattern((uint64_t)i);
    assert_int_equal(gdn_buffer_wrap(m.d, memory, 256, &a, &err), GDN_OK);
    assert_int_equal(gdn_buffer_wrap(m.d, memory + 128, 128, &again, &err), GDN_OK);
    assert_int_equal(gdn_buffer_alloc(m.d, 256, &b, &err), GDN_OK);
    assert_int_equal(gdn_buffer_alloc(other.d, 256, &foreign, &err), GDN_OK);
    refused(gdn_queue_copy(m.q, a, 10, a, 0, 11, &err), &err, "11 bytes from 0 to 10 overlap");
    refused(gdn_queue_copy(m.q, a, 0, a, 10, 11, &err), &err, "overlap");
    refused(gdn_queue_copy(m.q, a, 5, a, 5, 1, &err), &err, "overlap");
    refused(gdn_queue_copy(m.q, again, 0, a, 100, 29, &err), &err, "overlap");
    refused(gdn_queue_copy(m.q, a, 0, b, 250, 7, &err), &err, "7 bytes at 250 of a buffer of 256");
    refused(gdn_queue_copy(m.q, a, 250, b, 0, 7, &err), &err, "7 bytes at 250 of a buffer of 256");
    refused(gdn_queue_copy(m.q, a, 257, b, 0, 0, &err), &err, "0 bytes at 257");
    refused(gdn_queue_copy(m.q, a, 8, b, 0, UINT64_MAX - 4, &err), &err, "of a buffer of 256");
    refused(gdn_queue_copy(m.q, a, 0, foreign, 0, 8, &err), &err, "from lies on another device");
    refused(gdn_queue_copy(m.q, foreign, 0, a, 0, 8, &err), &err, "to lies on another device");
    assert_memory_equal(memory, before, 256);

    assert_int_equal(gdn_queue_copy(m.q, a, 10, a, 0, 10, &err), GDN_OK); /* side by side */
    assert_int_equal(gdn_queue_copy(m.q, again, 0, a, 96, 32, &err), GDN_OK);
    assert_int_equal(gdn_queue_copy(m.q, a, 7, a, 7, 0, &err), GDN_OK);
    memcpy(before + 10, before, 10), memcpy(before + 128, before + 96, 32);
    assert_memory_equal(memory, before, 256);
    gdn_buffer_free(a), gdn_buffer_free(b), gdn_buffer_free(again), gdn_buffer_free(foreign);
    close_machine(&m), close_machine(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
