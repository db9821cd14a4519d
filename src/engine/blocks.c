/* blocks.c - the page size of a hybrid model's cache. */
#include "blocks.h"

#include <stdbool.h>
#include <stddef.h>

/* With these bounds no product below wraps: block size x bytes of a token stays under 2^62. */
#define MAX_TOKEN_BYTES (UINT64_C(1) << 38)
#define MAX_STATE_BYTES (UINT64_C(1) << 62)

typedef unsigned long long ull;

static uint64_t gcd(uint64_t a, uint64_t b) {
    while (b != 0) {
        const uint64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* Of two numbers up to 2^31. */
static uint64_t lcm(uint64_t a, uint64_t b) { return a / gcd(a, b) * b; }

/* Products and sums that stick at the largest number. */
static uint64_t times(uint64_t a, uint64_t b) {
    uint64_t r;
    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}
static uint64_t plus(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

static uint64_t round_up(uint64_t x, uint64_t unit) {
    const uint64_t rest = x % unit;
    return rest == 0 ? x : plus(x, unit - rest);
}

static bool is_element(int32_t bytes) { return bytes == 1 || bytes == 2 || bytes == 4; }

static gdn_status check(const gdn_block_want *w, gdn_err *err) {
    const struct {
        const char *name;
        int32_t value, least;
    } number[] = {
        {"hkv", w->hkv, 0},
        {"hv", w->hv, 0},
        {"n_draft", w->n_draft, 0},
        {"kv_multiple", w->kv_multiple, 1},
        {"head_dim", w->head_dim, w->hkv > 0},
        {"hk", w->hk, w->hv > 0},
        {"dk", w->dk, w->hv > 0},
        {"dv", w->dv, w->hv > 0},
        {"conv_width", w->conv_width, w->hv > 0},
        {"gdn_multiple", w->gdn_multiple, w->hv > 0},
        {"base", w->base, w->hv > 0 && w->mode == GDN_BLOCKS_ALL},
    };
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        if (number[i].value < number[i].least)
            return gdn_fail(err, GDN_E_INVALID, "block rule: %s is %d, need %d or more",
                            number[i].name, (int)number[i].value, (int)number[i].least);
    if ((w->hkv > 0 && !is_element(w->kv_bytes)) ||
        (w->hv > 0 && !(is_element(w->conv_bytes) && is_element(w->state_bytes))))
        return gdn_fail(err, GDN_E_INVALID,
                        "block rule: elements of %d, %d and %d bytes; need 1, 2 or 4",
                        (int)w->kv_bytes, (int)w->conv_bytes, (int)w->state_bytes);
    return GDN_OK;
}

/* a1 and both parts of m. */
static void set_sizes(const gdn_block_want *w, gdn_block_plan *p) {
    if (w->hkv > 0)
        p->token_bytes = times(times(2 * (uint64_t)w->hkv, (uint64_t)w->head_dim),
                               (uint64_t)w->kv_bytes);
    if (w->hv == 0) return;
    const uint64_t rows = (uint64_t)w->conv_width - 1 + (uint64_t)w->n_draft,
                   channels = plus(2 * (uint64_t)w->hk * (uint64_t)w->dk,
                                   (uint64_t)w->hv * (uint64_t)w->dv);
    p->conv_bytes = times(times(rows, channels), (uint64_t)w->conv_bytes);
    /* The state behind must lie on its own type's boundary. */
    p->conv_bytes = round_up(p->conv_bytes, (uint64_t)w->state_bytes);
    p->state_bytes = times(times((uint64_t)w->hv * (uint64_t)w->dv, (uint64_t)w->dk),
                           (uint64_t)w->state_bytes);
}

/* al, with base in mode all.  Each lcm is bounded before it meets the next number. */
static gdn_status set_align(const gdn_block_want *w, gdn_block_plan *p, gdn_err *err) {
    const uint64_t gdn = w->hv > 0 ? (uint64_t)w->gdn_multiple : 1;
    const uint64_t base = w->hv > 0 && w->mode == GDN_BLOCKS_ALL ? (uint64_t)w->base : 1;
    uint64_t al = lcm((uint64_t)w->kv_multiple, gdn);
    if (al <= GDN_MAX_BLOCK_SIZE) al = lcm(al, base);
    if (al > GDN_MAX_BLOCK_SIZE)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "blocks of a multiple of %d, %llu and %llu tokens: none is as short as %d",
                        (int)w->kv_multiple, (ull)gdn, (ull)base, GDN_MAX_BLOCK_SIZE);
    p->align = (int32_t)al;
    return GDN_OK;
}

/* The size the rule gives, or the one asked for if that is a multiple no smaller. */
static gdn_status choose(const gdn_block_want *w, uint64_t m, gdn_block_plan *p, gdn_err *err) {
    const uint64_t al = (uint64_t)p->align, unit = al * p->token_bytes;
    uint64_t least = al;
    if (p->token_bytes > 0 && m > 0) least = (m + unit - 1) / unit * al;
    if (least > GDN_MAX_BLOCK_SIZE)
        return gdn_fail(err, GDN_E_UNSUPPORTED, "a state of %llu bytes needs a block of %llu "
                        "tokens; there can be %d", (ull)m, (ull)least, GDN_MAX_BLOCK_SIZE);
    const int32_t b = w->block_size;
    if (b < 0 || b > GDN_MAX_BLOCK_SIZE)
        return gdn_fail(err, GDN_E_INVALID,
                        "block size %d: need at most %d; the smallest that works is %llu", (int)b,
                        GDN_MAX_BLOCK_SIZE, (ull)least);
    if ((uint64_t)b % al != 0)
        return gdn_fail(err, GDN_E_INVALID,
                        "block size %d: need a multiple of %llu; the smallest that works is %llu",
                        (int)b, (ull)al, (ull)least);
    if (b != 0 && (uint64_t)b < least)
        return gdn_fail(err, GDN_E_INVALID,
                        "block size %d: its page does not hold a state of %llu bytes; the smallest "
                        "that works is %llu", (int)b, (ull)m, (ull)least);
    p->block_size = b != 0 ? b : (int32_t)least;
    return GDN_OK;
}

gdn_status gdn_plan_blocks(const gdn_block_want *w, gdn_block_plan *out, gdn_err *err) {
    gdn_block_plan p = {0};
    gdn_status st = check(w, err);
    if (st != GDN_OK) return st;
    set_sizes(w, &p);
    const uint64_t m = plus(p.conv_bytes, p.state_bytes);
    if (p.token_bytes > MAX_TOKEN_BYTES || m > MAX_STATE_BYTES)
        return gdn_fail(err, GDN_E_UNSUPPORTED,
                        "block rule: %llu bytes for a token and %llu for a state are too many",
                        (ull)p.token_bytes, (ull)m);
    st = set_align(w, &p, err);
    if (st == GDN_OK) st = choose(w, m, &p, err);
    if (st != GDN_OK) return st;
    if (p.token_bytes > 0) {
        p.page_bytes = (uint64_t)p.block_size * p.token_bytes;
    } else if (m > 0) { /* states only: the next page must lie on the wider type's boundary too */
        const int32_t c = w->conv_bytes, s = w->state_bytes;
        p.page_bytes = round_up(m, (uint64_t)(c > s ? c : s));
    }
    if (m > 0) p.padding_bytes = p.page_bytes - m;
    if (m > 0 && w->mode != GDN_BLOCKS_NONE) p.mamba_block_size = p.block_size;
    *out = p;
    return GDN_OK;
}

gdn_status gdn_shard_heads(gdn_block_want *w, int32_t tp, gdn_err *err) {
    if (tp < 1) return gdn_fail(err, GDN_E_INVALID, "%d shards, need 1 or more", (int)tp);
    if (w->hv > 0 && (w->hk % tp != 0 || w->hv % tp != 0))
        return gdn_fail(err, GDN_E_INVALID,
                        "%d key and %d value heads of the linear layers cannot be divided among %d "
                        "shards", (int)w->hk, (int)w->hv, (int)tp);
    if (w->hkv > 0 && (w->hkv > tp ? w->hkv % tp : tp % w->hkv) != 0)
        return gdn_fail(err, GDN_E_INVALID,
                        "%d key and value heads cannot be divided among %d shards, nor repeated "
                        "evenly", (int)w->hkv, (int)tp);
    if (w->hv > 0) {
        w->hk /= tp;
        w->hv /= tp;
    }
    if (w->hkv > 0) w->hkv = w->hkv > tp ? w->hkv / tp : 1;
    return GDN_OK;
}
