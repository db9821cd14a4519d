/* attn_prefill_xmx_xpu.cl - attention over paged bf16 keys and values, heads of 256, on the matrix
 * engine (xpu_xmx.cl); for many rows of a sequence as for one.
 *
 * A work-group is one tile: PAIRS pairs of a row and one of up to 8 query heads of a key head,
 * against BLOCK keys at a time, counted from position 0:
 *
 *     scores    Q K^T; a sub-group has SG keys at a time.  B's pairs lie along d, where a key's
 *               values lie together: an item reads its key as it is.
 *     weights   a sub-group has pairs; e^(s - m) of the block, rounded to bf16, in place of the
 *               queries, which are read again for the next.  Their sum is that of the rounded ones.
 *     values    P V; a sub-group has 2 SG columns.  B's pairs lie along the keys: words of two rows,
 *               each two columns side by side, are put together to one B of even columns and one
 *               of odd ones.
 *
 * The engine's rows know nothing of each other, each block is summed from zero in steps of 16 keys,
 * and a block's (m, l, o) is merged into those before in ascending order, by the arithmetic of
 * attn_merge.  So a row's result depends on its position, its queries and its keys alone, whatever
 * the tile; and blocks may be work-groups of their own, whose results attn_merge puts together.
 * Masked keys have weight zero, which adds nothing to a sum; their values are finite, as they are
 * rows of the same sequence.  Those behind the tile's last row are not read.
 *
 * Tiles of sequence s are those from start[s] / rows + s on, as the next sequence's lie behind. */

enum {
    SUB = 128 / SG,               /* sub-groups of a work-group: X_ITEMS on the host      */
    PAIRS = 2 * XMX_M,            /* of two operands A, X_PAIRS on the host               */
    OWN = PAIRS / SUB,            /* of them a sub-group's                                */
    BLOCK = 256,                  /* as in attn_xpu.cl, whose ATTN_BLOCK is the host's    */
    D = 256,
    STEPS = BLOCK / XMX_K,        /* of a block's keys, and of D                          */
    A_HALVES = XMX_M * XMX_K, A_WORDS = A_HALVES / 2 /* of an operand A                   */
};

/* Word c of pair p in operands A [2][STEPS][8 rows][8 words]. */
#define A_WORD(p, c) (((p) / XMX_M * STEPS + (c) / 8) * A_WORDS + (p) % XMX_M * 8 + (c) % 8)

/* Rows of C, BLOCK apart; columns of neighbours are `apart`. */
inline void put_apart(__local float *to, int apart, float8 c) {
    to += SG_LANE * apart;
    to[0] = c.s0, to[BLOCK] = c.s1, to[2 * BLOCK] = c.s2, to[3 * BLOCK] = c.s3;
    to[4 * BLOCK] = c.s4, to[5 * BLOCK] = c.s5, to[6 * BLOCK] = c.s6, to[7 * BLOCK] = c.s7;
}

