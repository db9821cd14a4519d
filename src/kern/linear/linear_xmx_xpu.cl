/* linear_xmx_xpu.cl - products with packed bf16 weights on the matrix engine (xpu_xmx.cl):
 * y[m][n] = sum_k x[m][k] w[n][k], bf16 in, f32 out.
 *
 * Weights are packed when they are uploaded (xpu_weight.c): blocks of SG outputs and 16 inputs as
 * the engine's B, a block column's inputs one after the other, zeros past the edges:
 *
 *     w   [ceil(n / SG)][steps of 16 inputs][8 pairs][SG]   uint
 *     x   [blocks of 8 rows][steps][8 rows][16]             ushort, packed by linear_pack
 *
 * One order of summation for all forms, so that a row's bits do not depend on the rows beside it:
 * the inputs are cut into PARTS equal stretches, each is summed by the engine in steps of 16 from
 * zero, always as 8 rows, and the parts are added in ascending order.
 *
 *     linear_row     one row as it lies             a work-group has SG outputs, its sub-groups
 *     linear_rows    up to 8                        have a part each: weights are read once, in
 *     linear_block   32 packed rows                 whole blocks, by all of the GPU
 *     linear_tile    64 packed rows, 8 SG outputs   a sub-group has 32 rows of 2 SG outputs, and
 *                                                   takes the parts one after the other
 *     linear_wide    f32 rows; no engine, the same cut
 *
 * linear_tile is in linear_tile_xmx_xpu.cl, which is compiled for more registers. */

enum {
    PARTS = 8,                 /* sub-groups of a work-group, XPU_PARTS on the host */
    A_HALVES = XMX_M * XMX_K,  /* of an operand of a step                           */
    B_WORDS = XMX_K / 2 * SG
};

/* --- packing rows ----------------------------------------------------------------------- */

/* Groups of 128 items: one for each step of 16 inputs and block of 8 rows; an item has an input. */
__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void linear_pack(__global ushort *to, TENSOR1(x), TENSOR(row), int k, int n_row, int gather,
                 long n_x, FAULTS) {
    const int item = (int)get_local_id(0), step = (int)get_group_id(0);
    const int r = (int)get_group_id(1) * XMX_M + item / XMX_K, c = step * XMX_K + item % XMX_K;
    ushort v = 0;
    if (r < n_row) {
        const long from = gather ? AT0(int, row)[r] : r;
        if (from >= 0 && from < n_x) {
            if (c < k) v = AT1(ushort, x, from)[c];
        } else if (c == 0) {
            FAULT(LINEAR_ROW, r, from);
        }
    }
    to[((long)get_group_id(1) * (long)get_num_groups(0) + step) * A_HALVES + item] = v;
}

/* --- the parts of a sub-group, added ---------------------------------------------------- */

/* Rows first on of y, from part[PARTS][rows][SG]; all items of the work-group. */
inline void add_parts(TENSOR1(y), const __local float *part, int rows, int first, int n_row,
                      int out, int n, int add) {
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = (int)get_local_id(0); i < rows * SG; i += PARTS * SG) {
        const int r = first + i / SG, o = out + i % SG;
        float all = part[i];
        for (int p = 1; p < PARTS; p++) all += part[p * rows * SG + i];
        if (r >= n_row || o >= n) continue;
        __global float *to = AT1(float, y, r) + o;
        *to = add ? *to + all : all;
    }
}

/* --- a few rows -------------------------------------------------------------------------- */

/* Rows as they lie: k is a multiple of 16 and they begin at multiples of 4 bytes.  Four steps are
 * loaded before the first is used. */
#define A_ROW(r, at) (r < ROWS && (at) < k ? xmx_a_row(in[r < ROWS ? r : 0] + (at)) : (xmx_a1)0)
#define A_ROWS(at)                                                                  \
    xmx_a_of(A_ROW(0, at), A_ROW(1, at), A_ROW(2, at), A_ROW(3, at), A_ROW(4, at), \
             A_ROW(5, at), A_ROW(6, at), A_ROW(7, at))

