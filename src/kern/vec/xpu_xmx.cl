/* xpu_xmx.cl - Intel's sub-groups and matrix engine, for kernels of files *_xmx_xpu.cl; it stands
 * between xpu_common.cl and such a file.  SG is the sub-group's size, 16 or 8, as the device's
 * smallest; with SG_EMU the same kernels run on any OpenCL 1.2 device by a model of the builtins.
 *
 * The engine multiplies A [8 x 16] by B [16 x SG], bf16, and adds the product to C [8 x SG], f32.
 * How the operands lie in a sub-group (cl_intel_subgroup_matrix_multiply_accumulate: an item has a
 * column of B and of C, `a` has a component for each row, its items share the row's K values in
 * their order; the first of two values packed into a word is in the low half):
 *
 *              item l, component i                                     type
 *     A        SG 16: A[i][l]                 SG 8: A[i][2l], A[i][2l+1]   xmx_a: short8 or int8
 *     B        B[2i][l], B[2i+1][l]                                    int8
 *     C        C[i][l]                                                 float8
 *
 * So in memory A is 8 rows of 16 values one after the other, in 256 bytes, for both sizes; B is 8
 * rows of SG pairs along K, in 32 SG bytes; both are one block load.  A matrix [n][k] with dense
 * rows, taken as B, has the pairs of a column side by side: an item reads 32 bytes of its row.
 *
 * Calls; those marked `all` are made by every item of the work-group, see below.
 *
 *     xmx_mad(a, b, c)         all   a b + c
 *     xmx_load_a(p) _b(p) _c(p)      an operand as it lies in global memory, at a multiple of 4 bytes
 *     xmx_load_a_local(p) _b_local(p)    in local memory, at a multiple of 16
 *     xmx_store_c(p, c)              8 rows of SG floats, one after the other; a multiple of 16
 *     xmx_load_word(p)               an item's word of SG words in global memory, at a multiple of 4
 *     xmx_a_row(p)                   a component of A from a row's 16 values, at a multiple of 4 bytes
 *     xmx_a_of(r0, ..., r7)          A from its components
 *     xmx_put_rows(p, c)             C's rows one after the other in local memory
 *     xmx_b_of_row(p)                B whose columns are dense rows
 *     xmx_b_of_c(upper, lower)       B from 16 rows of values in f32, rounded
 *     xmx_a_of_c(c)            all   A from an array of XMX_C_OF_A results (16 columns), rounded
 *     sg_sum(v) sg_max(v)      all   over the sub-group, floats, the same bits in each item
 *     sg_shuffle(v, lane)      all   the float of an item; sg_shuffle_u: a uint
 *     sg_broadcast(v, lane)    all   the same with one lane for all
 *
 * What every kernel keeps to, as the model has no lockstep:
 *   - A work-group has one dimension of SG * n items; XMX_KERNEL(n) before the kernel's name,
 *     XMX_BEGIN(n) as its first declaration.  SG_ID and SG_LANE tell who one is.
 *   - Calls marked `all` are made by the items of the whole WORK-GROUP the same number of times, in
 *     the same order: their loops have one trip count for all its sub-groups.
 *   - A function that makes such calls takes XMX_PARAM before its first parameter and is given
 *     XMX_PASS before its first argument.
 * Local memory is ordered by barrier() alone, whatever the model's own barriers would hide.
 *
 * There are no 2D block loads: they want rows of 64 bytes and pitches of 16, and not every device
 * has them; what is packed once does without. */

#ifndef SG
#error "SG is 8 or 16"
#endif

#if SG == 16
typedef short8 xmx_a;
typedef ushort xmx_a1; /* a component of A */
#elif SG == 8
typedef int8 xmx_a;
typedef uint xmx_a1;
#else
#error "SG is 8 or 16"
#endif

enum { XMX_M = 8, XMX_K = 16, XMX_N = SG };

#define XMX_GROUP(n) __attribute__((reqd_work_group_size(SG * (n), 1, 1)))

