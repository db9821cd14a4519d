/* xpu_speed.c - how fast a device's operators are beside copying memory, as JSON, a line for each.
 *
 * us is a call by the host's clock, enqueue_us what the host does for it, kernel_us what its kernels take
 * by the device's own clock, copy_us a copy that moves as many bytes.  Shares are of the rate of a large
 * copy, share_of_equal_copy is of copy_us: less than a few tens of MB is over before a device is at its
 * full rate.  The smallest product shows what starting a call takes.
 *
 * Operands are used in turn so that they come from memory and not from a cache: weights and states of
 * several hundred MB in all.  A time is that of many calls in one queue, waited for once; the best of
 * several rounds.  Bytes are those that must move: weights, states read and written, keys and values.
 *
 *     cc -O2 -Iinclude -o xpu_speed bench/xpu_speed.c build/libgdn.a $(pkg-config --libs jansson
 *        libpcre2-8 libutf8proc libzstd libxxhash) -lm -pthread
 *     xpu_speed [device [part of a name]] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gdn/op.h>

enum { ROUNDS = 5 };

static gdn_device *dev;
static gdn_queue  *queue;
static const char *only;
static double      copy_rate; /* bytes a second, read and written */
static gdn_buffer *copy_from, *copy_to;
static const uint64_t copy_room = 512 << 20;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(gdn_status st, const gdn_err *err) {
    if (st == GDN_OK) return;
    fprintf(stderr, "xpu_speed: %s\n", err->text);
    exit(1);
}

static void wait(void) {
    gdn_err err;
    must(gdn_queue_wait(queue, &err), &err);
}

/* --- operands --------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;

static float noise(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

static uint16_t bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)(u >> 16);
}

/* Noise of a type; a pattern of 4096 numbers repeated. */
static void *numbers(gdn_type type, int64_t n, float scale) {
    char *p = malloc((size_t)n * (size_t)gdn_type_bytes(type) + 16);
    float v[4096];
    if (p == NULL) exit(1);
    for (int i = 0; i < 4096; i++) v[i] = scale * noise();
    for (int64_t i = 0; i < n; i++) {
        if (type == GDN_F32) ((float *)(void *)p)[i] = v[i % 4096];
        else ((uint16_t *)(void *)p)[i] = bf16(v[i % 4096]);
    }
    return p;
}

static gdn_tensor filled(gdn_type type, int32_t ndim, const int64_t *shape, float scale) {
    int64_t n = 1;
    gdn_buffer *b;
    gdn_err err;
    for (int32_t i = 0; i < ndim; i++) n *= shape[i];
    void *p = numbers(type, n, scale);
    must(gdn_buffer_wrap(dev, p, (uint64_t)n * (uint64_t)gdn_type_bytes(type), &b, &err), &err);
    if (gdn_buffer_host(b) == NULL) free(p); /* the cpu computes in it */
    return gdn_tensor_dense(b, 0, type, ndim, shape);
}
#define FILLED(type, scale, ...)                                                         \
    filled(type, (int32_t)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)),            \
           (const int64_t[]){__VA_ARGS__}, scale)

static gdn_tensor ints(int64_t n, const int32_t *v) {
    const int64_t shape[] = {n};
    gdn_buffer *b;
    gdn_err err;
    must(gdn_buffer_alloc(dev, (uint64_t)n * 4, &b, &err), &err);
    must(gdn_queue_write(queue, b, 0, v, (uint64_t)n * 4, &err), &err);
    return gdn_tensor_dense(b, 0, GDN_I32, 1, shape);
}

/* n_expert matrices, all of the same numbers. */
static gdn_weight *weight(gdn_type type, int32_t n_expert, int32_t n, int32_t k) {
    void *p = numbers(type, (int64_t)n * k, 0.05f);
    gdn_weight_part *part = malloc((size_t)n_expert * sizeof *part);
    if (part == NULL) exit(1);
    for (int32_t e = 0; e < n_expert; e++)
        part[e] = (gdn_weight_part){
            .data = p, .n_row = n, .row_bytes = (int64_t)k * gdn_type_bytes(type)};
    const gdn_weight_desc d = {.type = type, .n_expert = n_expert, .n = n, .k = k, .part = part,
                               .n_part = 1};
    gdn_weight *w;
    gdn_err err;
    must(gdn_weight_create(dev, &d, &w, &err), &err);
    free(part);
    free(p);
    return w;
}

