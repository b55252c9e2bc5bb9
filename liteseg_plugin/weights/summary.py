"""What a file of weights holds."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.weights.fetching import local_path
from liteseg_plugin.weights.loading import read_state_dict


@dataclass(frozen=True)
class WeightsSummary:
    """What a file of weights holds.

    Attributes:
        arrays: Number of arrays.
        values: Number of values in them.
        types: Types of the arrays.
        not_finite: Names of arrays with NaN or infinity.
    """

    path: str
    size_bytes: int
    sha256: str
    arrays: int
    values: int
    types: list[str]
    not_finite: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the facts; ``ok`` tells whether all values are finite."""
        return {**dataclasses.asdict(self), "ok": not self.not_finite}


def summarize(weights: str) -> WeightsSummary:
    """Say what weights hold: a file, a URL, or the name of released weights.

    Raises:
        WeightsError: If they cannot be read.
    """
    path = local_path(weights)
    arrays = read_state_dict(path)
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    return WeightsSummary(
        path=path,
        size_bytes=os.path.getsize(path),
        sha256=file_sha256(path),
        arrays=len(arrays),
        values=sum(array.size for array in arrays.values()),
        types=sorted({str(array.dtype) for array in arrays.values()}),
        not_finite=[name for name, array in floats.items() if not np.isfinite(array).all()],
    )