#define LINEAR_ROWS(name, ROWS_)                                                                  \
    XMX_KERNEL(PARTS) void name(TENSOR1(y), TENSOR1(x), TENSOR(row), __global const uint *w,      \
                                int n, int k, int steps, int n_row, int gather, long n_x, int add,\
                                FAULTS) {                                                         \
        XMX_BEGIN(PARTS);                                                                         \
        enum { ROWS = ROWS_ };                                                                    \
        __local float part[PARTS * ROWS * SG];                                                    \
        const int column = (int)get_group_id(0), first = (int)get_group_id(1) * ROWS;             \
        const int own = steps / PARTS, from = SG_ID * own;                                        \
        const __global ushort *in[ROWS];                                                          \
        __attribute__((opencl_unroll_hint(ROWS_)))                                                \
        for (int r = 0; r < ROWS; r++) {                                                          \
            const int i = min(first + r, n_row - 1);                                              \
            long at = gather ? AT0(int, row)[i] : i;                                              \
            if (at < 0 || at >= n_x) {                                                            \
                if (column == 0 && get_local_id(0) == 0) FAULT(LINEAR_ROW, i, at);                \
                at = 0;                                                                           \
            }                                                                                     \
            in[r] = AT1(ushort, x, at);                                                           \
        }                                                                                         \
        const __global uint *b = w + ((long)column * steps + from) * B_WORDS;                     \
        float8 c = 0.0f;                                                                          \
        int at = from * XMX_K, s = 0;                                                             \
        for (; s + 4 <= own; s += 4, at += 4 * XMX_K, b += 4 * B_WORDS) {                         \
            const int8 b0 = xmx_load_b(b), b1 = xmx_load_b(b + B_WORDS);                          \
            const int8 b2 = xmx_load_b(b + 2 * B_WORDS), b3 = xmx_load_b(b + 3 * B_WORDS);        \
            const xmx_a a0 = A_ROWS(at), a1 = A_ROWS(at + XMX_K);                                 \
            const xmx_a a2 = A_ROWS(at + 2 * XMX_K), a3 = A_ROWS(at + 3 * XMX_K);                 \
            c = xmx_mad(a0, b0, c);                                                               \
            c = xmx_mad(a1, b1, c);                                                               \
            c = xmx_mad(a2, b2, c);                                                               \
            c = xmx_mad(a3, b3, c);                                                               \
        }                                                                                         \
        for (; s < own; s++, at += XMX_K, b += B_WORDS)                                           \
            c = xmx_mad(A_ROWS(at), xmx_load_b(b), c);                                            \
        __local float *to = part + SG_ID * ROWS * SG;                                             \
        if (ROWS == 1) to[SG_LANE] = c.s0;                                                        \
        else xmx_put_rows(to, c);                                                                 \
        add_parts(y, y_at, y_s0, part, ROWS, first, n_row, column * SG, n, add);                  \
    }

LINEAR_ROWS(linear_row, 1)
LINEAR_ROWS(linear_rows, 8)

/* --- 32 rows ------------------------------------------------------------------------------ */

