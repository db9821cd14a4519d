#!/bin/sh
# Run the tests of vllm-xpu-kernels for gated delta attention on this library.
#
#   tests/third_party/vllm_xpu_kernels.sh CHECKOUT [PYTEST ARGUMENTS...]
#
# CHECKOUT is a working copy of vllm-xpu-kernels; it is only read.  Its tests run from a temporary
# copy in which the device "xpu" is "cpu", everything else as it is there.  Counts, failures and
# versions go to tests/third_party/results/vllm_xpu_kernels.json, or to the file that OUT names.
# All of it takes an hour or so, most of that in the suite's own references; a quick part of it:
#
#   tests/third_party/vllm_xpu_kernels.sh CHECKOUT -k "not 8192 and not 1024"
#
# STATE names a folder, outside of the repository say, that keeps each result as it comes: the same
# command goes on there when it was cut short.  JOBS is the number of processes that share the tests:
#
#   STATE=FOLDER JOBS=2 OMP_NUM_THREADS=1 nice tests/third_party/vllm_xpu_kernels.sh CHECKOUT
#
# PYTHON picks the interpreter; it needs torch, numpy and pytest.  GDN_LIBRARY picks a library other
# than that of build/.
set -eu
[ $# -ge 1 ] || {
    sed -n '2,21s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
CHECKOUT=$(cd -- "$1" && pwd) || exit 2
shift
OUT=${OUT:-}
case $OUT in
    '' | /*) ;;
    *) OUT=$(pwd)/$OUT ;;
esac
STATE=${STATE:-}
case $STATE in
    '' | /*) ;;
    *) STATE=$(pwd)/$STATE ;;
esac
cd -- "$(dirname -- "$0")/../.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-$(pwd)/tests/third_party/results/vllm_xpu_kernels.json}
for module in torch numpy pytest; do
    "$PYTHON" -c "import $module" 2>/dev/null || {
        echo "$PYTHON has no $module"
        exit 77
    }
done
if [ -z "${GDN_LIBRARY:-}" ]; then
    make -s BUILD=build "build/libgdn.so.$(sed -n 's/^VERSION *:= *//p' Makefile)"
    GDN_LIBRARY=$(pwd)/build/libgdn.so.0
fi
export GDN_LIBRARY STATE PYTHONDONTWRITEBYTECODE=1
mkdir -p "$(dirname "$OUT")"
exec "$PYTHON" tests/third_party/vllm_xpu_kernels.py "$CHECKOUT" "$OUT" "$@"
