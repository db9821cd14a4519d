/* sample_xpu.cl - the k largest values of long rows and the smallest, in two launches:
 *
 *     row ─► top_blocks: a work-group leaves the k best of TILE ─► top_merge: of all those
 *
 * A value and its id make one number: the larger is the better, no two are equal, and 0 is
 * none (NaN, -infinity, past the end).  Each item of a work-group holds EACH of them, and each
 * pair of items says its best.  The k-th of what is said is a bound that k numbers at least
 * reach and 2 k EACH at most, however many values are equal: whoever reaches it has a pair
 * that said no less.  Those are put in order by counting. */

enum {
    ITEMS = 256,
    PAIRS = ITEMS / 2,
    EACH = 16,
    TILE = ITEMS * EACH, /* SAMPLE_TILE on the host */
    MOST = 64            /* GDN_TOP_K_MOST          */
};

#define UNROLL _Pragma("unroll")

/* Floats in the order of unsigned integers, -0 as 0; NaN before all. */
enum { AS_NAN = 0, AS_MINUS_INF = 0x007fffff };
#define AS_INF 0xff800000u

inline uint order_of(uint bits) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) return AS_NAN;
    if (bits == 0x80000000u) bits = 0;
    return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
inline float value_of(uint order) {
    if (order == AS_NAN) return as_float(0x7fc00000u);
    return as_float(order >> 31 != 0 ? order & 0x7fffffffu : ~order);
}
inline ulong number_of(uint order, uint id) {
    return order > AS_MINUS_INF ? (ulong)order << 32 | (uint)~id : 0;
}

/* Of a work-group. */
typedef struct {
    ulong says[PAIRS], list[2 * MOST * EACH], best[MOST];
    uint  n_list, least;
} shared_part;

/* The k best of all items' x in best, the best first, zeros behind the last.  All call it. */
inline void best_of(const ulong *x, int k, __local shared_part *g) {
    const int item = (int)get_local_id(0);
    ulong own = 0;
    UNROLL for (int i = 0; i < EACH; i++) own = max(own, x[i]);
    if (item >= PAIRS) g->says[item - PAIRS] = own;
    if (item == 0) g->n_list = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item < PAIRS) g->says[item] = own = max(own, g->says[item]);
    if (item < k) g->best[item] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    const __local ulong2 *says = (const __local ulong2 *)g->says;
    int before = 0; /* all items count: PoCL breaks a loop whose length differs among them */
    for (int i = 0; i < PAIRS / 2; i++) before += (says[i].x > own) + (says[i].y > own);
    if (item < PAIRS && before < k && own != 0) g->best[before] = own;
    barrier(CLK_LOCAL_MEM_FENCE);
    const ulong bound = max(g->best[k - 1], (ulong)1);
    UNROLL for (int i = 0; i < EACH; i++)
        if (x[i] >= bound) g->list[atomic_inc(&g->n_list)] = x[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    /* No fewer than have said something: each of their places in best gets another number. */
    const int n = (int)g->n_list;
    for (int i = item; i < n; i += ITEMS) {
        const ulong v = g->list[i];
        int ahead = 0;
        for (int j = 0; j < n; j++) ahead += g->list[j] > v;
        if (ahead < k) g->best[ahead] = v;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* The least of all items' in g->least, for item 0. */
inline void least_of(uint least, __local shared_part *g) {
    atomic_min(&g->least, least);
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* work, of each row: [blocks][k] numbers, then what is the least of each block. */
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void top_blocks(TENSOR1(x), TENSOR(n_valid), __global ulong *work, int n, int k, int some) {
    __local shared_part g BY_FOURS;
    const int item = (int)get_local_id(0), n_block = (int)get_num_groups(0);
    const int block = (int)get_group_id(0), row = (int)get_group_id(1);
    const uint end = (uint)(some ? clamp(AT0(int, n_valid)[row], 0, n) : n);
    const __global uint *in = AT1(uint, x, row);
    __global ulong *out = work + (long)row * n_block * (k + 1);
    if (item == 0) g.least = AS_INF;
    ulong v[EACH];
    uint least = AS_INF;
    UNROLL for (int i = 0; i < EACH; i++) {
        const uint id = (uint)block * TILE + (uint)(i * ITEMS + item);
        const uint order = order_of(in[min(id, (uint)n - 1)]);
        v[i] = id < end ? number_of(order, id) : 0;
        least = id < end ? min(least, order) : least;
    }
    best_of(v, k, &g);
    least_of(least, &g);
    if (item < k) out[(long)block * k + item] = g.best[item];
    if (item == 0) out[(long)n_block * k + block] = g.least;
}

/* A tile holds the best so far, from the second one on, and what comes next of the rest. */
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void top_merge(TENSOR1(value), TENSOR1(id), TENSOR(found), TENSOR(smallest),
               const __global ulong *work, int n_block, int k) {
    __local shared_part g BY_FOURS;
    const int item = (int)get_local_id(0), row = (int)get_group_id(0), n = n_block * k;
    const __global ulong *in = work + (long)row * n_block * (k + 1);
    if (item == 0) g.least = AS_INF;
    uint least = AS_INF;
    for (int i = item; i < n_block; i += ITEMS) least = min(least, (uint)in[n + i]);
    int held = 0;
    for (int at = 0; at < n;) {
        ulong v[EACH];
        UNROLL for (int i = 0; i < EACH; i++) {
            const int place = i * ITEMS + item, from = at + place - held;
            v[i] = place < held ? g.best[place] : from < n ? in[from] : 0;
        }
        best_of(v, k, &g);
        at += TILE - held;
        held = k;
    }
    least_of(least, &g);
    if (item == 0) {
        AT0(float, smallest)[row] = value_of(g.least);
        if (g.best[0] == 0) AT0(int, found)[row] = 0;
    }
    if (item >= k) return;
    const ulong v = g.best[item];
    AT1(float, value, row)[item] = v != 0 ? value_of((uint)(v >> 32)) : -INFINITY;
    AT1(int, id, row)[item] = v != 0 ? (int)~(uint)v : -1;
    if (v != 0 && (item == k - 1 || g.best[item + 1] == 0)) AT0(int, found)[row] = item + 1;
}
