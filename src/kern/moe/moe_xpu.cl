/* moe_xpu.cl - mixture of experts (moe.h): choosing, sorting by expert, products, adding up.
 *
 * Pairs of a row and a rank are sorted by expert on the device: in moe_sort a work-group is an expert
 * and finds its own pairs, in ascending order.  The products run over the sorted pairs: a work-group
 * has OUT outputs and begins at one place in the order; it works when that is a multiple of ROWS from
 * where its expert's pairs begin, and takes the next ROWS of them.  An output is one sum over the
 * inputs in order, however many rows there are. */

enum {
    ITEMS = 64,     /* of a work-group of moe_route and moe_sort, MOE_ITEMS on the host */
    EXPERTS = 1024,
    OUT = 32,       /* of a work-group of a product, MOE_OUT         */
    ROWS = 16,      /* pairs of one                                  */
    LANES = 4,      /* OUT * LANES items, each with ROWS / LANES pairs */
    DEPTH = 32      /* inputs of a step                              */
};

/* --- route ---------------------------------------------------------------------------------- */

__kernel void moe_route(TENSOR1(expert), TENSOR1(weight), TENSOR1(logits), int n_expert, int top,
                        int normalise) {
    __local float x[EXPERTS], part[ITEMS], chosen[EXPERTS];
    __local int index[ITEMS];
    const int item = get_local_id(0), row = get_group_id(0);
    for (int i = item; i < n_expert; i += ITEMS) {
        const float v = AT1(float, logits, row)[i];
        x[i] = isnan(v) ? -INFINITY : v;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    /* Largest first, the lower index among equals: each pick comes behind the one before. */
    float last = INFINITY;
    int taken = -1;
    for (int r = 0; r < top; r++) {
        int best = -1;
        for (int i = item; i < n_expert; i += ITEMS) {
            const bool behind = x[i] < last || (x[i] == last && i > taken);
            if (behind && (best < 0 || x[i] > x[best])) best = i;
        }
        index[item] = best;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int n = ITEMS / 2; n > 0; n /= 2) {
            if (item < n) {
                const int a = index[item], b = index[item + n];
                if (b >= 0 && (a < 0 || x[b] > x[a] || (x[b] == x[a] && b < a))) index[item] = b;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        taken = index[0];
        last = x[taken];
        if (item == 0) {
            AT1(int, expert, row)[r] = taken;
            chosen[r] = last;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const float most = chosen[0];
    float sum = 0;
    for (int i = item; i < (normalise ? top : n_expert); i += ITEMS)
        sum += exp((normalise ? chosen[i] : x[i]) - most);
    sum = group_sum(sum, part, ITEMS);
    for (int r = item; r < top; r += ITEMS)
        AT1(float, weight, row)[r] = exp(chosen[r] - most) / sum;
}

/* --- sort ----------------------------------------------------------------------------------- */

/* index: pairs row * top + rank by expert [n], their rows [n], where each expert's begin [experts + 1].
 * Pairs of an expert that is out of range are in none of them. */
__kernel void moe_sort(FAULTS, TENSOR1(expert), TENSOR(index), int n, int top, int n_expert) {
    __local int count[ITEMS], before[ITEMS];
    const int item = get_local_id(0), e = get_group_id(0);
    __global int *pair = AT0(int, index), *row = pair + n, *begin = row + n;
    /* Item i has the i-th stretch of the pairs. */
    const int some = (n + ITEMS - 1) / ITEMS, from = min(item * some, n), to = min(from + some, n);
    int less = 0, own = 0;
    for (int i = from; i < to; i++) {
        const int of = AT1(int, expert, i / top)[i % top];
        less += of >= 0 && of < e;
        own += of == e;
        if (e == 0 && (of < 0 || of >= n_expert)) FAULT(MOE_EXPERT, i, of);
    }
    count[item] = own;
    before[item] = less;
    barrier(CLK_LOCAL_MEM_FENCE);
    int at = 0, all = 0;
    for (int i = 0; i < ITEMS; i++) {
        at += before[i] + (i < item ? count[i] : 0);
        all += before[i];
    }
    for (int i = from; i < to; i++)
        if (AT1(int, expert, i / top)[i % top] == e) {
            pair[at] = i;
            row[at++] = i / top;
        }
    if (item == ITEMS - 1) {
        begin[e] = all;
        if (e == n_expert - 1) begin[n_expert] = at;
    }
}

/* --- products ------------------------------------------------------------------------------- */

/* Steps of DEPTH inputs of OUT weight rows from `out` on to local memory, with zeros past the edges. */
inline void weights_in(__local float *to, const __global uchar *data, const __global float *scale,
                       int type, long first, int out, int n, int k0, int k, int scale_cols,
                       int n_scale) {
    for (int i = get_local_id(0); i < OUT * DEPTH; i += OUT * LANES) {
        const int o = out + i / DEPTH, c = k0 + i % DEPTH;
        float w = 0;
        if (o < n && c < k) {
            w = load_as(type, data, (first + o) * k + c);
            if (type == TYPE_F8) w *= scale[(first + o) * n_scale + c / scale_cols];
        }
        to[i / DEPTH * (DEPTH + 1) + i % DEPTH] = w;
    }
}

#define WEIGHT(w) \
    __global uchar *w, __global float *w##_scale, int w##_type, int w##_scale_cols, int w##_n_scale

/* The expert of a place in the order. */
inline int expert_at(const __global int *begin, int n_expert, int place) {
    int lo = 0, hi = n_expert; /* the last that begins at or before it */
    while (lo + 1 < hi) {
        const int mid = lo + (hi - lo) / 2;
        if (begin[mid] <= place) lo = mid;
        else hi = mid;
    }
    return lo;
}

/* h = swiglu(gate_up x).  n: of h. */
__kernel void moe_gate_up(TENSOR(index), TENSOR1(x), TENSOR1(h), WEIGHT(w), int n_pair,
                          int n_expert, int n, int k, int x_type, int h_type) {
    __local float g[OUT * (DEPTH + 1)], u[OUT * (DEPTH + 1)], in[ROWS * DEPTH];
    const __global int *row = AT0(int, index) + n_pair, *begin = row + n_pair;
    const int item = get_local_id(0), place = get_group_id(1), out = (int)get_group_id(0) * OUT;
    if (place >= begin[n_expert]) return;
    const int e = expert_at(begin, n_expert, place);
    if ((place - begin[e]) % ROWS != 0) return;
    const int n_row = min(begin[e + 1] - place, (int)ROWS);
    const int o = item % OUT, m = item / OUT;
    float a[ROWS / LANES] = {0}, b[ROWS / LANES] = {0};
    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        weights_in(g, w, w_scale, w_type, (long)e * 2 * n, out, n, k0, k, w_scale_cols, w_n_scale);
        weights_in(u, w, w_scale, w_type, (long)e * 2 * n + n, out, n, k0, k, w_scale_cols,
                   w_n_scale);
        for (int i = item; i < ROWS * DEPTH; i += OUT * LANES) {
            const int r = i / DEPTH, c = k0 + i % DEPTH;
            in[i] = r < n_row && c < k ? load_as(x_type, AT1(uchar, x, row[place + r]), c) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int c = 0; c < DEPTH; c++) {
            const float wg = g[o * (DEPTH + 1) + c], wu = u[o * (DEPTH + 1) + c];
            for (int r = 0; r < ROWS / LANES; r++) {
                const float v = in[(m + r * LANES) * DEPTH + c];
                a[r] = fma(wg, v, a[r]);
                b[r] = fma(wu, v, b[r]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int r = 0; r < ROWS / LANES; r++) {
        const int at = m + r * LANES;
        if (at < n_row && out + o < n)
            store_as(h_type, AT1(uchar, h, place + at), out + o, silu(a[r]) * b[r]);
    }
}

/* y[pair] = down h. */
__kernel void moe_down(TENSOR(index), TENSOR2(y), TENSOR1(h), WEIGHT(w), int n_pair, int n_expert,
                       int top, int n, int k, int h_type) {
    __local float d[OUT * (DEPTH + 1)], in[ROWS * DEPTH];
    const __global int *pair = AT0(int, index), *begin = pair + 2 * n_pair;
    const int item = get_local_id(0), place = get_group_id(1), out = (int)get_group_id(0) * OUT;
    if (place >= begin[n_expert]) return;
    const int e = expert_at(begin, n_expert, place);
    if ((place - begin[e]) % ROWS != 0) return;
    const int n_row = min(begin[e + 1] - place, (int)ROWS);
    const int o = item % OUT, m = item / OUT;
    float a[ROWS / LANES] = {0};
    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        weights_in(d, w, w_scale, w_type, (long)e * n, out, n, k0, k, w_scale_cols, w_n_scale);
        for (int i = item; i < ROWS * DEPTH; i += OUT * LANES) {
            const int r = i / DEPTH, c = k0 + i % DEPTH;
            in[i] = r < n_row && c < k ? load_as(h_type, AT1(uchar, h, place + r), c) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int c = 0; c < DEPTH; c++) {
            const float wd = d[o * (DEPTH + 1) + c];
            for (int r = 0; r < ROWS / LANES; r++)
                a[r] = fma(wd, in[(m + r * LANES) * DEPTH + c], a[r]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int r = 0; r < ROWS / LANES; r++) {
        const int at = m + r * LANES;
        if (at >= n_row || out + o >= n) continue;
        const int to = pair[place + at];
        AT2(float, y, to / top, to % top)[out + o] = a[r];
    }
}

/* --- combine -------------------------------------------------------------------------------- */

__kernel void moe_combine(TENSOR1(y), TENSOR2(e), TENSOR1(weight), TENSOR1(shared), TENSOR1(gate),
                          int top, int d, int with_shared) {
    const int i = get_global_id(0), row = get_global_id(1);
    if (i >= d) return;
    float sum = AT1(float, y, row)[i];
    for (int r = 0; r < top; r++) sum = fma(AT1(float, weight, row)[r], AT2(float, e, row, r)[i], sum);
    if (with_shared)
        sum = fma(sigmoid(AT1(float, gate, row)[0]), AT1(float, shared, row)[i], sum);
    AT1(float, y, row)[i] = sum;
}