XMX_KERNEL(PARTS) void linear_block(TENSOR1(y), __global const ushort *x, __global const uint *w,
                                    int n, int steps, int n_row, int add) {
    XMX_BEGIN(PARTS);
    enum { BLOCKS = 4, ROWS = BLOCKS * XMX_M };
    __local float part[PARTS * ROWS * SG];
    const int column = (int)get_group_id(0), first = (int)get_group_id(1) * ROWS;
    const int own = steps / PARTS, from = SG_ID * own;
    const long block = (long)steps * A_HALVES;
    const __global uint *b = w + ((long)column * steps + from) * B_WORDS;
    const __global ushort *a = x + (long)get_group_id(1) * BLOCKS * block + from * A_HALVES;
    float8 c0 = 0.0f, c1 = 0.0f, c2 = 0.0f, c3 = 0.0f;
    for (int s = 0; s < own; s++, a += A_HALVES, b += B_WORDS) {
        const int8 own_b = xmx_load_b(b);
        const xmx_a a0 = xmx_load_a(a), a1 = xmx_load_a(a + block);
        const xmx_a a2 = xmx_load_a(a + 2 * block), a3 = xmx_load_a(a + 3 * block);
        c0 = xmx_mad(a0, own_b, c0);
        c1 = xmx_mad(a1, own_b, c1);
        c2 = xmx_mad(a2, own_b, c2);
        c3 = xmx_mad(a3, own_b, c3);
    }
    __local float *to = part + SG_ID * ROWS * SG;
    xmx_put_rows(to, c0);
    xmx_put_rows(to + XMX_M * SG, c1);
    xmx_put_rows(to + 2 * XMX_M * SG, c2);
    xmx_put_rows(to + 3 * XMX_M * SG, c3);
    add_parts(y, y_at, y_s0, part, ROWS, first, n_row, column * SG, n, add);
}

/* --- f32 rows ----------------------------------------------------------------------------- */

/* An item has a column; four rows, of any alignment. */
XMX_KERNEL(PARTS) void linear_wide(TENSOR1(y), TENSOR1(x), TENSOR(row), __global const uint *w,
                                   int n, int k, int steps, int n_row, int gather, long n_x,
                                   int add, FAULTS) {
    enum { ROWS = 4 };
    __local float part[PARTS * ROWS * SG];
    const int column = (int)get_group_id(0), first = (int)get_group_id(1) * ROWS;
    const int own = steps / PARTS, from = SG_ID * own;
    const __global float *in[ROWS];
    __attribute__((opencl_unroll_hint(4)))
    for (int r = 0; r < ROWS; r++) {
        const int i = min(first + r, n_row - 1);
        long at = gather ? AT0(int, row)[i] : i;
        if (at < 0 || at >= n_x) {
            if (column == 0 && get_local_id(0) == 0) FAULT(LINEAR_ROW, i, at);
            at = 0;
        }
        in[r] = AT1(float, x, at);
    }
    const __global uint *b = w + ((long)column * steps + from) * B_WORDS + SG_LANE;
    float sum[ROWS] = {0.0f, 0.0f, 0.0f, 0.0f};
    const int end = min((from + own) * XMX_K, k);
    for (int i = from * XMX_K; i < end; i += 2, b += SG) {
        const float w0 = bf16_to_f32((ushort)*b), w1 = bf16_to_f32((ushort)(*b >> 16));
        const bool both = i + 1 < k;
        __attribute__((opencl_unroll_hint(4)))
        for (int r = 0; r < ROWS; r++) {
            sum[r] = fma(in[r][i], w0, sum[r]);
            if (both) sum[r] = fma(in[r][i + 1], w1, sum[r]);
        }
    }
    __attribute__((opencl_unroll_hint(4)))
    for (int r = 0; r < ROWS; r++) part[(SG_ID * ROWS + r) * SG + SG_LANE] = sum[r];
    add_parts(y, y_at, y_s0, part, ROWS, first, n_row, column * SG, n, add);
}

/* --- a row of the matrix ------------------------------------------------------------------ */

/* Groups (stretches of 64 columns, rows), as embed_xpu.cl. */
__kernel void embed_packed(TENSOR1(y), TENSOR(ids), __global const ushort *w, int n, int k,
                           int steps, FAULTS) {
    const long row = get_group_id(1);
    const int j = (int)get_global_id(0), id = AT0(int, ids)[row];
    if (j >= k) return;
    if (id < 0 || id >= n) {
        if (j == 0) FAULT(EMBED_ID, row, id);
        return;
    }
    const long pair = ((long)(id / SG) * steps * (XMX_K / 2) + j / 2) * SG + id % SG;
    AT1(float, y, row)[j] = bf16_to_f32(w[2 * pair + j % 2]);
}
