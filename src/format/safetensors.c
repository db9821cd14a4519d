/* safetensors.c - opening and checking a checkpoint of safetensors files.
 *
 * Each file is mapped, its JSON head becomes entries of one table of all tensors, and the
 * entries of a file are sorted by their place in it: then one walk shows overlaps, gaps
 * and bytes that belong to nobody.  Names are found by binary search in a sorted list,
 * which no choice of names can make slow. */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "fields.h"

enum { PREFIX = 8, MAX_SHARDS = 10000 };
/* Far above any real header (some MiB), far below what would exhaust the memory. */
static const uint64_t MAX_HEADER = 100u << 20;

typedef struct {
    char *path;
    const unsigned char *map; /* NULL until mapped */
    uint64_t bytes;
    json_t *meta; /* object of strings, or NULL */
} st_file;

struct gdn_weights {
    st_file *file;
    gdn_st_tensor *t; /* by file, then by place */
    gdn_st_tensor **by_name;
    int32_t n_file;
    int64_t n, room;
    uint64_t total;
};

typedef unsigned long long ull; /* for %llu */

static const struct {
    const char *word;
    int32_t size;
} dtypes[GDN_ST_N_DTYPE] = {
#define X(name, text, size) {text, size},
    GDN_ST_DTYPE_LIST(X)
#undef X
};

const char *gdn_st_dtype_name(gdn_st_dtype t) {
    return dtypes[t].word;
}
int32_t gdn_st_dtype_size(gdn_st_dtype t) {
    return dtypes[t].size;
}

int gdn_st_dtype_of(const char *word) {
    for (int i = 0; i < GDN_ST_N_DTYPE; i++)
        if (strcmp(word, dtypes[i].word) == 0) return i;
    return -1;
}

/* --- one file --------------------------------------------------------------- */

static gdn_status map_file(st_file *f, gdn_err *err) {
    gdn_status st = GDN_OK;
    struct stat s;
    const int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return gdn_fail(err, GDN_E_IO, "%s: %s", f->path, strerror(errno));
    if (fstat(fd, &s) != 0) {
        st = gdn_fail(err, GDN_E_IO, "%s: %s", f->path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(s.st_mode)) {
        st = gdn_fail(err, GDN_E_IO, "%s: not a plain file", f->path);
        goto done;
    }
    f->bytes = (uint64_t)s.st_size;
    if (f->bytes < PREFIX) {
        st = gdn_fail(err, GDN_E_FORMAT, "%s: %llu bytes, too short for a header",
                      f->path, (ull)f->bytes);
        goto done;
    }
    if (f->bytes > SIZE_MAX) {
        st = gdn_fail(err, GDN_E_IO, "%s: %llu bytes, too large to map", f->path,
                      (ull)f->bytes);
        goto done;
    }
    void *p = mmap(NULL, (size_t)f->bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        st = gdn_fail(err, GDN_E_IO, "%s: %s", f->path, strerror(errno));
    else
        f->map = p;

done:
    close(fd);
    return st;
}

/* The two numbers of "data_offsets" against the size of the data. */
static gdn_status read_offsets(const st_file *f, const char *name, const json_t *v,
                               uint64_t data_len, uint64_t at[2], gdn_err *err) {
    if (!json_is_array(v) || json_array_size(v) != 2)
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s: data_offsets is not a pair", f->path,
                        name);
    for (size_t i = 0; i < 2; i++) {
        const json_t *x = json_array_get(v, i);
        if (!json_is_integer(x) || json_integer_value(x) < 0)
            return gdn_fail(err, GDN_E_FORMAT,
                            "%s: %s: data_offsets are not integers from 0", f->path,
                            name);
        at[i] = (uint64_t)json_integer_value(x);
    }
    if (at[0] > at[1])
        return gdn_fail(err, GDN_E_FORMAT,
                        "%s: %s: data_offsets run from %llu back to %llu", f->path, name,
                        (ull)at[0], (ull)at[1]);
    if (at[1] > data_len)
        return gdn_fail(err, GDN_E_FORMAT,
                        "%s: %s ends at byte %llu of the data, but the file holds %llu; "
                        "is it truncated?",
                        f->path, name, (ull)at[1], (ull)data_len);
    return GDN_OK;
}

/* Shape and byte count; every product is checked before it is made. */
static gdn_status read_shape(const st_file *f, const char *name, const json_t *v,
                             gdn_st_tensor *t, gdn_err *err) {
    if (!json_is_array(v))
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s: shape is not a list", f->path, name);
    const size_t n = json_array_size(v);
    if (n > GDN_ST_MAX_DIM)
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s has %zu dimensions; need at most %d",
                        f->path, name, n, GDN_ST_MAX_DIM);
    t->ndim = (int32_t)n;
    uint64_t product = (uint64_t)dtypes[t->dtype].size;
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(v, i);
        if (!json_is_integer(x) || json_integer_value(x) < 0)
            return gdn_fail(err, GDN_E_FORMAT,
                            "%s: %s: shape[%zu] is not an integer from 0", f->path, name,
                            i);
        t->shape[i] = json_integer_value(x);
        if (t->shape[i] != 0 && product > (uint64_t)INT64_MAX / (uint64_t)t->shape[i])
            return gdn_fail(err, GDN_E_FORMAT,
                            "%s: %s: the product of its shape overflows", f->path, name);
        product *= (uint64_t)t->shape[i];
    }
    t->bytes = product;
    return GDN_OK;
}

