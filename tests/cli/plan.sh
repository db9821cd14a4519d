#!/bin/sh
# gdn plan: sizes of released models as text and JSON, what is refused and how.
. tests/cli/check.inc

# has WORDS: the output must hold them.
has() {
    grep -qF -- "$1" "$TMP/out" || fail "no $1 in: $(tr '\n' ' ' <"$TMP/out" | head -c 900)"
}

# Rows of the table through the program: the first shape of each row without shards or with 4.
rows=0
tail -n +2 $GOLDEN/plan/table.tsv >"$TMP/rows"
while read -r shapes ssm hk hv hkv tp drafts kv conv ssm_bytes m a1 block16 waste16 block64 page64 waste64; do
    case $tp in 1 | 4) ;; *) continue ;; esac
    ok plan --like "${shapes%%,*}" --device xpu --tp "$tp" --spec "$drafts" --kv-type "$kv" \
        --state-type "$ssm" --mode align --json
    has "\"block_size\": $block64, \"mamba_block_size\": $block64, \"page_bytes\": $page64, "
    has "\"kv_bytes_per_token\": $a1, \"conv_bytes\": $conv, \"state_bytes\": $ssm_bytes, "
    has "\"padding_bytes\": $((page64 - m)), "
    ok plan --like "${shapes%%,*}" --device cpu --tp "$tp" --spec "$drafts" --kv-type "$kv" \
        --state-type "$ssm" --json
    has "\"block_size\": $block16, \"mamba_block_size\": null, \"page_bytes\": $((block16 * a1)), "
    has "\"padding_bytes\": $((block16 * a1 - m)), "
    ok plan --like "${shapes%%,*}" --device xpu --tp "$tp" --spec "$drafts" --kv-type "$kv" \
        --state-type "$ssm"
    has "+$waste64% of a state"
    has "a block of $block64 tokens"
    has "$m B   convolution $conv + recurrent $ssm_bytes"
    rows=$((rows + 1))
done <"$TMP/rows"
[ $rows -eq 28 ] || fail "$rows rows of the table"

# The same from a folder, from its config.json alone, and as the default: the demo model.
mkdir "$TMP/m"
cp models/jargon/config.json "$TMP/m/"
for m in "$TMP/m" "$TMP/m/config.json" models/jargon; do
    ok plan -m "$m" --device cpu
    has '268288 B   convolution 6144 + recurrent 262144'
    has 'a block of 272 tokens'
    has '+3.82% of a state'
    has '3 tensors, one for each layer of a group; 1 group with keys and values, 2 groups with states'
    has 'of 4096 tokens: 16 pages of keys and values, 2 of states: 14.3 MiB'
done
ok plan --json
has '"layers": 8, "full_layers": 2, "linear_layers": 6, "has_mtp": true'
has '"pages": null, "sequences": null'
ok plan --device cpu --json
cp "$TMP/out" "$TMP/first"
ok plan --device=cpu:2 --mode none --kv-type bf16 --state-type f32 --conv-type bf16 --tp 1 --spec 0 --json
cmp -s "$TMP/first" "$TMP/out" || fail 'the defaults are not what the help says'
ok plan --no-mtp --json
has '"has_mtp": false'
has '"n_storage": 2, "groups": 3'

# Memory: the weights and 43 pages of 9 x 2359296 bytes, of which one stays empty.  Units are powers
# of 1024.
ok plan --like qwen3.5-9b --device xpu --json
weights=$(sed 's/.*"weight_bytes": \([0-9]*\).*/\1/' "$TMP/out")
ok plan --like qwen3.5-9b --device xpu --ctx 5761 --memory $((weights + 43 * 9 * 2359296)) --json
has '"ctx": 5761, "sequence_kv_pages": 11, "sequence_state_pages": 3, "sequence_bytes": 297271296'
has '"pages": 42, "sequences": 3, "max_tokens": 22464'
ok plan --like qwen3.5-9b --device xpu --ctx 5761 --memory $((weights + 43 * 9 * 2359296))
has '42 pages'
has '3 sequences of 5761 tokens; one alone could have 22464'
for memory in 25769803776 25165824K 24576M 24G 24GiB 0.0234375T; do
    ok plan --like qwen3.5-9b --memory $memory --json
    has '"memory_bytes": 25769803776,'
