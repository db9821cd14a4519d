#!/bin/sh
# Run the tests of the command line, tests/cli/*.sh or those named, one after another.
#
#   GDN=build/gdn tests/run-cli.sh [SCRIPT...]
#
# A script runs in the project's root with GDN set to the program and TMP to an empty folder of
# its own.  It prints what it likes; its exit status counts, 77 for skipped, and then its last
# line says what was missing.
cd -- "$(dirname -- "$0")/.." || exit 1
GDN=${GDN:-build/gdn}
case $GDN in
    /*) ;;
    *) GDN=$(pwd)/$GDN ;;
esac
export GDN
[ -x "$GDN" ] || {
    echo "run-cli.sh: $GDN is not there; build it with make, or set GDN" >&2
    exit 1
}
[ $# -gt 0 ] || set -- tests/cli/*.sh
passed=0 failed=0 skipped=0
for script in "$@"; do
    [ -f "$script" ] || continue
    TMP=$(mktemp -d) || exit 1
    export TMP
    echo "== $script"
    timeout "${LIMIT:-120}" sh "$script"
    case $? in
        0) passed=$((passed + 1)) ;;
        77) skipped=$((skipped + 1)) ;;
        124) failed=$((failed + 1)) && echo "FAIL $script: not done after ${LIMIT:-120} s" ;;
        *) failed=$((failed + 1)) && echo "FAIL $script" ;;
    esac
    rm -rf "$TMP"
done
if [ $# = 1 ] && [ $skipped = 1 ]; then exit 77; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
