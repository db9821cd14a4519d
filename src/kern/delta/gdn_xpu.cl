/* gdn_xpu.cl - Gated DeltaNet on the device: convolution, gates and delta rule, for gdn_core and for
 * gdn_attention with its two stages.  Equations: conv.h, delta.h; contracts: op.h.
 *
 * Long sequences take two launches.  In the convolution a work-item is one channel of up to CONV_TOKENS
 * tokens of one sequence, with the last inputs in registers.  The item that has the sequence's first
 * tokens reads and writes that channel's state, nobody else does.  Work-items behind the channels do
 * what else there is per token: gates, or copies of z, b and a.  In the delta rule a work-group has a
 * few rows of one head's state.
 *
 * Few tokens take one (core_step): a work-group is a key head with its value heads, of one sequence,
 * and convolves its own channels into local memory.
 *
 * A row of a state is shared by `lanes` items that hold up to 16 of its elements: item p has those
 * from 4 p, 4 (p + lanes), .. on, four at a time.  A token takes one pass over the row: with the raw
 * query and key
 *
 *     d = beta (v - alpha rk S k)      S' = alpha S + d rk k      o = rq (alpha S q + d rk k q)
 *
 * where rk and rq are the norms' factors, so that the five sums S k, S q, k k, q q, k q need one
 * barrier together.  Local memory has two sets that tokens use in turn.
 *
 * What a sequence is (rows, slot, ..) lies in device memory.  Every work-item looks at it itself, and
 * all come to the same answer; a sequence with an index out of range is left alone. */

enum {
    TAPS = 8,    /* of the convolution, at most; fewer ones lie at the end of the window */
    QUADS = 4,   /* of a row's elements in one item, four each */
    LANES = 16,  /* items of a row at most: rows of up to 256  */
    AHEAD = 8,   /* tokens whose inputs a convolution loads together */
    CONV_TOKENS = 32, /* of an item of one, XPU_GDN_CONV_TOKENS on the host; AHEAD and TAPS at least */
    ITEMS = 128, /* of a work-group at most, XPU_GDN_ITEMS on the host */
    STEP_ITEMS = 256, /* of core_step's, XPU_GDN_STEP_ITEMS         */
    SET = 2 * ITEMS + 3 * LANES,
    STEP_SET = 2 * STEP_ITEMS + 3 * LANES
};

/* --- convolution: one channel's window ------------------------------------------------------ */

inline float answer(const float *u, const float *w, float bias, int W) {
    float s = bias;
    for (int j = 0; j < TAPS; j++)
        if (j >= TAPS - W) s = fma(w[j], u[j], s);
    return silu(s);
}

inline void push(float *u, float x) {
    for (int j = 0; j + 1 < TAPS; j++) u[j] = u[j + 1];
    u[TAPS - 1] = x;
}

/* What group i of a convolution over n_seq sequences has: the first tokens of sequence i, or those from
 * the returned one on of another sequence (-1: of none).  Sequence s has its groups of later tokens
 * from start[s] / CONV_TOKENS on; starts that are wrong lead to some sequence, which is looked at. */
inline int conv_first(const __global int *start, int n_seq, int i, int *s) {
    *s = i;
    if (i < n_seq) return 0;
    int lo = 0, hi = n_seq;
    i -= n_seq;
    while (lo + 1 < hi) { /* the last that has them from i or before on */
        const int mid = lo + (hi - lo) / 2;
        if (start[mid] / CONV_TOKENS <= i) lo = mid;
        else hi = mid;
    }
    *s = lo;
    const int behind = i - start[lo] / CONV_TOKENS;
    return behind < 0 || start[lo] < 0 ? -1 : (behind + 1) * CONV_TOKENS;
}

/* --- delta rule: one token ------------------------------------------------------------------ */

inline float decay(float a, float A_log, float dt_bias) {
    const float x = a + dt_bias;
    const float softplus = x >= 20.0f ? x : log1p(exp(x));
    return exp(-exp(A_log) * softplus);
}

inline float dot4(float4 x, float4 y, float sum) {
    return fma(x.w, y.w, fma(x.z, y.z, fma(x.y, y.y, fma(x.x, y.x, sum))));
}

/* Item `p` of `lanes` in row `r` of a work-group of `items` at most; S, k and q are its elements,
 * zeros beyond the row's end.  Returns the output, the same in all items of the row. */
