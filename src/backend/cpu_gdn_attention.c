/* cpu_gdn_attention.c - gdn_attention and its two stages on the cpu: sequences, tasks and how
 * threads share them. */
#include <string.h>

#include "../base/arena.h"
#include "../base/stream.h"
#include "cpu_gdn_stage.h"

/* --- tasks ------------------------------------------------------------------------------- */

static cpu_gdn_tile tile_of(const cpu_gdn_job *j, int thread, uint64_t *bytes) {
    const uint64_t tile = GDN_TILE * (uint64_t)j->ld, heads = GDN_PART_BLOCKS * GDN_TILE;
    const int32_t dk = (int32_t)j->dk, rows = (int32_t)j->max_c;
    uint64_t chunk = 0, held = 0;
    if (j->core != NULL && j->form == GDN_FORM_CHUNKED) {
        chunk = gdn_delta_chunk_work(dk, rows) + 3;
        /* Each head begins anew. */
        held = gdn_delta_chunk_held(dk, rows) +
               (uint64_t)(j->max_c / j->dv + 2) * gdn_delta_chunk_held(dk, 1);
    }
    const uint64_t n[] = {tile, tile, j->W > 0 ? (uint64_t)(j->W - 1) * (uint64_t)j->ld : 0,
                          heads, heads,
                          j->core != NULL ? (uint64_t)(j->max_c * j->dk) : 0, chunk / 4, held / 4};
    cpu_gdn_tile t;
    float **const p[] = {&t.x, &t.y, &t.hist, &t.b, &t.a, &t.S, &t.chunk, &t.held};
    char *base = j->tile != NULL ? j->tile + (uint64_t)thread * j->tile_bytes : NULL;
    uint64_t at = 0;
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        *p[i] = base != NULL ? (float *)(void *)(base + at) : NULL;
        at += (n[i] * sizeof(float) + 63) / 64 * 64;
    }
    if (bytes != NULL) *bytes = (at + 4095) / 4096 * 4096;
    return t;
}

/* Value channel where block b of a key head begins; a block lies in one head. */
static int64_t block_start(const cpu_gdn_job *j, int64_t b) {
    const int64_t of_head = (j->dv + GDN_BLOCK - 1) / GDN_BLOCK;
    return b / of_head * j->dv + b % of_head * GDN_BLOCK;
}

/* Task i of all; member is where it lies, or before. */
static cpu_gdn_task task_at(const cpu_gdn_job *j, int64_t i, int64_t *member, const cpu_gdn_tile *t) {
    while (i >= j->m[*member].task + j->nk * j->m[*member].parts) ++*member;
    const cpu_gdn_member *m = j->m + *member;
    const int64_t part = (i - m->task) % m->parts;
    cpu_gdn_task k = {.j = j,
                      .m = m,
                      .t = t,
                      .g = (i - m->task) / m->parts,
                      .c0 = block_start(j, j->blocks * part / m->parts),
                      .c1 = block_start(j, j->blocks * (part + 1) / m->parts),
                      .qk = part == 0 || j->core != NULL};
    if (j->qkvz != NULL) cpu_gdn_spans(&k);
    return k;
}

static bool in_row(const cpu_gdn_task *k) {
    const int32_t *map = k->m->map;
    for (int64_t i = 1; map != NULL && i < k->n; i++)
        if (map[k->from + i] != map[k->from] + i) return false;
    return true;
}

static void run_task(cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    if (k->m->none) {
        cpu_gdn_zeros(k);
        return;
    }
    for (; k->from < k->m->n; k->from += k->n) {
        k->n = k->m->n - k->from < GDN_TILE ? k->m->n - k->from : GDN_TILE;
        k->in_row = in_row(k);
        if (j->qkvz != NULL) {
            cpu_gdn_rows_in(k);
            cpu_gdn_convolve(k);
        } else if (!cpu_gdn_reads_between(k)) {
            cpu_gdn_between_in(k);
        }
        if (j->core != NULL) {
            cpu_gdn_gates_in(k);
            cpu_gdn_delta(k);
            if (!cpu_gdn_writes_rows(k)) cpu_gdn_core_out(k);
        } else {
            cpu_gdn_between_out(k);
        }
    }
    if (j->qkvz != NULL && k->m->parts == 1) cpu_gdn_renew_line(j, k->m, k->g);
}

