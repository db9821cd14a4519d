/* op.c - gdn op: recorded calls of the operator, run and compared with what they expect. */
#include "cli.h"

#include <gdn/tools.h>
#include <math.h>
#include <string.h>

static const opt_about about = {
    "op", "FILE...",
    "Run recorded calls of gdn_attention() and compare what they write.  Each goes through every\n"
    "form: recurrent and chunked, in one call and in two stages (whose bits have to be those of one\n"
    "call); each form twice, with dense pools and with both pools in pages.  Bytes that a call must\n"
    "not touch have to stay.\n"
    "\n"
    "Figures are the largest absolute and the relative L2 error, the latter against the rows that\n"
    "are written or the whole pool.  Its bounds, by the type of the rows:\n"
    "               recurrent              chunked\n"
    "               core      f32 states   core      f32 states\n"
    "  f32          2e-6      2e-6         1e-4      1e-4\n"
    "  bf16         1e-3      5e-5         6e-3      2e-3\n"
    "  f16          1.25e-4   6.25e-6      7.5e-4    2.5e-4\n"
    "  States in bf16 or f16: as core, or as recurrent core of their own type if that is more.\n"
    "  z and conv_state: bit for bit.",
};

/* Infinity is no JSON. */
static void number(const char *name, double x) {
    if (isfinite(x)) printf("\"%s\": %.6g", name, x);
    else printf("\"%s\": null", name);
}

static void json_form(const gdn_op_form_result *r) {
    printf("{\"outputs\": {");
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

static void print_json(const gdn_op_vector_result *r) {
    printf("\"kind\": \"%s\", \"forms\": {", r->kind);
    for (int32_t f = 0; f < GDN_OP_N_FORM; f++) {
        printf("%s\"%s\": ", f > 0 ? ", " : "", gdn_op_form_name(f));
        json_form(&r->form[f]);
    }
    printf("}, \"ok\": %s}", r->pass ? "true" : "false");
}

static void print_output(const char *form, int32_t i, const gdn_op_vector_error *e) {
    printf("  %-16s  %-13s  max %.2e  rel %.2e", form, gdn_op_output_name(i), e->max_abs, e->rel_l2);
    if (e->bound > 0) printf(" of %.2e", e->bound);
    else printf(" of 0       ");
    printf("  %s", e->pass ? "ok" : "FAIL");
    if (e->n_differ > 0) printf("; %lld elements differ", (long long)e->n_differ);
    printf("\n");
}

/* A line for the file, and one for each form and output. */
static void print_text(const char *name, const gdn_op_vector_result *r) {
    printf("%s  %s  %s\n", name, r->kind, r->pass ? "ok" : "FAIL");
    for (int32_t f = 0; f < GDN_OP_N_FORM; f++) {
        const gdn_op_form_result *o = &r->form[f];
        for (int32_t i = 0; i < GDN_OP_N_OUTPUT; i++)
            print_output(gdn_op_form_name(f), i, &o->out[i]);
        if (o->n_stray > 0)
            printf("  %-16s  FAIL; %lld bytes changed that are not the call's\n", gdn_op_form_name(f),
                   (long long)o->n_stray);
    }
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
            print_text(argv[i], &r);
        }
    }
    if (json) printf("]\n");
    return cli_end(rc);
}
