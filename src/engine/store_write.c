/* store_write.c - writing a session's file so that at any moment the old or the new one is there.
 *
 * All of it goes to PATH.tmp, is brought to the disk and takes PATH's name.  A lock keeps two who
 * save to one PATH from writing into one file; what a killed process left behind is written
 * over by the next. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>
#include <zstd.h>

#include "../base/err.h"
#include "store.h"

enum { LEVEL = 1 }; /* keys and values hardly get shorter with more */

struct gdn_store_writer {
    char *path, *partial;
    int   fd;
    bool  mine;            /* partial is ours to remove                      */
    uint64_t length;       /* of the file so far                             */
    uint64_t plain_hash, n_chunk;
    ZSTD_CCtx *zstd;
    unsigned char *raw;    /* [GDN_STORE_CHUNK] the chunk under way, n_raw   */
    unsigned char *stored; /* [GDN_STORE_CHUNK_HEAD + bound]                 */
    uint32_t n_raw;
};

static void put32(unsigned char *to, uint32_t x) {
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)(x >> 8 * i);
}

static void put64(unsigned char *to, uint64_t x) {
    put32(to, (uint32_t)x);
    put32(to + 4, (uint32_t)(x >> 32));
}

void gdn_store_pack(const gdn_store_head *h, unsigned char out[GDN_STORE_HEAD]) {
    memset(out, 0, GDN_STORE_HEAD);
    memcpy(out, "gdn save", 8);
    put32(out + 8, GDN_STORE_VERSION);
    put32(out + 12, h->flags);
    put64(out + 16, h->file_bytes);
    put64(out + 24, h->n_token);
    put64(out + 32, h->n_snapshot);
    put64(out + 40, h->n_note);
    put64(out + 48, h->body_bytes);
    put64(out + 56, h->plain_hash);
    put64(out + 64, h->model);
    put64(out + 72, h->adapter);
    memcpy(out + 80, h->kernels, GDN_STORE_WORDS);
    memcpy(out + 128, h->types, GDN_STORE_WORDS);
    put64(out + GDN_STORE_HEAD - 8, XXH3_64bits(out, GDN_STORE_HEAD - 8));
}

uint64_t gdn_store_plain_hash(const void *plain, uint64_t n) { return XXH3_64bits(plain, n); }

uint64_t gdn_store_chunk_hash(uint64_t plain_hash, uint64_t index, uint32_t raw, uint32_t stored,
                              const void *data) {
    unsigned char place[24];
    put64(place, plain_hash);
    put64(place + 8, index);
    put32(place + 16, raw);
    put32(place + 20, stored);
    return XXH3_64bits_withSeed(data, stored, XXH3_64bits(place, sizeof place));
}

static gdn_status no_memory(const char *path, gdn_err *err) {
    return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", path);
}

static gdn_status io_error(const gdn_store_writer *w, gdn_err *err) {
    return gdn_fail(err, GDN_E_IO, "%s: cannot be saved: %s", w->path, strerror(errno));
}

