/* delta_chunk_pairs_work.h - where the chunked delta rule in pairs of bf16 keeps what it needs
 * between two products.
 *
 * Everything counts in words of four bytes: one f32, or two neighbouring bf16.  CHUNK is
 * GDN_DELTA_CHUNK. */
#ifndef GDN_KERN_DELTA_CHUNK_PAIRS_WORK_H
#define GDN_KERN_DELTA_CHUNK_PAIRS_WORK_H

#include <stddef.h>

#include "delta_chunk.h"

enum { GROUP = 16 }; /* rows of S that go through a chunk together */

typedef struct {
    float *tokens; /* [words][2 CHUNK]     K^T and Q^T, vectors of tokens in turn        */
    float *keys;   /* [CHUNK][row_words]   K                                             */
    float *query;  /* [CHUNK][row_words]   Q                                             */
    float *keys32; /* [CHUNK][row]         K in f32                                      */
    float *scores; /* [CHUNK][2 CHUNK]     row j: k_j . k_i and k_j . q_i in turn        */
    float *A;      /* [CHUNK][CHUNK]       A^T: row j holds A_ij                         */
    float *T;      /* [CHUNK][CHUNK]       its inverse, T^T                              */
    float *P;      /* [CHUNK][CHUNK]       row j holds exp(G_i - G_j) q_i . k_j          */
    float *hi, *lo;                   /* [CHUNK] G as the sum of two                     */
    float *pairs;  /* [CHUNK / 2][row]     K in bf16, two tokens a word                  */
    float *key_scale, *query_scale;   /* [CHUNK] what is left to multiply k and q by     */
    float *from_start;                /* [CHUNK] exp(G_i)                                */
    float *key_start, *query_start, *key_end; /* times a scale; exp(G_last - G_i)        */
    float *beta;                      /* [CHUNK]                                         */
    float *S;                         /* [GROUP][row_words] rows of the state            */
    float *M;                         /* [GROUP][2 CHUNK]   S0 k_i and S0 q_i in turn    */
    float *V;                         /* [GROUP][CHUNK]     V^T, then what T multiplies  */
    float *U, *W;                     /* [GROUP][CHUNK]     U^T, and decayed to the end  */
    int32_t words;                    /* of dk numbers                                   */
    int32_t last;                     /* the first of the chunk's last pairs             */
    int64_t row_words;                /* the same in whole cache lines                   */
    int64_t row32;                    /* of dk f32, in whole cache lines                 */
} pairs_work;

/* Lay out work, or with NULL only count: the number of words. */
static inline int64_t pairs_layout(pairs_work *w, float *work, int32_t dk) {
    enum { N = GDN_DELTA_CHUNK };
    const int64_t row = (dk / 2 + 15) / 16 * 16, row32 = (dk + 15) / 16 * 16;
    const struct {
        float **p;
        int64_t n;
    } part[] = {
        {&w->tokens, row * 2 * N},
        {&w->keys, N * row},
        {&w->query, N * row},
        {&w->keys32, N * row32},
        {&w->scores, N * 2 * N},
        {&w->A, N * N},
        {&w->T, N * N},
        {&w->P, N * N},
        {&w->hi, N},
        {&w->lo, N},
        {&w->pairs, N / 2 * row32},
        {&w->key_scale, N},
        {&w->query_scale, N},
        {&w->key_start, N},
        {&w->query_start, N},
        {&w->key_end, N},
        {&w->from_start, N},
        {&w->beta, N},
        {&w->S, GROUP * row},
        {&w->M, GROUP * 2 * N},
        {&w->V, GROUP * N},
        {&w->U, GROUP * N},
        {&w->W, GROUP * N},
    };
    int64_t n = 0;
    for (unsigned i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].p = work == NULL ? work : work + n;
        n += part[i].n;
    }
    w->row32 = row32;
    w->words = dk / 2, w->row_words = row;
    return n;
}

#endif
