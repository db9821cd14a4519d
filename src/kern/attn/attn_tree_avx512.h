/* attn_tree_avx512.h - adding up the lanes of 16 accumulators at once.
 *
 * Each step takes two vectors a and b and leaves, in place of both, the sums of a's halves
 * beside the sums of b's: a blend picks one half of each, a shuffle brings the other halves
 * under them.  Addition commutes, so every accumulator goes through the same tree. */
static inline vf add_halves(vf a, vf b) { /* 256 bits: a to lanes 0-7, b to 8-15 */
    return vf_add(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
}
static inline vf add_quarters(vf a, vf b) { /* 128 bits within each 256 */
    const vf other = _mm512_mask_blend_ps(0xf0f0, b, a);
    return vf_add(_mm512_mask_blend_ps(0xf0f0, a, b), _mm512_shuffle_f32x4(other, other, 0xb1));
}
static inline vf add_pairs(vf a, vf b) { /* 64 bits within each 128 */
    return vf_add(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_shuffle_ps(a, b, 0x4e));
}
static inline vf add_neighbours(vf a, vf b) { /* 32 bits within each 64 */
    return vf_add(_mm512_mask_blend_ps(0xaaaa, a, b),
                  _mm512_permute_ps(_mm512_mask_blend_ps(0xaaaa, b, a), 0xb1));
}

/* Keys j, j + 4, j + 8, j + 12. */
static inline vf sum4(vf a, vf b, vf c, vf d) {
    return add_quarters(add_halves(a, c), add_halves(b, d));
}
static inline vf sum_last(const vf *quad) {
    return add_neighbours(add_pairs(quad[0], quad[2]), add_pairs(quad[1], quad[3]));
}