/* --- timing ----------------------------------------------------------------------------- */

typedef void call_fn(void *arg, int i);

/* Of a call, by the host's clock, until it is enqueued, and by the device's clock (0: it has none). */
typedef struct {
    double host, enqueue, kernels;
} duration;

/* What the kernels of n calls take, of one. */
static double in_kernels(call_fn *call, void *arg, int n) {
    enum { ROOM = 64 };
    static gdn_kernel_time t[ROOM];
    int32_t found;
    gdn_err err;
    double sum = 0;
    if (gdn_queue_profile(queue, true, &err) != GDN_OK) return 0;
    for (int i = 0; i < n; i++) call(arg, i);
    must(gdn_queue_times(queue, t, ROOM, &found, &err), &err);
    for (int32_t i = 0; i < found && i < ROOM; i++) sum += t[i].seconds;
    must(gdn_queue_profile(queue, false, &err), &err);
    return sum / n;
}

/* Seconds of one call: enough calls for some 20 ms, the best round. */
static duration seconds(call_fn *call, void *arg) {
    double best = 1e9, enqueue = 1e9;
    int n = 4;
    for (int i = 0; i < n; i++) call(arg, i);
    wait();
    const double t0 = now();
    for (int i = 0; i < n; i++) call(arg, i);
    wait();
    const double one = (now() - t0) / n;
    n = one * 1000 > 20e-3 ? (int)(20e-3 / one) + 1 : 1000;
    for (int r = 0; r < ROUNDS; r++) {
        const double t = now();
        for (int i = 0; i < n; i++) call(arg, i);
        const double e = (now() - t) / n;
        wait();
        const double s = (now() - t) / n;
        if (s < best) best = s;
        if (e < enqueue) enqueue = e;
    }
    return (duration){.host = best, .enqueue = enqueue, .kernels = in_kernels(call, arg, n < 256 ? n : 256)};
}

static int wanted(const char *name) { return only == NULL || strstr(name, only) != NULL; }

static double share(double bytes, double s) { return copy_rate > 0 && s > 0 ? bytes / s / copy_rate : 0; }

/* --- copies ----------------------------------------------------------------------------- */

typedef struct {
    uint64_t bytes, places; /* read, or written; between which calls change */
} copy_case;

static void copy_call(void *arg, int i) {
    const copy_case *c = arg;
    const uint64_t at = (uint64_t)i % c->places * c->bytes;
    gdn_err err;
    must(gdn_queue_copy(queue, copy_to, at, copy_from, at, c->bytes, &err), &err);
}

static duration copying(uint64_t bytes) {
    copy_case c = {.bytes = bytes, .places = copy_room / bytes};
    return seconds(copy_call, &c);
}

static void report(const char *name, duration d, double bytes, double flop) {
    const double s = d.host;
    /* Larger ones take as long as their bytes do. */
    const double copy = bytes < 8 || bytes / 2 > (double)copy_room / 4 ? bytes / copy_rate
                                                                       : copying((uint64_t)bytes / 2).host;
    printf("{\"kernel\": \"%s\", \"us\": %.2f, \"enqueue_us\": %.2f, \"kernel_us\": %.2f, \"bytes\": %.0f, "
           "\"gb_s\": %.1f, \"share_of_copy\": %.3f, \"kernel_share_of_copy\": %.3f, \"copy_us\": %.2f, "
           "\"share_of_equal_copy\": %.3f, \"tflop_s\": %.3f}\n",
           name, s * 1e6, d.enqueue * 1e6, d.kernels * 1e6, bytes, bytes / s * 1e-9, share(bytes, s),
           share(bytes, d.kernels), copy * 1e6, copy / s, flop / s * 1e-12);
    fflush(stdout);
}

static void large_copy(void) {
    gdn_err err;
    must(gdn_buffer_alloc(dev, copy_room, &copy_from, &err), &err);
    must(gdn_buffer_alloc(dev, copy_room, &copy_to, &err), &err);
    const duration d = copying(copy_room);
    copy_rate = 2.0 * (double)copy_room / d.host;
    report("copy", d, 2.0 * (double)copy_room, 0);
}

/* --- products --------------------------------------------------------------------------- */

enum { MAX_WEIGHT = 64 };

typedef struct {
    gdn_weight *w[MAX_WEIGHT];
    int n;
    gdn_tensor x, y, norm, work, out;
    bool project;
} linear_case;

