#!/bin/sh
# xpu_device.sh - an OpenCL device proven and measured: vectors of the operator, models of released
# shapes against the cpu, speed of the operators beside copying memory, speed of a model.  One JSON
# file; exit 1 when something is wrong.
#
#     make && bench/xpu_device.sh xpu:0 OUT.json      GDN and SPEED name built programs (build/gdn,
#                                                     build/xpu_speed); needs python3 with numpy,
#                                                     20 GB below ${TMPDIR:-/tmp}
#
# MODELS is the list of models, each "shape" or "shape:layers"; TOKENS how many are compared; PARTS
# which of "vectors models operators" are run.  A model is wrong when its logits are further than 5e-4 from
# the cpu's in f32, or those of fast mathematics 1e-3 in mean KL divergence.
set -u
cd "$(dirname "$0")/.." || exit 1
device=${1:?a device, as gdn devices names it} out=${2:?a file for the result}
gdn=${GDN:-build/gdn} speed=${SPEED:-build/xpu_speed} tokens=${TOKENS:-48}
models=${MODELS:-"qwen3.5-0.8b qwen3.5-4b qwen3.5-35b-a3b:8"} parts=${PARTS:-vectors models operators}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
wrong=0

say() { printf '%s\n' "$*" >&2; }

seq 1 "$tokens" | awk '{ print ($1 * 7919) % 200000 }' | paste -sd, >"$work/ids"

# compare MODEL DEVICE MATH: that device's logits against the cpu's in f32
compare() {
    "$gdn" logits --no-mtp -m "$1" --device "$2" --math "$3" --tokens "@$work/ids" -o "$work/other" >&2 &&
        python3 bench/compare_logits.py "$work/reference" "$work/other"
}

# model NAME[:LAYERS]: a line of JSON
model() {
    layers=${1#*:}
    [ "$layers" != "$1" ] || layers=
    rm -rf "$work/model"
    "$gdn" random --no-mtp --like "${1%%:*}" ${layers:+--layers "$layers"} -o "$work/model" >/dev/null 2>&1 &&
        "$gdn" logits --no-mtp -m "$work/model" --device cpu --math f32 --tokens "@$work/ids" \
            -o "$work/reference" >&2 || return 1
    f32=$(compare "$work/model" "$device" f32) && fast=$(compare "$work/model" "$device" fast) &&
        cpu=$(compare "$work/model" cpu fast) || return 1
    "$gdn" bench -m "$work/model" --device "$device" --json >"$work/bench" 2>/dev/null &&
        "$gdn" bench -m "$work/model" --device "$device" --depth 4096 --json >"$work/deep" 2>/dev/null || return 1
    printf '{"model": "%s", "layers": "%s", "f32": %s, "fast": %s, "cpu_fast": %s,\n "bench": %s,\n "bench_4096": %s}' \
        "${1%%:*}" "${layers:-all}" "$f32" "$fast" "$cpu" "$(cat "$work/bench")" "$(cat "$work/deep")"
}

{
    printf '{"device": "%s"' "$("$gdn" devices | sed -n "s/^$device *//p")"
    for part in $parts; do
        say "$part"
        case $part in
            vectors)
                v=true
                "$gdn" op --device "$device" tests/golden/op/*.safetensors >"$work/op" 2>&1 || v=false wrong=1
                printf ',\n"vectors": {"files": %d, "outputs": %d, "all_within_bounds": %s}' \
                    "$(ls tests/golden/op/*.safetensors | wc -l)" "$(grep -c ' of ' "$work/op")" $v
                ;;
            models)
                printf ',\n"models": ['
                comma=
                for m in $models; do
                    say "$m"
                    printf '%s\n' "$comma"
                    model "$m" || { wrong=1 && printf '{"model": "%s", "failed": true}' "$m"; }
                    comma=,
                done
                printf ']'
                ;;
            operators)
                printf ',\n"operators": [\n%s\n]' "$("$speed" "$device" | sed '$!s/$/,/')"
                ;;
        esac
    done
    printf '}\n'
} >"$work/json"
cp "$work/json" "$out"
python3 - "$work/json" <<'END' || wrong=1
import json, sys
j = json.load(open(sys.argv[1]))
bad = [m["model"] for m in j.get("models", [])
       if m.get("failed") or not (m["f32"]["finite"] and m["f32"]["largest_difference"] <= 5e-4)
       or not (m["fast"]["finite"] and m["fast"]["mean_kl"] <= 1e-3)]
for m in bad: print("xpu_device.sh: %s is off" % m, file=sys.stderr)
sys.exit(bool(bad))
END
exit $wrong
