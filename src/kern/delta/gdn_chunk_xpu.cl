/* gdn_chunk_xpu.cl - the delta rule in chunks, for plain sequences of gdn_attention and of its second
 * stage.  Equations: delta_chunk.h; contract: op.h.
 *
 * Two launches.  The first is parallel over chunks and key heads and has what needs no state:
 *
 *     E_ij = exp(G_i - G_j)     T' = (1 + tril(diag(beta) E K K^T, -1))^-1 diag(beta)
 *     P = tril(E Q K^T)
 *
 * for each value head of the key head.  The second takes the chunks of a sequence one after the other,
 * a work-group COLUMNS value channels of a head (rows of the state):
 *
 *     X = V - diag(exp(G)) K S^T     U = T' X     O = diag(exp(G)) Q S^T + P U
 *     S = exp(G_last) S + U^T diag(exp(G_last - G)) K
 *
 * K and Q are read as they are, and the norms' factors go with the decays.  All sums are f32.  A
 * work-group has its part of the state in registers, 4 x 4 (rows above 128: twice) in an item, and
 * shows a slab of it to all when they multiply by it.
 *
 * Rows of a short last chunk beyond its tokens are zeros in K, Q, T' and P, and G_last is that of the
 * last token.
 *
 * Which chunks there are: gdn_chunk_seq_xpu.cl. */

enum {
    COLUMNS = 32,        /* of the state in a work-group, as on the host            */
    ITEMS = 256,         /* of a work-group, too                                    */
    WORK = 2 * CHUNK * CHUNK + 4 * CHUNK, /* floats of a chunk and value head, too  */
    SLAB = 64,           /* of dk                                                   */
    HALF = 128,          /* of dk in one set of a state's registers                 */
    /* Strides of rows in local memory: a float4 of eight rows lies in different banks. */
    LD_SLAB = SLAB + 4, LD_HALF = HALF + 4, LD_CHUNK = CHUNK + 4
};

/* --- products ------------------------------------------------------------------------------- */

inline void out4(int type, __global void *p, long i, float4 v) {
    switch (type) {
    case TYPE_F32: vstore4(v, 0, (__global float *)p + i); break;
    case TYPE_BF16:
        vstore4((ushort4)(f32_to_bf16(v.x), f32_to_bf16(v.y), f32_to_bf16(v.z), f32_to_bf16(v.w)), 0,
                (__global ushort *)p + i);
        break;
    default: vstore_half4_rte(v, 0, (__global half *)p + i);
    }
}

