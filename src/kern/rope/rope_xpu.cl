/* rope_xpu.cl - cosines and sines of positions, without doubles.
 *
 * turn[j] is how far frequency j turns in one position, in 2^-64 of a full turn.  Times the
 * position, modulo 2^64, that is where the angle stands in its last turn: exact, however many turns
 * came before. */

/* Groups (stretches of 64 frequencies, rows). */
__kernel void rope_angles(TENSOR1(cs), TENSOR1(pos), __global const ulong *turn, int half_rot,
                          int height, int width) {
    const int j = (int)get_global_id(0);
    const long row = get_group_id(1);
    if (j >= half_rot) return;
    int axis = 0;
    if (j % 3 == 1 && j < height) axis = 1;
    if (j % 3 == 2 && j < width) axis = 2;
    const ulong at = (ulong)(long)AT1(int, pos, row)[axis] * turn[j];
    const float angle = (float)(long)at * 0x1p-63f; /* in units of pi, -1 .. 1 */
    AT1(float, cs, row)[j] = cospi(angle);
    AT1(float, cs, row)[half_rot + j] = sinpi(angle);
}
