/* gdn_chunk_seq_xpu.cl - the plain sequences of gdn_attention as chunks, and the decays of a chunk's
 * tokens; it stands before the kernels of both tiers (gdn_chunk_xpu.cl, gdn_chunk_xmx_xpu.cl).
 *
 * Chunks of sequence s are those from start[s] / CHUNK + s on.  The next sequence's lie behind. */

enum { CHUNK = 32 }; /* as on the host */

typedef struct {
    long slot;
    int  start, n;
    bool fresh, none, skip;
} plain_seq;

#define PLAIN_SEQ                                                                        \
    TENSOR(loc), TENSOR(indx), TENSOR(slot), TENSOR(initial), int n_token, int n_row,    \
        int slots, int null_slot, int has_indx, int has_initial
#define PLAIN_SEQ_HERE                                                                   \
    fault_, AT0(int, loc), AT0(int, slot), AT0(uchar, initial), n_token, slots, null_slot, has_initial

/* tell: this item reports what is wrong. */
inline plain_seq plain_sequence(FAULTS, const __global int *start, const __global int *slot,
                                const __global uchar *initial, int n_token, int slots,
                                int null_slot, int has_initial, int s, bool tell) {
    plain_seq q = {0};
    const int first = start[s], end = start[s + 1];
    q.skip = true;
    if (first < 0 || end < first || end > n_token || (s == 0 && first != 0)) {
        if (tell) FAULT(GDN_START, s + 1, end);
        return q;
    }
    q.start = first;
    q.n = end - first;
    if (q.n == 0) return q;
    q.slot = slot[s];
    q.none = q.slot < 0 || q.slot == null_slot;
    q.fresh = has_initial && initial[s] == 0;
    q.skip = !q.none && q.slot >= slots;
    if (q.skip && tell) FAULT(GDN_SLOT, s, slot[s]);
    return q;
}

/* The tokens of a chunk: n from first on, or none. */
typedef struct {
    int first, n;
} chunk_place;

inline chunk_place chunk_at(FAULTS, const __global int *start, const __global int *slot,
                            const __global uchar *initial, int n_token, int slots, int null_slot,
                            int has_initial, int n_seq, int chunk) {
    chunk_place c = {0, 0};
    int s = 0;
    for (int end = n_seq; s + 1 < end;) { /* the last whose chunks begin here or before */
        const int mid = s + (end - s) / 2;
        if (start[mid] / CHUNK + mid <= chunk) s = mid;
        else end = mid;
    }
    const plain_seq m = plain_sequence(fault_, start, slot, initial, n_token, slots, null_slot,
                                       has_initial, s, false);
    if (m.skip || m.none) return c;
    const int t0 = (chunk - m.start / CHUNK - s) * CHUNK;
    if (t0 < 0 || t0 >= m.n) return c;
    c.first = m.start + t0;
    c.n = min(m.n - t0, (int)CHUNK);
    return c;
}

/* The row of token t, or -1. */
inline int token_row(const __global int *indx, int has_indx, int t, int n_row) {
    const int row = has_indx ? indx[t] : t;
    return row >= 0 && row < n_row ? row : -1;
}

/* --- decays --------------------------------------------------------------------------------- */

/* The sum G of log decays is two floats: its differences are small after large decays, too. */

inline float log_decay(float a, float A_log, float dt_bias) {
    const float x = a + dt_bias, g = -exp(A_log) * (x >= 20.0f ? x : log1p(exp(x)));
    return g < -1e4f ? -1e4f : g; /* nothing is left, and sums of infinities are no numbers */
}

/* (high, low) + x. */
inline float2 add_exactly(float2 sum, float x) {
    const float s = sum.x + x, v = s - sum.x;
    return (float2)(s, sum.y + ((sum.x - (s - v)) + (x - v)));
}
inline float fade(float2 from, float2 to) { return exp((to.x - from.x) + (to.y - from.y)); }

inline float2 decays_to(const __local float *log_g, int t) {
    float2 sum = (float2)(0.0f);
    for (int i = 0; i <= t; i++) sum = add_exactly(sum, log_g[i]);
    return sum;
}

/* What token t of n is multiplied by: its key and its query with the state before the chunk, the key
 * that goes into the state, and the state itself.  norm: of the keys, then of the queries. */
inline void gates_to(__global float *gate, const __local float2 *G, const __local float *norm, int t,
                     int n) {
    const bool real = t < n;
    const float2 nothing = (float2)(0.0f);
    gate[t] = real ? fade(nothing, G[t]) * norm[t] : 0.0f;
    gate[CHUNK + t] = real ? fade(nothing, G[t]) * norm[CHUNK + t] : 0.0f;
    gate[2 * CHUNK + t] = real ? fade(G[t], G[n - 1]) * norm[t] : 0.0f;
    gate[3 * CHUNK + t] = fade(nothing, G[n - 1]);
}
