/* delta_chunk_gates.h - a chunk's decays, scores and write strengths, in all chunked forms; after a
 * vec_<isa>.h, CHUNK, which is a multiple of VF_N, and delta_chunk_parts.h. */
#ifndef GDN_KERN_DELTA_CHUNK_GATES_H
#define GDN_KERN_DELTA_CHUNK_GATES_H

#include "delta_chunk_gates_work.h"

enum { CV = CHUNK / VF_N };

/* Tokens t0 .. t0 + n of the call, which are row t and its followers of g.  Decays between two tokens
 * are products of the tokens' own, row after row: no sum of logarithms whose difference would be lost
 * after a gate of -1e4, and no infinities.  Past the last token nothing decays and nothing is
 * written. */
PART void gates(const gdn_delta_chunk_args *a, const chunk_gates *g, int64_t t0, int t, int n) {
    static const float one_at[2 * CHUNK] = {[CHUNK - 1] = 1};
    float log_decay[CHUNK], decay[CHUNK], sums[CHUNK];
    double sum = 0;
    for (int i = 0; i < CHUNK; i++) {
        const float x = i < n ? a->g[(t0 + i) * a->gate_stride] : 0;
        log_decay[i] = x < -1e4f ? -1e4f : x;
        sum += (double)log_decay[i];
        sums[i] = (float)sum;
        g->beta[t + i] = i < n ? a->beta[(t0 + i) * a->gate_stride] : 0;
    }
    vf e[CV], scale[CV];
    for (int j = 0; j < CV; j++) {
        const int at = t + j * VF_N;
        const vf start = vf_exp(vf_load(sums + j * VF_N));
        scale[j] = vf_load(g->key_scale + at);
        vf_store(decay + j * VF_N, vf_exp(vf_load(log_decay + j * VF_N)));
        vf_store(g->from_start + at, start);
        vf_store(g->ask + at, vf_mul(start, vf_load(g->query_scale + at)));
        vf_store(g->take + at,
                 vf_sub(vf_zero(), vf_mul(vf_mul(start, vf_load(g->beta + at)), scale[j])));
        e[j] = vf_zero();
    }
    for (int i = 0; i < CHUNK; i++) { /* A's diagonal is not read */
        const vf alpha = vf_set1(decay[i]), query = vf_set1(g->query_scale[t + i]);
        const vf beta = vf_set1(-g->beta[t + i] * g->key_scale[t + i]);
        for (int j = 0; j < CV; j++) {
            const int64_t at = (t + i) * CHUNK + j * VF_N;
            const vf one = vf_load(one_at + CHUNK - 1 - i + j * VF_N);
            e[j] = vf_fma(e[j], alpha, vf_mul(one, scale[j]));
            vf_store(g->A + at, vf_mul(vf_mul(e[j], beta), vf_load(g->kk + at)));
            vf_store(g->P + at, vf_mul(vf_mul(e[j], query), vf_load(g->qk + at)));
        }
    }
    for (int j = 0; j < CV; j++) vf_store(g->to_end + t + j * VF_N, e[j]);
}

#endif