done
ok plan --like qwen3.5-397b-a17b --memory 16G
has '0 B left for the cache, 0 pages'
has '0 sequences of 262144 tokens; one alone could have 0'

# Modes and explicit sizes.
ok plan --like qwen3.5-9b --device xpu --mode all --json
has '"align": 64, "block_size": 576, "mamba_block_size": 576'
ok plan --like qwen3.5-9b --device xpu --mode all --mamba-block-size 400 --json
has '"align": 1600, "block_size": 1600, "mamba_block_size": 1600'
ok plan --like qwen3.5-9b --device cpu --block-size 1024 --json
has '"block_size": 1024, "mamba_block_size": null, "page_bytes": 4194304'
has '"padding_bytes": 2048000'
bad 1 'block size 528: need a multiple of 64; the smallest that works is 576' \
    plan --like qwen3.5-9b --device xpu --block-size 528
bad 1 'the smallest that works is 576' plan --like qwen3.5-9b --device xpu --block-size 512

bad 1 '16 query heads cannot be divided among 3 shards' plan --like qwen3.5-9b --tp 3
bad 1 "device 'tpu' is not known; there are cpu xpu cuda" plan --device tpu
bad 1 'no shape is called qwen9' plan --like qwen9
bad 1 "$TMP/none" plan -m "$TMP/none"
mkdir "$TMP/empty"
bad 1 "$TMP/empty/config.json" plan -m "$TMP/empty"
sed 's/qwen3_5_text/llama/; s/Qwen3_5ForCausalLM/LlamaForCausalLM/' models/jargon/config.json >"$TMP/llama.json"
bad 1 llama plan -m "$TMP/llama.json"

bad 2 'only one of --model and --like' plan -m models/jargon --like qwen3.5-9b
bad 2 '--type goes with --like' plan --type f32
bad 2 '--mode is "some"; need one of none align all;' plan --mode some
bad 2 '--mode is "none align"' plan --mode 'none align'
bad 2 '--mode is ""' plan --mode ''
bad 2 '--kv-type is "i8"; need one of bf16 f16 f32 fp8;' plan --kv-type i8
bad 2 '--state-type is "fp8"; need one of f32 bf16 f16;' plan --state-type fp8
bad 2 '--conv-type is "fp8"' plan --conv-type fp8
bad 2 '--type is "q8"' plan --like qwen3.5-9b --type q8
bad 2 '--mamba-block-size goes with --mode all' plan --mamba-block-size 64
bad 2 'need a whole number from 1' plan --tp 0
bad 2 'need a whole number from 0 to 64' plan --spec 65
bad 2 'need a whole number from 1' plan --block-size 0
for memory in '' 0 G 1X 16GB -1 1e9 . 0x10 nan 1.5.2G 9999999999T; do
    bad 2 "--memory is \"$memory\"" plan --memory "$memory"
done
bad 2 'unexpected word "word"' plan word
bad 2 'unknown option -Z' plan -Z

# What -v says before the weights are read is what the engine takes: pages of 3 tensors.
for math in fast f32; do
    ok run --device cpu --math $math -v -n 1 -p hi
    pages=$(sed -n 's/^memory: .* pages of \([0-9.]* KiB\);.*/\1/p' "$TMP/err")
    bytes=$(sed -n 's/^gdn run: engine .* page_bytes=\([0-9]*\) .*/\1/p' "$TMP/err")
    [ "$pages" = "$(echo "$bytes" | awk '{ printf "%.1f KiB", 3 * $1 / 1024 }')" ] ||
        fail "$math: pages of $pages, the engine's have $bytes bytes in each tensor"
done
ok plan --help
grep -q '^usage: gdn plan' "$TMP/out" || fail 'plan --help'
cp "$TMP/out" "$TMP/first"
ok help plan
cmp -s "$TMP/first" "$TMP/out" || fail 'help plan differs from plan --help'
ok help
grep -q '^  plan ' "$TMP/out" || fail 'help does not list plan'
finish
