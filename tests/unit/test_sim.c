/* test_sim.c - thousands of random operations on an engine with hardly any room.
 *
 * Requests are submitted, stepped, cancelled, freed and preempted beside sequences of the caller's
 * own, while snapshots come and go and whatever nobody owns is filled with NaN.  Whatever happened
 * to it, a request's answer is that of its prompt alone, and after every operation pages,
 * snapshots and statistics agree.
 *
 *     GDN_SIM_STEPS=100000 GDN_SIM_SEED=7 test_sim     a long run
 *     GDN_SIM_THREADS=3 test_sim                       for the thread sanitizer
 *
 * With GDN_SIM_THREADS the device has that many threads, and beside the simulation a thread of the
 * test's own cancels its requests while they run and has another engine of the same model. */
#include "engine_check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sanitized.h"

enum { VOCAB = 512, MAX_JOB = 14, MAX_PROMPT = 520, N_LOW = 2, LOW_IDS = 150, MOST_NEW = 56 };

typedef struct {
    const char *model, *adapter;
    gdn_math math;
    int32_t n_ctx, n_seq, n_row, n_draft, cache_units; /* cache: pages of all storages; -1 auto */
    int32_t save_every;
} setup;

typedef struct {
    gdn_request *r;
    int32_t prompt[MAX_PROMPT], n_prompt, max_new, stop, enough, n_shown;
    const int32_t *want;    /* the cold answer                               */
    const gdn_adapter *adapter;
    gdn_sampling sampling;
    bool cancelled, crowded, wrong; /* crowded: the caller's sequences took room meanwhile */
} job;

typedef enum { NOTHING, CANCEL, EVALUATE, END } errand;

/* The other thread.  It does one errand at a time, while the simulation goes on. */
typedef struct {
    bool       there;
    pthread_t  id;
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    errand     todo;
    gdn_request *r;         /* CANCEL                                                  */
    gdn_engine *e;          /* its own                                                 */
    gdn_seq    *seq;
    const int32_t *ids;     /* [LOW_IDS] what it evaluates, and what comes of it       */
    const float *want;
    uint64_t    n_cancelled, n_right, n_wrong;
    gdn_err     err;
} companion;

typedef struct {
    const setup *o;
    gdn_model *m;
    gdn_engine *e;
    companion other;
    cold c;
    gdn_adapter *adapter;
    job *job[MAX_JOB];
    gdn_seq *low[N_LOW];
    int32_t *low_ids, *piece[12], n_piece[12];
    float *low_logits;
    uint64_t seed;
    int32_t last[MAX_PROMPT], n_last;   /* a finished request's tokens, to go on from */
    char path[64];
    uint64_t done[GDN_FINISH_ERROR + 1], loads;
} sim;

static int32_t roll(sim *s, int32_t n) {
    s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((s->seed >> 33) % (uint64_t)n);
}

/* --- prompts ----------------------------------------------------------------------------------- */

static void add(job *j, const int32_t *ids, int32_t n, gdn_request_opts *o, int32_t *save) {
    if (j->n_prompt + n > MAX_PROMPT) return;
    memcpy(j->prompt + j->n_prompt, ids, (size_t)n * sizeof *ids);
    j->n_prompt += n;
    save[o->n_save++] = j->n_prompt;
}

/* A system prompt and messages, each one of two; or what a finished request left and a message. */
static void make_prompt(sim *s, job *j, gdn_request_opts *o, int32_t *save) {
    if (s->n_last > 0 && roll(s, 5) == 0) {
        add(j, s->last, s->n_last, o, save);
        const int32_t k = 3 + roll(s, 8);
        add(j, s->piece[k], s->n_piece[k], o, save);
    } else {
        const int32_t system = roll(s, 3), n = roll(s, 5);
        add(j, s->piece[system], s->n_piece[system], o, save);
        for (int32_t i = 0; i < n; i++) {
            const int32_t k = 3 + 2 * i + roll(s, 2);
            add(j, s->piece[k], s->n_piece[k], o, save);
        }
    }
    const int32_t whole = j->n_prompt;
    if (roll(s, 4) == 0) j->n_prompt = 1 + (j->n_prompt - 1) / 16 * roll(s, 16);
    o->prompt = j->prompt;
    o->n_prompt = j->n_prompt;
    if (roll(s, 3) == 0) o->n_save = 0;
    else if (roll(s, 8) == 0) save[0] = roll(s, 2 * whole) - whole / 2; /* no good, no harm */
}