inline float dot_on(float4 a, float4 b, float sum) {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

/* An item's part of a product of rows: x = row group, y = column group, 0 .. 15 each.  Eight rows
 * and four columns stand side by side in 32 items. */
inline int2 place(int item) {
    return (int2)((item & 7) | (item >> 5 & 1) << 3, (item >> 3 & 3) | (item >> 6) << 2);
}

/* acc[i][j] += row x + 16 i of a times row y + 16 j of b, n elements each. */
inline void multiply4(float acc[4][2], const __local float *a, const __local float *b, int ld, int n,
                      int2 at) {
    for (int d = 0; d < n; d += 4) {
        float4 r[4];
        for (int i = 0; i < 4; i++) r[i] = LOCAL4(a + (at.x + 16 * i) * ld + d);
        for (int j = 0; j < 2; j++) {
            const float4 c = LOCAL4(b + (at.y + 16 * j) * ld + d);
            for (int i = 0; i < 4; i++) acc[i][j] = dot_on(r[i], c, acc[i][j]);
        }
    }
}

/* The same for two rows. */
inline void multiply2(float acc[2][2], const __local float *a, const __local float *b, int ld, int n,
                      int2 at) {
    for (int d = 0; d < n; d += 4) {
        float4 r[2];
        for (int i = 0; i < 2; i++) r[i] = LOCAL4(a + (at.x + 16 * i) * ld + d);
        for (int j = 0; j < 2; j++) {
            const float4 c = LOCAL4(b + (at.y + 16 * j) * ld + d);
            for (int i = 0; i < 2; i++) acc[i][j] = dot_on(r[i], c, acc[i][j]);
        }
    }
}

/* A slab of the chunk's keys (rows 0 .. CHUNK - 1) and queries (the rows behind): an item has four
 * elements of rows (item >> 4) + 16 i.  What lies outside is read from inside, and zeros. */
inline void slab_in(float4 *to, const __global uchar *k, long k_row, const __global uchar *q,
                    long q_row, int type, bool fours, int n, int d, int dk, int item) {
    const int size = type == TYPE_F32 ? 4 : 2;
    const __global uchar *from[4];
    d += (item & 15) * 4;
    for (int i = 0; i < 4; i++) {
        const int t = min((item >> 4) + 16 * (i & 1), n - 1);
        from[i] = (i < 2 ? k + t * k_row : q + t * q_row) + min(d, dk - 4) * size;
    }
    loads4_as(to, 4, type, fours, from);
    for (int i = 0; i < 4; i++)
        if ((item >> 4) + 16 * (i & 1) >= n || d >= dk) to[i] = (float4)(0.0f);
}
inline void slab_to(__local float *tile, const float4 *from, int item) {
    for (int i = 0; i < 4; i++)
        LOCAL4(tile + ((item >> 4) + 16 * i) * LD_SLAB + (item & 15) * 4) = from[i];
}

/* --- before the scan: a chunk and key head -------------------------------------------------- */

__kernel __attribute__((reqd_work_group_size(256, 1, 1))) void
chunk_prepare(FAULTS, PLAIN_SEQ, __global float *work, TENSOR2(q), TENSOR2(k), TENSOR1(b), TENSOR1(a),
              TENSOR(A_log), TENSOR(dt_bias), int n_seq, int r, int kh0, int n_kh, int dk, int act,
              int fours) {
    __local float tile[2 * CHUNK * LD_SLAB] BY_FOURS, part[2 * CHUNK * 17], norm[2 * CHUNK];
    __local float2 G[CHUNK];
    __local float log_g[CHUNK], beta[CHUNK];
    const int item = get_local_id(0), head = get_group_id(0), chunk = get_group_id(1);
    const int kh = kh0 + head;
    const chunk_place here = chunk_at(PLAIN_SEQ_HERE, n_seq, chunk);
    const int first = here.first, n = here.n;
    if (n == 0) return;
    const __global uchar *keys = AT2(uchar, k, first, kh), *queries = AT2(uchar, q, first, kh);
    const int2 at = place(item);

    float4 x[4];
    float acc[4][2] = {{0}}, sum[4] = {0};
    for (int d = 0; d < dk; d += SLAB) {
        slab_in(x, keys, k_s0, queries, q_s0, act, fours, n, d, dk, item);
        for (int i = 0; i < 4; i++) sum[i] = dot_on(x[i], x[i], sum[i]);
        barrier(CLK_LOCAL_MEM_FENCE);
        slab_to(tile, x, item);
        barrier(CLK_LOCAL_MEM_FENCE);
        multiply4(acc, tile, tile, LD_SLAB, min(dk - d, (int)SLAB), at);
    }
    for (int i = 0; i < 4; i++) part[((item >> 4) + 16 * i) * 17 + (item & 15)] = sum[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item < 2 * CHUNK) {
        float all = 1e-6f;
        for (int i = 0; i < 16; i++) all += part[item * 17 + i];
        norm[item] = (item < CHUNK ? 1.0f : 1.0f / sqrt((float)dk)) / sqrt(all);
    }

    __local float *A = tile, *T = tile + CHUNK * LD_CHUNK;
    for (int i = 0; i < r; i++) {
        const int h = kh * r + i;
        __global float *out = work + ((long)chunk * n_kh * r + head * r + i) * WORK;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < CHUNK) {
            const bool real = item < n;
            log_g[item] = real ? log_decay(load_as(act, AT1(uchar, a, first + item), h),
                                           AT0(float, A_log)[h], load_as(act, AT0(uchar, dt_bias), h))
                               : 0.0f;
            beta[item] = real ? sigmoid(load_as(act, AT1(uchar, b, first + item), h)) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < CHUNK) G[item] = decays_to(log_g, item);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int y = 0; y < 2; y++)
            for (int z = 0; z < 2; z++) {
                const int to = at.x + 16 * y, from = at.y + 16 * z;
                const bool seen = from <= to && to < n;
                const float e = seen ? fade(G[from], G[to]) * norm[from] : 0.0f;
                A[to * LD_CHUNK + from] = from < to ? beta[to] * e * norm[to] * acc[y][z] : 0.0f;
                out[CHUNK * CHUNK + to * CHUNK + from] = e * norm[CHUNK + to] * acc[2 + y][z];
            }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < CHUNK) { /* a column of the inverse */
            for (int t = 0; t < CHUNK; t++) {
                float sum_t = t == item ? 1.0f : 0.0f;
                for (int j = item; j < t; j++)
                    sum_t = fma(-A[t * LD_CHUNK + j], T[j * LD_CHUNK + item], sum_t);
                T[t * LD_CHUNK + item] = sum_t;
            }
            gates_to(out + 2 * CHUNK * CHUNK, G, norm, item, n);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int j = item; j < CHUNK * CHUNK; j += ITEMS)
            out[j] = T[(j >> 5) * LD_CHUNK + (j & 31)] * beta[j & 31];
    }
}

