/* st_write.c - the streaming safetensors writer.
 *
 * The header's text grows while tensors are declared; the first data closes it, pads it
 * with spaces to a multiple of 8 (so that the data is aligned) and puts it in front. */
#include "st_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

enum { PREFIX = 8, BUFFER = 1 << 20 };
static const uint64_t MAX_HEADER = 100u << 20; /* what readers accept */

struct gdn_st_writer {
    char *path, *partial;
    FILE *f;
    char *head; /* the text of all tensors so far, without braces */
    size_t head_len, head_room;
    json_t *meta, *names; /* names: an object used as a set */
    uint64_t declared, written;
    bool started;
};

static gdn_status no_memory(const gdn_st_writer *w, gdn_err *err) {
    return gdn_fail(err, GDN_E_NOMEM, "%s: no memory to write it", w->path);
}

static gdn_status io_error(const gdn_st_writer *w, gdn_err *err) {
    return gdn_fail(err, GDN_E_IO, "%s: %s", w->path, strerror(errno));
}

gdn_status gdn_st_writer_create(const char *path, gdn_st_writer **out, gdn_err *err) {
    gdn_status st = GDN_OK;
    struct stat s;
    if (stat(path, &s) == 0 && !S_ISREG(s.st_mode))
        return gdn_fail(err, GDN_E_INVALID, "%s: not a plain file", path);
    gdn_st_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: no memory to write it", path);
    w->path = strdup(path);
    if (asprintf(&w->partial, "%s.partial", path) < 0) w->partial = NULL;
    w->meta = json_object();
    w->names = json_object();
    if (w->path == NULL || w->partial == NULL || w->meta == NULL || w->names == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory to write it", path);
        goto done;
    }
    w->f = fopen(w->partial, "wbe");
    if (w->f == NULL) {
        st = io_error(w, err);
        goto done;
    }
    setvbuf(w->f, NULL, _IOFBF, BUFFER);

done:
    if (st == GDN_OK)
        *out = w;
    else
        gdn_st_writer_free(w);
    return st;
}

void gdn_st_writer_free(gdn_st_writer *w) {
    if (w == NULL) return;
    if (w->f != NULL) {
        fclose(w->f);
        unlink(w->partial);
    }
    json_decref(w->meta);
    json_decref(w->names);
    free(w->head);
    free(w->partial);
    free(w->path);
    free(w);
}

/* jansson refuses text that is not UTF-8 as it fails without memory: errno, set to 0
 * before, tells which. */
static gdn_status bad_text(const gdn_st_writer *w, const char *what, gdn_err *err) {
    if (errno == ENOMEM) return no_memory(w, err);
    return gdn_fail(err, GDN_E_INVALID, "%s: text of %s is not UTF-8", w->path, what);
}

/* Add formatted text to the header. */
static gdn_status put(gdn_st_writer *w, gdn_err *err, const char *fmt, ...)
    GDN_PRINTF(3, 4);
static gdn_status put(gdn_st_writer *w, gdn_err *err, const char *fmt, ...) {
    for (;;) {
        va_list ap;
        va_start(ap, fmt);
        const size_t room = w->head_room - w->head_len;
        const int n =
            vsnprintf(w->head != NULL ? w->head + w->head_len : NULL, room, fmt, ap);
        va_end(ap);
        if (n < 0) return no_memory(w, err);
        if ((size_t)n < room) {
            w->head_len += (size_t)n;
            return GDN_OK;
        }
        const size_t want = 2 * (w->head_len + (size_t)n) + 4096;
        char *grown = realloc(w->head, want);
        if (grown == NULL) return no_memory(w, err);
        w->head = grown;
        w->head_room = want;
    }
}

gdn_status gdn_st_writer_meta(gdn_st_writer *w, const char *key, const char *value,
                              gdn_err *err) {
    if (w->started)
        return gdn_fail(err, GDN_E_INVALID, "%s: metadata after data", w->path);
    errno = 0;
    json_t *v = json_string(value);
    if (v == NULL || json_object_set_new(w->meta, key, v) != 0)
        return bad_text(w, key, err);
    return GDN_OK;
}

