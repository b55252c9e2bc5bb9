"""Pickles of plain values and arrays, read within bounds and without running code.

Python's own unpickler imports what a file names, and a few bytes make it take all memory. This
reader has only the instructions that ``paddle.save`` writes; it calls nothing that a file names,
allocates nothing that the file does not hold, and gives plain values only (:mod:`.plain_values`).
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, NamedTuple, NoReturn

import numpy as np

from liteseg_plugin.errors import WeightsError, printable
from liteseg_plugin.system.plain_values import MOST_OBJECTS, check_plain

_MOST_NAME = 256  # characters of a global's name
_MOST_AXES = 32  # NumPy's own limit
_INSTRUCTIONS = {op.code.encode("latin1"): op.name for op in pickletools.opcodes}


def load_arrays(file: BinaryIO) -> Any:
    """Return what a pickle holds, if it is plain values and arrays of numbers.

    Raises:
        WeightsError: If it holds anything else, or exceeds the bounds of :mod:`.plain_values`.
        Exception: Of any kind, if it is not a pickle.
    """
    return PickleReader(file).load()


class _Global(NamedTuple):
    """Stands for a function or class that a file names, until it is called."""

    module: str
    name: str


class _Unfinished:
    """Stands for an array or a type until its state is known; ``keys`` are its places in the memo.

    Attributes:
        finish: Makes the value of the state.
    """

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self.finish = finish
        self.keys: list[int] = []


class _Content:
    """Bytes of an array, in memory that the array takes over."""

    def __init__(self, flat: np.ndarray) -> None:
        self.flat = flat
        self.is_taken = False


class PickleReader:
    """Interprets the instructions of a pickle.

    Args:
        file: The file, open at its start; it can be sought.

    Attributes:
        size: Bytes of the file, which bound those of the arrays.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        file.seek(0)
        self._made = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the value of the pickle, which is plain."""
        read, run = self._file.read, self._RUN
        for _ in range(MOST_OBJECTS):
            code = read(1)
            if code == pickle.STOP:
                value = self._pop()
                check_plain(value, self.size)
                return value
            instruction = run.get(code) or _unknown(code)
            instruction(self)
        raise WeightsError(f"it has more than {MOST_OBJECTS} values")

    # --- the file ----------------------------------------------------------------------------

    def _bytes(self, number: int) -> bytes:
        if number > 255:
            self._check_length(number)
        content = self._file.read(number)
        if len(content) < number:
            raise EOFError("it ends early")
        return content

    def _check_length(self, number: int) -> None:
        # Before memory is taken for it.
        if number > self.size - self._file.tell():
            raise EOFError("it ends early")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _number(self, layout: str) -> int:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        line = self._file.readline(_MOST_NAME)
        if not line.endswith(b"\n"):
            raise EOFError("a name has no end")
        return line[:-1].decode()

    # --- the stack ---------------------------------------------------------------------------

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise pickle.UnpicklingError("its stack is empty")
        return self._stack.pop()

    def _to_mark(self) -> list[Any]:
        if not self._marks:
            raise pickle.UnpicklingError("it has no mark")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _last(self, number: int) -> list[Any]:
        return [self._pop() for _ in range(number)][::-1]

    def _append(self, values: list[Any]) -> None:
        target = self._top(list)
        target += values

    def _set(self, pairs: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(pairs[::2], pairs[1::2]):
            if type(key) is not str:
                self._check_key(key)
            target[key] = value

    def _check_key(self, key: Any) -> None:
        # Keys of other types can be made to collide.
        raise WeightsError(f"it has a key of type {type(key).__name__}, which is not text")

    def _top(self, kind: type) -> Any:
        value = self._pop()
        if type(value) is not kind:
            raise pickle.UnpicklingError(f"{type(value).__name__} instead of {kind.__name__}")
        self._push(value)
        return value

    # --- the memo ----------------------------------------------------------------------------

    def _put(self, key: int) -> None:
        value = self._pop()
        self._push(value)
        self._memo[key] = value
        if isinstance(value, _Unfinished):
            value.keys.append(key)

    def _get(self, key: int) -> None:
        self._push(self._memo[key])

    # --- text and bytes ----------------------------------------------------------------------

    def _text(self, length: int) -> None:
        self._push(self._bytes(length).decode())

    def _content(self, length: int) -> None:
        self._check_length(length)
        flat = np.empty(length, np.uint8)
        if self._file.readinto(flat.data) < length:  # type: ignore[attr-defined]
            raise EOFError("it ends early")
        self._push(_Content(flat))

    def _own(self, content: bytes) -> np.ndarray:
        """Return bytes that an array can take; all together at most as many as the file has."""
        self._made += len(content)
        if self._made > self.size:
            raise WeightsError(f"its arrays take more than the {self.size} bytes of the file")
        flat: np.ndarray = np.ndarray(0, np.uint8)
        # Unpickling as NumPy does it: few bytes are copied, many are taken over, writable.
        flat.__setstate__((1, (len(content),), flat.dtype, False, content))
        return flat

    # --- what is called ----------------------------------------------------------------------

    def _global(self, module: str, name: str) -> None:
        if type(module) is not str or type(name) is not str:
            raise pickle.UnpicklingError("a name is not text")
        if (module, name) not in self._CALL:
            full = printable(f"{module}.{name}")
            raise WeightsError(f"it asks for {full}, which is not an array")
        self._push(_Global(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(arguments) is not tuple or not isinstance(function, _Global):
            raise WeightsError(f"it calls a value of type {type(function).__name__}")
        self._push(self._CALL[function](self, *arguments))

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, _Unfinished):
            raise WeightsError(f"it changes the state of a value of type {type(target).__name__}")
        value = target.finish(state)
        for key in target.keys:
            self._memo[key] = value
        self._push(value)

    def _dtype(self, code: Any, *flags: Any) -> Any:
        if type(code) is not str or not re.fullmatch(r"[biuf]\d{1,2}", code):
            raise WeightsError(f"it holds an array of type {_shown(code)}, not of numbers")
        dtype = np.dtype(code)
        return _Unfinished(lambda state: dtype.newbyteorder(state[1]))

    def _array(self, *_: Any) -> Any:
        return _Unfinished(self._filled)

    def _filled(self, state: tuple) -> np.ndarray:
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, np.dtype):
            raise WeightsError("it holds an array of unknown type")
        if type(content) is bytes:
            flat = self._own(content)
        elif content.is_taken:
            flat = self._own(content.flat.tobytes())
        else:
            flat, content.is_taken = content.flat, True
        if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
            raise WeightsError(f"it holds an array of the shape {', '.join(map(_shown, shape))}")
        if math.prod(shape) * dtype.itemsize != len(flat):
            raise WeightsError(f"it holds an array {list(shape)} of {dtype} in {len(flat)} bytes")
        return flat.view(dtype).reshape(shape, order="F" if is_fortran else "C")

    def _not_called(self, *_: Any) -> NoReturn:
        raise WeightsError("it calls a type, which weights do not need")

    def _same_tuple(self, values: Any) -> tuple:
        if type(values) is not tuple:
            raise WeightsError(f"it makes a tuple of a {type(values).__name__}")
        return values

    def _latin1(self, text: Any, encoding: Any) -> _Content:
        """Return the bytes that protocol 2 writes as text."""
        if type(text) is not str or encoding != "latin1":
            raise WeightsError(f"it encodes text as {_shown(encoding)}")
        return _Content(self._own(text.encode("latin1")))

    _CALL: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy", "dtype"): _dtype,
        ("numpy", "ndarray"): _array,
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("numpy._core.multiarray", "_reconstruct"): _array,
        ("collections", "OrderedDict"): lambda self: {},
        ("_codecs", "encode"): _latin1,
        ("builtins", "tuple"): _same_tuple,  # of name and array, for a tensor
        ("__builtin__", "tuple"): _same_tuple,
    }
    _RUN: ClassVar[dict[bytes, Callable[[PickleReader], Any]]] = {
        pickle.PROTO: lambda self: self._bytes(1),
        pickle.FRAME: lambda self: self._bytes(8),
        pickle.MARK: _mark,
        pickle.NONE: lambda self: self._push(None),
        pickle.NEWTRUE: lambda self: self._push(True),
        pickle.NEWFALSE: lambda self: self._push(False),
        pickle.BININT: lambda self: self._push(self._number("<i")),
        pickle.BININT1: lambda self: self._push(self._byte()),
        pickle.BININT2: lambda self: self._push(self._number("<H")),
        pickle.LONG1: lambda self: self._push(pickle.decode_long(self._bytes(self._byte()))),
        pickle.BINFLOAT: lambda self: self._push(self._number(">d")),
        pickle.SHORT_BINUNICODE: lambda self: self._text(self._byte()),
        pickle.BINUNICODE: lambda self: self._text(self._number("<I")),
        pickle.BINUNICODE8: lambda self: self._text(self._number("<Q")),
        pickle.SHORT_BINBYTES: lambda self: self._push(self._bytes(self._byte())),
        pickle.BINBYTES: lambda self: self._content(self._number("<I")),
        pickle.BINBYTES8: lambda self: self._content(self._number("<Q")),
        pickle.EMPTY_LIST: lambda self: self._push([]),
        pickle.EMPTY_DICT: lambda self: self._push({}),
        pickle.EMPTY_TUPLE: lambda self: self._push(()),
        pickle.TUPLE1: lambda self: self._push(tuple(self._last(1))),
        pickle.TUPLE2: lambda self: self._push(tuple(self._last(2))),
        pickle.TUPLE3: lambda self: self._push(tuple(self._last(3))),
        pickle.TUPLE: lambda self: self._push(tuple(self._to_mark())),
        pickle.APPEND: lambda self: self._append([self._pop()]),
        pickle.APPENDS: lambda self: self._append(self._to_mark()),
        pickle.SETITEM: lambda self: self._set(self._last(2)),
        pickle.SETITEMS: lambda self: self._set(self._to_mark()),
        pickle.BINPUT: lambda self: self._put(self._byte()),
        pickle.LONG_BINPUT: lambda self: self._put(self._number("<I")),
        pickle.MEMOIZE: lambda self: self._put(len(self._memo)),
        pickle.BINGET: lambda self: self._get(self._byte()),
        pickle.LONG_BINGET: lambda self: self._get(self._number("<I")),
        pickle.GLOBAL: lambda self: self._global(self._line(), self._line()),
        pickle.STACK_GLOBAL: lambda self: self._global(*self._last(2)),
        pickle.REDUCE: _reduce,
        pickle.BUILD: _build,
    }


def _unknown(code: bytes) -> NoReturn:
    if not code:
        raise EOFError("it ends early")
    if code in _INSTRUCTIONS:
        raise WeightsError(
            f"it uses the pickle instruction {_INSTRUCTIONS[code]}, which weights do not need"
        )
    raise pickle.UnpicklingError(f"{code!r} is not a pickle instruction")


def _shown(value: Any) -> str:
    if type(value) not in (int, str):  # which may be endless when written
        return f"a {type(value).__name__}"
    text = printable(repr(value))
    return text if len(text) < 60 else f"{text[:60]}..."
