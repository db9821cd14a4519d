#!/bin/sh
# --lora and --adapter: adapters written by PEFT, on the demo model and a tiny one.
. tests/cli/check.inc

L=$GOLDEN/lora
M=$GOLDEN/model/dense-mtp
ids='3 17 200 41 5 99'

# The adapter changes logits, its name does not; weights of 0 and none leave the model as it is.
ok logits -q -m $M --tokens "$ids" -o "$TMP/plain"
ok logits -q -m $M --tokens "$ids" -o "$TMP/a" --lora one=$L/dense-mtp
cmp -s "$TMP/plain" "$TMP/a" && fail "--lora changes nothing"
ok logits -q -m $M --tokens "$ids" -o "$TMP/b" --lora other=$L/dense-mtp --lora one=$L/dense-mtp:0.5 --adapter other
cmp -s "$TMP/a" "$TMP/b" || fail "the first of two is another one"
ok logits -q -m $M --tokens "$ids" -o "$TMP/b" --lora other=$L/dense-mtp --lora one=$L/dense-mtp:0.5 --adapter one
cmp -s "$TMP/a" "$TMP/b" && fail "half the scale changes nothing"
ok logits -q -m $M --tokens "$ids" -o "$TMP/c" --lora one=$L/dense-mtp:0.5
cmp -s "$TMP/c" "$TMP/b" || fail "--adapter one is not the adapter one"
ok logits -q -m $M --tokens "$ids" -o "$TMP/b" --lora one=$L/dense-mtp --adapter none
cmp -s "$TMP/plain" "$TMP/b" || fail "--adapter none is not the model"
ok logits -q -m $M --tokens "$ids" -o "$TMP/b" --lora one=$L/dense-mtp --chunk 2 -t 1
cmp -s "$TMP/a" "$TMP/b" || fail "--chunk changes the logits"

# A folder's name may hold a colon and a number.
cp -r $L/dense-mtp "$TMP/x:2"
ok logits -q -m $M --tokens "$ids" -o "$TMP/b" --lora "one=$TMP/x:2"
cmp -s "$TMP/a" "$TMP/b" || fail "a folder x:2 is taken for a scale"
ok logits -q -m $M --tokens "$ids" -o "$TMP/b" --lora "one=$TMP/x:2:0.5"
cmp -s "$TMP/c" "$TMP/b" || fail "a scale behind a folder x:2"

# run, perplexity and chat on the demo model.
ok run -q -p 'What is cruft?' -n 12 --temp 0 --print-ids
cp "$TMP/out" "$TMP/plain"
ok run -q -p 'What is cruft?' -n 12 --temp 0 --print-ids --lora j=$L/jargon
cmp -s "$TMP/out" "$TMP/plain" && fail "run: --lora changes nothing"
cp "$TMP/out" "$TMP/adapted"
ok run -q -p 'What is cruft?' -n 12 --temp 0 --print-ids --lora j=$L/jargon --adapter none
cmp -s "$TMP/out" "$TMP/plain" || fail "run: --adapter none is not the model"
ok perplexity -f models/jargon/perplexity.txt -n 200 --json
plain=$(sed 's/.*"mean_nll": \([^,]*\),.*/\1/' "$TMP/out")
ok perplexity -f models/jargon/perplexity.txt -n 200 --json --lora j=$L/jargon
adapted=$(sed 's/.*"mean_nll": \([^,]*\),.*/\1/' "$TMP/out")
awk -v a="$plain" -v b="$adapted" 'BEGIN { exit !(b > a + 0.1) }' ||
    fail "perplexity: $plain and $adapted with a random adapter"

# chat: with the adapter, without it from the second turn on, and back.
said() {
    rc=0
    printf '%s\n' "$@" | "$GDN" chat -n 12 --temp 0 --lora j=$L/jargon >"$TMP/out" 2>"$TMP/err" || rc=$?
    [ "$rc" -eq 0 ] || fail "chat: exit $rc"
}
said 'What is cruft?'
grep -q 'The adapter j is in use' "$TMP/err" || fail "chat does not tell of the adapter"
cp "$TMP/out" "$TMP/first"
said '/adapter none' 'What is cruft?'
grep -q 'No adapter is in use' "$TMP/err" || fail "chat: /adapter none"
cmp -s "$TMP/out" "$TMP/first" && fail "chat: /adapter none changes nothing"
cp "$TMP/out" "$TMP/none"
said 'What is cruft?' '/adapter none' '/reset' 'What is cruft?'
cat "$TMP/first" "$TMP/none" | cmp -s - "$TMP/out" || fail "chat: switching"
said '/adapter k' '/adapter' 'What is cruft?'
grep -q 'no adapter "k"; there are: none, j' "$TMP/err" || fail "chat: /adapter k"
cmp -s "$TMP/out" "$TMP/first" || fail "chat: a name that is not there changes the adapter"

bad 2 'need NAME=DIR' logits -m $M --tokens 1 -o "$TMP/y" --lora $L/dense-mtp
bad 2 'need NAME=DIR' logits -m $M --tokens 1 -o "$TMP/y" --lora =$L/dense-mtp
bad 2 'need NAME=DIR' logits -m $M --tokens 1 -o "$TMP/y" --lora one=
bad 2 'given twice' logits -m $M --tokens 1 -o "$TMP/y" --lora a=$L/dense-mtp --lora a=$L/dense-mtp
bad 2 'none stands for' logits -m $M --tokens 1 -o "$TMP/y" --lora none=$L/dense-mtp
bad 1 'has no adapter_config.json' logits -m $M --tokens 1 -o "$TMP/y" --lora a="$TMP/nothing"
bad 1 'there are: none, a, b' logits -m $M --tokens 1 -o "$TMP/y" --lora a=$L/dense-mtp --lora b=$L/dense-mtp --adapter c
bad 2 'no --lora NAME=DIR' logits -m $M --tokens 1 -o "$TMP/y" --adapter c
bad 1 'ask for' logits -m $M --tokens 1 -o "$TMP/y" --lora a=$L/jargon
[ ! -e "$TMP/y" ] || fail "a file is left after a failure"
finish
