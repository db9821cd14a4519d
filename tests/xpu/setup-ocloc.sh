#!/bin/sh
# setup-ocloc.sh DIR - Intel's offline compiler of Debian's testing suite, for recent GPUs, in a
# folder of its own with the libraries it needs: DIR/ocloc.  Neither apt's lists nor the system's
# libraries are touched.  Takes the mirror that the machine has.
set -eu
dir=$1
mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/root"
dir=$(cd "$dir" && pwd)
: >"$dir/status"
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -nE 's#^(URIs:|deb)[^h]*(https?://[^ ]+/debian)/?( .*)?$#\2#p' | head -n 1)
[ -n "$mirror" ] || { echo "no Debian mirror is known" >&2 && exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror forky main" >"$dir/sources.list"
apt() {
    apt-get -q -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache" \
        -o "Dir::State::status=$dir/status" -o Debug::NoLocking=1 "$@"
}
apt update
apt -y --no-install-recommends --download-only install intel-ocloc libigc2 libigdfcl2 libigc2-tools
for deb in "$dir"/cache/archives/*.deb; do dpkg -x "$deb" "$dir/root"; done
rm -f "$dir"/cache/archives/*.deb
program=$(basename "$(ls "$dir"/root/usr/bin/ocloc-* | head -n 1)")
cat >"$dir/ocloc.new" <<END
#!/bin/sh
root=\$(dirname -- "\$(readlink -f -- "\$0")")/root/usr # the folder may be moved
lib=\$root/lib/x86_64-linux-gnu
exec "\$lib/ld-linux-x86-64.so.2" --library-path "\$lib" "\$root/bin/$program" "\$@"
END
chmod +x "$dir/ocloc.new"
"$dir/ocloc.new" ids bmg >/dev/null
mv "$dir/ocloc.new" "$dir/ocloc"