/* part: NULL, or for blocks as work-groups of their own [n_row][hq][n_block] records m, l, o[D]. */
XMX_KERNEL(SUB) void
attn_tile(FAULTS, TENSOR(seq_start), TENSOR(n_past), TENSOR1(page), int n_seq, int max_block,
          int n_page, int block_size, int n_row, __global float *part, TENSOR2(y), TENSOR2(q),
          TENSOR2(gate), TENSOR3(k_page), TENSOR3(v_page), int hq, int group, int heads, int y_type,
          int gated, int n_block, float scale) {
    XMX_BEGIN(SUB);
    __local ushort operand[PAIRS * D] __attribute__((aligned(16))); /* A: queries, then weights */
    __local float score[PAIRS * BLOCK] __attribute__((aligned(16)));
    __local float old[PAIRS], new[PAIRS];
    __local ulong key_at[STEPS], value_at[STEPS]; /* a page has whole steps */
    __local int bad;
    const int item = (int)get_local_id(0), lane = SG_LANE;
    const int per_key = (group + heads - 1) / heads;
    const int hk = (int)get_group_id(0) / per_key, h_in = (int)get_group_id(0) % per_key * heads;
    const int tile = (int)get_group_id(1), rows = PAIRS / heads, n_head = min(heads, group - h_in);
    const int h0 = hk * group + h_in, own_block = (int)get_group_id(2);
    const bool tell = item == 0 && get_group_id(0) == 0 && own_block == 0;

    const tile_place at = tile_at(fault_, AT0(int, seq_start), AT0(int, n_past), n_seq, n_row, max_block,
                                  block_size, tile, rows, tell);
    if (at.n == 0) return;
    const int s = at.seq, row0 = at.row, n = at.n, pos0 = at.pos, last = pos0 + n - 1;
    const int begin = own_block * BLOCK, end = part != NULL ? min(begin + BLOCK, last + 1) : last + 1;
    if (begin > last) return;
    /* Pairs are row by row; those behind the last row see nothing. */
#define POSITION(p) ((p) / heads < n && (p) % heads < n_head ? pos0 + (p) / heads : -1)

    if (item == 0) bad = 0;
    float M[OWN], L[OWN]; /* of pairs SG_ID + SUB i */
    __attribute__((opencl_unroll_hint(2)))
    for (int i = 0; i < OWN; i++) M[i] = -INFINITY, L[i] = 0;
    float8 even0 = 0.0f, odd0 = 0.0f, even1 = 0.0f, odd1 = 0.0f; /* columns of pairs 0 on, 8 on */

    for (int first = begin; first < end; first += BLOCK) {
        const int seen = min(end - first, (int)BLOCK), steps = (seen + XMX_K - 1) / XMX_K;
        barrier(CLK_LOCAL_MEM_FENCE); /* the block before has been read */
        for (int i = item; i < PAIRS * D / 2; i += SUB * SG) {
            const int p = i / (D / 2), c = i % (D / 2);
            ((__local uint *)operand)[A_WORD(p, c)] =
                POSITION(p) < 0 ? 0 : AT2(uint, q, row0 + p / heads, h0 + p % heads)[c];
        }
        if (item < steps) {
            const int at = first + item * XMX_K, in = at % block_size;
            const int on = AT1(int, page, s)[at / block_size];
            if (on < 0 || on >= n_page) {
                FAULT(ATTN_PAGE, s, on);
                bad = 1;
            } else {
                key_at[item] = (ulong)(AT3(uchar, k_page, on, hk, in) - k_page);
                value_at[item] = (ulong)(AT3(uchar, v_page, on, hk, in) - v_page);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (bad) return;

        for (int c = 0; c < seen; c += SUB * SG) {
            const int column = c + SG_ID * SG, key = min(column + lane, seen - 1);
            const __global ushort *k = (const __global ushort *)(
                k_page + key_at[key / XMX_K] + key % XMX_K * k_page_s2);
            float8 c0 = 0.0f, c1 = 0.0f;
#ifndef SG_EMU /* where it takes long to compile */
            __attribute__((opencl_unroll_hint(4)))
#endif
            for (int step = 0; step < D / XMX_K; step++) {
                const __local ushort *a = operand + step * A_HALVES;
                const int8 b = xmx_b_of_row(k + step * XMX_K);
                c0 = xmx_mad(xmx_load_a_local(a), b, c0);
                c1 = xmx_mad(xmx_load_a_local(a + STEPS * A_HALVES), b, c1);
            }
            put_apart(score + column, 1, c0 * scale);
            put_apart(score + XMX_M * BLOCK + column, 1, c1 * scale);
        }
        barrier(CLK_LOCAL_MEM_FENCE);

        __attribute__((opencl_unroll_hint(2)))
        for (int i = 0; i < OWN; i++) {
            const int p = SG_ID + SUB * i, at = POSITION(p) - first;
            const __local float *from = score + p * BLOCK;
            float most = -INFINITY, sum = 0;
            for (int key = 2 * lane; key < BLOCK; key += 2 * SG) {
                if (key <= at) most = fmax(most, from[key]);
                if (key + 1 <= at) most = fmax(most, from[key + 1]);
            }
            most = sg_max(most);
            for (int c = lane; c < BLOCK / 2; c += SG) {
                const int key = 2 * c;
                const uint two = xmx_pair(key <= at ? exp(from[key] - most) : 0.0f,
                                          key + 1 <= at ? exp(from[key + 1] - most) : 0.0f);
                ((__local uint *)operand)[A_WORD(p, c)] = two;
                sum += bf16_to_f32((ushort)two);
                sum += bf16_to_f32((ushort)(two >> 16));
            }
            sum = sg_sum(sum);
            float before = 1.0f, now = 0.0f;
            if (at >= 0) {
                const float top = fmax(M[i], most);
                before = M[i] == -INFINITY ? 0.0f : exp(M[i] - top);
                now = exp(most - top);
                M[i] = top;
                L[i] = fma(before, L[i], now * sum);
            }
            if (lane == 0) old[p] = before, new[p] = now;
        }
        barrier(CLK_LOCAL_MEM_FENCE);

        const __global uchar *v = v_page + SG_ID * SG * 4;
        float8 e0 = 0.0f, o0 = 0.0f, e1 = 0.0f, o1 = 0.0f;
        for (int step = 0; step < steps; step++) {
            const __global uchar *from = v + value_at[step];
            const int left = seen - 1 - step * XMX_K; /* the rows behind are not ours */
#define ROW(i) xmx_load_word(from + min(i, left) * v_page_s2)
            const uint8 a = (uint8)(ROW(0), ROW(2), ROW(4), ROW(6), ROW(8), ROW(10), ROW(12), ROW(14));
            const uint8 b = (uint8)(ROW(1), ROW(3), ROW(5), ROW(7), ROW(9), ROW(11), ROW(13), ROW(15));
#undef ROW
            const int8 even = as_int8((a & 0xffffu) | b << 16);
            const int8 odd = as_int8(a >> 16 | (b & 0xffff0000u));
            const __local ushort *p = operand + step * A_HALVES;
            const xmx_a a0 = xmx_load_a_local(p);
            e0 = xmx_mad(a0, even, e0);
            o0 = xmx_mad(a0, odd, o0);
            const xmx_a a1 = xmx_load_a_local(p + STEPS * A_HALVES);
            e1 = xmx_mad(a1, even, e1);
            o1 = xmx_mad(a1, odd, o1);
        }
        const float8 old0 = vload8(0, old), new0 = vload8(0, new);
        even0 = fma(old0, even0, new0 * e0);
        odd0 = fma(old0, odd0, new0 * o0);
        const float8 old1 = vload8(1, old), new1 = vload8(1, new);
        even1 = fma(old1, even1, new1 * e1);
        odd1 = fma(old1, odd1, new1 * o1);
    }

    barrier(CLK_LOCAL_MEM_FENCE);
    __local float *result = score + SG_ID * SG * 2; /* [PAIRS][D] */
    put_apart(result, 2, even0);
    put_apart(result + 1, 2, odd0);
    put_apart(result + XMX_M * BLOCK, 2, even1);
    put_apart(result + XMX_M * BLOCK + 1, 2, odd1);
    for (int i = 0; i < OWN; i++)
        if (lane == 0) old[SG_ID + SUB * i] = M[i], new[SG_ID + SUB * i] = L[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < PAIRS * D; i += SUB * SG) {
        const int p = i / D, col = i % D, row = row0 + p / heads, h = h0 + p % heads;
        if (POSITION(p) < begin) continue;
        if (part != NULL) {
            __global float *to = part + (((long)row * hq + h) * n_block + own_block) * (D + 2);
            if (col == 0) to[0] = old[p], to[1] = new[p];
            to[2 + col] = score[i];
        } else {
            const float v = score[i] / new[p];
            store_as(y_type, AT2(uchar, y, row, h), col,
                     gated ? v * sigmoid(AT2(float, gate, row, h)[col]) : v);
        }
    }
}
