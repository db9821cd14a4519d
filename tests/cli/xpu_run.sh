#!/bin/sh
# The commands with --device xpu, on whatever OpenCL device there is: the demo's answer, logits near
# the cpu's, recorded calls of the operator, a device that checks itself.
. tests/cli/check.inc
export XDG_CACHE_HOME=/dev/null # for a program's binary PoCL compiles all of it once more

gdn devices
grep -q '^xpu:0 ' "$TMP/out" || {
    echo "there is no OpenCL device"
    exit 77
}
ok devices --check
[ "$(grep -c 'passes its start-up check' "$TMP/out")" -ge 2 ] || fail "$(cat "$TMP/out")"
ok devices --check --json
grep -q '"name": "xpu:0".*"passes": true' "$TMP/out" || fail "devices --json: $(cat "$TMP/out")"

ok run -q --device xpu --math f32 --temp 0 -p "What is cruft?"
cp "$TMP/out" "$TMP/xpu"
ok run -q --device cpu --math f32 --temp 0 -p "What is cruft?"
cmp -s "$TMP/out" "$TMP/xpu" || fail "another answer: $(cat "$TMP/xpu")"
[ "$(cat "$TMP/xpu")" = "$CRUFT" ] || fail "not the demo's answer: $(cat "$TMP/xpu")"

# Kernels by the device's clock: those of an answer, as many launches as there are without.
ok bench -q --device xpu -p 16 -n 2 --reps 1 --kernels --json
awk '{ n = split($0, run, /"kind": /)
       for (i = 2; i <= n; i++) {
           launches = 0; us = 0; rest = run[i]
           while (match(rest, /"launches": [0-9]*, "us": [0-9.]*/)) {
               split(substr(rest, RSTART, RLENGTH), v, /[:,]/)
               launches += v[2]; us += v[4]; rest = substr(rest, RSTART + RLENGTH)
           }
           match(run[i], /"tokens": [0-9]*/); tokens = substr(run[i], RSTART + 10, RLENGTH - 10)
           match(run[i], /"regions_per_token": [0-9.]*/); each = substr(run[i], RSTART + 21, RLENGTH - 21)
           d = launches - tokens * each
           if (launches < 20 || us <= 0 || d * d > 1) exit 1
       }
       exit n != 3 }' "$TMP/out" || fail "bench --kernels: $(cat "$TMP/out")"
ok bench -q --device xpu -p 0 -n 2 --reps 1 --kernels
grep -q '^kernels of a token after 0: [0-9.]* us of [0-9.]* us, [0-9]* launches$' "$TMP/out" &&
    grep -q ' times  gdn' "$TMP/out" || fail "bench --kernels: $(cat "$TMP/out")"

# A stand-in is never the default: where the list begins with the cpu, the cpu is taken.
gdn devices
if head -n 1 "$TMP/out" | grep -q '^cpu '; then
    ok run -v -n 1 -p hi
    grep -q 'default device=cpu' "$TMP/err" || fail "default device"
fi

M=$GOLDEN/model/dense-mtp
ids=$(awk 'BEGIN { for (i = 0; i < 40; i++) printf "%d ", (i * i + 7) % 512 }')
ok logits -q -m $M --device xpu --math f32 --tokens "$ids" -o "$TMP/a"
ok logits -q -m $M --device xpu --math f32 --tokens "$ids" -o "$TMP/b" --chunk 7
cmp -s "$TMP/a" "$TMP/b" || fail "--chunk changes the logits"
ok logits -q -m $M --device cpu --math f32 --tokens "$ids" -o "$TMP/c"
# The largest difference of two files of floats with headers of one length.
size=$(od -An -t u8 -N 8 "$TMP/a" | tr -d ' ')
for f in a c; do tail -c +$((9 + size)) "$TMP/$f" | od -An -v -t f4 -w4 >"$TMP/$f.txt"; done
paste "$TMP/a.txt" "$TMP/c.txt" | awk '
    { d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d; if ($1 + 0 != $2 + 0) n++ }
    END { if (NR < 40 * 512 || most > 5e-4 || n == 0) { print NR, n, most; exit 1 } }' >"$TMP/off" ||
    fail "rows, different, largest difference: $(cat "$TMP/off")"

ok op --device xpu $GOLDEN/op/decode-bf16.safetensors $GOLDEN/op/spec-ragged-mixed.safetensors \
    $GOLDEN/op/prefill-f32.safetensors
[ "$(grep -c '^[^ ].* ok$' "$TMP/out")" -eq 3 ] || fail "op: $(cat "$TMP/out")"
bad 1 "xpu:99" run -q --device xpu:99 -p hi
exit $failed
