/* genconfig.c - generation_config.json to a gdn_genconfig. */
#include "genconfig.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "fields.h"

enum { MAX_FILE = 1 << 20 };

static void number(gdn_fields *r, const char *key, double lo, double hi, double *out,
                   bool *has) {
    gdn_field_f64(r, key, false, lo, hi, out);
    *has = r->st == GDN_OK && gdn_field_get(r, key) != NULL;
}

gdn_status gdn_genconfig_parse(const char *json, size_t n, const char *name,
                               gdn_genconfig *out, gdn_err *err) {
    json_t *j = NULL;
    gdn_status st = gdn_fields_parse(json, n, name, &j, err);
    if (st != GDN_OK) return st;

    gdn_genconfig g = {.temperature = 1, .top_p = 1, .repetition = 1};
    gdn_fields r = {name, "", j, err, GDN_OK};
    gdn_field_i32_list(&r, "eos_token_id", GDN_MAX_EOS, 0, INT32_MAX, g.eos, &g.n_eos);
    gdn_field_bool(&r, "do_sample", &g.do_sample);
    g.has_do_sample = gdn_field_get(&r, "do_sample") != NULL;
    gdn_field_i32(&r, "top_k", false, 0, INT32_MAX, &g.top_k);
    g.has_top_k = gdn_field_get(&r, "top_k") != NULL;
    number(&r, "temperature", 0, 100, &g.temperature, &g.has_temperature);
    number(&r, "top_p", 0, 1, &g.top_p, &g.has_top_p);
    number(&r, "min_p", 0, 1, &g.min_p, &g.has_min_p);
    number(&r, "repetition_penalty", 1e-3, 1e3, &g.repetition, &g.has_repetition);
    number(&r, "presence_penalty", -100, 100, &g.presence, &g.has_presence);
    number(&r, "frequency_penalty", -100, 100, &g.frequency, &g.has_frequency);
    st = r.st;
    if (st == GDN_OK) *out = g;
    json_decref(j);
    return st;
}

gdn_status gdn_genconfig_read(const char *path, gdn_genconfig *out, gdn_err *err) {
    char *file = NULL, *text = NULL;
    size_t n = 0;
    gdn_status st;
    struct stat s;
    const bool folder = stat(path, &s) == 0 && S_ISDIR(s.st_mode);
    if (asprintf(&file, "%s%s", path, folder ? "/generation_config.json" : "") < 0)
        return gdn_fail(err, GDN_E_NOMEM, "%s: no memory", path);
    if (folder && access(file, F_OK) != 0) {
        st = gdn_genconfig_parse("{}", 2, file, out, err);
        goto done;
    }
    st = gdn_fields_slurp(file, MAX_FILE, &text, &n, err);
    if (st == GDN_OK) st = gdn_genconfig_parse(text, n, file, out, err);

done:
    free(text);
    free(file);
    return st;
}