/* --- the scan: some columns of a head ------------------------------------------------------- */

/* An item's part of the state: x = dk / 4, columns y + 8 i. */
inline int2 state_place(int item) {
    return (int2)((item & 7) | (item >> 5 & 3) << 3, (item >> 3 & 3) | (item >> 7) << 2);
}

/* Elements d .. d + 3 of rows 0, 8, .. of a state that has n more rows, zeros beyond. */
inline void state_in(float4 *S, const __global uchar *row, long row_bytes, int n, int type, int d,
                     int dk) {
    const int size = type == TYPE_F32 ? 4 : 2;
    for (int i = 0; i < 4; i++) {
        S[i] = (float4)(0.0f);
        if (8 * i < n && d < dk) S[i] = load4_as(type, false, row + 8 * i * row_bytes + d * size);
    }
}
inline void state_out(__global uchar *row, const float4 *S, long row_bytes, int n, int type, int d,
                      int dk) {
    for (int i = 0; i < 4; i++)
        if (8 * i < n && d < dk) out4(type, row + 8 * i * row_bytes, d, S[i]);
}
inline void state_to(__local float *slab, const float4 *S, int d, int y) {
    if (d < 0 || d >= SLAB) return;
    for (int i = 0; i < 4; i++) LOCAL4(slab + (y + 8 * i) * LD_SLAB + d) = S[i];
}

/* Keys of a half of dk, times tail: rows (item >> 5) + 8 i, four elements of each. */
inline void half_in(float4 *to, const __global uchar *k, long k_row, int type, bool fours, int n,
                    int d, int dk, int item) {
    const int size = type == TYPE_F32 ? 4 : 2;
    const __global uchar *from[4];
    d += (item & 31) * 4;
    for (int i = 0; i < 4; i++)
        from[i] = k + min((item >> 5) + 8 * i, n - 1) * k_row + min(d, dk - 4) * size;
    loads4_as(to, 4, type, fours, from);
    for (int i = 0; i < 4; i++)
        if ((item >> 5) + 8 * i >= n || d >= dk) to[i] = (float4)(0.0f);
}
inline void half_to(__local float *keys, const float4 *from, const __local float *tail, int item) {
    for (int i = 0; i < 4; i++) {
        const int t = (item >> 5) + 8 * i;
        LOCAL4(keys + t * LD_HALF + (item & 31) * 4) = from[i] * tail[t];
    }
}

