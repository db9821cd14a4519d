/* op.c - gdn op: recorded calls of the operator, run and compared with what they expect. */
#include "cli.h"

#include <gdn/tools.h>
#include <math.h>
#include <string.h>

static const opt_about about = {
    "op", "FILE...",
    "Run recorded calls of gdn_attention() and compare what they write: twice each, with dense\n"
    "pools and with both pools in pages.  Bytes that a call must not touch have to stay.\n"
    "\n"
    "Figures are the largest absolute and the relative L2 error, the latter against the rows that\n"
    "are written or the whole pool.  Its bounds, by the type of the rows:\n"
    "                    core      f32 states\n"
    "  f32               2e-6      2e-6\n"
    "  bf16              1e-3      5e-5\n"
    "  f16               1.25e-4   6.25e-6\n"
    "  States in bf16 or f16: as core of the coarser of both types.\n"
    "  z and conv_state: bit for bit.",
};

/* Infinity is no JSON. */
static void number(const char *name, double x) {
    if (isfinite(x)) printf("\"%s\": %.6g", name, x);
    else printf("\"%s\": null", name);
}

static void print_json(const gdn_op_vector_result *r) {
    printf("\"form\": \"%s\", \"outputs\": {", r->form);
    for (int32_t i = 0; i < GDN_OP_N_OUTPUT; i++) {
        const gdn_op_vector_error *e = &r->out[i];
        printf("%s\"%s\": {", i > 0 ? ", " : "", gdn_op_output_name(i));
        number("max_abs", e->max_abs);
        printf(", ");
        number("rel_l2", e->rel_l2);
        printf(", \"bound\": %g, \"differ\": %lld, \"ok\": %s}", e->bound, (long long)e->n_differ,
               e->pass ? "true" : "false");
    }
    printf("}, \"stray_bytes\": %lld, \"ok\": %s}", (long long)r->n_stray,
           r->pass ? "true" : "false");
}

/* Words for what the two figures of core and states do not show. */
static void print_rest(const gdn_op_vector_result *r) {
    for (int32_t i = 0; i < GDN_OP_N_OUTPUT; i++) {
        const gdn_op_vector_error *e = &r->out[i];
        if (e->pass) continue;
        if (e->n_differ > 0)
            printf("; %s: %lld elements differ", gdn_op_output_name(i), (long long)e->n_differ);
        if (e->rel_l2 > e->bound)
            printf("; %s: rel %.2e, bound %.2e", gdn_op_output_name(i), e->rel_l2, e->bound);
    }
    if (r->n_stray > 0)
        printf("; %lld bytes changed that are not the call's", (long long)r->n_stray);
    printf("\n");
}

static void print_text(const char *name, int width, const gdn_op_vector_result *r) {
    const gdn_op_vector_error *core = &r->out[GDN_OP_CORE], *ssm = &r->out[GDN_OP_SSM_STATE];
    printf("%-*s %-28s core %.2e / %.2e  state %.2e / %.2e  %s", width, name, r->form,
           core->max_abs, core->rel_l2, ssm->max_abs, ssm->rel_l2, r->pass ? "ok" : "FAIL");
    print_rest(r);
}

int cli_op(int argc, char **argv) {
    const char *device = NULL;
    bool json = false;
    gdn_device_opts opts;
    gdn_device_opts_defaults(&opts);
    const opt table[] = {
        { OPT_TRUE, 0, "json", &json, NULL, "a JSON list", 0, 0, NULL },
        { OPT_STR, 0, "device", &device, "D", "where to compute: see gdn devices", 0, 0, NULL },
        { OPT_I32, 't', "threads", &opts.n_thread, "N", "threads (default: every CPU)", 1, 4096, NULL },
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    int n = argc;
    int rc = opt_parse(&about, table, argc, argv, &n);
    if (rc != OPT_GO) return rc;
    if (n == 0) return opt_usage(&about, "no file is named");
    rc = 0;
    int width = 0;
    for (int i = 0; i < n; i++)
        if ((int)strlen(argv[i]) > width) width = (int)strlen(argv[i]);
    if (json) putchar('[');
    for (int i = 0; i < n; i++) {
        gdn_op_vector_result r;
        gdn_err err = { 0 };
        const gdn_status st = gdn_op_vector_run(argv[i], device, &opts, &r, &err);
        if (st != GDN_OK) rc = cli_fail(&err);
        else if (!r.pass) rc = 1;
        if (json) {
            printf("%s{\"file\": ", i > 0 ? ",\n " : "");
            cli_json_string(stdout, argv[i], strlen(argv[i]));
            printf(", ");
            if (st == GDN_OK) {
                print_json(&r);
            } else {
                printf("\"ok\": false, \"error\": ");
                cli_json_string(stdout, err.text, strlen(err.text));
                putchar('}');
            }
        } else if (st == GDN_OK) {
            print_text(argv[i], width, &r);
        }
    }
    if (json) printf("]\n");
    return cli_end(rc);
}
