"""python structs.py CC INCLUDE: sizes and offsets of the ctypes structures are the compiler's."""
import os
import subprocess
import sys
import tempfile

from gdn import _lib


def main(compiler, include):
    lines, ours = [], []
    for name, structure in _lib.STRUCTURES.items():
        lines.append('printf("%s %%zu\\n", sizeof(%s));' % (name, name))
        ours.append("%s %d" % (name, _lib.ctypes.sizeof(structure)))
        for field, *_ in structure._fields_:
            lines.append('printf("%s.%s %%zu\\n", offsetof(%s, %s));' % (name, field, name, field))
            ours.append("%s.%s %d" % (name, field, getattr(structure, field).offset))
    for constant in ("F32", "BF16", "F16", "F8", "I32", "U8", "CONV_STATE_SD", "CONV_STATE_DS",
                     "FORM_RECURRENT", "FORM_CHUNKED", "GATE_SILU", "GATE_SIGMOID", "MAX_DIM"):
        lines.append('printf("%s %%d\\n", (int)GDN_%s);' % (constant, constant))
        ours.append("%s %d" % (constant, getattr(_lib, constant)))
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "a.c"), os.path.join(folder, "a.out")
        with open(source, "w", encoding="ascii") as f:
            f.write("#include <gdn/op.h>\n#include <stddef.h>\n#include <stdio.h>\n"
                    "int main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n")
        subprocess.run([compiler, "-I", include, "-o", program, source], check=True)
        theirs = subprocess.run([program], check=True, capture_output=True,
                                text=True).stdout.splitlines()
    differ = [(a, b) for a, b in zip(ours, theirs) if a != b]
    for a, b in differ:
        print("FAIL the package has %s, the compiler %s" % (a, b))
    print("%d sizes, offsets and constants, %d differ" % (len(ours), len(differ)))
    return 1 if differ or len(ours) != len(theirs) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
