#!/bin/sh
# Build and run the tests, section by section: those named, or all.
#
#   gcc    build with warnings as errors; unit tests; kernels against their references
#   clang  the same build with clang; kernels
#   san    address and undefined-behaviour sanitizers, leaks included: unit tests, kernels
#   tsan   thread sanitizer: the unit tests about threads, and the simulation
#   fuzz   every parser from its corpus, FUZZ_TIME seconds each; T=NAME: only this one
#   arch   the library compiles for a machine without any of our instruction sets
#   cli    the program as its user sees it
#   xpu    the OpenCL kernels under oclgrind, and what Intel's offline compiler makes of them
#
# Every program counts as a step.  Its output is kept in BUILD/test-logs and shown when it
# fails.  What cannot run here says what is missing and counts as skipped.  The last line is
# "N passed, N failed" with ", N skipped" when there are any.
cd -- "$(dirname -- "$0")/.." || exit 1
MAKE=${MAKE:-make} BUILD=${BUILD:-build} FUZZ_TIME=${FUZZ_TIME:-5} T=${T:-}
JOBS=$(nproc 2>/dev/null || echo 2)
LOGS=$BUILD/test-logs
step_limit=600 # seconds, for a step that hangs; builds take long on a busy machine
mkdir -p "$LOGS" || exit 1

# What the steps leave: a line in `results` each, kernels that PoCL has compiled for the other tests.
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
: >"$WORK/results"
export GDN_TEST_OPENCL_CACHE="$WORK/opencl"
mkdir "$GDN_TEST_OPENCL_CACHE"

# Sanitizers of older compilers cannot place their shadow when the kernel randomises much.
STEADY=
if setarch "$(uname -m)" -R true 2>/dev/null; then STEADY="setarch $(uname -m) -R"; fi
# Intel's OpenCL driver opens libraries in a way that ends a program with sanitizers.
POCL=/etc/OpenCL/vendors/pocl.icd
if [ -z "${OCL_ICD_VENDORS:-}" ] && [ -f $POCL ]; then STEADY="env OCL_ICD_VENDORS=$POCL $STEADY"; fi

# result ok|FAIL|skip SECONDS TEXT: one line of the report, more where the text has more
result() {
    echo "$1" >>"$WORK/results"
    printf '%-4s %4d s  %s\n' "$1" "$2" "$3"
}
count() { grep -c "^$1" "$WORK/results"; }

skip() { result skip 0 "$1: $2"; }

# What a failed step said, for the report.
said() {
    [ "$2" != 124 ] || echo "     not done after $step_limit s"
    grep -E 'error|ERROR|FAIL|Sanitizer|panic' "$1" | head -n 20 | sed 's/^/     /'
    tail -n 30 "$1" | sed 's/^/     | /'
    echo "     all of it: $1"
}

# step NAME COMMAND...
step() {
    name=$1 log=$LOGS/$(echo "$1" | tr ' /' '__').log
    shift
    start=$(date +%s)
    timeout -k 10 "$step_limit" "$@" >"$log" 2>&1 </dev/null
    status=$?
    took=$(($(date +%s) - start))
    case $status in
        0) result ok $took "$name" ;;
        77) result skip $took "$name: $(tail -n 1 "$log")" ;;
        *) result FAIL $took "$name
$(said "$log" $status)" ;;
    esac
    return $status
}

