/* delta_chunk_turn_avx512.h - the transpose of sixteen vectors of sixteen. */
INLINE void vf_transpose(vf *x) {
    vf t[16];
    for (int i = 0; i < 16; i += 4) { /* 4 x 4 within each quarter */
        const vf a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
        const vf c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]);
        const vf d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44), t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44), t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) { /* then the quarters themselves */
        const vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88);
        const vf b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        const vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
        const vf d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
        x[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        x[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
