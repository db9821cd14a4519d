/* check_gdn_attention.c - what gdn_attention() promises, in both forms of the delta rule: its
 * errors, and what changes no bit.
 *
 * Whole calls on a device with the instruction set under test.  The strongest one does all of it,
 * the others the edges and every fifth case of the grid. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/sanitized.h"
#include "check_gdn_attention.h"

static const gdn_delta_form form[2] = {GDN_FORM_RECURRENT, GDN_FORM_CHUNKED};
static const char *const form_name[2] = {"recurrent", "chunked"};

enum { LENGTHS = SANITIZED ? 70 : 200, LONG = SANITIZED ? 3000 : 40000,
       MANY = SANITIZED ? 60 : 300, RUNS = SANITIZED ? 3 : 10 };

/* An instruction set stands for its functions: a call goes through many of them. */
static bool begin(check *c, const char *name) {
    return check_begin(c, (check_fn *)(uintptr_t)(c->kern->isa + 1), "gdn_attention %s", name);
}

static void end(attn_case *k) {
    attn_close(k);
    check_end(k->c);
}

/* Both forms against the expectation. */
static void both(attn_case *k) {
    for (int f = 0; f < 2; f++) {
        attn_error e;
        k->a.form = form[f];
        attn_reset(k);
        attn_run(k);
        attn_compare(k, form_name[f], &e);
    }
}

/* --- errors ---------------------------------------------------------------------- */

/* One call for each length, and one for all of them. */
static void lengths(check *c, gdn_type act) {
    char name[40];
    snprintf(name, sizeof name, "%s lengths 1 to %d", gdn_type_name(act), LENGTHS);
    if (!begin(c, name)) return;
    int32_t len[LENGTHS];
    for (int32_t i = 0; i < LENGTHS; i++) len[i] = i + 1;
    const attn_shape s = {.nk = 1, .nv = 2, .dk = 16, .dv = 12, .W = 4, .n_seq = LENGTHS, .len = len,
                          .act = act, .state = GDN_F32, .fresh = true, .reorder = true};
    attn_case k;
    attn_open(&k, c, &s);
    for (int f = 0; f < 2; f++) {
        attn_error e;
        k.a.form = form[f];
        attn_reset(&k);
        attn_run(&k);
        attn_compare(&k, form_name[f], &e);
        attn_image all = attn_save(&k);
        attn_reset(&k);
        for (int32_t i = 0; i < LENGTHS; i++) {
            attn_run_part(&k, 1, &i, &(int32_t){0}, len + i);
            e = attn_error_of(&k, i, 0, len[i]);
            check_that(c, e.core <= attn_core_bound(&k) && e.state <= attn_state_bound(&k),
                       "%s, %d tokens: errors within %.2g and %.2g, not %.3g and %.3g",
                       form_name[f], len[i], attn_core_bound(&k), attn_state_bound(&k), e.core,
                       e.state);
        }
        attn_same(&k, &all, "one by one");
        free(all.bytes);
    }
    end(&k);
}

/* Errors may not grow along a long sequence. */
static void drift(check *c, gdn_type act) {
    char name[40];
    snprintf(name, sizeof name, "%s one sequence of %d", gdn_type_name(act), LONG);
    if (!begin(c, name)) return;
    const attn_shape s = {.nk = 1, .nv = 2, .dk = 64, .dv = 32, .W = 4, .n_seq = 1, .n_tok = LONG,
                          .act = act, .state = GDN_F32, .bias = true};
    attn_case k;
    attn_open(&k, c, &s);
    for (int f = 0; f < 2; f++) {
        attn_error e;
        k.a.form = form[f];
        attn_reset(&k);
        attn_run(&k);
        attn_compare(&k, form_name[f], &e);
        const attn_error first = attn_error_of(&k, 0, 0, LONG / 10);
        const attn_error last = attn_error_of(&k, 0, LONG - LONG / 10, LONG);
        printf("     %s %s, core of the first and last %d tokens %.2g %.2g, state %.2g\n",
               gdn_type_name(act), form_name[f], LONG / 10, first.core, last.core, e.state);
        check_that(c, last.core <= attn_core_bound(&k), "%s: the last tokens within %.2g, not %.3g",
                   form_name[f], attn_core_bound(&k), last.core);
    }
    end(&k);
}

