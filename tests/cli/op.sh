#!/bin/sh
# gdn op: recorded calls of the operator pass, damaged ones do not, other files are refused.
. tests/cli/check.inc
D=$GOLDEN/op

ok op -t 2 $D/*.safetensors
[ "$(grep -c '^[^ ].* ok$' "$TMP/out")" -eq "$(ls $D/*.safetensors | wc -l)" ] ||
    fail "not every file is ok: $(grep -v ' ok$' "$TMP/out")"
[ ! -s "$TMP/err" ] || fail "something on stderr"
ok op --device cpu:1 $D/decode-bf16.safetensors
grep -q "^$D/decode-bf16.safetensors  bf16/f32 SD parts 0+7+0  ok\$" "$TMP/out" ||
    fail "line: $(cat "$TMP/out")"
for form in recurrent chunked recurrent_stages chunked_stages; do
    for t in core_attn_out z conv_state ssm_state; do
        grep -q "^  $form *$t *max .* rel .* of .* ok\$" "$TMP/out" || fail "no line for $t, $form"
    done
done

# Change the second byte of a tensor, found by its offset in the header.
damage() { # FILE TENSOR TO
    size=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
    at=$(tail -c +9 "$1" | head -c "$size" | tr -d ' ' |
        sed "s/.*\"$2\":{[^}]*\"data_offsets\":\[\([0-9]*\),.*/\1/")
    cp "$1" "$3"
    printf '\125' | dd of="$3" bs=1 seek=$((8 + size + at + 1)) conv=notrunc 2>/dev/null
}
for t in core_attn_out z conv_state ssm_state; do
    damage $D/decode-bf16.safetensors expect.$t "$TMP/$t.safetensors"
    cmp -s $D/decode-bf16.safetensors "$TMP/$t.safetensors" && fail "$t: nothing is damaged"
    gdn op "$TMP/$t.safetensors"
    [ "$rc" -eq 1 ] || fail "damaged expect.$t: exit $rc, expected 1"
    [ "$(grep -c " $t .*  FAIL" "$TMP/out")" -eq 4 ] || fail "damaged expect.$t: $(cat "$TMP/out")"
    [ ! -s "$TMP/err" ] || fail "damaged expect.$t: something on stderr"
done
# One bad file among good ones: the others are still run.
gdn op $D/prefill-f32.safetensors "$TMP/z.safetensors" $D/decode-bf16.safetensors
[ "$rc" -eq 1 ] || fail "one of three damaged: exit $rc"
[ "$(grep -c '^[^ ].* ok$' "$TMP/out")" -eq 2 ] || fail "one of three damaged: $(cat "$TMP/out")"

ok op --json $D/decode-bf16.safetensors
grep -q '^\[{"file": "'$D'/decode-bf16.safetensors", "kind": "bf16/f32 SD parts 0+7+0", "forms": {"recurrent": {"outputs": {"core_attn_out": {"max_abs": ' "$TMP/out" ||
    fail "--json: $(cat "$TMP/out")"
grep -q '"stray_bytes": 0, "ok": true}}, "ok": true}\]$' "$TMP/out" || fail "--json: $(cat "$TMP/out")"
gdn op --json "$TMP/z.safetensors" "$TMP/none"
[ "$rc" -eq 1 ] || fail "--json: exit $rc"
grep -q '"z": {[^}]*"ok": false}' "$TMP/out" || fail "--json of a damaged file: $(cat "$TMP/out")"
grep -q '"ok": false, "error": ".*/none: .*"}\]$' "$TMP/out" || fail "--json: $(cat "$TMP/out")"

ok op --help
for words in 2e-6 1e-3 5e-5 1.25e-4 6.25e-6 1e-4 6e-3 2e-3 7.5e-4 2.5e-4 'bit for bit'; do
    grep -qF "$words" "$TMP/out" || fail "op --help does not say $words"
done
bad 1 'models/jargon/model.safetensors: __metadata__.' op models/jargon/model.safetensors
printf 'no vector at all' >"$TMP/text.safetensors"
bad 1 "$TMP/text.safetensors: " op "$TMP/text.safetensors"
bad 1 'No such file' op "$TMP/none.safetensors"
bad 1 'nowhere' op --device nowhere $D/decode-bf16.safetensors
bad 2 'no file is named' op
finish
