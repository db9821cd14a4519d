/* op_speed.c - how fast gdn_attention() is on the cpu: decoding and prompts, as JSON.
 *
 * 16 key and 32 value heads of 128, four taps, f32 states.  Decoding is 32 sequences of one token
 * whose states (64 MiB) were last used four calls ago, so that they come from memory; its yardstick
 * is all threads multiplying f32 numbers in memory in place, measured before each round.  A prompt
 * counts 6 operations for each element of the state, token and head (98.3 kflop a token and head).
 * Beside the time that passed stands the processor time of all threads, which says more than the
 * former on a machine with other work.
 *
 *     cc -O2 -Iinclude bench/op_speed.c build/libgdn.a $(pkg-config --libs jansson libpcre2-8
 *        libutf8proc libzstd libxxhash) -lm -pthread
 *     a.out [threads [prompt tokens [rounds ["decode recurrent chunked rule bf16 f32"]]]] */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gdn/op.h>

enum { NK = 16, NV = 32, D = 128, W = 4, SEQ = 32, POOLS = 4 };
enum { C = 2 * NK * D + NV * D, Q = C + NV * D, STATE = NV * D * D, SLOTS = SEQ * POOLS };

static double clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double now(void) { return clock_of(CLOCK_MONOTONIC); }

static void must(gdn_status st, const gdn_err *err) {
    if (st == GDN_OK) return;
    fprintf(stderr, "op_speed: %s\n", err->text);
    exit(1);
}

/* --- memory --------------------------------------------------------------------------- */

typedef struct {
    float *p;
    size_t n;
} piece;

static void *scale(void *arg) {
    const piece *x = arg;
    for (size_t i = 0; i < x->n; i++) x->p[i] *= 1.0001f;
    return NULL;
}

/* Bytes a second read and written by n threads, in place, on n numbers of p; *cpu becomes bytes a
 * second of processor time when that is more. */
static double update_rate(float *p, size_t n, int n_thread, double *cpu) {
    pthread_t id[256];
    piece part[256];
    const double c0 = clock_of(CLOCK_PROCESS_CPUTIME_ID), t0 = now();
    for (int i = 0; i < n_thread; i++) {
        part[i].p = p + n / (size_t)n_thread * (size_t)i;
        part[i].n = n / (size_t)n_thread;
        if (pthread_create(&id[i], NULL, scale, &part[i]) != 0) exit(1);
    }
    for (int i = 0; i < n_thread; i++) pthread_join(id[i], NULL);
    const double t = now() - t0, rate = 8.0 * (double)n / (clock_of(CLOCK_PROCESS_CPUTIME_ID) - c0);
    if (rate > *cpu) *cpu = rate;
    return 8.0 * (double)n / t;
}

/* --- tensors -------------------------------------------------------------------------- */

static uint32_t rng = 1;
static float uniform(void) {
    rng = rng * 1664525u + 1013904223u;
    return (float)(rng >> 8) * 0x1p-23f - 1;
}

static gdn_tensor tensor(gdn_device *d, gdn_type t, float scale_by, int32_t ndim, int64_t a,
                         int64_t b, int64_t e, int64_t f) {
    const int64_t shape[4] = {a, b, e, f};
    int64_t n = 1;
    for (int32_t i = 0; i < ndim; i++) n *= shape[i];
    gdn_buffer *buf;
    gdn_err err;
    must(gdn_buffer_alloc(d, (uint64_t)(n * gdn_type_bytes(t)), &buf, &err), &err);
    void *p = gdn_buffer_host(buf);
    for (int64_t i = 0; i < n; i++) {
        const float x = uniform() * scale_by;
        uint32_t u;
        memcpy(&u, &x, sizeof u);
        if (t == GDN_F32) ((float *)p)[i] = x;
        else if (t == GDN_BF16) ((uint16_t *)p)[i] = (uint16_t)(u >> 16);
        else if (t == GDN_I32) ((int32_t *)p)[i] = 0;
    }
    return gdn_tensor_dense(buf, 0, t, ndim, shape);
}