#ifdef SG_EMU
/* --- the model ------------------------------------------------------------------------ */

#define XMX_KERNEL(n) __kernel XMX_GROUP(n)
#define XMX_BEGIN(n)  __local uint xmx_[SG * (n) * 8]
#define XMX_PARAM     __local uint *xmx_,
#define XMX_PASS      xmx_,
#define SG_ID         ((int)get_local_id(0) / SG)
#define SG_LANE       ((int)get_local_id(0) % SG)

/* The words of the sub-group's items: they write w[i * SG + own lane], then all read. */
inline __local uint *xmx_words(__local uint *x) { return x + SG_ID * SG * 8; }

inline uint sg_from_(__local uint *x, uint v, int lane) {
    __local uint *w = xmx_words(x);
    barrier(CLK_LOCAL_MEM_FENCE);
    w[SG_LANE] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    return w[lane & (SG - 1)];
}

inline float sg_sum_(__local uint *x, float v) {
    __local uint *w = xmx_words(x);
    barrier(CLK_LOCAL_MEM_FENCE);
    w[SG_LANE] = as_uint(v);
    barrier(CLK_LOCAL_MEM_FENCE);
    float sum = as_float(w[0]);
    for (int i = 1; i < SG; i++) sum += as_float(w[i]);
    return sum;
}

inline float sg_max_(__local uint *x, float v) {
    __local uint *w = xmx_words(x);
    barrier(CLK_LOCAL_MEM_FENCE);
    w[SG_LANE] = as_uint(v);
    barrier(CLK_LOCAL_MEM_FENCE);
    float most = as_float(w[0]);
    for (int i = 1; i < SG; i++) most = fmax(most, as_float(w[i]));
    return most;
}

#define sg_broadcast(v, lane) as_float(sg_from_(xmx_, as_uint((float)(v)), lane))
#define sg_shuffle(v, lane)   as_float(sg_from_(xmx_, as_uint((float)(v)), lane))
#define sg_shuffle_u(v, lane) sg_from_(xmx_, v, lane)
#define sg_sum(v)             sg_sum_(xmx_, v)
#define sg_max(v)             sg_max_(xmx_, v)

/* Adds in ascending K; the engine's own order within 16 is not documented. */
inline float8 xmx_mad_(__local uint *x, xmx_a a, int8 b, float8 c) {
    __local uint *w = xmx_words(x);
    const int lane = SG_LANE;
    xmx_a1 own[XMX_M];
    uint pair[XMX_K / 2];
    float sum[XMX_M];
#if SG == 16
    vstore8(as_ushort8(a), 0, own);
#else
    vstore8(as_uint8(a), 0, own);
#endif
    vstore8(as_uint8(b), 0, pair);
    vstore8(c, 0, sum);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < XMX_M; i++) w[i * SG + lane] = own[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < XMX_M; i++)
        for (int k = 0; k < XMX_K; k += 2) {
#if SG == 16
            const ushort a0 = (ushort)w[i * SG + k], a1 = (ushort)w[i * SG + k + 1];
#else
            const uint both = w[i * SG + k / 2];
            const ushort a0 = (ushort)both, a1 = (ushort)(both >> 16);
#endif
            sum[i] += bf16_to_f32(a0) * bf16_to_f32((ushort)pair[k / 2]);
            sum[i] += bf16_to_f32(a1) * bf16_to_f32((ushort)(pair[k / 2] >> 16));
        }
    return vload8(0, sum);
}
#define xmx_mad(a, b, c) xmx_mad_(xmx_, a, b, c)

inline uint8 xmx_words8(const __global uint *p) {
    p += SG_LANE;
    return (uint8)(p[0], p[SG], p[2 * SG], p[3 * SG], p[4 * SG], p[5 * SG], p[6 * SG], p[7 * SG]);
}
inline uint8 xmx_words8_local(const __local uint *p) {
    p += SG_LANE;
    return (uint8)(p[0], p[SG], p[2 * SG], p[3 * SG], p[4 * SG], p[5 * SG], p[6 * SG], p[7 * SG]);
}
inline void xmx_put8(__global uint *p, uint8 v) {
    p += SG_LANE;
    p[0] = v.s0, p[SG] = v.s1, p[2 * SG] = v.s2, p[3 * SG] = v.s3;
    p[4 * SG] = v.s4, p[5 * SG] = v.s5, p[6 * SG] = v.s6, p[7 * SG] = v.s7;
}