/* Values of tokens x, x + 16 and columns v0 + y, v0 + y + 16; zeros outside, read from inside. */
inline void values_in(float to[2][2], const __global uchar *v, long v_row, int type, int n, int v0,
                      int dv, int2 at) {
    const __global uchar *row[2];
    int c[2];
    for (int i = 0; i < 2; i++) {
        row[i] = v + min(at.x + 16 * i, n - 1) * v_row;
        c[i] = min(v0 + at.y + 16 * i, dv - 1);
    }
    if (type == TYPE_BF16) {
        ushort x[2][2];
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) x[i][j] = ((const __global ushort *)row[i])[c[j]];
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) to[i][j] = bf16_to_f32(x[i][j]);
    } else {
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) to[i][j] = load_as(type, row[i], c[j]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            if (at.x + 16 * i >= n || v0 + at.y + 16 * j >= dv) to[i][j] = 0;
}

/* S = all S + U^T K over n tokens. */
inline void update(float4 *S, float all, const __local float *U, const __local float *keys, int n,
                   int2 at) {
    for (int i = 0; i < 4; i++) S[i] *= all;
    for (int t = 0; t < n; t += 4) {
        float4 key[4];
        for (int j = 0; j < 4; j++) key[j] = LOCAL4(keys + (t + j) * LD_HALF + 4 * at.x);
        for (int i = 0; i < 4; i++) {
            const float4 u = LOCAL4(U + (at.y + 8 * i) * LD_CHUNK + t);
            S[i] = fma(u.x, key[0], S[i]);
            S[i] = fma(u.y, key[1], S[i]);
            S[i] = fma(u.z, key[2], S[i]);
            S[i] = fma(u.w, key[3], S[i]);
        }
    }
}

