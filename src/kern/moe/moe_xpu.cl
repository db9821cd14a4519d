/* moe_xpu.cl - mixture of experts (moe.h): choosing, sorting by expert, adding up; the experts'
 * products are in experts_xpu.cl. */

enum {
    ITEMS = 64,     /* of a work-group of moe_route, MOE_ITEMS on the host  */
    EXPERTS = 1024, /* at most, MOE_EXPERTS there                           */
    SORTERS = 256,  /* items of moe_sort, MOE_SORTERS there                 */
    CHUNK = 4096,   /* pairs that it has in local memory                    */
    NONE = 0xffff
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

/* index, for n pairs row * top + rank:
 *
 *     pair [n]                by expert, those of an expert in ascending order
 *     block [n_block]         where what a work-group takes begins: `rows` pairs of an expert, or the
 *                             rest; -1 behind the last.  Room for n
 *     begin [n_expert + 1]    where each expert's begin
 *
 * Pairs of an expert that is out of range are in none of them.  One work-group; an item has a stretch
 * of the experts, for which it looks through the pairs, CHUNK of them at a time in local memory. */
__kernel void moe_sort(FAULTS, TENSOR1(expert), TENSOR(index), int n, int top, int n_expert,
                       int rows, int n_block) {
    __local int count[EXPERTS], n_pair[SORTERS], n_own[SORTERS];
    __local ushort8 eight[CHUNK / 8];
    __local ushort *of = (__local ushort *)eight;
    const int item = get_local_id(0);
    __global int *pair = AT0(int, index), *block = pair + n, *begin = block + n;
    for (int e = item; e < n_expert; e += SORTERS) count[e] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < n; i += SORTERS) {
        const int e = AT1(int, expert, i / top)[i % top];
        if (e >= 0 && e < n_expert) atomic_inc(&count[e]);
        else FAULT(MOE_EXPERT, i, e);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const int some = (n_expert + SORTERS - 1) / SORTERS, from = min(item * some, n_expert),
              to = min(from + some, n_expert);
    int at = 0, b = 0, all = 0;
    for (int e = from; e < to; e++) {
        at += count[e];
        b += (count[e] + rows - 1) / rows;
    }
    n_pair[item] = at;
    n_own[item] = b;
    barrier(CLK_LOCAL_MEM_FENCE);
    at = b = 0;
    for (int i = 0; i < SORTERS; i++) {
        at += i < item ? n_pair[i] : 0;
        b += i < item ? n_own[i] : 0;
        all += n_own[i];
    }
    for (int e = from; e < to; e++) {
        const int end = at + count[e];
        count[e] = begin[e] = at; /* from now on where its next pair goes */
        for (; at < end; at += rows) block[b++] = at;
        at = end;
    }
    if (item == SORTERS - 1) begin[n_expert] = at;
    for (int i = all + item; i < n_block; i += SORTERS) block[i] = -1;
    for (int first = 0; first < n; first += CHUNK) {
        for (int i = item; i < CHUNK && first + i < (n + 7) / 8 * 8; i += SORTERS) {
            const int p = first + i;
            const int e = p < n ? AT1(int, expert, p / top)[p % top] : -1;
            of[i] = e >= 0 && e < n_expert ? e : NONE;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = from; e < to; e++) {
            int next = count[e];
            for (int i = 0; i < CHUNK && first + i < n; i += 8) {
                if (!any(eight[i / 8] == (ushort8)e)) continue;
                for (int j = i; j < i + 8; j++)
                    if (of[j] == e) pair[next++] = first + j;
            }
            count[e] = next;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
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
