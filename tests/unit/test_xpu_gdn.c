/* test_xpu_gdn.c - the xpu's Gated DeltaNet, attention and experts against the cpu's, on the same
 * memory; recorded calls of gdn_attention(); indices that only the device can see.
 *
 * Every tensor has a gap behind it, and whole buffers are compared: what neither device may write
 * has to be the same. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "opencl.h"
#include "opencl_sides.h"

#include <gdn/op.h>
#include <gdn/tools.h>

enum { MOST = 64 };

/* The same tensor on both devices. */
typedef struct {
    gdn_tensor t[N_SIDE];
    uint64_t   bytes;
    char       name[20];
} pair;

static pair made[MOST];
static int n_made;

static uint16_t bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
static double number(const char *p, gdn_type t) {
    uint32_t u = 0;
    float x;
    memcpy(&u, p, (size_t)gdn_type_bytes(t));
    if (t == GDN_I32) return (double)(int32_t)u;
    if (t == GDN_BF16) u <<= 16;
    memcpy(&x, &u, sizeof x);
    return (double)x;
}

/* --- tensors ------------------------------------------------------------------------------- */

static void put(const pair *p, const void *data) {
    gdn_err err = {0};
    for (int i = 0; i < N_SIDE; i++)
        must(gdn_queue_write(queue[i], p->t[i].buf, 0, data, p->bytes, &err), &err);
}

/* Random values lo .. hi; rows `gap` bytes further apart than they need. */
static pair *make(const char *name, gdn_type type, float lo, float hi, int64_t gap, int32_t ndim,
                  int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    pair *p = &made[n_made++];
    gdn_err err = {0};
    assert_true(n_made <= MOST);
    snprintf(p->name, sizeof p->name, "%s", name);
    gdn_tensor t = gdn_tensor_dense(NULL, 0, type, ndim, shape);
    if (ndim > 1) t.stride[0] += gap;
    p->bytes = (uint64_t)(shape[0] * t.stride[0] + 64);
    char *data = malloc(p->bytes);
    assert_non_null(data);
    for (uint64_t i = 0; i < p->bytes / (uint64_t)gdn_type_bytes(type); i++) {
        const float x = uniform(lo, hi);
        const uint16_t h = bf16(x);
        if (gdn_type_bytes(type) == 4) memcpy(data + 4 * i, &x, 4);
        else memcpy(data + 2 * i, &h, 2);
    }
    for (int i = 0; i < N_SIDE; i++) {
        p->t[i] = t;
        must(gdn_buffer_alloc(device[i], p->bytes, &p->t[i].buf, &err), &err);
    }
    put(p, data);
    free(data);
    return p;
}

static pair *indices(const char *name, int32_t n, const int32_t *v) {
    pair *p = make(name, GDN_I32, 0, 0, 0, 1, n, 0, 0, 0);
    int32_t all[256] = {0};
    assert_true(p->bytes <= sizeof all);
    memcpy(all, v, (size_t)n * sizeof *v);
    put(p, all);
    return p;
}

static char *get(const pair *p, int side) {
    gdn_err err = {0};
    char *data = malloc(p->bytes);
    assert_non_null(data);
    must(gdn_queue_read(queue[side], data, p->t[side].buf, 0, p->bytes, &err), &err);
    must(gdn_queue_wait(queue[side], &err), &err);
    return data;
}

/* Both sides, within `bound` of the largest value. */
static void same(const pair *p, double bound) {
    char *a = get(p, CPU), *b = get(p, XPU);
    const uint64_t size = (uint64_t)gdn_type_bytes(p->t[CPU].type);
    double most = 1e-30, err = 0;
    uint64_t where = 0;
    for (uint64_t i = 0; i + size <= p->bytes; i += size) {
        const double x = number(a + i, p->t[CPU].type), y = number(b + i, p->t[CPU].type);
        if (memcmp(a + i, b + i, size) == 0) {
            if (fabs(x) > most && isfinite(x)) most = fabs(x);
            continue;
        }
        const double e = isfinite(x) && isfinite(y) ? fabs(x - y) : INFINITY;
        if (fabs(x) > most && isfinite(x)) most = fabs(x);
        if (e > err) err = e, where = i / size;
    }
    free(a), free(b);
    if (err > bound * most)
        fail_msg("%s: off by %g of %g, at element %llu", p->name, err, most,
                 (unsigned long long)where);
}

static void drop(void) {
    for (int k = 0; k < n_made; k++)
        for (int i = 0; i < N_SIDE; i++) gdn_buffer_free(made[k].t[i].buf);
    n_made = 0;
}

/* --- gdn_core ------------------------------------------------------------------------------- */

typedef struct {
    pair *core, *qkv, *b, *a, *conv, *ssm, *w, *bias, *A, *dt, *start, *slot, *has;
    pair *line, *index, *commit, *keep, *work, *gate;
    int32_t hk, dk;
} core_case;

enum { SLOTS = 6, LINES = 4, LINE = 4 };

