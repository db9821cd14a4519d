/* main.c - the table of commands. */
#include "cli.h"

#include <locale.h>
#include <string.h>

static cli_command_fn help, version;

static const struct {
    const char     *name;
    cli_command_fn *run;
    const char     *about;
} commands[] = {
    { "run", cli_run, "one answer to one prompt" },
    { "chat", cli_chat, "a conversation" },
    { "bench", cli_bench, "speed by context length, next to the machine's limits" },
    { "logits", cli_logits, "logits of given tokens, to a file" },
    { "perplexity", cli_perplexity, "how well the model expects a text" },
    { "tokenize", cli_tokenize, "text to token ids and back" },
    { "template", cli_template, "what the chat template makes of messages" },
    { "info", cli_info, "what a model is" },
    { "plan", cli_plan, "page size and memory of a model's cache, without its weights" },
    { "op", cli_op, "recorded calls of the operator, compared with what they expect" },
    { "random", cli_random, "make a model of a released shape with random weights" },
    { "devices", cli_devices, "what this machine can compute on" },
    { "version", version, "the program's version" },
    { "help", help, "this, or the help of a command" },
};
enum { N_COMMAND = sizeof commands / sizeof *commands };

static int find(const char *name) {
    for (int i = 0; i < N_COMMAND; i++)
        if (strcmp(commands[i].name, name) == 0) return i;
    return -1;
}

static void overview(FILE *f) {
    fprintf(f, "usage: gdn COMMAND [options]\n\n"
               "Runs Qwen3-Next and Qwen3.5 models.  Without -m a command takes the demo model:\n"
               "    gdn run -p \"What is cruft?\"\n\n");
    for (int i = 0; i < N_COMMAND; i++)
        fprintf(f, "  %-12s%s\n", commands[i].name, commands[i].about);
    fprintf(f, "\ngdn COMMAND --help shows a command's options.\n");
}

static int version(int argc, char **argv) {
    static const opt_about about = { "version", "", "Print the program's version." };
    static const opt table[] = { { .name = NULL } };
    const int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    printf("gdn %s\n", gdn_version());
    return cli_end(0);
}

static int help(int argc, char **argv) {
    static const opt_about about = { "help", "[COMMAND]", "Explain the program or a command." };
    static const opt table[] = { { .name = NULL } };
    int n = 1;
    const int rc = opt_parse(&about, table, argc, argv, &n);
    if (rc != OPT_GO) return rc;
    if (n == 0) {
        overview(stdout);
        return cli_end(0);
    }
    const int i = find(argv[0]);
    if (i < 0) return opt_usage(&about, "there is no command \"%s\"", argv[0]);
    char option[] = "--help";
    char *args[] = { argv[0], option, NULL };
    return cli_end(commands[i].run(2, args));
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, ""); /* for line editing; numbers keep their point */
    if (argc < 2) {
        overview(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) name = "version";
    const int i = find(name);
    if (i < 0) {
        fprintf(stderr, "gdn: there is no command \"%s\"; see gdn help\n", name);
        return 2;
    }
    cli_begin(name);
    return commands[i].run(argc - 1, argv + 1);
}
