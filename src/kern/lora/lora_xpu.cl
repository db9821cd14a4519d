/* lora_xpu.cl - low-rank adapters: a call for each, which passes over the rows of others. */

enum { DOWN_ITEMS = 64 };

/* The adapter of row i; negative: none, or not known. */
inline int adapter_of(const __global int *adapter, const __global int *row, int gather,
                      long n_adapter, long i) {
    const long at = gather ? row[i] : i;
    return at >= 0 && at < n_adapter ? adapter[at] : -1;
}

/* An item for each row. */
__kernel void lora_check(TENSOR(adapter), TENSOR(row), int gather, long n_adapter, int n_lora,
                         long n_row, FAULTS) {
    const long i = get_global_id(0);
    if (i >= n_row) return;
    const int at = gather ? AT0(int, row)[i] : (int)i;
    if (at < 0 || at >= n_adapter) FAULT(LORA_ROW, i, at);
    else if (AT0(int, adapter)[at] >= n_lora) FAULT(LORA_ADAPTER, at, AT0(int, adapter)[at]);
}

/* work[row][r] = A[r] x[row].  Groups (rank, rows). */
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void lora_down(TENSOR1(work), TENSOR1(x), TENSOR(adapter), TENSOR(row), int gather, long n_adapter,
               TENSOR(a), int which, int k, int x_type) {
    __local float part[DOWN_ITEMS];
    const long r = get_group_id(0), i = get_group_id(1);
    if (adapter_of(AT0(int, adapter), AT0(int, row), gather, n_adapter, i) != which) return;
    const __global float *m = AT0(float, a) + r * k;
    float sum = 0.0f;
    for (int j = (int)get_local_id(0); j < k; j += DOWN_ITEMS)
        sum = fma(load_as(x_type, AT1(uchar, x, i), j), m[j], sum);
    sum = group_sum(sum, part, DOWN_ITEMS);
    if (get_local_id(0) == 0) AT1(float, work, i)[r] = sum;
}

/* y[row] += scale B work[row].  Groups (stretches of 64 outputs, rows). */
__kernel void lora_up(TENSOR1(y), TENSOR1(work), TENSOR(adapter), TENSOR(row), int gather,
                      long n_adapter, TENSOR(b), int which, int n, int rank, float scale) {
    const long o = get_global_id(0), i = get_group_id(1);
    if (o >= n) return;
    if (adapter_of(AT0(int, adapter), AT0(int, row), gather, n_adapter, i) != which) return;
    const __global float *m = AT0(float, b) + o * rank, *u = AT1(float, work, i);
    float sum = 0.0f;
    for (int r = 0; r < rank; r++) sum = fma(m[r], u[r], sum);
    AT1(float, y, i)[o] += scale * sum;
}
