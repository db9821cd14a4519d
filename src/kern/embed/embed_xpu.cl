/* embed_xpu.cl - rows of a table, as f32. */

/* Groups (stretches of 64 columns, rows). */
__kernel void embed(TENSOR1(y), TENSOR(ids), TENSOR1(table), int type, long n_table,
                    int d, FAULTS) {
    const long row = get_group_id(1);
    const int j = (int)get_global_id(0), id = AT0(int, ids)[row];
    if (j >= d) return;
    if (id < 0 || id >= n_table) {
        if (j == 0) FAULT(EMBED_ID, row, id);
        return;
    }
    AT1(float, y, row)[j] = load_as(type, AT1(uchar, table, id), j);
}
