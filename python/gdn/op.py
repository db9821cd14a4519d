"""Devices, weights and the operators of gdn/op.h on arrays.

Names, shapes, layouts and rules are those of the header, which is the manual.  A call returns when
its results are there.  Tensors are numpy arrays or objects with __dlpack__; nothing is copied, so
what the header calls out or in/out is written in the caller's memory.  Outputs that are not given
are allocated, filled with zeros."""
import os
import sys
import threading
from ctypes import byref, c_int64, c_void_p

from . import _lib
from ._lib import Error, check, lib
from .arrays import Typed, given, shape_of, view_of, zeros_like

_FORMS = {"recurrent": _lib.FORM_RECURRENT, "chunked": _lib.FORM_CHUNKED}
_LAYOUTS = {"SD": _lib.CONV_STATE_SD, "DS": _lib.CONV_STATE_DS}
_GATES = {"silu": _lib.GATE_SILU, "swish": _lib.GATE_SILU, "sigmoid": _lib.GATE_SIGMOID}


def _choice(op, name, value, table):
    if value not in table:
        raise Error("%s: %s is %r; need %s" % (op, name, value, " or ".join(map(repr, table))))
    return table[value]


def _whole(op, name, value, bits=32):
    limit = 1 << (bits - 1)
    try:
        number = value.__index__()
    except AttributeError:
        raise Error("%s: %s is %r; need a whole number" % (op, name, value)) from None
    if not -limit <= number < limit:
        raise Error("%s: %s is %d; need %d bits" % (op, name, number, bits))
    return number


class Device:
    """A device with one queue.  Threads may share it; their calls run one after another.

    name: "cpu", "cpu:N" for N threads.  close() when no Weight of it is used any more."""

    def __init__(self, name="cpu", pin=False):
        opts, err = _lib.DeviceOpts(), _lib.Err()
        lib.gdn_device_opts_defaults(byref(opts))
        opts.pin = bool(pin)
        self._device, self._queue, self._lock = c_void_p(), c_void_p(), threading.Lock()
        self._work, self._work_bytes, self._pid = c_void_p(), 0, os.getpid()
        check(lib.gdn_device_open(name.encode(), byref(opts), byref(self._device), byref(err)), err)
        check(lib.gdn_queue_create(self._device, byref(self._queue), byref(err)), err)

    @property
    def name(self):
        return lib.gdn_device_name(self.handle()).decode()

    def handle(self):
        if not self._device:
            raise Error("the device is closed")
        if self._pid != os.getpid():
            raise Error("the device was opened before a fork, and its threads stayed behind; open "
                        "one in this process")
        return self._device

    def work(self, n_bytes):
        """Scratch, kept for the next call."""
        if n_bytes > self._work_bytes:
            lib.gdn_buffer_free(self._work)
            self._work, self._work_bytes, err = c_void_p(), 0, _lib.Err()
            check(lib.gdn_buffer_alloc(self.handle(), n_bytes, byref(self._work), byref(err)), err)
            self._work_bytes = n_bytes
        return self._work

    def run(self, op, args, tensors, prepare=None):
        """Call op with the tensors {field: (object, is it written)} put into args."""
        buffers, views = [], []
        with self._lock:
            device = self.handle()
            try:
                for field, (x, written) in tensors.items():
                    if x is not None:
                        _put(device, args, op, field, x, written, buffers, views)
                if prepare is not None:
                    prepare(args)
                err = _lib.Err()
                check(getattr(lib, op)(self._queue, byref(args), byref(err)), err)
                check(lib.gdn_queue_wait(self._queue, byref(err)), err)
            finally:
                for buffer in buffers:
                    lib.gdn_buffer_free(buffer)
                for view in views:
                    view.release()

    def close(self):
        device, self._device = getattr(self, "_device", None), c_void_p()
        if not device or self._pid != os.getpid():
            return
        lib.gdn_buffer_free(self._work)
        lib.gdn_queue_free(self._queue)
        lib.gdn_device_close(device)

    def __del__(self):
        if not sys.is_finalizing():
            self.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _put(device, args, op, field, x, written, buffers, views):
    """Wrap x's memory in a buffer and describe it in the field, "core.qkvz" being one of core."""
    name = "%s: %s" % (op, field.rpartition(".")[2])
    view = view_of(x, name)
    views.append(view)
    *outer, last = field.split(".")
    for part in outer:
        args = getattr(args, part)
    t = getattr(args, last)
    t.type, t.ndim, t.at = view.type, len(view.shape), 0
    size = dense = _lib.TYPE_BYTES[view.type]
    extent = size
    for i in reversed(range(t.ndim)):
        n, stride = view.shape[i], view.strides[i]
        if n <= 1 or 0 in view.shape:  # means nothing, and producers write what they like
            stride = dense
        if stride < 0:
            raise Error("%s has stride %d in dimension %d; need one that is not negative"
                        % (name, stride, i))
        if written and stride == 0:
            raise Error("%s is written and has stride 0 in dimension %d" % (name, i))
        t.shape[i], t.stride[i] = n, stride
        extent += max(n - 1, 0) * stride
        dense *= max(n, 1)
    if 0 in view.shape:
        extent = 0
    if written and extent and not view.writable:
        raise Error("%s is written and its memory is read-only" % name)
    # Without elements there may be no address either, and then any will do.
    pointer = view.pointer if view.pointer else _nowhere if not extent else None
    buffer, err = c_void_p(), _lib.Err()
    check(lib.gdn_buffer_wrap(device, pointer, extent, byref(buffer), byref(err)), err)
    buffers.append(buffer)
    t.buf = buffer


