/* store_read.c - reading a session's file, none of which is trusted. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>
#include <zstd.h>

#include "../base/err.h"
#include "store.h"

struct gdn_store_reader {
    char *path;
    int   fd;
    gdn_store_head head;
    uint64_t at;           /* of the next chunk in the file                 */
    uint64_t n_chunk;      /* chunks before it                              */
    uint64_t left;         /* bytes of the body behind the chunk under way  */
    ZSTD_DCtx *zstd;
    unsigned char *stored; /* [GDN_STORE_CHUNK]                             */
    unsigned char *raw;    /* [GDN_STORE_CHUNK] n_raw bytes, `used` of them */
    uint32_t n_raw, used;
};

static uint32_t get32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const unsigned char *p) { return get32(p) | (uint64_t)get32(p + 4) << 32; }

static gdn_status read_at(const gdn_store_reader *r, void *to, uint64_t n, uint64_t at,
                          gdn_err *err) {
    char *out = to;
    while (n > 0) {
        const ssize_t k = pread(r->fd, out, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0)
            return gdn_fail(err, GDN_E_IO, "%s: cannot be read: %s", r->path, strerror(errno));
        if (k == 0)
            return gdn_fail(err, GDN_E_FORMAT, "%s: ends at byte %" PRIu64 ", which is too soon",
                            r->path, at);
        out += k;
        at += (uint64_t)k;
        n -= (uint64_t)k;
    }
    return GDN_OK;
}

static void words(char out[GDN_STORE_WORDS], const unsigned char *from) {
    memcpy(out, from, GDN_STORE_WORDS);
    out[GDN_STORE_WORDS - 1] = '\0';
}

/* The numbers of a head whose hash is right may still be anybody's. */
static gdn_status check_head(gdn_store_reader *r, uint64_t length, gdn_err *err) {
    const gdn_store_head *h = &r->head;
    if (h->file_bytes != length)
        return gdn_fail(err, GDN_E_FORMAT, "%s: %" PRIu64 " bytes, and its head says %" PRIu64,
                        r->path, length, h->file_bytes);
    const uint64_t room = length - GDN_STORE_HEAD;
    if (h->n_token > room / 4 || h->n_token > INT32_MAX || h->n_snapshot > h->n_token ||
        h->n_note > room || 4 * (h->n_token + h->n_snapshot) + h->n_note > room)
        return gdn_fail(err, GDN_E_FORMAT,
                        "%s: %" PRIu64 " bytes with %" PRIu64 " tokens, %" PRIu64 " snapshots "
                        "and a note of %" PRIu64 " bytes", r->path, length, h->n_token,
                        h->n_snapshot, h->n_note);
    return GDN_OK;
}

static gdn_status read_head(gdn_store_reader *r, gdn_err *err) {
    unsigned char b[GDN_STORE_HEAD];
    struct stat s;
    if (fstat(r->fd, &s) != 0)
        return gdn_fail(err, GDN_E_IO, "%s: cannot be read: %s", r->path, strerror(errno));
    if (!S_ISREG(s.st_mode)) return gdn_fail(err, GDN_E_IO, "%s: is no file", r->path);
    const uint64_t length = (uint64_t)s.st_size;
    if (length < GDN_STORE_HEAD)
        return gdn_fail(err, GDN_E_FORMAT, "%s: %" PRIu64 " bytes are no saved session", r->path,
                        length);
    const gdn_status st = read_at(r, b, sizeof b, 0, err);
    if (st != GDN_OK) return st;
    if (memcmp(b, "gdn save", 8) != 0)
        return gdn_fail(err, GDN_E_FORMAT, "%s: is no saved session", r->path);
    const uint32_t version = get32(b + 8);
    if (version != GDN_STORE_VERSION)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "%s: a session of version %u; version %d is read here", r->path, version,
                        GDN_STORE_VERSION);
    if (XXH3_64bits(b, GDN_STORE_HEAD - 8) != get64(b + GDN_STORE_HEAD - 8))
        return gdn_fail(err, GDN_E_FORMAT, "%s: damaged: the hash of its head is wrong", r->path);
    gdn_store_head *h = &r->head;
    h->flags = get32(b + 12);
    h->file_bytes = get64(b + 16);
    h->n_token = get64(b + 24);
    h->n_snapshot = get64(b + 32);
    h->n_note = get64(b + 40);
    h->body_bytes = get64(b + 48);
    h->plain_hash = get64(b + 56);
    h->model = get64(b + 64);
    h->adapter = get64(b + 72);
    words(h->kernels, b + 80);
    words(h->types, b + 128);
    return check_head(r, length, err);
}

static void rewind_body(gdn_store_reader *r) {
    const gdn_store_head *h = &r->head;
    r->at = GDN_STORE_HEAD + 4 * (h->n_token + h->n_snapshot) + h->n_note;
    r->left = h->body_bytes;
    r->n_chunk = 0;
    r->n_raw = r->used = 0;
}

