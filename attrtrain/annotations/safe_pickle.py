"""Reads label pickles without ever running what is inside them.

Unpickling is a small program that may call anything it can name. This reader lets a file name only what label files need (NumPy
arrays, scalars and dtypes, plain containers and numbers, joblib's array wrapper) and refuses all else by name, before
it is looked up. Reading happens in C, at the speed of `pickle.load`.

Streams understood: Python 2 pickles (protocol 0, latin-1 strings, `numpy.core` names), today's pickles, and joblib >= 0.10 files
plain or compressed by zlib, gzip, bz2, xz or lzma, whether their classes are called `joblib` or `sklearn.externals.joblib`.
"""

import builtins
import bz2
import collections
import gzip
import io
import lzma
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from attrtrain.errors import LabelError, UnsafeFileError

_SCALAR_TYPES = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 intp longlong ulonglong str_ bytes_"
).split()
_BUILTINS = "dict list tuple set frozenset int float complex bool str bytes bytearray".split()
_NUMPY_MODULES = ("numpy.core.", "numpy._core.")  # NumPy 2 renamed the first to the second
_JOBLIB_MODULES = ("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle")


class _JoblibArray(np.ndarray):  # type: ignore[type-arg]
    """Stands in for joblib's NumpyArrayWrapper: becomes the array whose raw bytes follow it in the stream.

    joblib swaps wrapper and array in a pure-Python unpickler, which takes minutes on a full-size file. Here the wrapper *is* an array: the C
    unpickler calls `__setstate__` when it has read the wrapper, and that is just where the array's bytes begin. It needs a stream that is
    never read ahead, such as `io.BytesIO`.
    """

    _stream: BinaryIO  # set by the subclass that one unpickler makes for its own stream

    def __new__(cls) -> "_JoblibArray":
        return super().__new__(cls, (0,))

    def __setstate__(self, state: Any) -> None:
        dtype, shape, order = np.dtype(state["dtype"]), tuple(state["shape"]), state["order"]
        if dtype.hasobject:  # joblib reads such an array with a second, unrestricted pickle.load
            raise UnsafeFileError(
                "refused an array of Python objects inside a joblib file: reading it would run code from the file"
            )
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self._stream.read(1)
            self._stream.read(int.from_bytes(padding, "little"))
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        data = self._stream.read(size)
        if len(data) != size:
            raise LabelError("the file ends inside an array; it is incomplete: fetch it again")
        super().__setstate__((1, shape, dtype, order == "F", data))


def _allowed_names() -> dict[tuple[str, str], Any]:
    """The whole allow-list, (module, name) → object. Names are matched whole, so no attribute can be reached through them."""
    import _codecs

    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("_codecs", "encode"): _codecs.encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }
    for name in _BUILTINS:
        allowed["builtins", name] = allowed["__builtin__", name] = getattr(builtins, name)
    allowed["__builtin__", "long"] = int
    allowed["__builtin__", "unicode"] = str
    for name in _SCALAR_TYPES:
        allowed["numpy", name] = getattr(np, name)
    for prefix in _NUMPY_MODULES:
        allowed[prefix + "multiarray", "_reconstruct"] = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        allowed[prefix + "multiarray", "scalar"] = np._core.multiarray.scalar  # type: ignore[attr-defined]
        allowed[prefix + "numeric", "_frombuffer"] = np._core.numeric._frombuffer  # type: ignore[attr-defined]
    return allowed


class _NeedsExactReads(Exception):
    """The stream turned out to be an uncompressed joblib file and must be read again from memory."""


class _AllowListUnpickler(pickle.Unpickler):
    _allowed = _allowed_names()

    def __init__(self, stream: BinaryIO) -> None:
        # The C unpickler reads ahead on any stream that offers to peek, which would take the bytes that follow a wrapper.
        self._reads_ahead = hasattr(stream, "peek")
        # latin-1 keeps the bytes of Python 2 strings as they are: NumPy takes array buffers back from it, and ASCII is unharmed.
        super().__init__(stream, fix_imports=False, encoding="latin1")
        self._wrapper = type("NumpyArrayWrapper", (_JoblibArray,), {"_stream": stream})

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
                f"refused {module}.{name}: it is none of the plain data types a label file needs, and reading it could run code"
            ) from None


def load_pickle(path: Path) -> Any:
    """Reads a pickle or joblib file that may hold plain containers, numbers, strings and NumPy arrays only.

    Raises:
        UnsafeFileError: the file names anything else; nothing of it was called.
        LabelError: the file is missing, damaged, or no pickle at all.
    """
    try:
        with path.open("rb") as file:
            decompress = _decompressor(file.peek(6)[:6])
            if decompress is None:
                try:
                    return _AllowListUnpickler(file).load()
                except _NeedsExactReads:
                    file.seek(0)
            data = file.read()
        return _AllowListUnpickler(io.BytesIO(decompress(data) if decompress else data)).load()
    except (LabelError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        kind = type(error) if isinstance(error, LabelError) else LabelError
        raise kind(f"{path}: {reason}") from None
    except (
        Exception
    ) as error:  # a damaged stream makes the unpickler raise nearly anything; all of it means the same to the user
        raise LabelError(
            f"{path}: not a readable pickle or joblib file ({type(error).__name__}: {error}); is the download complete?"
        ) from None


def _decompressor(magic: bytes) -> Callable[[bytes], bytes] | None:
    match magic:
        case _ if (
            magic[:1] == b"\x78" and len(magic) > 1 and int.from_bytes(magic[:2]) % 31 == 0
        ):  # RFC 1950 header check
            return zlib.decompress
        case _ if magic[:2] == b"\x1f\x8b":
            return gzip.decompress
        case _ if magic[:3] == b"BZh":
            return bz2.decompress
        case _ if magic[:6] == b"\xfd7zXZ\x00" or magic[:3] == b"\x5d\x00\x00":
            return lzma.decompress
        case _ if magic[:4] == b"\x04\x22\x4d\x18":
            raise LabelError("is compressed with lz4; save it again with joblib.dump(..., compress=3)")
        case _ if magic[:2] == b"ZF":
            raise LabelError("was written by joblib before 0.10; save it again with a newer joblib")
    return None
