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
        __local float part[RL * OL][R][LINE + 1];                                              \
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

/* A row of n_head heads of d, or of one: x f(head) w, times silu(z).  room: to the next multiple of
 * STRETCH, filled with zeros. */
inline void normed_row(__local float *to, const __global uchar *x, long x_head, const __global uchar *z,
                       long z_head, const __global float *w, int gated, int n_head, int d, int room,
                       int act, float eps, __local float *part) {
    const int item = (int)get_local_id(0) + LINE * (int)get_local_id(1);
    const bool alone = d > NORM_SHORT; /* a head has all items, or a line of them */
    const int step = alone ? ITEMS : SUM_LINE, at = alone ? item : item % SUM_LINE;
    for (int first = 0; first < n_head; first += alone ? 1 : ITEMS / SUM_LINE) {
        const int head = alone ? first : first + item / SUM_LINE;
        const bool there = head < n_head;
        const __global float *in = (const __global float *)(x + (there ? head : 0) * x_head);
        const __global float *gate = (const __global float *)(z + (there ? head : 0) * z_head);
        part[item] = there ? squares(in, d, at, step) : 0.0f;
        barrier(CLK_LOCAL_MEM_FENCE);
        const float sum = lanes_sum(part, item, alone);
        barrier(CLK_LOCAL_MEM_FENCE);
        const float f = norm_factor(sum, d, eps);
        for (int i = at; there && i < d; i += step) {
            float v = in[i] * f * w[i];
            if (gated) v *= silu(gate[i]);
            to[head * d + i] = taken(act, v);
        }
    }
    for (int i = n_head * d + item; i < room; i += ITEMS) to[i] = 0.0f;
}

/* norm 0: x has the inputs as they are, [n_row][k] of x_type.  Two outputs a line: LINES apart, or with
 * swiglu the gate's and the one of the upper half. */
#define PROJECT(name, R, WT, WHOLE)                                                            \
    __kernel __attribute__((reqd_work_group_size(LINE, LINES, 1)))                             \
    void name(TENSOR1(y), TENSOR2(x), TENSOR2(z), TENSOR(norm_w), WEIGHT, int n_row, int add,  \
              int x_type, int norm, int gated, int n_head, int act, int swiglu, int y_type,    \
              float eps, __local float *rows) {                                                \
        __local float part[LINES][R][LINE + 1], norm_part[ITEMS];                              \
        const int lane = (int)get_local_id(0), line = (int)get_local_id(1);                    \
        const int item = lane + LINE * line, first = (int)get_group_id(1) * R;                 \
        const int apart = swiglu ? n / 2 : LINES, room = (k + STRETCH - 1) / STRETCH * STRETCH; \
        const int out = (int)get_group_id(0) * (swiglu ? LINES : 2 * LINES) + line;            \
        for (int r = 0; r < R; r++) {                                                          \
            const int i = min(first + r, n_row - 1);                                           \
            __local float *to = rows + r * room;                                               \
            if (norm)                                                                          \
                normed_row(to, AT1(uchar, x, i), x_s1, AT1(uchar, z, i), z_s1,                 \
                           AT0(float, norm_w), gated, n_head, k / n_head, room, act, eps,      \
                           norm_part);                                                         \
            else                                                                               \
                for (int j = item; j < room; j += ITEMS)                                       \
                    to[j] = j < k ? load_as(x_type, AT1(uchar, x, i), j) : 0.0f;               \
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
                const float8 u = vload8(0, rows + r * room + i);                               \
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
