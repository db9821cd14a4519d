#!/bin/sh
# gdn logits and gdn perplexity: shapes, rows, and the golden number.
. tests/cli/check.inc

# The header of a safetensors file, without blanks.
header() {
    size=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
    tail -c +9 "$1" | head -c "$size" | tr -d ' '
}
# rows FILE SKIP N: N rows of 512 floats after SKIP rows of data.
rows() {
    size=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
    tail -c +$((9 + size + $2 * 2048)) "$1" | head -c $(($3 * 2048))
}

M=$GOLDEN/model/dense-mtp
T=40
ids=$(awk -v n=$T 'BEGIN { for (i = 0; i < n; i++) printf "%d ", (i * i + 7) % 512 }')
ok logits -q -m $M --tokens "$ids" -o "$TMP/a"
header "$TMP/a" | grep -q '"logits":{[^}]*"shape":\[40,512\]' || fail "shape: $(header "$TMP/a")"
header "$TMP/a" | grep -q '"mtp_logits":{[^}]*"shape":\[39,512\]' || fail "mtp shape"
header "$TMP/a" | grep -q '"dtype":"F32"' || fail "type"

# However the prompt is cut, the bytes are the same.
for chunk in 1 7 16; do
    ok logits -q -m $M --tokens "$ids" -o "$TMP/b" --chunk $chunk
    cmp -s "$TMP/a" "$TMP/b" || fail "--chunk $chunk changes the logits"
done
ok logits -q -m $M --tokens "$ids" -o "$TMP/b" -t 1
cmp -s "$TMP/a" "$TMP/b" || fail "one thread changes the logits"

# Chosen rows, in the order asked for; the last token has no row of the draft head.
ok logits -q -m $M --tokens "$ids" --positions 5,39,0 -o "$TMP/p"
header "$TMP/p" | grep -q '"logits":{[^}]*"shape":\[3,512\]' || fail "--positions: shape"
header "$TMP/p" | grep -q '"mtp_logits":{[^}]*"shape":\[2,512\]' || fail "--positions: mtp shape"
n=0
for at in 5 39 0 $((T + 5)) $((T + 0)); do
    rows "$TMP/a" $at 1 >"$TMP/want"
    rows "$TMP/p" $n 1 >"$TMP/got"
    [ "$(wc -c <"$TMP/got")" -eq 2048 ] || fail "--positions: row $n is missing"
    cmp -s "$TMP/want" "$TMP/got" || fail "--positions: row $n is not row $at"
    n=$((n + 1))
done
ok logits -q -m $M --tokens "$ids" --no-mtp -o "$TMP/n"
header "$TMP/n" | grep -q mtp && fail "--no-mtp: mtp_logits are there"
rows "$TMP/a" 0 $T >"$TMP/want"
rows "$TMP/n" 0 $T >"$TMP/got"
cmp -s "$TMP/want" "$TMP/got" || fail "--no-mtp changes the logits"
ok logits -q -m $M --tokens 3 -o "$TMP/one"
header "$TMP/one" | grep -q '"shape":\[1,512\]' || fail "one token"
ok logits -q -p 'What is cruft?' -o "$TMP/text"
header "$TMP/text" | grep -q '"shape":\[4,4096\]' || fail "-p: $(header "$TMP/text")"

rm -f "$TMP"/x
bad 1 'position 1 is 40' logits -m $M --tokens "$ids" --positions 1,40 -o "$TMP/x"
bad 1 'position 3 is given twice' logits -m $M --tokens "$ids" --positions 3,1,3 -o "$TMP/x"
bad 1 '512' logits -m $M --tokens '1 512' -o "$TMP/x"
bad 1 'no tokens' logits -m $M --tokens '' -o "$TMP/x"
bad 1 'no positions' logits -m $M --tokens 1 --positions '' -o "$TMP/x"
bad 1 "$TMP/none/x" logits -m $M --tokens 1 -o "$TMP/none/x"
[ -z "$(find "$TMP" -name 'x*' -o -name '.gdn*')" ] || fail "something is left after a failure"

# mean NLL 0.07113 (f32); bf16 gives 0.07118.
ok perplexity -f models/jargon/perplexity.txt -n 4096 --json
nll=$(sed 's/.*"mean_nll": \([^,]*\),.*/\1/' "$TMP/out")
awk -v x="$nll" 'BEGIN { exit !(x > 0.0709 && x < 0.0714) }' || fail "perplexity: mean NLL $nll"
ok perplexity -f models/jargon/perplexity.txt -n 4096 --math f32 --json
nll=$(sed 's/.*"mean_nll": \([^,]*\),.*/\1/' "$TMP/out")
awk -v x="$nll" 'BEGIN { exit !(x > 0.071120 && x < 0.071140) }' || fail "f32: mean NLL $nll"
ok perplexity -f models/jargon/perplexity.txt -n 1000 --ctx 400
grep -q '^mean NLL 0\.' "$TMP/out" || fail "perplexity: $(cat "$TMP/out")"
grep -q '3 windows' "$TMP/err" || fail "perplexity does not tell of windows"
printf 'a' >"$TMP/short"
bad 1 'need two or more' perplexity -f "$TMP/short"
bad 1 'No such file' perplexity -f "$TMP/none"
finish