static void linear_call(void *arg, int i) {
    linear_case *c = arg;
    gdn_err err;
    if (c->project) {
        const gdn_project_args a = {.y = c->y, .x = c->x, .norm_w = c->norm, .eps = 1e-6f,
                                    .w = c->w[i % c->n], .work_x = c->work};
        must(gdn_op_project(queue, &a, &err), &err);
        return;
    }
    const gdn_linear_op_args a = {.y = c->y, .x = c->x, .w = c->w[i % c->n]};
    must(gdn_op_linear(queue, &a, &err), &err);
}

static void linear(const char *what, int64_t n_row, int32_t n, int32_t k, bool project) {
    char name[96];
    snprintf(name, sizeof name, "%s bf16 %d x %d, %d rows", what, n, k, (int)n_row);
    if (!wanted(name)) return;
    linear_case c = {.project = project};
    const double bytes = 2.0 * n * k;
    c.n = (int)(400e6 / bytes) + 2;
    if (c.n > MAX_WEIGHT) c.n = MAX_WEIGHT;
    for (int i = 0; i < c.n; i++) c.w[i] = weight(GDN_BF16, 1, n, k);
    c.x = FILLED(gdn_weight_input_type(c.w[0]) == GDN_BF16 && !project ? GDN_BF16 : GDN_F32, 1.0f,
                 n_row, k);
    c.y = FILLED(GDN_F32, 0, n_row, n);
    c.norm = FILLED(GDN_F32, 1.0f, k);
    c.work = FILLED(gdn_weight_input_type(c.w[0]), 0, n_row, k);
    report(name, seconds(linear_call, &c), bytes, 2.0 * (double)n_row * n * k);
    for (int i = 0; i < c.n; i++) gdn_weight_free(c.w[i]);
    gdn_buffer_free(c.x.buf), gdn_buffer_free(c.y.buf), gdn_buffer_free(c.norm.buf);
    gdn_buffer_free(c.work.buf);
}

/* --- experts ----------------------------------------------------------------------------- */

/* Rows choose other experts from call to call, so that weights come from memory. */
enum { EXPERTS = 256, TOP = 8, CHOICES = 8 };

typedef struct {
    gdn_moe_experts_args a;
    gdn_tensor expert[CHOICES];
} experts_case;

static void experts_call(void *arg, int i) {
    experts_case *c = arg;
    gdn_err err;
    c->a.expert = c->expert[i % CHOICES];
    must(gdn_op_moe_experts(queue, &c->a, &err), &err);
}

/* TOP different ones for each row, each as likely as another; how many are chosen at all. */
static int choose(int32_t *to, int64_t n_row) {
    int rows_of[EXPERTS] = {0}, chosen = 0;
    for (int64_t i = 0; i < n_row; i++) {
        int32_t all[EXPERTS];
        for (int32_t e = 0; e < EXPERTS; e++) all[e] = e;
        for (int32_t r = 0; r < TOP; r++) {
            const int32_t at = r + (int32_t)((0.5f + 0.499f * noise()) * (float)(EXPERTS - r));
            const int32_t e = all[at];
            all[at] = all[r];
            to[i * TOP + r] = e;
            chosen += rows_of[e]++ == 0;
        }
    }
    return chosen;
}

