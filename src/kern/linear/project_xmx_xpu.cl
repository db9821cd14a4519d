/* project_xmx_xpu.cl - projections of up to 8 rows in one launch: the norm before a product with
 * packed weights, the product, swiglu or an addition behind it, with the bits of norm_xpu.cl,
 * linear_xmx_xpu.cl and act_xpu.cl one after the other.
 *
 * Each work-group has the rows in local memory, in bf16 and in the order in which the engine wants
 * them: [steps][n_row][16].  An operand is one block load of 8 rows for any n_row: what it has for
 * rows from n_row on is some other step's, and only gives rows that are not stored.  256 bytes
 * behind the rows are for the last step. */

enum {
    PARTS = 8,                   /* as in linear_xmx_xpu.cl */
    ITEMS = PARTS * SG,
    LANES = NORM_ITEMS,          /* that a norm's sum is cut for, whatever ITEMS is */
    B_WORDS = XMX_K / 2 * SG
};

inline __local ushort *place(__local ushort *rows, int n_row, int r, int i) {
    return rows + (i / XMX_K * n_row + r) * XMX_K + i % XMX_K;
}

/* Row r of n_head heads of d, or of one: x f(head) w, times silu(z). */
inline void normed_row(__local ushort *rows, int n_row, int r, const __global uchar *x, long x_head,
                       const __global uchar *z, long z_head, const __global float *w, int gated,
                       int n_head, int d, float eps, __local float *part) {
    const bool alone = d > NORM_SHORT; /* a head has all lanes, or a line of them */
    const int step = alone ? LANES : SUM_LINE;
    for (int first = 0; first < n_head; first += alone ? 1 : LANES / SUM_LINE) {
        for (int l = (int)get_local_id(0); l < LANES; l += ITEMS) {
            const int head = alone ? first : first + l / SUM_LINE;
            part[l] = head < n_head ? squares((const __global float *)(x + head * x_head), d,
                                              alone ? l : l % SUM_LINE, step)
                                    : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int l = (int)get_local_id(0); l < LANES; l += ITEMS) {
            const int head = alone ? first : first + l / SUM_LINE;
            if (head >= n_head) continue;
            const float f = norm_factor(lanes_sum(part, l, alone), d, eps);
            const __global float *in = (const __global float *)(x + head * x_head);
            const __global float *gate = (const __global float *)(z + head * z_head);
            for (int i = alone ? l : l % SUM_LINE; i < d; i += step) {
                float v = in[i] * f * w[i];
                if (gated) v *= silu(gate[i]);
                *place(rows, n_row, r, head * d + i) = f32_to_bf16(v);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* Four steps are loaded before the first is used, as in linear_rows. */
inline float8 own_part(XMX_PARAM const __local ushort *a, int a_halves, const __global uint *b,
                       int n) {
    float8 c = 0.0f;
    int s = 0;
    for (; s + 4 <= n; s += 4, a += 4 * a_halves, b += 4 * B_WORDS) {
        const int8 b0 = xmx_load_b(b), b1 = xmx_load_b(b + B_WORDS);
        const int8 b2 = xmx_load_b(b + 2 * B_WORDS), b3 = xmx_load_b(b + 3 * B_WORDS);
        const xmx_a a0 = xmx_load_a_local(a), a1 = xmx_load_a_local(a + a_halves);
        const xmx_a a2 = xmx_load_a_local(a + 2 * a_halves), a3 = xmx_load_a_local(a + 3 * a_halves);
        c = xmx_mad(a0, b0, c);
        c = xmx_mad(a1, b1, c);
        c = xmx_mad(a2, b2, c);
        c = xmx_mad(a3, b3, c);
    }
    for (; s < n; s++, a += a_halves, b += B_WORDS)
        c = xmx_mad(xmx_load_a_local(a), xmx_load_b(b), c);
    return c;
}

/* Groups (columns of SG outputs; with swiglu those of the gate, of whole columns).  norm 0: x has the
 * inputs as they are, bf16.  room: the rows, then PARTS of n_row x SG sums, with swiglu twice. */
XMX_KERNEL(PARTS) void project_rows(TENSOR1(y), TENSOR2(x), TENSOR2(z), TENSOR(norm_w),
                                    __global const uint *w, int n, int k, int steps, int n_row,
                                    int add, int norm, int gated, int n_head, int swiglu,
                                    int y_type, float eps, __local uint4 *room) {
    XMX_BEGIN(PARTS);
    __local float norm_part[LANES];
    __local ushort *rows = (__local ushort *)room;
    __local float *part = (__local float *)(rows + (steps * n_row + XMX_M) * XMX_K);
    const int column = (int)get_group_id(0), item = (int)get_local_id(0);
    for (int r = 0; r < n_row; r++) {
        if (norm)
            normed_row(rows, n_row, r, AT1(uchar, x, r), x_s1, AT1(uchar, z, r), z_s1,
                       AT0(float, norm_w), gated, n_head, k / n_head, eps, norm_part);
        else
            for (int i = item; i < k; i += ITEMS)
                *place(rows, n_row, r, i) = AT1(ushort, x, r)[i];
        for (int i = k + item; i < steps * XMX_K; i += ITEMS) *place(rows, n_row, r, i) = 0;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const int own = steps / PARTS, from = SG_ID * own, a_halves = n_row * XMX_K, out = column * SG;
    const int sums = n_row * SG, results = swiglu ? 2 : 1;
    for (int i = 0; i < results; i++) {
        const long b = (long)(i == 0 ? column : n / 2 / SG + column) * steps + from;
        float c[XMX_M];
        vstore8(own_part(XMX_PASS rows + from * a_halves, a_halves, w + b * B_WORDS, own), 0, c);
        __local float *to = part + (i * PARTS + SG_ID) * sums + SG_LANE;
        __attribute__((opencl_unroll_hint(8)))
        for (int r = 0; r < XMX_M; r++)
            if (r < n_row) to[r * SG] = c[r];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const int r = SG_ID, o = out + SG_LANE; /* a sub-group has a row */
    if (r >= n_row || o >= (swiglu ? n / 2 : n)) return;
    float all = part[item], up = 0.0f;
    for (int p = 1; p < PARTS; p++) all += part[p * sums + item];
    if (swiglu) {
        up = part[PARTS * sums + item];
        for (int p = 1; p < PARTS; p++) up += part[(PARTS + p) * sums + item];
        store_as(y_type, AT1(uchar, y, r), o, silu(all) * up);
        return;
    }
    __global float *to = AT1(float, y, r) + o;
    *to = add ? *to + all : all;
}
