#!/bin/sh
# The Python package: its structures against the compiler's, every recorded call of the operator,
# memory and errors, the operator and its stages over a grid of calls, installing it with pip.
# PYTHON picks the interpreter.  The part for PyTorch runs where torch can be imported.
. tests/cli/check.inc

PYTHON=${PYTHON:-python3}
CC=${CC:-cc}
export PYTHONDONTWRITEBYTECODE=1
if ! command -v "$PYTHON" >/dev/null 2>&1; then
    echo "$PYTHON is not installed"
    exit 77
fi
if ! "$PYTHON" -c 'import numpy' 2>/dev/null; then
    echo "$PYTHON has no numpy"
    exit 77
fi

BUILT=$(dirname "$GDN")
VERSION=$(sed -n 's/^VERSION *:= *//p' Makefile)
${MAKE:-make} -s --no-print-directory BUILD="$BUILT" "$BUILT/libgdn.so.$VERSION" >"$TMP/out" 2>"$TMP/err" ||
    { fail "libgdn.so was not built"; finish; }
export GDN_LIBRARY="$BUILT/libgdn.so.0"
PYTHONPATH=$(pwd)/python
export PYTHONPATH

# python_ok ARGS...: it must succeed; what it prints is shown when it does not.
python_ok() {
    if ! timeout 100 "$PYTHON" "$@" >"$TMP/out" 2>"$TMP/err"; then
        tail -n 25 "$TMP/out" >&2
        fail "python $*"
    fi
}

if command -v "$CC" >/dev/null 2>&1; then
    python_ok python/tests/structs.py "$CC" include
    grep -q ' 0 differ$' "$TMP/out" || fail "structures: $(cat "$TMP/out")"
else
    echo "skipped: structures, $CC is not installed"
fi
python_ok python/tests/vectors.py "$GOLDEN"/op/*.safetensors
grep -q "^$(find "$GOLDEN/op" -name '*.safetensors' | wc -l) vectors, 0 failed$" "$TMP/out" ||
    fail "vectors: $(cat "$TMP/out")"
python_ok -W error python/tests/api.py
# Thousands of tiny calls: one thread, so that a busy machine does not stretch them.
GDN_DEVICE=cpu:1 OMP_NUM_THREADS=1
export GDN_DEVICE OMP_NUM_THREADS
python_ok tests/third_party/torch_op_test.py
grep 'skipped' "$TMP/out"

# A vector that expects something else must not pass.
cp "$GOLDEN/op/prefill-f32.safetensors" "$TMP/bad.safetensors"
printf '\125\125' | dd of="$TMP/bad.safetensors" bs=1 conv=notrunc 2>/dev/null \
    seek=$(($(wc -c <"$TMP/bad.safetensors") - 6))
timeout 100 "$PYTHON" python/tests/vectors.py "$TMP/bad.safetensors" >"$TMP/out" 2>&1 &&
    fail "a damaged vector passed: $(cat "$TMP/out")"

# Installed with a library that is built already: found without any variable, from any folder.
can_build='
import setuptools, pip
try:
    import setuptools.command.bdist_wheel # before 70.1 a package of its own had it
except ImportError:
    import wheel'
if "$PYTHON" -c "$can_build" 2>/dev/null; then
    mkdir -p "$TMP/tree/build" "$TMP/site"
    cp -r python "$TMP/tree/python"
    cp "$GDN_LIBRARY" "$TMP/tree/build/libgdn.so.0"
    if "$PYTHON" -m pip install -q --no-build-isolation --no-deps --no-index \
        --disable-pip-version-check --root-user-action=ignore --target "$TMP/site" \
        "$TMP/tree/python" >"$TMP/out" 2>"$TMP/err"; then
        (cd "$TMP" && env -u GDN_LIBRARY PYTHONPATH="$TMP/site" "$PYTHON" -c \
            'import gdn; print(gdn._lib.path, gdn.library_version())') >"$TMP/out" 2>"$TMP/err"
        same "the installed package" "$TMP/site/gdn/libgdn.so.0 $VERSION"
    else
        fail "pip install"
    fi
else
    echo "skipped: pip install, $PYTHON lacks pip, setuptools or wheel"
fi
finish
