#!/bin/sh
# offline.sh [--short] - every OpenCL kernel, as the program gives it to a driver, compiled by Intel's
# offline compiler and its machine code read.  No GPU is needed, and nothing runs.
#
#   ocloc of Debian 12 (intel-opencl-icd)        pvc, dg2-g10
#   ocloc of Debian testing, in BUILD/ocloc-new  bmg-g21 bmg-g31 lnl-m ptl-h; not with --short
#
# A kernel fails by registers spilled to memory, by arrays that are kept there, by a call (a builtin that nobody knows compiles to
# one, without an error), by fewer matrix instructions or block loads than tests/xpu/expected.txt
# has, by local memory (64 KiB; 32 KiB for the portable ones), or by another sub-group than it asks
# for.  The exit status is then 1.  BUILD/xpu-offline.tsv gets a line for each kernel and target.
cd -- "$(dirname -- "$0")/../.." || exit 1
BUILD=${BUILD:-build}
short=${1:-}
if ! command -v ocloc >/dev/null; then
    echo "ocloc is not installed (intel-opencl-icd)"
    exit 77
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
table=$work/table
newer=$BUILD/ocloc-new

# compile COMPILER TARGET SG FILE: lines of the table
compile() {
    out=$work/$2/$4
    mkdir -p "$out/isa" "$out/bin" "$out/dump"
    if ! IGC_ShaderDumpEnable=1 IGC_DumpToCustomDir="$out/isa" "$1" compile -file "$work/$3/$4.cl" \
        -device "$2" --format zebin -options "$(cat "$work/$3/$4.opt")" -out_dir "$out/bin" \
        >"$out/log" 2>&1; then
        echo "FAIL $4_xpu.cl on $2 does not compile:"
        grep -m 5 error "$out/log" || tail -n 5 "$out/log"
        return 1
    fi
    "$1" disasm -file "$out"/bin/*.bin -dump "$out/dump" -device "$2" >>"$out/log" 2>&1
    if [ ! -s "$out/dump/.ze_info" ]; then
        echo "FAIL $4_xpu.cl on $2: its description cannot be read"
        return 1
    fi
    # A kernel that spilled may have been compiled again: <hash>_1_simd32_...; that one is kept.
    for asm in "$out"/isa/*[!_][0-9a-f]_simd*_entry_*.asm "$out"/isa/*_[1-9]_simd*_entry_*.asm; do
        [ ! -f "$asm" ] || awk -f tests/xpu/isa.awk "$asm"
    done >"$out/lines"
    # kernel, simd and local memory of what is kept: other widths were tries.  A module with functions
    # that are not inlined has an entry that stands for none of the kernels.
    awk '$3 == "Intel_Symbol_Table_Void_Program" { kernel = ""; next }
         kernel == "" && $2 != "name:" { next }
         $1 == "-" && $2 == "name:" { kernel = $3; slm[kernel] += 0 }
         $1 == "simd_size:" { simd[kernel] = $2 }
         $1 == "slm_size:"  { slm[kernel] = $2 }
         /type: +scratch/   { in_scratch = 1 }
         in_scratch && $1 == "size:" { scratch[kernel] = $2; in_scratch = 0 }
         END { for (k in simd) print k, simd[k], slm[k], scratch[k] + 0 }' "$out/dump/.ze_info" >"$out/kept"
    awk -v target="$2" -v file="$4" 'BEGIN { OFS = "\t" }
        NR == FNR { kept[$1] = $2; slm[$1] = $3; scratch[$1] = $4; next }
        ($1 in kept) && $2 == kept[$1] {
            row[$1] = $2 OFS $3 OFS $4 OFS scratch[$1] OFS $5 OFS $6 OFS slm[$1] OFS $8 OFS $7
        }
        END { for (k in kept) if (k in row) print file, k, target, row[k]
                              else print "FAIL " k " on " target ": no machine code" }
        ' "$out/kept" "$out/lines" >"$out/rows"
    if grep '^FAIL' "$out/rows"; then return 1; fi
    cat "$out/rows" >>"$table"
}

# target COMPILER TARGET SG
target() {
    mkdir -p "$work/$3"
    "$BUILD/xpu-sources" "$work/$3" "$3" || : >"$work/failed"
    for cl in "$work/$3"/*.cl; do
        compile "$1" "$2" "$3" "$(basename "$cl" .cl)" || : >"$work/failed"
    done
}

: >"$table"
target ocloc pvc 16 &
target ocloc dg2-g10 8 &
wait
if [ "$short" != --short ]; then
    [ -x "$newer/ocloc" ] || sh tests/xpu/setup-ocloc.sh "$newer" >"$work/setup" 2>&1
    if [ -x "$newer/ocloc" ]; then
        for name in bmg-g21 bmg-g31 lnl-m ptl-h; do target "$newer/ocloc" $name 16; done
    else
        echo "recent GPUs are left out, their compiler cannot be had: $(tail -n 1 "$work/setup")"
    fi
fi

{
    printf 'file\tkernel\ttarget\tsimd\tregisters\tspill_bytes\tscratch_bytes\tdpas\tblock_loads\tslm_bytes\tinstructions\tcalls\n'
    sort "$table"
} >"$BUILD/xpu-offline.tsv"
awk -F '\t' '
    FILENAME ~ /expected/ { if ($0 !~ /^#/ && split($0, f, " ") == 3) { dpas[f[1]] = f[2]; block[f[1]] = f[3]; has[f[1]] = 1 } next }
    FILENAME ~ /known/    { if ($0 !~ /^#/ && split($0, f, " ") == 2) known[f[1], f[2]] = 1; next }
    FNR == 1 { next }
    function bad(what) {
        if ((($2, $3) in known) || (($2, "*") in known)) { print "known " $2 " on " $3 ": " what; return }
        print "FAIL " $2 " on " $3 ": " what
        failed++
    }
    {
        n++
        x = $1 ~ /_xmx$/
        if ($6 > 0) bad($6 " bytes of registers spilled")
        if ($7 > 0) bad($7 " bytes of an item\047s own memory outside the registers")
        if ($12 > 0) bad($12 " calls")
        if (x && !($2 in has)) bad("not in tests/xpu/expected.txt")
        if ($2 in has && $8 < dpas[$2]) bad($8 " dpas, at least " dpas[$2] " expected")
        if ($2 in has && $9 < block[$2]) bad($9 " block loads, at least " block[$2] " expected")
        if ($10 > (x ? 65536 : 32768)) bad($10 " bytes of local memory")
        if ($2 in has && dpas[$2] > 0 && $4 != ($3 ~ /^dg2/ ? 8 : 16)) bad("sub-groups of " $4)
    }
    END { print n + 0 " kernels compiled, " failed + 0 " failures"; exit n == 0 || failed > 0 }
    ' tests/xpu/expected.txt tests/xpu/known.txt "$BUILD/xpu-offline.tsv" || : >"$work/failed"
[ ! -e "$work/failed" ]
