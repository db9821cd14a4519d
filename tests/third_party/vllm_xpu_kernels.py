"""Runs the tests of a vllm-xpu-kernels checkout on gdn.torch; vllm_xpu_kernels.sh says how.

A failure is sorted by its reason:

    older_conv_convention  conv_state has W - 1 rows where drafts need W - 2 + K: before one line a
                           sequence came, every draft had a window of its own.  These tests run a
                           second time, with that convention put on top (vllm_xpu_plugin.py).
    other_operator         the test calls an operator that this library does not have
    other_arguments        the test calls with the argument list of another time
    own                    anything else: ours to explain"""
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(HERE, "..", "..", "python")
REASONS = (
    ("older_conv_convention", r"conv_state has \d+ rows a slot, need \d+"),
    ("other_operator", r"'_OpNamespace' '_xpu_C' object has no attribute|No module named 'vllm"),
    ("other_arguments", r"missing value for argument|Unknown keyword argument|expected at most"),
)
# Other extensions that shared helpers of the suite may import; nothing is in them.
EXTENSIONS = ("_C", "_moe_C", "_vllm_fa2_C")


def prepare(checkout, root):
    """The suite's Python files below root, for the CPU, and a package that stands for theirs."""
    for folder, _, names in os.walk(os.path.join(checkout, "tests")):
        target = os.path.join(root, os.path.relpath(folder, checkout))
        os.makedirs(target, exist_ok=True)
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    text = re.sub(r"""(["'])xpu(:\d+)?\1""", '"cpu"', f.read())
                with open(os.path.join(target, name), "w", encoding="utf-8") as f:
                    f.write(text)
    package = os.path.join(root, "stand-in", "vllm_xpu_kernels")
    os.makedirs(package)
    for name in ("__init__",) + EXTENSIONS:
        open(os.path.join(package, name + ".py"), "w", encoding="ascii").close()
    with open(os.path.join(package, "_xpu_C.py"), "w", encoding="ascii") as f:
        f.write("import gdn.torch\n")
    folder = os.path.join(root, "tests", "gdn_attn")
    if not os.path.isdir(folder):
        sys.exit("%s has no tests/gdn_attn" % checkout)
    # Kimi's delta attention is another operator.
    return sorted("tests/gdn_attn/" + name for name in os.listdir(folder)
                  if name.startswith("test_") and name.endswith(".py") and "kda" not in name)


def run(root, files, arguments, only=None, older_conv=False):
    """[{test, outcome, reason}] of one run of pytest; only: these tests."""
    results, chosen = os.path.join(root, "results.json"), os.path.join(root, "only.json")
    env = dict(os.environ, GDN_PLUGIN_RESULTS=results, GDN_PLUGIN_OLDER_CONV=str(int(older_conv)))
    env["PYTHONPATH"] = os.pathsep.join(
        [os.path.join(root, "stand-in"), HERE, PACKAGE, env.get("PYTHONPATH", "")])
    if only is not None:
        with open(chosen, "w", encoding="utf-8") as f:
            json.dump(only, f)
        env["GDN_PLUGIN_ONLY"] = chosen
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "vllm_xpu_plugin",
                    "-p", "no:cacheprovider", "--rootdir", root, *files, *arguments],
                   cwd=root, env=env, check=False, stdout=sys.stderr)
    if not os.path.exists(results):
        sys.exit("pytest did not get as far as running tests")
    with open(results, encoding="utf-8") as f:
        found = json.load(f)
    os.remove(results)
    return found


def why(reason):
    for name, pattern in REASONS:
        if re.search(pattern, reason):
            return name
    return "own"


def versions():
    import numpy
    import torch
    sys.path.insert(0, PACKAGE)
    import gdn
    return {"gdn": gdn.library_version(), "torch": torch.__version__, "numpy": numpy.__version__,
            "python": platform.python_version(), "machine": platform.machine()}


def commit_of(checkout):
    """Its commit; {file: commit} where the working copy is put together from several of them and
    says so in commits.json."""
    parts = os.path.join(checkout, "commits.json")
    if os.path.exists(parts):
        with open(parts, encoding="utf-8") as f:
            return json.load(f)
    done = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True,
                          text=True, check=False)
    return done.stdout.strip() or None


def main(checkout, out, *arguments):
    began = time.time()
    with tempfile.TemporaryDirectory() as root:
        root = os.path.realpath(root)
        files = prepare(checkout, root)
        found = run(root, files, arguments)
        failures = [dict(r, why=why(r["reason"])) for r in found if r["outcome"] == "failed"]
        older = [r["test"] for r in failures if r["why"] == "older_conv_convention"]
        again = run(root, files, arguments, older, True) if older else []
    count = {name: sum(r["outcome"] == name for r in found)
             for name in ("passed", "failed", "skipped")}
    by_reason = {name: sum(r["why"] == name for r in failures)
                 for name in [name for name, _ in REASONS] + ["own"]}
    older_failed = [r for r in again if r["outcome"] != "passed"]
    report = {
        "suite": {"name": "vllm-xpu-kernels tests/gdn_attn", "commit": commit_of(checkout),
                  "files": files, "arguments": list(arguments)},
        "versions": versions(), "seconds": round(time.time() - began),
        **count, "failed_because": by_reason,
        "older_conv_convention_rerun": {"passed": len(again) - len(older_failed),
                                        "failed": len(older_failed)},
        "failures": [{"test": r["test"], "why": r["why"], "reason": r["reason"][-400:]}
                     for r in failures + [dict(r, why="own") for r in older_failed]],
    }
    with open(out, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
        f.write("\n")
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % count)
    for name, n in by_reason.items():
        if n:
            print("  %d failed because: %s" % (n, name))
    if older:
        print("  with the older convention put on top: %d of %d pass"
              % (len(again) - len(older_failed), len(older)))
    print(out)
    return 1 if by_reason["own"] or older_failed or not count["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
