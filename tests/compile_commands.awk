# Turn the compile lines of `make -Bn` into a compilation database.
function quoted(s) {
    gsub(/\\/, "\\\\", s)
    gsub(/"/, "\\\"", s)
    return "\"" s "\""
}
BEGIN { printf "[" }
/ -c -o [^ ]+ [^ ]+\.c$/ {
    printf "%s\n{\"directory\": %s, \"file\": %s,\n \"command\": %s}", sep, quoted(dir), quoted($NF), quoted($0)
    sep = ","
}
END { print "\n]" }
