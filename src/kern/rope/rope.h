/* rope.h - norm and rotation of query and key heads.
 *
 *     n = x rsqrt(mean(x^2) + eps) w          over a head of d values
 *     y_j = n_j cos_j - n_{j+r/2} sin_j,  y_{j+r/2} = n_{j+r/2} cos_j + n_j sin_j   for j < r/2
 *     y_j = n_j                                for j >= r
 *
 * cos_j, sin_j belong to the row's position; the angles are made once a step (gdn_rope_angles).
 * mrope: frequency j takes the height position when j % 3 == 1 and j < 3 section[1], the width
 * position when j % 3 == 2 and j < 3 section[2], else the time position. */
#ifndef GDN_KERN_ROPE_H
#define GDN_KERN_ROPE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    void        *y;   /* [n_row] x y_stride, heads y_head_stride apart; f32 or bf16        */
    const float *x;   /* [n_row] x x_stride, heads x_head_stride apart                     */
    const float *w;   /* [d]                                                               */
    const float *cs;  /* [n_row][rot]  cosines of j < rot/2, then sines                    */
    int64_t y_stride, y_head_stride, x_stride, x_head_stride;
    int32_t n_row, n_head, d, rot;
    float   eps;
    bool    y_bf16;
} gdn_rope_args;
typedef void gdn_rope_fn(const gdn_rope_args *a);

/* cs [n_row][rot] for positions pos [n_row][3] (time, height, width); angles in double. */
void gdn_rope_angles(float *cs, const int32_t *pos, int32_t n_row, int32_t rot, double theta,
                     const int32_t section[3], bool mrope);

gdn_rope_fn gdn_rope_ref, gdn_rope_avx2, gdn_rope_avx512;

#endif
