#!/bin/sh
# op_speed.sh - the speed of gdn_attention() on this machine, and of the same in PyTorch where there
# is one (PYTHON names it).  One JSON object a line.
#
#     make && bench/op_speed.sh [threads [prompt tokens [rounds]]]
set -e
cd "$(dirname "$0")/.."
build=${BUILD:-build}
[ -f "$build/libgdn.a" ] || { echo "op_speed.sh: no $build/libgdn.a: run make first" >&2; exit 1; }
program=$(mktemp)
trap 'rm -f "$program"' EXIT
# shellcheck disable=SC2046
${CC:-cc} -O3 -march=native -Iinclude -o "$program" bench/op_speed.c "$build/libgdn.a" \
    $(pkg-config --libs jansson libpcre2-8 libutf8proc libzstd libxxhash) -lm -pthread
"$program" "${1:-2}" "${2:-8192}" "${3:-5}"
python=${PYTHON:-python3}
if "$python" -c 'import torch' 2>/dev/null; then
    for act in bf16 f32; do
        "$python" bench/gdn_torch_baseline.py "${1:-2}" "${2:-8192}" 2 "$act"
    done
else
    echo "op_speed.sh: $python has no torch: nothing to compare with" >&2
fi