static void experts(int64_t n_row, int32_t k, int32_t n) {
    char name[96];
    snprintf(name, sizeof name, "experts bf16 %d of %d, k %d, n %d, %d rows", TOP, EXPERTS, k, n,
             (int)n_row);
    if (!wanted(name)) return;
    int32_t *e = malloc((size_t)(n_row * TOP) * sizeof *e);
    if (e == NULL) exit(1);
    gdn_weight *gate_up = weight(GDN_BF16, EXPERTS, 2 * n, k),
               *down = weight(GDN_BF16, EXPERTS, k, n);
    const gdn_type act = gdn_weight_input_type(gate_up);
    experts_case c = {.a = {.gate_up = gate_up, .down = down}};
    double chosen = 0;
    for (int i = 0; i < CHOICES; i++) {
        chosen += (double)choose(e, n_row) / CHOICES;
        c.expert[i] = ints(n_row * TOP, e);
        c.expert[i].ndim = 2;
        c.expert[i].shape[0] = n_row, c.expert[i].stride[0] = 4 * TOP;
        c.expert[i].shape[1] = TOP, c.expert[i].stride[1] = 4;
    }
    c.a.y = FILLED(GDN_F32, 0, n_row, TOP, k);
    c.a.x = FILLED(act, 1.0f, n_row, k);
    c.a.work_gu = FILLED(GDN_F32, 0, n_row * TOP, 2 * n);
    c.a.work_h = FILLED(act, 0, n_row * TOP, n);
    c.a.work_index = FILLED(GDN_F32, 0, 2 * n_row * TOP + EXPERTS + 1);
    c.a.work_index.type = GDN_I32;
    const double one = 3.0 * n * k; /* numbers of an expert */
    report(name, seconds(experts_call, &c), 2.0 * one * chosen, 2.0 * one * TOP * (double)n_row);
    gdn_weight_free(gate_up), gdn_weight_free(down);
    for (int i = 0; i < CHOICES; i++) gdn_buffer_free(c.expert[i].buf);
    gdn_buffer_free(c.a.y.buf), gdn_buffer_free(c.a.x.buf), gdn_buffer_free(c.a.work_gu.buf);
    gdn_buffer_free(c.a.work_h.buf), gdn_buffer_free(c.a.work_index.buf);
    free(e);
}

/* --- Gated DeltaNet ---------------------------------------------------------------------- */

enum { POOLS = 4, D = 128, W = 4 };

typedef struct {
    gdn_core_args a;
    gdn_tensor slot[POOLS];
} core_case;

static void core_call(void *arg, int i) {
    core_case *c = arg;
    gdn_err err;
    c->a.slot = c->slot[i % POOLS];
    must(gdn_op_gdn_core(queue, &c->a, &err), &err);
}

/* n_seq sequences of n tokens. */
static void core(int32_t n_seq, int32_t n, int32_t hk, int32_t hv) {
    char name[96];
    snprintf(name, sizeof name, "gdn_core %d sequences of %d, heads %d/%d", n_seq, n, hk, hv);
    if (!wanted(name)) return;
    const int64_t C = 2 * (int64_t)hk * D + (int64_t)hv * D, rows = (int64_t)n_seq * n;
    int32_t *v = malloc((size_t)(n_seq + 1) * sizeof *v);
    if (v == NULL) exit(1);
    core_case c = {.a = {.hk = hk, .dk = D}};
    gdn_core_args *a = &c.a;
    a->core = FILLED(GDN_F32, 0, rows, hv, D);
    a->qkv = FILLED(GDN_F32, 1.0f, rows, C);
    a->b = FILLED(GDN_F32, 1.0f, rows, hv);
    a->a = FILLED(GDN_F32, 1.0f, rows, hv);
    a->conv_state = FILLED(GDN_F32, 1.0f, n_seq * POOLS, W - 1, C);
    a->ssm_state = FILLED(GDN_F32, 0.1f, n_seq * POOLS, hv, D, D);
    a->conv_w = FILLED(GDN_F32, 1.0f, W, C);
    a->A_log = FILLED(GDN_F32, 1.0f, hv);
    a->dt_bias = FILLED(GDN_F32, 1.0f, hv);
    a->work_qkv = FILLED(GDN_F32, 0, rows, C);
    a->work_gate = FILLED(GDN_F32, 0, rows, 2, hv);
    for (int32_t s = 0; s <= n_seq; s++) v[s] = s * n;
    a->seq_start = ints(n_seq + 1, v);
    for (int32_t s = 0; s < n_seq; s++) v[s] = 1;
    a->has_state = ints(n_seq, v);
    for (int p = 0; p < POOLS; p++) {
        for (int32_t s = 0; s < n_seq; s++) v[s] = p * n_seq + s;
        c.slot[p] = ints(n_seq, v);
    }
    const double state = 2.0 * 4 * n_seq * ((double)hv * D * D + (double)(W - 1) * (double)C);
    report(name, seconds(core_call, &c), state + 4.0 * (double)rows * (double)(2 * C + hv * D),
           6.0 * (double)rows * hv * D * D);
    const gdn_tensor all[] = {a->core, a->qkv, a->b, a->a, a->conv_state, a->ssm_state, a->conv_w,
                              a->A_log, a->dt_bias, a->work_qkv, a->work_gate, a->seq_start,
                              a->has_state};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) gdn_buffer_free(all[i].buf);
    for (int p = 0; p < POOLS; p++) gdn_buffer_free(c.slot[p].buf);
    free(v);
}

