#!/bin/sh
# Wrong usage exits 2 with a hint; every command explains itself.
. tests/cli/check.inc

ok version
grep -qx 'gdn [0-9][0-9.]*' "$TMP/out" || fail "version: $(cat "$TMP/out")"
ok --version
ok help
for command in run chat bench logits perplexity tokenize template info plan random devices op version help; do
    grep -q "^  $command " "$TMP/out" || fail "help does not list $command"
done
for command in run chat bench logits perplexity tokenize template info plan random devices op version help; do
    ok "$command" --help
    grep -q "^usage: gdn $command" "$TMP/out" || fail "$command --help: no usage line"
    [ ! -s "$TMP/err" ] || fail "$command --help: something on stderr"
    cp "$TMP/out" "$TMP/first"
    ok help "$command"
    cmp -s "$TMP/first" "$TMP/out" || fail "help $command differs from $command --help"
    bad 2 "see gdn $command --help" "$command" --no-such-option
    bad 2 "unknown option -Z" "$command" -Z
done
for option in --prompt --file --system --raw --tokens --max-tokens --think --no-think --temp \
    --top-k --top-p --min-p --presence --frequency --repetition --seed --stop --ignore-eos \
    --print-ids --json --model --device --threads --pin --math --ctx --chunk --block-size \
    --quiet --verbose; do
    "$GDN" run --help | grep -q -- " $option\b" || fail "run --help does not name $option"
done

gdn
[ "$rc" -eq 2 ] || fail "no command: exit $rc"
bad 2 'no command "frobnicate"' frobnicate
bad 2 'no command "frobnicate"' help frobnicate
bad 2 'unexpected word "word"' run word
bad 2 'needs a value' run --temp
bad 2 '--quiet takes no value' run --quiet=1
bad 2 'need a whole number from 0' run -n many
bad 2 'need a whole number from 0' run --max-tokens=-1
bad 2 'need a whole number from 0' run -n 99999999999999999999
bad 2 'need a number from 0 to 100' run --temp nan
bad 2 'need a whole number, 0 or more' run --seed=-1
bad 2 'only one of --prompt, --file and --tokens' run -p a --tokens 1
bad 2 'only one of --think and --no-think' run -p a --think --no-think
bad 2 'leave --raw or --tokens out' run --raw -p a --system b
bad 2 '--stop is empty' run -p a --stop ''
bad 2 '--math is "f16"' run -p a --math f16
bad 2 'either --tokens or --prompt' logits -o "$TMP/x"
bad 2 '-o FILE is missing' logits --tokens 1
bad 2 '-f FILE is missing' perplexity
bad 2 '--messages FILE is missing' template
bad 2 '--like NAME is missing' random -o "$TMP/x"
bad 2 '-o DIR is missing' random --like qwen3.5-0.8b
bad 1 'nowhere' run -p a --device nowhere
finish
