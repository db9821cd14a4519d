# The xpu device on a machine where something is wrong with it: one line that says what, what to do,
# and that the cpu runs without it.  The driver is a stub that runs no kernels (tests/opencl_stub).
. tests/cli/check.inc
CC=${CC:-cc}
command -v "${CC%% *}" >/dev/null || {
    echo "no C compiler for the stub of a driver"
    exit 77
}
mkdir "$TMP/stub" "$TMP/old" "$TMP/none"
# shellcheck disable=SC2086 # CC may be words
{
    $CC -D_GNU_SOURCE -shared -fPIC -o "$TMP/stub/libOpenCL.so.1" tests/opencl_stub/stub.c &&
        $CC -D_GNU_SOURCE -DWITHOUT_FILL -shared -fPIC -o "$TMP/old/libOpenCL.so.1" tests/opencl_stub/stub.c
} || {
    echo "the stub of a driver does not compile (OpenCL's headers: opencl-c-headers)"
    exit 77
}
: >"$TMP/none/libOpenCL.so.1"
export XDG_CACHE_HOME=/dev/null # compiled kernels of the stub are worth nothing
cpu="; --device cpu runs without it"

# with FOLDER WORDS: the library, and what it does.
with() {
    export LD_LIBRARY_PATH="$TMP/$1" OPENCL_STUB="$2"
}
# says TEXT ARGS...: the only line is TEXT after the program's name.
says() {
    text=$1
    shift
    bad 1 "$text" "$@"
    grep -qxF -- "gdn $1: $text" "$TMP/err" || fail "gdn $*: \"$(cat "$TMP/err")\""
}
run="run --device xpu --dry-run -q -p hi -n 3"

with none ""
# shellcheck disable=SC2086
bad 1 "device 'xpu': OpenCL is not installed (" $run
grep -q "install its loader .*ocl-icd-libopencl1.* and the GPU's driver .*intel-opencl-icd.*$cpu" "$TMP/err" ||
    fail "no library: $(cat "$TMP/err")"
ok devices
grep -q "^xpu" "$TMP/out" && fail "devices: an xpu without a library"
ok run -p hi -n 1

with old ""
says "device 'xpu': libOpenCL.so.1 has no clEnqueueFillBuffer: it is older than OpenCL 1.2, install a newer one$cpu" $run

stub="device 'xpu': Stub of a GPU"
with stub no-platform
says "device 'xpu': OpenCL has no driver: install the GPU's (Debian: intel-opencl-icd)$cpu" $run
with stub no-device
says "device 'xpu': OpenCL has no device: there is no GPU, or you may not open /dev/dri/renderD128$cpu" $run
with stub held
says "$stub is not available: another program may hold it$cpu" $run
with stub no-compiler
says "$stub has a driver without a compiler: install the whole driver$cpu" $run
with stub old
says "$stub has OpenCL 1.1 and 1.2 is needed: update its driver$cpu" $run
with stub small-local
says "$stub has 16384 bytes of local memory and 32768 are needed$cpu" $run
with stub small-groups
says "$stub takes work-groups of 64 items and 256 are needed$cpu" $run

stub="device xpu:0 (Stub of a GPU)"
lost="it was lost or reset (the system's log says why): start again$cpu"
driver="its driver may be too old or not meant for it: update it$cpu"
memory="of its 1.1 GB too little is left: a smaller model, --ctx or --cache takes less$cpu"
with stub bad-source
says "$stub: embed_xpu.cl does not compile: 7:11: error: what is a long?: CL_BUILD_PROGRAM_FAILURE; $driver" $run
with stub "clEnqueueNDRangeKernel=-5@40+"
bad 1 "$stub: kernel " $run
grep -q "CL_OUT_OF_RESOURCES; it was lost" "$TMP/err" || fail "lost: $(cat "$TMP/err")"
with stub "event=-5@3"
says "$stub: a wait: CL_OUT_OF_RESOURCES; $lost" $run
with stub "clSetKernelArg=-51@9"
says "$stub: argument 8 of kernel embed: CL_INVALID_ARG_SIZE; $driver" $run
with stub "clCreateBuffer=-4@9"
bad 1 "MB of memory: CL_MEM_OBJECT_ALLOCATION_FAILURE; $memory" $run
with stub "clEnqueueWriteBuffer=-5@2"
says "$stub: a copy of a weight: CL_OUT_OF_RESOURCES; $lost" $run
with stub "clCreateContext=-6@1"
bad 1 "$stub: a context: CL_OUT_OF_HOST_MEMORY; " bench --device xpu

with stub ""
export GDN_XPU_MEMORY=usm
says "$stub has no unified shared memory: leave GDN_XPU_MEMORY=usm out" $run
unset GDN_XPU_MEMORY
bad 1 "there is only xpu:0" run --device xpu:1 -p hi
ok devices
grep -q "^xpu:0 .*Stub of a GPU, .*a stand-in" "$TMP/out" || fail "devices: $(cat "$TMP/out")"

# All of it, through a driver without a fault: over buffers and over shared memory, a GPU and none.
for words in "" usm "gpu usm"; do
    with stub "$words"
    # shellcheck disable=SC2086
    ok $run
    grep -q "^dry run on xpu: a prompt of [0-9]* tokens and 3 more in [0-9]* steps; its driver accepted [0-9]* calls, for [0-9]* launches" "$TMP/out" ||
        fail "dry run: $(cat "$TMP/out")"
done

# Command buffers are used in a version that is known, on queues that are in order, unless they are off.
for words in replay=yes replay-later=no replay-unordered=no usm=no; do
    with stub "${words%=*}"
    # shellcheck disable=SC2086
    ok $run -v
    grep -q "^gdn run: device name=xpu:0 .* replay=${words#*=} " "$TMP/err" || fail "$words: $(cat "$TMP/err")"
done
export GDN_XPU_REPLAY=off
with stub replay
# shellcheck disable=SC2086
ok $run -v
grep -q " replay=no " "$TMP/err" || fail "GDN_XPU_REPLAY=off: $(cat "$TMP/err")"
unset GDN_XPU_REPLAY

bad 2 "--dry-run tries a device's driver" run --dry-run -p hi
bad 2 "--dry-run has no answer" run --dry-run --device xpu --json -p hi
finish
