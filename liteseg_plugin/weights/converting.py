"""Weights between ``.pdparams`` and safetensors, and from PyTorch's PP-LiteSeg."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from liteseg_plugin.errors import WeightsError, printable
from liteseg_plugin.system.checksums import check_sum, file_sha256
from liteseg_plugin.system.files import scratch_folder, to_disk
from liteseg_plugin.system.torch_file import load_torch
from liteseg_plugin.weights.fetching import local_path
from liteseg_plugin.weights.loading import as_float32, read_state_dict
from liteseg_plugin.weights.super_gradients import is_super_gradients, state_dict_in, to_paddleseg

SUFFIXES = (".safetensors", ".pdparams")
_OF_TORCH = (".pth", ".pt")


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` wrote.

    Attributes:
        source: The file that was read.
        path: The file that was written.
        sha256: Its SHA-256.
        arrays: Number of arrays.
        values: Number of values in them.
        widened: Number of arrays of bfloat16 that became float32, with equal values.
    """

    source: str
    path: str
    sha256: str
    arrays: int
    values: int
    widened: int

    def to_json(self) -> dict[str, Any]:
        """Return the facts."""
        return dataclasses.asdict(self)


def convert(weights: str, dest: str | os.PathLike) -> Conversion:
    """Write weights in another format, with the same names, types and values.

    Those of PP-LiteSeg in PyTorch get PaddleSeg's names: see :mod:`.super_gradients`.

    Args:
        weights: A file, a URL, or the name of released weights; ``.pth`` and ``.pt`` are PyTorch's.
        dest: The file to write, which must not exist; its suffix is one of ``SUFFIXES``.

    Raises:
        WeightsError: If the weights cannot be read, or ``dest`` is not such a file.
        OSError: If it cannot be written.
    """
    dest = Path(dest)
    if dest.suffix not in SUFFIXES:
        raise WeightsError(f"{printable(dest)} must end in {' or '.join(SUFFIXES)}")
    if dest.exists():
        raise WeightsError(f"{printable(dest)} already exists; give another name, or delete it")
    source = local_path(weights)
    read = read_torch(source) if Path(source).suffix in _OF_TORCH else read_state_dict(source)
    arrays = {name: as_float32(a) if a.dtype == np.uint16 else a for name, a in read.items()}
    if is_super_gradients(arrays):
        arrays = to_paddleseg({name: as_float32(array) for name, array in arrays.items()})
    dest.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(dest.parent, "convert") as scratch:
        made = scratch / dest.name
        if dest.suffix == ".pdparams":
            paddle.save({name: paddle.to_tensor(a) for name, a in arrays.items()}, str(made))
        else:
            save_safetensors(arrays, made)
        if not _same(arrays, read_state_dict(made)):
            raise WeightsError(f"{printable(dest)} would not hold the values of {source}")
        to_disk(made)
        os.replace(made, dest)
    to_disk(dest.parent)
    return Conversion(
        source=source,
        path=str(dest),
        sha256=file_sha256(dest),
        arrays=len(arrays),
        values=sum(array.size for array in arrays.values()),
        widened=sum(array.dtype == np.uint16 for array in read.values()),
    )


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the weights of a PP-LiteSeg of super-gradients or LibreYOLO from PyTorch's file.

    Raises:
        WeightsError: If the file cannot be read, or is of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights not found: {path}")
    check_sum(path)
    try:
        arrays = state_dict_in(load_torch(path))
    except WeightsError as error:
        raise WeightsError(f"refused to load {path}: {error}") from None
    except Exception as error:  # a hostile file may raise anything
        raise WeightsError(f"{path} is not a file of torch.save ({error!r})") from error
    if not is_super_gradients(arrays):
        raise WeightsError(
            f"{path} is not a PP-LiteSeg of super-gradients or LibreYOLO, which alone are "
            "converted from PyTorch"
        )
    return arrays


def save_safetensors(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write arrays by name as safetensors.

    Raises:
        WeightsError: If the package is missing.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise WeightsError("safetensors is not installed: pip install safetensors") from None
    # It writes the memory as it is, whatever the strides and the order of bytes.
    native = {
        name: np.array(array, array.dtype.newbyteorder("="), order="C")
        for name, array in arrays.items()
    }
    save_file(native, str(path), metadata={"format": "paddle"})


def _same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape
        and first[name].dtype.newbyteorder("=") == second[name].dtype.newbyteorder("=")
        and np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f")
        for name in first
    )
