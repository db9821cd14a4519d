"""The operators under the names and argument lists that vLLM calls: torch.ops._xpu_C.*, on the CPU.

    import gdn.torch

registers gdn_attention, causal_conv1d_spec, causal_conv1d_non_spec, gated_delta_rule_spec and
gated_delta_rule_non_spec for CPU tensors, with implementations for tracing.  torch.compile takes
gdn_attention with every backend; the convolutions, whose schema writes arguments and returns
Tensor[], with those that need no functional form ("eager") or behind a graph break.
Where vllm-xpu-kernels is installed its definitions are kept and only the CPU is added.

null_slot   slots that are negative or equal to it are padding.  -1: only negative ones; 0 for
            callers that reserve block 0, as vLLM does.  From GDN_TORCH_NULL_SLOT.
form        "recurrent" or "chunked".  From GDN_TORCH_FORM.
device      a gdn.Device; None: GDN_DEVICE, or as many threads as PyTorch uses at the first call.

Rows, slots and lines follow gdn/op.h.  A speculative sequence has one line of conv_state, at the
slot in column 0, with W - 2 + K rows or more.  Index arrays may be longer than the counts say, as
padded metadata of captured graphs is: num_prefills + num_decodes and num_spec_decodes entries are
read.  Between the split stages rows lie in the group's order: q and k [T', nk, dk], v [T', nv, dv],
b and a [T', nv], all as they leave the convolution and the projection (neither normalised nor
through a sigmoid), in the type of the projections.  T' is the length of the group's token_indx, or
num_actual_tokens without one; rows that no sequence covers are zeros."""
import importlib.util
import os

import torch

from . import _lib, op
from ._lib import Error
from .dlpack import View

null_slot = int(os.environ.get("GDN_TORCH_NULL_SLOT", "-1"))
form = os.environ.get("GDN_TORCH_FORM", "recurrent")
device = None

NAMESPACE = "_xpu_C"

_SIZES = ("Tensor projected_states_qkvz, Tensor projected_states_ba, int num_k_heads, "
          "int num_v_heads, int head_k_dim, int head_v_dim, ")
_COUNTS = "int num_prefills, int num_decodes, int num_spec_decodes, "
_SPEC = ("Tensor spec_query_start_loc, Tensor spec_token_indx, "
         "Tensor spec_state_indices_tensor, Tensor num_accepted_tokens, ")
_NON_SPEC = ("Tensor? has_initial_state, Tensor non_spec_query_start_loc, "
             "Tensor? non_spec_token_indx, Tensor non_spec_state_indices_tensor, ")
_CONV = ("(Tensor(a!) z, " + _SIZES + "Tensor(b!) conv_state, Tensor conv_weights, "
         "Tensor? conv_bias, str activation, " + _COUNTS)
_DELTA = ("(Tensor(a!) core_attn_out, Tensor q, Tensor k, Tensor v, Tensor b, Tensor a, "
          "int num_v_heads, int head_v_dim, Tensor A_log, Tensor dt_bias, Tensor(b!) ssm_state, "
          + _COUNTS)

SCHEMAS = {
    "gdn_attention":
        "(Tensor(a!) core_attn_out, Tensor(b!) z, " + _SIZES + "Tensor(c!) conv_state, "
        "Tensor(d!) ssm_state, Tensor conv_weights, Tensor? conv_bias, str activation, "
        "Tensor A_log, Tensor dt_bias, " + _COUNTS + "Tensor? has_initial_state, "
        "Tensor? non_spec_query_start_loc, Tensor? non_spec_token_indx, "
        "Tensor? non_spec_state_indices_tensor, Tensor? spec_query_start_loc, "
        "Tensor? spec_token_indx, Tensor? spec_state_indices_tensor, "
        "Tensor? num_accepted_tokens, int num_actual_tokens, int tp_size, "
        "bool reorder_input) -> ()",
    "causal_conv1d_spec":
        _CONV + _SPEC + "int num_actual_tokens, int tp_size, bool reorder_input) -> Tensor[]",
    "causal_conv1d_non_spec":
        _CONV + _NON_SPEC + "int num_actual_tokens, int tp_size, bool reorder_input) -> Tensor[]",
    "gated_delta_rule_spec":
        _DELTA + _SPEC + "int num_actual_tokens, int tp_size) -> ()",
    "gated_delta_rule_non_spec":
        _DELTA + _NON_SPEC + "int num_actual_tokens, int tp_size) -> ()",
}

