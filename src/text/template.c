/* template.c - the chat template of a checkpoint: finding it, and rendering it with the
 * variables of a JSON object. */
#include <gdn/text.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "../base/err.h"
#include "jinja_eval.h"

enum { TEMPLATE_BYTES_MAX = 64 << 20 };

struct gdn_template {
    jin     J; /* owns the syntax tree */
    jnodes *body;
    char   *name;
};

/* --- parsing ---------------------------------------------------------------------------------- */

/* Everything that may leave by longjmp, apart from the code that owns the arena. */
static gdn_status parse(gdn_template *t, const char *source, size_t n) {
    if (setjmp(t->J.escape) != 0) return t->J.status;
    t->body = jin_parse(&t->J, source, n);
    return GDN_OK;
}

gdn_status gdn_template_parse(const char *source, size_t n, const char *name,
                              gdn_template **out, gdn_err *err) {
    gdn_template *t = calloc(1, sizeof *t);
    if (t == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: no memory for the template", name);
    gdn_status st;
    t->name = strdup(name != NULL ? name : "template");
    if (t->name == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "%s: no memory for the template", name);
        goto done;
    }
    if (n > TEMPLATE_BYTES_MAX) {
        st = gdn_fail(err, GDN_E_FULL, "%s: a template of %zu bytes", t->name, n);
        goto done;
    }
    t->J.err = err, t->J.name = t->name;
    t->J.bytes_max = JIN_BYTES_BASE + 1024 * n;
    st = parse(t, source, n);
    t->J.err = NULL;
done:
    if (st == GDN_OK) *out = t;
    else gdn_template_close(t);
    return st;
}

void gdn_template_close(gdn_template *t) {
    if (t == NULL) return;
    jin_release(&t->J);
    free(t->name);
    free(t);
}

/* --- finding the template of a checkpoint --------------------------------------------------------- */

static gdn_status read_file(const char *path, char **out, size_t *n, gdn_err *err) {
    struct stat sb;
    char       *p = NULL;
    gdn_status  st = GDN_OK;
    FILE       *f = fopen(path, "rb");
    if (f == NULL) return gdn_fail(err, GDN_E_IO, "%s: %s", path, strerror(errno));
    if (fstat(fileno(f), &sb) != 0 || !S_ISREG(sb.st_mode)) {
        st = gdn_fail(err, GDN_E_IO, "%s: not a regular file", path);
        goto done;
    }
    if (sb.st_size > TEMPLATE_BYTES_MAX) {
        st = gdn_fail(err, GDN_E_FORMAT, "%s: %lld bytes are too many", path, (long long)sb.st_size);
        goto done;
    }
    p = malloc((size_t)sb.st_size + 1);
    if (p == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "%s: %lld bytes", path, (long long)sb.st_size);
        goto done;
    }
    *n = fread(p, 1, (size_t)sb.st_size, f);
    if (ferror(f)) st = gdn_fail(err, GDN_E_IO, "%s: %s", path, strerror(errno));
    p[*n] = '\0';
done:
    fclose(f);
    if (st == GDN_OK) *out = p;
    else free(p);
    return st;
}

/* chat_template is a string, or a list of {"name", "template"} of which "default" counts. */
static const json_t *pick_template(const json_t *root) {
    const json_t *t = json_object_get(root, "chat_template");
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *e = json_array_get(t, i);
        const char   *name = json_string_value(json_object_get(e, "name"));
        if (name != NULL && strcmp(name, "default") == 0) return json_object_get(e, "template");
    }
    return t;
}

/* GDN_E_IO when the file holds no template. */
static gdn_status from_json(const char *path, gdn_template **out, gdn_err *err) {
    char        *text = NULL;
    size_t       n = 0;
    json_error_t je;
    gdn_status   st = read_file(path, &text, &n, err);
    if (st != GDN_OK) return st;
    json_t *root = json_loadb(text, n, JSON_ALLOW_NUL, &je);
    free(text);
    if (root == NULL)
        return gdn_fail(err, GDN_E_FORMAT, "%s line %d: %s", path, je.line, je.text);
    const json_t *t = pick_template(root);
    if (json_is_string(t))
        st = gdn_template_parse(json_string_value(t), json_string_length(t), path, out, err);
    else if (t == NULL)
        st = gdn_fail(err, GDN_E_IO, "%s: there is no chat_template", path);
    else
        st = gdn_fail(err, GDN_E_FORMAT, "%s: chat_template is not a string", path);
    json_decref(root);
    return st;
}

