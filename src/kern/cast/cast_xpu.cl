/* cast_xpu.cl - rows in another type. */

/* Groups (stretches of 64 columns, rows).  The same type keeps its bits. */
__kernel void cast(TENSOR1(y), TENSOR1(x), int to, int from, long n) {
    const long j = get_global_id(0), row = get_group_id(1);
    if (j >= n) return;
    if (to != from) store_as(to, AT1(uchar, y, row), j, load_as(from, AT1(uchar, x, row), j));
    else if (to == TYPE_F32) AT1(uint, y, row)[j] = AT1(uint, x, row)[j];
    else AT1(ushort, y, row)[j] = AT1(ushort, x, row)[j];
}
