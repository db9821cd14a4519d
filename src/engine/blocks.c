/* blocks.c - the page size of a hybrid model's cache. */
#include "blocks.h"

static int64_t gcd(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

gdn_status gdn_plan_blocks(const gdn_block_want *w, gdn_block_plan *out, gdn_err *err) {
    const uint64_t C = 2 * (uint64_t)w->hk * (uint64_t)w->dk + (uint64_t)w->hv * (uint64_t)w->dv;
    gdn_block_plan p = {0};
    p.token_bytes = 2 * (uint64_t)w->hkv * (uint64_t)w->head_dim * (uint64_t)w->kv_bytes;
    if (w->hv > 0) {
        p.conv_bytes = (uint64_t)(w->conv_width - 1 + w->n_draft) * C * (uint64_t)w->conv_bytes;
        p.state_bytes = (uint64_t)w->hv * (uint64_t)w->dv * (uint64_t)w->dk *
                        (uint64_t)w->state_bytes;
        /* The state behind must lie on its own type's boundary. */
        const uint64_t unit = (uint64_t)w->state_bytes;
        p.conv_bytes = (p.conv_bytes + unit - 1) / unit * unit;
    }
    const uint64_t m = p.conv_bytes + p.state_bytes;
    const int64_t kv = w->kv_multiple, gdn = w->hv > 0 ? w->gdn_multiple : 1;
    const uint64_t al = (uint64_t)(kv / gcd(kv, gdn) * gdn);
    if (w->block_size < 0 || w->block_size > 1 << 24 || (uint64_t)w->block_size % al != 0)
        return gdn_fail(err, GDN_E_INVALID, "block size %d: need a multiple of %llu up to %d",
                        w->block_size, (unsigned long long)al, 1 << 24);
    if (p.token_bytes == 0) { /* states only: a page is a state */
        p.block_size = (int32_t)al;
        p.page_bytes = m;
        *out = p;
        return GDN_OK;
    }
    const uint64_t unit = al * p.token_bytes;
    uint64_t blocks = m > 0 ? (m + unit - 1) / unit : 1;
    if (w->block_size != 0) {
        const int64_t b = w->block_size;
        if ((uint64_t)b * p.token_bytes < m)
            return gdn_fail(err, GDN_E_INVALID,
                            "block size %lld: its page does not hold a state of %llu bytes; the "
                            "smallest that does is %llu",
                            (long long)b, (unsigned long long)m,
                            (unsigned long long)(blocks * al));
        blocks = (uint64_t)b / al;
    }
    if (blocks * al > 1u << 24)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "a state of %llu bytes needs a block of %llu tokens",
                        (unsigned long long)m, (unsigned long long)(blocks * al));
    p.block_size = (int32_t)(blocks * al);
    p.page_bytes = blocks * unit;
    p.padding_bytes = m > 0 ? p.page_bytes - m : 0;
    *out = p;
    return GDN_OK;
}
