/* attn_xpu.cl - queries and keys normalised, rotated and stored; attention over paged keys and values.
 *
 *     attn_store  a work-group is one head of one row
 *     attn        a work-group is one row and up to HEADS query heads of one key head
 *     attn_part   the same for one block of keys; attn_merge puts the blocks together
 *
 * Keys are cut into blocks of BLOCK counted from position 0, and blocks into tiles of ITEMS.  A
 * work-group has an item for each key of a block, which finds its scores with all heads; then an item
 * has one head and COLUMNS columns of the values.  A block starts anew, its tiles are merged as they
 * come, and blocks are merged in ascending order.  All ways of sharing the work do this,
 * attn_prefill_xpu.cl too, so that a row's result depends on its position, its queries and its keys
 * alone.
 *
 * d is a multiple of 8 (the host sees to it).  Lengths and pages lie in device memory; a row whose page or length is out of range is left alone. */

enum {
    ITEMS = 64,          /* ATTN_ITEMS on the host: of a work-group for a head of a row */
    HEADS = 4,           /* ATTN_HEADS on the host                                      */
    BLOCK = 256,         /* ATTN_BLOCK on the host: HEADS * ITEMS, keys and items       */
    TILES = BLOCK / ITEMS,
    MAX_D = 256,
    AHEAD = 8,           /* loaded before they are used                                 */
    EIGHTS = 2,          /* `fours`: rows of bf16 pages lie on 16 bytes; 1: on four
                            elements, and so do queries; 0: neither                     */
    COLUMNS = MAX_D / ITEMS /* of the values in an item, side by side                   */
};

/* --- where a row is ------------------------------------------------------------------------- */

typedef struct {
    int seq, pos; /* pos: of its sequence; seq -1: nothing to do */
} place;

#define PAGES                                                                       \
    TENSOR(seq_start), TENSOR(n_past), TENSOR1(page), int n_seq, int max_block, int n_page, \
        int block_size, int n_row
#define PAGES_HERE fault_, AT0(int, seq_start), AT0(int, n_past), n_seq, max_block, block_size, n_row

/* tell: this item reports what is wrong. */
inline place place_of(FAULTS, const __global int *start, const __global int *past, int n_seq,
                      int max_block, int block_size, int n_row, int row, bool tell) {
    place at = {-1, 0};
    int lo = 0, hi = n_seq; /* the last sequence that starts at or before the row */
    while (lo + 1 < hi) {
        const int mid = lo + (hi - lo) / 2;
        if (start[mid] <= row) lo = mid;
        else hi = mid;
    }
    if (n_seq == 0 || row >= start[lo + 1]) return at;
    const long pos = (long)past[lo] + row - start[lo];
    if (start[lo] < 0 || start[lo] > row || start[lo + 1] > n_row) {
        if (tell) FAULT(ATTN_START, lo + 1, start[lo + 1]);
    } else if (past[lo] < 0 || pos >= (long)max_block * block_size) {
        if (tell) FAULT(ATTN_LENGTH, lo, past[lo]);
    } else {
        at.seq = lo;
        at.pos = (int)pos;
    }
    return at;
}

/* The page of block b of sequence s, or -1. */
inline int page_of(const __global uchar *pages, long row_bytes, int n_page, int s, int b) {
    const int page = ((const __global int *)(pages + s * row_bytes))[b];
    return page >= 0 && page < n_page ? page : -1;
}
#define PAGE(s, b) page_of(page + page_at, page_s0, n_page, s, b)

/* --- attn_store ----------------------------------------------------------------------------- */

