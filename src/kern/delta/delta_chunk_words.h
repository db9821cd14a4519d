/* delta_chunk_words.h - vectors to words, which are two bf16 in four bytes, the low one first; after a
 * vec_<isa>.h and
 *
 *     vf_words       two vectors to words, rounded to the nearest
 *     vf_pair        the same, cut off
 *     vf_near        a vector whose numbers, cut off to bf16, are its own rounded to the nearest
 *     vf_low         the low halves of words as f32
 *     vf_high        the high ones
 *     vf_squares     a sum that gains, lane by lane, the squares of both halves of words */
#ifndef GDN_KERN_DELTA_CHUNK_WORDS_H
#define GDN_KERN_DELTA_CHUNK_WORDS_H

/* Two vectors to words: with two parts the second is what the first left.  A number that is none is
 * in the last part whatever its bits. */
INLINE void put_words(float *to, int64_t part, vf low, vf high, int n) {
    if (n == 2) {
        const vf x = vf_near(low), y = vf_near(high);
        vf_store(to, vf_pair(x, y));
        low = vf_sub(low, vf_high(x));
        high = vf_sub(high, vf_high(y));
        to += part;
    }
    vf_store(to, vf_words(low, high));
}

#endif