/* The task where the share of thread t of T begins: shares are of the cost, not of the tasks. */
static int64_t share(const cpu_gdn_job *j, int64_t t, int64_t T, int64_t *member) {
    const int64_t at = j->cost / T * t + j->cost % T * t / T;
    int64_t lo = 0, hi = j->n_member;
    while (lo + 1 < hi) { /* the last member with before <= at */
        const int64_t mid = lo + (hi - lo) / 2;
        if (j->m[mid].before <= at) lo = mid;
        else hi = mid;
    }
    const cpu_gdn_member *m = j->m + lo;
    const int64_t i = (at - m->before + m->cost - 1) / m->cost;
    *member = lo;
    return t >= T ? j->n_task : m->task + i;
}

static void tasks(void *arg, int64_t begin, int64_t end, int thread) {
    const cpu_gdn_job *j = arg;
    const cpu_gdn_tile t = tile_of(j, thread, NULL);
    int64_t member, unused;
    const int64_t last = share(j, end, j->d->n_thread, &unused);
    int64_t i = share(j, begin, j->d->n_thread, &member);
    if (i >= last) return;
    for (cpu_gdn_task k = task_at(j, i, &member, &t); i < last; i++) {
        cpu_gdn_task next = k;
        if (i + 1 < last) {
            next = task_at(j, i + 1, &member, &t);
            next.fetched = !k.m->none && k.m->column == NULL && k.m->n <= GDN_TILE &&
                           j->core != NULL;
            k.next = &next;
        }
        run_task(&k);
        k = next;
    }
    gdn_stream_done();
}

static void lines(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const cpu_gdn_job *j = arg;
    for (int64_t i = begin; i < end; i++) {
        const cpu_gdn_member *m = j->m + i / j->nk;
        if (m->parts > 1 && !m->none) cpu_gdn_renew_line(j, m, i % j->nk);
    }
}

/* --- sequences --------------------------------------------------------------------------- */

/* One group of sequences, as all three operators name it. */
typedef struct {
    const gdn_tensor *loc, *indx, *slot, *initial, *accepted; /* accepted: a speculative group */
} group;

static int64_t count(const group *g) { return g->loc->buf != NULL ? g->loc->shape[0] - 1 : 0; }

static void add(cpu_gdn_job *j, const group *g) {
    const int32_t *start = gdn_tensor_host(g->loc), *map = gdn_tensor_host(g->indx);
    const int32_t *accepted = g->accepted != NULL ? gdn_tensor_host(g->accepted) : NULL;
    const unsigned char *initial = g->initial != NULL ? gdn_tensor_host(g->initial) : NULL;
    for (int64_t s = 0; s < count(g); s++) {
        if (start[s + 1] == start[s]) continue;
        const int32_t *slot = (const int32_t *)(const void *)cpu_at(g->slot, s);
        const int32_t init = accepted != NULL && accepted[s] > 0 ? accepted[s] - 1 : 0;
        j->m[j->n_member++] = (cpu_gdn_member){
            .map = map != NULL ? map + start[s] : NULL,
            .column = accepted != NULL ? slot : NULL,
            .token = start[s],
            .n = start[s + 1] - start[s],
            .slot = slot[0],
            .read = slot[init],
            .line = init,
            .fresh = initial != NULL && initial[s] == 0,
            .none = slot[0] < 0 || slot[0] == j->null_slot,
        };
    }
}

/* Nanoseconds of a part with c value channels, roughly: arithmetic, rows, and the state once. */
static int64_t part_cost(const cpu_gdn_job *j, const cpu_gdn_member *m, int64_t c) {
    const int64_t rows = m->n * (2 * j->dk + 2 * c) / 8;
    if (m->none || j->core == NULL) return rows + 1;
    return rows + m->n * c * j->dk / 25 + c * j->dk / 2 + 1;
}

enum { STREAM_FROM = 8 << 20 }; /* bytes of z, a quarter of what goes in and out with it */

