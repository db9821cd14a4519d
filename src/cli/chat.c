/* chat.c - gdn chat: a conversation.
 *
 * Each turn renders the whole conversation anew, and the engine reads what no saved position
 * covers: the new message, and with a template that drops old reasoning the last reply. */
#include "cli.h"

#include <errno.h>
#include <histedit.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const opt_about about = {
    "chat", "",
    "Talk with the model.  Ctrl-C stops a reply, Ctrl-D ends; /help lists the commands.\n"
    "A line that ends in a backslash goes on in the next.  Lines can be piped in.",
};

typedef struct {
    cli_common   common;
    cli_sampling sampling;
    const char  *system;
    int32_t      n;
    bool         think, no_think;
} options;

typedef struct {
    const options *o;
    cli_model    m;
    gdn_engine  *engine;
    gdn_sampling sampling;
    cli_think    think;
    cli_message *msg; /* [n_msg], texts are malloc'ed; a system message comes first */
    int          n_msg, msg_cap;
    int32_t     *held; /* [n_held] the last turn's prompt and reply, for the session */
    int32_t      n_held, held_cap;
    char        *reply; /* text of the reply under way */
    size_t       n_reply;
    FILE        *text;
    bool         nomem;
    cli_bar      bar;
    gdn_request_result last;
    EditLine    *edit;     /* NULL: lines are piped in */
    History     *history;
} chat;

static volatile sig_atomic_t interrupted;
static volatile bool cancel;

static void on_sigint(int sig) {
    (void)sig;
    interrupted = 1;
    cancel = true;
}

/* --- the messages ---------------------------------------------------------------------- */