gdn_status gdn_st_writer_add(gdn_st_writer *w, const char *name, gdn_st_dtype dtype,
                             int32_t ndim, const int64_t *shape, gdn_err *err) {
    if (w->started)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s is declared after data", w->path,
                        name);
    if (ndim < 0 || ndim > GDN_ST_MAX_DIM)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s has %d dimensions", w->path, name,
                        (int)ndim);
    uint64_t bytes = (uint64_t)gdn_st_dtype_size(dtype);
    if (w->declared % bytes != 0)
        return gdn_fail(err, GDN_E_INVALID,
                        "%s: %s of type %s would lie at odd byte %" PRIu64, w->path, name,
                        gdn_st_dtype_name(dtype), w->declared);
    for (int32_t i = 0; i < ndim; i++) {
        if (shape[i] < 0 ||
            (shape[i] > 0 && bytes > (uint64_t)INT64_MAX / (uint64_t)shape[i]))
            return gdn_fail(err, GDN_E_INVALID, "%s: %s has a bad shape", w->path, name);
        bytes *= (uint64_t)shape[i];
    }
    if (bytes > (uint64_t)INT64_MAX - w->declared)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s is too large", w->path, name);

    if (strcmp(name, "__metadata__") == 0 || json_object_get(w->names, name) != NULL)
        return gdn_fail(err, GDN_E_INVALID, "%s: %s is declared twice", w->path, name);
    errno = 0;
    json_t *text = json_string(name);
    char *quoted = text != NULL ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    const bool taken =
        quoted != NULL && json_object_set_new(w->names, name, json_true()) == 0;
    json_decref(text);
    if (!taken) {
        free(quoted);
        return bad_text(w, name, err);
    }
    const size_t before = w->head_len;
    gdn_status st = put(w, err, "%s%s:{\"dtype\":\"%s\",\"shape\":[",
                        w->head_len > 0 ? "," : "", quoted, gdn_st_dtype_name(dtype));
    for (int32_t i = 0; st == GDN_OK && i < ndim; i++)
        st = put(w, err, "%s%" PRId64, i > 0 ? "," : "", shape[i]);
    if (st == GDN_OK)
        st = put(w, err, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", w->declared,
                 w->declared + bytes);
    free(quoted);
    if (st == GDN_OK)
        w->declared += bytes;
    else
        w->head_len = before;
    return st;
}

/* The header as a whole; free() it. */
static char *make_head(const gdn_st_writer *w, size_t *len) {
    char *meta = json_object_size(w->meta) > 0 ? json_dumps(w->meta, JSON_COMPACT) : NULL;
    char *s = NULL;
    if (json_object_size(w->meta) > 0 && meta == NULL) return NULL;
    const int n =
        asprintf(&s, "{%s%s%s%s}       ", meta != NULL ? "\"__metadata__\":" : "",
                 meta != NULL ? meta : "", meta != NULL && w->head_len > 0 ? "," : "",
                 w->head_len > 0 ? w->head : "");
    free(meta);
    if (n < 0) return NULL;
    *len = (size_t)n / 8 * 8; /* seven spaces at the end: cut to a multiple of 8 */
    return s;
}

uint64_t gdn_st_writer_file_bytes(const gdn_st_writer *w) {
    size_t len = 0;
    char *s = make_head(w, &len);
    free(s);
    return PREFIX + len + w->declared;
}

static gdn_status start(gdn_st_writer *w, gdn_err *err) {
    gdn_status st = GDN_OK;
    size_t len = 0;
    char *s = make_head(w, &len);
    if (s == NULL) return no_memory(w, err);
    w->started = true;
    if (len > MAX_HEADER) {
        st = gdn_fail(err, GDN_E_INVALID, "%s: a header of %zu bytes", w->path, len);
        goto done;
    }
    /* Not every file system can reserve; then a full disk shows later. */
    const uint64_t total = PREFIX + len + w->declared;
    if (fallocate(fileno(w->f), 0, 0, (off_t)total) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
        st = gdn_fail(err, GDN_E_IO, "%s: %s (it needs %" PRIu64 " MiB)", w->path,
                      strerror(errno), (total >> 20) + 1);
        goto done;
    }
    unsigned char prefix[PREFIX];
    for (int i = 0; i < PREFIX; i++) prefix[i] = (unsigned char)((uint64_t)len >> 8 * i);
    if (fwrite(prefix, 1, PREFIX, w->f) != PREFIX || fwrite(s, 1, len, w->f) != len)
        st = io_error(w, err);

done:
    free(s);
    return st;
}

gdn_status gdn_st_writer_append(gdn_st_writer *w, const void *data, uint64_t bytes,
                                gdn_err *err) {
    if (!w->started) {
        const gdn_status st = start(w, err);
        if (st != GDN_OK) return st;
    }
    if (bytes > w->declared - w->written)
        return gdn_fail(err, GDN_E_INVALID, "%s: more data than declared", w->path);
    if (bytes > 0 && fwrite(data, 1, (size_t)bytes, w->f) != bytes)
        return io_error(w, err);
    w->written += bytes;
    return GDN_OK;
}

gdn_status gdn_st_writer_finish(gdn_st_writer *w, gdn_err *err) {
    gdn_status st = GDN_OK;
    if (w->f == NULL)
        return gdn_fail(err, GDN_E_INVALID, "%s: already finished", w->path);
    if (!w->started) st = start(w, err);
    if (st != GDN_OK) return st;
    if (w->written != w->declared)
        return gdn_fail(err, GDN_E_INVALID,
                        "%s: %" PRIu64 " of %" PRIu64 " bytes of data", w->path,
                        w->written, w->declared);
    const bool bad = ferror(w->f) != 0;
    if (fclose(w->f) != 0 || bad || rename(w->partial, w->path) != 0) {
        st = io_error(w, err);
        unlink(w->partial);
    }
    w->f = NULL;
    return st;
}
