/* cpu_lora.c - low-rank adapters on the cpu: rows that have the same one share its matrices.
 *
 * A plain product takes two regions: u = A x over blocks of rows and pieces of the rank, then
 * y += scale B u over pieces of the outputs.  Experts' adapters take one, in which a thread sees a
 * few pairs through both, with u in its own scratch. */
#include "cpu.h"
#include "cpu_lora.h"

enum {
    ROWS = 32,      /* rows of a kernel call: their u, or the block's x, stay in the caches */
    FEW_ROWS = 8,   /* up to here the rank is cut finely, or a single row would run alone   */
    RANK_PIECE = 4, /* outputs of a task in the first product then                          */
    PIECE = 256,    /* outputs of a task                                                    */
};

/* --- one product ------------------------------------------------------------------------ */

typedef struct {
    const cpu_device *d;
    const gdn_lora_op_args *a;
    int32_t pieces; /* of the rank */
} job;

static const gdn_lora *adapter_of(const gdn_lora_op_args *a, int64_t i) {
    const int32_t *row = gdn_tensor_host(&a->row), *index = gdn_tensor_host(&a->adapter);
    const int32_t at = index[row != NULL ? row[i] : i];
    return at < 0 || a->lora[at].a.buf == NULL ? NULL : &a->lora[at];
}

/* The next rows of [*at, end) with one adapter, ROWS at most: the first row that is not done, and
 * those behind it that agree.  done has a bit for each row; NULL when there is none left. */
static const gdn_lora *next_rows(const gdn_lora_op_args *a, int64_t begin, int64_t end,
                                 uint32_t *done, int32_t *row, int32_t *n) {
    const gdn_lora *l = NULL;
    *n = 0;
    for (int64_t i = begin; i < end; i++) {
        const uint32_t bit = 1u << (i - begin);
        if ((*done & bit) != 0) continue;
        const gdn_lora *this = adapter_of(a, i);
        if (this != NULL && l != NULL && this != l) continue;
        *done |= bit;
        if (this == NULL) continue;
        l = this;
        row[(*n)++] = (int32_t)i;
    }
    return l;
}

static void down_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const job *j = arg;
    const gdn_lora_op_args *a = j->a;
    const int64_t n_row = a->y.shape[0];
    for (int64_t i = begin; i < end; i++) {
        const int64_t r0 = i / j->pieces * ROWS, r1 = n_row - r0 < ROWS ? n_row : r0 + ROWS;
        const int32_t piece = (int32_t)(i % j->pieces);
        int32_t row[ROWS], n;
        uint32_t done = 0;
        for (const gdn_lora *l; (l = next_rows(a, r0, r1, &done, row, &n)) != NULL;) {
            const int32_t rank = (int32_t)l->a.shape[0], step = j->pieces > 1 ? RANK_PIECE : rank;
            const int32_t from = piece * step, k = (int32_t)l->a.shape[1];
            if (from >= rank) continue;
            gdn_lora_args g = {
                .y = (float *)gdn_tensor_host(&a->work) + from,
                .x = gdn_tensor_host(&a->x),
                .m = (const float *)gdn_tensor_host(&l->a) + (int64_t)from * k,
                .y_row = row, .x_row = row,
                .y_stride = cpu_stride(&a->work, 0),
                .x_stride = cpu_stride(&a->x, 0),
                .n_row = n, .n = rank - from < step ? rank - from : step, .k = k,
                .x_bf16 = a->x.type == GDN_BF16,
            };
            j->d->kern.lora(&g);
        }
    }
}

static void up_task(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const job *j = arg;
    const gdn_lora_op_args *a = j->a;
    const int64_t n_row = a->y.shape[0], n_out = a->y.shape[1];
    for (int64_t i = begin; i < end; i++) {
        const int64_t from = i * PIECE;
        for (int64_t r0 = 0; r0 < n_row; r0 += ROWS) {
            const int64_t r1 = n_row - r0 < ROWS ? n_row : r0 + ROWS;
            int32_t row[ROWS], n;
            uint32_t done = 0;
            for (const gdn_lora *l; (l = next_rows(a, r0, r1, &done, row, &n)) != NULL;) {
                const int32_t rank = (int32_t)l->a.shape[0];
                gdn_lora_args g = {
                    .y = (float *)gdn_tensor_host(&a->y) + from,
                    .x = gdn_tensor_host(&a->work),
                    .m = (const float *)gdn_tensor_host(&l->b) + from * rank,
                    .y_row = row, .x_row = row,
                    .y_stride = cpu_stride(&a->y, 0),
                    .x_stride = cpu_stride(&a->work, 0),
                    .n_row = n, .n = (int32_t)(n_out - from < PIECE ? n_out - from : PIECE),
                    .k = rank, .scale = l->scale, .add = true,
                };
                j->d->kern.lora(&g);
            }
        }
    }
}

