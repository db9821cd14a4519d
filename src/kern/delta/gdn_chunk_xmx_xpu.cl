/* gdn_chunk_xmx_xpu.cl - the delta rule in chunks on the matrix engine (xpu_xmx.cl), for bf16
 * activations and keys of up to 128.  Equations: gdn_chunk_xpu.cl; which chunks there are:
 * gdn_chunk_seq_xpu.cl.
 *
 * Two launches.  chunk_prepare_x has what needs no state, a work-group a chunk and key head, and leaves
 * all that the scan multiplies by as operands A, in the order in which they are read:
 *
 *     K over Q  [8 blocks of 8 rows][8 steps along dk]     once for a chunk and key head
 *     K^T       [16 blocks of 8 of dk][2 steps of tokens]
 *     T'        [4 blocks of 8 rows][2 steps]              for each of its value heads; twice: what
 *     P         [4][2]                                     bf16 has of it, and of the rest
 *     gates     float [4][CHUNK]
 *
 * T' X is little beside what it saves: W = T' diag(exp(G)) K would be another matrix of dk columns for
 * each value head, and would have to be two in bf16.
 *
 * chunk_scan_x takes the chunks of a sequence one after the other.  Four sub-groups have SG value
 * channels of a head and of them the whole state, a quarter of dk each, transposed, as the engine's
 * results in registers: the state, X and U are operands B where they are.  A chunk is
 *
 *     K S^T, Q S^T   sums over one's own quarter, to local memory
 *     X              each of 8 tokens, sums over all of dk first; to local memory as operands
 *     U = T' X       all of it, each
 *     O              each of its 8 tokens
 *     S              each its own quarter
 *
 * The 8 results of the first stand in registers beside the state, of which there is no room for more.
 *
 * Keys and queries are exact in bf16.  The state, X, U and T' are sums of two: cut off after 8 bits,
 * and the rest likewise.  P is rounded: it reaches the output alone, which is rounded to bf16. */

enum {
    D = 128,                       /* of keys; shorter ones have zeros behind             */
    COLUMNS = 16, ITEMS = 64,      /* of a work-group, COLUMNS_X and ITEMS_X on the host  */
    SUB = ITEMS / SG,              /* its sub-groups                                      */
    A_HALVES = XMX_M * XMX_K,      /* of an operand A                                     */
    ROWS = CHUNK / XMX_M,          /* operands of a chunk's rows                          */
    HALVES = CHUNK / XMX_K,        /* steps along a chunk                                 */
    STEPS = D / XMX_K,             /* steps along dk                                      */
    PARTS = 4,                     /* of dk, each with a sub-group of the scan            */
    BLOCKS = D / PARTS / XMX_M,    /* results of a part of the state                      */
    SQUARE = CHUNK * CHUNK, LD = CHUNK + 4, /* T' and P; a row of A in local memory       */
    KEYS = 3 * CHUNK * D,          /* halves of a chunk and key head, KEYS_X on the host  */
    HEAD = 3 * SQUARE + 8 * CHUNK  /* and of a value head, HEAD_X                         */
};

/* Where the compiler is not to unroll what it can: each call of the model has barriers. */
#ifdef SG_EMU
#define EACH(n) __attribute__((opencl_unroll_hint(1)))
#else
#define EACH(n) __attribute__((opencl_unroll_hint(n)))
#endif

/* Where row `row`, column `k` of a matrix lies among its operands A. */
inline int operand_at(int row, int k, int steps) {
    return (row / XMX_M * steps + k / XMX_K) * A_HALVES + row % XMX_M * XMX_K + k % XMX_K;
}

inline uint8 eight(uint4 a, uint4 b) { return (uint8)(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w); }

/* --- before the scan ------------------------------------------------------------------------ */

inline uint8 words8(const __local ushort *p) {
    const __local uint4 *w = (const __local uint4 *)p;
    return eight(w[0], w[1]);
}

