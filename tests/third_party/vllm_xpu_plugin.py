"""pytest plugin of vllm_xpu_kernels.py: notes results, makes torch.xpu's waits do nothing, and can
put the older convention for drafts on top of gdn.torch.

In that convention a draft's window, the last W - 1 inputs, is stored in the slot of its own column,
and history is read from the slot of the last accepted one.

GDN_PLUGIN_STATE is a folder: what is selected goes to selected.json, and the result of each test,
when it is there, is a line of results.I.jsonl.  GDN_PLUGIN_PART, "I/N": every Nth test, those of few
tokens first.  GDN_PLUGIN_ONLY and GDN_PLUGIN_KNOWN name lists of tests: to run no others, and not
these."""
import contextlib
import json
import os

import pytest
import torch

STATE = os.environ["GDN_PLUGIN_STATE"]
PART, PARTS = map(int, os.environ["GDN_PLUGIN_PART"].split("/"))


def pytest_configure(config):
    for name in ("synchronize", "empty_cache", "manual_seed", "manual_seed_all"):
        setattr(torch.xpu, name, lambda *_, **__: None)
    torch.xpu.Stream = lambda *_, **__: None
    torch.xpu.stream = lambda *_: contextlib.nullcontext()
    if os.environ.get("GDN_PLUGIN_OLDER_CONV") == "1":
        older_convention()


def listed(variable):
    with open(os.environ[variable], encoding="utf-8") as f:
        return set(json.load(f))


def note(test, outcome, reason):
    with open(os.path.join(STATE, "results.%d.jsonl" % PART), "a", encoding="utf-8") as f:
        f.write(json.dumps({"test": test, "outcome": outcome, "reason": reason}) + "\n")


def tokens(item):
    return item.callspec.params.get("num_actual_tokens", 0) if hasattr(item, "callspec") else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if "GDN_PLUGIN_ONLY" in os.environ:
        only = listed("GDN_PLUGIN_ONLY")
        items[:] = [item for item in items if item.nodeid in only]
    if PART == 0:
        with open(os.path.join(STATE, "selected.json"), "w", encoding="utf-8") as f:
            json.dump([item.nodeid for item in items], f)
    known = listed("GDN_PLUGIN_KNOWN")
    items[:] = [item for item in sorted(items, key=tokens) if item.nodeid not in known]
    items[:] = items[PART::PARTS]


def reason_of(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else str(report.longrepr)


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        note(report.nodeid, report.outcome, "" if report.passed else reason_of(report))


def pytest_collectreport(report):
    if report.failed:
        note(report.nodeid, "failed", reason_of(report))


def older_convention():
    import gdn.torch

    def wrap(name, arguments):
        inner, trace = gdn.torch.OPERATORS[name]

        def call(*args):
            a = dict(zip(arguments, args))
            slots, state = a["spec_state_indices_tensor"], a["conv_state"]
            if slots is None or not a["num_spec_decodes"]:
                return inner(*args)
            slots = slots[:a["num_spec_decodes"]].long()
            width, columns = a["conv_weights"].shape[1], slots.shape[1]
            lines = state.new_zeros(state.shape[0], width - 2 + columns, state.shape[2])
            lines[:, :width - 1] = state[:, :width - 1]
            first = (a["num_accepted_tokens"][:len(slots)].long() - 1).clamp(min=0)
            for s, at in enumerate(first.tolist()):
                lines[slots[s, 0], at:at + width - 1] = state[slots[s, at], :width - 1]
            a["conv_state"] = lines
            result = inner(*a.values())
            drafts = set(slots.flatten().tolist())
            for slot in range(len(state)):
                if slot not in drafts:
                    state[slot, :width - 1] = lines[slot, :width - 1]
            for s in range(len(slots)):
                for t in range(columns):
                    state[slots[s, t], :width - 1] = lines[slots[s, 0], t:t + width - 1]
            return result

        gdn.torch.OPERATORS[name] = (call, trace)

    for name in ("gdn_attention", "causal_conv1d_spec"):
        schema = getattr(torch.ops._xpu_C, name).default._schema
        wrap(name, [argument.name for argument in schema.arguments])