/* Key heads are cut into parts where a thread would have less than one of them. */
static void plan(cpu_gdn_job *j) {
    const int64_t c = j->r * j->dv, least = (j->blocks + GDN_PART_BLOCKS - 1) / GDN_PART_BLOCKS;
    double all = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < j->n_member; i++) n += j->m[i].n;
    j->stream = n * j->nv * j->dv * gdn_type_bytes(j->act) > STREAM_FROM;
    if (j->core != NULL) {
        const char *core = gdn_tensor_host(j->core);
        j->whole_lines = ((uint64_t)(uintptr_t)core | (uint64_t)j->core->stride[0] |
                          (uint64_t)j->core->stride[1]) % 64 == 0;
    }
    for (int64_t i = 0; i < j->n_member; i++)
        all += (double)part_cost(j, j->m + i, c) * (double)j->nk;
    const double most = all / (2.0 * j->d->n_thread);
    for (int64_t i = 0; i < j->n_member; i++) {
        cpu_gdn_member *m = j->m + i;
        const double want = j->d->n_thread > 1 ? (double)part_cost(j, m, c) / most : 1;
        m->parts = want < (double)least ? least : want > (double)j->blocks ? j->blocks : (int64_t)want;
        m->cost = part_cost(j, m, c / m->parts);
        m->task = j->n_task;
        m->before = j->cost;
        j->n_task += j->nk * m->parts;
        j->cost += j->nk * m->parts * m->cost;
    }
}

/* --- calls ------------------------------------------------------------------------------- */

/* The device's scratch for these operators, kept from call to call and grown as needed. */
static char *work(cpu_device *d, uint64_t bytes) {
    if (bytes > d->gdn_work_bytes) {
        gdn_big_free(d->gdn_work, d->gdn_work_bytes);
        d->gdn_work = gdn_big_alloc(bytes);
        d->gdn_work_bytes = d->gdn_work != NULL ? bytes : 0;
    }
    return d->gdn_work;
}

