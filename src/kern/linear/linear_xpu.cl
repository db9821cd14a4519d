/* linear_xpu.cl - products with a weight matrix: y[m][n] = sum_k x[m][k] w[n][k].
 *
 * An item of the 16 in a line takes every 16th k of one output and up to four rows; the line's sums
 * are then added in ascending order.  So a row's bits do not depend on the rows beside it, and
 * weights are read in whole lines, once for four rows. */

enum { LINE = 16, OUTPUTS = 8, ROWS = 4 };

/* X: type and conversion of an input; W: of a weight, S: its scale. */
#define LINEAR(name, X, x_f32, W, w_f32, S)                                                      \
    __kernel __attribute__((reqd_work_group_size(16, 8, 1)))                                     \
    void name(TENSOR1(y), TENSOR1(x), TENSOR(row), __global const W *w,                          \
              __global const float *scale, int n_scale, int scale_cols, int n, int k, int n_row, \
              int gather, long n_x, int add, FAULTS) {                                           \
        __local float part[OUTPUTS][ROWS][LINE];                                                 \
        const int lane = (int)get_local_id(0), line = (int)get_local_id(1);                      \
        const int out = (int)get_group_id(0) * OUTPUTS + line;                                   \
        const int first = (int)get_group_id(1) * ROWS;                                           \
        const long o = min(out, n - 1); /* beyond the edge: computed, not stored */              \
        const __global X *in[ROWS];                                                              \
        bool valid[ROWS];                                                                        \
        for (int r = 0; r < ROWS; r++) {                                                         \
            const int i = min(first + r, n_row - 1);                                             \
            long from = gather ? AT0(int, row)[i] : i;                                           \
            valid[r] = from >= 0 && from < n_x;                                                  \
            if (!valid[r]) {                                                                     \
                if (lane == 0 && out == 0) FAULT(LINEAR_ROW, i, from);                           \
                from = 0;                                                                        \
            }                                                                                    \
            in[r] = AT1(X, x, from);                                                             \
        }                                                                                        \
        float sum[ROWS] = {0.0f, 0.0f, 0.0f, 0.0f};                                              \
        const __global W *weight = w + o * k;                                                    \
        const __global float *own = scale + o * n_scale;                                         \
        for (int i = lane; i < k; i += LINE) {                                                   \
            const float v = w_f32(weight[i]) * S;                                                \
            for (int r = 0; r < ROWS; r++) sum[r] = fma(x_f32(in[r][i]), v, sum[r]);             \
        }                                                                                        \
        for (int r = 0; r < ROWS; r++) part[line][r][lane] = sum[r];                             \
        barrier(CLK_LOCAL_MEM_FENCE);                                                            \
        if (lane >= ROWS || out >= n || first + lane >= n_row || !valid[lane]) return;           \
        float all = part[line][lane][0];                                                         \
        for (int i = 1; i < LINE; i++) all += part[line][lane][i];                               \
        __global float *to = AT1(float, y, first + lane) + out;                                  \
        *to = add ? *to + all : all;                                                             \
    }

#define AS_IT_IS(v) (v)

/* vload_half takes memory, not a value. */
inline float f16_bits_to_f32(ushort h) {
    const uint sign = (uint)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 1023u;
    if (e == 31u) return as_float(sign | 0x7f800000u | m << 13);
    if (e != 0u) return as_float(sign | (e + 112u) << 23 | m << 13);
    return as_float(sign | as_uint((float)m * 0x1p-24f));
}

LINEAR(linear_f32, float, AS_IT_IS, float, AS_IT_IS, 1.0f)
LINEAR(linear_bf16, float, AS_IT_IS, ushort, bf16_to_f32, 1.0f)
LINEAR(linear_f16, float, AS_IT_IS, ushort, f16_bits_to_f32, 1.0f)
LINEAR(linear_f8, float, AS_IT_IS, uchar, f8_to_f32, own[i / scale_cols])
LINEAR(linear_bf16_bf16, ushort, bf16_to_f32, ushort, bf16_to_f32, 1.0f)
