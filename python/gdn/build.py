"""python -m gdn.build [SOURCES]: build libgdn.so.0 with make and put it beside this package.

In a checkout the package finds the library in build/, and nothing is copied."""
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SONAME = "libgdn.so.0"


def find_sources(named):
    places = [named] if named else [os.path.dirname(os.path.dirname(HERE)), os.getcwd()]
    for place in places:
        if os.path.exists(os.path.join(place, "include", "gdn", "op.h")):
            return os.path.abspath(place)
    sys.exit("gdn.build: no sources of gdn in %s; say where they are: python -m gdn.build PATH"
             % " or ".join(places))


def main(arguments):
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        sys.exit(__doc__)
    root = find_sources(arguments[0] if arguments else None)
    build = os.path.join(root, "build")
    with open(os.path.join(root, "Makefile"), encoding="utf-8") as f:
        version = next(line.split("=")[1].strip() for line in f if line.startswith("VERSION"))
    made = subprocess.run(["make", "-s", "-C", root, "-j%d" % (os.cpu_count() or 1),
                           "BUILD=build", "build/libgdn.so." + version], check=False)
    if made.returncode != 0:
        sys.exit("gdn.build: make failed in %s; `./do install` there says which packages it needs"
                 % root)
    built = os.path.join(build, SONAME)
    if os.path.dirname(HERE) != os.path.join(root, "python"):
        shutil.copy(built, os.path.join(HERE, SONAME))
        built = os.path.join(HERE, SONAME)
    print(built)


if __name__ == "__main__":
    main(sys.argv[1:])
