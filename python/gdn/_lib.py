"""The shared library: where it is, its structures as ctypes sees them, its errors."""
import ctypes
import os
from ctypes import (POINTER, Structure, byref, c_bool, c_char, c_char_p, c_float, c_int, c_int32,
                    c_int64, c_uint32, c_uint64, c_void_p)

SONAME = "libgdn.so.0"
MAX_DIM = 4

F32, BF16, F16, F8, I32, U8 = range(6)
TYPE_NAMES = ("f32", "bf16", "f16", "f8", "i32", "u8")
TYPE_BYTES = (4, 2, 2, 1, 4, 1)

CONV_STATE_SD, CONV_STATE_DS = range(2)
FORM_RECURRENT, FORM_CHUNKED = range(2)
GATE_SILU, GATE_SIGMOID = range(2)


class Error(RuntimeError):
    """What the library or an argument check had to say; `status` is gdn_status, None for ours."""

    def __init__(self, text, status=None):
        super().__init__(text)
        self.status = status


# --- structures of status.h and op.h, in their order ------------------------------------------


class Err(Structure):
    _fields_ = [("code", c_int), ("text", c_char * 496)]


class DeviceOpts(Structure):
    _fields_ = [("n_thread", c_int), ("pin", c_bool), ("isa_mask", c_uint32),
                ("dry_run", c_bool)]


class Tensor(Structure):
    _fields_ = [("buf", c_void_p), ("at", c_uint64), ("type", c_int), ("ndim", c_int32),
                ("shape", c_int64 * MAX_DIM), ("stride", c_int64 * MAX_DIM)]


class WeightPart(Structure):
    _fields_ = [("data", c_void_p), ("n_row", c_int64), ("row_bytes", c_int64),
                ("order", c_void_p), ("scale", c_void_p), ("scale_type", c_int)]


class WeightDesc(Structure):
    _fields_ = [("type", c_int), ("n_expert", c_int32), ("n", c_int32), ("k", c_int32),
                ("scale_rows", c_int32), ("scale_cols", c_int32), ("part", POINTER(WeightPart)),
                ("n_part", c_int32), ("done", c_void_p), ("done_arg", c_void_p)]


class WeightShape(Structure):
    _fields_ = [("type", c_int), ("n_expert", c_int32), ("n", c_int32), ("k", c_int32)]


def _tensors(names):
    return [(name, Tensor) for name in names.split()]


class AttentionArgs(Structure):
    _fields_ = _tensors(
        "core z qkvz ba conv_state ssm_state conv_weights conv_bias A_log dt_bias "
        "has_initial_state non_spec_query_start_loc non_spec_token_indx non_spec_state_indices "
        "spec_query_start_loc spec_token_indx spec_state_indices num_accepted_tokens") + [
            ("n_k_head", c_int32), ("n_v_head", c_int32), ("dk", c_int32), ("dv", c_int32),
            ("tp_size", c_int32), ("num_actual_tokens", c_int64), ("null_slot", c_int32),
            ("reorder_input", c_bool), ("conv_layout", c_int), ("form", c_int)]


class CausalConv1dArgs(Structure):
    _fields_ = _tensors(
        "q k v b a z qkvz ba conv_state conv_weights conv_bias has_initial_state "
        "query_start_loc token_indx state_indices num_accepted_tokens") + [
            ("n_k_head", c_int32), ("n_v_head", c_int32), ("dk", c_int32), ("dv", c_int32),
            ("tp_size", c_int32), ("num_actual_tokens", c_int64), ("null_slot", c_int32),
            ("reorder_input", c_bool), ("conv_layout", c_int)]


class DeltaRuleArgs(Structure):
    _fields_ = _tensors(
        "core q k v b a A_log dt_bias ssm_state has_initial_state query_start_loc token_indx "
        "state_indices num_accepted_tokens") + [
            ("num_actual_tokens", c_int64), ("null_slot", c_int32), ("form", c_int)]


class RmsNormGatedArgs(Structure):
    _fields_ = _tensors("y x z w") + [("eps", c_float), ("gate", c_int),
                                      ("norm_after_gate", c_bool)]


class AttentionLayerArgs(Structure):
    _fields_ = _tensors("y x") + [
        ("in_proj_qkvz", c_void_p), ("in_proj_qkv", c_void_p), ("in_proj_z", c_void_p),
        ("in_proj_ba", c_void_p), ("in_proj_b", c_void_p), ("in_proj_a", c_void_p),
        ("out_proj", c_void_p), ("norm_w", Tensor), ("eps", c_float), ("gate", c_int),
        ("core", AttentionArgs), ("work", c_void_p)]


# C names, for the test that compares sizes and offsets with a compiler's.
STRUCTURES = {
    "gdn_err": Err, "gdn_device_opts": DeviceOpts, "gdn_tensor": Tensor,
    "gdn_weight_part": WeightPart, "gdn_weight_desc": WeightDesc,
    "gdn_weight_shape": WeightShape, "gdn_attention_args": AttentionArgs,
    "gdn_causal_conv1d_args": CausalConv1dArgs, "gdn_delta_rule_args": DeltaRuleArgs,
    "gdn_rms_norm_gated_args": RmsNormGatedArgs, "gdn_attention_layer_args": AttentionLayerArgs,
}