static bool on_token(void *arg, int32_t id, const char *text, size_t n) {
    job *j = arg;
    (void)text;
    assert_int_equal(n, 0); /* no tokenizer, no text */
    if (j->n_shown < MOST_NEW && id != j->want[j->n_shown]) j->wrong = true;
    j->n_shown++;
    return j->n_shown != j->enough;
}

static void submit(sim *s) {
    int32_t at = 0, save[16];
    gdn_request_opts o;
    gdn_err err;
    while (at < MAX_JOB && s->job[at] != NULL) at++;
    if (at == MAX_JOB) return;
    job *j = calloc(1, sizeof *j);
    assert_non_null(j);
    gdn_request_opts_defaults(&o);
    make_prompt(s, j, &o, save);
    o.save = save;
    o.max_new = j->max_new = 1 + roll(s, roll(s, 3) == 0 ? 3 : MOST_NEW);
    if (roll(s, 12) == 0) o.max_new = 0, j->max_new = INT32_MAX;
    o.sampling.temperature = 0;
    if (roll(s, 4) == 0) {
        o.sampling.temperature = 1.3f;
        o.sampling.repetition = 1.1f;
        o.sampling.seed = 5 + (uint64_t)roll(s, 2);
    }
    j->sampling = o.sampling;
    j->adapter = o.adapter = roll(s, 3) == 0 ? s->adapter : NULL;
    if (j->n_prompt > s->o->n_ctx) {
        assert_int_equal(gdn_request_submit(s->e, &o, &j->r, &err), GDN_E_FULL);
        free(j);
        return;
    }
    j->want = cold_run(&s->c, j->prompt, j->n_prompt, &j->sampling, j->adapter, COLD_NEW);
    j->stop = -1;
    if (roll(s, 3) == 0 || j->max_new == INT32_MAX) { /* something that it will say */
        j->stop = j->want[roll(s, MOST_NEW)];
        o.stop = &j->stop;
        o.n_stop = 1;
    }
    o.on_token = on_token;
    o.arg = j;
    if (roll(s, 10) == 0) j->enough = 1 + roll(s, MOST_NEW);
    for (int i = 0; i < N_LOW; i++) j->crowded = j->crowded || s->low[i] != NULL;
    must(gdn_request_submit(s->e, &o, &j->r, &err), &err);
    s->job[at] = j;
}

/* --- answers ----------------------------------------------------------------------------------- */

static void check_answer(sim *s, job *j) {
    gdn_request_result r;
    gdn_request_get_result(j->r, &r);
    const int32_t *got = gdn_request_tokens(j->r);
    assert_true(r.n_new <= COLD_NEW);
    for (int32_t i = 0; i < r.n_new; i++)
        if (got[i] != j->want[i])
            fail_msg("%s: token %d of %d after a prompt of %d (%d cached) is %d, alone %d",
                     s->o->model, i, r.n_new, j->n_prompt, r.n_cached, got[i], j->want[i]);
    assert_false(j->wrong);
    assert_int_equal(j->n_shown, r.n_new);
    assert_int_equal(r.n_prompt, j->n_prompt);
    assert_in_range(r.n_cached, 0, r.n_prompt);
    assert_true(r.n_accepted <= r.n_drafted);
    int32_t stop = 0;
    while (stop < r.n_new && got[stop] != j->stop) stop++;
    if (!r.done) {
        assert_int_equal(stop, r.n_new);
        return;
    }
    gdn_engine_stats st; /* who begins again may find more than he found at first */
    gdn_engine_get_stats(s->e, &st);
    if (r.finish != GDN_FINISH_CANCELLED && r.finish != GDN_FINISH_FULL && st.preempted == 0)
        assert_true(r.n_cached + r.n_computed >= r.n_prompt);
    switch (r.finish) {
    case GDN_FINISH_LENGTH:
        assert_int_equal(r.n_new, j->max_new);
        assert_int_equal(stop, r.n_new);
        break;
    case GDN_FINISH_STOP: assert_int_equal(stop, r.n_new - 1); break;
    case GDN_FINISH_CANCELLED:
        assert_true(j->cancelled || (j->enough > 0 && r.n_new == j->enough));
        assert_int_equal(stop, r.n_new);
        break;
    case GDN_FINISH_FULL:
        if (!j->crowded) assert_int_equal(r.n_prompt + r.n_new, s->o->n_ctx + 1);
        break;
    default: fail_msg("finish %d: %s", (int)r.finish, gdn_request_error(j->r));
    }
}