/* A call for P rows of n_seq sequences of equal length. */
static gdn_attention_args make(gdn_device *d, gdn_type act, int64_t P, int64_t n_seq, int64_t slots) {
    gdn_attention_args a = {
        .core = tensor(d, act, 0, 3, P, NV, D, 0),
        .z = tensor(d, act, 0, 3, P, NV, D, 0),
        .qkvz = tensor(d, act, 1, 2, P, Q, 0, 0),
        .ba = tensor(d, act, 1, 2, P, 2 * NV, 0, 0),
        .conv_state = tensor(d, act, 1, 3, slots, W - 1, C, 0),
        .ssm_state = tensor(d, GDN_F32, 0.1f, 4, slots, NV, D, D),
        .conv_weights = tensor(d, act, 1, 2, C, W, 0, 0),
        .A_log = tensor(d, GDN_F32, 1, 1, NV, 0, 0, 0),
        .dt_bias = tensor(d, act, 1, 1, NV, 0, 0, 0),
        .non_spec_query_start_loc = tensor(d, GDN_I32, 0, 1, n_seq + 1, 0, 0, 0),
        .non_spec_state_indices = tensor(d, GDN_I32, 0, 1, n_seq, 0, 0, 0),
        .n_k_head = NK, .n_v_head = NV, .dk = D, .dv = D, .tp_size = 1,
        .num_actual_tokens = P, .null_slot = -1, .reorder_input = true,
    };
    int32_t *start = gdn_buffer_host(a.non_spec_query_start_loc.buf);
    for (int64_t i = 0; i <= n_seq; i++) start[i] = (int32_t)(P / n_seq * i);
    return a;
}

static void drop(gdn_attention_args *a) {
    gdn_tensor *t[] = {&a->core, &a->z, &a->qkvz, &a->ba, &a->conv_state, &a->ssm_state,
                       &a->conv_weights, &a->A_log, &a->dt_bias, &a->non_spec_query_start_loc,
                       &a->non_spec_state_indices};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) gdn_buffer_free(t[i]->buf);
}

static double timed(gdn_queue *q, const gdn_attention_args *a, double *cpu) {
    gdn_err err;
    const double c0 = clock_of(CLOCK_PROCESS_CPUTIME_ID), t0 = now();
    must(gdn_attention(q, a, &err), &err);
    must(gdn_queue_wait(q, &err), &err);
    const double t = now() - t0;
    *cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - c0;
    return t;
}

/* The delta rule's stage alone, on what the convolution would leave: best of rounds, after one that
 * does not count. */
static void rule(gdn_device *d, gdn_queue *q, gdn_type act, gdn_delta_form form, int64_t n,
                 int n_thread, int rounds) {
    gdn_delta_rule_args a = {
        .core = tensor(d, act, 0, 3, n, NV, D, 0),
        .q = tensor(d, act, 1, 3, n, NK, D, 0),
        .k = tensor(d, act, 1, 3, n, NK, D, 0),
        .v = tensor(d, act, 1, 3, n, NV, D, 0),
        .b = tensor(d, act, 1, 2, n, NV, 0, 0),
        .a = tensor(d, act, 1, 2, n, NV, 0, 0),
        .A_log = tensor(d, GDN_F32, 1, 1, NV, 0, 0, 0),
        .dt_bias = tensor(d, act, 1, 1, NV, 0, 0, 0),
        .ssm_state = tensor(d, GDN_F32, 0.1f, 4, 1, NV, D, D),
        .query_start_loc = tensor(d, GDN_I32, 0, 1, 2, 0, 0, 0),
        .state_indices = tensor(d, GDN_I32, 0, 1, 1, 0, 0, 0),
        .num_actual_tokens = n, .null_slot = -1, .form = form,
    };
    ((int32_t *)gdn_buffer_host(a.query_start_loc.buf))[1] = (int32_t)n;
    double best = 1e9;
    for (int i = 0; i < rounds + 1; i++) {
        gdn_err err;
        const double t0 = now();
        must(gdn_delta_rule(q, &a, &err), &err);
        must(gdn_queue_wait(q, &err), &err);
        const double t = now() - t0;
        if (i > 0 && t < best) best = t;
    }
    printf("{\"case\": \"delta rule\", \"act\": \"%s\", \"form\": \"%s\", \"tokens\": %lld, "
           "\"ms\": %.2f, \"gfs_per_thread\": %.1f}\n",
           gdn_type_name(act), form == GDN_FORM_CHUNKED ? "chunked" : "recurrent", (long long)n,
           best * 1e3, 6.0 * D * D * NV * (double)n / best * 1e-9 / n_thread);
    gdn_tensor *t[] = {&a.core, &a.q, &a.k, &a.v, &a.b, &a.a, &a.A_log, &a.dt_bias, &a.ssm_state,
                       &a.query_start_loc, &a.state_indices};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) gdn_buffer_free(t[i]->buf);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* --- cases ---------------------------------------------------------------------------- */

