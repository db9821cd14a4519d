#!/bin/sh
# --session: gdn run and gdn chat go on where an earlier process left off.
. tests/cli/check.inc

S=$TMP/session
P='4085 1637 198 1025 306 2015 30 4086 198 4085 654 414 471 198 4094 347 4095 347'

# cached: how many prompt tokens of the last --json came from the file.
cached() { sed -n 's/.*"cached_tokens": \([0-9]*\),.*/\1/p' "$TMP/out"; }
ids() { sed -n 's/.*, "ids": \[\([0-9, ]*\)\], "prompt_ids".*/\1/p' "$TMP/out" | tr -d ','; }

ok run --json --tokens "$P" -n 20 --session "$S"
[ "$(cached)" = 0 ] || fail "cached_tokens $(cached) at first"
[ "$(stat -c %a "$S")" = 600 ] || fail "a session of mode $(stat -c %a "$S")"
[ ! -e "$S.tmp" ] || fail "a temporary file was left"
answer=$(ids)
[ "$(echo "$answer" | wc -w)" -eq 20 ] || fail "no 20 ids: $answer"

# The prompt goes on after the answer: what was read is not read again, and nothing changes.
for option in '' --draft=0 --block-size=288 --ctx=300 --cache=64M --chunk=5; do
    # shellcheck disable=SC2086
    ok run --json --tokens "$P $answer 198 306 2015" -n 20 --temp 0 $option
    want=$(ids)
    cp "$S" "$TMP/copy"
    # shellcheck disable=SC2086
    ok run --json --tokens "$P $answer 198 306 2015" -n 20 --temp 0 --session "$TMP/copy" $option
    [ "$(cached)" -ge 37 ] || fail "$option: cached_tokens $(cached), expected 37 or more"
    [ -n "$want" ] && [ "$(ids)" = "$want" ] || fail "$option: $(ids), expected $want"
done
ok run --json --tokens "$P" -n 20 --session "$S"
[ "$(cached)" = 18 ] || fail "the same prompt: cached_tokens $(cached)"
[ "$(ids)" = "$answer" ] || fail "the same prompt: $(ids), expected $answer"
ok run -q -p 'What is cruft?' --session "$TMP/text"
same 'with --session' "$CRUFT"
ok run -q -p 'What is cruft?' --session "$TMP/text"
same 'from the session' "$CRUFT"
ok run -p 'What is cruft?' --session "$TMP/text"
grep -q 'prompt 18 tokens (18 saved)' "$TMP/err" || fail "nothing says what was saved"

# What cannot be read is told and left alone.
bad 1 'keys' run --math f32 --tokens "$P" -n 1 --session "$S"
bad 1 'another --session' run -m $GOLDEN/model/dense-mtp --tokens '5 6 7' -n 1 --print-ids --session "$S"
cp "$S" "$TMP/half"
truncate -s 5000 "$TMP/half"
bad 1 '5000 bytes' run --tokens "$P" -n 1 --session "$TMP/half"
[ "$(stat -c %s "$TMP/half")" -eq 5000 ] || fail "a damaged session was written over"
echo 'Dear diary' >"$TMP/diary"
bad 1 'no saved session' run --tokens "$P" -n 1 --session "$TMP/diary"
[ "$(cat "$TMP/diary")" = 'Dear diary' ] || fail "a file of something else was written over"
gdn run --tokens "$P" -n 1 --session "$TMP/no/where"
[ "$rc" -eq 1 ] || fail "a folder that is not there: exit $rc"
grep -q 'no/where' "$TMP/err" || fail "a folder that is not there: no name"

# A chat whose process is killed after its first reply; the next one goes on in the conversation.
C=$TMP/chat
mkfifo "$TMP/in"
"$GDN" chat -q -n 40 --session "$C" <"$TMP/in" >"$TMP/out" 2>"$TMP/err" &
pid=$!
exec 3>"$TMP/in"
echo 'What is cruft?' >&3
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    [ -s "$C" ] && break
    sleep 0.5
done
[ -s "$C" ] || fail "the first reply saved nothing"
kill -9 "$pid"
wait "$pid" 2>/dev/null
exec 3>&-
first=$(cat "$TMP/out")
printf 'And what is a kluge?\n/stats\n' |
    "$GDN" chat -n 40 --session "$C" >"$TMP/out" 2>"$TMP/err" || fail "the second chat"
second=$(cat "$TMP/out")
grep -q 'Going on after 2 messages' "$TMP/err" || fail "the second chat does not say that it goes on"
grep -q 'saved)' "$TMP/err" || fail "the second chat read all of it again"
printf 'What is cruft?\nAnd what is a kluge?\n' | "$GDN" chat -q -n 40 >"$TMP/out" 2>"$TMP/err"
[ "$(cat "$TMP/out")" = "$first
$second" ] || fail "in two processes: $first / $second; in one: $(cat "$TMP/out")"
printf '' | "$GDN" chat --session "$C" >"$TMP/out" 2>"$TMP/err" || fail "the third chat"
grep -q 'Going on after 4 messages' "$TMP/err" || fail "the second chat saved nothing"
finish
