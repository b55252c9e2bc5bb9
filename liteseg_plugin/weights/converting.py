"""Weights between ``.pdparams`` and safetensors."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from liteseg_plugin.errors import WeightsError, printable
from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.system.files import scratch_folder, to_disk
from liteseg_plugin.weights.fetching import local_path
from liteseg_plugin.weights.loading import as_float32, read_state_dict

SUFFIXES = (".safetensors", ".pdparams")


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

    Args:
        weights: A file, a URL, or the name of released weights.
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
    read = read_state_dict(source)
    arrays = {name: as_float32(a) if a.dtype == np.uint16 else a for name, a in read.items()}
    dest.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(dest.parent, "convert") as scratch:
        made = scratch / dest.name
        if dest.suffix == ".pdparams":
            paddle.save({name: paddle.to_tensor(a) for name, a in arrays.items()}, str(made))
        else:
            _save_safetensors(arrays, made)
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


def _save_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
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