#if SG == 16
inline xmx_a xmx_load_a(const __global ushort *p) {
    p += SG_LANE;
    return as_short8((ushort8)(p[0], p[16], p[32], p[48], p[64], p[80], p[96], p[112]));
}
inline xmx_a xmx_load_a_local(const __local ushort *p) {
    p += SG_LANE;
    return as_short8((ushort8)(p[0], p[16], p[32], p[48], p[64], p[80], p[96], p[112]));
}
#else
#define xmx_load_a(p)       as_int8(xmx_words8((const __global uint *)(p)))
#define xmx_load_a_local(p) as_int8(xmx_words8_local((const __local uint *)(p)))
#endif
#define xmx_load_word(p)    ((const __global uint *)(p))[SG_LANE]
#define xmx_a_row(p)        ((const __global xmx_a1 *)(p))[SG_LANE]

#define xmx_load_b(p)       as_int8(xmx_words8((const __global uint *)(p)))
#define xmx_load_b_local(p) as_int8(xmx_words8_local((const __local uint *)(p)))
#define xmx_load_c(p)       as_float8(xmx_words8((const __global uint *)(p)))
#define xmx_store_c(p, v)   xmx_put8((__global uint *)(p), as_uint8(v))

#else
/* --- the builtins --------------------------------------------------------------------- */

#define XMX_KERNEL(n) __kernel XMX_GROUP(n) __attribute__((intel_reqd_sub_group_size(SG)))
#define XMX_BEGIN(n)
#define XMX_PARAM
#define XMX_PASS
#define SG_ID   ((int)get_sub_group_id())
#define SG_LANE ((int)get_sub_group_local_id())

/* Older compilers know these without declaring them. */
__attribute__((overloadable)) float8 intel_sub_group_bf16_bf16_matrix_mad_k16(xmx_a a, int8 b,
                                                                             float8 c);

__attribute__((overloadable)) ushort8 intel_sub_group_block_read_us8(const __local ushort *p);
__attribute__((overloadable)) uint8 intel_sub_group_block_read8(const __local uint *p);

#define sg_broadcast(v, lane) sub_group_broadcast((float)(v), (uint)(lane))
#define sg_shuffle(v, lane)   intel_sub_group_shuffle((float)(v), (uint)(lane))
#define sg_shuffle_u(v, lane) intel_sub_group_shuffle((uint)(v), (uint)(lane))
#define sg_sum(v)             sub_group_reduce_add((float)(v))
#define sg_max(v)             sub_group_reduce_max((float)(v))
#define xmx_mad(a, b, c)      intel_sub_group_bf16_bf16_matrix_mad_k16(a, b, c)

#define xmx_load_word(p)    intel_sub_group_block_read((const __global uint *)(p))

#if SG == 16
#define xmx_load_a(p)       as_short8(intel_sub_group_block_read_us8((const __global ushort *)(p)))
#define xmx_load_a_local(p) as_short8(intel_sub_group_block_read_us8((const __local ushort *)(p)))
#define xmx_a_row(p)        intel_sub_group_block_read_us((const __global ushort *)(p))
#else
#define xmx_a_row(p)        intel_sub_group_block_read((const __global uint *)(p))
#define xmx_load_a(p)       as_int8(intel_sub_group_block_read8((const __global uint *)(p)))
#define xmx_load_a_local(p) as_int8(intel_sub_group_block_read8((const __local uint *)(p)))
#endif
#define xmx_load_b(p)       as_int8(intel_sub_group_block_read8((const __global uint *)(p)))
#define xmx_load_b_local(p) as_int8(intel_sub_group_block_read8((const __local uint *)(p)))
#define xmx_load_c(p)       as_float8(intel_sub_group_block_read8((const __global uint *)(p)))
#define xmx_store_c(p, v)   intel_sub_group_block_write8((__global uint *)(p), as_uint8(v))
#endif