static gdn_status read_tensor(const st_file *f, const char *name, const json_t *v,
                              uint64_t data_at, gdn_st_tensor *t, gdn_err *err) {
    if (!json_is_object(v))
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s is not an object", f->path, name);
    const char *word = json_string_value(json_object_get(v, "dtype"));
    if (word == NULL)
        return gdn_fail(err, GDN_E_FORMAT, "%s: %s: dtype is not a string", f->path,
                        name);
    const int dtype = gdn_st_dtype_of(word);
    if (dtype < 0)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: %s: type %.40s is not supported",
                        f->path, name, word);
    t->dtype = (gdn_st_dtype)dtype;

    gdn_status st = read_shape(f, name, json_object_get(v, "shape"), t, err);
    if (st != GDN_OK) return st;
    uint64_t at[2];
    st = read_offsets(f, name, json_object_get(v, "data_offsets"), f->bytes - data_at, at,
                      err);
    if (st != GDN_OK) return st;
    if (at[1] - at[0] != t->bytes)
        return gdn_fail(
            err, GDN_E_FORMAT,
            "%s: %s has %llu bytes of data, but its type %s and shape need %llu", f->path,
            name, (ull)(at[1] - at[0]), word, (ull)t->bytes);
    /* Relative to a page: that is where the mapping starts. */
    if ((data_at + at[0]) % (uint64_t)dtypes[dtype].size != 0)
        return gdn_fail(
            err, GDN_E_FORMAT,
            "%s: %s lies at byte %llu of the file, which is misaligned for %s", f->path,
            name, (ull)(data_at + at[0]), word);
    t->data = f->map + data_at + at[0];
    return GDN_OK;
}

static gdn_status read_metadata(st_file *f, json_t *v, gdn_err *err) {
    const char *key;
    json_t *x;
    if (!json_is_object(v))
        return gdn_fail(err, GDN_E_FORMAT, "%s: __metadata__ is not an object", f->path);
    json_object_foreach(v, key, x) {
        if (!json_is_string(x))
            return gdn_fail(err, GDN_E_FORMAT, "%s: __metadata__.%s is not a string",
                            f->path, key);
    }
    f->meta = json_incref(v);
    return GDN_OK;
}

