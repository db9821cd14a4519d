/* xpu_common.cl - what stands before every file of OpenCL kernels: how tensors are passed, loads
 * and stores of the types, faults.  OpenCL C 1.2; types are numbered as gdn_type is (TYPE_F32 and so
 * on come from the host, FAULT_ codes too). */

/* INTEL: the size of sub-groups on Intel's GPUs, where wider ones would keep arrays in memory. */
#if defined(INTEL) && INTEL > 0 && !defined(SG)
#define __kernel __kernel __attribute__((intel_reqd_sub_group_size(INTEL)))
#endif

/* A sum is what is written: fma() where one is meant. */
#pragma OPENCL FP_CONTRACT OFF

/* --- tensors: memory, first byte, strides in bytes ---------------------------------- */

#define TENSOR(t)  __global uchar *t, ulong t##_at
#define TENSOR1(t) TENSOR(t), long t##_s0
#define TENSOR2(t) TENSOR1(t), long t##_s1
#define TENSOR3(t) TENSOR2(t), long t##_s2
#define TENSOR4(t) TENSOR3(t), long t##_s3

/* The memory at an index, as a pointer to T: AT1(float, x, i) is row i of x. */
#define AT0(T, t)          ((__global T *)(t + t##_at))
#define AT1(T, t, i)       ((__global T *)(t + t##_at + (long)(i) * t##_s0))
#define AT2(T, t, i, j)    ((__global T *)(t + t##_at + (long)(i) * t##_s0 + (long)(j) * t##_s1))
#define AT3(T, t, i, j, k) ((__global T *)(t + t##_at + (long)(i) * t##_s0 + (long)(j) * t##_s1 + \
                                           (long)(k) * t##_s2))

/* --- types -------------------------------------------------------------------------- */

inline float bf16_to_f32(ushort x) { return as_float((uint)x << 16); }

/* To the nearest, ties to even; a NaN stays one. */
inline ushort f32_to_bf16(float f) {
    const uint u = as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (ushort)(u >> 16 | 0x40u);
    return (ushort)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* vload_half takes memory, not a value. */
inline float f16_to_f32(ushort h) {
    const uint sign = (uint)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 1023u;
    if (e == 31u) return as_float(sign | 0x7f800000u | m << 13);
    if (e != 0u) return as_float(sign | (e + 112u) << 23 | m << 13);
    return as_float(sign | as_uint((float)m * 0x1p-24f));
}

/* e4m3: no infinities, NaN when all bits but the sign are ones. */
inline float f8_to_f32(uchar x) {
    const uint sign = (uint)(x & 0x80u) << 24, e = x >> 3 & 15u, m = x & 7u;
    if ((x & 0x7fu) == 0x7fu) return as_float(sign | 0x7fc00000u);
    if (e == 0) return as_float(sign | as_uint((float)m * 0x1p-9f));
    return as_float(sign | (e + 120u) << 23 | m << 20);
}

/* The same for eight, without a branch. */
inline float8 f8x8_to_f32(uchar8 b) {
    const uint8 x = convert_uint8(b), low = x & 0x7fu;
    const float8 normal = as_float8((low << 20) + (120u << 23)), tiny = convert_float8(low) * 0x1p-9f;
    const float8 v = select(normal, tiny, low < 8u);
    const uint8 bits = select(as_uint8(v), (uint8)0x7fc00000u, low == 0x7fu);
    return as_float8(bits | (x & 0x80u) << 24);
}

/* Element i of dense memory, by a type that is the same for all items (a branch that does not
 * diverge).  vload_half and vstore_half are core, unlike the type half. */
inline float load_as(int type, const __global void *p, long i) {
    switch (type) {
    case TYPE_F32: return ((const __global float *)p)[i];
    case TYPE_BF16: return bf16_to_f32(((const __global ushort *)p)[i]);
    case TYPE_F16: return vload_half((size_t)i, (const __global half *)p);
    default: return f8_to_f32(((const __global uchar *)p)[i]);
    }
}

inline void store_as(int type, __global void *p, long i, float v) {
    switch (type) {
    case TYPE_F32: ((__global float *)p)[i] = v; break;
    case TYPE_BF16: ((__global ushort *)p)[i] = f32_to_bf16(v); break;
    default: vstore_half_rte(v, (size_t)i, (__global half *)p);
    }
}

/* Both.  Not (float8)(a, b): oclgrind 21.10 crashes on it when it looks for unwritten values. */
inline float8 float4x2(float4 a, float4 b) {
    return (float8)(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w);
}

/* Elements i .. i + 7.  whole: all are there and lie on 16 bytes (8 for TYPE_F8); else those from
 * `left` on are zeros. */
inline float8 load8(int type, const __global uchar *p, long i, int whole, int left) {
    if (whole) {
        if (type == TYPE_F32) {
            const __global float4 *v = (const __global float4 *)((const __global float *)p + i);
            return float4x2(v[0], v[1]);
        }
        if (type == TYPE_BF16) {
            const uint4 v = *(const __global uint4 *)((const __global ushort *)p + i);
            const float4 lo = as_float4(v << 16), hi = as_float4(v & 0xffff0000u);
            return (float8)(lo.x, hi.x, lo.y, hi.y, lo.z, hi.z, lo.w, hi.w);
        }
        if (type == TYPE_F16) return vload_half8(0, (const __global half *)p + i);
        return f8x8_to_f32(*(const __global uchar8 *)(p + i));
    }
    /* No vectors, which is seldom: each is pushed in from behind, so that there is one load to compile
     * and no array that is indexed. */
    float8 v = 0.0f;
    _Pragma("unroll 1") for (int j = 0; j < 8; j++)
        v = (float8)(v.s1234, v.s56, v.s7, j < left ? load_as(type, p, i + j) : 0.0f);
    return v;
}

/* sum += x w, element after element. */
inline float fma8(float8 x, float8 w, float sum) {
    sum = fma(x.s0, w.s0, sum);
    sum = fma(x.s1, w.s1, sum);
    sum = fma(x.s2, w.s2, sum);
    sum = fma(x.s3, w.s3, sum);
    sum = fma(x.s4, w.s4, sum);
    sum = fma(x.s5, w.s5, sum);
    sum = fma(x.s6, w.s6, sum);
    return fma(x.s7, w.s7, sum);
}

/* Four elements, F8 excepted; fours: p is a multiple of four of them. */
inline float4 load4_as(int type, bool fours, const __global void *p) {
    if (type == TYPE_F16) return vload_half4(0, (const __global half *)p);
    if (type == TYPE_F32)
        return fours ? *(const __global float4 *)p : vload4(0, (const __global float *)p);
    const ushort4 x = fours ? *(const __global ushort4 *)p : vload4(0, (const __global ushort *)p);
    return as_float4(convert_uint4(x) << 16);
}

/* The same from n places, 8 at most.  No value is looked at before the last load has begun; a branch
 * around each would make them wait for each other. */
inline void loads4_as(float4 *to, int n, int type, bool fours, const __global uchar *const *p) {
    if (fours && type == TYPE_BF16) {
        ushort4 x[8];
        for (int i = 0; i < n; i++) x[i] = *(const __global ushort4 *)p[i];
        for (int i = 0; i < n; i++) to[i] = as_float4(convert_uint4(x[i]) << 16);
    } else if (fours && type == TYPE_F32) {
        for (int i = 0; i < n; i++) to[i] = *(const __global float4 *)p[i];
    } else {
        for (int i = 0; i < n; i++) to[i] = load4_as(type, fours, p[i]);
    }
}

/* Local arrays that are read by fours begin at a multiple of 16 bytes, and so do their rows. */
#define LOCAL4(p) (*(__local float4 *)(p))
#define BY_FOURS __attribute__((aligned(16)))

inline float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }
inline float silu(float x) { return x / (1.0f + exp(-x)); }

