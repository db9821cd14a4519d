#!/bin/sh
# gdn bench: a small run has all its numbers.
. tests/cli/check.inc

ok bench -p 16 -n 4 --depth 0,32 --reps 1 --json
for key in '"kind": "prompt", "depth": 0, "tokens": 16' '"kind": "generation", "depth": 0, "tokens": 4' \
    '"kind": "prompt", "depth": 32' '"kind": "generation", "depth": 32' '"read_bytes"' \
    '"bf16_flops"' '"sync_share"'; do
    grep -q "$key" "$TMP/out" || fail "bench --json: no $key"
done
# Counted by hand for the demo model, a token generated at depth 0, keys 1 to 4 (mean 2.5):
# gated delta rule 6 layers * 6 * 4 heads * 128 * 128, attention 2 layers * 4 * 2 heads * 256 * 2.5.
flops=$(tr '{' '\n' <"$TMP/out" | sed -n 's/.*"flops_per_token": \([0-9.e+]*\),.*/\1/p' | sed -n 2p)
"$GDN" info --json >"$TMP/info"
active=$(sed 's/.*"active_flops": \([0-9]*\),.*/\1/' "$TMP/info")
awk -v f="$flops" -v a="$active" 'BEGIN {
    want = a + 6 * 6 * 4 * 128 * 128 + 2 * 4 * 2 * 256 * 2.5
    exit !(f > 0.9999 * want && f < 1.0001 * want)
}' || fail "flops of a token: $flops, with $active of products"
ok bench -p 16 -n 0 --reps 1
grep -q '^prompt 16 ' "$TMP/out" || fail "bench: $(cat "$TMP/out")"
grep -q '^generation' "$TMP/out" && fail "bench -n 0 generates"
bad 1 "the model's context is 4096" bench --depth 4000 -p 512
bad 1 'need one at least' bench -p 0 -n 0
bad 1 'need 1 to 16' bench --depth ''
finish