inline float step(float4 *S, const float4 *k, const float4 *q, float v, float alpha, float beta,
                  float scale, __local float *set, int p, int r, int lanes, int items) {
    float sk = 0, sq = 0, kk = 0, qq = 0, kq = 0;
    for (int j = 0; j < QUADS; j++) {
        sk = dot4(S[j], k[j], sk);
        sq = dot4(S[j], q[j], sq);
        kk = dot4(k[j], k[j], kk);
        qq = dot4(q[j], q[j], qq);
        kq = dot4(k[j], q[j], kq);
    }
    __local float *of_row = set + 2 * r * lanes, *all = set + 2 * items;
    of_row[p] = sk;
    of_row[lanes + p] = sq;
    if (r == 0) {
        all[p] = kk;
        all[LANES + p] = qq;
        all[2 * LANES + p] = kq;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    sk = sq = kk = qq = kq = 0;
    for (int i = 0; i < lanes; i++) {
        sk += of_row[i];
        sq += of_row[lanes + i];
        kk += all[i];
        qq += all[LANES + i];
        kq += all[2 * LANES + i];
    }
    const float rk = 1.0f / sqrt(kk + 1e-6f), rq = scale / sqrt(qq + 1e-6f);
    const float d = beta * (v - alpha * (rk * sk)) * rk;
    for (int j = 0; j < QUADS; j++) S[j] = fma(d, k[j], alpha * S[j]);
    return rq * fma(alpha, sq, d * kq);
}

/* Elements of item p of a row of n, a multiple of 4.  whole: f32 rows lie on 16 bytes. */
inline void row_in(float4 *to, const __global void *row, int type, int whole, int p, int lanes,
                   int n) {
    for (int j = 0; j < QUADS; j++) {
        const int i = 4 * (p + j * lanes);
        if (i >= n) to[j] = 0.0f;
        else if (whole && type == TYPE_F32) to[j] = *(const __global float4 *)((const __global float *)row + i);
        else
            to[j] = (float4)(load_as(type, row, i), load_as(type, row, i + 1),
                             load_as(type, row, i + 2), load_as(type, row, i + 3));
    }
}
inline void row_out(__global void *row, const float4 *from, int type, int whole, int p, int lanes,
                    int n) {
    for (int j = 0; j < QUADS; j++) {
        const int i = 4 * (p + j * lanes);
        if (i >= n) continue;
        if (whole && type == TYPE_F32) {
            *(__global float4 *)((__global float *)row + i) = from[j];
            continue;
        }
        store_as(type, row, i, from[j].x);
        store_as(type, row, i + 1, from[j].y);
        store_as(type, row, i + 2, from[j].z);
        store_as(type, row, i + 3, from[j].w);
    }
}
inline void row_local(float4 *to, const __local float *row, int p, int lanes, int n) {
    for (int j = 0; j < QUADS; j++) {
        const int i = 4 * (p + j * lanes);
        to[j] = i < n ? vload4(0, row + i) : (float4)0.0f;
    }
}

/* --- gdn_core: a sequence ------------------------------------------------------------------- */

typedef struct {
    long slot, line, spare;
    int start, n, n_commit;
    bool has_state, guesses, leave, skip; /* guesses: rows behind the first; leave: in spare */
} core_seq;

#define CORE_SEQ                                                                            \
    TENSOR(seq_start), TENSOR(slot), TENSOR(has_state), TENSOR(line_index), TENSOR(n_commit), \
        TENSOR(keep), TENSOR(spare), int n_row, int slots, int n_line, int K, int has_spare
#define CORE_SEQ_HERE                                                                      \
    fault_, AT0(int, seq_start), AT0(int, slot), AT0(int, has_state), AT0(int, line_index), \
        AT0(int, n_commit), AT0(int, keep), AT0(int, spare), n_row, slots, n_line, K, has_spare

/* tell: this item reports what is wrong. */
inline core_seq core_sequence(FAULTS, const __global int *start, const __global int *slot,
                              const __global int *has_state, const __global int *line,
                              const __global int *commit, const __global int *keep,
                              const __global int *spare, int n_row, int slots, int n_line, int K,
                              int has_spare, int s, bool tell) {
    core_seq q = {0};
    q.start = start[s];
    q.n = start[s + 1] - q.start;
    q.slot = slot[s];
    q.has_state = has_state[s] != 0;
    q.n_commit = K > 0 ? commit[s] : 0;
    q.guesses = K > 0 && keep[s] != 0 && q.n > 1;
    q.spare = has_spare && q.guesses ? spare[s] : -1;
    q.leave = q.spare != -1;
    q.skip = true;
    if (q.start < 0 || start[s + 1] < q.start || start[s + 1] > n_row || (s == 0 && q.start != 0)) {
        if (tell) FAULT(CORE_START, s + 1, start[s + 1]);
    } else if (q.slot < 0 || q.slot >= slots) {
        if (tell) FAULT(CORE_SLOT, s, slot[s]);
    } else if (q.n_commit < 0 || q.n_commit > K || (q.n_commit > 0 && !q.has_state)) {
        if (tell) FAULT(CORE_COMMIT, s, q.n_commit);
    } else if (q.guesses && (keep[s] != 1 || q.n > K + 1)) {
        if (tell) FAULT(CORE_KEEP, s, q.n - 1);
    } else if ((q.guesses || q.n_commit > 0) && (line[s] < 0 || line[s] >= n_line)) {
        if (tell) FAULT(CORE_LINE, s, line[s]);
    } else if (q.leave && (q.spare < 0 || q.spare >= slots || q.spare == q.slot)) {
        if (tell) FAULT(CORE_SPARE, s, spare[s]);
    } else {
        q.line = q.guesses || q.n_commit > 0 ? line[s] : 0;
        q.skip = q.n == 0 && q.n_commit == 0;
    }
    return q;
}

/* --- gdn_core: convolution and gates -------------------------------------------------------- */

/* The channel's window to rows 0 .. W - 2 of its state. */
inline void put_window(__global uchar *state, long row_bytes, long c, int type, const float *u,
                       int W) {
    for (int j = 0; j < TAPS; j++)
        if (j > TAPS - W) store_as(type, state + (j - (TAPS - W) - 1) * row_bytes, c, u[j]);
}

/* That window, zeros when none is stored, and the channel's taps, which lie at the end. */
inline void get_window(const __global uchar *state, long row_bytes, long c, int type, bool stored,
                       const __global float *taps, int C, float *u, float *w, int W) {
    for (int j = 0; j < TAPS; j++) {
        const int tap = j - (TAPS - W);
        w[j] = tap >= 0 ? taps[(long)tap * C + c] : 0.0f;
        u[j] = tap >= 1 && stored ? load_as(type, state + (tap - 1) * row_bytes, c) : 0.0f;
    }
}

/* What a state of this type keeps of an input. */
inline float kept(int type, float x) {
    return type == TYPE_BF16 ? bf16_to_f32(f32_to_bf16(x)) : x;
}

__kernel void core_conv(FAULTS, CORE_SEQ, TENSOR1(work_qkv), TENSOR1(qkv), TENSOR1(work_gate),
                        TENSOR1(b), TENSOR1(a), TENSOR2(conv_state), TENSOR(conv_w),
                        TENSOR(conv_bias), TENSOR(A_log), TENSOR(dt_bias), TENSOR2(line), int C,
                        int hv, int W, int type, int has_bias, int n_seq) {
    const int c = get_global_id(0);
    if (c >= C + hv) return;
    int s;
    const int from = conv_first(AT0(int, seq_start), n_seq, get_global_id(1), &s);
    if (from < 0) return;
    const core_seq q = core_sequence(CORE_SEQ_HERE, s, c == 0 && from == 0);
    if (q.skip || (from > 0 && (q.guesses || from >= q.n))) return;
    const int to = q.guesses ? q.n : min(q.n, from + CONV_TOKENS);
    const int commits = from == 0 ? q.n_commit : 0;
    const int behind = n_row + s * K; /* work rows of what is committed */

    if (c >= C) {
        const int h = c - C;
        const float A = AT0(float, A_log)[h], dt = AT0(float, dt_bias)[h];
        for (int i = 0; i < commits; i++) {
            const __global float *ba = AT2(float, line, q.line, i) + C;
            __global float *gate = AT1(float, work_gate, behind + i);
            gate[h] = decay(ba[hv + h], A, dt);
            gate[hv + h] = sigmoid(ba[h]);
        }
        for (int i = from; i < to; i++) {
            const float raw_b = AT1(float, b, q.start + i)[h], raw_a = AT1(float, a, q.start + i)[h];
            __global float *gate = AT1(float, work_gate, q.start + i);
            gate[h] = decay(raw_a, A, dt);
            gate[hv + h] = sigmoid(raw_b);
            if (!q.guesses || i == 0) continue;
            __global float *ba = AT2(float, line, q.line, i - 1) + C;
            ba[h] = raw_b;
            ba[hv + h] = raw_a;
        }
        return;
    }

    __global uchar *state = AT1(uchar, conv_state, q.slot);
    const float bias = has_bias ? AT0(float, conv_bias)[c] : 0.0f;
    float u[TAPS], w[TAPS];
    get_window(state, conv_state_s1, c, type, q.has_state && from == 0, AT0(float, conv_w), C, u, w, W);
    if (from > 0)
        for (int j = 0; j < TAPS; j++)
            if (j > TAPS - W) u[j] = kept(type, AT1(float, qkv, q.start + from - TAPS + j)[c]);
    for (int i = 0; i < commits; i++) {
        push(u, kept(type, AT2(float, line, q.line, i)[c]));
        AT1(float, work_qkv, behind + i)[c] = answer(u, w, bias, W);
    }
    for (int first = from; first < to; first += AHEAD) {
        float x[AHEAD];
        for (int i = 0; i < AHEAD; i++) x[i] = AT1(float, qkv, q.start + min(first + i, to - 1))[c];
        for (int i = 0; i < AHEAD; i++) {
            if (first + i >= to) break;
            push(u, kept(type, x[i]));
            AT1(float, work_qkv, q.start + first + i)[c] = answer(u, w, bias, W);
            if (!q.guesses) continue;
            if (first + i == 0) put_window(state, conv_state_s1, c, type, u, W);
            else AT2(float, line, q.line, first + i - 1)[c] = x[i];
        }
    }
    if (from > 0) return;
    for (int j = 0; j < TAPS; j++)
        if (to < q.n && j > TAPS - W) u[j] = AT1(float, qkv, q.start + q.n - TAPS + j)[c];
    if (q.leave) put_window(AT1(uchar, conv_state, q.spare), conv_state_s1, c, type, u, W);
    else if (!q.guesses) put_window(state, conv_state_s1, c, type, u, W);
}

/* --- gdn_core: delta rule ------------------------------------------------------------------- */

/* What a row of the state takes of a token. */
typedef struct {
    float4 k[QUADS], q[QUADS];
    float  v, alpha, beta;
} token;

inline void token_in(token *t, const __global float *qkv, const __global float *gate, int at_q,
                     int at_k, int at_v, int h, int hv, bool mine, int whole, int p, int lanes,
                     int dk) {
    row_in(t->q, qkv + at_q, TYPE_F32, whole, p, lanes, dk);
    row_in(t->k, qkv + at_k, TYPE_F32, whole, p, lanes, dk);
    t->v = mine ? qkv[at_v] : 0.0f;
    t->alpha = gate[h];
    t->beta = gate[hv + h];
}

__kernel void core_delta(FAULTS, CORE_SEQ, TENSOR2(core), TENSOR1(work_qkv), TENSOR1(work_gate),
                         TENSOR3(ssm_state), int hk, int hv, int dk, int dv, int lanes, int whole) {
    __local float sets[2 * SET];
    const int item = get_local_id(0), p = item % lanes, r = item / lanes;
    const int rows = (int)get_local_size(0) / lanes, v0 = (int)get_group_id(0) * rows;
    const int h = get_group_id(1), s = get_group_id(2), row = v0 + r;
    const core_seq q = core_sequence(CORE_SEQ_HERE, s, false);
    const int n = q.n_commit + q.n;
    if (q.skip || n == 0) return;
    const bool mine = row < dv;
    const int kh = h / (hv / hk), at_q = kh * dk, at_k = (hk + kh) * dk;
    const int at_v = 2 * hk * dk + h * dv + row;
    const float scale = 1.0f / sqrt((float)dk);
    __global float *state = AT3(float, ssm_state, q.slot, h, mine ? row : 0);
    float4 S[QUADS];
    token now, next;

#define WORK_ROW(i) ((i) < q.n_commit ? n_row + s * K + (i) : q.start + (i) - q.n_commit)
    row_in(S, state, TYPE_F32, whole, p, lanes, mine && q.has_state ? dk : 0);
    token_in(&now, AT1(float, work_qkv, WORK_ROW(0)), AT1(float, work_gate, WORK_ROW(0)), at_q, at_k,
             at_v, h, hv, mine, whole, p, lanes, dk);
    for (int i = 0; i < n; i++) {
        /* The next token's inputs are on their way while this one is folded in. */
        const int behind = min(i + 1, n - 1), own = i - q.n_commit;
        token_in(&next, AT1(float, work_qkv, WORK_ROW(behind)), AT1(float, work_gate, WORK_ROW(behind)),
                 at_q, at_k, at_v, h, hv, mine, whole, p, lanes, dk);
        if (own == 1 && q.guesses && mine) row_out(state, S, TYPE_F32, whole, p, lanes, dk);
        const float o = step(S, now.k, now.q, now.v, now.alpha, now.beta, scale, sets + i % 2 * SET,
                             p, r, lanes, ITEMS);
        if (own >= 0 && mine && p == 0) AT2(float, core, q.start + own, h)[row] = o;
        now = next;
    }
    if (!mine || (q.guesses && !q.leave)) return;
    row_out(q.leave ? AT3(float, ssm_state, q.spare, h, row) : state, S, TYPE_F32, whole, p, lanes, dk);
}

/* --- gdn_core: few tokens in one launch ----------------------------------------------------- */

/* The work-group's i-th channel: its queries, keys, values. */
inline int channel_of(int i, int kh, int hk, int dk, int values) {
    if (i < dk) return kh * dk + i;
    if (i < 2 * dk) return (hk + kh) * dk + i - dk;
    return 2 * hk * dk + kh * values + i - 2 * dk;
}

/* room: tokens at a time.  A sequence with more goes on from what its slot holds; one that keeps rows
 * has no more (2 K fit).  x: [room] of channels, decays, strengths. */
__kernel void core_step(FAULTS, CORE_SEQ, TENSOR2(core), TENSOR1(qkv), TENSOR1(b), TENSOR1(a),
                        TENSOR2(conv_state), TENSOR3(ssm_state), TENSOR(conv_w), TENSOR(conv_bias),
                        TENSOR(A_log), TENSOR(dt_bias), TENSOR2(line), int C, int hk, int hv, int dk,
                        int dv, int W, int type, int has_bias, int lanes, int whole, int room,
                        __local float *x) {
    __local float sets[2 * STEP_SET];
    const int item = get_local_id(0), items = get_local_size(0), kh = get_group_id(0);
    const int s = get_group_id(1), r = hv / hk, values = r * dv;
    const int channels = 2 * dk + values, token_size = channels + 2 * r;
    const core_seq q = core_sequence(CORE_SEQ_HERE, s, kh == 0 && item == 0);
    if (q.skip) return;
    const int n = q.n_commit + q.n;
    const float scale = 1.0f / sqrt((float)dk);
    const bool begins = !q.has_state;
    int turn = 0;

    for (int done = 0; done < n; done += room) {
        const int some = min(n - done, room);
        const bool stored = !begins || done > 0;
        /* Convolution: a channel is one item's, here and in its state. */
        for (int i = item; i < channels; i += items) {
            const int c = channel_of(i, kh, hk, dk, values);
            __global uchar *state = AT1(uchar, conv_state, q.slot);
            const float bias = has_bias ? AT0(float, conv_bias)[c] : 0.0f;
            float u[TAPS], w[TAPS];
            get_window(state, conv_state_s1, c, type, stored, AT0(float, conv_w), C, u, w, W);
            for (int t = 0; t < some; t++) {
                const int own = done + t - q.n_commit;
                const float in = own < 0 ? AT2(float, line, q.line, done + t)[c]
                                         : AT1(float, qkv, q.start + own)[c];
                push(u, kept(type, in));
                x[t * token_size + i] = answer(u, w, bias, W);
                if (!q.guesses || own < 0) continue;
                if (own == 0) put_window(state, conv_state_s1, c, type, u, W);
                else AT2(float, line, q.line, own - 1)[c] = in;
            }
            if (q.leave) put_window(AT1(uchar, conv_state, q.spare), conv_state_s1, c, type, u, W);
            else if (!q.guesses) put_window(state, conv_state_s1, c, type, u, W);
        }
        for (int i = item; i < some * r; i += items) {
            const int t = i / r, j = i % r, h = kh * r + j, own = done + t - q.n_commit;
            const __global float *ba = own < 0 ? AT2(float, line, q.line, done + t) + C : 0;
            const float raw_b = own < 0 ? ba[h] : AT1(float, b, q.start + own)[h];
            const float raw_a = own < 0 ? ba[hv + h] : AT1(float, a, q.start + own)[h];
            x[t * token_size + channels + j] = decay(raw_a, AT0(float, A_log)[h], AT0(float, dt_bias)[h]);
            x[t * token_size + channels + r + j] = sigmoid(raw_b);
        }
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        /* Guesses take the place of committed rows, which all items have read by now. */
        for (int i = q.guesses ? item : some * r; i < some * r; i += items) {
            const int own = done + i / r - q.n_commit, h = kh * r + i % r;
            if (own < 1) continue;
            AT2(float, line, q.line, own - 1)[C + h] = AT1(float, b, q.start + own)[h];
            AT2(float, line, q.line, own - 1)[C + hv + h] = AT1(float, a, q.start + own)[h];
        }

        /* Delta rule: as many rows at a time as there are lines of items; the next ones are on their
         * way meanwhile. */
        const int p = item % lanes, line_of = item / lanes, rows = items / lanes;
        const int strips = (dv + rows - 1) / rows;
        float4 S[QUADS], next[QUADS], k[QUADS], query[QUADS];
#define STATE_ROW(i) \
    AT3(float, ssm_state, q.slot, kh * r + (i) / strips, min((i) % strips * rows + line_of, dv - 1))
#define STATE_SIZE(i) ((i) % strips * rows + line_of < dv && stored ? dk : 0)
        row_in(next, STATE_ROW(0), TYPE_F32, whole, p, lanes, STATE_SIZE(0));
        for (int at = 0; at < r * strips; at++) {
            const int j = at / strips, h = kh * r + j, row = at % strips * rows + line_of;
            const int behind = min(at + 1, r * strips - 1);
            const bool mine = row < dv;
            __global float *state = STATE_ROW(at);
            for (int i = 0; i < QUADS; i++) S[i] = next[i];
            row_in(next, STATE_ROW(behind), TYPE_F32, whole, p, lanes, behind > at ? STATE_SIZE(behind) : 0);
            for (int t = 0; t < some; t++) {
                const int own = done + t - q.n_commit;
                const __local float *of = x + t * token_size;
                if (own == 1 && q.guesses && mine)
                    row_out(state, S, TYPE_F32, whole, p, lanes, dk);
                row_local(query, of, p, lanes, dk);
                row_local(k, of + dk, p, lanes, dk);
                const float o = step(S, k, query, mine ? of[2 * dk + j * dv + row] : 0.0f,
                                     of[channels + j], of[channels + r + j], scale,
                                     sets + turn % 2 * STEP_SET, p, line_of, lanes, STEP_ITEMS);
                turn++;
                if (own >= 0 && mine && p == 0) AT2(float, core, q.start + own, h)[row] = o;
            }
            if (!mine || (q.guesses && !q.leave)) continue;
            row_out(q.leave ? AT3(float, ssm_state, q.spare, h, row) : state, S, TYPE_F32, whole, p,
                    lanes, dk);
        }
        barrier(CLK_LOCAL_MEM_FENCE); /* x is written again */
    }
}

/* --- gdn_attention: a sequence of a group --------------------------------------------------- */

typedef struct {
    long slot, read;   /* of the convolution's line; of the state to start from */
    int  start, n, line; /* line: row where its history begins                   */
    bool fresh, none, skip;
} group_seq;

/* n_token: of the group's order, at most; columns: 0 for a plain group. */
#define GROUP_SEQ                                                                             \
    TENSOR(loc), TENSOR(indx), TENSOR1(slot), TENSOR(initial), TENSOR(accepted), int n_token, \
        int n_row, int slots, int columns, int null_slot, int has_indx, int has_initial
#define GROUP_SEQ_HERE                                                                        \
    fault_, AT0(int, loc), slot + slot_at, slot_s0, AT0(uchar, initial), AT0(int, accepted),   \
        n_token, slots, columns, null_slot, has_initial

inline bool is_none(int slot, int null_slot) { return slot < 0 || slot == null_slot; }

inline group_seq group_sequence(FAULTS, const __global int *start, const __global uchar *slots_at,
                                long slot_bytes, const __global uchar *initial,
                                const __global int *accepted, int n_token, int slots, int columns,
                                int null_slot, int has_initial, int s, bool tell) {
    group_seq q = {0};
    const __global int *slot =
        (const __global int *)(slots_at + (long)s * (columns > 0 ? slot_bytes : (long)sizeof(int)));
    const int first = start[s], end = start[s + 1], took = columns > 0 ? accepted[s] : 0;
    q.skip = true;
    if (first < 0 || end < first || end > n_token || (s == 0 && first != 0)) {
        if (tell) FAULT(GDN_START, s + 1, end);
        return q;
    }
    q.start = first;
    q.n = end - first;
    if (q.n == 0) return q;
    if (columns > 0 && q.n > columns) {
        if (tell) FAULT(GDN_DRAFTS, s, q.n);
        return q;
    }
    if (took < 0 || took > columns) {
        if (tell) FAULT(GDN_ACCEPTED, s, took);
        return q;
    }
    q.none = is_none(slot[0], null_slot);
    q.line = took > 0 ? took - 1 : 0;
    q.slot = slot[0];
    q.read = slot[q.line];
    q.fresh = has_initial && initial[s] == 0;
    if (!q.none && q.slot >= slots) {
        if (tell) FAULT(GDN_SLOT, s, slot[0]);
    } else if (!q.none && (is_none(slot[q.line], null_slot) || q.read >= slots)) {
        if (tell) FAULT(GDN_READ, s, slot[q.line]);
    } else {
        q.skip = false;
    }
    return q;
}

/* The row of token t, or -1. */
inline int token_row(const __global int *indx, int has_indx, int t, int n_row) {
    const int row = has_indx ? indx[t] : t;
    return row >= 0 && row < n_row ? row : -1;
}
#define TOKEN_ROW(t) token_row(AT0(int, indx), has_indx, t, n_row)

/* --- gdn_attention: first stage ------------------------------------------------------------- */

/* Bits of an element, so that copies are copies. */
inline uint bits_at(int type, const __global void *p, long i) {
    return type == TYPE_F32 ? ((const __global uint *)p)[i] : ((const __global ushort *)p)[i];
}
inline float from_bits(int type, uint v) {
    if (type == TYPE_F32) return as_float(v);
    return type == TYPE_BF16 ? bf16_to_f32((ushort)v) : f16_to_f32((ushort)v);
}
inline void put_bits(int type, __global void *p, long i, uint v) {
    if (type == TYPE_F32) ((__global uint *)p)[i] = v;
    else ((__global ushort *)p)[i] = (ushort)v;
}

/* Element of channel c in a row of qkvz; behind the channels lies z. */
inline int source(int c, int nk, int r, int dk, int dv, bool reorder) {
    if (reorder) return c;
    const int keys = nk * dk, values = r * dv, group = 2 * (dk + values);
    if (c < keys) return c / dk * group + c % dk;
    c -= keys;
    if (c < keys) return c / dk * group + dk + c % dk;
    c -= keys;
    if (c < nk * values) return c / values * group + 2 * dk + c % values;
    c -= nk * values;
    return c / values * group + 2 * dk + values + c % values;
}

/* What a channel takes of token t; a row that is out of range is zeros, and reported elsewhere. */
inline uint input_bits(int act, const __global uchar *qkvz, long row_bytes, int row, int src) {
    return row < 0 ? 0 : bits_at(act, qkvz + row * row_bytes, src);
}
#define INPUT(t) input_bits(act, AT0(uchar, qkvz), qkvz_s0, TOKEN_ROW(t), src)

__kernel void attention_conv(FAULTS, GROUP_SEQ, TENSOR1(qkvz), TENSOR1(ba), TENSOR2(z),
                             TENSOR(conv_state), long slot_bytes, long row_bytes, long channel_bytes,
                             TENSOR1(conv_weights), TENSOR(conv_bias), TENSOR2(q), TENSOR2(k),
                             TENSOR2(v), TENSOR1(b), TENSOR1(a), int nk, int r, int dk, int dv,
                             int W, int act, int has_bias, int reorder, int n_seq) {
    const int i = get_global_id(0);
    const int nv = nk * r, keys = nk * dk, C = 2 * keys + nv * dv, Z = nv * dv;
    if (i >= C + Z + nv) return;
    int s;
    const int from = conv_first(AT0(int, loc), n_seq, get_global_id(1), &s);
    if (from < 0) return;
    const group_seq m = group_sequence(GROUP_SEQ_HERE, s, i == 0 && from == 0);
    if (m.skip || (from > 0 && (columns > 0 || from >= m.n))) return;
    /* Its tokens: those of one sequence, or all that are speculative. */
    const int begin = m.start + from;
    const int end = m.start + (columns > 0 ? m.n : min(m.n, from + CONV_TOKENS));

    if (i >= C + Z) { /* the gates of a head, as they are */
        const int h = i - C - Z, g = h / r;
        const int at_b = reorder ? h : 2 * g * r + h % r;
        const int at_a = reorder ? nv + h : (2 * g + 1) * r + h % r;
        for (int t = begin; t < end; t++) {
            const int row = TOKEN_ROW(t);
            const bool zero = m.none || row < 0;
            if (row < 0 && h == 0) FAULT(GDN_ROW, t, has_indx ? AT0(int, indx)[t] : t);
            put_bits(act, AT1(uchar, b, t), h, zero ? 0 : bits_at(act, AT1(uchar, ba, row), at_b));
            put_bits(act, AT1(uchar, a, t), h, zero ? 0 : bits_at(act, AT1(uchar, ba, row), at_a));
        }
        return;
    }
    const int src = source(i, nk, r, dk, dv, reorder != 0);
    if (i >= C) {
        const int head = (i - C) / dv, col = (i - C) % dv;
        for (int first = begin; first < end; first += AHEAD) {
            uint v[AHEAD];
            int to[AHEAD];
            for (int j = 0; j < AHEAD; j++) {
                to[j] = first + j < end ? TOKEN_ROW(first + j) : -1;
                v[j] = m.none || to[j] < 0 ? 0 : bits_at(act, AT1(uchar, qkvz, to[j]), src);
            }
            for (int j = 0; j < AHEAD; j++)
                if (to[j] >= 0) put_bits(act, AT2(uchar, z, to[j], head), col, v[j]);
        }
        return;
    }

    /* The channel's place in a row between the stages. */
    const bool is_q = i < keys, is_k = !is_q && i < 2 * keys;
    const int c = is_q ? i : is_k ? i - keys : i - 2 * keys, d = is_q || is_k ? dk : dv;
    const int col = c % d;
    __global uchar *to = is_q   ? AT2(uchar, q, 0, c / d)
                         : is_k ? AT2(uchar, k, 0, c / d)
                                : AT2(uchar, v, 0, c / d);
    const long to_s0 = is_q ? q_s0 : is_k ? k_s0 : v_s0;
    if (m.none) {
        for (int t = begin; t < end; t++) put_bits(act, to + t * to_s0, col, 0);
        return;
    }

    __global uchar *line = AT0(uchar, conv_state) + m.slot * slot_bytes + i * channel_bytes;
    const float bias = has_bias ? load_as(act, AT0(uchar, conv_bias), i) : 0.0f;
    float u[TAPS], w[TAPS];
    uint old[TAPS]; /* the window's bits */
    for (int j = 0; j < TAPS; j++) {
        const int tap = j - (TAPS - W);
        w[j] = tap >= 0 ? load_as(act, AT1(uchar, conv_weights, i), tap) : 0.0f;
        old[j] = 0;
        if (tap >= 1 && from > 0) old[j] = INPUT(begin - TAPS + j);
        else if (tap >= 1 && !m.fresh) old[j] = bits_at(act, line + (m.line + tap - 1) * row_bytes, 0);
        u[j] = from_bits(act, old[j]);
    }
    /* A speculative line keeps its history less the first row, then come the inputs. */
    if (columns > 0)
        for (int j = 0; j < TAPS; j++)
            if (j >= TAPS - W + 2) put_bits(act, line + (j - (TAPS - W) - 2) * row_bytes, 0, old[j]);
    for (int first = begin; first < end; first += AHEAD) {
        uint in[AHEAD];
        for (int i = 0; i < AHEAD; i++) in[i] = INPUT(min(first + i, end - 1));
        for (int i = 0; i < AHEAD; i++) {
            const int t = first + i;
            if (t >= end) break;
            for (int j = 0; j + 1 < TAPS; j++) old[j] = old[j + 1];
            old[TAPS - 1] = in[i];
            push(u, from_bits(act, in[i]));
            store_as(act, to + t * to_s0, col, answer(u, w, bias, W));
            if (columns > 0) put_bits(act, line + (W - 2 + t - m.start) * row_bytes, 0, in[i]);
        }
    }
    if (columns > 0 || from > 0) return;
    for (int j = 0; j < TAPS; j++) {
        if (j <= TAPS - W) continue;
        const uint last = end < m.start + m.n ? INPUT(m.start + m.n - TAPS + j) : old[j];
        put_bits(act, line + (j - (TAPS - W) - 1) * row_bytes, 0, last);
    }
}

/* --- gdn_attention: second stage ------------------------------------------------------------ */

__kernel void attention_delta(FAULTS, GROUP_SEQ, TENSOR2(core), TENSOR2(q), TENSOR2(k), TENSOR2(v),
                              TENSOR1(b), TENSOR1(a), TENSOR(A_log), TENSOR(dt_bias),
                              TENSOR3(ssm_state), int r_heads, int dk, int dv, int act, int type,
                              int lanes, int whole) {
    __local float sets[2 * SET];
    const int item = get_local_id(0), p = item % lanes, r = item / lanes;
    const int rows = (int)get_local_size(0) / lanes, v0 = (int)get_group_id(0) * rows;
    const int h = get_group_id(1), s = get_group_id(2), out = v0 + r, kh = h / r_heads;
    const group_seq m = group_sequence(GROUP_SEQ_HERE, s, item == 0 && v0 == 0 && h == 0);
    if (m.skip) return;
    const bool mine = out < dv;
    if (m.none) {
        for (int t = m.start; t < m.start + m.n; t++) {
            const int row = TOKEN_ROW(t);
            if (mine && p == 0 && row >= 0) put_bits(act, AT2(uchar, core, row, h), out, 0);
        }
        return;
    }
    const float A = AT0(float, A_log)[h], dt = load_as(act, AT0(uchar, dt_bias), h);
    const float scale = 1.0f / sqrt((float)dk);
    const __global int *column = (const __global int *)(slot + slot_at + s * slot_s0);
    float4 S[QUADS], key[QUADS], query[QUADS];

    row_in(S, AT3(uchar, ssm_state, m.read, h, mine ? out : 0), type, whole, p, lanes,
           mine && !m.fresh ? dk : 0);
    for (int t = 0; t < m.n; t++) {
        const int from = m.start + t, row = TOKEN_ROW(from);
        if (row < 0 && item == 0) FAULT(GDN_ROW, from, has_indx ? AT0(int, indx)[from] : from);
        row_in(query, AT2(uchar, q, from, kh), act, 0, p, lanes, dk);
        row_in(key, AT2(uchar, k, from, kh), act, 0, p, lanes, dk);
        const float value = mine ? load_as(act, AT2(uchar, v, from, h), out) : 0.0f;
        const float alpha = decay(load_as(act, AT1(uchar, a, from), h), A, dt);
        const float beta = sigmoid(load_as(act, AT1(uchar, b, from), h));
        const float o = step(S, key, query, value, alpha, beta, scale, sets + t % 2 * SET, p, r, lanes,
                             ITEMS);
        if (mine && p == 0 && row >= 0) store_as(act, AT2(uchar, core, row, h), out, o);
        if (columns == 0 || !mine) continue;
        const int to = column[t];
        if (is_none(to, null_slot)) continue;
        if (to < slots) row_out(AT3(uchar, ssm_state, to, h, out), S, type, whole, p, lanes, dk);
        else if (item == 0) FAULT(GDN_SLOT, s, to);
    }
    if (columns == 0 && mine)
        row_out(AT3(uchar, ssm_state, m.slot, h, out), S, type, whole, p, lanes, dk);
}
