"""Reading a pickle that strangers wrote: arrays, numbers, words and plain containers come out, and nothing else runs.

Nothing of numpy itself is called with what a file says: its arrays, types and scalars are made here, after their
sizes were checked. The claims of a file (lengths, memo places) are checked against its size before it is read.
"""

import pickle
import pickletools
import re
import sys
from collections.abc import Callable
from math import prod
from os import SEEK_CUR
from pathlib import Path
from typing import IO, Any

import numpy as np

from elmd.errors import BadData

_TYPE = re.compile(r"[<>|=]?([biufUSO])(\d{0,6})")
_LENGTH_BYTES = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4} | {
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}


def read_pickle(path: Path) -> Any:
    """Return what a pickle file holds: arrays (of a subclass of `numpy.ndarray`), numbers, words, plain containers.

    Raises BadData where it is damaged, too large for the memory, or holds anything else, which is named.
    """
    try:
        with path.open("rb") as file:
            _check_claims(file, path.stat().st_size)
            file.seek(0)
            return _Unpickler(file, encoding="latin1").load()
    except MemoryError as error:
        raise BadData(path, None, "needs more memory than there is") from error
    except Exception as error:  # a damaged pickle may raise anything that its operations raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadData(path, None, f"not a pickle that elmd reads ({reason:.200})") from error


def _check_claims(file: IO[bytes], size: int) -> None:
    """Walk the operations without their payloads; raise ValueError where a length or memo place cannot be true.

    The unpickler believes such numbers and sets the memory aside before it looks whether the bytes are there.
    """
    operations, name = 0, ""
    while name != "STOP":
        operation = _OPERATIONS.get(file.read(1))
        if operation is None:
            raise ValueError("it is cut off or damaged")
        name, operations = operation.name, operations + 1
        argument = operation.arg.n if operation.arg else 0
        if argument == pickletools.UP_TO_NEWLINE:
            number = _lines(file, name)
        else:
            number = int.from_bytes(file.read(_LENGTH_BYTES.get(argument, argument)), "little")
        if (argument in _LENGTH_BYTES or name == "FRAME") and number > size - file.tell():
            raise ValueError(f"it claims {number:,} bytes that it does not have")
        if name in _MEMO and number > operations:
            raise ValueError(f"it claims {number:,} objects that it does not have")
        if argument in _LENGTH_BYTES:
            file.seek(number, SEEK_CUR)


def _lines(file: IO[bytes], name: str) -> int:
    """Pass over the lines of an operation of protocol 0; return the memo place if it is one."""
    line = file.readline()
    if name in ("GLOBAL", "INST"):
        line = file.readline()
    if not line.endswith(b"\n"):
        raise ValueError("it is cut off")
    return int(line) if name in _MEMO else 0


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        make = _ADMITTED.get((module.replace("numpy.core", "numpy._core"), name))
        if make is None:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is refused")
        return _Maker(make)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside itself, which is refused")


class _Maker:
    """A function that a pickle may call, but neither change nor make a subclass or an instance of."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function, which is refused")


class _Type:
    """The dtype of an array as the pickle spells it; only numbers, words and objects are admitted."""

    __slots__ = ("_name", "_order")

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not _TYPE.fullmatch(name):
            raise pickle.UnpicklingError(f"it holds arrays of {name!r:.60}, which are refused")
        self._name, self._order = name.lstrip("<>|="), "="

    def __setstate__(self, state: Any) -> None:
        # (version, order, subarray, names, fields, ...): what follows is implied by the name.
        version, order, *compound = state[:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in compound):
            raise pickle.UnpicklingError("it holds arrays of compound types, which are refused")
        self._order = order

    def dtype(self) -> np.dtype[Any]:
        order = "" if self._order == "|" else self._order
        return np.dtype(f"{order}{self._name}")


class _Array(np.ndarray):  # type: ignore[type-arg]
    """An array whose state is checked before numpy takes it over."""

    def __setstate__(self, state: Any) -> None:
        data: Any
        _, shape, kind, fortran, data = state
        dtype = _dtype(kind)
        if dtype.hasobject:
            if not isinstance(data, list) or len(data) != _count(shape):
                raise pickle.UnpicklingError("the shape of an array does not fit its contents")
        else:
            data = _fitting(dtype, _count(shape), _raw(data))
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


def _empty(kind: Any, *_: Any) -> _Array:
    """Stand for numpy's `_reconstruct`: an empty array, whose state follows."""
    if not (isinstance(kind, _Maker) and kind._make is _refuse):
        raise pickle.UnpicklingError("it holds an array of an unknown class")
    return np.empty(0, np.uint8).view(_Array)


def _refuse(*_: Any) -> None:
    raise pickle.UnpicklingError("it makes an array by a call, which is refused")


def _scalar(kind: Any, data: Any = None) -> Any:
    dtype = _dtype(kind)
    if dtype.hasobject:
        raise pickle.UnpicklingError("it holds an object scalar, which is refused")
    if not dtype.itemsize:
        return ""
    return np.frombuffer(_fitting(dtype, 1, _raw(data)), dtype)[0].item()


def _from_buffer(buffer: Any, kind: Any, shape: Any, order: Any) -> _Array:
    dtype = _dtype(kind)
    raw = _fitting(dtype, _count(shape), _raw(buffer))
    array: Any = np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")
    return array.view(_Array)  # type: ignore[no-any-return]


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it encodes what is no latin-1 text, which is refused")
    return text.encode("latin-1")


def _nothing(make: Callable[[], Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if arguments:
            raise pickle.UnpicklingError("it makes a container by a call, which is refused")
        return make()

    return call


def _dtype(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Type):
        raise pickle.UnpicklingError("it holds an array without a type")
    return kind.dtype()


def _raw(data: Any) -> bytes | bytearray:
    """Return the bytes of an array; pickles of Python 2 hold them as text."""
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("it holds an array without bytes")
    return data


def _fitting(dtype: np.dtype[Any], count: int, raw: bytes | bytearray) -> bytes | bytearray:
    """Return the bytes of `count` values if they are that; a code point beyond Unicode would break Python's text."""
    if dtype.hasobject or not dtype.itemsize or len(raw) != count * dtype.itemsize:
        raise pickle.UnpicklingError("the shape of an array does not fit its bytes")
    points = np.frombuffer(raw, f"{dtype.byteorder}u4") if dtype.kind == "U" else ()
    if len(points) and int(np.max(points)) > sys.maxunicode:
        raise pickle.UnpicklingError("it holds words that are no Unicode")
    return raw


def _count(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError("an array has no proper shape")
    return prod(shape)


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy._core.multiarray", "_reconstruct"): _empty,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _refuse,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _nothing(bytes),
    ("__builtin__", "bytes"): _nothing(bytes),
    ("collections", "OrderedDict"): _nothing(dict),
}
"""The only names that a pickle may use, and what each stands for here."""