__kernel __attribute__((reqd_work_group_size(256, 1, 1))) void
chunk_scan(FAULTS, PLAIN_SEQ, const __global float *work, TENSOR2(core), TENSOR2(v),
           TENSOR3(ssm_state), int r, int kh0, int n_kh, int dk, int type, TENSOR2(q), TENSOR2(k),
           int dv, int act, int fours) {
    /* keys and queries, or half of the keys; the state, or T' and P; X, later U; gates */
    __local float tile[2 * CHUNK * LD_SLAB] BY_FOURS, wide[2 * CHUNK * LD_CHUNK] BY_FOURS;
    __local float X[COLUMNS * LD_CHUNK] BY_FOURS, gate[3 * CHUNK];
    const int item = get_local_id(0), v0 = (int)get_group_id(0) * COLUMNS, head = get_group_id(1);
    const int s = get_group_id(2), h = kh0 * r + head, kh = h / r;
    const plain_seq m =
        plain_sequence(PLAIN_SEQ_HERE, s, item == 0 && v0 == 0 && head == 0 && kh0 == 0);
    if (m.skip) return;
    if (m.none) {
        for (int i = item; i < m.n * COLUMNS; i += ITEMS) {
            const int row = token_row(AT0(int, indx), has_indx, m.start + (i >> 5), n_row);
            const int c = v0 + (i & 31);
            if (row >= 0 && c < dv) store_as(act, AT2(uchar, core, row, h), c, 0.0f);
        }
        return;
    }
    const int2 at = place(item), own = state_place(item);
    /* Sets by name: an array of them that is indexed would not stay in registers. */
    float4 S0[4], S1[4], x[4];
    __global uchar *state = AT3(uchar, ssm_state, m.slot, h, v0 + own.y);
    const int rows = dv - v0 - own.y;
    state_in(S0, state, ssm_state_s2, rows, type, 4 * own.x, m.fresh ? 0 : dk);
    state_in(S1, state, ssm_state_s2, rows, type, HALF + 4 * own.x, m.fresh ? 0 : dk);

    const __global float *from = work + ((long)(m.start / CHUNK + s) * n_kh * r + head) * WORK;
    for (int t0 = 0; t0 < m.n; t0 += CHUNK, from += (long)n_kh * r * WORK) {
        const int first = m.start + t0, n = min(m.n - t0, (int)CHUNK);
        const __global uchar *keys = AT2(uchar, k, first, kh), *queries = AT2(uchar, q, first, kh);
        const float all = from[2 * CHUNK * CHUNK + 3 * CHUNK];
        float acc[4][2] = {{0}}, value[2][2];
        float4 tp[2];
        slab_in(x, keys, k_s0, queries, q_s0, act, fours, n, 0, dk, item);
        for (int i = 0; i < 2; i++) tp[i] = vload4(item + ITEMS * i, from);
        values_in(value, AT2(uchar, v, first, h), v_s0, act, n, v0, dv, at);
        for (int d = 0; d < dk; d += SLAB) {
            barrier(CLK_LOCAL_MEM_FENCE); /* what was here has been read */
            if (d == 0 && item < 3 * CHUNK) gate[item] = from[2 * CHUNK * CHUNK + item];
            slab_to(tile, x, item);
            state_to(wide, S0, 4 * own.x - d, own.y);
            state_to(wide, S1, HALF + 4 * own.x - d, own.y);
            barrier(CLK_LOCAL_MEM_FENCE);
            if (d + SLAB < dk)
                slab_in(x, keys, k_s0, queries, q_s0, act, fours, n, d + SLAB, dk, item);
            else half_in(x, keys, k_s0, act, fours, n, 0, dk, item);
            multiply4(acc, tile, wide, LD_SLAB, min(dk - d, (int)SLAB), at);
        }

        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 2; i++)
            LOCAL4(wide + ((item >> 3) + CHUNK * i) * LD_CHUNK + (item & 7) * 4) = tp[i];
        half_to(tile, x, gate + 2 * CHUNK, item);
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++)
                X[(at.y + 16 * j) * LD_CHUNK + at.x + 16 * i] =
                    fma(-gate[at.x + 16 * i], acc[i][j], value[i][j]);
        barrier(CLK_LOCAL_MEM_FENCE);
        float u[2][2] = {{0}}, o[2][2];
        multiply2(u, wide, X, LD_CHUNK, CHUNK, at);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) {
                X[(at.y + 16 * j) * LD_CHUNK + at.x + 16 * i] = u[i][j];
                o[i][j] = gate[CHUNK + at.x + 16 * i] * acc[2 + i][j];
            }
        barrier(CLK_LOCAL_MEM_FENCE);
        multiply2(o, wide + CHUNK * LD_CHUNK, X, LD_CHUNK, CHUNK, at);
        for (int i = 0; i < 2; i++) {
            const int t = first + at.x + 16 * i;
            if (at.x + 16 * i >= n) continue;
            const int row = token_row(AT0(int, indx), has_indx, t, n_row);
            if (row < 0 && at.y == 0) FAULT(GDN_ROW, t, has_indx ? AT0(int, indx)[t] : t);
            for (int j = 0; j < 2; j++) {
                const int c = v0 + at.y + 16 * j;
                if (row >= 0 && c < dv) store_as(act, AT2(uchar, core, row, h), c, o[i][j]);
            }
        }
        update(S0, all, X, tile, n, own);
        if (dk > HALF) {
            half_in(x, keys, k_s0, act, fours, n, HALF, dk, item);
            barrier(CLK_LOCAL_MEM_FENCE);
            half_to(tile, x, gate + 2 * CHUNK, item);
            barrier(CLK_LOCAL_MEM_FENCE);
            update(S1, all, X, tile, n, own);
        }
    }

    state_out(state, S0, ssm_state_s2, rows, type, 4 * own.x, dk);
    state_out(state, S1, ssm_state_s2, rows, type, HALF + 4 * own.x, dk);
}