static void release(sim *s, int32_t at) {
    job *j = s->job[at];
    gdn_request_result r;
    gdn_request_get_result(j->r, &r);
    if (r.done) {
        s->done[r.finish]++;
        if (j->adapter == NULL && r.n_prompt + r.n_new < MAX_PROMPT / 2) {
            s->n_last = r.n_prompt + r.n_new;
            memcpy(s->last, j->prompt, (size_t)r.n_prompt * sizeof *s->last);
            memcpy(s->last + r.n_prompt, gdn_request_tokens(j->r), (size_t)r.n_new * sizeof *s->last);
        }
    }
    gdn_request_free(j->r);
    free(j);
    s->job[at] = NULL;
}

/* Drafts that are often right, which a model of random weights would never make. */
static void give_drafts(sim *s) {
    for (int32_t i = 0; i < MAX_JOB; i++) {
        job *j = s->job[i];
        if (j == NULL || j->r->seq == NULL || j->r->n_tok - j->r->seq->length != 1 ||
            j->r->n_tok == j->r->n_prompt || roll(s, 4) == 0)
            continue;
        gdn_request *r = j->r;
        r->n_draft = roll(s, s->o->n_draft + 1);
        for (int32_t k = 0; k < r->n_draft; k++) {
            const int32_t at = r->result.n_new + k;
            r->draft[k] = at < COLD_NEW && roll(s, 6) > 0 ? j->want[at] : roll(s, VOCAB);
        }
    }
}

/* --- sequences of the caller's own ------------------------------------------------------------- */

static void low_level(sim *s) {
    const int32_t i = roll(s, N_LOW);
    gdn_err err;
    if (s->low[i] == NULL) {
        const gdn_status st = gdn_seq_create(s->e, &s->low[i], &err);
        if (st != GDN_OK) assert_int_equal(st, GDN_E_FULL);
    } else if (roll(s, 3) == 0 || gdn_seq_length(s->low[i]) == LOW_IDS) {
        gdn_seq_free(s->low[i]);
        s->low[i] = NULL;
    } else {
        float logits[VOCAB];
        const int32_t at = gdn_seq_length(s->low[i]);
        int32_t n = 1 + roll(s, 60);
        if (n > LOW_IDS - at) n = LOW_IDS - at;
        const int32_t last = n - 1;
        const gdn_work w = {.seq = s->low[i], .tokens = s->low_ids + at, .n = n, .out = &last,
                            .n_out = 1, .logits = logits};
        const gdn_status st = gdn_engine_eval(s->e, &w, 1, NULL, NULL, NULL, &err);
        if (st == GDN_E_FULL) return;
        must(st, &err);
        assert_memory_equal(logits, s->low_logits + (size_t)(at + n - 1) * VOCAB, sizeof logits);
    }
    for (int32_t k = 0; k < MAX_JOB; k++)
        if (s->job[k] != NULL && s->low[i] != NULL) s->job[k]->crowded = true;
}

/* --- sessions ---------------------------------------------------------------------------------- */

static void session(sim *s) {
    gdn_err err;
    if (s->n_last == 0 || s->o->cache_units == 0) return;
    if (roll(s, 2) == 0) {
        const gdn_status st =
            gdn_session_save(s->e, NULL, s->last, s->n_last, "note", 4, s->path, &err);
        if (st != GDN_E_UNSUPPORTED) must(st, &err);
        return;
    }
    void *note = NULL;
    size_t n_note = 0;
    const gdn_status st = gdn_session_load(s->e, NULL, s->path, &note, &n_note, &err);
    if (st == GDN_OK) {
        s->loads++;
        assert_int_equal(n_note, 4);
        assert_memory_equal(note, "note", 4);
    } else if (st != GDN_E_IO && st != GDN_E_UNSUPPORTED) must(st, &err);
    free(note);
}

