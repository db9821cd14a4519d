/* logits.c - the logits of given tokens, written to a safetensors file.
 *
 * Tokens go through in chunks whose rows fit a fixed buffer.  The draft head's row of a token
 * needs the token after it in the same call, so the last row of a chunk comes from a second
 * sequence that runs one token ahead of the chunks:
 *
 *     rows    |0 .......... e-2| e-1 |e ........ |
 *     body    |---- chunk, 0 to e ---|- chunk ---|
 *     edge    |------- 0 to e + 1 -----|---------|      its row e-1 only
 *
 * Without a draft head there is no second sequence. */
#include <gdn/tools.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/err.h"
#include "../format/st_write.h"

enum { CHUNK_BYTES = 1 << 28, COPY_BYTES = 1 << 20 };

typedef struct {
    const gdn_logits_opts *o;
    int32_t  vocab, chunk;
    bool     mtp;
    int32_t *want;       /* [n_want] rows to write, ascending                       */
    int32_t *place;      /* [n_want] where each goes among the rows asked for       */
    int32_t  n_want;
    int32_t *out;        /* [chunk] indices of wanted rows within a call            */
    float   *logits;     /* [chunk][vocab]                                          */
    float   *draft;      /* the same of the draft head, or NULL                     */
    float   *kept[2];    /* [n_want][vocab] with positions: rows until all are there */
    FILE    *spill;      /* without: the draft head's rows                          */
    gdn_st_writer *file;
    gdn_engine *engine;
    gdn_seq  *body, *edge;
    int32_t   base;      /* tokens before those of the call under way               */
} job;

static void step(void *arg, uint64_t done, uint64_t total) {
    const job *j = arg;
    (void)total;
    j->o->progress(j->o->arg, (uint64_t)j->base + done, (uint64_t)j->o->n);
}

void gdn_logits_defaults(gdn_logits_opts *o) { *o = (gdn_logits_opts){ .mtp = true }; }

/* --- what is wanted ------------------------------------------------------------- */

static int by_row(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sort the positions, remembering where each row goes. */
static gdn_status plan(job *j, gdn_err *err) {
    const gdn_logits_opts *o = j->o;
    const bool all = o->positions == NULL;
    j->n_want = all ? o->n : o->n_position;
    const size_t n = (size_t)j->n_want;
    int64_t *key = calloc(n, sizeof *key); /* row and place in one number */
    j->want = calloc(n, sizeof *j->want);
    j->place = calloc(n, sizeof *j->place);
    gdn_status st = GDN_OK;
    if (key == NULL || j->want == NULL || j->place == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "out of memory: no room for %d rows", j->n_want);
        goto done;
    }
    for (int32_t i = 0; i < j->n_want; i++) {
        const int32_t p = all ? i : o->positions[i];
        if (p < 0 || p >= o->n) {
            st = gdn_fail(err, GDN_E_INVALID, "position %d is %d; need 0 to %d", i, p,
                          o->n - 1);
            goto done;
        }
        key[i] = (int64_t)p << 32 | i;
    }
    qsort(key, n, sizeof *key, by_row);
    for (int32_t i = 0; i < j->n_want; i++) {
        j->want[i] = (int32_t)(key[i] >> 32);
        j->place[i] = (int32_t)(key[i] & INT32_MAX);
        if (i > 0 && j->want[i] == j->want[i - 1]) {
            st = gdn_fail(err, GDN_E_INVALID, "position %d is given twice", j->want[i]);
            goto done;
        }
    }
done:
    free(key);
    return st;
}

static int64_t mtp_rows(const job *j) {
    return j->n_want - (j->n_want > 0 && j->want[j->n_want - 1] == j->o->n - 1);
}

/* --- rows ------------------------------------------------------------------------ */

/* An unnamed file in the folder of path: it goes when it is closed. */
static gdn_status make_spill(job *j, gdn_err *err) {
    const char *path = j->o->path, *slash = strrchr(path, '/');
    const size_t n = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    static const char name[] = ".gdn-logits-XXXXXX";
    char *tmp = malloc(n + sizeof name);
    if (tmp == NULL) return gdn_fail(err, GDN_E_NOMEM, "out of memory");
    memcpy(tmp, path, n);
    memcpy(tmp + n, name, sizeof name);
    const int fd = mkstemp(tmp);
    if (fd >= 0) unlink(tmp);
    j->spill = fd < 0 ? NULL : fdopen(fd, "w+b");
    if (fd >= 0 && j->spill == NULL) close(fd);
    free(tmp);
    return j->spill != NULL ? GDN_OK
                            : gdn_fail(err, GDN_E_IO, "%s: cannot make a file beside it: %s",
                                       path, strerror(errno));
}

