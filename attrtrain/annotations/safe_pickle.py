"""Reads label pickles without ever running what is inside them.

Unpickling is a small program that may call anything it can name. This reader lets a file name only what label files
need (NumPy arrays, scalars and dtypes, plain containers and numbers, joblib's array wrapper) and refuses all else by
name, before it is looked up. Reading happens in C, at the speed of `pickle.load`.

The NumPy names lead to stand-ins, because NumPy trusts a pickle as much as its own memory: a dtype whose state claims
that pointers are plain bytes turns bytes of the file into Python objects. So a file chooses a dtype by its name alone,
gives an array its bytes once, and can set attributes of nothing.

Streams understood: Python 2 pickles (protocol 0, latin-1 strings, `numpy.core` names), today's pickles, and joblib >=
0.10 files plain or compressed by zlib, gzip, bz2, xz or lzma, whether their classes are called `joblib` or
`sklearn.externals.joblib`.
"""

import bz2
import collections
import gzip
import io
import lzma
import math
import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from attrtrain.errors import LabelError, UnsafeFileError
from attrtrain.garbage import no_garbage_collection

_BUILTINS = (dict, list, tuple, set, frozenset, int, float, complex, bool, str, bytes, bytearray)
_SCALARS = (
    *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64, np.str_, np.bytes_),
)
_JOBLIB_MODULES = ("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle")
_BUFFER_BYTES = 64 * 1024  # a protocol-0 line holds a whole label vector, about 6,500 bytes
_PLAIN_DTYPE = re.compile(r"[biuf]\d{1,2}|[SU]\d{1,6}")  # truth values, numbers, strings; no objects, no records


class _Dtype:
    """Stands in for `numpy.dtype`: a dtype chosen by name and byte order, whatever else the file says about it."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, *_: Any) -> None:
        if not _PLAIN_DTYPE.fullmatch(name):
            raise UnsafeFileError(
                f"refused NumPy type {_shown(name)}: a label file needs numbers and strings, and other types could run code"
            )
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stands in for `numpy.ndarray`, and for the function that makes an empty one for a pickle to fill."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> "_Array":
        return np.ndarray.__new__(cls, 0)

    def __setstate__(self, state: Any) -> None:
        _version, shape, stand_in, fortran, data = state
        dtype = stand_in.dtype
        if self.size:  # NumPy would free memory that rows taken from the array may still point to
            raise UnsafeFileError("refused to fill an array a second time")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
            raise LabelError(f"{len(data)} bytes do not fill an array of shape {_shown(shape)} and type {dtype}")
        # Called a hundred thousand times for a full-size file, hence no super(); `data` may be latin-1 text, too.
        np.ndarray.__setstate__(self, (1, shape, dtype, fortran, data))


class _JoblibArray(_Array):
    """Stands in for joblib's NumpyArrayWrapper: becomes the array whose raw bytes follow it in the stream.

    joblib swaps wrapper and array in a pure-Python unpickler, which takes minutes on a full-size file. Here the wrapper
    *is* an array: the C unpickler calls `__setstate__` when it has read the wrapper, and that is just where the array's
    bytes begin. It needs a stream that is never read ahead, such as `io.BytesIO`.
    """

    __slots__ = ()
    _stream: BinaryIO  # set by the subclass that one unpickler makes for its own stream

    def __setstate__(self, state: Any) -> None:
        dtype, shape = state["dtype"], state["shape"]
        if state.get("numpy_array_alignment_bytes") is not None:  # since joblib 1.2
            padding = self._stream.read(1)
            self._stream.read(int.from_bytes(padding, "little"))
        size = dtype.dtype.itemsize * math.prod(shape)
        data = self._stream.read(max(size, 0))
        if len(data) < size:
            raise LabelError("the file ends inside an array; it is incomplete: fetch it again")
        super().__setstate__((1, shape, dtype, state["order"] == "F", data))


class _Function:
    """A function that a file may call but not alter: setting its attributes ends here."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise UnsafeFileError("refused to set attributes of a function")


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    """A NumPy number or string, as `numpy._core.multiarray.scalar` makes it."""
    array = _Array()
    array.__setstate__((1, (1,), dtype, False, data))
    return array[0]


