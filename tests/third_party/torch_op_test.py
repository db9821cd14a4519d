"""The operator and its two stages against float64 over a grid of calls, through numpy and, where
PyTorch is there, through torch.ops._xpu_C.

    python torch_op_test.py [numpy] [torch]"""
import importlib.util
import sys

import numpy as np

import gdn
import reference

NUMPY = {"f32": np.float32, "f16": np.float16}


class Report:
    def __init__(self):
        self.checks, self.failed, self.what = 0, 0, ""

    def fail(self, text):
        self.failed += 1
        if self.failed <= 20:
            print("FAIL %s: %s" % (self.what, text))

    def expect(self, ok, text):
        self.checks += 1
        if not ok:
            self.fail(text)


def name_of(c, path):
    return "%s %s/%s %s %s %s %s" % (path, c["act"], c["state"], c["mode"],
                                     "parts" if c["reorder"] else "groups",
                                     "bias" if c["conv_bias"] is not None else "no bias",
                                     (c["nk"], c["nv"], c["dk"], c["dv"]))


# --- numpy ----------------------------------------------------------------------------------------


def encode(x, kind):
    """As an array of the type; bf16 as its bits."""
    if kind == "bf16":
        return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return x.astype(NUMPY[kind])


def decode(x):
    if x.dtype == np.uint16:
        x = (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float64)


def typed(x):
    return gdn.as_type(x, "bf16") if x is not None and x.dtype == np.uint16 else x


def numpy_arrays(c):
    return {name: None if c[name] is None else encode(c[name], kind)
            for name, kind in c["kinds"].items()}


def numpy_fused(c, layout, form="recurrent"):
    t = numpy_arrays(c)
    if layout == "DS":
        t["conv_state"] = np.ascontiguousarray(t["conv_state"].swapaxes(1, 2))
    gdn.attention(
        **{name: typed(x) for name, x in t.items()}, has_initial_state=c["has_state"],
        non_spec_query_start_loc=c["start"], non_spec_token_indx=c["token"],
        non_spec_state_indices=c["slot"], spec_query_start_loc=c["spec_start"],
        spec_token_indx=c["spec_token"], spec_state_indices=c["spec_slot"],
        num_accepted_tokens=c["accepted"], n_k_head=c["nk"], n_v_head=c["nv"], dk=c["dk"],
        dv=c["dv"], num_actual_tokens=c["tokens"], null_slot=c["null_slot"],
        reorder_input=c["reorder"], conv_layout=layout, form=form)
    if layout == "DS":
        t["conv_state"] = t["conv_state"].swapaxes(1, 2)
    return t


def numpy_stages(c):
    t = numpy_arrays(c)
    sizes = {"n_k_head": c["nk"], "n_v_head": c["nv"], "dk": c["dk"], "dv": c["dv"]}
    a = {name: typed(x) for name, x in t.items()}
    groups = []
    if c["n_draft"]:
        groups.append({"query_start_loc": c["spec_start"], "token_indx": c["spec_token"],
                       "state_indices": c["spec_slot"], "num_accepted_tokens": c["accepted"]})
    if c["n_plain"]:
        groups.append({"query_start_loc": c["start"], "token_indx": c["token"],
                       "state_indices": c["slot"], "has_initial_state": c["has_state"]})
    for group in groups:
        group.update(num_actual_tokens=c["tokens"], null_slot=c["null_slot"])
        q, k, v, b, a_, _ = gdn.causal_conv1d(
            a["qkvz"], a["ba"], a["conv_state"], a["conv_weights"], conv_bias=a.get("conv_bias"),
            z=a["z"], reorder_input=c["reorder"], **sizes, **group)
        gdn.delta_rule(*map(typed, (q, k, v, b, a_)), a["A_log"], a["dt_bias"], a["ssm_state"],
                       core=a["core"], **group)
    return t


def numpy_grid(report):
    rng = np.random.default_rng(1)
    for c in reference.grid(rng):
        want = reference.attention(c)
        for layout in ("SD", "DS"):
            report.what = name_of(c, "numpy " + layout)
            report.checks += 1
            fused = numpy_fused(c, layout)
            reference.compare(c, {k: decode(fused[k]) for k in want}, want, report.fail)
        report.what = name_of(c, "numpy chunked")
        report.checks += 1
        chunked = numpy_fused(c, "SD", "chunked")
        reference.compare(c, {k: decode(chunked[k]) for k in want}, want, report.fail,
                          reference.CHUNKED_BOUND)
        report.what = name_of(c, "numpy stages")
        split = numpy_stages(c)
        for name in want:
            report.expect(split[name].tobytes() == fused[name].tobytes(),
                          name + " is not that of the whole operator")


# --- torch ----------------------------------------------------------------------------------------


