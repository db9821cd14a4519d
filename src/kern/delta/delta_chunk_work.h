/* delta_chunk_work.h - where the chunked delta rule keeps what it needs between two products.
 *
 * Everything counts in words of four bytes: one f32, or two neighbouring bf16. */
#ifndef GDN_KERN_DELTA_CHUNK_WORK_H
#define GDN_KERN_DELTA_CHUNK_WORK_H

#include <stddef.h>

#include "delta_chunk.h"

enum {
    CHUNK = GDN_DELTA_CHUNK,
    GROUP = 16, /* rows of S that go through a chunk together */
};

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
} chunk_work;

/* Lay out work, or with NULL only count: the number of words. */
static inline int64_t chunk_layout(chunk_work *w, float *work, int32_t dk, int32_t pair) {
    const int64_t row = (dk / pair + 15) / 16 * 16, row32 = (dk + 15) / 16 * 16;
    const struct {
        float **p;
        int64_t n;
    } part[] = {
        {&w->tokens, row * 2 * CHUNK},
        {&w->keys, CHUNK * row},
        {&w->query, CHUNK * row},
        {&w->keys32, pair == 1 ? 0 : CHUNK * row32},
        {&w->scores, CHUNK * 2 * CHUNK},
        {&w->A, CHUNK * CHUNK},
        {&w->T, CHUNK * CHUNK},
        {&w->P, CHUNK * CHUNK},
        {&w->hi, CHUNK},
        {&w->lo, CHUNK},
        {&w->pairs, pair == 1 ? 0 : CHUNK / 2 * row32},
        {&w->key_scale, CHUNK},
        {&w->query_scale, CHUNK},
        {&w->key_start, CHUNK},
        {&w->query_start, CHUNK},
        {&w->key_end, CHUNK},
        {&w->from_start, CHUNK},
        {&w->beta, CHUNK},
        {&w->S, GROUP * row},
        {&w->M, GROUP * 2 * CHUNK},
        {&w->V, GROUP * CHUNK},
        {&w->U, GROUP * CHUNK},
        {&w->W, GROUP * CHUNK},
    };
    int64_t n = 0;
    for (unsigned i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].p = work == NULL ? work : work + n;
        n += part[i].n;
    }
    if (pair == 1) w->keys32 = w->keys;
    w->row32 = row32;
    w->words = dk / pair, w->row_words = row;
    return n;
}

#endif
