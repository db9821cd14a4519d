#!/bin/sh
# Models that are not there, not whole or not ours are refused with a reason.
. tests/cli/check.inc
DEMO=models/jargon

bad 1 'no config.json' run -p x -m "$TMP/none"
mkdir "$TMP/empty"
bad 1 'no config.json' run -p x -m "$TMP/empty"
for command in info bench chat; do
    bad 1 'no config.json' $command -m "$TMP/empty"
done
bad 1 'no config.json' tokenize -m "$TMP/empty" x

# copy NAME: a model to break, in $m.
copy() {
    m=$TMP/$1
    mkdir "$m"
    for part in "$DEMO"/*; do ln -s "$PWD/$part" "$m/"; done
}
copy whole
ok run -q -m "$m" -p 'What is cruft?'
same 'a copy' "$CRUFT"
for file in tokenizer.json chat_template.jinja model.safetensors; do
    copy "no-$file"
    rm "$m/$file"
    bad 1 "$m" run -p x -m "$m"
done
copy no-sampling
rm "$m/generation_config.json"
ok run -q -m "$m" -p 'What is cruft?' --temp 0
same 'without generation_config.json' "$CRUFT"

# set NAME SED WORDS: a config with one thing changed.
set_config() {
    copy "$1"
    rm "$m/config.json"
    sed "$2" $DEMO/config.json >"$m/config.json"
    cmp -s "$m/config.json" $DEMO/config.json && fail "$1: nothing was changed"
    bad 1 "$3" run -p x -m "$m"
}
set_config arch 's/qwen3_5_text/llama/; s/Qwen3_5ForCausalLM/LlamaForCausalLM/' llama
set_config experimental 's/qwen3_5_text/qwen4_exp/; s/Qwen3_5ForCausalLM/Qwen4ForCausalLM/' qwen4_exp
set_config rope 's/"rope_type": "default"/"rope_type": "yarn"/' yarn
set_config width 's/"hidden_size": 256/"hidden_size": 512/' 512
set_config layers 's/"num_hidden_layers": 8/"num_hidden_layers": 12/' num_hidden_layers
set_config json 's/{/[/' config.json
for size in 0 7 100 100000 20000000; do
    copy "cut-$size"
    rm "$m/model.safetensors"
    head -c $size $DEMO/model.safetensors >"$m/model.safetensors"
    bad 1 model.safetensors run -p x -m "$m"
done
copy tokenizer
rm "$m/tokenizer.json"
printf '{"model": {"type": "Unigram"}}' >"$m/tokenizer.json"
bad 1 tokenizer.json run -p x -m "$m"
copy template
rm "$m/chat_template.jinja"
printf '{%% for x in %%}' >"$m/chat_template.jinja"
bad 1 chat_template.jinja run -p x -m "$m"
ok run -q -m "$m" --raw -p 'hack value: n.' -n 2
same '--raw needs no template' ' Often add'

# What info and devices say.
ok info --json
for key in '"n_layer": 8' '"n_full": 2' '"d": 256' '"vocab": 4096' '"context": 4096' \
    '"has_mtp": true' '"tied": true' '"stop": \[4086, 4084\]' '"tokenizer_ids": 4096'; do
    grep -q "$key" "$TMP/out" || fail "info --json: no $key"
done
ok info
grep -q '^layers  *8: 6 linear, 2 full' "$TMP/out" || fail "info"
ok devices
grep -q '^cpu ' "$TMP/out" || fail "devices"
XDG_CACHE_HOME=/dev/null # for a program's binary PoCL compiles all of it once more
ok devices --check
grep -A 1 '^cpu ' "$TMP/out" | grep -q 'passes its start-up check' || fail "devices --check"
ok random --list
grep -qx 'qwen3.5-0.8b' "$TMP/out" || fail "random --list"
finish