# side_by_side COMMAND NAME...: COMMAND, which is one step, with each name, as many at once as there
# are processors.  Each of the workers goes through all names and does those that it claims first; it
# hears of no interrupt, but sees that this script is gone.
side_by_side() {
    command=$1 claims=$(mktemp -d "$WORK/claims.XXXXXX") before=$(wc -l <"$WORK/results")
    shift
    for _ in $(seq "$JOBS"); do
        for name in "$@"; do
            kill -0 $$ 2>/dev/null || exit
            if mkdir "$claims/$(basename "$name")" 2>/dev/null; then $command "$name"; fi
        done &
    done
    wait
    missing=$((before + $# - $(wc -l <"$WORK/results")))
    [ $missing = 0 ] || result FAIL 0 "$command: $missing steps without a result"
}

# build FOLDER COMPILER FLAGS TARGETS...: make in BUILD/FOLDER
build() {
    folder=$BUILD/$1 compiler=$2 flags=$3
    shift 3
    targets=
    for t in "$@"; do
        case $t in
            gdn | check | libgdn.a) targets="$targets $folder/$t" ;;
            unit/* | xpu/* | xpu-sources) targets="$targets $folder/$t" ;;
            *) targets="$targets $t" ;;
        esac
    done
    # shellcheck disable=SC2086 # lists of words
    step "build $(basename "$folder")" $MAKE -s --no-print-directory -k -j"$JOBS" \
        BUILD="$folder" CC="$compiler" $flags $targets
}

have_cmocka() { pkg-config --exists cmocka 2>/dev/null; }
have_program() { ls src/cli/*.c >/dev/null 2>&1; }
have_checks() { ls tests/check/*.c >/dev/null 2>&1; }

unit_programs() {
    for source in tests/unit/test_*.c; do
        [ -f "$source" ] && basename "$source" .c
    done
}

# programs FOLDER [WRAPPER...]: the unit tests and the kernels against their references.  What uses
# one processor runs side by side, as the xpu device's tests, for which PoCL compiles on one.  Threads
# that wait for each other lose more than is won when others take their processors: those run alone.
programs() {
    folder=$1 beside='' alone=''
    shift
    wrapper=$*
    if have_checks; then beside=check; fi
    if have_cmocka; then
        for unit in $(unit_programs | sort -r); do # the longest are among the last
            case $unit in
                test_generate | test_jinja | test_request* | test_sampler | test_sim | test_xpu*) beside="$beside $unit" ;;
                *) alone="$alone $unit" ;;
            esac
        done
    else
        skip "$folder unit" "libcmocka-dev is not installed"
    fi
    # shellcheck disable=SC2086 # words
    side_by_side program $beside
    for unit in $alone; do program "$unit"; done
}
program() {
    case $1 in
        check) name="$folder check" file=$BUILD/$folder/check ;;
        *) name="$folder unit $1" file=$BUILD/$folder/unit/$1 ;;
    esac
    # shellcheck disable=SC2086 # words
    step "$name" $wrapper "$file"
}

section_gcc() {
    if ! command -v gcc >/dev/null; then
        skip gcc "gcc is not installed"
        return
    fi
    targets=
    if have_program; then targets=gdn; fi
    if have_checks; then targets="$targets check"; fi
    if have_cmocka; then targets="$targets unit-bins"; fi
    # shellcheck disable=SC2086
    build gcc gcc WERROR=-Werror libgdn.a $targets || return
    programs gcc
    if have_cmocka; then
        for isa in ref avx2 avx512; do # the weaker kernels in the whole forward pass
            step "gcc unit test_golden GDN_ISA=$isa" env GDN_ISA=$isa "$BUILD/gcc/unit/test_golden"
        done
        if grep -q avx512f /proc/cpuinfo; then # elsewhere it did run with avx2
            step "gcc unit test_invariance GDN_ISA=avx2" env GDN_ISA=avx2 "$BUILD/gcc/unit/test_invariance"
        fi
    fi
}

section_clang() {
    if ! command -v clang >/dev/null; then
        skip clang "clang is not installed"
        return
    fi
    targets=
    if have_program; then targets=gdn; fi
    if have_checks; then targets="$targets check"; fi
    # The unit tests get clang's warnings when they are built for the sanitizers.
    if have_cmocka && ! have_sanitizers; then targets="$targets unit-bins"; fi
    # shellcheck disable=SC2086
    build clang clang WERROR=-Werror libgdn.a $targets || return
    if have_checks; then step "clang check" "$BUILD/clang/check"; fi
}

# One build serves the tests and the fuzzers: coverage instrumentation costs the tests little.
SAN_FLAGS="SAN=-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer"
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1"

have_sanitizers() {
    mkdir -p "$BUILD/san" &&
        echo 'int main(void) { return 0; }' >"$BUILD/san/try.c" &&
        clang -fsanitize=address,undefined "$BUILD/san/try.c" -o "$BUILD/san/try" 2>/dev/null
}

# In unrolled vector code the checks of address arithmetic take three fifths of the time to compile,
# and an access to a wrong place is found without them.
build_san() {
    name=$1
    shift
    # shellcheck disable=SC2086 # MAKE may be words
    step "build $name" $MAKE -s --no-print-directory -k -j"$JOBS" BUILD="$BUILD/san" CC=clang \
        WERROR=-Werror CFLAGS='-O1 -g' KERN_CFLAGS=-fno-sanitize=pointer-overflow "$SAN_FLAGS" "$@"
}

section_san() {
    if ! have_sanitizers; then
        skip san "clang with its sanitizers is not installed (clang, libclang-rt-dev)"
        return
    fi
    targets=$BUILD/san/libgdn.a
    if have_program; then targets="$targets $BUILD/san/gdn"; fi
    if have_checks; then targets="$targets $BUILD/san/check"; fi
    if have_cmocka; then targets="$targets unit-bins"; fi
    # shellcheck disable=SC2086
    build_san san $targets || return
    # shellcheck disable=SC2086
    programs san $STEADY
}

section_tsan() {
    if ! have_sanitizers || ! have_cmocka; then
        skip tsan "clang with its sanitizers and libcmocka-dev are needed"
        return
    fi
    list='' targets=''
    for unit in $(unit_programs); do
        case $unit in
            test_pool | test_sim | test_*threads*) list="$list $unit" targets="$targets $BUILD/tsan/unit/$unit" ;;
        esac
    done
    # shellcheck disable=SC2086
    step "build tsan" $MAKE -s --no-print-directory -k -j"$JOBS" BUILD="$BUILD/tsan" CC=clang \
        CFLAGS='-O1 -g' SAN=-fsanitize=thread $targets || return
    # shellcheck disable=SC2086
    for unit in $list; do
        step "tsan unit $unit" env GDN_SIM_THREADS=3 GDN_SIM_STEPS=120 $STEADY "$BUILD/tsan/unit/$unit"
    done
}

# Inputs found on the way are thrown away; a crash is kept in BUILD/crash and belongs into the
# corpus once it is understood.
fuzz_one() {
    corpus=$(mktemp -d) || return 1
    set -- "${1#fuzz_}"
    [ ! -d "tests/fuzz/corpus/$1" ] || cp -r "tests/fuzz/corpus/$1/." "$corpus"
    mkdir -p "$BUILD/crash"
    step_limit=$((FUZZ_TIME + 120))
    # shellcheck disable=SC2086
    step "fuzz $1" $STEADY "$BUILD/san/fuzz/fuzz_$1" -max_total_time="$FUZZ_TIME" \
        -rss_limit_mb=2048 -timeout=20 -artifact_prefix="$BUILD/crash/$1-" -print_final_stats=1 "$corpus"
    rm -rf "$corpus"
}

section_fuzz() {
    if ! ls tests/fuzz/fuzz_*.c >/dev/null 2>&1; then return; fi
    if ! have_sanitizers; then
        skip fuzz "clang with its sanitizers is not installed (clang, libclang-rt-dev)"
        return
    fi
    build_san fuzz fuzz-bins || return
    # shellcheck disable=SC2046 # words
    side_by_side fuzz_one $(for f in tests/fuzz/fuzz_${T:-*}.c; do basename "$f" .c; done)
}

# A compile only: the foreign libraries' headers are the same on every machine.
section_arch() {
    if ! command -v aarch64-linux-gnu-gcc >/dev/null; then
        skip "arch aarch64" "gcc-aarch64-linux-gnu is not installed"
        return
    fi
    # shellcheck disable=SC2086
    step "build aarch64" $MAKE -s --no-print-directory -k -j"$JOBS" BUILD="$BUILD/aarch64" ARCH=aarch64 \
        CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar WERROR=-Werror \
        CFLAGS="-O1 -idirafter /usr/include -idirafter /usr/include/$(gcc -print-multiarch 2>/dev/null)" \
        "$BUILD/aarch64/libgdn.a"
}

section_cli() {
    if ! ls tests/cli/*.sh >/dev/null 2>&1; then return; fi
    if [ ! -x "$BUILD/gcc/gdn" ]; then
        result FAIL 0 "cli: $BUILD/gcc/gdn was not built"
        return
    fi
    for script in tests/cli/*.sh; do
        step "cli $(basename "$script" .sh)" env GDN="$BUILD/gcc/gdn" sh tests/run-cli.sh "$script"
    done
}

section_xpu() {
    build gcc gcc WERROR=-Werror libgdn.a xpu/kernels xpu-sources || return
    side_by_side xpu_script offline oclgrind
}
xpu_script() {
    case $1 in
        offline) step "xpu offline" env BUILD="$BUILD/gcc" sh tests/xpu/offline.sh --short ;;
        oclgrind) step "xpu oclgrind" tests/xpu/oclgrind.sh "$(realpath "$BUILD")/gcc/xpu/kernels" --fast ;;
    esac
}

[ $# -gt 0 ] || set -- gcc clang san tsan fuzz arch cli xpu
began=$(date +%s)
for section in "$@"; do
    case $section in
        gcc | clang | san | tsan | fuzz | arch | cli | xpu) "section_$section" ;;
        *) echo "run-all.sh: no section \"$section\"" >&2 && exit 2 ;;
    esac
done
echo "$(($(date +%s) - began)) s in all"
line="$(count ok) passed, $(count FAIL) failed"
[ "$(count skip)" = 0 ] || line="$line, $(count skip) skipped"
echo "$line"
[ "$(count FAIL)" = 0 ] && [ "$(count ok)" != 0 ]