static int add_message(chat *c, const char *role, const char *text, size_t n,
                       const char *reasoning, size_t n_reasoning) {
    if (c->n_msg == c->msg_cap) {
        const int cap = c->msg_cap == 0 ? 16 : 2 * c->msg_cap;
        cli_message *p = realloc(c->msg, (size_t)cap * sizeof *p);
        if (p == NULL) return cli_error("out of memory");
        c->msg = p;
        c->msg_cap = cap;
    }
    char *copy = malloc(n + 1), *why = reasoning != NULL ? malloc(n_reasoning + 1) : NULL;
    if (copy == NULL || (reasoning != NULL && why == NULL)) {
        free(copy);
        free(why);
        return cli_error("out of memory");
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    if (why != NULL) {
        memcpy(why, reasoning, n_reasoning);
        why[n_reasoning] = '\0';
    }
    c->msg[c->n_msg++] = (cli_message){ .role = role, .text = copy, .n = n, .reasoning = why,
                                        .n_reasoning = n_reasoning };
    return 0;
}

static void drop_messages(chat *c, int keep) {
    while (c->n_msg > keep) {
        const cli_message *m = &c->msg[--c->n_msg];
        free((char *)(uintptr_t)m->text);
        free((char *)(uintptr_t)m->reasoning);
    }
}

static int set_system(chat *c, const char *text) {
    drop_messages(c, 0);
    if (text == NULL || *text == '\0') return 0;
    return add_message(c, "system", text, strlen(text), NULL, 0);
}

/* Whether the prompt leaves a <think> open. */
static bool begins_thinking(const chat *c, const int32_t *ids, int32_t n) {
    const int32_t open = gdn_token_find(c->m.tok, "<think>");
    const int32_t end = gdn_token_find(c->m.tok, "</think>");
    for (int32_t i = n - 1; i >= 0 && i >= n - 8; i--) {
        if (ids[i] == end) return false;
        if (ids[i] == open) return true;
    }
    return false;
}

/* A reply's reasoning ends at </think>; it begins in the prompt or with the reply. */
static int add_reply(chat *c, bool thinking) {
    static const char end[] = "</think>";
    const char *text = c->reply, *cut = strstr(c->reply, end), *why = NULL;
    size_t n = c->n_reply, n_why = 0;
    if (cut != NULL) {
        static const char open[] = "<think>";
        why = text;
        n_why = (size_t)(cut - text);
        if (n_why >= strlen(open) && memcmp(why, open, strlen(open)) == 0) {
            why += strlen(open);
            n_why -= strlen(open);
        }
        text = cut + strlen(end);
        n -= (size_t)(text - c->reply);
        while (n > 0 && *text == '\n') text++, n--;
    } else if (thinking) { /* stopped before it came to an answer */
        why = text;
        n_why = n;
        n = 0;
    }
    return add_message(c, "assistant", text, n, why, n_why);
}

/* --- one turn ---------------------------------------------------------------------------- */

static int hold(chat *c, const int32_t *ids, int32_t n) {
    if (n > c->held_cap - c->n_held) {
        const int64_t cap = 2 * ((int64_t)c->n_held + n);
        int32_t *p = cap <= INT32_MAX ? realloc(c->held, (size_t)cap * sizeof *p) : NULL;
        if (p == NULL) return 1;
        c->held = p;
        c->held_cap = (int32_t)cap;
    }
    memcpy(c->held + c->n_held, ids, (size_t)n * sizeof *ids);
    c->n_held += n;
    return 0;
}

static void on_prompt(void *arg, uint64_t done, uint64_t total) {
    cli_bar_step(&((chat *)arg)->bar, done, total);
}

static bool on_token(void *arg, int32_t id, const char *text, size_t n) {
    chat *c = arg;
    cli_bar_end(&c->bar);
    if (id >= 0 && hold(c, &id, 1) != 0) c->nomem = true;
    if (n > 0) {
        fwrite(text, 1, n, stdout);
        fflush(stdout);
        fwrite(text, 1, n, c->text);
    }
    return !c->nomem && !ferror(stdout);
}

static int generate(chat *c, const int32_t *ids, int32_t n) {
    gdn_err err = { 0 };
    int32_t stop[CLI_STOP_MAX];
    gdn_request_opts g;
    int rc = cli_request(&c->m, ids, n, stop, &g);
    if (rc != 0) return rc;
    g.max_new = c->o->n;
    g.sampling = c->sampling;
    g.on_token = on_token;
    g.on_prompt = on_prompt;
    g.arg = c;
    c->n_held = 0;
    if (hold(c, ids, n) != 0) rc = cli_error("out of memory");
    if (rc == 0 && (c->text = open_memstream(&c->reply, &c->n_reply)) == NULL)
        rc = cli_error("out of memory");
    if (rc != 0) {
        free((void *)(uintptr_t)g.save);
        return rc;
    }
    cancel = false;
    cli_bar_begin(&c->bar, "prompt", "tok", c->o->common.quiet);
    const gdn_status st = gdn_generate(c->engine, &g, &cancel, &c->last, &err);
    free((void *)(uintptr_t)g.save);
    cli_bar_end(&c->bar);
    if (fclose(c->text) != 0) c->nomem = true;
    c->text = NULL;
    putchar('\n');
    fflush(stdout);
    if (st != GDN_OK) return cli_fail(&err);
    return c->nomem ? cli_error("out of memory") : 0;
}

static int save_session(chat *c) {
    char *note = NULL;
    size_t n = 0;
    if (c->o->common.session == NULL) return 0;
    int rc = cli_messages_write(c->msg, c->n_msg, &note, &n);
    if (rc == 0)
        rc = cli_session_save(&c->m, &c->o->common, c->engine, c->held, c->n_held, note, n);
    free(note);
    return rc;
}

/* The conversation goes on where the file left it. */
static int load_session(chat *c) {
    void *note;
    size_t n;
    int rc = cli_session_load(&c->m, &c->o->common, c->engine, &note, &n);
    cli_message *list = NULL;
    int n_list = 0;
    if (rc == 0 && n > 0) rc = cli_messages_read(note, n, &list, &n_list);
    if (rc == 0 && n_list > 0) drop_messages(c, 0);
    for (int i = 0; i < n_list; i++) {
        if (rc == 0)
            rc = add_message(c, list[i].role, list[i].text, list[i].n, list[i].reasoning,
                             list[i].n_reasoning);
        free((char *)(uintptr_t)list[i].text);
        free((char *)(uintptr_t)list[i].reasoning);
    }
    if (rc == 0 && n_list > 0 && !c->o->common.quiet)
        fprintf(stderr, "Going on after %d messages of %s.\n", n_list, c->o->common.session);
    free(list);
    free(note);
    return rc;
}

/* Answer the last message; on failure it is taken back. */
static int turn(chat *c) {
    int32_t *ids = NULL, n = 0;
    int rc = cli_prompt(&c->m, c->msg, c->n_msg, c->think, NULL, &ids, &n);
    if (rc == 0) {
        gdn_engine_stats s;
        gdn_engine_get_stats(c->engine, &s);
        if (n >= s.n_ctx)
            rc = cli_error("the conversation has %d tokens and the context holds %d; "
                           "/reset begins anew", n, s.n_ctx);
    }
    if (rc == 0) {
        rc = generate(c, ids, n);
        c->sampling.seed++; /* the next turn draws other numbers, repeatably */
        const bool silent = rc == 0 && c->last.n_new == 0;
        if (silent) drop_messages(c, c->n_msg - 1); /* stopped while reading */
        else if (rc == 0) rc = add_reply(c, begins_thinking(c, ids, n));
        free(c->reply);
        c->reply = NULL;
        if (rc == 0 && !silent) save_session(c); /* says what failed; the talk goes on */
    }
    free(ids);
    if (rc != 0) drop_messages(c, c->n_msg - 1);
    if (rc == 0 && c->last.finish == GDN_FINISH_CANCELLED && !c->o->common.quiet)
        fprintf(stderr, "(stopped)\n");
    if (rc == 0 && c->last.finish == GDN_FINISH_FULL)
        fprintf(stderr, "(the context is full; /reset begins anew)\n");
    return rc;
}

/* --- commands -------------------------------------------------------------------------- */

static void stats(const chat *c) {
    gdn_engine_stats s;
    char a[32], b[32];
    gdn_engine_get_stats(c->engine, &s);
    fprintf(stderr, "last turn: ");
    cli_tell_speed(&c->last);
    fprintf(stderr, "context: %d of %d tokens, pool %s, workspace %s\n", c->n_held, s.n_ctx,
            cli_bytes(s.pool_bytes, a), cli_bytes(s.workspace_bytes, b));
    fprintf(stderr, "saved positions: %llu, %s of %s\n", (unsigned long long)s.n_snapshot,
            cli_bytes(s.snapshot_bytes, a), cli_bytes(s.snapshot_most, b));
}

static void tell_adapter(const chat *c) {
    if (c->m.n_adapter == 0 || c->o->common.quiet) return;
    if (c->m.active < 0) fprintf(stderr, "No adapter is in use.\n");
    else fprintf(stderr, "The adapter %s is in use.\n", c->m.adapter[c->m.active].name);
}

static void change_adapter(chat *c, const char *name) {
    if (*name == '\0' || cli_adapter_choose(&c->m, name) == 0) tell_adapter(c);
}

static bool is_command(const char *line, const char *word, const char **rest) {
    const size_t n = strlen(word);
    if (strncmp(line, word, n) != 0 || (line[n] != '\0' && line[n] != ' ')) return false;
    for (*rest = line + n; **rest == ' ';) (*rest)++;
    return true;
}

/* True: the line was a command.  *end: the conversation is over. */
static bool command(chat *c, const char *line, bool *end) {
    const char *rest;
    if (line[0] != '/') return false;
    if (is_command(line, "/exit", &rest) || is_command(line, "/quit", &rest)) {
        *end = true;
    } else if (is_command(line, "/reset", &rest)) {
        drop_messages(c, c->n_msg > 0 && strcmp(c->msg[0].role, "system") == 0 ? 1 : 0);
        fprintf(stderr, "The conversation begins anew.\n");
    } else if (is_command(line, "/system", &rest)) {
        set_system(c, rest);
        fprintf(stderr, "The conversation begins anew %s system message.\n",
                *rest != '\0' ? "with this" : "without a");
    } else if (is_command(line, "/think", &rest) &&
               (strcmp(rest, "on") == 0 || strcmp(rest, "off") == 0)) {
        c->think = strcmp(rest, "on") == 0 ? CLI_THINK_ON : CLI_THINK_OFF;
        fprintf(stderr, "Thinking is %s.\n", rest);
    } else if (is_command(line, "/adapter", &rest)) {
        change_adapter(c, rest);
    } else if (is_command(line, "/stats", &rest)) {
        stats(c);
    } else if (is_command(line, "/help", &rest)) {
        fprintf(stderr, "/system TEXT   begin anew with a system message\n"
                        "/think on|off  let the model think before it answers\n"
                        "/adapter NAME  go on with an adapter of --lora, or none\n"
                        "/reset         begin anew\n"
                        "/stats         speed and memory\n"
                        "/exit          end; so does Ctrl-D\n"
                        "Ctrl-C stops a reply.  A line that ends in \\ goes on in the next.\n");
    } else {
        fprintf(stderr, "There is no command %s; /help lists them.\n", line);
    }
    return true;
}

/* --- lines ------------------------------------------------------------------------------- */

static bool continues; /* the prompt of a line that belongs to the last one */

static char *prompt(EditLine *e) {
    static char first[] = "> ", more[] = ". ";
    (void)e;
    return continues ? more : first;
}

static int edit_begin(chat *c) {
    c->edit = el_init("gdn", stdin, stdout, stderr);
    c->history = history_init();
    if (c->edit == NULL || c->history == NULL) return cli_error("out of memory");
    HistEvent ev;
    history(c->history, &ev, H_SETSIZE, 1000);
    history(c->history, &ev, H_SETUNIQUE, 1);
    el_set(c->edit, EL_PROMPT, prompt);
    el_set(c->edit, EL_EDITOR, "emacs");
    el_set(c->edit, EL_SIGNAL, 0);
    el_set(c->edit, EL_HIST, history, c->history);
    el_source(c->edit, NULL);
    return 0;
}

static void edit_end(chat *c) {
    if (c->history != NULL) history_end(c->history);
    if (c->edit != NULL) el_end(c->edit);
}

/* One line without its newline, malloc'ed; NULL at the end of input.  *again: Ctrl-C threw
 * the line away. */
static char *read_line(chat *c, bool *again) {
    *again = false;
    if (c->edit == NULL) {
        char *line = NULL;
        size_t cap = 0;
        const ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) {
            free(line);
            return NULL;
        }
        if (n > 0 && line[n - 1] == '\n') line[n - 1] = '\0';
        return line;
    }
    int n = 0;
    interrupted = 0;
    const char *s = el_gets(c->edit, &n);
    if (s == NULL || n <= 0) {
        if (!interrupted) return NULL;
        putchar('\n');
        el_reset(c->edit);
        *again = true;
        return NULL;
    }
    if (s[n - 1] == '\n') n--;
    return strndup(s, (size_t)n);
}

