"""What a file of weights holds."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from liteseg_plugin.system.checksums import file_sha256
from liteseg_plugin.weights.fetching import local_path
from liteseg_plugin.weights.loading import read_state_dict


def summarize(weights: str) -> dict[str, Any]:
    """Say what weights hold: a file, a URL, or the name of released weights.

    Returns:
        ``path``, ``size_bytes``, ``sha256``, number of ``arrays``, number of ``values`` in them,
        their ``types``, names of those ``not_finite``, and ``ok``, if all are; ready for JSON.

    Raises:
        WeightsError: If they cannot be read.
    """
    path = local_path(weights)
    arrays = read_state_dict(path)
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    not_finite = [name for name, array in floats.items() if not np.isfinite(array).all()]
    return {
        "path": path,
        "size_bytes": os.path.getsize(path),
        "sha256": file_sha256(path),
        "arrays": len(arrays),
        "values": sum(array.size for array in arrays.values()),
        "types": sorted({str(array.dtype) for array in arrays.values()}),
        "not_finite": not_finite,
        "ok": not not_finite,
    }
