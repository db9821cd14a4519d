"""gdn_attention in float64 numpy, from its equations, and random calls of it.

Values are float64 arrays that the call's types can hold.  Rounded once each, as the contract says:
the convolution's output, core, and states when they are stored."""
import numpy as np

EPS = 1e-6  # added to the sum of squares of q and of k


def round_to(x, kind):
    """To the nearest number of a type, ties to even."""
    x = np.asarray(x, np.float64)
    if kind == "f16":
        return x.astype(np.float16).astype(np.float64)
    x = x.astype(np.float32)
    if kind == "bf16":
        bits = x.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 << 16
        x = bits.astype(np.uint32).view(np.float32)
    return x.astype(np.float64)


def unpack(c):
    """Rows of qkvz and ba as channels q | k | v [P, C], z [P, nv, dv], b and a [P, nv]."""
    nk, nv, dk, dv = c["nk"], c["nv"], c["dk"], c["dv"]
    r, rows = nv // nk, len(c["qkvz"])
    if c["reorder"]:
        q, k, v, z = np.split(c["qkvz"], np.cumsum([nk * dk, nk * dk, nv * dv]), axis=1)
        b, a = np.split(c["ba"], 2, axis=1)
    else:
        groups = c["qkvz"].reshape(rows, nk, -1)
        q, k, v, z = (x.reshape(rows, -1) for x in
                      np.split(groups, np.cumsum([dk, dk, r * dv]), axis=2))
        b, a = (x.reshape(rows, nv) for x in np.split(c["ba"].reshape(rows, nk, 2 * r), 2, axis=2))
    return np.concatenate([q, k, v], axis=1), z.reshape(rows, nv, dv), b, a


def convolve(c, history, x):
    """History [W - 1, C] and new rows [n, C] to the rows behind convolution and silu."""
    taps = c["conv_weights"].shape[1]
    rows = np.concatenate([history, x])
    y = sum(rows[j:j + len(x)] * c["conv_weights"][:, j] for j in range(taps))
    if c["conv_bias"] is not None:
        y = y + c["conv_bias"]
    return round_to(y / (1 + np.exp(-y)), c["act"])


