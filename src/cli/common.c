/* common.c - opening models and engines as the common options say. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- which model ---------------------------------------------------------------- */

static bool is_model(const char *dir) {
    char path[PATH_MAX];
    const int n = snprintf(path, sizeof path, "%s/config.json", dir);
    return n > 0 && n < (int)sizeof path && access(path, R_OK) == 0;
}

/* The demo model: beside the program's folder as built, as installed, or here. */
static bool find_demo(char dir[PATH_MAX]) {
    static const char *const places[] = { "../models/jargon", "../share/gdn/models/jargon" };
    char exe[PATH_MAX];
    const ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (len > 0) {
        exe[len] = '\0';
        char *slash = strrchr(exe, '/');
        if (slash != NULL) *slash = '\0';
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            const int n = snprintf(dir, PATH_MAX, "%s/%s", exe, places[i]);
            if (n > 0 && n < PATH_MAX && is_model(dir)) return true;
        }
    }
    snprintf(dir, PATH_MAX, "models/jargon");
    return is_model(dir);
}

static int model_dir(const cli_common *c, char dir[PATH_MAX]) {
    const char *name = c->model != NULL ? c->model : getenv("GDN_MODEL");
    if (name == NULL || *name == '\0') {
        if (find_demo(dir)) return 0;
        return cli_error("no model is named and the demo model is not here; use -m DIR");
    }
    if (snprintf(dir, PATH_MAX, "%s", name) >= PATH_MAX)
        return cli_error("the model's path is longer than %d bytes", PATH_MAX);
    if (!is_model(dir))
        return cli_error("%s: no config.json to read there; -m takes a checkpoint's folder", dir);
    return 0;
}

/* --- opening -------------------------------------------------------------------- */

/* What will be taken, before anything is: the weights may be minutes away.  Models of a few MiB take
 * a little more, as their keys are f32. */
static void tell_plan(const cli_model *m, const cli_common *c, gdn_math math) {
    gdn_plan_opts p;
    gdn_plan_result r;
    gdn_device_info d;
    gdn_err err = { 0 };
    char a[32], b[32], e[32], f[32];
    gdn_plan_defaults(&p);
    p.model = m->dir;
    p.block_size = c->block_size;
    p.n_ctx = c->ctx;
    p.device = c->device;
    p.kv_type = math == GDN_MATH_F32 ? "f32" : "bf16";
    p.conv_type = "f32";
    if (gdn_device_find(c->device, &d, NULL) == GDN_OK) p.memory_bytes = d.memory_bytes;
    if (gdn_plan(&p, &r, &err) != GDN_OK) return; /* the model's own message says more */
    fprintf(stderr, "memory: weights %s; a sequence of %d tokens %s, pages of %s",
            cli_bytes(r.weight_bytes, a), r.n_ctx, cli_bytes(r.sequence_bytes, b),
            cli_bytes(r.pool_page_bytes, e));
    if (p.memory_bytes > 0)
        fprintf(stderr, "; %s hold %lld tokens of one sequence", cli_bytes(p.memory_bytes, f),
                (long long)r.max_tokens);
    fputc('\n', stderr);
}

static int open_weights(cli_model *m, const cli_common *c) {
    gdn_model_opts o;
    gdn_err err = { 0 };
    cli_bar bar;
    gdn_model_opts_defaults(&o);
    if (c->device != NULL) o.device = c->device;
    if (c->threads > 0) o.n_thread = c->threads;
    if (c->pin) o.pin = true;
    o.dry_run = c->dry_run;
    if (c->math != NULL) {
        if (strcmp(c->math, "f32") == 0)
            o.math = GDN_MATH_F32;
        else if (strcmp(c->math, "fast") == 0)
            o.math = GDN_MATH_FAST;
        else {
            cli_error("--math is \"%s\"; need fast or f32", c->math);
            return 2;
        }
    }
    if (!c->quiet && (c->verbose || c->plan)) tell_plan(m, c, o.math);
    cli_bar_begin(&bar, "model", NULL, c->quiet);
    o.progress = cli_bar_step;
    o.progress_arg = &bar;
    const gdn_status st = gdn_model_open(m->dir, &o, &m->model, &err);
    cli_bar_end(&bar);
    if (st != GDN_OK) return cli_fail(&err);
    m->info = gdn_model_get_info(m->model);
    return 0;
}

/* A checkpoint of bare weights has no tokenizer.json at all; one that is broken counts. */
static bool has_tokenizer(const char *dir) {
    char path[PATH_MAX];
    const int n = snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    return n > 0 && n < (int)sizeof path && access(path, F_OK) == 0;
}