def _from_buffer(
    data: bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: str, axes: tuple[int, ...] | None = None
) -> Any:
    """An array of pickle protocol 5, as `numpy._core.numeric._frombuffer` makes it; order "K" comes with its axes."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(data)))
    return array if axes is None else array.transpose(axes)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as pickle protocols 0 to 2 spell them: latin-1 text."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafeFileError(f"refused _codecs.encode to {_shown(encoding)}: a label file needs latin1 only")
    return text.encode("latin1")


def _allowed_names() -> dict[tuple[str, str], Any]:
    """The whole allow-list, (module, name) → object. Names are matched whole, so no attribute can be reached through
    them.
    """
    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("_codecs", "encode"): _Function(_encode),
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("__builtin__", "long"): int,
        ("__builtin__", "unicode"): str,
    }
    for kind in _BUILTINS:
        allowed["builtins", kind.__name__] = allowed["__builtin__", kind.__name__] = kind
    for scalar in _SCALARS:
        allowed["numpy", scalar.__name__] = scalar
    allowed["numpy", "bool_"] = np.bool_  # whose __name__ is "bool" since NumPy 2
    for module in ("numpy.core", "numpy._core"):  # NumPy 2 renamed the first to the second
        allowed[f"{module}.multiarray", "_reconstruct"] = _Array
        allowed[f"{module}.multiarray", "scalar"] = _Function(_scalar)
        allowed[f"{module}.numeric", "_frombuffer"] = _Function(_from_buffer)
    return allowed


class _NeedsExactReads(Exception):
    """The stream turned out to be an uncompressed joblib file and must be read again from memory."""


class _AllowListUnpickler(pickle.Unpickler):
    _allowed = _allowed_names()

    def __init__(self, stream: BinaryIO) -> None:
        # The C unpickler reads ahead on any stream that offers to peek, which would take the bytes that follow a
        # wrapper.
        self._reads_ahead = hasattr(stream, "peek")
        # latin-1 keeps the bytes of Python 2 strings as they are: NumPy takes array buffers back from it, and ASCII is
        # unharmed.
        super().__init__(stream, fix_imports=False, encoding="latin1")
        self._wrapper = type("NumpyArrayWrapper", (_JoblibArray,), {"_stream": stream, "__slots__": ()})

    def find_class(self, module: str, name: str) -> Any:
        if module in _JOBLIB_MODULES and name == "NumpyArrayWrapper":
            if self._reads_ahead:
                raise _NeedsExactReads
            return self._wrapper
        if module in _JOBLIB_MODULES and name in ("NDArrayWrapper", "ZNDArrayWrapper"):
            raise LabelError(
                "was written by joblib before 0.10, which keeps its arrays in files beside it; save it again with a newer joblib"
            )
        try:
            return self._allowed[module, name]
        except KeyError:
            raise UnsafeFileError(
                f"refused {_shown(f'{module}.{name}')}: it is none of the plain data types a label file needs, "
                "and reading it could run code"
            ) from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UnsafeFileError(f"refused persistent id {_shown(pid)}: a label file holds all of its data itself")


def _shown(value: Any) -> str:
    """Text from the file, fit for a one-line message: no line breaks, no terminal codes, and not too long."""
    text = str(value).encode("unicode_escape").decode("ascii")
    return text if len(text) <= 120 else f"{text[:117]}..."


def load_pickle(path: Path) -> Any:
    """Reads a pickle or joblib file that may hold plain containers, numbers, strings and NumPy arrays only.

    Raises:
        UnsafeFileError: the file names anything else; nothing of it was called.
        LabelError: the file is missing, damaged, or no pickle at all.
    """
    try:
        with no_garbage_collection(), path.open("rb", buffering=_BUFFER_BYTES) as file:
            decompress = _decompressor(file.read(6))
            file.seek(0)
            if decompress is None:
                try:
                    return _AllowListUnpickler(file).load()
                except _NeedsExactReads:
                    file.seek(0)
            data = file.read()
            return _AllowListUnpickler(io.BytesIO(decompress(data) if decompress else data)).load()
    except LabelError as error:
        raise type(error)(f"{path}: {error}") from None
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror or error}") from None
    except MemoryError:
        raise  # this machine's failure, not the file's
    except Exception as error:  # a damaged stream makes the unpickler raise nearly anything
        raise LabelError(
            f"{path}: not a readable pickle or joblib file ({type(error).__name__}: {_shown(error)}); is the download complete?"
        ) from None


def _decompressor(magic: bytes) -> Callable[[bytes], bytes] | None:
    if magic[:1] == b"\x78" and len(magic) > 1 and int.from_bytes(magic[:2], "big") % 31 == 0:  # RFC 1950 header check
        return zlib.decompress
    if magic[:2] == b"\x1f\x8b":
        return gzip.decompress
    if magic[:3] == b"BZh":
        return bz2.decompress
    if magic[:6] == b"\xfd7zXZ\x00" or magic[:3] == b"\x5d\x00\x00":
        return lzma.decompress
    if magic[:4] == b"\x04\x22\x4d\x18":
        raise LabelError("is compressed with lz4; save it again with joblib.dump(..., compress=3)")
    if magic[:2] == b"ZF":
        raise LabelError("was written by joblib before 0.10; save it again with a newer joblib")
    return None
