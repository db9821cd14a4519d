/* delta_chunk_rows.h - rows of the chunked forms' arguments, in f32 or bf16; after a vec_<isa>.h,
 * vf_transpose and delta_chunk_parts.h. */
#ifndef GDN_KERN_DELTA_CHUNK_ROWS_H
#define GDN_KERN_DELTA_CHUNK_ROWS_H

/* n numbers at element `at` of x, or of bf16 when there is one, which go to space. */
INLINE const float *row_in(const float *x, const uint16_t *bf16, int64_t at, int n, float *space) {
    if (bf16 == NULL) return x + at;
    for (int i = 0; i < n; i += VF_N) {
        if (n - i < VF_N) vf_store_n(space + i, vf_load_bf16_n(bf16 + at + i, n - i), n - i);
        else vf_store(space + i, vf_load_bf16(bf16 + at + i));
    }
    return space;
}

/* Of each of VF_N vectors the sum of its lanes, in the lanes of one. */
INLINE vf lane_sums(vf *t) {
    vf_transpose(t);
    for (int j = VF_N / 2; j > 0; j /= 2)
        for (int l = 0; l < j; l++) t[l] = vf_add(t[l], t[l + j]);
    return t[0];
}

/* n lanes of values at element `at`. */
INLINE vf value_in(const gdn_delta_chunk_args *a, int64_t at, int n) {
    if (a->v_bf16 == NULL) return vf_get(a->v + at, n);
    return n == VF_N ? vf_load_bf16(a->v_bf16 + at) : vf_load_bf16_n(a->v_bf16 + at, n);
}

INLINE void output_out(const gdn_delta_chunk_args *a, int64_t at, vf x, int n) {
    if (a->o_bf16 != NULL) {
        if (a->past && n == VF_N) vf_stream_bf16(a->o_bf16 + at, x);
        else vf_put_as(a->o_bf16, true, at, x, n);
    } else {
        if (a->past && n == VF_N) vf_stream(a->o + at, x);
        else vf_put(a->o + at, x, n);
    }
}

/* cols vectors of outputs, the last of n lanes. */
INLINE void outputs_out(const gdn_delta_chunk_args *a, int64_t at, const vf *y, int cols, int n) {
    UNROLL
    for (int j = 0; j < cols; j++) output_out(a, at + j * VF_N, y[j], j < cols - 1 ? VF_N : n);
}

INLINE void call_aside(const gdn_delta_chunk_args *a) {
    if (a->aside != NULL) a->aside(a->aside_arg);
}

#endif