/* --- the other thread -------------------------------------------------------------------------- */

/* The next tokens of its own sequence, right to the bit whatever the simulation does meanwhile. */
static bool evaluate(companion *c) {
    gdn_engine_stats before, after;
    float logits[VOCAB];
    gdn_engine_get_stats(c->e, &before);
    if (c->seq != NULL && gdn_seq_length(c->seq) == LOW_IDS) {
        gdn_seq_free(c->seq);
        c->seq = NULL;
    }
    if (c->seq == NULL && gdn_seq_create(c->e, &c->seq, &c->err) != GDN_OK) return false;
    const int32_t at = gdn_seq_length(c->seq), n = LOW_IDS - at < 20 ? LOW_IDS - at : 20,
                  last = n - 1;
    const gdn_work w = {.seq = c->seq, .tokens = c->ids + at, .n = n, .out = &last, .n_out = 1,
                        .logits = logits};
    if (gdn_engine_eval(c->e, &w, 1, NULL, NULL, NULL, &c->err) != GDN_OK) return false;
    gdn_engine_get_stats(c->e, &after);
    return after.rows == before.rows + (uint64_t)n && after.regions >= before.regions &&
           memcmp(logits, c->want + (size_t)(at + n - 1) * VOCAB, sizeof logits) == 0;
}

