/* messages.c - a conversation as JSON, the note that a saved session carries. */
#include "cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const roles[] = { "system", "user", "assistant" };

static int put(json_t *list, const cli_message *m) {
    json_t *one = json_object();
    int bad = one == NULL ||
              json_object_set_new(one, "role", json_string(m->role)) != 0 ||
              json_object_set_new(one, "content", json_stringn_nocheck(m->text, m->n)) != 0;
    if (!bad && m->reasoning != NULL)
        bad = json_object_set_new(one, "reasoning_content",
                                  json_stringn_nocheck(m->reasoning, m->n_reasoning)) != 0;
    if (bad || json_array_append(list, one) != 0) bad = 1;
    json_decref(one);
    return bad;
}

int cli_messages_write(const cli_message *msg, int n_msg, char **out, size_t *n) {
    json_t *list = json_array();
    int bad = list == NULL;
    for (int i = 0; i < n_msg && !bad; i++) bad = put(list, msg + i);
    *out = bad ? NULL : json_dumps(list, JSON_COMPACT | JSON_ALLOW_NUL);
    *n = *out != NULL ? strlen(*out) : 0;
    json_decref(list);
    return *out != NULL ? 0 : cli_error("out of memory");
}

static char *copy(const json_t *text, size_t *n) {
    *n = json_string_length(text);
    char *s = malloc(*n + 1);
    if (s != NULL) memcpy(s, json_string_value(text), *n + 1);
    return s;
}

/* 0, or 1 for what is no message, or -1 without memory. */
static int get(const json_t *one, cli_message *m) {
    const json_t *role = json_object_get(one, "role"), *text = json_object_get(one, "content");
    const json_t *why = json_object_get(one, "reasoning_content");
    if (!json_is_string(role) || !json_is_string(text) || (why != NULL && !json_is_string(why)))
        return 1;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(roles[i], json_string_value(role)) == 0) m->role = roles[i];
    if (m->role == NULL) return 1;
    m->text = copy(text, &m->n);
    if (why != NULL) m->reasoning = copy(why, &m->n_reasoning);
    return m->text == NULL || (why != NULL && m->reasoning == NULL) ? -1 : 0;
}

int cli_messages_read(const char *json, size_t n, cli_message **out, int *n_out) {
    json_t *list = json_loadb(json, n, JSON_ALLOW_NUL, NULL);
    const size_t len = json_array_size(list);
    cli_message *m = calloc(len + 1, sizeof *m);
    int bad = m == NULL ? -1 : !json_is_array(list), n_msg = 0;
    for (size_t i = 0; i < len && bad == 0; i++) {
        bad = get(json_array_get(list, i), m + i);
        n_msg++;
    }
    json_decref(list);
    if (bad == 0) {
        *out = m;
        *n_out = n_msg;
        return 0;
    }
    for (int i = 0; i < n_msg; i++) {
        free((char *)(uintptr_t)m[i].text);
        free((char *)(uintptr_t)m[i].reasoning);
    }
    free(m);
    return bad < 0 ? cli_error("out of memory")
                   : cli_error("the session's note is no conversation of gdn chat");
}