/* Lines up to one that does not end in a backslash. */
static char *read_message(chat *c) {
    char *text = NULL;
    size_t n = 0;
    continues = false;
    for (;;) {
        bool again;
        char *line = read_line(c, &again);
        if (again) {
            free(text);
            text = NULL;
            n = 0;
            continues = false;
            continue;
        }
        if (line == NULL) return text;
        size_t len = strlen(line);
        const bool more = len > 0 && line[len - 1] == '\\';
        if (more) line[--len] = '\0';
        char *p = realloc(text, n + len + 2);
        if (p == NULL) {
            free(line);
            free(text);
            cli_error("out of memory");
            return NULL;
        }
        text = p;
        memcpy(text + n, line, len);
        n += len;
        text[n] = '\0';
        free(line);
        if (!more) return text;
        text[n++] = '\n';
        text[n] = '\0';
        continues = true;
    }
}

static void remember(chat *c, const char *text) {
    HistEvent ev;
    if (c->history != NULL) history(c->history, &ev, H_ENTER, text);
}

static int loop(chat *c) {
    bool end = false;
    int rc = 0;
    while (!end && !ferror(stdout)) {
        char *text = read_message(c);
        if (text == NULL) break;
        const bool blank = text[strspn(text, " \t\n")] == '\0';
        if (!blank) remember(c, text);
        if (!blank && !command(c, text, &end)) {
            rc = add_message(c, "user", text, strlen(text), NULL, 0);
            if (rc == 0) rc = turn(c);
        }
        free(text);
        /* At a terminal the message said enough; in a pipe nobody would see it. */
        if (rc != 0 && c->edit == NULL) return rc;
        rc = 0;
    }
    return rc;
}

