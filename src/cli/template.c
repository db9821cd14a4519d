/* template.c - gdn template: what the chat template makes of messages.
 *
 * The files' own JSON text goes to the template, so that numbers and the order of keys reach
 * it as written; jansson only says whether it is JSON and what is in it. */
#include "cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const opt_about about = {
    "template", "",
    "Print the prompt that the model's chat template makes of messages.",
};

typedef struct {
    cli_common  common;
    const char *messages, *tools;
    bool        think, no_think, no_prompt;
} options;

/* Read a file that holds a JSON list; *list is its parsed form. */
static int read_list(const char *path, char **text, size_t *n, json_t **list) {
    json_error_t e;
    const int rc = cli_read(path, text, n);
    if (rc != 0) return rc;
    *list = json_loadb(*text, *n, JSON_ALLOW_NUL, &e);
    if (*list == NULL) return cli_error("%s: line %d: %s", path, e.line, e.text);
    if (!json_is_array(*list)) return cli_error("%s: need a JSON list", path);
    return 0;
}

/* Pictures would need a model of their own; say so by name instead of losing them. */
static int check_parts(const char *path, const json_t *messages) {
    static const struct { const char *type, *shown; } media[] = {
        { "image", "images" }, { "image_url", "images" }, { "input_image", "images" },
        { "video", "videos" }, { "video_url", "videos" }, { "audio", "audio" },
        { "input_audio", "audio" },
    };
    size_t i, j;
    const json_t *msg, *part;
    json_array_foreach(messages, i, msg) {
        json_array_foreach(json_object_get(msg, "content"), j, part) {
            const char *type = json_string_value(json_object_get(part, "type"));
            for (size_t k = 0; k < sizeof media / sizeof *media; k++) {
                const bool key = json_object_get(part, media[k].type) != NULL;
                if (key || (type != NULL && strcmp(type, media[k].type) == 0))
                    return cli_error("%s: message %zu: %s are not supported by this build",
                                     path, i, media[k].shown);
            }
        }
    }
    return 0;
}

static int make_request(const options *o, char **json, size_t *n_json) {
    char *text = NULL, *tools = NULL;
    size_t n = 0, n_tools = 0;
    json_t *list = NULL, *tool_list = NULL;
    int rc = read_list(o->messages, &text, &n, &list);
    if (rc == 0) rc = check_parts(o->messages, list);
    if (rc == 0 && o->tools != NULL) rc = read_list(o->tools, &tools, &n_tools, &tool_list);
    FILE *f = rc == 0 ? open_memstream(json, n_json) : NULL;
    if (rc == 0 && f == NULL) rc = cli_error("out of memory");
    if (f != NULL) {
        fputs("{\"messages\": ", f);
        fwrite(text, 1, n, f);
        if (tools != NULL) fputs(", \"tools\": ", f), fwrite(tools, 1, n_tools, f);
        if (o->think || o->no_think)
            fprintf(f, ", \"enable_thinking\": %s", o->think ? "true" : "false");
        fprintf(f, ", \"add_generation_prompt\": %s}", o->no_prompt ? "false" : "true");
        if (fclose(f) != 0) rc = cli_error("out of memory");
    }
    json_decref(list);
    json_decref(tool_list);
    free(text);
    free(tools);
    return rc;
}

int cli_template(int argc, char **argv) {
    options o = { .messages = NULL };
    const opt table[] = {
        { OPT_STR, 0, "messages", &o.messages, "FILE", "a JSON list of messages; - is stdin", 0, 0, NULL },
        { OPT_STR, 0, "tools", &o.tools, "FILE", "a JSON list of tools", 0, 0, NULL },
        { OPT_TRUE, 0, "think", &o.think, NULL, "enable_thinking true", 0, 0, NULL },
        { OPT_TRUE, 0, "no-think", &o.no_think, NULL, "enable_thinking false", 0, 0, NULL },
        { OPT_TRUE, 0, "no-generation-prompt", &o.no_prompt, NULL, "do not begin the answer's turn", 0, 0, NULL },
        CLI_MODEL_OPTION(&o.common),
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    if (o.messages == NULL) return opt_usage(&about, "--messages FILE is missing");
    if (o.think && o.no_think)
        return opt_usage(&about, "give only one of --think and --no-think");
    cli_model m;
    gdn_err err = { 0 };
    char *json = NULL, *text = NULL;
    size_t n_json = 0, n = 0;
    rc = cli_open(&m, &o.common, CLI_TEMPLATE);
    if (rc != 0) return rc;
    rc = make_request(&o, &json, &n_json);
    if (rc == 0 && gdn_template_render(m.tmpl, json, n_json, &text, &n, &err) != GDN_OK)
        rc = cli_fail(&err);
    if (rc == 0) fwrite(text, 1, n, stdout);
    free(json);
    free(text);
    cli_close(&m);
    return cli_end(rc);
}
