#!/bin/sh
# Run every OpenCL kernel under oclgrind, an interpreter that reports data races, accesses outside of
# memory, values never written and barriers that not all items reach.
#
#   tests/xpu/oclgrind.sh BUILD/xpu/kernels [--fast]
#
# Its exit status is 0 whatever it found, so the log counts: empty for our kernels, and with the right
# words for bugs that are planted in canary.cl, without which nothing is proven.
kernels=$1
shift
cd -- "$(dirname -- "$0")/../.." || exit 1
[ -x "$kernels" ] || {
    echo "oclgrind.sh: $kernels is not there; build it with make" >&2
    exit 1
}
command -v oclgrind >/dev/null 2>&1 || {
    echo "oclgrind is not installed"
    exit 77
}
icd=$(dirname -- "$(readlink -f "$(command -v oclgrind)")")/../lib/oclgrind/liboclgrind-rt-icd.so
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
export OCL_ICD_VENDORS="$icd" XDG_CACHE_HOME="$TMP"
bad=0
unset=--uninitialized

# under LOG COMMAND...: unoptimised, for the marks of what is not written know no `freeze`
under() {
    log=$1
    shift
    rm -f "$log"
    # shellcheck disable=SC2086 # none or one word
    oclgrind --data-races $unset --max-errors 20 --build-options -cl-opt-disable \
        --log "$log" "$@"
}

# canary NAME WORDS: a planted bug is found; no WORDS: nothing is
canary() {
    under "$TMP/log" "$kernels" --canary tests/xpu/canary.cl "$1" || {
        echo "FAIL canary $1 did not run"
        bad=1
        return
    }
    if [ -z "$2" ] && [ ! -s "$TMP/log" ] || { [ -n "$2" ] && grep -q "$2" "$TMP/log" 2>/dev/null; }; then
        echo "ok   canary $1"
    else
        echo "FAIL canary $1: expected '$2' in the log, which is:"
        head -n 20 "$TMP/log" 2>/dev/null
        bad=1
    fi
}
canary sound ""
canary missing_barrier "data race at local memory"
canary buffer_overrun "Invalid write of size 4 at global memory"
canary global_race "data race at global memory"
canary local_overrun "exceeds static array size"
canary local_unset "Uninitialized value"
canary divergent_barrier "divergence detected (barrier)"

# pass WORDS ARGUMENT...: the cases that the arguments pick, and nothing in the log
pass() {
    echo "== $1"
    shift
    under "$TMP/log" "$kernels" "$@" || bad=1
    if [ -s "$TMP/log" ]; then
        echo "FAIL oclgrind reports:"
        head -n 60 "$TMP/log"
        bad=1
    fi
}
for tier in p emulated; do
    export GDN_XPU_TIER=$tier
    pass "GDN_XPU_TIER=$tier" "$@"
done
# A matrix operand's unused rows are unwritten: those cases have the other checks alone.
unset=
pass "GDN_XPU_TIER=$tier, without a look for unwritten values" --bounds "$@"
exit $bad
