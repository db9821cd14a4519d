"""pytest plugin of vllm_xpu_kernels.py: notes results, makes torch.xpu's waits do nothing, and can
put the older convention for drafts on top of gdn.torch.

In that convention a draft's window, the last W - 1 inputs, is stored in the slot of its own column,
and history is read from the slot of the last accepted one."""
import contextlib
import json
import os

import torch

found = []


def pytest_configure(config):
    for name in ("synchronize", "empty_cache", "manual_seed", "manual_seed_all"):
        setattr(torch.xpu, name, lambda *_, **__: None)
    torch.xpu.Stream = lambda *_, **__: None
    torch.xpu.stream = lambda *_: contextlib.nullcontext()
    if os.environ.get("GDN_PLUGIN_OLDER_CONV") == "1":
        older_convention()


def pytest_collection_modifyitems(config, items):
    path = os.environ.get("GDN_PLUGIN_ONLY")
    if path:
        with open(path, encoding="utf-8") as f:
            chosen = set(json.load(f))
        items[:] = [item for item in items if item.nodeid in chosen]


def reason_of(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else str(report.longrepr)


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        reason = "" if report.outcome == "passed" else reason_of(report)
        found.append({"test": report.nodeid, "outcome": report.outcome, "reason": reason})


def pytest_collectreport(report):
    if report.outcome == "failed":
        found.append({"test": report.nodeid, "outcome": "failed", "reason": reason_of(report)})


def pytest_sessionfinish(session):
    with open(os.environ["GDN_PLUGIN_RESULTS"], "w", encoding="utf-8") as f:
        json.dump(found, f)


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
