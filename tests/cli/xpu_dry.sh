# The whole program with Intel's own driver and a GPU that is not there: the driver compiles the
# kernels, takes every call and writes what it would send to the GPU into files; nothing runs.  Every
# call of a prompt and an answer has to be accepted.
. tests/cli/check.inc
HERE=$(pwd)
mkdir "$TMP/work" # where the driver leaves its files
cd "$TMP/work" || exit 1
export NEOReadDebugKeys=1 SetCommandStreamReceiver=1
export ProductFamilyOverride=dg2 HardwareInfoOverride=8x4x16

gdn devices
grep -q '^xpu:0 .*Intel(R) Graphics' "$TMP/out" || {
    echo "Intel's OpenCL driver is not installed (Debian 12: intel-opencl-icd)"
    exit 77
}
grep '^xpu:0' "$TMP/out" | grep -q stand-in && fail "Intel's GPU is a stand-in: $(cat "$TMP/out")"

# dry MODEL ARGS...: launches are counted; there are more than layers.
dry() {
    model=$1
    shift
    rm -f ./*.aub
    ok run -m "$HERE/$model" --device xpu:0 --dry-run -q -n 3 "$@"
    launches=$(sed -n 's/^dry run on xpu:0: .* and 3 more in .* accepted [0-9]* calls, for \([0-9]*\) launches of kernels$/\1/p' "$TMP/out")
    [ "${launches:-0}" -ge 50 ] || fail "$model: $(cat "$TMP/out")"
    ls ./*.aub >/dev/null 2>&1 || fail "$model: the driver wrote nothing down; was it asked at all?"
}
dry models/jargon -p hi
dry "$GOLDEN/model/dense-mtp" --tokens 1,2,3,4,5,6,7,8,9 --draft 2
export GDN_XPU_MEMORY=buffer
dry "$GOLDEN/model/next-moe" --tokens 1,2,3,4,5,6,7,8,9
finish
