/* linear_xpu.cl - products with a weight matrix: y[m][n] = sum_k x[m][k] w[n][k].
 *
 * An output is summed by a line of items (linear_lines_xpu.cl).  Kernels differ in how many rows (R)
 * and outputs (N) a line has in registers, and how many lines of a work-group have rows of their own
 * (RL) and outputs of their own (OL):
 *
 *     linear_1, _2, _4, _8    few rows: weights are read once, in whole lines
 *     linear_many             many rows: 8 x 8 sums an item, on Intel's GPUs 4 x 4
 *
 * each for f32 inputs and bf16 weights in whole vectors, whose loads a compiler can put in front of
 * the sums as nothing branches between them, and with any_ before the name for all that there is.
 *
 * project_1, _2, _4 have the rows in local memory, where they are first normalised (bit for bit as
 * norm_xpu.cl does it), and may end in swiglu: with those one launch does what takes three. */

#define LINEAR(name, R, N, RL, OL, XT, WT, WHOLE)                                              \
    __kernel __attribute__((reqd_work_group_size(LINE, RL *OL, 1)))                            \
    void name(TENSOR1(y), TENSOR1(x), TENSOR(row), WEIGHT, int n_row, int gather, long n_x,    \
              int add, int x_type, FAULTS) {                                                   \
        LINE_SUMS(part, RL * OL, R);                                                           \
        const int lane = (int)get_local_id(0), line = (int)get_local_id(1);                    \
        const int out = ((int)get_group_id(0) * OL + line % OL) * N;                           \
        const int first = ((int)get_group_id(1) * RL + line / OL) * R;                         \
        const __global uchar *in[R];                                                           \
        bool valid[R];                                                                         \
        UNROLL for (int r = 0; r < R; r++) {                                                   \
            const int i = min(first + r, n_row - 1);                                           \
            long from = gather ? AT0(int, row)[i] : i;                                         \
            valid[r] = from >= 0 && from < n_x;                                                \
            if (!valid[r]) {                                                                   \
                if (lane == 0 && out == 0) FAULT(LINEAR_ROW, i, from);                         \
                from = 0;                                                                      \
            }                                                                                  \
            in[r] = AT1(uchar, x, from);                                                       \
        }                                                                                      \
        /* Beyond the edges: computed, not stored. */                                          \
        float sum[R][N];                                                                       \
        const __global uchar *weight[N];                                                       \
        const __global float *own[N];                                                          \
        UNROLL for (int o = 0; o < N; o++) {                                                   \
            const long at = min(out + o, n - 1);                                               \
            weight[o] = w + at * k * type_bytes(WT);                                           \
            own[o] = scale + at * n_scale;                                                     \
            UNROLL for (int r = 0; r < R; r++) sum[r][o] = 0.0f;                               \
        }                                                                                      \
        SUM_STRETCHES(R, N, XT, WT, WHOLE)                                                     \
        UNROLL for (int o = 0; o < N; o++) {                                                   \
            float all = 0.0f;                                                                  \
            ADD_LINE(all, R, sum[r][o])                                                        \
            if (lane < R && out + o < n && first + lane < n_row) {                             \
                __global float *to = AT1(float, y, first + lane) + out + o;                    \
                bool mine = false; /* an index of a private array would spill it */            \
                UNROLL for (int r = 0; r < R; r++) mine = r == lane ? valid[r] : mine;         \
                if (mine) *to = add ? *to + all : all;                                         \
            }                                                                                  \
        }                                                                                      \
    }

LINEAR(linear_1, 1, 1, 1, LINES, TYPE_F32, TYPE_BF16, 1)
LINEAR(linear_1_wide, 1, 2, 1, LINES, TYPE_F32, TYPE_BF16, 1)
LINEAR(linear_2, 2, 2, 1, LINES, TYPE_F32, TYPE_BF16, 1)
LINEAR(linear_4, 4, 2, 1, LINES, TYPE_F32, TYPE_BF16, 1)
#ifndef INTEL
LINEAR(linear_8, 8, 4, 1, LINES, TYPE_F32, TYPE_BF16, 1)
#endif
LINEAR(linear_many, MANY, MANY, TILE_RL, TILE_OL, TYPE_F32, TYPE_BF16, 1)

/* --- rows normalised in local memory ---------------------------------------------------- */

/* What a product takes of v. */
inline float taken(int act, float v) { return act == TYPE_BF16 ? bf16_to_f32(f32_to_bf16(v)) : v; }

/* Where element i of a row lies in local memory: an item takes a stretch as two vectors, and what the
 * items of a line take at once lies side by side. */
inline int place(int i) {
    return i / STEP * STEP + i % STRETCH / 4 * (4 * LINE) + i % STEP / STRETCH * 4 + i % 4;
}
inline float8 placed8(const __local float *row, int i) { /* i: a multiple of STRETCH */
    const __local float *v = row + i / STEP * STEP + i % STEP / 2;
    return float4x2(LOCAL4(v), LOCAL4(v + 4 * LINE));
}

