/* pack_avx512.c - filling panels of 4-byte cells (f32, pairs of bf16) by transposing 16 x 16 blocks.
 *
 * A block of one row is a whole cache line, read once; what is written goes past the caches,
 * because nobody reads it soon.  Lines of rows are fetched a few blocks ahead into the second
 * cache: 64 rows at once are too many streams for the hardware. */
#include "linear.h"

#include <immintrin.h>

enum { AHEAD = 8 }; /* blocks */

/* In place: r[i] lane k becomes r[k] lane i. */
static inline void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) { /* pairs of 32-bit lanes */
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* pairs of 64-bit lanes: 4 x 4 in each quarter */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) { /* quarters */
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

void gdn_panel_pack_avx512(void *panel, gdn_type type, int32_t k,
                           const void *const rows[GDN_PANEL]) {
    const int64_t n_cell = type == GDN_BF16 ? k / 2 : k;
    const bool aligned = (uintptr_t)panel % 64 == 0;
    if ((type != GDN_BF16 && type != GDN_F32) || n_cell % 16 != 0 || k % 2 != 0 || !aligned) {
        gdn_panel_pack_ref(panel, type, k, rows);
        return;
    }
    for (int64_t c = 0; c < n_cell; c += 16)
        for (int g = 0; g < GDN_PANEL; g += 16) {
            __m512i r[16];
            for (int i = 0; i < 16; i++) {
                const char *from = (const char *)rows[g + i];
                if (from == NULL) {
                    r[i] = _mm512_setzero_si512();
                    continue;
                }
                r[i] = _mm512_loadu_si512(from + c * 4);
                if (c + 16 * AHEAD < n_cell)
                    _mm_prefetch(from + (c + 16 * AHEAD) * 4, _MM_HINT_T1);
            }
            transpose(r);
            char *to = (char *)panel + (c * GDN_PANEL + g) * 4;
            for (int i = 0; i < 16; i++)
                _mm512_stream_si512((__m512i *)(void *)(to + (int64_t)i * GDN_PANEL * 4), r[i]);
        }
    _mm_sfence();
}