static void decode(gdn_device *d, gdn_queue *q, gdn_type act, int n_thread, int rounds) {
    enum { MOST = 256 };
    gdn_attention_args a = make(d, act, SEQ, SEQ, SLOTS);
    int32_t *slot = gdn_buffer_host(a.non_spec_state_indices.buf);
    float *pool = gdn_buffer_host(a.ssm_state.buf);
    double t[MOST], best_rate = 0, share[MOST], cpu_share[MOST], least = 1;
    if (rounds > MOST) rounds = MOST;
    for (int i = -1; i < rounds; i++) {
        double cpu_rate = 0, call = 1, call_cpu = 1;
        double rate = update_rate(pool, (size_t)SLOTS / 2 * STATE, n_thread, &cpu_rate);
        for (int p = 0; p < POOLS; p++) { /* the best of the calls beside one measured rate */
            for (int s = 0; s < SEQ; s++) slot[s] = p * SEQ + s;
            double cpu;
            const double now_s = timed(q, &a, &cpu);
            if (now_s < call) call = now_s;
            if (cpu < call_cpu) call_cpu = cpu;
        }
        const double after = update_rate(pool, (size_t)SLOTS / 2 * STATE, n_thread, &cpu_rate);
        if (after > rate) rate = after;
        if (i < 0) continue;
        t[i] = call;
        share[i] = 8.0 * SEQ * STATE / call / rate;
        cpu_share[i] = 8.0 * SEQ * STATE / call_cpu / cpu_rate;
        if (call_cpu < least) least = call_cpu;
        if (rate > best_rate) best_rate = rate;
    }
    qsort(t, (size_t)rounds, sizeof *t, by_value);
    qsort(share, (size_t)rounds, sizeof *share, by_value);
    qsort(cpu_share, (size_t)rounds, sizeof *cpu_share, by_value);
    printf("{\"case\": \"decode\", \"act\": \"%s\", \"sequences\": %d, \"ms\": %.3f, "
           "\"ms_median\": %.3f, \"cpu_ms\": %.3f, \"state_gbs\": %.1f, \"memory_gbs\": %.1f, "
           "\"share_median\": %.2f, \"share_of_cpu_time_median\": %.2f}\n",
           gdn_type_name(act), SEQ, t[0] * 1e3, t[rounds / 2] * 1e3, least * 1e3,
           8e-9 * SEQ * STATE / t[0], best_rate * 1e-9, share[rounds / 2], cpu_share[rounds / 2]);
    drop(&a);
}

static void prompt(gdn_device *d, gdn_queue *q, gdn_type act, gdn_delta_form form, int64_t n,
                   int n_thread, int rounds) {
    gdn_attention_args a = make(d, act, n, 1, 1);
    a.form = form;
    double best = 1e9, least = 1e9;
    for (int i = 0; i < rounds + 1; i++) {
        double cpu;
        const double t = timed(q, &a, &cpu);
        if (t < best) best = t;
        if (cpu < least) least = cpu;
    }
    const double flop = 6.0 * D * D * NV * (double)n;
    printf("{\"case\": \"prompt\", \"act\": \"%s\", \"form\": \"%s\", \"tokens\": %lld, "
           "\"ms\": %.2f, \"cpu_ms\": %.2f, \"tokens_per_s\": %.0f, \"gfs_per_thread\": %.1f, "
           "\"gfs_of_cpu_time\": %.1f}\n",
           gdn_type_name(act), form == GDN_FORM_CHUNKED ? "chunked" : "recurrent", (long long)n,
           best * 1e3, least * 1e3, (double)n / best, flop / best * 1e-9 / n_thread,
           flop / least * 1e-9);
    drop(&a);
}

int main(int argc, char **argv) {
    const int n_thread = argc > 1 ? atoi(argv[1]) : 2, rounds = argc > 3 ? atoi(argv[3]) : 7;
    const int64_t n = argc > 2 ? atoll(argv[2]) : 8192;
    if (n_thread < 1 || n_thread > 256 || n < 1 || rounds < 1) return 2;
    gdn_device_opts o;
    gdn_device *d;
    gdn_queue *q;
    gdn_err err;
    gdn_device_opts_defaults(&o);
    o.n_thread = n_thread;
    must(gdn_device_open("cpu", &o, &d, &err), &err);
    must(gdn_queue_create(d, &q, &err), &err);
    const gdn_type act[] = {GDN_BF16, GDN_F32};
    const char *only = argc > 4 ? argv[4] : "decode recurrent chunked rule bf16 f32";
    for (int i = 0; i < 2; i++) {
        if (strstr(only, gdn_type_name(act[i])) == NULL) continue;
        if (strstr(only, "decode") != NULL) decode(d, q, act[i], n_thread, rounds);
        if (strstr(only, "recurrent") != NULL)
            prompt(d, q, act[i], GDN_FORM_RECURRENT, n, n_thread, rounds);
        if (strstr(only, "chunked") != NULL)
            prompt(d, q, act[i], GDN_FORM_CHUNKED, n, n_thread, rounds);
        if (strstr(only, "rule") != NULL) {
            rule(d, q, act[i], GDN_FORM_RECURRENT, n, n_thread, rounds);
            rule(d, q, act[i], GDN_FORM_CHUNKED, n, n_thread, rounds);
        }
    }
    gdn_queue_free(q);
    gdn_device_close(d);
    return 0;
}