static core_case core_make(int32_t hk, int32_t r, int32_t dk, int32_t dv, int32_t W, gdn_type conv,
                           bool bias, int64_t n_row, int32_t n_seq) {
    const int64_t hv = hk * r, C = 2 * hk * dk + hv * dv;
    core_case k = {.hk = hk, .dk = dk};
    k.core = make("core", GDN_F32, 0, 0, 12, 3, n_row, hv, dv, 0);
    k.qkv = make("qkv", GDN_F32, -1, 1, 8, 2, n_row, C, 0, 0);
    k.b = make("b", GDN_F32, -2, 2, 8, 2, n_row, hv, 0, 0);
    k.a = make("a", GDN_F32, -3, 22, 8, 2, n_row, hv, 0, 0);
    k.conv = make("conv_state", conv, -1, 1, 32, 3, SLOTS, W - 1, C, 0);
    k.ssm = make("ssm_state", GDN_F32, -1, 1, 64, 4, SLOTS, hv, dv, dk);
    k.w = make("conv_w", GDN_F32, -1, 1, 0, 2, W, C, 0, 0);
    if (bias) k.bias = make("conv_bias", GDN_F32, -1, 1, 0, 1, C, 0, 0, 0);
    k.A = make("A_log", GDN_F32, -4, 0, 0, 1, hv, 0, 0, 0);
    k.dt = make("dt_bias", GDN_F32, -2, 2, 0, 1, hv, 0, 0, 0);
    k.line = make("line", GDN_F32, -1, 1, 4, 3, LINES, LINE, C + 2 * hv, 0);
    k.work = make("work_qkv", GDN_F32, 0, 0, 0, 2, n_row + n_seq * LINE, C, 0, 0);
    k.gate = make("work_gate", GDN_F32, 0, 0, 0, 3, n_row + n_seq * LINE, 2, hv, 0);
    return k;
}

static void core_same(const core_case *k) {
    same(k->core, 5e-6);
    same(k->ssm, 5e-6);
    same(k->conv, 0);
    same(k->line, 0);
}

/* A call on both sides, to the same results.  start and the rest: [n_seq + 1] and [n_seq]; commit
 * NULL: without lines; spare NULL: without it. */
static void core_run(core_case *k, int32_t n_seq, const int32_t *start, const int32_t *slot,
                     const int32_t *has, const int32_t *index, const int32_t *commit,
                     const int32_t *keep, const int32_t *spare) {
    const int first = n_made;
    pair *const i32[] = {indices("seq_start", n_seq + 1, start), indices("slot", n_seq, slot),
                         indices("has_state", n_seq, has)};
    const bool lines = commit != NULL;
    pair *l[4] = {0};
    gdn_err err = {0};
    if (lines) {
        l[0] = indices("line_index", n_seq, index);
        l[1] = indices("n_commit", n_seq, commit);
        l[2] = indices("keep", n_seq, keep);
        if (spare != NULL) l[3] = indices("spare", n_seq, spare);
    }
    for (int i = 0; i < N_SIDE; i++) {
        gdn_core_args a = {.core = k->core->t[i], .qkv = k->qkv->t[i], .b = k->b->t[i],
                           .a = k->a->t[i], .conv_state = k->conv->t[i],
                           .ssm_state = k->ssm->t[i], .conv_w = k->w->t[i],
                           .A_log = k->A->t[i], .dt_bias = k->dt->t[i],
                           .seq_start = i32[0]->t[i], .slot = i32[1]->t[i],
                           .has_state = i32[2]->t[i], .work_qkv = k->work->t[i],
                           .work_gate = k->gate->t[i], .hk = k->hk, .dk = k->dk};
        if (k->bias != NULL) a.conv_bias = k->bias->t[i];
        if (lines) {
            a.line = k->line->t[i];
            a.line_index = l[0]->t[i], a.n_commit = l[1]->t[i], a.keep = l[2]->t[i];
            if (spare != NULL) a.spare = l[3]->t[i];
        }
        const int64_t n_work = a.core.shape[0] + (lines ? n_seq * LINE : 0);
        a.work_qkv = gdn_tensor_slice(a.work_qkv, 0, 0, n_work);
        a.work_gate = gdn_tensor_slice(a.work_gate, 0, 0, n_work);
        must(gdn_op_gdn_core(queue[i], &a, &err), &err);
        must(gdn_queue_wait(queue[i], &err), &err);
    }
    core_same(k);
    while (n_made > first) {
        n_made--;
        for (int i = 0; i < N_SIDE; i++) gdn_buffer_free(made[n_made].t[i].buf);
    }
}

