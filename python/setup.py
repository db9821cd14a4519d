"""Takes a library that `make` has built already into the package; builds nothing itself."""
import os
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

BUILT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "libgdn.so.0")


class WithLibrary(build_py):
    def run(self):
        super().run()
        if os.path.exists(BUILT) and not getattr(self, "editable_mode", False):
            shutil.copy(BUILT, os.path.join(self.build_lib, "gdn", "libgdn.so.0"))


commands = {"build_py": WithLibrary}
try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1 has it in another package
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:
        bdist_wheel = None

if bdist_wheel is not None:

    class PlatformWheel(bdist_wheel):
        """A wheel with a library in it is for this platform, for any Python."""

        def finalize_options(self):
            super().finalize_options()
            if os.path.exists(BUILT):
                self.root_is_pure = False

        def get_tag(self):
            python, abi, platform = super().get_tag()
            return ("py3", "none", platform) if os.path.exists(BUILT) else (python, abi, platform)

    commands["bdist_wheel"] = PlatformWheel

setup(cmdclass=commands)