static void *companion_main(void *arg) {
    companion *c = arg;
    pthread_mutex_lock(&c->lock);
    while (c->todo != END) {
        if (c->todo == NOTHING) {
            pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        const errand todo = c->todo;
        pthread_mutex_unlock(&c->lock);
        if (todo == CANCEL) {
            gdn_request_cancel(c->r);
            c->n_cancelled++;
        } else if (evaluate(c)) c->n_right++;
        else c->n_wrong++;
        pthread_mutex_lock(&c->lock);
        c->todo = NOTHING;
        pthread_cond_signal(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* The errand before it is done; this one has been handed over. */
static void send(companion *c, errand todo, gdn_request *r) {
    pthread_mutex_lock(&c->lock);
    while (c->todo != NOTHING) pthread_cond_wait(&c->changed, &c->lock);
    c->todo = todo;
    c->r = r;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void await(companion *c) {
    pthread_mutex_lock(&c->lock);
    while (c->todo != NOTHING) pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static void begin_companion(sim *s) {
    companion *c = &s->other;
    gdn_engine_opts o;
    gdn_engine_opts_defaults(&o);
    o.n_ctx = LOW_IDS;
    must(gdn_engine_create(s->m, &o, &c->e, &c->err), &c->err);
    c->ids = s->low_ids;
    c->want = s->low_logits;
    assert_int_equal(pthread_mutex_init(&c->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&c->changed, NULL), 0);
    assert_int_equal(pthread_create(&c->id, NULL, companion_main, c), 0);
    c->there = true;
}

static void end_companion(companion *c) {
    send(c, END, NULL);
    assert_int_equal(pthread_join(c->id, NULL), 0);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    gdn_seq_free(c->seq);
    gdn_engine_free(c->e);
    if (c->n_wrong > 0)
        fail_msg("the other engine was wrong %llu times: %s", (unsigned long long)c->n_wrong,
                 c->err.text);
}

/* By the other thread, if there is one, in the middle of a step. */
static void cancel(sim *s, job *j) {
    gdn_err err;
    j->cancelled = true;
    if (!s->other.there) {
        gdn_request_cancel(j->r);
        return;
    }
    send(&s->other, CANCEL, j->r);
    must(gdn_engine_step(s->e, &err), &err);
}

/* --- a run ------------------------------------------------------------------------------------- */

static void begin(sim *s, const setup *o, int32_t n_thread, uint64_t seed) {
    static const int32_t length[12] = {70, 130, 33, 40, 64, 90, 5, 66, 80, 100, 30, 64};
    gdn_engine_opts eo;
    gdn_err err;
    *s = (sim){.o = o, .seed = seed};
    s->m = open_model(o->model, o->math, n_thread > 0 ? n_thread : 1);
    if (o->adapter != NULL) must(gdn_adapter_open(s->m, o->adapter, 1, &s->adapter, &err), &err);
    gdn_engine_opts_defaults(&eo);
    eo.n_ctx = o->n_ctx;
    eo.n_seq = o->n_seq;
    eo.n_row = o->n_row;
    eo.n_draft = o->n_draft;
    eo.save_every = o->save_every;
    eo.cache_bytes = 0;
    must(gdn_engine_create(s->m, &eo, &s->e, &err), &err);
    if (o->cache_units != 0) { /* the page's size is known only now */
        const uint64_t unit = s->e->plan.page_bytes * (uint64_t)s->m->n_storage;
        gdn_engine_free(s->e);
        eo.cache_bytes = o->cache_units < 0 ? GDN_CACHE_AUTO : unit * (uint64_t)o->cache_units + 7;
        must(gdn_engine_create(s->m, &eo, &s->e, &err), &err);
    }
    cold_open(&s->c, s->m, MAX_PROMPT + COLD_NEW + 100, VOCAB);
    s->low_ids = random_ids(LOW_IDS, VOCAB, 17);
    s->low_logits = all_logits(s->m, s->low_ids, LOW_IDS, 512, 0, NULL);
    for (int32_t i = 0; i < 12; i++) {
        s->n_piece[i] = length[i];
        s->piece[i] = random_ids(length[i], VOCAB, 400 + (uint64_t)i);
    }
    snprintf(s->path, sizeof s->path, "/tmp/gdn-sim-%ld.session", (long)getpid());
    if (n_thread > 0) begin_companion(s);
}

static void finish(sim *s) {
    gdn_err err;
    if (s->other.there) end_companion(&s->other);
    for (int i = 0; i < N_LOW; i++) gdn_seq_free(s->low[i]);
    for (int32_t k = 0; gdn_engine_busy(s->e); k++) {
        must(gdn_engine_step(s->e, &err), &err);
        check_engine(s->e);
        assert_true(k < 5000);
    }
    for (int32_t i = 0; i < MAX_JOB; i++) {
        if (s->job[i] == NULL) continue;
        check_answer(s, s->job[i]);
        release(s, i);
    }
    check_idle(s->e);
    remove(s->path);
    cold_close(&s->c);
    gdn_engine_free(s->e);
    gdn_adapter_close(s->adapter);
    gdn_model_close(s->m);
    for (int32_t i = 0; i < 12; i++) free(s->piece[i]);
    free(s->low_ids);
    free(s->low_logits);
}

static void operate(sim *s) {
    gdn_err err;
    const int32_t what = roll(s, 1000), at = roll(s, MAX_JOB);
    gdn_request_result r;
    if (s->other.there && roll(s, 3) == 0) send(&s->other, EVALUATE, NULL);
    if (what < 90) submit(s);
    else if (what < 100) {
        for (int i = 0; i < MAX_JOB; i++) submit(s); /* a crowd */
    } else if (what < 125 && s->job[at] != NULL) cancel(s, s->job[at]);
    else if (what < 135 && s->job[at] != NULL) release(s, at);
    else if (what < 170) low_level(s);
    else if (what < 220) poison(s->e);
    else if (what < 235) session(s);
    else {
        if (roll(s, 2) == 0) always_draft(s->e);
        if (s->o->n_draft > 0 && roll(s, 3) > 0) give_drafts(s);
        must(gdn_engine_step(s->e, &err), &err);
    }
    check_engine(s->e);
    if (s->other.there) await(&s->other); /* requests may go now */
    for (int32_t i = 0; i < MAX_JOB; i++) {
        if (s->job[i] == NULL) continue;
        check_answer(s, s->job[i]);
        gdn_request_get_result(s->job[i]->r, &r);
        if (r.done && roll(s, 6) == 0) release(s, i);
    }
}

/* Returns how many requests had to give their place up. */
static uint64_t run(const setup *o, int32_t steps, int32_t n_thread, uint64_t seed) {
    sim s;
    begin(&s, o, n_thread, seed);
    for (int32_t i = 0; i < steps; i++) operate(&s);
    gdn_engine_stats st;
    gdn_engine_get_stats(s.e, &st);
    const int32_t block = s.e->plan.block_size, pages = s.e->pages.n_page;
    finish(&s);
    print_message("%s, blocks of %d, %d pages: %llu to length, %llu stop, %llu cancelled, %llu full; "
                  "%llu of %llu hits, %llu saved, %llu evicted, %llu preempted, %llu of %llu drafts "
                  "right, %llu sessions\n", o->model, block, pages,
                  (unsigned long long)s.done[GDN_FINISH_LENGTH],
                  (unsigned long long)s.done[GDN_FINISH_STOP],
                  (unsigned long long)s.done[GDN_FINISH_CANCELLED],
                  (unsigned long long)s.done[GDN_FINISH_FULL], (unsigned long long)st.hits,
                  (unsigned long long)st.lookups, (unsigned long long)st.saved,
                  (unsigned long long)st.evicted, (unsigned long long)st.preempted,
                  (unsigned long long)st.accepted, (unsigned long long)st.drafted,
                  (unsigned long long)s.loads);
    if (n_thread > 0) {
        print_message("    beside it: %llu cancelled, %llu pieces evaluated; %llu regions\n",
                      (unsigned long long)s.other.n_cancelled, (unsigned long long)s.other.n_right,
                      (unsigned long long)st.regions);
        assert_true(s.other.n_right > 0 && st.regions > 0);
    }
    /* A run in which nothing happened proves nothing. */
    if (steps < 700) return st.preempted;
    assert_true(s.done[GDN_FINISH_LENGTH] > 0 && s.done[GDN_FINISH_STOP] > 0 &&
                s.done[GDN_FINISH_CANCELLED] > 0);
    if (o->cache_units != 0) assert_true(st.hits > 0 && st.saved > 0 && st.evicted > 0);
    if (o->n_draft > 0) assert_true(st.accepted > 0 && st.accepted < st.drafted);
    return st.preempted;
}

#define LORA "tests/golden/lora/"
static const setup setups[] = {
    /* The MTP head, its drafts, tiny budgets. */
    {MODELS "dense-mtp", LORA "dense-mtp", GDN_MATH_F32, 300, 6, 96, 4, 14, 100},
    {MODELS "dense-mtp", NULL, GDN_MATH_F32, 240, 12, 64, 3, 5, 0},
    {MODELS "moe-mtp", NULL, GDN_MATH_FAST, 400, 3, 40, 2, -1, 64},
    /* Drafts from the text. */
    {MODELS "next-moe", LORA "next-moe", GDN_MATH_FAST, 440, 3, 64, 3, 9, 0},
    {MODELS "dense-tied-128", NULL, GDN_MATH_F32, 460, 4, 128, 4, 24, 128},
    /* No snapshots; no drafts; one sequence. */
    {MODELS "dense-mtp", NULL, GDN_MATH_FAST, 250, 8, 64, 4, 0, 0},
    {MODELS "dense-mtp", NULL, GDN_MATH_F32, 500, 4, 33, 0, 40, 0},
    {MODELS "next-moe", NULL, GDN_MATH_F32, 300, 1, 16, 4, 12, 32},
};

static void test_sim(void **state) {
    (void)state;
    const char *steps = getenv("GDN_SIM_STEPS"), *seed = getenv("GDN_SIM_SEED"),
               *threads = getenv("GDN_SIM_THREADS");
    const int32_t n = steps != NULL ? atoi(steps) : SANITIZED ? 150 : 700;
    uint64_t preempted = 0;
    for (size_t k = 0; k < sizeof setups / sizeof *setups; k++)
        preempted += run(setups + k, n, threads != NULL ? atoi(threads) : 0,
                         (seed != NULL ? (uint64_t)atoll(seed) : 1) * 1000 + k);
    if (n >= 700) assert_true(preempted > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sim)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