static void test_core(void **state) {
    (void)state;
    static const struct {
        int32_t hk, r, dk, dv, W;
        gdn_type conv;
        bool bias;
    } size[] = {{2, 2, 128, 128, 4, GDN_F32, false}, {1, 3, 40, 20, 2, GDN_BF16, true},
                {1, 1, 256, 9, 8, GDN_F32, true},    {2, 1, 8, 5, 3, GDN_BF16, false}};
    static const int32_t one[] = {0, 1, 2, 3}, slot[] = {3, 0, 4}, yes[] = {1, 1, 1};
    static const int32_t many[] = {0, 7, 7, 12}, some[] = {0, 1, 1}, line[] = {2, 0, 3};
    static const int32_t none[] = {0, 0, 0}, keep[] = {1, 0, 1};
    static const int32_t drafts[] = {0, 3, 4, 9}, commit[] = {2, 0, 4}, alone[] = {0, 0, 4, 4};
    static const int32_t spare[] = {5, -1, 1}, left[] = {5, 0, 1}, other[] = {-1, 2, 4};
    static const int32_t longer[] = {0, 2, 7}, both[] = {1, 1};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        core_case k = core_make(size[i].hk, size[i].r, size[i].dk, size[i].dv, size[i].W,
                                size[i].conv, size[i].bias, 12, 3);
        core_run(&k, 3, many, slot, some, NULL, NULL, NULL, NULL);
        core_run(&k, 3, one, slot, yes, NULL, NULL, NULL, NULL);
        core_run(&k, 3, drafts, slot, some, line, none, keep, NULL);
        core_run(&k, 3, drafts, slot, yes, line, commit, keep, spare);
        core_run(&k, 3, drafts, left, yes, line, none, keep, other);
        core_run(&k, 3, alone, left, yes, line, commit, none, NULL);
        /* Two sequences have more tokens each: in two launches. */
        core_run(&k, 2, drafts, slot, yes, line, commit, keep, spare);
        core_run(&k, 2, longer, left, some, line, none, both, other);
        core_run(&k, 2, longer, left, yes, line, (const int32_t[]){0, 4}, both, NULL);
        drop();
    }
}

/* Sequences that a convolution takes in blocks of tokens, beside others: of each length around a block,
 * fresh and not, behind what is committed, at every width. */
static void test_core_blocks(void **state) {
    (void)state;
    static const int32_t start[] = {0, 5, 101, 101, 134, 166, 167}, slot[] = {3, 0, 5, 4, 1, 2};
    static const int32_t some[] = {0, 1, 1, 0, 1, 0}, yes[] = {1, 1, 1, 1, 1, 1};
    static const int32_t pair_start[] = {0, 70, 167}, line[] = {2, 0}, commit[] = {3, 4};
    static const int32_t none[] = {0, 0};
    for (int32_t W = 2; W <= 8; W++) {
        core_case k = core_make(1, 2, 16, 12, W, W % 2 == 0 ? GDN_F32 : GDN_BF16, W % 3 == 0, 170, 6);
        core_run(&k, 6, start, slot, some, NULL, NULL, NULL, NULL);
        core_run(&k, 6, start, slot, yes, NULL, NULL, NULL, NULL);
        core_run(&k, 2, pair_start, slot, yes, line, commit, none, NULL);
        drop();
    }
}

/* Cut into calls and beside others: the same bits. */
static void test_core_cut(void **state) {
    (void)state;
    static const int32_t whole[] = {0, 9}, first[] = {0, 4};
    static const int32_t slot[] = {1, 2}, fresh[] = {0, 0}, yes[] = {1, 1};
    core_case k = core_make(2, 2, 64, 24, 4, GDN_F32, true, 12, 2);
    core_run(&k, 1, whole, slot, fresh, NULL, NULL, NULL, NULL);
    char *all = get(k.core, XPU), *state1 = get(k.ssm, XPU);
    core_run(&k, 1, first, slot, fresh, NULL, NULL, NULL, NULL);
    char *part = get(k.core, XPU);
    const uint64_t row = (uint64_t)k.core->t[XPU].stride[0];
    const uint64_t used = (uint64_t)(k.core->t[XPU].shape[1] * k.core->t[XPU].shape[2]) * 4;
    for (uint64_t i = 0; i < 4; i++) assert_memory_equal(all + i * row, part + i * row, used);
    free(part);
    /* The remaining five rows, moved to the front, with another sequence behind them. */
    char *x = get(k.qkv, XPU), *b = get(k.b, XPU), *a = get(k.a, XPU);
    memmove(x, x + 4 * k.qkv->t[0].stride[0], 5 * (size_t)k.qkv->t[0].stride[0]);
    memmove(b, b + 4 * k.b->t[0].stride[0], 5 * (size_t)k.b->t[0].stride[0]);
    memmove(a, a + 4 * k.a->t[0].stride[0], 5 * (size_t)k.a->t[0].stride[0]);
    put(k.qkv, x), put(k.b, b), put(k.a, a);
    static const int32_t rest[] = {0, 5, 12};
    core_run(&k, 2, rest, slot, yes, NULL, NULL, NULL, NULL);
    part = get(k.core, XPU);
    for (uint64_t i = 0; i < 5; i++)
        assert_memory_equal(all + (4 + i) * row, part + i * row, used);
    char *state2 = get(k.ssm, XPU);
    const uint64_t slot_bytes = (uint64_t)k.ssm->t[XPU].stride[0];
    assert_memory_equal(state1 + slot_bytes, state2 + slot_bytes, slot_bytes - 64);
    free(all), free(part), free(state1), free(state2), free(x), free(b), free(a);
    drop();
}

/* --- gdn_attention -------------------------------------------------------------------------- */

/* A group of each kind, with all that can be wrong. */
typedef struct {
    int32_t start[3], slot[2], spec_start[3], spec_slot[2][3], accepted[2], row[4], spec_row[5];
} op_case;

