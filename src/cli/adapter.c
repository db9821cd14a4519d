/* adapter.c - --lora and --adapter: opening adapters by name and giving one to a sequence. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What --lora says, NAME=DIR[:SCALE], as pieces of a copy. */
typedef struct {
    char *name, *dir;
    float scale;
} word;

static bool has_config(const char *dir) {
    char path[PATH_MAX];
    const int n = snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    return n > 0 && n < (int)sizeof path && access(path, R_OK) == 0;
}

/* A folder's own name may end in a colon and a number: that one is taken when it is there. */
static void cut_scale(word *w) {
    char *colon = strrchr(w->dir, ':'), *end;
    w->scale = 1;
    if (colon == NULL || has_config(w->dir)) return;
    const double scale = strtod(colon + 1, &end);
    if (end == colon + 1 || *end != '\0' || !isfinite((float)scale)) return;
    w->scale = (float)scale;
    *colon = '\0';
}

static int parse(const cli_model *m, char *text, word *w) {
    char *eq = strchr(text, '=');
    if (eq == NULL || eq == text || eq[1] == '\0') {
        cli_error("--lora is \"%s\"; need NAME=DIR or NAME=DIR:SCALE", text);
        return 2;
    }
    *eq = '\0';
    *w = (word){ .name = text, .dir = eq + 1 };
    if (strcmp(w->name, "none") == 0 || cli_adapter_find(m, w->name) >= 0) {
        cli_error("--lora %s: %s", w->name, strcmp(w->name, "none") == 0
                                                ? "none stands for no adapter; choose another name"
                                                : "the name is given twice");
        return 2;
    }
    cut_scale(w);
    if (!has_config(w->dir))
        return cli_error("--lora %s: %s has no adapter_config.json to read", w->name, w->dir);
    return 0;
}

int cli_adapter_find(const cli_model *m, const char *name) {
    for (int i = 0; i < m->n_adapter; i++)
        if (strcmp(m->adapter[i].name, name) == 0) return i;
    return -1;
}

int cli_adapter_choose(cli_model *m, const char *name) {
    const int i = cli_adapter_find(m, name);
    if (i < 0 && strcmp(name, "none") != 0) {
        char list[200] = "none";
        for (int k = 0; k < m->n_adapter; k++) {
            const size_t n = strlen(list);
            snprintf(list + n, sizeof list - n, ", %s", m->adapter[k].name);
        }
        return cli_error("there is no adapter \"%s\"; there are: %s", name, list);
    }
    m->active = i;
    return 0;
}

/* Names are checked before any weight is read, so that a slip is told at once. */
int cli_adapter_names(cli_model *m, const cli_common *c) {
    m->active = -1;
    if (c->adapter != NULL && c->lora.n == 0 && strcmp(c->adapter, "none") != 0) {
        cli_error("--adapter %s: no --lora NAME=DIR gives an adapter", c->adapter);
        return 2;
    }
    for (int i = 0; i < c->lora.n; i++) {
        char *text = strdup(c->lora.s[i]);
        word w;
        if (text == NULL) return cli_error("out of memory");
        const int rc = parse(m, text, &w);
        if (rc != 0) {
            free(text);
            return rc;
        }
        m->adapter[m->n_adapter++] = (cli_adapter){ .name = w.name, .dir = w.dir, .scale = w.scale };
    }
    if (c->adapter != NULL) return cli_adapter_choose(m, c->adapter);
    m->active = m->n_adapter > 0 ? 0 : -1;
    return 0;
}

int cli_adapter_open(cli_model *m) {
    gdn_err err = { 0 };
    for (int i = 0; i < m->n_adapter; i++) {
        cli_adapter *a = &m->adapter[i];
        if (gdn_adapter_open(m->model, a->dir, a->scale, &a->adapter, &err) != GDN_OK)
            return cli_fail(&err);
    }
    return 0;
}

void cli_adapter_close(cli_model *m) {
    for (int i = 0; i < m->n_adapter; i++) {
        gdn_adapter_close(m->adapter[i].adapter);
        free(m->adapter[i].name); /* and the folder's, behind it */
    }
    m->n_adapter = 0;
}

const gdn_adapter *cli_adapter_active(const cli_model *m) {
    return m->active >= 0 && m->active < m->n_adapter ? m->adapter[m->active].adapter : NULL;
}
