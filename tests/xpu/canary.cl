/* canary.cl - bugs planted on purpose, to see that the sanitizer finds them (oclgrind.sh).
 *
 * 64 items in groups of 16; a, b and c have 64 floats each, n is 8.  `sound` is right, and nothing may
 * be said about it. */

enum { TILE = 4 };

/* c = a b, tile by tile; RACE leaves out the barrier before the tiles are filled again. */
#define PRODUCT(name, SECOND_BARRIER)                                                             \
    __kernel void name(__global float *a, __global float *b, __global float *c, int n) {          \
        __local float left[TILE][TILE], right[TILE][TILE];                                        \
        const int g = (int)get_group_id(0), l = (int)get_local_id(0), x = l % TILE, y = l / TILE; \
        const int row = g / (n / TILE) * TILE + y, column = g % (n / TILE) * TILE + x;            \
        float sum = 0.0f;                                                                         \
        for (int k = 0; k < n; k += TILE) {                                                       \
            left[y][x] = a[row * n + k + x];                                                      \
            right[y][x] = b[(k + y) * n + column];                                                \
            barrier(CLK_LOCAL_MEM_FENCE);                                                         \
            for (int i = 0; i < TILE; i++) sum += left[y][i] * right[i][x];                       \
            SECOND_BARRIER;                                                                       \
        }                                                                                         \
        c[row * n + column] = sum;                                                                \
    }

PRODUCT(sound, barrier(CLK_LOCAL_MEM_FENCE))
PRODUCT(missing_barrier, (void)0)

__kernel void buffer_overrun(__global float *a, __global float *b, __global float *c, int n) {
    c[get_global_id(0) + 1] = a[get_global_id(0)];
}

__kernel void global_race(__global float *a, __global float *b, __global float *c, int n) {
    c[0] += a[get_global_id(0)];
}

__kernel void local_overrun(__global float *a, __global float *b, __global float *c, int n) {
    __local float t[TILE * TILE - 1];
    const int l = (int)get_local_id(0);
    t[l] = a[get_global_id(0)];
    barrier(CLK_LOCAL_MEM_FENCE);
    c[get_global_id(0)] = t[l];
}

__kernel void local_unset(__global float *a, __global float *b, __global float *c, int n) {
    __local float t[TILE * TILE];
    const int l = (int)get_local_id(0);
    if (l % 2 == 0) t[l] = a[get_global_id(0)];
    barrier(CLK_LOCAL_MEM_FENCE);
    c[get_global_id(0)] = t[l];
}

__kernel void divergent_barrier(__global float *a, __global float *b, __global float *c, int n) {
    if (get_local_id(0) < 3) barrier(CLK_LOCAL_MEM_FENCE);
    c[get_global_id(0)] = a[get_global_id(0)];
}
