/* engine.c - two questions to one model at once, answered in turn by shared steps.
 *
 *     cc engine.c -o engine $(pkg-config --cflags --libs gdn)
 *     ./engine models/jargon "What is cruft?" "What is a hacker?" */
#include <gdn/gdn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool on_token(void *arg, int32_t id, const char *text, size_t n) {
    (void)id;
    printf("%s: %.*s\n", (const char *)arg, (int)n, text);
    return true;
}

static int failed(const gdn_err *err) {
    fprintf(stderr, "engine: %s\n", err->text);
    return 1;
}

int main(int argc, char **argv) {
    gdn_err err = {0};
    gdn_model *model;
    gdn_tokenizer *tok;
    gdn_engine *engine;
    gdn_request *req[8];
    if (argc < 3 || argc > 10) return fprintf(stderr, "usage: engine MODEL QUESTION...\n"), 2;
    if (gdn_model_open(argv[1], NULL, &model, &err) != GDN_OK ||
        gdn_tokenizer_open(argv[1], &tok, &err) != GDN_OK) return failed(&err);
    const gdn_model_info *info = gdn_model_get_info(model);
    gdn_engine_opts e;
    gdn_engine_opts_defaults(&e);
    e.n_ctx = 4096, e.n_seq = 8;
    e.cache_bytes = GDN_CACHE_AUTO; /* what prompts have in common is read once */
    if (gdn_engine_create(model, &e, &engine, &err) != GDN_OK) return failed(&err);
    for (int i = 2; i < argc; i++) {
        char prompt[4096];
        int32_t *ids;
        size_t n;
        snprintf(prompt, sizeof prompt, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n",
                 argv[i]);
        if (gdn_tokenize(tok, prompt, strlen(prompt), true, &ids, &n, &err) != GDN_OK)
            return failed(&err);
        gdn_request_opts o;
        gdn_request_opts_defaults(&o);
        o.prompt = ids, o.n_prompt = (int32_t)n;
        o.sampling.temperature = 0, o.max_new = 60;
        o.stop = info->stop, o.n_stop = info->n_stop;
        o.tokenizer = tok;
        o.on_token = on_token, o.arg = argv[i];
        if (gdn_request_submit(engine, &o, &req[i - 2], &err) != GDN_OK) return failed(&err);
        free(ids);
    }
    while (gdn_engine_busy(engine) && gdn_engine_step(engine, &err) == GDN_OK) {}
    for (int i = 2; i < argc; i++) gdn_request_free(req[i - 2]);
    gdn_engine_free(engine);
    gdn_tokenizer_close(tok);
    gdn_model_close(model);
}