/* Rows [first, first + n) of want have arrived. */
static gdn_status store(job *j, int32_t first, int32_t n, bool has_draft, gdn_err *err) {
    const size_t v = (size_t)j->vocab;
    gdn_status st = GDN_OK;
    if (n == 0) return st;
    if (j->o->positions == NULL) {
        st = gdn_st_writer_append(j->file, j->logits, n * v * sizeof(float), err);
        if (st == GDN_OK && has_draft &&
            fwrite(j->draft, v * sizeof(float), (size_t)n, j->spill) != (size_t)n)
            st = gdn_fail(err, GDN_E_IO, "%s: the file beside it: %s", j->o->path,
                          strerror(errno));
        return st;
    }
    for (int32_t i = 0; i < n; i++) {
        const size_t at = (size_t)j->place[first + i] * v;
        memcpy(j->kept[0] + at, j->logits + (size_t)i * v, v * sizeof(float));
        if (has_draft) memcpy(j->kept[1] + at, j->draft + (size_t)i * v, v * sizeof(float));
    }
    return st;
}

/* Evaluate tokens [from, to) of seq for the n wanted rows from `first` on. */
static gdn_status eval(job *j, gdn_seq *seq, int32_t from, int32_t to, int32_t first, int32_t n,
                       bool draft, gdn_err *err) {
    for (int32_t i = 0; i < n; i++) j->out[i] = j->want[first + i] - from;
    const gdn_work w = { .seq = seq, .tokens = j->o->tokens + from, .n = to - from,
                         .out = j->out, .n_out = n, .logits = j->logits,
                         .mtp = draft ? j->draft : NULL };
    const bool show = j->o->progress != NULL && seq == j->body;
    j->base = from;
    gdn_status st = gdn_engine_eval(j->engine, &w, 1, show ? step : NULL, j, NULL, err);
    return st == GDN_OK ? store(j, first, n, draft, err) : st;
}

static gdn_status run(job *j, gdn_err *err) {
    const gdn_logits_opts *o = j->o;
    gdn_status st = GDN_OK;
    int32_t next = 0;  /* of want */
    int32_t ahead = 0; /* tokens in the edge sequence */
    for (int32_t b = 0; b < o->n && st == GDN_OK; b += j->chunk) {
        const int32_t e = o->n - b < j->chunk ? o->n : b + j->chunk;
        const int32_t end = j->mtp ? e - 1 : e; /* rows of the body */
        int32_t n = 0;
        while (next + n < j->n_want && j->want[next + n] < end) n++;
        /* The last row of all has no draft: where nothing else is wanted here the body
         * gives it.  A last chunk of one token could not come from the edge, which has
         * read it already. */
        const bool tail = next + n < j->n_want && j->want[next + n] == e - 1;
        if (tail && n == 0 && e == o->n) {
            st = eval(j, j->body, b, e, next++, 1, false, err);
            continue;
        }
        st = eval(j, j->body, b, e, next, n, j->mtp, err);
        next += n;
        if (st == GDN_OK && tail) {
            const int32_t to = e < o->n ? e + 1 : e;
            st = eval(j, j->edge, ahead, to, next++, 1, e < o->n, err);
            ahead = to;
        }
    }
    return st;
}

/* --- the file ------------------------------------------------------------------- */

static gdn_status open_file(job *j, gdn_err *err) {
    const int64_t shape[2] = { j->n_want, j->vocab };
    const int64_t mtp_shape[2] = { mtp_rows(j), j->vocab };
    gdn_status st = gdn_st_writer_create(j->o->path, &j->file, err);
    if (st == GDN_OK) st = gdn_st_writer_add(j->file, "logits", GDN_ST_F32, 2, shape, err);
    if (st == GDN_OK && j->mtp)
        st = gdn_st_writer_add(j->file, "mtp_logits", GDN_ST_F32, 2, mtp_shape, err);
    return st;
}

static gdn_status copy_spill(job *j, gdn_err *err) {
    char *buf = malloc(COPY_BYTES);
    if (buf == NULL) return gdn_fail(err, GDN_E_NOMEM, "out of memory");
    gdn_status st = GDN_OK;
    size_t n = 0;
    errno = 0;
    bool ok = fseek(j->spill, 0, SEEK_SET) == 0; /* writes what is still buffered */
    while (ok && st == GDN_OK && (n = fread(buf, 1, COPY_BYTES, j->spill)) > 0)
        st = gdn_st_writer_append(j->file, buf, n, err);
    if (st == GDN_OK && (!ok || ferror(j->spill)))
        st = gdn_fail(err, GDN_E_IO, "%s: the file beside it: %s", j->o->path, strerror(errno));
    free(buf);
    return st;
}

