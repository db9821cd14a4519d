/* check_gdn_attention_ref.c - the operator's equations in double, a token at a time. */
#include <math.h>
#include <string.h>

#include "check_gdn_attention.h"

double attn_round(double x, gdn_type t) {
    if (t == GDN_F32) return (double)(float)x;
    if (x == 0 || !isfinite(x)) return x;
    const int digits = t == GDN_BF16 ? 8 : 11, least = t == GDN_BF16 ? -125 : -13;
    int e;
    frexp(x, &e);
    const double unit = ldexp(1, (e < least ? least : e) - digits);
    const double y = nearbyint(x / unit) * unit;
    return t == GDN_F16 && fabs(y) > 65504 ? copysign(INFINITY, x) : y;
}

double attn_get(const void *p, int64_t i, gdn_type t) {
    if (t == GDN_F32) return (double)((const float *)p)[i];
    const uint16_t u = ((const uint16_t *)p)[i];
    if (t == GDN_BF16) return (double)check_from_bf16(u);
    const int e = u >> 10 & 31, m = u & 1023;
    const double x = e == 31  ? (m != 0 ? (double)NAN : INFINITY)
                     : e == 0 ? ldexp(m, -24)
                              : ldexp(1024 + m, e - 25);
    return u >> 15 ? -x : x;
}

/* x is finite. */
void attn_put(void *p, int64_t i, gdn_type t, double x) {
    const double y = attn_round(x, t);
    if (t == GDN_F32) {
        ((float *)p)[i] = (float)y;
    } else if (t == GDN_BF16) {
        const float f = (float)y;
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        ((uint16_t *)p)[i] = (uint16_t)(u >> 16);
    } else {
        int e = 0;
        const double m = frexp(fabs(y), &e);
        const int bits = fabs(y) < 0x1p-14 ? (int)ldexp(fabs(y), 24)
                                           : ((e + 14) << 10) + (int)ldexp(m, 11) - 1024;
        ((uint16_t *)p)[i] = (uint16_t)(bits | (signbit(y) ? 0x8000 : 0));
    }
}

static double silu(double x) { return x / (1 + exp(-x)); }

double attn_ref_conv(const attn_ref *r, int32_t c, double x) {
    const int32_t C = 2 * r->nk * r->dk + r->nv * r->dv;
    const double *w = r->w + (int64_t)c * r->W;
    double s = r->bias[c] + w[r->W - 1] * x;
    for (int32_t j = 0; j < r->W - 1; j++) s += w[j] * r->past[(int64_t)j * C + c];
    return silu(s);
}

static double dot(const double *a, const double *b, int32_t n) {
    double s = 0;
    for (int32_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void head(attn_ref *r, int32_t h, double b, double a, double *core) {
    const int32_t dk = r->dk, g = h / (r->nv / r->nk);
    const double *q = r->y + (int64_t)g * dk, *k = q + (int64_t)r->nk * dk;
    const double *v = r->y + 2 * (int64_t)r->nk * dk + (int64_t)h * r->dv;
    const double fq = 1 / sqrt(dot(q, q, dk) + 1e-6) / sqrt(dk);
    const double fk = 1 / sqrt(dot(k, k, dk) + 1e-6);
    const double beta = 1 / (1 + exp(-b)), x = a + r->dt[h];
    const double alpha = exp(-exp(r->A_log[h]) * (x >= 20 ? x : log1p(exp(x))));
    double *S = r->S + (int64_t)h * r->dv * dk;
    for (int32_t i = 0; i < r->dv; i++, S += dk) {
        const double u = beta * (v[i] - alpha * fk * dot(S, k, dk));
        for (int32_t j = 0; j < dk; j++) S[j] = alpha * S[j] + u * fk * k[j];
        core[i] = fq * dot(S, q, dk);
    }
}

void attn_ref_token(attn_ref *r, const double *x, const double *b, const double *a, double *core) {
    const int32_t C = 2 * r->nk * r->dk + r->nv * r->dv;
    for (int32_t c = 0; c < C; c++) r->y[c] = attn_round(attn_ref_conv(r, c, x[c]), r->act);
    memmove(r->past, r->past + C, (size_t)(r->W - 2) * C * sizeof *x);
    memcpy(r->past + (int64_t)(r->W - 2) * C, x, (size_t)C * sizeof *x);
    for (int32_t h = 0; h < r->nv; h++) head(r, h, b[h], a[h], core + (int64_t)h * r->dv);
}
