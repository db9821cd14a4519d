#!/bin/sh
# gdn tokenize and gdn template.
. tests/cli/check.inc

ok tokenize 'What is cruft?'
same 'ids' '1025 306 2015 30'
ok tokenize What is 'cruft?'
same 'ids of words' '1025 306 2015 30'
ok tokenize --special '<|im_end|>'
same 'a special token' 4086
ok tokenize '<|im_end|>'
[ "$(wc -w <"$TMP/out")" -gt 1 ] || fail "a special token without --special"
ok tokenize --decode 1025 306 2015 30
same 'text' 'What is cruft?'
ok tokenize --decode '1025,306,2015,30,4086'
same 'text' 'What is cruft?<|im_end|>'
ok tokenize ''
same 'nothing' ''

i=255 # every byte, none of them a whole character beyond ASCII
while [ $i -gt 0 ]; do
    # shellcheck disable=SC2059
    printf "\\$(printf %o $i)x\\$(printf %o $i)\\$(printf %o $i)"
    i=$((i - 1))
done >"$TMP/noise"
for file in models/jargon/perplexity.txt models/jargon/chat_template.jinja "$TMP/noise"; do
    for option in '' --special; do
        # shellcheck disable=SC2086
        "$GDN" tokenize $option -f "$file" >"$TMP/ids" || fail "tokenize $option $file"
        "$GDN" tokenize --decode -f "$TMP/ids" >"$TMP/text" || fail "tokenize --decode"
        cmp -s "$file" "$TMP/text" || fail "$file does not come back ($option)"
    done
done
bad 1 'is not an id' tokenize --decode 12 x
bad 1 'is not an id' tokenize --decode -- -5
bad 1 'token 1 is 99999' tokenize --decode 12 99999
bad 2 'not both' tokenize -f x y

cat >"$TMP/messages" <<'JSON'
[{"role": "system", "content": " Be short. "}, {"role": "user", "content": "Hi"},
 {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "What is cruft?\n"}]
JSON
turns='<|im_start|>system
Be short.<|im_end|>
<|im_start|>user
Hi<|im_end|>
<|im_start|>assistant
Ho<|im_end|>
<|im_start|>user
What is cruft?<|im_end|>'
ok template --messages "$TMP/messages" --no-generation-prompt
same 'template' "$turns"
ok template --messages "$TMP/messages" --think
same 'template --think' "$turns
<|im_start|>assistant
<think>"
ok template --messages "$TMP/messages"
cp "$TMP/out" "$TMP/first"
ok template --messages "$TMP/messages" --no-think
cmp -s "$TMP/first" "$TMP/out" || fail "--no-think is not this template's default"
"$GDN" template --messages - <"$TMP/messages" >"$TMP/out"
cmp -s "$TMP/first" "$TMP/out" || fail "messages from stdin"
printf '[{"name": "f", "x": 1.50, "y": [1, {"b": null, "a": "\\u00e9"}]}]' >"$TMP/tools"
ok template --messages "$TMP/messages" --tools "$TMP/tools"
grep -qxF '{"name": "f", "x": 1.5, "y": [1, {"b": null, "a": "é"}]}' "$TMP/out" ||
    fail "tools: $(cat "$TMP/out")"

image() {
    printf '[{"role": "user", "content": [{"type": "text", "text": "see"}, %s]}]' "$1" >"$TMP/image"
    bad 1 'message 0: images are not supported by this build' template --messages "$TMP/image"
}
image '{"type": "image", "image": "a.png"}'
image '{"type": "image_url", "image_url": {"url": "data:"}}'
image '{"type": "input_image"}'
image '{"image": "a.png"}'
printf '{"role": "user"}' >"$TMP/x"
bad 1 'need a JSON list' template --messages "$TMP/x"
printf '[{"role": "user", ]' >"$TMP/x"
bad 1 'line 1' template --messages "$TMP/x"
bad 1 'No such file' template --messages "$TMP/none"
finish