_spare = c_int64()
_nowhere = _lib.ctypes.addressof(_spare)

_default, _default_lock = None, threading.Lock()


def default_device():
    """The device of calls that name none: GDN_DEVICE, or all CPUs that this process may use."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Device(os.environ.get("GDN_DEVICE", "cpu"))
        return _default


def set_default_device(device):
    global _default
    _default = device


def _after_fork():
    global _default, _default_lock
    _default, _default_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Weight:
    """A matrix [n, k] in the form the device's products read: f32, f16, bf16, or f8 with scales.

    parts: a matrix, or a list of them that lie one below another.  f8: scale [.., ceil(k /
    block[1])] for each, f32 or bf16, one number for a block of `block` rows and columns."""

    def __init__(self, parts, scale=None, block=(128, 128), device=None):
        self.device = device if device is not None else default_device()
        self._handle, err, views = c_void_p(), _lib.Err(), []
        parts = parts if isinstance(parts, (list, tuple)) else [parts]
        scale = scale if isinstance(scale, (list, tuple)) else [scale] * len(parts)
        if len(scale) != len(parts):
            raise Error("Weight: %d scales for %d parts" % (len(scale), len(parts)))
        try:
            table = (_lib.WeightPart * len(parts))()
            for entry, matrix, numbers in zip(table, parts, scale):
                view = _matrix(matrix, "Weight: a part", views)
                entry.data, entry.n_row = view.pointer, view.shape[0]
                entry.row_bytes = view.strides[0]
                if view.shape[0] <= 1:
                    entry.row_bytes = view.shape[1] * _lib.TYPE_BYTES[view.type]
                if view.type != views[0].type or view.shape[1] != views[0].shape[1]:
                    raise Error("Weight: parts differ in type or in columns")
                if numbers is not None:
                    _scales(entry, view, numbers, block, views)
            desc = _lib.WeightDesc(
                type=views[0].type, n_expert=1, n=sum(e.n_row for e in table),
                k=_whole("Weight", "k", views[0].shape[1]), scale_rows=block[0],
                scale_cols=block[1], part=table, n_part=len(parts))
            check(lib.gdn_weight_create(self.device.handle(), byref(desc), byref(self._handle),
                                        byref(err)), err)
        finally:
            for view in views:
                view.release()

    def handle(self):
        if not self._handle:
            raise Error("the weight is freed")
        return self._handle

    @property
    def shape(self):
        shape = lib.gdn_weight_get_shape(self.handle())
        return shape.n, shape.k

    @property
    def n_bytes(self):
        return lib.gdn_weight_bytes(self.handle())

    @property
    def input_type(self):
        """The type that a product's inputs should have for speed: "f32" or "bf16"."""
        return _lib.TYPE_NAMES[lib.gdn_weight_input_type(self.handle())]

    def free(self):
        handle, self._handle = getattr(self, "_handle", None), c_void_p()
        if handle and self.device._device:
            lib.gdn_weight_free(handle)

    def __del__(self):
        self.free()