def delta(c, y, b, a, state, store):
    """One sequence through gates and the delta rule; store(t, state) after every token."""
    nk, nv, dk, dv = c["nk"], c["nv"], c["dk"], c["dv"]
    core = np.zeros((len(y), nv, dv))
    for t, row in enumerate(y):
        q, k = row[:nk * dk].reshape(nk, dk), row[nk * dk:2 * nk * dk].reshape(nk, dk)
        v = row[2 * nk * dk:].reshape(nv, dv)
        q = q / np.sqrt((q * q).sum(1, keepdims=True) + EPS) / np.sqrt(dk)
        k = k / np.sqrt((k * k).sum(1, keepdims=True) + EPS)
        q, k = np.repeat(q, nv // nk, 0), np.repeat(k, nv // nk, 0)
        beta = 1 / (1 + np.exp(-b[t]))
        decay = np.exp(-np.exp(c["A_log"]) * np.logaddexp(0, a[t] + c["dt_bias"]))
        state = state * decay[:, None, None]
        update = (v - np.einsum("hvk,hk->hv", state, k)) * beta[:, None]
        state = state + update[:, :, None] * k[:, None, :]
        core[t] = np.einsum("hvk,hk->hv", state, q)
        store(t, state)
    return core


def attention(c):
    """What the call leaves in core, z, conv_state and ssm_state."""
    out = {name: c[name].copy() for name in ("core", "z", "conv_state", "ssm_state")}
    channels, z, b, a = unpack(c)
    taps = c["conv_weights"].shape[1]

    def none(slot):
        return slot < 0 or slot == c["null_slot"]

    def run(rows, history, state, store):
        y = convolve(c, history, channels[rows])
        out["core"][rows] = round_to(delta(c, y, b[rows], a[rows], state, store), c["act"])
        out["z"][rows] = z[rows]

    def put(slot, state):
        if not none(slot):
            out["ssm_state"][slot] = round_to(state, c["state"])

    start = c["start"] if c["start"] is not None else [0]
    for s in range(len(start) - 1):
        rows = np.arange(start[s], start[s + 1])
        rows = rows if c["token"] is None else c["token"][rows]
        slot, n = c["slot"][s], len(rows)
        if n == 0:
            continue
        if none(slot):
            out["core"][rows] = out["z"][rows] = 0
            continue
        carried = c["has_state"] is None or c["has_state"][s]
        history = c["conv_state"][slot, :taps - 1] * (1 if carried else 0)
        state = c["ssm_state"][slot] * (1 if carried else 0)
        run(rows, history, state, lambda t, x: put(slot, x) if t == n - 1 else None)
        out["conv_state"][slot, :taps - 1] = np.concatenate([history, channels[rows]])[n:]
    start = c["spec_start"] if c["spec_start"] is not None else [0]
    for s in range(len(start) - 1):
        rows = np.arange(start[s], start[s + 1])
        rows = rows if c["spec_token"] is None else c["spec_token"][rows]
        slots, first = c["spec_slot"][s], max(c["accepted"][s] - 1, 0)
        if len(rows) == 0:
            continue
        if none(slots[0]):
            out["core"][rows] = out["z"][rows] = 0
            continue
        history = c["conv_state"][slots[0], first:first + taps - 1]
        run(rows, history, c["ssm_state"][slots[first]], lambda t, x: put(slots[t], x))
        line = np.concatenate([history[1:], channels[rows]])
        out["conv_state"][slots[0], :len(line)] = line
    return out


# --- random calls -------------------------------------------------------------------------------

MODES = ("prefill", "decode", "mix", "spec", "ragged", "mixed")


def lengths(rng, mode, count):
    if mode == "decode":
        return np.ones(count, int)
    n = rng.integers(1, 12, count)
    if mode == "mix":
        n[rng.random(count) < 0.5] = 1
    return n


def random_call(rng, act, state, mode, reorder, bias, nk=2, nv=4, dk=16, dv=8, taps=4, columns=3,
                has_null=False):
    """A call with padding rows behind the tokens and slots that nobody uses."""
    plain = 0 if mode in ("spec", "ragged") else 4
    drafts = 3 if mode in ("spec", "ragged", "mixed") else 0
    n_plain = lengths(rng, "mix" if mode == "mixed" else mode, plain)
    n_draft = np.full(drafts, columns)
    if mode != "spec" and drafts:
        n_draft = rng.integers(1, columns + 1, drafts)
    tokens, pool = int(n_plain.sum() + n_draft.sum()), 20
    rows = rng.permutation(tokens).astype(np.int32)
    slots = rng.permutation(pool - 1).astype(np.int32) + 1
    channels, kinds = 2 * nk * dk + nv * dv, {}

    def normal(name, kind, *shape, scale=1.0):
        kinds[name] = kind
        return round_to(rng.standard_normal(shape) * scale, kind)

    c = {
        "act": act, "state": state, "mode": mode, "reorder": reorder, "nk": nk, "nv": nv,
        "dk": dk, "dv": dv, "tokens": tokens, "null_slot": 0 if has_null else -1, "kinds": kinds,
        "core": normal("core", act, tokens + 2, nv, dv),
        "z": normal("z", act, tokens + 2, nv, dv),
        "qkvz": normal("qkvz", act, tokens + 2, channels + nv * dv),
        "ba": normal("ba", act, tokens + 2, 2 * nv),
        "conv_state": normal("conv_state", act, pool, taps - 1 + columns - 1, channels),
        "ssm_state": normal("ssm_state", state, pool, nv, dv, dk, scale=0.3),
        "conv_weights": normal("conv_weights", act, channels, taps, scale=0.5),
        "conv_bias": normal("conv_bias", act, channels, scale=0.5) if bias else None,
        "A_log": normal("A_log", "f32", nv), "dt_bias": normal("dt_bias", act, nv),
        "start": None, "token": None, "slot": None, "has_state": None, "spec_start": None,
        "spec_token": None, "spec_slot": None, "accepted": None, "n_plain": plain,
        "n_draft": drafts,
    }
    if plain:
        c["start"] = np.concatenate([[0], np.cumsum(n_plain)]).astype(np.int32)
        c["slot"] = slots[:plain].copy()
        c["has_state"] = rng.random(plain) < 0.6 if mode != "decode" else None
        c["token"] = rows[:c["start"][-1]] if drafts else None
        if has_null:
            c["slot"][1] = 0
    if drafts:
        c["spec_start"] = np.concatenate([[0], np.cumsum(n_draft)]).astype(np.int32)
        c["spec_slot"] = slots[plain:plain + drafts * columns].reshape(drafts, columns).copy()
        c["accepted"] = rng.integers(0, columns + 1, drafts).astype(np.int32)
        c["spec_token"] = rows[tokens - c["spec_start"][-1]:]
        if has_null:
            c["spec_slot"][1, 0] = -1
            c["spec_slot"][0, 1], c["accepted"][0] = 0, 1
    return c


def grid(rng):
    """Every pair of types, both layouts, bias or none, every mode; a few shapes beside."""
    for act, states in (("f32", ("f32",)), ("f16", ("f16", "f32")), ("bf16", ("bf16", "f32"))):
        for state in states:
            for mode in MODES:
                for reorder in (False, True):
                    for bias in (False, True):
                        yield random_call(rng, act, state, mode, reorder, bias)
    for mode in MODES:
        yield random_call(rng, "f32", "f32", mode, True, True, 1, 3, 8, 5, 2, 2, has_null=True)
        yield random_call(rng, "bf16", "f32", mode, False, True, 2, 6, 32, 32, 3, 4, has_null=True)


# Relative L2 of a tensor.  One rounding of the convolution that falls to the other side moves a
# small tensor further than the contract's bounds for large ones allow.
BOUND = {"f32": 2e-6, "f16": 5e-4, "bf16": 4e-3}
CHUNKED_BOUND = {"f32": 1e-4, "f16": 2e-3, "bf16": 1.5e-2}


def compare(c, got, want, complain, limit=BOUND):
    for name in ("z", "conv_state", "core", "ssm_state"):
        x, y = np.asarray(got[name], np.float64), want[name]
        kept = y == c[name]
        if name in ("z", "conv_state"):
            if not np.array_equal(x, y):
                complain("%s differs in %d places" % (name, (x != y).sum()))
            continue
        rows = [i for i in range(len(y)) if kept[i].all()]
        if not np.array_equal(x[rows], y[rows]):
            complain("%s: something was written that the call has to keep" % name)
        error = np.sqrt(((x - y) ** 2).sum() / (y ** 2).sum())
        bound = limit[c["act"]]
        if name == "ssm_state":
            bound = max(bound, limit[c["state"]])
        if not error <= bound:
            complain("%s: relative error %.3g, need %.3g" % (name, error, bound))