__kernel void attn_store(FAULTS, PAGES, TENSOR2(q_out), TENSOR3(k_page), TENSOR3(v_page), TENSOR2(q),
                         TENSOR2(k), TENSOR2(v), TENSOR(q_norm), TENSOR(k_norm), TENSOR1(cs), int hq,
                         int hkv, int d, int rot, int type, float eps) {
    __local float part[ITEMS], y[MAX_D];
    const int item = get_local_id(0), row = get_group_id(1);
    int h = get_group_id(0); /* queries, keys, values */
    const place at = place_of(PAGES_HERE, row, item == 0 && h == 0);
    if (at.seq < 0) return;
    const int block = at.pos / block_size, in = at.pos % block_size;
    const int into = h < hq ? 0 : PAGE(at.seq, block);
    if (into < 0) {
        if (item == 0) FAULT(ATTN_PAGE, at.seq, AT1(int, page, at.seq)[block]);
        return;
    }
    if (h >= hq + hkv) {
        h -= hq + hkv;
        for (int i = item; i < d; i += ITEMS)
            store_as(type, AT3(uchar, v_page, into, h, in), i, AT2(float, v, row, h)[i]);
        return;
    }
    const bool is_q = h < hq;
    h -= is_q ? 0 : hq;
    const __global float *x = is_q ? AT2(float, q, row, h) : AT2(float, k, row, h);
    const __global float *w = is_q ? AT0(float, q_norm) : AT0(float, k_norm);
    const __global float *angle = AT1(float, cs, row);
    __global uchar *to = is_q ? AT2(uchar, q_out, row, h) : AT3(uchar, k_page, into, h, in);
    float sum = 0;
    for (int i = item; i < d; i += ITEMS) sum = fma(x[i], x[i], sum);
    const float f = 1.0f / sqrt(group_sum(sum, part, ITEMS) / (float)d + eps);
    for (int i = item; i < d; i += ITEMS) y[i] = x[i] * f * w[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    const int half_rot = rot / 2;
    for (int i = item; i < d; i += ITEMS) {
        float v_i = y[i];
        if (i < half_rot) v_i = fma(y[i], angle[i], -(y[i + half_rot] * angle[half_rot + i]));
        else if (i < rot) v_i = fma(y[i], angle[i - half_rot], y[i - half_rot] * angle[i]);
        store_as(type, to, i, v_i);
    }
}

/* --- attn ----------------------------------------------------------------------------------- */

/* (m, l, o) of some keys into (M, L, O) of those before: o = sum e^(s - m) v, l = sum e^(s - m). */
inline void merge(float *M, float *L, float4 *O, float m, float l, float4 o) {
    const float most = fmax(*M, m);
    const float before = *M == -INFINITY ? 0.0f : exp(*M - most), now = exp(m - most);
    *M = most;
    *L = fma(before, *L, now * l);
    *O = fma(before, *O, now * o);
}

inline void finish(__global uchar *y, int type, const __global float *gate, int gated, float4 O,
                   float L, int d) {
    const float all[COLUMNS] = {O.x / L, O.y / L, O.z / L, O.w / L};
    const int col = (int)get_local_id(0) % ITEMS * COLUMNS;
    if (col >= d) return;
    for (int c = 0; c < COLUMNS; c++) {
        const int i = col + c;
        store_as(type, y, i, gated ? all[c] * sigmoid(gate[i]) : all[c]);
    }
}

/* Four of bf16. */
inline float4 wide(uint2 v) {
    return (float4)(as_float(v.x << 16), as_float(v.x & 0xffff0000u), as_float(v.y << 16),
                    as_float(v.y & 0xffff0000u));
}

inline float dot_on(float4 a, float4 b, float sum) {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

/* What one work-group needs of a block. */
typedef struct {
    float query[HEADS][MAX_D] BY_FOURS; /* zeros behind the heads                   */
    float p[HEADS][BLOCK] BY_FOURS;     /* scores, then e^(s - maximum of its tile) */
    float part[HEADS][ITEMS];           /* maxima of four scores                    */
    float most[HEADS][TILES], before[HEADS][TILES];
    ulong value_row[BLOCK];
    int   bad;
} shared;

inline void queries_in(__local shared *w, const __global uchar *q, long head_bytes, int type,
                       int n_head, int d) {
    const int item = get_local_id(0);
    for (int g = 0; g < HEADS; g++)
        for (int i = item; i < MAX_D; i += BLOCK)
            w->query[g][i] = g < n_head && i < d ? load_as(type, q + g * head_bytes, i) : 0.0f;
    if (item == 0) w->bad = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
}

#define KEYS                                                                                  \
    __global uchar *page, ulong page_at, long page_s0, int n_page, int block_size,            \
        __global uchar *k_page, ulong k_page_at, long k_page_s0, long k_page_s1, long k_page_s2, \
        __global uchar *v_page, ulong v_page_at, long v_page_s0, long v_page_s1, long v_page_s2
#define KEYS_HERE                                                                             \
    page, page_at, page_s0, n_page, block_size, k_page, k_page_at, k_page_s0, k_page_s1,      \
        k_page_s2, v_page, v_page_at, v_page_s0, v_page_s1, v_page_s2

/* Scores of the item's key, if it is one of the `seen` from `begin` on; false when a page is out of range. */
inline bool scores(FAULTS, __local shared *w, KEYS, int seq, int hk, int begin, int seen, int d, int type,
                   float scale, int fours) {
    const int item = get_local_id(0), size = type == TYPE_F32 ? 4 : 2, pos = begin + item;
    float score[HEADS];
    for (int g = 0; g < HEADS; g++) score[g] = -INFINITY;
    if (item < seen) {
        const int on = PAGE(seq, pos / block_size), in = pos % block_size;
        if (on < 0) {
            FAULT(ATTN_PAGE, seq, AT1(int, page, seq)[pos / block_size]);
            w->bad = 1;
        } else {
            const __global uchar *key = AT3(uchar, k_page, on, hk, in);
            w->value_row[item] = (ulong)(AT3(uchar, v_page, on, hk, in) - v_page);
            for (int g = 0; g < HEADS; g++) score[g] = 0;
            int i = 0;
            if (fours == EIGHTS)
                for (; i + 8 * AHEAD <= d; i += 8 * AHEAD) {
                    uint4 x[AHEAD];
                    for (int e = 0; e < AHEAD; e++) x[e] = ((const __global uint4 *)(key + i * 2))[e];
                    for (int e = 0; e < AHEAD; e++)
                        for (int g = 0; g < HEADS; g++) {
                            const __local float *query = w->query[g] + i + 8 * e;
                            score[g] = dot_on(LOCAL4(query), wide(x[e].xy), score[g]);
                            score[g] = dot_on(LOCAL4(query + 4), wide(x[e].zw), score[g]);
                        }
                }
            for (; i + 4 * AHEAD <= d; i += 4 * AHEAD) {
                float4 x[AHEAD];
                const __global uchar *from[AHEAD];
                for (int e = 0; e < AHEAD; e++) from[e] = key + (i + 4 * e) * size;
                loads4_as(x, AHEAD, type, fours != 0, from);
                for (int e = 0; e < AHEAD; e++)
                    for (int g = 0; g < HEADS; g++)
                        score[g] = dot_on(LOCAL4(w->query[g] + i + 4 * e), x[e], score[g]);
            }
            for (; i < d; i += 4) {
                const float4 x = load4_as(type, fours != 0, key + i * size);
                for (int g = 0; g < HEADS; g++)
                    score[g] = dot_on(LOCAL4(w->query[g] + i), x, score[g]);
            }
            for (int g = 0; g < HEADS; g++) score[g] *= scale;
        }
    }
    for (int g = 0; g < HEADS; g++) w->p[g][item] = score[g];
    barrier(CLK_LOCAL_MEM_FENCE);
    return !w->bad;
}

/* Scores become weights: those of a tile by the largest score up to its end. */
inline void weights(__local shared *w, int seen) {
    const int item = get_local_id(0), head = item / ITEMS, i = item % ITEMS;
    const float4 four = LOCAL4(w->p[head] + 4 * i);
    w->part[head][i] = fmax(fmax(four.x, four.y), fmax(four.z, four.w));
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item < HEADS) {
        float most = -INFINITY;
        for (int t = 0; t * ITEMS < seen; t++) {
            const float last = most;
            for (int j = t * ITEMS / 4; j < (t + 1) * ITEMS / 4; j++)
                most = fmax(most, w->part[item][j]);
            w->most[item][t] = most;
            w->before[item][t] = last == -INFINITY ? 0.0f : exp(last - most);
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item < seen)
        for (int g = 0; g < HEADS; g++)
            w->p[g][item] = exp(w->p[g][item] - w->most[g][item / ITEMS]);
    barrier(CLK_LOCAL_MEM_FENCE);
}

inline void value_on(float *l, float4 *o, float p, float4 x) {
    *l += p;
    *o = fma(p, x, *o);
}

/* m, l, o of the item's head and columns over keys begin .. end - 1 of key head hk; false when a page
 * is out of range. */
inline bool attend(FAULTS, __local shared *w, KEYS, int seq, int hk, int begin, int end, int d, int type,
                   float scale, int fours, float *m, float *l, float4 *o) {
    const int head = get_local_id(0) / ITEMS; /* its items past the last column repeat that one */
    const int col = min((int)get_local_id(0) % ITEMS * COLUMNS, d - COLUMNS);
    const int size = type == TYPE_F32 ? 4 : 2, seen = end - begin;
    *m = -INFINITY;
    *l = 0;
    *o = (float4)(0.0f);
    if (!scores(fault_, w, KEYS_HERE, seq, hk, begin, seen, d, type, scale, fours)) return false;
    weights(w, seen);
    for (int j = 0; j < seen; j += 2 * AHEAD) {
        if (j % ITEMS == 0) {
            const float before = w->before[head][j / ITEMS];
            *m = w->most[head][j / ITEMS];
            *l *= before;
            *o *= before;
        }
        const int n = min(seen - j, 2 * AHEAD);
        if (fours == EIGHTS) {
            uint2 x[2 * AHEAD];
            for (int e = 0; e < 2 * AHEAD; e++)
                x[e] = *(const __global uint2 *)(v_page + w->value_row[j + min(e, n - 1)] + col * 2);
            for (int e = 0; e < 2 * AHEAD; e++)
                if (e < n) value_on(l, o, w->p[head][j + e], wide(x[e]));
            continue;
        }
        for (int i = 0; i < n; i += AHEAD) {
            float4 x[AHEAD];
            const __global uchar *from[AHEAD];
            for (int e = 0; e < AHEAD; e++)
                from[e] = v_page + w->value_row[j + min(i + e, n - 1)] + col * size;
            loads4_as(x, AHEAD, type, fours != 0, from);
            for (int e = 0; e < AHEAD; e++)
                if (i + e < n) value_on(l, o, w->p[head][j + i + e], x[e]);
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE); /* p and value_row are written again */
    return true;
}

/* The heads of a work-group: key head, the first query head, how many. */
inline int3 heads_of(int i, int group) {
    const int per_key = (group + HEADS - 1) / HEADS, first = i % per_key * HEADS;
    return (int3)(i / per_key, i / per_key * group + first, min(group - first, (int)HEADS));
}

__kernel void attn(FAULTS, PAGES, TENSOR2(y), TENSOR2(q), TENSOR2(gate), TENSOR3(k_page),
                   TENSOR3(v_page), int group, int d, int type, int y_type, int gated, float scale,
                   int fours) {
    __local shared w;
    const int item = get_local_id(0), row = get_group_id(1), head = item / ITEMS;
    const int3 h = heads_of(get_group_id(0), group);
    const place at = place_of(PAGES_HERE, row, item == 0 && get_group_id(0) == 0);
    if (at.seq < 0) return;
    queries_in(&w, AT2(uchar, q, row, h.y), q_s1, type, h.z, d);
    float4 O = (float4)(0.0f), o;
    float M = -INFINITY, L = 0, m, l;
    for (int begin = 0; begin <= at.pos; begin += BLOCK) {
        if (!attend(fault_, &w, KEYS_HERE, at.seq, h.x, begin, min(begin + BLOCK, at.pos + 1), d, type,
                    scale, fours, &m, &l, &o))
            return;
        merge(&M, &L, &O, m, l, o);
    }
    if (head < h.z)
        finish(AT2(uchar, y, row, h.y + head), y_type, AT2(float, gate, row, h.y + head), gated, O, L, d);
}

/* part: [n_row][hq][n_block] records m, l, o[d]. */
__kernel void attn_part(FAULTS, PAGES, __global float *part, TENSOR2(q), TENSOR3(k_page),
                        TENSOR3(v_page), int hq, int group, int d, int type, int n_block,
                        float scale, int fours) {
    __local shared w;
    const int item = get_local_id(0), row = get_group_id(1), block = get_group_id(2);
    const int head = item / ITEMS;
    const int3 h = heads_of(get_group_id(0), group);
    const place at = place_of(PAGES_HERE, row, item == 0 && get_group_id(0) == 0 && block == 0);
    const int begin = block * BLOCK;
    if (at.seq < 0 || begin > at.pos) return;
    queries_in(&w, AT2(uchar, q, row, h.y), q_s1, type, h.z, d);
    float4 o;
    float m, l;
    if (!attend(fault_, &w, KEYS_HERE, at.seq, h.x, begin, min(begin + BLOCK, at.pos + 1), d, type, scale,
                fours, &m, &l, &o) || head >= h.z)
        return;
    const int col = item % ITEMS * COLUMNS;
    __global float *to = part + (((long)row * hq + h.y + head) * n_block + block) * (d + 2);
    if (col == 0) to[0] = m, to[1] = l;
    /* One by one: with vstore4() PoCL 3.1 lost what another work-group wrote beside it. */
    const float part_of[COLUMNS] = {o.x, o.y, o.z, o.w};
    for (int c = 0; c < COLUMNS; c++)
        if (col + c < d) to[2 + col + c] = part_of[c];
}

/* AHEAD records are fetched before the first of them is merged; behind the last block there are none. */
__kernel void attn_merge(FAULTS, PAGES, const __global float *part, TENSOR2(y), TENSOR2(gate), int hq,
                         int d, int y_type, int gated, int n_block) {
    const int h = get_group_id(0), row = get_group_id(1);
    const place at = place_of(PAGES_HERE, row, false);
    if (at.seq < 0) return;
    const int n = at.pos / BLOCK + 1, col = min((int)get_local_id(0) * COLUMNS, d - COLUMNS);
    const __global float *records = part + ((long)row * hq + h) * n_block * (d + 2);
    float M = -INFINITY, L = 0;
    float4 O = (float4)(0.0f);
    for (int block = 0; block < n; block += AHEAD) {
        float m[AHEAD], l[AHEAD];
        float4 o[AHEAD];
        for (int e = 0; e < AHEAD; e++) {
            const __global float *from = records + min(block + e, n - 1) * (long)(d + 2);
            m[e] = from[0];
            l[e] = from[1];
            o[e] = load4_as(TYPE_F32, false, from + 2 + col);
        }
        for (int e = 0; e < AHEAD; e++)
            if (block + e < n) merge(&M, &L, &O, m[e], l[e], o[e]);
    }
    finish(AT2(uchar, y, row, h), y_type, AT2(float, gate, row, h), gated, O, L, d);
}
