/* attn_tiles_xpu.cl - where a tile of rows is, in front of the kernels that work on tiles.
 *
 * Only the device knows where sequences begin, so a call has as many tiles as its rows could fill and
 * one more for each sequence: those of sequence s begin at its first row / rows + s, and what lies
 * behind its last row has nothing to do. */

typedef struct {
    int seq, row, n, pos; /* the tile's first row, its rows (0: nothing to do), the first's position */
} tile_place;

/* rows: of a tile; tell: this item reports what is wrong. */
inline tile_place tile_at(FAULTS, const __global int *start, const __global int *n_past, int n_seq,
                          int n_row, int max_block, int block_size, int tile, int rows, bool tell) {
    tile_place at = {0, 0, 0, 0};
    int s = 0;
    for (int end = n_seq; s + 1 < end;) { /* the last whose tiles begin here or before */
        const int mid = s + (end - s) / 2;
        if (start[mid] / rows + mid <= tile) s = mid;
        else end = mid;
    }
    const int begin = start[s], past = n_past[s];
    const long in_seq = ((long)tile - begin / rows - s) * rows;
    if (begin < 0 || in_seq < 0 || in_seq >= start[s + 1] - begin) return at;
    if (start[s + 1] > n_row) {
        if (tell) FAULT(ATTN_START, s + 1, start[s + 1]);
        return at;
    }
    at.seq = s;
    at.row = begin + (int)in_seq;
    at.pos = past + (int)in_seq;
    at.n = min(start[s + 1] - at.row, rows);
    const long room = (long)max_block * block_size - past - in_seq;
    if (past < 0 || room < at.n) {
        if (tell) FAULT(ATTN_LENGTH, s, past);
        at.n = past < 0 || room <= 0 ? 0 : (int)room;
    }
    return at;
}
