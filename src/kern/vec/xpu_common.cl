/* xpu_common.cl - what stands before every file of OpenCL kernels: how tensors are passed, loads
 * and stores of the types, faults.  OpenCL C 1.2; types are numbered as gdn_type is (TYPE_F32 and so
 * on come from the host, FAULT_ codes too). */

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

/* e4m3: no infinities, NaN when all bits but the sign are ones. */
inline float f8_to_f32(uchar x) {
    const uint sign = (uint)(x & 0x80u) << 24, e = x >> 3 & 15u, m = x & 7u;
    if ((x & 0x7fu) == 0x7fu) return as_float(sign | 0x7fc00000u);
    if (e == 0) return as_float(sign | as_uint((float)m * 0x1p-9f));
    return as_float(sign | (e + 120u) << 23 | m << 20);
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

/* The sum of v over the n items of dimension 0, the same bits in each; n a power of two, part has
 * room for n floats.  All items of the work-group call it together. */
inline float group_sum(float v, __local float *part, int n) {
    const int l = (int)get_local_id(0);
    part[l] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = n / 2; s > 0; s /= 2) {
        if (l < s) part[l] += part[l + s];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const float sum = part[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return sum;
}

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