_TYPES = {torch.float32: _lib.F32, torch.bfloat16: _lib.BF16, torch.float16: _lib.F16,
          torch.int32: _lib.I32, torch.uint8: _lib.U8, torch.bool: _lib.U8}


# --- arguments --------------------------------------------------------------------------------


def _view(t, name, first=None):
    """A view of t's memory, or of its first entries."""
    if t is None:
        return None
    if t.device.type != "cpu":
        raise Error("%s lies on %s; need a CPU tensor" % (name, t.device))
    if t.dtype not in _TYPES:
        raise Error("%s has type %s; need float32, bfloat16, float16, int32 or bool"
                    % (name, t.dtype))
    shape = list(t.shape)
    if first is not None:
        if not shape or shape[0] < first:
            raise Error("%s has shape %s; need %d entries" % (name, shape, first))
        shape[0] = first
    size = t.element_size()
    return View(t.data_ptr(), shape, [s * size for s in t.stride()], _TYPES[t.dtype], True, t)


def _need_type(name, t, *types):
    if t is not None and t.dtype not in types:
        raise Error("%s has type %s; need %s" % (name, t.dtype, " or ".join(map(str, types))))


def _check_types(act, same, tensors):
    """`same` has the type of the projections; the others have types of their own."""
    for name, t in same.items():
        _need_type(name, t, act)
    for name, t in tensors.items():
        if name == "A_log":
            _need_type(name, t, torch.float32)
        elif name == "has_initial_state":
            _need_type(name, t, torch.bool, torch.uint8)
        elif name == "ssm_state":
            _need_type(name, t, torch.float32, torch.bfloat16, torch.float16)
        else:
            _need_type(name, t, torch.int32)


def _check_activation(activation):
    if activation not in ("silu", "swish"):
        raise Error("activation is %r; need 'silu' or 'swish'" % activation)


def _conv_state(t, channels):
    """(view, layout) of [slots, L, C] or [slots, C, L]; a view of either transposed is
    recognised by its strides."""
    if t.dim() != 3:
        raise Error("conv_state has shape %s; need three dimensions" % list(t.shape))
    if t.shape[2] == channels:
        lies = t.stride(2) == 1 or t.shape[1] == 1 or t.stride(1) != 1
        return (_view(t, "conv_state"), "SD") if lies else (
            _view(t.transpose(1, 2), "conv_state"), "DS")
    if t.shape[1] == channels:
        lies = t.stride(2) == 1 or t.shape[2] == 1 or t.stride(1) != 1
        return (_view(t, "conv_state"), "DS") if lies else (
            _view(t.transpose(1, 2), "conv_state"), "SD")
    raise Error("conv_state has shape %s; need %d channels" % (list(t.shape), channels))


def _device():
    global device
    if device is None or device._pid != os.getpid():
        device = op.Device(os.environ.get("GDN_DEVICE", "cpu:%d" % torch.get_num_threads()))
    return device


def _group(prefix, count, start, indx, slots, accepted=None, has_state=None):
    """The arrays of one group, cut to its count."""
    if start is None or slots is None:
        raise Error("%squery_start_loc and %sstate_indices_tensor are needed for %d sequences"
                    % (prefix, prefix, count))
    return {
        "query_start_loc": _view(start, prefix + "query_start_loc", count + 1),
        "token_indx": _view(indx, prefix + "token_indx"),
        "state_indices": _view(slots, prefix + "state_indices_tensor", count),
        "num_accepted_tokens": _view(accepted, "num_accepted_tokens",
                                     None if accepted is None else count),
        "has_initial_state": _view(has_state, "has_initial_state",
                                   None if has_state is None else count),
    }