/* Zero-sized tensors come before the one whose first byte they share. */
static int by_place(const void *a, const void *b) {
    const gdn_st_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The sorted tensors must cover the data from its first byte to the file's last. */
static gdn_status check_cover(const st_file *f, const gdn_st_tensor *t, int64_t n,
                              const unsigned char *at, gdn_err *err) {
    const unsigned char *const data = at;
    for (int64_t i = 0; i < n; at = t[i].data + t[i].bytes, i++) {
        if (t[i].data < at)
            return gdn_fail(err, GDN_E_FORMAT, "%s: the data of %s and %s overlap",
                            f->path, t[i - 1].name, t[i].name);
        if (t[i].data > at)
            return gdn_fail(
                err, GDN_E_FORMAT,
                "%s: %llu bytes before %s, at byte %llu of the data, belong to "
                "no tensor",
                f->path, (ull)(t[i].data - at), t[i].name, (ull)(at - data));
    }
    const uint64_t left = (uint64_t)(f->map + f->bytes - at);
    if (left > 0)
        return gdn_fail(err, GDN_E_FORMAT,
                        "%s: the last %llu bytes of the file belong to no tensor",
                        f->path, (ull)left);
    return GDN_OK;
}

static gdn_status grow(gdn_weights *w, size_t more, const st_file *f, gdn_err *err) {
    const size_t want = (size_t)w->n + more + 1; /* never none: w->t is an address */
    if (want <= (size_t)w->room) return GDN_OK;
    gdn_st_tensor *t = realloc(w->t, want * sizeof *t);
    if (t == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "%s: no memory for %zu tensors", f->path, want);
    w->t = t;
    w->room = (int64_t)want;
    return GDN_OK;
}

/* Add the tensors of the mapped file number i to the table. */
static gdn_status read_head(gdn_weights *w, int32_t i, gdn_err *err) {
    st_file *f = &w->file[i];
    json_t *head = NULL, *v;
    const char *name;
    uint64_t len = 0;

    for (int b = PREFIX - 1; b >= 0; b--) len = len << 8 | f->map[b];
    /* Subtract, do not add: len comes from the file and a sum could wrap. */
    if (len > f->bytes - PREFIX || len > MAX_HEADER)
        return gdn_fail(err, GDN_E_FORMAT, "%s: a header of %llu bytes in a file of %llu",
                        f->path, (ull)len, (ull)f->bytes);
    if (len == 0 || f->map[PREFIX] != '{')
        return gdn_fail(err, GDN_E_FORMAT, "%s: the header does not begin with '{'",
                        f->path);
    gdn_status st =
        gdn_fields_parse((const char *)f->map + PREFIX, (size_t)len, f->path, &head, err);
    if (st != GDN_OK) return st;

    st = grow(w, json_object_size(head), f, err);
    if (st != GDN_OK) goto done;
    const int64_t first = w->n;
    json_object_foreach(head, name, v) {
        if (strcmp(name, "__metadata__") == 0) {
            st = read_metadata(f, v, err);
            if (st != GDN_OK) goto done;
            continue;
        }
        gdn_st_tensor t = {.file = i};
        st = read_tensor(f, name, v, PREFIX + len, &t, err);
        if (st != GDN_OK) goto done;
        t.name = strdup(name);
        if (t.name == NULL) {
            st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory for names", f->path);
            goto done;
        }
        w->total += t.bytes;
        w->t[w->n++] = t;
    }
    if (w->n > first) qsort(w->t + first, (size_t)(w->n - first), sizeof *w->t, by_place);
    st = check_cover(f, w->t + first, w->n - first, f->map + PREFIX + len, err);

done:
    json_decref(head);
    return st;
}

/* --- the index of a checkpoint in several files -------------------------------- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool plain_name(const char *s) {
    return s[0] != '\0' && s[0] != '.' && strchr(s, '/') == NULL &&
           strchr(s, '\\') == NULL;
}

/* The different file names of weight_map, sorted; *list borrows its strings from map. */
static gdn_status shard_names(const json_t *map, const char *index, const char ***list,
                              size_t *n_list, gdn_err *err) {
    const char *name;
    json_t *v;
    const size_t n = json_object_size(map);
    size_t have = 0, kept = 0;

    if (n == 0)
        return gdn_fail(err, GDN_E_FORMAT, "%s: weight_map is not an object with tensors",
                        index);
    const char **s = malloc(n * sizeof *s);
    if (s == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: %zu names", index, n);
    json_object_foreach((json_t *)map, name, v) {
        if (!json_is_string(v) || !plain_name(json_string_value(v))) {
            free(s);
            return gdn_fail(err, GDN_E_FORMAT,
                            "%s: weight_map.%s is not the plain name of a file beside it",
                            index, name);
        }
        s[have++] = json_string_value(v);
    }
    qsort(s, n, sizeof *s, by_text);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || strcmp(s[kept - 1], s[i]) != 0) s[kept++] = s[i];
    if (kept > MAX_SHARDS) {
        free(s);
        return gdn_fail(err, GDN_E_FORMAT, "%s: %zu files; need at most %d", index, kept,
                        MAX_SHARDS);
    }
    *list = s;
    *n_list = kept;
    return GDN_OK;
}

/* What the index says and what the shards hold must be the same. */
static gdn_status check_index(const gdn_weights *w, const json_t *map, const char *index,
                              gdn_err *err) {
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)map, name, v) {
        const gdn_st_tensor *t = gdn_weights_find(w, name);
        const char *shard = json_string_value(v);
        if (t == NULL)
            return gdn_fail(err, GDN_E_FORMAT, "%s: %s is not in %s", index, name, shard);
        const char *slash = strrchr(w->file[t->file].path, '/');
        if (strcmp(slash + 1, shard) != 0)
            return gdn_fail(err, GDN_E_FORMAT, "%s: %s is not in %s but in %s", index,
                            name, shard, slash + 1);
    }
    for (int64_t i = 0; i < w->n; i++)
        if (json_object_get(map, w->t[i].name) == NULL)
            return gdn_fail(err, GDN_E_FORMAT, "%s: %s is not in the index",
                            w->file[w->t[i].file].path, w->t[i].name);
    return GDN_OK;
}