/* An item's first elements, at, at + step, .. of d, which are fetched together; the others come after. */
enum { HELD = 8 };
#define HOLD(to, from)                                                                         \
    UNROLL for (int j = 0; j < HELD; j++) to[j] = at + j * step < d ? (from)[at + j * step] : 0.0f;

/* x f w for a head of d, times silu(z), by all items; `first` is its place in the row. */
inline void normed_long(__local float *row, int first, const __global float *x, const __global float *z,
                        const __global float *w, int gated, int d, int act, float eps,
                        __local float *part) {
    const int at = (int)get_local_id(0) + LINE * (int)get_local_id(1), step = ITEMS;
    float held_x[HELD], held_w[HELD];
    HOLD(held_x, x)
    HOLD(held_w, w)
    float sum = 0.0f;
    UNROLL for (int j = 0; j < HELD; j++) sum = fma(held_x[j], held_x[j], sum);
    for (int i = at + HELD * step; i < d; i += step) {
        row[place(first + i)] = x[i];
        sum = fma(x[i], x[i], sum);
    }
    part[at] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    /* As lanes_sum() of all, its lines by an item each. */
    if (at < ITEMS / SUM_LINE) part[ITEMS + at] = lanes_sum(part, at * SUM_LINE, false);
    barrier(CLK_LOCAL_MEM_FENCE);
    sum = part[ITEMS];
    for (int i = 1; i < ITEMS / SUM_LINE; i++) sum += part[ITEMS + i];
    const float f = norm_factor(sum, d, eps);
    UNROLL for (int j = 0; j < HELD; j++) {
        const int i = at + j * step;
        if (i >= d) continue;
        float v = held_x[j] * f * held_w[j];
        if (gated) v *= silu(z[i]);
        row[place(first + i)] = taken(act, v);
    }
    for (int i = at + HELD * step; i < d; i += step) {
        float v = row[place(first + i)] * f * w[i];
        if (gated) v *= silu(z[i]);
        row[place(first + i)] = taken(act, v);
    }
}

/* The same for heads of up to NORM_SHORT, each by a line of the items. */
inline void normed_short(__local float *row, const __global uchar *x, long x_head, const __global uchar *z,
                         long z_head, const __global float *w, int gated, int n_head, int d, int act,
                         float eps, __local float *part) {
    const int item = (int)get_local_id(0) + LINE * (int)get_local_id(1);
    const int at = item % SUM_LINE, step = SUM_LINE;
    float held_w[HELD];
    HOLD(held_w, w)
    for (int first = 0; first < n_head; first += ITEMS / SUM_LINE) {
        const int head = first + item / SUM_LINE;
        const bool there = head < n_head;
        const __global float *in = (const __global float *)(x + (there ? head : 0) * x_head);
        const __global float *gate = (const __global float *)(z + (there ? head : 0) * z_head);
        float held_x[HELD], held_z[HELD];
        HOLD(held_x, in)
        if (gated) { HOLD(held_z, gate) }
        float sum = 0.0f;
        UNROLL for (int j = 0; j < HELD; j++) sum = fma(held_x[j], held_x[j], sum);
        for (int i = at + HELD * step; i < d; i += step) sum = fma(in[i], in[i], sum);
        part[item] = sum;
        barrier(CLK_LOCAL_MEM_FENCE);
        const float f = norm_factor(lanes_sum(part, item, false), d, eps);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (!there) continue;
        UNROLL for (int j = 0; j < HELD; j++) {
            const int i = at + j * step;
            if (i >= d) continue;
            float v = held_x[j] * f * held_w[j];
            if (gated) v *= silu(held_z[j]);
            row[place(head * d + i)] = taken(act, v);
        }
        for (int i = at + HELD * step; i < d; i += step) {
            float v = in[i] * f * w[i];
            if (gated) v *= silu(gate[i]);
            row[place(head * d + i)] = taken(act, v);
        }
    }
}

/* A row of n_head heads of d: x f(head) w, times silu(z).  Zeros follow to the next multiple of STRETCH. */
inline void normed_row(__local float *row, const __global uchar *x, long x_head, const __global uchar *z,
                       long z_head, const __global float *w, int gated, int n_head, int d, int act,
                       float eps, __local float *part) {
    const int k = n_head * d, i = k + (int)get_local_id(0);
    if (d <= NORM_SHORT)
        normed_short(row, x, x_head, z, z_head, w, gated, n_head, d, act, eps, part);
    else
        for (int head = 0; head < n_head; head++)
            normed_long(row, head * d, (const __global float *)(x + head * x_head),
                        (const __global float *)(z + head * z_head), w, gated, d, act, eps, part);
    if (get_local_id(1) == 0 && k % STRETCH != 0 && i / STRETCH == k / STRETCH) row[place(i)] = 0.0f;
}