static const op_case op_good = {
    {0, 1, 4}, {5, 0}, {0, 3, 5}, {{1, -1, 3}, {4, 0, 2}}, {3, 0}, {1, 3, 4, 7}, {8, 2, 0, 5, 6}};

enum { ROWS = 10, ACTUAL = 9, OP_SLOTS = 6, COLUMNS = 3 };

/* Slot 0 is none: of a plain sequence, and of columns that are not stored. */
static void attention_op(const op_case *k, gdn_type act, bool ds, const char *refused) {
    const int32_t nk = 1, nv = 2, dk = 16, dv = 12, W = 4, C = 2 * nk * dk + nv * dv, L = W + 1;
    const int first = refused != NULL ? XPU : CPU;
    int32_t spec_slot[6];
    gdn_err err = {0};
    memcpy(spec_slot, k->spec_slot, sizeof spec_slot);
    pair *core = make("core", act, -1, 1, 8, 3, ROWS, nv, dv, 0);
    pair *z = make("z", act, -1, 1, 8, 3, ROWS, nv, dv, 0);
    pair *qkvz = make("qkvz", act, -1, 1, 8, 2, ROWS, C + nv * dv, 0, 0);
    pair *ba = make("ba", act, -1, 1, 8, 2, ROWS, 2 * nv, 0, 0);
    pair *conv = make("conv_state", act, -1, 1, 16, 3, OP_SLOTS, ds ? C : L, ds ? L : C, 0);
    pair *ssm = make("ssm_state", GDN_F32, -1, 1, 64, 4, OP_SLOTS, nv, dv, dk);
    pair *w = make("conv_weights", act, -1, 1, 0, 2, C, W, 0, 0);
    pair *A = make("A_log", GDN_F32, -3, 0, 0, 1, nv, 0, 0, 0);
    pair *dt = make("dt_bias", act, -1, 1, 0, 1, nv, 0, 0, 0);
    pair *start = indices("start", 3, k->start), *slot = indices("slot", 2, k->slot);
    pair *row = indices("row", 4, k->row), *spec_row = indices("spec_row", 5, k->spec_row);
    pair *spec_start = indices("spec_start", 3, k->spec_start);
    pair *columns = indices("spec_slot", 6, spec_slot);
    pair *accepted = indices("accepted", 2, k->accepted);
    const int64_t table[] = {2, COLUMNS};
    for (int i = first; i < N_SIDE; i++) {
        const gdn_attention_args a = {
            .core = core->t[i], .z = z->t[i], .qkvz = qkvz->t[i], .ba = ba->t[i],
            .conv_state = conv->t[i], .ssm_state = ssm->t[i], .conv_weights = w->t[i],
            .A_log = A->t[i], .dt_bias = dt->t[i], .non_spec_query_start_loc = start->t[i],
            .non_spec_token_indx = row->t[i], .non_spec_state_indices = slot->t[i],
            .spec_query_start_loc = spec_start->t[i], .spec_token_indx = spec_row->t[i],
            .spec_state_indices = gdn_tensor_dense(columns->t[i].buf, 0, GDN_I32, 2, table),
            .num_accepted_tokens = accepted->t[i], .n_k_head = nk, .n_v_head = nv, .dk = dk,
            .dv = dv, .tp_size = 1, .num_actual_tokens = ACTUAL, .reorder_input = ds,
            .conv_layout = ds ? GDN_CONV_STATE_DS : GDN_CONV_STATE_SD};
        must(gdn_attention(queue[i], &a, &err), &err);
        if (refused == NULL) must(gdn_queue_wait(queue[i], &err), &err);
    }
    if (refused != NULL) {
        assert_int_equal(gdn_queue_wait(queue[XPU], &err), GDN_E_INVALID);
        if (strstr(err.text, refused) == NULL) fail_msg("'%s' does not say '%s'", err.text, refused);
        char *before = get(ssm, CPU), *after = get(ssm, XPU); /* slot 0 is nobody's */
        assert_memory_equal(before, after, (size_t)ssm->t[CPU].stride[0]);
        free(before), free(after);
    } else {
        same(core, act == GDN_F32 ? 5e-6 : 1e-2);
        same(ssm, act == GDN_F32 ? 5e-6 : 1e-3);
        same(z, 0);
        same(conv, 0);
    }
    drop();
}

static void test_operator(void **state) {
    (void)state;
    attention_op(&op_good, GDN_F32, false, NULL);
    attention_op(&op_good, GDN_BF16, true, NULL);
    op_case k = op_good;
    k.start[1] = 5;
    attention_op(&k, GDN_F32, false, "query_start_loc[1] is 5");
    k = op_good, k.slot[0] = OP_SLOTS;
    attention_op(&k, GDN_F32, false, "state_indices[0] is 6");
    k = op_good, k.spec_start[1] = 4;
    attention_op(&k, GDN_F32, false, "sequence 0 has 4 tokens");
    k = op_good, k.accepted[1] = COLUMNS + 1;
    attention_op(&k, GDN_F32, false, "num_accepted_tokens[1] is 4");
    k = op_good, k.accepted[0] = 2;
    attention_op(&k, GDN_F32, false, "state_indices[0]: the state to be read is -1");
    k = op_good, k.spec_slot[0][1] = OP_SLOTS + 1;
    attention_op(&k, GDN_F32, false, "state_indices[0] is 7");
    k = op_good, k.row[2] = ACTUAL;
    attention_op(&k, GDN_F32, false, "token 2 is row 9");
    k = op_good, k.spec_row[1] = -2;
    attention_op(&k, GDN_F32, false, "token 1 is row -2");
}