/* --- the checkpoint --------------------------------------------------------------- */

static gdn_status add_file(gdn_weights *w, char *path, gdn_err *err) {
    st_file *f = &w->file[w->n_file];
    f->path = path; /* owned from here on */
    if (path == NULL) return gdn_fail(err, GDN_E_NOMEM, "no memory for a path");
    w->n_file++;
    const gdn_status st = map_file(f, err);
    return st != GDN_OK ? st : read_head(w, w->n_file - 1, err);
}

static char *join(const char *dir, const char *name) {
    char *s;
    return asprintf(&s, "%s/%s", dir, name) < 0 ? NULL : s;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(gdn_st_tensor *const *)a)->name, (*(gdn_st_tensor *const *)b)->name);
}

static gdn_status sort_names(gdn_weights *w, const char *path, gdn_err *err) {
    w->by_name = malloc((size_t)(w->n + 1) * sizeof *w->by_name);
    if (w->by_name == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "%s: no memory for names", path);
    for (int64_t i = 0; i < w->n; i++) w->by_name[i] = &w->t[i];
    qsort(w->by_name, (size_t)w->n, sizeof *w->by_name, by_name);
    for (int64_t i = 1; i < w->n; i++) {
        const gdn_st_tensor *a = w->by_name[i - 1], *b = w->by_name[i];
        if (strcmp(a->name, b->name) == 0)
            return gdn_fail(err, GDN_E_FORMAT, "%s: %s is also in %s",
                            gdn_weights_path(w, b), b->name, gdn_weights_path(w, a));
    }
    return GDN_OK;
}

static gdn_status open_shards(gdn_weights *w, const char *dir, const char *index,
                              gdn_err *err) {
    char *text = NULL;
    const char **shard = NULL;
    json_t *j = NULL;
    size_t n = 0, n_shard = 0;

    gdn_status st = gdn_fields_slurp(index, (size_t)MAX_HEADER, &text, &n, err);
    if (st != GDN_OK) goto done;
    st = gdn_fields_parse(text, n, index, &j, err);
    if (st != GDN_OK) goto done;
    const json_t *map = json_object_get(j, "weight_map");
    st = shard_names(map, index, &shard, &n_shard, err);
    if (st != GDN_OK) goto done;
    w->file = calloc(n_shard, sizeof *w->file);
    if (w->file == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory for %zu files", index, n_shard);
        goto done;
    }
    for (size_t i = 0; st == GDN_OK && i < n_shard; i++)
        st = add_file(w, join(dir, shard[i]), err);
    if (st == GDN_OK) st = sort_names(w, index, err);
    if (st == GDN_OK) st = check_index(w, map, index, err);

done:
    free(shard);
    json_decref(j);
    free(text);
    return st;
}