static uint64_t lines_of(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

static gdn_status run(cpu_gdn_job *j, const group *g, int n_group, const char *op, gdn_err *err) {
    int64_t n_seq = 0;
    for (int i = 0; i < n_group; i++) n_seq += count(g + i);
    j->blocks = j->r * ((j->dv + GDN_BLOCK - 1) / GDN_BLOCK);
    const int64_t most = GDN_PART_BLOCKS * GDN_BLOCK, c = j->r * j->dv;
    j->max_c = c < most ? c : most;
    j->ld = 2 * j->dk + j->max_c + 16; /* rows a power of two apart would share cache lines */
    tile_of(j, 0, &j->tile_bytes);
    const uint64_t part[] = {lines_of((uint64_t)n_seq * sizeof *j->m),
                             lines_of((uint64_t)(j->W * j->C) * sizeof(float)),
                             lines_of((uint64_t)j->C * sizeof(float)),
                             lines_of((uint64_t)j->nv * sizeof(float))};
    const uint64_t head = (part[0] + part[1] + part[2] + part[3] + 4095) / 4096 * 4096;
    const uint64_t bytes = head + j->tile_bytes * (uint64_t)j->d->n_thread;
    if (n_seq == 0) return GDN_OK;
    char *p = work(j->d, bytes);
    if (p == NULL)
        return gdn_fail(err, GDN_E_NOMEM, "%s: %.1f MB of scratch", op, (double)bytes * 1e-6);
    j->m = (cpu_gdn_member *)(void *)p;
    j->w = (float *)(void *)(p + part[0]);
    if (j->conv_bias != NULL && j->conv_bias->buf != NULL)
        j->bias = (float *)(void *)(p + part[0] + part[1]);
    j->dt = (float *)(void *)(p + part[0] + part[1] + part[2]);
    j->tile = p + head;

    for (int i = 0; i < n_group; i++) add(j, g + i);
    if (j->n_member == 0) return GDN_OK;
    plan(j);
    if (j->core != NULL)
        cpu_gdn_load(j, j->dt, gdn_tensor_host(j->dt_bias), j->nv, j->dt_bias->type);
    if (j->qkvz != NULL) cpu_run(j->d, j->C, (double)(j->C * j->W) / 4, cpu_gdn_weights, j);
    cpu_run(j->d, j->d->n_thread, (double)j->cost, tasks, j);
    bool cut = false;
    for (int64_t i = 0; i < j->n_member; i++) cut = cut || j->m[i].parts > 1;
    if (cut && j->qkvz != NULL)
        cpu_run(j->d, j->n_member * j->nk, (double)(j->n_member * j->C), lines, j);
    return GDN_OK;
}

gdn_status cpu_op_gdn_attention(gdn_queue *q, const gdn_attention_args *a, gdn_err *err) {
    cpu_gdn_job j = {.d = cpu_of(q),
                     .act = a->qkvz.type,
                     .nk = a->n_k_head / a->tp_size,
                     .nv = a->n_v_head / a->tp_size,
                     .r = a->n_v_head / a->n_k_head,
                     .dk = a->dk,
                     .dv = a->dv,
                     .W = a->conv_weights.shape[1],
                     .C = a->conv_weights.shape[0],
                     .qkvz = &a->qkvz,
                     .ba = &a->ba,
                     .z = &a->z,
                     .conv_state = &a->conv_state,
                     .conv_weights = &a->conv_weights,
                     .conv_bias = &a->conv_bias,
                     .core = &a->core,
                     .ssm_state = &a->ssm_state,
                     .A_log = &a->A_log,
                     .dt_bias = &a->dt_bias,
                     .reorder = a->reorder_input,
                     .ds = a->conv_layout == GDN_CONV_STATE_DS,
                     .null_slot = a->null_slot,
                     .form = a->form};
    const group g[] = {{.loc = &a->spec_query_start_loc,
                        .indx = &a->spec_token_indx,
                        .slot = &a->spec_state_indices,
                        .accepted = &a->num_accepted_tokens},
                       {.loc = &a->non_spec_query_start_loc,
                        .indx = &a->non_spec_token_indx,
                        .slot = &a->non_spec_state_indices,
                        .initial = &a->has_initial_state}};
    return run(&j, g, 2, "gdn_attention", err);
}

/* The arguments that both stages have. */
#define GROUP(a)                                                                          \
    {                                                                                     \
        .loc = &(a)->query_start_loc, .indx = &(a)->token_indx, .slot = &(a)->state_indices, \
        .initial = &(a)->has_initial_state,                                               \
        .accepted = (a)->num_accepted_tokens.buf != NULL ? &(a)->num_accepted_tokens : NULL, \
    }

gdn_status cpu_op_causal_conv1d(gdn_queue *q, const gdn_causal_conv1d_args *a, gdn_err *err) {
    cpu_gdn_job j = {.d = cpu_of(q),
                     .act = a->qkvz.type,
                     .nk = a->n_k_head / a->tp_size,
                     .nv = a->n_v_head / a->tp_size,
                     .r = a->n_v_head / a->n_k_head,
                     .dk = a->dk,
                     .dv = a->dv,
                     .W = a->conv_weights.shape[1],
                     .C = a->conv_weights.shape[0],
                     .qkvz = &a->qkvz,
                     .ba = &a->ba,
                     .z = &a->z,
                     .conv_state = &a->conv_state,
                     .conv_weights = &a->conv_weights,
                     .conv_bias = &a->conv_bias,
                     .q = &a->q,
                     .k = &a->k,
                     .v = &a->v,
                     .b = &a->b,
                     .a = &a->a,
                     .reorder = a->reorder_input,
                     .ds = a->conv_layout == GDN_CONV_STATE_DS,
                     .null_slot = a->null_slot};
    const group g = GROUP(a);
    return run(&j, &g, 1, "gdn_causal_conv1d", err);
}

gdn_status cpu_op_delta_rule(gdn_queue *q, const gdn_delta_rule_args *a, gdn_err *err) {
    cpu_gdn_job j = {.d = cpu_of(q),
                     .act = a->q.type,
                     .nk = a->q.shape[1],
                     .nv = a->v.shape[1],
                     .r = a->v.shape[1] / a->q.shape[1],
                     .dk = a->q.shape[2],
                     .dv = a->v.shape[2],
                     .core = &a->core,
                     .ssm_state = &a->ssm_state,
                     .A_log = &a->A_log,
                     .dt_bias = &a->dt_bias,
                     .q = &a->q,
                     .k = &a->k,
                     .v = &a->v,
                     .b = &a->b,
                     .a = &a->a,
                     .null_slot = a->null_slot,
                     .form = a->form};
    const group g = GROUP(a);
    return run(&j, &g, 1, "gdn_delta_rule", err);
}
