/* patched.c - a golden model with a few of its numbers changed. */
#include "patched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors"};
enum { N_FILE = sizeof files / sizeof *files };

static char *read_all(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *all = malloc(*n);
    assert_non_null(all);
    assert_int_equal(fread(all, 1, *n, f), *n);
    fclose(f);
    return all;
}

patched patched_create(const char *name, const char *tensor, int64_t first, int64_t n,
                       uint16_t bits) {
    patched p = {.dir = "/tmp/gdn-test-patched-XXXXXX"};
    char path[128];
    gdn_weights *w = NULL;
    gdn_err err;
    assert_non_null(mkdtemp(p.dir));
    snprintf(path, sizeof path, MODELS "%s", name);
    must(gdn_weights_open(path, &w, &err), &err);
    const gdn_st_tensor *t = vector(w, tensor, GDN_ST_BF16);
    assert_true(first >= 0 && (uint64_t)(first + n) * 2 <= t->bytes);
    for (int i = 0; i < N_FILE; i++) {
        size_t bytes;
        snprintf(path, sizeof path, MODELS "%s/%s", name, files[i]);
        char *all = read_all(path, &bytes);
        if (i == N_FILE - 1) { /* the tensor, where its bytes are found */
            char *at = memmem(all, bytes, t->data, t->bytes);
            assert_non_null(at);
            for (int64_t k = first; k < first + n; k++) memcpy(at + 2 * k, &bits, 2);
        }
        snprintf(path, sizeof path, "%s/%s", p.dir, files[i]);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(all, 1, bytes, f), bytes);
        fclose(f);
        free(all);
    }
    gdn_weights_close(w);
    return p;
}

void patched_remove(patched *p) {
    char path[128];
    for (int i = 0; i < N_FILE; i++) {
        snprintf(path, sizeof path, "%s/%s", p->dir, files[i]);
        unlink(path);
    }
    rmdir(p->dir);
}