/* Row t of a matrix of keys and queries in local memory: its norm's factor. */
inline float norm_of(const __local ushort *kq, int row, float scale) {
    float8 part = 0.0f;
    for (int d = 0; d < D; d += XMX_K) {
        const uint8 w = words8(kq + operand_at(row, d, STEPS));
        const float8 lo = as_float8(w << 16), hi = as_float8(w & 0xffff0000u);
        part = fma(lo, lo, part);
        part = fma(hi, hi, part);
    }
    const float sum = ((part.s0 + part.s1) + (part.s2 + part.s3)) +
                      ((part.s4 + part.s5) + (part.s6 + part.s7));
    return scale / sqrt(sum + 1e-6f);
}

/* Column c of (1 + A)^-1 diag(beta), A lower: as operands A of what bf16 has of it, and of the rest. */
inline void inverse_column(__global ushort *out, const __local float *A, float beta, int c) {
    float T[CHUNK];
    EACH(32) for (int t = 0; t < CHUNK; t++) T[t] = 0.0f;
    EACH(32) for (int t = 0; t < CHUNK; t++) {
        float4 sum = 0.0f;
        EACH(8) for (int j = 0; j < CHUNK; j += 4)
            if (j < t)
                sum = fma(LOCAL4(A + t * LD + j), (float4)(T[j], T[j + 1], T[j + 2], T[j + 3]), sum);
        T[t] = (t == c ? 1.0f : 0.0f) - ((sum.x + sum.y) + (sum.z + sum.w));
        const float v = T[t] * beta, high = as_float(as_uint(v) & 0xffff0000u);
        const int at = operand_at(t, c, HALVES);
        out[at] = (ushort)(as_uint(v) >> 16);
        out[SQUARE + at] = f32_to_bf16(v - high);
    }
}

