"""What callers pass as tensors, as views of memory: numpy arrays, lists, DLPack producers."""
import numpy

from . import _lib, dlpack
from ._lib import Error
from .dlpack import View

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

_NUMPY_TYPES = {
    "float32": _lib.F32, "bfloat16": _lib.BF16, "float16": _lib.F16, "float8_e4m3fn": _lib.F8,
    "int32": _lib.I32, "uint8": _lib.U8, "bool": _lib.U8,
}
_STORED_AS = {_lib.BF16: "uint16", _lib.F8: "uint8"}
_TORCH_TYPES = {_lib.F32: "float32", _lib.BF16: "bfloat16", _lib.F16: "float16"}


class Typed:
    """A numpy array of bits that are numbers of a type numpy has no name for."""

    def __init__(self, array, type_):
        self.array, self.type = array, type_


def as_type(array, type_name):
    """Name the type of raw bits: as_type(a_uint16_array, "bf16"), as_type(a_uint8_array, "f8")."""
    array = numpy.asarray(array)
    type_ = _lib.TYPE_NAMES.index(type_name) if type_name in _lib.TYPE_NAMES else -1
    if _STORED_AS.get(type_) != array.dtype.name:
        raise Error("as_type: %s as %s; need uint16 as bf16 or uint8 as f8"
                    % (array.dtype.name, type_name))
    return Typed(array, type_)


def _of_numpy(array, name, type_=None):
    if type_ is None:
        type_ = _NUMPY_TYPES.get(array.dtype.name)
        if type_ is None or not array.dtype.isnative:
            hint = "; bf16 bits in uint16 need gdn.as_type(array, \"bf16\")"
            raise Error("%s has dtype %s; need float32, float16, bfloat16, int32, uint8 or bool%s"
                        % (name, array.dtype, hint if array.dtype.name == "uint16" else ""))
    if array.ndim > _lib.MAX_DIM:
        raise Error("%s has %d dimensions; need at most %d" % (name, array.ndim, _lib.MAX_DIM))
    return View(array.ctypes.data, array.shape, array.strides, type_, array.flags.writeable, array)


def view_of(x, name):
    """A View of a caller's tensor; release() it when the call is over."""
    if isinstance(x, View):
        return x
    if isinstance(x, Typed):
        return _of_numpy(x.array, name, x.type)
    if isinstance(x, numpy.ndarray):
        return _of_numpy(x, name)
    if isinstance(x, (list, tuple)):  # of indices
        return _of_numpy(numpy.asarray(x, numpy.int32), name)
    if hasattr(x, "__dlpack__"):
        return dlpack.borrow(x, name)
    raise Error("%s is a %s; need a numpy array or an object with __dlpack__"
                % (name, type(x).__name__))


def shape_of(x, name, ndim):
    """The shape of a tensor that others are sized by."""
    x = x.array if isinstance(x, Typed) else x
    shape = tuple(x.shape) if hasattr(x, "shape") else numpy.shape(x)
    if len(shape) != ndim:
        raise Error("%s has shape %s; need %d dimensions" % (name, list(shape), ndim))
    return shape


def type_of(x, name):
    view = view_of(x, name)
    try:
        return view.type
    finally:
        if view is not x:
            view.release()


def zeros_like(x, shape, name, type_=None):
    """Zeros of a shape, as the same kind of object as x and of its type, or of type_.

    A numpy array or a tensor of PyTorch gives its own kind; another producer gives numpy.  bf16
    without ml_dtypes is uint16 bits in a Typed."""
    kind = type_of(x, name) if type_ is None else type_
    if type(x).__module__.split(".")[0] == "torch" and kind in _TORCH_TYPES:
        import torch
        return torch.zeros(shape, dtype=getattr(torch, _TORCH_TYPES[kind]))
    if kind == _lib.BF16:
        if ml_dtypes is not None and not isinstance(x, Typed):
            return numpy.zeros(shape, ml_dtypes.bfloat16)
        return Typed(numpy.zeros(shape, numpy.uint16), kind)
    return numpy.zeros(shape, {_lib.F32: numpy.float32, _lib.F16: numpy.float16}[kind])


def given(x):
    """What a caller gets back: the array behind a Typed, anything else as it is."""
    return x.array if isinstance(x, Typed) else x
