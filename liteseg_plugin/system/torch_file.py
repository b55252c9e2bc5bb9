"""Files of ``torch.save``, read within bounds and without running code or PyTorch.

The format is a zip with a pickle, ``data.pkl``, and a file for the bytes of each tensor. The pickle
is read as :mod:`.array_pickle` does, which calls nothing that it names.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.system.array_pickle import PickleReader

_MOST_MEMBERS = 100_000
_MOST_PICKLE_BYTES = 64 << 20
_LARGEST_KEY = 65535  # of a dictionary, such as classes by number
# bfloat16 as Paddle stores it: NumPy has none.
_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


def load_torch(path: str | os.PathLike) -> Any:
    """Return what a file of ``torch.save`` holds, if it is plain values and tensors.

    Raises:
        WeightsError: If it holds anything else, or exceeds the bounds of :mod:`.plain_values`.
        Exception: Of any kind, if it is not such a file.
    """
    if not zipfile.is_zipfile(path):
        raise WeightsError("it is not a zip, as torch.save writes since PyTorch 1.6: save it again")
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise WeightsError(f"it has more than {_MOST_MEMBERS} members")
        [name] = [m.filename for m in members if m.filename.endswith("/data.pkl")]
        return _TorchReader(archive, name.removesuffix("data.pkl"), size).load()


class _TorchReader(PickleReader):
    """Interprets the ``data.pkl`` in a folder of a zip of ``size`` bytes."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, size: int) -> None:
        self._archive, self._folder = archive, folder
        self._most = self._unread = size
        self._storages: dict[str, np.ndarray] = {}
        super().__init__(io.BytesIO(self._member("data.pkl", _MOST_PICKLE_BYTES)))
        self.size = size
        if f"{folder}byteorder" in archive.namelist() and self._member("byteorder", 8) != b"little":
            raise WeightsError("it was written on a machine of another byte order")

    def _member(self, name: str, most: int) -> bytes:
        info = self._archive.getinfo(self._folder + name)
        self._unread -= info.file_size  # members may overlap
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > most or self._unread < 0:
            raise WeightsError(f"its member {name} is compressed, or larger than it can be")
        return self._archive.read(info)

    def _check_key(self, key: Any) -> None:
        if type(key) is not int or not 0 <= key <= _LARGEST_KEY:
            super()._check_key(key)

    def _storage(self) -> None:
        """Give the bytes of a tensor, as an array of one axis."""
        kind, storage, key, _, number = self._pop()
        name = storage.name
        if kind != "storage" or name not in _TYPES or type(key) is not str:
            raise WeightsError("it names something outside of itself")
        if key not in self._storages:
            self._storages[key] = np.frombuffer(
                self._member(f"data/{key}", self.size), _TYPES[name]
            )
        if self._storages[key].dtype != _TYPES[name] or len(self._storages[key]) != number:
            raise WeightsError(f"the tensor {key} does not have the {number} values of {name}")
        self._push(self._storages[key])

    def _tensor(self, flat: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
        numbers = [offset, *shape, *strides]
        if any(type(n) is not int or n < 0 for n in numbers) or len(shape) != len(strides):
            raise WeightsError("it holds a tensor of an unknown shape")
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
        if math.prod(shape) > len(flat) or (math.prod(shape) and last >= len(flat)):
            raise WeightsError(f"it holds a tensor {list(shape)} in {len(flat)} values")
        size = flat.itemsize
        view = np.lib.stride_tricks.as_strided(
            flat[offset:], shape, [stride * size for stride in strides], writeable=False
        )
        self._made += view.nbytes
        if self._made > self.size:
            raise WeightsError(f"its tensors take more than the {self.size} bytes of the file")
        return view.copy()

    _CALL: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("collections", "OrderedDict"): lambda self: {},
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda self, tensor, *_: tensor,
        **{("torch", name): PickleReader._not_called for name in _TYPES},
    }
    _RUN: ClassVar[dict[bytes, Callable[[Any], Any]]] = {
        **PickleReader._RUN,
        pickle.BINPERSID: _storage,
    }