# --- finding it ----------------------------------------------------------------------------------


def source_folder():
    """The checkout that this package lies in, or None when it is installed elsewhere."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    header = os.path.join(root, "include", "gdn", "op.h")
    return root if os.path.exists(header) else None


def candidates():
    named = os.environ.get("GDN_LIBRARY")
    if named:
        return [named]
    found = [os.path.join(os.path.dirname(os.path.abspath(__file__)), SONAME)]
    if source_folder() is not None:
        found.append(os.path.join(source_folder(), "build", SONAME))
    return [path for path in found if os.path.exists(path)] + [SONAME]


def _load():
    why = []
    for path in candidates():
        try:
            return ctypes.CDLL(path), path
        except OSError as e:
            why.append("%s: %s" % (path, e))
    root = source_folder()
    build = "python -m gdn.build" + ("" if root else " PATH-OF-THE-SOURCES")
    raise ImportError("gdn: no %s could be loaded (%s). Build it with `%s`, install it with "
                      "`make install`, or name it in GDN_LIBRARY." % (SONAME, "; ".join(why), build))


lib, path = _load()

_FUNCTIONS = {
    # name: (result, arguments)
    "gdn_version": (c_char_p, []),
    "gdn_status_text": (c_char_p, [c_int]),
    "gdn_device_opts_defaults": (None, [POINTER(DeviceOpts)]),
    "gdn_device_open": (c_int, [c_char_p, POINTER(DeviceOpts), POINTER(c_void_p), POINTER(Err)]),
    "gdn_device_close": (None, [c_void_p]),
    "gdn_device_name": (c_char_p, [c_void_p]),
    "gdn_buffer_alloc": (c_int, [c_void_p, c_uint64, POINTER(c_void_p), POINTER(Err)]),
    "gdn_buffer_wrap": (c_int, [c_void_p, c_void_p, c_uint64, POINTER(c_void_p), POINTER(Err)]),
    "gdn_buffer_free": (None, [c_void_p]),
    "gdn_tensor_dense": (Tensor, [c_void_p, c_uint64, c_int, c_int32, POINTER(c_int64)]),
    "gdn_tensor_slice": (Tensor, [Tensor, c_int32, c_int64, c_int64]),
    "gdn_queue_create": (c_int, [c_void_p, POINTER(c_void_p), POINTER(Err)]),
    "gdn_queue_free": (None, [c_void_p]),
    "gdn_queue_wait": (c_int, [c_void_p, POINTER(Err)]),
    "gdn_weight_create": (c_int, [c_void_p, POINTER(WeightDesc), POINTER(c_void_p), POINTER(Err)]),
    "gdn_weight_free": (None, [c_void_p]),
    "gdn_weight_bytes": (c_uint64, [c_void_p]),
    "gdn_weight_get_shape": (WeightShape, [c_void_p]),
    "gdn_weight_input_type": (c_int, [c_void_p]),
    "gdn_attention": (c_int, [c_void_p, POINTER(AttentionArgs), POINTER(Err)]),
    "gdn_causal_conv1d": (c_int, [c_void_p, POINTER(CausalConv1dArgs), POINTER(Err)]),
    "gdn_delta_rule": (c_int, [c_void_p, POINTER(DeltaRuleArgs), POINTER(Err)]),
    "gdn_rms_norm_gated": (c_int, [c_void_p, POINTER(RmsNormGatedArgs), POINTER(Err)]),
    "gdn_attention_layer": (c_int, [c_void_p, POINTER(AttentionLayerArgs), POINTER(Err)]),
    "gdn_attention_layer_work_bytes": (c_uint64, [POINTER(AttentionLayerArgs), c_int64]),
}


def _bind():
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(lib, name)
        except AttributeError:
            raise ImportError("gdn: %s has no %s; it is older than this package, so build it "
                              "anew" % (path, name)) from None
        function.restype, function.argtypes = result, arguments


def _self_check():
    """Values that the library fills in must be found where the structures above have them."""
    shape = (c_int64 * MAX_DIM)(2, 3, 5, 7)
    t = lib.gdn_tensor_slice(lib.gdn_tensor_dense(None, 1000, BF16, 4, shape), 1, 1, 3)
    opts = DeviceOpts(n_thread=-1, pin=True, isa_mask=1)
    lib.gdn_device_opts_defaults(byref(opts))
    seen = [t.buf, t.at, t.type, t.ndim, *t.shape, *t.stride, opts.n_thread, opts.pin,
            opts.isa_mask]
    if seen != [None, 1070, BF16, 4, 2, 2, 5, 7, 210, 70, 14, 2, 0, False, 0xffffffff]:
        raise ImportError("gdn: the structures of %s (version %s) are not those that this "
                          "package was written for" % (path, lib.gdn_version().decode()))


def check(status, err):
    if status != 0:
        text = err.text.decode("utf-8", "replace")
        raise Error(text or lib.gdn_status_text(status).decode(), status)


_bind()
_self_check()