/* norm 0: x has the inputs as they are, [n_row][k] of x_type.  Two outputs a line: LINES apart, or with
 * swiglu the gate's and the one of the upper half. */
#define PROJECT(name, R, WT, WHOLE)                                                            \
    __kernel __attribute__((reqd_work_group_size(LINE, LINES, 1)))                             \
    void name(TENSOR1(y), TENSOR2(x), TENSOR2(z), TENSOR(norm_w), WEIGHT, int n_row, int add,  \
              int x_type, int norm, int gated, int n_head, int act, int swiglu, int y_type,    \
              float eps, __local float4 *rows4) {                                              \
        LINE_SUMS(part, LINES, R);                                                             \
        __local float norm_part[ITEMS + ITEMS / SUM_LINE];                                     \
        __local float *rows = (__local float *)rows4;                                          \
        const int lane = (int)get_local_id(0), line = (int)get_local_id(1);                    \
        const int item = lane + LINE * line, first = (int)get_group_id(1) * R;                 \
        const int apart = swiglu ? n / 2 : LINES, room = (k + STEP - 1) / STEP * STEP;         \
        const int out = (int)get_group_id(0) * (swiglu ? LINES : 2 * LINES) + line;            \
        for (int r = 0; r < R; r++) {                                                          \
            const int i = min(first + r, n_row - 1);                                           \
            __local float *to = rows + r * room;                                               \
            if (norm)                                                                          \
                normed_row(to, AT1(uchar, x, i), x_s1, AT1(uchar, z, i), z_s1,                 \
                           AT0(float, norm_w), gated, n_head, k / n_head, act, eps, norm_part); \
            else                                                                               \
                for (int j = item; j < room; j += ITEMS)                                       \
                    to[place(j)] = j < k ? load_as(x_type, AT1(uchar, x, i), j) : 0.0f;        \
        }                                                                                      \
        barrier(CLK_LOCAL_MEM_FENCE);                                                          \
        const long at0 = min(out, n - 1), at1 = min(out + apart, n - 1);                       \
        const __global uchar *weight0 = w + at0 * k * type_bytes(WT);                          \
        const __global uchar *weight1 = w + at1 * k * type_bytes(WT);                          \
        float sum0[R], sum1[R];                                                                \
        UNROLL for (int r = 0; r < R; r++) sum0[r] = sum1[r] = 0.0f;                           \
        UNROLL_STEPS(R) for (int i = lane * STRETCH; i < k; i += STEP) {                       \
            const float8 v0 = weight8(WT, weight0, scale + at0 * n_scale, scale_cols, i, WHOLE, \
                                      k - i);                                                  \
            const float8 v1 = weight8(WT, weight1, scale + at1 * n_scale, scale_cols, i, WHOLE, \
                                      k - i);                                                  \
            UNROLL for (int r = 0; r < R; r++) {                                               \
                const float8 u = placed8(rows + r * room, i);                                  \
                sum0[r] = fma8(u, v0, sum0[r]);                                                \
                sum1[r] = fma8(u, v1, sum1[r]);                                                \
            }                                                                                  \
        }                                                                                      \
        float all0 = 0.0f, all1 = 0.0f;                                                        \
        ADD_LINE(all0, R, sum0[r])                                                             \
        ADD_LINE(all1, R, sum1[r])                                                             \
        if (lane >= R || first + lane >= n_row) return;                                        \
        if (swiglu) {                                                                          \
            if (out < apart)                                                                   \
                store_as(y_type, AT1(uchar, y, first + lane), out, silu(all0) * all1);         \
            return;                                                                            \
        }                                                                                      \
        __global float *to = AT1(float, y, first + lane);                                      \
        if (out < n) to[out] = add ? to[out] + all0 : all0;                                    \
        if (out + apart < n) to[out + apart] = add ? to[out + apart] + all1 : all1;            \
    }

PROJECT(project_1, 1, TYPE_BF16, 1)
PROJECT(project_2, 2, TYPE_BF16, 1)
PROJECT(project_4, 4, TYPE_BF16, 1)

#undef SEVERAL
#define SEVERAL(n) STEPS(1)
LINEAR(any_linear_1, 1, 1, 1, LINES, x_type, w_type, whole)
LINEAR(any_linear_1_wide, 1, 2, 1, LINES, x_type, w_type, whole)
LINEAR(any_linear_2, 2, 2, 1, LINES, x_type, w_type, whole)
LINEAR(any_linear_4, 4, 2, 1, LINES, x_type, w_type, whole)
#ifndef INTEL
LINEAR(any_linear_8, 8, 4, 1, LINES, x_type, w_type, whole)
#endif
LINEAR(any_linear_many, MANY, MANY, TILE_RL, TILE_OL, x_type, w_type, whole)
PROJECT(any_project_1, 1, w_type, whole)
PROJECT(any_project_2, 2, w_type, whole)
PROJECT(any_project_4, 4, w_type, whole)