/* --- recorded calls ------------------------------------------------------------------------- */

static void test_vectors(void **state) {
    (void)state;
    static const char folder[] = "tests/golden/op";
    DIR *dir = opendir(folder);
    int n = 0, failed = 0;
    assert_non_null(dir);
    for (struct dirent *f; (f = readdir(dir)) != NULL;) {
        if (strstr(f->d_name, ".safetensors") == NULL) continue;
        char path[512];
        gdn_op_vector_result r;
        gdn_err err = {0};
        snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
        must(gdn_op_vector_run(path, "xpu", NULL, &r, &err), &err);
        n++;
        failed += !r.pass;
        for (int k = 0; k < GDN_OP_N_FORM && !r.pass; k++)
            for (int i = 0; i < GDN_OP_N_OUTPUT; i++)
                print_error("%s %s %s: rel %g of %g, %lld differ, %lld stray\n", f->d_name,
                            gdn_op_form_name(k), gdn_op_output_name(i), r.form[k].out[i].rel_l2,
                            r.form[k].out[i].bound, (long long)r.form[k].out[i].n_differ,
                            (long long)r.form[k].n_stray);
    }
    closedir(dir);
    assert_int_equal(failed, 0);
    assert_true(n >= 21);
}

/* --- attention ------------------------------------------------------------------------------ */

enum { BLOCK = 32, PAGES = 30, MAX_BLOCK = 24 };

static void attention(int64_t hq, int64_t hkv, int64_t d, int64_t rot, gdn_type type, gdn_type y_type,
                      bool gated, bool refused) {
    /* Sequences of 3, 0 and 2 rows behind 700, 0 and 31 tokens. */
    static const int32_t start[] = {0, 3, 3, 5}, past[] = {700, 0, 31};
    int32_t page[3][MAX_BLOCK] = {{0}, {0}, {28, 3, -1}};
    const int64_t n_row = 6, heads = hq > hkv ? hq : hkv; /* a row more than there is work for */
    gdn_err err = {0};
    for (int32_t i = 0; i < MAX_BLOCK; i++) page[0][i] = i < 22 ? 4 + (i * 5 + 3) % 22 : 99;
    if (refused) page[0][3] = PAGES;
    pair *s = indices("seq_start", 4, start), *n = indices("n_past", 3, past);
    pair *pages = make("page", GDN_I32, 0, 0, 0, 2, 3, MAX_BLOCK, 0, 0);
    int32_t all[3 * MAX_BLOCK + 16] = {0};
    memcpy(all, page, sizeof page);
    put(pages, all);
    pair *q = make("q", GDN_F32, -1, 1, 16, 3, n_row, heads, d, 0);
    pair *kv = make("kv", GDN_F32, -1, 1, 16, 3, n_row, 2 * hkv, d, 0);
    pair *gate = make("gate", GDN_F32, -3, 3, 16, 3, n_row, hq, d, 0);
    pair *wq = make("q_norm", GDN_F32, 0, 2, 0, 1, d, 0, 0, 0);
    pair *wk = make("k_norm", GDN_F32, 0, 2, 0, 1, d, 0, 0, 0);
    pair *cs = make("cs", GDN_F32, -1, 1, 4, 2, n_row, rot, 0, 0);
    pair *q_out = make("q_out", type, -1, 1, 16, 3, n_row, hq, d, 0);
    /* Keys and values of a page beside each other. */
    pair *pool = make("pool", type, -1, 1, 64, 4, PAGES, 2 * hkv, BLOCK, d);
    pair *y = make("y", y_type, 0, 0, 16, 3, n_row, hq, d, 0);
    for (int i = refused ? XPU : CPU; i < N_SIDE; i++) {
        const gdn_kv_layout kv_layout = {.seq_start = s->t[i], .n_past = n->t[i],
                                         .page = pages->t[i], .block_size = BLOCK};
        gdn_attn_store_args a = {.q_out = q_out->t[i],
                                 .k_page = gdn_tensor_slice(pool->t[i], 1, 0, hkv),
                                 .v_page = gdn_tensor_slice(pool->t[i], 1, hkv, 2 * hkv),
                                 .q = gdn_tensor_slice(q->t[i], 1, 0, hq),
                                 .k = gdn_tensor_slice(kv->t[i], 1, 0, hkv),
                                 .v = gdn_tensor_slice(kv->t[i], 1, hkv, 2 * hkv),
                                 .q_norm = wq->t[i], .k_norm = wk->t[i], .cs = cs->t[i],
                                 .kv = kv_layout, .eps = 1e-6f};
        must(gdn_op_attn_store(queue[i], &a, &err), &err);
        gdn_attn_args b = {.y = y->t[i], .q = q_out->t[i], .k_page = a.k_page, .v_page = a.v_page,
                           .kv = kv_layout, .scale = 0.2f};
        if (gated) b.gate = gate->t[i];
        must(gdn_op_attn(queue[i], &b, &err), &err);
        if (!refused) must(gdn_queue_wait(queue[i], &err), &err);
    }
    if (refused) {
        assert_int_equal(gdn_queue_wait(queue[XPU], &err), GDN_E_INVALID);
        assert_non_null(strstr(err.text, "page"));
        assert_non_null(strstr(err.text, "30"));
    } else {
        const double bound = type == GDN_F32 ? 2e-6 : 4e-3;
        same(q_out, bound);
        same(pool, bound);
        same(y, type == GDN_F32 && y_type == GDN_F32 ? 5e-6 : 1e-2);
    }
    drop();
}