static void many(check *c, gdn_type act, gdn_type state) {
    char name[40];
    snprintf(name, sizeof name, "%s/%s %d sequences", gdn_type_name(act), gdn_type_name(state), MANY);
    if (!begin(c, name)) return;
    int32_t len[MANY];
    for (int32_t i = 0; i < MANY; i++) /* decodes, empty ones, prompts */
        len[i] = i % 5 == 0 ? 1 : i % 31 == 7 ? 0 : (int32_t)(check_uniform() * 100);
    const attn_shape s = {.nk = 2, .nv = 4, .dk = 24, .dv = 20, .W = 4, .n_seq = MANY, .len = len,
                          .act = act, .state = state, .fresh = true, .map = true};
    attn_case k;
    attn_open(&k, c, &s);
    both(&k);
    end(&k);
}

/* Slots beyond 2^32 bytes and, in f32, beyond 2^31 elements. */
static void far(check *c, gdn_type act, bool ds) {
    char name[40];
    snprintf(name, sizeof name, "%s %s slots 3 GiB apart", gdn_type_name(act), ds ? "DS" : "SD");
    if (!begin(c, name)) return;
    const attn_shape s = {.nk = 1, .nv = 2, .dk = 32, .dv = 48, .W = 4, .n_seq = 3, .n_tok = 40,
                          .act = act, .state = act, .ds = ds, .map = true, .fresh = ds,
                          .stride = (uint64_t)3 << 30};
    attn_case k;
    if (!attn_open(&k, c, &s)) {
        printf("skip %s: 30 GiB of addresses cannot be mapped\n", name);
        check_end(c);
        return;
    }
    both(&k);
    end(&k);
}

static void edges(check *c, gdn_type act, gdn_type state) {
    char name[40];
    snprintf(name, sizeof name, "%s/%s edges", gdn_type_name(act), gdn_type_name(state));
    if (!begin(c, name)) return;
    static const int32_t len[4] = {130, 64, 33, 257};
    const attn_shape s = {.nk = 2, .nv = 6, .dk = 32, .dv = 24, .W = 4, .n_seq = 4, .len = len,
                          .act = act, .state = state, .edges = true, .bias = true, .fresh = true};
    attn_case k;
    attn_open(&k, c, &s);
    both(&k);
    end(&k);
}

/* Types, layouts, taps, head ratios and sizes: 63 goes through all types with all taps. */
static void grid(check *c, int32_t step) {
    static const gdn_type type[3] = {GDN_F32, GDN_BF16, GDN_F16};
    static const int32_t len[4] = {37, 1, 0, 70};
    static const int32_t dv[9] = {1, 64, 7, 128, 33, 40, 100, 16, 256};
    for (int32_t i = 0; i < 63; i += step) {
        const attn_shape s = {.act = type[i % 3], .state = type[i / 3 % 3], .W = 2 + i % 7,
                              .nk = 1 + i / 5 % 2, .nv = (1 + i / 5 % 2) * (1 + i / 7 % 3),
                              .dk = 8 + i * 5 % 32 * 8, .dv = dv[i * 4 % 9 + 0],
                              .reorder = i / 2 % 2, .ds = i / 3 % 2, .bias = i / 4 % 2,
                              .map = i / 6 % 2, .fresh = i / 9 % 2, .spare = i % 4,
                              .n_seq = 4, .len = len};
        char name[80];
        snprintf(name, sizeof name, "%s/%s %s %s W%d heads %d:%d dk%d dv%d", gdn_type_name(s.act),
                 gdn_type_name(s.state), s.ds ? "DS" : "SD", s.reorder ? "parts" : "groups", s.W,
                 s.nk, s.nv, s.dk, s.dv);
        attn_case k;
        if (!begin(c, name)) continue;
        attn_open(&k, c, &s);
        both(&k);
        end(&k);
    }
}

/* --- bits ------------------------------------------------------------------------ */