def torch_tensors(c):
    import torch
    kinds = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    t = {name: None if c[name] is None else
         torch.from_numpy(c[name].astype(np.float32)).to(kinds[kind])
         for name, kind in c["kinds"].items()}
    for name in ("start", "token", "slot", "has_state", "spec_start", "spec_token", "spec_slot",
                 "accepted"):
        t[name] = None if c[name] is None else torch.from_numpy(np.ascontiguousarray(c[name]))
    return t


def counts(c):
    return {"num_prefills": c["n_plain"], "num_decodes": 0, "num_spec_decodes": c["n_draft"]}


def torch_fused(ops, c, t):
    ops.gdn_attention(
        t["core"], t["z"], t["qkvz"], t["ba"], c["nk"], c["nv"], c["dk"], c["dv"],
        conv_state=t["conv_state"], ssm_state=t["ssm_state"], conv_weights=t["conv_weights"],
        conv_bias=t.get("conv_bias"), activation="silu", A_log=t["A_log"], dt_bias=t["dt_bias"],
        **counts(c), has_initial_state=t["has_state"], non_spec_query_start_loc=t["start"],
        non_spec_token_indx=t["token"], non_spec_state_indices_tensor=t["slot"],
        spec_query_start_loc=t["spec_start"], spec_token_indx=t["spec_token"],
        spec_state_indices_tensor=t["spec_slot"], num_accepted_tokens=t["accepted"],
        num_actual_tokens=c["tokens"], tp_size=1, reorder_input=c["reorder"])


def torch_stages(ops, c, t):
    sizes = (c["nk"], c["nv"], c["dk"], c["dv"])
    groups = []
    if c["n_draft"]:
        groups.append((ops.causal_conv1d_spec, ops.gated_delta_rule_spec, {
            "spec_query_start_loc": t["spec_start"], "spec_token_indx": t["spec_token"],
            "spec_state_indices_tensor": t["spec_slot"], "num_accepted_tokens": t["accepted"]}))
    if c["n_plain"]:
        groups.append((ops.causal_conv1d_non_spec, ops.gated_delta_rule_non_spec, {
            "has_initial_state": t["has_state"], "non_spec_query_start_loc": t["start"],
            "non_spec_token_indx": t["token"], "non_spec_state_indices_tensor": t["slot"]}))
    for conv, delta, group in groups:
        group.update(counts(c), num_actual_tokens=c["tokens"], tp_size=1)
        parts = conv(t["z"], t["qkvz"], t["ba"], *sizes, conv_state=t["conv_state"],
                     conv_weights=t["conv_weights"], conv_bias=t.get("conv_bias"),
                     activation="swish", reorder_input=c["reorder"], **group)
        delta(t["core"], *parts, c["nv"], c["dv"], A_log=t["A_log"], dt_bias=t["dt_bias"],
              ssm_state=t["ssm_state"], **group)


def same_bits(x, y):
    import torch
    return torch.equal(x.contiguous().view(torch.uint8), y.contiguous().view(torch.uint8))


def torch_grid(report):
    import torch
    import gdn.torch
    ops = torch.ops._xpu_C
    rng = np.random.default_rng(2)
    with torch.inference_mode():
        for c in reference.grid(rng):
            want, t = reference.attention(c), torch_tensors(c)
            gdn.torch.null_slot = c["null_slot"]
            report.what = name_of(c, "torch fused")
            report.checks += 1
            torch_fused(ops, c, t)
            reference.compare(c, {k: t[k].double().numpy() for k in want}, want, report.fail)
            report.what = name_of(c, "torch stages")
            split = torch_tensors(c)
            torch_stages(ops, c, split)
            for name in want:
                report.expect(same_bits(split[name], t[name]),
                              name + " is not that of the fused operator")
    gdn.torch.null_slot = -1


def torch_layouts(report):
    """The four ways in which a pool of convolution states can be handed over."""
    import torch
    ops = torch.ops._xpu_C
    for c in reference.grid(np.random.default_rng(3)):
        if c["mode"] != "mixed" or c["act"] != "f16" or c["conv_bias"] is None:
            continue
        want = torch_tensors(c)
        torch_fused(ops, c, want)
        for how in ("SD seen as [slots, C, L]", "DS", "DS seen as [slots, L, C]"):
            report.what = name_of(c, "torch conv_state " + how)
            t = torch_tensors(c)
            pool = t["conv_state"]
            if how.startswith("SD"):
                t["conv_state"] = pool.transpose(1, 2)
            else:
                pool = pool.transpose(1, 2).contiguous()
                t["conv_state"] = pool if how == "DS" else pool.transpose(1, 2)
                pool = pool.transpose(1, 2)
            torch_fused(ops, c, t)
            report.expect(same_bits(pool, want["conv_state"]), "conv_state differs")
            report.expect(same_bits(t["core"], want["core"]), "core differs")