static void test_attention(void **state) {
    (void)state;
    attention(4, 2, 64, 32, GDN_F32, GDN_F32, true, false);
    attention(6, 1, 40, 8, GDN_BF16, GDN_F32, false, false);
    attention(2, 2, 256, 64, GDN_BF16, GDN_BF16, true, false);
    attention(9, 1, 8, 0, GDN_F32, GDN_BF16, false, false);
}

/* Rows of two sequences in tiles, behind n_past and no tokens, against the cpu's, and each of some rows
 * alone: the same bits.  Keys and values begin `off` elements into rows that are longer. */
static void attention_alone(int64_t hq, int64_t hkv, int64_t d, gdn_type type, bool gated,
                            int32_t n_past, int64_t off) {
    enum { MANY = 83, FEW = 30, ROWS_ALL = MANY + FEW, MAX_TABLE = 100 };
    static const int32_t start[] = {0, MANY, ROWS_ALL}, one[] = {0, 1};
    static const int32_t row[] = {0, 3, 31, 32, MANY - 1, MANY, MANY + 17, ROWS_ALL - 1};
    const int32_t past[] = {n_past, 0}, n_table = (n_past + MANY) / BLOCK + 3;
    int32_t page[2 * MAX_TABLE];
    gdn_err err = {0};
    assert_true(n_table <= MAX_TABLE && n_table % 7 != 0);
    for (int32_t i = 0; i < 2 * n_table; i++) page[i] = (i * 7 + 2) % (2 * n_table);
    pair *s = indices("seq_start", 3, start), *n = indices("n_past", 2, past);
    pair *s_one = indices("seq_start", 2, one);
    pair *pages = indices("page", 2 * n_table, page);
    pair *q = make("q", type, -1, 1, 32, 3, ROWS_ALL, hq, d, 0);
    pair *gate = make("gate", GDN_F32, -3, 3, 16, 3, ROWS_ALL, hq, d, 0);
    pair *pool = make("pool", type, -1, 1, 64, 4, 2 * n_table, 2 * hkv, BLOCK, d + off);
    pair *y = make("y", GDN_F32, 0, 0, 16, 3, ROWS_ALL, hq, d, 0);
    pair *y_one = make("y", GDN_F32, 0, 0, 16, 3, 1, hq, d, 0);
    const int64_t table[] = {2, n_table};
    gdn_attn_args a[N_SIDE];
    for (int i = 0; i < N_SIDE; i++) {
        a[i] = (gdn_attn_args){.y = y->t[i], .q = q->t[i], .scale = 0.3f,
                               .k_page = gdn_tensor_slice(pool->t[i], 1, 0, hkv),
                               .v_page = gdn_tensor_slice(pool->t[i], 1, hkv, 2 * hkv)};
        a[i].k_page = gdn_tensor_slice(a[i].k_page, 3, off, off + d);
        a[i].v_page = gdn_tensor_slice(a[i].v_page, 3, off, off + d);
        if (gated) a[i].gate = gate->t[i];
        a[i].kv = (gdn_kv_layout){.seq_start = s->t[i], .n_past = n->t[i],
                                  .page = gdn_tensor_dense(pages->t[i].buf, 0, GDN_I32, 2, table),
                                  .block_size = BLOCK};
        must(gdn_op_attn(queue[i], &a[i], &err), &err);
    }
    same(y, type == GDN_F32 ? 5e-6 : 1e-2);
    char *all = get(y, XPU);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const int seq = row[i] >= MANY;
        const int32_t before[] = {past[seq] + row[i] - start[seq]};
        const int first = n_made;
        gdn_attn_args b = a[XPU];
        b.y = y_one->t[XPU];
        b.q = gdn_tensor_slice(b.q, 0, row[i], row[i] + 1);
        if (gated) b.gate = gdn_tensor_slice(b.gate, 0, row[i], row[i] + 1);
        b.kv.page = gdn_tensor_slice(b.kv.page, 0, seq, seq + 1);
        b.kv.seq_start = s_one->t[XPU];
        b.kv.n_past = indices("n_past", 1, before)->t[XPU];
        must(gdn_op_attn(queue[XPU], &b, &err), &err);
        char *alone = get(y_one, XPU);
        assert_memory_equal(all + row[i] * y->t[XPU].stride[0], alone, (size_t)(hq * d) * 4);
        free(alone);
        while (n_made > first) {
            n_made--;
            for (int k = 0; k < N_SIDE; k++) gdn_buffer_free(made[n_made].t[k].buf);
        }
    }
    free(all);
    drop();
}

