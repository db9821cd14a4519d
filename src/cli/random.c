/* random.c - gdn random: a model of a released shape with random weights. */
#include "cli.h"

#include <gdn/tools.h>

static const opt_about about = {
    "random", "",
    "Make a checkpoint with the shape of a released model and random weights.  What it says\n"
    "has no meaning, but it loads, runs and takes the time and memory of the real one.",
};

static bool progress(uint64_t done, uint64_t total, void *bar) {
    cli_bar_step(bar, done, total);
    return true;
}

int cli_random(int argc, char **argv) {
    gdn_random_opts o;
    bool no_mtp = false, list = false, quiet = false;
    gdn_random_defaults(&o);
    o.like = NULL; /* gigabytes are made only on request */
    const opt table[] = {
        { OPT_STR, 0, "like", &o.like, "NAME", "the shape: see --list", 0, 0, NULL },
        { OPT_STR, 'o', "out", &o.out, "DIR", "the folder to make", 0, 0, NULL },
        { OPT_STR, 0, "type", &o.type, "TYPE", "bf16, f16, f32 or fp8 (default: bf16)", 0, 0, NULL },
        { OPT_I32, 0, "layers", &o.n_layer, "N", "only the first N layers, a multiple of 4", 0, 1024, NULL },
        { OPT_U64, 0, "seed", &o.seed, "N", "the same seed gives the same bytes", 0, 0, NULL },
        { OPT_TRUE, 0, "no-mtp", &no_mtp, NULL, "leave the draft head out", 0, 0, NULL },
        { OPT_TRUE, 0, "list", &list, NULL, "list the shapes", 0, 0, NULL },
        { OPT_TRUE, 'q', "quiet", &quiet, NULL, "nothing on stderr but errors", 0, 0, NULL },
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    const int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    if (list) {
        for (int32_t i = 0; gdn_random_like(i) != NULL; i++) puts(gdn_random_like(i));
        return cli_end(0);
    }
    if (o.like == NULL) return opt_usage(&about, "--like NAME is missing");
    if (o.out == NULL) return opt_usage(&about, "-o DIR is missing");
    gdn_err err = { 0 };
    cli_bar bar;
    char size[32];
    uint64_t bytes = 0;
    if (no_mtp) o.mtp = false;
    o.progress = progress;
    o.arg = &bar;
    gdn_status st = gdn_random_size(&o, &bytes, &err);
    if (st != GDN_OK) return cli_fail(&err);
    cli_bar_begin(&bar, "writing", NULL, quiet);
    st = gdn_random_model(&o, &err);
    cli_bar_end(&bar);
    if (st != GDN_OK) return cli_fail(&err);
    if (!quiet) fprintf(stderr, "%s: %s of weights\n", o.out, cli_bytes(bytes, size));
    return cli_end(0);
}
