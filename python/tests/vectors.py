"""python vectors.py FILE...: recorded calls of gdn_attention through the package.

Every file runs twice, as it lies there and with both pools in pages between NaNs, and is compared
as `gdn op` compares it: core and ssm_state within bounds, z, conv_state and all that a call must
keep bit for bit."""
import json
import sys

import numpy as np

import gdn

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4", "U8": "u1"}
CORE_BOUND = {"F32": 2e-6, "BF16": 1e-3, "F16": 1e-3 / 8}
STATE_BOUND = {"F32": 2e-6, "BF16": 5e-5, "F16": 5e-5 / 8}  # of states in f32, by the rows' type


def read(path):
    """({name: (array, type)}, metadata) of a safetensors file."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    meta = header.pop("__metadata__")
    return {name: (np.frombuffer(data[slice(*t["data_offsets"])], DTYPES[t["dtype"]])
                   .reshape(t["shape"]).copy(), t["dtype"]) for name, t in header.items()}, meta


def numbers(array, dtype):
    if dtype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def tensor(array, dtype):
    return gdn.as_type(array, "bf16") if dtype == "BF16" else array


def in_pages(conv, ssm):
    """Copies of both pools as views of one block of bytes: conv | ssm | margin for each slot."""
    sizes = [-(-x[0].nbytes // 4) * 4 for x in (conv, ssm)]
    page = sum(sizes) + 148
    block = np.full(page * len(conv), 0xff, np.uint8)
    views = []
    for pool, at in ((conv, 0), (ssm, sizes[0])):
        dense = np.ndarray(pool.shape, pool.dtype, block, at)
        view = np.lib.stride_tricks.as_strided(dense, strides=(page,) + dense.strides[1:])
        view[...] = pool
        views.append(view)
    return block, views


def call(t, meta, pages):
    names = {"core": "core_attn_out", "z": "z", "qkvz": "projected_states_qkvz",
             "ba": "projected_states_ba", "non_spec_state_indices": "non_spec_state_indices_tensor",
             "spec_state_indices": "spec_state_indices_tensor"}
    for same in ("conv_state ssm_state conv_weights conv_bias A_log dt_bias has_initial_state "
                 "non_spec_query_start_loc non_spec_token_indx spec_query_start_loc "
                 "spec_token_indx num_accepted_tokens").split():
        names[same] = same
    arrays = {ours: t[theirs][0].copy() for ours, theirs in names.items() if theirs in t}
    block = None
    if pages:
        block, (arrays["conv_state"], arrays["ssm_state"]) = in_pages(arrays["conv_state"],
                                                                      arrays["ssm_state"])
    # NaN where nothing may be read
    padding = int(meta["num_actual_tokens"])
    for name in ("qkvz", "ba"):
        arrays[name][padding:] = 0xffff if arrays[name].dtype == np.uint16 else np.nan
    keep = {name: array.copy() for name, array in arrays.items()}
    gdn.attention(
        **{name: tensor(array, t[names[name]][1]) for name, array in arrays.items()},
        n_k_head=int(meta["num_k_heads"]), n_v_head=int(meta["num_v_heads"]),
        dk=int(meta["head_k_dim"]), dv=int(meta["head_v_dim"]), tp_size=int(meta["tp_size"]),
        num_actual_tokens=padding, null_slot=int(meta["null_slot"]),
        reorder_input=meta["reorder_input"] == "1", conv_layout=meta["conv_layout"])
    for name in set(arrays) - {"core", "z", "conv_state", "ssm_state"}:
        assert arrays[name].tobytes() == keep[name].tobytes(), name + " was written"
    if pages:
        margins = block.reshape(len(arrays["conv_state"]), -1)[:, -148:]
        assert (margins == 0xff).all(), "bytes between the pages were written"
    return {"core_attn_out": arrays["core"], "z": arrays["z"], "conv_state": arrays["conv_state"],
            "ssm_state": arrays["ssm_state"]}


def compare(t, got):
    act, state = t["core_attn_out"][1], t["ssm_state"][1]
    state_bound = STATE_BOUND[act] if state == "F32" else max(CORE_BOUND[act], CORE_BOUND[state])
    for name, bound in (("z", 0), ("conv_state", 0), ("core_attn_out", CORE_BOUND[act]),
                        ("ssm_state", state_bound)):
        want, dtype = t["expect." + name]
        if not bound:
            assert want.tobytes() == got[name].tobytes(), name + " differs"
            continue
        same = want.view("u%d" % want.itemsize) == np.ascontiguousarray(got[name]).view(
            "u%d" % want.itemsize)
        x, y = numbers(want, dtype), numbers(got[name], dtype)
        both_nan = np.isnan(x) & np.isnan(y)
        error = np.where(same | both_nan, 0, x - y)
        norm = np.sqrt((x[np.isfinite(x)] ** 2).sum())
        error = np.sqrt((error ** 2).sum())
        assert error <= bound * norm, "%s: relative error %g, need %g" % (name, error / norm, bound)
        for row, (before, expected) in enumerate(zip(t[name][0], want)):
            if before.tobytes() == expected.tobytes():  # the call has to keep it
                assert got[name][row].tobytes() == before.tobytes(), \
                    "%s[%d] was written" % (name, row)


def main(paths):
    failed = 0
    for path in paths:
        try:
            t, meta = read(path)
            for pages in (False, True):
                compare(t, call(t, meta, pages))
        except (AssertionError, gdn.Error) as e:
            print("FAIL %s: %s" % (path, e))
            failed += 1
    print("%d vectors, %d failed" % (len(paths), failed))
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