static void attention_call(void *arg, int i) {
    gdn_err err;
    (void)i;
    must(gdn_attention(queue, arg, &err), &err);
}

/* The whole operator on a prompt. */
static void prompt(int32_t n, int32_t nk, int32_t nv, gdn_delta_form form) {
    char name[96];
    snprintf(name, sizeof name, "gdn_attention bf16 %s, %d tokens, heads %d/%d",
             form == GDN_FORM_CHUNKED ? "chunked" : "recurrent", n, nk, nv);
    if (!wanted(name)) return;
    const int64_t C = 2 * (int64_t)nk * D + (int64_t)nv * D;
    gdn_attention_args a = {.n_k_head = nk, .n_v_head = nv, .dk = D, .dv = D, .tp_size = 1,
                            .num_actual_tokens = n, .null_slot = -1, .reorder_input = true,
                            .form = form};
    a.core = FILLED(GDN_BF16, 0, n, nv, D);
    a.z = FILLED(GDN_BF16, 0, n, nv, D);
    a.qkvz = FILLED(GDN_BF16, 1.0f, n, C + nv * D);
    a.ba = FILLED(GDN_BF16, 1.0f, n, 2 * nv);
    a.conv_state = FILLED(GDN_BF16, 1.0f, 1, W - 1, C);
    a.ssm_state = FILLED(GDN_F32, 0.1f, 1, nv, D, D);
    a.conv_weights = FILLED(GDN_BF16, 1.0f, C, W);
    a.A_log = FILLED(GDN_F32, 1.0f, nv);
    a.dt_bias = FILLED(GDN_BF16, 1.0f, nv);
    a.non_spec_query_start_loc = ints(2, (const int32_t[]){0, n});
    a.non_spec_state_indices = ints(1, (const int32_t[]){0});
    const double bytes = 2.0 * n * (double)(2 * C + 3 * nv * D);
    report(name, seconds(attention_call, &a), bytes, 6.0 * n * nv * D * D);
    const gdn_tensor all[] = {a.core, a.z, a.qkvz, a.ba, a.conv_state, a.ssm_state, a.conv_weights,
                              a.A_log, a.dt_bias, a.non_spec_query_start_loc,
                              a.non_spec_state_indices};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) gdn_buffer_free(all[i].buf);
}

/* --- attention over pages ------------------------------------------------------------------ */

static void attn_call(void *arg, int i) {
    gdn_err err;
    (void)i;
    must(gdn_op_attn(queue, arg, &err), &err);
}

/* rows new tokens behind `past`, of one sequence. */
static void attn(int32_t rows, int32_t past, int32_t hq, int32_t hkv) {
    enum { BLOCK = 576, HEAD = 256 };
    char name[96];
    snprintf(name, sizeof name, "attention bf16 %d rows after %d, heads %d/%d", rows, past, hq, hkv);
    if (!wanted(name)) return;
    const int32_t n_block = (past + rows + BLOCK - 1) / BLOCK;
    int32_t *page = malloc((size_t)n_block * sizeof *page);
    if (page == NULL) exit(1);
    for (int32_t i = 0; i < n_block; i++) page[i] = n_block - 1 - i;
    gdn_attn_args a = {.scale = 0.0625f};
    a.y = FILLED(GDN_F32, 0, rows, hq, HEAD);
    a.q = FILLED(GDN_BF16, 1.0f, rows, hq, HEAD);
    a.k_page = FILLED(GDN_BF16, 1.0f, n_block, hkv, BLOCK, HEAD);
    a.v_page = FILLED(GDN_BF16, 1.0f, n_block, hkv, BLOCK, HEAD);
    a.kv = (gdn_kv_layout){.seq_start = ints(2, (const int32_t[]){0, rows}),
                           .n_past = ints(1, &past), .page = ints(n_block, page),
                           .block_size = BLOCK};
    a.kv.page.ndim = 2;
    a.kv.page.shape[1] = n_block;
    a.kv.page.shape[0] = 1;
    a.kv.page.stride[0] = 4 * (int64_t)n_block;
    a.kv.page.stride[1] = 4;
    const double keys = (double)past + (rows + 1) / 2.0;
    report(name, seconds(attn_call, &a), 4.0 * HEAD * hkv * (past + rows),
           4.0 * rows * hq * HEAD * keys);
    const gdn_tensor all[] = {a.y, a.q, a.k_page, a.v_page, a.kv.seq_start, a.kv.n_past, a.kv.page};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) gdn_buffer_free(all[i].buf);
    free(page);
}

