/* norm_gated_body.h - the gated norm over vf; lanes run along the group.
 *
 * The type of x and z and the order of norm and gate are constants of each loop; the types of w
 * and y are tested at every vector, where the exponential hides it. */
#include <math.h>
#include <string.h>

/* Values i .. i + n of an array; the last, short vector passes through memory. */
INLINE vf get_as(const void *p, gdn_type t, int64_t i, int n) {
    if (t == GDN_F32) return vf_get((const float *)p + i, n);
    const uint16_t *from = (const uint16_t *)p + i;
    uint16_t part[VF_N] = {0};
    if (n < VF_N) {
        memcpy(part, from, (size_t)n * sizeof *part);
        from = part;
    }
    return t == GDN_BF16 ? vf_load_bf16(from) : vf_load_f16(from);
}

INLINE void put_as(void *p, gdn_type t, int64_t i, vf x, int n) {
    if (t == GDN_F32) {
        vf_put((float *)p + i, x, n);
        return;
    }
    uint16_t part[VF_N], *to = n < VF_N ? part : (uint16_t *)p + i;
    if (t == GDN_BF16) vf_store_bf16(to, x);
    else put_f16(to, x);
    if (n < VF_N) memcpy((uint16_t *)p + i, part, (size_t)n * sizeof *part);
}

INLINE vf gate_of(vf z, bool silu) { return silu ? vf_silu(z) : vf_sigmoid(z); }

/* What the norm squares. */
INLINE vf normed(const void *x, const void *z, gdn_type t, bool after, bool silu, int64_t i, int n) {
    const vf v = get_as(x, t, i, n);
    return after ? vf_mul(v, gate_of(get_as(z, t, i, n), silu)) : v;
}

/* The order of the sum depends on d alone. */
INLINE float sum_squares(const void *x, const void *z, gdn_type t, bool after, bool silu, int64_t d) {
    vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    int64_t i = 0;
    for (; i + 4 * VF_N <= d; i += 4 * VF_N)
        for (int j = 0; j < 4; j++) {
            const vf v = normed(x, z, t, after, silu, i + j * VF_N, VF_N);
            s[j] = vf_fma(v, v, s[j]);
        }
    for (; i < d; i += VF_N) {
        const vf v = d - i < VF_N ? normed(x, z, t, after, silu, i, (int)(d - i))
                                  : normed(x, z, t, after, silu, i, VF_N);
        s[0] = vf_fma(v, v, s[0]);
    }
    return vf_hsum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

INLINE void put_values(const gdn_norm_gated_args *a, void *y, const void *x, const void *z, gdn_type t,
                       bool silu, vf f, int64_t i, int n) {
    const vf g = gate_of(get_as(z, t, i, n), silu);
    const vf v = vf_mul(vf_mul(get_as(x, t, i, n), f), get_as(a->w, a->w_type, i, n));
    put_as(y, a->y_type, i, vf_mul(v, g), n);
}

INLINE void groups(const gdn_norm_gated_args *a, gdn_type t, bool after, bool silu) {
    for (int64_t row = 0; row < a->n_row; row++)
        for (int64_t head = 0; head < a->n_head; head++) {
            const void *x = (const char *)a->x + row * a->x_stride + head * a->x_head_stride;
            const void *z = (const char *)a->z + row * a->z_stride + head * a->z_head_stride;
            void *y = (char *)a->y + row * a->y_stride + head * a->y_head_stride;
            const float mean = sum_squares(x, z, t, after, silu, a->d) / (float)a->d;
            const vf f = vf_set1(1 / sqrtf(mean + a->eps));
            int64_t i = 0;
            for (; i + VF_N <= a->d; i += VF_N) put_values(a, y, x, z, t, silu, f, i, VF_N);
            if (i < a->d) put_values(a, y, x, z, t, silu, f, i, (int)(a->d - i));
        }
}

INLINE void typed(const gdn_norm_gated_args *a, gdn_type t) {
    const bool silu = a->gate == GDN_GATE_SILU;
    if (a->norm_after_gate) silu ? groups(a, t, true, true) : groups(a, t, true, false);
    else silu ? groups(a, t, false, true) : groups(a, t, false, false);
}

INLINE void norm_gated_body(const gdn_norm_gated_args *a) {
    if (a->x_type == GDN_F32) typed(a, GDN_F32);
    else if (a->x_type == GDN_BF16) typed(a, GDN_BF16);
    else typed(a, GDN_F16);
}
