"""Runs the tests of a vllm-xpu-kernels checkout on gdn.torch; vllm_xpu_kernels.sh says how.

A failure is sorted by its reason:

    older_conv_convention  conv_state has W - 1 rows where drafts need W - 2 + K: before one line a
                           sequence came, every draft had a window of its own.  These tests run a
                           second time, with that convention put on top (vllm_xpu_plugin.py).
    other_operator         the test calls an operator that this library does not have
    other_arguments        the test calls with the argument list of another time
    memory                 its tensors do not fit into this machine
    own                    anything else: ours to explain

STATE names a folder that keeps each result as it comes: a run that was cut short goes on there, and
reports what is there when it is stopped.  JOBS is the number of processes that share the tests."""
import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(HERE, "..", "..", "python")
REASONS = (
    ("older_conv_convention", r"conv_state has \d+ rows a slot, need \d+"),
    ("other_operator", r"'_OpNamespace' '_xpu_C' object has no attribute|No module named 'vllm"),
    ("other_arguments", r"missing value for argument|Unknown keyword argument|expected at most"),
    ("memory", r"not enough memory|MemoryError"),
)
OUTCOMES = ("passed", "failed", "skipped")
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


def keep_for(state, root):
    """Makes the folder, or finds that it is of the same tests on the same library."""
    parts = hashlib.sha256()
    sources = [os.environ["GDN_LIBRARY"]]
    for top in (os.path.join(root, "tests"), os.path.join(PACKAGE, "gdn")):
        for folder, _, names in os.walk(top):
            sources += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    for path in sources[:1] + sorted(sources[1:]):
        with open(path, "rb") as f:
            parts.update(hashlib.sha256(f.read()).digest())
    os.makedirs(state, exist_ok=True)
    mark = os.path.join(state, "sha256")
    if not os.path.exists(mark):
        with open(mark, "w", encoding="ascii") as f:
            f.write(parts.hexdigest())
    with open(mark, encoding="ascii") as f:
        if f.read() != parts.hexdigest():
            sys.exit("%s has results of other tests or of another library" % state)


def run(root, state, files, arguments, only=None, older_conv=False):
    """({test: {test, outcome, reason}}, tests that were not run) of what is selected; only: these
    tests."""
    jobs = int(os.environ.get("JOBS", "1"))
    os.makedirs(state, exist_ok=True)
    env = dict(os.environ, GDN_PLUGIN_STATE=state, GDN_PLUGIN_OLDER_CONV=str(int(older_conv)))
    env["PYTHONPATH"] = os.pathsep.join(
        [os.path.join(root, "stand-in"), HERE, PACKAGE, env.get("PYTHONPATH", "")])
    if only is not None:
        env["GDN_PLUGIN_ONLY"] = os.path.join(state, "only.json")
        with open(env["GDN_PLUGIN_ONLY"], "w", encoding="utf-8") as f:
            json.dump(only, f)
    env["GDN_PLUGIN_KNOWN"] = os.path.join(state, "known.json")
    with open(env["GDN_PLUGIN_KNOWN"], "w", encoding="utf-8") as f:
        json.dump(list(results(state)), f)
    selected = os.path.join(state, "selected.json")
    if os.path.exists(selected):
        os.remove(selected)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "vllm_xpu_plugin", "-p",
               "no:cacheprovider", "--rootdir", root, *files, *arguments]
    running = [subprocess.Popen(command, cwd=root, stdout=sys.stderr,
                                env=dict(env, GDN_PLUGIN_PART="%d/%d" % (part, jobs)))
               for part in range(jobs)]
    try:
        for process in running:
            process.wait()
    except KeyboardInterrupt:
        for process in running:
            process.terminate()
            process.wait()
    if not os.path.exists(selected):
        sys.exit("pytest did not get as far as running tests")
    with open(selected, encoding="utf-8") as f:
        tests = json.load(f)
    found = results(state)
    broken = {name: r for name, r in found.items() if "::" not in name}
    return ({**broken, **{name: found[name] for name in tests if name in found}},
            [name for name in tests if name not in found])


def results(state):
    """{test: result} of every run that used this folder."""
    found = {}
    for name in sorted(os.listdir(state)):
        if name.endswith(".jsonl"):
            with open(os.path.join(state, name), encoding="utf-8") as f:
                for line in f:
                    try:
                        result = json.loads(line)
                    except ValueError:
                        continue  # its writer was stopped
                    found[result["test"]] = result
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


def by_file(found, not_run):
    table = {}
    for name, outcome in [(name, r["outcome"]) for name, r in found.items()] + [
            (name, "not_run") for name in not_run]:
        row = table.setdefault(name.partition("::")[0], dict.fromkeys((*OUTCOMES, "not_run"), 0))
        row[outcome] += 1
    return table


def skipped_because(found):
    """{the suite's reason: number of tests}"""
    count = {}
    for r in found.values():
        if r["outcome"] == "skipped":
            reason = re.sub(r".*Skipped: (.*?)['\"]\)$", r"\1", r["reason"], flags=re.DOTALL)
            count[reason] = count.get(reason, 0) + 1
    return count


def main(checkout, out, *arguments):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as root:
        root = os.path.realpath(root)
        files = prepare(checkout, root)
        state = os.environ.get("STATE") or os.path.join(root, "state")
        keep_for(state, root)
        found, not_run = run(root, state, files, arguments)
        failures = [dict(r, why=why(r["reason"])) for r in found.values()
                    if r["outcome"] == "failed"]
        older = [r["test"] for r in failures if r["why"] == "older_conv_convention"]
        again, older_state = {}, os.path.join(state, "older")
        if older and not not_run:
            again, again_not_run = run(root, older_state, files, arguments, older, True)
            not_run += [name + " (older convention)" for name in again_not_run]
        elif older and os.path.isdir(older_state):  # stopped: no more than what is there
            kept = results(older_state)
            again = {name: kept[name] for name in older if name in kept}
    count = {name: sum(r["outcome"] == name for r in found.values()) for name in OUTCOMES}
    by_reason = {name: sum(r["why"] == name for r in failures)
                 for name in [name for name, _ in REASONS] + ["own"]}
    older_failed = [r for r in again.values() if r["outcome"] != "passed"]
    report = {
        "suite": {"name": "vllm-xpu-kernels tests/gdn_attn", "commit": commit_of(checkout),
                  "files": files, "arguments": list(arguments)},
        "versions": versions(),
        **count, "not_run": len(not_run), "by_file": by_file(found, not_run),
        "failed_because": by_reason, "skipped_because": skipped_because(found),
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
    if again:
        print("  with the older convention put on top: %d of %d pass"
              % (len(again) - len(older_failed), len(older)))
    if not_run:
        print("  %d not run" % len(not_run))
    print(out)
    return 1 if by_reason["own"] or older_failed or not_run or not count["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