/* --- operands from elsewhere ------------------------------------------------------------ */

inline uint xmx_pair(float lo, float hi) {
    return (uint)f32_to_bf16(lo) | (uint)f32_to_bf16(hi) << 16;
}

/* A from an item's component for each row. */
#if SG == 16
#define xmx_a_of(r0, r1, r2, r3, r4, r5, r6, r7) \
    as_short8((ushort8)(r0, r1, r2, r3, r4, r5, r6, r7))
#else
#define xmx_a_of(r0, r1, r2, r3, r4, r5, r6, r7) as_int8((uint8)(r0, r1, r2, r3, r4, r5, r6, r7))
#endif

/* B whose column is a dense row of bf16: p is the item's own, at a multiple of 4 bytes. */
inline int8 xmx_b_of_row(const __global ushort *p) {
    return as_int8(vload8(0, (const __global uint *)p));
}

/* B from 16 rows of f32 values, an item its column. */
inline int8 xmx_b_of_c(float8 upper, float8 lower) {
    return as_int8((uint8)(xmx_pair(upper.s0, upper.s1), xmx_pair(upper.s2, upper.s3),
                           xmx_pair(upper.s4, upper.s5), xmx_pair(upper.s6, upper.s7),
                           xmx_pair(lower.s0, lower.s1), xmx_pair(lower.s2, lower.s3),
                           xmx_pair(lower.s4, lower.s5), xmx_pair(lower.s6, lower.s7)));
}

/* A from the results of 16 columns. */
enum { XMX_C_OF_A = XMX_K / SG };
#if SG == 16
#define xmx_a_of_c(c) xmx_a_of_c_((c)[0])
inline xmx_a xmx_a_of_c_(float8 c) {
    return as_short8((ushort8)(f32_to_bf16(c.s0), f32_to_bf16(c.s1), f32_to_bf16(c.s2),
                               f32_to_bf16(c.s3), f32_to_bf16(c.s4), f32_to_bf16(c.s5),
                               f32_to_bf16(c.s6), f32_to_bf16(c.s7)));
}
#else
#define xmx_a_of_c(c) xmx_a_of_c_(XMX_PASS (c)[0], (c)[1])
/* Item l wants columns 2l and 2l + 1: both in the left half for l < 4. */
inline uint xmx_a_pair_(XMX_PARAM float left, float right) {
    const int l = SG_LANE, from = 2 * l % 8;
    const uint own = xmx_pair(left, right);
    const uint lo = sg_shuffle_u(own, from), hi = sg_shuffle_u(own, from + 1);
    return l < 4 ? (lo & 0xffffu) | hi << 16 : lo >> 16 | (hi & 0xffff0000u);
}
inline xmx_a xmx_a_of_c_(XMX_PARAM float8 l, float8 r) {
    return as_int8((uint8)(
        xmx_a_pair_(XMX_PASS l.s0, r.s0), xmx_a_pair_(XMX_PASS l.s1, r.s1),
        xmx_a_pair_(XMX_PASS l.s2, r.s2), xmx_a_pair_(XMX_PASS l.s3, r.s3),
        xmx_a_pair_(XMX_PASS l.s4, r.s4), xmx_a_pair_(XMX_PASS l.s5, r.s5),
        xmx_a_pair_(XMX_PASS l.s6, r.s6), xmx_a_pair_(XMX_PASS l.s7, r.s7)));
}
#endif

inline void xmx_put_rows(__local float *p, float8 c) {
    p += SG_LANE;
    p[0] = c.s0, p[SG] = c.s1, p[2 * SG] = c.s2, p[3 * SG] = c.s3;
    p[4 * SG] = c.s4, p[5 * SG] = c.s5, p[6 * SG] = c.s6, p[7 * SG] = c.s7;
}
