#!/bin/sh
# make install: the files, the names that the shared library exports, and a program built against
# the installed headers and each of the two libraries; make uninstall leaves no file behind.
# shellcheck disable=SC2046,SC2086 # compiler flags are words to be split
. tests/cli/check.inc

CC=${CC:-cc}
for tool in "$CC" pkg-config; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "$tool is not installed"
        exit 77
    fi
done

ROOT=$TMP/root
LIB=$ROOT/usr/lib

# make_it TARGET: with the objects of the program under test.
make_it() {
    ${MAKE:-make} -s --no-print-directory "$1" DESTDIR="$ROOT" PREFIX=/usr \
        BUILD="$(dirname "$GDN")" >"$TMP/out" 2>"$TMP/err"
}

# Paths as they are installed, but found below ROOT.
pc() { PKG_CONFIG_SYSROOT_DIR=$ROOT PKG_CONFIG_PATH=$LIB/pkgconfig pkg-config "$@" gdn; }

# compile LIBRARIES: the example, with the project's warnings.
compile() {
    $CC -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
        -Wmissing-prototypes -Werror $(pc --cflags) -o "$TMP/op" examples/op.c "$@" \
        >"$TMP/err" 2>&1
}

needs_shared() { readelf -d "$TMP/op" | grep -q 'NEEDED.*\[libgdn\.so\.0\]'; }

# The equations of MODEL.md in float64.
EXPECTED='core 0.0009 -0.0025
core -0.0070 -0.0173
core -0.0039 -0.0163
state -0.0236 0.0459'

make_it install || { fail "make install failed"; finish; }
for file in bin/gdn lib/libgdn.a lib/libgdn.so lib/libgdn.so.0 lib/libgdn.so.0.1.0 \
    lib/pkgconfig/gdn.pc share/doc/gdn/LICENSE share/gdn/models/jargon/model.safetensors; do
    [ -s "$ROOT/usr/$file" ] || fail "$file was not installed"
done
for header in include/gdn/*.h; do
    cmp -s "$header" "$ROOT/usr/$header" || fail "$header was not installed"
done
"$ROOT/usr/bin/gdn" version >"$TMP/out" 2>"$TMP/err" || fail "the installed gdn does not run"

# Exported is what the headers declare, neither more nor less.
nm -D --defined-only "$LIB/libgdn.so.0.1.0" | awk '{ print $NF }' | sort >"$TMP/exported"
grep -h '^GDN_API' include/gdn/*.h | sed 's/(.*//; s/.*[ *]//' | sort >"$TMP/declared"
[ -s "$TMP/declared" ] || fail "no declarations found in include/gdn"
if grep -qv '^gdn_' "$TMP/exported"; then
    fail "exported without the prefix: $(grep -v '^gdn_' "$TMP/exported" | tr '\n' ' ')"
fi
diff "$TMP/declared" "$TMP/exported" >"$TMP/err" ||
    fail "declared (<) and exported (>) differ; src/gdn.map lists what is exported"

readelf -d "$LIB/libgdn.so" | grep -q 'SONAME.*\[libgdn\.so\.0\]' || fail "soname is not libgdn.so.0"

if compile $(pc --libs); then
    needs_shared || fail "the example was not linked with libgdn.so.0"
    LD_LIBRARY_PATH=$LIB "$TMP/op" >"$TMP/out" 2>"$TMP/err" || fail "shared: the example failed"
    same "the example, shared" "$EXPECTED"
else
    fail "the example does not build with the shared library"
fi

# -lgdn prefers the shared library, so the archive is asked for by name; and all of it, so that
# gdn.pc has to name every library it needs.
WHOLE=-Wl,--whole-archive,-l:libgdn.a,--no-whole-archive
if compile $(pc --static --libs | sed "s/-lgdn/$WHOLE/"); then
    needs_shared && fail "the example was linked with libgdn.so.0, not with libgdn.a"
    "$TMP/op" >"$TMP/out" 2>"$TMP/err" || fail "static: the example failed"
    same "the example, static" "$EXPECTED"
else
    fail "the example does not build with the static library"
fi

# The engine's example: two answers at once, each token on a line with its question.
if $CC -std=c11 -Wall -Wextra -Wpedantic -Werror $(pc --cflags) -o "$TMP/engine" examples/engine.c \
    $(pc --libs) 2>"$TMP/err"; then
    LD_LIBRARY_PATH=$LIB "$TMP/engine" "$ROOT/usr/share/gdn/models/jargon" 'What is cruft?' \
        'What is a hacker?' >"$TMP/out" 2>"$TMP/err" || fail "the engine's example failed"
    [ "$(sed -n 's/^What is cruft?: //p' "$TMP/out" | tr -d '\n')" = "$CRUFT" ] ||
        fail "the engine's example answers $(cat "$TMP/out")"
else
    fail "the engine's example does not build"
fi

make_it uninstall || fail "make uninstall failed"
left=$(find "$ROOT" ! -type d -o -name 'gdn*' | tr '\n' ' ')
[ -z "$left" ] || fail "make uninstall left $left"
finish
