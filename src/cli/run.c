/* run.c - gdn run: one answer to one prompt. */
#include "cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const opt_about about = {
    "run", "",
    "Answer one prompt: -p TEXT, -f FILE or standard input becomes a user's message.",
};

typedef struct {
    cli_common   common;
    cli_sampling sampling;
    const char *prompt, *file, *system, *tools, *tokens;
    opt_list     stop;
    int32_t      n;
    bool         raw, think, no_think, ignore_eos, print_ids, json;
} options;

typedef struct {
    const options *o;
    cli_model      m;
    gdn_engine    *engine;
    int32_t       *prompt;
    int32_t        n_prompt;
    int32_t       *ids; /* [n_id] generated */
    int32_t        n_id, cap;
    FILE          *text; /* where text goes: stdout, memory for --json, or NULL */
    char          *buf;  /* for --json */
    size_t         n_buf;
    bool           failed;
    cli_bar        bar;
} run;

/* --- the prompt ---------------------------------------------------------------------- */

static int read_text(const options *o, char **text, size_t *n) {
    if (o->prompt != NULL) {
        *n = strlen(o->prompt);
        *text = strdup(o->prompt);
        return *text != NULL ? 0 : cli_error("out of memory");
    }
    if (o->file == NULL && isatty(STDIN_FILENO) == 1)
        return opt_usage(&about, "no prompt: give -p TEXT, -f FILE or --tokens, or pipe one in");
    return cli_read(o->file, text, n);
}

static int make_prompt(run *r) {
    const options *o = r->o;
    if (o->tokens != NULL) return cli_ids(o->tokens, &r->prompt, &r->n_prompt);
    char *text = NULL, *tools = NULL;
    size_t n = 0, n_tools = 0;
    int rc = read_text(o, &text, &n);
    if (rc == 0 && strspn(text, " \t\r\n") == n) rc = cli_error("the prompt is empty");
    if (rc == 0 && o->tools != NULL) rc = cli_read(o->tools, &tools, &n_tools);
    if (rc == 0 && o->raw) {
        rc = cli_encode(&r->m, text, n, true, &r->prompt, &r->n_prompt);
    } else if (rc == 0) {
        const cli_message msg[] = {
            { .role = "system", .text = o->system, .n = o->system != NULL ? strlen(o->system) : 0 },
            { .role = "user", .text = text, .n = n },
        };
        const int first = o->system == NULL;
        const cli_think think =
            o->think ? CLI_THINK_ON : o->no_think ? CLI_THINK_OFF : CLI_THINK_UNSET;
        rc = cli_prompt(&r->m, msg + first, 2 - first, think, tools, &r->prompt, &r->n_prompt);
    }
    free(text);
    free(tools);
    return rc;
}

static int check_prompt(const run *r) {
    const int32_t vocab = r->m.info->vocab;
    const int32_t room = r->o->common.ctx > 0 ? r->o->common.ctx : r->m.info->context;
    if (r->n_prompt < 1) return cli_error("the prompt is empty");
    for (int32_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= vocab)
            return cli_error("token %d is %d; the model has ids from 0 to %d", i, r->prompt[i],
                             vocab - 1);
    if (r->n_prompt > room)
        return cli_error("the prompt has %d tokens and the context holds %d; shorten it%s",
                         r->n_prompt, room,
                         r->o->common.ctx > 0 ? " or raise --ctx" : "");
    return 0;
}

/* --- the answer ---------------------------------------------------------------------- */

static void on_prompt(void *arg, uint64_t done, uint64_t total) {
    cli_bar_step(&((run *)arg)->bar, done, total);
}

static bool on_token(void *arg, int32_t id, const char *text, size_t n) {
    run *r = arg;
    cli_bar_end(&r->bar);
    if (id >= 0 && r->n_id == r->cap) {
        const int32_t cap = r->cap == 0 ? 256 : 2 * r->cap;
        int32_t *ids = realloc(r->ids, (size_t)cap * sizeof *ids);
        if (ids == NULL) {
            r->failed = true;
            return false;
        }
        r->ids = ids;
        r->cap = cap;
    }
    if (id >= 0) r->ids[r->n_id++] = id;
    if (r->text == NULL || n == 0) return true;
    fwrite(text, 1, n, r->text);
    if (r->text == stdout) fflush(stdout);
    return !ferror(r->text); /* nobody reads any more */
}

/* Speed without the first token, which the prompt already paid for. */
static double speed(const gdn_request_result *g) {
    return g->n_new > 1 && g->new_us > 0 ? 1e6 * (g->n_new - 1) / g->new_us : 0;
}

static void print_ids(const run *r) {
    for (int32_t i = 0; i < r->n_id; i++) printf("%s%d", i > 0 ? " " : "", r->ids[i]);
    putchar('\n');
}

