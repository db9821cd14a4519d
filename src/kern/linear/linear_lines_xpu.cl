/* linear_lines_xpu.cl - how an output of a product is summed, in front of the kernels with products.
 *
 * An output is summed by a line of items: inputs go to them in stretches of 8, one stretch after the
 * other, and the items' sums are added in one order.  That is so in all kernels, so a row's bits do not
 * depend on the rows beside it.  How long a line is (VARIANT: 16, 32 or 64 items) follows from k alone. */

#ifndef VARIANT
#define VARIANT 16
#endif
/* Sums an item has of each kind where there are many rows, and steps that are unrolled: Intel's
 * registers hold half as much. */
#ifdef INTEL
enum { MANY = 4 };
#define STEPS(n)
#else
enum { MANY = 8 };
#define TEXT(x)  #x
#define STEPS(n) _Pragma(TEXT(unroll n))
#endif
enum {
    LINE = VARIANT, STRETCH = 8, STEP = LINE * STRETCH,
    ITEMS = 128, LINES = ITEMS / LINE, /* of a work-group for few rows */
    TILE_RL = LINE == 16 ? 4 : 2, TILE_OL = 256 / LINE / TILE_RL
};

/* Weights of an output times their scale, which F8 alone has. */
inline float8 weight8(int type, const __global uchar *w, const __global float *scale, int scale_cols,
                      long i, int whole, int left) {
    const float8 v = load8(type, w, i, whole, left);
    if (type != TYPE_F8) return v;
    if (scale_cols % STRETCH == 0) return v * scale[i / scale_cols];
#define SCALE(j) ((j) < left ? scale[(i + (j)) / scale_cols] : 0.0f)
    return v * (float8)(SCALE(0), SCALE(1), SCALE(2), SCALE(3), SCALE(4), SCALE(5), SCALE(6), SCALE(7));
#undef SCALE
}

inline int type_bytes(int type) { return type == TYPE_F32 ? 4 : type == TYPE_F8 ? 1 : 2; }

#define UNROLL _Pragma("unroll")

#define WEIGHT                                                                                 \
    __global const uchar *w, __global const float *scale, int n_scale, int scale_cols, int w_type, \
        int n, int k, int whole

/* An item's share of the sums of R rows, in[R], with N outputs, weight[N] and own[N] their scales. */
#define SUM_STRETCHES(R, N, XT, WT, WHOLE)                                                     \
    UNROLL_STEPS(R) for (int i = lane * STRETCH; i < k; i += STEP) {                           \
        float8 v[N];                                                                           \
        UNROLL for (int o = 0; o < N; o++)                                                     \
            v[o] = weight8(WT, weight[o], own[o], scale_cols, i, WHOLE, k - i);                \
        UNROLL for (int r = 0; r < R; r++) {                                                   \
            const float8 u = load8(XT, in[r], i, WHOLE, k - i);                                \
            UNROLL for (int o = 0; o < N; o++) sum[r][o] = fma8(u, v[o], sum[r][o]);           \
        }                                                                                      \
    }

/* Loads of several steps are in flight together where registers allow it.  Kernels for any type come
 * last in their files, and have SEVERAL redefined: unrolled for several rows they would take a
 * driver's compiler a minute. */
#define UNROLL_STEPS(R) UNROLL_STEPS_##R
#define UNROLL_STEPS_1  STEPS(4)
#define UNROLL_STEPS_2  SEVERAL(4)
#define UNROLL_STEPS_4  SEVERAL(2)
#define UNROLL_STEPS_8  SEVERAL(2)
#define UNROLL_STEPS_MANY SEVERAL(2)
#define SEVERAL(n) STEPS(n)

/* all: in item r of a line, for r < R, the sum of what its items have as OF: item i's goes to the
 * (i mod 8)th of eight sums, in ascending order, and these are added in halves. */
#define ADD_LINE(all, R, OF)                                                                   \
    UNROLL for (int r = 0; r < R; r++) part[line][r][lane] = OF;                               \
    barrier(CLK_LOCAL_MEM_FENCE);                                                              \
    if (lane < R) all = line_total(part[line][lane]);                                          \
    barrier(CLK_LOCAL_MEM_FENCE);

/* Rows of sums lie on 16 bytes and in different banks. */
#define LINE_SUMS(name, lines, R) __local float name[lines][R][LINE + 4] BY_FOURS

inline float line_total(const __local float *part) {
    float4 a = LOCAL4(part), b = LOCAL4(part + 4);
    UNROLL for (int i = 8; i < LINE; i += 8) {
        a += LOCAL4(part + i);
        b += LOCAL4(part + i + 4);
    }
    return ((a.x + b.x) + (a.z + b.z)) + ((a.y + b.y) + (a.w + b.w));
}