int cli_open(cli_model *m, const cli_common *c, unsigned parts) {
    gdn_err err = { 0 };
    *m = (cli_model){ .model = NULL };
    cli_log(c->quiet, c->verbose);
    int rc = model_dir(c, m->dir);
    if (rc != 0) return rc;
    if ((parts & CLI_TOKENIZER_IF_ANY) != 0 && has_tokenizer(m->dir)) parts |= CLI_TOKENIZER;
    rc = cli_adapter_names(m, c);
    /* The small files first: their faults should not wait for the weights. */
    if (rc == 0 && (parts & CLI_WEIGHTS) != 0 && gdn_model_check(m->dir, &err) != GDN_OK)
        rc = cli_fail(&err);
    if (rc == 0 && (parts & CLI_TOKENIZER) != 0 &&
        gdn_tokenizer_open(m->dir, &m->tok, &err) != GDN_OK)
        rc = cli_fail(&err);
    if (rc == 0 && (parts & CLI_TEMPLATE) != 0 &&
        gdn_template_open(m->dir, &m->tmpl, &err) != GDN_OK)
        rc = cli_fail(&err);
    if (rc == 0 && (parts & CLI_WEIGHTS) != 0) rc = open_weights(m, c);
    if (rc == 0 && (parts & CLI_WEIGHTS) != 0) rc = cli_adapter_open(m);
    if (rc != 0) cli_close(m);
    return rc;
}

void cli_close(cli_model *m) {
    cli_adapter_close(m);
    gdn_model_close(m->model);
    gdn_tokenizer_close(m->tok);
    gdn_template_close(m->tmpl);
    free(m->added);
    *m = (cli_model){ .model = NULL };
}

/* --- sampling ------------------------------------------------------------------- */

/* A seed nobody asked for: different every time. */
static uint64_t new_seed(void) {
    uint64_t seed = 0;
    FILE *f = fopen("/dev/urandom", "rb");
    if (f != NULL && fread(&seed, sizeof seed, 1, f) != 1) seed = 0;
    if (f != NULL) fclose(f);
    if (seed == 0) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        seed = (uint64_t)t.tv_sec * 1000000007u ^ (uint64_t)t.tv_nsec ^ (uint64_t)getpid();
    }
    return seed;
}

void cli_sampling_resolve(const cli_sampling *s, const gdn_sampling_hints *h,
                          gdn_sampling *out) {
    gdn_sampling_defaults(out);
    if (h->greedy) {
        out->temperature = 0;
    } else { /* the family's card for plain answers, where the checkpoint says nothing */
        out->temperature = h->has_temperature ? h->temperature : 0.7f;
        out->top_k = h->has_top_k ? h->top_k : 20;
        out->top_p = h->has_top_p ? h->top_p : 0.8f;
    }
    if (h->has_min_p) out->min_p = h->min_p;
    if (h->has_presence) out->presence = h->presence;
    if (h->has_frequency) out->frequency = h->frequency;
    if (h->has_repetition) out->repetition = h->repetition;
    if (s->has_temp) out->temperature = s->temp;
    if (s->has_top_k) out->top_k = s->top_k;
    if (s->has_top_p) out->top_p = s->top_p;
    if (s->has_min_p) out->min_p = s->min_p;
    if (s->has_presence) out->presence = s->presence;
    if (s->has_frequency) out->frequency = s->frequency;
    if (s->has_repetition) out->repetition = s->repetition;
    out->seed = s->has_seed ? s->seed : new_seed();
}

int32_t cli_stop_ids(const cli_model *m, int32_t ids[CLI_STOP_MAX]) {
    static const char *const more[] = { "<|im_end|>", "<|endoftext|>" };
    int32_t n = 0;
    for (int32_t i = 0; i < m->info->n_stop && n < CLI_STOP_MAX - 2; i++)
        ids[n++] = m->info->stop[i];
    for (size_t i = 0; m->tok != NULL && i < sizeof more / sizeof *more; i++) {
        const int32_t id = gdn_token_find(m->tok, more[i]);
        if (id >= 0) ids[n++] = id;
    }
    return n;
}

const char *cli_finish_name(gdn_finish f) {
    switch (f) {
    case GDN_FINISH_LENGTH: return "length";
    case GDN_FINISH_STOP: return "stop";
    case GDN_FINISH_STOP_STRING: return "stop_string";
    case GDN_FINISH_CANCELLED: return "cancelled";
    case GDN_FINISH_FULL: return "full";
    case GDN_FINISH_ERROR: return "error";
    }
    return "unknown";
}
