# isa.awk - a line for a kernel's assembly, as IGC dumps it:
#
#     kernel simd registers spilled-bytes dpas block-loads calls instructions
#
# simd comes from the name of the file.
/^\/\/\.kernel /        { kernel = $2 }
/^\/\/\.thread_config / { if (match($0, /numGRF=[0-9]+/)) grf = substr($0, RSTART + 7, RLENGTH - 7) }
/^\/\/\.spill size /    { spill = $3 }
/^\/\/\.instCount /     { count = $2 }
/^\/\//                 { next }
/(^|[ \t])dpas[w]?\./   { dpas++ }
/(^|[ \t])calla?([ \t]|\()/ { calls++ }
# Transposed loads of many words, 2D blocks, and what older units call block reads.
/load\.(ugm|slm)\.d(32|64)x(8|16|32|64)t\.a/ || /load_block2d\./ || /block read/ { blocks++ }
END {
    simd = FILENAME
    sub(/.*_simd/, "", simd)
    sub(/_.*/, "", simd)
    print kernel, simd, grf, spill + 0, dpas + 0, blocks + 0, calls + 0, count
}
