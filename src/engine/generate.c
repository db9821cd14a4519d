/* generate.c - one whole answer: submit a request and step until it is done. */
#include "../base/err.h"
#include "sched.h"

gdn_status gdn_generate(gdn_engine *e, const gdn_request_opts *o, const volatile bool *cancel,
                        gdn_request_result *out, gdn_err *err) {
    if (e == NULL) return gdn_fail(err, GDN_E_INVALID, "generate: engine is NULL");
    gdn_request *r;
    gdn_status st = gdn_request_submit(e, o, &r, err);
    if (st != GDN_OK) return st;
    while (st == GDN_OK && !r->result.done) {
        if (cancel != NULL && *cancel) gdn_request_cancel(r);
        st = gdn_engine_step(e, err);
    }
    if (st == GDN_OK && r->result.finish == GDN_FINISH_ERROR)
        st = gdn_fail(err, r->result.status, "%s", r->error);
    if (st == GDN_OK) {
        *out = r->result;
        if (err != NULL) *err = (gdn_err){.code = GDN_OK};
    }
    gdn_request_free(r);
    return st;
}