XMX_KERNEL(SUB) void
chunk_prepare_x(FAULTS, PLAIN_SEQ, __global ushort *work, TENSOR2(q), TENSOR2(k), TENSOR1(b),
                TENSOR1(a), TENSOR(A_log), TENSOR(dt_bias), int n_seq, int r, int kh0, int n_kh,
                int dk, int fours) {
    XMX_BEGIN(SUB);
    __local uint4 room[2 * CHUNK * D / 8]; /* keys and queries, then A of two value heads */
    __local float2 G[2 * CHUNK];
    __local float norm[2 * CHUNK], log_g[2 * CHUNK], beta[2 * CHUNK];
    const int item = (int)get_local_id(0), head = (int)get_group_id(0), chunk = (int)get_group_id(1);
    const int kh = kh0 + head;
    const chunk_place here = chunk_at(PLAIN_SEQ_HERE, n_seq, chunk);
    const int first = here.first, n = here.n;
    if (n == 0) return;
    __global ushort *out = work + ((long)chunk * n_kh + head) * (KEYS + r * HEAD);

    __local ushort *kq = (__local ushort *)room;
    for (int i = item; i < 2 * CHUNK * D / 8; i += ITEMS) { /* what lies outside is read from inside */
        const int row = i / (D / 8), d = i % (D / 8) * 8, t = min(row % CHUNK, n - 1);
        const __global ushort *from = (row < CHUNK ? AT2(ushort, k, first + t, kh)
                                                   : AT2(ushort, q, first + t, kh)) + min(d, dk - 8);
        uint4 v = fours ? vload4(0, (const __global uint *)from) : as_uint4(vload8(0, from));
        if (row % CHUNK >= n || d >= dk) v = 0;
        const int at = operand_at(row, d, STEPS);
        *(__local uint4 *)(kq + at) = v;
        vstore4(v, 0, (__global uint *)(out + at));
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    norm[item] = norm_of(kq, item, item < CHUNK ? 1.0f : 1.0f / sqrt((float)dk));
    for (int i = item; i < D * CHUNK / 2; i += ITEMS) {
        const int d = i / (CHUNK / 2), t = i % (CHUNK / 2) * 2;
        const uint two = kq[operand_at(t, d, STEPS)] | (uint)kq[operand_at(t + 1, d, STEPS)] << 16;
        *(__global uint *)(out + 2 * CHUNK * D + operand_at(d, t, HALVES)) = two;
    }
    /* A sub-group has 8 keys and 8 queries against 2 SG keys. */
    const int row0 = SG_ID % ROWS * XMX_M, from0 = SG_ID / ROWS * 2 * SG + SG_LANE;
    float8 c[2][2]; /* keys, queries; keys beside each other */
    EACH(2) for (int i = 0; i < 2; i++) c[i][0] = c[i][1] = 0.0f;
    for (int step = 0; step < STEPS; step++) {
        int8 b[2];
        EACH(2) for (int z = 0; z < 2; z++)
            b[z] = as_int8(words8(kq + operand_at(from0 + z * SG, step * XMX_K, STEPS)));
        EACH(2) for (int i = 0; i < 2; i++) {
            const xmx_a rows =
                xmx_load_a_local(kq + operand_at(i * CHUNK + row0, step * XMX_K, STEPS));
            EACH(2) for (int z = 0; z < 2; z++) c[i][z] = xmx_mad(rows, b[z], c[i][z]);
        }
    }
    float kk[2][XMX_M], qk[2][XMX_M];
    EACH(2) for (int z = 0; z < 2; z++) {
        vstore8(c[0][z], 0, kk[z]);
        vstore8(c[1][z], 0, qk[z]);
    }

    __local float *A = (__local float *)room;
    const int side = item / CHUNK, own = item % CHUNK;
    for (int pair = 0; pair < r; pair += 2) { /* of two value heads each has half of the items */
        const int h = kh * r + min(pair + side, r - 1), sides = min(r - pair, 2);
        __global ushort *to = out + KEYS + pair * HEAD;
        const bool real = own < n;
        barrier(CLK_LOCAL_MEM_FENCE); /* what was here has been read */
        log_g[item] = real ? log_decay(bf16_to_f32(AT1(ushort, a, first + own)[h]),
                                       AT0(float, A_log)[h], bf16_to_f32(AT0(ushort, dt_bias)[h]))
                           : 0.0f;
        beta[item] = real ? sigmoid(bf16_to_f32(AT1(ushort, b, first + own)[h])) : 0.0f;
        barrier(CLK_LOCAL_MEM_FENCE);
        G[item] = decays_to(log_g + side * CHUNK, own);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int s = 0; s < sides; s++) {
            const __local float2 *at = G + s * CHUNK;
            EACH(2) for (int z = 0; z < 2; z++) EACH(8) for (int i = 0; i < XMX_M; i++) {
                const int row = row0 + i, from = from0 + z * SG;
                const bool seen = from <= row && row < n;
                const float e = seen ? fade(at[from], at[row]) * norm[from] : 0.0f;
                A[(s * CHUNK + row) * LD + from] =
                    from < row ? beta[s * CHUNK + row] * e * norm[row] * kk[z][i] : 0.0f;
                to[s * HEAD + 2 * SQUARE + operand_at(row, from, HALVES)] =
                    f32_to_bf16(e * norm[CHUNK + row] * qk[z][i]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (side < sides) {
            to += side * HEAD;
            gates_to((__global float *)(to + 3 * SQUARE), G + side * CHUNK, norm, own, n);
            inverse_column(to, A + side * CHUNK * LD, beta[item], own);
        }
    }
}

/* --- the scan ------------------------------------------------------------------------------- */

/* Elements d .. d + 7 of a row of the state, zeros behind its end. */
inline float8 state8(const __global uchar *row, int type, int d, int dk) {
    if (d >= dk) return 0.0f;
    switch (type) {
    case TYPE_F32: return vload8(0, (const __global float *)row + d);
    case TYPE_BF16:
        return as_float8(convert_uint8(vload8(0, (const __global ushort *)row + d)) << 16);
    default: return vload_half8(0, (const __global half *)row + d);
    }
}
inline void state8_to(__global uchar *row, int type, int d, int dk, float8 v) {
    if (d >= dk) return;
    switch (type) {
    case TYPE_F32: vstore8(v, 0, (__global float *)row + d); break;
    case TYPE_BF16:
        vstore8((ushort8)(f32_to_bf16(v.s0), f32_to_bf16(v.s1), f32_to_bf16(v.s2), f32_to_bf16(v.s3),
                          f32_to_bf16(v.s4), f32_to_bf16(v.s5), f32_to_bf16(v.s6), f32_to_bf16(v.s7)),
                0, (__global ushort *)row + d);
        break;
    default: vstore_half8_rte(v, 0, (__global half *)row + d);
    }
}

/* Half of an operand B, from 8 rows of values: cut off to bf16, and what is left of them. */
inline uint cut_pair(float lo, float hi) { return as_uint(lo) >> 16 | (as_uint(hi) & 0xffff0000u); }
inline uint4 b_cut(float8 v) {
    return (uint4)(cut_pair(v.s0, v.s1), cut_pair(v.s2, v.s3), cut_pair(v.s4, v.s5),
                   cut_pair(v.s6, v.s7));
}
inline uint4 b_rest(float8 v) { return b_cut(v - as_float8(as_uint8(v) & 0xffff0000u)); }
inline void b_two(int8 *b, float8 upper, float8 lower) {
    b[0] = as_int8(eight(b_cut(upper), b_cut(lower)));
    b[1] = as_int8(eight(b_rest(upper), b_rest(lower)));
}

XMX_KERNEL(SUB) void
chunk_scan_x(FAULTS, PLAIN_SEQ, const __global ushort *work, TENSOR2(core), TENSOR2(v),
             TENSOR3(ssm_state), int r, int kh0, int n_kh, int dk, int type) {
    XMX_BEGIN(SUB);
    /* For the other sub-groups: sums, which all have read at a chunk's second barrier; X, which is
     * written between the two; where a token's outputs go, or -1, likewise. */
    __local float8 all_sums[2 * ROWS * ITEMS];
    __local uint4 all_X[2 * ITEMS];
    __local int token[CHUNK];
    const int part = SG_ID % PARTS, item = SG_ID * SG + SG_LANE, d0 = part * (D / PARTS);
    const int head = (int)get_group_id(1), s = (int)get_group_id(2), h = kh0 * r + head;
    const int c = (int)get_group_id(0) * COLUMNS + SG_ID / PARTS * SG + SG_LANE;
    const bool tell = get_group_id(0) == 0 && head == 0 && kh0 == 0;
    const plain_seq m = plain_sequence(PLAIN_SEQ_HERE, s, tell && item == 0);
    if (m.skip) return;
    if (m.none) {
        for (int i = part; i < m.n; i += PARTS) {
            const int row = token_row(AT0(int, indx), has_indx, m.start + i, n_row);
            if (row >= 0) AT2(ushort, core, row, h)[c] = 0;
        }
        return;
    }
    __local float8 *sums = all_sums + item;
    __local uint4 *X = all_X + item;
    __global uchar *outputs = (__global uchar *)(AT2(ushort, core, 0, h) + c);
    __global uchar *state = AT3(uchar, ssm_state, m.slot, h, c);
    float8 S[BLOCKS];
    EACH(4) for (int i = 0; i < BLOCKS; i++)
        S[i] = m.fresh ? (float8)(0.0f) : state8(state, type, d0 + XMX_M * i, dk);

    const long record = KEYS + r * HEAD;
    const __global ushort *keys = work + ((long)(m.start / CHUNK + s) * n_kh + head / r) * record;
    const __global ushort *own = keys + KEYS + head % r * HEAD;
    for (int t0 = 0; t0 < m.n; t0 += CHUNK, keys += n_kh * record, own += n_kh * record) {
        const int first = m.start + t0, n = min(m.n - t0, (int)CHUNK), t_own = part * XMX_M;
        const __global float *gate = (const __global float *)(own + 3 * SQUARE);

        ushort value[XMX_M]; /* of one's own tokens; what lies behind is read from inside */
        EACH(8) for (int j = 0; j < XMX_M; j++)
            value[j] = AT2(ushort, v, first + min(t_own + j, n - 1), h)[c];

        /* K S^T and Q S^T over this part of dk. */
        const __global ushort *rows_kq = keys + d0 / XMX_K * A_HALVES;
        float8 x[2 * ROWS];
        EACH(8) for (int i = 0; i < 2 * ROWS; i++) x[i] = 0.0f;
        EACH(2) for (int d = 0; d < BLOCKS / 2; d++) {
            int8 b[2];
            b_two(b, S[2 * d], S[2 * d + 1]);
            EACH(8) for (int i = 0; i < 2 * ROWS; i++) {
                const xmx_a rows = xmx_load_a(rows_kq + (i * STEPS + d) * A_HALVES);
                EACH(2) for (int p = 0; p < 2; p++) x[i] = xmx_mad(rows, b[p], x[i]);
            }
        }
        EACH(8) for (int i = 0; i < 2 * ROWS; i++) sums[i * ITEMS] = x[i];
        barrier(CLK_LOCAL_MEM_FENCE);

        /* Of 8 tokens all of dk; X of them, for the others too. */
        float8 xk = 0.0f, o = 0.0f;
        EACH(4) for (int p = 0; p < PARTS; p++) {
            xk += sums[part * ITEMS + (p - part) * SG];
            o += sums[(ROWS + part) * ITEMS + (p - part) * SG];
        }
        xk = as_float8(convert_uint8(vload8(0, value)) << 16) - vload8(0, gate + t_own) * xk;
        X[0] = b_cut(xk), X[ITEMS] = b_rest(xk);
        if (item < CHUNK) {
            const int t = first + item;
            const int row = item < n ? token_row(AT0(int, indx), has_indx, t, n_row) : -1;
            token[item] = row;
            if (tell && item < n && row < 0) FAULT(GDN_ROW, t, has_indx ? AT0(int, indx)[t] : t);
        }
        barrier(CLK_LOCAL_MEM_FENCE);

        float8 u[ROWS];
        EACH(4) for (int i = 0; i < ROWS; i++) u[i] = 0.0f;
        EACH(2) for (int d = 0; d < HALVES; d++) {
            const __local uint4 *from = X + (2 * d - part) * SG;
            int8 b[3];
            b[0] = b[2] = as_int8(eight(from[0], from[SG]));
            b[1] = as_int8(eight(from[ITEMS], from[ITEMS + SG]));
            EACH(4) for (int i = 0; i < ROWS; i++) {
                if (i < 2 * d) continue; /* T' is lower */
                const __global ushort *square = own + (i * HALVES + d) * A_HALVES;
                EACH(3) for (int p = 0; p < 3; p++) /* but rest by rest */
                    u[i] = xmx_mad(xmx_load_a(square + p / 2 * SQUARE), b[p], u[i]);
            }
        }

        const __global ushort *rows_p = own + 2 * SQUARE + part * HALVES * A_HALVES;
        o *= vload8(0, gate + CHUNK + t_own);
        EACH(2) for (int d = 0; d < HALVES; d++) {
            const xmx_a rows = xmx_load_a(rows_p + d * A_HALVES);
            int8 b[2];
            b_two(b, u[2 * d], u[2 * d + 1]);
            EACH(2) for (int p = 0; p < 2; p++) o = xmx_mad(rows, b[p], o);
        }
        float out[XMX_M];
        int row[XMX_M];
        vstore8(o, 0, out);
        vstore8(vload8(0, token + t_own), 0, row);
        EACH(8) for (int j = 0; j < XMX_M; j++)
            if (row[j] >= 0) *(__global ushort *)(outputs + row[j] * core_s0) = f32_to_bf16(out[j]);

        const __global ushort *columns_k = keys + 2 * CHUNK * D + part * BLOCKS * HALVES * A_HALVES;
        const float all = gate[3 * CHUNK];
        EACH(4) for (int i = 0; i < ROWS; i++) u[i] *= vload8(i, gate + 2 * CHUNK);
        EACH(4) for (int i = 0; i < BLOCKS; i++) S[i] *= all;
        EACH(2) for (int d = 0; d < HALVES; d++) {
            int8 b[2];
            b_two(b, u[2 * d], u[2 * d + 1]);
            EACH(4) for (int i = 0; i < BLOCKS; i++) {
                const xmx_a rows = xmx_load_a(columns_k + (i * HALVES + d) * A_HALVES);
                EACH(2) for (int p = 0; p < 2; p++) S[i] = xmx_mad(rows, b[p], S[i]);
            }
        }
    }
    EACH(4) for (int i = 0; i < BLOCKS; i++) state8_to(state, type, d0 + XMX_M * i, dk, S[i]);
}
