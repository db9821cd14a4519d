/* delta_chunk_work.h - where the chunked delta rule in f32 keeps what it needs between products. */
#ifndef GDN_KERN_DELTA_CHUNK_WORK_H
#define GDN_KERN_DELTA_CHUNK_WORK_H

#include <stddef.h>

#include "delta_chunk.h"

enum {
    CHUNK = 16,               /* tokens that are solved together                          */
    SPAN = GDN_DELTA_CHUNK,   /* tokens for which a panel of the state stays in the cache */
    PANEL_MAX = 64,           /* columns of a panel, any variant's                        */
};

/* Of the tokens alone, kept for the heads that share a key: */
typedef struct {
    float *key, *query;     /* [SPAN][dk]            normalised; zeros past the last token */
    float *turned;          /* [dk][CHUNK]           K^T of a chunk                        */
    float *kk, *qk;         /* [SPAN][CHUNK]         k_i . k_j and q_i . k_j, j <= i       */
    /* and of a head's gates: */
    float *A, *P;           /* [SPAN][CHUNK]         -A_ij, j < i; P_ij, j <= i            */
    float *beta;            /* [SPAN]                                                      */
    float *from_start;      /* [SPAN]                exp(G_i)                              */
    float *take;            /* [SPAN]                -beta_i exp(G_i)                      */
    float *to_end;          /* [SPAN]                exp(G_last - G_i)                     */
    float *U, *W;           /* [CHUNK][PANEL_MAX]    U, and decayed to the chunk's end     */
} chunk_work;

/* Lay out work, or with NULL only count: the number of floats. */
static inline int64_t chunk_layout(chunk_work *w, float *work, int32_t dk) {
    const struct {
        float **p;
        int64_t n;
    } part[] = {
        {&w->key, SPAN * dk},
        {&w->query, SPAN * dk},
        {&w->turned, (dk + 15) / 16 * 16 * CHUNK},
        {&w->kk, SPAN * CHUNK},
        {&w->qk, SPAN * CHUNK},
        {&w->A, SPAN * CHUNK},
        {&w->P, SPAN * CHUNK},
        {&w->beta, SPAN},
        {&w->from_start, SPAN},
        {&w->take, SPAN},
        {&w->to_end, SPAN},
        {&w->U, CHUNK * PANEL_MAX},
        {&w->W, CHUNK * PANEL_MAX},
    };
    int64_t n = 0;
    for (unsigned i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].p = work == NULL ? work : work + n;
        n += part[i].n;
    }
    return n;
}

#endif