static gdn_status from_jinja(const char *path, gdn_template **out, gdn_err *err) {
    char      *text = NULL;
    size_t     n = 0;
    gdn_status st = read_file(path, &text, &n, err);
    if (st == GDN_OK) st = gdn_template_parse(text, n, path, out, err);
    free(text);
    return st;
}

gdn_status gdn_template_open(const char *dir, gdn_template **out, gdn_err *err) {
    static const char *const files[] = {"chat_template.jinja", "tokenizer_config.json",
                                        "chat_template.json"};
    gdn_status st = GDN_E_IO;
    for (size_t i = 0; i < sizeof files / sizeof *files && st == GDN_E_IO; i++) {
        const size_t size = strlen(dir) + strlen(files[i]) + 2;
        char        *path = malloc(size);
        if (path == NULL) return gdn_fail(err, GDN_E_NOMEM, "%s: %zu bytes", dir, size);
        snprintf(path, size, "%s/%s", dir, files[i]);
        st = i == 0 ? from_jinja(path, out, err) : from_json(path, out, err);
        free(path);
    }
    if (st == GDN_E_IO)
        return gdn_fail(err, GDN_E_IO,
                        "%s: no chat template in chat_template.jinja, tokenizer_config.json or "
                        "chat_template.json", dir);
    if (st == GDN_OK && err != NULL) err->code = GDN_OK, err->text[0] = '\0';
    return st;
}

/* --- rendering --------------------------------------------------------------------------------------- */

/* Strings stay where jansson put them; the JSON outlives the rendering. */
static jv from_jansson(jin *J, const json_t *v) {
    jv r;
    jin_work(J, 1);
    switch (json_typeof(v)) {
    case JSON_NULL: return jv_none();
    case JSON_TRUE: return jv_bool(true);
    case JSON_FALSE: return jv_bool(false);
    case JSON_INTEGER: return jv_int(json_integer_value(v));
    case JSON_REAL: return jv_float(json_real_value(v));
    case JSON_STRING: return jv_str(json_string_value(v), json_string_length(v));
    case JSON_ARRAY:
        jin_enter(J, JIN_DEPTH_DATA);
        r = jv_list(J, json_array_size(v), SEQ_LIST);
        for (size_t i = 0; i < r.u.seq->n; i++)
            r.u.seq->v[i] = from_jansson(J, json_array_get(v, i));
        jin_leave(J);
        return r;
    case JSON_OBJECT: {
        json_t *obj = (json_t *)(uintptr_t)v; /* jansson's iterators take no const */
        jin_enter(J, JIN_DEPTH_DATA);
        r = jv_new_dict(J, json_object_size(v));
        for (void *it = json_object_iter(obj); it != NULL; it = json_object_iter_next(obj, it))
            jv_dict_set(J, r.u.dict, jv_cstr(json_object_iter_key(it)),
                        from_jansson(J, json_object_iter_value(it)));
        jin_leave(J);
        return r;
    }
    }
    return jv_none();
}

static gdn_status run(jin *J, const gdn_template *t, const json_t *root) {
    if (setjmp(J->escape) != 0) return J->status;
    J->context = from_jansson(J, root).u.dict;
    jin_exec_all(J, t->body);
    jin_emit(J, "\0", 1);
    return GDN_OK;
}

gdn_status gdn_template_render(const gdn_template *t, const char *json, size_t n_json,
                               char **out, size_t *n, gdn_err *err) {
    json_error_t je;
    json_t      *root = json_loadb(json, n_json, JSON_ALLOW_NUL, &je);
    if (root == NULL)
        return gdn_fail(err, GDN_E_INVALID, "variables of the template, line %d: %s", je.line, je.text);
    gdn_status st;
    jin       *J = NULL;
    if (!json_is_object(root)) {
        st = gdn_fail(err, GDN_E_INVALID, "the variables of a template must be a JSON object");
        goto done;
    }
    J = calloc(1, sizeof *J);
    if (J == NULL) {
        st = gdn_fail(err, GDN_E_NOMEM, "no memory to render %s", t->name);
        goto done;
    }
    J->err = err, J->name = t->name;
    J->bytes_max = JIN_BYTES_BASE + 64 * n_json;
    st = run(J, t, root);
    if (st == GDN_OK) {
        *out = J->out, *n = J->n_out - 1;
        J->out = NULL; /* the caller's now */
    }
done:
    if (J != NULL) jin_release(J);
    free(J);
    json_decref(root);
    return st;
}
