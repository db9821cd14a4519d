/* attn_prefill_xpu.cl - attention of many rows of a sequence at once.
 *
 * A work-group is one tile: PAIRS pairs of a row and one of the query heads of a key head, against
 * TILE keys at a time.  Slabs of queries and keys lie in local memory, and an item has the scores of
 * 2 x 4; then it has 4 pairs by 8 columns of the values.
 *
 * Every sum is that of attn_xpu.cl, in its order: a score along d, weights and values along the
 * keys, tile by tile, blocks of BLOCK keys counted from position 0 merged in ascending order.  A
 * row's result has the same bits from either file, so what a tile masks is left out, not added as
 * zeros.
 *
 * Tiles of sequence s are those from start[s] / rows + s on, as the next sequence's lie behind. */

enum {
    PAIRS = 32,  /* XPU_ATTN_PAIRS on the host            */
    TILE = 64,   /* keys: ITEMS in attn_xpu.cl            */
    BLOCK = 256, /* as in attn_xpu.cl                     */
    SLAB = 64,   /* of d                                  */
    LD = SLAB + 4, /* eight rows' float4 in different banks */
    HALF = 128   /* columns of an item's first four       */
};

inline float dot_on(float4 a, float4 b, float sum) {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

/* Four values times p, one after the other; the second form leaves out those from `seen` on. */
inline float4 four_on(float4 p, const float4 *v, float4 o) {
    return fma(p.w, v[3], fma(p.z, v[2], fma(p.y, v[1], fma(p.x, v[0], o))));
}
inline float4 seen_on(float4 p, const float4 *v, int seen, float4 o) {
    if (seen > 0) o = fma(p.x, v[0], o);
    if (seen > 1) o = fma(p.y, v[1], o);
    if (seen > 2) o = fma(p.z, v[2], o);
    if (seen > 3) o = fma(p.w, v[3], o);
    return o;
}

/* o[i] += weights of pair i times four columns of the values; keys of the tile from first on. */
inline void values_on(float4 *o, const __local float *weight, const __global uchar *value,
                      const __local ulong *row, int col, int type, bool fours, int n, bool all_seen,
                      const int *pos, int first) {
    for (int j = 0; j < n; j += 4) {
        float4 v[4];
        const __global uchar *from[4];
        for (int e = 0; e < 4; e++) /* those behind the last are left out below */
            from[e] = value + row[min(j + e, n - 1)] + col * (type == TYPE_F32 ? 4 : 2);
        loads4_as(v, 4, type, fours, from);
        for (int i = 0; i < 4; i++) {
            const float4 p = LOCAL4(weight + i * LD + j);
            o[i] = all_seen ? four_on(p, v, o[i]) : seen_on(p, v, pos[i] + 1 - first - j, o[i]);
        }
    }
}

/* The pairs' results of four columns. */
inline void finish(__global uchar *y, int y_type, const __global float *gate, int gated, float4 o,
                   int col) {
    const float v[4] = {o.x, o.y, o.z, o.w};
    for (int e = 0; e < 4; e++)
        store_as(y_type, y, col + e, gated ? v[e] * sigmoid(gate[col + e]) : v[e]);
}

/* Item's elements of a slab: rows (item >> 4) + 16 i of its n rows. */
inline void to_slab(__local float *slab, const float4 *from, int n, int item) {
    for (int i = 0; i < n; i++)
        LOCAL4(slab + ((item >> 4) + 16 * i) * LD + (item & 15) * 4) = from[i];
}

__kernel __attribute__((reqd_work_group_size(256, 1, 1))) void
attn_prefill(FAULTS, TENSOR(seq_start), TENSOR(n_past), TENSOR1(page), int n_seq, int max_block,
             int n_page, int block_size, int n_row, TENSOR2(y), TENSOR2(q), TENSOR2(gate),
             TENSOR3(k_page), TENSOR3(v_page), int group, int heads, int d, int type, int y_type,
             int gated, float scale, int fours) {
    /* queries, then keys; in their place later the scores */
    __local float slab[(PAIRS + TILE) * LD] BY_FOURS;
    __local float part[PAIRS * 9], before[PAIRS], now[PAIRS];
    __local ulong key_row[TILE], value_row[TILE];
    __local int bad;
    const int item = get_local_id(0), per_key = (group + heads - 1) / heads;
    const int hk = (int)get_group_id(0) / per_key, h_in = (int)get_group_id(0) % per_key * heads;
    const int tile = get_group_id(1), rows = PAIRS / heads, n_head = min(heads, group - h_in);
    const int h0 = hk * group + h_in;
    const bool tell = item == 0 && get_group_id(0) == 0;

    const tile_place at = tile_at(fault_, AT0(int, seq_start), AT0(int, n_past), n_seq, n_row, max_block,
                                  block_size, tile, rows, tell);
    if (at.n == 0) return;
    const int s = at.seq, row0 = at.row, n = at.n, pos0 = at.pos, last = pos0 + n - 1;

    /* The item's places: x, y in a product; pair `mine` in the weights; pairs from `low` on and
     * columns col, col + HALF of the values. */
    const int x = (item & 7) | (item >> 5 & 1) << 3, key_at = (item >> 3 & 3) | (item >> 6) << 2;
    const int mine = item >> 3, low = (item >> 5) * 4, col = (item & 31) * 4;
    const bool leads = (item & 7) == 0;
    __local float *scores = slab + PAIRS * LD;
    /* Pairs are row by row; those behind the last row or of no head see nothing. */
#define POSITION(p) ((p) / heads < n && (p) % heads < n_head ? pos0 + (p) / heads : -1)
    const int pos = POSITION(mine);
    int pos_of[4];
    for (int i = 0; i < 4; i++) pos_of[i] = POSITION(low + i);
    const int pos_x[2] = {POSITION(x), POSITION(x + 16)};
    const __global uchar *query[2];
    for (int i = 0; i < 2; i++) {
        const int p = (item >> 4) + 16 * i;
        query[i] = POSITION(p) < 0 ? AT2(uchar, q, row0, h0)
                                   : AT2(uchar, q, row0 + p / heads, h0 + p % heads);
    }
    float4 O0[4], O1[4], o0[4], o1[4]; /* by columns */
    float M = -INFINITY, L = 0, m = -INFINITY, l = 0;
    for (int i = 0; i < 4; i++) O0[i] = O1[i] = o0[i] = o1[i] = (float4)(0.0f);
    if (item == 0) bad = 0;

    for (int first = 0; first <= last; first += TILE) {
        const int seen_all = min(last + 1 - first, (int)TILE);
        barrier(CLK_LOCAL_MEM_FENCE); /* the scores have been read */
        if (item < TILE && item < seen_all) {
            const int b = (first + item) / block_size, in = (first + item) % block_size;
            const int on = AT1(int, page, s)[b];
            if (on < 0 || on >= n_page) {
                FAULT(ATTN_PAGE, s, on);
                bad = 1;
            } else {
                key_row[item] = (ulong)(AT3(uchar, k_page, on, hk, in) - k_page);
                value_row[item] = (ulong)(AT3(uchar, v_page, on, hk, in) - v_page);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (bad) return;

        float acc[2][4] = {{0}};
        for (int d0 = 0; d0 < d; d0 += SLAB) {
            /* Columns from d on are not looked at, keys behind the last and pairs of no row masked. */
            const long at = min(d0 + (item & 15) * 4, d - 4) * (type == TYPE_F32 ? 4 : 2);
            const __global uchar *from[6];
            float4 a[2], k[4];
            for (int i = 0; i < 2; i++) from[i] = query[i] + at;
            for (int i = 0; i < 4; i++)
                from[2 + i] = k_page + key_row[min((item >> 4) + 16 * i, seen_all - 1)] + at;
            loads4_as(a, 2, type, fours, from);
            loads4_as(k, 4, type, fours, from + 2);
            barrier(CLK_LOCAL_MEM_FENCE);
            to_slab(slab, a, 2, item);
            to_slab(slab + PAIRS * LD, k, 4, item);
            barrier(CLK_LOCAL_MEM_FENCE);
            const int end = min(d - d0, (int)SLAB);
            for (int e = 0; e < end; e += 4) {
                float4 r[2];
                for (int i = 0; i < 2; i++) r[i] = LOCAL4(slab + (x + 16 * i) * LD + e);
                for (int j = 0; j < 4; j++) {
                    const float4 c = LOCAL4(slab + (PAIRS + key_at + 16 * j) * LD + e);
                    for (int i = 0; i < 2; i++) acc[i][j] = dot_on(r[i], c, acc[i][j]);
                }
            }
        }

        /* Weights: eight items of a pair find its maximum and have eight of its keys each. */
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 4; j++)
                scores[(x + 16 * i) * LD + key_at + 16 * j] =
                    first + key_at + 16 * j <= pos_x[i] ? acc[i][j] * scale : -INFINITY;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (first % BLOCK == 0) m = -INFINITY, l = 0;
        float most = m;
        for (int j = 0; j < 8; j++) most = fmax(most, scores[mine * LD + (item & 7) * 8 + j]);
        part[mine * 9 + (item & 7)] = most;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int j = 0; j < 8; j++) most = fmax(most, part[mine * 9 + j]);
        for (int j = 0; j < 8; j++) {
            __local float *score = scores + mine * LD + (item & 7) * 8 + j;
            *score = first + (item & 7) * 8 + j <= pos ? exp(*score - most) : 0.0f;
        }
        float fade = 1.0f;
        if (first <= pos) {
            fade = m == -INFINITY ? 0.0f : exp(m - most);
            m = most;
        }
        if (leads) before[mine] = fade;
        barrier(CLK_LOCAL_MEM_FENCE);

        if (leads) {
            l *= fade;
            for (int j = 0; j < seen_all; j++) l += scores[mine * LD + j];
        }
        for (int i = 0; i < 4; i++) {
            const float keep = first % BLOCK == 0 ? 0.0f : before[low + i];
            o0[i] *= keep;
            o1[i] *= keep;
        }
        const bool all_seen = first + TILE - 1 <= pos0 && n == rows && n_head * rows == PAIRS;
        if (col < d)
            values_on(o0, scores + low * LD, v_page, value_row, col, type, fours, seen_all, all_seen,
                      pos_of, first);
        if (col + HALF < d)
            values_on(o1, scores + low * LD, v_page, value_row, col + HALF, type, fours, seen_all,
                      all_seen, pos_of, first);
        if ((first + TILE) % BLOCK != 0 && first + TILE <= last) continue;

        /* The block into those before. */
        const int block = first / BLOCK * BLOCK;
        if (block <= pos) {
            const float top = fmax(M, m), old = M == -INFINITY ? 0.0f : exp(M - top);
            const float new = exp(m - top);
            M = top;
            L = fma(old, L, new * l);
            if (leads) part[mine] = old, now[mine] = new;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 4; i++) {
            if (block > pos_of[i]) continue;
            O0[i] = fma(part[low + i], O0[i], now[low + i] * o0[i]);
            O1[i] = fma(part[low + i], O1[i], now[low + i] * o1[i]);
        }
    }

    barrier(CLK_LOCAL_MEM_FENCE);
    if (leads) before[mine] = L;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < 4; i++) {
        if (pos_of[i] < 0) continue;
        const int row = row0 + (low + i) / heads, h = h0 + (low + i) % heads;
        __global uchar *to = AT2(uchar, y, row, h);
        const __global float *by = AT2(float, gate, row, h);
        if (col < d) finish(to, y_type, by, gated, O0[i] / before[low + i], col);
        if (col + HALF < d) finish(to, y_type, by, gated, O1[i] / before[low + i], col + HALF);
    }
}
