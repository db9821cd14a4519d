/* experts_xpu.cl - the products of experts, for pairs row * top + rank of a row and its expert e:
 *
 *     gate_up    h[pair] = swiglu(gate_up_e x[row])        down    y[pair] = down_e h[pair]
 *
 * An output is summed by a line of items (linear_lines_xpu.cl); a gate and what it lets through are
 * summed by the same line.  Kernels differ in how many pairs of an expert share the weights that are
 * read:
 *
 *     _1       one: a work-group reads which expert its pair has, so that nothing need be sorted
 *     _4       up to four, in a line's registers; pairs are sorted by moe_sort (moe_xpu.cl)
 *     _many    as _4, and lines have pairs of their own: 8 x 8 sums an item, on Intel's GPUs 4 x 4
 *
 * each for f32 or bf16 inputs and bf16 weights in whole vectors, and with any_ before the name for
 * all that there is. */

/* Of _many: pairs of a work-group, gates of a line, lines with pairs and with outputs of their own. */
enum { PAIRS = 16, MANY_GATES = MANY / 2, MANY_RL = PAIRS / MANY, MANY_OL = 256 / LINE / MANY_RL };

/* The kind of inputs is looked at in front of the loop, not in it. */
#define SUM_USUAL(R, N)                                                                        \
    if (x_type == TYPE_BF16) {                                                                 \
        SUM_STRETCHES(R, N, TYPE_BF16, TYPE_BF16, 1)                                           \
    } else {                                                                                   \
        SUM_STRETCHES(R, N, TYPE_F32, TYPE_BF16, 1)                                            \
    }
#define SUM_ANY(R, N) SUM_STRETCHES(R, N, x_type, w_type, whole)

#define ADD_UP_0(R, O)
#define ADD_UP_1(R, O) ADD_LINE(up[o], R, sum[r][O + o])

/* GATED: of n outputs the first half are gates of the second.  SORTED: pairs come as moe_sort leaves
 * them in index.  R: pairs of a line; O: what comes out of it.  A pair's input is row pair / x_top of
 * x, its output goes to [pair / y_top][pair % y_top] of y. */
#define EXPERTS(name, GATED, SORTED, R, O, RL, OL, SUM)                                        \
    __kernel __attribute__((reqd_work_group_size(LINE, RL *OL, 1)))                            \
    void name(TENSOR2(y), TENSOR1(x), TENSOR1(expert), TENSOR(index), WEIGHT, int n_pair,      \
              int n_expert, int top, int x_top, int y_top, int x_type, int y_type, FAULTS) {   \
        LINE_SUMS(part, RL * OL, R);                                                           \
        enum { N = (1 + GATED) * O };                                                          \
        const int lane = (int)get_local_id(0), line = (int)get_local_id(1);                    \
        const int n_out = n / (1 + GATED), out = ((int)get_group_id(0) * OL + line % OL) * (O);\
        const __global int *pair = AT0(int, index), *block = pair + n_pair;                    \
        const __global int *begin = block + n_pair;                                            \
        /* From place `at` in the order on; without one, the pair itself.  Without pairs a     \
         * work-group goes on to the end: after a return in front of barriers PoCL 3.1 had all \
         * items store. */                                                                     \
        const int at = SORTED ? block[get_group_id(1)] : (int)get_group_id(1);                 \
        const int one = !SORTED ? at : at >= 0 ? pair[at] : 0;                                 \
        const int of = AT1(int, expert, one / top)[one % top];                                 \
        const bool there = at >= 0 && of >= 0 && of < n_expert;                                \
        if (at >= 0 && !there && lane == 0 && out == 0) FAULT(MOE_EXPERT, one, of);            \
        const int e = there ? of : 0, first = line / OL * R;                                   \
        const int n_row = !there ? 0 : SORTED ? min(begin[e + 1] - at, RL * R) : 1;            \
        const __global uchar *in[R], *weight[N];                                               \
        const __global float *own[N];                                                          \
        float sum[R][N];                                                                       \
        /* Beyond the edges: computed, not stored. */                                          \
        UNROLL for (int r = 0; r < R; r++) {                                                   \
            const int p = SORTED && there ? pair[at + min(first + r, n_row - 1)] : one;        \
            in[r] = AT1(uchar, x, p / x_top);                                                  \
        }                                                                                      \
        UNROLL for (int o = 0; o < N; o++) {                                                   \
            const long from = (long)e * n + o / O * n_out + min(out + o % O, n_out - 1);       \
            weight[o] = w + from * k * type_bytes(w_type);                                     \
            own[o] = scale + from * n_scale;                                                   \
            UNROLL for (int r = 0; r < R; r++) sum[r][o] = 0.0f;                               \
        }                                                                                      \
        if (first < n_row && out < n_out) { SUM(R, N) }                                        \
        float all[O], up[O];                                                                   \
        UNROLL for (int o = 0; o < O; o++) {                                                   \
            all[o] = up[o] = 0.0f;                                                             \
            ADD_LINE(all[o], R, sum[r][o])                                                     \
            ADD_UP_##GATED(R, O)                                                               \
        }                                                                                      \
        if (lane >= R || first + lane >= n_row) return;                                        \
        const int p = SORTED ? pair[at + first + lane] : one;                                  \
        __global uchar *to = AT2(uchar, y, p / y_top, p % y_top);                              \
        UNROLL for (int o = 0; o < O; o++)                                                     \
            if (out + o < n_out)                                                               \
                store_as(y_type, to, out + o, GATED ? silu(all[o]) * up[o] : all[o]);          \
    }

EXPERTS(gate_up_1, 1, 0, 1, 1, 1, LINES, SUM_USUAL)
EXPERTS(gate_up_4, 1, 1, 4, 1, 1, LINES, SUM_USUAL)
EXPERTS(gate_up_many, 1, 1, MANY, MANY_GATES, MANY_RL, MANY_OL, SUM_USUAL)
EXPERTS(down_1, 0, 0, 1, 1, 1, LINES, SUM_USUAL)
EXPERTS(down_4, 0, 1, 4, 2, 1, LINES, SUM_USUAL)
EXPERTS(down_many, 0, 1, MANY, MANY, MANY_RL, MANY_OL, SUM_USUAL)

#undef SEVERAL
#define SEVERAL(n) STEPS(1)
EXPERTS(any_gate_up_1, 1, 0, 1, 1, 1, LINES, SUM_ANY)
EXPERTS(any_gate_up_4, 1, 1, 4, 1, 1, LINES, SUM_ANY)
EXPERTS(any_gate_up_many, 1, 1, MANY, MANY_GATES, MANY_RL, MANY_OL, SUM_ANY)
EXPERTS(any_down_1, 0, 0, 1, 1, 1, LINES, SUM_ANY)
EXPERTS(any_down_4, 0, 1, 4, 2, 1, LINES, SUM_ANY)
EXPERTS(any_down_many, 0, 1, MANY, MANY, MANY_RL, MANY_OL, SUM_ANY)
