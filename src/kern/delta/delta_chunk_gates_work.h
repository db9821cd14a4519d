/* delta_chunk_gates_work.h - where the chunked forms keep what depends on a head's gates.  N is the
 * number of tokens that are laid out together, of which chunks are parts. */
#ifndef GDN_KERN_DELTA_CHUNK_GATES_WORK_H
#define GDN_KERN_DELTA_CHUNK_GATES_WORK_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    /* Of the tokens alone, kept for the heads that share a key: */
    float *kk, *qk;    /* [N][chunk]   k_i . k_j and q_i . k_j, j <= i                            */
    float *key_scale, *query_scale; /* [N] what is left to multiply k and q by                    */
    /* and of the gates: */
    float *A, *P;      /* [N][chunk]   -A_ij, j < i; P_ij, j <= i                                 */
    float *beta;       /* [N]                                                                     */
    float *from_start; /* [N]          exp(G_i)                                                   */
    float *take;       /* [N]          -beta_i exp(G_i), times k's scale                          */
    float *ask;        /* [N]          exp(G_i), times q's scale                                  */
    float *to_end;     /* [N]          exp(G_last - G_i), times k's scale                         */
} chunk_gates;

/* Lay them out at the beginning of work, or with NULL only count: the number of floats. */
static inline int64_t chunk_gates_layout(chunk_gates *g, float *work, int64_t N) {
    float **const square[] = {&g->kk, &g->qk, &g->A, &g->P};
    float **const row[] = {&g->key_scale, &g->query_scale, &g->beta,  &g->from_start,
                           &g->take,      &g->ask,         &g->to_end};
    int64_t n = 0;
    for (size_t i = 0; i < sizeof square / sizeof *square; i++, n += N * N)
        *square[i] = work == NULL ? work : work + n;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++, n += N)
        *row[i] = work == NULL ? work : work + n;
    return n;
}

#endif
