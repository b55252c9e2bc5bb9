"""Pickles of plain values and arrays, read without running code that they may hold."""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO, ClassVar

import numpy as np

from liteseg_plugin.errors import WeightsError


class _Dtype:
    """Replaces ``numpy.dtype`` in a pickle; accepts numbers only."""

    def __init__(self, code: str, *flags: Any) -> None:
        if not re.fullmatch(r"[biuf]\d+", code):
            raise WeightsError(f"it holds an array of type {code!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Replaces ``numpy.ndarray`` in a pickle until the array is complete."""

    def __init__(self, *arguments: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, content = state
        flat = np.frombuffer(content, kind.dtype)
        # A copy: what is read from bytes cannot be written.
        self.array = flat.reshape(shape, order="F" if is_fortran else "C").copy()


def load_arrays(file: BinaryIO) -> Any:
    """Return what a pickle holds, if it is plain values and arrays of numbers.

    Args:
        file: The open file.

    Raises:
        WeightsError: If it holds anything else.
        Exception: Of any kind, if it is not a pickle.
    """
    return _with_arrays(_ArrayUnpickler(file).load())


def _with_arrays(value: Any) -> Any:
    """Replace the placeholders by arrays."""
    if isinstance(value, _Array):
        if value.array is None:
            raise WeightsError("it holds an array without content")
        return value.array
    if isinstance(value, dict):
        return {key: _with_arrays(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_arrays, value))
    return value


def _latin1(text: str, encoding: str) -> bytes:
    """Replaces ``_codecs.encode``, which protocol 2 uses for bytes."""
    if encoding != "latin1":
        raise WeightsError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    _ADMITTED: ClassVar = {
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("collections", "OrderedDict"): dict,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise WeightsError(f"it asks for {module}.{name}, which is not an array") from None
