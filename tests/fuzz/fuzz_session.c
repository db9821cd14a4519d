/* fuzz_session.c - any bytes as a saved session: refused without a trace, or taken in.
 *
 * An input is a list of changes to a good file, or a file of its own.  Its first byte says whether
 * all hashes, the length and the owner are made right again before it is read, so that what lies
 * behind those checks is reached too. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/engine/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { VOCAB = 512, CTX = 100, MOST = 1 << 20 };

static gdn_engine *engine;
static uint8_t *base, *work; /* [MOST] */
static size_t   n_base;

static void expect(int good) {
    if (!good) abort();
}

static gdn_engine *new_engine(gdn_model *m) {
    gdn_engine *e = NULL;
    gdn_engine_opts o;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = CTX;
    o.n_draft = 1;
    o.cache_bytes = 8 << 20;
    expect(gdn_engine_create(m, &o, &e, NULL) == GDN_OK);
    return e;
}

static void open_all(void) {
    gdn_model *m = NULL;
    gdn_model_opts o;
    gdn_err err = {0};
    gdn_seq *s = NULL;
    int32_t ids[40];
    gdn_model_opts_defaults(&o);
    o.device = "cpu";
    o.n_thread = 1;
    if (gdn_model_open("tests/golden/model/dense-mtp", &o, &m, &err) != GDN_OK) {
        fprintf(stderr, "%s (run from the project's root)\n", err.text);
        exit(1);
    }
    engine = new_engine(m);
    gdn_engine *e = new_engine(m);
    for (int32_t i = 0; i < 40; i++) ids[i] = i * 7 % VOCAB;
    expect(gdn_seq_create(e, &s, NULL) == GDN_OK);
    for (int32_t i = 0; i < 2; i++) {
        const gdn_work w = {.seq = s, .tokens = ids + 15 * i, .n = 15};
        expect(gdn_engine_eval(e, &w, 1, NULL, NULL, NULL, NULL) == GDN_OK);
        expect(gdn_snapshot_save(s, ids, NULL) == GDN_OK);
    }
    gdn_seq_free(s);
    char path[64];
    snprintf(path, sizeof path, "/tmp/gdn-fuzz-session-%ld", (long)getpid());
    expect(gdn_session_save(e, NULL, ids, 40, "a note", 6, path, NULL) == GDN_OK);
    gdn_engine_free(e);
    expect(gdn_session_load(engine, NULL, path, NULL, NULL, NULL) == GDN_OK);
    gdn_engine_stats now;
    gdn_engine_get_stats(engine, &now);
    expect(now.n_snapshot == 2);
    base = malloc(MOST);
    work = malloc(MOST);
    FILE *f = fopen(path, "rb");
    expect(base != NULL && work != NULL && f != NULL);
    n_base = fread(base, 1, MOST, f);
    fclose(f);
    unlink(path);
    expect(n_base > GDN_STORE_HEAD && n_base < MOST);
}

static uint64_t get(const uint8_t *p, int n) {
    uint64_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint64_t)p[i] << 8 * i;
    return x;
}

/* Hashes that are right, the owner that the engine expects, and the file's true length. */
static void make_right(uint8_t *b, size_t n) {
    if (n < GDN_STORE_HEAD) return;
    gdn_store_head h = {.file_bytes = n,
                        .n_token = get(b + 24, 8),
                        .n_snapshot = get(b + 32, 8),
                        .n_note = get(b + 40, 8),
                        .body_bytes = get(b + 48, 8),
                        .model = get(base + 64, 8),
                        .flags = (uint32_t)get(b + 12, 4)};
    memcpy(h.kernels, base + 80, sizeof h.kernels);
    memcpy(h.types, base + 128, sizeof h.types);
    const uint64_t room = n - GDN_STORE_HEAD;
    uint64_t plain = room;
    if (h.n_token <= room && h.n_snapshot <= room && h.n_note <= room &&
        4 * (h.n_token + h.n_snapshot) + h.n_note <= room)
        plain = 4 * (h.n_token + h.n_snapshot) + h.n_note;
    h.plain_hash = gdn_store_plain_hash(b + GDN_STORE_HEAD, plain);
    gdn_store_pack(&h, b);
    size_t at = GDN_STORE_HEAD + (size_t)plain;
    for (uint64_t i = 0; n - at >= GDN_STORE_CHUNK_HEAD; i++) {
        const uint32_t raw = (uint32_t)get(b + at, 4), stored = (uint32_t)get(b + at + 4, 4);
        if (stored > n - at - GDN_STORE_CHUNK_HEAD) break;
        const uint64_t x = gdn_store_chunk_hash(h.plain_hash, i, raw, stored,
                                                b + at + GDN_STORE_CHUNK_HEAD);
        for (int k = 0; k < 8; k++) b[at + 8 + (size_t)k] = (uint8_t)(x >> 8 * k);
        at += GDN_STORE_CHUNK_HEAD + stored;
    }
}

/* data: how | pieces of [place u32, length u8, bytes] over the base, or a file of its own. */
static size_t make_file(const uint8_t *data, size_t n) {
    const uint8_t how = data[0];
    size_t length = n_base;
    data++, n--;
    if (how & 2) {
        length = n < MOST ? n : MOST;
        memcpy(work, data, length);
    } else {
        memcpy(work, base, n_base);
        while (n >= 5) {
            const size_t at = (size_t)get(data, 4) % n_base;
            size_t k = data[4] < n - 5 ? data[4] : n - 5;
            if (k > n_base - at) k = n_base - at;
            memcpy(work + at, data + 5, k);
            data += 5 + k, n -= 5 + k;
        }
        if ((how & 4) && n > 0) length -= data[0] % 64;
    }
    if (how & 1) make_right(work, length);
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[64];
    gdn_err err = {0};
    gdn_engine_stats s;
    void *note = NULL;
    size_t n_note = 0;
    if (n == 0) return 0;
    if (engine == NULL) open_all();
    const size_t length = make_file(data, n);
    const int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, work, length) != (ssize_t)length) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const gdn_status st = gdn_session_load(engine, NULL, path, &note, &n_note, &err);
    gdn_engine_get_stats(engine, &s);
    if (st == GDN_OK) {
        unsigned sum = 0;
        expect(note != NULL);
        for (size_t i = 0; i < n_note; i++) sum += ((const unsigned char *)note)[i];
        expect(sum != 1u << 31 && s.snapshot_bytes <= s.snapshot_most);
    } else {
        expect(note == NULL && err.text[0] != '\0' && s.n_snapshot == 0 && s.n_page_used == 0);
    }
    free(note);
    while (engine->snapshots.first != NULL) gdn_snapshot_drop(engine, engine->snapshots.first);
    gdn_engine_get_stats(engine, &s);
    expect(s.n_snapshot == 0 && s.n_page_used == 0);
    close(fd);
    return 0;
}
