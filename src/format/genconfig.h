/* genconfig.h - how a checkpoint wants to be sampled: generation_config.json. */
#ifndef GDN_FORMAT_GENCONFIG_H
#define GDN_FORMAT_GENCONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/err.h"
#include "config.h"

/* A value counts only if its has_ flag is set; a field that is null counts as absent. */
typedef struct {
    int32_t n_eos, eos[GDN_MAX_EOS];
    bool    has_do_sample, has_temperature, has_top_k, has_top_p, has_min_p;
    bool    has_repetition, has_presence, has_frequency;
    bool    do_sample;
    int32_t top_k;       /* 0: all tokens             */
    double  temperature; /* 0 to 100                  */
    double  top_p, min_p;
    double  repetition; /* a factor, 1: none         */
    double  presence, frequency; /* subtracted, -2 to 2 usually */
} gdn_genconfig;

/* Read DIR/generation_config.json, or the file itself when path names a file.  A folder
 * without one is GDN_OK with nothing present.  GDN_E_FORMAT names the field. */
gdn_status gdn_genconfig_read(const char *path, gdn_genconfig *out, gdn_err *err);

/* The same from n bytes of JSON; name is used in messages only. */
gdn_status gdn_genconfig_parse(const char *json, size_t n, const char *name,
                               gdn_genconfig *out, gdn_err *err);

#endif