gdn_status cpu_op_lora(gdn_queue *q, const gdn_lora_op_args *a, gdn_err *err) {
    (void)err;
    cpu_device *d = cpu_of(q);
    const int64_t n_row = a->y.shape[0], blocks = (n_row + ROWS - 1) / ROWS;
    int64_t sum = 0; /* of the rows' ranks */
    int32_t most = 0;
    for (int64_t i = 0; i < n_row; i++) {
        const gdn_lora *l = adapter_of(a, i);
        if (l == NULL) continue;
        const int32_t rank = (int32_t)l->a.shape[0];
        sum += rank;
        if (rank > most) most = rank;
    }
    if (sum == 0) return GDN_OK;
    job j = {.d = d, .a = a};
    j.pieces = n_row <= FEW_ROWS ? (most + RANK_PIECE - 1) / RANK_PIECE : 1;
    cpu_run(d, blocks * j.pieces, 0.1 * (double)sum * (double)a->x.shape[1], down_task, &j);
    cpu_run(d, (a->y.shape[1] + PIECE - 1) / PIECE, 0.1 * (double)sum * (double)a->y.shape[1],
            up_task, &j);
    return GDN_OK;
}

/* --- inside the experts ------------------------------------------------------------------- */

typedef struct {
    const cpu_device *d;
    const gdn_moe_experts_args *a;
    const int32_t *pair, *row; /* as in cpu_moe.c */
    bool down;
} expert_job;

static const gdn_lora *expert_lora(const expert_job *j, int64_t i, int part) {
    const gdn_moe_experts_args *a = j->a;
    const int32_t at = ((const int32_t *)gdn_tensor_host(&a->adapter))[j->row[i]];
    if (at < 0 || a->lora[at] == NULL) return NULL;
    const int32_t e = ((const int32_t *)gdn_tensor_host(&a->expert))[j->pair[i]];
    const gdn_lora *l = a->lora[at] + 3 * (int64_t)e + part;
    return l->a.buf == NULL ? NULL : l;
}

/* Pairs i .. i + n - 1, in the experts' order, through A and B. */
static void expert_rows(const expert_job *j, const gdn_lora *l, int64_t i, int32_t n, int part,
                        float *u) {
    const gdn_moe_experts_args *a = j->a;
    int32_t own[ROWS], place[ROWS]; /* 0, 1, 2, ..; places in the sorted order */
    for (int32_t k = 0; k < n; k++) own[k] = k, place[k] = (int32_t)i + k;
    const gdn_tensor *x = j->down ? &a->work_h : &a->x;
    const int32_t rank = (int32_t)l->a.shape[0];
    gdn_lora_args g = {
        .y = u, .x = gdn_tensor_host(x), .m = gdn_tensor_host(&l->a), .y_row = own,
        .x_row = j->down ? place : j->row + i, .y_stride = rank, .x_stride = cpu_stride(x, 0),
        .n_row = n, .n = rank, .k = (int32_t)l->a.shape[1], .x_bf16 = x->type == GDN_BF16,
    };
    j->d->kern.lora(&g);
    const int32_t n_out = (int32_t)l->b.shape[0];
    float *gu = gdn_tensor_host(&a->work_gu);
    g = (gdn_lora_args){
        .y = j->down ? gdn_tensor_host(&a->y) : gu + (part == 1 ? n_out : 0),
        .x = u, .m = gdn_tensor_host(&l->b), .y_row = j->down ? j->pair + i : place, .x_row = own,
        .y_stride = cpu_stride(j->down ? &a->y : &a->work_gu, j->down ? 1 : 0), .x_stride = rank,
        .n_row = n, .n = n_out, .k = rank, .scale = l->scale, .add = true,
    };
    j->d->kern.lora(&g);
}

static void expert_task(void *arg, int64_t begin, int64_t end, int thread) {
    const expert_job *j = arg;
    const int first = j->down ? 2 : 0, last = j->down ? 2 : 1;
    float *u = cpu_scratch(j->d, thread);
    const int64_t room = (int64_t)(j->d->scratch_bytes / sizeof *u);
    for (int part = first; part <= last; part++)
        for (int64_t i = begin; i < end;) {
            const gdn_lora *l = expert_lora(j, i, part);
            int32_t n = 1;
            int64_t most = l == NULL ? end - i : room / l->a.shape[0];
            if (l != NULL && most > ROWS) most = ROWS;
            while (n < most && i + n < end && expert_lora(j, i + n, part) == l) n++;
            if (l != NULL) expert_rows(j, l, i, n, part, u);
            i += n;
        }
}

void cpu_expert_lora(cpu_device *d, const gdn_moe_experts_args *a, const int32_t *pair,
                     const int32_t *row, bool down) {
    expert_job j = {.d = d, .a = a, .pair = pair, .row = row, .down = down};
    const int64_t n = a->expert.shape[0] * a->expert.shape[1];
    bool any = false;
    for (int64_t i = 0; i < n && !any; i++)
        for (int part = 0; part < 3; part++) any |= expert_lora(&j, i, part) != NULL;
    if (any) cpu_run(d, n, 1e9, expert_task, &j);
}