static void print_json(const run *r, const gdn_request_result *g, const gdn_sampling *s) {
    printf("{\"text\": ");
    if (r->m.tok != NULL) cli_json_string(stdout, r->buf, r->n_buf);
    else printf("null");
    printf(", \"ids\": [");
    for (int32_t i = 0; i < r->n_id; i++) printf("%s%d", i > 0 ? ", " : "", r->ids[i]);
    printf("], \"prompt_ids\": [");
    for (int32_t i = 0; i < r->n_prompt; i++) printf("%s%d", i > 0 ? ", " : "", r->prompt[i]);
    printf("], \"finish\": \"%s\", \"prompt_tokens\": %d, \"new_tokens\": %d",
           cli_finish_name(g->finish), g->n_prompt, g->n_new);
    printf(", \"cached_tokens\": %d, \"drafted_tokens\": %d, \"accepted_tokens\": %d", g->n_cached,
           g->n_drafted, g->n_accepted);
    printf(", \"prompt_seconds\": %.6f, \"new_seconds\": %.6f", 1e-6 * g->prompt_us,
           1e-6 * g->new_us);
    printf(", \"prompt_per_second\": %.3f, \"new_per_second\": %.3f",
           g->prompt_us > 0 ? 1e6 * g->n_prompt / g->prompt_us : 0, speed(g));
    printf(", \"temperature\": %.9g, \"seed\": %llu}\n", (double)s->temperature,
           (unsigned long long)s->seed);
}

/* The whole of it: a later prompt may go on from anywhere. */
static int save_session(run *r) {
    const size_t n = (size_t)r->n_prompt + (size_t)r->n_id;
    int32_t *all = malloc((n + 1) * sizeof *all);
    if (all == NULL) return cli_error("out of memory");
    memcpy(all, r->prompt, (size_t)r->n_prompt * sizeof *all);
    if (r->n_id > 0) memcpy(all + r->n_prompt, r->ids, (size_t)r->n_id * sizeof *all);
    const int rc = cli_session_save(&r->m, &r->o->common, r->engine, all, (int32_t)n, NULL, 0);
    free(all);
    return rc;
}

/* --- a driver without a GPU ------------------------------------------------------------ */

enum { DRY_TOKENS = 4, DRY_SECONDS = 300 };

/* Some drivers wait for ever for a device that is not there. */
static void too_late(int sig) {
    static const char text[] = "gdn run: --dry-run: the driver was still busy after 300 s\n";
    (void)sig;
    const ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    _exit(1);
}

static void dry_begin(options *o) {
    if (o->n == 0) o->n = DRY_TOKENS;
    o->ignore_eos = true;
    signal(SIGALRM, too_late);
    alarm(DRY_SECONDS);
}

static void dry_end(const run *r, const gdn_request_result *g) {
    gdn_engine_stats s;
    gdn_engine_get_stats(r->engine, &s);
    printf("dry run on %s: a prompt of %d tokens and %d more in %llu steps; its driver accepted %llu "
           "calls, for %llu launches of kernels\n", r->o->common.device, g->n_prompt, g->n_new,
           (unsigned long long)s.steps, (unsigned long long)s.calls,
           (unsigned long long)s.launches);
}

static int generate(run *r) {
    const options *o = r->o;
    gdn_err err = { 0 };
    gdn_request_result g;
    gdn_request_opts a;
    int32_t stop[CLI_STOP_MAX];
    int rc = cli_request(&r->m, r->prompt, r->n_prompt, stop, &a);
    if (rc != 0) return rc;
    if (o->ignore_eos) a.n_stop = 0;
    a.max_new = o->n;
    a.stop_text = o->stop.s;
    a.n_stop_text = o->stop.n;
    a.on_token = on_token;
    a.on_prompt = on_prompt;
    a.arg = r;
    cli_sampling_resolve(&o->sampling, &r->m.info->hints, &a.sampling);
    if (o->common.dry_run) r->text = NULL;
    else if (o->json) r->text = r->m.tok != NULL ? open_memstream(&r->buf, &r->n_buf) : NULL;
    else if (o->tokens == NULL || !o->print_ids) r->text = stdout;
    if (o->json && r->m.tok != NULL && r->text == NULL) {
        free((void *)(uintptr_t)a.save);
        return cli_error("out of memory");
    }
    cli_bar_begin(&r->bar, "prompt", "tok", o->common.quiet);
    const gdn_status st = gdn_generate(r->engine, &a, NULL, &g, &err);
    free((void *)(uintptr_t)a.save);
    cli_bar_end(&r->bar);
    if (r->text != NULL && r->text != stdout) {
        if (fclose(r->text) != 0) r->failed = true;
    } else if (r->text == stdout && r->n_id > 0) {
        putchar('\n');
    }
    r->text = NULL;
    if (st != GDN_OK) return cli_fail(&err);
    if (r->failed) return cli_error("out of memory");
    if (o->common.dry_run) {
        dry_end(r, &g);
        return 0;
    }
    if (o->json) print_json(r, &g, &a.sampling);
    else if (o->print_ids) print_ids(r);
    fflush(stdout);
    if (!o->common.quiet && !o->json)
        cli_tell_speed(&g);
    return save_session(r);
}

