#!/bin/sh
# do - from a fresh Debian 12 to a running program: ./do demo | test | bench | install | help
#
# Installs the packages that are missing, builds, and does what it is told.  Safe to repeat;
# works from any folder.
# shellcheck disable=SC2086 # lists of packages are words to be split
set -eu

called_from=$(pwd)
cd -- "$(dirname -- "$0")"

BUILD_PACKAGES="gcc make pkg-config libc6-dev libjansson-dev libpcre2-dev libutf8proc-dev libzstd-dev libxxhash-dev libedit-dev opencl-c-headers"
LIBRARIES="jansson libpcre2-8 libutf8proc libzstd libxxhash libedit"

say() { printf '== %s\n' "$*"; }
die() {
    printf 'do: %s\n' "$*" >&2
    exit 1
}

usage() {
    cat <<'END'
usage: ./do COMMAND

  demo              build gdn and ask the demo model a question
  test              run all tests
  bench [ARGS]      build gdn and measure its speed; ARGS go to "gdn bench"
  install [PREFIX]  build gdn and install it, below /usr/local unless told otherwise
  help              this text

Packages that a command needs and that are not there are installed with apt-get,
through sudo when you are not root.
END
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing_of() {
    for package in "$@"; do
        installed "$package" || printf '%s ' "$package"
    done
}

# Elsewhere than on Debian nothing is installed; what matters is whether the libraries are there.
check_without_dpkg() {
    command -v pkg-config >/dev/null 2>&1 && pkg-config --exists $LIBRARIES && return 0
    die "this is not a Debian system, so nothing can be installed here automatically.
Install a C compiler, make, pkg-config and the development files of jansson, pcre2, utf8proc,
zstd, xxhash and libedit, and the C headers of OpenCL.  On Debian these packages have them: $*"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

need_packages() {
    if ! command -v dpkg-query >/dev/null 2>&1; then
        check_without_dpkg "$@"
        return 0
    fi
    missing=$(missing_of "$@")
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        die "apt-get is not there.  Install these packages and try again: $missing"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null 2>&1 ||
        die "you are not root and sudo is not there.  As root, run: apt-get install $missing"
    say "Installing: $missing"
    # The list may name a version that the mirror no longer has: then update and try once more.
    as_root apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 && return 0
    as_root apt-get update || die "apt-get update failed; is there a network?"
    as_root apt-get install -y --no-install-recommends $missing ||
        die "these packages could not be installed: $missing"
}

build() {
    need_packages $BUILD_PACKAGES
    say "Building gdn"
    make -s -j"$(nproc 2>/dev/null || echo 2)" all
}

demo() {
    build
    say 'Asking the demo model: build/gdn run -p "What is cruft?"'
    build/gdn run -p "What is cruft?"
    cat <<END

== That was a model of ten million parameters, trained on the Jargon File.  More:

  $here/build/gdn run -p "What is a kluge?"     another question
  $here/build/gdn chat                          a conversation
  $here/build/gdn run -m DIR -p "..."           a Qwen3-Next or Qwen3.5 model in the folder DIR
  $here/build/gdn --help                        all commands
END
}

run_tests() {
    need_packages $BUILD_PACKAGES libcmocka-dev clang libclang-rt-dev ocl-icd-libopencl1 pocl-opencl-icd intel-opencl-icd oclgrind
    exec tests/run-all.sh
}

install_below() {
    case $1 in
        /*) prefix=$1 ;;
        *) prefix=$called_from/$1 ;;
    esac
    build
    say "Installing below $prefix"
    nearest=$prefix
    while [ ! -e "$nearest" ]; do nearest=$(dirname -- "$nearest"); done
    if [ -w "$nearest" ] && { [ ! -d "$prefix/bin" ] || [ -w "$prefix/bin" ]; }; then
        make -s install PREFIX="$prefix"
    elif command -v sudo >/dev/null 2>&1; then
        sudo make -s install PREFIX="$prefix"
    else
        die "$prefix cannot be written to and sudo is not there; as root, run: make install PREFIX=$prefix"
    fi
    say "Installed: $prefix/bin/gdn"
}

here=$(pwd)
command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
    demo) demo ;;
    test) run_tests ;;
    bench)
        build
        say "build/gdn bench $*"
        exec build/gdn bench "$@"
        ;;
    install) install_below "${1:-/usr/local}" ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
