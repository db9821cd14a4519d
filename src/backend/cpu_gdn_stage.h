/* cpu_gdn_stage.h - gdn_attention and its two stages on the cpu: what their files share.
 *
 * A call is a list of sequences, and each is nk times `parts` tasks: one key head with a range of
 * the value channels that read it.  A task takes its sequence TILE tokens at a time through all it
 * has to do, in scratch of its thread that stays in the second cache:
 *
 *     qkvz ──► x ──convolution──► y ──► q, k, v tensors           the first stage on its own
 *              q, k, v tensors ──► y                               the second
 *                                  y ──gates──► delta rule ──► o ──► core
 *
 * Tasks of a sequence that is in one part own their channels, and their line of the convolution's
 * pool is renewed at the end of the task; otherwise that is a region of its own, after the tasks,
 * because the parts read the same line. */
#ifndef GDN_BACKEND_CPU_GDN_STAGE_H
#define GDN_BACKEND_CPU_GDN_STAGE_H

#include "cpu.h"

enum {
    GDN_TILE = 64,       /* tokens                                                         */
    GDN_BLOCK = 32,      /* value channels that are never cut                              */
    GDN_PART_BLOCKS = 16, /* blocks of a task at most, which bounds its scratch            */
    GDN_STRETCHES = 16   /* of a token's memory that are asked for ahead, at most          */
};

/* One sequence. */
typedef struct {
    const int32_t *map;    /* rows of its tokens, NULL: token i of the group is row i      */
    const int32_t *column; /* speculative: the slots of its columns                        */
    int64_t token, n;      /* its tokens in the group's own order                          */
    int64_t slot, read;    /* of the convolution's line; of the state to start from        */
    int64_t line;          /* row of the line where its history begins                     */
    bool    fresh;         /* starts from zeros                                            */
    bool    none;          /* zero rows, no state                                          */
    int64_t parts;         /* of a key head                                                */
    int64_t task, cost, before; /* its first task; cost of one; cost of all tasks before   */
} cpu_gdn_member;

/* A call.  Tensors of a stage that is not in it are NULL. */
typedef struct {
    cpu_device *d;
    gdn_type act;
    int64_t nk, nv, r, dk, dv, C, W; /* without a first stage C and W are 0                */
    const gdn_tensor *qkvz, *ba, *z, *conv_state, *conv_weights, *conv_bias;
    const gdn_tensor *core, *ssm_state, *A_log, *dt_bias;
    const gdn_tensor *q, *k, *v, *b, *a; /* between the stages; NULL when both are here    */
    bool    reorder, ds;
    bool    stream;        /* z and core are more than the caches hold                     */
    bool    whole_lines;   /* a head's rows of core begin where lines do                   */
    int32_t null_slot;
    gdn_delta_form form;

    cpu_gdn_member *m;
    int64_t n_member, n_task, cost;
    int64_t blocks;        /* of the value channels of a key head                          */
    int64_t max_c;         /* value channels of a part at most                             */
    int64_t ld;            /* elements from one token to the next in x and y               */
    float  *w, *bias, *dt; /* in f32; taps outermost                                       */
    char   *tile;          /* [threads][tile_bytes]                                        */
    uint64_t tile_bytes;
} cpu_gdn_job;

/* Scratch of a thread. */
typedef struct {
    float *x, *y;     /* [TILE][ld]: q (dk) | k (dk) | v of the part; o [TILE][max_c] lies on x;
                       * y may be in bf16, see cpu_gdn_y_in_bf16()                          */
    float *hist;      /* [W - 1][ld]                                                       */
    float *b, *a;     /* [PART_BLOCKS][TILE]: of the heads in the part                     */
    float *S;         /* [max_c][dk]                                                       */
    float *chunk;     /* of the chunked form                                               */
    float *held;      /* the same: the states between chunks                               */
} cpu_gdn_tile;

/* A run of channels: at `x` in a tile's row, `channel` in the convolution's order, `src` in a row
 * of qkvz. */
typedef struct {
    int64_t x, channel, src, n;
} cpu_gdn_span;

/* What a task works on. */
typedef struct cpu_gdn_task {
    const cpu_gdn_job *j;
    const cpu_gdn_member *m;
    const cpu_gdn_tile *t;
    int64_t g;        /* key head                                                          */
    int64_t c0, c1;   /* of the r dv value channels that read it                           */
    int64_t from, n;  /* tokens of the sequence                                            */
    bool    qk;       /* with query and key                                                */
    cpu_gdn_span span[3]; /* q, k and v, or v alone; none without a first stage            */
    int     n_span;
    bool    in_row;   /* these tokens' rows follow each other: f32 and bf16 rows are read where
                       * they lie, and f32 rows written                                    */
    bool    fetched;  /* the task before has asked for the first tile                      */
    const struct cpu_gdn_task *next; /* of this thread, or NULL                            */
} cpu_gdn_task;

