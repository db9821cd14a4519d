/* act_xpu.cl - the feed-forward gate. */

/* Groups (stretches of 64 columns, rows). */
__kernel void swiglu(TENSOR1(y), TENSOR1(x), int y_type, long n) {
    const long j = get_global_id(0), row = get_group_id(1);
    if (j >= n) return;
    const __global float *in = AT1(float, x, row);
    store_as(y_type, AT1(uchar, y, row), j, silu(in[j]) * in[n + j]);
}
