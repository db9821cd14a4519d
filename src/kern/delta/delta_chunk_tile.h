/* delta_chunk_tile.h - products of f32 numbers with vectors whose sums lie in registers, for the
 * chunked forms whose lanes run over rows of S.  Needs a vec_<isa>.h, delta_chunk_parts.h and PANEL,
 * the most vectors of a row. */
#ifndef GDN_KERN_DELTA_CHUNK_TILE_H
#define GDN_KERN_DELTA_CHUNK_TILE_H

enum { MOST_ROWS = 8 };

/* A tile: rows of numbers, vectors of lanes. */
typedef vf tile[MOST_ROWS][PANEL];

/* c += a b, n deep: a steps by row and by depth, b by vectors of a row; fma multiplies and adds. */
#define PRODUCT(name, fma)                                                                     \
    INLINE void name(const float *a, int64_t row, int64_t step, const float *b, int64_t ldb,   \
                     int n, int rows, int cols, tile c) {                                      \
        for (int s = 0; s < n; s++, a += step, b += ldb) {                                     \
            vf x[PANEL];                                                                       \
            UNROLL for (int j = 0; j < cols; j++) x[j] = vf_load(b + j * VF_N);                \
            UNROLL for (int r = 0; r < rows; r++) {                                            \
                const vf y = vf_set1(a[r * row]);                                              \
                UNROLL for (int j = 0; j < cols; j++) c[r][j] = fma(y, x[j], c[r][j]);         \
            }                                                                                  \
        }                                                                                      \
    }
PRODUCT(product, vf_fma)

INLINE void clear(tile c, int rows, int cols) {
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int j = 0; j < cols; j++) c[r][j] = vf_zero();
}

#endif
