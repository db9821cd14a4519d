/* draft_step.c - drafts for the next step, by the MTP head or from the text. */
#include "sched.h"

static gdn_status from_head(gdn_engine *e, gdn_request *const *r, int32_t n, int32_t most,
                            gdn_err *err) {
    gdn_sched *s = e->sched;
    for (int32_t i = 0; i < n; i++) {
        s->draft_seq[i] = r[i]->seq;
        s->draft_token[i] = r[i]->tokens[r[i]->n_tok - 1];
        s->draft_pos[i] = r[i]->seq->length;
    }
    gdn_status st = gdn_step_pairs(e, s->draft_seq, s->draft_token, n, s->draft_row, err);
    for (int32_t k = 0; st == GDN_OK; k++) {
        for (int32_t i = 0; i < n && st == GDN_OK; i += e->n_logit) {
            const int32_t some = n - i < e->n_logit ? n - i : e->n_logit;
            for (int32_t j = 0; j < some; j++) {
                gdn_sampler_ask(r[i + j]->sampler, s->logits + j);
                s->logits[j].k = 1;
            }
            st = gdn_step_top(e, s->draft_row + i, some, s->logits, err);
            for (int32_t j = 0; j < some && st == GDN_OK; j++) {
                s->draft_token[i + j] =
                    gdn_sampler_most_likely(r[i + j]->sampler, s->logits + j);
                r[i + j]->draft[k] = s->draft_token[i + j];
            }
        }
        if (k + 1 == most || st != GDN_OK) break;
        int32_t out;
        st = gdn_step_draft(e, s->draft_seq, s->draft_row, s->draft_token, s->draft_pos, n, &out,
                            err);
        for (int32_t i = 0; i < n; i++) {
            s->draft_row[i] = out + i;
            s->draft_pos[i]++;
        }
    }
    for (int32_t i = 0; i < n && st == GDN_OK; i++) r[i]->n_draft = most;
    return st;
}

gdn_status gdn_sched_draft(gdn_engine *e, gdn_request *const *r, int32_t n, int32_t most,
                           gdn_err *err) {
    if (!e->opts.mtp) {
        for (int32_t i = 0; i < n; i++)
            r[i]->n_draft = gdn_draft_from_text(r[i]->tokens, r[i]->n_tok, most, r[i]->draft);
        return GDN_OK;
    }
    /* Entries of the MTP layer's cache for the guesses; who has no room does without. */
    gdn_request **with = e->sched->drafter;
    int32_t n_with = 0;
    for (int32_t i = 0; i < n; i++) {
        gdn_err full = {0};
        if (gdn_seq_extend(r[i]->seq, most, &full) == GDN_OK) with[n_with++] = r[i];
    }
    return n_with > 0 ? from_head(e, with, n_with, most, err) : GDN_OK;
}