# --- the operators ----------------------------------------------------------------------------


def gdn_attention(core_attn_out, z, projected_states_qkvz, projected_states_ba, num_k_heads,
                  num_v_heads, head_k_dim, head_v_dim, conv_state, ssm_state, conv_weights,
                  conv_bias, activation, A_log, dt_bias, num_prefills, num_decodes,
                  num_spec_decodes, has_initial_state, non_spec_query_start_loc,
                  non_spec_token_indx, non_spec_state_indices_tensor, spec_query_start_loc,
                  spec_token_indx, spec_state_indices_tensor, num_accepted_tokens,
                  num_actual_tokens, tp_size, reorder_input):
    _check_activation(activation)
    _check_types(projected_states_qkvz.dtype, {
        "core_attn_out": core_attn_out, "z": z, "projected_states_ba": projected_states_ba,
        "conv_state": conv_state, "conv_weights": conv_weights, "conv_bias": conv_bias,
        "dt_bias": dt_bias}, {
        "A_log": A_log, "ssm_state": ssm_state, "has_initial_state": has_initial_state,
        "non_spec_query_start_loc": non_spec_query_start_loc,
        "non_spec_token_indx": non_spec_token_indx,
        "non_spec_state_indices_tensor": non_spec_state_indices_tensor,
        "spec_query_start_loc": spec_query_start_loc, "spec_token_indx": spec_token_indx,
        "spec_state_indices_tensor": spec_state_indices_tensor,
        "num_accepted_tokens": num_accepted_tokens})
    groups = {}
    if num_prefills + num_decodes > 0:
        plain = _group("non_spec_", num_prefills + num_decodes, non_spec_query_start_loc,
                       non_spec_token_indx, non_spec_state_indices_tensor, None,
                       has_initial_state)
        del plain["num_accepted_tokens"]
        groups["has_initial_state"] = plain.pop("has_initial_state")
        groups.update({"non_spec_" + name: view for name, view in plain.items()})
    if num_spec_decodes > 0:
        drafts = _group("spec_", num_spec_decodes, spec_query_start_loc, spec_token_indx,
                        spec_state_indices_tensor, num_accepted_tokens)
        del drafts["has_initial_state"]
        groups["num_accepted_tokens"] = drafts.pop("num_accepted_tokens")
        groups.update({"spec_" + name: view for name, view in drafts.items()})
    state, layout = _conv_state(conv_state, conv_weights.shape[0])
    op.attention(
        _view(projected_states_qkvz, "projected_states_qkvz"),
        _view(projected_states_ba, "projected_states_ba"), state, _view(ssm_state, "ssm_state"),
        _view(conv_weights, "conv_weights"), _view(A_log, "A_log"), _view(dt_bias, "dt_bias"),
        core=_view(core_attn_out, "core_attn_out"), z=_view(z, "z"),
        conv_bias=_view(conv_bias, "conv_bias"), n_k_head=num_k_heads, n_v_head=num_v_heads,
        dk=head_k_dim, dv=head_v_dim, tp_size=tp_size, num_actual_tokens=num_actual_tokens,
        null_slot=null_slot, reorder_input=reorder_input, conv_layout=layout, form=form,
        device=_device(), **groups)


