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