/* --- sums over a work-group --------------------------------------------------------- */

/* Items of dimension 0 stand in lines of 16.  A sum adds a line's items in ascending order, then the
 * lines: the same order wherever it is used, so that what one kernel computes on the way has the
 * bits that another one writes.  All items of the work-group call these together; part has room for
 * a float each. */
enum { SUM_LINE = 16, NORM_ITEMS = 128, NORM_SHORT = 256 };

/* Of the items of one's own line. */
inline float line_sum(float v, __local float *part) {
    const int l = (int)get_local_id(0);
    const __local float *own = part + l / SUM_LINE * SUM_LINE;
    part[l] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    float sum = own[0];
    for (int i = 1; i < SUM_LINE; i++) sum += own[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    return sum;
}

/* Of n items, a multiple of 16 and the whole work-group. */
inline float group_sum(float v, __local float *part, int n) {
    const int l = (int)get_local_id(0);
    const float line = line_sum(v, part);
    if (l % SUM_LINE == 0) part[l / SUM_LINE] = line;
    barrier(CLK_LOCAL_MEM_FENCE);
    float sum = part[0];
    for (int i = 1; i < n / SUM_LINE; i++) sum += part[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    return sum;
}

/* What those give when the values of all lanes are in part, behind a barrier. */
inline float lanes_sum(const __local float *part, int lane, bool all) {
    float sum = 0.0f;
    for (int l = 0; l < (all ? NORM_ITEMS / SUM_LINE : 1); l++) {
        const __local float *own = part + (all ? l : lane / SUM_LINE) * SUM_LINE;
        float line = own[0];
        for (int i = 1; i < SUM_LINE; i++) line += own[i];
        sum = l == 0 ? line : sum + line;
    }
    return sum;
}

/* What rms norms multiply a row by, and what squares they add for it: a row of up to
 * NORM_SHORT elements belongs to a line of items, a longer one to a work-group of 128. */

inline float squares(const __global float *x, int d, int first, int step) {
    float sum = 0.0f;
    for (int i = first; i < d; i += step) sum = fma(x[i], x[i], sum);
    return sum;
}
inline float norm_factor(float sum, int d, float eps) { return 1.0f / sqrt(sum / (float)d + eps); }

/* --- faults ------------------------------------------------------------------------- */

#define FAULTS __global volatile int *fault_
/* The first one is kept. */
#define FAULT(name, index, value)                                      \
    do {                                                               \
        if (atomic_cmpxchg(fault_, 0, FAULT_##name) == 0) {            \
            fault_[1] = (int)(index);                                  \
            fault_[2] = (int)(value);                                  \
        }                                                              \
    } while (0)