static void test_attention_alone(void **state) {
    (void)state;
    attention_alone(1, 1, 24, GDN_F32, false, 480, 0);
    attention_alone(8, 1, 256, GDN_BF16, true, 480, 0);
    attention_alone(6, 2, 64, GDN_F32, true, 480, 0);
    attention_alone(18, 2, 136, GDN_BF16, false, 480, 0);
    attention_alone(4, 2, 40, GDN_BF16, true, 480, 4); /* rows on 8 bytes, not on 16 */
    attention_alone(5, 1, 72, GDN_BF16, true, 480, 1);
    attention_alone(3, 1, 8, GDN_F32, true, 480, 3);
    attention_alone(2, 1, 16, GDN_BF16, true, 2700, 0); /* blocks of keys in more than one fetch */
}

/* --- experts -------------------------------------------------------------------------------- */

static gdn_weight *weight(int side, gdn_type type, int32_t n_expert, int32_t n, int32_t k,
                          const void *data, const float *scale) {
    gdn_weight_part part[8];
    gdn_weight *w = NULL;
    gdn_err err = {0};
    const int64_t row = (int64_t)k * gdn_type_bytes(type);
    for (int32_t e = 0; e < n_expert; e++)
        part[e] = (gdn_weight_part){.data = (const char *)data + e * n * row,
                                    .n_row = n,
                                    .row_bytes = row,
                                    .scale = scale,
                                    .scale_type = GDN_F32};
    const gdn_weight_desc desc = {.type = type, .n_expert = n_expert, .n = n, .k = k,
                                  .scale_rows = 16, .scale_cols = 16, .part = part, .n_part = 1};
    must(gdn_weight_create(device[side], &desc, &w, &err), &err);
    return w;
}

static void experts(gdn_type type, int32_t n_row, int32_t top, int32_t n_expert, int32_t d,
                    int32_t n) {
    gdn_err err = {0};
    const int64_t n_pair = (int64_t)n_row * top, bytes = (int64_t)n_expert * 2 * n * d;
    char *data = malloc((size_t)bytes * 4);
    float scale[256];
    assert_non_null(data);
    for (int64_t i = 0; i < bytes; i++) {
        const float x = uniform(-0.3f, 0.3f);
        const uint16_t h = bf16(x);
        const unsigned char f8 = (unsigned char)(below(2) << 7 | below(0x50));
        if (type == GDN_F32) memcpy(data + 4 * i, &x, 4);
        else if (type == GDN_BF16) memcpy(data + 2 * i, &h, 2);
        else data[i] = (char)f8;
    }
    for (int i = 0; i < 256; i++) scale[i] = uniform(0.1f, 0.3f);
    pair *logits = make("logits", GDN_F32, -2, 2, 8, 2, n_row, n_expert, 0, 0);
    pair *expert = make("expert", GDN_I32, 0, 0, 0, 2, n_row, top, 0, 0);
    pair *w = make("weight", GDN_F32, 0, 0, 0, 2, n_row, top, 0, 0);
    pair *x = make("x", GDN_F32, -1, 1, 0, 2, n_row, d, 0, 0);
    pair *e = make("e", GDN_F32, 0, 0, 0, 3, n_row, top, d, 0);
    pair *gu = make("work_gu", GDN_F32, 0, 0, 0, 2, n_pair, 2 * n, 0, 0);
    pair *h = make("work_h", GDN_F32, 0, 0, 0, 2, n_pair, n, 0, 0);
    pair *index = make("work_index", GDN_I32, 0, 0, 0, 1, 2 * n_pair + n_expert + 1, 0, 0, 0);
    pair *shared = make("shared", GDN_F32, -1, 1, 8, 2, n_row, d, 0, 0);
    pair *gate = make("gate", GDN_F32, -1, 1, 8, 2, n_row, 1, 0, 0);
    pair *y = make("y", GDN_F32, -1, 1, 8, 2, n_row, d, 0, 0);
    char *l = get(logits, CPU); /* equals, and one that is no number */
    const float nan_value = NAN;
    if (n_expert > 2) memcpy(l + 4, l, 4), memcpy(l + 8, &nan_value, 4);
    put(logits, l);
    free(l);
    for (int i = 0; i < N_SIDE; i++) {
        gdn_weight *gu_w = weight(i, type, n_expert, 2 * n, d, data, scale);
        gdn_weight *down = weight(i, type, n_expert, d, n, data, scale);
        const gdn_moe_route_op_args r = {expert->t[i], w->t[i], logits->t[i], n_row % 2 == 0};
        const gdn_moe_experts_args a = {.y = e->t[i], .x = x->t[i], .expert = expert->t[i],
                                        .gate_up = gu_w, .down = down, .work_gu = gu->t[i],
                                        .work_h = h->t[i], .work_index = index->t[i]};
        gdn_moe_combine_op_args c = {.y = y->t[i], .e = e->t[i], .weight = w->t[i]};
        if (n_row > 1) c.shared = shared->t[i], c.gate = gate->t[i];
        must(gdn_op_moe_route(queue[i], &r, &err), &err);
        must(gdn_op_moe_experts(queue[i], &a, &err), &err);
        must(gdn_op_moe_combine(queue[i], &c, &err), &err);
        must(gdn_queue_wait(queue[i], &err), &err);
        gdn_weight_free(gu_w);
        gdn_weight_free(down);
    }
    free(data);
    same(expert, 0);
    same(w, 1e-6);
    same(e, 5e-6);
    same(y, 5e-6);
    drop();
}