def torch_padded(report):
    """Metadata longer than the counts say, as captured graphs have it, changes nothing."""
    import torch
    ops = torch.ops._xpu_C
    for mode in ("prefill", "spec", "mixed"):
        c = reference.random_call(np.random.default_rng(6), "bf16", "bf16", mode, True, False)
        for run in (torch_fused, torch_stages):
            report.what = name_of(c, "torch padded metadata, " + run.__name__)
            want, t = torch_tensors(c), torch_tensors(c)
            for name in ("start", "slot", "has_state", "spec_start", "spec_slot", "accepted"):
                if t[name] is not None:
                    junk = torch.full((2,) + t[name].shape[1:], 99).to(t[name].dtype)
                    t[name] = torch.cat([t[name], junk])
            run(ops, c, want)
            run(ops, c, t)
            for name in ("core", "z", "conv_state", "ssm_state"):
                report.expect(same_bits(t[name], want[name]), name + " differs")


def torch_schemas(report):
    """PyTorch's own check: what is written is declared, and tracing gives the same shapes."""
    import torch
    ops = torch.ops._xpu_C
    c = reference.random_call(np.random.default_rng(7), "f32", "f32", "mixed", True, True)
    t = torch_tensors(c)
    calls = []

    class Noted:
        def __getattr__(self, name):
            def call(*args, **named):
                calls.append((getattr(ops, name).default, args, named))
                return getattr(ops, name)(*args, **named)
            return call

    torch_fused(Noted(), c, t)
    torch_stages(Noted(), c, t)
    report.expect(len(calls) == 5, "%d operators were called" % len(calls))
    for operator, args, named in calls:
        report.what = "torch schema of %s" % operator
        report.checks += 1
        try:
            torch.library.opcheck(operator, args, named,
                                  test_utils=("test_schema", "test_faketensor"))
        except Exception as e:
            report.fail(str(e)[:300])


def torch_refusals(report):
    """Wrong arguments are named, and nothing is written."""
    import torch
    ops = torch.ops._xpu_C
    c = reference.random_call(np.random.default_rng(4), "bf16", "f32", "mixed", True, True)
    wrong = {
        "A_log has type torch.bfloat16": lambda t: t.update(A_log=t["A_log"].bfloat16()),
        "dt_bias has type torch.float32": lambda t: t.update(dt_bias=t["dt_bias"].float()),
        "conv_state has type": lambda t: t.update(conv_state=t["conv_state"].float()),
        "has_initial_state has type": lambda t: t.update(has_state=t["has_state"].int()),
        "non_spec_query_start_loc has type torch.int64":
            lambda t: t.update(start=t["start"].long()),
        "non_spec_state_indices_tensor has shape [2]; need 4":
            lambda t: t.update(slot=t["slot"][:2]),
        "conv_state has 3 rows a slot, need 5":
            lambda t: t.update(conv_state=t["conv_state"][:, :3]),
        "num_accepted_tokens[0] is 4": lambda t: t["accepted"].fill_(4),
    }
    for words, spoil in wrong.items():
        report.what = "torch refusal"
        t = torch_tensors(c)
        spoil(t)
        before = {name: t[name].clone() for name in ("core", "z", "conv_state", "ssm_state")}
        try:
            torch_fused(ops, c, t)
            report.fail("accepted, expected: " + words)
        except RuntimeError as e:
            report.expect(words in str(e), "\"%s\", expected: %s" % (e, words))
        for name, x in before.items():
            report.expect(same_bits(x, t[name]), "%s: %s was written" % (words, name))


def torch_tracing(report):
    """The same bits through torch.compile, without its code generator.

    A schema that writes arguments and returns Tensor[], as the convolution's does, is traced, but
    PyTorch cannot make it functional, which only later backends need."""
    import torch
    ops = torch.ops._xpu_C
    c = reference.random_call(np.random.default_rng(5), "bf16", "f32", "mixed", True, True)
    want, t, split = torch_tensors(c), torch_tensors(c), torch_tensors(c)
    torch_fused(ops, c, want)

    def layer(t, run):
        run(ops, c, t)
        return t["core"] * 2

    for backend, tensors, run in (("aot_eager", t, torch_fused), ("eager", split, torch_stages)):
        report.what = "torch.compile " + run.__name__
        compiled = torch.compile(layer, backend=backend, fullgraph=True)
        result = compiled(tensors, run)
        report.expect(same_bits(result, want["core"] * 2), "the result differs")
        for name in ("core", "z", "conv_state", "ssm_state"):
            report.expect(same_bits(tensors[name], want[name]), name + " differs")


def main(parts):
    report = Report()
    have_torch = importlib.util.find_spec("torch") is not None
    if not parts or "numpy" in parts:
        numpy_grid(report)
    if have_torch and (not parts or "torch" in parts):
        for test in (torch_grid, torch_layouts, torch_padded, torch_schemas, torch_refusals,
                     torch_tracing):
            test(report)
    print("%d checks, %d failed%s" % (report.checks, report.failed,
                                      "" if have_torch else "; skipped: no torch"))
    return 1 if report.failed or not report.checks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