/* --- the command --------------------------------------------------------------------- */

static int converse(chat *c) {
    gdn_err err = { 0 };
    int rc = cli_open(&c->m, &c->o->common, CLI_WEIGHTS | CLI_TOKENIZER | CLI_TEMPLATE);
    if (rc == 0) rc = cli_engine(&c->m, &c->o->common, 0, GDN_CACHE_AUTO, &c->engine);
    if (rc != 0) return rc;
    cli_sampling_resolve(&c->o->sampling, &c->m.info->hints, &c->sampling);
    gdn_sampler *probe = NULL; /* say what is wrong with the options now */
    if (gdn_sampler_create(&c->sampling, c->m.info->vocab, c->m.info->vocab, &probe, &err) !=
        GDN_OK)
        return cli_fail(&err);
    gdn_sampler_free(probe);
    rc = set_system(c, c->o->system);
    if (rc == 0) rc = load_session(c);
    if (rc == 0 && isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) rc = edit_begin(c);
    if (rc != 0) return rc;
    struct sigaction sa = { .sa_handler = on_sigint }; /* without SA_RESTART: reads return */
    if (c->edit != NULL) sigaction(SIGINT, &sa, NULL);
    tell_adapter(c);
    rc = loop(c);
    if (c->edit != NULL) putchar('\n');
    return rc;
}