static gdn_status open_single(gdn_weights *w, char *path, gdn_err *err) {
    w->file = calloc(1, sizeof *w->file);
    if (w->file == NULL) {
        free(path);
        return gdn_fail(err, GDN_E_NOMEM, "no memory for a file");
    }
    const gdn_status st = add_file(w, path, err);
    return st != GDN_OK ? st : sort_names(w, w->file[0].path, err);
}

static gdn_status open_folder(gdn_weights *w, const char *dir, gdn_err *err) {
    gdn_status st;
    char *single = join(dir, "model.safetensors");
    char *index = join(dir, "model.safetensors.index.json");
    if (single == NULL || index == NULL)
        st = gdn_fail(err, GDN_E_NOMEM, "%s: path", dir);
    else if (access(single, F_OK) == 0) {
        st = open_single(w, single, err);
        single = NULL;
    } else if (access(index, F_OK) == 0)
        st = open_shards(w, dir, index, err);
    else
        st = gdn_fail(
            err, GDN_E_IO,
            "%s: neither model.safetensors nor model.safetensors.index.json in it", dir);
    free(single);
    free(index);
    return st;
}

gdn_status gdn_weights_open(const char *path, gdn_weights **out, gdn_err *err) {
    gdn_status st;
    struct stat s;
    if (stat(path, &s) != 0)
        return gdn_fail(err, GDN_E_IO, "%s: %s", path, strerror(errno));
    gdn_weights *w = calloc(1, sizeof *w);
    if (w == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: no memory", path);
    st = S_ISDIR(s.st_mode) ? open_folder(w, path, err)
                            : open_single(w, strdup(path), err);
    if (st == GDN_OK)
        *out = w;
    else
        gdn_weights_close(w);
    return st;
}

void gdn_weights_close(gdn_weights *w) {
    if (w == NULL) return;
    for (int64_t i = 0; i < w->n; i++) free((char *)w->t[i].name);
    for (int32_t i = 0; i < w->n_file; i++) {
        st_file *f = &w->file[i];
        if (f->map != NULL) munmap((void *)f->map, (size_t)f->bytes);
        json_decref(f->meta);
        free(f->path);
    }
    free(w->by_name);
    free(w->t);
    free(w->file);
    free(w);
}

/* --- asking ------------------------------------------------------------------------- */

int64_t gdn_weights_count(const gdn_weights *w) {
    return w->n;
}
gdn_st_tensor *gdn_weights_at(const gdn_weights *w, int64_t i) {
    return &w->t[i];
}
uint64_t gdn_weights_total_bytes(const gdn_weights *w) {
    return w->total;
}

const char *gdn_weights_path(const gdn_weights *w, const gdn_st_tensor *t) {
    return w->file[t->file].path;
}

static int find_name(const void *key, const void *entry) {
    return strcmp(key, (*(gdn_st_tensor *const *)entry)->name);
}

gdn_st_tensor *gdn_weights_find(const gdn_weights *w, const char *name) {
    gdn_st_tensor **at =
        bsearch(name, w->by_name, (size_t)w->n, sizeof *w->by_name, find_name);
    return at == NULL ? NULL : *at;
}

const char *gdn_weights_metadata(const gdn_weights *w, const char *key) {
    for (int32_t i = 0; i < w->n_file; i++) {
        const char *s = json_string_value(json_object_get(w->file[i].meta, key));
        if (s != NULL) return s;
    }
    return NULL;
}

void gdn_weights_release(const gdn_weights *w, const void *at, uint64_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = (uintptr_t)at, to = from + (uintptr_t)bytes;
    for (int32_t i = 0; i < w->n_file; i++) {
        const uintptr_t lo = (uintptr_t)w->file[i].map, hi = lo + w->file[i].bytes;
        if (from < lo || to > hi || from > to) continue;
        const uintptr_t a = (from + page - 1) / page * page, b = to / page * page;
        /* Advice only: when it fails the memory stays, the data is right either way. */
        if (a < b) (void)madvise((void *)a, b - a, MADV_DONTNEED);
        return;
    }
}
