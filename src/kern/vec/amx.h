/* amx.h - the eight tile registers of AMX, or a model of them.
 *
 * A tile is up to 16 rows of 64 bytes.  amx_dot multiplies a tile of rows of 32 bf16 with a tile
 * whose row p holds words of two bf16, those of k = 2p and 2p + 1, for each of 16 columns:
 *
 *     c[m][n] += sum over k < 32 of a[m][k] b[k / 2][n][k % 2]
 *
 * as one chain over even k, one over odd k, and the sum of both added to c.  Subnormal numbers
 * count as zero.  A row of c depends on that row of a alone, so its bits are the same in a tile of one
 * row as in one of 16.  Tile numbers are constants; a file that includes this is built for AMX, or
 * defines GDN_AMX_MODEL first, which gives the same functions in plain C for any machine: how the
 * loops around the instructions are tested without them.
 *
 * amx_load_past() is amx_load() of what the first cache need not keep.
 *
 * amx_begin() sets the rows of each tile, and amx_end() gives the registers back: between the two
 * the thread must not leave the kernel. */
#ifndef GDN_KERN_AMX_H
#define GDN_KERN_AMX_H

#include <stdint.h>
#include <string.h>

/* What ldtilecfg reads. */
typedef struct {
    uint8_t  palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t  rows[16];
} amx_config;

static inline amx_config amx_rows(const uint8_t rows[8]) {
    amx_config c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 8; i++) c.row_bytes[i] = 64, c.rows[i] = rows[i];
    return c;
}

#ifndef GDN_AMX_MODEL

/* The compiler knows nothing of what these read and write: "memory" keeps the order. */
static inline void amx_begin(const uint8_t rows[8]) {
    const amx_config c = amx_rows(rows);
    __asm__ volatile("ldtilecfg %0" : : "m"(c) : "memory");
}
static inline void amx_end(void) { __asm__ volatile("tilerelease" : : : "memory"); }
#define amx_zero(t) __asm__ volatile("tilezero %%tmm" #t : : :)
#define amx_load(t, from, stride)                                                   \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t                                \
                     :                                                              \
                     : "r"((const void *)(from)), "r"((int64_t)(stride))            \
                     : "memory")
#define amx_load_past(t, from, stride)                                              \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t                              \
                     :                                                              \
                     : "r"((const void *)(from)), "r"((int64_t)(stride))            \
                     : "memory")
#define amx_store(t, to, stride)                                                    \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)"                            \
                     :                                                              \
                     : "r"((void *)(to)), "r"((int64_t)(stride))                    \
                     : "memory")
#define amx_dot(c, a, b) \
    __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : :)

#else

#include <math.h>

static _Thread_local struct {
    int      rows[8];
    uint32_t word[8][16][16];
} amx_model;

static inline void amx_begin(const uint8_t rows[8]) {
    const amx_config c = amx_rows(rows);
    memset(&amx_model, 0, sizeof amx_model);
    for (int i = 0; i < 8; i++) amx_model.rows[i] = c.rows[i];
}
static inline void amx_end(void) { memset(&amx_model, 0, sizeof amx_model); }

static inline void amx_zero(int t) { memset(amx_model.word[t], 0, sizeof amx_model.word[t]); }

static inline void amx_load(int t, const void *from, int64_t stride) {
    amx_zero(t);
    for (int i = 0; i < amx_model.rows[t]; i++)
        memcpy(amx_model.word[t][i], (const char *)from + i * stride, 64);
}
static inline void amx_load_past(int t, const void *from, int64_t stride) {
    amx_load(t, from, stride);
}
static inline void amx_store(int t, void *to, int64_t stride) {
    for (int i = 0; i < amx_model.rows[t]; i++)
        memcpy((char *)to + i * stride, amx_model.word[t][i], 64);
}

/* The half of a word as f32, and an f32 without subnormals. */
static inline float amx_model_half(uint32_t word, int odd) {
    const uint32_t bits = odd ? word & 0xffff0000u : word << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return fabsf(x) < 0x1p-126f ? 0 : x;
}
static inline float amx_model_flush(float x) { return fabsf(x) < 0x1p-126f ? 0 : x; }

static inline void amx_dot(int c, int a, int b) {
    for (int m = 0; m < amx_model.rows[c]; m++)
        for (int n = 0; n < 16; n++) {
            float sum[2] = {0, 0}, old;
            for (int p = 0; p < 16; p++)
                for (int odd = 0; odd < 2; odd++)
                    sum[odd] = amx_model_flush(
                        fmaf(amx_model_half(amx_model.word[a][m][p], odd),
                             amx_model_half(amx_model.word[b][p][n], odd), sum[odd]));
            memcpy(&old, &amx_model.word[c][m][n], sizeof old);
            old = amx_model_flush(old + amx_model_flush(sum[0] + sum[1]));
            memcpy(&amx_model.word[c][m][n], &old, sizeof old);
        }
}

#endif
#endif
