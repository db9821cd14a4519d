/* delta_chunk_work.h - where the chunked delta rule in vectors keeps what it needs between products.
 * A word is two bf16. */
#ifndef GDN_KERN_DELTA_CHUNK_WORK_H
#define GDN_KERN_DELTA_CHUNK_WORK_H

#include <stddef.h>

#include "delta_chunk.h"
#include "delta_chunk_gates_work.h"

enum {
    SPAN = GDN_DELTA_CHUNK,   /* tokens for which a panel of the state stays in the cache */
    PANEL_MAX = 64,           /* columns of a panel, any variant's                        */
};

typedef struct {
    /* Of the tokens alone, kept for the heads that share a key: */
    float *key, *query; /* [SPAN][dk] normalised, or [SPAN][dk / 2] words as they are; zeros
                         * past the last token                                            */
    float *turned;      /* [dk][chunk], or [dk / 2][SPAN] words: K^T of a chunk            */
    float *pairs;       /* [SPAN / 2][dk] words            K, two tokens a word            */
    chunk_gates g;
    /* of a panel: */
    float *U;           /* [chunk][columns]                                                */
    float *W;           /* [chunk][columns]                U, decayed to the chunk's end,
                         * or its words, two tokens each, and those of what they leave     */
} chunk_work;

/* Lay out work, or with NULL only count: the number of floats. */
static inline int64_t chunk_layout(chunk_work *w, float *work, int32_t dk) {
    const int64_t row = (dk + 15) / 16 * 16;
    const struct {
        float **p;
        int64_t n;
    } part[] = {
        {&w->key, SPAN * row},       {&w->query, SPAN * row}, {&w->turned, SPAN * row},
        {&w->pairs, SPAN / 2 * row}, {&w->U, SPAN * PANEL_MAX}, {&w->W, SPAN * PANEL_MAX},
    };
    int64_t n = chunk_gates_layout(&w->g, work, SPAN);
    for (unsigned i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].p = work == NULL ? work : work + n;
        n += part[i].n;
    }
    return n;
}

#endif