gdn_status gdn_store_open(const char *path, gdn_store_reader **out, gdn_err *err) {
    gdn_store_reader *r = calloc(1, sizeof *r);
    gdn_status st = GDN_OK;
    if (r != NULL) {
        r->fd = -1;
        r->path = strdup(path);
        r->raw = malloc(GDN_STORE_CHUNK);
        r->stored = malloc(GDN_STORE_CHUNK);
        r->zstd = ZSTD_createDCtx();
    }
    if (r == NULL || r->path == NULL || r->raw == NULL || r->stored == NULL || r->zstd == NULL)
        st = gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", path);
    /* Without waiting for a writer, should it be a pipe. */
    if (st == GDN_OK && (r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0)
        st = gdn_fail(err, GDN_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (st == GDN_OK) st = read_head(r, err);
    if (st == GDN_OK) {
        rewind_body(r);
        *out = r;
    } else {
        gdn_store_close(r);
    }
    return st;
}

void gdn_store_close(gdn_store_reader *r) {
    if (r == NULL) return;
    if (r->fd >= 0) close(r->fd);
    ZSTD_freeDCtx(r->zstd);
    free(r->raw);
    free(r->stored);
    free(r->path);
    free(r);
}

const gdn_store_head *gdn_store_get_head(const gdn_store_reader *r) { return &r->head; }

gdn_status gdn_store_plain(gdn_store_reader *r, unsigned char **out, gdn_err *err) {
    const gdn_store_head *h = &r->head;
    const uint64_t n = 4 * (h->n_token + h->n_snapshot) + h->n_note;
    unsigned char *p = malloc(n + 1);
    if (p == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: out of memory", r->path);
    gdn_status st = read_at(r, p, n, GDN_STORE_HEAD, err);
    if (st == GDN_OK && gdn_store_plain_hash(p, n) != h->plain_hash)
        st = gdn_fail(err, GDN_E_FORMAT,
                      "%s: damaged: the hash of its tokens and note is wrong", r->path);
    if (st == GDN_OK) *out = p;
    else free(p);
    return st;
}

static gdn_status next_chunk(gdn_store_reader *r, gdn_err *err) {
    unsigned char b[GDN_STORE_CHUNK_HEAD];
    gdn_status st = read_at(r, b, sizeof b, r->at, err);
    if (st != GDN_OK) return st;
    const uint32_t raw = get32(b), stored = get32(b + 4);
    const uint64_t want = r->left < GDN_STORE_CHUNK ? r->left : GDN_STORE_CHUNK;
    if (raw != want || stored > raw)
        return gdn_fail(err, GDN_E_FORMAT,
                        "%s: damaged: chunk %" PRIu64 " has %u bytes in %u, and %" PRIu64
                        " are due", r->path, r->n_chunk, raw, stored, want);
    st = read_at(r, r->stored, stored, r->at + sizeof b, err);
    if (st != GDN_OK) return st;
    if (gdn_store_chunk_hash(r->head.plain_hash, r->n_chunk, raw, stored, r->stored) !=
        get64(b + 8))
        return gdn_fail(err, GDN_E_FORMAT, "%s: damaged: the hash of chunk %" PRIu64 " is wrong",
                        r->path, r->n_chunk);
    if (stored == raw) {
        memcpy(r->raw, r->stored, raw);
    } else {
        const size_t n = ZSTD_decompressDCtx(r->zstd, r->raw, GDN_STORE_CHUNK, r->stored, stored);
        if (ZSTD_isError(n) || n != raw)
            return gdn_fail(err, GDN_E_FORMAT,
                            "%s: damaged: chunk %" PRIu64 " does not decompress to %u bytes: %s",
                            r->path, r->n_chunk, raw,
                            ZSTD_isError(n) ? ZSTD_getErrorName(n) : "its length is another");
    }
    r->at += sizeof b + stored;
    r->left -= raw;
    r->n_chunk++;
    r->n_raw = raw;
    r->used = 0;
    return GDN_OK;
}

gdn_status gdn_store_verify(gdn_store_reader *r, gdn_err *err) {
    rewind_body(r);
    while (r->left > 0) {
        const gdn_status st = next_chunk(r, err);
        if (st != GDN_OK) return st;
    }
    if (r->at != r->head.file_bytes)
        return gdn_fail(err, GDN_E_FORMAT, "%s: its contents end at byte %" PRIu64 " of %" PRIu64,
                        r->path, r->at, r->head.file_bytes);
    rewind_body(r);
    return GDN_OK;
}

gdn_status gdn_store_get(gdn_store_reader *r, gdn_queue *q, gdn_buffer *to, uint64_t at,
                         uint64_t bytes, gdn_err *err) {
    while (bytes > 0) {
        if (r->used == r->n_raw) {
            if (r->left == 0)
                return gdn_fail(err, GDN_E_FORMAT, "%s: its contents end too soon", r->path);
            const gdn_status st = next_chunk(r, err);
            if (st != GDN_OK) return st;
        }
        const uint64_t have = r->n_raw - r->used, n = bytes < have ? bytes : have;
        if (to != NULL) {
            const gdn_status st = gdn_queue_write(q, to, at, r->raw + r->used, n, err);
            if (st != GDN_OK) return st;
        }
        r->used += (uint32_t)n;
        at += n;
        bytes -= n;
    }
    return GDN_OK;
}
