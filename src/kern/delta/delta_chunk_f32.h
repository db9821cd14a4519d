/* delta_chunk_f32.h - operands of delta_chunk_body.h that are f32: a word is a number. */
enum { PAIR = 1 };

INLINE vf word_fma(vf a, vf b, vf c) { return vf_fma(a, b, c); }

INLINE void pack_row(float *to, const float *x, int n) {
    int i = 0;
    for (; i + VF_N <= n; i += VF_N) vf_store(to + i, vf_load(x + i));
    if (i < n) vf_store(to + i, vf_load_n(x + i, n - i));
}

/* There are no pairs. */
INLINE void pack_pair(float *to, const float *a, const float *b, int n) {
    (void)to, (void)a, (void)b, (void)n;
}
INLINE void pack_parts(float *x) { (void)x; }