def _conv(z, qkvz, ba, nk, nv, dk, dv, conv_state, weights, bias, activation, group, n_token,
          num_actual_tokens, tp_size, reorder_input):
    _check_activation(activation)
    _check_types(qkvz.dtype, {"z": z, "projected_states_ba": ba, "conv_state": conv_state,
                              "conv_weights": weights, "conv_bias": bias}, {})
    out = _conv_outputs(qkvz, n_token, nk, nv, dk, dv, tp_size)
    state, layout = _conv_state(conv_state, weights.shape[0])
    op.causal_conv1d(
        _view(qkvz, "projected_states_qkvz"), _view(ba, "projected_states_ba"), state,
        _view(weights, "conv_weights"), conv_bias=_view(bias, "conv_bias"), z=_view(z, "z"),
        n_k_head=nk, n_v_head=nv, dk=dk, dv=dv, tp_size=tp_size,
        num_actual_tokens=num_actual_tokens, null_slot=null_slot, reorder_input=reorder_input,
        conv_layout=layout, device=_device(), **group,
        **{name: _view(t, name) for name, t in zip("qkvba", out)})
    return out


def _conv_outputs(qkvz, n_token, nk, nv, dk, dv, tp_size):
    nk, nv = nk // tp_size, nv // tp_size
    return [qkvz.new_zeros(shape) for shape in ((n_token, nk, dk), (n_token, nk, dk),
                                                (n_token, nv, dv), (n_token, nv), (n_token, nv))]


def _n_token(indx, num_actual_tokens):
    return num_actual_tokens if indx is None else indx.shape[0]


def causal_conv1d_spec(z, projected_states_qkvz, projected_states_ba, num_k_heads, num_v_heads,
                       head_k_dim, head_v_dim, conv_state, conv_weights, conv_bias, activation,
                       num_prefills, num_decodes, num_spec_decodes, spec_query_start_loc,
                       spec_token_indx, spec_state_indices_tensor, num_accepted_tokens,
                       num_actual_tokens, tp_size, reorder_input):
    group = _group("spec_", num_spec_decodes, spec_query_start_loc, spec_token_indx,
                   spec_state_indices_tensor, num_accepted_tokens)
    return _conv(z, projected_states_qkvz, projected_states_ba, num_k_heads, num_v_heads,
                 head_k_dim, head_v_dim, conv_state, conv_weights, conv_bias, activation, group,
                 _n_token(spec_token_indx, num_actual_tokens), num_actual_tokens, tp_size,
                 reorder_input)


def causal_conv1d_non_spec(z, projected_states_qkvz, projected_states_ba, num_k_heads,
                           num_v_heads, head_k_dim, head_v_dim, conv_state, conv_weights,
                           conv_bias, activation, num_prefills, num_decodes, num_spec_decodes,
                           has_initial_state, non_spec_query_start_loc, non_spec_token_indx,
                           non_spec_state_indices_tensor, num_actual_tokens, tp_size,
                           reorder_input):
    group = _group("non_spec_", num_prefills + num_decodes, non_spec_query_start_loc,
                   non_spec_token_indx, non_spec_state_indices_tensor, None, has_initial_state)
    return _conv(z, projected_states_qkvz, projected_states_ba, num_k_heads, num_v_heads,
                 head_k_dim, head_v_dim, conv_state, conv_weights, conv_bias, activation, group,
                 _n_token(non_spec_token_indx, num_actual_tokens), num_actual_tokens, tp_size,
                 reorder_input)


