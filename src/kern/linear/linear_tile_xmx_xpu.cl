/* linear_tile_xmx_xpu.cl - products of many rows, as linear_xmx_xpu.cl has it: the same sums.
 *
 * A sub-group keeps 4 x 2 results of the engine for the part at hand and 4 x 2 for the parts before
 * it: with the operands of a step more than 128 registers, so this file is compiled for 256. */

enum {
    PARTS = 8,
    DOWN = 2, ACROSS = 4, /* sub-groups of a work-group */
    ROWS = 32,            /* of a sub-group             */
    COLUMNS = 2,          /* blocks of SG outputs       */
    A_HALVES = XMX_M * XMX_K,
    B_WORDS = XMX_K / 2 * SG
};

inline void store_rows(__global uchar *y, ulong y_at, long y_s0, float8 c, int row, int n_row,
                       int out, int n, int add) {
    float v[XMX_M];
    vstore8(c, 0, v);
    if (out >= n) return;
    __attribute__((opencl_unroll_hint(8)))
    for (int i = 0; i < XMX_M; i++)
        if (row + i < n_row) {
            __global float *to = AT1(float, y, row + i) + out;
            *to = add ? *to + v[i] : v[i];
        }
}

/* Groups (stretches of ACROSS * COLUMNS blocks of outputs, of DOWN * ROWS rows). */
XMX_KERNEL(DOWN * ACROSS) void linear_tile(TENSOR1(y), __global const ushort *x,
                                           __global const uint *w, int n, int steps, int n_row,
                                           int add) {
    XMX_BEGIN(DOWN * ACROSS);
    const int columns = (n + SG - 1) / SG, own = steps / PARTS;
    const int down = (int)get_group_id(1) * DOWN + SG_ID / ACROSS;
    const int across = ((int)get_group_id(0) * ACROSS + SG_ID % ACROSS) * COLUMNS;
    const long block = (long)steps * A_HALVES, column = (long)steps * B_WORDS;
    const __global ushort *a = x + (long)down * (ROWS / XMX_M) * block;
    /* Past the edge: computed, not stored. */
    const __global uint *b0 = w + min(across, columns - 1) * column;
    const __global uint *b1 = w + min(across + 1, columns - 1) * column;
    float8 t00, t10, t20, t30, t01, t11, t21, t31;
    for (int p = 0; p < PARTS; p++) {
        float8 c00 = 0.0f, c10 = 0.0f, c20 = 0.0f, c30 = 0.0f;
        float8 c01 = 0.0f, c11 = 0.0f, c21 = 0.0f, c31 = 0.0f;
        for (int s = 0; s < own; s++) {
            const int8 v0 = xmx_load_b(b0), v1 = xmx_load_b(b1);
            const xmx_a a0 = xmx_load_a(a), a1 = xmx_load_a(a + block);
            const xmx_a a2 = xmx_load_a(a + 2 * block), a3 = xmx_load_a(a + 3 * block);
            c00 = xmx_mad(a0, v0, c00), c10 = xmx_mad(a1, v0, c10);
            c20 = xmx_mad(a2, v0, c20), c30 = xmx_mad(a3, v0, c30);
            c01 = xmx_mad(a0, v1, c01), c11 = xmx_mad(a1, v1, c11);
            c21 = xmx_mad(a2, v1, c21), c31 = xmx_mad(a3, v1, c31);
            a += A_HALVES;
            b0 += B_WORDS;
            b1 += B_WORDS;
        }
        if (p == 0) {
            t00 = c00, t10 = c10, t20 = c20, t30 = c30;
            t01 = c01, t11 = c11, t21 = c21, t31 = c31;
        } else {
            t00 += c00, t10 += c10, t20 += c20, t30 += c30;
            t01 += c01, t11 += c11, t21 += c21, t31 += c31;
        }
    }
    const int row = down * ROWS, o0 = across * SG + SG_LANE, o1 = o0 + SG;
    store_rows(y, y_at, y_s0, t00, row, n_row, o0, n, add);
    store_rows(y, y_at, y_s0, t10, row + XMX_M, n_row, o0, n, add);
    store_rows(y, y_at, y_s0, t20, row + 2 * XMX_M, n_row, o0, n, add);
    store_rows(y, y_at, y_s0, t30, row + 3 * XMX_M, n_row, o0, n, add);
    store_rows(y, y_at, y_s0, t01, row, n_row, o1, n, add);
    store_rows(y, y_at, y_s0, t11, row + XMX_M, n_row, o1, n, add);
    store_rows(y, y_at, y_s0, t21, row + 2 * XMX_M, n_row, o1, n, add);
    store_rows(y, y_at, y_s0, t31, row + 3 * XMX_M, n_row, o1, n, add);
}
