/* attn_xpu.cl - queries and keys normalised, rotated and stored; attention over paged keys and values.
 *
 *     attn_store  a work-group is one head of one row
 *     attn        a work-group is one row and up to HEADS query heads of one key head
 *     attn_part   the same for one block of keys; attn_merge puts the blocks together
 *
 * Keys are cut into blocks of BLOCK counted from position 0, and blocks into tiles of as many keys as
 * there are items: each item has one key's scores, then COLUMNS columns of the values.  A block
 * starts anew, its tiles are merged as they come, and blocks are merged in ascending order.  All ways
 * of sharing the work do this, attn_prefill_xpu.cl too, so that a row's result depends on its
 * position, its queries and its keys alone.
 *
 * Lengths and pages lie in device memory; a row whose page or length is out of range is left alone. */

enum {
    ITEMS = 64,          /* of a work-group, ATTN_ITEMS on the host */
    HEADS = 4,           /* ATTN_HEADS on the host                  */
    BLOCK = 256,         /* ATTN_BLOCK on the host                  */
    MAX_D = 256,
    AHEAD = 8,           /* values loaded before they are used      */
    COLUMNS = MAX_D / ITEMS /* of the values in an item, side by side */
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
    for (int c = 0; c < COLUMNS; c++) {
        const int i = (int)get_local_id(0) * COLUMNS + c;
        if (i < d) store_as(type, y, i, gated ? all[c] * sigmoid(gate[i]) : all[c]);
    }
}

/* Four elements from i on; those from d on are zeros.  fours: p is a multiple of four elements. */
inline float4 four_of(int type, bool fours, const __global uchar *p, int i, int d) {
    if (i + 4 <= d) return load4_as(type, fours, p + i * (type == TYPE_F32 ? 4 : 2));
    return (float4)(i < d ? load_as(type, p, i) : 0.0f, i + 1 < d ? load_as(type, p, i + 1) : 0.0f,
                    i + 2 < d ? load_as(type, p, i + 2) : 0.0f, 0.0f);
}

inline float dot_on(float4 a, float4 b, float sum) {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

/* What one work-group needs of a block. */
typedef struct {
    float query[HEADS][MAX_D] BY_FOURS; /* zeros behind d and the heads */
    float score[HEADS][ITEMS], p[HEADS][ITEMS];
    ulong value_row[ITEMS];
    int   bad;
} shared;

inline void queries_in(__local shared *w, const __global uchar *q, long head_bytes, int type,
                       int n_head, int d) {
    const int item = get_local_id(0);
    for (int g = 0; g < HEADS; g++)
        for (int i = item; i < MAX_D; i += ITEMS)
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

/* m, l, o of keys begin .. end - 1 of key head hk; false when a page is out of range. */
inline bool attend(FAULTS, __local shared *w, KEYS, int seq, int hk, int n_head, int begin, int end,
                   int d, int type, float scale, bool fours, float *m, float *l, float4 *o) {
    const int item = get_local_id(0), size = type == TYPE_F32 ? 4 : 2;
    for (int g = 0; g < HEADS; g++) {
        m[g] = -INFINITY;
        l[g] = 0;
        o[g] = (float4)(0.0f);
    }
    for (int first = begin; first < end; first += ITEMS) {
        const int pos = first + item, seen = min(end - first, (int)ITEMS);
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
                for (; i + 4 * AHEAD <= d; i += 4 * AHEAD) {
                    float4 x[AHEAD];
                    const __global uchar *from[AHEAD];
                    for (int e = 0; e < AHEAD; e++) from[e] = key + (i + 4 * e) * size;
                    loads4_as(x, AHEAD, type, fours, from);
                    for (int e = 0; e < AHEAD; e++)
                        for (int g = 0; g < HEADS; g++)
                            score[g] = dot_on(LOCAL4(w->query[g] + i + 4 * e), x[e], score[g]);
                }
                for (; i < d; i += 4) { /* behind d there are zeros in both */
                    const float4 x = four_of(type, fours, key, i, d);
                    for (int g = 0; g < HEADS; g++)
                        score[g] = dot_on(LOCAL4(w->query[g] + i), x, score[g]);
                }
                for (int g = 0; g < HEADS; g++) score[g] *= scale;
            }
        }
        for (int g = 0; g < HEADS; g++) w->score[g][item] = score[g];
        barrier(CLK_LOCAL_MEM_FENCE);
        if (w->bad) return false;
        /* All items find the same maximum: reading it all costs less than a tree of barriers. */
        for (int g = 0; g < HEADS; g++) {
            float most = m[g];
            for (int j = 0; j < seen; j++) most = fmax(most, w->score[g][j]);
            w->p[g][item] = item < seen ? exp(score[g] - most) : 0.0f;
            const float before = m[g] == -INFINITY ? 0.0f : exp(m[g] - most);
            m[g] = most;
            l[g] *= before;
            o[g] *= before;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int j = 0; j < seen; j += AHEAD) {
            float4 x[AHEAD];
            const __global uchar *from[AHEAD];
            for (int e = 0; e < AHEAD; e++) from[e] = v_page + w->value_row[min(j + e, seen - 1)];
            if (d % COLUMNS == 0) {
                for (int e = 0; e < AHEAD; e++) from[e] += min(item * COLUMNS, d - COLUMNS) * size;
                loads4_as(x, AHEAD, type, fours, from);
            } else {
                for (int e = 0; e < AHEAD; e++)
                    x[e] = four_of(type, fours, from[e], item * COLUMNS, d);
            }
            for (int e = 0; e < AHEAD; e++)
                for (int g = 0; g < HEADS; g++)
                    if (j + e < seen) {
                        l[g] += w->p[g][j + e];
                        o[g] = fma(w->p[g][j + e], x[e], o[g]);
                    }
        }
        barrier(CLK_LOCAL_MEM_FENCE); /* p and value_row are written again */
    }
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
    const int item = get_local_id(0), row = get_group_id(1);
    const int3 h = heads_of(get_group_id(0), group);
    const place at = place_of(PAGES_HERE, row, item == 0 && get_group_id(0) == 0);
    if (at.seq < 0) return;
    queries_in(&w, AT2(uchar, q, row, h.y), q_s1, type, h.z, d);
    float4 O[HEADS], o[HEADS];
    float M[HEADS], L[HEADS], m[HEADS], l[HEADS];
    for (int g = 0; g < HEADS; g++) {
        M[g] = -INFINITY;
        L[g] = 0;
        O[g] = (float4)(0.0f);
    }
    for (int begin = 0; begin <= at.pos; begin += BLOCK) {
        if (!attend(fault_, &w, KEYS_HERE, at.seq, h.x, h.z, begin, min(begin + BLOCK, at.pos + 1), d,
                    type, scale, fours != 0, m, l, o))
            return;
        for (int g = 0; g < HEADS; g++) merge(&M[g], &L[g], &O[g], m[g], l[g], o[g]);
    }
    for (int g = 0; g < HEADS; g++)
        if (g < h.z)
            finish(AT2(uchar, y, row, h.y + g), y_type, AT2(float, gate, row, h.y + g), gated, O[g],
                   L[g], d);
}