static void test_experts(void **state) {
    (void)state;
    experts(GDN_F32, 1, 1, 1, 8, 8);
    experts(GDN_F32, 40, 3, 5, 72, 40);
    experts(GDN_BF16, 7, 2, 8, 64, 32);
    experts(GDN_F8, 6, 8, 8, 48, 48);
}

/* --- what only the device can see ----------------------------------------------------------- */

static void test_faults(void **state) {
    (void)state;
    static const struct {
        int32_t start[3], slot[2], has[2], index[2], commit[2], keep[2], spare;
        const char *words;
    } bad[] = {
        {{0, 2, 4}, {1, SLOTS}, {1, 1}, {0, 1}, {0, 0}, {0, 0}, -1, "slot[1] is 6"},
        {{0, 2, 99}, {1, 2}, {1, 1}, {0, 1}, {0, 0}, {0, 0}, -1, "seq_start[2] is 99"},
        {{0, 2, 4}, {1, 2}, {1, 1}, {0, 1}, {0, LINE + 1}, {0, 0}, -1, "n_commit[1] is 5"},
        {{0, 2, 4}, {1, 2}, {1, 0}, {0, 1}, {0, 1}, {0, 0}, -1, "n_commit[1] is 1"},
        {{0, 2, 4}, {1, 2}, {1, 1}, {0, -1}, {0, 1}, {0, 0}, -1, "line_index[1] is -1"},
        {{0, 2, 8}, {1, 2}, {1, 1}, {0, 1}, {0, 0}, {0, 1}, -1, "sequence 1 has 5 guesses"},
        {{0, 2, 4}, {1, 2}, {1, 1}, {0, 1}, {0, 0}, {0, 1}, 2, "spare[1] is 2"},
        {{0, 2, 4}, {1, 2}, {1, 1}, {0, 1}, {0, 0}, {0, 1}, SLOTS, "spare[1] is 6"},
        {{0, 2, 4}, {1, 2}, {1, 1}, {0, 1}, {0, 0}, {0, 1}, -2, "spare[1] is -2"},
    };
    gdn_err err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        core_case k = core_make(1, 1, 8, 8, 4, GDN_F32, false, 12, 2);
        gdn_core_args a = {.core = k.core->t[XPU], .qkv = k.qkv->t[XPU], .b = k.b->t[XPU],
                           .a = k.a->t[XPU], .conv_state = k.conv->t[XPU],
                           .ssm_state = k.ssm->t[XPU], .conv_w = k.w->t[XPU],
                           .A_log = k.A->t[XPU], .dt_bias = k.dt->t[XPU], .line = k.line->t[XPU],
                           .work_qkv = k.work->t[XPU], .work_gate = k.gate->t[XPU], .hk = k.hk,
                           .dk = k.dk};
        a.seq_start = indices("seq_start", 3, bad[i].start)->t[XPU];
        a.slot = indices("slot", 2, bad[i].slot)->t[XPU];
        a.has_state = indices("has_state", 2, bad[i].has)->t[XPU];
        a.line_index = indices("line_index", 2, bad[i].index)->t[XPU];
        a.n_commit = indices("n_commit", 2, bad[i].commit)->t[XPU];
        a.keep = indices("keep", 2, bad[i].keep)->t[XPU];
        a.spare = indices("spare", 2, (const int32_t[]){bad[i].spare, bad[i].spare})->t[XPU];
        must(gdn_op_gdn_core(queue[XPU], &a, &err), &err);
        assert_int_equal(gdn_queue_wait(queue[XPU], &err), GDN_E_INVALID);
        if (strstr(err.text, bad[i].words) == NULL)
            fail_msg("'%s' does not say '%s'", err.text, bad[i].words);
        must(gdn_queue_wait(queue[XPU], &err), &err);
        /* The other sequence ran; slots of neither kept their bytes. */
        char *before = get(k.ssm, CPU), *after = get(k.ssm, XPU);
        const size_t slot = (size_t)k.ssm->t[XPU].stride[0];
        assert_memory_not_equal(before + slot, after + slot, slot);
        assert_memory_equal(before + 2 * slot, after + 2 * slot, 4 * slot);
        free(before), free(after);
        drop();
    }
    attention(4, 2, 64, 32, GDN_F32, GDN_F32, true, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_core),    cmocka_unit_test(test_core_cut),
        cmocka_unit_test(test_core_blocks),
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_attention),
        cmocka_unit_test(test_experts), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_attention_alone), cmocka_unit_test(test_operator),
    };
    int st = opencl_begin();
    if (st != 0) return st;
    st = cmocka_run_group_tests(tests, open_devices, close_devices);
    opencl_end();
    return st;
}
