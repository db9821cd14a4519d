/* rope_angles.c - cosines and sines of the positions of a step.
 *
 * Angles are made in double: at position 100000 an f32 angle is off by up to 4e-3. */
#include "rope.h"

#include <math.h>

/* Which of (time, height, width) frequency j turns with. */
static int axis_of(int32_t j, const int32_t section[3], bool mrope) {
    if (!mrope) return 0;
    if (j % 3 == 1 && j < 3 * section[1]) return 1;
    if (j % 3 == 2 && j < 3 * section[2]) return 2;
    return 0;
}

void gdn_rope_angles(float *cs, const int32_t *pos, int32_t n_row, int32_t rot,
                     double theta, const int32_t section[3], bool mrope) {
    const int32_t half = rot / 2;
    for (int32_t j = 0; j < half; j++) {
        const double frequency = pow(theta, -2.0 * j / rot);
        const int axis = axis_of(j, section, mrope);
        for (int64_t row = 0; row < n_row; row++) {
            const double angle = (double)pos[3 * row + axis] * frequency;
            cs[row * rot + j] = (float)cos(angle);
            cs[row * rot + half + j] = (float)sin(angle);
        }
    }
}