static int load_session(run *r) {
    void *note;
    size_t n;
    const int rc = cli_session_load(&r->m, &r->o->common, r->engine, &note, &n);
    free(note);
    if (rc == 0 && n > 0)
        return cli_error("%s holds a conversation of gdn chat; give another --session",
                         r->o->common.session);
    return rc;
}

/* Everything between the options and the answer. */
static int answer(run *r) {
    const options *o = r->o;
    unsigned parts = CLI_WEIGHTS;
    parts |= o->tokens != NULL && o->stop.n == 0 ? CLI_TOKENIZER_IF_ANY : CLI_TOKENIZER;
    if (o->tokens == NULL && !o->raw) parts |= CLI_TEMPLATE;
    int rc = cli_open(&r->m, &o->common, parts);
    if (rc != 0) return rc;
    if (r->m.tok == NULL && !o->print_ids && !o->json && !o->common.dry_run)
        return cli_error("%s has no tokenizer.json; --print-ids shows ids", r->m.dir);
    rc = make_prompt(r);
    if (rc == 0) rc = check_prompt(r);
    if (rc == 0)
        rc = cli_engine(&r->m, &o->common, o->n > 0 ? (int64_t)r->n_prompt + o->n : 0,
                        o->common.session != NULL ? GDN_CACHE_AUTO : 0, &r->engine);
    if (rc == 0) rc = load_session(r);
    return rc == 0 ? generate(r) : rc;
}

int cli_run(int argc, char **argv) {
    options o = { .common.draft = -1 };
    const opt table[] = {
        { OPT_HEAD, 0, "prompt", NULL, NULL, NULL, 0, 0, NULL },
        { OPT_STR, 'p', "prompt", &o.prompt, "TEXT", "the user's message", 0, 0, NULL },
        { OPT_STR, 'f', "file", &o.file, "FILE", "read it from a file; - is stdin", 0, 0, NULL },
        { OPT_STR, 0, "system", &o.system, "TEXT", "a system message before it", 0, 0, NULL },
        { OPT_STR, 0, "tools", &o.tools, "FILE", "a JSON list of tools for the template", 0, 0, NULL },
        { OPT_TRUE, 0, "think", &o.think, NULL, "let the model think first", 0, 0, NULL },
        { OPT_TRUE, 0, "no-think", &o.no_think, NULL, "or not (default: the template's)", 0, 0, NULL },
        { OPT_TRUE, 0, "raw", &o.raw, NULL, "continue the text as it is, no template", 0, 0, NULL },
        { OPT_STR, 0, "tokens", &o.tokens, "@FILE|IDS", "continue these ids", 0, 0, NULL },
        { OPT_HEAD, 0, "answer", NULL, NULL, NULL, 0, 0, NULL },
        { OPT_I32, 'n', "max-tokens", &o.n, "N", "tokens at most; 0: until the context is full", 0, INT32_MAX, NULL },
        { OPT_LIST, 0, "stop", &o.stop, "TEXT", "end where the answer says TEXT (repeatable)", 0, 0, NULL },
        { OPT_TRUE, 0, "ignore-eos", &o.ignore_eos, NULL, "do not end at the model's end marks", 0, 0, NULL },
        { OPT_TRUE, 0, "print-ids", &o.print_ids, NULL, "the answer's ids on the last line", 0, 0, NULL },
        { OPT_TRUE, 0, "json", &o.json, NULL, "one JSON object instead of the text", 0, 0, NULL },
        CLI_SAMPLING_OPTIONS(&o.sampling),
        CLI_COMMON_OPTIONS(&o.common),
        CLI_LORA_OPTIONS(&o.common),
        CLI_CACHE_OPTIONS(&o.common),
        { OPT_TRUE, 0, "dry-run", &o.common.dry_run, NULL, "try a driver without its GPU: no answer", 0, 0, NULL },
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    if ((o.prompt != NULL) + (o.file != NULL) + (o.tokens != NULL) > 1)
        return opt_usage(&about, "give only one of --prompt, --file and --tokens");
    if (o.think && o.no_think)
        return opt_usage(&about, "give only one of --think and --no-think");
    if ((o.raw || o.tokens != NULL) &&
        (o.system != NULL || o.tools != NULL || o.think || o.no_think))
        return opt_usage(&about, "--system, --tools, --think and --no-think need the template; "
                                 "leave --raw or --tokens out");
    for (int i = 0; i < o.stop.n; i++)
        if (o.stop.s[i][0] == '\0') return opt_usage(&about, "--stop is empty");

    const char *device = o.common.device;
    if (o.common.dry_run && (device == NULL || strncmp(device, "cpu", 3) == 0))
        return opt_usage(&about, "--dry-run tries a device's driver: name the device, --device xpu");
    if (o.common.dry_run && (o.json || o.print_ids || o.common.session != NULL))
        return opt_usage(&about, "--dry-run has no answer: leave --json, --print-ids and --session out");
    if (o.common.dry_run) dry_begin(&o);

    run r = { .o = &o };
    rc = answer(&r);
    gdn_engine_free(r.engine);
    cli_close(&r.m);
    free(r.prompt);
    free(r.ids);
    free(r.buf);
    return cli_end(rc);
}