/* The whole batch in calls of some tokens of some sequences. */
static void cut(attn_case *k) {
    enum { MOST = 8 };
    int32_t done[MOST] = {0}, left = k->n_tok;
    attn_reset(k);
    while (left > 0) {
        int32_t n = 0, seq[MOST], from[MOST], count[MOST];
        for (int32_t s = 0; s < k->s.n_seq; s++) {
            const int32_t rest = k->start[s + 1] - k->start[s] - done[s];
            const int32_t now = (int32_t)(check_uniform() * check_uniform() * (rest + 2));
            if (check_uniform() < 0.4) continue;
            seq[n] = s, from[n] = done[s], count[n] = now < rest ? now : rest;
            done[s] += count[n], left -= count[n], n++;
        }
        if (n > 0) attn_run_part(k, n, seq, from, count);
    }
}

static void bits(check *c, gdn_type act, gdn_type state) {
    char name[40];
    snprintf(name, sizeof name, "%s/%s bits", gdn_type_name(act), gdn_type_name(state));
    if (!begin(c, name)) return;
    static const int32_t len[6] = {150, 1, 64, 1100, 31, 97};
    static const int32_t threads[3] = {2, 3, 8};
    const attn_shape s = {.nk = 2, .nv = 4, .dk = 40, .dv = 36, .W = 4, .n_seq = 6, .len = len,
                          .act = act, .state = state, .fresh = true, .map = true, .threads = 1};
    attn_case k;
    attn_open(&k, c, &s);
    for (int f = 0; f < 2; f++) {
        attn_error e;
        k.a.form = form[f];
        attn_threads(&k, 1);
        attn_reset(&k);
        attn_run(&k);
        attn_compare(&k, form_name[f], &e);
        attn_image one = attn_save(&k);
        for (int i = 0; i < 3; i++) {
            attn_threads(&k, threads[i]);
            attn_reset(&k);
            attn_run(&k);
            attn_same(&k, &one, i == 0 ? "2 threads" : i == 1 ? "3 threads" : "8 threads");
        }
        attn_threads(&k, 2);
        for (int i = 0; i < RUNS; i++) {
            attn_reset(&k);
            attn_run(&k);
            attn_same(&k, &one, "once more");
        }
        attn_reset(&k);
        for (int32_t i = s.n_seq - 1; i >= 0; i--)
            attn_run_part(&k, 1, &i, &(int32_t){0}, len + i);
        attn_same(&k, &one, "each sequence alone");
        for (int i = 0; i < 3 && state == GDN_F32; i++) {
            cut(&k);
            if (form[f] == GDN_FORM_RECURRENT) attn_same(&k, &one, "cut into calls");
            else attn_compare(&k, "chunked, cut into calls", &e);
        }
        free(one.bytes);
    }
    end(&k);
}

static void drafts(check *c, gdn_type act) {
    char name[40];
    snprintf(name, sizeof name, "%s drafts", gdn_type_name(act));
    if (!begin(c, name)) return;
    static const int32_t len[5] = {33, 1, 18, 40, 7};
    const attn_shape s = {.nk = 2, .nv = 4, .dk = 24, .dv = 44, .W = 5, .n_seq = 5, .len = len,
                          .act = act, .state = GDN_F32, .map = true, .bias = true};
    attn_case k;
    attn_open(&k, c, &s);
    attn_check_drafts(&k);
    end(&k);
}

void check_gdn_attention(check *c) {
    if (c->bench) return;
    const bool all = c->kern->isa == (gdn_isa_detect() & GDN_ISA_ALL);
    edges(c, GDN_F32, GDN_F32);
    edges(c, GDN_BF16, GDN_F32);
    grid(c, all && !SANITIZED ? 1 : 5);
    bits(c, GDN_BF16, GDN_F32);
    drafts(c, GDN_BF16);
    drafts(c, GDN_F32);
    if (!all) return;
    edges(c, GDN_F16, GDN_F32);
    edges(c, GDN_BF16, GDN_BF16);
    bits(c, GDN_F32, GDN_F32);
    bits(c, GDN_F16, GDN_BF16);
    lengths(c, GDN_F32);
    lengths(c, GDN_BF16);
    many(c, GDN_F32, GDN_F32);
    many(c, GDN_BF16, GDN_F16);
    far(c, GDN_F32, false);
    far(c, GDN_F16, true);
    drift(c, GDN_F32);
    drift(c, GDN_BF16);
}