/* --- sampling ------------------------------------------------------------------------------ */

/* Rows of several calls lie one behind the other, so that they come from memory. */
typedef struct {
    gdn_top_k_args a;
    int64_t n_row, n_call;
} top_case;

static void top_call(void *arg, int i) {
    top_case *c = arg;
    gdn_err err;
    gdn_top_k_args a = c->a;
    const int64_t first = i % c->n_call * c->n_row;
    a.x = gdn_tensor_slice(a.x, 0, first, first + c->n_row);
    must(gdn_op_top_k(queue, &a, &err), &err);
}

static void top(int64_t n_row, int64_t n, int64_t k) {
    char name[96];
    snprintf(name, sizeof name, "largest %d of %d, %d rows", (int)k, (int)n, (int)n_row);
    if (!wanted(name)) return;
    const double bytes = 4.0 * (double)n_row * (double)n;
    top_case c = {.n_row = n_row, .n_call = (int64_t)(200e6 / bytes) + 2};
    const int64_t shape[] = {c.n_call * n_row, n};
    float *x = malloc((size_t)(shape[0] * n) * sizeof *x);
    gdn_buffer *b;
    gdn_err err;
    if (x == NULL) exit(1);
    for (int64_t i = 0; i < shape[0] * n; i++) x[i] = noise(); /* a pattern would tie */
    must(gdn_buffer_wrap(dev, x, (uint64_t)(shape[0] * n) * sizeof *x, &b, &err), &err);
    c.a.x = gdn_tensor_dense(b, 0, GDN_F32, 2, shape);
    c.a.value = FILLED(GDN_F32, 0, n_row, k);
    c.a.id = FILLED(GDN_I32, 0, n_row, k);
    c.a.found = FILLED(GDN_I32, 0, n_row);
    c.a.min = FILLED(GDN_F32, 0, n_row);
    report(name, seconds(top_call, &c), bytes, 0);
    const gdn_tensor all[] = {c.a.x, c.a.value, c.a.id, c.a.found, c.a.min};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) gdn_buffer_free(all[i].buf);
    free(x);
}

int main(int argc, char **argv) {
    gdn_err err;
    must(gdn_device_open(argc > 1 ? argv[1] : "xpu", NULL, &dev, &err), &err);
    must(gdn_queue_create(dev, &queue, &err), &err);
    only = argc > 2 ? argv[2] : NULL;
    large_copy();
    linear("product", 1, 8, 8, false);
    linear("product", 1, 248320, 1024, false);
    linear("product", 1, 7168, 1024, false);
    linear("product", 1, 1024, 3584, false);
    linear("product", 1, 12288, 2560, false);
    linear("product", 1, 9216, 2560, false);
    linear("product", 1, 2560, 9216, false);
    linear("product", 1, 17408, 5120, false);
    linear("product", 8, 17408, 5120, false);
    linear("projection with norm", 1, 7168, 1024, true);
    linear("projection with norm", 1, 12288, 2560, true);
    linear("product", 512, 7168, 1024, false);
    linear("product", 512, 12288, 2560, false);
    experts(1, 2048, 512);
    experts(8, 2048, 512);
    experts(32, 2048, 512);
    experts(512, 2048, 512);
    core(1, 1, 16, 16);
    core(1, 1, 16, 32);
    core(8, 1, 16, 32);
    core(32, 1, 16, 32);
    core(256, 1, 16, 32);
    core(1, 512, 16, 16);
    prompt(4096, 16, 32, GDN_FORM_RECURRENT);
    prompt(4096, 16, 32, GDN_FORM_CHUNKED);
    attn(1, 4095, 8, 2);
    attn(1, 32767, 8, 2);
    attn(512, 0, 8, 2);
    attn(512, 4096, 8, 2);
    top(1, 248320, 1);
    top(1, 248320, 20);
    top(1, 248320, 64);
    top(32, 248320, 1);
    top(32, 248320, 20);
    top(32, 248320, 64);
    gdn_buffer_free(copy_from), gdn_buffer_free(copy_to);
    gdn_queue_free(queue);
    gdn_device_close(dev);
    return 0;
}
