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

bad 1 ' has no clock for its kernels' bench -p 16 -n 0 --kernels --device cpu

# Prompt tokens that have to be computed, counted by hand: a turn of 60 tokens behind an answer of
# which the last token was never evaluated; 100 behind 200 in common; 4 turns of 50 in each of two
# conversations that begin alike, the first turns being 100 longer; one of eight copies.
ok bench --reuse --json
for row in '"first turn, 500 tokens", "prompt": 500, "computed": 500' \
    '60 tokens more", "prompt": 592, "computed": 61' 'of 100", "prompt": 300, "computed": 100' \
    '"prompt": 3784, "computed": 606' '8 times at once", "prompt": 16000, "computed": 2000' \
    '732 tokens", "prompt": 772, "computed": 41'; do
    grep -qF -- "$row" "$TMP/out" || fail "bench --reuse: no $row in $(cat "$TMP/out")"
done
ok bench --batch 3 -p 20 -n 5 --reps 1 --json
for key in '"requests": 3, "prompt": 20, "new": 5' '"gain"' '"scheduler_share"'; do
    grep -q "$key" "$TMP/out" || fail "bench --batch: no $key"
done
ok bench --drafts 2 -n 30 --reps 1 --json
grep -q '"accepted": 0\.[0-9]\|"accepted": 1' "$TMP/out" || fail "bench --drafts: $(cat "$TMP/out")"
bad 2 'give only one of --reuse' bench --reuse --batch 2
finish