/* Whatever was not streamed, in the order of the file. */
static gdn_status finish_file(job *j, gdn_err *err) {
    const size_t row = (size_t)j->vocab * sizeof(float);
    gdn_status st = GDN_OK;
    if (j->o->positions != NULL) {
        st = gdn_st_writer_append(j->file, j->kept[0], (size_t)j->n_want * row, err);
        for (int32_t i = 0; i < j->n_want && st == GDN_OK && j->mtp; i++)
            if (j->o->positions[i] < j->o->n - 1)
                st = gdn_st_writer_append(j->file, j->kept[1] + (size_t)i * (size_t)j->vocab,
                                          row, err);
    } else if (j->mtp) {
        st = copy_spill(j, err);
    }
    return st == GDN_OK ? gdn_st_writer_finish(j->file, err) : st;
}

static gdn_status prepare(job *j, gdn_model *m, gdn_err *err) {
    const gdn_logits_opts *o = j->o;
    const size_t row = (size_t)j->vocab * sizeof(float);
    const size_t heads = j->mtp ? 2 : 1;
    const size_t most = CHUNK_BYTES / (row * heads);
    j->chunk = most < 2 ? 2 : most > (size_t)o->n ? o->n : (int32_t)most;
    if (j->chunk < 2) j->chunk = 2; /* the edge runs one token ahead */
    const size_t chunk = (size_t)j->chunk;
    j->out = calloc(chunk, sizeof *j->out);
    j->logits = malloc(chunk * row);
    if (j->mtp) j->draft = malloc(chunk * row);
    if (o->positions != NULL)
        for (size_t i = 0; i < heads; i++)
            if ((j->kept[i] = calloc((size_t)j->n_want, row)) == NULL)
                return gdn_fail(err, GDN_E_NOMEM, "out of memory: no room for %d rows of %zu bytes",
                                j->n_want, row);
    if (j->out == NULL || j->logits == NULL || (j->mtp && j->draft == NULL))
        return gdn_fail(err, GDN_E_NOMEM, "out of memory: no room for %zu rows of %zu bytes", chunk,
                        row);
    gdn_engine_opts e;
    gdn_engine_opts_defaults(&e);
    if (o->engine != NULL) e.n_row = o->engine->n_row, e.block_size = o->engine->block_size;
    e.n_seq = (int32_t)heads;
    e.n_ctx = o->n * (int32_t)heads;
    e.mtp = j->mtp;
    gdn_status st = gdn_engine_create(m, &e, &j->engine, err);
    if (st == GDN_OK) st = gdn_seq_create(j->engine, &j->body, err);
    if (st == GDN_OK) st = gdn_seq_set_adapter(j->body, o->adapter, err);
    if (st == GDN_OK && j->mtp) st = gdn_seq_create(j->engine, &j->edge, err);
    if (st == GDN_OK && j->mtp) st = gdn_seq_set_adapter(j->edge, o->adapter, err);
    if (st == GDN_OK && j->mtp && o->positions == NULL) st = make_spill(j, err);
    return st;
}

gdn_status gdn_logits_write(gdn_model *m, const gdn_logits_opts *o, gdn_err *err) {
    const gdn_model_info *info = gdn_model_get_info(m);
    if (o->tokens == NULL || o->n < 1)
        return gdn_fail(err, GDN_E_INVALID, "there are no tokens");
    if (o->positions != NULL && o->n_position < 1)
        return gdn_fail(err, GDN_E_INVALID, "there are no positions");
    if (o->n > INT32_MAX / 2)
        return gdn_fail(err, GDN_E_FULL, "%d tokens are too many", o->n);
    job j = { .o = o, .vocab = info->vocab, .mtp = o->mtp && info->has_mtp && o->n > 1 };
    gdn_status st = plan(&j, err);
    if (st == GDN_OK && mtp_rows(&j) == 0) j.mtp = false;
    if (st == GDN_OK) st = prepare(&j, m, err);
    if (st == GDN_OK) st = open_file(&j, err);
    if (st == GDN_OK) st = run(&j, err);
    if (st == GDN_OK) st = finish_file(&j, err);
    gdn_st_writer_free(j.file);
    gdn_seq_free(j.body);
    gdn_seq_free(j.edge);
    gdn_engine_free(j.engine);
    if (j.spill != NULL) fclose(j.spill);
    free(j.kept[0]);
    free(j.kept[1]);
    free(j.logits);
    free(j.draft);
    free(j.out);
    free(j.want);
    free(j.place);
    return st;
}