int cli_chat(int argc, char **argv) {
    options o = { .common = { .draft = -1, .plan = true } };
    const opt table[] = {
        { OPT_HEAD, 0, "conversation", NULL, NULL, NULL, 0, 0, NULL },
        { OPT_STR, 0, "system", &o.system, "TEXT", "a system message", 0, 0, NULL },
        { OPT_TRUE, 0, "think", &o.think, NULL, "let the model think first", 0, 0, NULL },
        { OPT_TRUE, 0, "no-think", &o.no_think, NULL, "or not (default: the template's)", 0, 0, NULL },
        { OPT_I32, 'n', "max-tokens", &o.n, "N", "tokens of a reply at most", 0, INT32_MAX, NULL },
        CLI_SAMPLING_OPTIONS(&o.sampling),
        CLI_COMMON_OPTIONS(&o.common),
        CLI_LORA_OPTIONS(&o.common),
        CLI_CACHE_OPTIONS(&o.common),
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    if (o.think && o.no_think)
        return opt_usage(&about, "give only one of --think and --no-think");
    chat c = { .o = &o };
    c.think = o.think ? CLI_THINK_ON : o.no_think ? CLI_THINK_OFF : CLI_THINK_UNSET;
    rc = converse(&c);
    edit_end(&c);
    drop_messages(&c, 0);
    free(c.msg);
    free(c.held);
    gdn_engine_free(c.engine);
    cli_close(&c.m);
    return cli_end(rc);
}
