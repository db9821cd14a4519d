#!/bin/sh
# gdn chat with lines from a pipe.
. tests/cli/check.inc

# talk OPTIONS...: a conversation of the lines on stdin.
talk() {
    rc=0
    "$GDN" chat "$@" >"$TMP/out" 2>"$TMP/err" || rc=$?
    [ "$rc" -eq 0 ] || fail "chat $*: exit $rc"
}

printf 'What is cruft?\n' | talk
same 'one turn' "$CRUFT"
printf '\n  \nWhat is \\\ncruft?\n/exit\nWhat is cruft?\n' | talk
[ "$(wc -l <"$TMP/out")" -eq 1 ] || fail "/exit: $(cat "$TMP/out")"
printf 'What is cruft?\n/reset\nWhat is cruft?\n/stats\n' | talk
same '/reset' "$CRUFT
$CRUFT"
grep -q 'prompt 18 tokens (18 saved)' "$TMP/err" || fail "/reset kept something, or nothing was saved"
printf 'What is cruft?\n/reset\nWhat is cruft?\n/stats\n' | talk --cache 0
grep -q 'prompt 18 tokens, ' "$TMP/err" || fail "--cache 0 saved something"
same '--cache 0' "$CRUFT
$CRUFT"
printf 'What is cruft?\nAnd what is a kluge?\n/stats\n' | talk -n 40
grep -q 'prompt 18 tokens' "$TMP/err" && fail "the second turn forgot the first"
grep -Eq 'prompt [0-9]+ tokens \(9 saved\)' "$TMP/err" || fail "the template drops the reply's empty reasoning, and what is before it was not saved: $(grep prompt "$TMP/err")"
printf '/think on\nWhat is cruft?\n' | talk -n 60
grep -q '^</think>$' "$TMP/out" || fail "/think on: $(cat "$TMP/out")"
printf '/think off\nWhat is cruft?\n' | talk --think
same '/think off' "$CRUFT"
printf '/help\n/nonsense\n/system Be brief.\n/stats\n' | talk
grep -q '/reset' "$TMP/err" || fail "/help"
grep -q 'no command /nonsense' "$TMP/err" || fail "an unknown command"
[ ! -s "$TMP/out" ] || fail "commands write to stdout"
: | talk
awk 'BEGIN { for (i = 0; i < 3000; i++) printf "cruft "; print "" }' |
    "$GDN" chat --ctx 500 >"$TMP/out" 2>"$TMP/err" && fail "a message too long: exit 0"
grep -q 'the context holds 500' "$TMP/err" || fail "a message too long"
finish
