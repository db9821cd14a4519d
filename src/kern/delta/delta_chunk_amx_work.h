/* delta_chunk_amx_work.h - where the chunked delta rule in AMX's tiles keeps what it needs between
 * products, and how it holds the state.
 *
 * Everything counts in words of four bytes: one f32, or two bf16.  A tile of AMX is 16 rows of 16
 * words and lies in one piece, because rows far apart would meet in the same sets of the first
 * cache.  N is GDN_DELTA_CHUNK; depth is the number of tiles that dk fills in bf16. */
#ifndef GDN_KERN_DELTA_CHUNK_AMX_WORK_H
#define GDN_KERN_DELTA_CHUNK_AMX_WORK_H

#include <stddef.h>

#include "delta_chunk.h"
#include "delta_chunk_gates_work.h"

enum {
    AMX_SIDE = 16,                    /* rows of a tile, and words of a row           */
    AMX_TILE = AMX_SIDE * AMX_SIDE,   /* words                                        */
    AMX_PANEL = 2 * AMX_SIDE,         /* rows of S that pass together                 */
    AMX_PARTS = 2,                    /* bf16 whose sum is an f32 to 16 bits, at most */
};

typedef struct {
    /* Of the tokens alone, kept for the heads that share a key: */
    float *left;    /* [parts][4][depth] tiles    rows of K, then of Q                   */
    float *turned;  /* [parts][2 depth] tiles     K^T, a row all tokens                  */
    chunk_gates g;
    /* of a head's gates: */
    float *T;       /* [N][N]                     A^-1                                   */
    float *solve;   /* [parts][4] tiles           rows of diag(to_end) T, then of P T    */
    /* and of a panel: */
    float *right;   /* [parts][depth][2] tiles    words of the state; before, of K^T     */
    float *M;       /* [2 N][AMX_PANEL]           K S^T, then Q S^T                      */
    float *R;       /* [parts][2] tiles           words of what T multiplies             */
    float *O;       /* [N][AMX_PANEL]             P U                                    */
    float *D;       /* [2][2] tiles               what rows of the state gain            */
    int32_t depth;
} amx_work;

static inline int32_t amx_depth(int32_t dk) { return (dk + 2 * AMX_SIDE - 1) / (2 * AMX_SIDE); }

/* Words of a panel of the state: two columns of 2 depth tiles, lanes over rows of S. */
static inline int64_t amx_panel_words(int32_t dk) { return amx_depth(dk) * 4 * AMX_TILE; }

/* Lay out work, or with NULL only count: the number of words. */
static inline int64_t amx_layout(amx_work *w, float *work, int32_t dk) {
    enum { N = GDN_DELTA_CHUNK };
    const int64_t tiles = AMX_PARTS * amx_depth(dk) * AMX_TILE;
    const struct {
        float **p;
        int64_t n;
    } part[] = {
        {&w->left, 4 * tiles},
        {&w->turned, 2 * tiles},
        {&w->T, N * N},
        {&w->solve, AMX_PARTS * 4 * AMX_TILE},
        {&w->right, 2 * tiles},
        {&w->M, 2 * N * AMX_PANEL},
        {&w->R, AMX_PARTS * 2 * AMX_TILE},
        {&w->O, N * AMX_PANEL},
        {&w->D, 4 * AMX_TILE},
    };
    int64_t n = chunk_gates_layout(&w->g, work, N);
    for (unsigned i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].p = work == NULL ? work : work + n;
        n += part[i].n;
    }
    w->depth = amx_depth(dk);
    return n;
}

#endif