def _matrix(x, name, views):
    view = view_of(x, name)
    views.append(view)
    if len(view.shape) != 2 or 0 in view.shape:
        raise Error("%s has shape %s; need two dimensions" % (name, list(view.shape)))
    size = _lib.TYPE_BYTES[view.type]
    if view.shape[1] > 1 and view.strides[1] != size:
        raise Error("%s has stride %d in dimension 1; need dense rows" % (name, view.strides[1]))
    if view.shape[0] > 1 and view.strides[0] < 0:
        raise Error("%s has stride %d in dimension 0" % (name, view.strides[0]))
    return view


def _scales(entry, view, numbers, block, views):
    rows, cols = (-(-view.shape[i] // block[i]) for i in (0, 1))
    scale = _matrix(numbers, "Weight: scale", views)
    size = _lib.TYPE_BYTES[scale.type]
    if scale.shape != (rows, cols) or (rows > 1 and scale.strides[0] != cols * size):
        raise Error("Weight: scale has shape %s; need [%d, %d], dense"
                    % (list(scale.shape), rows, cols))
    entry.scale, entry.scale_type = scale.pointer, scale.type


# --- operators --------------------------------------------------------------------------------


def _set(op, args, device, **numbers):
    for name, value in numbers.items():
        setattr(args, name, _whole(op, name, value, 64 if name == "num_actual_tokens" else 32))
    return device if device is not None else default_device()


def _sizes(op, n_k_head, n_v_head, tp_size):
    for name, value in (("n_k_head", n_k_head), ("n_v_head", n_v_head), ("tp_size", tp_size)):
        if _whole(op, name, value) < 1:
            raise Error("%s: %s is %d; need 1 or more" % (op, name, value))
    return n_k_head // tp_size, n_v_head // tp_size


def attention(qkvz, ba, conv_state, ssm_state, conv_weights, A_log, dt_bias, *, n_k_head, n_v_head,
              dk, dv, core=None, z=None, conv_bias=None, has_initial_state=None,
              non_spec_query_start_loc=None, non_spec_token_indx=None, non_spec_state_indices=None,
              spec_query_start_loc=None, spec_token_indx=None, spec_state_indices=None,
              num_accepted_tokens=None, num_actual_tokens=None, tp_size=1, null_slot=-1,
              reorder_input=False, conv_layout="SD", form="recurrent", device=None):
    """gdn_attention(): projected rows to (core, z); conv_state and ssm_state are updated.

    num_actual_tokens None: all rows of qkvz."""
    op = "gdn_attention"
    rows = shape_of(qkvz, op + ": qkvz", 2)[0]
    nv = _sizes(op, n_k_head, n_v_head, tp_size)[1]
    core = zeros_like(qkvz, (rows, nv, dv), op + ": qkvz") if core is None else core
    z = zeros_like(qkvz, (rows, nv, dv), op + ": qkvz") if z is None else z
    args = _lib.AttentionArgs(
        reorder_input=bool(reorder_input), form=_choice(op, "form", form, _FORMS),
        conv_layout=_choice(op, "conv_layout", conv_layout, _LAYOUTS))
    device = _set(op, args, device, n_k_head=n_k_head, n_v_head=n_v_head, dk=dk, dv=dv,
                  tp_size=tp_size, null_slot=null_slot,
                  num_actual_tokens=rows if num_actual_tokens is None else num_actual_tokens)
    device.run(op, args, {
        "core": (core, True), "z": (z, True), "qkvz": (qkvz, False), "ba": (ba, False),
        "conv_state": (conv_state, True), "ssm_state": (ssm_state, True),
        "conv_weights": (conv_weights, False), "conv_bias": (conv_bias, False),
        "A_log": (A_log, False), "dt_bias": (dt_bias, False),
        "has_initial_state": (has_initial_state, False),
        "non_spec_query_start_loc": (non_spec_query_start_loc, False),
        "non_spec_token_indx": (non_spec_token_indx, False),
        "non_spec_state_indices": (non_spec_state_indices, False),
        "spec_query_start_loc": (spec_query_start_loc, False),
        "spec_token_indx": (spec_token_indx, False),
        "spec_state_indices": (spec_state_indices, False),
        "num_accepted_tokens": (num_accepted_tokens, False)})
    return given(core), given(z)


def causal_conv1d(qkvz, ba, conv_state, conv_weights, *, n_k_head, n_v_head, dk, dv,
                  query_start_loc, state_indices, token_indx=None, num_accepted_tokens=None,
                  has_initial_state=None, conv_bias=None, q=None, k=None, v=None, b=None, a=None,
                  z=None, n_token=None, num_actual_tokens=None, tp_size=1, null_slot=-1,
                  reorder_input=False, conv_layout="SD", device=None):
    """gdn_causal_conv1d(): projected rows of one group to (q, k, v, b, a, z).

    With num_accepted_tokens the group is speculative.  n_token: rows of the outputs that are
    allocated; None: as many as token_indx has, or else all rows of qkvz."""
    op = "gdn_causal_conv1d"
    rows = shape_of(qkvz, op + ": qkvz", 2)[0]
    if n_token is None:
        n_token = rows if token_indx is None else shape_of(token_indx, op + ": token_indx", 1)[0]
    nk, nv = _sizes(op, n_k_head, n_v_head, tp_size)
    shapes = {"q": (n_token, nk, dk), "k": (n_token, nk, dk), "v": (n_token, nv, dv),
              "b": (n_token, nv), "a": (n_token, nv), "z": (rows, nv, dv)}
    out = {"q": q, "k": k, "v": v, "b": b, "a": a, "z": z}
    for name, x in out.items():
        if x is None:
            out[name] = zeros_like(qkvz, shapes[name], op + ": qkvz")
    args = _lib.CausalConv1dArgs(
        reorder_input=bool(reorder_input),
        conv_layout=_choice(op, "conv_layout", conv_layout, _LAYOUTS))
    device = _set(op, args, device, n_k_head=n_k_head, n_v_head=n_v_head, dk=dk, dv=dv,
                  tp_size=tp_size, null_slot=null_slot,
                  num_actual_tokens=rows if num_actual_tokens is None else num_actual_tokens)
    tensors = {name: (x, True) for name, x in out.items()}
    tensors.update({
        "qkvz": (qkvz, False), "ba": (ba, False), "conv_state": (conv_state, True),
        "conv_weights": (conv_weights, False), "conv_bias": (conv_bias, False),
        "has_initial_state": (has_initial_state, False),
        "query_start_loc": (query_start_loc, False), "token_indx": (token_indx, False),
        "state_indices": (state_indices, False),
        "num_accepted_tokens": (num_accepted_tokens, False)})
    device.run(op, args, tensors)
    return tuple(given(x) for x in out.values())


def delta_rule(q, k, v, b, a, A_log, dt_bias, ssm_state, *, query_start_loc, state_indices,
               core=None, token_indx=None, num_accepted_tokens=None, has_initial_state=None,
               num_actual_tokens=None, null_slot=-1, form="recurrent", device=None):
    """gdn_delta_rule(): what causal_conv1d() gave for one group to core; ssm_state is updated.

    core None: one row for each of v.  num_actual_tokens None: all rows of core."""
    op = "gdn_delta_rule"
    core = zeros_like(v, shape_of(v, op + ": v", 3), op + ": v") if core is None else core
    rows = shape_of(core, op + ": core", 3)[0]
    args = _lib.DeltaRuleArgs(form=_choice(op, "form", form, _FORMS))
    device = _set(op, args, device, null_slot=null_slot,
                  num_actual_tokens=rows if num_actual_tokens is None else num_actual_tokens)
    device.run(op, args, {
        "core": (core, True), "q": (q, False), "k": (k, False), "v": (v, False), "b": (b, False),
        "a": (a, False), "A_log": (A_log, False), "dt_bias": (dt_bias, False),
        "ssm_state": (ssm_state, True), "has_initial_state": (has_initial_state, False),
        "query_start_loc": (query_start_loc, False), "token_indx": (token_indx, False),
        "state_indices": (state_indices, False),
        "num_accepted_tokens": (num_accepted_tokens, False)})
    return given(core)


def rms_norm_gated(x, z, w, *, y=None, eps=1e-6, gate="silu", norm_after_gate=False, device=None):
    """gdn_rms_norm_gated(): y = rms(x) w gate(z), or rms(x gate(z)) w with norm_after_gate."""
    op = "gdn_rms_norm_gated"
    if y is None:
        y = zeros_like(x, tuple((x.array if isinstance(x, Typed) else x).shape), op + ": x")
    args = _lib.RmsNormGatedArgs(eps=eps, gate=_choice(op, "gate", gate, _GATES),
                                 norm_after_gate=bool(norm_after_gate))
    device = device if device is not None else default_device()
    device.run(op, args, {"y": (y, True), "x": (x, False), "z": (z, False), "w": (w, False)})
    return given(y)


def attention_layer(x, norm_w, out_proj, conv_state, ssm_state, conv_weights, A_log, dt_bias, *,
                    n_k_head, n_v_head, dk, dv, in_proj_qkvz=None, in_proj_qkv=None,
                    in_proj_z=None, in_proj_ba=None, in_proj_b=None, in_proj_a=None, y=None,
                    eps=1e-6, gate="silu", conv_bias=None, has_initial_state=None,
                    non_spec_query_start_loc=None, non_spec_token_indx=None,
                    non_spec_state_indices=None, spec_query_start_loc=None, spec_token_indx=None,
                    spec_state_indices=None, num_accepted_tokens=None, num_actual_tokens=None,
                    tp_size=1, null_slot=-1, reorder_input=False, conv_layout="SD",
                    form="recurrent", device=None):
    """gdn_attention_layer(): hidden rows x to y [rows, d_out] f32.  Projections are Weights."""
    op = "gdn_attention_layer"
    rows = shape_of(x, op + ": x", 2)[0]
    weights = {"in_proj_qkvz": in_proj_qkvz, "in_proj_qkv": in_proj_qkv, "in_proj_z": in_proj_z,
               "in_proj_ba": in_proj_ba, "in_proj_b": in_proj_b, "in_proj_a": in_proj_a,
               "out_proj": out_proj}
    args = _lib.AttentionLayerArgs(eps=eps, gate=_choice(op, "gate", gate, _GATES))
    for name, weight in weights.items():
        if weight is not None and not isinstance(weight, Weight):
            raise Error("%s: %s is a %s; need a gdn.Weight" % (op, name, type(weight).__name__))
        if weight is not None:
            setattr(args, name, weight.handle())
            device = weight.device if device is None else device
    args.core.reorder_input = bool(reorder_input)
    args.core.form = _choice(op, "form", form, _FORMS)
    args.core.conv_layout = _choice(op, "conv_layout", conv_layout, _LAYOUTS)
    device = _set(op, args.core, device, n_k_head=n_k_head, n_v_head=n_v_head, dk=dk, dv=dv,
                  tp_size=tp_size, null_slot=null_slot,
                  num_actual_tokens=rows if num_actual_tokens is None else num_actual_tokens)
    if y is None and out_proj is not None:
        y = zeros_like(x, (rows, out_proj.shape[0]), op + ": x", _lib.F32)

    def add_work(filled):
        n_bytes = lib.gdn_attention_layer_work_bytes(byref(filled), rows)
        filled.work = device.work(max(n_bytes, 64))

    device.run(op, args, {
        "y": (y, True), "x": (x, False), "norm_w": (norm_w, False),
        "core.conv_state": (conv_state, True), "core.ssm_state": (ssm_state, True),
        "core.conv_weights": (conv_weights, False), "core.conv_bias": (conv_bias, False),
        "core.A_log": (A_log, False), "core.dt_bias": (dt_bias, False),
        "core.has_initial_state": (has_initial_state, False),
        "core.non_spec_query_start_loc": (non_spec_query_start_loc, False),
        "core.non_spec_token_indx": (non_spec_token_indx, False),
        "core.non_spec_state_indices": (non_spec_state_indices, False),
        "core.spec_query_start_loc": (spec_query_start_loc, False),
        "core.spec_token_indx": (spec_token_indx, False),
        "core.spec_state_indices": (spec_state_indices, False),
        "core.num_accepted_tokens": (num_accepted_tokens, False)}, add_work)
    return y