def _delta(core, q, k, v, b, a, num_v_heads, head_v_dim, A_log, dt_bias, ssm_state, group,
           num_actual_tokens, tp_size):
    _check_types(v.dtype, {"core_attn_out": core, "q": q, "k": k, "b": b, "a": a,
                           "dt_bias": dt_bias}, {"A_log": A_log, "ssm_state": ssm_state})
    if tp_size < 1 or tuple(v.shape[1:]) != (num_v_heads // tp_size, head_v_dim):
        raise Error("v has shape %s; need [tokens, %d / %d, %d]"
                    % (list(v.shape), num_v_heads, tp_size, head_v_dim))
    op.delta_rule(
        *(_view(t, name) for name, t in zip("qkvba", (q, k, v, b, a))), _view(A_log, "A_log"),
        _view(dt_bias, "dt_bias"), _view(ssm_state, "ssm_state"),
        core=_view(core, "core_attn_out"), num_actual_tokens=num_actual_tokens,
        null_slot=null_slot, form=form, device=_device(), **group)


def gated_delta_rule_spec(core_attn_out, q, k, v, b, a, num_v_heads, head_v_dim, A_log, dt_bias,
                          ssm_state, num_prefills, num_decodes, num_spec_decodes,
                          spec_query_start_loc, spec_token_indx, spec_state_indices_tensor,
                          num_accepted_tokens, num_actual_tokens, tp_size):
    group = _group("spec_", num_spec_decodes, spec_query_start_loc, spec_token_indx,
                   spec_state_indices_tensor, num_accepted_tokens)
    _delta(core_attn_out, q, k, v, b, a, num_v_heads, head_v_dim, A_log, dt_bias, ssm_state,
           group, num_actual_tokens, tp_size)


def gated_delta_rule_non_spec(core_attn_out, q, k, v, b, a, num_v_heads, head_v_dim, A_log,
                              dt_bias, ssm_state, num_prefills, num_decodes, num_spec_decodes,
                              has_initial_state, non_spec_query_start_loc, non_spec_token_indx,
                              non_spec_state_indices_tensor, num_actual_tokens, tp_size):
    group = _group("non_spec_", num_prefills + num_decodes, non_spec_query_start_loc,
                   non_spec_token_indx, non_spec_state_indices_tensor, None, has_initial_state)
    _delta(core_attn_out, q, k, v, b, a, num_v_heads, head_v_dim, A_log, dt_bias, ssm_state,
           group, num_actual_tokens, tp_size)


# --- registration -----------------------------------------------------------------------------


def _nothing(*_):
    return None


def _trace_spec(z, qkvz, ba, nk, nv, dk, dv, conv_state, weights, bias, activation, n_prefill,
                n_decode, n_spec, start, indx, slots, accepted, n_actual, tp_size, reorder):
    return _conv_outputs(qkvz, _n_token(indx, n_actual), nk, nv, dk, dv, tp_size)


def _trace_non_spec(z, qkvz, ba, nk, nv, dk, dv, conv_state, weights, bias, activation,
                    n_prefill, n_decode, n_spec, has_state, start, indx, slots, n_actual,
                    tp_size, reorder):
    return _conv_outputs(qkvz, _n_token(indx, n_actual), nk, nv, dk, dv, tp_size)


# name: (implementation, what tracing needs to know of it); looked up at every call
OPERATORS = {
    "gdn_attention": (gdn_attention, _nothing),
    "causal_conv1d_spec": (causal_conv1d_spec, _trace_spec),
    "causal_conv1d_non_spec": (causal_conv1d_non_spec, _trace_non_spec),
    "gated_delta_rule_spec": (gated_delta_rule_spec, _nothing),
    "gated_delta_rule_non_spec": (gated_delta_rule_non_spec, _nothing),
}


def _load_other_definitions():
    """The Intel kernels define the same names, and must do so first."""
    try:
        if importlib.util.find_spec("vllm_xpu_kernels") is not None:
            importlib.import_module("vllm_xpu_kernels._xpu_C")
    except (ImportError, OSError, ValueError):
        pass  # installed without a driver, say


def _register():
    _load_other_definitions()
    library = torch.library.Library(NAMESPACE, "FRAGMENT")
    for name in OPERATORS:
        if not hasattr(getattr(torch.ops, NAMESPACE), name):
            library.define(name + SCHEMAS[name])
            torch.library.register_fake("%s::%s" % (NAMESPACE, name), OPERATORS[name][1],
                                        lib=library)
        library.impl(name, lambda *args, _name=name: OPERATORS[_name][0](*args), "CPU")
    return library


_library = _register()  # the registration lasts as long as this object
