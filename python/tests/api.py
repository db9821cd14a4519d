"""The package apart from the operator's numbers: DLPack, memory, errors, devices, the gated norm
and the whole layer against numpy in float64."""
import ctypes
import gc
import os
import subprocess
import sys
import threading

import numpy as np

import gdn
from gdn import _lib, dlpack

failed = 0


def expect(ok, text):
    global failed
    if not ok:
        failed += 1
        print("FAIL " + text)


def refuses(words, function, *args, **named):
    try:
        function(*args, **named)
        expect(False, "accepted, expected: " + words)
    except gdn.Error as e:
        expect(words in str(e), "\"%s\", expected: %s" % (e, words))


# --- a DLPack producer of our own ---------------------------------------------------------------

new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Producer:
    """Lends a numpy array under a protocol, and counts how often it comes back."""

    def __init__(self, array, versioned, code=dlpack.FLOAT, bits=32, flags=0, strides=True,
                 offset=0, place=dlpack.CPU, major=1):
        self.array, self.versioned, self.flags, self.lent, self.back = array, versioned, flags, 0, 0
        self.deleter = dlpack.DELETER(self.take_back)
        size, ndim = bits // 8, array.ndim
        self.shape = (ctypes.c_int64 * ndim)(*array.shape)
        self.strides = (ctypes.c_int64 * ndim)(*(s // size for s in array.strides))
        self.tensor = dlpack.DLTensor(
            array.ctypes.data - offset, dlpack.DLDevice(place, 0), ndim,
            dlpack.DLDataType(code, bits, 1), self.shape, self.strides if strides else None, offset)
        self.major = major

    def take_back(self, address):
        expect(address == ctypes.addressof(self.managed), "the deleter got another tensor")
        self.back += 1

    def __dlpack_device__(self):
        return self.tensor.device.device_type, 0

    def __dlpack__(self, **named):
        deleter = ctypes.cast(self.deleter, ctypes.c_void_p)
        if self.versioned:
            self.managed = dlpack.DLManagedTensorVersioned(
                dlpack.DLPackVersion(self.major, 0), None, deleter, self.flags, self.tensor)
        elif named:
            raise TypeError("unexpected keyword argument")
        else:
            self.managed = dlpack.DLManagedTensor(self.tensor, None, deleter)
        self.lent += 1
        name = dlpack.VERSIONED if self.versioned else dlpack.PLAIN
        self.capsule = new_capsule(ctypes.addressof(self.managed), name, None)
        return self.capsule

    def used(self):
        name = dlpack.USED_VERSIONED if self.versioned else dlpack.USED_PLAIN
        return bool(dlpack._is_valid(self.capsule, name))


def norm(x, z, w, eps=1e-6, after=False, sigmoid=False):
    x, z, w = (np.asarray(t, np.float64) for t in (x, z, w))
    gate = 1 / (1 + np.exp(-z)) * (1 if sigmoid else z)
    x = x * gate if after else x
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w
    return y if after else y * gate


def close(x, y, bound=2e-6):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return x.shape == y.shape and np.sqrt(((x - y) ** 2).sum()) <= bound * np.sqrt((y ** 2).sum())


def test_dlpack():
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((2, 3, 8)).astype(np.float32)
    w = rng.standard_normal(8).astype(np.float32)
    want = norm(x, z, w)
    for versioned in (False, True):
        for options in ({}, {"strides": False}, {"offset": 64}):
            y = np.zeros((3, 8), np.float32)
            lent = [Producer(t, versioned, **options) for t in (y, x, z, w)]
            gdn.rms_norm_gated(lent[1], lent[2], lent[3], y=lent[0])
            expect(close(y, want), "DLPack: the result differs")
            expect(all(p.lent == 1 and p.back == 1 and p.used() for p in lent),
                   "DLPack: a tensor was not given back once, %s" % options)
    # Rows with a gap between them
    wide = np.zeros((3, 11), np.float32)
    wide[:, :8] = x
    p = Producer(wide[:, :8], True)
    expect(close(gdn.rms_norm_gated(p, z, w), want), "DLPack: strides are lost")
    expect(p.lent == p.back > 0, "DLPack: lent %d times, back %d times" % (p.lent, p.back))
    # Allocated outputs
    expect(isinstance(gdn.rms_norm_gated(Producer(x, True), z, w), np.ndarray), "DLPack: result")


def test_dlpack_refused():
    x = np.ones((3, 8), np.float32)
    w = np.ones(8, np.float32)
    cases = (
        ("memory is read-only", dict(flags=dlpack.READ_ONLY), True, True),
        ("memory is read-only", dict(flags=dlpack.IS_COPIED), True, True),
        ("device type 2", dict(place=2), True, False),
        ("device type 2", dict(place=2), False, False),
        ("type code 2, 64 bits", dict(bits=64), True, False),
        ("DLPack version 2.0", dict(major=2), True, False),
    )
    for words, options, versioned, was_taken in cases:
        p = Producer(x.copy(), versioned, **options)
        refuses(words, gdn.rms_norm_gated, x, x, w, y=p)
        # A capsule that was not taken stays the producer's: its destructor frees the tensor.
        expect((p.used(), p.back) == (was_taken, int(was_taken)), "refused: %s: used %s, back %d"
               % (words, p.used(), p.back))

    class Unwilling:
        def __dlpack__(self, **_):
            raise BufferError("not now")

    refuses("not now", gdn.rms_norm_gated, Unwilling(), x, w, y=x.copy())
    # Lent tensors come back when the call fails for another one's sake.
    p = Producer(x.copy(), True)
    refuses("w", gdn.rms_norm_gated, p, x, np.ones(7, np.float32), y=x.copy())
    expect(p.back == 1, "a tensor was not given back after a failure")


def test_types():
    rng = np.random.default_rng(1)
    x, z, w = rng.standard_normal((5, 8)), rng.standard_normal((5, 8)), rng.standard_normal(8)
    for after in (False, True):
        for gate in ("silu", "sigmoid"):
            for kind, bound in ((np.float32, 1e-6), (np.float16, 1e-3)):
                a, b, c = x.astype(kind), z.astype(kind), w.astype(kind)
                y = gdn.rms_norm_gated(a, b, c, gate=gate, norm_after_gate=after)
                expect(y.dtype == kind and close(y, norm(a, b, c, 1e-6, after, gate == "sigmoid"),
                                                 bound), "norm: %s %s" % (kind, gate))
    bits = (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    exact = (bits.astype(np.uint32) << 16).view(np.float32)
    y = np.zeros((5, 8), np.float32)
    typed = gdn.as_type(bits, "bf16")
    gdn.rms_norm_gated(typed, typed, w.astype(np.float32), y=y)
    expect(close(y, norm(exact, exact, w.astype(np.float32))), "bf16 bits")
    y = gdn.rms_norm_gated(typed, typed, w.astype(np.float32))
    expect(y.dtype == np.uint16, "the output for bf16 bits is %s" % y.dtype)
    try:
        import ml_dtypes
    except ImportError:
        return
    named = bits.view(ml_dtypes.bfloat16)
    other = gdn.rms_norm_gated(named, named, w.astype(np.float32))
    expect(other.dtype == ml_dtypes.bfloat16 and np.array_equal(other.view(np.uint16), y),
           "bf16 of ml_dtypes")


def test_errors():
    x, w = np.ones((3, 8), np.float32), np.ones(8, np.float32)
    locked = x.copy()
    locked.flags.writeable = False
    refuses("y is written and its memory is read-only", gdn.rms_norm_gated, x, x, w, y=locked)
    refuses("stride 0 in dimension 0", gdn.rms_norm_gated, x, x, w,
            y=np.lib.stride_tricks.as_strided(x.copy(), strides=(0, 4)))
    refuses("has stride -32", gdn.rms_norm_gated, x[::-1], x, w)
    refuses("float64", gdn.rms_norm_gated, x.astype(np.float64), x, w)
    refuses("as_type", gdn.rms_norm_gated, x.astype(np.uint16), x, w, y=x.copy())
    refuses("x is a str", gdn.rms_norm_gated, "x", x, w, y=x.copy())
    refuses("gate is 'relu'", gdn.rms_norm_gated, x, x, w, gate="relu")
    refuses("uint8 as bf16", gdn.as_type, np.zeros(3, np.uint8), "bf16")
    refuses("nowhere", gdn.Device, "nowhere")
    refuses("5 dimensions", gdn.rms_norm_gated, np.ones((1,) * 5, np.float32), x, w, y=x.copy())
    refuses("a part", gdn.Weight, w)
    refuses("need two dimensions", gdn.Weight, np.ones((0, 4), np.float32))
    call = dict(n_k_head=1, n_v_head=1, dk=8, dv=8, non_spec_query_start_loc=[0, 1])
    state = np.zeros((2, 3, 24), np.float32), np.zeros((2, 1, 8, 8), np.float32)
    rows = np.zeros((1, 32), np.float32), np.zeros((1, 2), np.float32)
    rest = np.zeros((24, 4), np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)
    gdn.attention(*rows, *state, *rest, **call, non_spec_state_indices=[1])
    refuses("[0] is 2 of 2 slots", gdn.attention, *rows, *state, *rest, **call,
            non_spec_state_indices=[2])
    refuses("int64", gdn.attention, *rows, *state, *rest, **call,
            non_spec_state_indices=np.array([1]))
    refuses("tp_size is 0", gdn.attention, *rows, *state, *rest, **call, tp_size=0)
    refuses("dk is 8.0", gdn.attention, *rows, *state, *rest, **dict(call, dk=8.0))
    refuses("null_slot is 4294967296", gdn.attention, *rows, *state, *rest, **call,
            null_slot=1 << 32)
    try:
        gdn.attention(*rows, *state, *rest, **call)
    except gdn.Error as e:
        expect(e.status == -1, "status of an invalid argument is %s" % e.status)
    empty = np.zeros((0, 32), np.float32), np.zeros((0, 2), np.float32)
    core, z = gdn.attention(*empty, *state, *rest, **dict(call, non_spec_query_start_loc=[0]),
                            non_spec_state_indices=[])
    expect(core.shape == z.shape == (0, 1, 8), "a call without rows")


def test_device():
    x, w = np.ones((3, 8), np.float32), np.ones(8, np.float32)
    with gdn.Device("cpu:1") as device:
        expect(device.name.startswith("cpu"), "name of the device: " + device.name)
        y = gdn.rms_norm_gated(x, x, w, device=device)
        weight = gdn.Weight(np.ones((4, 8), np.float32), device=device)
        expect(weight.shape == (4, 8) and weight.n_bytes >= 128, "weight")
        weight.free()
        refuses("the weight is freed", weight.handle)
    refuses("the device is closed", gdn.rms_norm_gated, x, x, w, device=device)
    device.close()

    results = [None] * 4

    def run(i):
        for _ in range(20):
            results[i] = gdn.rms_norm_gated(x, x, w)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    expect(all(np.array_equal(r, y) for r in results), "threads: results differ")
    # A forked process has a device of its own.
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(gdn.rms_norm_gated(x, x, w), y) else 1)
    expect(os.waitpid(child, 0)[1] == 0, "a forked process cannot call")


def test_layer():
    """Float32 projections, fused and split, against the parts put together in numpy."""
    rng = np.random.default_rng(2)
    nk, nv, dk, dv, d, d_out, rows, taps = 2, 4, 8, 8, 24, 20, 6, 4
    key, value = nk * dk, nv * dv

    def normal(*shape, scale=0.3):
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    x, w_qkvz, w_ba, w_out = normal(rows, d, scale=1), normal(2 * key + 2 * value, d), \
        normal(2 * nv, d), normal(d_out, value)
    norm_w, conv_weights, A_log, dt_bias = normal(dv, scale=1), normal(2 * key + value, taps), \
        normal(nv), normal(nv)
    conv, ssm = normal(3, taps - 1, 2 * key + value), normal(3, nv, dv, dk)
    sizes = dict(n_k_head=nk, n_v_head=nv, dk=dk, dv=dv, reorder_input=True,
                 non_spec_query_start_loc=[0, 2, 6], non_spec_state_indices=[2, 0],
                 has_initial_state=np.array([True, False]))
    conv0, ssm0 = conv.copy(), ssm.copy()
    core, z = gdn.attention(x @ w_qkvz.T, x @ w_ba.T, conv0, ssm0, conv_weights, A_log, dt_bias,
                            **sizes)
    want = norm(core, z, norm_w).reshape(rows, value) @ w_out.T.astype(np.float64)
    split = np.cumsum([2 * key + value])
    qkv, w_z = np.split(w_qkvz, split)
    W = gdn.Weight
    forms = {
        "fused": dict(in_proj_qkvz=W(w_qkvz), in_proj_ba=W(w_ba)),
        "split": dict(in_proj_qkv=W(qkv), in_proj_z=W(w_z), in_proj_b=W(w_ba[:nv]),
                      in_proj_a=W(w_ba[nv:])),
        "parts": dict(in_proj_qkvz=W([qkv, w_z]), in_proj_ba=W(w_ba)),
    }
    out = W(w_out)
    for name, weights in forms.items():
        c, s = conv.copy(), ssm.copy()
        y = gdn.attention_layer(x, norm_w, out, c, s, conv_weights, A_log, dt_bias, **sizes,
                                **weights)
        expect(y.dtype == np.float32 and close(y, want, 1e-5), "layer, %s projections" % name)
        expect(close(s, ssm0, 1e-5) and close(c, conv0, 1e-5), "layer, %s: states" % name)
    refuses("need a gdn.Weight", gdn.attention_layer, x, norm_w, w_out, conv, ssm, conv_weights,
            A_log, dt_bias, **sizes)
    refuses("scale has shape", W, np.zeros((130, 8), np.uint8).view(np.uint8),
            scale=np.ones((1, 1), np.float32))


def test_f8():
    """A block-fp8 weight through the layer is refused or computed by the library; here only that
    its bytes and scales arrive: 0x38 is 1.0 in e4m3."""
    bits = gdn.as_type(np.full((130, 8), 0x38, np.uint8), "f8")
    weight = gdn.Weight(bits, scale=np.ones((2, 1), np.float32))
    expect(weight.shape == (130, 8), "shape of an f8 weight")


def test_finding():
    """What is said when there is no library, and that GDN_LIBRARY is obeyed."""
    code = "import gdn; print(gdn._lib.path)"
    env = dict(os.environ, GDN_LIBRARY="/nowhere/libgdn.so.0")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    for words in ("/nowhere/libgdn.so.0", "gdn.build", "GDN_LIBRARY"):
        expect(done.returncode != 0 and words in done.stderr, "without a library: no " + words)
    env["GDN_LIBRARY"] = _lib.path
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    expect(done.stdout.strip() == _lib.path, "GDN_LIBRARY: %s" % (done.stdout or done.stderr))


def main():
    tests = [(name, f) for name, f in globals().items() if name.startswith("test_")]
    for _, test in tests:
        test()
    gc.collect()
    print("%d tests of the package, %d failed" % (len(tests), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
