/* bench_requests.c - gdn bench --reuse, --batch and --drafts. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int reuse(const cli_model *m, bool json) {
    gdn_reuse_row row[GDN_REUSE_ROWS] = { { 0 } };
    gdn_err err = { 0 };
    char path[] = "/tmp/gdn-reuse-XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0) return cli_error("%s: no room for a session", path);
    close(fd);
    const gdn_status st = gdn_bench_reuse(m->model, path, row, &err);
    unlink(path);
    if (st != GDN_OK) return cli_fail(&err);
    if (json) printf("{\"reuse\": [");
    else printf("%-60s %8s %8s %8s\n", "prompt tokens", "all", "computed", "reused");
    for (int i = 0; i < GDN_REUSE_ROWS; i++) {
        const gdn_reuse_row *r = row + i;
        if (json)
            printf("%s{\"what\": \"%s\", \"prompt\": %lld, \"computed\": %lld}", i > 0 ? ", " : "",
                   r->what, (long long)r->prompt, (long long)r->computed);
        else
            printf("%-60s %8lld %8lld %7.1f%%\n", r->what, (long long)r->prompt,
                   (long long)r->computed,
                   r->prompt > 0 ? 100.0 * (double)(r->prompt - r->computed) / (double)r->prompt : 0);
    }
    if (json) printf("]}\n");
    return 0;
}

static int batch(const cli_model *m, const cli_bench_requests *b) {
    gdn_bench_batch_opts o;
    gdn_bench_batch_result r;
    gdn_err err = { 0 };
    gdn_bench_batch_defaults(&o);
    o.n_request = b->batch;
    o.n_rep = b->n_rep;
    if (b->n_prompt > 0) o.n_prompt = b->n_prompt;
    if (b->n_new > 0) o.n_new = b->n_new;
    if (gdn_bench_batch(m->model, &o, &r, &err) != GDN_OK) return cli_fail(&err);
    const double gain = r.one.median > 0 ? r.all.median / r.one.median : 0;
    if (b->json)
        printf("{\"requests\": %d, \"prompt\": %d, \"new\": %d, \"one_by_one\": %.6g, \"at_once\": "
               "%.6g, \"gain\": %.4f, \"scheduler_share\": %.5f}\n",
               o.n_request, o.n_prompt, o.n_new, r.one.median, r.all.median, gain, r.own_share);
    else
        printf("%d requests of %d + %d tokens: %.1f tokens/s (%.1f to %.1f) one after the other,\n"
               "%.1f (%.1f to %.1f) at once: %.2f times; the scheduler's own time %.2f %%\n",
               o.n_request, o.n_prompt, o.n_new, r.one.median, r.one.min, r.one.max, r.all.median,
               r.all.min, r.all.max, gain, 100 * r.own_share);
    return 0;
}

static int drafts(cli_model *m, const cli_bench_requests *b) {
    static const char question[] = "What is cruft?";
    const char *text = b->text != NULL ? b->text : question;
    const cli_message msg = { .role = "user", .text = text, .n = strlen(text) };
    int32_t *ids = NULL, n = 0, stop[CLI_STOP_MAX];
    gdn_request_opts o;
    gdn_bench_draft_result r;
    gdn_err err = { 0 };
    int rc = cli_prompt(m, &msg, 1, CLI_THINK_UNSET, NULL, &ids, &n);
    if (rc == 0) rc = cli_request(m, ids, n, stop, &o);
    if (rc == 0) {
        o.sampling.temperature = 0;
        o.max_new = b->n_new > 0 ? b->n_new : 128;
        if (gdn_bench_draft(m->model, &o, b->draft, b->n_rep, &r, &err) != GDN_OK)
            rc = cli_fail(&err);
        free((void *)(uintptr_t)o.save);
    }
    free(ids);
    if (rc != 0) return rc;
    if (b->json)
        printf("{\"draft\": %d, \"with\": %.6g, \"without\": %.6g, \"ratio\": %.4f, \"accepted\": "
               "%.4f}\n", b->draft, r.with.median, r.without.median, r.ratio.median, r.accepted);
    else
        printf("%d drafts: %.1f tokens/s with, %.1f without: %.3f times (%.3f to %.3f), median of "
               "%d pairs; %.1f %% of drafts right\n", b->draft, r.with.median, r.without.median,
               r.ratio.median, r.ratio.min, r.ratio.max, b->n_rep, 100 * r.accepted);
    return 0;
}

int cli_bench_requests_run(cli_model *m, const cli_bench_requests *b) {
    if (b->reuse) return reuse(m, b->json);
    return b->batch > 0 ? batch(m, b) : drafts(m, b);
}