/* part: [n_row][hq][n_block] records m, l, o[d]. */
__kernel void attn_part(FAULTS, PAGES, __global float *part, TENSOR2(q), TENSOR3(k_page),
                        TENSOR3(v_page), int hq, int group, int d, int type, int n_block,
                        float scale, int fours) {
    __local shared w;
    const int item = get_local_id(0), row = get_group_id(1), block = get_group_id(2);
    const int3 h = heads_of(get_group_id(0), group);
    const place at = place_of(PAGES_HERE, row, item == 0 && get_group_id(0) == 0 && block == 0);
    const int begin = block * BLOCK;
    if (at.seq < 0 || begin > at.pos) return;
    queries_in(&w, AT2(uchar, q, row, h.y), q_s1, type, h.z, d);
    float4 o[HEADS];
    float m[HEADS], l[HEADS];
    if (!attend(fault_, &w, KEYS_HERE, at.seq, h.x, h.z, begin, min(begin + BLOCK, at.pos + 1), d,
                type, scale, fours != 0, m, l, o))
        return;
    for (int g = 0; g < HEADS; g++) {
        if (g >= h.z) continue;
        __global float *to = part + (((long)row * hq + h.y + g) * n_block + block) * (d + 2);
        if (item == 0) to[0] = m[g], to[1] = l[g];
        const float part_of[COLUMNS] = {o[g].x, o[g].y, o[g].z, o[g].w};
        for (int c = 0; c < COLUMNS; c++)
            if (item * COLUMNS + c < d) to[2 + item * COLUMNS + c] = part_of[c];
    }
}

__kernel void attn_merge(FAULTS, PAGES, const __global float *part, TENSOR2(y), TENSOR2(gate), int hq,
                         int d, int y_type, int gated, int n_block) {
    const int item = get_local_id(0), h = get_group_id(0), row = get_group_id(1);
    const place at = place_of(PAGES_HERE, row, false);
    if (at.seq < 0) return;
    float M = -INFINITY, L = 0;
    float4 O = (float4)(0.0f);
    for (int block = 0; block * BLOCK <= at.pos; block++) {
        const __global float *from = part + (((long)row * hq + h) * n_block + block) * (d + 2);
        merge(&M, &L, &O, from[0], from[1], four_of(TYPE_F32, false, (const __global uchar *)(from + 2), item * COLUMNS, d));
    }
    finish(AT2(uchar, y, row, h), y_type, AT2(float, gate, row, h), gated, O, L, d);
}