static inline int64_t cpu_gdn_row(const cpu_gdn_member *m, int64_t i) {
    return m->map != NULL ? m->map[i] : m->token + i;
}

/* Fill in a task's spans. */
void cpu_gdn_spans(cpu_gdn_task *k);
/* Shorter sequences gain nothing from chunks. */
static inline bool cpu_gdn_in_chunks(const cpu_gdn_task *k) {
    enum { FROM = 16 };
    return k->j->form == GDN_FORM_CHUNKED && k->m->column == NULL && k->m->n >= FROM;
}
/* The convolution reads qkvz itself; the delta rule writes core itself, unless that goes past the
 * caches and its variant would do so in parts of lines. */
static inline bool cpu_gdn_reads_rows(const cpu_gdn_task *k) {
    return k->in_row && k->j->act != GDN_F16;
}
static inline bool cpu_gdn_writes_rows(const cpu_gdn_task *k) {
    if (!k->in_row || k->j->act == GDN_F16) return false;
    if (!cpu_gdn_in_chunks(k)) return k->j->act == GDN_F32 && !k->j->stream;
    return !k->j->stream || (k->j->d->kern.delta_chunk_past && k->j->whole_lines);
}
/* Chunks of bf16 rows need no more of the convolution's output than is between the stages. */
static inline bool cpu_gdn_y_in_bf16(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    return j->act == GDN_BF16 && j->qkvz != NULL && j->core != NULL && cpu_gdn_in_chunks(k);
}
/* Chunks take what lies between the stages as it is. */
static inline bool cpu_gdn_reads_between(const cpu_gdn_task *k) {
    return k->j->qkvz == NULL && k->j->act != GDN_F16 && cpu_gdn_in_chunks(k);
}
/* Elements of any type to f32 and back. */
void cpu_gdn_load(const cpu_gdn_job *j, float *to, const void *from, int64_t n, gdn_type t);
void cpu_gdn_store(const cpu_gdn_job *j, void *to, const float *from, int64_t n, gdn_type t);

/* Tokens of a task: rows in, rows between the stages, rows out. */
void cpu_gdn_rows_in(const cpu_gdn_task *k);     /* qkvz to x if need be, z to its place   */
void cpu_gdn_between_out(const cpu_gdn_task *k); /* y to q, k, v; b and a                  */
void cpu_gdn_between_in(const cpu_gdn_task *k);  /* q, k, v to y                           */
void cpu_gdn_gates_in(const cpu_gdn_task *k);    /* b and a to the tile                    */
void cpu_gdn_core_out(const cpu_gdn_task *k);
void cpu_gdn_zeros(const cpu_gdn_task *k);       /* all rows that the call writes          */
/* Element of a row of qkvz where z of the part begins. */
static inline int64_t cpu_gdn_z_at(const cpu_gdn_task *k) {
    const cpu_gdn_job *j = k->j;
    const int64_t values = j->r * j->dv;
    return j->reorder ? j->C + k->g * values + k->c0
                      : k->g * (2 * j->dk + 2 * values) + 2 * j->dk + values + k->c0;
}

/* Memory to be asked for. */
typedef struct {
    const char *p;
    int64_t lines;
    bool write;
} cpu_gdn_stretch;
typedef struct {
    cpu_gdn_stretch of[GDN_STRETCHES];
    int n;
} cpu_gdn_stretches;

/* Asking for the next tile, of a task or the one after it, spread over the work on this one. */
typedef struct {
    const cpu_gdn_task *task;
    int64_t row;          /* of history, to come: from 1 - W up to 0                       */
    int64_t token, end;   /* those to come                                                 */
    cpu_gdn_stretches s;  /* of the last row or token, and where in them we are            */
    int     at;
    int64_t line;
    int64_t lines, done;  /* of all                                                        */
    int64_t step, steps;  /* of this tile's work                                           */
} cpu_gdn_ahead;

/* Ask for what token i of the sequence reads and writes. */
void cpu_gdn_fetch(const cpu_gdn_task *k, int64_t i);
/* What is to be asked for during work on a tile; the caller sets steps. */
cpu_gdn_ahead cpu_gdn_what_follows(const cpu_gdn_task *k);
/* One step of that: an `aside` of the delta rule. */
void cpu_gdn_fetch_some(void *ahead);

/* x to y, with the history in the tile, which the first tokens fetch. */
void cpu_gdn_convolve(const cpu_gdn_task *k);
/* Where row w of the task's history has a span. */
const char *cpu_gdn_line(const cpu_gdn_task *k, int64_t w, const cpu_gdn_span *s);
/* The line after the call, for key head g. */
void cpu_gdn_renew_line(const cpu_gdn_job *j, const cpu_gdn_member *m, int64_t g);
/* Channels begin <= c < end of the weights in f32. */
void cpu_gdn_weights(void *job, int64_t begin, int64_t end, int thread);

/* y to o, and the states. */
void cpu_gdn_delta(const cpu_gdn_task *k);

#endif
