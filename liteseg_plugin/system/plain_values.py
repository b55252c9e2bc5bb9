"""Bounds of what a file of weights holds: plain values and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from liteseg_plugin.errors import WeightsError

MOST_OBJECTS = 1_000_000
"""Values; those in several places are counted in each."""
MOST_LEVELS = 100
"""Lists, tuples and dictionaries inside each other."""
MOST_SHARING = 4
"""Bytes of arrays, counted alike, as a multiple of the file's size; networks share some weights."""


def check_plain(value: Any, file_bytes: int) -> None:
    """Check that a value is plain and within the bounds, without expanding what it shares.

    Raises:
        WeightsError: If it holds anything but None, booleans, numbers, text, arrays, and lists,
            tuples and dictionaries of these; or exceeds ``MOST_OBJECTS``, ``MOST_LEVELS`` or
            ``MOST_SHARING``; or holds itself.
    """
    sums: dict[int, tuple[int, int, int] | None] = {}
    too_deep = WeightsError(f"it has more than {MOST_LEVELS} levels")

    def count(value: Any, level: int) -> tuple[int, int, int]:
        """Return number of values, bytes of arrays, and levels."""
        if isinstance(value, np.ndarray):
            return 1, value.nbytes, 0
        if value is None or type(value) in (bool, int, float, str):
            return 1, 0, 0
        if type(value) not in (list, tuple, dict):
            raise WeightsError(f"it holds a value of type {type(value).__name__}")
        if id(value) not in sums:
            sums[id(value)] = None  # until it is counted
            if level > MOST_LEVELS:
                raise too_deep
            entries = value.values() if type(value) is dict else value
            number, size, levels = 1, 0, 0
            for entry in entries:
                n, bytes_, below = count(entry, level + 1)
                number, size, levels = number + n, size + bytes_, max(levels, below + 1)
            if number > MOST_OBJECTS:
                raise WeightsError(
                    f"it has more than {MOST_OBJECTS} values, those in several places counted in "
                    "each"
                )
            if size > MOST_SHARING * file_bytes:
                raise WeightsError(
                    f"its arrays, those in several places counted in each, take {size} bytes, more "
                    f"than {MOST_SHARING} times the size of the file"
                )
            if levels > MOST_LEVELS:
                raise too_deep
            sums[id(value)] = number, size, levels
        counted = sums[id(value)]
        if counted is None:
            raise WeightsError("it holds a list or dictionary inside itself")
        return counted

    count(value, 0)
