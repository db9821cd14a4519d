"""DLPack tensors of other libraries, borrowed without a copy.

The structures are those of the DLPack specification, version 1; a producer that knows only the
form before it ("dltensor" capsules) is served as well.  A capsule is consumed once: it is renamed
to "used_...", and the producer's deleter is called when the borrowed view is released."""
import ctypes
from ctypes import (CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int32, c_int64, c_uint8,
                    c_uint16, c_uint32, c_uint64, c_void_p, py_object)

from . import _lib
from ._lib import Error

CPU, CUDA_HOST, ROCM_HOST = 1, 3, 11  # memory that this process reads like its own
READ_ONLY, IS_COPIED = 1, 2
INT, UINT, FLOAT, BFLOAT, BOOL, FLOAT8_E4M3FN = 0, 1, 2, 4, 6, 10

TYPES = {  # (code, bits) of one lane
    (FLOAT, 32): _lib.F32, (BFLOAT, 16): _lib.BF16, (FLOAT, 16): _lib.F16,
    (FLOAT8_E4M3FN, 8): _lib.F8, (INT, 32): _lib.I32, (UINT, 8): _lib.U8, (BOOL, 8): _lib.U8,
}


class DLDevice(Structure):
    _fields_ = [("device_type", c_int32), ("device_id", c_int32)]


class DLDataType(Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class DLTensor(Structure):
    _fields_ = [("data", c_void_p), ("device", DLDevice), ("ndim", c_int32),
                ("dtype", DLDataType), ("shape", POINTER(c_int64)),
                ("strides", POINTER(c_int64)), ("byte_offset", c_uint64)]


DELETER = CFUNCTYPE(None, c_void_p)


class DLManagedTensor(Structure):
    _fields_ = [("dl_tensor", DLTensor), ("manager_ctx", c_void_p), ("deleter", c_void_p)]


class DLPackVersion(Structure):
    _fields_ = [("major", c_uint32), ("minor", c_uint32)]


class DLManagedTensorVersioned(Structure):
    _fields_ = [("version", DLPackVersion), ("manager_ctx", c_void_p), ("deleter", c_void_p),
                ("flags", c_uint64), ("dl_tensor", DLTensor)]


def _capsule_function(name, result, *arguments):
    function = getattr(ctypes.pythonapi, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


_is_valid = _capsule_function("PyCapsule_IsValid", c_int, py_object, c_char_p)
_get_pointer = _capsule_function("PyCapsule_GetPointer", c_void_p, py_object, c_char_p)
_set_name = _capsule_function("PyCapsule_SetName", c_int, py_object, c_char_p)

# A capsule keeps the pointer to its name, so these live as long as the process.
PLAIN, VERSIONED = b"dltensor", b"dltensor_versioned"
USED_PLAIN, USED_VERSIONED = b"used_dltensor", b"used_dltensor_versioned"


class View:
    """Memory with a type, a shape and strides in bytes; the owner lives until release()."""

    def __init__(self, pointer, shape, strides, type_, writable=True, owner=None, deleter=None):
        self.pointer, self.type, self.writable, self.owner = pointer, type_, writable, owner
        self.shape, self.strides = tuple(shape), tuple(strides)
        self._deleter = deleter

    def release(self):
        deleter, self._deleter, self.owner = self._deleter, None, None
        if deleter is not None:
            deleter()

    def __del__(self):
        self.release()


def _ask(producer, name):
    """The capsule, by the newest protocol that the producer understands."""
    try:
        return producer.__dlpack__(max_version=(1, 0), copy=False)
    except TypeError:
        return producer.__dlpack__()
    except (BufferError, ValueError) as e:
        raise Error("%s cannot be lent through DLPack: %s" % (name, e)) from e


def _type_of(dtype, name):
    type_ = TYPES.get((dtype.code, dtype.bits)) if dtype.lanes == 1 else None
    if type_ is None:
        raise Error("%s has DLPack type code %d, %d bits, %d lanes; need f32, bf16, f16, f8 "
                    "(e4m3), i32, u8 or bool" % (name, dtype.code, dtype.bits, dtype.lanes))
    return type_


def _read(tensor, name):
    """(pointer, shape, strides in bytes, type) of a DLTensor."""
    if tensor.device.device_type not in (CPU, CUDA_HOST, ROCM_HOST):
        raise Error("%s lies on DLPack device type %d; need memory of the host (1)"
                    % (name, tensor.device.device_type))
    if not 0 <= tensor.ndim <= _lib.MAX_DIM:
        raise Error("%s has %d dimensions; need at most %d" % (name, tensor.ndim, _lib.MAX_DIM))
    type_ = _type_of(tensor.dtype, name)
    size = _lib.TYPE_BYTES[type_]
    shape = [tensor.shape[i] for i in range(tensor.ndim)]
    if tensor.strides:
        strides = [tensor.strides[i] * size for i in range(tensor.ndim)]
    else:  # row-major
        strides, step = [0] * tensor.ndim, size
        for i in reversed(range(tensor.ndim)):
            strides[i] = step
            step *= max(shape[i], 1)
    return (tensor.data or 0) + tensor.byte_offset, shape, strides, type_


def borrow(producer, name):
    """A View of any object with __dlpack__ and __dlpack_device__."""
    capsule = _ask(producer, name)
    if _is_valid(capsule, VERSIONED):
        kind, old, used = DLManagedTensorVersioned, VERSIONED, USED_VERSIONED
    elif _is_valid(capsule, PLAIN):
        kind, old, used = DLManagedTensor, PLAIN, USED_PLAIN
    else:
        raise Error("%s: __dlpack__() gave no DLPack capsule" % name)
    address = _get_pointer(capsule, old)
    managed = ctypes.cast(address, POINTER(kind)).contents
    writable = True
    if kind is DLManagedTensorVersioned:
        # Only the first two fields may be relied on before the major version is known.
        if managed.version.major != 1:
            raise Error("%s: DLPack version %d.%d; need 1.x"
                        % (name, managed.version.major, managed.version.minor))
        writable = not managed.flags & (READ_ONLY | IS_COPIED)
    pointer, shape, strides, type_ = _read(managed.dl_tensor, name)
    # Up to here the capsule's own destructor frees the tensor; from here on the view does.
    _set_name(capsule, used)
    deleter = None
    if managed.deleter:
        function = DELETER(managed.deleter)

        def deleter():
            function(address)

    return View(pointer, shape, strides, type_, writable, None, deleter)