static gdn_status write_at(const gdn_store_writer *w, const void *data, uint64_t n, uint64_t at,
                           gdn_err *err) {
    const char *from = data;
    while (n > 0) {
        const ssize_t k = pwrite(w->fd, from, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return io_error(w, err);
        from += k;
        at += (uint64_t)k;
        n -= (uint64_t)k;
    }
    return GDN_OK;
}

/* 1: locked and still the file of that name; 0: somebody else renamed or removed it meanwhile;
 * -1: errno says why not. */
static int lock(gdn_store_writer *w) {
    struct stat mine, there;
    w->fd = open(w->partial, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (w->fd < 0) return -1;
    while (flock(w->fd, LOCK_EX) != 0)
        if (errno != EINTR) return -1;
    if (fstat(w->fd, &mine) != 0) return -1;
    if (lstat(w->partial, &there) != 0 || mine.st_dev != there.st_dev ||
        mine.st_ino != there.st_ino) {
        close(w->fd);
        w->fd = -1;
        return 0;
    }
    if (!S_ISREG(mine.st_mode) || mine.st_uid != geteuid() || mine.st_nlink != 1) {
        errno = EEXIST;
        return -1;
    }
    w->mine = true;
    return fchmod(w->fd, 0600) == 0 && ftruncate(w->fd, 0) == 0 ? 1 : -1;
}

static gdn_status open_partial(gdn_store_writer *w, const char *path, gdn_err *err) {
    struct stat old;
    /* A link to a session stays one: the file that it names is replaced. */
    w->path = realpath(path, NULL);
    if (w->path == NULL && errno == ENOENT) w->path = strdup(path);
    if (w->path == NULL) {
        if (errno == ENOMEM) return no_memory(path, err);
        return gdn_fail(err, GDN_E_IO, "%s: cannot be saved: %s", path, strerror(errno));
    }
    if (stat(w->path, &old) == 0 && !S_ISREG(old.st_mode))
        return gdn_fail(err, GDN_E_IO, "%s: cannot be saved: it is there and no file", path);
    if (asprintf(&w->partial, "%s.tmp", w->path) < 0) {
        w->partial = NULL;
        return no_memory(path, err);
    }
    int got;
    while ((got = lock(w)) == 0) {}
    return got == 1 ? GDN_OK
                    : gdn_fail(err, GDN_E_IO, "%s: cannot be saved: %s: %s", path, w->partial,
                               strerror(errno));
}

gdn_status gdn_store_create(const char *path, const void *plain, uint64_t n_plain,
                            gdn_store_writer **out, gdn_err *err) {
    gdn_store_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return no_memory(path, err);
    w->fd = -1;
    gdn_status st = open_partial(w, path, err);
    if (st == GDN_OK) {
        w->raw = malloc(GDN_STORE_CHUNK);
        w->stored = malloc(GDN_STORE_CHUNK_HEAD + ZSTD_compressBound(GDN_STORE_CHUNK));
        w->zstd = ZSTD_createCCtx();
        if (w->raw == NULL || w->stored == NULL || w->zstd == NULL) st = no_memory(path, err);
    }
    w->plain_hash = gdn_store_plain_hash(plain, n_plain);
    w->length = GDN_STORE_HEAD + n_plain;
    if (st == GDN_OK) st = write_at(w, plain, n_plain, GDN_STORE_HEAD, err);
    if (st == GDN_OK) *out = w;
    else gdn_store_free(w);
    return st;
}

static gdn_status flush(gdn_store_writer *w, gdn_err *err) {
    unsigned char *data = w->stored + GDN_STORE_CHUNK_HEAD;
    const size_t bound = ZSTD_compressBound(GDN_STORE_CHUNK);
    size_t n = ZSTD_compressCCtx(w->zstd, data, bound, w->raw, w->n_raw, LEVEL);
    if (ZSTD_isError(n)) return no_memory(w->path, err); /* the room was enough: nothing else */
    if (n >= w->n_raw) {
        n = w->n_raw;
        memcpy(data, w->raw, n);
    }
    const uint32_t stored = (uint32_t)n;
    put32(w->stored, w->n_raw);
    put32(w->stored + 4, stored);
    put64(w->stored + 8,
          gdn_store_chunk_hash(w->plain_hash, w->n_chunk, w->n_raw, stored, data));
    const gdn_status st = write_at(w, w->stored, GDN_STORE_CHUNK_HEAD + n, w->length, err);
    w->length += GDN_STORE_CHUNK_HEAD + n;
    w->n_chunk++;
    w->n_raw = 0;
    return st;
}

gdn_status gdn_store_put(gdn_store_writer *w, gdn_queue *q, gdn_buffer *from, uint64_t at,
                         uint64_t bytes, gdn_err *err) {
    while (bytes > 0) {
        const uint64_t room = GDN_STORE_CHUNK - w->n_raw, n = bytes < room ? bytes : room;
        gdn_status st = gdn_queue_read(q, w->raw + w->n_raw, from, at, n, err);
        w->n_raw += (uint32_t)n;
        at += n;
        bytes -= n;
        if (st == GDN_OK && w->n_raw == GDN_STORE_CHUNK) {
            st = gdn_queue_wait(q, err);
            if (st == GDN_OK) st = flush(w, err);
        }
        if (st != GDN_OK) return st;
    }
    return GDN_OK;
}

/* That the new name is on the disk as well; some file systems cannot be asked. */
static void sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL   ? strdup(".")
                   : slash == path ? strdup("/")
                                   : strndup(path, (size_t)(slash - path));
    const int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

gdn_status gdn_store_finish(gdn_store_writer *w, gdn_store_head *h, gdn_err *err) {
    unsigned char head[GDN_STORE_HEAD];
    gdn_status st = w->n_raw > 0 ? flush(w, err) : GDN_OK;
    if (st != GDN_OK) return st;
    h->file_bytes = w->length;
    h->plain_hash = w->plain_hash;
    gdn_store_pack(h, head);
    st = write_at(w, head, sizeof head, 0, err);
    if (st != GDN_OK) return st;
    if (fsync(w->fd) != 0 || rename(w->partial, w->path) != 0) return io_error(w, err);
    w->mine = false;
    sync_folder(w->path);
    return GDN_OK;
}

void gdn_store_free(gdn_store_writer *w) {
    if (w == NULL) return;
    if (w->mine) unlink(w->partial); /* before the lock goes */
    if (w->fd >= 0) close(w->fd);
    ZSTD_freeCCtx(w->zstd);
    free(w->raw);
    free(w->stored);
    free(w->path);
    free(w->partial);
    free(w);
}
