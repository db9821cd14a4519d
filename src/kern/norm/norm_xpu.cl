/* norm_xpu.cl - norms of rows: a work-group for each (head, row), sums in one order
 * (xpu_common.cl); project_xpu.cl computes the same on the way to a product. */

/* Short rows use a line of the items alone: what the others do is not stored. */
inline float row_factor(const __global float *x, int d, float eps, __local float *part) {
    const int item = (int)get_local_id(0);
    const float sum = d <= NORM_SHORT ? line_sum(squares(x, d, item % SUM_LINE, SUM_LINE), part)
                                      : group_sum(squares(x, d, item, NORM_ITEMS), part, NORM_ITEMS);
    return norm_factor(sum, d, eps);
}

__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void rms_norm(TENSOR2(y), TENSOR2(x), TENSOR2(z), TENSOR(w), int y_type, int gated, int d,
              float eps) {
    __local float part[NORM_ITEMS];
    const long head = get_group_id(0), row = get_group_id(1);
    const __global float *in = AT2(float, x, row, head);
    const float f = row_factor(in, d, eps, part);
    for (int i = (int)get_local_id(0); i < d; i += NORM_ITEMS) {
        float v = in[i] * f * AT0(float, w)[i];
        if (gated) v *= silu(AT2(float, z, row, head)[i]);
        store_as(y_type, AT2(uchar, y, row, head), i, v);
    }
}

/* kind 0: silu, 1: sigmoid. */
inline float gate_of(int kind, float z) { return kind == 0 ? silu(z) : sigmoid(z); }

__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void rms_norm_gated(TENSOR2(y), TENSOR2(x), TENSOR2(z), TENSOR(w), int y_type, int x_type,
                    int w_type, int kind, int norm_after_gate, int d, float eps) {
    __local float part[NORM_ITEMS];
    const long head = get_group_id(0), row = get_group_id(1);
    const __global uchar *in = AT2(uchar, x, row, head), *gate = AT2(uchar, z, row, head);
    const int first = (int)get_local_id(0);
    float sum = 0.0f;
    for (int i = first; i < d; i += NORM_ITEMS) {
        float v = load_as(x_type, in, i);
        if (norm_after_gate) v *= gate_of(kind, load_as(x_type, gate, i));
        sum = fma(v, v, sum);
    }
    const float f = norm_factor(group_sum(sum, part, NORM_ITEMS), d, eps);
    for (int i = first; i < d; i += NORM_ITEMS) {
        const float v = load_as(x_type, in, i) * f * load_as(w_type, AT0(uchar, w), i);
        store_as(y_type, AT2(uchar, y, row, head), i, v * gate_of(kind, load_as(x_type, gate, i)));
    }
}
